"""Ops that find elements by number: gathering, cumulative sums, positions, triangles.

Where an op picks elements, its definition compares numbers (`iota == index`) and selects, so that
an infinity or NaN in a place that is not picked reaches nothing.  Runtimes only move the elements:
the work of those ops is none.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from safegraph.derived.base import Derived, randomly
from safegraph.derived.norm import widened
from safegraph.dims import Dim
from safegraph.dtypes import is_float
from safegraph.errors import EvaluationError, ShapeError
from safegraph.op import Op, TensorType, Work, axes_of, axis_of
from safegraph.value import (
    Value,
    apply,
    binary,
    cast,
    iota,
    pad,
    reduce,
    scalar,
    select,
    slice_axis,
    unfold,
    unsqueeze,
)


def wrapped(indices: Value, size: Dim) -> Value:
    """Indices counted from the front: those below 0 count from the end."""
    return select(indices < 0, indices + size, indices)


class Gather(Derived):
    """x[:, indices]: the elements of an axis at these places; negative ones count from the end

    The axes of the indices stand in the place of the axis, as in `numpy.take`.  An index outside of
    the axis is an error when it is run; the definition, and so the laws, take all as inside.
    """

    moves = True
    linear = (0,)
    axis: int

    def define(self, x: Value, indices: Value) -> Value:
        axis = axis_of(self.axis, x.rank)
        size, after = x.shape[axis], x.rank - axis - 1
        at = unsqueeze(wrapped(indices, size), [indices.rank])
        picked = binary("equal", at, iota(size, indices.dtype))
        picked = unsqueeze(picked, range(picked.rank, picked.rank + after))
        table = unsqueeze(x, range(axis, axis + indices.rank))
        return reduce(select(picked, table, 0), [axis + indices.rank], "sum", keep=False)

    def normal(self, x: TensorType, indices: TensorType) -> Gather:
        return Gather(axis_of(self.axis, x.rank))

    def work(self, x: TensorType, indices: TensorType) -> Work:
        return Work()

    def reads(self, x: TensorType, indices: TensorType) -> tuple[Dim, ...]:
        return self.type(x, indices).nbytes, indices.nbytes  # what is picked, not the table

    def run(self, x: Any, indices: Any) -> Any:
        try:
            return np.take(x, indices.astype(np.int64, copy=False), self.axis)
        except IndexError as error:
            raise _out_of_range(self, error) from None

    @classmethod
    def draw(
        cls, rng: np.random.Generator, x: tuple[int, ...], indices: tuple[int, ...]
    ) -> Gather | None:
        return cls(int(rng.integers(len(x)))) if x else None


class GatherElements(Derived):
    """out[i, j] = x[i, indices[i, j]] for axis 1, and likewise for others: `torch.gather`

    The indices may have fewer places than x along other axes.
    """

    moves = True
    linear = (0,)
    axis: int

    def define(self, x: Value, indices: Value) -> Value:
        axis = axis_of(self.axis, x.rank)
        if indices.rank != x.rank:
            raise ShapeError(f"indices of rank {indices.rank} for x of rank {x.rank}")
        for i in range(x.rank):
            if i != axis:
                x = slice_axis(x, i, 0, indices.shape[i])
        size = x.shape[axis]
        number = unsqueeze(iota(size, indices.dtype), range(1, x.rank - axis))
        picked = binary("equal", unsqueeze(wrapped(indices, size), [axis + 1]), number)
        return reduce(select(picked, unsqueeze(x, [axis]), 0), [axis + 1], "sum", keep=False)

    def normal(self, x: TensorType, indices: TensorType) -> GatherElements:
        return GatherElements(axis_of(self.axis, x.rank))

    def work(self, x: TensorType, indices: TensorType) -> Work:
        return Work()

    def reads(self, x: TensorType, indices: TensorType) -> tuple[Dim, ...]:
        return self.type(x, indices).nbytes, indices.nbytes  # what is picked, not the table

    def run(self, x: Any, indices: Any) -> Any:
        axis = axis_of(self.axis, x.ndim)
        part = x[tuple(slice(None if i == axis else n) for i, n in enumerate(indices.shape))]
        try:
            return np.take_along_axis(part, indices.astype(np.int64, copy=False), axis)
        except IndexError as error:
            raise _out_of_range(self, error) from None

    @classmethod
    def draw(
        cls, rng: np.random.Generator, x: tuple[int, ...], indices: tuple[int, ...]
    ) -> GatherElements | None:
        if len(x) != len(indices):
            return None
        fits = [
            a
            for a in range(len(x))
            if all(i == a or n <= d for i, (d, n) in enumerate(zip(x, indices, strict=True)))
        ]
        return cls(randomly(rng, fits)) if fits else None


class CumSum(Derived):
    """the sum of all elements of an axis up to each (`exclusive`: before it; `reverse`: from it on)

    Defined as the sums of windows that are as long as the axis, on the padded axis.
    """

    linear = (0,)
    axis: int
    exclusive: bool = False
    reverse: bool = False

    def define(self, x: Value) -> Value:
        axis = axis_of(self.axis, x.rank)
        size = x.shape[axis]
        if self.exclusive:
            x = slice_axis(x, axis, 1, None) if self.reverse else slice_axis(x, axis, 0, size - 1)
        border = [
            size if i == axis and self.exclusive else size - 1 if i == axis else 0
            for i in range(x.rank)
        ]
        none = [0] * x.rank
        padded = pad(x, none, border) if self.reverse else pad(x, border, none)
        return reduce(unfold(padded, axis, size, 1), [axis + 1], "sum", keep=False)

    def normal(self, x: TensorType) -> CumSum:
        return CumSum(axis_of(self.axis, x.rank), self.exclusive, self.reverse)

    def work(self, x: TensorType) -> Work:
        """One addition for each element but the first of each line, as any runtime does it."""
        return Work(reduce=x.numel - x.numel // x.shape[self.axis])

    def run(self, x: Any) -> Any:
        y = np.flip(x, self.axis) if self.reverse else x
        with np.errstate(all="ignore"):
            sums = np.cumsum(widened(y), self.axis, dtype=widened(y).dtype).astype(
                x.dtype, copy=False
            )
        if self.exclusive:
            front = (slice(None),) * axis_of(self.axis, x.ndim)
            shifted = np.zeros_like(sums)
            shifted[(*front, slice(1, None))] = sums[(*front, slice(None, -1))]
            sums = shifted
        return np.flip(sums, self.axis) if self.reverse else sums

    @classmethod
    def draw(cls, rng: np.random.Generator, x: tuple[int, ...]) -> CumSum | None:
        if not x or 0 in x:
            return None
        return cls(
            int(rng.integers(len(x))), randomly(rng, (False, True)), randomly(rng, (False, True))
        )


class ArgMax(Derived):
    """the place (i64) of the largest element of an axis, or the smallest; of equal ones the first

    NaN counts as larger and as smaller than every number, as in NumPy and PyTorch.
    """

    axis: int
    keep: bool = False
    smallest: bool = False

    def define(self, x: Value) -> Value:
        axis = axis_of(self.axis, x.rank)
        size = x.shape[axis]
        found = binary("equal", x, reduce(x, [axis], "min" if self.smallest else "max"))
        found = found.maximum(x.is_nan()) if is_float(x.dtype) else found
        number = unsqueeze(iota(size), range(1, x.rank - axis))
        last = scalar(size - 1, "i64")  # no more than what is found, of which there is one
        return reduce(select(found, number, last), [axis], "min", keep=self.keep)

    def normal(self, x: TensorType) -> ArgMax:
        return ArgMax(axis_of(self.axis, x.rank), self.keep, self.smallest)

    def run(self, x: Any) -> Any:
        find = np.argmin if self.smallest else np.argmax
        return np.asarray(find(x, axis=self.axis, keepdims=self.keep), np.int64)

    @classmethod
    def draw(cls, rng: np.random.Generator, x: tuple[int, ...]) -> ArgMax | None:
        if not x or 0 in x:
            return None
        return cls(
            int(rng.integers(len(x))), randomly(rng, (False, True)), randomly(rng, (False, True))
        )


class Flip(Derived):
    """x[::-1] along these axes"""

    moves = True
    linear = (0,)
    axes: tuple[int, ...]

    def define(self, x: Value) -> Value:
        for axis in axes_of(self.axes, x.rank):
            size = x.shape[axis]
            x = apply(Gather(axis), x, binary("subtract", size - 1, iota(size)))
        return x

    def normal(self, x: TensorType) -> Flip:
        return Flip(axes_of(self.axes, x.rank))

    def work(self, x: TensorType) -> Work:
        return Work()

    def run(self, x: Any) -> Any:
        return np.flip(x, self.axes)

    @classmethod
    def draw(cls, rng: np.random.Generator, x: tuple[int, ...]) -> Flip:
        return cls(tuple(i for i in range(len(x)) if rng.random() < 0.5))


class Trilu(Derived):
    """x[i, j] where j - i <= k (`upper`: j - i >= k), else 0; of the last two axes"""

    linear = (0,)
    upper: bool
    k: int = 0

    def define(self, x: Value) -> Value:
        if x.rank < 2:
            raise ShapeError("a triangle needs two axes")
        row, column = unsqueeze(iota(x.shape[-2]), [1]), unsqueeze(iota(x.shape[-1]), [0])
        if self.upper:
            return select(column < row + self.k, 0, x)
        return select(row + self.k < column, 0, x)

    def run(self, x: Any) -> Any:
        return np.triu(x, self.k) if self.upper else np.tril(x, self.k)

    @classmethod
    def draw(cls, rng: np.random.Generator, x: tuple[int, ...]) -> Trilu | None:
        return cls(randomly(rng, (False, True)), int(rng.integers(-2, 3))) if len(x) > 1 else None


class OneHot(Derived):
    """1 at place x of a new axis, else 0, in x's element type; negative x count from the end"""

    axis: int  # of the result
    depth: Dim

    def define(self, x: Value) -> Value:
        axis = axis_of(self.axis, x.rank + 1)
        number = unsqueeze(iota(self.depth, x.dtype), range(1, x.rank - axis + 1))
        return cast(binary("equal", unsqueeze(wrapped(x, self.depth), [axis]), number), x.dtype)

    def normal(self, x: TensorType) -> OneHot:
        return OneHot(axis_of(self.axis, x.rank + 1), self.depth)

    @classmethod
    def draw(cls, rng: np.random.Generator, x: tuple[int, ...]) -> OneHot:
        return cls(int(rng.integers(-1, len(x) + 1)), int(rng.integers(1, 6)))


def _out_of_range(op: Op, error: IndexError) -> EvaluationError:
    return EvaluationError(f"{op!r} was given an index that the axis does not have: {error}")


Gather.examples = (
    (Gather(0), "f32[5 3], i64[2 4]"),
    (Gather(1), "f32[2 5 3], i64[4]"),
    (Gather(0), "f32[5 3], i64[]"),
    (Gather(1), "f32[2 5], i64[4]"),
)
GatherElements.examples = (
    (GatherElements(1), "f32[4 5], i64[4 3]"),
    (GatherElements(0), "f32[4 5], i64[3 2]"),
)
CumSum.examples = tuple(
    (CumSum(1, exclusive, reverse), "f32[3 5]")
    for exclusive in (False, True)
    for reverse in (False, True)
)
ArgMax.examples = tuple(
    (ArgMax(1, keep, smallest), types)
    for keep in (False, True)
    for smallest in (False, True)
    for types in ("f32[3 5 2]", "i64[3 5]")
)
Flip.examples = ((Flip((1,)), "f32[2 5 3]"), (Flip((0, 2)), "f32[2 5 3]"))
Trilu.examples = tuple(
    (Trilu(upper, k), "f32[2 4 5]") for upper in (False, True) for k in (0, 1, -1)
)
OneHot.examples = ((OneHot(-1, 4), "i64[2 3]"), (OneHot(0, 4), "i64[2 3]"))

__all__ = ["ArgMax", "CumSum", "Flip", "Gather", "GatherElements", "OneHot", "Trilu"]
