"""ONNX ops that move elements or make them as terms: one entry an op."""

from __future__ import annotations

from typing import Any

import numpy as np

from safegraph import dims
from safegraph import value as v
from safegraph.derived.border import PadMode
from safegraph.derived.index import Flip, Gather, GatherElements, OneHot, Trilu
from safegraph.derived.pointwise import Where
from safegraph.derived.shape import Concat, Expand, Index, Reshape, Tile
from safegraph.dims import Dim, Size
from safegraph.dtypes import is_integer
from safegraph.frontends.onnx.call import END, Call, Unsayable
from safegraph.frontends.onnx.entries import (
    Row,
    pointwise,
    scalar,
)
from safegraph.ops import Iota, Scalar, Slice
from safegraph.value import Value, apply


def _concat(n: Call, *xs: Value) -> Value:
    op = Concat(n.attribute("axis", 1))  # asked for in any case: nothing else is overlooked
    return xs[0] if len(xs) == 1 else apply(op, *xs)


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
    mode = n.attribute("mode", "constant")
    pads = n.ints("pads", 1) or ()
    axes = n.numbers("axes", 3)
    axes = tuple(range(x.rank)) if axes is None else tuple(a % x.rank for a in axes)
    fill = n.number(2) if n.given(2) else n.attribute("value", 0.0)
    before: list[Dim] = [0] * x.rank
    after: list[Dim] = [0] * x.rank
    for i, axis in enumerate(axes):
        before[axis], after[axis] = pads[i], pads[i + len(axes)]
    cut = [[-p if isinstance(p, int) and p < 0 else 0 for p in side] for side in (before, after)]
    stops = (None if b == 0 else d - b for d, b in zip(x.shape, cut[1], strict=True))
    x = apply(Slice(tuple(cut[0]), tuple(stops)), x)
    grow = [
        tuple(0 if isinstance(p, int) and p < 0 else p for p in side) for side in (before, after)
    ]
    if mode != "constant":
        return apply(PadMode(grow[0], grow[1], mode), x)
    return v.pad(x, grow[0], grow[1], float(fill or 0.0))


def _slice(n: Call, x: Value, *_: Any) -> Value:
    lows: list[Dim] = [0] * x.rank
    highs: list[Dim | None] = [None] * x.rank
    steps, flips = [1] * x.rank, []
    for start, end, axis, step in zip(*n.slices(x.rank), strict=True):
        size = x.shape[axis]
        if step < 0:  # the same elements in the other order: x reversed, from the other end
            flips.append(axis)
            start, end = (
                size - 1 - _at(start, size, upper=size - 1),
                size - 1 - _at(end, size, lower=-1),
            )
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
    if (isinstance(place, int) and place < 0) or (
        isinstance(place, Size) and dims.at_least(-1, place)
    ):
        place = size + place
    if dims.at_least(place, upper):
        return upper
    return lower if dims.at_least(lower, place) else place


def _gather(n: Call, x: Value, indices: Value) -> Value:
    axis = n.attribute("axis", 0)
    at = n.known(1)
    if at is not None and at.values.ndim == 2:
        windows = _windows(x, axis % x.rank, at.values)
        if windows is not None:
            return windows
    if at is None or at.values.ndim:
        return apply(Gather(axis), x, indices)
    place = at.values.item()
    return apply(Index(axis, place), x)


def _windows(x: Value, axis: int, at: np.ndarray) -> Value | None:
    """Places on a grid, first + i*step + j*dilation, as windows: what exporters make of unfold."""
    if at.size == 0 or min(at.shape) < 2 or not all(isinstance(d, int) for d in at.flat):
        return None
    at = at.astype(np.int64)
    exchanged = at.shape[0] < at.shape[1]  # the shorter side is the window
    grid = at.T if exchanged else at
    first = int(grid[0, 0])
    step, dilation = int(grid[1, 0]) - first, int(grid[0, 1]) - first
    windows, window = grid.shape
    line = first + np.arange(windows)[:, None] * step + np.arange(window)[None] * dilation
    if first < 0 or step < 1 or dilation < 1 or not np.array_equal(grid, line):
        return None
    part = v.slice_axis(x, axis, first, int(grid[-1, -1]) + 1)
    found = v.unfold(part, axis, window, step, dilation)
    if not exchanged:
        return found
    order = list(range(found.rank))
    order[axis], order[axis + 1] = axis + 1, axis
    return v.permute(found, order)


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


# -- leaves ---------------------------------------------------------------------------------------


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


def _one_hot(n: Call, x: Value, *_: Any) -> Value:
    """The second number at place x, counted from the end if it is below 0, else the first."""
    depth, numbers = n.ints("depth", 1), n.operands[2]
    if depth is None or len(depth) != 1 or numbers is None:
        raise Unsayable
    x = x if is_integer(x.dtype) else v.cast(x, "i64")
    found = apply(OneHot(n.attribute("axis", -1), depth[0]), x)
    ends = n.constant(2)
    if ends is not None and ends.tolist() == [0, 1]:
        return v.cast(found, numbers.dtype)
    off, on = (apply(Index(0, i), numbers) for i in (0, 1))
    return apply(Where(), v.cast(found, "bool"), on, off)


def _eye_like(n: Call, x: Value) -> Value:
    k = n.attribute("k", 0)
    dtype = n.dtype("dtype") if n.attribute("dtype", 0) else x.dtype
    row = v.iota(x.shape[0])
    row = pointwise("add", row, scalar(row, k)) if k else row
    return v.cast(pointwise("equal", v.unsqueeze(row, [1]), v.iota(x.shape[1])), dtype)


# fmt: off
ROWS: dict[str, Row] = {
    # movement
    "Concat":     _concat,     "Split":     _split,      "Slice":   _slice,
    "Transpose":  _transpose,  "Reshape":   _reshape,    "Flatten": _flatten,
    "Squeeze":    _squeeze,    "Unsqueeze": _unsqueeze,  "Expand":  _expand,
    "Tile":       _tile,       "Pad":       _pad,        "Trilu":   _trilu,
    "Gather":     _gather,     "OneHot":    _one_hot,    "EyeLike": _eye_like,
    "GatherElements": lambda n, x, at: apply(GatherElements(n.attribute("axis", 0)), x, at),
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    # leaves
    "ConstantOfShape": _constant_of_shape,
    "Range":      _range,
}
# fmt: on
