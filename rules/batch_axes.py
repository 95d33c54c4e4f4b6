"""Rows of the batch table: ops that work along axes which they name, or along the last ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from safegraph.derived.border import PadMode
from safegraph.derived.index import ArgMax, CumSum, Flip, GatherElements, OneHot, Trilu
from safegraph.derived.norm import LayerNorm, LogSoftmax, RmsNorm, Softmax
from safegraph.derived.pool import AdaptiveAvgPool, AvgPool, MaxPool
from safegraph.derived.resize import Resize
from safegraph.derived.scatter import ScatterElements, TopK
from safegraph.derived.shape import Concat, Index, Tile
from safegraph.dims import Dim, add_all, divide
from safegraph.op import Op, TensorType, axis_of
from safegraph.ops import (
    Fold,
    Interleave,
    Pad,
    Reduce,
    Repeat,
    Slice,
    Squeeze,
    Stride,
    Unfold,
    Unsqueeze,
)
from safegraph.ops.sample import Place, Sample
from safegraph.rules.batch_rows import (
    Make,
    Mixed,
    Places,
    Pushed,
    Row,
    Types,
    agreed,
    dropped,
    leading,
    present,
    the_place,
    tidy,
)
from safegraph.value import Value, apply


@dataclass(frozen=True)
class Axes:
    """How an op numbers axes: it can then be said with one axis more or less.

    `one` and `many` are fields that hold an axis, or several; `each` are those with an entry for
    each axis, and the entry of an axis that nothing happens to.  `last` says how many of the last
    axes the op works on beside these.  `what` is what it does to the batch, for a refusal.
    """

    what: str
    one: tuple[str, ...] = ()
    many: tuple[str, ...] = ()
    each: tuple[tuple[str, Any], ...] = ()
    last: Callable[[Any], int] = lambda op: 0
    of_result: bool = False
    more: int = 0
    """How many axes beside the named one it works on."""
    together: bool = False
    """Do all operands have the axes (or only the first one)?"""

    def acts(self, op: Op, rank: int) -> set[int]:
        """The axes of the first operand on which it works."""
        spec = op.spec
        found = {rank - 1 - i for i in range(self.last(op))}
        for name, idle in self.each:
            found |= {i for i, entry in enumerate(spec[name]) if entry != idle}
        if not self.of_result:
            for name in self.one:
                first = axis_of(spec[name], rank - self.more)
                found |= set(range(first, first + 1 + self.more))
            for name in self.many:
                found |= {axis_of(a, rank) for a in spec[name]}
        return found

    def changed(self, op: Op, rank: int, axis: int, by: int) -> Op:
        """The op with an axis less (by -1), or more (by 1) before this one."""
        spec = op.spec
        for name in self.one:
            a = axis_of(spec[name], rank)
            spec[name] = a + by if a >= axis else a
        for name in self.many:
            every = (axis_of(a, rank) for a in spec[name])
            spec[name] = tuple(a + by if a >= axis else a for a in every)
        for name, idle in self.each:
            entries = list(spec[name])
            if by < 0:
                del entries[axis]
            else:
                entries.insert(axis, idle)
            spec[name] = tuple(entries)
        return type(op)(**spec)


def kept_axis(op: Any, types: Types, axis: int) -> int:
    """Where an axis, on which the op does not work, is in the result."""
    match op:
        case Unfold():
            return axis + (axis > op.axis)
        case Fold() | Index():
            return axis - (axis > op.axis)
        case ArgMax():
            return axis - (axis > op.axis and not op.keep)
        case Sample():
            return axis - (axis > op.axis and op.place.whole)
        case Squeeze():
            return axis - sum(a < axis for a in op.axes)
        case Unsqueeze() | OneHot():
            rank = op.type(*types).rank
            new = op.axes if isinstance(op, Unsqueeze) else (op.axis,)
            return [a for a in range(rank) if a not in new][axis]
    return axis


Special: TypeAlias = "Callable[[Any, Types, Place, Dim], Pushed | None]"


def along(roles: Axes, special: Special | None = None, make: Make | None = None) -> Row:
    """The row of an op that works along some axes; `special` is for a batch on one of them."""

    def push(op: Any, types: Types, places: Places, size: Dim) -> Pushed | None:
        place = the_place(places)
        if not roles.together and places[0] is None:
            return None
        if not roles.together and any(places[1:]):
            return None
        if not roles.together and any(t.rank > roles.last(op) for t in types[1:]):
            return None  # weights broadcast over the batch
        wanted = [place if roles.together or i == 0 else None for i in range(len(types))]
        acts = roles.acts(op, types[0].rank)
        if special is not None and (found := special(op, types, place, size)) is not None:
            agreed(places, [n if isinstance(n, Place) else None for n in found.needs])
            return found
        if place.axis in acts:
            raise Mixed(roles.what, place.axis)
        needs = agreed(places, wanted)
        for t in types[1:] if roles.together else ():
            if t.shape[place.axis] != types[0].shape[place.axis]:
                raise Mixed("it leaves samples out", place.axis)
        new = place.at(kept_axis(op, types, place.axis))
        small = op
        if place.whole:
            numbered = op.type(*types).rank if roles.of_result else types[0].rank
            small = roles.changed(op, numbered, new.axis if roles.of_result else place.axis, -1)
        return Pushed(needs, (new,), lambda *xs: tidy(small, *xs))

    def lift(op: Any, xs: Sequence[Value], flags: Sequence[bool], size: Dim) -> Value | None:
        if not roles.together and (not flags[0] or any(flags[1:])):
            return None
        rank = xs[0].rank - flags[0]
        if roles.of_result:
            rank = op.type(*(t for t in _sample_types(xs, flags))).rank
        wide = roles.changed(op, rank, 0, 1)
        return tidy(wide, *(leading(xs, flags, size) if roles.together else xs))

    return Row(push, lift, make)


def _sample_types(xs: Sequence[Value], flags: Sequence[bool]) -> Iterator[TensorType]:
    return (
        x.type.with_shape(x.shape[1:]) if flag else x.type
        for x, flag in zip(xs, flags, strict=True)
    )


# -- a batch on an axis that is worked on: whole blocks of it -------------------------------------


def slice_blocks(op: Slice, types: Types, place: Place, size: Dim) -> Pushed | None:
    """A slice of [m, batch, inner] at whole blocks is a slice of m."""
    axis, block = place.axis, size * place.inner
    start, stop = op.ends(types[0].shape)[axis]
    if start == 0 and stop == types[0].shape[axis]:
        return None
    first, last = divide(start, block), divide(stop, block)
    if first is None or last is None or (first == last and isinstance(size, int)):
        # nothing of a batch that is a number is what a roll leaves over: x[1:] of one sample
        raise Mixed("it picks samples", axis)
    starts, stops = list(op.starts), list(op.stops)
    starts[axis], stops[axis] = first * place.inner, last * place.inner
    new, small = Place(axis, last - first, place.inner), Slice(tuple(starts), tuple(stops))
    return Pushed((place,), (new,), lambda x: dropped(apply(small, present(x, place)), new))


def stride_inner(op: Stride, types: Types, place: Place, size: Dim) -> Pushed | None:
    """Every n-th of what follows the batch in its axis."""
    inner = divide(place.inner, op.steps[place.axis])
    if op.steps[place.axis] == 1:
        return None
    if inner is None:
        raise Mixed("it picks samples", place.axis)
    new = Place(place.axis, place.outer, inner)
    return Pushed((place,), (new,), lambda x: dropped(apply(op, present(x, place)), new))


def pad_blocks(op: Pad, types: Types, place: Place, size: Dim) -> Pushed | None:
    """A border of whole blocks before or after [m, batch, inner] makes m larger."""
    axis, block = place.axis, size * place.inner
    if op.before[axis] == 0 and op.after[axis] == 0:
        return None
    first, last = divide(op.before[axis], block), divide(op.after[axis], block)
    if first is None or last is None or isinstance(size, int):
        # a border as large as a batch that is a number is meant for other batches, too
        raise Mixed("it adds samples", axis)
    before, after = list(op.before), list(op.after)
    before[axis], after[axis] = first * place.inner, last * place.inner
    new = Place(axis, place.outer + first + last, place.inner)
    small = Pad(tuple(before), tuple(after), op.fill)
    return Pushed((place,), (new,), lambda x: apply(small, present(x, place)))


def concat_blocks(op: Concat, types: Types, place: Place, size: Dim) -> Pushed | None:
    """Blocks [m, batch, inner] one after the other: the doubled batch of guidance is one of 2."""
    axis = op.axis
    if place.axis != axis:
        return None
    counts = [divide(t.shape[axis], size * place.inner) for t in types]
    needs = tuple(None if n is None else Place(axis, n, place.inner) for n in counts)
    if any(n is None for n in counts):
        raise Mixed("it joins samples with others", axis)
    new = Place(axis, add_all(n for n in counts if n is not None), place.inner)

    def build(*xs: Value) -> Value:
        parts = (present(x, p) for x, p in zip(xs, needs, strict=True) if p is not None)
        return dropped(apply(op, *parts), new)

    return Pushed(needs, (new,), build)


def tile_blocks(op: Tile, types: Types, place: Place, size: Dim) -> Pushed | None:
    """The whole axis [m, batch, inner] again and again: m is larger."""
    count = op.counts[place.axis]
    if count == 1:
        return None
    new = Place(place.axis, place.outer * count, place.inner)
    return Pushed((place,), (new,), lambda x: apply(op, present(x, place)))


def repeat_makes(op: Repeat, types: Types, place: Place, size: Dim) -> Pushed | None:
    """Equal samples: one of them is what was repeated."""
    axis = place.axis
    if axis >= types[0].rank or op.counts[axis] != size * place.rest or types[0].shape[axis] != 1:
        return None
    counts = list(op.counts)
    counts[axis] = place.rest
    small = Repeat(tuple(counts))
    return Pushed((None,), (place,), lambda x: _repeat_once(small, x, place))


def _repeat_once(op: Repeat, x: Value, place: Place) -> Value:
    if not place.whole:
        return apply(op, x)
    less = op.counts[: place.axis] + op.counts[place.axis + 1 :]
    return apply(Repeat(less), tidy(Squeeze((place.axis,)), x))


# -- a batch of 1, which views may hide between two axes ------------------------------------------


def beside(shape: Sequence[Dim], boundary: int) -> tuple[Place, ...]:
    """A batch of 1 at the boundary before an axis: the last factor of one, or the first of one."""
    found = []
    if boundary > 0 and shape[boundary - 1] != 1:
        found.append(Place(boundary - 1, shape[boundary - 1], 1))
    if boundary < len(shape) and shape[boundary] != 1:
        found.append(Place(boundary, 1, shape[boundary]))
    return tuple(found)


def squeeze_hides(op: Squeeze, types: Types, place: Place, size: Dim) -> Pushed | None:
    """A squeezed batch of 1 lies between its neighbours; the sample had no such axis."""
    if place.axis not in op.axes:
        return None
    if size != 1 or not place.whole:
        raise Mixed("it drops the batch, which only a batch of 1 allows", place.axis)
    rest = tuple(a - (a > place.axis) for a in op.axes if a != place.axis)
    boundary = place.axis - sum(a < place.axis for a in op.axes)
    shape = op.type(*types).shape
    return Pushed(
        (place,), beside(shape, boundary), lambda x: tidy(Squeeze(rest), x) if rest else x
    )


def unsqueeze_shows(op: Unsqueeze, types: Types, place: Place, size: Dim) -> Pushed | None:
    """A new axis where a batch of 1 lies hidden is the batch."""
    if size != 1 or place.whole:
        return None
    at = kept_axis(op, types, place.axis)
    here = at + 1 if place.inner == 1 else at - 1 if place.outer == 1 else -1
    if here not in op.axes:
        return None
    rest = tuple(a - (a > here) for a in op.axes if a != here)
    return Pushed((place,), (Place(here),), lambda x: tidy(Unsqueeze(rest), x) if rest else x)


# fmt: off
ALONG: dict[type[Op], Row] = {
    Reduce:          along(Axes("it reduces over the batch", many=("axes",))),
    Softmax:         along(Axes("it is taken over the batch", one=("axis",))),
    LogSoftmax:      along(Axes("it is taken over the batch", one=("axis",))),
    CumSum:          along(Axes("it sums up over the batch", one=("axis",))),
    ArgMax:          along(Axes("it compares samples", one=("axis",))),
    TopK:            along(Axes("it sorts samples", one=("axis",))),
    Flip:            along(Axes("it turns the order of the samples round", many=("axes",))),
    Resize:          along(Axes("it interpolates between samples", many=("axes",))),
    Index:           along(Axes("it picks a sample", one=("axis",))),
    Stride:          along(Axes("it picks samples", each=(("steps", 1),)), stride_inner),
    Interleave:      along(Axes("it puts numbers between samples", each=(("steps", 1),))),
    Slice:           along(Axes("it picks samples", each=(("starts", 0), ("stops", None))), slice_blocks),
    Pad:             along(Axes("it adds samples", each=(("before", 0), ("after", 0))), pad_blocks),
    PadMode:         along(Axes("it adds samples", each=(("before", 0), ("after", 0)))),
    Repeat:          along(Axes("it repeats the batch", each=(("counts", 1),)), make=repeat_makes),
    Tile:            along(Axes("it repeats the batch", each=(("counts", 1),)), tile_blocks),
    Unfold:          along(Axes("it takes windows over the batch", one=("axis",))),
    Fold:            along(Axes("it adds samples up", one=("axis",), more=1)),
    Squeeze:         along(Axes("it drops the batch", many=("axes",)), squeeze_hides),
    Unsqueeze:       along(Axes("", many=("axes",), of_result=True), unsqueeze_shows),
    OneHot:          along(Axes("", one=("axis",), of_result=True)),
    Concat:          along(Axes("it joins samples with others", one=("axis",), together=True), concat_blocks),
    GatherElements:  along(Axes("it picks samples by number", one=("axis",), together=True)),
    ScatterElements: along(Axes("it writes to samples by number", one=("axis",), together=True)),
    LayerNorm:       along(Axes("it normalises over the batch", last=lambda op: op.axes)),
    RmsNorm:         along(Axes("it normalises over the batch", last=lambda op: op.axes)),
    MaxPool:         along(Axes("it pools over the batch", last=lambda op: len(op.window))),
    AvgPool:         along(Axes("it pools over the batch", last=lambda op: len(op.window))),
    AdaptiveAvgPool: along(Axes("it pools over the batch", last=lambda op: len(op.to))),
    Sample:          along(Axes("it picks a sample", one=("axis",))),
    Trilu:           along(Axes("it is a triangle over the batch", last=lambda op: 2)),
}
# fmt: on

__all__ = ["ALONG", "beside"]
