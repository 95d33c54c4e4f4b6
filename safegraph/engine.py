"""What egglog does for an e-graph: congruence, and the matches of left sides.

The one file that knows egglog.  All that it sees are numbers: an op is the number of its interned
spec, an e-class is named by the numbers of its e-nodes.

- Each op class and arity is one egglog function: `conv_3(x, w, b, spec)`.
- The left side of a law is a rule that notes its matches in a table, which is read between rounds.
- New e-nodes go in in bulk, through a file.  Measured with egglog 13.2: 1.3 µs an e-node, where a
  command each takes 140 µs and a Python callback in a rule 20 µs; and a function that raises cannot
  end a run.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from egglog import bindings

from safegraph.law import Law, OpVar, Term, Var
from safegraph.op import Op

_LARGE = 4  # ops in a left side that is matched in parts

_NUMBER = 1 << 40  # less this is the index of an e-node that is a number: it names its class

_SETUP = """
(sort T)
(constructor ref (i64) T :unextractable)
(constructor leaf (i64) T)
(function id (T) i64 :merge (min old new))
(function uniform (T) i64 :merge (min old new))
(relation constant (T))
(relation n_leaf (i64 i64))
(relation n_constant (i64))
(relation n_uniform (i64 i64 i64))
(relation n_union (i64 i64))
(ruleset load) (ruleset facts) (ruleset clear)
(rule ((n_leaf i s)) ((union (ref i) (leaf s)) (set (id (ref i)) i) (delete (n_leaf i s)))
      :ruleset load)
(rule ((n_constant i)) ((constant (ref i)) (delete (n_constant i))) :ruleset load)
(rule ((n_uniform i n u))
      ((set (uniform (ref i)) u) (set (id (ref i)) n) (delete (n_uniform i n u))) :ruleset load)
(rule ((n_union i j)) ((union (ref i) (ref j)) (delete (n_union i j))) :ruleset load)
"""


class Engine:
    """E-nodes by number, their classes, and the left sides of laws."""

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="safegraph-")
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._egglog = bindings.EGraph(fact_directory=self._folder)
        self._declared: set[str] = {"leaf"}
        self._pending: defaultdict[str, list[tuple[int, ...]]] = defaultdict(list)
        self._laws: dict[Law, int] = {}
        self._combined: dict[tuple[str, tuple[int, ...]], str] = {}
        self._parted: set[int] = set()
        self._text(_SETUP)

    # -- in ---------------------------------------------------------------------------------------

    def leaf(self, index: int) -> None:
        """A new e-node that is equal to no other."""
        self._pending["n_leaf"].append((index, index))

    def node(self, index: int, op: Op, operands: Sequence[int]) -> None:
        """A new e-node."""
        name = self._function(type(op), len(operands))
        self._pending["n_" + name].append((index, *operands, op.id))

    def constant(self, index: int) -> None:
        """That an e-node depends on no input."""
        self._pending["n_constant"].append((index,))

    def uniform(self, index: int, number: int, *, written: bool) -> None:
        """That all elements of an e-node are one number, which it may be written as."""
        self._pending["n_uniform"].append((index, index - (1 + written) * _NUMBER, number))

    def union(self, a: int, b: int) -> None:
        """That two e-nodes are equal."""
        self._pending["n_union"].append((a, b))

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

    def load(self) -> None:
        """Bring what is new into egglog, and close it under congruence."""
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

    @property
    def laws(self) -> list[Law]:
        """The laws that were asked for, by number."""
        return list(self._laws)

    def number(self, law: Law) -> int:
        """A law's number; its left side becomes a rule that notes its matches."""
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

    def matches(self, laws: Iterable[Law]) -> Iterator[tuple[Law, list[tuple[int, ...]]]]:
        """Run left sides once; gives what is new of each law, in a fixed order.

        A match is the numbers of the root, of the tensors, of the specs, and of the values that are
        known to be uniform.  A class is named by its oldest e-node, or before others by one that is
        a number, first by one that is written as one.
        """
        numbers = {law: self.number(law) for law in laws}
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
            yield law, sorted(tuple(to_int(v) % _NUMBER for v in row.inputs) for row in rows)

    def clear(self) -> None:
        """Forget the matches that were given."""
        self._text("(run clear 1)")

    def classes(self, count: int) -> list[int]:
        """For every e-node, the number of its class."""
        self.load()
        frozen = self._egglog.freeze().functions
        to_int = self._egglog.value_to_i64
        name = {row.inputs[0]: to_int(row.output) % _NUMBER for row in frozen["id"].rows}
        found = [0] * count
        for row in frozen["ref"].rows:
            found[to_int(row.inputs[0])] = name[row.output]
        return found

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
