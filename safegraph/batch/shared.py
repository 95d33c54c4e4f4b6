"""What has no batch of its own, but meets one: is it the same for all samples, or their number?

This is asked backwards, from a value to the constants and sizes that it is made of.
"""

from __future__ import annotations

from collections.abc import Collection, Generator

import numpy as np

from safegraph.dag import Tensor
from safegraph.derived.base import Derived
from safegraph.derived.pointwise import Broadcast
from safegraph.derived.shape import Concat, Expand, Index, Reshape
from safegraph.dims import Dim
from safegraph.dtypes import is_integer
from safegraph.op import Op
from safegraph.ops import Binary, Cast, Iota, Permute, Repeat, Scalar, Squeeze, Unsqueeze
from safegraph.ops.sample import Place, Sample
from safegraph.ranges import Range, of_array, range_of
from safegraph.rules.batch import Counting, pull
from safegraph.value import Value, apply, expand, scalar, tensor, walk

_COUNTS = (Unsqueeze, Squeeze, Repeat, Expand, Permute, Cast, Reshape, Index)
"""Ops of which a count of the samples stays one."""
_NUMBERS = ("i32", "i64", "u32", "u64", "f32", "f64")
"""Element types in which it stays one however many samples there are: bool has two numbers."""
_PARTS = (Unsqueeze, Squeeze, Permute, Reshape, Index)
"""Ops that exporters leave on the constants that hold the places of a write."""


def _source(value: Value) -> Value:
    """The constant of which this is a part or view."""
    while value.op is not None:
        (value,) = value.operands
    return value


class Shared:
    """Values without a batch, of a graph with these leaves, for a batch of this size.

    `leaves` grows: one sample of a constant is a constant, under a name that is not `taken`.
    """

    def __init__(self, leaves: dict[Value, Tensor], taken: Collection[str], size: Dim) -> None:
        self.leaves, self.taken, self.size = leaves, taken, size
        self._equal: dict[tuple[Value, Place], Value | None] = {}

    # -- equal samples ----------------------------------------------------------------------------

    def equal(self, value: Value, place: Place) -> Value | None:
        """One sample of a value that is equal for all of them; None where it is not."""
        stack = [self._equal_steps(value, place)]
        answer: Value | None = None
        while stack:
            try:
                asked = stack[-1].send(answer)
            except StopIteration as done:
                answer = done.value
                stack.pop()
                continue
            stack.append(self._equal_steps(*asked))
            answer = None  # what a generator is started with
        return answer

    def _equal_steps(
        self, value: Value, place: Place
    ) -> Generator[tuple[Value, Place], Value | None, Value | None]:
        """The answer; each value that is asked of on the way is sent back as its own."""
        key = (value, place)
        if key in self._equal:
            return self._equal[key]
        self._equal[key] = None  # a value is no part of itself
        found = self._slice(value, place)
        part = _part_of_joined(value)
        if found is None and part is not value:
            found = yield part, place
        elif found is None and value.op is not None:
            op, operands = value.op, value.operands
            for way in pull(op, tuple(o.type for o in operands), place, self.size):
                samples: list[Value] = []
                for need, operand in zip(way.needs, operands, strict=True):
                    if isinstance(need, Counting):
                        break
                    one = operand if need is None else (yield operand, need)
                    if one is None:
                        break
                    samples.append(one)
                else:
                    found = way.build(*samples)
                    break
            if found is None and isinstance(op, Derived):
                opened = op.define(*operands)
                found = (yield opened, place) if opened is not value else None
        self._equal[key] = found
        return found

    def _slice(self, value: Value, place: Place) -> Value | None:
        """One sample of a constant all of whose samples are equal."""
        shape = value.shape
        if not isinstance(self.size, int) or place.axis >= len(shape):
            return None
        if shape[place.axis] != self.size * place.rest or (array := self._array(value)) is None:
            return None
        first, *others = (Sample.of(place, self.size, k).run(array) for k in range(self.size))
        if any(other.tobytes() != first.tobytes() for other in others):  # 0 and -0 are not the same
            return None
        return self._part(value, place, first)

    def _part(self, value: Value, place: Place, array: np.ndarray) -> Value:
        """One sample of a constant, as a constant."""
        t = self.leaves[_source(value)]
        small = value.type.with_shape(array.shape)
        name = f"{t.name}.{place.axis}.{place.outer}"
        while name in self.taken or self._is_another(tensor(name, small), array):
            name += "_"
        found = tensor(name, small)
        self.leaves[found] = Tensor(name, t.kind, small, array)
        return found

    def _is_another(self, leaf: Value, array: np.ndarray) -> bool:
        """Is there such a leaf already, with other numbers?"""
        data = self._data(leaf)
        return data is not None and data.tobytes() != array.tobytes()

    # -- the number of the sample -----------------------------------------------------------------

    def counts_by(self, value: Value, axis: int) -> int | None:
        """By how much a value counts the samples along this axis, which is the batch.

        1 where each element is the number of its sample, 5 where it is 5 times that; None for other
        values.
        """
        factor = 1
        while not isinstance(value.op, Iota):
            value = _part_of_joined(value)
            array = self._array(value)
            if array is not None:
                found = self._array_counts_by(array, axis)
                return None if found is None else factor * found
            if value.op is None or value.dtype not in _NUMBERS:
                return None
            multiplied = self._multiplied(value, axis)
            if multiplied is not None:
                value, axis, times = multiplied
                factor *= times
                continue
            if not isinstance(value.op, _COUNTS):
                return None
            ways = pull(value.op, tuple(o.type for o in value.operands), Place(axis), self.size)
            place = next((w.needs[0] for w in ways if isinstance(w.needs[0], Place)), None)
            if place is None or not place.whole:
                return None
            value, axis = value.operands[0], place.axis
        return factor if value.shape == (self.size,) and value.dtype in _NUMBERS else None

    def first_row(self, value: Value, axis: int, block: int) -> Value | None:
        """The first along this axis of integers that are `block` more for each next sample."""
        if not is_integer(value.dtype):
            return None
        array = self._array(value)
        if array is None:
            if self.counts_by(value, axis) != block:
                return None
            shape = (*value.shape[:axis], *value.shape[axis + 1 :])
            return expand(scalar(0, value.dtype), shape)
        rows = np.moveaxis(array, axis, 0)
        number = np.arange(len(rows)).reshape(-1, *[1] * (array.ndim - 1))
        if len(rows) != self.size or (rows != rows[:1] + block * number).any():
            return None
        return self._part(value, Place(axis), np.array(rows[0]))

    def _multiplied(self, value: Value, axis: int) -> tuple[Value, int, int] | None:
        """The operand that has the numbers, where they are along it, and what multiplies them."""
        if value.op not in (Binary("multiply"), Broadcast("multiply")):
            return None
        for own, other in (value.operands, value.operands[::-1]):
            at = axis - value.rank + own.rank
            times = self._integer(other)
            if times is not None and at >= 0 and own.shape[at] == self.size:
                return own, at, times
        return None

    def _integer(self, value: Value) -> int | None:
        """The whole number that all elements are; None where that cannot be told."""
        while isinstance(value.op, Unsqueeze | Squeeze | Repeat | Expand | Reshape):
            (value,) = value.operands
        if not is_integer(value.dtype):
            return None
        if isinstance(value.op, Scalar):
            return value.op.value if isinstance(value.op.value, int) else None
        data = self._data(value)
        if data is None or not data.size or (data != data.flat[0]).any():
            return None
        return int(data.flat[0])

    def _array_counts_by(self, array: np.ndarray, axis: int) -> int | None:
        if array.dtype.kind not in "iuf" or array.shape[axis] != self.size:
            return None
        if not array.size or not np.isfinite(array).all():
            return None
        rows = np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)
        found = int(rows[1, 0] - rows[0, 0]) if len(rows) > 1 else 1
        return found if (rows == found * np.arange(len(rows))[:, None]).all() else None

    def range_of(self, value: Value) -> Range:
        """Between which numbers the elements are, for all inputs."""
        known: dict[str, Range] = {}
        for leaf in walk([value]):
            data = self._data(leaf) if leaf.op is None and is_integer(leaf.dtype) else None
            found = None if data is None else of_array(data)
            known |= {} if found is None else {leaf.name: found}
        return range_of(value, known)

    def _array(self, value: Value) -> np.ndarray | None:
        """The numbers of a constant, or of a part or view of one that holds indices."""
        views: list[Op] = []
        while isinstance(value.op, _PARTS) and is_integer(value.dtype):
            views.append(value.op)
            (value,) = value.operands
        found = self._data(value) if value.op is None else None
        for view in reversed(views):
            found = None if found is None else view.run(found)
        return found

    def _data(self, leaf: Value) -> np.ndarray | None:
        """The numbers of a constant or parameter; None for inputs, and where there are none."""
        t = self.leaves.get(leaf)
        return None if t is None or t.kind == "input" or t.data is None else t.array()


def _part_of_joined(value: Value) -> Value:
    """Where one place of a concatenation is picked, the same of the part that has it.

    Exporters join the indices of a write, one for each axis, and each is then picked again.
    """
    op, joined = value.op, value.operands[0] if value.operands else None
    if not isinstance(op, Index) or joined is None or not isinstance(joined.op, Concat):
        return value
    at = op.at
    if op.axis != joined.op.axis or not isinstance(at, int) or at < 0:
        return value
    for part in joined.operands:
        size = part.shape[op.axis]
        if not isinstance(size, int):
            return value
        if at < size:
            return apply(Index(op.axis, at), part)
        at -= size
    return value


__all__ = ["Shared"]
