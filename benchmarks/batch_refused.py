"""Programs in which samples meet, or in which a number tells the batch: none has a sample's graph.

Some are what people write by mistake (a recurrence over the batch, a norm in training mode), some
are meant (contrastive losses, mixup).  Each names the op at which its samples meet.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.batch_cases import case


def _merged_attention(x: Tensor, w: Tensor) -> Tensor:
    """`Reshape(1, -1, C)`, right for a batch of 1: with more, every sample attends to all."""
    y = x.reshape(1, -1, x.shape[-1])
    return (torch.softmax(y @ w @ y.transpose(1, 2), -1) @ y).reshape(x.shape)


def _deviation(x: Tensor) -> Tensor:
    """The layer of GANs that tells the discriminator how different the samples are."""
    y = (x - x.mean(0)).square().mean(0).sqrt().mean()
    return torch.cat([x, y.expand(x.shape[0], 1)], 1)


def _contrastive(x: Tensor, y: Tensor) -> Tensor:
    a, b = F.normalize(x, dim=1), F.normalize(y, dim=1)
    return (a @ b.t()).log_softmax(1)


def _scaled_to_integers(x: Tensor, w: Tensor) -> Tensor:
    """Dynamic quantization: one scale for the whole tensor."""
    scale = x.abs().max() / 127
    return torch.round(x / scale) * scale @ w


def _positions(x: Tensor, w: Tensor) -> Tensor:
    return x + w[: x.shape[0]]


def _batch_statistics(x: Tensor) -> Tensor:
    mean = x.mean((0, 2, 3), keepdim=True)
    variance = x.var((0, 2, 3), unbiased=False, keepdim=True)
    return (x - mean) / torch.sqrt(variance + 1e-5)


def _grouped_over_samples(x: Tensor) -> Tensor:
    """The instance-norm trick with one group: the statistics are those of all samples."""
    b, c, h, w = x.shape
    y = x.reshape(1, b * c, h * w)
    return ((y - y.mean((1, 2), keepdim=True)) * 2.0).view(b, c, h, w)


def _causal_over_samples(x: Tensor) -> Tensor:
    n = x.shape[0]
    mask = torch.ones(n, n).tril()
    return mask @ x


# fmt: off
REFUSED = (
    # statistics of the batch
    case("statistics of the batch, as in training", "f32[batch 3 4 4]", _batch_statistics,
         refused=("reduce",)),
    case("softmax over the batch", "f32[batch 4]", lambda x: x.softmax(0), refused=("softmax",)),
    case("mean over the batch", "f32[batch 4]", lambda x: x - x.mean(0), refused=("reduce",)),
    case("the mean loss", "f32[batch 4], f32[batch 4]",
         lambda x, y: ((x - y) ** 2).mean(), refused=("reduce",)),
    case("deviation of the batch as a channel", "f32[batch 4]", _deviation, refused=("reduce",)),
    case("one scale for all samples", "f32[batch 4]", _scaled_to_integers, (4, 3),
         refused=("reduce",)),
    case("a layer norm over everything", "f32[batch 4]",
         lambda x: (x - x.mean()) / (x.std() + 1.0), refused=("reduce",)),
    case("instance norm of merged samples", "f32[batch 3 4 4]", _grouped_over_samples,
         refused=("reduce",)),
    case("softmax of a merged batch", "f32[batch 4]",
         lambda x: x.reshape(-1).softmax(0).reshape(x.shape), refused=("softmax",)),
    # pairs of samples
    case("x @ x.T", "f32[batch 4]", lambda x: x @ x.t(), refused=("matmul",)),
    case("contrastive loss", "f32[batch 4], f32[batch 4]", _contrastive, refused=("matmul",)),
    case("x.T @ x", "f32[batch 4]", lambda x: x.t() @ x, refused=("matmul",)),
    case("all pairs by einsum", "f32[batch 4]",
         lambda x: torch.einsum("bi,ci->bc", x, x), refused=("einsum", "matmul")),
    case("all differences", "f32[batch 4]",
         lambda x: (x[:, None] - x[None]).abs().sum(-1), refused=("subtract", "broadcast")),
    case("reshape to (1, -1, C), attention", "f32[batch 5 4]", _merged_attention, (4, 4),
         refused=("matmul",)),
    case("a mask of pairs of samples", "f32[batch 4]", _causal_over_samples, refused=("",)),
    # another sample's place
    case("flip over the batch", "f32[batch 4]", lambda x: 0.5 * x + 0.5 * x.flip(0),
         refused=("flip", "gather", "index", "slice")),
    case("rolled over the batch", "f32[batch 4]", lambda x: x.roll(1, 0), refused=("slice",),
         without=("onnx-dynamo",)),
    case("differences of neighbours", "f32[batch 4]", lambda x: x[1:] - x[:-1],
         refused=("slice",)),
    case("the first sample", "f32[batch 4]", lambda x: x - x[0],
         refused=("slice", "index", "gather")),
    case("every other sample", "f32[batch 4]", lambda x: x[::2], refused=("stride", "slice")),
    case("samples picked by an index", "f32[batch 4], i64[batch]", lambda x, y: x[y],
         refused=("gather",)),
    case("places in all samples, one after the other", "f32[batch 5 4], i64[batch]",
         lambda x, y: x.flatten(0, 1)[y - 2 + 5 * torch.arange(x.shape[0])],
         refused=("add", "gather", "broadcast", "binary")),
    case("sums up to each sample", "f32[batch 4]", lambda x: x.cumsum(0), refused=("cum_sum",)),
    case("sorted samples", "f32[batch 4]", lambda x: x.sort(0)[0], refused=("sort", "top_k")),
    case("the best samples", "f32[batch 4]", lambda x: x.topk(2, 0)[0], refused=("top_k",)),
    case("the best sample's place", "f32[batch 4]", lambda x: x.argmax(0), refused=("arg_max",)),
    case("one more sample", "f32[batch 4]", lambda x, w: torch.cat([x, w]), (1, 4),
         refused=("concat",)),
    case("a border of samples", "f32[batch 4]", lambda x: F.pad(x, (0, 0, 1, 1)), refused=("pad",)),
    # the batch taken for something else
    case("batch and time as (time, batch)", "f32[batch 5]",
         lambda x: x.reshape(5, x.shape[0]).softmax(0), refused=("reshape",)),
    case("a reshape that moves samples", "f32[batch 5 4]",
         lambda x: x.reshape(5, x.shape[0], 4).cumsum(0), refused=("reshape",)),
    case("an LSTM, the batch as time", "f32[batch 5 6]", lambda x, lstm: lstm(x)[0],
         lambda: nn.LSTM(6, 4), refused=("lstm",)),
    case("attention, the batch as time", "f32[batch 5 8]",
         lambda x, attention: attention(x, x, x, need_weights=False)[0],
         lambda: nn.MultiheadAttention(8, 2), refused=("matmul", "attention")),
    case("a convolution over the batch", "f32[batch 3]",
         lambda x, w: F.conv1d(x.t()[None], w, padding=1)[0].t(), (3, 3, 3), refused=("conv",)),
    case("pooling over the batch", "f32[batch 3]",
         lambda x: F.max_pool1d(x.t()[None], 3, 1, 1), refused=("max_pool",),
         without=("onnx-dynamo",)),
    # the batch as a number
    case("divided by the batch size", "f32[batch 4]", lambda x: x / x.shape[0],
         refused=("divide", "scalar")),
    case("a sum over the batch's size", "f32[batch 4]", lambda x: x.sum(1) * (x.shape[0] + 1),
         refused=("multiply", "scalar")),
    case("the number of each sample", "f32[batch 4]",
         lambda x: x + torch.arange(x.shape[0])[:, None], refused=("iota", "add", "broadcast")),
    case("a position for each sample", "f32[batch 4]", _positions, (16, 4),
         refused=("slice", "add", "binary")),
)
"""Programs with a free batch."""

STATIC = (
    case("three of 12 as (4, 9)", "f32[3 12]",
         lambda x: (x.reshape(4, 9) * 2.0).softmax(1), refused=("reshape",)),
    case("three samples through (1, -1, C)", "f32[3 5 4]", _merged_attention, (4, 4),
         refused=("matmul", "reshape")),
    case("a constant for each of three", "f32[3 4]", lambda x, w: x * w, (3, 4),
         refused=("multiply", "binary")),
)
"""Programs whose batch of 3 is written into every size: a graph for all batches would differ."""
# fmt: on
