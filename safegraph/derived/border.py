"""Borders made of the elements of the axis itself: mirrored, the nearest, or round and round."""

from __future__ import annotations

from typing import Any

import numpy as np

from safegraph.derived.base import Derived, randomly
from safegraph.derived.index import Gather
from safegraph.dims import Dim, require_at_least
from safegraph.errors import ShapeError
from safegraph.op import TensorType, Work
from safegraph.value import Value, apply, binary, iota, select

MODES = ("reflect", "edge", "wrap")


class PadMode(Derived):
    """x with a border of its own elements, as in `numpy.pad`

    reflect: c b | a b c | b a; edge: a a | a b c | c c; wrap: b c | a b c | a b.  A border by
    reflection is shorter than the axis, one by wrapping no longer than it.
    """

    moves = True
    linear = (0,)
    before: tuple[Dim, ...]  # elements added at the front of each axis, >= 0
    after: tuple[Dim, ...]
    mode: str  # one of MODES

    def define(self, x: Value) -> Value:
        if self.mode not in MODES:
            raise ShapeError(f"there is no border {self.mode!r}; there are {', '.join(MODES)}")
        if not len(self.before) == len(self.after) == x.rank:
            raise ShapeError(f"borders {self.before} and {self.after} for {x.rank} axes")
        for axis, (low, high) in enumerate(zip(self.before, self.after, strict=True)):
            if low == 0 and high == 0:
                continue
            size = x.shape[axis]
            most = {"reflect": size - 1, "wrap": size}.get(self.mode)
            for border in (low, high):
                require_at_least(border, 0, f"the border of axis {axis}")
                if most is not None:
                    require_at_least(most, border, f"the border of axis {axis} of size {size}")
            if most is None:
                require_at_least(size, 1, f"axis {axis}")
            place = binary("subtract", iota(low + size + high), low)
            x = apply(Gather(axis), x, self._inside(place, size))
        return x

    def _inside(self, place: Value, size: Dim) -> Value:
        """The places on the axis whose elements stand at these, before it, on it and after it."""
        if self.mode == "edge":
            return binary("minimum", binary("maximum", place, 0), size - 1)
        if self.mode == "wrap":
            place = select(place < 0, place + size, place)
            return select(place < size, place, place - size)
        place = binary("maximum", place, -place)
        return binary("minimum", place, binary("subtract", 2 * (size - 1), place))

    def work(self, x: TensorType) -> Work:
        return Work()

    def run(self, x: Any) -> Any:
        mode: Any = self.mode  # one of the many texts that NumPy's stub lists
        widths = [(int(a), int(b)) for a, b in zip(self.before, self.after, strict=True)]
        return np.pad(x, widths, mode)

    @classmethod
    def draw(cls, rng: np.random.Generator, x: tuple[int, ...]) -> PadMode | None:
        mode = randomly(rng, MODES)
        most = [min(d - 1, 3) for d in x]
        if not most or min(most) < 0:
            return None
        before, after = (tuple(int(rng.integers(m + 1)) for m in most) for _ in range(2))
        return cls(before, after, mode)


PadMode.examples = tuple(
    (PadMode(before, after, mode), types)
    for mode in MODES
    for before, after, types in (((0, 2), (0, 1), "f32[2 4]"), ((1, 0), (0, 0), "i64[3 2]"))
)

__all__ = ["PadMode"]
