"""What people do with graphs: load, save, convert, cost, check, optimize, measure.

This is where the formats, the laws and the extraction meet the graph; each is imported when it is
first used.
"""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

from safegraph.errors import (
    BindingError,
    FormatError,
    OutputError,
    SafeGraphError,
    UnsupportedError,
)

if TYPE_CHECKING:
    import numpy as np

    from safegraph.compare import Verdict
    from safegraph.dag import SafeDAG
    from safegraph.extract.cost import Cost

SUFFIXES = {
    ".onnx": "ONNX",
    ".pt": "TorchScript",
    ".pth": "TorchScript",
    ".jit": "TorchScript",
    ".ts": "TorchScript",
    ".torchscript": "TorchScript",
    ".safegraph": "SafeGraph",
    ".pt2": "torch.export",
    ".tflite": "LiteRT",
}
"""The format that a file's name stands for."""
SUPPORTED = ("ONNX", "TorchScript", "SafeGraph")
_SUPPORTED = ", ".join(SUPPORTED)
_WEIGHTS = "holds weights, no graph: save torch.jit.trace of the model"
_INSTEAD = {
    "torch.export": "write the program with torch.onnx.export, or the model with torch.jit.trace",
    "LiteRT": "export the model as ONNX where it was made",
}
"""What to do about a format that cannot be read or written."""


# -- formats --------------------------------------------------------------------------------------


def from_onnx(source: Any) -> SafeDAG:
    """The graph of an ONNX model: a path, a ModelProto or an onnx_ir.Model."""
    with _extra("onnx"):
        from safegraph.frontends.onnx import from_onnx
    return from_onnx(source)


def from_torchscript(source: Any, inputs: Any = None) -> SafeDAG:
    """The graph of a TorchScript module or file; see `SafeDAG.from_torchscript`."""
    with _extra("torch"):
        from safegraph.frontends.torchscript import from_torchscript
    return from_torchscript(source, inputs)


def to_onnx(dag: SafeDAG, path: str | Path | None = None) -> Any:
    """The graph as an ONNX ModelProto, written to `path` if one is given, whole or not at all."""
    with _extra("onnx"):
        from safegraph.frontends.onnx import to_onnx
    return to_onnx(dag, path)


def to_torchscript(dag: SafeDAG, path: str | Path | None = None) -> Any:
    """The graph as a TorchScript module, written to `path` if one is given, whole or not at all."""
    with _extra("torch"):
        from safegraph.frontends.torchscript import to_torchscript
    return to_torchscript(dag, path)


@contextmanager
def _extra(name: str) -> Iterator[None]:
    """Say which extra to install when a framework is missing."""
    from safegraph.errors import MissingPackageError

    try:
        yield
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("safegraph"):
            raise
        raise MissingPackageError(
            f"this format needs {error.name}, which is not installed: "
            f"pip install 'safegraph[{name}]'"
        ) from None


def load(path: str | Path, inputs: Any = None) -> SafeDAG:
    """The graph in a file, its format told by suffix and content.

    `inputs` are types of the inputs (`["f32[batch 3 224 224]"]`) for TorchScript, which does not
    always record them.  Raises FormatError for a file that is missing or not what its name says,
    UnsupportedError for a format that SafeGraph knows of but does not read, and BindingError for
    `inputs` of a file that records them.
    """
    path = Path(path)
    found = content_format(path)
    named = SUFFIXES.get(path.suffix.lower())
    if named and found and named != found:
        raise FormatError(f"{path} is named as {named}, but its content is {found}: rename it")
    kind = named or found
    if kind is None:
        raise FormatError(f"{path} is in no known format; there are {_known_suffixes()}")
    if kind not in SUPPORTED:
        raise UnsupportedError(
            f"{path}: {kind} files cannot be read, only {_SUPPORTED}: {_INSTEAD[kind]}"
        )
    if inputs is not None and kind != "TorchScript":
        raise BindingError(
            f"{path}: types of inputs are given to TorchScript files only; {kind} files have them"
        )
    if kind == "ONNX":
        return from_onnx(path)
    if found is None:  # the others are archives
        raise FormatError(f"{path} is no {kind} file, or its beginning is damaged")
    if kind == "TorchScript":
        return from_torchscript(path, inputs)
    from safegraph.dag import SafeDAG

    return SafeDAG.load(path)


def takes_inputs(path: str | Path) -> bool:
    """Is it a file whose inputs have no types of their own?"""
    path = Path(path)
    return (SUFFIXES.get(path.suffix.lower()) or content_format(path)) == "TorchScript"


def save(dag: SafeDAG, path: str | Path) -> None:
    """Write a graph in the format of the file's suffix, whole or not at all.

    Raises OutputError where that is impossible, and UnsupportedError where the format cannot hold
    an op of the graph or cannot be written.
    """
    path = Path(path)
    kind = output_format(path)
    if kind == "ONNX":
        to_onnx(dag, path)
    elif kind == "TorchScript":
        to_torchscript(dag, path)
    else:
        dag.save(path)


def output_format(path: str | Path) -> str:
    """The format that a file of this name is written in; raises before any work is done for it."""
    path = Path(path)
    kind = SUFFIXES.get(path.suffix.lower())
    if kind is None:
        suffix = path.suffix or "(none)"
        raise FormatError(
            f"{path}: the suffix {suffix} is no format; there are {_known_suffixes()}"
        )
    if kind not in SUPPORTED:
        raise UnsupportedError(f"{path}: {kind} files cannot be written, only {_SUPPORTED}")
    if path.is_dir():
        raise OutputError(f"{path} is a folder: name a file in it")
    if not path.parent.is_dir():
        raise OutputError(f"{path} cannot be written: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OutputError(f"{path} cannot be written: no files may be made in {path.parent}")
    return kind


def content_format(path: Path) -> str | None:
    """The format of a file by what is in it, or None where that tells nothing.

    Raises FormatError for a file that is missing, empty, a folder or of a foreign format.
    """
    if path.is_dir():
        raise FormatError(f"{path} is a folder, not a model file")
    if not path.exists():
        raise FormatError(f"there is no file {path}")
    with path.open("rb") as file:
        head = file.read(16)
    if not head:
        raise FormatError(f"{path} is empty")
    if head[:4] == b"PK\x03\x04":
        return _zip_format(path)
    if head[4:8] == b"TFL3":
        return "LiteRT"
    for start, what in _FOREIGN:
        if head.startswith(start):
            raise FormatError(f"{path} is {what}; a model is one of {_known_suffixes()}")
    return None


_FOREIGN = (
    (b"\x80\x02", f"a Python pickle (a PyTorch checkpoint {_WEIGHTS})"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x89PNG", "a picture"),
    (b"\x1f\x8b", "compressed with gzip: unpack it first"),
    (b"version https://git-lfs", "a Git LFS pointer: fetch the file itself with `git lfs pull`"),
)


def _zip_format(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError) as error:
        raise FormatError(f"{path} is a damaged archive, perhaps cut short ({error})") from None
    inner = {name.partition("/")[2] for name in names}
    if any(name.startswith("code/") for name in inner) and "constants.pkl" in inner:
        return "TorchScript"
    if {"archive_format", "serialized_exported_program.json"} & {*inner, *names}:
        return "torch.export"
    if "data.pkl" in inner:
        raise FormatError(f"{path} is a PyTorch checkpoint, which {_WEIGHTS}")
    if any(name.startswith("graph.") for name in names):
        return "SafeGraph"
    listed = ", ".join(names[:3]) or "nothing"
    raise FormatError(f"{path} is an archive of something else ({listed}, ...)")


def _known_suffixes() -> str:
    return ", ".join(f"{suffix} ({name})" for suffix, name in SUFFIXES.items() if name in SUPPORTED)


# -- questions ------------------------------------------------------------------------------------


def cost(dag: SafeDAG, *, allow_unknown: bool = False, convention: str | None = None) -> Cost:
    """What a graph costs, as formulas in its free sizes; `convention` adds another tool's count."""
    from safegraph.extract.cost import cost

    return cost(dag, allow_unknown, convention)


def check(a: SafeDAG, b: SafeDAG, **options: Any) -> Verdict:
    """Are two graphs equal?  See `safegraph.compare.check` for the options."""
    from safegraph.compare import check

    return check(a, b, **options)


def optimize(
    dag: SafeDAG,
    target: str = "onnxruntime",
    sizes: Mapping[str, int] | None = None,
    *,
    laws: Any = (),
    **options: Any,
) -> Any:
    """The cheapest equal graph that was found for a target.

    Free sizes that `sizes` does not give are taken as 16.  `laws` of your own (or the path of a
    Python file that has some) are used beside SafeGraph's; they are trusted, so check them first
    (`safegraph.laws.check`).  The result has the graph as `.dag`, the predicted seconds as
    `.before` and `.after`, and `.report`, which says how it was found; with `explain=True`,
    `.explanation` has the laws that lead to it, one by one, each with its graph.
    """
    from safegraph.extract.optimize import optimize

    if laws:
        from safegraph.laws import with_laws

        phases = {"phases": options["phases"]} if "phases" in options else {}
        options["phases"] = with_laws(laws, **phases)
    return optimize(dag, target, complete(dag, sizes or {}), **options)


def refine(dag: SafeDAG, **options: Any) -> SafeDAG:
    """An equal graph in which structure is recognised: contractions, named ops."""
    from safegraph.extract.optimize import refine

    return refine(dag, **options)


def unbatch(dag: SafeDAG, axis: int | Mapping[str, int | None] | str = 0) -> SafeDAG:
    """The graph for one sample; see `SafeDAG.unbatch`."""
    from safegraph.batch import unbatch

    return unbatch(dag, axis).dag


def batch(dag: SafeDAG, size: str | int | Mapping[str, str | int] = "batch") -> SafeDAG:
    """The graph for many samples; see `SafeDAG.batch`."""
    from safegraph.batch import batch

    return batch(dag, size)


def rebatch(
    dag: SafeDAG, name: str = "batch", axis: int | Mapping[str, int | None] | str = 0
) -> SafeDAG:
    """The graph for any number of samples; see `SafeDAG.rebatch`."""
    from safegraph.batch import rebatch

    return rebatch(dag, name, axis)


def complete(dag: SafeDAG, sizes: Mapping[str, int]) -> dict[str, int]:
    """A value for every free size: those given, 16 for the others."""
    from safegraph.extract.cost import DEFAULT_SIZE

    unknown = [name for name in sizes if name not in dag.sizes]
    if unknown:
        has = ", ".join(dag.sizes) or "none"
        raise BindingError(f"{dag.name} has no free size {', '.join(unknown)}; it has {has}")
    return {name: sizes.get(name, DEFAULT_SIZE) for name in dag.sizes}


# -- time -----------------------------------------------------------------------------------------


def measure(dag: SafeDAG, target: str, sizes: Mapping[str, int], **options: Any) -> float | None:
    """Seconds of one run in the target's runtime, or None where that is not installed."""
    found = race([dag], target, sizes, **options)
    return found[0] if found else None


def race(
    dags: Sequence[SafeDAG],
    target: str,
    sizes: Mapping[str, int],
    *,
    seconds: float = 5.0,
    runs: int = 30,
) -> list[float] | None:
    """Seconds of one run of each graph in the target's runtime.

    Medians of runs in turn, so that what else the machine does falls on all graphs alike: `runs` of
    each, fewer when `seconds` are over (at least 3).  None where the runtime is not installed, or
    cannot run the first graph.  The others are to be equal to it: raises OutputError where the
    runtime cannot run one of them, or computes other floats.
    """
    from safegraph.compare import random_inputs

    runtime = {"onnxruntime": "onnxruntime", "torch": "torch"}.get(target)
    if runtime is None or find_spec(runtime) is None:
        return None
    start = _onnxruntime if runtime == "onnxruntime" else _torch
    with tempfile.TemporaryDirectory() as folder:
        runners: list[Callable[[], Sequence[Any]]] = []
        expected: Sequence[Any] = ()
        drawn = random_inputs(dags[0], complete(dags[0], sizes)).values()
        for i, dag in enumerate(dags):
            given = dict(zip((t.name for t in dag.inputs), drawn, strict=True))
            try:
                run = start(dag, given, Path(folder) / f"{i}")
                computed = run()  # the first run allocates
            except SafeGraphError:
                raise
            except Exception as error:  # the runtimes have no class of errors in common
                if not i:
                    return None
                raise OutputError(f"{runtime} cannot run the result: {error}") from error
            expected = expected or computed
            if not all(map(_close, computed, expected)):
                raise OutputError(f"{runtime} computes something else of the result")
            runners.append(run)
        times: list[list[float]] = [[] for _ in runners]
        end = perf_counter() + seconds
        while len(times[0]) < 3 or (len(times[0]) < runs and perf_counter() < end):
            for run, seen in zip(runners, times, strict=True):
                began = perf_counter()
                run()
                seen.append(perf_counter() - began)
    return [median(seen) for seen in times]


def _close(a: Any, b: Any) -> bool:
    """Could two results differ by rounding alone?  Told of floats: one ulp may turn an index."""
    import numpy as np

    x, y = np.asarray(a), np.asarray(b)
    if x.shape != y.shape or x.dtype.kind != "f":
        return x.shape == y.shape
    both = np.isfinite(x) & np.isfinite(y)
    if not both.any():
        return True
    x, y = x[both].astype(np.float64), y[both].astype(np.float64)
    return bool(np.abs(x - y).max() <= _ROUNDING * np.abs(y).max())


_ROUNDING = 0.05  # parts of the largest value: an operand in the wrong place shows, f16 does not


def _onnxruntime(dag: SafeDAG, inputs: Mapping[str, np.ndarray], stem: Path) -> Callable[[], Any]:
    import onnxruntime

    path = stem.with_suffix(".onnx")
    to_onnx(dag, path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is said once, by the error
    # threads of one session that wait actively would slow the other one down
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    given = dict(zip((i.name for i in session.get_inputs()), inputs.values(), strict=True))
    return lambda: session.run(None, given)


def _torch(dag: SafeDAG, inputs: Mapping[str, np.ndarray], stem: Path) -> Callable[[], Any]:
    import torch

    module = to_torchscript(dag)
    given = [torch.from_numpy(array) for array in inputs.values()]

    def run() -> Any:
        with torch.inference_mode():
            found = module(*given)
        return found if isinstance(found, tuple) else (found,)

    return run
