"""The native file: whole or not at all, mapped and not read, and refused when it is not one."""

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from safegraph import store
from safegraph.dag import Node, SafeDAG, Tensor
from safegraph.dtypes import DTYPES, to_numpy
from safegraph.errors import FormatError, GraphError, OutputError, SafeGraphError, UnsupportedError
from safegraph.ops import Unary
from safegraph.value import parse_type

STORABLE = [d for d in DTYPES if d != "c128"]


@pytest.fixture
def dag() -> SafeDAG:
    rng = np.random.default_rng(0)
    return SafeDAG(
        [
            Tensor("x", "input", parse_type("f32[batch 3]")),
            Tensor("mask", "const", parse_type("bool[5]"), rng.random(5) < 0.5),
            Tensor(
                "a b/ü", "parameter", parse_type("f32[40 50]"), rng.random((40, 50), np.float32)
            ),
            Tensor(
                "lazy", "buffer", parse_type("f64[2 3]"), lambda: np.arange(6.0).reshape(2, 3).T.T
            ),
            Tensor("turned", "parameter", parse_type("f32[3 2]"), np.ones((2, 3), np.float32).T),
            Tensor("empty", "const", parse_type("i64[0 3]"), np.zeros((0, 3), np.int64)),
            Tensor("nothing", "parameter", parse_type("f32[7]")),
        ],
        [Node("y", Unary("exp"), ("x",), "model/y")],
        {"out": "y", "weights": "a b/ü"},
        name="stored graph",
    )


def same(a: SafeDAG, b: SafeDAG) -> None:
    assert str(a) == str(b)
    for t in a.tensors.values():
        u = b.tensors[t.name]
        assert (t.data is None) == (u.data is None)
        if t.data is not None:
            np.testing.assert_array_equal(t.array(), u.array())
            assert t.array().dtype == u.array().dtype


def test_round_trip(dag, tmp_path):
    path = tmp_path / "model.safegraph"
    dag.save(path)
    same(SafeDAG.load(path), dag)
    assert os.listdir(tmp_path) == ["model.safegraph"]
    dag.save(str(tmp_path / "again.safegraph"))
    assert (tmp_path / "again.safegraph").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("dtype", STORABLE)
def test_every_element_type(dtype, tmp_path):
    data = np.array([[0, 1, 3], [2, 0.5, 7]]).astype(to_numpy(dtype))
    path = tmp_path / "t.safegraph"
    SafeDAG([Tensor("w", "parameter", parse_type(f"{dtype}[2 3]"), data)], [], ["w"]).save(path)
    found = SafeDAG.load(path).tensors["w"].array()
    assert found.dtype == data.dtype
    assert found.tobytes() == data.tobytes()


def test_the_data_is_a_safetensors_file(dag, tmp_path):
    """Read by the library, which shares no code with ours."""
    path = tmp_path / "model.safegraph"
    dag.save(path)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        found = safetensors.numpy.load(archive.read("tensors.safetensors"))
    assert set(found) == {t.name for t in dag.tensors.values() if t.data is not None}
    for name, array in found.items():
        np.testing.assert_array_equal(array, dag.tensors[name].array())


def test_data_of_the_library_is_read(tmp_path):
    path = tmp_path / "model.safegraph"
    rng = np.random.default_rng(0)
    arrays = {"w": rng.random((3, 4)), "v": rng.integers(0, 9, 5)}
    tensors = [
        Tensor("w", "parameter", parse_type("f64[3 4]")),
        Tensor("v", "const", parse_type("i64[5]")),
    ]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("meta.json", '{"format": "safegraph", "version": 1}')
        archive.writestr("graph.txt", str(SafeDAG(tensors, [], ["w"])))
        archive.writestr("tensors.safetensors", safetensors.numpy.save(arrays, {"by": "hand"}))
    found = SafeDAG.load(path)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found.tensors[name].array(), array)


def test_loaded_data_is_mapped(dag, tmp_path):
    path = tmp_path / "model.safegraph"
    dag.save(path)
    found = SafeDAG.load(path)
    for t in found.tensors.values():
        if t.data is not None and t.type.numel:
            assert not t.array().flags.writeable
            assert not t.array().flags.owndata
            assert t.array().flags.aligned
    np.testing.assert_array_equal(
        found.evaluate(np.zeros((2, 3), np.float32))["out"], np.ones((2, 3))
    )


def test_a_loaded_graph_can_be_saved_over_its_own_file(dag, tmp_path):
    path = tmp_path / "model.safegraph"
    dag.save(path)
    found = SafeDAG.load(path)
    found.prune().save(path)
    same(found, dag)
    assert "lazy" not in SafeDAG.load(path).tensors


# -- whole or not at all --------------------------------------------------------------------------


@pytest.mark.parametrize("before", [None, b"what stood there"])
def test_a_failing_write_leaves_nothing(before, tmp_path):
    path = tmp_path / "model.safegraph"
    if before is not None:
        path.write_bytes(before)

    def broken() -> np.ndarray:
        raise GraphError("the disk is gone")

    tensors = [
        Tensor("w", "parameter", parse_type("f32[100]"), np.zeros(100, np.float32)),
        Tensor("v", "parameter", parse_type("f32[100]"), broken),
    ]
    with pytest.raises(GraphError, match="the disk is gone"):
        SafeDAG(tensors, [], ["w"]).save(path)
    assert (path.read_bytes() if path.exists() else None) == before
    assert os.listdir(tmp_path) == ([] if before is None else ["model.safegraph"])


def test_data_of_another_type_is_refused(tmp_path):
    tensors = [Tensor("w", "parameter", parse_type("f32[3]"), np.zeros(3))]
    with pytest.raises(GraphError, match=r"w is declared f32\[3\], its data is f64\[3\]"):
        SafeDAG(tensors, [], ["w"]).save(tmp_path / "m.safegraph")
    assert os.listdir(tmp_path) == []


def test_a_place_that_cannot_be_written(dag, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    for path in (tmp_path / "no" / "m.safegraph", folder):
        with pytest.raises(OutputError, match=r"cannot write .*nothing was left there"):
            dag.save(path)
    assert sorted(os.listdir(tmp_path)) == ["folder"]


def test_data_that_safetensors_cannot_hold_is_listed(tmp_path):
    data = np.zeros(2, np.complex128)
    tensors = [Tensor(n, "const", parse_type("c128[2]"), data) for n in ("p", "q")]
    with pytest.raises(UnsupportedError) as caught:
        SafeDAG(tensors, [], ["p"]).save(tmp_path / "m.safegraph")
    assert caught.value.problems == ("const p: c128[2]", "const q: c128[2]")
    assert os.listdir(tmp_path) == []


# -- files that are refused -----------------------------------------------------------------------


def rewritten(path: Path, **members: bytes | None) -> Path:
    """A copy of a native file with members replaced, or left out (None)."""
    target = path.with_name("changed.safegraph")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = members.get(name.partition(".")[0], old.read(name))
            if content is not None:
                new.writestr(name, content)
    return target


def test_a_missing_file(tmp_path):
    with pytest.raises(FormatError, match=r"cannot read .*No such file"):
        SafeDAG.load(tmp_path / "no.safegraph")
    with pytest.raises(FormatError, match="cannot read"):
        SafeDAG.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"graph g\n", b"PK\x03\x04", bytes(1000)])
def test_a_foreign_file(content, tmp_path):
    path = tmp_path / "foreign.safegraph"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"foreign\.safegraph is no \.safegraph file"):
        SafeDAG.load(path)
    assert path.read_bytes() == content


def test_another_zip_is_refused(tmp_path):
    path = tmp_path / "other.safegraph"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("constants.pkl", b"")
    with pytest.raises(FormatError, match=r"no \.safegraph file"):
        SafeDAG.load(path)


def test_every_truncated_file_is_refused(dag, tmp_path):
    path = tmp_path / "model.safegraph"
    dag.save(path)
    content = path.read_bytes()
    for length in range(0, len(content), 97):
        path.write_bytes(content[:length])
        with pytest.raises(FormatError):
            SafeDAG.load(path)


def test_a_newer_version_is_refused(dag, tmp_path):
    path = tmp_path / "model.safegraph"
    dag.save(path)
    meta = json.dumps({"format": "safegraph", "version": store.VERSION + 1, "producer": "tomorrow"})
    with pytest.raises(FormatError, match=r"version 2 .*tomorrow.* install a newer one"):
        SafeDAG.load(rewritten(path, meta=meta.encode()))


@pytest.mark.parametrize(
    ("member", "content", "problem"),
    [
        ("meta", None, "meta.json"),
        ("meta", b'{"format": "other", "version": 1}', "other"),
        ("meta", b"[]", "no .safegraph file"),
        ("graph", None, "graph.txt"),
        ("graph", b"graph g\n  y = what(x)", "graph.txt: .*\n.*line 2"),
        ("graph", b"graph g\n", "data for tensors that the graph lacks"),
        ("tensors", None, "tensors.safetensors"),
        ("tensors", b"", "no .safegraph file"),
        ("tensors", b"\xff" * 100, "longer than the file"),
        ("tensors", safetensors.numpy.save({"nothing": np.zeros(7)}), "nothing is declared"),
    ],
)
def test_a_damaged_member_is_refused(member, content, problem, dag, tmp_path):
    path = tmp_path / "model.safegraph"
    dag.save(path)
    with pytest.raises(SafeGraphError, match=problem):
        SafeDAG.load(rewritten(path, **{member: content})).tensors["nothing"].array()


def test_offsets_beyond_the_data_are_refused(dag, tmp_path):
    path = tmp_path / "model.safegraph"
    dag.save(path)
    for begin, end in ((0, 28), (-28, 0), (1 << 40, (1 << 40) + 28)):
        entry = {"dtype": "F32", "shape": [7], "data_offsets": [begin, end]}
        header = json.dumps({"nothing": entry}).encode()
        with pytest.raises(FormatError, match="nothing is not where"):
            SafeDAG.load(rewritten(path, tensors=len(header).to_bytes(8, "little") + header))
