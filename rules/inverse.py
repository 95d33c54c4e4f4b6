"""What an op's inverse undoes: generated from `Op.inverse` and `Op.pseudo_inverse`, and compositions.

Identities need no law: a term that does nothing is never built (`safegraph.value.apply`).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from safegraph import ops
from safegraph.dims import Dim
from safegraph.dtypes import is_integer
from safegraph.law import Law, any_of, one, spec, table, variables
from safegraph.op import OPS, Op
from safegraph.ops import (
    Group,
    Movement,
    Pad,
    Permute,
    Repeat,
    Slice,
    Squeeze,
    Stride,
    Unary,
    Unsqueeze,
)
from safegraph.value import Value, squeeze, unsqueeze

(x,) = variables("x")
p, q = any_of(Permute, "p q")
g, h = any_of(Group, "g h")
s, t = any_of(Squeeze, "s t")
i, j = any_of(Unsqueeze, "i j")
c, d = any_of(Slice, "c d")
a, b = any_of(Pad, "a b")
m, n = any_of(Stride, "m n")
r, k = any_of(Repeat, "r k")


@spec
def undoes(first: Op, second: Op, x: Value) -> bool:
    """Does the second op give back the operand of the first?

    Of complex numbers, functions that are periodic along the imaginary axis lose the period.
    """
    if isinstance(first, Unary) and first.kind != "neg" and x.dtype.startswith("c"):
        return False
    undo = first.inverse(x.shape)
    return undo is not None and undo.normal(first.type(x.type)) is second


def averages(f: ops.Reduce, x: Value) -> bool:
    """Is it no mean of integers, which rounds large ones even where all are equal?"""
    return f.kind != "mean" or not is_integer(x.dtype)


@spec
def half_undoes(first: Op, second: Op, x: Value) -> bool:
    """Does the first op give the same again, after the second?"""
    if isinstance(first, ops.Reduce) and not averages(first, x):
        return False
    undo = first.pseudo_inverse(x.shape)
    return undo is not None and undo.normal(first.type(x.type)) is second


@spec
def then(p: Permute, q: Permute) -> Permute:
    """The order that applies p, then q."""
    return Permute(tuple(p.order[i] for i in q.order))


@spec
def grouped(g: Group, h: Group) -> Group:
    """The runs that apply g, then h."""
    runs = iter(g.runs)
    return Group(tuple(sum(next(runs) for _ in range(n)) for n in h.runs))


def cut_twice(c: Slice, d: Slice, x: Value) -> Value:
    """Slice d of slice c as one slice."""
    starts = tuple(e + f for e, f in zip(c.starts, d.starts, strict=True))
    stops = (
        outer if inner is None else first + inner
        for first, outer, inner in zip(c.starts, c.stops, d.stops, strict=True)
    )
    return Slice(starts, tuple(stops))(x)


@spec
def padded(a: Pad, b: Pad) -> Pad | None:
    """Both borders, where they have one fill."""
    if a.fill != b.fill:
        return None
    before = tuple(e + f for e, f in zip(a.before, b.before, strict=True))
    return Pad(before, tuple(e + f for e, f in zip(a.after, b.after, strict=True)), a.fill)


@spec
def strided(m: Stride, n: Stride) -> Stride:
    """Both steps."""
    return Stride(tuple(e * f for e, f in zip(m.steps, n.steps, strict=True)))


@spec
def repeated(r: Repeat, k: Repeat) -> Repeat:
    """Both counts: an axis that was repeated is not of size 1 any more, unless by 1."""
    return Repeat(tuple(e if f == 1 else f for e, f in zip(r.counts, k.counts, strict=True)))


def squeezed(s: Squeeze, t: Squeeze, x: Value) -> Value:
    """The axes of both, in the operand's numbers."""
    kept = [axis for axis in range(x.rank) if axis not in s.axes]
    return squeeze(x, (*s.axes, *(kept[axis] for axis in t.axes)))


def unsqueezed(i: Unsqueeze, j: Unsqueeze, x: Value) -> Value:
    """The places of both, in the result's numbers."""
    rank = x.rank + len(i.axes) + len(j.axes)
    kept = [axis for axis in range(rank) if axis not in j.axes]
    return unsqueeze(x, (*j.axes, *(kept[axis] for axis in i.axes)))


def mixed(i: Unsqueeze, s: Squeeze, x: Value) -> Value:
    """Axes that are inserted and dropped again, left out; the others keep their places."""
    rank = x.rank + len(i.axes)
    kept = [axis for axis in range(rank) if axis not in s.axes]
    inserted = [place for place, axis in enumerate(kept) if axis in i.axes]
    own = [axis for axis in range(rank) if axis not in i.axes]
    return unsqueeze(
        squeeze(x, [own.index(axis) for axis in s.axes if axis not in i.axes]), inserted
    )


def reduction_of_repeat(r: Repeat, f: ops.Reduce, x: Value) -> Value | None:
    """Equal values have themselves as mean, maximum and minimum, and n times themselves as sum."""
    repeated_axes = {axis for axis, count in enumerate(r.counts) if count != 1}
    if not set(f.axes) <= repeated_axes or not averages(f, x):
        return None
    left = tuple(1 if axis in f.axes else count for axis, count in enumerate(r.counts))
    if f.kind in ("mean", "max", "min", "any", "all"):
        return Repeat(left)(x)
    if f.kind == "sum":
        times: Dim = 1
        for axis in f.axes:
            times = times * r.counts[axis]
        return times * Repeat(left)(x)
    return None


def _pairs(of: str) -> Iterator[tuple[type[Op], type[Op]]]:
    """Op classes and the classes of their (pseudo-)inverses, as random specs show them."""
    shapes = [(2, 3), (1, 4), (4,), (6, 1), (2, 2, 1)]
    for cls in OPS.values():
        if cls.arity != (1, 1) or not cls.__module__.startswith("safegraph.ops."):
            continue
        rng = np.random.default_rng(0)
        found: dict[type[Op], None] = {}
        for shape in shapes * 20:
            op = cls.draw(rng, shape)
            undo = getattr(op, of)(shape) if op is not None else None
            if undo is not None:
                found[type(undo)] = None
        yield from ((cls, undo) for undo in found)


def _undone(first: type[Op], second: type[Op]) -> tuple[Law, ...]:
    (f,), (g,) = any_of(first, "f"), any_of(second, "g")
    grade = "exact" if issubclass(first, Movement) else "real"
    return one(f"{second.name} undoes {first.name}", g(f(x)), x, when=undoes(f, g, x), grade=grade)


def _half_undone(first: type[Op], second: type[Op]) -> tuple[Law, ...]:
    (f,), (g,) = any_of(first, "f"), any_of(second, "g")
    return one(
        f"{first.name} again after {second.name}",
        f(g(f(x))),
        f(x),
        when=half_undoes(f, g, x),
        grade="exact" if issubclass(first, Movement) else "real",
    )


(f,) = any_of(ops.Reduce, "f")
_EXACT = list(dict.fromkeys(_pairs("inverse")))
_HALF = [
    pair
    for pair in dict.fromkeys(_pairs("pseudo_inverse"))
    if pair not in _EXACT or pair == (Unary, Unary)
]

# fmt: off
LAWS = table("inverse",
    *(_undone(*pair) for pair in _EXACT),
    *(_half_undone(*pair) for pair in _HALF),
    one("permutes compose",             q(p(x)), then(p, q)(x),     grade="exact"),
    one("groups compose",               h(g(x)), grouped(g, h)(x),  grade="exact"),
    one("squeezes compose",             t(s(x)), squeezed,          grade="exact"),
    one("unsqueezes compose",           j(i(x)), unsqueezed,        grade="exact"),
    one("a squeeze of an unsqueeze",    s(i(x)), mixed,             grade="exact"),
    one("slices compose",               d(c(x)), cut_twice,         grade="exact"),
    one("pads compose",                 b(a(x)), padded(a, b)(x),   grade="exact"),
    one("strides compose",              n(m(x)), strided(m, n)(x),  grade="exact"),
    one("repeats compose",              k(r(x)), repeated(r, k)(x), grade="exact"),
    one("a reduction of equal values",  f(r(x)), reduction_of_repeat),
)
# fmt: on
