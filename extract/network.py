"""The e-nodes that may be chosen, indexed both ways, and the two walks over them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from math import inf

UNKNOWN = -1  # no e-node: the class is not selected, or nothing finite can make it


@dataclass(frozen=True)
class Network:
    """The e-nodes that a selection may use, indexed both ways.

    `operands[i]` holds distinct classes (a class used twice is paid once); `members[c]` are the
    usable e-nodes of a class, `users[c]` the usable e-nodes that have it as an operand.
    """

    of: Sequence[int]
    operands: Sequence[tuple[int, ...]]
    cost: Sequence[float]
    members: Sequence[Sequence[int]]
    users: Sequence[Sequence[int]]

    @classmethod
    def over(
        cls,
        of: Sequence[int],
        operands: Sequence[tuple[int, ...]],
        cost: Sequence[float],
        usable: Iterable[int],
        classes: int,
    ) -> Network:
        """Index the `usable` e-nodes, given in ascending order."""
        members: list[list[int]] = [[] for _ in range(classes)]
        users: list[list[int]] = [[] for _ in range(classes)]
        for node in usable:
            members[of[node]].append(node)
            for operand in operands[node]:
                users[operand].append(node)
        return cls(of, operands, cost, members, users)

    def cheapest(
        self, free: Sequence[bool], share: Sequence[float] | None = None
    ) -> tuple[list[float], list[int]]:
        """Price and cheapest e-node of each class that is not `free`: one Dijkstra (Knuth 1977).

        Each class is settled once, after the operands of its e-node, so the choices are acyclic.
        A class counts 0 where it is free, else its price divided by its `share` (1 if not given).
        Without shares that is the tree cost: a sum that may overflow to inf in deep graphs, which
        costs quality and nothing else, because being settled is known from the choice.
        """
        of, users = self.of, self.users  # this is half of an extraction: no lookups in its loops
        price = [0.0 if is_free else inf for is_free in free]
        choice = [UNKNOWN] * len(free)
        waits, sums = [len(operands) for operands in self.operands], list(self.cost)
        for owner, is_free in enumerate(free):
            if is_free:
                for user in users[owner]:
                    waits[user] -= 1
        heap = [
            (sums[node], node)
            for owner, nodes in enumerate(self.members)
            if not free[owner]
            for node in nodes
            if not waits[node]
        ]
        heapify(heap)
        while heap:
            value, node = heappop(heap)
            settled = of[node]
            if choice[settled] != UNKNOWN:
                continue
            price[settled], choice[settled] = value, node
            part = value if share is None else value / share[settled]
            for user in users[settled]:
                sums[user] += part
                waits[user] -= 1
                if not waits[user]:
                    owner = of[user]
                    if choice[owner] == UNKNOWN and not free[owner]:
                        heappush(heap, (sums[user], user))
        return price, choice


def postorder(
    roots: Iterable[int],
    operands: Callable[[int], Sequence[int]],
    is_leaf: Callable[[int], bool] = lambda _: False,
) -> tuple[list[int], int | None]:
    """What `roots` need, operands first, leaves left out; and a class on a cycle if one is met."""
    order: list[int] = []
    state: dict[int, bool] = {}  # False: on the present path; True: done
    for root in roots:
        if is_leaf(root) or root in state:
            continue
        state[root] = False
        stack = [(root, iter(operands(root)))]
        while stack:
            top, rest = stack[-1]
            for operand in rest:
                if is_leaf(operand) or state.get(operand):
                    continue
                if operand in state:
                    return order, operand
                state[operand] = False
                stack.append((operand, iter(operands(operand))))
                break
            else:
                stack.pop()
                state[top] = True
                order.append(top)
    return order, None
