"""ONNX's Resize and Upsample, in and out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from safegraph import value as v
from safegraph.derived.resize import Resize
from safegraph.dims import Dim, Size, at_least, divide
from safegraph.dtypes import is_float
from safegraph.frontends.onnx.call import Call, Unsayable
from safegraph.value import Value, apply

if TYPE_CHECKING:
    from safegraph.frontends.onnx.writer import Slot, Writer

ROUNDINGS = {
    "round_prefer_floor": "half_down",
    "round_prefer_ceil": "half_up",
    "floor": "floor",
    "ceil": "ceil",
}
MODES = {"nearest": "nearest", "linear": "linear", "bilinear": "linear", "cubic": "cubic"}
PLAIN = ("half_pixel", "asymmetric", "align_corners")
TYPES = ("f32", "i32", "i8", "u8")  # what the usual runtime resizes
BACK = {ours: theirs for theirs, ours in ROUNDINGS.items()}


def scaled(size: Dim, scale: float) -> Dim:
    """floor(size*scale); Unsayable where a free size makes that no formula."""
    if isinstance(size, int):
        return int(np.floor(np.float32(size) * np.float32(scale)))  # as runtimes do
    if scale == int(scale):
        return size * int(scale)
    if 1 / scale == int(1 / scale):
        return size // int(1 / scale)
    raise Unsayable


def read(n: Call, x: Value, *_: Any) -> Value:
    """The node as an op, or Unsayable for what regards places outside, or a region."""
    old = n.op == "Upsample" or n.version < 11
    places = n.attribute("coordinate_transformation_mode", "asymmetric" if old else "half_pixel")
    mode = MODES[n.attribute("mode", "nearest")]
    rounding = ROUNDINGS[n.attribute("nearest_mode", "floor" if old else "round_prefer_floor")]
    a = float(n.attribute("cubic_coeff_a", -0.75))
    n.attribute("extrapolation_value", 0.0)  # of regions
    if n.attribute("exclude_outside", 0) or n.attribute("antialias", 0):
        raise Unsayable
    policy = n.attribute("keep_aspect_ratio_policy", "stretch")
    axes = n.numbers("axes") or tuple(range(x.rank))
    before = [x.shape[i] for i in axes]
    to, scales = _sizes(n, before, old)
    if policy != "stretch" and not scales:
        to, scales = _in_proportion(before, to, min if policy == "not_larger" else max)
    if places == "align_corners" and not all(map(_whole, before, scales)):
        raise Unsayable  # ONNX's text and its usual runtime differ
    if old and mode == "nearest" and scales and any(s < 1 for s in scales):
        if any(s > 1 for s in scales):
            raise Unsayable
        rounding = "ceil"  # runtimes did so before there was a choice
    if places == "pytorch_half_pixel":
        for i, d in zip(axes, to, strict=True):
            if d == 1:  # such an axis is taken at its first place
                x = v.slice_axis(x, i, 0, 1)
            elif x.shape[i] != d and not at_least(d, 2):
                raise Unsayable
        scales = tuple(1.0 if d == 1 else s for d, s in zip(to, scales, strict=False))
        places = "half_pixel"
    if places not in PLAIN or not (mode == "nearest" or is_float(x.dtype)):
        raise Unsayable
    return apply(Resize(axes, to, mode, places, rounding, scales, a), x)


def _sizes(n: Call, old: Sequence[Dim], early: bool) -> tuple[tuple[Dim, ...], tuple[float, ...]]:
    """The new sizes, and the scales where these tell them."""
    if not early and n.given(3):
        to = n.ints("", 3)
        if to:
            return to, ()
    if n.op == "Upsample" and n.version < 9:
        found = n.attribute("scales", ())
    else:
        array = n.constant(1 if early else 2)
        if array is None:
            raise Unsayable
        found = array.tolist()
    scales = tuple(map(float, found))
    if len(scales) != len(old) or min(scales) <= 0:
        raise Unsayable
    return tuple(map(scaled, old, scales)), scales


def _in_proportion(
    old: Sequence[Dim], to: Sequence[Dim], pick: Callable[..., float]
) -> tuple[tuple[Dim, ...], tuple[float, ...]]:
    """One scale for all axes, so that no size is larger (or smaller) than what is asked for."""
    if any(isinstance(d, Size) for d in (*old, *to)):
        raise Unsayable
    scale = float(pick(b / a for a, b in zip(old, to, strict=True)))  # type: ignore[operator]
    sizes = tuple(int(np.floor(d * scale + 0.5)) for d in old)  # type: ignore[operator]
    return sizes, (scale,) * len(sizes)


def _whole(size: Dim, scale: float) -> bool:
    """Is size*scale a whole number?"""
    return scale == int(scale) or (isinstance(size, int) and size * scale == int(size * scale))


def write(w: Writer, slot: Slot, op: Resize, x: Slot) -> ir.Value | None:
    """A node, for the axes and types that runtimes resize."""
    rank = x.type.rank
    outer = rank - 2 if rank > 3 else 0
    if x.type.dtype not in TYPES or (op.mode != "nearest" and (rank > 4 or min(op.axes) < outer)):
        return None
    if op.mode == "cubic" and rank not in (2, 4):
        return None
    spec: dict[str, Any] = {"mode": op.mode, "coordinate_transformation_mode": op.coordinates}
    if op.mode == "nearest":
        spec["nearest_mode"] = BACK[op.rounding]
    if op.mode == "cubic":
        spec["cubic_coeff_a"] = op.a
    if not op.scales:
        return w("Resize", x, None, None, w.vector(slot.type.shape), **spec)
    scales = np.ones(rank, np.float32)
    scales[list(op.axes)] = op.scales
    if not all(
        _told(*row) for row in zip(x.type.shape, scales.tolist(), slot.type.shape, strict=True)
    ):
        return None
    return w("Resize", x, None, scales, **spec)


def _told(size: Dim, scale: float, to: Dim) -> bool:
    """Does a runtime find the new size from the scale?"""
    if isinstance(size, int):
        return int(np.floor(np.float32(size) * np.float32(scale))) == to
    return to == size if scale == 1 else divide(to, size) == scale


ROWS_IN = {"Resize": read, "Upsample": read}
ROWS_OUT = {Resize: write}
