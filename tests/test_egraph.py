"""The e-graph: equal terms are one node, equal operands make equal terms, and it always stops."""

import sys
from itertools import pairwise

import numpy as np
import pytest

from safegraph.derived.norm import Softmax
from safegraph.egraph import Budget, EGraph, Number, uniform_value
from safegraph.engine import pattern_size
from safegraph.errors import LawError
from safegraph.law import Law, any_of, constant, one, table, uniform, variables
from safegraph.op import TensorType
from safegraph.ops import Binary, Permute, Repeat, Scalar, Unary
from safegraph.rules import ALL
from safegraph.schedule import Floods
from safegraph.soundness import check_egraph
from safegraph.value import Value, apply, full, permute, scalar, tensor

x, y, z = variables("x y z")
p, q = any_of(Permute, "p q")
(b,) = any_of(Binary, "b")

TWICE = one("twice the opposite", -(-x), x, grade="exact")
COMMUTE = one("sums commute", x + y, y + x, grade="exact")
ASSOCIATE = one("sums associate", (x + y) + z, x + (y + z))
GROW = one("grows without end", -x, -(-(-x)), grade="exact")

v, w = tensor("v", "f64[2 3]"), tensor("w", "f64[2 3]")


def total(count: int) -> Value:
    """A sum of so many leaves."""
    found = tensor("t0", "f64[2]")
    for i in range(1, count):
        found = found + tensor(f"t{i}", "f64[2]")
    return found


# -- terms -----------------------------------------------------------------------------------------


def test_equal_terms_are_one_enode() -> None:
    egraph = EGraph()
    assert egraph.add([v.exp() + w, v.exp()]) == [3, 1]
    assert egraph.add([v.exp() + w]) == [3]
    assert len(egraph) == 4


def test_terms_are_known_with_type_class_and_origin() -> None:
    egraph = EGraph()
    (root,) = egraph.add([-(-v)])
    egraph.run(TWICE)
    leaf, inner, outer = egraph.enodes()
    assert (leaf.op, leaf.cls, leaf.type) == (None, 0, TensorType("f64", (2, 3)))
    assert inner.operands == (0,)
    assert (outer.op, outer.operands, outer.cls) == (Unary("neg"), (inner.cls,), leaf.cls)
    assert egraph.leaves == {0: "v"}
    assert egraph.type_of(root) is v.type
    assert [egraph.born(n.index) for n in egraph.enodes()] == [("given", 0)] * 3


def test_leaves_of_a_name_are_one() -> None:
    egraph = EGraph()
    first, second, third = egraph.add(
        [tensor("v", "f64[2]"), tensor("v", "f64[2]"), tensor("u", "f64[2]")]
    )
    assert first == second
    assert not egraph.same(first, third)


# -- congruence ------------------------------------------------------------------------------------


def test_equal_operands_make_equal_terms() -> None:
    egraph = EGraph()
    left, right, deep_left, deep_right = egraph.add([v, w, (v + v).exp(), (w + w).exp()])
    assert not egraph.same(deep_left, deep_right)
    egraph.union(left, right)
    assert egraph.same(deep_left, deep_right)
    assert len({n.cls for n in egraph.enodes()}) == 3
    assert len(egraph.enodes()) == 4, "two leaves, one sum, one exp"


def test_laws_match_through_what_was_made_equal() -> None:
    egraph = EGraph()
    inner, other, root = egraph.add([-v, w, -w])
    egraph.union(inner, other)
    egraph.run(TWICE)
    (leaf,) = egraph.add([v])
    assert egraph.same(root, leaf), "-w = -(-v) = v"


def test_a_class_may_contain_itself() -> None:
    unit = one("plus nothing", x + y, x, facts=uniform(y))
    egraph = EGraph()
    (root,) = egraph.add([v + full(0, v.shape, "f64")])
    egraph.run(unit)
    (leaf,) = egraph.add([v])
    assert egraph.same(root, leaf)
    cyclic = [n for n in egraph.enodes() if n.cls in n.operands]
    assert [n.op for n in cyclic] == [Binary("add")]
    assert not check_egraph(egraph, {"v": np.arange(6.0).reshape(2, 3)})


# -- facts -----------------------------------------------------------------------------------------


def test_what_depends_on_no_input_is_constant() -> None:
    egraph = EGraph()
    known, mixed, number = egraph.add([w.exp() + w, v + w, scalar(2.0, "f64")], constants=["w"])
    assert known in egraph.constants
    assert number in egraph.constants
    assert mixed not in egraph.constants


def test_a_law_may_ask_for_constants() -> None:
    fold = one("constants go right", x + y, y + x, facts=constant(x))
    egraph = EGraph()
    egraph.add([v + w, w + v], constants=["w"])
    before = len(egraph)
    egraph.run(fold)
    assert len(egraph) == before, "w + v has a constant on the left, and v + w is there already"
    egraph = EGraph()
    egraph.add([v + w], constants=["w"])
    assert egraph.run(fold).matches.total() == 0


def test_what_becomes_equal_to_a_constant_is_constant() -> None:
    drop = one("a product with one number", x * y, y, facts=constant(y))
    seen = one("seen", -x, x, facts=constant(x))
    egraph = EGraph()
    (root,) = egraph.add([-(v * w)], constants=["w"])
    report = egraph.run((*drop, *seen))
    (leaf,) = egraph.add([w])
    assert report.matches["seen"] >= 1
    assert egraph.same(root, leaf)


def test_a_uniform_operand_tells_its_number() -> None:
    numbers: list[float] = []
    note = one("noted", x * y, lambda x, y_is: numbers.append(y_is), facts=uniform(y))
    egraph = EGraph()
    egraph.add([v * permute(full(3, (3, 2), "f64") + 4, (1, 0)), v * w], numbers={"w": 5.0})
    egraph.run(note)
    assert sorted(numbers) == [5.0, 7.0]


def test_uniform_values_follow_from_operands() -> None:
    f64 = TensorType("f64", (2,))
    two = Number(2.0, "f64")
    assert uniform_value(Scalar(2.0, "f64"), [], TensorType("f64", ())) is two
    assert uniform_value(Repeat((3,)), [two], f64) is two
    assert uniform_value(Binary("multiply"), [two, two], f64) is Number(4.0, "f64")
    assert uniform_value(Unary("neg"), [None], f64) is None
    assert uniform_value(Binary("less"), [two, two], TensorType("bool", (2,))) is Number(
        False, "bool"
    )


def test_a_pad_with_another_number_is_not_uniform() -> None:
    egraph = EGraph()
    ones = full(1, (2, 2), "f64")
    other, same, _ = egraph.add([ones.pad((1, 0), (0, 0), 0.0), ones.pad((1, 0), (0, 0), 1.0), v])
    found = egraph._uniform
    assert other not in found
    assert found[same].value == 1.0


# -- running ---------------------------------------------------------------------------------------


def test_it_saturates() -> None:
    egraph = EGraph()
    egraph.add([total(4)])
    report = egraph.run((*COMMUTE, *ASSOCIATE))
    assert report.stopped == "saturated"
    assert egraph.run((*COMMUTE, *ASSOCIATE)).rounds == 1, "nothing is left to do"


def test_every_subset_of_a_sum_is_one_class() -> None:
    egraph = EGraph()
    egraph.add([total(5)])
    egraph.run((*COMMUTE, *ASSOCIATE, *one("sums associate back", x + (y + z), (x + y) + z)))
    assert len({n.cls for n in egraph.enodes()}) == 2**5 - 1


def test_the_budget_of_enodes_stops_a_growing_law() -> None:
    egraph = EGraph()
    egraph.add([-v])
    report = egraph.run(GROW, Budget(nodes=100, seconds=60))
    assert report.stopped == "saturated", "a cycle is finite: minus and its opposite"
    (wider,) = one("wider", x + y, (x + x) + (y + (x + y)))
    egraph.add([v + w])
    report = egraph.run([wider], Budget(nodes=500, seconds=60))
    assert report.stopped == "the rest of the budget was kept from laws that flood"
    assert 200 < len(egraph) < 300, "half of it"
    report = egraph.run([wider], Budget(nodes=500, seconds=60), rounds=50)
    assert report.stopped == "the limit of e-nodes was reached", "rounds that are asked for are run"
    assert len(egraph) < 600


def test_a_law_that_floods_does_not_keep_others_from_finishing() -> None:
    (wider,) = one("wider", x + y, (x + x) + (y + (x + y)))
    steps = [one(f"step {i}", Unary(a)(x), Unary(b)(x))[0] for i, (a, b) in enumerate(CHAIN)]
    egraph = EGraph()
    start, _ = egraph.add([v.exp(), v + w])
    egraph.run([wider, *steps], Budget(nodes=500, seconds=60))
    (end,) = egraph.add([v.tanh()])
    assert egraph.same(start, end)


def test_a_law_that_finds_very_much_is_not_looked_for_meanwhile() -> None:
    (law,) = one("a law", x + y, y + x)
    floods = Floods(frozenset([law]), {}, nodes=10)
    found: list[tuple[int, ...]] = [(i,) for i in range(11)]
    assert floods.searched([law], 4) == [law]
    assert list(floods.due([(law, found)])) == [(law, found)]
    assert floods.waiting, "there may be more"
    assert [floods.searched([law], 4) for _ in range(3)] == [[], [law], [law]]
    assert floods.searched([law], 5) == [], "more than half of the budget is spent"
    assert list(floods.due([(law, [])])) == []
    assert not floods.waiting


def test_a_law_that_was_not_looked_for_finds_what_came_meanwhile() -> None:
    (many,) = one("many", (x + y) + z, lambda x, y, z: x + (y + z) if x.dtype == "f64" else None)
    steps = [one(f"step {i}", Unary(a)(x), Unary(b)(x))[0] for i, (a, b) in enumerate(CHAIN[:2])]
    (last,) = one("last", Unary("cos")(x), (x + x) + x)
    u = tensor("u", "f64[n]")
    leaves = [tensor(f"z{i}", "f32[2 3]") for i in range(40)]
    egraph = EGraph()
    start, *sums = egraph.add([u.exp(), *(a + a for a in leaves)])
    for a in sums[1:]:
        egraph.union(sums[0], a, "given")
    egraph.add([(leaves[0] + leaves[0]) + a for a in leaves])
    report = egraph.run([many, *steps, last], Budget(nodes=500, seconds=60))
    assert report.stopped == "saturated"
    (end,) = egraph.add([u + (u + u)])
    assert egraph.same(start, end)


CHAIN = list(pairwise(["exp", "sin", "cos", "tan", "sinh", "cosh", "arctan", "tanh"]))


def test_the_budget_of_seconds_stops_a_growing_law() -> None:
    (wider,) = one("wider", x + y, (x + x) + (y + (x + y)))
    egraph = EGraph()
    egraph.add([v + w])
    report = egraph.run([wider], Budget(nodes=10**6, seconds=0.0))
    assert (report.rounds, report.stopped) == (1, "the time was up")


def test_rounds_are_counted() -> None:
    (wider,) = one("wider", x + y, (x + x) + (y + (x + y)))
    egraph = EGraph()
    egraph.add([v + w])
    report = egraph.run([wider], rounds=2)
    assert (report.rounds, report.stopped) == (2, "all rounds were run")
    assert report.matches["wider"] > 0
    assert str(report).endswith(" s, all rounds were run")


def test_enodes_tell_the_law_and_the_round_that_made_them() -> None:
    first = one("step one", Unary("exp")(x), Unary("sin")(x))
    second = one("step two", Unary("sin")(x), Unary("cos")(x))
    egraph = EGraph()
    egraph.add([v.exp()])
    egraph.run((*first, *second))
    assert {
        n.op.kind: egraph.born(n.index) for n in egraph.enodes() if isinstance(n.op, Unary)
    } == {
        "exp": ("given", 0),
        "sin": ("step one", 1),
        "cos": ("step two", 2),
    }


def test_no_laws_do_nothing() -> None:
    egraph = EGraph()
    egraph.add([v.exp()])
    assert egraph.run([]).nodes == 2


def test_a_right_side_is_built_once_for_equal_operands_and_ops() -> None:
    built: list[str] = []

    def noted(p: Permute, x: Value) -> Value | None:
        built.append(str(x.type))
        return None

    law: tuple[Law, ...] = one("noted", p(x), noted)
    egraph = EGraph()
    leaves = [tensor(f"t{i}", "f64[2 3]") for i in range(12)]
    egraph.add(
        [permute(leaf, (1, 0)) for leaf in leaves] + [permute(tensor("u", "f64[4 3]"), (1, 0))]
    )
    egraph.run(law)
    egraph.run(law)
    assert sorted(built) == ["f64[2 3]", "f64[4 3]"]


def test_a_law_that_changes_the_type_is_an_error_of_the_law() -> None:
    (wrong,) = one("forgets an axis", Unary("exp")(x), lambda x: x[0] if x.rank else None)
    egraph = EGraph()
    egraph.add([v.exp()])
    with pytest.raises(LawError, match="forgets an axis"):
        egraph.run([wrong])


def test_a_variable_twice_means_the_same_class() -> None:
    (double,) = one("doubled", x + x, lambda x: 2 * x)
    egraph = EGraph()
    same, other = egraph.add([v + v, v + w])
    assert egraph.run([double]).matches["doubled"] == 1
    (twice,) = egraph.add([2 * v])
    assert egraph.same(same, twice)
    assert not egraph.same(other, twice)


def test_a_mistake_in_a_right_side_is_an_error_of_the_law() -> None:
    (wrong,) = one("takes a third axis", Unary("exp")(x), lambda x: x.shape[2] and x)
    egraph = EGraph()
    egraph.add([v.exp()])
    with pytest.raises(LawError, match=r"takes a third axis: .* IndexError"):
        egraph.run([wrong])


def test_terms_on_classes_are_built() -> None:
    egraph = EGraph()
    left, right = egraph.add([v, w])
    made = egraph.build(lambda a, b: (a + b).exp(), (left, right), "made here")
    (again,) = egraph.add([(v + w).exp()])
    assert made == again
    assert egraph.born(made) == ("made here", 0)


# -- size ------------------------------------------------------------------------------------------


def test_a_chain_of_20_000_ops_is_registered_without_recursion() -> None:
    value = tensor("x", "f64[2 3]")
    for i in range(20_000):
        value = value.exp() if i % 2 else permute(value, (1, 0))
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(400)
    try:
        egraph = EGraph()
        (root,) = egraph.add([value])
        report = egraph.run(TWICE)
    finally:
        sys.setrecursionlimit(limit)
    assert root == 20_000
    assert report.stopped == "saturated"
    assert len(egraph.enodes()) == 20_001


def test_equal_layers_cost_their_matches_only() -> None:
    value = tensor("x", "f64[4 8]")
    for _ in range(200):
        value = apply(Softmax(1), value) + value
    egraph = EGraph()
    egraph.add([value])
    report = egraph.run([*table("pair", TWICE, COMMUTE)])
    assert report.stopped == "saturated"
    assert report.matches["sums commute"] >= 200


def test_all_laws_compile_into_one_egraph() -> None:
    egraph = EGraph()
    (root,) = egraph.add([v + w])
    egraph.run(ALL, Budget(nodes=100, seconds=5.0))
    (other,) = egraph.add([w + v])
    assert egraph.same(root, other)


def test_the_size_of_a_pattern_is_its_number_of_ops() -> None:
    assert pattern_size((x + y) * -x) == 3
    assert pattern_size(x) == 0


def test_the_time_is_kept_within_a_round() -> None:
    egraph = EGraph()
    egraph.add([v + w])
    report = egraph.run(COMMUTE, Budget(nodes=100, seconds=0.0))
    assert report.stopped == "the time was up"
    assert len(egraph) == 3
    assert not report.matches["sums commute"]


def test_what_is_constant_needs_no_law_of_what_depends() -> None:
    (law,) = table("demo", COMMUTE, depends=True)
    egraph = EGraph()
    known, other = egraph.add([v + v * v, w + v], constants=["v"])
    egraph.run([law])
    turned = egraph.add([v * v + v, v + w])
    assert not egraph.same(known, turned[0])
    assert egraph.same(other, turned[1])
