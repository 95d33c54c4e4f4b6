"""Two terms, equal by laws: one e-graph, until both are in one class.

Laws are tried by grade, the strictest first, so that a proof has the best grade that was found.
Which laws it needs is told by leaving laws out: those that are reported have proved it by
themselves.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from safegraph import dims
from safegraph.dims import Size
from safegraph.dtypes import is_float, to_numpy
from safegraph.egraph import Budget, EGraph
from safegraph.explain.congruence import laws_between
from safegraph.law import GRADES, Law, any_of, one
from safegraph.ops import Scalar
from safegraph.rules import LOWERING, REFINING, Phase, chains
from safegraph.value import Value, scalar, walk

MEANING = {
    "": "the same ops",
    "exact": "the same bits",
    "real": "equal over the reals: rounding may differ",
    "finite": "equal over the reals, for finite values",
}
"""What a proof of each grade says; "" is that of no law."""
_CYCLES = 3
_SIZE = 16  # of free sizes, where orders of contractions are compared
_WHY = 3.0  # seconds to find out which laws a proof needs
_MOST_RUNS = 100


def _rounded(s: Scalar) -> Value | None:
    """The number as its element type holds it."""
    if isinstance(s.value, Size) or not is_float(s.of):
        return None
    return scalar(to_numpy(s.of).type(s.value).item(), s.of)


(_number,) = any_of(Scalar, "s")
ROUNDING = one("a number is rounded to its type", _number(), _rounded, grade="exact")
"""Formats write 0.1 in decimals or in bits."""


@dataclass(frozen=True)
class Theorem:
    """That two terms are equal."""

    laws: tuple[str, ...] = ()
    """Laws that prove it by themselves; none where both terms are the same."""
    grade: str = ""
    """The weakest grade of these laws; "" for none."""
    fewest: bool = True
    """Can none of the laws be left out?  Not known where the time was up."""

    def __str__(self) -> str:
        if not self.laws:
            return MEANING[self.grade]
        how = "by" if self.fewest else "by some of"
        return f"{MEANING[self.grade]}; {how} {', '.join(self.laws)}"


def strength(grade: str) -> int:
    """0 for no law at all, more for weaker grades."""
    return GRADES.index(grade) + 1 if grade else 0


def weakest(grades: Iterator[str]) -> str:
    """The grade of what follows from all of these."""
    return max(grades, key=strength, default="")


def prove_terms(
    left: Value,
    right: Value,
    constants: frozenset[str],
    budget: Budget,
    laws: Sequence[Law] = (),
) -> Theorem | None:
    """That two terms of one type are equal, or None where no proof was found within the budget.

    `constants` are the leaves that depend on no input, `laws` ones to use beside SafeGraph's.
    """
    if left is right:
        return Theorem()
    if left.type != right.type:
        return None
    end = time.perf_counter() + budget.seconds
    search = _Search(left, right, constants)
    for grade, part in (("exact", 0.3), ("real", 0.8), ("finite", 1.0)):
        # a strict grade must leave e-nodes and time for the others
        seconds = part * (end - time.perf_counter())
        if seconds <= 0:
            return None
        allowed = _up_to(grade, laws)
        if search.succeeds(allowed, Budget(int(part * budget.nodes), seconds)):
            limit = Budget(budget.nodes, _WHY)
            names = list(laws_between(search.egraph, *search.pair))
            return _least(left, right, constants, allowed, names, limit)
    return None


# -- the search -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Allowed:
    """The laws that a search may use."""

    phases: tuple[Phase, ...]
    reorder: bool

    @property
    def grades(self) -> dict[str, str]:
        laws: Iterator[Law] = (law for phase in self.phases for law in phase.laws)
        return {law.name: law.grade for law in laws} | {chains.ORDER: "real"}

    def only(self, names: Sequence[str]) -> _Allowed:
        kept = set(names)
        phases = (
            Phase(p.name, tuple(law for law in p.laws if law.name in kept), p.rounds)
            for p in self.phases
        )
        return _Allowed(tuple(phases), self.reorder and chains.ORDER in kept)


def _up_to(grade: str, own: Sequence[Law]) -> _Allowed:
    most = strength(grade)
    added = {REFINING[0].name: ROUNDING, "derive": tuple(own)}
    phases = (
        Phase(
            p.name,
            tuple(law for law in (*p.laws, *added.get(p.name, ())) if strength(law.grade) <= most),
            p.rounds,
        )
        for p in (*REFINING, *LOWERING)
    )
    return _Allowed(tuple(phases), reorder=most >= strength("real"))


class _Search:
    """Two terms in an e-graph."""

    def __init__(self, left: Value, right: Value, constants: frozenset[str]) -> None:
        self.egraph = EGraph()
        self.pair = self.egraph.add([left, right], constants=constants)
        names = {n for v in walk([left, right]) for n in dims.names(v.shape)}
        self.sizes = dict.fromkeys(names, _SIZE)

    def succeeds(self, allowed: _Allowed, budget: Budget) -> bool:
        """Apply laws until the terms are equal, nothing is new, or the budget is spent."""
        rounds = self._rounds(allowed, budget)
        return any(self.egraph.same(*self.pair) for _ in rounds)

    def _rounds(self, allowed: _Allowed, budget: Budget) -> Iterator[None]:
        """The phases again and again, round by round."""
        end = time.perf_counter() + budget.seconds
        derive = next(p for p in allowed.phases if p.name == "derive")
        yield
        for _ in range(_CYCLES):
            before = self._extent()
            for phase in allowed.phases:
                if phase.name == "lower" and allowed.reorder:
                    chains.reorder(self.egraph, [self.sizes])
                    yield from self._phase(derive, budget.nodes, end)
                # what is derived must leave room to name it
                nodes = int(0.7 * budget.nodes) if phase is derive else budget.nodes
                yield from self._phase(phase, nodes, end)
            if self._extent() == before or time.perf_counter() > end:
                return

    def _phase(self, phase: Phase, nodes: int, end: float) -> Iterator[None]:
        done = 0
        while phase.laws and (phase.rounds is None or done < phase.rounds):
            before = self._extent()
            left = Budget(nodes, max(0.0, end - time.perf_counter()))
            part = self.egraph.run(phase.laws, left, rounds=1)
            done += 1
            yield
            if part.stopped.startswith("the ") or self._extent() == before:
                return

    def _extent(self) -> tuple[int, int]:
        return len(self.egraph), len(self.egraph.unions())


# -- the laws of a proof --------------------------------------------------------------------------


def _least(
    left: Value,
    right: Value,
    constants: frozenset[str],
    allowed: _Allowed,
    names: list[str],
    budget: Budget,
) -> Theorem:
    """Laws that suffice, found by leaving out ever smaller parts of those that were applied."""
    end = time.perf_counter() + budget.seconds
    runs, fewest = 0, True
    width = len(names)
    while width and fewest:
        at = 0
        while at < len(names):
            seconds = end - time.perf_counter()
            if seconds <= 0 or runs >= _MOST_RUNS:
                fewest = False
                break
            runs += 1
            without = names[:at] + names[at + width :]
            search = _Search(left, right, constants)
            if search.succeeds(allowed.only(without), Budget(budget.nodes, seconds)):
                names = without
            else:
                at += width
        width //= 2
    grades = allowed.grades
    return Theorem(tuple(names), weakest(grades[name] for name in names), fewest)


__all__ = ["MEANING", "ROUNDING", "Theorem", "prove_terms", "strength", "weakest"]
