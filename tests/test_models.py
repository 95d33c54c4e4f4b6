"""Whole models through the whole path: loaded, optimized, written, run."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from safegraph.dag import SafeDAG
from tests.models import LIGHT, light_input, light_model, light_path


def _run(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (name,) = (i.name for i in session.get_inputs() if i.name in feed)
    return session.run(None, {name: feed[name]})[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", LIGHT)
def test_a_light_model_is_optimized_and_equal(name: str):
    model = light_model(name)
    feed = light_input(model)
    expected = _run(model, feed)
    assert expected.std() > 0

    result = SafeDAG.from_onnx(model).optimize("onnxruntime")
    found = _run(result.dag.to_onnx(), feed)

    assert result.after <= result.before * (1 + 1e-12)  # sums in another order
    assert np.abs(found - expected).max() <= 1e-3 * np.abs(expected).max()


@pytest.mark.slow
@pytest.mark.parametrize("name", LIGHT)
def test_a_light_model_as_shipped_goes_through(name: str):
    result = SafeDAG.from_onnx(light_path(name)).optimize("onnxruntime")
    shipped = onnx.load(light_path(name))
    feed = light_input(shipped)

    found = _run(result.dag.to_onnx(), feed)

    np.testing.assert_allclose(found, _run(shipped, feed), rtol=1e-3, atol=1e-6)
