"""Movement through pointwise ops, and slices pushed to where nothing unasked is computed."""

from __future__ import annotations

from safegraph.law import Law, any_of, one, table, variables
from safegraph.op import Op
from safegraph.ops import (
    Binary,
    Cast,
    Group,
    Movement,
    Permute,
    Reduce,
    Repeat,
    Select,
    Slice,
    Squeeze,
    Stride,
    Unary,
    Ungroup,
    Unsqueeze,
)
from safegraph.value import Value, apply, permute, squeeze, unsqueeze

x, y, z = variables("x y z")
(s,) = any_of(Slice, "s")
(t,) = any_of(Stride, "t")
(p,) = any_of(Permute, "p")
(q,) = any_of(Squeeze, "q")
(u,) = any_of(Unsqueeze, "u")
(r,) = any_of(Repeat, "r")
(f,) = any_of(Reduce, "f")

# Movement that only renames places goes up, to the results, where it meets its inverse;
# movement that drops elements goes down, to the inputs.
UP: tuple[type[Movement], ...] = (Permute, Group, Ungroup, Squeeze, Unsqueeze, Repeat)
DOWN: tuple[type[Movement], ...] = (Slice, Stride)


def _through_pointwise(cls: type[Op], *, up: bool) -> tuple[Law, ...]:
    """Every element is mapped by itself, so it does not matter where it stands."""
    (m,) = any_of(cls, "m")
    laws: list[Law] = []
    for pointwise in (Unary, Cast):
        (h,) = any_of(pointwise, "h")
        inner, outer = h(m(x)), m(h(x))
        left, right = (inner, outer) if up else (outer, inner)
        laws += one(f"{cls.name} and {pointwise.name} commute", left, right, grade="exact")
    for pointwise, operands in ((Binary, (x, y)), (Select, (x, y, z))):
        (h,) = any_of(pointwise, "h")
        inner, outer = h(*(m(o) for o in operands)), m(h(*operands))
        left, right = (inner, outer) if up else (outer, inner)
        laws += one(f"{cls.name} and {pointwise.name} commute", left, right, grade="exact")
    return tuple(laws)


def slice_permute(s: Slice, p: Permute, x: Value) -> Value:
    """Cut first, in the operand's order of axes."""
    place = [p.order.index(axis) for axis in range(x.rank)]
    cut = Slice(tuple(s.starts[i] for i in place), tuple(s.stops[i] for i in place))
    return permute(apply(cut, x), p.order)


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


def slice_reduce(s: Slice, f: Reduce, x: Value) -> Value | None:
    """Other axes than the reduced ones are cut before."""
    if any(s.starts[a] != 0 or s.stops[a] is not None for a in f.axes):
        return None
    return f(s(x))


def slice_group(s: Slice, g: Group, x: Value) -> Value | None:
    """A cut along axes that were not grouped."""
    return _aligned(s, g.runs, x, lambda cut: g(cut))


def slice_ungroup(s: Slice, v: Ungroup, x: Value) -> Value | None:
    """A cut along axes that were not split."""
    starts, stops, at = [], [], 0
    for factors in v.factors:
        own = range(at, at + len(factors))
        at += len(factors)
        if len(factors) == 1:
            starts.append(s.starts[own[0]])
            stops.append(s.stops[own[0]])
        elif any(s.starts[a] != 0 or s.stops[a] is not None for a in own):
            return None
        else:
            starts.append(0)
            stops.append(None)
    return v(apply(Slice(tuple(starts), tuple(stops)), x))


def _aligned(s: Slice, runs: tuple[int, ...], x: Value, after) -> Value | None:  # type: ignore[no-untyped-def]
    starts, stops = [], []
    for axis, n in enumerate(runs):
        whole = s.starts[axis] == 0 and s.stops[axis] is None
        if n > 1 and not whole:
            return None
        starts += [s.starts[axis]] if n == 1 else [0] * n
        stops += [s.stops[axis]] if n == 1 else [None] * n
    return after(apply(Slice(tuple(starts), tuple(stops)), x))


(g,) = any_of(Group, "g")
(v,) = any_of(Ungroup, "v")

# fmt: off
UPWARDS = table("movement", *(_through_pointwise(cls, up=True) for cls in UP))

SLICES = table("movement",
    *(_through_pointwise(cls, up=False) for cls in DOWN),
    one("a slice of a permute",    s(p(x)), slice_permute,   grade="exact"),
    one("a slice of an unsqueeze", s(u(x)), slice_unsqueeze, grade="exact"),
    one("a slice of a squeeze",    s(q(x)), slice_squeeze,   grade="exact"),
    one("a slice of a repeat",     s(r(x)), slice_repeat,    grade="exact"),
    one("a slice of a reduction",  s(f(x)), slice_reduce,    grade="exact"),
    one("a slice of a group",      s(g(x)), slice_group,     grade="exact"),
    one("a slice of an ungroup",   s(v(x)), slice_ungroup,   grade="exact"),
)
# fmt: on

LAWS = (*UPWARDS, *SLICES)
