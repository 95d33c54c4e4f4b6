"""The walk that takes a batch away: places of the batch forwards, values for one sample beside.

One step for each op, by its row of `safegraph.rules.batch`.  A derived op whose row leaves the
answer open is opened: its definition is walked in the same way.  What has no batch of its own but
meets one must have equal samples, which is asked backwards, from the value to the constants.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from safegraph import dims
from safegraph.batch.provenance import folded, named_graph, note
from safegraph.dag import Node, SafeDAG, Tensor
from safegraph.derived.base import Derived
from safegraph.derived.shape import Concat, Expand, Index, Reshape
from safegraph.dims import Dim, add_all
from safegraph.errors import SafeGraphError, ShapeError
from safegraph.op import Op, TensorType
from safegraph.ops import Cast, Iota, Opaque, Permute, Repeat, Squeeze, Unsqueeze
from safegraph.ops.sample import Place, Sample, sampled_shape
from safegraph.rules.batch import Counting, Mixed, Pushed, law_name, pull, push
from safegraph.rules.batch_rows import tidy
from safegraph.value import Value, apply, tensor, walk

_COUNTS = (Unsqueeze, Squeeze, Repeat, Expand, Permute, Cast, Reshape, Index)
"""Ops of which a count of the samples stays one."""
_NUMBERS = ("i32", "i64", "u32", "u64", "f32", "f64")
"""Element types in which it stays one however many samples there are: bool has two numbers."""


@dataclass(frozen=True)
class State:
    """A value of the graph: for one sample, and where the batch is in it.

    `places` are several only for a batch of 1 between two axes, and none, though `batched`, where
    such a place was lost; `squeezed` where it was an axis that was dropped.
    """

    value: Value
    type: TensorType
    places: tuple[Place, ...] = ()
    batched: bool = False
    squeezed: bool = False
    joined: Joined | None = field(default=None, compare=False)

    @property
    def place(self) -> Place | None:
        """Where the batch is; None for a batch of 1 that is no axis."""
        return self.places[0] if self.places and self.places[0].whole else None


@dataclass(frozen=True)
class Joined:
    """A concatenation, along an axis at a node, that has no place for the batch; but parts have."""

    parts: tuple[State, ...]
    axis: int
    node: Node
    problem: Mixed


class Unbatching:
    """One walk over a graph, for a batch of this size at these places of the inputs."""

    def __init__(self, dag: SafeDAG, places: Mapping[str, Place], size: Dim) -> None:
        self.dag, self.size = dag, size
        self.names = dims.names(size)
        self.states: dict[str, State] = {}
        self.parents: dict[str, str] = {}
        self.origin: dict[Value, Node] = {}
        self.laws: dict[str, None] = {}
        self.leaves: dict[Value, Tensor] = {}
        self._equal: dict[tuple[Value, Place], Value | None] = {}
        for t in dag.tensors.values():
            place = places.get(t.name)
            if place is None:
                leaf = tensor(t.name, t.type)
                self.states[t.name] = State(leaf, t.type)
                self.leaves[leaf] = t
            else:
                small = t.type.with_shape(sampled_shape(t.type.shape, place))
                leaf = tensor(t.name, small)
                self.states[t.name] = State(leaf, t.type, (place,), True)
                self.leaves[leaf] = replace(t, type=small)

    def run(self) -> None:
        """All nodes; raises Mixed, with the node as `self.at`, where samples meet."""
        with dims.assuming():
            for node in self.dag:
                self.at = node
                operands = [self.states[i] for i in node.inputs]
                self.states[node.name] = self.step(node.op, operands)
                first = next((i for i in node.inputs if self.states[i].batched), None)
                if first is not None or node.inputs:
                    self.parents[node.name] = first or node.inputs[0]
                note(self.origin, self.states[node.name].value, node)

    # -- one op -----------------------------------------------------------------------------------

    def step(self, op: Op, operands: Sequence[State]) -> State:
        """The state of an op's result."""
        types = tuple(s.type for s in operands)
        op = op.normal(*types)
        out = op.type(*types)
        joined = next((s.joined for s in operands if s.joined), None)
        if joined is not None:
            return self._part(op, joined)
        if not any(s.batched for s in operands):
            return self._free(op, operands, out)
        if isinstance(op, Opaque):
            raise Mixed(
                f"{op.kind} ({op.format}) is unknown: what it does to samples cannot be told"
            )
        if self.size == 1 and not any(s.place for s in operands):
            return self._hidden(op, operands, out)
        places = tuple(
            (s.places[0] if self.size != 1 else s.place) if s.batched else None for s in operands
        )
        try:
            found = push(op, types, places, self.size)
        except Mixed as problem:
            if isinstance(op, Concat):
                joined = Joined(tuple(operands), op.axis, self.at, problem)
                return State(operands[0].value, out, (), True, joined=joined)
            raise
        if found is None:
            return self._opened(op, operands)
        try:
            value = self._built(found, operands)
        except Mixed as problem:
            if isinstance(op, Concat):
                joined = Joined(tuple(operands), op.axis, self.at, problem)
                return State(operands[0].value, out, (), True, joined=joined)
            raise
        self.laws[law_name(type(op), len(operands))] = None
        hidden = isinstance(op, Squeeze) and not (found.places and found.places[0].whole)
        return State(value, out, found.places, True, squeezed=hidden and self.size == 1)

    def _built(self, found: Pushed, operands: Sequence[State]) -> Value:
        values = []
        for i, (need, state) in enumerate(zip(found.needs, operands, strict=True)):
            if isinstance(need, Counting):
                if not self.counts(state.value, need.axis):
                    raise Mixed(f"it picks samples by number (operand {i + 1})", need.axis)
                values.append(state.value)
            elif need is None or need in state.places:
                values.append(state.value)
            elif self.size == 1:
                values.append(
                    tidy(Squeeze((need.axis,)), state.value) if need.whole else state.value
                )
            else:
                one = None if state.batched else self.equal(state.value, need)
                if one is None:
                    what = "differs" if not state.batched else "is batched in another way"
                    raise Mixed(
                        f"operand {i + 1} has no batch and {what} per sample (axis {need.axis})",
                        need.axis,
                    )
                values.append(one)
        return found.build(*values)

    def _opened(self, op: Op, operands: Sequence[State]) -> State:
        """By the definition of a derived op."""
        if not isinstance(op, Derived):
            raise Mixed(f"nothing is known of samples in {op.name}")
        try:
            leaves, result = op.trace(*(s.type for s in operands))
        except ShapeError as error:
            raise Mixed(f"what it does to samples cannot be told: {error}") from None
        inner: dict[Value, State] = dict(zip(leaves, operands, strict=True))
        for value in walk([result]):
            if value not in inner:
                assert value.op is not None, "leaves are given"
                inner[value] = self.step(value.op, [inner[o] for o in value.operands])
        return inner[result]

    def _part(self, op: Op, joined: Joined) -> State:
        """A part of what was joined, where the whole has no place for the batch."""
        if not isinstance(op, Index) or op.axis != joined.axis or not isinstance(op.at, int):
            raise self._meeting(joined)
        sizes = [part.type.shape[op.axis] for part in joined.parts]
        total, at = add_all(sizes), op.at
        if at < 0 and isinstance(total, int):
            at += total
        for size, part in zip(sizes, joined.parts, strict=True):
            if not isinstance(size, int) or at < 0:
                break
            if at < size:
                return self.step(Index(op.axis, at), [part])
            at -= size
        raise self._meeting(joined)

    def _meeting(self, joined: Joined) -> Mixed:
        """The refusal of a concatenation, of which more than a part is used."""
        self.at = joined.node
        return joined.problem

    def _free(self, op: Op, operands: Sequence[State], out: TensorType) -> State:
        """An op of what has no batch; a size that is the batch makes equal samples of it."""
        types = tuple(s.type for s in operands)
        if self.names and self.names & dims.names(out.shape):
            for axis, d in enumerate(out.shape):
                ways = pull(op, types, Place(axis), self.size) if d == self.size else ()
                for way in ways:
                    if not any(way.needs):
                        self.laws[law_name(type(op), len(operands))] = None
                        value = way.build(*(s.value for s in operands))
                        return State(value, out, (Place(axis),), True)
            if isinstance(op, Derived) and self.names & dims.names(tuple(op.spec.values())):
                return self._opened(op, operands)
        return State(apply(op, *(s.value for s in operands)), out)

    def _hidden(self, op: Op, operands: Sequence[State], out: TensorType) -> State:
        """A batch of 1 that is no axis: the op is that of one sample, only its place is open."""
        types = tuple(s.type for s in operands)
        found: dict[Place, None] = {}
        for i, state in enumerate(operands):
            for guess in state.places:
                try:
                    way = push(
                        op, types, tuple(guess if k == i else None for k in range(len(types))), 1
                    )
                except SafeGraphError:
                    continue
                if way is None or not self._agrees(way, operands):
                    continue
                if way.places and way.places[0].whole:
                    return State(self._built(way, operands), out, way.places, True)
                found.update(dict.fromkeys(way.places))
        squeezed = any(s.squeezed for s in operands)
        value = apply(op, *(s.value for s in operands))
        return State(value, out, tuple(found)[:4], True, squeezed)

    def _agrees(self, way: Pushed, operands: Sequence[State]) -> bool:
        return all(
            not s.places or (isinstance(need, Place) and need in s.places)
            for need, s in zip(way.needs, operands, strict=True)
        )

    # -- backwards: what has no batch, but meets one ----------------------------------------------

    def equal(self, value: Value, place: Place) -> Value | None:
        """One sample of a value that is equal for all of them; None where it is not."""
        stack = [self._equal_steps(value, place)]
        answer: Value | None = None
        started = [False]
        while stack:
            try:
                asked = stack[-1].send(answer) if started[-1] else next(stack[-1])
                started[-1] = True
            except StopIteration as done:
                answer = done.value
                stack.pop()
                started.pop()
                continue
            stack.append(self._equal_steps(*asked))
            started.append(False)
        return answer

    def _equal_steps(
        self, value: Value, place: Place
    ) -> Generator[tuple[Value, Place], Value | None, Value | None]:
        key = (value, place)
        if key in self._equal:
            return self._equal[key]
        self._equal[key] = None  # a value is no part of itself
        found = None
        if value.op is None:
            found = self._slice(value, place)
        else:
            op, operands = value.op, value.operands
            for way in pull(op, tuple(o.type for o in operands), place, self.size):
                samples: list[Value] = []
                for need, operand in zip(way.needs, operands, strict=True):
                    if isinstance(need, Counting):
                        break
                    one = operand if need is None else (yield operand, need)
                    if one is None:
                        break
                    samples.append(one)
                else:
                    found = way.build(*samples)
                    break
            if found is None and isinstance(op, Derived):
                opened = op.define(*operands)
                found = (yield opened, place) if opened is not value else None
        self._equal[key] = found
        return found

    def _slice(self, leaf: Value, place: Place) -> Value | None:
        """One sample of a constant all of whose samples are equal."""
        t = self.leaves.get(leaf)
        if t is None or t.kind == "input" or t.data is None or not isinstance(self.size, int):
            return None
        shape = t.type.shape
        if place.axis >= len(shape) or shape[place.axis] != self.size * place.rest:
            return None
        array = t.array()
        first, *others = (Sample.of(place, self.size, k).run(array) for k in range(self.size))
        if any(other.tobytes() != first.tobytes() for other in others):  # 0 and -0 are not the same
            return None
        small = t.type.with_shape(first.shape)
        name = f"{t.name}.{place.axis}.{place.outer}"
        while name in self.dag.tensors or name in self.dag.nodes:
            name += "_"
        found = tensor(name, small)
        self.leaves[found] = Tensor(name, t.kind, small, first)
        return found

    def counts(self, value: Value, axis: int) -> bool:
        """Is each element its place along this axis, which is the batch?"""
        while value.op is not None and not isinstance(value.op, Iota):
            if not isinstance(value.op, _COUNTS) or value.dtype not in _NUMBERS:
                return False
            ways = pull(value.op, tuple(o.type for o in value.operands), Place(axis), self.size)
            place = next((w.needs[0] for w in ways if isinstance(w.needs[0], Place)), None)
            if place is None or not place.whole:
                return False
            value, axis = value.operands[0], place.axis
        if value.op is not None:
            return value.shape == (self.size,) and value.dtype in _NUMBERS
        t = self.leaves.get(value)
        if t is None or t.data is None or value.shape[axis] != self.size:
            return False
        numbers = np.arange(value.shape[axis]).reshape(-1, *[1] * (value.rank - axis - 1))  # type: ignore[arg-type]
        return bool((t.array() == numbers).all())

    def depends_on_size(self, source: Node) -> Mixed:
        """The refusal of a node that takes the batch's size as a number; `self.at` uses it."""
        found = source
        users: dict[str, Node] = {}
        for node in self.dag:
            if found is not source:
                break
            from_there = next((i for i in node.inputs if i == source.name or i in users), None)
            if from_there is not None:
                users[node.name] = node
                self.parents[node.name] = from_there
                found = node if self.states[node.name].batched else found
        self.at = found
        return Mixed(
            f"the size of the batch ({self.size}) is a number in it, by {source.op.name} at node "
            f"{source.name}: for one sample there is no such number",
            by_size=True,
        )

    # -- the graph for one sample -----------------------------------------------------------------

    def output(self, name: str) -> State:
        """The state of an output; one that is repeated for each sample has a place too."""
        state = self.states[self.dag.outputs[name]]
        if state.joined is not None:
            raise self._meeting(state.joined)
        if not state.batched and self.names & dims.names(state.type.shape):
            for axis, d in enumerate(state.type.shape):
                one = self.equal(state.value, Place(axis)) if d == self.size else None
                if one is not None:
                    return State(one, state.type, (Place(axis),), True)
        return state

    def graph(self, outputs: Mapping[str, Value]) -> SafeDAG:
        """The graph of these values: names and places in the source are those of the original."""
        order = walk(outputs.values())
        leaves = folded(order, {v: self.leaves[v] for v in order if v.op is None}, outputs.values())
        tensors, names = self._named_leaves(leaves)
        own = {self.states[n].value: n for n in reversed(self.dag.nodes)}
        return named_graph(self.dag, order, outputs, tensors, names, own, self.origin)

    def _named_leaves(
        self, leaves: Mapping[Value, Tensor]
    ) -> tuple[list[Tensor], dict[Value, str]]:
        """The tensors in the order of the original, each of one sample under its own name."""
        inputs = {t.name for t in self.dag.inputs}
        every = dict(leaves)
        every |= {v: t for v, t in self.leaves.items() if t.name in inputs and t.kind == "input"}
        rank = {n: i for i, n in enumerate(self.dag.tensors)}
        used = {t.name for t in every.values()}
        names: dict[Value, str] = {}
        found: list[tuple[int, Tensor]] = []
        for value, t in every.items():
            base = t.name if t.name in rank else t.name.rsplit(".", 2)[0]
            name = base if base not in used else t.name
            used.add(name)
            names[value] = name
            found.append((rank[base], replace(t, name=name)))
        found.sort(key=lambda item: item[0])
        return [t for _, t in found], names
