"""ONNX ops as terms: one entry an op.

An entry takes the `Call` and its operands and gives the value, or a tuple with one value a result.
It raises `Unsayable` where no ops say what the node does; the node then becomes Opaque.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf, prod, sqrt
from typing import Any, TypeAlias

import numpy as np

from safegraph import dims
from safegraph import value as v
from safegraph.derived.attention import Attention
from safegraph.derived.conv import Conv, ConvTranspose
from safegraph.derived.einsum import Einsum, Gemm, Matmul
from safegraph.derived.index import ArgMax, CumSum, Flip, Gather, GatherElements, Trilu
from safegraph.derived.norm import (
    BatchNorm,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    LocalResponseNorm,
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
    Selu,
    Sigmoid,
    Silu,
    Softplus,
    Softsign,
    Sqrt,
    Where,
)
from safegraph.derived.pool import AvgPool, MaxPool
from safegraph.derived.shape import Concat, Expand, Index, Reshape, Tile
from safegraph.dims import Dim, Shape, Size
from safegraph.dtypes import is_float, is_integer
from safegraph.frontends.onnx.call import END, Call, Unsayable
from safegraph.op import Op
from safegraph.ops import BINARY, Binary, Cast, Iota, Scalar, Slice, Unary
from safegraph.value import Value, apply

Row: TypeAlias = Callable[..., "Value | tuple[Value | None, ...]"]


# -- entries made from a word ---------------------------------------------------------------------


def unary(kind: str) -> Row:
    """A core function of one number."""
    return lambda n, x: apply(Unary(kind), x)


def plain(op: Op) -> Row:
    """An op whose spec does not depend on the node."""
    return lambda n, *xs: apply(op, *xs)


def pointwise(kind: str, x: Value, y: Value) -> Value:
    """A function of two numbers: the core op where no operand is broadcast."""
    return apply(Binary(kind) if x.shape == y.shape and kind in BINARY else Broadcast(kind), x, y)


def binary(kind: str) -> Row:
    """A function of two numbers, with broadcasting."""
    return lambda n, x, y: pointwise(kind, x, y)


def variadic(kind: str) -> Row:
    """The same of any number of operands, from left to right."""

    def row(n: Call, first: Value, *rest: Value) -> Value:
        for y in rest:
            first = pointwise(kind, first, y)
        return first

    return row


def reduction(kind: str, before: Callable[[Value], Value] | None = None) -> Row:
    """A reduction, of a function of the operand."""

    def row(n: Call, x: Value, *_: Any) -> Value:
        boolean = {"max": "any", "min": "all"} if x.dtype == "bool" else {}
        return _reduce(n, before(x) if before else x, boolean.get(kind, kind))

    return row


def scalar(x: Value, number: float | Dim) -> Value:
    """A number of the element type of x."""
    return v.scalar(number, x.dtype)


def _reduce(n: Call, x: Value, kind: str) -> Value:
    axes = n.reduction_axes(x.rank)
    if kind not in ("sum", "prod", "any", "all") and any(x.shape[a] == 0 for a in axes):
        raise Unsayable  # the maximum of nothing
    return v.reduce(x, axes, kind, keep=bool(n.attribute("keepdims", 1)))


# -- pointwise ------------------------------------------------------------------------------------


def _pow(n: Call, x: Value, y: Value) -> Value:
    if y.dtype == x.dtype:
        return pointwise("pow", x, y)
    if is_float(x.dtype) or not is_float(y.dtype):
        return pointwise("pow", x, v.cast(y, x.dtype))
    return v.cast(pointwise("pow", v.cast(x, y.dtype), y), x.dtype)


def _clip(n: Call, x: Value, low: Value | None = None, high: Value | None = None) -> Value:
    if n.version < 11:
        return apply(Clip(float(n.attribute("min", -inf)), float(n.attribute("max", inf))), x)
    try:
        a, b = n.number(1), n.number(2)
    except Unsayable:
        x = x if low is None else pointwise("maximum", x, low)
        return x if high is None else pointwise("minimum", x, high)
    if a is not None and b is not None and a > b:
        raise Unsayable
    return apply(Clip(-inf if a is None else float(a), inf if b is None else float(b)), x)


def _mod(n: Call, x: Value, y: Value) -> Value:
    return pointwise("fmod" if n.attribute("fmod", 0) else "mod", x, y)


def _is_inf(n: Call, x: Value) -> Value:
    signs = n.attribute("detect_negative", 1), n.attribute("detect_positive", 1)
    if signs == (1, 1):
        return apply(IsInf(), x)
    if signs == (0, 0):
        raise Unsayable
    return pointwise("equal", x, scalar(x, inf if signs[1] else -inf))


def _mean(n: Call, *xs: Value) -> Value:
    total = variadic("add")(n, *xs)
    assert isinstance(total, Value)
    return total if len(xs) == 1 else pointwise("divide", total, scalar(total, len(xs)))


def _cast(n: Call, x: Value) -> Value:
    return v.cast(x, n.dtype("to"))


def _celu(n: Call, x: Value) -> Value:
    alpha = n.attribute("alpha", 1.0)
    scaled = pointwise("divide", x, scalar(x, alpha))
    negative = apply(Elu(1.0), apply(Clip(-inf, 0.0), scaled))
    return pointwise("add", apply(Relu(), x), pointwise("multiply", negative, scalar(x, alpha)))


def _thresholded(n: Call, x: Value) -> Value:
    alpha = scalar(x, n.attribute("alpha", 1.0))
    return apply(Where(), pointwise("less", alpha, x), x, scalar(x, 0))


def _swish(n: Call, x: Value) -> Value:
    alpha = n.attribute("alpha", 1.0)
    if alpha == 1:
        return apply(Silu(), x)
    return pointwise("multiply", x, apply(Sigmoid(), pointwise("multiply", x, scalar(x, alpha))))


# -- contractions, convolutions, pools -------------------------------------------------------------


def _gemm(n: Call, a: Value, b: Value, c: Value | None = None) -> Value:
    op = Gemm(
        float(n.attribute("alpha", 1.0)),
        float(n.attribute("beta", 1.0)),
        bool(n.attribute("transA", 0)),
        bool(n.attribute("transB", 0)),
    )
    return apply(op, a, b) if c is None else apply(op, a, b, c)


def _einsum(n: Call, *xs: Value) -> Value:
    equation = n.attribute("equation", "").replace(" ", "")
    left, arrow, out = equation.partition("->")
    parts = left.split(",")
    if not arrow:
        letters = [c for part in parts for c in part]
        out = "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    named = [*parts, out]
    if "." in left or any(len(set(part)) != len(part) for part in named):
        raise Unsayable
    current, x = parts[0], xs[0]
    for i, y in enumerate(xs[1:], 1):
        later = set(out).union(*parts[i + 1 :])
        both = dict.fromkeys(current + parts[i])
        target = out if i == len(xs) - 1 else "".join(c for c in both if c in later)
        x = apply(Einsum.of(f"{current},{parts[i]}->{target}"), x, y)
        current = target
    if len(xs) == 1:
        x = v.reduce(x, [i for i, c in enumerate(current) if c not in out], "sum", keep=False)
        kept = [c for c in current if c in out]
        return v.permute(x, [kept.index(c) for c in out])
    return x


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
    op = ConvTranspose(strides, tuple(before), tuple(after), dilations, n.attribute("group", 1), tuple(extra))
    return apply(op, x, w) if b is None else apply(op, x, w, b)


def _ceil_extra(n: Call, x: Value, window: Sequence[int], parts: tuple[Any, ...]) -> tuple[int, ...]:
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


# -- normalisations --------------------------------------------------------------------------------


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
    if n.attribute("training_mode", 0) or not n.attribute("spatial", 1):
        raise Unsayable
    return (apply(BatchNorm(float(n.attribute("epsilon", 1e-5))), x, *rest),)


def _layer_norm(n: Call, x: Value, w: Value, b: Value | None = None) -> tuple[Value, ...]:
    axis, eps = n.attribute("axis", -1) % x.rank, float(n.attribute("epsilon", 1e-5))
    own = x.shape[axis:]
    parts = [p if p.shape == own else apply(Expand(own), p) for p in (w, b) if p is not None]
    y = apply(LayerNorm(x.rank - axis, eps), x, *parts)
    if not any(n.used[1:]):
        return (y,)
    mean = v.reduce(x, range(axis, x.rank), "mean")
    variance = v.reduce(_square(x - mean), range(axis, x.rank), "mean")
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
    alpha, beta, bias = (n.attribute(k, d) for k, d in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0)))
    return apply(LocalResponseNorm(n.attribute("size", 1), float(alpha), float(beta), float(bias)), x)


def _log_sum_exp(n: Call, x: Value, *_: Any) -> Value:
    axes = n.reduction_axes(x.rank)
    if any(x.shape[a] == 0 for a in axes):
        raise Unsayable
    top = v.reduce(x, axes, "max")
    # an infinite maximum is not subtracted: inf - inf is no number
    top = v.select(apply(IsInf(), top), v.full(0, top.shape, x.dtype), top)
    total = v.reduce(v.unary("exp", x - v.expand(top, x.shape)), axes, "sum")
    found = v.unary("log", total) + top
    return found if n.attribute("keepdims", 1) else v.squeeze(found, axes)


def _attention(n: Call, q: Value, k: Value, value: Value, mask: Value | None = None, *past: Any) -> tuple[Value]:
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


# -- movement --------------------------------------------------------------------------------------


def _concat(n: Call, *xs: Value) -> Value:
    return xs[0] if len(xs) == 1 else apply(Concat(n.attribute("axis", 1)), *xs)


def _transpose(n: Call, x: Value) -> Value:
    return v.permute(x, n.numbers("perm") or tuple(reversed(range(x.rank))))


def _reshape(n: Call, x: Value, *_: Any) -> Value:
    to = n.ints("shape", 1)
    if to is None:
        raise Unsayable
    if not n.attribute("allowzero", 0):
        to = tuple(x.shape[i] if d == 0 else d for i, d in enumerate(to))
    if 0 in to:
        return v.full(0, to, x.dtype)
    return apply(Reshape(to), x)


def _flatten(n: Call, x: Value) -> Value:
    axis = n.attribute("axis", 1)
    axis = axis + x.rank if axis < 0 else axis
    return apply(Reshape((dims.product(x.shape[:axis]), dims.product(x.shape[axis:]))), x)


def _squeeze(n: Call, x: Value, *_: Any) -> Value:
    axes = n.numbers("axes", 1)
    return v.squeeze(x, [i for i, d in enumerate(x.shape) if d == 1] if axes is None else axes)


def _unsqueeze(n: Call, x: Value, *_: Any) -> Value:
    return v.unsqueeze(x, n.numbers("axes", 1) or ())


def _expand(n: Call, x: Value, *_: Any) -> Value:
    to = n.ints("shape", 1)
    if to is None:
        raise Unsayable
    return apply(Expand(v.broadcast_shapes(to, x.shape)), x)


def _tile(n: Call, x: Value, *_: Any) -> Value:
    if n.version < 6:
        raise Unsayable
    return apply(Tile(n.ints("repeats", 1) or ()), x)


def _pad(n: Call, x: Value, *_: Any) -> Value:
    if n.attribute("mode", "constant") != "constant":
        raise Unsayable
    pads = n.ints("pads", 1) or ()
    axes = n.numbers("axes", 3)
    axes = tuple(range(x.rank)) if axes is None else tuple(a % x.rank for a in axes)
    if n.given(2):
        fill = n.number(2)
    else:
        fill = n.attribute("value", 0.0)
    before: list[Dim] = [0] * x.rank
    after: list[Dim] = [0] * x.rank
    for i, axis in enumerate(axes):
        before[axis], after[axis] = pads[i], pads[i + len(axes)]
    cut = [[-p if isinstance(p, int) and p < 0 else 0 for p in side] for side in (before, after)]
    stops = (None if b == 0 else d - b for d, b in zip(x.shape, cut[1], strict=True))
    x = apply(Slice(tuple(cut[0]), tuple(stops)), x)
    grow = [tuple(0 if isinstance(p, int) and p < 0 else p for p in side) for side in (before, after)]
    return v.pad(x, *grow, fill=float(fill or 0.0))


def _slice(n: Call, x: Value, *_: Any) -> Value:
    lows: list[Dim] = [0] * x.rank
    highs: list[Dim | None] = [None] * x.rank
    steps, flips = [1] * x.rank, []
    for start, end, axis, step in zip(*n.slices(x.rank), strict=True):
        size = x.shape[axis]
        if step < 0:  # the same elements in the other order: x reversed, from the other end
            flips.append(axis)
            start, end = size - 1 - _at(start, size, upper=size - 1), size - 1 - _at(end, size, lower=-1)
            step = -step
        low, high = _at(start, size), _at(end, size)
        if isinstance(low, int) and isinstance(high, int):
            high = max(low, high)
        lows[axis], highs[axis], steps[axis] = low, None if high == size else high, step
    x = apply(Flip(tuple(flips)), x) if flips else x
    return v.stride(apply(Slice(tuple(lows), tuple(highs)), x), steps)


def _at(place: Dim, size: Dim, lower: int = 0, upper: Dim | None = None) -> Dim:
    """A place on an axis: negative ones count from the end, those outside are moved to the ends."""
    upper = size if upper is None else upper
    if isinstance(place, int):
        if place >= END:
            return upper
        if place <= -END:
            return lower
    if (isinstance(place, int) and place < 0) or (isinstance(place, Size) and dims.at_least(-1, place)):
        place = size + place
    if dims.at_least(place, upper):
        return upper
    return lower if dims.at_least(lower, place) else place


def _gather(n: Call, x: Value, indices: Value) -> Value:
    axis = n.attribute("axis", 0)
    at = n.known(1)
    if at is None or at.values.ndim:
        return apply(Gather(axis), x, indices)
    place = at.values.item()
    return apply(Index(axis, place), x)


def _split(n: Call, x: Value, *_: Any) -> tuple[Value, ...]:
    axis = n.attribute("axis", 0) % x.rank
    start: Dim = 0
    found = []
    for part in n.split_sizes(x.shape[axis]):
        found.append(v.slice_axis(x, axis, start, start + part))
        start = start + part
    return tuple(found)


def _depth_to_space(n: Call, x: Value) -> Value:
    b, crd = n.attribute("blocksize", 1), n.attribute("mode", "DCR") == "CRD"
    x = v.ungroup(x, [(-1,), (-1, b, b) if crd else (b, b, -1), (-1,), (-1,)])
    return v.group(v.permute(x, [0, 1, 4, 2, 5, 3] if crd else [0, 3, 4, 1, 5, 2]), [1, 1, 2, 2])


def _space_to_depth(n: Call, x: Value) -> Value:
    b, crd = n.attribute("blocksize", 1), n.attribute("mode", "DCR") == "CRD"
    x = v.ungroup(x, [(-1,), (-1,), (-1, b), (-1, b)])
    return v.group(v.permute(x, [0, 1, 3, 5, 2, 4] if crd else [0, 3, 5, 1, 2, 4]), [1, 3, 1, 1])


# -- leaves, indices -------------------------------------------------------------------------------


def _constant_of_shape(n: Call, *_: Any) -> Value:
    shape = n.ints("", 0)
    fill = n.attribute("value", None)
    number, dtype = (0.0, "f32") if fill is None else (fill.numpy().item(), n.dtype_of(fill))
    return apply(Expand(tuple(shape or ())), apply(Scalar(number, dtype)))


def _range(n: Call, start: Value, limit: Value, delta: Value) -> Value:
    ends = [n.known(i) for i in range(3)]
    if any(e is None for e in ends):
        ends = [_exact(n, i) for i in range(3)]
    a, b, d = (e.values.item() for e in ends)  # type: ignore[union-attr]
    if isinstance(d, Size) or d == 0:
        raise Unsayable
    if all(isinstance(p, int | Size) for p in (a, b, d)):
        count: Dim = dims.maximum((b - a + d - 1) // d if d > 0 else (a - b - d - 1) // -d, 0)
    elif any(isinstance(p, Size) for p in (a, b)):
        raise Unsayable
    else:
        count = max(0, int(np.ceil((b - a) / d)))
    y = apply(Iota(count, start.dtype))
    y = y if d == 1 else pointwise("multiply", y, scalar(y, d))
    return y if a == 0 else pointwise("add", y, scalar(y, a))


def _exact(n: Call, at: int) -> Any:
    from safegraph.frontends.onnx.known import known

    found = n.constant(at)
    operand = n.operands[at]
    if found is None or operand is None:
        raise Unsayable
    return known(found, operand.dtype)


def _trilu(n: Call, x: Value, *_: Any) -> Value:
    return apply(Trilu(bool(n.attribute("upper", 1)), int(n.number(1) or 0)), x)


def _cum_sum(n: Call, x: Value, *_: Any) -> Value:
    axis = int(n.number(1) or 0)
    return apply(CumSum(axis, bool(n.attribute("exclusive", 0)), bool(n.attribute("reverse", 0))), x)


def _arg_max(smallest: bool) -> Row:
    def row(n: Call, x: Value) -> Value:
        axis, keep = n.attribute("axis", 0), bool(n.attribute("keepdims", 1))
        if not n.attribute("select_last_index", 0):
            return apply(ArgMax(axis, keep, smallest), x)
        at = apply(ArgMax(axis, keep, smallest), apply(Flip((axis,)), x))
        return pointwise("subtract", scalar(at, x.shape[axis] - 1), at)

    return row


def _dropout(n: Call, x: Value, *_: Any) -> tuple[Value]:
    if n.given(2) and n.number(2):
        raise Unsayable
    return (x,)


def _square(x: Value) -> Value:
    return pointwise("multiply", x, x)


def _sqrt_of(row: Row) -> Row:
    return lambda n, x, *rest: apply(Sqrt(), row(n, x, *rest))  # type: ignore[arg-type]


def _log_of(row: Row) -> Row:
    return lambda n, x, *rest: v.unary("log", row(n, x, *rest))  # type: ignore[arg-type]


# fmt: off
TABLE: dict[str, Row] = {
    # functions of one number
    "Neg":        unary("neg"),      "Reciprocal": unary("inverse"),  "Sign":  unary("sign"),
    "Exp":        unary("exp"),      "Log":        unary("log"),      "Floor": unary("floor"),
    "Sin":        unary("sin"),      "Asin":       unary("arcsin"),   "IsNaN": unary("is_nan"),
    "Cos":        unary("cos"),      "Acos":       unary("arccos"),
    "Tan":        unary("tan"),      "Atan":       unary("arctan"),
    "Sinh":       unary("sinh"),     "Asinh":      unary("arcsinh"),
    "Cosh":       unary("cosh"),     "Acosh":      unary("arccosh"),
    "Tanh":       unary("tanh"),     "Atanh":      unary("arctanh"),
    "Relu":       plain(Relu()),     "Sigmoid":    plain(Sigmoid()),  "Softsign":  plain(Softsign()),
    "Sqrt":       plain(Sqrt()),     "Abs":        plain(Abs()),      "Erf":       plain(Erf()),
    "Ceil":       plain(Ceil()),     "Round":      plain(Round()),    "Not":       plain(Not()),
    "HardSwish":  plain(HardSwish()), "Mish":      plain(Mish()),     "Softplus":  plain(Softplus(1.0, inf)),
    "LeakyRelu":  lambda n, x: apply(LeakyRelu(float(n.attribute("alpha", 0.01))), x),
    "Elu":        lambda n, x: apply(Elu(float(n.attribute("alpha", 1.0))), x),
    "Selu":       lambda n, x: apply(Selu(float(n.attribute("alpha", 1.6732632)), float(n.attribute("gamma", 1.0507010))), x),
    "HardSigmoid": lambda n, x: apply(HardSigmoid(float(n.attribute("alpha", 0.2)), float(n.attribute("beta", 0.5))), x),
    "Gelu":       lambda n, x: apply(Gelu(n.attribute("approximate", "none")), x),
    "PRelu":      plain(Prelu()),
    "Celu":       _celu,
    "ThresholdedRelu": _thresholded,
    "Swish":      _swish,
    "Clip":       _clip,
    "IsInf":      _is_inf,
    "Cast":       _cast,
    "CastLike":   lambda n, x, like: v.cast(x, like.dtype),
    "Identity":   lambda n, x: x,
    "Dropout":    _dropout,
    # of two and more
    "Add":        binary("add"),       "Sub":            binary("subtract"),
    "Mul":        binary("multiply"),  "Div":            binary("divide"),
    "Less":       binary("less"),      "LessOrEqual":    binary("less_equal"),
    "Greater":    binary("greater"),   "GreaterOrEqual": binary("greater_equal"),
    "Equal":      binary("equal"),     "And":            binary("and"),
    "Or":         binary("or"),        "Xor":            binary("xor"),
    "Pow":        _pow,                "Mod":            _mod,
    "Max":        variadic("maximum"), "Min":            variadic("minimum"),
    "Sum":        variadic("add"),     "Mean":           _mean,
    "Where":      plain(Where()),
    # reductions
    "ReduceSum":  reduction("sum"),    "ReduceMean":     reduction("mean"),
    "ReduceMax":  reduction("max"),    "ReduceMin":      reduction("min"),
    "ReduceProd": reduction("prod"),
    "ReduceL1":   reduction("sum", lambda x: apply(Abs(), x)),
    "ReduceL2":   _sqrt_of(reduction("sum", _square)),
    "ReduceSumSquare": reduction("sum", _square),
    "ReduceLogSum": _log_of(reduction("sum")),
    "ReduceLogSumExp": _log_sum_exp,
    "GlobalAveragePool": lambda n, x: v.reduce(x, range(2, x.rank), "mean"),
    "GlobalMaxPool":     lambda n, x: v.reduce(x, range(2, x.rank), "max"),
    "ArgMax":     _arg_max(False),     "ArgMin":         _arg_max(True),
    "CumSum":     _cum_sum,
    # contractions, convolutions, pools, normalisations
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
    # movement
    "Concat":     _concat,     "Split":     _split,      "Slice":   _slice,
    "Transpose":  _transpose,  "Reshape":   _reshape,    "Flatten": _flatten,
    "Squeeze":    _squeeze,    "Unsqueeze": _unsqueeze,  "Expand":  _expand,
    "Tile":       _tile,       "Pad":       _pad,        "Trilu":   _trilu,
    "Gather":     _gather,
    "GatherElements": lambda n, x, indices: apply(GatherElements(n.attribute("axis", 0)), x, indices),
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    # leaves
    "ConstantOfShape": _constant_of_shape,
    "Range":      _range,
}
# fmt: on
