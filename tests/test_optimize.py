"""Optimization: the better form is found, it computes the same, and it is never dearer."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from benchmarks.programs import bert
from safegraph.cases import Sample, random_values
from safegraph.dag import SafeDAG, Tensor
from safegraph.derived.conv import Conv
from safegraph.derived.einsum import Linear, einsum
from safegraph.derived.index import Gather
from safegraph.derived.norm import BatchNorm, LayerNorm, Softmax
from safegraph.derived.pool import AvgPool
from safegraph.dims import assuming, substitute
from safegraph.errors import ShapeError
from safegraph.extract.optimize import Optimized, optimize, predicted, refine
from safegraph.extract.search import ExtractionError
from safegraph.extract.targets import ONNXRUNTIME, TORCH, Target
from safegraph.op import TensorType
from safegraph.ops import Opaque
from safegraph.ops import Sample as Marker
from safegraph.soundness import RTOL, difference, run_value, shaken, undetermined
from safegraph.value import Value, apply, expand, permute, reduce, tensor
from tests.strategies import CORE, seeds


def weight(name: str, *shape: int, kind: str = "parameter", seed: int = 0) -> Tensor:
    """A tensor with data of unit scale."""
    data = np.random.default_rng((seed, *shape)).standard_normal(shape) / np.sqrt(
        max(1, *shape[-2:])
    )
    return Tensor(name, kind, TensorType("f32", shape), data.astype("f4"))


def leaf(t: Tensor) -> Value:
    return tensor(t.name, t.type)


def macs(dag: SafeDAG, sizes: Mapping[str, int] | None = None) -> int:
    """Multiply-adds of a graph."""
    works = (n.op.work(*(dag.types[i] for i in n.inputs)).macs for n in dag)
    return sum(int(substitute(w, sizes or {})) for w in works)


def arrays(dag: SafeDAG, sizes: Mapping[str, int] | None = None) -> dict[str, np.ndarray]:
    """Random arrays for the inputs."""
    rng = np.random.default_rng(0)
    found = {}
    for t in dag.inputs:
        shape = [int(substitute(d, sizes or {})) for d in t.type.shape]
        found[t.name] = rng.standard_normal(shape).astype("f4")
    return found


def assert_same(found: Optimized, sizes: Mapping[str, int] | None = None) -> None:
    """The result computes what the original does."""
    given_ = arrays(found.original, sizes)
    a, b = found.original.evaluate(**given_), found.dag.evaluate(**given_)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(b[name], a[name], rtol=1e-3, atol=1e-4 * np.abs(a[name]).max())


# -- the better form of known programs -------------------------------------------------------------


def low_rank(rank: int) -> tuple[Value, list[Tensor]]:
    a, b = weight("A", 512, rank), weight("B", rank, 512)
    return tensor("x", "f32[64 512]") @ (leaf(a) @ leaf(b)), [a, b]


def chain() -> tuple[Value, list[Tensor]]:
    names = {"a": "512 256", "b": "256 512", "c": "512 8"}
    a, b, c = (tensor(n, f"f32[{s}]") for n, s in names.items())
    return ((tensor("x", "f32[256 512]") @ a) @ b) @ c, []


def linear_attention() -> tuple[Value, list[Tensor]]:
    q, k, v = (tensor(n, "f32[1 2 512 32]") for n in "qkv")
    return (q @ permute(k, (0, 1, 3, 2))) @ v, []


def last_token() -> tuple[Value, list[Tensor]]:
    w = weight("W", 128, 512)
    return (tensor("h", "f32[1 64 128]") @ leaf(w))[:, -1], [w]


def product_of_sums() -> tuple[Value, list[Tensor]]:
    a, b = tensor("a", "f32[64 64]"), tensor("b", "f32[64 64]")
    return reduce(a[:, :, None] * b[None], [1], "sum", keep=False), []


BETTER = {
    "x @ (A @ B) of low rank": (low_rank(16), 2 * 64 * 512 * 16),
    "a chain from the right": (chain(), 3 * 256 * 512 * 8),
    "attention without softmax": (linear_attention(), 2 * 2 * 512 * 32 * 32),
    "the last token of a product": (last_token(), 128 * 512),
    "a sum of products is a matmul": (product_of_sums(), 64**3),
}


@pytest.mark.parametrize("target", ["onnxruntime", "torch"])
@pytest.mark.parametrize("name", BETTER)
def test_the_better_form_is_found(name: str, target: str) -> None:
    (value, tensors), expected = BETTER[name]
    found = optimize(SafeDAG.from_values({"y": value}, tensors), target)
    assert 0 < macs(found.dag) <= 1.02 * expected
    assert found.after < found.before
    assert_same(found)


def test_a_sum_of_products_becomes_one_matmul() -> None:
    value, _ = product_of_sums()
    found = optimize(SafeDAG.from_values({"y": value}))
    assert [n.op.name for n in found.dag] == ["matmul"]
    assert "matmul recognised (2 operands, form 1)" in found.laws


# -- constants -------------------------------------------------------------------------------------


def test_folding_constants_is_a_choice() -> None:
    thin = optimize(SafeDAG.from_values({"y": low_rank(16)[0]}, low_rank(16)[1])).dag
    assert {t.name for t in thin.kind("parameter")} == {"A", "B"}, (
        "folded, it would be 16 times dearer"
    )
    wide = optimize(SafeDAG.from_values({"y": low_rank(512)[0]}, low_rank(512)[1])).dag
    assert len(wide.kind("parameter")) == 1, "folded, it is one product instead of two"
    assert macs(wide) == 64 * 512 * 512


@pytest.mark.parametrize("target", ["onnxruntime", "torch"])
@pytest.mark.parametrize("with_bias", [False, True])
def test_a_batch_norm_goes_into_the_convolution(target: str, with_bias: bool) -> None:
    w, b = weight("w", 8, 3, 3, 3), weight("b", 8)
    scale, bias, mean = (weight(n, 8, seed=i) for i, n in enumerate(("scale", "bias", "mean")))
    variance = Tensor(
        "variance", "buffer", TensorType("f32", (8,)), np.linspace(0.5, 2, 8, dtype="f4")
    )
    conv = Conv((1, 1), (1, 1), (1, 1), (1, 1), 1)
    x = tensor("x", "f32[batch 3 16 16]")
    y = apply(conv, x, leaf(w), *([leaf(b)] if with_bias else []))
    y = apply(BatchNorm(1e-5), y, *map(leaf, (scale, bias, mean, variance)))
    tensors = [w, *([b] if with_bias else []), scale, bias, mean, variance]
    found = optimize(SafeDAG.from_values({"y": y}, tensors), target)
    assert [n.op.name for n in found.dag] == ["conv"]
    assert {t.kind for t in found.dag.tensors.values()} == {"input", "parameter"}
    for batch in (1, 3):
        assert_same(found, {"batch": batch})


@pytest.mark.parametrize("with_bias", [False, True])
def test_a_batch_norm_before_a_convolution_without_a_border_goes_into_it(with_bias: bool) -> None:
    w, *vectors = (
        weight("w", 6, 4, 2, 2),
        *(weight(n, 4, seed=1) for n in ("scale", "bias", "mean")),
    )
    variance = Tensor("variance", "buffer", TensorType("f32", (4,)), np.ones(4, "f4"))
    tensors = [w, *vectors, variance, *([weight("b", 6)] if with_bias else [])]
    x = apply(BatchNorm(1e-5), tensor("x", "f32[2 4 8 8]"), *map(leaf, (*vectors, variance)))
    op = Conv((2, 2), (0, 0), (0, 0), (1, 1))
    y = apply(op, x, leaf(w), *(leaf(t) for t in tensors if t.name == "b"))
    found = optimize(SafeDAG.from_values({"y": y}, tensors))
    assert [n.op.name for n in found.dag] == ["conv"]
    assert_same(found)


@pytest.mark.parametrize("count", [False, True])
def test_means_of_windows_stay_finite_for_what_comes_after(count: bool) -> None:
    """A batch norm goes into its convolution for finite values alone."""
    w, *vectors = (
        weight("w", 4, 4, 1, 1),
        *(weight(n, 4, seed=1) for n in ("scale", "bias", "mean")),
    )
    variance = Tensor("variance", "buffer", TensorType("f32", (4,)), np.ones(4, "f4"))
    pool = AvgPool((3, 3), (1, 1), (1, 1), (1, 1), (0, 0), count)
    y = apply(Conv((1, 1), (0, 0), (0, 0), (1, 1)), pool(tensor("x", "f32[2 4 8 8]")), leaf(w))
    y = apply(BatchNorm(1e-5), y, *map(leaf, (*vectors, variance)))
    found = optimize(SafeDAG.from_values({"y": y}, [w, *vectors, variance]))
    assert sorted(n.op.name for n in found.dag) == ["avg_pool", "conv"]
    assert_same(found)


def test_kinds_and_names_of_tensors_are_kept() -> None:
    p, b, c = (weight(k, 4, 4, kind=k) for k in ("parameter", "buffer", "const"))
    x = tensor("x", "f32[n 4]")
    y = ((x @ leaf(p)).exp() @ leaf(b)).tanh() @ leaf(c)
    found = optimize(SafeDAG.from_values({"y": y}, [p, b, c])).dag
    assert {t.name: t.kind for t in found.tensors.values()} == {
        "x": "input",
        "parameter": "parameter",
        "buffer": "buffer",
        "const": "const",
    }
    assert all(found.tensors[t.name].array() is t.data for t in (p, b, c))


def test_outputs_and_inputs_keep_names_and_order() -> None:
    x, y, unused = (tensor(n, "f32[4 4]") for n in ("x", "y", "unused"))
    inputs = [Tensor(v.name, "input", v.type) for v in (unused, y, x)]
    dag = SafeDAG.from_values({"second": -(-x), "first": (x + y).exp(), "again": x}, inputs)
    found = optimize(dag)
    assert list(found.dag.outputs) == ["second", "first", "again"]
    assert [t.name for t in found.dag.inputs] == ["unused", "y", "x"]
    assert_same(found)
    assert len(found.dag) == 2


def test_the_original_is_predicted_as_it_is_written() -> None:
    """What could be computed ahead costs its time before, and none after: folding is a gain."""
    value, tensors = low_rank(512)
    dag = SafeDAG.from_values({"y": value}, tensors)
    found = optimize(dag)
    assert found.before == pytest.approx(predicted(dag, "onnxruntime", {}))
    assert found.after == pytest.approx(predicted(found.dag, "onnxruntime", {}))
    assert found.after < found.before / 2


# -- what targets have -----------------------------------------------------------------------------


def lacking(*ops: str) -> Target:
    """ONNX Runtime without some ops."""
    kept = {n: factor for n, factor in ONNXRUNTIME.ops.items() if n not in ops}
    return replace(ONNXRUNTIME, name="small", ops=kept)


def test_targets_have_what_their_formats_write() -> None:
    from safegraph.frontends.onnx import table_out as onnx
    from safegraph.frontends.torchscript import table_out as torchscript

    for goal, rows in ((ONNXRUNTIME, onnx.TABLE), (TORCH, torchscript.TABLE)):
        written = {cls.name for cls in rows} | {Opaque.name}
        assert {*goal.ops, *goal.views} == written, goal.name


@pytest.mark.parametrize("goal", [ONNXRUNTIME, TORCH], ids=lambda t: t.name)
def test_every_op_is_run_by_a_target_or_has_a_definition(goal: Target) -> None:
    ours = [c for c in CORE if c is not Marker]  # the marker of batches is in no graph
    assert [c.name for c in ours if c.name not in {*goal.ops, *goal.views}] == []


def test_the_definition_of_an_op_that_the_target_lacks_is_used() -> None:
    x = tensor("x", "f32[4 8]")
    dag = SafeDAG.from_values({"y": apply(Softmax(1), x).exp()})
    for nodes in (1, 5_000):  # with whatever budget
        found = optimize(dag, lacking("softmax", "log_softmax"), nodes=nodes)
        assert not {"softmax", "log_softmax"} & {n.op.name for n in found.dag}
        assert found.after <= found.before < np.inf
        assert_same(found)


def test_ops_that_nothing_replaces_are_named() -> None:
    x = tensor("x", "f32[4 8]")
    dag = SafeDAG.from_values({"y": reduce(x.exp(), [0], "max") + reduce(x, [0], "max")})
    with pytest.raises(ExtractionError, match="small has no op reduce, unary, and neither"):
        optimize(dag, lacking("unary", "reduce"), nodes=500)


def test_an_op_that_picks_costs_what_it_picks() -> None:
    def seconds(rows: int) -> float:
        types = TensorType("f32", (rows, 64)), TensorType("i64", (10,))
        return ONNXRUNTIME.seconds(Gather(0), types, Gather(0).type(*types), {})

    assert seconds(100) == seconds(1_000_000)


# -- movement, sizes, foreign ops ------------------------------------------------------------------


def test_transposes_cancel() -> None:
    x = tensor("x", "f32[2 3 4 5]")
    y = permute(permute(x, (0, 2, 3, 1)).tanh() + 2, (0, 3, 1, 2))
    found = optimize(SafeDAG.from_values({"y": y}))
    assert "permute" not in {n.op.name for n in found.dag}
    assert_same(found)


def test_a_transpose_between_reshapes_is_absorbed() -> None:
    """Keys as torch.onnx.export writes them: (batch heads) n d, transposed, batch heads d n."""
    q, k = (tensor(name, "f32[batch 3 5 8]") for name in "qk")
    batch = k.shape[0]
    turned = permute(k.reshape((3 * batch, 5, 8)), (0, 2, 1)).reshape((batch, 3, 8, 5))
    found = optimize(SafeDAG.from_values({"y": q @ turned}))
    assert [n.op.name for n in found.dag] == ["einsum"]
    assert_same(found, {"batch": 2})


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("exchanged", [False, True])
def test_a_layer_scale_goes_into_the_linear_layer(with_bias: bool, exchanged: bool) -> None:
    w, b, gamma = weight("w", 8, 16), weight("b", 16), weight("gamma", 16)
    x = tensor("x", "f32[batch 5 8]")
    y = x @ leaf(w)
    if with_bias:
        y = y + expand(leaf(b), y.shape)
    factors = expand(leaf(gamma), y.shape)
    y = factors * y if exchanged else y * factors
    tensors = [w, gamma, *([b] if with_bias else [])]
    found = optimize(SafeDAG.from_values({"y": y.exp()}, tensors))
    assert [n.op.name for n in found.dag] == ["linear" if with_bias else "matmul", "unary"]
    assert_same(found, {"batch": 2})


def test_factors_along_an_axis_that_the_weight_lacks_stay() -> None:
    w, rows = weight("w", 8, 16), weight("rows", 5, 1)
    y = tensor("x", "f32[batch 5 8]") @ leaf(w)
    found = optimize(SafeDAG.from_values({"y": y * expand(leaf(rows), y.shape)}, [w, rows]))
    assert [n.op.name for n in found.dag] == ["matmul", "broadcast"]
    assert_same(found, {"batch": 2})


def test_a_free_size_stays_free() -> None:
    a, b = weight("A", 64, 4), weight("B", 4, 64)
    x = tensor("x", "f32[batch 64]")
    found = optimize(SafeDAG.from_values({"y": (x @ (leaf(a) @ leaf(b))).tanh()}, [a, b]))
    assert str(found.dag.types[found.dag.outputs["y"]]) == "f32[batch 64]"
    assert found.sizes == {"batch": 16}
    assert macs(found.dag, {"batch": 10}) == 10 * 64 * 64, (
        "for a batch of 16, one small product is cheapest"
    )
    for batch in (1, 5):
        assert_same(found, {"batch": batch})


def test_the_best_form_depends_on_the_sizes() -> None:
    a, b = tensor("a", "f32[n 64]"), tensor("b", "f32[64 n]")
    dag = SafeDAG.from_values({"y": (a @ b) @ tensor("c", "f32[n 64]")})
    few, many = (optimize(dag, sizes={"n": n}) for n in (4, 512))
    assert macs(few.dag, {"n": 4}) == 2 * 4 * 4 * 64
    assert macs(many.dag, {"n": 512}) == 2 * 512 * 64 * 64
    for found in (few, many):
        assert_same(found, {"n": 7})


def test_graphs_with_assumptions_are_optimized() -> None:
    x, y = tensor("x", "f32[n 4]"), tensor("y", "f32[m 4]")
    with assuming():
        dag = SafeDAG.from_values({"y": (x.exp() + y).tanh()})
    assert dag.assumptions
    dag = SafeDAG.parse(str(dag))
    found = optimize(dag)
    assert found.dag.assumptions == dag.assumptions
    assert_same(found, {"n": 3, "m": 3})


def test_sizes_that_are_not_there_are_refused() -> None:
    dag = SafeDAG.from_values({"y": tensor("x", "f32[n 4]").exp()})
    with pytest.raises(ShapeError, match="has no free size m; it has n"):
        optimize(dag, sizes={"m": 3})


def test_opaque_ops_pass_through() -> None:
    x, y = tensor("x", "f32[4 4]"), tensor("y", "f32[4 4]")
    op = Opaque("onnx", "com.example::Foo", (("alpha", 2),), 0, TensorType("f32", (4, 4)))
    value = permute(permute(apply(op, permute(permute(x, (1, 0)), (1, 0)), y), (1, 0)), (1, 0))
    found = optimize(SafeDAG.from_values({"out": value})).dag
    assert [(n.op, n.inputs) for n in found] == [(op, ("x", "y"))]


def test_the_laws_behind_a_result_are_told() -> None:
    value, tensors = last_token()
    found = optimize(SafeDAG.from_values({"y": value}, tensors))
    assert found.steps
    assert any("slice" in law for law in found.laws)
    for step in found.steps:
        assert step.node in found.dag.nodes
        assert str(step) == f"{step.node}: {step.law} (round {step.round})"


def test_a_small_budget_still_gives_an_equal_graph() -> None:
    value, tensors = low_rank(16)
    dag = SafeDAG.from_values({"y": value}, tensors)
    found = optimize(dag, nodes=1, seconds=0.0)
    assert found.after <= found.before
    assert_same(found)


# -- refine ----------------------------------------------------------------------------------------


def test_refine_recovers_the_ops_of_a_transformer_block() -> None:
    core = bert(1, width=32, heads=2, seq=8).expand()
    assert "softmax" not in {n.op.name for n in core}
    names = [n.op.name for n in refine(core)]
    assert names.count("layer_norm") == 2
    assert "reduce" not in names, "sums, means and maxima are part of named ops"
    assert "unary" not in names
    assert "gelu" in names
    assert "softmax" in names or "attention" in names


def test_refine_never_needs_more_ops() -> None:
    x = tensor("x", "f32[3 4]")
    dag = SafeDAG.from_values({"y": (x.softmax(axis=1) + x).exp()})
    assert len(refine(dag.expand())) <= len(dag)


# -- random graphs ---------------------------------------------------------------------------------


def check(sample: Sample, *, target: str, nodes: int) -> None:
    """Optimize a random graph: never dearer, and the same values up to what rounding explains."""
    dag = sample.dag()
    found = optimize(dag, target, nodes=nodes, seconds=2.0)
    assert found.after <= found.before * (1 + 1e-9) < np.inf
    inputs = sample.inputs()
    result = found.dag.evaluate(**inputs)
    moved = [shaken(np.random.default_rng(i), sample.leaves) for i in range(8)]
    for name, value in zip(dag.outputs, sample.outputs, strict=True):
        expected = run_value(value, sample.leaves, sample.sizes)
        # a jump, as of floor, shows in some directions only
        slacks = [undetermined(expected, run_value(value, m, sample.sizes)) for m in moved]
        slack = None if slacks[0] is None else 10 * np.max(slacks, axis=0)
        tolerance = 100 * RTOL.get(value.dtype, 0.0)
        what = difference(result[name], expected, slack, tolerance)
        assert what is None, f"{name}: {what}\n{dag}\n--\n{found.dag}\n{found.laws}"


@given(seeds)
@settings(max_examples=12)
def test_random_graphs_keep_their_values(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sample = random_values(rng, int(rng.integers(1, 7)))
    check(sample, target=("onnxruntime", "torch")[seed % 2], nodes=400)


@pytest.mark.slow
@given(seeds)
@settings(max_examples=300)
def test_many_random_graphs_keep_their_values(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sample = random_values(rng, int(rng.integers(1, 12)))
    check(sample, target=("onnxruntime", "torch")[seed % 2], nodes=3000)


def test_terms_of_zero_are_not_added_for_ever() -> None:
    """As norms have them before they are trained: a slice of a norm, multiplied."""
    tensors = [weight("scale", 16), weight("matrix", 16, 16), weight("bias", 16)]
    zero = Tensor("zero", "parameter", TensorType("f32", (16,)), np.zeros(16, "f4"))
    scale, matrix, bias = map(leaf, tensors)
    y = apply(LayerNorm(1), tensor("x", "f32[2 8 16]"), scale, leaf(zero))
    outputs = {"y": apply(Linear(), y[:, 0], matrix, bias), "all": y}
    found = optimize(SafeDAG.from_values(outputs, [*tensors, zero]), nodes=5_000)
    assert found.report.stopped == "saturated"
    assert_same(found)


def test_what_a_target_costs_is_what_its_ops_cost() -> None:
    value, tensors = chain()
    dag = SafeDAG.from_values({"y": value}, tensors)
    found = optimize(dag)
    assert found.before == pytest.approx(predicted(dag, "onnxruntime", {}))
    assert found.after == pytest.approx(predicted(found.dag, "onnxruntime", {}))


def test_a_contraction_over_two_axes_is_never_dearer() -> None:
    a, b = tensor("a", "f32[2 3 4]"), tensor("b", "f32[4 2 5]")
    found = optimize(SafeDAG.from_values({"y": einsum("bij,jbk->ik", a, b)}))
    assert macs(found.dag) == 2 * 3 * 4 * 5
    assert found.after <= found.before < np.inf
    assert_same(found)
