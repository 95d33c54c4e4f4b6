"""Local search on a selection: swap a class, look around it, open a class for several users."""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf
from time import monotonic

from safegraph.extract.network import UNKNOWN
from safegraph.extract.selection import Selection, Swap

AROUND = 400  # inactive classes that are priced for one class
ABOVE = 100  # classes that are told of an opened one


def improve(selection: Selection, deadline: float, seen: set[tuple[int, ...]]) -> None:
    """Lower the total of `selection` until no move does, or until `deadline` (monotonic seconds).

    Three moves, cheap ones first.  Each is tried for real and taken back unless the exact total
    falls, so stopping at any time leaves a valid selection.  Selections that no swap improves are
    put into `seen`; where a search from another start has been, this one ends.
    """
    moves = (_swap_each, _open_each, _look_around_each)
    turn = 0
    while turn < len(moves) and monotonic() < deadline:
        if moves[turn](selection, deadline):
            turn = 0
            continue
        turn += 1
        if turn == 1 and (here := tuple(selection.chosen)) not in seen:
            seen.add(here)
        elif turn == 1:
            return


def _swap_each(selection: Selection, deadline: float) -> bool:
    """Give each active class its best e-node, users first; whether any changed.

    Users first, because a twin that replaces a large result (the last token of a layer) passes its
    demand down, and the class below can follow in the same sweep.
    """
    selection.reprice()
    selection.dominate()
    changed = False
    for owner in reversed(selection.active()):
        if monotonic() > deadline:
            break
        if len(selection.network.members[owner]) > 1:
            changed |= _best_swap(selection, owner) is not None
    return changed


def _best_swap(selection: Selection, owner: int) -> Swap | None:
    """Swap `owner` to the e-node that lowers the total most, if any does."""
    best_delta, best_node = 0.0, UNKNOWN
    if selection.chosen[owner] == UNKNOWN:
        return None
    for node in selection.network.members[owner]:
        if node == selection.chosen[owner]:
            continue
        swap = selection.swap(owner, node)
        if swap is None:
            continue
        if swap.matters and swap.delta < best_delta:
            best_delta, best_node = swap.delta, node
        selection.undo(swap)
    return selection.swap(owner, best_node) if best_node != UNKNOWN else None


def _look_around_each(selection: Selection, deadline: float) -> bool:
    """Swap each active class once more, with prices made for it alone; whether any changed.

    The prices of a sweep take every active class as free.  Seen from one class that is wrong
    twice: what depends on it cannot be used, and what only it needs would have to be kept.
    """
    selection.reprice()
    selection.dominate()
    changed = False
    for owner in reversed(selection.active()):
        if monotonic() > deadline:
            break
        if selection.chosen[owner] == UNKNOWN or len(selection.network.members[owner]) < 2:
            continue
        kept = _price_for(selection, owner)
        if kept and _best_swap(selection, owner) is None:
            for inactive, node in kept.items():
                selection.choice[inactive] = node
        elif kept:
            changed = True
    return changed


def _price_for(selection: Selection, owner: int) -> dict[int, int]:
    """Choose e-nodes for the inactive classes below `owner` as if only for it.

    Returns the choices that were replaced; nothing if the prices of the sweep hold here already.
    """
    network, chosen = selection.network, selection.chosen
    region, leaf = {owner}, dict[int, float]()
    clear: set[int] = set()
    queue = [owner]
    for inside in queue:
        for node in network.members[inside]:
            for operand in network.operands[node]:
                if operand in region or operand in leaf:
                    continue
                if chosen[operand] == UNKNOWN and len(region) < AROUND:
                    region.add(operand)
                    queue.append(operand)
                elif chosen[operand] == UNKNOWN:
                    leaf[operand] = selection.price[operand]
                elif selection.depends(operand, owner, clear):
                    leaf[operand] = inf
                elif selection.dominates(owner, operand):
                    leaf[operand] = selection.weight[operand]
                else:
                    leaf[operand] = 0.0
    if not any(leaf.values()):
        return {}
    waits: dict[int, int] = {}
    sums: dict[int, float] = {}
    users: dict[int, list[int]] = {inside: [] for inside in queue}
    heap: list[tuple[float, int]] = []
    for inside in queue[1:]:
        for node in network.members[inside]:
            operands = network.operands[node]
            sums[node] = network.cost[node] + sum(leaf.get(o, 0.0) for o in operands)
            if owner in operands or sums[node] == inf:
                continue
            held = [operand for operand in operands if operand in region]
            waits[node] = len(held)
            for operand in held:
                users[operand].append(node)
            if not held:
                heappush(heap, (sums[node], node))
    kept: dict[int, int] = {}
    settled: set[int] = set()
    while heap:
        value, node = heappop(heap)
        inside = network.of[node]
        if inside in settled:
            continue
        settled.add(inside)
        if selection.choice[inside] != node:
            kept[inside], selection.choice[inside] = selection.choice[inside], node
        for user in users[inside]:
            sums[user] += value
            waits[user] -= 1
            if not waits[user]:
                heappush(heap, (sums[user], user))
    return kept


def _open_each(selection: Selection, deadline: float) -> bool:
    """Try to make an inactive class for several users at once; whether any was worth it.

    Swaps of one class never find a merge (q, k and v as slices of one contraction): the first
    user would pay for all of it.
    """
    selection.reprice()
    selection.dominate()
    changed = False
    for needed, users in enumerate(selection.network.users):
        if monotonic() > deadline:
            break
        if selection.chosen[needed] != UNKNOWN or selection.price[needed] == inf:
            continue
        if len({selection.network.of[user] for user in users}) > 1:
            changed |= _open(selection, needed)
    return changed


def _open(selection: Selection, needed: int) -> bool:
    """Activate `needed`, swap to it whoever gains, and keep all of that if the total falls."""
    kept = {}
    targets, hints = _told(selection, needed)
    hoped = sum(selection.weight[owner] - value for owner, (value, _) in targets.items())
    if len(targets) < 2 or hoped <= selection.price[needed]:
        return False
    cost = selection.open(needed)
    if cost is None:
        return False
    for inactive, node in hints.items():
        kept[inactive], selection.choice[inactive] = selection.choice[inactive], node
    swaps: list[Swap] = []
    for owner in sorted(targets, key=lambda c: (-selection.position[c], c)):
        if selection.chosen[owner] == UNKNOWN:
            continue
        swap = selection.swap(owner, targets[owner][1])
        if swap is not None and swap.matters:
            swaps.append(swap)
        elif swap is not None:
            selection.undo(swap)
    delta = cost + sum(swap.delta for swap in swaps)
    scale = cost + sum(abs(swap.delta) for swap in swaps)
    if swaps and delta < -1e-12 * scale:
        selection.close(needed)
        return True
    for swap in reversed(swaps):
        selection.undo(swap)
    selection.close(needed)
    for inactive, node in kept.items():
        selection.choice[inactive] = node
    return False


def _told(selection: Selection, needed: int) -> tuple[dict[int, tuple[float, int]], dict[int, int]]:
    """Who may gain if `needed` is free: active classes with their added cost and e-node.

    And the e-nodes by which inactive classes between the two would then be made.
    """
    network, chosen = selection.network, selection.chosen
    near, hints = {needed: 0.0}, dict[int, int]()
    targets: dict[int, tuple[float, int]] = {}
    heap = [(0.0, needed)]
    for _ in range(ABOVE):
        if not heap:
            break
        price, below = heappop(heap)
        if price > near[below]:
            continue
        for node in network.users[below]:
            owner = network.of[node]
            value = network.cost[node]
            for operand in network.operands[node]:
                if chosen[operand] == UNKNOWN:
                    value += near.get(operand, selection.price[operand])
            if chosen[owner] != UNKNOWN:
                better = value < targets.get(owner, (selection.weight[owner], UNKNOWN))[0]
                if better and node != chosen[owner]:
                    targets[owner] = value, node
            elif value < near.get(owner, selection.price[owner]):
                near[owner], hints[owner] = value, node
                heappush(heap, (value, owner))
    return targets, hints
