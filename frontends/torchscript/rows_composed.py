"""ATen operations that are several of SafeGraph's ops."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce as fold_left
from functools import wraps
from typing import Any

from safegraph import value as v
from safegraph.derived.einsum import Matmul
from safegraph.derived.index import Flip
from safegraph.derived.pointwise import Abs, IsInf, LeakyRelu, Log1p, Not, Sqrt, Where
from safegraph.derived.scatter import GatherNd
from safegraph.derived.shape import Expand
from safegraph.dims import Dim
from safegraph.dtypes import is_float
from safegraph.frontends.torchscript.rows import as_type, asked, binary, known
from safegraph.frontends.torchscript.rows_layers import ROWS as LAYERS
from safegraph.frontends.torchscript.rows_shape import cat, flatten, slice_
from safegraph.frontends.torchscript.scatter import ROWS as SCATTER
from safegraph.op import axes_of, axis_of
from safegraph.value import Value, apply

# -- new tensors ----------------------------------------------------------------------------------


def _eye(rows: Dim, columns: Dim | None = None, *, dtype: int | None = None) -> Value:
    row = v.unsqueeze(v.iota(rows), [1])
    ones = binary("equal", row, v.iota(rows if columns is None else columns))
    return v.cast(ones, asked(dtype, "f32"))


# -- elements -------------------------------------------------------------------------------------


def _log_add_exp(x: Value, y: Value) -> Value:
    """log(exp(x) + exp(y)), where both are one infinity, too."""
    apart = apply(Abs(), binary("subtract", x, y))
    found = binary("add", binary("maximum", x, y), apply(Log1p(), v.unary("exp", -apart)))
    return apply(Where(), binary("equal", x, y), binary("add", x, math.log(2)), found)


def _is_finite(x: Value) -> Value:
    if not is_float(x.dtype):
        return v.full(True, x.shape, "bool")
    return binary("less", apply(Abs(), x), math.inf)  # not so for NaN


def _is_in(x: Value, among: Value, *, invert: bool = False) -> Any:
    if not isinstance(x, Value) or not isinstance(among, Value):
        return NotImplemented
    found = binary("equal", v.unsqueeze(x, [x.rank]), flatten(among))
    found = v.reduce(found, [x.rank], "any", keep=False)
    return apply(Not(), found) if invert else found


def _hypot(x: Value, y: Value) -> Value:
    return apply(Sqrt(), binary("add", binary("multiply", x, x), binary("multiply", y, y)))


def _rrelu(x: Value, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False) -> Any:
    return NotImplemented if training else apply(LeakyRelu((lower + upper) / 2), x)


def _soft_shrink(x: Value, limit: float = 0.5) -> Value:
    below = apply(Where(), binary("less", x, -limit), binary("add", x, limit), as_type(0, x.dtype))
    return apply(Where(), binary("greater", x, limit), binary("subtract", x, limit), below)


def _hard_shrink(x: Value, limit: float = 0.5) -> Value:
    inside = binary("less_equal", apply(Abs(), x), limit)
    return apply(Where(), inside, as_type(0, x.dtype), x)


# -- reductions -----------------------------------------------------------------------------------


def _log_sum_exp(x: Value, dim: Sequence[int], keepdim: bool = False) -> Value:
    axes = axes_of(tuple(dim), x.rank)
    top = v.reduce(x, axes, "max")
    # an infinite maximum is not subtracted: inf - inf is no number
    top = apply(Where(), apply(IsInf(), top), as_type(0, x.dtype), top)
    total = v.reduce(v.unary("exp", binary("subtract", x, top)), axes, "sum", as_written=True)
    found = binary("add", v.unary("log", total), top)
    return found if keepdim else v.squeeze(found, axes)


def _extremes(x: Value, *, dim: int | None = None, keepdim: bool = False) -> list[Value]:
    axes = range(x.rank) if dim is None else [axis_of(dim, x.rank)]
    return [v.reduce(x, axes, kind, keep=keepdim) for kind in ("min", "max")]


def _with_mean(kind: str) -> Callable[..., list[Value]]:
    """A variance, or its root, and the mean."""
    spread, mean = LAYERS[kind], LAYERS["mean"]

    @wraps(spread)  # the parameters of a row are those of its function
    def row(x: Value, *, dim: Any = None, keepdim: bool = False, **degrees: Any) -> list[Value]:
        axes = {"dim": dim, "keepdim": keepdim}
        return [spread(x, **axes, **degrees), mean(x, **axes)]

    return row


def _nan_sum(
    x: Value, *, dim: Any = None, keepdim: bool = False, dtype: int | None = None
) -> Value:
    if is_float(x.dtype):
        x = apply(Where(), v.unary("is_nan", x), as_type(0, x.dtype), x)
    found: Value = LAYERS["sum"](x, dim=dim, keepdim=keepdim, dtype=dtype)
    return found


def _count_nonzero(x: Value, dim: Any = None) -> Value:
    found: Value = LAYERS["sum"](binary("not_equal", x, as_type(0, x.dtype)), dim=dim)
    return found


def _linalg_norm(
    x: Value, order: Any = None, dim: Any = None, keepdim: bool = False, *, dtype: int | None = None
) -> Any:
    """Of vectors; a matrix has the norm of all its elements where no other is asked for."""
    of_vectors = isinstance(dim, int) or (dim is not None and len(dim) == 1) or x.rank == 1
    if order not in (None, "fro") and not of_vectors:
        return NotImplemented
    order = 2 if order in (None, "fro") else order
    return LAYERS["linalg_vector_norm"](x, order, dim, keepdim, dtype=dtype)


def _matrix_norm(
    x: Value, order: Any = "fro", dim: Sequence[int] = (-2, -1), keepdim: bool = False
) -> Any:
    return _linalg_norm(x, order, dim, keepdim) if order == "fro" else NotImplemented


# -- places ---------------------------------------------------------------------------------------


def _bucketize(x: Any, ends: Value, *, right: bool = False, out_int32: bool = False) -> Any:
    return _search(ends, x, right=right, out_int32=out_int32)


def _search(
    ends: Value,
    x: Any,
    *,
    right: bool = False,
    side: str | None = None,
    sorter: Value | None = None,
    out_int32: bool = False,
) -> Any:
    """How many of the sorted numbers are before x: all of them for NaN."""
    if not isinstance(x, Value) or sorter is not None:
        return NotImplemented
    if ends.rank > 1:
        ends = v.unsqueeze(ends, [ends.rank - 1])
    kind = "less" if right or side == "right" else "less_equal"
    before = apply(Not(), binary(kind, v.unsqueeze(x, [x.rank]), ends))
    return v.reduce(v.cast(before, "i32" if out_int32 else "i64"), [x.rank], "sum", keep=False)


def _diagonal(x: Value, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Value:
    a, b = axis_of(dim1, x.rank), axis_of(dim2, x.rank)
    rest = [i for i in range(x.rank) if i not in (a, b)]
    rows, columns = known(x.shape[a], "a diagonal"), known(x.shape[b], "a diagonal")
    down, along = max(0, -offset), max(0, offset)
    number = v.iota(max(0, min(rows - down, columns - along)))
    at = [number + start if start else number for start in (down, along)]
    return apply(GatherNd(len(rest)), v.permute(x, [*rest, a, b]), *at)


def _slice_scatter(
    x: Value, part: Value, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Any:
    if step != 1:
        return NotImplemented
    axis = axis_of(dim, x.rank)
    first = 0 if start is None else start
    inside = slice_(x, axis, first, end)
    before = slice_(x, axis, 0, first)
    size, taken, ahead = (known(t.shape[axis], "a slice") for t in (x, inside, before))
    wide = apply(Expand(inside.shape), as_type(part, x.dtype))
    return cat([before, wide, slice_(x, axis, ahead + taken, size)], axis)


def _select_scatter(x: Value, part: Value, dim: int, index: int) -> Any:
    axis = axis_of(dim, x.rank)
    at = index + known(x.shape[axis], "a slice") if index < 0 else index
    return _slice_scatter(x, v.unsqueeze(part, [axis]), axis, at, at + 1)


def _tensor_split(x: Value, parts: Any, dim: int = 0) -> Any:
    """As many parts as equal as can be, or parts that start at places."""
    if isinstance(parts, Value):
        return NotImplemented
    axis = axis_of(dim, x.rank)
    if isinstance(parts, int):
        size = known(x.shape[axis], "what is split")
        starts = [i * (size // parts) + min(i, size % parts) for i in range(1, parts)]
    else:
        starts = list(parts)
    return [slice_(x, axis, a, b) for a, b in zip([0, *starts], [*starts, None], strict=True)]


# -- products -------------------------------------------------------------------------------------


def _inner(x: Value, y: Value) -> Value:
    if not x.rank or not y.rank:
        return binary("multiply", x, y)
    found: Value = SCATTER["tensordot"](x, y, [x.rank - 1], [y.rank - 1])
    return found


def _vecdot(x: Value, y: Value, *, dim: int = -1) -> Value:
    product = binary("multiply", x, y)
    return v.reduce(product, [axis_of(dim, product.rank)], "sum", keep=False)


def _matrix_power(x: Value, n: int) -> Any:
    if n < 1:
        return NotImplemented
    return fold_left(lambda y, _: apply(Matmul(), y, x), range(n - 1), x)


def _weight_norm(w: Value, g: Value, dim: int = 0) -> Value:
    """W g / |w|, with a length for each place of an axis."""
    axes = [i for i in range(w.rank) if dim < 0 or i != dim]
    length = apply(Sqrt(), v.reduce(binary("multiply", w, w), axes, "sum"))
    return binary("multiply", w, binary("divide", g, length))


def _broadcast(xs: Sequence[Value]) -> list[Value]:
    shape = v.broadcast_shapes(*(x.shape for x in xs))
    return [apply(Expand(shape), x) for x in xs]


# -- windows of pictures --------------------------------------------------------------------------


def _im2col(
    x: Value,
    window: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    steps: Sequence[int],
) -> Any:
    """Windows as columns: n (c h w) places."""
    if x.rank != 4:
        return NotImplemented
    border = [0, 0, *padding]
    x = v.pad(x, border, border)
    for i in (1, 0):
        x = v.unfold(x, 2 + i, window[i], steps[i], dilation[i])
    return v.group(v.permute(x, [0, 1, 3, 5, 2, 4]), [1, 3, 2])


def _col2im(
    x: Value,
    size: Sequence[int],
    window: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    steps: Sequence[int],
) -> Any:
    """Columns added up where their windows were."""
    if x.rank != 3:
        return NotImplemented
    covered = [dilation[i] * (window[i] - 1) + 1 for i in (0, 1)]
    places = [(size[i] + 2 * padding[i] - covered[i]) // steps[i] + 1 for i in (0, 1)]
    x = v.ungroup(x, [(-1,), (-1, *window), tuple(places)])
    x = v.permute(x, [0, 1, 4, 2, 5, 3])
    for i in (1, 0):
        x = v.fold(x, 2 + 2 * i, steps[i], dilation[i])
    after = [size[i] + 2 * padding[i] - known(x.shape[2 + i], "a picture") for i in (0, 1)]
    x = v.pad(x, [0] * 4, [0, 0, *after])
    for i in (0, 1):
        x = v.slice_axis(x, 2 + i, padding[i], padding[i] + size[i])
    return x


# fmt: off
ROWS: dict[str, Callable[..., Any]] = {
    # new tensors
    "eye":               _eye,
    # elements
    "logaddexp":         _log_add_exp,
    "isfinite":          _is_finite,
    "isin":              _is_in,
    "hypot":             _hypot,
    "rrelu":             _rrelu,
    "softshrink":        _soft_shrink,
    "hardshrink":        _hard_shrink,
    # reductions
    "logsumexp":         _log_sum_exp,
    "aminmax":           _extremes,
    "var_mean":          _with_mean("var"),
    "std_mean":          _with_mean("std"),
    "nansum":            _nan_sum,
    "count_nonzero":     _count_nonzero,
    "linalg_norm":       _linalg_norm,
    "linalg_matrix_norm": _matrix_norm,
    # places
    "bucketize":         _bucketize,
    "searchsorted":      _search,
    "fliplr":            lambda x: apply(Flip((1,)), x),
    "flipud":            lambda x: apply(Flip((0,)), x),
    "diagonal":          _diagonal,
    "slice_scatter":     _slice_scatter,
    "select_scatter":    _select_scatter,
    "tensor_split":      _tensor_split,
    "broadcast_tensors": _broadcast,
    # products
    "vdot":              lambda x, y: apply(Matmul(), x, y),
    "inner":             _inner,
    "linalg_vecdot":     _vecdot,
    "linalg_matrix_power": _matrix_power,
    "matrix_power":      _matrix_power,
    "_weight_norm":      _weight_norm,
    # windows of pictures
    "im2col":            _im2col,
    "col2im":            _col2im,
}
# fmt: on
