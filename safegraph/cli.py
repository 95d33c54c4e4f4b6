"""The command line.  The one file that talks to the terminal.

A question is answered on standard output; what went wrong goes to standard error, as one message.
Exit codes: 0 done, 1 refused or not equal, 2 wrong usage or a bug, 130 interrupted.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from safegraph import __version__
from safegraph.errors import SafeGraphError

if TYPE_CHECKING:
    from safegraph.compare import Verdict
    from safegraph.dag import SafeDAG

MODEL = click.Path(path_type=Path)


class _Size(click.ParamType):
    name = "name=value"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, int]:
        if isinstance(value, tuple):
            return value
        name, _, number = value.partition("=")
        if not name.isidentifier() or not number.isdecimal() or int(number) < 1:
            self.fail(f"{value!r} gives no size: write batch=8, with a positive number", param, ctx)
        return name, int(number)


_bind = click.option("--bind", multiple=True, type=_Size(), help="A free size: --bind batch=8.")
_input = click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="TYPE",
    help="Type of an input of a TorchScript file, in order: --input 'f32[batch 3 224 224]'.",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="safegraph", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Look into neural network files, cost, convert, compare and optimize them.

    Files are ONNX (.onnx), TorchScript (.pt) or SafeGraph's own (.safegraph).
    """


# -- questions ------------------------------------------------------------------------------------


@cli.command()
@click.argument("model", type=MODEL)
@click.option("--text", is_flag=True, help="Print the whole graph, op by op.")
@_input
def inspect(model: Path, text: bool, inputs: Sequence[str]) -> None:
    """What is in a model: inputs, outputs, tensors, ops."""
    dag = _load(model, inputs)
    if text:
        click.echo(str(dag))
        return
    click.echo(f"{model}: {dag.name}, {_count(len(dag), 'op')}")
    for t in dag.inputs:
        click.echo(f"  input   {t.name}: {t.type}")
    for name, value in dag.outputs.items():
        click.echo(f"  output  {name}: {dag.types[value]}")
    if dag.sizes:
        click.echo(f"  free sizes: {', '.join(dag.sizes)}")
    for assumption in dag.assumptions:
        click.echo(f"  assumes {assumption}")
    _print_tensors(dag)
    kinds = Counter(_op_name(node) for node in dag)
    _table(["op", "count"], [[kind, n] for kind, n in kinds.most_common()])
    if dag.unknown:
        listed = _count(len(dag.unknown), "unknown op")
        click.echo(f"{listed}: neither cost nor another format is possible")


@cli.command()
@click.argument("model", type=MODEL)
@_bind
@_json
@click.option("--by", type=click.Choice(["op", "kind", "scope"]), help="And where it is spent.")
@click.option("--allow-unknown", is_flag=True, help="Leave unknown ops out, and list them.")
@click.option("--convention", help="Also count as torch, xla, onnx-tool or fvcore does.")
@_input
def cost(
    model: Path,
    bind: Sequence[tuple[str, int]],
    as_json: bool,
    by: str | None,
    allow_unknown: bool,
    convention: str | None,
    inputs: Sequence[str],
) -> None:
    """What a model costs, as formulas in its free sizes.

    Flops count a multiply-add as two; bytes read and written are those of unfused ops.
    """
    from safegraph import verbs
    from safegraph.extract.cost import table as tabulate

    dag = _load(model, inputs)
    found = verbs.cost(dag, allow_unknown=allow_unknown, convention=convention).bind(dict(bind))
    rows, theirs = (found.by(by) if by else []), found.convention
    if as_json:
        table = [
            {
                "name": r.name, "kind": r.kind, "scope": r.scope, "ops": r.count,
                "macs": str(r.work.macs), "total_flops": str(r.work.flops),
                "memory_reads": str(r.reads), "memory_writes": str(r.writes),
                **({"counted": str(theirs.figure(r.counted))} if theirs else {}),
            }
            for r in rows
        ]  # fmt: skip
        click.echo(json.dumps(found.to_dict() | ({f"by_{by}": table} if by else {}), indent=2))
        return
    click.echo(str(found))
    if theirs:
        click.echo(f"{theirs.name} leaves out: {theirs.leaves_out}")
    if by:
        _table(*tabulate(found, by))


@cli.command()
@click.argument("a", type=MODEL)
@click.argument("b", type=MODEL)
@_bind
@click.option(
    "--trials", default=2, show_default=True, type=click.IntRange(1), help="How many inputs."
)
@click.option("--rtol", default=1e-3, show_default=True, type=float, help="Most max|a-b|/max|b|.")
@click.option("--seed", default=0, show_default=True, type=int, help="Of the random inputs.")
@_json
@_input
def check(
    a: Path,
    b: Path,
    bind: Sequence[tuple[str, int]],
    trials: int,
    rtol: float,
    seed: int,
    as_json: bool,
    inputs: Sequence[str],
) -> None:
    """Do two models compute the same?  Compared on random inputs; exit code 1 if they do not."""
    from safegraph import verbs

    verdict = verbs.check(
        _load(a, inputs), _load(b, inputs), sizes=dict(bind), trials=trials, rtol=rtol, seed=seed
    )
    click.echo(json.dumps(_verdict(verdict), indent=2) if as_json else str(verdict))
    if not verdict:
        raise click.exceptions.Exit(1)


# -- changes --------------------------------------------------------------------------------------


@cli.command()
@click.argument("source", type=MODEL)
@click.argument("to", type=MODEL)
@_input
def convert(source: Path, to: Path, inputs: Sequence[str]) -> None:
    """Write a model in another format, told by the suffix of the new file."""
    from safegraph import verbs

    _may_write(to, source)
    dag = _load(source, inputs)
    verbs.save(dag, to)
    click.echo(f"{to} written ({_count(len(dag), 'op')})")


@cli.command()
@click.argument("model", type=MODEL)
@click.option("-o", "--output", required=True, type=MODEL, help="Where the result is written.")
@click.option("--target", default="onnxruntime", show_default=True, help="What will run it.")
@_bind
@_json
@click.option("--seconds", type=click.FloatRange(0, min_open=True), help="Time for the search.")
@click.option("--nodes", type=click.IntRange(1), help="Terms that the search may hold.")
@_input
def optimize(
    model: Path,
    output: Path,
    target: str,
    bind: Sequence[tuple[str, int]],
    as_json: bool,
    seconds: float | None,
    nodes: int | None,
    inputs: Sequence[str],
) -> None:
    """Find the cheapest equal model for a target, check it, and write it."""
    from safegraph import verbs

    _may_write(output, model)
    dag = _load(model, inputs)
    dag.require_known("cannot optimize")
    sizes = verbs.complete(dag, dict(bind))
    taken = {name: value for name, value in sizes.items() if name not in dict(bind)}
    if taken and not as_json:
        listed = ", ".join(f"{name} = {value}" for name, value in taken.items())
        choose = f"--bind {next(iter(taken))}=... to choose"
        click.echo(f"sizes that were not given are taken as: {listed}  ({choose})")
    limits = {k: v for k, v in {"seconds": seconds, "nodes": nodes}.items() if v is not None}
    found = verbs.optimize(dag, target, sizes, **limits)
    verdict = verbs.check(dag, found.dag)
    if not verdict:
        raise SafeGraphError(f"nothing was written, because the result differs: {verdict}")
    before, after = _figures(dag, sizes, found.before), _figures(found.dag, sizes, found.after)
    changed = _terms(dag) != _terms(found.dag)
    # one program has one time: two measurements of it would only show the noise
    times = verbs.race([dag, found.dag] if changed else [dag], target, sizes)
    if times:
        before["measured_seconds"], after["measured_seconds"] = times[0], times[-1]
    verbs.save(found.dag, output)
    if as_json:
        answer = {
            "target": target, "sizes": sizes, "before": before, "after": after,
            "check": _verdict(verdict), "report": str(found.report), "laws": found.laws,
            "output": str(output),
        }  # fmt: skip
        click.echo(json.dumps(answer, indent=2))
        return
    click.echo(str(found.report))
    if changed:
        click.echo(f"laws behind the result: {', '.join(found.laws) or 'none'}")
    else:
        click.echo("nothing cheaper was found: the result is the original")
    rows = [[label, show(before[k]), show(after[k])] for k, label, show in _ROWS if k in before]
    _table(["", "before", "after"], rows)
    click.echo(str(verdict))
    click.echo(f"{output} written")


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.3f} ms"


def _grouped(number: int) -> str:
    return f"{number:,}"


_ROWS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("ops", "ops", _grouped),
    ("total_flops", "flops", _grouped),
    ("memory_bytes", "bytes read and written", _grouped),
    ("parameters", "parameters", _grouped),
    ("predicted_seconds", "predicted", _milliseconds),
    ("measured_seconds", "measured", _milliseconds),
)


def _figures(dag: SafeDAG, sizes: Mapping[str, int], predicted: float) -> dict[str, Any]:
    """What the before/after table says of one graph."""
    from safegraph import verbs

    full = verbs.cost(dag)
    totals = full.bind({name: value for name, value in sizes.items() if name in full.names}).totals
    return {
        "ops": len(dag),
        "total_flops": int(totals["total_flops"]),
        "memory_bytes": int(totals["memory_reads"] + totals["memory_writes"]),
        "parameters": int(totals["parameters"]),
        "predicted_seconds": _finite(predicted),  # infinite: the target lacks an op
    }


# -- help for the commands ------------------------------------------------------------------------


def _load(path: Path, inputs: Sequence[str] = ()) -> SafeDAG:
    from safegraph import verbs

    return verbs.load(path, list(inputs) or None)


def _may_write(output: Path, source: Path) -> None:
    """Refuse what cannot end well, before any work is done."""
    from safegraph import verbs
    from safegraph.errors import OutputError

    verbs.output_format(output)
    if output.exists() and source.exists() and output.samefile(source):
        raise OutputError(f"{output} is the input itself: give the result another name")


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "equal": verdict.equal,
        "error": _finite(verdict.error),
        "output": verdict.where,
        "reason": verdict.reason,
        "sizes": dict(verdict.sizes),
    }


def _terms(dag: SafeDAG) -> dict[str, Any]:
    """The outputs as terms: the same objects for graphs that differ in names of nodes only."""
    values = dag.to_values()
    return {name: values[value] for name, value in dag.outputs.items()}


def _finite(number: float) -> float | None:
    """The number for JSON, which has no infinity."""
    return number if isfinite(number) else None


def _op_name(node: Any) -> str:
    spec = node.op.spec
    if node.op.name == "opaque":
        return f"{spec['kind']} ({spec['format']}, unknown)"
    kind = spec.get("kind")
    return f"{node.op.name} {kind}" if isinstance(kind, str) else node.op.name


def _print_tensors(dag: SafeDAG) -> None:
    from safegraph.dims import add_all

    for kind in ("parameter", "buffer", "const"):
        group = dag.kind(kind)
        if group:
            elements = add_all(t.type.numel for t in group)
            size = add_all(t.type.nbytes for t in group)
            click.echo(f"  {_count(len(group), kind)}: {elements} elements, {size} bytes")


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE)
    for i, name in enumerate(header):
        table.add_column(name, justify="right" if i else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))  # Text: names may have [brackets]
    console = Console() if sys.stdout.isatty() else Console(width=10_000)
    console.print(table)


# -- the entry point ------------------------------------------------------------------------------


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line on these arguments (those of the process by default), and exit."""
    given = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in given[:1]
    try:
        code = cli.main(given, prog_name="safegraph", standalone_mode=False) or 0
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; nothing was written", err=True)
        code = 130
    except (SafeGraphError, OSError, MemoryError) as error:
        if debug:
            _traceback()
        click.echo(f"safegraph: {_message(error)}", err=True)
        code = 1
    except Exception as error:
        if debug:
            _traceback()
        else:
            click.echo(
                f"safegraph: this is a bug: {type(error).__name__}: {error}\n"
                f"Please report it, with the output of: safegraph --debug {' '.join(given)}",
                err=True,
            )
        code = 2
    sys.exit(code)


def _message(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "there is not enough memory for this"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'file'}: {error.strerror}"
    return str(error)


def _traceback() -> None:
    import traceback

    traceback.print_exc()
