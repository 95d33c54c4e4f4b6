"""Convolutions of any spatial rank: windows of the padded input, contracted with the weight."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from safegraph.derived.base import Derived, randomly
from safegraph.derived.einsum import Einsum
from safegraph.dims import Dim, divide, product, require_same
from safegraph.dtypes import accumulator, from_numpy, to_numpy
from safegraph.errors import ShapeError
from safegraph.op import Op, TensorType, Work
from safegraph.ops import Fold, Pad, Slice, Unfold
from safegraph.value import (
    Value,
    apply,
    fold,
    group,
    pad,
    slice_axis,
    squeeze,
    unfold,
    ungroup,
    unsqueeze,
)

# Labels of the contraction; those of the spatial axes follow.
BATCH, GROUP, IN, OUT, SPACE = range(5)


class Conv(Derived):
    """n (g i) h w, (g o) i kh kw -> n (g o) h' w', plus a bias (g o)

    Cross-correlation with zero padding, as in every framework: h' = (h + before + after -
    (kh - 1)*dilation - 1)//stride + 1.  `strides`, `before`, `after` and `dilations` have one entry
    for each spatial axis.
    """

    strides: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    dilations: tuple[int, ...]
    groups: Dim = 1  # free where each sample has kernels of its own

    def define(self, x: Value, w: Value, b: Value | None = None) -> Value:
        if x.rank == w.rank - 1:
            return _for_one(self, x, w, b)
        rank = _spatial_rank(x, w)
        each_spatial(rank, self.strides, self.before, self.after, self.dilations)
        require_same(
            w.shape[1] * self.groups, x.shape[1], f"channels of w times {self.groups} groups, of x"
        )
        x = unfold_spatial(
            pad_spatial(x, self.before, self.after), w.shape[2:], self.strides, self.dilations
        )
        places, taps = range(SPACE, SPACE + rank), range(SPACE + rank, SPACE + 2 * rank)
        both = [label for pair in zip(places, taps, strict=True) for label in pair]
        shared = (GROUP,) if self.groups != 1 else ()
        if shared:
            x = ungroup(x, [(-1,), (self.groups, -1), *[(-1,)] * (2 * rank)])
            w = ungroup(w, [(self.groups, -1), *[(-1,)] * (rank + 1)])
        form = Einsum(
            (BATCH, *shared, IN, *both), (*shared, OUT, IN, *taps), (BATCH, *shared, OUT, *places)
        )
        y = apply(form.canonical(), x, w)
        y = group(y, [1, 2, *[1] * rank]) if shared else y
        return y if b is None else y + along_channels(b, y.rank)

    def work(self, *types: TensorType) -> Work:
        out = self.type(*types).numel
        return Work(
            macs=out * product(types[1].shape[1:]), elementwise=out if len(types) == 3 else 0
        )

    def run(self, x: Any, w: Any, b: Any = None) -> Any:
        """One matrix product for each sample and group: windows as columns."""
        if x.ndim == w.ndim - 1:
            return self.run(x[None], w, b)[0]
        rank = w.ndim - 2
        wide = to_numpy(accumulator(from_numpy(x.dtype)))
        edges = [(0, 0), (0, 0), *zip(self.before, self.after, strict=True)]
        padded = x.astype(wide, copy=False)
        padded = np.pad(padded, edges) if any(map(any, edges)) else padded
        views = windows_of(padded, w.shape[2:], self.strides, self.dilations)
        sizes, taps = views.shape[2 : 2 + rank], list(range(1 + rank, 1 + 2 * rank))
        depth = int(np.prod(w.shape[1:]))
        kernels = w.astype(wide, copy=False).reshape(self.groups, w.shape[0] // self.groups, depth)
        y = np.empty((x.shape[0], w.shape[0], *sizes), wide)
        with np.errstate(all="ignore"):
            for sample, windows in zip(y, views, strict=True):
                columns = windows.transpose(0, *taps, *range(1, 1 + rank))
                columns = columns.reshape(self.groups, depth, int(np.prod(sizes)))
                sample[...] = (kernels @ columns).reshape(sample.shape)
            y = y.astype(x.dtype, copy=False)
            return y if b is None else y + b.reshape(-1, *[1] * rank)

    @classmethod
    def draw(cls, rng: np.random.Generator, *shapes: tuple[int, ...]) -> Conv | None:
        x, w = shapes[:2]
        x = (1, *x) if len(x) == len(w) - 1 else x
        rank = len(x) - 2
        if rank < 0 or len(w) != len(x) or 0 in w or x[1] % w[1]:
            return None
        groups = x[1] // w[1]
        if groups < 1 or w[0] % groups or shapes[2:] not in ((), ((w[0],),)):
            return None
        dilations = tuple(int(d) for d in rng.integers(1, 3, rank))
        before = tuple(int(d) for d in rng.integers(0, 3, rank))
        spans = [(k - 1) * d + 1 for k, d in zip(w[2:], dilations, strict=True)]
        missing = (s - d - a for s, d, a in zip(spans, x[2:], before, strict=True))
        after = tuple(max(0, int(m)) + randomly(rng, (0, 0, 1)) for m in missing)
        return cls(
            tuple(int(d) for d in rng.integers(1, 3, rank)), before, after, dilations, groups
        )

    @classmethod
    def proposals(
        cls, specs: Sequence[Op], operands: Sequence[Value], result: Value
    ) -> Iterator[Conv]:
        x, w = operands[:2]
        groups = divide(x.shape[1], w.shape[1]) if min(x.rank, w.rank) > 1 else None
        found = read_windows(specs, x.rank - 2)
        if found and isinstance(groups, int):
            yield cls(found.strides, found.before, found.after, found.dilations, groups)


class ConvTranspose(Derived):
    """n (g i) h w, (g i) o kh kw -> n (g o) h' w', plus a bias (g o)

    The transpose of `Conv` in x: every element adds its multiple of the kernel to the result, of
    which `before` and `after` are cut; h' = (h - 1)*stride + (kh - 1)*dilation + 1 - before - after
    + extra (called output padding elsewhere).  One sample, [c h w], gives one result.
    """

    strides: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    dilations: tuple[int, ...]
    groups: int
    extra: tuple[int, ...]

    def define(self, x: Value, w: Value, b: Value | None = None) -> Value:
        if x.rank == w.rank - 1:
            return _for_one(self, x, w, b)
        rank = _spatial_rank(x, w)
        each_spatial(rank, self.strides, self.before, self.after, self.dilations, self.extra)
        require_same(w.shape[0], x.shape[1], "channels of w, of x")
        places, taps = range(SPACE, SPACE + rank), range(SPACE + rank, SPACE + 2 * rank)
        both = [label for pair in zip(places, taps, strict=True) for label in pair]
        shared = (GROUP,) if self.groups > 1 else ()
        if shared:
            x = ungroup(x, [(-1,), (self.groups, -1), *[(-1,)] * rank])
            w = ungroup(w, [(self.groups, -1), *[(-1,)] * (rank + 1)])
        form = Einsum(
            (BATCH, *shared, IN, *places), (*shared, IN, OUT, *taps), (BATCH, *shared, OUT, *both)
        )
        y = apply(form.canonical(), x, w)
        y = group(y, [1, 2, *[1] * (2 * rank)]) if shared else y
        for i in range(rank):
            y = fold(y, 2 + i, self.strides[i], self.dilations[i])
        cut = [after - extra for after, extra in zip(self.after, self.extra, strict=True)]
        y = pad_spatial(y, [0] * rank, [max(0, -c) for c in cut])
        for i, (first, last) in enumerate(zip(self.before, cut, strict=True), start=2):
            y = slice_axis(y, i, first, y.shape[i] - max(0, last))
        return y if b is None else y + along_channels(b, y.rank)

    @classmethod
    def draw(cls, rng: np.random.Generator, *shapes: tuple[int, ...]) -> ConvTranspose | None:
        x, w = shapes[:2]
        x = (1, *x) if len(x) == len(w) - 1 else x
        rank = len(x) - 2
        if rank < 0 or len(w) != len(x) or 0 in (*x, *w) or x[1] != w[0]:
            return None
        groups = int(randomly(rng, [g for g in range(1, x[1] + 1) if x[1] % g == 0]))
        if shapes[2:] not in ((), ((w[1] * groups,),)):
            return None
        strides = tuple(int(d) for d in rng.integers(1, 4, rank))
        extra = tuple(int(rng.integers(0, s)) for s in strides)
        none, ones = (0,) * rank, (1,) * rank
        edge = (
            ones
            if all((d - 1) * s + k > 2 for d, s, k in zip(x[2:], strides, w[2:], strict=True))
            else none
        )
        return cls(strides, edge, randomly(rng, (none, edge)), ones, groups, extra)

    @classmethod
    def proposals(
        cls, specs: Sequence[Op], operands: Sequence[Value], result: Value
    ) -> Iterator[ConvTranspose]:
        x, w = operands[:2]
        folds = sorted((op for op in specs if isinstance(op, Fold)), key=lambda op: op.axis)
        cuts = [op for op in specs if isinstance(op, Slice)]
        rank = x.rank - 2
        fits = w.rank == x.rank == result.rank > 1
        groups = divide(result.shape[1], w.shape[1]) if fits else None
        if len(folds) != rank or not isinstance(groups, int):
            return
        before: list[Any] = []
        after: list[int] = []
        extra: list[int] = []
        for i, op in enumerate(folds, start=2):
            whole = (x.shape[i] - 1) * op.step + (w.shape[i] - 1) * op.dilation + 1
            first = next((c.starts[i] for c in cuts if c.starts[i] != 0), 0)
            last = whole - first - result.shape[i]
            if not isinstance(last, int):
                return
            before.append(first)
            after.append(max(0, last))
            extra.append(max(0, -last))
        steps, dilations = (tuple(getattr(op, n) for op in folds) for n in ("step", "dilation"))
        yield cls(steps, tuple(before), tuple(after), dilations, groups, tuple(extra))


# -- spatial axes: all but batch and channels, shared with pooling --------------------------------


def each_spatial(rank: int, *fields: Sequence[Any]) -> None:
    """Every field has one entry for each spatial axis; ShapeError where one has not."""
    for field in fields:
        if len(field) != rank:
            raise ShapeError(f"{tuple(field)} must have one entry for each of {rank} spatial axes")


def pad_spatial(x: Value, before: Sequence[Dim], after: Sequence[Dim], fill: float = 0) -> Value:
    """A border around the spatial axes of x [n, c, ...]."""
    front = [0] * (x.rank - len(before))
    return pad(x, [*front, *before], [*front, *after], fill)


def unfold_spatial(
    x: Value, window: Sequence[Dim], strides: Sequence[Dim], dilations: Sequence[Dim]
) -> Value:
    """Each spatial axis as (places, taps): [n, c, h, w] gives [n, c, h', kh, w', kw]."""
    first = x.rank - len(window)
    for i, (size, step, dilation) in enumerate(zip(window, strides, dilations, strict=True)):
        x = unfold(x, first + 2 * i, size, step, dilation)
    return x


@dataclass(frozen=True)
class Windows:
    """What the ops of a definition say of windows on spatial axes, an entry for each axis."""

    window: tuple[Any, ...]
    strides: tuple[Any, ...]
    dilations: tuple[Any, ...]
    before: tuple[Any, ...]
    after: tuple[Any, ...]


def read_windows(specs: Sequence[Op], rank: int) -> Windows | None:
    """The unfolds and the pad of a definition; None where there is not one unfold for each axis."""
    unfolds = sorted((op for op in specs if isinstance(op, Unfold)), key=lambda op: op.axis)
    pads = [op for op in specs if isinstance(op, Pad)]
    if len(unfolds) != rank or len(pads) > 1:
        return None
    none = (0,) * rank
    return Windows(
        tuple(op.window for op in unfolds),
        tuple(op.step for op in unfolds),
        tuple(op.dilation for op in unfolds),
        pads[0].before[-rank:] if pads and rank else none,
        pads[0].after[-rank:] if pads and rank else none,
    )


def along_channels(b: Value, rank: int) -> Value:
    """A value for each channel, [c], as [c, 1, ...]: it broadcasts to [n, c, ...] of this rank."""
    if b.rank != 1:
        raise ShapeError(f"a value for each channel has one axis, not {b.rank}")
    return unsqueeze(b, range(1, rank - 1))


def windows_of(
    x: Any, window: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> Any:
    """A view of all windows of an array: [n, c, h, w] gives [n, c, h', w', kh, kw]."""
    if not window:
        return x
    first = x.ndim - len(window)
    spans = tuple((k - 1) * d + 1 for k, d in zip(window, dilations, strict=True))
    views = sliding_window_view(x, spans, tuple(range(first, x.ndim)))
    return views[
        (slice(None),) * first + tuple(slice(None, None, s) for s in (*strides, *dilations))
    ]


def _for_one(op: Conv | ConvTranspose, x: Value, w: Value, b: Value | None) -> Value:
    """X is one sample, [c, ...]: a batch of it alone."""
    return squeeze(apply(op, unsqueeze(x, [0]), w, *([] if b is None else [b])), [0])


def _spatial_rank(x: Value, w: Value) -> int:
    if x.rank != w.rank or x.rank < 2:
        raise ShapeError(
            f"x of rank {x.rank} and w of rank {w.rank}: x is [n, c, ...], w [o, c, ...] of equal "
            "rank, or x is one sample, [c, ...]"
        )
    return x.rank - 2


# fmt: off
Conv.examples = (
    (Conv((1, 1), (0, 0), (0, 0), (1, 1), 1), "f32[2 3 6 7], f32[4 3 2 3]"),
    (Conv((1, 1), (0, 0), (0, 0), (1, 1), 1), "f32[2 3 6 7], f32[4 3 2 3], f32[4]"),
    (Conv((2, 1), (1, 0), (1, 2), (1, 2), 1), "f32[2 3 6 7], f32[4 3 2 3]"),
    (Conv((2, 1), (1, 0), (1, 2), (1, 2), 1), "f32[2 3 6 7], f32[4 3 2 3], f32[4]"),
    (Conv((1, 2), (0, 0), (0, 0), (1, 1), 2), "f32[2 4 6 7], f32[6 2 2 3]"),
    (Conv((1, 2), (0, 0), (0, 0), (1, 1), 2), "f32[2 4 6 7], f32[6 2 2 3], f32[6]"),
    (Conv((1, 2), (1, 1), (1, 1), (1, 1), 2), "f32[2 4 6 7], f32[6 2 2 3]"),
    (Conv((1, 2), (1, 1), (1, 1), (1, 1), 2), "f32[2 4 6 7], f32[6 2 2 3], f32[6]"),
    (Conv((2,),   (0,),   (0,),   (1,),   1), "f32[2 3 9], f32[4 3 2]"),
    (Conv((2,),   (1,),   (1,),   (1,),   1), "f32[2 3 9], f32[4 3 2], f32[4]"),
)
_X, _GROUPED = "f32[2 3 4 5], f32[3 4 2 3]", "f32[2 4 4 5], f32[4 3 2 3]"
ConvTranspose.examples = (
    (ConvTranspose((2, 1), (0, 0), (0, 0), (1, 1), 1, (0, 0)), _X),
    (ConvTranspose((2, 2), (1, 1), (1, 0), (1, 2), 1, (0, 0)), _X + ", f32[4]"),
    (ConvTranspose((2, 3), (1, 0), (0, 1), (1, 1), 2, (1, 2)), _GROUPED + ", f32[6]"),
)
# fmt: on

__all__ = ["Conv", "ConvTranspose"]
