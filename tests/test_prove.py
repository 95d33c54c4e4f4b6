"""Graphs proved equal by laws; what is only near is never proved, and what differs is shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from safegraph import SafeDAG, tensor, verbs
from safegraph.cases import numeric, random_values
from safegraph.cli import main
from safegraph.compare import Verdict, check
from safegraph.dag import Node, Tensor
from safegraph.derived import BatchNorm, Conv, LayerNorm
from safegraph.equivalence import graphs
from safegraph.equivalence.graphs import AHEAD
from safegraph.equivalence.leaves import Shared, share
from safegraph.equivalence.terms import ROUNDING
from safegraph.errors import SafeGraphError
from safegraph.rules import ALL
from safegraph.rules.chains import ORDER
from safegraph.value import Value, apply, full, parse_type, permute, reduce, reshape, select

RNG = np.random.default_rng(0)
x = tensor("x", "f32[n 8]")
y = tensor("y", "f32[n 8]")
w, v = tensor("w", "f32[8 8]"), tensor("v", "f32[8 8]")
W, V = (RNG.standard_normal((8, 8)).astype("f4") for _ in range(2))
weights = {"w": W, "v": V}


def graph(outputs: Value | dict[str, Value], **arrays: np.ndarray) -> SafeDAG:
    """A graph in which the leaves with data are parameters."""
    leaves = [Tensor(n, "parameter", tensor_type(a), a) for n, a in arrays.items()]
    return SafeDAG.from_values(outputs, leaves)


def tensor_type(array: np.ndarray) -> Any:
    shape = " ".join(map(str, array.shape))
    return parse_type(f"{'i64' if array.dtype.kind == 'i' else 'f32'}[{shape}]")


def prove(left: Value, right: Value, **arrays: np.ndarray) -> Verdict:
    return check(graph(left, **arrays), graph(right, **arrays), prove=True)


def softmax_written_out(x: Value) -> Value:
    shifted = (x - reduce(x, [1], "max")).exp()
    return shifted / reduce(shifted, [1], "sum")


# -- what is equal ---------------------------------------------------------------------------------

EQUAL: dict[str, tuple[Value, Value, str]] = {
    "the same": (x.exp() + y, x.exp() + y, ""),
    "two transposes": (permute(permute(x, (1, 0)).exp(), (1, 0)), x.exp(), "exact"),
    "a number in decimals and in bits": (x * 0.1, x * float(np.float32(0.1)), "exact"),
    "two spellings of a softmax": (x.softmax(axis=-1), softmax_written_out(x), "real"),
    "matrix products associate": ((x @ w) @ v, x @ (w @ v), "real"),
    "a sum of products": (reduce(x[:, :, None] * w[None], [1], "sum", keep=False), x @ w, "real"),
    "pieces": (
        softmax_written_out((x @ w).exp() + y).exp() @ v,
        (y + (x @ w).exp()).softmax(axis=-1).exp() @ v,
        "real",
    ),
}


@pytest.mark.parametrize("name", EQUAL)
def test_what_is_equal_is_proved(name: str):
    left, right, grade = EQUAL[name]
    verdict = prove(left, right, **weights)
    assert verdict.verdict == "proved equal", str(verdict)
    assert verdict.proof is not None
    theorem = verdict.proof.outputs["y"]
    assert theorem is not None
    assert theorem.grade == grade
    assert set(theorem.laws) <= {law.name for law in (*ALL, *ROUNDING)} | {ORDER, AHEAD}
    assert bool(theorem.laws) == bool(grade)
    assert str(verdict).startswith("proved equal\ny: ")


def test_the_laws_are_those_that_it_takes():
    proof = prove(x.softmax(axis=-1) + y * 1, y + softmax_written_out(x)).proof
    assert proof is not None
    theorem = proof.outputs["y"]
    assert theorem is not None
    assert theorem.fewest
    assert "definition of softmax (1)" in theorem.laws
    assert len(theorem.laws) <= 4


def test_every_output_has_its_own_answer():
    a = graph(
        {"near": x * 1.0000001, "same": x.exp(), "moved": permute(permute(x, (1, 0)), (1, 0))}
    )
    b = graph({"near": x * 1.0, "same": x.exp(), "moved": x * 1.0})
    verdict = check(a, b, prove=True)
    assert verdict
    assert verdict.verdict == "numerically equal"
    assert verdict.proof is not None
    assert {name: t is not None for name, t in verdict.proof.outputs.items()} == {
        "near": False, "same": True, "moved": True,
    }  # fmt: skip
    assert "near: not proved\nsame: the same ops\n" in str(verdict)


# -- what two graphs share -------------------------------------------------------------------------


def test_inputs_are_matched_by_name_and_else_by_order():
    a = graph(x - y)
    assert check(a, graph(tensor("x", "f32[n 8]") - y), prove=True).proof
    other = graph(tensor("left", "f32[m 8]") - tensor("right", "f32[m 8]"))
    assert check(a, other, prove=True).verdict == "proved equal"
    assert check(a, graph(y - x), prove=True).verdict == "different"


def test_a_size_that_one_graph_fixes_is_fixed_in_both():
    free, fixed = graph(x.exp().exp()), graph(tensor("x", "f32[3 8]").exp().exp())
    for a, b in ((free, fixed), (fixed, free)):
        assert check(a, b, prove=True).verdict == "proved equal"


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        (W.T.copy(), lambda t: permute(t, (1, 0))),
        (W.reshape(2, 4, 8), lambda t: reshape(t, (8, 8))),
        (
            W.reshape(2, 4, 8).transpose(2, 0, 1).copy(),
            lambda t: reshape(permute(t, (1, 2, 0)), (8, 8)),
        ),
    ],
    ids=["transposed", "split", "split and transposed"],
)
def test_weights_are_shared_by_content(stored: np.ndarray, read: Callable[[Value], Value]):
    a = graph(x @ w, w=W)
    other = tensor("kernel", tensor_type(stored))
    for b in (graph(x @ read(other), kernel=stored), graph(x @ w, w=W.copy())):
        for left, right in ((a, b), (b, a)):
            verdict = check(left, right, prove=True)
            assert verdict.verdict == "proved equal", str(verdict)


def test_weights_that_differ_in_a_bit_are_not_shared():
    near = W.copy()
    near[3, 4] = np.nextafter(near[3, 4], np.float32(9))
    verdict = check(graph(x @ w, w=W), graph(x @ w, w=near), prove=True)
    assert verdict.verdict == "numerically equal"


def test_a_tensor_of_one_number_is_the_number():
    def shared(array: np.ndarray) -> Shared:
        a, b = graph(x * 2.0), graph(x * tensor("two", "f32[8]"), two=array)
        found = share(a, b, {"x": "x"}, {"y": "y"})
        assert isinstance(found, Shared)
        return found

    assert not shared(np.full(8, 2, "f4")).constants
    assert len(shared(np.full(8, -0.0, "f4")).constants) == 1, "-0 equals 0, but is not it"
    assert len(shared(np.arange(8, dtype="f4")).constants) == 1


def test_what_depends_on_no_input_is_computed_ahead():
    rows = tensor("rows", "f32[8]")
    b = graph(x + rows, rows=W[2] + V[2])
    a = graph(x + (w + v)[2], **weights)
    proof = check(a, b, prove=True).proof
    assert proof
    assert proof.outputs["y"] is not None
    assert AHEAD in proof.outputs["y"].laws


# -- what is near ----------------------------------------------------------------------------------


def _norm(eps: float) -> Value:
    ones, zeros = full(1.0, (8,), "f32"), full(0.0, (8,), "f32")
    return apply(LayerNorm(1, eps), x, ones, zeros)


_mask = tensor("mask", "bool[n 8]")
NEAR: dict[str, tuple[Value, Value]] = {
    "a factor of nearly one": (x * 1.0000001, x),
    "a small summand": (x + 1e-9, x),
    "a product with nearly zero": (x + y * 1e-9, x),
    "another eps": (_norm(1e-5), _norm(1.001e-5)),
    "a slope of nearly zero": (x.relu(), x.maximum(x * 1e-7)),
    "a softmax without its maximum, and a factor": (
        x.softmax(axis=-1) * 1.0000001,
        softmax_written_out(x),
    ),
    "a large number for infinity": (
        select(_mask, x, full(-1e9, x.shape, "f32")).softmax(axis=-1),
        select(_mask, x, full(-2e9, x.shape, "f32")).softmax(axis=-1),
    ),
    "a bound that no input reached": (x.minimum(1e6), x),
    "a sum that is in reach of rounding": ((x + 1e4) - 1e4 + y * 1e-6, (x + 1e4) - 1e4),
    "products of nearly the same": ((x @ w) @ v, x @ (w @ (v * 1.000001))),
}


@pytest.mark.parametrize("name", NEAR)
def test_what_is_near_is_never_proved(name: str):
    verdict = check(
        graph(NEAR[name][0] + 0 * y, **weights), graph(NEAR[name][1] + 0 * y, **weights),
        prove=True, seconds=4,
    )  # fmt: skip
    assert verdict, f"a test of the proof needs what random inputs do not tell apart: {verdict}"
    assert verdict.verdict == "numerically equal"
    assert verdict.proof is not None
    assert not verdict.proof


def test_a_batch_norm_folded_by_rounding_is_numerically_equal():
    image, kernel = tensor("image", "f32[n 3 6 6]"), tensor("kernel", "f32[4 3 3 3]")
    k = RNG.standard_normal((4, 3, 3, 3)).astype("f4")
    stats = {n: RNG.uniform(0.5, 2, 4).astype("f4") for n in ("scale", "bias", "mean", "var")}

    def conv(*operands: Value) -> Value:
        return apply(Conv((1, 1), (0, 0), (0, 0), (1, 1)), *operands)

    norm = apply(BatchNorm(), conv(image, kernel), *(tensor(n, "f32[4]") for n in stats))
    factor = stats["scale"] / np.sqrt(stats["var"] + np.float32(1e-5))
    folded = conv(image, kernel, tensor("shift", "f32[4]"))
    a = graph(norm, kernel=k, **stats)
    shift = stats["bias"] - stats["mean"] * factor
    b = graph(folded, kernel=k * factor[:, None, None, None], shift=shift)
    assert check(a, b, prove=True, seconds=3).verdict == "numerically equal"
    other = {**stats, "scale": stats["scale"] * np.float32(1.1)}
    assert check(a, graph(norm, kernel=k, **other), prove=True).verdict == "different"
    assert check(a, graph(norm, kernel=k, **stats), prove=True).verdict == "proved equal"


# -- what differs ----------------------------------------------------------------------------------


def test_a_difference_is_shown_so_that_it_can_be_seen_again():
    a, b = graph(x @ w, w=W), graph(x @ w, w=W * np.float32(1.01))
    verdict = check(a, b, prove=True, seed=5)
    assert verdict.verdict == "different"
    assert verdict.proof is None
    assert verdict.inputs is not None
    assert verdict.index is not None
    assert verdict.values is not None
    sides = [dag.evaluate(**verdict.inputs)["y"][verdict.index] for dag in (a, b)]
    assert sides == list(verdict.values)
    assert f"y{list(verdict.index)} is {verdict.values[0]} and {verdict.values[1]}" in str(verdict)
    again = check(a, b, seed=verdict.seed, trials=1, sizes=verdict.sizes)
    assert (again.index, again.values, again.where) == (verdict.index, verdict.values, "y")


def test_a_difference_in_nan_is_shown_where_it_is():
    a, b = graph(x.log()), graph(x.abs().log())
    verdict = check(a, b, prove=True)
    assert not verdict
    assert verdict.values is not None
    assert np.isnan(verdict.values[0])
    assert not np.isnan(verdict.values[1])


def test_other_shapes_are_different():
    verdict = check(graph(x), graph(tensor("x", "f32[n 9]")), prove=True)
    assert verdict.verdict == "different"
    assert "input x is f32[n 8], input x of the other is f32[n 9]" in verdict.reason
    verdict = check(graph(x), graph(reduce(x, [1], "sum")), prove=True)
    assert verdict.verdict == "different"
    assert "f32[n 1]" in verdict.reason


def test_graphs_that_agree_only_where_sizes_are_equal_differ():
    square = tensor("x", "f32[m k]")
    flat = parse_type("f32[m*k]").shape
    a, b = graph(reshape(square, flat)), graph(reshape(permute(square, (1, 0)), flat))
    assert check(a, b, prove=True).verdict == "different"


def test_a_budget_is_kept():
    verdict = check(graph((x @ w) @ v), graph(x @ (w @ v)), prove=True, seconds=1e-6)
    assert verdict.verdict == "numerically equal"
    assert check(graph(x.exp()), graph(x.exp()), prove=True, seconds=1e-6).proof


# -- models ----------------------------------------------------------------------------------------


def exports(model: Any, example: Any, path: Path, dynamo: bool = False) -> tuple[SafeDAG, SafeDAG]:
    """One model, through ONNX and through TorchScript."""
    import torch

    torch.onnx.export(model, (example,), str(path), dynamo=dynamo)
    traced = torch.jit.trace(model, example)
    return SafeDAG.from_onnx(path), SafeDAG.from_torchscript(traced)


def test_two_exports_of_a_model_are_proved_equal(tmp_path: Path):
    import torch
    from torch import nn

    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.LayerNorm(8), nn.Linear(8, 3)).eval()
    a, b = exports(model, torch.rand(2, 6), tmp_path / "model.onnx")
    verdict = check(a, b, prove=True)
    assert verdict.verdict == "proved equal", str(verdict)
    with torch.no_grad():
        model[3].weight[0, 0] += 1e-5
    _, changed = exports(model, torch.rand(2, 6), tmp_path / "changed.onnx")
    assert check(a, changed, prove=True, seconds=2).verdict == "numerically equal"


@pytest.mark.slow
def test_two_exports_of_a_decoder_are_proved_equal(tmp_path: Path):
    import torch

    from tests.torch_models import MODELS

    make, example = MODELS["decoder"]
    torch.manual_seed(0)
    a, b = exports(make().eval(), example(), tmp_path / "model.onnx", dynamo=True)
    verdict = check(a, b, prove=True, seconds=60)
    assert verdict.verdict == "proved equal", str(verdict)
    assert verdict.proof is not None
    assert verdict.proof.grade == "real"
    assert verdict.proof.pieces > 20


def test_what_optimize_finds_is_proved():
    dag = graph(x @ (w @ v), **weights)
    found = dag.optimize("onnxruntime", {"n": 4}).dag
    assert len(found) != len(dag) or str(found) != str(dag)
    chain = graph((x @ w[:, :2]) @ v[:2], **weights)
    assert check(chain, graph(x @ (w[:, :2] @ v[:2]), **weights), prove=True).proof


# -- the command line ------------------------------------------------------------------------------


def test_the_command_line_proves(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    paths = {name: tmp_path / f"{name}.safegraph" for name in ("a", "b", "c")}
    terms = {"a": (x @ w) @ v, "b": x @ (w @ v), "c": x @ v @ w}
    for name, path in paths.items():
        verbs.save(graph(terms[name], **weights), path)

    def call(*names: str, options: tuple[str, ...] = ()) -> tuple[Any, str]:
        with pytest.raises(SystemExit) as end:
            main(["check", *(str(paths[n]) for n in names), "--prove", *options])
        return end.value.code, capsys.readouterr().out

    code, out = call("a", "b")
    assert code == 0
    assert out.startswith("proved equal\ny: equal over the reals")
    code, out = call("a", "b", options=("--json",))
    found = json.loads(out)
    assert (code, found["verdict"], found["proof"]["y"]["grade"]) == (0, "proved equal", "real")
    assert ORDER in found["proof"]["y"]["laws"]
    code, out = call("a", "c")
    assert code == 1
    assert " --seed " in out
    code, out = call("a", "c", options=("--json",))
    found = json.loads(out)
    assert (code, found["verdict"]) == (1, "different")
    assert found["example"]["values"][0] != found["example"]["values"][1]


# -- random graphs ---------------------------------------------------------------------------------


def mutant(dag: SafeDAG, rng: np.random.Generator, sizes: dict[str, int]) -> SafeDAG | None:
    """The graph with one op drawn again, or its operands turned round; None if that is alike."""
    nodes = list(dag)
    place = int(rng.integers(len(nodes)))
    node = nodes[place]
    shapes = [numeric(dag.types[i].shape, sizes) for i in node.inputs]
    try:
        op = type(node.op).draw(rng, *shapes) if rng.random() < 0.7 else node.op
        inputs = node.inputs if op is not node.op else node.inputs[::-1]
        nodes[place] = Node(node.name, op or node.op, inputs)
        found = SafeDAG(list(dag.tensors.values()), nodes, dag.outputs)
    except (SafeGraphError, ValueError, TypeError, IndexError, NotImplementedError):
        return None
    alike = all(found.types[v] == dag.types[v] for v in dag.outputs.values())
    return found if alike and str(found) != str(dag) else None


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_random_graphs_that_differ_are_never_proved(first: int):
    """The proof alone, without the numbers that would have told before."""
    proved = differ = 0
    for seed in range(first, first + 20):
        rng = np.random.default_rng(seed)
        sample = random_values(rng, int(rng.integers(2, 6)))
        a = sample.dag()
        b = mutant(a, rng, dict(sample.sizes))
        if b is None:
            continue
        names = {o: o for o in a.outputs}
        inputs = {t.name: t.name for t in a.inputs}
        given = sample.inputs()
        found = graphs.prove(a, b, inputs, names, given, sample.sizes, seconds=1, nodes=2000)
        with np.errstate(all="ignore"):
            left, right = a.evaluate(**given), b.evaluate(**given)
        for name, theorem in found.outputs.items():
            x, y = left[name].astype(complex), right[name].astype(complex)
            equal = np.allclose(x, y, rtol=1e-6, atol=1e-8, equal_nan=True)
            assert equal or theorem is None, f"seed {seed}, output {name}: {theorem}\n{a}\n{b}"
            proved += theorem is not None
            differ += not equal
    assert proved
    assert differ
