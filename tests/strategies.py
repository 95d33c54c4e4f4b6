"""Random cases for the tests: an op with a spec that fits operands, and arrays for those."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from safegraph.derived.base import Derived
from safegraph.dtypes import is_float, to_numpy
from safegraph.errors import SafeGraphError
from safegraph.op import OPS, Op, TensorType
from safegraph.ops import UNARY, Opaque, Unary
from safegraph.value import parse_type

CORE: list[type[Op]] = [
    cls for cls in OPS.values() if not issubclass(cls, Derived) and cls is not Opaque
]
DERIVED: list[type[Op]] = [cls for cls in OPS.values() if issubclass(cls, Derived)]

seeds = st.integers(0, 2**32 - 1)


@dataclass(frozen=True)
class Case:
    """An op on operands of these types, with arrays of them."""

    op: Op
    types: tuple[TensorType, ...]
    arrays: tuple[np.ndarray, ...]

    @property
    def shapes(self) -> tuple[Any, ...]:
        return tuple(t.shape for t in self.types)


def random_case(cls: type[Op], seed: int) -> Case | None:
    """A case of an op class; None if neither its `draw` nor its `examples` give one."""
    rng = np.random.default_rng(seed)
    examples = [*_examples(cls)]
    if examples and rng.random() < 0.5:
        return _case(rng, *examples[int(rng.integers(len(examples)))])
    for _ in range(200):
        shapes = _shapes(cls, rng)
        op = _draw(cls, rng, shapes)
        if op is not None:
            return _case(rng, op, _typed(op, shapes))
    return _case(rng, *examples[int(rng.integers(len(examples)))]) if examples else None


def _draw(cls: type[Op], rng: np.random.Generator, shapes: list[tuple[int, ...]]) -> Op | None:
    try:
        return cls.draw(rng, *shapes)
    except NotImplementedError:
        return None


def _examples(cls: type[Op]) -> Iterator[tuple[Op, tuple[TensorType, ...]]]:
    for op, text in getattr(cls, "examples", ()):
        # Double precision, in which a definition and a faster `run` hardly differ.
        types = tuple(parse_type(re.sub(r"\bf32\[", "f64[", t)) for t in text.split(", "))
        sizes = {name: 4 for t in types for d in t.shape for name in getattr(d, "names", ())}
        yield op.bind(sizes), tuple(t.bind(sizes) for t in types)


def _shapes(cls: type[Op], rng: np.random.Generator) -> list[tuple[int, ...]]:
    low, high = cls.arity
    count = int(rng.integers(low, (low + 2 if high is None else high) + 1))
    style = rng.random()
    if style < 0.4:  # unrelated shapes of few sizes, which fit each other by chance
        return [_shape(rng, (2, 3)) for _ in range(count)]
    first = _shape(rng, (1, 1, 2, 3, 4, 6))
    if style < 0.7:
        return [first] * count
    others = (tuple(int(n) for n in rng.permutation(first)) for _ in range(count - 1))
    return [first, *others][:count]


def _shape(rng: np.random.Generator, sizes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(n) for n in rng.choice(sizes, int(rng.integers(0, 5))))


def _typed(op: Op, shapes: list[tuple[int, ...]]) -> tuple[TensorType, ...]:
    """Operands of the first element types that the op takes; its spec must fit the shapes."""
    count, problem = len(shapes), None
    with_indices = [*["f64"] * (count - 1), "i64"]
    for dtypes in (
        with_indices if count > 1 else ["f64"] * count,
        ["f64"] * count,
        ["bool", *["f64"] * (count - 1)],
        ["bool"] * count,
        ["i64"] * count,
        ["f64", *["i64"] * (count - 1)],
        ["f64", "f64", *["i64"] * (count - 2)],
        ["f64", "i64", "f64"],
    ):
        types = tuple(TensorType(d, s) for d, s in zip(dtypes, shapes, strict=False))
        try:
            op.type(*types)
        except SafeGraphError as error:
            problem = error
        else:
            return types
    raise AssertionError(f"draw gave {op!r} for shapes {shapes}, which does not fit") from problem


def _case(rng: np.random.Generator, op: Op, types: tuple[TensorType, ...]) -> Case:
    low, high = -2.0, 2.0
    if isinstance(op, Unary):
        a, b = UNARY[op.kind].domain
        low, high = max(low, a), min(high, b) if b > low else b
        high = max(high, low + 1) if b == np.inf else high
    return Case(op, types, tuple(random_array(rng, t, low, high) for t in types))


def random_array(
    rng: np.random.Generator, type: TensorType, low: float = -2, high: float = 2
) -> np.ndarray:
    """Numbers between low and high; integers are -1 or 0, which are indices of every axis."""
    values: np.ndarray
    if is_float(type.dtype):
        margin = 1e-3 * (high - low)
        values = rng.uniform(low + margin, high - margin, type.shape)
    elif type.dtype == "bool":
        values = rng.random(type.shape) < 0.5
    else:
        values = -(rng.random(type.shape) < 0.5).astype(np.int64)
    return np.asarray(values, to_numpy(type.dtype))
