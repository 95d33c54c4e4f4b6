"""What each op is in TorchScript: rows of the table that `write` walks by.

A row is a text with the operands as {0}, {1}, ... and the fields of the spec by name, or a function
of the op and of what the source around it offers; None says that this spec has no operation in
torch, so that the op's definition is written instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

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
from safegraph.dims import Dim, Size
from safegraph.dtypes import is_float
from safegraph.frontends.torchscript.unknown import FORMAT, unplain
from safegraph.op import Op, TensorType
from safegraph.ops import (
    Binary,
    Cast,
    Fold,
    Group,
    Interleave,
    Iota,
    Opaque,
    Pad,
    Permute,
    Reduce,
    Repeat,
    Scalar,
    Select,
    Slice,
    Squeeze,
    Stride,
    Unary,
    Unfold,
    Ungroup,
    Unsqueeze,
)


class Source(Protocol):
    """What a row is told of its place in the graph."""

    types: Sequence[TensorType]
    out: TensorType
    device: str

    def __len__(self) -> int: ...
    def __getitem__(self, i: int) -> str:
        """The variable of an operand."""
        ...

    def number(self, i: int) -> str:
        """An operand, as a number where it is a known one."""
        ...

    def small(self, i: int) -> str:
        """An operand before it is repeated: torch's broadcasting does that."""
        ...

    def through(self, i: int, kind: type[Op]) -> tuple[Any, str, TensorType] | None:
        """Where an operand is the result of such an op: that op, its operand and the type of that."""
        ...


# -- texts ----------------------------------------------------------------------------------------


def text(value: Any) -> str:
    """A field of a spec as source."""
    match value:
        case bool() | None | str():
            return repr(value) if not isinstance(value, str) else f'"{value}"'
        case float():
            return repr(value) if math.isfinite(value) else f'float("{value}")'
        case tuple() | list():
            return f"[{', '.join(map(text, value))}]"
    return str(value)  # int or Size: `write` gives the free sizes values of these names


def literal(value: Any, dtype: str) -> str:
    """A number of an element type."""
    if dtype == "bool":
        return str(bool(value))
    if isinstance(value, Size):
        return f"float({value})" if is_float(dtype) else str(value)
    return text(float(value)) if is_float(dtype) else str(int(value))


def torch_name(dtype: str) -> str:
    """torch's name of an element type."""
    from safegraph.frontends.torchscript.types import torch_dtype

    return str(torch_dtype(dtype))


def _reshaped(op: Op, s: Source) -> str:
    return f"aten.reshape({s[0]}, {text(s.out.shape)})"


def _colon(start: Dim, stop: Dim | None, step: int = 1) -> str:
    first = "" if start == 0 else str(start)
    last = "" if stop is None else str(stop)
    return f"{first}:{last}" + (f":{step}" if step != 1 else "")


def _sliced(x: str, parts: Sequence[str]) -> str:
    return f"{x}[{', '.join(parts)}]" if any(p != ":" for p in parts) else x


# -- core ops -------------------------------------------------------------------------------------

_UNARY = {
    "neg": "neg", "inverse": "reciprocal", "exp": "exp", "log": "log", "sin": "sin", "arcsin": "asin",
    "cos": "cos", "arccos": "acos", "tan": "tan", "arctan": "atan", "sinh": "sinh", "arcsinh": "asinh",
    "cosh": "cosh", "arccosh": "acosh", "tanh": "tanh", "arctanh": "atanh", "gaussian": "special_ndtr",
    "inv_gaussian": "special_ndtri", "sign": "sign", "floor": "floor", "is_nan": "isnan",
}  # fmt: skip
_BINARY = {
    "add": "add", "subtract": "sub", "multiply": "mul", "divide": "div", "pow": "pow", "maximum": "maximum",
    "minimum": "minimum", "less": "lt", "equal": "eq", "greater": "gt", "less_equal": "le",
    "greater_equal": "ge", "not_equal": "ne", "and": "logical_and", "or": "logical_or",
    "xor": "logical_xor", "mod": "remainder", "fmod": "fmod",
}  # fmt: skip
_TENSORS_ONLY = {"maximum", "minimum", "and", "or", "xor"}
_REDUCE = {"sum": "sum", "mean": "mean", "max": "amax", "min": "amin"}


def _unary(op: Unary, s: Source) -> str:
    return f"aten.{_UNARY[op.kind]}({s[0]})"


def _binary(op: Binary | Broadcast, s: Source) -> str | None:
    """With torch's broadcasting; one operand may be a number in the source."""
    left, right = _operands(s, op.kind in _TENSORS_ONLY)
    match op.kind:
        case "root":
            return f"aten.pow({s[0]}, aten.reciprocal({s[1]}))"
        case "divide" if not is_float(s.types[0].dtype):
            return f'aten.div({left}, {right}, rounding_mode="trunc")'
        case "subtract" if left.isidentifier() is False and not left.startswith("self"):
            return f"aten.rsub({s[1]}, {left})"
        case "divide" | "mod" | "fmod" | "less" | "equal" | "greater" | "less_equal" | "greater_equal" | "not_equal":
            left = s.small(0)
    return f"aten.{_BINARY[op.kind]}({left}, {right})" if op.kind in _BINARY else None
