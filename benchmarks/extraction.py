"""Seconds and cost ratios of extraction on synthetic decoders, and on the same among noise.

    python benchmarks/extraction.py [--seconds 60]

A decoder of `layers` layers asks for its last token only.  Every class has a one-token twin, q, k
and v can be one contraction, and each value has a few equal spellings, some of them cyclic; with
more `enodes`, random e-nodes are added (most dear, a few cheap) until the e-graph has as many.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from random import Random
from time import perf_counter

from safegraph.extract.search import Choices, extract, total

TOKENS = 1024
LAUNCH = 5e-6  # seconds


class Builder:
    """Collects e-nodes."""

    def __init__(self) -> None:
        self.of: list[int] = []
        self.operands: list[tuple[int, ...]] = []
        self.cost: list[float] = []
        self.given: dict[int, int] = {}
        self.count = 0

    def add(self, owner: int, cost: float, operands: Iterable[int] = ()) -> int:
        """One more e-node of a class."""
        self.of.append(owner)
        self.operands.append(tuple(operands))
        self.cost.append(cost)
        return len(self.of) - 1

    def new(self, cost: float, *operands: int) -> int:
        """A class with its first e-node, which the original program uses."""
        owner = self.count
        self.count += 1
        self.given[owner] = self.add(owner, cost, operands)
        return owner

    def choices(self) -> Choices:
        """The e-graph."""
        return Choices(self.of, self.operands, self.cost)


def decoder(layers: int, enodes: int = 0) -> tuple[Choices, int, dict[int, int]]:
    """An e-graph, its root, and the selection of the original program."""
    build, twins = Builder(), dict[int, int]()

    def op(work: float, *operands: int, weight: bool = False, sliced: int = 0) -> int:
        """A class and its twin: the last token of the first operands, `sliced` of them (0: all)."""
        reads = (*operands, build.new(0.0)) if weight else operands
        full = build.new(LAUNCH + work, *reads)
        twin = twins[full] = build.new(LAUNCH, full)
        kept = sliced or len(operands)
        small = [twins[c] for c in operands[:kept]]
        build.add(twin, LAUNCH + work / TOKENS, (*small, *reads[kept:]))
        build.add(full, LAUNCH + 1e-7, (build.new(LAUNCH, full),))  # slice(pad(x)): a cycle
        return full

    x = op(1e-4)
    for _ in range(layers):
        n = op(5e-5, x)
        q, k, v = (op(1e-3, n, weight=True) for _ in "qkv")
        merged = build.new(3e-3, n, build.new(0.0))
        for part in (q, k, v):
            build.add(part, 1e-7, (merged,))
        a = op(2e-3, q, k, v, sliced=1)
        r = op(5e-5, x, op(1e-3, a, weight=True))
        h = op(4e-3, op(5e-5, r), weight=True)
        x = op(5e-5, r, op(4e-3, op(5e-5, h), weight=True))
    root = build.new(1e-3 / TOKENS, twins[op(5e-5, x)], build.new(0.0))
    rng, classes = Random(0), build.count
    while len(build.of) < enodes:
        owner = rng.randrange(classes)
        node = rng.choice((build.given[owner], rng.randrange(len(build.of))))
        middle = build.new(LAUNCH * rng.random(), *(build.operands[build.given[owner]]))
        build.add(owner, build.cost[build.given[owner]] * (1 + rng.random()), (middle,))
        if build.of[node] < owner:
            build.add(owner, build.cost[node] + 1e-2 * rng.random(), (build.of[node], middle))
    return build.choices(), root, build.given


def main() -> None:
    """Print one line for each size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=60.0, help="time limit of each search")
    seconds = parser.parse_args().seconds
    print(
        f"{'layers':>6} {'e-nodes':>8} {'classes':>8} {'start':>6} {'seconds':>8} {'of given':>9}"
    )
    for layers, enodes in ((12, 0), (48, 0), (96, 0), (12, 25_000), (48, 100_000), (96, 200_000)):
        choices, root, given = decoder(layers, enodes)
        for start, name in ((given, "given"), (None, "none")):
            began = perf_counter()
            found = extract(choices, [root], start, seconds=seconds)
            took = perf_counter() - began
            ratio = total(choices, [root], found) / total(choices, [root], given)
            print(
                f"{layers:>6} {len(choices.of):>8} {max(choices.of) + 1:>8} {name:>6} "
                f"{took:>8.2f} {ratio:>9.5f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
