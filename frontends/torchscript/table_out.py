"""What each op is in TorchScript: rows of the table that `write` walks by.

A row is a text with the operands as {0}, {1}, ... and the fields of the spec by name, or a function
of the op and of what the source around it offers; None says that this spec has no operation in
torch, so that the op's definition is written instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from safegraph.derived.attention import Attention, EncoderLayer, MultiHead
from safegraph.derived.conv import Conv, ConvTranspose
from safegraph.derived.einsum import Einsum, Gemm, Linear, Matmul
from safegraph.derived.index import ArgMax, CumSum, Flip, Gather, GatherElements, OneHot, Trilu
from safegraph.derived.norm import (
    BatchNorm,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    LogSoftmax,
    RmsNorm,
    Softmax,
)
from safegraph.derived.pointwise import (
    Abs,
    Broadcast,
    Ceil,
    Clip,
    Elu,
    Erf,
    Expm1,
    Gelu,
    HardSigmoid,
    HardSwish,
    IsInf,
    LeakyRelu,
    Log1p,
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
    Sqrt,
    Trunc,
    Where,
)
from safegraph.derived.pool import AdaptiveAvgPool, AvgPool, MaxPool
from safegraph.derived.shape import Concat, Expand, Index, Reshape, Tile
from safegraph.dtypes import is_float
from safegraph.frontends.torchscript import core_out, recurrent, resize, scatter
from safegraph.frontends.torchscript.core_out import binary, reshaped, select
from safegraph.frontends.torchscript.rows_layers import ceiling
from safegraph.frontends.torchscript.site import Site, literal, sliced, text, torch_name
from safegraph.op import Op


def _symmetric(op: Any) -> bool:
    return op.before == op.after


def _padded(op: Any, s: Site, fill: str = "0") -> tuple[str, tuple[int, ...]]:
    """The operand, padded where its padding differs at both ends, and the padding that remains."""
    if _symmetric(op):
        return s[0], op.before
    edges = [e for pair in reversed(list(zip(op.before, op.after, strict=True))) for e in pair]
    return f"aten.constant_pad_nd({s[0]}, {text(edges)}, {fill})", (0,) * len(op.before)


def _conv(op: Conv, s: Site) -> str | None:
    if s.types[0].rank < s.types[1].rank:
        return None  # its definition is a batch of one sample, which aten needs
    x, padding = _padded(op, s)
    zeros = text((0,) * len(padding))
    spec = f"{text(op.strides)}, {text(padding)}, {text(op.dilations)}, False, {zeros}, {op.groups}"
    return f"aten.convolution({x}, {s[1]}, {s.optional(2)}, {spec})"


def _conv_transpose(op: ConvTranspose, s: Site) -> str | None:
    if s.types[0].rank < s.types[1].rank:
        return None  # its definition is a batch of one sample, which aten needs
    # What is cut off less at the end counts as output padding, which torch bounds.
    extra = tuple(e + b - a for e, b, a in zip(op.extra, op.before, op.after, strict=True))
    bounds = (max(n, d) for n, d in zip(op.strides, op.dilations, strict=True))
    if not all(0 <= e < bound for e, bound in zip(extra, bounds, strict=True)):
        return None
    geometry = f"{text(op.strides)}, {text(op.before)}, {text(op.dilations)}"
    spec = f"{geometry}, True, {text(extra)}, {op.groups}"
    return f"aten.convolution({s[0]}, {s[1]}, {s.optional(2)}, {spec})"


def _max_pool(op: MaxPool, s: Site) -> str | None:
    n = len(op.window)
    fits = all(2 * b <= k for b, k in zip(op.before, op.window, strict=True))
    if n > 3 or s.types[0].rank not in (n + 1, n + 2) or not is_float(s.out.dtype):
        return None
    if _symmetric(op) and fits:
        x, padding = s[0], op.before
    else:
        edges = [e for pair in reversed(list(zip(op.before, op.after, strict=True))) for e in pair]
        x, padding = f"aten.constant_pad_nd({s[0]}, {text(edges)}, {text(-math.inf)})", (0,) * n
    spec = f"{text(op.window)}, {text(op.strides)}, {text(padding)}, {text(op.dilations)}, False"
    return f"aten.max_pool{n}d({x}, {spec})"


def _avg_pool(op: AvgPool, s: Site) -> str | None:
    n = len(op.window)
    if n > 3 or s.types[0].rank not in (n + 1, n + 2) or not _symmetric(op):
        return None
    if any(2 * b > k for b, k in zip(op.before, op.window, strict=True)):
        return None
    ceil = any(op.extra)
    sizes = zip(s.types[0].shape[-n:], op.window, op.strides, op.before, op.extra, strict=True)
    if ceil and any(e != ceiling(d, k, step, b) for d, k, step, b, e in sizes):
        return None
    spec = f"{text(op.window)}, {text(op.strides)}, {text(op.before)}, {ceil}, {op.count_pad}"
    return f"aten.avg_pool{n}d({s[0]}, {spec})"


def _adaptive(op: AdaptiveAvgPool, s: Site) -> str | None:
    n = len(op.to)
    fits = n <= 3 and s.types[0].rank in (n + 1, n + 2)
    return f"aten.adaptive_avg_pool{n}d({s[0]}, {text(op.to)})" if fits else None


def _layer_norm(op: LayerNorm, s: Site) -> str | None:
    shape = s.out.shape[s.out.rank - op.axes :]
    return (
        f"aten.layer_norm({s[0]}, {text(shape)}, {s.optional(1)}, {s.optional(2)}, {text(op.eps)})"
    )


def _batch_norm(op: BatchNorm, s: Site) -> str:
    # torch has no scale of ones and no bias of zeros to compute with where there are none
    scale, bias = ("None" if s.is_filled(s.names[i], i == 1) else s[i] for i in (1, 2))
    spec = f"False, 0.0, {text(op.eps)}, True"
    return f"aten.batch_norm({s[0]}, {scale}, {bias}, {s[3]}, {s[4]}, {spec})"


def _rms_norm(op: RmsNorm, s: Site) -> str:
    shape = s.out.shape[s.out.rank - op.axes :]
    return f"aten.rms_norm({s[0]}, {text(shape)}, {s.optional(1)}, {text(op.eps)})"


def _instance_norm(op: InstanceNorm, s: Site) -> str:
    spec = f"None, None, True, 0.0, {text(op.eps)}, True"
    return f"aten.instance_norm({s[0]}, {s.optional(1)}, {s.optional(2)}, {spec})"


def _group_norm(op: GroupNorm, s: Site) -> str:
    return f"aten.group_norm({s[0]}, {op.groups}, {s.optional(1)}, {s.optional(2)}, {text(op.eps)})"


def _gelu(op: Gelu, s: Site) -> str | None:
    if op.approximate not in ("none", "tanh"):
        return None  # torch has these two
    return f"aten.gelu({s[0]}, approximate={text(op.approximate)})"


def _attention(op: Attention, s: Site) -> str | None:
    if op.causal and len(s) == 4:
        return None  # torch takes one or the other
    if not op.safe and len(s) == 4:
        return None  # torch's rows without a place to attend to are 0
    shared = s.types[0].rank > 2 and s.types[0].shape[-3] != s.types[1].shape[-3]
    options = f"0.0, {op.causal}, scale={text(op.scale)}, enable_gqa={shared}"
    return f"aten.scaled_dot_product_attention({s[0]}, {s[1]}, {s[2]}, {s.optional(3)}, {options})"


def _multi_head(op: MultiHead, s: Site) -> str | None:
    if not s.types[0] == s.types[1] == s.types[2]:
        return None
    q, k, v, *weights = s.all
    spec = f"{text(s.out.shape[-1])}, {op.heads}"
    arguments = f"{q}, {k}, {v}, {spec}, {', '.join(weights)}, None, False"
    return f"aten._native_multi_head_attention({arguments})[0]"


def _encoder_layer(op: EncoderLayer, s: Site) -> str:
    x, in_w, in_b, out_w, out_b, *rest = s.all
    spec = f"{op.activation == 'gelu'}, {op.norm_first}, {text(op.eps)}"
    first = f"{x}, {text(s.out.shape[-1])}, {op.heads}, {in_w}, {in_b}, {out_w}, {out_b}, {spec}"
    return f"aten._transformer_encoder_layer_fwd({first}, {', '.join(rest)})"


def _gemm(op: Gemm, s: Site) -> str:
    a = f"aten.t({s[0]})" if op.trans_a else s[0]
    b = f"aten.t({s[1]})" if op.trans_b else s[1]
    if len(s) == 3:
        return f"aten.addmm({s[2]}, {a}, {b}, beta={text(op.beta)}, alpha={text(op.alpha)})"
    return (
        f"aten.mm({a}, {b})" if op.alpha == 1 else f"aten.mul(aten.mm({a}, {b}), {text(op.alpha)})"
    )


def _gather(op: Gather, s: Site) -> str:
    return f"{s[0]}[{', '.join([':'] * (op.axis % s.types[0].rank) + [s[1]])}]"


def _gather_elements(op: GatherElements, s: Site) -> str:
    axis = op.axis % s.out.rank
    size = text(s.types[0].shape[axis])
    # torch takes no indices that count from the end
    counted = f"aten.where(aten.lt({s[1]}, 0), aten.add({s[1]}, {size}), {s[1]})"
    return f"aten.gather({s[0]}, {axis}, {counted})"


def _cumsum(op: CumSum, s: Site) -> str:
    axis, rank = op.axis % s.out.rank, s.out.rank
    found = f"aten.flip({s[0]}, [{axis}])" if op.reverse else s[0]
    if op.exclusive:  # a zero in front, and the last one away
        found = sliced(
            f"aten.constant_pad_nd({found}, {[0, 0] * (rank - 1 - axis) + [1, 0]})",
            [":"] * axis + [":-1"],
        )
    found = f"aten.cumsum({found}, {axis}, dtype={torch_name(s.out.dtype)})"
    return f"aten.flip({found}, [{axis}])" if op.reverse else found


def _arg_max(op: ArgMax, s: Site) -> str:
    return f"aten.{'argmin' if op.smallest else 'argmax'}({s[0]}, {op.axis}, {op.keep})"


def _trilu(op: Trilu, s: Site) -> str:
    return f"aten.{'triu' if op.upper else 'tril'}({s[0]}, {op.k})"


def _one_hot(op: OneHot, s: Site) -> str:
    axis = op.axis % s.out.rank
    depth = text(op.depth)
    trailing = "".join([".unsqueeze(-1)"] * (s.out.rank - 1 - axis))
    places = f"torch.arange({depth}, device={s.body.device()}){trailing}"
    counted = f"aten.remainder({s[0]}, {depth}).unsqueeze({axis})"
    inside = (
        f"aten.logical_and(aten.ge({s[0]}, -({depth})), aten.lt({s[0]}, {depth})).unsqueeze({axis})"
    )
    return f"aten.logical_and(aten.eq({counted}, {places}), {inside}).to({torch_name(s.out.dtype)})"


def _selu(op: Selu, s: Site) -> str:
    return f"aten.elu({s[0]}, {text(op.alpha)}, {text(op.gamma)})"


def _clip(op: Clip, s: Site) -> str:
    low, high = (None if math.isinf(b) else literal(b, s.out.dtype) for b in (op.low, op.high))
    return f"aten.clamp({s[0]}, {low}, {high})" if low or high else s[0]


def _softplus(op: Softplus, s: Site) -> str:
    return f"aten.softplus({s[0]}, {text(op.beta)}, {text(op.threshold)})"


def _hard_sigmoid(op: HardSigmoid, s: Site) -> str | None:
    return f"aten.hardsigmoid({s[0]})" if op == HardSigmoid() else None


def _prelu(op: Prelu, s: Site) -> str:
    return f"aten.where(aten.lt({s[0]}, 0), aten.mul({s[0]}, {s[1]}), {s[0]})"


def _concat(op: Concat, s: Site) -> str:
    return f"aten.cat([{', '.join(s.all)}], {op.axis})"


def _index(op: Index, s: Site) -> str:
    return f"aten.select({s[0]}, {op.axis}, {text(op.at)})"


# fmt: off
TABLE: dict[type[Op], str | Callable[[Any, Site], str | None]] = {
    **core_out.ROWS,
    # shapes
    Reshape:         reshaped,
    Expand:          lambda op, s: f"aten.expand({s[0]}, {text(s.out.shape)})",
    Concat:          _concat,
    Index:           _index,
    Tile:            "aten.repeat({0}, {counts})",
    Flip:            "aten.flip({0}, {axes})",
    # pointwise
    Broadcast:       binary,
    Where:           select,
    Relu:            "aten.relu({0})",
    LeakyRelu:       "aten.leaky_relu({0}, {slope})",
    Clip:            _clip,
    Sigmoid:         "aten.sigmoid({0})",
    HardSigmoid:     _hard_sigmoid,
    HardSwish:       "aten.hardswish({0})",
    Silu:            "aten.silu({0})",
    Gelu:            _gelu,
    Erf:             "aten.erf({0})",
    Sqrt:            "aten.sqrt({0})",
    Rsqrt:           "aten.rsqrt({0})",
    Abs:             "aten.abs({0})",
    Softplus:        _softplus,
    Elu:             "aten.elu({0}, {alpha})",
    Selu:            _selu,
    Mish:            "aten.mish({0})",
    Prelu:           _prelu,
    Not:             "aten.logical_not({0})",
    Ceil:            "aten.ceil({0})",
    Round:           "aten.round({0})",
    Trunc:           "aten.trunc({0})",
    Log1p:           "aten.log1p({0})",
    Expm1:           "aten.expm1({0})",
    IsInf:           "aten.isinf({0})",
    # products, convolutions, pooling
    Einsum:          lambda op, s: f'aten.einsum("{op.equation}", [{s[0]}, {s[1]}])',
    Matmul:          "aten.matmul({0}, {1})",
    Linear:          lambda op, s: f"aten.linear({s[0]}, {s[1]}, {s.optional(2)})",
    Gemm:            _gemm,
    Conv:            _conv,
    ConvTranspose:   _conv_transpose,
    MaxPool:         _max_pool,
    AvgPool:         _avg_pool,
    AdaptiveAvgPool: _adaptive,
    # normalisation and attention
    Softmax:         "aten.softmax({0}, {axis}, None)",
    LogSoftmax:      "aten.log_softmax({0}, {axis}, None)",
    LayerNorm:       _layer_norm,
    RmsNorm:         _rms_norm,
    BatchNorm:       _batch_norm,
    InstanceNorm:    _instance_norm,
    GroupNorm:       _group_norm,
    Attention:       _attention,
    MultiHead:       _multi_head,
    EncoderLayer:    _encoder_layer,
    # indexing
    Gather:          _gather,
    GatherElements:  _gather_elements,
    CumSum:          _cumsum,
    ArgMax:          _arg_max,
    Trilu:           _trilu,
    OneHot:          _one_hot,
    **recurrent.ROWS_OUT,
    **resize.ROWS_OUT,
    **scatter.ROWS_OUT,
}
# fmt: on


def expression(op: Op, site: Site) -> str | None:
    """The source of an op's result; None where the table has none for this op or spec."""
    row = TABLE.get(type(op))
    if row is None:
        return None
    if isinstance(row, str):
        return row.format(*site.all, **{name: text(value) for name, value in op.spec.items()})
    return row(op, site)
