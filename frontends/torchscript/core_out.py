"""The core ops in TorchScript."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from safegraph.derived.border import PadMode
from safegraph.derived.pointwise import (
    Broadcast,
    Where,
)
from safegraph.dtypes import is_float
from safegraph.frontends.torchscript.site import Site, colon, literal, sliced, text, torch_name
from safegraph.op import Op, TensorType
from safegraph.ops import (
    Binary,
    Cast,
    Fold,
    Group,
    Interleave,
    Iota,
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


def reshaped(op: Op, s: Site) -> str:
    """The elements in the shape of the result."""
    return f"aten.reshape({s[0]}, {text(s.out.shape)})"


_UNARY = {
    "neg": "neg", "inverse": "reciprocal", "exp": "exp", "log": "log", "sin": "sin",
    "arcsin": "asin",
    "cos": "cos", "arccos": "acos", "tan": "tan", "arctan": "atan", "sinh": "sinh",
    "arcsinh": "asinh",
    "cosh": "cosh", "arccosh": "acosh", "tanh": "tanh", "arctanh": "atanh",
    "gaussian": "special_ndtr",
    "inv_gaussian": "special_ndtri", "sign": "sign", "floor": "floor", "is_nan": "isnan",
}  # fmt: skip
_BINARY = {
    "add": "add", "subtract": "sub", "multiply": "mul", "divide": "div", "pow": "pow",
    "maximum": "maximum",
    "minimum": "minimum", "less": "lt", "equal": "eq", "greater": "gt", "less_equal": "le",
    "greater_equal": "ge", "not_equal": "ne", "and": "logical_and", "or": "logical_or",
    "xor": "logical_xor", "mod": "remainder", "fmod": "fmod",
}  # fmt: skip
_TENSORS_ONLY = {"maximum", "minimum", "and", "or", "xor"}
_REDUCE = {"sum": "sum", "mean": "mean", "max": "amax", "min": "amin"}


def _unary(op: Unary, s: Site) -> str:
    return f"aten.{_UNARY[op.kind]}({s[0]})"


def binary(op: Binary | Broadcast, s: Site) -> str | None:
    """With torch's broadcasting; one operand may be a number in the source."""
    x, y = s.broadcastable()
    first, second = s.number(x), s.number(y)
    if op.kind == "root":
        return f"aten.pow({s.body.variable(x)}, aten.reciprocal({s.body.variable(y)}))"
    if op.kind not in _BINARY:
        return None
    name = f"aten.{_BINARY[op.kind]}"
    mode = (
        ', rounding_mode="trunc"' if op.kind == "divide" and not is_float(s.types[0].dtype) else ""
    )
    if op.kind not in _TENSORS_ONLY and (first is None) != (second is None):
        if second is not None:
            return f"{name}({s.body.variable(x)}, {second}{mode})"
        if op.kind in _FROM_NUMBER:
            return f"{_FROM_NUMBER[op.kind]}({s.body.variable(y)}, {first})"
    return f"{name}({s.body.variable(x)}, {s.body.variable(y)}{mode})"


# A number as the first operand: the operations that take it as their second one.
_FROM_NUMBER = {"add": "aten.add", "multiply": "aten.mul", "subtract": "aten.rsub"}


def select(op: Select | Where, s: Site) -> str:
    """With torch's broadcasting; one choice may be a number in the source."""
    condition, x, y = s.broadcastable()
    # torch's element type of two numbers, or of a number and a tensor, may be another one
    first = s.number(x) if s.number(y) is None else None
    second = s.number(y) if s.number(x) is None else None
    parts = (s.body.variable(condition), first or s.body.variable(x), second or s.body.variable(y))
    return f"aten.where({', '.join(parts)})"


def _squeeze(op: Squeeze, s: Site) -> str:
    found = s.producer(s.names[0], Reduce)
    if found and found[0].axes == op.axes:
        return _reduced(
            found[0], s.body.types[found[1][0]], s.body.variable(found[1][0]), keep=False
        )
    return f"aten.squeeze({s[0]}, {text(op.axes)})" if op.axes else s[0]


def _reduce(op: Reduce, s: Site) -> str:
    return _reduced(op, s.types[0], s[0], keep=True)


def _reduced(op: Reduce, x: TensorType, variable: str, *, keep: bool) -> str:
    """A reduction whose axes become 1, or (`keep` false) are dropped."""
    if not op.axes:
        return variable
    axes = sorted(a % x.rank for a in op.axes)
    dtype = torch_name(x.dtype)
    if op.kind == "mean" and not is_float(x.dtype):
        return f"aten.mean({variable}, {axes}, {keep}, dtype=torch.float64).to({dtype})"
    if op.kind in _REDUCE:
        typed = f", dtype={dtype}" if op.kind == "sum" else ""
        return f"aten.{_REDUCE[op.kind]}({variable}, {axes}, {keep}{typed})"
    for axis in reversed(axes):  # these take one axis
        typed = f", dtype={dtype}" if op.kind == "prod" else ""
        variable = f"aten.{op.kind}({variable}, {axis}, {keep}{typed})"
    return variable


def _unsqueeze(op: Unsqueeze, s: Site) -> str:
    found = s[0]
    for axis in sorted(a % s.out.rank for a in op.axes):
        found = f"aten.unsqueeze({found}, {axis})"
    return found


def _repeat(op: Repeat, s: Site) -> str:
    return f"aten.expand({s[0]}, {text(s.out.shape)})"


def _interleave(op: Interleave, s: Site) -> str:
    found, shape = s[0], list(s.types[0].shape)
    for axis, step in enumerate(op.steps):
        if step != 1:
            shape[axis] = (shape[axis] - 1) * step + 1
            empty = f"torch.full({text(shape)}, {literal(op.fill, s.out.dtype)}, {s.place})"
            found = f"aten.slice_scatter({empty}, {found}, {axis}, 0, {text(shape[axis])}, {step})"
    return found


def _pad(op: Pad, s: Site) -> str:
    edges = [e for pair in reversed(list(zip(op.before, op.after, strict=True))) for e in pair]
    return f"aten.constant_pad_nd({s[0]}, {text(edges)}, {_fill(op.fill, s)})"


def _pad_mode(op: PadMode, s: Site) -> str | None:
    """Torch pads up to three last axes, of one axis or two more, of floating point."""
    rank = len(op.before)
    first = next((i for i in range(rank) if (op.before[i], op.after[i]) != (0, 0)), rank)
    count = max(rank - first, rank - 2, 1)
    if count > min(3, rank - 1) or not is_float(s.out.dtype):
        return None
    pairs = reversed(list(zip(op.before, op.after, strict=True))[-count:])
    mode = {"edge": "replicate", "wrap": "circular"}.get(op.mode, op.mode)
    return f'aten.pad({s[0]}, {text([e for pair in pairs for e in pair])}, "{mode}")'


def _fill(value: float, s: Site) -> str:
    return str(int(value)) if s.out.dtype == "bool" else literal(value, s.out.dtype)


def _unfold(op: Unfold, s: Site) -> str:
    """Windows over the whole reach, of which every `dilation`-th element is kept."""
    reach = (op.window - 1) * op.dilation + 1
    rank = s.types[0].rank
    axis = op.axis % rank
    windows = f"aten.unfold({s[0]}, {axis}, {text(reach)}, {text(op.step)})"
    kept = sliced(windows, [":"] * rank + [f"::{text(op.dilation)}" if op.dilation != 1 else ":"])
    return f"aten.movedim({kept}, {rank}, {axis + 1})"


def _fold(op: Fold, s: Site) -> str | None:
    if s.out.dtype == "bool":
        return None
    axis = op.axis % s.out.rank
    windows, window = s.types[0].shape[axis : axis + 2]
    index = "torch.arange({}, device={})"
    rows = f"{index.format(text(windows), s.body.device())}.unsqueeze(1) * ({text(op.step)})"
    columns = f"{index.format(text(window), s.body.device())} * ({text(op.dilation)})"
    empty = f"torch.zeros({text(s.out.shape)}, {s.place})"
    flat = f"aten.flatten({s[0]}, {axis}, {axis + 1})"
    return f"aten.index_add({empty}, {axis}, ({rows} + {columns}).reshape([-1]), {flat})"


def _slice(op: Slice, s: Site) -> str:
    return sliced(s[0], [colon(a, b) for a, b in zip(op.starts, op.stops, strict=True)])


def _stride(op: Stride, s: Site) -> str:
    return sliced(s[0], [colon(0, None, n) for n in op.steps])


def _scalar(op: Scalar, s: Site) -> str:
    number = str(int(op.value)) if op.of == "bool" else literal(op.value, op.of)
    return f"torch.full([], {number}, {s.place})"


# fmt: off
ROWS: dict[type[Op], str | Callable[[Any, Site], str | None]] = {
    Permute:         "aten.permute({0}, {order})",
    Group:           reshaped,
    Ungroup:         reshaped,
    Squeeze:         _squeeze,
    Unsqueeze:       _unsqueeze,
    Stride:          _stride,
    Interleave:      _interleave,
    Slice:           _slice,
    Pad:             _pad,
    PadMode:         _pad_mode,
    Reduce:          _reduce,
    Repeat:          _repeat,
    Unfold:          _unfold,
    Fold:            _fold,
    Unary:           _unary,
    Binary:          binary,
    Cast:            lambda op, s: f"{s[0]}.to({torch_name(op.to)})",
    Select:          select,
    Scalar:          _scalar,
    Iota:            lambda op, s: f"torch.arange({text(op.size)}, {s.place})",
}
# fmt: on
