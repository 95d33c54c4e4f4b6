"""Memory: what must be touched once, and the most that is alive at one time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from safegraph.dag import SafeDAG
from safegraph.dims import (
    KEPT,
    Dim,
    add_all,
    at_least,
    coefficients,
    largest,
    maximum,
    substitute,
    undominated,
)
from safegraph.extract.count import Count


@dataclass(frozen=True)
class Peak:
    """The most bytes of activations that are alive at one time, in one order of the ops.

    Inputs live from the start to their last use, results from their op to their last use, outputs
    to the end; a view keeps alive what it shows, and has no bytes.  Parameters, buffers and
    constants are not in it: their bytes are reported apart.  While an op runs, its operands and its
    result are alive.
    """

    moments: tuple[tuple[str, Dim], ...]
    """Op -> bytes alive while it runs: a moment that another never falls short of is left out."""
    order: tuple[str, ...]
    """The ops in the order that is meant: that of the graph."""

    @property
    def bytes(self) -> Dim:
        """The largest of all moments: a `Max` where sizes decide which that is."""
        return largest(alive for _, alive in self.moments)

    def bind(self, sizes: Mapping[str, Dim]) -> Peak:
        """The moments that remain for these values of free sizes."""
        return Peak(_largest((op, substitute(d, sizes)) for op, d in self.moments), self.order)


def peak(dag: SafeDAG, counted: Count) -> Peak:
    """The peak of a graph, its ops run in their order."""
    owners = _owners(dag, counted)
    last: dict[str, int] = {}
    for at, node in enumerate(dag):
        for value in (node.name, *node.inputs):
            last.update(dict.fromkeys(owners[value], at))
    for value in dag.outputs.values():
        last.update(dict.fromkeys(owners[value], len(dag)))
    freed: dict[int, list[str]] = {}
    for value, at in last.items():
        freed.setdefault(at, []).append(value)

    alive: Counter[Dim] = Counter()  # a polynomial: monomial -> coefficient
    for t in dag.inputs:
        if t.name in last:
            alive.update(coefficients(t.type.nbytes))
    moments: dict[frozenset[tuple[Dim, int]], str] = {}
    grown = bool(alive)
    for at, node in enumerate(dag):
        if owners[node.name] == (node.name,):
            alive.update(coefficients(dag.types[node.name].nbytes))
            grown = True
        if at in freed or at == len(dag) - 1:
            if grown:  # all that is alive only grows until something is freed
                moments.setdefault(frozenset((m, n) for m, n in alive.items() if n), node.name)
            grown = False
            for value in freed.get(at, ()):
                alive.subtract(coefficients(dag.types[value].nbytes))
    candidates = ((op, add_all(n * m for m, n in terms)) for terms, op in moments.items())
    return Peak(_largest(candidates), tuple(dag.nodes))


def minimum_bytes(dag: SafeDAG, counted: Count) -> Dim:
    """The traffic that no fusion avoids: inputs, stored tensors and outputs, each once.

    Of a tensor that ops pick from (a table of embeddings, a slice) only what they pick counts, at
    most all of it; parts that different views show are taken as different parts.
    """
    owners = _owners(dag, counted, stored=True)
    parts: dict[str, dict[str, Dim]] = {}  # tensor -> the view that is read -> bytes of it
    for operands in counted.picked.values():
        for value, read in operands.items():
            for tensor in owners[value]:
                if tensor in dag.tensors:
                    seen = parts.setdefault(tensor, {})
                    known = seen.setdefault(value, read)
                    if known is not read:
                        seen[value] = maximum(known, read)
    touched = (
        _at_most(add_all(reads.values()), dag.types[tensor].nbytes)
        for tensor, reads in parts.items()
    )
    written = (dag.types[value].nbytes for value in dict.fromkeys(dag.outputs.values()))
    return add_all([*touched, *written])


def _owners(dag: SafeDAG, counted: Count, stored: bool = False) -> dict[str, tuple[str, ...]]:
    """The values whose memory each value shows: itself where it has its own."""
    kinds = ("input", "parameter", "buffer", "const") if stored else ("input",)
    owners: dict[str, tuple[str, ...]] = {
        t.name: (t.name,) if t.kind in kinds else () for t in dag.tensors.values()
    }
    for node in dag:
        shown = counted.shows.get(node.name, (node.name,))
        found = (o for i in shown for o in owners.get(i, (i,)))
        owners[node.name] = tuple(dict.fromkeys(found))
    return owners


@lru_cache(KEPT)
def _at_most(a: Dim, limit: Dim) -> Dim:
    if a is limit or at_least(limit, a):
        return a
    return a + limit - maximum(a, limit)


def _largest(moments: Iterable[tuple[str, Dim]]) -> tuple[tuple[str, Dim], ...]:
    """Without the moments that another is at least as large as, whatever the sizes."""
    first: dict[Dim, str] = {}
    for op, alive in moments:
        first.setdefault(alive, op)
    return tuple((first[alive], alive) for alive in undominated(first))
