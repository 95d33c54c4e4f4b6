"""What a spelling of a function is, and how its graph is made.

Spellings are programs in PyTorch, exported by both ONNX exporters at several opsets or traced, and
terms in the ops that TFLite has (NHWC, reciprocal square roots, squared differences, batch matrix
products with transposed operands).
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from itertools import product
from math import isclose
from typing import Any

import torch
from torch import nn

from safegraph.dag import SafeDAG, Tensor
from safegraph.op import Op
from safegraph.ops import Iota, Movement, Scalar
from safegraph.value import Value, tensor

Shapes = dict[str, tuple[int, ...]]
"""Operands by name, with their shapes; a name in capitals is a weight, `mask` is of bool."""
Operands = tuple[Any, ...]


@dataclass(frozen=True)
class Spelling:
    """One way to write a function."""

    name: str
    expected: Op
    make: Callable[[], SafeDAG]
    beside: tuple[type[Op], ...] = ()
    """Ops that make an operand of it, such as a mask of numbers from one of bool."""

    def remains(self, refined: SafeDAG) -> list[Op]:
        """The ops of a refined graph that do more than hold a number or move elements."""
        return [
            n.op for n in refined if not (isinstance(n.op, Movement | Scalar | Iota) or n.op.moves)
        ]

    def recognised(self, refined: SafeDAG) -> bool:
        """Is the expected op all that remains?"""
        found = [op for op in self.remains(refined) if not isinstance(op, self.beside)]
        return len(found) == 1 and alike(found[0], self.expected)


def alike(a: Op, b: Op) -> bool:
    """The same op, with numbers that are equal to the precision of f32."""
    if type(a) is not type(b):
        return False
    return all(
        isclose(x, y, rel_tol=1e-5) if isinstance(x, float) and isinstance(y, float) else x == y
        for x, y in zip(a.spec.values(), b.spec.values(), strict=True)
    )


# -- where a graph comes from ---------------------------------------------------------------------


class _Written(nn.Module):
    """A function of inputs and weights."""

    def __init__(self, function: Callable[..., Any], operands: Shapes) -> None:
        super().__init__()
        self.function = function
        self.operands = tuple(operands)
        for name, shape in operands.items():
            if name.isupper():
                # statistics of a batch norm take no gradient
                self.register_parameter(name, nn.Parameter(_weight(name, shape), False))

    def forward(self, *inputs: Any) -> Any:
        given = iter(inputs)
        return self.function(
            *(getattr(self, name) if name.isupper() else next(given) for name in self.operands)
        )


def _weight(name: str, shape: tuple[int, ...]) -> Any:
    """Positive numbers that are all different, so that they serve as variances too."""
    size = torch.Size(shape).numel()
    return (1 + torch.arange(size, dtype=torch.float32) / size + len(name) / 10).reshape(shape)


def _inputs(operands: Shapes) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(0)
    made = []
    for name, shape in operands.items():
        if name == "mask":
            made.append(torch.rand(shape, generator=generator) < 0.7)
        elif name == "variance":
            made.append(torch.rand(shape, generator=generator) + 0.5)
        elif not name.isupper():
            made.append(torch.randn(shape, generator=generator))
    return tuple(made)


def exported(module: nn.Module, inputs: Operands, *, opset: int, dynamo: bool) -> SafeDAG:
    """A module by one of PyTorch's two ONNX exporters, read back."""
    import onnx

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            program: Any = torch.onnx.export(
                module, inputs, dynamo=True, opset_version=opset, verbose=False
            )
            return SafeDAG.from_onnx(program.model_proto)
        written = BytesIO()
        torch.onnx.export(module, inputs, written, dynamo=False, opset_version=opset)  # type: ignore[arg-type]
    return SafeDAG.from_onnx(onnx.load_from_string(written.getvalue()))


def traced(module: nn.Module, inputs: Operands) -> SafeDAG:
    """A module as TorchScript."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return SafeDAG.from_torchscript(torch.jit.trace(module, inputs))


_EXPORTERS = {"old": (9, 11, 12, 13, 14, 17), "new": (18, 20, 21, 23)}
ROUTES: dict[str, Callable[[nn.Module, Operands], SafeDAG]] = {
    "trace": traced,
    **{
        f"{exporter} {opset}": partial(exported, opset=opset, dynamo=exporter == "new")
        for exporter, opsets in _EXPORTERS.items()
        for opset in opsets
    },
}
"""Ways from PyTorch: TorchScript, the old exporter and the new one, by opset."""


def written(
    name: str,
    expected: Op,
    function: Callable[..., Any],
    operands: Shapes,
    routes: Sequence[str] = ("old 17", "new 18"),
    beside: tuple[type[Op], ...] = (),
) -> Iterator[Spelling]:
    """A program in PyTorch by several routes."""
    for route in routes:

        def make(route: str = route) -> SafeDAG:
            module = _Written(function, operands).eval()
            return ROUTES[route](module, _inputs(operands))

        yield Spelling(f"{name} ({route})", expected, make, beside)


def term(
    name: str, expected: Op, function: Callable[..., Value], operands: Shapes
) -> Iterator[Spelling]:
    """A term of SafeGraph's own."""

    def make() -> SafeDAG:
        leaves, known = [], []
        for n, shape in operands.items():
            kind = "bool" if n == "mask" else "f32"
            leaves.append(tensor(n, f"{kind}[{' '.join(map(str, shape))}]"))
            if n.isupper():
                known.append(Tensor(n, "parameter", leaves[-1].type, _weight(n, shape).numpy()))
        return SafeDAG.from_values({"y": function(*leaves)}, known)

    yield Spelling(f"{name} (term)", expected, make)


def mixed(*choices: Sequence[Any], step: int = 1) -> Iterator[tuple[Any, ...]]:
    """Every `step`-th combination, and each option at least once."""
    every = list(product(*choices))
    chosen = dict.fromkeys(range(0, len(every), step))
    for place, options in enumerate(choices):
        for option in options:
            if not any(every[i][place] is option for i in chosen):
                chosen[next(i for i, c in enumerate(every) if c[place] is option)] = None
    return (every[i] for i in sorted(chosen))
