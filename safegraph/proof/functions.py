"""Functions of elements over the reals: exponentials, roots, quotients and maxima in one form.

With these forms laws of functions are laws of normal forms: exp(a + b) is exp(a)*exp(b), a
quotient is a product with a reciprocal, a logistic function is written with tanh, a minimum as the
opposite of a maximum.  What holds for some numbers only is used only where the operand is seen to
be one of them: the square root of x*x is x where x is not negative.  Each identity holds wherever
both of its sides are numbers.  With `exact` none of them is used that could change a bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

import numpy as np

from safegraph.dims import Dim, collected, sympify
from safegraph.dtypes import is_float, is_integer, to_numpy
from safegraph.op import Op
from safegraph.ops import BINARY, UNARY, Binary, Cast, Select, Unary
from safegraph.proof.algebra import Algebra
from safegraph.proof.indexing import Guard, is_index
from safegraph.proof.normal import (
    Applied,
    Factor,
    Normal,
    Place,
    Product,
    Read,
    as_number,
    as_place,
    constant,
    infinite,
    is_condition,
    key,
    number,
    used_in,
)
from safegraph.value import Value

OF_BOOL = {
    **dict.fromkeys(("sum", "mean", "max", "add", "maximum"), "any"),
    **dict.fromkeys(("prod", "min", "multiply", "minimum"), "all"),
}
UNDONE = {
    "arctan": "tan",
    "sinh": "arcsinh",
    "arcsinh": "sinh",
    "tanh": "arctanh",
    "gaussian": "inv_gaussian",
}
"""Functions of all real numbers, with what gives back their operand."""
RIGHT_INVERSES = {
    "arcsin": "sin", "sin": "arcsin", "arccos": "cos", "cos": "arccos", "tan": "arctan",
    "cosh": "arccosh", "arccosh": "cosh", "arctanh": "tanh", "inv_gaussian": "gaussian",
}  # fmt: skip
"""Functions f, with a g for which f(g(y)) is y wherever y = f(x) for some x."""
_EXP = "Unary(kind='exp') of real"
_LOG = "Unary(kind='log') of real"
_TANH = "Unary(kind='tanh') of real"
_ROOT = "Binary(kind='root') of real"
_LARGEST_POWER = 4
_SIGNED = ("i8", "i16", "i32", "i64")


@dataclass
class Functions(Algebra):
    """Functions of normal forms; the leaves in `positive` and `nonnegative` have such elements."""

    exact: bool = False
    positive: frozenset[str] = frozenset()
    nonnegative: frozenset[str] = frozenset()

    def _algebra(self, dtype: str) -> bool:
        """Are sums and products of this element type those of a ring?

        Those of integers are, to the bit; those of floats over the reals only.
        """
        return is_integer(dtype) or (dtype != "bool" and not self.exact)

    def _computed(self, op: Op, given: Sequence[float | None], value: Value) -> Normal:
        arrays = [
            np.asarray(c).astype(to_numpy(o.dtype))
            for c, o in zip(given, value.operands, strict=True)
        ]
        with np.errstate(all="ignore"):
            return number(np.asarray(op.run(*arrays)).item())

    def apply(self, op: Op, x: Sequence[Normal], value: Value) -> Normal:
        """A pointwise op of elements; `value` is the op applied, for the element types."""
        given = [constant(a) for a in x]
        algebra = self._algebra(value.dtype) and not any(map(infinite, x))
        if all(c is not None for c in given) and not (
            algebra and isinstance(op, Binary) and op.kind in ("add", "subtract", "multiply")
        ):
            return self._computed(op, given, value)
        match op:
            case Unary() if is_float(value.dtype) and not any(map(infinite, x)):
                found = self._unary(op.kind, x[0])
                dtype = value.operands[0].dtype if self.exact else "real"
                return self._function(repr(op), x, dtype) if found is None else found
            case Binary(kind="add") if algebra:
                return self.few((*x[0], *x[1]))
            case Binary(kind="subtract") if algebra:
                return self.few((*x[0], *self.times(number(-1), x[1])))
            case Binary(kind="multiply") if algebra:
                return self.times(*x)
            case Binary(kind="divide") if algebra and is_float(value.dtype):
                return self.times(x[0], self._reciprocal(x[1]))
            case Binary(kind="subtract") if is_float(value.dtype) and not any(map(infinite, x)):
                return self.apply(Binary("add"), (x[0], self.times(number(-1), x[1])), value)
            case Binary(kind="pow" | "root") if algebra and given[1] is not None:
                found = self._power(op, x[0], given[1], value.dtype)
                return self._function(repr(op), x, value.dtype) if found is None else found
            case Unary(kind="neg") if algebra:
                return self.times(number(-1), x[0])
            case Select():
                return self._selected(x, given[0], algebra)
            case Cast() if is_condition(x[0]) and not op.to.startswith("b"):
                return x[0]
            case Binary():
                found = None
                if value.operands[0].dtype in ("i32", "i64"):  # smaller ones do not hold all places
                    found = self._of_places(op.kind, *(as_place(a) for a in x))
                return self._binary(op, x, given, value) if found is None else found
        return self._function(repr(op), x, value.operands[0].dtype)

    def _of_places(self, kind: str, a: Dim | None, b: Dim | None) -> Normal | None:
        """A function of two indices, where it is known for all sizes."""
        if a is None or b is None:
            return None
        sure = self.ranges.never_below_0
        match kind:
            case "equal":
                return self._condition(Guard("zero", a - b))
            case "less":
                return self._condition(Guard("from 0", b - a - 1))
            case "divide" if sure(a) and sure(b - 1):
                return self._place(self.ranges.quotient(a, b))
            case "maximum" if sure(a - b) or sure(b - a):
                return self._place(a if sure(a - b) else b)
            case "minimum" if sure(a - b) or sure(b - a):
                return self._place(b if sure(a - b) else a)
        return None

    def _condition(self, guard: Guard) -> Normal:
        """1 where a condition holds, else 0."""
        return self.simplified(Product(sympify(1), guards=(guard,)))

    def _place(self, e: Dim) -> Normal:
        parts = collected(e, is_index)
        return tuple(
            Product(sympify(c), factors=() if part == 1 else (Place(part),))
            for part, c in parts.items()
        )

    def _function(self, name: str, x: Sequence[Normal], dtype: str = "", **options: Any) -> Normal:
        factor = Applied(f"{name} of {dtype}" if dtype else name, tuple(x), **options)
        return (Product(sympify(1), factors=(factor,)),)

    def _binary(
        self, op: Binary, x: Sequence[Normal], given: Sequence[float | None], value: Value
    ) -> Normal:
        dtype = value.operands[0].dtype
        unit = BINARY[op.kind].unit
        if dtype == "bool":  # sums and maxima are "or", products and minima are "and"
            unit = {"add": 0, "maximum": 0, "multiply": 1, "minimum": 1}.get(op.kind)
            if unit is not None and 1 - unit in given:
                return number(1 - unit)
        if unit is not None and given[1] == unit:
            return x[0]
        if unit is not None and given[0] == unit and op.commutative:
            return x[1]
        joins = dtype == "bool" and op.kind in ("add", "multiply")
        if joins or op.kind in ("maximum", "minimum"):
            return self._joined(OF_BOOL[op.kind] if dtype == "bool" else op.kind, x, dtype)
        return self._function(repr(op), x, dtype, commutative=op.commutative)

    def _joined(self, name: str, x: Sequence[Normal], dtype: str) -> Normal:
        """An associative, commutative function that is the operand itself for equal operands."""
        reals = self._algebra(dtype) and is_float(dtype) and not any(map(infinite, x))
        if reals and name == "minimum":
            opposites = [self.times(number(-1), a) for a in x]
            return self.times(number(-1), self._joined("maximum", opposites, dtype))
        operands: dict[str, Normal] = {}
        for a in x:
            match a:
                case (Product(c, (), (), (Applied(inner, more),)),) if inner == name and (
                    c == 1 or (reals and c.is_positive)
                ):
                    scaled = more if c == 1 else [self._scaled(b, c) for b in more]
                    operands |= {key(b): b for b in scaled}
                case _:
                    operands[key(a)] = a
        if name == "maximum":
            operands = self._largest(operands, dtype)
        if len(operands) == 1:
            return next(iter(operands.values()))
        scale = _content(operands.values()) if reals else sympify(1)
        chosen = tuple(self._scaled(a, 1 / scale) for a in operands.values())
        return self._scaled(self._function(name, chosen, commutative=True), scale)

    def _largest(self, operands: dict[str, Normal], dtype: str) -> dict[str, Normal]:
        """Without what is nowhere above another one."""
        kept = dict(operands)
        for own, a in operands.items():
            others = (b for name, b in kept.items() if name != own)
            if own in kept and any(self._never_below(b, a, dtype) for b in others):
                del kept[own]
        return kept

    def _never_below(self, a: Normal, b: Normal, dtype: str) -> bool:
        """Is a >= b?  Integers wrap around: only those are compared that cannot."""
        if any(map(infinite, (a, b))) or not (
            is_float(dtype) or (dtype in _SIGNED and all(map(self._small, (a, b))))
        ):
            return False
        return self.never_negative((*a, *self._scaled(b, -1)))

    def _small(self, x: Normal) -> bool:
        """Is it a number, or an element that is not negative, or the opposite of one?"""
        if constant(x) is not None:
            return True
        match x:
            case (Product(c, (), (), (Read() as read,)),) if abs(c) == 1:
                return self._above(read, 0)
        return False

    @staticmethod
    def _scaled(x: Normal, factor: Any) -> Normal:
        return tuple(replace(p, coefficient=p.coefficient * factor) for p in x)

    def _selected(self, x: Sequence[Normal], condition: float | None, algebra: bool) -> Normal:
        if condition is not None:
            return x[1] if condition else x[2]
        if key(x[1]) == key(x[2]):
            return x[1]
        match x[0]:
            case (Product(c, (), (), (Applied("Binary(kind='equal') of bool", (a, b)),)),) if (
                c == 1 and () in (a, b)
            ):  # where it is false
                return self._selected((a or b, x[2], x[1]), None, algebra)
        if not algebra:
            return self._function("select", x)
        difference = (*x[1], *self.times(number(-1), x[2]))
        holds = x[0] if is_condition(x[0]) else self._function("holds", x[:1])
        return self.few((*self.times(holds, difference), *x[2]))

    def simplified(self, p: Product) -> Normal:
        """Powers of e multiplied, and square roots of one number."""
        return super().simplified(self._multiplied(p))

    def _multiplied(self, p: Product) -> Product:
        powers = [f for f in p.factors if _is(f, _EXP)]
        if len(powers) > 1 or any(len(f.operands[0]) != 1 for f in powers):
            exponents: dict[str, Product] = {}
            for term in (term for f in powers for term in f.operands[0]):
                own = key(_unit(term))
                more = exponents[own].coefficient if own in exponents else 0
                exponents[own] = replace(term, coefficient=term.coefficient + more)
            left = [t for t in exponents.values() if t.coefficient.cancel() != 0]
            others = tuple(f for f in p.factors if not _is(f, _EXP))
            p = replace(p, factors=(*others, *(Applied(_EXP, ((t,),)) for t in left)))
        roots = [f for f in p.factors if _is(f, _ROOT)]
        for i, root in enumerate(roots):
            inner = root.operands[0]
            if root not in roots[i + 1 :] or len(inner) != 1 or not self.never_negative(inner):
                continue
            if inner[0].sums or inner[0].guards:
                continue
            rest = [f for f in p.factors if f != root]
            rest += [root] * (roots.count(root) - 2)
            factor = p.coefficient * inner[0].coefficient
            return replace(p, coefficient=factor, factors=(*rest, *inner[0].factors))
        return p

    # -- identities of the reals ----------------------------------------------------------------

    def _unary(self, kind: str, x: Normal) -> Normal | None:
        """A function of one number in terms of simpler ones; None where it stays as it is."""
        if kind == "neg":  # rounds nothing
            return self.times(number(-1), x)
        if self.exact:
            return None
        match kind:
            case "inverse":
                return self._reciprocal(x)
            case "exp":
                return self._exponential(x)
            case "log":
                return self._logarithm(x)
        inner = _operand(x)
        if inner is None:
            return self._odd(kind, x) if UNARY[kind].odd else None
        name, operand = inner
        if UNDONE.get(name) == kind:
            return operand
        again = _operand(operand)
        if again is not None and again[0] == kind and RIGHT_INVERSES.get(kind) == name:
            return operand
        return self._odd(kind, x) if UNARY[kind].odd else None

    def _odd(self, kind: str, x: Normal) -> Normal:
        """f(-x) as -f(x)"""
        sign = 1
        if x and all(p.coefficient.is_number for p in x):
            lead = min(x, key=lambda p: key(_unit(p)))
            sign = -1 if lead.coefficient < 0 else 1
        name = f"{Unary(kind)!r} of real"
        return self._scaled(self._function(name, [self._scaled(x, sign)]), sign)

    def _exponential(self, x: Normal) -> Normal:
        """exp(a + b) as exp(a)*exp(b); a positive number for exp of its logarithm."""
        found = number(1)
        for p in x:
            found = self.times(found, self._power_of_e(p))
        return found

    def _power_of_e(self, p: Product) -> Normal:
        match p:
            case Product(c, (), (), (Applied(name, (inner,)),)) if (
                abs(c) == 1 and _called(name) == "log" and self.always_positive(inner)
            ):
                return inner if c == 1 else self._reciprocal(inner)
        return self._function(_EXP, [(p,)])

    def _logarithm(self, x: Normal) -> Normal:
        """log(exp(a)*b) as a + log(b)"""
        if len(x) != 1:
            return self._function(_LOG, [x])
        apart, rest = _apart(x[0])
        powers = [f.operands[0] for f in apart if _is(f, _EXP)]
        others = tuple(f for f in apart if not _is(f, _EXP))
        inner = (replace(rest, factors=(*others, *rest.factors)),)
        own = () if as_number(inner) == 1 else self._function(_LOG, [inner])
        return self.few((*(p for power in powers for p in power), *own))

    def _reciprocal(self, x: Normal) -> Normal:
        """1/(a*b) as 1/a * 1/b, 1/(1 + exp(a)) by tanh."""
        if len(x) != 1:
            found = self._logistic(x)
            return self._function("reciprocal", [x]) if found is None else found
        apart, rest = _apart(x[0])
        found = (Product(1 / rest.coefficient),)
        for f in apart:
            match f:
                case Applied(function, (power,)) if function == _EXP:
                    own = self._exponential(self._scaled(power, -1))
                case _:
                    own = self._function("reciprocal", [(Product(sympify(1), factors=(f,)),)])
            found = self.times(found, own)
        if rest.sums or rest.guards or rest.factors:
            inner = (replace(rest, coefficient=sympify(1)),)
            found = self.times(found, self._function("reciprocal", [inner]))
        return found

    def _logistic(self, x: Normal) -> Normal | None:
        """1/(c + c*exp(a)) = (1 - tanh(a/2))/(2*c)"""
        if self.exact or len(x) != 2:
            return None
        one, power = sorted(x, key=lambda p: len(p.factors))
        c = one.coefficient
        if as_number((one,)) is None or power.coefficient != c or power.sums or power.guards:
            return None
        exponent: list[Product] = []
        for f in power.factors:
            if not _is(f, _EXP):
                return None
            exponent += f.operands[0]
        half = self._scaled(tuple(exponent), sympify(1) / 2)
        tanh = self._odd("tanh", half)
        return self.few((Product(1 / (2 * c)), *self._scaled(tanh, -1 / (2 * c))))

    def _power(self, op: Binary, x: Normal, exponent: float, dtype: str) -> Normal | None:
        """Powers with small exponents as products, those of a half as square roots."""
        if op.kind == "pow" and exponent in range(1, _LARGEST_POWER + 1):
            found = x
            for _ in range(int(exponent) - 1):
                found = self.times(found, x)
            return found
        if not is_float(dtype):
            return None
        if op.kind == "root":
            return self._square_root(x) if exponent == 2 else None
        match exponent:
            case -1:
                return self._reciprocal(x)
            case 0.5:
                return self._square_root(x)
            case -0.5:
                return self._reciprocal(self._square_root(x))
        return None

    def _square_root(self, x: Normal) -> Normal:
        """X where it is the root of x*x and x is never negative."""
        match x:
            case (Product(c, (), (), factors),) if c == 1 and len(factors) % 2 == 0 and factors:
                pairs = sorted(factors, key=lambda f: key((Product(sympify(1), factors=(f,)),)))
                halves = pairs[::2]
                if halves == pairs[1::2] and all(self._above(f, 0) for f in halves):
                    return (Product(sympify(1), factors=tuple(halves)),)
        return self._function(_ROOT, [x, number(2)])

    # -- signs --------------------------------------------------------------------------------

    def always_positive(self, x: Normal) -> bool:
        """Is it above 0, as the element of floats?  (False where it cannot be told.)"""
        return bool(x) and all(
            p.coefficient.is_positive
            and not p.guards
            and all(self.ranges.never_below_0(r - 1) for _, r in p.sums)
            and all(self._above(f, 1) for f in p.factors)
            for p in x
        )

    def never_negative(self, x: Normal) -> bool:
        """Is it at least 0, as the element of floats?  (False where it cannot be told.)"""
        return all(
            p.coefficient.is_nonnegative and all(self._above(f, 0) for f in p.factors) for p in x
        )

    def _above(self, f: Factor, least: int) -> bool:
        """Is a factor at least 0, or (1) above 0?"""
        match f:
            case Read(name, _):
                return name in self.positive or (least == 0 and name in self.nonnegative)
            case Applied(function, (x,)) if function == "reciprocal":
                return self.always_positive(x)
            case Applied(function, _) if function == _EXP:
                return True
            case Applied(function, (x, _)) if function == _ROOT:
                return self.always_positive(x) if least else self.never_negative(x)
        return False


def _is(f: Factor, function: str) -> TypeGuard[Applied]:
    return isinstance(f, Applied) and f.function == function


def _unit(p: Product) -> Normal:
    return (replace(p, coefficient=sympify(1)),)


def _content(operands: Iterable[Normal]) -> Any:
    """A number above 0, c times as large where all operands are: max(c*x, c*y) = c*max(x, y)."""
    products = [p for x in operands for p in x]
    if not all(p.coefficient.is_number for p in products):
        return sympify(1)
    _, opposite = min((key(_unit(p)), -abs(p.coefficient)) for p in products)
    return -opposite


def _called(function: str) -> str:
    """The name of a unary function of floats."""
    return function.removeprefix("Unary(kind='").partition("'")[0]


def _operand(x: Normal) -> tuple[str, Normal] | None:
    """(f, y) where a normal form is f(y) for a unary function f."""
    match x:
        case (Product(c, (), (), (Applied(function, (inner,)),)),) if (
            c == 1 and function.startswith("Unary(")
        ):
            return _called(function), inner
    return None


def _apart(p: Product) -> tuple[list[Factor], Product]:
    """The factors that depend on no variable of the sum, and the sum of the rest."""
    bound = {name for name, _ in p.sums}
    apart = [f for f in p.factors if not used_in(f) & bound]
    return apart, replace(p, factors=tuple(f for f in p.factors if f not in apart))
