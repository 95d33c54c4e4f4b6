"""Transformers of which one token is read, and all are computed to the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.rewrites_base import derived, images, seeded, tokens


class Attention(nn.Module):
    """Self-attention of [batch, tokens, width]; queries, keys and values by one matrix."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = _by_head(self.qkv(x), 3, self.heads)
        mixed = scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out(mixed.transpose(1, 2).flatten(2))


class AttentionOfOne(nn.Module):
    """The same for some of the tokens, which see all."""

    def __init__(self, whole: Attention) -> None:
        super().__init__()
        width = whole.qkv.in_features
        self.heads, self.out = whole.heads, whole.out
        self.q, self.kv = nn.Linear(width, width), nn.Linear(width, 2 * width)
        for part, rows in ((self.q, slice(width)), (self.kv, slice(width, None))):
            part.weight = nn.Parameter(whole.qkv.weight.detach()[rows].clone())
            part.bias = nn.Parameter(whole.qkv.bias.detach()[rows].clone())

    def forward(self, one: Tensor, x: Tensor) -> Tensor:
        (q,) = _by_head(self.q(one), 1, self.heads)
        k, v = _by_head(self.kv(x), 2, self.heads)
        mixed = scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).flatten(2))


def _by_head(x: Tensor, parts: int, heads: int) -> tuple[Tensor, ...]:
    """[batch, tokens, parts * width] as parts of [batch, heads, tokens, width of a head]."""
    return x.unflatten(-1, (parts, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


class Block(nn.Module):
    """Attention and a feed-forward net, each added, and norms before (GPT, ViT) or after (BERT)."""

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        causal: bool = False,
        after: bool = False,
        gelu: str = "none",
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.after = after
        self.attention = Attention(width, heads, causal)
        self.norm1, self.norm2 = nn.LayerNorm(width, eps), nn.LayerNorm(width, eps)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(gelu), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.after:
            x = self.norm1(x + self.attention(x))
            return self.norm2(x + self.mlp(x))
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class BlockOfOne(nn.Module):
    """A block computed for one token: [batch, tokens, width] to [batch, 1, width].

    The last token of a causal block sees all, so it needs no mask.
    """

    def __init__(self, whole: Block, token: int) -> None:
        super().__init__()
        self.after = whole.after
        self.token = slice(token, token + 1 or None)
        self.attention = AttentionOfOne(whole.attention)
        self.norm1, self.norm2, self.mlp = whole.norm1, whole.norm2, whole.mlp

    def forward(self, x: Tensor) -> Tensor:
        one = x[:, self.token]
        if self.after:
            one = self.norm1(one + self.attention(one, x))
            return self.norm2(one + self.mlp(one))
        normed = self.norm1(x)
        one = one + self.attention(normed[:, self.token], normed)
        return one + self.mlp(self.norm2(one))


class Patches(nn.Module):
    """An image of 224 x 224 as 196 patches after a class token, and their places."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 16, 16)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.places = nn.Parameter(torch.randn(1, 197, width))

    def forward(self, image: Tensor) -> Tensor:
        patches = self.conv(image).flatten(2).transpose(1, 2)
        return torch.cat([self.token, patches], 1) + self.places


class Words(nn.Module):
    """Tokens and their places; 0.02 is the deviation that GPT-2 and BERT start from."""

    def __init__(self, vocabulary: int, length: int, width: int) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        for table in (self.words, self.places):
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        return self.words(ids) + self.places.weight[: ids.shape[1]]


class Transformer(nn.Module):
    """Embedding, blocks, norm and head; one token of the result is read.

    With `head_of_all` the head is computed for every token, as a language model is written.
    """

    def __init__(
        self,
        embedding: nn.Module,
        blocks: list[Any],
        norm: nn.Module,
        head: nn.Module,
        token: int,
        head_of_all: bool = False,
    ) -> None:
        super().__init__()
        self.embedding, self.blocks = embedding, nn.Sequential(*blocks)
        self.norm, self.head = norm, head
        self.token, self.head_of_all = token, head_of_all

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.blocks(self.embedding(x)))
        if self.head_of_all:
            return self.head(x)[:, self.token]
        return self.head(x[:, self.token])


def _head_of_one(given: Any) -> Transformer:
    return Transformer(given.embedding, list(given.blocks), given.norm, given.head, given.token)


def _last_block_of_one(given: Any) -> Transformer:
    *before, last = given.blocks
    blocks = [*before, BlockOfOne(last, given.token)]
    return Transformer(given.embedding, blocks, given.norm, given.head, given.token)


# -- the models ------------------------------------------------------------------------------------


def _vit(width: int, heads: int) -> Callable[[], nn.Module]:
    """https://arxiv.org/abs/2010.11929, of the widths of https://arxiv.org/abs/2012.12877."""
    return lambda: seeded(
        lambda: Transformer(
            Patches(width),
            [Block(width, heads, eps=1e-6) for _ in range(12)],
            nn.LayerNorm(width, 1e-6),
            nn.Linear(width, 1000),
            0,
        )
    )


def _gpt2(layers: int) -> Callable[[], nn.Module]:
    """GPT-2 small, cut after `layers` blocks; the head is the table of words, as published."""

    def make() -> nn.Module:
        embedding = Words(50257, 1024, 768)
        head = nn.Linear(768, 50257, bias=False)
        head.weight = embedding.words.weight
        blocks = [Block(768, 12, causal=True, gelu="tanh") for _ in range(layers)]
        return Transformer(embedding, blocks, nn.LayerNorm(768), head, -1, head_of_all=True)

    return lambda: seeded(make)


def _bert_tiny() -> nn.Module:
    """BERT with 2 blocks of width 128 (https://arxiv.org/abs/1908.08962), and its pooler."""

    def make() -> nn.Module:
        embedding = nn.Sequential(Words(30522, 512, 128), nn.LayerNorm(128, 1e-12))
        blocks = [Block(128, 2, after=True, eps=1e-12) for _ in range(2)]
        head = nn.Sequential(nn.Linear(128, 128), nn.Tanh())
        return Transformer(embedding, blocks, nn.Identity(), head, 0)

    return seeded(make)


# -- the table -------------------------------------------------------------------------------------

_IMAGE = images((1, 3, 224, 224))
_TEXT = tokens(50257, 1, 128)


TRANSFORMERS = (
    derived("30 ViT-S: class token only", _vit(384, 6), _last_block_of_one, _IMAGE, 152),
    derived("30 ViT-Ti: class token only", _vit(192, 3), _last_block_of_one, _IMAGE, 152),
    derived("31a GPT-2 of 2 blocks: head", _gpt2(2), _head_of_one, _TEXT, 28),
    derived("31b GPT-2 of 2 blocks: head and block", _gpt2(2), _last_block_of_one, _TEXT, 28),
    derived("31c GPT-2: head and block", _gpt2(12), _last_block_of_one, _TEXT, 148),
    derived(
        "44 BERT-tiny: class token only",
        _bert_tiny,
        _last_block_of_one,
        tokens(30522, 1, 128),
        30,
    ),
)
