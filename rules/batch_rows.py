"""What a row of the batch table is, and the rows of ops that work along axes they can name.

A row says where the batch of an op's result is when it is here or there in the operands, and what
the op is for one sample: Sample_P(op(x, y)) = op'(Sample_Q(x), Sample_R(y)).  Read backwards, it
says what an op is for many samples.  The rules and what they must refuse were tried beforehand on
300,000 random programs; the factors of axes are those of `safegraph.ops.sample`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from safegraph.dims import Dim
from safegraph.errors import SafeGraphError
from safegraph.op import Op, TensorType
from safegraph.ops import Group, Permute, Squeeze, Ungroup, Unsqueeze
from safegraph.ops.sample import Place
from safegraph.value import Value, apply, repeat, squeeze, unsqueeze

Types: TypeAlias = tuple[TensorType, ...]
Places: TypeAlias = "tuple[Place | None, ...]"


class Mixed(SafeGraphError):
    """Samples meet in an op, along `axis` of an operand.

    `what` says how; `where`, else the axis and the number of the operand (from 0; left out where
    there is one), says in which place.  `inner` is an op of the definition in which they meet.
    `by_size` is for an op that takes the size of the batch as a number.
    """

    def __init__(
        self,
        what: str,
        axis: int | None = None,
        *,
        operand: int | None = None,
        where: str = "",
        inner: str = "",
        by_size: bool = False,
    ) -> None:
        if not where and axis is not None:
            whose = "its operand" if operand is None else f"operand {operand + 1}"
            where = f"axis {axis} of {whose}"
        said = f"{what}, in the {inner} of its definition" if inner else what
        super().__init__(f"{said} ({where})" if where else said)
        self.what, self.axis, self.inner, self.by_size = what, axis, inner, by_size

    def in_definition(self, inner: str, axis: int | None, operand: int | None) -> Mixed:
        """The same of an op whose definition has the op `inner`: of its own operands."""
        if self.by_size:
            return self
        return Mixed(self.what, axis, operand=operand, inner=self.inner or inner)


@dataclass(frozen=True)
class Counting:
    """An operand must be the number of the sample, along this axis of it."""

    axis: int


@dataclass(frozen=True)
class Pushed:
    """The marker, pushed through an op.

    `needs` says which operands are taken for one sample, and where their batch is; `places` where
    that of the result is (several only where a batch of 1 lies between two axes, none where such a
    place was lost); `build` gives the result for one sample from those operands.
    """

    needs: tuple[Place | Counting | None, ...]
    places: tuple[Place, ...]
    build: Callable[..., Value]


Push: TypeAlias = "Callable[[Any, Types, Places, Dim], Pushed | None]"
Make: TypeAlias = "Callable[[Any, Types, Place, Dim], Pushed | None]"
Lift: TypeAlias = "Callable[[Any, Sequence[Value], Sequence[bool], Dim], Value | None]"


@dataclass(frozen=True)
class Row:
    """An op class in the table.

    `push` gives None where only the op's definition can tell, and raises `Mixed` where samples
    meet.  `make` is for ops that make a batch of operands without one.  `lift` is the op on
    operands of which some (the flags) have a leading batch axis; None where it is left to the
    definition.
    """

    push: Push
    lift: Lift
    make: Make | None = None


# -- values for one sample ------------------------------------------------------------------------


def tidy(op: Op, *operands: Value) -> Value:
    """The op applied; of an op that undoes it, nothing is left, and of two of a kind one is."""
    x = operands[0] if operands else None
    if x is None or x.op is None:
        return apply(op, *operands)
    if isinstance(op, Squeeze | Unsqueeze):
        return _with_ones(x, op.type(x.type).shape)
    if isinstance(op, Permute) and isinstance(x.op, Permute):
        return apply(Permute(tuple(x.op.order[a] for a in op.order)), x.operands[0])
    views = isinstance(op, Group | Ungroup) and isinstance(x.op, Group | Ungroup)
    if views and x.op.inverse(x.operands[0].shape) is op.normal(x.type):
        return x.operands[0]
    return apply(op, *operands)


def _with_ones(x: Value, shape: Sequence[Dim]) -> Value:
    """X with axes of size 1 dropped and inserted, whatever x did of that kind: one of each."""
    while isinstance(x.op, Squeeze | Unsqueeze):
        x = x.operands[0]
    gone, new, i, j = [], [], x.rank - 1, len(shape) - 1
    while i >= 0 or j >= 0:  # from the last axis, as broadcasting counts them
        if i >= 0 and j >= 0 and x.shape[i] == shape[j]:
            i, j = i - 1, j - 1
        elif i >= 0 and (j < 0 or shape[j] != 1):  # of size 1, or a free size taken as 1
            gone.append(i)
            i -= 1
        else:
            new.append(j)
            j -= 1
    return unsqueeze(squeeze(x, gone), new[::-1])


def present(x: Value, place: Place) -> Value:
    """A sample with the batch axis as one of size 1, where it was dropped."""
    return tidy(Unsqueeze((place.axis,)), x) if place.whole else x


def dropped(x: Value, place: Place) -> Value:
    """A sample without the axis, where that was the batch alone."""
    return tidy(Squeeze((place.axis,)), x) if place.whole else x


def the_place(places: Places) -> Place:
    """The first place that there is."""
    return next(p for p in places if p is not None)


def agreed(places: Places, wanted: Sequence[Place | None]) -> tuple[Place | None, ...]:
    """What is wanted of the operands; Mixed where one has its batch elsewhere."""
    for i, (has, wants) in enumerate(zip(places, wanted, strict=True)):
        if has is not None and has != wants:
            at, first = next((k, p) for k, p in enumerate(places) if p is not None)
            where = f"axis {first.axis} of operand {at + 1}, axis {has.axis} of operand {i + 1}"
            if first.axis == has.axis:  # the same only by number
                where += ", which is another factor or lines up with another axis"
            raise Mixed("samples meet in pairs", has.axis, where=f"the batch is {where}")
    return tuple(wanted)


# -- many samples --------------------------------------------------------------------------------


def leading(xs: Sequence[Value], flags: Sequence[bool], size: Dim) -> list[Value]:
    """The operands, each with a leading batch axis: those without one are repeated."""
    return [x if flag else repeated(x, size) for x, flag in zip(xs, flags, strict=True)]


def repeated(x: Value, size: Dim) -> Value:
    """Equal samples along a new first axis."""
    return repeat(unsqueeze(x, [0]), [size, *[1] * x.rank])


def moved(x: Value, source: int, to: int) -> Value:
    """One axis moved to another place, the others in their order."""
    order = [a for a in range(x.rank) if a != source]
    order.insert(to, source)
    return tidy(Permute(tuple(order)), x)


def merged(x: Value, axis: int) -> Value:
    """The leading axis as the first factor of the axis that was at this place without it."""
    if x.shape[axis + 1] == 1:
        return moved(tidy(Squeeze((axis + 1,)), x), 0, axis)
    return tidy(Group(tuple(2 if a == axis else 1 for a in range(x.rank - 1))), moved(x, 0, axis))


def many_of(x: Value, axis: int, size: Dim) -> Value:
    """Equal samples along an axis, before what was there."""
    if x.shape[axis] == 1:
        return repeat(x, [size if a == axis else 1 for a in range(x.rank)])
    return merged(repeated(x, size), axis)


def parted(x: Value, axis: int, size: Dim, many: Dim) -> Value:
    """The reverse of `merged`."""
    if many == 1:
        return tidy(Unsqueeze((axis + 1,)), moved(x, axis, 0))
    factors = tuple((-1, many) if a == axis else (-1,) for a in range(x.rank))
    return moved(tidy(Ungroup(factors), x), axis, 0)
