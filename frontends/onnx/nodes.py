"""What the tables of ops as ONNX nodes are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from safegraph.dims import Dim
from safegraph.dtypes import is_float
from safegraph.op import Op

if TYPE_CHECKING:
    from safegraph.frontends.onnx.writer import Slot, Writer


def plain(name: str, **attributes: str) -> Callable[..., Any]:
    """The ONNX op of this name, for floating-point operands; attributes are fields of the op."""

    def row(w: Writer, slot: Slot, op: Op, *xs: Slot) -> ir.Value | None:
        if not is_float(xs[0].type.dtype):
            return None
        return w(name, *xs, **{key: getattr(op, field) for key, field in attributes.items()})

    return row


def vector(values: Sequence[int]) -> np.ndarray:
    """Integers as an operand."""
    return np.asarray(values, np.int64)


def padded(
    w: Writer,
    x: Slot | ir.Value,
    dtype: str,
    before: Sequence[Dim],
    after: Sequence[Dim],
    fill: float,
) -> ir.Value:
    """A value with a border of one number."""
    return w("Pad", x, w.vector([*before, *after]), w.number(fill, dtype))
