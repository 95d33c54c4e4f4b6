"""ATen operations on single elements."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from safegraph import value as v
from safegraph.derived.pointwise import (
    Abs,
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
from safegraph.dtypes import is_float
from safegraph.errors import ShapeError, UnsupportedError
from safegraph.frontends.torchscript.rows import (
    as_asked,
    as_type,
    binary,
    real,
    truth,
)
from safegraph.frontends.torchscript.types import promoted, short_name
from safegraph.op import Op
from safegraph.value import Value, apply


def _binary(kind: str) -> Callable[..., Any]:
    return lambda x, y: binary(kind, x, y)


def _logical(kind: str) -> Callable[..., Any]:
    return lambda x, y: binary(kind, truth(x), truth(y))


def _bitwise(kind: str) -> Callable[..., Any]:
    return lambda x, y: binary(kind, x, y) if promoted(x, y) == "bool" else NotImplemented


def _real(op: Op) -> Callable[[Value], Value]:
    return lambda x: apply(op, real(x))


def _any(op: Op) -> Callable[[Value], Value]:
    return lambda x: apply(op, x)


def _unary(kind: str) -> Callable[[Value], Value]:
    return lambda x: v.unary(kind, real(x))


def _keeps_integers(op: Op) -> Callable[[Value], Value]:
    return lambda x: apply(op, x) if is_float(x.dtype) else x


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
    return binary(
        "divide", x, y, dtype if is_float(dtype) else short_name(torch.get_default_dtype())
    )


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
        return apply(
            Clip(
                -math.inf if low is None else float(low), math.inf if high is None else float(high)
            ),
            x,
        )
    x = x if low is None else binary("maximum", x, low)
    return x if high is None else binary("minimum", x, high)


def _elu(x: Value, alpha: float, scale: float, input_scale: float) -> Any:
    if input_scale != 1:
        return NotImplemented
    return apply(Elu(float(alpha)) if scale == 1 else Selu(float(alpha), float(scale)), x)


def _prelu(x: Value, slope: Value) -> Value:
    wide = (
        v.reshape(slope, (slope.type.numel, *[1] * (x.rank - 2)))
        if slope.rank == 1 and x.rank > 1
        else slope
    )
    return apply(Prelu(), x, wide)


def _where(condition: Value, x: Any = None, y: Any = None) -> Any:
    if x is None:
        return NotImplemented
    dtype = promoted(x, y)
    return apply(Where(), truth(condition), as_type(x, dtype), as_type(y, dtype))


def _masked_fill(x: Value, mask: Value, value: Any) -> Value:
    return apply(Where(), mask, as_type(value, x.dtype), x)


def _dropout(x: Value, p: float, train: bool) -> Value:
    if train and p:
        raise UnsupportedError(
            "dropout draws random numbers: call .eval() on the model before it is traced"
        )
    return x


def _to(x: Value, *, dtype: int | None = None, other: Value | None = None) -> Value:
    if other is not None:
        return v.cast(x, other.dtype)
    return as_asked(x, dtype)


def _addcmul(x: Value, a: Value, b: Value, *, value: float = 1) -> Value:
    return _scaled("add", x, binary("multiply", a, b), value)


def _lerp(x: Value, y: Value, weight: Any) -> Value:
    return binary("add", x, binary("multiply", weight, binary("subtract", y, x)))


def _softplus(x: Value, beta: float = 1, threshold: float = 20) -> Value:
    return apply(Softplus(float(beta), float(threshold)), x)


def _identity(x: Value) -> Value:
    return x


# fmt: off
ROWS: dict[str, Callable[..., Any]] = {
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
    "logical_not":      lambda x: apply(Not(), truth(x)),
    "__and__":          _bitwise("and"),
    "__or__":           _bitwise("or"),
    "__xor__":          _bitwise("xor"),
    "bitwise_and":      _bitwise("and"),
    "bitwise_or":       _bitwise("or"),
    "bitwise_xor":      _bitwise("xor"),
    "bitwise_not":      lambda x: apply(Not(), x) if x.dtype == "bool" else NotImplemented,
    "addcmul":          _addcmul,
    "addcdiv":          lambda x, a, b, *, value=1: _scaled("add", x, _divide(a, b), value),
    "lerp":             _lerp,
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
    "softplus":         _softplus,
    "log_sigmoid":      lambda x: -apply(Softplus(1.0, math.inf), -x),
    "threshold":        lambda x, at, value: _where(binary("greater", x, at), x, value),
    "prelu":            _prelu,
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
}
# fmt: on
