"""Convolutions: what is affine or moves elements around one goes into it; several become one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

from safegraph.derived.conv import Conv, ConvTranspose
from safegraph.derived.einsum import einsum
from safegraph.derived.index import Flip
from safegraph.derived.norm import BatchNorm
from safegraph.derived.pointwise import Broadcast, Sqrt
from safegraph.derived.pool import AvgPool
from safegraph.dims import at_least
from safegraph.dtypes import is_float
from safegraph.law import Build, Law, Term, any_of, constant, one, positive, spec, table, variables
from safegraph.op import TensorType
from safegraph.ops import Interleave, Pad, Slice, Stride
from safegraph.value import Value, apply, cast, full, iota, pad, permute, reduce, reshape, unsqueeze

x, w, b, v, e, k = variables("x w b v e k")
scale, bias, mean, variance = variables("scale bias mean variance")
c, d = any_of(Conv, "c d")
(n,) = any_of(BatchNorm, "n")
(m,) = any_of(Broadcast, "m")
(p,) = any_of(Pad, "p")
(s,) = any_of(Slice, "s")
(t,) = any_of(Stride, "t")
(q,) = any_of(AvgPool, "q")
(j,) = any_of(Interleave, "j")


def scaled(w: Value, factor: Value) -> Value:
    """A weight with each output channel (axis 0) times its factor."""
    return w * reshape(factor, (factor.shape[0], *[1] * (w.rank - 1)))


def fold_norm(
    c: Conv, n: BatchNorm, x: Value, w: Value, scale: Value, bias: Value, mean: Value,
    variance: Value, b: Value | None = None,
) -> Value | None:  # fmt: skip
    """A batch norm of a convolution: (y - mean) * factor + bias, factor = scale / sqrt(var + eps).

    Without an eps the factor may be infinite.
    """
    if n.eps <= 0:
        return None
    factor = scale / apply(Sqrt(), variance + n.eps)
    return c(x, scaled(w, factor), (zero_if_none(b, w) - mean) * factor + bias)


def fold_norm_before(
    c: Conv, n: BatchNorm, x: Value, w: Value, scale: Value, bias: Value, mean: Value,
    variance: Value, b: Value | None = None,
) -> Value | None:  # fmt: skip
    """A batch norm before a convolution without a border: zeros there would not be normed."""
    if n.eps <= 0 or c.groups != 1 or any((*c.before, *c.after)):
        return None
    channel = (1, x.shape[1], *[1] * (w.rank - 2))
    factor = scale / apply(Sqrt(), variance + n.eps)
    shift = w * reshape(bias - mean * factor, channel)
    added = reduce(shift, range(1, w.rank), "sum", keep=False)
    return c(x, w * reshape(factor, channel), added if b is None else b + added)


def zero_if_none(b: Value | None, w: Value) -> Value:
    """The bias of a convolution with weight w; zeros where it has none."""
    return full(0, (w.shape[0],), w.dtype) if b is None else b


def per_channel(k: Value, channels: object, rank: int) -> Value | None:
    """K as one number for each channel, where it broadcasts to N C ... along axis 1 alone."""
    if k.rank > rank:
        return None
    shape = (1,) * (rank - k.rank) + k.shape
    if any(d != 1 for axis, d in enumerate(shape) if axis != 1) or shape[1] not in (1, channels):
        return None
    flat = reshape(k, (shape[1],))
    return full(1, (channels,), k.dtype) * flat  # type: ignore[arg-type]


def fold_affine(
    c: Conv, m: Broadcast, x: Value, w: Value, k: Value, b: Value | None = None
) -> Value | None:
    """The maps y * k, y + k, y - k with one number for each channel."""
    b = zero_if_none(b, w)
    rank = w.rank
    channel = per_channel(k, w.shape[0], rank)
    if channel is None or channel.dtype != w.dtype:
        return None
    match m.kind:
        case "multiply":
            return c(x, scaled(w, channel), b * channel)
        case "add":
            return c(x, w, b + channel)
        case "subtract":
            return c(x, w, b - channel)
    return None


def fold_quotient(
    c: Conv, m: Broadcast, x: Value, w: Value, k: Value, b: Value | None = None
) -> Value | None:
    """The map y / k with one number for each channel; a quotient of integers is rounded."""
    channel = per_channel(k, w.shape[0], w.rank)
    if m.kind != "divide" or channel is None or not is_float(w.dtype) or k.dtype != w.dtype:
        return None
    return c(x, scaled(w, 1 / channel), zero_if_none(b, w) / channel)


def fold_affine_exchanged(
    c: Conv, m: Broadcast, x: Value, w: Value, k: Value, b: Value | None = None
) -> Value | None:
    """The maps k * y and k + y."""
    return fold_affine(c, m, x, w, k, b) if m.commutative else None


def fold_affine_before(
    c: Conv, m: Broadcast, x: Value, w: Value, k: Value, b: Value | None = None
) -> Value | None:
    """The same before a convolution: into the input channels of the weight; a term needs no border."""
    if x.rank != w.rank:
        return None  # k broadcasts x
    b = zero_if_none(b, w)
    channel = per_channel(k, x.shape[1], w.rank)
    if channel is None or channel.dtype != w.dtype or c.groups != 1:
        return None
    inputs = reshape(channel, (1, x.shape[1], *[1] * (w.rank - 2)))
    match m.kind:
        case "multiply":
            return c(x, w * inputs, b)
        case "add" | "subtract" if not any((*c.before, *c.after)):
            shift = reduce(w * inputs, range(1, w.rank), "sum", keep=False)
            return c(x, w, b + shift if m.kind == "add" else b - shift)
    return None


def fold_quotient_before(
    c: Conv, m: Broadcast, x: Value, w: Value, k: Value, b: Value | None = None
) -> Value | None:
    """The map x / k before a convolution, into the input channels of the weight."""
    channel = per_channel(k, x.shape[1], w.rank) if x.rank == w.rank and c.groups == 1 else None
    if m.kind != "divide" or channel is None or not is_float(w.dtype) or k.dtype != w.dtype:
        return None
    weight = w / reshape(channel, (1, x.shape[1], *[1] * (w.rank - 2)))
    return c(x, weight) if b is None else c(x, weight, b)


def pointwise_conv(c: Conv, w: Value) -> bool:
    """Is it a 1x1 convolution: one element in, one out, all channels?"""
    return c.groups == 1 and all(d == 1 for d in w.shape[2:]) and not any((*c.before, *c.after))


def after_conv(
    d: Conv, c: Conv, x: Value, w: Value, v: Value, b: Value | None = None, e: Value | None = None
) -> Value | None:
    """A 1x1 convolution (d) of a convolution (c) is one convolution."""
    if not pointwise_conv(d, v) or c.groups != 1 or v.rank != w.rank:
        return None
    matrix = reshape(v, v.shape[:2])
    taps = "".join(chr(ord("p") + i) for i in range(w.rank - 2))
    steps = tuple(s * t for s, t in zip(c.strides, d.strides, strict=True))
    merged = Conv(steps, c.before, c.after, c.dilations)
    return merged(
        x,
        einsum(f"om,mi{taps}->oi{taps}", matrix, w),
        einsum("om,m->o", matrix, zero_if_none(b, w)) + zero_if_none(e, v),
    )


def before_conv(
    c: Conv, d: Conv, x: Value, v: Value, w: Value, b: Value | None = None, e: Value | None = None
) -> Value | None:
    """A convolution (c) of a 1x1 convolution (d), where no border comes between."""
    if (
        not pointwise_conv(d, v)
        or v.rank != w.rank
        or c.groups != 1
        or any(s != 1 for s in d.strides)
        or any((*c.before, *c.after))
    ):
        return None
    taps = "".join(chr(ord("p") + i) for i in range(w.rank - 2))
    weight = einsum(f"om{taps},mi->oi{taps}", w, reshape(v, v.shape[:2]))
    inner = reduce(w, range(2, w.rank), "sum", keep=False) if w.rank > 2 else w
    return c(x, weight, einsum("om,m->o", inner, zero_if_none(e, v)) + zero_if_none(b, w))


def absorb_pad(c: Conv, p: Pad, x: Value, w: Value, b: Value | None = None) -> Value | None:
    """A border of zeros is the convolution's own."""
    if p.fill != 0 or any((*p.before[:2], *p.after[:2])):
        return None
    if not all(isinstance(n, int) for n in (*p.before, *p.after)):
        return None
    before = tuple(m + n for m, n in zip(c.before, p.before[2:], strict=True))
    after = tuple(m + n for m, n in zip(c.after, p.after[2:], strict=True))
    wider = Conv(c.strides, before, after, c.dilations, c.groups)  # type: ignore[arg-type]
    return wider(x, w) if b is None else wider(x, w, b)


def strided(t: Stride, c: Conv, x: Value, w: Value, b: Value | None = None) -> Value | None:
    """Places that are not asked for are not computed: a larger stride."""
    if t.steps[1] != 1:
        return None
    x = Stride((t.steps[0], *[1] * (x.rank - 1)))(x)
    steps = tuple(m * n for m, n in zip(c.strides, t.steps[2:], strict=True))
    wider = Conv(steps, c.before, c.after, c.dilations, c.groups)
    return wider(x, w) if b is None else wider(x, w, b)


def sliced(s: Slice, c: Conv, x: Value, w: Value, b: Value | None = None) -> Value | None:
    """Samples and channels that are not asked for are not computed."""
    first, last = s.starts, s.stops
    if any(n != 0 for n in first[2:]) or any(n is not None for n in last[2:]):
        return None
    if c.groups != 1 and (first[1] != 0 or last[1] is not None):
        return None

    def part(value: Value, axis: int) -> Value:
        rest = value.rank - 1
        return apply(Slice((first[axis], *[0] * rest), (last[axis], *[None] * rest)), value)

    x, w = part(x, 0), part(w, 1)
    return c(x, w) if b is None else c(x, w, part(b, 1))


def stride_first(c: Conv, x: Value, w: Value, b: Value | None = None) -> Value | None:
    """A 1x1 convolution reads only every n-th place."""
    if not pointwise_conv(c, w) or all(s == 1 for s in c.strides):
        return None
    none = (0,) * len(c.strides)
    plain = Conv((1,) * len(c.strides), none, none, c.dilations)
    x = Stride((1, 1, *c.strides))(x)
    return plain(x, w) if b is None else plain(x, w, b)


def enlarged(c: Conv, d: Conv, w: Value, v: Value) -> tuple[Value, Value] | None:
    """Two weights on one grid of taps, the larger one's; None where neither contains the other."""
    if (c.strides, c.groups) != (d.strides, d.groups) or v.rank != w.rank:
        return None
    before, after = [], []
    for i in range(w.rank - 2):
        if c.dilations[i] != d.dilations[i] and v.shape[i + 2] != 1:
            return None
        first, odd = divmod(c.before[i] - d.before[i], c.dilations[i])
        last = w.shape[i + 2] - v.shape[i + 2] - first
        if odd or first < 0 or not isinstance(last, int) or last < 0:
            return None
        before.append(first)
        after.append(last)
    return w, pad(v, [0, 0, *before], [0, 0, *after])


def parallel(
    c: Conv, d: Conv, x: Value, w: Value, v: Value, root: TensorType,
    b: Value | None = None, e: Value | None = None,
) -> Value | None:  # fmt: skip
    """Two convolutions of one operand, added: one convolution with the sum of the weights."""
    b, e = zero_if_none(b, w), zero_if_none(e, v)
    for one_, other, large, small in ((c, d, w, v), (d, c, v, w)):
        both = enlarged(one_, other, large, small)
        if both is not None:
            merged = one_(x, both[0] + both[1], b + e)
            return merged if merged.shape == root.shape else None
    return None


def delta(c: Conv, x: Value, w: Value) -> Value | None:
    """The weight of the convolution like c that gives back its operand; None where there is none."""
    if any(s != 1 for s in c.strides) or w.shape[0] != x.shape[1]:
        return None
    places = []
    for i, size in enumerate(w.shape[2:]):
        place, odd = divmod(c.before[i], c.dilations[i])
        if odd or not at_least(size, place + 1):
            return None
        places.append((place, size - 1 - place))
    own = x.shape[1] // c.groups
    channel = iota(x.shape[1])
    hit = unsqueeze(channel - channel / own * own, [1]).equal(unsqueeze(iota(own), [0]))
    eye = reshape(cast(hit, w.dtype), (x.shape[1], own, *[1] * len(places)))
    return pad(eye, [0, 0, *(a for a, _ in places)], [0, 0, *(z for _, z in places)])


def beside_identity(
    c: Conv, x: Value, w: Value, root: TensorType, b: Value | None = None
) -> Value | None:
    """A convolution and its operand, added."""
    one_ = delta(c, x, w)
    merged = None if one_ is None else c(x, w + one_, zero_if_none(b, w))
    return merged if merged is not None and merged.shape == root.shape else None


def beside_norm(
    c: Conv, n: BatchNorm, x: Value, w: Value, scale: Value, bias: Value, mean: Value,
    variance: Value, root: TensorType, b: Value | None = None,
) -> Value | None:  # fmt: skip
    """A convolution and a batch norm of its operand, added: a norm is a diagonal convolution."""
    one_ = delta(c, x, w)
    if one_ is None or n.eps <= 0:
        return None
    factor = scale / apply(Sqrt(), variance + n.eps)
    merged = c(x, w + scaled(one_, factor), zero_if_none(b, w) + (bias - mean * factor))
    return merged if merged.shape == root.shape else None


def pool_first(q: AvgPool, c: Conv, x: Value, w: Value, b: Value | None = None) -> Value | None:
    """A mean over places and a map of channels commute; a bias is its own mean where no border counts."""
    border = any((*q.before, *q.after)) and q.count_pad
    if not pointwise_conv(c, w) or any(s != 1 for s in c.strides) or len(q.window) != w.rank - 2:
        return None
    if b is not None and border:
        return None
    return c(q(x), w) if b is None else c(q(x), w, b)


def transposed(c: Conv, j: Interleave, x: Value, w: Value, b: Value | None = None) -> Value | None:
    """A convolution of x with zeros between its elements, as a transposed one of x."""
    if j.fill != 0 or any(s != 1 for s in (*j.steps[:2], *c.strides)) or c.groups != 1:
        return None
    reach = [(k - 1) * d for k, d in zip(w.shape[2:], c.dilations, strict=True)]
    before = [r - p for r, p in zip(reach, c.before, strict=True)]
    after = [r - p for r, p in zip(reach, c.after, strict=True)]
    first, last = (
        [n for n in before if isinstance(n, int)],
        [n for n in after if isinstance(n, int)],
    )
    if len(first) + len(last) < 2 * len(reach) or any(n < 0 for n in first):
        return None
    extra = tuple(max(0, -n) for n in last)
    if any(n >= s for n, s in zip(extra, j.steps[2:], strict=True)):
        return None
    flipped = Flip(tuple(range(2, w.rank)))(w)
    cut = tuple(max(0, n) for n in last)
    op = ConvTranspose(j.steps[2:], tuple(first), cut, c.dilations, 1, extra)
    kernel = permute(flipped, (1, 0, *range(2, w.rank)))
    return op(x, kernel) if b is None else op(x, kernel, b)


def biased(name: str, left: Callable[..., Term], right: Build, **options: Any) -> tuple[Law, ...]:
    """A law of a convolution c of x, w, with and without the bias b."""
    return (
        *one(name, left(c(x, w)), right, **options),
        *one(f"{name}, with a bias", left(c(x, w, b)), right, **options),
    )


def pairs(name: str, left: Callable[..., Term], right: Build, **options: Any) -> tuple[Law, ...]:
    """A law of two convolutions, c with w and b, d with v and e, with and without the biases."""
    laws: tuple[Law, ...] = ()
    for i, j in product((False, True), repeat=2):
        term = left((w, b) if i else (w,), (v, e) if j else (v,))
        with_ = {(True, True): ", both with a bias", (True, False): ", the first with a bias",
                 (False, True): ", the second with a bias", (False, False): ""}[i, j]  # fmt: skip
        laws += one(name + with_, term, right, **options)
    return laws


CHANNELS = "x: 2 5 6 6, k: 4 1 1, w: 4 5 3 3, b: 4; x: 2 5 6, k: 1 4 1, w: 4 5 3, b: 4"
INPUTS = "x: 2 5 6 6, k: 5 1 1, w: 4 5 3 3, b: 4; x: 2 5 6, k: 1 5 1, w: 4 5 3, b: 4; x: 6, k: 2 5 1, w: 4 5 3, b: 4"
PLAIN = "x: 2 5 6 6, w: 4 5 3 3, b: 4; x: 2 5 6, w: 4 5 3, b: 4; x: 2 4 6, w: 4 2 3, b: 4"
POINTWISE = "x: 2 5 6 6, w: 4 5 1 1, b: 4; x: 2 5 6, w: 4 5 1, b: 4"
AFTER = "x: 2 5 6 6, w: 4 5 3 3, b: 4, v: 6 4 1 1, e: 6; x: 2 5 6, w: 4 5 3, b: 4, v: 6 4 1, e: 6"
BEFORE = "x: 2 5 6 6, v: 4 5 1 1, e: 4, w: 6 4 3 3, b: 6; x: 2 5 6, v: 4 5 1, e: 4, w: 6 4 3, b: 6"
PARALLEL = (
    "x: 2 5 6, w: 4 5 3, b: 4, v: 4 5 1, e: 4; x: 2 5 6 6, w: 4 5 3 3, b: 4, v: 4 5 3 3, e: 4"
)
SAME = "x: 2 4 6, w: 4 4 1, b: 4; x: 2 4 6, w: 4 4 3, b: 4; x: 2 4 5, w: 4 2 3, b: 4"
BESIDE = "; ".join(f"{text}, scale: 4, bias: 4, mean: 4, variance: 4" for text in SAME.split(";"))

NORMED = "; ".join(
    f"{text}, scale: 5, bias: 5, mean: 5, variance: 5" for text in POINTWISE.split(";")
)

_NORM = n(x, scale, bias, mean, variance)

# fmt: off
FOLDING = table("conv",
    biased("a batch norm of a convolution",           lambda y: n(y, scale, bias, mean, variance), fold_norm,
        facts=(constant(w), constant(variance)), grade="finite"),
    one("a convolution of a batch norm",              c(_NORM, w),       fold_norm_before,
        facts=(constant(w), constant(variance)), like=NORMED, grade="finite"),
    one("a biased convolution of a batch norm",       c(_NORM, w, b),    fold_norm_before,
        facts=(constant(w), constant(variance)), like=NORMED, grade="finite"),
    biased("an affine map of a convolution",          lambda y: m(y, k), fold_affine,           facts=(constant(w), constant(k)), like=CHANNELS, grade="finite"),
    biased("an affine map of a convolution, exchanged", lambda y: m(k, y), fold_affine_exchanged, facts=(constant(w), constant(k)), like=CHANNELS, grade="finite"),
    one("a convolution of an affine map",             c(m(x, k), w),     fold_affine_before,    facts=(constant(w), constant(k)), like=INPUTS, grade="finite"),
    one("a biased convolution of an affine map",      c(m(x, k), w, b),  fold_affine_before,    facts=(constant(w), constant(k)), like=INPUTS, grade="finite"),
    # Where k may be 0, the quotient is infinite and a sum of such products NaN.
    biased("a quotient of a convolution",             lambda y: m(y, k), fold_quotient,         facts=(constant(w), constant(k), positive(k)), like=CHANNELS, grade="finite"),
    one("a convolution of a quotient",                c(m(x, k), w),     fold_quotient_before,  facts=(constant(w), constant(k), positive(k)), like=INPUTS, grade="finite"),
    one("a biased convolution of a quotient",         c(m(x, k), w, b),  fold_quotient_before,  facts=(constant(w), constant(k), positive(k)), like=INPUTS, grade="finite"),
    one("a convolution of a border",                  c(p(x), w),        absorb_pad, like=PLAIN),
    one("a biased convolution of a border",           c(p(x), w, b),     absorb_pad, like=PLAIN),
)

# Kernels are merged and filled up with zeros: 0 * inf would be NaN where nothing was.
COMPOSITION = table("conv",
    pairs("a 1x1 convolution of a convolution",       lambda i, o: d(c(x, *i), *o), after_conv,    facts=(constant(w), constant(v)), like=AFTER, grade="finite"),
    pairs("a convolution of a 1x1 convolution",       lambda o, i: c(d(x, *i), *o), before_conv,   facts=(constant(w), constant(v)), like=BEFORE, grade="finite"),
    pairs("parallel convolutions",                    lambda i, o: c(x, *i) + d(x, *o), parallel,  facts=(constant(w), constant(v)), like=PARALLEL, grade="finite"),
    biased("a convolution beside its operand",        lambda y: y + x,              beside_identity, facts=constant(w), like=SAME, grade="finite"),
    biased("its operand beside a convolution",        lambda y: x + y,              beside_identity, facts=constant(w), like=SAME, grade="finite"),
    biased("a convolution beside a batch norm",       lambda y: y + _NORM,          beside_norm,     facts=constant(w), like=BESIDE, grade="finite"),
    biased("a batch norm beside a convolution",       lambda y: _NORM + y,          beside_norm,     facts=constant(w), like=BESIDE, grade="finite"),
)

MOVING = table("conv",
    biased("a slice of a convolution",                lambda y: s(y), sliced, like=PLAIN),
    biased("a stride of a convolution",               lambda y: t(y), strided, like=PLAIN),
    biased("a 1x1 convolution strides first",         lambda y: y,    stride_first, like=POINTWISE),
    biased("a mean of a 1x1 convolution",             lambda y: q(y), pool_first, like=POINTWISE, grade="finite"),
    one("a convolution of interleaved zeros",         c(j(x), w),     transposed, like=PLAIN),
    one("a biased convolution of interleaved zeros",  c(j(x), w, b),  transposed, like=PLAIN),
)
# fmt: on


@spec
def of_batch(x: Value, w: Value) -> bool:
    """Has x a batch axis?  For one sample the definition of a convolution gives it one."""
    return x.rank == w.rank


def with_batch(laws: tuple[Law, ...]) -> tuple[Law, ...]:
    """The laws, for convolutions whose operand x has a batch axis."""
    return tuple(
        replace(law, when=(*law.when, of_batch(x, w))) if {"x", "w"} <= set(law.tensors) else law
        for law in laws
    )


LAWS = with_batch((*FOLDING, *COMPOSITION, *MOVING))
