"""Graphs made of another: names and places in the source go along with its values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from safegraph.dag import Node, SafeDAG, Tensor, fresh_names
from safegraph.ops import Squeeze
from safegraph.value import Value


def folded(
    order: Sequence[Value], leaves: Mapping[Value, Tensor], outputs: Iterable[Value]
) -> dict[Value, Tensor]:
    """Constants that are only used with an axis of size 1 dropped, without it from the start."""
    users: dict[Value, set[Value]] = {}
    for value in order:
        for operand in value.operands:
            users.setdefault(operand, set()).add(value)
    kept, found = set(outputs), {}
    for leaf, t in leaves.items():
        own = users.get(leaf, set())
        user = next(iter(own)) if len(own) == 1 else leaf
        if (
            t.kind == "input"
            or t.data is None
            or {leaf, user} & kept
            or not isinstance(user.op, Squeeze)
        ):
            found[leaf] = t
        else:
            found[user] = Tensor(t.name, t.kind, user.type, _without_axes(t, user.op.axes))
    return found


def _without_axes(t: Tensor, axes: tuple[int, ...]) -> Any:
    data = t.data
    if callable(data):
        return lambda: np.squeeze(data(), axes)
    return np.squeeze(t.array(), axes)


def note(origin: dict[Value, Node], value: Value, node: Node) -> None:
    """Remember that new values come from a node."""
    stack = [value]
    while stack:
        top = stack.pop()
        if top.op is not None and top not in origin:
            origin[top] = node
            stack += top.operands


def named_graph(
    dag: SafeDAG,
    order: Iterable[Value],
    outputs: Mapping[str, Value],
    tensors: Sequence[Tensor],
    names: dict[Value, str],
    own: Mapping[Value, str],
    origin: Mapping[Value, Node],
) -> SafeDAG:
    """A graph of values with the names and places in the source of another.

    `names` are those of the leaves, `own` those of values that stand for one node, and `origin` the
    node that any value comes from.
    """
    fresh = fresh_names({t.name for t in tensors} | set(dag.nodes))
    nodes = []
    for value in order:
        if value.op is None or value in names:
            continue
        label = names[value] = own[value] if value in own else next(fresh)
        source = origin.get(value)
        where = source.where if source else ""
        nodes.append(Node(label, value.op, tuple(names[o] for o in value.operands), where))
    found = {o: names[v] for o, v in outputs.items()}
    return SafeDAG(tensors, nodes, found, name=dag.name)
