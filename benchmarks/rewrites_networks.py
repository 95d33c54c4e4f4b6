"""Convolutional networks that every optimizer in use leaves slower than they need be."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from itertools import pairwise
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, relu

from benchmarks.cases import Case
from benchmarks.rewrites_base import calibrated, derived, exact, images, seeded, stored

_IMAGE = images((1, 3, 224, 224))


def _models() -> ModuleType:
    """`torchvision.models`, importable whichever build of torch it was compiled for."""
    # torchvision wants its own ops declared; its networks for classification run none of them.
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from torchvision import models

    return models


# -- DenseNet and ResNet ---------------------------------------------------------------------------


def _pooled_first(given: Any) -> nn.Module:
    """DenseNet whose transitions average before they convolve."""
    net: Any = deepcopy(given)
    for place in (1, 2, 3):
        old = getattr(net.features, f"transition{place}")
        new = nn.Sequential(old.norm, old.relu, old.pool, old.conv)
        setattr(net.features, f"transition{place}", new)
    return net


def _resnet_v1() -> nn.Module:
    """ResNet-50 as first published (https://arxiv.org/abs/1512.03385): strides in the first 1x1.

    torchvision has them in the 3x3.
    """
    net: Any = _models().resnet50()
    for stage in (net.layer2, net.layer3, net.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    return net


def _strided_early(given: Any) -> nn.Module:
    """ResNet whose stages end in what the next one reads: every second row and column."""
    net: Any = deepcopy(given)
    for stage, following in pairwise((net.layer1, net.layer2, net.layer3, net.layer4)):
        stage[-1].conv2.stride = (2, 2)
        stage[-1].downsample = nn.MaxPool2d(1, 2)
        following[0].conv1.stride = following[0].downsample[0].stride = (1, 1)
    return net


# -- RepVGG and MobileOne --------------------------------------------------------------------------


class Branches(nn.Module):
    """relu of a sum: convolutions with windows of several sizes, and the image itself if it fits.

    Each summand is batch-normalised.  With `windows` (3, 1) it is a RepVGG block in training form,
    with (3, 3, 3, 3, 1) or (1, 1, 1, 1) one of MobileOne.
    """

    def __init__(
        self, inner: int, outer: int, windows: tuple[int, ...], stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(inner, outer, size, stride, size // 2, groups=groups, bias=False)
            for size in windows
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(outer) for _ in windows)
        self.identity = nn.BatchNorm2d(outer) if inner == outer and stride == 1 else None

    def forward(self, x: Tensor) -> Tensor:
        total = self.norms[0](self.convs[0](x))
        for conv, norm in zip(list(self.convs)[1:], list(self.norms)[1:], strict=True):
            total = total + norm(conv(x))
        return relu(total if self.identity is None else total + self.identity(x))

    def merged(self) -> nn.Sequential:
        """The same as one convolution: https://arxiv.org/abs/2101.03697, section 3.3."""
        convs: list[Any] = list(self.convs)
        first, size = convs[0], max(conv.kernel_size[0] for conv in convs)
        parts: list[tuple[Tensor, Any]] = [
            (exact(conv.weight), norm) for conv, norm in zip(convs, self.norms, strict=True)
        ]
        if self.identity is not None:
            parts.append((_delta(first.out_channels, first.weight.shape[1]), self.identity))
        weight = torch.zeros((*first.weight.shape[:2], size, size), dtype=torch.float64)
        bias = torch.zeros(first.out_channels, dtype=torch.float64)
        for kernel, norm in parts:
            scale, shift = _affine(norm)
            border = (size - kernel.shape[-1]) // 2
            weight += pad(kernel, (border,) * 4) * scale[:, None, None, None]
            bias += shift
        conv = nn.Conv2d(
            first.in_channels,
            first.out_channels,
            size,
            first.stride,
            size // 2,
            groups=first.groups,
        )
        conv.weight, conv.bias = nn.Parameter(stored(weight)), nn.Parameter(stored(bias))
        return nn.Sequential(conv, nn.ReLU())


def _delta(outer: int, inner: int) -> Tensor:
    """The kernel of one pixel that copies: `inner` is the number of channels of a group."""
    kernel = torch.zeros((outer, inner, 1, 1), dtype=torch.float64)
    kernel[torch.arange(outer), torch.arange(outer) % inner] = 1
    return kernel


def _affine(norm: Any) -> tuple[Tensor, Tensor]:
    """What a batch norm multiplies by and adds."""
    scale = exact(norm.weight) / (exact(norm.running_var) + norm.eps).sqrt()
    return scale, exact(norm.bias) - exact(norm.running_mean) * scale


def _classifier(blocks: list[nn.Module], width: int) -> nn.Sequential:
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 1000))


def _repvgg_a0() -> nn.Sequential:
    """https://arxiv.org/abs/2101.03697, table 2: A with widths 0.75 and 2.5."""
    blocks: list[nn.Module] = [Branches(3, 48, (3, 1), 2)]
    width = 48
    for count, outer in ((2, 48), (4, 96), (14, 192), (1, 1280)):
        for place in range(count):
            blocks.append(Branches(width, outer, (3, 1), 1 if place else 2))
            width = outer
    return _classifier(blocks, width)


def _mobileone_s0() -> nn.Sequential:
    """https://arxiv.org/abs/2206.04040, tables 2 and 3: 4 branches, but one in the stem."""
    blocks: list[nn.Module] = [Branches(3, 48, (3, 1), 2)]
    width = 48
    for count, outer in ((2, 48), (8, 128), (10, 256), (1, 1024)):
        for place in range(count):
            blocks.append(Branches(width, width, (3, 3, 3, 3, 1), 1 if place else 2, groups=width))
            blocks.append(Branches(width, outer, (1, 1, 1, 1)))
            width = outer
    return _classifier(blocks, width)


def _merged(given: Any) -> nn.Sequential:
    return nn.Sequential(*(m.merged() if isinstance(m, Branches) else m for m in given))


# -- the table -------------------------------------------------------------------------------------


def _network(
    name: str, make: Callable[[], nn.Module], better: Callable[[Any], nn.Module], constants: int
) -> Case:
    return derived(name, lambda: calibrated(seeded(make), *_IMAGE()), better, _IMAGE, constants)


NETWORKS = (
    _network(
        "20 DenseNet-121: conv 1x1, then pool",
        lambda: _models().densenet121(),
        _pooled_first,
        606,
    ),
    _network("21b ResNet-50 v1: stage ends half unread", _resnet_v1, _strided_early, 267),
    _network("22 RepVGG-A0 in training form", _repvgg_a0, _merged, 290),
    _network("41 MobileOne-S0 in training form", _mobileone_s0, _merged, 1097),
)
