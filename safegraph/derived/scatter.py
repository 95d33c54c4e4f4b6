"""Picking and writing at places that several indices tell, and sorting.

As in `safegraph.derived.index`, definitions compare numbers and select, and runtimes only move
elements: the work is that of the combining of what is written.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from safegraph.derived.base import Derived, randomly
from safegraph.derived.index import Gather, GatherElements, wrapped
from safegraph.derived.norm import widened
from safegraph.dims import Dim, Shape, at_least, product, require_same
from safegraph.dtypes import is_float, is_integer
from safegraph.errors import EvaluationError, ShapeError
from safegraph.op import Op, TensorType, Work, axis_of
from safegraph.value import (
    Value,
    apply,
    binary,
    broadcast,
    broadcast_shapes,
    cast,
    expand,
    group,
    iota,
    pad,
    reduce,
    reshape,
    select,
    unsqueeze,
)

COMBINING = {"add": "sum", "multiply": "prod", "maximum": "max", "minimum": "min"}
"""How what is written is combined with what is there, and with each other."""


class GatherNd(Derived):
    """x[:, i, j]: the elements at these places of neighbouring axes, one index for each axis

    The indices broadcast; the axes of their common shape stand in the place of the axes that they
    tell, which are `axis` and those after it.  Negative indices count from the end.
    """

    moves = True
    linear = (0,)
    axis: int

    def define(self, x: Value, *indices: Value) -> Value:
        axis, count = axis_of(self.axis, max(x.rank, 1)), len(indices)
        if not count or axis + count > x.rank:
            raise ShapeError(f"{count} indices for the axes of x from {axis} on, of {x.rank}")
        _whole_numbers(*indices)
        place = _place(indices, x.shape[axis : axis + count])
        flat = group(x, [*[1] * axis, count, *[1] * (x.rank - axis - count)])
        return apply(Gather(axis), flat, place)

    def shape(self, x: Shape, *indices: Shape) -> Shape:
        return _shape(self, (x,), indices)

    def normal(self, x: TensorType, *indices: TensorType) -> GatherNd:
        return GatherNd(axis_of(self.axis, x.rank))

    def work(self, x: TensorType, *indices: TensorType) -> Work:
        return Work()

    def reads(self, x: TensorType, *indices: TensorType) -> tuple[Dim, ...]:
        return (self.type(x, *indices).nbytes, *(i.nbytes for i in indices))

    def run(self, x: Any, *indices: Any) -> Any:
        front = (slice(None),) * axis_of(self.axis, x.ndim)
        try:
            return np.asarray(x[(*front, *indices)])
        except IndexError as error:
            raise EvaluationError(
                f"{self!r} was given an index that x does not have: {error}"
            ) from None

    @classmethod
    def draw(
        cls, rng: np.random.Generator, x: tuple[int, ...], *indices: tuple[int, ...]
    ) -> GatherNd | None:
        most = len(x) - len(indices)
        if not indices or most < 0 or not _broadcasts(*indices):
            return None
        return cls(int(rng.integers(0, most + 1)))


class ScatterElements(Derived):
    """out[i, indices[i, j]] = updates[i, j] for axis 1, and likewise for others: `torch.scatter`

    `combine` is set, or how the updates are combined with x: add, multiply, maximum, minimum.  Of
    several updates of one place by set, the last one counts.  The indices may have fewer places
    than x along other axes; negative ones count from the end.
    """

    axis: int
    combine: str = "set"

    def define(self, x: Value, indices: Value, updates: Value) -> Value:
        axis = axis_of(self.axis, x.rank)
        _combining(self.combine)
        if not x.rank == indices.rank == updates.rank:
            raise ShapeError(
                f"x, indices, updates of ranks {x.rank}, {indices.rank}, {updates.rank}"
            )
        for i in range(x.rank):
            require_same(
                updates.shape[i], indices.shape[i], f"axis {i} of the updates, of the indices"
            )
            if i != axis and at_least(x.shape[i], indices.shape[i]) is False:
                raise ShapeError(f"axis {i} of the indices is longer than that of x")
        _whole_numbers(indices)
        size, count = x.shape[axis], indices.shape[axis]
        # which update (axis + 1) is for which place (axis)
        number = unsqueeze(iota(size, indices.dtype), range(1, x.rank - axis + 1))
        hit = binary("equal", number, unsqueeze(wrapped(indices, size), [axis]))
        wide = expand(unsqueeze(updates, [axis]), hit.shape)
        written = reduce(hit, [axis + 1], "any", keep=False)
        if self.combine == "set":
            order = unsqueeze(iota(count), range(1, x.rank - axis))
            last = reduce(select(hit, order, -1), [axis + 1], "max", keep=False)
            found = apply(GatherElements(axis), updates, binary("maximum", last, 0))
        else:
            found = self._combined(hit, wide, axis)
        after = [0 if i == axis else x.shape[i] - indices.shape[i] for i in range(x.rank)]
        found, written = (pad(part, [0] * x.rank, after) for part in (found, written))
        if self.combine == "set":
            return select(written, found, x)
        return select(written, binary(self.combine, x, found), x)

    def _combined(self, hit: Value, updates: Value, axis: int) -> Value:
        """The updates of each place combined; 0 or another of them where there is none."""
        kind = COMBINING[self.combine]
        if kind in ("sum", "prod"):
            return reduce(select(hit, updates, int(kind == "prod")), [axis + 1], kind, keep=False)
        # the extreme of all is no extreme of those of this place: these stand for them
        other = reduce(updates, [axis + 1], "min" if kind == "max" else "max")
        return reduce(select(hit, updates, expand(other, hit.shape)), [axis + 1], kind, keep=False)

    def shape(self, x: Shape, indices: Shape, updates: Shape) -> Shape:
        types = (TensorType("f32", x), TensorType("i64", indices), TensorType("f32", updates))
        return self.type(*types).shape

    def normal(self, x: TensorType, indices: TensorType, updates: TensorType) -> ScatterElements:
        return ScatterElements(axis_of(self.axis, x.rank), self.combine)

    def work(self, x: TensorType, indices: TensorType, updates: TensorType) -> Work:
        """One combining step for each update."""
        return Work() if self.combine == "set" else Work(reduce=updates.numel)

    def run(self, x: Any, indices: Any, updates: Any) -> Any:
        axis, out = axis_of(self.axis, x.ndim), widened(x).copy()
        at = list(np.indices(indices.shape, sparse=True))
        at[axis] = indices.astype(np.int64, copy=False)
        return _written(self, out, tuple(at), updates).astype(x.dtype, copy=False)

    @classmethod
    def draw(cls, rng: np.random.Generator, *shapes: tuple[int, ...]) -> ScatterElements | None:
        x, indices, updates = shapes
        if len(x) != len(indices) or indices != updates or 0 in (*x, *indices):
            return None
        fits = [
            axis
            for axis in range(len(x))
            if all(i == axis or indices[i] <= x[i] for i in range(len(x)))
        ]
        return cls(randomly(rng, fits), randomly(rng, ("set", *COMBINING))) if fits else None


class ScatterNd(Derived):
    """x[i, j] = updates: what `GatherNd` reads is written, from axis 0 on

    `combine` is as that of `ScatterElements`.  The updates have the common shape of the indices,
    and then the axes of x that no index tells.
    """

    combine: str = "set"

    def define(self, x: Value, updates: Value, *indices: Value) -> Value:
        count = len(indices)
        if not 0 < count <= x.rank:
            raise ShapeError(f"{count} indices for the {x.rank} axes of x")
        _whole_numbers(*indices)
        lead = broadcast_shapes(*(i.shape for i in indices))
        rest = x.shape[count:]
        if updates.rank != len(lead) + len(rest):
            raise ShapeError(f"updates of rank {updates.rank}, not {len(lead)} + {len(rest)}")
        for i, (a, b) in enumerate(zip(updates.shape, (*lead, *rest), strict=True)):
            require_same(a, b, f"axis {i} of the updates")
        number = product(lead)
        place = reshape(_place(indices, x.shape[:count]), (number,))
        rows = reshape(updates, (number, *rest))
        wide = expand(unsqueeze(place, range(1, 1 + len(rest))), rows.shape)
        flat = group(x, [count, *[1] * len(rest)])
        return reshape(apply(ScatterElements(0, self.combine), flat, wide, rows), x.shape)

    def shape(self, x: Shape, updates: Shape, *indices: Shape) -> Shape:
        return _shape(self, (x, updates), indices)

    def work(self, x: TensorType, updates: TensorType, *indices: TensorType) -> Work:
        """One combining step for each update."""
        return Work() if self.combine == "set" else Work(reduce=updates.numel)

    def run(self, x: Any, updates: Any, *indices: Any) -> Any:
        return _written(self, widened(x).copy(), indices, updates).astype(x.dtype, copy=False)

    @classmethod
    def draw(cls, rng: np.random.Generator, *shapes: tuple[int, ...]) -> ScatterNd | None:
        x, updates, *indices = shapes
        if not 0 < len(indices) <= len(x) or 0 in x or not _broadcasts(*indices):
            return None
        lead = np.broadcast_shapes(*indices)
        fits = updates == (*lead, *x[len(indices) :])
        return cls(randomly(rng, ("set", *COMBINING))) if fits else None


class TopK(Derived):
    """the k largest elements of an axis, the largest first, or the smallest; or their places (i64)

    Of equal ones the first come first; NaN counts as larger than every number.  With k the size of
    the axis, it sorts.
    """

    k: Dim
    axis: int = -1
    largest: bool = True
    result: str = "values"  # or "places"

    def define(self, x: Value) -> Value:
        axis = axis_of(self.axis, x.rank)
        size = x.shape[axis]
        if at_least(size, self.k) is False:
            raise ShapeError(f"the {self.k} largest of {size} elements")
        if self.result not in ("values", "places"):
            raise ShapeError(f"the result {self.result!r}: there are 'values' and 'places'")
        one, other = unsqueeze(x, [axis + 1]), unsqueeze(x, [axis])
        # how many come before: those that are larger, and those that are equal and stand before
        before = _less(one, other) if self.largest else _less(other, one)
        equal = binary("equal", one, other)
        if is_float(x.dtype):
            equal = equal.maximum(binary("minimum", one.is_nan(), other.is_nan()))
        here = unsqueeze(iota(size), range(1, x.rank - axis + 1))
        there = unsqueeze(iota(size), range(1, x.rank - axis))
        rank = reduce(
            cast(before.maximum(equal.minimum(there < here)), "i64"), [axis + 1], "sum", keep=False
        )
        # place p of the result is the element of rank p
        number = unsqueeze(iota(self.k), range(1, x.rank - axis + 1))
        chosen = binary("equal", number, unsqueeze(rank, [axis]))
        places = reduce(select(chosen, there, 0), [axis + 1], "sum", keep=False)
        return places if self.result == "places" else apply(GatherElements(axis), x, places)

    def normal(self, x: TensorType) -> TopK:
        return TopK(self.k, axis_of(self.axis, x.rank), self.largest, self.result)

    def work(self, x: TensorType) -> Work:
        """One step for each element; how many comparisons there are depends on the runtime."""
        return Work(reduce=x.numel)

    def run(self, x: Any) -> Any:
        axis = axis_of(self.axis, x.ndim)
        if self.largest:  # of equal ones the last come first, in the reverse order
            places = np.flip(np.argsort(np.flip(x, axis), axis, kind="stable"), axis)
            places = x.shape[axis] - 1 - places
        else:
            places = np.argsort(x, axis, kind="stable")
        places = places[(*[slice(None)] * axis, slice(0, self.k))]
        return (
            places.astype(np.int64)
            if self.result == "places"
            else np.take_along_axis(x, places, axis)
        )

    @classmethod
    def draw(cls, rng: np.random.Generator, x: tuple[int, ...]) -> TopK | None:
        axes = [i for i, d in enumerate(x) if d]
        if not axes:
            return None
        axis = randomly(rng, axes)
        result = randomly(rng, ("values", "places"))
        return cls(int(rng.integers(1, x[axis] + 1)), axis, randomly(rng, (False, True)), result)


def _place(indices: tuple[Value, ...], sizes: Shape) -> Value:
    """The place in row-major order of all axes that the indices tell."""
    total: Value | None = None
    for index, size in zip(broadcast(*(cast(i, "i64") for i in indices)), sizes, strict=True):
        step = wrapped(index, size)
        total = step if total is None else total * size + step
    assert total is not None
    return total


def _less(a: Value, b: Value) -> Value:
    """A < b, with NaN larger than every number."""
    if a.dtype == "bool" or not is_float(a.dtype):
        return a < b
    number = binary("less", cast(a.is_nan(), "i8"), cast(b.is_nan(), "i8"))
    return (a < b).maximum(number)


def _shape(op: Op, numbers: tuple[Shape, ...], indices: tuple[Shape, ...]) -> Shape:
    types = [*(TensorType("f32", s) for s in numbers), *(TensorType("i64", s) for s in indices)]
    return op.type(*types).shape


def _whole_numbers(*indices: Value) -> None:
    for index in indices:
        if not is_integer(index.dtype):
            raise ShapeError(f"indices are integers, not {index.dtype}")


def _combining(kind: str) -> None:
    if kind != "set" and kind not in COMBINING:
        raise ShapeError(f"combining by {kind!r}: there are set, {', '.join(COMBINING)}")


def _broadcasts(*shapes: tuple[int, ...]) -> bool:
    try:
        np.broadcast_shapes(*shapes)
    except ValueError:
        return False
    return True


def _written(op: Op, out: Any, at: tuple[Any, ...], updates: Any) -> Any:
    """The array `out` with what is written at these places."""
    kind = op.spec["combine"]
    try:
        if kind == "set":
            out[at] = updates  # NumPy takes the last one of several
        else:
            with np.errstate(all="ignore"):
                getattr(np, kind).at(out, at, widened(updates))
    except IndexError as error:
        raise EvaluationError(f"{op!r} was given an index that x does not have: {error}") from None
    return out


_ND = "f32[4 5 3], i64[2 6], i64[6]"
GatherNd.examples = (
    (GatherNd(0), _ND),
    (GatherNd(1), "f32[2 4 5 3], i64[6], i64[6]"),
    (GatherNd(0), "f32[4 5], i64[3]"),
)
ScatterElements.examples = tuple(
    (ScatterElements(axis, kind), types)
    for kind in ("set", *COMBINING)
    for axis, types in ((1, "f32[4 5], i64[4 3], f32[4 3]"), (0, "f32[4 5], i64[3 2], f32[3 2]"))
)
ScatterNd.examples = tuple(
    (ScatterNd(kind), types)
    for kind in ("set", *COMBINING)
    for types in ("f32[4 5 3], f32[6 3], i64[6], i64[6]", "f32[4 3], f32[2 5 3], i64[2 5]")
)
TopK.examples = tuple(
    (TopK(k, 1, largest, result), "f32[3 5 2]")
    for k in (2, 5)
    for largest in (True, False)
    for result in ("values", "places")
)

__all__ = ["GatherNd", "ScatterElements", "ScatterNd", "TopK"]
