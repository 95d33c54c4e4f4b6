"""Other tools' ways to count arithmetic, each a small table of rules.

A convention maps each op to the figures that the tool would report for it, so that numbers can be
compared with published ones.  It counts what the tool counts, errors of principle and all; what it
leaves out is said in `leaves_out`.  `Cost` itself has the whole vector and follows none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

from safegraph.dims import Dim, maximum, product
from safegraph.errors import SafeGraphError
from safegraph.extract.count import CONTRACTION
from safegraph.op import Op, TensorType, Work

Types = tuple[TensorType, ...]
Rule = Callable[[Any, Types, TensorType, Work], Work]
"""From an op, the types of its operands, that of its result and our count: theirs."""


@dataclass(frozen=True)
class Convention:
    """How a tool counts: a rule by op, and which figure it reports."""

    name: str
    label: str
    """What the figure is, and whose."""
    leaves_out: str
    figure: Callable[[Work], Dim]
    otherwise: Rule
    apart: Callable[[Work], Dim] | None = None
    """What it counts and reports apart, if anything."""
    rules: Mapping[str, Rule] = field(default_factory=dict)
    """By op name; `safegraph.extract.count.CONTRACTION` is a product and the sum that reads it."""

    def recount(self, called: str, op: Op, types: Types, out: TensorType, work: Work) -> Work:
        """The arithmetic of one op as the tool counts it."""
        return self.rules.get(called, self.otherwise)(op, types, out, work)


def convention(name: str | Convention) -> Convention:
    """A convention by name; raises SafeGraphError naming those there are."""
    if isinstance(name, Convention):
        return name
    if name not in CONVENTIONS:
        raise SafeGraphError(f"there is no convention {name!r}; there are {', '.join(CONVENTIONS)}")
    return CONVENTIONS[name]


# -- rules ----------------------------------------------------------------------------------------


def _same(op: Op, types: Types, out: TensorType, work: Work) -> Work:
    return work


def _nothing(op: Op, types: Types, out: TensorType, work: Work) -> Work:
    return Work()


def _macs(op: Op, types: Types, out: TensorType, work: Work) -> Work:
    return Work(macs=work.macs)


def _each(weight: int) -> Rule:
    """So much for each element of the result."""
    return lambda op, types, out, work: Work(elementwise=weight * out.numel)


def _read(weight: int) -> Rule:
    """So much for each element of the first operand."""
    return lambda op, types, out, work: Work(elementwise=weight * types[0].numel)


def _transcendental(op: Op, types: Types, out: TensorType, work: Work) -> Work:
    return Work(transcendental=out.numel)


def _by_kind(table: Mapping[str, Rule], otherwise: Rule) -> Rule:
    def rule(op: Any, types: Types, out: TensorType, work: Work) -> Work:
        return table.get(op.kind, otherwise)(op, types, out, work)

    return rule


# -- XLA ------------------------------------------------------------------------------------------


def taps_inside(size: Dim, window: int, step: int, dilation: int, before: int, after: int) -> Dim:
    """How many (place, tap) pairs of sliding windows on an axis of this size are not on the border.

    Place p, tap k reads element p*step + k*dilation - before.  The windows are those of the axis
    with its border, so that the last place of a tap is a smaller of two floors, which is the floor
    of the smaller: the two differ by a number, whatever the size.
    """
    found: Dim = 0
    span = (window - 1) * dilation
    for tap in range(window):
        first = max(0, -((tap * dilation - before) // step))
        room = min(before - tap * dilation, before + after - span)
        found += maximum((size - 1 + room) // step - first + 1, 0)
    return found


def _conv(op: Any, types: Types, out: TensorType, work: Work) -> Work:
    x, w = types[:2]
    first = x.rank - len(op.strides)
    inside = product(
        taps_inside(*axis)
        for axis in zip(
            x.shape[first:], w.shape[2:], op.strides, op.dilations, op.before, op.after, strict=True
        )
    )
    return Work(product(out.shape[:first]) * w.shape[1] * inside, work.elementwise)


def _conv_transpose(op: Any, types: Types, out: TensorType, work: Work) -> Work:
    """Pairs of an element of x and a tap whose sum is inside the result, an axis at a time."""
    x, w = types[:2]
    first = x.rank - len(op.strides)
    inside = product(
        taps_inside(o, k, s, d, b, a - e)  # the transpose of windows on the result
        for o, k, s, d, b, a, e in zip(
            out.shape[first:], w.shape[2:], op.strides, op.dilations, op.before, op.after, op.extra,
            strict=True,
        )
    )  # fmt: skip
    bias = out.numel if len(types) == 3 else 0
    return Work(product(x.shape[:first]) * w.shape[1] * inside, bias)


_XLA_ONE = "abs not ceil round trunc is_inf clip where cast"
_XLA_TRANSCENDENTAL = "sqrt rsqrt erf log1p expm1"


# -- onnx-tool ------------------------------------------------------------------------------------

ADD = MULTIPLY = COMPARE = 1
DIVIDE, SQUARE_ROOT, EXP, LOG, SIN = 4, 24, 32, 43, 39
TANH = EXP + 2 * ADD + DIVIDE

_WEIGHTS = {
    "divide": DIVIDE, "pow": EXP, "exp": EXP, "log": LOG, "sin": SIN, "cos": SIN,
    "tanh": 2 * TANH, "inverse": DIVIDE, "neg": COMPARE, "sign": COMPARE, "floor": COMPARE,
    "root": SQUARE_ROOT, "is_nan": 0, "or": 0, "xor": 0, "fmod": ADD,
}  # fmt: skip


def _weighed(op: Any, types: Types, out: TensorType, work: Work) -> Work:
    return Work(elementwise=_WEIGHTS.get(op.kind, 1) * out.numel)


def _with_bias(op: Op, types: Types, out: TensorType, work: Work) -> Work:
    return Work(work.macs, out.numel if len(types) > 2 else 0)


def _window(op: Any, types: Types, out: TensorType, work: Work) -> Work:
    return Work(elementwise=prod(op.window) * out.numel)


def _onnx_reduce(op: Any, types: Types, out: TensorType, work: Work) -> Work:
    """A mean over all axes from the third is taken as a GlobalAveragePool."""
    x = types[0]
    pooled = op.kind == "mean" and x.rank > 2 and sorted(op.axes) == list(range(2, x.rank))
    return Work(elementwise=ADD * x.numel + (DIVIDE * out.numel if pooled else 0))


def _onnx_layer_norm(op: Any, types: Types, out: TensorType, work: Work) -> Work:
    x = types[0]
    first = x.shape[x.rank - op.axes]  # of several axes, only this is taken as reduced
    rows = x.numel // first
    return Work(elementwise=7 * x.numel + (ADD + SQUARE_ROOT + DIVIDE) * rows)


def _onnx_recurrent(each: int) -> Rule:
    """The products, the biases, and so much for each element of the state at each step."""

    def rule(op: Any, types: Types, out: TensorType, work: Work) -> Work:
        (steps, batch, _), weights = types[0].shape, types[1:3]
        stored = sum((w.numel for w in (*weights, *types[3 + op.states :])), start=0)
        state = batch * weights[1].shape[1]
        return Work(elementwise=(stored * batch + each * state) * steps) if work.macs else Work()

    return rule


# -- fvcore ---------------------------------------------------------------------------------------


def _normalised(affine_at: int, with_affine: int, without: int) -> Rule:
    def rule(op: Op, types: Types, out: TensorType, work: Work) -> Work:
        each = with_affine if len(types) > affine_at else without
        return Work(elementwise=each * types[0].numel)

    return rule


def _adaptive_pool(op: Any, types: Types, out: TensorType, work: Work) -> Work:
    return Work(elementwise=types[0].numel) if len(op.to) == 2 else Work()


_CONTRACTIONS = ("linear", "matmul", "gemm", "einsum", "conv", "conv_transpose")


# fmt: off
TORCH = Convention(
    "torch",
    "flops (torch.utils.flop_counter.FlopCounterMode on the decomposed graph)",
    "everything but contractions: pointwise ops, reductions, biases, and products and sums that "
    "are written apart",
    lambda w: 2 * w.macs,
    _macs,
    rules={CONTRACTION: _nothing},
)

XLA = Convention(
    "xla",
    "flops (XLA's HloCostAnalysis before optimisation)",
    "taps of a convolution that read its border; transcendental functions, which it reports apart",
    lambda w: 2 * w.macs + w.elementwise + w.reduce,
    _same,
    lambda w: w.transcendental,
    {
        "conv": _conv, "conv_transpose": _conv_transpose,
        **dict.fromkeys(_XLA_ONE.split(), _each(1)),
        **dict.fromkeys(_XLA_TRANSCENDENTAL.split(), _transcendental),
        "broadcast": _by_kind({"pow": _transcendental, "root": _transcendental}, _each(1)),
    },
)

ONNX_TOOL = Convention(
    "onnx-tool",
    "MACs (onnx-tool, with its weights for other ops)",
    "what only moves elements, casts and erf, which weigh nothing, and ops that its table lacks; "
    "it agrees on all but transposed convolutions, where onnx-tool multiplies by the wrong sizes "
    "and this does not",
    lambda w: w.macs + w.elementwise,
    _nothing,
    rules={
        **dict.fromkeys((*_CONTRACTIONS, CONTRACTION), _with_bias),
        **dict.fromkeys(("unary", "binary", "broadcast"), _weighed),
        **dict.fromkeys(["relu", "abs", "not", "ceil", "round", "cum_sum"], _each(1)),
        "clip": _each(2 * COMPARE), "leaky_relu": _each(2), "prelu": _each(2),
        "sigmoid": _each(EXP), "softmax": _each(EXP + DIVIDE), "sqrt": _each(SQUARE_ROOT),
        "log_softmax": _each(EXP + DIVIDE + ADD + LOG), "softplus": _each(EXP + ADD + LOG),
        "elu": _each(COMPARE + EXP + ADD + MULTIPLY), "gelu": _each(EXP + 2 * MULTIPLY),
        "hard_sigmoid": _each(4), "hard_swish": _each(5), "erf": _nothing,
        "batch_norm": _each(ADD + SQUARE_ROOT + DIVIDE + ADD + MULTIPLY),
        # as for every op that it takes as pointwise: for each operand after the first
        "instance_norm": lambda op, types, out, work: Work(
            elementwise=max(1, len(types) - 1) * (3 + DIVIDE) * out.numel
        ),
        "layer_norm": _onnx_layer_norm, "reduce": _onnx_reduce,
        "local_response_norm": lambda op, types, out, work: Work(
            elementwise=(DIVIDE + EXP + ADD + op.size * MULTIPLY) * out.numel
        ),
        "max_pool": _window, "avg_pool": _window,
        "lstm": _onnx_recurrent(4 * ADD + 3 * EXP + 2 * TANH + ADD + 3 * MULTIPLY),
        "gru": _onnx_recurrent(3 * ADD + 2 * EXP + TANH + 2 * ADD + 3 * MULTIPLY),
    },
)

FVCORE = Convention(
    "fvcore",
    'MACs (fvcore\'s FlopCountAnalysis, which calls them "flops")',
    "pointwise ops, reductions, biases, fused attention and fused layers; normalisations and "
    "adaptive pools weigh a few for each element",
    lambda w: w.macs + w.elementwise,
    _nothing,
    rules={
        **dict.fromkeys(_CONTRACTIONS, _macs),
        "batch_norm": _normalised(1, 2, 1), "layer_norm": _normalised(1, 5, 4),
        "group_norm": _normalised(1, 5, 4), "instance_norm": _normalised(1, 5, 4),
        "adaptive_avg_pool": _adaptive_pool,
    },
)
# fmt: on

CONVENTIONS: dict[str, Convention] = {c.name: c for c in (TORCH, XLA, ONNX_TOOL, FVCORE)}
"""The conventions by name."""
