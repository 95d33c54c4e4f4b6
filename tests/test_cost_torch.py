"""Costs of PyTorch models against what PyTorch itself counts, and against published figures."""

from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from safegraph import SafeDAG


class Attention(nn.Module):
    """Softmax attention written out, with a projection on both sides."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(32, 96), nn.Linear(32, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, 4, 8).permute(2, 0, 3, 1, 4).unbind(0)
        weights = torch.softmax(q @ k.transpose(-1, -2) * 8**-0.5, -1)
        return self.out((weights @ v).transpose(1, 2).reshape(b, n, 32))


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=2, dilation=2, groups=16), nn.BatchNorm2d(16), nn.ReLU(),
        nn.AvgPool2d(2), nn.ConvTranspose2d(16, 8, 4, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(8 * 16 * 16, 10),
    )  # fmt: skip


MODELS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "convolutions": (convolutions, (2, 3, 32, 32)),
    "attention": (Attention, (2, 10, 32)),
    "matrices": (lambda: nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4)), (3, 5, 8)),
}


def traced(model: nn.Module, x: torch.Tensor, *types: str) -> SafeDAG:
    # checking the trace runs the model in another mode, which picks other ops
    script = torch.jit.trace(model, x, check_trace=False)
    return SafeDAG.from_torchscript(script, list(types) or None)


class Traffic(TorchDispatchMode):
    """Bytes of the operands and results of every op that PyTorch runs and that is no view."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = self.writes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given, made = (
            [t for t in tree_leaves(x) if isinstance(t, torch.Tensor)] for x in (args, out)
        )
        memory = {t.untyped_storage().data_ptr() for t in given}
        made = [t for t in made if t.numel()]
        if any(t.untyped_storage().data_ptr() not in memory for t in made):
            self.reads += sum(t.nbytes for t in given)
            self.writes += sum(t.nbytes for t in made)
        return out


@pytest.mark.parametrize("name", MODELS)
def test_contractions_are_what_the_flop_counter_of_torch_counts(name: str):
    make, shape = MODELS[name]
    torch.manual_seed(0)
    model, x = make().eval(), torch.rand(shape)
    with FlopCounterMode(display=False) as counter:
        model(x)
    assert traced(model, x).cost().contraction_flops == counter.get_total_flops()


@pytest.mark.parametrize("name", ["convolutions", "matrices"])  # attention: matmul copies
def test_bytes_are_those_of_the_ops_that_torch_runs(name: str):
    make, shape = MODELS[name]
    torch.manual_seed(0)
    model, x = make().eval(), torch.rand(shape)
    with torch.no_grad(), Traffic() as traffic:
        model(x)
    found = traced(model, x).cost()
    assert (found.memory_reads, found.memory_writes) == (traffic.reads, traffic.writes)


@pytest.mark.slow
def test_resnet50_at_any_batch_size(torchvision_models: ModuleType):
    model = torchvision_models.resnet50().eval()
    found = traced(model, torch.rand(1, 3, 224, 224), "f32[batch 3 224 224]").cost()
    # https://pytorch.org/vision/stable/models/generated/torchvision.models.resnet50.html
    assert found.parameters == 25_557_032
    assert str(found.macs) == "4089184256*batch"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "macs", "parameters"),
    [("mobilenet_v2", 300_774_272, 3_504_872), ("vit_b_16", 17_563_828_224, 86_567_656)],
)
def test_published_figures(name: str, macs: int, parameters: int, torchvision_models: ModuleType):
    model = getattr(torchvision_models, name)().eval()
    found = traced(model, torch.rand(1, 3, 224, 224)).cost()
    assert (found.macs, found.parameters) == (macs, parameters)
