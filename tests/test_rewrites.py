"""The programs of `benchmarks.rewrites`: two equal forms, of which the better one costs less."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from benchmarks.cases import Case
from benchmarks.rewrites import CASES, COLUMNS, measure

NUMBERS = """
    03a 03c 04 05a 05b 06a 06c 07a 08d 11a 12b 13a 13c 13d 14a 14c 15b 15c 15e 16d 17a 20 21b 22 25a
    26a 30 30 31a 31b 31c 32a 32c 33b 33c 41 44 45a 47 50b
"""
"""Every program of the published comparison that no optimizer in use finds; 30 is two models."""

BIG = ("20", "21b", "22", "30", "31", "41", "50b")

DEARER = {
    "15b": {"bytes"},  # A + B is written and read again
    "32a": {"flops"},  # the exporter gives a convolution without bias one of zeros
    "32c": {"MACs", "flops"},  # products and sums become multiply-adds; and the zeros
}
"""What the faster form of a program has more of: time is not any one of these figures."""

PARAMETERS = [
    pytest.param(case, id=case.name, marks=pytest.mark.slow if case.name.startswith(BIG) else ())
    for case in CASES
]


@contextmanager
def float64() -> Iterator[None]:
    """In float64, where two forms that are equal differ by rounding of 1e-16."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def outputs(module: Any, inputs: tuple[Any, ...]) -> tuple[torch.Tensor, ...]:
    with torch.no_grad():
        found = module(*inputs)
    return found if isinstance(found, tuple) else (found,)


def compare(case: Case) -> list[torch.Tensor]:
    """Assert that both forms are equal in float64; what the given one computes."""
    with float64():
        inputs = case.inputs()
        given = outputs(case.given(), inputs)
        better = outputs(case.better(), inputs)
    assert len(given) == len(better)
    for x, y in zip(given, better, strict=True):
        assert x.dtype == torch.float64
        assert x.shape == y.shape
        assert (x - y).abs().max() <= 1e-9 * x.abs().max()
    return list(given)


def test_every_program_of_the_table_is_there() -> None:
    assert [case.name.split()[0] for case in CASES] == NUMBERS.split()


@pytest.mark.parametrize("case", PARAMETERS)
def test_both_forms_are_equal(case: Case) -> None:
    for x in compare(case):
        assert 1e-3 < x.std() < 20, "a result that hardly depends on the input proves nothing"


def test_another_form_is_not_equal() -> None:
    affine = next(case for case in CASES if case.name.startswith("15e"))
    other = Case("other", affine.given, lambda: lambda x: 1.5 * x + 0.6250001, affine.inputs)
    with pytest.raises(AssertionError):
        compare(other)


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.export_given], ids=lambda case: case.name.split()[0]
)
def test_files_not_made_by_torch_compute_the_same(case: Case, tmp_path: Path) -> None:
    assert case.export_given is not None
    inputs = case.inputs()
    case.export_given(tmp_path / "given.onnx")
    session = onnxruntime.InferenceSession(
        tmp_path / "given.onnx", providers=["CPUExecutionProvider"]
    )
    feed = {i.name: x.numpy() for i, x in zip(session.get_inputs(), inputs, strict=True)}
    (found,) = session.run(None, feed)
    (expected,) = outputs(case.given(), inputs)
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_better_form_costs_less(case: Case, tmp_path: Path) -> None:
    given, better = (dict(zip(COLUMNS, found, strict=True)) for found in measure(case, tmp_path))
    dearer = {column for column in COLUMNS[1:] if better[column] > given[column]}
    assert dearer == DEARER.get(case.name.split()[0], set())
    assert better != given
