"""A graph under rewriting: from the terms that were given to terms that were chosen, law by law.

Every node stands for a class of the e-graph and has one of its forms; every step gives a node
another form by a law whose left side it is, literally.  Users come before what they use: so what is
below still has the form that it was given with, on which laws were found.  To apply a law, nodes
inside its left side are brought to the forms that it asks for, in the same way; a node with other
users is copied first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from safegraph.explain.congruence import Congruence, Link, Reason, Side
from safegraph.law import GRADES
from safegraph.op import Op

MOST_REWRITES = 20_000
SEVERAL = "several laws"
"""The name of a step for which no sequence of single laws was found within the limit."""
_MOST_PAIRS = 2_000  # of nodes compared to tell whether two terms are the same


@dataclass(frozen=True)
class Write:
    """A node gets a form; one without an op is another name for its operand, or a leaf."""

    node: int
    op: Op | None
    operands: tuple[int, ...]


@dataclass(frozen=True)
class Event:
    """A step: a law, the nodes of both its sides, operands first, and what was written for it."""

    name: str
    grade: str
    laws: tuple[str, ...]
    """More than one only where several were used at once."""
    node: int
    """The root of both sides."""
    before: tuple[int, ...]
    after: tuple[int, ...]
    writes: tuple[Write, ...]
    read: frozenset[int]
    """Other nodes that must be what they were."""


class _StuckError(Exception):
    """No way was found within the limit."""


@dataclass(frozen=True)
class _Match:
    """A side found in the graph: the node of each slot, and all nodes that have its ops."""

    slots: dict[int, int]
    nodes: tuple[int, ...]


@dataclass(frozen=True)
class _Mismatch:
    """Where a side differs: the operand places down to there, and what should be there."""

    places: tuple[int, ...]
    enode: int | None
    node: int | None


class Rewriting:
    """The graph of some e-nodes, to be rewritten."""

    def __init__(
        self, congruence: Congruence, roots: Sequence[int], limit: int = MOST_REWRITES
    ) -> None:
        self.congruence = congruence
        self.egraph = congruence.egraph
        self.events: list[Event] = []
        self.copied: dict[int, int] = {}
        """Copies, and what they are copies of."""
        self._limit = limit
        self._op: list[Op | None] = []
        self._operands: list[tuple[int, ...]] = []
        self._enode: list[int] = []  # one of the form that a node has
        self._users: list[int] = []  # how many operands a node is
        self._writes: list[Write] = []  # since the last event
        self._read: set[int] = set()
        self._leaves: dict[int, int] = {}
        self._doing: set[tuple[tuple[int, ...], tuple[int, ...]]] = set()
        self.given: dict[int, int] = {}
        """The node of each e-node of the graph as it was given."""
        for root in roots:
            self._term(root, self.given)
        self.outputs = [self._new(None, (self.given[root],), root) for root in roots]
        self.first = tuple(self._writes)
        """What makes the graph as it was given."""
        self._writes.clear()

    # -- nodes ------------------------------------------------------------------------------------

    def _new(self, op: Op | None, operands: tuple[int, ...], enode: int) -> int:
        node = len(self._op)
        self._op.append(op)
        self._operands.append(operands)
        self._enode.append(enode)
        self._users.append(0)
        for operand in operands:
            self._users[operand] += 1
        self._writes.append(Write(node, op, operands))
        return node

    def _write(self, node: int, op: Op | None, operands: tuple[int, ...], enode: int) -> None:
        for operand in operands:
            self._users[operand] += 1
        before = self._operands[node]
        self._op[node], self._operands[node], self._enode[node] = op, operands, enode
        self._writes.append(Write(node, op, operands))
        stack = list(before)
        while stack:
            left = stack.pop()
            self._users[left] -= 1
            if not self._users[left]:  # or all would seem to be shared in the end
                stack += self._operands[left]
                self._operands[left] = ()

    def _term(self, root: int, done: dict[int, int]) -> int:
        """The term that an e-node was made as, in new nodes."""
        stack = [root]
        while stack:
            top = stack[-1]
            missing = [o for o in self.egraph.operands_of(top) if o not in done]
            if top in done or not missing:
                stack.pop()
                if top not in done:
                    done[top] = self._made(top, done)
            else:
                stack += reversed(missing)
        return done[root]

    def _made(self, enode: int, done: dict[int, int]) -> int:
        op = self.egraph.op_of(enode)
        if op is not None:
            return self._new(op, tuple(done[o] for o in self.egraph.operands_of(enode)), enode)
        if enode not in self._leaves:
            self._leaves[enode] = self._new(None, (), enode)
        return self._leaves[enode]

    def _resolve(self, node: int) -> int:
        """The node that this is another name for."""
        while self._op[node] is None and self._operands[node]:
            (node,) = self._operands[node]
        return node

    def _child(self, node: int, place: int) -> int:
        return self._resolve(self._operands[node][place])

    def _aliases(self, node: int) -> Iterator[int]:
        """The names for other nodes that lead from a node to the one that it stands for."""
        while self._op[node] is None and self._operands[node]:
            yield node
            (node,) = self._operands[node]

    def _copy(self, node: int) -> int:
        self._read.add(node)
        # a leaf stays what it is: its copy is another name
        operands = (node,) if self._op[node] is None else self._operands[node]
        copy = self._new(self._op[node], operands, self._enode[node])
        self.copied[copy] = node
        return copy

    def _redirect(self, node: int, place: int, to: int) -> None:
        operands = self._operands[node]
        if operands[place] != to:
            self._read.update(self._aliases(operands[place]))
            operands = (*operands[:place], to, *operands[place + 1 :])
            self._write(node, self._op[node], operands, self._enode[node])

    def _own(self, node: int, place: int) -> int:
        """An operand that may be written to: a copy, if it has other users."""
        direct = self._operands[node][place]
        child = self._resolve(direct)
        chain = (*self._aliases(direct), child)
        if self._op[child] is None or any(self._users[n] > 1 for n in chain):
            child = self._copy(child)
            self._redirect(node, place, child)
        return child

    def _writable(self, node: int) -> int:
        """What a node is another name for, if nothing else is; or else the node."""
        while self._op[node] is None:
            (target,) = self._operands[node]
            leaf = self._op[target] is None and not self._operands[target]
            if leaf or self._users[target] > 1:
                break
            node = target
        return node

    def _form(self, node: int) -> tuple[int, ...]:
        return self.congruence.form(self._enode[self._resolve(node)])

    def _same(self, a: int, b: int) -> bool:
        """Are two nodes the same term?  False where that takes too long to tell."""
        seen: set[tuple[int, int]] = set()
        stack = [(self._resolve(a), self._resolve(b))]
        while stack:
            x, y = pair = stack.pop()
            if x == y or pair in seen:
                continue
            if self._op[x] is None or self._op[x] is not self._op[y] or len(seen) > _MOST_PAIRS:
                return False
            seen.add(pair)
            stack += ((self._child(x, k), self._child(y, k)) for k in range(len(self._operands[x])))
        for pair in seen:
            self._read.update(pair)
        return True

    # -- laws -------------------------------------------------------------------------------------

    def _bring(self, node: int, enode: int) -> None:
        """Give a node the form of an e-node of its class, by laws."""
        wanted = self.congruence.form(enode)
        if self._form(node) == wanted:
            return
        doing = self._form(node), wanted
        if doing in self._doing:
            raise _StuckError
        self._doing.add(doing)
        try:
            for link in self.congruence.path(self._enode[self._resolve(node)], enode):
                if link.reason is not None:
                    self._apply(node, link)
            self._bring(node, enode)
        finally:
            self._doing.discard(doing)

    def _apply(self, node: int, link: Link) -> None:
        """One law at a node."""
        reason = link.reason
        assert reason is not None
        sides = (reason.left, reason.right) if link.forward else (reason.right, reason.left)
        before, after = sides
        node = self._writable(node)
        found = self._found(node, before)
        if len(self.events) >= self._limit:
            raise _StuckError
        slots = dict(found.slots)
        for slot in range(len(after.leaves)):
            if slot not in slots:  # the other side does not have this variable
                slots[slot] = self._term(after.leaves[slot], {})
        made: list[int] = []
        for slot in range(len(after.leaves), len(after.leaves) + len(after.steps)):
            op, places, enode = after.step(slot)
            operands = tuple(slots[p] for p in places)
            if slot == after.result:
                self._write(node, op, operands, enode)
                slots[slot] = node
            else:
                slots[slot] = self._new(op, operands, enode)
            made.append(slots[slot])
        if after.is_leaf(after.result):
            target = self._resolve(slots[after.result])
            self._write(node, None, (target,), self._enode[target])
        self._close([reason], node, found.nodes, made)

    def _close(
        self, reasons: Sequence[Reason], node: int, before: Iterable[int], after: Iterable[int]
    ) -> None:
        laws = tuple(dict.fromkeys(reason.name for reason in reasons))
        name = laws[0] if len(laws) == 1 else SEVERAL
        grade = max((reason.grade for reason in reasons), key=GRADES.index, default=GRADES[0])
        nodes = tuple(before), tuple(after)
        self.events.append(
            Event(name, grade, laws, node, *nodes, tuple(self._writes), frozenset(self._read))
        )
        self._writes.clear()
        self._read.clear()

    def _found(self, node: int, side: Side) -> _Match:
        """Make a node an instance of a side, literally."""
        if side.is_leaf(side.result):
            if self._op[node] is not None:
                copy = self._copy(node)
                self._write(node, None, (copy,), self._enode[node])
            return _Match({side.result: self._resolve(node)}, (node,))
        self._bring(node, side.enode(side.result))
        if self._op[node] is None:
            whole = self._resolve(node)
            self._read.add(whole)
            self._write(node, self._op[whole], self._operands[whole], self._enode[whole])
        for _ in range(4 * len(side.steps) + 8):
            found = self._match(node, side)
            if isinstance(found, _Match):
                return found
            self._mend(node, found)
        raise _StuckError

    def _match(self, node: int, side: Side) -> _Match | _Mismatch:
        slots: dict[int, int] = {}
        nodes: dict[int, None] = {}
        seen: set[tuple[int, int]] = set()
        stack: list[tuple[int, int, tuple[int, ...]]] = [(side.result, node, ())]
        while stack:
            slot, here, places = stack.pop()
            if (slot, here) in seen:
                continue
            seen.add((slot, here))
            if side.is_leaf(slot):
                if not self._same(slots.setdefault(slot, here), here):
                    return _Mismatch(places, None, slots[slot])
                continue
            op, inner, enode = side.step(slot)
            if self._form(here) != self.congruence.form(enode):
                return _Mismatch(places, enode, None)
            assert self._op[here] is op, "equal forms have equal ops"
            nodes[here] = None
            slots[slot] = here
            for place, below in enumerate(inner):
                if not side.is_leaf(below):
                    self._read.update(self._aliases(self._operands[here][place]))
                stack.append((below, self._child(here, place), (*places, place)))
        return _Match(slots, tuple(reversed(nodes)))

    def _mend(self, node: int, wrong: _Mismatch) -> None:
        for place in wrong.places:
            node = self._own(node, place)
        if wrong.enode is not None:
            self._bring(node, wrong.enode)
        elif wrong.node is not None:
            self._unify(node, wrong.node)

    def _unify(self, node: int, wanted: int) -> None:
        """Make a node the same term as another one of its class."""
        if self._same(node, wanted):
            return
        self._bring(node, self._enode[wanted])
        if self._same(node, wanted):
            return
        if self._op[node] is None:
            raise _StuckError
        for place in range(len(self._operands[node])):
            if not self._same(self._child(node, place), self._child(wanted, place)):
                self._unify(self._own(node, place), self._child(wanted, place))

    # -- from what was given to what was chosen ---------------------------------------------------

    def finish(self, chosen: Sequence[int]) -> None:
        """Rewrite the graph to these e-nodes: one for each class that it needs, operands first."""
        find = self.congruence.find
        # where the chosen graph uses each class
        places: dict[int, list[tuple[int, int]]] = {find(enode): [] for enode in chosen}
        for output in self.outputs:
            places[find(self._enode[output])].append((output, 0))
        for enode in reversed(chosen):
            for node in self._finished(enode, places[find(enode)]):
                for place, operand in enumerate(self.egraph.operands_of(enode)):
                    places[find(operand)].append((node, place))
        if self._writes and self.events:  # names for nodes that are the same term
            last = self.events.pop()
            self.events.append(replace(last, writes=(*last.writes, *self._writes)))
            self._writes.clear()

    def _finished(self, enode: int, places: Iterable[tuple[int, int]]) -> list[int]:
        """The nodes of a class, where the chosen graph uses it, in the chosen form."""
        groups: dict[int, list[tuple[int, int]]] = {}
        for user, place in places:
            child = self._child(user, place)
            twin = next((other for other in groups if self._same(other, child)), child)
            groups.setdefault(twin, []).append((user, place))
        if len(groups) > 1:
            groups = self._joined(groups, enode)
        done = []
        for node, users in groups.items():
            target = self._to_write(node, users, enode)
            try:
                self._bring(target, enode)
            except _StuckError:
                self._jump(target, enode)
            if self.egraph.op_of(enode) is not None:
                done.append(self._resolve(target))
        return done

    def _to_write(self, node: int, users: Sequence[tuple[int, int]], enode: int) -> int:
        """A node that these users alone use, if it is to get another form."""
        if self._form(node) != self.congruence.form(enode) and (
            self._op[node] is None or self._users[node] > len(users)
        ):
            node = self._copy(node)
        for user, place in users:
            if self._child(user, place) != node:
                self._redirect(user, place, node)
        return node

    def _joined(
        self, groups: Mapping[int, list[tuple[int, int]]], enode: int
    ) -> dict[int, list[tuple[int, int]]]:
        """Nodes of one class whose ways to the chosen form meet, made one where they do."""

        def way(node: int, to: int) -> int:
            return len(self.congruence.path(self._enode[node], to))

        found: dict[int, list[tuple[int, int]]] = {}
        for node in sorted(groups, key=lambda node: way(node, enode)):
            users, far = groups[node], way(node, enode)
            near = (n for n in found if way(node, self._enode[n]) + way(n, enode) == far)
            goal = next(near, None)
            if goal is not None:
                node = self._to_write(node, users, self._enode[goal])
                with suppress(_StuckError):
                    self._bring(node, self._enode[goal])
                if self._same(node, goal):
                    users = [*found[goal], *users]
                    node = goal
                    for user, place in users:
                        if self._child(user, place) != node:
                            self._redirect(user, place, node)
            found[self._resolve(node)] = users
        return found

    def _jump(self, node: int, enode: int) -> None:
        """Give a node its form at once, naming the laws that make the two equal."""
        now = self._enode[self._resolve(node)]
        reasons = self.congruence.reasons([(now, enode)])
        before = (self._resolve(node),)
        known: dict[int, int] = {}
        op = self.egraph.op_of(enode)
        if op is None:
            leaf = self._term(enode, known)
            self._write(node, None, (leaf,), enode)
        else:
            operands = tuple(self._term(o, known) for o in self.egraph.operands_of(enode))
            self._write(node, op, operands, enode)
        self._close(reasons, node, before, (*known.values(), node))
