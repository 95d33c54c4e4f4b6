"""The algebra of normal forms: products multiplied out, sums narrowed by their conditions.

A product of `safegraph.proof.normal` is brought into its simplest form: conditions that always hold
are left out, an equation is solved for a variable of the sum, a condition on one variable makes its
range smaller, a variable that is divided by a divisor of its range becomes two digits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from math import gcd, prod
from typing import Any

from safegraph.dims import Dim, at_least, coefficients, collected, divide, size, sympify
from safegraph.proof.indexing import Guard, Ranges, UndecidedError, is_index, variables
from safegraph.proof.normal import (
    Applied,
    Chosen,
    Factor,
    Normal,
    Place,
    Product,
    Read,
    Reduced,
    Sums,
    expressions,
    used_in,
)

_MOST_PRODUCTS = 300


@dataclass
class Algebra:
    """Sums and products of normal forms, over index variables with these ranges."""

    ranges: Ranges = field(default_factory=Ranges)

    def few(self, x: Normal) -> Normal:
        if len(x) > _MOST_PRODUCTS:
            raise UndecidedError("a sum of products is too large to compare")
        return x

    def times(self, x: Normal, y: Normal) -> Normal:
        if len(x) * len(y) > _MOST_PRODUCTS:
            raise UndecidedError("a product of sums is too large to multiply out")
        return self.few(tuple(chain.from_iterable(self._product(p, q) for p in x for q in y)))

    def _product(self, p: Product, q: Product) -> Normal:
        taken = {name for name, _ in p.sums}
        again = {name: range_ for name, range_ in q.sums if name in taken}
        if again:
            fresh = {name: self.ranges.fresh(range_) for name, range_ in again.items()}
            q = self._with(q, fresh, tuple((str(fresh.get(n, n)), r) for n, r in q.sums))
        both = Product(
            p.coefficient * q.coefficient,
            p.sums + q.sums,
            p.guards + q.guards,
            p.factors + q.factors,
        )
        return self.simplified(both)

    def summed(self, body: Normal, sums: Sums, factor: Any = 1) -> Normal:
        """Factor * the sum of a normal form over variables."""
        return self.few(
            tuple(
                chain.from_iterable(
                    self.simplified(
                        replace(p, sums=p.sums + sums, coefficient=p.coefficient * factor)
                    )
                    for p in body
                )
            )
        )

    def simplified(self, p: Product) -> Normal:
        """Conditions decided and used to narrow the sums; () where they never hold."""
        guards: dict[Guard, None] = {}
        for guard in p.guards:
            found = self.ranges.decide(guard)
            if found is False:
                return ()
            if isinstance(found, Guard):
                guards[found] = None
        kept = self._independent(tuple(guards))
        if kept is None:
            return ()
        p = replace(p, guards=kept)
        for step in (self._solved, self._narrowed, self._split, self._oriented):
            again = step(p)
            if again is not None:
                return self.simplified(again)
        if any(range_ == 0 for _, range_ in p.sums):
            return ()
        used = frozenset().union(*map(used_in, (*p.guards, *p.factors)))
        alone = [r for n, r in p.sums if n not in used]
        times = prod(map(sympify, alone), start=p.coefficient)
        if times == 0:
            return ()
        return (replace(p, coefficient=times, sums=tuple(s for s in p.sums if s[0] in used)),)

    def _independent(self, guards: tuple[Guard, ...]) -> tuple[Guard, ...] | None:
        """Without conditions that follow from others; None where two contradict each other."""
        kept = list(guards)
        for g in guards:
            own = variables(g.e)
            others = [
                o
                for o in kept
                if o is not g and o.kind == g.kind == "from 0" and own & variables(o.e)
            ]
            if any(self.ranges.always_below_0(g.e + o.e) for o in others):
                return None
            if any(self.ranges.never_below_0(g.e - o.e) for o in others):
                kept.remove(g)
        for g in kept:
            opposite = Guard("from 0", -g.e)
            if g.kind == "from 0" and opposite in kept:
                rest = [k for k in kept if k not in (g, opposite)]
                return (*rest, Guard("zero", min(g.e, -g.e, key=str)))
        return tuple(kept)

    def _solved(self, p: Product) -> Product | None:
        """A variable of the sum that an equation determines, put in."""
        bound = dict(p.sums)
        for guard in p.guards:
            if guard.kind != "zero":
                continue
            others = tuple(g for g in p.guards if g is not guard)
            digits = self._digits_of_0(guard.e)
            if digits is not None:
                return replace(p, guards=(*others, *(Guard("zero", e) for e in digits)))
            for name, range_ in bound.items():
                slope = collected(guard.e, is_index).get(size(name))
                if slope not in (1, -1):
                    continue
                value = size(name) - slope * guard.e
                if name in variables(value):
                    continue
                sums = tuple(s for s in p.sums if s[0] != name)
                inside = (Guard("from 0", value), Guard("from 0", range_ - 1 - value))
                found = self._with(replace(p, guards=others), {name: value}, sums)
                return replace(found, guards=(*found.guards, *inside))
        return None

    def _digits_of_0(self, e: Dim) -> tuple[Dim, Dim] | None:
        """(a, r), both 0 where e = b*a + c*r is: |r| < b, and b and c have no common factor."""
        for part, factor in collected(e, is_index).items():
            for b in (factor, -factor):
                if part == 1 or b == 1 or not at_least(b, 1):
                    continue
                whole, rest = self.ranges.multiple(e, b)
                c = gcd(*coefficients(rest).values())
                if isinstance(b, int) and c > 1 and gcd(b, c) == 1:
                    rest = divide(rest, c) or rest
                small = self.ranges.always_below_0(rest - b) and self.ranges.always_below_0(
                    -rest - b
                )
                if whole != 0 and small:
                    return whole, rest
        return None

    def _narrowed(self, p: Product) -> Product | None:
        """A condition on one variable of the sum as a smaller range."""
        for name, range_ in p.sums:
            for guard in p.guards:
                found = self.ranges.breakpoint(guard, name)
                if found is None:
                    continue
                point, up = found
                new = self.ranges.fresh(range_ - point if up else point)
                value = new + point if up else new
                own = () if new == 0 else ((str(new), self.ranges.of[str(new)]),)
                sums = tuple(s for s in p.sums if s[0] != name) + own
                rest = replace(p, guards=tuple(g for g in p.guards if g is not guard))
                return self._with(rest, {name: value}, sums)
        return None

    def _split(self, p: Product) -> Product | None:
        split = self.digits(p.sums, (*p.guards, *p.factors))
        return None if split is None else self._with(p, *split)

    def _oriented(self, p: Product) -> Product | None:
        """A variable that runs backwards where it is first used in a leaf, turned round."""
        reads = sorted(
            (f for f in p.factors if isinstance(f, Read)), key=lambda f: (f.name, len(f.at))
        )
        for name, range_ in p.sums:
            used = (e for f in reads for e in f.at if name in variables(e))
            slope = collected(next(used, 0), is_index).get(size(name), 0)
            if at_least(-slope, 1):
                turned = self.ranges.fresh(range_)
                sums = tuple((str(turned), r) if n == name else (n, r) for n, r in p.sums)
                return self._with(p, {name: range_ - 1 - turned}, sums)
        return None

    def digits(
        self, sums: Sums, parts: Sequence[Guard | Factor | Normal]
    ) -> tuple[dict[str, Dim], Sums] | None:
        """A variable that is divided by a divisor of its range, as two digits."""
        bound = dict(sums)
        if not bound:
            return None
        for e in chain.from_iterable(map(expressions, parts)):
            for a, b in self.ranges.divisions(e):
                for name in sorted(variables(a) & bound.keys()):
                    digit = divide(b, collected(a, is_index).get(size(name), 0) or 1)
                    high = None if digit is None else divide(bound[name], digit)
                    if digit is None or high is None or digit == 1 or high == 1:
                        continue
                    first, second = self.ranges.fresh(high), self.ranges.fresh(digit)
                    own = ((str(first), high), (str(second), digit))
                    return {name: first * digit + second}, tuple(
                        x for s in sums for x in (own if s[0] == name else (s,))
                    )
        return None

    def _with(self, p: Product, values: Mapping[str, Dim], sums: Sums) -> Product:
        """A product with variables of its sum replaced, not simplified yet."""
        return Product(
            p.coefficient,
            sums,
            tuple(self._guard(g, values) for g in p.guards),
            tuple(self._factor(f, values) for f in p.factors),
        )

    def replaced(self, x: Normal, values: Mapping[str, Dim]) -> Normal:
        """A normal form with free variables replaced, simplified again."""
        found = (self.simplified(self._with(p, values, p.sums)) for p in x)
        return tuple(chain.from_iterable(found))

    def _guard(self, guard: Guard, values: Mapping[str, Dim]) -> Guard:
        return Guard(guard.kind, self.ranges.replaced(guard.e, values), guard.by)

    def _factor(self, f: Factor, values: Mapping[str, Dim]) -> Factor:
        match f:
            case Read(name, at):
                return Read(name, tuple(self.ranges.replaced(e, values) for e in at))
            case Place(e):
                return Place(self.ranges.replaced(e, values))
            case Applied(function, operands, commutative):
                new = tuple(self.replaced(x, values) for x in operands)
                return Applied(function, new, commutative)
            case Reduced(kind, sums, body):
                return Reduced(kind, sums, self.replaced(body, values))
            case Chosen(guards, then, other):
                return Chosen(
                    tuple(self._guard(g, values) for g in guards),
                    self.replaced(then, values),
                    self.replaced(other, values),
                )
