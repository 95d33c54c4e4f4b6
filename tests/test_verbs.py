"""Graphs are compared, loaded, saved and timed; what cannot be read or written says why."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from safegraph import SafeDAG, SafeGraphError, tensor, verbs
from safegraph.compare import check
from safegraph.dag import Node, Tensor
from safegraph.derived.index import Gather
from safegraph.dims import parse
from safegraph.errors import BindingError, FormatError, OutputError, ShapeError, UnsupportedError
from safegraph.ops import Opaque
from safegraph.value import Value, apply, parse_type, reshape, unfold


def dag_of(y: Value) -> SafeDAG:
    return SafeDAG.from_values({"y": y})


def affine(factor: float = 2.0) -> SafeDAG:
    x = tensor("x", "f32[batch 3]")
    return dag_of(x * factor + 1.0)


# -- equal or not ---------------------------------------------------------------------------------


def test_a_graph_equals_its_expansion():
    x, y = tensor("x", "f32[batch n]"), tensor("y", "f32[n 4]")
    dag = dag_of((x @ y).softmax(axis=-1))
    verdict = dag.check(dag.expand())
    assert verdict
    assert verdict.error < 1e-5
    assert "equal" in str(verdict)


def test_a_small_difference_is_found_and_shown():
    a, b = affine(2.0), affine(2.02)
    verdict = check(a, b)
    assert not verdict
    assert 1e-3 < verdict.error < 0.1
    assert verdict.where == "y"
    assert verdict.inputs is not None
    left, right = a.evaluate(**verdict.inputs)["y"], b.evaluate(**verdict.inputs)["y"]
    assert np.abs(left - right).max() / np.abs(right).max() == pytest.approx(verdict.error)
    assert check(a, b, rtol=0.1)


def test_free_sizes_differ_between_trials_and_from_each_other():
    # equal only where m is n, which random sizes must not always be
    x = tensor("x", "f32[m n]")
    a = dag_of(reshape(x, (parse("m*n"),)))
    b = dag_of(reshape(x.permute((1, 0)), (parse("m*n"),)))
    verdict = check(a, b)
    assert not verdict
    assert verdict.sizes["m"] != verdict.sizes["n"]
    assert check(a, a, sizes={"m": 5}).sizes["m"] == 5


def test_sizes_grow_until_the_graph_fits():
    x = tensor("x", "f32[batch h]")
    dag = dag_of(unfold(x, 1, 30, 2))
    verdict = check(dag, dag)
    assert verdict
    assert verdict.sizes["h"] >= 30


def test_sizes_must_be_those_of_the_graph():
    with pytest.raises(BindingError, match=r"no free size n; it has batch"):
        check(affine(), affine(), sizes={"n": 3})


def test_sizes_that_no_small_number_suits_are_asked_for():
    dag = dag_of(unfold(tensor("x", "f32[h]"), 0, 100_000, 1))
    with pytest.raises(ShapeError, match="give some yourself"):
        check(dag, dag)


def test_one_graph_may_have_a_size_that_the_other_leaves_free():
    x = tensor("x", "f32[1 3]")
    verdict = check(affine(), dag_of(x * 2.0 + 1.0))
    assert verdict
    assert verdict.sizes == {"batch": 1}


def test_inputs_are_matched_by_name_and_else_by_order():
    x, y = tensor("x", "f32[n]"), tensor("y", "f32[n]")
    assert check(dag_of(x - y), dag_of(-(y - x)))  # in another order
    p, q = tensor("p", "f32[n]"), tensor("q", "f32[n]")
    assert check(dag_of(x - y), dag_of(p - q))
    assert not check(dag_of(x - y), dag_of(q.exp() - p))


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (dag_of(tensor("x", "f32[batch 4]").exp()), "input x is f32"),
        (dag_of(tensor("x", "f64[batch 3]").exp()), "f64"),
        (
            dag_of(tensor("x", "f32[batch 3]") + tensor("y", "f32[batch 3]")),
            "1 inputs (x) against 2",
        ),
        (dag_of(tensor("x", "f32[batch 3]")[:, 0]), "output y"),
    ],
    ids=["shape", "dtype", "inputs", "output"],
)
def test_other_interfaces_are_not_equal(other: SafeDAG, reason: str):
    verdict = check(affine(), other)
    assert not verdict
    assert reason in str(verdict)


def test_integers_that_pick_from_a_table_stay_inside_it():
    table = np.arange(6, dtype=np.float32).reshape(2, 3)
    leaf = Tensor("table", "parameter", parse_type("f32[2 3]"), table)
    ids = reshape(tensor("ids", "i64[n 2]"), (parse("2*n"),))
    picked = apply(Gather(0), tensor("table", "f32[2 3]"), ids)
    dag = SafeDAG.from_values({"y": picked}, [leaf])
    assert check(dag, dag, trials=5)


def test_nan_in_the_same_places_is_equal_and_elsewhere_not():
    x = tensor("x", "f32[64]")
    root = x.pow(0.5 * x / x)  # NaN where x is negative
    assert check(dag_of(root), dag_of(root * 1.0))
    verdict = check(dag_of(root), dag_of(x.maximum(0.0).pow(0.5 * x / x)))
    assert not verdict
    assert "NaN or infinite in one graph only" in verdict.reason


def test_outputs_without_a_finite_element_prove_nothing():
    x = tensor("x", "f32[8]")
    dag = dag_of((x - x) / (x - x))
    assert "nothing could be compared" in check(dag, dag).reason


def test_unknown_ops_cannot_be_compared():
    type_ = parse_type("f32[3]")
    node = Node("y", Opaque("onnx", "com.example::Foo", (), 0, type_), ("x",))
    dag = SafeDAG([Tensor("x", "input", type_)], [node], ["y"])
    with pytest.raises(UnsupportedError, match=r"com\.example::Foo"):
        check(dag, dag)


# -- files ----------------------------------------------------------------------------------------


def test_the_native_file_round_trips(tmp_path: Path):
    path = tmp_path / "model.safegraph"
    verbs.save(affine(), path)
    assert check(verbs.load(path), affine())
    assert os.listdir(tmp_path) == [path.name]


def written(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def archive(*names: str) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as file:
            for name in names:
                file.writestr(name, "x")

    return make


SCRIPT = archive("m/data.pkl", "m/constants.pkl", "m/code/__torch__.py")
EXPORT = archive("m/archive_format", "m/models/model.json")
UNREADABLE: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "missing": ("m.onnx", lambda path: None, "no file"),
    "folder": ("m.onnx", Path.mkdir, "folder"),
    "empty": ("m.onnx", written(b""), "empty"),
    "picture": ("m.onnx", written(b"\x89PNG\r\n" + b"x" * 99), "picture"),
    "pickle": ("m.pt", written(b"\x80\x02" + b"x" * 99), "holds weights, no graph"),
    "text as archive": ("m.pt", written(b"hello" * 99), "no TorchScript"),
    "cut archive": ("m.pt", written(b"PK\x03\x04" + b"x" * 99), "damaged"),
    "document": ("m.safegraph", archive("word/document.xml"), "something else"),
    "checkpoint": ("m.pt", archive("m/data.pkl"), "holds weights, no graph"),
    "script as onnx": ("m.onnx", SCRIPT, "its content is TorchScript"),
    "export as script": ("m.pt", EXPORT, "its content is torch.export"),
    "export": ("m.pt2", EXPORT, "torch.export files cannot be read"),
    "lite": ("m.tflite", written(b"\x1c\0\0\0TFL3" + b"x" * 99), "LiteRT files cannot be read"),
    "nothing known": ("m.bin", written(b"hello" * 9), "no known format"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_cannot_be_read_says_why(case: str, tmp_path: Path):
    name, make, message = UNREADABLE[case]
    path = tmp_path / name
    make(path)
    with pytest.raises(SafeGraphError, match=message) as caught:
        verbs.load(path)
    assert type(caught.value) is (UnsupportedError if "cannot be read" in message else FormatError)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("m.xyz", "the suffix .xyz is no format"),
        ("m", "the suffix .none. is no format"),
        ("m.tflite", "LiteRT files cannot be written"),
        ("none/m.safegraph", "there is no folder"),
        ("folder.safegraph", "is a folder"),
    ],
)
def test_what_cannot_be_written_says_why(name: str, message: str, tmp_path: Path):
    (tmp_path / "folder.safegraph").mkdir()
    with pytest.raises(SafeGraphError, match=message):
        verbs.save(affine(), tmp_path / name)
    assert os.listdir(tmp_path) == ["folder.safegraph"]


@pytest.mark.parametrize("name", ["m.safegraph", "m.onnx", "m.pt"])
def test_a_failing_disk_leaves_the_old_file_and_nothing_else(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / name
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match="No space left on device"):
        verbs.save(affine(), path)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", ["m.onnx", "m.pt"])
def test_the_formats_round_trip(name: str, tmp_path: Path):
    path = tmp_path / name
    verbs.save(affine(), path)
    assert os.listdir(tmp_path) == [name]
    types = ["f32[batch 3]"]
    assert verbs.takes_inputs(path) == (name == "m.pt")
    assert check(verbs.load(path, types if name == "m.pt" else None), affine())


@pytest.mark.parametrize("name", ["m.onnx", "m.safegraph"])
def test_types_of_inputs_are_refused_where_the_file_has_them(name: str, tmp_path: Path):
    verbs.save(affine(), tmp_path / name)
    with pytest.raises(BindingError, match="TorchScript files only"):
        verbs.load(tmp_path / name, ["f32[1 3]"])


def test_a_folder_that_takes_no_files_is_told_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # the superuser may write anywhere
    for name in ("m.onnx", "m.pt", "m.safegraph"):
        with pytest.raises(OutputError, match="no files may be made"):
            verbs.output_format(tmp_path / name)


# -- time -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["onnxruntime", "torch"])
def test_runs_are_timed_in_the_runtime(target: str):
    found = verbs.race([affine(), affine().expand()], target, {"batch": 2}, seconds=0.1)
    assert found is not None
    assert len(found) == 2
    assert min(found) > 0


@pytest.mark.parametrize("target", ["onnxruntime", "torch"])
def test_what_the_runtime_computes_must_be_the_same(target: str):
    with pytest.raises(OutputError, match="computes something else"):
        verbs.race([affine(), affine(3.0)], target, {"batch": 2}, seconds=0.1)


def test_what_the_runtime_cannot_run_is_not_timed_and_no_result(monkeypatch: pytest.MonkeyPatch):
    start = verbs._onnxruntime

    def without_exp(dag: SafeDAG, *given: Any) -> Any:
        if any(node.op.name == "unary" for node in dag):
            raise RuntimeError("no kernel for Exp")
        return start(dag, *given)

    monkeypatch.setattr(verbs, "_onnxruntime", without_exp)
    runs, fails = affine(), dag_of((tensor("x", "f32[batch 3]") * 2.0 + 1.0).exp())
    assert verbs.race([fails, runs], "onnxruntime", {"batch": 2}) is None
    with pytest.raises(OutputError, match=r"cannot run the result: no kernel for Exp"):
        verbs.race([runs, fails], "onnxruntime", {"batch": 2})


def test_a_target_without_a_runtime_is_not_timed():
    assert verbs.measure(affine(), "paper", {"batch": 2}) is None


def test_sizes_that_are_not_given_are_completed():
    assert verbs.complete(affine(), {}) == {"batch": 16}
    with pytest.raises(BindingError, match="no free size b"):
        verbs.complete(affine(), {"b": 2})
