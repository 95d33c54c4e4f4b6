"""Fifteen static exports with a batch of 1, rebatched, against torch at other batch sizes.

    python -m benchmarks.batch_exports              # all of them
    python -m benchmarks.batch_exports BERT Swin

Each network is exported as most files are: by torch's older exporter, every size a number.
`SafeDAG.rebatch` frees the batch, and ONNX Runtime runs what it wrote.  Of fifteen such files,
editing the batch in the inputs' shapes left 7 right, the script that also edits the constants of
reshapes (https://github.com/onnx/onnx/issues/2182) 10, and sbi4onnx 1.0.7 11.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
import torch

from benchmarks.batch_files import exported, written_out
from benchmarks.batch_networks import EXPORTS, Network
from safegraph import SafeDAG
from safegraph.errors import SafeGraphError

BATCHES = (1, 2, 4, 7)
TOLERANCE = 1e-4  # of the largest value


@dataclass(frozen=True)
class Outcome:
    """What came of one export: the largest error by batch size, or the refusal."""

    errors: dict[int, float]
    refusal: str = ""
    seconds: float = 0.0

    @property
    def right(self) -> bool:
        """Is it equal to torch at all batch sizes?"""
        return len(self.errors) == len(BATCHES) and max(self.errors.values()) <= TOLERANCE


def rebatched(network: Network) -> onnx.ModelProto:
    """The export with a free batch; raises BatchError where samples would interact."""
    with written_out():
        model = exported(network.model(), network.inputs(1))
    return SafeDAG.from_onnx(model).rebatch("batch", axis=network.axis).to_onnx()


def error(network: Network, model: onnx.ModelProto, batch: int) -> float:
    """The largest difference to torch for a batch size, in parts of the largest value."""
    torch.manual_seed(batch)
    inputs = network.inputs(batch)
    with torch.no_grad():
        expected = network.model()(*inputs)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [i.name for i in session.get_inputs()]
    feeds = {n: x.numpy() for n, x in zip(names, inputs, strict=True)}
    found = session.run(None, feeds)
    wanted = [y.numpy() for y in (expected if isinstance(expected, tuple) else (expected,))]
    assert [y.shape for y in found] == [y.shape for y in wanted]
    return max(
        float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(found, wanted, strict=True)
    )


def outcome(network: Network) -> Outcome:
    """Rebatched, and run at every batch size."""
    start = time.perf_counter()
    try:
        model = rebatched(network)
    except SafeGraphError as refusal:
        return Outcome({}, str(refusal))
    seconds = time.perf_counter() - start
    return Outcome({n: error(network, model, n) for n in BATCHES}, seconds=seconds)


def main(names: list[str]) -> None:
    """Print a line for each export, and how many are right."""
    right = 0
    chosen = {n: w for n, w in EXPORTS.items() if not names or any(part in n for part in names)}
    for name, network in chosen.items():
        found = outcome(network)
        right += found.right
        errors = ", ".join(f"{n}: {e:.1e}" for n, e in found.errors.items())
        verdict = "right" if found.right else "WRONG" if found.errors else "refused"
        print(f"{name:24} {verdict:8} {found.seconds:5.1f} s  {errors}{found.refusal}")
    print(f"{right} of {len(chosen)} are equal to torch at batch sizes {BATCHES}")


if __name__ == "__main__":
    main(sys.argv[1:])
