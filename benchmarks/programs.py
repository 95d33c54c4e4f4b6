"""Models as terms, at any size: what the benchmarks of the e-graph run on."""

from __future__ import annotations

from safegraph.dag import SafeDAG, Tensor
from safegraph.derived.einsum import Linear, einsum
from safegraph.derived.norm import LayerNorm, Softmax
from safegraph.derived.pointwise import Gelu
from safegraph.op import TensorType
from safegraph.value import Value, apply, reshape, tensor


class Weights:
    """Parameters made on the way, by name; without data."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []

    def __call__(self, name: str, *shape: int) -> Value:
        type_ = TensorType("f32", shape)
        self.tensors.append(Tensor(name, "parameter", type_))
        return tensor(name, type_)


def bert(
    layers: int, *, width: int = 768, heads: int = 12, seq: int = 128, batch: str = "batch"
) -> SafeDAG:
    """BERT's encoder: `layers` blocks of self-attention and a feed-forward net, post-normalised."""
    weights = Weights()

    def linear(x: Value, name: str, inner: int, outer: int) -> Value:
        return apply(
            Linear(), x, weights(f"{name}.weight", outer, inner), weights(f"{name}.bias", outer)
        )

    def norm(x: Value, name: str) -> Value:
        return apply(
            LayerNorm(1, 1e-12), x, weights(f"{name}.weight", width), weights(f"{name}.bias", width)
        )

    def split(x: Value) -> Value:
        return reshape(x, (*x.shape[:2], heads, width // heads)).permute((0, 2, 1, 3))

    h = tensor("hidden", f"f32[{batch} {seq} {width}]")
    for i in range(layers):
        q, k, v = (
            split(linear(h, f"layer.{i}.{n}", width, width)) for n in ("query", "key", "value")
        )
        scores = einsum("bhqd,bhkd->bhqk", q, k) * (1 / (width // heads) ** 0.5)
        mixed = einsum("bhqk,bhkd->bhqd", apply(Softmax(3), scores), v).permute((0, 2, 1, 3))
        context = reshape(mixed, h.shape)
        h = norm(h + linear(context, f"layer.{i}.output", width, width), f"layer.{i}.norm1")
        inner = apply(Gelu("none"), linear(h, f"layer.{i}.up", width, 4 * width))
        h = norm(h + linear(inner, f"layer.{i}.down", 4 * width, width), f"layer.{i}.norm2")
    return SafeDAG.from_values({"hidden_out": h}, weights.tensors, name=f"bert-{layers}")


def nasrnn(steps: int = 5, *, width: int = 512) -> SafeDAG:
    """The recurrent cell of the TASO and TENSAT papers, unrolled; each step has its own weights."""
    weights = Weights()
    state = weights("state", 1, width)
    for step in range(steps):
        x = tensor(f"x{step}", f"f32[1 {width}]")
        t = [
            x @ weights(f"step.{step}.input.{i}", width, width)
            + state @ weights(f"step.{step}.state.{i}", width, width)
            for i in range(8)
        ]
        sums = (t[0].relu() + t[3].sigmoid(), t[1].sigmoid() + t[2].tanh())
        products = (t[4].sigmoid() * t[5].tanh(), t[6].sigmoid() * t[7].relu())
        inner = sums[1].sigmoid() + products[0].tanh()
        state = (inner.tanh() * (sums[0].tanh() * products[1].tanh()).tanh()).tanh()
    return SafeDAG.from_values({"state_out": state}, weights.tensors, name=f"nasrnn-{steps}")
