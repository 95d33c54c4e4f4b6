"""The main job on a real model: ResNet-50 from PyTorch to ONNX, then everything by command line.

Run it with `make demo`, or `python benchmarks/demo.py`; files go to build/demo.
"""

import subprocess
import sys
import warnings
from pathlib import Path
from time import perf_counter

import torch

FOLDER = Path(__file__).parent.parent / "build" / "demo"


def resnet50() -> torch.nn.Module:
    """ResNet-50 of torchvision with random weights, ready to be run."""
    # torchvision is linked against one build of torch.  With another its own ops do not load, and
    # it must find their declarations; ResNet uses none of them.
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from torchvision import models

    torch.manual_seed(0)
    return models.resnet50().eval()


def export(path: Path) -> None:
    """ResNet-50 as ONNX, for any batch size."""
    batch = torch.export.Dim("batch", min=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's words on its own future
        torch.onnx.export(
            resnet50(),
            (torch.rand(2, 3, 224, 224),),
            str(path),
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=({0: batch},),
            optimize=False,  # as the model is written: with its batch norms
            external_data=False,
            verbose=False,
        )


def run(*args: str) -> None:
    """One command, printed with the time that it takes; its failure ends the demo."""
    print(f"\n$ safegraph {' '.join(args)}", flush=True)
    start = perf_counter()
    done = subprocess.run([sys.executable, "-m", "safegraph", *args], cwd=FOLDER, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    print(f"({perf_counter() - start:.1f} s)", flush=True)


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    print("exporting torchvision's ResNet-50 to ONNX with a free batch size ...", flush=True)
    export(FOLDER / "resnet50.onnx")
    run("inspect", "resnet50.onnx")
    run("cost", "resnet50.onnx")
    run("optimize", "resnet50.onnx", "-o", "cheaper.onnx", "--target", "onnxruntime")
    run("check", "resnet50.onnx", "cheaper.onnx")
    run("convert", "resnet50.onnx", "resnet50.pt")
    print(f"\nall files are in {FOLDER}")


if __name__ == "__main__":
    main()
