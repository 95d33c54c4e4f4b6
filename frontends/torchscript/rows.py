"""What the rows of all tables need: element types and torch's type promotion."""

from __future__ import annotations

from typing import Any

import torch

from safegraph import value as v
from safegraph.derived.pointwise import (
    Broadcast,
)
from safegraph.dims import Dim, Size
from safegraph.dtypes import is_float
from safegraph.errors import FormatError
from safegraph.frontends.torchscript.types import from_number, promoted, short_name
from safegraph.ops import BINARY, Binary, Scalar
from safegraph.value import Value, apply, scalar


def as_type(x: Any, dtype: str) -> Value:
    """A value, or a number, in an element type."""
    if isinstance(x, Value):
        return scalar(x.op.value, dtype) if isinstance(x.op, Scalar) else v.cast(x, dtype)
    return scalar(x, dtype)


def real(x: Value) -> Value:
    """As torch does before functions of real numbers: integers become the default type."""
    return (
        x
        if is_float(x.dtype) or x.dtype.startswith("c")
        else as_type(x, short_name(torch.get_default_dtype()))
    )


def as_asked(x: Value, dtype: int | None) -> Value:
    """In the element type of an optional argument `dtype`."""
    return x if dtype is None else v.cast(x, from_number(dtype))


def binary(kind: str, x: Any, y: Any, dtype: str | None = None) -> Value:
    """A function of two operands in their promoted type, broadcast where their shapes differ."""
    dtype = dtype or promoted(x, y)
    a, b = as_type(x, dtype), as_type(y, dtype)
    return apply(Binary(kind) if kind in BINARY and a.shape == b.shape else Broadcast(kind), a, b)


def truth(x: Any) -> Any:
    """As a condition: a number is true where it is not 0."""
    return x if not isinstance(x, Value) or x.dtype == "bool" else binary("not_equal", x, 0)


def asked(dtype: int | None, default: str) -> str:
    """The element type that an optional argument names."""
    return default if dtype is None else from_number(dtype)


def as_list(axes: Any) -> tuple[int, ...]:
    """One number as a list of one."""
    return (axes,) if isinstance(axes, int) else tuple(axes)


def known(size: Dim, what: str) -> int:
    """A size that must be a number; FormatError where it is free."""
    if isinstance(size, Size):
        raise FormatError(f"{what} must be known, it is {size}: give a static size in inputs=")
    return size


def given(*operands: Value | None) -> list[Value]:
    """The operands that there are."""
    return [o for o in operands if o is not None]
