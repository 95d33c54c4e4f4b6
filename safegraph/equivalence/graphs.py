"""Two graphs, proved equal by laws: piece by piece, from the inputs to the outputs.

Random inputs tell that graphs differ, and never that they are equal everywhere; a proof does, for
all inputs and all free sizes.  An e-graph of two whole models grows beyond any budget, so values
inside are proved first: those that have the same numbers on random inputs are likely to be equal.
Once two are proved, both become one leaf, which may be anything; what follows is proved on such
leaves.  Where that is too much forgotten, the leaves are opened again.  (Hardware is compared in
this way: Kuehlmann and Krohm, "Equivalence checking using cuts and heaps", DAC 1997.)
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, takewhile
from operator import itemgetter
from typing import Any

import numpy as np

from safegraph import dims
from safegraph.dag import SafeDAG
from safegraph.egraph import Budget
from safegraph.equivalence.leaves import Shared, share
from safegraph.equivalence.terms import Theorem, prove_terms, weakest
from safegraph.law import Law
from safegraph.op import TensorType
from safegraph.value import Value, apply, tensor, walk

BUDGET = Budget(nodes=50_000, seconds=20.0)
_PIECE = Budget(nodes=4_000, seconds=2.0)
_MOST_OPS = 60  # of a piece inside: larger ones are left to the pieces behind
_DEPTH = 3  # how often the leaves of a piece are opened
_MOST_ALIKE = 2  # values of the first graph that are tried for one of the second
_NEAR = 1e-4  # of its norm: how far the projection of a value may be from that of its equal


AHEAD = "weights computed ahead"
"""Weights of the same bits, computed in one graph and given in the other: no law of a table."""


@dataclass(frozen=True)
class Equivalence:
    """Which outputs of two graphs are proved equal.  True if all are."""

    outputs: Mapping[str, Theorem | None]
    pieces: int = 0
    """How many values inside, and outputs, were proved equal."""
    seconds: float = 0.0
    reason: str = ""
    """Why no proof was tried."""

    def __bool__(self) -> bool:
        return bool(self.outputs) and all(p is not None for p in self.outputs.values())

    @property
    def grade(self) -> str:
        """The weakest grade of what is proved."""
        return weakest(p.grade for p in self.outputs.values() if p)

    def __str__(self) -> str:
        if self.reason:
            return f"no proof was tried: {self.reason}"
        lines = [f"{name}: {p or 'not proved'}" for name, p in self.outputs.items()]
        return "\n".join([*lines, f"({self.pieces} pieces proved, {self.seconds:.2f} s)"])


def prove(
    a: SafeDAG,
    b: SafeDAG,
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
    arrays: Mapping[str, np.ndarray],
    sizes: Mapping[str, int],
    *,
    nodes: int | None = None,
    seconds: float | None = None,
    laws: Sequence[Law] = (),
) -> Equivalence:
    """Try to prove outputs equal, within a budget of e-nodes and seconds.

    `inputs` and `outputs` give the names of `b` for those of `a`; `arrays` are some inputs of `a`
    and `sizes` its free sizes then; `laws` are used beside SafeGraph's, and trusted.  What is not
    proved may be equal all the same.
    """
    started = time.perf_counter()
    budget = Budget(nodes or BUDGET.nodes, BUDGET.seconds if seconds is None else seconds)
    with dims.assuming():  # what the graphs assume, their terms assume again
        shared = share(a, b, inputs, outputs)
        if isinstance(shared, str):
            return Equivalence(dict.fromkeys(outputs), reason=shared)
        sweep = _Sweep(shared, budget, started + budget.seconds, tuple(laws))
        sweep.inside(_numbers(shared, arrays, sizes))
        found = {name: sweep.output(name) for name in outputs}
    return Equivalence(found, sweep.pieces, time.perf_counter() - started)


# -- values that are likely to be equal -----------------------------------------------------------


@dataclass(frozen=True)
class _Signature:
    """A value as two numbers: its projection on a random direction, and its norm."""

    projection: float
    norm: float


@dataclass(frozen=True)
class _Numbers:
    """What is known of all values of both graphs, on some inputs."""

    signatures: Mapping[Value, _Signature]
    constants: Mapping[Value, np.ndarray]
    """The values that depend on no input and no free size."""

    def alike(self, v: Value, some: Sequence[tuple[float, int, Value]]) -> list[Value]:
        """Some of the values, sorted by their projections, that have nearly that of `v`."""
        own = self.signatures[v]
        reach = _NEAR * own.norm
        first = bisect_left(some, own.projection - reach, key=itemgetter(0))
        near = takewhile(lambda s: s[0] <= own.projection + reach, islice(some, first, None))
        return [u for _, _, u in islice(near, _MOST_ALIKE)]

    def same_constant(self, u: Value, v: Value) -> bool:
        """Do both depend on nothing, and have the same bits?"""
        if u not in self.constants or v not in self.constants:
            return False
        x, y = self.constants[u], self.constants[v]
        return x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()


def _numbers(
    shared: Shared, arrays: Mapping[str, np.ndarray], sizes: Mapping[str, int]
) -> _Numbers:
    order = walk([*shared.left.values(), *shared.right.values()])
    uses = dict.fromkeys(order, 0)
    for v in order:
        for o in v.operands:
            uses[o] += 1
    found: dict[Value, _Signature] = {}
    constants: dict[Value, np.ndarray] = {}
    known: dict[Value, Any] = {}
    leaves = {**arrays, **shared.constants}
    for v in order:
        if v.op is None:
            known[v] = leaves[v.name]
            fixed = v.name in shared.constants
        else:
            fixed = all(o in constants for o in v.operands)
            fixed = fixed and not dims.names((*v.shape, *v.op.spec.values()))
            with np.errstate(all="ignore"):
                known[v] = np.asarray(v.op.bind(sizes).run(*(known[o] for o in v.operands)))
            for o in v.operands:
                uses[o] -= 1
                if not uses[o]:
                    del known[o]
        found[v] = _signature(known[v])
        if fixed:
            constants[v] = known[v]
    return _Numbers(found, constants)


def _signature(array: np.ndarray) -> _Signature:
    wide = array.real if array.dtype.kind == "c" else array
    flat = np.nan_to_num(wide.astype(np.float64).reshape(-1), nan=3.0, posinf=5.0, neginf=7.0)
    direction = np.random.default_rng(flat.size).standard_normal(flat.size)
    return _Signature(float(flat @ direction), float(np.linalg.norm(flat)))


# -- piece by piece -------------------------------------------------------------------------------


@dataclass
class _Sweep:
    """What is proved so far."""

    shared: Shared
    budget: Budget
    end: float
    laws: tuple[Law, ...]
    pieces: int = 0
    cuts: dict[Value, Value] = field(default_factory=dict)
    """Values that are proved equal to another -> the leaf that stands for both."""
    twins: dict[Value, Value] = field(default_factory=dict)
    """Values of the second graph -> the equal ones of the first."""
    theorems: dict[Value, list[tuple[Theorem, frozenset[Value]]]] = field(default_factory=dict)
    """For each leaf: why what it stands for is equal, and on which leaves that rests."""
    constants: set[str] = field(default_factory=set)
    seen: dict[Any, Theorem | None] = field(default_factory=dict)
    """Pieces that were tried, with their leaves renamed: twelve equal layers are proved once."""

    def __post_init__(self) -> None:
        self.constants |= set(self.shared.constants)
        self.first = frozenset(walk(self.shared.left.values()))
        self.fixed: frozenset[Value] = frozenset()

    def inside(self, numbers: _Numbers) -> None:
        """Prove values inside, operands first."""
        self.fixed = frozenset(numbers.constants)
        left, right = (walk(side.values()) for side in (self.shared.left, self.shared.right))
        # laws know more of a number than of a leaf
        skipped = self.first | _numerals([*left, *right])
        known: dict[TensorType, list[tuple[float, int, Value]]] = {}
        for i, u in enumerate(left):
            if u in numbers.constants or u.op is not None:
                projection = numbers.signatures[u].projection
                known.setdefault(u.type, []).append((projection, i, u))
        for some in known.values():
            some.sort(key=itemgetter(0, 1))
        for v in right:
            if v in skipped or (v.op is None and v not in numbers.constants):
                continue
            for u in numbers.alike(v, known.get(v.type, [])):
                if numbers.same_constant(u, v):
                    self._note(u, v, Theorem((AHEAD,), "exact"), frozenset())
                    break
                enough = self._left() > 0.4 * self.budget.seconds
                if v.op is not None and enough and self._prove(u, v, _PIECE, _DEPTH):
                    break

    def output(self, name: str) -> Theorem | None:
        """Prove an output; the theorem has all laws on which it rests."""
        left, right = self.shared.left[name], self.shared.right[name]
        if left is right:
            return Theorem()
        if left not in self.cuts or self.cuts[left] is not self.cuts.get(right):
            budget = Budget(self.budget.nodes, max(0.0, self._left()))
            if left.type != right.type or not self._prove(left, right, budget, None):
                return None
        return self._whole(self.cuts[right])

    def _left(self) -> float:
        return self.end - time.perf_counter()

    def _prove(self, u: Value, v: Value, budget: Budget, depth: int | None) -> bool:
        """Prove two values equal on what is proved; opened again and again (`depth` times)."""
        cuts: Mapping[Value, Value] = self.cuts
        tried = 0
        while depth is None or tried < depth:
            tried += 1
            opened: set[Value] = set()
            most = None if depth is None else _MOST_OPS
            left, right = (self._cone(root, cuts, opened, most) for root in (u, v))
            if left is None or right is None:
                return False
            order = walk([left, right])
            found = self._theorem(left, right, order, budget)
            frontier = {w for w in order if w in self.theorems}
            if found is not None:
                self._note(u, v, found, frozenset(frontier | opened))
                return True
            if not frontier or self._left() < 0:
                return False
            cuts = {w: leaf for w, leaf in cuts.items() if leaf not in frontier}
        return False

    def _theorem(
        self, left: Value, right: Value, order: Sequence[Value], budget: Budget
    ) -> Theorem | None:
        """The theorem of a piece, with its leaves renamed so that equal pieces are met again."""
        leaves = [w for w in order if w.op is None]
        kinds = ["constant" if w.name in self.constants else "any" for w in leaves]
        names = {
            w: tensor(f"{kind}{i}", w.type)
            for i, (w, kind) in enumerate(zip(leaves, kinds, strict=True))
        }
        plain = _renamed(order, names)
        key = plain[left], plain[right], budget.nodes  # with more room it may go better
        if key not in self.seen:
            constants = frozenset(n.name for n in names.values() if n.name.startswith("constant"))
            limit = Budget(budget.nodes, min(budget.seconds, max(0.0, self._left())))
            self.seen[key] = prove_terms(*key[:2], constants, limit, self.laws)
        return self.seen[key]

    def _note(self, u: Value, v: Value, theorem: Theorem, rests: frozenset[Value]) -> None:
        self.pieces += 1
        leaf = tensor(f"~{self.pieces}", u.type)  # no name of an input
        if u in self.fixed:
            self.constants.add(leaf.name)
        self.cuts[v] = self.cuts.setdefault(u, leaf)
        self.theorems.setdefault(self.cuts[u], []).append((theorem, rests))
        if v not in self.first:  # else what is opened might hold itself
            self.twins[v] = u

    def _cone(
        self, root: Value, cuts: Mapping[Value, Value], opened: set[Value], most: int | None
    ) -> Value | None:
        """The value on the leaves that stand for proved values.

        A proved value without a leaf in `cuts` is opened as the first graph has it, on both sides;
        `opened` gets the leaves of those of the second graph.  None beyond `most` values.
        """
        done: dict[Value, Value] = {}
        stack = [root]
        while stack:
            if most is not None and len(done) + len(stack) > 2 * most:
                return None
            v = stack[-1]
            twin = self.twins.get(v) if v is not root else None
            inner = v.operands if twin is None else (twin,)
            waiting = [o for o in inner if o not in done]
            if v in done:
                stack.pop()
            elif v is not root and v in cuts:
                done[v] = cuts[v]
            elif waiting:
                stack += waiting
            elif twin is not None:
                done[v] = done[twin]
                opened.add(self.cuts[v])
            else:
                done[v] = v if v.op is None else apply(v.op, *(done[o] for o in inner))
        return done[root]

    def _whole(self, leaf: Value) -> Theorem:
        """The theorem of a leaf together with those on which it rests."""
        seen: dict[Value, None] = {}
        stack = [leaf]
        while stack:
            top = stack.pop()
            if top not in seen:
                seen[top] = None
                stack += (other for _, rests in self.theorems[top] for other in rests)
        parts = [theorem for top in reversed(seen) for theorem, _ in self.theorems[top]]
        laws = dict.fromkeys(name for part in parts for name in part.laws)
        fewest = all(part.fewest for part in parts)
        return Theorem(tuple(laws), weakest(part.grade for part in parts), fewest)


def _numerals(order: Sequence[Value]) -> set[Value]:
    """The values that are made of no leaf."""
    found: set[Value] = set()
    for v in order:
        if v.op is not None and all(o in found for o in v.operands):
            found.add(v)
    return found


def _renamed(order: Sequence[Value], names: Mapping[Value, Value]) -> dict[Value, Value]:
    """Terms with other leaves."""
    done: dict[Value, Value] = {}
    for v in order:
        done[v] = names[v] if v.op is None else apply(v.op, *(done[o] for o in v.operands))
    return done


__all__ = ["BUDGET", "Equivalence", "prove"]
