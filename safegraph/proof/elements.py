"""The elements of a term in a normal form: sums of products of leaves at index expressions.

An element of a value is computed from the elements of the operands, in the form of
`safegraph.proof.normal`: movement says where it reads, reductions and contractions become sums.
Over the reals sums and products are multiplied out.  With `exact` they are functions like any
other, and nothing is reordered that could change a rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import prod

from safegraph.derived.base import Derived
from safegraph.dims import sympify
from safegraph.dtypes import is_float
from safegraph.op import axes_of
from safegraph.ops import (
    Fold,
    Interleave,
    Iota,
    Opaque,
    Reduce,
    Scalar,
)
from safegraph.proof.functions import OF_BOOL, Functions
from safegraph.proof.indexing import Guard, Index, UndecidedError, source
from safegraph.proof.normal import (
    Chosen,
    Normal,
    Product,
    Read,
    Reduced,
    Sums,
    constant,
    infinite,
    key,
    number,
    used_in,
)
from safegraph.value import Value

_IDEMPOTENT = ("max", "min", "any", "all")


@dataclass
class Elements(Functions):
    """Computes elements of terms; `numbers` are the leaves that are one number everywhere."""

    numbers: Mapping[str, float] = field(default_factory=dict)
    _known: dict[tuple[Value, Index], Normal] = field(default_factory=dict, repr=False)

    def at(self, value: Value, index: Index) -> Normal:
        """The element of a value at an index.

        Raises UndecidedError where there is no form for it, ShapeError where the term is one only
        for some sizes (`dims.assuming`).  Recursive: meant for the sides of laws, not for models.
        """
        index = tuple(0 if d == 1 else e for d, e in zip(value.shape, index, strict=True))
        found = self._known.get((value, index))
        if found is None:
            found = self._known[value, index] = self._at(value, index)
        return found

    def _at(self, value: Value, index: Index) -> Normal:
        op, operands = value.op, value.operands
        if op is None:
            if value.name in self.numbers:
                return number(self.numbers[value.name])
            return (Product(sympify(1), factors=(Read(value.name, index),)),)
        if isinstance(op, Interleave) and self._algebra(value.dtype):
            return self._interleaved(op, operands[0], index)
        if operands and (moved := source(self.ranges, op, operands[0].shape, index)) is not None:
            place, guards = moved
            fill = number(op.fill) if guards else ()  # type: ignore[attr-defined]
            return self.choose(guards, lambda: self.at(operands[0], place), fill, value.dtype)
        match op:
            case Scalar():
                return number(op.value)
            case Iota():
                return self._place(index[0])
            case Reduce():
                return self._reduced(op, operands[0], index)
            case Fold():
                return self._folded(op, operands[0], index)
            case Derived():
                return self._derived(op, value, index)
            case Opaque():
                raise UndecidedError(f"{op.kind} has no definition")
        if op.is_pointwise:
            return self.apply(op, [self.at(o, index) for o in operands], value)
        raise UndecidedError(f"{op.name} has no index expression")

    def _derived(self, op: Derived, value: Value, index: Index) -> Normal:
        if op.is_pointwise and all(o.shape == value.shape for o in value.operands):
            given = [constant(self.at(o, index)) for o in value.operands]
            if all(c is not None for c in given):
                return self._computed(op, given, value)
        defined = op.define(*value.operands)
        if defined.shape != value.shape:
            raise UndecidedError(f"the shape of {op.name} depends on assumptions")
        return self.at(defined, index)

    def choose(
        self, guards: Iterable[Guard], then: Callable[[], Normal], other: Normal, dtype: str
    ) -> Normal:
        """One element where all conditions hold, else another."""
        left = []
        for guard in guards:
            found = self.ranges.decide(guard)
            if found is False:
                return other
            if isinstance(found, Guard):
                left.append(found)
        x = then()
        if not left or key(x) == key(other):
            return x
        if not self._algebra(dtype) or infinite(other) or infinite(x):
            return (Product(sympify(1), factors=(Chosen(tuple(left), x, other),)),)
        holds = (Product(sympify(1), guards=tuple(left)),)
        difference = (*x, *self.times(number(-1), other))
        return self.few((*self.times(holds, difference), *other))

    # -- reductions -------------------------------------------------------------------------------

    def _reduced(self, op: Reduce, x: Value, index: Index) -> Normal:
        place = list(index)
        sums = []
        for axis in axes_of(op.axes, x.rank):
            place[axis] = self.ranges.fresh(x.shape[axis])
            if place[axis] != 0:
                sums.append((str(place[axis]), x.shape[axis]))
        body = self.at(x, tuple(place))
        if x.dtype == "bool":
            return self.reduced(OF_BOOL.get(op.kind, op.kind), tuple(sums), body)
        linear = op.kind == "sum" or (op.kind == "mean" and is_float(x.dtype))
        if linear and self._algebra(x.dtype) and not infinite(body):
            over = prod((sympify(r) for _, r in sums), start=sympify(1))
            factor = 1 / over if op.kind == "mean" else sympify(1)
            return self.summed(body, tuple(sums), factor)
        return self.reduced(op.kind, tuple(sums), body)

    def reduced(self, kind: str, sums: Sums, body: Normal) -> Normal:
        """A reduction that is no sum of the algebra."""
        if kind in _IDEMPOTENT or (kind == "mean" and not self.exact):
            used = used_in(body)
            sums = tuple((n, r) for n, r in sums if n in used)
        match body:
            case (Product(c, (), (), (Reduced(same, inner, rest),)),) if c == 1 and same == kind:
                # a mean of integers is rounded: one of means is another number
                if kind in (*_IDEMPOTENT, "prod", "sum"):
                    sums, body = sums + inner, rest
        if not sums:
            return body
        if self.exact and kind in ("sum", "mean", "prod"):
            return (Product(sympify(1), factors=(Reduced(f"ordered {kind}", sums, body),)),)
        split = self.digits(sums, (body,))
        if split is not None:
            values, sums = split
            return self.reduced(kind, sums, self.replaced(body, values))
        return (Product(sympify(1), factors=(Reduced(kind, sums, body),)),)

    def _interleaved(self, op: Interleave, x: Value, index: Index) -> Normal:
        """The sum over the places i of x with i*step = place, and the fill where there is none."""
        own = tuple(
            e if n == 1 else self.ranges.fresh(d)
            for e, n, d in zip(index, op.steps, x.shape, strict=True)
        )
        meets = tuple(
            Guard("zero", i * n - e) for i, e, n in zip(own, index, op.steps, strict=True) if n != 1
        )
        sums = tuple(
            (str(i), d) for i, n, d in zip(own, op.steps, x.shape, strict=True) if n != 1 and i != 0
        )
        body, fill = self.at(x, own), number(op.fill)
        if infinite(body) or infinite(fill):
            raise UndecidedError("infinite numbers between elements")
        difference = (*body, *self.times(number(-1), fill))
        there = tuple(replace(p, guards=(*p.guards, *meets)) for p in difference)
        return self.few((*self.summed(there, sums), *fill))

    def _folded(self, op: Fold, x: Value, index: Index) -> Normal:
        """The sum over windows i and taps j with i*step + j*dilation = place."""
        windows, window = x.shape[op.axis : op.axis + 2]
        i, j = self.ranges.fresh(windows), self.ranges.fresh(window)
        body = self.at(x, (*index[: op.axis], i, j, *index[op.axis + 1 :]))
        meets = Guard("zero", index[op.axis] - i * op.step - j * op.dilation)
        sums = tuple((str(v), d) for v, d in ((i, windows), (j, window)) if v != 0)
        if infinite(body):
            raise UndecidedError("overlapping windows are no sums of finite numbers")
        found = self.summed(
            tuple(replace(p, guards=(*p.guards, meets)) for p in body), sums, sympify(1)
        )
        if not self._algebra(x.dtype) and any(p.sums for p in found):
            meeting = tuple(replace(p, guards=(*p.guards, meets)) for p in body)
            return (Product(sympify(1), factors=(Reduced("ordered fold", sums, meeting),)),)
        return found
