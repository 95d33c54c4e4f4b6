"""Ops as ONNX nodes: one table, with one entry an op class, from one file a family.

An entry takes the writer, the slot that is written, its op and the slots of its operands, and gives
the ONNX value; None where ONNX (or its usual runtime) has no op for this spec or element type, and
the definition is written instead.
"""

from collections.abc import Callable
from typing import Any

from safegraph.frontends.onnx import (
    movement_out,
    pointwise_out,
    recurrent,
    resize,
    scatter,
    windows_out,
)

TABLE: dict[Any, Callable[..., Any]] = {
    **pointwise_out.ROWS,
    **windows_out.ROWS,
    **movement_out.ROWS,
    **recurrent.ROWS_OUT,
    **resize.ROWS_OUT,
    **scatter.ROWS_OUT,
}
