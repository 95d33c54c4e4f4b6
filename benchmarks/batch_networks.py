"""Networks as people export them, in small configurations: random weights, evaluation mode.

Each writes its batch down in another way: class tokens that are expanded to it, heads merged with
it, windows merged with it, an axis 1 that is it, states of zeros.  `benchmarks.batch_exports` frees
the batch of their static exports; `benchmarks.batch_models` takes the batch of whole models away.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.cost_models import UNet, torchvision_models


@dataclass(frozen=True)
class Network:
    """A maker of a model, and one of its inputs for a batch size."""

    make: Callable[[], nn.Module]
    inputs: Callable[[int], tuple[Tensor, ...]]
    axis: int = 0
    """Where all inputs and outputs have the batch."""
    types: tuple[str, ...] = ()
    """The inputs with a free batch, for TorchScript, which records none."""

    def model(self) -> nn.Module:
        """The model with weights and statistics as after training, none of them 0 or 1 alike."""
        torch.manual_seed(0)
        model = self.make().eval()
        for m in model.modules():
            if isinstance(m, nn.BatchNorm2d):
                for tensor, low, high in (
                    (m.running_mean, -0.5, 0.5),
                    (m.running_var, 0.5, 2.0),
                    (m.weight, 0.5, 1.5),
                    (m.bias, -0.5, 0.5),
                ):
                    assert tensor is not None
                    nn.init.uniform_(tensor, low, high)
        for name, p in model.named_parameters():
            if not p.any():  # heads and biases that start as zeros would hide what goes in
                nn.init.normal_(p, std=0.1)
            if "layer_scale" in name:  # 1e-6 at first
                nn.init.uniform_(p, 0.5, 1)
        return model.requires_grad_(False)


# -- transformers ---------------------------------------------------------------------------------


class VisionLayer(nn.Module):
    """A layer of a vision transformer, with q, k and v from one product."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(b, n, 3, self.heads, c // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q * (c // self.heads) ** -0.5 @ k.transpose(-2, -1)).softmax(-1)
        x = x + self.out((weights @ v).transpose(1, 2).reshape(b, n, c))
        return x + self.feed(self.norm2(x))


class VisionTransformer(nn.Module):
    """Patches, a class token expanded to the batch, a distillation token, learned positions."""

    def __init__(self, width: int = 32, size: int = 32, patch: int = 8, layers: int = 2) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.second = nn.Parameter(torch.randn(1, 1, width))
        self.places = nn.Parameter(torch.randn(1, (size // patch) ** 2 + 2, width))
        self.layers = nn.Sequential(*(VisionLayer(width, 4) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2)
        tokens = (t.expand(image.shape[0], -1, -1) for t in (self.token, self.second))
        x = self.layers(torch.cat((*tokens, x), 1) + self.places)
        return self.head(self.norm(x[:, 0]) + self.norm(x[:, 1]))


class BertLayer(nn.Module):
    """A layer of BERT: heads by view and permute, an additive mask."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.dense, self.norm1 = nn.Linear(width, width), nn.LayerNorm(width, eps=1e-12)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-12)

    def split(self, x: Tensor) -> Tensor:
        return x.view(*x.size()[:-1], self.heads, self.size).permute(0, 2, 1, 3)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (self.split(f(x)) for f in (self.query, self.key, self.value))
        scores = torch.matmul(q, k.transpose(-1, -2)) / self.size**0.5 + mask
        y = torch.matmul(F.softmax(scores, dim=-1), v).permute(0, 2, 1, 3).contiguous()
        x = self.norm1(self.dense(y.view(*y.size()[:-2], self.heads * self.size)) + x)
        return self.norm2(self.down(F.gelu(self.up(x))) + x)


class Bert(nn.Module):
    """BERT with its three inputs: all hidden states, and the pooled first one."""

    places: Tensor

    def __init__(
        self, width: int = 32, heads: int = 4, layers: int = 2, words: int = 50, length: int = 64
    ) -> None:
        super().__init__()
        self.words, self.kinds = nn.Embedding(words, width, padding_idx=0), nn.Embedding(2, width)
        self.positions = nn.Embedding(length, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.layers = nn.ModuleList(BertLayer(width, heads) for _ in range(layers))
        self.pooler = nn.Linear(width, width)
        self.register_buffer("places", torch.arange(length).expand(1, -1), persistent=False)

    def forward(self, ids: Tensor, mask: Tensor, kinds: Tensor) -> tuple[Tensor, Tensor]:
        extended = (1.0 - mask[:, None, None, :].float()) * -10000.0
        x = self.words(ids) + self.kinds(kinds) + self.positions(self.places[:, : ids.size(1)])
        x = self.norm(x)
        for layer in self.layers:
            x = layer(x, extended)
        return x, torch.tanh(self.pooler(x[:, 0]))


class Conv1D(nn.Module):
    """GPT-2's linear layer: a product of matrices, so batch and sequence are merged before it."""

    def __init__(self, wide: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, wide) / width**0.5)
        self.bias = nn.Parameter(torch.randn(wide) / 10)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight)
        return y.view(*x.size()[:-1], y.size(-1))


class Gpt2Layer(nn.Module):
    """A layer of GPT-2, causal by a buffer of booleans."""

    causal: Tensor

    def __init__(self, width: int, heads: int, length: int) -> None:
        super().__init__()
        self.width, self.heads = width, heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attend, self.project = Conv1D(3 * width, width), Conv1D(width, width)
        self.up, self.down = Conv1D(4 * width, width), Conv1D(width, 4 * width)
        mask = torch.tril(torch.ones(length, length, dtype=torch.bool))
        self.register_buffer("causal", mask.view(1, 1, length, length), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        n = x.size(-2)
        q, k, v = (
            part.view(*part.size()[:-1], self.heads, -1).permute(0, 2, 1, 3)
            for part in self.attend(self.norm1(x)).split(self.width, dim=2)
        )
        scores = q @ k.transpose(-1, -2) / q.size(-1) ** 0.5
        lowest = torch.full([], torch.finfo(scores.dtype).min, dtype=scores.dtype)
        scores = torch.where(self.causal[:, :, :n, :n], scores, lowest)
        y = (scores.softmax(-1) @ v).permute(0, 2, 1, 3).contiguous()
        x = x + self.project(y.view(*y.size()[:-2], self.width))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Gpt2(nn.Module):
    """GPT-2: logits of every token, with the weights of the embedding."""

    def __init__(self, width: int = 32, heads: int = 4, layers: int = 2, words: int = 50) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Embedding(32, width)
        self.layers = nn.ModuleList(Gpt2Layer(width, heads, 32) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, words, bias=False)
        self.head.weight = self.words.weight

    def forward(self, ids: Tensor) -> Tensor:
        ids = ids.view(-1, ids.size(-1))
        places = torch.arange(ids.size(-1), dtype=torch.long).unsqueeze(0)
        x = self.words(ids) + self.places(places)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


class SequenceFirst(nn.Module):
    """`nn.MultiheadAttention` as it is by default: time, batch, width."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.norm = nn.MultiheadAttention(32, 4), nn.LayerNorm(32)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.attention(x, x, x, need_weights=False)[0])


def swin(embed: int, depths: list[int], heads: list[int], window: int, patch: int) -> nn.Module:
    """A shifted-window transformer of torchvision's."""
    torchvision_models()  # what is below imports only after it
    from torchvision.models.swin_transformer import SwinTransformer

    model = SwinTransformer([patch, patch], embed, depths, heads, [window, window], num_classes=10)
    for name, table in model.named_parameters():
        if name.endswith("relative_position_bias_table"):
            nn.init.normal_(table, std=0.5)
    return model


# -- convolutional and recurrent ------------------------------------------------------------------


class YoloHead(nn.Module):
    """Two scales, decoded: anchors split from the channels, grids added, all boxes in one list."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.wide, self.classes = 3 * (classes + 5), classes
        self.stem, self.down = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 32, 3, 2, 1)
        self.heads = nn.ModuleList(nn.Conv2d(width, self.wide, 1) for width in (16, 32))
        for i, (ny, nx) in enumerate(((16, 16), (8, 8))):
            y, x = torch.meshgrid(torch.arange(ny), torch.arange(nx), indexing="ij")
            grid = torch.stack((x, y), 2).expand(1, 3, ny, nx, 2).float() - 0.5
            anchors = torch.rand(1, 3, 1, 1, 2).expand(1, 3, ny, nx, 2) * 4
            self.register_buffer(f"grid{i}", grid)
            self.register_buffer(f"anchors{i}", anchors.clone())

    def forward(self, image: Tensor) -> Tensor:
        first = F.silu(self.stem(image))
        found = []
        for i, x in enumerate((first, F.silu(self.down(first)))):
            x = self.heads[i](x)
            b, _, ny, nx = x.shape
            x = x.view(b, 3, self.classes + 5, ny, nx).permute(0, 1, 3, 4, 2).contiguous()
            xy, wh, scores = x.sigmoid().split((2, 2, self.classes + 1), 4)
            xy = (xy * 2 + getattr(self, f"grid{i}")) * 2.0 ** (i + 1)
            wh = (wh * 2) ** 2 * getattr(self, f"anchors{i}")
            found.append(torch.cat((xy, wh, scores), 4).view(b, -1, self.classes + 5))
        return torch.cat(found, 1)


class Recurrent(nn.Module):
    """Two recurrent layers from states of zeros, and a classifier of the last step."""

    def __init__(
        self, cell: type[nn.LSTM | nn.GRU], width: int = 8, hidden: int = 16, **options: Any
    ) -> None:
        super().__init__()
        self.cells = cell(width, hidden, 2, batch_first=True, **options)
        self.head = nn.Linear(hidden * (1 + self.cells.bidirectional), 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cells(x)[0][:, -1])


class Style(nn.Module):
    """A network of style transfer: reflected borders, instance norms, nearest upsampling."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        norm = partial(nn.InstanceNorm2d, affine=True)
        self.down = nn.Sequential(
            nn.ReflectionPad2d(2), nn.Conv2d(3, width, 5), norm(width), nn.ReLU(),
            nn.ReflectionPad2d(1), nn.Conv2d(width, 2 * width, 3, 2), norm(2 * width), nn.ReLU(),
        )  # fmt: skip
        self.inner = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(2 * width, 2 * width, 3), norm(2 * width), nn.ReLU(),
            nn.ReflectionPad2d(1), nn.Conv2d(2 * width, 2 * width, 3), nn.InstanceNorm2d(2 * width),
        )  # fmt: skip
        self.up = nn.Sequential(
            nn.Upsample(scale_factor=2), nn.ReflectionPad2d(1), nn.Conv2d(2 * width, 3, 3)
        )

    def forward(self, image: Tensor) -> Tensor:
        x = self.down(image)
        return self.up(x + self.inner(x))


def vit() -> nn.Module:
    """Torchvision's vision transformer, small."""
    return torchvision_models().VisionTransformer(32, 8, 2, 4, 32, 64, num_classes=10)


def convnext() -> nn.Module:
    """Torchvision's ConvNeXt with two stages, small."""
    torchvision_models()
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    return ConvNeXt([CNBlockConfig(16, 32, 1), CNBlockConfig(32, None, 2)], num_classes=10)


def images(size: int) -> Callable[[int], tuple[Tensor, ...]]:
    """Random pictures."""
    return lambda batch: (torch.rand(batch, 3, size, size),)


def tokens(length: int, words: int = 50) -> Callable[[int], tuple[Tensor, ...]]:
    """Random words."""
    return lambda batch: (torch.randint(words, (batch, length)),)


def text(length: int, words: int = 50) -> Callable[[int], tuple[Tensor, ...]]:
    """Random words, sentences of which the ends are masked, and which of two each belongs to."""

    def make(batch: int) -> tuple[Tensor, ...]:
        lengths = torch.randint(2, length + 1, (batch, 1))
        places = torch.arange(length).expand(batch, -1)
        return (
            torch.randint(words, (batch, length)),
            (places < lengths).long(),
            (places >= lengths // 2).long(),
        )

    return make


def series(*shape: int, axis: int = 0) -> Callable[[int], tuple[Tensor, ...]]:
    """Random numbers, with the batch at an axis."""
    return lambda batch: (torch.randn(*shape[:axis], batch, *shape[axis:]),)


def _torchvision(name: str) -> Callable[[], nn.Module]:
    return lambda: getattr(torchvision_models(), name)(num_classes=10)


# fmt: off
EXPORTS: dict[str, Network] = {
    "ViT (torchvision)":      Network(vit, images(32)),
    "ViT with two tokens":    Network(VisionTransformer, images(32)),
    "BERT":                   Network(Bert, text(11)),
    "GPT-2":                  Network(Gpt2, tokens(11)),
    "attention, batch second": Network(SequenceFirst, series(7, 32, axis=1), axis=1),
    "Swin":                   Network(lambda: swin(16, [2, 2], [2, 4], 4, 2), images(32)),
    "ResNet-18":              Network(_torchvision("resnet18"), images(64)),
    "MobileNetV3":            Network(_torchvision("mobilenet_v3_small"), images(64)),
    "UNet":                   Network(lambda: UNet(8), images(32)),
    "channel shuffle":        Network(_torchvision("shufflenet_v2_x0_5"), images(64)),
    "YOLO head":              Network(YoloHead, images(32)),
    "LSTM":                   Network(lambda: Recurrent(nn.LSTM), series(9, 8)),
    "GRU":                    Network(lambda: Recurrent(nn.GRU, bidirectional=True), series(9, 8)),
    "ConvNeXt":               Network(convnext, images(32)),
    "instance-norm style":    Network(Style, images(24)),
}
# fmt: on
"""Fifteen exports with a batch of 1 in every shape."""
