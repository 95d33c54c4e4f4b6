"""Are two graphs equal?  Both are evaluated on the same random inputs, and all outputs compared.

That finds what differs.  Where nothing does, laws may prove that nothing can.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from safegraph.dag import SafeDAG
from safegraph.dims import Size
from safegraph.dtypes import is_float, is_integer, to_numpy
from safegraph.errors import BindingError, EvaluationError, SafeGraphError, ShapeError
from safegraph.op import TensorType

if TYPE_CHECKING:
    from safegraph.equivalence.graphs import Equivalence

SCALES = (1, 2, 4, 8, 16, 32, 64, 112)
"""Small sizes first; an image model needs more, for its last window to fit."""
SMALL_INTEGERS = 4
"""Integers that index nothing that is known are drawn below this."""


@dataclass(frozen=True)
class Verdict:
    """Whether two graphs gave the same outputs, and the worst that was seen.

    `error` is max|a - b| / max|b| of the worst output, `where` its name, `sizes` the free sizes
    and `seed` the seed then; `inputs` shows the difference where there is one, at the element
    `index` of that output, which has these two `values`.  True where the graphs are equal.
    """

    equal: bool
    error: float
    where: str = ""
    reason: str = ""
    """Why the graphs are not equal, where they could not be compared by numbers."""
    trials: int = 0
    sizes: Mapping[str, int] = field(default_factory=dict)
    inputs: Mapping[str, np.ndarray] | None = field(default=None, repr=False)
    seed: int = 0
    index: tuple[int, ...] | None = None
    values: tuple[Any, Any] | None = None
    proof: Equivalence | None = None
    """What laws prove, where that was asked for."""

    def __bool__(self) -> bool:
        return self.equal

    @property
    def verdict(self) -> str:
        """`different`, `numerically equal`, or `proved equal`."""
        if not self.equal:
            return "different"
        return "proved equal" if self.proof else "numerically equal"

    def __str__(self) -> str:
        at = "".join(f", {name} = {value}" for name, value in self.sizes.items())
        found = f"max|a - b| / max|b| = {self.error:.3g} at output {self.where}{at}"
        if not self.equal:
            return f"not equal: {self.reason or found}{self._shown()}"
        compared = f"equal on {self.trials} random inputs: at most {found}"
        if self.proof is None:
            return compared
        head = "proved equal" if self.proof else "numerically equal, not proved"
        return f"{head}\n{self.proof}\n{compared}"

    def _shown(self) -> str:
        """The element that differs, and how to see it again."""
        if self.index is None or self.values is None:
            return ""
        place = "".join(f" --bind {name}={value}" for name, value in self.sizes.items())
        return (
            f"\n{self.where}{list(self.index)} is {self.values[0]} and {self.values[1]}, "
            f"with --trials 1 --seed {self.seed}{place}"
        )


def check(
    a: SafeDAG,
    b: SafeDAG,
    *,
    sizes: Mapping[str, int] | None = None,
    trials: int = 2,
    rtol: float = 1e-3,
    seed: int = 0,
    prove: bool = False,
    nodes: int | None = None,
    seconds: float | None = None,
    laws: Any = (),
) -> Verdict:
    """Evaluate both graphs in NumPy on `trials` random inputs and compare all outputs.

    Inputs and outputs are matched by name, else by their order.  Floats are normal, integers that
    pick from a table stay inside it, and free sizes that `sizes` does not give get small values,
    others in each trial.  Equal means max|a - b| <= rtol * max|b| for every output, and NaN and
    infinity in the same places.

    With `prove`, graphs that are equal on these go into one e-graph, where laws may prove it within
    a budget of `nodes` and `seconds`: for all inputs, and for all sizes that both take.  `laws` of
    your own (or the path of a Python file that has some) are used, too, and trusted.

    Raises UnsupportedError where a graph has unknown ops, and ShapeError where no small sizes fit.
    """
    for dag in (a, b):
        dag.require_known("cannot compare")
    pairs, problem = _pair({t.name: t.type for t in a.inputs}, {t.name: t.type for t in b.inputs})
    if not problem:
        left_out, right_out = ({o: d.types[v] for o, v in d.outputs.items()} for d in (a, b))
        outputs, problem = _pair(left_out, right_out, what="output")
    if problem:
        return Verdict(False, np.inf, reason=problem)

    fixed = _fixed(a, b, pairs) | dict(sizes or {})
    limits = {mine: n for n, mine in _limits_through(b, pairs)}
    worst = Verdict(True, 0.0, trials=trials)
    first: tuple[dict[str, np.ndarray], dict[str, int]] | None = None
    for trial in range(trials):
        values = _suitable(a, fixed, trial)
        given, left = evaluated(a, values, seed=seed + trial, limits=limits)
        first = first or (given, values)
        try:
            right = _evaluate(b, {pairs[name]: array for name, array in given.items()})
        except SafeGraphError as refusal:
            reason = f"{b.name} does not take the inputs that {a.name} takes: {refusal}"
            return Verdict(False, np.inf, "", reason, trial + 1, values, given, seed + trial)
        for mine, theirs in outputs.items():
            x, y = left[mine], right[theirs]
            error, reason, at = _difference(x, y)
            shown = None if at is None else (x[at].item(), y[at].item())
            if reason:
                reason = f"output {mine}: {reason}"
                return Verdict(
                    False, np.inf, mine, reason, trial + 1, values, given, seed + trial, at, shown
                )
            if error > worst.error or not worst.where:
                worst = Verdict(True, error, mine, "", trials, values, None, seed + trial)
                if error > rtol:
                    worst = replace(worst, equal=False, inputs=given, index=at, values=shown)
    if not (prove and worst and first):
        return worst
    from safegraph.equivalence.graphs import prove as prove_equal  # the laws are a second to import
    from safegraph.laws import given as given_laws

    own = given_laws(laws)
    proof = prove_equal(a, b, pairs, outputs, *first, nodes=nodes, seconds=seconds, laws=own)
    return replace(worst, proof=proof)


def _evaluate(dag: SafeDAG, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    try:
        return dag.evaluate(**inputs)
    except IndexError as error:  # NumPy's word on integers whose table could not be told
        raise EvaluationError(
            f"{dag.name}: random integers do not suit as indices ({error}); "
            f"compare it on inputs of your own with evaluate"
        ) from None


# -- which input is which -------------------------------------------------------------------------


def _pair(
    a: Mapping[str, TensorType], b: Mapping[str, TensorType], what: str = "input"
) -> tuple[dict[str, str], str]:
    """Names of `a` -> names of `b`, and what is wrong, if they cannot be matched."""
    if len(a) != len(b):
        return {}, f"{len(a)} {what}s ({_names(a)}) against {len(b)} ({_names(b)})"
    pairs = {n: n for n in a} if a.keys() == b.keys() else dict(zip(a, b, strict=True))
    problems = [
        f"{what} {mine} is {a[mine]}, {what} {theirs} of the other is {b[theirs]}"
        for mine, theirs in pairs.items()
        if not _compatible(a[mine], b[theirs])
    ]
    return pairs, "; ".join(problems)


def _names(types: Mapping[str, TensorType]) -> str:
    return ", ".join(types) or "none"


def _compatible(a: TensorType, b: TensorType) -> bool:
    """Can an array be of both types?  Free sizes may have other names, or a value."""
    if a.dtype != b.dtype or a.rank != b.rank:
        return False
    pairs = zip(a.shape, b.shape, strict=True)
    return all(m == n or isinstance(m, Size) or isinstance(n, Size) for m, n in pairs)


def _fixed(a: SafeDAG, b: SafeDAG, pairs: Mapping[str, str]) -> dict[str, int]:
    """Free sizes of `a` that are numbers in `b`."""
    found: dict[str, int] = {}
    for mine, theirs in pairs.items():
        for m, n in zip(a.types[mine].shape, b.types[theirs].shape, strict=True):
            if isinstance(m, Size) and isinstance(n, int) and str(m) in m.names:
                found[str(m)] = n
    return found


# -- what goes in ---------------------------------------------------------------------------------


def _suitable(dag: SafeDAG, fixed: Mapping[str, int], trial: int) -> dict[str, int]:
    """Small sizes that the graph takes: different ones, else equal ones, as small as it takes."""
    unknown = [name for name in fixed if name not in dag.sizes]
    if unknown:
        has = ", ".join(dag.sizes) or "none"
        raise BindingError(f"{dag.name} has no free size {', '.join(unknown)}; it has {has}")
    refused: SafeGraphError | None = None
    for values in _candidates([n for n in dag.sizes if n not in fixed], trial):
        try:
            dag.bind(values | dict(fixed))
        except SafeGraphError as error:
            refused = refused or error
        else:
            return values | dict(fixed)
    raise ShapeError(
        f"no small values of {', '.join(dag.sizes)} suit {dag.name}: give some yourself "
        f"(sizes={{...}}; --bind on the command line)\n{refused}"
    )


def _candidates(names: list[str], trial: int) -> Iterator[dict[str, int]]:
    if not names:
        yield {}
        return
    for scale in SCALES:
        yield {name: (trial + 2 + i) * scale for i, name in enumerate(names)}
        if len(names) > 1:
            yield dict.fromkeys(names, (trial + 2) * scale)


def evaluated(
    dag: SafeDAG,
    sizes: Mapping[str, int],
    *,
    seed: int = 0,
    limits: Mapping[str, int] | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Random inputs that a graph takes (see `random_inputs`), and its outputs.

    Where integers turn out to pick from a smaller table than could be told, smaller ones are drawn.
    Raises EvaluationError where even zeros do not suit.
    """
    refused: EvaluationError | None = None
    for below in range(SMALL_INTEGERS, 0, -1):
        smaller = dict(limits or {})
        if refused is not None:
            drawn = (t.name for t in dag.inputs if is_integer(t.type.dtype))
            smaller = {name: min(below, smaller.get(name, below)) for name in drawn}
        given = random_inputs(dag, sizes, seed=seed, limits=smaller)
        try:
            return given, _evaluate(dag, given)
        except EvaluationError as error:
            refused = refused or error
    assert refused is not None, "a graph is evaluated or refuses its inputs"
    raise refused


def random_inputs(
    dag: SafeDAG,
    sizes: Mapping[str, int],
    *,
    seed: int = 0,
    limits: Mapping[str, int] | None = None,
) -> dict[str, np.ndarray]:
    """Random arrays for the inputs: normal floats, integers inside the tables that they pick from.

    `sizes` must give every free size; `limits` are bounds of integer inputs that are known besides.
    """
    below = _limits(dag)
    for name, limit in (limits or {}).items():
        below[name] = min(limit, below.get(name, limit))
    rng = np.random.default_rng(seed)
    bound = [(t.name, t.type.bind(sizes)) for t in dag.inputs]
    return {name: _random(type_, rng, below.get(name)) for name, type_ in bound}


def _random(type_: TensorType, rng: np.random.Generator, limit: int | None) -> np.ndarray:
    shape: Any = type_.shape  # numbers only: the type is bound
    dtype = type_.dtype
    if dtype == "bool":
        return rng.random(shape) < 0.75  # rows of masks are seldom empty
    if is_integer(dtype):
        high = SMALL_INTEGERS if limit is None else max(limit, 1)
        return rng.integers(0, high, shape).astype(to_numpy(dtype))
    normal = rng.standard_normal(shape)
    if not is_float(dtype):
        normal = normal + 1j * rng.standard_normal(shape)
    return normal.astype(to_numpy(dtype))


def _limits(dag: SafeDAG) -> dict[str, int]:
    """For integer inputs that pick from a table, moved or cast before: the size of the smallest."""
    origin = {t.name: t.name for t in dag.inputs if is_integer(t.type.dtype)}
    found: dict[str, int] = {}
    for node in dag:
        if node.op.name in ("gather", "gather_elements") and node.inputs[1] in origin:
            table = dag.types[node.inputs[0]].shape[node.op.spec["axis"]]
            name = origin[node.inputs[1]]
            if isinstance(table, int):
                found[name] = min(table, found.get(name, table))
        elif len(node.inputs) == 1 and node.inputs[0] in origin and _keeps_values(node.op):
            origin[node.name] = origin[node.inputs[0]]
    return found


def _keeps_values(op: Any) -> bool:
    return op.moves or op.is_view or op.name in ("cast", "reshape", "expand", "index", "tile")


def _limits_through(b: SafeDAG, pairs: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    found = _limits(b)
    for mine, theirs in pairs.items():
        if theirs in found:
            yield found[theirs], mine


# -- what comes out -------------------------------------------------------------------------------


def _difference(a: np.ndarray, b: np.ndarray) -> tuple[float, str, tuple[int, ...] | None]:
    """max|a - b| / max|b| over what is finite; or what else differs; and where most."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return np.inf, f"{a.dtype}{list(a.shape)} against {b.dtype}{list(b.shape)}", None
    if not a.size:
        return 0.0, "", None
    wide = np.complex128 if a.dtype.kind == "c" else np.float64
    x, y = a.astype(wide), b.astype(wide)
    finite = np.isfinite(x) & np.isfinite(y)
    if not np.array_equal(x[~finite], y[~finite], equal_nan=True):
        apart = ~((x == y) | (np.isnan(x) & np.isnan(y)) | finite)
        count = np.count_nonzero(apart)
        return np.inf, f"{count} elements are NaN or infinite in one graph only", _first(apart)
    if not finite.any():
        return np.inf, "all elements are NaN or infinite, so nothing could be compared", None
    gaps = np.where(finite, np.abs(np.where(finite, x, 0) - np.where(finite, y, 0)), 0)
    gap, scale = gaps.max(), np.abs(y[finite]).max()
    if gap == 0:
        return 0.0, "", None
    return (float(gap / scale) if scale else np.inf), "", _first(gaps == gap)


def _first(where: np.ndarray) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(where)[0])
