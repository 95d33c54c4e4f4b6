"""What an explanation is: equal graphs, and what was done from each to the next.

A value keeps its name as long as it is there, whatever computes it, so a step is the few lines that
change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, overload

from safegraph.dag import Node, SafeDAG


@dataclass(frozen=True)
class Place:
    """Where a step changes something: nodes that go, and nodes that come instead."""

    name: str
    """The value that is computed in another way; the other values are part of that."""
    before: tuple[Node, ...]
    after: tuple[Node, ...]
    result: str
    """The value that it is now: another one, where one that was there already is equal."""
    lines: tuple[tuple[str, ...], tuple[str, ...]] = field(repr=False)
    """What goes and what comes, in the text notation."""

    def __str__(self) -> str:
        before, after = self.lines
        after = after or (f"{self.name} is {self.result}",)
        marks = ["   ", *("   " for _ in before[1:]), "=> ", *("   " for _ in after[1:])]
        return "\n".join(m + line for m, line in zip(marks, (*before, *after), strict=True))

    def data(self) -> dict[str, Any]:
        """The same for scripts and pictures."""
        sides = zip(("before", "after"), (self.before, self.after), self.lines, strict=True)
        found: dict[str, Any] = {"name": self.name, "result": self.result}
        for side, nodes, lines in sides:
            found[side] = {
                "nodes": [
                    {"name": n.name, "op": n.op.name, "inputs": list(n.inputs)} for n in nodes
                ],
                "lines": list(lines),
            }
        return found


@dataclass(frozen=True)
class Rewrite:
    """A step: one law, at one place or at several at once, and the graph that it gives."""

    law: str
    grade: str
    """How far the graphs before and after it are equal, see `safegraph.law.Law`."""
    places: tuple[Place, ...]
    flops: int
    """Those of the graph after it, for the sizes that costs were compared for."""
    build: Callable[[], SafeDAG] = field(repr=False, compare=False)
    laws: tuple[str, ...] = ()
    """Where no sequence of single laws was found within the limit: the laws that were needed."""

    @cached_property
    def dag(self) -> SafeDAG:
        """The graph after this step."""
        return self.build()

    def __str__(self) -> str:
        head = f"{self.law} [{self.grade}]"
        if self.laws:
            head += f": {', '.join(self.laws)}"
        first, *others = self.places
        if others:
            head += f", at {len(self.places)} places"
        lines = [head, *("  " + line for line in str(first).split("\n"))]
        if others:
            lines.append(f"     and so {', '.join(p.name for p in others)}")
        return "\n".join(lines)

    def data(self) -> dict[str, Any]:
        """The same for scripts and pictures: texts and numbers."""
        return {
            "law": self.law,
            "grade": self.grade,
            "laws": list(self.laws),
            "flops": self.flops,
            "places": [place.data() for place in self.places],
        }


@dataclass(frozen=True)
class Explanation(Sequence[Rewrite]):
    """The steps from a graph to an optimized one, which is that of the last step."""

    original: SafeDAG
    steps: tuple[Rewrite, ...]
    flops: int
    """Those of the original, for the sizes that costs were compared for."""

    def __len__(self) -> int:
        return len(self.steps)

    @overload
    def __getitem__(self, index: int) -> Rewrite: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Rewrite]: ...
    def __getitem__(self, index: int | slice) -> Rewrite | Sequence[Rewrite]:
        return self.steps[index]

    @property
    def dags(self) -> Iterator[SafeDAG]:
        """All graphs, the original first."""
        yield self.original
        for step in self.steps:
            yield step.dag

    @property
    def laws(self) -> list[str]:
        """The laws, each once, in the order in which they are used."""
        return list(dict.fromkeys(law for step in self.steps for law in step.laws or (step.law,)))

    def __str__(self) -> str:
        if not self.steps:
            return "the graph is the original"
        lines = []
        before = self.flops
        for number, step in enumerate(self.steps, 1):
            head, *rest = str(step).split("\n")
            if step.flops != before:
                head += f": {before:,} -> {step.flops:,} flops"
            lines += [f"{number}. {head}", *rest]
            before = step.flops
        return "\n".join(lines)

    def data(self) -> list[dict[str, Any]]:
        """The steps as texts and numbers, for scripts and pictures."""
        return [step.data() for step in self.steps]


__all__ = ["Explanation", "Place", "Rewrite"]
