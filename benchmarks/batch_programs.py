"""Random programs with a free batch, in which it is merged, moved, split, repeated to and counted.

Drawn so that samples stay apart in about half of them: along an axis with the batch in it most ops
are drawn seldom, and reshapes keep the order of the factors more often than not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.batch_pool import BATCH, SIZES, Pool, Program, batched, primes
from safegraph import value as v
from safegraph.derived import (
    ArgMax,
    Concat,
    Conv,
    CumSum,
    Einsum,
    Flip,
    Gather,
    GatherElements,
    GatherNd,
    LayerNorm,
    Matmul,
    Softmax,
    TopK,
)
from safegraph.derived.base import randomly
from safegraph.dims import Dim, divide, evaluate, product
from safegraph.value import Value, apply

_KINDS = ("neg", "tanh", "sin", "cos", "exp", "gaussian", "sign", "floor")
_PAIRS = ("add", "add", "subtract", "multiply", "multiply", "maximum", "minimum")


def program(rng: np.random.Generator) -> Program:
    """A random program of about 3 to 13 steps, with the batch in an input."""
    while True:
        draw = _Steps(rng)
        wanted = int(rng.integers(3, 14))
        kinds, weights = draw.kinds()
        tries = 0
        while len(draw.steps) < wanted and tries < 12 * wanted:
            tries += 1
            draw.step(kinds[int(np.searchsorted(weights, rng.random()))])
        found = draw.program()
        if found.axes and len(found.dag):
            return found


class _Steps(Pool):
    """The kinds of steps."""

    def kinds(self) -> tuple[list[Callable[[], Value | None]], np.ndarray]:
        """What can be drawn, with how likely each is, added up."""
        # fmt: off
        table = {
            self.pointwise: 5, self.pair: 8, self.chosen: 1, self.permuted: 12, self.grouped: 11,
            self.ungrouped: 10, self.reshaped: 8, self.squeezed: 2, self.unsqueezed: 3,
            self.repeated: 6, self.reduced: 5, self.cut: 4, self.strided: 1, self.interleaved: 1,
            self.padded: 1, self.windows: 2, self.overlapped: 1, self.joined: 5, self.contracted: 6,
            self.multiplied: 2, self.gathered: 3, self.gathered_each: 3, self.gathered_places: 1,
            self.softmax: 2, self.normalised: 1, self.summed_up: 1, self.flipped: 1,
            self.largest: 1, self.place: 1, self.convolved: 2, self.counted: 2, self.numbered: 2,
            self.filled: 2,
        }
        # fmt: on
        weights = np.cumsum(list(table.values())) / sum(table.values())
        return list(table), weights

    def pointwise(self) -> Value | None:
        return v.unary(randomly(self.rng, _KINDS), self.value())

    def pair(self) -> Value | None:
        x = self.value()
        y = self.like(x.shape)
        if self.rng.random() < 0.1:
            return v.binary("divide", x, y * y + 1.0)
        return v.binary(randomly(self.rng, _PAIRS), x, y)

    def chosen(self) -> Value | None:
        x = self.value()
        return v.select(v.binary("less", x, self.like(x.shape)), x, self.like(x.shape))

    def permuted(self) -> Value | None:
        x = self.value()
        return v.permute(x, [int(i) for i in self.rng.permutation(x.rank)])

    def grouped(self) -> Value | None:
        x, runs = self.value(), []
        left = x.rank
        while left:
            runs.append(min(left, randomly(self.rng, (1, 1, 2, 2, 3))))
            left -= runs[-1]
        return v.group(x, runs)

    def ungrouped(self) -> Value | None:
        several = [x for x in self.values if any(len(primes(d)) > 1 for d in x.shape)]
        x = randomly(self.rng, several) if several else self.value()
        return v.ungroup(x, [self.factors(d) for d in x.shape])

    def factors(self, d: Dim) -> tuple[Dim, ...]:
        """An axis as two, or three, or as it is."""
        rng = self.rng
        parts = primes(d)
        if len(parts) < 2 or rng.random() < 0.3:
            return (-1,)
        order = parts if rng.random() < 0.6 else [parts[i] for i in rng.permutation(len(parts))]
        at = int(rng.integers(1, len(order)))
        halves: list[Dim] = [product(order[:at]), product(order[at:])]
        if rng.random() < 0.5:
            halves[int(rng.integers(2))] = -1
        return tuple(halves)

    def reshaped(self) -> Value | None:
        """All factors in another arrangement, most often in the same order."""
        rng, x = self.rng, self.value()
        parts = [p for d in x.shape for p in primes(d)]
        if rng.random() < 0.3:
            parts = [parts[i] for i in rng.permutation(len(parts))]
        shape: list[Dim] = []
        at = 0
        while at < len(parts):
            count = randomly(rng, (1, 1, 2, 3))
            shape.append(product(parts[at : at + count]))
            at += count
        if rng.random() < 0.2:
            shape.insert(int(rng.integers(len(shape) + 1)), 1)
        return v.reshape(x, shape)

    def squeezed(self) -> Value | None:
        x = self.value()
        return v.squeeze(
            x, [i for i, d in enumerate(x.shape) if d == 1 and self.rng.random() < 0.8]
        )

    def unsqueezed(self) -> Value | None:
        x = self.value()
        return v.unsqueeze(x, [int(self.rng.integers(x.rank + 1))])

    def repeated(self) -> Value | None:
        """To the batch, or to a number."""
        rng = self.rng
        free = [x for x in self.values if not any(map(batched, x.shape))]
        x = randomly(rng, free) if free and rng.random() < 0.6 else self.value()
        ones = [i for i, d in enumerate(x.shape) if d == 1]
        if not ones or rng.random() < 0.3:
            at = 0 if rng.random() < 0.6 else int(rng.integers(x.rank + 1))
            x, ones = v.unsqueeze(x, [at]), [at]
        at = randomly(rng, ones)
        count = randomly(rng, (BATCH, BATCH, BATCH, 2 * BATCH, 2, 3))
        return v.repeat(x, [count if i == at else 1 for i in range(x.rank)])

    def reduced(self) -> Value | None:
        rng, x = self.rng, self.value()
        found = {self.axis(x, 0.9) for _ in range(randomly(rng, (1, 1, 2)))} - {None}
        kind = randomly(rng, ("sum", "sum", "mean", "max", "min", "prod"))
        axes = sorted(a for a in found if a is not None)
        return v.reduce(x, axes, kind, keep=bool(rng.random() < 0.5)) if axes else None

    def cut(self) -> Value | None:
        """A part of an axis; of one with the batch in it at multiples of that, most often."""
        rng, x = self.rng, self.value()
        axis = self.axis(x, 0.6)
        if axis is None:
            return None
        d = x.shape[axis]
        whole = divide(d, BATCH)
        unit: Dim = BATCH if isinstance(whole, int) and rng.random() < 0.8 else 1
        count = whole if unit is BATCH else d if isinstance(d, int) else 2
        assert isinstance(count, int)
        a, b = sorted(int(n) for n in rng.integers(0, count + 1, 2))
        return v.slice_axis(x, axis, a * unit, b * unit) if a < b else None

    def each(self, one: Callable[[], int], other: int) -> tuple[Value, list[int]] | None:
        """A value and a number for one of its axes, another one for the rest."""
        x = self.value()
        axis = self.axis(x)
        return None if axis is None else (x, [one() if i == axis else other for i in range(x.rank)])

    def strided(self) -> Value | None:
        found = self.each(lambda: randomly(self.rng, (2, 3)), 1)
        return found and v.stride(*found)

    def interleaved(self) -> Value | None:
        found = self.each(lambda: 2, 1)
        return found and v.interleave(*found, randomly(self.rng, (0.0, 1.0)))

    def padded(self) -> Value | None:
        found = self.each(lambda: randomly(self.rng, (1, 2)), 0)
        if found is None:
            return None
        none = [0] * found[0].rank
        sides = (found[1], none) if self.rng.random() < 0.5 else (none, found[1])
        return v.pad(found[0], *sides, randomly(self.rng, (0.0, 1.0)))

    def windows(self) -> Value | None:
        x, rng = self.value(), self.rng
        axis, window = self.axis(x), randomly(rng, (1, 2))
        if axis is None or any(evaluate(x.shape[axis], {"batch": n}) < window for n in SIZES):
            return None
        return v.unfold(x, axis, window, randomly(rng, (1, 2)))

    def overlapped(self) -> Value | None:
        x = self.value()
        axis = self.axis(x)
        if axis is None or axis + 1 >= x.rank:
            return None
        return v.fold(x, axis, randomly(self.rng, (1, 2, 3)))

    def joined(self) -> Value | None:
        rng, x = self.rng, self.value()
        axis = self.axis(x, 0.6)
        if axis is None:
            return None
        fits = [
            y
            for y in self.values
            if y.rank == x.rank
            and all(
                a == b for i, (a, b) in enumerate(zip(x.shape, y.shape, strict=True)) if i != axis
            )
        ]
        parts = [x, randomly(rng, fits)]
        if rng.random() < 0.15:
            parts.append(randomly(rng, fits))
        return apply(Concat(axis), *parts)

    def contracted(self) -> Value | None:
        """Any einsum of two values; labels of equal sizes are shared, the batch almost always."""
        rng, x = self.rng, self.value()
        y = self.value() if rng.random() < 0.7 else self.constant(tuple(self.sizes(2)))
        left = list(range(x.rank))
        free = set(left)
        right: list[int] = []
        for d in y.shape:
            shared = [i for i in sorted(free) if x.shape[i] == d]
            if shared and rng.random() < (0.9 if batched(d) else 0.7):
                right.append(randomly(rng, shared))
                free.discard(right[-1])
            else:
                right.append(x.rank + len(right))
        sizes = {**dict(zip(right, y.shape, strict=True)), **dict(zip(left, x.shape, strict=True))}
        kept = [c for c, d in sizes.items() if rng.random() < (0.93 if batched(d) else 0.6)]
        out = kept if rng.random() < 0.5 else [kept[i] for i in rng.permutation(len(kept))]
        return apply(Einsum(tuple(left), tuple(right), tuple(out)).canonical(), x, y)

    def multiplied(self) -> Value | None:
        x = self.value()
        if not x.rank:
            return None
        last = x.shape[-1]
        if batched(last) or self.rng.random() < 0.3:
            return apply(Matmul(), x, self.value())
        return apply(Matmul(), x, self.constant((last, randomly(self.rng, self.palette))))

    def index(self, *wanted: Dim) -> Value:
        """Whole numbers that every axis has: -1 and 0."""
        if any(batched(d) for d in wanted):
            return self.input("i64", wanted)
        return self.constant(wanted, "i64")

    def gathered(self) -> Value | None:
        rng, x = self.rng, self.value()
        axis = self.axis(x, 0.9)
        shapes: tuple[tuple[Dim, ...], ...] = ((BATCH,), (2,), (), (BATCH, 2), (3,))
        wanted = randomly(rng, shapes)
        return None if axis is None else apply(Gather(axis), x, self.index(*wanted))

    def gathered_each(self) -> Value | None:
        """One place of each sample: indices beside 0, 1, ... batch - 1."""
        rng = self.rng
        fits = [(x, i) for x in self.values for i in range(x.rank - 1) if x.shape[i] == BATCH]
        if not fits:
            return None
        x, axis = randomly(rng, fits)
        more = randomly(rng, (0, 0, 1))
        wanted = (BATCH, 2)[: 1 + more]
        place = self.index(*wanted) if rng.random() < 0.85 else self.constant((), "i64")
        counted = v.iota(BATCH) if rng.random() < 0.9 else self.index(BATCH)
        return apply(GatherNd(axis), x, v.unsqueeze(counted, [1] if more else []), place)

    def gathered_places(self) -> Value | None:
        x = self.value()
        axis = self.axis(x, 0.9)
        if axis is None or sum(map(batched, x.shape)) > 1:
            return None
        wanted = [2 if i == axis else d for i, d in enumerate(x.shape)]
        if any(batched(d) and d != BATCH for d in wanted):
            return None
        return apply(GatherElements(axis), x, self.index(*wanted))

    def along(self, make: Callable[[int], Any]) -> Value | None:
        """An op along one axis."""
        x = self.value()
        axis = self.axis(x, 0.9)
        return None if axis is None else apply(make(axis), x)

    def softmax(self) -> Value | None:
        return self.along(Softmax)

    def summed_up(self) -> Value | None:
        return self.along(lambda a: CumSum(a, bool(self.rng.random() < 0.3), False))

    def flipped(self) -> Value | None:
        return self.along(lambda a: Flip((a,)))

    def largest(self) -> Value | None:
        return self.along(lambda a: TopK(1, a, True, "values"))

    def place(self) -> Value | None:
        found = self.along(lambda a: ArgMax(a, True))
        return found and v.cast(found, "f64")

    def normalised(self) -> Value | None:
        x = self.value()
        return apply(LayerNorm(randomly(self.rng, (1, 1, 2)), 1e-5), x) if x.rank > 1 else None

    def convolved(self) -> Value | None:
        """Along the last axis of three, with one group or one for each channel."""
        fits = [x for x in self.values if x.rank == 3 and isinstance(x.shape[2], int)]
        if not fits:
            return None
        x = randomly(self.rng, fits)
        channels = x.shape[1]
        if isinstance(channels, int) and self.rng.random() < 0.7:
            return apply(Conv((1,), (1,), (0,), (1,), 1), x, self.constant((2, channels, 2)))
        kernel = v.repeat(self.constant((1, 1, 2)), [channels, 1, 1])
        return apply(Conv((1,), (0,), (1,), (1,), channels), x, kernel)

    def counted(self) -> Value | None:
        """A number that tells the batch, or from which it cancels."""
        rng, x = self.rng, self.value()
        if rng.random() < 0.5:
            found = divide(product(x.shape), BATCH)
            return None if found is None or batched(found) else x * v.scalar(found, "f64")
        return v.binary(randomly(rng, ("multiply", "divide")), x, v.scalar(BATCH, "f64"))

    def numbered(self) -> Value | None:
        """0, 1, 2, ... along an axis."""
        x = self.value()
        axis = self.axis(x, 0.8)
        if axis is None:
            return None
        counted = v.cast(v.iota(x.shape[axis]), "f64")
        return x + v.unsqueeze(counted, range(1, x.rank - axis))

    def filled(self) -> Value | None:
        """One number in the shape of a value."""
        x = self.value()
        return x * v.full(randomly(self.rng, (0.5, 2.0)), x.shape, "f64")
