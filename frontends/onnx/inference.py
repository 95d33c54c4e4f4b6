"""The types of what no table knows: ONNX's own shape inference, one node at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from safegraph.dtypes import to_numpy
from safegraph.frontends.onnx.call import Call
from safegraph.frontends.onnx.known import Known


def shape_of(proto: onnx.TypeProto | None) -> list[Any] | None:
    """The axes of an inferred type: numbers and names; None for an unknown rank."""
    if proto is None or not proto.tensor_type.HasField("shape"):
        return None
    return [
        d.dim_value if d.HasField("dim_value") else d.dim_param for d in proto.tensor_type.shape.dim
    ]


def infer(call: Call, knowns: dict[str, Known]) -> dict[str, onnx.TypeProto]:
    """What ONNX infers of one node from our types of its operands; its own names are left out."""
    names = [x.name or "" if x is not None else "" for x in call.node.inputs]
    infos, tensors = [], []
    for name, value in dict(zip(names, call.operands, strict=False)).items():
        if value is None:
            continue
        element = int(ir.tensor(np.zeros((), to_numpy(value.dtype))).dtype)
        infos.append(
            onnx.helper.make_tensor_value_info(
                name, element, [d if isinstance(d, int) else str(d) for d in value.shape]
            )
        )
        if name in knowns and knowns[name].is_number:
            tensors.append(onnx.numpy_helper.from_array(knowns[name].array(), name))
    outputs = [onnx.ValueInfoProto(name=v.name or "") for v in call.node.outputs if v.name]
    graph = onnx.helper.make_graph([ir.to_proto(call.node)], "one", infos, outputs, tensors)
    opset = onnx.helper.make_opsetid(call.domain, call.version)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10)
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception:
        return {}
    found = {}
    for info in (*inferred.graph.output, *inferred.graph.value_info):
        for dim in info.type.tensor_type.shape.dim:
            if dim.dim_param.startswith("unk__"):
                dim.ClearField("dim_param")
        if info.type.WhichOneof("value"):
            found[info.name] = info.type
    return found
