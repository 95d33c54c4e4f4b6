"""Convolutions: what is affine after one goes into its weight and bias."""

from __future__ import annotations

from safegraph.derived.conv import Conv
from safegraph.derived.norm import BatchNorm
from safegraph.derived.pointwise import Broadcast, Sqrt
from safegraph.law import Law, any_of, constant, one, table, variables
from safegraph.value import Value, apply, full, reshape

x, w, b, k, scale, bias, mean, variance = variables("x w b k scale bias mean variance")
(c,) = any_of(Conv, "c")
(n,) = any_of(BatchNorm, "n")
(m,) = any_of(Broadcast, "m")


def scaled(w: Value, factor: Value) -> Value:
    """A weight with each output channel (axis 0) times its factor."""
    return w * reshape(factor, (factor.shape[0], *[1] * (w.rank - 1)))


def fold_norm(c: Conv, n: BatchNorm, x: Value, w: Value, b: Value, *stats: Value) -> Value:
    """A batch norm of a convolution: (y - mean) * factor + bias with factor = scale / sqrt(var + eps)."""
    scale, bias, mean, variance = stats
    factor = scale / apply(Sqrt(), variance + n.eps)
    return c(x, scaled(w, factor), (b - mean) * factor + bias)


def no_bias(w: Value) -> Value:
    """A bias of zeros."""
    return full(0, (w.shape[0],), w.dtype)


def per_channel(k: Value, channels: object, rank: int) -> Value | None:
    """K as one number for each channel, where it broadcasts to N C ... along axis 1 alone."""
    if k.rank > rank:
        return None
    shape = (1,) * (rank - k.rank) + k.shape
    if any(d != 1 for axis, d in enumerate(shape) if axis != 1) or shape[1] not in (1, channels):
        return None
    flat = reshape(k, (shape[1],))
    return full(1, (channels,), k.dtype) * flat  # type: ignore[arg-type]


def fold_affine(c: Conv, m: Broadcast, x: Value, w: Value, b: Value, k: Value) -> Value | None:
    """Y * k, y / k, y + k, y - k with one number for each channel."""
    rank = w.rank
    channel = per_channel(k, w.shape[0], rank)
    if channel is None or channel.dtype != w.dtype:
        return None
    match m.kind:
        case "multiply":
            return c(x, scaled(w, channel), b * channel)
        case "divide":
            return c(x, scaled(w, 1 / channel), b / channel)
        case "add":
            return c(x, w, b + channel)
        case "subtract":
            return c(x, w, b - channel)
    return None


def _affine(name: str, *, with_bias: bool, exchanged: bool) -> tuple[Law, ...]:
    y = c(x, w, b) if with_bias else c(x, w)

    def build(
        c: Conv, m: Broadcast, x: Value, w: Value, k: Value, b: Value | None = None
    ) -> Value | None:
        if exchanged and not m.commutative:
            return None
        return fold_affine(c, m, x, w, no_bias(w) if b is None else b, k)

    if not with_bias:
        right = lambda c, m, x, w, k: build(c, m, x, w, k)  # noqa: E731
    else:
        right = lambda c, m, x, w, k, b: build(c, m, x, w, k, b)  # type: ignore[misc]  # noqa: E731
    return one(name, m(k, y) if exchanged else m(y, k), right, facts=(constant(w), constant(k)))


# fmt: off
LAWS = table("conv",
    one("a batch norm of a convolution", n(c(x, w), scale, bias, mean, variance),
        lambda c, n, x, w, scale, bias, mean, variance: fold_norm(c, n, x, w, no_bias(w), scale, bias, mean, variance),
        facts=(constant(w), constant(variance))),
    one("a batch norm of a convolution with bias", n(c(x, w, b), scale, bias, mean, variance),
        lambda c, n, x, w, b, scale, bias, mean, variance: fold_norm(c, n, x, w, b, scale, bias, mean, variance),
        facts=(constant(w), constant(variance))),
    _affine("an affine map of a convolution",            with_bias=False, exchanged=False),
    _affine("an affine map of a convolution, exchanged", with_bias=False, exchanged=True),
    _affine("an affine map of a biased convolution",     with_bias=True,  exchanged=False),
    _affine("an affine map of a biased convolution, exchanged", with_bias=True, exchanged=True),
)
# fmt: on
