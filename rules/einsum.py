"""Contractions: derived from products and sums, movement absorbed, sums of contractions merged."""

from __future__ import annotations

from safegraph.derived.einsum import Einsum, Labels
from safegraph.derived.index import Gather
from safegraph.derived.shape import Concat
from safegraph.dims import Dim
from safegraph.dtypes import is_float
from safegraph.law import any_of, constant, one, table, variables
from safegraph.ops import Group, Permute, Reduce, Repeat, Slice, Squeeze, Stride, Ungroup, Unsqueeze
from safegraph.value import (
    Value,
    apply,
    group,
    reduce,
    repeat,
    slice_axis,
    squeeze,
    ungroup,
    unsqueeze,
)

x, y, z, a, b, i = variables("x y z a b i")
(e,) = any_of(Einsum, "e")
(p,) = any_of(Permute, "p")
(r,) = any_of(Repeat, "r")
(u,) = any_of(Unsqueeze, "u")
(q,) = any_of(Squeeze, "q")
(f,) = any_of(Reduce, "f")
(s,) = any_of(Slice, "s")
(t,) = any_of(Stride, "t")
(g,) = any_of(Group, "g")
(v,) = any_of(Ungroup, "v")
(k,) = any_of(Concat, "k")
(h,) = any_of(Gather, "h")


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


def reduced_first(e: Einsum, x: Value, y: Value) -> Value | None:
    """Labels that only the left operand has and the result lacks are summed before."""
    private = [axis for axis, c in enumerate(e.left) if c not in e.right and c not in e.out]
    if not private:
        return None
    left = tuple(c for axis, c in enumerate(e.left) if axis not in private)
    return contract(left, e.right, e.out, reduce(x, private, "sum", keep=False), y)


def mean_result(f: Reduce, e: Einsum, x: Value, y: Value) -> Value | None:
    """A mean over axes that one operand alone has is a mean of that operand; of integers, rounded."""
    if f.kind != "mean" or not is_float(x.dtype):
        return None
    labels = [e.out[axis] for axis in f.axes]
    if all(c in e.left and c not in e.right for c in labels):
        return e(reduce(x, [e.left.index(c) for c in labels], "mean"), y)
    if all(c in e.right and c not in e.left for c in labels):
        return e(x, reduce(y, [e.right.index(c) for c in labels], "mean"))
    return None


def over_sum(e: Einsum, x: Value, a: Value, y: Value) -> Value:
    """(x + a) y = x y + a y, where a is constant: its part is small or known ahead."""
    return e(x, y) + e(a, y)


def split_group(e: Einsum, g: Group, x: Value, y: Value) -> Value | None:
    """A grouped axis as axes of their own: labels split, the other operand and the result follow."""
    fresh = max((*e.left, *e.right), default=0) + 1
    parts: dict[int, Labels] = {}
    sizes: dict[int, tuple[Dim, ...]] = {}
    at = 0
    for axis, n in enumerate(g.runs):
        if n > 1:
            parts[e.left[axis]] = tuple(range(fresh, fresh + n))
            sizes[e.left[axis]] = x.shape[at : at + n]
            fresh += n
        at += n

    def spread(labels: Labels) -> Labels:
        return tuple(p for c in labels for p in parts.get(c, (c,)))

    if any(c in e.right for c in parts):
        y = ungroup(y, [(-1, *sizes[c][1:]) if c in parts else (-1,) for c in e.right])
    core = contract(spread(e.left), spread(e.right), spread(e.out), x, y)
    return group(core, [len(parts.get(c, (c,))) for c in e.out])


def free_ungroup(e: Einsum, v: Ungroup, x: Value, y: Value) -> Value | None:
    """Axes that are split and only pass through can be split in the result instead."""
    left: list[int] = []
    merged: dict[int, tuple[int, tuple[Dim, ...]]] = {}  # first label -> how many, factors
    at = 0
    for factors in v.factors:
        own = e.left[at : at + len(factors)]
        at += len(factors)
        left.append(own[0])
        if len(own) == 1:
            continue
        if any(c in e.right or c not in e.out for c in own):
            return None
        first = e.out.index(own[0])
        if e.out[first : first + len(own)] != own:
            return None
        merged[own[0]] = len(own), factors
    if not merged:
        return None
    gone = {e.out[e.out.index(c) + i] for c, (n, _) in merged.items() for i in range(1, n)}
    out = tuple(c for c in e.out if c not in gone)
    core = contract(tuple(left), e.right, out, x, y)
    return ungroup(core, [merged[c][1] if c in merged else (-1,) for c in out])


def split_concat(e: Einsum, k: Concat, a: Value, b: Value, y: Value) -> Value | None:
    """A contraction over a joined axis is the sum of the contractions over its parts."""
    label = e.left[k.axis]
    if label in e.out or label not in e.right:
        return None
    place = e.right.index(label)
    middle = a.shape[k.axis]
    return e(a, slice_axis(y, place, 0, middle)) + e(b, slice_axis(y, place, middle, None))


def joined_results(k: Concat, e: Einsum, x: Value, y: Value, z: Value) -> Value | None:
    """Results of one operand side by side are one contraction with the others side by side."""
    label = e.out[k.axis]
    if label in e.left or label not in e.right:
        return None
    return e(x, Concat(e.right.index(label))(y, z))


def gather_last(e: Einsum, t: Gather, x: Value, i: Value, y: Value) -> Value | None:
    """Rows of a product instead of a product of rows: where the table is constant, it is known ahead."""
    own = (*e.left[: t.axis], -1, *e.left[t.axis + i.rank :])
    taken = e.left[t.axis : t.axis + i.rank]
    if any(c in e.right for c in taken) or any(c not in e.out for c in taken):
        return None
    # the indexed axes stay side by side in the result
    places = [e.out.index(c) for c in taken]
    if i.rank and places != list(range(places[0], places[0] + i.rank)):
        return None
    at = places[0] if places else 0
    out = tuple(c for c in e.out if c not in taken)
    product = contract(own, e.right, (*out[:at], -1, *out[at:]), x, y)
    return Gather(at)(product, i)


def _if_equal(x: Value, y: Value) -> Value | None:
    """x, where both have one shape: a sum that broadcasts would count the smaller one once."""
    return x if x.shape == y.shape else None


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

SPREADING = table("einsum",
    one("a contraction sums private axes first (left)",  e(x, y),      reduced_first),
    one("a contraction sums private axes first (right)", e(x, y),      lambda e, x, y: reduced_first(other(e), y, x)),
    one("a mean of a contraction",                       f(e(x, y)),   mean_result),
    one("a contraction of a sum with a constant (left)", e(x + a, y),  over_sum,       facts=constant(a), grade="finite"),
    one("a contraction of a sum with a constant (right)", e(y, x + a), lambda e, y, x, a: e(y, x) + e(y, a), facts=constant(a), grade="finite"),
    one("a contraction of a sum with repeated values (left)",  e(x + r(a), y), lambda e, x, r, a, y: e(x, y) + e(r(a), y), grade="finite"),
    one("a contraction of a sum with repeated values (right)", e(y, x + r(a)), lambda e, y, x, r, a: e(y, x) + e(y, r(a)), grade="finite"),
    one("a contraction splits a group (left)",           e(g(x), y),   split_group),
    one("a contraction splits a group (right)",          e(x, g(y)),   lambda e, g, x, y: split_group(other(e), g, y, x)),
    one("a contraction of split axes that pass through (left)",  e(v(x), y), free_ungroup),
    one("a contraction of split axes that pass through (right)", e(x, v(y)), lambda e, v, x, y: free_ungroup(other(e), v, y, x)),
    one("a contraction of joined operands (left)",       e(k(a, b), y), split_concat),
    one("a contraction of joined operands (right)",      e(y, k(a, b)), lambda e, k, y, a, b: split_concat(other(e), k, a, b, y)),
    one("a product of a constant table's rows (left)",   e(h(x, i), y), lambda e, h, x, i, y: gather_last(e, h, x, i, y)),
    one("a product of a constant table's rows (right)",  e(y, h(x, i)), lambda e, h, x, i, y: gather_last(other(e), h, x, i, y)),
    varies=True,
    depends=True,
)

FACTORS = table("einsum",
    one("contractions of one operand (left)",            e(x, y) + e(x, z), lambda e, x, y, z: _if_equal(y, z) and e(x, y + z)),
    one("contractions of one operand (right)",           e(x, z) + e(y, z), lambda e, x, y, z: _if_equal(x, y) and e(x + y, z)),
    varies=True,
    depends=True,
)
# fmt: on

LAWS = (*DERIVATION, *SLICES, *SPREADING, *FACTORS)
