"""Ops as ONNX nodes: one entry an op class.

An entry takes the writer, the slot that is written, its op and the slots of its operands, and gives
the ONNX value; None where ONNX (or its usual runtime) has no op for this spec or element type, and
the definition is written instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from safegraph.derived.conv import Conv, ConvTranspose
from safegraph.derived.einsum import Einsum, Gemm, Linear, Matmul, MatmulForm
from safegraph.derived.index import ArgMax, CumSum, Flip, Gather, GatherElements, OneHot, Trilu
from safegraph.derived.norm import (
    BatchNorm,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    LocalResponseNorm,
    LogSoftmax,
    Softmax,
)
from safegraph.derived.pointwise import (
    Abs,
    Broadcast,
    Ceil,
    Clip,
    Elu,
    Erf,
    Gelu,
    HardSigmoid,
    HardSwish,
    IsInf,
    LeakyRelu,
    Mish,
    Not,
    Prelu,
    Relu,
    Round,
    Rsqrt,
    Selu,
    Sigmoid,
    Silu,
    Softplus,
    Softsign,
    Sqrt,
    Where,
)
from safegraph.derived.pool import AdaptiveAvgPool, AvgPool, MaxPool
from safegraph.derived.shape import Concat, Expand, Index, Reshape, Tile
from safegraph.dims import Dim, Size
from safegraph.dtypes import is_float, is_integer, to_numpy
from safegraph.op import Op, axis_of
from safegraph.ops import (
    Binary,
    Cast,
    Fold,
    Group,
    Interleave,
    Iota,
    Pad,
    Permute,
    Reduce,
    Repeat,
    Scalar,
    Select,
    Slice,
    Squeeze,
    Stride,
    Unary,
    Unfold,
    Ungroup,
    Unsqueeze,
)

if TYPE_CHECKING:
    from safegraph.frontends.onnx.write import Slot, Writer

LAST = np.iinfo(np.int64).max

# fmt: off
UNARY = {
    "neg": "Neg", "inverse": "Reciprocal", "exp": "Exp", "log": "Log", "sign": "Sign", "floor": "Floor",
    "sin": "Sin", "cos": "Cos", "tan": "Tan", "arcsin": "Asin", "arccos": "Acos", "arctan": "Atan",
    "sinh": "Sinh", "cosh": "Cosh", "tanh": "Tanh", "arcsinh": "Asinh", "arccosh": "Acosh", "arctanh": "Atanh",
    "is_nan": "IsNaN",
}
BINARY = {
    "add": "Add", "subtract": "Sub", "multiply": "Mul", "divide": "Div", "pow": "Pow", "maximum": "Max",
    "minimum": "Min", "less": "Less", "equal": "Equal", "greater": "Greater", "less_equal": "LessOrEqual",
    "greater_equal": "GreaterOrEqual",
}
LOGICAL = {
    "maximum": "Or", "add": "Or", "or": "Or", "minimum": "And", "multiply": "And", "and": "And", "xor": "Xor",
    "equal": "Equal",
}
REDUCTIONS = {"sum": "ReduceSum", "mean": "ReduceMean", "prod": "ReduceProd", "max": "ReduceMax", "min": "ReduceMin"}
# fmt: on


def plain(name: str, **attributes: str) -> Callable[..., Any]:
    """The ONNX op of this name, for floating-point operands; attributes are fields of the op."""

    def row(w: Writer, slot: Slot, op: Op, *xs: Slot) -> ir.Value | None:
        if not is_float(xs[0].type.dtype):
            return None
        return w(name, *xs, **{key: getattr(op, field) for key, field in attributes.items()})

    return row


def vector(values: Sequence[int]) -> np.ndarray:
    """Integers as an operand."""
    return np.asarray(values, np.int64)


# -- pointwise ------------------------------------------------------------------------------------


def _unary(w: Writer, slot: Slot, op: Unary, x: Slot) -> ir.Value | None:
    dtype = x.type.dtype
    if op.kind == "gaussian":  # (1 + erf(x / sqrt 2)) / 2
        inner = w("Erf", w("Mul", x, w.number(sqrt(0.5), dtype)))
        return w("Mul", w("Add", inner, w.number(1, dtype)), w.number(0.5, dtype))
    if op.kind == "floor" and is_integer(dtype):
        return w.value(x)
    if op.kind == "is_nan" and is_integer(dtype):
        return w("Not", w("Equal", x, x))
    if op.kind == "neg" and dtype.startswith("u"):
        return w("Sub", w.number(0, dtype), x)
    return w(UNARY[op.kind], x) if op.kind in UNARY else None


def _binary(w: Writer, slot: Slot, op: Binary | Broadcast, x: Slot, y: Slot) -> ir.Value | None:
    a, b = w.broadcast(slot)
    dtype = x.type.dtype
    if op.kind == "not_equal":
        return w("Not", w("Equal", a, b))
    if dtype == "bool":
        if op.kind == "less":
            return w("And", w("Not", a), b)
        return w(LOGICAL[op.kind], a, b) if op.kind in LOGICAL else None
    if op.kind == "root":
        if isinstance(b.op, Scalar) and b.op.value == 2:
            return w("Sqrt", a)
        return w("Pow", a, w("Reciprocal", b))
    if op.kind == "fmod":
        return w("Mod", a, b, fmod=1)
    if op.kind == "mod":
        return w("Mod", a, b) if is_integer(dtype) else None
    return w(BINARY[op.kind], a, b) if op.kind in BINARY else None


def _select(w: Writer, slot: Slot, op: Op, condition: Slot, x: Slot, y: Slot) -> ir.Value | None:
    return w("Where", *w.broadcast(slot)) if condition.type.dtype == "bool" else None


def _clip(w: Writer, slot: Slot, op: Clip, x: Slot) -> ir.Value:
    dtype = x.type.dtype
    low, high = (None if abs(b) == inf else w.number(b, dtype) for b in (op.low, op.high))
    return w("Clip", x, low, high) if high is not None else w("Clip", x, low) if low is not None else w.value(x)


def _softplus(w: Writer, slot: Slot, op: Softplus, x: Slot) -> ir.Value | None:
    exact = op.threshold == inf or (op.threshold >= 20 and x.type.dtype in ("f32", "f16", "bf16"))
    if not exact or not is_float(x.type.dtype):
        return None
    if op.beta == 1:
        return w("Softplus", x)
    beta = w.number(op.beta, x.type.dtype)
    return w("Div", w("Softplus", w("Mul", x, beta)), beta)


def _gelu(w: Writer, slot: Slot, op: Gelu, x: Slot) -> ir.Value | None:
    return w("Gelu", x, approximate=op.approximate) if w.opset >= 20 and is_float(x.type.dtype) else None


def _not(w: Writer, slot: Slot, op: Not, x: Slot) -> ir.Value | None:
    return w("Not", x) if x.type.dtype == "bool" else None


# -- reductions -----------------------------------------------------------------------------------


def _reduce(w: Writer, slot: Slot, op: Reduce, x: Slot, keep: bool = True) -> ir.Value:
    rank, dtype = x.type.rank, x.type.dtype
    space = tuple(range(2, rank))
    if keep and rank > 2 and op.axes == space and dtype == "f32" and op.kind in ("mean", "max"):
        return w("GlobalAveragePool" if op.kind == "mean" else "GlobalMaxPool", x)
    # runtimes reduce these types only: any and all are maximum and minimum of 0 and 1
    kind = {"any": "max", "all": "min"}.get(op.kind, op.kind)
    if dtype == "bool" or (is_integer(dtype) and (dtype not in ("i32", "i64") or kind == "mean")):
        wide = "f64" if kind == "mean" else "i64" if dtype in ("u32", "u64") else "i32"
        found = w(REDUCTIONS[kind], w.cast(x, wide), vector(op.axes), keepdims=int(keep))
        if dtype == "bool":  # the maximum of nothing is the lowest number, which is not true
            return w("Greater", found, w.number(0, wide))
        return w.cast(found, dtype)
    return w(REDUCTIONS[kind], x, vector(op.axes), keepdims=int(keep))


def _squeeze(w: Writer, slot: Slot, op: Squeeze, x: Slot) -> ir.Value:
    if x.value is None and isinstance(x.op, Reduce) and x.op.axes == op.axes:
        return _reduce(w, x, x.op, x.operands[0], keep=False)
    return w("Squeeze", x, vector(op.axes))


def _arg_max(w: Writer, slot: Slot, op: ArgMax, x: Slot) -> ir.Value:
    return w("ArgMin" if op.smallest else "ArgMax", x, axis=op.axis, keepdims=int(op.keep))


def _cum_sum(w: Writer, slot: Slot, op: CumSum, x: Slot) -> ir.Value:
    return w("CumSum", x, vector([op.axis])[0], exclusive=int(op.exclusive), reverse=int(op.reverse))


# -- contractions, convolutions, pools ------------------------------------------------------------


def _einsum(w: Writer, slot: Slot, op: Einsum, x: Slot, y: Slot) -> ir.Value | None:
    form = MatmulForm.of(op)
    lead = len(form.batch)
    aligned = op.left[:lead] == op.right[:lead] == form.batch and op.out == form.batch + form.rows + form.columns
    if aligned and len(form.summed) == 1 and not form.left_only and not form.right_only:
        left, right = op.left[lead:], op.right[lead:]
        if not lead and right == form.summed and left == form.rows + form.summed:
            return w("MatMul", x, y)
        if len(form.columns) == 1 and len(form.rows) >= 1 and (not lead or len(form.rows) == 1):
            swapped = len(form.rows) == 1 and left == form.summed + form.rows
            a = _swap(w, x) if swapped else x
            b = _swap(w, y) if right == form.columns + form.summed else y
            return w("MatMul", a, b)
    return w("Einsum", x, y, equation=op.equation)


def _swap(w: Writer, x: Slot) -> ir.Value:
    rank = x.type.rank
    return w("Transpose", x, perm=[*range(rank - 2), rank - 1, rank - 2])


def _linear(w: Writer, slot: Slot, op: Linear, x: Slot, weight: Slot, *bias: Slot) -> ir.Value:
    if x.type.rank == 2 and is_float(x.type.dtype):
        return w("Gemm", x, weight, *bias, transB=1)
    y = w("MatMul", x, _swap(w, weight))
    return w("Add", y, *bias) if bias else y


def _gemm(w: Writer, slot: Slot, op: Gemm, *xs: Slot) -> ir.Value | None:
    if not is_float(xs[0].type.dtype):
        return None
    spec = {"alpha": op.alpha, "beta": op.beta, "transA": int(op.trans_a), "transB": int(op.trans_b)}
    return w("Gemm", *xs, **spec)


def _conv(w: Writer, slot: Slot, op: Conv | ConvTranspose, *xs: Slot) -> ir.Value | None:
    if not is_float(xs[0].type.dtype) or xs[0].type.rank < 3:
        return None
    extra = {"output_padding": list(op.extra)} if isinstance(op, ConvTranspose) else {}
    return w(
        type(op).__name__,
        *xs,
        strides=list(op.strides),
        pads=[*op.before, *op.after],
        dilations=list(op.dilations),
        group=op.groups,
        **extra,
    )


def _spatial(op: MaxPool | AvgPool, x: Slot) -> bool:
    """Does a pool concern all axes but the first two, as ONNX's do?"""
    return is_float(x.type.dtype) and len(op.window) == x.type.rank - 2 and x.type.rank > 2


def _max_pool(w: Writer, slot: Slot, op: MaxPool, x: Slot) -> ir.Value | None:
    fits = all(p < k for side in (op.before, op.after) for p, k in zip(side, op.window, strict=True))
    if not _spatial(op, x) or not fits:
        return None
    window, pads = list(op.window), [*op.before, *op.after]
    return w("MaxPool", x, kernel_shape=window, strides=list(op.strides), pads=pads, dilations=list(op.dilations))


def _avg_pool(w: Writer, slot: Slot, op: AvgPool, x: Slot) -> ir.Value | None:
    ends = [a + e for a, e in zip(op.after, op.extra, strict=True)]
    fits = all(p < k for side in (op.before, ends) for p, k in zip(side, op.window, strict=True))
    if not _spatial(op, x) or not fits:
        return None
    source: Slot | ir.Value = x
    before = list(op.before)
    count = op.count_pad
    if count and any(op.extra):  # what is counted is padded first, what is not by the pool
        source = _padded(w, source, x.type.dtype, [0, 0, *op.before], [0, 0, *op.after], 0)
        before, ends, count = [0] * len(before), list(op.extra), False
    return w(
        "AveragePool",
        source,
        kernel_shape=list(op.window),
        strides=list(op.strides),
        pads=[*before, *ends],
        count_include_pad=int(count),
    )


def _adaptive(w: Writer, slot: Slot, op: AdaptiveAvgPool, x: Slot) -> ir.Value | None:
    sizes = x.type.shape[2:]
    if not is_float(x.type.dtype) or len(op.to) != len(sizes):
        return None
    if all(n == 1 for n in op.to):
        return w("GlobalAveragePool", x)
    if any(isinstance(d, Size) or d % n for d, n in zip(sizes, op.to, strict=True)):
        return None
    window = [d // n for d, n in zip(sizes, op.to, strict=True)]
    return w("AveragePool", x, kernel_shape=window, strides=window)


# -- normalisations -------------------------------------------------------------------------------


def _layer_norm(w: Writer, slot: Slot, op: LayerNorm, x: Slot, *affine: Slot) -> ir.Value | None:
    own = x.type.shape[x.type.rank - op.axes :]
    if not is_float(x.type.dtype) or (not affine and not all(isinstance(d, int) for d in own)):
        return None
    scale: tuple[Any, ...] = affine or (np.ones(own, to_numpy(x.type.dtype)),)  # type: ignore[arg-type]
    return w("LayerNormalization", x, *scale, axis=-op.axes, epsilon=op.eps)


def _by_channel(name: str) -> Callable[..., Any]:
    def row(w: Writer, slot: Slot, op: Any, x: Slot, *affine: Slot) -> ir.Value | None:
        channels, dtype = x.type.shape[1], x.type.dtype
        if not is_float(dtype) or not isinstance(channels, int):
            return None
        if isinstance(op, GroupNorm) and w.opset < 21:
            return None
        parts: list[Any] = list(affine)
        parts += [np.full(channels, fill, to_numpy(dtype)) for fill in (1, 0)[len(parts) :]]
        groups = {"num_groups": op.groups} if isinstance(op, GroupNorm) else {}
        return w(name, x, *parts, epsilon=op.eps, **groups)

    return row


# -- movement -------------------------------------------------------------------------------------


def _as_shape(w: Writer, slot: Slot, op: Op, x: Slot) -> ir.Value:
    return w.reshape(x, x.type.shape, slot.type.shape)


def _sliced(
    w: Writer, x: Any, starts: Sequence[Dim], stops: Sequence[Dim | None], steps: Sequence[int] | None = None
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
    return w("Slice", x, vector([-1] * count), vector([-LAST] * count), vector(axes), vector([-1] * count))


def _padded(
    w: Writer, x: Slot | ir.Value, dtype: str, before: Sequence[Dim], after: Sequence[Dim], fill: float
) -> ir.Value:
    return w("Pad", x, w.vector([*before, *after]), w.number(fill, dtype))


def _pad(w: Writer, slot: Slot, op: Pad, x: Slot) -> ir.Value:
    if x.type.dtype == "bool":  # runtimes do not pad bool
        return w.cast(_padded(w, w.cast(x, "u8"), "u8", op.before, op.after, int(bool(op.fill))), "bool")
    return _padded(w, x, x.type.dtype, op.before, op.after, op.fill)


def _interleave(w: Writer, slot: Slot, op: Interleave, x: Slot) -> ir.Value:
    """Each axis becomes (d, 1), is filled up to (d, step), joined to d*step and cut after the last."""
    dtype = "u8" if x.type.dtype == "bool" else x.type.dtype
    current: Slot | ir.Value = x if dtype == x.type.dtype else w.cast(x, dtype)
    shape = list(x.type.shape)
    for axis, step in enumerate(op.steps):
        if step == 1:
            continue
        wide = w("Unsqueeze", current, vector([axis + 1]))
        after = [0] * (len(shape) + 1)
        after[axis + 1] = step - 1
        filled = _padded(w, wide, dtype, [0] * len(after), after, op.fill)
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
    return w("Expand", x, w.vector(op.counts))


def _expand(w: Writer, slot: Slot, op: Expand, x: Slot) -> ir.Value:
    # an axis of 1 in the shape leaves that of x as it is
    missing = slot.type.rank - x.type.rank
    own = (None,) * missing + x.type.shape
    return w("Expand", x, w.vector([1 if d == o else d for d, o in zip(slot.type.shape, own, strict=True)]))


def _unfold(w: Writer, slot: Slot, op: Unfold, x: Slot) -> ir.Value:
    windows, window = slot.type.shape[op.axis : op.axis + 2]
    return w("Gather", x, _places(w, windows, window, op.step, op.dilation), axis=op.axis)


def _places(w: Writer, windows: Dim, window: Dim, step: Dim, dilation: Dim) -> ir.Value:
    """i*step + j*dilation, as an i64 matrix."""
    if all(isinstance(d, int) for d in (windows, window, step, dilation)):
        i, j = np.arange(windows), np.arange(window)  # type: ignore[arg-type]
        return w.constant((i[:, None] * step + j[None] * dilation).astype(np.int64))
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
    at = w("Squeeze", w.size(op.at), vector([0])) if isinstance(op.at, Size) else w.number(op.at, "i64")
    return w("Gather", x, at, axis=op.axis)


def _concat(w: Writer, slot: Slot, op: Concat, *xs: Slot) -> ir.Value:
    return w("Concat", *xs, axis=op.axis)


# -- leaves ---------------------------------------------------------------------------------------


def _scalar(w: Writer, slot: Slot, op: Scalar) -> ir.Value:
    if isinstance(op.value, Size):
        number = w("Squeeze", w.size(op.value), vector([0]))
        return number if op.of == "i64" else w.cast(number, op.of)
    return w.number(op.value, op.of)


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
TABLE: dict[type[Op], Callable[..., Any]] = {
    # core
    Unary:      _unary,
    Binary:     _binary,
    Select:     _select,
    Cast:       lambda w, slot, op, x: w.cast(x, op.to),
    Reduce:     _reduce,
    Permute:    lambda w, slot, op, x: w("Transpose", x, perm=list(op.order)),
    Group:      _as_shape,
    Ungroup:    _as_shape,
    Squeeze:    _squeeze,
    Unsqueeze:  lambda w, slot, op, x: w("Unsqueeze", x, vector(op.axes)),
    Stride:     _stride,
    Interleave: _interleave,
    Slice:      _slice,
    Pad:        _pad,
    Repeat:     _repeat,
    Unfold:     _unfold,
    Fold:       _fold,
    Scalar:     _scalar,
    Iota:       _iota,
    # pointwise
    Broadcast:  _binary,
    Where:      _select,
    Relu:       plain("Relu"),      Sigmoid:   plain("Sigmoid"),  Sqrt:  plain("Sqrt"),
    Erf:        plain("Erf"),       HardSwish: plain("HardSwish"), Mish: plain("Mish"),
    Ceil:       plain("Ceil"),      Round:     plain("Round"),    Softsign: plain("Softsign"),
    IsInf:      plain("IsInf"),     Prelu:     plain("PRelu"),
    Abs:        lambda w, slot, op, x: w("Abs", x),
    Rsqrt:      lambda w, slot, op, x: w("Reciprocal", w("Sqrt", x)) if is_float(x.type.dtype) else None,
    Silu:       lambda w, slot, op, x: w("Mul", x, w("Sigmoid", x)) if is_float(x.type.dtype) else None,
    LeakyRelu:  plain("LeakyRelu", alpha="slope"),
    Elu:        plain("Elu", alpha="alpha"),
    Selu:       plain("Selu", alpha="alpha", gamma="gamma"),
    HardSigmoid: plain("HardSigmoid", alpha="alpha", beta="beta"),
    Gelu:       _gelu,
    Clip:       _clip,
    Softplus:   _softplus,
    Not:        _not,
    # contractions, convolutions, pools, normalisations
    Einsum:     _einsum,
    Matmul:     lambda w, slot, op, x, y: w("MatMul", x, y),
    Linear:     _linear,
    Gemm:       _gemm,
    Conv:       _conv,
    ConvTranspose: _conv,
    MaxPool:    _max_pool,
    AvgPool:    _avg_pool,
    AdaptiveAvgPool: _adaptive,
    Softmax:    plain("Softmax", axis="axis"),
    LogSoftmax: plain("LogSoftmax", axis="axis"),
    LayerNorm:  _layer_norm,
    BatchNorm:  plain("BatchNormalization", epsilon="eps"),
    InstanceNorm: _by_channel("InstanceNormalization"),
    GroupNorm:  _by_channel("GroupNormalization"),
    LocalResponseNorm: plain("LRN", size="size", alpha="alpha", beta="beta", bias="bias"),
    # movement and indices
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
