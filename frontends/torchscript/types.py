"""Element types and arrays, between torch and SafeGraph; torch's type promotion."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from safegraph.dims import Size
from safegraph.dtypes import to_numpy
from safegraph.errors import FormatError
from safegraph.op import TensorType
from safegraph.value import Value

_TORCH = {
    "bool": torch.bool, "u8": torch.uint8, "i8": torch.int8, "i16": torch.int16, "i32": torch.int32,
    "i64": torch.int64, "u16": torch.uint16, "u32": torch.uint32, "u64": torch.uint64,
    "f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32, "f64": torch.float64,
    "c64": torch.complex64, "c128": torch.complex128,
    "f8e4m3": torch.float8_e4m3fn, "f8e5m2": torch.float8_e5m2,
}  # fmt: skip
_SHORT = {dtype: short for short, dtype in _TORCH.items()}

# How a graph writes an element type: as a number (c10::ScalarType).
_NUMBERS = {
    0: "u8", 1: "i8", 2: "i16", 3: "i32", 4: "i64", 5: "f16", 6: "f32", 7: "f64", 9: "c64",
    10: "c128", 11: "bool", 15: "bf16", 23: "f8e5m2", 24: "f8e4m3", 27: "u16", 28: "u32", 29: "u64",
}  # fmt: skip
_BY_SHORT = {short: number for number, short in _NUMBERS.items()}

# torch.from_numpy knows no ml_dtypes: their bits travel as integers of the same width.
_CARRIERS = {"bf16": torch.int16, "f8e4m3": torch.int8, "f8e5m2": torch.int8}


INPUT_TYPES = "safegraph_inputs"
"""The attribute of a written module that says the types of its inputs."""


def torch_dtype(short: str) -> torch.dtype:
    """Torch's element type of a short name."""
    return _TORCH[short]


def dtype_of(tensor: torch.Tensor) -> str:
    """The short name of a tensor's element type."""
    return short_name(tensor.dtype)


def short_name(dtype: torch.dtype) -> str:
    """The short name of torch's element type."""
    if dtype not in _SHORT:
        raise FormatError(f"tensors of {dtype} are not supported; there are {', '.join(_TORCH)}")
    return _SHORT[dtype]


def from_number(number: int) -> str:
    """The short name of the number by which a graph writes an element type."""
    if number not in _NUMBERS:
        raise FormatError(
            f"the graph names the element type number {number}, which is not supported"
        )
    return _NUMBERS[number]


def to_number(short: str) -> int:
    """The number by which a graph writes an element type."""
    return _BY_SHORT[short]


def type_of(tensor: torch.Tensor) -> TensorType:
    """The type of a tensor."""
    return TensorType(dtype_of(tensor), tuple(tensor.shape))


def to_array(tensor: torch.Tensor) -> np.ndarray:
    """The elements as a NumPy array, sharing memory where the tensor lies in main memory."""
    short = dtype_of(tensor)
    plain = tensor.detach().cpu().resolve_conj().resolve_neg()
    if short in _CARRIERS:
        return plain.contiguous().view(_CARRIERS[short]).numpy().view(to_numpy(short))
    return plain.numpy()


def to_tensor(array: np.ndarray, short: str) -> torch.Tensor:
    """A tensor with a copy of the elements."""
    if short in _CARRIERS:
        carrier = to_numpy({torch.int16: "i16", torch.int8: "i8"}[_CARRIERS[short]])
        return torch.from_numpy(np.array(array, order="C").view(carrier)).view(_TORCH[short])
    return torch.from_numpy(np.array(array, order="C"))


def promoted(*operands: Any) -> str:
    """The element type in which torch computes on values, numbers and sizes (integers)."""
    stand_ins = [_stand_in(o) for o in operands]
    dtype = (
        torch.result_type(stand_ins[0], stand_ins[1]) if len(stand_ins) == 2 else stand_ins[0].dtype
    )
    return short_name(dtype)


def _stand_in(operand: Any) -> Any:
    """What torch's promotion sees: element type, and whether there are axes, or a Python number."""
    if isinstance(operand, Value):
        return torch.empty((1,) * min(operand.rank, 1), dtype=_TORCH[operand.dtype], device="meta")
    return 1 if isinstance(operand, Size) else operand
