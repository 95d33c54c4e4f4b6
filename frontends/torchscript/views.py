"""Views that are written to: the tensor that they are a part of, with the part replaced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from safegraph import value as v
from safegraph.derived.scatter import ScatterElements
from safegraph.derived.shape import Concat
from safegraph.dims import Dim, Size
from safegraph.frontends.torchscript.rows_shape import ends
from safegraph.op import axis_of
from safegraph.value import Value, apply


@dataclass(frozen=True)
class View:
    """Places of an axis of another value of the graph, at a step, or one place without its axis."""

    of: str
    axis: int
    first: Dim
    stop: Dim
    dropped: bool
    step: int = 1

    def replaced(self, whole: Value, part: Value) -> Value:
        """The whole with another part in its place."""
        part = v.unsqueeze(part, [self.axis]) if self.dropped else part
        if self.step != 1:
            return self._written_between(whole, part)
        size = whole.shape[self.axis]
        before = [v.slice_axis(whole, self.axis, 0, self.first)] if self.first != 0 else []
        after = [v.slice_axis(whole, self.axis, self.stop, size)] if self.stop != size else []
        pieces = [*before, part, *after]
        return apply(Concat(self.axis), *pieces) if len(pieces) > 1 else part

    def _written_between(self, whole: Value, part: Value) -> Value:
        places = v.iota(part.shape[self.axis]) * self.step + self.first
        places = v.unsqueeze(places, [i for i in range(part.rank) if i != self.axis])
        return apply(ScatterElements(self.axis), whole, v.expand(places, part.shape), part)


def view(kind: str, of: str, arguments: Sequence[Any]) -> View | None:
    """What an operation takes a view of, for slices and single places."""
    if kind == "aten::slice":
        step = arguments[4] if len(arguments) > 4 else 1
        return View(of, *ends(*arguments[:4]), dropped=False, step=step)
    if kind == "aten::select" and isinstance(arguments[2], int | Size):
        x, dim, place = arguments
        axis = axis_of(dim, x.rank)
        first = x.shape[axis] + place if isinstance(place, int) and place < 0 else place
        return View(of, axis, first, first + 1, dropped=True)
    return None
