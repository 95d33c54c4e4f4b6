"""Spellings of attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import inf, sqrt
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.spellings_base import Shapes, Spelling, mixed, term, written
from safegraph.derived.attention import Attention
from safegraph.derived.einsum import Einsum
from safegraph.derived.pointwise import Where
from safegraph.value import Value, apply, group, permute, reduce, repeat, reshape, select, unsqueeze

LIBRARY = ("trace", "old 14", "old 17", "new 18", "new 23")
D = 16
HEADS: Shapes = {"q": (2, 4, 5, D), "k": (2, 4, 7, D), "v": (2, 4, 7, D)}
ROWS: Shapes = {"q": (2, 5, D), "k": (2, 7, D), "v": (2, 7, D)}
FEW: Shapes = {"q": (2, 4, 5, D), "k": (2, 2, 7, D), "v": (2, 2, 7, D)}
BESIDE: Shapes = {"q": (2, 5, 4, D), "k": (2, 7, 4, D), "v": (2, 7, 4, D)}

# fmt: off
SCORES = {
    "matmul":             lambda q, k: torch.matmul(q, k.transpose(-1, -2)),
    "einsum":             lambda q, k: torch.einsum("...ld,...sd->...ls", q, k),
    "turned":             lambda q, k: torch.matmul(k, q.transpose(-1, -2)).transpose(-1, -2),
}
SCALED: dict[str, tuple[Any, Callable[..., Any]]] = {
    "divided":            (None, lambda q, k, s: s(q, k) / sqrt(D)),
    "times":              (None, lambda q, k, s: D**-0.5 * s(q, k)),
    "q scaled":           (None, lambda q, k, s: s(q * D**-0.5, k)),
    "q divided":          (None, lambda q, k, s: s(q / sqrt(D), k)),
    "k scaled":           (None, lambda q, k, s: s(q, k * D**-0.5)),
    "both scaled":        (None, lambda q, k, s: s(q * D**-0.25, k * D**-0.25)),
    "unscaled":           (1.0,  lambda q, k, s: s(q, k)),
    "another scale":      (0.3,  lambda q, k, s: s(q, k) * 0.3),
}
MASKED: dict[str, tuple[Shapes, Callable[..., Any]]] = {
    "no mask":            ({},                    lambda s, *m: s),
    "added":              ({"bias": (5, 7)},      lambda s, m: s + m),
    "added first":        ({"bias": (2, 1, 1, 7)}, lambda s, m: m + s),
    "added for heads":    ({"bias": (2, 4, 5, 7)}, lambda s, m: s + m),
    "where":              ({"mask": (5, 7)},      lambda s, m: torch.where(m, s, torch.tensor(-inf))),
    "filled":             ({"mask": (2, 1, 5, 7)}, lambda s, m: s.masked_fill(~m, -inf)),
}
SOFTMAX = {
    "softmax":            lambda s: F.softmax(s, dim=-1),
    "written out":        lambda s: torch.exp(s - s.amax(-1, keepdim=True)) / torch.exp(s - s.amax(-1, keepdim=True)).sum(-1, keepdim=True),
}
SHARED = {
    "repeat_interleave":  lambda k: k.repeat_interleave(2, 1),
    "expand and reshape": lambda k: k[:, :, None].expand(2, 2, 2, 7, D).reshape(2, 4, 7, D),
    "repeat of stack":    lambda k: torch.stack((k, k), 2).flatten(1, 2),
}
# fmt: on


def library(q: Any, k: Any, v: Any, *mask: Any, **options: Any) -> Any:
    """PyTorch's own."""
    return F.scaled_dot_product_attention(q, k, v, *mask, **options)


def by_groups(q: Any, k: Any, v: Any) -> Any:
    """Grouped queries as a 5-D einsum."""
    scores = torch.einsum("bhgld,bhsd->bhgls", q.reshape(2, 2, 2, 5, D), k) / sqrt(D)
    return torch.einsum("bhgls,bhse->bhgle", F.softmax(scores, -1), v).reshape(2, 4, 5, D)


def by_broadcast(q: Any, k: Any, v: Any) -> Any:
    """Grouped queries by broadcasting of matmul."""
    scores = q.reshape(2, 2, 2, 5, D) @ k[:, :, None].transpose(-1, -2) * D**-0.5
    return (F.softmax(scores, -1) @ v[:, :, None]).reshape(2, 4, 5, D)


def beside(q: Any, k: Any, v: Any) -> Any:
    """Heads beside features: b l h d."""
    scores = torch.einsum("blhd,bshd->bhls", q, k) * D**-0.5
    return torch.einsum("bhls,bshe->blhe", F.softmax(scores, -1), v)


def transposed(q: Any, k: Any, v: Any) -> Any:
    """Heads beside features, transposed to the front and back."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return (F.softmax(q @ k.transpose(-1, -2) / sqrt(D), -1) @ v).transpose(1, 2)


def keys_turned(q: Any, k: Any, v: Any) -> Any:
    """Keys permuted once to b h d s."""
    q, k, v = q.permute(0, 2, 1, 3), k.permute(0, 2, 3, 1), v.permute(0, 2, 1, 3)
    return (F.softmax(q @ k * D**-0.5, -1) @ v).permute(0, 2, 1, 3).reshape(2, 5, 4 * D)


def flat(q: Any, k: Any, v: Any) -> Any:
    """Batch and heads as one axis, by bmm."""
    q, k, v = (x.reshape(8, -1, D) for x in (q, k, v))
    return torch.bmm(F.softmax(torch.bmm(q, k.transpose(1, 2)) * D**-0.5, -1), v).reshape(
        2, 4, 5, D
    )


# -- TFLite's BATCH_MATMUL ------------------------------------------------------------------------


def batch_matmul(x: Value, y: Value, *, adj_x: bool = False, adj_y: bool = False) -> Value:
    """TFLite's op: either operand may be transposed."""

    def turned(v: Value, adjoint: bool) -> Value:
        order = (*range(v.rank - 2), v.rank - 1, v.rank - 2)
        return permute(v, order) if adjoint else v

    return turned(x, adj_x) @ turned(y, adj_y)


def plain_softmax(x: Value) -> Value:
    """Without subtraction of the maximum."""
    return x.exp() / reduce(x.exp(), [x.rank - 1], "sum")


def tflite(q: Value, k: Value, v: Value) -> Value:
    """Keys transposed by the product."""
    return batch_matmul(plain_softmax(batch_matmul(q, k, adj_y=True) * D**-0.5), v)


def tflite_scaled(q: Value, k: Value, v: Value) -> Value:
    """The query scaled, a softmax op."""
    return batch_matmul(batch_matmul(q * D**-0.5, k, adj_y=True).softmax(axis=-1), v)


def tflite_turned(q: Value, k: Value, v: Value) -> Value:
    """Values before weights, both transposed: (vT wT)T."""
    scores = batch_matmul(k, q, adj_y=True)  # s l
    order = (*range(q.rank - 2), q.rank - 1, q.rank - 2)
    weights = (permute(scores, order) * D**-0.5).softmax(axis=-1)
    return permute(batch_matmul(v, weights, adj_x=True, adj_y=True), order)


def tflite_masked(q: Value, k: Value, v: Value, bias: Value) -> Value:
    """A mask of numbers, added."""
    return batch_matmul((batch_matmul(q, k, adj_y=True) / sqrt(D) + bias).softmax(axis=-1), v)


def tflite_selected(q: Value, k: Value, v: Value, mask: Value) -> Value:
    """A mask of bool by SELECT_V2."""
    scores = batch_matmul(q, k, adj_y=True) * D**-0.5
    return batch_matmul(select(mask, scores, -inf).softmax(axis=-1), v)


def tflite_shared(q: Value, k: Value, v: Value) -> Value:
    """Grouped queries by BROADCAST_TO and RESHAPE."""
    k, v = (group(repeat(unsqueeze(x, [2]), (1, 1, 2, 1, 1)), (1, 2, 1, 1)) for x in (k, v))
    return tflite_scaled(q, k, v)


def tflite_beside(q: Value, k: Value, v: Value) -> Value:
    """Heads beside features, by einsums."""
    scores = apply(Einsum.of("blhd,bshd->bhls"), q, k) * D**-0.5
    return apply(Einsum.of("bhls,bshe->blhe"), scores.softmax(axis=-1), v)


def tflite_rows(q: Value, k: Value, v: Value) -> Value:
    """Heads made and joined by reshapes of rows."""
    q, k, v = (permute(reshape(x, (2, -1, 2, 8)), (0, 2, 1, 3)) for x in (q, k, v))
    scores = batch_matmul(q, k, adj_y=True) * 8**-0.5
    return reshape(permute(batch_matmul(scores.softmax(axis=-1), v), (0, 2, 1, 3)), (2, 5, 16))


# fmt: off
BIAS: Shapes = {"bias": (2, 1, 5, 7)}
TERMS: tuple[tuple[str, Any, Callable[..., Value], Shapes], ...] = (
    ("TFLite's", Attention(), tflite, HEADS),
    ("TFLite's, rows", Attention(), tflite, ROWS),
    ("TFLite's, q scaled", Attention(), tflite_scaled, HEADS),
    ("TFLite's, turned", Attention(), tflite_turned, HEADS),
    ("TFLite's, turned, rows", Attention(), tflite_turned, ROWS),
    ("TFLite's, masked", Attention(safe=False), tflite_masked, {**HEADS, **BIAS}),
    ("TFLite's, selected", Attention(safe=False), tflite_selected, {**HEADS, "mask": (2, 1, 5, 7)}),
    ("TFLite's, shared", Attention(), tflite_shared, FEW),
    ("TFLite's, beside features", Attention(), tflite_beside, BESIDE),
    ("TFLite's, heads of rows", Attention(), tflite_rows, ROWS),
)
# fmt: on


def spellings() -> Iterator[Spelling]:
    """Every spelling of attention."""
    for name, operands, mask in (
        ("no mask", HEADS, {}),
        ("rows", ROWS, {}),
        ("mask", HEADS, {"mask": (2, 1, 5, 7)}),
        ("bias", HEADS, {"bias": (5, 7)}),
    ):
        # the new exporter takes four axes only
        routes = ("trace", "old 14", "old 17") if name == "rows" else LIBRARY
        # exporters guard a mask of bool against rows without a place, and not one of numbers
        for route in routes:
            safe = name != "bias" or route == "trace" or route == "new 23"
            yield from written(
                f"attention: library, {name}",
                Attention(safe=safe),
                library,
                {**operands, **mask},
                (route,),
                # the new exporter bars by the lowest number, which no mask of bool does
                (Where,) if (name, route) == ("mask", "new 18") else (),
            )
    yield from written(
        "attention: library, another scale",
        Attention(0.3),
        lambda q, k, v: library(q, k, v, scale=0.3),
        HEADS,
        LIBRARY,
    )
    yield from written(
        "attention: library, shared",
        Attention(),
        lambda q, k, v: library(q, *(k_.repeat_interleave(2, 1) for k_ in (k, v))),
        FEW,
        LIBRARY,
    )
    for i, (s, c, m, n) in enumerate(
        mixed(list(SCORES), list(SCALED), list(MASKED), list(SOFTMAX), step=5)
    ):
        scale, scaled = SCALED[c]
        extra, masked = MASKED[m]

        def attend(
            q: Any, k: Any, v: Any, *mask: Any,
            s: Any = SCORES[s], c: Any = scaled, m: Any = masked, n: Any = SOFTMAX[n],
        ) -> Any:  # fmt: skip
            return n(m(c(q, k, s), *mask)) @ v

        yield from written(
            f"attention: {s}, {c}, {m}, {n}",
            Attention(scale, safe=not extra),
            attend,
            {**HEADS, **extra},
            ("old 17", "new 18") if i % 5 == 0 else ("old 13",),
        )
    for name, function in SHARED.items():
        yield from written(
            f"attention: shared by {name}",
            Attention(),
            lambda q, k, v, f=function: F.softmax(q @ f(k).transpose(-1, -2) / sqrt(D), -1) @ f(v),
            FEW,
            ("old 13", "new 18", "trace"),
        )
    for name, layout, operands in (
        ("shared by a 5-D einsum", by_groups, FEW),
        ("shared by broadcasting", by_broadcast, FEW),
        ("heads beside features", beside, BESIDE),
        ("heads transposed", transposed, BESIDE),
        ("keys turned once", keys_turned, BESIDE),
        ("batch and heads as one axis", flat, HEADS),
    ):
        yield from written(
            f"attention: {name}", Attention(), layout, operands, ("old 13", "new 18", "trace")
        )
    for name, op, build, operands in TERMS:
        yield from term(f"attention: {name}", op, build, operands)
