"""Normal forms of elements: sums of products of leaves at index expressions.

The normal form of an element is a sum of `Product`s: a coefficient (a rational function of sizes,
in SymPy), summation variables with their ranges, conditions, and factors.  Factors are elements of
leaves, indices used as numbers, and functions or reductions of normal forms.  Two normal forms with
one `key` are equal for all sizes and all values of the leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, permutations, product
from math import factorial, isfinite, prod
from typing import Any, TypeAlias

from safegraph.dims import Dim, Size, names, parse, size, substitute, sympify
from safegraph.proof.indexing import Guard, Index, UndecidedError, variables

_MOST_ORDERS = 720
ORDERED = ("ordered sum", "ordered mean", "ordered prod", "ordered fold")
"""Reductions whose order counts, where roundings do."""

Sums: TypeAlias = "tuple[tuple[str, Dim], ...]"
Normal: TypeAlias = "tuple[Product, ...]"


@dataclass(frozen=True)
class Read:
    """An element of a leaf."""

    name: str
    at: Index


@dataclass(frozen=True)
class Place:
    """An index as a number."""

    e: Dim


@dataclass(frozen=True)
class Applied:
    """A function of normal forms; the operands of a commutative one are in any order."""

    function: str
    operands: tuple[Normal, ...]
    commutative: bool = False


@dataclass(frozen=True)
class Reduced:
    """A reduction of a normal form over variables; in that order for those called "ordered"."""

    kind: str
    sums: Sums
    body: Normal


@dataclass(frozen=True)
class Chosen:
    """One normal form where all conditions hold, else another."""

    guards: tuple[Guard, ...]
    then: Normal
    other: Normal


Factor: TypeAlias = "Read | Place | Applied | Reduced | Chosen"


@dataclass(frozen=True)
class Product:
    """A coefficient * the sum over variables, where conditions hold, of a product of factors."""

    coefficient: Any
    sums: Sums = ()
    guards: tuple[Guard, ...] = ()
    factors: tuple[Factor, ...] = ()


def number(value: float | Dim) -> Normal:
    """A number, or a size as one; infinities and NaN are no numbers of the algebra but symbols."""
    if isinstance(value, Size):
        return (Product(sympify(value)),)
    if isinstance(value, complex) or not isfinite(value):
        return (Product(sympify(1), factors=(Applied(repr(value), ()),)),)
    exact = Fraction(value)
    return (Product(sympify(exact.numerator) / sympify(exact.denominator)),) if exact else ()


def as_number(x: Normal) -> Any:
    """The coefficient, where a normal form is a number; else None."""
    if not x:
        return sympify(0)
    alone = len(x) == 1 and not (x[0].sums or x[0].guards or x[0].factors)
    return x[0].coefficient if alone else None


def constant(x: Normal) -> float | None:
    """A number without free sizes, also an infinite one."""
    found = as_number(x)
    if found is not None:
        return float(found) if found.is_number else None
    match x:
        case (Product(coefficient, (), (), (Applied(text, ()),)),) if coefficient == 1:
            return float(text)
    return None


def infinite(x: Normal) -> bool:
    """Has it an infinity or a NaN in it, for which the laws of numbers do not hold?"""
    for f in chain.from_iterable(p.factors for p in x):
        match f:
            case Applied(_, ()):
                return True
            case Applied(_, operands) if any(map(infinite, operands)):
                return True
            case Reduced(_, _, body) if infinite(body):
                return True
            case Chosen(_, then, other) if infinite(then) or infinite(other):
                return True
    return False


def is_condition(x: Normal) -> bool:
    """Is it 1 where conditions on indices hold, else 0?"""
    return len(x) == 1 and x[0].coefficient == 1 and not x[0].sums and not x[0].factors


def as_place(x: Normal) -> Dim | None:
    """The index expression that a number is; None where it depends on leaves."""
    total: Dim = 0
    for p in x:
        own = [f.e for f in p.factors if isinstance(f, Place)]
        if p.sums or p.guards or len(own) != len(p.factors) or not _whole(p.coefficient):
            return None
        total = total + prod(own, start=parse(str(p.coefficient)))
    return total


def _whole(coefficient: Any) -> bool:
    numbers = coefficient.as_coefficients_dict().values()
    return coefficient.is_polynomial() and all(n.is_Integer for n in numbers)


# -- keys -----------------------------------------------------------------------------------------


def key(x: Normal, called: Mapping[str, str] | None = None) -> str:
    """A text that equal normal forms share; `called` renames variables."""
    counts: dict[str, Any] = {}
    for p in x:
        text = _product_key(p, called or {})
        counts[text] = counts.get(text, 0) + p.coefficient
    parts = ((text, _simplest(c)) for text, c in counts.items())
    return " + ".join(sorted(f"{c} {text}" for text, c in parts if c != 0))


def _simplest(coefficient: Any) -> Any:
    return coefficient if coefficient.is_number else coefficient.cancel()


def _product_key(p: Product, called: Mapping[str, str]) -> str:
    def text(names_: Mapping[str, str]) -> str:
        guards = sorted(_guard_key(g, names_) for g in p.guards)
        return " ".join([*guards, *sorted(_factor_key(f, names_) for f in p.factors)])

    return _bound_key("sum", p.sums, (*p.guards, *p.factors), called, text)


def _bound_key(
    kind: str,
    sums: Sums,
    parts: Sequence[Guard | Factor],
    called: Mapping[str, str],
    text: Callable[[Mapping[str, str]], str],
) -> str:
    """The least text over all names for the bound variables that their uses do not tell apart."""
    if not sums:
        return text(called)
    best = ""
    for order in _orders(kind, sums, parts, called):
        own = {name: f"_r{len(called)}x{i}" for i, (name, _) in enumerate(order)}
        head = ", ".join(str(range_) for _, range_ in order)
        found = f"{kind}[{head}]({text({**called, **own})})"
        best = min(best or found, found)
    return best


def _orders(
    kind: str, sums: Sums, parts: Sequence[Guard | Factor], called: Mapping[str, str]
) -> Iterator[Sums]:
    if kind in ORDERED or len(sums) == 1:
        yield sums
        return
    classes: dict[str, list[tuple[str, Dim]]] = {}
    for name, range_ in sums:
        mark = {other: "_v" if other == name else "_w" for other, _ in sums}
        uses = (_part_key(p, {**called, **mark}) for p in parts if name in used_in(p))
        classes.setdefault(f"{range_}: {sorted(uses)}", []).append((name, range_))
    if prod(factorial(len(c)) for c in classes.values()) > _MOST_ORDERS:
        raise UndecidedError("too many variables of a sum look alike")
    for chosen in product(*(permutations(classes[c]) for c in sorted(classes))):
        yield tuple(chain.from_iterable(chosen))


def _part_key(part: Guard | Factor, called: Mapping[str, str]) -> str:
    return _guard_key(part, called) if isinstance(part, Guard) else _factor_key(part, called)


def _guard_key(guard: Guard, called: Mapping[str, str]) -> str:
    e = _renamed(guard.e, called)
    if guard.kind == "zero":
        e = min(e, _renamed(-guard.e, called), key=str)
    return f"[{guard.kind} {e} {_renamed(guard.by, called)}]"


def _factor_key(f: Factor, called: Mapping[str, str]) -> str:
    match f:
        case Read(name, at):
            return f"{name}[{', '.join(str(_renamed(e, called)) for e in at)}]"
        case Place(e):
            return f"<{_renamed(e, called)}>"
        case Applied(function, operands, commutative):
            texts = [key(x, called) for x in operands]
            return f"{function}({'; '.join(sorted(texts) if commutative else texts)})"
        case Reduced(kind, sums, body):
            return _bound_key(kind, sums, _parts(body), called, lambda own: key(body, own))
        case Chosen(guards, then, other):
            texts = sorted(_guard_key(g, called) for g in guards)
            return f"({' '.join(texts)} ? {key(then, called)} : {key(other, called)})"


def _parts(x: Normal) -> tuple[Guard | Factor, ...]:
    return tuple(part for p in x for part in (*p.guards, *p.factors))


def _renamed(e: Dim, called: Mapping[str, str]) -> Dim:
    return substitute(e, {n: size(called[n]) for n in names(e) if n in called})


def expressions(part: Guard | Factor | Normal) -> Iterator[Dim]:
    """All index expressions in a part of a normal form."""
    match part:
        case Guard(_, e, by):
            yield e
            yield by
        case Read(_, at):
            yield from at
        case Place(e):
            yield e
        case Applied(_, operands):
            yield from chain.from_iterable(map(expressions, operands))
        case Reduced(_, _, body):
            yield from expressions(body)
        case Chosen(guards, then, other):
            yield from chain.from_iterable(map(expressions, guards))
            yield from chain.from_iterable(map(expressions, (then, other)))
        case tuple():
            yield from chain.from_iterable(map(expressions, _parts(part)))


def guards_in(x: Normal) -> Iterator[Guard]:
    """All conditions in a normal form."""
    for part in _parts(x):
        match part:
            case Guard():
                yield part
            case Applied(_, operands):
                yield from chain.from_iterable(map(guards_in, operands))
            case Reduced(_, _, body):
                yield from guards_in(body)
            case Chosen(guards, then, other):
                yield from guards
                yield from chain.from_iterable(map(guards_in, (then, other)))


def used_in(part: Guard | Factor | Normal) -> frozenset[str]:
    """The index variables in a part of a normal form."""
    return frozenset().union(*map(variables, expressions(part)))
