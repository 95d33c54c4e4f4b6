"""Convolutions that are written out: windows, shifted slices, parts of a grid, resized images."""

from __future__ import annotations

from safegraph.derived.conv import Conv
from safegraph.derived.einsum import Einsum, Labels, einsum
from safegraph.derived.pointwise import Broadcast
from safegraph.derived.resize import Resize
from safegraph.derived.shape import Concat
from safegraph.dims import product
from safegraph.law import any_of, constant, one, table, variables
from safegraph.op import TensorType
from safegraph.ops import Slice, Stride, Unfold
from safegraph.rules.conv import c, pointwise_conv
from safegraph.rules.einsum import other
from safegraph.value import (
    Value,
    apply,
    pad,
    permute,
    reshape,
    slice_axis,
    squeeze,
    stride,
    tensor,
    unfold,
)

x, y, w, b = variables("x y w b")
(e,) = any_of(Einsum, "e")
(u,) = any_of(Unfold, "u")
(v,) = any_of(Unfold, "v")
(z,) = any_of(Resize, "z")
(m,) = any_of(Broadcast, "m")
(k,) = any_of(Concat, "k")
(s,) = any_of(Slice, "s")
t1, t2, t3, t4 = any_of(Stride, "t1 t2 t3 t4")
s2, s3, s4 = any_of(Slice, "s2 s3 s4")


def windowed(e: Einsum, unfolds: tuple[Unfold, ...], x: Value, w: Value) -> Value | None:
    """A contraction of windows of x with a weight, as a convolution.

    Labels tell the roles: taps and channels are summed with the weight's, places and samples are in
    the result only, the weight's own are the output channels.
    """
    axes = _window_axes(unfolds)
    places = tuple(e.left[a] for a, _ in axes)
    taps = tuple(e.left[a] for _, a in axes)
    if any(c not in e.out or c in e.right for c in places):
        return None
    if any(c in e.out or c not in e.right for c in taps):
        return None
    rest = [c for c in e.left if c not in places + taps]
    samples = tuple(c for c in rest if c not in e.right)
    channels = tuple(c for c in rest if c in e.right and c not in e.out)
    outer = tuple(c for c in e.right if c not in e.left)
    if len(samples) + len(channels) != len(rest) or any(c not in e.out for c in outer):
        return None
    sizes = dict(zip(e.right, w.shape, strict=True))
    order = _before(unfolds, e.left)
    image = permute(x, [order.index(c) for c in samples + channels + places])
    sample_sizes = image.shape[: len(samples)]
    space = image.shape[len(samples) + len(channels) :]
    inner = product(sizes[c] for c in channels)
    image = reshape(image, (product(sample_sizes), inner, *space))
    kernel = permute(w, [e.right.index(c) for c in outer + channels + taps])
    outer_sizes = tuple(sizes[c] for c in outer)
    kernel = reshape(kernel, (product(outer_sizes), inner, *(sizes[c] for c in taps)))
    none = (0,) * len(unfolds)
    steps = tuple(op.step for op in unfolds)
    dilations = tuple(op.dilation for op in unfolds)
    if not all(isinstance(n, int) for n in (*steps, *dilations)):
        return None
    result = Conv(steps, none, none, dilations)(image, kernel)  # type: ignore[arg-type]
    result = reshape(result, (*sample_sizes, *outer_sizes, *result.shape[2:]))
    labels = samples + outer + places
    alone = [labels.index(c) for c in samples if c not in e.out]
    if any(result.shape[a] != 1 for a in alone):
        return None
    left = [c for c in labels if c in e.out]
    return permute(squeeze(result, alone), [left.index(c) for c in e.out])


def _window_axes(unfolds: tuple[Unfold, ...]) -> list[tuple[int, int]]:
    """Where (places, taps) of each unfold stand in the end, the first applied first."""
    found: list[tuple[int, int]] = []
    for op in unfolds:
        found = [tuple(a + (a > op.axis) for a in pair) for pair in found]  # type: ignore[misc]
        found.append((op.axis, op.axis + 1))
    return found


def _before(unfolds: tuple[Unfold, ...], labels: Labels) -> Labels:
    """The labels of the axes before the unfolds; an unfolded axis has the label of its places."""
    taps = {taps for _, taps in _window_axes(unfolds)}
    return tuple(c for axis, c in enumerate(labels) if axis not in taps)


def windows_apart(unfolds: tuple[Unfold, ...]) -> bool:
    """Is no window taken of windows?"""
    axes = [a for pair in _window_axes(unfolds) for a in pair]
    return len(set(axes)) == len(axes)


def conv_1d(e: Einsum, u: Unfold, x: Value, w: Value) -> Value | None:
    """One unfolded axis."""
    return windowed(e, (u,), x, w)


def conv_2d(e: Einsum, u: Unfold, v: Unfold, x: Value, w: Value) -> Value | None:
    """Two unfolded axes."""
    return windowed(e, (u, v), x, w) if windows_apart((u, v)) else None


def one_tap(m: Broadcast, s: Slice, x: Value, w: Value, root: TensorType) -> Value | None:
    """A shifted slice times one number a channel: a depthwise convolution with one tap that counts."""
    moved = [a for a in range(x.rank) if s.starts[a] != 0 or s.stops[a] is not None]
    if m.kind != "multiply" or moved != [x.rank - 1] or x.rank != 3:
        return None
    first, length = s.starts[-1], root.shape[-1]
    window = x.shape[-1] - length + 1
    channels = x.shape[1]
    flat = [d for a, d in enumerate(w.shape) if a != w.rank - 2]
    if not isinstance(first, int) or not isinstance(window, int) or not isinstance(channels, int):
        return None
    if not 1 < window <= 16 or w.rank < 2 or any(d != 1 for d in flat) or w.shape[-2] != channels:
        return None
    kernel = pad(reshape(w, (channels, 1, 1)), [0, 0, first], [0, 0, window - 1 - first])
    return Conv((1,), (0,), (0,), (1,), channels)(x, kernel)


def one_convolution(c: Conv, x: Value, w: Value, y: Value) -> Value | None:
    """Convolutions of one kind of one operand: the weights are added."""
    return c(x, w + y) if w.shape == y.shape else None


def focus(
    c: Conv, k: Concat, t1: Stride, t2: Stride, t3: Stride, t4: Stride, s2: Slice, s3: Slice, s4: Slice,
    x: Value, w: Value, b: Value | None = None,
) -> Value | None:  # fmt: skip
    """The four parts of a grid as channels, convolved: one convolution of the grid, twice as large."""
    parts = [(t1, (0, 0)), *((t, s.starts[2:]) for t, s in ((t2, s2), (t3, s3), (t4, s4)))]
    grid = {(0, 0), (0, 1), (1, 0), (1, 1)}
    cut = any(s.starts[:2] != (0, 0) or set(s.stops) != {None} for s in (s2, s3, s4))
    if k.axis != 1 or x.rank != 4 or cut or c.groups != 1 or c.dilations != (1, 1):
        return None
    if {at for _, at in parts} != grid or any(t.steps != (1, 1, 2, 2) for t, _ in parts):
        return None
    channels = x.shape[1]
    pieces = reshape(w, (w.shape[0], 4, channels, *w.shape[2:]))
    order = [[at for _, at in parts].index(at) for at in sorted(grid)]
    ordered = Concat(1)(*(pieces[:, i : i + 1] for i in order))
    split = reshape(ordered, (w.shape[0], 2, 2, channels, *w.shape[2:]))
    kernel = permute(split, (0, 3, 4, 1, 5, 2))
    kernel = reshape(kernel, (w.shape[0], channels, 2 * w.shape[2], 2 * w.shape[3]))
    strides, before, after = (tuple(2 * n for n in part) for part in (c.strides, c.before, c.after))
    whole = Conv(strides, before, after, (1, 1))
    return whole(x, kernel) if b is None else whole(x, kernel, b)


def resized_after(c: Conv, z: Resize, x: Value, w: Value, b: Value | None = None) -> Value | None:
    """A map of channels and an interpolation of places commute: its weights add up to 1."""
    if not pointwise_conv(c, w) or any(s != 1 for s in c.strides) or any(a < 2 for a in z.axes):
        return None
    return z(c(x, w) if b is None else c(x, w, b))


_PARTS = (t1(x), t2(s2(x)), t3(s3(x)), t4(s4(x)))

# Examples on which the laws fire.
_line, _image, _kernel = (
    tensor(n, t) for n, t in (("x", "f64[2 4 8]"), ("x", "f64[2 4 6 6]"), ("w", "f64[5 4 3]"))
)
_kernel_2d, _channels = tensor("w", "f64[5 4 3 3]"), tensor("w", "f64[4 1]")
_rows = (unfold(_line, 2, 3, 1), unfold(_line, 2, 3, 2))
_windows = tuple(unfold(unfold(_image, 2, 3, n), 4, 3, n) for n in (1, 2))
ONE_LEFT = tuple(einsum("ncst,oct->nos", rows, _kernel) for rows in _rows)
ONE_RIGHT = tuple(einsum("oct,ncst->nos", _kernel, rows) for rows in _rows)
TWO_LEFT = tuple(einsum("ncsatb,ocab->nost", both, _kernel_2d) for both in _windows)
TWO_RIGHT = tuple(einsum("ocab,ncsatb->nost", _kernel_2d, both) for both in _windows)
SHIFTED = Broadcast("multiply")(slice_axis(_line, 2, 1, 6), _channels)
_GRID = Concat(1)(
    *(
        stride(apply(Slice((0, 0, i, j), (None,) * 4), _image), (1, 1, 2, 2))
        for j in (0, 1)
        for i in (0, 1)
    )
)
_focus = Conv((1, 1), (1, 1), (1, 1), (1, 1))
GRID = (_focus(_GRID, tensor("w", "f64[5 16 3 3]")),)
GRID_BIASED = (_focus(_GRID, tensor("w", "f64[5 16 3 3]"), tensor("b", "f64[5]")),)
_mix = Conv((1, 1), (0, 0), (0, 0), (1, 1))
_grown = tuple(Resize((2, 3), (9, 4), mode)(_image) for mode in ("nearest", "linear", "cubic"))
RESIZED = tuple(_mix(grown, tensor("w", "f64[5 4 1 1]")) for grown in _grown)
RESIZED_BIASED = tuple(
    _mix(grown, tensor("w", "f64[5 4 1 1]"), tensor("b", "f64[5]")) for grown in _grown
)

# fmt: off
LAWS = table("windows",
    one("windows of one axis in a contraction (left)",   e(u(x), w),     conv_1d, like=ONE_LEFT),
    one("windows of one axis in a contraction (right)",  e(w, u(x)),     lambda e, u, x, w: conv_1d(other(e), u, x, w), like=ONE_RIGHT),
    one("windows of two axes in a contraction (left)",   e(v(u(x)), w),  conv_2d, like=TWO_LEFT),
    one("windows of two axes in a contraction (right)",  e(w, v(u(x))),  lambda e, u, v, x, w: conv_2d(other(e), u, v, x, w), like=TWO_RIGHT),
    one("a shifted slice times a number a channel",      m(s(x), w),     one_tap, facts=constant(w), like=SHIFTED, grade="finite"),
    one("convolutions of one operand",                   c(x, w) + c(x, y), one_convolution, grade="finite"),
    one("parts of a grid, convolved",                    c(k(*_PARTS), w),    focus, facts=constant(w), like=GRID),
    one("parts of a grid, convolved with a bias",        c(k(*_PARTS), w, b), focus, facts=constant(w), like=GRID_BIASED),
    one("a convolution of a resized image",              c(z(x), w),     resized_after, like=RESIZED, grade="finite"),
    one("a biased convolution of a resized image",       c(z(x), w, b),  resized_after, like=RESIZED_BIASED, grade="finite"),
)
# fmt: on
