"""Other tools' counts, against what these tools gave.

The tools were run on the models of `benchmarks.cost_models`; their figures stand here with their
versions.  `python -m benchmarks.costs` runs them again, where they are installed.
"""

import io
from typing import Any

import pytest
import torch

from benchmarks import cost_jax
from benchmarks.cost_models import MODELS, Case
from benchmarks.cost_probes import PROBES
from safegraph import SafeDAG, tensor
from safegraph.errors import SafeGraphError
from safegraph.extract.conventions import CONVENTIONS, taps_inside
from safegraph.extract.cost import cost
from safegraph.value import reduce

# model: (onnx-tool 1.0.1 on torch's ONNX export, fvcore 0.1.5.post20221221)
RECORDED = {
    "resnet50": (4_117_342_184, 4_111_512_576),
    "mobilenetv2": (319_949_192, 314_193_216),
    "bert": (11_324_969_344, 11_186_503_680),
    "Linear on 3-D": (15_232, 14_336),
    "grouped": (43_776, 41_472),
    "Conv1d": (8_000, 7_680),
    "attention spelt": (57_344, 16_384),
    "layer norm": (564, 320),
    "softmax": (2_304, 0),
    "LSTM": (243_200, 0),
    "GRU": (166_400, 0),
    "lstm": (32_442_890, 2_560),
}
SLOW = ("resnet50", "mobilenetv2", "bert")


def case(name: str) -> Case:
    return (MODELS | PROBES)[name]


def traced(name: str) -> SafeDAG:
    model, inputs = case(name).model(), case(name).inputs()
    with torch.no_grad():
        script = torch.jit.trace(model, inputs, check_trace=False)
    return SafeDAG.from_torchscript(script, [str(t) for t in case(name).types])


def exported(name: str) -> SafeDAG:
    onnx = pytest.importorskip("onnx")
    file = io.BytesIO()
    model, inputs = case(name).model(), case(name).inputs()
    torch.onnx.export(model, inputs, file, dynamo=False, opset_version=17)
    return SafeDAG.from_onnx(onnx.load_from_string(file.getvalue()))


def names() -> list[Any]:
    return [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in RECORDED]


@pytest.mark.filterwarnings("ignore:Exporting a model to ONNX with a batch_size:UserWarning")
@pytest.mark.parametrize("name", names())
def test_onnx_tool(name: str):
    assert exported(name).cost(convention="onnx-tool").counted == RECORDED[name][0]


@pytest.mark.parametrize("name", names())
def test_fvcore(name: str):
    found = traced(name).cost(convention="fvcore")
    sizes = {n: value for n, value in case(name).sizes.items() if n in found.names}
    assert found.bind(sizes).counted == RECORDED[name][1]


@pytest.mark.parametrize("name", cost_jax.SHAPES)
def test_xla(name: str):
    assert cost_jax.ours(name) == cost_jax.RECORDED[name]


@pytest.mark.parametrize("size", [1, 2, 5, 8])
@pytest.mark.parametrize(
    "window", [(1, 1, 1, 0, 0), (3, 1, 1, 1, 1), (3, 2, 1, 1, 1), (4, 3, 2, 5, 2)]
)
def test_taps_inside_are_those_that_a_loop_finds(size: int, window: tuple[int, ...]):
    k, step, dilation, before, after = window
    places = (size + before + after - (k - 1) * dilation - 1) // step + 1
    inside = [
        (p, t)
        for p in range(places)
        for t in range(k)
        if 0 <= p * step + t * dilation - before < size
    ]
    assert taps_inside(size, k, step, dilation, before, after) == len(inside)


def test_taps_inside_of_a_free_size():
    from safegraph.dims import evaluate, size

    n = size("n")
    for window in ((3, 1, 1, 1, 1), (3, 2, 1, 1, 1), (7, 2, 1, 3, 3), (2, 3, 2, 1, 0)):
        formula = taps_inside(n, *window)
        for value in range(3, 30):
            assert evaluate(formula, {"n": value}) == taps_inside(value, *window)


def test_torch_counts_no_product_and_sum_that_are_written_apart():
    x, y = tensor("x", "f32[n 8]"), tensor("y", "f32[n 8]")
    dag = SafeDAG.from_values({"y": reduce(x * y, [1], "sum")})
    assert str(cost(dag).contraction_flops) == "16*n"
    assert cost(dag, convention="torch").counted == 0


def test_a_convention_is_a_column_of_the_tables_and_leaves_the_vector_as_it_is():
    dag = SafeDAG.from_values({"y": (tensor("x", "f32[n 8]") @ tensor("w", "f32[8 4]")).exp()})
    plain, other = cost(dag), cost(dag, convention="onnx-tool")
    assert {k: v for k, v in other.totals.items() if not k.startswith("counted")} == plain.totals
    assert str(other.counted) == "160*n"  # 32*n, and 32 for each exp
    assert other.to_dict()["convention"] == "onnx-tool"
    assert "onnx-tool" in str(other)
    assert str(other.bind({"n": 2}).counted) == "320"
    with pytest.raises(SafeGraphError, match="convention"):
        _ = plain.counted


def test_a_convention_that_there_is_not():
    with pytest.raises(SafeGraphError, match="torch, xla, onnx-tool, fvcore"):
        cost(SafeDAG.from_values({"y": tensor("x", "f32[n]").exp()}), convention="thop")


def test_every_convention_says_what_it_leaves_out():
    assert all(len(c.leaves_out) > 20 and c.label for c in CONVENTIONS.values())
