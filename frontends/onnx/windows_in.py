"""ONNX contractions, convolutions, pools and normalisations as terms: one entry an op."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from safegraph import dims
from safegraph import value as v
from safegraph.derived.attention import Attention
from safegraph.derived.conv import Conv, ConvTranspose
from safegraph.derived.einsum import Gemm, Matmul
from safegraph.derived.equation import contraction
from safegraph.derived.norm import (
    BatchNorm,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    LocalResponseNorm,
    LogSoftmax,
    RmsNorm,
    Softmax,
    of_channels,
)
from safegraph.derived.pointwise import (
    Sqrt,
)
from safegraph.derived.pool import AvgPool, MaxPool
from safegraph.derived.shape import Expand
from safegraph.dims import Shape, Size
from safegraph.frontends.onnx.call import Call, Unsayable
from safegraph.frontends.onnx.entries import (
    Row,
    plain,
    square,
)
from safegraph.op import Op
from safegraph.value import Value, apply


def _gemm(n: Call, a: Value, b: Value, c: Value | None = None) -> Value:
    op = Gemm(
        float(n.attribute("alpha", 1.0)),
        float(n.attribute("beta", 1.0)),
        bool(n.attribute("transA", 0)),
        bool(n.attribute("transB", 0)),
    )
    return apply(op, a, b) if c is None else apply(op, a, b, c)


def _einsum(n: Call, *xs: Value) -> Value:
    found = contraction(n.attribute("equation", ""), xs)
    if found is None:
        raise Unsayable
    return found


def _window(n: Call, x: Value, window: Shape) -> tuple[Any, ...]:
    """(strides, before, after, dilations) of a convolution or pool, by pads or auto_pad."""
    rank = len(window)
    strides = n.numbers("strides") or (1,) * rank
    dilations = n.numbers("dilations") or (1,) * rank
    mode = n.attribute("auto_pad", "NOTSET")
    if mode in ("NOTSET", "VALID", ""):
        pads = n.numbers("pads") if mode == "NOTSET" else None
        pads = pads or (0,) * (2 * rank)
        return strides, pads[:rank], pads[rank:], dilations
    before, after = [], []
    for size, w, s, d in zip(x.shape[2:], window, strides, dilations, strict=True):
        reach = (w - 1) * d + 1
        total = dims.maximum(((size + s - 1) // s - 1) * s + reach - size, 0)
        if isinstance(total, Size) or isinstance(reach, Size):
            raise Unsayable  # the padding depends on a free size
        small, large = total // 2, total - total // 2
        before.append(small if mode == "SAME_UPPER" else large)
        after.append(large if mode == "SAME_UPPER" else small)
    return strides, tuple(before), tuple(after), dilations


def _conv(n: Call, x: Value, w: Value, b: Value | None = None) -> Value:
    strides, before, after, dilations = _window(n, x, w.shape[2:])
    if any(p < 0 for p in (*before, *after)):
        raise Unsayable
    op = Conv(strides, before, after, dilations, n.attribute("group", 1))
    return apply(op, x, w) if b is None else apply(op, x, w, b)


def _conv_transpose(n: Call, x: Value, w: Value, b: Value | None = None) -> Value:
    rank = x.rank - 2
    window = w.shape[2:]
    strides = n.numbers("strides") or (1,) * rank
    dilations = n.numbers("dilations") or (1,) * rank
    extra = n.numbers("output_padding") or (0,) * rank
    pads = n.numbers("pads") or (0,) * (2 * rank)
    before, after = list(pads[:rank]), list(pads[rank:])
    wanted = n.numbers("output_shape")
    mode = n.attribute("auto_pad", "NOTSET")
    if wanted is not None or mode in ("SAME_UPPER", "SAME_LOWER"):
        for i in range(rank):
            size, w_i = x.shape[i + 2], window[i]
            target = wanted[i] if wanted is not None else size * strides[i]
            total = strides[i] * (size - 1) + extra[i] + (w_i - 1) * dilations[i] + 1 - target
            if isinstance(total, Size):
                raise Unsayable
            if total < 0:
                extra, total = tuple(e - total * (j == i) for j, e in enumerate(extra)), 0
            small, large = total // 2, total - total // 2
            before[i], after[i] = (small, large) if mode == "SAME_UPPER" else (large, small)
    if any(p < 0 for p in (*before, *after)):
        raise Unsayable
    op = ConvTranspose(
        strides, tuple(before), tuple(after), dilations, n.attribute("group", 1), tuple(extra)
    )
    return apply(op, x, w) if b is None else apply(op, x, w, b)


def _ceil_extra(
    n: Call, x: Value, window: Sequence[int], parts: tuple[Any, ...]
) -> tuple[int, ...]:
    """What ceil_mode adds to the end of each axis."""
    if not n.attribute("ceil_mode", 0):
        return (0,) * len(window)
    found = []
    for size, w, s, p, q, d in zip(x.shape[2:], window, *parts, strict=True):
        reach = (w - 1) * d + 1
        if isinstance(size, int):
            count = -(-(size + p + q - reach) // s) + 1
            count -= (count - 1) * s >= size + p  # no window starts in the padding at the end
            found.append(max(0, (count - 1) * s + reach - (size + p + q)))
        elif q + s - 1 < reach:
            found.append(s - 1)
        else:
            raise Unsayable
    return tuple(found)


def _max_pool(n: Call, x: Value) -> tuple[Value]:
    window = n.numbers("kernel_shape") or ()
    parts = _window(n, x, window)
    strides, before, after, dilations = parts
    extra = _ceil_extra(n, x, window, parts)
    ends = tuple(a + e for a, e in zip(after, extra, strict=True))
    return (apply(MaxPool(window, strides, before, ends, dilations), x),)


def _average_pool(n: Call, x: Value) -> Value:
    window = n.numbers("kernel_shape") or ()
    parts = _window(n, x, window)
    strides, before, after, dilations = parts
    if any(d != 1 for d in dilations):
        raise Unsayable
    extra = _ceil_extra(n, x, window, parts)
    count = bool(n.attribute("count_include_pad", 0))
    return apply(AvgPool(window, strides, before, after, extra, count), x)


# -- normalisations -------------------------------------------------------------------------------


def _softmax(op: Callable[[int], Op]) -> Row:
    def row(n: Call, x: Value) -> Value:
        axis = n.attribute("axis", -1 if n.version >= 13 else 1) % max(x.rank, 1)
        rest = x.shape[axis + 1 :]
        if n.version >= 13 or all(d == 1 for d in rest):
            return apply(op(axis), x)
        # Before opset 13, all axes from this one on are taken together.
        flat = v.group(x, [1] * axis + [x.rank - axis])
        return v.reshape(apply(op(axis), flat), x.shape)

    return row


def _batch_norm(n: Call, x: Value, *rest: Value) -> tuple[Value]:
    if not n.attribute("spatial", 1):
        raise Unsayable
    scale, bias, *running = rest
    if n.attribute("training_mode", 0):
        if any(n.used[1:]):  # the running statistics after it
            raise Unsayable
        running = list(of_channels(x))
    return (apply(BatchNorm(float(n.attribute("epsilon", 1e-5))), x, scale, bias, *running),)


def _layer_norm(n: Call, x: Value, w: Value, b: Value | None = None) -> tuple[Value, ...]:
    axis, eps = n.attribute("axis", -1) % x.rank, float(n.attribute("epsilon", 1e-5))
    own = x.shape[axis:]
    parts = [p if p.shape == own else apply(Expand(own), p) for p in (w, b) if p is not None]
    y = apply(LayerNorm(x.rank - axis, eps), x, *parts)
    if not any(n.used[1:]):
        return (y,)
    mean = v.reduce(x, range(axis, x.rank), "mean")
    variance = v.reduce(square(x - mean), range(axis, x.rank), "mean")
    return y, mean, v.unary("inverse", apply(Sqrt(), variance + eps))


def _rms_norm(n: Call, x: Value, w: Value) -> Value:
    axes = x.rank - n.attribute("axis", -1) % x.rank
    own = x.shape[x.rank - axes :]
    scale = w if w.shape == own else apply(Expand(own), w)
    return apply(RmsNorm(axes, float(n.attribute("epsilon", 1e-5))), x, scale)


def _group_norm(n: Call, x: Value, w: Value, b: Value) -> Value:
    groups = n.attribute("num_groups", 1)
    if n.version < 21:  # one scale and bias a group, not a channel
        each = dims.require_divide(x.shape[1], groups, "GroupNormalization")
        w, b = (v.group(v.repeat(v.unsqueeze(p, [1]), [1, each]), [2]) for p in (w, b))
    return apply(GroupNorm(groups, float(n.attribute("epsilon", 1e-5))), x, w, b)


def _instance_norm(n: Call, x: Value, w: Value, b: Value) -> Value:
    return apply(InstanceNorm(float(n.attribute("epsilon", 1e-5))), x, w, b)


def _lrn(n: Call, x: Value) -> Value:
    alpha, beta, bias = (
        n.attribute(k, d) for k, d in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0))
    )
    return apply(
        LocalResponseNorm(n.attribute("size", 1), float(alpha), float(beta), float(bias)), x
    )


def _attention(
    n: Call, q: Value, k: Value, value: Value, mask: Value | None = None, *past: Any
) -> tuple[Value]:
    if any(p is not None for p in past) or n.attribute("softcap", 0.0):
        raise Unsayable
    if n.attribute("softmax_precision", 1) != 1:
        raise Unsayable
    if mask is not None and mask.shape[-1] != k.shape[-2]:
        raise Unsayable
    scale = n.attribute("scale", None)
    op = Attention(None if scale is None else float(scale), bool(n.attribute("is_causal", 0)))
    heads, shared = n.attribute("q_num_heads", 0), n.attribute("kv_num_heads", 0)
    n.attribute("qk_matmul_output_mode", 0)  # of a result that is not given here
    if q.rank == 4:
        return (apply(op, q, k, value, *([] if mask is None else [mask])),)
    parts = [
        v.permute(v.ungroup(x, [(-1,), (-1,), (h, -1)]), [0, 2, 1, 3])
        for x, h in ((q, heads), (k, shared), (value, shared))
    ]
    y = apply(op, *parts, *([] if mask is None else [mask]))
    return (v.group(v.permute(y, [0, 2, 1, 3]), [1, 1, 2]),)


# fmt: off
ROWS: dict[str, Row] = {
    "MatMul":     plain(Matmul()),     "Gemm":           _gemm,
    "Einsum":     _einsum,             "Attention":      _attention,
    "Conv":       _conv,               "ConvTranspose":  _conv_transpose,
    "MaxPool":    _max_pool,           "AveragePool":    _average_pool,
    "Softmax":    _softmax(Softmax),   "LogSoftmax":     _softmax(LogSoftmax),
    "BatchNormalization":    _batch_norm,
    "LayerNormalization":    _layer_norm,
    "RMSNormalization":      _rms_norm,
    "GroupNormalization":    _group_norm,
    "InstanceNormalization": _instance_norm,
    "LRN":        _lrn,
}
# fmt: on
