"""Masks of -inf under the default laws: no class takes NaN where the given graph has a number."""

import numpy as np
import pytest

from safegraph.derived.attention import Attention
from safegraph.derived.einsum import einsum
from safegraph.derived.norm import LogSoftmax, Softmax
from safegraph.derived.pointwise import Broadcast
from safegraph.derived.pool import MaxPool
from safegraph.egraph import Budget, EGraph
from safegraph.law import Law, one, variables
from safegraph.ranges import Range, of_array
from safegraph.rules import ALL, LOWERING, REFINING
from safegraph.soundness import check_egraph, check_law, run_value
from safegraph.value import (
    Value,
    apply,
    full,
    pad,
    permute,
    reduce,
    repeat,
    select,
    slice_axis,
    tensor,
    unsqueeze,
    walk,
)

INF = float("inf")
q, k, v = (tensor(n, "f64[2 4 3]") for n in "qkv")
x, weight = tensor("x", "f64[4 4]"), tensor("weight", "f64[4 5]")
later = tensor("later", "f64[4 4]")  # -inf above the diagonal
padding = tensor("padding", "f64[1 4]")  # -inf at the last place
emptied = tensor("emptied", "f64[4 4]")  # a whole row of -inf
kept = tensor("kept", "f64[4 4]")  # 0 and 1, of which the logarithm is a mask
seen = tensor("seen", "bool[4 4]")  # up to the diagonal
filled = tensor("filled", "bool[4 4]")  # but the row that is emptied
image = tensor("image", "f64[1 2 4 4]")
line, ends = tensor("line", "f64[1 2 6]"), tensor("ends", "f64[1 2 6]")  # -inf at both ends
taps = tensor("taps", "f64[2 1]")
offset = tensor("offset", "f64[4 4]")

_ABOVE = np.triu(np.ones((4, 4), bool), 1)
_SECOND = np.zeros((4, 4), bool)
_SECOND[1] = True
CONSTANTS = {
    "later": np.where(_ABOVE, -INF, 0.0),
    "padding": np.array([[0.0, 0.0, 0.0, -INF]]),
    "emptied": np.where(_SECOND, -INF, 0.0),
    "kept": np.where(_ABOVE, 0.0, 1.0),
    "ends": np.tile([-INF, 0.0, 0.0, 0.0, 0.0, -INF], (1, 2, 1)),
    "taps": np.array([[0.5], [2.0]]),
    "offset": np.where(np.eye(4) + _SECOND, 3.0, -3.0),
}
"""Data that is known: masks of -inf, what makes such, and finite weights."""


def softmax(value: Value) -> Value:
    """Written out, as exporters do."""
    shifted = (value - reduce(value, [value.rank - 1], "max")).exp()
    return shifted / reduce(shifted, [value.rank - 1], "sum")


def minus_infinity(value: Value) -> Value:
    return full(-INF, value.shape, value.dtype)


scores = q @ permute(k, (0, 2, 1))
rows = repeat(padding, (4, 1))

GRAPHS: dict[str, Value] = {
    "scores and a mask": softmax(scores * 0.5 + repeat(unsqueeze(later, [0]), (2, 1, 1))) @ v,
    "scores and a mask, scaled together": softmax(
        (scores + repeat(unsqueeze(later, [0]), (2, 1, 1))) * 0.5
    )
    @ v,
    "attention with a mask of numbers": apply(Attention(), q, k, v, later),
    "attention with an empty row, made 0": apply(Attention(), q, k, v, emptied),
    "attention to the past": apply(Attention(causal=True), q, k, v),
    "a choice of -inf": softmax(select(seen, x, minus_infinity(x))) @ weight,
    "an empty row that is not used": select(filled, softmax(x + emptied), x),
    "two masks": apply(Softmax(1), (x + later) + rows),
    "two masks of which one is chosen": apply(
        Softmax(1), select(seen, x, minus_infinity(x)) + later
    ),
    "the logarithm of a mask": apply(Softmax(1), x + kept.log()),
    "logarithms of masked probabilities": apply(LogSoftmax(1), x + later).exp(),
    "the sum of exponentials": reduce((x + later).exp(), [1], "sum").log(),
    "a maximum over what is seen": reduce(select(seen, x, minus_infinity(x)), [1], "max"),
    "exponentials with a border of -inf": reduce(pad(x, (1, 1), (1, 1), -INF).exp(), [1], "sum"),
    "maxima of windows with a border": MaxPool((3, 3), (1, 1), (1, 1), (1, 1), (1, 1))(image),
    "a masked operand of a product with ones": einsum(
        "ij,jk->ik", x + rows, full(1.0, (4, 5), "f64")
    ),
    "a masked operand of a product": (x + rows) @ weight.exp(),
    "a slice of a masked line, times a number a channel": Broadcast("multiply")(
        slice_axis(line + ends, 2, 1, 5), taps
    ),
    "a product with a mask": reduce((x + offset) * rows, [1], "sum"),
    "a mask taken twice": x + later * 2 + later,
    "a mask and its opposite": (x - (-later)).exp() * x,
    "an opposite mask": (-(x + later)).exp() ** full(-1.0, x.shape, "f64"),
    "a tanh of masked numbers": ((x + later).tanh() + 1) * x,
    "a choice by a mask": select(later < -1, x, later) * 2,
}


def arrays(graph: Value) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    found: dict[str, np.ndarray] = {}
    for leaf in (value for value in walk([graph]) if value.op is None):
        if leaf.name in CONSTANTS:
            found[leaf.name] = CONSTANTS[leaf.name]
        elif leaf.dtype == "bool":
            found[leaf.name] = ~_ABOVE if leaf is seen else ~_SECOND
        else:
            found[leaf.name] = rng.normal(size=leaf.shape)
    return found


def known_range(name: str) -> Range | None:
    """What is known of a constant; nothing of an input."""
    return of_array(CONSTANTS[name]) if name in CONSTANTS else None


def explored(graph: Value) -> EGraph:
    """The e-graph after the default phases."""
    egraph = EGraph()
    egraph.add([graph], constants=CONSTANTS, ranges=known_range)
    for phase in (*REFINING, *LOWERING):
        egraph.run(phase.laws, Budget(1_500, 5.0), rounds=phase.rounds or 6)
    return egraph


@pytest.mark.parametrize("name", GRAPHS)
def test_every_class_has_one_value_under_masks(name: str) -> None:
    graph = GRAPHS[name]
    leaves = arrays(graph)
    assert not np.isnan(run_value(graph, leaves, {})).any(), "the graph itself is a bad example"
    egraph = explored(graph)
    assert len(egraph) > len(walk([graph])), "no law fired"
    assert not [str(found) for found in check_egraph(egraph, leaves)]


# -- the grades ------------------------------------------------------------------------------------

a, b, c = variables("a b c")


def test_a_law_that_breaks_at_infinity_must_say_so() -> None:
    spread = {
        grade: one("distributed", (a + b) * c, a * c + b * c, grade=grade)[0]
        for grade in ("real", "finite")
    }
    report = check_law(spread["real"], count=100)
    assert report.unsound
    assert "nan" in str(report)
    assert check_law(spread["finite"], count=100)


def test_a_law_of_grade_finite_keeps_off_masks() -> None:
    (law,) = one("distributed", (a + b) * c, a * c + b * c, grade="finite")
    for mask, applied in ((later, 0), (weight, 1)):
        term = (tensor("y", mask.type) + mask) * tensor("z", mask.type)
        egraph = EGraph()
        egraph.add([term], ranges=known_range)
        assert egraph.run([law], rounds=1).matches[law.name] == applied


def test_laws_that_make_nan_of_infinity_are_graded_finite() -> None:
    needed = {law.name for law in ALL if law.grade == "finite"}
    assert "a contraction of a sum with a constant (left)" in needed
    assert "a contraction absorbs a permute (left)" not in needed


def test_a_law_may_replace_nan_by_a_number() -> None:
    (law,) = one("a difference with itself", a - a, lambda a: full(0, a.shape, a.dtype))
    assert check_law(law, count=50)
    assert not check_law(_wrong(), count=50)


def _wrong() -> Law:
    """Zero times anything, the other way round: infinity becomes NaN."""
    return one("a number with zero added", a + b, lambda a, b: a + b + a * 0)[0]
