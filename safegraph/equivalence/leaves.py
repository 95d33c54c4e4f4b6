"""What two graphs share: inputs of one type, and weights of one content, as the same leaves.

Two exports of a model keep the same numbers under other names, and often in another order of axes:
`linear` has its weight transposed where a matrix product has not.  A tensor of one graph whose
elements are those of another, moved, becomes that movement of the same leaf; one number repeated
becomes the number.  Bits are compared, so nothing is shared that differs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np

from safegraph.dag import SafeDAG, Tensor
from safegraph.dims import Dim, Size, size, substitute
from safegraph.errors import SafeGraphError
from safegraph.op import TensorType
from safegraph.value import Value, full, permute, reshape, tensor

WEIGHTS = ("parameter", "buffer", "const")
_MOST_AXES = 5  # 120 orders to try


@dataclass(frozen=True)
class Shared:
    """The outputs of two graphs, by the names of the first, as terms on common leaves."""

    left: Mapping[str, Value]
    right: Mapping[str, Value]
    constants: Mapping[str, np.ndarray]
    """The leaves that depend on no input, with their data."""


def share(
    a: SafeDAG, b: SafeDAG, inputs: Mapping[str, str], outputs: Mapping[str, str]
) -> Shared | str:
    """Both graphs as terms; a text that says why not, where inputs have types that never agree.

    `inputs` and `outputs` give the names of `b` for those of `a`.  Free sizes of `b` become those
    of `a`; what is a number in one graph alone becomes that number in the other.
    """
    unified = _unified(a, b, inputs)
    if isinstance(unified, str):
        return unified
    a, b = unified
    leaves = _Leaves()
    mine = {t.name: leaves.weight(t) for t in a.kind(*WEIGHTS)}
    theirs = {t.name: leaves.weight(t) for t in b.kind(*WEIGHTS)}
    given = {t.name: tensor(t.name, t.type) for t in a.inputs}
    left = a.to_values(given | mine)
    right = b.to_values({inputs[name]: value for name, value in given.items()} | theirs)
    return Shared(
        {name: left[a.outputs[name]] for name in outputs},
        {name: right[b.outputs[other]] for name, other in outputs.items()},
        leaves.arrays,
    )


# -- inputs ---------------------------------------------------------------------------------------


def _unified(a: SafeDAG, b: SafeDAG, inputs: Mapping[str, str]) -> tuple[SafeDAG, SafeDAG] | str:
    """Both graphs with the same sizes in the types of their inputs."""
    fresh = {name: f"{name}_of_b" for name in b.sizes}
    b = b.bind({name: size(new) for name, new in fresh.items()})
    ours: dict[str, Dim] = {}
    theirs: dict[str, Dim] = {}
    pairs = [
        pair
        for mine, other in inputs.items()
        for pair in zip(a.types[mine].shape, b.types[other].shape, strict=True)
    ]
    for m, n in pairs:  # b's names are told by the axes that have nothing but a name
        if str(n) in fresh.values():
            theirs.setdefault(str(n), m)
    for m, n in pairs:
        found = substitute(n, theirs)
        if isinstance(m, Size) and isinstance(found, int) and str(m) in a.sizes:
            ours.setdefault(str(m), found)
    theirs = {name: substitute(d, ours) for name, d in theirs.items()}
    try:
        a, b = a.bind(ours), b.bind(theirs)
    except SafeGraphError as error:
        return f"the sizes of one graph do not suit the other: {error}"
    for mine, other in inputs.items():
        if a.types[mine] != b.types[other]:
            return f"input {mine} is {a.types[mine]}, and {other} of the other {b.types[other]}"
    return a, b


# -- weights --------------------------------------------------------------------------------------


class _Leaves:
    """Weights by their content."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self._same: dict[Any, Value] = {}
        self._alike: dict[Any, list[tuple[np.ndarray, Value]]] = {}

    def weight(self, t: Tensor) -> Value:
        """The tensor as a term: a number, a leaf, or a movement of a leaf that is there."""
        array = np.asarray(t.array(), order="C")
        number = _number(array)
        if number is not None:
            return full(number, array.shape, t.type.dtype)
        bits = _bits(array)
        digest = hashlib.blake2b(bits.tobytes()).digest()
        key = (t.type.dtype, array.shape, digest)
        if key not in self._same:
            # the order of elements changes neither of these
            invariant = (t.type.dtype, int(bits.sum(dtype=np.uint64)), bits.size)
            alike = self._alike.setdefault(invariant, [])
            moved = (_moved(bits, other, leaf) for other, leaf in alike if bits.ndim == array.ndim)
            value = next((m for m in moved if m is not None), None)
            if value is None:
                value = self._leaf(t.type, array)
                alike.append((bits, value))
            self._same[key] = value
        return self._same[key]

    def _leaf(self, type_: TensorType, array: np.ndarray) -> Value:
        name = f"#{len(self.arrays)}"  # no name of an input
        self.arrays[name] = array
        return tensor(name, type_)


def _number(array: np.ndarray) -> Any:
    """The number that every element is; None where they differ, and for -0, which equals 0."""
    if not array.size or array.dtype.kind == "c":
        return None
    first = array.reshape(-1)[:1]
    zero = np.zeros_like(first)
    negative_zero = first == zero and _bits(first) != _bits(zero)
    if negative_zero or first != first or (_bits(array) != _bits(first)).any():
        return None
    return first[0].item()


def _bits(array: np.ndarray) -> np.ndarray:
    """The elements as whole numbers, so that equal means the same bits."""
    if array.dtype.itemsize > 8:  # two numbers: a last axis of its own
        return array.reshape(*array.shape, 1).view(np.uint64)
    return array.view(f"u{array.dtype.itemsize}")


def _moved(wanted: np.ndarray, known: np.ndarray, leaf: Value) -> Value | None:
    """The wanted elements as the leaf with its axes in another order, grouped or split."""
    if known.ndim > _MOST_AXES or wanted.ndim > _MOST_AXES:
        return None
    for order in permutations(range(known.ndim)):
        if np.array_equal(known.transpose(order).reshape(wanted.shape), wanted):
            return reshape(permute(leaf, order), wanted.shape)
    for order in permutations(range(wanted.ndim)):
        turned = wanted.transpose(order)
        if np.array_equal(known.reshape(turned.shape), turned):
            back = [order.index(axis) for axis in range(wanted.ndim)]
            return permute(reshape(leaf, turned.shape), back)
    return None


__all__ = ["Shared", "share"]
