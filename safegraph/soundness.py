"""Is what laws made equal really equal?  Random numbers tell.

Soundness is a property of an e-graph: every e-class has one value.  `check_egraph` runs all e-nodes
bottom-up on arrays and compares each with its class; `sound` does it for a graph and laws in one
call; `check_law` tests one law by itself, on terms on which it fires.

>>> from safegraph.law import one, variables
>>> from safegraph.ops import Unary
>>> x, y = variables("x y")
>>> (wrong,) = one("exp of a sum", Unary("exp")(x + y), Unary("exp")(x) + Unary("exp")(y))
>>> check_law(wrong).unsound > 0
True
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from safegraph.cases import Case, Sample, Sizes, cases, numeric, random_array
from safegraph.dag import SafeDAG
from safegraph.dtypes import from_numpy, is_float, itemsize, to_numpy
from safegraph.egraph import Budget, EGraph, ENode, Report
from safegraph.errors import SafeGraphError
from safegraph.law import Law
from safegraph.op import Op
from safegraph.ops import Opaque
from safegraph.ranges import of_array
from safegraph.value import Value, walk

RTOL = {"f64": 1e-9, "f32": 1e-4, "f16": 3e-2, "bf16": 1e-1, "c64": 1e-4, "c128": 1e-9}
"""How far values of a law of grade "real" may differ, relative to the largest number around."""
MOST_BYTES = 1 << 28
_SHOWN = 12  # operands of so many elements are printed
_AS_INFINITE = {"f64": 1e14, "f32": 1e6}  # rounding makes 1.6e16 and 2.3e7 of tan(arctan(inf))
_SHAKE = 1e-11  # how far leaves are shaken to see how well a value is determined
_SMALL = Budget(nodes=3_000, seconds=5.0)


# -- comparison -----------------------------------------------------------------------------------


def difference(
    a: np.ndarray, b: np.ndarray, slack: np.ndarray | None = None, rtol: float = 0.0
) -> str | None:
    """Where and how far two arrays differ, as a text; None where they are equal.

    NaN equals NaN and -0 equals 0.  Floats may differ by `rtol` times the larger of 1 and the
    number, and by `slack`, which says how well each element is determined.
    """
    if a.shape != b.shape or a.dtype != b.dtype:
        return f"{from_numpy(a.dtype)}{list(a.shape)} is not {from_numpy(b.dtype)}{list(b.shape)}"
    wrong = _wrong(a, b, slack, rtol)
    if not wrong.any():
        return None
    at = tuple(int(i) for i in np.argwhere(wrong)[0])
    return f"{int(wrong.sum())} of {a.size} elements differ, at {list(at)}: {a[at]} is not {b[at]}"


def _wrong(a: np.ndarray, b: np.ndarray, slack: np.ndarray | None, rtol: float) -> np.ndarray:
    """Which elements of two arrays of one type differ."""
    wrong = np.asarray(a != b)
    if is_float(from_numpy(a.dtype)):
        with np.errstate(all="ignore"):
            x, y = a.astype(np.float64), b.astype(np.float64)
            near = np.abs(x - y) <= rtol * np.maximum(1, np.abs(y)) + (
                0 if slack is None else slack
            )
            wrong = wrong & ~near & ~(np.isnan(x) & np.isnan(y))
    return wrong


def shaken(rng: np.random.Generator, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays with every float moved by a few rounding errors."""
    found = dict(arrays)
    for name, a in arrays.items():
        if a.dtype == np.float64:
            found[name] = a * (1 + _SHAKE * rng.uniform(-1, 1, a.shape))
    return found


def undetermined(a: np.ndarray, moved: np.ndarray) -> np.ndarray | None:
    """How far rounding may move each element: ill-conditioned ones, and jumps as of floor.

    Infinite where an element comes and goes with rounding; None for other types than f64.
    """
    if a.shape != moved.shape or a.dtype != np.float64:
        return None
    with np.errstate(all="ignore"):
        slack = 10 * np.abs(a - moved)
    return np.where(
        np.isnan(slack) & ~((a == moved) | (np.isnan(a) & np.isnan(moved))),
        np.inf,
        np.nan_to_num(slack),
    )


# -- an e-graph -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Violation:
    """An e-node whose value is not that of its class."""

    node: ENode
    law: str
    """The law that made the e-node or joined it to its class; "given" for the graph itself."""
    round: int
    reference: ENode
    """The e-node whose value the class had first."""
    what: str
    """How they differ."""
    term: str = ""
    """Both e-nodes with their operands, as text."""

    def __str__(self) -> str:
        return (
            f"class {self.node.cls}: {self.what}\n  {self.term}\n"
            f"  made by: {self.law} (round {self.round})"
        )


def check_egraph(
    egraph: EGraph,
    leaves: Mapping[str, np.ndarray],
    sizes: Sizes | None = None,
    *,
    rtol: float | None = None,
    most_bytes: int = MOST_BYTES,
    seed: int = 0,
) -> list[Violation]:
    """Run every e-node on arrays for the leaves, and compare it with its class: value, shape, type.

    The e-nodes of the given graph come first, so their values are the references.  An e-node inside
    a cycle is run as soon as its operands' classes have values.  Tolerances are by element type (or
    `rtol`; 0 asks for the same bits but signed zeros), wider where shaken leaves show that rounding
    alone moves a value.  An opaque op is taken as some function: random numbers.
    Raises SafeGraphError if the values of all classes would need more than `most_bytes`.
    """
    rng = np.random.default_rng(seed)
    run = _Run(egraph, sizes or {}, most_bytes, seed)
    values = run.values(leaves)
    moved = run.values(shaken(rng, leaves))
    first: dict[int, ENode] = {}
    found = []
    for node, value in values:
        reference = first.setdefault(node.cls, node)
        if reference is node:
            if isinstance(value, str):
                found.append(run.violation(node, reference, value))
            continue
        what = value if isinstance(value, str) else None
        expected = run.known[0][node.cls]
        if what is None:
            tolerance = RTOL.get(node.type.dtype, 0.0) if rtol is None else rtol
            slack = undetermined(expected, run.known[1][node.cls]) if tolerance else None
            what = difference(value, expected, slack, tolerance)
            if what is not None and tolerance and _jumps(expected, value, run, moved, node):
                what = None
        if what is not None:
            found.append(run.violation(node, reference, what))
    return found


def _jumps(expected: np.ndarray, value: np.ndarray, run: _Run, moved: Any, node: ENode) -> bool:
    """Does rounding alone explain it: elements that it moves, of the class or of the node?"""
    if expected.shape != value.shape or expected.dtype != value.dtype:
        return False
    again = run.known[1][node.cls]
    other = run.by_node[1].get(node.index)
    if expected.dtype.kind in "biu":
        jumpy = (
            (expected != again) | (value != other)
            if isinstance(other, np.ndarray)
            else expected != again
        )
        return bool((jumpy | (expected == value)).all())
    slack = undetermined(value, other) if isinstance(other, np.ndarray) else None
    both = undetermined(expected, again)
    if slack is None or both is None:
        return False
    return difference(value, expected, slack + both, RTOL.get(node.type.dtype, 0.0)) is None


class _Run:
    """The values of all e-nodes, for two sets of leaves."""

    def __init__(self, egraph: EGraph, sizes: Sizes, most_bytes: int, seed: int) -> None:
        self.egraph, self.sizes, self.seed = egraph, sizes, seed
        self.nodes = egraph.enodes()
        self.cls = egraph.classes()
        self.names = egraph.leaves
        self.known: list[dict[int, np.ndarray]] = []
        self.by_node: list[dict[int, Any]] = []
        self.shapes = {n.index: numeric(n.type.shape, sizes) for n in self.nodes}
        first = {n.cls: n for n in reversed(self.nodes)}
        total = sum(_numel(self.shapes[n.index]) * itemsize(n.type.dtype) for n in first.values())
        if total > most_bytes:
            raise SafeGraphError(
                f"the values of {len(first)} e-classes take {total:,} bytes, "
                f"more than {most_bytes:,}: "
                "give the free sizes smaller values, or scale the graph down"
            )

    def values(self, leaves: Mapping[str, np.ndarray]) -> list[tuple[ENode, Any]]:
        """Every e-node that can be run with its value, or a text that says what is wrong."""
        known: dict[int, np.ndarray] = {}
        users: dict[int, list[int]] = {}
        missing: list[int] = []
        for i, node in enumerate(self.nodes):
            operands = set(node.operands)
            missing.append(len(operands))
            for o in operands:
                users.setdefault(o, []).append(i)
        ready = [(n.index, i) for i, n in enumerate(self.nodes) if not missing[i]]
        heapq.heapify(ready)
        found: list[tuple[ENode, Any]] = []
        while ready:
            _, i = heapq.heappop(ready)
            node = self.nodes[i]
            value = self._value(node, known, leaves)
            found.append((node, value))
            if node.cls in known or isinstance(value, str):
                continue
            known[node.cls] = value
            for user in users.get(node.cls, ()):
                missing[user] -= 1
                if not missing[user]:
                    heapq.heappush(ready, (self.nodes[user].index, user))
        self.known.append(known)
        self.by_node.append({n.index: v for n, v in found})
        return found

    def _value(
        self, node: ENode, known: Mapping[int, np.ndarray], leaves: Mapping[str, np.ndarray]
    ) -> Any:
        if node.op is None:
            name = self.names[node.index]
            if name not in leaves:
                raise SafeGraphError(f"no array was given for the leaf {name}: {node.type}")
            value: Any = leaves[name]
        elif isinstance(node.op, Opaque):
            rng = np.random.default_rng((self.seed, node.index))
            value = random_array(rng, node.type, self.sizes)
        else:
            try:
                with np.errstate(all="ignore"):
                    value = np.asarray(
                        node.op.bind(self.sizes).run(*(known[o] for o in node.operands))
                    )
            except Exception as error:  # whatever an op does on operands that a law gave it
                return f"it cannot be run: {type(error).__name__}: {error}"
        if value.shape != self.shapes[node.index] or value.dtype != to_numpy(node.type.dtype):
            return (
                f"its value is {from_numpy(value.dtype)}{list(value.shape)}, its type {node.type}"
            )
        return value

    def violation(self, node: ENode, reference: ENode, what: str) -> Violation:
        law, round_ = self._blame(node)
        term = f"{self._text(node)}\n  is not {self._text(reference)}"
        return Violation(node, law, round_, reference, what, term)

    def _blame(self, node: ENode) -> tuple[str, int]:
        """The law that made the e-node, or, if the graph had it, first joined it or its class."""
        born = self.egraph.born(node.index)
        if born[0] != "given":
            return born
        unions = self.egraph.unions()
        own = [by for pair, by in unions.items() if node.index in pair]
        inside = [by for (a, _), by in unions.items() if self.cls[a] == node.cls]
        return (own or inside or [born])[0]

    def _text(self, node: ENode) -> str:
        if node.op is None:
            return f"leaf {self.names[node.index]}: {node.type}"
        operands = ", ".join(f"{o}: {self.egraph.type_of(o)}" for o in node.operands)
        return f"e-node {node.index} = {node.op!r} on classes ({operands}): {node.type}"


def _numel(shape: Sequence[int]) -> int:
    return int(np.prod(shape, dtype=np.int64))


# -- a graph and laws -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Soundness:
    """What the check of a graph under laws found."""

    violations: tuple[Violation, ...]
    report: Report
    """What was explored."""

    def __bool__(self) -> bool:
        return not self.violations

    def __str__(self) -> str:
        if self:
            return f"sound: every e-class has one value ({self.report})"
        lines = [f"unsound: {len(self.violations)} e-nodes differ from their class ({self.report})"]
        return "\n".join([*lines, *map(str, self.violations[:3])])


def sound(
    graph: SafeDAG | Sample | Iterable[Value],
    laws: Sequence[Law],
    *,
    sizes: Sizes | None = None,
    budget: Budget = _SMALL,
    rtol: float | None = None,
    most_bytes: int = MOST_BYTES,
    seed: int = 0,
) -> Soundness:
    """Run a graph under laws within a budget, and check that every e-class has one value.

    Leaves without data get random arrays; free sizes without a value are taken as 2.
    """
    rng = np.random.default_rng(seed)
    sample = _sample(graph, sizes or {}, rng)
    egraph = EGraph()
    data = {n: a for n, a in sample.leaves.items() if n in sample.constants}
    egraph.add(
        sample.outputs,
        constants=sample.constants,
        numbers=sample.numbers,
        ranges=lambda name: of_array(data[name]) if name in data else None,
    )
    report = egraph.run(laws, budget)
    found = check_egraph(
        egraph, sample.leaves, sample.sizes, rtol=rtol, most_bytes=most_bytes, seed=seed
    )
    return Soundness(tuple(found), report)


def _sample(
    graph: SafeDAG | Sample | Iterable[Value], sizes: Sizes, rng: np.random.Generator
) -> Sample:
    if isinstance(graph, Sample):
        return graph
    constants: frozenset[str] = frozenset()
    data: dict[str, np.ndarray] = {}
    if isinstance(graph, SafeDAG):
        constants = frozenset(t.name for t in graph.kind("parameter", "buffer", "const"))
        data = {t.name: t.array() for t in graph.tensors.values() if t.data is not None}
        free: Iterable[str] = graph.sizes
        terms = graph.to_values()
        outputs = tuple(terms[v] for v in graph.outputs.values())
    else:
        outputs = tuple(graph)
        free = {n for v in walk(outputs) for d in v.shape for n in getattr(d, "names", ())}
    values = dict.fromkeys(free, 2) | dict(sizes)
    leaves = {v.name: v.type for v in walk(outputs) if v.op is None}
    arrays = {n: data[n] if n in data else random_array(rng, t, values) for n, t in leaves.items()}
    return Sample(outputs, arrays, constants, {}, values)


# -- one law --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Counterexample:
    """A case in which the sides of a law differ, with all that it takes to see it again."""

    case: Case
    law: Law
    sizes: Sizes
    """Values of the free sizes."""
    operands: Mapping[str, np.ndarray]
    what: str
    """How the sides differ."""
    index: tuple[int, ...] | None = None
    """The first element that differs; None where a side has another type or cannot be run."""
    values: tuple[Any, Any] | None = None
    """That element on the left and on the right."""

    @property
    def specs(self) -> dict[str, Op]:
        """The ops that the op variables of the law stood for."""
        return {v.name: self.case.scope[v.name] for v in self.law.specs}

    @property
    def magnitude(self) -> int:
        """Elements of all operands: the smaller, the easier to follow."""
        return sum(a.size for a in self.operands.values())

    def __str__(self) -> str:
        bound = f" for {dict(self.sizes)}" if self.sizes else ""
        lines = [f"{self.what}{bound}"]
        if self.values is not None:
            left, right = self.values
            lines.append(f"at {list(self.index or ())}: left {left}, right {right}")
        for name, array in self.operands.items():
            shown = f" = {array.tolist()}" if array.size <= _SHOWN else ""
            lines.append(f"{name}: {self.case.scope[name].type}{shown}")
        lines += [f"{name}: {op!r}" for name, op in self.specs.items()]
        lines += [f"left  {term_text(self.case.left)}", f"right {term_text(self.case.right)}"]
        return "\n".join(f"  {line}" for line in lines)


@dataclass
class LawReport:
    """How a law did on random cases."""

    law: Law
    fired: int = 0
    """In how many cases the law applied."""
    unsound: int = 0
    """In how many of these its sides differ."""
    counterexample: Counterexample | None = field(default=None, repr=False)
    """The one with the smallest operands of those that were found."""

    def __bool__(self) -> bool:
        return self.fired > 0 and not self.unsound

    def __str__(self) -> str:
        if not self.fired:
            return f"{self.law.name}: never fired"
        if not self.unsound:
            return f"{self.law.name}: both sides equal in {self.fired} cases"
        found = f"{self.law.name}: unsound in {self.unsound} of {self.fired} cases"
        return f"{found}\n{self.counterexample}"


def check_law(law: Law, *, count: int = 20, tries: int | None = None, seed: int = 0) -> LawReport:
    """Compare both sides of a law on up to `count` random terms on which it fires.

    A law of grade "exact" must give the same bits (but signed zeros), others the same numbers up to
    rounding.  True if it fired and no case was unsound; else the report has a counterexample.
    """
    rng = np.random.default_rng(seed)
    report = LawReport(law)
    for case in cases(law, rng, count, tries=tries):
        report.fired += 1
        for sizes in case.sizes:
            found = counterexample(case, law, sizes, rng)
            if found is not None:
                report.unsound += 1
                known = report.counterexample
                if known is None or found.magnitude < known.magnitude:
                    report.counterexample = found
                break
    return report


def counterexample(
    case: Case, law: Law, sizes: Sizes, rng: np.random.Generator
) -> Counterexample | None:
    """How the sides of a law differ in a case, on random operands; None where they do not."""
    arrays = case.arrays(rng, law, sizes)
    try:
        left = run_value(case.left, arrays, sizes)
    except (SafeGraphError, ValueError, IndexError):
        # no such term: a slice or an index past the end of these sizes, an integer's negative power
        return None
    try:
        right = run_value(case.right, arrays, sizes)
    except Exception as error:  # whatever an op does on operands that the law gave it
        kind = "" if isinstance(error, SafeGraphError) else f"{type(error).__name__}: "
        what = f"the right side cannot be run: {kind}{error}"
        return Counterexample(case, law, sizes, arrays, what)
    if right.shape != left.shape or right.dtype != left.dtype:
        types = [f"{from_numpy(side.dtype)}{list(side.shape)}" for side in (left, right)]
        what = f"the left side is {types[0]}, the right side {types[1]}"
        return Counterexample(case, law, sizes, arrays, what)
    where = np.asarray(True)
    if any(is_float(from_numpy(a.dtype)) and not np.isfinite(a).all() for a in arrays.values()):
        # a law may replace NaN, which infinite operands make, but never make one
        where = ~np.isnan(left)
        left, right = (_bounded(side) for side in (left, right))
    rtol = 0.0 if law.grade == "exact" else RTOL.get(from_numpy(left.dtype), 0.0)
    if not (where & _wrong(right, left, None, rtol)).any():
        return None
    slack = None
    if law.grade != "exact":
        moved = shaken(rng, arrays)
        slacks = [
            undetermined(a, run_value(v, moved, sizes))
            for v, a in ((case.left, left), (case.right, right))
        ]
        slack = None if slacks[0] is None or slacks[1] is None else slacks[0] + slacks[1]
    wrong = where & _wrong(right, left, slack, rtol)
    if not wrong.any():
        return None
    at = tuple(int(i) for i in np.argwhere(wrong)[0])
    what = f"{int(wrong.sum())} of {wrong.size} elements differ"
    return Counterexample(case, law, sizes, arrays, what, at, (left[at].item(), right[at].item()))


def _bounded(a: np.ndarray) -> np.ndarray:
    """The array with infinity for numbers so large that rounding may have made them of it."""
    most = _AS_INFINITE.get(from_numpy(a.dtype))
    if most is None:
        return a
    return np.where(np.abs(a) > most, np.copysign(a.dtype.type(np.inf), a), a)


def run_value(value: Value, leaves: Mapping[str, np.ndarray], sizes: Sizes) -> np.ndarray:
    """The array of a term; ShapeError where its ops do not fit these sizes."""
    done: dict[Value, Any] = {}
    for v in walk([value]):
        if v.op is None:
            if v.name not in leaves:
                raise SafeGraphError(f"{v.name} has no array: {', '.join(leaves) or 'none'} have")
            done[v] = leaves[v.name]
            continue
        op: Op = v.op.bind(sizes)
        op.type(*(o.type.bind(sizes) for o in v.operands))
        with np.errstate(all="ignore"):
            # NumPy's pow rounds otherwise where memory is strided: every value gets its own
            done[v] = np.asarray(op.run(*(done[o] for o in v.operands)), order="C")
    return done[value]


def term_text(value: Value) -> str:
    """A term with its specs, in one line."""
    texts: dict[Value, str] = {}
    for v in walk([value]):
        inner = ", ".join(texts[o] for o in v.operands)
        texts[v] = v.name if v.op is None else f"{v.op!r}({inner})"
    return texts[value] if len(texts[value]) < 2000 else f"{texts[value][:2000]}..."


__all__ = [
    "MOST_BYTES",
    "RTOL",
    "Counterexample",
    "LawReport",
    "Soundness",
    "Violation",
    "check_egraph",
    "check_law",
    "counterexample",
    "difference",
    "run_value",
    "sound",
]
