"""Rows of the batch table: contractions, of which the batch is one label."""

from __future__ import annotations

from collections.abc import Sequence

from safegraph.derived.attention import Attention
from safegraph.derived.einsum import Einsum, Gemm, Linear, Matmul
from safegraph.dims import Dim
from safegraph.op import Op
from safegraph.ops import Squeeze, Unsqueeze
from safegraph.ops.sample import Place
from safegraph.rules.batch_rows import (
    Mixed,
    Places,
    Pushed,
    Row,
    Types,
    agreed,
    dropped,
    leading,
    merged,
    parted,
    present,
    tidy,
)
from safegraph.rules.batch_views import lined_up
from safegraph.value import Value, apply, squeeze


def contraction(op: Einsum, types: Types, places: Places, size: Dim) -> Pushed:
    """The batch is one label, which the result has too."""
    sides = (op.left, op.right)
    at, place = next((i, p) for i, p in enumerate(places) if p is not None)
    label = sides[at][place.axis]
    wanted = tuple(place.at(side.index(label)) if label in side else None for side in sides)
    needs = agreed(places, wanted)
    if label not in op.out:
        raise Mixed("it sums over the batch", place.axis, operand=at)
    small = op
    if place.whole:
        left, right, out = (tuple(c for c in part if c != label) for part in (*sides, op.out))
        small = Einsum(left, right, out)
    return Pushed(needs, (place.at(op.out.index(label)),), lambda x, y: apply(small, x, y))


def lift_einsum(op: Einsum, xs: Sequence[Value], flags: Sequence[bool], size: Dim) -> Value:
    """One more label, first in the operands that have it and in the result."""
    new = max((*op.left, *op.right), default=-1) + 1
    left, right = (
        (new, *side) if flag else side
        for side, flag in zip((op.left, op.right), flags, strict=True)
    )
    return apply(Einsum(left, right, (new, *op.out)), *xs)


def matrices(op: Matmul, types: Types, places: Places, size: Dim) -> Pushed | None:
    """The batch is an axis before the matrices, or counts rows of x or columns of y."""
    rank = max(2, *(t.rank for t in types))  # of the result, if no operand were a vector
    if any(t.rank < 2 for t in types):
        return _vectors(op, types, places)
    at, place = next((i, p) for i, p in enumerate(places) if p is not None)
    axis = place.axis + rank - types[at].rank
    summed = rank - 1 if at == 0 else rank - 2
    if axis == summed:
        raise Mixed("it sums over the batch", place.axis, operand=at)
    if axis >= rank - 2:
        needs = agreed(places, [place if i == at else None for i in range(2)])
        return Pushed(needs, (place.at(axis),), lambda *xs: _free_axis(op, xs, at, place, types))
    wanted: list[Place | None] = []
    for t, has in zip(types, places, strict=True):
        own = axis - rank + t.rank
        stays = own < 0 or (has is None and t.shape[own] == 1 and types[at].shape[place.axis] != 1)
        wanted.append(None if stays else place.at(own))
    needs = agreed(places, wanted)

    def build(*xs: Value) -> Value:
        found = []
        for x, t, wants in zip(xs, types, wanted, strict=True):
            own = axis - rank + t.rank
            found.append(squeeze(x, [own]) if wants is None and place.whole and own >= 0 else x)
        return apply(op, *found)

    return Pushed(needs, (place.at(axis),), build)


def _free_axis(op: Matmul, xs: Sequence[Value], at: int, place: Place, types: Types) -> Value:
    """Rows of x or columns of y for one sample."""
    if not place.whole:
        return apply(op, *xs)
    if all(t.rank == 2 for t in types) or (at == 0 and types[1].rank == 2):
        return apply(op, *xs)  # a vector, or rows of one axis less
    axis = -2 if at == 0 else -1
    wide = [tidy(Unsqueeze((place.axis,)), x) if i == at else x for i, x in enumerate(xs)]
    product = apply(op, *wide)
    return tidy(Squeeze((product.rank + axis,)), product)


def _vectors(op: Matmul, types: Types, places: Places) -> Pushed | None:
    """A matrix, or many, times a vector: the axes of the matrices that are not summed."""
    at, place = next((i, p) for i, p in enumerate(places) if p is not None)
    matrix = types[at]
    summed = matrix.rank - 1 if at == 0 or matrix.rank == 1 else matrix.rank - 2
    if place.axis == summed:
        raise Mixed("it sums over the batch", place.axis, operand=at)
    if places[1 - at] is not None or (
        place.whole and at == 1 and place.axis == matrix.rank - 1 > 1
    ):
        return None
    new = place.at(place.axis - (at == 1 and place.axis > summed))
    return Pushed(places, (new,), lambda x, y: apply(op, x, y))


def lift_matmul(op: Matmul, xs: Sequence[Value], flags: Sequence[bool], size: Dim) -> Value | None:
    """The leading axis is one more axis before the matrices, where both operands are matrices."""
    ranks = [x.rank - flag for x, flag in zip(xs, flags, strict=True)]
    if min(ranks) >= 2:
        return apply(op, *lined_up(xs, flags))
    if not flags[1] and ranks[0] == 1 and ranks[1] <= 2:
        return apply(op, *xs)
    return apply(op, *xs) if not flags[1] and ranks[1] == 1 else None


def linear(op: Linear, types: Types, places: Places, size: Dim) -> Pushed | None:
    """The batch is an axis before the features of x."""
    place = places[0]
    if place is None or any(places[1:]) or any(t.rank > 1 for t in types[2:]):
        return None
    if place.axis == types[0].rank - 1:
        raise Mixed("it sums over the batch", place.axis, operand=0)
    return Pushed(places, (place,), lambda *xs: apply(op, *xs))


def first_only(op: Op, xs: Sequence[Value], flags: Sequence[bool], size: Dim) -> Value | None:
    """An op that does not count the axes before those it works on: unchanged."""
    return None if not flags[0] or any(flags[1:]) else apply(op, *xs)


def attention(op: Attention, types: Types, places: Places, size: Dim) -> Pushed | None:
    """The batch is an axis before length and features of q, k and v; the mask broadcasts."""
    q, k = types[:2]
    at, place = next((i, p) for i, p in enumerate(places) if p is not None)
    axis = place.axis + q.rank - types[at].rank
    shared = q.rank > 2 and q.shape[-3] != k.shape[-3]
    if axis >= q.rank - 2 or (shared and axis == q.rank - 3) or axis < 0:
        return None
    wanted: list[Place | None] = [place.at(axis)] * 3
    if len(types) > 3:
        own = axis - q.rank + types[3].rank
        one = own >= 0 and places[3] is None and types[3].shape[own] == 1 and q.shape[axis] != 1
        wanted.append(None if own < 0 or one else place.at(own))
    needs = agreed(places, wanted)

    def build(*xs: Value) -> Value:
        if len(xs) > 3 and wanted[3] is None and place.whole:
            own = axis - q.rank + types[3].rank
            xs = (*xs[:3], squeeze(xs[3], [own])) if own >= 0 else xs
        return apply(op, *xs)

    return Pushed(needs, (place.at(axis),), build)


def lift_attention(op: Attention, xs: Sequence[Value], flags: Sequence[bool], size: Dim) -> Value:
    """One more axis in front."""
    three = leading(xs[:3], flags[:3], size)
    mask = lined_up(xs[3:], flags[3:], three[0].rank - 1) if xs[3:] else []
    return apply(op, *three, *mask)


def matrix_of_rows(op: Gemm, types: Types, places: Places, size: Dim) -> Pushed | None:
    """Rows of a are samples: a bias for each column is that of each."""
    place = places[0]
    if place is None or any(places[1:]) or (len(types) > 2 and types[2].rank > 1):
        return None
    if place.axis != (1 if op.trans_a else 0):
        raise Mixed("it sums over the batch", place.axis, operand=0)
    plain = (op.alpha, op.trans_a, op.trans_b) == (1, False, True) and (
        len(types) < 3 or op.beta == 1
    )

    def build(a: Value, *more: Value) -> Value:
        if plain and place.whole:
            return apply(Linear(), a, *more)
        return dropped(apply(op, present(a, place), *more), place.at(0))

    return Pushed(places, (place.at(0),), build)


def lift_gemm(op: Gemm, xs: Sequence[Value], flags: Sequence[bool], size: Dim) -> Value | None:
    """The leading axis is a factor of the rows."""
    if not flags[0] or any(flags[1:]) or (len(xs) > 2 and xs[2].rank > 1):
        return None
    rows = 1 if op.trans_a else 0
    many = xs[0].shape[rows + 1]
    return parted(apply(op, merged(xs[0], rows), *xs[1:]), 0, size, many)


CONTRACTIONS: dict[type[Op], Row] = {
    Einsum: Row(contraction, lift_einsum),
    Matmul: Row(matrices, lift_matmul),
    Linear: Row(linear, first_only),
    Gemm: Row(matrix_of_rows, lift_gemm),
    Attention: Row(attention, lift_attention),
}
__all__ = ["CONTRACTIONS"]
