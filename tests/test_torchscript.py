"""TorchScript in and out, against torch itself."""
# ruff: noqa: E501 (the tables have one case a line)

from __future__ import annotations

import importlib.util
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from safegraph.dag import Node, SafeDAG
from safegraph.dag import Tensor as Leaf
from safegraph.derived.base import Derived
from safegraph.derived.pointwise import Where
from safegraph.dims import dims
from safegraph.errors import FormatError, GraphError, OutputError, UnsupportedError
from safegraph.frontends.torchscript import from_torchscript, to_torchscript
from safegraph.frontends.torchscript.types import short_name, to_array, to_tensor
from safegraph.op import OPS, Op, TensorType
from safegraph.ops import (
    BINARY,
    REDUCTIONS,
    UNARY,
    Binary,
    Cast,
    Fold,
    Group,
    Interleave,
    Iota,
    Opaque,
    Pad,
    Permute,
    Reduce,
    Repeat,
    Scalar,
    Select,
    Slice,
    Squeeze,
    Stride,
    Unary,
    Unfold,
    Ungroup,
    Unsqueeze,
)
from safegraph.value import apply, parse_type, scalar, tensor

# The folder of the tests is no package: models are loaded by their place.
_SPEC = importlib.util.spec_from_file_location(
    "torch_models", Path(__file__).parent / "torch_models.py"
)
assert _SPEC is not None
assert _SPEC.loader is not None
models: Any = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(models)

EVERY = [
    name if name in models.SMALL else pytest.param(name, marks=pytest.mark.slow)
    for name in models.MODELS
]


# -- whole models -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY)
def test_a_model_comes_back(name: str):
    traced, x = models.traced(name)
    dag = from_torchscript(traced)
    reconstructed = to_torchscript(dag)
    with torch.no_grad():
        wanted = traced(x)
        assert wanted.std() > 0
        assert torch.allclose(wanted, reconstructed(x))
    assert not dag.unknown


@pytest.mark.parametrize("name", EVERY)
def test_a_model_comes_back_from_a_file(name: str, tmp_path: Path):
    traced, x = models.traced(name)
    traced.save(tmp_path / "model.pt")
    dag = from_torchscript(tmp_path / "model.pt")  # shapes are inferred: the file has none
    to_torchscript(dag, tmp_path / "again.pt")
    assert not any(p.suffix == ".part" for p in tmp_path.iterdir())
    again = torch.jit.load(tmp_path / "again.pt")
    with torch.no_grad():
        assert torch.allclose(traced(x), again(x))
    assert len(dag.inputs[0].type.shape) == x.dim()
    assert dag.match(x.numpy())


@pytest.mark.parametrize("name", EVERY)
def test_a_model_is_evaluated_by_numpy(name: str):
    traced, x = models.traced(name)
    with torch.no_grad():
        wanted = traced(x).numpy()
    (found,) = from_torchscript(traced).evaluate(x.numpy()).values()
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=2e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("name", EVERY)
def test_tensors_keep_their_names_and_kinds(name: str):
    traced, _ = models.traced(name)
    dag = from_torchscript(traced)
    back = to_torchscript(dag)
    assert list(back.state_dict()) == list(traced.state_dict())
    for kind, of in (("parameter", "named_parameters"), ("buffer", "named_buffers")):
        wanted = {n for n, _ in getattr(traced, of)(remove_duplicate=False)}
        assert {t.name for t in dag.kind(kind)} == wanted
        assert {n for n, _ in getattr(back, of)(remove_duplicate=False)} == wanted
    again = from_torchscript(back, [t.type for t in dag.inputs])
    assert [(t.name, t.kind) for t in again.tensors.values()] == [
        (t.name, t.kind) for t in dag.tensors.values()
    ]


def test_a_captured_tensor_is_a_constant():
    traced, _ = models.traced("convnet")
    dag = from_torchscript(traced)
    (const,) = dag.kind("const")
    assert const.type == TensorType("f32", (10,))
    assert const.name not in to_torchscript(dag).state_dict()


def test_what_comes_back_owns_its_parameters():
    traced, x = models.traced("convnet")
    wanted = traced(x)
    back = to_torchscript(from_torchscript(traced))
    with torch.no_grad():
        for p in back.parameters():
            p.zero_()
    assert torch.equal(traced(x), wanted)


def test_fused_layers_stay_fused():
    traced, _ = models.traced("encoder")
    assert [type(n.op).__name__ for n in from_torchscript(traced)] == ["EncoderLayer"] * 2


def test_a_decomposed_encoder():
    torch.manual_seed(0)
    model, x = models.encoder().eval(), torch.rand(3, 7, 32)
    traced = torch.jit.trace(model, x, check_trace=False)  # with gradients: no fused layers
    dag = from_torchscript(traced)
    assert len(dag) > 20
    assert torch.allclose(traced(x), to_torchscript(dag)(x))


@pytest.mark.parametrize("name", ["encoder", "decoder", "decoder_fused"])
def test_a_model_in_core_ops_only_is_written(name: str):
    traced, x = models.traced(name)
    core = from_torchscript(traced).expand()
    assert not any(isinstance(n.op, Derived) for n in core)
    with torch.no_grad():
        assert torch.allclose(traced(x), to_torchscript(core)(x), rtol=1e-4, atol=1e-5)


def test_reading_what_was_written_changes_nothing():
    traced, x = models.traced("decoder")
    dag = from_torchscript(traced)
    again = from_torchscript(to_torchscript(dag), x)
    assert [n.op for n in again] == [n.op for n in dag]


# -- sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "type_"), [("convnet", "f32[batch 3 64 64]"), ("decoder", "i64[batch seq]")]
)
def test_a_free_batch_size(name: str, type_: str):
    traced, x = models.traced(name)
    dag = from_torchscript(traced, type_)
    assert "batch" in dag.sizes
    assert dag.types[dag.outputs["output"]].shape[0] == dims("batch")[0]
    back = to_torchscript(dag)
    for batch in (1, 5):
        y = torch.rand(batch, 3, 64, 64) if x.is_floating_point() else torch.randint(50, (batch, 9))
        with torch.no_grad():
            assert torch.allclose(traced(y), back(y))
            (found,) = dag.evaluate(y.numpy()).values()
            np.testing.assert_allclose(found, traced(y).numpy(), rtol=1e-4, atol=1e-5)


def test_sizes_are_computed_in_the_source():
    def function(x: Tensor, y: Tensor) -> Tensor:
        n, c, h, w = x.shape
        half = F.max_pool2d(x, 2)
        flat = half.reshape(n, c * (h // 2) * (w // 2)) * (h * w) + torch.arange(n)[:, None]
        return flat[:, : c * 2].repeat(1, 2) + y.new_zeros(n, 1)

    x = torch.rand(2, 3, 6, 8)
    traced = torch.jit.trace(function, (x, x))
    dag = from_torchscript(traced, ["f32[n c h w]", "f32[m]"])
    back = to_torchscript(dag)
    assert dag.sizes == ("n", "c", "h", "w", "m")
    for shape in ((2, 3, 6, 8), (5, 2, 7, 9)):
        z = torch.rand(shape)
        assert torch.equal(traced(z, z), back(z, torch.zeros(4)))


def test_inputs_that_a_file_does_not_tell(tmp_path: Path):
    class TwoInputs(nn.Module):
        def forward(self, image: Tensor, places: Tensor) -> Tensor:
            return F.conv2d(image, torch.ones(4, 3, 2, 2)).index_select(0, places)

    given = (torch.rand(2, 3, 5, 5), torch.tensor([1, 0]))
    torch.jit.trace(TwoInputs(), given).save(tmp_path / "model.pt")
    dag = from_torchscript(tmp_path / "model.pt")
    types = [str(t.type) for t in dag.inputs]
    assert types == ["f32[image_0 3 image_2 image_3]", "i64[places_0]"]


def test_inputs_that_cannot_be_told(tmp_path: Path):
    class Impossible(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.conv1d(x, torch.ones(2, 3, 1)) + torch.ones(7) + torch.ones(5)

    module = torch.jit.script(Impossible())
    module.save(tmp_path / "model.pt")
    with pytest.raises(FormatError, match="inputs="):
        from_torchscript(tmp_path / "model.pt")


def test_a_dropout_that_is_off_draws_no_random_numbers():
    off = torch.jit.trace(lambda x: torch.native_dropout(x, 0.5, False)[0], torch.rand(3))
    assert len(from_torchscript(off).unknown) == 1
    traced = torch.jit.trace(lambda x: x + torch.rand(3), torch.rand(3), check_trace=False)
    with pytest.raises(UnsupportedError, match="random numbers"):
        from_torchscript(traced)


def test_the_largest_number_in_its_fewest_digits_is_written():
    x = tensor("x", "f32[3]")
    dag = SafeDAG.from_values({"y": apply(Where(), x < 0, scalar(-3.4028235e38, "f32"), x)})
    found = to_torchscript(dag)(torch.tensor([-1.0, 0.0, 2.0]))
    assert found.tolist() == [torch.finfo(torch.float32).min, 0, 2]


# -- single operations ------------------------------------------------------------------------------


def _written_at_steps(x: Tensor) -> Tensor:
    y = x.new_zeros(x.shape)
    y[:, :, 1::2] = x[:, :, :2].sin()
    y[:, :, ::2] = 1
    y[:, 0] += 3
    return y


ENDS = torch.tensor([-1.0, 0.0, 1.5])
A = torch.linspace(-2, 3, 24).reshape(2, 3, 4) + 0.013
U = torch.linspace(0.05, 0.95, 24).reshape(2, 3, 4)
L = (torch.arange(24).reshape(2, 3, 4) * 7) % 11 - 5
M = (torch.arange(24).reshape(2, 3, 4) % 3) == 0
B = torch.tensor([0.5, -1.25, 2.0, 0.75])
IMAGE = torch.sin(torch.arange(648.0)).reshape(2, 4, 9, 9)
W = torch.cos(torch.arange(108.0)).reshape(6, 2, 3, 3)
INDEX = torch.tensor([[0, 3, 1], [2, 2, 0]])
ATTEND = torch.tensor([[True, False, True], [True, True, False], [False, True, True]])
H = A.half()

# fmt: off
CASES: dict[str, tuple[Any, ...]] = {
    "alpha":            (lambda x, y: torch.add(x, y, alpha=2) - torch.sub(x, y, alpha=0.5), A, B),
    "integer + float":  (lambda x, y: x + y, L, B),
    "half * float":     (lambda x, y: x * y, H, A),
    "half * number":    (lambda x: x * 0.1 + 1, H),
    "float * 0-d double": (lambda x: x * x.double().sum(), A),
    "integer * number": (lambda x: x * 1.5 + 2, L),
    "integer / integer": (lambda x: x / 2, L),
    "i32 + i64":        (lambda x, y: x.int() + y, L, L),
    "i32 + 0-d i64":    (lambda x, y: x.int() + y.sum(), L, L),
    "bool + 1":         (lambda x: x + 1, M),
    "floor division":   (lambda x, y: (x // 2).float() + y // 0.3, L, A),
    "rounded division": (lambda x: torch.div(x, 3, rounding_mode="trunc") + torch.div(x, 3, rounding_mode="floor"), L),
    "remainders":       (lambda x, y: x % 3 + torch.fmod(y, 0.7), L, A),
    "number - x":       (lambda x: 1 - x, A),
    "number / x":       (lambda x: 1 / x, A),
    "powers":           (lambda x, y: x ** 2 + 2.0 ** x + y ** y, A, U),
    "comparisons":      (lambda x, y: (x < y) | (x >= 1) & (y != 2) ^ (x < 0.5), A, B),
    "where":            (lambda c, x: torch.where(c, x, 0.0) + torch.where(c, 1.0, 2.0), M, A),
    "masked_fill":      (lambda x, c: x.masked_fill(c, float("-inf")), A, M),
    "clamp":            (lambda x, y: x.clamp(-0.5, 0.5).clamp_min(0.1) + torch.clamp(x, min=y), A, B),
    "clamp integers":   (lambda x: x.clamp(-2, 3), L),
    "to":               (lambda x: x.to(torch.int64).to(torch.float64) + x.double(), A),
    "bf16":             (lambda x: (x.bfloat16() * 2).float(), A),
    "integer functions": (lambda x: torch.exp(x) + torch.sqrt(x * x) + x.floor() + x.abs(), L),
    "functions":        (lambda x: x.exp() + x.log() + x.sin() + x.asin() + x.tan() + x.atanh() + x.reciprocal(), U),
    "more functions":   (lambda x: x.rsqrt() + x.erf() + x.log1p() + x.expm1() + x.sigmoid() + torch.special.ndtr(x), U),
    "rounding":         (lambda x: x.floor() + x.ceil() * 2 + x.round() * 4 + x.trunc() * 8 + x.sign(), A),
    "activations":      (lambda x: F.relu6(x) + F.hardsigmoid(x) + F.hardswish(x) + F.silu(x) + F.mish(x), A),
    "more activations": (lambda x: F.leaky_relu(x) + F.elu(x) + F.selu(x) + F.softplus(x) + F.softsign(x), A),
    "gelu":             (lambda x: F.gelu(x) + F.gelu(x, approximate="tanh"), A),
    "prelu":            (F.prelu, IMAGE, B),
    "glu":              (lambda x: F.glu(x), A),
    "views":            (lambda x: x.view(2, -1).reshape(-1, 4).flatten().unflatten(0, (3, -1)), A),
    "orders":           (lambda x: (x[0].t() @ x[1].T.transpose(0, 1)).movedim(0, 1), A),
    "squeeze":          (lambda x: x.unsqueeze(1).unsqueeze(-1).squeeze().unsqueeze(0).squeeze(0), A),
    "expand":           (lambda x, y: x.expand(5, -1, -1, -1) + y.expand_as(x), A, B),
    "repeat":           (lambda x: x.repeat(2, 1, 1, 3), A),
    "cat of types":     (lambda x, y: torch.cat([x, y, x], 1), A, L),
    "stack":            (lambda x: torch.stack([x, x * 2], -1), A),
    "slices":           (lambda x: x[:, -2:, ::2] + x[1:, 0:1, 1:100:2], A),
    "select":           (lambda x: x[-1, :, 1], A),
    "parts":            (lambda x: x.split(2, 1)[1] * x.split([1, 2], 1)[0] + x.chunk(3, 1)[1] + x.unbind(1)[2][:, None], A),
    "roll and flip":    (lambda x: x.roll((1, -1), (1, 2)).roll(3).flip(0, 2), A),
    "pad":              (lambda x: F.pad(F.pad(x, (1, 2, 0, 1), value=3.0), (-1, 2)), A),
    "cdist of many":    (lambda x: torch.cdist(x.repeat(1, 9, 1), 2 * x), A),
    "pad reflect":      (lambda x: F.pad(x[None], (1, 2, 2, 0), "reflect"), A),
    "pad replicate":    (lambda x: F.pad(x[None], (1, 4, 0, 0), "replicate"), A),
    "pad circular":     (lambda x: F.pad(x[None], (1, 2, 0, 1), "circular"), A),
    "unfold":           (lambda x: x.unfold(2, 3, 2), IMAGE),
    "pixel shuffle":    (lambda x: F.pixel_unshuffle(F.pixel_shuffle(x, 2), 3), IMAGE),
    "triangles":        (lambda x: x.tril() + x.triu(1), A),
    "meshgrid":         (lambda x: torch.meshgrid(x, x * 2, indexing="xy")[0], B),
    "new tensors":      (lambda x: torch.zeros(x.size(1), 4) + torch.ones_like(x) + x.new_full((4,), 2.5), A),
    "ranges":           (lambda x: torch.arange(x.size(2)) + torch.arange(1, 9, 2) * x + torch.linspace(0, 3, 4), A),
    "sums":             (lambda x: x.sum() + x.sum((0, 1)) + x.sum(-1, keepdim=True).mean(0, keepdim=True), A),
    "sums of integers": (lambda x, m: x.int().sum(1) + x.prod(1) + m.sum(1), L, M),
    "extremes":         (lambda x: x.amax((1, 2)) + x.amin(1)[:, 0] + x.max() - x.min() + x.max(1)[0][:, 0], A),
    "places":           (lambda x: x.argmax(1) + x.max(1)[1] + x.argmin(-1, keepdim=True)[:, 0] + x.argmax(), A),
    "any and all":      (lambda x: (x > 0).any(1) & (x > -1).all(1), A),
    "variance":         (lambda x: x.var((1, 2)) + x.std(1, unbiased=False)[:, 0], A),
    "norms":            (lambda x: x.norm(dim=1) + torch.linalg.vector_norm(x, 1, 1), A),
    "cumulative sums":  (lambda x, m: x.cumsum(1) + m.cumsum(1), A, M),
    "differences":      (lambda x, m: x.diff() + m.diff(), A, M),
    "matmul":           (lambda x, y: x @ y + (x @ x.transpose(1, 2))[..., 0], A, B),
    "addmm":            (lambda x: torch.addmm(x[0, :, :3], x[0], x[1].t(), beta=0.5, alpha=2), A),
    "baddbmm":          (lambda x: torch.baddbmm(x[:, :, :3], x, x.transpose(1, 2)), A),
    "einsum":           (lambda x, y: torch.einsum("bij,j->ib", x, y), A, B),
    "conv":             (lambda x: F.conv2d(x, W, padding=(1, 2), stride=2, dilation=2, groups=2), IMAGE),
    "conv same":        (lambda x: F.conv2d(x, W, padding="same", dilation=2, groups=2), IMAGE),
    "conv1d":           (lambda x: F.conv1d(x[:, :, 0], W[:, :, 0], groups=2), IMAGE),
    "transposed conv":  (lambda x: F.conv_transpose2d(x, W[:4], stride=2, padding=1, output_padding=1), IMAGE),
    "max pool":         (lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True), IMAGE),
    "max pool, ceil":   (lambda x: F.max_pool2d(x, 2, 2, ceil_mode=True), IMAGE),
    "avg pool":         (lambda x: F.avg_pool2d(x, 3, 2, 1) + F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), IMAGE),
    "avg pool, ceil":   (lambda x: F.avg_pool2d(x, 2, 2, ceil_mode=True), IMAGE),
    "adaptive pools":   (lambda x: F.adaptive_avg_pool2d(x, (2, 4)) + F.adaptive_max_pool2d(x, 1), IMAGE),
    "softmax":          (lambda x: x.softmax(1) + x.log_softmax(-1) + F.softmax(x, 2, dtype=torch.float64), A),
    "layer norm":       (lambda x: F.layer_norm(x, (3, 4)) + F.layer_norm(x, (4,), B, B), A),
    "other norms":      (lambda x: F.group_norm(x, 2, B, B) + F.instance_norm(x), IMAGE),
    "batch norm":       (lambda x: F.batch_norm(x, B, B.abs()), IMAGE),
    "rms norm":         (lambda x: F.rms_norm(x, (4,), B), A),
    "lrn":              (lambda x: F.local_response_norm(x, 3), IMAGE),
    "attention":        (lambda x: F.scaled_dot_product_attention(x, x, x, ATTEND, scale=0.3), A),
    "grouped queries":  (lambda x: F.scaled_dot_product_attention(x, x[:, :2], x[:, :2], enable_gqa=True), IMAGE),
    "embedding":        (lambda i: F.embedding(i, IMAGE[0, 0]), INDEX),
    "index":            (lambda x, i: x[:, :, i] + x[:, 0][:, i][:, None], A, INDEX),
    "gather":           (lambda x, i: x.gather(2, i[..., None]), A, INDEX),
    "one hot":          (lambda i: F.one_hot(i, 5), INDEX),
    "nested results":   (lambda x: (x + 1, (x, x * 2)), A),
    "in place":         (lambda x: x.clone().mul_(2).add_(1).relu_(), A),
    "in place, a view": (lambda x: (x * 1).view(6, 4).add_(1).sum(), A),
    "in place, cast":   (lambda x: (x * 1).add_(L) + (L * 1).add_(2), A),
    "in place, steps":  (lambda x: _written_at_steps(x), A),
    "identities":       (lambda x: torch.eye(3)[:, :1] + x + torch.eye(3, 4), A),
    "made of numbers":  (lambda x: x * torch.hann_window(4) + x[:, torch.tril_indices(3, 3, -1)[0]], A),
    "sums of powers":   (lambda x: (x.logsumexp(1), x.logsumexp((1, 2), keepdim=True), torch.logaddexp(x, 2 * x)), A),
    "of whole vectors": (lambda x: (torch.linalg.norm(x, dim=-1), x.norm(p=3, dim=1), torch.linalg.matrix_norm(x)), A),
    "spread and mean":  (lambda x: (*torch.var_mean(x, 2), *torch.std_mean(x, (1, 2), keepdim=True)), A),
    "ends":             (lambda x: (*torch.aminmax(x, dim=1), x.nansum(1), x.count_nonzero(1)), A),
    "finite, among":    (lambda x: (x.isfinite(), torch.isin(x.long(), L), torch.isin(x.long(), L, invert=True)), A),
    "random at training": (lambda x: F.rrelu(x), A),
    "shrinks":          (lambda x: F.softshrink(x, 0.2) + F.hardshrink(x, 0.3) + x.hypot(x + 1), A),
    "buckets":          (lambda x: (torch.bucketize(x, ENDS, right=True), torch.searchsorted(ENDS, x)), A),
    "sorted rows":      (lambda x: torch.searchsorted(x.sort(-1)[0], x * 0.5), A),
    "diagonals":        (lambda x: (x.diagonal(dim1=1, dim2=2), x.diagonal(1, 1, 2), x.diagonal(-1, 2, 1)), A),
    "parts replaced":   (lambda x: x.slice_scatter(x[:, :1], 1, -1) + x.select_scatter(x[:, 0], 1, 2), A),
    "uneven parts":     (lambda x: (*x.tensor_split(3, 2), *x.tensor_split((1, 2), 1)), A),
    "turned":           (lambda x: torch.fliplr(x) + torch.flipud(x), A),
    "scatter anew":     (lambda x: x.scatter_reduce(1, x.argsort(1) // 2, x, "amax", include_self=False), A),
    "weight norm":      (lambda x: x @ torch._weight_norm(IMAGE[0, 0, :4, :4], B[:, None], 0), A),
    "other products":   (lambda x: (torch.inner(x, B), torch.linalg.vecdot(x, x), torch.matrix_power(x[:, :, :3], 3)), A),
    "columns":          (lambda x: F.unfold(x, (2, 3), stride=2, padding=1, dilation=(2, 1)), IMAGE),
    "columns added up": (lambda x: F.fold(F.unfold(x, (2, 3), stride=2), x.shape[2:], (2, 3), stride=2), IMAGE),
    "size arithmetic":  (lambda x: x.view(x.size(0) * x.size(1) // 3, -1) * x.shape[2] ** 0.5, A),
}
# fmt: on


def flat(found: Any) -> list[Tensor]:
    """The tensors of nested tuples."""
    return [t for f in found for t in flat(f)] if isinstance(found, tuple) else [found]


def precision(tensor: Tensor) -> dict[str, float]:
    return (
        {"rtol": 2e-3, "atol": 2e-3}
        if tensor.dtype == torch.float16
        else {"rtol": 1e-4, "atol": 1e-5}
    )


@pytest.mark.parametrize("name", CASES)
def test_an_operation(name: str):
    function, *given = CASES[name]
    traced = torch.jit.trace(function, tuple(given))
    wanted = flat(traced(*given))
    dag = from_torchscript(traced)
    assert not dag.unknown
    found = flat(to_torchscript(dag)(*given))
    for a, b in zip(wanted, found, strict=True):
        assert a.dtype == b.dtype
        assert torch.allclose(a, b, equal_nan=True)
    arrays = dag.evaluate(*(to_array(x) for x in given)).values()
    for a, array in zip(wanted, arrays, strict=True):
        assert to_array(a).dtype == array.dtype
        np.testing.assert_allclose(array, to_array(a), **precision(a))


# -- every op is written ------------------------------------------------------------------------------

# fmt: off
CORE: list[tuple[Op, str]] = [
    (Permute((2, 0, 1)),                                 "f32[2 3 4]"),
    (Group((1, 2)),                                      "f32[2 3 4]"),
    (Ungroup(((-1,), (-1, 3))),                          "f32[2 6]"),
    (Squeeze((0, 2)),                                    "f32[1 3 1]"),
    (Unsqueeze((0, 2)),                                  "f32[3 2]"),
    (Stride((2, 3)),                                     "f32[5 7]"),
    (Interleave((2, 3), 1.5),                            "f32[3 4]"),
    (Interleave((3, 1), 1),                              "i64[3 4]"),
    (Slice((1, 0), (None, 2)),                           "f32[3 4]"),
    (Pad((1, 0), (2, 1), 0.5),                           "f32[3 4]"),
    (Pad((1,), (2,), 1),                                 "bool[3]"),
    (Repeat((5, 1)),                                     "f32[1 4]"),
    (Unfold(1, 3, 2, 1),                                 "f32[2 9 3]"),
    (Unfold(0, 3, 1, 2),                                 "f32[9 2]"),
    (Fold(1, 2, 1),                                      "f32[2 4 3 2]"),
    (Fold(0, 1, 3),                                      "f32[4 3]"),
    (Cast("i64"),                                        "f32[3]"),
    (Cast("bf16"),                                       "f32[3]"),
    (Select(),                                           "bool[3 2], f32[3 2], f32[3 2]"),
    (Scalar(2.5, "f32"),                                 ""),
    (Scalar(float("-inf"), "f64"),                       ""),
    (Scalar(True, "bool"),                               ""),
    (Iota(5, "f32"),                                     ""),
    (Iota(5, "i64"),                                     ""),
    *((Unary(kind),                                      "f32[3 4]") for kind in UNARY),
    *((Unary(kind),                                      "i64[3 4]") for kind in ("neg", "sign", "floor")),
    *((Binary(kind),                                     "f32[3 4], f32[3 4]") for kind in BINARY),
    *((Binary(kind),                                     "i64[3 4], i64[3 4]") for kind in BINARY if kind not in ("pow", "root")),
    *((Reduce((0, 2), kind),                             "f32[2 3 4]") for kind in REDUCTIONS if kind not in ("any", "all")),
    *((Reduce((1,), kind),                               "i32[2 3]") for kind in ("sum", "prod", "max", "mean")),
    *((Reduce((0, 1), kind),                             "bool[2 3]") for kind in ("any", "all")),
]
# fmt: on
DERIVED = [
    (op, operands)
    for cls in OPS.values()
    if issubclass(cls, Derived)
    for op, operands in cls.examples
]


def operand_types(operands: str) -> list[TensorType]:
    return [
        parse_type(part + "]") for part in operands.replace(",", " ").split("]") if part.strip()
    ]


def draw(rng: np.random.Generator, type_: TensorType) -> Any:
    """Numbers in (0, 1), where all functions of the core are defined; small positive integers."""
    shape = [int(d) for d in type_.shape]
    if type_.dtype == "bool":
        return rng.random(shape) < 0.5
    if type_.dtype.startswith(("i", "u")):
        return rng.integers(1, 3, shape).astype(
            type_.dtype.replace("i", "int").replace("u", "uint")
        )
    return (0.05 + 0.9 * rng.random(shape)).astype({"f64": np.float64}.get(type_.dtype, np.float32))


@pytest.mark.parametrize(("op", "operands"), CORE + DERIVED, ids=repr)
def test_an_op_is_written(op: Op, operands: str):
    check_written(op, operand_types(operands))


def check_written(op: Op, types: list[TensorType]) -> None:
    rng = np.random.default_rng(0)
    arrays = [draw(rng, t) for t in types]
    if op == Unary("arccosh"):
        arrays[0] = arrays[0] + 1
    leaves = [Leaf(f"x{i}", "input", t) for i, t in enumerate(types)]
    dag = SafeDAG(leaves, [Node("y", op, tuple(t.name for t in leaves))], ["y"])
    found = to_torchscript(dag)(*(torch.from_numpy(np.array(a)) for a in arrays))
    wanted = dag.evaluate(*arrays)["y"]
    assert to_array(found).dtype == wanted.dtype
    np.testing.assert_allclose(
        to_array(found).astype(np.float64), wanted.astype(np.float64), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("op", "operands"),
    [
        (name, operands)
        for name, operands in [
            ("MaxPool(window=(3,), strides=(2,), before=(2,), after=(0,), dilations=(1,))", "f32[2 3 9]"),
            ("ConvTranspose(strides=(2,), before=(0,), after=(3,), dilations=(1,), groups=1, extra=(0,))",
             "f32[1 2 5], f32[2 3 4]"),
            ("Conv(strides=(1,), before=(2,), after=(0,), dilations=(1,), groups=1)", "f32[1 2 5], f32[3 2 3]"),
            ("AvgPool(window=(3,), strides=(2,), before=(0,), after=(2,), extra=(0,), count_pad=True)", "f32[1 2 6]"),
            ("HardSigmoid(alpha=0.3, beta=0.4)", "f32[5]"),
            ("Attention(scale=None, causal=True)", "f32[2 3 4], f32[2 3 4], f32[2 3 4], f32[3 3]"),
            ("CumSum(axis=1, exclusive=True, reverse=True)", "f32[2 5]"),
            ("LocalResponseNorm(size=3)", "f32[2 5 4]"),
            ("Softsign()", "f32[5]"),
            ("LeakyRelu(slope=1.0)", "f32[5]"),
            ("Reshape(to=(2, 3))", "f32[2 3]"),
            ("LocalResponseNorm(size=1, alpha=0.0)", "f32[2 5 4]"),
        ]
    ],
)  # fmt: skip
def test_what_torch_lacks_is_written_by_definition(op: str, operands: str):
    from safegraph.derived import attention, conv, index, norm, pointwise, pool, shape

    scope = {
        k: c
        for m in (attention, conv, index, norm, pointwise, pool, shape)
        for k, c in vars(m).items()
    }
    check_written(eval(op, scope), operand_types(operands))


def test_every_derived_op_has_an_example():
    covered = {type(op) for op, _ in DERIVED}
    from safegraph.frontends.torchscript.table_out import TABLE

    written = {op for op in TABLE if issubclass(op, Derived)}
    missing = {op.__name__ for op in written - covered}
    assert missing <= {
        "Einsum",
        "Matmul",
        "Linear",
        "Gemm",
        "Reshape",
        "Expand",
        "Concat",
        "Index",
        "Tile",
    }


def test_only_what_is_needed_is_written():
    traced = torch.jit.trace(lambda x: (x + 2.0).mean(1), A)
    code = to_torchscript(from_torchscript(traced)).code
    assert "squeeze" not in code
    assert "full" not in code
    assert "expand" not in code


# -- unknown operations ------------------------------------------------------------------------------


def spectrum(x: Tensor) -> Tensor:
    largest, places = (x * 2).cummax(dim=1)
    return torch.view_as_real(torch.fft.fft(largest, dim=-1)).sum() + places.sum()


def test_unknown_operations_are_carried():
    traced = torch.jit.trace(spectrum, A)
    dag = from_torchscript(traced)
    assert [n.op.kind for n in dag.unknown if isinstance(n.op, Opaque)] == [
        "aten::cummax", "aten::cummax", "aten::fft_fft", "aten::view_as_real",
    ]  # fmt: skip
    back = to_torchscript(dag)
    assert torch.allclose(traced(A), back(A))
    assert back.code.count("cummax") == 1  # two results of one call
    with pytest.raises(UnsupportedError, match=r"aten::cummax.*\n.*\n.*fft_fft"):
        dag.evaluate(A.numpy())


def test_unknown_operations_need_static_sizes():
    traced = torch.jit.trace(spectrum, A)
    with pytest.raises(FormatError, match=r"aten::cummax.*free sizes \(batch\).*inputs="):
        from_torchscript(traced, "f32[batch 3 4]")


def test_a_fused_layer_with_a_mask_says_how_to_unfuse_it():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval().requires_grad_(False)
    mask = nn.Transformer.generate_square_subsequent_mask(5)
    with torch.no_grad():
        traced = torch.jit.trace(lambda x: layer(x, src_mask=mask), torch.zeros(2, 5, 8))
    with pytest.raises(FormatError, match=r"_encoder_layer_fwd.*set_fastpath_enabled\(False\)"):
        from_torchscript(traced, "f32[batch 5 8]")


def test_operations_of_other_formats_are_all_named():
    out = TensorType("f32", (3,))
    nodes = [Node(f"y{i}", Opaque("onnx", f"Foo{i}", (), 0, out), ("x",)) for i in range(3)]
    dag = SafeDAG([Leaf("x", "input", out)], nodes, [n.name for n in nodes])
    with pytest.raises(UnsupportedError) as caught:
        to_torchscript(dag)
    assert [f"Foo{i}" in str(caught.value) for i in range(3)] == [True] * 3


# -- scripted modules --------------------------------------------------------------------------------


class Scripted(nn.Module):
    """Straight-line code with branches and loops that the shapes and the mode decide."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout()
        self.layers = nn.ModuleList([nn.Conv2d(4, 4, 1), nn.ReLU()])

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if x.dim() != 4:
            raise ValueError("expected four axes")
        y = self.drop(self.norm(x))
        for layer in self.layers:
            y = layer(y)
        parts = []
        for i in range(3):
            parts.append(y * i)
        y = torch.cat(parts, 1)
        if mask is not None:
            y = y * mask
        if x.size(1) == 4:
            y = y + 1
        return y


def test_a_scripted_module():
    module = torch.jit.script(Scripted().eval())
    dag = from_torchscript(module, IMAGE)
    assert torch.allclose(module(IMAGE), to_torchscript(dag)(IMAGE))
    assert [t.name for t in dag.inputs] == ["x"]
    masked = from_torchscript(module, [IMAGE, IMAGE[:, :1]])
    assert torch.allclose(module(IMAGE, IMAGE[:, :1]), to_torchscript(masked)(IMAGE, IMAGE[:, :1]))


class Branches(nn.Module):
    """Control flow that depends on values, and a change of state."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def forward(self, x: Tensor) -> Tensor:
        if bool(x.sum() > 0):
            x = x + 1
        y = x * 2
        while bool(y.max() < 10):
            y = y * 2
        self.count = 3
        return y


def test_control_flow_is_refused_with_all_places():
    module = torch.jit.script(Branches())
    with pytest.raises(UnsupportedError) as caught:
        from_torchscript(module, A)
    text = str(caught.value)
    assert "aten::Bool (if bool(x.sum() > 0)" in text
    assert 'prim::SetAttr[name="count"]' in text
    assert len(caught.value.problems) == 2  # what depends on a refused value is not listed again


# -- refusals ---------------------------------------------------------------------------------------


def written_through_a_view(x: Tensor) -> Tensor:
    y = x * 2
    y.view(6, 4).add_(1)
    return y


def view_read_after_a_write(x: Tensor) -> Tensor:
    y = x * 2
    row = y[0]
    y.add_(1)
    return row + y


@pytest.mark.parametrize("function", [written_through_a_view, view_read_after_a_write])
def test_a_write_that_a_view_sees_is_refused(function: Callable[[Tensor], Tensor]):
    traced = torch.jit.trace(function, A)
    with pytest.raises(UnsupportedError, match=r"aten::add_ .*shares as a view"):
        from_torchscript(traced)


def test_a_write_to_a_buffer_is_refused():
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("steps", torch.zeros(4))

        def forward(self, x: Tensor) -> Tensor:
            self.steps.add_(1)
            return x + self.steps

    traced = torch.jit.trace(Counter(), A, check_trace=False)
    with pytest.raises(UnsupportedError, match="changes the buffer steps"):
        from_torchscript(traced)


@pytest.mark.parametrize(
    ("model", "what"),
    [
        (nn.Sequential(nn.Linear(4, 4), nn.Dropout()), "dropout draws random numbers"),
        (nn.BatchNorm2d(4), "statistics from the batch"),
    ],
)
def test_training_mode_is_refused(model: nn.Module, what: str):
    traced = torch.jit.trace(model.train(), IMAGE[..., :4], check_trace=False)
    with pytest.raises(UnsupportedError, match=rf"{what}.*\.eval\(\)"):
        from_torchscript(traced)


def test_random_numbers_are_refused():
    traced = torch.jit.trace(lambda x: x + torch.rand_like(x), A, check_trace=False)
    with pytest.raises(UnsupportedError, match="random numbers"):
        from_torchscript(traced)


# -- files --------------------------------------------------------------------------------------------


def saved(path: Path) -> Path:
    torch.jit.trace(nn.Linear(4, 2), A).save(path)
    return path


def test_a_missing_file(tmp_path: Path):
    with pytest.raises(FormatError, match="no file"):
        from_torchscript(tmp_path / "absent.pt")


def test_a_truncated_file(tmp_path: Path):
    path = saved(tmp_path / "model.pt")
    path.write_bytes(path.read_bytes()[:-700])
    with pytest.raises(FormatError, match="not a whole TorchScript file"):
        from_torchscript(path)


def test_foreign_files(tmp_path: Path):
    (tmp_path / "text.pt").write_text("no model at all")
    torch.save({"weight": A}, tmp_path / "weights.pt")
    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as archive:
        archive.writestr("a/b.txt", "b")
    for name in ("text.pt", "weights.pt", "zip.pt"):
        with pytest.raises(FormatError, match=f"{name} is not"):
            from_torchscript(tmp_path / name)


def test_a_module_that_is_not_traced():
    with pytest.raises(FormatError, match=r"torch\.jit\.trace"):
        from_torchscript(nn.Linear(4, 2))


@pytest.mark.parametrize("inputs", [[A, A], [3], "f32[2 3"])
def test_inputs_that_do_not_fit(inputs: Any, tmp_path: Path):
    traced = torch.jit.trace(nn.Linear(4, 2), A)
    with pytest.raises(Exception, match=r"inputs|no type"):
        from_torchscript(traced, inputs)


def test_an_output_that_cannot_be_written(tmp_path: Path):
    dag = from_torchscript(torch.jit.trace(nn.Linear(4, 2), A))
    taken = tmp_path / "folder.pt"
    taken.mkdir()
    for path in (taken, tmp_path / "absent" / "model.pt"):
        with pytest.raises(OutputError, match="cannot be written"):
            to_torchscript(dag, path)
    assert list(tmp_path.iterdir()) == [taken]


def test_a_graph_without_data_is_not_written():
    leaf = Leaf("w", "parameter", TensorType("f32", (3,)))
    dag = SafeDAG([leaf], [Node("y", Unary("exp"), ("w",))], ["y"])
    with pytest.raises(GraphError, match="has no data"):
        to_torchscript(dag)


# -- names and element types -----------------------------------------------------------------------------


def test_names_of_other_formats():
    names = ["onnx::MatMul_12", "a", "a.b", "fc/weight:0", "block.0.weight", "training", "for"]
    leaves = [
        Leaf(n, "parameter", TensorType("f32", (3,)), np.full(3, i, np.float32))
        for i, n in enumerate(names)
    ]
    x = Leaf("input.1", "input", TensorType("f32", (3,)))
    nodes = [
        Node(f"{i}", Binary("add"), (f"{i - 1}" if i else "input.1", n))
        for i, n in enumerate(names)
    ]
    module = to_torchscript(SafeDAG([x, *leaves], nodes, [nodes[-1].name]))
    assert torch.equal(module(torch.zeros(3)), torch.full((3,), 21.0))
    assert {"onnx::MatMul_12", "a", "fc/weight:0", "block.0.weight"} <= set(module.state_dict())
    assert len(module.state_dict()) == len(names)


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.float64, torch.int8, torch.bool]
)
def test_elements_survive(dtype: torch.dtype):
    tensor = (A * 3).to(dtype)
    array = to_array(tensor)
    assert torch.equal(to_tensor(array, short_name(dtype)), tensor)


# -- results that nobody uses ---------------------------------------------------------------------


class Attending(nn.Module):
    """Self-attention, and the weights of it too if they are wanted."""

    def __init__(self, weights: bool) -> None:
        super().__init__()
        self.inner, self.weights = nn.MultiheadAttention(8, 2, batch_first=True), weights

    def forward(self, x: torch.Tensor) -> Any:
        result, weights = self.inner(x, x, x)
        return (result, weights) if self.weights else result


@pytest.mark.parametrize("weights", [False, True])
def test_weights_of_attention_are_nodes_only_where_they_are_used(weights: bool) -> None:
    x = torch.randn(2, 5, 8)
    with torch.no_grad():
        traced = torch.jit.trace(Attending(weights).eval(), x)
        wanted = traced(x) if weights else (traced(x),)
    dag = SafeDAG.from_torchscript(traced, ["f32[batch 5 8]"])
    assert "aten::_native_multi_head_attention" in str(traced.inlined_graph)
    assert [node.op.name for node in dag if node.op.name in ("multi_head", "softmax")] == (
        ["multi_head", "softmax"] if weights else ["multi_head"]
    )
    assert weights or len(dag) == 1
    for found, one in zip(dag.evaluate(x.numpy()).values(), wanted, strict=True):
        np.testing.assert_allclose(found, one, atol=1e-6)
