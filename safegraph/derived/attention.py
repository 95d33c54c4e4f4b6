"""Attention, and the fused layers of PyTorch that contain it."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt
from typing import Any

import numpy as np

from safegraph.derived.base import Derived, randomly
from safegraph.derived.einsum import Einsum, Linear
from safegraph.derived.norm import LayerNorm, Softmax, square_root, widened
from safegraph.derived.pointwise import Gelu, Relu
from safegraph.dims import require_divide, require_same
from safegraph.errors import ShapeError
from safegraph.op import TensorType
from safegraph.value import (
    Value,
    apply,
    binary,
    group,
    iota,
    permute,
    reduce,
    scalar,
    select,
    slice_axis,
    ungroup,
    unsqueeze,
)

MINUS_INFINITY = float("-inf")


class Attention(Derived):
    """softmax(scale * q kᵀ + mask) v: ... l d, ... s d, ... s e -> ... l e

    As `torch.nn.functional.scaled_dot_product_attention`.  A scale of None is 1/√d.  `causal` lets
    place i attend to places 0 ... i.  A mask of bool says which places to attend to, one of numbers
    is added; it broadcasts to [... l s].  A row that a mask leaves nothing to attend to gives 0, or
    NaN where not `safe`: the bare formula, which is what most exported models compute.
    Where q has more heads (axis -3) than k and v, each of theirs serves that many of q.
    """

    scale: float | None = None
    causal: bool = False
    safe: bool = True

    def normal(self, *operands: TensorType) -> Attention:
        return self if len(operands) == 4 else replace(self, safe=True)

    def define(self, q: Value, k: Value, v: Value, mask: Value | None = None) -> Value:
        if not q.rank == k.rank == v.rank >= 2:
            raise ShapeError(
                f"q, k, v have ranks {q.rank}, {k.rank}, {v.rank}: all are [... length, features]"
            )
        shared = _queries_per_head(q, k)
        if shared != 1:
            q = ungroup(q, [(-1,)] * (q.rank - 3) + [(-1, shared), (-1,), (-1,)])
        batch = tuple(range(k.rank - 2))
        query, key, depth, member = range(len(batch), len(batch) + 4)
        rows = (*batch, query) if shared == 1 else (*batch, member, query)
        scores = apply(Einsum((*rows, depth), (*batch, key, depth), (*rows, key)).canonical(), q, k)
        scores = self._masked(self._scaled(scores, q), mask, shared)
        weights = apply(Softmax(scores.rank - 1), scores)
        if mask is not None and self.safe:
            blocked = binary("equal", scores, MINUS_INFINITY)
            weights = select(reduce(blocked, [-1], "all"), 0, weights)
        y = apply(
            Einsum((*rows, key), (*batch, key, depth), (*rows, depth)).canonical(), weights, v
        )
        return y if shared == 1 else group(y, [1] * (y.rank - 4) + [2, 1, 1])

    def _scaled(self, scores: Value, q: Value) -> Value:
        depth = q.shape[-1]
        if self.scale is None and not isinstance(depth, int):
            return scores / square_root(scalar(depth, q.dtype))
        scale = 1 / sqrt(depth) if self.scale is None else self.scale
        return scores if scale == 1 else scores * scale

    def _masked(self, scores: Value, mask: Value | None, shared: Any) -> Value:
        if self.causal:
            row, column = (
                unsqueeze(iota(scores.shape[-2]), [1]),
                unsqueeze(iota(scores.shape[-1]), [0]),
            )
            scores = select(row < column, MINUS_INFINITY, scores)
        if mask is None:
            return scores
        if shared != 1 and mask.rank > 2:  # a mask for each head of q, or one for all
            heads = (1, 1) if mask.shape[-3] == 1 else (-1, shared)
            mask = ungroup(mask, [(-1,)] * (mask.rank - 3) + [heads, (-1,), (-1,)])
        return select(mask, scores, MINUS_INFINITY) if mask.dtype == "bool" else scores + mask

    def run(self, q: Any, k: Any, v: Any, mask: Any = None) -> Any:
        shared = 1 if q.ndim < 3 else q.shape[-3] // k.shape[-3]
        a, b, c = (widened(x) for x in (q, k, v))
        if shared != 1:
            b, c = (np.repeat(x, shared, -3) for x in (b, c))
        scale = 1 / sqrt(q.shape[-1]) if self.scale is None else self.scale
        with np.errstate(all="ignore"):
            scores = a @ np.swapaxes(b, -1, -2) * a.dtype.type(scale)
            if self.causal:
                scores = np.where(
                    np.tri(*scores.shape[-2:]) > 0, scores, scores.dtype.type(-np.inf)
                )
            if mask is not None and mask.dtype == bool:
                scores = np.where(mask, scores, scores.dtype.type(-np.inf))
            elif mask is not None:
                scores = scores + widened(mask)
            weights = Softmax(-1).run(scores)
            if mask is not None and self.safe:
                weights[np.all(scores == -np.inf, axis=-1)] = 0
            return (weights @ c).astype(q.dtype, copy=False)

    @classmethod
    def draw(cls, rng: np.random.Generator, *shapes: tuple[int, ...]) -> Attention | None:
        q, k, v = shapes[:3]
        if (
            not len(q) == len(k) == len(v) > 1
            or k[:-1] != v[:-1]
            or q[-1] != k[-1]
            or 0 in (*q, *k, *v)
        ):
            return None
        if q[:-3] != k[:-3] or (len(q) > 2 and q[-3] % k[-3]):
            return None
        try:
            if shapes[3:] and np.broadcast_shapes(*shapes[3:], (*q[:-1], k[-2])) != (
                *q[:-1],
                k[-2],
            ):
                return None
        except ValueError:
            return None
        return cls(randomly(rng, (None, 0.5)), randomly(rng, (False, True)))


class MultiHead(Derived):
    """multi-head attention: n l e, n s e, n s e -> n l e

    As `aten::_native_multi_head_attention` without a mask: `in_w` [3e, e] and `in_b` hold the
    projections of q, k and v one after the other; `out_w` [e, e] and `out_b` are the last one.
    """

    heads: int

    def define(
        self, q: Value, k: Value, v: Value, in_w: Value, in_b: Value, out_w: Value, out_b: Value
    ) -> Value:
        width = q.shape[-1]
        require_same(in_w.shape[0], 3 * width, "rows of in_w, 3 times the features of q")
        parts = []
        for i, x in enumerate((q, k, v)):
            w, b = (slice_axis(p, 0, i * width, (i + 1) * width) for p in (in_w, in_b))
            split = ungroup(apply(Linear(), x, w, b), [(-1,), (-1,), (self.heads, -1)])
            parts.append(permute(split, (0, 2, 1, 3)))
        joined = group(permute(apply(Attention(None, False), *parts), (0, 2, 1, 3)), [1, 1, 2])
        return apply(Linear(), joined, out_w, out_b)

    @classmethod
    def draw(cls, rng: np.random.Generator, *shapes: tuple[int, ...]) -> MultiHead | None:
        q, k, v, *weights = shapes
        if len(q) != 3 or len(k) != 3 or 0 in (*q, *k) or k != v or (q[0], q[2]) != (k[0], k[-1]):
            return None
        e = q[2]
        if weights != [(3 * e, e), (3 * e,), (e, e), (e,)]:
            return None
        return cls(randomly(rng, [h for h in range(1, e + 1) if e % h == 0]))


class EncoderLayer(Derived):
    """one layer of a transformer encoder: n l e -> n l e

    As `aten::_transformer_encoder_layer_fwd` without a mask: self-attention and a feed-forward
    network, each added to its input and normalised, after the sum or (`norm_first`) before.
    """

    heads: int
    activation: str  # "relu" or "gelu"
    norm_first: bool
    eps: float

    def define(
        self, x: Value, in_w: Value, in_b: Value, out_w: Value, out_b: Value, n1_w: Value,
        n1_b: Value, n2_w: Value, n2_b: Value, w1: Value, b1: Value, w2: Value, b2: Value,
    ) -> Value:  # fmt: skip
        if self.activation not in ("relu", "gelu"):
            raise ShapeError(
                f"there is no activation {self.activation!r} here; there are relu and gelu"
            )
        norm = LayerNorm(1, self.eps)

        def attend(y: Value) -> Value:
            return apply(MultiHead(self.heads), y, y, y, in_w, in_b, out_w, out_b)

        def feed(y: Value) -> Value:
            hidden = apply(Linear(), y, w1, b1)
            active = apply(Relu() if self.activation == "relu" else Gelu("none"), hidden)
            return apply(Linear(), active, w2, b2)

        if self.norm_first:
            x = x + attend(apply(norm, x, n1_w, n1_b))
            return x + feed(apply(norm, x, n2_w, n2_b))
        x = apply(norm, x + attend(x), n1_w, n1_b)
        return apply(norm, x + feed(x), n2_w, n2_b)

    @classmethod
    def draw(cls, rng: np.random.Generator, *shapes: tuple[int, ...]) -> EncoderLayer | None:
        x, *weights = shapes
        if len(x) != 3 or 0 in x or len(weights) != 12 or not weights[8]:
            return None
        e, hidden = x[2], weights[8][0]
        wanted = [
            (3 * e, e),
            (3 * e,),
            (e, e),
            *[(e,)] * 5,
            (hidden, e),
            (hidden,),
            (e, hidden),
            (e,),
        ]
        if weights != wanted:
            return None
        heads = randomly(rng, [h for h in range(1, e + 1) if e % h == 0])
        return cls(heads, randomly(rng, ("relu", "gelu")), randomly(rng, (False, True)), 1e-5)


def _queries_per_head(q: Value, k: Value) -> Any:
    """How many heads of q each head of k serves."""
    if q.rank < 3 or q.shape[-3] == k.shape[-3]:
        return 1
    return require_divide(q.shape[-3], k.shape[-3], "heads of q, of k")


# fmt: off
_QKV = "f32[2 3 4 8], f32[2 3 5 8], f32[2 3 5 6]"
_FEW = "f32[2 6 4 8], f32[2 3 5 8], f32[2 3 5 6]"
Attention.examples = (
    (Attention(None, False), "f32[3 4 8], f32[3 5 8], f32[3 5 6]"),
    (Attention(None, False), _QKV),
    (Attention(1.0, False),  _QKV),
    (Attention(None, True),  _QKV),
    (Attention(None, False), _QKV + ", bool[4 5]"),
    (Attention(None, False), _QKV + ", f32[4 5]"),
    (Attention(None, False), _QKV + ", bool[2 1 4 5]"),
    (Attention(None, False), _QKV + ", f32[2 1 4 5]"),
    (Attention(None, False), _FEW),
    (Attention(None, True),  _FEW),
)
_PROJECTIONS = "f32[24 8], f32[24], f32[8 8], f32[8]"
_NORMS, _FEED = ", ".join(["f32[8]"] * 4), "f32[16 8], f32[16], f32[8 16], f32[8]"
MultiHead.examples = ((MultiHead(2), f"f32[3 4 8], f32[3 5 8], f32[3 5 8], {_PROJECTIONS}"),)
EncoderLayer.examples = tuple(
    (
        EncoderLayer(2, activation, norm_first, 1e-5),
        f"f32[3 4 8], {_PROJECTIONS}, {_NORMS}, {_FEED}",
    )
    for activation in ("relu", "gelu")
    for norm_first in (False, True)
)
# fmt: on

__all__ = ["Attention", "EncoderLayer", "MultiHead"]
