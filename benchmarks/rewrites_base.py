"""How the programs of `benchmarks.rewrites` are made: seeded weights, and weights folded from them.

All is made in torch's default dtype.  Random numbers are drawn and weights are folded in float64,
so that the two forms of a program agree to rounding in whichever dtype they are made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.cases import Case

Weights = dict[str, Tensor]
"""The weights of a program by name, in float64 while they are folded."""


def normal(shape: tuple[int, ...], seed: int) -> Tensor:
    """Numbers of variance 1 in float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def stored(x: Tensor) -> Tensor:
    """A tensor as programs keep it: contiguous, in the default dtype."""
    return x.detach().to(torch.get_default_dtype()).contiguous()


def exact(x: Tensor) -> Tensor:
    """A tensor as weights are folded: in float64."""
    return x.detach().double()


class Program(nn.Module):
    """`function(*inputs, *weights)`: the weights are parameters, in the order of their names."""

    def __init__(self, function: Callable[..., Any], weights: Weights) -> None:
        super().__init__()
        self.function = function
        self.names = tuple(weights)
        for name, value in weights.items():
            self.register_parameter(name, nn.Parameter(stored(value)))

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs, *(getattr(self, name) for name in self.names))


def images(*shapes: tuple[int, ...]) -> Callable[[], tuple[Tensor, ...]]:
    """A maker of inputs with variance 1."""
    return lambda: tuple(stored(normal(s, 1 + place)) for place, s in enumerate(shapes))


def tokens(vocabulary: int, *shape: int) -> Callable[[], tuple[Tensor, ...]]:
    """A maker of one input of integers below `vocabulary`."""
    return lambda: (torch.randint(vocabulary, shape, generator=torch.Generator().manual_seed(1)),)


def written(
    name: str,
    given: Callable[..., Any],
    better: Callable[..., Any],
    inputs: Callable[[], tuple[Any, ...]],
    *,
    weights: Mapping[str, tuple[int, ...]] | None = None,
    summed: Mapping[str, int] | None = None,
    fold: Callable[..., Weights] | None = None,
    **more: Any,
) -> Case:
    """A program in two forms that are functions of the inputs and of their weights.

    Matrices are [inner, outer] and kernels [outer, inner, *window]; they have variance
    1 / (sizes summed over), vectors 0.01.  `summed` has these sizes for matrices that are used
    otherwise.  `fold` takes the weights of the given form by name, in float64, and gives those of
    the better one.
    """
    shapes = weights or {}
    sizes = {n: _summed(shape) for n, shape in shapes.items()} | dict(summed or {})

    def drawn() -> Weights:
        return {
            n: normal(shape, 100 + place) * sizes[n] ** -0.5
            for place, (n, shape) in enumerate(shapes.items())
        }

    return Case(
        name,
        lambda: Program(given, drawn()).eval(),
        lambda: Program(better, fold(**drawn()) if fold else drawn()).eval(),
        inputs,
        len(shapes),
        **more,
    )


def _summed(shape: tuple[int, ...]) -> int:
    if len(shape) == 1:
        return 100
    return shape[0] if len(shape) == 2 else prod(shape[1:])


def derived(
    name: str,
    given: Callable[[], nn.Module],
    better: Callable[[Any], nn.Module],
    inputs: Callable[[], tuple[Any, ...]],
    constants: int,
) -> Case:
    """A model in two forms, of which the better one is made from the given one."""
    return Case(name, given, lambda: better(given()).eval(), inputs, constants)


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """The module that `make` gives, with repeatable weights and norms that scale and shift."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        module = make()
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm2d | nn.LayerNorm):
                norm.weight.uniform_(0.5, 1.5)
                norm.bias.normal_(0, 0.1)
    return module.eval()


def calibrated(module: nn.Module, *inputs: Tensor) -> nn.Module:
    """The module, its batch norms holding the statistics of these inputs: activations stay O(1)."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.reset_running_stats()
            norm.momentum = None  # the plain average, here of one batch
    module.train()
    with torch.no_grad():
        module(*inputs)
    return module.eval()
