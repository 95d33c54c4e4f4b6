"""ATen operations that combine elements: reductions, products, pooling, norms, attention."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from safegraph import value as v
from safegraph.derived.attention import Attention, EncoderLayer, MultiHead
from safegraph.derived.conv import Conv, ConvTranspose
from safegraph.derived.einsum import Gemm, Linear, Matmul
from safegraph.derived.equation import contraction
from safegraph.derived.index import ArgMax, CumSum
from safegraph.derived.norm import (
    BatchNorm,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    LogSoftmax,
    RmsNorm,
    Softmax,
    of_channels,
)
from safegraph.derived.pointwise import (
    Abs,
    Sqrt,
)
from safegraph.derived.pool import AdaptiveAvgPool, AvgPool, MaxPool
from safegraph.dims import Dim, Shape, product
from safegraph.dtypes import is_integer
from safegraph.errors import ShapeError, UnsupportedError
from safegraph.frontends.torchscript.rows import (
    as_asked,
    as_list,
    as_type,
    asked,
    binary,
    given,
    known,
    real,
    truth,
)
from safegraph.frontends.torchscript.rows_shape import cat, flatten, slice_
from safegraph.frontends.torchscript.types import torch_dtype
from safegraph.op import axes_of, axis_of
from safegraph.value import Value, apply

# -- reductions -----------------------------------------------------------------------------------


def _axes(x: Value, dim: Any) -> tuple[int, ...]:
    """The axes to reduce: all where none are given."""
    return tuple(range(x.rank)) if dim is None or dim == [] else axes_of(as_list(dim), x.rank)


def _reduced(x: Value, axes: Sequence[int], kind: str, keep: bool) -> Value:
    return v.reduce(x, axes, kind, keep=keep, as_written=True)


def _sum(kind: str) -> Callable[..., Value]:
    def row(x: Value, *, dim: Any = None, keepdim: bool = False, dtype: int | None = None) -> Value:
        wide = "i64" if is_integer(x.dtype) or x.dtype == "bool" else x.dtype
        return _reduced(v.cast(x, asked(dtype, wide)), _axes(x, dim), kind, keepdim)

    return row


def _mean(x: Value, *, dim: Any = None, keepdim: bool = False, dtype: int | None = None) -> Value:
    return _reduced(as_asked(x, dtype), _axes(x, dim), "mean", keepdim)


def _extreme(kind: str) -> Callable[..., Any]:
    def row(x: Value, other: Value | None = None, *, dim: Any = None, keepdim: bool = False) -> Any:
        return _reduced(x, _axes(x, dim), kind, keepdim)

    return row


def _extreme_at(kind: str) -> Callable[..., Any]:
    def row(x: Value, dim: int, keepdim: bool) -> list[Value]:
        axis = axis_of(dim, x.rank)
        return [
            _reduced(x, [axis], kind, keepdim),
            apply(ArgMax(axis, keepdim, kind == "min"), x),
        ]

    return row


def _truth_of(kind: str) -> Callable[..., Value]:
    def row(x: Value, *, dim: Any = None, keepdim: bool = False) -> Value:
        return _reduced(truth(x), _axes(x, dim), kind, keepdim)

    return row


def _arg(smallest: bool) -> Callable[..., Value]:
    def row(x: Value, dim: int | None = None, keepdim: bool = False) -> Value:
        if dim is None:
            return apply(ArgMax(0, False, smallest), flatten(x))
        return apply(ArgMax(dim, keepdim, smallest), x)

    return row


def _variance(root: bool) -> Callable[..., Value]:
    def row(
        x: Value,
        *,
        dim: Any = None,
        unbiased: bool = True,
        correction: Any = None,
        keepdim: bool = False,
    ) -> Value:
        axes = _axes(x, dim)
        centred = binary("subtract", x, _reduced(x, axes, "mean", True))
        number = product(x.shape[a] for a in axes)
        less = (1 if unbiased else 0) if correction is None else int(correction)
        square = binary("multiply", centred, centred)
        if less:
            found = _reduced(square, axes, "sum", keepdim)
            found = binary("divide", found, as_type(number - less, x.dtype))
        else:
            found = _reduced(square, axes, "mean", keepdim)
        return apply(Sqrt(), found) if root else found

    return row


def _norm(
    x: Value, order: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: int | None = None
) -> Any:
    x, axes = as_asked(x, dtype), _axes(x, dim)
    if order in (None, 2):
        return apply(Sqrt(), _reduced(binary("multiply", x, x), axes, "sum", keepdim))
    if order in (1, math.inf, -math.inf):
        kind = {1: "sum", math.inf: "max", -math.inf: "min"}[order]
        return _reduced(apply(Abs(), x), axes, kind, keepdim)
    if isinstance(order, int | float) and order > 0:
        powers = _reduced(binary("pow", apply(Abs(), x), float(order)), axes, "sum", keepdim)
        return binary("pow", powers, 1 / order)
    return NotImplemented


def _cumsum(x: Value, dim: int, *, dtype: int | None = None) -> Value:
    wide = "i64" if is_integer(x.dtype) or x.dtype == "bool" else x.dtype
    return apply(CumSum(axis_of(dim, x.rank)), v.cast(x, asked(dtype, wide)))


def _diff(x: Value, n: int, dim: int, prepend: Value | None, append: Value | None) -> Value:
    parts = [p for p in (prepend, x, append) if p is not None]
    x = parts[0] if len(parts) == 1 else cat(parts, dim)
    for _ in range(n):
        kind = "not_equal" if x.dtype == "bool" else "subtract"
        x = binary(kind, slice_(x, dim, 1), slice_(x, dim, 0, -1))
    return x


# -- products, convolutions, pooling --------------------------------------------------------------


def _matmul(x: Value, y: Value) -> Value:
    return apply(Matmul(), x, y)


def _linear(x: Value, w: Value, b: Value | None = None) -> Value:
    return apply(Linear(), x, w, *given(b))


def _addmm(c: Value, a: Value, b: Value, *, beta: float = 1, alpha: float = 1) -> Value:
    return apply(Gemm(float(alpha), float(beta), False, False), a, b, c)


def _baddbmm(c: Value, a: Value, b: Value, *, beta: float = 1, alpha: float = 1) -> Value:
    found = apply(Matmul(), a, b)
    found = found if alpha == 1 else binary("multiply", found, alpha)
    return (
        found
        if beta == 0
        else binary("add", found, c if beta == 1 else binary("multiply", c, beta))
    )


def _einsum(equation: str, operands: Sequence[Value]) -> Any:
    found = contraction(equation, operands)
    return NotImplemented if found is None else found


def _each(value: Any, number: int) -> tuple[int, ...]:
    """One entry for each spatial axis, from a number or a list of one."""
    items = as_list(value)
    return items * number if len(items) == 1 else items


def _conv(
    x: Value, w: Value, b: Value | None, stride: Any, padding: Any, dilation: Any, groups: int,
    transposed: bool = False, extra: Any = 0,
) -> Value:  # fmt: skip
    n = w.rank - 2
    if x.rank != w.rank:
        raise ShapeError(f"a convolution of {x.type} by {w.type}: give the input a batch axis")
    strides, dilations = _each(stride, n), _each(dilation, n)
    if padding == "same":
        totals = [
            d * (known(k, "a kernel") - 1) for d, k in zip(dilations, w.shape[2:], strict=True)
        ]
        before = tuple(t // 2 for t in totals)
        after = tuple(t - t // 2 for t in totals)
    else:
        before = after = _each(0 if padding == "valid" else padding, n)
    if transposed:
        return apply(
            ConvTranspose(strides, before, after, dilations, groups, _each(extra, n)),
            x,
            w,
            *given(b),
        )
    return apply(Conv(strides, before, after, dilations, groups), x, w, *given(b))


def _convolution(
    x: Value,
    w: Value,
    b: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    extra: Any,
    groups: int,
) -> Value:
    return _conv(x, w, b, stride, padding, dilation, groups, transposed, extra)


def _conv_mode(
    x: Value, w: Value, b: Any, stride: Any, padding: str, dilation: Any, groups: int
) -> Value:
    return _conv(x, w, b, stride, padding, dilation, groups)


def _conv_transpose(
    x: Value, w: Value, b: Any, stride: Any, padding: Any, extra: Any, groups: int, dilation: Any
) -> Value:
    return _conv(x, w, b, stride, padding, dilation, groups, True, extra)


def ceiling(size: Dim, reach: int, step: int, pad: int) -> int:
    """What rounding up adds at the end; a window never starts in the padding at the end."""
    size = known(size, "the size of an axis that is pooled with ceil_mode")
    windows = -((reach - size - 2 * pad) // step) + 1
    if (windows - 1) * step >= size + pad:
        windows -= 1
    return max((windows - 1) * step + reach - size - 2 * pad, 0)


def _window(
    x: Value, n: int, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: bool
) -> tuple[tuple[int, ...], ...]:
    """Kernel, stride, padding, dilation, and what rounding up adds, for each spatial axis."""
    window = _each(kernel, n)
    steps, pads, dilations = _each(stride or window, n), _each(padding, n), _each(dilation, n)
    reach = [(k - 1) * d + 1 for k, d in zip(window, dilations, strict=True)]
    each = zip(x.shape[x.rank - n :], reach, steps, pads, strict=True)
    extra = tuple(ceiling(*one) for one in each) if ceil else (0,) * n
    return window, steps, pads, dilations, extra


def _max_pool(n: int) -> Callable[..., Value]:
    def row(x: Value, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: bool) -> Value:
        window, steps, pads, dilations, extra = _window(
            x, n, kernel, stride, padding, dilation, ceil
        )
        after = tuple(p + e for p, e in zip(pads, extra, strict=True))
        return apply(MaxPool(window, steps, pads, after, dilations), x)

    return row


def _avg_pool(n: int) -> Callable[..., Any]:
    def row(
        x: Value,
        kernel: Any,
        stride: Any,
        padding: Any,
        ceil: bool,
        count_pad: bool,
        divisor: int | None = None,
    ) -> Any:
        window, steps, pads, _, extra = _window(x, n, kernel, stride, padding, 1, ceil)
        if divisor is not None:
            return NotImplemented
        return apply(AvgPool(window, steps, pads, pads, extra, count_pad), x)

    return row


def _adaptive(n: int) -> Callable[..., Any]:
    def row(x: Value, to: Any) -> Value:
        return apply(AdaptiveAvgPool(_each(to, n)), x)

    return row


def _adaptive_max(x: Value, to: Any) -> Any:
    if any(d != 1 for d in as_list(to)) or len(as_list(to)) < 2:
        return NotImplemented
    axes = tuple(range(x.rank - len(as_list(to)), x.rank))
    return [v.reduce(x, axes, "max"), _place_of_largest(x, len(axes))]


def _place_of_largest(x: Value, n: int) -> Value:
    flat = flatten(x, x.rank - n)
    return v.unsqueeze(
        apply(ArgMax(flat.rank - 1, True, False), flat), range(x.rank - n + 1, x.rank)
    )


# -- normalisation and attention ------------------------------------------------------------------


def _softmax(op: type[Softmax] | type[LogSoftmax]) -> Callable[..., Value]:
    return lambda x, dim, dtype=None: apply(op(axis_of(dim, x.rank)), as_asked(real(x), dtype))


def _batch_norm(
    x: Value, w: Any, b: Any, mean: Any, variance: Any, training: bool, momentum: float, eps: float
) -> Value:
    if training and mean is not None:
        raise UnsupportedError(
            "batch_norm takes its statistics from the batch: call .eval() on the model first"
        )
    if mean is None:  # as weights are standardized
        mean, variance = of_channels(x)
    channels = (x.shape[1],)
    scale = v.full(1, channels, mean.dtype) if w is None else w
    bias = v.full(0, channels, mean.dtype) if b is None else b
    return apply(BatchNorm(eps), x, scale, bias, mean, variance)


def _instance_norm(
    x: Value, w: Any, b: Any, mean: Any, variance: Any, use_input: bool, momentum: float, eps: float
) -> Value:
    if not use_input:
        return _batch_norm(x, w, b, mean, variance, False, momentum, eps)
    if mean is not None:
        raise UnsupportedError(
            "instance_norm updates its running statistics: call .eval() on the model first"
        )
    return apply(InstanceNorm(eps), x, *given(w, b))


def _layer_norm(x: Value, shape: Shape, w: Any, b: Any, eps: float) -> Any:
    return (
        NotImplemented
        if w is None and b is not None
        else apply(LayerNorm(len(shape), eps), x, *given(w, b))
    )


def _group_norm(x: Value, groups: int, w: Any, b: Any, eps: float) -> Any:
    return (
        NotImplemented
        if w is None and b is not None
        else apply(GroupNorm(groups, eps), x, *given(w, b))
    )


def _rms_norm(x: Value, shape: Shape, w: Any, eps: float | None) -> Value:
    eps = torch.finfo(torch_dtype(x.dtype)).eps if eps is None else eps
    return apply(RmsNorm(len(shape), eps), x, *given(w))


def _attention(
    q: Value,
    k: Value,
    w: Value,
    mask: Value | None,
    dropout: float,
    causal: bool,
    *,
    scale: float | None = None,
) -> Any:
    if dropout:
        raise UnsupportedError(
            "attention with dropout draws random numbers: call .eval() on the model first"
        )
    if not q.rank == k.rank == w.rank:
        return NotImplemented
    return apply(Attention(scale, causal), q, k, w, *given(mask))


def _multi_head(
    q: Value, k: Value, w: Value, width: int, heads: int,
    in_w: Value, in_b: Any, out_w: Value, out_b: Any, mask: Any = None,
    need_weights: bool = True, average: bool = True,
) -> Any:  # fmt: skip
    if mask is not None or in_b is None or out_b is None:
        return NotImplemented
    found = apply(MultiHead(heads), q, k, w, in_w, in_b, out_w, out_b)
    return [found, _head_weights(q, k, heads, in_w, in_b, average) if need_weights else None]


def _head_weights(q: Value, k: Value, heads: int, in_w: Value, in_b: Value, average: bool) -> Value:
    """What multi-head attention weighs each element by: n l s, or n heads l s."""
    width = q.shape[-1]
    parts = []
    for i, x in enumerate((q, k)):
        w, b = (v.slice_axis(p, 0, i * width, (i + 1) * width) for p in (in_w, in_b))
        split = v.ungroup(apply(Linear(), x, w, b), [(-1,), (-1,), (heads, -1)])
        parts.append(v.permute(split, (0, 2, 1, 3) if i == 0 else (0, 2, 3, 1)))
    scale = known(width, "the features of a query") // heads
    scores = binary("multiply", apply(Matmul(), *parts), scale**-0.5)
    weights = apply(Softmax(3), scores)
    return v.reduce(weights, [1], "mean", keep=False) if average else weights


def _encoder_layer(
    x: Value, width: int, heads: int, in_w: Value, in_b: Value, out_w: Value, out_b: Value,
    use_gelu: bool, norm_first: bool, eps: float,
    n1_w: Value, n1_b: Value, n2_w: Value, n2_b: Value,
    w1: Value, b1: Value, w2: Value, b2: Value, mask: Any = None,
) -> Any:  # fmt: skip
    if mask is not None:
        return NotImplemented
    op = EncoderLayer(heads, "gelu" if use_gelu else "relu", norm_first, eps)
    return apply(op, x, in_w, in_b, out_w, out_b, n1_w, n1_b, n2_w, n2_b, w1, b1, w2, b2)


# fmt: off
ROWS: dict[str, Callable[..., Any]] = {
    # reductions
    "sum":              _sum("sum"),
    "prod":             _sum("prod"),
    "mean":             _mean,
    "amax":             _extreme("max"),
    "amin":             _extreme("min"),
    "max":              _extreme("max"),
    "min":              _extreme("min"),
    "max.dim":          _extreme_at("max"),
    "min.dim":          _extreme_at("min"),
    "any":              _truth_of("any"),
    "all":              _truth_of("all"),
    "argmax":           _arg(False),
    "argmin":           _arg(True),
    "var":              _variance(False),
    "std":              _variance(True),
    "norm":             _norm,
    "linalg_vector_norm": _norm,
    "frobenius_norm":   lambda x, dim=None, keepdim=False: _norm(x, 2, dim, keepdim),
    "cumsum":           _cumsum,
    "diff":             _diff,
    # products, convolutions, pooling
    "linear":           _linear,
    "matmul":           _matmul,
    "mm":               _matmul,
    "bmm":              _matmul,
    "mv":               _matmul,
    "dot":              _matmul,
    "addmm":            _addmm,
    "baddbmm":          _baddbmm,
    "einsum":           _einsum,
    "conv1d":           _conv,
    "conv2d":           _conv,
    "conv3d":           _conv,
    "_convolution":     _convolution,
    "convolution":      _convolution,
    "_convolution_mode": _conv_mode,
    "conv_transpose1d": _conv_transpose,
    "conv_transpose2d": _conv_transpose,
    "conv_transpose3d": _conv_transpose,
    "max_pool1d":       _max_pool(1),
    "max_pool2d":       _max_pool(2),
    "max_pool3d":       _max_pool(3),
    "avg_pool1d":       _avg_pool(1),
    "avg_pool2d":       _avg_pool(2),
    "avg_pool3d":       _avg_pool(3),
    "adaptive_avg_pool1d": _adaptive(1),
    "adaptive_avg_pool2d": _adaptive(2),
    "adaptive_avg_pool3d": _adaptive(3),
    "adaptive_max_pool2d": _adaptive_max,
    "adaptive_max_pool3d": _adaptive_max,
    # normalisation and attention
    "softmax":          _softmax(Softmax),
    "log_softmax":      _softmax(LogSoftmax),
    "batch_norm":       _batch_norm,
    "instance_norm":    _instance_norm,
    "layer_norm":       _layer_norm,
    "group_norm":       _group_norm,
    "rms_norm":         _rms_norm,
    "scaled_dot_product_attention": _attention,
    "_native_multi_head_attention": _multi_head,
    "_transformer_encoder_layer_fwd": _encoder_layer,
}
# fmt: on
