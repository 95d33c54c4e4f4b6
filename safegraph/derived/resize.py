"""Resizing of axes by interpolation, as torch.nn.functional.interpolate and ONNX's Resize do.

Each axis by itself: place i of the result lies at a coordinate c of the operand, and is the element
nearest to c, or a weighted sum of the 2 or 4 elements around it.  Coordinates are computed in f32
(for f64 operands in f64), with PyTorch's roundings: which element is nearest can depend on them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from safegraph.derived.base import Derived, randomly
from safegraph.derived.index import Gather
from safegraph.derived.norm import widened
from safegraph.dims import Dim, Shape, Size, divide, maximum
from safegraph.dtypes import is_float
from safegraph.errors import ShapeError
from safegraph.op import TensorType, axes_of, axis_of
from safegraph.value import (
    Value,
    apply,
    binary,
    cast,
    group,
    iota,
    repeat,
    scalar,
    stride,
    unsqueeze,
)

MODES = ("nearest", "linear", "cubic")
COORDINATES = ("half_pixel", "asymmetric", "align_corners")
ROUNDINGS = ("floor", "ceil", "half_down", "half_up")


class Resize(Derived):
    """these axes interpolated to other sizes: n c h w -> n c to[0] to[1]

    `mode` is nearest, linear or cubic (Keys, https://doi.org/10.1109/TASSP.1981.1163711, with the
    coefficient `a`).  `coordinates` says where place i lies: half_pixel at (i + 1/2)*size/to - 1/2,
    asymmetric at i*size/to, align_corners at i*(size - 1)/(to - 1).  With `scales`, 1/scale stands
    for size/to.  `rounding` of nearest: floor, ceil, and half_down or half_up for the nearest with
    ties down or up.  Places outside are taken at the border.
    """

    linear = (0,)
    axes: tuple[int, ...]
    to: Shape
    mode: str = "nearest"
    coordinates: str = "asymmetric"
    rounding: str = "floor"
    scales: tuple[float, ...] = ()
    a: float = -0.75

    def define(self, x: Value) -> Value:
        self._check(x.type)
        for k, (axis, to) in enumerate(zip(self.axes, self.to, strict=True)):
            scale = self.scales[k] if self.scales else None
            x = self._resized(x, axis_of(axis, x.rank), to, scale)
        return x

    def _check(self, x: TensorType) -> None:
        axes_of(self.axes, x.rank)
        for name, given, known in (
            ("mode", self.mode, MODES),
            ("coordinates", self.coordinates, COORDINATES),
            ("rounding", self.rounding, ROUNDINGS),
        ):
            if given not in known:
                raise ShapeError(f"{name} {given!r}: there are {', '.join(known)}")
        if len(self.to) != len(self.axes) or len(self.scales) not in (0, len(self.axes)):
            raise ShapeError(f"sizes {self.to} and scales {self.scales} for {len(self.axes)} axes")
        if self.mode != "nearest" and not is_float(x.dtype):
            raise ShapeError(
                f"{self.mode} interpolation of {x.dtype}: cast it to a floating-point type first"
            )

    def _resized(self, x: Value, axis: int, to: Dim, scale: float | None) -> Value:
        size = x.shape[axis]
        moved = self._moved(x, axis, to, scale) if self.mode == "nearest" else None
        if moved is not None:
            return moved
        # A result of the operand's size has the coordinates 0, 1, 2, ...
        if to == size and scale in (None, 1.0):
            return x
        c = self._coordinate(x.dtype, size, to, scale)
        if self.mode == "nearest":
            return apply(Gather(axis), x, _inside(cast(self._rounded(c), "i64"), size))
        if self.mode == "linear":
            c = binary("minimum", binary("maximum", c, 0), cast(scalar(size - 1, "i64"), c.dtype))
        first = c.floor()
        t = c - first
        weights = [1 - t, t] if self.mode == "linear" else _cubic(t, self.a)
        start = cast(first, "i64") - (self.mode == "cubic")
        total: Value | None = None
        for k, weight in enumerate(weights):
            tap = apply(Gather(axis), x, _inside(start + k, size))
            part = tap * unsqueeze(cast(weight, x.dtype), range(1, x.rank - axis))
            total = part if total is None else total + part
        assert total is not None
        return total

    def _moved(self, x: Value, axis: int, to: Dim, scale: float | None) -> Value | None:
        """Whole ratios only move elements: each is repeated, or every n-th is taken."""
        size = x.shape[axis]
        more, less = divide(to, size), divide(size, to)
        exact = (self.coordinates, self.rounding) == ("asymmetric", "floor")
        centred = self.coordinates == "half_pixel" and self.rounding in ("half_down", "half_up")
        if isinstance(more, int) and scale in (None, float(more)) and (exact or centred):
            wide = repeat(
                unsqueeze(x, [axis + 1]), [more if i == axis + 1 else 1 for i in range(x.rank + 1)]
            )
            return group(wide, [2 if i == axis else 1 for i in range(x.rank)])
        if isinstance(less, int) and scale in (None, 1 / less) and exact:
            return stride(x, [less if i == axis else 1 for i in range(x.rank)])
        return None

    def _coordinate(self, dtype: str, size: Dim, to: Dim, scale: float | None) -> Value:
        """Where each place of the result lies on the axis of the operand."""
        real = "f64" if dtype == "f64" and self.mode != "nearest" else "f32"
        place = iota(to, real)
        if self.coordinates == "align_corners":
            return place * _ratio(size - 1, maximum(to - 1, 1), real)
        step = (
            _ratio(size, to, real) if scale is None else scalar(float(np.float32(1 / scale)), real)
        )
        return place * step if self.coordinates == "asymmetric" else (place + 0.5) * step - 0.5

    def _rounded(self, c: Value) -> Value:
        match self.rounding:
            case "floor":
                return c.floor()
            case "ceil":
                return -(-c).floor()
            case "half_up":
                return (c + 0.5).floor()
        return -(0.5 - c).floor()

    def normal(self, x: TensorType) -> Resize:
        """Axes from the front, without those that stay; nothing that the mode does not use."""
        rows = [
            (axis_of(axis, x.rank), to, self.scales[k] if self.scales else None)
            for k, (axis, to) in enumerate(zip(self.axes, self.to, strict=True))
        ]
        kept = [
            r
            for r in sorted(rows, key=lambda r: r[0])
            if r[1] != x.shape[r[0]] or r[2] not in (None, 1.0)
        ]
        scales = tuple(r[2] for r in kept if r[2] is not None)
        told = all(_is_ratio(scale, to, x.shape[axis]) for axis, to, scale in kept)
        return Resize(
            tuple(r[0] for r in kept),
            tuple(r[1] for r in kept),
            self.mode,
            self.coordinates,
            self.rounding if self.mode == "nearest" else "floor",
            () if told or self.coordinates == "align_corners" else scales,
            self.a if self.mode == "cubic" else -0.75,
        )

    def is_identity(self, x: TensorType) -> bool:
        return not self.axes

    def run(self, x: Any) -> Any:
        """The coordinates by the definition, then one pass for each axis."""
        y = x if self.mode == "nearest" else widened(x)
        for k, (axis, to) in enumerate(zip(self.axes, self.to, strict=True)):
            axis = axis_of(axis, x.ndim)
            one = Resize(
                (0,),
                (to,),
                self.mode,
                self.coordinates,
                self.rounding,
                self.scales[k : k + 1],
                self.a,
            )
            size = y.shape[axis]
            if self.mode == "nearest":
                places = Derived.run(one, np.arange(size))
                y = np.take(y, places, axis)
            else:
                # the weights of each place: what the definition makes of unit vectors
                matrix = _matrix(one, size, y.dtype)
                with np.errstate(all="ignore"):
                    y = np.moveaxis(np.tensordot(matrix, y, ([1], [axis])), 0, axis)
        return np.ascontiguousarray(y).astype(x.dtype, copy=False)

    @classmethod
    def draw(cls, rng: np.random.Generator, x: tuple[int, ...]) -> Resize | None:
        axes = tuple(i for i in range(len(x)) if rng.random() < 0.5)
        if not axes or 0 in x:
            return None
        to = tuple(
            int(x[i] * n) if (n := int(rng.integers(0, 4))) else int(rng.integers(1, 9))
            for i in axes
        )
        return cls(axes, to, *(randomly(rng, kinds) for kinds in (MODES, COORDINATES, ROUNDINGS)))


def _matrix(op: Resize, size: int, dtype: np.dtype) -> Any:
    return Derived.run(op, np.eye(size, dtype=dtype))


def _is_ratio(scale: float | None, to: Dim, size: Dim) -> bool:
    """Does a scale say no more than the sizes do?"""
    if isinstance(to, int) and isinstance(size, int):
        return scale is None or scale == to / size
    return scale is None or scale in (divide(to, size), 1 / (divide(size, to) or 1))  # type: ignore[operator]


def _ratio(a: Dim, b: Dim, dtype: str) -> Value:
    """a/b of two sizes; a number where both are numbers."""
    if isinstance(a, Size) or isinstance(b, Size):
        return binary("divide", cast(scalar(a, "i64"), dtype), cast(scalar(b, "i64"), dtype))
    kind = np.float64 if dtype == "f64" else np.float32
    return scalar(float(kind(a) / kind(b)), dtype)


def _inside(places: Value, size: Dim) -> Value:
    """Places moved to the border where they are outside."""
    return binary("minimum", binary("maximum", places, 0), size - 1)


def _cubic(t: Value, a: float) -> list[Value]:
    """The weights of the elements at -1, 0, 1 and 2 for a place between 0 and 1 at t."""

    def near(d: Value) -> Value:  # |d| <= 1
        return ((a + 2) * d - (a + 3)) * d * d + 1

    def far(d: Value) -> Value:  # 1 < |d| < 2
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

    return [far(t + 1), near(t), near(1 - t), far(2 - t)]


Resize.examples = (
    (Resize((2, 3), (6, 8)), "f32[2 3 3 4]"),
    (Resize((2, 3), (2, 2)), "f32[2 3 4 6]"),
    (Resize((1,), (5,)), "f32[2 3]"),
    *((Resize((1,), (5,), "nearest", c, r), "f32[2 3 2]") for c in COORDINATES for r in ROUNDINGS),
    *(
        (Resize((1, 2), (5, 3), mode, c), "f32[2 3 4]")
        for mode in ("linear", "cubic")
        for c in COORDINATES
    ),
    (Resize((2,), (7,), "linear", "half_pixel", "floor", (2.4,)), "f32[2 2 3]"),
)

__all__ = ["Resize"]
