"""ATen's upsampling, in and out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from safegraph.derived.resize import Resize
from safegraph.dims import Dim, Size
from safegraph.dtypes import is_float
from safegraph.errors import UnsupportedError
from safegraph.frontends.torchscript.site import Site, text
from safegraph.value import Value, apply

# -- in -------------------------------------------------------------------------------------------


def _upsample(mode: str, *, exact: bool = False) -> Callable[..., Any]:
    """The row of all axes after the second: sizes, or one scale each, or both."""

    def row(
        x: Value, *, output_size: Any = None, align_corners: bool = False,
        scale_factors: Any = None, scales: Any = None,
        scales_d: Any = None, scales_h: Any = None, scales_w: Any = None,
    ) -> Value:  # fmt: skip
        axes = tuple(range(2, x.rank))
        one_each = (scales,) if x.rank == 3 else (scales_d, scales_h, scales_w)[5 - x.rank :]
        given = tuple(scale_factors) if scale_factors else one_each
        old = [x.shape[a] for a in axes]
        to = tuple(output_size) if output_size else tuple(map(_scaled, old, given))
        factors: tuple[float, ...] = ()
        if None not in given and not align_corners:
            factors = tuple(_used(mode, *one) for one in zip(old, to, given, strict=True))
        places = "align_corners" if align_corners else "half_pixel"
        if mode == "nearest":
            places = "half_pixel" if exact else "asymmetric"
        return apply(Resize(axes, to, mode, places, "half_up" if exact else "floor", factors), x)

    return row


def _scaled(size: Dim, scale: float) -> Dim:
    if isinstance(size, int):
        return math.floor(size * scale)
    if scale == int(scale):
        return size * int(scale)
    if 1 / scale == int(1 / scale):
        return size // int(1 / scale)
    raise UnsupportedError(
        f"it resizes an axis of the free size {size} by {scale}: give a static size in inputs="
    )


def _used(mode: str, size: Dim, to: Dim, scale: float) -> float:
    """The scale that torch computes with: it has ways of its own for 1, and for 2 of nearest."""
    if isinstance(to, Size) or isinstance(size, Size):
        return float(scale)
    if to == size and mode != "cubic":
        return 1.0
    return 2.0 if to == 2 * size and mode == "nearest" else float(scale)


# fmt: off
ROWS: dict[str, Callable[..., Any]] = {
    **{f"upsample_nearest{n}d":        _upsample("nearest")             for n in (1, 2, 3)},
    **{f"_upsample_nearest_exact{n}d": _upsample("nearest", exact=True) for n in (1, 2, 3)},
    "upsample_linear1d":    _upsample("linear"),
    "upsample_bilinear2d":  _upsample("linear"),
    "upsample_trilinear3d": _upsample("linear"),
    "upsample_bicubic2d":   _upsample("cubic"),
}
# fmt: on


# -- out ------------------------------------------------------------------------------------------


def _resize(op: Resize, s: Site) -> str | None:
    x, rank = s.types[0], s.types[0].rank
    space = range(2, rank)
    kind = (op.mode, op.coordinates, op.rounding)
    if rank not in (3, 4, 5) or min(op.axes) < 2 or not is_float(x.dtype):
        return None
    factors: dict[int, float] = dict(zip(op.axes, op.scales, strict=True)) if op.scales else {}
    if any(_used(op.mode, x.shape[a], s.out.shape[a], f) != f for a, f in factors.items()):
        return None
    sizes, scales = text(s.out.shape[2:]), ", ".join(text(factors.get(a)) for a in space)
    if op.mode == "nearest":
        names = {
            ("nearest", "asymmetric", "floor"): "upsample_nearest",
            ("nearest", "half_pixel", "half_up"): "_upsample_nearest_exact",
        }
        return (
            f"aten.{names[kind]}{rank - 2}d({s[0]}, {sizes}, {scales})" if kind in names else None
        )
    if op.coordinates == "asymmetric" or (op.mode == "cubic" and (rank != 4 or op.a != -0.75)):
        return None
    linear: Sequence[str] = ("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d")
    name = linear[rank - 3] if op.mode == "linear" else "upsample_bicubic2d"
    return f"aten.{name}({s[0]}, {sizes}, {op.coordinates == 'align_corners'}, {scales})"


ROWS_OUT: dict[Any, Any] = {Resize: _resize}
