"""The models that the TorchScript tests read and write: small, random, in evaluation mode."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def torchvision_models() -> ModuleType:
    """`torchvision.models`, importable whichever build of torch it was compiled for."""
    # torchvision registers Python parts of these ops on import.  Where its compiled part does not
    # load (it is linked against another build of torch) they must exist before; no model runs them.
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            _LIBRARY.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

    from torchvision import models

    return models


_LIBRARY = torch.library.Library("torchvision", "FRAGMENT")


class ConvNet(nn.Module):
    """Four convolutions with batch norm, pooling and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 8, 16, 16, 32)
        layers: list[nn.Module] = []
        for i, (a, b) in enumerate(pairwise(widths)):
            layers += [
                nn.Conv2d(a, b, 3, stride=1 + i % 2, padding=1),
                nn.BatchNorm2d(b),
                nn.ReLU(True),
            ]
        self.features = nn.Sequential(*layers, nn.MaxPool2d(2))
        self.classifier = nn.Linear(widths[-1], 10)
        self.register_buffer("offset", torch.rand(10))
        self.shift = torch.rand(10)  # neither parameter nor buffer: a constant
        _settle(self)

    def forward(self, x: Tensor) -> Tensor:
        y = self.features(x).mean((2, 3))
        return self.classifier(y) * self.offset + self.shift


def _settle(module: nn.Module) -> None:
    """Statistics of batch norms that are not 0 and 1, as after training."""
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.uniform_(m.running_mean, -0.5, 0.5)
            nn.init.uniform_(m.running_var, 0.5, 2)
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.uniform_(m.bias, -0.5, 0.5)


class Block(nn.Module):
    """A decoder layer: causal attention, written by hand or fused, and a feed-forward network."""

    mask: Tensor

    def __init__(self, width: int, heads: int, length: int, fused: bool) -> None:
        super().__init__()
        self.heads, self.fused = heads, fused
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(), nn.Linear(4 * width, width)
        )
        self.register_buffer("mask", torch.tril(torch.ones(length, length)))

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        q, k, v = (
            p.view(n, length, self.heads, width // self.heads).transpose(1, 2)
            for p in self.qkv(self.norm1(x)).chunk(3, dim=-1)
        )
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            scores = q @ k.transpose(-2, -1) / (q.size(-1) ** 0.5)
            scores = scores.masked_fill(self.mask[:length, :length] == 0, float("-inf"))
            y = torch.softmax(scores, dim=-1) @ v
        x = x + self.out(y.transpose(1, 2).contiguous().view(n, length, width))
        return x + self.feed(self.norm2(x))


class Decoder(nn.Module):
    """A small GPT: embeddings, decoder layers, logits with tied weights."""

    def __init__(
        self, fused: bool = False, words: int = 50, width: int = 32, length: int = 16
    ) -> None:
        super().__init__()
        self.word = nn.Embedding(words, width)
        self.place = nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width, 4, length, fused) for _ in range(2))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, words, bias=False)
        self.head.weight = self.word.weight

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.size(1), device=tokens.device)
        x = self.word(tokens) + self.place(places)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def encoder() -> nn.Module:
    """Two layers, which a trace without gradients records as one fused op each."""
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    return nn.TransformerEncoder(layer, 2)


def _images(size: int) -> Callable[[], Tensor]:
    return lambda: torch.rand(2, 3, size, size)


def _tokens() -> Tensor:
    return torch.randint(50, (2, 11))


# name: (the model, an input)
MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "convnet": (ConvNet, _images(20)),
    "encoder": (encoder, lambda: torch.rand(3, 7, 32)),
    "decoder": (Decoder, _tokens),
    "decoder_fused": (lambda: Decoder(fused=True), _tokens),
    "resnet18": (lambda: torchvision_models().resnet18(), _images(64)),
    "mobilenet_v2": (lambda: torchvision_models().mobilenet_v2(), _images(64)),
    "vit_b_16": (lambda: torchvision_models().vit_b_16(), _images(224)),
}
SMALL = ("convnet", "encoder", "decoder", "decoder_fused")


@cache
def traced(name: str) -> tuple[torch.jit.ScriptModule, Tensor]:
    """A model in evaluation mode, traced without gradients, and its example input."""
    make, example = MODELS[name]
    torch.manual_seed(0)
    model: Any = make().eval()
    if name in ("resnet18", "mobilenet_v2"):
        _settle(model)
    if name == "vit_b_16":  # whose last layer starts as zeros
        nn.init.normal_(model.heads.head.weight, std=0.02)
    x = example()
    with torch.no_grad():
        return torch.jit.trace(model, x), x
