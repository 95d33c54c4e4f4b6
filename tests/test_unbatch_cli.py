"""`safegraph unbatch` and `safegraph rebatch`: files whole or not at all, reasons, exit codes."""

from pathlib import Path

import numpy as np
import pytest

from safegraph import SafeDAG, Value, tensor, verbs
from safegraph.cli import main
from safegraph.dag import Tensor
from safegraph.derived import Gather
from safegraph.value import parse_type, reduce, reshape, scalar, squeeze


def run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command."""
    with pytest.raises(SystemExit) as end:
        main([str(a) for a in args])
    seen = capsys.readouterr()
    assert isinstance(end.value.code, int)
    return end.value.code, seen.out, seen.err


def saved(path: Path, value: Value) -> Path:
    """A file with a graph of one output."""
    verbs.save(SafeDAG.from_values({"y": value}), path)
    return path


@pytest.fixture
def static(tmp_path: Path) -> Path:
    """A model for two samples, with the batch in the sizes of a reshape."""
    x = tensor("x", "f32[2 3 4]")
    return saved(tmp_path / "static.onnx", reshape(reshape(x, (6, 4)).softmax(axis=1), (2, 12)))


@pytest.fixture
def mixing(tmp_path: Path) -> Path:
    """A model in which samples meet."""
    x = tensor("x", "f32[batch 4]")
    return saved(tmp_path / "mixing.onnx", x - reduce(x, [0], "mean"))


def test_unbatch_writes_the_model_for_one_sample(
    static: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "unbatch", static, "-o", tmp_path / "one.onnx")
    assert code == 0, err
    assert "input   x: f32[3 4]" in out
    assert "output  y: f32[12] (batched)" in out
    assert "equal and isolated for batches of 2" in out
    one, many = SafeDAG.from_onnx(tmp_path / "one.onnx"), SafeDAG.from_onnx(static)
    array = np.random.default_rng(0).standard_normal((2, 3, 4)).astype("f4")
    (whole,) = many.evaluate(array).values()
    for sample, wanted in zip(array, whole, strict=True):
        (found,) = one.evaluate(sample).values()
        np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_rebatch_writes_the_model_for_any_batch(
    static: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "any.onnx"
    code, out, err = run(capsys, "rebatch", static, "-o", path, "--name", "n", "--axis", "x=0")
    assert code == 0, err
    assert "input   x: f32[n 3 4]" in out
    assert "output  y: f32[n 12] (batched)" in out
    assert SafeDAG.from_onnx(path).evaluate(np.ones((5, 3, 4), "f4"))["y"].shape == (5, 12)


def test_rebatch_of_a_squeezed_batch_of_one_has_it_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = saved(tmp_path / "one.onnx", squeeze(tensor("x", "f32[1 3 4]").exp(), [0]))
    code, out, err = run(capsys, "rebatch", source, "-o", tmp_path / "any.onnx")
    assert code == 0, err
    assert "output  y: f32[batch 3 4]" in out


@pytest.mark.parametrize("command", ["unbatch", "rebatch"])
def test_a_small_table_behind_a_sum_is_no_obstacle(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Random integers of the check must be places that the table has."""
    index = tensor("i", "i64[2 3]") + scalar(1, "i64")
    picked = Gather(0)(tensor("table", "f32[2 4]"), index)
    table = Tensor("table", "parameter", parse_type("f32[2 4]"), np.ones((2, 4), "f4"))
    verbs.save(SafeDAG.from_values({"y": picked}, [table]), tmp_path / "model.onnx")
    written = tmp_path / "written.onnx"
    code, _, err = run(capsys, command, tmp_path / "model.onnx", "-o", written)
    assert code == 0, err
    assert written.exists()


@pytest.mark.parametrize("command", ["unbatch", "rebatch"])
def test_samples_that_meet_are_an_exit_code_of_1_and_a_reason(
    command: str, mixing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, command, mixing, "-o", tmp_path / "never.onnx")
    assert code == 1
    assert "it reduces over the batch (axis 0 of its operand)" in err
    assert "the batch comes by way of x -> " in err
    assert not out
    assert not (tmp_path / "never.onnx").exists()


def test_an_axis_is_said_by_input(
    static: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = tmp_path / "one.onnx"
    code, _, err = run(capsys, "unbatch", static, "-o", there, "--axis", "x=none")
    assert (code, "was said to have a batch" in err) == (1, True)
    code, _, err = run(capsys, "unbatch", static, "-o", there, "--axis", "z=0")
    assert (code, "has no input z" in err) == (1, True)
    code, _, err = run(capsys, "unbatch", static, "-o", there, "--axis", "0")
    assert (code, "write x=0, or x=none" in err) == (2, True)
    code, _, err = run(capsys, "unbatch", static, "-o", there, "--axis", "x=--1")
    assert (code, "write x=0, or x=none" in err) == (2, True)
    twice = ("--axis", "x=0", "--axis", "x=1")
    code, _, err = run(capsys, "unbatch", static, "-o", there, *twice)
    assert (code, "more than once for input x" in err) == (1, True)
    assert not there.exists()


def test_the_input_is_never_overwritten(static: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = static.read_bytes()
    code, _, err = run(capsys, "rebatch", static, "-o", static)
    assert (code, "give the result another name" in err) == (1, True)
    assert static.read_bytes() == before
