"""How fast a transformer written only in core ops is explored: registered, saturated, extracted.

python -m benchmarks.saturation
"""

from __future__ import annotations

from collections import Counter
from time import perf_counter

from rich.console import Console
from rich.table import Table

from benchmarks.programs import bert
from safegraph.dag import SafeDAG
from safegraph.extract.optimize import DEFAULT_BUDGET, optimize
from safegraph.ops import Binary, Reduce

LAYERS = (12, 48)


def contractions_left(dag: SafeDAG) -> int:
    """Sums of products that were not recovered as a contraction."""
    products = {n.name for n in dag if n.op is Binary("multiply")}
    return sum(
        isinstance(n.op, Reduce) and n.op.kind == "sum" and n.inputs[0] in products for n in dag
    )


def main() -> None:
    """Print the table."""
    table = Table(title="BERT-base in core ops, optimized for ONNX Runtime")
    for column in (
        "layers",
        "core ops",
        "ops found",
        "contractions",
        "left",
        "e-nodes",
        "rounds",
        "stopped",
        "seconds",
    ):
        table.add_column(column, justify="right")
    seconds: dict[int, float] = {}
    per_layer = DEFAULT_BUDGET.nodes / LAYERS[0]
    for layers in LAYERS:
        dag = bert(layers).expand()
        start = perf_counter()
        found = optimize(
            dag, nodes=int(per_layer * layers), seconds=DEFAULT_BUDGET.seconds / LAYERS[0] * layers
        )
        seconds[layers] = perf_counter() - start
        kinds = Counter(n.op.name for n in found.dag)
        table.add_row(
            *(
                f"{layers}",
                f"{len(dag):,}",
                f"{len(found.dag):,}",
                f"{kinds['linear'] + kinds['matmul'] + kinds['einsum'] + kinds['gemm']}",
                f"{contractions_left(found.dag)}",
                f"{found.report.nodes:,}",
                f"{found.report.rounds}",
                found.report.stopped,
                f"{seconds[layers]:.2f}",
            )
        )
    console = Console(width=160)
    console.print(table)
    few, many = LAYERS
    console.print(
        f"{many} layers take {seconds[many] / seconds[few]:.2f} times as long as {few}, "
        f"under {per_layer:,.0f} e-nodes and {DEFAULT_BUDGET.seconds / few:.2f} s a layer"
    )


if __name__ == "__main__":
    main()
