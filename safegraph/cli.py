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
    from safegraph.batch import Verdict as BatchVerdict
    from safegraph.batch import Verification
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


_bind = click.option(
    "--bind", multiple=True, type=_Size(), help="The value of a free size: --bind batch=8."
)
_input = click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="TYPE",
    help="Type of an input of a TorchScript file, in order: --input 'f32[batch 3 224 224]'.",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_laws = click.option(
    "--laws",
    "own_laws",
    type=MODEL,
    help="A Python file (executed) with laws to use, too. They are trusted: see `laws check`.",
)
_WIDEST = 160  # letters of a law in a list: some are definitions of a whole layer


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
@click.option("--by", type=click.Choice(["op", "kind", "scope"]), help="Also where it is spent.")
@click.option("--allow-unknown", is_flag=True, help="Leave unknown ops out, and list them.")
@click.option(
    "--convention", metavar="TOOL", help="Also count as torch, xla, onnx-tool or fvcore does."
)
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
@click.option("--prove", is_flag=True, help="Then prove it by laws, for all inputs and sizes.")
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    help="Time for the proof; 20 if not given.",
)
@click.option("--nodes", type=click.IntRange(1), help="Terms that it may hold; 50,000.")
@_laws
@_json
@_input
def check(
    a: Path,
    b: Path,
    bind: Sequence[tuple[str, int]],
    trials: int,
    rtol: float,
    seed: int,
    prove: bool,
    seconds: float | None,
    nodes: int | None,
    own_laws: Path | None,
    as_json: bool,
    inputs: Sequence[str],
) -> None:
    """Do two models compute the same?

    Compared on random inputs; exit code 1 if they do not.

    With --prove the answer is "proved equal", with the laws that prove it; "numerically equal",
    where no proof was found; or "not equal", with an element of an output that shows it.
    """
    from safegraph import verbs

    typed = [path for path in (a, b) if verbs.takes_inputs(path)] or [a]
    first, second = (_load(path, inputs if path in typed else ()) for path in (a, b))
    if prove:
        _wait("comparing and proving")
    verdict = verbs.check(
        first, second, sizes=dict(bind), trials=trials, rtol=rtol, seed=seed,
        prove=prove, seconds=seconds, nodes=nodes, laws=own_laws or (),
    )  # fmt: skip
    click.echo(json.dumps(_verdict(verdict), indent=2) if as_json else str(verdict))
    if not verdict:
        raise click.exceptions.Exit(1)


@cli.group(invoke_without_command=True)
@click.pass_context
def laws(context: click.Context) -> None:
    """List the laws in use; test and prove your own."""
    if context.invoked_subcommand is None:
        context.invoke(laws_list)


@laws.command("list")
@click.option("--family", help="Only those of one family, such as movement.")
@_json
def laws_list(family: str | None = None, as_json: bool = False) -> None:
    """All laws: family, grade, name, left -> right.

    A side that a function builds is shown as `...`.  Grades: exact (the same bits), real (rounding
    may differ), finite (for finite values), approx (never on by default).
    """
    from safegraph.laws import catalogue, equation

    found = catalogue(family)
    rows = [[law.family, law.grade, law.name, equation(law)] for law in found]
    if as_json:
        keys = ("family", "grade", "name", "equation")
        click.echo(json.dumps([dict(zip(keys, row, strict=True)) for row in rows], indent=2))
        return
    for *named, sides in rows:
        click.echo("  ".join([*named, sides if len(sides) <= _WIDEST else f"{sides[:_WIDEST]}..."]))


@laws.command("check")
@click.argument("file", type=MODEL)
@click.option(
    "--cases", default=200, show_default=True, type=click.IntRange(1), help="For each law."
)
@click.option("--seed", default=0, show_default=True, type=int, help="Of the random cases.")
@click.option(
    "--seconds",
    default=120.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="Time for each law.",
)
@_json
def laws_check(file: Path, cases: int, seed: int, seconds: float, as_json: bool) -> None:
    """Are the laws in a Python file true?

    Exit code 1 if one is not, or could not be tested.

    FILE is executed.  Its laws are those that it binds to names, alone or in tuples and lists.
    Each is compared on random operands on which it applies, and proved for all sizes where that is
    possible.
    """
    from safegraph.laws import check

    found = check(file, cases, seed=seed, seconds=seconds)
    if as_json:
        click.echo(json.dumps([report.data() for report in found], indent=2))
    else:
        for report in found:
            click.echo(str(report))
    if not all(found):
        raise click.exceptions.Exit(1)


# -- changes --------------------------------------------------------------------------------------


@cli.command()
@click.argument("source", type=MODEL)
@click.argument("to", type=MODEL)
@_input
def convert(source: Path, to: Path, inputs: Sequence[str]) -> None:
    """Write a model in another format.

    The suffix of the new file tells which.
    """
    from safegraph import verbs

    _may_write(to, source)
    dag = _load(source, inputs)
    verbs.save(dag, to)
    click.echo(f"{to} written ({_count(len(dag), 'op')})")


@cli.command()
@click.argument("model", type=MODEL)
@click.option("-o", "--output", required=True, type=MODEL, help="Where the result is written.")
@click.option(
    "--target",
    default="onnxruntime",
    show_default=True,
    metavar="RUNTIME",
    help="What will run it: onnxruntime or torch.",
)
@_bind
@_json
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    help="Time for the search; 20 if not given.",
)
@click.option("--nodes", type=click.IntRange(1), help="Terms that it may hold; 100,000.")
@_laws
@click.option("--explain", is_flag=True, help="Print the laws that lead to the result, in order.")
@_input
def optimize(
    model: Path,
    output: Path,
    target: str,
    bind: Sequence[tuple[str, int]],
    as_json: bool,
    seconds: float | None,
    nodes: int | None,
    own_laws: Path | None,
    explain: bool,
    inputs: Sequence[str],
) -> None:
    """Find the cheapest equal model for a target.

    It is compared with the original on random inputs, and then written.
    """
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
    _wait("searching")
    found = verbs.optimize(dag, target, sizes, laws=own_laws or (), explain=explain, **limits)
    verdict = verbs.check(dag, found.dag)
    if not verdict:
        reason = verdict.reason and f"the check of the result failed: {verdict.reason}"
        why = reason or f"the result differs: {verdict}"
        raise SafeGraphError(f"nothing was written, because {why}")
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
            **({"explanation": found.explanation.data()} if explain else {}),
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
    if times and times[-1] > _SLOWER * times[0]:
        click.echo(
            "slower when measured here: times are predicted from flops and bytes; --bind the sizes "
            "that you run, or keep the original"
        )
    if explain:
        click.echo(str(found.explanation))
    click.echo(str(verdict))
    click.echo(f"{output} written")


class _Axis(click.ParamType):
    name = "input=axis"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, int | None]:
        if isinstance(value, tuple):
            return value
        name, _, axis = value.rpartition("=")
        if not name or (axis != "none" and not axis.removeprefix("-").isdecimal()):
            self.fail(f"{value!r} gives no axis: write x=0, or x=none for no batch", param, ctx)
        return name, None if axis == "none" else int(axis)


_axis = click.option(
    "--axis",
    "axes",
    multiple=True,
    type=_Axis(),
    help="The batch axis of an input: --axis x=1; --axis y=none: y has none. Inputs that are not "
    "named have theirs first.",
)
_output = click.option("-o", "--output", required=True, type=MODEL, help="Where the result goes.")


@cli.command()
@click.argument("model", type=MODEL)
@_output
@_axis
@_input
def unbatch(
    model: Path, output: Path, axes: Sequence[tuple[str, int | None]], inputs: Sequence[str]
) -> None:
    """Take the batch out of a model: the same for one sample; exit code 1 if samples interact."""
    from safegraph.batch import unbatch as taken

    _may_write(output, model)
    dag = _load(model, inputs)
    verdict = taken(dag, _batch_axes(dag, axes))
    _save_verified(verdict.dag, output, verdict, [verdict.verify((2,))])


@cli.command()
@click.argument("model", type=MODEL)
@_output
@click.option("--name", default="batch", show_default=True, help="The new free size.")
@_axis
@_input
def rebatch(
    model: Path,
    output: Path,
    name: str,
    axes: Sequence[tuple[str, int | None]],
    inputs: Sequence[str],
) -> None:
    """Make the batch of a model a free size, with proof; exit code 1 if samples interact."""
    from safegraph import verbs
    from safegraph.batch import unbatch as taken

    _may_write(output, model)
    dag = _load(model, inputs)
    places = _batch_axes(dag, axes)
    found = verbs.rebatch(dag, name, places)
    verdict = taken(dag, places)
    # of the file itself, for its batch, and of the result for another
    checks = [verdict.verify((2,)), taken(found, places).verify((3,))]
    _save_verified(found, output, verdict, checks)


def _save_verified(
    found: SafeDAG, output: Path, verdict: BatchVerdict, checks: Sequence[Verification]
) -> None:
    """Write what was verified, and say where its batch is or was."""
    from safegraph import verbs

    failed = next((check for check in checks if not check), None)
    if failed is not None:
        raise SafeGraphError(f"nothing was written: {failed}")
    verbs.save(found, output)
    for t in found.inputs:
        click.echo(f"  input   {t.name}: {t.type}")
    for name, value in found.outputs.items():
        click.echo(f"  output  {name}: {found.types[value]} ({verdict.outputs[name]})")
    click.echo(str(checks[-1]))
    click.echo(f"{output} written ({_count(len(found), 'op')})")


def _batch_axes(dag: SafeDAG, axes: Sequence[tuple[str, int | None]]) -> dict[str, int | None]:
    """The batch axis of every input: the first one, where nothing was said."""
    named = dict(axes)
    if len(named) < len(axes):
        twice = [name for name, count in Counter(name for name, _ in axes).items() if count > 1]
        raise SafeGraphError(f"--axis was given more than once for input {', '.join(twice)}")
    return {t.name: 0 for t in dag.inputs} | named


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.3f} ms"


def _grouped(number: int) -> str:
    return f"{number:,}"


_SLOWER = 1.05  # what two measurements of one program differ by, and more
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


def _wait(what: str) -> None:
    """Tell a person that it goes on for a while; scripts and files do not see it."""
    if sys.stderr.isatty():
        click.echo(f"{what} ... (--seconds limits it)", err=True)


def _verdict(verdict: Verdict) -> dict[str, Any]:
    found: dict[str, Any] = {
        "equal": verdict.equal,
        "error": _finite(verdict.error),
        "output": verdict.where,
        "reason": verdict.reason,
        "sizes": dict(verdict.sizes),
        "verdict": verdict.verdict,
    }
    if verdict.index is not None and verdict.values is not None:
        found["example"] = {
            "seed": verdict.seed,
            "index": list(verdict.index),
            "values": [str(value) for value in verdict.values],
        }
    if verdict.proof is not None:
        found["proof"] = {
            name: t and {"laws": list(t.laws), "grade": t.grade, "fewest": t.fewest}
            for name, t in verdict.proof.outputs.items()
        }
    return found


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
