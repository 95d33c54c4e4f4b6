"""ATen's reading and writing at several indices, sorting, and products of more axes, in and out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from safegraph import value as v
from safegraph.derived.einsum import Einsum, Matmul
from safegraph.derived.index import Gather, GatherElements
from safegraph.derived.pointwise import Abs, Sqrt, Where
from safegraph.derived.scatter import GatherNd, ScatterElements, ScatterNd, TopK
from safegraph.derived.shape import Concat, Expand
from safegraph.dims import Dim, at_least
from safegraph.dtypes import is_float, is_integer
from safegraph.frontends.torchscript.rows import as_type, binary
from safegraph.frontends.torchscript.site import Site, text
from safegraph.op import axis_of
from safegraph.value import Value, apply

COMBINING = {"sum": "add", "prod": "multiply", "amax": "maximum", "amin": "minimum"}
_UNITS = {"sum": 0.0, "prod": 1.0, "amax": -math.inf, "amin": math.inf}
MOST_SUBTRACTED = 25
"""Of how many points at most torch's `cdist` takes differences; a free number counts as more."""

# -- places ---------------------------------------------------------------------------------------


def _are_places(indices: Sequence[Value]) -> bool:
    return bool(indices) and all(is_integer(i.dtype) and i.dtype != "u8" for i in indices)


def index(x: Value, indices: Sequence[Value | None]) -> Any:
    """x[i, :, j]: one index by `Gather`, several by `GatherNd`."""
    axes = [axis for axis, i in enumerate(indices) if i is not None]
    used = [i for i in indices if i is not None]
    if not _are_places(used):
        return NotImplemented
    if len(used) == 1:
        return apply(Gather(axes[0]), x, used[0])
    if axes != list(
        range(axes[0], axes[0] + len(axes))
    ):  # then torch puts the result's axes in front
        x, axes = v.permute(x, _in_front(axes, x.rank)), [0]
    return apply(GatherNd(axes[0]), x, *used)


def _in_front(axes: Sequence[int], rank: int) -> list[int]:
    return [*axes, *(a for a in range(rank) if a not in axes)]


def _index_put(
    x: Value, indices: Sequence[Value | None], values: Value, accumulate: bool = False
) -> Any:
    axes = [axis for axis, i in enumerate(indices) if i is not None]
    used = [i for i in indices if i is not None]
    if len(used) == 1 and used[0].dtype == "bool" and not accumulate and values.type.numel == 1:
        mask = v.unsqueeze(used[0], range(axes[0] + used[0].rank, x.rank))
        one = values if values.rank == 0 else v.reshape(values, ())
        return apply(Where(), mask, one, x)
    together = axes == list(range(axes[0], axes[0] + len(axes))) if axes else False
    if not _are_places(used) or not together:
        return NotImplemented
    lead = v.broadcast_shapes(*(i.shape for i in used))
    # torch has the axes of the indices where the first of them is, `ScatterNd` in front
    before = axes[0]
    rest = [x.shape[a] for a in range(x.rank) if a not in axes]
    full = (*rest[:before], *lead, *rest[before:])
    values = apply(Expand(full), as_type(values, x.dtype))
    order = _in_front(axes, x.rank)
    values = v.permute(values, _in_front(range(before, before + len(lead)), len(full)))
    op = ScatterNd("add" if accumulate else "set")
    found = apply(op, v.permute(x, order), values, *used)
    return v.permute(found, [order.index(a) for a in range(x.rank)])


def _scatter(combine: str) -> Callable[..., Any]:
    def row(x: Value, dim: int, index: Value, src: Any) -> Value:
        return _scattered(x, dim, index, src, combine)

    return row


def _scattered(x: Value, dim: int, index: Value, src: Any, combine: str) -> Value:
    if isinstance(src, Value) and src.rank == index.rank:
        for axis, d in enumerate(index.shape):  # more of it than there are indices is not used
            src = v.slice_axis(src, axis, 0, d)
        updates = src
    else:
        updates = v.expand(as_type(src, x.dtype), index.shape)
    return apply(ScatterElements(axis_of(dim, x.rank), combine), x, index, updates)


def _scatter_reduce(
    x: Value, dim: int, index: Value, src: Any, reduce: str, *, include_self: bool = True
) -> Any:
    if reduce not in COMBINING:
        return NotImplemented
    if not include_self:  # what is written to starts from the unit
        if not is_float(x.dtype):
            return NotImplemented
        x = _scattered(x, dim, index, _UNITS[reduce], "set")
    return _scattered(x, dim, index, src, COMBINING[reduce])


def _scatter_old(kind: str) -> Callable[..., Any]:
    """The reductions of `scatter` itself: "add" and "multiply"."""
    return lambda x, dim, index, src, *, reduce: _scattered(x, dim, index, src, reduce)


def _along(combine: str) -> Callable[..., Any]:
    """index_add and index_copy: whole slices of an axis."""

    def row(x: Value, dim: int, index: Value, source: Value, *, alpha: Any = 1) -> Value:
        axis = axis_of(dim, x.rank)
        source = source if alpha == 1 else binary("multiply", source, alpha)
        wide = v.unsqueeze(index, [i for i in range(x.rank) if i != axis])
        return apply(ScatterElements(axis, combine), x, v.expand(wide, source.shape), source)

    return row


def _take_along(x: Value, indices: Value, dim: int | None = None) -> Any:
    if dim is None:
        return NotImplemented
    axis = axis_of(dim, x.rank)

    def without(shape: Sequence[Dim]) -> tuple[Dim, ...]:
        return tuple(1 if i == axis else d for i, d in enumerate(shape))

    shape = v.broadcast_shapes(without(x.shape), without(indices.shape))
    x = apply(Expand(tuple(x.shape[axis] if i == axis else d for i, d in enumerate(shape))), x)
    to = tuple(indices.shape[axis] if i == axis else d for i, d in enumerate(shape))
    return apply(GatherElements(axis), x, apply(Expand(to), indices))


# -- sorting --------------------------------------------------------------------------------------


def _both(k: Dim, x: Value, dim: int, largest: bool) -> list[Value]:
    axis = axis_of(dim, x.rank)
    return [apply(TopK(k, axis, largest, result), x) for result in ("values", "places")]


def _top_k(x: Value, k: Dim, dim: int = -1, largest: bool = True) -> list[Value]:
    return _both(k, x, dim, largest)


def _sort(x: Value, *, dim: int = -1, descending: bool = False) -> list[Value]:
    return _both(x.shape[dim], x, dim, descending)


def _argsort(x: Value, *, dim: int = -1, descending: bool = False) -> Value:
    return _both(x.shape[dim], x, dim, descending)[1]


# -- products and distances -----------------------------------------------------------------------


def _tensordot(a: Value, b: Value, dims_a: Sequence[int], dims_b: Sequence[int]) -> Value:
    left = list(range(a.rank))
    right = list(range(a.rank, a.rank + b.rank))
    for i, j in zip(dims_a, dims_b, strict=True):
        right[axis_of(j, b.rank)] = axis_of(i, a.rank)
    summed = {axis_of(i, a.rank) for i in dims_a}
    out = [c for c in (*left, *right) if c not in summed]
    return apply(Einsum(tuple(left), tuple(right), tuple(out)).canonical(), a, b)


def _outer(a: Value, b: Value) -> Value:
    return apply(Einsum((0,), (1,), (0, 1)), a, b)


def _bilinear(a: Value, b: Value, w: Value, bias: Value | None = None) -> Value:
    """out[o] = a w[o] b."""
    lead = tuple(range(a.rank - 1))
    i, j, o = range(a.rank, a.rank + 3)
    half = apply(Einsum((*lead, i), (o, i, j), (*lead, o, j)).canonical(), a, w)
    found = apply(Einsum((*lead, o, j), (*lead, j), (*lead, o)).canonical(), half, b)
    return found if bias is None else binary("add", found, bias)


def _cdist(a: Value, b: Value, p: float = 2, compute_mode: int | None = None) -> Any:
    few = at_least(MOST_SUBTRACTED, a.shape[-2]) and at_least(MOST_SUBTRACTED, b.shape[-2])
    if p == 2 and (compute_mode == 1 or (not compute_mode and not few)):
        return _euclidean(a, b)
    apart = binary("subtract", v.unsqueeze(a, [a.rank - 1]), v.unsqueeze(b, [b.rank - 2]))
    return _distance(apart, p, keep=False)


def _euclidean(a: Value, b: Value) -> Value:
    """Distances by one product, as torch takes them for many points: a² - 2ab + b².

    The rows (-2a, a², 1) and (b, 1, b²) are what it multiplies, here as there.
    """

    def joined(*parts: Value) -> Value:
        return apply(Concat(parts[0].rank - 1), *parts)

    def square(x: Value) -> Value:
        return v.reduce(binary("pow", x, 2.0), [x.rank - 1], "sum")

    left = joined(binary("multiply", a, -2.0), square(a), v.full(1, (*a.shape[:-1], 1), a.dtype))
    right = joined(b, v.full(1, (*b.shape[:-1], 1), b.dtype), square(b))
    turned = v.permute(right, [*range(b.rank - 2), b.rank - 1, b.rank - 2])
    return apply(Sqrt(), binary("maximum", apply(Matmul(), left, turned), 0.0))


def _distance(apart: Value, p: float, *, keep: bool) -> Any:
    if p == 2:
        square = binary("multiply", apart, apart)
        return apply(Sqrt(), v.reduce(square, [apart.rank - 1], "sum", keep=keep))
    if p in (1, math.inf):
        kind = "sum" if p == 1 else "max"
        return v.reduce(apply(Abs(), apart), [apart.rank - 1], kind, keep=keep)
    return NotImplemented


def _pairwise(a: Value, b: Value, p: float = 2, eps: float = 1e-6, keepdim: bool = False) -> Any:
    return _distance(binary("add", binary("subtract", a, b), eps), p, keep=keepdim)


def _cosine(a: Value, b: Value, dim: int = 1, eps: float = 1e-8) -> Value:
    shape = v.broadcast_shapes(a.shape, b.shape)
    a, b = apply(Expand(shape), a), apply(Expand(shape), b)
    axis = axis_of(dim, a.rank)

    def length(x: Value) -> Value:
        found = apply(Sqrt(), v.reduce(binary("multiply", x, x), [axis], "sum"))
        return binary("maximum", found, eps)

    unit_a, unit_b = (binary("divide", x, length(x)) for x in (a, b))
    return v.reduce(binary("multiply", unit_a, unit_b), [axis], "sum", keep=False)


def _channel_shuffle(x: Value, groups: int) -> Value:
    parts = v.ungroup(x, [(-1,), (groups, -1), *[(-1,)] * (x.rank - 2)])
    turned = v.permute(parts, [0, 2, 1, *range(3, x.rank + 1)])
    return v.group(turned, [1, 2, *[1] * (x.rank - 2)])


# fmt: off
ROWS: dict[str, Callable[..., Any]] = {
    "index":             index,
    "index_put":         _index_put,
    "scatter":           _scatter("set"),
    "scatter.reduce":    _scatter_old("src"),
    "scatter.value_reduce": _scatter_old("value"),
    "scatter_add":       _scatter("add"),
    "scatter_reduce":    _scatter_reduce,
    "index_add":         _along("add"),
    "index_copy":        _along("set"),
    "take_along_dim":    _take_along,
    "topk":              _top_k,
    "sort":              _sort,
    "argsort":           _argsort,
    "msort":             lambda x: _both(x.shape[0], x, 0, False)[0],
    "tensordot":         _tensordot,
    "outer":             _outer,
    "ger":               _outer,
    "bilinear":          _bilinear,
    "cdist":             _cdist,
    "pairwise_distance": _pairwise,
    "cosine_similarity": _cosine,
    "channel_shuffle":   _channel_shuffle,
}
# fmt: on


# -- out ------------------------------------------------------------------------------------------


def _gather_nd(op: GatherNd, s: Site) -> str:
    return f"{s[0]}[{', '.join([':'] * op.axis + [s[i] for i in range(1, len(s))])}]"


def _scatter_nd(op: ScatterNd, s: Site) -> str | None:
    if op.combine not in ("set", "add"):
        return None
    indices = ", ".join(s[i] for i in range(2, len(s)))
    return f"aten.index_put({s[0]}, [{indices}], {s[1]}, {op.combine == 'add'})"


def _scatter_elements(op: ScatterElements, s: Site) -> str:
    axis = op.axis % s.out.rank
    size = text(s.out.shape[axis])
    places = f"aten.where(aten.lt({s[1]}, 0), aten.add({s[1]}, {size}), {s[1]})"  # torch takes none
    if op.combine == "set":
        return f"aten.scatter({s[0]}, {axis}, {places}, {s[2]})"
    kind = {ours: theirs for theirs, ours in COMBINING.items()}[op.combine]
    return f'aten.scatter_reduce({s[0]}, {axis}, {places}, {s[2]}, "{kind}")'


def _top_k_out(op: TopK, s: Site) -> str:
    """By a stable sort: of equal elements the first come first, which topk does not promise."""
    axis = op.axis % s.out.rank
    part = 1 if op.result == "places" else 0
    call = s.call(f"aten.sort({s[0]}, stable=True, dim={axis}, descending={op.largest})")
    if op.k == s.types[0].shape[axis]:
        return f"{call}[{part}]"
    return f"aten.narrow({call}[{part}], {axis}, 0, {text(op.k)})"


ROWS_OUT: dict[Any, Any] = {
    GatherNd: _gather_nd,
    ScatterNd: _scatter_nd,
    ScatterElements: _scatter_elements,
    TopK: _top_k_out,
}
