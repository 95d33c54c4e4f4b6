"""Every derived op equals its definition: both directions, generated from `define`.

Decomposition traces the definition on the operands.  Recognition matches the structure of an
example's definition, proposes attributes from the matched specs, traces again and compares: terms
are interned, so the comparison is one `is`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from safegraph import derived
from safegraph.derived.base import Derived
from safegraph.derived.einsum import Einsum
from safegraph.errors import SafeGraphError
from safegraph.law import Law, OpVar, Term, Var, any_of, one, table, variables
from safegraph.op import OPS, Op
from safegraph.ops import Binary, Scalar, Select, Unary
from safegraph.rules.affine import near
from safegraph.value import Value, apply, parse_type, walk

DERIVED: tuple[type[Derived], ...] = tuple(op for op in OPS.values() if issubclass(op, Derived))

KEPT: tuple[type[Derived], ...] = (
    Einsum,
    derived.Concat,
    derived.Gather,
    derived.GatherElements,
    derived.OneHot,
    derived.GatherNd,
    derived.Lstm,
    derived.Gru,
    derived.Rnn,
    derived.ScatterElements,
    derived.ScatterNd,
    derived.TopK,
)
"""Ops whose definitions are only the meaning: no law finds more in them than in the op itself."""

_FOUND = (derived.Gather, derived.GatherElements, derived.OneHot)
"""Those of them that are recognised all the same: a table is read where all of it was compared."""
_FINITE = (derived.Resize,)  # its definition multiplies by weights of 0 what its meaning leaves out
_FIXED = (Unary, Binary, Select)  # ops whose spec is part of the structure
_MOST_PROPOSALS = 2_000


def decomposition(cls: type[Derived], arity: int) -> tuple[Law, ...]:
    """The op as its definition."""
    (d,) = any_of(cls, "d")
    operands = variables(" ".join(f"x{i}" for i in range(arity)))

    def define(**found: Any) -> Value:
        return found["d"].define(*(found[o.name] for o in operands))

    grade = "finite" if cls in _FINITE else "real"
    return one(f"definition of {cls.name} ({arity})", d(*operands), define, grade=grade)


def arities(cls: type[Op], most: int = 8) -> range:
    """The numbers of operands that an op takes; up to `most` where there is no limit."""
    low, high = cls.arity
    return range(max(low, 1), (most if high is None else high) + 1)


def recognition(cls: type[Derived]) -> Iterator[tuple[Law, ...]]:
    """Terms with the structure of an example's definition, as the op."""
    seen: set[str] = set()
    for example, text in cls.examples:
        types = [parse_type(part) for part in text.split(",")]
        leaves, result = example.trace(*types)
        order = walk([result])
        if result.op is None or not set(leaves) <= set(order):
            continue
        pattern, heads = _skeleton(leaves, result, order)
        if str(pattern) in seen:
            continue
        seen.add(str(pattern))
        # A form whose attributes cannot be read back from its ops is no law.
        specs = [v.op for v in order if v.op is not None and not isinstance(v.op, _FIXED)]
        if next(_proposed(cls, specs, leaves, result), None) is None:
            continue
        name = f"{cls.name} recognised ({len(leaves)} operands, form {len(seen)})"
        yield one(name, pattern, _recognise(cls, pattern, heads, len(leaves)))


def _proposed(
    cls: type[Derived], specs: list[Op], operands: Sequence[Value], result: Value
) -> Iterator[Derived]:
    """The attributes that matched specs suggest, if they have this term as their definition."""
    for op in islice(cls.proposals(specs, operands, result), _MOST_PROPOSALS):
        try:
            if same_to_rounding(op.define(*operands), result):
                yield op
        except (SafeGraphError, ValueError, IndexError, TypeError, ArithmeticError):
            continue  # a proposal that does not fit


def same_to_rounding(a: Value, b: Value) -> bool:
    """Are two terms one, but for numbers that differ by rounding?  Exporters store them as f32."""
    stack = [(a, b)]
    seen: set[tuple[Value, Value]] = set()
    while stack:
        pair = x, y = stack.pop()
        if x is y or pair in seen:
            continue
        seen.add(pair)
        if isinstance(x.op, Scalar) and isinstance(y.op, Scalar):
            if x.type != y.type or not near(x.op.value, y.op.value, x.dtype):
                return False
        elif x.op is not y.op or x.op is None or x.type != y.type:
            return False
        stack += zip(x.operands, y.operands, strict=True)
    return True


def _skeleton(
    leaves: tuple[Value, ...], result: Value, order: list[Value]
) -> tuple[Term, list[OpVar]]:
    terms: dict[Value, Any] = {leaf: Var(f"x{i}") for i, leaf in enumerate(leaves)}
    heads: list[OpVar] = []
    for v in order:
        if v.op is None:
            continue
        if isinstance(v.op, _FIXED):
            head: Any = v.op
        else:
            head = OpVar(f"h{len(heads)}", type(v.op))
            heads.append(head)
        terms[v] = Term(head, tuple(terms[o] for o in v.operands))
    return terms[result], heads


def _recognise(cls: type[Derived], pattern: Term, heads: list[OpVar], arity: int) -> Any:
    def recognise(**found: Any) -> Value | None:
        operands = [found[f"x{i}"] for i in range(arity)]
        matched = _value(pattern, found)
        specs = [found[h.name] for h in heads]
        op = next(_proposed(cls, specs, operands, matched), None)
        return None if op is None else apply(op, *operands)

    return recognise


def _value(pattern: Any, scope: dict[str, Any]) -> Value:
    if isinstance(pattern, Var):
        return scope[pattern.name]
    op = scope[pattern.head.name] if isinstance(pattern.head, OpVar) else pattern.head
    return apply(op, *(_value(o, scope) for o in pattern.operands))


def _definitions() -> Iterator[tuple[Law, ...]]:
    for cls in DERIVED:
        if cls not in KEPT:
            for arity in arities(cls):
                yield decomposition(cls, arity)


def _recognitions() -> Iterator[tuple[Law, ...]]:
    for cls in DERIVED:
        # names for movement say no more than the core ops that they are made of
        named = cls not in (*KEPT, derived.Broadcast, derived.Resize) and not cls.moves
        if named or cls in _FOUND:
            yield from recognition(cls)


DECOMPOSITION = table("definitions", *_definitions())
RECOGNITION = table("definitions", *_recognitions())
LAWS = (*DECOMPOSITION, *RECOGNITION)
