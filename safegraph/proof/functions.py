"""Pointwise ops of elements: each as a normal form of the normal forms of its operands.

Sums and products are those of the algebra, where the element type has one; functions of reals are
brought into one form by `safegraph.proof.reals`.  With `exact` nothing is used that could change a
bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from safegraph.dims import Dim, collected, sympify
from safegraph.dtypes import is_float, is_integer, to_numpy
from safegraph.op import Op
from safegraph.ops import BINARY, UNARY, Binary, Cast, Select, Unary
from safegraph.proof.indexing import Guard, is_index
from safegraph.proof.normal import (
    Applied,
    Normal,
    Place,
    Product,
    Read,
    as_place,
    constant,
    infinite,
    is_condition,
    key,
    number,
)
from safegraph.proof.reals import Reals, called, content
from safegraph.value import Value

OF_BOOL = {
    **dict.fromkeys(("sum", "mean", "max", "add", "maximum"), "any"),
    **dict.fromkeys(("prod", "min", "multiply", "minimum"), "all"),
}
UNDONE = {
    "arctan": "tan",
    "sinh": "arcsinh",
    "arcsinh": "sinh",
    "tanh": "arctanh",
    "gaussian": "inv_gaussian",
}
"""Functions of all real numbers, with what gives back their operand."""
RIGHT_INVERSES = {
    "arcsin": "sin", "sin": "arcsin", "arccos": "cos", "cos": "arccos", "tan": "arctan",
    "cosh": "arccosh", "arccosh": "cosh", "arctanh": "tanh", "inv_gaussian": "gaussian",
}  # fmt: skip
"""Functions f, with a g for which f(g(y)) is y wherever y = f(x) for some x."""
_SIGNED = ("i8", "i16", "i32", "i64")


@dataclass
class Functions(Reals):
    """Computes pointwise ops of normal forms."""

    def _algebra(self, dtype: str) -> bool:
        """Are sums and products of this element type those of a ring?

        Those of integers are, to the bit; those of floats over the reals only.
        """
        return is_integer(dtype) or (dtype != "bool" and not self.exact)

    def _computed(self, op: Op, given: Sequence[float | None], value: Value) -> Normal:
        arrays = [
            np.asarray(c).astype(to_numpy(o.dtype))
            for c, o in zip(given, value.operands, strict=True)
        ]
        with np.errstate(all="ignore"):
            return number(np.asarray(op.run(*arrays)).item())

    def apply(self, op: Op, x: Sequence[Normal], value: Value) -> Normal:
        """A pointwise op of elements; `value` is the op applied, for the element types."""
        given = [constant(a) for a in x]
        algebra = self._algebra(value.dtype) and not any(map(infinite, x))
        if all(c is not None for c in given) and not (
            algebra and isinstance(op, Binary) and op.kind in ("add", "subtract", "multiply")
        ):
            return self._computed(op, given, value)
        match op:
            case Unary() if is_float(value.dtype) and not any(map(infinite, x)):
                found = self._unary(op.kind, x[0])
                dtype = value.operands[0].dtype if self.exact else "real"
                return self.function(repr(op), x, dtype) if found is None else found
            case Binary(kind="add") if algebra:
                return self.few((*x[0], *x[1]))
            case Binary(kind="subtract") if algebra:
                return self.few((*x[0], *self.times(number(-1), x[1])))
            case Binary(kind="multiply") if algebra:
                return self.times(*x)
            case Binary(kind="divide") if algebra and is_float(value.dtype):
                return self.times(x[0], self.reciprocal(x[1]))
            case Binary(kind="subtract") if is_float(value.dtype) and not any(map(infinite, x)):
                return self.apply(Binary("add"), (x[0], self.times(number(-1), x[1])), value)
            case Binary(kind="pow" | "root") if algebra and given[1] is not None:
                found = self.power(op, x[0], given[1], value.dtype)
                return self.function(repr(op), x, value.dtype) if found is None else found
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
        return self.function(repr(op), x, value.operands[0].dtype)

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
            return self._joined(OF_BOOL[op.kind] if dtype == "bool" else op.kind, x, dtype)
        return self.function(repr(op), x, dtype, commutative=op.commutative)

    def _joined(self, name: str, x: Sequence[Normal], dtype: str) -> Normal:
        """An associative, commutative function that is the operand itself for equal operands."""
        reals = self._algebra(dtype) and is_float(dtype) and not any(map(infinite, x))
        if reals and name == "minimum":
            opposites = [self.times(number(-1), a) for a in x]
            return self.times(number(-1), self._joined("maximum", opposites, dtype))
        operands: dict[str, Normal] = {}
        for a in x:
            match a:
                case (Product(c, (), (), (Applied(inner, more),)),) if inner == name and (
                    c == 1 or (reals and c.is_positive)
                ):
                    scaled = more if c == 1 else [self.scaled(b, c) for b in more]
                    operands |= {key(b): b for b in scaled}
                case _:
                    operands[key(a)] = a
        if name == "maximum":
            operands = self._largest(operands, dtype)
        if len(operands) == 1:
            return next(iter(operands.values()))
        scale = content(operands.values()) if reals else sympify(1)
        chosen = tuple(self.scaled(a, 1 / scale) for a in operands.values())
        return self.scaled(self.function(name, chosen, commutative=True), scale)

    def _largest(self, operands: dict[str, Normal], dtype: str) -> dict[str, Normal]:
        """Without what is nowhere above another one."""
        kept = dict(operands)
        for own, a in operands.items():
            others = (b for name, b in kept.items() if name != own)
            if own in kept and any(self._never_below(b, a, dtype) for b in others):
                del kept[own]
        return kept

    def _never_below(self, a: Normal, b: Normal, dtype: str) -> bool:
        """Is a >= b?  Integers wrap around: only those are compared that cannot."""
        if any(map(infinite, (a, b))) or not (
            is_float(dtype) or (dtype in _SIGNED and all(map(self._small, (a, b))))
        ):
            return False
        return self.never_negative((*a, *self.scaled(b, -1)))

    def _small(self, x: Normal) -> bool:
        """Is it a number, or an element that is not negative, or the opposite of one?"""
        if constant(x) is not None:
            return True
        match x:
            case (Product(c, (), (), (Read() as read,)),) if abs(c) == 1:
                return self.above(read, 0)
        return False

    def _selected(self, x: Sequence[Normal], condition: float | None, algebra: bool) -> Normal:
        if condition is not None:
            return x[1] if condition else x[2]
        if key(x[1]) == key(x[2]):
            return x[1]
        match x[0]:
            case (Product(c, (), (), (Applied("Binary(kind='equal') of bool", (a, b)),)),) if (
                c == 1 and () in (a, b)
            ):  # where it is false
                return self._selected((a or b, x[2], x[1]), None, algebra)
        if not algebra:
            return self.function("select", x)
        difference = (*x[1], *self.times(number(-1), x[2]))
        holds = x[0] if is_condition(x[0]) else self.function("holds", x[:1])
        return self.few((*self.times(holds, difference), *x[2]))

    def _unary(self, kind: str, x: Normal) -> Normal | None:
        """A function of one number in terms of simpler ones; None where it stays as it is."""
        if kind == "neg":  # rounds nothing
            return self.times(number(-1), x)
        if self.exact:
            return None
        match kind:
            case "inverse":
                return self.reciprocal(x)
            case "exp":
                return self.exponential(x)
            case "log":
                return self.logarithm(x)
        inner = _operand(x)
        if inner is None:
            return self.odd(kind, x) if UNARY[kind].odd else None
        name, operand = inner
        if UNDONE.get(name) == kind:
            return operand
        again = _operand(operand)
        if again is not None and again[0] == kind and RIGHT_INVERSES.get(kind) == name:
            return operand
        return self.odd(kind, x) if UNARY[kind].odd else None


def _operand(x: Normal) -> tuple[str, Normal] | None:
    """(f, y) where a normal form is f(y) for a unary function f."""
    match x:
        case (Product(c, (), (), (Applied(function, (inner,)),)),) if (
            c == 1 and function.startswith("Unary(")
        ):
            return called(function), inner
    return None
