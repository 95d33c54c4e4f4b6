"""The targets that we know, as data: which ops they have, at what speed, and what is only a view.

Speeds are calibrated once, on two cores of an AVX-512 server with one thread, fp32: matrix products
140 GFLOP/s, convolutions 180, streaming 14 GB/s, a tanh 0.4 G elements/s.  They decide between
terms, so ratios matter and absolute numbers do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

from safegraph.dims import Dim, assuming, evaluate
from safegraph.errors import SafeGraphError
from safegraph.op import Op, TensorType
from safegraph.ops import Scalar


@dataclass(frozen=True)
class Target:
    """A backend: its speeds (per second), and how much slower than the roofline its ops are."""

    name: str
    contraction_flops: float
    elementwise_flops: float
    transcendental_flops: float
    bytes: float
    launch: float
    """Seconds to start an op, whatever its size."""
    ops: Mapping[str, float] = field(default_factory=dict)
    """By op name: seconds are the roofline times this; an op that is not here cannot be run."""
    views: frozenset[str] = frozenset()
    """Ops that only change how memory is read: they cost a launch."""

    def has(self, op: Op) -> bool:
        """Can it run the op?"""
        return op.name in self.ops or op.name in self.views

    def seconds(
        self, op: Op, operands: tuple[TensorType, ...], result: TensorType, sizes: Mapping[str, int]
    ) -> float:
        """What the op costs by the roofline model, with these values for the free sizes.

        A number is part of the op that uses it and costs nothing.
        """
        if not self.has(op):
            return inf
        if isinstance(op, Scalar):
            return 0.0
        if op.name in self.views:
            return self.launch
        with assuming():  # what the op needs of free sizes, its graph has assumed
            work, reads = op.work(*operands), op.reads(*operands)

        def number(dim: Dim) -> float:
            return float(evaluate(dim, sizes))

        compute = (
            2 * number(work.macs) / self.contraction_flops
            + (number(work.elementwise) + number(work.reduce)) / self.elementwise_flops
            + number(work.transcendental) / self.transcendental_flops
        )
        moved = sum(map(number, reads)) + number(result.nbytes)
        return self.launch + self.ops[op.name] * max(compute, moved / self.bytes)


_VIEWS = frozenset(["group", "ungroup", "squeeze", "unsqueeze", "reshape", "scalar"])
_COPIES = """
    permute slice stride pad pad_mode repeat expand concat index tile gather gather_elements
    gather_nd iota interleave unfold fold scatter_elements scatter_nd
"""
_POINTWISE = """
    unary binary cast select broadcast where relu leaky_relu clip sigmoid hard_sigmoid hard_swish
    silu gelu erf sqrt rsqrt abs softplus elu selu mish prelu not ceil round is_inf
"""
_OTHERS = """
    reduce softmax log_softmax layer_norm batch_norm instance_norm group_norm
    matmul linear gemm einsum conv conv_transpose max_pool avg_pool adaptive_avg_pool resize
    cum_sum arg_max top_k flip trilu one_hot lstm gru rnn opaque
"""


def _all(text: str, **slower: float) -> dict[str, float]:
    return dict.fromkeys(text.split(), 1.0) | slower


ONNXRUNTIME = Target(
    "onnxruntime",
    contraction_flops=140e9,
    elementwise_flops=4e9,
    transcendental_flops=0.5e9,
    bytes=14e9,
    launch=2e-6,
    # of equals the MatMul: ONNX has no Linear for more than two axes; an Einsum node takes twice
    # that; windows go out as a Gather
    ops=_all(
        _COPIES + _POINTWISE + _OTHERS + "softsign local_response_norm",
        einsum=2.0,
        linear=1.001,
        unfold=4.0,
        fold=4.0,
        conv=0.8,
        conv_transpose=1.5,
    ),
    views=_VIEWS,
)

TORCH = Target(
    "torch",
    contraction_flops=140e9,
    elementwise_flops=4e9,
    transcendental_flops=0.5e9,
    bytes=14e9,
    launch=6e-6,
    ops=_all(
        _COPIES
        + _POINTWISE
        + _OTHERS
        + "expm1 log1p trunc attention encoder_layer multi_head rms_norm",
        einsum=1.2,
        conv=0.8,
    ),
    views=_VIEWS | {"permute", "slice", "stride", "index", "repeat", "expand"},
)

TARGETS: dict[str, Target] = {t.name: t for t in (ONNXRUNTIME, TORCH)}


def target(name: str | Target) -> Target:
    """A target by name; raises SafeGraphError naming those there are."""
    if isinstance(name, Target):
        return name
    if name not in TARGETS:
        raise SafeGraphError(f"there is no target {name!r}; there are {', '.join(TARGETS)}")
    return TARGETS[name]
