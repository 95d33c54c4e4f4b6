"""Programs of convolutions that every optimizer in use leaves slower than they need be."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv1d, conv2d, conv_transpose2d, interpolate, pad, relu, unfold

from benchmarks.rewrites_base import Weights, images, written


def _one_conv(w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Weights:
    """A convolution, then one with a window of one pixel: a convolution."""
    mix = w2[:, :, 0, 0]
    return {"w": torch.einsum("om,mikl->oikl", mix, w1), "b": mix @ b1 + b2}


# -- normalized images -----------------------------------------------------------------------------

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's images, by channel."""


def _normalized(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    mean, std = (x.new_tensor(numbers)[:, None, None] for numbers in (_MEAN, _STD))
    return conv2d((x - mean) / std, w, b, stride=2)


def _normalizing(w: Tensor, b: Tensor) -> Weights:
    mean, std = (torch.tensor(numbers, dtype=torch.float64) for numbers in (_MEAN, _STD))
    scaled = w / std[None, :, None, None]
    return {"w": scaled, "b": b - scaled.sum((2, 3)) @ mean}


# -- pixels moved before a convolution -------------------------------------------------------------


def _focus(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """YOLOv5's Focus."""
    parts = (x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2])
    return conv2d(torch.cat(parts, 1), w, b, padding=1)


def _unfocused(w: Tensor, b: Tensor) -> Weights:
    """Channel (column parity, row parity, colour) and offset a are the pixel 2 a + parity."""
    by_parity = w.reshape(w.shape[0], 2, 2, 3, 3, 3)  # out, column, row, colour, then the window
    return {"w": by_parity.permute(0, 3, 4, 2, 5, 1).reshape(w.shape[0], 3, 6, 6), "b": b}


def _interleaved(x: Tensor, w: Tensor) -> Tensor:
    """A convolution of the image with a zero after every pixel."""
    n, c, height, width = x.shape
    spread = pad(x.reshape(n, c, height, 1, width, 1), (0, 1, 0, 0, 0, 1))
    return conv2d(spread.reshape(n, c, 2 * height, 2 * width), w, padding=1)


def _unfolded(x: Tensor, w: Tensor) -> Tensor:
    n, _, height, width = x.shape
    return (w @ unfold(x, 3, padding=1)).reshape(n, -1, height, width)


def _shifted(x: Tensor, w: Tensor) -> Tensor:
    """A causal depthwise convolution over time."""
    length = x.shape[-1]
    padded = pad(x, (3, 0))
    total = padded[:, :, :length] * w[:, :1]
    for shift in range(1, 4):
        total = total + padded[:, :, shift : shift + length] * w[:, shift : shift + 1]
    return total


# -- the table -------------------------------------------------------------------------------------

CONV = (
    written(
        "06c conv 3x3, then conv 1x1",
        lambda x, w1, b1, w2, b2: conv2d(conv2d(x, w1, b1, padding=1), w2, b2),
        lambda x, w, b: conv2d(x, w, b, padding=1),
        images((1, 64, 56, 56)),
        weights={"w1": (64, 64, 3, 3), "b1": (64,), "w2": (32, 64, 1, 1), "b2": (32,)},
        fold=_one_conv,
    ),
    written(
        "12b pad, relu, conv 3x3",
        lambda x, w, b: conv2d(relu(pad(x, (1, 1, 1, 1))), w, b),
        lambda x, w, b: conv2d(relu(x), w, b, padding=1),
        images((1, 64, 56, 56)),
        weights={"w": (64, 64, 3, 3), "b": (64,)},
    ),
    written(
        "16d (x - mean) / std, then conv",
        _normalized,
        lambda x, w, b: conv2d(x, w, b, stride=2),
        images((1, 3, 224, 224)),
        weights={"w": (64, 3, 7, 7), "b": (64,)},
        fold=_normalizing,
    ),
    written(
        "25a Focus of YOLOv5, then conv 3x3",
        _focus,
        lambda x, w, b: conv2d(x, w, b, stride=2, padding=2),
        images((1, 3, 640, 640)),
        weights={"w": (32, 12, 3, 3), "b": (32,)},
        fold=_unfocused,
    ),
    written(
        "26a nearest upsampling, then conv 1x1",
        lambda x, w, b: conv2d(interpolate(x, scale_factor=2, mode="nearest"), w, b),
        lambda x, w, b: interpolate(conv2d(x, w, b), scale_factor=2, mode="nearest"),
        images((1, 256, 28, 28)),
        weights={"w": (128, 256, 1, 1), "b": (128,)},
    ),
    written(
        "32a unfold, then matmul",
        _unfolded,
        lambda x, w: conv2d(x, w, padding=1),
        images((1, 32, 56, 56)),
        weights={"w": (64, 288)},
        summed={"w": 288},
        fold=lambda w: {"w": w.reshape(64, 32, 3, 3)},
    ),
    written(
        "32c shifted slices times weights, added",
        _shifted,
        lambda x, w: conv1d(pad(x, (3, 0)), w, groups=64),
        images((1, 64, 256)),
        weights={"w": (64, 4)},
        summed={"w": 4},
        fold=lambda w: {"w": w[:, None]},
    ),
    written(
        "33b conv 3x3, relu, every second pixel",
        lambda x, w, b: relu(conv2d(x, w, b, padding=1))[..., ::2, ::2],
        lambda x, w, b: relu(conv2d(x, w, b, stride=2, padding=1)),
        images((1, 64, 56, 56)),
        weights={"w": (64, 64, 3, 3), "b": (64,)},
    ),
    written(
        "33c zeros interleaved, then conv 3x3",
        _interleaved,
        lambda x, w: conv_transpose2d(x, w, stride=2, padding=1, output_padding=1),
        images((1, 64, 56, 56)),
        weights={"w": (32, 64, 3, 3)},
        fold=lambda w: {"w": w.transpose(0, 1).flip(2, 3)},
    ),
)
