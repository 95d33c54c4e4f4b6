"""Torch modules as files: traced, and exported to ONNX."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import onnx
import torch
from torch import Tensor, nn


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without gradients, and without what exporters print and warn of."""
    with (
        torch.no_grad(),
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def written_out() -> Iterator[None]:
    """Attention as single ops: exporters to ONNX lack the fused layers that torch takes else."""
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


def traced(module: nn.Module, inputs: Sequence[Tensor]) -> Any:
    """The module as TorchScript."""
    with quiet():
        return torch.jit.trace(module, tuple(inputs), check_trace=False)


def exported(module: nn.Module, inputs: Sequence[Tensor], **options: Any) -> onnx.ModelProto:
    """The module as ONNX, by the older exporter unless the options say `dynamo=True`."""
    file: Any = io.BytesIO()
    given = {"dynamo": False, **options}
    given |= {} if given["dynamo"] else {"opset_version": 17}
    with quiet():
        torch.onnx.export(module, tuple(inputs), file, verbose=False, **given)
    return onnx.load_from_string(file.getvalue())
