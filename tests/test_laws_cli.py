"""`safegraph laws`: laws of a user's own are tested, proved, listed and used."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from safegraph import SafeDAG, tensor, verbs
from safegraph.cli import main
from safegraph.dag import Tensor
from safegraph.errors import LawError
from safegraph.laws import catalogue, check, given, load, with_laws
from safegraph.rules import ALL, FAMILIES, LOWERING, REFINING
from safegraph.soundness import Counterexample, run_value
from safegraph.value import parse_type

HEAD = """
from safegraph.derived import Softmax
from safegraph.law import any_of, both, one, spec, variables
from safegraph.ops import Permute, Repeat, Unary

x, y, a = variables("x y a")
p, q = any_of(Permute, "p q")
(softmax,) = any_of(Softmax, "softmax")
(repeat,) = any_of(Repeat, "repeat")

@spec
def along(softmax, repeat):
    return repeat.counts[softmax.axis] != 1

@spec
def then(p, q):
    return Permute(tuple(p.order[i] for i in q.order))
"""
SHIFT = 'one("no shift", softmax(x + repeat(a)), softmax(x), when=along(softmax, repeat))'
SLIP = 'one("forgotten", softmax(x + repeat(a)), softmax(x))'
COMPOSE = 'one("composed", q(p(x)), then(p, q)(x), grade="exact")'
NEVER = 'one("never", x + y, lambda x, y: None)'
LIKE = 'one("never", x + y, lambda x, y: None, like="x: 2 3, y: 2 3")'
BROKEN = 'one("broken", x + y, lambda x, y: [][3])'

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def safegraph(capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs the command line: exit code, output, errors."""

    def call(*args: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main([str(a) for a in args])
        seen = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return end.value.code, seen.out, seen.err

    return call


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a file with laws, each bound to a name."""

    def write(*laws: str, head: str = HEAD) -> Path:
        path = tmp_path / "my_rules.py"
        lines = [head, *(f"LAW{i} = {law}" for i, law in enumerate(laws))]
        path.write_text("\n".join(lines), encoding="utf-8")
        return path

    return write


# -- true or not -----------------------------------------------------------------------------------


def test_a_sound_law_passes(safegraph: Call, file: Callable[..., Path]):
    code, out, err = safegraph("laws", "check", file(SHIFT), "--cases", 30)
    assert (code, err) == (0, "")
    assert out.startswith("no shift: softmax(add(x, repeat(a))) -> softmax(x)  [real]\n  sound: ")
    assert "tested on 30 cases" in out


def test_a_law_of_movement_is_proved_for_all_sizes(safegraph: Call, file: Callable[..., Path]):
    code, out, _ = safegraph("laws", "check", file(COMPOSE), "--cases", 20)
    assert code == 0
    assert "sound: proved for all sizes (" in out
    (report,) = json.loads(safegraph("laws", "check", file(COMPOSE), "--json", "--cases", 5)[1])
    assert (report["verdict"], report["proved"], report["fired"]) == ("sound", True, 5)
    (untried,) = check(file(COMPOSE), 5, prove=False)
    assert untried
    assert not untried.proved


def test_a_false_law_is_shown_to_be_false(safegraph: Call, file: Callable[..., Path]):
    code, out, _ = safegraph("laws", "check", file(SHIFT, SLIP), "--cases", 30)
    assert code == 1
    assert "  unsound: " in out
    for part in ("differ", "at [", "x: f64[", "softmax: Softmax(axis=", "left ", "right "):
        assert part in out.partition("forgotten")[2]
    report = json.loads(safegraph("laws", "check", file(SLIP), "--cases", 30, "--json")[1])[0]
    assert report["verdict"] == "unsound"
    assert report["counterexample"]["values"][0] != report["counterexample"]["values"][1]


def test_a_counterexample_is_one_and_the_smallest(file: Callable[..., Path]):
    def example(cases: int) -> Counterexample:
        (report,) = check(file(SLIP), cases)
        assert report.report.counterexample is not None
        return report.report.counterexample

    few, many = example(3), example(60)
    assert many.magnitude <= few.magnitude
    sides = [run_value(v, many.operands, many.sizes) for v in (many.case.left, many.case.right)]
    assert many.index is not None
    assert many.values == (sides[0][many.index], sides[1][many.index])
    assert not np.isclose(*many.values)


def test_a_law_that_never_fires_fails_and_says_what_to_do(
    safegraph: Call, file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("safegraph.laws._TRIES", 300)
    code, out, _ = safegraph("laws", "check", file(NEVER))
    assert code == 1
    assert "never fired: no random operands fitted it; give types" in out
    assert 'like="x: 2 3, y: 2 3"' in out
    assert "not even its example in like=" in safegraph("laws", "check", file(LIKE))[1]


def test_a_law_whose_function_raises_is_no_bug_of_ours(safegraph: Call, file: Callable[..., Path]):
    path = file(BROKEN)
    code, out, err = safegraph("laws", "check", path)
    assert (code, err) == (1, "")
    line = len(HEAD.splitlines()) + 2
    assert "\n  broken: " in out
    assert "IndexError: list index out of range" in out
    assert f"({path}, line {line})" in out


ENDLESS = """
def endless(x, y):
    while True:
        try:
            len("")
        except BaseException:
            pass
"""


@pytest.mark.parametrize("catches", [False, True], ids=["plain", "catches everything"])
def test_a_law_that_never_ends_is_told(
    catches: bool, safegraph: Call, file: Callable[..., Path]
) -> None:
    body = ENDLESS if catches else "def endless(x, y):\n    while True:\n        pass\n"
    path = file('one("endless", x + y, endless)', COMPOSE, head=HEAD + body)
    code, out, err = safegraph("laws", "check", path, "--cases", 3, "--seconds", 3)
    assert (code, err) == (1, "")
    first, _, second = out.partition("composed: ")
    assert f"broken: it was not tested within 3 s, which were up in {path}, line " in first
    assert "\n  sound: " in second


def test_a_proof_that_takes_too_long_leaves_what_was_tested(
    file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def endless(*_: object, **__: object) -> None:
        while True:
            pass

    monkeypatch.setattr("safegraph.proof.prove_law", endless)
    (report,) = check(file(COMPOSE), 3, seconds=2)
    assert report
    assert not report.proved
    assert "tested on 3 cases; not proved for all sizes: no proof was found in 2 s" in str(report)


def test_without_a_main_thread_there_is_no_limit(file: Callable[..., Path]) -> None:
    laws = load(file(COMPOSE))
    with ThreadPoolExecutor(1) as pool:
        (report,) = pool.submit(check, laws, 3, prove=False, seconds=1e-9).result()
    assert report.verdict == "sound"


RARE = {
    "a size that its code names": "exp(x), lambda x: x if x.shape[:1] == (17,) else exp(x)",
    "that size alone": "exp(x), lambda x: x if x.shape[:1] == (17,) else None",
    "integers": "x * x, lambda x: -x if x.dtype == 'i64' else None",
    "integers apart": "truth(x + y), lambda x, y: truth(x) + truth(y)",
}


@pytest.mark.parametrize("sides", RARE.values(), ids=list(RARE))
def test_what_chance_seldom_draws_is_tried(sides: str, file: Callable[..., Path]) -> None:
    ops = "from safegraph.ops import Cast\nexp, truth = Unary('exp'), Cast('bool')\n"
    (report,) = check(file(f"one('rare', {sides})", head=HEAD + ops))
    assert report.verdict == "unsound"
    assert report.report.counterexample is not None


def test_laws_may_stand_alone_or_in_tables(file: Callable[..., Path]):
    table = file(f"({SHIFT}, [*{COMPOSE}])", f"dict(a={NEVER}[0])", "LAW0")
    assert [law.name for law in load(table)] == ["no shift", "composed", "never"]
    both = file('both("exchanged", x + y, y + x, grade="exact")')
    assert [report.law.name for report in check(both, 5)] == ["exchanged", "exchanged (backwards)"]
    (law,) = given(load(file(SHIFT)))
    assert given(law) == (law,)
    assert [report.verdict for report in check(law, 5, prove=False)] == ["sound"]


# -- files that have none --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no file"),
        ("x = (", "line 1 is no Python: '(' was never closed"),
        (b"\x08\x07\x00\x12", "is no Python"),
        ("import numpy\n1 / 0", "cannot be run: ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "cannot be run: SystemExit: 3"),
        ("from safegraph.law import one\nLAW = one('n', 1, 2, grade='good')", "cannot be run: "),
        ("x = 1", "has no laws of its own"),
        ("from safegraph.rules.movement import LAWS", "has no laws of its own"),
    ],
    ids=["missing", "syntax", "binary", "raises", "exits", "bad law", "none", "only ours"],
)
def test_a_file_without_laws_is_refused_in_one_message(
    content: str | bytes | None, message: str, safegraph: Call, tmp_path: Path
):
    path = tmp_path / "my_rules.py"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    code, out, err = safegraph("laws", "check", path)
    assert (code, out) == (1, "")
    assert err.startswith("safegraph: ")
    assert message in err
    assert "my_rules.py" in err
    assert "this is a bug" not in err


def test_a_file_may_import_its_neighbours_and_have_dataclasses(
    file: Callable[..., Path], tmp_path: Path
):
    (tmp_path / "neighbour_of_rules.py").write_text("NAME = 'from there'")
    head = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "from neighbour_of_rules import NAME\n@dataclass\nclass Pair:\n    left: int\n"
    )
    (law,) = load(file("one(NAME, x + y, y + x)", head=head + HEAD))
    assert law.name == "from there"


MISTAKES = {
    "unary(x, y) has 2 operands, not 1": "Unary('exp')(x, y), x",
    "2 is no term": "x * 2, x + x",
    "the left side is an op on variables, not x": "x, x",
    "the right side has z, the left has not": "x + y, x + z",
    "no variable is called z": "x + y, lambda z: z",
    "when= is a @spec function": "x + y, y + x, when=lambda x: True",
    "facts= has z, which the left side lacks": "x + y, y + x, facts=positive(z)",
    "like is 'x: 2 3, i: i64 5'": "x + y, y + x, like='x 2 3'",
    "along(p) is computed: that is for the right side": "along(p)(x), x",
}


@pytest.mark.parametrize(("message", "sides"), MISTAKES.items(), ids=list(MISTAKES))
def test_what_is_no_law_is_told_with_its_line(
    message: str, sides: str, safegraph: Call, tmp_path: Path
) -> None:
    path = tmp_path / "my_rules.py"
    head = f"{HEAD}from safegraph.law import positive\nz, = variables('z')\n"
    path.write_text(f"{head}LAW = one('mine', {sides})\n")
    code, out, err = safegraph("laws", "check", path)
    assert (code, out) == (1, "")
    assert f"cannot be run: ValueError: mine: {message}" in err
    assert err.endswith(f"({path}, line {len(head.splitlines()) + 1})\n")


def test_a_law_needs_a_name(safegraph: Call, file: Callable[..., Path]) -> None:
    code, _, err = safegraph("laws", "check", file("one('', x + y, y + x)"))
    assert code == 1
    assert "it needs a name" in err


def test_a_leaf_that_only_the_right_side_has_is_told(
    safegraph: Call, file: Callable[..., Path]
) -> None:
    law = "one('new', x + y, lambda x, y: tensor('w', x.type) + x)"
    path = file(law, head=f"{HEAD}\nfrom safegraph.value import tensor\n")
    code, out, _ = safegraph("laws", "check", path, "--cases", 3)
    assert code == 1
    assert "the right side cannot be run: w has no array: x, y have" in out


# -- the laws that are there -----------------------------------------------------------------------


def test_laws_are_listed_with_family_and_grade(safegraph: Call):
    code, out, _ = safegraph("laws", "list", "--family", "movement")
    lines = out.splitlines()
    assert code == 0
    assert len(lines) == len(FAMILIES["movement"])
    assert all(line.startswith("movement  ") and " -> " in line for line in lines)
    assert "permute and unary commute  h(m(x)) -> m(h(x))" in lines[0]
    code, out, _ = safegraph("laws")
    assert code == 0
    assert len(out.splitlines()) == len(ALL)
    found = json.loads(safegraph("laws", "list", "--json")[1])
    assert {each["family"] for each in found} == set(FAMILIES)


def test_a_family_that_does_not_exist_is_refused(safegraph: Call):
    code, _, err = safegraph("laws", "list", "--family", "moves")
    assert code == 1
    assert "there is no family 'moves'; there are inverse, " in err
    with pytest.raises(LawError, match="there is no family"):
        catalogue("moves")


# -- in use ----------------------------------------------------------------------------------------


def shifted() -> SafeDAG:
    x, a = tensor("x", "f32[batch 64]"), tensor("a", "f32[batch 1]")
    return SafeDAG.from_values({"y": (x + a).softmax(axis=-1)})


def test_own_laws_are_used_beside_the_others(file: Callable[..., Path]):
    path, dag = file(SHIFT), shifted()
    assert len(dag.optimize("onnxruntime").dag) > 1
    for laws in (path, str(path), load(path), load(path)[0]):
        found = dag.optimize("onnxruntime", laws=laws)
        assert found.laws == ["no shift"]
        assert len(found.dag) == 1


def test_own_laws_join_the_phases_that_derive(file: Callable[..., Path]):
    (law,) = load(file(SHIFT))
    phases = with_laws(law)
    assert [p.name for p in phases if law in p.laws] == ["derive", "given laws"]
    assert len(phases) == len((*REFINING, *LOWERING)) + 1
    assert law in with_laws(law, LOWERING)[-1].laws


def test_optimize_takes_a_file_of_laws(safegraph: Call, file: Callable[..., Path], tmp_path: Path):
    model, better = tmp_path / "model.safegraph", tmp_path / "better.safegraph"
    verbs.save(shifted(), model)
    code, out, _ = safegraph("optimize", model, "-o", better, "--laws", file(SHIFT))
    assert code == 0
    assert "laws behind the result: no shift" in out
    assert len(SafeDAG.load(better)) == 1


def test_own_laws_prove(safegraph: Call, file: Callable[..., Path], tmp_path: Path):
    a, b = tmp_path / "a.safegraph", tmp_path / "b.safegraph"
    verbs.save(shifted(), a)
    x, unused = tensor("x", "f32[batch 64]"), Tensor("a", "input", parse_type("f32[batch 1]"))
    verbs.save(SafeDAG.from_values({"y": x.softmax(axis=-1)}, [unused]), b)
    code, out, _ = safegraph("check", a, b, "--prove", "--laws", file(SHIFT))
    assert code == 0
    assert out.startswith("proved equal\ny: ")
    assert "no shift" in out.splitlines()[1]


def test_a_false_law_writes_nothing(safegraph: Call, file: Callable[..., Path], tmp_path: Path):
    model, better = tmp_path / "model.safegraph", tmp_path / "better.safegraph"
    verbs.save(SafeDAG.from_values({"y": tensor("x", "f32[batch 64]").exp()}), model)
    false = 'one("as it is", Unary("exp")(x), x)'
    code, _, err = safegraph("optimize", model, "-o", better, "--laws", file(false))
    assert code == 1
    assert "the result differs" in err
    assert not better.exists()


@pytest.mark.parametrize("built", ["3", "[x, y]"])
def test_a_right_side_that_is_no_term_is_told(built: str, tmp_path: Path, safegraph: Call) -> None:
    path = tmp_path / "laws.py"
    path.write_text(f"{HEAD}\nLAW = one('no term', x + y, lambda x, y: {built})\n")
    code, out, _ = safegraph("laws", "check", path)
    assert code == 1
    assert "broken: its right side gave" in out


@pytest.mark.parametrize("name", ["twice", ALL[0].name])
def test_a_name_is_that_of_one_law(name: str, tmp_path: Path, safegraph: Call) -> None:
    path = tmp_path / "laws.py"
    laws = f"A = one({name!r}, x + y, y + x), one({name!r}, x - y, y - x)"
    path.write_text(f"{HEAD}\n{laws}\n")
    code, _, errors = safegraph("laws", "check", path)
    assert code == 1
    assert f"two laws are called {name!r}" in errors
    assert len(given(catalogue())) == len(ALL)
