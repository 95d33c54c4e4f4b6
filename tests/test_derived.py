"""Derived ops: run and definition against PyTorch and NumPy, and against each other."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, nan
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from safegraph import derived as d
from safegraph.derived.base import Derived, evaluate
from safegraph.derived.pointwise import KINDS
from safegraph.dims import at_least, substitute
from safegraph.dtypes import from_numpy, to_numpy
from safegraph.errors import EvaluationError, ShapeError
from safegraph.op import OPS, Op, TensorType
from safegraph.value import parse_type

Arrays = tuple[np.ndarray, ...]
RNG = np.random.default_rng(7)

DERIVED = [
    cls
    for cls in OPS.values()
    if issubclass(cls, Derived) and cls.__module__.startswith("safegraph.derived.")
]
EXAMPLES = [(op, types) for cls in DERIVED for op, types in cls.examples]
# The definition picks elements by comparing; a runtime moves them, or adds up as it goes along.
CHEAPER = (
    d.Gather, d.GatherElements, d.GatherNd, d.ScatterElements, d.ScatterNd, d.TopK,
    d.Flip, d.CumSum, d.Concat, d.PadMode,
)  # fmt: skip


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """Every test draws the same numbers, whichever tests run before it."""
    RNG.bit_generator.state = np.random.default_rng(7).bit_generator.state


def names(case: Any) -> str:
    return (
        case.name if isinstance(case, Op) else "" if callable(case) else str(case).replace(" ", ".")
    )


def draw(types: list[TensorType], low: float = -2.0, high: float = 2.0) -> Arrays:
    """Random arrays: numbers, small indices, booleans."""
    made = []
    for t in types:
        numbers = (
            RNG.uniform(low, high, t.shape) if t.dtype[0] in "fb" and t.dtype != "bool" else None
        )
        made.append(
            (RNG.integers(0, 2, t.shape) if numbers is None else numbers).astype(to_numpy(t.dtype))
        )
    return tuple(made)


def types_of(text: str) -> list[TensorType]:
    return [parse_type(part) for part in text.split(", ")]


def by_definition(op: Any, *arrays: np.ndarray) -> np.ndarray:
    types = [TensorType(from_numpy(a.dtype), tuple(a.shape)) for a in arrays]
    leaves, result = op.trace(*types)
    found = np.asarray(evaluate([result], dict(zip(leaves, arrays, strict=True)))[0])
    assert found.shape == result.shape
    assert from_numpy(found.dtype) == result.dtype
    return found


def agree(
    op: Any, oracle: Callable[..., Any], *arrays: np.ndarray, rtol: float = 1e-5, atol: float = 1e-5
) -> None:
    """`run` and the definition give what the oracle gives, in shape, element type and value."""
    wanted = oracle(*(torch.from_numpy(a) for a in arrays))
    wanted = wanted.numpy() if isinstance(wanted, torch.Tensor) else wanted
    for found in (np.asarray(op.run(*arrays)), by_definition(op, *arrays)):
        assert found.shape == wanted.shape
        assert found.dtype == wanted.dtype
        np.testing.assert_allclose(found, wanted, rtol=rtol, atol=atol)


def normal(*shape: int, dtype: str = "f32") -> np.ndarray:
    return RNG.standard_normal(shape).astype(to_numpy(dtype))


# -- promises of every class ----------------------------------------------------------------------


@pytest.mark.parametrize("cls", DERIVED, ids=lambda c: c.name)
def test_every_class_has_examples_that_are_its_own(cls: type[Derived]) -> None:
    if cls.__module__.endswith((".einsum", ".shape")):  # these say how they are recognised instead
        return
    assert cls.examples
    assert all(type(op) is cls for op, _ in cls.examples)


@pytest.mark.parametrize(("op", "text"), EXAMPLES, ids=names)
def test_run_is_the_definition(op: Any, text: str) -> None:
    types = types_of(text)
    arrays = draw(types)
    found, defined = np.asarray(op.run(*arrays)), by_definition(op, *arrays)
    assert found.shape == op.type(*types).shape == op.shape(*(t.shape for t in types))
    assert found.dtype == defined.dtype
    np.testing.assert_allclose(found, defined, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(("op", "text"), EXAMPLES, ids=names)
def test_closed_work_is_the_work_of_the_definition(op: Any, text: str) -> None:
    types = types_of(text)
    if isinstance(op, CHEAPER):
        assert at_least(Derived.work(op, *types).flops, op.work(*types).flops + 1)
    elif not isinstance(
        op, d.Einsum
    ):  # which counts multiply-adds, its definition products and sums
        assert op.work(*types) == Derived.work(op, *types)


@pytest.mark.parametrize("dtype", ["f16", "bf16", "f64"])
@pytest.mark.parametrize(("op", "text"), EXAMPLES, ids=names)
def test_other_floats(op: Any, text: str, dtype: str) -> None:
    if "f32" not in text:
        return
    short = draw(types_of(text.replace("f32", dtype)), 0.3, 1.7)
    single = tuple(a.astype("f4") if from_numpy(a.dtype) == dtype else a for a in short)
    wanted = np.asarray(op.run(*single))
    for found in (np.asarray(op.run(*short)), by_definition(op, *short)):
        assert found.shape == wanted.shape
        assert from_numpy(found.dtype) == (
            dtype if wanted.dtype == np.float32 else from_numpy(wanted.dtype)
        )
        if op in (d.Broadcast("mod"), d.Broadcast("fmod")):
            continue  # these jump where a rounded quotient is whole
        close = {"f16": 2e-2, "bf16": 1e-1, "f64": 1e-4}[dtype]
        np.testing.assert_allclose(found.astype("f8"), wanted.astype("f8"), rtol=close, atol=close)


@pytest.mark.parametrize("cls", DERIVED, ids=lambda c: c.name)
def test_drawn_specs_fit(cls: type[Derived]) -> None:
    count = 0
    for _, text in cls.examples:
        types = types_of(text.replace("bool", "f32") if cls is d.Broadcast else text)
        for _ in range(5):
            drawn = cls.draw(RNG, *(t.shape for t in types))
            if drawn is None:
                continue
            count += 1
            arrays = draw(types)
            found = np.asarray(drawn.run(*arrays))
            assert found.shape == drawn.type(*types).shape
            np.testing.assert_allclose(found, by_definition(drawn, *arrays), rtol=5e-5, atol=5e-6)
    assert count or not cls.examples


# -- free sizes -----------------------------------------------------------------------------------

FREE: list[tuple[Any, str]] = [
    (d.Conv((2, 1), (1, 0), (2, 1), (1, 2), 1), "f32[n 3 h w], f32[4 3 3 2], f32[4]"),
    (d.Conv((2, 2), (1, 1), (1, 1), (1, 1), 2), "f32[n 4 h w], f32[6 2 3 3]"),
    (
        d.ConvTranspose((2, 3), (1, 0), (0, 1), (1, 2), 2, (1, 2)),
        "f32[n 4 h w], f32[4 3 2 3], f32[6]",
    ),
    (d.MaxPool((3, 2), (2, 2), (1, 0), (1, 1), (1, 1)), "f32[n 3 h w]"),
    (d.AvgPool((3, 2), (2, 2), (1, 0), (1, 1), (1, 0), False), "f32[n 3 h w]"),
    (d.AdaptiveAvgPool((1, 1)), "f32[n 3 h w]"),
    (d.AdaptiveAvgPool((3, 2)), "f32[n 3 h w]"),
    (d.BatchNorm(1e-5), "f32[n 3 h w], f32[3], f32[3], f32[3], f32[3]"),
    (d.GroupNorm(2, 1e-5), "f32[n 4 h w], f32[4], f32[4]"),
    (d.InstanceNorm(1e-5), "f32[n 4 h w], f32[4], f32[4]"),
    (d.LocalResponseNorm(3, 1e-2, 0.75, 1.0), "f32[n 4 h w]"),
    (d.LayerNorm(2, 1e-5), "f32[n h w], f32[h w], f32[h w]"),
    (d.RmsNorm(1, 1e-5), "f32[n h w], f32[w]"),
    (d.Softmax(1), "f32[n h w]"),
    (d.LogSoftmax(-1), "f32[n h w]"),
    (d.Attention(None, True), "f32[n 2 h w], f32[n 2 h w], f32[n 2 h 5]"),
    (d.Attention(None, False), "f32[n 4 h 8], f32[n 2 w 8], f32[n 2 w 5], bool[h w]"),
    (d.MultiHead(2), "f32[n h 8], f32[n w 8], f32[n w 8], f32[24 8], f32[24], f32[8 8], f32[8]"),
    (d.Gather(1), "f32[n h w], i64[5]"),
    (d.GatherElements(1), "f32[n h], i64[n 3]"),
    (d.CumSum(1, False, True), "f32[n h]"),
    (d.ArgMax(1, False, False), "f32[n h w]"),
    (d.Flip((0, 2)), "f32[n h w]"),
    (d.Trilu(True, 1), "f32[n h w]"),
    (d.Broadcast("mod"), "f32[n h w], f32[w]"),
    (d.Where(), "bool[h w], f32[n h w], f32[w]"),
    (d.Gelu("tanh"), "f32[n h]"),
]
# A free size hides that windows share an axis out evenly, or what 1/√d is: more work, never less.
GENERAL = (d.AdaptiveAvgPool((3, 2)), d.Attention(None, True))


@pytest.mark.parametrize("sizes", [{"n": 2, "h": 7, "w": 9}, {"n": 1, "h": 8, "w": 6}], ids=names)
@pytest.mark.parametrize(("op", "text"), FREE, ids=names)
def test_formulas_in_free_sizes(op: Any, text: str, sizes: dict[str, int]) -> None:
    free = types_of(text)
    bound = [t.bind(sizes) for t in free]
    arrays = draw(bound)
    leaves, result = op.trace(*free)
    assert op.type(*free).bind(sizes).shape == np.shape(op.run(*arrays))
    for field in ("macs", "elementwise", "transcendental", "reduce"):
        formula = getattr(Derived.work(op, *free), field)
        concrete = getattr(Derived.work(op, *bound), field)
        if op in GENERAL:
            assert substitute(formula, sizes) >= concrete
            continue
        assert substitute(formula, sizes) == concrete
        assert substitute(getattr(op.work(*free), field), sizes) == getattr(op.work(*bound), field)
    values: dict[Any, Any] = dict(zip(leaves, arrays, strict=True))
    for value in d.base.walk([result]):
        if value not in values:
            values[value] = value.op.bind(sizes).run(*(values[o] for o in value.operands))  # type: ignore[union-attr]
    np.testing.assert_allclose(values[result], op.run(*arrays), rtol=5e-5, atol=5e-6)


# -- convolution and pooling ----------------------------------------------------------------------

CONVS = [
    ((2, 3, 9, 8), (5, 3, 3, 2), (1, 1), (0, 0), (0, 0), (1, 1), 1),
    ((2, 3, 9, 8), (5, 3, 3, 2), (2, 3), (1, 2), (0, 1), (2, 1), 1),
    ((1, 4, 7, 7), (6, 2, 3, 3), (1, 2), (1, 1), (1, 1), (1, 1), 2),
    ((2, 4, 7, 7), (8, 1, 3, 3), (2, 2), (1, 1), (1, 1), (1, 1), 4),
    ((2, 4, 5, 5), (3, 4, 1, 1), (1, 1), (0, 0), (0, 0), (1, 1), 1),
    ((2, 3, 11), (4, 3, 4), (3,), (2,), (1,), (2,), 1),
    ((2, 2, 4, 5, 6), (4, 1, 2, 3, 2), (1, 2, 1), (1, 0, 1), (0, 1, 1), (1, 1, 2), 2),
]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("x", "w", "strides", "before", "after", "dilations", "groups"), CONVS)
def test_conv(
    x: Any, w: Any, strides: Any, before: Any, after: Any, dilations: Any, groups: int, bias: bool
) -> None:
    convolve = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[len(strides)]
    border = [n for pair in reversed(list(zip(before, after, strict=True))) for n in pair]

    def oracle(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None = None) -> torch.Tensor:
        return convolve(F.pad(x, border), w, b, strides, 0, dilations, groups)

    arrays = (normal(*x), normal(*w)) + ((normal(w[0]),) if bias else ())
    agree(d.Conv(strides, before, after, dilations, groups), oracle, *arrays)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("x", "w", "strides", "padding", "dilations", "groups", "extra"),
    [
        ((2, 3, 4, 5), (3, 4, 3, 2), (1, 1), (0, 0), (1, 1), 1, (0, 0)),
        ((2, 3, 4, 5), (3, 4, 3, 2), (2, 3), (1, 1), (1, 2), 1, (1, 0)),
        ((2, 4, 4, 5), (4, 3, 3, 3), (2, 2), (1, 0), (1, 1), 2, (1, 1)),
        ((2, 4, 6), (4, 1, 4), (3,), (2,), (1,), 4, (2,)),
        ((1, 2, 3, 2, 3), (2, 3, 2, 2, 2), (2, 1, 2), (0, 1, 1), (1, 1, 1), 1, (0, 0, 1)),
    ],
)
def test_conv_transpose(
    x: Any, w: Any, strides: Any, padding: Any, dilations: Any, groups: int, extra: Any, bias: bool
) -> None:
    convolve = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}[len(strides)]

    def oracle(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None = None) -> torch.Tensor:
        return convolve(x, w, b, strides, padding, extra, groups, dilations)

    arrays = (normal(*x), normal(*w)) + ((normal(w[1] * groups),) if bias else ())
    agree(d.ConvTranspose(strides, padding, padding, dilations, groups, extra), oracle, *arrays)


def test_conv_names_what_does_not_fit() -> None:
    types = types_of("f32[2 3 9 9], f32[4 2 3 3]")
    with pytest.raises(ShapeError, match="channels of w times 1 groups, of x: 2 is not 3"):
        d.Conv((1, 1), (0, 0), (0, 0), (1, 1), 1).type(*types)
    with pytest.raises(ShapeError, match="one entry for each of 2 spatial axes"):
        d.Conv((1,), (0, 0), (0, 0), (1, 1), 1).type(*types)


def test_conv_nominal_macs() -> None:
    op = d.Conv((2, 2), (3, 3), (3, 3), (1, 1), 1)
    work = op.work(*types_of("f32[n 3 224 224], f32[64 3 7 7], f32[64]"))
    assert str(work.macs) == f"{112 * 112 * 64 * 3 * 49}*n"
    assert str(work.elementwise) == f"{112 * 112 * 64}*n"


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("padding", [0, 1])
def test_max_pool(padding: int, dilation: int) -> None:
    x = normal(2, 3, 9, 8) - 5  # below 0: a border of zeros would show
    x[0, 0, 3, 3], x[1, 1, 0, 0], x[1, 2] = nan, inf, -inf
    two = (padding,) * 2
    agree(
        d.MaxPool((3, 2), (2, 1), two, two, (dilation,) * 2),
        lambda x: F.max_pool2d(x, (3, 2), (2, 1), padding, dilation),
        x,
    )


def test_max_pool_of_integers_pads_with_the_lowest() -> None:
    x = np.full((1, 1, 4), -100, np.int8)
    op = d.MaxPool((3,), (1,), (1,), (1,), (1,))
    assert (op.run(x) == -100).all()
    assert (by_definition(op, x) == -100).all()


@pytest.mark.parametrize("count_pad", [False, True])
@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("padding", [0, 1])
def test_avg_pool(padding: int, ceil: bool, count_pad: bool) -> None:
    two = (padding,) * 2
    # 10 and 8 places with windows of 3 and steps of 2: rounding up adds a window at the end
    x = normal(2, 3, 10, 8)
    agree(
        d.AvgPool((3, 3), (2, 2), two, two, (int(ceil),) * 2, count_pad),
        lambda x: F.avg_pool2d(x, 3, 2, padding, ceil, count_pad),
        x,
    )


@pytest.mark.parametrize("to", [(1, 1), (5, 4), (3, 7), (2, 1), (10, 8), (13, 3)])
def test_adaptive_avg_pool(to: tuple[int, int]) -> None:
    x = normal(2, 3, 10, 8)
    x[0, 0, 9, 7], x[1, 1, 0, 0] = inf, nan
    agree(d.AdaptiveAvgPool(to), lambda x: F.adaptive_avg_pool2d(x, to), x)


# -- normalisations -------------------------------------------------------------------------------


def test_softmax_with_infinities() -> None:
    x = normal(6, 4, 3)
    x[0, :, 0], x[1, 1, 1], x[2, 0, 0], x[3, 2, 1] = -inf, -inf, inf, nan
    x[4] *= 1000
    for axis in (0, 1, -1):
        agree(d.Softmax(axis), lambda x, axis=axis: x.softmax(axis), x)
        agree(d.LogSoftmax(axis), lambda x, axis=axis: x.log_softmax(axis), x)


def test_layer_and_rms_norm() -> None:
    x, w, b = normal(2, 5, 3, 4) * 3 + 1, normal(3, 4), normal(3, 4)
    x[0, 0, 0, 0], x[1, 1, 1, 1] = nan, inf
    agree(d.LayerNorm(2, 1e-5), lambda x: F.layer_norm(x, (3, 4), eps=1e-5), x)
    agree(d.LayerNorm(2, 1e-2), lambda x, w: F.layer_norm(x, (3, 4), w, eps=1e-2), x, w)
    agree(d.LayerNorm(2, 1e-5), lambda x, w, b: F.layer_norm(x, (3, 4), w, b, 1e-5), x, w, b)
    agree(d.RmsNorm(2, 1e-6), lambda x: F.rms_norm(x, (3, 4), eps=1e-6), x)
    agree(d.RmsNorm(2, 1e-6), lambda x, w: F.rms_norm(x, (3, 4), w, 1e-6), x, w)


@pytest.mark.parametrize("shape", [(4, 6), (2, 6, 5), (2, 6, 5, 3)])
def test_channel_norms(shape: tuple[int, ...]) -> None:
    x, scale, bias, mean = normal(*shape), normal(6), normal(6), normal(6)
    variance = np.abs(normal(6))
    agree(
        d.BatchNorm(1e-3),
        lambda x, s, b, m, v: F.batch_norm(x, m, v, s, b, eps=1e-3),
        *(x, scale, bias, mean, variance),
    )
    if len(shape) == 2:
        with pytest.raises(ShapeError, match="spatial axes"):
            d.InstanceNorm(1e-5).type(TensorType("f32", shape))
        return
    agree(d.InstanceNorm(1e-4), lambda x: F.instance_norm(x, eps=1e-4), x)
    agree(
        d.InstanceNorm(1e-5), lambda x, w, b: F.instance_norm(x, weight=w, bias=b), x, scale, bias
    )
    agree(d.GroupNorm(3, 1e-4), lambda x: F.group_norm(x, 3, eps=1e-4), x)
    agree(d.GroupNorm(2, 1e-5), lambda x, w, b: F.group_norm(x, 2, w, b), x, scale, bias)


def test_local_response_norm() -> None:
    x = normal(2, 7, 3, 3)
    agree(
        d.LocalResponseNorm(5, 0.1, 0.75, 2.0),
        lambda x: F.local_response_norm(x, 5, 0.1, 0.75, 2.0),
        x,
    )
    # Of an even number, ONNX has the larger half after the channel.
    wide = np.pad(x.astype("f8") ** 2, ((0, 0), (1, 2), (0, 0), (0, 0)))
    power = sum(wide[:, i : i + 7] for i in range(4))
    wanted = (x / (1 + 0.1 / 4 * power) ** 0.75).astype("f4")
    agree(d.LocalResponseNorm(4, 0.1, 0.75, 1.0), lambda x: wanted, x)


# -- pointwise ------------------------------------------------------------------------------------

SPECIAL = np.array(
    [-inf, inf, nan, 0, -1, 1, -1e-4, 1e-4, 0.5, -0.5, 1.5, 2.5, -2.5, -30, 30, 1e30, -1e30, 1e8]
)

ACTIVATIONS: list[tuple[Any, Callable[..., Any]]] = [
    (d.Relu(), F.relu),
    (d.LeakyRelu(0.2), lambda x: F.leaky_relu(x, 0.2)),
    (d.Clip(-1.0, 2.0), lambda x: x.clamp(-1, 2)),
    (d.Clip(0.5, inf), lambda x: x.clamp(min=0.5)),
    (d.Clip(-inf, 0.5), lambda x: x.clamp(max=0.5)),
    (d.Sigmoid(), torch.sigmoid),
    (d.HardSigmoid(1 / 6, 0.5), F.hardsigmoid),
    (d.HardSwish(), lambda x: x * F.relu6(x + 3) / 6),
    (d.Silu(), F.silu),
    (d.Gelu("none"), lambda x: x * (1 + torch.erf(x / 2**0.5)) / 2),
    (d.Gelu("tanh"), lambda x: F.gelu(x, approximate="tanh")),
    (d.Erf(), torch.erf),
    (d.Sqrt(), torch.sqrt),
    (d.Rsqrt(), torch.rsqrt),
    (d.Abs(), torch.abs),
    (d.Softplus(1.0, 20.0), F.softplus),
    (d.Softplus(2.0, 10.0), lambda x: F.softplus(x, 2.0, 10.0)),
    (d.Softplus(1.0, inf), lambda x: torch.logaddexp(x, torch.zeros_like(x))),
    (d.Elu(0.7), lambda x: F.elu(x, 0.7)),
    (d.Selu(), F.selu),
    (d.Mish(), F.mish),
    (d.Not(), torch.logical_not),
    (d.Ceil(), torch.ceil),
    (d.Round(), torch.round),
    (d.Trunc(), torch.trunc),
    (d.Log1p(), torch.log1p),
    (d.Expm1(), torch.expm1),
    (d.Softsign(), F.softsign),
    (d.IsInf(), torch.isinf),
]


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize(("op", "oracle"), ACTIVATIONS, ids=names)
def test_activations_are_exact_at_infinities_and_nan(op: Any, oracle: Any, dtype: str) -> None:
    x = np.concatenate([SPECIAL, RNG.standard_normal(200) * 3]).astype(to_numpy(dtype))
    close = 2e-6 if dtype == "f32" else 1e-12
    # Far below 0 these are tiny differences of 1, of which only the absolute error is small.
    agree(
        op,
        oracle,
        x,
        rtol=close,
        atol=1e-12 if op in (d.Log1p(), d.Expm1(), d.Softplus()) else close,
    )


def test_gelu_at_infinity_is_its_limit() -> None:
    x = np.array([inf, -inf], "f4")
    for op in (d.Gelu("none"), d.HardSwish()):
        np.testing.assert_equal(by_definition(op, x), np.array([inf, nan], "f4"))


@pytest.mark.parametrize("dtype", ["u8", "i32"])
def test_abs_and_trunc_of_integers(dtype: str) -> None:
    x = np.array([0, 1, 200, 3], to_numpy(dtype)) - (100 if dtype == "i32" else 0)
    agree(d.Abs(), torch.abs, x)
    agree(d.Trunc(), torch.trunc, x)
    agree(d.Relu(), torch.relu, x)
    agree(d.Clip(0.0, 6.0), lambda x: x.clamp(0, 6), x)


TORCH_KINDS: dict[str, Callable[..., Any]] = {
    "add": torch.add, "subtract": torch.sub, "multiply": torch.mul, "divide": torch.div,
    "pow": torch.pow, "maximum": torch.maximum, "minimum": torch.minimum, "less": torch.lt,
    "equal": torch.eq, "greater": torch.gt, "less_equal": torch.le, "greater_equal": torch.ge,
    "not_equal": torch.ne, "and": torch.logical_and, "or": torch.logical_or,
    "xor": torch.logical_xor, "fmod": torch.fmod,
    "mod": lambda x, y: np.mod(x.numpy(), y.numpy()),  # torch's remainder is NaN for (1, inf)
    "root": lambda x, y: torch.where(y == 2, x.sqrt(), x.pow(1 / y)),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.parametrize("kind", KINDS)
def test_broadcast(kind: str) -> None:
    oracle, op = TORCH_KINDS[kind], d.Broadcast(kind)
    special = np.array([-inf, inf, nan, 0, 1, -1, 2, -3.5, 7.25, -7.25])
    agree(op, oracle, special[:, None], special)
    agree(op, oracle, normal(4, 1, 5), normal(3, 1))
    if kind not in ("and", "or", "xor", "pow", "root", "divide"):
        agree(op, oracle, RNG.integers(-9, 9, (4, 5)), np.array([1, -2, 3, -4, 7]))
    with pytest.raises(ShapeError):
        op.type(*types_of("f32[2 3], f32[2]"))


@pytest.mark.parametrize("kind", ["and", "or", "xor", "not_equal"])
def test_logic(kind: str) -> None:
    truths = np.array([False, True])
    agree(d.Broadcast(kind), TORCH_KINDS[kind], truths[:, None], truths)


def test_an_unknown_kind_is_named_with_those_that_exist() -> None:
    with pytest.raises(ShapeError, match="no function 'hypot'; there are add"):
        d.Broadcast("hypot").type(*types_of("f32[2], f32[2]"))


def test_where_and_prelu() -> None:
    x, y = normal(3, 4), normal(4)
    x[0, 0], y[1] = nan, inf
    agree(d.Where(), torch.where, RNG.random((2, 3, 1)) < 0.5, x, y)
    image = normal(2, 3, 4)
    image[0, 0, :2], image[1, 0, 0] = -inf, nan
    agree(
        d.Prelu(),
        lambda x, a: F.prelu(x, a.flatten()),
        image,
        np.array([[0.1], [0.2], [-0.3]], "f4"),
    )


# -- attention ------------------------------------------------------------------------------------


def _masks() -> list[np.ndarray | None]:
    allowed = RNG.random((4, 5)) < 0.6
    allowed[1] = False  # a row that may attend to nothing
    added = np.where(allowed, normal(4, 5), np.float32(-inf))
    return [None, allowed, added, RNG.random((2, 1, 4, 5)) < 0.5, normal(2, 6, 4, 5), normal(5)]


@pytest.mark.parametrize(
    "mask", _masks(), ids=lambda m: "none" if m is None else f"{m.dtype}{m.ndim}"
)
@pytest.mark.parametrize("heads", [6, 3, 1])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_attention(mask: np.ndarray | None, heads: int, scale: float | None) -> None:
    arrays = [normal(2, 6, 4, 8), normal(2, heads, 5, 8), normal(2, heads, 5, 7)]

    def oracle(q: Any, k: Any, v: Any, mask: Any = None) -> Any:
        mask = mask if mask is None or mask.ndim > 1 else mask.expand(4, 5)
        return F.scaled_dot_product_attention(q, k, v, mask, scale=scale, enable_gqa=True)

    agree(d.Attention(scale, False), oracle, *arrays, *([] if mask is None else [mask]))


@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (2, 2, 3)])
@pytest.mark.parametrize("keys", [4, 6, 3])
def test_causal_attention_at_any_rank(lead: tuple[int, ...], keys: int) -> None:
    q, k, v = normal(*lead, 4, 8), normal(*lead, keys, 8), normal(*lead, keys, 8)
    agree(
        d.Attention(None, True),
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        q,
        k,
        v,
    )


def test_attention_keeps_nan_of_places_that_are_not_attended_to_out_of_the_weights() -> None:
    q, k, v = normal(1, 2, 3, 4), normal(1, 2, 3, 4), normal(1, 2, 3, 4)
    k[:, :, 2] = nan
    for found in (
        d.Attention(None, True).run(q, k, v),
        by_definition(d.Attention(None, True), q, k, v),
    ):
        assert np.isfinite(found[:, :, :2]).all()
        assert np.isnan(found[:, :, 2]).all()


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("norm_first", [False, True])
def test_encoder_layer(activation: str, norm_first: bool) -> None:
    torch.manual_seed(3)
    layer = torch.nn.TransformerEncoderLayer(
        8,
        2,
        16,
        activation=activation,
        norm_first=norm_first,
        batch_first=True,
        layer_norm_eps=1e-4,
    ).eval()
    attention = layer.self_attn
    tensors = (
        attention.in_proj_weight, attention.in_proj_bias,
        attention.out_proj.weight, attention.out_proj.bias,
        layer.norm1.weight, layer.norm1.bias, layer.norm2.weight, layer.norm2.bias,
        layer.linear1.weight, layer.linear1.bias, layer.linear2.weight, layer.linear2.bias,
    )  # fmt: skip
    for t in tensors:
        torch.nn.init.normal_(t)
    weights = [t.detach().numpy() for t in tensors]
    op = d.EncoderLayer(2, activation, norm_first, 1e-4)
    agree(op, lambda x, *w: layer(x).detach(), normal(3, 5, 8), *weights, rtol=1e-4, atol=1e-4)


def test_multi_head() -> None:
    torch.manual_seed(3)
    attention = torch.nn.MultiheadAttention(8, 4, batch_first=True).eval()
    weights = [
        t.detach().numpy()
        for t in (
            attention.in_proj_weight,
            torch.nn.init.normal_(attention.in_proj_bias),
            attention.out_proj.weight,
            torch.nn.init.normal_(attention.out_proj.bias),
        )
    ]
    agree(
        d.MultiHead(4),
        lambda q, k, v, *w: attention(q, k, v, need_weights=False)[0].detach(),
        normal(2, 5, 8), normal(2, 6, 8), normal(2, 6, 8), *weights,
    )  # fmt: skip


# -- indexing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("shape", [(), (4,), (2, 3)])
def test_gather_lets_nothing_leak_from_other_rows(axis: int, shape: tuple[int, ...]) -> None:
    x = normal(5, 6, 5)
    x[0, 0], x[2, 2, 2], x[3] = nan, inf, -inf
    indices = RNG.integers(-5, 5, shape)
    agree(d.Gather(axis), lambda x, i: np.take(x.numpy(), i.numpy(), axis), x, np.asarray(indices))
    agree(
        d.Gather(axis),
        lambda x, i: np.take(x.numpy(), i.numpy(), axis),
        x > 0,
        np.asarray(indices, np.int32),
    )


def test_gather_names_an_index_out_of_range() -> None:
    with pytest.raises(EvaluationError, match="7"):
        d.Gather(0).run(normal(5, 2), np.array([1, 7]))
    with pytest.raises(EvaluationError, match="7"):
        d.GatherElements(0).run(normal(5, 1), np.array([[1], [7]]))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gather_elements(axis: int) -> None:
    x = normal(4, 5, 6)
    x[1, 1, 1], x[3, 3] = nan, inf
    agree(d.GatherElements(axis), lambda x, i: x.gather(axis, i), x, RNG.integers(0, 4, (3, 2, 4)))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_cumsum(axis: int) -> None:
    x = normal(3, 4, 5)
    x[1, 1, 1], x[2, 0, 0] = nan, inf
    agree(d.CumSum(axis, False, False), lambda x: x.cumsum(axis), x)
    agree(d.CumSum(axis, False, True), lambda x: x.flip(axis).cumsum(axis).flip(axis), x)
    whole = RNG.integers(-5, 5, (3, 4, 5))
    agree(d.CumSum(axis, True, False), lambda x: x.cumsum(axis) - x, whole)
    agree(d.CumSum(axis, True, True), lambda x: x.flip(axis).cumsum(axis).flip(axis) - x, whole)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_argmax_gives_the_first(axis: int, keep: bool) -> None:
    x = normal(4, 5, 6)
    x[2, 3, 4], x[1, 1, 1:], x[0, 0] = nan, nan, -inf
    for array in (x, RNG.integers(0, 2, (4, 5, 6))):
        agree(
            d.ArgMax(axis, keep, False), lambda x: np.argmax(x.numpy(), axis, keepdims=keep), array
        )
        agree(
            d.ArgMax(axis, keep, True), lambda x: np.argmin(x.numpy(), axis, keepdims=keep), array
        )


def test_flip_trilu_and_one_hot() -> None:
    x = normal(2, 4, 5)
    x[0, 1, 1], x[1, 3, 0] = nan, inf
    agree(d.Flip((0, -1)), lambda x: x.flip(0, 2), x)
    for k in (-5, -1, 0, 2):
        agree(d.Trilu(True, k), lambda x, k=k: x.triu(k), x)
        agree(d.Trilu(False, k), lambda x, k=k: x.tril(k), x)
    numbers = RNG.integers(0, 4, (2, 3))
    agree(d.OneHot(-1, 4), lambda i: F.one_hot(i, 4), numbers)
    agree(d.OneHot(1, 4), lambda i: F.one_hot(i, 4).movedim(-1, 1), numbers)
