"""Single ops whose multiply-adds are known by hand: what counters of costs get wrong most."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.cost_models import ONE, Case


class Probe(nn.Module):
    """One function of the inputs and of weights of these shapes."""

    def __init__(self, function: Callable[..., Tensor], *shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.function = function
        self.weights = nn.ParameterList(torch.randn(shape) for shape in shapes)

    def forward(self, *xs: Tensor) -> Tensor:
        return self.function(*xs, *self.weights)


class First(nn.Module):
    """The first result of a module."""

    def __init__(self, inner: nn.Module, copies: int = 1) -> None:
        super().__init__()
        self.inner, self.copies = inner, copies

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(*[x] * self.copies)[0]


class Cells(nn.Module):
    """Ten steps of a cell."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(16, 32)

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(x.shape[0], 32)
        for i in range(10):
            h, c = self.cell(x[:, i], (h, c))
        return h


class Layer(nn.Module):
    """A layer, called by keyword-free forward."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


class Twice(nn.Module):
    """A module of two inputs, given one twice."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x, x)


def _op(
    function: Callable[..., Tensor], macs: int, *types: str, weights: tuple[Any, ...] = ()
) -> Case:
    return Case(lambda: Probe(function, *weights), types, macs, ONE)


def _layer(make: Callable[[], nn.Module], macs: int, *types: str) -> Case:
    return Case(lambda: Layer(make()), types, macs, ONE)


ATTENTION = 2 * 4 * 16 * 16 * 8  # q kT and weights v: 4 heads, 16 places, 8 features

PROBES: dict[str, Case] = {
    "a @ b": _op(lambda a, b: a @ b, 8 * 16 * 32, "f32[8 16]", "f32[16 32]"),
    "a @ v": _op(lambda a, b: a @ b, 8 * 16, "f32[8 16]", "f32[16]"),
    "bmm": _op(torch.bmm, 4 * 8 * 16 * 32, "f32[4 8 16]", "f32[4 16 32]"),
    "addmm": _op(torch.addmm, 8 * 16 * 32, "f32[8 32]", "f32[8 16]", "f32[16 32]"),
    "baddbmm": _op(torch.baddbmm, 4 * 8 * 16 * 32, "f32[4 8 32]", "f32[4 8 16]", "f32[4 16 32]"),
    "einsum": _op(
        lambda q, k: torch.einsum("bhqd,bhkd->bhqk", q, k),
        2 * 4 * 16 * 16 * 8,
        "f32[2 4 16 8]",
        "f32[2 4 16 8]",
    ),
    "tensordot": _op(
        lambda a, b: torch.tensordot(a, b, dims=([1, 2], [0, 1])),
        3 * 4 * 5 * 6,
        "f32[3 4 5]",
        "f32[4 5 6]",
    ),
    "W @ unfold": _op(lambda x, w: w @ x, 2 * 16 * 72 * 144, "f32[2 72 144]", weights=((16, 72),)),
    "attention fused": _op(F.scaled_dot_product_attention, ATTENTION, *["f32[1 4 16 8]"] * 3),
    "attention causal": _op(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        ATTENTION,
        *["f32[1 4 16 8]"] * 3,
    ),
    "attention spelt": _op(
        lambda q, k, v: torch.softmax(q @ k.transpose(-1, -2) / 8**0.5, -1) @ v,
        ATTENTION,
        *["f32[1 4 16 8]"] * 3,
    ),
    "multi-head": Case(
        lambda: First(nn.MultiheadAttention(32, 4, batch_first=True), 3),
        ("f32[1 16 32]",),
        16 * 4 * 32 * 32 + ATTENTION,
        ONE,
    ),
    "encoder layer": _layer(
        lambda: nn.TransformerEncoderLayer(32, 4, 64, batch_first=True),
        16 * (4 * 32 * 32 + 2 * 32 * 64) + ATTENTION,
        "f32[1 16 32]",
    ),
    "LSTM": Case(
        lambda: First(nn.LSTM(16, 32, batch_first=True)),
        ("f32[2 10 16]",),
        2 * 10 * 4 * 32 * (16 + 32),
        ONE,
    ),
    "GRU": Case(
        lambda: First(nn.GRU(16, 32, batch_first=True)),
        ("f32[2 10 16]",),
        2 * 10 * 3 * 32 * (16 + 32),
        ONE,
    ),
    "LSTMCell x10": Case(Cells, ("f32[2 10 16]",), 2 * 10 * 4 * 32 * (16 + 32), ONE),
    "F.conv2d": _op(
        lambda x, w: F.conv2d(x, w, padding=1),
        144 * 16 * 8 * 9,
        "f32[1 8 12 12]",
        weights=((16, 8, 3, 3),),
    ),
    "F.linear": _op(F.linear, 4 * 16 * 32, "f32[4 16]", weights=((32, 16),)),
    "Linear on 3-D": _layer(lambda: nn.Linear(16, 32), 2 * 14 * 16 * 32, "f32[2 14 16]"),
    "Bilinear": _layer(
        lambda: Twice(nn.Bilinear(8, 8, 16)), 4 * 16 * 8 * 8 + 4 * 16 * 8, "f32[4 8]"
    ),
    "cdist": _op(torch.cdist, 30 * 30 * (8 + 2), "f32[30 8]", "f32[30 8]"),
    "Conv1d": _layer(lambda: nn.Conv1d(8, 16, 3, padding=1), 20 * 16 * 8 * 3, "f32[1 8 20]"),
    "Conv3d": _layer(lambda: nn.Conv3d(4, 8, 3, padding=1), 216 * 8 * 4 * 27, "f32[1 4 6 6 6]"),
    "conv strided": _layer(lambda: nn.Conv2d(8, 16, 3, 2, 1), 36 * 16 * 8 * 9, "f32[1 8 12 12]"),
    "conv dilated": _layer(
        lambda: nn.Conv2d(8, 16, 3, 1, 2, 2), 144 * 16 * 8 * 9, "f32[1 8 12 12]"
    ),
    "depthwise": _layer(
        lambda: nn.Conv2d(8, 8, 3, padding=1, groups=8), 144 * 8 * 9, "f32[1 8 12 12]"
    ),
    "grouped": _layer(
        lambda: nn.Conv2d(8, 16, 3, padding=1, groups=4), 144 * 16 * 2 * 9, "f32[1 8 12 12]"
    ),
    "conv transposed": _layer(
        lambda: nn.ConvTranspose2d(8, 16, 4, 2, 1), 144 * 8 * 16 * 16, "f32[1 8 12 12]"
    ),
    "transposed grouped": _layer(
        lambda: nn.ConvTranspose2d(8, 16, 4, 2, 1, groups=4), 144 * 8 * 4 * 16, "f32[1 8 12 12]"
    ),
    "softmax": _op(lambda x: torch.softmax(x, -1), 0, "f32[4 16]"),
    "GELU": _op(F.gelu, 0, "f32[4 16]"),
    "x + y": _op(torch.add, 0, "f32[4 16]", "f32[4 16]"),
    "sum": _op(lambda x: x.sum(-1), 0, "f32[4 16]"),
    "layer norm": _layer(lambda: nn.LayerNorm(16), 0, "f32[4 16]"),
}
