"""Static exports with a batch of 1, for any batch; whole models without one."""

from __future__ import annotations

import pytest

from benchmarks.batch_exports import BATCHES, EXPORTS, outcome
from benchmarks.batch_models import SMALL
from benchmarks.batch_models import outcome as unbatched


def test_there_are_fifteen_exports() -> None:
    assert len(EXPORTS) == 15


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPORTS)
def test_a_static_export_is_rebatched(name: str) -> None:
    found = outcome(EXPORTS[name])
    assert not found.refusal
    assert sorted(found.errors) == [1, 2, 4, 7] == list(BATCHES)
    assert found.right, found.errors


@pytest.mark.slow
@pytest.mark.parametrize("source", ["torchscript", "onnx"])
@pytest.mark.parametrize("name", SMALL)
def test_a_model_loses_its_batch(name: str, source: str) -> None:
    found = unbatched(SMALL[name], source)
    assert found.ranks
    assert found.free
    assert found.right, found
