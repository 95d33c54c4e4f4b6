"""From a graph to the cheapest equal graph that was found for a target, and back to a graph."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

import numpy as np

from safegraph import dims
from safegraph.dag import SafeDAG, Tensor
from safegraph.derived.base import evaluate
from safegraph.dims import names
from safegraph.dtypes import from_numpy
from safegraph.egraph import Budget, EGraph, ENode, Report
from safegraph.explain.explanation import Explanation
from safegraph.explain.tell import explain as explained
from safegraph.extract.cost import DEFAULT_SIZE
from safegraph.extract.search import Choices, ExtractionError, extract, total
from safegraph.extract.targets import Target
from safegraph.extract.targets import target as find_target
from safegraph.op import Op, TensorType
from safegraph.ops import Iota, Scalar
from safegraph.ranges import Range, of_array
from safegraph.rules import LOWERING, REFINING, Phase, chains
from safegraph.value import Value, apply, tensor, walk

DEFAULT_BUDGET = Budget(nodes=100_000, seconds=20.0)
_AHEAD = 1e-9  # of its cost, for what is computed ahead of time: not nothing, so the smaller wins
_MOVEMENT = 1 / 8  # of an op that computes
_SMALL = 64  # tensors of so many elements are read to see whether they are one number


@dataclass(frozen=True)
class Step:
    """Where an op of the optimized graph comes from: the law that made its e-node, and when."""

    node: str
    law: str
    round: int

    def __str__(self) -> str:
        return f"{self.node}: {self.law} (round {self.round})"


@dataclass(frozen=True)
class Optimized:
    """The result of an optimization."""

    dag: SafeDAG
    """The optimized graph."""
    original: SafeDAG
    target: str
    sizes: Mapping[str, int]
    """The values that the free sizes were given for comparing costs."""
    before: float
    """Predicted seconds of the original as it is written, nothing computed ahead; an op that the
    target lacks costs what its definition does."""
    after: float
    """Predicted seconds of the result."""
    report: Report
    """What was explored."""
    seconds: float
    """How long it took."""
    steps: tuple[Step, ...] = field(repr=False, default=())
    """The ops of the result that laws made."""
    explanation: Explanation | None = field(repr=False, default=None)
    """From the original to the result, law by law, if that was asked for."""

    @property
    def laws(self) -> list[str]:
        """The laws behind the result, in order of first use."""
        return list(dict.fromkeys(s.law for s in sorted(self.steps, key=lambda s: s.round)))


def optimize(
    dag: SafeDAG,
    target: str | Target = "onnxruntime",
    sizes: Mapping[str, int] | None = None,
    *,
    nodes: int | None = None,
    seconds: float | None = None,
    phases: Sequence[Phase] = (*REFINING, *LOWERING),
    explain: bool = False,
) -> Optimized:
    """The cheapest equal graph that was found within a budget of e-nodes and seconds.

    Parameters, buffers and consts are taken as known: what depends on no input is computed ahead.
    Free sizes without a value are taken as 16 for comparing costs; they stay free in the result.
    With `explain`, the result has the sequence of laws that leads to it, each with its graph.
    Raises ExtractionError naming the ops that the target lacks and nothing replaces.
    """
    started = time.perf_counter()
    goal = find_target(target)
    budget = Budget(
        nodes or DEFAULT_BUDGET.nodes, DEFAULT_BUDGET.seconds if seconds is None else seconds
    )
    values = dict.fromkeys(dag.sizes, DEFAULT_SIZE) | dict(sizes or {})
    dag.bind(dict(sizes or {}))  # refuses unknown names and values that break an assumption

    # Where the target lacks an op, the definition is what would be written and run.
    all_there = all(goal.has(n.op) for n in dag)
    runnable = dag if all_there else dag.expand(keep=goal.has)
    terms = dag.to_values() if all_there else dag.expanded(keep=goal.has)
    outputs = {o: terms[v] for o, v in dag.outputs.items()}
    constants = [t.name for t in dag.kind("parameter", "buffer", "const")]
    egraph = EGraph()
    roots = egraph.add(
        outputs.values(),
        constants=constants,
        numbers=_numbers(dag),
        ranges=lambda name: _range(dag.tensors[name]),
    )
    given = len(egraph)
    report = explore(egraph, phases, budget, [values])
    program = _Program(egraph, goal, values, given, list(outputs), roots)
    left = max(1.0, budget.seconds - (time.perf_counter() - started))
    chosen = program.choose(left)
    with dims.assuming():  # what the graph assumes, its ops assume again
        found, made = program.graph(dag, chosen)
    after = program.cost(chosen)
    told = None
    if explain:
        index = egraph.index_of(terms.values())
        named = {name: index[value] for name, value in terms.items() if value in index}
        order = [program.nodes[chosen[c]].index for c in program.order(chosen)]
        told = explained(egraph, roots, order, named, dag, found, values)
    return Optimized(
        found,
        dag,
        goal.name,
        values,
        predicted(runnable, goal, values),
        after,
        report,
        time.perf_counter() - started,
        made,
        told,
    )


def refine(dag: SafeDAG, *, nodes: int | None = None, seconds: float | None = None) -> SafeDAG:
    """An equal graph in which structure is recognised: that with the fewest ops that was found."""
    fewest = _Structure("structure", inf, inf, inf, inf, 1.0, ops=_Everything(), views=frozenset())
    return optimize(dag, fewest, nodes=nodes, seconds=seconds, phases=REFINING).dag


class _Everything(dict[str, float]):
    """Has every op."""

    def __contains__(self, key: object) -> bool:
        return True

    def __getitem__(self, key: str) -> float:
        return 0.0


class _Structure(Target):
    """Counts ops; what only moves elements counts little, as it may stand around a named op."""

    def seconds(
        self, op: Op, operands: tuple[TensorType, ...], result: TensorType, sizes: Mapping[str, int]
    ) -> float:
        return 0.0 if isinstance(op, Scalar) else _MOVEMENT if op.moves else self.launch


def explore(
    egraph: EGraph, phases: Sequence[Phase], budget: Budget, bindings: Sequence[Mapping[str, int]]
) -> Report:
    """Run the phases within the budget; chains of contractions are reordered before the last."""
    whole = Report()
    started = time.perf_counter()
    reordered = False
    for phase in phases:
        if phase.name == "lower" and not reordered:
            reordered = True
            if chains.reorder(egraph, bindings):
                _add(whole, egraph.run(phase.laws and _derive(phases), _left(budget, started)))
        part = egraph.run(phase.laws, _left(budget, started), rounds=phase.rounds)
        _add(whole, part)
    whole.nodes = len(egraph)
    whole.seconds = time.perf_counter() - started
    return whole


def _derive(phases: Sequence[Phase]) -> tuple[Any, ...]:
    return next((p.laws for p in phases if p.name == "derive"), ())


def _left(budget: Budget, started: float) -> Budget:
    return Budget(budget.nodes, max(0.0, budget.seconds - (time.perf_counter() - started)))


def _add(whole: Report, part: Report) -> None:
    whole.rounds += part.rounds
    whole.matches += part.matches
    if part.stopped.startswith("the "):
        whole.stopped = part.stopped


def _numbers(dag: SafeDAG) -> dict[str, Any]:
    """The value of small constant tensors whose elements are all equal."""
    found = {}
    for t in dag.kind("parameter", "buffer", "const"):
        numel = t.type.numel
        if isinstance(numel, int) and 0 < numel <= _SMALL and t.data is not None:
            array = t.array()
            if (array == array.flat[0]).all():
                found[t.name] = array.flat[0].item()
    return found


def _range(t: Tensor) -> Range | None:
    """Between which numbers the data of a tensor is; None where nothing is known."""
    return None if t.data is None else of_array(t.array())


class _Program:
    """An e-graph as the choices of an extraction, for a target and sizes."""

    def __init__(
        self,
        egraph: EGraph,
        goal: Target,
        sizes: Mapping[str, int],
        given: int,
        outputs: Sequence[str],
        roots: Sequence[int],
    ) -> None:
        self.egraph, self.goal = egraph, goal
        self.outputs = list(outputs)
        self.nodes = egraph.enodes()
        dense: dict[int, int] = {}
        for node in self.nodes:
            dense.setdefault(node.cls, len(dense))
        self.dense = dense
        canon = egraph.classes()
        self.roots = [dense[canon[r]] for r in roots]
        self.ahead = _ahead(self.nodes, egraph.constants)
        seconds: dict[tuple[Any, ...], float] = {}
        costs = []
        for node in self.nodes:
            types = tuple(egraph.type_of(o) for o in node.operands)
            key = (node.op, types)
            if key not in seconds:
                seconds[key] = (
                    0.0 if node.op is None else goal.seconds(node.op, types, node.type, sizes)
                )
            cost = seconds[key]
            if node.index in self.ahead:
                # NumPy computes it, whatever the target has
                nbytes = float(dims.evaluate(node.type.nbytes, sizes))
                ahead = _AHEAD * ((cost if cost < inf else 1e-3) + nbytes / goal.bytes)
                cost = min(cost, ahead)
            costs.append(cost)
        self.choices = Choices(
            [dense[n.cls] for n in self.nodes],
            [tuple(dense[o] for o in n.operands) for n in self.nodes],
            costs,
        )
        self.given: dict[int, int] = {}
        for i, node in enumerate(self.nodes):
            if node.index < given:
                self.given.setdefault(dense[node.cls], i)

    def choose(self, seconds: float) -> Mapping[int, int]:
        """A cheap selection; never dearer than the given one."""
        try:
            return extract(self.choices, self.roots, self._acyclic_given(), seconds=seconds)
        except ExtractionError as error:
            possible = {
                c for c, cost in zip(self.choices.of, self.choices.cost, strict=True) if cost < inf
            }
            given = (self.nodes[i] for cls, i in self.given.items() if cls not in possible)
            lacking = {node.op.name for node in given if node.op is not None}
            if not lacking:
                raise
            raise ExtractionError(
                f"{self.goal.name} has no op {', '.join(sorted(lacking))}, and neither a "
                "definition nor a law replaces it; choose another target, or give this one the op",
                error.classes,
            ) from error

    def _acyclic_given(self) -> Mapping[int, int] | None:
        """The original program, where the target can run it and laws have not made it cyclic."""
        return self.given if self.cost(self.given) < inf else None

    def cost(self, chosen: Mapping[int, int]) -> float:
        """Predicted seconds; inf where the target lacks an op."""
        try:
            return total(self.choices, self.roots, chosen)
        except (KeyError, ValueError):
            return inf

    def order(self, chosen: Mapping[int, int]) -> list[int]:
        """The classes that a selection needs, operands first."""
        return _order(self.choices, self.roots, chosen)

    def graph(self, dag: SafeDAG, chosen: Mapping[int, int]) -> tuple[SafeDAG, tuple[Step, ...]]:
        """The selection as a graph: what is known ahead computed, names kept where values are."""
        leaves = self.egraph.leaves
        values: dict[int, Value] = {}
        ahead: dict[Value, bool] = {}
        origin: dict[Value, ENode] = {}
        for cls in self.order(chosen):
            node = self.nodes[chosen[cls]]
            if node.op is None:
                values[cls] = tensor(leaves[node.index], node.type)
            else:
                values[cls] = apply(
                    node.op, *(values[o] for o in self.choices.operands[chosen[cls]])
                )
            ahead[values[cls]] = node.index in self.ahead
            origin.setdefault(values[cls], node)
        outputs = {o: values[r] for o, r in zip(self.outputs, self.roots, strict=True)}
        folded = _fold(dag, outputs, ahead)
        tensors = [t for t in dag.tensors.values() if t.kind == "input"]
        used = {v.name for v in walk(folded.outputs.values()) if v.op is None}
        tensors += [t for t in dag.tensors.values() if t.kind != "input" and t.name in used]
        result = SafeDAG.from_values(folded.outputs, [*tensors, *folded.tensors], name=dag.name)
        return result, _steps(result, folded.source, origin, self.egraph)


@dataclass(frozen=True)
class _Folded:
    outputs: dict[str, Value]
    tensors: list[Tensor]
    source: dict[Value, Value]  # of each value, the one before folding


def _ahead(nodes: Sequence[ENode], constants: Iterable[int]) -> set[int]:
    """The e-nodes that can be computed ahead: all operands can, and no size is free."""
    known = set(constants)
    ready: set[int] = set()  # classes
    users: dict[int, list[ENode]] = {}
    found: set[int] = set()
    queue: list[ENode] = []

    def free(node: ENode) -> bool:
        spec = () if node.op is None else tuple(node.op.spec.values())
        return bool(names(node.type.shape) or names(spec))

    missing: dict[int, int] = {}
    for node in nodes:
        if free(node):
            continue
        if node.op is None:
            if node.index in known:
                queue.append(node)
            continue
        operands = set(node.operands)
        missing[node.index] = len(operands)
        for o in operands:
            users.setdefault(o, []).append(node)
        if not operands:
            queue.append(node)
    while queue:
        node = queue.pop()
        found.add(node.index)
        if node.cls in ready:
            continue
        ready.add(node.cls)
        for user in users.get(node.cls, ()):
            missing[user.index] -= 1
            if not missing[user.index]:
                queue.append(user)
    return found


def _order(choices: Choices, roots: Sequence[int], chosen: Mapping[int, int]) -> list[int]:
    """The classes that the roots need, operands first."""
    order: list[int] = []
    seen: set[int] = set()
    stack = [(r, False) for r in reversed(roots)]
    while stack:
        cls, ready = stack.pop()
        if ready:
            order.append(cls)
        elif cls not in seen:
            seen.add(cls)
            stack.append((cls, True))
            stack += [(o, False) for o in reversed(choices.operands[chosen[cls]]) if o not in seen]
    return order


def _fold(dag: SafeDAG, outputs: Mapping[str, Value], ahead: Mapping[Value, bool]) -> _Folded:
    """Values that can be computed ahead, computed: they become tensors."""
    order = walk(outputs.values())
    # A graph may come without the data of its weights: what they make stays to be computed.
    known: dict[Value, bool] = {}
    for v in order:
        leaf = dag.tensors.get(v.name) if v.op is None else None
        known[v] = all(known[o] for o in v.operands) and (leaf is None or leaf.data is not None)
    ahead = {v: ahead[v] and known[v] for v in order}
    # A number or a range alone stays an op: it is its own shortest form.
    plain = {v for v in order if v.op is None or isinstance(v.op, Scalar | Iota)}
    needed = {o for v in order if not ahead[v] for o in v.operands} | set(outputs.values())
    wanted = [v for v in order if ahead[v] and v in needed and v not in plain]
    arrays = {v: dag.tensors[v.name].array() for v in walk(wanted) if v.op is None}
    results = dict(zip(wanted, evaluate(wanted, arrays), strict=True)) if wanted else {}
    tensors: list[Tensor] = []
    new: dict[Value, Value] = {}
    source: dict[Value, Value] = {}
    taken = set(dag.tensors) | set(dag.nodes) | set(dag.outputs)
    for v in order:
        if v in results:
            array = np.asarray(results[v], order="C")  # ascontiguousarray makes rank 0 to rank 1
            name = _fresh(v, dag, taken)
            type_ = TensorType(from_numpy(array.dtype), tuple(map(int, array.shape)))
            tensors.append(Tensor(name, _kind(v, dag), type_, array))
            new[v] = tensor(name, type_)
        elif v.op is None:
            new[v] = v
        elif not ahead[v] or v in needed:
            new[v] = apply(v.op, *(new[o] for o in v.operands))
        else:
            continue
        source.setdefault(new[v], v)
    return _Folded({o: new[v] for o, v in outputs.items()}, tensors, source)


def _sources(value: Value) -> list[str]:
    return [v.name for v in walk([value]) if v.op is None]


def _kind(value: Value, dag: SafeDAG) -> str:
    """The kind of a tensor computed from others: as learnable as the most learnable of them."""
    kinds = {dag.tensors[n].kind for n in _sources(value)}
    return next((k for k in ("parameter", "buffer") if k in kinds), "const")


def _fresh(value: Value, dag: SafeDAG, taken: set[str]) -> str:
    """A name after the tensor of this shape, or the largest, that it is made of: not a scale's."""

    def like(name: str) -> tuple[bool, int]:
        type_ = dag.tensors[name].type
        return type_.shape == value.shape, int(type_.numel)

    base = max(_sources(value), key=like, default="known")
    name, i = f"{base}.folded", 1
    while name in taken:
        i += 1
        name = f"{base}.folded{i}"
    taken.add(name)
    return name


def _steps(
    result: SafeDAG, source: Mapping[Value, Value], origin: Mapping[Value, ENode], egraph: EGraph
) -> tuple[Step, ...]:
    values = result.to_values()
    found = []
    for node in result:
        before = source.get(values[node.name])
        enode = origin.get(before) if before is not None else None
        if enode is None:
            continue
        law, round_ = egraph.born(enode.index)
        if law != "given":
            found.append(Step(node.name, law, round_))
    return tuple(found)


def predicted(dag: SafeDAG, goal: str | Target, sizes: Mapping[str, int]) -> float:
    """Seconds of a graph as it is, by the target's model; inf where the target lacks an op."""
    found = find_target(goal)
    return sum(
        found.seconds(n.op, tuple(dag.types[i] for i in n.inputs), dag.types[n.name], sizes)
        for n in dag
    )


__all__ = [
    "DEFAULT_BUDGET",
    "DEFAULT_SIZE",
    "Optimized",
    "Step",
    "explore",
    "optimize",
    "predicted",
    "refine",
]
