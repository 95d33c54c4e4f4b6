"""The laws of batches: the marker "one sample of" goes from the result of an op to its operands.

One table, `TABLE`, has a row for each op class.  Read forwards, it takes the batch of a graph away
(`safegraph.batch`); read backwards, it gives a graph one; and each row is a law, which is tested as
all laws are: Sample_P(op(x, y)) = op'(Sample_Q(x), Sample_R(y)), for every place P and sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from safegraph.dims import Dim, divide
from safegraph.errors import SafeGraphError
from safegraph.law import Law, OpVar, Term, Var, one, table
from safegraph.op import Op, TensorType
from safegraph.ops.sample import Place, Sample
from safegraph.rules.batch_axes import ALONG
from safegraph.rules.batch_contraction import CONTRACTIONS
from safegraph.rules.batch_layers import LAYERS
from safegraph.rules.batch_picking import PICKING
from safegraph.rules.batch_rows import Counting, Mixed, Places, Pushed, Row, Types
from safegraph.rules.batch_views import VIEWS
from safegraph.value import Value, apply

TABLE: dict[type[Op], Row] = {**VIEWS, **ALONG, **CONTRACTIONS, **LAYERS, **PICKING}


def push(op: Op, types: Types, places: Places, size: Dim) -> Pushed | None:
    """The marker pushed through an op, for operands of these types with their batch there.

    None where there is no row, or it leaves the answer to the op's definition.  Raises `Mixed`
    where samples meet.
    """
    row = TABLE.get(type(op))
    if row is None:
        return None
    found = row.push(op, types, places, size)
    if found is None:
        return None
    for i, (need, type_) in enumerate(zip(found.needs, types, strict=True)):
        if isinstance(need, Place) and not _fits(need, type_, size):
            raise Mixed("an operand has no batch there", need.axis, operand=i)
        if isinstance(need, Counting) and not 0 <= need.axis < type_.rank:
            raise Mixed("it picks one sample for all by number")
    out = op.type(*types)
    if not all(_fits(place, out, size) for place in found.places):
        raise Mixed("it repeats the batch")
    return found


def _fits(place: Place, type_: TensorType, size: Dim) -> bool:
    return 0 <= place.axis < type_.rank and type_.shape[place.axis] == size * place.rest


def pull(op: Op, types: Types, place: Place, size: Dim) -> Iterator[Pushed]:
    """The ways in which the batch of the result can come to be at a place.

    Each says where the batches of operands then are; one that needs none of them makes equal
    samples.
    """
    row = TABLE.get(type(op))
    if row is None:
        return
    if row.make is not None:
        made = row.make(op, types, place, size)
        if made is not None:
            yield made
    seen: list[tuple[Any, ...]] = []
    for i, type_ in enumerate(types):
        for guess in _guesses(type_, place, size):
            places: Places = tuple(guess if k == i else None for k in range(len(types)))
            try:
                found = push(op, types, places, size)
            except SafeGraphError:
                continue
            if found is not None and place in found.places and found.needs not in seen:
                seen.append(found.needs)
                yield found


def _guesses(type_: TensorType, place: Place, size: Dim) -> Iterator[Place]:
    """Places of a batch of this size: the factors of an axis that are before and after it."""
    for axis, d in enumerate(type_.shape):
        rest = divide(d, size)
        if rest is None or (isinstance(rest, int) and rest < 1):
            continue
        if isinstance(rest, int):
            outers: Sequence[Dim] = [n for n in range(1, rest + 1) if rest % n == 0]
        else:
            outers = list(dict.fromkeys((1, rest, place.outer, place.inner)))
        for outer in outers:
            inner = divide(rest, outer)
            if inner is not None:
                yield Place(axis, outer, inner)


# -- the rows as laws -----------------------------------------------------------------------------


def _right(arity: int) -> Any:
    def build(**found: Any) -> Value | None:
        mark: Sample = found["s"]
        xs = [found[f"x{i}"] for i in range(arity)]
        op: Op = found["op"]
        for way in pull(op, tuple(x.type for x in xs), mark.place, mark.size):
            if not any(isinstance(need, Counting) for need in way.needs):
                return way.build(*(marked(x, n, mark) for x, n in zip(xs, way.needs, strict=True)))
        return None

    return build


def marked(x: Value, need: Any, mark: Sample) -> Value:
    """The marker on an operand that has a batch."""
    return x if need is None else apply(Sample.of(need, mark.size, mark.index), x)


def law_name(cls: type[Op], arity: int) -> str:
    """The name of the law of a row, for this number of operands."""
    low, high = cls.arity
    return f"a sample of {cls.name}" + (f" of {arity}" if low != high else "")


def _laws(cls: type[Op]) -> Iterator[Law]:
    low, high = cls.arity
    every = range(low, high + 1) if high is not None else range(max(low + 1, 2), max(low, 1) + 3)
    for arity in every:
        xs = tuple(Var(f"x{i}") for i in range(arity))
        left = Term(OpVar("s", Sample), (Term(OpVar("op", cls), xs),))
        yield from one(law_name(cls, arity), left, _right(arity))


LAWS = table("batch", *(tuple(_laws(cls)) for cls in TABLE))
__all__ = ["LAWS", "TABLE", "Mixed", "law_name", "pull", "push"]
