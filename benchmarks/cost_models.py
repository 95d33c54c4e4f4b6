"""The networks and single ops whose multiply-adds are known by hand, in plain PyTorch.

Each has a closed form for one example: the counts of the literature (ResNet-50, MobileNetV2, ViT),
or the formula of its layers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Case:
    """A model, its inputs for one example, the free sizes of those, and its multiply-adds."""

    make: Callable[[], nn.Module]
    types: tuple[str, ...]
    macs: int
    sizes: dict[str, int]

    def inputs(self, **sizes: int) -> tuple[Tensor, ...]:
        """Random inputs for these sizes (those of the case where none are given)."""
        scope = self.sizes | sizes
        found = []
        for text in self.types:
            dtype, _, shape = text.removesuffix("]").partition("[")
            dims = [eval(part, {}, scope) for part in shape.split()]
            found.append(torch.randint(20, dims) if dtype == "i64" else torch.randn(dims))
        return tuple(found)

    def model(self) -> nn.Module:
        """The model with random weights, in evaluation mode."""
        torch.manual_seed(0)
        return self.make().eval()


def torchvision_models() -> Any:
    """`torchvision.models`, importable whichever build of torch it was compiled for."""
    # It wants its own ops declared; its networks for classification run none of them.
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            _LIBRARY.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from torchvision import models

    return models


_LIBRARY = torch.library.Library("torchvision", "FRAGMENT")


class Block(nn.Module):
    """A transformer layer, before or after normalisation, with attention fused or written out."""

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def attend(self, x: Tensor) -> Tensor:
        b, n, width = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, width // self.heads).unbind(2)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if self.causal:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            scores = q @ k.transpose(-1, -2) * (width // self.heads) ** -0.5
            y = torch.softmax(scores, -1) @ v
        return self.out(y.transpose(1, 2).reshape(b, n, width))

    def forward(self, x: Tensor) -> Tensor:
        if self.causal:
            x = x + self.attend(self.norm1(x))
            return x + self.down(F.gelu(self.up(self.norm2(x))))
        x = self.norm1(x + self.attend(x))
        return self.norm2(x + self.down(F.gelu(self.up(x))))


class Transformer(nn.Module):
    """Like BERT (pooled first token) or like GPT-2 (causal, logits of every token)."""

    def __init__(
        self, layers: int = 12, width: int = 768, words: int = 50257, *, causal: bool = False
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.places = nn.Parameter(torch.randn(1024, width))
        self.blocks = nn.ModuleList(Block(width, width // 64, causal=causal) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.causal = causal
        self.head = nn.Linear(width, words, bias=False) if causal else nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.words(tokens) + self.places[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return self.head(x) if self.causal else torch.tanh(self.head(x[:, 0]))


class Recurrent(nn.Module):
    """An LSTM of two layers, and a classifier of the last step."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(128, 256, 2, batch_first=True)
        self.head = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


class Double(nn.Sequential):
    """Two convolutions of a U-Net."""

    def __init__(self, a: int, b: int) -> None:
        first = (nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
        second = (nn.Conv2d(b, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
        super().__init__(*first, *second)


class UNet(nn.Module):
    """Four levels, joined by concatenation."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        widths = [width << i for i in range(4)]
        self.down = nn.ModuleList(Double(a, b) for a, b in zip([3, *widths], widths, strict=False))
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(2 * a, a, 2, stride=2) for a in reversed(widths[:-1])
        )
        self.join = nn.ModuleList(Double(2 * a, a) for a in reversed(widths[:-1]))
        self.head = nn.Conv2d(width, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for i, down in enumerate(self.down):
            x = down(F.max_pool2d(x, 2) if i else x)
            kept.append(x)
        for up, join, skip in zip(self.up, self.join, reversed(kept[:-1]), strict=True):
            x = join(torch.cat([skip, up(x)], 1))
        return self.head(x)


def generator(width: int = 64) -> nn.Module:
    """The generator of DCGAN."""
    layers: list[nn.Module] = [nn.ConvTranspose2d(100, 8 * width, 4, 1, 0, bias=False)]
    for scale in (8, 4, 2):
        layers += [nn.BatchNorm2d(scale * width), nn.ReLU()]
        layers += [nn.ConvTranspose2d(scale * width, scale * width // 2, 4, 2, 1, bias=False)]
    layers += [nn.BatchNorm2d(width), nn.ReLU(), nn.ConvTranspose2d(width, 3, 4, 2, 1, bias=False)]
    return nn.Sequential(*layers, nn.Tanh())


IMAGE = ("f32[batch 3 224 224]",)
ONE = {"batch": 1}
TOKENS = ("i64[batch seq]",)
TEXT = {"batch": 1, "seq": 128}


def _vision(name: str, macs: int) -> Case:
    return Case(lambda: getattr(torchvision_models(), name)(), IMAGE, macs, ONE)


# fmt: off
MODELS: dict[str, Case] = {
    "resnet50":    _vision("resnet50", 4_089_184_256),
    "mobilenetv2": _vision("mobilenet_v2", 300_774_272),
    "vit_b16":     _vision("vit_b_16", 17_563_828_224),
    "bert":        Case(Transformer, TOKENS,
                        12 * 12 * 768**2 * 128 + 12 * 2 * 128**2 * 768 + 768**2, TEXT),
    "gpt2":        Case(lambda: Transformer(causal=True), TOKENS,
                        12 * 12 * 768**2 * 128 + 12 * 2 * 128**2 * 768 + 128 * 768 * 50257, TEXT),
    "lstm":        Case(Recurrent, ("f32[batch 32 128]",),
                        32 * 4 * 256 * (128 + 256 + 256 + 256) + 256 * 10, ONE),
    "unet":        Case(UNet, ("f32[batch 3 128 128]",), 9_190_768_640, ONE),
    "dcgan":       Case(generator, ("f32[batch 100 1 1]",), 104_628_224, ONE),
}
# fmt: on
