"""Graphs of values, and what must hold of one whose batch was taken away."""

from typing import Any

import numpy as np

from safegraph import SafeDAG, Value, dims
from safegraph.batch import unbatch
from safegraph.dag import Tensor
from safegraph.value import parse_type


def graph(*values: Value, **data: np.ndarray) -> SafeDAG:
    """A graph whose leaves with data are parameters."""
    tensors = [
        Tensor(name, "parameter", parse_type(f"f64[{' '.join(map(str, array.shape))}]"), array)
        for name, array in data.items()
    ]
    return SafeDAG.from_values({f"y{i}": v for i, v in enumerate(values)}, tensors)


def accepted(dag: SafeDAG, axis: Any = 0) -> SafeDAG:
    """The graph for one sample, after everything that must hold of it was checked."""
    verdict = unbatch(dag, axis)
    assert verdict, verdict.refusal
    found = verdict.verify()
    assert found, found
    result = verdict.dag
    free = {name for t in result.types.values() for d in t.shape for name in dims.names(d)}
    assert "n" not in free
    assert not any("n" in dims.names(tuple(node.op.spec.values())) for node in result)
    return result
