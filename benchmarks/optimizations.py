"""What `optimize` finds in small programs, and what it is worth in ONNX Runtime.

Each program is exported by torch, optimized, written back and run beside the file as exported and
beside the better form written by hand: one thread, interleaved runs in one process, medians.

    python -m benchmarks.optimizations
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.cases import CASES, Case
from safegraph.dag import SafeDAG

RUNS = 31


def export(module: Any, inputs: tuple[Any, ...], path: Path) -> None:
    """A torch module as an ONNX file, with every weight as it is."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            inputs,
            path,
            dynamo=True,
            optimize=False,
            opset_version=20,
            external_data=False,
            verbose=False,
        )


def interleaved(
    paths: list[Path], inputs: tuple[Any, ...]
) -> tuple[list[float], list[list[np.ndarray]]]:
    """Median seconds of each file in ONNX Runtime, and its outputs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = [
        onnxruntime.InferenceSession(str(p), options, providers=["CPUExecutionProvider"])
        for p in paths
    ]
    arrays = [i.numpy() for i in inputs]
    feeds = [{x.name: a for x, a in zip(s.get_inputs(), arrays, strict=True)} for s in sessions]
    outputs = [s.run(None, f) for s, f in zip(sessions, feeds, strict=True)]
    times: list[list[float]] = [[] for _ in sessions]
    for _ in range(RUNS):
        for session, feed, found in zip(sessions, feeds, times, strict=True):
            start = perf_counter()
            session.run(None, feed)
            found.append(perf_counter() - start)
    return [median(t) for t in times], outputs


def measure(case: Case, folder: Path) -> tuple[str, ...]:
    """One row of the table."""
    inputs = case.inputs()
    given, better, found = (folder / f"{n}.onnx" for n in ("given", "better", "found"))
    export(case.given(), inputs, given)
    export(case.better(), inputs, better)
    graph = SafeDAG.from_onnx(given)
    constants = len(graph.kind("parameter", "buffer"))
    if constants != case.constants:
        raise AssertionError(
            f"{case.name}: the exporter kept {constants} weights, not {case.constants}"
        )
    result = graph.optimize("onnxruntime")
    result.dag.to_onnx(found)
    (a, b, c), outputs = interleaved([given, better, found], inputs)
    error = max(
        float(np.abs(x - y).max() / np.abs(x).max())
        for x, y in zip(outputs[0], outputs[2], strict=True)
    )
    costs = [SafeDAG.from_onnx(p).cost().macs for p in (given, better, found)]
    return (
        case.name,
        *(f"{m:,}" for m in map(int, costs)),
        *(f"{1e3 * t:.3f}" for t in (a, b, c)),
        f"{a / c:.2f}",
        f"{b / c:.2f}",
        f"{error:.1e}",
        f"{result.seconds:.2f}",
    )


def main() -> None:
    """Print the table."""
    table = Table(title=f"ONNX Runtime, one thread, median of {RUNS} interleaved runs")
    for column in ("program", "MACs given", "better", "found", "ms given", "better", "found"):
        table.add_column(column, justify="left" if column == "program" else "right")
    for column in ("given / found", "better / found", "error", "seconds to find"):
        table.add_column(column, justify="right")
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            table.add_row(*measure(case, Path(folder)))
    Console(width=200).print(table)


if __name__ == "__main__":
    main()
