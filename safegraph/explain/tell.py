"""Explains an optimized graph: the rewriting that leads to it, told in few steps.

Laws that do not touch each other's nodes may be used in any order.  So each is told as early as
what it needs, and those of one kind together: twelve equal layers are rewritten at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from safegraph import dims
from safegraph.dag import Node, SafeDAG, fresh_names
from safegraph.egraph import EGraph
from safegraph.explain.congruence import Congruence
from safegraph.explain.explanation import Explanation, Place, Rewrite
from safegraph.explain.rewriting import MOST_REWRITES, Event, Rewriting
from safegraph.op import Op, TensorType
from safegraph.text import write_node

OPENED = "ops that the target lacks, opened"
ONCE = "equal values once, and nothing that does nothing"
AHEAD = "computed ahead"


def explain(
    egraph: EGraph,
    roots: Sequence[int],
    chosen: Sequence[int],
    named: Mapping[str, int],
    original: SafeDAG,
    optimized: SafeDAG,
    sizes: Mapping[str, int],
    *,
    limit: int = MOST_REWRITES,
) -> Explanation:
    """How the e-nodes `roots`, which are the outputs of a graph, become the chosen ones.

    `chosen` has one e-node for each class that is needed, operands first; `named` the e-nodes of
    the original's values by name; `sizes` values for free sizes, to count flops.  In `optimized`,
    what depends on no input may be computed.  After `limit` laws, steps name several at once.
    """
    rewriting = Rewriting(Congruence(egraph), roots, limit)
    rewriting.finish(chosen)
    names = {
        rewriting.given[e]: name
        for name, e in reversed(list(named.items()))
        if e in rewriting.given
    }
    with dims.assuming():  # what the graph assumes, its ops assume again
        story = _Story(rewriting, names, original, sizes)
        values = {
            name: story.now.names[rewriting.given[enode]]
            for name, enode in named.items()
            if enode in rewriting.given
        }
        told = [story.opening(values), *map(story.step, _steps(rewriting.events))]
        told.append(story.ending(optimized))
        return Explanation(original, tuple(s for s in told if s is not None), story.flops(original))


def _steps(events: Iterable[Event]) -> list[list[Event]]:
    """Events as early as what they need, those of one law together."""
    made: dict[int, int] = {}
    written: dict[int, int] = {}
    touched: dict[int, int] = {}
    steps: dict[tuple[int, str, tuple[str, ...]], list[Event]] = {}
    for event in events:
        writes = {w.node for w in event.writes}
        reads = {*event.before, *event.read, *writes}
        earlier = [written.get(n, 0) for n in reads]
        earlier += [touched.get(n, 0) for n in writes]
        earlier += [made.get(n, 0) for w in event.writes for n in w.operands]
        level = 1 + max(earlier)
        for n in writes:
            written[n] = level
            made.setdefault(n, level)
        for n in reads:
            touched[n] = max(level, touched.get(n, 0))
        steps.setdefault((level, event.name, event.laws), []).append(event)
    return [steps[key] for key in sorted(steps, key=lambda key: key[0])]  # stable


@dataclass(frozen=True)
class _View:
    """A state of the rewriting as a graph: equal terms are one node."""

    nodes: dict[str, Node]
    types: dict[str, TensorType]
    outputs: tuple[str, ...]
    names: dict[int, str]
    flops: int

    def pick(self, names: Iterable[str]) -> tuple[Node, ...]:
        """The nodes of these names, operands first."""
        found = (name for name in names if name in self.nodes)
        return tuple(self.nodes[name] for name in sorted(found, key=self.place.__getitem__))

    @cached_property
    def place(self) -> dict[str, int]:
        """Where each node stands."""
        return {name: i for i, name in enumerate(self.nodes)}


class _Story:
    """The states of a rewriting, one after the other."""

    def __init__(
        self, rewriting: Rewriting, names: Mapping[int, str], dag: SafeDAG, sizes: Mapping[str, int]
    ) -> None:
        self.rewriting, self.dag = rewriting, dag
        self._names = dict(names)
        self._fresh = fresh_names({*dag.tensors, *dag.nodes, *dag.outputs})
        self._sizes = sizes
        self._typed: dict[tuple[int, ...], tuple[TensorType, int]] = {}
        self._forms = {w.node: w for w in rewriting.first}
        self._nodes: dict[tuple[Any, ...], Node] = {}
        self.now = self._view()

    # -- steps ------------------------------------------------------------------------------------

    def opening(self, values: Mapping[str, str]) -> Rewrite | None:
        """From the original to the graph that laws rewrite; `values` are its values by name."""
        now, places, law = self.now, [], ONCE
        for node in self.dag:
            name = values.get(node.name)
            if name is None or now.nodes.get(name) == node:
                continue
            if name == node.name and now.nodes[name].op is not node.op:
                law = OPENED
            inside = self._inside(name) if name == node.name else ()
            places.append(self._placed(node.name, (node,), inside, name, self.dag.types))
        if not places:
            return None
        grade = "real" if law is OPENED else "exact"
        return Rewrite(law, grade, tuple(places), now.flops, self._graph(now))

    def _inside(self, name: str) -> tuple[Node, ...]:
        """The nodes that compute a value from those of the original."""
        found: set[str] = set()
        stack = [name]
        while stack:
            top = stack.pop()
            if top in self.now.nodes and top not in found:
                found.add(top)
                stack += (i for i in self.now.nodes[top].inputs if i not in self.dag.types)
        return self.now.pick(found)

    def step(self, events: Sequence[Event]) -> Rewrite | None:
        """The next state, and how it came to be; None where no output depends on the change."""
        before = self.now
        found = [(self._known(e.node), {self._known(n) for n in e.before}) for e in events]
        for event in events:
            for write in event.writes:
                self._forms[write.node] = write
        for event in events:
            for node in event.after:
                self._name(node)
        self.now = self._view()
        if (self.now.nodes, self.now.outputs) == (before.nodes, before.outputs):
            return None
        places = []
        for event, (name, names) in zip(events, found, strict=True):
            result = self._result(event.node)
            if name is not None and result is not None:
                places.append(self._place(event, name, {n for n in names if n}, result, before))
        places = places or [self._difference(before)]
        first = events[0]
        several = first.laws if len(first.laws) > 1 else ()
        graph = self._graph(self.now)
        return Rewrite(first.name, first.grade, tuple(places), self.now.flops, graph, several)

    def _difference(self, before: _View) -> Place:
        """All that changed, where none of it can be told to be the law's."""
        now = self.now.nodes
        gone = tuple(n for n in before.nodes.values() if now.get(n.name) is not n)
        come = tuple(n for n in now.values() if before.nodes.get(n.name) is not n)
        name = (come or gone)[-1].name if come or gone else self.now.outputs[0]
        return self._placed(name, gone, come, name, before.types)

    def _result(self, node: int) -> str | None:
        """The name of what a node is now, or of an equal term that is used instead."""
        form = self._forms[self._end(node)]
        inputs = [self.now.names.get(self._end(o)) for o in form.operands]
        alike = (
            n.name for n in self.now.nodes.values() if n.op is form.op and [*n.inputs] == inputs
        )
        return self.now.names.get(self._end(node)) or next(alike, None)

    def _place(self, event: Event, name: str, old: set[str], result: str, before: _View) -> Place:
        after = self.now
        new = {after.names.get(self._end(n), "") for n in event.after}
        for write in event.writes:  # users of what has another name now
            user = after.names.get(write.node, "")
            if user in before.nodes and before.nodes[user] is not after.nodes.get(user):
                old.add(user)
                new.add(user)
        return self._placed(name, before.pick(old), after.pick(new), result, before.types)

    def _placed(
        self,
        name: str,
        before: tuple[Node, ...],
        after: tuple[Node, ...],
        result: str,
        types: Mapping[str, TensorType],
    ) -> Place:
        lines = (
            tuple(write_node(n, types) for n in before),
            tuple(write_node(n, self.now.types) for n in after),
        )
        return Place(name, before, after, result, lines)

    def ending(self, optimized: SafeDAG) -> Rewrite | None:
        """The last step: what depends on no input is computed, if it is."""
        made = [t for t in optimized.tensors.values() if t.name not in self.dag.tensors]
        if not made:
            return None
        now = self.now
        kept = set(optimized.to_values().values())
        values = self._graph(now)().to_values()
        known = {t.name for t in self.dag.tensors.values() if t.kind != "input"}
        gone = []
        for node in now.nodes.values():
            if all(i in known for i in node.inputs):
                known.add(node.name)
                if values[node.name] not in kept:
                    gone.append(node)
        lines = (
            tuple(write_node(n, now.types) for n in gone),
            tuple(f"{t.kind} {t.name}: {t.type}" for t in made),
        )
        result = ", ".join(t.name for t in made)
        place = Place(gone[-1].name, tuple(gone), (), result, lines)
        return Rewrite(AHEAD, "real", (place,), self.flops(optimized), lambda: optimized)

    # -- states -----------------------------------------------------------------------------------

    def _end(self, node: int) -> int:
        """The node that this is another name for."""
        forms = self._forms
        while forms[node].op is None and forms[node].operands:
            (node,) = forms[node].operands
        return node

    def _known(self, node: int) -> str | None:
        """The name that a node has now, or its original, if it is a copy still to come.

        None where no output needs it, because what needed it got another form.
        """
        while node not in self._forms:
            node = self.rewriting.copied[node]
        return self.now.names.get(self._end(node))

    def _name(self, node: int) -> str:
        if node not in self._names:
            self._names[node] = next(self._fresh)
        return self._names[node]

    def _type(self, op: Op, operands: Sequence[TensorType]) -> tuple[TensorType, int]:
        """The type of a result, and the flops; worked out once for equal ops."""
        key = (op.id, *(t.id for t in operands))
        if key not in self._typed:
            flops = dims.evaluate(op.work(*operands).flops, self._sizes)
            self._typed[key] = op.type(*operands), flops
        return self._typed[key]

    def flops(self, dag: SafeDAG) -> int:
        """Those of a graph."""
        return sum(self._type(n.op, [dag.types[i] for i in n.inputs])[1] for n in dag)

    def _view(self) -> _View:
        """The state as it is now."""
        forms, end = self._forms, self._end
        first: dict[tuple[int, ...], int] = {}  # one node of each term
        whole: dict[int, int] = {}
        oldest: dict[int, int] = {}  # of each term: it gives the name
        stack = [end(o) for o in reversed(self.rewriting.outputs)]
        while stack:
            node = stack[-1]
            operands = [end(o) for o in forms[node].operands]
            missing = [o for o in operands if o not in whole]
            if node not in whole and missing:
                stack += reversed(missing)
                continue
            stack.pop()
            if node not in whole:
                op = forms[node].op
                key = (-1, node) if op is None else (op.id, *(whole[o] for o in operands))
                one = whole[node] = first.setdefault(key, node)
                oldest[one] = min(node, oldest.get(one, node))
        names = {node: self._name(oldest[one]) for node, one in whole.items()}
        nodes: dict[str, Node] = {}
        types: dict[str, TensorType] = {}
        flops = 0
        for node, one in whole.items():
            op, name = forms[node].op, names[node]
            if node != one:
                continue
            if op is None:
                types[name] = self.dag.tensors[name].type
                continue
            inputs = tuple(names[end(o)] for o in forms[node].operands)
            types[name], own = self._type(op, [types[i] for i in inputs])
            flops += own
            # one object for equal nodes: views are many, and compared
            node_ = self._nodes.setdefault((name, op.id, inputs), Node(name, op, inputs))
            nodes[name] = node_
        outputs = tuple(names[end(o)] for o in self.rewriting.outputs)
        return _View(nodes, types, outputs, names, flops)

    def _graph(self, view: _View) -> Callable[[], SafeDAG]:
        dag, nodes = self.dag, tuple(view.nodes.values())

        def build() -> SafeDAG:
            outputs = dict(zip(dag.outputs, view.outputs, strict=True))
            with dims.assuming():
                whole = SafeDAG(list(dag.tensors.values()), nodes, outputs, name=dag.name)
            return whole.prune()

        return build


__all__ = ["AHEAD", "ONCE", "OPENED", "explain"]
