"""Programs that every optimizer in use leaves slower than they need be: given, and better.

Each is a torch module as people write it and the same in a cheaper form, with example inputs.
Sizes are those of the published comparison that the benchmark repeats (x @ (A @ B) of low rank and
so on); weights are random.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Case:
    """One program in both forms: makers of torch modules, and of their inputs."""

    name: str
    given: Callable[[], Any]
    better: Callable[[], Any]
    inputs: Callable[[], tuple[Any, ...]]
    constants: int = 0
    """How many weights the exported file of the given form must hold (no exporter folded them)."""
    export_given: Callable[[Path], None] | None = None
    """Writes the given form as ONNX, where torch's exporter would not write what people have."""


def _module(function: Callable[..., Any], **weights: tuple[int, ...]) -> Callable[[], Any]:
    """A maker of a module that calls `function(*inputs, **weights)` with seeded random weights."""

    def make() -> Any:
        import torch

        class Program(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                generator = torch.Generator().manual_seed(0)
                for name, shape in weights.items():
                    data = torch.randn(shape, generator=generator) / shape[0] ** 0.5
                    self.register_parameter(name, torch.nn.Parameter(data))

            def forward(self, *inputs: Any) -> Any:
                return function(*inputs, *(getattr(self, name) for name in weights))

        return Program().eval()

    return make


def _random(*shapes: tuple[int, ...]) -> Callable[[], tuple[Any, ...]]:
    def make() -> tuple[Any, ...]:
        import torch

        generator = torch.Generator().manual_seed(1)
        return tuple(torch.randn(shape, generator=generator) / shape[-1] ** 0.5 for shape in shapes)

    return make


def _product(
    name: str,
    given: Callable[..., Any],
    better: Callable[..., Any],
    *inputs: tuple[int, ...],
    **weights: tuple[int, ...],
) -> Case:
    return Case(
        name, _module(given, **weights), _module(better, **weights), _random(*inputs), len(weights)
    )


CASES = (
    _product(
        "03a low rank x @ (A @ B)",
        lambda x, a, b: x @ (a @ b),
        lambda x, a, b: (x @ a) @ b,
        (64, 1024),
        a=(1024, 16),
        b=(16, 1024),
    ),
    _product(
        "03c chain ((x @ a) @ b) @ c",
        lambda x, a, b, c: ((x @ a) @ b) @ c,
        lambda x, a, b, c: x @ (a @ (b @ c)),
        (512, 1024),
        (1024, 512),
        (512, 1024),
        (1024, 8),
    ),
    _product(
        "matrices and a vector (a @ b) @ v",
        lambda a, b, v: (a @ b) @ v,
        lambda a, b, v: a @ (b @ v),
        (1024, 1024),
        (1024, 1024),
        (1024,),
    ),
    _product(
        "04 attention without softmax (q kᵀ) v",
        lambda q, k, v: (q @ k.transpose(-1, -2)) @ v,
        lambda q, k, v: q @ (k.transpose(-1, -2) @ v),
        (1, 4, 1024, 64),
        (1, 4, 1024, 64),
        (1, 4, 1024, 64),
    ),
    _product(
        "11a last token (x @ W)[:, -1]",
        lambda x, w: (x @ w)[:, -1],
        lambda x, w: x[:, -1] @ w,
        (1, 128, 768),
        w=(768, 50257),
    ),
    _product(
        "14c sum of products sum(a[:, :, None] * b[None], 1)",
        lambda a, b: (a[:, :, None] * b[None]).sum(1),
        lambda a, b: a @ b,
        (256, 256),
        (256, 256),
    ),
)
