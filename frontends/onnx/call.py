"""One ONNX node that is being read: what the tables ask of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from safegraph import dims
from safegraph.dims import Dim, Size
from safegraph.dtypes import from_numpy
from safegraph.errors import UnsupportedError
from safegraph.frontends.onnx.known import Known
from safegraph.value import Value

END = 10**9  # a stop from here on means the end of the axis: exporters write many large numbers
HARMLESS = frozenset({
    "kernel_shape",      # of a convolution: that of its weight
    "momentum", "ratio", "seed", "is_test", "storage_order",  # of training, and of indices
    "stash_type",        # sums are as exact as f32 or better here
    "saturate",          # of 8-bit floating point
    "consumed_inputs",   # of opsets 1 to 5
})  # fmt: skip


class Unsayable(Exception):
    """No ops here say what this node does; it becomes Opaque."""


class Call:
    """A node, its operands as values (None where one is left out), and what is known of them."""

    def __init__(
        self,
        node: ir.Node,
        version: int,
        operands: Sequence[Value | None],
        knowns: Mapping[str, Known],
        constants: Mapping[str, ir.TensorProtocol],
        used: Sequence[bool],
    ) -> None:
        self.node = node
        self.op = node.op_type
        self.domain = node.domain
        self.version = version
        self.operands = tuple(operands)
        self.used = tuple(used)  # which results something needs
        self.read: set[str] = set()  # the attributes that were asked for
        self._knowns = knowns
        self._constants = constants

    # -- attributes and constant operands ---------------------------------------------------------

    def attribute(self, name: str, default: Any) -> Any:
        """The value of an attribute."""
        self.read.add(name)
        found = self.node.attributes.get(name)
        if found is None:
            return default
        if found.type == ir.AttributeType.FLOAT:  # f32: 1e-5, not 9.999999747378752e-06
            return float(str(np.float32(found.value)))
        return found.value

    def overlooked(self) -> set[str]:
        """The attributes that nothing asked for, and that may change what the node computes."""
        return set(self.node.attributes) - self.read - HARMLESS

    def dtype(self, name: str) -> str:
        """An attribute that is an element type."""
        return dtype_name(ir.DataType(self.attribute(name, 1)))

    @staticmethod
    def dtype_of(tensor: ir.TensorProtocol) -> str:
        """The element type of a tensor."""
        return dtype_name(tensor.dtype)

    def known(self, at: int) -> Known | None:
        """An operand that is made of shapes and small constants."""
        name = self._name(at)
        return None if name is None else self._knowns.get(name)

    def constant(self, at: int) -> np.ndarray | None:
        """An operand that is a constant, of numbers, of whatever type and size."""
        name = self._name(at)
        if name is None:
            return None
        found = self._knowns.get(name)
        if found is not None:
            return found.array() if found.is_number else None
        return self._constants[name].numpy() if name in self._constants else None

    def number(self, at: int) -> float | None:
        """An operand of one element that is constant; None where it is left out."""
        if not self.given(at):
            return None
        found = self.constant(at)
        if found is None or found.size != 1:
            raise Unsayable
        return found.item()

    def given(self, at: int) -> bool:
        """Is there an operand at this place?"""
        return self._name(at) is not None

    def _name(self, at: int) -> str | None:
        inputs = self.node.inputs
        return inputs[at].name if at < len(inputs) and inputs[at] is not None else None  # type: ignore[union-attr]

    def ints(self, name: str, at: int | None = None) -> tuple[Dim, ...] | None:
        """Integers or sizes: an attribute in old opsets, an operand in newer ones, or neither."""
        self.read.add(name)
        found = self.node.attributes.get(name)
        if found is not None:
            return tuple(found.value) if isinstance(found.value, Sequence) else (found.value,)
        if at is None or not self.given(at):
            return None
        operand = self.known(at)
        if operand is not None:
            return tuple(operand.values.flat)
        array = self.constant(at)
        if array is None or array.dtype.kind not in "iu":
            raise Unsayable
        return tuple(map(int, array.flat))

    def numbers(self, name: str, at: int | None = None) -> tuple[int, ...] | None:
        """The same where free sizes make no sense (axes, permutations)."""
        found = self.ints(name, at)
        if found is not None and any(isinstance(d, Size) for d in found):
            raise Unsayable
        return None if found is None else tuple(map(int, found))

    # -- what several ops share -------------------------------------------------------------------

    def reduction_axes(self, rank: int) -> tuple[int, ...]:
        """The axes of a reduction, counted from the front; all where none are named."""
        axes, keep_all = self.numbers("axes", 1), self.attribute("noop_with_empty_axes", 0)
        if not axes:
            return () if keep_all else tuple(range(rank))
        return tuple(sorted(a % rank for a in axes))

    def slices(
        self, rank: int
    ) -> tuple[Sequence[Dim], Sequence[Dim], Sequence[int], Sequence[int]]:
        """(starts, ends, axes, steps) of a Slice."""
        starts, ends = self.ints("starts", 1) or (), self.ints("ends", 2) or ()
        axes = self.numbers("axes", 3)
        axes = tuple(range(len(starts))) if axes is None else tuple(a % rank for a in axes)
        return starts, ends, axes, self.numbers("steps", 4) or (1,) * len(starts)

    def split_sizes(self, size: Dim) -> tuple[Dim, ...]:
        """The sizes of the parts of a Split of an axis of this size."""
        parts, count = self.ints("split", 1), self.attribute("num_outputs", len(self.node.outputs))
        if parts is not None:
            return parts
        each = (
            size // count if dims.divide(size, count) is not None else (size + count - 1) // count
        )
        return (*[each] * (count - 1), size - each * (count - 1))


def dtype_name(dtype: ir.DataType) -> str:
    """The short name of an ONNX element type; UnsupportedError for one that arrays cannot have."""
    try:
        return from_numpy(dtype.numpy())
    except Exception:
        raise UnsupportedError(f"tensors of ONNX type {dtype.name} are not supported") from None
