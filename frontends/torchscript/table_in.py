"""What each ATen operation is here: rows of the table that `read` walks by.

A row takes the arguments of the operation in their order, or by the names of its schema (after `*`);
tensors are `Value`s, everything else is Python's.  It gives the result as a term, or a list of them,
or NotImplemented for a variant that SafeGraph has no op for: that one is carried along as unknown.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce as fold_left
from typing import Any

import torch

from safegraph import value as v
from safegraph.derived.attention import Attention, EncoderLayer, MultiHead
from safegraph.derived.conv import Conv, ConvTranspose
from safegraph.derived.einsum import Einsum, Gemm, Linear, Matmul
from safegraph.derived.index import ArgMax, CumSum, Flip, Gather, GatherElements, OneHot, Trilu
from safegraph.derived.norm import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, LogSoftmax, RmsNorm, Softmax
from safegraph.derived.pointwise import (
    Abs,
    Broadcast,
    Ceil,
    Clip,
    Elu,
    Erf,
    Expm1,
    Gelu,
    HardSigmoid,
    HardSwish,
    IsInf,
    LeakyRelu,
    Log1p,
    Mish,
    Not,
    Prelu,
    Relu,
    Round,
    Rsqrt,
    Selu,
    Sigmoid,
    Silu,
    Softplus,
    Sqrt,
    Trunc,
    Where,
)
from safegraph.derived.pool import AdaptiveAvgPool, AvgPool, MaxPool
from safegraph.derived.shape import Concat, Expand, Index, Reshape, Tile
from safegraph.dims import Dim, Shape, Size, at_least, divide, product, require_divide
from safegraph.dtypes import is_float, is_integer
from safegraph.errors import FormatError, ShapeError, UnsupportedError
from safegraph.frontends.torchscript.types import from_number, promoted, short_name, torch_dtype
from safegraph.op import Op, axes_of, axis_of
from safegraph.ops import BINARY, Binary, Scalar
from safegraph.value import Value, apply, scalar

END = 2**63 - 1  # what a graph writes for the end of an axis


@dataclass(frozen=True)
class Row:
    """A function of the table, with what it wants to be given."""

    function: Callable[..., Any]
    most: int
    by_name: tuple[str, ...]

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Row:
        parameters = inspect.signature(function).parameters.values()
        places = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        return cls(function, len(places), tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY))

    def call(self, arguments: Sequence[Any], named: Mapping[str, Any]) -> Any:
        """The result for these arguments, which are given by place and by name."""
        return self.function(*arguments[: self.most], **{n: named[n] for n in self.by_name if n in named})


# -- element types --------------------------------------------------------------------------------


def as_type(x: Any, dtype: str) -> Value:
    """A value, or a number, in an element type."""
    if isinstance(x, Value):
        return scalar(x.op.value, dtype) if isinstance(x.op, Scalar) else v.cast(x, dtype)
    return scalar(x, dtype)


def real(x: Value) -> Value:
    """As torch does before functions of real numbers: integers become the default type."""
    return x if is_float(x.dtype) or x.dtype.startswith("c") else as_type(x, short_name(torch.get_default_dtype()))


def as_asked(x: Value, dtype: int | None) -> Value:
    """In the element type of an optional argument `dtype`."""
    return x if dtype is None else v.cast(x, from_number(dtype))


def binary(kind: str, x: Any, y: Any, dtype: str | None = None) -> Value:
    """A function of two operands in their promoted type, broadcast where their shapes differ."""
    dtype = dtype or promoted(x, y)
    a, b = as_type(x, dtype), as_type(y, dtype)
    return apply(Binary(kind) if kind in BINARY and a.shape == b.shape else Broadcast(kind), a, b)


def _binary(kind: str) -> Callable[..., Any]:
    return lambda x, y: binary(kind, x, y)


def _logical(kind: str) -> Callable[..., Any]:
    return lambda x, y: binary(kind, _truth(x), _truth(y))


def _bitwise(kind: str) -> Callable[..., Any]:
    return lambda x, y: binary(kind, x, y) if promoted(x, y) == "bool" else NotImplemented


def _truth(x: Any) -> Any:
    return x if not isinstance(x, Value) or x.dtype == "bool" else binary("not_equal", x, 0)


def _real(op: Op) -> Callable[[Value], Value]:
    return lambda x: apply(op, real(x))


def _any(op: Op) -> Callable[[Value], Value]:
    return lambda x: apply(op, x)


def _unary(kind: str) -> Callable[[Value], Value]:
    return lambda x: v.unary(kind, real(x))


def _keeps_integers(op: Op) -> Callable[[Value], Value]:
    return lambda x: apply(op, x) if is_float(x.dtype) else x


# -- arithmetic -----------------------------------------------------------------------------------


def _scaled(kind: str, x: Any, y: Any, alpha: Any = 1) -> Value:
    dtype = promoted(x, y)
    if dtype == "bool" and kind == "subtract":
        raise ShapeError("torch does not subtract booleans")
    return binary(kind, x, y if alpha == 1 else binary("multiply", y, alpha, dtype), dtype)


def _divide(x: Any, y: Any, *, rounding_mode: str | None = None) -> Value:
    dtype = promoted(x, y)
    if rounding_mode == "floor":
        return _floor_divide(x, y)
    if rounding_mode == "trunc":
        found = binary("divide", x, y)
        return apply(_trunc, found) if is_float(dtype) else found
    return binary("divide", x, y, dtype if is_float(dtype) else short_name(torch.get_default_dtype()))


_trunc = Trunc()


def _floor_divide(x: Any, y: Any) -> Value:
    dtype = promoted(x, y)
    if is_float(dtype):
        return v.unary("floor", binary("divide", x, y))
    return binary("divide", binary("subtract", x, binary("mod", x, y)), y)


def _clamp(x: Value, low: Any = None, high: Any = None) -> Value:
    numbers = all(b is None or isinstance(b, int | float) for b in (low, high))
    for bound in (low, high):
        x = x if bound is None else as_type(x, promoted(x, bound))
    if numbers:
        return apply(Clip(-math.inf if low is None else float(low), math.inf if high is None else float(high)), x)
    x = x if low is None else binary("maximum", x, low)
    return x if high is None else binary("minimum", x, high)


def _elu(x: Value, alpha: float, scale: float, input_scale: float) -> Any:
    if input_scale != 1:
        return NotImplemented
    return apply(Elu(float(alpha)) if scale == 1 else Selu(float(alpha), float(scale)), x)


def _glu(x: Value, dim: int) -> Value:
    a, b = _chunk(x, 2, dim)
    return binary("multiply", a, apply(Sigmoid(), b))


def _prelu(x: Value, slope: Value) -> Value:
    wide = v.reshape(slope, (slope.type.numel, *[1] * (x.rank - 2))) if slope.rank == 1 and x.rank > 1 else slope
    return apply(Prelu(), x, wide)


def _where(condition: Value, x: Any = None, y: Any = None) -> Any:
    if x is None:
        return NotImplemented
    dtype = promoted(x, y)
    return apply(Where(), _truth(condition), as_type(x, dtype), as_type(y, dtype))


def _masked_fill(x: Value, mask: Value, value: Any) -> Value:
    return apply(Where(), mask, as_type(value, x.dtype), x)


def _dropout(x: Value, p: float, train: bool) -> Value:
    if train and p:
        raise UnsupportedError("dropout draws random numbers: call .eval() on the model before it is traced")
    return x


def _to(x: Value, *, dtype: int | None = None, other: Value | None = None) -> Value:
    if other is not None:
        return v.cast(x, other.dtype)
    return as_asked(x, dtype)


# -- shapes ---------------------------------------------------------------------------------------


def _flatten(x: Value, start: int = 0, end: int = -1) -> Value:
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
    axes = range(x.rank) if dim is None else axes_of(_list(dim), x.rank)
    return v.squeeze(x, [a for a in axes if x.shape[a] == 1])


def _expand(x: Value, size: Sequence[Dim]) -> Value:
    lead = len(size) - x.rank
    to = tuple(x.shape[i - lead] if d == -1 else d for i, d in enumerate(size))
    return apply(Expand(to), x)


def _tile(x: Value, counts: Sequence[Dim]) -> Value:
    wide = v.unsqueeze(x, range(len(counts) - x.rank))
    return apply(Tile((*[1] * (wide.rank - len(counts)), *counts)), wide)


def _cat(xs: Sequence[Value], dim: int) -> Value:
    xs = [x for x in xs if x.shape != (0,)] or list(xs)
    dtype = short_name(fold_left(torch.promote_types, (torch_dtype(x.dtype) for x in xs)))
    return apply(Concat(dim), *(v.cast(x, dtype) for x in xs))


def _stack(xs: Sequence[Any], dim: int) -> Value:
    values = [x if isinstance(x, Value) else scalar(x, "f32" if isinstance(x, float) else "i64") for x in xs]
    axis = axis_of(dim, values[0].rank + 1)
    return _cat([v.unsqueeze(x, [axis]) for x in values], axis)


def _place(at: Any, size: Dim) -> Dim:
    """An end of a slice, counted from the front and inside of the axis."""
    if isinstance(at, int) and at < 0:
        at = size + at
        return 0 if at_least(0, at) else at
    return size if at_least(at, size) else at


def _slice(x: Value, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Value:
    axis = axis_of(dim, x.rank)
    size = x.shape[axis]
    stop = size if end is None or end == END else _place(end, size)
    first = 0 if start is None else _place(start, size)
    if at_least(first, stop):
        first = stop
    found = v.slice_axis(x, axis, first, stop)
    return v.stride(found, [step if i == axis else 1 for i in range(x.rank)])


def _narrow(x: Value, dim: int, start: Dim, length: Dim) -> Value:
    first = _place(start, x.shape[axis_of(dim, x.rank)])
    return v.slice_axis(x, dim, first, first + length)


def _split(x: Value, sizes: Any, dim: int = 0) -> list[Value]:
    axis = axis_of(dim, x.rank)
    if isinstance(sizes, int | Size):
        parts = _known(-(-x.shape[axis] // sizes), f"the number of parts of axis {axis}")
        sizes = [sizes] * (parts - 1) + [x.shape[axis] - sizes * (parts - 1)]
    found, at = [], 0
    for size in sizes:
        found.append(v.slice_axis(x, axis, at, at + size))
        at = at + size
    return found


def _chunk(x: Value, chunks: int, dim: int = 0) -> list[Value]:
    size = x.shape[axis_of(dim, x.rank)]
    exact = divide(size, chunks)
    return _split(x, -(-_known(size, f"axis {dim}") // chunks) if exact is None else exact, dim)


def _known(size: Dim, what: str) -> int:
    if isinstance(size, Size):
        raise FormatError(f"{what} must be known, it is {size}: give a static size in inputs=")
    return size


def _unbind(x: Value, dim: int = 0) -> list[Value]:
    axis = axis_of(dim, x.rank)
    return [apply(Index(axis, i), x) for i in range(_known(x.shape[axis], f"axis {axis}"))]


def _roll(x: Value, shifts: Any, dims: Any) -> Value:
    if not dims:
        return apply(Reshape(x.shape), _roll(_flatten(x), shifts, [0]))
    for shift, dim in zip(_list(shifts), _list(dims), strict=True):
        size = x.shape[axis_of(dim, x.rank)]
        cut = size - shift % size if isinstance(size, int) else (-shift if shift < 0 else size - shift)
        x = apply(Concat(dim), v.slice_axis(x, dim, cut, size), v.slice_axis(x, dim, 0, cut))
    return x


def _pad(x: Value, pad: Sequence[Dim], mode: Any = "constant", value: Any = None) -> Any:
    if mode != "constant":
        return NotImplemented
    before, after = [0] * x.rank, [0] * x.rank
    for i in range(len(pad) // 2):
        low, high = pad[2 * i], pad[2 * i + 1]
        axis = x.rank - 1 - i
        cut = [-n if isinstance(n, int) and n < 0 else 0 for n in (low, high)]
        x = v.slice_axis(x, axis, cut[0], x.shape[axis] - cut[1])
        before[axis], after[axis] = (0 if isinstance(n, int) and n < 0 else n for n in (low, high))
    return v.pad(x, before, after, 0 if value is None else value)


def _unfold(x: Value, dim: int, size: int, step: int) -> Value:
    axis = axis_of(dim, x.rank)
    return _movedim(v.unfold(x, axis, size, step), axis + 1, -1)


def _pixel_shuffle(x: Value, factor: int) -> Value:
    *lead, c, h, w = x.shape
    n = len(lead)
    parts = v.ungroup(x, [(-1,)] * n + [(-1, factor, factor), (-1,), (-1,)])
    return v.group(v.permute(parts, [*range(n + 1), n + 3, n + 1, n + 4, n + 2]), [1] * (n + 1) + [2, 2])


def _pixel_unshuffle(x: Value, factor: int) -> Value:
    n = x.rank - 3
    parts = v.ungroup(x, [(-1,)] * (n + 1) + [(-1, factor), (-1, factor)])
    return v.group(v.permute(parts, [*range(n + 1), n + 2, n + 4, n + 1, n + 3]), [1] * n + [3, 1, 1])


def _meshgrid(xs: Sequence[Value], *, indexing: str = "ij") -> list[Value]:
    flat = [_flatten(x) for x in xs]
    shape = tuple(x.shape[0] for x in flat)
    grids = [
        apply(Expand(shape), v.unsqueeze(x, [j for j in range(len(flat)) if j != i])) for i, x in enumerate(flat)
    ]
    return [_transpose(g, 0, 1) for g in grids] if indexing == "xy" and len(flat) > 1 else grids


# -- new tensors ----------------------------------------------------------------------------------


def _full(size: Sequence[Dim], value: Any, *, dtype: int | None = None) -> Value:
    found = _lifted_number(value)
    chosen = from_number(dtype) if dtype is not None else "f32" if found.dtype == "f64" else found.dtype
    return v.expand(as_type(found, chosen), tuple(size))


def _lifted_number(value: Any) -> Value:
    if isinstance(value, Value):
        return value
    return scalar(value, "bool" if isinstance(value, bool) else "f64" if isinstance(value, float) else "i64")


def _filled(number: float) -> Callable[..., Value]:
    return lambda size, *, dtype=None: v.full(number, tuple(size), _asked(dtype, "f32"))


def _new_filled(number: float) -> Callable[..., Value]:
    return lambda x, size, *, dtype=None: v.full(number, tuple(size), _asked(dtype, x.dtype))


def _like(number: float) -> Callable[..., Value]:
    return lambda x, *, dtype=None: v.full(number, x.shape, _asked(dtype, x.dtype))


def _asked(dtype: int | None, default: str) -> str:
    return default if dtype is None else from_number(dtype)


def _arange(*, start: Any = 0, end: Any = None, step: Any = 1, dtype: int | None = None) -> Value:
    whole = all(isinstance(n, int | Size) for n in (start, end, step))
    chosen = _asked(dtype, "i64" if whole else "f32")
    count = -((start - end) // step) if whole else math.ceil((end - start) / step)
    found = v.iota(count, chosen)
    found = found if step == 1 else found * step
    return found if isinstance(start, int | float) and start == 0 else found + start


def _linspace(start: float, end: float, steps: int, *, dtype: int | None = None) -> Value:
    chosen = _asked(dtype, "f32")
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


# -- reductions -----------------------------------------------------------------------------------


def _list(axes: Any) -> tuple[int, ...]:
    return (axes,) if isinstance(axes, int) else tuple(axes)


def _axes(x: Value, dim: Any) -> tuple[int, ...]:
    """The axes to reduce: all where none are given."""
    return tuple(range(x.rank)) if dim is None or dim == [] else axes_of(_list(dim), x.rank)


def _sum(kind: str) -> Callable[..., Value]:
    def row(x: Value, *, dim: Any = None, keepdim: bool = False, dtype: int | None = None) -> Value:
        wide = "i64" if is_integer(x.dtype) or x.dtype == "bool" else x.dtype
        return v.reduce(v.cast(x, _asked(dtype, wide)), _axes(x, dim), kind, keep=keepdim)

    return row


def _mean(x: Value, *, dim: Any = None, keepdim: bool = False, dtype: int | None = None) -> Value:
    return v.reduce(as_asked(x, dtype), _axes(x, dim), "mean", keep=keepdim)


def _extreme(kind: str) -> Callable[..., Any]:
    def row(x: Value, other: Value | None = None, *, dim: Any = None, keepdim: bool = False) -> Any:
        return v.reduce(x, _axes(x, dim), kind, keep=keepdim)

    return row


def _extreme_at(kind: str) -> Callable[..., Any]:
    def row(x: Value, dim: int, keepdim: bool) -> list[Value]:
        axis = axis_of(dim, x.rank)
        return [v.reduce(x, [axis], kind, keep=keepdim), apply(ArgMax(axis, keepdim, kind == "min"), x)]

    return row


def _truth_of(kind: str) -> Callable[..., Value]:
    def row(x: Value, *, dim: Any = None, keepdim: bool = False) -> Value:
        return v.reduce(_truth(x), _axes(x, dim), kind, keep=keepdim)

    return row


def _arg(smallest: bool) -> Callable[..., Value]:
    def row(x: Value, dim: int | None = None, keepdim: bool = False) -> Value:
        if dim is None:
            return apply(ArgMax(0, False, smallest), _flatten(x))
        return apply(ArgMax(dim, keepdim, smallest), x)

    return row


def _variance(root: bool) -> Callable[..., Value]:
    def row(
        x: Value, *, dim: Any = None, unbiased: bool = True, correction: Any = None, keepdim: bool = False
    ) -> Value:
        axes = _axes(x, dim)
        centred = binary("subtract", x, v.reduce(x, axes, "mean"))
        number = product(x.shape[a] for a in axes)
        less = (1 if unbiased else 0) if correction is None else int(correction)
        square = binary("multiply", centred, centred)
        if less:
            found = v.reduce(square, axes, "sum", keep=keepdim)
            found = binary("divide", found, as_type(number - less, x.dtype))
        else:
            found = v.reduce(square, axes, "mean", keep=keepdim)
        return apply(Sqrt(), found) if root else found

    return row


def _norm(x: Value, order: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: int | None = None) -> Any:
    x, axes = as_asked(x, dtype), _axes(x, dim)
    if order in (None, 2):
        return apply(Sqrt(), v.reduce(binary("multiply", x, x), axes, "sum", keep=keepdim))
    if order in (1, math.inf, -math.inf):
        kind = {1: "sum", math.inf: "max", -math.inf: "min"}[order]
        return v.reduce(apply(Abs(), x), axes, kind, keep=keepdim)
    return NotImplemented


def _cumsum(x: Value, dim: int, *, dtype: int | None = None) -> Value:
    wide = "i64" if is_integer(x.dtype) or x.dtype == "bool" else x.dtype
    return apply(CumSum(axis_of(dim, x.rank)), v.cast(x, _asked(dtype, wide)))


def _diff(x: Value, n: int, dim: int, prepend: Value | None, append: Value | None) -> Value:
    parts = [p for p in (prepend, x, append) if p is not None]
    x = parts[0] if len(parts) == 1 else _cat(parts, dim)
    for _ in range(n):
        kind = "not_equal" if x.dtype == "bool" else "subtract"
        x = binary(kind, _slice(x, dim, 1), _slice(x, dim, 0, -1))
    return x


# -- products, convolutions, pooling --------------------------------------------------------------


def _matmul(x: Value, y: Value) -> Value:
    return apply(Matmul(), x, y)


def _linear(x: Value, w: Value, b: Value | None = None) -> Value:
    return apply(Linear(), x, w, *_given(b))


def _given(*operands: Value | None) -> list[Value]:
    return [o for o in operands if o is not None]


def _addmm(c: Value, a: Value, b: Value, *, beta: float = 1, alpha: float = 1) -> Value:
    return apply(Gemm(float(alpha), float(beta), False, False), a, b, c)


def _baddbmm(c: Value, a: Value, b: Value, *, beta: float = 1, alpha: float = 1) -> Value:
    found = apply(Matmul(), a, b)
    found = found if alpha == 1 else binary("multiply", found, alpha)
    return found if beta == 0 else binary("add", found, c if beta == 1 else binary("multiply", c, beta))


def _einsum(equation: str, operands: Sequence[Value]) -> Any:
    sides, arrow, out = equation.replace(" ", "").partition("->")
    parts = sides.split(",")
    if not arrow or len(parts) != 2 or not all(p.isalpha() and len(set(p)) == len(p) for p in (*parts, out or "a")):
        return NotImplemented
    return apply(Einsum.of(f"{sides}->{out}"), *operands)


def _each(value: Any, number: int) -> tuple[int, ...]:
    """One entry for each spatial axis, from a number or a list of one."""
    items = _list(value)
    return items * number if len(items) == 1 else items


def _conv(
    x: Value, w: Value, b: Value | None, stride: Any, padding: Any, dilation: Any, groups: int,
    transposed: bool = False, extra: Any = 0,
) -> Value:  # fmt: skip
    n = w.rank - 2
    if x.rank != w.rank:
        raise ShapeError(f"a convolution of {x.type} by {w.type}: give the input a batch axis")
    strides, dilations = _each(stride, n), _each(dilation, n)
    if padding == "same":
        totals = [d * (_known(k, "a kernel") - 1) for d, k in zip(dilations, w.shape[2:], strict=True)]
        before = tuple(t // 2 for t in totals)
        after = tuple(t - t // 2 for t in totals)
    else:
        before = after = _each(0 if padding == "valid" else padding, n)
    if transposed:
        return apply(ConvTranspose(strides, before, after, dilations, groups, _each(extra, n)), x, w, *_given(b))
    return apply(Conv(strides, before, after, dilations, groups), x, w, *_given(b))


def _convolution(
    x: Value, w: Value, b: Any, stride: Any, padding: Any, dilation: Any, transposed: bool, extra: Any, groups: int
) -> Value:
    return _conv(x, w, b, stride, padding, dilation, groups, transposed, extra)


def _conv_mode(x: Value, w: Value, b: Any, stride: Any, padding: str, dilation: Any, groups: int) -> Value:
    return _conv(x, w, b, stride, padding, dilation, groups)


def _conv_transpose(
    x: Value, w: Value, b: Any, stride: Any, padding: Any, extra: Any, groups: int, dilation: Any
) -> Value:
    return _conv(x, w, b, stride, padding, dilation, groups, True, extra)


def ceiling(size: Dim, reach: int, step: int, pad: int) -> int:
    """What rounding up adds at the end; a window never starts in the padding at the end."""
    size = _known(size, "the size of an axis that is pooled with ceil_mode")
    windows = -((reach - size - 2 * pad) // step) + 1
    if (windows - 1) * step >= size + pad:
        windows -= 1
    return max((windows - 1) * step + reach - size - 2 * pad, 0)


def _window(
    x: Value, n: int, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: bool
) -> tuple[tuple[int, ...], ...]:
    """Kernel, stride, padding, dilation, and what rounding up adds, for each spatial axis."""
    window = _each(kernel, n)
    steps, pads, dilations = _each(stride or window, n), _each(padding, n), _each(dilation, n)
    reach = [(k - 1) * d + 1 for k, d in zip(window, dilations, strict=True)]
    each = zip(x.shape[x.rank - n :], reach, steps, pads, strict=True)
    extra = tuple(ceiling(*one) for one in each) if ceil else (0,) * n
    return window, steps, pads, dilations, extra


def _max_pool(n: int) -> Callable[..., Value]:
    def row(x: Value, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: bool) -> Value:
        window, steps, pads, dilations, extra = _window(x, n, kernel, stride, padding, dilation, ceil)
        after = tuple(p + e for p, e in zip(pads, extra, strict=True))
        return apply(MaxPool(window, steps, pads, after, dilations), x)

    return row


def _avg_pool(n: int) -> Callable[..., Any]:
    def row(
        x: Value, kernel: Any, stride: Any, padding: Any, ceil: bool, count_pad: bool, divisor: int | None = None
    ) -> Any:
        window, steps, pads, _, extra = _window(x, n, kernel, stride, padding, 1, ceil)
        if divisor is not None:
            return NotImplemented
        return apply(AvgPool(window, steps, pads, pads, extra, count_pad), x)

    return row


def _adaptive(n: int) -> Callable[..., Any]:
    def row(x: Value, to: Any) -> Value:
        return apply(AdaptiveAvgPool(_each(to, n)), x)

    return row


def _adaptive_max(x: Value, to: Any) -> Any:
    if any(d != 1 for d in _list(to)) or len(_list(to)) < 2:
        return NotImplemented
    axes = tuple(range(x.rank - len(_list(to)), x.rank))
    return [v.reduce(x, axes, "max"), _place_of_largest(x, len(axes))]


def _place_of_largest(x: Value, n: int) -> Value:
    flat = _flatten(x, x.rank - n)
    return v.unsqueeze(apply(ArgMax(flat.rank - 1, True, False), flat), range(x.rank - n + 1, x.rank))


# -- normalisation and attention ------------------------------------------------------------------


def _softmax(op: type[Softmax] | type[LogSoftmax]) -> Callable[..., Value]:
    return lambda x, dim, dtype=None: apply(op(axis_of(dim, x.rank)), as_asked(real(x), dtype))


def _batch_norm(
    x: Value, w: Any, b: Any, mean: Any, variance: Any, training: bool, momentum: float, eps: float
) -> Value:
    if training or mean is None:
        raise UnsupportedError("batch_norm takes its statistics from the batch: call .eval() on the model first")
    channels = (x.shape[1],)
    scale = v.full(1, channels, mean.dtype) if w is None else w
    bias = v.full(0, channels, mean.dtype) if b is None else b
    return apply(BatchNorm(eps), x, scale, bias, mean, variance)


def _instance_norm(
    x: Value, w: Any, b: Any, mean: Any, variance: Any, use_input: bool, momentum: float, eps: float
) -> Value:
    if not use_input:
        return _batch_norm(x, w, b, mean, variance, False, momentum, eps)
    if mean is not None:
        raise UnsupportedError("instance_norm updates its running statistics: call .eval() on the model first")
    return apply(InstanceNorm(eps), x, *_given(w, b))


def _layer_norm(x: Value, shape: Shape, w: Any, b: Any, eps: float) -> Any:
    return NotImplemented if w is None and b is not None else apply(LayerNorm(len(shape), eps), x, *_given(w, b))


def _group_norm(x: Value, groups: int, w: Any, b: Any, eps: float) -> Any:
    return NotImplemented if w is None and b is not None else apply(GroupNorm(groups, eps), x, *_given(w, b))


def _rms_norm(x: Value, shape: Shape, w: Any, eps: float | None) -> Value:
    eps = torch.finfo(torch_dtype(x.dtype)).eps if eps is None else eps
    return apply(RmsNorm(len(shape), eps), x, *_given(w))


def _attention(
    q: Value, k: Value, w: Value, mask: Value | None, dropout: float, causal: bool, *, scale: float | None = None
) -> Any:
    if dropout:
        raise UnsupportedError("attention with dropout draws random numbers: call .eval() on the model first")
    if not q.rank == k.rank == w.rank:
        return NotImplemented
    return apply(Attention(scale, causal), q, k, w, *_given(mask))


def _multi_head(
    q: Value, k: Value, w: Value, width: int, heads: int, in_w: Value, in_b: Any, out_w: Value, out_b: Any,
    mask: Any, need_weights: bool,
) -> Any:  # fmt: skip
    if mask is not None or need_weights or in_b is None or out_b is None:
        return NotImplemented
    return [apply(MultiHead(heads), q, k, w, in_w, in_b, out_w, out_b), None]


def _encoder_layer(
    x: Value, width: int, heads: int, in_w: Value, in_b: Value, out_w: Value, out_b: Value, use_gelu: bool,
    norm_first: bool, eps: float, n1_w: Value, n1_b: Value, n2_w: Value, n2_b: Value, w1: Value, b1: Value,
    w2: Value, b2: Value, mask: Any = None,
) -> Any:  # fmt: skip
    if mask is not None:
        return NotImplemented
    op = EncoderLayer(heads, "gelu" if use_gelu else "relu", norm_first, eps)
    return apply(op, x, in_w, in_b, out_w, out_b, n1_w, n1_b, n2_w, n2_b, w1, b1, w2, b2)


# -- indexing -------------------------------------------------------------------------------------


def _index(x: Value, indices: Sequence[Value | None]) -> Any:
    given = [(axis, i) for axis, i in enumerate(indices) if i is not None]
    if len(given) != 1 or not is_integer(given[0][1].dtype) or given[0][1].dtype == "u8":
        return NotImplemented
    return apply(Gather(given[0][0]), x, given[0][1])


def _gather(x: Value, dim: int, index: Value) -> Value:
    return apply(GatherElements(axis_of(dim, x.rank)), x, index)


def _one_hot(x: Value, classes: int) -> Value:
    if classes < 0:
        raise UnsupportedError("one_hot without num_classes has a shape that depends on the values")
    return apply(OneHot(x.rank, classes), x)


def _identity(x: Value) -> Value:
    return x


# fmt: off
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    # arithmetic
    "add":              lambda x, y, alpha=1: _scaled("add", x, y, alpha),
    "sub":              lambda x, y, alpha=1: _scaled("subtract", x, y, alpha),
    "subtract":         lambda x, y, alpha=1: _scaled("subtract", x, y, alpha),
    "rsub":             lambda x, y, alpha=1: _scaled("subtract", y, x, alpha),
    "mul":              _binary("multiply"),
    "multiply":         _binary("multiply"),
    "div":              _divide,
    "divide":           _divide,
    "true_divide":      _divide,
    "floor_divide":     _floor_divide,
    "remainder":        _binary("mod"),
    "fmod":             _binary("fmod"),
    "pow":              _binary("pow"),
    "maximum":          _binary("maximum"),
    "minimum":          _binary("minimum"),
    "max.other":        _binary("maximum"),
    "min.other":        _binary("minimum"),
    "eq":               _binary("equal"),
    "ne":               _binary("not_equal"),
    "lt":               _binary("less"),
    "le":               _binary("less_equal"),
    "gt":               _binary("greater"),
    "ge":               _binary("greater_equal"),
    "logical_and":      _logical("and"),
    "logical_or":       _logical("or"),
    "logical_xor":      _logical("xor"),
    "logical_not":      lambda x: apply(Not(), _truth(x)),
    "__and__":          _bitwise("and"),
    "__or__":           _bitwise("or"),
    "__xor__":          _bitwise("xor"),
    "bitwise_and":      _bitwise("and"),
    "bitwise_or":       _bitwise("or"),
    "bitwise_xor":      _bitwise("xor"),
    "bitwise_not":      lambda x: apply(Not(), x) if x.dtype == "bool" else NotImplemented,
    "addcmul":          lambda x, a, b, *, value=1: _scaled("add", x, binary("multiply", a, b), value),
    "addcdiv":          lambda x, a, b, *, value=1: _scaled("add", x, _divide(a, b), value),
    "lerp":             lambda x, y, w: binary("add", x, binary("multiply", w, binary("subtract", y, x))),
    "where":            _where,
    "masked_fill":      _masked_fill,
    "clamp":            _clamp,
    "clip":             _clamp,
    "clamp_min":        _clamp,
    "clamp_max":        lambda x, high: _clamp(x, None, high),
    "to":               _to,
    "type_as":          lambda x, y: v.cast(x, y.dtype),
    # functions of one number
    "neg":              lambda x: v.unary("neg", x),
    "exp":              _unary("exp"),
    "log":              _unary("log"),
    "log2":             lambda x: v.unary("log", real(x)) * (1 / math.log(2)),
    "log10":            lambda x: v.unary("log", real(x)) * (1 / math.log(10)),
    "sin":              _unary("sin"),
    "asin":             _unary("arcsin"),
    "cos":              _unary("cos"),
    "acos":             _unary("arccos"),
    "tan":              _unary("tan"),
    "atan":             _unary("arctan"),
    "sinh":             _unary("sinh"),
    "asinh":            _unary("arcsinh"),
    "cosh":             _unary("cosh"),
    "acosh":            _unary("arccosh"),
    "tanh":             _unary("tanh"),
    "atanh":            _unary("arctanh"),
    "special_ndtr":     _unary("gaussian"),
    "special_ndtri":    _unary("inv_gaussian"),
    "reciprocal":       _unary("inverse"),
    "sign":             lambda x: v.unary("sign", x),
    "floor":            lambda x: v.unary("floor", x),
    "isnan":            lambda x: v.unary("is_nan", x),
    "isinf":            _real(IsInf()),
    "square":           lambda x: binary("multiply", x, x),
    "ceil":             _keeps_integers(Ceil()),
    "round":            _keeps_integers(Round()),
    "trunc":            _keeps_integers(Trunc()),
    "abs":              _any(Abs()),
    "sqrt":             _real(Sqrt()),
    "rsqrt":            _real(Rsqrt()),
    "erf":              _real(Erf()),
    "special_erf":      _real(Erf()),
    "log1p":            _real(Log1p()),
    "expm1":            _real(Expm1()),
    "sigmoid":          _real(Sigmoid()),
    "relu":             _any(Relu()),
    "relu6":            _any(Clip(0.0, 6.0)),
    "hardtanh":         _clamp,
    "hardsigmoid":      _any(HardSigmoid()),
    "hardswish":        _any(HardSwish()),
    "silu":             _any(Silu()),
    "mish":             _any(Mish()),
    "gelu":             lambda x, *, approximate="none": apply(Gelu(approximate), x),
    "leaky_relu":       lambda x, slope=0.01: apply(LeakyRelu(float(slope)), x),
    "elu":              _elu,
    "celu":             lambda x, alpha=1: apply(Elu(1.0), x) if alpha == 1 else NotImplemented,
    "selu":             _any(Selu()),
    "softplus":         lambda x, beta=1, threshold=20: apply(Softplus(float(beta), float(threshold)), x),
    "log_sigmoid":      lambda x: -apply(Softplus(1.0, math.inf), -x),
    "threshold":        lambda x, at, value: _where(binary("greater", x, at), x, value),
    "prelu":            _prelu,
    "glu":              _glu,
    "dropout":          _dropout,
    "feature_dropout":  _dropout,
    "alpha_dropout":    _dropout,
    # the same elements
    "contiguous":       _identity,
    "clone":            _identity,
    "detach":           _identity,
    "cpu":              _identity,
    "requires_grad_":   _identity,
    "resolve_conj":     _identity,
    "resolve_neg":      _identity,
    "lift_fresh":       _identity,
    # shapes
    "view":             lambda x, size: apply(Reshape(tuple(size)), x),
    "_unsafe_view":     lambda x, size: apply(Reshape(tuple(size)), x),
    "reshape":          lambda x, size: apply(Reshape(tuple(size)), x),
    "reshape_as":       lambda x, other: apply(Reshape(other.shape), x),
    "view_as":          lambda x, other: apply(Reshape(other.shape), x),
    "view.dtype":       lambda x, dtype: NotImplemented,
    "flatten":          _flatten,
    "ravel":            _flatten,
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
    "cat":              _cat,
    "concat":           _cat,
    "stack":            _stack,
    "slice":            _slice,
    "select":           lambda x, dim, index: apply(Index(axis_of(dim, x.rank), index), x),
    "narrow":           _narrow,
    "split":            _split,
    "split_with_sizes": _split,
    "chunk":            _chunk,
    "unsafe_chunk":     _chunk,
    "unbind":           _unbind,
    "roll":             _roll,
    "flip":             lambda x, dims: apply(Flip(axes_of(_list(dims), x.rank)), x),
    "constant_pad_nd":  lambda x, pad, value=0: _pad(x, pad, "constant", value),
    "pad":              _pad,
    "unfold":           _unfold,
    "pixel_shuffle":    _pixel_shuffle,
    "pixel_unshuffle":  _pixel_unshuffle,
    "tril":             lambda x, diagonal=0: apply(Trilu(False, diagonal), x),
    "triu":             lambda x, diagonal=0: apply(Trilu(True, diagonal), x),
    "meshgrid":         _meshgrid,
    # new tensors
    "zeros":            _filled(0),
    "ones":             _filled(1),
    "full":             _full,
    "new_zeros":        _new_filled(0),
    "new_ones":         _new_filled(1),
    "new_full":         lambda x, size, value, *, dtype=None: v.full(value, tuple(size), _asked(dtype, x.dtype)),
    "zeros_like":       _like(0),
    "ones_like":        _like(1),
    "full_like":        lambda x, value, *, dtype=None: v.full(value, x.shape, _asked(dtype, x.dtype)),
    "fill":             lambda x, value: v.expand(as_type(value, x.dtype), x.shape),
    "zero":             lambda x: v.full(0, x.shape, x.dtype),
    "copy":             lambda x, source: v.expand(v.cast(source, x.dtype), x.shape),
    "arange":           _arange,
    "linspace":         _linspace,
    "scalar_tensor":    lambda s, *, dtype=None: scalar(s, _asked(dtype, "f32")),
    "tensor":           _tensor,
    # reductions
    "sum":              _sum("sum"),
    "prod":             _sum("prod"),
    "mean":             _mean,
    "amax":             _extreme("max"),
    "amin":             _extreme("min"),
    "max":              _extreme("max"),
    "min":              _extreme("min"),
    "max.dim":          _extreme_at("max"),
    "min.dim":          _extreme_at("min"),
    "any":              _truth_of("any"),
    "all":              _truth_of("all"),
    "argmax":           _arg(False),
    "argmin":           _arg(True),
    "var":              _variance(False),
    "std":              _variance(True),
    "norm":             _norm,
    "linalg_vector_norm": _norm,
    "frobenius_norm":   lambda x, dim=None, keepdim=False: _norm(x, 2, dim, keepdim),
    "cumsum":           _cumsum,
    "diff":             _diff,
    # products, convolutions, pooling
    "linear":           _linear,
    "matmul":           _matmul,
    "mm":               _matmul,
    "bmm":              _matmul,
    "mv":               _matmul,
    "dot":              _matmul,
    "addmm":            _addmm,
    "baddbmm":          _baddbmm,
    "einsum":           _einsum,
    "conv1d":           _conv,
    "conv2d":           _conv,
    "conv3d":           _conv,
    "_convolution":     _convolution,
    "convolution":      _convolution,
    "_convolution_mode": _conv_mode,
    "conv_transpose1d": _conv_transpose,
    "conv_transpose2d": _conv_transpose,
    "conv_transpose3d": _conv_transpose,
    "max_pool1d":       _max_pool(1),
    "max_pool2d":       _max_pool(2),
    "max_pool3d":       _max_pool(3),
    "avg_pool1d":       _avg_pool(1),
    "avg_pool2d":       _avg_pool(2),
    "avg_pool3d":       _avg_pool(3),
    "adaptive_avg_pool1d": _adaptive(1),
    "adaptive_avg_pool2d": _adaptive(2),
    "adaptive_avg_pool3d": _adaptive(3),
    "adaptive_max_pool2d": _adaptive_max,
    "adaptive_max_pool3d": _adaptive_max,
    # normalisation and attention
    "softmax":          _softmax(Softmax),
    "log_softmax":      _softmax(LogSoftmax),
    "batch_norm":       _batch_norm,
    "instance_norm":    _instance_norm,
    "layer_norm":       _layer_norm,
    "group_norm":       _group_norm,
    "rms_norm":         _rms_norm,
    "scaled_dot_product_attention": _attention,
    "_native_multi_head_attention": _multi_head,
    "_transformer_encoder_layer_fwd": _encoder_layer,
    # indexing
    "embedding":        lambda weight, indices: apply(Gather(0), weight, indices),
    "index":            _index,
    "index_select":     lambda x, dim, index: apply(Gather(axis_of(dim, x.rank)), x, index),
    "gather":           _gather,
    "one_hot":          _one_hot,
}
# fmt: on

TABLE: dict[str, Row] = {f"aten::{name}": Row.of(function) for name, function in _FUNCTIONS.items()}
"""Rows by the name of the operation, or by name and overload where overloads differ."""
