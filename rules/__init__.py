"""Laws: equations between terms, one family a file, and the phases in which they are used."""

from __future__ import annotations

from dataclasses import dataclass

from safegraph.law import Law
from safegraph.rules import (
    affine,
    attention,
    batch,
    concat,
    conv,
    definitions,
    einsum,
    inverse,
    lowering,
    movement,
    pointwise,
    recognition,
    scale,
    spelling,
    windows,
)

FAMILIES: dict[str, tuple[Law, ...]] = {
    "inverse": inverse.LAWS,
    "pointwise": (*pointwise.LAWS, *pointwise.COMMUTE),
    "affine": affine.LAWS,
    "movement": movement.LAWS,
    "concat": concat.LAWS,
    "einsum": einsum.LAWS,
    "scale": scale.LAWS,
    "conv": conv.LAWS,
    "windows": windows.LAWS,
    "spelling": spelling.LAWS,
    "definitions": definitions.LAWS,
    "recognition": recognition.LAWS,
    "attention": attention.LAWS,
    "lowering": lowering.LAWS,
    "batch": batch.LAWS,
}
ALL: tuple[Law, ...] = tuple(law for laws in FAMILIES.values() for law in laws)


@dataclass(frozen=True)
class Phase:
    """Laws that are applied together: until nothing is new, or for some rounds."""

    name: str
    laws: tuple[Law, ...]
    rounds: int | None = None


DERIVE = (*inverse.LAWS, *pointwise.LAWS, *affine.LAWS, *movement.LAWS, *concat.LAWS, *einsum.LAWS)
RESPELL = (
    *spelling.LAWS,
    *inverse.LAWS,
    *pointwise.LAWS,
    *pointwise.COMMUTE,
    *affine.OUTWARDS,
    *movement.UPWARDS,
    *movement.REDUCTIONS,
)

REFINING = (
    Phase("open definitions", definitions.DECOMPOSITION),
    Phase("derive", (*DERIVE, *conv.LAWS, *windows.LAWS)),
    Phase("exchange operands", pointwise.COMMUTE, rounds=1),
    Phase("respell", RESPELL),
    Phase(
        "recognise",
        (*definitions.RECOGNITION, *recognition.LAWS, *attention.LAWS, *inverse.LAWS),
        rounds=8,
    ),
    # Not before: a convolution is a contraction, too, and has such laws of its own.
    Phase("fold what was recognised", (*conv.LAWS, *scale.LAWS)),
)
"""Finds structure: contractions from products and sums, named ops from their definitions."""

LOWERING = (Phase("lower", (*lowering.LAWS, *inverse.LAWS)),)
"""Adds the forms that runtimes have."""

__all__ = ["ALL", "DERIVE", "FAMILIES", "LOWERING", "REFINING", "Phase"]
