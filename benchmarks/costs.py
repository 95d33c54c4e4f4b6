"""Costs against everything that can be asked independently: prints what agrees and how fast.

    python -m benchmarks.costs                      # all that needs no other tool
    python -m benchmarks.costs models symbolic bytes peak conventions files speed
    python -m benchmarks.costs conventions speed --jax PYTHON --tools FOLDER
    python -m benchmarks.costs files FOLDER_OR_FILE ...

XLA's count is that of `benchmarks.cost_jax` as recorded, or runs again in an environment with jax:
`python -m venv jax && jax/bin/pip install jax`, then `--jax jax/bin/python`.  onnx-tool and fvcore
pin old packages and are put beside the others: `pip install --no-deps --target tools onnx-tool
fvcore iopath yacs portalocker tabulate termcolor tqdm`, then `--tools tools`.  The ONNX files are
those of the onnx package, and of `pip download --no-deps silero-vad basic-pitch magika
rapidocr-onnxruntime`: wheels are looked into.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import torch
from rich.console import Console
from rich.table import Table

from benchmarks import cost_jax
from benchmarks.cost_models import MODELS, Case, Transformer
from benchmarks.cost_probes import PROBES
from safegraph import SafeDAG, tensor
from safegraph.dims import dims
from safegraph.errors import SafeGraphError
from safegraph.extract.cost import Cost
from tests.cost_oracles import peak_memory, symbolic_flops, traffic

CONSOLE = Console(width=150)

# name: (the case, free axes of its inputs, types for them if not those of the case)
SYMBOLIC: dict[str, tuple[Case, list[dict[int, str]], tuple[str, ...]]] = {
    **{name: (MODELS[name], [{0: "batch"}], ()) for name in ("mobilenetv2", "vit_b16", "unet")},
    **{name: (MODELS[name], [{0: "batch", 1: "seq"}], ()) for name in ("bert", "gpt2")},
    "resnet50": (
        MODELS["resnet50"], [{0: "batch", 2: "h", 3: "w"}], ("f32[batch 3 h w]",),
    ),
    "dcgan": (
        MODELS["dcgan"], [{0: "batch", 2: "h", 3: "w"}], ("f32[batch 100 h w]",),
    ),
    "encoder of 2": (
        Case(lambda: Transformer(2), ("i64[batch seq]",), 0, {"batch": 2, "seq": 12}),
        [{0: "batch", 1: "seq"}], (),
    ),
}  # fmt: skip
EXAMPLE = {"batch": 3, "seq": 12, "h": 64, "w": 96}
BINDINGS = (
    {"batch": 1},
    {"batch": 2},
    {"batch": 5, "seq": 60},
    {"batch": 3, "seq": 200},
    {"seq": 9},
)
TRACED = ("resnet50", "mobilenetv2", "unet", "dcgan", "bert", "gpt2")
TOOLS = ("resnet50", "mobilenetv2", "bert", "Linear on 3-D", "grouped", "Conv1d", "layer norm",
         "attention spelt", "softmax", "GELU", "LSTM", "GRU", "lstm")  # fmt: skip


def traced(case: Case, **sizes: int) -> SafeDAG:
    """The graph of a model, by TorchScript, with the case's free sizes."""
    with torch.no_grad():
        script = torch.jit.trace(case.model(), case.inputs(**sizes), check_trace=False)
    return SafeDAG.from_torchscript(script, list(case.types))


def exported(case: Case) -> onnx.ModelProto:
    """The model as ONNX, by the exporter that has its ops."""
    model, inputs, file = case.model(), case.inputs(), io.BytesIO()
    # Fused layers, which a model without gradients takes, are in no ONNX exporter.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            torch.onnx.export(model, inputs, file, dynamo=False, opset_version=17)
    except (torch.onnx.errors.UnsupportedOperatorError, torch.onnx.errors.SymbolicValueError):
        return torch.onnx.export(model, inputs, dynamo=True, verbose=False).model_proto
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    return onnx.load_from_string(file.getvalue())


def at(found: Cost, sizes: dict[str, int]) -> Cost:
    """The cost at those of the sizes that it has."""
    return found.bind({name: value for name, value in sizes.items() if name in found.names})


def attempt(count: Callable[[], Any]) -> str:
    """The number, or in a line why there is none."""
    try:
        return f"{int(count()):,}"
    except Exception as error:  # whatever stops one row must not stop the table
        return f"{type(error).__name__}: {str(error).splitlines()[0][:70]}"


def models() -> None:
    """Multiply-adds of the models and single ops, from TorchScript and from ONNX."""
    table = Table("model", "exact MACs", "TorchScript", "ONNX")
    right: Counter[str] = Counter()
    for name, case in (MODELS | PROBES).items():
        row = [
            attempt(lambda case=case: at(traced(case).cost(), case.sizes).macs),
            attempt(lambda case=case: SafeDAG.from_onnx(exported(case)).cost().macs),
        ]
        for source, cell in zip(("TorchScript", "ONNX"), row, strict=True):
            right[source] += cell == f"{case.macs:,}"
        table.add_row(name, f"{case.macs:,}", *("=" if c == f"{case.macs:,}" else c for c in row))
    CONSOLE.print(table)
    count = len(MODELS) + len(PROBES)
    for source, n in right.items():
        CONSOLE.print(f"exact from {source}: {n} of {count}")


def symbolic() -> None:
    """Formulas, against torch's FlopCounterMode on the decomposed export."""
    table = Table("model", "free", "equal", "ours [s]", "torch, with its export [s]", "flops")
    for name, (case, axes, types) in SYMBOLIC.items():
        case = replace(case, types=types or case.types)
        dag = traced(case, **EXAMPLE)
        started = time.perf_counter()
        ours = dag.cost(convention="torch").totals["counted"]
        middle = time.perf_counter()
        theirs = symbolic_flops(case.model(), case.inputs(**EXAMPLE), axes)
        last = time.perf_counter()
        free = ", ".join(n for one in axes for n in one.values())
        text = str(ours) if len(str(ours)) < 70 else f"{str(ours)[:67]}..."
        equal = "yes" if ours is theirs else f"no: {theirs}"
        table.add_row(name, free, equal, f"{middle - started:.2f}", f"{last - middle:.2f}", text)
    CONSOLE.print(table)


def bytes_() -> None:
    """Bytes read and written, against the ops that torch runs."""
    table = Table("model", "read", "written", "torch's ops read", "and write", "equal")
    for name in TRACED:
        found = at(traced(MODELS[name]).cost(), MODELS[name].sizes)
        ours = int(found.memory_reads), int(found.memory_writes)
        theirs = traffic(MODELS[name].model(), *MODELS[name].inputs())
        row = [f"{n:,}" for n in (*ours, *theirs)]
        table.add_row(name, *row, "yes" if ours == theirs else "no")
    CONSOLE.print(table)


def peak() -> None:
    """Peak memory, against live ranges of torch's exported graph, at five bindings."""
    table = Table("model", "peak bytes", "bindings that agree")
    for name in TRACED:
        case = MODELS[name]
        found = traced(case).cost()
        agree = sum(
            at(found, case.sizes | sizes).peak_memory
            == peak_memory(case.model(), *case.inputs(**sizes))
            for sizes in BINDINGS
        )
        table.add_row(name, str(found.peak_memory), f"{agree} of {len(BINDINGS)}")
    CONSOLE.print(table)


def conventions(jax: str | None, tools: str | None) -> None:
    """Counts of other tools: recorded, or run now where they are at hand."""
    theirs = cost_jax.RECORDED
    if jax:
        done = subprocess.run([jax, cost_jax.__file__], capture_output=True, text=True, check=True)
        theirs = {name: tuple(pair) for name, pair in json.loads(done.stdout).items()}
    equal = [name for name in cost_jax.SHAPES if cost_jax.ours(name) == tuple(theirs[name])]
    source = "run now" if jax else "as recorded"
    CONSOLE.print(f"xla: {len(equal)} of {len(cost_jax.SHAPES)} programs equal ({source})")
    if not tools:
        CONSOLE.print("onnx-tool, fvcore: not at hand (--tools); tests have recorded figures")
        return
    sys.path.append(tools)
    table = Table("model", "onnx-tool", "ours", "fvcore", "ours")
    for name in TOOLS:
        case = (MODELS | PROBES)[name]
        model = exported(case)
        ours = SafeDAG.from_onnx(model).cost(convention="onnx-tool").counted
        fvcore = at(traced(case).cost(convention="fvcore"), case.sizes).counted
        table.add_row(
            name, attempt(lambda m=model: _onnx_tool(m)), f"{int(ours):,}",
            attempt(lambda c=case: _fvcore(c)), f"{int(fvcore):,}",
        )  # fmt: skip
    CONSOLE.print(table)


def _onnx_tool(model: onnx.ModelProto) -> int:
    import onnx_tool

    with contextlib.redirect_stdout(io.StringIO()):
        loaded = onnx_tool.Model(model, {"verbose": False})
        loaded.graph.graph_reorder_nodes()
        loaded.graph.shape_infer()
        loaded.graph.profile()
    return int(loaded.graph.macs[0])


def _fvcore(case: Case) -> int:
    from fvcore.nn import FlopCountAnalysis

    logging.disable(logging.WARNING)
    count = FlopCountAnalysis(case.model(), case.inputs())
    return int(count.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total())


def files(paths: list[str]) -> None:
    """Every ONNX file: a complete cost, what has none, or why it was not loaded."""
    given = [Path(p) for p in paths] or [Path(onnx.__file__).parent]
    with tempfile.TemporaryDirectory() as folder:
        found = sorted(_onnx_files(given, Path(folder)))
        outcome: Counter[str] = Counter()
        table = Table("file", "what has no cost")
        for path in found:
            try:
                cost = SafeDAG.from_onnx(path).cost(allow_unknown=True)
            except SafeGraphError as error:
                outcome["not loaded"] += 1
                table.add_row(_short(path), f"not loaded: {str(error)[:100]}")
                continue
            outcome["some ops without a cost, listed" if cost.unknown else "complete"] += 1
            if cost.unknown:
                table.add_row(
                    _short(path), ", ".join(f"{n} x {k}" for k, n in cost.unknown.items())
                )
    CONSOLE.print(table)
    CONSOLE.print(f"{len(found)} files: " + ", ".join(f"{n} {k}" for k, n in outcome.items()))


def _short(path: Path) -> str:
    return "/".join(path.parts[-2:])


def _onnx_files(given: list[Path], folder: Path) -> Iterator[Path]:
    for path in given:
        if path.suffix == ".whl":
            with zipfile.ZipFile(path) as wheel:
                names = [n for n in wheel.namelist() if n.endswith(".onnx")]
                yield from (Path(wheel.extract(n, folder / path.stem)) for n in names)
        elif path.is_dir():
            yield from path.rglob("*.onnx")
            yield from _onnx_files(sorted(path.glob("*.whl")), folder)
        else:
            yield path


def speed(tools: str | None) -> None:
    """How long it takes, and how long the others take on the same models, in the same run."""
    table = Table("what", "seconds", "wanted")
    dag = traced(MODELS["gpt2"])
    table.add_row("cost of GPT-2 small, free batch and seq", f"{_time(dag.cost):.3f}", "1")
    x = tensor("x", "f32[n 64]")
    y = x
    for _ in range(3_334):
        y = (y.tanh() + x).exp()
    long = SafeDAG.from_values({"y": y})
    table.add_row(f"cost of a graph of {len(long):,} ops", f"{_time(long.cost):.3f}", "5")
    sizes = "100,000 size operations, 1,000 distinct, 100 floors"
    table.add_row(sizes, f"{_time(_sizes):.3f}", "2")
    CONSOLE.print(table)
    if tools:
        sys.path.append(tools)
    table = Table(
        "model, cost counted by", "SafeGraph [s]", "and read [s]", *PEERS, title=PEERS_NOTE
    )
    for name in ("resnet50", "mobilenetv2", "gpt2"):
        case = MODELS[name]
        ours = _time(traced(case).cost)
        script = torch.jit.trace(case.model(), case.inputs(), check_trace=False)
        read = _time(lambda s=script, c=case: SafeDAG.from_torchscript(s, list(c.types)).cost())
        others = [_beside(ours, prepare, case, bool(tools)) for prepare in PEERS.values()]
        table.add_row(name, f"{ours:.3f}", f"{read:.3f}", *others)
    CONSOLE.print(table)


def _flop_counter(case: Case) -> Callable[[], Any]:
    from torch.utils.flop_counter import FlopCounterMode

    model, inputs = case.model(), case.inputs()

    def run() -> None:
        with torch.no_grad(), FlopCounterMode(display=False):
            model(*inputs)

    return run


def _onnx_tool_loaded(case: Case) -> Callable[[], Any]:
    model = exported(case)
    _onnx_tool(model)  # its imports are not its speed
    return lambda: _onnx_tool(model)


def _fvcore_loaded(case: Case) -> Callable[[], Any]:
    _fvcore(PROBES["F.linear"])
    return lambda: _fvcore(case)


PEERS: dict[str, Callable[[Case], Callable[[], Any]]] = {
    "FlopCounterMode": _flop_counter,
    "fvcore": _fvcore_loaded,
    "onnx-tool": _onnx_tool_loaded,
}
PEERS_NOTE = "ours: formulas in the free sizes, of a loaded graph; theirs: numbers for one example"


def _beside(
    ours: float, prepare: Callable[[Case], Callable[[], Any]], case: Case, at_hand: bool
) -> str:
    """The seconds of another tool, and how many times ours that is."""
    if prepare is not _flop_counter and not at_hand:
        return "not at hand (--tools)"
    try:
        theirs = _time(prepare(case))
    except Exception as error:  # whatever stops one row must not stop the table
        return f"{type(error).__name__}: {str(error).splitlines()[0][:40]}"
    return f"{theirs:.3f} ({theirs / ours:.1f}x)"


def _sizes() -> None:
    batch, seq, height = dims("batch seq height")
    for _ in range(100):
        for i in range(450):
            width = batch * (1_000 + i)  # 450 distinct
            width * seq  # 450 distinct
        for i in range(100):
            (height // (2 + i))  # 100 floors


def _time(function: Callable[[], Any]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", nargs="*", help="sections, and for `files` paths")
    parser.add_argument("--jax", help="a Python that has jax")
    parser.add_argument("--tools", help="a folder with onnx-tool and fvcore")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    sections: dict[str, Callable[[], None]] = {
        "models": models,
        "symbolic": symbolic,
        "bytes": bytes_,
        "peak": peak,
        "conventions": lambda: conventions(options.jax, options.tools),
        "files": lambda: files([w for w in options.what if w not in sections]),
        "speed": lambda: speed(options.tools),
    }
    unknown = [w for w in options.what if w not in sections and not Path(w).exists()]
    if unknown:
        parser.error(
            f"{', '.join(unknown)}: no section and no file; sections: {', '.join(sections)}"
        )
    for name in [w for w in options.what if w in sections] or sections:
        CONSOLE.rule(name)
        sections[name]()


if __name__ == "__main__":
    main()
