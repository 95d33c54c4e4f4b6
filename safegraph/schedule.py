"""Which laws may go on: exponential back-off for those that add or find very much."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from safegraph.law import Law

_FLOOD = 1 / 20  # of the budget: what one law may add in one round
_RESERVE = 1 / 2  # of the budget: what laws that flood leave to the others


@dataclass
class Floods:
    """Exponential back-off: a law that adds or finds very much waits, twice as long each time.

    A law that waits is neither applied nor looked for.  The matches that were not applied are kept
    (an e-graph gives each only once) until its time comes, or nothing else is new, or in a later
    run, as long as the reserve is not touched.  Without a number of e-nodes no law waits.
    """

    laws: frozenset[Law]
    held: dict[Law, list[tuple[int, ...]]]
    nodes: int | None
    round: int = 0
    times: Counter[Law] = field(default_factory=Counter)
    until: dict[Law, int] = field(default_factory=dict)

    @property
    def waiting(self) -> bool:
        """Are there matches that were not applied, or not looked for?"""
        return not self.laws.isdisjoint(self.held)

    def searched(self, laws: Iterable[Law], size: int) -> list[Law]:
        """The laws of which matches are looked for in the next round."""
        self.round += 1
        spare = self._spare(size)
        return [
            law
            for law in laws
            if self.until.get(law, 0) <= self.round and (spare or law not in self.held)
        ]

    def due(
        self, found: Iterable[tuple[Law, list[tuple[int, ...]]]]
    ) -> Iterator[tuple[Law, list[tuple[int, ...]]]]:
        """The matches to apply in this round: what was held, then what was found."""
        for law, matches in found:
            together = self.held.pop(law, []) + matches
            if together:
                yield law, together
            if self.nodes is not None and len(matches) > self.nodes and law not in self.held:
                self.hold(law, [])

    def is_flood(self, added: int) -> bool:
        """Has a law added too much for one round?"""
        return self.nodes is not None and added > self.nodes * _FLOOD

    def hold(self, law: Law, matches: list[tuple[int, ...]]) -> None:
        """Let a law wait, with what is left of its matches."""
        self.times[law] += 1
        self.until[law] = self.round + 2 ** self.times[law]
        self.held[law] = matches

    def release(self, size: int) -> bool:
        """Let the waiting laws go on, if there are any and there is room."""
        if not self.waiting or not self._spare(size):
            return False
        self.until.clear()
        return True

    def _spare(self, size: int) -> bool:
        return self.nodes is None or size < self.nodes * _RESERVE
