"""Programs of matrix products that every optimizer in use leaves slower than they need be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding, linear, relu

from benchmarks.cases import CASES as FIRST
from benchmarks.cases import Case
from benchmarks.rewrites_base import Weights, images, normal, stored, tokens, written


def _onnx(
    nodes: Sequence[tuple[str, str, str, dict[str, Any]]], *shapes: tuple[int, ...]
) -> Callable[[Path], None]:
    """A maker of an ONNX file; nodes are (op, inputs, outputs, attributes), from x0 x1 ... to y."""

    def export(path: Path) -> None:
        import onnx
        from onnx import TensorProto, helper

        inputs = [
            helper.make_tensor_value_info(f"x{place}", TensorProto.FLOAT, shape)
            for place, shape in enumerate(shapes)
        ]
        output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        made = [
            helper.make_node(op, sources.split(), results.split(), **attributes)
            for op, sources, results, attributes in nodes
        ]
        graph = helper.make_graph(made, "program", inputs, [output])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        onnx.save(onnx.shape_inference.infer_shapes(model, strict_mode=True), path)

    return export


def _einsum(
    name: str,
    equation: str,
    *shapes: tuple[int, ...],
    better: Callable[..., Tensor],
    deviation: float,
) -> Case:
    """A program that is one ONNX Einsum node; torch's exporter would take it apart."""
    names = " ".join(f"x{place}" for place in range(len(shapes)))
    return written(
        name,
        lambda *xs: torch.einsum(equation, *xs),
        better,
        lambda: tuple(stored(normal(s, 1 + n) * deviation) for n, s in enumerate(shapes)),
        export_given=_onnx([("Einsum", names, "y", {"equation": equation})], *shapes),
    )


# -- linear layers ---------------------------------------------------------------------------------


def _one_linear(w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Weights:
    return {"w": w2 @ w1, "b": w2 @ b1 + b2}


def _split_layer(w1: Tensor, **rest: Tensor) -> Weights:
    return {"user_part": w1[:, :448], "item_part": w1[:, 448:], **rest}


def _ranking(user: Tensor, items: Tensor, *weights: Tensor) -> Tensor:
    w1, b1, w2, b2, w3, b3 = weights
    x = torch.cat([user.expand(items.shape[0], -1), items], 1)
    return linear(relu(linear(relu(linear(x, w1, b1)), w2, b2)), w3, b3)


def _ranking_split(user: Tensor, items: Tensor, *weights: Tensor) -> Tensor:
    user_part, item_part, b1, w2, b2, w3, b3 = weights
    x = linear(items, item_part) + linear(user, user_part, b1)
    return linear(relu(linear(relu(x), w2, b2)), w3, b3)


# -- attention and graphs --------------------------------------------------------------------------


def _repeated_heads(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    batch, heads, length, width = k.shape
    k, v = (
        x[:, :, None].expand(batch, heads, 4, length, width).reshape(batch, -1, length, width)
        for x in (k, v)
    )
    return torch.softmax(q @ k.transpose(-1, -2) * width**-0.5, -1) @ v


def _grouped_heads(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    batch, heads, _, width = k.shape
    grouped = q.reshape(batch, heads, 4, width)
    weights = torch.softmax(grouped @ k.transpose(-1, -2) * width**-0.5, -1)
    return (weights @ v).reshape(q.shape)


def _rows(x: Tensor, at: Tensor) -> Tensor:
    """The rows of x at these places, in their shape."""
    return x.index_select(0, at.flatten()).reshape(*at.shape, -1)


def _edge_conv(x: Tensor, neighbours: Tensor, w: Tensor) -> Tensor:
    there = _rows(x, neighbours)
    here = x[:, None].expand_as(there)
    return torch.cat([there - here, here], -1) @ w


def _graph() -> tuple[Tensor, ...]:
    (neighbours,) = tokens(1024, 1024, 20)()
    return stored(normal((1024, 64), 1)), neighbours


def _unnormalized(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.reshape(64, 16, 64).transpose(0, 1) for x in (q, k, v))
    return ((q @ k) @ v).transpose(0, 1).reshape(64, 1024)


def _tensat_bert(x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
    x = relu(x)
    outs = []
    for place in range(0, len(weights), 4):
        q, k, v, following = weights[place : place + 4]
        outs.append(_unnormalized(x @ q, x @ k, x @ v))
        x = x @ following
    return (*outs, x)


def _tensat_bert_ahead(x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
    x = relu(x)
    *inner, last = weights
    triples = (inner[place : place + 3] for place in range(0, len(inner), 3))
    return (*(_unnormalized(x @ q, x @ k, x @ v) for q, k, v in triples), x @ last)


def _multiplied_ahead(**weights: Tensor) -> Weights:
    found: Weights = {}
    before = torch.eye(1024, dtype=torch.float64)
    for layer in range(8):
        for name in "qkv":
            found[f"{name}{layer}"] = before @ weights[f"{name}{layer}"]
        before = before @ weights[f"x{layer}"]
    return found | {"x": before}


# -- the table -------------------------------------------------------------------------------------


def _first(number: str) -> Case:
    """A case of `benchmarks.cases`, which has those that were wanted first."""
    return next(c for c in FIRST if c.name.startswith(number))


_SQUARE = {"a": (768, 768), "b": (768, 768)}
_LINEARS = {"w1": (3072, 768), "b1": (3072,), "w2": (768, 3072), "b2": (768,)}
_MLP = {
    "w1": (256, 512),
    "b1": (256,),
    "w2": (64, 256),
    "b2": (64,),
    "w3": (1, 64),
    "b3": (1,),
}
_TENSAT = {f"{name}{layer}": (1024, 1024) for layer in range(8) for name in "qkvx"}

_SPLIT: list[tuple[str, str, str, dict[str, Any]]] = [
    ("Split", "x0", "p0 p1 p2 p3", {"axis": 1, "num_outputs": 4}),
    *(("Relu", f"p{place}", f"r{place}", {}) for place in range(4)),
    ("Concat", "r0 r1 r2 r3", "y", {"axis": 1}),
]
"""Split by one node: torch's exporter, told to optimize nothing, makes a sequence of tensors."""

LINEAR = (
    _first("03a"),
    _first("03c"),
    _first("04"),
    _einsum(
        "05a einsum of a matrix chain ab,bc,cd,de->ae",
        "ab,bc,cd,de->ae",
        (1024, 512),
        (512, 1024),
        (1024, 512),
        (512, 16),
        better=lambda a, b, c, d: a @ (b @ (c @ d)),
        deviation=0.07,
    ),
    _einsum(
        "05b einsum of a bilinear form bn,anm,bm->ba",
        "bn,anm,bm->ba",
        (32, 256),
        (64, 256, 256),
        (32, 256),
        better=lambda x, w, y: ((x @ w) * y).sum(-1).T,
        deviation=0.16,
    ),
    written(
        "06a two linear layers",
        lambda x, w1, b1, w2, b2: linear(linear(x, w1, b1), w2, b2),
        lambda x, w, b: linear(x, w, b),
        images((128, 768)),
        weights=_LINEARS,
        summed={"w1": 768, "w2": 3072},
        fold=_one_linear,
    ),
    written(
        "07a adapter x W + 2 (x A) B",
        lambda x, w, a, b: x @ w + 2 * ((x @ a) @ b),
        lambda x, w: x @ w,
        images((128, 1024)),
        weights={"w": (1024, 1024), "a": (1024, 16), "b": (16, 1024)},
        fold=lambda w, a, b: {"w": w + 2 * a @ b},
    ),
    written(
        "08d split, relu of each, concat",
        lambda x: torch.cat([relu(part) for part in x.split(1024, 1)], 1),
        lambda x: relu(x),
        images((128, 4096)),
        export_given=_onnx(_SPLIT, (128, 4096)),
    ),
    _first("11a"),
    written(
        "13a concat(expand(u), i) @ W",
        lambda u, i, w: torch.cat([u.expand(512, 512), i], 1) @ w,
        lambda u, i, w1, w2: u @ w1 + i @ w2,
        images((1, 512), (512, 64)),
        weights={"w": (576, 256)},
        fold=lambda w: {"w1": w[:512], "w2": w[512:]},
    ),
    written(
        "13c EdgeConv concat(x[idx] - x, x) @ W",
        _edge_conv,
        lambda x, idx, a, b: _rows(x @ a, idx) + (x @ b)[:, None],
        _graph,
        weights={"w": (128, 64)},
        fold=lambda w: {"a": w[:64], "b": w[64:] - w[:64]},
    ),
    written(
        "13d attention of 32 heads to 8 repeated ones",
        _repeated_heads,
        _grouped_heads,
        images((1, 32, 1, 128), (1, 8, 2048, 128), (1, 8, 2048, 128)),
    ),
    written(
        "14a (x @ W).mean(1)",
        lambda x, w: (x @ w).mean(1),
        lambda x, w: x.mean(1) @ w,
        images((1, 128, 768)),
        weights={"w": (768, 768)},
    ),
    _first("14c"),
    written(
        "15b x @ A + x @ B, all inputs",
        lambda x, a, b: x @ a + x @ b,
        lambda x, a, b: x @ (a + b),
        lambda: (
            stored(normal((128, 768), 1)),
            *(stored(normal((768, 768), seed) * 768**-0.5) for seed in (2, 3)),
        ),
    ),
    written(
        "15c x @ A + x @ B, constants",
        lambda x, a, b: x @ a + x @ b,
        lambda x, c: x @ c,
        images((128, 768)),
        weights=_SQUARE,
        fold=lambda a, b: {"c": a + b},
    ),
    written(
        "15e affine chain ((2x + 1) 3 - 0.5) / 4",
        lambda x: ((2 * x + 1) * 3 - 0.5) / 4,
        lambda x: 1.5 * x + 0.625,
        images((1024, 1024)),
    ),
    written(
        "17a embedding, then @ W",
        lambda ids, table, w: embedding(ids, table) @ w,
        lambda ids, table: embedding(ids, table),
        tokens(30000, 128),
        weights={"table": (30000, 128), "w": (128, 768)},
        summed={"table": 1},
        fold=lambda table, w: {"table": table @ w},
    ),
    written(
        "45a graph convolution relu(A @ (x @ W))",
        lambda a, x, w: relu(a @ (x @ w)),
        lambda a, x, w: relu((a @ x) @ w),
        lambda: (stored(normal((1024, 1024), 1) / 32), stored(normal((1024, 16), 2))),
        weights={"w": (16, 256)},
    ),
    written(
        "47 ranking: a network on concat(expand(user), items)",
        _ranking,
        _ranking_split,
        images((1, 448), (1000, 64)),
        weights=_MLP,
        summed={"w1": 512, "w2": 256, "w3": 64},
        fold=_split_layer,
    ),
    written(
        "50b TENSAT's BERT: chains of weights",
        _tensat_bert,
        _tensat_bert_ahead,
        images((64, 1024)),
        weights=_TENSAT,
        summed={f"{name}{layer}": 64 * 1024 for layer in range(8) for name in "qv"},
        fold=_multiplied_ahead,
    ),
)
