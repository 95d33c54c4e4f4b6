"""The forms that people and exporters write, brought to those of the definitions.

Numbers go to the right and out of products, powers become products and roots, quotients are also
products with inverses, and shifts by means come together again: laws that a definition needs to be
seen in a graph that was not written from it.  They run after contractions were derived, together
with the exchange of operands, and none makes larger terms.
"""

from __future__ import annotations

from collections.abc import Iterator

from safegraph.derived.norm import square_root
from safegraph.derived.pointwise import sigmoid
from safegraph.derived.shape import Concat
from safegraph.dims import product
from safegraph.dtypes import is_float
from safegraph.law import Law, any_of, one, table, uniform, variables, varying
from safegraph.op import TensorType
from safegraph.ops import Binary, Reduce, Repeat, Select, Unary, Unsqueeze
from safegraph.rules.affine import near, number
from safegraph.value import Value, full, reduce, repeat, select, tensor, unary, unsqueeze

x, y, z, a, b, m, s, c = variables("x y z a b m s c")
(k,) = any_of(Binary, "k")
(f,) = any_of(Reduce, "f")
r, t = any_of(Repeat, "r t")
(u,) = any_of(Unsqueeze, "u")
choose = Select()
inverse, tanh, exp, log = (Unary(kind) for kind in ("inverse", "tanh", "exp", "log"))
root = Binary("root")
less, more, equal, power = Binary("minimum"), Binary("maximum"), Binary("equal"), Binary("pow")


def plain(k: Binary, x: Value, a_is: float) -> Value:
    """A number that was stored as a tensor, as a number."""
    return k(x, number(a_is, x))


def small_power(x: Value, a_is: float) -> Value | None:
    """Squares and cubes are products, a power of -1 is an inverse."""
    if a_is == -1:
        return x.inverse() if is_float(x.dtype) else None
    return x * x if a_is == 2 else (x * x) * x if a_is == 3 else None


def half_power(x: Value, a_is: float) -> Value | None:
    """A power of a half is a square root; of an infinite number it is not."""
    if abs(a_is) != 0.5 or not is_float(x.dtype):
        return None
    return square_root(x) if a_is > 0 else square_root(x).inverse()


def monotone(bound: Binary, y: Value, a_is: float, b_is: float) -> Value | None:
    """A number above 0 times a maximum or minimum; products of integers may wrap around."""
    if not b_is > 0 or not is_float(y.dtype):
        return None
    return bound(y * number(b_is, y), number(a_is * b_is, y))


def bounds(x: Value, a_is: float, b_is: float) -> Value | None:
    """From above and below, in the order of the definition of clip."""
    return x.maximum(b_is).minimum(a_is) if b_is <= a_is else None


def mean_of_sum(f: Reduce, x: Value, a_is: float) -> Value | None:
    """A sum over n elements, divided by n."""
    count = product(x.shape[axis] for axis in f.axes)
    if f.kind != "sum" or not isinstance(count, int) or not is_float(x.dtype) or count == 0:
        return None
    return reduce(x, f.axes, "mean") if near(a_is * count, 1, x.dtype) else None


def variance(f: Reduce, x: Value) -> Value | None:
    """The mean of squares less the square of the mean."""
    if f.kind != "mean" or not is_float(x.dtype):
        return None
    centred = x - f(x)
    return f(centred * centred)


def logistic(y: Value, a_is: float) -> Value | None:
    """1 + tanh(y) = 2 / (1 + exp(-2 y))"""
    return sigmoid(y * number(2, y)) * number(2, y) if a_is == 1 else None


def scaled_logistic(y: Value, a_is: float, b_is: float) -> Value | None:
    """The same where both terms were multiplied by a number."""
    return sigmoid(y * number(2, y)) * number(2 * a_is, y) if a_is == b_is else None


def not_chosen(c: Value, a_is: float, x: Value, y: Value) -> Value | None:
    """A choice by a negation is the choice turned round."""
    return select(c, y, x) if c.dtype == "bool" and not a_is else None


def barred(x: Value, c: Value, y_is: float, z_is: float) -> Value | None:
    """0 where allowed and -inf elsewhere, added."""
    return select(c, x, z_is) if y_is == 0 and z_is == float("-inf") else None


_X = tensor("x", "f64[2 3]")
_SHAPES = ((2, 3), (3,), (2, 3, 4), (2, 3, 4, 5))


def _wide(shape: tuple[int, ...]) -> Value:
    return tensor("x", TensorType("f64", shape))


def _bounded(bound: Binary) -> Iterator[tuple[Law, ...]]:
    """Numbers above 0 that multiply a maximum or minimum, also one that is a factor."""
    forms = [bound(_wide(s), full(n, s, "f64")) * 0.5 for s in _SHAPES for n in (0, 6)]
    yield one(
        f"a number times a {bound.kind}",
        bound(y, a) * b,
        lambda y, a_is, b_is: monotone(bound, y, a_is, b_is),
        facts=(uniform(a), uniform(b), varying(y)),
        like=tuple(forms),
    )
    yield one(
        f"a number goes into a {bound.kind}",
        (x * bound(y, a)) * b,
        lambda x, y, a_is, b_is: (found := monotone(bound, y, a_is, b_is)) and x * found,
        facts=(uniform(a), uniform(b), varying(x), varying(y)),
    )


def _barred(shape: tuple[int, ...]) -> Value:
    return select(tensor("c", TensorType("bool", shape)), full(0.0, shape, "f64"), float("-inf"))


def _normed(samples: int, *rest: int) -> Value:
    """A product with a scale over a root that each sample has, as norms of channels have."""
    ones = (1,) * (len(rest) - 1)
    power, two, scale = (
        tensor(n, TensorType("f64", (samples, *ones, last)))
        for n, last in (("y", 1), ("z", 1), ("m", rest[-1]))
    )
    factor = repeat(inverse(root(power, two)), (1, *ones, rest[-1])) * scale
    return _wide((samples, *rest)) * repeat(factor, (1, *rest[:-1], 1))


def _shifted(shape: tuple[int, ...], axis: int) -> Value:
    """The logarithm of a sum of exponentials of x - a, plus a."""
    once = tuple(1 if i == axis else n for i, n in enumerate(shape))
    a = tensor("a", TensorType("f64", once))
    counts = [n if i == axis else 1 for i, n in enumerate(shape)]
    return reduce((_wide(shape) - repeat(a, counts)).exp(), [axis], "sum").log() + a


(joined,) = any_of(Concat, "joined")

# fmt: off
NUMBERS = table("spelling",
    one("a number on the right",               k(a, x),            lambda k, a, x: k(x, a) if k.commutative else None,
        facts=uniform(a), grade="exact"),
    one("a stored number is a number",         k(x, a),            plain,             facts=uniform(a), grade="exact"),
    one("a stored number is chosen",           choose(c, x, a),  lambda c, x, a_is: select(c, x, full(a_is, x.shape, x.dtype)),
        facts=uniform(a), grade="exact"),
    one("a number leaves a product (left)",    (x * a) * y,        lambda x, a_is, y: (x * y) * number(a_is, x),
        facts=(uniform(a), varying(x), varying(y))),
    one("a number leaves a product (right)",   x * (y * a),        lambda x, a_is, y: (x * y) * number(a_is, x),
        facts=(uniform(a), varying(x), varying(y))),
    one("a number leaves a quotient",          (x * a) / y,        lambda x, a_is, y: (x / y) * number(a_is, x) if is_float(x.dtype) else None,
        facts=(uniform(a), varying(x), varying(y))),
    *_bounded(more), *_bounded(less),
    one("bounds from below and above",         more(less(x, a), b), bounds,           facts=(uniform(a), uniform(b)), grade="exact"),
    one("a negative factor",                   x * a,              lambda x, a_is: -(x * number(-a_is, x)) if a_is < 0 else None,
        facts=(uniform(a), varying(x))),
    one("the opposite of a factor",            x * (-y),           -(x * y)),
    varies=True,
)

FUNCTIONS = table("spelling",
    one("a quotient is a product",             x / y,              lambda x, y: x * y.inverse() if is_float(x.dtype) else None,
        facts=varying(y)),
    one("a product with an inverse",           x * inverse(y),     x / y),
    one("a product with repeated inverses",    x * r(inverse(y)),  x / r(y)),
    one("a product with inverses, new axes",   x * r(u(inverse(y))), x / r(u(y))),
    one("a quotient of 1",                     a / y,              lambda a_is, y: y.inverse() if a_is == 1 and is_float(y.dtype) else None,
        facts=uniform(a)),
    one("a small power is a product",          power(x, a),        small_power,       facts=uniform(a), like=tuple(_X**n for n in (2, 3, -1))),
    one("a power of a half is a root",         power(x, a),        half_power,        facts=uniform(a), grade="finite",
        like=tuple(_wide(s) ** n for s in _SHAPES for n in (0.5, -0.5))),
    one("an inverse of an exponential",        inverse(exp(x)), lambda x: unary("exp", -x)),
    one("a logarithm of shifted exponentials", log(f(exp(x - r(a)))) + a, lambda f, x: f(x.exp()).log() if f.kind == "sum" and is_float(x.dtype) else None,
        like=tuple(_shifted(s, axis) for s in _SHAPES for axis in range(len(s)))),
    one("1 and tanh",                          tanh(y) + a,        logistic,          facts=uniform(a)),
    one("1 and tanh, multiplied",              tanh(y) * a + b,    scaled_logistic,   facts=(uniform(a), uniform(b))),
    one("a choice by a negation",              choose(equal(c, a), x, y), not_chosen, facts=uniform(a), grade="exact",
        like="c: bool 2 3, a: bool 2 3, x: 2 3, y: 2 3"),
    one("a choice by a repeated negation",     choose(r(equal(c, a)), x, y), lambda c, a_is, x, y, r: not_chosen(r(c), a_is, x, y), facts=uniform(a), grade="exact",
        like="c: bool 2 1, a: bool 2 1, x: 2 3, y: 2 3"),
    one("a choice by a negation, new axes",    choose(r(u(equal(c, a))), x, y), lambda c, a_is, x, y, r, u: not_chosen(r(u(c)), a_is, x, y), facts=uniform(a), grade="exact",
        like="c: bool 3, a: bool 3, x: 2 3, y: 2 3"),
    one("0 or -inf added is a choice",         x + choose(c, y, z), barred,          facts=(uniform(y), uniform(z)),
        like=tuple(_wide(shape) + _barred(shape) for shape in _SHAPES)),
    one("0 or -inf added, repeated",           x + r(choose(c, y, z)), lambda x, c, y_is, z_is, r: barred(x, r(c), y_is, z_is), facts=(uniform(y), uniform(z)),
        like=tuple(_wide(shape) + repeat(_barred((*shape[:-1], 1)), (*[1] * (len(shape) - 1), shape[-1])) for shape in _SHAPES)),
    one("0 or -inf added, new axes",           x + r(u(choose(c, y, z))), lambda x, c, y_is, z_is, r, u: barred(x, r(u(c)), y_is, z_is), facts=(uniform(y), uniform(z)),
        like=tuple(_wide(shape) + repeat(unsqueeze(_barred(shape[1:]), (0,)), (shape[0], *[1] * (len(shape) - 1))) for shape in _SHAPES)),
    one("a join of one value with itself",     joined(x, x),        lambda joined, x: repeat(x, [2 if i == joined.axis else 1 for i in range(x.rank)]) if x.shape[joined.axis] == 1 else None, grade="exact"),
    varies=True,
)

STATISTICS = table("spelling",
    one("a sum over n is a mean",              f(x) * a,           mean_of_sum,       facts=uniform(a),
        like=tuple(reduce(_wide(s), [axis], "sum") * (1 / s[axis]) for s in _SHAPES for axis in range(len(s)))),
    one("a mean of squares less a square",     f(x * x) - f(x) * f(x), variance),
    one("scale and shift",                     x * s + (b - m * s), (x - m) * s + b),
    one("scale and shift, repeated",           x * r(s) + r(b - m * s), (x - r(m)) * r(s) + r(b),
        like="x: 2 3 4, s: 2 1 4, b: 2 1 4, m: 2 1 4; x: 2 3, s: 1 3, b: 1 3, m: 1 3"),
    one("scale and shift, with new axes",      x * r(u(s)) + r(u(b - m * s)), (x - r(u(m))) * r(u(s)) + r(u(b))),
    one("a sum with a repeated opposite",      x + r(-y),          x - r(y)),
    one("a quotient times a factor",           (x / r(a)) * r(b),  lambda x, r, a, b: x * r(b / a) if is_float(x.dtype) else None,
        facts=(varying(a), varying(b))),
    one("a factor of a quotient",              (x * r(a)) / t(root(y, z)), lambda x, r, a, t, y, z: (x / t(root(y, z))) * r(a),
        like="x: 2 3 4, a: 1 1 4, y: 2 3 1, z: 2 3 1"),
    one("a product with an inverse root",      x * (t(inverse(root(y, z))) * m), lambda x, t, y, z, m: (x / t(root(y, z))) * m,
        like="x: 2 3 4, y: 2 3 1, z: 2 3 1, m: 2 3 4"),
    one("a product with an inverse root, repeated", x * r(t(inverse(root(y, z))) * m), lambda x, r, t, y, z, m: (x / r(t(root(y, z)))) * r(m),
        like=tuple(_normed(*sizes) for sizes in ((2, 3, 4), (2, 4, 3, 5)))),
    varies=True,
)
# fmt: on

LAWS = (*NUMBERS, *FUNCTIONS, *STATISTICS)
