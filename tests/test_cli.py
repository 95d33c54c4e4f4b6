"""The command line: answers on standard output, one clear message for what cannot be done."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from safegraph import SafeDAG, __version__, tensor, verbs
from safegraph.cli import main
from safegraph.dag import Tensor
from safegraph.value import parse_type

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def safegraph(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Runs the command line on arguments."""

    def call(*args: object) -> Done:
        with pytest.raises(SystemExit) as end:
            main([str(a) for a in args])
        seen = capsys.readouterr()
        code = end.value.code
        assert isinstance(code, int)
        return Done(code, seen.out, seen.err)

    return call


def product_of_three() -> SafeDAG:
    """(x @ A) @ B written as x @ (A @ B), which a low rank makes dear."""
    rng = np.random.default_rng(0)
    shapes = {"A": (64, 4), "B": (4, 64)}
    leaves = [
        Tensor(
            n, "parameter", parse_type(f"f32[{r} {c}]"), rng.standard_normal((r, c)).astype("f4")
        )
        for n, (r, c) in shapes.items()
    ]
    x, a, b = tensor("x", "f32[batch 64]"), tensor("A", "f32[64 4]"), tensor("B", "f32[4 64]")
    return SafeDAG.from_values({"y": x @ (a @ b)}, leaves, name="low_rank")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small model in the native format."""
    path = tmp_path / "model.safegraph"
    verbs.save(product_of_three(), path)
    return path


def onnx_model(path: Path, *kinds: str, domain: str = "com.example") -> Path:
    """An ONNX file: a product with weights, and then ops of these kinds in a row."""
    value = helper.make_tensor_value_info
    nodes = [helper.make_node("MatMul", ["x", "w"], ["v0"])]
    for i, kind in enumerate(kinds):
        nodes.append(
            helper.make_node(kind, [f"v{i}"], [f"v{i + 1}"], name=f"node_{i}", domain=domain)
        )
    last = f"v{len(kinds)}"
    weights = numpy_helper.from_array(np.eye(3, dtype=np.float32), "w")
    graph = helper.make_graph(
        nodes,
        "small",
        [value("x", TensorProto.FLOAT, ["batch", 3])],
        [value(last, TensorProto.FLOAT, ["batch", 3])],
        [weights],
        value_info=[value(f"v{i}", TensorProto.FLOAT, ["batch", 3]) for i in range(len(kinds))],
    )
    sets = [helper.make_opsetid("", 18)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    onnx.save(helper.make_model(graph, opset_imports=sets, ir_version=10), str(path))
    return path


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder, with the hash of its content."""
    files = (p for p in folder.rglob("*") if p.is_file())
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


# -- what works -----------------------------------------------------------------------------------


def test_cost_prints_formulas(model: Path, safegraph: Callable[..., Done]):
    done = safegraph("cost", model)
    assert (done.code, done.err) == (0, "")
    assert "4096*batch + 16384" in done.out


def test_cost_as_json_has_strings(model: Path, safegraph: Callable[..., Done]):
    free = json.loads(safegraph("cost", model, "--json").out)
    assert free["macs"] == "4096*batch + 16384"
    assert free["parameters"] == "512"
    bound = json.loads(safegraph("cost", model, "--json", "--bind", "batch=2").out)
    assert bound["macs"] == "24576"


@pytest.mark.parametrize("by", ["op", "kind", "scope"])
def test_cost_by_parts(by: str, model: Path, safegraph: Callable[..., Done]):
    done = safegraph("cost", model, "--by", by)
    assert done.code == 0
    assert "8192*batch" in done.out
    rows = json.loads(safegraph("cost", model, "--by", by, "--json").out)[f"by_{by}"]
    assert sum(row["ops"] for row in rows) == 2


def test_inspect_says_what_is_there(model: Path, safegraph: Callable[..., Done]):
    done = safegraph("inspect", model)
    assert done.code == 0
    for part in (
        "low_rank",
        "x: f32[batch 64]",
        "y: f32[batch 64]",
        "2 parameters: 512 elements",
        "matmul",
    ):
        assert part in done.out


def test_inspect_prints_the_graph_so_that_it_reads_back(
    model: Path, safegraph: Callable[..., Done]
):
    text = safegraph("inspect", model, "--text").out
    assert str(SafeDAG.parse(text)).strip() == text.strip()


def test_convert_and_check(model: Path, tmp_path: Path, safegraph: Callable[..., Done]):
    for name in ("copy.safegraph", "model.onnx", "model.pt"):
        assert safegraph("convert", model, tmp_path / name).code == 0
    done = safegraph("check", model, tmp_path / "model.onnx")
    assert done.code == 0
    assert "equal" in done.out


def test_check_exits_with_one_where_models_differ(
    model: Path, tmp_path: Path, safegraph: Callable[..., Done]
):
    other = tmp_path / "other.safegraph"
    x = tensor("x", "f32[batch 64]")
    verbs.save(SafeDAG.from_values({"y": x * 2.0}), other)
    done = safegraph("check", model, other)
    assert done.code == 1
    assert done.out.startswith("not equal")
    assert json.loads(safegraph("check", model, other, "--json").out)["equal"] is False


def test_optimize_tells_what_it_gained_and_writes_it(
    model: Path, tmp_path: Path, safegraph: Callable[..., Done]
):
    output = tmp_path / "cheaper.onnx"
    done = safegraph("optimize", model, "-o", output, "--target", "onnxruntime")
    assert (done.code, done.err) == (0, "")
    assert "batch = 16" in done.out
    for part in ("before", "after", "flops", "predicted", "measured", "equal"):
        assert part in done.out
    assert safegraph("check", model, output).code == 0


@pytest.mark.parametrize(("after", "is_told"), [(1.2e-3, True), (1.01e-3, False), (0.5e-3, False)])
def test_optimize_tells_when_the_result_runs_slower(
    model: Path, tmp_path: Path, safegraph: Callable[..., Done], monkeypatch: pytest.MonkeyPatch,
    after: float, is_told: bool,
):  # fmt: skip
    monkeypatch.setattr("safegraph.verbs.race", lambda *args: [1e-3, after])
    done = safegraph("optimize", model, "-o", tmp_path / "cheaper.onnx")
    assert ("slower when measured here" in done.out) is is_told


def test_optimize_as_json(model: Path, tmp_path: Path, safegraph: Callable[..., Done]):
    output = tmp_path / "cheaper.onnx"
    done = safegraph("optimize", model, "-o", output, "--bind", "batch=4", "--json")
    found = json.loads(done.out)
    assert found["sizes"] == {"batch": 4}
    assert found["after"]["total_flops"] < found["before"]["total_flops"]
    assert found["after"]["predicted_seconds"] <= found["before"]["predicted_seconds"]
    assert found["check"]["equal"] is True
    assert "explanation" not in found


def test_optimize_explains(model: Path, tmp_path: Path, safegraph: Callable[..., Done]):
    command = ("optimize", model, "-o", tmp_path / "cheaper.onnx", "--explain")
    done = safegraph(*command)
    assert (done.code, done.err) == (0, "")
    assert "  => " in done.out
    steps = json.loads(safegraph(*command, "--json").out)["explanation"]
    assert steps
    assert all(f"{i}. {step['law']} [" in done.out for i, step in enumerate(steps, 1))


def test_version_and_module():
    done = subprocess.run(
        [sys.executable, "-m", "safegraph", "--version"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == f"safegraph {__version__}"


# -- what cannot work -----------------------------------------------------------------------------


def missing(folder: Path) -> Path:
    return folder / "none.onnx"


def truncated_onnx(folder: Path) -> Path:
    path = onnx_model(folder / "cut.onnx")
    path.write_bytes(path.read_bytes()[:-40])
    return path


def truncated_native(folder: Path) -> Path:
    path = folder / "cut.safegraph"
    verbs.save(product_of_three(), path)
    path.write_bytes(path.read_bytes()[:-200])
    return path


def truncated_script(folder: Path) -> Path:
    path = folder / "cut.pt"
    verbs.save(product_of_three(), path)
    path.write_bytes(path.read_bytes()[:-200])
    return path


def foreign(folder: Path) -> Path:
    path = folder / "foreign.onnx"
    path.write_text("dear reader, this is no model\n" * 20)
    return path


def renamed(folder: Path) -> Path:
    path = folder / "model.pt"
    verbs.save(product_of_three(), path)
    return path.rename(folder / "script.onnx")


BAD_FILES = [missing, truncated_onnx, truncated_native, truncated_script, foreign, renamed]


@pytest.mark.parametrize("command", ["inspect", "cost", "convert", "optimize", "check"])
@pytest.mark.parametrize("make", BAD_FILES, ids=lambda f: f.__name__)
def test_bad_files_give_one_message_and_leave_nothing(
    make: Callable[[Path], Path], command: str, tmp_path: Path, safegraph: Callable[..., Done]
):
    path = make(tmp_path)
    before = contents(tmp_path)
    rest: dict[str, list[Any]] = {
        "convert": [tmp_path / "out.safegraph"],
        "optimize": ["-o", tmp_path / "out.onnx"],
        "check": [path],
    }
    done = safegraph(command, path, *rest.get(command, []))
    assert (done.code, done.out) == (1, "")
    assert done.err.count("safegraph: ") == 1
    assert path.name in done.err
    assert "Traceback" not in done.err
    assert contents(tmp_path) == before


def test_unknown_ops_are_all_named_where_they_matter(
    tmp_path: Path, safegraph: Callable[..., Done]
):
    path = onnx_model(tmp_path / "unknown.onnx", "Foo", "Bar", "Baz")
    before = contents(tmp_path)
    for args in (
        ["cost", path],
        ["cost", path, "--json"],
        ["convert", path, tmp_path / "out.pt"],
        ["optimize", path, "-o", tmp_path / "out.onnx"],
    ):
        done = safegraph(*args)
        assert (done.code, done.out) == (1, "")
        assert all(kind in done.err for kind in ("Foo", "Bar", "Baz"))
        assert contents(tmp_path) == before


def test_unknown_ops_can_be_inspected_and_written_back(
    tmp_path: Path, safegraph: Callable[..., Done]
):
    path = onnx_model(tmp_path / "unknown.onnx", "Foo", "Bar", "Baz")
    done = safegraph("inspect", path)
    assert done.code == 0
    assert all(kind in done.out for kind in ("Foo", "Bar", "Baz", "3 unknown ops"))
    assert safegraph("convert", path, tmp_path / "same.onnx").code == 0
    kinds = [node.op_type for node in onnx.load(str(tmp_path / "same.onnx")).graph.node]
    assert kinds == ["MatMul", "Foo", "Bar", "Baz"]
    allowed = safegraph("cost", path, "--allow-unknown")
    assert allowed.code == 0
    assert "9*batch" in allowed.out
    assert "com.example::Foo" in allowed.out


def test_the_output_is_not_the_input(model: Path, tmp_path: Path, safegraph: Callable[..., Done]):
    before = contents(tmp_path)
    os.symlink(model, tmp_path / "link.safegraph")
    for output in (model, tmp_path / "link.safegraph"):
        for args in (["convert", model, output], ["optimize", model, "-o", output]):
            done = safegraph(*args)
            assert done.code == 1
            assert "is the input itself" in done.err
    (tmp_path / "link.safegraph").unlink()
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("folder.onnx", "is a folder"),
        ("none/out.onnx", "there is no folder"),
        ("out.xyz", "is no format"),
        ("out.tflite", "cannot be written"),
    ],
)
def test_outputs_that_cannot_be_are_refused_before_any_work(
    name: str, message: str, model: Path, tmp_path: Path, safegraph: Callable[..., Done]
):
    (tmp_path / "folder.onnx").mkdir()
    before = contents(tmp_path)
    for args in (["convert", model, tmp_path / name], ["optimize", model, "-o", tmp_path / name]):
        done = safegraph(*args)
        assert (done.code, done.out) == (1, "")
        assert message in done.err
        assert contents(tmp_path) == before


def test_a_folder_that_may_not_be_written_to(
    model: Path, tmp_path: Path, safegraph: Callable[..., Done]
):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    if os.access(locked, os.W_OK):  # the superuser may write there, but to no file of the kernel
        locked = Path("/proc")
    if not locked.is_dir():
        pytest.skip("this user may write everywhere")
    for name in ("out.safegraph", "out.onnx", "out.pt"):
        done = safegraph("convert", model, locked / name)
        assert (done.code, done.out) == (1, "")
        assert str(locked / name) in done.err
        assert name not in os.listdir(locked)


@pytest.mark.parametrize("name", ["out.safegraph", "out.onnx", "out.pt"])
@pytest.mark.parametrize("old", [None, b"precious"])
def test_a_full_disk_leaves_things_as_they_were(
    name: str,
    old: bytes | None,
    model: Path,
    tmp_path: Path,
    safegraph: Callable[..., Done],
    monkeypatch: pytest.MonkeyPatch,
):
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    output = tmp_path / name
    if old is not None:
        output.write_bytes(old)
    before = contents(tmp_path)
    monkeypatch.setattr(os, "replace", full)
    done = safegraph("convert", model, output)
    assert done.code == 1
    assert "No space left on device" in done.err
    assert str(output) in done.err
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["cost", "MODEL", "--bind", "n=3"], 1, "no free size n; it has batch"),
        (["cost", "MODEL", "--bind", "batch"], 2, "write batch=8"),
        (["cost", "MODEL", "--bind", "batch=0"], 2, "positive number"),
        (["check", "MODEL", "MODEL", "--bind", "n=3"], 1, "no free size n"),
        (["optimize", "MODEL", "-o", "OUT", "--bind", "n=3"], 1, "no free size n"),
        (["optimize", "MODEL"], 2, "--output"),
        (["paint", "MODEL"], 2, "No such command"),
    ],
)
def test_wrong_usage(
    args: list[str],
    code: int,
    message: str,
    model: Path,
    tmp_path: Path,
    safegraph: Callable[..., Done],
):
    names = {"MODEL": model, "OUT": tmp_path / "out.onnx"}
    done = safegraph(*(names.get(a, a) for a in args))
    assert (done.code, done.out) == (code, "")
    assert message in done.err
    assert os.listdir(tmp_path) == [model.name]


def test_help_says_the_limits_and_the_targets(safegraph: Callable[..., Done]):
    from safegraph.equivalence.graphs import BUDGET
    from safegraph.extract.optimize import DEFAULT_BUDGET
    from safegraph.extract.targets import TARGETS

    for command, budget in (("optimize", DEFAULT_BUDGET), ("check", BUDGET)):
        text = " ".join(safegraph(command, "--help").out.split())
        assert f"{budget.seconds:g} if not given" in text
        assert f"{budget.nodes:,}." in text
    text = " ".join(safegraph("optimize", "--help").out.split())
    assert all(name in text for name in TARGETS)


def test_other_input_shapes_are_told(model: Path, tmp_path: Path, safegraph: Callable[..., Done]):
    other = tmp_path / "other.safegraph"
    verbs.save(SafeDAG.from_values({"y": tensor("x", "f32[batch 32]").exp()}), other)
    done = safegraph("check", model, other)
    assert done.code == 1
    assert "f32[batch 64]" in done.out
    assert "f32[batch 32]" in done.out


def test_an_interrupt_leaves_nothing(
    model: Path, tmp_path: Path, safegraph: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
):
    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    before = contents(tmp_path)
    monkeypatch.setattr(os, "replace", interrupt)
    done = safegraph("convert", model, tmp_path / "out.safegraph")
    assert (done.code, done.out) == (130, "")
    assert contents(tmp_path) == before


def test_a_bug_is_called_one_and_shows_its_traceback_when_asked(
    model: Path, safegraph: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
):
    def broken(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(verbs, "cost", broken)
    done = safegraph("cost", model)
    assert done.code == 2
    assert "this is a bug: ZeroDivisionError: planted" in done.err
    assert "--debug" in done.err
    assert "Traceback" not in done.err
    assert "Traceback" in safegraph("--debug", "cost", model).err


def test_a_result_that_differs_is_not_written(
    model: Path, tmp_path: Path, safegraph: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
):
    class Wrong:
        dag = SafeDAG.from_values({"y": tensor("x", "f32[batch 64]") * 3.0})
        before, after, report = 1.0, 0.5, "a planted error"

    monkeypatch.setattr(verbs, "optimize", lambda *args, **options: Wrong())
    done = safegraph("optimize", model, "-o", tmp_path / "out.onnx")
    assert done.code == 1
    assert "nothing was written, because the result differs" in done.err
    assert os.listdir(tmp_path) == [model.name]
