"""Factors of a contraction, as of a layer scale or a norm, go into its constant operand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from safegraph.derived.einsum import Einsum
from safegraph.law import Law, any_of, constant, one, table, variables, varying
from safegraph.op import TensorType
from safegraph.ops import Repeat
from safegraph.rules.einsum import contract, other
from safegraph.value import Value, expand, permute, repeat, squeeze, tensor, unsqueeze

x, y, a, b = variables("x y a b")
(e,) = any_of(Einsum, "e")
(r,) = any_of(Repeat, "r")
(t,) = any_of(Repeat, "t")


def times(e: Einsum, y: Value, a: Value) -> Value | None:
    """The right operand of a contraction, times factors along axes of the result that it has."""
    wide = {e.out[axis]: axis for axis, d in enumerate(a.shape) if d != 1}
    if not wide.keys() <= set(e.right) or a.dtype != y.dtype:
        return None
    kept = sorted(wide.values())
    ordered = [kept.index(wide[c]) for c in e.right if c in wide]
    factors = permute(squeeze(a, [i for i in range(a.rank) if i not in kept]), ordered)
    factors = unsqueeze(factors, [axis for axis, c in enumerate(e.right) if c not in wide])
    return y * expand(factors, y.shape)


def scaled(e: Einsum, x: Value, y: Value, a: Value) -> Value | None:
    """(x y) a = x (y a)"""
    weight = times(e, y, a)
    return None if weight is None else e(x, weight)


def biased(e: Einsum, t: Repeat, x: Value, y: Value, a: Value, b: Value) -> Value | None:
    """(x y + b) a = x (y a) + b a, where the factors differ along axes of b only."""
    weight = times(e, y, a)
    if weight is None or any(d not in (1, n) for d, n in zip(a.shape, b.shape, strict=True)):
        return None
    return e(x, weight) + t(b * expand(a, b.shape))


Form = Callable[[Any, Any, Any], Any]
PLAIN: dict[str, Form] = {
    "factors": lambda xy, b, a: xy * a,
    "factors, exchanged,": lambda xy, b, a: a * xy,
}
BIASED: dict[str, Form] = {
    "factors after a bias": lambda xy, b, a: (xy + b) * a,
    "factors after a bias, exchanged,": lambda xy, b, a: a * (xy + b),
    "factors after a bias before": lambda xy, b, a: (b + xy) * a,
    "factors after a bias before, exchanged,": lambda xy, b, a: a * (b + xy),
}


def _examples(form: Form, *, left: bool) -> tuple[Value, ...]:
    """A linear layer of a matrix, one of three axes, and a batch of matrices."""
    found = []
    for rows, weight, row in (
        ((4, 3), (5, 3), (1, 5)),
        ((2, 4, 3), (3, 5), (1, 1, 5)),
        ((2, 4, 3), (5, 3), (1, 1, 5)),
        ((2, 4, 3), (2, 5, 3), (2, 1, 5)),
    ):
        shared = {3: 9, 2: 7} if len(weight) == 3 else {3: 9}  # labels by size: all are different
        own = tuple(shared.get(d, 10 + i) for i, d in enumerate(rows))
        others = tuple(shared.get(d, 20) for d in weight)
        operands = [
            (own, tensor("x", TensorType("f64", rows))),
            (others, tensor("y", TensorType("f64", weight))),
        ]
        (first, u), (second, v) = reversed(operands) if left else operands
        product = contract(first, second, (*own[:-1], 20), u, v)
        counts = [n if d == 1 else 1 for n, d in zip(product.shape, row, strict=True)]
        b, a = (repeat(tensor(name, TensorType("f64", row)), counts) for name in "ba")
        found.append(form(product, b, a))
    return tuple(found)


def _laws() -> Iterator[tuple[Law, ...]]:
    known = constant(y), constant(a)
    for side, product in (("right", e(x, y)), ("left", e(y, x))):

        def turned(e: Einsum, left: bool = side == "left") -> Einsum:
            return other(e) if left else e

        for name, form in PLAIN.items():
            yield one(
                f"{name} go into a constant ({side})",
                form(product, None, r(a)),
                lambda e, x, y, a, turned=turned: scaled(turned(e), x, y, a),
                facts=(*known, varying(a)),  # numbers have their own laws
                like=_examples(form, left=side == "left"),
                grade="finite",
            )
        for name, form in BIASED.items():
            yield one(
                f"{name} go into a constant ({side})",
                form(product, t(b), r(a)),
                lambda e, t, x, y, a, b, turned=turned: biased(turned(e), t, x, y, a, b),
                facts=(*known, constant(b)),
                like=_examples(form, left=side == "left"),
                grade="finite",
            )


LAWS = table("scale", *_laws(), varies=True, depends=True)
