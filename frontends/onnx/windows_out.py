"""Contractions, convolutions, pools and normalisations as ONNX nodes: one entry an op class."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from safegraph.derived.conv import Conv, ConvTranspose
from safegraph.derived.einsum import Einsum, Gemm, Labels, Linear, Matmul, MatmulForm
from safegraph.derived.norm import (
    BatchNorm,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    LocalResponseNorm,
    LogSoftmax,
    Softmax,
)
from safegraph.derived.pool import AdaptiveAvgPool, AvgPool, MaxPool
from safegraph.dims import Size
from safegraph.dtypes import is_float, to_numpy
from safegraph.op import Op
from safegraph.value import stride, tensor

if TYPE_CHECKING:
    from safegraph.frontends.onnx.writer import Slot, Writer
from safegraph.frontends.onnx.nodes import padded, plain, vector


def _einsum(w: Writer, slot: Slot, op: Einsum, x: Slot, y: Slot) -> ir.Value | None:
    a, left = _without_ones(w, x, op.left, {*op.right, *op.out})
    b, right = _without_ones(w, y, op.right, {*op.left, *op.out})
    op = Einsum(left, right, op.out)
    form = MatmulForm.of(op)
    lead = len(form.batch)
    aligned = (
        op.left[:lead] == op.right[:lead] == form.batch
        and op.out == form.batch + form.rows + form.columns
    )
    if aligned and len(form.summed) == 1 and not form.left_only and not form.right_only:
        left, right = op.left[lead:], op.right[lead:]
        if not lead and right == form.summed and left == form.rows + form.summed:
            return w("MatMul", a, b)
        swapped = len(form.rows) == 1 and left == form.summed + form.rows
        # MatMul permutes nothing: rows stand in the order of the result, or are one and swapped
        fits = swapped or (form.rows and left == form.rows + form.summed)
        if fits and len(form.columns) == 1 and (not lead or len(form.rows) == 1):
            a = _swap(w, a, len(op.left)) if swapped else a
            b = _swap(w, b, len(op.right)) if right == form.columns + form.summed else b
            return w("MatMul", a, b)
    if op.left and op.left[-1] in form.rows and op.right and op.right[-1] in form.summed:
        # a runtime multiplies rows by columns: as it is, both would first be transposed
        op, a, b = Einsum(op.right, op.left, op.out), b, a
    return w("Einsum", a, b, equation=op.equation)


def _without_ones(
    w: Writer, x: Slot, labels: Labels, others: set[int]
) -> tuple[Slot | ir.Value, Labels]:
    """An operand, and its labels, without axes of size 1 of its own: a runtime would sum them."""
    axes = [i for i, c in enumerate(labels) if c not in others and x.type.shape[i] == 1]
    if not axes:
        return x, labels
    kept = tuple(c for i, c in enumerate(labels) if i not in axes)
    return w("Squeeze", x, vector(axes)), kept


def _swap(w: Writer, x: Slot | ir.Value, rank: int) -> ir.Value:
    return w("Transpose", x, perm=[*range(rank - 2), rank - 1, rank - 2])


def _linear(w: Writer, slot: Slot, op: Linear, x: Slot, weight: Slot, *bias: Slot) -> ir.Value:
    if x.type.rank == 2 and is_float(x.type.dtype):
        return w("Gemm", x, weight, *bias, transB=1)
    y = w("MatMul", x, _swap(w, weight, 2))
    return w("Add", y, *bias) if bias else y


def _gemm(w: Writer, slot: Slot, op: Gemm, *xs: Slot) -> ir.Value | None:
    if not is_float(xs[0].type.dtype):
        return None
    spec = {
        "alpha": op.alpha,
        "beta": op.beta,
        "transA": int(op.trans_a),
        "transB": int(op.trans_b),
    }
    return w("Gemm", *xs, **spec)


def _conv(w: Writer, slot: Slot, op: Conv | ConvTranspose, *xs: Slot) -> ir.Value | None:
    if not is_float(xs[0].type.dtype) or xs[0].type.rank < 3:
        return None
    if xs[0].type.rank < xs[1].type.rank:
        return None  # its definition is a batch of one sample, which ONNX needs
    if isinstance(op.groups, Size):
        return None  # ONNX's groups are a number
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


def _of_one(row: Callable[..., Any]) -> Callable[..., Any]:
    """A pool of one sample, [c, ...]: ONNX's need a batch axis."""

    def found(w: Writer, slot: Slot, op: Any, x: Slot) -> ir.Value | None:
        space = len(op.to if isinstance(op, AdaptiveAvgPool) else op.window)
        if x.type.rank != space + 1:
            return row(w, slot, op, x)
        from safegraph.frontends.onnx.writer import Slot  # the writer imports these rows

        axes = vector([0])
        wide = x.type.with_shape((1, *x.type.shape))
        y = row(w, slot, op, Slot(wide, value=w("Unsqueeze", x, axes)))
        return None if y is None else w("Squeeze", y, axes)

    return found


def _picked(w: Writer, op: MaxPool | AvgPool, x: Slot) -> ir.Value:
    """A pool of single elements, as the slice that it is.

    ONNX Runtime 1.31 would fuse a Pad before it into the pool, and then refuse so wide a border.
    """
    leaf = tensor("x", x.type)
    return w.term(stride(leaf, (1, 1, *op.strides)), {leaf: x})


def _max_pool(w: Writer, slot: Slot, op: MaxPool, x: Slot) -> ir.Value | None:
    fits = all(
        p < k for side in (op.before, op.after) for p, k in zip(side, op.window, strict=True)
    )
    if not _spatial(op, x) or not fits:
        return None
    if set(op.window) == {1}:
        return _picked(w, op, x)
    window, pads = list(op.window), [*op.before, *op.after]
    return w(
        "MaxPool",
        x,
        kernel_shape=window,
        strides=list(op.strides),
        pads=pads,
        dilations=list(op.dilations),
    )


def _avg_pool(w: Writer, slot: Slot, op: AvgPool, x: Slot) -> ir.Value | None:
    ends = [a + e for a, e in zip(op.after, op.extra, strict=True)]
    fits = all(p < k for side in (op.before, ends) for p, k in zip(side, op.window, strict=True))
    if not _spatial(op, x) or not fits:
        return None
    if set(op.window) == {1}:
        return _picked(w, op, x)
    source: Slot | ir.Value = x
    before = list(op.before)
    count = op.count_pad
    if count and any(op.extra):  # what is counted is padded first, what is not by the pool
        source = padded(w, source, x.type.dtype, [0, 0, *op.before], [0, 0, *op.after], 0)
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
    scale: tuple[Any, ...] = affine or (np.ones(own, to_numpy(x.type.dtype)),)
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


# fmt: off
ROWS: dict[type[Op], Callable[..., Any]] = {
    Einsum:     _einsum,
    Matmul:     lambda w, slot, op, x, y: w("MatMul", x, y),
    Linear:     _linear,
    Gemm:       _gemm,
    Conv:       _conv,
    ConvTranspose: _conv,
    MaxPool:    _of_one(_max_pool),
    AvgPool:    _of_one(_avg_pool),
    AdaptiveAvgPool: _of_one(_adaptive),
    Softmax:    plain("Softmax", axis="axis"),
    LogSoftmax: plain("LogSoftmax", axis="axis"),
    LayerNorm:  _layer_norm,
    BatchNorm:  plain("BatchNormalization", epsilon="eps"),
    InstanceNorm: _by_channel("InstanceNormalization"),
    GroupNorm:  _by_channel("GroupNormalization"),
    LocalResponseNorm: plain("LRN", size="size", alpha="alpha", beta="beta", bias="bias"),
}
# fmt: on
