"""Element types, by short names: `f32`, `i64`, ...; NumPy's, with ml_dtypes for bf16 and fp8."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from safegraph.errors import ShapeError, SpecError

_NUMPY = {
    "bool": "bool", "i8": "int8", "i16": "int16", "i32": "int32", "i64": "int64",
    "u8": "uint8", "u16": "uint16", "u32": "uint32", "u64": "uint64",
    "f16": "float16", "f32": "float32", "f64": "float64", "c64": "complex64", "c128": "complex128",
}  # fmt: skip
_ML = {"bf16": "bfloat16", "f8e4m3": "float8_e4m3fn", "f8e5m2": "float8_e5m2"}

DTYPES = (*_NUMPY, *_ML)


@cache
def to_numpy(name: str) -> np.dtype:
    """The NumPy dtype of a short name.

    >>> to_numpy("f32")
    dtype('float32')
    """
    if name in _NUMPY:
        return np.dtype(_NUMPY[name])
    if name in _ML:
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, _ML[name]))
    raise ShapeError(f"{name!r} is no element type; there are {', '.join(DTYPES)}")


@cache
def from_numpy(dtype: np.dtype | type) -> str:
    """The short name of a NumPy dtype.

    >>> from_numpy(np.dtype("int64"))
    'i64'
    """
    name = np.dtype(dtype).name
    for table in (_NUMPY, _ML):
        for short, long in table.items():
            if long == name:
                return short
    raise ShapeError(f"arrays of {name} are not supported; there are {', '.join(DTYPES)}")


def itemsize(name: str) -> int:
    """Bytes of one element."""
    return to_numpy(name).itemsize


def is_float(name: str) -> bool:
    """Is it a floating-point type?"""
    return name.startswith(("f", "bf"))


def is_integer(name: str) -> bool:
    """Is it a signed or unsigned integer type?"""
    return name[0] in "iu"


def require_number(value: float, name: str) -> None:
    """Raise SpecError where an integer type has no such number: it would wrap, or be no number.

    >>> require_number(255, "u8")
    >>> require_number(-1, "u8")
    Traceback (most recent call last):
    safegraph.errors.SpecError: u8 has no number -1: it has 0 to 255
    """
    if not is_integer(name):
        return
    limits = np.iinfo(to_numpy(name))
    if not limits.min <= value <= limits.max:  # so NaN fails too
        raise SpecError(f"{name} has no number {value}: it has {limits.min} to {limits.max}")


@cache
def precision(name: str) -> float:
    """The distance from 1 to the next number of a floating-point type.

    >>> precision("f32") == 2**-23
    True
    """
    return float(_limits(name).eps)


@cache
def largest_number(name: str) -> float:
    """The largest finite number of a floating-point type.

    >>> largest_number("f16")
    65504.0
    """
    return float(_limits(name).max)


def _limits(name: str) -> Any:
    if name in _NUMPY:
        return np.finfo(to_numpy(name))
    import ml_dtypes

    return ml_dtypes.finfo(to_numpy(name))


def accumulator(name: str) -> str:
    """The type in which sums and products of this type are accumulated."""
    return "f32" if name in ("f16", "bf16", "f8e4m3", "f8e5m2") else name
