"""ONNX ops as terms: one table, with one entry an op, from one file a family.

An entry takes the `Call` and its operands and gives the value, or a tuple with one value a result.
It raises `Unsayable` where no ops say what the node does; the node then becomes Opaque.
"""

from safegraph.frontends.onnx import (
    movement_in,
    pointwise_in,
    quantized,
    recurrent,
    resize,
    scatter,
    windows_in,
)
from safegraph.frontends.onnx.entries import Row

TABLE: dict[str, Row] = {
    **pointwise_in.ROWS,
    **windows_in.ROWS,
    **movement_in.ROWS,
    **quantized.ROWS_IN,
    **recurrent.ROWS_IN,
    **resize.ROWS_IN,
    **scatter.ROWS_IN,
}
