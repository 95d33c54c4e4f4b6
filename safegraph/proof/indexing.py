"""Index expressions: where the element of a result stands in the operand, for all sizes at once.

An index is a size expression (`safegraph.dims`) over free sizes, each at least 1, and index
variables, whose names start with "_".  `Ranges` knows that variable v runs over 0 <= v < range, and
simplifies floor divisions of mixed-radix numbers and conditions with that: for j < b,
(b*i + j)//b is i.  What cannot be told is left as it is, never guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import gcd
from typing import Any

from safegraph.dims import (
    Dim,
    Shape,
    at_least,
    coefficients,
    collected,
    divide,
    names,
    period,
    size,
    substitute,
)
from safegraph.errors import SafeGraphError
from safegraph.op import Op
from safegraph.ops import (
    Group,
    Interleave,
    Pad,
    Permute,
    Repeat,
    Slice,
    Squeeze,
    Stride,
    Unfold,
    Ungroup,
    Unsqueeze,
)

Index = tuple[Dim, ...]


class UndecidedError(SafeGraphError):
    """An element has no index expression here, or one that is too large to compare."""


def is_index(name: str) -> bool:
    """Is this the name of an index variable, not of a size?"""
    return name.startswith("_")


def variables(value: Dim | Index) -> frozenset[str]:
    """The index variables in an expression."""
    return frozenset(filter(is_index, names(value)))


@dataclass(frozen=True)
class Guard:
    """A condition on indices: `e >= 0` ("from 0"), `e == 0` ("zero") or `by` divides e."""

    kind: str
    e: Dim
    by: Dim = 1


@dataclass
class Ranges:
    """Index variables and how far each runs; what follows from that."""

    of: dict[str, Dim] = field(default_factory=dict)
    _signs: dict[Dim, bool] = field(default_factory=dict, repr=False)

    def fresh(self, range_: Dim) -> Dim:
        """A new variable v with 0 <= v < range; 0 where there is one place only."""
        if range_ == 1:
            return 0
        name = f"_{len(self.of)}"
        self.of[name] = range_
        return size(name)

    # -- sizes of expressions ---------------------------------------------------------------------

    def never_below_0(self, e: Dim) -> bool:
        """Is e >= 0 for all sizes and all indices?  (False where it cannot be told.)"""
        found = self._signs.get(e)
        if found is None:
            lows = self._lows(e)
            found = lows is not None and all(at_least(low, 0) is True for low in lows)
            self._signs[e] = found
        return found

    def always_below_0(self, e: Dim) -> bool:
        """Is e < 0 for all sizes and all indices?"""
        return self.never_below_0(-e - 1)

    def _lows(self, e: Dim) -> list[Dim] | None:
        """Values, one of which is the least: a linear expression has it at an end of each range."""
        if not variables(e):
            return [e]
        lows: list[Dim] = [0]
        for part, slope in collected(e, is_index).items():
            if part == 1:
                lows = [low + slope for low in lows]
                continue
            if str(part) not in self.of:  # a product of indices, or a floor division
                return self._lows_of_floors(e) if period(part) != 1 else None
            last = slope * (self.of[str(part)] - 1)
            if at_least(slope, 0):
                continue
            low_too = [] if at_least(-slope, 0) else lows
            lows = [*(low + last for low in lows), *low_too]
        return lows

    def _lows_of_floors(self, e: Dim) -> list[Dim] | None:
        """The same where floor divisions are left: each as a number from 0 to its largest value."""
        bounds: dict[str, Dim] = {}

        def opened(a: Dim, b: Dim) -> Dim:
            if not variables(a):
                return a // b
            wider = Ranges(self.of | bounds)
            highs = wider._lows(-a)
            if not wider.never_below_0(a) or highs is None or len(highs) != 1:
                raise UndecidedError(f"the sign of {a}")
            name = f"_q{len(bounds)}"
            bounds[name] = self.quotient(-highs[0], b) + 1
            return size(name)

        try:
            inner = _walked(e, {n: size(n) for n in names(e)}, opened)
        except UndecidedError:
            return None
        return Ranges(self.of | bounds)._lows(inner) if bounds else None

    # -- division ---------------------------------------------------------------------------------

    def divmod(self, e: Dim, b: Dim) -> tuple[Dim, Dim]:
        """(q, r) with e = q*b + r, where as much as can be told to divide is in q."""
        whole: Dim = 0
        rest: Dim = 0
        for part, factor in collected(e, is_index).items():
            exact = divide(factor, b)
            if exact is None and isinstance(b, int):
                for term, n in collected(factor, lambda _: True).items():
                    whole += int(n) // b * term * part
                    rest += int(n) % b * term * part
            elif exact is None:
                rest += factor * part
            else:
                whole += exact * part
        for shift in (0, 1, -1, 2, -2):
            moved = rest - shift * b
            if self.never_below_0(moved) and self.always_below_0(moved - b):
                return whole + shift, moved
        return whole, rest

    def multiple(self, e: Dim, b: Dim) -> tuple[Dim, Dim]:
        """(q, r) with e = q*b + r, where q has the terms of which b is a factor."""
        whole: Dim = 0
        for part, factor in collected(e, is_index).items():
            exact = divide(factor, b)
            whole = whole if exact is None else whole + exact * part
        return whole, e - whole * b

    def quotient(self, e: Dim, b: Dim) -> Dim:
        """floor(e / b)"""
        if b == 1:
            return e
        whole, rest = self.divmod(e, b)
        if self.is_remainder(rest, b):
            return whole
        return whole + rest // b

    def is_remainder(self, rest: Dim, b: Dim) -> bool:
        return self.never_below_0(rest) and self.always_below_0(rest - b)

    def replaced(self, e: Dim, values: Mapping[str, Dim]) -> Dim:
        """An expression with variables replaced, its floor divisions simplified again."""
        own = names(e)
        if not own & values.keys() and period(e) == 1:
            return e
        scope = {n: values.get(n) if n in values else size(n) for n in own}
        if period(e) == 1:
            return substitute(e, scope)  # type: ignore[arg-type]
        return _walked(e, scope, self.quotient)  # type: ignore[arg-type]

    def divisions(self, e: Dim) -> Iterator[tuple[Dim, Dim]]:
        """The floor divisions (a, b) of index variables that are left in an expression."""
        found: list[tuple[Dim, Dim]] = []

        def note(a: Dim, b: Dim) -> Dim:
            if variables(a):
                found.append((a, b))
            return self.quotient(a, b)

        if period(e) != 1:
            _walked(e, {n: size(n) for n in names(e)}, note)
        yield from found

    # -- conditions -------------------------------------------------------------------------------

    def decide(self, guard: Guard) -> bool | Guard:
        """Whether a condition holds everywhere or nowhere; else its simplest form."""
        match guard.kind:
            case "from 0":
                return self._from_0(guard.e)
            case "divides":
                _, rest = self.divmod(guard.e, guard.by)
                if rest == 0:
                    return True
                small = self.is_remainder(rest, guard.by)
                return False if small and self.never_below_0(rest - 1) else Guard(
                    "divides", rest, guard.by
                )  # fmt: skip
        e = guard.e
        if e == 0:
            return True
        if self.always_below_0(e) or self.always_below_0(-e) or _uneven(e):
            return False
        return Guard("zero", min(e, -e, key=str))

    def _from_0(self, e: Dim) -> bool | Guard:
        if self.never_below_0(e):
            return True
        if self.always_below_0(e):
            return False
        # b*a + r >= 0 with 0 <= r < b is a >= 0
        for part, factor in collected(e, is_index).items():
            for b in (factor, -factor):
                if part != 1 and b != 1 and at_least(b, 1):
                    whole, rest = self.divmod(e, b)
                    if self.is_remainder(rest, b):
                        return self._from_0(whole)
        return Guard("from 0", e)

    def breakpoint(self, guard: Guard, name: str) -> tuple[Dim, bool] | None:
        """Where a condition changes along a variable: (p, up), it holds from p on or below p.

        None where other variables matter, or p may lie outside of the range.
        """
        if guard.kind != "from 0" or variables(guard.e) != {name}:
            return None
        parts = collected(guard.e, is_index)
        slope, constant = parts.get(size(name), 0), parts.get(1, 0)
        if set(parts) - {1, size(name)}:
            return None
        if at_least(slope, 1):
            point, up = -(constant // slope), True  # the ceiling of -constant/slope
        elif at_least(-slope, 1):
            point, up = constant // -slope + 1, False
        else:
            return None
        inside = at_least(point, 0) and at_least(self.of[name], point)
        return (point, up) if inside else None


def _uneven(e: Dim) -> bool:
    """Have all terms but the number a common divisor, which the number lacks?"""
    parts = dict(coefficients(e))
    constant = parts.pop(1, 0)
    common = gcd(*parts.values())
    return common > 1 and constant % common != 0


class _Walked:
    """A size in whose expression floor divisions are computed by another function."""

    def __init__(self, dim: Dim, floor: Callable[[Dim, Dim], Dim]) -> None:
        self.dim, self.floor = dim, floor

    def _with(self, dim: Dim) -> _Walked:
        return _Walked(dim, self.floor)

    def __add__(self, other: Any) -> _Walked:
        return self._with(self.dim + _plain(other))

    def __sub__(self, other: Any) -> _Walked:
        return self._with(self.dim - _plain(other))

    def __rsub__(self, other: Any) -> _Walked:
        return self._with(_plain(other) - self.dim)

    def __mul__(self, other: Any) -> _Walked:
        return self._with(self.dim * _plain(other))

    def __neg__(self) -> _Walked:
        return self._with(-self.dim)

    def __pow__(self, power: int) -> _Walked:
        return self._with(self.dim**power)

    def __floordiv__(self, other: Any) -> _Walked:
        return self._with(self.floor(self.dim, _plain(other)))

    def __rfloordiv__(self, other: Any) -> _Walked:
        return self._with(self.floor(_plain(other), self.dim))

    __radd__, __rmul__ = __add__, __mul__


def _plain(item: Any) -> Dim:
    return item.dim if isinstance(item, _Walked) else item


def _walked(e: Dim, scope: Mapping[str, Dim], floor: Callable[[Dim, Dim], Dim]) -> Dim:
    wrapped: Any = {n: _Walked(d, floor) for n, d in scope.items()}
    return _plain(substitute(e, wrapped))


# -- where an op reads ----------------------------------------------------------------------------

Source = tuple[Index, tuple[Guard, ...]]
"""The place in the operand, and the conditions under which it is read: else the fill is there."""


def _permute(_: Ranges, op: Permute, x: Shape, at: Index) -> Source:
    return tuple(at[op.order.index(axis)] for axis in range(len(x))), ()


def _group(ranges: Ranges, op: Group, x: Shape, at: Index) -> Source:
    found: list[Dim] = []
    first = 0
    for e, run in zip(at, op.runs, strict=True):
        digits: list[Dim] = []
        for d in reversed(x[first + 1 : first + run]):
            rest = ranges.quotient(e, d)
            digits.insert(0, e - d * rest)
            e = rest
        found += [e, *digits]
        first += run
    return tuple(found), ()


def _ungroup(_: Ranges, op: Ungroup, x: Shape, at: Index) -> Source:
    factors = op.shape(x)
    found: list[Dim] = []
    first = 0
    for own in op.factors:
        e: Dim = 0
        for axis in range(first, first + len(own)):
            e = e * factors[axis] + at[axis]
        found.append(e)
        first += len(own)
    return tuple(found), ()


def _squeeze(_: Ranges, op: Squeeze, x: Shape, at: Index) -> Source:
    rest = iter(at)
    return tuple(0 if axis in op.axes else next(rest) for axis in range(len(x))), ()


def _unsqueeze(_: Ranges, op: Unsqueeze, x: Shape, at: Index) -> Source:
    return tuple(e for axis, e in enumerate(at) if axis not in op.axes), ()


def _slice(_: Ranges, op: Slice, x: Shape, at: Index) -> Source:
    return tuple(start + e for (start, _), e in zip(op.ends(x), at, strict=True)), ()


def _stride(_: Ranges, op: Stride, x: Shape, at: Index) -> Source:
    return tuple(step * e for step, e in zip(op.steps, at, strict=True)), ()


def _repeat(_: Ranges, op: Repeat, x: Shape, at: Index) -> Source:
    return tuple(e if n == 1 else 0 for n, e in zip(op.counts, at, strict=True)), ()


def _unfold(_: Ranges, op: Unfold, x: Shape, at: Index) -> Source:
    window, tap = at[op.axis : op.axis + 2]
    return (*at[: op.axis], window * op.step + tap * op.dilation, *at[op.axis + 2 :]), ()


def _pad(_: Ranges, op: Pad, x: Shape, at: Index) -> Source:
    inner = tuple(e - a for e, a in zip(at, op.before, strict=True))
    guards = (Guard("from 0", g) for d, e in zip(x, inner, strict=True) for g in (e, d - 1 - e))
    return inner, tuple(guards)


def _interleave(ranges: Ranges, op: Interleave, x: Shape, at: Index) -> Source:
    inner = tuple(ranges.quotient(e, n) for e, n in zip(at, op.steps, strict=True))
    guards = (Guard("divides", e, n) for e, n in zip(at, op.steps, strict=True) if n != 1)
    return inner, tuple(guards)


_SOURCES: dict[type[Op], Callable[[Ranges, Any, Shape, Index], Source]] = {
    Permute: _permute,
    Group: _group,
    Ungroup: _ungroup,
    Squeeze: _squeeze,
    Unsqueeze: _unsqueeze,
    Slice: _slice,
    Stride: _stride,
    Repeat: _repeat,
    Unfold: _unfold,
    Pad: _pad,
    Interleave: _interleave,
}


def source(ranges: Ranges, op: Op, x: Shape, at: Index) -> Source | None:
    """Where a movement op with an operand of shape x reads its element `at`; None for other ops."""
    found = _SOURCES.get(type(op))
    return None if found is None else found(ranges, op, x, at)
