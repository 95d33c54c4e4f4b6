"""Peak memory and the least traffic: by hand, and against a simulation of live ranges."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safegraph import SafeDAG, tensor
from safegraph.dag import Tensor
from safegraph.derived.index import Gather
from safegraph.dims import assuming, evaluate, parse, undominated
from safegraph.errors import BindingError, ShapeError
from safegraph.extract.cost import Cost, cost
from safegraph.extract.count import is_view
from safegraph.ops import Scalar
from safegraph.value import Value, apply, parse_type, reduce, reshape


def cost_of(*outputs: Value, parameters: tuple[str, ...] = ()) -> Cost:
    values = {f"y{i}": y for i, y in enumerate(outputs)}
    leaves = [Tensor(name, "parameter", parse_type(text)) for name, text in map(_split, parameters)]
    return cost(SafeDAG.from_values(values, leaves))


def _split(text: str) -> tuple[str, str]:
    name, _, type_ = text.partition(": ")
    return name, type_


def test_a_chain_holds_an_operand_and_a_result():
    found = cost_of(tensor("x", "f32[n 8]").exp().tanh().exp())
    assert str(found.peak_memory) == "64*n"


def test_a_value_is_held_to_its_last_use():
    x = tensor("x", "f32[n]")
    assert str(cost_of(x.exp().tanh().exp() + x).peak_memory) == "12*n"


def test_outputs_are_held_to_the_end():
    x = tensor("x", "f32[n]")
    a = x.exp()
    b = a.tanh()
    assert str(cost_of(b.exp().tanh(), a, b).peak_memory) == "16*n"


def test_a_view_keeps_alive_what_it_shows_and_has_no_bytes():
    y = tensor("x", "f32[n 100]").exp()
    found = cost_of(y[:, 0:1].tanh().exp())
    # y and what is computed of its first column, not x: x ends where y begins
    assert str(found.peak_memory) == "800*n"
    assert str(found.bind({"n": 3}).peak_memory) == "2400"


def test_parameters_are_not_activations():
    x, w = tensor("x", "f32[n 8]"), tensor("w", "f32[8 4]")
    found = cost_of(x @ w, parameters=("w: f32[8 4]",))
    assert str(found.peak_memory) == "48*n"
    assert found.parameter_bytes == 128


def test_the_product_inside_a_contraction_is_never_made():
    x, y = tensor("x", "f32[n 64]"), tensor("y", "f32[n 64]")
    found = cost_of(reduce(x * y, [1], "sum"))
    assert str(found.peak_memory) == "516*n"


def test_which_moment_is_the_peak_may_depend_on_the_sizes():
    x = tensor("x", "f32[n 8]")
    y = reduce((x @ x.permute((1, 0))).exp(), [1], "sum")  # n*n
    z = reduce((x @ tensor("w", "f32[8 500]")).exp(), [1], "sum")  # 500*n
    found = cost_of(y + z, parameters=("w: f32[8 500]",))
    assert len(found.peak.moments) == 2
    assert set(found.peak.order) >= {op for op, _ in found.peak.moments}
    assert found.bind({"n": 10}).peak_memory == 10 * 4 + 2 * 4 * 500 * 10
    assert found.bind({"n": 1000}).peak_memory == 32 * 1000 + 2 * 4 * 1000**2


def test_moments_that_never_are_the_peak_are_left_out():
    found = undominated([parse(t) for t in ("n*n", "n", "2*n", "n*n + 1", "m", "3*n - 1")])
    assert list(map(str, found)) == ["n**2 + 1", "m", "3*n - 1"]


def simulated(dag: SafeDAG, sizes: Mapping[str, int]) -> int:
    """The peak, by going through the ops backwards and holding what is still wanted."""
    bound = dag.bind(sizes)
    base: dict[str, str] = {t.name: t.name for t in bound.tensors.values()}
    for node in bound:
        view = is_view(node.op, tuple(bound.types[i] for i in node.inputs))
        base[node.name] = base[node.inputs[0]] if view else node.name
    wanted = {base[o] for o in bound.outputs.values()}
    peak = 0
    for node in reversed(list(bound)):
        during = wanted | {base[node.name]} | {base[i] for i in node.inputs}
        held = [v for v in during if not isinstance(getattr(bound.nodes.get(v), "op", 0), Scalar)]
        peak = max(peak, sum(int(bound.types[v].nbytes) for v in held))
        wanted = during - {node.name}
    return peak


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 99), st.integers(0, 99)), max_size=14))
def test_the_peak_is_that_of_a_simulation(steps: list[tuple[int, int, int]]):
    values = [tensor("x", "f32[n m]"), tensor("y", "f32[n m]")]
    for kind, i, j in steps:
        a, b = values[i % len(values)], values[j % len(values)]
        made = (
            a.exp,
            lambda a=a, b=b: a + b,
            lambda a=a: reduce(a, [1], "max").repeat((1, parse("m"))) * 2,
            lambda a=a: a.permute((1, 0)).permute((1, 0)),
            lambda a=a: reshape(reshape(a, (-1,)).tanh(), a.shape),
        )
        values.append(made[kind]())
    computed = [v for v in values if v.op is not None] or [values[0].exp()]
    dag = SafeDAG.from_values({"out": computed[-1], "also": computed[len(computed) // 2]})
    found = cost(dag)
    for n, m in ((1, 1), (1, 9), (7, 1), (3, 4), (50, 60)):
        sizes = {k: v for k, v in {"n": n, "m": m}.items() if k in dag.sizes}
        assert evaluate(found.totals["peak_memory"], sizes) == simulated(dag, sizes)
        assert found.bind(sizes).totals["peak_memory"] == simulated(dag, sizes)


# -- the least traffic ----------------------------------------------------------------------------


def test_inputs_parameters_and_outputs_are_moved_once():
    x, w = tensor("x", "f32[n 8]"), tensor("w", "f32[8 8]")
    found = cost_of(((x @ w).exp() @ w).tanh(), parameters=("w: f32[8 8]",))
    assert found.totals["bytes_min"] == parse("32*n + 256 + 32*n")


def test_only_what_is_touched_is_moved():
    table, x = tensor("table", "f32[1000 8]"), tensor("x", "f32[n 100]")
    picked = apply(Gather(0), table, tensor("at", "i64[3]"))
    used = x[:, 10:30].exp()
    stored = ("table: f32[1000 8]", "never: f32[5]")
    found = cost_of(picked, used, parameters=stored)
    assert found.totals["bytes_min"] == parse("3*8 + 3*32 + 3*32 + 80*n + 80*n")


def test_a_table_is_touched_at_most_whole():
    table, at = tensor("table", "f32[10 8]"), tensor("at", "i64[n]")
    found = cost_of(apply(Gather(0), table, at), parameters=("table: f32[10 8]",))
    for n in (1, 10, 1000):
        assert found.bind({"n": n}).bytes_min == 8 * n + min(320, 32 * n) + 32 * n


# -- what is stored -------------------------------------------------------------------------------


def test_shared_data_counts_once():
    data = np.ones((4, 4), np.float32)

    def read() -> np.ndarray:
        return data

    kinds: list[tuple[str, Any]] = [
        ("a", data),
        ("b", data),
        ("c", data.copy()),
        ("d", read),
        ("e", read),
        ("f", data.T),
    ]
    leaves = [Tensor(n, "parameter", parse_type("f32[4 4]"), d) for n, d in kinds]
    x = tensor("x", "f32[4 4]")
    dag = SafeDAG.from_values({"y": x.exp()}, leaves)
    assert cost(dag).parameters == 3 * 16


def test_the_time_of_a_roofline():
    x = tensor("x", "f32[n 64]")
    found = cost_of(x + x + x + x)  # bound by bytes, which fusion saves
    apart, fused = (found.seconds("torch", {"n": 512}, fused=f) for f in (False, True))
    assert 0 < fused < apart
    assert apart > found.seconds("torch", {"n": 256})
    with pytest.raises(ShapeError, match="needs a value for n"):
        found.seconds("torch")


def test_arithmetic_intensity():
    x, w = tensor("x", "f32[n 64]"), tensor("w", "f32[64 64]")
    found = cost_of((x @ w).exp(), parameters=("w: f32[64 64]",)).bind({"n": 64})
    flops = 2 * 64**3 + 64**2
    assert found.intensity * (found.memory_reads + found.memory_writes) == flops
    assert found.intensity_fused * (3 * 4 * 64**2) == flops


def test_sizes_that_the_graph_refuses_have_no_cost():
    with assuming():
        x = reshape(tensor("x", "f32[n]"), (2, -1))
        found = cost_of(x.exp())
    assert found.bind({"n": 6}).total_flops == 6
    with pytest.raises(BindingError, match="n"):
        found.bind({"n": 7})
