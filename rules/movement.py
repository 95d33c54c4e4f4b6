"""Movement through pointwise ops, and slices pushed to where nothing unasked is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import accumulate

import numpy as np

from safegraph.derived.pointwise import Activation
from safegraph.dims import Dim, at_least, product
from safegraph.dtypes import is_float, to_numpy
from safegraph.law import Law, any_of, one, table, uniform, variables
from safegraph.op import OPS, Op, TensorType
from safegraph.ops import (
    Binary,
    Cast,
    Group,
    Movement,
    Pad,
    Permute,
    Reduce,
    Repeat,
    Select,
    Slice,
    Squeeze,
    Stride,
    Unary,
    Unfold,
    Ungroup,
    Unsqueeze,
)
from safegraph.value import (
    Value,
    apply,
    full,
    group,
    interleave,
    pad,
    permute,
    reduce,
    squeeze,
    tensor,
    unfold,
    ungroup,
    unsqueeze,
)

x, y, z = variables("x y z")
(s,) = any_of(Slice, "s")
(t,) = any_of(Stride, "t")
(p,) = any_of(Permute, "p")
(q,) = any_of(Squeeze, "q")
(u,) = any_of(Unsqueeze, "u")
(r,) = any_of(Repeat, "r")
(f,) = any_of(Reduce, "f")
(w,) = any_of(Unfold, "w")

# Movement that only renames places goes up, to the results, where it meets its inverse;
# movement that drops elements goes down, to the inputs.
ACTIVATIONS: tuple[type[Op], ...] = tuple(op for op in OPS.values() if issubclass(op, Activation))
MAPS: tuple[type[Op], ...] = (Unary, Cast, *ACTIVATIONS)
UP: tuple[type[Movement], ...] = (Permute, Group, Ungroup, Squeeze, Unsqueeze, Repeat)
DOWN: tuple[type[Movement], ...] = (Slice, Stride)


def _through_pointwise(cls: type[Op], *, up: bool) -> tuple[Law, ...]:
    """Every element is mapped by itself, so it does not matter where it stands."""
    (m,) = any_of(cls, "m")
    laws: list[Law] = []
    for pointwise in MAPS:
        (h,) = any_of(pointwise, "h")
        inner, outer = h(m(x)), m(h(x))
        left, right = (inner, outer) if up else (outer, inner)
        laws += one(f"{cls.name} and {pointwise.name} commute", left, right, grade="exact")
    for pointwise, operands in ((Binary, (x, y)), (Select, (x, y, z))):
        (h,) = any_of(pointwise, "h")
        inner, outer = h(*(m(o) for o in operands)), m(h(*operands))
        left, right = (inner, outer) if up else (outer, inner)
        laws += one(f"{cls.name} and {pointwise.name} commute", left, right, grade="exact")
    if up:
        (h,) = any_of(Binary, "h")
        laws += one(
            f"{cls.name} and {Binary.name} with a number commute",
            h(m(x), y),
            lambda h, m, x, y_is: m(h(x, full(y_is, x.shape, x.dtype))),
            facts=uniform(y),
            grade="real",
        )
        laws += one(
            f"{cls.name} and {Binary.name} of a number commute",
            h(y, m(x)),
            lambda h, m, x, y_is: m(h(full(y_is, x.shape, x.dtype), x)),
            facts=uniform(y),
            grade="real",
        )
    return tuple(laws)


def slice_permute(s: Slice, p: Permute, x: Value) -> Value:
    """Cut first, in the operand's order of axes."""
    place = [p.order.index(axis) for axis in range(x.rank)]
    cut = Slice(tuple(s.starts[i] for i in place), tuple(s.stops[i] for i in place))
    return permute(apply(cut, x), p.order)


def _blocks(runs: Iterable[int]) -> list[range]:
    """Neighbouring axes, so many at a time."""
    ends = list(accumulate(runs))
    return [range(first, end) for first, end in zip([0, *ends], ends, strict=False)]


def ungroup_permute(v: Ungroup, p: Permute, x: Value) -> Value:
    """Axes are split where they were before; their parts change places together."""
    factors = [v.factors[p.order.index(axis)] for axis in range(x.rank)]
    own = _blocks(len(f) for f in factors)
    return permute(ungroup(x, factors), [axis for i in p.order for axis in own[i]])


def ungroup_group(v: Ungroup, g: Group, x: Value) -> Value | None:
    """Axes that were grouped and are split again as they were stay; others are split first."""
    factors: list[tuple[Dim, ...]] = []
    runs: list[int] = []
    for own, split in zip(_blocks(g.runs), v.factors, strict=True):
        if len(own) == 1:
            factors.append(split)
            runs += [1] * len(split)
            continue
        factors += [(-1,)] * len(own)
        if len(split) == 1:
            runs.append(len(own))
            continue
        parts = [x.shape[axis] for axis in own]
        if len(split) != len(own) or any(
            f not in (-1, d) for f, d in zip(split, parts, strict=True)
        ):
            return None
        runs += [1] * len(own)
    return group(ungroup(x, factors), runs)


def unfold_permute(w: Unfold, p: Permute, x: Value) -> Value:
    """Windows are taken first, in the operand's order of axes; the two new axes go along."""
    axis = p.order[w.axis]
    order = [i if i <= axis else i + 1 for i in p.order]
    order.insert(w.axis + 1, axis + 1)
    return permute(unfold(x, axis, w.window, w.step, w.dilation), order)


def slice_stride(s: Slice, t: Stride, x: Value) -> Value | None:
    """Cut before every n-th is taken: ends count in steps."""
    if not all(at_least(d, a * n) for d, a, n in zip(x.shape, s.starts, t.steps, strict=True)):
        return None  # a part without elements may start beyond the end
    starts = tuple(a * n for a, n in zip(s.starts, t.steps, strict=True))
    stops = (None if b is None else (b - 1) * n + 1 for b, n in zip(s.stops, t.steps, strict=True))
    return t(apply(Slice(starts, tuple(stops)), x))


def slice_unsqueeze(s: Slice, u: Unsqueeze, x: Value) -> Value | None:
    """Cut the axes that were there; the new ones keep their one element."""
    if any(s.starts[a] != 0 or s.stops[a] is not None for a in u.axes):
        return None
    kept = [a for a in range(len(s.starts)) if a not in u.axes]
    return unsqueeze(
        apply(Slice(tuple(s.starts[a] for a in kept), tuple(s.stops[a] for a in kept)), x), u.axes
    )


def slice_squeeze(s: Slice, q: Squeeze, x: Value) -> Value:
    """Cut before axes of size 1 are dropped."""
    ends = iter(zip(s.starts, s.stops, strict=True))
    both = [(0, None) if a in q.axes else next(ends) for a in range(x.rank)]
    return squeeze(apply(Slice(tuple(a for a, _ in both), tuple(b for _, b in both)), x), q.axes)


def slice_repeat(s: Slice, r: Repeat, x: Value) -> Value:
    """A part of equal values: fewer of them."""
    cut = s.type(r.type(x.type)).shape
    counts = tuple(1 if n == 1 else d for n, d in zip(r.counts, cut, strict=True))
    starts = tuple(a if n == 1 else 0 for n, a in zip(r.counts, s.starts, strict=True))
    stops = tuple(b if n == 1 else None for n, b in zip(r.counts, s.stops, strict=True))
    return apply(Repeat(counts), apply(Slice(starts, stops), x))


def stride_unsqueeze(t: Stride, u: Unsqueeze, x: Value) -> Value:
    """The axes that were there are strided; the new ones keep their one element."""
    kept = tuple(n for axis, n in enumerate(t.steps) if axis not in u.axes)
    return unsqueeze(apply(Stride(kept), x), u.axes)


def stride_repeat(t: Stride, r: Repeat, x: Value) -> Value:
    """Some of equal values: fewer of them."""
    fewer = t.type(r.type(x.type)).shape
    counts = tuple(1 if n == 1 else d for n, d in zip(r.counts, fewer, strict=True))
    steps = tuple(step if n == 1 else 1 for n, step in zip(r.counts, t.steps, strict=True))
    return apply(Repeat(counts), apply(Stride(steps), x))


def slice_reduce(s: Slice, f: Reduce, x: Value) -> Value | None:
    """Other axes than the reduced ones are cut before."""
    if any(s.starts[a] != 0 or s.stops[a] is not None for a in f.axes):
        return None
    return f(s(x))


def slice_group(s: Slice, g: Group, x: Value) -> Value | None:
    """A cut along axes that were not grouped."""
    return _aligned(s, g.runs, x, lambda cut: g(cut))


def slice_ungroup(s: Slice, v: Ungroup, x: Value) -> Value | None:
    """A cut along axes that were not split, or along the outer factor."""
    starts, stops, at = [], [], 0
    for factors in v.factors:
        own = range(at, at + len(factors))
        at += len(factors)
        if len(factors) == 1:
            starts.append(s.starts[own[0]])
            stops.append(s.stops[own[0]])
        elif any(s.starts[a] != 0 or s.stops[a] is not None for a in own[1:]):
            return None
        elif s.starts[own[0]] != 0 or s.stops[own[0]] is not None:
            # a cut of the outer factor is one of whole blocks of the axis
            block = product(factors[1:])
            stop = s.stops[own[0]]
            starts.append(s.starts[own[0]] * block)
            stops.append(None if stop is None else stop * block)
        else:
            starts.append(0)
            stops.append(None)
    return v(apply(Slice(tuple(starts), tuple(stops)), x))


def _aligned(
    s: Slice, runs: tuple[int, ...], x: Value, after: Callable[[Value], Value]
) -> Value | None:
    starts: list[Dim] = []
    stops: list[Dim | None] = []
    for axis, n in enumerate(runs):
        whole = s.starts[axis] == 0 and s.stops[axis] is None
        if n > 1 and not whole:
            return None
        starts += [s.starts[axis]] if n == 1 else [0] * n
        stops += [s.stops[axis]] if n == 1 else [None] * n
    return after(apply(Slice(tuple(starts), tuple(stops)), x))


def reduce_permute(f: Reduce, p: Permute, x: Value) -> Value:
    """Reduce the axes where they were before."""
    return permute(reduce(x, [p.order[axis] for axis in f.axes], f.kind), p.order)


def reduce_unsqueeze(f: Reduce, u: Unsqueeze, x: Value) -> Value:
    """New axes have one element: only the others are reduced."""
    kept = [axis for axis in range(x.rank + len(u.axes)) if axis not in u.axes]
    return unsqueeze(
        reduce(x, [kept.index(axis) for axis in f.axes if axis in kept], f.kind), u.axes
    )


def reduce_squeeze(f: Reduce, q: Squeeze, x: Value) -> Value:
    """Reduce before axes of size 1 are dropped."""
    kept = [axis for axis in range(x.rank) if axis not in q.axes]
    return squeeze(reduce(x, [kept[axis] for axis in f.axes], f.kind), q.axes)


def reduce_group(f: Reduce, g: Group, x: Value) -> Value:
    """A reduction of a grouped axis is one of all its parts."""
    ends = [sum(g.runs[: i + 1]) for i in range(len(g.runs))]
    axes = [a for i in f.axes for a in range(ends[i] - g.runs[i], ends[i])]
    return group(reduce(x, axes, f.kind), g.runs)


def reduce_reduce(f: Reduce, h: Reduce, x: Value) -> Value | None:
    """Two reductions of a kind are one over both sets of axes; a mean of integers is rounded."""
    if f.kind != h.kind or set(f.axes) & set(h.axes):
        return None
    if f.kind == "mean" and not is_float(x.dtype):
        return None
    return reduce(x, (*f.axes, *h.axes), f.kind)


def pad_pointwise(h: Op, a: Pad, x: Value) -> Value | None:
    """A border is mapped to a border of the mapped number, which is no complex one."""
    if x.dtype.startswith("c"):
        return None
    fill = h.run(np.full((1,), a.fill, to_numpy(x.dtype)))[0]
    if float(fill) != fill:  # NaN, or a large integer
        return None
    return Pad(a.before, a.after, float(fill))(h(x))


def interleaved(g: Group, a: Pad, x: Value) -> Value | None:
    """Elements followed by zeros, in one axis: zeros between elements, and some at the end."""
    steps, ends, at = [], [], 0
    for n in g.runs:
        own = range(at, at + n)
        at += n
        if any(a.before[i] != 0 for i in own) or any(a.after[i] != 0 for i in own[:-1]):
            return None
        grown = a.after[own[-1]]
        if grown == 0:
            steps.append(1)
            ends.append(0)
            continue
        if n != 2 or x.shape[own[-1]] != 1 or not isinstance(grown, int) or 0 in x.shape:
            return None
        steps.append(grown + 1)
        ends.append(grown)
    plain = g(x)
    return pad(interleave(plain, steps, a.fill), [0] * len(ends), ends, a.fill)


(g,) = any_of(Group, "g")
(v,) = any_of(Ungroup, "v")
(a,) = any_of(Pad, "a")
(h2,) = any_of(Reduce, "h")

SPREAD = tuple(
    group(pad(tensor("x", TensorType("f64", shape)), [0] * len(shape), after, fill), runs)
    for shape, after, runs in (
        ((3, 1), (0, 2), (2,)),
        ((2, 3, 1), (0, 0, 2), (1, 2)),
        ((3, 1, 4, 1), (0, 2, 0, 2), (2, 2)),
    )
    for fill in (0.0, 1.0)
)
"""Elements followed by zeros, in one axis."""

# fmt: off
UPWARDS = table("movement", *(_through_pointwise(cls, up=True) for cls in UP), varies=True)

REDUCTIONS = table("movement",
    one("a reduction of a permute",      f(p(x)),  reduce_permute),
    one("a reduction of an unsqueeze",   f(u(x)),  reduce_unsqueeze),
    one("a reduction of a squeeze",      f(q(x)),  reduce_squeeze),
    one("a reduction of a group",        f(g(x)),  reduce_group),
    one("a reduction of a reduction",    f(h2(x)), reduce_reduce),
)

BORDERS = table("movement",
    *(one(f"{cls.name} of a border", any_of(cls, "h")[0](a(x)), pad_pointwise, grade="exact")
      for cls in MAPS if cls is not Cast),
    one("zeros between elements",        g(a(x)),  interleaved, grade="exact", like=SPREAD),
)

WINDOWS = table("movement",
    one("windows of a permute",    w(p(x)), unfold_permute,  grade="exact"),
)

SPLITS = table("movement",
    one("an ungroup of a permute", v(p(x)), ungroup_permute, grade="exact"),
    one("an ungroup of a group",   v(g(x)), ungroup_group,   grade="exact"),
)

SLICES = table("movement",
    *(_through_pointwise(cls, up=False) for cls in DOWN),
    one("a slice of a permute",    s(p(x)), slice_permute,   grade="exact"),
    one("a slice of a stride",     s(t(x)), slice_stride,    grade="exact"),
    one("a slice of an unsqueeze", s(u(x)), slice_unsqueeze, grade="exact"),
    one("a slice of a squeeze",    s(q(x)), slice_squeeze,   grade="exact"),
    one("a slice of a repeat",     s(r(x)), slice_repeat,    grade="exact"),
    one("a slice of a reduction",  s(f(x)), slice_reduce),
    one("a slice of a group",      s(g(x)), slice_group,     grade="exact"),
    one("a slice of an ungroup",   s(v(x)), slice_ungroup,   grade="exact"),
    one("a stride of an unsqueeze", t(u(x)), stride_unsqueeze, grade="exact"),
    one("a stride of a repeat",    t(r(x)), stride_repeat,   grade="exact"),
)
# fmt: on

LAWS = (*UPWARDS, *WINDOWS, *REDUCTIONS, *BORDERS, *SPLITS, *SLICES)
