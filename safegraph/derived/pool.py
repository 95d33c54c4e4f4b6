"""Pooling: a reduction over windows of the spatial axes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import inf
from typing import Any

import numpy as np

from safegraph.derived.base import Derived, randomly
from safegraph.derived.conv import each_spatial, pad_spatial, read_windows, unfold_spatial
from safegraph.derived.norm import widened
from safegraph.dims import Dim, divide
from safegraph.dtypes import is_float, is_integer, to_numpy
from safegraph.errors import ShapeError
from safegraph.op import Op
from safegraph.value import Value, full, iota, reduce, scalar, select, ungroup, unsqueeze

Sizes = tuple[int, ...]


class MaxPool(Derived):
    """the maximum of windows of the last axes; the border counts as the lowest number"""

    window: tuple[int, ...]
    strides: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    dilations: tuple[int, ...]

    def define(self, x: Value) -> Value:
        rank = _pooled_rank(
            x.rank, self.window, self.strides, self.before, self.after, self.dilations
        )
        padded = pad_spatial(x, self.before, self.after, lowest(x.dtype))
        return reduce(
            unfold_spatial(padded, self.window, self.strides, self.dilations),
            _taps(x.rank, rank),
            "max",
            keep=False,
        )

    def run(self, x: Any) -> Any:
        low = -inf if x.dtype.kind not in "iub" else lowest_of(x.dtype)
        edges = zip(self.before, self.after, strict=True)
        y = np.pad(x, [(0, 0)] * (x.ndim - len(self.window)) + list(edges), constant_values=low)
        return _along_windows(np.maximum, y, self.window, self.strides, self.dilations)

    @classmethod
    def draw(cls, rng: np.random.Generator, x: tuple[int, ...]) -> MaxPool | None:
        drawn = _draw_window(rng, x)
        if not drawn:
            return None
        window, strides, before, after = drawn
        return cls(window, strides, before, after, (1,) * len(window))

    @classmethod
    def proposals(
        cls, specs: Sequence[Op], operands: Sequence[Value], result: Value
    ) -> Iterator[MaxPool]:
        for rank in range(1, operands[0].rank + 1):
            if found := read_windows(specs, rank):
                yield cls(found.window, found.strides, found.before, found.after, found.dilations)


class AvgPool(Derived):
    """the mean of windows of the last axes

    A border of zeros, counted in the mean if `count_pad`.  `extra` is what rounding the number of
    windows up adds at the end: it is never counted.
    """

    linear = (0,)
    window: tuple[int, ...]
    strides: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    extra: tuple[int, ...]
    count_pad: bool

    def define(self, x: Value) -> Value:
        rank = _pooled_rank(x.rank, self.window, self.strides, self.before, self.after, self.extra)
        x = _averaged(x)
        ends = [a + e for a, e in zip(self.after, self.extra, strict=True)]
        windows = self._windows(pad_spatial(x, self.before, ends))
        if not self._uneven:
            return reduce(windows, _taps(x.rank, rank), "mean", keep=False)
        # How many elements of each window count, found as the sum of ones does.
        ones = full(1, x.shape[x.rank - rank :], x.dtype)
        counted = pad_spatial(ones, self.before, self.after, 1 if self.count_pad else 0)
        counts = self._windows(pad_spatial(counted, [0] * rank, self.extra))
        sums = reduce(windows, _taps(x.rank, rank), "sum", keep=False)
        return sums / reduce(counts, _taps(rank, rank), "sum", keep=False)

    @property
    def _uneven(self) -> bool:
        """May two windows count different numbers of elements?"""
        return any(self.extra) or (not self.count_pad and any((*self.before, *self.after)))

    def _windows(self, x: Value) -> Value:
        return unfold_spatial(x, self.window, self.strides, (1,) * len(self.window))

    def run(self, x: Any) -> Any:
        rank = len(self.window)
        border = list(zip(self.before, self.after, strict=True))
        extra = [(0, e) for e in self.extra]
        ones = np.pad(
            np.ones(x.shape[-rank:], widened(x).dtype),
            border,
            constant_values=1 if self.count_pad else 0,
        )
        front = [(0, 0)] * (x.ndim - rank)
        with np.errstate(all="ignore"):
            sums = self._sums(np.pad(np.pad(widened(x), front + border), front + extra))
            return (sums / self._sums(np.pad(ones, extra))).astype(x.dtype, copy=False)

    def _sums(self, x: Any) -> Any:
        return _along_windows(np.add, x, self.window, self.strides, (1,) * len(self.window))

    @classmethod
    def draw(cls, rng: np.random.Generator, x: tuple[int, ...]) -> AvgPool | None:
        drawn = _draw_window(rng, x)
        if not drawn:
            return None
        window, strides, before, after = drawn
        rounded = tuple(min(s, w) - 1 for w, s in zip(window, strides, strict=True))
        extra = randomly(rng, (rounded, (0,) * len(rounded)))
        return cls(window, strides, before, after, extra, randomly(rng, (False, True)))

    @classmethod
    def proposals(
        cls, specs: Sequence[Op], operands: Sequence[Value], result: Value
    ) -> Iterator[AvgPool]:
        for rank in range(1, operands[0].rank + 1):
            if found := read_windows(specs, rank):
                w: Any = found
                yield cls(w.window, w.strides, w.before, w.after, (0,) * rank, True)


class AdaptiveAvgPool(Derived):
    """the mean of windows that share the last axes out evenly: n c h w -> n c to[0] to[1]

    Place i of an axis is the mean of elements floor(i*size/to) up to ceil((i + 1)*size/to).
    """

    linear = (0,)
    to: tuple[int, ...]

    def define(self, x: Value) -> Value:
        first = x.rank - len(self.to)
        if first < 0:
            raise ShapeError(f"{len(self.to)} sizes for {x.rank} axes")
        ones = [first + i for i, size in enumerate(self.to) if size == 1]
        x = reduce(_averaged(x), ones, "mean")
        for axis, size in enumerate(self.to, start=first):
            x = x if size == 1 else _shared_out(x, axis, size)
        return x

    def run(self, x: Any) -> Any:
        y = widened(x)
        with np.errstate(all="ignore"):
            for axis, to in enumerate(self.to, start=x.ndim - len(self.to)):
                size = y.shape[axis]
                spans = [(i * size // to, -(-(i + 1) * size // to)) for i in range(to)]
                y = np.stack([y.take(range(a, b), axis).mean(axis) for a, b in spans], axis)
            return y.astype(x.dtype, copy=False)

    @classmethod
    def draw(cls, rng: np.random.Generator, x: tuple[int, ...]) -> AdaptiveAvgPool | None:
        return (
            cls(tuple(int(n) for n in rng.integers(1, 4, 2))) if len(x) > 2 and 0 not in x else None
        )


def lowest(dtype: str) -> float:
    """What every number of an element type is at least."""
    return lowest_of(to_numpy(dtype)) if is_integer(dtype) or dtype == "bool" else -inf


def lowest_of(dtype: np.dtype) -> int:
    """The lowest integer of a NumPy dtype."""
    return int(np.iinfo(dtype).min) if dtype.kind in "iu" else 0


def _averaged(x: Value) -> Value:
    """X, whose windows have means; those of integers would be rounded, each format in its way."""
    if not is_float(x.dtype):
        raise ShapeError(f"means of {x.dtype}: cast it to a floating-point type first")
    return x


def _shared_out(x: Value, axis: int, to: int) -> Value:
    size = x.shape[axis]
    if size == to:
        return x
    if divide(size, to) is not None:
        split = ungroup(x, [(to, -1) if i == axis else (-1,) for i in range(x.rank)])
        return reduce(split, [axis + 1], "mean", keep=False)
    # Which elements (columns) belong to which place (row): chosen by select, so that an infinity or
    # NaN outside a window does not reach it.
    first, stop = (_fractions(start, size, to) for start in (0, 1))
    at = unsqueeze(iota(size), [0])
    inside = (at < unsqueeze(stop, [1])).minimum(unsqueeze(first, [1]) < at + 1)
    wide = unsqueeze(x, [axis])
    inside = unsqueeze(inside, range(2, 2 + x.rank - axis - 1))
    sums = reduce(select(inside, wide, 0), [axis + 1], "sum", keep=False)
    return sums / unsqueeze((stop - first).cast(x.dtype), range(1, x.rank - axis))


def _fractions(start: int, size: Dim, to: int) -> Value:
    """floor(i*size/to) for i = 0, 1, ..., to - 1; with start 1 ceil((i + 1)*size/to)."""
    return ((iota(to) + start) * scalar(size, "i64") + start * (to - 1)) / to


def _along_windows(
    combine: Callable[[Any, Any], Any],
    x: Any,
    window: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> Any:
    """Windows reduced axis by axis: one array operation for each tap."""
    first = x.ndim - len(window)
    for axis, (size, step, dilation) in enumerate(
        zip(window, strides, dilations, strict=True), start=first
    ):
        count = (x.shape[axis] - (size - 1) * dilation - 1) // step + 1
        front = (slice(None),) * axis
        taps = (
            x[(*front, slice(j * dilation, j * dilation + (count - 1) * step + 1, step))]
            for j in range(size)
        )
        found = next(taps)
        for tap in taps:
            found = combine(found, tap)
        x = found
    return x


def _taps(rank: int, pooled: int) -> list[int]:
    """The axes of the taps, when the last axes have been unfolded."""
    return [rank - pooled + 2 * i + 1 for i in range(pooled)]


def _pooled_rank(rank: int, *fields: Sequence[int]) -> int:
    pooled = len(fields[0])
    each_spatial(pooled, *fields)
    if pooled > rank:
        raise ShapeError(f"a window over {pooled} axes for {rank} axes")
    return pooled


def _draw_window(
    rng: np.random.Generator, x: tuple[int, ...]
) -> tuple[Sizes, Sizes, Sizes, Sizes] | None:
    """Window, strides, before, after for the axes from the third on."""
    space = x[2:]
    if not space or 0 in space:
        return None
    window = tuple(int(rng.integers(1, min(d, 3) + 1)) for d in space)
    strides = tuple(int(n) for n in rng.integers(1, 3, len(space)))
    before = tuple(int(rng.integers(0, k // 2 + 1)) for k in window)
    return window, strides, before, tuple(int(rng.integers(0, k // 2 + 1)) for k in window)


# fmt: off
MaxPool.examples = (
    (MaxPool((2, 3), (2, 2), (0, 0), (0, 0), (1, 1)), "f32[2 3 6 7]"),
    (MaxPool((3, 3), (2, 2), (1, 1), (1, 1), (1, 1)), "f32[2 3 6 7]"),
    (MaxPool((3,),   (2,),   (1,),   (0,),   (1,)),   "f32[2 3 7]"),
)
AvgPool.examples = (
    (AvgPool((2, 3), (2, 2), (0, 0), (0, 0), (0, 0), True),  "f32[2 3 6 7]"),
    (AvgPool((3, 3), (2, 2), (1, 1), (1, 1), (0, 0), True),  "f32[2 3 6 7]"),
    (AvgPool((3, 3), (2, 2), (1, 1), (1, 1), (0, 0), False), "f32[2 3 6 7]"),
    (AvgPool((3, 3), (2, 2), (1, 1), (1, 1), (1, 0), True),  "f32[2 3 6 7]"),
)
AdaptiveAvgPool.examples = (
    (AdaptiveAvgPool((1, 1)), "f32[2 3 6 7]"),
    (AdaptiveAvgPool((3, 2)), "f32[2 3 6 4]"),
    (AdaptiveAvgPool((4, 3)), "f32[2 3 6 7]"),
)
# fmt: on

__all__ = ["AdaptiveAvgPool", "AvgPool", "MaxPool"]
