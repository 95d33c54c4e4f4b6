"""Programs that JAX and SafeGraph both have, for XLA's own count of them.

    python benchmarks/cost_jax.py          # needs jax; prints {program: [flops, transcendentals]}

XLA counts here as `jax.jit(f).lower(...).cost_analysis()` reports it, before any optimisation.
JAX is not needed to use this module: `RECORDED` has what jax 0.10.2 gave.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

# program: the shapes of its operands
SHAPES: dict[str, tuple[tuple[int, ...], ...]] = {
    "matrix product": ((8, 16), (16, 32)),
    "batched product": ((4, 8, 16), (4, 16, 32)),
    "linear, relu, linear": ((8, 16), (16, 32), (32,), (32, 4), (4,)),
    "softmax": ((4, 6, 16),),
    "layer norm": ((4, 6, 16), (16,), (16,)),
    "rms norm": ((4, 6, 16), (16,)),
    "tanh gelu": ((4, 6, 16),),
    "silu": ((4, 6, 16),),
    "transcendental": ((4, 6, 16),),
    "simple": ((4, 6, 16), (4, 6, 16)),
    "attention": ((2, 4, 8, 16), (2, 4, 8, 16), (2, 4, 8, 16)),
    "reductions": ((4, 6, 16),),
    "max pool": ((1, 3, 12, 12),),
    "conv": ((1, 8, 12, 12), (16, 8, 3, 3)),
    "conv strided, dilated": ((2, 8, 15, 13), (16, 8, 3, 5)),
    "conv grouped, even kernel": ((1, 8, 12, 12), (16, 2, 4, 2)),
    "conv transposed": ((1, 8, 12, 12), (8, 16, 4, 4)),
    "transformer block": ((2, 8, 32), (32, 96), (32, 32), (32, 64), (64, 32)),
}

RECORDED: dict[str, tuple[int, int]] = {
    "matrix product": (8192, 0),
    "batched product": (32768, 0),
    "linear, relu, linear": (10784, 0),
    "softmax": (1488, 384),
    "layer norm": (2712, 24),
    "rms norm": (1560, 24),
    "tanh gelu": (3072, 384),
    "silu": (1536, 384),
    "transcendental": (0, 2688),
    "simple": (2688, 0),
    "attention": (35200, 512),
    "reductions": (1152, 0),
    "max pool": (600, 0),
    "conv": (295936, 0),
    "conv strided, dilated": (450560, 0),
    "conv grouped, even kernel": (64768, 0),
    "conv transposed": (541696, 0),
    "transformer block": (288960, 1280),
}


def in_jax() -> dict[str, Callable[..., Any]]:
    """The programs as functions of JAX arrays."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    def softmax(x: Any) -> Any:
        e = jnp.exp(x - jnp.max(x, -1, keepdims=True))
        return e / jnp.sum(e, -1, keepdims=True)

    def layer_norm(x: Any, w: Any, b: Any) -> Any:
        d = x - jnp.mean(x, -1, keepdims=True)
        return d / jnp.sqrt(jnp.mean(d * d, -1, keepdims=True) + 1e-5) * w + b

    def rms_norm(x: Any, w: Any) -> Any:
        return x / jnp.sqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6) * w

    def gelu(x: Any) -> Any:
        return 0.5 * x * (1 + jnp.tanh(0.8 * (x + 0.044715 * (x * x * x))))

    def attention(q: Any, k: Any, v: Any) -> Any:
        return softmax((q @ jnp.swapaxes(k, -1, -2)) * 0.25) @ v

    def block(x: Any, qkv: Any, out: Any, up: Any, down: Any) -> Any:
        n, s, d = x.shape
        q, k, v = jnp.transpose((x @ qkv).reshape(n, s, 3, 2, d // 2), (2, 0, 3, 1, 4))
        x = x + jnp.transpose(attention(q, k, v), (0, 2, 1, 3)).reshape(n, s, d) @ out
        return x + gelu(x @ up) @ down

    def conv(strides: Any, pads: Any, dilations: Any, groups: int) -> Callable[..., Any]:
        def apply(x: Any, w: Any) -> Any:
            return lax.conv_general_dilated(
                x, w, strides, pads, rhs_dilation=dilations, feature_group_count=groups
            )

        return apply

    def transposed(x: Any, w: Any) -> Any:
        kernel = jnp.transpose(w, (1, 0, 2, 3))
        return lax.conv_general_dilated(x, kernel, (1, 1), ((2, 2), (2, 2)), lhs_dilation=(2, 2))

    def pool(x: Any) -> Any:
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 3, 3), (1, 1, 2, 2), "VALID")

    return {
        "matrix product": lambda x, y: x @ y,
        "batched product": lambda x, y: x @ y,
        "linear, relu, linear": lambda x, a, b, c, d: jnp.maximum(x @ a + b, 0.0) @ c + d,
        "softmax": softmax,
        "layer norm": layer_norm,
        "rms norm": rms_norm,
        "tanh gelu": gelu,
        "silu": lambda x: x * jax.lax.logistic(x),
        "transcendental": lambda x: lax.expm1(
            lax.log1p(lax.rsqrt(jnp.sqrt(jnp.exp(lax.erf(jnp.sin(x))))))
        ),
        "simple": lambda x, y: jnp.where(
            x < y, jnp.floor(jnp.abs(x)), jnp.sign(lax.clamp(0.0, lax.max(x, y), 1.0))
        ),
        "attention": attention,
        "reductions": lambda x: jnp.sum(x, (0, 2)) + jnp.max(x, (0, 2)) + jnp.mean(x, (0, 2)),
        "max pool": pool,
        "conv": conv((1, 1), ((1, 1), (1, 1)), (1, 1), 1),
        "conv strided, dilated": conv((2, 1), ((2, 0), (3, 1)), (1, 2), 1),
        "conv grouped, even kernel": conv((1, 1), ((1, 2), (1, 0)), (1, 1), 4),
        "conv transposed": transposed,
        "transformer block": block,
    }


def in_safegraph() -> dict[str, Callable[..., Any]]:
    """The same programs as functions of SafeGraph's values."""
    from safegraph import value as v
    from safegraph.derived.attention import Attention
    from safegraph.derived.conv import Conv, ConvTranspose
    from safegraph.derived.norm import LayerNorm, RmsNorm, Softmax
    from safegraph.derived.pointwise import (
        Abs,
        Clip,
        Erf,
        Expm1,
        Gelu,
        Log1p,
        Relu,
        Rsqrt,
        Silu,
        Sqrt,
    )
    from safegraph.derived.pool import MaxPool
    from safegraph.ops import Unary
    from safegraph.value import apply

    def chain(x: Any, *ops: Any) -> Any:
        for op in ops:
            x = apply(op, x)
        return x

    def conv(strides: Any, before: Any, after: Any, dilations: Any, groups: int) -> Any:
        return lambda x, w: apply(Conv(strides, before, after, dilations, groups), x, w)

    def block(x: Any, qkv: Any, out: Any, up: Any, down: Any) -> Any:
        n, s, d = x.shape
        parts = v.permute(v.ungroup(x @ qkv, [(n,), (s,), (3, 2, d // 2)]), (2, 0, 3, 1, 4))
        q, k, u = (v.squeeze(v.slice_axis(parts, 0, i, i + 1), [0]) for i in range(3))
        y = v.permute(apply(Attention(), q, k, u), (0, 2, 1, 3))
        x = x + v.group(y, [1, 1, 2]) @ out
        return x + apply(Gelu("tanh"), x @ up) @ down

    def reductions(x: Any) -> Any:
        a, b, c = (v.reduce(x, (0, 2), kind) for kind in ("sum", "max", "mean"))
        return a + b + c

    return {
        "matrix product": lambda x, y: x @ y,
        "batched product": lambda x, y: x @ y,
        "linear, relu, linear": lambda x, a, b, c, d: apply(Relu(), x @ a + b) @ c + d,
        "softmax": lambda x: apply(Softmax(-1), x),
        "layer norm": lambda x, w, b: apply(LayerNorm(1), x, w, b),
        "rms norm": lambda x, w: apply(RmsNorm(1), x, w),
        "tanh gelu": lambda x: apply(Gelu("tanh"), x),
        "silu": lambda x: apply(Silu(), x),
        "transcendental": lambda x: chain(
            x.sin(), Erf(), Unary("exp"), Sqrt(), Rsqrt(), Log1p(), Expm1()
        ),
        "simple": lambda x, y: v.select(
            x < y,
            chain(x, Abs(), Unary("floor")),
            chain(x.maximum(y), Clip(0.0, 1.0), Unary("sign")),
        ),
        "attention": lambda q, k, u: apply(Attention(), q, k, u),
        "reductions": reductions,
        "max pool": lambda x: apply(MaxPool((3, 3), (2, 2), (0, 0), (0, 0), (1, 1)), x),
        "conv": conv((1, 1), (1, 1), (1, 1), (1, 1), 1),
        "conv strided, dilated": conv((2, 1), (2, 3), (0, 1), (1, 2), 1),
        "conv grouped, even kernel": conv((1, 1), (1, 1), (2, 0), (1, 1), 4),
        "conv transposed": lambda x, w: apply(
            ConvTranspose((2, 2), (1, 1), (1, 1), (1, 1), 1, (0, 0)), x, w
        ),
        "transformer block": block,
    }


def ours(name: str) -> tuple[int, int]:
    """Flops and transcendental functions as the xla convention counts them."""
    from safegraph import SafeDAG, tensor
    from safegraph.extract.cost import cost
    from safegraph.op import TensorType

    types = (TensorType("f32", shape) for shape in SHAPES[name])
    xs = [tensor(f"x{i}", t) for i, t in enumerate(types)]
    found = cost(SafeDAG.from_values({"y": in_safegraph()[name](*xs)}), convention="xla")
    return int(found.counted), int(found.apart)


def theirs() -> dict[str, tuple[int, int]]:
    """What XLA counts.  Needs jax."""
    import jax
    import numpy as np

    found = {}
    for name, function in in_jax().items():
        args = [jax.ShapeDtypeStruct(shape, np.float32) for shape in SHAPES[name]]
        counted = jax.jit(function).lower(*args).cost_analysis()
        found[name] = (int(counted.get("flops", 0)), int(counted.get("transcendentals", 0)))
    return found


if __name__ == "__main__":
    print(json.dumps(theirs()))
