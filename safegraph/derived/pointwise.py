"""Activations and the other functions of single elements, as formulas in the core functions.

Every formula is exact at ±inf and NaN: what it gives there is what the function's limit or IEEE 754
says, which is also what the frameworks give unless a docstring says otherwise.  (Signs of zero are
not kept apart.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import inf, pi, sqrt
from typing import Any

import numpy as np

from safegraph.derived.base import Derived, randomly
from safegraph.derived.norm import square_root, widened
from safegraph.dtypes import is_integer
from safegraph.errors import ShapeError
from safegraph.ops import BINARY, Binary
from safegraph.value import Value, binary, broadcast, select

# -- formulas, shared by the definitions below ----------------------------------------------------


equal = partial(binary, "equal")


def negated(x: Value) -> Value:
    """Logical not; of a number, whether it is 0."""
    return equal(x, 0)


def truth(x: Value) -> Value:
    """The value as a condition: a number is true where it is not 0."""
    return x if x.dtype == "bool" else negated(negated(x))


def absolute(x: Value) -> Value:
    """|x|; the difference in place of the sign change serves unsigned integers too."""
    return select(x > 0, x, 0 - x)


def truncated(x: Value) -> Value:
    """Rounded towards 0; integers are."""
    return x if is_integer(x.dtype) else select(x < 0, -(-x).floor(), x.floor())


def remainder(x: Value, y: Value) -> Value:
    """The rest x - trunc(x/y)*y, with the sign of x; x itself for an infinite y.

    Where rounding takes the quotient over a whole number, the result may be off by y.
    """
    rest = x - truncated(x / y) * y
    if is_integer(x.dtype):
        return rest
    finite = absolute(x) < inf
    return select(equal(absolute(y), inf).minimum(finite), x, rest)


def modulo(x: Value, y: Value) -> Value:
    """The rest x - floor(x/y)*y, with the sign of y: moved by y where signs differ."""
    rest = remainder(x, y)
    moved = negated(equal(rest < 0, y < 0)).minimum(negated(equal(rest, 0)))
    return select(moved, rest + y, rest)


def expm1(x: Value) -> Value:
    """exp(x) - 1 = tanh(x/2) * (exp(x) + 1), which loses nothing near 0."""
    return (x / 2).tanh() * (x.exp() + 1)


def log1p(x: Value) -> Value:
    """log(1 + x), for |x| < 1 as 2 artanh(x/(x + 2)), which loses nothing near 0."""
    return select(x * x < 1, 2 * (x / (x + 2)).arctanh(), (x + 1).log())


def softplus(x: Value) -> Value:
    """log(1 + exp(x)) = max(x, 0) + log(1 + e) with e = exp(-|x|), which never overflows."""
    e = x.minimum(-x).exp()
    return x.maximum(0) + 2 * (e / (e + 2)).arctanh()


def elu(x: Value, alpha: float) -> Value:
    """The identity where positive, else alpha * (exp(x) - 1)."""
    return select(x > 0, x, alpha * expm1(x))


def sigmoid(x: Value) -> Value:
    """1 / (1 + exp(-x))"""
    return (1 + (-x).exp()).inverse()


def clipped(x: Value, low: float, high: float) -> Value:
    """At least low and at most high; an infinite bound is none."""
    x = x if low == -inf else x.maximum(low)
    return x if high == inf else x.minimum(high)


# -- two operands, with broadcasting --------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """A function of two numbers: its formula, and its meaning on arrays."""

    define: Callable[[Value, Value], Value]
    run: Callable[[Any, Any], Any]


def _wide(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def run(x: Any, y: Any) -> Any:
        with np.errstate(all="ignore"):
            return np.asarray(function(widened(x), widened(y))).astype(x.dtype, copy=False)

    return run


# fmt: off
KINDS: dict[str, Kind] = {
    **{kind: Kind(partial(binary, kind), Binary(kind).run) for kind in BINARY},
    "greater":       Kind(lambda x, y: x > y, np.greater),
    "less_equal":    Kind(lambda x, y: (x < y).maximum(equal(x, y)), np.less_equal),
    "greater_equal": Kind(lambda x, y: (x > y).maximum(equal(x, y)), np.greater_equal),
    "not_equal":     Kind(lambda x, y: negated(equal(x, y)), np.not_equal),
    "and":           Kind(lambda x, y: truth(x).minimum(truth(y)), np.logical_and),
    "or":            Kind(lambda x, y: truth(x).maximum(truth(y)), np.logical_or),
    "xor":           Kind(lambda x, y: negated(equal(truth(x), truth(y))), np.logical_xor),
    "mod":           Kind(modulo, _wide(np.mod)),
    "fmod":          Kind(remainder, _wide(np.fmod)),
}
# fmt: on


class Broadcast(Derived):
    """z = x + y, z = x > y, ... with NumPy's broadcasting"""

    kind: str

    def define(self, x: Value, y: Value) -> Value:
        if self.kind not in KINDS:
            raise ShapeError(f"there is no function {self.kind!r}; there are {', '.join(KINDS)}")
        return KINDS[self.kind].define(*broadcast(x, y))

    @property
    def linear(self) -> tuple[int, ...]:
        """As the core function of that name."""
        return BINARY[self.kind].linear if self.kind in BINARY else ()

    @property
    def commutative(self) -> bool:
        """f(x, y) = f(y, x)"""
        if self.kind in BINARY:
            return BINARY[self.kind].commutative
        return self.kind in ("not_equal", "and", "or", "xor")

    def run(self, x: Any, y: Any) -> Any:
        return KINDS[self.kind].run(x, y)

    @classmethod
    def draw(
        cls, rng: np.random.Generator, x: tuple[int, ...], y: tuple[int, ...]
    ) -> Broadcast | None:
        try:
            np.broadcast_shapes(x, y)
        except ValueError:
            return None
        return cls(randomly(rng, list(KINDS)))


class Where(Derived):
    """z = x where condition else y, with NumPy's broadcasting"""

    def define(self, condition: Value, x: Value, y: Value) -> Value:
        return select(truth(condition), x, y)

    def run(self, condition: Any, x: Any, y: Any) -> Any:
        return np.where(condition, x, y)

    @classmethod
    def draw(cls, rng: np.random.Generator, *shapes: tuple[int, ...]) -> Where | None:
        try:
            np.broadcast_shapes(*shapes)
        except ValueError:
            return None
        return cls()


class Prelu(Derived):
    """x where positive, else slope * x; the slope broadcasts to x as in NumPy"""

    def define(self, x: Value, slope: Value) -> Value:
        return select(x < 0, x * slope, x)

    @classmethod
    def draw(
        cls, rng: np.random.Generator, x: tuple[int, ...], slope: tuple[int, ...]
    ) -> Prelu | None:
        try:
            return cls() if np.broadcast_shapes(x, slope) == x else None
        except ValueError:
            return None


# -- one operand ----------------------------------------------------------------------------------


class Activation(Derived, abstract=True):
    """A function of single elements."""

    is_pointwise = True

    def define(self, x: Value) -> Value:
        raise NotImplementedError

    @classmethod
    def draw(cls, rng: np.random.Generator, x: tuple[int, ...]) -> Activation | None:
        return cls()


class Relu(Activation):
    """max(x, 0)"""

    def define(self, x: Value) -> Value:
        return x.maximum(0)

    def run(self, x: Any) -> Any:
        return np.maximum(x, x.dtype.type(0))


class LeakyRelu(Activation):
    """x where positive, else slope * x"""

    slope: float = 0.01

    def define(self, x: Value) -> Value:
        return select(x < 0, self.slope * x, x)


class Clip(Activation):
    """min(max(x, low), high); an infinite bound is none"""

    low: float = -inf
    high: float = inf

    def define(self, x: Value) -> Value:
        return clipped(x, self.low, self.high)

    @classmethod
    def draw(cls, rng: np.random.Generator, x: tuple[int, ...]) -> Clip:
        return cls(randomly(rng, (-inf, -1.0, 0.0)), randomly(rng, (inf, 1.0, 6.0)))


class Sigmoid(Activation):
    """1 / (1 + exp(-x))"""

    def define(self, x: Value) -> Value:
        return sigmoid(x)


class HardSigmoid(Activation):
    """min(max(alpha*x + beta, 0), 1)"""

    alpha: float = 1 / 6
    beta: float = 0.5

    def define(self, x: Value) -> Value:
        return clipped(self.alpha * x + self.beta, 0, 1)


class HardSwish(Activation):
    """x * min(max(x/6 + 1/2, 0), 1); at inf this is inf, where PyTorch's kernels give NaN"""

    def define(self, x: Value) -> Value:
        return x * clipped(x * (1 / 6) + 0.5, 0, 1)


class Silu(Activation):
    """x / (1 + exp(-x))"""

    def define(self, x: Value) -> Value:
        return x * sigmoid(x)


class Gelu(Activation):
    """x * Φ(x) with Φ the normal distribution, or an approximation of it

    "tanh": x/2 * (1 + tanh(√(2/π) (x + 0.044715 x³))); "sigmoid": x / (1 + exp(-1.702 x)).
    Hendrycks and Gimpel, https://arxiv.org/abs/1606.08415.  At inf this is inf, where PyTorch's
    kernels of "none" give NaN.
    """

    approximate: str = "none"  # or "tanh", "sigmoid"

    def define(self, x: Value) -> Value:
        if self.approximate == "none":
            return x * x.gaussian()
        if self.approximate == "tanh":
            return 0.5 * x * (1 + (sqrt(2 / pi) * (x + 0.044715 * (x * x * x))).tanh())
        if self.approximate == "sigmoid":
            return x * sigmoid(1.702 * x)
        raise ShapeError(
            f"there is no approximation {self.approximate!r} of gelu; "
            f"there are {', '.join(APPROXIMATIONS)}"
        )

    @classmethod
    def draw(cls, rng: np.random.Generator, x: tuple[int, ...]) -> Gelu:
        return cls(randomly(rng, APPROXIMATIONS))


APPROXIMATIONS = ("none", "tanh", "sigmoid")


class Erf(Activation):
    """2 Φ(√2 x) - 1 with Φ the normal distribution"""

    def define(self, x: Value) -> Value:
        return 2 * (sqrt(2) * x).gaussian() - 1

    def run(self, x: Any) -> Any:
        from scipy.special import erf

        return np.asarray(erf(widened(x))).astype(x.dtype, copy=False)


class Sqrt(Activation):
    """√x"""

    def define(self, x: Value) -> Value:
        return square_root(x)


class Rsqrt(Activation):
    """1 / √x"""

    def define(self, x: Value) -> Value:
        return square_root(x).inverse()


class Abs(Activation):
    """|x|, of real numbers"""

    def define(self, x: Value) -> Value:
        if x.dtype.startswith("c"):
            raise ShapeError("the magnitude of a complex number is not defined here")
        return absolute(x)

    def run(self, x: Any) -> Any:
        return np.abs(x)


class Softplus(Activation):
    """log(1 + exp(beta*x)) / beta, which is x where beta*x > threshold (inf: nowhere)"""

    beta: float = 1.0
    threshold: float = 20.0

    def define(self, x: Value) -> Value:
        scaled = x if self.beta == 1 else self.beta * x
        smooth = softplus(scaled) if self.beta == 1 else softplus(scaled) / self.beta
        return smooth if self.threshold == inf else select(scaled > self.threshold, x, smooth)

    @classmethod
    def draw(cls, rng: np.random.Generator, x: tuple[int, ...]) -> Softplus:
        return cls(randomly(rng, (1.0, 2.0)), randomly(rng, (20.0, inf)))


class Elu(Activation):
    """x where positive, else alpha * (exp(x) - 1)"""

    alpha: float = 1.0

    def define(self, x: Value) -> Value:
        return elu(x, self.alpha)


class Selu(Activation):
    """gamma * elu(x): Klambauer et al., https://arxiv.org/abs/1706.02515"""

    alpha: float = 1.6732632423543772
    gamma: float = 1.0507009873554805

    def define(self, x: Value) -> Value:
        return self.gamma * elu(x, self.alpha)


class Mish(Activation):
    """x * tanh(log(1 + exp(x))): Misra, https://arxiv.org/abs/1908.08681"""

    def define(self, x: Value) -> Value:
        return x * softplus(x).tanh()


class Not(Activation):
    """not x; of a number, whether it is 0"""

    def define(self, x: Value) -> Value:
        return negated(x)

    def run(self, x: Any) -> Any:
        return np.logical_not(x)


class Ceil(Activation):
    """the next whole number from x upwards"""

    def define(self, x: Value) -> Value:
        return -(-x).floor()


class Round(Activation):
    """the nearest whole number; of two, the even one"""

    def define(self, x: Value) -> Value:
        down = x.floor()
        over = x - down  # NaN at ±inf, where the last case gives ±inf
        even = 2 * ((down + 1) / 2).floor()
        return select(over < 0.5, down, select(over > 0.5, down + 1, even))


class Trunc(Activation):
    """the whole part of x: rounded towards 0"""

    def define(self, x: Value) -> Value:
        return truncated(x)


class Log1p(Activation):
    """log(1 + x), exact near 0"""

    def define(self, x: Value) -> Value:
        return log1p(x)


class Expm1(Activation):
    """exp(x) - 1, exact near 0"""

    def define(self, x: Value) -> Value:
        return expm1(x)


class Softsign(Activation):
    """x / (1 + |x|)"""

    def define(self, x: Value) -> Value:
        return x / (1 + absolute(x))


class IsInf(Activation):
    """is x inf or -inf?"""

    def define(self, x: Value) -> Value:
        return equal(absolute(x), inf)


# One example is enough where no spec changes the structure of the formula.
for _class in (
    Relu, LeakyRelu, Sigmoid, HardSigmoid, HardSwish, Silu, Erf, Sqrt, Rsqrt, Abs, Elu, Selu, Mish,
    Ceil, Round, Trunc, Log1p, Expm1, Softsign, IsInf,
):  # fmt: skip
    _class.examples = ((_class(), "f32[2 3]"),)
Not.examples = ((Not(), "bool[2 3]"),)
Where.examples = ((Where(), "bool[2 3], f32[2 3], f32[2 3]"),)
Prelu.examples = ((Prelu(), "f32[2 3], f32[2 3]"), (Prelu(), "f32[2 3 4], f32[3 1]"))
Clip.examples = tuple(
    (Clip(*bounds), "f32[2 3]") for bounds in ((0.0, 6.0), (0.0, inf), (-inf, 6.0))
)
Gelu.examples = tuple((Gelu(kind), "f32[2 3]") for kind in APPROXIMATIONS)
Softplus.examples = tuple(
    (Softplus(beta, threshold), "f32[2 3]") for beta in (1.0, 2.0) for threshold in (20.0, inf)
)
Broadcast.examples = tuple(
    (Broadcast(kind), types)
    for kind in KINDS
    for types in (
        ("bool[2 3], bool[2 3]",)
        if kind in ("and", "or", "xor")
        else ("f32[2 3], f32[2 3]", "f32[2 3], f32[3]")
    )
)

__all__ = [
    "KINDS",
    "Abs",
    "Broadcast",
    "Ceil",
    "Clip",
    "Elu",
    "Erf",
    "Expm1",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "IsInf",
    "LeakyRelu",
    "Log1p",
    "Mish",
    "Not",
    "Prelu",
    "Relu",
    "Round",
    "Rsqrt",
    "Selu",
    "Sigmoid",
    "Silu",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Trunc",
    "Where",
]
