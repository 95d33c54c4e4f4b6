"""Cases of a law with free sizes: every number that can be one becomes a size.

A drawn case has numbers for the sizes of its leaves and in the specs of its ops.  A `Template`
makes as many of them free as can be, so that the law still fires: each by itself, equal ones
together, one as a sum or a multiple of others.  What an op then needs of the sizes
(`dims.assume`), and what the law asks of them, is put into them: where x has to be at least y, x
becomes y + z - 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import combinations, product
from math import isfinite
from types import MappingProxyType
from typing import Any

import numpy as np

from safegraph.cases import Case, is_meant, literals, with_floats_as
from safegraph.dims import (
    Dim,
    Size,
    assuming,
    at_least,
    collected,
    evaluate,
    names,
    open_questions,
    period,
    size,
    substitute,
)
from safegraph.dtypes import is_float, to_numpy
from safegraph.errors import SafeGraphError
from safegraph.law import Law, OpVar, Var
from safegraph.op import Op, TensorType
from safegraph.soundness import Counterexample, counterexample
from safegraph.value import Value, apply, tensor, walk

_MISFITS = (SafeGraphError, ValueError, IndexError, TypeError, ArithmeticError, AttributeError)
_MOST_STEPS = 60
_MOST_ELEMENTS = 100_000  # of a value that is computed
_FIELDS = frozenset(
    {"starts", "stops", "before", "after", "extra", "counts", "factors", "to", "at", "size"}
    | {"window", "step", "steps", "strides", "dilation", "dilations"}
)
"""The fields of specs whose numbers are sizes or steps; other numbers name axes, runs or labels."""
_STEPS = frozenset({"step", "steps", "strides", "dilation", "dilations"})

Slot = tuple[Any, ...]
"""Where a number stands: (variable, axis) of a leaf, (variable, field, place, ...) of an op."""


@dataclass(frozen=True)
class Lifted:
    """Both sides of a law, with free sizes."""

    law: Law
    left: Value
    right: Value
    numbers: Mapping[str, float]
    fixed: tuple[str, ...]
    scope: Mapping[str, Any] = field(repr=False)
    """Leaves and ops, by the law's names for them."""

    @property
    def sizes_fixed(self) -> list[str]:
        """The axes of leaves whose sizes stayed numbers."""
        return [
            name
            for name in self.fixed
            if name.rpartition(".")[2].isdigit() and name.count(".") == 1
        ]

    @property
    def text(self) -> str:
        """Tells structures apart."""
        order = walk([self.left])
        place = {v: i for i, v in enumerate(order)}
        rows = (
            f"{v.name}: {v.type}" if v.op is None else f"{v.op!r} {[place[o] for o in v.operands]}"
            for v in order
        )
        return f"{'; '.join(rows)} {self.numbers}"

    def for_integers(self) -> Iterator[Lifted]:
        """The same with integers, and with truth values, for floats, where the law fires on it."""
        types = {n: self.scope[n].type for n in self.law.tensors}
        if not any(is_float(t.dtype) for t in types.values()):
            return
        for dtype in ("i64", "bool"):
            other = with_floats_as(types, dtype)
            numbers = {n: _as_number(number, other[n]) for n, number in self.numbers.items()}
            if numbers != self.numbers:
                continue  # there is no such integer
            scope = {**self.scope, **{n: tensor(n, t) for n, t in other.items()}}
            scope |= {f"{n}_is": number for n, number in numbers.items()}
            left = right = None
            with suppress(*_MISFITS), assuming():  # no more than for floats
                left = _instance(self.law.left, scope)
                if left is not None and is_meant(left):
                    scope["root"] = left.type
                    right = self.law.build(scope)
            if left is not None and right is not None:
                yield replace(self, left=left, right=right, numbers=numbers, scope=scope)

    def counterexample(self, rng: np.random.Generator, tries: int = 6) -> str:
        """Sizes and values for which the law is wrong, as text; "" where none was found.

        For each of some sizes the law builds its right side anew: its functions may do something
        else for numbers than for free sizes.  Sizes that their code names are among these.
        """
        for sizes in self._numbers(rng, tries):
            case = self._at(sizes)
            found = case and counterexample(case, self.law, {}, rng)
            if found:
                bound = ", ".join(f"{name} = {number}" for name, number in sizes.items())
                return f"{told(found)}{' for ' * bool(bound)}{bound}"
        return ""

    def _numbers(self, rng: np.random.Generator, tries: int) -> Iterator[dict[str, int]]:
        """Values for the free sizes: small ones, equal ones, and each as the law's code has it."""
        order = walk([self.left, self.right])
        specs = (value for v in order if v.op is not None for value in v.op.spec.values())
        free = sorted(names((*(v.shape for v in order), *specs)))
        for i in range(tries if free else 1):
            small = rng.integers(1, 6, len(free)) if i % 3 else np.full(len(free), 1 + i // 3)
            yield dict(zip(free, map(int, small), strict=True))
        for number in literals(self.law):
            for name in free:
                yield {**dict.fromkeys(free, 2), name: number}

    def _at(self, sizes: Mapping[str, int]) -> Case | None:
        """The case for these sizes; None where there is none, or it is too large to be tried."""
        scope = dict(self.scope)
        try:
            for name, item in self.scope.items():
                if isinstance(item, Op):
                    scope[name] = item.bind(sizes)
                elif isinstance(item, Value):
                    scope[name] = tensor(name, item.type.bind(sizes))
            left = _instance(self.law.left, scope)
        except _MISFITS:
            return None  # no such term for these sizes
        if left is None or any(int(v.type.numel) > _MOST_ELEMENTS for v in walk([left])):
            return None
        scope["root"] = left.type
        right = self.law.build(scope)
        return None if right is None else Case(scope, left, right, ({},))


def told(found: Counterexample) -> str:
    """How the sides differ, in one line."""
    if found.values is None or found.index is None:
        return found.what
    left, right = found.values
    return f"element {list(found.index)} of the left side is {left}, of the right {right}"


@dataclass
class Template:
    """A case of a law with the places of its numbers."""

    law: Law
    types: Mapping[str, TensorType]
    ops: Mapping[str, Op]
    numbers: Mapping[str, float]
    values: Mapping[Slot, int]

    @classmethod
    def of(cls, law: Law, case: Case) -> Template | None:
        """The case with numbers for its sizes; None where the law does not fire on those."""
        sizes = case.sizes[0]
        types = {n: case.scope[n].type.bind(sizes) for n in law.tensors}
        ops = {v.name: case.scope[v.name].bind(sizes) for v in law.specs}
        numbers = {n: case.scope[f"{n}_is"] for n in law.tensors if f"{n}_is" in case.scope}
        values = {(n, axis): d for n, t in types.items() for axis, d in enumerate(t.shape)}
        for name, op in ops.items():
            for what, value in op.spec.items():
                if what in _FIELDS:
                    values |= {(name, what, *at): n for at, n in _numbers_in(value)}
        found = cls(law, types, ops, numbers, values)
        return None if found.built({}) is None else found

    @property
    def within_the_reals(self) -> bool:
        """Is no number infinite, about which a law over the reals says nothing?"""
        return self.law.grade == "exact" or all(
            isinstance(n, Size) or isfinite(n) for n in self.numbers.values()
        )

    def lifts(self) -> Iterator[Lifted]:
        """The case with as many free sizes as can be; then with fewer, where steps are numbers."""
        order = sorted(self.values, key=self._priority)
        found = self._widest(order)
        yield found
        some = [s for s in order if len(s) == 2 or s[1] not in _STEPS]
        plain = [s for s in some if self.values[s] > 1]
        for slots in (some, plain):
            if len(slots) < len(order):
                yield self._widest(slots)

    def _priority(self, slot: Slot) -> tuple[bool, bool, bool]:
        return (slot[1] in _STEPS, self.values[slot] < 2, len(slot) > 2)

    def _widest(self, slots: Sequence[Slot]) -> Lifted:
        """As many of these free as can be: each by itself, then those of equal numbers together."""
        groups: list[tuple[Slot, ...]] = [(s,) for s in slots]
        chosen = self._grown([], groups)
        for together in (lambda s: (self.values[s], s[-1]), lambda s: self.values[s]):
            free = {s for group in chosen for s in group}
            classes: dict[Any, list[Slot]] = {}
            for slot in slots:
                if slot not in free:
                    classes.setdefault(together(slot), []).append(slot)
            chosen = self._grown(chosen, [tuple(c) for c in classes.values() if len(c) > 1])
        return self._with_pairs(chosen, slots)

    def _with_pairs(self, chosen: list[tuple[Slot, ...]], slots: Sequence[Slot]) -> Lifted:
        """Sizes that are free only together: multiples of each other, or at a fixed distance."""
        found = self.built(dict(enumerate(chosen)))
        assert found is not None
        numbers = [
            s for s in slots if len(s) == 2 and self.values[s] > 1 and _name(s) in found.fixed
        ]
        for pair in combinations(numbers, 2):
            if not all(_name(s) in found.fixed for s in pair):
                continue
            rest = [g for g in chosen if not set(g) & set(pair)]
            for groups in ([(s,) for s in pair], [pair]):
                again = self.built(dict(enumerate([*rest, *groups])))
                if again is not None and len(again.fixed) < len(found.fixed):
                    chosen, found = [*rest, *groups], again
                    break
        return self._with_sums(chosen, found)

    def _with_sums(self, chosen: list[tuple[Slot, ...]], found: Lifted) -> Lifted:
        """For each axis, equal numbers of specs as one size, and those that are sums as sums."""
        ties: dict[Slot, tuple[Slot, Slot]] = {}
        for slot in [s for s in self.values if _name(s) in found.sizes_fixed]:
            own = [s for s in self.values if len(s) > 2 and s[-1] == slot[-1]]
            classes: dict[int, tuple[Slot, ...]] = {}
            for s in own:
                classes[self.values[s]] = (*classes.get(self.values[s], ()), s)
            size_ = self.values[slot]
            for a, b in product(classes, repeat=2):
                if b == a + size_ and a != b:
                    groups, sums = [classes[a], (slot,)], classes[b]
                    parts = classes[a][0], slot
                elif a + b == size_ and a and b:
                    groups, sums = list(dict.fromkeys((classes[a], classes[b]))), (slot,)
                    parts = classes[a][0], classes[b][0]
                else:
                    continue
                more = {**ties, **dict.fromkeys(sums, parts)}
                rest = [g for g in chosen if not set(g) & {slot, *own}]
                again = self.built(dict(enumerate([*rest, *groups])), more)
                if again is not None and len(again.fixed) < len(found.fixed):
                    chosen, found, ties = [*rest, *groups], again, more
                    break
        return found

    def _grown(
        self, chosen: list[tuple[Slot, ...]], more: list[tuple[Slot, ...]]
    ) -> list[tuple[Slot, ...]]:
        """`chosen` with those of `more` with which the law still fires, found by halves."""
        stack = [more] if more else []
        while stack:
            part = stack.pop()
            if self.built(dict(enumerate([*chosen, *part]))) is not None:
                chosen = [*chosen, *part]
            elif len(part) > 1:
                middle = len(part) // 2
                stack += [part[middle:], part[:middle]]
        return chosen

    def built(
        self,
        free: Mapping[int, tuple[Slot, ...]],
        ties: Mapping[Slot, tuple[Slot, Slot]] = MappingProxyType({}),
    ) -> Lifted | None:
        """Both sides with these groups of numbers free; None where the law does not fire.

        The numbers of a group keep their differences; `ties` are numbers that are sums of two.
        """
        values: dict[Slot, Dim] = dict(self.values)
        samples = Samples()
        for group in free.values():
            least = min(self.values[slot] for slot in group)
            # a number that may be 0 is a size less 1
            symbol = samples.fresh(least or 1) - (0 if least else 1)
            values |= {slot: symbol + (self.values[slot] - least) for slot in group}
        values |= {slot: values[a] + values[b] for slot, (a, b) in ties.items()}
        for _ in range(_MOST_STEPS):
            try:
                found, step = self._fired(values, samples)
            except _MISFITS:
                return None
            if found is not None or step is None:
                return found
            values = {slot: substitute(v, step) for slot, v in values.items()}
        return None

    def _fired(
        self, values: Mapping[Slot, Dim], samples: Samples
    ) -> tuple[Lifted | None, dict[str, Dim] | None]:
        """Both sides; or what is to be put in for a size, that the law may fire; or neither."""
        scope = self._scope(values)
        with assuming() as needed:
            left = _instance(self.law.left, scope)
        if left is None:
            return None, None
        if needed:
            return None, samples.fulfilling(*next(iter(needed.values())))
        scope["root"] = left.type
        with assuming() as more:
            right = self.law.build(scope)
        if more:
            return None, samples.fulfilling(*next(iter(more.values())))
        if right is not None:
            fixed = tuple(self._fixed(values))
            return Lifted(self.law, left, right, self.numbers, fixed, scope), None
        # The law says "no" where it cannot tell: it shall be able to.  (Asked again, as what was
        # computed the first time is remembered: so the questions are the same every time.)
        with assuming(), open_questions() as asked:
            self.law.build(scope)
        steps = (samples.answering(a, b) for a, b in asked)
        return None, next((step for step in steps if step is not None), None)

    def _scope(self, values: Mapping[Slot, Dim]) -> dict[str, Any]:
        scope: dict[str, Any] = {f"{n}_is": number for n, number in self.numbers.items()}
        for name, type_ in self.types.items():
            shape = tuple(values[name, axis] for axis in range(type_.rank))
            scope[name] = tensor(name, type_.with_shape(shape))
        for name, op in self.ops.items():
            spec = {what: _put(value, values, (name, what)) for what, value in op.spec.items()}
            scope[name] = type(op)(**spec)
        return scope

    def _fixed(self, values: Mapping[Slot, Dim]) -> Iterator[str]:
        for slot, value in values.items():
            if isinstance(value, int) and value > 1:
                yield _name(slot)


def _as_number(number: Any, type_: TensorType) -> Any:
    """A number as the element type holds it; None for one that it lacks."""
    if not is_float(type_.dtype) and not isinstance(number, Size) and not isfinite(number):
        return None
    return number if isinstance(number, Size) else np.asarray(number, to_numpy(type_.dtype)).item()


def _name(slot: Slot) -> str:
    return ".".join(map(str, slot))


def _numbers_in(value: Any, at: Slot = ()) -> Iterator[tuple[Slot, int]]:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        yield at, value
    if isinstance(value, tuple):
        for i, item in enumerate(value):
            yield from _numbers_in(item, (*at, i))


def _put(value: Any, values: Mapping[Slot, Dim], at: Slot) -> Any:
    if at in values:
        return values[at]
    if isinstance(value, tuple):
        return tuple(_put(item, values, (*at, i)) for i, item in enumerate(value))
    return value


def _instance(pattern: Any, scope: dict[str, Any]) -> Value | None:
    """The left side on these leaves; its ops in their normal spelling, which the scope gets."""
    if isinstance(pattern, Var):
        return scope[pattern.name]
    operands = [_instance(o, scope) for o in pattern.operands]
    if any(o is None for o in operands):
        return None
    head = pattern.head
    op = scope[head.name] if isinstance(head, OpVar) else head
    value = apply(op, *operands)  # type: ignore[arg-type]
    if value.op is None or type(value.op) is not type(op) or value.operands != tuple(operands):
        return None
    if isinstance(head, OpVar):
        scope[head.name] = value.op
    return value


class Samples:
    """Free sizes, each with the number that it had, and what is known of them put into them."""

    def __init__(self) -> None:
        self.of: dict[str, int] = {}

    def fresh(self, number: int) -> Dim:
        """A new free size that stands for this number."""
        name = f"n{len(self.of)}"
        self.of[name] = number
        return size(name)

    def fulfilling(self, relation: str, a: Dim, b: Dim) -> dict[str, Dim] | None:
        """A size put in terms of others so that a relation (see `dims.assume`) holds for all."""
        match relation:
            case "==":
                return self._equal(a - b)
            case ">=":
                return self._from_0(a - b)
        return self._divided(b, a)

    def answering(self, a: Dim, b: Dim) -> dict[str, Dim] | None:
        """The same, so that a >= b has the answer that it has for the numbers."""
        return self._from_0(a - b if self._number(a - b) >= 0 else b - a - 1)

    def _number(self, dim: Dim) -> int:
        return evaluate(dim, self.of)

    def _linear(self, e: Dim) -> Iterator[tuple[str, Dim, Dim]]:
        """(name, slope, rest) with e = slope*name + rest."""
        for name in sorted(names(e), key=lambda n: (len(n), n), reverse=True):
            parts = collected(e, name.__eq__)
            if set(parts) <= {1, size(name)} and size(name) in parts:
                yield name, parts[size(name)], parts.get(1, 0)

    def _equal(self, e: Dim) -> dict[str, Dim] | None:
        if period(e) != 1:
            return self._whole(e)
        for name, slope, rest in self._linear(e):
            if slope in (1, -1) and at_least(-slope * rest, 1):
                value = -slope * rest
                if self._number(value) == self.of[name]:
                    return {name: value}
        return None

    def _from_0(self, e: Dim, depth: int = 8) -> dict[str, Dim] | None:
        if period(e) != 1:
            return self._whole(e)
        rows = [(name, -rest) for name, slope, rest in self._linear(e) if slope == 1]
        for name, least in rows:
            for low in (0, 1):  # the least value itself is left out where it may be 0
                if at_least(least, 1 - low):
                    more = self.of[name] - self._number(least) + 1 - low
                    if more >= 1:
                        return {name: least + self.fresh(more) - 1 + low}
        for name, slope, rest in self._linear(e):
            if isinstance(slope, int) and slope > 1 and isinstance(rest, int):
                least_ = -(rest // slope)
                if least_ >= 1 and self.of[name] >= least_:
                    return {name: least_ - 1 + self.fresh(self.of[name] - least_ + 1)}
        for _, least in rows if depth else ():  # first, that its sign be known
            positive = self._number(least) >= 1
            step = self._from_0(least - 1 if positive else -least, depth - 1)
            if step is not None:
                return step
        return None

    def _whole(self, e: Dim) -> dict[str, Dim] | None:
        """A size as a multiple, so that a floor division of it comes out even."""
        for name in sorted(names(e)):
            for step in range(2, 9):
                missing = -self.of[name] % step
                value = step * size("n") - missing
                if period(substitute(e, {name: value})) == 1:
                    fresh = self.fresh((self.of[name] + missing) // step)
                    return {name: step * fresh - missing}
        return None

    def _divided(self, e: Dim, divisor: Dim) -> dict[str, Dim] | None:
        for name, slope, rest in self._linear(e):
            times, odd = divmod(self.of[name] + self._number(rest), self._number(divisor))
            if odd or times < 1 or (rest != 0 and slope != 1):
                continue
            value = divisor * self.fresh(times) - rest
            if at_least(value, 1):
                return {name: value}
        return None
