"""Interval analysis: between which numbers elements are, and whether any is infinite.

Laws that hold on a range (`exp(log x) = x` for x > 0) or for finite values ask for it.  Inputs and
parameters are taken as finite; NaN is not looked at: a law may replace NaN by a number, never a
number by NaN.  Bounds are those of real arithmetic: that finite floats may overflow is left aside,
as every law of grade "real" does.  Integers wrap around: what may not fit their type may be any of
its numbers.  Complex numbers have no order, so no bounds.

>>> from safegraph.value import tensor
>>> x = tensor("x", "f32[n]")
>>> range_of(x.tanh() * 6)
Range(low=-6.0, high=6.0, bottom=False, top=False)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from math import copysign, exp, expm1, inf, isfinite, isinf, isnan, log, sinh, sqrt, tanh
from typing import Any, TypeVar

import numpy as np

from safegraph.dims import KEPT, Dim, at_least, divide
from safegraph.dtypes import is_float, is_integer, largest_number, to_numpy
from safegraph.op import Op, TensorType
from safegraph.ops import (
    Binary,
    Cast,
    Fold,
    Interleave,
    Iota,
    Movement,
    Pad,
    Reduce,
    Repeat,
    Scalar,
    Select,
    Squeeze,
    Unary,
    Unfold,
    Unsqueeze,
)
from safegraph.value import Value, walk


@dataclass(frozen=True)
class Range:
    """All elements are in [low, high]; `bottom`, `top`: some may be -inf, inf."""

    low: float = -inf
    high: float = inf
    bottom: bool = False
    top: bool = False

    @property
    def finite(self) -> bool:
        """Is no element infinite?"""
        return not (self.bottom or self.top)

    def __or__(self, other: Range) -> Range:
        low, high = min(self.low, other.low), max(self.high, other.high)
        return Range(low, high, self.bottom or other.bottom, self.top or other.top)

    def __neg__(self) -> Range:
        return Range(-self.high, -self.low, self.top, self.bottom)

    def __contains__(self, number: float) -> bool:
        return self.low <= number <= self.high


NUMBERS = Range()
"""Any finite number."""
ANYTHING = Range(bottom=True, top=True)
_BOOL = _SHARE = Range(0.0, 1.0)


def exactly(value: float) -> Range:
    """The range of one number."""
    return ANYTHING if isnan(value) else Range(value, value, value == -inf, value == inf)


def range_of(value: Value, leaves: Mapping[str, Range] | None = None) -> Range:
    """The range of a value, where these leaves have these ranges and the others are finite."""
    found: dict[Value, Range] = {}
    for v in walk([value]):
        if v.op is None:
            found[v] = (leaves or {}).get(v.name, of_type(v.type))
        else:
            ranges = tuple(found[o] for o in v.operands)
            types = tuple(o.type for o in v.operands)
            kin = kinship(v.op, v.operands, lambda o: (o.op, o.operands))
            found[v] = of_op(v.op, v.type, ranges, types, kin and (kin[0], found[kin[1]]))
    return found[value]


def of_op(
    op: Op,
    result: TensorType,
    ranges: tuple[Range, ...],
    types: tuple[TensorType, ...],
    kin: tuple[str, Range] | None = None,
) -> Range:
    """The range of a result, for operands of these ranges and types, and their kinship."""
    rule = _rule(type(op))
    if rule is None:
        return _defined(op, ranges, types)
    dtype = result.dtype
    match kin:
        case ("square", inner):
            found = _square(inner)
        case ("share", inner) if inner.low >= 0 and is_float(dtype):  # sums of integers wrap
            found = _SHARE
        case ("pool", inner):
            found = inner
        case _:
            found = rule(op, ranges)
    if isinstance(op, Reduce) and op.kind == "sum":
        found = _sum_of(ranges[0], found, types[0].numel, result.numel)
    if isinstance(op, Pad | Interleave):
        found |= of_number(op.fill, dtype)
    if is_integer(dtype):
        return _whole(found, dtype, op == Binary("divide"))
    if is_float(dtype):
        whole = isinstance(op, Cast) and is_integer(types[0].dtype)
        return _stored(found, dtype, whole=whole)
    # complex numbers are neither above nor below others
    return Range(bottom=found.bottom, top=found.top) if dtype.startswith("c") else found


def _stored(r: Range, dtype: str, *, whole: bool) -> Range:
    """What a floating-point type makes of known bounds: it may have no room for them.

    `whole`: those of integers are mostly the limits of their type; they are taken to fit.
    """
    low, high = (_room(x, dtype) for x in (r.low, r.high))
    if (low, high) == (r.low, r.high):
        return r
    if whole:
        return Range(low, high, r.bottom, r.top)
    return Range(low, high, r.bottom or low == -inf != r.low, r.top or high == inf != r.high)


def _room(x: float, dtype: str) -> float:
    """A bound, infinite where this type has no number near it."""
    if isinf(x) or abs(x) <= largest_number(dtype):
        return x
    with np.errstate(over="ignore"):
        return x if isfinite(to_numpy(dtype).type(x)) else copysign(inf, x)


def _whole(r: Range, dtype: str, divided: bool) -> Range:
    """What an integer type makes of numbers in a range."""
    if divided:  # towards 0
        r = Range(_trunc(r.low), _trunc(r.high), r.bottom, r.top)
    limits = _limits(dtype)
    return r if r.low in limits and r.high in limits else limits


@cache
def _limits(dtype: str) -> Range:
    limits = np.iinfo(to_numpy(dtype))
    return Range(float(limits.min), float(limits.max))


T = TypeVar("T")


def kinship(
    op: Op, operands: Sequence[T], parts: Callable[[T], tuple[Op | None, Sequence[T]]]
) -> tuple[str, T] | None:
    """What the operands have to do with each other, where that narrows the range, and with whom.

    "square": both factors are this value; "share": it is divided by a sum that it is part of, as in
    a softmax; "pool": the maximum of windows of it, none of which is all border.  `parts` gives the
    op and the operands of an operand.
    """
    if op is Binary("multiply"):
        return ("square", operands[0]) if operands[0] == operands[1] else None
    if op is Binary("divide"):
        views: list[Op] = []
        inner, below = parts(operands[1])
        while isinstance(inner, Repeat | Unsqueeze | Squeeze):
            views.append(inner)
            inner, below = parts(below[0])
        is_sum = isinstance(inner, Reduce) and inner.kind == "sum"
        own = is_sum and below[0] == operands[0] and _axes_return(views)
        return ("share", operands[0]) if own else None
    if isinstance(op, Reduce) and op.kind == "max":
        unfolds: list[Unfold] = []
        inner, below = parts(operands[0])
        while isinstance(inner, Unfold):
            unfolds.append(inner)
            inner, below = parts(below[0])
        if isinstance(inner, Pad) and inner.fill == -inf and _reach_inside(inner, unfolds, op):
            return "pool", below[0]
    return None


def _axes_return(views: Sequence[Op]) -> bool:
    """Is every axis where it was, after these views (the last comes first)?"""
    added: list[tuple[int, ...]] = []
    for view in views:
        if isinstance(view, Unsqueeze):
            added.append(view.axes)
        elif isinstance(view, Squeeze) and (not added or added.pop() != view.axes):
            return False
    return not added


def _reach_inside(pad: Pad, unfolds: Sequence[Unfold], op: Reduce) -> bool:
    """Does every maximum over windows of what is padded reach over an element that is not?"""
    rank = len(pad.before) + len(unfolds)
    axes: list[int | None] = list(range(len(pad.before)))  # of the padded; None for a window
    windows: dict[int, Unfold] = {}
    for unfold in reversed(unfolds):
        source = axes[unfold.axis]
        if source is None or source in windows:
            return False
        windows[source] = unfold
        place = unfold.axis % len(axes)
        axes.insert(place + 1, None)
    reduced = {axis % rank for axis in op.axes}
    for axis, margins in enumerate(zip(pad.before, pad.after, strict=True)):
        if margins == (0, 0):
            continue
        over = windows.get(axis)
        if over is None or over.dilation != 1 or axes.index(axis) + 1 not in reduced:
            return False
        window: Any = over.window
        if not all(isinstance(n, int) and isinstance(window, int) and n < window for n in margins):
            return False
    return True


@lru_cache(KEPT)
def _defined(op: Op, ranges: tuple[Range, ...], types: tuple[TensorType, ...]) -> Range:
    """A derived op's range is that of its definition."""
    trace = getattr(op, "trace", None)
    if trace is None:  # an opaque op
        return ANYTHING
    leaves, result = trace(*types)
    return range_of(result, {v.name: r for v, r in zip(leaves, ranges, strict=True)})


def of_number(value: float, dtype: str) -> Range:
    """The range of one number, as an element type has it."""
    if dtype.startswith("c"):
        return exactly(float(value))
    with np.errstate(all="ignore"):  # 1e6 is inf in f16
        return exactly(float(np.asarray(value).astype(to_numpy(dtype))))


def of_array(array: np.ndarray) -> Range | None:
    """Between which numbers the elements of an array are; None where that says nothing of it."""
    if not array.size or array.dtype.kind in "bc":
        return None
    low, high = float(array.min()), float(array.max())
    return ANYTHING if isnan(low) else Range(low, high, low == -inf, high == inf)


def of_type(type_: TensorType) -> Range:
    """The range of a leaf of which nothing is known: numbers are taken as finite."""
    if type_.dtype == "bool":
        return _BOOL
    return _limits(type_.dtype) if is_integer(type_.dtype) else NUMBERS


# -- rules by class --------------------------------------------------------------------------------

Rule = Callable[[Any, tuple[Range, ...]], Range]


@cache
def _rule(cls: type[Op]) -> Rule | None:
    for known, rule in _RULES.items():
        if issubclass(cls, known):
            return rule
    return _TOTAL.get(cls.name)


def _scalar(op: Scalar, ranges: tuple[Range, ...]) -> Range:
    if not isinstance(op.value, int | float):  # a free size
        return Range(1.0 if at_least(op.value, 1) else -inf, _most(op.of))
    return of_number(op.value, op.of)


def _iota(op: Iota, ranges: tuple[Range, ...]) -> Range:
    last = op.size - 1
    if isinstance(last, int):
        return Range(0.0, float(max(last, 0)))
    return Range(0.0, _most(op.of))


def _most(dtype: str) -> float:
    """Of a free size as a number of this type."""
    return _limits(dtype).high if is_integer(dtype) else inf


def _movement(op: Movement, ranges: tuple[Range, ...]) -> Range:
    # overlapping windows are added
    return _signed(ranges[0]) if isinstance(op, Fold) else ranges[0]


def _signed(r: Range) -> Range:
    """A sum of any number of such values: the sign is left."""
    return Range(0.0 if r.low >= 0 else -inf, 0.0 if r.high <= 0 else inf, r.bottom, r.top)


def _reduce(op: Reduce, ranges: tuple[Range, ...]) -> Range:
    (r,) = ranges
    if op.kind in ("max", "min", "mean"):
        return r
    if op.kind == "sum":
        return _signed(r)
    return Range(0.0, inf, top=r.top) if r.low >= 0 else _if_all_finite(op, ranges)


def _sum_of(each: Range, signed: Range, elements: Dim, sums: Dim) -> Range:
    """A sum of as many numbers as there are elements for each sum, where that is known."""
    count = divide(elements, sums)
    if not isinstance(count, int) or not each.finite:
        return signed
    ends = _times(count, each.low), _times(count, each.high)
    return Range(*ends, signed.bottom, signed.top)


def _cast(op: Cast, ranges: tuple[Range, ...]) -> Range:
    if op.to == "bool":
        return _BOOL
    return ranges[0] if is_float(op.to) else Range(_down(ranges[0].low), _up(ranges[0].high))


def _down(x: float) -> float:
    return x if isinf(x) else float(int(x) - (x < int(x)))


def _up(x: float) -> float:
    return -_down(-x)


def _trunc(x: float) -> float:
    return x if isinf(x) else float(int(x))


def _select(op: Select, ranges: tuple[Range, ...]) -> Range:
    return ranges[1] | ranges[2]


def _unary(op: Unary, ranges: tuple[Range, ...]) -> Range:
    rule = _UNARY.get(op.kind)
    return ANYTHING if rule is None else rule(ranges[0])


def _increasing(f: Callable[[float], float], low: float = -inf, high: float = inf) -> Any:
    """An increasing function; its limits at -inf and inf are the values there."""

    def rule(r: Range) -> Range:
        start, end = (f(x) if isfinite(x) else (low if x < 0 else high) for x in (r.low, r.high))
        # an infinite element gives the limit, which may be finite
        return Range(start, end, r.bottom and isinf(low), r.top and isinf(high))

    return rule


def _bounded(low: float, high: float) -> Callable[[Range], Range]:
    return lambda r: Range(low, high)


def _growing(f: Callable[[float], float]) -> Callable[[float], float]:
    """A function that grows beyond all floats: infinite there."""

    def bound(x: float) -> float:
        try:
            return f(x)
        except OverflowError:
            return copysign(inf, x)

    return bound


def _inverse(r: Range) -> Range:
    if r.low <= 0 <= r.high:
        return ANYTHING
    ends = sorted(0.0 if isinf(x) else 1 / x for x in (r.low, r.high))
    return Range(ends[0], ends[1])


def _log(r: Range) -> Range:
    low = log(r.low) if 0 < r.low < inf else -inf
    high = log(r.high) if 0 < r.high < inf else inf
    return Range(low, high, r.low <= 0, r.top)


_UNARY: dict[str, Callable[[Range], Range]] = {
    "neg": lambda r: -r,
    "inverse": _inverse,
    "exp": _increasing(_growing(exp), 0.0, inf),
    "log": _log,
    "sin": _bounded(-1, 1),
    "cos": _bounded(-1, 1),
    "tanh": _increasing(tanh, -1.0, 1.0),
    "arctan": _bounded(-2, 2),
    "gaussian": _bounded(0, 1),
    "sign": _bounded(-1, 1),
    "floor": _increasing(_down),
    "sinh": _increasing(_growing(sinh)),
    "arcsinh": lambda r: Range(-inf, inf, r.bottom, r.top),
    "cosh": lambda r: Range(1, inf, top=not r.finite),
    "is_nan": _bounded(0, 1),
}


def _binary(op: Binary, ranges: tuple[Range, ...]) -> Range:
    a, b = ranges
    match op.kind:
        case "add":
            low, high = a.low + b.low, a.high + b.high  # NaN where -inf meets inf: no bound
            bottom, top = a.bottom or b.bottom, a.top or b.top
            return Range(-inf if isnan(low) else low, inf if isnan(high) else high, bottom, top)
        case "subtract":
            return _binary(Binary("add"), (a, -b))
        case "multiply":
            return _product(a, b)
        case "divide":
            return _product(a, _inverse(b))
        case "maximum":
            bottom = a.bottom and b.bottom
            return Range(max(a.low, b.low), max(a.high, b.high), bottom, a.top or b.top)
        case "minimum":
            return -_binary(Binary("maximum"), (-a, -b))
        case "less" | "equal":
            return _BOOL
        case "pow":
            return _power(a, b)
        case "root":
            return _root(a, b)
    return ANYTHING


def _times(x: float, y: float) -> float:
    return 0.0 if x == 0 or y == 0 else x * y  # an end of 0 is reached by finite factors


def _product(a: Range, b: Range) -> Range:
    ends = [_times(x, y) for x in (a.low, a.high) for y in (b.low, b.high)]
    infinite = not (a.finite and b.finite)
    return Range(min(ends), max(ends), infinite and min(ends) < 0, infinite and max(ends) > 0)


def _square(a: Range) -> Range:
    ends = sorted((_times(a.low, a.low), _times(a.high, a.high)))
    return Range(0.0 if 0 in a else ends[0], ends[1], top=not a.finite)


def _power(a: Range, b: Range) -> Range:
    if b.low != b.high or not isfinite(b.low):
        return Range(0.0, inf, top=True) if a.low >= 0 else ANYTHING
    n = b.low
    if n == 0.5:
        return _root(a, Range(2, 2))
    if n > 0 and (a.low >= 0 or n % 2 == 0):
        ends = sorted(inf if isinf(x) else _overflowing(abs(x), n) for x in (a.low, a.high))
        return Range(0.0 if 0 in a else ends[0], ends[1], top=not a.finite)
    if a.low > 0:
        return Range(0.0, inf)
    return ANYTHING


def _overflowing(x: float, n: float) -> float:
    try:
        return float(x**n)
    except OverflowError:
        return inf


def _root(a: Range, b: Range) -> Range:
    if (b.low, b.high) == (2, 2) and a.low >= 0:
        return Range(sqrt(a.low), sqrt(a.high), top=a.top)
    return ANYTHING


_RULES: dict[type[Op], Rule] = {
    Scalar: _scalar,
    Iota: _iota,
    Movement: _movement,
    Reduce: _reduce,
    Cast: _cast,
    Select: _select,
    Unary: _unary,
    Binary: _binary,
}


# -- ops whose definitions hide it -----------------------------------------------------------------


def _softplus(op: Any, ranges: tuple[Range, ...]) -> Range:
    return Range(0.0, inf, top=ranges[0].top)


def _first(op: Any, ranges: tuple[Range, ...]) -> Range:
    return ranges[0]


def _if_all_finite(op: Any, ranges: tuple[Range, ...]) -> Range:
    return NUMBERS if all(r.finite for r in ranges) else ANYTHING


# Divided by the root of the variance of what is divided: where that is 0, 0 / 0 is NaN.
_NORMS = ("layer_norm", "rms_norm", "instance_norm", "group_norm")


def _norm(op: Any, ranges: tuple[Range, ...]) -> Range:
    return _if_all_finite(op, ranges) if op.eps >= 0 else ANYTHING


def _batch_norm(op: Any, ranges: tuple[Range, ...]) -> Range:
    """Divided by the root of a variance that is given, and as such at least 0."""
    positive = op.eps > 0 or (op.eps == 0 and ranges[-1].low > 0)
    return _if_all_finite(op, ranges) if positive else ANYTHING


def _avg_pool(op: Any, ranges: tuple[Range, ...]) -> Range:
    """Means of elements, and of the zeros around them where those count."""
    counted = op.count_pad and any((*op.before, *op.after))
    return ranges[0] | Range(0.0, 0.0) if counted else ranges[0]


_TOTAL: dict[str, Rule] = {
    # a quotient of an element of a sum by that sum; NaN only where a whole row is -inf
    "softmax": lambda op, ranges: Range(0.0, 1.0),
    "sigmoid": lambda op, ranges: Range(0.0, 1.0),
    "erf": lambda op, ranges: Range(-1.0, 1.0),
    "hard_sigmoid": lambda op, ranges: Range(0.0, 1.0),
    "softplus": _softplus,
    "expm1": lambda op, ranges: _increasing(_growing(expm1), -1.0)(ranges[0]),
    "reshape": _first,
    "expand": _first,
    "tile": _first,
    "flip": _first,
    "index": _first,
    "gather": _first,
    "gather_elements": _first,
    "gather_nd": _first,
    # their definitions divide by counts, of which it cannot be seen that they are not 0
    "adaptive_avg_pool": _first,
    "avg_pool": _avg_pool,
    **dict.fromkeys(_NORMS, _norm),
    "batch_norm": _batch_norm,
    # states are bounded by tanh; cells and the rest stay finite, and definitions are long
    **dict.fromkeys(("lstm", "gru", "rnn"), _if_all_finite),
    # weights in [0, 1] of the values
    "attention": lambda op, ranges: _if_all_finite(op, ranges[2:3]),
}
