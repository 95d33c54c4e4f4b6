"""Core ops that work element by element, on operands of equal shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, pi
from typing import Any

import numpy as np

from safegraph.dims import Shape
from safegraph.dtypes import accumulator, from_numpy, is_float, is_integer, to_numpy
from safegraph.errors import ShapeError
from safegraph.op import Op, TensorType, Work, same_shapes


@dataclass(frozen=True)
class UnaryKind:
    """A function of one number: its meaning, and what undoes it for which arguments."""

    run: Callable[..., Any]
    undo: str | None = None
    domain: tuple[float, float] = (-inf, inf)  # where undo(f(x)) = x
    transcendental: bool = True
    any_number: bool = False  # integers too
    monotone: bool = False  # increasing
    odd: bool = False  # f(-x) = -f(x)


def _gaussian(x: Any) -> Any:
    from scipy.special import ndtr

    return ndtr(x)


def _inv_gaussian(x: Any) -> Any:
    from scipy.special import ndtri

    return ndtri(x)


_SIMPLE: dict[str, Any] = {"transcendental": False, "any_number": True}
# fmt: off
UNARY: dict[str, UnaryKind] = {
    "neg":          UnaryKind(np.negative,   "neg",          odd=True, **_SIMPLE),
    "inverse":      UnaryKind(np.reciprocal, "inverse",      odd=True, transcendental=False),
    "exp":          UnaryKind(np.exp,        "log",          monotone=True),
    "log":          UnaryKind(np.log,        "exp",          (0, inf), monotone=True),
    "sin":          UnaryKind(np.sin,        "arcsin",       (-pi / 2, pi / 2), odd=True),
    "arcsin":       UnaryKind(np.arcsin,     "sin",          (-1, 1), monotone=True, odd=True),
    "cos":          UnaryKind(np.cos,        "arccos",       (0, pi)),
    "arccos":       UnaryKind(np.arccos,     "cos",          (-1, 1)),
    "tan":          UnaryKind(np.tan,        "arctan",       (-pi / 2, pi / 2), odd=True),
    "arctan":       UnaryKind(np.arctan,     "tan",          monotone=True, odd=True),
    "sinh":         UnaryKind(np.sinh,       "arcsinh",      monotone=True, odd=True),
    "arcsinh":      UnaryKind(np.arcsinh,    "sinh",         monotone=True, odd=True),
    "cosh":         UnaryKind(np.cosh,       "arccosh",      (0, inf)),
    "arccosh":      UnaryKind(np.arccosh,    "cosh",         (1, inf), monotone=True),
    "tanh":         UnaryKind(np.tanh,       "arctanh",      monotone=True, odd=True),
    "arctanh":      UnaryKind(np.arctanh,    "tanh",         (-1, 1), monotone=True, odd=True),
    "gaussian":     UnaryKind(_gaussian,     "inv_gaussian", monotone=True),
    "inv_gaussian": UnaryKind(_inv_gaussian, "gaussian",     (0, 1), monotone=True),
    "sign":         UnaryKind(np.sign,       odd=True, **_SIMPLE),
    "floor":        UnaryKind(np.floor,      monotone=True, **_SIMPLE),
    "is_nan":       UnaryKind(np.isnan,      **_SIMPLE),
}


@dataclass(frozen=True)
class BinaryKind:
    """A function of two numbers: its meaning and its algebra."""

    run: Callable[..., Any]
    undo: str | None = None       # undo(f(x, y), y) = x
    unit: float | None = None     # f(x, unit) = x
    zero: float | None = None     # f(x, zero) = zero, for finite x
    commutative: bool = False
    linear: tuple[int, ...] = ()
    transcendental: bool = False
    boolean: bool = False         # the result is bool


def _root(x: Any, y: Any) -> Any:
    # A square root is IEEE 754's: a power of 1/2 would give inf for -inf.
    return np.where(y == 2, np.sqrt(x), np.power(x, np.reciprocal(y)))


def _divide(x: Any, y: Any) -> Any:
    if x.dtype.kind not in "iub":
        return np.divide(x, y)
    floor = np.floor_divide(x, y)  # by way of floats, 64-bit integers would lose digits
    return floor + ((floor * y != x) & ((x < 0) != (y < 0)))


BINARY: dict[str, BinaryKind] = {
    "add":      BinaryKind(np.add,      "subtract", unit=0, commutative=True),
    "subtract": BinaryKind(np.subtract, "add",      unit=0),
    "multiply": BinaryKind(np.multiply, "divide", unit=1, zero=0, commutative=True, linear=(0, 1)),
    "divide":   BinaryKind(_divide,     "multiply", unit=1, linear=(0,)),
    "pow":      BinaryKind(np.power,    "root",     unit=1, transcendental=True),
    "root":     BinaryKind(_root,       "pow",      unit=1, transcendental=True),
    "maximum":  BinaryKind(np.maximum,  unit=-inf,  commutative=True),
    "minimum":  BinaryKind(np.minimum,  unit=inf,   commutative=True),
    "less":     BinaryKind(np.less,     boolean=True),
    "equal":    BinaryKind(np.equal,    boolean=True, commutative=True),
}
# fmt: on


class Pointwise(Op, abstract=True):
    """An op on operands of equal shape, each element by itself."""

    is_pointwise = True


class Unary(Pointwise):
    """y = exp(x), y = tanh(x), ..."""

    kind: str

    def shape(self, x: Shape) -> Shape:
        return x

    def dtype(self, x: str) -> str:
        if self.kind not in UNARY:
            raise ShapeError(f"there is no function {self.kind!r}; there are {', '.join(UNARY)}")
        if not (
            is_float(x) or x.startswith("c") or (UNARY[self.kind].any_number and is_integer(x))
        ):
            raise ShapeError(f"{self.kind} of {x}: cast it to a floating-point type first")
        return "bool" if self.kind == "is_nan" else x

    @property
    def linear(self) -> tuple[int, ...]:
        """Only the sign change is linear."""
        return (0,) if self.kind == "neg" else ()

    def run(self, x: Any) -> Any:
        wide = to_numpy(accumulator(from_numpy(x.dtype)))
        with np.errstate(all="ignore"):
            y = np.asarray(UNARY[self.kind].run(x.astype(wide, copy=False)))
        return y if y.dtype == bool else y.astype(x.dtype, copy=False)

    def work(self, x: TensorType) -> Work:
        return (
            Work(transcendental=x.numel)
            if UNARY[self.kind].transcendental
            else Work(elementwise=x.numel)
        )

    def inverse(self, x: Shape) -> Unary | None:
        kind = UNARY[self.kind]
        return (
            Unary(kind.undo)
            if kind.undo and kind.domain == (-inf, inf) and self.kind != "inverse"
            else None
        )

    def pseudo_inverse(self, x: Shape) -> Unary | None:
        undo = UNARY[self.kind].undo
        return Unary(undo) if undo else None

    @classmethod
    def draw(cls, rng: np.random.Generator, x: tuple[int, ...]) -> Unary:
        return cls(str(rng.choice(list(UNARY))))


class Cast(Pointwise):
    """y = x as another element type"""

    to: str

    def shape(self, x: Shape) -> Shape:
        return x

    def dtype(self, x: str) -> str:
        to_numpy(self.to)
        return self.to

    def run(self, x: Any) -> Any:
        with np.errstate(all="ignore"):
            return x.astype(to_numpy(self.to))

    def work(self, x: TensorType) -> Work:
        return Work(elementwise=x.numel)

    def is_identity(self, x: TensorType) -> bool:
        return x.dtype == self.to

    @classmethod
    def draw(cls, rng: np.random.Generator, x: tuple[int, ...]) -> Cast:
        return cls(str(rng.choice(["f64", "f32", "f16"])))


class Binary(Pointwise):
    """z = x + y, z = maximum(x, y), ..."""

    kind: str

    def shape(self, x: Shape, y: Shape) -> Shape:
        return same_shapes((x, y))

    def dtype(self, x: str, y: str) -> str:
        if self.kind not in BINARY:
            raise ShapeError(f"there is no function {self.kind!r}; there are {', '.join(BINARY)}")
        found = super().dtype(x, y)
        if found == "bool" and self.kind in ("subtract", "divide", "pow", "root"):
            raise ShapeError(f"{self.kind} of bool: cast it to a number first")
        if self.kind == "root" and is_integer(found):
            raise ShapeError(f"root of {found}: cast it to a floating-point type first")
        return "bool" if BINARY[self.kind].boolean else found

    @property
    def linear(self) -> tuple[int, ...]:
        """Products are linear in each operand, quotients in the first."""
        return BINARY[self.kind].linear

    @property
    def commutative(self) -> bool:
        """f(x, y) = f(y, x)"""
        return BINARY[self.kind].commutative

    def run(self, x: Any, y: Any) -> Any:
        wide = to_numpy(accumulator(from_numpy(x.dtype)))
        with np.errstate(all="ignore"):
            z = np.asarray(
                BINARY[self.kind].run(x.astype(wide, copy=False), y.astype(wide, copy=False))
            )
        return z if BINARY[self.kind].boolean else z.astype(x.dtype, copy=False)

    def work(self, x: TensorType, y: TensorType) -> Work:
        numel = self.type(x, y).numel
        return (
            Work(transcendental=numel)
            if BINARY[self.kind].transcendental
            else Work(elementwise=numel)
        )

    @classmethod
    def draw(
        cls, rng: np.random.Generator, x: tuple[int, ...], y: tuple[int, ...]
    ) -> Binary | None:
        return cls(str(rng.choice(list(BINARY)))) if x == y else None


class Select(Pointwise):
    """z = x where condition else y"""

    def shape(self, condition: Shape, x: Shape, y: Shape) -> Shape:
        return same_shapes((condition, x, y))

    def dtype(self, condition: str, x: str, y: str) -> str:
        if condition != "bool":
            raise ShapeError(f"the condition is {condition}, not bool")
        return super().dtype(x, y)

    def run(self, condition: Any, x: Any, y: Any) -> Any:
        return np.where(condition, x, y)

    def work(self, condition: TensorType, x: TensorType, y: TensorType) -> Work:
        return Work(elementwise=self.type(condition, x, y).numel)

    @classmethod
    def draw(cls, rng: np.random.Generator, *shapes: tuple[int, ...]) -> Select | None:
        return cls() if len(set(shapes)) == 1 else None
