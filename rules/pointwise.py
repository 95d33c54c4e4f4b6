"""The algebra of single numbers: units, opposites, order of operands."""

from __future__ import annotations

from safegraph.law import any_of, nonnegative, one, positive, table, uniform, variables
from safegraph.ops import BINARY, Binary, Unary
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


def above(x: Value, y_is: float) -> Value | None:
    """The maximum with what no element is below."""
    return x if y_is <= 0 else None


def squared(x: Value, y_is: float) -> Value | None:
    """The square root of a square, and the square of a square root."""
    return x if y_is == 2 else None


exp, log, maximum, root = Unary("exp"), Unary("log"), Binary("maximum"), Binary("root")

# fmt: off
COMMUTE = table("pointwise",
    one("operands exchanged",              b(x, y),  exchanged,                        grade="exact"),
    varies=True,
)

LAWS = table("pointwise",
    one("a unit on the right",             b(x, y),  unit_right, facts=uniform(y),     grade="exact"),
    one("a unit on the left",              b(x, y),  unit_left,  facts=uniform(x),     grade="exact"),
    one("a difference is a sum",           x - y,    x + (-y),                         grade="exact"),
    one("a sum with an opposite",          x + (-y), x - y,                            grade="exact"),
    one("exp of a logarithm",              exp(log(x)), x,           facts=positive(x)),
    one("a maximum with less",             maximum(x, y), above,     facts=(nonnegative(x), uniform(y)), grade="exact"),
    one("a maximum with less, exchanged",  maximum(y, x), above,     facts=(nonnegative(x), uniform(y)), grade="exact"),
    one("a magnitude",                     maximum(x, -x), lambda x: None if x.dtype.startswith("u") else x, facts=nonnegative(x), grade="exact"),
    one("a root of a square",              root(x * x, y), squared, facts=(nonnegative(x), uniform(y))),
    one("a square of a root",              root(x, y) * root(x, y), squared, facts=(nonnegative(x), uniform(y))),
    varies=True,
)
# fmt: on
