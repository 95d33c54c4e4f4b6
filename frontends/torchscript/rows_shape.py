"""ATen operations that move elements, make tensors and look up places."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce as fold_left
from typing import Any

import torch

from safegraph import value as v
from safegraph.derived.border import PadMode
from safegraph.derived.index import Flip, Gather, GatherElements, OneHot, Trilu
from safegraph.derived.pointwise import (
    Sigmoid,
)
from safegraph.derived.shape import Concat, Expand, Index, Reshape, Tile
from safegraph.dims import Dim, Size, at_least, divide, product, require_divide
from safegraph.errors import ShapeError, UnsupportedError
from safegraph.frontends.torchscript.rows import (
    as_list,
    as_type,
    asked,
    binary,
    known,
)
from safegraph.frontends.torchscript.types import from_number, short_name, torch_dtype
from safegraph.op import axes_of, axis_of
from safegraph.value import Value, apply, scalar

PAD_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
END = 2**63 - 1  # what a graph writes for the end of an axis


# -- shapes ---------------------------------------------------------------------------------------


def flatten(x: Value, start: int = 0, end: int = -1) -> Value:
    """A run of axes as one."""
    if not x.rank:
        return apply(Reshape((1,)), x)
    a, b = axis_of(start, x.rank), axis_of(end, x.rank)
    return apply(Reshape((*x.shape[:a], product(x.shape[a : b + 1]), *x.shape[b + 1 :])), x)


def _unflatten(x: Value, dim: int, sizes: Sequence[Dim]) -> Value:
    axis = axis_of(dim, x.rank)
    if -1 in sizes:
        rest = require_divide(x.shape[axis], product(d for d in sizes if d != -1), f"axis {axis}")
        sizes = [rest if d == -1 else d for d in sizes]
    return apply(Reshape((*x.shape[:axis], *sizes, *x.shape[axis + 1 :])), x)


def _transpose(x: Value, a: int, b: int) -> Value:
    if not x.rank:
        return x
    order = list(range(x.rank))
    i, j = axis_of(a, x.rank), axis_of(b, x.rank)
    order[i], order[j] = j, i
    return v.permute(x, order)


def _turned(x: Value) -> Value:
    return v.permute(x, list(reversed(range(x.rank))))


def _movedim(x: Value, source: Any, destination: Any) -> Value:
    sources, targets = ([a] if isinstance(a, int) else a for a in (source, destination))
    moved = {axis_of(t, x.rank): axis_of(s, x.rank) for s, t in zip(sources, targets, strict=True)}
    rest = iter(i for i in range(x.rank) if i not in moved.values())
    return v.permute(x, [moved[i] if i in moved else next(rest) for i in range(x.rank)])


def _squeeze(x: Value, dim: Any = None) -> Value:
    axes = range(x.rank) if dim is None else axes_of(as_list(dim), x.rank)
    return v.squeeze(x, [a for a in axes if x.shape[a] == 1])


def _expand(x: Value, size: Sequence[Dim]) -> Value:
    lead = len(size) - x.rank
    to = tuple(x.shape[i - lead] if d == -1 else d for i, d in enumerate(size))
    return apply(Expand(to), x)


def _tile(x: Value, counts: Sequence[Dim]) -> Value:
    wide = v.unsqueeze(x, range(len(counts) - x.rank))
    return apply(Tile((*[1] * (wide.rank - len(counts)), *counts)), wide)


def _repeat_interleave(x: Value, repeats: Any, dim: int | None = None) -> Any:
    """Each place of an axis several times in a row."""
    if isinstance(repeats, Value):
        return NotImplemented
    x, axis = (flatten(x), 0) if dim is None else (x, axis_of(dim, x.rank))
    wide = v.unsqueeze(x, [axis + 1])
    counts = [repeats if i == axis + 1 else 1 for i in range(wide.rank)]
    return v.group(v.repeat(wide, counts), [2 if i == axis else 1 for i in range(x.rank)])


def cat(xs: Sequence[Value], dim: int) -> Value:
    """One after the other along an axis, in the type that holds all."""
    xs = [x for x in xs if x.shape != (0,)] or list(xs)
    dtype = short_name(fold_left(torch.promote_types, (torch_dtype(x.dtype) for x in xs)))
    return apply(Concat(dim), *(v.cast(x, dtype) for x in xs))


def _stack(xs: Sequence[Any], dim: int) -> Value:
    values = [
        x if isinstance(x, Value) else scalar(x, "f32" if isinstance(x, float) else "i64")
        for x in xs
    ]
    axis = axis_of(dim, values[0].rank + 1)
    return cat([v.unsqueeze(x, [axis]) for x in values], axis)


def _place(at: Any, size: Dim) -> Dim:
    """An end of a slice, counted from the front and inside of the axis."""
    if isinstance(at, int) and at < 0:
        at = size + at
        return 0 if at_least(0, at) else at
    return size if at_least(at, size) else at


def ends(x: Value, dim: int, start: Any, end: Any) -> tuple[int, Dim, Dim]:
    """The axis of a slice, and where its part starts and stops, counted from the front."""
    axis = axis_of(dim, x.rank)
    size = x.shape[axis]
    stop = size if end is None or end == END else _place(end, size)
    first = 0 if start is None else _place(start, size)
    return axis, stop if at_least(first, stop) else first, stop


def slice_(x: Value, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Value:
    """A part of one axis, every step-th place of it."""
    axis, first, stop = ends(x, dim, start, end)
    found = v.slice_axis(x, axis, first, stop)
    return v.stride(found, [step if i == axis else 1 for i in range(x.rank)])


def _narrow(x: Value, dim: int, start: Dim, length: Dim) -> Value:
    first = _place(start, x.shape[axis_of(dim, x.rank)])
    return v.slice_axis(x, dim, first, first + length)


def _split(x: Value, sizes: Any, dim: int = 0) -> list[Value]:
    axis = axis_of(dim, x.rank)
    if isinstance(sizes, int | Size):
        parts = known(-(-x.shape[axis] // sizes), f"the number of parts of axis {axis}")
        sizes = [sizes] * (parts - 1) + [x.shape[axis] - sizes * (parts - 1)]
    found, at = [], 0
    for size in sizes:
        found.append(v.slice_axis(x, axis, at, at + size))
        at = at + size
    return found


def chunk(x: Value, chunks: int, dim: int = 0) -> list[Value]:
    """About equal parts of an axis."""
    size = x.shape[axis_of(dim, x.rank)]
    exact = divide(size, chunks)
    return _split(x, -(-known(size, f"axis {dim}") // chunks) if exact is None else exact, dim)


def _unbind(x: Value, dim: int = 0) -> list[Value]:
    axis = axis_of(dim, x.rank)
    return [apply(Index(axis, i), x) for i in range(known(x.shape[axis], f"axis {axis}"))]


def _roll(x: Value, shifts: Any, dims: Any) -> Value:
    if not dims:
        return apply(Reshape(x.shape), _roll(flatten(x), shifts, [0]))
    for shift, dim in zip(as_list(shifts), as_list(dims), strict=True):
        size = x.shape[axis_of(dim, x.rank)]
        cut = (
            size - shift % size
            if isinstance(size, int)
            else (-shift if shift < 0 else size - shift)
        )
        x = apply(Concat(dim), v.slice_axis(x, dim, cut, size), v.slice_axis(x, dim, 0, cut))
    return x


def _pad(x: Value, pad: Sequence[Dim], mode: Any = "constant", value: Any = None) -> Any:
    if mode not in ("constant", *PAD_MODES):
        return NotImplemented
    before: list[Dim] = [0] * x.rank
    after: list[Dim] = [0] * x.rank
    for i in range(len(pad) // 2):
        low, high = pad[2 * i], pad[2 * i + 1]
        axis = x.rank - 1 - i
        cut = [-n if isinstance(n, int) and n < 0 else 0 for n in (low, high)]
        x = v.slice_axis(x, axis, cut[0], x.shape[axis] - cut[1])
        before[axis], after[axis] = (0 if isinstance(n, int) and n < 0 else n for n in (low, high))
    if mode != "constant":
        return apply(PadMode(tuple(before), tuple(after), PAD_MODES[mode]), x)
    return v.pad(x, before, after, 0 if value is None else value)


def _border(mode: str) -> Callable[..., Any]:
    return lambda x, padding: _pad(x, padding, mode)


def _unfold(x: Value, dim: int, size: int, step: int) -> Value:
    axis = axis_of(dim, x.rank)
    return _movedim(v.unfold(x, axis, size, step), axis + 1, -1)


def _pixel_shuffle(x: Value, factor: int) -> Value:
    n = x.rank - 3
    parts = v.ungroup(x, [(-1,)] * n + [(-1, factor, factor), (-1,), (-1,)])
    return v.group(
        v.permute(parts, [*range(n + 1), n + 3, n + 1, n + 4, n + 2]), [1] * (n + 1) + [2, 2]
    )


def _pixel_unshuffle(x: Value, factor: int) -> Value:
    n = x.rank - 3
    parts = v.ungroup(x, [(-1,)] * (n + 1) + [(-1, factor), (-1, factor)])
    return v.group(
        v.permute(parts, [*range(n + 1), n + 2, n + 4, n + 1, n + 3]), [1] * n + [3, 1, 1]
    )


def _meshgrid(xs: Sequence[Value], *, indexing: str = "ij") -> list[Value]:
    flat = [flatten(x) for x in xs]
    shape = tuple(x.shape[0] for x in flat)
    grids = [
        apply(Expand(shape), v.unsqueeze(x, [j for j in range(len(flat)) if j != i]))
        for i, x in enumerate(flat)
    ]
    return [_transpose(g, 0, 1) for g in grids] if indexing == "xy" and len(flat) > 1 else grids


def _glu(x: Value, dim: int) -> Value:
    a, b = chunk(x, 2, dim)
    return binary("multiply", a, apply(Sigmoid(), b))


# -- new tensors ----------------------------------------------------------------------------------


def _full(size: Sequence[Dim], value: Any, *, dtype: int | None = None) -> Value:
    found = _lifted_number(value)
    chosen = (
        from_number(dtype) if dtype is not None else "f32" if found.dtype == "f64" else found.dtype
    )
    return v.expand(as_type(found, chosen), tuple(size))


def _lifted_number(value: Any) -> Value:
    if isinstance(value, Value):
        return value
    return scalar(
        value, "bool" if isinstance(value, bool) else "f64" if isinstance(value, float) else "i64"
    )


def _filled(number: float) -> Callable[..., Value]:
    return lambda size, *, dtype=None: v.full(number, tuple(size), asked(dtype, "f32"))


def _new_filled(number: float) -> Callable[..., Value]:
    return lambda x, size, *, dtype=None: v.full(number, tuple(size), asked(dtype, x.dtype))


def _like(number: float) -> Callable[..., Value]:
    return lambda x, *, dtype=None: v.full(number, x.shape, asked(dtype, x.dtype))


def _new_full(x: Value, size: Sequence[Dim], value: Any, *, dtype: int | None = None) -> Value:
    return v.full(value, tuple(size), asked(dtype, x.dtype))


def _full_like(x: Value, value: Any, *, dtype: int | None = None) -> Value:
    return v.full(value, x.shape, asked(dtype, x.dtype))


def _arange(*, start: Any = 0, end: Any = None, step: Any = 1, dtype: int | None = None) -> Value:
    whole = all(isinstance(n, int | Size) for n in (start, end, step))
    chosen = asked(dtype, "i64" if whole else "f32")
    count = -((start - end) // step) if whole else math.ceil((end - start) / step)
    found = v.iota(count, chosen)
    found = found if step == 1 else found * step
    return found if isinstance(start, int | float) and start == 0 else found + start


def _linspace(start: float, end: float, steps: int, *, dtype: int | None = None) -> Value:
    chosen = asked(dtype, "f32")
    if steps == 1:
        return v.full(start, (1,), chosen)
    return v.iota(steps, chosen) * ((end - start) / (steps - 1)) + start


def _tensor(data: Any, *, dtype: int | None = None) -> Any:
    if isinstance(data, list | tuple):
        found = _stack([_tensor(d) for d in data], 0) if data else v.full(0, (0,), "f32")
    else:
        found = _lifted_number(data)
        found = as_type(found, "f32") if found.dtype == "f64" else found
    return found if dtype is None else as_type(found, from_number(dtype))


# -- places ---------------------------------------------------------------------------------------


def _index_select(x: Value, dim: int, index: Value) -> Value:
    if index.rank != 1:
        raise ShapeError(f"the indices {index.type} must have one axis")
    return apply(Gather(axis_of(dim, x.rank)), x, index)


def _gather(x: Value, dim: int, index: Value) -> Value:
    return apply(GatherElements(axis_of(dim, x.rank)), x, index)


def _one_hot(x: Value, classes: int) -> Value:
    if classes < 0:
        raise UnsupportedError("one_hot without num_classes has a shape that depends on the values")
    return apply(OneHot(x.rank, classes), x)


# fmt: off
ROWS: dict[str, Callable[..., Any]] = {
    # shapes
    "view":             lambda x, size: apply(Reshape(tuple(size)), x),
    "_unsafe_view":     lambda x, size: apply(Reshape(tuple(size)), x),
    "reshape":          lambda x, size: apply(Reshape(tuple(size)), x),
    "reshape_as":       lambda x, other: apply(Reshape(other.shape), x),
    "view_as":          lambda x, other: apply(Reshape(other.shape), x),
    "view.dtype":       lambda x, dtype: NotImplemented,
    "flatten":          flatten,
    "ravel":            flatten,
    "unflatten":        _unflatten,
    "permute":          lambda x, dims: v.permute(x, [axis_of(d, x.rank) for d in dims]),
    "transpose":        _transpose,
    "swapaxes":         _transpose,
    "swapdims":         _transpose,
    "t":                _turned,
    "numpy_T":          _turned,
    "mT":               lambda x: _transpose(x, -1, -2),
    "movedim":          _movedim,
    "moveaxis":         _movedim,
    "squeeze":          _squeeze,
    "unsqueeze":        lambda x, dim: v.unsqueeze(x, [axis_of(dim, x.rank + 1)]),
    "expand":           _expand,
    "expand_as":        lambda x, other: apply(Expand(other.shape), x),
    "broadcast_to":     _expand,
    "repeat":           _tile,
    "tile":             _tile,
    "repeat_interleave": _repeat_interleave,
    "cat":              cat,
    "concat":           cat,
    "stack":            _stack,
    "slice":            slice_,
    "select":           lambda x, dim, index: apply(Index(axis_of(dim, x.rank), index), x),
    "narrow":           _narrow,
    "split":            _split,
    "split_with_sizes": _split,
    "chunk":            chunk,
    "unsafe_chunk":     chunk,
    "unsafe_split":     _split,
    "unsafe_split_with_sizes": _split,
    "unbind":           _unbind,
    "roll":             _roll,
    "flip":             lambda x, dims: apply(Flip(axes_of(as_list(dims), x.rank)), x),
    "constant_pad_nd":  lambda x, pad, value=0: _pad(x, pad, "constant", value),
    "pad":              _pad,
    "_pad_circular":    _border("circular"),
    **{f"reflection_pad{n}d":  _border("reflect") for n in (1, 2, 3)},
    **{f"replication_pad{n}d": _border("replicate") for n in (1, 2, 3)},
    "unfold":           _unfold,
    "pixel_shuffle":    _pixel_shuffle,
    "pixel_unshuffle":  _pixel_unshuffle,
    "tril":             lambda x, diagonal=0: apply(Trilu(False, diagonal), x),
    "triu":             lambda x, diagonal=0: apply(Trilu(True, diagonal), x),
    "meshgrid":         _meshgrid,
    "glu":              _glu,
    # new tensors
    "zeros":            _filled(0),
    "ones":             _filled(1),
    "full":             _full,
    "new_zeros":        _new_filled(0),
    "new_ones":         _new_filled(1),
    "new_full":         _new_full,
    "zeros_like":       _like(0),
    "ones_like":        _like(1),
    "full_like":        _full_like,
    "fill":             lambda x, value: v.expand(as_type(value, x.dtype), x.shape),
    "zero":             lambda x: v.full(0, x.shape, x.dtype),
    "copy":             lambda x, source: v.expand(v.cast(source, x.dtype), x.shape),
    "arange":           _arange,
    "linspace":         _linspace,
    "scalar_tensor":    lambda s, *, dtype=None: scalar(s, asked(dtype, "f32")),
    "tensor":           _tensor,
    # indexing
    "embedding":        lambda weight, indices: apply(Gather(0), weight, indices),
    "index_select":     _index_select,
    "gather":           _gather,
    "one_hot":          _one_hot,
}
# fmt: on
