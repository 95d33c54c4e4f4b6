"""Every op keeps what its class says: type, inverse, normal form, text, free sizes, meaning."""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from safegraph.dag import Node, SafeDAG, Tensor
from safegraph.derived.base import Derived
from safegraph.dims import Dim, assuming, holds, size
from safegraph.errors import ShapeError
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
    Sample,
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
from safegraph.value import interleave, stride, tensor
from tests.strategies import CORE, DERIVED, Case, random_array, random_case, seeds

every_core_op = pytest.mark.parametrize("cls", CORE, ids=lambda cls: cls.name)
every_op = pytest.mark.parametrize("cls", CORE + DERIVED, ids=lambda cls: cls.name)
some = settings(max_examples=12)
many = settings(max_examples=40)


def case_of(cls: type[Op], seed: int) -> Case:
    case = random_case(cls, seed)
    assert case is not None, f"{cls.name} has neither a draw that gives a spec nor examples"
    return case


def run(case: Case) -> np.ndarray:
    return np.asarray(case.op.run(*case.arrays))


def close(a: Any, b: Any) -> None:
    assert np.shape(a) == np.shape(b)
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-6, atol=1e-9)


# -- what holds of every op -----------------------------------------------------------------------


@every_op
@some
@given(seed=seeds)
def test_the_declared_type_is_that_of_the_result(cls, seed):
    case = case_of(cls, seed)
    found = run(case)
    declared = case.op.type(*case.types)
    assert (found.shape, found.dtype.name) == (declared.shape, np.dtype(_numpy(declared)).name)


def _numpy(type: TensorType) -> np.dtype:
    from safegraph.dtypes import to_numpy

    return to_numpy(type.dtype)


@every_op
@some
@given(seed=seeds)
def test_the_normal_spelling_has_the_same_meaning(cls, seed):
    case = case_of(cls, seed)
    normal = case.op.normal(*case.types)
    assert normal.type(*case.types) is case.op.type(*case.types)
    assert normal.normal(*case.types) is normal
    close(normal.run(*case.arrays), run(case))


@every_op
@some
@given(seed=seeds)
def test_an_identity_gives_back_its_operand(cls, seed):
    case = case_of(cls, seed)
    if case.types and case.op.is_identity(*case.types):
        np.testing.assert_array_equal(run(case), case.arrays[0])


def test_a_step_over_an_axis_of_one_element_is_no_op():
    """Else its steps would multiply without end in an e-graph: x[::2] = x[::4] = ..."""
    x = tensor("x", "f32[1 3]")
    assert stride(x, (2, 1)) is x
    assert interleave(x, (2, 1), -1.0) is x
    assert stride(x, (2, 2)).shape == (1, 2)


@every_op
@some
@given(seed=seeds)
def test_work_is_known(cls, seed):
    case = case_of(cls, seed)
    flops = case.op.work(*case.types).flops
    assert isinstance(flops, int)
    assert flops >= 0


@every_op
@some
@given(seed=seeds)
def test_the_text_form_round_trips(cls, seed):
    case = case_of(cls, seed)
    tensors = [Tensor(f"x{i}", "input", t) for i, t in enumerate(case.types)]
    dag = SafeDAG(tensors, [Node("y", case.op, tuple(t.name for t in tensors))], ["y"])
    again = SafeDAG.parse(str(dag))
    assert again.nodes["y"].op is case.op
    assert str(again) == str(dag)


@every_core_op
@many
@given(seed=seeds)
def test_inverse_and_pseudo_inverse(cls, seed):
    case = case_of(cls, seed)
    there = run(case)
    inverse, pseudo = case.op.inverse(*case.shapes), case.op.pseudo_inverse(*case.shapes)
    if inverse is not None:
        close(inverse.run(there), case.arrays[0])
    if pseudo is not None:
        close(case.op.run(pseudo.run(there)), there)


# fmt: off
HAVE_AN_INVERSE = {
    Permute, Group, Ungroup, Squeeze, Unsqueeze, Interleave, Pad, Repeat, Fold, Unfold, Unary,
}
HAVE_A_PSEUDO_INVERSE = HAVE_AN_INVERSE | {Stride, Slice, Reduce}
# fmt: on


@every_core_op
def test_the_pairs_of_the_design_have_inverses(cls):
    """So that the test above does not pass for want of inverses."""
    cases = [case_of(cls, seed) for seed in range(60)]
    assert any(c.op.inverse(*c.shapes) for c in cases) == (cls in HAVE_AN_INVERSE)
    assert any(c.op.pseudo_inverse(*c.shapes) for c in cases) == (cls in HAVE_A_PSEUDO_INVERSE)


@every_op
@some
@given(seed=seeds)
def test_free_sizes_bound_are_the_concrete_type(cls, seed):
    case = case_of(cls, seed)
    values: dict[str, int] = {}

    def free(d: Dim) -> Dim:
        if d == 1:
            return 1
        assert isinstance(d, int)
        values[f"s{len(values)}"] = d
        return size(f"s{len(values) - 1}")

    types = tuple(t.with_shape(tuple(map(free, t.shape))) for t in case.types)
    try:
        with assuming() as assumptions:
            found = case.op.type(*types)
    except ShapeError:
        # A core op must not say "never" where it is so for these values.
        assert isinstance(case.op, Derived)
        return
    if all(holds(a, values) for a in assumptions.values()):
        assert found.bind(values) is case.op.type(*case.types)
    else:
        assert isinstance(case.op, Derived)


# -- the meaning of core ops, once more and otherwise ---------------------------------------------


def _pad(op: Any, x: np.ndarray) -> np.ndarray:
    return (
        np.pad(x, list(zip(op.before, op.after, strict=True)), constant_values=op.fill)
        if x.ndim
        else x
    )


def _interleave(op: Interleave, x: np.ndarray) -> np.ndarray:
    for axis, step in enumerate(op.steps):
        parts = np.split(x, x.shape[axis], axis)
        gap = np.full(tuple(step - 1 if i == axis else d for i, d in enumerate(x.shape)), op.fill)
        x = np.concatenate([p for part in parts for p in (part, gap)][:-1], axis)
    return x


def _unfold(op: Any, x: np.ndarray) -> np.ndarray:
    reach = (op.window - 1) * op.dilation + 1
    every = np.lib.stride_tricks.sliding_window_view(x, reach, op.axis)
    front = (slice(None),) * op.axis
    return np.moveaxis(
        every[(*front, slice(None, None, op.step))][..., :: op.dilation], -1, op.axis + 1
    )


def _fold(op: Fold, x: np.ndarray) -> np.ndarray:
    y = np.moveaxis(x, (op.axis, op.axis + 1), (0, 1))
    windows, window = y.shape[:2]
    length = (windows - 1) * op.step + (window - 1) * op.dilation + 1
    out = np.zeros((length, *y.shape[2:]))
    for i, j in product(range(windows), range(window)):
        out[i * op.step + j * op.dilation] += y[i, j]
    return np.moveaxis(out, 0, op.axis)


def _repeat(op: Any, x: np.ndarray) -> np.ndarray:
    for axis, count in enumerate(op.counts):
        x = np.repeat(x, count, axis)
    return x


def _torch_unary(op: Unary, x: np.ndarray) -> np.ndarray:
    name = {
        "inverse": "reciprocal", "gaussian": "special.ndtr", "inv_gaussian": "special.ndtri",
        "is_nan": "isnan",
    }.get(op.kind, op.kind)  # fmt: skip
    function: Any = torch
    for part in name.split("."):
        function = getattr(function, part)
    return function(torch.from_numpy(x)).numpy()


def _torch_binary(op: Binary, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    a, b = torch.from_numpy(x), torch.from_numpy(y)
    if op.kind == "root":
        return torch.pow(a, 1 / b).numpy()
    return getattr(torch, {"less": "lt", "equal": "eq"}.get(op.kind, op.kind))(a, b).numpy()


def _reduce(op: Reduce, x: np.ndarray) -> np.ndarray:
    names = {"max": "amax", "min": "amin"}
    y = torch.from_numpy(x)
    for axis in op.axes:
        y = getattr(torch, names.get(op.kind, op.kind))(y, axis, keepdim=True)
    return y.numpy()


def _ungroup(op: Any, x: np.ndarray) -> np.ndarray:
    shape = []
    for d, factors in zip(x.shape, op.factors, strict=True):
        known = -int(np.prod(factors)) if -1 in factors else 0
        shape += [d // known if f == -1 else f for f in factors]
    return x.reshape(shape)


def _sample(op: Sample, x: np.ndarray) -> np.ndarray:
    """Element by element: those whose middle digit, in the radix of the factors, is the index."""
    kept = [j for j in range(x.shape[op.axis]) if j // op.inner % op.size == op.index]
    y = x.take(kept, op.axis)
    return y.squeeze(op.axis) if (op.outer, op.inner) == (1, 1) else y


ORACLES: dict[type[Op], Callable[..., Any]] = {
    Permute: lambda op, x: np.einsum(x, list(range(x.ndim)), list(op.order)) if x.ndim else x,
    Group: lambda op, x: (
        torch.from_numpy(x)
        .reshape([int(np.prod(x.shape[sum(op.runs[:i]) :][:n])) for i, n in enumerate(op.runs)])
        .numpy()
    ),
    Ungroup: _ungroup,
    Squeeze: lambda op, x: x.reshape([d for i, d in enumerate(x.shape) if i not in op.axes]),
    Unsqueeze: lambda op, x: x[
        tuple(None if i in op.axes else slice(None) for i in range(x.ndim + len(op.axes)))
    ],
    Stride: lambda op, x: (
        x[np.ix_(*(range(0, d, s) for d, s in zip(x.shape, op.steps, strict=True)))]
        if x.ndim
        else x
    ),
    Interleave: _interleave,
    Slice: lambda op, x: x[tuple(map(slice, op.starts, op.stops))],
    Pad: _pad,
    Repeat: _repeat,
    Unfold: _unfold,
    Fold: _fold,
    Reduce: _reduce,
    Unary: _torch_unary,
    Binary: _torch_binary,
    Cast: lambda op, x: torch.from_numpy(x).to(getattr(torch, f"float{op.to[1:]}")).numpy(),
    Select: lambda op, c, x, y: np.choose(c.astype(int), [y, x]),
    Scalar: lambda op: np.array(op.value),
    Iota: lambda op: np.array(list(range(op.size))),
    Sample: _sample,
}


def test_every_core_op_has_an_oracle():
    assert set(ORACLES) == set(CORE)
    assert set(OPS.values()) == {*CORE, *DERIVED, Opaque}


@every_core_op
@many
@given(seed=seeds)
def test_meaning(cls, seed):
    case = case_of(cls, seed)
    close(run(case), ORACLES[cls](case.op, *case.arrays))


@pytest.mark.parametrize("kind", UNARY)
def test_meaning_of_unary(kind):
    case = random_case(Unary, 0)
    assert case is not None
    low, high = UNARY[kind].domain
    x = np.linspace(max(low, -2) + 0.01, min(high, 3) - 0.01, 50)
    close(Unary(kind).run(x), _torch_unary(Unary(kind), x))
    undo = UNARY[kind].undo
    if undo is not None:
        close(Unary(undo).run(Unary(kind).run(x)), x)


@pytest.mark.parametrize("kind", UNARY)
def test_unary_at_the_edges(kind):
    x = np.array([0.0, -0.0, np.inf, -np.inf])
    np.testing.assert_array_equal(Unary(kind).run(x), _torch_unary(Unary(kind), x))
    (of_nan,) = Unary(kind).run(np.array([np.nan]))  # torch.sign says 0 here, NumPy and ONNX NaN
    assert of_nan if kind == "is_nan" else np.isnan(of_nan)


@pytest.mark.parametrize("kind", UNARY)
def test_facts_of_unary(kind):
    low, high = UNARY[kind].domain
    x = np.linspace(max(low, -2) + 0.01, min(high, 3) - 0.01, 50)
    if UNARY[kind].monotone:
        assert (np.diff(Unary(kind).run(x)) >= 0).all()
    if UNARY[kind].odd:
        close(Unary(kind).run(-x), -Unary(kind).run(x))


@pytest.mark.parametrize("kind", BINARY)
def test_facts_of_binary(kind):
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0.5, 2, (2, 50))
    op, facts = Binary(kind), BINARY[kind]
    close(op.run(x, y), _torch_binary(op, x, y))
    if facts.commutative:
        close(op.run(x, y), op.run(y, x))
    if facts.unit is not None:
        close(op.run(x, np.full(50, facts.unit)), x)
    if facts.zero is not None:
        close(op.run(x, np.full(50, facts.zero)), np.full(50, facts.zero))
    if facts.undo is not None:
        close(Binary(facts.undo).run(op.run(x, y), y), x)
    if 0 in facts.linear:
        close(op.run(x + 3 * y, y), op.run(x, y) + 3 * op.run(y, y))


@pytest.mark.parametrize("kind", ["add", "subtract", "multiply", "divide", "maximum", "minimum"])
def test_binary_of_integers(kind):
    """Integer division truncates."""
    x = np.array([7, -7, 7, -7, 0, 2**53 + 1])
    y = np.array([2, 2, -2, -2, 5, 1])
    wanted = torch.div(*map(torch.from_numpy, (x, y)), rounding_mode="trunc").numpy()
    if kind != "divide":
        wanted = _torch_binary(Binary(kind), x, y)
    found = Binary(kind).run(x, y)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("kind", REDUCTIONS)
def test_every_reduction(kind):
    numbers = np.random.default_rng(0).uniform(-2, 2, (3, 4, 5))
    x = numbers > 0 if kind in ("any", "all") else numbers
    close(Reduce((0, 2), kind).run(x), _reduce(Reduce((0, 2), kind), x))


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_half_precision_accumulates_in_single(dtype):
    x = random_array(np.random.default_rng(0), TensorType(dtype, (2, 5000)), 0, 2)
    found = Reduce((1,), "sum").run(x)
    assert found.dtype == x.dtype
    wanted = x.astype(np.float64).sum(1, keepdims=True)
    assert np.abs(found.astype(np.float64) - wanted).max() <= 0.005 * wanted.max()


@pytest.mark.parametrize(
    ("window", "step", "dilation"), [(3, 2, 1), (2, 1, 3), (4, 4, 1), (1, 3, 1)]
)
def test_unfold_and_fold_are_those_of_torch(window, step, dilation):
    x = np.random.default_rng(0).standard_normal((2, 13))
    unfold = Unfold(1, window, step, dilation)
    geometry = {"kernel_size": (window, 1), "stride": (step, 1), "dilation": (dilation, 1)}
    columns = torch.nn.functional.unfold(torch.from_numpy(x)[:, None, :, None], **geometry)
    close(unfold.run(x), columns.transpose(1, 2).numpy())

    fold = Fold(1, step, dilation)
    found = fold.run(unfold.run(x))
    wanted = torch.nn.functional.fold(columns, (found.shape[1], 1), **geometry)
    close(found, wanted[:, 0, :, 0].numpy())


# -- what must be refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "shapes"),
    [
        (Permute((0, 0)), [(2, 3)]),
        (Group((1,)), [(2, 3)]),
        (Ungroup(((4, 2),)), [(6,)]),
        (Ungroup(((-1, -1),)), [(6,)]),
        (Squeeze((0,)), [(2, 1)]),
        (Unsqueeze((5,)), [(2, 3)]),
        (Stride((1,)), [(2, 3)]),
        (Stride((0,)), [(2,)]),
        (Interleave((0,), 0), [(2,)]),
        (Slice((0,), (4,)), [(3,)]),
        (Slice((2,), (1,)), [(3,)]),
        (Pad((-1,), (0,), 0), [(3,)]),
        (Repeat((3,)), [(2,)]),
        (Repeat((-1,)), [(1,)]),
        (Unfold(0, 4, 1), [(3,)]),
        (Unfold(0, 0, 1), [(3,)]),
        (Unfold(0, 1, 0), [(3,)]),
        (Fold(0, 1, 0), [(3, 2)]),
        (Fold(0, 1), [(3,)]),
        (Reduce((2,), "sum"), [(3, 2)]),
        (Reduce((0,), "median"), [(3, 2)]),
        (Unary("sqroot"), [(3,)]),
        (Binary("add"), [(3,), (4,)]),
        (Binary("add"), [(3,), (3, 1)]),
        (Binary("add"), [(3,)]),
        (Select(), [(3,), (3,), (3,)]),
        (Iota(-1, "i64"), []),
    ],
    ids=repr,
)
def test_what_does_not_fit_is_refused(op, shapes):
    with pytest.raises(ShapeError):
        op.type(*(TensorType("f32", s) for s in shapes))
