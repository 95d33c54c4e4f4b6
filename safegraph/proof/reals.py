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

from safegraph.dims import sympify
from safegraph.dtypes import is_float
from safegraph.ops import Binary, Unary
from safegraph.proof.algebra import Algebra
from safegraph.proof.normal import (
    Applied,
    Factor,
    Normal,
    Product,
    Read,
    as_number,
    key,
    number,
    used_in,
)

_EXP = "Unary(kind='exp') of real"
_LOG = "Unary(kind='log') of real"
_ROOT = "Binary(kind='root') of real"
_LARGEST_POWER = 4


@dataclass
class Reals(Algebra):
    """Functions of real numbers; the leaves in `positive` and `nonnegative` have such elements."""

    exact: bool = False
    positive: frozenset[str] = frozenset()
    nonnegative: frozenset[str] = frozenset()

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

    def function(self, name: str, x: Sequence[Normal], dtype: str = "", **options: Any) -> Normal:
        factor = Applied(f"{name} of {dtype}" if dtype else name, tuple(x), **options)
        return (Product(sympify(1), factors=(factor,)),)

    @staticmethod
    def scaled(x: Normal, factor: Any) -> Normal:
        return tuple(replace(p, coefficient=p.coefficient * factor) for p in x)

    # -- identities -----------------------------------------------------------------------------

    def odd(self, kind: str, x: Normal) -> Normal:
        """f(-x) as -f(x)"""
        sign = 1
        if x and all(p.coefficient.is_number for p in x):
            lead = min(x, key=lambda p: key(_unit(p)))
            sign = -1 if lead.coefficient < 0 else 1
        name = f"{Unary(kind)!r} of real"
        return self.scaled(self.function(name, [self.scaled(x, sign)]), sign)

    def exponential(self, x: Normal) -> Normal:
        """exp(a + b) as exp(a)*exp(b); a positive number for exp of its logarithm."""
        found = number(1)
        for p in x:
            found = self.times(found, self._power_of_e(p))
        return found

    def _power_of_e(self, p: Product) -> Normal:
        match p:
            case Product(c, (), (), (Applied(name, (inner,)),)) if (
                abs(c) == 1 and called(name) == "log" and self.always_positive(inner)
            ):
                return inner if c == 1 else self.reciprocal(inner)
        return self.function(_EXP, [(p,)])

    def logarithm(self, x: Normal) -> Normal:
        """log(exp(a)*b) as a + log(b)"""
        if len(x) != 1:
            return self.function(_LOG, [x])
        apart, rest = _apart(x[0])
        powers = [f.operands[0] for f in apart if _is(f, _EXP)]
        others = tuple(f for f in apart if not _is(f, _EXP))
        inner = (replace(rest, factors=(*others, *rest.factors)),)
        own = () if as_number(inner) == 1 else self.function(_LOG, [inner])
        return self.few((*(p for power in powers for p in power), *own))

    def reciprocal(self, x: Normal) -> Normal:
        """1/(a*b) as 1/a * 1/b, 1/(1 + exp(a)) by tanh."""
        if len(x) != 1:
            found = self._logistic(x)
            return self.function("reciprocal", [x]) if found is None else found
        apart, rest = _apart(x[0])
        found = (Product(1 / rest.coefficient),)
        for f in apart:
            match f:
                case Applied(function, (power,)) if function == _EXP:
                    own = self.exponential(self.scaled(power, -1))
                case _:
                    own = self.function("reciprocal", [(Product(sympify(1), factors=(f,)),)])
            found = self.times(found, own)
        if rest.sums or rest.guards or rest.factors:
            inner = (replace(rest, coefficient=sympify(1)),)
            found = self.times(found, self.function("reciprocal", [inner]))
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
        half = self.scaled(tuple(exponent), sympify(1) / 2)
        tanh = self.odd("tanh", half)
        return self.few((Product(1 / (2 * c)), *self.scaled(tanh, -1 / (2 * c))))

    def power(self, op: Binary, x: Normal, exponent: float, dtype: str) -> Normal | None:
        """Powers with small exponents as products, those of a half as square roots."""
        if op.kind == "pow" and exponent in range(1, _LARGEST_POWER + 1):
            found = x
            for _ in range(int(exponent) - 1):
                found = self.times(found, x)
            return found
        if not is_float(dtype):
            return None
        if op.kind == "root":
            return self.square_root(x) if exponent == 2 else None
        match exponent:
            case -1:
                return self.reciprocal(x)
            case 0.5:
                return self.square_root(x)
            case -0.5:
                return self.reciprocal(self.square_root(x))
        return None

    def square_root(self, x: Normal) -> Normal:
        """X where it is the root of x*x and x is never negative."""
        match x:
            case (Product(c, (), (), factors),) if c == 1 and len(factors) % 2 == 0 and factors:
                pairs = sorted(factors, key=lambda f: key((Product(sympify(1), factors=(f,)),)))
                halves = pairs[::2]
                if halves == pairs[1::2] and all(self.above(f, 0) for f in halves):
                    return (Product(sympify(1), factors=tuple(halves)),)
        return self.function(_ROOT, [x, number(2)])

    # -- signs --------------------------------------------------------------------------------

    def always_positive(self, x: Normal) -> bool:
        """Is it above 0, as the element of floats?  (False where it cannot be told.)"""
        return bool(x) and all(
            p.coefficient.is_positive
            and not p.guards
            and all(self.ranges.never_below_0(r - 1) for _, r in p.sums)
            and all(self.above(f, 1) for f in p.factors)
            for p in x
        )

    def never_negative(self, x: Normal) -> bool:
        """Is it at least 0, as the element of floats?  (False where it cannot be told.)"""
        return all(
            p.coefficient.is_nonnegative and all(self.above(f, 0) for f in p.factors) for p in x
        )

    def above(self, f: Factor, least: int) -> bool:
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


def content(operands: Iterable[Normal]) -> Any:
    """A number above 0, c times as large where all operands are: max(c*x, c*y) = c*max(x, y)."""
    products = [p for x in operands for p in x]
    if not all(p.coefficient.is_number for p in products):
        return sympify(1)
    _, opposite = min((key(_unit(p)), -abs(p.coefficient)) for p in products)
    return -opposite


def called(function: str) -> str:
    """The name of a unary function of floats."""
    return function.removeprefix("Unary(kind='").partition("'")[0]


def _apart(p: Product) -> tuple[list[Factor], Product]:
    """The factors that depend on no variable of the sum, and the sum of the rest."""
    bound = {name for name, _ in p.sums}
    apart = [f for f in p.factors if not used_in(f) & bound]
    return apart, replace(p, factors=tuple(f for f in p.factors if f not in apart))
