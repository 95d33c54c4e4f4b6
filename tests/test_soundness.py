"""The checker of soundness: it passes what is right, and finds every planted false law."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from safegraph.cases import cases, random_values
from safegraph.dag import SafeDAG
from safegraph.derived.einsum import Einsum
from safegraph.derived.shape import Concat
from safegraph.draw import from_term
from safegraph.egraph import Budget, EGraph
from safegraph.errors import SafeGraphError
from safegraph.law import Law, any_of, nonnegative, one, positive, spec, uniform, variables
from safegraph.op import TensorType
from safegraph.ops import Opaque, Permute, Reduce, Repeat, Slice, Unary
from safegraph.rules import ALL
from safegraph.soundness import LawReport, check_egraph, check_law, difference, sound
from safegraph.value import Value, apply, full, permute, reduce, repeat, slice_axis, tensor
from tests.strategies import seeds

x, y = variables("x y")
p, q = any_of(Permute, "p q")
(f,) = any_of(Reduce, "f")
(r,) = any_of(Repeat, "r")
(s,) = any_of(Slice, "s")
(e,) = any_of(Einsum, "e")
exp = Unary("exp")


@spec
def wrong_order(p: Permute, q: Permute) -> Permute:
    """Composed the other way round."""
    return Permute(tuple(q.order[i] for i in p.order))


def sum_ignores_repeat(f: Reduce, r: Repeat, x: Value) -> Value | None:
    """As if a sum of n equal numbers were that number."""
    if f.kind != "sum":
        return None
    return repeat(x, [1 if a in f.axes else n for a, n in enumerate(r.counts)])


def slice_of_another_axis(s: Slice, e: Einsum, x: Value, y: Value) -> Value | None:
    """Cuts the axis of the left operand that has the number of the axis of the result."""
    if len(s.starts) != x.rank:
        return None
    return e(apply(s, x), y)


def transposed_operand(e: Einsum, p: Permute, x: Value, y: Value) -> Value:
    """Forgets that the operand was permuted."""
    return e(x, y)


FALSE = {
    law.name: law
    for (law,) in (
        one("exp of a sum is a sum", exp(x + y), exp(x) + exp(y)),
        one("permutes composed in the wrong order", q(p(x)), wrong_order(p, q)(x), grade="exact"),
        one("a sum ignores a repeat", f(r(x)), sum_ignores_repeat),
        one("a slice of another axis", s(e(x, y)), slice_of_another_axis),
        one("a permute forgotten", e(p(x), y), transposed_operand),
        one("a difference turned round", x - y, y - x),
        one("rounding away", x + y, x + y * y),
    )
}


def witness(name: str) -> Value:
    """A term on which the false law fires and does harm."""
    a, b = tensor("a", "f64[3 4]"), tensor("b", "f64[3 4]")
    cube, square = tensor("cube", "f64[2 3 4]"), tensor("square", "f64[3 3]")
    match name:
        case "exp of a sum is a sum":
            return (a + b).exp()
        case "permutes composed in the wrong order":
            return permute(permute(cube, (1, 2, 0)), (0, 2, 1))
        case "a sum ignores a repeat":
            return reduce(repeat(tensor("row", "f64[1 4]"), (5, 1)), [0], "sum")
        case "a slice of another axis":
            return slice_axis(apply(Einsum.of("ij,jk->ki"), square, square), 0, 1, 3)
        case "a permute forgotten":
            return apply(Einsum.of("ij,jk->ik"), permute(square, (1, 0)), tensor("c", "f64[3 3]"))
        case "a difference turned round":
            return a - b
    return a + b


@pytest.mark.parametrize("law", FALSE.values(), ids=lambda law: law.name)
def test_a_false_law_is_caught_by_itself(law: Law) -> None:
    report = check_law(law)
    assert not report
    assert report.unsound
    assert "left" in str(report)
    assert "right" in str(report)


@pytest.mark.parametrize("name", FALSE)
def test_a_false_law_is_caught_in_an_egraph(name: str) -> None:
    found = sound([witness(name)], [FALSE[name]], budget=Budget(200, 5.0))
    assert not found
    assert found.violations[0].law == name
    assert name in str(found)
    assert sound([witness(name)], []), "without the law nothing is wrong"


def test_a_false_law_is_caught_among_all_others() -> None:
    name = "permutes composed in the wrong order"
    found = sound([witness(name).exp()], [*ALL, FALSE[name]], budget=Budget(500, 5.0))
    assert name in {v.law for v in found.violations}


def test_a_violation_says_what_where_and_why() -> None:
    text = str(sound([witness("a difference turned round")], [FALSE["a difference turned round"]]))
    assert "unsound: 1 e-nodes differ" in text
    assert "made by: a difference turned round (round 1)" in text
    assert "Binary(kind='subtract') on classes (1: f64[3 4], 0: f64[3 4])" in text


def test_a_law_that_cannot_be_run_is_unsound() -> None:
    def beyond(s: Slice, x: Value) -> Value | None:
        return Slice(s.starts, tuple(None for _ in s.stops))(x) if x.rank else None

    (law,) = one("the end is forgotten", s(x), beyond, grade="exact")
    assert check_law(law).unsound


def test_a_law_that_never_fires_is_reported() -> None:
    (law,) = one("never", x + y, lambda x, y: None)
    report = check_law(law, count=3)
    assert not report
    assert str(report) == "never: never fired"


def test_a_law_of_the_user_is_reported_sound() -> None:
    (law,) = one("a sum doubled", x + x, lambda x: 2 * x, grade="exact")
    assert str(check_law(law)) == "a sum doubled: both sides equal in 20 cases"


def test_exact_laws_must_give_the_same_bits() -> None:
    z = variables("z")[0]
    associative = {
        grade: one("sums associate", (x + y) + z, x + (y + z), grade=grade)[0]
        for grade in ("exact", "real")
    }
    assert check_law(associative["exact"]).unsound
    assert check_law(associative["real"])


def test_facts_of_a_law_hold_in_its_cases() -> None:
    def report(left: Any, right: Any, facts: Any) -> LawReport:
        return check_law(one("with facts", left, right, facts=facts)[0], count=50)

    def unity(x: Value) -> Value:
        return full(1, x.shape, x.dtype)

    log = Unary("log")
    assert not report(log(x * x), log(x) + log(x), ())
    assert report(log(x * x), log(x) + log(x), nonnegative(x))
    assert not report(x / x, unity, nonnegative(x)), "there are zeros"
    assert report(x / x, unity, positive(x))
    assert report(x / x, unity, (positive(x), uniform(x)))


def test_cases_of_a_law_differ() -> None:
    (law,) = one("composed", q(p(x)), wrong_order(p, q)(x))
    found = list(cases(law, np.random.default_rng(0), 100))
    assert len(found) == 100
    assert len({case.left for case in found}) == 100


def test_a_number_alone_makes_another_case() -> None:
    (law,) = one("scaled", x * y, lambda x, y, y_is: y * x, facts=uniform(y))
    found = list(cases(law, np.random.default_rng(0), 300))
    assert len({(case.left, repr(case.scope["y_is"])) for case in found}) == 300
    assert len({case.left for case in found}) < 300


def test_parts_of_an_example_still_meet_when_its_sizes_change() -> None:
    cut, rest = (any_of(Slice, n)[0] for n in ("cut", "rest"))
    whole = tensor("x", "f64[7 2]")
    like = Concat(0)(slice_axis(whole, 0, 1, 3), slice_axis(whole, 0, 3, 6))
    (k,) = any_of(Concat, "k")
    (law,) = one("joined again", k(cut(x), rest(x)), lambda x: None, like=like)
    ends = set()
    rng = np.random.default_rng(0)
    for _ in range(200):
        found = from_term(law.left, like, rng)
        if found is not None:
            assert found["cut"].stops[0] == found["rest"].starts[0]
            ends.add((found["x"].shape, found["cut"].starts[0], found["rest"].stops[0]))
    assert len(ends) > 20


def test_an_egraph_too_large_to_run_is_refused() -> None:
    egraph = EGraph()
    egraph.add([tensor("x", "f64[n 1000]").exp()])
    with pytest.raises(SafeGraphError, match="give the free sizes smaller values"):
        check_egraph(egraph, {"x": np.zeros((1, 1000))}, {"n": 10**9})


def test_a_leaf_without_an_array_is_named() -> None:
    egraph = EGraph()
    egraph.add([tensor("x", "f64[3]").exp()])
    with pytest.raises(SafeGraphError, match="no array was given for the leaf x"):
        check_egraph(egraph, {})


def test_an_opaque_op_is_some_function() -> None:
    a = tensor("a", "f64[3 4]")
    op = Opaque("onnx", "com.example::Foo", (), 0, TensorType("f64", (4,)))
    graph = permute(permute(a, (1, 0)), (1, 0))
    assert sound([apply(op, graph).exp(), apply(op, a)], ALL, budget=Budget(200, 5.0))


def test_a_graph_with_free_sizes_and_weights() -> None:
    sample = random_values(np.random.default_rng(5), 6, symbolic=True)
    dag = sample.dag()
    assert isinstance(dag, SafeDAG)
    assert sound(dag, ALL, sizes=sample.sizes, budget=Budget(300, 5.0))


def test_difference_ignores_signed_zeros_and_equal_nans() -> None:
    a = np.array([0.0, np.nan, np.inf, 1.0])
    assert difference(a, np.array([-0.0, np.nan, np.inf, 1.0])) is None
    assert difference(a, np.array([0.0, np.nan, -np.inf, 1.0])) == (
        "1 of 4 elements differ, at [2]: inf is not -inf"
    )
    assert difference(a, a.astype("f4")) == "f64[4] is not f32[4]"
    assert difference(np.array([1.0]), np.array([1.0 + 1e-12])) is not None
    assert difference(np.array([1.0]), np.array([1.0 + 1e-12]), rtol=1e-9) is None


@given(seeds)
@settings(max_examples=25)
def test_random_graphs_are_sound_under_all_laws(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sample = random_values(rng, int(rng.integers(2, 8)))
    found = sound(sample, ALL, budget=Budget(400, 2.0))
    assert found, str(found)


@pytest.mark.slow
@given(seeds)
@settings(max_examples=300)
def test_many_random_graphs_are_sound_under_all_laws(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sample = random_values(rng, int(rng.integers(4, 14)))
    found = sound(sample, ALL, budget=Budget(2000, 5.0))
    assert found, str(found)
