"""Derived ops that move elements."""

from __future__ import annotations

from functools import reduce as fold_left
from typing import Any

import numpy as np

from safegraph import value as v
from safegraph.derived.base import Derived
from safegraph.dims import Dim, Shape, add_all, require_same
from safegraph.errors import ShapeError
from safegraph.op import TensorType, Work, axis_of
from safegraph.value import Value


class Reshape(Derived):
    """the elements in row-major order, in another shape"""

    is_view = True
    moves = True
    linear = (0,)
    to: Shape  # one -1 is what remains

    def define(self, x: Value) -> Value:
        return v.reshape(x, self.to)

    def normal(self, x: TensorType) -> Reshape:
        return Reshape(self.type(x).shape)

    def run(self, x: Any) -> Any:
        return np.reshape(x, self.to)

    @classmethod
    def draw(cls, rng: np.random.Generator, x: tuple[int, ...]) -> Reshape:
        left = int(np.prod(x))
        to: list[int] = []
        while left > 1 and len(to) < 4:
            d = int(rng.choice([n for n in range(1, left + 1) if left % n == 0]))
            to.append(d)
            left //= d
        return cls((*to, left))


class Expand(Derived):
    """repeated to a shape, with NumPy's broadcasting"""

    is_view = True
    moves = True
    linear = (0,)
    to: Shape

    def define(self, x: Value) -> Value:
        return v.expand(x, v.broadcast_shapes(self.to, x.shape))

    def normal(self, x: TensorType) -> Expand:
        return Expand(self.type(x).shape)

    def run(self, x: Any) -> Any:
        return np.broadcast_to(x, np.broadcast_shapes(self.to, x.shape))

    @classmethod
    def draw(cls, rng: np.random.Generator, x: tuple[int, ...]) -> Expand:
        front = tuple(int(n) for n in rng.integers(1, 3, int(rng.integers(0, 2))))
        return cls(front + tuple(int(rng.integers(1, 4)) if d == 1 else d for d in x))


class Concat(Derived):
    """x y -> x then y, along one axis"""

    axis: int

    def define(self, *xs: Value) -> Value:
        """The sum of the operands, each padded with zeros to the full size (bool: the maximum)."""
        if not xs:
            raise ShapeError("nothing to concatenate")
        axis = axis_of(self.axis, xs[0].rank)
        for x in xs[1:]:
            if x.rank != xs[0].rank:
                raise ShapeError(f"operands of rank {xs[0].rank} and {x.rank}")
            for i, (a, b) in enumerate(zip(xs[0].shape, x.shape, strict=True)):
                if i != axis:
                    require_same(a, b, f"axis {i}")
        total = add_all(x.shape[axis] for x in xs)
        start: Dim = 0
        parts = []
        for x in xs:
            before = [start if i == axis else 0 for i in range(x.rank)]
            start = start + x.shape[axis]
            after = [total - start if i == axis else 0 for i in range(x.rank)]
            parts.append(v.pad(x, before, after))
        return fold_left(
            lambda a, b: v.binary("maximum" if a.dtype == "bool" else "add", a, b), parts
        )

    def normal(self, *xs: TensorType) -> Concat:
        return Concat(axis_of(self.axis, xs[0].rank))

    def work(self, *xs: TensorType) -> Work:
        return Work()

    def run(self, *xs: Any) -> Any:
        return np.concatenate(xs, self.axis)

    @classmethod
    def draw(cls, rng: np.random.Generator, *xs: tuple[int, ...]) -> Concat | None:
        if not xs:
            return None
        fits = [
            i
            for i in range(len(xs[0]))
            if all(
                len(x) == len(xs[0]) and x[:i] == xs[0][:i] and x[i + 1 :] == xs[0][i + 1 :]
                for x in xs
            )
        ]
        return cls(fits[int(rng.integers(len(fits)))]) if fits else None


class Index(Derived):
    """x[:, 3]: one place of an axis, which is dropped"""

    moves = True
    linear = (0,)
    axis: int
    at: Dim  # a negative number counts from the end

    def define(self, x: Value) -> Value:
        axis = axis_of(self.axis, x.rank)
        at = x.shape[axis] + self.at if isinstance(self.at, int) and self.at < 0 else self.at
        return v.squeeze(v.slice_axis(x, axis, at, at + 1), [axis])

    def normal(self, x: TensorType) -> Index:
        return Index(axis_of(self.axis, x.rank), self.at)

    def run(self, x: Any) -> Any:
        return np.asarray(x[(*[slice(None)] * self.axis, self.at)])

    @classmethod
    def draw(cls, rng: np.random.Generator, x: tuple[int, ...]) -> Index | None:
        axes = [i for i, d in enumerate(x) if d]
        if not axes:
            return None
        axis = axes[int(rng.integers(len(axes)))]
        return cls(axis, int(rng.integers(-x[axis], x[axis])))


class Tile(Derived):
    """the whole repeated along each axis"""

    moves = True
    linear = (0,)
    counts: tuple[Dim, ...]

    def define(self, x: Value) -> Value:
        if len(self.counts) != x.rank:
            raise ShapeError(f"{len(self.counts)} counts for {x.rank} axes")
        wide = v.unsqueeze(x, range(0, 2 * x.rank, 2))
        many = v.repeat(wide, [c for n in self.counts for c in (n, 1)])
        return v.group(many, [2] * x.rank) if x.rank else many

    def run(self, x: Any) -> Any:
        return np.tile(x, self.counts)  # type: ignore[arg-type]

    @classmethod
    def draw(cls, rng: np.random.Generator, x: tuple[int, ...]) -> Tile:
        return cls(tuple(int(n) for n in rng.integers(1, 4, len(x))))


Reshape.examples = (
    (Reshape((2, 12)), "f32[2 3 4]"),
    (Reshape((6, 4)), "f32[2 3 4]"),
    (Reshape((2, 3, 2, 2)), "f32[2 3 4]"),
    (Reshape((4, 6)), "f32[2 3 4]"),
)
Expand.examples = ((Expand((2, 3)), "f32[3]"), (Expand((2, 3)), "f32[2 1]"))
Concat.examples = ((Concat(1), "f32[2 3], f32[2 4]"), (Concat(0), "f32[2 3], f32[2 3], f32[1 3]"))
Index.examples = ((Index(1, 2), "f32[2 3 4]"),)
Tile.examples = ((Tile((2, 3)), "f32[2 4]"),)

__all__ = ["Concat", "Expand", "Index", "Reshape", "Tile"]
