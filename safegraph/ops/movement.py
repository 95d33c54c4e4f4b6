"""Core ops that move elements: no arithmetic, and every one but the views copies."""

from __future__ import annotations

from math import gcd
from typing import Any

import numpy as np

from safegraph.dims import (
    Dim,
    Shape,
    at_least,
    product,
    require_at_least,
    require_divide,
    require_same,
    same,
)
from safegraph.dtypes import require_number
from safegraph.errors import ShapeError
from safegraph.op import Op, TensorType, Work, axes_of, axis_of


class Movement(Op, abstract=True):
    """An op that only moves elements, one operand to one result."""

    moves = True
    linear = (0,)


class Permute(Movement):
    """b c h w -> b h w c"""

    is_view = True
    order: tuple[int, ...]  # axis i of the result is axis order[i] of the operand

    def shape(self, x: Shape) -> Shape:
        if len(axes_of(self.order, len(x))) != len(x):
            raise ShapeError(f"{self.order} is no order of {len(x)} axes")
        return tuple(x[i] for i in self.order)

    def run(self, x: Any) -> Any:
        return np.transpose(x, self.order)

    def inverse(self, x: Shape) -> Permute:
        order = [axis_of(a, len(x)) for a in self.order]
        return Permute(tuple(order.index(i) for i in range(len(order))))

    def normal(self, x: TensorType) -> Permute:
        return Permute(tuple(axis_of(a, x.rank) for a in self.order))

    def is_identity(self, x: TensorType) -> bool:
        return self.order == tuple(range(len(self.order)))

    @classmethod
    def draw(cls, rng: np.random.Generator, x: tuple[int, ...]) -> Permute:
        return cls(tuple(int(i) for i in rng.permutation(len(x))))


class Group(Movement):
    """a b c d -> a b (c d)"""

    is_view = True
    runs: tuple[int, ...]  # how many neighbouring axes become axis i of the result

    def shape(self, x: Shape) -> Shape:
        if sum(self.runs) != len(x) or any(n < 1 for n in self.runs):
            raise ShapeError(f"runs {self.runs} do not share out {len(x)} axes")
        axes = iter(x)
        return tuple(product(next(axes) for _ in range(n)) for n in self.runs)

    def run(self, x: Any) -> Any:
        return np.reshape(x, self.shape(x.shape))

    def inverse(self, x: Shape) -> Ungroup:
        axes = iter(x)
        return Ungroup(tuple(_factors([next(axes) for _ in range(n)]) for n in self.runs))

    def is_identity(self, x: TensorType) -> bool:
        return all(n == 1 for n in self.runs)

    @classmethod
    def draw(cls, rng: np.random.Generator, x: tuple[int, ...]) -> Group:
        runs: list[int] = []
        while sum(runs) < len(x):
            runs.append(int(rng.integers(1, len(x) - sum(runs) + 1)))
        return cls(tuple(runs))


class Ungroup(Movement):
    """n c (img 10) -> n c img 10"""

    is_view = True
    factors: tuple[tuple[Dim, ...], ...]  # of each axis; -1 is what remains, at most one an axis

    def shape(self, x: Shape) -> Shape:
        if len(self.factors) != len(x):
            raise ShapeError(f"factors for {len(self.factors)} axes, the operand has {len(x)}")
        found: list[Dim] = []
        for axis, (size, factors) in enumerate(zip(x, self.factors, strict=True)):
            known = product(f for f in factors if f != -1)
            if factors.count(-1) > 1 or not factors:
                raise ShapeError(
                    f"axis {axis}: factors {factors} need one or no -1, and at least one factor"
                )
            if -1 in factors:
                rest = require_divide(size, known, f"axis {axis}")
            else:
                require_same(known, size, f"the product of the factors of axis {axis}")
                rest = 1
            found += [rest if f == -1 else f for f in factors]
        return tuple(found)

    def run(self, x: Any) -> Any:
        return np.reshape(x, self.shape(x.shape))

    def inverse(self, x: Shape) -> Group:
        return Group(tuple(len(f) for f in self.factors))

    def normal(self, x: TensorType) -> Ungroup:
        sizes = iter(self.shape(x.shape))
        return Ungroup(tuple(_factors([next(sizes) for _ in f]) for f in self.factors))

    def is_identity(self, x: TensorType) -> bool:
        return all(len(f) == 1 for f in self.factors)

    @classmethod
    def draw(cls, rng: np.random.Generator, x: tuple[int, ...]) -> Ungroup:
        def split(size: int) -> tuple[Dim, ...]:
            divisors = [d for d in range(1, size + 1) if size % d == 0]
            return (-1, int(rng.choice(divisors))) if divisors and rng.random() < 0.6 else (-1,)

        return cls(tuple(split(d) for d in x))


def _factors(sizes: list[Dim]) -> tuple[Dim, ...]:
    """-1 for the first size: it follows from the others, unless one of them is 0."""
    return tuple(sizes) if 0 in sizes[1:] else (-1, *sizes[1:])


class Squeeze(Movement):
    """a b 1 c d 1 -> a b c d"""

    is_view = True
    axes: tuple[int, ...]

    def shape(self, x: Shape) -> Shape:
        axes = axes_of(self.axes, len(x))
        for a in axes:
            require_same(x[a], 1, f"axis {a}")
        return tuple(d for i, d in enumerate(x) if i not in axes)

    def run(self, x: Any) -> Any:
        return np.squeeze(x, axis=self.axes)

    def inverse(self, x: Shape) -> Unsqueeze:
        return Unsqueeze(axes_of(self.axes, len(x)))

    def normal(self, x: TensorType) -> Squeeze:
        return Squeeze(axes_of(self.axes, x.rank))

    def is_identity(self, x: TensorType) -> bool:
        return not self.axes

    @classmethod
    def draw(cls, rng: np.random.Generator, x: tuple[int, ...]) -> Squeeze:
        return cls(tuple(i for i, d in enumerate(x) if d == 1 and rng.random() < 0.8))


class Unsqueeze(Movement):
    """a b c d -> a b 1 c d 1"""

    is_view = True
    axes: tuple[int, ...]  # of the result

    def shape(self, x: Shape) -> Shape:
        rank = len(x) + len(self.axes)
        axes = axes_of(self.axes, rank)
        rest = iter(x)
        return tuple(1 if i in axes else next(rest) for i in range(rank))

    def run(self, x: Any) -> Any:
        return np.expand_dims(x, self.axes)

    def inverse(self, x: Shape) -> Squeeze:
        return Squeeze(axes_of(self.axes, len(x) + len(self.axes)))

    def normal(self, x: TensorType) -> Unsqueeze:
        return Unsqueeze(axes_of(self.axes, x.rank + len(self.axes)))

    def is_identity(self, x: TensorType) -> bool:
        return not self.axes

    @classmethod
    def draw(cls, rng: np.random.Generator, x: tuple[int, ...]) -> Unsqueeze:
        rank = len(x) + int(rng.integers(0, 3))
        return cls(tuple(sorted(int(a) for a in rng.permutation(rank)[len(x) :])))


class Stride(Movement):
    """x[::2, :, ::3]"""

    steps: tuple[int, ...]  # of each axis

    def shape(self, x: Shape) -> Shape:
        _one_each("steps", self.steps, x)
        _at_least_1("step", *self.steps)
        return tuple((d + s - 1) // s for d, s in zip(x, self.steps, strict=True))

    def run(self, x: Any) -> Any:
        return x[tuple(slice(None, None, s) for s in self.steps)]

    def pseudo_inverse(self, x: Shape) -> Interleave:
        return Interleave(self.steps, 0)

    def is_identity(self, x: TensorType) -> bool:
        return all(s == 1 or d == 1 for s, d in zip(self.steps, x.shape, strict=True))

    @classmethod
    def draw(cls, rng: np.random.Generator, x: tuple[int, ...]) -> Stride:
        return cls(tuple(int(rng.integers(1, 4)) for _ in x))


class Interleave(Movement):
    """fill between neighbours: x[0], fill, fill, x[1], ... for a step of 3"""

    steps: tuple[int, ...]  # of each axis: size d becomes (d - 1) * step + 1
    fill: float

    def shape(self, x: Shape) -> Shape:
        _one_each("steps", self.steps, x)
        _at_least_1("step", *self.steps)
        return tuple((d - 1) * s + 1 for d, s in zip(x, self.steps, strict=True))

    def dtype(self, x: str) -> str:
        require_number(self.fill, x)
        return x

    def run(self, x: Any) -> Any:
        out = np.full(self.shape(x.shape), self.fill, x.dtype)
        out[tuple(slice(None, None, s) for s in self.steps)] = x
        return out

    def inverse(self, x: Shape) -> Stride:
        return Stride(self.steps)

    def is_identity(self, x: TensorType) -> bool:
        return all(s == 1 or d == 1 for s, d in zip(self.steps, x.shape, strict=True))

    @classmethod
    def draw(cls, rng: np.random.Generator, x: tuple[int, ...]) -> Interleave:
        return cls(tuple(int(rng.integers(1, 4)) for _ in x), float(rng.integers(0, 2)))


class Slice(Movement):
    """x[1:3, :, 2:]; the text form writes 1..2, with both ends in"""

    starts: tuple[Dim, ...]
    stops: tuple[Dim | None, ...]  # one past the last; None is the end of the axis

    def ends(self, x: Shape) -> list[tuple[Dim, Dim]]:
        """Where the part of each axis starts and stops: negative numbers count from the end."""
        _one_each("starts", self.starts, x)
        _one_each("stops", self.stops, x)

        def at(d: Dim, v: Dim) -> Dim:
            return d + v if isinstance(v, int) and v < 0 else v

        rows = zip(x, self.starts, self.stops, strict=True)
        return [(at(d, a), d if b is None else at(d, b)) for d, a, b in rows]

    def shape(self, x: Shape) -> Shape:
        found = []
        for i, (d, (a, b)) in enumerate(zip(x, self.ends(x), strict=True)):
            if at_least(a, 0) is False or at_least(d, b) is False or at_least(b, a) is False:
                raise ShapeError(f"axis {i} of size {d} has no elements {a} up to {b}")
            for more, less in ((a, 0), (d, b), (b, a)):
                require_at_least(more, less, f"axis {i}")
            found.append(b - a)
        return tuple(found)

    def run(self, x: Any) -> Any:
        return x[tuple(slice(a, b) for a, b in self.ends(x.shape))]

    def pseudo_inverse(self, x: Shape) -> Pad:
        ends = self.ends(x)
        after = tuple(d - b for d, (_, b) in zip(x, ends, strict=True))
        return Pad(tuple(a for a, _ in ends), after, 0)

    def normal(self, x: TensorType) -> Slice:
        """Counted from the front; a stop at the end is None."""
        ends = self.ends(x.shape)
        stops = (None if b == d else b for d, (_, b) in zip(x.shape, ends, strict=True))
        return Slice(tuple(a for a, _ in ends), tuple(stops))

    def is_identity(self, x: TensorType) -> bool:
        return all(a == 0 for a in self.starts) and all(
            b is None or b == d for b, d in zip(self.stops, x.shape, strict=True)
        )

    @classmethod
    def draw(cls, rng: np.random.Generator, x: tuple[int, ...]) -> Slice:
        drawn = [sorted(int(v) for v in rng.integers(0, d + 1, 2)) for d in x]
        ends = [
            (0, d) if a == b or rng.random() < 0.3 else (a, b)
            for (a, b), d in zip(drawn, x, strict=True)
        ]
        return cls(
            tuple(a for a, _ in ends),
            tuple(None if b == d else b for (_, b), d in zip(ends, x, strict=True)),
        )


class Pad(Movement):
    """a b -> 1 <- a -> 1, 2 <- b -> 0"""

    before: tuple[Dim, ...]  # elements added at the front of each axis, >= 0
    after: tuple[Dim, ...]
    fill: float

    def shape(self, x: Shape) -> Shape:
        _one_each("before", self.before, x)
        _one_each("after", self.after, x)
        if any(at_least(n, 0) is False for n in (*self.before, *self.after)):
            raise ShapeError(f"cannot pad by {self.before} and {self.after}: use slice to cut")
        return tuple(a + d + b for a, d, b in zip(self.before, x, self.after, strict=True))

    def dtype(self, x: str) -> str:
        require_number(self.fill, x)
        return x

    def run(self, x: Any) -> Any:
        out = np.full(self.shape(x.shape), self.fill, x.dtype)
        out[tuple(slice(a, a + d) for a, d in zip(self.before, x.shape, strict=True))] = x
        return out

    def inverse(self, x: Shape) -> Slice:
        stops = (
            None if c == 0 else a + d for a, d, c in zip(self.before, x, self.after, strict=True)
        )
        return Slice(self.before, tuple(stops))

    def is_identity(self, x: TensorType) -> bool:
        return all(n == 0 for n in (*self.before, *self.after))

    @classmethod
    def draw(cls, rng: np.random.Generator, x: tuple[int, ...]) -> Pad:
        before, after = (tuple(int(n) for n in rng.integers(0, 3, len(x))) for _ in range(2))
        return cls(before, after, float(rng.integers(0, 2)))


class Repeat(Movement):
    """n 1 h 1 -> n {3} h {10}"""

    is_view = True
    counts: tuple[Dim, ...]  # of each axis; an axis that is repeated has size 1

    def shape(self, x: Shape) -> Shape:
        _one_each("counts", self.counts, x)
        for i, (d, n) in enumerate(zip(x, self.counts, strict=True)):
            if at_least(n, 0) is False:
                raise ShapeError(f"axis {i} cannot be repeated {n} times")
            if n != 1:
                require_same(d, 1, f"axis {i}, which is repeated {n} times,")
        return tuple(d if n == 1 else n for d, n in zip(x, self.counts, strict=True))

    def run(self, x: Any) -> Any:
        return np.broadcast_to(x, self.shape(x.shape))  # type: ignore[arg-type]

    def inverse(self, x: Shape) -> Op | None:
        from safegraph.ops.reduction import Reduce

        if not all(
            at_least(n, 1) for n in self.counts
        ):  # nothing is left of what is repeated 0 times
            return None
        # The maximum of equal values is exact in every element type; their mean is only close.
        return Reduce(tuple(i for i, n in enumerate(self.counts) if n != 1), "max")

    def is_identity(self, x: TensorType) -> bool:
        return all(n == 1 for n in self.counts)

    @classmethod
    def draw(cls, rng: np.random.Generator, x: tuple[int, ...]) -> Repeat:
        return cls(tuple(int(rng.integers(1, 5)) if d == 1 else 1 for d in x))


class Unfold(Movement):
    """n {h: windows 3} w: windows of an axis, as two axes in its place (windows, window)"""

    axis: int
    window: Dim
    step: Dim
    dilation: Dim = 1

    def shape(self, x: Shape) -> Shape:
        axis = axis_of(self.axis, len(x))
        _at_least_1("window, step and dilation", self.window, self.step, self.dilation)
        reach = (self.window - 1) * self.dilation + 1
        if at_least(x[axis], reach) is False:
            raise ShapeError(
                f"a window that reaches over {reach} does not fit axis {axis} of size {x[axis]}"
            )
        windows = (x[axis] - reach) // self.step + 1
        return (*x[:axis], windows, self.window, *x[axis + 1 :])

    def run(self, x: Any) -> Any:
        windows, step, window, dilation = map(
            int, (self.shape(x.shape)[self.axis], self.step, self.window, self.dilation)
        )
        index = np.arange(windows)[:, None] * step + np.arange(window)[None] * dilation
        return np.take(x, index, axis=self.axis)

    def inverse(self, x: Shape) -> Fold | None:
        covers = same(self.shape(x)[self.axis] * self.window, x[self.axis])
        if covers and self.dilation == 1 and self.step == self.window:
            return Fold(self.axis, self.step, 1)
        return None

    def pseudo_inverse(self, x: Shape) -> Fold | None:
        windows = self.shape(x)[self.axis]
        if disjoint(windows, self.window, self.step, self.dilation):
            return Fold(self.axis, self.step, self.dilation)
        return None

    def normal(self, x: TensorType) -> Unfold:
        return Unfold(axis_of(self.axis, x.rank), self.window, self.step, self.dilation)

    @classmethod
    def draw(cls, rng: np.random.Generator, x: tuple[int, ...]) -> Unfold | None:
        axes = [i for i, d in enumerate(x) if d >= 1]
        if not axes:
            return None
        axis = int(rng.choice(axes))
        window = int(rng.integers(1, min(4, x[axis]) + 1))
        most = (x[axis] - 1) // (window - 1) if window > 1 else 3
        return cls(axis, window, int(rng.integers(1, 4)), int(rng.integers(1, min(3, most) + 1)))


class Fold(Movement):
    """n {windows 3} w -> n h w: overlapping windows added up, the reverse of unfold"""

    moves = False
    axis: int  # of the windows; axis + 1 is the window
    step: Dim
    dilation: Dim = 1

    def shape(self, x: Shape) -> Shape:
        axis = axis_of(self.axis, len(x) - 1)
        _at_least_1("step and dilation", self.step, self.dilation)
        windows, window = x[axis], x[axis + 1]
        return (
            *x[:axis],
            (windows - 1) * self.step + (window - 1) * self.dilation + 1,
            *x[axis + 2 :],
        )

    def run(self, x: Any) -> Any:
        out = np.zeros(self.shape(x.shape), x.dtype)
        front = (slice(None),) * self.axis
        windows, window = x.shape[self.axis], x.shape[self.axis + 1]
        for j in range(window):
            first = j * self.dilation
            stop = first + (windows - 1) * self.step + 1
            out[(*front, slice(first, stop, self.step))] += x[(*front, slice(None), j)]
        return out

    def work(self, x: TensorType) -> Work:
        windows, window = x.shape[self.axis], x.shape[self.axis + 1]
        return (
            Work() if disjoint(windows, window, self.step, self.dilation) else Work(reduce=x.numel)
        )

    def inverse(self, x: Shape) -> Unfold | None:
        windows, window = x[self.axis], x[self.axis + 1]
        if disjoint(windows, window, self.step, self.dilation):
            return Unfold(self.axis, window, self.step, self.dilation)
        return None

    def normal(self, x: TensorType) -> Fold:
        return Fold(axis_of(self.axis, x.rank - 1), self.step, self.dilation)

    @classmethod
    def draw(cls, rng: np.random.Generator, x: tuple[int, ...]) -> Fold | None:
        axes = [i for i in range(len(x) - 1) if x[i] >= 1 and x[i + 1] >= 1]
        if not axes:
            return None
        return cls(int(rng.choice(axes)), int(rng.integers(1, 4)), int(rng.integers(1, 4)))


def disjoint(windows: Dim, window: Dim, step: Dim, dilation: Dim) -> bool:
    """Do no two windows share an element?  (False where sizes leave it open.)

    Elements i*step + j*dilation meet first where i = dilation/g and j = step/g, g = gcd.
    """
    if not isinstance(step, int) or not isinstance(dilation, int):
        return False
    g = gcd(step, dilation)
    return bool(at_least(step // g, window)) or bool(at_least(dilation // g, windows))


def _one_each(what: str, values: tuple[Any, ...], x: Shape) -> None:
    if len(values) != len(x):
        raise ShapeError(f"{len(values)} {what} for {len(x)} axes")


def _at_least_1(what: str, *values: Dim) -> None:
    for value in values:
        if at_least(value, 1) is False:
            raise ShapeError(f"{what} must be at least 1, not {value}")
