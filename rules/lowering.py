"""The same values in the ops that runtimes have: broadcasting instead of repeats, matmul for einsum."""

from __future__ import annotations

from safegraph.derived.einsum import Einsum, Linear, Matmul, MatmulForm, by_matmul, einsum
from safegraph.derived.pointwise import Broadcast, Where
from safegraph.derived.pool import MaxPool
from safegraph.law import any_of, constant, one, table, variables
from safegraph.op import Op, TensorType
from safegraph.ops import Binary, Repeat, Select, Stride, Ungroup, Unsqueeze
from safegraph.rules.einsum import other
from safegraph.value import Value, apply, permute, reshape, tensor, unsqueeze

x, y, z, w, a = variables("x y z w a")
(b,) = any_of(Binary, "b")
(s,) = any_of(Select, "s")
(m,) = any_of(Broadcast, "m")
(e,) = any_of(Einsum, "e")
(r,) = any_of(Repeat, "r")
(u,) = any_of(Unsqueeze, "u")
(c,) = any_of(Where, "c")
(n,) = any_of(Linear, "n")
(t,) = any_of(Stride, "t")
(g,) = any_of(Ungroup, "g")
p = Matmul()


def _if_same(value: Value, root: TensorType) -> Value | None:
    return value if value.shape == root.shape else None


def _leading(u: Unsqueeze) -> bool:
    return u.axes == tuple(range(len(u.axes)))


def matmul(e: Einsum, x: Value, y: Value) -> Value | None:
    """A contraction as one matmul with the permutes and reshapes that this takes.

    Not where an operand has labels of its own that are summed: another law sums those first.
    """
    form = MatmulForm.of(e)
    return None if form.left_only or form.right_only else by_matmul(e, x, y)


def plainly(e: Einsum, x: Value, y: Value) -> Value | None:
    """A contraction that is the definition of a matmul, with nothing to permute or reshape."""
    found = Matmul()(x, y)
    return found if Matmul().define(x, y) is e(x, y) else None


def with_axes(u: Unsqueeze, x: Value, y: Value, root: TensorType) -> Value | None:
    """A matmul with new axes before its rows and columns: they may be axes of its operands."""
    rank = max(x.rank, y.rank)
    if max(u.axes) >= root.rank - 2 or not {x.rank, y.rank} <= {2, rank}:
        return None
    return Matmul()(*(unsqueeze(o, u.axes) if o.rank == rank else o for o in (x, y)))


def by_linear(e: Einsum, x: Value, y: Value) -> Value | None:
    """A contraction of the last axis with a matrix, as `Linear`; the matrix in its layout (out, in)."""
    if len(e.right) != 2 or not e.left or e.left[-1] not in e.right or e.left[-1] in e.out:
        return None
    outer = e.right[0] if e.right[1] == e.left[-1] else e.right[1]
    if outer in e.left or e.out != (*e.left[:-1], outer):
        return None
    return Linear()(x, y if e.right[1] == e.left[-1] else permute(y, (1, 0)))


def by_pooling(t: Stride, x: Value) -> Value | None:
    """A stride of images as the maximum of windows of one element: runtimes keep their layout in it."""
    steps = t.steps[2:]
    if x.rank != 4 or t.steps[:2] != (1, 1) or x.dtype not in ("f32", "f64", "f16"):
        return None
    if 0 in x.shape:
        return None  # there is no window
    one_, none = (1,) * len(steps), (0,) * len(steps)
    return MaxPool(one_, steps, none, none, one_)(x)


def with_bias(x: Value, w: Value, b: Value, root: TensorType) -> Value | None:
    """A bias of one axis that the sum repeats over all others."""
    if b.rank > 0 and all(d == 1 for d in b.shape[:-1]) and b.shape[-1] == root.shape[-1]:
        return Linear()(x, w, reshape(b, b.shape[-1:]))
    return None


def with_bias_inside(m: Op, x: Value, w: Value, a: Value, root: TensorType) -> Value | None:
    """A bias that is added after the leading axes of a linear map were reshaped."""
    if root.shape[-1] != w.shape[0]:
        return None
    found = with_bias(x, w, a, root)
    return found if found is None else m(found)


_X, _Y = tensor("x", "f64[2 3 4]"), tensor("y", "f64[4 5]")
_PLAIN = Matmul().define(_X, _Y)
_EXCHANGED = apply(other(Einsum.of("abc,cd->abd")), _Y, _X)
_LINEAR = tuple(
    einsum(text, tensor("y", kernel), tensor("x", rows))
    for text, kernel, rows in (
        ("oi,ni->no", "f64[5 4]", "f64[3 4]"),
        ("io,ni->no", "f64[4 5]", "f64[3 4]"),
        ("oi,mni->mno", "f64[5 4]", "f64[2 3 4]"),
        ("io,mni->mno", "f64[4 5]", "f64[2 3 4]"),
    )
)

# fmt: off
LAWS = table("lowering",
    one("a contraction that is a matmul",              e(x, y),       plainly, like=_PLAIN),
    one("a matmul with its operands exchanged",        e(y, x),       lambda e, x, y: plainly(other(e), x, y), like=_EXCHANGED),
    one("a contraction by matmul",                     e(x, y),       matmul),
    one("a contraction by matmul, operands exchanged", e(x, y),       lambda e, x, y: matmul(other(e), y, x)),
    one("a matmul with new axes in front",             u(p(x, y)),    with_axes, like="x: 2 3 4, y: 2 4 5; x: 2 3 4, y: 4 5; x: 3 4, y: 4 5"),
    one("a contraction by linear",                     e(x, y),       by_linear, facts=constant(y), like="x: 2 3 4, y: 5 4; x: 3 4, y: 4 5"),
    one("a contraction by linear, operands exchanged", e(y, x),       lambda e, x, y: by_linear(other(e), x, y), facts=constant(y), like=_LINEAR),
    one("a linear map with a bias",                    n(x, w) + r(a), lambda x, w, a, root: with_bias(x, w, a, root), like="x: 2 3 4, w: 5 4, a: 1 1 5"),
    one("a bias with a linear map",                    r(a) + n(x, w), lambda x, w, a, root: with_bias(x, w, a, root), like="x: 2 3 4, w: 5 4, a: 1 1 5"),
    one("a linear map with a bias, with new axes",     u(n(x, w)) + r(a), lambda u, x, w, a, root: with_bias_inside(u, x, w, a, root), like="x: 3 4, w: 5 4, a: 1 1 5; x: 2 3 4, w: 5 4, a: 1 1 1 5"),
    one("a bias with a linear map, with new axes",     r(a) + u(n(x, w)), lambda u, x, w, a, root: with_bias_inside(u, x, w, a, root), like="x: 3 4, w: 5 4, a: 1 1 5; x: 2 3 4, w: 5 4, a: 1 1 1 5"),
    one("a linear map with a bias, ungrouped",         g(n(x, w)) + r(a), lambda g, x, w, a, root: with_bias_inside(g, x, w, a, root), like="x: 6 4, w: 5 4, a: 1 1 5; x: 6 2 4, w: 5 4, a: 1 1 1 5"),
    one("a bias with a linear map, ungrouped",         r(a) + g(n(x, w)), lambda g, x, w, a, root: with_bias_inside(g, x, w, a, root), like="x: 6 4, w: 5 4, a: 1 1 5; x: 6 2 4, w: 5 4, a: 1 1 1 5"),
    one("a stride by pooling",                         t(x),          by_pooling, like="x: 2 3 4 6"),
    one("a binary op broadcasts",                      b(x, y),       lambda b, x, y: Broadcast(b.kind)(x, y)),
    one("a select broadcasts",                         s(x, y, z),    lambda x, y, z: Where()(x, y, z)),
    one("broadcasting repeats (left)",                 m(r(x), y),    lambda m, x, y, root: _if_same(m(x, y), root)),
    one("broadcasting repeats (right)",                m(x, r(y)),    lambda m, x, y, root: _if_same(m(x, y), root)),
    one("broadcasting adds axes in front (left)",      m(u(x), y),
        lambda m, u, x, y, root: _if_same(m(x, y), root) if _leading(u) else None),
    one("broadcasting adds axes in front (right)",     m(x, u(y)),
        lambda m, u, x, y, root: _if_same(m(x, y), root) if _leading(u) else None),
    one("a choice repeats (condition)",                c(r(x), y, z), lambda c, x, y, z, root: _if_same(c(x, y, z), root)),
    one("a choice repeats (first)",                    c(x, r(y), z), lambda c, x, y, z, root: _if_same(c(x, y, z), root)),
    one("a choice repeats (second)",                   c(x, y, r(z)), lambda c, x, y, z, root: _if_same(c(x, y, z), root)),
    one("a choice adds axes in front (condition)",     c(u(x), y, z),
        lambda c, u, x, y, z, root: _if_same(c(x, y, z), root) if _leading(u) else None),
)
# fmt: on
