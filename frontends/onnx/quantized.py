"""ONNX ops that round to few integers and back, as the arithmetic that they are."""

from __future__ import annotations

import numpy as np

from safegraph import value as v
from safegraph.derived.pointwise import Clip, Round
from safegraph.dtypes import is_integer, to_numpy
from safegraph.frontends.onnx.call import Call, Unsayable
from safegraph.frontends.onnx.entries import Row, pointwise
from safegraph.op import axis_of
from safegraph.value import Value, apply


def _along(n: Call, x: Value, numbers: Value) -> Value:
    """One number for all of x, or one for each place of an axis, to broadcast with it."""
    axis = n.attribute("axis", 1)
    if n.attribute("block_size", 0) or numbers.rank > 1:
        raise Unsayable
    if numbers.rank == 0 or numbers.shape == (1,):
        return numbers
    return v.unsqueeze(numbers, range(1, x.rank - axis_of(axis, x.rank)))


def _quantize(n: Call, x: Value, scale: Value, zero: Value | None = None) -> Value:
    """round(x / scale) + zero, at most the ends of the integer type; halves go to even numbers."""
    dtype = zero.dtype if zero is not None else "u8"
    if n.attribute("output_dtype", 0):
        dtype = n.dtype("output_dtype")
    if not is_integer(dtype) or n.attribute("precision", 0):
        raise Unsayable
    found = apply(Round(), pointwise("divide", v.cast(x, scale.dtype), _along(n, x, scale)))
    if zero is not None:
        found = pointwise("add", found, v.cast(_along(n, x, zero), found.dtype))
    ends = np.iinfo(to_numpy(dtype))
    return v.cast(apply(Clip(float(ends.min), float(ends.max)), found), dtype)


def _dequantize(n: Call, x: Value, scale: Value, zero: Value | None = None) -> Value:
    """(x - zero) scale"""
    if not is_integer(x.dtype) or n.attribute("output_dtype", 0):
        raise Unsayable
    found = v.cast(x, scale.dtype)
    if zero is not None:
        found = pointwise("subtract", found, v.cast(_along(n, x, zero), scale.dtype))
    return pointwise("multiply", found, _along(n, x, scale))


ROWS_IN: dict[str, Row] = {"QuantizeLinear": _quantize, "DequantizeLinear": _dequantize}
