"""ONNX nodes that no table knows, as `Opaque` ops and back, unchanged.

Attributes become plain numbers, strings and tuples; those that are none (tensors, types, empty
lists) are carried as the text of their serialised protobuf.  Three more are ours, with names that
no ONNX attribute can have: which operands are given, how many results there are, which opset.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Any

import onnx
import onnx_ir as ir

from safegraph.dag import Node
from safegraph.op import TensorType
from safegraph.ops import Opaque

GIVEN, RESULTS, VERSION = "@given", "@results", "@version"
_PROTO = "@proto:"
_PLAIN = {
    ir.AttributeType.INT,
    ir.AttributeType.FLOAT,
    ir.AttributeType.STRING,
    ir.AttributeType.INTS,
    ir.AttributeType.FLOATS,
    ir.AttributeType.STRINGS,
}


def kind_of(node: ir.Node) -> str:
    """The name of a node's op, with its domain if it is not ONNX's own."""
    return f"{node.domain}::{node.op_type}" if node.domain else node.op_type


def attributes_of(node: ir.Node, version: int) -> tuple[tuple[str, Any], ...]:
    """The attributes of a node as plain data."""
    own = tuple((name, _plain(attribute)) for name, attribute in node.attributes.items())
    given = tuple(int(x is not None) for x in node.inputs)
    return (*own, (GIVEN, given), (RESULTS, len(node.outputs)), (VERSION, version))


def _plain(attribute: ir.Attr) -> Any:
    value = attribute.value
    if attribute.type in _PLAIN and not (isinstance(value, Sequence) and len(value) == 0):
        found = (
            tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
        )
        if not any(isinstance(v, str) and v.startswith(_PROTO) for v in _items(found)):
            return found
    return _PROTO + b64encode(ir.to_proto(attribute).SerializeToString()).decode()


def _items(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def opaque(node: ir.Node, version: int, result: int, out: TensorType) -> Opaque:
    """One result of a node as an op."""
    return Opaque("onnx", kind_of(node), attributes_of(node, version), result, out)


def restore(op: Opaque) -> tuple[str, str, dict[str, ir.Attr], Mapping[str, Any]]:
    """(domain, op type, attributes, our own three) of the node that an op was made from."""
    domain, _, op_type = op.kind.rpartition("::")
    attributes: dict[str, ir.Attr] = {}
    own: dict[str, Any] = {}
    for name, value in op.attributes:
        if name in (GIVEN, RESULTS, VERSION):
            own[name] = value
        elif isinstance(value, str) and value.startswith(_PROTO):
            proto = onnx.AttributeProto.FromString(b64decode(value[len(_PROTO) :]))
            attributes[name] = ir.from_proto(proto)
        else:
            attributes[name] = ir.convenience.convert_attribute(name, value)
    return domain, op_type, attributes, own


def needed(node: Node) -> int:
    """The opset from which on ONNX has an op as it was read; 0 for an op of another domain."""
    op = node.op
    if not isinstance(op, Opaque) or op.format != "onnx" or "::" in op.kind:
        return 0
    return _since(op.kind, dict(op.attributes)[VERSION])


def same_op(op_type: str, version: int, opset: int) -> bool:
    """Does an op of ONNX's own domain mean the same in two opsets?  (One that ONNX lacks, yes.)"""
    return _since(op_type, version) == _since(op_type, opset)


def _since(op_type: str, opset: int) -> int:
    """The opset that brought an op's meaning in this opset; 0 where ONNX has no such op."""
    try:
        return onnx.defs.get_schema(op_type, opset, "").since_version
    except onnx.defs.SchemaError:
        return 0


def convert(
    node: ir.Node, types: Sequence[tuple[ir.TensorType, ir.Shape]], version: int, opset: int
) -> ir.Graph | None:
    """One node of an opset as a graph of another; None where ONNX cannot convert it."""
    inputs = [ir.Value(name=f"in{i}", type=t, shape=s) for i, (t, s) in enumerate(types)]
    given = iter(inputs)
    operands = [None if x is None else next(given) for x in node.inputs]
    copy = ir.Node(
        "", node.op_type, operands, list(node.attributes.values()), num_outputs=len(node.outputs)
    )
    for i, out in enumerate(copy.outputs):
        out.name = f"out{i}"
    graph = ir.Graph(inputs, copy.outputs, nodes=[copy], opset_imports={"": version}, name="one")
    try:
        proto = ir.to_proto(ir.Model(graph, ir_version=10))
        return ir.from_proto(onnx.version_converter.convert_version(proto, opset)).graph
    except Exception:  # the converter raises RuntimeError and others for ops that it cannot convert
        return None
