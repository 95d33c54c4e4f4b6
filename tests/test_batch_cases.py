"""Written programs whose batch can be taken away, and programs in which samples meet."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.batch_cases import ELIMINATED, SOURCES, Case
from benchmarks.batch_files import traced
from benchmarks.batch_refused import REFUSED, STATIC
from safegraph import SafeDAG
from safegraph.batch import unbatch
from safegraph.dims import names
from safegraph.errors import BatchError

BATCHES = (1, 2, 3, 5)


def _each(cases: tuple[Case, ...]) -> list[Any]:
    """Every case from every source that has it; torch's newer exporter takes a second for each."""
    return [
        pytest.param(
            case,
            source,
            id=f"{case.name} - {source}",
            marks=[pytest.mark.slow] if source == "onnx-dynamo" else [],
        )
        for case in cases
        for source in SOURCES
        if source not in case.without
    ]


def _made_of_sizes(dag: SafeDAG) -> set[str]:
    """What no input reaches."""
    reached = {t.name for t in dag.inputs}
    for node in dag:
        if reached & set(node.inputs):
            reached.add(node.name)
    return set(dag.types) - reached


def _outputs(case: Case, inputs: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    found = case.module()(*inputs)
    return list(found) if isinstance(found, tuple) else [found]


@pytest.mark.parametrize(("case", "source"), _each(ELIMINATED))
def test_a_batch_is_taken_away(case: Case, source: str) -> None:
    dag = case.dag(source)
    verdict = unbatch(dag, case.batch)
    assert verdict.accepted, verdict.refusal
    result = verdict.dag

    # one rank less where the batch is an axis of its own, and no size tells it
    for before, after in zip(dag.inputs, result.inputs, strict=True):
        assert after.type.rank == before.type.rank - (case.batch in map(str, before.type.shape))
    used = {n for t in result.types.values() for d in t.shape for n in names(d)}
    assert case.batch not in used
    assert all(node.op.bind({case.batch: 2}) is node.op for node in result)

    axes = case.axes()
    for n in BATCHES:
        inputs = case.inputs(n)
        wanted = _outputs(case, inputs)
        for b in range(n):
            alone = [
                x.select(axes[name], b).numpy() if name in axes else x.numpy()
                for name, x in zip(case.names(), inputs, strict=True)
            ]
            for found, y in zip(result.evaluate(*alone).values(), wanted, strict=True):
                np.testing.assert_allclose(found, case.sample(y, b, n), rtol=1e-3, atol=1e-5)
    assert verdict.verify()


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("case", ELIMINATED, ids=lambda case: case.name)
def test_a_static_batch_is_made_free(case: Case, batch: int) -> None:
    """Traced with the batch as a number in every size, and right for another number."""
    dag = SafeDAG.from_torchscript(traced(case.module(), case.inputs(batch)))
    axes = dict(zip((t.name for t in dag.inputs), map(case.axes().get, case.names()), strict=True))
    result = dag.rebatch("n", axes)
    assert result.sizes == ("n",)
    inputs = case.inputs(4)
    found = result.evaluate(*(x.numpy() for x in inputs)).values()
    for y, wanted in zip(found, _outputs(case, inputs), strict=True):
        np.testing.assert_allclose(y, wanted, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("case", "source"), _each(REFUSED))
def test_samples_that_meet_are_refused(case: Case, source: str) -> None:
    dag = case.dag(source)
    verdict = unbatch(dag, case.batch)
    assert not verdict.accepted
    with pytest.raises(BatchError) as caught:
        dag.unbatch(case.batch)
    text, refusal = str(caught.value), verdict.refusal
    assert refusal is not None
    assert any(word in text for word in case.refused), text
    assert refusal.op in text
    # from the batch axis of an input to the op at which samples meet
    path = refusal.path
    assert path[0] in {t.name for t in dag.inputs} | _made_of_sizes(dag)
    assert path[-1] == refusal.node
    assert f"by way of {path[0]}" in text
    assert len(path) == 1 or f"-> {path[-1]}" in text


@pytest.mark.parametrize("case", STATIC, ids=lambda case: case.name)
def test_a_static_batch_that_only_fits_by_its_size_is_refused(case: Case) -> None:
    dag = case.dag("torchscript")
    with pytest.raises(BatchError, match="|".join(case.refused)):
        dag.unbatch({"x": 0})
    with pytest.raises(BatchError):
        dag.rebatch("batch")


def test_enough_programs_are_written() -> None:
    assert len(ELIMINATED) >= 25
    assert len(REFUSED) >= 15


def test_the_refusals_are_right() -> None:
    """In every refused program, a sample's output depends on its place or on its neighbours."""
    places = [3, 1]  # where both samples are in the larger batch, the others being larger numbers
    for case in REFUSED:
        axes = case.axes()
        small, others = case.inputs(2), case.inputs(4, seed=1)
        large = []
        for name, a, b in zip(case.names(), small, others, strict=True):
            whole = (b * 3 if b.is_floating_point() else b) if name in axes else a
            if name in axes:
                whole.index_copy_(axes[name], torch.tensor(places), a)
            large.append(whole)
        for y, z in zip(_outputs(case, small), _outputs(case, tuple(large)), strict=True):
            each = (y.shape[:1], z.shape[:1], y.shape[1:]) == ((2,), (4,), z.shape[1:])
            assert not each or not torch.allclose(y, z[places], atol=1e-6), case.name
