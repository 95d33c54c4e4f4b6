"""Batches that are numbers, above all batches of 1: what is refused, and where they come back."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.batch_files import exported, traced
from safegraph import SafeDAG, tensor
from safegraph.batch import rebatch, unbatch
from safegraph.dag import Node
from safegraph.dag import Tensor as Leaf
from safegraph.derived import Concat, CumSum, Flip, Index, Linear, Softmax
from safegraph.errors import FormatError
from safegraph.op import Op, TensorType
from safegraph.ops import Reduce
from safegraph.value import permute, reduce, reshape, slice_axis, squeeze, unsqueeze
from tests.unbatched import accepted, graph


@pytest.mark.parametrize("op", [Reduce((0,), "mean"), Softmax(0), Flip((0,)), CumSum(0)])
def test_a_batch_of_one_is_refused_where_a_larger_one_would_mix(op: Op) -> None:
    # as files have it: made in Python, a mean of one element is that element
    one = Leaf("x", "input", TensorType("f64", (1, 4, 6)))
    refusal = unbatch(SafeDAG([one], [Node("y", op, ("x",))], ["y"])).refusal
    assert refusal is not None
    assert (refusal.op, refusal.axis) == (op.name, 0)


def test_a_batch_of_one_that_is_squeezed_and_comes_back_is_free_after_rebatch() -> None:
    one = tensor("x", "f64[1 4 6]")
    scores = squeeze(one, [0]) @ tensor("w", "f64[6 6]")
    dag = graph(unsqueeze(scores.softmax(axis=1), [0]))
    found = rebatch(dag, "n", {"x": 0})
    assert str(found.types[found.outputs["y0"]]) == "f64[n 4 6]"
    assert accepted(found, {"x": 0})


def test_an_output_whose_batch_of_one_was_squeezed_has_it_first() -> None:
    one = tensor("x", "f64[1 4 6]")
    dag = graph(squeeze(one.relu(), [0]))
    assert dict(unbatch(dag).outputs) == {"y0": "merged"}
    found = dag.rebatch("n")
    assert str(found.types[found.outputs["y0"]]) == "f64[n 4 6]"


def test_a_time_first_batch_of_one_hidden_between_two_axes_comes_back() -> None:
    one = tensor("x", "f64[5 1 6]")
    heads = permute(reshape(one, (5, 2, 3)), (1, 0, 2))  # [t, batch*heads, d], as exporters bake it
    mixed = (heads @ permute(heads, (0, 2, 1))).softmax(axis=2) @ heads
    joined = reshape(permute(mixed, (1, 0, 2)), (5, 6))
    dag = graph(reshape(Linear()(joined, tensor("w", "f64[6 6]")), (5, 1, 6)))
    verdict = unbatch(dag, {"x": 1})
    assert verdict.axes["y0"] == 1
    found = rebatch(dag, "n", {"x": 1})
    assert str(found.types[found.outputs["y0"]]) == "f64[5 n 6]"
    accepted(found, {"x": 1})


def test_what_an_op_does_to_the_first_axis_leaves_a_batch_of_one_before_it() -> None:
    inside = squeeze(tensor("x", "f64[1 4 6]"), [0])
    pooled = squeeze(reduce(inside, [0], "mean"), [0])
    dag = graph(unsqueeze(Softmax(0)(inside), [0]), unsqueeze(pooled, [0]))
    found = dag.rebatch("n")
    assert [str(found.types[v]) for v in found.outputs.values()] == ["f64[n 4 6]", "f64[n 6]"]
    accepted(found)


def test_axes_of_size_one_that_change_places_are_told_by_nothing() -> None:
    dag = graph(permute(unsqueeze(tensor("x", "f64[1 2 5]"), [1]), (3, 0, 1, 2)).tanh())
    found = dag.rebatch("n", {"x": 1})
    assert str(found.types[found.outputs["y0"]]) == "f64[5 1 1 n]"
    accepted(found, {"x": 1})


@pytest.mark.parametrize("batch", [1, 2])
def test_a_shift_over_all_samples_is_refused(batch: int) -> None:
    """By as many places as there are samples: for any other number of them it would mix."""
    x = tensor("x", f"f64[{batch} 4]")
    shifted = slice_axis(x.pad(before=(batch, 0), after=(0, 0), fill=0.0), 0, 0, batch)
    rolled = Concat(0)(slice_axis(x, 0, batch, batch), x)
    for value, op in ((shifted, "pad"), (rolled, "slice")):
        refusal = unbatch(graph(value)).refusal
        assert refusal is not None
        assert (refusal.op, refusal.axis) == (op, 0)


def _padded(x: Tensor) -> Tensor:
    return F.pad(x, (0, 0, 1, 0))[:-1]


# each does nothing, or next to nothing, to one sample
MIXING: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda x: x - x.mean(0),
    "mean, kept": lambda x: x - x.mean(0, keepdim=True),
    "sum": lambda x: x - x.sum(0) / x.shape[0],
    "max": lambda x: x / (1 + x.amax(0)),
    "max and place": lambda x: x / (1 + x.max(0)[0]),
    "prod": lambda x: x + x.prod(0),
    "any": lambda x: x * (x > 0).any(0),
    "norm": lambda x: F.normalize(x, dim=0),
    "variance": lambda x: x / (1 + x.var(0, unbiased=False)),
    "einsum": lambda x: x - torch.einsum("bi->i", x),
    "softmax": lambda x: x.softmax(0),
    "cumsum": lambda x: x.cumsum(0),
    "roll": lambda x: x.roll(1, 0),
    "pad": _padded,
    "flip": lambda x: x + x.flip(0),
    "conv": lambda x: F.conv1d(x.t()[None], torch.ones(4, 4, 3), padding=1)[0].t(),
}


def _as_file(function: Callable[..., Tensor], source: str, *inputs: Tensor) -> SafeDAG:
    class Program(torch.nn.Module):
        def forward(self, *inputs: Tensor) -> Tensor:
            return function(*inputs)

    if source == "onnx":
        return SafeDAG.from_onnx(exported(Program(), inputs))
    return SafeDAG.from_torchscript(traced(Program(), inputs))


@pytest.mark.parametrize("source", ["onnx", "torchscript"])
@pytest.mark.parametrize("name", MIXING)
def test_a_file_for_one_sample_whose_ops_mix_more_is_refused(name: str, source: str) -> None:
    dag = _as_file(MIXING[name], source, torch.rand(1, 4))
    assert not unbatch(dag)


@pytest.mark.parametrize("source", ["onnx", "torchscript"])
def test_means_over_other_axes_of_size_one_stay_possible(source: str) -> None:
    dag = _as_file(lambda x: x.mean((2, 3)), source, torch.rand(1, 3, 1, 1))
    assert [node.op.name for node in dag][:1] == ["reduce"]
    found = dag.rebatch("n")
    array = np.random.default_rng(0).standard_normal((4, 3, 1, 1)).astype("f4")
    (result,) = found.evaluate(array).values()
    np.testing.assert_array_equal(result, array.reshape(4, 3))


def _zeroed(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, 0] = 0.0
    return y


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("source", ["onnx", "torchscript"])
def test_a_write_to_a_place_of_each_sample_is_one_in_each(source: str, batch: int) -> None:
    """ONNX has the places as one constant, of which a part is the number of the sample."""
    found = _as_file(_zeroed, source, torch.rand(batch, 5, 3)).rebatch("n")
    x = torch.rand(4, 5, 3)
    (result,) = found.evaluate(x.numpy()).values()
    np.testing.assert_array_equal(result, _zeroed(x))


@pytest.mark.parametrize("batch", [1, 2])
def test_a_write_to_a_large_part_of_each_sample_is_one_in_each(batch: int) -> None:
    """Its places, too many to be computed while the file is read, are joined and picked again."""

    def written(x: Tensor) -> Tensor:
        y = x.clone()
        y[:, :, 1:] = 2 * y[:, :, 1:]
        return y

    dag = _as_file(written, "onnx", torch.rand(batch, 40, 40))
    assert {"concat", "index", "scatter_nd"} <= {node.op.name for node in dag}
    x = torch.rand(3, 40, 40)
    (result,) = dag.rebatch("n").evaluate(x.numpy()).values()
    np.testing.assert_array_equal(result, written(x))


def test_parts_of_a_constant_do_not_share_a_name() -> None:
    both = tensor("both", "i64[2 1 2]")
    places = [Index(2, k)(both) for k in (0, 1)]
    leaf = Leaf("both", "const", TensorType("i64", (2, 1, 2)), np.array([[[3, 4]]] * 2))
    number = tensor("i", "i64[2 1]")
    dag = SafeDAG.from_values({"a": number + places[0], "b": number + places[1]}, [leaf])
    found = unbatch(dag, {"i": 0})
    assert found.accepted, found.refusal
    (a,), (b,) = found.dag.evaluate(np.array([10])).values()
    assert (a, b) == (13, 14)


def test_a_reshape_of_a_constant_that_cannot_be_is_named() -> None:
    """As torch's older exporter writes a write of one number to several places."""

    def written(x: Tensor) -> Tensor:
        return x.clone().index_put((torch.arange(2), torch.tensor([1, 2])), torch.zeros(1))

    with pytest.raises(FormatError, match="1 elements are no tensor of shape"):
        _as_file(written, "onnx", torch.rand(2, 5))
