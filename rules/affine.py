"""Chains of additions and multiplications by numbers, and numbers moved through linear ops."""

from __future__ import annotations

from collections.abc import Iterator
from math import frexp, isclose, isfinite

import numpy as np

from safegraph.derived.einsum import Einsum
from safegraph.dims import Dim
from safegraph.dtypes import is_float, precision, to_numpy
from safegraph.errors import ShapeError
from safegraph.law import Fact, Law, Term, any_of, constant, one, table, uniform, variables, varying
from safegraph.op import TensorType
from safegraph.ops import BINARY, Binary, Reduce, Repeat
from safegraph.value import Value, full

x, y, a, b = variables("x y a b")
(e,) = any_of(Einsum, "e")
(r,) = any_of(Repeat, "r")
(f,) = any_of(Reduce, "f")
(k,) = any_of(Binary, "k")


def number(value: float, like: TensorType | Value) -> Value:
    """An array of one number, of this type, which must have one near it.

    Infinite ones have no algebra (inf * 0 and inf - inf are NaN); 0 for a small one loses all.
    """
    if not isfinite(value):
        raise ShapeError(f"{value} is not finite")
    if is_float(like.dtype):
        with np.errstate(over="ignore"):
            stored = float(to_numpy(like.dtype).type(value))
        if not isfinite(stored) or (value and not stored):
            raise ShapeError(f"{like.dtype} has no number near {value}")
    return full(shortest(value, like.dtype), like.shape, like.dtype)


def near(value: float | Dim, wanted: float | Dim, dtype: str) -> bool:
    """Equal to the precision of an element type, after some roundings.

    After fewer in small types: 16 of bf16 would make a factor of 1.1 one of 1.
    """
    if not (is_float(dtype) and isinstance(value, int | float) and isinstance(wanted, int | float)):
        return value == wanted
    one_step = precision(dtype)
    return isclose(value, wanted, rel_tol=(16 if one_step < 1e-5 else 2) * one_step)


def shortest(value: float, dtype: str) -> float:
    """A number that this type has, in the fewest digits: 0.1 and what f32 makes of it are one."""
    if not is_float(dtype):
        return value
    stored = to_numpy(dtype).type(value)
    return float(str(stored)) if float(stored) == value else value


def computed(k: Binary, x: Value, x_is: float, y_is: float) -> Value | None:
    """A number for an op on two: without it, equal sums of numbers would never meet."""
    if BINARY[k.kind].boolean or not is_float(x.dtype):
        return None
    result = k.run(np.float64(x_is), np.float64(y_is))
    return number(float(result), x)


def factors(x: Value, a_is: float, b_is: float) -> Value | None:
    """One number for two; a factor of 1 is none.

    Two that cancel only to rounding stay: x = (x * a) * b would let numbers grow for ever, each a
    rounding error away from another.
    """
    if a_is == 1 or b_is == 1:
        return None
    if near(a_is * b_is, 1, x.dtype):
        return x if abs(frexp(a_is)[0]) == 0.5 and a_is * b_is == 1 else None
    return x * number(a_is * b_is, x)


def terms(x: Value, a_is: float, b_is: float) -> Value | None:
    """One number for two; a term of 0 is none."""
    return None if a_is == 0 or b_is == 0 else x + number(a_is + b_is, x)


def term_and_factor(x: Value, a_is: float, b_is: float) -> Value | None:
    """The factor first; one of 1 and a term of 0 are none."""
    if a_is == 0 or b_is == 1:
        return None
    return x * number(b_is, x) + number(a_is * b_is, x)


def zeros(a_is: float, root: TensorType) -> Value | None:
    """Products with 0 add up to 0."""
    return None if a_is else number(0, root)


def _unless_numbers(name: str, left: Term, right: Term, *facts: Fact) -> Iterator[tuple[Law, ...]]:
    """A law of two operands of which one, at least, is more than a number: numbers have their own."""
    yield one(f"{name} (first)", left, right, facts=(*facts, varying(x), varying(a)))
    yield one(f"{name} (second)", left, right, facts=(*facts, varying(x), varying(b)))


# fmt: off
OUTWARDS = table("affine",
    one("an op on two numbers is a number",       k(x, y),          computed,
        facts=(uniform(x), uniform(y))),
    one("a quotient by a number is a product",    x / a,            lambda x, a_is: x * number(1 / a_is, x) if a_is and is_float(x.dtype) else None,
        facts=uniform(a)),
    one("a difference of a number is a sum",      x - a,            lambda x, a_is: x + number(-a_is, x),
        facts=uniform(a)),
    one("factors of a product",                   (x * a) * b,      factors,
        facts=(uniform(a), uniform(b), varying(x))),
    one("terms of a sum",                         (x + a) + b,      terms,
        facts=(uniform(a), uniform(b), varying(x))),
    one("a number times a sum",                   (x + a) * b,      term_and_factor,
        facts=(uniform(a), uniform(b), varying(x))),
    one("a number in a contraction (left)",       e(x * a, y),      lambda e, x, a_is, y, root: e(x, y) * number(a_is, root),
        facts=uniform(a)),
    one("a number in a contraction (right)",      e(x, y * a),      lambda e, x, a_is, y, root: e(x, y) * number(a_is, root),
        facts=uniform(a)),
    # A sum with zeros goes through contractions: unknown, they would be terms without end.
    one("a contraction with zeros (left)",        e(a, y),          zeros,            facts=uniform(a), grade="finite"),
    one("a contraction with zeros (right)",       e(y, a),          zeros,            facts=uniform(a), grade="finite"),
    one("an opposite in a contraction (left)",    e(-x, y),         -e(x, y)),
    one("an opposite in a contraction (right)",   e(x, -y),         -e(x, y)),
    one("a number in a sum",                      f(x * a),         lambda f, x, a_is, root: f(x) * number(a_is, root) if f.kind == "sum" or (f.linear and is_float(x.dtype)) else None,
        facts=uniform(a)),
    varies=True,
)

CONSTANTS = table("affine",
    *_unless_numbers("constants of a sum",        (x + a) + b,      x + (a + b),      constant(a), constant(b)),
    *_unless_numbers("repeated terms of a sum",   (x + r(a)) + r(b), x + r(a + b)),
    *_unless_numbers("repeated terms around a sum", (r(a) + x) + r(b), x + r(a + b)),
    *_unless_numbers("constants of a product",    (x * a) * b,      x * (a * b),      constant(a), constant(b)),
    varies=True,
)

INWARDS = table("affine",
    one("a number goes into a constant (right)",  e(x, y) * a,      lambda e, x, y, a_is: e(x, y * number(a_is, y)),
        facts=(uniform(a), constant(y))),
    one("a number goes into a constant (left)",   e(x, y) * a,      lambda e, x, y, a_is: e(x * number(a_is, x), y),
        facts=(uniform(a), constant(x))),
    one("the opposite of a contraction (right)",  -e(x, y),         e(x, -y),         facts=constant(y)),
    one("the opposite of a contraction (left)",   -e(x, y),         e(-x, y),         facts=constant(x)),
    varies=True,
)
# fmt: on

LAWS = (*OUTWARDS, *CONSTANTS, *INWARDS)
