"""Programs whose better form is faster in ONNX Runtime, and that no optimizer in use finds.

    python -m benchmarks.rewrites --list [NUMBER ...]

exports both forms of each (or of those whose names start with a number) and prints what they cost.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from benchmarks.cases import Case
from benchmarks.optimizations import export
from benchmarks.rewrites_conv import CONV
from benchmarks.rewrites_linear import LINEAR
from benchmarks.rewrites_networks import NETWORKS
from benchmarks.rewrites_transformers import TRANSFORMERS
from safegraph.dag import SafeDAG
from safegraph.errors import SafeGraphError

CASES: tuple[Case, ...] = tuple(
    sorted((*LINEAR, *CONV, *NETWORKS, *TRANSFORMERS), key=lambda case: case.name)
)

COLUMNS = ("ops", "MACs", "flops", "bytes")


def export_both(case: Case, folder: Path) -> tuple[Path, Path]:
    """Both forms as ONNX files: given, and better."""
    given, better = folder / "given.onnx", folder / "better.onnx"
    inputs = case.inputs()
    if case.export_given:
        case.export_given(given)
    else:
        export(case.given(), inputs, given)
    export(case.better(), inputs, better)
    return given, better


def figures(graph: SafeDAG) -> tuple[int, ...]:
    """Ops, multiply-adds, flops, and bytes read and written of a graph without free sizes."""
    cost: Any = graph.cost()
    numbers = (cost.macs, cost.total_flops, cost.memory_reads + cost.memory_writes)
    return len(graph), *map(int, numbers)


def measure(case: Case, folder: Path) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The figures of both forms; AssertionError if the exporter did not keep the weights."""
    given, better = map(SafeDAG.from_onnx, export_both(case, folder))
    constants = len(given.kind("parameter", "buffer"))
    if constants != case.constants:
        raise AssertionError(
            f"{case.name}: the exporter kept {constants} weights, not {case.constants}"
        )
    return figures(given), figures(better)


def main() -> int:
    """Print the table; 1 if a program cannot be told the cost of, which is said after it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--list", action="store_true", required=True, help="print the table")
    parser.add_argument("numbers", nargs="*", help="how the names of the wanted programs start")
    wanted = tuple(parser.parse_args().numbers) or ("",)
    console, failures = Console(width=200), []
    table = Table()
    table.add_column("program")
    for column in COLUMNS:
        for form in ("given", "better"):
            table.add_column(f"{column} {form}", justify="right")
    for case in track([c for c in CASES if c.name.startswith(wanted)], console=console):
        with tempfile.TemporaryDirectory() as folder:
            try:
                pairs = zip(*measure(case, Path(folder)), strict=True)
            except SafeGraphError as error:
                failures.append(f"{case.name}: {error}")
            else:
                table.add_row(escape(case.name), *(f"{n:,}" for pair in pairs for n in pair))
    console.print(table)
    for failure in failures:
        console.print(failure, markup=False)
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
