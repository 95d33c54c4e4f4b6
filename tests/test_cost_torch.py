"""Costs of PyTorch models against what PyTorch itself counts, and against published figures."""

from types import ModuleType

import pytest
import torch
from torch import nn

from benchmarks.cost_models import MODELS, Case, Transformer, generator
from benchmarks.cost_probes import PROBES
from safegraph import SafeDAG
from tests.cost_oracles import peak_memory, symbolic_flops, traffic


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=2, dilation=2, groups=16), nn.BatchNorm2d(16), nn.ReLU(),
        nn.MaxPool2d(2), nn.ConvTranspose2d(16, 8, 4, stride=2, padding=1), nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(8 * 16, 10),
    )  # fmt: skip


def linear() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4), nn.Softmax(-1))


# name: (the model and its free sizes, names of the free axes of its inputs)
SMALL: dict[str, tuple[Case, list[dict[int, str]]]] = {
    "convolutions": (
        Case(convolutions, ("f32[batch 3 h w]",), 0, {"batch": 2, "h": 32, "w": 48}),
        [{0: "batch", 2: "h", 3: "w"}],
    ),
    "linear": (
        Case(linear, ("f32[batch seq 8]",), 0, {"batch": 3, "seq": 5}),
        [{0: "batch", 1: "seq"}],
    ),
    "encoder": (
        Case(lambda: Transformer(2, 128, 50), ("i64[batch seq]",), 0, {"batch": 2, "seq": 12}),
        [{0: "batch", 1: "seq"}],
    ),
    "decoder": (
        Case(
            lambda: Transformer(2, 128, 50, causal=True),
            ("i64[batch seq]",), 0, {"batch": 2, "seq": 12},
        ),
        [{0: "batch", 1: "seq"}],
    ),
    "generator": (
        Case(lambda: generator(8), ("f32[batch 100 h w]",), 0, {"batch": 3, "h": 4, "w": 5}),
        [{0: "batch", 2: "h", 3: "w"}],
    ),
    "attention": (PROBES["attention spelt"], []),
    "grouped": (PROBES["transposed grouped"], []),
}  # fmt: skip

BINDINGS = ({"batch": 1}, {"batch": 3}, {"seq": 7, "h": 40}, {"seq": 100, "w": 70}, {"batch": 2})


def loaded(case: Case, *types: str) -> SafeDAG:
    """The graph with the case's free sizes."""
    with torch.no_grad():
        script = torch.jit.trace(case.model(), case.inputs(), check_trace=False)
    return SafeDAG.from_torchscript(script, list(types or case.types))


@pytest.mark.parametrize("name", [n for n, (_, axes) in SMALL.items() if axes])
def test_contractions_are_the_formula_that_torch_counts_on_the_decomposed_graph(name: str):
    case, axes = SMALL[name]
    theirs = symbolic_flops(case.model(), case.inputs(), axes)
    found = loaded(case).cost(convention="torch")
    assert found.totals["contraction_flops"] is theirs  # one object for each formula
    assert found.totals["counted"] is theirs


@pytest.mark.parametrize("name", SMALL)
def test_bytes_are_those_of_the_ops_that_torch_runs(name: str):
    case, _ = SMALL[name]
    found = loaded(case).cost()
    for sizes in BINDINGS[:2]:
        given = {k: v for k, v in (case.sizes | sizes).items() if k in found.names}
        bound = found.bind(given)
        expected = traffic(case.model(), *case.inputs(**sizes))
        assert (bound.memory_reads, bound.memory_writes) == expected


@pytest.mark.parametrize("name", ["convolutions", "encoder", "decoder"])
def test_peak_memory_is_that_of_live_ranges(name: str):
    case, _ = SMALL[name]
    found = loaded(case).cost()
    for sizes in BINDINGS[1:4]:
        given = {k: v for k, v in (case.sizes | sizes).items() if k in found.names}
        assert found.bind(given).peak_memory == peak_memory(case.model(), *case.inputs(**sizes))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50", "mobilenetv2", "unet", "dcgan", "vit_b16"])
def test_contractions_bytes_and_peak_of_networks(name: str):
    case = MODELS[name]
    model, inputs = case.model(), case.inputs(batch=2)
    found = loaded(case).cost()
    assert found.bind({"batch": 1}).macs == case.macs
    assert found.totals["contraction_flops"] is symbolic_flops(model, inputs, [{0: "batch"}])
    if name != "vit_b16":  # whose fused attention is one op to us
        bound = found.bind({"batch": 2})
        assert (bound.memory_reads, bound.memory_writes) == traffic(model, *inputs)
        assert bound.peak_memory == peak_memory(model, *inputs)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_transformers_are_quadratic_in_the_sequence(name: str):
    found = loaded(MODELS[name]).cost()
    assert found.bind(MODELS[name].sizes).macs == MODELS[name].macs
    assert "18432*batch*seq**2" in str(found.macs)  # 12 layers, 2 products of 768


@pytest.mark.parametrize(
    "name", ["einsum", "W @ unfold", "grouped", "transposed grouped", "Conv3d"]
)
def test_single_ops(name: str):
    assert loaded(PROBES[name]).cost().macs == PROBES[name].macs


@pytest.mark.slow
def test_resnet50_at_any_batch_size(torchvision_models: ModuleType):
    found = loaded(MODELS["resnet50"]).cost()
    # https://pytorch.org/vision/stable/models/generated/torchvision.models.resnet50.html
    assert found.parameters == 25_557_032
    assert str(found.macs) == "4089184256*batch"
    # of He et al. at any size: one formula in three sizes
    free = loaded(MODELS["resnet50"], "f32[batch 3 h w]").cost()
    assert free.bind({"h": 224, "w": 224}).totals["macs"] is found.totals["macs"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "macs", "parameters"),
    [("mobilenetv2", 300_774_272, 3_504_872), ("vit_b16", 17_563_828_224, 86_567_656)],
)
def test_published_figures(name: str, macs: int, parameters: int):
    found = loaded(MODELS[name]).cost().bind({"batch": 1})
    assert (found.macs, found.parameters) == (macs, parameters)
