"""What a model computes from shapes, folded into sizes.

A `Known` is an array of integers and sizes (or of numbers made from them) that is known while the
model is read: shapes, small integer constants, and what is computed from them alone.  An op that
cannot be decided for free sizes is not folded; it is then read like any other op.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from safegraph import dims
from safegraph.dims import Dim, Size
from safegraph.dtypes import is_float, is_integer, to_numpy
from safegraph.errors import ShapeError

if TYPE_CHECKING:
    from safegraph.frontends.onnx.call import Call

LIMIT = 1024  # elements: shapes and their like are small


@dataclass(frozen=True)
class Known:
    """An array whose elements are int, Size, float or bool, and its element type."""

    values: np.ndarray
    dtype: str

    @property
    def is_number(self) -> bool:
        """Are all elements numbers?"""
        return not any(isinstance(x, Size) for x in self.values.flat)

    def array(self) -> np.ndarray:
        """The numbers as an array."""
        return np.asarray(self.values.tolist(), to_numpy(self.dtype)).reshape(self.values.shape)


class Undecided(Exception):
    """The result depends on free sizes."""


def known(values: Any, dtype: str) -> Known:
    """From numbers and sizes."""
    if isinstance(values, np.ndarray) and values.dtype != object:
        values = values.astype(object)
    found = np.empty(np.shape(values), object)
    found[...] = values
    if is_float(dtype) and dtype != "f64":
        rounded = to_numpy(dtype).type
        # as few digits as tell the number: 0.1 of f32 is 0.1, not 0.10000000149011612
        flat = [x if isinstance(x, Size) else float(str(rounded(x))) for x in found.flat]
        found = _filled(flat, found.shape)
    return Known(found, dtype)


def _filled(flat: Sequence[Any], shape: tuple[int, ...]) -> np.ndarray:
    found = np.empty(len(flat), object)
    for i, x in enumerate(flat):
        found[i] = x
    return found.reshape(shape)


def vector(sizes: Sequence[Dim], dtype: str = "i64") -> Known:
    """A shape as an array."""
    return Known(_filled(list(sizes), (len(sizes),)), dtype)


def fold(call: Call) -> list[Known] | None:
    """The results of a node, where they are known; None where they are not."""
    if call.op == "Shape" and call.operands[0] is not None:
        start, end = call.attribute("start", 0), call.attribute("end", None)
        return [vector(call.operands[0].shape[start:end])]
    if call.op == "Size" and call.operands[0] is not None:
        return [known(dims.product(call.operands[0].shape), "i64")]
    rule = FOLDS.get(call.op)
    given = [call.known(i) for i in range(len(call.operands))]
    missing = [i for i, x in enumerate(given) if x is None and call.operands[i] is not None]
    if rule is None or missing or not given or given[0] is None or call.domain:
        return None
    try:
        found = rule(call, *given)
    except Undecided:
        return None
    results = [found] if isinstance(found, Known) else list(found)
    return results if all(r.values.size <= LIMIT for r in results) else None


# -- elementwise ----------------------------------------------------------------------------------


def _each(function: Callable[..., Any], dtype: str | None = None) -> Callable[..., Known]:
    def rule(call: Call, *xs: Known) -> Known:
        of = dtype or xs[-1].dtype
        found = np.frompyfunc(lambda *v: function(of, *v), len(xs), 1)(*(x.values for x in xs))
        return known(found, of)

    return rule


def _numbers(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that is only decided for numbers."""

    def checked(dtype: str, *xs: Any) -> Any:
        if any(isinstance(x, Size) for x in xs):
            raise Undecided
        return function(*xs)

    return checked


def _arithmetic(function: Callable[..., Any]) -> Callable[..., Any]:
    """Integers and sizes; of floating-point numbers, numbers only."""

    def checked(dtype: str, *xs: Any) -> Any:
        if not is_integer(dtype) and any(isinstance(x, Size) for x in xs):
            raise Undecided
        return function(*xs)

    return checked


def _divide(dtype: str, a: Any, b: Any) -> Any:
    if not is_integer(dtype):
        if isinstance(a, Size) or isinstance(b, Size) or b == 0:
            raise Undecided
        return a / b
    if isinstance(a, int) and isinstance(b, int):
        if b == 0:
            raise Undecided
        quotient = abs(a) // abs(b)  # ONNX divides integers towards zero
        return quotient if (a < 0) == (b < 0) else -quotient
    if not (dims.at_least(a, 0) and dims.at_least(b, 1)):
        exact = dims.divide(a, b)
        if exact is None:
            raise Undecided
        return exact
    return a // b


def _modulo(dtype: str, a: Any, b: Any) -> Any:
    if isinstance(a, Size) or isinstance(b, Size):
        if not (dims.at_least(a, 0) and dims.at_least(b, 1)):
            raise Undecided
    elif b == 0:
        raise Undecided
    return a % b


def _equal(dtype: str, a: Any, b: Any) -> bool:
    if not isinstance(a, Size) and not isinstance(b, Size):
        return bool(a == b)
    return _decided(dims.same(a, b))


def _not_less(a: Any, b: Any) -> bool:
    if not isinstance(a, Size) and not isinstance(b, Size):
        return bool(a >= b)
    return _decided(dims.at_least(a, b))


def _decided(truth: bool | None) -> bool:
    if truth is None:
        raise Undecided
    return truth


def _larger(dtype: str, a: Any, b: Any) -> Any:
    if isinstance(a, Size) or isinstance(b, Size):
        return dims.maximum(a, b)
    return max(a, b)


def _smaller(dtype: str, a: Any, b: Any) -> Any:
    return b if _not_less(a, b) else a


def _clip(call: Call, x: Known, *ends: Known | None) -> Known:
    low, high = (*ends, None, None)[:2]
    if low is None and high is None and call.version < 11:  # the ends were attributes
        raise Undecided
    x = x if low is None else _each(_larger)(call, x, low)
    return x if high is None else _each(_smaller)(call, x, high)


def _where(call: Call, c: Known, a: Known, b: Known) -> Known:
    found = np.frompyfunc(lambda c, a, b: a if c else b, 3, 1)(c.values, a.values, b.values)
    return known(found, a.dtype)


def _cast(call: Call, x: Known, *_: Known) -> Known:
    to = call.dtype("to")
    return known(np.frompyfunc(lambda v: _as(v, to), 1, 1)(x.values), to)


def _as(value: Any, dtype: str) -> Any:
    if isinstance(value, Size):
        if not (is_integer(dtype) or dtype in ("f32", "f64")):
            raise Undecided
        return value
    if dtype == "bool":
        return bool(value)
    return int(value) if is_integer(dtype) else float(value)


def _variadic(function: Callable[..., Any]) -> Callable[..., Known]:
    def rule(call: Call, first: Known, *rest: Known) -> Known:
        for x in rest:
            first = _each(function)(call, first, x)
        return first

    return rule


# -- movement -------------------------------------------------------------------------------------


def _concat(call: Call, *xs: Known) -> Known:
    return Known(np.concatenate([x.values for x in xs], call.attribute("axis", 0)), xs[0].dtype)


def _gather(call: Call, x: Known, indices: Known) -> Known:
    if not indices.is_number:
        raise Undecided
    found = np.take(x.values, indices.array().astype(np.int64), call.attribute("axis", 0))
    return known(found, x.dtype)


def _slice(call: Call, x: Known, *_: Known) -> Known:
    starts, ends, axes, steps = call.slices(x.values.ndim)
    if any(isinstance(v, Size) for v in (*starts, *ends)):
        raise Undecided
    index = [slice(None)] * x.values.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        # a stop of -1 (or less) with a negative step means "down to the first" only below -size
        stop = None if step < 0 and end < -x.values.shape[axis] else end
        index[axis] = slice(start, stop, step)
    return Known(x.values[tuple(index)], x.dtype)


def _squeeze(call: Call, x: Known, *_: Known) -> Known:
    axes = call.ints("axes", 1)
    return Known(np.squeeze(x.values, None if axes is None else tuple(map(int, axes))), x.dtype)


def _unsqueeze(call: Call, x: Known, *_: Known) -> Known:
    return Known(np.expand_dims(x.values, tuple(map(int, call.ints("axes", 1) or ()))), x.dtype)


def _reshape(call: Call, x: Known, *_: Known) -> Known:
    to = call.ints("shape", 1) or ()
    if any(isinstance(d, Size) for d in to):
        raise Undecided
    if not call.attribute("allowzero", 0):
        to = tuple(x.values.shape[i] if d == 0 else d for i, d in enumerate(to))
    try:
        return Known(x.values.reshape(tuple(map(int, to))), x.dtype)
    except ValueError:
        raise ShapeError(f"{x.values.size} elements are no tensor of shape {list(to)}") from None


def _expand(call: Call, x: Known, to: Known) -> Known:
    if not to.is_number:
        raise Undecided
    shape = np.broadcast_shapes(x.values.shape, tuple(to.values))
    return Known(np.broadcast_to(x.values, shape).copy(), x.dtype)


def _tile(call: Call, x: Known, counts: Known) -> Known:
    if not counts.is_number:
        raise Undecided
    return Known(np.tile(x.values, tuple(counts.values)), x.dtype)


def _transpose(call: Call, x: Known) -> Known:
    return Known(np.transpose(x.values, call.attribute("perm", None)), x.dtype)


def _constant_of_shape(call: Call, shape: Known) -> Known:
    if not shape.is_number or np.prod(shape.values, dtype=float) > LIMIT:
        raise Undecided
    fill = call.attribute("value", None)
    value, dtype = (0.0, "f32") if fill is None else (fill.numpy().item(), call.dtype_of(fill))
    if is_float(dtype):  # a tensor of the model, not a shape
        raise Undecided
    return known(np.full(tuple(shape.values), value), dtype)


def _range(call: Call, start: Known, limit: Known, delta: Known) -> Known:
    ends = [x.values.item() for x in (start, limit, delta)]
    if not all(isinstance(x, int) for x in ends) or ends[2] == 0 or len(range(*ends)) > LIMIT:
        raise Undecided
    return known(np.arange(*ends), start.dtype)


def _split(call: Call, x: Known, *_: Known) -> list[Known]:
    axis = call.attribute("axis", 0)
    parts = call.split_sizes(x.values.shape[axis])
    if any(isinstance(n, Size) for n in parts):
        raise Undecided
    stops = np.cumsum(np.asarray(parts, np.int64))[:-1]
    return [Known(part, x.dtype) for part in np.split(x.values, stops, axis)]


def _reduce(function: Callable[..., Any]) -> Callable[..., Known]:
    def rule(call: Call, x: Known, *_: Known) -> Known:
        axes = call.reduction_axes(x.values.ndim)
        if len(axes) != x.values.ndim:  # shapes are vectors: all of it is reduced
            raise Undecided
        if not x.values.size:
            raise Undecided
        total = x.values.flat[0]
        for item in list(x.values.flat)[1:]:
            total = function(x.dtype, total, item)
        keep = call.attribute("keepdims", 1)
        return known(np.full((1,) * (x.values.ndim if keep else 0), total, object), x.dtype)

    return rule


_add = _arithmetic(lambda a, b: a + b)
_multiply = _arithmetic(lambda a, b: a * b)

# fmt: off
FOLDS: dict[str, Callable[..., Any]] = {
    "Add":             _each(_add),
    "Sub":             _each(_arithmetic(lambda a, b: a - b)),
    "Mul":             _each(_multiply),
    "Div":             _each(_divide),
    "Mod":             _each(_modulo),
    "Neg":             _each(_arithmetic(lambda a: -a)),
    "Abs":             _each(_numbers(abs)),
    "Sqrt":            _each(_numbers(lambda a: sqrt(a) if a >= 0 else float("nan"))),
    "Pow":             lambda call, a, b: _each(_numbers(pow), a.dtype)(call, a, b),
    "Floor":           _each(lambda of, a: a if isinstance(a, Size) else float(np.floor(a))),
    "Ceil":            _each(lambda of, a: a if isinstance(a, Size) else float(np.ceil(a))),
    "Clip":            _clip,
    "Max":             _variadic(_larger),
    "Min":             _variadic(_smaller),
    "Equal":           _each(_equal, "bool"),
    "GreaterOrEqual":  _each(lambda of, a, b: _not_less(a, b), "bool"),
    "LessOrEqual":     _each(lambda of, a, b: _not_less(b, a), "bool"),
    "Less":            _each(lambda of, a, b: not _not_less(a, b), "bool"),
    "Greater":         _each(lambda of, a, b: not _not_less(b, a), "bool"),
    "And":             _each(lambda of, a, b: a and b, "bool"),
    "Or":              _each(lambda of, a, b: a or b, "bool"),
    "Not":             _each(lambda of, a: not a, "bool"),
    "Where":           _where,
    "Cast":            _cast,
    "Identity":        lambda call, x: x,
    "Concat":          _concat,
    "Gather":          _gather,
    "Slice":           _slice,
    "Squeeze":         _squeeze,
    "Unsqueeze":       _unsqueeze,
    "Reshape":         _reshape,
    "Expand":          _expand,
    "Tile":            _tile,
    "Transpose":       _transpose,
    "ConstantOfShape": _constant_of_shape,
    "Range":           _range,
    "Split":           _split,
    "ReduceProd":      _reduce(_multiply),
    "ReduceSum":       _reduce(_add),
    "ReduceMax":       _reduce(_larger),
    "ReduceMin":       _reduce(_smaller),
}
# fmt: on
