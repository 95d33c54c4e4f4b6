"""Values that depend on nothing: scalars and ranges; and operations that no table knows."""

from __future__ import annotations

from typing import Any

import numpy as np

from safegraph.dims import Dim, Shape, Size, at_least
from safegraph.dtypes import is_float, require_number, to_numpy
from safegraph.errors import ShapeError, UnsupportedError
from safegraph.op import Op, TensorType


class Scalar(Op):
    """one number, or one size as a number"""

    value: float | Dim
    of: str  # the element type

    def shape(self) -> Shape:
        return ()

    def dtype(self) -> str:
        to_numpy(self.of)
        if not isinstance(self.value, Size):
            require_number(self.value, self.of)
        return self.of

    def normal(self) -> Scalar:
        """A number of the element type's own kind: 0.0 for f32, where 0 was written."""
        if isinstance(self.value, Size) or self.of.startswith("c"):
            return self
        kind = float if is_float(self.of) else bool if self.of == "bool" else int
        return Scalar(kind(self.value), self.of)

    def run(self) -> Any:
        return np.asarray(self.value, to_numpy(self.of))

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Scalar:
        return cls(float(rng.standard_normal()), "f64")


class Iota(Op):
    """0, 1, 2, ..., size - 1"""

    size: Dim
    of: str  # the element type

    def shape(self) -> Shape:
        if at_least(self.size, 0) is False:
            raise ShapeError(f"a range cannot have {self.size} elements")
        return (self.size,)

    def dtype(self) -> str:
        to_numpy(self.of)
        return self.of

    def run(self) -> Any:
        return np.arange(self.size).astype(to_numpy(self.of))  # type: ignore[arg-type]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Iota:
        return cls(int(rng.integers(0, 6)), "i64")


class Opaque(Op):
    """an operation of a format that no table knows, carried along unchanged"""

    format: str  # "onnx", "torchscript", ...
    kind: str  # its name there, with the domain: "com.example::Foo", "aten::foo"
    attributes: tuple[tuple[str, Any], ...]
    result: int  # which of its results this is
    out: TensorType  # from the file, or from shape inference of its format

    def shape(self, *operands: Shape) -> Shape:
        return self.out.shape

    def dtype(self, *operands: str) -> str:
        return self.out.dtype

    def run(self, *arrays: Any) -> Any:
        raise UnsupportedError(
            f"{self.kind} ({self.format}) has no meaning here and cannot be evaluated"
        )

    @classmethod
    def draw(cls, rng: np.random.Generator, *shapes: tuple[int, ...]) -> None:
        return None
