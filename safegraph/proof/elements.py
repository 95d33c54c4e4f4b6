"""The elements of a term in a normal form: sums of products of leaves at index expressions.

An element of a value is computed from the elements of the operands, in the form of
`safegraph.proof.normal`: movement says where it reads, reductions and contractions become sums.
Over the reals sums and products are multiplied out.  With `exact` they are functions like any
other, and nothing is reordered that could change a rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np

from safegraph.derived.base import Derived
from safegraph.dims import Dim, collected, sympify
from safegraph.dtypes import is_float, is_integer, to_numpy
from safegraph.op import Op, axes_of
from safegraph.ops import (
    BINARY,
    Binary,
    Cast,
    Fold,
    Interleave,
    Iota,
    Opaque,
    Reduce,
    Scalar,
    Select,
    Unary,
)
from safegraph.proof.algebra import Algebra
from safegraph.proof.indexing import Guard, Index, UndecidedError, is_index, source
from safegraph.proof.normal import (
    Applied,
    Chosen,
    Normal,
    Place,
    Product,
    Read,
    Reduced,
    Sums,
    as_number,
    as_place,
    constant,
    infinite,
    is_condition,
    key,
    number,
    used_in,
)
from safegraph.value import Value

_IDEMPOTENT = ("max", "min", "any", "all")
_OF_BOOL = {
    **dict.fromkeys(("sum", "mean", "max", "add", "maximum"), "any"),
    **dict.fromkeys(("prod", "min", "multiply", "minimum"), "all"),
}


@dataclass
class Elements(Algebra):
    """Computes elements of terms; `numbers` are the leaves that are one number everywhere."""

    numbers: Mapping[str, float] = field(default_factory=dict)
    exact: bool = False
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

    def _algebra(self, dtype: str) -> bool:
        """Are sums and products of this element type those of a ring?

        Those of integers are, to the bit; those of floats over the reals only.
        """
        return is_integer(dtype) or (dtype != "bool" and not self.exact)

    def _derived(self, op: Derived, value: Value, index: Index) -> Normal:
        if op.is_pointwise and all(o.shape == value.shape for o in value.operands):
            given = [constant(self.at(o, index)) for o in value.operands]
            if all(c is not None for c in given):
                return self._computed(op, given, value)
        defined = op.define(*value.operands)
        if defined.shape != value.shape:
            raise UndecidedError(f"the shape of {op.name} depends on assumptions")
        return self.at(defined, index)

    def _computed(self, op: Op, given: Sequence[float | None], value: Value) -> Normal:
        arrays = [
            np.asarray(c).astype(to_numpy(o.dtype))
            for c, o in zip(given, value.operands, strict=True)
        ]
        with np.errstate(all="ignore"):
            return number(np.asarray(op.run(*arrays)).item())

    # -- functions of elements --------------------------------------------------------------------

    def apply(self, op: Op, x: Sequence[Normal], value: Value) -> Normal:
        """A pointwise op of elements; `value` is the op applied, for the element types."""
        given = [constant(a) for a in x]
        algebra = self._algebra(value.dtype) and not any(map(infinite, x))
        if all(c is not None for c in given) and not (
            algebra and isinstance(op, Binary) and op.kind in ("add", "subtract", "multiply")
        ):
            return self._computed(op, given, value)
        match op:
            case Binary(kind="add") if algebra:
                return self.few((*x[0], *x[1]))
            case Binary(kind="subtract") if algebra:
                return self.few((*x[0], *self.times(number(-1), x[1])))
            case Binary(kind="multiply") if algebra:
                return self.times(*x)
            case Binary(kind="divide") if algebra and is_float(value.dtype):
                return self.times(x[0], self._reciprocal(x[1]))
            case Unary(kind="neg") if algebra:
                return self.times(number(-1), x[0])
            case Select():
                return self._selected(x, given[0], algebra)
            case Cast() if is_condition(x[0]) and not op.to.startswith("b"):
                return x[0]
            case Binary():
                found = None
                if value.operands[0].dtype in ("i32", "i64"):  # smaller ones do not hold all places
                    found = self._of_places(op.kind, *(as_place(a) for a in x))
                return self._binary(op, x, given, value) if found is None else found
        return self._function(repr(op), x, value.operands[0].dtype)

    def _of_places(self, kind: str, a: Dim | None, b: Dim | None) -> Normal | None:
        """A function of two indices, where it is known for all sizes."""
        if a is None or b is None:
            return None
        sure = self.ranges.never_below_0
        match kind:
            case "equal":
                return self._condition(Guard("zero", a - b))
            case "less":
                return self._condition(Guard("from 0", b - a - 1))
            case "divide" if sure(a) and sure(b - 1):
                return self._place(self.ranges.quotient(a, b))
            case "maximum" if sure(a - b) or sure(b - a):
                return self._place(a if sure(a - b) else b)
            case "minimum" if sure(a - b) or sure(b - a):
                return self._place(b if sure(a - b) else a)
        return None

    def _condition(self, guard: Guard) -> Normal:
        """1 where a condition holds, else 0."""
        return self.simplified(Product(sympify(1), guards=(guard,)))

    def _place(self, e: Dim) -> Normal:
        parts = collected(e, is_index)
        return tuple(
            Product(sympify(c), factors=() if part == 1 else (Place(part),))
            for part, c in parts.items()
        )

    def _function(self, name: str, x: Sequence[Normal], dtype: str = "", **options: Any) -> Normal:
        factor = Applied(f"{name} of {dtype}" if dtype else name, tuple(x), **options)
        return (Product(sympify(1), factors=(factor,)),)

    def _binary(
        self, op: Binary, x: Sequence[Normal], given: Sequence[float | None], value: Value
    ) -> Normal:
        dtype = value.operands[0].dtype
        unit = BINARY[op.kind].unit
        if dtype == "bool":  # sums and maxima are "or", products and minima are "and"
            unit = {"add": 0, "maximum": 0, "multiply": 1, "minimum": 1}.get(op.kind)
            if unit is not None and 1 - unit in given:
                return number(1 - unit)
        if unit is not None and given[1] == unit:
            return x[0]
        if unit is not None and given[0] == unit and op.commutative:
            return x[1]
        joins = dtype == "bool" and op.kind in ("add", "multiply")
        if joins or op.kind in ("maximum", "minimum"):
            return self._joined(_OF_BOOL[op.kind] if dtype == "bool" else op.kind, x)
        return self._function(repr(op), x, dtype, commutative=op.commutative)

    def _joined(self, name: str, x: Sequence[Normal]) -> Normal:
        """An associative, commutative function that is the operand itself for equal operands."""
        operands: dict[str, Normal] = {}
        for a in x:
            match a:
                case (Product(c, (), (), (Applied(inner, more),)),) if c == 1 and inner == name:
                    operands |= {key(b): b for b in more}
                case _:
                    operands[key(a)] = a
        if len(operands) == 1:
            return x[0]
        return self._function(name, tuple(operands.values()), commutative=True)

    def _selected(self, x: Sequence[Normal], condition: float | None, algebra: bool) -> Normal:
        if condition is not None:
            return x[1] if condition else x[2]
        if key(x[1]) == key(x[2]):
            return x[1]
        if not algebra:
            return self._function("select", x)
        difference = (*x[1], *self.times(number(-1), x[2]))
        holds = x[0] if is_condition(x[0]) else self._function("holds", x[:1])
        return self.few((*self.times(holds, difference), *x[2]))

    def _reciprocal(self, x: Normal) -> Normal:
        if len(x) != 1:
            return self._function("reciprocal", [x])
        rest = (replace(x[0], coefficient=sympify(1)),)
        own = number(1) if as_number(rest) == 1 else self._function("reciprocal", [rest])
        return self.times((Product(1 / x[0].coefficient),), own)

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
            return self.reduced(_OF_BOOL.get(op.kind, op.kind), tuple(sums), body)
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
