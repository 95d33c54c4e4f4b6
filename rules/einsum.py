"""Contractions: derived from products and sums, movement absorbed, sums of contractions merged."""

from __future__ import annotations

from safegraph.derived.einsum import Einsum, Labels
from safegraph.dims import Dim
from safegraph.law import any_of, one, table, variables
from safegraph.ops import Permute, Reduce, Repeat, Slice, Squeeze, Stride, Unsqueeze
from safegraph.value import Value, apply, repeat, squeeze, unsqueeze

x, y, z, w = variables("x y z w")
(e,) = any_of(Einsum, "e")
(p,) = any_of(Permute, "p")
(r,) = any_of(Repeat, "r")
(u,) = any_of(Unsqueeze, "u")
(q,) = any_of(Squeeze, "q")
(f,) = any_of(Reduce, "f")
(s,) = any_of(Slice, "s")
(t,) = any_of(Stride, "t")


# -- a contraction with other operands ------------------------------------------------------------


def contract(left: Labels, right: Labels, out: Labels, x: Value, y: Value) -> Value:
    """An einsum with these labels."""
    return apply(Einsum(left, right, out).canonical(), x, y)


def other(e: Einsum) -> Einsum:
    """The same contraction with its operands exchanged."""
    return Einsum(e.right, e.left, e.out)


def contraction(f: Reduce, x: Value, y: Value) -> Value | None:
    """A sum of products is a contraction over the summed axes."""
    if f.kind != "sum":
        return None
    every = tuple(range(x.rank))
    return unsqueeze(
        contract(every, every, tuple(a for a in every if a not in f.axes), x, y), f.axes
    )


def absorb_permute(e: Einsum, p: Permute, x: Value, y: Value) -> Value:
    """The labels of the permuted axes, in the operand's order."""
    left = tuple(e.left[p.order.index(axis)] for axis in range(x.rank))
    return contract(left, e.right, e.out, x, y)


def absorb_squeeze(e: Einsum, q: Squeeze, x: Value, y: Value) -> Value:
    """Dropped axes of size 1 are summed instead."""
    labels = iter(e.left)
    fresh = max((*e.left, *e.right), default=0) + 1
    left = tuple(fresh + axis if axis in q.axes else next(labels) for axis in range(x.rank))
    return contract(left, e.right, e.out, x, y)


def absorb_unsqueeze(e: Einsum, u: Unsqueeze, x: Value, y: Value) -> Value:
    """Inserted axes need no label; in the result they are inserted at the end."""
    gone = [e.left[axis] for axis in u.axes]
    left = tuple(c for axis, c in enumerate(e.left) if axis not in u.axes)
    return _with_new_axes(left, e.right, e.out, dict.fromkeys(gone, 1), x, y)


def absorb_repeat(e: Einsum, r: Repeat, x: Value, y: Value) -> Value | None:
    """A repeated axis is never materialised: the other operand has it, or the result repeats it."""
    gone: dict[int, Dim] = {e.left[axis]: n for axis, n in enumerate(r.counts) if n != 1}
    if any(c not in e.right and c not in e.out for c in gone):
        return None  # summed: n times the value
    small = squeeze(x, [axis for axis, c in enumerate(e.left) if c in gone])
    return _with_new_axes(tuple(c for c in e.left if c not in gone), e.right, e.out, gone, small, y)


def _with_new_axes(
    left: Labels, right: Labels, out: Labels, gone: dict[int, Dim], x: Value, y: Value
) -> Value:
    """The contraction where `gone` are labels that the left operand has no more; sizes for the result."""
    lost = [c for c in out if c in gone and c not in right]
    core = contract(left, right, tuple(c for c in out if c not in lost), x, y)
    wide = unsqueeze(core, [axis for axis, c in enumerate(out) if c in lost])
    return repeat(wide, [gone[c] if c in lost else 1 for c in out])


def permuted_result(p: Permute, e: Einsum, x: Value, y: Value) -> Value:
    """The result's labels in another order."""
    return contract(e.left, e.right, tuple(e.out[axis] for axis in p.order), x, y)


def squeezed_result(q: Squeeze, e: Einsum, x: Value, y: Value) -> Value:
    """An axis of size 1 is dropped by summing it."""
    return contract(
        e.left, e.right, tuple(c for axis, c in enumerate(e.out) if axis not in q.axes), x, y
    )


def summed_result(f: Reduce, e: Einsum, x: Value, y: Value) -> Value | None:
    """A sum over an axis of the result is part of the contraction."""
    if f.kind != "sum":
        return None
    out = tuple(c for axis, c in enumerate(e.out) if axis not in f.axes)
    return unsqueeze(contract(e.left, e.right, out, x, y), f.axes)


def _cut(op: Slice, e: Einsum, labels: Labels, x: Value) -> Value:
    place = {c: axis for axis, c in enumerate(e.out)}
    starts = tuple(op.starts[place[c]] if c in place else 0 for c in labels)
    stops = tuple(op.stops[place[c]] if c in place else None for c in labels)
    return apply(Slice(starts, stops), x)


def sliced_result(s: Slice, e: Einsum, x: Value, y: Value) -> Value:
    """What is not asked for is not computed: the operands are cut instead."""
    return e(_cut(s, e, e.left, x), _cut(s, e, e.right, y))


def strided_result(t: Stride, e: Einsum, x: Value, y: Value) -> Value:
    """What is not asked for is not computed: the operands are strided instead."""
    place = {c: axis for axis, c in enumerate(e.out)}

    def steps(labels: Labels) -> Stride:
        return Stride(tuple(t.steps[place[c]] if c in place else 1 for c in labels))

    return e(apply(steps(e.left), x), apply(steps(e.right), y))


# fmt: off
DERIVATION = table("einsum",
    one("a sum of products is a contraction",            f(x * y),     contraction),
    one("a contraction absorbs a permute (left)",        e(p(x), y),   absorb_permute),
    one("a contraction absorbs a permute (right)",       e(x, p(y)),   lambda e, p, x, y: absorb_permute(other(e), p, y, x)),
    one("a contraction absorbs a squeeze (left)",        e(q(x), y),   absorb_squeeze),
    one("a contraction absorbs a squeeze (right)",       e(x, q(y)),   lambda e, q, x, y: absorb_squeeze(other(e), q, y, x)),
    one("a contraction absorbs an unsqueeze (left)",     e(u(x), y),   absorb_unsqueeze),
    one("a contraction absorbs an unsqueeze (right)",    e(x, u(y)),   lambda e, u, x, y: absorb_unsqueeze(other(e), u, y, x)),
    one("a contraction never repeats (left)",            e(r(x), y),   absorb_repeat),
    one("a contraction never repeats (right)",           e(x, r(y)),   lambda e, r, x, y: absorb_repeat(other(e), r, y, x)),
    one("a permute of a contraction",                    p(e(x, y)),   permuted_result),
    one("a squeeze of a contraction",                    q(e(x, y)),   squeezed_result),
    one("a sum over a contraction",                      f(e(x, y)),   summed_result),
)

SLICES = table("einsum",
    one("a slice of a contraction",                      s(e(x, y)),   sliced_result),
    one("a stride of a contraction",                     t(e(x, y)),   strided_result),
)

FACTORS = table("einsum",
    one("contractions of one operand (left)",            e(x, y) + e(x, z), lambda e, x, y, z: e(x, y + z)),
    one("contractions of one operand (right)",           e(x, z) + e(y, z), lambda e, x, y, z: e(x + y, z)),
)
# fmt: on

LAWS = (*DERIVATION, *SLICES, *FACTORS)
