"""Joined tensors: parts that are put together again, maps of all parts, slices of one part."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from safegraph.derived.pointwise import Not
from safegraph.derived.shape import Concat
from safegraph.dims import at_least
from safegraph.law import Law, any_of, one, table, variables
from safegraph.op import Op, TensorType
from safegraph.ops import Slice
from safegraph.rules.movement import MAPS
from safegraph.value import Value, apply, slice_axis, tensor

MOST = 8  # parts
(x,) = variables("x")
(k,) = any_of(Concat, "k")
(s,) = any_of(Slice, "s")


def _together(count: int) -> tuple[Law, ...]:
    """Neighbouring slices of one tensor, joined, are a slice of it."""
    cuts = any_of(Slice, " ".join(f"s{i}" for i in range(count)))

    def build(**found: Any) -> Value | None:
        axis, parts, whole = found["k"].axis, [found[c.name] for c in cuts], found["x"]
        first, last = parts[0], parts[-1]
        for before, after in pairwise(parts):
            if before.stops[axis] != after.starts[axis]:
                return None
        for part in parts:
            for a in range(whole.rank):
                if a != axis and (part.starts[a], part.stops[a]) != (
                    first.starts[a],
                    first.stops[a],
                ):
                    return None
        stops = tuple(last.stops[a] if a == axis else b for a, b in enumerate(first.stops))
        return apply(Slice(first.starts, stops), whole)

    wholes = (
        (0, tensor("x", TensorType("f64", (2 * count + 2,)))),
        (1, tensor("x", TensorType("f64", (3, 2 * count + 2)))),
        (1, tensor("x", TensorType("f64", (2, 2 * count + 2, 3)))),
    )
    examples = (
        Concat(axis)(*(slice_axis(whole, axis, 1 + 2 * i, 3 + 2 * i) for i in range(count)))
        for axis, whole in wholes
    )
    return one(
        f"{count} neighbouring slices joined",
        k(*(c(x) for c in cuts)),
        build,
        grade="exact",
        like=tuple(examples),
    )


def _mapped(cls: type[Op], count: int) -> tuple[Law, ...]:
    """The same function of all parts is that function of the whole."""
    (h,) = any_of(cls, "h")
    parts = variables(" ".join(f"x{i}" for i in range(count)))
    left = k(*(h(p) for p in parts))
    like = ", ".join(
        f"{p.name}: {'bool' if cls is Not else 'f64'} 3 {2 + i}" for i, p in enumerate(parts)
    )
    return one(f"{cls.name} of {count} joined parts", left, h(k(*parts)), grade="exact", like=like)


def _part(count: int) -> tuple[Law, ...]:
    """A slice that lies within one part is a slice of that part."""
    parts = variables(" ".join(f"x{i}" for i in range(count)))

    def build(**found: Any) -> Value | None:
        axis, cut = found["k"].axis, found["s"]
        start, end = cut.starts[axis], cut.stops[axis]
        at: Any = 0
        for part in (found[p.name] for p in parts):
            stop = at + part.shape[axis]
            last = part is found[parts[-1].name]
            inside = last if end is None else at_least(stop, end)
            if at_least(start, at) and inside:
                starts = tuple(v - at if a == axis else v for a, v in enumerate(cut.starts))
                stops = tuple(
                    v - at if a == axis and v is not None else v for a, v in enumerate(cut.stops)
                )
                return apply(Slice(starts, stops), part)
            at = stop
        return None

    like = ", ".join(f"{p.name}: 3 {2 + i}" for i, p in enumerate(parts))
    return one(f"a slice of one of {count} parts", s(k(*parts)), build, grade="exact", like=like)


def _laws() -> Iterator[tuple[Law, ...]]:
    for count in range(2, MOST + 1):
        yield _together(count)
        yield _part(count)
        yield from (_mapped(cls, count) for cls in MAPS)


LAWS = table("concat", *_laws())
