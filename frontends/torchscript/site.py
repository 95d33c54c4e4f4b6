"""Pieces of source, and a node's place in the source that is written."""

from __future__ import annotations

import ast
import math
from collections.abc import Sequence
from functools import cache, reduce
from typing import Any, Protocol

import numpy as np

from safegraph.dag import Node
from safegraph.dims import Dim, Shape, Size
from safegraph.dtypes import is_float, largest_number, to_numpy
from safegraph.op import Op, TensorType
from safegraph.ops import (
    Repeat,
    Scalar,
    Unsqueeze,
)


def text(value: Any) -> str:
    """A field of a spec as source."""
    match value:
        case bool() | None | str():
            return repr(value) if not isinstance(value, str) else f'"{value}"'
        case float():
            return repr(value) if math.isfinite(value) else f'float("{value}")'
        case tuple() | list():
            return f"[{', '.join(map(text, value))}]"
    return str(value) if isinstance(value, int) else _size(value)


class _Powers(ast.NodeTransformer):
    """h**2 as h*h (torch's power of integers is a float), and Max of many as max of two."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        self.generic_visit(node)
        if not isinstance(node.op, ast.Pow):
            return node
        assert isinstance(node.right, ast.Constant)
        factors: list[ast.expr] = [node.left] * int(node.right.value)  # type: ignore[arg-type]
        return reduce(lambda a, b: ast.BinOp(a, ast.Mult(), b), factors)

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        return reduce(lambda a, b: ast.Call(ast.Name("max"), [a, b], []), node.args)


@cache
def _size(value: Size) -> str:
    """A size as source; `write` gives the free sizes values, under their names."""
    return ast.unparse(_Powers().visit(ast.parse(str(value), mode="eval")))


def literal(value: Any, dtype: str) -> str:
    """A number of an element type."""
    if dtype == "bool":
        return str(bool(value))
    if isinstance(value, Size):
        return f"float({text(value)})" if is_float(dtype) else text(value)
    if not is_float(dtype):
        return str(int(value))
    # the largest f32 in its fewest digits, 3.4028235e+38, is a float that torch calls an overflow
    end = largest_number(dtype)
    if end < abs(value) < math.inf:
        with np.errstate(over="ignore"):
            value = float(to_numpy(dtype).type(value))
    return text(float(value))


def torch_name(dtype: str) -> str:
    """Torch's name of an element type."""
    from safegraph.frontends.torchscript.types import torch_dtype

    return str(torch_dtype(dtype))


def colon(start: Dim, stop: Dim | None, step: int = 1) -> str:
    """A slice of one axis."""
    first = "" if start == 0 else text(start)
    last = "" if stop is None else text(stop)
    return f"{first}:{last}" + (f":{step}" if step != 1 else "")


def sliced(x: str, parts: Sequence[str]) -> str:
    """x[...]; x itself where all of it is taken."""
    return f"{x}[{', '.join(parts)}]" if any(p != ":" for p in parts) else x


class Body(Protocol):
    """The function that is being written."""

    producers: dict[str, Node]
    types: dict[str, TensorType]

    def variable(self, name: str) -> str:
        """The variable of a value, which is thereby needed."""
        ...

    def device(self) -> str:
        """Where new tensors are made."""
        ...

    def call(self, node: Node, source: str) -> str:
        """The variable of a call whose results are several nodes."""
        ...


class Site:
    """A node and what is around it, as rows see it."""

    def __init__(self, body: Body, node: Node) -> None:
        self.body = body
        self.node = node
        self.names = node.inputs
        self.types = [body.types[i] for i in node.inputs]
        self.out = body.types[node.name]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> str:
        """The variable of an operand."""
        return self.body.variable(self.names[i])

    @property
    def all(self) -> list[str]:
        """The variables of the operands."""
        return [self[i] for i in range(len(self))]

    def call(self, source: str) -> str:
        """The variable of a call that other nodes may have results of, too."""
        return self.body.call(self.node, source)

    def optional(self, i: int) -> str:
        """The variable of an operand that may be missing."""
        return self[i] if i < len(self) else "None"

    def producer(self, name: str, kind: type[Op]) -> tuple[Any, tuple[str, ...]] | None:
        """The op of this class that computes a value, and its operands."""
        node = self.body.producers.get(name)
        return (node.op, node.inputs) if node is not None and isinstance(node.op, kind) else None

    def before_broadcast(self, name: str) -> str:
        """A value before it is repeated and gets axes in front: torch's broadcasting does that."""
        while True:
            found = self.producer(name, Repeat) or self.producer(name, Unsqueeze)
            if found is None:
                return name
            op, (inner,) = found
            if isinstance(op, Unsqueeze) and op.axes != tuple(range(len(op.axes))):
                return name
            name = inner

    def broadcastable(self) -> list[str]:
        """The operands as small as torch's broadcasting allows for the result's shape."""
        found = list(self.names)
        for i in range(len(found)):
            tried = [*found[:i], self.before_broadcast(found[i]), *found[i + 1 :]]
            if _broadcast([self.body.types[n].shape for n in tried]) == self.out.shape:
                found = tried
        return found

    def is_filled(self, name: str, value: float) -> bool:
        """Is a value this number, repeated?"""
        found = self.producer(self.before_broadcast(name), Scalar)
        return found is not None and found[0].value == value

    def number(self, name: str) -> str | None:
        """The source of a value that is a known number."""
        found = self.producer(name, Scalar)
        return literal(found[0].value, found[0].of) if found else None

    @property
    def place(self) -> str:
        """Element type and device of the result, for operations that make a tensor."""
        return f"dtype={torch_name(self.out.dtype)}, device={self.body.device()}"


def _broadcast(shapes: Sequence[Shape]) -> Shape:
    """The shape that broadcasting gives, or () where sizes differ."""
    found: list[Dim] = []
    for i in range(-max(map(len, shapes)), 0):
        sizes = {s[i] for s in shapes if len(s) >= -i} - {1}
        if len(sizes) > 1:
            return (-1,)
        found.append(sizes.pop() if sizes else 1)
    return tuple(found)
