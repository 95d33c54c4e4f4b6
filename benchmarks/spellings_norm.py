"""Spellings of softmax and of the normalisations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.spellings_base import Shapes, Spelling, mixed, term, written
from safegraph.derived.norm import BatchNorm, GroupNorm, LayerNorm, RmsNorm, Softmax
from safegraph.value import Value, reduce, reshape

EPS = 1e-5
LIBRARY = ("trace", "old 11", "old 13", "old 17", "new 18", "new 21", "new 23")
ROWS: Shapes = {"x": (2, 3, 8), "W": (8,), "B": (8,)}
IMAGES: Shapes = {"x": (2, 6, 4, 5), "W": (6,), "B": (6,)}
STATISTICS: Shapes = {**IMAGES, "MEAN": (6,), "VARIANCE": (6,)}
# exporters fold what they know: a batch norm is left only where its statistics are inputs
GIVEN: Shapes = {"x": (2, 6, 4, 5), "w": (6,), "b": (6,), "mean": (6,), "variance": (6,)}
LAST: Shapes = {"x": (2, 4, 5, 6), "W": (6,), "B": (6,), "MEAN": (6,), "VARIANCE": (6,)}

# fmt: off
SOFTMAX: dict[str, Callable[..., Any]] = {
    "library":               lambda x, d: F.softmax(x, d),
    "written out":           lambda x, d: torch.exp(x - x.amax(d, keepdim=True)) / torch.exp(x - x.amax(d, keepdim=True)).sum(d, keepdim=True),
    "without max":           lambda x, d: torch.exp(x) / torch.exp(x).sum(d, keepdim=True),
    "by a reciprocal":       lambda x, d: torch.exp(x) * torch.reciprocal(torch.exp(x).sum(d, keepdim=True)),
    "by a power":            lambda x, d: torch.exp(x) * torch.exp(x).sum(d, keepdim=True) ** -1,
    "exp of log":            lambda x, d: torch.exp(F.log_softmax(x, d)),
    "by logsumexp":          lambda x, d: torch.exp(x - torch.logsumexp(x, d, keepdim=True)),
    "between transposes":    lambda x, d: F.softmax(x.transpose(0, d), 0).transpose(0, d),
    "sum unsqueezed":        lambda x, d: torch.exp(x) / torch.exp(x).sum(d).unsqueeze(d),
}
CENTRED = {
    "mean":                  lambda x, d: x - x.mean(d, keepdim=True),
    "sum over n":            lambda x, d: x - x.sum(d, keepdim=True) / x.shape[-1],
    "plus the opposite":     lambda x, d: x + -x.mean(d, keepdim=True),
    "mean unsqueezed":       lambda x, d: x - x.mean(d).unsqueeze(-1),
}
VARIANCE = {
    "product":               lambda x, c, d: (c * c).mean(d, keepdim=True),
    "pow":                   lambda x, c, d: c.pow(2).mean(d, keepdim=True),
    "sum over n":            lambda x, c, d: (c**2).sum(d, keepdim=True) / x.shape[-1],
    "sum times 1/n":         lambda x, c, d: torch.square(c).sum(d, keepdim=True) * (1 / x.shape[-1]),
    "var":                   lambda x, c, d: x.var(d, unbiased=False, keepdim=True),
    "mean of squares":       lambda x, c, d: (x * x).mean(d, keepdim=True) - x.mean(d, keepdim=True) ** 2,
    "difference squared":    lambda x, c, d: (x - x.mean(d, keepdim=True)).pow(2).mean(d, keepdim=True),
}
SCALED = {
    "over sqrt":             lambda c, v: c / torch.sqrt(v + EPS),
    "times rsqrt":           lambda c, v: c * torch.rsqrt(v + EPS),
    "rsqrt first":           lambda c, v: torch.rsqrt(EPS + v) * c,
    "power of -1/2":         lambda c, v: c * torch.pow(v + EPS, -0.5),
    "over a power of 1/2":   lambda c, v: c / (v + EPS) ** 0.5,
    "times 1 over sqrt":     lambda c, v: c * (1 / torch.sqrt(v + EPS)),
    "times a reciprocal":    lambda c, v: torch.reciprocal(torch.sqrt(v + EPS)) * c,
}
AFFINE = {
    "y * w + b":             lambda y, w, b: y * w + b,
    "b + w * y":             lambda y, w, b: b + w * y,
}
POWER = {
    "product":               lambda x: (x * x).mean(-1, keepdim=True),
    "pow":                   lambda x: x.pow(2).mean(-1, keepdim=True),
    "square":                lambda x: torch.square(x).mean(-1, keepdim=True),
    "sum over n":            lambda x: (x**2).sum(-1, keepdim=True) / 8,
    "mean unsqueezed":       lambda x: (x * x).mean(-1).unsqueeze(-1),
}
WEIGHTED = {
    "y * w":                 lambda x, v, w, s: s(x, v) * w,
    "w * y":                 lambda x, v, w, s: w * s(x, v),
    "w * x first":           lambda x, v, w, s: s(x * w, v),
}


def channels(p: Any) -> Any:
    """A value of each channel, beside images."""
    return p[:, None, None]


BATCH = {
    "library":               lambda x, w, b, m, v: F.batch_norm(x, m, v, w, b, False, 0.1, EPS),
    "over sqrt":             lambda x, w, b, m, v: (x - channels(m)) / torch.sqrt(channels(v) + EPS) * channels(w) + channels(b),
    "over sqrt of vectors":  lambda x, w, b, m, v: (x - channels(m)) / channels(torch.sqrt(v + EPS)) * channels(w) + channels(b),
    "times rsqrt":           lambda x, w, b, m, v: channels(w) * ((x - channels(m)) * torch.rsqrt(channels(v) + EPS)) + channels(b),
    "one factor":            lambda x, w, b, m, v: (x - channels(m)) * channels(w * torch.rsqrt(v + EPS)) + channels(b),
    "one factor, a quotient": lambda x, w, b, m, v: (x - channels(m)) * channels(w / torch.sqrt(v + EPS)) + channels(b),
    "scale and shift":       lambda x, w, b, m, v: x * channels(w * torch.rsqrt(v + EPS)) + channels(b - m * (w * torch.rsqrt(v + EPS))),
    "scale and shift, wide": lambda x, w, b, m, v: x * (channels(w) * torch.rsqrt(channels(v) + EPS)) + (channels(b) - channels(m) * (channels(w) * torch.rsqrt(channels(v) + EPS))),
}
# fmt: on


def grouped(x: Any, w: Any, b: Any, shape: tuple[int, ...], scale: Any = None) -> Any:
    """A group norm of 3 groups, written out in a shape [n, groups, ...]."""
    y = x.reshape(shape)
    axes = tuple(range(2, len(shape)))
    centre = y - y.mean(axes, keepdim=True)
    scale = scale or SCALED["over sqrt"]
    y = scale(centre, (centre * centre).mean(axes, keepdim=True)).reshape(x.shape)
    return y * channels(w) + channels(b)


def mean(x: Value, *axes: int) -> Value:
    """TFLite's MEAN with kept axes."""
    return reduce(x, axes, "mean")


def moments(x: Value, *axes: int) -> tuple[Value, Value]:
    """Mean and variance by TFLite's SQUARED_DIFFERENCE."""
    m = mean(x, *axes)
    return m, mean((x - m) * (x - m), *axes)


def shifted(x: Value, w: Value, b: Value, m: Value, v: Value) -> Value:
    """tf.nn.batch_normalization: x * s + (b - m * s) with s = rsqrt(v + eps) * w."""
    s = (v + EPS).rsqrt() * w
    return x * s + (b - m * s)


def moved(x: Value, w: Value, b: Value, m: Value, v: Value) -> Value:
    """What TFLite's converter leaves of an unfused batch norm."""
    return (x - m) * ((v + EPS).rsqrt() * w) + b


def grouped_last(x: Value, w: Value, b: Value) -> Value:
    """A group norm of channels in the last axis: Keras reshapes scale and shift too."""
    y = reshape(x, (2, 4, 5, 3, 2))
    m, v = moments(y, 1, 2, 4)
    return reshape(shifted(y, reshape(w, (3, 2)), reshape(b, (3, 2)), m, v), x.shape)


def grouped_plain(x: Value, w: Value, b: Value) -> Value:
    """A group norm of channels in the last axis, scale and shift at the end."""
    y = reshape(x, (2, 4, 5, 3, 2))
    m, v = moments(y, 1, 2, 4)
    return reshape((y - m) * (v + EPS).rsqrt(), x.shape) * w + b


# fmt: off
LAYER, RMS, GROUP, NORM = LayerNorm(1, EPS), RmsNorm(1, EPS), GroupNorm(3, EPS), BatchNorm(EPS)
TERMS: tuple[tuple[str, Any, Callable[..., Value], Shapes], ...] = (
    ("softmax: TFLite's", Softmax(2), lambda x: x.exp() / reduce(x.exp(), [2], "sum"), {"x": (2, 3, 8)}),
    ("softmax: by an inverse", Softmax(1), lambda x: reduce(x.exp(), [1], "sum").inverse() * x.exp(), {"x": (2, 3, 8)}),
    ("softmax: shifted, by an inverse", Softmax(2), lambda x: (x - reduce(x, [2], "max")).exp() * reduce((x - reduce(x, [2], "max")).exp(), [2], "sum").inverse(), {"x": (2, 3, 8)}),
    ("layer_norm: Keras", LAYER, lambda x, w, b: shifted(x, w, b, *moments(x, 2)), ROWS),
    ("layer_norm: Keras, matrix", LAYER, lambda x, w, b: shifted(x, w, b, *moments(x, 1)), {**ROWS, "x": (3, 8)}),
    ("layer_norm: Keras, wide weights", LAYER, lambda x, w, b: shifted(x, w, b, *moments(x, 2)), {**ROWS, "W": (1, 1, 8), "B": (1, 1, 8)}),
    ("layer_norm: squared difference", LAYER, lambda x, w, b: moved(x, w, b, *moments(x, 2)), ROWS),
    ("layer_norm: images, last axis", LAYER, lambda x, w, b: shifted(x, w, b, *moments(x, 3)), {**ROWS, "x": (2, 4, 5, 8)}),
    ("layer_norm: without scale", LAYER, lambda x: (x - mean(x, 2)) * (moments(x, 2)[1] + EPS).rsqrt(), {"x": (2, 3, 8)}),
    ("rms_norm: TFLite's", RMS, lambda x, w: x * (mean(x * x, 2) + EPS).rsqrt() * w, {"x": (2, 3, 8), "W": (8,)}),
    ("rms_norm: one factor", RMS, lambda x, w: x * ((mean(x * x, 2) + EPS).rsqrt() * w), {"x": (2, 3, 8), "W": (8,)}),
    ("rms_norm: sum of squares", RMS, lambda x, w: w * (x / (reduce(x * x, [2], "sum") * (1 / 8) + EPS).sqrt()), {"x": (2, 3, 8), "W": (1, 1, 8)}),
    ("rms_norm: without scale", RMS, lambda x: x * (mean(x * x, 2) + EPS).rsqrt(), {"x": (2, 3, 8)}),
    ("batch_norm: scale and shift, channels last", NORM, shifted, LAST),
    ("batch_norm: moved, channels last", NORM, moved, LAST),
    ("batch_norm: scale and shift, matrix", NORM, shifted, {**LAST, "x": (4, 6)}),
    ("batch_norm: moved, matrix", NORM, moved, {**LAST, "x": (4, 6)}),
    ("batch_norm: scale and shift, sequence", NORM, shifted, {**LAST, "x": (2, 5, 6)}),
    ("batch_norm: wide statistics", NORM, moved, {n: s if n == "x" else (1, 1, 1, 6) for n, s in LAST.items()}),
    ("batch_norm: wide scale and shift", NORM, shifted, {n: s if n == "x" else (1, 1, 1, 6) for n, s in LAST.items()}),
    ("batch_norm: wide, channels first", NORM, shifted, {n: s if n == "x" else (1, 6, 1, 1) for n, s in STATISTICS.items()}),
    ("group_norm: Keras, channels last", GROUP, grouped_last, {**IMAGES, "x": (2, 4, 5, 6)}),
    ("group_norm: plain, channels last", GROUP, grouped_plain, {**IMAGES, "x": (2, 4, 5, 6)}),
)
# fmt: on


def _layer_norm(shape: tuple[Any, ...]) -> Callable[..., Any]:
    centred, variance, scaled, scale = shape

    def norm(x: Any, w: Any, b: Any) -> Any:
        c = CENTRED[centred](x, -1)
        return AFFINE[scale](SCALED[scaled](c, VARIANCE[variance](x, c, -1)), w, b)

    return norm


def spellings() -> Iterator[Spelling]:
    """Every spelling of a normalisation."""
    for spelled, function in SOFTMAX.items():
        for axis in (1, 2):
            yield from written(
                f"softmax: {spelled}, axis {axis}",
                Softmax(axis),
                lambda x, f=function, axis=axis: f(x, axis),
                {"x": (2, 3, 8)},
                ("old 9", *LIBRARY) if spelled == "library" else ("old 12", "old 17", "new 18"),
            )
    yield from written(
        "layer_norm: library",
        LAYER,
        lambda x, w, b: F.layer_norm(x, (8,), w, b, EPS),
        ROWS,
        LIBRARY,
    )
    yield from written(
        "layer_norm: library, two axes",
        LayerNorm(2, EPS),
        lambda x, w, b: F.layer_norm(x, (3, 8), w, b, EPS),
        {"x": (2, 3, 8), "W": (3, 8), "B": (3, 8)},
        LIBRARY,
    )
    yield from written(
        "layer_norm: library, without scale",
        LAYER,
        lambda x: F.layer_norm(x, (8,), None, None, EPS),
        {"x": (2, 3, 8)},
        LIBRARY,
    )
    choices = mixed(list(CENTRED), list(VARIANCE), list(SCALED), list(AFFINE), step=9)
    for i, choice in enumerate(choices):
        yield from written(
            f"layer_norm: {', '.join(choice)}",
            LAYER,
            _layer_norm(choice),
            ROWS,
            ("old 17", "new 18") if i % 6 == 0 else ("old 13",),
        )
    yield from written(
        "rms_norm: library",
        RMS,
        lambda x, w: F.rms_norm(x, (8,), w, EPS),
        {"x": (2, 3, 8), "W": (8,)},
        ("trace", "new 18", "new 23"),
    )
    for i, (power, scaled, weighted) in enumerate(
        mixed(list(POWER), list(SCALED), list(WEIGHTED), step=4)
    ):
        yield from written(
            f"rms_norm: {power}, {scaled}, {weighted}",
            RMS,
            lambda x, w, p=POWER[power], s=SCALED[scaled], t=WEIGHTED[weighted]: t(x, p(x), w, s),
            {"x": (2, 3, 8), "W": (8,)},
            ("old 17", "new 18") if i % 6 == 0 else ("old 13",),
        )
    for spelled, function in BATCH.items():
        known = spelled == "library"
        operands, routes = (STATISTICS, LIBRARY) if known else (GIVEN, ("old 13", "new 18"))
        yield from written(f"batch_norm: {spelled}", NORM, function, operands, routes)
    yield from written(
        "group_norm: library",
        GROUP,
        lambda x, w, b: F.group_norm(x, 3, w, b, EPS),
        IMAGES,
        LIBRARY,
    )
    yield from written(
        "group_norm: library, without scale",
        GROUP,
        lambda x: F.group_norm(x, 3, None, None, EPS),
        {"x": (2, 6, 4, 5)},
        LIBRARY,
    )
    for shape in ((2, 3, -1), (2, 3, 2, 4, 5), (2, 3, 2, 20)):
        for scaled in ("over sqrt", "times rsqrt", "power of -1/2"):
            yield from written(
                f"group_norm: by {len(shape)} axes, {scaled}",
                GROUP,
                lambda x, w, b, shape=shape, s=SCALED[scaled]: grouped(x, w, b, shape, s),
                IMAGES,
                ("old 13", "new 18"),
            )
    for spelled, op, build, operands in TERMS:
        yield from term(spelled, op, build, operands)
