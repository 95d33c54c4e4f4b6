"""What the laws find where every optimizer in use leaves speed behind: cost given, better, found.

    python -m benchmarks.laws [NUMBER ...]

Each program is exported by torch in the form in which it is written, optimized for ONNX Runtime
within the default budget, and compared with the better form by flops and bytes (of SafeGraph's own
cost) and by the target's prediction.  A result that has more than 1.02 times the flops or the bytes
of the better form is marked.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.rewrites import CASES, Case, export_both
from safegraph.dag import SafeDAG
from safegraph.extract.optimize import predicted

TOLERANCE = 1.02
TARGET = "onnxruntime"


def figures(graph: SafeDAG) -> tuple[float, float, float]:
    """Flops, bytes read and written, predicted seconds."""
    cost: Any = graph.cost()
    traffic = cost.memory_reads + cost.memory_writes
    return float(cost.total_flops), float(traffic), predicted(graph, TARGET, {})


def measure(case: Case, folder: Path) -> tuple[bool, tuple[str, ...]]:
    """Is the result as good as the better form, and the row of the table."""
    given, better = map(SafeDAG.from_onnx, export_both(case, folder))
    result = given.optimize(TARGET)
    rows = [figures(g) for g in (given, better, result.dag)]
    good = all(rows[2][i] <= TOLERANCE * rows[1][i] for i in (0, 1))
    cells = [f"{rows[g][i]:.3g}" for i in (0, 1) for g in range(3)]
    cells += [f"{1e3 * rows[g][2]:.3f}" for g in range(3)]
    mark = "" if good else "*"
    return good, (mark, case.name, *cells, f"{result.seconds:.2f}", result.report.stopped)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("numbers", nargs="*", help="only cases whose names start so")
    wanted = tuple(parser.parse_args().numbers)
    table = Table(title="Flops, bytes, and predicted ms: given, better, found")
    for column in ("", "program"):
        table.add_column(column)
    for what in ("flops", "bytes", "ms"):
        for form in ("given", "better", "found"):
            table.add_column(f"{what} {form}", justify="right")
    table.add_column("seconds", justify="right")
    table.add_column("stopped")
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            if not wanted or case.name.startswith(wanted):
                good, row = measure(case, Path(folder))
                found.append(good)
                table.add_row(*row)
    console = Console(width=220)
    console.print(table)
    console.print(f"{sum(found)} of {len(found)} as good as the better form")


if __name__ == "__main__":
    main()
