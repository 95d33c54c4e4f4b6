"""Named ops found piece by piece, where one form of a definition would be too little.

A norm is found without scale and shift first and takes them in one after the other; a layer norm
between reshapes is a group norm.  `safegraph.rules.attention` does the same for attention, and
`safegraph.rules.definitions` finds the rest, from the definitions alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import pi, sqrt

from safegraph.derived.norm import BatchNorm, GroupNorm, LayerNorm, LogSoftmax, RmsNorm, Softmax
from safegraph.derived.pointwise import Gelu, Sigmoid
from safegraph.dims import Dim, product, same
from safegraph.dtypes import is_float
from safegraph.law import any_of, capped, one, table, uniform, variables
from safegraph.op import TensorType
from safegraph.ops import (
    Binary,
    Group,
    Permute,
    Reduce,
    Repeat,
    Unary,
    Ungroup,
    Unsqueeze,
)
from safegraph.rules.affine import near, shortest
from safegraph.value import (
    Value,
    group,
    permute,
    squeeze,
    tensor,
    ungroup,
)

x, y, z, w, a, b, e, m = variables("x y z w a b e m")
(layer,) = any_of(LayerNorm, "layer")
(rms,) = any_of(RmsNorm, "rms")
(grouped,) = any_of(GroupNorm, "grouped")
(soft,) = any_of(Softmax, "soft")
(f,) = any_of(Reduce, "f")
(p,) = any_of(Permute, "p")
(r,) = any_of(Repeat, "r")
(u,) = any_of(Unsqueeze, "u")
g, g2 = any_of(Group, "g g2")
n, n2 = any_of(Ungroup, "n n2")
exp, log, root = Unary("exp"), Unary("log"), Binary("root")


# -- scale and shift ------------------------------------------------------------------------------


def own_part(wide: Value, shape: tuple[Dim, ...]) -> Value | None:
    """A value that repeats one of this shape along leading axes, as that one."""
    lead = wide.rank - len(shape)
    if lead < 0 or any(d != 1 for d in wide.shape[:lead]) or wide.shape[lead:] != shape:
        return None
    return squeeze(wide, range(lead))


def scaled(norm: LayerNorm | RmsNorm, x: Value, w: Value) -> Value | None:
    """A factor of the last axes after a norm that has none."""
    part = own_part(w, x.shape[x.rank - norm.axes :])
    return None if part is None else norm(x, part)


def shifted(layer: LayerNorm, x: Value, w: Value, b: Value) -> Value | None:
    """A term of the last axes after a layer norm that has none."""
    part = own_part(b, w.shape)
    return None if part is None else layer(x, w, part)


def of_channels(wide: Value, x: Value, axis: int = 1) -> Value | None:
    """A value that repeats one number for each channel, as a vector."""
    at = wide.rank - x.rank + axis
    others = [i for i in range(wide.rank) if i != at]
    if at < 0 or any(wide.shape[i] != 1 for i in others) or wide.shape[at] != x.shape[axis]:
        return None
    return squeeze(wide, others)


def channels_scaled(
    grouped: GroupNorm, x: Value, w: Value, p: Permute | None = None
) -> Value | None:
    """A factor of channels after a group norm that has none, and after a permute."""
    part = of_channels(w, x if p is None else p(x), p.order.index(1) if p else 1)
    return part and (grouped(x, part) if p is None else p(grouped(x, part)))


def channels_shifted(
    grouped: GroupNorm, x: Value, w: Value, b: Value, p: Permute | None = None
) -> Value | None:
    """A term of channels after a group norm that has none, and after a permute."""
    part = of_channels(b, x if p is None else p(x), p.order.index(1) if p else 1)
    return part and (grouped(x, w, part) if p is None else p(grouped(x, w, part)))


def grouped_repeat(h: Binary, g: Group, x: Value, r: Repeat, w: Value) -> Value | None:
    """An op with values that are repeated along all axes of a run or along none: after grouping."""
    at = 0
    counts: list[Dim] = []
    for run in g.runs:
        own = r.counts[at : at + run]
        at += run
        if all(c == 1 for c in own):
            counts.append(1)
        elif all(c != 1 for c in own):
            counts.append(product(own))
        else:
            return None
    return h(g(x), Repeat(tuple(counts))(g(w)))


# -- norms over other axes ------------------------------------------------------------------------


def between(axes: Sequence[int], x: Value, norm: Callable[[Value], Value]) -> Value:
    """A function of the last axes, for these: they are moved there and back."""
    order = [i for i in range(x.rank) if i not in axes] + list(axes)
    back = [order.index(i) for i in range(x.rank)]
    return permute(norm(permute(x, order)), back)


def standardized(f: Reduce, x: Value, r: Repeat, e_is: float, z_is: float) -> Value | None:
    """(x - mean) / sqrt(variance + eps) over any axes is a layer norm of these, moved to the end."""
    over = tuple(i for i, c in enumerate(r.counts) if c != 1)
    if f.kind != "mean" or z_is != 2 or not is_float(x.dtype) or over != f.axes:
        return None
    return between(f.axes, x, lambda y: LayerNorm(len(f.axes), shortest(e_is, y.dtype))(y))


def scaled_by_power(f: Reduce, x: Value, r: Repeat, e_is: float, z_is: float) -> Value | None:
    """X / sqrt(mean(x * x) + eps) over any axes is an RMS norm of these, moved to the end."""
    over = tuple(i for i, c in enumerate(r.counts) if c != 1)
    if f.kind != "mean" or z_is != 2 or not is_float(x.dtype) or over != f.axes:
        return None
    return between(f.axes, x, lambda y: RmsNorm(len(f.axes), shortest(e_is, y.dtype))(y))


def _groups(before: Value, parts: Value, axes: int) -> int | None:
    """How many groups of channels [n, c, ...] has as [n, groups, ...], normalised over the rest."""
    if before.rank < 2 or parts.rank != axes + 2 or not same(before.shape[0], parts.shape[0]):
        return None
    groups, channels = parts.shape[1], before.shape[1]
    if not isinstance(groups, int) or not isinstance(channels, int):
        return None
    if not groups or not channels or channels % groups:
        return None
    # a group of neighbouring channels with all their places is what follows in memory
    rest = product(before.shape[1:])
    return groups if same(rest, product(parts.shape[1:])) else None


def group_norm(
    n: Ungroup, x: Value, layer: LayerNorm, root: TensorType, g: Group | None = None
) -> Value | None:
    """Channels split into groups, each normalised with all its places, and joined again."""
    parts = n(x if g is None else g(x))
    groups = _groups(x, parts, layer.axes)
    if groups is None or root.shape != x.shape:
        return None
    return GroupNorm(groups, layer.eps)(x)


def group_norm_last(
    p: Permute, layer: LayerNorm, p0: Permute, n: Ungroup, x: Value, root: TensorType
) -> Value | None:
    """The same for channels in the last axis: n ... c as n ... groups c/groups."""
    parts = n(x)
    if root.shape != x.shape or tuple(p0.order[i] for i in p.order) != tuple(range(parts.rank)):
        return None
    rank = x.rank
    wanted = (0, rank - 1, *range(1, rank - 1), rank)
    kept = parts.rank == rank + 1 and parts.shape[: rank - 1] == x.shape[:-1]
    groups = parts.shape[rank - 1] if kept else None
    if p0.order != wanted or layer.axes != rank - 1 or not isinstance(groups, int):
        return None
    order = (0, rank - 1, *range(1, rank - 1))
    y = GroupNorm(groups, layer.eps)(permute(x, order))
    return permute(y, [order.index(i) for i in range(rank)])


def batch_norm(
    x: Value, m: Value, w: Value, y: Value, e_is: float, z_is: float, b: Value
) -> Value | None:
    """(x - m) * w / sqrt(y + eps) + b with one number for each place of one axis."""
    own = [i for i, d in enumerate(y.shape) if d != 1]
    if z_is != 2 or len(own) != 1 or not is_float(x.dtype) or x.rank < 2:
        return None
    axis = own[0] + x.rank - y.rank
    parts = [of_channels(v, x, axis) for v in (w, b, m, y)]
    if axis == 0 or any(v is None for v in parts):
        return None
    order = [i for i in range(x.rank) if i != axis]
    order.insert(1, axis)
    back = [order.index(i) for i in range(x.rank)]
    return permute(BatchNorm(shortest(e_is, x.dtype))(permute(x, order), *parts), back)


def batch_norm_unsqueezed(
    u: Unsqueeze, x: Value, m: Value, w: Value, y: Value, b: Value, e_is: float, z_is: float
) -> Value | None:
    """The same where axes were added to the factor after it was computed."""
    return batch_norm(x, m, u(w), u(y), e_is, z_is, b)


# -- softmax --------------------------------------------------------------------------------------


def softmax_plain(f: Reduce, x: Value) -> Value | None:
    """exp(x) / sum(exp(x)): what is subtracted before makes no difference over the reals."""
    if f.kind != "sum" or len(f.axes) != 1 or not is_float(x.dtype):
        return None
    return Softmax(f.axes[0])(x)


def log_softmax_plain(f: Reduce, x: Value) -> Value | None:
    """X - log(sum(exp(x)))"""
    if f.kind != "sum" or len(f.axes) != 1 or not is_float(x.dtype):
        return None
    return LogSoftmax(f.axes[0])(x)


def softmax_of_permute(soft: Softmax, p: Permute, x: Value) -> Value:
    """Along the axis where it was before."""
    return permute(Softmax(p.order[soft.axis])(x), p.order)


# -- gelu -----------------------------------------------------------------------------------------

_CUBE, _SLOPE = 0.044715, 2 * sqrt(2 / pi)


def gelu_plain(x: Value, a_is: float, b_is: float) -> Value | None:
    """X * Φ(x a b), where a and b undo each other to rounding: 1/√2 and √2."""
    return Gelu("none")(x) if near(a_is * b_is, 1, x.dtype) else None


def gelu_outside(x: Value, a_is: float, b_is: float) -> Value | None:
    """X * sigmoid((x + x³ a) b)"""
    fits = near(a_is, _CUBE, x.dtype) and near(b_is, _SLOPE, x.dtype)
    return Gelu("tanh")(x) if fits else None


def gelu_inside(x: Value, a_is: float, b_is: float, e_is: float) -> Value | None:
    """X * sigmoid(x (x² a + b) e)"""
    fits = near(a_is * e_is, _CUBE * _SLOPE, x.dtype) and near(b_is * e_is, _SLOPE, x.dtype)
    return Gelu("tanh")(x) if fits else None


_CENTRED = x - r(f(x))
_LAST = permute(
    LayerNorm(2)(
        permute(ungroup(tensor("x", "f64[2 3 4]"), [(-1,), (-1,), (2, -1)]), (0, 2, 1, 3))
    ),
    (0, 2, 1, 3),
)
_LAST = group(_LAST, (1, 1, 2))
(p0,) = any_of(Permute, "p0")
(h,) = any_of(Binary, "h")
(logs,) = any_of(LogSoftmax, "logs")

# fmt: off
NORMS = table("recognition",
    one("a layer norm takes in a factor",        layer(x) * r(w),     lambda layer, x, w: scaled(layer, x, w),
        like="x: 2 3 4, w: 1 1 4; x: 2 3 4, w: 1 3 4"),
    one("a layer norm takes in a term",          layer(x, w) + r(b),  shifted, like="x: 2 3 4, w: 4, b: 1 1 4"),
    one("an RMS norm takes in a factor",         rms(x) * r(w),       lambda rms, x, w: scaled(rms, x, w),
        like="x: 2 3 4, w: 1 1 4; x: 2 3 4, w: 1 3 4"),
    one("a group norm takes in a factor",        grouped(x) * r(w),   channels_scaled, like="x: 2 4 3 3, w: 1 4 1 1"),
    one("a group norm takes in a term",          grouped(x, w) + r(b), channels_shifted, like="x: 2 4 3 3, w: 4, b: 1 4 1 1"),
    one("a permuted group norm takes in a factor", p(grouped(x)) * r(w), channels_scaled, like="x: 2 4 3 3, w: 1 1 1 4"),
    one("a permuted group norm takes in a term", p(grouped(x, w)) + r(b), channels_shifted, like="x: 2 4 3 3, w: 4, b: 1 1 1 4"),
    one("a group of an op with repeated values", g(h(x, r(w))),       grouped_repeat),
    one("a layer norm over any axes",            _CENTRED / r(root(f(_CENTRED * _CENTRED) + e, z)), standardized,
        facts=(uniform(e), uniform(z)), like="x: 2 3 4, e: 2 1 4, z: 2 1 4"),
    one("an RMS norm over any axes",             x / r(root(f(x * x) + e, z)), scaled_by_power,
        facts=(uniform(e), uniform(z)), like="x: 2 3 4, e: 2 1 4, z: 2 1 4"),
    one("a group norm of split channels",        g(layer(n(x))),      lambda g, n, x, layer, root: group_norm(n, x, layer, root)),
    one("a group norm by reshapes",              n2(g2(layer(n(g(x))))), lambda n, g, x, layer, root: group_norm(n, x, layer, root, g)),
    one("a group norm of the last axis",         g(p(layer(p0(n(x))))), group_norm_last,
        like=_LAST),
    one("a batch norm of any axis",              (x - r(m)) * r(w / root(y + e, z)) + r(b), batch_norm,
        facts=(uniform(e), uniform(z)), like="x: 2 3 4, m: 1 3 1, w: 1 3 1, y: 1 3 1, e: 1 3 1, z: 1 3 1, b: 1 3 1"),
    one("a batch norm of any axis, new axes",  (x - r(m)) * r(u(w / root(y + e, z))) + r(b), batch_norm_unsqueezed,
        facts=(uniform(e), uniform(z)), like="x: 2 3 4, m: 1 3 1, w: 3, y: 3, e: 3, z: 3, b: 1 3 1"),
)

SOFTMAX = table("recognition",
    one("a softmax without a maximum",           exp(x) / r(f(exp(x))), softmax_plain, facts=capped(x), like="x: 2 3 4"),
    one("a log softmax without a maximum",       x - r(log(f(exp(x)))), log_softmax_plain, facts=capped(x), like="x: 2 3 4"),
    one("a softmax by its logarithm",            exp(logs(x)), lambda logs, x: Softmax(logs.axis)(x)),
    one("a softmax of a permute",                soft(p(x)),            softmax_of_permute, grade="exact"),
)

_X = tensor("x", "f64[2 3]")
_S, _PHI = Sigmoid(), Unary("gaussian")
GELU = table("recognition",
    one("gelu by the normal distribution",       x * _PHI((x * a) * b),               gelu_plain,   facts=(uniform(a), uniform(b)),
        like=_X * ((_X * sqrt(0.5)) * sqrt(2)).gaussian()),
    one("gelu by a sigmoid of a sum",            x * _S((x + ((x * x) * x) * a) * b), gelu_outside, facts=(uniform(a), uniform(b)),
        like=_X * _S((_X + _X * _X * _X * _CUBE) * _SLOPE)),
    one("gelu by a sigmoid of a product",        x * _S((x * ((x * x) * a + b)) * e), gelu_inside,  facts=(uniform(a), uniform(b), uniform(e)),
        like=_X * _S((_X * (_X * _X * _CUBE + 1)) * _SLOPE)),
)
# fmt: on

LAWS = (*NORMS, *SOFTMAX, *GELU)
