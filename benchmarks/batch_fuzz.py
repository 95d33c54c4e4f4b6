"""Random programs with a free batch: is what can be unbatched accepted, and is nothing else?

    python -m benchmarks.batch_fuzz                          # 2,000 programs
    python -m benchmarks.batch_fuzz --programs 100000 --seed 1 --jobs 2

The truth is dynamic.  A program is run on batches of 2, 3, 4 and 5 that hold the same samples at
other places, among others; samples stay apart exactly where an axis of the output can be split so
that each sample's part is the same in all runs.  What was accepted is run on the samples alone, and
some of it is given a batch again and run on many.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import repeat
from multiprocessing import get_context
from typing import Any

import numpy as np

from benchmarks.batch_pool import BATCH, Program, batched
from benchmarks.batch_programs import program
from safegraph.batch import Verdict, unbatch
from safegraph.dag import SafeDAG
from safegraph.dims import Shape, divide
from safegraph.errors import BatchError

BATCHES = ((0, 1), (2, 3, 1), (0, 5, 6, 7), (1, 3, 0, 2, 4))
"""Which samples the runs are on: each of the first four at several places, with others."""
ALONE = (0, 1, 4)
"""The samples that what was accepted is run on."""
LIFTED = 4
"""One in so many of those is given a batch again."""
Place = tuple[int, int, int] | None
"""An axis of an output and its factors before and after the batch; None where it has no batch."""
Arrays = Mapping[str, np.ndarray]


@dataclass
class Report:
    """What was found, in numbers of programs."""

    programs: int = 0
    accepted: int = 0
    eliminable: int = 0
    both: int = 0
    unsound: list[str] = field(default_factory=list)
    crashes: dict[str, list[str]] = field(default_factory=dict)
    """Programs for which there was no verdict, by error."""
    refusals: Counter[str] = field(default_factory=Counter)
    """The refusals of programs that could be unbatched, by op and reason."""
    examples: dict[str, str] = field(default_factory=dict)
    """A program for each of them."""
    lifted: int = 0
    """How many graphs without a batch were given one again."""
    unlifted: Counter[str] = field(default_factory=Counter)
    """Why others were not."""
    seconds: float = 0.0

    @property
    def share(self) -> float:
        """How many of those that can be unbatched were accepted."""
        return self.both / max(self.eliminable, 1)

    def add(self, other: Report) -> None:
        """What was found of other programs, too."""
        self.programs += other.programs
        self.accepted += other.accepted
        self.eliminable += other.eliminable
        self.both += other.both
        self.lifted += other.lifted
        self.unsound += other.unsound
        self.refusals += other.refusals
        self.unlifted += other.unlifted
        self.examples = other.examples | self.examples
        for kind, told in other.crashes.items():
            self.crashes.setdefault(kind, []).extend(told)

    def __str__(self) -> str:
        lines = [
            f"{self.programs:,} programs, {self.programs / self.seconds:.0f} a second",
            f"{self.accepted:,} accepted; {self.eliminable:,} could be unbatched",
            f"{self.share:.1%} of these were accepted",
            f"{len(self.unsound)} unsound, {sum(map(len, self.crashes.values()))} crashed",
            f"{self.lifted:,} batched again, {self.unlifted.total():,} not:",
            *(f"{n:8,}  {reason}" for reason, n in self.unlifted.most_common(5)),
            "refused though they could be unbatched:",
            *(f"{n:8,}  {reason}" for reason, n in self.refusals.most_common(25)),
        ]
        lines += self.unsound[:5]
        for kind, told in sorted(self.crashes.items(), key=lambda item: -len(item[1]))[:5]:
            lines += [f"{len(told)} crashes: {kind}", told[0]]
        return "\n".join(lines)


def fuzz(programs: int, seed: int = 0, jobs: int = 1) -> Report:
    """Draw programs, and compare each verdict with the truth; in several processes if asked."""
    start = time.perf_counter()
    if jobs == 1:
        report = _fuzz(range(programs), seed)
    else:
        report = Report()
        with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
            parts = [range(first, programs, 8 * jobs) for first in range(8 * jobs)]
            for part in pool.map(_fuzz, parts, repeat(seed)):
                report.add(part)
    report.seconds = time.perf_counter() - start
    return report


def _fuzz(numbers: Iterable[int], seed: int) -> Report:
    report = Report()
    for number in numbers:
        rng = np.random.default_rng([seed, number])
        one = program(rng)
        runs = Runs(one, rng)
        report.programs += 1
        try:
            verdict = unbatch(one.dag, "batch")
        except Exception as error:  # whatever stops one program must not stop the count
            kind = f"{type(error).__name__}: {_general(str(error))}"
            told = f"seed {seed}, program {number}: {error}\n{one.dag}"
            report.crashes.setdefault(kind, []).append(told)
            report.eliminable += runs.eliminable
            continue
        report.accepted += verdict.accepted
        report.eliminable += runs.eliminable
        report.both += verdict.accepted and runs.eliminable
        if verdict.accepted:
            problem = runs.problem(verdict)
            if not problem and number % LIFTED == 0:
                problem = lift(runs, verdict, report)
            if problem:
                report.unsound.append(f"seed {seed}, program {number}: {problem}\n{one.dag}")
            continue
        refusal = verdict.refusal
        assert refusal is not None
        if runs.eliminable:
            key = f"{refusal.op}: {_general(refusal.reason)}"
            report.refusals[key] += 1
            report.examples.setdefault(key, f"program {number}: {refusal}\n{one.dag}")
    return report


def lift(runs: Runs, verdict: Verdict, report: Report) -> str:
    """Give the graph without a batch one again; what is wrong with it, empty where nothing is."""
    try:
        many = verdict.dag.batch(dict.fromkeys(runs.samples, "batch"))
    except BatchError as refusal:
        report.unlifted[_general(str(refusal).partition("\n")[0])] += 1
        return ""
    report.lifted += 1
    with np.errstate(all="ignore"):
        found = many.evaluate(
            **{n: samples[list(ALONE)] for n, samples in runs.samples.items()}, **runs.shared
        )
    for b, k in enumerate(ALONE):
        for output, alone in runs.alone(verdict.dag, k).items():
            each = found[output]
            part = each if each.shape == alone.shape else each[b]
            if not _equal(part, alone):
                return f"sample {k} of {output} differs when batched again\n{verdict.dag}\n{many}"
    return ""


def _general(reason: str) -> str:
    """A reason without its names and numbers."""
    words = ("#" if any(c.isdigit() for c in word) else word for word in reason.split())
    return " ".join(words)[:110]


class Runs:
    """A program's outputs on all batches, and what they say."""

    def __init__(self, one: Program, rng: np.random.Generator) -> None:
        self.one = one
        self.shared: dict[str, np.ndarray] = {}
        self.samples: dict[str, np.ndarray] = {}  # with the samples in front
        for t in one.dag.inputs:
            shape = [d for d in t.type.shape if d is not BATCH]
            if t.name in one.axes:
                self.samples[t.name] = _random(rng, t.type.dtype, [8, *shape])
            else:
                self.shared[t.name] = _random(rng, t.type.dtype, shape)
        self.found = [self.run(one.dag, batch) for batch in BATCHES]
        self.places: dict[str, list[Place]] = {
            o: [p for p in candidates(one.dag.types[v].shape) if self.apart(o, p)]
            for o, v in one.dag.outputs.items()
        }

    @property
    def eliminable(self) -> bool:
        """Do samples stay apart in all outputs?"""
        return all(self.places.values())

    def run(self, dag: SafeDAG, batch: tuple[int, ...]) -> Arrays:
        """The outputs on these samples."""
        inputs = {
            name: np.moveaxis(samples[list(batch)], 0, self.one.axes[name])
            for name, samples in self.samples.items()
        }
        with np.errstate(all="ignore"):
            return dag.evaluate(**inputs, **self.shared)

    def alone(self, result: SafeDAG, k: int) -> Arrays:
        """The outputs of a graph without a batch on one sample."""
        inputs = {name: samples[k] for name, samples in self.samples.items()}
        with np.errstate(all="ignore"):
            return result.evaluate(**inputs, **self.shared)

    def apart(self, output: str, place: Place) -> bool:
        """Is a sample's part of an output the same in all runs?"""
        seen: dict[int, np.ndarray] = {}
        for batch, found in zip(BATCHES, self.found, strict=True):
            for k, part in zip(batch, parts(found[output], place, len(batch)), strict=True):
                if not _equal(seen.setdefault(k, part), part):
                    return False
                if place is None and not _equal(seen[0], part):
                    return False
        return True

    def problem(self, verdict: Verdict) -> str:
        """What is wrong with an accepted graph; empty where nothing is."""
        result = verdict.dag
        for name, type_ in result.types.items():
            if any(map(batched, type_.shape)):
                return f"the batch is in the shape of {name}: {type_}"
        for k in ALONE:
            alone = self.alone(result, k)
            for output in self.one.dag.outputs:
                place = _place(verdict.axes[output])
                for batch, found in zip(BATCHES, self.found, strict=True):
                    if k not in batch:
                        continue
                    wanted = parts(found[output], place, len(batch))[batch.index(k)]
                    if not _same_elements(wanted, alone[output]):
                        return f"sample {k} of {batch} of {output} differs, {place}\n{result}"
        return ""


def candidates(shape: Shape) -> list[Place]:
    """Every way in which a shape can hold one part for each sample."""
    axes = [i for i, d in enumerate(shape) if batched(d)]
    if not axes:
        return [None]
    if len(axes) > 1:
        return []
    (axis,) = axes
    rest = divide(shape[axis], BATCH)
    if not isinstance(rest, int):
        return []
    return [(axis, n, rest // n) for n in range(1, rest + 1) if rest % n == 0]


def parts(array: np.ndarray, place: Place, count: int) -> np.ndarray:
    """Each sample's part of an output."""
    if place is None:
        return np.broadcast_to(array, (count, *array.shape))
    axis, outer, inner = place
    shape = array.shape
    split = array.reshape(*shape[:axis], outer, count, inner, *shape[axis + 1 :])
    front = np.moveaxis(split, axis + 1, 0)
    return front.reshape(count, *shape[:axis], outer * inner, *shape[axis + 1 :])


def _place(axes: Any) -> Place:
    return (axes, 1, 1) if isinstance(axes, int) else axes


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return np.allclose(a, b, rtol=1e-6, atol=1e-9, equal_nan=True)


def _same_elements(part: np.ndarray, alone: np.ndarray) -> bool:
    """A part has an axis of size 1 where the batch was alone; the graph without it has none."""
    return part.size == alone.size and _equal(part.reshape(-1), alone.reshape(-1))


def _random(rng: np.random.Generator, dtype: str, shape: list[Any]) -> np.ndarray:
    if dtype == "f64":
        return rng.uniform(-2, 2, shape)
    return -rng.integers(0, 2, shape)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--programs", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--examples", action="store_true", help="a program for each refusal")
    options = parser.parse_args()
    report = fuzz(options.programs, options.seed, options.jobs)
    print(report)
    if options.examples:
        for reason, _ in report.refusals.most_common(25):
            print(f"\n{reason}\n{report.examples[reason]}")


if __name__ == "__main__":
    main()
