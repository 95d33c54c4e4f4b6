"""Rows of the batch table: layers that have an axis for the batch, or channels it may be merged with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from safegraph.derived.attention import EncoderLayer, MultiHead
from safegraph.derived.conv import Conv, ConvTranspose
from safegraph.derived.norm import BatchNorm, GroupNorm, InstanceNorm, LocalResponseNorm
from safegraph.derived.recurrent import Gru, Lstm, Rnn
from safegraph.dims import Dim, divide
from safegraph.op import Op
from safegraph.ops.sample import Place
from safegraph.rules.batch_rows import (
    Mixed,
    Places,
    Pushed,
    Row,
    Types,
    agreed,
    dropped,
    many_of,
    merged,
    parted,
    present,
    the_place,
)
from safegraph.value import Value, apply


def slots(where: Callable[[Any], tuple[tuple[int | None, ...], int]], otherwise: Any = None) -> Row:
    """An op whose operands have a batch axis (at these places; None: none), and the result too.

    Where it takes no operand without that axis, the axis stays, of size 1.
    """

    def push(op: Any, types: Types, places: Places, size: Dim) -> Pushed | None:
        own, out = where(op)
        own = own[: len(types)]
        place = the_place(places)
        if any(p is not None and p.axis != axis for p, axis in zip(places, own, strict=True)):
            return otherwise(op, types, places, size) if otherwise else None
        needs = tuple(None if axis is None else place.at(axis) for axis in own)
        if any(p is not None and p != n for p, n in zip(places, needs, strict=True)):
            return None

        def build(*xs: Value) -> Value:
            whole = [x if n is None else present(x, n) for x, n in zip(xs, needs, strict=True)]
            return dropped(apply(op, *whole), place.at(out))

        return Pushed(needs, (place.at(out),), build)

    def lift(op: Any, xs: Sequence[Value], flags: Sequence[bool], size: Dim) -> Value | None:
        own, out = where(op)
        own = own[: len(xs)]
        if any(flag and axis is None for flag, axis in zip(flags, own, strict=True)):
            return None
        first, at = next(
            (x, a) for x, a, f in zip(xs, own, flags, strict=True) if f and a is not None
        )
        many = first.shape[at + 1]
        found = [
            x if a is None else merged(x, a) if flag else many_of(x, a, size)
            for x, a, flag in zip(xs, own, flags, strict=True)
        ]
        return parted(apply(op, *found), out, size, many)

    return Row(push, lift)


def convolution(op: Any, types: Types, places: Places, size: Dim) -> Pushed | None:
    """Channels [1, batch * c] with as many groups: a convolution for each sample."""
    x, w = types[:2]
    place = places[0] or (places[1] and places[1].at(1))
    groups = divide(op.groups, size)
    if place is None or place.axis != 1 or place.outer != 1 or groups is None:
        return None
    if x.rank != w.rank:
        return None
    rows = divide(w.shape[0], size)
    needs = [Place(1, 1, place.inner), Place(0, 1, rows or 0)]
    channels = rows if isinstance(op, Conv) else w.shape[1] * groups
    if len(types) > 2:
        needs.append(Place(0, 1, channels or 0))
    agreed(places, needs)
    new = Place(1, 1, channels or 0)
    small = type(op)(**(op.spec | {"groups": groups}))

    def build(*xs: Value) -> Value:
        return dropped(apply(small, *(present(v, n) for v, n in zip(xs, needs, strict=True))), new)

    return Pushed(tuple(needs), (new,), build)


def conv_push(op: Any, types: Types, places: Places, size: Dim) -> Pushed | None:
    """Along the batch axis of x, of which a convolution needs none."""
    x, w = types[:2]
    place = places[0]
    if place is None or place.axis != 0 or x.rank != w.rank or any(places[1:]):
        return convolution(op, types, places, size)
    return Pushed(places, (place,), lambda *xs: apply(op, *xs))


def lift_conv(op: Any, xs: Sequence[Value], flags: Sequence[bool], size: Dim) -> Value | None:
    """The leading axis is the batch axis, or a factor of it."""
    if not flags[0] or any(flags[1:]):
        return None
    if xs[0].rank == xs[1].rank:
        return apply(op, *xs)
    many = xs[0].shape[1]
    return parted(apply(op, merged(xs[0], 0), *xs[1:]), 0, size, many)


def channels(op: Any, types: Types, places: Places, size: Dim) -> Pushed | None:
    """A batch among the channels (axis 1) or in space, where the op works on each by itself."""
    place = places[0]
    if place is None or place.axis == 0:  # numbers of channels that differ by sample
        return None
    if place.axis > 1:
        if not isinstance(op, BatchNorm | LocalResponseNorm):
            raise Mixed("it normalises over the batch", place.axis, operand=0)
        if any(places[1:]):
            return None
        return Pushed(places, (place,), lambda *xs: apply(op, *xs))
    if isinstance(op, LocalResponseNorm):
        raise Mixed("it normalises over the batch", 1)
    small = op
    if isinstance(op, GroupNorm):
        groups = divide(op.groups, size)
        if not isinstance(groups, int) or place.outer != 1:
            return None
        small = GroupNorm(groups, op.eps)
    needs = agreed(places, [place if i == 0 else place.at(0) for i in range(len(types))])

    def build(*xs: Value) -> Value:
        wide = [present(v, n) for v, n in zip(xs, needs, strict=True) if n is not None]
        return dropped(apply(small, *wide), place)

    return Pushed(needs, (place,), build)


def _recurrent(op: Any) -> tuple[tuple[int | None, ...], int]:
    states = (0,) * op.states
    return (1, None, None, *states, None, None), 0 if op.result_index else 1


def through_time(op: Any, types: Types, places: Places, size: Dim) -> None:
    """A batch on the axis of the steps; weights for each sample are left to the definition."""
    if places[0] is not None and places[0].axis == 0:
        raise Mixed("it goes from sample to sample, step by step", 0, operand=0)


# fmt: off
LAYERS: dict[type[Op], Row] = {
    Conv:              Row(conv_push, lift_conv),
    ConvTranspose:     Row(conv_push, lift_conv),
    BatchNorm:         slots(lambda op: ((0, None, None, None, None), 0), channels),
    InstanceNorm:      slots(lambda op: ((0, None, None), 0), channels),
    GroupNorm:         slots(lambda op: ((0, None, None), 0), channels),
    LocalResponseNorm: slots(lambda op: ((0,), 0), channels),
    MultiHead:         slots(lambda op: ((0, 0, 0, None, None, None, None), 0)),
    EncoderLayer:      slots(lambda op: ((0, *[None] * 12), 0)),
    Lstm:              slots(_recurrent, through_time),
    Gru:               slots(_recurrent, through_time),
    Rnn:               slots(_recurrent, through_time),
}
# fmt: on
__all__ = ["LAYERS"]
