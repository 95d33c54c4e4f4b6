"""Random cases: terms over all ops with arrays for their leaves, and terms on which a law fires.

Seeded, small, and odd on purpose: sizes of 1, many equal sizes, leaves that are one number, free
sizes.  `safegraph.soundness` compares values on them; tests of optimization start from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from safegraph.dag import SafeDAG, Tensor
from safegraph.derived.base import Derived, randomly
from safegraph.derived.shape import Concat
from safegraph.dims import Dim, Shape, Size, assuming, holds, size, substitute
from safegraph.dtypes import is_float, to_numpy
from safegraph.errors import SafeGraphError
from safegraph.law import Law, OpVar, Term, Var
from safegraph.op import OPS, Op, TensorType
from safegraph.ops import Interleave, Opaque, Pad, Repeat, Slice, Stride
from safegraph.value import Value, apply, parse_type, tensor, walk

_MISFITS = (SafeGraphError, ValueError, IndexError, TypeError, ArithmeticError)
_NUMBERS = (0, 1, -1, 2)
_BATCH = "n"
_IDLE = {"before": 0, "after": 0, "steps": 1, "starts": 0, "stops": None}
_LIKE = 0.8  # how often the example of a law is followed
Sizes = Mapping[str, int]
_Example = tuple[Any, tuple[TensorType, ...]]


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
    classes = list(ops) if ops is not None else [c for c in OPS.values() if c is not Opaque]
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
            if op is None or not _meant_for(cls, operands):
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
        except (NotImplementedError, *_MISFITS):
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


def random_shape(rng: np.random.Generator) -> tuple[int, ...]:
    """Few sizes, so that axes fit each other by chance."""
    palette = ((2, 3), (1, 2, 4), (1, 1, 2, 3, 4, 6))[int(rng.integers(3))]
    return tuple(int(n) for n in rng.choice(palette, int(rng.integers(0, 5))))


def related(rng: np.random.Generator, shapes: Sequence[Shape]) -> Shape:
    """A shape that has to do with others: the same, a run of its axes, ones put in or filled."""
    shape = shapes[int(rng.integers(len(shapes)))]
    style = rng.random()
    if style < 0.35:
        return shape
    if style < 0.5:
        return tuple(shape[i] for i in rng.permutation(len(shape)))
    if style < 0.65 and len(shape) > 1:  # one number for each channel
        return (shape[1],) if rng.random() < 0.5 else (shape[1], *[1] * (len(shape) - 2))
    first, last = sorted(int(i) for i in rng.integers(0, len(shape) + 1, 2))
    first, last = (first, last) if rng.random() < 0.6 else (first, len(shape))
    ones = randomly(rng, (0.0, 0.0, 0.5, 0.7))
    filled = int(rng.integers(1, 4))
    return tuple(1 if rng.random() < ones else filled if d == 1 else d for d in shape[first:last])


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
        """Arrays for the leaves; those that the law takes as one number are it."""
        positive = bool(rng.random() < 0.5)
        found = {}
        for name in law.tensors:
            type_ = self.scope[name].type
            found[name] = random_array(rng, type_, sizes, positive=positive)
            if f"{name}_is" in self.scope:
                found[name] = np.full_like(found[name], self.scope[f"{name}_is"])
        return found


def cases(
    law: Law, rng: np.random.Generator, count: int, *, tries: int | None = None
) -> Iterator[Case]:
    """Up to `count` cases in which a law fires: both sides with random ops and shapes.

    Ops are drawn bottom-up by `Op.draw` on shapes that are like an example of the law (`Law.like`)
    or fit by chance, tried again and again (`tries` times in all; by default 400 for each case), or
    come from the definition of a derived op that has the structure of the left side.
    """
    defined = _definitions(law.left)
    likely = 0.5 if all(isinstance(o, Var) for o in law.left.operands) else 0.9
    for _ in range(400 * count if tries is None else tries):
        if count <= 0:
            return
        follow = rng.random() < _LIKE
        example = randomly(rng, law.operand_examples) if law.operand_examples and follow else {}
        drawn = _Drawn(rng, example)
        if law.term_examples and follow:
            found = _from_term(law.left, randomly(rng, law.term_examples), rng)
        elif defined and not example and rng.random() < likely:
            found = _from_definition(law.left, defined[int(rng.integers(len(defined)))], rng)
        else:
            found = drawn.scope if drawn.term(law.left) is not None else None
        case = None if found is None else _case(law, found, rng)
        if case is not None:
            count -= 1
            yield case


def _case(law: Law, found: Mapping[str, Any], rng: np.random.Generator) -> Case | None:
    types = {n: found[n].type for n in law.tensors}
    if rng.random() < 0.3:
        free = _with_free_size(types, rng)
        case = free and _built(law, free[0], found, rng, free[1])
        if case:
            return case
    return _built(law, types, found, rng, {})


def _built(
    law: Law,
    types: Mapping[str, TensorType],
    found: Mapping[str, Any],
    rng: np.random.Generator,
    sizes: Sizes,
) -> Case | None:
    scope: dict[str, Any] = {n: tensor(n, t) for n, t in types.items()}
    scope |= {v.name: found[v.name] for v in law.specs}
    for fact in law.facts:
        if fact.kind == "uniform":
            number = randomly(
                rng, (*_NUMBERS, -np.inf, np.inf) if is_float(types[fact.name].dtype) else (0, 1)
            )
            scope[f"{fact.name}_is"] = (
                np.asarray(number).astype(to_numpy(types[fact.name].dtype)).item()
            )
    with assuming() as assumptions:
        left = _instance(law.left, scope)
        if left is None:
            return None
    scope["root"] = left.type
    with assuming() as needed:
        right = law.build(scope)
    # what the right side needs of sizes and the left side does not is no case of the law
    if right is None or not set(needed) <= set(assumptions):
        return None
    every = [sizes] + [{_BATCH: n} for n in (1, 2, 5) if sizes and n != sizes[_BATCH]]
    fitting = tuple(s for s in every if all(holds(a, s) for a in assumptions.values()))
    return Case(scope, left, right, fitting) if fitting else None


def _instance(pattern: Any, scope: Mapping[str, Any]) -> Value | None:
    """The pattern on these leaves with these ops; None where that is another structure."""
    if isinstance(pattern, Var):
        return scope[pattern.name]
    operands = [_instance(o, scope) for o in pattern.operands]
    if any(o is None for o in operands):
        return None
    op = scope[pattern.head.name] if isinstance(pattern.head, OpVar) else pattern.head
    return _applied(op, operands)  # type: ignore[arg-type]


def _applied(op: Op, operands: Sequence[Value]) -> Value | None:
    try:
        value = apply(op, *operands)
    except _MISFITS:
        return None
    return value if value.op is op and value.operands == tuple(operands) else None


def _with_free_size(
    types: Mapping[str, TensorType], rng: np.random.Generator
) -> tuple[dict[str, TensorType], Sizes] | None:
    """One size of all types made free."""
    known = sorted({d for t in types.values() for d in t.shape if isinstance(d, int) and d > 1})
    if not known:
        return None
    chosen = known[int(rng.integers(len(known)))]
    free = size(_BATCH)
    found = {
        n: t.with_shape(tuple(free if d == chosen else d for d in t.shape))
        for n, t in types.items()
    }
    return found, {_BATCH: chosen}


class _Drawn:
    """One try to draw the ops and the leaves of a pattern."""

    def __init__(self, rng: np.random.Generator, example: Mapping[str, TensorType]) -> None:
        self.rng = rng
        self.scope: dict[str, Any] = {}
        self.shapes: list[Shape] = []
        if example:
            for name, type_ in zip(example, _resized([*example.values()], rng), strict=True):
                self._leaf(Var(name), type_.dtype, type_.shape)
        first, rest = randomly(
            rng,
            [("f64", "f64")] * 5
            + [("bool", "f64")] * 3
            + [("i64", "i64"), ("bool", "bool"), ("f32", "f32")],
        )
        self.dtypes = iter((first, *[rest] * 50))

    def term(self, pattern: Any) -> Value | None:
        """The pattern with drawn ops and leaves, noted in the scope; None if they do not fit."""
        if isinstance(pattern, Var):
            if pattern.name not in self.scope:
                self._leaves((pattern,), None)
            return self.scope[pattern.name]
        for operand in pattern.operands:
            if isinstance(operand, Term) and self.term(operand) is None:
                return None
        new = tuple(
            dict.fromkeys(
                o for o in pattern.operands if isinstance(o, Var) and o.name not in self.scope
            )
        )
        if not self._like_example(pattern, new):
            self._leaves(new, pattern if len(new) == len(pattern.operands) else None)
        operands = []
        for operand in pattern.operands:
            value = _instance(operand, self.scope)
            if value is None:
                return None
            operands.append(value)
        head = pattern.head
        if isinstance(head, OpVar) and head.name not in self.scope:
            op = self._op(head.cls, operands)
            if op is None:
                return None
            if not _meant_for(head.cls, operands):
                return None
            self.scope[head.name] = op
        value = _applied(self.scope[head.name] if isinstance(head, OpVar) else head, operands)
        if value is not None:
            self.shapes.append(value.shape)
        return value

    def _like_example(self, pattern: Term, new: Sequence[Var]) -> bool:
        """Leaves beside operands that are there, as an example of the op has them."""
        rng, head = self.rng, pattern.head
        cls: Any = head.cls if isinstance(head, OpVar) else type(head)
        fitting = [types for _, types in _examples(cls) if len(types) == len(pattern.operands)]
        if not new or len(new) == len(pattern.operands) or not fitting or rng.random() < 0.4:
            return False
        types = fitting[int(rng.integers(len(fitting)))]
        values = [None if o in new else _instance(o, self.scope) for o in pattern.operands]
        sizes: dict[Dim, Dim] = {}
        for value, type_ in zip(values, types, strict=True):
            if value is not None and value.rank == type_.rank:
                sizes |= {
                    d: n for d, n in zip(type_.shape, value.shape, strict=True) if d not in sizes
                }
        small = int(rng.integers(1, 4))
        fresh: dict[Dim, Dim] = {}
        for var, value, type_ in zip(pattern.operands, values, types, strict=True):
            if value is None and var.name not in self.scope:
                # axes after the second are windows: small ones fit
                shape = [
                    sizes.get(d, fresh.setdefault(d, int(rng.integers(1, 4)))) for d in type_.shape
                ]
                shape[2:] = [small if rng.random() < 0.8 else d for d in shape[2:]]
                self._leaf(var, type_.dtype, tuple(shape))
        return True

    def _leaves(self, new: Sequence[Var], whole: Term | None) -> None:
        """Leaves of shapes that may fit each other and what is there."""
        rng = self.rng
        if whole is not None:
            cls: Any = whole.head.cls if isinstance(whole.head, OpVar) else type(whole.head)
            drawn = _drawn_types(cls, len(new), rng)
            if drawn is not None:
                for var, type_ in zip(new, drawn, strict=True):
                    self._leaf(var, type_.dtype, type_.shape)
                return
        same = rng.random() < 0.5
        for i, var in enumerate(new):
            if same and i:
                shape = self.shapes[-1]
            else:
                shape = related(rng, self.shapes) if self.shapes else random_shape(rng)
            self._leaf(var, next(self.dtypes), shape)

    def _leaf(self, var: Var, dtype: str, shape: Shape) -> None:
        self.scope[var.name] = tensor(var.name, TensorType(dtype, shape))
        self.shapes.append(shape)

    def _op(self, cls: type[Op], operands: Sequence[Value]) -> Op | None:
        """A spec: what undoes an operand, or one of an example, or any that fits."""
        rng = self.rng
        inner = operands[0] if operands else None
        style = rng.random()
        try:
            op = None
            if inner is not None and inner.op is not None and style < 0.3:
                shapes = [o.shape for o in inner.operands]
                op = randomly(rng, (inner.op.inverse, inner.op.pseudo_inverse))(*shapes)
            elif style < 0.5 and _examples(cls):
                op = randomly(rng, _examples(cls))[0]
            elif style < 0.6 and (same := [o for o in self.scope.values() if isinstance(o, cls)]):
                op = randomly(rng, same)  # two of a kind often fit each other
            if cls is Repeat and style > 0.6:  # to a shape that is there
                like = randomly(rng, [t for t in self.shapes if len(t) == operands[0].rank])
                op = Repeat(
                    tuple(n if d == 1 else 1 for n, d in zip(like, operands[0].shape, strict=True))
                )
            if not isinstance(op, cls):
                op = cls.draw(rng, *(v.shape for v in operands))  # type: ignore[arg-type]
            if op is not None and rng.random() < 0.4:
                op = _idle(op, rng)
            return None if op is None else op.normal(*(v.type for v in operands))
        except (NotImplementedError, *_MISFITS):
            return None


def _idle(op: Op, rng: np.random.Generator) -> Op:
    """The op with axes left alone, most often the first ones: laws often need that."""
    if not isinstance(op, Pad | Stride | Interleave | Slice):
        return op
    first = int(rng.integers(4))
    changed: dict[str, Any] = {
        name: (_IDLE[name],) * len(value)
        if rng.random() < 0.3
        else tuple(_IDLE[name] if axis < first else n for axis, n in enumerate(value))
        for name, value in op.spec.items()
        if name in _IDLE
    }
    if "fill" in op.spec and rng.random() < 0.5:
        changed["fill"] = 0.0
    return type(op)(**{**op.spec, **changed})


def _meant_for(cls: type[Op], operands: Sequence[Value]) -> bool:
    """Derived ops that compute are for floats, and for what their examples have."""
    if cls.moves or cls is Concat or not issubclass(cls, Derived):
        return True
    known = {t.dtype for _, types in _examples(cls) for t in types}
    return all(is_float(v.dtype) or v.dtype in known for v in operands)


# -- definitions of derived ops -------------------------------------------------------------------


def _definitions(pattern: Term) -> list[_Example]:
    """The examples of derived ops whose definitions have this structure."""
    return [
        (op, types)
        for cls in OPS.values()
        if issubclass(cls, Derived)
        for op, types in _examples(cls)
        if _match(pattern, op.trace(*types)[1]) is not None
    ]


@cache
def _examples(cls: type[Op]) -> tuple[_Example, ...]:
    """The examples of a class, in f64."""
    found = []
    for op, text in getattr(cls, "examples", ()):
        types = [parse_type(part) for part in text.split(",")]
        names = {n for t in types for d in t.shape if isinstance(d, Size) for n in d.names}
        sizes: dict[str, Dim] = dict.fromkeys(names, 4)
        wide = tuple(
            TensorType("f64" if t.dtype == "f32" else t.dtype, t.bind(sizes).shape) for t in types
        )
        found.append((op.bind(sizes), wide))
    return tuple(found)


def _drawn_types(
    cls: type[Op], count: int, rng: np.random.Generator
) -> tuple[TensorType, ...] | None:
    """Operand types of an example with so many operands, with other sizes; None without one."""
    fitting = [types for _, types in _examples(cls) if len(types) == count]
    if not fitting or rng.random() < 0.3:
        return None
    return _resized(fitting[int(rng.integers(len(fitting)))], rng)


def _resized(types: Sequence[TensorType], rng: np.random.Generator) -> tuple[TensorType, ...]:
    """Types with other sizes: equal ones stay equal."""
    known = {d for t in types for d in t.shape}
    keep, most = randomly(rng, ((1.0, 7), (0.4, 7), (0.0, 3)))  # also ones and twos alone
    new = {d: d if rng.random() < keep else int(rng.integers(1, most)) for d in sorted(known)}  # type: ignore[type-var]
    return tuple(t.with_shape(tuple(new[d] for d in t.shape)) for t in types)


def _from_definition(
    pattern: Term, example: _Example, rng: np.random.Generator
) -> dict[str, Any] | None:
    """The variables of the pattern in a definition like that of an example."""
    op, types = example[0], _resized(example[1], rng)
    try:
        if rng.random() < 0.5:
            drawn = type(op).draw(rng, *(t.shape for t in types))
            op = op if drawn is None else drawn
        return _match(pattern, op.trace(*types)[1])
    except (NotImplementedError, *_MISFITS):
        return None


def _from_term(pattern: Term, example: Value, rng: np.random.Generator) -> dict[str, Any] | None:
    """The variables of the pattern in a term with leaves of other sizes."""
    order = walk([example])
    leaves = [v for v in order if v.op is None]
    types = _resized([v.type for v in leaves], rng)
    done = {v: tensor(v.name, t) for v, t in zip(leaves, types, strict=True)}
    for v in order:
        if v.op is not None:
            value = _applied(v.op, [done[o] for o in v.operands])
            if value is None:
                return None
            done[v] = value
    return _match(pattern, done[example])


def _match(pattern: Any, value: Value) -> dict[str, Any] | None:
    """The ops and values for the variables of a pattern that make it this value."""
    found: dict[str, Any] = {}
    stack: list[tuple[Any, Value]] = [(pattern, value)]
    while stack:
        wanted, given = stack.pop()
        if isinstance(wanted, Var):
            if found.setdefault(wanted.name, given) is not given:
                return None
            continue
        head = wanted.head
        if isinstance(head, OpVar):
            if (
                not isinstance(given.op, head.cls)
                or found.setdefault(head.name, given.op) is not given.op
            ):
                return None
        elif given.op is not head:
            return None
        if len(wanted.operands) != len(given.operands):
            return None
        stack += zip(wanted.operands, given.operands, strict=True)
    return found


__all__ = [
    "Case",
    "Sample",
    "cases",
    "numeric",
    "random_array",
    "random_shape",
    "random_values",
    "related",
]
