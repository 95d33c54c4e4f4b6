"""Programs whose batch can be taken away: each as a torch function, with its inputs.

Every way in which exported networks write their batch down: alone on an axis (any), merged with
heads, windows, time or channels, repeated to, counted, doubled, contracted beside, indexed by
`arange`.  `benchmarks.batch_refused` has the programs in which samples meet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.batch_files import exported, traced
from safegraph import SafeDAG
from safegraph.dims import evaluate
from safegraph.value import parse_type

SOURCES = ("torchscript", "onnx", "onnx-dynamo")
"""TorchScript, and ONNX by torch's two exporters."""
Sample = Callable[[Tensor, int, int], Tensor]


@dataclass(frozen=True)
class Case:
    """One program: `function(*inputs, *parts)`, on inputs named x, y, z with these types."""

    name: str
    types: tuple[str, ...]
    function: Callable[..., Any]
    parts: tuple[Any, ...] = ()
    """Shapes of parameters, and makers of modules."""
    sample: Sample = lambda y, b, n: y[b]
    """What of an output belongs to sample b of n."""
    without: tuple[str, ...] = ()
    """Sources that cannot hold the program: torch's exporter refuses it, or fixes sizes."""
    refused: tuple[str, ...] = ()
    """Words that the refusal has; empty where the batch can be taken away."""
    batch: str = "batch"

    def module(self) -> nn.Module:
        """The program with its weights, in evaluation mode."""
        torch.manual_seed(0)
        return _Program(self.function, self.parts).eval().requires_grad_(False)

    def inputs(self, batch: int, seed: int = 0) -> tuple[Tensor, ...]:
        """Random inputs of a batch size; integers are places that every axis has: 0, 1, 2."""
        generator = torch.Generator().manual_seed(seed)
        found = []
        for text in self.types:
            type_ = parse_type(text)
            shape = [evaluate(d, {self.batch: batch}) for d in type_.shape]
            if type_.dtype == "i64":
                found.append(torch.randint(3, shape, generator=generator))
            else:
                found.append(torch.randn(shape, generator=generator))
        return tuple(found)

    def names(self) -> tuple[str, ...]:
        """The names of the inputs."""
        return tuple("xyzuv"[: len(self.types)])

    def axes(self) -> dict[str, int]:
        """Where the inputs have the batch; those without are left out."""
        found = {}
        for name, text in zip(self.names(), self.types, strict=True):
            shape = [str(d) for d in parse_type(text).shape]
            if self.batch in shape:
                found[name] = shape.index(self.batch)
        return found

    def dag(self, source: str) -> SafeDAG:
        """The program as it is read from a source, with a free batch."""
        module, example = self.module(), self.inputs(3)
        if source == "torchscript":
            return SafeDAG.from_torchscript(traced(module, example), list(self.types))
        axes = self.axes()
        options: dict[str, Any] = {"input_names": list(self.names())}
        if source == "onnx":
            options["dynamic_axes"] = {name: {a: self.batch} for name, a in axes.items()}
        else:
            free = torch.export.Dim(self.batch, min=2)
            each = tuple({axes[n]: free} if n in axes else {} for n in self.names())
            options |= {"dynamo": True, "dynamic_shapes": {"inputs": each}}
        return SafeDAG.from_onnx(exported(module, example, **options))


class _Program(nn.Module):
    def __init__(self, function: Callable[..., Any], parts: tuple[Any, ...]) -> None:
        super().__init__()
        self.function, self.order = function, []
        for i, part in enumerate(parts):
            if isinstance(part, tuple):
                weight = torch.randn(part) / max(part[0], 1) ** 0.5
                self.register_parameter(f"w{i}", nn.Parameter(weight))
                self.order.append(f"w{i}")
            else:
                self.add_module(f"m{i}", part())
                self.order.append(f"m{i}")
        for m in self.modules():
            if isinstance(m, nn.BatchNorm2d):
                assert m.running_mean is not None
                assert m.running_var is not None
                nn.init.uniform_(m.running_mean, -0.5, 0.5)
                nn.init.uniform_(m.running_var, 0.5, 2)

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs, *(getattr(self, name) for name in self.order))


def case(name: str, types: str, function: Callable[..., Any], *parts: Any, **options: Any) -> Case:
    """A case; its types as one text."""
    return Case(name, tuple(t.strip() for t in types.split(",")), function, parts, **options)


# -- programs -------------------------------------------------------------------------------------


def _merged_heads(x: Tensor, qkv: Tensor, heads: int = 2) -> Tensor:
    b, n, width = x.shape
    q, k, v = (
        part.reshape(b, n, heads, width // heads).transpose(1, 2).reshape(b * heads, n, -1)
        for part in (x @ qkv).chunk(3, -1)
    )
    y = torch.bmm(torch.softmax(torch.bmm(q, k.transpose(1, 2)), -1), v)
    return y.view(b, heads, n, -1).transpose(1, 2).reshape(b, n, width)


def _class_token(x: Tensor, token: Tensor, places: Tensor) -> Tensor:
    y = torch.cat([token.expand(x.shape[0], -1, -1), x], 1) + places
    return torch.softmax(y @ y.transpose(1, 2), -1) @ y


def _windows(x: Tensor, mask: Tensor, size: int = 2) -> Tensor:
    """Attention in windows of an image, with a mask for each window."""
    b, h, w, c = x.shape
    y = x.view(b, h // size, size, w // size, size, c).permute(0, 1, 3, 2, 4, 5)
    y = y.reshape(-1, size * size, c)  # batch and windows in one axis
    scores = y @ y.transpose(1, 2)
    n = scores.shape[1]
    count = mask.shape[0]
    scores = scores.view(scores.shape[0] // count, count, n, n) + mask[None]
    y = scores.view(-1, n, n).softmax(-1) @ y
    y = y.view(b, h // size, w // size, size, size, c).permute(0, 1, 3, 2, 4, 5)
    return y.reshape(b, h, w, c)


def _instance_norm(x: Tensor) -> Tensor:
    """Batch and channels in one axis, of which each place has statistics of its own."""
    b, c, h, w = x.shape
    y = x.reshape(1, b * c, h * w)
    y = (y - y.mean(2, keepdim=True)) / (y.var(2, unbiased=False, keepdim=True) + 1e-5).sqrt()
    return y.view(b, c, h, w)


class _Modulated(nn.Module):
    """StyleGAN2: a kernel for each sample, as one convolution with groups."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, 3, 3))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        b, c, h, w = x.shape
        kernel = self.weight[None] * style[:, None, :, None, None]
        kernel = kernel * (kernel.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
        y = F.conv2d(x.reshape(1, b * c, h, w), kernel.reshape(b * 4, c, 3, 3), padding=1, groups=b)
        return y.reshape(b, 4, h, w)


class _Blur(nn.Module):
    """One kernel for all channels of all samples: groups=batch*channels."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(1, 1, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        kernel = self.kernel.expand(b * c, 1, 3, 3)
        return F.conv2d(x.reshape(1, b * c, h, w), kernel, padding=1, groups=b * c).view(b, c, h, w)


def _steps(x: Tensor, w: Tensor, u: Tensor) -> Tensor:
    """A recurrence written out, from a state of zeros."""
    state = torch.zeros(x.shape[0], u.shape[0])
    for t in range(x.shape[1]):
        state = torch.tanh(x[:, t] @ w + state @ u)
    return state


def _guided(x: Tensor, w: Tensor) -> Tensor:
    """Classifier-free guidance: both halves of a doubled batch, joined again."""
    y = torch.tanh(torch.cat([x, x], 0) @ w)
    plain, guided = y.chunk(2)
    return plain + 3.0 * (guided - plain)


def _siamese(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
    both = torch.relu(torch.cat([x, y], 0) @ w)
    n = x.shape[0]
    return F.cosine_similarity(both[:n], both[n:], dim=-1)


def _guided_conditions(x: Tensor, empty: Tensor, w: Tensor) -> Tensor:
    """The other half is a constant, repeated to the batch."""
    b = x.shape[0]
    y = torch.tanh(torch.cat([empty.repeat(b, 1), x]) @ w)
    plain, guided = y.chunk(2)
    return plain + 2.0 * (guided - plain)


def _beams(x: Tensor, w: Tensor) -> Tensor:
    b = x.shape[0]
    y = torch.relu(x.repeat_interleave(4, 0) @ w)
    return y.view(b, 4, -1).amax(1)


def _attention_of_queries(x: Tensor, queries: Tensor) -> Tensor:
    q = queries.unsqueeze(0).repeat(x.shape[0], 1, 1)
    return F.scaled_dot_product_attention(q, x, x)


def _masked_mean(x: Tensor, lengths: Tensor) -> Tensor:
    mask = (torch.arange(x.shape[1])[None, :] < lengths[:, None] + 1).to(x.dtype)
    return (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


def _shuffled(x: Tensor, groups: int = 2) -> Tensor:
    b, c, h, w = x.shape
    return x.view(b, groups, c // groups, h, w).transpose(1, 2).reshape(b, c, h, w)


def _per_element(x: Tensor) -> Tensor:
    """The batch is in the number of elements, and cancels out."""
    return x.sum((1, 2)) / (x.numel() // x.shape[0])


def _local_attention(x: Tensor) -> Tensor:
    b, n, c = x.shape
    y = x.reshape(b * n // 4, 4, c)
    return (torch.softmax(y @ y.transpose(1, 2), -1) @ y).reshape(b, n, c)


_SECOND: Sample = lambda y, b, n: y[:, b]  # noqa: E731
_LAST: Sample = lambda y, b, n: y[..., b]  # noqa: E731
_MERGED: Sample = lambda y, b, n: y.unflatten(0, (n, -1))[b]  # noqa: E731
_KEPT: Sample = lambda y, b, n: y if len(y) == 13 else y[b]  # noqa: E731
_MINOR: Sample = lambda y, b, n: y.unflatten(0, (-1, n))[:, b]  # noqa: E731
# What an exporter does not write for a free batch: it refuses, or takes the example's size.
_ONNX = ("onnx", "onnx-dynamo")
_DYNAMO = ("onnx-dynamo",)
_FLAT = ("onnx",)  # writes places in all samples' rows: one that may be -1 is the sample before

# fmt: off
ELIMINATED = (
    # alone on an axis
    case("linear layers", "f32[batch 6]",
         lambda x, w, v: torch.relu(x @ w) @ v, (6, 5), (5, 3)),
    case("convolutions, batch norm, pooling", "f32[batch 3 8 8]",
         lambda x, conv, norm: F.max_pool2d(torch.relu(norm(conv(x))), 2).mean((2, 3)),
         lambda: nn.Conv2d(3, 4, 3, padding=1), lambda: nn.BatchNorm2d(4)),
    case("upsampling and transposed convolution", "f32[batch 3 4 4]",
         lambda x, conv: F.interpolate(conv(x), scale_factor=2, mode="nearest"),
         lambda: nn.ConvTranspose2d(3, 2, 2, 2)),
    case("norms of layers and groups", "f32[batch 4 6]",
         lambda x, norm: norm(F.layer_norm(x, (6,))), lambda: nn.GroupNorm(2, 4)),
    case("sorted, the largest, summed up: along time", "f32[batch 7]",
         lambda x: x.cumsum(1) + x.flip(1) + x.topk(3, 1)[0].sum(1, True) + x.argmax(1, True)),
    case("the batch is the last axis", "f32[4 6 batch]",
         lambda x, w: torch.einsum("tib,io->tob", x, w).softmax(1), (6, 5), sample=_LAST),
    case("the batch moves to the end and back", "f32[batch 4 6]",
         lambda x: (x.permute(1, 2, 0) * 2.0).softmax(0).permute(2, 0, 1)),
    case("an LSTM, time first", "f32[5 batch 6]", lambda x, lstm: lstm(x)[0],
         lambda: nn.LSTM(6, 4), sample=_SECOND),
    case("a GRU of both directions", "f32[batch 5 6]", lambda x, gru: gru(x)[0],
         lambda: nn.GRU(6, 4, batch_first=True, bidirectional=True)),
    case("a loss for each sample", "f32[batch 4 6], f32[batch 4 6]",
         lambda x, y: ((x - y) ** 2).mean((1, 2))),
    case("an input without a batch", "f32[batch 6], f32[6 5]", lambda x, y: x @ y),
    case("inputs with batches on two axes", "f32[batch 4 6], f32[4 batch 6]",
         lambda x, y: x @ y.permute(1, 2, 0)),
    # merged
    case("heads merged with the batch", "f32[batch 5 8]", _merged_heads, (8, 24)),
    case("as many heads as the example has samples", "f32[batch 5 9]",
         lambda x, w: _merged_heads(x, w, 3), (9, 27)),
    case("windows merged with the batch, masked", "f32[batch 4 4 3]", _windows, (4, 4, 4)),
    case("blocks of a sequence merged with the batch", "f32[batch 8 3]", _local_attention),
    case("instance norm on batch*channels", "f32[batch 3 4 4]", _instance_norm),
    # scripted: a trace has the example's number of groups, and so has ONNX
    case("kernels of samples, groups=batch", "f32[batch 3 5 5], f32[batch 3]",
         lambda x, y, conv: conv(x, y), lambda: torch.jit.script(_Modulated()), without=_ONNX),
    case("blur, groups=batch*channels", "f32[batch 3 5 5]", lambda x, conv: conv(x),
         lambda: torch.jit.script(_Blur()), without=_ONNX),
    case("time merged with the batch", "f32[batch 5 6]",
         lambda x, w: torch.tanh(x.reshape(-1, 6) @ w).view(x.shape[0], 5, -1).mean(1), (6, 4)),
    case("the batch merged with time", "f32[5 batch 6]",
         lambda x, w: torch.tanh(x.reshape(-1, 6) @ w).view(5, x.shape[1], -1), (6, 4),
         sample=_SECOND),
    case("frames merged with the batch", "f32[batch 2 3 6 6]",
         lambda x, conv: conv(x.flatten(0, 1)).unflatten(0, (-1, 2)).mean(1),
         lambda: nn.Conv2d(3, 4, 3)),
    case("a merged output", "f32[batch 5 6]",
         lambda x, w: (x @ w).reshape(-1, 4), (6, 4), sample=_MERGED),
    case("an output merged the other way", "f32[5 batch 6]",
         lambda x, w: (x @ w).reshape(-1, 4), (6, 4), sample=_MINOR),
    case("channel shuffle", "f32[batch 6 4 4]", _shuffled),
    case("pixel shuffle", "f32[batch 8 3 3]", lambda x: F.pixel_shuffle(x, 2)),
    case("beams", "f32[batch 6]", _beams, (6, 5)),
    # repeated to
    case("a class token, places", "f32[batch 5 4]", _class_token, (1, 1, 4), (1, 6, 4)),
    case("learned queries", "f32[batch 5 4]", _attention_of_queries, (3, 4), without=_DYNAMO),
    case("a state of zeros", "f32[batch 4 6]", _steps, (6, 5), (5, 5)),
    case("ones of the batch's shape", "f32[batch 6]",
         lambda x: torch.cat([x, torch.ones(x.shape[0], 1)], 1) + torch.full_like(x[:, :1], 2.0)),
    case("an input repeated to the batch of another", "f32[batch 2 6], f32[1 6 4]",
         lambda x, y: torch.bmm(x, y.repeat(x.shape[0], 1, 1))),
    # doubled
    case("guidance: a doubled batch", "f32[batch 6]", _guided, (6, 6), without=_DYNAMO),
    case("guidance: a constant for the other half", "f32[batch 6]", _guided_conditions,
         (1, 6), (6, 6), without=_DYNAMO),
    case("two inputs through one network", "f32[batch 6], f32[batch 6]", _siamese, (6, 5)),
    # contracted beside
    case("einsum of batches of matrices", "f32[batch 3 4], f32[batch 4 5]",
         lambda x, y: torch.einsum("bij,bjk->bik", x, y)),
    case("einsum attention of heads", "f32[batch 5 2 3], f32[batch 4 2 3]",
         lambda x, y: torch.einsum(
             "bhts,bshd->bthd", torch.einsum("bthd,bshd->bhts", x, y).softmax(-1), y)),
    case("einsum: all pairs in a sample", "f32[batch 3], f32[batch 4]",
         lambda x, y: torch.einsum("bi,bj->bij", x, y)),
    case("einsum of three", "f32[batch 3], f32[batch 4]",
         lambda x, y, w: torch.einsum("bi,ijo,bj->bo", x, w, y), (3, 4, 2),
         without=_DYNAMO),
    case("a fused encoder layer", "f32[batch 5 8]", lambda x, layer: layer(x),
         lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), without=_ONNX),
    # indexed
    case("an embedding", "i64[batch 5]", lambda x, w: w[x].mean(1), (10, 4)),
    case("the last token of each, by arange", "f32[batch 5 4], i64[batch]",
         lambda x, y: x[torch.arange(x.shape[0]), y], without=_FLAT),
    case("tokens of each, by arange over two axes", "f32[batch 5 4], i64[batch 2]",
         lambda x, y: x[torch.arange(x.shape[0])[:, None], y], without=_FLAT),
    case("the largest token of each, by arange", "f32[batch 5 4], i64[batch 5]",
         lambda x, y: x[torch.arange(x.shape[0]), y.argmax(1)]),
    case("the last token of each that is not 0, by arange", "f32[batch 5 4], i64[batch 5]",
         lambda x, y: x[torch.arange(x.shape[0]), (y.ne(0).sum(1) - 1).clamp(min=0)]),
    case("gathered along time", "f32[batch 5], i64[batch 2]", lambda x, y: x.gather(1, y)),
    case("channels picked by a constant", "f32[batch 5]", lambda x: x[:, [0, 3, 3]] + x[:, 1:4]),
    case("scattered along time", "f32[batch 5], i64[batch 2]",
         lambda x, y: x.scatter(1, y, 0.0)),
    case("a mask from lengths", "f32[batch 5 4], i64[batch]", _masked_mean),
    # counted
    case("a number in which the batch cancels out", "f32[batch 4 3]", _per_element),
    case("an output without a batch", "f32[batch 6]",
         lambda x, w: (x @ w, w.t().softmax(0)), (6, 13), sample=_KEPT),
)
# fmt: on
