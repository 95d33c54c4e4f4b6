"""Laws on what chance seldom draws: integers that wrap, complex numbers, infinities, empty axes."""

from collections.abc import Iterator
from math import inf
from typing import Any

import numpy as np
import pytest

from safegraph.cases import cases
from safegraph.derived.conv import Conv
from safegraph.derived.einsum import Einsum
from safegraph.derived.norm import BatchNorm, LayerNorm, Softmax
from safegraph.derived.pointwise import Abs, Broadcast
from safegraph.derived.pool import AdaptiveAvgPool, AvgPool, MaxPool
from safegraph.dims import assuming
from safegraph.draw import instance
from safegraph.dtypes import is_integer, to_numpy
from safegraph.egraph import EGraph
from safegraph.errors import SafeGraphError, ShapeError, SpecError
from safegraph.law import Law
from safegraph.op import TensorType
from safegraph.ops import (
    Binary,
    Group,
    Interleave,
    Pad,
    Reduce,
    Repeat,
    Sample,
    Squeeze,
    Stride,
    Unary,
    Ungroup,
)
from safegraph.ranges import Range
from safegraph.rules import ALL, FAMILIES
from safegraph.soundness import run_value
from safegraph.value import Value, apply, full, tensor

RETYPED = ("i8", "u8", "i64", "c128")
_MEANINGLESS = (SafeGraphError, ValueError, TypeError, np.exceptions.ComplexWarning)
"""What a left side raises that has no value: an index out of range, the floor of 2i."""
_ORDERED = {"positive", "nonnegative"}  # facts that complex numbers never have


def _number(rng: np.random.Generator, dtype: str, facts: set[str]) -> Any:
    """A number for a uniform tensor: small ones, and the limits of the type."""
    choices = [0, 1, 2, 3, -1, -3]
    if is_integer(dtype):
        limits = np.iinfo(to_numpy(dtype))
        choices += [int(limits.min), int(limits.max), int(limits.max) // 2]
        choices = [n for n in choices if limits.min <= n <= limits.max]
    if facts & _ORDERED:
        choices = [n for n in choices if n > 0 or (n == 0 and "positive" not in facts)]
    number = choices[int(rng.integers(len(choices)))]
    return number if is_integer(dtype) else float(number)


def _array(rng: np.random.Generator, type_: TensorType, facts: set[str]) -> np.ndarray:
    """Integers up to the limits of their type, and complex numbers all around 0.

    No integer is 0: what a division by it gives is nobody's meaning.
    """
    shape: Any = type_.shape
    if type_.dtype == "bool":
        return rng.random(shape) < 0.5
    if type_.dtype.startswith("c"):
        return rng.uniform(-3, 3, shape) + 1j * rng.uniform(-3, 3, shape)
    if not is_integer(type_.dtype):
        return np.asarray(rng.uniform(0.1 if facts & _ORDERED else -2, 2, shape))
    limits = np.iinfo(to_numpy(type_.dtype))
    most = min(int(limits.max), 2**40)  # means go by way of f64
    low, high = (max(limits.min, -most), most) if rng.random() < 0.5 else (max(limits.min, -7), 8)
    found = rng.integers(1 if facts & _ORDERED else low, high, shape, endpoint=True)
    return np.where(found == 0, 1, found).astype(to_numpy(type_.dtype))


def _retyped(
    law: Law, dtype: str, rng: np.random.Generator, count: int
) -> Iterator[tuple[Value, Value, dict[str, np.ndarray]]]:
    """Cases of a law with its numbers as another type, where it fires on these too."""
    facts: dict[str, set[str]] = {name: set() for name in law.tensors}
    for fact in law.facts:
        facts[fact.name].add(fact.kind)
    if dtype.startswith("c") and any(kinds & _ORDERED for kinds in facts.values()):
        return
    old = {"f64", "f32", "i64"} if is_integer(dtype) else {"f64", "f32"}
    for case in cases(law, rng, count, tries=200 * count):
        if case.sizes[0]:
            continue
        scope = dict(case.scope)
        for name in law.tensors:
            type_ = scope[name].type
            retyped = TensorType(dtype, type_.shape) if type_.dtype in old else type_
            scope[name] = tensor(name, retyped)
            if "uniform" in facts[name] and retyped is not type_:
                scope[f"{name}_is"] = _number(rng, retyped.dtype, facts[name])
        left = instance(law.left, scope)
        right = None if left is None else law.build({**scope, "root": left.type})
        if left is None or right is None:
            continue
        assert right.type is left.type, f"{law.name}: {right.type} for {left.type}"
        arrays = {n: _array(rng, scope[n].type, facts[n]) for n in law.tensors}
        for name in law.tensors:
            if f"{name}_is" in scope:
                arrays[name] = np.full_like(arrays[name], scope[f"{name}_is"])
        yield left, right, arrays


def _differ(left: np.ndarray, right: np.ndarray) -> bool:
    """Do integers differ at all, or others beyond rounding?  NaN may be replaced."""
    if left.dtype.kind not in "fc":
        return bool((left != right).any())
    with np.errstate(all="ignore"):
        near = np.abs(left - right) <= 1e-6 * np.maximum(1, np.abs(left))
    return bool((~near & (left != right) & ~np.isnan(left)).any())


def _check(laws: tuple[Law, ...], count: int) -> None:
    for number, law in enumerate(laws):
        for dtype in RETYPED:
            rng = np.random.default_rng(number)
            for left, right, arrays in _retyped(law, dtype, rng, count):
                try:
                    expected = run_value(left, arrays, {})
                except _MEANINGLESS:
                    continue
                found = run_value(right, arrays, {})
                shown = {n: a.tolist() for n, a in arrays.items() if a.size < 20}
                assert not _differ(expected, found), f"{law.name}, {dtype}: {left}, {shown}"


@pytest.mark.parametrize("family", ["pointwise", "affine", "spelling", "inverse", "einsum"])
def test_laws_hold_for_other_element_types(family: str) -> None:
    _check(FAMILIES[family], 3)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_laws_hold_for_other_element_types_in_many_cases(family: str) -> None:
    _check(FAMILIES[family], 12)


# -- one by one ------------------------------------------------------------------------------------


def _law(name: str) -> Law:
    return next(law for law in ALL if law.name == name)


def _built(name: str, **scope: Any) -> Value | None:
    """The right side of a law for these leaves, ops and numbers."""
    law = _law(name)
    left = instance(law.left, scope)
    assert left is not None
    return law.build({**scope, "root": left.type})


@pytest.mark.parametrize(("dtype", "number"), [("i8", 128), ("u8", -1), ("i64", inf)])
def test_an_integer_type_has_no_such_number(dtype: str, number: float) -> None:
    message = f"{dtype} has no number {number}: it has "
    with pytest.raises(SpecError, match=message):
        full(number, (2,), dtype)
    x = tensor("x", TensorType(dtype, (3,)))
    for op in (Pad((1,), (0,), number), Interleave((2,), number)):
        with pytest.raises(SpecError, match=message):
            op(x)


def test_no_number_is_made_that_its_type_lacks() -> None:
    x, a, b = (tensor(n, "i8[3]") for n in "xab")
    assert _built("terms of a sum", x=x, a=a, b=b, a_is=100, b_is=100) is None
    assert _built("factors of a product", x=x, a=a, b=b, a_is=100, b_is=100) is None
    assert _built("a difference of a number is a sum", x=x, a=a, a_is=-128) is None
    found = _built("terms of a sum", x=x, a=a, b=b, a_is=60, b_is=60)
    assert found is x + full(120, (3,), "i8")


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_no_number_is_made_that_is_lost_in_its_type(dtype: str) -> None:
    """As f16, 300 * 300 is infinite and 1e-5 * 1e-5 is 0; bf16 reaches as far as f32."""
    x, a, b = (tensor(n, f"{dtype}[3]") for n in "xab")
    for small, large in ((1e-30, 1e30), (1e-5, 300.0)):
        for number in (small, large):
            fits = dtype == "bf16" and number in (1e-5, 300.0)
            found = _built("factors of a product", x=x, a=a, b=b, a_is=number, b_is=number)
            assert (found is not None) == fits, number
    assert _built("a quotient by a number is a product", x=x, a=a, a_is=4.0) is x * 0.25


@pytest.mark.parametrize(("dtype", "step"), [("bf16", 1.04), ("f16", 1.01), ("f32", 1.0001)])
def test_a_factor_of_nearly_1_is_not_lost_in_a_small_type(dtype: str, step: float) -> None:
    x, a = tensor("x", f"{dtype}[4]"), tensor("a", f"{dtype}[1]")
    total = Reduce((0,), "sum")
    assert _built("a sum over n is a mean", f=total, x=x, a=a, a_is=step / 4) is None
    assert _built("a sum over n is a mean", f=total, x=x, a=a, a_is=0.25) is not None


def test_a_quotient_by_what_may_be_0_stays_outside_of_a_convolution() -> None:
    """Where an output channel is divided by 0, the weight would be infinite and sums NaN."""
    image, weight = tensor("x", "f64[1 2 4 4]"), tensor("w", "f64[2 2 1 1]")
    factor, channels = tensor("k", "f64[2 1 1]"), Conv((1, 1), (0, 0), (0, 0), (1, 1))
    quotient = Broadcast("divide")(channels(image, weight), factor)
    names = [law for law in ALL if law.name.startswith("a quotient of a convolution")]
    for low, folded in ((0.0, False), (0.5, True)):
        egraph = EGraph()
        ranges = {"k": Range(low, 2.0)}
        (root,) = egraph.add([quotient], constants=["w", "k"], ranges=ranges.get)
        egraph.run(names)
        nodes = [n for n in egraph.enodes() if isinstance(n.op, Conv)]
        assert any(egraph.same(n.index, root) for n in nodes) is folded


def test_a_batch_norm_without_eps_stays_outside_of_a_convolution() -> None:
    names = ("scale", "bias", "mean", "variance")
    scope: dict[str, Any] = {n: tensor(n, "f64[4]") for n in names}
    scope |= {"x": tensor("x", "f64[1 2 4 4]"), "w": tensor("w", "f64[4 2 1 1]")}
    scope["c"] = Conv((1, 1), (0, 0), (0, 0), (1, 1))
    for eps, folded in ((0.0, False), (1e-5, True)):
        found = _built("a batch norm of a convolution", n=BatchNorm(eps), **scope)
        assert (found is not None) is folded


def test_a_mean_of_large_integers_is_not_exact() -> None:
    x = tensor("x", "i64[1]")
    mean, thrice = Reduce((0,), "mean"), Repeat((3,))
    assert run_value(mean(thrice(x)), {"x": np.array([2**53 + 1])}, {})[0] != 2**53 + 1
    assert _built("a reduction of equal values", f=mean, r=thrice, x=x) is None


def test_a_border_of_complex_numbers_has_no_complex_fill() -> None:
    x = tensor("x", "c128[2]")
    border, log = Pad((1,), (0,), -1.0), Unary("log")
    assert _built("unary of a border", h=log, a=border, x=x) is None
    real = tensor("x", "f64[2]")
    assert _built("unary of a border", h=Unary("exp"), a=Pad((1,), (0,), 0.0), x=real) is not None


def test_no_head_attends() -> None:
    q, k, v = (
        tensor(n, f"f64[0 {shape}]") for n, shape in (("q", "3 4"), ("k", "5 4"), ("v", "5 6"))
    )
    scope = {"soft": Softmax(2), "first": Einsum.of("bld,bsd->bls"), "q": q, "k": k, "v": v}
    assert _built("attention", second=Einsum.of("bls,bse->ble"), **scope) is None


def test_no_channels_have_no_groups() -> None:
    x = tensor("x", "f64[4 0 4]")
    split, join = Ungroup(((-1,), (2, -1), (-1,))), Group((1, 2, 1))
    scope = {"n": split.normal(x.type), "layer": LayerNorm(2), "g": join}
    assert _built("a group norm of split channels", x=x, **scope) is None


def test_an_axis_of_a_free_size_is_dropped_from_samples() -> None:
    """The size is taken as 1; it does not read so."""
    x = tensor("x0", "f64[2 m n n]")
    with assuming():
        scope = {"s": Sample(0, 1, 2, 1, 1), "op": Squeeze((1,)), "x0": x}
        found = _built("a sample of squeeze", **scope)
        assert found is not None
        assert found.shape == Squeeze((1,))(x).shape[1:]


def test_a_stride_of_nothing_is_no_pooling() -> None:
    steps = Stride((1, 1, 2, 2))
    assert _built("a stride by pooling", t=steps, x=tensor("x", "f32[2 3 0 4]")) is None
    assert _built("a stride by pooling", t=steps, x=tensor("x", "f32[2 3 4 4]")) is not None


def test_axes_without_elements_are_split_and_joined() -> None:
    """What remains of 0 by a factor of 0 is any number: it is written down."""
    for sizes in ((0, 2), (2, 0), (0, 0), (3, 0, 2)):
        array = np.zeros(sizes)
        joined = Group((len(sizes),))
        back = joined.inverse(sizes)
        assert back is apply(back, tensor("x", "f64[0]")).op
        assert back.run(joined.run(array)).shape == sizes
    x, y = tensor("x", "f64[2 3 0]"), tensor("y", "f64[2 4]")
    found = _built("a contraction by matmul", e=Einsum.of("abc,ad->abcd"), x=x, y=y)
    assert found is not None
    arrays = {"x": np.zeros((2, 3, 0)), "y": np.zeros((2, 4))}
    assert run_value(found, arrays, {}).shape == (2, 3, 0, 4)


def test_complex_numbers_are_numbers_only_where_they_are_real() -> None:
    """Laws compare numbers; one with an imaginary part is known to none of them."""
    x, a = tensor("x", "c64[3]"), tensor("a", "c64[3]")
    for number, gone in ((1 + 0j, True), (1 + 1j, False)):
        egraph = EGraph()
        product, plain = egraph.add([x * a, x], constants=["a"], numbers={"a": number})
        egraph.run(ALL[:200])
        assert egraph.same(product, plain) is gone


def test_means_of_windows_of_integers_are_refused() -> None:
    x = tensor("x", "i64[1 1 4]")
    for pool in (AvgPool((2,), (1,), (0,), (0,), (0,), True), AdaptiveAvgPool((2,))):
        with pytest.raises(ShapeError, match="means of i64: cast it to a floating-point type"):
            pool(x)


def test_a_border_of_conditions_is_false() -> None:
    x = tensor("x", "bool[1 1 3]")
    pool = MaxPool((2,), (1,), (1,), (0,), (1,))
    array = np.array([[[False, False, True]]])
    opened = pool.define(x)
    assert run_value(opened, {"x": array}, {}).tolist() == pool.run(array).tolist() == [[[0, 0, 1]]]


def test_the_magnitude_of_a_complex_number_is_refused() -> None:
    with pytest.raises(ShapeError, match="complex"):
        apply(Abs(), tensor("x", "c64[3]"))


def test_a_root_of_integers_is_refused() -> None:
    x = tensor("x", "i64[3]")
    with pytest.raises(ShapeError, match="root of i64: cast it to a floating-point type first"):
        apply(Binary("root"), x, x)
