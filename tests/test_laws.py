"""Every law by itself: both sides are equal wherever it fires; and what no law may prove."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safegraph.cases import random_array
from safegraph.derived.attention import Attention
from safegraph.derived.conv import Conv, ConvTranspose
from safegraph.derived.index import Flip
from safegraph.derived.norm import (
    BatchNorm,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    LogSoftmax,
    RmsNorm,
    Softmax,
)
from safegraph.derived.pool import AvgPool, MaxPool
from safegraph.derived.shape import Concat
from safegraph.egraph import Budget, EGraph
from safegraph.law import Law, any_of, both, one, spec, table, uniform, variables
from safegraph.ops import Binary, Permute, Unary
from safegraph.rules import ALL, FAMILIES, LOWERING, REFINING
from safegraph.soundness import check_law, difference, run_value
from safegraph.value import (
    Value,
    apply,
    fold,
    full,
    pad,
    permute,
    reduce,
    repeat,
    reshape,
    select,
    slice_axis,
    stride,
    tensor,
    unfold,
    walk,
)

FEW, MANY = 20, 200  # cases: different in the spec of an op, the type of a leaf, or a number


@pytest.mark.parametrize("law", ALL, ids=lambda law: law.name)
def test_both_sides_are_equal(law: Law) -> None:
    report = check_law(law, count=FEW, tries=200 * FEW)
    assert report, str(report)  # "never fired", or a counterexample


@pytest.mark.slow
@pytest.mark.parametrize("law", ALL, ids=lambda law: law.name)
def test_both_sides_are_equal_in_many_cases(law: Law) -> None:
    report = check_law(law, count=MANY, tries=400 * MANY, seed=1)
    assert report, str(report)
    assert report.fired == MANY, f"{law.name} fired in only {report.fired} cases: give an example"


# -- negative laws: terms that differ --------------------------------------------------------------

a, b, c = (tensor(n, "f64[3 3]") for n in "abc")
cube = tensor("cube", "f64[2 2 2]")
yes = tensor("yes", "bool[3 3]")
row = tensor("row", "f64[7]")
image, kernel, bias = (
    tensor("image", "f64[1 2 4 4]"),
    tensor("w", "f64[2 2 3 3]"),
    tensor("b", "f64[2]"),
)
scale, shift, mean, variance = (tensor(n, "f64[2]") for n in ("scale", "shift", "mean", "variance"))
q, k, v = (tensor(n, "f64[2 4 4]") for n in "qkv")
seen = tensor("seen", "bool[4 4]")
none, ones = (0, 0), (1, 1)
same = Conv(ones, ones, ones, ones)

DIFFERENT: dict[str, tuple[Value, Value]] = {
    "difference turned round": (a - b, b - a),
    "quotient turned round": (a / b, b / a),
    "power turned round": (a**b, b**a),
    "comparison turned round": (a < b, b < a),
    "matrix product turned round": (a @ b, b @ a),
    "matrix product with a transpose": (a @ b, a @ permute(b, (1, 0))),
    "transpose of a product, not turned": (
        permute(a @ b, (1, 0)),
        permute(a, (1, 0)) @ permute(b, (1, 0)),
    ),
    "softmax over another axis": (apply(Softmax(0), a), apply(Softmax(1), a)),
    "softmax and its logarithm": (apply(Softmax(1), a), apply(LogSoftmax(1), a)),
    "layer norm with another eps": (apply(LayerNorm(1, 1e-5), a), apply(LayerNorm(1, 1e-3), a)),
    "layer norm over more axes": (apply(LayerNorm(1), a), apply(LayerNorm(2), a)),
    "reshape and transpose": (reshape(cube, (4, 2)), reshape(permute(cube, (2, 1, 0)), (4, 2))),
    "permutes of a cube": (permute(cube, (1, 2, 0)), permute(cube, (2, 0, 1))),
    "a transpose and nothing": (permute(a, (1, 0)), a),
    "exp of a sum": ((a + b).exp(), a.exp() + b.exp()),
    "log of exp, the wrong way": (a.log().exp(), a),
    "root of a square": ((a * a) ** full(0.5, (3, 3), "f64"), a),
    "sum and mean": (reduce(a, [0], "sum"), reduce(a, [0], "mean")),
    "maximum and minimum": (reduce(a, [0], "max"), reduce(a, [0], "min")),
    "sums over other axes": (reduce(a, [0], "sum", keep=False), reduce(a, [1], "sum", keep=False)),
    "a sum of repeated rows": (reduce(repeat(a[:1], (4, 1)), [0], "sum"), a[:1]),
    "maximum of a sum": (
        reduce(a + b, [0], "max"),
        reduce(a, [0], "max") + reduce(b, [0], "max"),
    ),
    "sum of a product": (
        reduce(a * b, [0], "sum"),
        reduce(a, [0], "sum") * reduce(b, [0], "sum"),
    ),
    "slices of other rows": (slice_axis(a, 0, 0, 2), slice_axis(a, 0, 1, 3)),
    "slices of other axes": (slice_axis(cube, 0, 0, 1)[0], slice_axis(cube, 1, 0, 1)[:, 0]),
    "strides and slices": (stride(a, (2, 1)), slice_axis(a, 0, 0, 2)),
    "pads on other sides": (pad(a, (1, 0), (0, 0)), pad(a, (0, 0), (1, 0))),
    "pads with other fills": (pad(a, (1, 0), (0, 0), 0), pad(a, (1, 0), (0, 0), 1)),
    "a slice of what was padded, beside it": (slice_axis(pad(a, (1, 0), (1, 0)), 0, 0, 3), a),
    "windows with another step": (unfold(row, 0, 3, 2), unfold(row, 0, 3, 1)[:3]),
    "windows with gaps": (unfold(row, 0, 3, 1, 2), unfold(row, 0, 3, 1)[:3]),
    "windows that overlap, added": (fold(unfold(row, 0, 3, 1), 0, 1), row),
    "sums over windows and along them": (
        reduce(unfold(row, 0, 3, 2), [0], "sum", keep=False),
        reduce(unfold(row, 0, 3, 2), [1], "sum", keep=False),
    ),
    "a kernel turned round": (same(image, kernel), same(image, apply(Flip((2, 3)), kernel))),
    "a kernel transposed": (same(image, kernel), same(image, permute(kernel, (0, 1, 3, 2)))),
    "channels of a kernel exchanged": (
        same(image, kernel),
        same(image, permute(kernel, (1, 0, 2, 3))),
    ),
    "a convolution with its border on other sides": (
        Conv(ones, (2, 0), (0, 2), ones)(image, kernel),
        Conv(ones, (0, 2), (2, 0), ones)(image, kernel),
    ),
    "a convolution with gaps": (
        same(image, kernel),
        Conv(ones, (2, 2), (2, 2), (2, 2))(image, kernel),
    ),
    "a convolution and its transpose": (
        same(image, kernel),
        ConvTranspose(ones, ones, ones, ones, 1, none)(image, kernel),
    ),
    "a bias before a convolution": (
        same(image, kernel, bias),
        same(image + reshape(bias, (1, 2, 1, 1)), kernel),
    ),
    "convolutions one after another": (
        same(same(image, kernel), kernel),
        same(image, kernel * kernel),
    ),
    "a convolution of a border of ones": (
        Conv(ones, none, none, ones)(pad(image, (0, 0, 1, 1), (0, 0, 1, 1), 1), kernel),
        same(image, kernel),
    ),
    "parts joined in another order": (Concat(0)(a, b), Concat(0)(b, a)),
    "parts joined along another axis": (Concat(0)(a, b), permute(Concat(1)(a, b), (1, 0))),
    "a slice of the other part": (slice_axis(Concat(0)(a, b), 0, 0, 3), b),
    "a slice across two parts": (slice_axis(Concat(0)(a, b), 0, 1, 4), a),
    "a softmax of joined parts": (
        apply(Softmax(0), Concat(0)(a, b)),
        Concat(0)(apply(Softmax(0), a), apply(Softmax(0), b)),
    ),
    "a product of joined parts": (Concat(1)(a, b) @ Concat(0)(b, c), a @ b + a @ c),
    "joined slices that overlap": (
        Concat(0)(slice_axis(cube, 0, 0, 1), slice_axis(cube, 0, 0, 1)),
        cube,
    ),
    "attention with queries and keys exchanged": (
        apply(Attention(), q, k, v),
        apply(Attention(), k, q, v),
    ),
    "attention with another scale": (apply(Attention(), q, k, v), apply(Attention(1.0), q, k, v)),
    "attention to the past": (
        apply(Attention(), q, k, v),
        apply(Attention(causal=True), q, k, v),
    ),
    "attention with a mask": (apply(Attention(), q, k, v), apply(Attention(), q, k, v, seen)),
    "attention with a mask transposed": (
        apply(Attention(), q, k, v, seen),
        apply(Attention(), q, k, v, permute(seen, (1, 0))),
    ),
    "attention over the queries": (
        apply(Attention(1.0), q, k, v),
        apply(Softmax(1), q @ permute(k, (0, 2, 1))) @ v,
    ),
    "attention without a softmax": (
        apply(Attention(1.0), q, k, v),
        (q @ permute(k, (0, 2, 1))) @ v,
    ),
    "layer norm and root mean square norm": (
        apply(LayerNorm(1, 1e-5), a),
        apply(RmsNorm(1, 1e-5), a),
    ),
    "norms of a sum": (apply(RmsNorm(1), a + b), apply(RmsNorm(1), a) + apply(RmsNorm(1), b)),
    "a norm of a product by a number": (apply(LayerNorm(1), a * 2), apply(LayerNorm(1), a) * 2),
    "a batch norm with its numbers exchanged": (
        apply(BatchNorm(), image, scale, shift, mean, variance),
        apply(BatchNorm(), image, scale, shift, variance, mean),
    ),
    "a batch norm and one of its batch": (
        apply(BatchNorm(), image, scale, shift, mean, variance),
        apply(InstanceNorm(), image, scale, shift),
    ),
    "group norms of other groups": (apply(GroupNorm(1), image), apply(GroupNorm(2), image)),
    "maximum and average of windows": (
        MaxPool((2, 2), (2, 2), none, none, ones)(image),
        AvgPool((2, 2), (2, 2), none, none, none, True)(image),
    ),
    "averages with and without their border": (
        AvgPool((3, 3), ones, ones, ones, none, True)(image),
        AvgPool((3, 3), ones, ones, ones, none, False)(image),
    ),
    "a maximum with a border of zeros": (
        MaxPool((3, 3), ones, ones, ones, ones)(image - 3),
        MaxPool((3, 3), ones, none, none, ones)(pad(image - 3, (0, 0, 1, 1), (0, 0, 1, 1))),
    ),
    "maxima of larger windows": (
        MaxPool((2, 2), (2, 2), none, none, ones)(image),
        MaxPool((3, 3), (2, 2), none, ones, ones)(image),
    ),
    "a pool of a convolution": (
        AvgPool((3, 3), ones, ones, ones, none, False)(same(image, kernel)),
        same(AvgPool((3, 3), ones, ones, ones, none, False)(image), kernel),
    ),
    "a maximum of a map that falls": (
        MaxPool((2, 2), (2, 2), none, none, ones)(-image),
        -MaxPool((2, 2), (2, 2), none, none, ones)(image),
    ),
    "choices turned round": (select(yes, a, b), select(yes, b, a)),
    "distribution over a maximum": ((a.maximum(b)) * c, (a * c).maximum(b * c)),
    "a product with nearly one": (a * 1.0000001, a),
    "a sum with a small number": (a + 1e-12, a),
    "casts through a smaller type": (a.cast("f32").cast("f64"), a),
    "two leaves": (a, b),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_these_differ(name: str) -> None:
    left, right = DIFFERENT[name]
    rng = np.random.default_rng(0)
    leaves = {v.name: random_array(rng, v.type) for v in walk([left, right]) if v.op is None}
    assert left.type is right.type, "terms of two types could not be made equal at all"
    assert difference(run_value(left, leaves, {}), run_value(right, leaves, {})) is not None


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_differs_is_never_proved_equal(name: str) -> None:
    left, right = DIFFERENT[name]
    egraph = EGraph()
    first, second = egraph.add([left, right])
    for phase in (*REFINING, *LOWERING):
        egraph.run(phase.laws, Budget(2_000, 5.0), rounds=phase.rounds or 6)
    assert not egraph.same(first, second)


# -- what is proved --------------------------------------------------------------------------------

EQUAL: dict[str, tuple[Value, Value]] = {
    "two transposes": (permute(permute(a, (1, 0)), (1, 0)), a),
    "transposes through pointwise ops": (
        permute(permute(a, (1, 0)).exp() + permute(b, (1, 0)), (1, 0)),
        a.exp() + b,
    ),
    "a sum of products": (
        reduce(a[:, :, None] * b[None], [1], "sum", keep=False),
        a @ b,
    ),
    "a transposed product": (permute(a @ b, (1, 0)), permute(b, (1, 0)) @ permute(a, (1, 0))),
    "the last row of a product": ((a @ b)[-1:], a[-1:] @ b),
    "operands of a sum": (a + b, b + a),
    "a unit": (a * 1 + 0, a),
    "a softmax written out": (
        (a - reduce(a, [1], "max")).exp() / reduce((a - reduce(a, [1], "max")).exp(), [1], "sum"),
        apply(Softmax(1), a),
    ),
    "products of one operand": (a @ b + a @ c, a @ (b + c)),
    "log of exp": (a.exp().log(), a),
}


@pytest.mark.parametrize("name", EQUAL)
def test_what_is_equal_is_proved_equal(name: str) -> None:
    left, right = EQUAL[name]
    egraph = EGraph()
    first, second = egraph.add([left, right])
    for phase in (*REFINING, *LOWERING):
        egraph.run(phase.laws, Budget(3_000, 5.0), rounds=phase.rounds or 8)
    assert egraph.same(first, second)


# -- the notation of laws --------------------------------------------------------------------------

x, y = variables("x y")
p, r = any_of(Permute, "p r")


def test_names_are_one_each_in_a_family_and_every_law_has_one() -> None:
    for family, laws in FAMILIES.items():
        names = [law.name for law in laws]
        assert len(set(names)) == len(names), family
    assert all(str(law).startswith(f"{law.name}: ") for law in ALL)


def test_a_law_prints_as_it_is_written() -> None:
    (law,) = one("a difference is a sum", x - y, x + (-y))
    assert str(law) == "a difference is a sum: subtract(x, y) -> add(x, neg(y))"


def test_both_directions_are_two_laws() -> None:
    there, back = both("exchanged", x + y, y + x)
    assert (there.left, there.right) == (back.right, back.left)
    assert back.name == "exchanged (backwards)"


def test_a_right_side_has_no_variables_of_its_own() -> None:
    with pytest.raises(ValueError, match="the right side has y, the left has not"):
        one("made up", -x, x + y)
    with pytest.raises(ValueError, match="no variable is called z"):
        one("made up", -x, lambda z: z)


def test_a_grade_is_one_of_four() -> None:
    with pytest.raises(ValueError, match="there is no grade 'good'; there are exact, real"):
        one("graded", -x, x, grade="good")


def test_an_example_makes_a_law_fire_that_chance_never_would() -> None:
    def rare(x: Value, y: Value) -> Value | None:
        return y + x if x.shape == y.shape and x.rank == 6 and x.dtype == "i64" else None

    like = "x: i64 5 1 5 2 1 3, y: i64 5 1 5 2 1 3"
    (by_chance,), (by_example,) = one("rare", x + y, rare), one("rare", x + y, rare, like=like)
    assert not check_law(by_chance, count=5, tries=500).fired
    report = check_law(by_example, count=20, tries=500)
    assert report.fired == 20
    assert report


def test_an_example_has_all_tensors_and_types() -> None:
    (law,) = one("exchanged", x + y, y + x, like="x: 2 3, y: i64 5, z: 7; x:, y: 1")
    assert [{n: str(t) for n, t in e.items()} for e in law.operand_examples] == [
        {"x": "f64[2 3]", "y": "i64[5]"},
        {"x": "f64[]", "y": "f64[1]"},
    ]
    with pytest.raises(ValueError, match="exchanged: like lacks y: 'x: 2 3'"):
        one("exchanged", x + y, y + x, like="x: 2 3")
    with pytest.raises(ValueError, match="like is 'x: 2 3, i: i64 5', not 'x 2 3'"):
        one("exchanged", x + y, y + x, like="x 2 3")


def test_two_laws_of_a_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two laws of family are called twice"):
        table("family", one("twice", -x, x), one("twice", -(-x), x))


def test_a_spec_that_is_none_is_no_law() -> None:
    @spec
    def never(p: Permute) -> Permute | None:
        return None

    (law,) = one("never", r(p(x)), never(p)(x))
    scope = {"x": a, "p": Permute((1, 0)), "r": Permute((1, 0))}
    assert law.build(scope) is None


def test_a_number_is_given_by_its_name() -> None:
    (law,) = one("doubled", x * y, lambda x, y_is: x + x if y_is == 2 else None, facts=uniform(y))
    assert law.build({"x": a, "y": b, "y_is": 2.0}) is a + a
    assert law.build({"x": a, "y": b, "y_is": 3.0}) is None


@given(st.permutations(range(4)), st.permutations(range(4)))
@settings(max_examples=20)
def test_permutes_compose_as_numpy_transposes_do(first: list[int], second: list[int]) -> None:
    law = next(law for law in ALL if law.name == "permutes compose")
    value = tensor("t", "f64[2 3 4 5]")
    ops = {"p": Permute(tuple(first)), "q": Permute(tuple(second))}
    found = law.build({"x": value, **ops})
    array = np.arange(120.0).reshape(2, 3, 4, 5)
    expected = array.transpose(first).transpose(second)
    got = array if found is value else found.op.run(array)  # type: ignore[union-attr]
    np.testing.assert_array_equal(got, expected)


def test_terms_of_laws_are_values_of_python_operators() -> None:
    assert (x - y).head is Binary("subtract")
    assert (-x).head is Unary("neg")
    assert (x * y).operands == (x, y)
