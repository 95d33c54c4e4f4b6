"""Ops on single elements, and reductions, as ONNX nodes: one entry an op class."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, sqrt
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from safegraph.derived.pointwise import (
    Abs,
    Broadcast,
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
    Rsqrt,
    Selu,
    Sigmoid,
    Silu,
    Softplus,
    Softsign,
    Sqrt,
    Where,
)
from safegraph.dtypes import is_float, is_integer
from safegraph.op import Op
from safegraph.ops import (
    Binary,
    Cast,
    Reduce,
    Scalar,
    Select,
    Squeeze,
    Unary,
)

if TYPE_CHECKING:
    from safegraph.frontends.onnx.writer import Slot, Writer
from safegraph.frontends.onnx.nodes import plain, vector

# fmt: off
UNARY = {
    "neg": "Neg", "inverse": "Reciprocal", "exp": "Exp", "log": "Log", "sign": "Sign",
    "sin": "Sin", "cos": "Cos", "tan": "Tan", "arcsin": "Asin", "arccos": "Acos", "arctan": "Atan",
    "sinh": "Sinh", "cosh": "Cosh", "tanh": "Tanh",
    "arcsinh": "Asinh", "arccosh": "Acosh", "arctanh": "Atanh",
    "floor": "Floor", "is_nan": "IsNaN",
}
BINARY = {
    "add": "Add", "subtract": "Sub", "multiply": "Mul", "divide": "Div", "pow": "Pow",
    "maximum": "Max", "minimum": "Min", "equal": "Equal", "less": "Less", "greater": "Greater",
    "less_equal": "LessOrEqual", "greater_equal": "GreaterOrEqual",
}
LOGICAL = {
    "maximum": "Or", "add": "Or", "or": "Or", "minimum": "And", "multiply": "And", "and": "And",
    "xor": "Xor", "equal": "Equal",
}
REDUCTIONS = {
    "sum": "ReduceSum", "mean": "ReduceMean", "prod": "ReduceProd", "max": "ReduceMax",
    "min": "ReduceMin",
}
# fmt: on


def _unary(w: Writer, slot: Slot, op: Unary, x: Slot) -> ir.Value | None:
    dtype = x.type.dtype
    if op.kind == "gaussian":  # (1 + erf(x / sqrt 2)) / 2
        inner = w("Erf", w("Mul", x, w.number(sqrt(0.5), dtype)))
        return w("Mul", w("Add", inner, w.number(1, dtype)), w.number(0.5, dtype))
    if op.kind == "floor" and is_integer(dtype):
        return w.value(x)
    if op.kind == "is_nan" and is_integer(dtype):
        return w("Not", w("Equal", x, x))
    if op.kind == "neg" and dtype.startswith("u"):
        return w("Sub", w.number(0, dtype), x)
    return w(UNARY[op.kind], x) if op.kind in UNARY else None


def _binary(w: Writer, slot: Slot, op: Binary | Broadcast, x: Slot, y: Slot) -> ir.Value | None:
    a, b = w.broadcast(slot)
    dtype = x.type.dtype
    if op.kind == "not_equal":
        return w("Not", w("Equal", a, b))
    if dtype == "bool":
        if op.kind == "less":
            return w("And", w("Not", a), b)
        return w(LOGICAL[op.kind], a, b) if op.kind in LOGICAL else None
    if op.kind == "root":
        if isinstance(b.op, Scalar) and b.op.value == 2:
            return w("Sqrt", a)
        return w("Pow", a, w("Reciprocal", b))
    if op.kind == "fmod":
        return w("Mod", a, b, fmod=1)
    if op.kind == "mod":
        return w("Mod", a, b) if is_integer(dtype) else None
    return w(BINARY[op.kind], a, b) if op.kind in BINARY else None


def _select(w: Writer, slot: Slot, op: Op, condition: Slot, x: Slot, y: Slot) -> ir.Value | None:
    return w("Where", *w.broadcast(slot)) if condition.type.dtype == "bool" else None


def _clip(w: Writer, slot: Slot, op: Clip, x: Slot) -> ir.Value:
    dtype = x.type.dtype
    low, high = (None if abs(b) == inf else w.number(b, dtype) for b in (op.low, op.high))
    return (
        w("Clip", x, low, high)
        if high is not None
        else w("Clip", x, low)
        if low is not None
        else w.value(x)
    )


def _softplus(w: Writer, slot: Slot, op: Softplus, x: Slot) -> ir.Value | None:
    exact = op.threshold == inf or (op.threshold >= 20 and x.type.dtype in ("f32", "f16", "bf16"))
    if not exact or not is_float(x.type.dtype):
        return None
    if op.beta == 1:
        return w("Softplus", x)
    beta = w.number(op.beta, x.type.dtype)
    return w("Div", w("Softplus", w("Mul", x, beta)), beta)


def _gelu(w: Writer, slot: Slot, op: Gelu, x: Slot) -> ir.Value | None:
    return (
        w("Gelu", x, approximate=op.approximate)
        if w.opset >= 20 and is_float(x.type.dtype) and op.approximate in ("none", "tanh")
        else None
    )


def _not(w: Writer, slot: Slot, op: Not, x: Slot) -> ir.Value | None:
    return w("Not", x) if x.type.dtype == "bool" else None


# -- reductions -----------------------------------------------------------------------------------


def _reduce(w: Writer, slot: Slot, op: Reduce, x: Slot, keep: bool = True) -> ir.Value:
    rank, dtype = x.type.rank, x.type.dtype
    space = tuple(range(2, rank))
    if keep and rank > 2 and op.axes == space and dtype == "f32" and op.kind in ("mean", "max"):
        return w("GlobalAveragePool" if op.kind == "mean" else "GlobalMaxPool", x)
    # runtimes reduce these types only: any and all are maximum and minimum of 0 and 1
    kind = {"any": "max", "all": "min"}.get(op.kind, op.kind)
    if dtype == "bool" or (is_integer(dtype) and (dtype not in ("i32", "i64") or kind == "mean")):
        wide = "f64" if kind == "mean" else "i64" if dtype in ("u32", "u64") else "i32"
        found = w(REDUCTIONS[kind], w.cast(x, wide), vector(op.axes), keepdims=int(keep))
        if dtype == "bool":  # the maximum of nothing is the lowest number, which is not true
            return w("Greater", found, w.number(0, wide))
        return w.cast(found, dtype)
    return w(REDUCTIONS[kind], x, vector(op.axes), keepdims=int(keep))


def _squeeze(w: Writer, slot: Slot, op: Squeeze, x: Slot) -> ir.Value:
    if x.value is None and isinstance(x.op, Reduce) and x.op.axes == op.axes:
        return _reduce(w, x, x.op, x.operands[0], keep=False)
    return w("Squeeze", x, vector(op.axes))


# fmt: off
ROWS: dict[type[Op], Callable[..., Any]] = {
    Unary:      _unary,
    Binary:     _binary,
    Select:     _select,
    Cast:       lambda w, slot, op, x: w.cast(x, op.to),
    Reduce:     _reduce,
    Squeeze:    _squeeze,
    Broadcast:  _binary,
    Where:      _select,
    Relu:       plain("Relu"),      Sigmoid:   plain("Sigmoid"),  Sqrt:  plain("Sqrt"),
    Erf:        plain("Erf"),       HardSwish: plain("HardSwish"), Mish: plain("Mish"),
    Ceil:       plain("Ceil"),      Round:     plain("Round"),    Softsign: plain("Softsign"),
    IsInf:      plain("IsInf"),     Prelu:     plain("PRelu"),
    Abs:        lambda w, slot, op, x: w("Abs", x),
    Rsqrt:      lambda w, slot, op, x: w("Reciprocal", w("Sqrt", x)),
    Silu:       lambda w, slot, op, x: w("Mul", x, w("Sigmoid", x)),
    LeakyRelu:  plain("LeakyRelu", alpha="slope"),
    Elu:        plain("Elu", alpha="alpha"),
    Selu:       plain("Selu", alpha="alpha", gamma="gamma"),
    HardSigmoid: plain("HardSigmoid", alpha="alpha", beta="beta"),
    Gelu:       _gelu,
    Clip:       _clip,
    Softplus:   _softplus,
    Not:        _not,
}
# fmt: on
