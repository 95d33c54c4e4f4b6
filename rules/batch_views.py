"""Rows of the batch table: ops of single elements, broadcasting, and other views of the axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from safegraph.derived.pointwise import Broadcast, Prelu, Where
from safegraph.derived.shape import Expand, Reshape
from safegraph.dims import Dim, product
from safegraph.op import OPS, Op
from safegraph.ops import Group, Permute, Squeeze, Ungroup, Unsqueeze
from safegraph.ops.sample import Place, located
from safegraph.rules.batch_axes import beside
from safegraph.rules.batch_rows import (
    Mixed,
    Places,
    Pushed,
    Row,
    Types,
    agreed,
    dropped,
    leading,
    the_place,
    tidy,
)
from safegraph.value import Value, apply, squeeze, unsqueeze

# -- single elements ------------------------------------------------------------------------------


def pointwise(op: Op, types: Types, places: Places, size: Dim) -> Pushed:
    """All operands have one shape, and their batch in one place."""
    place = the_place(places)
    needs = agreed(places, [place] * len(types))
    return Pushed(needs, (place,), lambda *xs: apply(op, *xs))


def lift_pointwise(op: Op, xs: Sequence[Value], flags: Sequence[bool], size: Dim) -> Value:
    """Each element by itself, in many samples as in one."""
    return apply(op, *leading(xs, flags, size))


def broadcasting(op: Op, types: Types, places: Places, size: Dim) -> Pushed:
    """Axes are counted from the last: the batch is at the same one in all operands that have it."""
    out = op.type(*types)
    wanted = _aligned(op, types, places, out.shape)
    place = the_place(_from_last(wanted, types, out.rank))
    return Pushed(
        wanted, (place,), lambda *xs: apply(op, *_squeezed(xs, types, wanted, place, out.rank))
    )


def _aligned(op: Op, types: Types, places: Places, out: Sequence[Dim]) -> tuple[Place | None, ...]:
    rank = len(out)
    place = the_place(_from_last(places, types, rank))
    wanted: list[Place | None] = []
    for t, has in zip(types, places, strict=True):
        axis = place.axis - rank + t.rank
        stays = axis < 0 or (has is None and t.shape[axis] == 1 and out[place.axis] != 1)
        wanted.append(None if stays else place.at(axis))
    return agreed(places, wanted)


def _from_last(places: Places, types: Types, rank: int) -> Places:
    return tuple(p and p.at(p.axis + rank - t.rank) for p, t in zip(places, types, strict=True))


def _squeezed(
    xs: Sequence[Value], types: Types, wanted: Sequence[Any], place: Place, rank: int
) -> list[Value]:
    """Operands without a batch lose their axis of size 1 where the others lost the batch."""
    found = []
    for x, t, wants in zip(xs, types, wanted, strict=True):
        axis = place.axis - rank + t.rank
        gone = wants is None and place.whole and axis >= 0
        found.append(squeeze(x, [axis]) if gone else x)
    return found


def lift_broadcasting(op: Op, xs: Sequence[Value], flags: Sequence[bool], size: Dim) -> Value:
    """The leading axis stands before all others, also those that an operand lacks."""
    return apply(op, *lined_up(xs, flags))


def lined_up(xs: Sequence[Value], flags: Sequence[bool], rank: int = 0) -> list[Value]:
    """Operands of as many axes after the batch, where they have one."""
    rank = max(rank, *(x.rank - flag for x, flag in zip(xs, flags, strict=True)))
    return [
        unsqueeze(x, range(1, 1 + rank - (x.rank - 1))) if flag else x
        for x, flag in zip(xs, flags, strict=True)
    ]


def expanding(op: Expand, types: Types, places: Places, size: Dim) -> Pushed:
    """As broadcasting with an array of that shape."""
    (place,), to = places, list(op.type(*types).shape)
    assert place is not None
    at = place.at(place.axis + len(to) - types[0].rank)
    if to[at.axis] != types[0].shape[place.axis]:
        raise Mixed("it repeats the batch", place.axis)
    return Pushed(places, (at,), lambda x: apply(Expand(_without(to, at)), x))


def expand_makes(op: Expand, types: Types, place: Place, size: Dim) -> Pushed | None:
    """Equal samples: one of them is what was expanded."""
    to = list(op.type(*types).shape)
    axis = place.axis - len(to) + types[0].rank
    if place.axis >= len(to) or to[place.axis] != size * place.rest:
        return None
    if axis >= 0 and types[0].shape[axis] != 1:
        return None

    def build(x: Value) -> Value:
        small = dropped(x, Place(axis)) if place.whole and axis >= 0 else x
        return apply(Expand(_without(to, place)), small)

    return Pushed((None,), (place,), build)


def _without(shape: Sequence[Dim], place: Place) -> tuple[Dim, ...]:
    kept = () if place.whole else (place.rest,)
    return (*shape[: place.axis], *kept, *shape[place.axis + 1 :])


def lift_expand(op: Expand, xs: Sequence[Value], flags: Sequence[bool], size: Dim) -> Value:
    """One more axis to expand to."""
    return apply(Expand((size, *op.to)), *lined_up(xs, flags, len(op.to)))


# -- other views ----------------------------------------------------------------------------------


def permuting(op: Permute, types: Types, places: Places, size: Dim) -> Pushed:
    """The batch goes where its axis goes."""
    (place,) = places
    assert place is not None
    new = place.at(op.order.index(place.axis))
    small = op
    if place.whole:
        rest = (a for a in op.order if a != place.axis)
        small = Permute(tuple(a - (a > place.axis) for a in rest))
    return Pushed(places, (new,), lambda x: tidy(small, x))


def lift_permute(op: Permute, xs: Sequence[Value], flags: Sequence[bool], size: Dim) -> Value:
    """The leading axis stays."""
    return tidy(Permute((0, *(a + 1 for a in op.order))), *xs)


def grouping(op: Group, types: Types, places: Places, size: Dim) -> Pushed:
    """[a], [o, batch, i], [b] become [a o, batch, i b]."""
    (place,), shape = places, types[0].shape
    assert place is not None
    ends = [sum(op.runs[: i + 1]) for i in range(len(op.runs))]
    to = next(i for i, end in enumerate(ends) if place.axis < end)
    before, after = shape[ends[to] - op.runs[to] : place.axis], shape[place.axis + 1 : ends[to]]
    new = Place(to, product(before) * place.outer, place.inner * product(after))
    options: tuple[Place, ...] = (new,)
    if size == 1 and not new.whole:
        options = hidden(shape, op.type(*types).shape, place)
    shown = options[0] if options else new
    if not place.whole:
        return Pushed(places, options, lambda x: dropped(tidy(op, x), shown))
    runs = list(op.runs)
    runs[to] -= 1
    kept = tuple(n for n in runs if n)
    if new.whole:  # beside the batch there are only axes of size 1, which go too
        ones = range(ends[to] - op.runs[to], ends[to] - 1)
        kept = tuple(n for i, n in enumerate(runs) if i != to)
        return Pushed(places, (new,), lambda x: tidy(Group(kept), tidy(Squeeze(tuple(ones)), x)))
    return Pushed(places, options, lambda x: dropped(tidy(Group(kept), x), shown))


def lift_group(op: Group, xs: Sequence[Value], flags: Sequence[bool], size: Dim) -> Value:
    """The leading axis stays alone."""
    return tidy(Group((1, *op.runs)), *xs)


def ungrouping(op: Ungroup, types: Types, places: Places, size: Dim) -> Pushed:
    """The factor is one of those into which its axis is split, or part of one."""
    (place,) = places
    assert place is not None
    shape = op.type(*types).shape
    first = sum(len(f) for f in op.factors[: place.axis])
    many = len(op.factors[place.axis])
    own = shape[first : first + many]
    options: tuple[Place, ...]
    if size == 1 and not place.whole:  # between two axes: the sample has all axes
        options = hidden(types[0].shape, shape, place)
        shown = options[0] if options else place
        return Pushed(places, options, lambda x: dropped(tidy(op, x), shown))
    if size == 1:
        every = hidden(types[0].shape, shape, place)
        options = tuple(p for p in every if p.whole and first <= p.axis < first + many)
    else:
        found = located(own, place.inner, size)
        options = () if found is None else (found.at(first + found.axis),)
    if not options:
        raise Mixed("the batch, a factor of an axis, and the new axes overlap", place.axis)
    new = options[0]
    sizes = [
        *shape[first : new.axis],
        *(() if new.whole else (new.rest,)),
        *shape[new.axis + 1 : first + many],
    ]
    factors = list(op.factors)

    def build(x: Value) -> Value:
        if place.whole:  # all other factors are 1
            rest = factors[: place.axis] + factors[place.axis + 1 :]
            ones = Unsqueeze(tuple(range(first, first + len(sizes))))
            return tidy(ones, tidy(Ungroup(tuple(rest)), x))
        split = [(-1, *sizes[1:])] if sizes else []
        if not sizes:
            x = tidy(Squeeze((place.axis,)), x)
        rest = factors[: place.axis] + split + factors[place.axis + 1 :]
        return tidy(Ungroup(tuple(rest)), x)

    return Pushed(places, options, build)


def lift_ungroup(op: Ungroup, xs: Sequence[Value], flags: Sequence[bool], size: Dim) -> Value:
    """The leading axis stays whole."""
    return tidy(Ungroup(((-1,), *op.factors)), *xs)


def reshaping(op: Reshape, types: Types, places: Places, size: Dim) -> Pushed:
    """The batch is found by how many elements follow it."""
    (place,), shape = places, types[0].shape
    assert place is not None
    to = op.type(*types).shape
    if size == 1:
        options = hidden(shape, to, place)
    else:
        found = located(to, place.inner * product(shape[place.axis + 1 :]), size)
        options = () if found is None else (found,)
        if found is None:
            raise Mixed("it mixes the batch with other axes", place.axis)
    small = _without(to, options[0]) if options else to
    return Pushed(places, options, lambda x: apply(Reshape(small), x))


def lift_reshape(op: Reshape, xs: Sequence[Value], flags: Sequence[bool], size: Dim) -> Value:
    """The leading axis stays; the wildcard is a number by now."""
    return apply(Reshape((size, *op.to)), *xs)


def hidden(shape: Sequence[Dim], to: Sequence[Dim], place: Place) -> tuple[Place, ...]:
    """Where a batch of 1 is after a reshape: an axis of size 1, or between two axes.

    Of several axes of size 1 it is the one at its old place among its neighbours of size 1.
    """
    inner = place.inner * product(shape[place.axis + 1 :])
    boundaries = [k for k in range(len(to) + 1) if product(to[k:]) == inner]
    if not boundaries:
        found = located(tuple(to), inner, 1)
        return () if found is None or found.whole else (found,)
    ones = [a for a in range(boundaries[0], boundaries[-1]) if to[a] == 1]
    if not ones:
        return beside(to, boundaries[0])
    place_among = 0
    while place.whole and place.axis > place_among and shape[place.axis - 1 - place_among] == 1:
        place_among += 1
    return (Place(ones[min(place_among, len(ones) - 1)]),)


VIEWS: dict[type[Op], Row] = {
    **{cls: Row(pointwise, lift_pointwise) for cls in OPS.values() if cls.is_pointwise},
    Broadcast: Row(broadcasting, lift_broadcasting),
    Where: Row(broadcasting, lift_broadcasting),
    Prelu: Row(broadcasting, lift_broadcasting),
    Expand: Row(expanding, lift_expand, expand_makes),
    Permute: Row(permuting, lift_permute),
    Group: Row(grouping, lift_group),
    Ungroup: Row(ungrouping, lift_ungroup),
    Reshape: Row(reshaping, lift_reshape),
}
__all__ = ["VIEWS", "lined_up"]
