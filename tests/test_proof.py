"""Proofs for all sizes: index expressions are the meaning, true laws proved, false ones never."""

from collections.abc import Callable, Mapping
from itertools import product
from math import prod
from typing import Any

import numpy as np
import pytest
import sympy
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from safegraph import ops
from safegraph.cases import numeric, random_values
from safegraph.derived.conv import Conv
from safegraph.derived.einsum import Einsum, Linear, Matmul
from safegraph.derived.index import Flip
from safegraph.derived.pool import AvgPool
from safegraph.derived.shape import Concat, Tile
from safegraph.dims import Size, at_least, evaluate
from safegraph.errors import ShapeError
from safegraph.law import Law, any_of, nonnegative, one, spec, uniform, variables
from safegraph.op import OPS, Op
from safegraph.ops import (
    Binary,
    Cast,
    Fold,
    Group,
    Interleave,
    Pad,
    Permute,
    Reduce,
    Repeat,
    Select,
    Slice,
    Stride,
    Unary,
    Unfold,
    Ungroup,
    Unsqueeze,
)
from safegraph.proof import Proof, prove_law
from safegraph.proof.elements import Elements
from safegraph.proof.functions import RIGHT_INVERSES, UNDONE
from safegraph.proof.indexing import Guard, UndecidedError
from safegraph.proof.normal import Applied, Chosen, Normal, Place, Read, Reduced
from safegraph.rules import ALL
from safegraph.rules.conv import delta
from safegraph.soundness import run_value
from safegraph.value import Value, apply, full, permute, reduce, slice_axis, walk

# -- the normal form means what the ops do --------------------------------------------------------

CONTRACTIONS: list[type[Op]] = [Einsum, Matmul, Linear, Conv, AvgPool, Concat, Tile]
MOVEMENT = [c for c in OPS.values() if issubclass(c, ops.Movement)]
COMPARED: list[type[Op]] = [*MOVEMENT, Reduce, Binary, *CONTRACTIONS]


def meaning(x: Normal, leaves: Mapping[str, np.ndarray], sizes: Mapping[str, int]) -> float:
    """A normal form computed naively, by its definition."""
    return sum(_product(p, leaves, dict(sizes)) for p in x)


def _product(p: Any, leaves: Mapping[str, np.ndarray], sizes: dict[str, int]) -> float:
    symbols = {s: sizes[s.name] for s in p.coefficient.free_symbols}
    factor = float(p.coefficient.subs(symbols).doit())
    return factor * sum(
        prod(_factor(f, leaves, at) for f in p.factors)
        for at in _places(p.sums, sizes)
        if all(_holds(g, at) for g in p.guards)
    )


def _places(sums: Any, sizes: dict[str, int]) -> list[dict[str, int]]:
    ranges = [range(evaluate(d, sizes)) for _, d in sums]
    return [
        sizes | dict(zip((n for n, _ in sums), values, strict=True)) for values in product(*ranges)
    ]


def _holds(guard: Guard, at: dict[str, int]) -> bool:
    e, by = evaluate(guard.e, at), evaluate(guard.by, at)
    return {"from 0": e >= 0, "zero": e == 0, "divides": e % by == 0}[guard.kind]


def _factor(f: Any, leaves: Mapping[str, np.ndarray], at: dict[str, int]) -> float:
    match f:
        case Read(name, index):
            return float(leaves[name][tuple(evaluate(e, at) for e in index)])
        case Place(e):
            return evaluate(e, at)
        case Reduced(kind, sums, body):
            values = [meaning(body, leaves, place) for place in _places(sums, at)]
            return float(
                ops.REDUCTIONS[kind.removeprefix("ordered ").replace("fold", "sum")](values)
            )
        case Chosen(guards, then, other):
            chosen = then if all(_holds(g, at) for g in guards) else other
            return meaning(chosen, leaves, at)
        case Applied("reciprocal", (x,)):
            return 1 / meaning(x, leaves, at)
        case Applied("any" | "maximum", operands):
            return max(meaning(x, leaves, at) for x in operands)
        case Applied("all" | "minimum", operands):
            return min(meaning(x, leaves, at) for x in operands)
        case Applied(function, operands):
            op = eval(function.partition(" of ")[0], vars(ops))
            return float(op.run(*(np.asarray(meaning(x, leaves, at)) for x in operands)))
    raise AssertionError(f)


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_an_index_expression_gives_what_numpy_gives(seed: int, exact: bool) -> None:
    rng = np.random.default_rng(seed)
    sample = random_values(rng, 5, ops=COMPARED, symbolic=True, numel=60)
    value = sample.outputs[0]
    assume(all(v.dtype in ("f64", "bool") for v in walk([value])))  # `meaning` computes in floats
    expected = run_value(value, sample.leaves, sample.sizes)
    elements = Elements(exact=exact)
    at = tuple(elements.ranges.fresh(d) for d in value.shape)
    try:
        found = elements.at(value, at)
    except (UndecidedError, ShapeError):
        return  # no index expression, or a term for some sizes only
    for _ in range(3):
        place = tuple(int(rng.integers(d)) for d in numeric(value.shape, sample.sizes))
        names = {str(e): i for e, i in zip(at, place, strict=True) if e != 0}
        with np.errstate(all="ignore"):
            got = meaning(found, sample.leaves, {**sample.sizes, **names})
        np.testing.assert_allclose(got, expected[place], rtol=1e-9, atol=1e-9)


# -- true laws ------------------------------------------------------------------------------------

PROVED = (
    "permutes compose", "groups compose", "ungroup undoes group", "slice undoes pad",
    "stride undoes interleave", "slices compose", "pads compose", "permute and unary commute",
    "a slice of a permute", "a slice of a stride", "a slice of one of 3 parts",
    "windows of a permute", "a reduction of a group", "a reduction of equal values",
    "3 neighbouring slices joined", "relu of 2 joined parts", "a sum of products is a contraction",
    "a contraction splits a group (left)",
    "a contraction of joined operands (right)", "a stride of a contraction",
    "a product of a constant table's rows (left)", "a number in a sum", "a convolution of a border",
    "a convolution of a 1x1 convolution", "windows of one axis in a contraction (left)",
    "a convolution beside its operand", "unary undoes unary", "unary again after unary",
    "a difference is a sum", "exp of a logarithm", "a maximum with less", "a magnitude",
    "a root of a square", "a square of a root", "a number times a maximum",
    "a number goes into a minimum", "a small power is a product", "a power of a half is a root",
    "an inverse of an exponential", "1 and tanh", "a choice by a negation",
    "a logarithm of shifted exponentials", "a softmax without a maximum",
    "a softmax by its logarithm", "gelu by a sigmoid of a sum",
)  # fmt: skip


@pytest.mark.parametrize("name", PROVED)
def test_a_true_law_is_proved(name: str) -> None:
    (law,) = (law for law in ALL if law.name == name)
    proof = prove_law(law, structures=2)
    assert proof.proved, str(proof)
    assert proof.structures == 2
    assert proof.status == "proved"


SYMPY = {
    "arcsin": "asin", "arccos": "acos", "arctan": "atan", "arcsinh": "asinh", "arccosh": "acosh",
    "arctanh": "atanh",
}  # fmt: skip


def in_sympy(kind: str, argument: Any) -> Any:
    """A unary function as SymPy has it."""
    match kind:
        case "gaussian":
            return (1 + sympy.erf(argument / sympy.sqrt(2))) / 2
        case "inv_gaussian":
            return sympy.sqrt(2) * sympy.erfinv(2 * argument - 1)
    return getattr(sympy, SYMPY.get(kind, kind))(argument)


@pytest.mark.parametrize(("inner", "outer"), UNDONE.items())
def test_what_undoes_a_function_does_so_for_all_real_numbers(inner: str, outer: str) -> None:
    for number in (-3, -sympy.Rational(1, 2), 0, sympy.Rational(1, 3), 2):
        found = in_sympy(outer, in_sympy(inner, sympy.Float(number, 40)))
        assert abs(sympy.N(found - number, 30)) < 1e-20


@pytest.mark.parametrize(("f", "g"), RIGHT_INVERSES.items())
def test_right_inverses_give_back_what_a_function_gives(f: str, g: str) -> None:
    sevenths = (1, 3, 6) if f == "inv_gaussian" else (-20, -6, -1, 1, 3, 6, 9, 30)
    numbers = [sympy.Rational(n, 7) for n in sevenths]
    values = [in_sympy(f, sympy.Float(number, 40)) for number in numbers]
    real = [y for y in values if y.is_real and y.is_finite]
    assert real
    for y in real:
        assert abs(sympy.N(in_sympy(f, in_sympy(g, y)) - y, 30)) < 1e-20


# -- false laws -----------------------------------------------------------------------------------

x, y, z, condition = variables("x y z condition")
p, q = any_of(Permute, "p q")
(g,) = any_of(Group, "g")
(v,) = any_of(Ungroup, "v")
(t,) = any_of(Stride, "t")
(s, c), (a, b) = any_of(Slice, "s c"), any_of(Pad, "a b")
(j,) = any_of(Interleave, "j")
(r,) = any_of(Repeat, "r")
(u,) = any_of(Unsqueeze, "u")
(f, h) = any_of(Reduce, "f h")
(e,) = any_of(Einsum, "e")
(k,) = any_of(Concat, "k")
(w,) = any_of(Unfold, "w")
(o,) = any_of(Fold, "o")
(n,) = any_of(Conv, "n")
(m,) = any_of(Binary, "m")


def sliced(x: Value, starts: Any, stops: Any) -> Value:
    return apply(Slice(tuple(starts), tuple(stops)), x)


def slices_shifted(c: Slice, s: Slice, x: Value) -> Value | None:
    """One too far."""
    starts = [i + 2 * j for i, j in zip(c.starts, s.starts, strict=True)]
    sizes = s.type(c.type(x.type)).shape
    return sliced(x, starts, [i + d for i, d in zip(starts, sizes, strict=True)])


def slice_of_pad(s: Slice, a: Pad, x: Value) -> Value | None:
    """The slice without the border taken off."""
    cut = sliced(x, s.starts, [None] * x.rank)
    return cut if cut.shape == s.type(a.type(x.type)).shape else None


def stride_of_slice(t: Stride, s: Slice, x: Value) -> Value | None:
    """Strided first: the start counts in steps then."""
    first = t(x)
    cut = slice_axis(first, 0, s.starts[0], None) if x.rank == 1 else None
    return cut if cut is not None and cut.shape == t.type(s.type(x.type)).shape else None


def slice_of_stride(s: Slice, t: Stride, x: Value) -> Value | None:
    """The start is one too far."""
    starts = [i * n + (i != 0) for i, n in zip(s.starts, t.steps, strict=True)]
    found = t(sliced(x, starts, [None] * x.rank))
    return found if found.shape == s.type(t.type(x.type)).shape else None


def ungrouped_in_another_order(g: Group, x: Value) -> Value | None:
    if x.rank != 2 or g.runs != (2,):
        return None
    return Group((2,))(permute(x, (1, 0)))


def other_axes(f: Reduce, p: Permute, x: Value) -> Value:
    return permute(reduce(x, f.axes, f.kind), p.order)


def reduced_across(f: Reduce, x: Value) -> Value | None:
    """The other axis of a matrix, turned."""
    if x.rank != 2 or len(f.axes) != 1:
        return None
    found = permute(reduce(x, [1 - f.axes[0]], f.kind), (1, 0))
    return found if found.shape == f.type(x.type).shape else None


def exchanged_result(e: Einsum, x: Value, y: Value) -> Value | None:
    """The same labels for the result in another order."""
    return apply(Einsum(e.left, e.right, e.out[::-1]), x, y) if len(e.out) > 1 else None


def relabelled(e: Einsum, x: Value, y: Value) -> Value | None:
    """The right operand's labels turned round."""
    return apply(Einsum(e.left, e.right[::-1], e.out), x, y)


def absorbed_permute(e: Einsum, p: Permute, x: Value, y: Value) -> Value:
    """The order instead of its inverse."""
    left = tuple(e.left[i] for i in p.order)
    return apply(Einsum(left, e.right, e.out).canonical(), x, y)


def repeated_and_summed(f: Reduce, r: Repeat, x: Value) -> Value | None:
    """A sum of equal values without the factor."""
    return Repeat(tuple(1 if i in f.axes else d for i, d in enumerate(r.counts)))(x) if (
        f.kind == "sum" and set(f.axes) <= {i for i, d in enumerate(r.counts) if d != 1}
    ) else None  # fmt: skip


def joined_the_other_way(e: Einsum, k: Concat, x: Value, y: Value, z: Value) -> Value | None:
    """Parts meet the wrong parts of the other operand."""
    label = e.left[k.axis]
    if label in e.out or label not in e.right:
        return None
    place, middle = e.right.index(label), y.shape[k.axis]
    return e(x, slice_axis(z, place, middle, None)) + e(y, slice_axis(z, place, 0, middle))


def mean_of_part_means(f: Reduce, k: Concat, x: Value, y: Value) -> Value | None:
    """The mean of the means: right where the parts have one size only."""
    if f.kind != "mean" or f.axes != (k.axis,):
        return None
    return (f(x) + f(y)) / full(2.0, f.type(x.type).shape, x.dtype)


def pooled_means(f: Reduce, h: Reduce, x: Value) -> Value | None:
    """Maxima of sums as sums of maxima."""
    return h(f(x)) if {f.kind, h.kind} == {"max", "sum"} else None


def padded_conv(n: Conv, a: Pad, x: Value, y: Value) -> Value | None:
    """The border at the other end."""
    border = (*a.before, *a.after)
    if a.fill != 0 or any((*a.before[:2], *a.after[:2])) or Size in map(type, border):
        return None
    before, after = (
        tuple(i + int(d) for i, d in zip(own, added[2:], strict=True))
        for own, added in ((n.before, a.after), (n.after, a.before))
    )
    return Conv(n.strides, before, after, n.dilations, n.groups)(x, y)


def overlapping(o: Fold, w: Unfold, x: Value) -> Value | None:
    """Windows that overlap, added up again."""
    return x if o.type(w.type(x.type)) is x.type else None


def windows_turned(w: Unfold, x: Value) -> Value | None:
    """Windows and taps exchanged."""
    found = w(x)
    order = [
        w.axis + 1 if i == w.axis else w.axis if i == w.axis + 1 else i for i in range(found.rank)
    ]
    turned = permute(found, order)
    return turned if turned.shape == found.shape else None


@spec
def turned(p: Permute) -> Permute:
    """The inverse order."""
    return Permute(tuple(p.order.index(i) for i in range(len(p.order))))


@spec
def both(p: Permute, q: Permute) -> Permute:
    """The orders the wrong way round."""
    return Permute(tuple(q.order[i] for i in p.order))


@spec
def both_borders(a: Pad, b: Pad) -> Pad | None:
    """The sum of both borders, whatever the fills."""
    before, after = (
        tuple(i + d for i, d in zip(m, n, strict=True))
        for m, n in ((a.before, b.before), (a.after, b.after))
    )
    return Pad(before, after, a.fill)


@spec
def one_more(t: Stride) -> Stride | None:
    """One step more."""
    return Stride(tuple(n + 1 for n in t.steps))


def strided_before(t: Stride, j: Interleave, x: Value) -> Value | None:
    """A stride through zeros between elements, as if they came after it."""
    found = j(t(x))
    return found if found.shape == t.type(j.type(x.type)).shape else None


def product_of_sums(f: Reduce, x: Value, y: Value) -> Value | None:
    return f(x) * f(y) if f.kind == "sum" else None


def factor_forgotten(f: Reduce, x: Value, y_is: float) -> Value | None:
    return f(x) if f.kind == "sum" and y_is != 1 else None


def first_elements(c: Slice, x: Value) -> Value:
    return sliced(x, [0] * x.rank, c.type(x.type).shape)


def repeated_and_turned(r: Repeat, x: Value) -> Value | None:
    found = r(x)
    return permute(found, range(x.rank)[::-1]) if found.shape == found.shape[::-1] else None


def split_the_wrong_way(v: Ungroup, x: Value) -> Value | None:
    """The inner factor first."""
    found = v(x)
    if x.rank != 1 or found.rank != 2:
        return None
    return permute(Ungroup(((-1, found.shape[0]),))(x), (1, 0))


def same_type(build: Callable[..., Value]) -> Callable[..., Value | None]:
    """A right side where it has the type of the left one."""

    def guarded(root: Any, **found: Any) -> Value | None:
        value = build(**found)
        return value if value.type is root else None

    return guarded


def exp(x: Value) -> Value:
    return apply(Unary("exp"), x)


def wrong_for(condition: Callable[..., Any]) -> Callable[..., Value]:
    """exp(x), but x itself for shapes of some rank of which this holds."""
    return lambda x: x if x.rank and condition(*x.shape) else exp(x)


def halves(f: Reduce, x: Value) -> Value | None:
    """Both halves of an even number of elements; the last of an odd one is lost."""
    if x.rank != 1 or f.kind != "sum" or f.axes != (0,) or x.dtype != "f64":
        return None
    half = x.shape[0] // 2
    return f(slice_axis(x, 0, 0, half)) + f(slice_axis(x, 0, half, 2 * half))


def stops_less_one(s: Slice, x: Value) -> Value:
    """The last element left out, where the end is a number."""
    ends = [x.shape[i] if stop is None else stop for i, stop in enumerate(s.stops)]
    return sliced(x, s.starts, [e - 1 if isinstance(e, int) and e > 1 else e for e in ends])


def mean_of_means(f: Reduce, h: Reduce, x: Value) -> Value | None:
    """Right for floats; the mean of integers is rounded twice."""
    if f.kind != "mean" or h.kind != "mean" or set(f.axes) & set(h.axes):
        return None
    return reduce(x, (*f.axes, *h.axes), "mean")


def without_border(kind: str) -> Callable[..., Value | None]:
    """A reduction of the inside alone."""

    def build(f: Reduce, a: Pad, x: Value) -> Value | None:
        kept = [i for i in range(x.rank) if i not in f.axes]
        if f.kind != kind or any(a.before[i] or a.after[i] for i in kept):
            return None
        return f(x)

    return build


def exchanged(first: str, second: str) -> Callable[..., Value]:
    """An op with the values of two fields exchanged."""

    def build(x: Value, **found: Any) -> Value:
        ((name, op),) = ((n, i) for n, i in found.items() if isinstance(i, Op))
        given = {first: op.spec[second], second: op.spec[first]}
        operands = [i for n, i in found.items() if n != name]
        return apply(type(op)(**op.spec | given), x, *operands)

    return build


def where_float(build: Callable[..., Value]) -> Callable[..., Value | None]:
    """A right side for floats only."""
    return lambda x: build(x) if x.dtype == "f64" else None


def where(
    accepted: Callable[[float], bool], build: Callable[[Value], Value]
) -> Callable[..., Value | None]:
    """A right side for some numbers y only."""

    def guarded(x: Value, y_is: float) -> Value | None:
        return build(x) if accepted(y_is) else None

    return guarded


def scaled_maximum(kind: str) -> Callable[..., Value]:
    """Both operands times a number, whatever its sign."""

    def build(x: Value, y_is: float, z: Value) -> Value:
        factor = full(y_is, x.shape, x.dtype)
        return apply(Binary(kind), x * factor, z * factor)

    return build


def beside(change: Callable[[Value], Value]) -> Callable[..., Value | None]:
    """A convolution and its operand, added, with another weight for the operand."""

    def build(n: Conv, x: Value, y: Value, root: Any) -> Value | None:
        identity = delta(n, x, y)
        merged = None if identity is None else n(x, y + change(identity))
        return merged if merged is not None and merged.shape == root.shape else None

    return build


def chosen_alike(condition: Value, y_is: float, x: Value, z: Value) -> Value | None:
    """The same choice, for a condition that was negated."""
    boolean = condition.dtype == "bool"
    return apply(Select(), condition, x, z) if boolean and y_is == 0 else None


WINDOWS = "x: 7; x: 9; x: 2 8"
IMAGES = "x: 1 2 7, y: 2 2 2; x: 1 2 9 9, y: 2 2 2 2"
SQUARES = "x: 3 3, y: 3 3"
ONE_TO_ONE = "x: 2 4 6, y: 4 4 1; x: 2 4 6, y: 4 4 3; x: 2 4 5, y: 4 2 3"
EXP, LOG, TANH, INVERSE = (Unary(kind) for kind in ("exp", "log", "tanh", "inverse"))
MAXIMUM, MINIMUM, POW, ROOT = (Binary(kind) for kind in ("maximum", "minimum", "pow", "root"))
PARTS = "x: 2 3, y: 2 3, z: 6 4; x: 2 3, y: 2 3, z: 4 6"
FALSE: dict[str, tuple[Law, ...]] = {
    "slices compose, shifted": one("f", s(c(x)), slices_shifted),
    "a slice of a border, off by the border": one("f", s(a(x)), slice_of_pad),
    "a stride of a slice, in steps": one("f", t(s(x)), stride_of_slice, like="x: 6; x: 4"),
    "a slice of a stride, off by one": one("f", s(t(x)), slice_of_stride),
    "a group in another order": one("f", g(x), ungrouped_in_another_order, like="x: 3 3; x: 4 5"),
    "permutes compose the other way": one("f", q(p(x)), both(p, q)(x)),
    "a permute is its inverse": one("f", p(x), turned(p)(x)),
    "pads of different fills": one("f", b(a(x)), both_borders(a, b)(x)),
    "another step": one("f", t(x), one_more(t)(x)),
    "a reduction of other axes": one("f", f(p(x)), other_axes),
    "a reduction of the other axis": one("f", f(x), reduced_across, like="x: 3 3; x: 4 4"),
    "sums of maxima": one("f", f(h(x)), pooled_means),
    "a sum of equal values": one("f", f(r(x)), repeated_and_summed),
    "a mean of means of parts": one("f", f(k(x, y)), mean_of_part_means, like="x: 2 3, y: 2 4"),
    "a result transposed": one("f", e(x, y), exchanged_result, like=SQUARES),
    "an operand relabelled": one("f", e(x, y), relabelled, like=SQUARES),
    "a permute absorbed the wrong way": one(
        "f", e(p(x), y), absorbed_permute, like="x: 3 3 3, y: 3 3"
    ),
    "parts joined the other way": one("f", e(k(x, y), z), joined_the_other_way, like=PARTS),
    "a border of a convolution, exchanged": one(
        "f", n(a(x), y), padded_conv, like="x: 2 5 6, y: 4 5 3"
    ),
    "overlapping windows added up": one("f", o(w(x)), overlapping),
    "windows exchanged with taps": one("f", w(x), windows_turned),
    "a stride through zeros": one("f", t(j(x)), strided_before),
    "an exp of a sum": one("f", Unary("exp")(x + y), Unary("exp")(x) + Unary("exp")(y)),
    "a sum of products": one("f", f(x * y), product_of_sums),
    "a factor forgotten": one("f", f(x * y), factor_forgotten, facts=uniform(y)),
    "operands exchanged": one("f", m(x, y), lambda m, x, y: m(y, x)),
    "slices of other ends": one("f", c(x), first_elements),
    "repeats of other axes": one("f", r(x), repeated_and_turned),
    "split the wrong way": one("f", v(x), split_the_wrong_way, like="x: 6; x: 4; x: 9"),
    "wrong for a size of 1": one("f", Unary("exp")(x), wrong_for(lambda n, *_: n == 1)),
    "wrong for a size of 17": one("f", Unary("exp")(x), wrong_for(lambda n, *_: n == 17)),
    "wrong from a size of 40": one("f", Unary("exp")(x), wrong_for(lambda n, *_: at_least(n, 40))),
    "wrong from a size of 4": one("f", Unary("exp")(x), wrong_for(lambda n, *_: at_least(n, 4))),
    "wrong below a size of 4": one(
        "f", Unary("exp")(x), wrong_for(lambda n, *_: not at_least(n, 4))
    ),
    "wrong for squares": one("f", Unary("exp")(x), wrong_for(lambda n, *m: m == (n,))),
    "wrong for a number": one(
        "f", Unary("exp")(x), wrong_for(lambda n, *_: isinstance(n, int) and n > 30)
    ),
    "right for even sizes": one("f", f(x), halves, like="x: 4; x: 6"),
    "an end one short": one("f", s(x), stops_less_one),
    "a quotient of a sum": one("f", (x + y) / z, x / z + y / z),
    "a mean of means": one("f", f(h(x)), mean_of_means),
    "a maximum without its border": one("f", f(a(x)), without_border("max")),
    "a sum without its border": one("f", f(a(x)), without_border("sum")),
    "a mean without its border": one("f", f(a(x)), without_border("mean")),
    "a dilation as a step": one(
        "f", w(x), same_type(lambda w, x: exchanged("step", "dilation")(x, w=w)), like=WINDOWS
    ),
    "a dilated convolution as a strided one": one(
        "f",
        n(x, y),
        same_type(lambda n, x, y: exchanged("strides", "dilations")(x, n=n, y=y)),
        like=IMAGES,
    ),
    "borders of a convolution exchanged": one(
        "f",
        n(x, y),
        same_type(lambda n, x, y: exchanged("before", "after")(x, n=n, y=y)),
        like=IMAGES,
    ),
    "a stride before a border": one(
        "f", t(a(x)), same_type(lambda t, a, x: a(t(x))), like="x: 5; x: 6 4"
    ),
    "a quotient undone": one("f", (x / y) * y, lambda x, y: x),
    "a quotient by itself": one("f", x / x, lambda x: full(1.0, x.shape, x.dtype)),
    "or as and": one("f", x + y, lambda x, y: x * y if x.dtype == "bool" else None),
    "truth values counted": one(
        "f",
        Cast("f64")(x + y),
        lambda x, y: Cast("f64")(x) + Cast("f64")(y) if x.dtype == "bool" else None,
    ),
    "truncated apart": one(
        "f",
        Cast("i64")(x + y),
        lambda x, y: Cast("i64")(x) + Cast("i64")(y) if x.dtype != "bool" else None,
    ),
    "a detour through f32": one(
        "f", Cast("f64")(Cast("f32")(x)), lambda x: x if x.dtype == "f64" else None
    ),
    "a maximum of scaled values": one(
        "f",
        f(x * y),
        lambda f, x, y, y_is: (
            f(x) * full(y_is, f.type(x.type).shape, x.dtype) if f.kind == "max" else None
        ),
        facts=uniform(y),
    ),
    "maxima of a sum": one("f", f(x + y), lambda f, x, y: f(x) + f(y) if f.kind == "max" else None),
    "a reduction of the negative": one("f", f(-x), lambda f, x: -f(x)),
    "powers of powers": one(
        "f",
        Binary("pow")(Binary("pow")(x, y), z),
        lambda x, y, z: apply(Binary("pow"), x, y * z),
    ),
    "an exp of a logarithm that may be none": one("f", EXP(LOG(x)), lambda x: x),
    "an exp of a logarithm of 0": one("f", EXP(LOG(x)), lambda x: x, facts=nonnegative(x)),
    "a logarithm of a product": one("f", LOG(x * y), LOG(x) + LOG(y)),
    "an exponential's logarithm as a factor": one(
        "f", LOG(EXP(x) * y), lambda x, y: x * apply(LOG, y)
    ),
    "an exp of a difference": one("f", EXP(x - y), EXP(x) * EXP(y)),
    "an exp of a product": one("f", EXP(x) * EXP(y), EXP(x * y)),
    "an inverse of a sum": one("f", INVERSE(x + y), INVERSE(x) + INVERSE(y)),
    "an inverse of an exponential": one("f", INVERSE(EXP(x)), EXP(x)),
    "a product with its inverse": one("f", x * INVERSE(x), lambda x: full(1.0, x.shape, x.dtype)),
    "a maximum with less than anything": one(
        "f", MAXIMUM(x, y), where(lambda n: n <= 0, lambda x: x), facts=uniform(y)
    ),
    "a maximum with 1": one(
        "f",
        MAXIMUM(x, y),
        where(lambda n: n <= 1, lambda x: x),
        facts=(uniform(y), nonnegative(x)),
    ),
    "a magnitude of anything": one("f", MAXIMUM(x, -x), lambda x: x),
    "the opposite of a magnitude": one("f", MAXIMUM(x, -x), lambda x: -x, facts=nonnegative(x)),
    "a maximum times any number": one(
        "f", MAXIMUM(x, z) * y, scaled_maximum("maximum"), facts=uniform(y)
    ),
    "a maximum times a number below 0": one(
        "f", MAXIMUM(x, z) * y, scaled_maximum("minimum"), facts=uniform(y)
    ),
    "a minimum as a maximum of opposites": one("f", MINIMUM(x, y), MAXIMUM(-x, -y)),
    "a root of a square of anything": one(
        "f", ROOT(x * x, y), where(lambda n: n == 2, lambda x: x), facts=uniform(y)
    ),
    "a square of a root of anything": one(
        "f", ROOT(x, y) * ROOT(x, y), where(lambda n: n == 2, lambda x: x), facts=uniform(y)
    ),
    "a cube as a square": one(
        "f", POW(x, y), where(lambda n: n in (2, 3), lambda x: x * x), facts=uniform(y)
    ),
    "an inverse as an opposite": one(
        "f", POW(x, y), where(lambda n: n == -1, lambda x: -x), facts=uniform(y)
    ),
    "tanh of a half": one("f", TANH(x), where_float(lambda x: 2 / (1 + exp(-x)) - 1)),
    "tanh with its sign lost": one("f", TANH(x), where_float(lambda x: 2 / (1 + exp(x * 2)) - 1)),
    "tanh with other terms": one("f", TANH(x), where_float(lambda x: 2 / (2 + exp(x * -2)) - 1)),
    "an even function taken for an odd one": one("f", Unary("cos")(-x), -Unary("cos")(x)),
    "a floor of an opposite": one("f", Unary("floor")(-x), -Unary("floor")(x)),
    "an arc sine of a sine": one("f", Unary("arcsin")(Unary("sin")(x)), lambda x: x),
    "a sine of an arc sine": one("f", Unary("sin")(Unary("arcsin")(x)), lambda x: x),
    "an arc cosine of a sine": one(
        "f", Unary("sin")(Unary("arccos")(Unary("sin")(x))), Unary("sin")(x)
    ),
    "a choice by a negation, not exchanged": one(
        "f", Select()(Binary("equal")(condition, y), x, z), chosen_alike, facts=uniform(y)
    ),
    "a difference exchanged, exactly": one("f", (x - y) + z, x + (z - y), grade="exact"),
    "the identity of other channels": one("f", n(x, y) + x, beside(Flip((0,))), like=ONE_TO_ONE),
    "the identity at other taps": one("f", n(x, y) + x, beside(Flip((2,))), like=ONE_TO_ONE),
    "the identity twice": one("f", n(x, y) + x, beside(lambda d: d + d), like=ONE_TO_ONE),
    "a distributed product, exactly": one("f", x * (y + z), x * y + x * z, grade="exact"),
    "additions in another order, exactly": one("f", (x + y) + z, x + (y + z), grade="exact"),
}


def test_a_counterexample_names_sizes_and_an_element() -> None:
    (law,) = FALSE["a mean of means of parts"]
    reason = prove_law(law).reason
    assert reason.startswith("element [")
    assert " for n" in reason
    assert "\n" not in reason


def test_sizes_that_a_law_must_know_are_not_claimed() -> None:
    def only_for_3(c: Slice, x: Value) -> Value | None:
        return c(x) if x.shape[0] == 3 else None

    (law,) = one("f", c(x), only_for_3, like="x: 3 4")
    proof = prove_law(law, structures=3)
    assert not proof.proved
    assert "x.0" in proof.reason


def test_numbers_that_stayed_as_drawn_are_told() -> None:
    (law,) = one("f", t(x), lambda t, x: t(x))
    names = tuple(f"t.steps.{axis}" for axis in range(6))
    assert str(Proof(law, 1)) == "f: proved for all sizes, in 1 structure"
    assert str(Proof(law, 3, fixed=names)).endswith("t.steps.2, t.steps.3, ... as drawn")


def test_a_law_is_proved_for_each_element_type() -> None:
    """Quotients of integers are truncated, even where the structure that is drawn has floats."""
    (law,) = one("f", (x + y) / z, x / z + y / z, grade="finite")
    (floats,) = one(
        "f",
        (x + y) / z,
        lambda x, y, z: x / z + y / z if x.dtype != "i64" else None,
        grade="finite",
    )
    assert prove_law(floats, structures=1).proved
    assert not prove_law(law, structures=1).proved


@pytest.mark.parametrize("name", FALSE)
def test_a_false_law_is_never_proved(name: str) -> None:
    proof = prove_law(FALSE[name][0], structures=12)
    assert not proof.proved, f"{name}: {proof}"
    assert proof.reason
    assert proof.status == "tested"
