"""Costs are exact formulas: against hand formulas, and the same however a model is written."""

import importlib
import json
import pkgutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from safegraph import SafeDAG, SafeGraphError, derived, tensor
from safegraph.cli import cli
from safegraph.dag import Node, Tensor
from safegraph.derived.conv import Conv
from safegraph.derived.einsum import Einsum
from safegraph.derived.index import Gather
from safegraph.derived.pointwise import Broadcast
from safegraph.dims import parse
from safegraph.errors import UnsupportedError
from safegraph.extract.cost import LABELS, cost
from safegraph.op import OPS, Op, TensorType
from safegraph.ops import Opaque
from safegraph.value import Value, apply, broadcast, expand, parse_type, reduce, reshape, scalar


def dag_of(*outputs: Value) -> SafeDAG:
    return SafeDAG.from_values({f"y{i}": y for i, y in enumerate(outputs)})


def batched_attention() -> Value:
    q, k, v = (tensor(n, "f32[batch heads seq 64]") for n in "qkv")
    scores = q @ k.permute((0, 1, 3, 2)) * 0.125
    return scores.softmax(axis=-1) @ v


def test_a_matrix_product():
    found = cost(dag_of(tensor("x", "f32[batch 8]") @ tensor("w", "f32[8 4]")))
    assert str(found.macs) == "32*batch"
    assert str(found.total_flops) == "64*batch"
    assert str(found.memory_reads) == "32*batch + 128"
    assert str(found.memory_writes) == "16*batch"


def test_attention_is_quadratic_in_the_sequence():
    found = cost(dag_of(batched_attention()))
    assert str(found.macs) == "128*batch*heads*seq**2"
    assert str(found.transcendental_flops) == "batch*heads*seq**2"  # one exp for each score
    # each row of seq scores: one maximum and one sum
    assert found.totals["reduce_flops"] == parse("2*batch*heads*seq*(seq - 1)")


def test_pointwise_ops_count_one_for_each_element_and_are_read_and_written_once():
    x, y = tensor("x", "f32[n 3]"), tensor("y", "f32[n 3]")
    found = cost(dag_of((x + y).exp()))
    assert str(found.elementwise_flops) == "3*n"
    assert str(found.transcendental_flops) == "3*n"
    assert str(found.memory_reads) == "36*n"  # x, y, and the sum
    assert str(found.memory_writes) == "24*n"


def test_a_repeated_operand_is_read_at_the_size_that_it_had():
    x, bias = tensor("x", "f32[n 3 4]"), tensor("b", "f32[3 1]")
    found = cost(dag_of(x + bias))
    assert str(found.memory_reads) == "48*n + 12"


def test_numbers_are_not_memory():
    found = cost(dag_of(tensor("x", "f32[n]") * 2.0))
    assert str(found.memory_reads) == str(found.memory_writes) == "4*n"


def test_views_cost_nothing():
    x = tensor("x", "f32[batch 4 6]")
    y = reshape(x.permute((0, 2, 1)), (parse("batch"), 24))[:, 2:10:2]
    found = cost(dag_of(y))
    assert found.total_flops == found.memory_reads == found.memory_writes == 0
    assert str(found.bytes_min) == "16*batch"  # the result
    assert str(found.peak_memory) == "96*batch"  # which keeps x alive


def test_a_gather_reads_what_it_picks_and_not_the_table():
    table, ids = tensor("table", "f32[30000 8]"), tensor("ids", "i64[n]")
    found = cost(dag_of(apply(Gather(0), table, ids)))
    assert str(found.memory_reads) == "40*n"
    assert str(found.memory_writes) == "32*n"
    assert found.total_flops == 0


def test_a_product_that_only_a_sum_reads_is_a_contraction():
    a, b = broadcast(tensor("a", "f32[m k 1]"), tensor("b", "f32[1 k n]"))
    product = a * b
    found = cost(dag_of(reduce(product, [1], "sum", keep=False)))
    assert str(found.macs) == "k*m*n"
    assert found.reduce_flops == found.elementwise_flops == 0
    assert found.totals["memory_reads"] == parse("4*m*k + 4*k*n")
    assert found.totals["memory_writes"] == parse("4*m*n")


def test_broadcasting_products_are_recognised_too():
    a, b = tensor("a", "f32[m k 1]"), tensor("b", "f32[k n]")
    product = apply(Broadcast("multiply"), a, b)
    dag = dag_of(reduce(product, [1], "sum", keep=False))
    assert str(cost(dag).macs) == str(cost(dag.expand()).macs) == "k*m*n"


@pytest.mark.parametrize("case", ["read twice", "an output", "a maximum", "repeated between"])
def test_other_products_are_elementwise(case: str):
    x, y = tensor("x", "f32[n 5]"), tensor("y", "f32[n 5]")
    product = x * y
    outputs = {
        "read twice": [reduce(product, [1], "sum"), product.exp()],
        "an output": [reduce(product, [1], "sum"), product],
        "a maximum": [reduce(product, [1], "max")],
        "repeated between": [reduce(expand(product, (3, parse("n"), 5)), [0], "sum")],
    }
    found = cost(dag_of(*outputs[case]))
    assert found.macs == 0
    assert str(found.elementwise_flops) == "5*n"
    assert found.reduce_flops != 0


@pytest.mark.parametrize("name", ["einsum", "matmul", "linear", "conv"])
def test_core_form_and_derived_form_have_the_same_multiply_adds(name: str):
    cases = {
        "einsum": lambda: apply(
            Einsum.of("bik,bkj->jbi"), tensor("x", "f32[b i k]"), tensor("y", "f32[b k j]")
        ),
        "matmul": lambda: tensor("x", "f32[b 3 n 8]") @ tensor("y", "f32[3 8 5]"),
        "linear": lambda: tensor("x", "f32[b n 8]").linear(tensor("w", "f32[5 8]")),
        "conv": lambda: apply(
            Conv(strides=(2, 1), before=(1, 0), after=(1, 2), dilations=(1, 2), groups=2),
            tensor("x", "f32[b 4 9 9]"),
            tensor("w", "f32[6 2 3 3]"),
        ),
    }
    dag = dag_of(cases[name]())
    assert str(cost(dag).macs) == str(cost(dag.expand()).macs) != "0"


def derived_examples() -> list[tuple[Op, str]]:
    for module in pkgutil.iter_modules(derived.__path__):
        importlib.import_module(f"safegraph.derived.{module.name}")
    classes = [c for c in OPS.values() if issubclass(c, derived.base.Derived)]
    return [example for c in classes for example in c.examples]


def test_no_definition_has_other_multiply_adds_than_its_op():
    examples = derived_examples()
    derived_ops = {c.name for c in OPS.values() if issubclass(c, derived.base.Derived)}
    assert {op.name for op, _ in examples} == derived_ops  # an op without examples is not tested
    for op, types in examples:
        operands = [tensor(f"x{i}", text) for i, text in enumerate(types.split(", "))]
        dag = dag_of(apply(op, *operands))
        assert cost(dag).totals["macs"] == cost(dag.expand()).totals["macs"], op


def test_a_convolution_counts_every_tap():
    x, w = tensor("x", "f32[batch 64 h h]"), tensor("w", "f32[128 64 3 3]")
    conv = Conv(strides=(1, 1), before=(1, 1), after=(1, 1), dilations=(1, 1), groups=1)
    found = cost(dag_of(apply(conv, x, w)))
    assert found.totals["macs"] == parse("batch*h*h*128*64*9")
    assert found.totals["memory_reads"] == parse("4*batch*64*h*h + 4*128*64*9")


def test_tensors_are_counted_by_kind_and_never_read():
    def no_data() -> np.ndarray:
        raise AssertionError("a cost was asked for, no data")

    leaves = [
        Tensor("w", "parameter", parse_type("f32[8 4]"), no_data),
        Tensor("m", "buffer", parse_type("f16[8]"), no_data),
        Tensor("c", "const", parse_type("i64[3]"), no_data),
    ]
    x = tensor("x", "f32[n 8]")
    dag = SafeDAG.from_values({"y": x @ tensor("w", "f32[8 4]")}, leaves)
    found = cost(dag)
    assert (found.parameters, found.parameter_bytes, found.buffers) == (32, 128, 8)
    assert (found.totals["buffer_bytes"], found.totals["const_bytes"]) == (16, 24)


def test_binding_gives_the_numbers_of_the_bound_graph():
    dag = dag_of(batched_attention())
    sizes = {"batch": 3, "heads": 4, "seq": 10}
    assert cost(dag).bind(sizes).totals == cost(dag.bind(sizes)).totals
    some = cost(dag).bind({"batch": 2})
    assert str(some.macs) == "256*heads*seq**2"


def test_binding_an_unknown_size_names_those_that_there_are():
    with pytest.raises(SafeGraphError, match=r"no free size b; it has batch"):
        cost(dag_of(tensor("x", "f32[batch]").exp())).bind({"b": 1})


def test_formulas_are_exact_beyond_floating_point():
    x, w = tensor("x", "f32[n 3]"), tensor("w", f"f32[3 {2**31}]")
    found = cost(dag_of(x @ w)).bind({"n": 2**31 + 1})
    assert found.macs == (2**31 + 1) * 3 * 2**31


def test_json_has_formulas_as_strings_even_where_they_are_numbers():
    found = json.loads(cost(dag_of(tensor("x", "f32[n 8]") @ tensor("w", "f32[8 4]"))).to_json())
    assert found["macs"] == "32*n"
    assert found["parameters"] == "0"
    parts = ("contraction_flops", "elementwise_flops", "transcendental_flops", "reduce_flops")
    assert all(isinstance(found[key], str) for key in (*parts, "memory_reads", "memory_writes"))


@pytest.mark.parametrize("what", ["op", "kind", "scope"])
def test_tables_add_up_to_the_totals(what: str):
    found = cost(dag_of(batched_attention()))
    rows = found.by(what)
    assert sum(row.count for row in rows) == len(found.ops)
    for attribute, key in (("macs", "macs"), ("flops", "total_flops")):
        total = sum((getattr(row.work, attribute) for row in rows), start=0)
        assert total == found.totals[key]
    assert sum((row.reads for row in rows), start=0) == found.totals["memory_reads"]


def test_scopes_are_those_of_the_source():
    x = tensor("x", "f32[n 4]")
    plain = SafeDAG.from_values({"y": x.exp().tanh()})
    nodes = [
        Node(n.name, n.op, n.inputs, where)
        for n, where in zip(plain, ("encoder", "head"), strict=True)
    ]
    dag = SafeDAG(plain.inputs, nodes, plain.outputs)
    assert [row.name for row in cost(dag).by("scope")] == ["encoder", "head"]


def unknown_ops() -> SafeDAG:
    x = parse_type("f32[n 4]")
    ops = [Opaque("onnx", f"com.example::{kind}", (), 0, x) for kind in ("Foo", "Bar", "Foo")]
    nodes = [Node("a", ops[0], ("x",)), Node("b", ops[1], ("a",)), Node("c", ops[2], ("b",))]
    nodes.append(Node("d", tensor("_", x).exp().op, ("c",)))
    return SafeDAG([Tensor("x", "input", x)], nodes, ["d"])


def test_unknown_ops_are_refused_by_name_all_at_once():
    with pytest.raises(UnsupportedError) as caught:
        cost(unknown_ops())
    message = str(caught.value)
    assert all(part in message for part in ("Foo", "Bar", "node a", "node b", "node c"))


def test_unknown_ops_can_be_left_out_and_are_listed():
    found = cost(unknown_ops(), allow_unknown=True)
    assert found.unknown == {"com.example::Foo": 2, "com.example::Bar": 1}
    assert str(found.total_flops) == "4*n"
    assert "not counted: 2 x com.example::Foo" in str(found)


def test_ten_thousand_ops_and_as_many_sizes():
    x = tensor("x", "f32[n 4]")
    y = x
    for i in range(5_000):
        y = y.tanh() + scalar(i % 7, "f32").unsqueeze((0, 1)).repeat((parse("n"), 4))
    found = cost(SafeDAG.from_values({"y": y}))
    assert str(found.transcendental_flops) == "20000*n"
    wide = [tensor(f"x{i}", TensorType("f32", (parse(f"n + {i}"),))).exp() for i in range(1_000)]
    assert str(cost(dag_of(*wide)).transcendental_flops) == "1000*n + 499500"


def test_notebooks_show_tables_with_escaped_names():
    x = tensor("x", "f32[n 4]")
    dag = SafeDAG.from_values({"y": x.exp()}, name="<b>")
    page = cost(dag)._repr_html_()
    assert page.count("<table>") == page.count("</table>") == 2
    assert "&lt;b&gt;" in page
    assert "<td>4*n</td>" in page


def test_results_of_one_run_of_an_op_are_counted_once():
    from safegraph.derived.recurrent import Lstm

    types = ("f32[5 2 3]", "f32[16 3]", "f32[16 4]", "f32[2 4]", "f32[2 4]")
    xs = [tensor(f"x{i}", t) for i, t in enumerate(types)]
    output, cell = apply(Lstm(), *xs), apply(Lstm(result="cell"), *xs)
    both = cost(dag_of(output, cell))
    assert both.macs == cost(dag_of(output)).macs == 5 * 2 * 16 * (3 + 4)
    assert both.memory_writes == 4 * (5 * 2 * 4 + 2 * 4)


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., str]:
    dag_of(tensor("x", "f32[n 8]") @ tensor("w", "f32[8 4]")).save(tmp_path / "m.safegraph")

    def run(*options: str) -> str:
        done = CliRunner().invoke(cli, ["cost", str(tmp_path / "m.safegraph"), *options])
        assert done.exception is None or isinstance(done.exception, SafeGraphError)
        return str(done.exception or done.output)

    return run


def test_the_command_line_has_the_whole_vector(command: Callable[..., str]):
    text = command()
    assert all(label in text for key, label in LABELS.items() if "counted" not in key)
    assert "48*n + 128" in text  # peak and least traffic
    assert json.loads(command("--json"))["peak_memory"] == "48*n + 128"
    assert json.loads(command("--json", "--bind", "n=2"))["bytes_min"] == "224"


def test_the_command_line_counts_as_others_do(command: Callable[..., str]):
    text = command("--convention", "torch", "--by", "kind")
    assert "FlopCounterMode" in text
    assert "leaves out" in text
    assert "as torch" in text
    found = json.loads(command("--convention", "fvcore", "--by", "op", "--json"))
    assert (found["convention"], found["counted"]) == ("fvcore", "32*n")
    assert [row["counted"] for row in found["by_op"]] == ["32*n"]
    assert "torch, xla, onnx-tool, fvcore" in command("--convention", "thop")
