"""Einsum equations as people write them: any number of operands, ellipses, no arrow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from string import ascii_letters

from safegraph.derived.einsum import einsum
from safegraph.dims import Dim, same
from safegraph.value import Value, permute, reduce


def contraction(equation: str, operands: Sequence[Value]) -> Value | None:
    """The value of an equation, contracted from left to right; None where no ops say it.

    As NumPy's einsum: without an arrow the result has the letters that occur once, in order; the
    axes of an ellipsis are aligned at their ends.  No ops say a letter twice in one operand (a
    diagonal) and an ellipsis that broadcasts.

    >>> from safegraph.value import tensor
    >>> contraction("...i,ij", [tensor("x", "f32[n 2 3]"), tensor("w", "f32[3 4]")])
    einsum(x, w): f32[n 2 4]
    """
    found = _letters(equation.replace(" ", ""), operands)
    if found is None or not _fits(*found, operands):
        return None
    parts, out = found
    named, x = parts[0], operands[0]
    for i, y in enumerate(operands[1:], 1):
        later = set(out).union(*parts[i + 1 :])
        both = "".join(dict.fromkeys(named + parts[i]))
        last = i == len(operands) - 1
        target = out if last else "".join(c for c in both if c in later)
        x = einsum(f"{named},{parts[i]}->{target}", x, y)
        named = target
    if len(operands) > 1:
        return x
    summed = [i for i, c in enumerate(named) if c not in out]
    x = reduce(x, summed, "sum", keep=False, as_written=True)
    kept = [c for c in named if c in out]
    return permute(x, [kept.index(c) for c in out])


def _letters(equation: str, operands: Sequence[Value]) -> tuple[list[str], str] | None:
    """The letters of each operand and of the result, with some for the ellipses."""
    left, arrow, out = equation.partition("->")
    parts = left.split(",")
    if len(parts) != len(operands):
        return None
    free = [c for c in ascii_letters if c not in equation]
    ranks = [
        x.rank - len(part.replace("...", ""))
        for part, x in zip(parts, operands, strict=True)
        if "..." in part
    ]
    rest = "".join(free[: max(ranks, default=0)])
    for i, (part, x) in enumerate(zip(parts, operands, strict=True)):
        count = x.rank - len(part.replace("...", ""))
        parts[i] = part.replace("...", rest[len(rest) - count :] if count > 0 else "")
    if not arrow:
        times = Counter("".join(parts))
        out = rest + "".join(sorted(c for c in times if times[c] == 1 and c not in rest))
    return parts, out.replace("...", rest)


def _fits(parts: Sequence[str], out: str, operands: Sequence[Value]) -> bool:
    """Are the letters those of the operands, without diagonals and broadcasting?"""
    sizes: dict[str, Dim] = {}
    for part, x in zip(parts, operands, strict=True):
        if len(part) != x.rank or len(set(part)) != len(part) or not f"{part}a".isalpha():
            return False
        for c, d in zip(part, x.shape, strict=True):
            if same(sizes.setdefault(c, d), d) is False:
                return False
    return set(out) <= set(sizes) and len(set(out)) == len(out)


__all__ = ["contraction"]
