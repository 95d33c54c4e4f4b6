"""The e-graph.  The one file that knows egglog.

egglog holds the e-nodes, matches the left sides of laws and closes under congruence; the right
sides are built in Python, where sizes, shapes and specs live.  All that egglog sees are numbers:
an op is the number of its interned spec, an e-class is named by the numbers of its e-nodes.

- Each op class and arity is one egglog function: `conv_3(x, w, b, spec)`.
- The left side of a law is a rule that notes its matches in a table; between rounds the matches are
  read, the right side is built (once for each combination of specs and operand types: twelve equal
  layers build one), and the new e-nodes go back in bulk, through a file.
  Measured with egglog 13.2: 1.3 µs an e-node, where a command each takes 140 µs and a Python
  callback in a rule 20 µs; and a function that raises cannot end a run.
- So every e-node is known to Python, with its type and with the law and round that made it first.
"""

from __future__ import annotations

import shutil
import tempfile
import time
import weakref
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from egglog import bindings

from safegraph.errors import LawError
from safegraph.law import Law, OpVar, Term, Var
from safegraph.op import Interned, Op, TensorType, by_id
from safegraph.ops import Pointwise, Scalar
from safegraph.ranges import Range, kinship, of_op, of_type
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


_LARGE = 6  # ops in a left side that is matched in parts

_SETUP = """
(sort T)
(constructor ref (i64) T :unextractable)
(constructor leaf (i64) T)
(function id (T) i64 :merge (min old new))
(function uniform (T) i64 :merge (min old new))
(relation constant (T))
(relation n_leaf (i64 i64))
(relation n_constant (i64))
(relation n_uniform (i64 i64))
(relation n_union (i64 i64))
(ruleset load) (ruleset facts) (ruleset clear)
(rule ((n_leaf i s)) ((union (ref i) (leaf s)) (set (id (ref i)) i) (delete (n_leaf i s)))
      :ruleset load)
(rule ((n_constant i)) ((constant (ref i)) (delete (n_constant i))) :ruleset load)
(rule ((n_uniform i u)) ((set (uniform (ref i)) u) (delete (n_uniform i u))) :ruleset load)
(rule ((n_union i j)) ((union (ref i) (ref j)) (delete (n_union i j))) :ruleset load)
"""


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
        self._folder = tempfile.mkdtemp(prefix="safegraph-")
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._egglog = bindings.EGraph(fact_directory=self._folder)
        self._declared: set[str] = {"leaf"}
        self._ops: list[Op | None] = []
        self._operands: list[tuple[int, ...]] = []
        self._types: list[TensorType] = []
        self._born: list[tuple[str, int]] = []
        self._known: dict[tuple[int, tuple[int, ...]], int] = {}
        self._leaves: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._leaf_names: list[str] = []
        self._constants: set[int] = set()
        self._uniform: dict[int, Number] = {}
        self._leaf_ranges: Callable[[str], Range | None] = lambda name: None
        self._ranges: dict[int, Range] = {}
        self._pending: defaultdict[str, list[tuple[int, ...]]] = defaultdict(list)
        self._held: dict[Law, list[tuple[int, ...]]] = {}
        self._templates: dict[tuple[Any, ...], RightSide | None] = {}
        self._laws: dict[Law, int] = {}
        self._combined: dict[tuple[str, tuple[int, ...]], str] = {}
        self._parted: set[int] = set()
        self._united: dict[tuple[int, int], tuple[str, int]] = {}
        self._journal = array("q")  # for each of these: the law's number, a length, the match
        self._round = 0
        self._kinds: set[tuple[type[Op], int]] = set()
        self._text(_SETUP)

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
        self._load()
        return [done[v] for v in values]

    def _leaf(self, value: Value, is_constant: bool, number: Any) -> int:
        if value.name in self._leaves:
            return self._leaves[value.name]
        index = self._new(None, (), value.type, ("given", 0))
        self._leaves[value.name] = index
        self._names[index] = value.name
        self._pending["n_leaf"].append((index, len(self._leaf_names)))
        self._leaf_names.append(value.name)
        if is_constant:
            self._constants.add(index)
            self._pending["n_constant"].append((index,))
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
        self._pending["n_" + self._function(type(op), len(operands))].append(
            (index, *operands, op.id)
        )
        if all(o in self._constants for o in operands):
            self._constants.add(index)
            self._pending["n_constant"].append((index,))
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
        self._uniform[index] = number
        self._pending["n_uniform"].append((index, number.id))

    def _function(self, cls: type[Op], arity: int) -> str:
        """The egglog function of an op class with so many operands, declared when first used."""
        name = f"{cls.name}_{arity}"
        if name not in self._declared:
            self._declared.add(name)
            xs = [f"x{i}" for i in range(arity)]
            refs = " ".join(f"(ref {x})" for x in xs)
            facts = " ".join(f"(constant {x})" for x in xs)
            columns = " ".join(["i64"] * (arity + 2))
            row = f"(n_{name} i {' '.join(xs)} s)"
            self._text(
                f"(constructor {name} ({'T ' * arity}i64) T) (relation n_{name} ({columns}))"
                f"(rule ({row}) ((union (ref i) ({name} {refs} s)) (set (id (ref i)) i)"
                f" (delete {row})) :ruleset load)"
                f"(rule ((= e ({name} {' '.join(xs)} s)) {facts}) ((constant e)) :ruleset facts)"
            )
        return name

    def _load(self) -> None:
        """Bring the pending rows into egglog."""
        if not self._pending:
            return
        commands = []
        for table, rows in self._pending.items():
            path = Path(self._folder, table)
            path.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))
            commands.append(f'(input {table} "{table}")')
        self._pending.clear()
        self._text("".join(commands) + "(run load 1) (run-schedule (saturate facts))")

    def _text(self, program: str) -> list[Any]:
        return self._egglog.run_program(*self._egglog.parse_program(program))

    # -- laws -------------------------------------------------------------------------------------

    def _compile(self, law: Law) -> int:
        """A law's left side as a rule that notes its matches: root, tensors, specs, numbers."""
        if law in self._laws:
            return self._laws[law]
        number = self._laws[law] = len(self._laws)
        root, facts = self._pattern(law, number)
        columns = ["i_root", *(f"i_{t}" for t in law.tensors), *(f"s_{s.name}" for s in law.specs)]
        facts.append(f"(= i_root (id {root}))")
        facts += [f"(= i_{t} (id v_{t}))" for t in law.tensors]
        for fact in law.facts:
            if fact.kind == "constant":
                facts.append(f"(constant v_{fact.name})")
            elif fact.kind == "uniform":
                facts.append(f"(= u_{fact.name} (uniform v_{fact.name}))")
                columns.append(f"u_{fact.name}")
        row = f"(m_{number}_ {' '.join(columns)})"
        self._text(
            f"(relation m_{number}_ ({' '.join(['i64'] * len(columns))})) (ruleset law_{number})"
            f"(rule ({' '.join(facts)}) ({row}) :ruleset law_{number})"
            f"(rule ({row}) ((delete {row})) :ruleset clear)"
        )
        return number

    def _pattern(self, law: Law, number: int) -> tuple[str, list[str]]:
        """The left side as facts: the variable of its root, and what must hold.

        The parts of a large pattern are tables of their own, filled first: egglog joins few facts
        well and many badly (12 s for a batch norm of twelve ops in one rule, 0.1 s in parts).
        """
        large = pattern_size(law.left) >= _LARGE
        done: dict[int, tuple[str, dict[str, None], dict[str, str]]] = {}
        parts: list[str] = []

        def visit(pattern: Any) -> tuple[str, dict[str, None], dict[str, str]]:
            if isinstance(pattern, Var):
                name = f"v_{pattern.name}"
                return name, {}, {name: "T"}
            if id(pattern) in done:
                return done[id(pattern)]
            inner = [visit(o) for o in pattern.operands]
            facts = {fact: None for _, found, _ in inner for fact in found}
            columns = {name: sort for _, _, found in inner for name, sort in found.items()}
            head, name = pattern.head, f"e{len(done)}"
            variable = isinstance(head, OpVar)
            tag = f"s_{head.name}" if variable else str(head.id)
            function = self._function(head.cls if variable else type(head), len(inner))
            if variable:
                columns[tag] = "i64"
            facts[f"(= {name} ({function} {' '.join(n for n, _, _ in inner)} {tag}))"] = None
            if large and len(facts) > 1 and pattern is not law.left:
                # no name may begin another: egglog numbers its own
                table = f"p_{number}_{len(done)}_"
                row = f"({table} {name} {' '.join(columns)})"
                parts.append(
                    f"(relation {table} (T {' '.join(columns.values())}))"
                    f"(rule ({' '.join(facts)}) ({row}) :ruleset parts_{number})"
                )
                facts = {row: None}
            done[id(pattern)] = name, facts, columns
            return done[id(pattern)]

        root, facts, _ = visit(law.left)
        if parts:
            self._parted.add(number)
            self._text(f"(ruleset parts_{number})" + "".join(parts))
        return root, list(facts)

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
        report = Report()
        waiting = list(laws)
        numbers: dict[Law, int] = {}
        floods = Floods(frozenset(laws), self._held, budget.nodes if rounds is None else None)
        self._load()  # what was made equal since the last run
        while rounds is None or report.rounds < rounds:
            # A law is compiled when the e-graph first has every op of its left side.
            numbers |= {law: self._compile(law) for law in waiting if law.needs <= self._kinds}
            waiting = [law for law in waiting if law not in numbers]
            self._round += 1
            report.rounds += 1
            before = (len(self._ops), len(self._united))
            for law, matches in floods.due(self._matches(numbers), len(self)):
                size = len(self)
                for i, match in enumerate(matches):
                    if len(self) > budget.nodes or floods.is_flood(len(self) - size):
                        floods.hold(law, matches[i:])
                        break
                    report.matches[law.name] += self._apply(law, numbers[law], match)
            self._text("(run clear 1)")
            self._load()
            if len(self) > budget.nodes:
                report.stopped = "the limit of e-nodes was reached"
                break
            if time.perf_counter() - started > budget.seconds:
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

    def _matches(self, numbers: Mapping[Law, int]) -> Iterator[tuple[Law, list[tuple[int, ...]]]]:
        """Run the left sides once; gives what is new of each law, in a fixed order."""
        together = self._together("law", tuple(numbers.values()))
        parts = self._together("parts", tuple(n for n in numbers.values() if n in self._parted))
        self._text(
            (f"(run-schedule (saturate {parts}))" if parts else "")
            + (f"(run {together} 1)" if together else "")
        )
        frozen = self._egglog.freeze().functions
        to_int = self._egglog.value_to_i64
        for law, number in numbers.items():
            rows = frozen[f"m_{number}_"].rows
            yield law, sorted(tuple(map(to_int, row.inputs)) for row in rows)

    def _together(self, kind: str, numbers: tuple[int, ...]) -> str:
        """One ruleset of several laws: a run has a cost of its own, so they share it."""
        if not numbers:
            return ""
        name = self._combined.get((kind, numbers))
        if name is None:
            name = self._combined[kind, numbers] = f"together_{len(self._combined)}"
            rulesets = " ".join(f"{kind}_{n}" for n in numbers)
            self._text(f"(unstable-combined-ruleset {name} {rulesets})")
        return name

    def _apply(self, law: Law, number: int, match: tuple[int, ...]) -> bool:
        """Build the right side for one match, equal to the root; False where there is none."""
        operands = match[1 : 1 + len(law.tensors)]
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
                self._ranges[i] = of_op(op, ranges, types, found)
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
            self._pending["n_union"].append((a, b))

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
        self._load()
        frozen = self._egglog.freeze().functions
        to_int = self._egglog.value_to_i64
        name = {row.inputs[0]: to_int(row.output) for row in frozen["id"].rows}
        found = [0] * len(self._ops)
        for row in frozen["ref"].rows:
            found[to_int(row.inputs[0])] = name[row.output]
        return found

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
        laws, data, at = list(self._laws), self._journal, 0
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
        found = self._right_side(law, self._laws[law], match)
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


def pattern_size(term: Term | Var) -> int:
    """The number of different ops in a pattern."""
    seen: dict[int, Term] = {}
    stack = [term]
    while stack:
        top = stack.pop()
        if isinstance(top, Term) and id(top) not in seen:
            seen[id(top)] = top
            stack += top.operands
    return len(seen)
