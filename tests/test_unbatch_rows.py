"""Indices of all samples in a row, as torch's older ONNX exporter writes `x[arange(n), i]`."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from safegraph import SafeDAG, Value, dims, tensor
from safegraph.batch import unbatch
from safegraph.dag import Tensor
from safegraph.derived import Broadcast, Clip, Gather
from safegraph.dims import Dim
from safegraph.op import TensorType
from safegraph.value import cast, iota, parse_type, reduce, reshape, scalar, unsqueeze

n = dims.size("n")
Index = Callable[[Value], Value]


def place(tokens: Value) -> Value:
    """The place of the largest token of each sample."""
    return tokens.arg_max(axis=1)


def rows(index: Index, batch: Dim, block: int = 5) -> Value:
    """The rows with this index in [batch, 5, 4], counted through all samples."""
    x = tensor("x", f"f64[{batch} 5 4]")
    own = index(tensor("tokens", f"i64[{batch} 5]"))
    return Gather(0)(reshape(x, (5 * batch, 4)), own + first_of_each(batch, block))


def first_of_each(batch: Dim, block: int) -> Value:
    """In which row each sample starts."""
    return Broadcast("multiply")(iota(batch), scalar(block, "i64"))


def verdict(value: Value) -> Any:
    return unbatch(SafeDAG.from_values({"y": value}))


ROWS: dict[str, Index] = {
    "the largest token": place,
    "the last token that is not 0": lambda t: (
        reduce(cast(cast(t, "bool"), "i64"), [1], "sum", keep=False) - scalar(1, "i64")
    ).maximum(scalar(0, "i64").expand(to=(t.shape[0],))),
}


@pytest.mark.parametrize("batch", [n, 2, 3])
@pytest.mark.parametrize("name", ROWS)
def test_an_index_inside_each_sample_is_one_in_it(name: str, batch: Dim) -> None:
    found = verdict(rows(ROWS[name], batch))
    assert found.accepted, found.refusal
    assert found.verify((1, 2, 5))
    (last,) = [node for node in found.dag if node.op.name == "gather"]
    assert str(found.dag.types[last.inputs[0]]) == "f64[5 4]"
    assert str(found.dag.types[last.inputs[1]]) == "i64[]"
    if batch is not n:
        again = SafeDAG.from_values({"y": rows(ROWS[name], batch)}).rebatch("m")
        assert str(again.types[again.outputs["y"]]) == "f64[m 4]"


@pytest.mark.parametrize("batch", [n, 2])
@pytest.mark.parametrize("low", [-1, 0])
@pytest.mark.parametrize("high", [4, 5])
def test_an_index_that_may_leave_its_sample_is_refused(batch: Dim, low: int, high: int) -> None:
    found = verdict(rows(lambda t: Clip(low, high)(place(t) * 7 - 9), batch))
    assert found.accepted == ((low, high) == (0, 4))
    if not found.accepted:
        assert found.refusal.op == "gather"
        assert "clamp the indices before" in found.refusal.reason


@pytest.mark.parametrize("block", [1, 4, 6, 10])
def test_other_blocks_are_refused_at_the_sum(block: int) -> None:
    found = verdict(rows(place, n, block))
    assert not found.accepted
    assert found.refusal.op == "binary"
    assert "differs per sample" in found.refusal.reason


def test_other_uses_of_the_number_of_the_sample_are_refused_at_the_sum() -> None:
    tokens = tensor("tokens", "i64[n 5]")
    numbered = place(tokens) + first_of_each(n, 5)
    for value in (cast(numbered, "f64"), numbered, numbered + numbered, numbered * numbered):
        refusal = verdict(value).refusal
        assert refusal is not None
        assert (refusal.op, "differs per sample" in refusal.reason) == ("binary", True)


def test_the_number_may_be_a_constant_and_more_than_one_sum_lead_to_the_index() -> None:
    x, tokens = tensor("x", "f64[3 5 2 4]"), tensor("tokens", "i64[3 5]")
    number = np.arange(3)[:, None] * 10
    leaf = tensor("number", "i64[3 1]")
    index = unsqueeze(place(tokens) * scalar(2, "i64"), [1]) + leaf
    picked = Gather(0)(reshape(x, (30, 4)), index + Clip(0, 1)(tensor("second", "i64[3 1]")))
    const = Tensor("number", "const", parse_type("i64[3 1]"), number)
    found = unbatch(SafeDAG.from_values({"y": picked}, [const]))
    assert found.accepted, found.refusal
    assert found.verify()
    wrong = Tensor("number", "const", parse_type("i64[3 1]"), number[::-1].copy())
    assert not unbatch(SafeDAG.from_values({"y": picked}, [wrong]))


def strided(batch: Dim, own: np.ndarray, block: int = 6) -> SafeDAG:
    """[batch 6] seen through numbers in all samples, as torch's exporters write `as_strided`.

    Torch pools channels that come last so.  A batch that is a number makes one constant of them.
    """
    rows = reshape(tensor("x", f"f64[{batch} 6]"), (6 * batch,))
    static = isinstance(batch, int)
    numbers = own + block * np.arange(batch)[:, None, None] if static else own
    leaf = tensor("numbers", TensorType("i64", numbers.shape))
    index = leaf if static else unsqueeze(first_of_each(batch, block), [1, 2]) + leaf
    const = Tensor("numbers", "const", leaf.type, numbers)
    return SafeDAG.from_values({"y": Gather(0)(rows, index) * 2.0}, [const])


@pytest.mark.parametrize("batch", [n, 1, 2, 3])
def test_a_view_by_strides_is_the_same_view_of_each_sample(batch: Dim) -> None:
    dag = strided(batch, np.array([0, 5, 2, 2]).reshape(1, 4, 1))
    found = unbatch(dag)
    assert found.accepted, found.refusal
    assert found.verify((1, 2, 5))
    assert str(found.dag.types["y"]) == "f64[4 1]"
    again = dag.rebatch("m")
    assert str(again.types["y"]) == "f64[m 4 1]"
    x = np.random.default_rng(0).normal(size=(5, 6))
    (y,) = again.evaluate(x).values()
    np.testing.assert_array_equal(y, 2 * x[:, [0, 5, 2, 2], None])


@pytest.mark.parametrize("batch", [n, 2])
def test_a_view_by_strides_across_samples_is_refused(batch: Dim) -> None:
    overlapping = unbatch(strided(batch, np.arange(4).reshape(1, 4, 1), block=3))
    assert overlapping.refusal is not None
    why = "differs per sample" if batch is n else "picks samples by number"
    assert why in overlapping.refusal.reason
    outside = unbatch(strided(batch, np.array([-1, 2]).reshape(1, 2, 1)))
    assert outside.refusal is not None
    assert "picks from another sample" in outside.refusal.reason
