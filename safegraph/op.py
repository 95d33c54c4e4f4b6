"""Operations: what a class says of an op, and what follows from it.

One op is one class.  Its fields are the spec (everything but the operands); specs are frozen and
interned, so equal specs are one object.  The class says the shape, the meaning on NumPy arrays, the
work, the inverse, and algebraic facts; the printer, the parser, the e-graph, costs, documentation
tables and tests come from the registry `OPS`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cache, cached_property, lru_cache
from itertools import count
from typing import Any, ClassVar, dataclass_transform
from weakref import WeakValueDictionary

import numpy as np

from safegraph.dims import (
    KEPT,
    Dim,
    Shape,
    Size,
    assume,
    assuming,
    product,
    require_same,
    substitute,
)
from safegraph.dtypes import itemsize
from safegraph.errors import ShapeError

OPS: dict[str, type[Op]] = {}
_INTERNED: WeakValueDictionary[tuple[type, str], Any] = WeakValueDictionary()
_BY_ID: WeakValueDictionary[int, Any] = WeakValueDictionary()
_NUMBERS = count()  # none is given twice


class Interned(type):
    """A metaclass: objects with equal fields are one object, numbered by `.id`."""

    def __call__(cls, *args: Any, **kwargs: Any):  # no return type: checkers then read __init__
        new = super().__call__(*args, **kwargs)
        # repr tells 1 from 1.0 and True, and NaN from nothing else
        key = (cls, repr([getattr(new, name) for name in _field_names(cls)]))
        found = _INTERNED.get(key)
        if found is None:
            object.__setattr__(new, "id", next(_NUMBERS))
            found = _INTERNED[key] = _BY_ID[new.id] = new
        return found


@cache
def _field_names(cls: type) -> tuple[str, ...]:
    return tuple(f.name for f in fields(cls))


def by_id(number: int) -> Any:
    """The interned object with this number, which somebody must hold."""
    return _BY_ID[number]


@dataclass(frozen=True, eq=False)
class TensorType(metaclass=Interned):
    """An element type and a shape: `f32[batch 3 224 224]`."""

    dtype: str
    shape: Shape
    id: ClassVar[int]

    @cached_property
    def numel(self) -> Dim:
        """The number of elements."""
        return product(self.shape)

    @cached_property
    def nbytes(self) -> Dim:
        """The size in memory, in bytes."""
        return self.numel * itemsize(self.dtype)

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.shape)

    def with_shape(self, shape: Shape) -> TensorType:
        """The same elements in another shape."""
        return TensorType(self.dtype, shape)

    def bind(self, values: Mapping[str, Dim]) -> TensorType:
        """The type with free sizes replaced."""
        return TensorType(self.dtype, tuple(substitute(d, values) for d in self.shape))

    def __repr__(self) -> str:
        return f"{self.dtype}[{' '.join(str(d).replace(' ', '') for d in self.shape)}]"

    def __reduce__(self) -> tuple[Any, ...]:
        return (TensorType, (self.dtype, self.shape))


@dataclass(frozen=True)
class Work:
    """Arithmetic, in numbers of operations: formulas in the free sizes.

    `macs` are multiply-adds of contractions (2 flops each); `elementwise` and `transcendental`
    count one for each element computed; `reduce` counts the combining steps.
    """

    macs: Dim = 0
    elementwise: Dim = 0
    transcendental: Dim = 0
    reduce: Dim = 0

    @property
    def flops(self) -> Dim:
        """All floating-point operations, a multiply-add counted as two."""
        return 2 * self.macs + self.elementwise + self.transcendental + self.reduce

    def __add__(self, other: Work) -> Work:
        return Work(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Work)))


@dataclass_transform(frozen_default=True, eq_default=False)
class _OpMeta(Interned):
    pass


class Op(metaclass=_OpMeta):
    """An operation with its spec.

    A subclass has fields (the spec, plain immutable data: numbers, strings, sizes, tuples), a
    docstring whose first line is the notation, and overrides what follows.
    """

    id: ClassVar[int]

    # -- facts, overridden where they hold --------------------------------------------------------

    is_view: ClassVar[bool] = False
    """Does the result share the operand's memory on every backend we know?"""
    is_pointwise: ClassVar[bool] = False
    """Is each element of the result a function of the elements at the same place?"""
    linear: ClassVar[tuple[int, ...]] = ()
    """The operands in which the op is linear, the others held."""
    commutative: ClassVar[bool] = False
    moves: ClassVar[bool] = False
    """Does it only move elements (and fill places with a constant)?"""

    # -- what a subclass says ---------------------------------------------------------------------

    def shape(self, *operands: Shape) -> Shape:
        """The shape of the result; raises ShapeError. Its parameters are the op's operands."""
        raise NotImplementedError

    def dtype(self, *operands: str) -> str:
        """The element type of the result: by default that of the operands, which must agree."""
        if len(set(operands)) > 1:
            raise ShapeError(f"{self}: operands of different element types: {', '.join(operands)}")
        return operands[0]

    def run(self, *arrays: Any) -> Any:
        """The meaning, on NumPy arrays."""
        raise NotImplementedError

    def work(self, *types: TensorType) -> Work:
        """The arithmetic for operands of these types."""
        return Work()

    def reads(self, *types: TensorType) -> tuple[Dim, ...]:
        """The bytes that are read of each operand: all of them, unless an op picks some."""
        return tuple(t.nbytes for t in types)

    def inverse(self, *shapes: Shape) -> Op | None:
        """For operands of these shapes: the op g with g(op(x)) = x, where there is one."""
        return None

    def pseudo_inverse(self, *shapes: Shape) -> Op | None:
        """For operands of these shapes: the op g with op(g(op(x))) = op(x), where there is one."""
        return self.inverse(*shapes)

    def normal(self, *types: TensorType) -> Op:
        """The one spelling of this spec for these operands (negative axes, wildcards, defaults)."""
        return self

    def is_identity(self, *types: TensorType) -> bool:
        """Does it give back its first operand, for operands of these types?"""
        return False

    @classmethod
    def draw(cls, rng: np.random.Generator, *shapes: tuple[int, ...]) -> Op | None:
        """A random spec that fits operands of these shapes; None where there is none."""
        raise NotImplementedError

    # -- what follows -----------------------------------------------------------------------------

    name: ClassVar[str]
    arity: ClassVar[tuple[int, int | None]]

    def __init_subclass__(cls, abstract: bool = False) -> None:
        dataclass(frozen=True, eq=False, repr=False)(cls)
        cls.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()
        cls.arity = _arity(cls.shape)
        if not abstract and OPS.setdefault(cls.name, cls) is not cls:
            raise TypeError(f"the op {cls.name} is declared twice")

    @property
    def spec(self) -> dict[str, Any]:
        """The fields by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def type(self, *operands: TensorType) -> TensorType:
        """The type of the result; raises ShapeError naming the op, its spec and the operands."""
        result, assumptions = _inferred(self, operands)
        for relation, a, b in assumptions:
            assume(relation, a, b)
        return result

    def _infer(self, operands: tuple[TensorType, ...]) -> tuple[TensorType, tuple[Any, ...]]:
        low, high = self.arity
        if len(operands) < low or (high is not None and len(operands) > high):
            wanted = str(low) if low == high else f"{low} to {high}" if high else f"{low} or more"
            raise ShapeError(f"{self.name} takes {wanted} operands, not {len(operands)}")
        try:
            with assuming() as assumptions:
                dtype = self.dtype(*(t.dtype for t in operands))
                shape = self.shape(*(t.shape for t in operands))
        except ShapeError as error:
            given = ", ".join(map(repr, operands))
            raise ShapeError(f"{self!r} of {given}: {error}") from None
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            given = ", ".join(map(repr, operands))
            raise ShapeError(f"{self!r} does not fit operands {given} ({error})") from error
        return TensorType(dtype, shape), tuple(assumptions.values())

    def bind(self, values: Mapping[str, Dim]) -> Op:
        """The op with free sizes of its spec replaced."""
        spec = tuple(self.spec.values())
        bound = _bind(spec, values)
        return self if bound == spec else type(self)(*bound)

    def __call__(self, *operands: Any) -> Any:
        """The op applied: to values it gives a value, to the variables of a law a term."""
        return operands[0].applied(self, operands)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.spec.items())})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), tuple(self.spec.values()))

    def __copy__(self) -> Op:
        return self

    def __deepcopy__(self, memo: Any) -> Op:
        return self


@lru_cache(KEPT)
def _inferred(
    op: Op, operands: tuple[TensorType, ...]
) -> tuple[TensorType, tuple[tuple[str, Dim, Dim], ...]]:
    """The type of the result, and what was assumed of free sizes meanwhile."""
    return op._infer(operands)


def _arity(method: Callable[..., Any]) -> tuple[int, int | None]:
    """How many operands, at least and at most, by the parameters of `shape` or `define`."""
    low, high = 0, 0
    for p in list(inspect.signature(method).parameters.values())[1:]:
        if p.kind is p.VAR_POSITIONAL:
            return low, None
        high += 1
        low += p.default is p.empty
    return low, high


def _bind(value: Any, values: Mapping[str, Dim]) -> Any:
    if isinstance(value, Size):
        return substitute(value, values)
    if isinstance(value, TensorType):
        return value.bind(values)
    if isinstance(value, tuple):
        return tuple(_bind(v, values) for v in value)
    return value


# -- helpers for the classes ----------------------------------------------------------------------


def same_shapes(shapes: tuple[Shape, ...]) -> Shape:
    """The shape that all operands have; ShapeError where they differ."""
    first = shapes[0]
    for other in shapes[1:]:
        if len(other) != len(first):
            raise ShapeError(f"operands of rank {len(first)} and {len(other)}")
        first = tuple(
            require_same(a, b, f"axis {i}")
            for i, (a, b) in enumerate(zip(first, other, strict=True))
        )
    return first


def axis_of(axis: int, rank: int) -> int:
    """The axis counted from the front.

    >>> axis_of(-1, 4)
    3
    """
    if not -rank <= axis < rank:
        raise ShapeError(f"there is no axis {axis} in {rank} axes")
    return axis % rank


def axes_of(axes: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """Axes counted from the front, sorted, each once."""
    found = tuple(sorted(axis_of(a, rank) for a in axes))
    if len(set(found)) != len(found):
        raise ShapeError(f"the axes {axes} name one axis twice")
    return found
