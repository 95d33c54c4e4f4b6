"""What batched models need of the frontends: equations, repeated samples, writes to views."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from benchmarks.batch_cases import ELIMINATED, Case
from safegraph import SafeDAG, tensor
from safegraph.derived.equation import contraction
from safegraph.errors import BatchError, UnsupportedError


def _traced(function: Any, *types: str) -> SafeDAG:
    example = [torch.rand([3 if d == "n" else int(d) for d in t[4:-1].split()]) for t in types]
    traced = torch.jit.trace(function, tuple(example), check_trace=False)
    return SafeDAG.from_torchscript(traced, list(types))


def _equal(dag: SafeDAG, function: Callable[..., Any], *inputs: Tensor) -> None:
    wanted = function(*(x.clone() for x in inputs))
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    found = dag.evaluate(*(x.numpy() for x in inputs))
    for a, b in zip(found.values(), wanted, strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-5, atol=1e-6)


# -- equations ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)]),
        ("bi,ijo,bj->bo", [(2, 3), (3, 4, 5), (2, 4)]),
        ("...i,ij->...j", [(2, 3, 4), (4, 5)]),
        ("...i,...i->...", [(2, 3, 4), (3, 4)]),
        ("...ij,b...j->...bi", [(2, 3, 4), (5, 2, 4)]),
        ("ij,jk", [(2, 3), (3, 4)]),
        ("ba,cb", [(2, 3), (4, 2)]),
        ("a,b,c->abc", [(2,), (3,), (4,)]),
        ("aij->ji", [(2, 3, 4)]),
        ("a...->...", [(2, 3, 4)]),
        ("ij,ij,ij->", [(2, 3)] * 3),
    ],
)
def test_an_equation_is_what_numpy_computes(equation: str, shapes: list[tuple[int, ...]]) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape) for shape in shapes]
    values = [
        tensor(f"x{i}", f"f64[{' '.join(map(str, shape))}]") for i, shape in enumerate(shapes)
    ]
    found = contraction(equation, values)
    assert found is not None
    (got,) = (
        SafeDAG.from_values({"y": found}, ())
        .evaluate(**{f"x{i}": a for i, a in enumerate(arrays)})
        .values()
    )
    np.testing.assert_allclose(got, np.einsum(equation, *arrays), rtol=1e-10)


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ii->i", [(3, 3)]),  # a diagonal
        ("ij,jk->ik", [(2, 3)]),  # an operand is missing
        ("ij,jk->iz", [(2, 3), (3, 4)]),
        ("ij,jk->ii", [(2, 3), (3, 4)]),
        ("...i,...i->...", [(2, 3), (1, 3)]),  # an ellipsis that broadcasts
        ("ijk,jk->ik", [(2, 3), (3, 4)]),
    ],
)
def test_other_equations_are_left_alone(equation: str, shapes: list[tuple[int, ...]]) -> None:
    values = [
        tensor(f"x{i}", f"f64[{' '.join(map(str, shape))}]") for i, shape in enumerate(shapes)
    ]
    assert contraction(equation, values) is None


def test_einsum_of_three_operands_is_read_from_both_formats() -> None:
    def function(x: Tensor, y: Tensor) -> Tensor:
        return torch.einsum("bi,bj,bi->bj", x, y, x)

    dag = _traced(function, "f32[n 3]", "f32[n 4]")
    inputs = torch.rand(5, 3), torch.rand(5, 4)
    _equal(dag, function, *inputs)
    _equal(SafeDAG.from_onnx(dag.to_onnx()), function, *inputs)


# -- repeats --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [0, 1, -1, None])
def test_repeat_interleave_is_torchs(dim: int | None) -> None:
    def function(x: Tensor) -> Tensor:
        return x.repeat_interleave(3, dim) * 2.0

    _equal(_traced(function, "f32[n 4]"), function, torch.rand(5, 4))


def test_other_counts_for_each_place_are_refused() -> None:
    counts = torch.tensor([1, 2, 0, 1])

    def function(x: Tensor) -> Tensor:
        return x.repeat_interleave(counts, 0)

    with pytest.raises(UnsupportedError, match="aten::repeat_interleave"):
        _traced(function, "f32[4 2]")


# -- writes to views ------------------------------------------------------------------------------


def _filled(x: Tensor) -> Tensor:
    y = x * 1.0
    y[:, 1:3] = 7.0
    return y + 1


def _in_turn(x: Tensor) -> Tensor:
    y = x * 1.0
    y[:, 1].mul_(2)
    z = y[0]
    y[1:3, :2] += z[:2]
    return y


def _from_the_end(x: Tensor) -> tuple[Tensor, Tensor]:
    y = x * 1.0
    a = y[:]
    a[-2] = 0
    y[-1, -2:] = 3
    return y, a


def _view_of_view(x: Tensor) -> Tensor:
    y = torch.zeros(4, 4)
    part = y[1]
    part[2:] = 1
    y[0] = 5
    return x + y


def _regions(x: Tensor) -> Tensor:
    """The mask of shifted windows."""
    mask = x.new_zeros((4, 4))
    count = 0
    for rows in ((0, -3), (-3, -1), (-1, None)):
        for columns in ((0, -2), (-2, None)):
            mask[rows[0] : rows[1], columns[0] : columns[1]] = count
            count += 1
    return x[:, None] * mask.view(1, 4, 4)


@pytest.mark.parametrize(
    "function",
    [_filled, _in_turn, _from_the_end, _view_of_view, _regions],
    ids=lambda f: f.__name__,
)
def test_a_write_to_a_part_is_seen_in_the_whole(function: Callable[..., Any]) -> None:
    dag = _traced(function, "f32[4 4]")
    assert not dag.unknown
    _equal(dag, function, torch.rand(4, 4))


def _other_part(x: Tensor) -> Tensor:
    y = x * 1.0
    part = y[1]
    y[1] = 5
    return y + part


class _Kept(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("last", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        part = self.last[:2]  # type: ignore[index]
        part.fill_(1.0)
        return x * 2


@pytest.mark.parametrize(
    ("function", "why"),
    [(_other_part, "shares as a view"), (_Kept(), "changes the buffer last")],
    ids=["another part", "a buffer"],
)
def test_other_writes_are_refused(function: Callable[..., Any], why: str) -> None:
    with pytest.raises(UnsupportedError, match=why):
        _traced(function, "f32[4 4]")


# -- groups ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "case", [c for c in ELIMINATED if "groups=" in c.name], ids=lambda case: case.name
)
def test_as_many_groups_as_samples_go_to_both_formats(case: Case) -> None:
    dag = case.dag("torchscript")
    assert "batch" in str(dag.cost().macs)
    inputs = case.inputs(4)
    wanted = case.module()(*inputs)
    _equal(dag, case.module(), *inputs)
    torch.testing.assert_close(dag.to_torchscript()(*inputs), wanted)
    _equal(SafeDAG.from_onnx(dag.to_onnx()), case.module(), *inputs)


# -- training -------------------------------------------------------------------------------------


class _Normalised(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


def test_batch_norm_in_training_mode_is_refused() -> None:
    model, x = _Normalised().train(), torch.rand(2, 3, 4, 4)
    with pytest.raises(UnsupportedError, match="takes its statistics from the batch"):
        SafeDAG.from_torchscript(torch.jit.trace(model, x, check_trace=False)).unbatch()

    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, (x,), file, dynamo=False, opset_version=17, input_names=["x"],
            dynamic_axes={"x": {0: "batch"}}, training=torch.onnx.TrainingMode.TRAINING,
            do_constant_folding=False,
        )  # fmt: skip
    dag = SafeDAG.from_onnx(onnx.load_from_string(file.getvalue()))
    with pytest.raises((BatchError, UnsupportedError), match="BatchNormalization"):
        dag.unbatch("batch")


class _Standardized(nn.Conv2d):
    """A weight of mean 0 and variance 1, as torch standardizes it: by a batch norm of it."""

    def forward(self, x: Tensor) -> Tensor:
        rows = self.weight.reshape(1, self.out_channels, -1)
        weight = nn.functional.batch_norm(rows, None, None, training=True, momentum=0.0)
        return nn.functional.conv2d(x, weight.reshape_as(self.weight), self.bias)


def test_statistics_of_what_is_no_batch_are_read_from_both_formats() -> None:
    layer = _Standardized(3, 4, 3).requires_grad_(False)
    x = torch.rand(2, 3, 5, 5)
    dag = _traced(layer, "f32[n 3 5 5]")
    _equal(dag, layer, x)
    assert dag.unbatch()
    file: Any = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(layer, (x[:1],), file, dynamo=False)
    _equal(SafeDAG.from_onnx(onnx.load_from_string(file.getvalue())).rebatch("n"), layer, x)


def test_statistics_of_the_batch_keep_samples_together() -> None:
    norm = nn.BatchNorm2d(3, track_running_stats=False).eval()
    dag = _traced(norm.requires_grad_(False), "f32[n 3 4 4]")
    _equal(dag, norm, torch.rand(5, 3, 4, 4))
    with pytest.raises(BatchError, match="reduces"):
        dag.unbatch()


class SamePadded(nn.Conv2d):
    """TensorFlow's SAME padding, computed from sizes as models in torch do."""

    def forward(self, x: Tensor) -> Tensor:
        h, w = map(_padding, x.shape[2:], self.weight.shape[2:], self.stride)
        x = nn.functional.pad(x, [w // 2, w - w // 2, h // 2, h - h // 2])
        return nn.functional.conv2d(x, self.weight, self.bias, self.stride)


def _padding(size: Any, kernel: int, step: int) -> Any:
    if isinstance(size, Tensor):  # as sizes are while a model is traced
        return ((size / step).ceil() * step - step + kernel - size).clamp(min=0)
    return max(-(-size // step) * step - step + kernel - size, 0)


def test_a_padding_is_computed_from_sizes_as_real_numbers() -> None:
    layer = SamePadded(3, 4, (3, 5), (2, 3)).requires_grad_(False)
    x = torch.rand(3, 3, 7, 11)
    file: Any = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(layer, x, check_trace=False)
        torch.onnx.export(layer, (x[:1],), file, dynamo=False)
    model = onnx.load_from_string(file.getvalue())
    for dag in (
        SafeDAG.from_torchscript(traced, ["f32[n 3 7 11]"]),
        SafeDAG.from_onnx(model).rebatch("n"),
    ):
        assert str(dag.types[next(iter(dag.outputs.values()))]) == "f32[n 4 4 4]"
        _equal(dag, layer, x)
        assert dag.unbatch()
