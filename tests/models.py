"""Models that several tests and benchmarks use."""

from __future__ import annotations

from math import prod, sqrt
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

LIGHT = (
    "bvlc_alexnet",
    "densenet121",
    "inception_v1",
    "inception_v2",
    "resnet50",
    "shufflenet",
    "squeezenet",
    "vgg19",
    "zfnet512",
)
"""The nine "light" models in the onnx wheel: real networks whose weights are left out."""


def light_path(name: str) -> Path:
    """Where the onnx wheel has a light model."""
    return Path(onnx.__file__).parent / f"backend/test/data/light/light_{name}.onnx"


def light_model(name: str, *, seed: int = 0) -> onnx.ModelProto:
    """A light model with weights, and with what goes into its softmax as its output.

    As shipped, every weight is one constant (ConstantOfShape) and the output hardly depends on the
    input.  Each becomes an initializer of the same name: matrices and kernels normal with variance
    2 / fan-in (He et al., https://arxiv.org/abs/1502.01852), scales near 1, variances positive,
    biases small.
    """
    model = onnx.load(light_path(name))
    graph = model.graph
    rng = np.random.default_rng(seed)
    shapes = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    roles = _roles(graph)
    kept = []
    for node in graph.node:
        if node.op_type == "ConstantOfShape":
            weight = _weight(
                rng, tuple(map(int, shapes[node.input[0]])), roles.get(node.output[0], "")
            )
            graph.initializer.append(numpy_helper.from_array(weight, node.output[0]))
        elif node.op_type == "Softmax":
            graph.output[0].name = node.input[0]
            graph.output[0].type.tensor_type.ClearField("shape")
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)
    used = {name for node in kept for name in node.input}
    initializers = [t for t in graph.initializer if t.name in used]
    inputs = [
        i for i in graph.input if i.name in used and i.name not in {t.name for t in initializers}
    ]
    del graph.initializer[:], graph.input[:]
    graph.initializer.extend(initializers)
    graph.input.extend(inputs)
    model.ir_version = 4  # from here on initializers need not be inputs
    return model


def light_input(model: onnx.ModelProto, *, seed: int = 1) -> dict[str, np.ndarray]:
    """A random image for a light model."""
    rng = np.random.default_rng(seed)
    (image,) = (
        i for i in model.graph.input if i.name not in {t.name for t in model.graph.initializer}
    )
    shape = [d.dim_value for d in image.type.tensor_type.shape.dim]
    return {image.name: rng.standard_normal(shape).astype(np.float32)}


def _roles(graph: onnx.GraphProto) -> dict[str, str]:
    """What a weight is for, by the node that uses it (behind an Unsqueeze, by the one after)."""
    behind = {n.input[0]: n.output[0] for n in graph.node if n.op_type == "Unsqueeze"}
    use = {}
    for node in graph.node:
        for place, name in enumerate(node.input):
            use[name] = f"{node.op_type} {place}"
    return {name: use.get(behind.get(name, name), "") for name in use}


def _weight(rng: np.random.Generator, shape: tuple[int, ...], role: str) -> np.ndarray:
    normal = rng.standard_normal(shape).astype(np.float32)
    if len(shape) > 1:
        return normal * np.float32(sqrt(2 / prod(shape[1:])))
    if role in ("BatchNormalization 1", "Mul 1"):
        return 1 + normal / 10
    if role == "BatchNormalization 4":
        return 1 + np.abs(normal) / 10
    return normal / 10
