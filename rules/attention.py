"""Attention recognised: a softmax between two contractions, whatever their labels.

Scores may have a factor, in any place, and a mask, added or chosen by; rows that a mask leaves
nothing to attend to may be guarded.  Masks that are repeated and heads that are shared go into the
op, which broadcasts them itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf, sqrt
from typing import Any

from safegraph.derived.attention import Attention
from safegraph.derived.einsum import Einsum, Labels, einsum
from safegraph.derived.norm import Softmax
from safegraph.dims import Dim
from safegraph.dtypes import is_float
from safegraph.law import Law, OpVar, Term, Var, any_of, one, table, uniform, variables
from safegraph.op import Op, TensorType
from safegraph.ops import Binary, Group, Reduce, Repeat, Scalar, Select, Unary, Unsqueeze
from safegraph.rules.affine import near, shortest
from safegraph.rules.einsum import other
from safegraph.value import (
    Value,
    apply,
    binary,
    group,
    permute,
    reduce,
    repeat,
    select,
    squeeze,
    tensor,
    ungroup,
)

a, q, k, v, m = variables("a q k v m")
(soft,) = any_of(Softmax, "soft")
(attention,) = any_of(Attention, "attention")
(f,) = any_of(Reduce, "f")
r, t = any_of(Repeat, "r t")
(u,) = any_of(Unsqueeze, "u")
g, g2 = any_of(Group, "g g2")


def attend(
    soft: Softmax, first: Einsum, q: Value, k: Value, second: Einsum, v: Value,
    scale: float, mask: Value | None, *, safe: bool,
) -> Value | None:  # fmt: skip
    """Softmax between contractions as `Attention`, its operands permuted to [batch, rows, features].

    Labels that q, k and v share are the batch; those of q alone are rows: the last are the queries,
    others are heads that share a head of k and v.
    """
    key = soft.axis
    scores: Labels = first.out
    if scores[key] in first.left:
        first, q, k = other(first), k, q
    if not is_float(q.dtype) or scores[key] in first.left:
        return None
    if 0 in (*q.shape, *k.shape):
        return None  # no head, or no key
    depth = [c for c in first.left if c not in scores]
    places = [i for i in range(len(scores)) if i != key]
    batch = [i for i in places if scores[i] in first.left and scores[i] in first.right]
    rows = [i for i in places if i not in batch]
    weights = second.left
    features = [c for c in second.right if c not in weights]
    if (
        len(depth) != 1
        or len(features) != 1
        or not rows
        or sorted(first.right) != sorted([*(scores[i] for i in batch), scores[key], *depth])
        or sorted(second.right) != sorted([*(weights[i] for i in batch), weights[key], *features])
        or sorted(second.out) != sorted([*(weights[i] for i in places), *features])
    ):
        return None
    own = [scores[i] for i in batch]
    query = _ordered(q, first.left, [*own, *(scores[i] for i in rows), *depth])
    keys = _ordered(k, first.right, [*own, scores[key], *depth])
    values = _ordered(v, second.right, [*(weights[i] for i in batch), weights[key], *features])
    # members of a head stand beside it; without one they are more queries
    at, many = (len(batch) - 1, len(rows)) if batch else (0, len(rows))
    runs = [1] * at + [many] + [1] if batch else [many]
    sizes = query.shape[at : at + many]
    query = group(query, [*runs, 1])
    operands = [query, keys, values]
    if mask is not None:
        operands.append(group(permute(mask, [*batch, *rows, key]), [*runs, 1]))
    op = Attention(_scale(scale, query.shape[-1], q.dtype), False, safe)
    y = apply(op, *operands)
    y = ungroup(
        y, [(-1,)] * at + [tuple(sizes) if many > 1 else (-1,)] + [(-1,)] * (y.rank - at - 1)
    )
    made = [*(weights[i] for i in batch), *(weights[i] for i in rows), *features]
    return permute(y, [made.index(c) for c in second.out])


def _ordered(x: Value, labels: Labels, wanted: Sequence[int]) -> Value:
    return permute(x, [labels.index(c) for c in wanted])


def _scale(scale: float, depth: Dim, dtype: str) -> float | None:
    usual = isinstance(depth, int) and near(scale * sqrt(depth), 1, dtype)
    tidy = float(f"{scale:.5g}")  # a product of roots of the number that was meant
    return None if usual else tidy if near(tidy, scale, dtype) else shortest(scale, dtype)


def _scores(first: OpVar, scale: bool, mask: str, infinite: Term) -> Term:
    scores: Any = first(q, k)
    if scale:
        scores = scores * a
    if mask == "added":
        return scores + m
    return Select()(m, scores, infinite) if mask == "chosen" else scores


def _attentions() -> Iterator[tuple[Law, ...]]:
    """Scores with and without a factor and a mask, rows without a place guarded or not."""
    first, second = any_of(Einsum, "first second")
    (number,) = any_of(Scalar, "number")
    (wide,) = any_of(Unsqueeze, "wide")
    (over,) = any_of(Repeat, "over")
    infinite = over(wide(number()))
    for scale in (False, True):
        for mask in ("", "added", "chosen"):
            scores = _scores(first, scale, mask, infinite)
            weights: Any = soft(scores)
            guards = {"": weights}
            if mask:
                missing = Unary("is_nan")(weights)
                guards["guarded"] = Select()(missing, Var("zero"), weights)
                blocked = t(f(Binary("equal")(scores, infinite)))
                guards["zero rows"] = Select()(blocked, Var("zero"), weights)
            for guard, inner in guards.items():
                words = ["attention", "scaled" if scale else "", mask, guard]
                for turned in (False, True):
                    name = " ".join(filter(None, [*words, "turned" if turned else ""]))
                    left = second(v, inner) if turned else second(inner, v)
                    yield _attention(name, left, turned, scale, mask, guard)


def _attention(
    name: str, left: Term, turned: bool, scale: bool, mask: str, guard: str
) -> tuple[Law, ...]:
    def build(**found: Any) -> Value | None:
        if mask == "chosen" and found["number"].value != -inf:
            return None
        if guard and found["zero_is"] != 0:
            return None
        if guard == "zero rows" and not _all_blocked(found):
            return None
        second = other(found["second"]) if turned else found["second"]
        return attend(
            found["soft"], found["first"], found["q"], found["k"], second, found["v"],
            found["a_is"] if scale else 1.0, found.get("m") if mask else None,
            safe=not mask or bool(guard),
        )  # fmt: skip

    facts = [uniform(a)] * scale + [uniform(Var("zero"))] * bool(guard)
    # an infinite score would make NaN of a row that is not all blocked
    grade = "finite" if guard == "guarded" else "real"
    like = _attention_example(turned, scale, mask, guard)
    return one(name, left, build, facts=tuple(facts), grade=grade, like=like)


def _attention_example(turned: bool, scale: bool, mask: str, guard: str) -> Value:
    q, k, v = (
        tensor(n, f"f64[2 {size}]") for n, size in (("q", "3 4"), ("k", "5 4"), ("v", "5 6"))
    )
    scores = einsum("bld,bsd->bls", q, k)
    scores = scores * 0.3 if scale else scores
    if mask == "added":
        scores = scores + tensor("m", "f64[2 3 5]")
    elif mask == "chosen":
        scores = select(tensor("m", "bool[2 3 5]"), scores, -inf)
    weights = Softmax(2)(scores)
    if guard == "guarded":
        weights = select(weights.is_nan(), 0, weights)
    elif guard == "zero rows":
        blocked = reduce(binary("equal", scores, -inf), [2], "all")
        weights = select(repeat(blocked, (1, 1, 5)), 0, weights)
    return einsum("bse,bls->ble", v, weights) if turned else einsum("bls,bse->ble", weights, v)


def _all_blocked(found: dict[str, Any]) -> bool:
    f, soft = found["f"], found["soft"]
    return (
        f.kind == "all"
        and f.axes == (soft.axis,)
        and all(c == 1 or i == soft.axis for i, c in enumerate(found["t"].counts))
        and found.get("number", Scalar(-inf, "f32")).value == -inf
    )


def mask_once(
    attention: Attention, q: Value, k: Value, v: Value, m: Value, root: TensorType
) -> Value | None:
    """A mask that is repeated, as it was before: attention broadcasts it.

    Not where the scores would broadcast to the mask.
    """
    lead = 0
    while lead < m.rank - 1 and m.shape[lead] == 1 and m.rank - lead > 2:
        lead += 1
    found = attention(q, k, v, squeeze(m, range(lead)))
    return found if found.shape == root.shape else None


def mask_inside(
    attention: Attention, u: Unsqueeze, q: Value, k: Value, v: Value, m: Value, root: TensorType
) -> Value | None:
    """A mask with new axes in front, as it was before."""
    if u.axes != tuple(range(len(u.axes))) or m.rank < 2:
        return None
    found = attention(q, k, v, m)
    return found if found.shape == root.shape else None


def share_heads(
    attention: Attention, q: Value, k: Value, v: Value, mask: tuple[Value, ...], *movement: Op
) -> Value | None:
    """Heads of k and v that are repeated side by side, each once."""
    g, r, g2, r2 = movement
    if g is not g2 or not isinstance(g, Group) or r is not r2:
        return None
    heads = q.rank - 3
    runs = (*[1] * heads, 2, 1, 1)
    repeated = [i for i, c in enumerate(r.spec["counts"]) if c != 1]
    if heads < 0 or g.runs != runs or repeated != [heads + 1] or k.shape[heads + 1] != 1:
        return None
    return attention(q, squeeze(k, [heads + 1]), squeeze(v, [heads + 1]), *mask)


def _shared(*mask: Value) -> Value:
    k, v = (
        group(repeat(tensor(n, f"f64[2 2 1 5 {size}]"), (1, 1, 2, 1, 1)), (1, 2, 1, 1))
        for n, size in (("k", 4), ("v", 6))
    )
    return Attention()(tensor("q", "f64[2 4 3 4]"), k, v, *mask)


# fmt: off
LAWS = table("attention",
    *_attentions(),
    one("attention repeats its mask",            attention(q, k, v, r(m)), mask_once, grade="exact"),
    one("attention adds axes to its mask",       attention(q, k, v, u(m)), mask_inside, grade="exact"),
    one("attention of repeated heads",           attention(q, g(r(k)), g2(t(v))), lambda attention, q, k, v, g, r, g2, t: share_heads(attention, q, k, v, (), g, r, g2, t),
        like=_shared()),
    one("attention of repeated heads, masked",   attention(q, g(r(k)), g2(t(v)), m), lambda attention, q, k, v, m, g, r, g2, t: share_heads(attention, q, k, v, (m,), g, r, g2, t),
        like=_shared(tensor("m", "f64[3 5]"))),
)
# fmt: on
