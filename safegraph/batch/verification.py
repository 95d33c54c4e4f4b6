"""Numbers for a batch that was taken away: per sample equality, and isolation of the samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from safegraph.compare import SCALES, evaluated
from safegraph.dag import SafeDAG
from safegraph.dims import Dim, Shape, Size
from safegraph.dtypes import is_float, precision
from safegraph.errors import BatchError, SafeGraphError, ShapeError
from safegraph.ops.sample import Place, Sample

At = int | tuple[int, Dim, Dim] | None
"""A place of the batch: an axis; (axis, outer, inner), a factor of it; or None."""
_STEPS = 2.0**12
"""How many steps of an element type's precision results may differ by: sums in another order."""


@dataclass(frozen=True)
class Verification:
    """What numbers said: is each sample's result that of the batch, and does no sample see another?

    `problems` says where not, and `error` is the largest max|a - b| / max|b|.
    """

    equal: bool
    isolated: bool
    batches: tuple[int, ...]
    problems: tuple[str, ...] = ()
    error: float = 0.0

    def __bool__(self) -> bool:
        return self.equal and self.isolated

    def __str__(self) -> str:
        if self:
            return f"equal and isolated for batches of {', '.join(map(str, self.batches))}"
        return "\n  - ".join(["the samples do not behave as if each were alone:", *self.problems])


def verify(
    original: SafeDAG,
    result: SafeDAG,
    axes: Mapping[str, At],
    size: Dim,
    batches: Sequence[int],
    seed: int,
) -> Verification:
    """Both graphs on random inputs: every sample by itself, and all but one with that one changed.

    Raises BatchError for numbers of samples that no batch has, ShapeError where no small sizes suit
    the graph, and EvaluationError where no small integers do.
    """
    counts = tuple(batches)
    if not counts or any(type(n) is not int or n < 1 for n in counts):
        raise BatchError(
            f"to verify, give the numbers of samples to try, such as (1, 3), not {batches!r}"
        )
    free = isinstance(size, Size)
    if not free:
        counts = (int(size),)
    problems: list[str] = []
    equal = isolated = True
    worst = 0.0
    for count in counts:
        sizes = _sizes(original, {str(size): count} if free else {})
        given, whole = evaluated(original, sizes, seed=seed)
        for k in range(count):
            alone = result.evaluate(
                **{n: _taken(a, axes.get(n), count, k) for n, a in given.items()}
            )
            for name, found in alone.items():
                wanted = _taken(whole[name], axes.get(name), count, k)
                error = _error(
                    found, wanted.reshape(found.shape) if wanted.size == found.size else wanted
                )
                worst = max(worst, error)
                if not error <= _tolerance(original, name):
                    equal = False
                    problems.append(
                        f"output {name}, sample {k} of {count}: max|a - b| / max|b| = {error:.3g}"
                    )
        other, _ = evaluated(original, sizes, seed=seed + 1)
        again = original.evaluate(**_with_another(given, other, axes, count))
        for name in whole:
            for k in range(1, count):
                before, after = (_taken(v[name], axes.get(name), count, k) for v in (whole, again))
                if not np.array_equal(before, after, equal_nan=before.dtype.kind in "fc"):
                    isolated = False
                    problems.append(f"output {name}: sample {k} of {count} sees sample 0")
    return Verification(equal, isolated, counts, tuple(problems), worst)


def _sizes(dag: SafeDAG, fixed: Mapping[str, int]) -> dict[str, int]:
    """Small sizes that suit the graph, with this batch."""
    others = [n for n in dag.sizes if n not in fixed]
    refused: SafeGraphError | None = None
    for scale in SCALES:
        for values in (
            {n: (i + 2) * scale for i, n in enumerate(others)},
            dict.fromkeys(others, 2 * scale),
        ):
            try:
                dag.bind(values | dict(fixed))
            except SafeGraphError as error:
                refused = error
            else:
                return values | dict(fixed)
    raise ShapeError(f"no small sizes suit {dag.name}: {refused}")


def _place(at: At) -> Place | None:
    if at is None:
        return None
    return Place(at) if isinstance(at, int) else Place(*at)


def _taken(array: np.ndarray, at: At, count: int, k: int) -> np.ndarray:
    """Sample k of an array; the array itself where it has no batch."""
    place = _place(at)
    if place is None:
        return array
    op = _numbers(place, array.shape, count)
    return np.asarray(Sample.of(op, count, k).run(array))


def _numbers(place: Place, shape: Shape, count: int) -> Place:
    """The place with free sizes as the array has them."""
    if isinstance(place.outer, int) and isinstance(place.inner, int):
        return place
    rest = int(shape[place.axis]) // count
    if isinstance(place.outer, int):
        return Place(place.axis, place.outer, rest // place.outer)
    if isinstance(place.inner, int):
        return Place(place.axis, rest // place.inner, place.inner)
    raise ShapeError(f"the place {place} has two free sizes: bind them to verify")


def _with_another(
    given: Mapping[str, np.ndarray],
    other: Mapping[str, np.ndarray],
    axes: Mapping[str, At],
    count: int,
) -> dict[str, np.ndarray]:
    """The inputs with other numbers in sample 0."""
    found = {}
    for name, array in given.items():
        at = axes.get(name)
        found[name] = array
        if isinstance(at, int):
            found[name] = array.copy()
            np.moveaxis(found[name], at, 0)[0] = np.moveaxis(other[name], at, 0)[0]
    return found


def _tolerance(dag: SafeDAG, name: str) -> float:
    dtype = dag.types[dag.outputs[name]].dtype
    return _STEPS * precision(dtype) if is_float(dtype) else 0.0


def _error(a: np.ndarray, b: np.ndarray) -> float:
    """max|a - b| / max|b|, infinite where shapes, infinities or NaN differ."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return float("inf")
    if a.dtype.kind not in "fc":
        return 0.0 if np.array_equal(a, b) else float("inf")
    finite = np.isfinite(b)
    if not np.array_equal(np.isfinite(a), finite) or not np.array_equal(
        a[~finite], b[~finite], equal_nan=True
    ):
        return float("inf")
    if not finite.any():
        return 0.0
    wide_a, wide_b = a[finite].astype(np.float64), b[finite].astype(np.float64)
    scale = np.abs(wide_b).max()
    gap = np.abs(wide_a - wide_b).max()
    return float(gap if scale == 0 else gap / scale)
