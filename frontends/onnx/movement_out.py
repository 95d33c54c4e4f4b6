"""Ops that move elements, find or make them as ONNX nodes: one entry an op class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from safegraph.derived.border import PadMode
from safegraph.derived.index import ArgMax, CumSum, Flip, Gather, GatherElements, OneHot, Trilu
from safegraph.derived.shape import Concat, Expand, Index, Reshape, Tile
from safegraph.dims import Dim, Size
from safegraph.dtypes import is_integer, to_numpy
from safegraph.op import Op, axis_of
from safegraph.ops import (
    Fold,
    Group,
    Interleave,
    Iota,
    Pad,
    Permute,
    Repeat,
    Scalar,
    Slice,
    Stride,
    Unfold,
    Ungroup,
    Unsqueeze,
)

if TYPE_CHECKING:
    from safegraph.frontends.onnx.writer import Slot, Writer
from safegraph.frontends.onnx.nodes import padded, vector

LAST = np.iinfo(np.int64).max


def _as_shape(w: Writer, slot: Slot, op: Op, x: Slot) -> ir.Value:
    return w.reshape(x, x.type.shape, slot.type.shape)


def _sliced(
    w: Writer,
    x: Any,
    starts: Sequence[Dim],
    stops: Sequence[Dim | None],
    steps: Sequence[int] | None = None,
) -> ir.Value:
    """x[start:stop:step], written for the axes that change."""
    every = range(len(starts))
    pace = steps or (1,) * len(starts)
    axes = [i for i in every if starts[i] != 0 or stops[i] is not None or pace[i] != 1]
    ends = [LAST if stops[i] is None else stops[i] for i in axes]
    parts: list[Any] = [w.vector([starts[i] for i in axes]), w.vector(ends), vector(axes)]  # type: ignore[arg-type]
    return w("Slice", x, *parts, *([vector([pace[i] for i in axes])] if steps else []))


def _slice(w: Writer, slot: Slot, op: Slice, x: Slot) -> ir.Value:
    return _sliced(w, x, op.starts, op.stops)


def _stride(w: Writer, slot: Slot, op: Stride, x: Slot) -> ir.Value:
    none = [None] * len(op.steps)
    return _sliced(w, x, [0] * len(op.steps), none, op.steps)


def _flip(w: Writer, slot: Slot, op: Flip, x: Slot) -> ir.Value:
    count, axes = len(op.axes), [axis_of(a, x.type.rank) for a in op.axes]
    return w(
        "Slice",
        x,
        vector([-1] * count),
        vector([-LAST] * count),
        vector(axes),
        vector([-1] * count),
    )


def _pad(w: Writer, slot: Slot, op: Pad, x: Slot) -> ir.Value:
    if x.type.dtype == "bool":  # runtimes do not pad bool
        return w.cast(
            padded(w, w.cast(x, "u8"), "u8", op.before, op.after, int(bool(op.fill))), "bool"
        )
    return padded(w, x, x.type.dtype, op.before, op.after, op.fill)


def _pad_mode(w: Writer, slot: Slot, op: PadMode, x: Slot) -> ir.Value:
    edges = w.vector([*op.before, *op.after])
    if x.type.dtype == "bool":  # runtimes do not pad bool
        return w.cast(w("Pad", w.cast(x, "u8"), edges, mode=op.mode), "bool")
    return w("Pad", x, edges, mode=op.mode)


def _interleave(w: Writer, slot: Slot, op: Interleave, x: Slot) -> ir.Value:
    """Each axis becomes (d, 1), is filled to (d, step), joined to d*step and cut after the last."""
    dtype = "u8" if x.type.dtype == "bool" else x.type.dtype
    current: Slot | ir.Value = x if dtype == x.type.dtype else w.cast(x, dtype)
    shape = list(x.type.shape)
    for axis, step in enumerate(op.steps):
        if step == 1:
            continue
        wide = w("Unsqueeze", current, vector([axis + 1]))
        after = [0] * (len(shape) + 1)
        after[axis + 1] = step - 1
        filled = padded(w, wide, dtype, [0] * len(after), after, op.fill)
        before = (*shape[: axis + 1], step, *shape[axis + 1 :])
        joined = [*shape]
        joined[axis] = shape[axis] * step
        current = w.reshape(filled, before, tuple(joined))
        shape[axis] = (shape[axis] - 1) * step + 1
        stops: list[Dim | None] = [None] * len(shape)
        stops[axis] = 1 - step if step > 1 else None
        current = _sliced(w, current, [0] * len(shape), stops)
    found = w.value(x) if current is x else current
    assert isinstance(found, ir.Value)
    return found if dtype == x.type.dtype else w.cast(found, x.type.dtype)


def _repeat(w: Writer, slot: Slot, op: Repeat, x: Slot) -> ir.Value:
    return _empty(w, slot) if 0 in op.counts else w("Expand", x, w.vector(op.counts))


def _empty(w: Writer, slot: Slot) -> ir.Value:
    """No elements: of 1 and 0, ONNX Runtime's Expand takes the larger."""
    return w.cast(w("ConstantOfShape", w.vector(slot.type.shape)), slot.type.dtype)


def _expand(w: Writer, slot: Slot, op: Expand, x: Slot) -> ir.Value:
    if 0 in slot.type.shape:
        return _empty(w, slot)
    # an axis of 1 in the shape leaves that of x as it is
    missing = slot.type.rank - x.type.rank
    own = (None,) * missing + x.type.shape
    return w(
        "Expand",
        x,
        w.vector([1 if d == o else d for d, o in zip(slot.type.shape, own, strict=True)]),
    )


def _unfold(w: Writer, slot: Slot, op: Unfold, x: Slot) -> ir.Value:
    windows, window = slot.type.shape[op.axis : op.axis + 2]
    return w("Gather", x, _places(w, windows, window, op.step, op.dilation), axis=op.axis)


def _places(w: Writer, windows: Dim, window: Dim, step: Dim, dilation: Dim) -> ir.Value:
    """i*step + j*dilation, as an i64 matrix."""
    if all(isinstance(d, int) for d in (windows, window, step, dilation)):
        i, j = np.arange(windows), np.arange(window)  # type: ignore[arg-type]
        return w.constant((i[:, None] * int(step) + j[None] * int(dilation)).astype(np.int64))
    first = w("Mul", _range(w, windows), w.size(step))
    second = w("Mul", _range(w, window), w.size(dilation))
    return w("Add", w("Unsqueeze", first, vector([1])), w("Unsqueeze", second, vector([0])))


def _range(w: Writer, size: Dim) -> ir.Value:
    if isinstance(size, int):
        return w.constant(np.arange(size, dtype=np.int64))
    stop = w("Squeeze", w.size(size), vector([0]))
    return w("Range", w.number(0, "i64"), stop, w.number(1, "i64"))


def _fold(w: Writer, slot: Slot, op: Fold, x: Slot) -> ir.Value:
    """Disjoint windows side by side are a reshape; else each element is added where it belongs."""
    old, new, axis = x.type.shape, slot.type.shape, op.axis
    windows, window = old[axis : axis + 2]
    if op.dilation == 1 and op.step == window:
        return w.reshape(x, old, new)
    # the axis to the front: rows of places, each with all that is at this place
    rest = [i for i in range(len(old)) if i not in (axis, axis + 1)]
    front = w("Transpose", x, perm=[axis, axis + 1, *rest])
    inner = tuple(old[i] for i in rest)
    places = w("Unsqueeze", _places(w, windows, window, op.step, op.dilation), vector([2]))
    zeros = w("Expand", w.number(0, x.type.dtype), w.vector((new[axis], *inner)))
    total = w("ScatterND", zeros, places, front, reduction="add")
    order = list(range(1, len(new)))
    return w("Transpose", total, perm=[*order[:axis], 0, *order[axis:]])


def _index(w: Writer, slot: Slot, op: Index, x: Slot) -> ir.Value:
    at = (
        w("Squeeze", w.size(op.at), vector([0]))
        if isinstance(op.at, Size)
        else w.number(op.at, "i64")
    )
    return w("Gather", x, at, axis=op.axis)


def _concat(w: Writer, slot: Slot, op: Concat, *xs: Slot) -> ir.Value:
    return w("Concat", *xs, axis=op.axis)


def _arg_max(w: Writer, slot: Slot, op: ArgMax, x: Slot) -> ir.Value:
    return w("ArgMin" if op.smallest else "ArgMax", x, axis=op.axis, keepdims=int(op.keep))


def _cum_sum(w: Writer, slot: Slot, op: CumSum, x: Slot) -> ir.Value:
    return w(
        "CumSum", x, vector([op.axis])[0], exclusive=int(op.exclusive), reverse=int(op.reverse)
    )


# -- leaves ---------------------------------------------------------------------------------------


def _scalar(w: Writer, slot: Slot, op: Scalar) -> ir.Value:
    if isinstance(op.value, Size):
        number = w("Squeeze", w.size(op.value), vector([0]))
        return number if op.of == "i64" else w.cast(number, op.of)
    return w.number(op.value, op.of, slot.name)


def _iota(w: Writer, slot: Slot, op: Iota) -> ir.Value:
    own = op.of if op.of in ("i16", "i32", "i64", "f32", "f64") else "i64"
    if isinstance(op.size, Size):
        stop = w("Squeeze", w.size(op.size), vector([0]))
        stop = stop if own == "i64" else w.cast(stop, own)
    else:
        stop = w.number(op.size, own)
    found = w("Range", w.number(0, own), stop, w.number(1, own))
    return found if own == op.of else w.cast(found, op.of)


def _one_hot(w: Writer, slot: Slot, op: OneHot, x: Slot) -> ir.Value | None:
    if not is_integer(x.type.dtype):
        return None
    values = np.asarray([0, 1], to_numpy(x.type.dtype))
    return w("OneHot", x, w.size(op.depth), values, axis=op.axis)


# fmt: off
ROWS: dict[type[Op], Callable[..., Any]] = {
    Permute:    lambda w, slot, op, x: w("Transpose", x, perm=list(op.order)),
    Group:      _as_shape,
    Ungroup:    _as_shape,
    Unsqueeze:  lambda w, slot, op, x: w("Unsqueeze", x, vector(op.axes)),
    Stride:     _stride,
    Interleave: _interleave,
    Slice:      _slice,
    Pad:        _pad,
    PadMode:    _pad_mode,
    Repeat:     _repeat,
    Unfold:     _unfold,
    Fold:       _fold,
    Scalar:     _scalar,
    Iota:       _iota,
    Reshape:    _as_shape,
    Expand:     _expand,
    Concat:     _concat,
    Tile:       lambda w, slot, op, x: w("Tile", x, w.vector(op.counts)),
    Index:      _index,
    Flip:       _flip,
    Gather:     lambda w, slot, op, x, indices: w("Gather", x, indices, axis=op.axis),
    GatherElements: lambda w, slot, op, x, indices: w("GatherElements", x, indices, axis=op.axis),
    CumSum:     _cum_sum,
    ArgMax:     _arg_max,
    Trilu:      lambda w, slot, op, x: w("Trilu", x, w.number(op.k, "i64"), upper=int(op.upper)),
    OneHot:     _one_hot,
}
# fmt: on
