"""What the tables of ONNX ops are made of: entries from a word, shared steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from safegraph import value as v
from safegraph.derived.pointwise import (
    Broadcast,
)
from safegraph.dims import Dim
from safegraph.frontends.onnx.call import Call, Unsayable
from safegraph.op import Op
from safegraph.ops import BINARY, Binary, Unary
from safegraph.value import Value, apply

Row: TypeAlias = Callable[..., "Value | tuple[Value | None, ...]"]


def unary(kind: str) -> Row:
    """A core function of one number."""
    return lambda n, x: apply(Unary(kind), x)


def plain(op: Op) -> Row:
    """An op whose spec does not depend on the node."""
    return lambda n, *xs: apply(op, *xs)


def pointwise(kind: str, x: Value, y: Value) -> Value:
    """A function of two numbers: the core op where no operand is broadcast."""
    return apply(Binary(kind) if x.shape == y.shape and kind in BINARY else Broadcast(kind), x, y)


def binary(kind: str) -> Row:
    """A function of two numbers, with broadcasting."""
    return lambda n, x, y: pointwise(kind, x, y)


def variadic(kind: str) -> Row:
    """The same of any number of operands, from left to right."""

    def row(n: Call, first: Value, *rest: Value) -> Value:
        for y in rest:
            first = pointwise(kind, first, y)
        return first

    return row


def reduction(kind: str, before: Callable[[Value], Value] | None = None) -> Row:
    """A reduction, of a function of the operand."""

    def row(n: Call, x: Value, *_: Any) -> Value:
        boolean = {"max": "any", "min": "all"} if x.dtype == "bool" else {}
        return reduce_as(n, before(x) if before else x, boolean.get(kind, kind))

    return row


def scalar(x: Value, number: float | Dim) -> Value:
    """A number of the element type of x."""
    return v.scalar(number, x.dtype)


def reduce_as(n: Call, x: Value, kind: str) -> Value:
    """The reduction that a node asks for, of this kind."""
    axes = n.reduction_axes(x.rank)
    if kind not in ("sum", "prod", "any", "all") and any(x.shape[a] == 0 for a in axes):
        raise Unsayable  # the maximum of nothing
    return v.reduce(x, axes, kind, keep=bool(n.attribute("keepdims", 1)), as_written=True)


def square(x: Value) -> Value:
    """X * x"""
    return pointwise("multiply", x, x)
