"""How fast whole models are explored, each in one e-graph: registered, saturated, extracted.

    python -m benchmarks.saturation [NAME ...]

Under the default budget; then a transformer in core ops of 12 and of 96 layers, under the same
budget a layer.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from time import perf_counter

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.cost_models import MODELS as TRACED
from benchmarks.cost_models import torchvision_models
from benchmarks.programs import bert, nasrnn
from safegraph.dag import SafeDAG
from safegraph.extract.optimize import DEFAULT_BUDGET, Optimized, optimize
from safegraph.ops import Binary, Reduce

FEW, MANY = 12, 96


def _traced(name: str) -> SafeDAG:
    case = TRACED[name]
    with torch.no_grad():
        traced = torch.jit.trace(case.model(), case.inputs(), check_trace=False)
    return SafeDAG.from_torchscript(traced, inputs=list(case.types))


def _inception() -> SafeDAG:
    model = torchvision_models().inception_v3(weights=None, init_weights=False).eval()
    with torch.no_grad():
        traced = torch.jit.trace(model, torch.zeros(1, 3, 299, 299), check_trace=False)
    return SafeDAG.from_torchscript(traced, inputs=["f32[batch 3 299 299]"])


MODELS: dict[str, Callable[[], SafeDAG]] = {
    "BERT-base": lambda: _traced("bert"),
    "BERT-base in core ops": lambda: bert(12).expand(),
    "GPT-2-small": lambda: _traced("gpt2"),
    "GPT-2-small in core ops": lambda: _traced("gpt2").expand(),
    "ResNet-50": lambda: _traced("resnet50"),
    "ResNet-50 in core ops": lambda: _traced("resnet50").expand(),
    "Inception-v3": _inception,
    "NasRNN": nasrnn,
    "NasRNN in core ops": lambda: nasrnn().expand(),
    "a transformer of 33 layers in core ops": lambda: bert(33).expand(),
}


def contractions_left(dag: SafeDAG) -> int:
    """Sums of products that were not recovered as a contraction."""
    products = {n.name for n in dag if n.op is Binary("multiply")}
    return sum(
        isinstance(n.op, Reduce) and n.op.kind == "sum" and n.inputs[0] in products for n in dag
    )


def row(name: str, dag: SafeDAG, found: Optimized, seconds: float) -> tuple[str, ...]:
    """A line of the table."""
    kinds = Counter(n.op.name for n in found.dag)
    contractions = sum(kinds[k] for k in ("linear", "matmul", "einsum", "gemm", "conv"))
    return (
        name,
        f"{len(dag):,}",
        f"{len(found.dag):,}",
        f"{contractions}",
        f"{contractions_left(found.dag)}",
        f"{found.report.nodes:,}",
        f"{found.report.rounds}",
        found.report.stopped,
        f"{found.report.seconds:.2f}",
        f"{seconds:.2f}",
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("names", nargs="*", help="only models whose names start so")
    wanted = tuple(parser.parse_args().names)
    budget = DEFAULT_BUDGET
    title = f"At most {budget.nodes:,} e-nodes and {budget.seconds:.0f} s of exploration"
    table = Table(title=title)
    columns = "ops,found,contractions,left,e-nodes,rounds,stopped,explored in s,whole s"
    table.add_column("model")
    for column in columns.split(","):
        table.add_column(column, justify="right")
    for name, make in MODELS.items():
        if name.startswith(wanted or ""):
            dag = make()
            start = perf_counter()
            found = optimize(dag)
            table.add_row(*row(name, dag, found, perf_counter() - start))
    seconds: dict[int, float] = {}
    for layers in () if wanted else (FEW, MANY):
        dag = bert(layers).expand()
        share = layers / FEW
        start = perf_counter()
        found = optimize(
            dag, nodes=int(budget.nodes * share), seconds=(budget.seconds or 1.0) * share
        )
        seconds[layers] = perf_counter() - start
        table.add_row(*row(f"{layers} layers, {share:.0f} budgets", dag, found, seconds[layers]))
    console = Console(width=160)
    console.print(table)
    if seconds:
        ratio = seconds[MANY] / MANY / (seconds[FEW] / FEW)
        console.print(f"a layer of {MANY} takes {ratio:.2f} times as long as a layer of {FEW}")


if __name__ == "__main__":
    main()
