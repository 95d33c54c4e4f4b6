"""What README.md says is so: its examples run, its commands exist, its tables are complete."""

import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest

from safegraph.cli import cli, main
from safegraph.derived.base import Derived
from safegraph.op import OPS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def promised(code: str) -> list[str]:
    """What `print(...)  # -> this` says is printed."""
    return re.findall(r"^print\(.*\)  # -> (.+)$", code, re.MULTILINE)


def run(code: str, scope: dict[str, Any]) -> str:
    """What the code prints."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(code, "README.md", "exec"), scope)
    return printed.getvalue()


def command_lines() -> Iterator[list[str]]:
    """The arguments of every `safegraph ...` in a shell block or session."""
    for block in (*blocks("sh"), *blocks("console")):
        for line in block.splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if words[:1] == ["safegraph"]:
                yield words[1:]


def agree(said: list[str], seen: list[str]) -> bool:
    """Is this what was printed?  `...` is any lines, or the rest of one; times may differ."""
    if not said:
        return not seen
    if said[0] == "...":
        return any(agree(said[1:], seen[i:]) for i in range(len(seen) + 1))
    if not seen:
        return False
    a, b = (re.sub(r"\d+\.\d+ ms", "# ms", " ".join(t.split())) for t in (said[0], seen[0]))
    same = b.startswith(a.removesuffix("...")) if a.endswith("...") else a == b
    return same and agree(said[1:], seen[1:])


@dataclass(frozen=True)
class Ran:
    """Where the Python examples have run, with the files that they wrote, and what each printed."""

    folder: Path
    printed: tuple[str, ...]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("readme")
    for code in blocks("python"):  # one that begins with its name is a file, too
        if named := re.match(r"# (\w+\.py)\n", code):
            (folder / named[1]).write_text(code, encoding="utf-8")
    scope: dict[str, Any] = {"__name__": "readme"}
    with contextlib.chdir(folder):
        return Ran(folder, tuple(run(code, scope) for code in blocks("python")))


@pytest.mark.slow
def test_the_examples_print_what_is_said(ran: Ran):
    for code, output in zip(blocks("python"), ran.printed, strict=True):
        lines = output.splitlines()
        for text in promised(code):
            assert any(agree([text], [line]) for line in lines), (text, output)
    assert sum(len(promised(code)) for code in blocks("python")) == 10
    (graph,) = blocks("text")
    assert any(graph in output for output in ran.printed)


def session(block: str) -> Iterator[tuple[list[str], list[str]]]:
    """The commands of a session, each with the lines that it prints."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, *lines = part.splitlines()
        yield shlex.split(command)[1:], [line for line in lines if line.strip()]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(blocks("console"))))
def test_the_sessions_are_real(
    number: int, ran: Ran, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(ran.folder)
    block = blocks("console")[number]
    if "resnet50.onnx" in block:
        from benchmarks import demo

        demo.export(ran.folder / "resnet50.onnx")
        capsys.readouterr()
    for arguments, said in session(block):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        seen = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
        assert end.value.code == 0
        assert agree(said, seen), "\n".join(seen)


def test_a_wrong_session_is_noticed():
    assert agree(["a  1.0 ms", "...", "c: ..."], ["a 2.5 ms", "b", "b", "c: all"])
    assert not agree(["flops 12"], ["flops 13"])
    assert not agree(["a"], ["a", "b"])
    assert not agree(["a", "...", "c"], ["a", "b"])


@pytest.mark.parametrize("arguments", list(command_lines()), ids=" ".join)
def test_the_commands_exist(arguments: list[str]):
    command = cli.commands[arguments[0]]
    assert command.make_context(arguments[0], arguments[1:])


def test_a_command_that_does_not_exist_is_noticed():
    with pytest.raises(click.UsageError):
        cli.commands["cost"].make_context("cost", ["model.onnx", "--quickly"])


def test_the_make_targets_exist():
    targets = re.findall(r"^make (\w+)", "\n".join(blocks("sh")), re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets == ["demo", "test"]
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_files_that_are_named_exist():
    table = README.partition("## Which file does what")[2]
    named = re.findall(r"^\| `([\w./]+)` \|", table, re.MULTILINE)
    linked = re.findall(r"\]\((?!http)([^)]+)\)", README)
    assert len(named) > 15
    assert not [path for path in (*named, *linked) if not (ROOT / path).exists()]


def test_the_tables_of_ops_are_complete():
    section = README.partition("## Ops")[2].partition("## Laws")[0]
    core, derived = section.split("| derived ops |")
    is_derived = {name: issubclass(op, Derived) for name, op in OPS.items()}
    assert set(re.findall(r"^\| `(\w+)` \|", core, re.MULTILINE)) == {
        name for name, later in is_derived.items() if not later
    }
    assert sorted(re.findall(r"`(\w+)`", derived)) == sorted(
        name for name, later in is_derived.items() if later
    )
