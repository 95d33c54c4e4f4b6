"""Drawing ops and leaves that fit each other, so that a law fires on them.

Chance alone seldom makes a case of a law.  So shapes are drawn beside others, ops are drawn to undo
or repeat what is there, and terms are made like an example: an op's definition, or one of the law.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cache
from typing import Any

import numpy as np

from safegraph.derived.base import Derived, randomly
from safegraph.derived.conv import Conv
from safegraph.derived.shape import Concat
from safegraph.dims import Dim, Shape, Size
from safegraph.dtypes import is_float
from safegraph.errors import SafeGraphError
from safegraph.law import OpVar, Term, Var
from safegraph.op import OPS, Op, TensorType
from safegraph.ops import Interleave, Pad, Repeat, Slice, Stride
from safegraph.value import Value, apply, parse_type, tensor, walk

MISFITS = (SafeGraphError, ValueError, IndexError, TypeError, ArithmeticError)
"""What ops and specs raise that do not fit."""
_IDLE = {
    "before": 0,
    "after": 0,
    "steps": 1,
    "starts": 0,
    "stops": None,
    "strides": 1,
    "dilations": 1,
}
Example = tuple[Any, tuple[TensorType, ...]]
"""A derived op, and types of its operands."""


# -- shapes --------------------------------------------------------------------------------------


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


# -- ops and leaves for a pattern ------------------------------------------------------------------


class Drawn:
    """One try to draw the ops and the leaves of a pattern."""

    def __init__(self, rng: np.random.Generator, example: Mapping[str, TensorType]) -> None:
        self.rng = rng
        self.scope: dict[str, Any] = {}
        self.shapes: list[Shape] = []
        self.drawn_on: dict[str, tuple[Shape, ...]] = {}
        self.values: dict[Term, Value] = {}  # of the terms that are drawn: patterns share parts
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
                self._leaf(pattern, next(self.dtypes), self._shape())
            return self.scope[pattern.name]
        if pattern in self.values:
            return self.values[pattern]
        # what is drawn first may have any shape, the others are drawn to fit it
        order = pattern.operands[::-1] if self.rng.random() < 0.5 else pattern.operands
        for operand in order:
            if isinstance(operand, Term) and self.term(operand) is None:
                return None
        new = tuple(
            dict.fromkeys(
                o for o in pattern.operands if isinstance(o, Var) and o.name not in self.scope
            )
        )
        if not self._like_example(pattern, new):
            self._leaves(new, pattern)
        operands = [self._value(o) for o in pattern.operands]
        head = pattern.head
        if isinstance(head, OpVar) and head.name not in self.scope:
            op = self._op(head.cls, operands)
            if op is None:
                return None
            if not meant_for(head.cls, operands):
                return None
            self.scope[head.name] = op
            self.drawn_on[head.name] = tuple(v.shape for v in operands)
        value = _applied(self.scope[head.name] if isinstance(head, OpVar) else head, operands)
        if value is not None:
            self.shapes.append(value.shape)
            self.values[pattern] = value
        return value

    def _value(self, pattern: Any) -> Value:
        """What is there already."""
        return self.scope[pattern.name] if isinstance(pattern, Var) else self.values[pattern]

    def _like_example(self, pattern: Term, new: Sequence[Var]) -> bool:
        """Leaves beside operands that are there, as an example of the op has them."""
        rng, head = self.rng, pattern.head
        cls: Any = head.cls if isinstance(head, OpVar) else type(head)
        fitting = [types for _, types in _examples(cls) if len(types) == len(pattern.operands)]
        if not new or len(new) == len(pattern.operands) or not fitting or rng.random() < 0.4:
            return False
        types = fitting[int(rng.integers(len(fitting)))]
        values = [None if o in new else self._value(o) for o in pattern.operands]
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

    def _leaves(self, new: Sequence[Var], pattern: Term) -> None:
        """Leaves of shapes that may fit each other, the op and what is there."""
        rng, head = self.rng, pattern.head
        if isinstance(head, OpVar) and head.name in self.drawn_on and rng.random() < 0.8:
            shapes = dict(zip(pattern.operands, self.drawn_on[head.name], strict=True))
            for var in new:  # the op was drawn for other operands: these are like them
                self._leaf(var, next(self.dtypes), shapes[var])
            return
        if len(new) == len(pattern.operands):
            cls: Any = head.cls if isinstance(head, OpVar) else type(head)
            drawn = _drawn_types(cls, len(new), rng)
            if drawn is not None:
                for var, type_ in zip(new, drawn, strict=True):
                    self._leaf(var, type_.dtype, type_.shape)
                return
        same = rng.random() < 0.5
        for i, var in enumerate(new):
            shape = self.shapes[-1] if same and i else self._shape()
            self._leaf(var, next(self.dtypes), shape)

    def _shape(self) -> Shape:
        return related(self.rng, self.shapes) if self.shapes else random_shape(self.rng)

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
        except (NotImplementedError, *MISFITS):
            return None


def _idle(op: Op, rng: np.random.Generator) -> Op:
    """The op with axes left alone, most often the first ones: laws often need that."""
    if not isinstance(op, Pad | Stride | Interleave | Slice | Conv):
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


def meant_for(cls: type[Op], operands: Sequence[Value]) -> bool:
    """Derived ops that compute are for floats, and for what their examples have."""
    if cls.moves or cls is Concat or not issubclass(cls, Derived):
        return True
    known = {t.dtype for _, types in _examples(cls) for t in types}
    return all(is_float(v.dtype) or v.dtype in known for v in operands)


def instance(pattern: Any, scope: Mapping[str, Any]) -> Value | None:
    """The pattern on these leaves with these ops; None where that is another structure."""
    done: dict[Term, Value | None] = {}  # patterns share parts

    def visit(part: Any) -> Value | None:
        if isinstance(part, Var):
            return scope[part.name]
        if part not in done:
            operands = [visit(o) for o in part.operands]
            op = scope[part.head.name] if isinstance(part.head, OpVar) else part.head
            fits = all(o is not None for o in operands)
            done[part] = _applied(op, operands) if fits else None  # type: ignore[arg-type]
        return done[part]

    return visit(pattern)


def _applied(op: Op, operands: Sequence[Value]) -> Value | None:
    try:
        value = apply(op, *operands)
    except MISFITS:
        return None
    return value if value.op is op and value.operands == tuple(operands) else None


# -- examples and definitions of derived ops -------------------------------------------------------


def definitions(pattern: Term) -> list[Example]:
    """The examples of derived ops whose definitions have this structure."""
    return [
        (op, types)
        for cls in OPS.values()
        if issubclass(cls, Derived)
        for op, types in _examples(cls)
        if _match(pattern, op.trace(*types)[1]) is not None
    ]


@cache
def _examples(cls: type[Op]) -> tuple[Example, ...]:
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
    """Types with other sizes: equal ones stay equal, and ones are often meant."""
    rank = max((t.rank for t in types), default=0)
    new = _other([d for t in types for d in t.shape], rank, rng)
    return tuple(t.with_shape(_mapped(t.shape, new)) for t in types)


def _other(sizes: Sequence[Any], rank: int, rng: np.random.Generator) -> dict[int, int]:
    """Other numbers for sizes; the fewer there are, the larger, so that there are many choices."""
    known = sorted({n for n in sizes if n > 0})
    large = max(7, 40 // max(1, len(known), rank))
    keep, most = randomly(rng, ((1.0, 7), (0.4, large), (0.0, 3)))  # also ones and twos alone
    new = {n: n if rng.random() < keep else int(rng.integers(1, most)) for n in known}
    if rng.random() < 0.5:
        new[1] = 1
    return new


def from_definition(
    pattern: Term, example: Example, rng: np.random.Generator
) -> dict[str, Any] | None:
    """The variables of the pattern in a definition like that of an example."""
    op, types = example[0], _resized(example[1], rng)
    if rng.random() < 0.5 and len({t.shape for t in types}) == 1:
        shape = (*random_shape(rng)[:2], *types[0].shape)  # pointwise ops know no rank
        types = tuple(t.with_shape(shape) for t in types)
    try:
        if rng.random() < 0.5:
            drawn = type(op).draw(rng, *(t.shape for t in types))
            op = op if drawn is None else drawn
        return _match(pattern, op.trace(*types)[1])
    except (NotImplementedError, *MISFITS):
        return None


# -- examples of a law -----------------------------------------------------------------------------


def from_term(pattern: Term, example: Value, rng: np.random.Generator) -> dict[str, Any] | None:
    """The variables of the pattern in a term like the example, with other sizes."""
    order = walk([example])
    leaves = [v for v in order if v.op is None]
    sizes = [d for v in order for d in _sizes(v)]
    rank = max(v.rank for v in order)
    style = rng.random()
    new = _in_order(sizes, rng) if style < 0.4 else _other(sizes, rank, rng)
    inside = new if style < 0.7 else {}  # the ops have the sizes of the leaves, or their own
    done = {v: tensor(v.name, v.type.with_shape(_mapped(v.shape, new))) for v in leaves}
    for v in order:
        if v.op is not None:
            value = _applied(_with_sizes(v.op, inside), [done[o] for o in v.operands])
            if value is None:
                return None
            done[v] = value
    return _match(pattern, done[example])


def _in_order(sizes: Sequence[int], rng: np.random.Generator) -> dict[int, int]:
    """Other numbers for sizes, in the same order: parts that meet still meet, and stay inside."""
    new, last, at = {0: 0}, 0, 0
    for n in sorted({n for n in sizes if n > 0}):
        at += 1 if n == 1 else int(rng.integers(1, 2 * (n - last) + 1))
        new[n], last = at, n
    return new


def _sizes(value: Value) -> list[int]:
    """The numbers in a type, or in the fields of an op that are sizes."""
    found: list[int] = []
    stack: list[Any] = [value.shape if value.op is None else _size_fields(value.op)]
    while stack:
        top = stack.pop()
        if isinstance(top, tuple):
            stack += top
        elif isinstance(top, int):
            found.append(top)
    return found


def _size_fields(op: Op) -> tuple[Any, ...]:
    return tuple(getattr(op, f.name) for f in fields(op) if "Dim" in str(f.type))


def _with_sizes(op: Op, new: Mapping[int, int]) -> Op:
    """The op with other numbers in its fields that are sizes."""
    sizes = {f.name for f in fields(op) if "Dim" in str(f.type)}
    return type(op)(**{n: _mapped(v, new) if n in sizes else v for n, v in op.spec.items()})


def _mapped(value: Any, new: Mapping[int, int]) -> Any:
    if isinstance(value, tuple):
        return tuple(_mapped(v, new) for v in value)
    return new.get(value, value) if isinstance(value, int) else value


def _match(pattern: Any, value: Value) -> dict[str, Any] | None:
    """The ops and values for the variables of a pattern that make it this value."""
    found: dict[str, Any] = {}
    stack: list[tuple[Any, Value]] = [(pattern, value)]
    seen: set[tuple[Any, Value]] = set()  # patterns share parts
    while stack:
        wanted, given = pair = stack.pop()
        if pair in seen:
            continue
        seen.add(pair)
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
