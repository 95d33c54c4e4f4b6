"""ONNX ops on single elements, and reductions, as terms: one entry an op."""

from __future__ import annotations

from math import inf
from typing import Any

from safegraph import value as v
from safegraph.derived.index import ArgMax, CumSum, Flip
from safegraph.derived.pointwise import (
    Abs,
    Ceil,
    Clip,
    Elu,
    Erf,
    Gelu,
    HardSigmoid,
    HardSwish,
    IsInf,
    LeakyRelu,
    Mish,
    Not,
    Prelu,
    Relu,
    Round,
    Selu,
    Sigmoid,
    Silu,
    Softplus,
    Softsign,
    Sqrt,
    Where,
)
from safegraph.dtypes import is_float
from safegraph.frontends.onnx.call import Call, Unsayable
from safegraph.frontends.onnx.entries import (
    Row,
    binary,
    plain,
    pointwise,
    reduction,
    scalar,
    square,
    unary,
    variadic,
)
from safegraph.value import Value, apply

BY_CHANNEL = "by_channel"
"""Marks a PRelu from before opset 7, whose slope of one axis has a number for each channel."""


def _pow(n: Call, x: Value, y: Value) -> Value:
    if y.dtype == x.dtype:
        return pointwise("pow", x, y)
    if is_float(x.dtype) or not is_float(y.dtype):
        return pointwise("pow", x, v.cast(y, x.dtype))
    return v.cast(pointwise("pow", v.cast(x, y.dtype), y), x.dtype)


def _clip(n: Call, x: Value, low: Value | None = None, high: Value | None = None) -> Value:
    if n.version < 11:
        return apply(Clip(float(n.attribute("min", -inf)), float(n.attribute("max", inf))), x)
    try:
        a, b = n.number(1), n.number(2)
    except Unsayable:
        x = x if low is None else pointwise("maximum", x, low)
        return x if high is None else pointwise("minimum", x, high)
    if a is not None and b is not None and a > b:
        raise Unsayable
    return apply(Clip(-inf if a is None else float(a), inf if b is None else float(b)), x)


def _mod(n: Call, x: Value, y: Value) -> Value:
    return pointwise("fmod" if n.attribute("fmod", 0) else "mod", x, y)


def _is_inf(n: Call, x: Value) -> Value:
    signs = n.attribute("detect_negative", 1), n.attribute("detect_positive", 1)
    if signs == (1, 1):
        return apply(IsInf(), x)
    if signs == (0, 0):
        raise Unsayable
    return pointwise("equal", x, scalar(x, inf if signs[1] else -inf))


def _mean(n: Call, *xs: Value) -> Value:
    total = variadic("add")(n, *xs)
    assert isinstance(total, Value)
    return total if len(xs) == 1 else pointwise("divide", total, scalar(total, len(xs)))


def _cast(n: Call, x: Value) -> Value:
    return v.cast(x, n.dtype("to"))


def _selu(n: Call, x: Value) -> Value:
    return apply(Selu(n.attribute("alpha", 1.6732632), n.attribute("gamma", 1.050701)), x)


def _hard_sigmoid(n: Call, x: Value) -> Value:
    return apply(HardSigmoid(n.attribute("alpha", 0.2), n.attribute("beta", 0.5)), x)


def _celu(n: Call, x: Value) -> Value:
    alpha = n.attribute("alpha", 1.0)
    scaled = pointwise("divide", x, scalar(x, alpha))
    negative = apply(Elu(1.0), apply(Clip(-inf, 0.0), scaled))
    return pointwise("add", apply(Relu(), x), pointwise("multiply", negative, scalar(x, alpha)))


def _thresholded(n: Call, x: Value) -> Value:
    alpha = scalar(x, n.attribute("alpha", 1.0))
    return apply(Where(), pointwise("less", alpha, x), x, scalar(x, 0))


def _swish(n: Call, x: Value) -> Value:
    alpha = n.attribute("alpha", 1.0)
    if alpha == 1:
        return apply(Silu(), x)
    return pointwise("multiply", x, apply(Sigmoid(), pointwise("multiply", x, scalar(x, alpha))))


def _dropout(n: Call, x: Value, *_: Any) -> tuple[Value]:
    if n.given(2) and n.number(2):
        raise Unsayable
    return (x,)


# -- reductions -----------------------------------------------------------------------------------


def _log_sum_exp(n: Call, x: Value, *_: Any) -> Value:
    axes = n.reduction_axes(x.rank)
    if any(x.shape[a] == 0 for a in axes):
        raise Unsayable
    top = v.reduce(x, axes, "max")
    # an infinite maximum is not subtracted: inf - inf is no number
    top = v.select(apply(IsInf(), top), v.full(0, top.shape, x.dtype), top)
    powers = v.unary("exp", x - v.expand(top, x.shape))
    total = v.reduce(powers, axes, "sum", as_written=True)
    found = v.unary("log", total) + top
    return found if n.attribute("keepdims", 1) else v.squeeze(found, axes)


def _cum_sum(n: Call, x: Value, *_: Any) -> Value:
    axis = int(n.number(1) or 0)
    return apply(
        CumSum(axis, bool(n.attribute("exclusive", 0)), bool(n.attribute("reverse", 0))), x
    )


def _arg_max(smallest: bool) -> Row:
    def row(n: Call, x: Value) -> Value:
        axis, keep = n.attribute("axis", 0), bool(n.attribute("keepdims", 1))
        if not n.attribute("select_last_index", 0):
            return apply(ArgMax(axis, keep, smallest), x)
        at = apply(ArgMax(axis, keep, smallest), apply(Flip((axis,)), x))
        return pointwise("subtract", scalar(at, x.shape[axis] - 1), at)

    return row


def _sqrt_of(row: Row) -> Row:
    return lambda n, x, *rest: apply(Sqrt(), row(n, x, *rest))  # type: ignore[arg-type]


def _log_of(row: Row) -> Row:
    return lambda n, x, *rest: v.unary("log", row(n, x, *rest))  # type: ignore[arg-type]


def _shrink(n: Call, x: Value) -> Value:
    bias, limit = scalar(x, n.attribute("bias", 0.0)), n.attribute("lambd", 0.5)
    below = apply(Where(), pointwise("less", x, scalar(x, -limit)), x + bias, scalar(x, 0))
    return apply(Where(), pointwise("less", scalar(x, limit), x), x - bias, below)


def _prelu(n: Call, x: Value, slope: Value) -> Value:
    if n.attribute(BY_CHANNEL, 0) and slope.rank == 1 and slope.shape != (1,):
        slope = v.unsqueeze(slope, range(1, x.rank - 1))
    return apply(Prelu(), x, slope)


# fmt: off
ROWS: dict[str, Row] = {
    # functions of one number
    "Neg":        unary("neg"),      "Reciprocal": unary("inverse"),  "Sign":  unary("sign"),
    "Exp":        unary("exp"),      "Log":        unary("log"),      "Floor": unary("floor"),
    "Sin":        unary("sin"),      "Asin":       unary("arcsin"),   "IsNaN": unary("is_nan"),
    "Cos":        unary("cos"),      "Acos":       unary("arccos"),
    "Tan":        unary("tan"),      "Atan":       unary("arctan"),
    "Sinh":       unary("sinh"),     "Asinh":      unary("arcsinh"),
    "Cosh":       unary("cosh"),     "Acosh":      unary("arccosh"),
    "Tanh":       unary("tanh"),     "Atanh":      unary("arctanh"),
    "Relu":       plain(Relu()),     "Sigmoid":    plain(Sigmoid()),  "Softsign": plain(Softsign()),
    "Sqrt":       plain(Sqrt()),     "Abs":        plain(Abs()),      "Erf":       plain(Erf()),
    "Ceil":       plain(Ceil()),     "Round":      plain(Round()),    "Not":       plain(Not()),
    "HardSwish":  plain(HardSwish()),
    "Mish":       plain(Mish()),
    "Softplus":   plain(Softplus(1.0, inf)),
    "LeakyRelu":  lambda n, x: apply(LeakyRelu(float(n.attribute("alpha", 0.01))), x),
    "Elu":        lambda n, x: apply(Elu(float(n.attribute("alpha", 1.0))), x),
    "Selu":       _selu,
    "HardSigmoid": _hard_sigmoid,
    "Gelu":       lambda n, x: apply(Gelu(n.attribute("approximate", "none")), x),
    "PRelu":      _prelu,
    "Celu":       _celu,
    "ThresholdedRelu": _thresholded,
    "Shrink":     _shrink,
    "Swish":      _swish,
    "Clip":       _clip,
    "IsInf":      _is_inf,
    "Cast":       _cast,
    "CastLike":   lambda n, x, like: v.cast(x, like.dtype),
    "Identity":   lambda n, x: x,
    "Dropout":    _dropout,
    # of two and more
    "Add":        binary("add"),       "Sub":            binary("subtract"),
    "Mul":        binary("multiply"),  "Div":            binary("divide"),
    "Less":       binary("less"),      "LessOrEqual":    binary("less_equal"),
    "Greater":    binary("greater"),   "GreaterOrEqual": binary("greater_equal"),
    "Equal":      binary("equal"),     "And":            binary("and"),
    "Or":         binary("or"),        "Xor":            binary("xor"),
    "Pow":        _pow,                "Mod":            _mod,
    "Max":        variadic("maximum"), "Min":            variadic("minimum"),
    "Sum":        variadic("add"),     "Mean":           _mean,
    "Where":      plain(Where()),
    # reductions
    "ReduceSum":  reduction("sum"),    "ReduceMean":     reduction("mean"),
    "ReduceMax":  reduction("max"),    "ReduceMin":      reduction("min"),
    "ReduceProd": reduction("prod"),
    "ReduceL1":   reduction("sum", lambda x: apply(Abs(), x)),
    "ReduceL2":   _sqrt_of(reduction("sum", square)),
    "ReduceSumSquare": reduction("sum", square),
    "ReduceLogSum": _log_of(reduction("sum")),
    "ReduceLogSumExp": _log_sum_exp,
    "GlobalAveragePool": lambda n, x: v.reduce(x, range(2, x.rank), "mean"),
    "GlobalMaxPool":     lambda n, x: v.reduce(x, range(2, x.rank), "max"),
    "ArgMax":     _arg_max(False),     "ArgMin":         _arg_max(True),
    "CumSum":     _cum_sum,
}
# fmt: on
