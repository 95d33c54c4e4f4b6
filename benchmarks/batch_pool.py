"""What random programs with a free batch are made from: leaves, choices, checked steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from safegraph import value as v
from safegraph.dag import SafeDAG, Tensor
from safegraph.derived.base import randomly
from safegraph.dims import Dim, Shape, assuming, divide, evaluate, holds, names, product, size
from safegraph.errors import SafeGraphError
from safegraph.op import TensorType
from safegraph.value import Value, tensor

BATCH = size("batch")
SIZES = (2, 3, 4, 5)
"""The batch sizes at which a program must be defined."""
MOST = 1_500  # elements of a value, at a batch of 3


@dataclass(frozen=True)
class Program:
    """A graph with a free batch, and where its inputs have it."""

    dag: SafeDAG
    axes: dict[str, int]
    ops: tuple[str, ...]
    """The kinds of steps that it was drawn from."""


def batched(dim: Dim) -> bool:
    """Is the batch in a size?"""
    return "batch" in names(dim)


def primes(d: Dim) -> list[Dim]:
    """The factors of a size: 12*batch as batch, 2, 2, 3 (a sum is one factor)."""
    found: list[Dim] = []
    while not isinstance(d, int):
        less = divide(d, BATCH)
        if less is None:
            return [*found, d]
        found.append(BATCH)
        d = less
    p = 2
    while d > 1:
        if d % p:
            p += 1
        else:
            found.append(p)
            d //= p
    return found


class Pool:
    """The values of a program so far."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.palette = randomly(rng, ((2, 3), (1, 2, 3), (2, 2, 3, 4), (1, 3, 5)))
        self.axes: dict[str, int] = {}
        self.tensors: dict[str, Tensor] = {}
        self.values: list[Value] = []
        self.steps: list[str] = []
        for _ in range(randomly(rng, (1, 1, 2, 2, 3))):
            self.input("f64")

    # -- leaves -----------------------------------------------------------------------------------

    def sizes(self, rank: int) -> list[Dim]:
        return [int(n) for n in self.rng.choice(self.palette, rank)]

    def input(self, dtype: str, shape: Sequence[Dim] | None = None) -> Value:
        """An input; most have a batch, at most once, and most of these in front."""
        rng = self.rng
        name = f"x{len(self.axes)}"
        given = list(shape) if shape is not None else self.sizes(int(rng.integers(0, 4)))
        if shape is None and (not self.axes or rng.random() < 0.85):
            at = 0 if rng.random() < 0.6 else int(rng.integers(0, len(given) + 1))
            given.insert(at, BATCH)
        self.axes[name] = next((i for i, d in enumerate(given) if batched(d)), -1)
        return self.leaf(Tensor(name, "input", TensorType(dtype, tuple(given))))

    def constant(self, shape: Shape, dtype: str = "f64") -> Value:
        """A parameter, without a batch."""
        rng = self.rng
        data: Any = rng.uniform(-1.5, 1.5, shape) if dtype == "f64" else -rng.integers(0, 2, shape)
        if rng.random() < 0.1:
            data = np.full(shape, data.flat[0] if data.size else 0)
        type_ = TensorType(dtype, shape)
        return self.leaf(Tensor(f"w{len(self.tensors)}", "parameter", type_, np.asarray(data)))

    def leaf(self, found: Tensor) -> Value:
        value = tensor(found.name, found.type)
        self.tensors[found.name] = found
        if found.type.dtype == "f64":
            self.values.append(value)
        return value

    # -- choices ----------------------------------------------------------------------------------

    def value(self) -> Value:
        """A value that exists, the last one most likely."""
        rng = self.rng
        if rng.random() < 0.6:
            return self.values[-1]
        return self.values[int(rng.integers(len(self.values)))]

    def axis(self, x: Value, plain: float = 0.85) -> int | None:
        """An axis, seldom one with the batch in it."""
        rng = self.rng
        without = [i for i, d in enumerate(x.shape) if not batched(d)]
        if rng.random() < plain:
            return randomly(rng, without) if without else None
        return int(rng.integers(x.rank)) if x.rank else None

    def like(self, shape: Shape) -> Value:
        """A value of a shape: one that exists, or one that broadcasts to it."""
        rng = self.rng
        same = [x for x in self.values if x.shape == shape]
        if same and rng.random() < 0.6:
            return randomly(rng, same)
        style = rng.random()
        if style < 0.2 and any(map(batched, shape)) and len(self.axes) < 5:
            one = sum(map(batched, shape)) == 1 and BATCH in shape
            if one:
                return self.input("f64", shape)
        cut = shape[int(rng.integers(0, len(shape) + 1)) :]
        return self.constant(tuple(1 if batched(d) or rng.random() < 0.3 else d for d in cut))

    def step(self, kind: Callable[[], Value | None]) -> None:
        """Try one step: it must fit, at all batch sizes, and be new and small."""
        before = len(self.values), dict(self.axes), dict(self.tensors)
        try:
            with assuming() as assumptions:
                made = kind()
        except SafeGraphError:
            made = None
        fits = (
            made is not None
            and made.op is not None
            and made not in self.values
            and all(holds(a, {"batch": n}) for a in assumptions.values() for n in SIZES)
            and 0 < evaluate(product(made.shape), {"batch": 3}) <= MOST
            and made.rank <= 7
        )
        if not fits:
            del self.values[before[0] :]
            self.axes, self.tensors = before[1], before[2]
            return
        assert made is not None
        made = made if made.dtype == "f64" else v.cast(made, "f64")
        self.values.append(made)
        self.steps.append(kind.__name__)

    # -- the end ----------------------------------------------------------------------------------

    def program(self) -> Program:
        """The last value as the output, and now and then another one."""
        outputs = {"y": self.values[-1]}
        if self.rng.random() < 0.15:
            outputs["z"] = self.value()
        used = {x.name for x in v.walk(outputs.values()) if x.op is None}
        tensors = [t for t in self.tensors.values() if t.name in used]
        dag = SafeDAG.from_values(outputs, tensors)
        axes = {n: a for n, a in self.axes.items() if n in used and a >= 0}
        return Program(dag, axes, tuple(self.steps))
