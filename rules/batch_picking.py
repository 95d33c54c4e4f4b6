"""Rows of the batch table: picking and writing by number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from safegraph.derived.index import Gather
from safegraph.derived.scatter import GatherNd, ScatterNd
from safegraph.dims import Dim, Shape
from safegraph.dtypes import is_integer
from safegraph.op import Op, TensorType
from safegraph.ops.sample import Place
from safegraph.rules.batch_rows import (
    Counting,
    Mixed,
    Places,
    Pushed,
    Row,
    Types,
    agreed,
    leading,
    moved,
)
from safegraph.rules.batch_views import lined_up
from safegraph.value import Value, apply, broadcast_shapes, expand, iota, squeeze, unsqueeze


def gathering(op: Gather, types: Types, places: Places, size: Dim) -> Pushed:
    """A table and the indices of each sample, or indices and the table of each sample."""
    x, i = places
    if x is not None and i is not None:
        raise Mixed("samples meet in pairs: the indices of each pick from every sample")
    if i is not None:
        return Pushed(places, (i.at(op.axis + i.axis),), lambda *xs: apply(op, *xs))
    assert x is not None
    if x.axis == op.axis:
        raise Mixed("it picks samples by number", x.axis, operand=0)
    new = x.at(x.axis if x.axis < op.axis else x.axis + types[1].rank - 1)
    small = Gather(op.axis - (x.whole and x.axis < op.axis))
    return Pushed(places, (new,), lambda *xs: apply(small, *xs))


def lift_gather(op: Gather, xs: Sequence[Value], flags: Sequence[bool], size: Dim) -> Value | None:
    """With indices for each sample the table of each is told by its number."""
    x, i = xs
    axis = op.axis
    if not flags[1]:
        return apply(Gather(axis + 1), x, i)
    if not flags[0]:
        return moved(apply(op, x, i), axis, 0)
    if not is_integer(i.dtype):
        return None
    number = unsqueeze(iota(size, i.dtype), range(1, i.rank))
    return moved(apply(GatherNd(axis), moved(x, 0, axis), number, i), axis, 0)


def gathering_nd(op: GatherNd, types: Types, places: Places, size: Dim) -> Pushed:
    """As `gathering`; and a sample picked by its own number, which other indices then pick from."""
    x, *picks = places
    count = len(picks)
    lead = max(t.rank for t in types[1:])
    inside = x is not None and op.axis <= x.axis < op.axis + count
    if x is not None and not inside:
        if any(p is not None for p in picks):
            raise Mixed("samples meet in pairs: the indices of each pick from every sample")
        new = x.at(x.axis if x.axis < op.axis else x.axis - count + lead)
        small = GatherNd(op.axis - (x.whole and x.axis < op.axis))
        return Pushed(places, (new,), lambda *xs: apply(small, *xs))
    if x is None:
        at, wanted = _indices(types[1:], picks, lead)
        new = at.at(op.axis + at.axis)
        return Pushed(
            (None, *wanted),
            (new,),
            lambda v, *xs: apply(op, v, *_level(xs, types[1:], wanted, at, lead)),
        )
    own = x.axis - op.axis
    others = [i for i in range(count) if i != own]
    axis = _own_axis(types[1:], picks, own, lead, size)
    if not x.whole or axis is None or not others:
        raise Mixed("it picks samples by number", x.axis, operand=0)
    at, wanted = _indices(
        [types[1 + i] for i in others], [picks[i] or None for i in others], lead, Place(axis)
    )
    needs: list[Any] = list(places)
    needs[1 + own] = Counting(axis - lead + types[1 + own].rank)
    for i, need in zip(others, wanted, strict=True):
        needs[1 + i] = need

    def build(v: Value, *xs: Value) -> Value:
        rest = _level([xs[i] for i in others], [types[1 + i] for i in others], wanted, at, lead)
        rest[0] = expand(rest[0], _without(axis, types[1:]))  # the numbers may have more axes
        return apply(Gather(op.axis) if len(rest) == 1 else GatherNd(op.axis), v, *rest)

    return Pushed(tuple(needs), (at.at(op.axis + at.axis),), build)


def _own_axis(types: Types, picks: Sequence[Any], own: int, lead: int, size: Dim) -> int | None:
    """The axis of the broadcast indices along which the samples are numbered."""
    if picks[own] is not None:
        return None
    for p, t in zip(picks, types, strict=True):
        if p is not None:
            return p.axis + lead - t.rank if p.whole else None
    shape = types[own].shape
    return next((i + lead - len(shape) for i, d in enumerate(shape) if d == size), None)


def _indices(
    types: Sequence[Any], picks: Sequence[Any], lead: int, at: Place | None = None
) -> tuple[Place, tuple[Place | None, ...]]:
    """Where the batch is in the common shape of indices, and in each of them."""
    if at is None:
        at = next(p.at(p.axis + lead - t.rank) for p, t in zip(picks, types, strict=True) if p)
    wanted = []
    for p, t in zip(picks, types, strict=True):
        own = at.axis - lead + t.rank
        wanted.append(None if own < 0 or (p is None and t.shape[own] == 1) else at.at(own))
    return at, agreed(tuple(picks), wanted)


def _without(axis: int, types: Sequence[TensorType]) -> Shape:
    """The common shape of indices without one of its axes."""
    shape = broadcast_shapes(*(t.shape for t in types))
    return (*shape[:axis], *shape[axis + 1 :])


def _level(
    xs: Sequence[Value], types: Sequence[Any], wanted: Sequence[Any], at: Place, lead: int
) -> list[Value]:
    """Indices without a batch lose their axis of size 1 where others lost the batch."""
    found = []
    for x, t, wants in zip(xs, types, wanted, strict=True):
        own = at.axis - lead + t.rank
        found.append(squeeze(x, [own]) if wants is None and at.whole and own >= 0 else x)
    return found


def lift_gather_nd(
    op: GatherNd, xs: Sequence[Value], flags: Sequence[bool], size: Dim
) -> Value | None:
    """The number of the sample is one more index."""
    x, *picks = xs
    if not any(flags[1:]):
        return apply(GatherNd(op.axis + 1), x, *picks)
    lead = max(i.rank - f for i, f in zip(picks, flags[1:], strict=True))
    lined = lined_up(picks, flags[1:], lead)
    if not flags[0]:
        return moved(apply(op, x, *lined), op.axis, 0)
    if len(picks) == 1:
        return None
    number = unsqueeze(iota(size, picks[0].dtype), range(1, lead + 1))
    return moved(apply(op, moved(x, 0, op.axis), number, *lined), op.axis, 0)


def scattering_nd(op: ScatterNd, types: Types, places: Places, size: Dim) -> Pushed | None:
    """Written beside the batch, or to a sample told by its own number."""
    x, updates, *picks = places
    count, lead = len(picks), max(t.rank for t in types[2:])
    place = x or updates
    if place is None:
        raise Mixed("the indices of each sample write to a tensor that all share")
    if x is None and updates is not None and updates.axis >= lead:
        x = updates.at(updates.axis - lead + count)
    if x is not None and x.axis >= count:
        if any(p is not None for p in picks):
            raise Mixed("samples meet in pairs: the indices of each write to every sample")
        needs = agreed(places, [x, x.at(x.axis - count + lead), *[None] * count])
        return Pushed(needs, (x,), lambda *xs: apply(op, *xs))
    if x is None or not x.whole:
        return None
    axis = _own_axis(types[2:], picks, x.axis, lead, size)
    if axis is None or count < 2:
        raise Mixed("it writes to samples by number", x.axis, operand=0)
    others = [i for i in range(count) if i != x.axis]
    at, wanted = _indices(
        [types[2 + i] for i in others], [picks[i] for i in others], lead, Place(axis)
    )
    full: list[Any] = [x, at, *[None] * count]
    full[2 + x.axis] = Counting(axis - lead + types[2 + x.axis].rank)
    for i, need in zip(others, wanted, strict=True):
        full[2 + i] = need
    agreed(places[:2], full[:2])

    def build(v: Value, new: Value, *xs: Value) -> Value:
        rest = _level([xs[i] for i in others], [types[2 + i] for i in others], wanted, at, lead)
        rest[0] = expand(rest[0], _without(axis, types[2:]))
        return apply(op, v, new, *rest)

    return Pushed(tuple(full), (x,), build)


def lift_scatter_nd(op: ScatterNd, xs: Sequence[Value], flags: Sequence[bool], size: Dim) -> Value:
    """The number of the sample is the first index."""
    x, updates = leading(xs[:2], flags[:2], size)
    picks, own = xs[2:], flags[2:]
    lead = max(i.rank - f for i, f in zip(picks, own, strict=True))
    number = unsqueeze(iota(size, picks[0].dtype), range(1, lead + 1))
    return apply(op, x, updates, number, *lined_up(picks, own, lead))


PICKING: dict[type[Op], Row] = {
    Gather: Row(gathering, lift_gather),
    GatherNd: Row(gathering_nd, lift_gather_nd),
    ScatterNd: Row(scattering_nd, lift_scatter_nd),
}
__all__ = ["PICKING"]
