"""Why two e-nodes are equal: the unions of an e-graph once more, each kept with its reason.

egglog tells which terms are equal, and not why.  So what was made equal is replayed here under
congruence closure, in the order in which it was found, as in R. Nieuwenhuis and A. Oliveras,
"Proof-producing congruence closure" (RTA 2005): whatever joins two classes is kept, and rests only
on what was joined before it.  That makes a path of reasons between any two e-nodes of a class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf

from safegraph.egraph import EGraph, Union
from safegraph.law import Law, OpVar, Term, Var
from safegraph.op import Op, by_id


@dataclass(frozen=True)
class Side:
    """One side of an equation: e-nodes that stand for variables, and ops on them.

    Slots are numbered, the leaves first.  Each step is an op, the slots of its operands, and an
    e-node of this form; `result` is the slot of the whole.
    """

    leaves: tuple[int, ...]
    steps: tuple[tuple[Op, tuple[int, ...], int], ...]
    result: int

    def is_leaf(self, slot: int) -> bool:
        """Is it a variable?"""
        return slot < len(self.leaves)

    def step(self, slot: int) -> tuple[Op, tuple[int, ...], int]:
        """Op, operand slots and e-node of a slot that is no leaf."""
        return self.steps[slot - len(self.leaves)]

    def enode(self, slot: int) -> int:
        """An e-node of the form that a slot has."""
        return self.leaves[slot] if self.is_leaf(slot) else self.step(slot)[2]


@dataclass(frozen=True, eq=False)
class Reason:
    """An equation of two terms that a law, or another step, made."""

    name: str
    law: Law | None
    left: Side
    right: Side

    @property
    def grade(self) -> str:
        """How far both sides are equal; steps that are no laws sum in another order."""
        return "real" if self.law is None else self.law.grade


@dataclass(frozen=True)
class Link:
    """Two e-nodes of a class that were joined: by a reason, or because their operands are equal."""

    first: int
    second: int
    reason: Reason | None
    forward: bool = True
    """Is `first` the left side of the reason?"""
    time: int = 0


class Congruence:
    """The classes of an e-graph, with reasons."""

    def __init__(self, egraph: EGraph) -> None:
        count = len(egraph)
        self.egraph = egraph
        self._patterns: dict[Law, list[tuple[Op | int, tuple[int, ...]]]] = {}
        # Joined classes are a tree: of each root that was put below another, which, when, and by
        # what.  `_near` is the same with shortcuts.
        self._above = list(range(count))
        self._time: list[float] = [inf] * count
        self._joined: dict[int, tuple[int, int, _Why | None]] = {}
        self._near = list(range(count))
        self._size = [1] * count
        self._users: list[list[int]] = [[] for _ in range(count)]
        self._forms: dict[tuple[int, ...], int] = {}
        for index in range(count):
            for operand in set(egraph.operands_of(index)):
                self._users[operand].append(index)
            key = self._key(index)
            if key:
                self._forms[key] = index
        for union in egraph.journal():
            if self.find(union.a) != self.find(union.b):
                self._join(*self._why(union))

    # -- classes ----------------------------------------------------------------------------------

    def find(self, index: int) -> int:
        """The e-node that stands for the class of this one."""
        near = self._near
        while near[index] != index:
            near[index] = index = near[near[index]]
        return index

    def form(self, index: int) -> tuple[int, ...]:
        """The op and the classes of the operands; a leaf has a form of its own."""
        return self._key(index) or (-1, index)

    def _key(self, index: int) -> tuple[int, ...]:
        op = self.egraph.op_of(index)
        return () if op is None else (op.id, *map(self.find, self.egraph.operands_of(index)))

    def _join(self, a: int, b: int, why: _Why | None) -> None:
        """Make two e-nodes equal, and all that follows from it."""
        waiting: list[tuple[int, int, _Why | None]] = [(a, b, why)]
        while waiting:
            a, b, why = waiting.pop()
            small, large = self.find(a), self.find(b)
            if small == large:
                continue
            if self._size[small] > self._size[large]:
                small, large, a, b = large, small, b, a
            self._joined[small] = a, b, why
            self._above[small] = self._near[small] = large
            self._time[small] = len(self._joined)
            self._size[large] += self._size[small]
            for user in self._users[small]:
                other = self._forms.setdefault(self._key(user), user)
                if self.find(other) != self.find(user):
                    waiting.append((user, other, None))
            self._users[large] += self._users[small]
            self._users[small] = []

    def _why(self, union: Union) -> tuple[int, int, _Why]:
        """The e-node of the left side, that of the right side, and what was known of them."""
        if union.law is None:
            if not union.match:
                return union.a, union.b, _Why(union, ())
            return union.match[1 + union.match[0]], union.b, _Why(union, ())
        law, match = union.law, union.match
        tensors = len(law.tensors)
        slots = list(match[1 : 1 + tensors])
        # What matched was there when it did, and classes have only grown since.
        for head, places in self._pattern(law):
            number = head.id if isinstance(head, Op) else match[1 + tensors + head]
            slots.append(self._forms[(number, *(self.find(slots[p]) for p in places))])
        return slots[-1], union.b, _Why(union, tuple(slots[tensors:]))

    def _pattern(self, law: Law) -> list[tuple[Op | int, tuple[int, ...]]]:
        """The left side as steps on slots: an op, or the place of a variable op in the match."""
        if law not in self._patterns:
            steps: list[tuple[Op | int, tuple[int, ...]]] = []
            slots: dict[int, int] = {}

            def visit(term: Term | Var) -> int:
                if isinstance(term, Var):
                    return law.tensors.index(term.name)
                if id(term) not in slots:
                    places = tuple(visit(o) for o in term.operands)
                    head = term.head
                    assert isinstance(head, Op | OpVar), f"{law}: only the right side is computed"
                    steps.append((head if isinstance(head, Op) else law.specs.index(head), places))
                    slots[id(term)] = len(law.tensors) + len(steps) - 1
                return slots[id(term)]

            visit(law.left)
            self._patterns[law] = steps
        return self._patterns[law]

    # -- reasons ----------------------------------------------------------------------------------

    def path(self, a: int, b: int) -> list[Link]:
        """From one e-node to another of its class; ValueError if they are not equal."""
        if self.find(a) != self.find(b):
            raise ValueError(f"the e-nodes {a} and {b} are not equal")
        links: list[Link] = []
        stack: list[tuple[int, int] | Link] = [(a, b)]
        while stack:
            top = stack.pop()
            if isinstance(top, Link):
                links.append(top)
            elif top[0] != top[1]:
                link = self._last(*top)
                stack += [(link.second, top[1]), link, (top[0], link.first)]
        return links

    def _last(self, a: int, b: int) -> Link:
        """What joined the classes of two e-nodes, from the first to the second."""
        first, second = a, b
        last, turned = a, False
        while first != second:
            if self._time[first] <= self._time[second]:
                last, turned = first, False
                first = self._above[first]
            else:
                last, turned = second, True
                second = self._above[second]
        x, y, why = self._joined[last]
        time = int(self._time[last])
        if turned:
            x, y = y, x
        if why is None:
            return Link(x, y, None, time=time)
        reason = self._reason(why)
        return Link(x, y, reason, x == reason.left.enode(reason.left.result), time)

    def _reason(self, why: _Why) -> Reason:
        union = why.union
        if union.law is None:
            leaves = union.match[1 : 1 + union.match[0]] if union.match else (union.a, union.b)
            if not union.match:
                return Reason(union.reason, None, Side(leaves, (), 0), Side(leaves, (), 1))
            opened = union.match[1 + len(leaves) :]
            inner = {self.find(e): e for e in reversed(opened)}
            left = self._opened(opened[0], leaves, self.find, inner)
            return Reason(
                union.reason, None, left, self._opened(union.b, leaves, lambda enode: enode, {})
            )
        law, match = union.law, union.match
        tensors = len(law.tensors)
        leaves = match[1 : 1 + tensors]
        pattern = [
            (head if isinstance(head, Op) else by_id(match[1 + tensors + head]), places)
            for head, places in self._pattern(law)
        ]
        left = Side(
            leaves,
            tuple((o, p, i) for (o, p), i in zip(pattern, why.inner, strict=True)),
            tensors + len(pattern) - 1,
        )
        built, result = self.egraph.right_side(law, match)
        slots, steps = list(leaves), []
        for op, places, _ in built:
            slots.append(self.egraph.known(op, tuple(slots[p] for p in places)))
            steps.append((op, places, slots[-1]))
        return Reason(union.reason, law, left, Side(leaves, tuple(steps), result))

    def _opened(
        self,
        root: int,
        leaves: Sequence[int],
        name: Callable[[int], int],
        inner: Mapping[int, int],
    ) -> Side:
        """The term of an e-node down to leaves.

        Operands go by `name`, those of leaves first; `inner` has the e-nodes that names stand for.
        """
        slots = {name(leaf): slot for slot, leaf in enumerate(leaves)}
        done: dict[int, int] = {}
        steps: list[tuple[Op, tuple[int, ...], int]] = []
        stack = [root]
        while stack:
            top = stack[-1]
            operands = [name(o) for o in self.egraph.operands_of(top)]
            below = {o: inner.get(o, o) for o in operands if o not in slots}
            missing = [enode for enode in below.values() if enode not in done]
            if top not in done and missing:
                stack += missing
                continue
            stack.pop()
            if top not in done:
                op = self.egraph.op_of(top)
                assert op is not None, "the leaves are given"
                places = tuple(slots[o] if o in slots else done[below[o]] for o in operands)
                done[top] = len(leaves) + len(steps)
                steps.append((op, places, top))
        return Side(tuple(leaves), tuple(steps), done[root])

    def reasons(self, pairs: Iterable[tuple[int, int]]) -> list[Reason]:
        """All reasons on which these equalities rest, in the order in which they were found."""
        found: dict[int, Link] = {}
        stack = list(pairs)
        while stack:
            for link in self.path(*stack.pop()):
                if link.time not in found:
                    found[link.time] = link
                    stack += self._rests_on(link)
        return [link.reason for _, link in sorted(found.items()) if link.reason is not None]

    def _rests_on(self, link: Link) -> Iterator[tuple[int, int]]:
        operands = self.egraph.operands_of
        if link.reason is None:
            yield from zip(operands(link.first), operands(link.second), strict=True)
            return
        left = link.reason.left
        for _, places, index in left.steps:
            yield from zip(operands(index), map(left.enode, places), strict=True)


@dataclass(frozen=True)
class _Why:
    union: Union
    inner: tuple[int, ...]
    """The e-nodes of the ops of the left side."""


def laws_between(egraph: EGraph, a: int, b: int) -> tuple[str, ...]:
    """The laws that make two e-nodes of a class equal, in the order in which they were used.

    They suffice; another proof may need fewer.  ValueError if the e-nodes are not equal.
    """
    reasons = Congruence(egraph).reasons([(a, b)])
    return tuple(dict.fromkeys(reason.name for reason in reasons))


__all__ = ["Congruence", "Link", "Reason", "Side", "laws_between"]
