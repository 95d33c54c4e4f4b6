"""Whole networks without a batch: equal for each sample, in NumPy and in ONNX Runtime.

    python -m benchmarks.batch_models               # ResNet-50, ViT-B/16, BERT-base, Swin-T, LSTM
    python -m benchmarks.batch_models --small BERT  # a few layers each

Each is read with a free batch, from TorchScript and from ONNX, and unbatched.  What comes out must
have inputs and outputs of one rank less, no size with the batch in it, and each sample's values.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnxruntime
import torch
from torch import nn

from benchmarks.batch_files import exported, traced, written_out
from benchmarks.batch_networks import (
    EXPORTS,
    Bert,
    Network,
    Recurrent,
    images,
    series,
    text,
)
from benchmarks.cost_models import torchvision_models
from safegraph import SafeDAG
from safegraph.dims import names
from safegraph.op import TensorType

BATCH = "batch"
SAMPLES = 3
TOLERANCE = 1e-3  # of the largest value: sums of a thousand numbers, in other orders

_IDS = ("i64[batch 128]",) * 3

# fmt: off
FULL: dict[str, Network] = {
    "ResNet-50": Network(lambda: torchvision_models().resnet50(), images(224),
                         types=("f32[batch 3 224 224]",)),
    "ViT-B/16":  Network(lambda: torchvision_models().vit_b_16(), images(224),
                         types=("f32[batch 3 224 224]",)),
    "BERT-base": Network(lambda: Bert(768, 12, 12, 30522, 512), text(128, 30522), types=_IDS),
    "Swin-T":    Network(lambda: torchvision_models().swin_t(), images(224),
                         types=("f32[batch 3 224 224]",)),
    "LSTM":      Network(lambda: Recurrent(nn.LSTM, 128, 256), series(32, 128),
                         types=("f32[batch 32 128]",)),
}


def _small_resnet() -> nn.Module:
    torchvision_models()  # what is below imports only after it
    from torchvision.models.resnet import Bottleneck, ResNet

    return ResNet(Bottleneck, [1, 2, 1, 1], width_per_group=8, num_classes=10)


SMALL: dict[str, Network] = {
    "ResNet-50": Network(_small_resnet, images(64), types=("f32[batch 3 64 64]",)),
    "ViT-B/16":  Network(EXPORTS["ViT (torchvision)"].make, images(32),
                         types=("f32[batch 3 32 32]",)),
    "BERT-base": Network(Bert, text(11), types=("i64[batch 11]",) * 3),
    "Swin-T":    Network(EXPORTS["Swin"].make, images(32), types=("f32[batch 3 32 32]",)),
    "LSTM":      Network(EXPORTS["LSTM"].make, series(9, 8), types=("f32[batch 9 8]",)),
}
# fmt: on
"""The same kinds of layers, fewer and narrower."""


@dataclass(frozen=True)
class Outcome:
    """What came of one model."""

    ranks: bool
    """Have all inputs and outputs one axis less?"""
    free: bool
    """Is the batch in no size?"""
    numpy: float
    """The largest error of a sample in NumPy, in parts of the largest value."""
    runtime: float
    """The same of the file, in ONNX Runtime."""
    seconds: float
    """How long `unbatch` took."""

    @property
    def right(self) -> bool:
        """Is it all as it must be?"""
        return self.ranks and self.free and max(self.numpy, self.runtime) <= TOLERANCE


def read(network: Network, source: str) -> SafeDAG:
    """The network with a free batch, from "torchscript" or "onnx"."""
    model, example = network.model(), network.inputs(2)
    with written_out():
        if source == "torchscript":
            return SafeDAG.from_torchscript(traced(model, example), list(network.types))
        inputs = [f"input{i}" for i in range(len(example))]
        axes = {name: {0: BATCH} for name in inputs}
        return SafeDAG.from_onnx(exported(model, example, input_names=inputs, dynamic_axes=axes))


def outcome(network: Network, source: str) -> Outcome:
    """Unbatched, and compared for each sample; raises BatchError where it is refused."""
    dag = read(network, source)
    start = time.perf_counter()
    result = dag.unbatch()
    seconds = time.perf_counter() - start
    torch.manual_seed(1)
    inputs = [x.numpy() for x in network.inputs(SAMPLES)]
    with torch.no_grad():
        found = network.model()(*map(torch.from_numpy, inputs))
    wanted = [y.numpy() for y in (found if isinstance(found, tuple) else (found,))]
    session = onnxruntime.InferenceSession(
        result.to_onnx().SerializeToString(), providers=["CPUExecutionProvider"]
    )
    feeds = [i.name for i in session.get_inputs()]
    numpy, runtime = 0.0, 0.0
    for b in range(SAMPLES):
        sample = [x[b] for x in inputs]
        here = [y[b] for y in wanted]
        numpy = max(numpy, _error(list(result.evaluate(*sample).values()), here))
        run = session.run(None, dict(zip(feeds, sample, strict=True)))
        runtime = max(runtime, _error(run, here))
    return Outcome(_one_less(dag, result), _free(result), numpy, runtime, seconds)


def _error(found: list[np.ndarray], wanted: list[np.ndarray]) -> float:
    assert [y.shape for y in found] == [y.shape for y in wanted]
    return max(
        float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(found, wanted, strict=True)
    )


def _one_less(before: SafeDAG, after: SafeDAG) -> bool:
    def ranks(dag: SafeDAG) -> list[int]:
        outputs: Mapping[str, TensorType] = {o: dag.types[v] for o, v in dag.outputs.items()}
        return [t.type.rank for t in dag.inputs] + [t.rank for t in outputs.values()]

    return ranks(after) == [n - 1 for n in ranks(before)]


def _free(dag: SafeDAG) -> bool:
    """Is the batch in no shape and in no op?"""
    return BATCH not in {n for t in dag.types.values() for d in t.shape for n in names(d)} and all(
        node.op.bind({BATCH: 2}) is node.op for node in dag
    )


def main() -> None:
    """Print a line for each model and source."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="parts of the models' names")
    parser.add_argument("--small", action="store_true", help="fewer and narrower layers")
    options = parser.parse_args()
    for name, network in (SMALL if options.small else FULL).items():
        if options.names and not any(part in name for part in options.names):
            continue
        for source in ("torchscript", "onnx"):
            found = outcome(network, source)
            print(
                f"{name:10} {source:12} {'right' if found.right else 'WRONG'}  "
                f"ranks {found.ranks}, free {found.free}, NumPy {found.numpy:.1e}, "
                f"ONNX Runtime {found.runtime:.1e}, unbatched in {found.seconds:.1f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
