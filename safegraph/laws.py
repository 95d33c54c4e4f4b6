"""Laws of a user's own: read from a Python file, tested, proved where that is possible, used.

>>> from safegraph.law import one, variables
>>> x, y = variables("x y")
>>> (report,) = check(one("a difference turned round", x - y, y - x), cases=5)
>>> report.verdict
'unsound'
"""

from __future__ import annotations

import signal
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import indent, shorten
from types import ModuleType
from typing import TYPE_CHECKING, Any

from safegraph.errors import LawError
from safegraph.law import Law
from safegraph.rules import ALL, FAMILIES, LOWERING, REFINING, Phase
from safegraph.soundness import LawReport, check_law

if TYPE_CHECKING:
    from safegraph.proof import Proof

CASES = 200
SECONDS = 120.0
"""How long a law may take, so that a right side that never ends is told, not waited for."""
_TRIES = 4_000  # without one case in so many, more would only take longer
_LONGEST = 200  # letters of a reason: index expressions grow with the law
_PACKAGE = Path(__file__).parent
_PYTHON = Path(traceback.__file__).parent

Laws = str | Path | Law | Iterable[Law]
"""Laws, or the path of a Python file that has some."""


# -- from a file ----------------------------------------------------------------------------------


def load(path: str | Path) -> tuple[Law, ...]:
    """The laws that a Python file binds to names: alone, or in tuples, lists and dicts.

    The file is executed, as `python path` would.  Laws of the product that it imports are left out.
    Raises LawError for a file that is missing, is no Python, raises, or has no laws.
    """
    path = Path(path)
    if not path.is_file():
        raise LawError(f"there is no file {path}: name a Python file that has laws")
    try:
        code = compile(path.read_bytes(), str(path), "exec")
    except (SyntaxError, ValueError) as error:  # ValueError: bytes that no text has
        line = getattr(error, "lineno", None)
        at = f", line {line}" if line else ""
        raise LawError(f"{path}{at} is no Python: {getattr(error, 'msg', error)}") from None
    found = tuple(dict.fromkeys(_laws(_run(path, code).values())))
    ours = set(ALL)
    own = tuple(law for law in found if law not in ours)
    if not own:
        raise LawError(
            f"{path} has no laws of its own: bind one to a name, "
            "LAW = one('name', left, right), with one of safegraph.law"
        )
    return own


def _run(path: Path, code: Any) -> dict[str, Any]:
    module = ModuleType(f"laws of {path.name}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses look their module up
    sys.path.insert(0, str(path.parent))
    try:
        exec(code, module.__dict__)
    except (Exception, SystemExit) as error:
        raise LawError(f"{path} cannot be run: {_told(error)}") from error
    finally:
        sys.path.remove(str(path.parent))
    return module.__dict__


def _laws(values: Iterable[Any]) -> Iterator[Law]:
    for value in values:
        if isinstance(value, Law):
            yield value
        elif isinstance(value, tuple | list):
            yield from _laws(value)
        elif isinstance(value, dict):
            yield from _laws(value.values())


def _told(error: BaseException) -> str:
    """What was raised, and the last line of the user's that led to it."""
    what = str(error) if isinstance(error, LawError) else f"{type(error).__name__}: {error}"
    line = _own_line(error)
    return f"{what} ({line})" if line else what


def _own_line(error: BaseException) -> str:
    """The last line of the user's that led to an error; "" if none did."""
    frames = traceback.extract_tb((error.__cause__ or error).__traceback__)
    outside = [
        f
        for f in frames
        if _PACKAGE not in Path(f.filename).parents
        and "site-packages" not in f.filename
        and Path(f.filename).parent != _PYTHON
        and f.filename != "<string>"  # what dataclasses generate
    ]
    return f"{outside[-1].filename}, line {outside[-1].lineno}" if outside else ""


def given(laws: Laws) -> tuple[Law, ...]:
    """Laws however they are given: one, several, or the path of a file.

    Raises LawError where two have one name, which is how proofs and explanations tell of them.
    """
    if isinstance(laws, str | Path):
        found = load(laws)
    else:
        found = (laws,) if isinstance(laws, Law) else tuple(laws)
    # another family or another example makes no other law
    sides = {law.name: law.left for law in ALL}
    for law in dict.fromkeys(found):
        if sides.setdefault(law.name, law.left) is not law.left:
            raise LawError(f"two laws are called {law.name!r}: give one of them another name")
    return found


# -- true or not ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class LawCheck:
    """What is known of a law: its random cases, and whether it is proved.  True if sound."""

    law: Law
    report: LawReport
    proof: Proof | None = None
    problem: str = ""
    """Why the law could not be tested: what its own functions raised, and where."""
    asked: int = CASES

    def __bool__(self) -> bool:
        return bool(self.report) and not self.problem

    @property
    def verdict(self) -> str:
        """`sound`, `unsound`, `never fired` or `broken`."""
        if self.problem:
            return "broken"
        if not self.report.fired:
            return "never fired"
        return "unsound" if self.report.unsound else "sound"

    @property
    def proved(self) -> bool:
        """Is it proved for all sizes?"""
        return self.proof is not None and self.proof.proved

    def __str__(self) -> str:
        return f"{self.law}  [{self.law.grade}]\n  {self.verdict}: {self.explanation}"

    @property
    def explanation(self) -> str:
        """The verdict in words, with what to do."""
        fired, unsound = self.report.fired, self.report.unsound
        match self.verdict:
            case "broken":
                return self.problem.removeprefix(f"{self.law.name}: ")
            case "never fired" if self.law.like:
                return "not even its example in like= has operands that fit and that it is for"
            case "never fired":
                example = ", ".join(f"{name}: 2 3" for name in self.law.tensors)
                return (
                    "no random operands fitted it; give types with which it applies, "
                    f'like="{example}"'
                )
            case "unsound":
                example = indent(str(self.report.counterexample), "  ")
                return f"{unsound} of {fired} cases; the smallest found:\n{example}"
        tested = f"tested on {fired} cases"
        if fired < self.asked:
            tested += f" ({self.asked} were asked for: like= gives operands with which it fires)"
        if self.proof is None:
            return tested
        if self.proof.proved:
            return f"proved for all sizes ({self.proof.extent}), {tested}"
        reason = shorten(self.proof.reason, _LONGEST, placeholder="...")
        return f"{tested}; not proved for all sizes: {reason}"

    def data(self) -> dict[str, Any]:
        """The same for scripts: numbers and texts."""
        found: dict[str, Any] = {
            "law": self.law.name,
            "equation": equation(self.law),
            "grade": self.law.grade,
            "verdict": self.verdict,
            "fired": self.report.fired,
            "unsound": self.report.unsound,
            "proved": self.proved,
            "explanation": self.explanation,
        }
        example = self.report.counterexample
        if example is not None:
            found["counterexample"] = {
                "sizes": dict(example.sizes),
                "specs": {name: repr(op) for name, op in example.specs.items()},
                "operands": {
                    name: {"type": str(example.case.scope[name].type), "value": array.tolist()}
                    for name, array in example.operands.items()
                },
                "what": example.what,
                "index": None if example.index is None else list(example.index),
                "values": None if example.values is None else [str(v) for v in example.values],
            }
        return found


def check(
    laws: Laws,
    cases: int = CASES,
    *,
    prove: bool = True,
    seed: int = 0,
    seconds: float = SECONDS,
) -> tuple[LawCheck, ...]:
    """Test every law on random cases on which it fires, and prove sound ones for all sizes.

    `cases` are those for each law, `seconds` the time (outside of the main thread there is no
    limit).  All reports are true if all laws are sound.
    """
    return tuple(_checked(law, cases, prove, seed, seconds) for law in given(laws))


def _checked(law: Law, cases: int, prove: bool, seed: int, seconds: float) -> LawCheck:
    report, tested = LawReport(law), False
    try:
        with _limited(seconds):
            # most laws fire at once, or never
            report = check_law(law, count=1, tries=_TRIES, seed=seed)
            if report.fired:
                report = check_law(law, count=cases, seed=seed)
            tested = True
            if not report or not prove:
                return LawCheck(law, report, asked=cases)
            from safegraph.proof import prove_law

            return LawCheck(law, report, prove_law(law, seed=seed), asked=cases)
    except _TimeUpError as error:
        from safegraph.proof import Proof

        if tested:
            proof = Proof(law, 0, f"no proof was found in {seconds:g} s")
            return LawCheck(law, report, proof, asked=cases)
        line = _own_line(error)
        problem = f"it was not tested within {seconds:g} s, which were up {line and f'in {line}'}"
        return LawCheck(law, report, problem=problem, asked=cases)
    except (Exception, SystemExit) as error:  # what the functions of a law raise is no bug of ours
        return LawCheck(law, report, problem=_told(error), asked=cases)


class _TimeUpError(BaseException):
    """The time is up.  No `Exception`, for those are what laws may raise where they do not fit."""


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raises _TimeUpError in what takes longer.  Signals reach the main thread only."""
    if threading.current_thread() is not threading.main_thread() or sys.platform == "win32":
        yield
        return

    def stop(*_: Any) -> None:
        raise _TimeUpError

    before = signal.signal(signal.SIGALRM, stop)
    # again each second, for code that catches everything
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


# -- in use ---------------------------------------------------------------------------------------


def with_laws(laws: Laws, phases: Sequence[Phase] = (*REFINING, *LOWERING)) -> tuple[Phase, ...]:
    """Phases in which these laws are used, too: while structure is derived, and once it is named.

    The laws are trusted: `check` them first.
    """
    own = given(laws)
    found: list[Phase] = []
    for phase in phases:
        found.append(replace(phase, laws=(*phase.laws, *own)) if phase.name == "derive" else phase)
        if phase.name == "recognise":
            found.append(Phase("given laws", own))
    if any(p.name in ("derive", "recognise") for p in phases):
        return tuple(found)
    return (*found, Phase("given laws", own))


def catalogue(family: str | None = None) -> list[Law]:
    """The laws of the product, or of one family; their `family` says which."""
    if family is not None and family not in FAMILIES:
        raise LawError(f"there is no family {family!r}; there are {', '.join(FAMILIES)}")
    return [
        replace(law, family=name)
        for name, laws in FAMILIES.items()
        if family in (None, name)
        for law in laws
    ]


def equation(law: Law) -> str:
    """Both sides: `left -> right`; `...` where the right side is built by a function."""
    return str(law).removeprefix(f"{law.name}: ")


__all__ = [
    "CASES",
    "SECONDS",
    "LawCheck",
    "catalogue",
    "check",
    "equation",
    "given",
    "load",
    "with_laws",
]
