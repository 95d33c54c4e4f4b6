"""Costs over a free size: from which size on which model is cheaper, and pictures of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import comb
from typing import TYPE_CHECKING, Any

from safegraph.dims import Dim, coefficients, evaluate, names, period, size, substitute
from safegraph.errors import BindingError, SafeGraphError

if TYPE_CHECKING:
    from safegraph.extract.cost import Cost

SCANNED = 4096
"""Up to which size one size after the other is tried, where a formula has a maximum in it."""


@dataclass(frozen=True)
class Crossing:
    """From this size on, which of two costs is less: "first", "second", or "neither" if equal."""

    size: int
    less: str


def crossings(
    a: Cost,
    b: Cost,
    size: str,
    what: str = "total_flops",
    at: Mapping[str, int] | None = None,
    upto: int | None = None,
) -> tuple[Crossing, ...]:
    """From which value of a free size on which of two models has less of a total.

    The first entry is for size 1.  Exact in integers: for polynomials, and for floor divisions by
    numbers (polynomials in each residue class), up to any size; where a formula has a maximum or
    divides by a size, every size up to `upto` (4096 if not given) is tried.  `at` gives the other
    free sizes; raises BindingError for one that is missing.
    """
    difference = _at(a, what, at, size) - _at(b, what, at, size)
    signs = {0: "neither", -1: "first", 1: "second"}
    return tuple(Crossing(n, signs[s]) for n, s in sign_changes(difference, size, upto))


def sign_changes(formula: Dim, name: str, upto: int | None = None) -> list[tuple[int, int]]:
    """Where a formula in one size changes its sign, from 1 on: (size, sign from there on)."""
    step = period(formula)

    def sign(n: int) -> int:
        value = substitute(formula, {name: n})
        if not isinstance(value, int):
            raise BindingError(f"{formula} has other free sizes than {name}")
        return (value > 0) - (value < 0)

    if step is None:
        places: Iterable[int] = range(2, (upto or SCANNED) + 1)
    else:
        # In the class of 1, 1 + step, ..., of 2, 2 + step, ... the formula is a polynomial; where
        # it changes sign in one of them, the whole may change there or in the steps around.
        turns = {1}
        for first in range(1, step + 1):
            inside = substitute(formula, {name: step * (size(name) - 1) + first})
            turns.update(step * (k - 1) + first for k in _turns(_polynomial(inside, name)))
        near = {n + d for n in turns for d in range(-step, step + 1)}
        places = sorted(n for n in near if n > 1 and (upto is None or n <= upto))
    found = [(1, sign(1))]
    for n in places:
        if sign(n) != found[-1][1]:
            found.append((n, sign(n)))
    return found


def _polynomial(formula: Dim, name: str) -> list[int]:
    """Coefficients in one size, the constant first."""
    found: dict[int, int] = {}
    for term, factor in coefficients(formula).items():
        value = substitute(term, {name: 2})
        if not isinstance(value, int) or names(term) - {name}:
            raise BindingError(f"{formula} has other free sizes than {name}")
        found[value.bit_length() - 1] = factor  # the term is a power of the size: 2**degree at 2
    return [found.get(degree, 0) for degree in range(max(found, default=0) + 1)]


def _turns(polynomial: Sequence[int]) -> list[int]:
    """The integers n > 1 at which a polynomial has another sign than at n - 1.

    Between two sign changes of its differences it is monotone, so that bisection finds them all;
    beyond Cauchy's bound 1 + max|c|/|leading| there are none.
    """
    if len(polynomial) == 1:
        return []
    differences = [
        sum(c * comb(i, degree) for i, c in enumerate(polynomial) if i > degree)
        for degree in range(len(polynomial) - 1)
    ]

    def sign(n: int) -> int:
        value = 0
        for c in reversed(polynomial):
            value = value * n + c
        return (value > 0) - (value < 0)

    bound = 2 + max(map(abs, polynomial)) // abs(polynomial[-1])
    bends = [1, *(n for n in _turns(differences) if n < bound), bound]
    found = set()
    for low, high in pairwise(bends):
        while (before := sign(low)) != sign(high):  # at most twice: by way of 0
            low = _first(lambda n, before=before: sign(n) != before, low, high)  # type: ignore[misc]
            found.add(low)
    return sorted(found)


def _first(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The first integer in (low, high] for which it holds, where it does from one on."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def plot(
    costs: Sequence[Cost],
    size: str,
    what: str = "total_flops",
    values: Iterable[int] = range(1, 65),
    at: Mapping[str, int] | None = None,
    axes: Any = None,
) -> Any:
    """A total of each cost over a free size, with the sizes where the first two cross.

    `at` gives the other free sizes.  Gives back matplotlib's axes.
    """
    sizes = sorted({name for cost in costs for name in cost.names})
    if size not in sizes:
        raise BindingError(
            f"no cost has a free size {size!r}; there are {', '.join(sizes) or 'none'}"
        )
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise SafeGraphError("plots need matplotlib: pip install 'safegraph[plot]'") from None
    axes = plt.subplots()[1] if axes is None else axes
    values = list(values)
    for i, cost in enumerate(costs):
        formula = _at(cost, what, at, size)
        heights = [float(evaluate(formula, {size: n})) for n in values]
        axes.plot(values, heights, label=f"{cost.name} ({i + 1})" if i else cost.name)
    if len(costs) > 1:
        for crossing in crossings(costs[0], costs[1], size, what, at)[1:]:
            if values[0] <= crossing.size <= values[-1]:
                axes.axvline(crossing.size, linestyle=":", color="gray")
    axes.set_xlabel(size)
    axes.set_ylabel(what.replace("_", " "))
    axes.legend()
    return axes


def _at(cost: Cost, what: str, at: Mapping[str, int] | None, name: str) -> Dim:
    if what not in cost.totals:
        raise BindingError(f"there is no total {what!r}; there are {', '.join(cost.totals)}")
    given = {n: value for n, value in (at or {}).items() if n != name}
    found = substitute(cost.totals[what], given)
    missing = sorted(names(found) - {name})
    if missing:
        raise BindingError(f"{what} of {cost.name} also needs a value for {', '.join(missing)}")
    return found
