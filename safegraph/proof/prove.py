"""Proofs of laws for all sizes, by index expressions of both sides.

`prove_law` draws cases in which a law fires, makes every size and every number of a spec free that
can be (the law must still fire), and compares the elements of both sides as normal forms of index
expressions (`safegraph.proof.elements`), for all sizes at once; of floats, and of integers and
truth values where the law fires on these.  A law's functions may do something else for a number
than for a free size, so both sides are run for some numbers, too: 1, small, equal ones, and those
that the functions name.

What is claimed where it says "proved": for each of N drawn structures (ranks, axes, orders, runs,
labels, which axes are cut or padded, numbers such as fills and factors, and the steps and other
numbers in `Proof.fixed`) both sides are equal over the reals for all positive values of all other
sizes, slice ends, borders, counts and windows; for a law of grade "exact" moreover without any
reordering of the arithmetic of floats.  No size of a leaf but 1 stayed a number: else it is not
called proved.

What is not claimed: structures are finite samples, there are others.  Sides are compared as the law
builds them for free sizes: where it builds something else for a number (1, mostly), that is another
structure, which is run and not proved.  Sizes of 0 are left out.  Derived ops are taken as their
definitions, so a law that opens or recognises one is proved by definition.  Infinite and NaN
elements are outside of the reals, and functions are compared where they are defined
(`safegraph.proof.reals`).  Numbers that are folded are compared as computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np

from safegraph.cases import cases
from safegraph.dims import Dim, at_least, collected, divide, names, period, same, size, substitute
from safegraph.errors import SafeGraphError
from safegraph.law import Law
from safegraph.proof.elements import Elements
from safegraph.proof.indexing import Guard, Index, is_index, variables
from safegraph.proof.lifting import Lifted, Template, told
from safegraph.proof.normal import Normal, expressions, guards_in, key
from safegraph.soundness import check_law
from safegraph.value import Value

_MOST_REGIONS = 400
_MOST_CLASSES = 256
_MOST_RESIDUES = 8
_MOST_SHOWN = 4


@dataclass(frozen=True)
class Proof:
    """Whether a law is proved for all sizes, on how many structures; else why not."""

    law: Law
    structures: int
    reason: str = ""
    fixed: tuple[str, ...] = ()
    """Where numbers stayed numbers, in some structure: `variable.axis` of a leaf, `op.field.place`
    of a spec.  With free ones the law does not fire, or nothing could be decided."""

    @property
    def proved(self) -> bool:
        """Are both sides equal for all sizes, in every structure that was drawn?"""
        return not self.reason

    @property
    def extent(self) -> str:
        """How many structures, and which numbers of ops stayed as they were drawn."""
        many = f"{self.structures} structure{'s' * (self.structures != 1)}"
        shown = [*self.fixed[:_MOST_SHOWN], *["..."] * (len(self.fixed) > _MOST_SHOWN)]
        return f"{many}, {', '.join(shown)} as drawn" if shown else many

    @property
    def status(self) -> str:
        """Proved or tested, as a word."""
        return "proved" if self.proved else "tested"

    def __bool__(self) -> bool:
        return self.proved

    def __str__(self) -> str:
        if self.proved:
            return f"{self.law.name}: proved for all sizes, in {self.extent}"
        return f"{self.law.name}: not proved: {self.reason}"


def prove_law(law: Law, *, structures: int = 8, seed: int = 0) -> Proof:
    """Try to prove a law for all sizes, on up to so many different structures on which it fires.

    Proved if there is one, each of them is proved, and no random case refutes it.  What is not
    proved is not thereby wrong (`safegraph.soundness.check_law` tests it).
    """
    rng = np.random.default_rng(seed)
    (operands,) = rng.spawn(1)  # of its own, so that the same structures come whatever is run
    seen: set[str] = set()
    fixed: dict[str, None] = {}
    numbers: dict[str, None] = {}
    for case in cases(law, rng, 4 * structures, tries=600 * structures, varied=False):
        if len(seen) >= structures:
            break
        template = Template.of(law, case)
        if template is None or not template.within_the_reals:
            continue
        found = _proved(template, seen, operands)
        if isinstance(found, str):
            return Proof(law, len(seen), found, tuple(fixed))
        fixed |= dict.fromkeys(found.fixed)
        numbers |= dict.fromkeys(found.sizes_fixed)
    reason = "" if seen else "no case of it with free sizes was found"
    if numbers:
        reason = f"it does not fire where {', '.join(numbers)} are free sizes"
    if not reason:  # other structures may be wrong: more are tried by numbers
        tested = check_law(law, count=4 * structures, tries=60 * structures, seed=seed)
        reason = told(tested.counterexample) if tested.counterexample else ""
    return Proof(law, len(seen), reason, tuple(fixed))


def _proved(template: Template, seen: set[str], rng: np.random.Generator) -> Lifted | str:
    """The case with free sizes, proved for each element type, and noted as seen; or why not."""
    reason = ""
    exact = template.law.grade == "exact"
    for lifted in template.lifts():
        if lifted.text in seen:
            return lifted
        for each in (lifted, *lifted.for_integers()):
            reason = differs(
                each.left,
                each.right,
                numbers=each.numbers,
                exact=exact,
                positive=_known(template.law, "positive"),
                nonnegative=_known(template.law, "nonnegative"),
            )
            shown = each.counterexample(rng)
            if shown:
                return shown
            if reason:
                break
        if not reason:
            seen.add(lifted.text)
            return lifted
    return reason


def _known(law: Law, kind: str) -> frozenset[str]:
    return frozenset(fact.name for fact in law.facts if fact.kind == kind)


# -- equality of two terms ------------------------------------------------------------------------


def differs(
    left: Value,
    right: Value,
    *,
    numbers: Mapping[str, float] | None = None,
    exact: bool = False,
    positive: frozenset[str] = frozenset(),
    nonnegative: frozenset[str] = frozenset(),
) -> str:
    """Why two terms are not proved equal for all their free sizes; "" where they are.

    `numbers` are leaves that are one number everywhere; the elements of those in `positive` are
    above 0, of those in `nonnegative` not below.  With `exact`, equal without reordering of
    arithmetic.  Recursive in the terms, which are sides of laws, not models.
    """
    if left.dtype != right.dtype or left.rank != right.rank:
        return f"a {left.type} is no {right.type}"
    for axis, (a, b) in enumerate(zip(left.shape, right.shape, strict=True)):
        if not _same(a, b):
            return f"axis {axis} has the sizes {a} and {b}"
    elements = Elements(
        numbers=numbers or {}, exact=exact, positive=positive, nonnegative=nonnegative
    )
    regions = [tuple(elements.ranges.fresh(d) for d in left.shape)]
    count = 0
    while regions:
        region = regions.pop()
        count += 1
        try:
            first, second = elements.at(left, region), elements.at(right, region)
            if key(first) == key(second):
                continue
            parts = _parts(elements, region, first, second) if count < _MOST_REGIONS else None
        except SafeGraphError as error:
            return f"no index expression: {error}"
        except RecursionError:
            return "the terms are too deep"
        if parts is None:
            return f"at {region} one side is {_short(first)}, the other {_short(second)}"
        regions += parts
    return ""


def _same(a: Dim, b: Dim) -> bool:
    """Are two sizes equal for all values?  Where they are divided, in each residue class."""
    step = period(a - b)
    if same(a, b) or step is None:
        return same(a, b) is True
    own = sorted(names(a - b))
    if step ** len(own) > _MOST_CLASSES:
        return False
    return all(
        substitute(a - b, {n: step * size(n) - r for n, r in zip(own, rest, strict=True)}) == 0
        for rest in product(range(step), repeat=len(own))
    )


def _short(x: Normal) -> str:
    text = key(x) or "0"
    return text if len(text) < 300 else f"{text[:300]}..."


def _parts(elements: Elements, region: Index, a: Normal, b: Normal) -> list[Index] | None:
    """The region in parts, in which more can be decided; None where there is no such split."""
    free = variables(region)
    for guard in (*guards_in(a), *guards_in(b)):
        for condition in _conditions(elements, guard):
            for name in variables(condition.e) & free:
                found = elements.ranges.breakpoint(condition, name)
                if found and (parts := _at_point(elements, region, name, found[0])):
                    return parts
        for divisor in (guard.by, *collected(guard.e, is_index).values()):
            parts = _by_digits(elements, region, guard.e, divisor)
            if parts is not None:
                return parts
    for e in (*expressions(a), *expressions(b)):
        for dividend, divisor in elements.ranges.divisions(e):
            parts = _by_digits(elements, region, dividend, divisor)
            if parts is not None:
                return parts
    return None


def _conditions(elements: Elements, guard: Guard) -> Iterator[Guard]:
    """Inequalities that decide a condition."""
    if guard.kind == "from 0":
        yield guard
    elif guard.kind == "zero" or elements.ranges.is_remainder(guard.e, guard.by):
        yield Guard("from 0", guard.e)
        yield Guard("from 0", guard.e - 1)


def _replaced(elements: Elements, region: Index, name: str, value: Dim) -> Index:
    return tuple(elements.ranges.replaced(e, {name: value}) for e in region)


def _at_point(elements: Elements, region: Index, name: str, point: Dim) -> list[Index] | None:
    range_ = elements.ranges.of[name]
    if same(point, 0) or same(point, range_):
        return None
    low = elements.ranges.fresh(point)
    high = elements.ranges.fresh(range_ - point) + point
    return [_replaced(elements, region, name, value) for value in (low, high)]


def _by_digits(elements: Elements, region: Index, e: Dim, divisor: Dim) -> list[Index] | None:
    """A variable v that is divided as digit*high + low, and what is left of its range."""
    for name in sorted(variables(e) & variables(region)):
        slope = collected(e, is_index).get(size(name), 0)
        digit = None if slope == 0 else divide(divisor, slope)
        if digit is not None and at_least(-digit, 1):
            digit = -digit
        if digit is None or digit == 1 or not at_least(digit, 1):
            continue
        high, rest = elements.ranges.divmod(elements.ranges.of[name], digit)
        whole = high == 1 and rest == 0
        if whole or high == 0:
            continue
        if not at_least(high, 0) or not at_least(rest, 0):
            if not isinstance(digit, int) or digit > _MOST_RESIDUES:
                continue
            counts = [(elements.ranges.of[name] + digit - 1 - r) // digit for r in range(digit)]
            residues = [digit * elements.ranges.fresh(n) + r for r, n in enumerate(counts)]
            return [_replaced(elements, region, name, value) for value in residues]
        fresh = elements.ranges.fresh
        values = [digit * fresh(high) + fresh(digit)]
        values += [] if rest == 0 else [digit * high + fresh(rest)]
        return [_replaced(elements, region, name, value) for value in values]
    return None


def prove_all(laws: Iterable[Law], *, structures: int = 8, seed: int = 0) -> list[Proof]:
    """A proof, or why there is none, for each law."""
    return [prove_law(law, structures=structures, seed=seed) for law in laws]
