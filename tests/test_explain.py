"""Explanations: every step is an equal graph, made from the one before by the law that it names."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings

from benchmarks.programs import bert
from safegraph import dims
from safegraph.cases import Sample, random_values
from safegraph.dag import SafeDAG, Tensor
from safegraph.derived.conv import Conv
from safegraph.derived.norm import BatchNorm
from safegraph.egraph import Budget, EGraph
from safegraph.explain.congruence import Congruence, laws_between
from safegraph.explain.explanation import Explanation, Rewrite
from safegraph.explain.rewriting import SEVERAL
from safegraph.explain.tell import AHEAD, ONCE, OPENED, explain
from safegraph.extract import optimize as optimizing
from safegraph.extract.optimize import Optimized, explore, optimize
from safegraph.extract.search import ExtractionError
from safegraph.extract.targets import ONNXRUNTIME
from safegraph.law import one, variables
from safegraph.op import TensorType
from safegraph.rules import ALL, LOWERING, REFINING, Phase, chains
from safegraph.soundness import RTOL, difference, run_value, shaken, undetermined
from safegraph.value import Value, along, apply, permute, reduce, tensor
from tests.strategies import seeds

LAWS = {law.name: law for law in ALL}


def weight(name: str, *shape: int, positive: bool = False) -> Tensor:
    data = np.random.default_rng(len(name)).standard_normal(shape) / np.sqrt(shape[-1])
    return Tensor(
        name, "parameter", TensorType("f64", shape), np.abs(data) + 0.5 if positive else data
    )


def leaf(t: Tensor) -> Value:
    return tensor(t.name, t.type)


def low_rank() -> SafeDAG:
    a, b = weight("A", 32, 2), weight("B", 2, 32)
    return SafeDAG.from_values({"y": tensor("x", "f64[8 32]") @ (leaf(a) @ leaf(b))}, [a, b])


def linear_attention() -> SafeDAG:
    q, k, v = (tensor(n, "f64[1 2 64 8]") for n in "qkv")
    return SafeDAG.from_values({"y": (q @ permute(k, (0, 1, 3, 2))) @ v})


def sum_of_products() -> SafeDAG:
    a, b = tensor("a", "f64[n 6]"), tensor("b", "f64[6 5]")
    return SafeDAG.from_values({"y": reduce(a[:, :, None] * b[None], [1], "sum", keep=False)})


def last_token() -> SafeDAG:
    w = weight("W", 16, 12)
    return SafeDAG.from_values({"y": (tensor("h", "f64[1 9 16]") @ leaf(w))[:, -1]}, [w])


def transposes() -> SafeDAG:
    x = tensor("x", "f64[2 3 4 5]")
    y = permute(permute(x, (0, 2, 3, 1)).tanh() + 2, (0, 3, 1, 2))
    return SafeDAG.from_values({"y": y})


def conv_norm() -> SafeDAG:
    w, b = weight("w", 4, 3, 3, 3), weight("bb", 4)
    norm = [weight(n, 4, positive=True) for n in ("scale", "offset", "average", "variance")]
    y = apply(
        Conv((1, 1), (1, 1), (1, 1), (1, 1), 1), tensor("x", "f64[n 3 6 6]"), leaf(w), leaf(b)
    )
    return SafeDAG.from_values({"y": apply(BatchNorm(1e-5), y, *map(leaf, norm))}, [w, b, *norm])


def affine() -> SafeDAG:
    """Table R, 15e: a chain of scalings and shifts."""
    x = tensor("x", "f64[n 8]")
    return SafeDAG.from_values({"y": ((x * 2.0 + 1.0) * 3.0 - 0.5) / 4.0})


def three_products() -> SafeDAG:
    """Query, key and value, and what they are used for; x is used by all."""
    ws = [weight(n * 2, 8, 8) for n in ("q", "k", "v")]
    x = tensor("x", "f64[4 8]")
    q, k, v = (x @ leaf(w) for w in ws)
    return SafeDAG.from_values({"y": (q @ permute(k, (1, 0))).softmax(axis=1) @ v + x}, ws)


def spelled_norm() -> SafeDAG:
    """A layer norm and a residual, in core ops, as exporters write them."""
    scale, offset = weight("scale", 8), weight("offset", 8)
    x = tensor("x", "f64[n 8]")
    dag = SafeDAG.from_values(
        {"y": x.layer_norm(leaf(scale), leaf(offset), axes=1).tanh() + x}, [scale, offset]
    )
    return dag.expand()


def hidden_norm() -> SafeDAG:
    """A norm whose parts see the same tensor in different ways: laws must make them one first."""
    x = tensor("x", "f64[n 8]")
    turned = permute(permute(x, (1, 0)), (1, 0))
    mean = along(x, [1], "mean")
    centred = turned - mean
    spread = along((x - mean) * (turned - mean), [1], "mean")
    return SafeDAG.from_values({"y": centred / (spread + 1e-5).sqrt()})


PROGRAMS: dict[str, Callable[[], SafeDAG]] = {
    f.__name__: f
    for f in (
        low_rank,
        linear_attention,
        sum_of_products,
        last_token,
        transposes,
        conv_norm,
        affine,
        three_products,
        spelled_norm,
        hidden_norm,
    )
}


def explained(dag: SafeDAG, **options: object) -> tuple[Optimized, Explanation]:
    found = optimize(dag, explain=True, **options)
    assert found.explanation is not None
    return found, found.explanation


def outputs(dag: SafeDAG) -> list[Value]:
    values = dag.to_values()
    return [values[v] for v in dag.outputs.values()]


def arrays(dag: SafeDAG) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    sizes = dict.fromkeys(dag.sizes, 3)
    return {
        t.name: rng.standard_normal([int(dims.substitute(d, sizes)) for d in t.type.shape])
        for t in dag.inputs
    }


def assert_told(found: Optimized, told: Explanation) -> None:
    """It begins with the original and ends with the result."""
    first, *_, last = [*told.dags, found.dag][:-1] if told else [found.original, found.original]
    assert first is found.original
    assert list(last.outputs) == list(found.dag.outputs)
    with dims.assuming():
        assert outputs(last) == outputs(found.dag)


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_step_is_an_equal_graph(name: str) -> None:
    found, told = explained(PROGRAMS[name]())
    assert len(told)
    assert_told(found, told)
    inputs = arrays(found.original)
    expected = found.original.evaluate(**inputs)
    for step in told:
        for output, array in step.dag.evaluate(**inputs).items():
            np.testing.assert_allclose(
                array, expected[output], rtol=1e-9, atol=1e-9, err_msg=str(step)
            )


def proved_by(step: Rewrite, before: SafeDAG) -> bool:
    """Does the law of a step, alone, prove its graph equal to the one before?"""
    a, b = outputs(before), outputs(step.dag)
    egraph = EGraph()
    numbers = egraph.add(
        [*a, *b],
        constants=[t.name for t in before.tensors.values() if t.kind != "input"],
        numbers=optimizing._numbers(before),
        ranges=lambda name: optimizing._range(before.tensors[name]),
    )
    pairs = list(zip(numbers[: len(a)], numbers[len(a) :], strict=True))
    assert not all(egraph.same(*pair) for pair in pairs), "the step changes nothing"
    if step.law == chains.ORDER:
        chains.reorder(egraph, [{}])
    else:
        egraph.run([LAWS[step.law]], Budget(5_000), rounds=2)
    return all(egraph.same(*pair) for pair in pairs)


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_law_of_a_step_is_what_makes_it(name: str) -> None:
    _, told = explained(PROGRAMS[name]())
    before = told.original
    for step in told:
        assert not step.laws
        if step.law in LAWS:
            assert step.grade == LAWS[step.law].grade
        if step.law not in (AHEAD, ONCE, OPENED):
            assert proved_by(step, before), f"{step}\n{before}"
        before = step.dag


@pytest.mark.parametrize("name", PROGRAMS)
def test_places_are_the_nodes_that_change(name: str) -> None:
    _, told = explained(PROGRAMS[name]())
    before = told.original
    for step in told:
        assert step.places
        for place in step.places:
            assert all(before.nodes[n.name] == n for n in place.before)
            assert place.result in step.dag.types or step.law == AHEAD
        if step.law == AHEAD:
            break
        new = {n for n in step.dag if before.nodes.get(n.name) != n}
        told_new = {n for place in step.places for n in place.after}
        told_old = {n for place in step.places for n in place.before}
        equal = {p.name: p.result for p in step.places}
        forms = {(n.op, n.inputs): n.name for n in step.dag}
        for node in before:  # what has become the same op on the same values is one value
            inputs = tuple(equal.get(i, i) for i in node.inputs)
            if node.name not in step.dag.nodes and (node.op, inputs) in forms:
                equal.setdefault(node.name, forms[node.op, inputs])
        for node in new - told_new:  # a user of what is another value now
            old = before.nodes[node.name]
            assert replace(old, inputs=tuple(equal.get(i, i) for i in old.inputs)) == node
        assert {before.nodes[n.name] for n in told_new if n.name in before.nodes} <= told_old
        before = step.dag


def test_the_text() -> None:
    x = tensor("x", "f64[2 3]")
    _, told = explained(SafeDAG.from_values({"y": permute(permute(x, (1, 0)), (1, 0)).exp()}))
    assert str(told) == (
        "1. permute undoes permute [exact]\n"
        '     v0: f64[3 2] = permute(x) "a b -> b a"\n'
        '     v1: f64[2 3] = permute(v0) "a b -> b a"\n'
        "  => v1 is x"
    )


def test_the_data_is_json() -> None:
    _, told = explained(low_rank())
    data = json.loads(json.dumps(told.data()))
    assert [step["law"] for step in data] == [step.law for step in told]
    assert data[-1]["flops"] == told[-1].flops < told.flops
    (place, *_) = data[0]["places"]
    assert {n["name"] for n in place["before"]["nodes"]} <= set(told.original.nodes)
    assert place["after"]["lines"]


def test_flops_are_those_of_the_graphs() -> None:
    _, told = explained(three_products())
    for dag, flops in zip(told.dags, [told.flops, *(s.flops for s in told)], strict=True):
        assert flops == dag.cost().total_flops


def test_equal_layers_are_rewritten_together() -> None:
    one_layer, three = (explained(bert(n, width=16, heads=2, seq=4))[1] for n in (1, 3))
    assert [s.law for s in three] == [s.law for s in one_layer]
    assert sum(len(s.places) for s in three) == 3 * sum(len(s.places) for s in one_layer)


def test_a_shared_value_is_rewritten_once() -> None:
    """What a sum and a product use both is recognised once, not once for each."""
    _, told = explained(bert(2, width=16, heads=2, seq=4).expand())
    norms = [p for s in told if s.law.startswith("layer_norm") for p in s.places]
    assert len(norms) == 4


def test_names_of_values_are_kept() -> None:
    dag = three_products()
    _, told = explained(dag)
    values = dag.evaluate(**arrays(dag))
    for step in told:
        assert set(step.dag.outputs) == set(values)
    everything = {n.name: n.name for n in dag}
    expected = SafeDAG(list(dag.tensors.values()), list(dag), everything).evaluate(**arrays(dag))
    for step in told:
        if step.law == AHEAD:
            break  # what follows is the optimized graph itself, with names of its own
        kept = [n.name for n in step.dag if n.name in dag.nodes]
        shown = SafeDAG(list(step.dag.tensors.values()), list(step.dag), kept)
        for name, array in shown.evaluate(**arrays(dag)).items():
            np.testing.assert_allclose(array, expected[name], rtol=1e-9, atol=1e-9)


def test_what_is_computed_ahead_is_the_last_step() -> None:
    found, told = explained(conv_norm())
    assert [s.law for s in told].count(AHEAD) == 1
    assert told[-1].law == AHEAD
    assert told[-1].dag is found.dag
    assert [n.op.name for n in found.dag] == ["conv"]


def test_ops_that_the_target_lacks_are_opened_first() -> None:
    kept = {
        n: factor for n, factor in ONNXRUNTIME.ops.items() if n not in ("softmax", "log_softmax")
    }
    target = replace(ONNXRUNTIME, name="small", ops=kept)
    x = tensor("x", "f64[4 8]")
    dag = SafeDAG.from_values({"y": permute(permute(x, (1, 0)), (1, 0)).softmax(axis=1)})
    found, told = explained(dag, target=target)
    assert told[0].law == OPENED
    assert "softmax" not in {n.op.name for n in told[0].dag}
    assert_told(found, told)


def test_what_is_there_twice_is_told() -> None:
    text = """graph g
      input x: f64[2 3]
      a = exp(x)
      b = exp(x)
      y = add(a, b)
      output y
    """
    found, told = explained(SafeDAG.parse(text))
    assert told[0].law == ONCE
    assert [p.name for p in told[0].places if p.result != p.name] == ["b"]
    assert_told(found, told)


def test_a_graph_that_stays_needs_no_law() -> None:
    _, told = explained(SafeDAG.from_values({"y": tensor("x", "f64[2 3]").exp()}))
    assert not told
    assert str(told) == "the graph is the original"


def test_it_is_made_when_it_is_asked_for() -> None:
    assert optimize(low_rank()).explanation is None


@pytest.mark.parametrize("limit", [0, 1, 2])
def test_past_the_limit_steps_name_several_laws(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = explained(sum_of_products())[1]
    monkeypatch.setattr(optimizing, "explained", partial(explain, limit=limit))
    found, told = explained(sum_of_products())
    assert_told(found, told)
    assert any(s.law == SEVERAL for s in told)
    assert set(told.laws) >= set(full.laws)
    inputs = arrays(found.original)
    for step in told:
        np.testing.assert_allclose(
            step.dag.evaluate(**inputs)["y"], found.original.evaluate(**inputs)["y"], rtol=1e-9
        )


# -- reasons ---------------------------------------------------------------------------------------


def test_classes_are_those_of_the_egraph() -> None:
    dag = spelled_norm()
    egraph = EGraph()
    egraph.add(outputs(dag))
    explore(egraph, (*REFINING, *LOWERING), Budget(3_000, 10.0), [{"n": 16}])
    congruence = Congruence(egraph)
    pairs = {(c, congruence.find(i)) for i, c in enumerate(egraph.classes())}
    assert len({c for c, _ in pairs}) == len({f for _, f in pairs}) == len(pairs) < len(egraph)


def equal_pair() -> tuple[EGraph, int, int]:
    a, b = tensor("a", "f64[4 6]"), tensor("b", "f64[6 5]")
    egraph = EGraph()
    left = reduce(a[:, :, None] * b[None], [1], "sum", keep=False)
    x, y = egraph.add([left.exp().tanh(), (a @ b).exp().tanh()])
    explore(egraph, (*REFINING, *LOWERING), Budget(5_000, 10.0), [{}])
    assert egraph.same(x, y)
    return egraph, x, y


def test_the_laws_between_two_terms_prove_them_equal() -> None:
    egraph, x, y = equal_pair()
    laws = laws_between(egraph, x, y)
    assert laws
    again = EGraph()
    a, b = tensor("a", "f64[4 6]"), tensor("b", "f64[6 5]")
    left = reduce(a[:, :, None] * b[None], [1], "sum", keep=False)
    pair = again.add([left.exp().tanh(), (a @ b).exp().tanh()])
    phases = [
        Phase(p.name, tuple(law for law in p.laws if law.name in laws), p.rounds)
        for p in (*REFINING, *LOWERING)
    ]
    explore(again, phases, Budget(5_000, 10.0), [{}])
    assert again.same(*pair)
    assert len(laws) < len(ALL) / 4


def test_terms_that_are_not_equal_have_no_laws_between() -> None:
    egraph = EGraph()
    x = tensor("x", "f64[2]")
    a, b = egraph.add([x.exp(), x.tanh()])
    assert laws_between(egraph, a, a) == ()
    with pytest.raises(ValueError, match="are not equal"):
        laws_between(egraph, a, b)


def test_what_was_made_equal_without_a_law_has_its_reason() -> None:
    egraph = EGraph()
    x = tensor("x", "f64[2]")
    a, b, c, d = egraph.add([x.exp(), x.tanh(), x.exp().abs(), x.tanh().abs()])
    egraph.union(a, b, "because I say so")
    egraph.run([])
    assert laws_between(egraph, c, d) == ("because I say so",)


def test_a_law_of_ones_own_is_told() -> None:
    (x,) = variables("x")
    own = one("mine", -x, x * x, grade="approx")
    egraph = EGraph()
    v = tensor("v", "f64[2]")
    a, b = egraph.add([(-v).exp(), (v * v).exp()])
    egraph.run(own)
    assert laws_between(egraph, a, b) == ("mine",)


# -- random graphs ---------------------------------------------------------------------------------


def check(sample: Sample, *, target: str, nodes: int) -> None:
    """Every step of an explanation computes the same, up to what rounding explains."""
    dag = sample.dag()
    try:
        found, told = explained(dag, target=target, nodes=nodes, seconds=2.0)
    except ExtractionError:
        return  # the target has neither an op nor a definition
    assert_told(found, told)
    inputs = sample.inputs()
    moved = shaken(np.random.default_rng(0), sample.leaves)
    expected = [run_value(v, sample.leaves, sample.sizes) for v in sample.outputs]
    slack = [
        undetermined(e, run_value(v, moved, sample.sizes))
        for v, e in zip(sample.outputs, expected, strict=True)
    ]
    for step in told:
        result = step.dag.evaluate(**inputs)
        for name, value, wanted, loose in zip(
            dag.outputs, sample.outputs, expected, slack, strict=True
        ):
            tolerance = 100 * RTOL.get(value.dtype, 0.0)
            what = difference(
                result[name], wanted, None if loose is None else 10 * loose, tolerance
            )
            assert what is None, f"{name}: {what}\n{dag}\n--\n{step}\n--\n{step.dag}"


@given(seeds)
@settings(max_examples=8)
def test_random_graphs_are_explained(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sample = random_values(rng, int(rng.integers(1, 7)))
    check(sample, target=("onnxruntime", "torch")[seed % 2], nodes=400)


@pytest.mark.slow
@given(seeds)
@settings(max_examples=60)
def test_many_random_graphs_are_explained(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sample = random_values(rng, int(rng.integers(1, 12)))
    check(sample, target=("onnxruntime", "torch")[seed % 2], nodes=2_000)
