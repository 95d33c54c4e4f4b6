"""Spellings of activations: GELU and its approximations, SiLU, HardSwish."""

from __future__ import annotations

from collections.abc import Iterator
from math import pi, sqrt
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.spellings_base import Shapes, Spelling, mixed, term, written
from safegraph.derived.pointwise import Clip, Gelu, HardSwish, Silu
from safegraph.value import Value, apply, binary

X: Shapes = {"x": (2, 3, 8)}
CUBE, SLOPE = 0.044715, sqrt(2 / pi)
LIBRARY = ("trace", "old 11", "old 13", "old 17", "new 18", "new 20", "new 23")


# fmt: off
HALVED = {  # x times half of 1 + e
    "half of x first":      lambda x, e: 0.5 * x * (1 + e),
    "x by half":            lambda x, e: x * 0.5 * (1.0 + e),
    "half of the sum":      lambda x, e: x * (0.5 * (e + 1)),
    "half at the end":      lambda x, e: x * (1 + e) * 0.5,
    "halved at the end":    lambda x, e: x * (e + 1) / 2,
    "half of each":         lambda x, e: x * (0.5 + 0.5 * e),
    "half of a product":    lambda x, e: 0.5 * (x * (1 + e)),
    "the sum first":        lambda x, e: (1 + e) * (x / 2),
}
ERROR = {
    "over root 2":          lambda x: torch.erf(x / sqrt(2)),
    "times a number":       lambda x: torch.erf(x * 0.7071067811865475),
    "times root of half":   lambda x: torch.erf(sqrt(0.5) * x),
}
POLYNOMIAL = {
    "cube by pow":          lambda x: SLOPE * (x + CUBE * torch.pow(x, 3)),
    "cube by products":     lambda x: (x + CUBE * x * x * x) * SLOPE,
    "cube by a product":    lambda x: SLOPE * (x + CUBE * (x * x * x)),
    "cube at the end":      lambda x: SLOPE * (x * (x * x) * CUBE + x),
    "x outside":            lambda x: SLOPE * x * (1 + CUBE * x * x),
    "x outside, square":    lambda x: x * SLOPE * (1 + CUBE * torch.square(x)),
    "all outside":          lambda x: SLOPE * (x * (1 + CUBE * x**2)),
}
SILU = {
    "library":              F.silu,
    "by sigmoid":           lambda x: x * torch.sigmoid(x),
    "sigmoid first":        lambda x: torch.sigmoid(x) * x,
    "quotient":             lambda x: x / (1 + torch.exp(-x)),
    "quotient, 1 last":     lambda x: x / (torch.exp(-x) + 1),
    "by a quotient":        lambda x: x * (1 / (1 + torch.exp(-x))),
    "by a reciprocal":      lambda x: torch.reciprocal(1 + torch.exp(-1 * x)) * x,
    "by a power":           lambda x: x * torch.pow(1 + torch.exp(0 - x), -1),
    "by tanh":              lambda x: 0.5 * x * (1 + torch.tanh(0.5 * x)),
    "by tanh, halves last": lambda x: x * (torch.tanh(x / 2) * 0.5 + 0.5),
}
QUICK = {
    "by sigmoid":           lambda x: x * torch.sigmoid(1.702 * x),
    "sigmoid first":        lambda x: torch.sigmoid(x * 1.702) * x,
    "quotient":             lambda x: x / (1 + torch.exp(-1.702 * x)),
    "negated":              lambda x: x * (1 / (1 + torch.exp(-(x * 1.702)))),
    "reciprocal":           lambda x: torch.reciprocal(torch.exp(x * -1.702) + 1) * x,
    "by tanh":              lambda x: x * 0.5 * (1 + torch.tanh(0.851 * x)),
}
HARD = {
    "library":              F.hardswish,
    "by hard sigmoid":      lambda x: x * F.hardsigmoid(x),
    "by relu6":             lambda x: x * F.relu6(x + 3) / 6,
    "by relu6, parted":     lambda x: x * (F.relu6(x + 3) / 6),
    "by relu6, times":      lambda x: x * F.relu6(3 + x) * (1 / 6),
    "by relu6, first":      lambda x: F.relu6(x + 3.0) * 0.16666667 * x,
    "by clamp":             lambda x: x * torch.clamp(x + 3, 0, 6) / 6,
    "by clamp, divided":    lambda x: x / 6 * torch.clamp(x + 3, 0, 6),
    "by clamp of sixths":   lambda x: x * torch.clamp(x / 6 + 0.5, 0, 1),
    "by clamp of products": lambda x: torch.clamp(0.5 + x * (1 / 6), min=0, max=1) * x,
    "by relu and clamp":    lambda x: x * torch.clamp(F.relu(x + 3), max=6) / 6,
    "by min and max":       lambda x: x * torch.minimum(torch.maximum(x + 3, torch.tensor(0.0)), torch.tensor(6.0)) / 6,
    "by max and min":       lambda x: x * torch.maximum(torch.minimum(x + 3, torch.tensor(6.0)), torch.tensor(0.0)) / 6,
}
# fmt: on


def relu6(x: Value) -> Value:
    """TFLite's RELU6."""
    return apply(Clip(0.0, 6.0), x)


# fmt: off
TERMS: dict[str, tuple[Any, Any]] = {
    "hard_swish: TFLite's":             (HardSwish(), lambda x: relu6(x + 3) * x / 6),
    "hard_swish: TFLite's, times":      (HardSwish(), lambda x: x * (relu6(x + 3) * (1 / 6))),
    "hard_swish: TFLite's, min of relu": (HardSwish(), lambda x: x * ((x + 3).maximum(0).minimum(6) * (1 / 6))),
    "hard_swish: TFLite's, max of min": (HardSwish(), lambda x: (1 / 6) * (x * (3 + x).minimum(6).maximum(0))),
    "silu: by a logistic":              (Silu(), lambda x: x.sigmoid() * x),
    "silu: by an inverse":              (Silu(), lambda x: (1 + (-x).exp()).inverse() * x),
    "silu: by an inverse of exp":       (Silu(), lambda x: (x.exp().inverse() + 1).inverse() * x),
    "gelu: erf of a quotient":          (Gelu("none"), lambda x: (x * 0.5) * ((x / sqrt(2)).erf() + 1)),
    "gelu: by the normal distribution": (Gelu("none"), lambda x: x.gaussian() * x),
    "gelu tanh: x*x*x":                 (Gelu("tanh"), lambda x: x * (((x * x * x * CUBE + x) * SLOPE).tanh() + 1) * 0.5),
    "gelu tanh: pow":                   (Gelu("tanh"), lambda x: x * 0.5 * (1 + (SLOPE * (x + CUBE * binary("pow", x, 3))).tanh())),
    "gelu tanh: by a logistic":         (Gelu("tanh"), lambda x: x * (2 * SLOPE * (x + CUBE * x * x * x)).sigmoid()),
    "gelu sigmoid: by a logistic":      (Gelu("sigmoid"), lambda x: (x * 1.702).sigmoid() * x),
}
# fmt: on


def spellings() -> Iterator[Spelling]:
    """Every spelling of an activation."""
    yield from written("gelu: library", Gelu("none"), F.gelu, X, LIBRARY)
    yield from written(
        "gelu tanh: library", Gelu("tanh"), lambda x: F.gelu(x, approximate="tanh"), X, LIBRARY
    )
    for i, (half, error) in enumerate(mixed(list(HALVED), list(ERROR))):
        yield from written(
            f"gelu: {half}, {error}",
            Gelu("none"),
            lambda x, h=HALVED[half], e=ERROR[error]: h(x, e(x)),
            X,
            ("old 17", "new 18") if i % 5 == 0 else ("old 13",),
        )
    for i, (half, inner) in enumerate(mixed(list(HALVED), list(POLYNOMIAL))):
        yield from written(
            f"gelu tanh: {half}, {inner}",
            Gelu("tanh"),
            lambda x, h=HALVED[half], p=POLYNOMIAL[inner]: h(x, torch.tanh(p(x))),
            X,
            ("old 17", "new 18") if i % 9 == 0 else ("old 13",),
        )
    for inner, polynomial in POLYNOMIAL.items():
        yield from written(
            f"gelu tanh: by sigmoid, {inner}",
            Gelu("tanh"),
            lambda x, p=polynomial: x * torch.sigmoid(2 * p(x)),
            X,
            ("old 13",),
        )
    for name, expected, table in (
        ("silu", Silu(), SILU),
        ("gelu sigmoid", Gelu("sigmoid"), QUICK),
        ("hard_swish", HardSwish(), HARD),
    ):
        for spelled, function in table.items():
            routes = LIBRARY if spelled == "library" else ("old 13", "new 18", "trace")
            yield from written(f"{name}: {spelled}", expected, function, X, routes)
    for spelled, (op, build) in TERMS.items():
        yield from term(spelled, op, build, X)
