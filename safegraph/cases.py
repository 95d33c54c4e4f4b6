"""Random cases: terms over all ops with arrays for their leaves, and terms on which a law fires.

Seeded, small, and odd on purpose: sizes of 1, many equal sizes, leaves that are one number, free
sizes.  `safegraph.soundness` compares values on them; tests of optimization start from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from inspect import unwrap
from math import isfinite, prod
from types import CodeType, FunctionType
from typing import Any

import numpy as np

from safegraph import ops as core
from safegraph.dag import SafeDAG, Tensor
from safegraph.derived.base import Derived, randomly
from safegraph.dims import Dim, Shape, Size, assuming, holds, size, substitute
from safegraph.draw import (
    MISFITS,
    Drawn,
    definitions,
    from_definition,
    from_term,
    instance,
    meant_for,
    random_shape,
    related,
)
from safegraph.dtypes import is_float, is_integer, to_numpy
from safegraph.egraph import Number, uniform_value
from safegraph.law import Law, SpecCall, Term, Var
from safegraph.op import OPS, Op, TensorType
from safegraph.value import Value, apply, tensor, walk

_NUMBERS = (0, 1, -1, 2)
_BATCH = "n"
_LIKE = 0.8  # how often the example of a law is followed
_INFINITE = 0.25  # how often leaves have infinite elements
_WIDE = 0.5  # how often integers that index nothing are other than -1 and 0
_INTEGERS = 0.2  # how often floats are made integers, where the law fires on these
_LITERAL = 0.2  # how often a size is a number that the law's own code has
_LARGEST = 64  # of those numbers
_MOST_ELEMENTS = 100_000
Sizes = Mapping[str, int]


# -- arrays ---------------------------------------------------------------------------------------


def random_array(
    rng: np.random.Generator,
    type: TensorType,
    sizes: Sizes | None = None,
    *,
    positive: bool = False,
) -> np.ndarray:
    """Floats in (-2, 2), or (0.1, 2); integers -1 and 0, which are indices of every axis."""
    shape = numeric(type.shape, sizes or {})
    if is_float(type.dtype):
        values: Any = rng.uniform(0.1 if positive else -2, 2, shape)
    elif type.dtype == "bool":
        values = rng.random(shape) < 0.5
    else:
        values = -rng.integers(0, 2, shape)
        values = -values if positive or type.dtype.startswith("u") else values
    return np.asarray(values).astype(to_numpy(type.dtype))


def numeric(shape: Shape, sizes: Sizes) -> tuple[int, ...]:
    """A shape with its free sizes replaced by numbers."""
    return tuple(int(substitute(d, sizes)) for d in shape)


# -- random graphs --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """A graph with everything that it takes to run it."""

    outputs: tuple[Value, ...]
    leaves: Mapping[str, np.ndarray]
    constants: frozenset[str] = frozenset()
    """The leaves that depend on no input."""
    numbers: Mapping[str, Any] = field(default_factory=dict)
    """The value of the leaves whose elements are all equal."""
    sizes: Sizes = field(default_factory=dict)

    def dag(self) -> SafeDAG:
        """The graph; its constants are parameters, its other leaves inputs."""
        leaves = (v for v in walk(self.outputs) if v.op is None)
        tensors = [
            Tensor(v.name, "parameter", v.type, self.leaves[v.name])
            if v.name in self.constants
            else Tensor(v.name, "input", v.type)
            for v in leaves
        ]
        return SafeDAG.from_values({f"out{i}": v for i, v in enumerate(self.outputs)}, tensors)

    def inputs(self) -> dict[str, np.ndarray]:
        """The arrays of the leaves that are not constants."""
        used = {v.name for v in walk(self.outputs) if v.op is None}
        return {n: a for n, a in self.leaves.items() if n in used and n not in self.constants}


def random_values(
    rng: np.random.Generator,
    count: int = 8,
    *,
    ops: Sequence[type[Op]] | None = None,
    dtype: str = "f64",
    symbolic: bool | None = None,
    numel: int = 400,
) -> Sample:
    """A term of about `count` ops, each on operands that exist already.

    Ops are drawn from all that can be run (or from `ops`), with specs by `Op.draw`.  With
    `symbolic` (by default in a third of the cases) one size is free.  No value has more than
    `numel` elements.
    """
    classes = (
        list(ops)
        if ops is not None
        else [c for c in OPS.values() if c not in (core.Opaque, core.Sample)]
    )
    free = rng.random() < 1 / 3 if symbolic is None else symbolic
    sizes = {_BATCH: int(rng.integers(1, 5))} if free else {}
    other = {_BATCH: 7} if free else {}
    grow = _Pool(rng, sizes, other, numel)
    grow.leaf(dtype)
    for _ in range(int(rng.integers(1, 4))):
        grow.leaf(dtype)
    if rng.random() < 0.3:
        grow.leaf("i64")
    made = tries = 0
    while made < count and tries < 60 * count:
        tries += 1
        made += grow.op(classes[int(rng.integers(len(classes)))])
    used = {o for v in grow.values for o in v.operands}
    outputs = tuple(v for v in grow.values if v.op is not None and v not in used) or (
        grow.values[-1],
    )
    return Sample(outputs, grow.leaves, frozenset(grow.constants), grow.numbers, sizes)


class _Pool:
    """Values that exist already."""

    def __init__(self, rng: np.random.Generator, sizes: Sizes, other: Sizes, numel: int) -> None:
        self.rng, self.sizes, self.other, self.numel = rng, sizes, other, numel
        self.values: list[Value] = []
        self.arrays: list[np.ndarray] = []
        self.leaves: dict[str, np.ndarray] = {}
        self.constants: set[str] = set()
        self.numbers: dict[str, Any] = {}

    def leaf(self, dtype: str) -> None:
        rng = self.rng
        if self.values and rng.random() < 0.7:
            shape: Shape = related(rng, [v.shape for v in self.values])
        else:
            shape = random_shape(rng)
            if self.sizes and shape and (not self.values or rng.random() < 0.5):
                shape = (size(_BATCH), *shape[1:])
        value = tensor(
            f"{'xyzwuv'[len(self.leaves) % 6]}{len(self.leaves)}", TensorType(dtype, shape)
        )
        fixed = not any(isinstance(d, Size) for d in shape)
        array = random_array(rng, value.type, self.sizes, positive=bool(rng.random() < 0.5))
        if fixed and rng.random() < 0.5:
            self.constants.add(value.name)
            if rng.random() < 0.4:
                number = _NUMBERS[int(rng.integers(len(_NUMBERS)))] if dtype != "i64" else 0
                array = np.full_like(array, number)
                self.numbers[value.name] = array.dtype.type(number).item()
        self.leaves[value.name] = array
        self.values.append(value)
        self.arrays.append(array)

    def op(self, cls: type[Op]) -> bool:
        """Try to add one op of a class."""
        rng = self.rng
        low, high = cls.arity
        count = int(rng.integers(low, (low + 2 if high is None else high) + 1))
        operands = self._operands(cls, count)
        try:
            op = cls.draw(rng, *(numeric(v.shape, self.sizes) for v in operands))
            if op is None or not meant_for(cls, operands):
                return False
            with assuming() as assumptions:
                value = apply(op, *operands)
            fits = all(holds(a, s) for a in assumptions.values() for s in (self.sizes, self.other))
            many = int(np.prod(numeric(value.shape, self.sizes)))
            bound = op.bind(self.sizes)
            types = [v.type.bind(self.sizes) for v in operands]
            fits &= bound.type(*types).shape == numeric(value.shape, self.sizes)
            if not fits or not 0 < many <= self.numel or value.op is None or value in self.values:
                return False
            with np.errstate(all="ignore"):
                array = np.asarray(
                    bound.run(*(self.arrays[self.values.index(v)] for v in operands))
                )
        except (NotImplementedError, *MISFITS):
            return False
        if is_float(value.dtype) and not np.isfinite(array).all() and rng.random() < 0.9:
            return False  # few: what comes out of NaN says little
        self.values.append(value)
        self.arrays.append(array)
        return True

    def _operands(self, cls: type[Op], count: int) -> list[Value]:
        """Values that exist, the later ones likelier."""
        rng = self.rng
        found: list[Value] = []
        for _ in range(count):
            if found and rng.random() < 0.5:
                same = [v for v in self.values if v.shape == found[0].shape]
                found.append(same[int(rng.integers(len(same)))])
            else:
                late = rng.random() < 0.5
                first = max(0, len(self.values) - 3) if late else 0
                found.append(self.values[int(rng.integers(first, len(self.values)))])
        return found


# -- cases of a law -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """Terms that a law makes equal, on leaves with the names of its variables."""

    scope: Mapping[str, Any]
    left: Value
    right: Value
    sizes: tuple[Sizes, ...]
    """Values for the free sizes."""

    def arrays(self, rng: np.random.Generator, law: Law, sizes: Sizes) -> dict[str, np.ndarray]:
        """Arrays for the leaves, as the law's facts say.

        Laws that ask for no finite values get some of -inf in a quarter of the cases.
        """
        positive = bool(rng.random() < 0.5)
        wide = not self._indexes and rng.random() < _WIDE
        infinite = law.grade in ("exact", "real") and rng.random() < _INFINITE
        facts = {(f.kind, f.name) for f in law.facts}
        found = {}
        for name in law.tensors:
            type_ = self.scope[name].type
            above = ("positive", name) in facts or ("nonnegative", name) in facts
            array = random_array(rng, type_, sizes, positive=positive or above)
            if wide and is_integer(type_.dtype) and not (above or type_.dtype.startswith("u")):
                array = rng.integers(-7, 8, array.shape).astype(array.dtype)
            if ("positive", name) in facts and not is_float(type_.dtype):
                array = np.ones_like(array)
            elif ("nonnegative", name) in facts:
                array[rng.random(array.shape) < 0.2] = 0
            if infinite and is_float(type_.dtype) and not above:
                array = _with_infinities(rng, array)
                if ("capped", name) in facts:
                    array[array == np.inf] = -np.inf
            if f"{name}_is" in self.scope:
                array = np.full_like(array, self.scope[f"{name}_is"])
            found[name] = array
        return found

    @property
    def _indexes(self) -> bool:
        """Does a derived op take integers, which may have to be places in a table?"""
        return any(
            isinstance(v.op, Derived) and any(is_integer(o.dtype) for o in v.operands)
            for v in walk([self.left, self.right])
        )


def _with_infinities(rng: np.random.Generator, array: np.ndarray) -> np.ndarray:
    """The array with zeros, and mostly with elements of -inf, as masks have."""
    found = np.where(rng.random(array.shape) < 0.1, 0, array)
    infinity = randomly(rng, (-np.inf, -np.inf, -np.inf, 0))
    return np.where(rng.random(array.shape) < 0.2, infinity, found).astype(array.dtype)


def cases(
    law: Law,
    rng: np.random.Generator,
    count: int,
    *,
    tries: int | None = None,
    varied: bool = True,
) -> Iterator[Case]:
    """Up to `count` different cases in which a law fires: both sides with random ops and shapes.

    Cases differ in their terms: in an op's spec, a leaf's type, or a number that the law takes.
    Ops are drawn bottom-up by `Op.draw` on shapes that are like an example of the law (`Law.like`)
    or fit by chance, tried again and again (`tries` times in all; by default 400 for each case), or
    come from the definition of a derived op that has the structure of the left side.  With
    `varied`, some come once more with integers for floats, or with a size named in the law's code.
    """
    (other,) = rng.spawn(1)
    defined = definitions(law.left)
    likely = 0.5 if all(isinstance(o, Var) for o in law.left.operands) else 0.9
    seen: set[tuple[Any, ...]] = set()
    for _ in range(400 * count if tries is None else tries):
        follow = rng.random() < _LIKE
        example = randomly(rng, law.operand_examples) if law.operand_examples and follow else {}
        drawn = Drawn(rng, example)
        if law.term_examples and follow:
            found = from_term(law.left, randomly(rng, law.term_examples), rng)
        elif defined and not example and rng.random() < likely:
            found = from_definition(law.left, defined[int(rng.integers(len(defined)))], rng)
        else:
            found = drawn.scope if drawn.term(law.left) is not None else None
        if found is None:
            continue
        case = _case(law, found, rng, seen)
        more = _variants(law, found, other, seen) if varied else ()
        for each in (*([case] if case else []), *more):
            count -= 1
            yield each
            if count <= 0:
                return


def _case(
    law: Law, found: Mapping[str, Any], rng: np.random.Generator, seen: set[tuple[Any, ...]]
) -> Case | None:
    types = {n: found[n].type for n in law.tensors}
    if rng.random() < 0.3:
        free = _with_free_size(types, rng)
        case = free and _built(law, free[0], found, rng, free[1], seen)
        if case:
            return case
    return _built(law, types, found, rng, {}, seen)


def _variants(
    law: Law, found: Mapping[str, Any], rng: np.random.Generator, seen: set[tuple[Any, ...]]
) -> Iterator[Case]:
    """The same ops, now and then, on integers, and on a size that the law's code names."""
    types = {n: found[n].type for n in law.tensors}
    if any(is_float(t.dtype) for t in types.values()) and rng.random() < _INTEGERS:
        case = _built(law, with_floats_as(types, "i64"), found, rng, {}, seen)
        if case and is_meant(case.left):
            yield case
    own = literals(law)
    if own and rng.random() < _LITERAL:
        types = _with_size(types, randomly(rng, own), rng)
        case = _built(law, types, found, rng, {}, seen)
        if case:
            yield case


def is_meant(value: Value) -> bool:
    """Are all ops of a term meant for the element types of their operands?"""
    return all(v.op is None or meant_for(type(v.op), v.operands) for v in walk([value]))


def _built(
    law: Law,
    types: Mapping[str, TensorType],
    found: Mapping[str, Any],
    rng: np.random.Generator,
    sizes: Sizes,
    seen: set[tuple[Any, ...]],
) -> Case | None:
    scope: dict[str, Any] = {n: tensor(n, t) for n, t in types.items()}
    scope |= {v.name: found[v.name] for v in law.specs}
    for fact in law.facts:
        if fact.kind == "uniform":
            dtype = types[fact.name].dtype
            own = None if rng.random() < 0.2 else number_of(found[fact.name])
            if own is None or dtype != found[fact.name].dtype:
                own = _number(law, fact.name, dtype, rng)
            scope[f"{fact.name}_is"] = own
    with assuming() as assumptions:
        left = instance(law.left, scope)
        if left is None:
            return None
    known = (left, *(repr(n) for name, n in scope.items() if name.endswith("_is")))
    if known in seen:
        return None
    seen.add(known)
    scope["root"] = left.type
    with assuming() as needed:
        right = law.build(scope)
    # what the right side needs of sizes and the left side does not is no case of the law
    if right is None or not set(needed) <= set(assumptions):
        return None
    every = [sizes] + [{_BATCH: n} for n in (1, 2, 5) if sizes and n != sizes[_BATCH]]
    fitting = tuple(s for s in every if all(holds(a, s) for a in assumptions.values()))
    return Case(scope, left, right, fitting) if fitting else None


def number_of(value: Value) -> Any:
    """The one number that all elements of a term are; None where it does not tell."""
    known: dict[Value, Number | None] = {}
    for v in walk([value]):
        operands = [known[o] for o in v.operands]
        known[v] = None if v.op is None else uniform_value(v.op, operands, v.type)
    number = known[value]
    return None if number is None else number.value


def _number(law: Law, name: str, dtype: str, rng: np.random.Generator) -> Any:
    """A number for a uniform tensor, as the law's other facts allow it."""
    facts = {f.kind for f in law.facts if f.name == name}
    choices: list[float] = [0, 1] if not is_float(dtype) else [*_NUMBERS]
    own = [n for n in _own_numbers(law) if 0 <= n <= _LARGEST and (is_float(dtype) or n == int(n))]
    if dtype != "bool" and rng.random() < _LITERAL:
        choices += own
    if is_float(dtype) and law.grade != "finite":
        choices += [-np.inf, np.inf]
    if facts & {"positive", "nonnegative"}:
        choices = [n for n in choices if n > 0 or (n == 0 and "positive" not in facts)]
    return np.asarray(randomly(rng, choices)).astype(to_numpy(dtype)).item()


def _with_free_size(
    types: Mapping[str, TensorType], rng: np.random.Generator
) -> tuple[dict[str, TensorType], Sizes] | None:
    """One size of all types made free."""
    known = _known_sizes(types)
    if not known:
        return None
    chosen = known[int(rng.integers(len(known)))]
    return _replaced(types, chosen, size(_BATCH)), {_BATCH: chosen}


def _with_size(
    types: Mapping[str, TensorType], number: int, rng: np.random.Generator
) -> dict[str, TensorType]:
    """One size of all types made this number, if that is not too much."""
    known = _known_sizes(types)
    found = _replaced(types, randomly(rng, known), number) if known else dict(types)
    most = max((prod(map(int, t.shape)) for t in found.values()), default=0)
    return found if most <= _MOST_ELEMENTS else dict(types)


def _known_sizes(types: Mapping[str, TensorType]) -> list[int]:
    return sorted({d for t in types.values() for d in t.shape if isinstance(d, int) and d > 1})


def _replaced(types: Mapping[str, TensorType], old: int, new: Dim) -> dict[str, TensorType]:
    return {
        n: t.with_shape(tuple(new if d == old else d for d in t.shape)) for n, t in types.items()
    }


def with_floats_as(types: Mapping[str, TensorType], dtype: str) -> dict[str, TensorType]:
    """The types, floats replaced by another element type."""
    return {n: TensorType(dtype, t.shape) if is_float(t.dtype) else t for n, t in types.items()}


# -- numbers that a law knows ---------------------------------------------------------------------


def literals(law: Law) -> tuple[int, ...]:
    """Sizes at which the functions of a law may do something else: whole numbers in their code.

    A law that is wrong for 7 alone, `if x.shape[0] == 7`, is seldom met by chance.  Of each number
    up to 64 there is the next one, too, for `>`.
    """
    whole = {int(n) for n in _own_numbers(law) if n == int(n)}
    return tuple(sorted({n for i in whole for n in (i, i + 1) if 1 < n <= _LARGEST}))


@cache
def _own_numbers(law: Law) -> tuple[float, ...]:
    """The finite numbers in the code of a law's functions, and in the tuples there."""
    stack: list[Any] = [law.right, *law.when]
    seen: set[int] = set()
    found: set[float] = set()
    while stack:
        item = stack.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        match item:
            case bool():
                pass
            case int() | float() if isfinite(item):
                found.add(item)
            case tuple() | frozenset():
                stack += item
            case Term(head, operands):
                stack += (head, *operands)
            case SpecCall(function, arguments):
                stack += (function, *arguments)
            case CodeType():
                stack += item.co_consts
            case FunctionType():
                stack += _reached(item)
    return tuple(sorted(found))


def _reached(function: FunctionType) -> Iterator[Any]:
    """The code of a function, and the numbers and functions of its module that it uses."""
    yield function.__code__
    yield from function.__defaults__ or ()
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # nothing is in it yet
            yield cell.cell_contents
    known = function.__globals__
    for name in _global_names(function.__code__):
        value = unwrap(known[name]) if callable(known.get(name)) else known.get(name)
        if isinstance(value, int) or getattr(value, "__globals__", None) is known:
            yield value


def _global_names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _global_names(inner)


__all__ = [
    "Case",
    "Sample",
    "cases",
    "literals",
    "numeric",
    "random_array",
    "random_shape",
    "random_values",
    "related",
]
