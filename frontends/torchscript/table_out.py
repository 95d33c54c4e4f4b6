"""What each op is in TorchScript: rows of the table that `write` walks by.

A row is a text with the operands as {0}, {1}, ... and the fields of the spec by name, or a function
of the op and of what the source around it offers; None says that this spec has no operation in
torch, so that the op's definition is written instead.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache, reduce
from typing import Any, Protocol

from safegraph.dag import Node
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
from safegraph.dims import Dim, Shape, Size
from safegraph.dtypes import is_float
from safegraph.frontends.torchscript.table_in import ceiling
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


class Body(Protocol):
    """The function that is being written."""

    producers: Mapping[str, Node]
    types: Mapping[str, TensorType]

    def variable(self, name: str) -> str:
        """The variable of a value, which is thereby needed."""
        ...

    def device(self) -> str:
        """Where new tensors are made."""
        ...


class Site:
    """A node and what is around it, as rows see it."""

    def __init__(self, body: Body, node: Node) -> None:
        self.body = body
        self.names = node.inputs
        self.types = [body.types[i] for i in node.inputs]
        self.out = body.types[node.name]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> str:
        """The variable of an operand."""
        return self.body.variable(self.names[i])

    @property
    def all(self) -> list[str]:
        """The variables of the operands."""
        return [self[i] for i in range(len(self))]

    def optional(self, i: int) -> str:
        """The variable of an operand that may be missing."""
        return self[i] if i < len(self) else "None"

    def producer(self, name: str, kind: type[Op]) -> tuple[Any, tuple[str, ...]] | None:
        """The op of this class that computes a value, and its operands."""
        node = self.body.producers.get(name)
        return (node.op, node.inputs) if node is not None and isinstance(node.op, kind) else None

    def before_broadcast(self, name: str) -> str:
        """A value before it is repeated and gets axes in front: torch's broadcasting does that."""
        while True:
            found = self.producer(name, Repeat) or self.producer(name, Unsqueeze)
            if found is None:
                return name
            op, (inner,) = found
            if isinstance(op, Unsqueeze) and op.axes != tuple(range(len(op.axes))):
                return name
            name = inner

    def broadcastable(self) -> list[str]:
        """The operands as small as torch's broadcasting allows for the result's shape."""
        found = list(self.names)
        for i in range(len(found)):
            tried = [*found[:i], self.before_broadcast(found[i]), *found[i + 1 :]]
            if _broadcast([self.body.types[n].shape for n in tried]) == self.out.shape:
                found = tried
        return found

    def is_filled(self, name: str, value: float) -> bool:
        """Is a value this number, repeated?"""
        found = self.producer(self.before_broadcast(name), Scalar)
        return found is not None and found[0].value == value

    def number(self, name: str) -> str | None:
        """The source of a value that is a known number."""
        found = self.producer(name, Scalar)
        return literal(found[0].value, found[0].of) if found else None

    @property
    def place(self) -> str:
        """Element type and device of the result, for operations that make a tensor."""
        return f"dtype={torch_name(self.out.dtype)}, device={self.body.device()}"


def _broadcast(shapes: Sequence[Shape]) -> Shape:
    """The shape that broadcasting gives, or () where sizes differ."""
    found: list[Dim] = []
    for i in range(-max(map(len, shapes)), 0):
        sizes = {s[i] for s in shapes if len(s) >= -i} - {1}
        if len(sizes) > 1:
            return (-1,)
        found.append(sizes.pop() if sizes else 1)
    return tuple(found)


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
    return str(value) if isinstance(value, int) else _size(value)


class _Powers(ast.NodeTransformer):
    """h**2 as h*h (torch's power of integers is a float), and Max of many as max of two."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        self.generic_visit(node)
        if not isinstance(node.op, ast.Pow):
            return node
        assert isinstance(node.right, ast.Constant)
        return reduce(lambda a, b: ast.BinOp(a, ast.Mult(), b), [node.left] * int(node.right.value))  # type: ignore

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        return reduce(lambda a, b: ast.Call(ast.Name("max"), [a, b], []), node.args)


@cache
def _size(value: Size) -> str:
    """A size as source; `write` gives the free sizes values, under their names."""
    return ast.unparse(_Powers().visit(ast.parse(str(value), mode="eval")))


def literal(value: Any, dtype: str) -> str:
    """A number of an element type."""
    if dtype == "bool":
        return str(bool(value))
    if isinstance(value, Size):
        return f"float({text(value)})" if is_float(dtype) else text(value)
    return text(float(value)) if is_float(dtype) else str(int(value))


def torch_name(dtype: str) -> str:
    """torch's name of an element type."""
    from safegraph.frontends.torchscript.types import torch_dtype

    return str(torch_dtype(dtype))


def _reshaped(op: Op, s: Site) -> str:
    return f"aten.reshape({s[0]}, {text(s.out.shape)})"


def _colon(start: Dim, stop: Dim | None, step: int = 1) -> str:
    first = "" if start == 0 else text(start)
    last = "" if stop is None else text(stop)
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


def _unary(op: Unary, s: Site) -> str:
    return f"aten.{_UNARY[op.kind]}({s[0]})"


def _binary(op: Binary | Broadcast, s: Site) -> str | None:
    """With torch's broadcasting; one operand may be a number in the source."""
    x, y = s.broadcastable()
    first, second = s.number(x), s.number(y)
    if op.kind == "root":
        return f"aten.pow({s.body.variable(x)}, aten.reciprocal({s.body.variable(y)}))"
    if op.kind not in _BINARY:
        return None
    name = f"aten.{_BINARY[op.kind]}"
    mode = ', rounding_mode="trunc"' if op.kind == "divide" and not is_float(s.types[0].dtype) else ""
    if op.kind not in _TENSORS_ONLY and (first is None) != (second is None):
        if second is not None:
            return f"{name}({s.body.variable(x)}, {second}{mode})"
        if op.kind in _FROM_NUMBER:
            return f"{_FROM_NUMBER[op.kind]}({s.body.variable(y)}, {first})"
    return f"{name}({s.body.variable(x)}, {s.body.variable(y)}{mode})"


# A number as the first operand: the operations that take it as their second one.
_FROM_NUMBER = {"add": "aten.add", "multiply": "aten.mul", "subtract": "aten.rsub"}


def _select(op: Select | Where, s: Site) -> str:
    condition, x, y = s.broadcastable()
    # torch's element type of two numbers, or of a number and a tensor, may be another one
    first = s.number(x) if s.number(y) is None else None
    second = s.number(y) if s.number(x) is None else None
    parts = (s.body.variable(condition), first or s.body.variable(x), second or s.body.variable(y))
    return f"aten.where({', '.join(parts)})"


def _squeeze(op: Squeeze, s: Site) -> str:
    found = s.producer(s.names[0], Reduce)
    if found and found[0].axes == op.axes:
        return _reduced(found[0], s.body.types[found[1][0]], s.body.variable(found[1][0]), keep=False)
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


def _fill(value: float, s: Site) -> str:
    return str(int(value)) if s.out.dtype == "bool" else literal(value, s.out.dtype)


def _unfold(op: Unfold, s: Site) -> str:
    """Windows over the whole reach, of which every `dilation`-th element is kept."""
    reach = (op.window - 1) * op.dilation + 1
    rank = s.types[0].rank
    axis = op.axis % rank
    windows = f"aten.unfold({s[0]}, {axis}, {text(reach)}, {text(op.step)})"
    kept = _sliced(windows, [":"] * rank + [f"::{text(op.dilation)}" if op.dilation != 1 else ":"])
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
    return _sliced(s[0], [_colon(a, b) for a, b in zip(op.starts, op.stops, strict=True)])


def _stride(op: Stride, s: Site) -> str:
    return _sliced(s[0], [_colon(0, None, n) for n in op.steps])


def _scalar(op: Scalar, s: Site) -> str:
    return f"torch.full([], {_fill(op.value, s) if s.out.dtype == 'bool' else literal(op.value, op.of)}, {s.place})"


# -- derived ops ----------------------------------------------------------------------------------


def _symmetric(op: Any) -> bool:
    return op.before == op.after


def _padded(op: Any, s: Site, fill: str = "0") -> tuple[str, tuple[int, ...]]:
    """The operand, padded where its padding differs at both ends, and the padding that remains."""
    if _symmetric(op):
        return s[0], op.before
    edges = [e for pair in reversed(list(zip(op.before, op.after, strict=True))) for e in pair]
    return f"aten.constant_pad_nd({s[0]}, {text(edges)}, {fill})", (0,) * len(op.before)


def _conv(op: Conv, s: Site) -> str:
    x, padding = _padded(op, s)
    zeros = text((0,) * len(padding))
    spec = f"{text(op.strides)}, {text(padding)}, {text(op.dilations)}, False, {zeros}, {op.groups}"
    return f"aten.convolution({x}, {s[1]}, {s.optional(2)}, {spec})"


def _conv_transpose(op: ConvTranspose, s: Site) -> str | None:
    # What is cut off less at the end counts as output padding, which torch bounds.
    extra = tuple(e + b - a for e, b, a in zip(op.extra, op.before, op.after, strict=True))
    bounds = (max(n, d) for n, d in zip(op.strides, op.dilations, strict=True))
    if not all(0 <= e < bound for e, bound in zip(extra, bounds, strict=True)):
        return None
    spec = f"{text(op.strides)}, {text(op.before)}, {text(op.dilations)}, True, {text(extra)}, {op.groups}"
    return f"aten.convolution({s[0]}, {s[1]}, {s.optional(2)}, {spec})"


def _max_pool(op: MaxPool, s: Site) -> str | None:
    n = len(op.window)
    fits = all(2 * b <= k for b, k in zip(op.before, op.window, strict=True))
    if n > 3 or s.types[0].rank not in (n + 1, n + 2) or not is_float(s.out.dtype):
        return None
    if _symmetric(op) and fits:
        x, padding = s[0], op.before
    else:
        edges = [e for pair in reversed(list(zip(op.before, op.after, strict=True))) for e in pair]
        x, padding = f"aten.constant_pad_nd({s[0]}, {text(edges)}, {text(-math.inf)})", (0,) * n
    spec = f"{text(op.window)}, {text(op.strides)}, {text(padding)}, {text(op.dilations)}, False"
    return f"aten.max_pool{n}d({x}, {spec})"


def _avg_pool(op: AvgPool, s: Site) -> str | None:
    n = len(op.window)
    if n > 3 or s.types[0].rank not in (n + 1, n + 2) or not _symmetric(op):
        return None
    if any(2 * b > k for b, k in zip(op.before, op.window, strict=True)):
        return None
    ceil = any(op.extra)
    sizes = zip(s.types[0].shape[-n:], op.window, op.strides, op.before, op.extra, strict=True)
    if ceil and any(e != ceiling(d, k, step, b) for d, k, step, b, e in sizes):
        return None
    spec = f"{text(op.window)}, {text(op.strides)}, {text(op.before)}, {ceil}, {op.count_pad}"
    return f"aten.avg_pool{n}d({s[0]}, {spec})"


def _adaptive(op: AdaptiveAvgPool, s: Site) -> str | None:
    n = len(op.to)
    fits = n <= 3 and s.types[0].rank in (n + 1, n + 2)
    return f"aten.adaptive_avg_pool{n}d({s[0]}, {text(op.to)})" if fits else None


def _layer_norm(op: LayerNorm, s: Site) -> str | None:
    shape = s.out.shape[s.out.rank - op.axes :]
    return f"aten.layer_norm({s[0]}, {text(shape)}, {s.optional(1)}, {s.optional(2)}, {text(op.eps)})"


def _batch_norm(op: BatchNorm, s: Site) -> str:
    # torch has no scale of ones and no bias of zeros to compute with where there are none
    scale, bias = ("None" if s.is_filled(s.names[i], i == 1) else s[i] for i in (1, 2))
    return f"aten.batch_norm({s[0]}, {scale}, {bias}, {s[3]}, {s[4]}, False, 0.0, {text(op.eps)}, True)"


def _rms_norm(op: RmsNorm, s: Site) -> str:
    return f"aten.rms_norm({s[0]}, {text(s.out.shape[s.out.rank - op.axes :])}, {s.optional(1)}, {text(op.eps)})"


def _instance_norm(op: InstanceNorm, s: Site) -> str:
    return f"aten.instance_norm({s[0]}, {s.optional(1)}, {s.optional(2)}, None, None, True, 0.0, {text(op.eps)}, True)"


def _group_norm(op: GroupNorm, s: Site) -> str:
    return f"aten.group_norm({s[0]}, {op.groups}, {s.optional(1)}, {s.optional(2)}, {text(op.eps)})"


def _attention(op: Attention, s: Site) -> str | None:
    if op.causal and len(s) == 4:
        return None  # torch takes one or the other
    shared = s.types[0].rank > 2 and s.types[0].shape[-3] != s.types[1].shape[-3]
    options = f"0.0, {op.causal}, scale={text(op.scale)}, enable_gqa={shared}"
    return f"aten.scaled_dot_product_attention({s[0]}, {s[1]}, {s[2]}, {s.optional(3)}, {options})"


def _multi_head(op: MultiHead, s: Site) -> str:
    q, k, v, *weights = s.all
    spec = f"{text(s.out.shape[-1])}, {op.heads}"
    return f"aten._native_multi_head_attention({q}, {k}, {v}, {spec}, {', '.join(weights)}, None, False)[0]"


def _encoder_layer(op: EncoderLayer, s: Site) -> str:
    x, in_w, in_b, out_w, out_b, *rest = s.all
    spec = f"{op.activation == 'gelu'}, {op.norm_first}, {text(op.eps)}"
    first = f"{x}, {text(s.out.shape[-1])}, {op.heads}, {in_w}, {in_b}, {out_w}, {out_b}, {spec}"
    return f"aten._transformer_encoder_layer_fwd({first}, {', '.join(rest)})"


def _gemm(op: Gemm, s: Site) -> str:
    a = f"aten.t({s[0]})" if op.trans_a else s[0]
    b = f"aten.t({s[1]})" if op.trans_b else s[1]
    if len(s) == 3:
        return f"aten.addmm({s[2]}, {a}, {b}, beta={text(op.beta)}, alpha={text(op.alpha)})"
    return f"aten.mm({a}, {b})" if op.alpha == 1 else f"aten.mul(aten.mm({a}, {b}), {text(op.alpha)})"


def _gather(op: Gather, s: Site) -> str:
    return f"{s[0]}[{', '.join([':'] * (op.axis % s.types[0].rank) + [s[1]])}]"


def _gather_elements(op: GatherElements, s: Site) -> str:
    axis = op.axis % s.out.rank
    size = text(s.types[0].shape[axis])
    counted = f"aten.where(aten.lt({s[1]}, 0), aten.add({s[1]}, {size}), {s[1]})"  # torch takes no negative ones
    return f"aten.gather({s[0]}, {axis}, {counted})"


def _cumsum(op: CumSum, s: Site) -> str:
    axis, rank = op.axis % s.out.rank, s.out.rank
    found = f"aten.flip({s[0]}, [{axis}])" if op.reverse else s[0]
    if op.exclusive:  # a zero in front, and the last one away
        found = _sliced(f"aten.constant_pad_nd({found}, {[0, 0] * (rank - 1 - axis) + [1, 0]})", [":"] * axis + [":-1"])
    found = f"aten.cumsum({found}, {axis}, dtype={torch_name(s.out.dtype)})"
    return f"aten.flip({found}, [{axis}])" if op.reverse else found


def _arg_max(op: ArgMax, s: Site) -> str:
    return f"aten.{'argmin' if op.smallest else 'argmax'}({s[0]}, {op.axis}, {op.keep})"


def _trilu(op: Trilu, s: Site) -> str:
    return f"aten.{'triu' if op.upper else 'tril'}({s[0]}, {op.k})"


def _one_hot(op: OneHot, s: Site) -> str:
    axis = op.axis % s.out.rank
    depth = text(op.depth)
    trailing = "".join([".unsqueeze(-1)"] * (s.out.rank - 1 - axis))
    places = f"torch.arange({depth}, device={s.body.device()}){trailing}"
    counted = f"aten.remainder({s[0]}, {depth}).unsqueeze({axis})"
    inside = f"aten.logical_and(aten.ge({s[0]}, -({depth})), aten.lt({s[0]}, {depth})).unsqueeze({axis})"
    return f"aten.logical_and(aten.eq({counted}, {places}), {inside}).to({torch_name(s.out.dtype)})"


def _selu(op: Selu, s: Site) -> str:
    return f"aten.elu({s[0]}, {text(op.alpha)}, {text(op.gamma)})"


def _clip(op: Clip, s: Site) -> str:
    low, high = (None if math.isinf(b) else literal(b, s.out.dtype) for b in (op.low, op.high))
    return f"aten.clamp({s[0]}, {low}, {high})" if low or high else s[0]


def _softplus(op: Softplus, s: Site) -> str:
    return f"aten.softplus({s[0]}, {text(op.beta)}, {text(op.threshold)})"


def _hard_sigmoid(op: HardSigmoid, s: Site) -> str | None:
    return f"aten.hardsigmoid({s[0]})" if op == HardSigmoid() else None


def _prelu(op: Prelu, s: Site) -> str:
    return f"aten.where(aten.lt({s[0]}, 0), aten.mul({s[0]}, {s[1]}), {s[0]})"


def _concat(op: Concat, s: Site) -> str:
    return f"aten.cat([{', '.join(s.all)}], {op.axis})"


def _index(op: Index, s: Site) -> str:
    return f"aten.select({s[0]}, {op.axis}, {text(op.at)})"


# fmt: off
TABLE: dict[type[Op], str | Callable[[Any, Site], str | None]] = {
    # core ops
    Permute:         "aten.permute({0}, {order})",
    Group:           _reshaped,
    Ungroup:         _reshaped,
    Squeeze:         _squeeze,
    Unsqueeze:       _unsqueeze,
    Stride:          _stride,
    Interleave:      _interleave,
    Slice:           _slice,
    Pad:             _pad,
    Reduce:          _reduce,
    Repeat:          _repeat,
    Unfold:          _unfold,
    Fold:            _fold,
    Unary:           _unary,
    Binary:          _binary,
    Cast:            lambda op, s: f"{s[0]}.to({torch_name(op.to)})",
    Select:          _select,
    Scalar:          _scalar,
    Iota:            lambda op, s: f"torch.arange({text(op.size)}, {s.place})",
    # shapes
    Reshape:         _reshaped,
    Expand:          lambda op, s: f"aten.expand({s[0]}, {text(s.out.shape)})",
    Concat:          _concat,
    Index:           _index,
    Tile:            "aten.repeat({0}, {counts})",
    Flip:            "aten.flip({0}, {axes})",
    # pointwise
    Broadcast:       _binary,
    Where:           _select,
    Relu:            "aten.relu({0})",
    LeakyRelu:       "aten.leaky_relu({0}, {slope})",
    Clip:            _clip,
    Sigmoid:         "aten.sigmoid({0})",
    HardSigmoid:     _hard_sigmoid,
    HardSwish:       "aten.hardswish({0})",
    Silu:            "aten.silu({0})",
    Gelu:            "aten.gelu({0}, approximate={approximate})",
    Erf:             "aten.erf({0})",
    Sqrt:            "aten.sqrt({0})",
    Rsqrt:           "aten.rsqrt({0})",
    Abs:             "aten.abs({0})",
    Softplus:        _softplus,
    Elu:             "aten.elu({0}, {alpha})",
    Selu:            _selu,
    Mish:            "aten.mish({0})",
    Prelu:           _prelu,
    Not:             "aten.logical_not({0})",
    Ceil:            "aten.ceil({0})",
    Round:           "aten.round({0})",
    Trunc:           "aten.trunc({0})",
    Log1p:           "aten.log1p({0})",
    Expm1:           "aten.expm1({0})",
    IsInf:           "aten.isinf({0})",
    # products, convolutions, pooling
    Einsum:          lambda op, s: f'aten.einsum("{op.equation}", [{s[0]}, {s[1]}])',
    Matmul:          "aten.matmul({0}, {1})",
    Linear:          lambda op, s: f"aten.linear({s[0]}, {s[1]}, {s.optional(2)})",
    Gemm:            _gemm,
    Conv:            _conv,
    ConvTranspose:   _conv_transpose,
    MaxPool:         _max_pool,
    AvgPool:         _avg_pool,
    AdaptiveAvgPool: _adaptive,
    # normalisation and attention
    Softmax:         "aten.softmax({0}, {axis}, None)",
    LogSoftmax:      "aten.log_softmax({0}, {axis}, None)",
    LayerNorm:       _layer_norm,
    RmsNorm:         _rms_norm,
    BatchNorm:       _batch_norm,
    InstanceNorm:    _instance_norm,
    GroupNorm:       _group_norm,
    Attention:       _attention,
    MultiHead:       _multi_head,
    EncoderLayer:    _encoder_layer,
    # indexing
    Gather:          _gather,
    GatherElements:  _gather_elements,
    CumSum:          _cumsum,
    ArgMax:          _arg_max,
    Trilu:           _trilu,
    OneHot:          _one_hot,
}
# fmt: on


def expression(op: Op, site: Site) -> str | None:
    """The source of an op's result; None where the table has none for this op or spec."""
    row = TABLE.get(type(op))
    if row is None:
        return None
    if isinstance(row, str):
        return row.format(*site.all, **{name: text(value) for name, value in op.spec.items()})
    return row(op, site)
