"""ONNX's GatherND, ScatterND, ScatterElements and TopK, in and out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from safegraph import value as v
from safegraph.derived.scatter import GatherNd, ScatterElements, ScatterNd, TopK
from safegraph.derived.shape import Index
from safegraph.frontends.onnx.call import Call, Unsayable
from safegraph.frontends.onnx.nodes import vector
from safegraph.value import Value, apply

if TYPE_CHECKING:
    from safegraph.frontends.onnx.writer import Slot, Writer

COMBINING = {"none": "set", "add": "add", "mul": "multiply", "max": "maximum", "min": "minimum"}
BACK = {ours: theirs for theirs, ours in COMBINING.items()}
SORTED = ("f32", "f64", "i32", "i64")  # what the usual runtime sorts


# -- in -------------------------------------------------------------------------------------------


def _columns(indices: Value) -> list[Value]:
    """The indices of each axis: the last axis of ONNX's has them side by side."""
    count = indices.shape[-1]
    if not isinstance(count, int) or count < 1:
        raise Unsayable
    return [apply(Index(indices.rank - 1, k), indices) for k in range(count)]


def _gather_nd(n: Call, x: Value, indices: Value) -> Value:
    shared = n.attribute("batch_dims", 0)
    rank = indices.rank - 1
    own = [
        v.unsqueeze(v.iota(x.shape[i], indices.dtype), [a for a in range(rank) if a != i])
        for i in range(shared)
    ]
    return apply(GatherNd(0), x, *own, *_columns(indices))


def _scatter_nd(n: Call, x: Value, indices: Value, updates: Value) -> Value:
    op = ScatterNd(COMBINING[n.attribute("reduction", "none")])
    return apply(op, x, updates, *_columns(indices))


def _scatter_elements(n: Call, x: Value, indices: Value, updates: Value) -> Value:
    op = ScatterElements(n.attribute("axis", 0), COMBINING[n.attribute("reduction", "none")])
    return apply(op, x, indices, updates)


def _top_k(n: Call, x: Value, *_: Any) -> tuple[Value | None, ...]:
    found = n.ints("k", 1)
    if not found:
        raise Unsayable
    n.attribute("sorted", 1)  # any order is allowed without it
    axis, largest = n.attribute("axis", -1), bool(n.attribute("largest", 1))
    results = (apply(TopK(found[0], axis, largest, result), x) for result in ("values", "places"))
    return tuple(y if used else None for y, used in zip(results, (*n.used, False), strict=False))


# -- out ------------------------------------------------------------------------------------------


def _joined(w: Writer, indices: Sequence[Slot]) -> ir.Value:
    """Indices of several axes side by side, in a new last axis."""
    lead = v.broadcast_shapes(*(i.type.shape for i in indices))
    parts: list[Any] = []
    for index in indices:
        part: Any = index if index.type.dtype == "i64" else w.cast(index, "i64")
        part = part if index.type.shape == lead else w("Expand", part, w.vector(lead))
        parts.append(w("Unsqueeze", part, vector([len(lead)])))
    return parts[0] if len(parts) == 1 else w("Concat", *parts, axis=len(lead))


def _gather_nd_out(w: Writer, slot: Slot, op: GatherNd, x: Slot, *indices: Slot) -> ir.Value | None:
    return None if op.axis else w("GatherND", x, _joined(w, indices))


def _scatter_nd_out(
    w: Writer, slot: Slot, op: ScatterNd, x: Slot, updates: Slot, *indices: Slot
) -> ir.Value | None:
    if x.type.dtype == "bool" and op.combine != "set":
        return None
    return w("ScatterND", x, _joined(w, indices), updates, **_reduction(op.combine))


def _scatter_elements_out(
    w: Writer, slot: Slot, op: ScatterElements, x: Slot, indices: Slot, updates: Slot
) -> ir.Value | None:
    if x.type.dtype == "bool" and op.combine != "set":
        return None
    places = indices if indices.type.dtype in ("i32", "i64") else w.cast(indices, "i64")
    return w("ScatterElements", x, places, updates, axis=op.axis, **_reduction(op.combine))


def _reduction(combine: str) -> dict[str, str]:
    return {} if combine == "set" else {"reduction": BACK[combine]}


def _top_k_out(w: Writer, slot: Slot, op: TopK, x: Slot) -> ir.Value | None:
    if x.type.dtype not in SORTED:
        return None
    key = (TopK, op.k, op.axis, op.largest)
    outputs = w.shared(
        key,
        [x],
        lambda: w.results("TopK", [x, w.vector([op.k])], 2, axis=op.axis, largest=int(op.largest)),
    )
    return outputs[1 if op.result == "places" else 0]


ROWS_IN: dict[str, Any] = {
    "GatherND": _gather_nd,
    "ScatterND": _scatter_nd,
    "ScatterElements": _scatter_elements,
    "Scatter": _scatter_elements,
    "TopK": _top_k,
}
ROWS_OUT: dict[Any, Any] = {
    GatherNd: _gather_nd_out,
    ScatterNd: _scatter_nd_out,
    ScatterElements: _scatter_elements_out,
    TopK: _top_k_out,
}
