"""What a derived op is: a name for a term of core (or other derived) ops.

Shape, element type, meaning, default work, the decomposition law and the recognition law follow
from the one definition.  A faster `run` or a closed form of `work` may stand beside it, and is then
tested against it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import lru_cache, reduce
from itertools import chain, product
from typing import Any, ClassVar

import numpy as np

from safegraph.dims import KEPT, Shape, assuming
from safegraph.dtypes import from_numpy
from safegraph.errors import ShapeError
from safegraph.op import Op, TensorType, Work, _arity
from safegraph.value import Value, tensor, walk


class Derived(Op, abstract=True):
    """An op that is defined by a term of other ops."""

    examples: ClassVar[tuple[tuple[Derived, str], ...]] = ()
    """Specs with operand types ("f32[2 3], f32[3]") whose definitions have different structures."""

    def define(self, *operands: Value) -> Value:
        """The term that this op stands for.  Its parameters are the op's operands."""
        raise NotImplementedError

    def __init_subclass__(cls, abstract: bool = False) -> None:
        super().__init_subclass__(abstract=abstract)
        cls.arity = _arity(cls.define)

    def trace(self, *types: TensorType) -> tuple[tuple[Value, ...], Value]:
        """The definition on leaves of these types: (leaves, result)."""
        leaves, result, _ = _trace(self, types)
        return leaves, result

    def _infer(self, operands: tuple[TensorType, ...]) -> tuple[TensorType, tuple[Any, ...]]:
        low, high = self.arity
        if len(operands) < low or (high is not None and len(operands) > high):
            raise ShapeError(f"{self!r} takes {low} to {high} operands, not {len(operands)}")
        try:
            _, result, assumptions = _trace(self, operands)
        except ShapeError as error:
            given = ", ".join(map(repr, operands))
            raise ShapeError(f"{self!r} of {given}: {error}") from None
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            given = ", ".join(map(repr, operands))
            raise ShapeError(f"{self!r} does not fit operands {given} ({error})") from error
        return result.type, assumptions

    def shape(self, *operands: Shape) -> Shape:
        """The shape of the definition, which for no derived op depends on the element type."""
        return self.type(*(TensorType("f32", s) for s in operands)).shape

    def run(self, *arrays: Any) -> Any:
        types = tuple(TensorType(from_numpy(a.dtype), tuple(map(int, a.shape))) for a in arrays)
        leaves, result = self.trace(*types)
        return evaluate([result], dict(zip(leaves, arrays, strict=True)))[0]

    def work(self, *types: TensorType) -> Work:
        _, result = self.trace(*types)
        inner = (v for v in walk([result]) if v.op is not None)
        return reduce(
            Work.__add__,
            (v.op.work(*(o.type for o in v.operands)) for v in inner if v.op is not None),
            Work(),
        )

    def is_identity(self, *types: TensorType) -> bool:
        leaves, result = self.trace(*types)
        return result is leaves[0]

    @classmethod
    def proposals(
        cls, specs: Sequence[Op], operands: Sequence[Value], result: Value
    ) -> Iterator[Derived]:
        """Specs that a term may be the definition of: from the numbers and tuples of its ops.

        By default every combination of what occurs, by the type of each field; a class with many
        fields says it better.
        """
        pools: dict[type, dict[Any, None]] = {
            bool: {True: None, False: None},
            int: {},
            float: {},
            str: {},
            tuple: {},
        }
        pools[int].update(dict.fromkeys(range(max((o.rank for o in operands), default=0))))
        pools[tuple][result.shape] = None
        for value in chain.from_iterable(op.spec.values() for op in specs):
            if type(value) in pools:
                pools[type(value)][value] = None
            if type(value) is int:
                pools[float][float(value)] = None
            if type(value) is tuple:
                pools[int].update(
                    dict.fromkeys((len(value), *(n for n in value if type(n) is int)))
                )
        for example, _ in cls.examples:
            # also numbers: a factor of 1 or a bound of infinity leaves no trace in the term
            for value in example.spec.values():
                if type(value) in (str, float):
                    pools[type(value)][value] = None
        by_name = {"bool": bool, "int": int, "Dim": int, "float": float, "str": str}
        choices: list[list[Any]] = []
        for f in fields(cls):
            kind = str(f.type).removesuffix(" | None")  # annotations are text here
            choices.append([None] * (str(f.type) != kind) + list(pools[by_name.get(kind, tuple)]))
        for values in product(*choices):
            yield cls(*values)


@lru_cache(KEPT)
def _trace(
    op: Derived, types: tuple[TensorType, ...]
) -> tuple[tuple[Value, ...], Value, tuple[Any, ...]]:
    """The definition on leaves of these types, and what was assumed of free sizes meanwhile."""
    leaves = tuple(tensor(f"%{i}", t) for i, t in enumerate(types))
    with assuming() as assumptions:
        result = op.define(*leaves)
    return leaves, result, tuple(assumptions.values())


def evaluate(outputs: Iterable[Value], values: Mapping[Value, Any]) -> list[Any]:
    """The arrays of some values, when the leaves have these arrays."""
    outputs = list(outputs)
    done: dict[Value, Any] = dict(values)
    order = [v for v in walk(outputs) if v not in done]
    last: dict[Value, int] = {}
    for i, value in enumerate(order):
        for operand in value.operands:
            last[operand] = i
    keep = {*outputs, *values}
    for i, value in enumerate(order):
        if value.op is None:
            raise ShapeError(f"no array was given for {value.name}: {value.type}")
        done[value] = value.op.run(*(done[o] for o in value.operands))
        for operand in set(value.operands):
            if last[operand] == i and operand not in keep:
                del done[operand]
    return [done[v] for v in outputs]


def randomly(rng: np.random.Generator, choices: Sequence[Any]) -> Any:
    """One of some choices, as it is (NumPy would make it an array element)."""
    return choices[int(rng.integers(len(choices)))]
