"""The walk that takes a batch away: places of the batch forwards, values for one sample beside.

One step for each op, by its row of `safegraph.rules.batch`.  A derived op whose row leaves the
answer open is opened: its definition is walked in the same way.  What has no batch of its own but
meets one must have equal samples (`safegraph.batch.shared`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from safegraph import dims
from safegraph.batch.provenance import folded, named_graph, note
from safegraph.batch.shared import Shared
from safegraph.dag import Node, SafeDAG, Tensor
from safegraph.derived.base import Derived
from safegraph.derived.index import Gather
from safegraph.derived.pointwise import Broadcast
from safegraph.derived.shape import Concat, Index, Reshape
from safegraph.dims import Dim, add_all
from safegraph.dtypes import is_integer
from safegraph.errors import SafeGraphError, ShapeError
from safegraph.op import Op, TensorType
from safegraph.ops import Binary, Opaque, Permute, Squeeze, Unsqueeze
from safegraph.ops.sample import Place, sampled_shape
from safegraph.rules.batch import Counting, Mixed, Pushed, law_name, pull, push
from safegraph.rules.batch_rows import tidy
from safegraph.value import Value, apply, expand, tensor, walk

_SUMS = (Binary("add"), Broadcast("add"))


@dataclass(frozen=True)
class State:
    """A value of the graph: for one sample, and where the batch is in it.

    `places` are several only for a batch of 1 between two axes, and none, though `batched`, where
    such a place was lost; `squeezed` where it was an axis that was dropped, and `front` where it
    came before all axes: there it stays, whatever an op does to them.
    """

    value: Value
    type: TensorType
    places: tuple[Place, ...] = ()
    batched: bool = False
    squeezed: bool = False
    front: bool = False
    open: Joined | Numbered | None = field(default=None, compare=False)
    """Samples meet in it for all but some uses."""

    @property
    def place(self) -> Place | None:
        """Where the batch is; None for a batch of 1 that is no axis."""
        return self.places[0] if self.places and self.places[0].whole else None


@dataclass(frozen=True)
class Joined:
    """A concatenation, along an axis at a node, that has no place for the batch; but parts have."""

    node: Node
    problem: Mixed
    parts: tuple[State, ...]
    axis: int


@dataclass(frozen=True)
class Numbered:
    """A sum, at a node, with `block` times the number of the sample; the value is without that.

    Exporters write `x[arange(batch), index]` as one gather from all samples, one after the other.
    """

    node: Node
    problem: Mixed
    block: int


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
        self.shared = Shared(self.leaves, dag.types, size)
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
                if node.inputs:
                    self.parents[node.name] = first or node.inputs[0]
                note(self.origin, self.states[node.name].value, node)

    # -- one op -----------------------------------------------------------------------------------

    def step(self, op: Op, operands: Sequence[State]) -> State:
        """The state of an op's result."""
        types = tuple(s.type for s in operands)
        op = op.normal(*types)
        out = op.type(*types)
        left_open = next((s.open for s in operands if s.open), None)
        if isinstance(left_open, Joined):
            return self._part(op, left_open)
        if left_open is not None:
            return self._numbered(op, operands, left_open)
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
            value = None if found is None else self._built(found, operands)
        except Mixed as problem:
            state = self._left_open(op, operands, out, problem)
            if state is None:
                raise
            return state
        if found is None or value is None:
            return self._opened(op, operands)
        self.laws[law_name(type(op), len(operands))] = None
        hidden = isinstance(op, Squeeze) and not (found.places and found.places[0].whole)
        return State(value, out, found.places, True, squeezed=hidden and self.size == 1)

    def _built(self, found: Pushed, operands: Sequence[State]) -> Value:
        values = []
        for i, (need, state) in enumerate(zip(found.needs, operands, strict=True)):
            if isinstance(need, Counting):
                if self.shared.counts_by(state.value, need.axis) != 1:
                    raise Mixed("it picks samples by number", need.axis, operand=i)
                values.append(state.value)
            elif need is None or need in state.places:
                values.append(state.value)
            elif self.size == 1:
                values.append(
                    tidy(Squeeze((need.axis,)), state.value) if need.whole else state.value
                )
            else:
                one = None if state.batched else self.shared.equal(state.value, need)
                if one is None:
                    what = "has no batch and differs per sample"
                    what = "has its batch in another place" if state.batched else what
                    raise Mixed(f"an operand {what}", need.axis, operand=i)
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
            if value in inner:
                continue
            assert value.op is not None, "leaves are given"
            try:
                state = self.step(value.op, [inner[o] for o in value.operands])
            except Mixed as problem:
                raise self._in_definition(problem, value.op, operands) from None
            if state.open is not None and state.open.node is self.at:
                said = self._in_definition(state.open.problem, value.op, operands)
                state = replace(state, open=replace(state.open, problem=said))
            inner[value] = state
        return inner[result]

    @staticmethod
    def _in_definition(problem: Mixed, inner: Op, operands: Sequence[State]) -> Mixed:
        """Where the batch is in the operands of the op that has the definition."""
        places = ((i, s.places[0].axis) for i, s in enumerate(operands) if s.places)
        operand, axis = next(places, (None, None))
        return problem.in_definition(inner.name, axis, operand if len(operands) > 1 else None)

    def _left_open(
        self, op: Op, operands: Sequence[State], out: TensorType, problem: Mixed
    ) -> State | None:
        """The state of a result in which samples meet, if some uses of it are those of one."""
        if isinstance(op, Concat):
            joined = Joined(self.at, problem, tuple(operands), op.axis)
            return State(operands[0].value, out, (), True, open=joined)
        if isinstance(op, Gather):
            return self._rows(op, operands, problem)
        if op not in _SUMS or not is_integer(out.dtype):
            return None
        own, other = sorted(operands, key=lambda s: not s.batched)
        if other.batched or not own.place:
            return None
        place = own.place.at(own.place.axis + out.rank - own.type.rank)
        axis = place.axis - out.rank + other.type.rank
        block = self.shared.counts_by(other.value, axis) if axis >= 0 else None
        if block is None or block < 2:
            return None
        value = expand(own.value, sampled_shape(out.shape, place))
        return State(value, out, (place,), True, open=Numbered(self.at, problem, block))

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

    def _numbered(self, op: Op, operands: Sequence[State], numbered: Numbered) -> State:
        """A sum with the number of the sample, and what it picks from all samples in a row."""
        without = [replace(s, open=None) for s in operands]
        one_more = op in _SUMS and not all(s.open for s in operands)
        if one_more or isinstance(op, Unsqueeze | Squeeze | Permute | Reshape):
            state = self.step(op, without)
            if state.open is None and state.place is not None:
                return replace(state, open=numbered)
        if not isinstance(op, Gather) or operands[0].open or not without[0].places:
            raise self._meeting(numbered)
        (x, index), at = without, operands[1].place
        if x.places[0] != Place(op.axis, 1, numbered.block) or at is None:
            raise self._meeting(numbered)
        found = self.shared.range_of(index.value)
        if not (found.low >= 0 and found.high < numbered.block):
            raise Mixed(
                "an index below 0, or not below "
                f"{numbered.block}, picks from another sample: clamp the indices before",
                operand=1,
            )
        types = tuple(s.type for s in operands)
        value = apply(op, x.value, index.value)
        return State(value, op.type(*types), (at.at(op.axis + at.axis),), True)

    def _rows(self, op: Gather, operands: Sequence[State], problem: Mixed) -> State | None:
        """The same rows of each sample, picked by known numbers from all samples in a row.

        Exporters write a view by strides as such a pick.  None where it is another pick.
        """
        x, index = operands
        if index.batched or not x.places or x.places[0].axis != op.axis:
            return None
        block = x.places[0].inner
        if not isinstance(block, int) or block < 2:
            return None
        numbered = Numbered(self.at, problem, block)
        states: dict[Value, State] = {}
        for value in walk([index.value]):
            first = self._first_rows(value, numbered)
            if first is not None:
                states[value] = first
            elif value.op is None:
                states[value] = State(value, value.type)
            else:
                try:
                    states[value] = self.step(value.op, [states[o] for o in value.operands])
                except Mixed:
                    return None
        own = states[index.value]
        return self._numbered(op, [x, own], numbered) if own.open else None

    def _only_rows(self, op: Gather, operands: Sequence[State], out: TensorType) -> State | None:
        """As `_rows` for the only sample there is: the first axis of its numbers is the batch."""
        x, index = operands
        place = Place(op.axis, 1, x.type.shape[op.axis])
        if index.batched or place not in x.places or index.type.shape[:1] != (1,):
            return None
        value = apply(op, x.value, tidy(Squeeze((0,)), index.value))
        return State(value, out, (Place(op.axis),), True)

    def _first_rows(self, value: Value, numbered: Numbered) -> State | None:
        """Known numbers, those of each sample a block after those of the one before."""
        for axis, d in enumerate(value.shape):
            if d == self.size:
                first = self.shared.first_row(value, axis, numbered.block)
                if first is not None:
                    return State(first, value.type, (Place(axis),), True, open=numbered)
        return None

    def _meeting(self, left_open: Joined | Numbered) -> Mixed:
        """The refusal of what was left open, of which there is another use."""
        self.at = left_open.node
        return left_open.problem

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
        if isinstance(op, Gather) and not found and (picked := self._only_rows(op, operands, out)):
            return picked
        first = [Place(0, 1, s.type.shape[0]) if s.type.rank else None for s in operands]
        front = any(s.front or p in s.places for s, p in zip(operands, first, strict=True))
        if front and not found and out.rank and out.shape[0] != 1:
            found[Place(0, 1, out.shape[0])] = None
        squeezed = any(s.squeezed for s in operands)
        value = apply(op, *(s.value for s in operands))
        return State(value, out, tuple(found)[:4], True, squeezed, front)

    def _agrees(self, way: Pushed, operands: Sequence[State]) -> bool:
        return all(
            not s.places or (isinstance(need, Place) and need in s.places)
            for need, s in zip(way.needs, operands, strict=True)
        )

    # -- refusals ---------------------------------------------------------------------------------

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
        if state.open is not None:
            raise self._meeting(state.open)
        if not state.batched and self.names & dims.names(state.type.shape):
            for axis, d in enumerate(state.type.shape):
                one = self.shared.equal(state.value, Place(axis)) if d == self.size else None
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
