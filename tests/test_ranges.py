"""Interval analysis: every element is in its range; laws for finite values keep off infinities."""

from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safegraph.cases import random_values
from safegraph.compare import check
from safegraph.dag import SafeDAG
from safegraph.derived.base import evaluate
from safegraph.derived.einsum import einsum
from safegraph.derived.norm import BatchNorm
from safegraph.derived.pointwise import Expm1
from safegraph.derived.pool import AdaptiveAvgPool, AvgPool, MaxPool
from safegraph.dims import size
from safegraph.egraph import EGraph
from safegraph.law import one, positive, variables
from safegraph.ops import Cast, Iota, Pad, Reduce, Scalar, Unary, Unfold
from safegraph.ranges import ANYTHING, Range, range_of
from safegraph.rules import ALL
from safegraph.value import Value, apply, full, select, tensor, walk

x = tensor("x", "f64[3 3]")
y = tensor("y", "f64[3 3]")
yes = tensor("yes", "bool[3 3]")
masked = select(yes, x, full(-inf, (3, 3), "f64"))

KNOWN: dict[str, tuple[Value, Range]] = {
    "a number": (full(3.0, (2,), "f64"), Range(3, 3)),
    "a bounded function": (x.tanh() * 2 + 1, Range(-1, 3)),
    "a square": (x * x, Range(0, inf)),
    "a sum of squares and a bit": ((x * x).mean(0) + 1e-5, Range(1e-5, inf)),
    "a clipped value": (x.maximum(0.0).minimum(6.0), Range(0, 6)),
    "a mask": (masked, Range(bottom=True)),
    "a mask, exponentiated": (masked.exp(), Range(0, inf)),
    "a mask, at least 0": (masked.maximum(0.0), Range(0, inf)),
    "the softmax of a mask": (masked.softmax(axis=1), Range(0, 1)),
    "the parts of a sum": ((e := masked.exp()) / e.sum(1), Range(0, 1)),
    "windows of an image with a border": (
        apply(MaxPool((2, 2), (1, 1), (1, 1), (0, 1), (1, 1)), tensor("i", "f64[1 1 4 4]").tanh()),
        Range(-1, 1),
    ),
    "a quotient by what may be 0": (x / y, ANYTHING),
    "infinities that meet": (full(inf, (3,), "f64") + full(-inf, (3,), "f64"), ANYTHING),
    "a quotient by what is above 0": (x / (y * y + 1.0), Range()),
    "a contraction with a mask": (einsum("ij,jk->ik", masked, y), ANYTHING),
    "a contraction of squares": (einsum("ij,jk->ik", x * x, y * y), Range(0, inf)),
}


@pytest.mark.parametrize("name", KNOWN)
def test_ranges_that_are_known(name: str) -> None:
    value, expected = KNOWN[name]
    assert range_of(value) == expected


@given(seed=st.integers(0, 10**9))
@settings(max_examples=150, deadline=None)
def test_every_element_is_in_its_range(seed: int) -> None:
    sample = random_values(np.random.default_rng(seed), 6, symbolic=False)
    values = [v for v in walk(sample.outputs) if v.dtype in ("f64", "f32")]
    arrays = {v: sample.leaves[v.name] for v in walk(sample.outputs) if v.op is None}
    with np.errstate(all="ignore"):
        for value, array in zip(values, evaluate(values, arrays), strict=True):
            found = range_of(value)
            numbers = array[~np.isnan(array)]
            slack = 1e-6 * np.maximum(1, np.abs(numbers))
            assert (numbers >= found.low - slack).all(), (value, found)
            assert (numbers <= found.high + slack).all(), (value, found)
            if found.finite and np.abs(numbers[np.isfinite(numbers)]).max(initial=0) < 1e300:
                assert np.isfinite(numbers).all(), (value, found)


row = Pad((1, 0), (1, 0), -inf)
i, i8, u8 = (tensor("i", f"{kind}[3 3]") for kind in ("i64", "i8", "u8"))

LOOKALIKES: dict[str, Value] = {
    "a quotient by the sums of other rows": (e := x.exp()) / e.sum(0)[:, None],
    "a maximum with a border above all": apply(
        Reduce((1,), "max"), apply(Unfold(0, 3, 1), apply(Pad((1, 0), (1, 0), 5.0), x.tanh()))
    ),
    "windows along another axis than the border": apply(
        Reduce((1,), "max"), apply(Unfold(0, 3, 1), apply(Pad((0, 1), (0, 1), -inf), x.tanh()))
    ),
    "a maximum over no window": apply(Reduce((2,), "max"), apply(Unfold(0, 3, 1), apply(row, x))),
    "a quotient of integers": (i * i + 1) / full(-4, (3, 3), "i64"),
    "numbers of integers": full(-5, (3, 3), "i64") / full(2, (3, 3), "i64"),
    "an integer below 0 without a sign": apply(Cast("u8"), x.tanh() * 2.5),
    "a negative of one without a sign": -u8,
    "an integer that does not fit": apply(Cast("i8"), full(300, (3, 3), "i64")),
    "a square that does not fit": i8 * i8,
    "a count that does not fit": apply(Iota(300, "i8")),
    "a number that overflows": full(1e6, (3,), "f16"),
    "a number that underflows": full(1e-60, (3,), "f32"),
    "a border that overflows": apply(Pad((1, 0), (0, 0), 1e6), x.cast("f16")),
    "a mask of another type": apply(Cast("f16"), full(-1e9, (3,), "f32")),
    "a product that overflows": full(300.0, (3,), "f16") * 300.0,
    "a large number, exponentiated": apply(Expm1(), x * 0.0 + 705.0),
    "windows of a border alone": MaxPool((2,), (1,), (2,), (0,), (1,))(x),
}


@pytest.mark.parametrize("name", LOOKALIKES)
def test_what_looks_like_a_narrow_range(name: str) -> None:
    value = LOOKALIKES[name]
    values = np.linspace(-3, 3, 9).reshape(3, 3)
    data = {"x": values, "y": values, "i": values.astype(int), "i8": (values * 40).astype("i1")}
    data |= {"u8": (values + 3).astype("u1")}
    given = {
        v: data[v.name if v.dtype in ("f64", "i64") else v.dtype]
        for v in walk([value])
        if v.op is None
    }
    with np.errstate(all="ignore"):
        (array,) = evaluate([value], given)
    found = range_of(value)
    assert all(float(element) in found for element in array.flat), (array, found)
    assert not found.finite or np.isfinite(array).all()


def test_complex_numbers_have_no_bounds() -> None:
    c = tensor("c", "c64[3]")
    assert range_of(c * c) == range_of(c.exp()) == Range()


def test_a_free_size_less_a_number_may_be_below_0() -> None:
    assert range_of(apply(Scalar(size("n"), "f32"))) == Range(1, inf)
    assert range_of(apply(Scalar(size("n") - 5, "f32"))) == Range()


def test_what_overflows_is_no_magnitude() -> None:
    square = i8 * i8
    graphs = (SafeDAG.from_values(v) for v in (square.maximum(-square), square))
    assert not check(*graphs, prove=True, seconds=2).proof


def test_a_batch_norm_is_finite_where_its_variance_is_above_0() -> None:
    parts = [tensor(n, "f64[3]") for n in ("scale", "bias", "mean", "variance")]
    for eps, variance, finite in (
        (1e-5, Range(0, 1), True),
        (0.0, Range(0, 1), False),
        (0.0, Range(0.5, 1), True),
        (-1.0, Range(0.5, 1), False),
    ):
        norm = apply(BatchNorm(eps), x, *parts)
        assert range_of(norm, {"variance": variance}).finite is finite
    (norm,) = evaluate(
        [apply(BatchNorm(0.0), x, *parts)],
        {x: np.ones((3, 3)), **dict(zip(parts, np.eye(4, 3), strict=True))},
    )
    assert not np.isfinite(norm).all()


def test_integers_are_taken_to_fit_a_small_type() -> None:
    assert range_of(apply(Cast("f16"), i)).finite
    assert range_of((1.0 - apply(Cast("f16"), i)) * -1e4).finite


def test_a_law_for_finite_values_keeps_off_infinities() -> None:
    a = tensor("a", "f64[3 3]")
    laws = [law for law in ALL if law.name == "a contraction of a sum with a constant (left)"]
    for operand, proved in ((y, True), (masked, False)):
        egraph = EGraph()
        left = einsum("ij,jk->ik", x + a, operand)
        right = einsum("ij,jk->ik", x, operand) + einsum("ij,jk->ik", a, operand)
        one_, other = egraph.add([left, right], constants=["a"])
        egraph.run(laws)
        assert egraph.same(one_, other) is proved


def test_a_law_for_positive_values_asks_for_them() -> None:
    (v,) = variables("v")
    (law,) = one("exp undoes log", Unary("exp")(Unary("log")(v)), v, facts=positive(v))
    for operand, proved in ((x, False), (x * x + 1.0, True)):
        egraph = EGraph()
        found, back = egraph.add([apply(Unary("exp"), apply(Unary("log"), operand)), operand])
        egraph.run([law])
        assert egraph.same(found, back) is proved


def test_a_border_of_a_max_pool_is_not_among_its_results() -> None:
    pool = MaxPool((3, 3), (2, 2), (1, 1), (1, 1), (1, 1))
    image = tensor("i", "f64[1 2 8 8]")
    leaves, opened = pool.trace(image.type)
    assert range_of(opened).finite
    assert not range_of(opened, {leaves[0].name: Range(bottom=True)}).finite
    _, border = MaxPool((2, 2), (1, 1), (2, 2), (0, 0), (1, 1)).trace(image.type)
    assert not range_of(border).finite  # windows of the border alone


def test_a_mean_of_windows_is_between_the_elements() -> None:
    image, positive_ = tensor("i", "f64[1 2 8 7]"), {"i": Range(1.0, 2.0)}
    sizes = (3, 3), (2, 2), (1, 1), (1, 1)
    for extra, count in (((0, 0), False), ((1, 1), False), ((1, 1), True)):
        pool = AvgPool(*sizes, extra, count)
        low = 0.0 if count else 1.0
        assert range_of(apply(pool, image), positive_) == Range(low, 2.0)
        assert range_of(apply(pool, image)).finite
        assert not range_of(apply(pool, image), {"i": Range(top=True)}).finite
    assert range_of(apply(AdaptiveAvgPool((3, 2)), image), positive_) == Range(1.0, 2.0)


def test_what_is_known_of_leaves() -> None:
    egraph = EGraph()
    (root,) = egraph.add([x + y], ranges=lambda name: Range(1, 2) if name == "x" else None)
    assert egraph.range_of(root) == Range()
    (other,) = egraph.add([x * 2.0])
    assert egraph.range_of(other) == Range(2, 4)
