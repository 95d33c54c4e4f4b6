"""One e-node for each needed class, kept acyclic and priced while single classes are swapped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf

from safegraph.extract.network import UNKNOWN, Network, postorder

STEPS = 5_000  # how far a search for a cycle looks before it gives the swap up as unsafe


@dataclass(frozen=True)
class Swap:
    """What a swap did, for taking it back."""

    owner: int
    before: int
    entered: list[int]
    left: list[tuple[int, int]]  # class, e-node
    positions: dict[int, float]  # of the classes that left or were lowered, before
    numbering: int
    delta: float  # change of the total, in seconds
    matters: bool  # the total fell by more than rounding


class Selection:
    """The e-nodes chosen for the classes that the roots need (the *active* classes).

    `chosen[c]` is the e-node of an active class. For others, `choice[c]` is the e-node by which it
    would be made now and `price[c]` (seconds) what that would add, active classes being free;
    both are estimates that `reprice` renews. `weight[c]` is what would be freed if the active
    class c were not needed: the cost of all that it dominates; `dominate` renews it.

    Every active class has a `position` above those of its operands. Positions are floats, so that
    a chain enters between two of them without renumbering the rest.
    """

    def __init__(self, network: Network, roots: Iterable[int], chosen: Mapping[int, int]) -> None:
        count = len(network.members)
        self.network = network
        self.roots = tuple(dict.fromkeys(roots))
        self.chosen = [UNKNOWN] * count
        self.references = [0] * count
        self.position = [0.0] * count
        self.numbering = 0
        self.price: list[float] = []
        self.choice: list[int] = []
        self.weight: list[float] = []
        order, cyclic = postorder(self.roots, lambda c: network.operands[chosen[c]])
        if cyclic is not None:
            raise ValueError(f"the selection needs class {cyclic} to make class {cyclic}")
        for place, active in enumerate(order):
            self.chosen[active] = chosen[active]
            self.position[active] = float(place)
            self._refer(chosen[active])
        for root in self.roots:
            self.references[root] += 1
        self.reprice()
        self.dominate()

    def active(self) -> list[int]:
        """The active classes, operands before users."""
        found = (c for c, node in enumerate(self.chosen) if node != UNKNOWN)
        return sorted(found, key=lambda c: (self.position[c], c))

    def mapping(self) -> dict[int, int]:
        """The selection as class -> e-node, operands first."""
        return {c: self.chosen[c] for c in self.active()}

    def reprice(self) -> None:
        """Renew `price` and `choice` of the inactive classes."""
        free = [node != UNKNOWN for node in self.chosen]
        self.price, self.choice = self.network.cheapest(free)

    # ------------------------------------------------------------------ what a class holds alone

    def dominate(self) -> None:
        """Renew `weight` by the dominator tree of the selection.

        The immediate dominator of a class is the lowest common ancestor of its users, found with
        the jump pointers of Myers (1983): O(log depth) each, where climbing one by one would be
        quadratic in a deep graph.
        """
        top = len(self.chosen)
        self._depth, self._jump, self._above = [0] * (top + 1), [top] * (top + 1), [top] * (top + 1)
        met = [False] * (top + 1)
        for root in self.roots:
            met[root] = True
        order = self.active()
        for active in reversed(order):
            parent = self._above[active]
            self._depth[active] = self._depth[parent] + 1
            leap = self._jump[parent]
            even = (
                self._depth[parent] - self._depth[leap]
                == self._depth[leap] - self._depth[self._jump[leap]]
            )
            self._jump[active] = self._jump[leap] if even else parent
            for operand in self.network.operands[self.chosen[active]]:
                self._above[operand] = (
                    self._ancestor(self._above[operand], active) if met[operand] else active
                )
                met[operand] = True
        self.weight = [0.0] * (top + 1)
        for active in order:
            self.weight[active] += self.network.cost[self.chosen[active]]
            self.weight[self._above[active]] += self.weight[active]

    def dominates(self, owner: int, other: int) -> bool:
        """Whether `other` was needed only through `owner` when `dominate` last ran."""
        return self._climb(other, self._depth[owner]) == owner

    def _climb(self, start: int, depth: int) -> int:
        while self._depth[start] > depth:
            leap = self._jump[start]
            start = leap if self._depth[leap] >= depth else self._above[start]
        return start

    def _ancestor(self, one: int, other: int) -> int:
        depth = min(self._depth[one], self._depth[other])
        one, other = self._climb(one, depth), self._climb(other, depth)
        while one != other:
            if self._jump[one] != self._jump[other]:
                one, other = self._jump[one], self._jump[other]
            else:
                one, other = self._above[one], self._above[other]
        return one

    # ------------------------------------------------------------------------------------- swaps

    def plan(self, operands: Sequence[int], limit: float, user: int) -> list[int] | None:
        """The inactive classes that making `operands` activates, operands first.

        None if they cost `limit` seconds or more, or form a cycle (stale choices may), or end in
        `user` itself, or need a class that nothing finite makes.
        """
        if all(self.chosen[operand] != UNKNOWN for operand in operands):
            return None if user in operands else []
        cost, network, hopeless = 0.0, self.network, False

        def made_from(needed: int) -> Sequence[int]:
            nonlocal cost, hopeless
            node = self.choice[needed]
            # An early end is an empty operand list: the walk then has nothing left to open.
            hopeless = hopeless or node == UNKNOWN
            if hopeless or cost + network.cost[node] >= limit:
                hopeless = True
                return ()
            cost += network.cost[node]
            hopeless = user in network.operands[node]
            return () if hopeless else network.operands[node]

        order, cyclic = postorder(
            operands, made_from, lambda c: hopeless or self.chosen[c] != UNKNOWN
        )
        return None if hopeless or cyclic is not None or user in operands else order

    def depends(self, start: int, owner: int, clear: set[int]) -> bool:
        """Whether the active class `start` needs `owner`; `clear` collects classes that do not.

        Only classes at or above the position of `owner` can; past `STEPS` of them the answer is
        yes, the safe one.
        """
        floor = self.position[owner]
        if self.position[start] < floor or start in clear:
            return False
        seen, stack = {start}, [start]
        while stack:
            top = stack.pop()
            if top == owner or len(seen) > STEPS:
                return True
            for operand in self.network.operands[self.chosen[top]]:
                if self.position[operand] >= floor and operand not in seen and operand not in clear:
                    seen.add(operand)
                    stack.append(operand)
        clear |= seen
        return False

    def swap(self, owner: int, node: int) -> Swap | None:
        """Make the active class `owner` by `node`; None, and no change, if that cannot pay.

        The change of the total is exact: what enters and what leaves are walked, and a class that
        would be freed but is used by the new chain stays.
        """
        network = self.network
        room = self.weight[owner] - network.cost[node]
        entered = self.plan(network.operands[node], room, owner) if room > 0 else None
        if entered is None:
            return None
        fresh = set(entered)
        edge = dict.fromkeys(network.operands[node])
        for inside in entered:
            edge.update(dict.fromkeys(network.operands[self.choice[inside]]))
        leaves = [leaf for leaf in edge if leaf not in fresh]
        lower: set[int] = set()
        if any(self.depends(leaf, owner, lower) for leaf in leaves):
            return None
        self._enter(entered)
        before, self.chosen[owner] = self.chosen[owner], node
        self._refer(node)
        left = self._release(before)
        positions = {c: self.position[c] for c in (*lower, *(c for c, _ in left))}
        gained = sum(network.cost[self.chosen[c]] for c in entered) + network.cost[node]
        freed = sum(network.cost[was] for _, was in left) + network.cost[before]
        delta = gained - freed
        numbering = self.numbering
        self._place(owner, leaves, lower, entered)
        matters = delta < -1e-12 * (gained + freed)
        return Swap(owner, before, entered, left, positions, numbering, delta, matters)

    def undo(self, swap: Swap) -> None:
        """Take back the latest swap that was not taken back."""
        for left, node in swap.left:
            self.chosen[left] = node
            self._refer(node)
        node, self.chosen[swap.owner] = self.chosen[swap.owner], swap.before
        self._refer(swap.before)
        self._release(node)
        # Order is restored to the letter: a class that was lowered meanwhile may be below what its
        # former e-node needs.
        for moved, position in swap.positions.items():
            self.position[moved] = position
        if swap.numbering != self.numbering:
            self._renumber()  # those positions are of an older numbering

    def open(self, needed: int) -> float | None:
        """Activate a class for users to come, and hold it; its cost, or None if it has a cycle."""
        entered = self.plan((needed,), inf, UNKNOWN)
        if entered is None:
            return None
        self._enter(entered)
        self.references[needed] += 1
        for inside in entered:
            operands = self.network.operands[self.chosen[inside]]
            self.position[inside] = 0.5 + max((self.position[c] for c in operands), default=-1.0)
        return sum(self.network.cost[self.chosen[inside]] for inside in entered)

    def close(self, needed: int) -> None:
        """Stop holding an opened class: it leaves if nothing uses it."""
        self.references[needed] -= 1
        if not self.references[needed]:
            node, self.chosen[needed] = self.chosen[needed], UNKNOWN
            self._forget(needed, node)
            self._release(node)

    def _refer(self, node: int) -> None:
        for operand in self.network.operands[node]:
            self.references[operand] += 1

    def _enter(self, entered: Iterable[int]) -> None:
        for inside in entered:
            self.chosen[inside] = self.choice[inside]
            self._refer(self.chosen[inside])

    def _release(self, node: int) -> list[tuple[int, int]]:
        """Take back the references of an e-node; the classes that nothing needs any more leave."""
        left: list[tuple[int, int]] = []
        stack = [node]
        while stack:
            for operand in self.network.operands[stack.pop()]:
                self.references[operand] -= 1
                if self.references[operand]:
                    continue
                was = self.chosen[operand]
                left.append((operand, was))
                self.chosen[operand] = UNKNOWN
                self._forget(operand, was)
                stack.append(was)
        return left

    def _forget(self, left: int, node: int) -> None:
        # The way back stays known, so that later chains may run through it.  What was active when
        # the prices were made had price 0; its own e-node is the least that it costs now.
        self.choice[left] = node
        self.price[left] = self.price[left] or self.network.cost[node]

    def _place(self, owner: int, leaves: list[int], lower: set[int], entered: list[int]) -> None:
        """Give positions below `owner` to what enters and to the leaves that stood above it.

        Lowering a class never puts it above a user of its; `lower` is closed downwards as far as
        the position of `owner`, so everything else that it needs is below already.
        """
        moved = sorted(lower, key=lambda c: (self.position[c], c))
        below = [c for c in leaves if c not in lower]
        for high in moved:
            operands = self.network.operands[self.chosen[high]]
            below.extend(c for c in operands if c not in lower)
        moved += entered
        low = max((self.position[c] for c in below), default=self.position[owner] - 1.0)
        step = (self.position[owner] - low) / (len(moved) + 1)
        places = [low + step * (place + 1) for place in range(len(moved))]
        for inside, place in zip(moved, places, strict=True):
            self.position[inside] = place
        ladder = [low, *places, self.position[owner]]
        if any(a >= b for a, b in pairwise(ladder)):
            self._renumber()  # the floats between the two neighbours are used up

    def _renumber(self) -> None:
        active = [c for c, node in enumerate(self.chosen) if node != UNKNOWN]
        order, _ = postorder(active, lambda c: self.network.operands[self.chosen[c]])
        for place, inside in enumerate(order):
            self.position[inside] = float(place)
        self.numbering += 1
