"""Random programs: what can be unbatched is accepted, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.batch_fuzz import Report, Runs, candidates, fuzz, lift
from benchmarks.batch_pool import BATCH, Program
from safegraph import SafeDAG, tensor
from safegraph import value as v
from safegraph.batch import unbatch


@pytest.mark.slow
def test_nothing_unsound_is_accepted_and_little_is_missed() -> None:
    report: Report = fuzz(2_000, seed=7)
    assert not report.unsound, report.unsound[0]
    assert not report.crashes, report
    assert report.share >= 0.9, report
    # a program that must be refused is drawn often enough, and so is one that must not
    assert 0.2 <= report.eliminable / report.programs <= 0.8


def _truth(y: v.Value) -> bool:
    dag = SafeDAG.from_values({"y": y})
    return Runs(Program(dag, {"x": 0}, ()), np.random.default_rng(0)).eliminable


def test_the_truth_knows_samples_that_meet() -> None:
    x = tensor("x", "f64[batch 4]")
    assert _truth(x.tanh())
    assert _truth(v.reduce(x, [1], "sum"))
    assert _truth(v.group(x, [2]))  # merged, the batch in front
    assert _truth(v.group(v.permute(x, [1, 0]), [2]))
    assert _truth(x * v.full(2.0, (BATCH, 4), "f64"))
    assert not _truth(v.reduce(x, [0], "sum"))
    assert not _truth(x.flip((0,)))
    assert not _truth(v.slice_axis(x, 0, 0, 1))
    assert not _truth(x / v.scalar(BATCH, "f64"))
    assert not _truth(v.reshape(x, [4, BATCH]))
    assert not _truth(x @ v.permute(x, [1, 0]))
    assert not _truth(x + v.unsqueeze(v.cast(v.iota(BATCH), "f64"), [1]))


def test_a_wrong_graph_for_one_sample_is_found() -> None:
    x, small = tensor("x", "f64[batch 4]"), tensor("x", "f64[4]")
    dag = SafeDAG.from_values({"y": x.tanh()})
    runs = Runs(Program(dag, {"x": 0}, ()), np.random.default_rng(0))
    verdict = unbatch(dag, "batch")
    assert not runs.problem(verdict)
    wrong = replace(verdict, result=SafeDAG.from_values({"y": small.sin()}))
    assert "differs" in runs.problem(wrong)
    assert "the batch is in the shape" in runs.problem(replace(verdict, result=dag))
    report = Report()
    assert not lift(runs, verdict, report)
    assert report.lifted == 1


def test_processes_add_up_to_one_report() -> None:
    one, two = fuzz(30, seed=2), fuzz(30, seed=2, jobs=2)
    assert one.programs == two.programs == 30
    assert (one.accepted, one.both, one.refusals) == (two.accepted, two.both, two.refusals)


def test_an_axis_has_its_batch_at_every_factor() -> None:
    assert candidates((2 * BATCH, 3)) == [(0, 1, 2), (0, 2, 1)]
    assert candidates((3, 2)) == [None]
    assert candidates((BATCH, BATCH)) == candidates((BATCH + 1,)) == candidates((BATCH**2,)) == []
