"""The marker of batch elimination: one sample of a value, and where in it the samples are.

A law of each op pushes the marker from its result to its operands; where it reaches an input, it is
that input for one sample, and where it reaches equal samples, it is one of them.  It is an op like
others, so that these laws are tested as all laws are; no graph that is written has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from safegraph.dims import Dim, Shape, divide, require_same
from safegraph.errors import ShapeError
from safegraph.op import Op, TensorType, axis_of


@dataclass(frozen=True)
class Place:
    """Where the batch is: a factor of an axis, of size outer * batch * inner in row-major order.

    The factor algebra is that of views of sharded tensors (PyTorch DTensor's `_view_ops`) and of
    Shardy's factors, with one factor that matters and a product on each side of it.
    """

    axis: int
    outer: Dim = 1
    inner: Dim = 1

    @property
    def whole(self) -> bool:
        """Is the axis the batch and nothing else?"""
        return self.outer == 1 and self.inner == 1

    @property
    def rest(self) -> Dim:
        """The size of the axis for one sample."""
        return self.outer * self.inner

    def at(self, axis: int) -> Place:
        """The same factor of another axis."""
        return Place(axis, self.outer, self.inner)


class Sample(Op):
    """n {t: outer size inner} c -> n {outer inner} c: one place of a factor of an axis

    The axis, of outer * size * inner elements, keeps those whose middle index is `index`; an axis
    that is nothing but this factor is dropped.
    """

    moves = True
    linear = (0,)
    axis: int
    outer: Dim
    size: Dim
    inner: Dim
    index: Dim

    @classmethod
    def of(cls, place: Place, size: Dim, index: Dim = 0) -> Sample:
        """The sample of a batch of this size at a place."""
        return cls(place.axis, place.outer, size, place.inner, index)

    @property
    def place(self) -> Place:
        """Where the samples are."""
        return Place(self.axis, self.outer, self.inner)

    def shape(self, x: Shape) -> Shape:
        axis = axis_of(self.axis, len(x))
        require_same(
            self.outer * self.size * self.inner,
            x[axis],
            f"the product of the factors of axis {axis}",
        )
        numbers = isinstance(self.index, int) and isinstance(self.size, int)
        if numbers and not 0 <= int(self.index) < int(self.size):
            raise ShapeError(f"there is no sample {self.index} of {self.size}")
        return sampled_shape(x, self.place.at(axis))

    def run(self, x: Any) -> Any:
        outer, size, inner = map(int, (self.outer, self.size, self.inner))
        front, after = x.shape[: self.axis], x.shape[self.axis + 1 :]
        picked = np.reshape(x, (*front, outer, size, inner, *after))
        picked = np.take(picked, int(self.index), axis=len(front) + 1)
        return np.reshape(picked, sampled_shape(x.shape, self.place))

    def normal(self, x: TensorType) -> Sample:
        axis = axis_of(self.axis, x.rank)
        return Sample(axis, self.outer, self.size, self.inner, self.index)

    def is_identity(self, x: TensorType) -> bool:
        return self.size == 1 and not self.place.whole

    @classmethod
    def draw(cls, rng: np.random.Generator, x: tuple[int, ...]) -> Sample | None:
        axes = [i for i, d in enumerate(x) if d]
        if not axes:
            return None
        axis = axes[int(rng.integers(len(axes)))]
        sizes = [d for d in range(1, x[axis] + 1) if x[axis] % d == 0]
        size = sizes[int(rng.integers(len(sizes)))] if rng.random() < 0.5 else x[axis]
        rest = x[axis] // size
        outers = [d for d in range(1, rest + 1) if rest % d == 0]
        outer = outers[int(rng.integers(len(outers)))]
        return cls(axis, outer, size, rest // outer, int(rng.integers(size)))


def sampled_shape(x: Shape, place: Place) -> Shape:
    """The shape of one sample."""
    kept = () if place.whole else (place.rest,)
    return (*x[: place.axis], *kept, *x[place.axis + 1 :])


def located(shape: Shape, inner: Dim, size: Dim) -> Place | None:
    """The place of a batch before which there are `inner` elements, in row-major order; or None.

    None where the axes of this shape do not align with it: samples would share an axis in an order
    that is no product of factors.
    """
    rest = inner
    for axis in range(len(shape) - 1, -1, -1):
        d = shape[axis]
        if rest != 1 and (quotient := divide(rest, d)) is not None:
            rest = quotient
        elif d != 1:
            outer = divide(d, size * rest)
            return None if outer is None else Place(axis, outer, rest)
    return None


__all__ = ["Place", "Sample", "located", "sampled_shape"]
