"""The core reduction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from safegraph.dims import Shape
from safegraph.dtypes import accumulator, from_numpy, to_numpy
from safegraph.errors import ShapeError
from safegraph.op import Op, TensorType, Work, axes_of

REDUCTIONS: dict[str, Callable[..., Any]] = {
    "sum": np.sum,
    "mean": np.mean,
    "prod": np.prod,
    "max": np.max,
    "min": np.min,
    "any": np.any,
    "all": np.all,
}


class Reduce(Op):
    """n {c: 1} h w -> n 1 h w | mean"""

    axes: tuple[int, ...]
    kind: str

    def shape(self, x: Shape) -> Shape:
        if self.kind not in REDUCTIONS:
            raise ShapeError(
                f"there is no reduction {self.kind!r}; there are {', '.join(REDUCTIONS)}"
            )
        axes = axes_of(self.axes, len(x))
        return tuple(1 if i in axes else d for i, d in enumerate(x))

    def dtype(self, x: str) -> str:
        if self.kind in ("any", "all") and x != "bool":
            raise ShapeError(f"{self.kind} needs bool, not {x}")
        return x

    @property
    def linear(self) -> tuple[int, ...]:
        """Sums and means are linear."""
        return (0,) if self.kind in ("sum", "mean") else ()

    def run(self, x: Any) -> Any:
        wide = to_numpy(accumulator(from_numpy(x.dtype)))
        with np.errstate(all="ignore"):
            return REDUCTIONS[self.kind](
                x.astype(wide, copy=False), axis=self.axes, keepdims=True
            ).astype(x.dtype)

    def work(self, x: TensorType) -> Work:
        out = self.type(x).numel
        return Work(reduce=x.numel - out, elementwise=out if self.kind == "mean" else 0)

    def pseudo_inverse(self, x: Shape) -> Op | None:
        from safegraph.ops.movement import Repeat

        if self.kind in ("sum", "prod"):  # these grow with what is repeated
            return None
        return Repeat(tuple(d if i in axes_of(self.axes, len(x)) else 1 for i, d in enumerate(x)))

    def normal(self, x: TensorType) -> Reduce:
        return Reduce(axes_of(self.axes, x.rank), self.kind)

    def is_identity(self, x: TensorType) -> bool:
        return all(x.shape[a] == 1 for a in self.axes)

    @classmethod
    def draw(cls, rng: np.random.Generator, x: tuple[int, ...]) -> Reduce:
        axes = tuple(i for i in range(len(x)) if rng.random() < 0.5)
        return cls(axes, str(rng.choice(["sum", "mean", "prod", "max", "min"])))
