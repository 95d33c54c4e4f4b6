"""What a TorchScript graph computes from sizes and constants, in Python: folded, never a node."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

from safegraph.dims import Size, at_least, divide, maximum, same
from safegraph.dtypes import is_float
from safegraph.errors import UnsupportedError
from safegraph.frontends.torchscript.types import to_number
from safegraph.ops import Scalar
from safegraph.value import Value


def fold(kind: str, arguments: Sequence[Any]) -> Any:
    """The result of an operation on numbers, sizes, texts and lists; else NotImplemented."""
    if kind in ABOUT and arguments and isinstance(arguments[0], Value):
        return ABOUT[kind](*arguments)
    if kind not in FOLDED:
        return NotImplemented
    plain = [_number(a) for a in arguments]
    if any(isinstance(a, Value) for a in plain):
        if kind in READING:
            raise UnsupportedError(
                "it reads the value of a tensor, which is not known before the run"
            )
        if kind not in LISTS:
            return NotImplemented
    return FOLDED[kind](*plain)


def _number(found: Any) -> Any:
    """The number in a tensor without axes that holds a known one."""
    return found.op.value if isinstance(found, Value) and isinstance(found.op, Scalar) else found


def _compare(
    numbers: Callable[[Any, Any], bool], sizes: Callable[[Any, Any], bool | None]
) -> Callable[..., bool]:
    def compare(a: Any, b: Any) -> bool:
        if not isinstance(a, Size) and not isinstance(b, Size):
            return bool(numbers(a, b))
        found = sizes(a, b)
        if found is None:
            raise UnsupportedError(
                f"it depends on the sizes {a} and {b}: give static shapes in inputs="
            )
        return found

    return compare


def _not(found: bool | None) -> bool | None:
    return None if found is None else not found


def _divided(a: Any, b: Any, rounding_mode: str | None = None) -> Any:
    if rounding_mode is not None:
        return a // b  # of sizes, which are not negative
    if not isinstance(a, Size) and not isinstance(b, Size):
        return a / b
    exact = divide(a, b) if isinstance(a, int | Size) and isinstance(b, int | Size) else None
    if exact is None:
        raise UnsupportedError(
            f"it divides the size {a} by {b} with a fraction: give static shapes in inputs="
        )
    return exact


def _real(function: Callable[[Any], Any]) -> Callable[..., Any]:
    def apply(x: Any) -> Any:
        if isinstance(x, Size):
            raise UnsupportedError(
                f"it computes with the size {x} as a real number: give static shapes in inputs="
            )
        return function(x)

    return apply


def _whole(x: Any) -> Any:
    return x if isinstance(x, Size) else int(x)


def _at(items: Any, index: Any) -> Any:
    return items[index]


def _append(items: list[Any], item: Any) -> list[Any]:
    items.append(item)
    return items


def _slice(items: Any, start: int | None = None, end: int | None = None, step: int = 1) -> Any:
    return items[slice(start, end, step)]


def _largest(a: Any, b: Any = None) -> Any:
    items = list(a) if b is None else [a, b]
    result = items[0]
    for item in items[1:]:
        sizes = isinstance(item, Size) or isinstance(result, Size)
        result = maximum(result, item) if sizes else max(result, item)
    return result


def _smallest(a: Any, b: Any = None) -> Any:
    items = list(a) if b is None else [a, b]
    result = items[0]
    for item in items[1:]:
        if isinstance(item, Size) or isinstance(result, Size):
            first, second = at_least(item, result), at_least(result, item)
            if not first and not second:
                raise UnsupportedError(
                    f"it takes the smaller of {result} and {item}: give static shapes in inputs="
                )
            result = result if first else item
        else:
            result = min(result, item)
    return result


def _clamp(x: Any, low: Any = None, high: Any = None) -> Any:
    x = x if low is None else _largest(x, low)
    return x if high is None else _smallest(x, high)


def _same_thing(a: Any, b: Any) -> bool:
    return a is b


_EQUAL = _compare(operator.eq, same)


def _size(x: Value, axis: int | None = None) -> Any:
    return list(x.shape) if axis is None else x.shape[axis]


# Nodes that put values together and take them apart.
STRUCTURE: dict[str, Callable[..., Any]] = {
    "prim::ListConstruct": lambda *items: list(items),
    "prim::TupleConstruct": lambda *items: list(items),
    "prim::DictConstruct": lambda *items: dict(zip(items[::2], items[1::2], strict=True)),
    "prim::ListUnpack": list,
    "prim::TupleUnpack": list,
    "prim::TupleIndex": _at,
    "prim::unchecked_cast": lambda x: x,
    "prim::NumToTensor": lambda x: x,
    "prim::Uninitialized": lambda: None,
    "aten::detach": lambda x: x,
    "aten::alias": lambda x: x,
    "prim::data": lambda x: x,
}
UNPACKING = {"prim::ListUnpack", "prim::TupleUnpack"}

READING = {
    "aten::Int", "aten::Float", "aten::Bool", "aten::IntImplicit", "aten::FloatImplicit",
    "aten::ScalarImplicit", "aten::item", "aten::is_nonzero", "aten::Complex", "aten::tolist",
}  # fmt: skip
LISTS = {
    "aten::len", "aten::__getitem__", "aten::append", "aten::__is__", "aten::__isnot__",
    "aten::list", "aten::slice.t",
}  # fmt: skip

# On numbers, sizes, texts and lists of them.
# fmt: off
FOLDED: dict[str, Callable[..., Any]] = {
    "aten::add":             lambda a, b, alpha=1: a + b * alpha if alpha != 1 else a + b,
    "aten::sub":             lambda a, b, alpha=1: a - b * alpha if alpha != 1 else a - b,
    "aten::rsub":            lambda a, b, alpha=1: b - a * alpha,
    "aten::mul":             operator.mul,
    "aten::div":             _divided,
    "aten::floordiv":        operator.floordiv,
    "aten::floor_divide":    operator.floordiv,
    "aten::remainder":       operator.mod,
    "aten::neg":             operator.neg,
    "aten::pow":             operator.pow,
    "aten::eq":              _EQUAL,
    "aten::ne":              lambda a, b: not _EQUAL(a, b),
    "aten::ge":              _compare(operator.ge, at_least),
    "aten::lt":              _compare(operator.lt, lambda a, b: _not(at_least(a, b))),
    "aten::le":              _compare(operator.le, lambda a, b: at_least(b, a)),
    "aten::gt":              _compare(operator.gt, lambda a, b: _not(at_least(b, a))),
    "aten::__not__":         operator.not_,
    "aten::__and__":         lambda a, b: a and b,
    "aten::__or__":          lambda a, b: a or b,
    "aten::__is__":          _same_thing,
    "aten::__isnot__":       lambda a, b: a is not b,
    "aten::__contains__":    lambda items, item: item in items,
    "aten::__getitem__":     _at,
    "aten::len":             len,
    "aten::append":          _append,
    "aten::list":            list,
    "aten::slice":           _slice,
    "aten::format":          lambda text, *items: text.format(*items),
    "aten::Int":             _whole,
    "aten::IntImplicit":     _whole,
    "aten::ScalarImplicit":  lambda x: x,
    "aten::item":            lambda x: x,
    "aten::Float":           _real(float),
    "aten::FloatImplicit":   _real(float),
    "aten::Bool":            bool,
    "aten::is_nonzero":      bool,
    "aten::sqrt":            _real(math.sqrt),
    "aten::ceil":            lambda x: x if isinstance(x, Size) else math.ceil(x),
    "aten::floor":           lambda x: x if isinstance(x, Size) else math.floor(x),
    "aten::max":             _largest,
    "aten::min":             _smallest,
    "aten::clamp":           _clamp,
    "aten::clamp_min":       _clamp,
    "aten::clamp_max":       lambda x, high: _clamp(x, None, high),
    "prim::max":             _largest,
    "prim::min":             _smallest,
    "aten::to":              lambda x, *_: x,
    "aten::clone":           lambda x, *_: x,
    "aten::is_grad_enabled": lambda: False,
    "aten::is_scripting":    lambda: True,
}

# What is asked of a tensor without its values.
ABOUT: dict[str, Callable[..., Any]] = {
    "aten::size":              _size,
    "aten::sym_size":          lambda x, axis: x.shape[axis],
    "aten::dim":               lambda x: x.rank,
    "aten::numel":             lambda x: x.type.numel,
    "aten::len":               lambda x: x.shape[0],
    "aten::is_floating_point": lambda x: is_float(x.dtype),
    "aten::is_complex":        lambda x: x.dtype.startswith("c"),
    "aten::__is__":            lambda x, y: x is y,
    "aten::__isnot__":         lambda x, y: x is not y,
    "prim::dtype":             lambda x: to_number(x.dtype),
    "prim::device":            lambda x: "cpu",
    "prim::layout":            lambda x: 0,
    "prim::is_cuda":           lambda x: False,
    "prim::is_quantized":      lambda x: False,
    "prim::is_mkldnn":         lambda x: False,
    "prim::is_nested":         lambda x: False,
    "prim::requires_grad":     lambda x: False,
    "aten::is_cuda":           lambda x: False,
}
# fmt: on
