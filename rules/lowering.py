"""The same values in the ops that runtimes have: broadcasting instead of repeats, matmul for einsum."""

from __future__ import annotations

from safegraph.derived.einsum import Einsum, by_matmul
from safegraph.derived.pointwise import Broadcast, Where
from safegraph.law import any_of, one, table, variables
from safegraph.op import TensorType
from safegraph.ops import Binary, Repeat, Select, Unsqueeze
from safegraph.rules.einsum import other
from safegraph.value import Value

x, y, z = variables("x y z")
(b,) = any_of(Binary, "b")
(s,) = any_of(Select, "s")
(m,) = any_of(Broadcast, "m")
(e,) = any_of(Einsum, "e")
(r,) = any_of(Repeat, "r")
(u,) = any_of(Unsqueeze, "u")
(c,) = any_of(Where, "c")


def _if_same(value: Value, root: TensorType) -> Value | None:
    return value if value.shape == root.shape else None


def _leading(u: Unsqueeze) -> bool:
    return u.axes == tuple(range(len(u.axes)))


# fmt: off
LAWS = table("lowering",
    one("a contraction by matmul",                     e(x, y),       lambda e, x, y: by_matmul(e, x, y)),
    one("a contraction by matmul, operands exchanged", e(x, y),       lambda e, x, y: by_matmul(other(e), y, x)),
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
