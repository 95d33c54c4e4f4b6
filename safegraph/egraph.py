"""The e-graph: terms and the laws that make them equal.

The left sides of laws are matched by egglog (`safegraph.engine`); the right sides are built here,
where sizes, shapes and specs live, once for each combination of specs and operand types: twelve
equal layers build one.  So every e-node is known to Python, with its type and with the law and
round that made it first.
"""

from __future__ import annotations

import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from safegraph.engine import Engine
from safegraph.errors import LawError
from safegraph.law import Law
from safegraph.op import Interned, Op, TensorType, by_id
from safegraph.ops import Pointwise, Repeat, Scalar, Unsqueeze
from safegraph.ranges import Range, kinship, of_number, of_op, of_type
from safegraph.schedule import Floods
from safegraph.value import Value, tensor, walk


@dataclass(frozen=True, eq=False)
class Number(metaclass=Interned):
    """The value of every element of a uniform tensor."""

    value: Any
    dtype: str
    id = -1


@dataclass(frozen=True)
class Budget:
    """When to stop: a number of e-nodes, and seconds."""

    nodes: int = 50_000
    seconds: float = 10.0


@dataclass
class Report:
    """What a run did."""

    nodes: int = 0
    rounds: int = 0
    seconds: float = 0.0
    stopped: str = "saturated"
    matches: Counter[str] = field(default_factory=Counter)
    """How often each law was applied."""

    def __str__(self) -> str:
        return f"{self.nodes:,} e-nodes, {self.rounds} rounds, {self.seconds:.2f} s, {self.stopped}"


@dataclass(frozen=True)
class ENode:
    """One e-node as Python knows it: its class, its op (None: a leaf), its operands' classes."""

    index: int
    cls: int
    op: Op | None
    operands: tuple[int, ...]
    type: TensorType


RightSide = tuple[list[tuple[Op, tuple[int, ...], TensorType]], int]
"""Ops on numbered slots, of which the tensors of the left side are the first; the result's slot."""


@dataclass(frozen=True)
class Union:
    """Two e-nodes that were made equal, and why.

    `match` of a law: root, tensors, specs, numbers.  Of another step: how many e-nodes both sides
    rest on, these, and the e-nodes of the left side from the root down.
    """

    a: int
    b: int
    reason: str
    law: Law | None
    match: tuple[int, ...]


class EGraph:
    """Terms and the laws that make them equal.

    >>> from safegraph.law import any_of, one, table, variables
    >>> from safegraph.ops import Unary
    >>> x, = variables("x")
    >>> double = table("demo", one("twice", -(-x), x))
    >>> g = EGraph()
    >>> v = tensor("v", "f32[n]")
    >>> a, b = g.add([-(-v), v])
    >>> str(g.run(double)).startswith("3 e-nodes") and g.same(a, b)
    True
    """

    def __init__(self) -> None:
        self._engine = Engine()
        self._ops: list[Op | None] = []
        self._operands: list[tuple[int, ...]] = []
        self._types: list[TensorType] = []
        self._born: list[tuple[str, int]] = []
        self._known: dict[tuple[int, tuple[int, ...]], int] = {}
        self._leaves: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._constants: set[int] = set()
        self._uniform: dict[int, Number] = {}
        self._written: set[int] = set()  # of these, what is a number and no more
        self._leaf_ranges: Callable[[str], Range | None] = lambda name: None
        self._ranges: dict[int, Range] = {}
        self._held: dict[Law, list[tuple[int, ...]]] = {}
        self._templates: dict[tuple[Any, ...], RightSide | None] = {}
        self._united: dict[tuple[int, int], tuple[str, int]] = {}
        self._journal = array("q")  # for each of these: the law's number, a length, the match
        self._round = 0
        self._kinds: set[tuple[type[Op], int]] = set()

    # -- terms in ---------------------------------------------------------------------------------

    def add(
        self,
        values: Iterable[Value],
        *,
        constants: Iterable[str] = (),
        numbers: Mapping[str, Any] | None = None,
        ranges: Callable[[str], Range | None] | None = None,
    ) -> list[int]:
        """Register values; gives the number of each.

        `constants` are names of leaves that depend on no input, `numbers` the value of leaves whose
        elements are all equal, `ranges` gives what is known of a leaf's elements (None: that they
        are finite), when it is asked for.
        """
        if ranges is not None:
            self._leaf_ranges = ranges
        values = list(values)
        done: dict[Value, int] = {}
        constants = set(constants)
        for value in walk(values):
            if value.op is None:
                done[value] = self._leaf(
                    value, value.name in constants, (numbers or {}).get(value.name)
                )
            else:
                done[value] = self._node(
                    value.op, tuple(done[o] for o in value.operands), value.type, ("given", 0)
                )
        self._engine.load()
        return [done[v] for v in values]

    def _leaf(self, value: Value, is_constant: bool, number: Any) -> int:
        if value.name in self._leaves:
            return self._leaves[value.name]
        index = self._new(None, (), value.type, ("given", 0))
        self._leaves[value.name] = index
        self._names[index] = value.name
        self._engine.leaf(index)
        if is_constant:
            self._constants.add(index)
            self._engine.constant(index)
        if number is not None:
            self._set_uniform(index, Number(number, value.dtype))
        return index

    def _node(
        self, op: Op, operands: tuple[int, ...], type_: TensorType, born: tuple[str, int]
    ) -> int:
        key = (op.id, operands)
        found = self._known.get(key)
        if found is not None:
            return found
        index = self._known[key] = self._new(op, operands, type_, born)
        self._kinds.add((type(op), len(operands)))
        self._engine.node(index, op, operands)
        if all(o in self._constants for o in operands):
            self._constants.add(index)
            self._engine.constant(index)
        number = uniform_value(op, [self._uniform.get(o) for o in operands], type_)
        if number is not None:
            self._set_uniform(index, number)
        return index

    def _new(
        self, op: Op | None, operands: tuple[int, ...], type_: TensorType, born: tuple[str, int]
    ) -> int:
        self._ops.append(op)
        self._operands.append(operands)
        self._types.append(type_)
        self._born.append(born)
        return len(self._ops) - 1

    def _set_uniform(self, index: int, number: Number) -> None:
        if isinstance(number.value, complex):  # laws compare numbers and round them
            if number.value.imag:
                return
            number = Number(number.value.real, number.dtype)
        self._uniform[index] = number
        self._ranges[index] = of_number(number.value, number.dtype)
        op, operands = self._ops[index], self._operands[index]
        is_spread = isinstance(op, Repeat | Unsqueeze) and operands[0] in self._written
        if isinstance(op, Scalar) or is_spread:
            self._written.add(index)
        self._engine.uniform(index, number.id, written=index in self._written)

    # -- laws -------------------------------------------------------------------------------------

    def run(
        self,
        laws: Sequence[Law],
        budget: Budget | None = None,
        *,
        rounds: int | None = None,
    ) -> Report:
        """Apply laws until nothing is new, or for some rounds, or until the budget is spent."""
        budget = budget or Budget()
        started = time.perf_counter()
        end = started + budget.seconds
        report = Report()
        waiting = list(laws)
        compiled: list[Law] = []
        floods = Floods(frozenset(laws), self._held, budget.nodes if rounds is None else None)
        self._engine.load()  # what was made equal since the last run
        while rounds is None or report.rounds < rounds:
            # A law is looked for when the e-graph first has every op of its left side.
            ready = [law for law in waiting if law.needs <= self._kinds]
            waiting = [law for law in waiting if not law.needs <= self._kinds]
            compiled += ready
            self._round += 1
            report.rounds += 1
            before = (len(self._ops), len(self._united))
            searched = floods.searched(compiled, len(self))
            for law, matches in floods.due(self._engine.matches(searched)):
                number, size = self._engine.number(law), len(self)
                for i, match in enumerate(matches):
                    over = len(self) > budget.nodes or time.perf_counter() > end
                    if over or floods.is_flood(len(self) - size):
                        floods.hold(law, matches[i:])
                        break
                    report.matches[law.name] += self._apply(law, number, match)
            self._engine.clear()
            self._engine.load()
            if len(self) > budget.nodes:
                report.stopped = "the limit of e-nodes was reached"
                break
            if time.perf_counter() > end:
                report.stopped = "the time was up"
                break
            if (len(self._ops), len(self._united)) == before and not floods.release(len(self)):
                if floods.waiting:
                    report.stopped = "the rest of the budget was kept from laws that flood"
                break
        else:
            report.stopped = "all rounds were run"
        report.nodes = len(self)
        report.seconds = time.perf_counter() - started
        return report

    def _apply(self, law: Law, number: int, match: tuple[int, ...]) -> bool:
        """Build the right side for one match, equal to the root; False where there is none."""
        operands = match[1 : 1 + len(law.tensors)]
        if law.varies and match[0] in self._written:
            return False
        if law.depends and match[0] in self._constants:
            return False
        if not self._within(law, operands):
            return False
        template = self._right_side(law, number, match)
        if template is None:
            return False
        steps, result = template
        slots = list(operands)
        born = (law.name, self._round)
        for op, places, type_ in steps:
            slots.append(self._node(op, tuple(slots[p] for p in places), type_, born))
        self.union(match[0], slots[result], law.name, number, match)
        return True

    def _right_side(self, law: Law, number: int, match: tuple[int, ...]) -> RightSide | None:
        """The right side for one match, from what was built for matches like it."""
        tensors, types = len(law.tensors), self._types
        key = (number, *(types[i].id for i in match[: 1 + tensors]), *match[1 + tensors :])
        if key not in self._templates:
            self._templates[key] = self._template(law, match, tensors, len(law.specs))
        return self._templates[key]

    def _within(self, law: Law, operands: tuple[int, ...]) -> bool:
        """Are the operands in the ranges on which the law holds?"""
        if law.grade == "finite" and not all(self.range_of(o).finite for o in operands):
            return False
        return all(holds(self.range_of(operands[i])) for i, holds in law.ranges)

    def range_of(self, index: int) -> Range:
        """Between which numbers the elements of an e-node are."""
        stack = [index]
        while stack:
            i = stack[-1]
            if i in self._ranges:
                stack.pop()
                continue
            op, operands = self._ops[i], self._operands[i]
            missing = [o for o in operands if o not in self._ranges]
            if missing:
                stack += missing
                continue
            if op is None:
                self._ranges[i] = self._leaf_ranges(self._names[i]) or of_type(self._types[i])
            else:
                ranges = tuple(self._ranges[o] for o in operands)
                types = tuple(self._types[o] for o in operands)
                kin = kinship(op, operands, lambda o: (self._ops[o], self._operands[o]))
                found = kin and (kin[0], self._ranges[kin[1]])
                self._ranges[i] = of_op(op, self._types[i], ranges, types, found)
        return self._ranges[index]

    def _template(
        self, law: Law, match: tuple[int, ...], tensors: int, specs: int
    ) -> RightSide | None:
        """The right side for ops and operand types, as steps on numbered slots; None: no law."""
        leaves = [
            tensor(f"%{n}", self._types[i]) for n, i in zip(law.tensors, match[1:], strict=False)
        ]
        scope: dict[str, Any] = dict(zip(law.tensors, leaves, strict=True))
        scope.update(
            (v.name, by_id(i)) for v, i in zip(law.specs, match[1 + tensors :], strict=False)
        )
        known = [f.name for f in law.facts if f.kind == "uniform"]
        scope.update(
            (f"{n}_is", by_id(i).value)
            for n, i in zip(known, match[1 + tensors + specs :], strict=True)
        )
        scope["root"] = self._types[match[0]]
        value = law.build(scope)
        if value is None:
            return None
        if value.type.dtype != scope["root"].dtype or value.rank != scope["root"].rank:
            raise LawError(f"{law}: the right side {value} is no {scope['root']}, for {scope}")
        slot = {leaf: i for i, leaf in enumerate(leaves)}
        steps = []
        for v in walk([value]):
            if v not in slot:
                assert v.op is not None, f"{law}: {v} is no variable of it"
                slot[v] = len(slot)
                steps.append((v.op, tuple(slot[o] for o in v.operands), v.type))
        if len(leaves) != len(slot) - len(steps):
            raise AssertionError(f"{law}: two variables are one value")
        return steps, slot[value]

    def union(
        self, a: int, b: int, reason: str = "given", law: int = -1, match: Sequence[int] = ()
    ) -> None:
        """Make two terms equal; `match` is kept for the explanation, see `Union`."""
        if a != b and (a, b) not in self._united:
            self._united[a, b] = (reason, self._round)
            self._journal.extend((law, len(match), *match))
            self._engine.union(a, b)

    def build(self, build: Callable[..., Value], operands: Sequence[int], born: str) -> int:
        """Add a term built on existing classes; gives its number."""
        leaves = [tensor(f"%{i}", self._types[o]) for i, o in enumerate(operands)]
        slot = dict(zip(leaves, operands, strict=True))
        value = build(*leaves)
        for v in walk([value]):
            if v not in slot:
                assert v.op is not None, "the leaves are given"
                slot[v] = self._node(
                    v.op, tuple(slot[o] for o in v.operands), v.type, (born, self._round)
                )
        return slot[value]

    def __len__(self) -> int:
        return len(self._ops)

    # -- what it holds ----------------------------------------------------------------------------

    def classes(self) -> list[int]:
        """For every e-node, the number of its class."""
        return self._engine.classes(len(self))

    def enodes(self) -> list[ENode]:
        """All e-nodes, each once."""
        cls = self.classes()
        seen: set[tuple[Any, ...]] = set()
        found = []
        for i, op in enumerate(self._ops):
            operands = tuple(cls[o] for o in self._operands[i])
            key = (cls[i], op.id if op else -1 - i, operands)
            if key not in seen:
                seen.add(key)
                found.append(ENode(i, cls[i], op, operands, self._types[i]))
        return found

    def type_of(self, index: int) -> TensorType:
        """The type of an e-node, and so of its class."""
        return self._types[index]

    def same(self, a: int, b: int) -> bool:
        """Are two terms proved equal?"""
        cls = self.classes()
        return cls[a] == cls[b]

    def is_constant(self, index: int) -> bool:
        """Is it known, when the e-node is made, to depend on no input?"""
        return index in self._constants

    @property
    def leaves(self) -> dict[int, str]:
        """The names of the leaf e-nodes by number."""
        return self._names

    @property
    def constants(self) -> set[int]:
        """The e-nodes that depend on no input."""
        return self._constants

    def born(self, index: int) -> tuple[str, int]:
        """The law that first made an e-node, and the round; ("given", 0) for the graph itself."""
        return self._born[index]

    def unions(self) -> Mapping[tuple[int, int], tuple[str, int]]:
        """The pairs of e-nodes that were made equal, each with the law and the round."""
        return self._united

    def journal(self) -> Iterator[Union]:
        """What was made equal, in this order."""
        laws, data, at = self._engine.laws, self._journal, 0
        for (a, b), (reason, _) in self._united.items():
            number, length = data[at : at + 2]
            match = tuple(data[at + 2 : at + 2 + length])
            yield Union(a, b, reason, laws[number] if number >= 0 else None, match)
            at += 2 + length

    def op_of(self, index: int) -> Op | None:
        """The op of an e-node; None for a leaf."""
        return self._ops[index]

    def operands_of(self, index: int) -> tuple[int, ...]:
        """The e-nodes that an e-node was made with: older ones, so these terms have no cycles."""
        return self._operands[index]

    def known(self, op: Op, operands: tuple[int, ...]) -> int:
        """The e-node that was made with this op and these operands; KeyError if there is none."""
        return self._known[op.id, operands]

    def index_of(self, values: Iterable[Value]) -> dict[Value, int]:
        """The e-nodes of terms that were registered, and of what is in them; leaves out others."""
        found: dict[Value, int] = {}
        for v in walk(values):
            if v.op is None:
                index = self._leaves.get(v.name)
            elif all(o in found for o in v.operands):
                index = self._known.get((v.op.id, tuple(found[o] for o in v.operands)))
            else:
                index = None
            if index is not None:
                found[v] = index
        return found

    def right_side(self, law: Law, match: tuple[int, ...]) -> RightSide:
        """What a law, used before, made of a match."""
        found = self._right_side(law, self._engine.number(law), match)
        assert found is not None, f"{law} was used for {match}"
        return found


def uniform_value(op: Op, operands: Sequence[Number | None], type_: TensorType) -> Number | None:
    """The one number that all elements of the result are, if that follows from the operands'."""
    import numpy as np

    from safegraph.dtypes import to_numpy

    if isinstance(op, Scalar):
        return Number(op.value, op.of) if isinstance(op.value, int | float) else None
    if not operands or any(n is None for n in operands):
        return None
    numbers = [n for n in operands if n is not None]
    if op.moves and len(numbers) == 1:
        fill = op.spec.get("fill")
        return numbers[0] if fill is None or fill == numbers[0].value else None
    if isinstance(op, Pointwise):
        try:
            result = op.run(*(np.asarray(n.value, to_numpy(n.dtype)) for n in numbers))
        except (TypeError, ValueError):
            return None
        return Number(result.item(), type_.dtype)
    return None
