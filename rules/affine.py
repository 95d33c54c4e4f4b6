"""Chains of additions and multiplications by numbers, and numbers moved through linear ops."""

from __future__ import annotations

from math import isfinite

from safegraph.derived.einsum import Einsum
from safegraph.dtypes import is_float
from safegraph.errors import ShapeError
from safegraph.law import any_of, constant, one, table, uniform, variables
from safegraph.op import TensorType
from safegraph.ops import Binary, Reduce, Repeat
from safegraph.value import Value, full

x, y, a, b = variables("x y a b")
(e,) = any_of(Einsum, "e")
(r,) = any_of(Repeat, "r")
(f,) = any_of(Reduce, "f")
(k,) = any_of(Binary, "k")


def number(value: float, like: TensorType | Value) -> Value:
    """An array of one number, of this type; an infinite one has no algebra: inf * 0 and inf - inf are NaN."""
    if not isfinite(value):
        raise ShapeError(f"{value} is not finite")
    return full(value, like.shape, like.dtype)


# fmt: off
LAWS = table("affine",
    one("a quotient by a number is a product",    x / a,            lambda x, a_is: x * number(1 / a_is, x) if a_is and x.dtype[0] == "f" else None,
        facts=uniform(a)),
    one("a difference of a number is a sum",      x - a,            lambda x, a_is: x + number(-a_is, x),
        facts=uniform(a)),
    one("factors of a product",                   (x * a) * b,      lambda x, a_is, b_is: x * number(a_is * b_is, x),
        facts=(uniform(a), uniform(b))),
    one("terms of a sum",                         (x + a) + b,      lambda x, a_is, b_is: x + number(a_is + b_is, x),
        facts=(uniform(a), uniform(b))),
    one("a number times a sum",                   (x + a) * b,      lambda x, a_is, b_is: x * number(b_is, x) + number(a_is * b_is, x),
        facts=(uniform(a), uniform(b))),
    one("constants of a sum",                     (x + a) + b,      x + (a + b),
        facts=(constant(a), constant(b))),
    one("repeated terms of a sum",                (x + r(a)) + r(b), x + r(a + b)),
    one("constants of a product",                 (x * a) * b,      x * (a * b),
        facts=(constant(a), constant(b))),
    one("a number in a contraction (left)",       e(x * a, y),      lambda e, x, a_is, y, root: e(x, y) * number(a_is, root),
        facts=uniform(a)),
    one("a number in a contraction (right)",      e(x, y * a),      lambda e, x, a_is, y, root: e(x, y) * number(a_is, root),
        facts=uniform(a)),
    one("a number goes into a constant (right)",  e(x, y) * a,      lambda e, x, y, a_is: e(x, y * number(a_is, y)),
        facts=(uniform(a), constant(y))),
    one("a number goes into a constant (left)",   e(x, y) * a,      lambda e, x, y, a_is: e(x * number(a_is, x), y),
        facts=(uniform(a), constant(x))),
    one("an opposite in a contraction (left)",    e(-x, y),         -e(x, y)),
    one("an opposite in a contraction (right)",   e(x, -y),         -e(x, y)),
    one("the opposite of a contraction (right)",  -e(x, y),         e(x, -y),         facts=constant(y)),
    one("the opposite of a contraction (left)",   -e(x, y),         e(-x, y),         facts=constant(x)),
    one("a number in a sum",                      f(x * a),         lambda f, x, a_is, root: f(x) * number(a_is, root) if f.kind == "sum" or (f.linear and is_float(x.dtype)) else None,
        facts=uniform(a)),
)
# fmt: on
