"""The cheapest way that an e-graph knows to make some classes, found by greedy and local search.

The cost of a selection is its DAG cost: a class that is used twice is paid once.  Finding the least
is NP-hard; what is done here is near linear in the e-nodes, runs 50,000 levels deep, gives the same
answer every time it is not cut short, and can be stopped at any moment:

1. `_starts`: bottom-up selections, by tree cost and by shared cost.
2. `safegraph.extract.improve`: local search from each of them and from the selection given.
3. The cheapest of all, never dearer than the one given.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import fsum, isfinite
from time import monotonic

from safegraph.errors import SafeGraphError
from safegraph.extract.improve import improve
from safegraph.extract.network import UNKNOWN, Network, postorder
from safegraph.extract.selection import Selection

ROUNDS = 4  # bottom-up passes by shared cost; the best total comes among the first few


class ExtractionError(SafeGraphError):
    """No finite selection exists, or the selection given is not one; `classes` says where."""

    def __init__(self, message: str, classes: Iterable[int]) -> None:
        self.classes = tuple(classes)
        super().__init__(message)


@dataclass(frozen=True)
class Choices:
    """An e-graph as arrays; classes are 0..n-1.

    E-node i belongs to class `of[i]`, has operand classes `operands[i]`, and costs `cost[i]`
    (seconds, at least 0; inf where the target cannot run it).
    """

    of: Sequence[int]
    operands: Sequence[tuple[int, ...]]
    cost: Sequence[float]


def extract(
    choices: Choices,
    roots: Sequence[int],
    given: Mapping[int, int] | None = None,
    *,
    seconds: float = 10.0,
) -> Mapping[int, int]:
    """Choose an e-node for every class that the roots need: class -> e-node, operands first.

    The selection is acyclic, finite, and as cheap in DAG cost as was found within `seconds` of
    searching (preparing the arrays and a first selection comes on top).  `given` is the selection
    of the original program: the search starts from it too, and the result is never dearer.  One
    that holds an e-node of cost inf cannot run, and is ignored.

    Raises ExtractionError if the roots have no finite selection, if `given` is cyclic or lacks a
    class, or if the arrays contradict each other.
    """
    network = _network(choices, roots)
    _, tree = network.cheapest([False] * len(network.members))
    _require(choices, network, roots, tree)
    deadline = monotonic() + seconds
    starts = [*_starts(network, roots, tree)]
    found: list[Mapping[int, int]] = []
    if given is not None and isfinite(total(choices, roots, given)):
        found.append({c: given[c] for c in _needed(choices, roots, given)})
        starts.append(_usable(network, choices, found[0]))
    starts.sort(key=lambda start: total(choices, roots, start))
    # Most e-graphs end where the first search ends.  It gets half of the time, the next a quarter.
    seen: set[tuple[int, ...]] = set()
    for start in starts:
        selection = Selection(network, roots, start)
        now = monotonic()
        improve(selection, now + (deadline - now) / 2, seen)
        found.append(selection.mapping())
    return min(found, key=lambda chosen: total(choices, roots, chosen))


def total(choices: Choices, roots: Sequence[int], chosen: Mapping[int, int]) -> float:
    """The DAG cost of a selection, in seconds: each class that the roots need, once.

    Raises ExtractionError if a needed class is not in `chosen`, or needs itself.
    """
    return fsum(choices.cost[chosen[c]] for c in _needed(choices, roots, chosen))


def _needed(choices: Choices, roots: Sequence[int], chosen: Mapping[int, int]) -> list[int]:
    """The classes that the roots need in a selection, operands first."""
    missing: list[int] = []

    def operands(needed: int) -> tuple[int, ...]:
        node = chosen.get(needed)
        if node is None or not 0 <= node < len(choices.of) or choices.of[node] != needed:
            missing.append(needed)
            return ()
        return choices.operands[node]

    order, cyclic = postorder(roots, operands)
    if missing:
        raise ExtractionError(
            f"the selection has no e-node of its own for the needed classes {missing[:10]}; "
            "each class must map to the index of an e-node of that class",
            missing,
        )
    if cyclic is not None:
        raise ExtractionError(
            f"the selection is cyclic: making class {cyclic} needs class {cyclic}; "
            "a program's selection maps each class to the e-node that the program runs",
            (cyclic,),
        )
    return order


def _network(choices: Choices, roots: Sequence[int]) -> Network:
    """The e-nodes worth looking at: finite, not of themselves, below the roots, none twice.

    Of two e-nodes of one class with the same operands only the cheaper can be of use.
    """
    of = [int(owner) for owner in choices.of]
    operands = [tuple(sorted({int(operand) for operand in row})) for row in choices.operands]
    cost = [float(value) for value in choices.cost]
    if not len(of) == len(operands) == len(cost):
        raise ExtractionError(
            f"one class, operand tuple and cost is needed for each e-node; "
            f"got {len(of)}, {len(operands)} and {len(cost)}",
            (),
        )
    least = min((*of, *roots, *(row[0] for row in operands if row)), default=0)
    if least < 0:
        raise ExtractionError(f"classes are 0..n-1; got {least}", (least,))
    wrong = sorted({owner for owner, value in zip(of, cost, strict=True) if not value >= 0})
    if wrong:
        raise ExtractionError(
            f"costs must be 0 or more seconds (inf if impossible); an e-node of the classes "
            f"{wrong[:10]} has a negative cost or NaN",
            wrong,
        )
    best: dict[tuple[int, tuple[int, ...]], int] = {}
    for node, value in enumerate(cost):
        if isfinite(value) and of[node] not in operands[node]:
            key = of[node], operands[node]
            if key not in best or value < cost[best[key]]:
                best[key] = node
    classes = 1 + max((*of, *roots, *(row[-1] for row in operands if row)), default=-1)
    everywhere = Network.over(of, operands, cost, sorted(best.values()), classes)
    below = set(roots)
    queue = list(below)
    for owner in queue:
        for node in everywhere.members[owner]:
            fresh = [operand for operand in operands[node] if operand not in below]
            below.update(fresh)
            queue.extend(fresh)
    usable = sorted(node for node in best.values() if of[node] in below)
    return Network.over(of, operands, cost, usable, classes)


def _require(choices: Choices, network: Network, roots: Sequence[int], tree: Sequence[int]) -> None:
    """Raise unless every root was settled, naming the classes that are to blame."""
    if all(tree[root] != UNKNOWN for root in roots):
        return
    below = list(dict.fromkeys(root for root in roots if tree[root] == UNKNOWN))
    seen = set(below)
    for owner in below:
        for node in network.members[owner]:
            for operand in network.operands[node]:
                if tree[operand] == UNKNOWN and operand not in seen:
                    seen.add(operand)
                    below.append(operand)
    lacking = [owner for owner in below if not network.members[owner]]
    blamed = sorted(lacking or below)
    why = "have no e-node of finite cost" if lacking else "can only be made from themselves"
    raise ExtractionError(
        f"no finite selection makes the roots {sorted(c for c in set(roots) if c in seen)[:10]}: "
        f"the classes {blamed[:10]} {why}; give the target an op for them, "
        "or laws that rewrite them to ops that it has",
        blamed,
    )


def _usable(network: Network, choices: Choices, chosen: Mapping[int, int]) -> Mapping[int, int]:
    """The same selection by the e-nodes that the network kept, each as cheap or cheaper."""
    kept = {}
    for owner, node in chosen.items():
        operands = tuple(sorted(set(choices.operands[node])))
        kept[owner] = next(m for m in network.members[owner] if network.operands[m] == operands)
    return kept


def _starts(
    network: Network, roots: Sequence[int], tree: Sequence[int]
) -> Iterator[Mapping[int, int]]:
    """Bottom-up selections: by tree cost, then by tree cost shared among users.

    A tree cost pays a shared class once for every path to it: in a residual network of depth n that
    is 2^n times (1e89 in 96 layers), and says nothing.  Dividing the price of a class by its number
    of users in the selection before keeps the prices near DAG cost, at the price of one Dijkstra.
    """
    count = len(network.members)
    seen: set[tuple[int, ...]] = set()
    choice = tree
    for _ in range(1 + ROUNDS):
        order = _order(network, roots, choice)
        picked = tuple(choice[c] for c in order)
        if picked in seen:
            return
        seen.add(picked)
        yield dict(zip(order, picked, strict=True))
        share = [0] * count
        for node in picked:
            for operand in network.operands[node]:
                share[operand] += 1
        _, choice = network.cheapest([False] * count, [max(1, users) for users in share])


def _order(network: Network, roots: Sequence[int], choice: Sequence[int]) -> list[int]:
    return postorder(roots, lambda c: network.operands[choice[c]])[0]
