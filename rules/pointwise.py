"""The algebra of single numbers: units, opposites, order of operands."""

from __future__ import annotations

from safegraph.law import any_of, one, table, uniform, variables
from safegraph.ops import BINARY, Binary
from safegraph.value import Value

x, y = variables("x y")
(b,) = any_of(Binary, "b")


def exchanged(b: Binary, x: Value, y: Value) -> Value | None:
    """f(y, x) for a commutative f."""
    return b(y, x) if b.commutative else None


def unit_right(b: Binary, x: Value, y_is: float) -> Value | None:
    """X + 0, x * 1, x / 1, ..."""
    return x if BINARY[b.kind].unit == y_is else None


def unit_left(b: Binary, y: Value, x_is: float) -> Value | None:
    """0 + y, 1 * y"""
    return y if b.commutative and BINARY[b.kind].unit == x_is else None


# fmt: off
COMMUTE = table("pointwise",
    one("operands exchanged",              b(x, y),  exchanged,                        grade="exact"),
)

LAWS = table("pointwise",
    one("a unit on the right",             b(x, y),  unit_right, facts=uniform(y),     grade="exact"),
    one("a unit on the left",              b(x, y),  unit_left,  facts=uniform(x),     grade="exact"),
    one("a difference is a sum",           x - y,    x + (-y),                         grade="exact"),
    one("a sum with an opposite",          x + (-y), x - y,                            grade="exact"),
)
# fmt: on
