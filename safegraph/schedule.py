"""Which laws may go on: exponential back-off for those that add very much."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from safegraph.law import Law

_FLOOD = 1 / 20  # of the budget: what one law may add in one round
_RESERVE = 1 / 2  # of the budget: what laws that flood leave to the others


@dataclass
class Floods:
    """Exponential back-off: a law that adds very much waits, twice as long each time.

    Its matches are kept (an e-graph gives each only once): they are applied when its time comes,
    when nothing else is new, or in a later run, as long as the reserve is not touched.  Without a
    number of e-nodes no law waits.
    """

    laws: frozenset[Law]
    held: dict[Law, list[tuple[int, ...]]]
    nodes: int | None
    round: int = 0
    times: Counter[Law] = field(default_factory=Counter)
    until: dict[Law, int] = field(default_factory=dict)

    @property
    def waiting(self) -> bool:
        """Are there matches that were not applied?"""
        return not self.laws.isdisjoint(self.held)

    def due(
        self, found: Iterable[tuple[Law, list[tuple[int, ...]]]], size: int
    ) -> Iterator[tuple[Law, list[tuple[int, ...]]]]:
        """The matches to apply in this round, of the laws that do not wait."""
        self.round += 1
        for law, matches in list(found):
            late = law in self.held and not self._spare(size)
            if late or self.until.get(law, 0) > self.round:
                self.held.setdefault(law, []).extend(matches)
            elif matches or law in self.held:
                yield law, self.held.pop(law, []) + matches

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
