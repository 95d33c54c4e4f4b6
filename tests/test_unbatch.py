"""Batches taken away, put in and made free: rows, refusals, the e-graph, numbers."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safegraph import SafeDAG, Value, dims, tensor
from safegraph.batch import Verdict, unbatch
from safegraph.batch.unbatching import Unbatching
from safegraph.cases import random_values
from safegraph.dag import Tensor
from safegraph.derived import (
    Attention,
    BatchNorm,
    Broadcast,
    Concat,
    Conv,
    Expand,
    Gather,
    GatherNd,
    Index,
    InstanceNorm,
    Lstm,
    Reshape,
    Softmax,
    Tile,
)
from safegraph.egraph import Budget, EGraph
from safegraph.errors import BatchError, EvaluationError, SafeGraphError
from safegraph.op import TensorType
from safegraph.ops import Opaque, Place, Sample
from safegraph.ops.sample import located
from safegraph.rules.batch import LAWS, TABLE, push
from safegraph.rules.batch_rows import Mixed
from safegraph.value import (
    apply,
    cast,
    full,
    group,
    iota,
    permute,
    reduce,
    repeat,
    reshape,
    scalar,
    slice_axis,
    ungroup,
    unsqueeze,
)
from tests.unbatched import accepted, graph

n = dims.size("n")
x = tensor("x", "f64[n 4 6]")
image = tensor("x", "f64[n 3 8 8]")
CONV = Conv((1, 1), (1, 1), (1, 1), (1, 1))


# -- the marker -----------------------------------------------------------------------------------


def test_a_sample_of_a_factor_is_those_elements() -> None:
    array = np.arange(24.0)
    found = Sample(0, 2, 4, 3, 1).run(array)
    np.testing.assert_array_equal(found, array.reshape(2, 4, 3)[:, 1].reshape(6))
    assert Sample(0, 1, 24, 1, 5).run(array).shape == ()


def test_a_sample_must_exist_and_its_factors_be_the_axis() -> None:
    with pytest.raises(SafeGraphError, match="there is no sample 4 of 4"):
        apply(Sample(1, 1, 4, 1, 4), x)
    with pytest.raises(SafeGraphError, match="the product of the factors of axis 1"):
        apply(Sample(1, 1, 3, 1, 0), x)


def test_a_batch_of_one_inside_an_axis_is_the_axis() -> None:
    assert apply(Sample(1, 2, 1, 2, 0), x) is x


@pytest.mark.parametrize(
    ("to", "inner", "place"),
    [
        ("n 24", 24, Place(0)),
        ("4*n 6", 24, Place(0, 1, 4)),
        ("4 n 6", 6, Place(1)),
        ("2 2*n 6", 6, Place(1, 2, 1)),
        ("n 1 24", 24, Place(0)),
        ("2*n 12", 24, Place(0, 1, 2)),
        ("24 n", 24, None),
        ("5 n", 24, None),
    ],
)
def test_where_a_batch_is_after_a_reshape(to: str, inner: int, place: Place | None) -> None:
    assert located(dims.dims(to), inner, n) == place


def test_equal_sizes_are_told_apart_by_position() -> None:
    assert located((3, 3, 5), 15, 3) == Place(0)
    assert located((3, 3, 5), 5, 3) == Place(1)


# -- accepted -------------------------------------------------------------------------------------


def test_a_batch_axis_disappears() -> None:
    found = accepted(graph(x.relu().softmax(axis=2)))
    assert [str(t.type) for t in found.inputs] == ["f64[4 6]"]
    assert [node.op.name for node in found] == ["relu", "softmax"]


def test_a_convolution_takes_one_sample() -> None:
    found = accepted(graph(CONV(image, tensor("w", "f64[5 3 3 3]")).relu()), {"x": 0})
    assert [str(found.types[node.name]) for node in found] == ["f64[5 8 8]", "f64[5 8 8]"]
    assert [node.op.name for node in found] == ["conv", "relu"]


def test_heads_merged_with_the_batch_stay_heads() -> None:
    def split(v: Value) -> Value:
        return group(permute(ungroup(v, [(-1,), (-1,), (2, 3)]), (0, 2, 1, 3)), [2, 1, 1])

    q = split(x)
    mixed = (q @ permute(q, (0, 2, 1))).softmax(axis=2) @ q
    joined = group(permute(ungroup(mixed, [(-1, 2), (-1,), (-1,)]), (0, 2, 1, 3)), [1, 1, 2])
    found = accepted(graph(joined))
    assert {str(t) for t in found.types.values()} == {
        "f64[4 6]", "f64[4 2 3]", "f64[2 4 3]", "f64[2 3 4]", "f64[2 4 4]"
    }  # fmt: skip


def test_channels_merged_with_the_batch_are_groups() -> None:
    w = tensor("w", "f64[n 5 3 3 3]")
    merged = Conv((1, 1), (1, 1), (1, 1), (1, 1), 4)(
        reshape(tensor("x", "f64[4 3 8 8]"), (1, 12, 8, 8)),
        reshape(tensor("w", "f64[4 5 3 3 3]"), (20, 3, 3, 3)),
    )
    found = accepted(graph(reshape(merged, (4, 5, 8, 8))))
    (conv,) = (node.op for node in found if isinstance(node.op, Conv))
    assert conv.groups == 1
    assert w.rank == 5


def test_instance_norm_by_way_of_channels() -> None:
    flat = reshape(image, (1, 3 * n, 64))
    accepted(graph(reshape(InstanceNorm()(flat), (n, 3, 8, 8))))


def test_an_output_that_is_merged_is_told() -> None:
    verdict = unbatch(graph(reshape(x, (4 * n, 6)), x, full(1, (2,), "f64")))
    assert dict(verdict.outputs) == {"y0": "merged", "y1": "batched", "y2": "constant"}
    assert verdict.axes["y0"] == (0, 1, 4)
    assert verdict.axes["x"] == verdict.axes["y1"] == 0
    assert verdict.axes["y2"] is None
    assert verdict.laws == ("a sample of group",)
    assert str(verdict) == "accepted: y0 is merged, y1 is batched, y2 is constant"
    assert verdict.verify()


def test_inputs_without_a_batch_stay() -> None:
    y = tensor("y", "f64[4 6]")
    found = accepted(graph(Broadcast("add")(x, y)), {"x": 0, "y": None})
    assert [str(t.type) for t in found.inputs] == ["f64[4 6]", "f64[4 6]"]


def test_a_batch_by_name_is_found_on_every_axis() -> None:
    y = tensor("y", "f64[6 n]")
    found = accepted(graph(reduce(x, [1], "sum", keep=False) + permute(y, (1, 0))), "n")
    assert [str(t.type) for t in found.inputs] == ["f64[4 6]", "f64[6]"]


def test_what_is_repeated_for_each_sample_is_not() -> None:
    token = tensor("token", "f64[1 1 6]")
    found = accepted(graph(Concat(1)(Expand((n, 1, 6))(token), x)), {"x": 0})
    assert not any("expand" in node.op.name for node in found)
    assert found.types["y0"].shape == (5, 6)


def test_a_tile_of_a_constant_to_the_batch_is_not_there() -> None:
    token = tensor("token", "f64[1 4 6]")
    found = accepted(graph(Tile((n, 1, 1))(token) * x), {"x": 0})
    assert found.types["y0"].shape == (4, 6)


def test_zero_states_of_a_recurrent_layer() -> None:
    zeros = full(0, (n, 5), "f64")
    layer = Lstm()(
        permute(x, (1, 0, 2)), tensor("w", "f64[20 6]"), tensor("r", "f64[20 5]"), zeros, zeros
    )
    found = accepted(graph(layer), {"x": 0})
    assert found.types[found.outputs["y0"]].shape == (4, 5)


def test_a_constant_with_equal_samples_loses_them() -> None:
    static = tensor("x", "f64[3 4]")
    bias = np.tile(np.arange(4.0), (3, 1))
    found = accepted(graph(static + tensor("b", "f64[3 4]"), b=bias))
    np.testing.assert_array_equal(found.tensors["b"].array(), np.arange(4.0))


def test_a_constant_with_other_samples_is_refused() -> None:
    static = tensor("x", "f64[3 4]")
    refusal = unbatch(
        graph(static + tensor("b", "f64[3 4]"), b=np.arange(12.0).reshape(3, 4))
    ).refusal
    assert refusal is not None
    assert "differs per sample" in refusal.reason


def test_a_gather_by_the_number_of_the_sample_is_one_in_each() -> None:
    at = tensor("at", "i64[n 2]")
    picked = GatherNd(0)(x, unsqueeze(iota(n), [1]), at)
    found = accepted(graph(picked))
    assert [node.op.name for node in found] == ["gather"]


def test_a_doubled_batch_and_its_halves() -> None:
    doubled = Concat(0)(x, x).relu()
    halves = slice_axis(doubled, 0, 0, n) - slice_axis(doubled, 0, n, 2 * n)
    found = accepted(graph(halves))
    assert found.types[found.outputs["y0"]].shape == (4, 6)


def test_attention_with_a_mask_of_all_samples() -> None:
    q = tensor("x", "f64[n 2 4 6]")
    accepted(graph(Attention()(q, q, q, tensor("mask", "f64[1 1 4 4]"))), {"x": 0})


def test_batch_norm_of_one_sample() -> None:
    leaves = [tensor(name, "f64[3]") for name in ("s", "b", "m", "v")]
    numbers = {name: np.arange(1.0, 4.0) for name in ("s", "b", "m", "v")}
    found = accepted(graph(BatchNorm()(image, *leaves), **numbers))
    assert found.types[found.outputs["y0"]].shape == (3, 8, 8)


def test_a_size_that_is_free_beside_the_batch_stays_free() -> None:
    free = tensor("x", "f64[n t 6]")
    t = dims.size("t")
    found = accepted(graph(reshape(reshape(free, (n * t, 6)).relu(), (n, t, 6))))
    assert found.types[found.outputs["y0"]].shape == (t, 6)


# -- refused --------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[Value, str]] = {
    "mean over the batch": (reduce(x, [0], "mean"), "reduces over the batch"),
    "softmax over the batch": (Softmax(0)(x), "taken over the batch"),
    "the batch turned round": (x.flip(axes=(0,)), "turns the order of the samples"),
    "the first sample": (x[:1], "picks samples"),
    "every second sample": (x[::2], "picks samples"),
    "a shift over samples": (x.pad(before=(1, 0, 0), after=(0, 0, 0), fill=0.0), "adds samples"),
    "a gram matrix": (reshape(x, (n, 24)) @ permute(reshape(x, (n, 24)), (1, 0)), "in pairs"),
    "samples as length": (
        reshape(x, (1, 4 * n, 6)) @ permute(reshape(x, (1, 4 * n, 6)), (0, 2, 1)),
        "in pairs",
    ),
    "divided by the batch": (x / scalar(n, "f64"), "the size of the batch (n) is a number"),
    "the number of the sample": (
        x + unsqueeze(iota(n).cast("f64"), [1, 2]), "differs per sample"),
    "an unknown op": (
        apply(Opaque("onnx", "com.example::Foo", (), 0, TensorType("f64", x.shape)), x),
        "com.example::Foo (onnx) is unknown",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_samples_that_meet_are_refused(name: str) -> None:
    value, words = REFUSED[name]
    dag = graph(value)
    verdict = unbatch(dag)
    assert not verdict.accepted
    assert verdict.refusal is not None
    assert words in verdict.refusal.reason
    with pytest.raises(BatchError, match="cannot be taken away"):
        dag.unbatch()


def test_a_view_that_shifts_the_batch_into_another_axis_is_refused() -> None:
    assert not unbatch(graph(Reshape((4, n, 6))(x)))


def test_a_refusal_says_which_op_where_which_axis_and_the_path() -> None:
    lines = """graph g
  input x: f64[n 4 6]
  a: f64[n 4 6] = relu(x) @ layer/one
  b: f64[4 n 6] = permute(a) "n b c -> b n c" @ layer/two
  y: f64[4 n 6] = softmax(b) axis=1 @ layer/three
  output y
"""
    refusal = unbatch(SafeDAG.parse(lines)).refusal
    assert refusal is not None
    assert (refusal.op, refusal.node, refusal.axis) == ("softmax", "y", 1)
    assert refusal.where == "layer/three"
    assert refusal.path == ("x", "a", "b", "y")
    assert refusal.factors == ("b: f64 [4] [n] [6]",)
    assert str(refusal) == (
        "softmax at node y (layer/three): it is taken over the batch (axis 1 of its operand)\n"
        "  operand 1 is b: f64 [4] [n] [6]\n"
        "  the batch comes by way of x -> a -> b -> y"
    )


def test_a_refusal_inside_of_a_definition_is_one_of_the_op_that_has_it() -> None:
    """Operands and axes are those of the op in the user's graph, whatever they are inside."""
    dag = graph(Conv((1,), (1,), (1,), (1,))(tensor("x", "f64[3 4 n]"), tensor("w", "f64[5 4 3]")))
    refusal = unbatch(dag, {"x": 2}).refusal
    assert refusal is not None
    assert (refusal.op, refusal.axis) == ("conv", 2)
    assert refusal.reason == "it adds samples, in the pad of its definition (axis 2 of operand 1)"


# -- what is asked for must fit -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("axis", "message"),
    [
        ("m", "has the free size 'm'; it has n"),
        ({"z": 0}, "has no input z; it has x, y"),
        ({"x": 5}, "there is no axis 5 in 3 axes"),
        ({"x": 0, "y": 0}, "have different sizes: x: n, y: 4"),
        ({}, "no input of graph was said to have a batch"),
        (1, "there is no axis 1 in 1 axes"),
    ],
)
def test_an_axis_that_is_not_there_is_an_error(axis: Any, message: str) -> None:
    dag = graph(x, tensor("y", "f64[4]").relu())
    with pytest.raises(BatchError, match=message):
        unbatch(dag, axis)


@pytest.mark.parametrize("axis", [1.5, True, [0], {"x": "n"}, {"x": 0.0}, {"x": False}])
def test_an_axis_is_a_number(axis: Any) -> None:
    with pytest.raises(BatchError, match="the batch axis is a number, or None"):
        unbatch(graph(x), axis)


def test_an_axis_may_be_a_number_of_numpys() -> None:
    axis: Any = np.int64(0)
    assert unbatch(graph(x), {"x": axis})


@pytest.mark.parametrize(
    "size", ["", "2*b", "b c", "3", "lambda", 2.5, True, None, [], {"x": 2.5}, {"x": []}]
)
def test_the_size_of_a_batch_is_a_number_or_a_name(size: Any) -> None:
    with pytest.raises(BatchError, match="a number, or a name of letters"):
        graph(x).batch(size)


@pytest.mark.parametrize("batches", [(), (0,), (1.5,), (-1,), (True,)])
def test_to_verify_needs_numbers_of_samples(batches: Any) -> None:
    with pytest.raises(BatchError, match="give the numbers of samples to try"):
        unbatch(graph(x)).verify(batches)


def test_a_name_that_occurs_twice_must_be_said_by_axis() -> None:
    square = graph(tensor("x", "f64[n n]").relu())
    with pytest.raises(BatchError, match="say which axis"):
        unbatch(square, "n")
    with pytest.raises(BatchError, match="other axes than its batch have the size n"):
        unbatch(square, 0)


def test_verdicts_of_refusals_have_no_graph() -> None:
    verdict: Verdict = unbatch(graph(reduce(x, [0], "sum")))
    with pytest.raises(BatchError, match="reduce at node y0: it reduces over the batch"):
        _ = verdict.dag


def test_verification_finds_samples_that_meet() -> None:
    mixed, apart = graph(x - reduce(x, [0], "mean")), graph(x.relu())
    honest = unbatch(apart)
    forged = Verdict(mixed, n, None, honest.outputs, honest.axes, (), honest.dag)
    found = forged.verify((1, 3))
    assert not found.equal
    assert not found.isolated
    assert "sample 1 of 3 sees sample 0" in str(found)


@pytest.mark.parametrize("shift", [0, 1, 3])
def test_verification_draws_integers_that_every_table_has(shift: int) -> None:
    index = tensor("i", "i64[n 5]") + scalar(shift, "i64")
    dag = graph(Gather(0)(tensor("table", "f64[4 6]"), index), table=np.ones((4, 6)))
    assert unbatch(dag, {"i": 0}).verify()


def test_verification_says_where_no_integers_suit() -> None:
    index = tensor("i", "i64[n 5]") + scalar(4, "i64")
    dag = graph(Gather(0)(tensor("table", "f64[4 6]"), index), table=np.ones((4, 6)))
    with pytest.raises(EvaluationError, match="an index that the axis does not have"):
        unbatch(dag, {"i": 0}).verify()


# -- put in ---------------------------------------------------------------------------------------


def test_batch_is_as_vmap() -> None:
    a, w = tensor("a", "f64[4 6]"), tensor("w", "f64[6 3]")
    dag = graph((a @ w).softmax(axis=1).relu())
    many = dag.batch({"a": "n"})
    assert [str(t.type) for t in many.inputs] == ["f64[n 4 6]", "f64[6 3]"]
    assert [node.op.name for node in many] == ["matmul", "softmax", "relu"]
    rng = np.random.default_rng(0)
    xs, ws = rng.standard_normal((5, 4, 6)), rng.standard_normal((6, 3))
    (found,) = many.evaluate(xs, ws).values()
    for one, wanted in zip(found, xs, strict=True):
        np.testing.assert_allclose(one, next(iter(dag.evaluate(wanted, ws).values())))


def test_a_convolution_of_one_sample_becomes_one_of_a_batch() -> None:
    one = graph(CONV(tensor("x", "f64[3 8 8]"), tensor("w", "f64[5 3 3 3]")))
    many = one.batch({"x": "n"})
    assert [str(many.types[node.name]) for node in many] == ["f64[n 5 8 8]"]


def test_batch_refuses_a_name_that_is_there_and_inputs_that_are_not() -> None:
    dag = graph(x.relu())
    with pytest.raises(BatchError, match="has a free size n already"):
        dag.batch("n")
    with pytest.raises(BatchError, match="has no input z"):
        dag.batch({"z": "m"})
    with pytest.raises(BatchError, match="no input of graph was given a batch"):
        dag.batch({})


def test_rebatch_makes_a_number_free_and_keeps_the_places() -> None:
    static = tensor("x", "f64[4 2 6]")
    dag = graph(reshape(permute(static, (1, 0, 2)), (2, 24)), static.relu())
    found = dag.rebatch("n", {"x": 1})
    assert [str(t.type) for t in found.inputs] == ["f64[4 n 6]"]
    assert [str(found.types[v]) for v in found.outputs.values()] == ["f64[n 24]", "f64[4 n 6]"]
    array = np.random.default_rng(0).standard_normal((4, 2, 6))
    for a, b in zip(dag.evaluate(array).values(), found.evaluate(array).values(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_rebatch_puts_a_merged_batch_back_into_its_axis() -> None:
    static = tensor("x", "f64[4 2 6]")
    for merged in (reshape(static, (8, 6)), reshape(permute(static, (1, 0, 2)), (8, 6))):
        found = graph(merged).rebatch("n", {"x": 1})
        assert str(found.types[found.outputs["y0"]]) == "f64[4*n 6]"
        array = np.random.default_rng(0).standard_normal((4, 2, 6))
        (a,), (b,) = graph(merged).evaluate(array).values(), found.evaluate(array).values()
        np.testing.assert_array_equal(a, b)


# -- what once went wrong -------------------------------------------------------------------------


def test_a_sample_of_a_constant_is_no_other_constant_of_that_name() -> None:
    static, b, other = (tensor("x", "f64[3 4]"), tensor("b", "f64[3 4]"), tensor("b.0.1", "f64[4]"))
    tensors = [
        Tensor("b", "parameter", b.type, np.tile(np.arange(4.0), (3, 1))),
        Tensor("b.0.1", "parameter", other.type, np.full(4, 7.0)),
    ]
    accepted(SafeDAG.from_values({"y0": static + b * other}, tensors))


def test_zeros_of_both_signs_are_not_equal_samples() -> None:
    static, zeros = tensor("x", "f64[2 1]"), np.array([[0.0], [-0.0]])
    refusal = unbatch(graph(static / tensor("b", "f64[2 1]"), b=zeros)).refusal
    assert refusal is not None
    assert "differs per sample" in refusal.reason


def test_a_part_of_what_was_joined_is_told_by_the_axis_of_the_joint() -> None:
    joined = Concat(1)(tensor("x", "f64[3 4 6]"), tensor("c", "f64[3 2 6]"))
    refusal = unbatch(graph(Index(2, 2)(joined)), {"x": 0}).refusal
    assert refusal is not None
    assert refusal.op == "concat"
    for at in (2, -4):
        assert accepted(graph(Index(1, at)(joined)), {"x": 0}).types["y0"].shape == (6,)
    assert unbatch(graph(Index(1, -1)(joined)), {"x": 0}).outputs == {"y0": "constant"}


def test_a_joint_without_a_place_is_refused_where_it_is() -> None:
    joined = Concat(0)(x, tensor("c", "f64[1 4 6]"))
    refusal = unbatch(graph(slice_axis(joined, 0, 0, n).relu()), {"x": 0}).refusal
    assert refusal is not None
    assert refusal.op == "concat"
    assert refusal.factors == ("x: f64 [n] [4] [6]", "c: f64 [1] [4] [6]")


def test_a_number_of_the_sample_that_became_a_bool_is_none() -> None:
    number = cast(cast(iota(n), "bool"), "i64")
    picked = GatherNd(0)(x, number, tensor("at", "i64[n]"))
    refusal = unbatch(graph(picked), {"x": 0, "at": 0}).refusal
    assert refusal is not None
    assert "picks samples by number" in refusal.reason


def test_a_batch_has_samples() -> None:
    with pytest.raises(BatchError, match="the batch has no samples"):
        unbatch(graph(tensor("x", "f64[0 4]").relu()))


def test_the_same_axis_by_number_is_told_from_the_same_axis() -> None:
    twice = group(repeat(unsqueeze(x, [1]), (1, 2, 1, 1)), [2, 1, 1])
    refusal = unbatch(graph(Tile((2, 1, 1))(x) + twice)).refusal
    assert refusal is not None
    assert "which is another factor" in refusal.reason


# -- random graphs --------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_a_batch_that_is_put_in_can_be_taken_away(seed: int) -> None:
    dag = random_values(np.random.default_rng(seed), 6, symbolic=False).dag()
    if not dag.inputs:
        return
    try:
        many = dag.batch("b")
    except BatchError:  # honest: no proof, no graph
        return
    verdict = unbatch(many)
    assert verdict, verdict.refusal
    assert [t.type for t in verdict.dag.inputs] == [t.type for t in dag.inputs]


def test_nearly_every_random_graph_can_be_given_a_batch() -> None:
    found = refused = 0
    for seed in range(150):
        dag = random_values(np.random.default_rng(seed), 5, symbolic=False).dag()
        if dag.inputs:
            try:
                dag.batch("b")
                found += 1
            except BatchError:
                refused += 1
    assert found > 50 * refused


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_what_is_accepted_is_equal_and_isolated(seed: int) -> None:
    sample = random_values(np.random.default_rng(seed), 5, symbolic=True)
    try:
        verdict = unbatch(sample.dag(), "n")
    except BatchError:  # no input has it, or one has it twice
        return
    if not verdict:
        return
    try:
        found = verdict.verify((1, 2, 3))
    except SafeGraphError:  # random indices that an axis does not have
        return
    assert found, found


# -- the table, and the laws in the e-graph -------------------------------------------------------


def test_no_row_gives_a_place_that_the_result_does_not_have() -> None:
    one, other = TensorType("f64", (1, 6)), TensorType("f64", (4, 6))
    with pytest.raises(Mixed, match=r"no batch there \(axis 0 of operand 2\)"):
        push(Broadcast("add"), (one, other), (Place(0), None), 1)


def test_an_index_for_all_samples_is_no_number_of_each() -> None:
    square = repeat(unsqueeze(tensor("x", "f64[n 3]"), [0]), (n, 1, 1))
    picked = GatherNd(0)(square, tensor("at", "i64[n 1]"), tensor("same", "i64[]"))
    assert not unbatch(graph(picked), {"x": 0, "at": 0})


def test_every_op_of_the_table_has_its_laws() -> None:
    names = " ".join(law.name for law in LAWS)
    assert all(f"a sample of {cls.name}" in names for cls in TABLE)


PROGRAMS: dict[str, Value] = {
    "pointwise": (x.relu() * x).exp(),
    "a reduction": reduce(x, [1], "sum").softmax(axis=2),
    "merged heads": group(permute(ungroup(x, [(-1,), (-1,), (2, 3)]), (0, 2, 1, 3)), [2, 1, 1]),
    "attention": (x @ permute(x, (0, 2, 1))).softmax(axis=2) @ x,
    "a token": Concat(1)(repeat(tensor("token", "f64[1 1 6]"), (n, 1, 1)), x),
    "a doubled batch": slice_axis(Concat(0)(x, x).relu(), 0, 0, n),
    "a convolution": CONV(image, tensor("w", "f64[5 3 3 3]")).relu(),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_laws_find_in_the_e_graph_what_the_walk_finds(name: str) -> None:
    value = PROGRAMS[name]
    dag = SafeDAG.from_values({"y": value})
    walk = Unbatching(dag, {"x": Place(0)}, n)
    walk.run()
    state = walk.output("y")
    (place,) = state.places
    leaf = next(v for v in dag.to_values().values() if v.op is None and v.name == "x")
    # the walk's result, of the samples of the inputs
    one = SafeDAG.from_values({"y": state.value}).to_values(
        {"x": apply(Sample.of(Place(0), n), leaf)}
    )
    egraph = EGraph()
    marked, found = egraph.add([apply(Sample.of(place, n), value), one["y"]])
    assert not egraph.same(marked, found)
    egraph.run(LAWS, Budget(5_000, 20.0), rounds=12)
    assert egraph.same(marked, found)


def test_no_law_takes_a_sample_of_what_mixes() -> None:
    mixed = Softmax(0)(x)
    egraph = EGraph()
    marked, other = egraph.add(
        [apply(Sample.of(Place(0), n), mixed), Softmax(0)(apply(Sample.of(Place(0), n), x))]
    )
    report = egraph.run(LAWS, Budget(2_000, 10.0), rounds=6)
    assert not egraph.same(marked, other)
    assert not report.matches["a sample of softmax"]


def test_the_walk_is_linear() -> None:
    value = x
    for i in range(3_000):
        value = value.relu() if i % 2 else value.tanh()
    dag = graph(value)
    assert len(dag.unbatch()) == len(dag)
    assert len(dag.rebatch("m")) == len(dag)
