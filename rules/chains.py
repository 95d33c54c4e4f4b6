"""Chains of contractions in the order that costs least: one n-ary step instead of associativity.

Associativity as a rule explodes (a batched chain of 8 gives 200,000 e-nodes).  So between rounds
each maximal chain is collected, its operands are handed to opt_einsum's dynamic program, and only
the best trees go into the e-graph: one for fewest flops and one for least memory, for each binding
of the free sizes.  Extraction chooses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from safegraph.derived.einsum import Einsum, Labels
from safegraph.dims import substitute
from safegraph.egraph import EGraph, ENode
from safegraph.value import Value, apply

MOST_OPERANDS = 12
ORDER = "a chain of contractions in a better order"
"""The name of this step, where laws are named."""


@dataclass(frozen=True)
class Chain:
    """A contraction of several operands (classes), with the labels of each and of the result."""

    operands: tuple[int, ...]
    labels: tuple[Labels, ...]
    out: Labels
    opened: tuple[int, ...] = ()
    """The e-nodes that it was made of, from the last contraction down."""


def reorder(egraph: EGraph, bindings: Sequence[Mapping[str, int]]) -> int:
    """Insert the best orders of every chain of three or more; gives how many chains there were."""
    nodes = egraph.enodes()
    first: dict[int, ENode] = {}
    for node in nodes:  # the earliest einsum of a class stands for it
        if isinstance(node.op, Einsum) and node.cls not in first:
            first[node.cls] = node
    count = 0
    for cls, node in first.items():
        chain = flatten(node, first)
        # 0 * inf would be NaN in one order and not in another
        infinite = any(not egraph.range_of(c).finite for c in chain.operands)
        if len(chain.operands) < 3 or infinite:
            continue
        count += 1
        shapes = [egraph.type_of(c).shape for c in chain.operands]
        for path in _paths(chain, shapes, bindings):
            _unite(egraph, cls, _insert(egraph, chain, path), chain)
        ahead = _constants_first(egraph, chain)
        if ahead is not None:
            shapes = [egraph.type_of(c).shape for c in ahead.operands]
            for path in _paths(ahead, shapes, bindings):
                _unite(egraph, cls, _insert(egraph, ahead, path), chain)
    return count


def _unite(egraph: EGraph, cls: int, found: int, chain: Chain) -> None:
    match = (len(chain.operands), *chain.operands, *chain.opened)
    egraph.union(cls, found, ORDER, match=match)


def _insert(egraph: EGraph, chain: Chain, path: Sequence[Sequence[int]]) -> int:
    return egraph.build(lambda *leaves: tree(chain, leaves, path), chain.operands, ORDER)


def _constants_first(egraph: EGraph, chain: Chain) -> Chain | None:
    """The chain with neighbours that depend on no input multiplied ahead; None where there are none."""
    items = list(zip(chain.operands, chain.labels, strict=True))
    merged = False
    i = 0
    while i < len(items):
        operand, own = items[i]
        partner = next(
            (
                j
                for j in range(i + 1, len(items))
                if egraph.is_constant(operand)
                and egraph.is_constant(items[j][0])
                and set(own) & set(items[j][1])
            ),
            None,
        )
        if partner is None:
            i += 1
            continue
        other, theirs = items.pop(partner)
        needed = {*chain.out, *(c for n, (_, part) in enumerate(items) if n != i for c in part)}
        out = tuple(c for c in dict.fromkeys(own + theirs) if c in needed)
        spec = Einsum(own, theirs, out).canonical()
        items[i] = (egraph.build(spec, (operand, other), "weights multiplied ahead"), out)
        merged = True
    if not merged:
        return None
    return Chain(tuple(o for o, _ in items), tuple(part for _, part in items), chain.out)


def flatten(node: ENode, first: Mapping[int, ENode]) -> Chain:
    """The contraction with operands that are contractions themselves opened, as far as possible."""
    fresh = 0
    operands: list[int] = []
    labels: list[Labels] = []
    opened = [node.index]

    def names(op: Einsum, out: Labels | None) -> dict[int, int]:
        nonlocal fresh
        known = dict(zip(op.out, out, strict=True)) if out is not None else {}
        for label in dict.fromkeys(op.left + op.right):
            if label not in known:
                known[label] = fresh
                fresh += 1
        return known

    assert isinstance(node.op, Einsum)
    top = names(node.op, None)
    result = tuple(top[c] for c in node.op.out)
    stack = [
        (node.operands[1], tuple(top[c] for c in node.op.right), frozenset({node.cls})),
        (node.operands[0], tuple(top[c] for c in node.op.left), frozenset({node.cls})),
    ]
    while stack:
        cls, own, above = stack.pop()
        inner = first.get(cls)
        # a class inside itself is a cycle through an identity; it is left as an operand
        if inner is None or cls in above or len(operands) + len(stack) + 2 > MOST_OPERANDS:
            operands.append(cls)
            labels.append(own)
            continue
        assert isinstance(inner.op, Einsum)
        opened.append(inner.index)
        known = names(inner.op, own)
        inside = above | {cls}
        stack.append((inner.operands[1], tuple(known[c] for c in inner.op.right), inside))
        stack.append((inner.operands[0], tuple(known[c] for c in inner.op.left), inside))
    return Chain(tuple(operands), tuple(labels), result, tuple(opened))


def _paths(
    chain: Chain, shapes: Sequence[Sequence[object]], bindings: Iterable[Mapping[str, int]]
) -> list[tuple[tuple[int, ...], ...]]:
    """The best orders, each as pairs of places, without repetition."""
    from opt_einsum import contract_path, get_symbol
    from opt_einsum.paths import DynamicProgramming

    text = ",".join("".join(map(get_symbol, part)) for part in chain.labels)
    equation = f"{text}->{''.join(map(get_symbol, chain.out))}"
    found: dict[tuple[tuple[int, ...], ...], None] = {}
    for values in bindings:
        numbers = [tuple(int(substitute(d, values)) for d in shape) for shape in shapes]  # type: ignore[arg-type]
        for aim in ("flops", "size"):
            path, _ = contract_path(
                equation, *numbers, shapes=True, optimize=DynamicProgramming(minimize=aim)
            )
            found[tuple(tuple(step) for step in path)] = None
    return list(found)


def tree(chain: Chain, leaves: Sequence[Value], path: Sequence[Sequence[int]]) -> Value:
    """The chain as pairwise contractions in this order."""
    items = list(zip(leaves, chain.labels, strict=True))
    for step in path:
        taken = [items.pop(place) for place in sorted(step, reverse=True)]
        taken.reverse()
        while len(taken) > 1:
            (x, left), (y, right) = taken[:2]
            needed = {*chain.out, *(c for _, other in (*items, *taken[2:]) for c in other)}
            out = tuple(c for c in dict.fromkeys(left + right) if c in needed)
            if not items and len(taken) == 2:
                out = chain.out
            taken[:2] = [(apply(Einsum(left, right, out).canonical(), x, y), out)]
        items.append(taken[0])
    return items[0][0]
