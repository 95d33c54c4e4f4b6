"""Softmax and the normalisations: reductions, repeated and applied to what was reduced."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np

from safegraph.derived.base import Derived, randomly
from safegraph.derived.conv import along_channels
from safegraph.dtypes import accumulator, from_numpy, to_numpy
from safegraph.errors import ShapeError
from safegraph.op import Op, TensorType, axis_of
from safegraph.ops import Scalar, Unfold
from safegraph.value import Value, binary, group, pad, reduce, squeeze, unfold, ungroup


class Softmax(Derived):
    """exp(x - max) / sum(exp(x - max)) over one axis"""

    axis: int = -1

    def define(self, x: Value) -> Value:
        e = (x - reduce(x, [self.axis], "max")).exp()
        return e / reduce(e, [self.axis], "sum")

    def normal(self, x: TensorType) -> Softmax:
        return Softmax(axis_of(self.axis, x.rank))

    def run(self, x: Any) -> Any:
        wide = widened(x)
        with np.errstate(all="ignore"):
            e = np.exp(wide - wide.max(self.axis, keepdims=True))
            return (e / e.sum(self.axis, keepdims=True)).astype(x.dtype, copy=False)

    @classmethod
    def draw(cls, rng: np.random.Generator, x: tuple[int, ...]) -> Softmax | None:
        return cls(int(rng.integers(len(x)))) if x else None


class LogSoftmax(Derived):
    """x - max - log(sum(exp(x - max))) over one axis"""

    axis: int = -1

    def define(self, x: Value) -> Value:
        shifted = x - reduce(x, [self.axis], "max")
        return shifted - reduce(shifted.exp(), [self.axis], "sum").log()

    def normal(self, x: TensorType) -> LogSoftmax:
        return LogSoftmax(axis_of(self.axis, x.rank))

    def run(self, x: Any) -> Any:
        wide = widened(x)
        with np.errstate(all="ignore"):
            shifted = wide - wide.max(self.axis, keepdims=True)
            return (shifted - np.log(np.exp(shifted).sum(self.axis, keepdims=True))).astype(
                x.dtype, copy=False
            )

    @classmethod
    def draw(cls, rng: np.random.Generator, x: tuple[int, ...]) -> LogSoftmax | None:
        return cls(int(rng.integers(len(x)))) if x else None


class LayerNorm(Derived):
    """(x - mean) / sqrt(variance + eps) over the last axes, times w, plus b, of their shape"""

    axes: int  # how many
    eps: float = 1e-5

    def define(self, x: Value, w: Value | None = None, b: Value | None = None) -> Value:
        return affine(standardized(x, last(self.axes, x.rank), self.eps), w, b)

    def run(self, x: Any, w: Any = None, b: Any = None) -> Any:
        return _run_standardized(x, last(self.axes, x.ndim), self.eps, w, b)

    @classmethod
    def draw(cls, rng: np.random.Generator, *shapes: tuple[int, ...]) -> LayerNorm | None:
        axes = _drawn_axes(rng, shapes)
        return cls(axes, randomly(rng, (1e-5, 1e-3))) if axes else None


class RmsNorm(Derived):
    """x / sqrt(mean(x**2) + eps) over the last axes, times w of those axes' shape"""

    axes: int  # how many
    eps: float = 1e-6

    def define(self, x: Value, w: Value | None = None) -> Value:
        power = reduce(x * x, last(self.axes, x.rank), "mean")
        return affine(x / square_root(power + self.eps), w, None)

    def run(self, x: Any, w: Any = None) -> Any:
        wide = widened(x)
        with np.errstate(all="ignore"):
            power = np.mean(wide * wide, axis=last(self.axes, x.ndim), keepdims=True)
            y = (wide / np.sqrt(power + wide.dtype.type(self.eps))).astype(x.dtype, copy=False)
            return y if w is None else y * w

    @classmethod
    def draw(cls, rng: np.random.Generator, *shapes: tuple[int, ...]) -> RmsNorm | None:
        axes = _drawn_axes(rng, shapes)
        return cls(axes, randomly(rng, (1e-5, 1e-3))) if axes else None


class BatchNorm(Derived):
    """(x - mean) * scale / sqrt(variance + eps) + bias: inference, with given means of channels"""

    eps: float = 1e-5

    def define(self, x: Value, scale: Value, bias: Value, mean: Value, variance: Value) -> Value:
        # What concerns the parameters alone comes first: it has the size of a channel vector.
        factor = scale / square_root(variance + self.eps)
        centred = x - along_channels(mean, x.rank)
        return centred * along_channels(factor, x.rank) + along_channels(bias, x.rank)

    def run(self, x: Any, scale: Any, bias: Any, mean: Any, variance: Any) -> Any:
        wide = widened(x)
        column = (-1, *[1] * (x.ndim - 2))
        with np.errstate(all="ignore"):
            factor = widened(scale) / np.sqrt(widened(variance) + wide.dtype.type(self.eps))
            y = (wide - widened(mean).reshape(column)) * factor.reshape(column)
            return (y + widened(bias).reshape(column)).astype(x.dtype, copy=False)

    @classmethod
    def draw(cls, rng: np.random.Generator, *shapes: tuple[int, ...]) -> BatchNorm | None:
        x = shapes[0]
        return (
            cls(randomly(rng, (1e-5, 1e-3)))
            if len(x) > 1 and set(shapes[1:]) == {(x[1],)}
            else None
        )


class InstanceNorm(Derived):
    """(x - mean) / sqrt(variance + eps) over space, times w, plus b, for each channel (axis 1)"""

    eps: float = 1e-5

    def define(self, x: Value, w: Value | None = None, b: Value | None = None) -> Value:
        if x.rank < 3:
            raise ShapeError(
                f"instance norm needs spatial axes after batch and channels, x has {x.rank} axes"
            )
        w, b = (v and along_channels(v, x.rank) for v in (w, b))
        return affine(standardized(x, range(2, x.rank), self.eps), w, b)

    @classmethod
    def draw(cls, rng: np.random.Generator, *shapes: tuple[int, ...]) -> InstanceNorm | None:
        x = shapes[0]
        fits = len(x) > 2 and all(s == (x[1],) for s in shapes[1:])
        return cls(randomly(rng, (1e-5, 1e-3))) if fits else None


class GroupNorm(Derived):
    """(x - mean) / sqrt(variance + eps) over groups of channels and space, times w, plus b"""

    groups: int
    eps: float = 1e-5

    def define(self, x: Value, w: Value | None = None, b: Value | None = None) -> Value:
        rest = x.rank - 2
        grouped = ungroup(x, [(-1,), (self.groups, -1), *[(-1,)] * rest])
        y = group(standardized(grouped, range(2, grouped.rank), self.eps), [1, 2, *[1] * rest])
        w, b = (v and along_channels(v, x.rank) for v in (w, b))
        return affine(y, w, b)

    @classmethod
    def draw(cls, rng: np.random.Generator, *shapes: tuple[int, ...]) -> GroupNorm | None:
        x = shapes[0]
        if len(x) < 2 or any(s != (x[1],) for s in shapes[1:]):
            return None
        return cls(randomly(rng, [g for g in range(1, x[1] + 1) if x[1] % g == 0]), 1e-5)


class LocalResponseNorm(Derived):
    """x / (bias + alpha/size * sum of x**2 over size neighbouring channels)**beta

    As in ONNX: (size - 1)//2 channels before, size//2 after.
    """

    size: int
    alpha: float = 1e-4
    beta: float = 0.75
    bias: float = 1.0

    def define(self, x: Value) -> Value:
        before, after = (
            [n if i == 1 else 0 for i in range(x.rank)]
            for n in ((self.size - 1) // 2, self.size // 2)
        )
        neighbours = unfold(pad(x * x, before, after), 1, self.size, 1)
        power = reduce(neighbours, [2], "sum", keep=False)
        return x / (self.bias + self.alpha / self.size * power) ** self.beta

    @classmethod
    def draw(cls, rng: np.random.Generator, x: tuple[int, ...]) -> LocalResponseNorm | None:
        return cls(int(rng.integers(1, 6)), 1e-2, 0.75, 1.0) if len(x) > 1 else None

    @classmethod
    def proposals(
        cls, specs: Sequence[Op], operands: Sequence[Value], result: Value
    ) -> Iterator[LocalResponseNorm]:
        numbers: list[Any] = [op.value for op in specs if isinstance(op, Scalar)]
        sizes = [op.window for op in specs if isinstance(op, Unfold) and isinstance(op.window, int)]
        for size, rate, bias, beta in product(sizes, numbers, numbers, numbers):
            # rate is alpha/size, rounded: of the numbers that give it, the shortest
            yield cls(size, float(f"{rate * size:.12g}"), beta, bias)


# -- the formulas that they share -----------------------------------------------------------------


def square_root(x: Value) -> Value:
    """The square root, as the core op."""
    return binary("root", x, 2)


def standardized(x: Value, axes: Sequence[int], eps: float) -> Value:
    """Shifted and scaled to mean 0 and variance 1 (of n, not n - 1) over these axes."""
    centred = x - reduce(x, axes, "mean")
    variance = reduce(centred * centred, axes, "mean")
    return centred / square_root(variance + eps)


def affine(x: Value, w: Value | None, b: Value | None) -> Value:
    """The sum x * w + b, with what there is of them."""
    y = x if w is None else x * w
    return y if b is None else y + b


def of_channels(x: Value) -> tuple[Value, Value]:
    """The mean and the variance [C] of each channel, axis 1 of x, over all other axes."""
    others = [axis for axis in range(x.rank) if axis != 1]
    mean = reduce(x, others, "mean")
    centred = x - mean
    variance = reduce(centred * centred, others, "mean")
    return squeeze(mean, others), squeeze(variance, others)


def last(axes: int, rank: int) -> tuple[int, ...]:
    """The last axes, counted from the front.

    >>> last(2, 4)
    (2, 3)
    """
    if not 0 < axes <= rank:
        raise ShapeError(f"there are no last {axes} axes of {rank}")
    return tuple(range(rank - axes, rank))


def widened(x: Any) -> Any:
    """An array in the type in which it is accumulated."""
    return x.astype(to_numpy(accumulator(from_numpy(x.dtype))), copy=False)


def _run_standardized(x: Any, axes: tuple[int, ...], eps: float, w: Any, b: Any) -> Any:
    wide = widened(x)
    with np.errstate(all="ignore"):
        centred = wide - wide.mean(axes, keepdims=True)
        variance = np.mean(centred * centred, axis=axes, keepdims=True)
        y = centred / np.sqrt(variance + wide.dtype.type(eps))
        y = y if w is None else y * widened(w)
        return (y if b is None else y + widened(b)).astype(x.dtype, copy=False)


def _drawn_axes(rng: np.random.Generator, shapes: tuple[tuple[int, ...], ...]) -> int:
    x, *rest = shapes
    fits = [n for n in range(1, len(x) + 1) if all(s == x[-n:] for s in rest)]
    return randomly(rng, fits) if fits else 0


# fmt: off
Softmax.examples = ((Softmax(-1), "f32[2 3 4]"),)
LogSoftmax.examples = ((LogSoftmax(-1), "f32[2 3 4]"),)
LayerNorm.examples = (
    (LayerNorm(1, 1e-5), "f32[2 3 4]"),
    (LayerNorm(1, 1e-5), "f32[2 3 4], f32[4]"),
    (LayerNorm(1, 1e-5), "f32[2 3 4], f32[4], f32[4]"),
    (LayerNorm(2, 1e-5), "f32[2 3 4], f32[3 4], f32[3 4]"),
)
RmsNorm.examples = ((RmsNorm(1, 1e-6), "f32[2 3 4]"), (RmsNorm(1, 1e-6), "f32[2 3 4], f32[4]"))
BatchNorm.examples = (
    (BatchNorm(1e-5), "f32[2 3], f32[3], f32[3], f32[3], f32[3]"),
    (BatchNorm(1e-5), "f32[2 3 4], f32[3], f32[3], f32[3], f32[3]"),
    (BatchNorm(1e-5), "f32[2 3 4 5], f32[3], f32[3], f32[3], f32[3]"),
)
InstanceNorm.examples = (
    (InstanceNorm(1e-5), "f32[2 3 4 5]"),
    (InstanceNorm(1e-5), "f32[2 3 4 5], f32[3], f32[3]"),
)
GroupNorm.examples = (
    (GroupNorm(2, 1e-5), "f32[2 6 4 5]"),
    (GroupNorm(2, 1e-5), "f32[2 6 4 5], f32[6], f32[6]"),
)
LocalResponseNorm.examples = ((LocalResponseNorm(5, 1e-4, 0.75, 1.0), "f32[2 7 4 4]"),)
# fmt: on

__all__ = [
    "BatchNorm",
    "GroupNorm",
    "InstanceNorm",
    "LayerNorm",
    "LocalResponseNorm",
    "LogSoftmax",
    "RmsNorm",
    "Softmax",
    "of_channels",
]
