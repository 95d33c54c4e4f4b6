"""SafeDAG: what is well formed, what it means, and parts of it."""

import numpy as np
import pytest
from hypothesis import given, settings

from safegraph.dag import Node, SafeDAG, Tensor
from safegraph.derived.base import Derived
from safegraph.derived.einsum import Linear, Matmul
from safegraph.dims import size
from safegraph.errors import GraphError, SafeGraphError, ShapeError, UnsupportedError
from safegraph.ops import Binary, Iota, Opaque, Permute, Scalar, Unary, Ungroup
from safegraph.value import binary, cast, full, parse_type, permute, tensor, unary
from tests.strategies import CORE, DERIVED, random_case, seeds

n = size("n")


def leaf(name: str, type_: str, kind: str = "input", data: object = None) -> Tensor:
    return Tensor(name, kind, parse_type(type_), data)


@pytest.fixture
def mlp() -> SafeDAG:
    """exp(x @ w.T + b) and the product before it."""
    rng = np.random.default_rng(0)
    return SafeDAG(
        [
            leaf("x", "f32[batch 3]"),
            leaf("w", "f32[4 3]", "parameter", rng.random((4, 3), np.float32)),
            leaf("b", "f32[4]", "buffer", lambda: np.ones(4, np.float32)),
            leaf("unused", "f32[9]", "parameter", np.zeros(9, np.float32)),
        ],
        [
            Node("h", Linear(), ("x", "w", "b")),
            Node("idle", Unary("sin"), ("h",)),
            Node("y", Unary("exp"), ("h",)),
        ],
        {"out": "y", "hidden": "h"},
    )


# -- what is well formed --------------------------------------------------------------------------


def test_types_are_inferred(mlp):
    assert mlp.types["y"] is parse_type("f32[batch 4]")
    assert mlp.sizes == ("batch",)
    assert [t.name for t in mlp.inputs] == ["x"]
    assert [t.name for t in mlp.kind("parameter", "buffer")] == ["w", "b", "unused"]
    assert len(mlp) == 3
    assert mlp.validate() == []


def test_all_problems_are_listed():
    with pytest.raises(GraphError) as caught:
        SafeDAG(
            [leaf("x", "f32[2 3]"), leaf("x", "f32[2]"), leaf("k", "f32[2]", "weight")],
            [
                Node("a", Unary("exp"), ("nowhere",)),
                Node("b", Unary("exp"), ("c",), "layer/b"),
                Node("c", Unary("exp"), ("k",)),
                Node("d", Binary("add"), ("c", "a")),
                Node("e", Permute((0, 1)), ("c",)),
                Node("c", Unary("log"), ("k",)),
            ],
            ["d", "z"],
        )
    text = str(caught.value)
    for problem in (
        "the name x is used twice",
        "the name c is used twice",
        "tensor k: there is no kind 'weight'",
        "node a: its operand nowhere does not exist",
        "node b (layer/b): its operand c is used before it is computed",
        "node e: Permute(order=(0, 1)) of f32[2]: there is no axis 1 in 1 axes",
        "output z: its value z does not exist",
    ):
        assert problem in text
    assert "node d" not in text  # only follows from a
    assert len(caught.value.problems) == 7


def test_data_is_validated():
    data = np.array([1, np.nan], np.float32)

    def gone() -> np.ndarray:
        raise FileNotFoundError("weights.bin is not there")

    dag = SafeDAG(
        [
            leaf("nan", "f32[2]", "parameter", data),
            leaf("wrong", "f32[3]", "parameter", data),
            leaf("type", "f64[2]", "parameter", data),
            leaf("none", "f32[2]", "const"),
            leaf("gone", "f32[2]", "buffer", gone),
            leaf("fine", "i64[2]", "buffer", np.array([1, 2])),
        ],
        [],
        ["nan"],
    )
    assert dag.validate() == [
        "parameter nan: f32[2] contains NaN",
        "parameter wrong is declared f32[3], its data is f32[2]",
        "parameter type is declared f64[2], its data is f32[2]",
        "const none: f32[2] has no data",
        "weights.bin is not there",
    ]


def test_unknown_ops_are_listed(mlp):
    out = parse_type("f32[batch 4]")
    nodes = [
        *mlp,
        *(
            Node(f"u{i}", Opaque("onnx", f"com.example::Foo{i}", (), 0, out), ("y",), "a/b")
            for i in range(3)
        ),
    ]
    dag = SafeDAG(list(mlp.tensors.values()), nodes, ["u0"])
    assert [node.name for node in dag.unknown] == ["u0", "u1", "u2"]
    with pytest.raises(UnsupportedError, match="3 unknown ops") as caught:
        dag.evaluate(np.zeros((2, 3), np.float32))
    for i in range(3):
        assert f"com.example::Foo{i} (onnx) at node u{i} (a/b)" in str(caught.value)
    assert dag.expand().unknown[0].op is dag.nodes["u0"].op
    mlp.require_known("anything")


# -- evaluation -----------------------------------------------------------------------------------


def test_evaluate(mlp):
    x = np.random.default_rng(1).random((5, 3), np.float32)
    w = mlp.tensors["w"].array()
    for found in (mlp.evaluate(x), mlp.evaluate(x=x)):
        assert list(found) == ["out", "hidden"]
        np.testing.assert_allclose(found["hidden"], x @ w.T + 1, rtol=1e-6)
        np.testing.assert_allclose(found["out"], np.exp(x @ w.T + 1), rtol=1e-6)


def test_all_that_does_not_fit_is_listed():
    types = {"a": "f32[n 3]", "b": "f32[n n]", "c": "i64[2]", "d": "f32[]", "e": "f32[1]"}
    dag = SafeDAG([leaf(name, t) for name, t in types.items()], [], ["a"])
    f32 = np.float32
    with pytest.raises(ShapeError) as caught:
        dag.evaluate(
            np.zeros((2, 3, 1), f32),
            np.zeros((2, 3), f32),
            np.zeros(2, f32),
            a=1,
            e=np.zeros(1, f32),
            f=0,
        )
    for problem in (
        "input a is given twice",
        "there is no input f",
        "input d: f32[] is missing",
        "input b is f32[n n], an array of shape (2, 3) was given",
        "input c is i64[2], an array of f32 was given",
    ):
        assert problem in str(caught.value)
    with pytest.raises(ShapeError, match="has 5 inputs, 6 arrays were given"):
        dag.evaluate(*range(6))


def test_sizes_that_the_inputs_do_not_tell():
    dag = SafeDAG([leaf("x", "f32[2*n]")], [Node("y", Iota(n, "i64"), ())], ["x", "y"])
    with pytest.raises(ShapeError, match="do not tell the free sizes n"):
        dag.evaluate(np.zeros(4, np.float32))


def test_assumptions_are_checked():
    dag = SafeDAG([leaf("x", "f32[n]")], [Node("y", Ungroup(((-1, 2),)), ("x",))], ["y"])
    assert list(dag.assumptions) == ["n % 2 == 0"]
    assert dag.evaluate(np.zeros(4, np.float32))["y"].shape == (2, 2)
    with pytest.raises(ShapeError, match="needs n % 2 == 0"):
        dag.evaluate(np.zeros(3, np.float32))
    with pytest.raises(ShapeError, match="needs n % 2 == 0"):
        dag.bind({"n": 3})


def test_an_input_may_be_an_output():
    dag = SafeDAG([leaf("x", "f32[2]")], [], {"a": "x", "b": "x"})
    found = dag.evaluate(np.ones(2, np.float32))
    np.testing.assert_array_equal(found["a"], found["b"])


# -- sizes ----------------------------------------------------------------------------------------


def test_bind(mlp):
    bound = mlp.bind({"batch": 7})
    assert bound.sizes == ()
    assert bound.types["y"] is parse_type("f32[7 4]")
    assert mlp.bind({"batch": 2 * n}).types["y"] is parse_type("f32[2*n 4]")
    assert bound.outputs == mlp.outputs
    with pytest.raises(ShapeError, match="no free size width; it has batch"):
        mlp.bind({"width": 3})


def test_sizes_in_specs_are_bound():
    dag = SafeDAG(
        [leaf("x", "f32[n]")],
        [Node("s", Scalar(2 * n, "f32"), ()), Node("i", Iota(n, "i64"), ())],
        ["s", "i"],
    )
    assert dag.bind({"n": 3}).nodes["s"].op is Scalar(6, "f32")
    found = dag.evaluate(np.zeros(4, np.float32))
    assert found["s"] == 8
    np.testing.assert_array_equal(found["i"], range(4))


# -- parts ----------------------------------------------------------------------------------------


def test_prune(mlp):
    small = mlp.prune()
    assert list(small.nodes) == ["h", "y"]
    assert list(small.tensors) == ["x", "w", "b"]
    x = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(small.evaluate(x)["out"], mlp.evaluate(x)["out"])


def test_values_and_back():
    x, w = tensor("x", "f32[batch 3]"), tensor("w", "f32[3 4]")
    y = unary("exp", x @ w)
    dag = SafeDAG.from_values({"y": y, "same": y, "x": x}, [leaf("w", "f32[3 4]", "parameter")])
    assert [type(node.op) for node in dag] == [Matmul, Unary]
    assert dag.outputs == {"y": "y", "same": "y", "x": "x"}
    assert [t.name for t in dag.inputs] == ["x"]
    assert dag.to_values()["y"] is y
    assert dag.to_values({"x": x * 2})["y"] is unary("exp", (x * 2) @ w)


def test_names_of_values_do_not_collide():
    v0, y = tensor("v0", "f32[2]"), tensor("y", "f32[2]")
    dag = SafeDAG.from_values({"y": unary("exp", unary("sin", v0 + y)), "z": v0})
    found = dag.evaluate(v0=np.zeros(2, np.float32), y=np.ones(2, np.float32))
    np.testing.assert_allclose(found["y"], np.exp(np.sin(np.ones(2))), rtol=1e-6)


# -- core ops only --------------------------------------------------------------------------------


def test_expand(mlp):
    core = mlp.expand()
    assert not any(isinstance(node.op, Derived) for node in core)
    assert list(core.outputs) == list(mlp.outputs)
    assert list(core.tensors) == list(mlp.tensors)
    x = np.random.default_rng(1).random((5, 3), np.float32)
    for name, array in mlp.evaluate(x).items():
        np.testing.assert_allclose(core.evaluate(x)[name], array, rtol=1e-5)


@pytest.mark.parametrize("cls", CORE + DERIVED, ids=lambda cls: cls.name)
@settings(max_examples=8)
@given(seed=seeds)
def test_every_op_expands_to_core_ops_of_equal_value(cls, seed):
    case = random_case(cls, seed)
    assert case is not None
    tensors = [Tensor(f"x{i}", "input", t) for i, t in enumerate(case.types)]
    dag = SafeDAG(tensors, [Node("y", case.op, tuple(t.name for t in tensors))], ["y"])
    core = dag.expand()
    assert not any(isinstance(node.op, Derived) for node in core)
    (found,), (wanted,) = core.evaluate(*case.arrays).values(), dag.evaluate(*case.arrays).values()
    assert found.dtype == wanted.dtype
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-8)


# -- values in Python -----------------------------------------------------------------------------


def test_values_broadcast_as_numpy_does():
    x, y = tensor("x", "f64[3 1 4]"), tensor("y", "f64[n 1]")
    dag = SafeDAG.from_values({"z": (2 * x - y) / (y + 1), "less": x < y, "neg": -x})
    a, b = np.random.default_rng(0).random((3, 1, 4)), np.random.default_rng(1).random((5, 1))
    found = dag.evaluate(x=a, y=b)
    np.testing.assert_allclose(found["z"], (2 * a - b) / (b + 1))
    np.testing.assert_array_equal(found["less"], a < b)
    np.testing.assert_array_equal(found["neg"], -a)


@pytest.mark.parametrize(
    "index",
    [
        np.s_[1],
        np.s_[-1],
        np.s_[:, 1:3],
        np.s_[..., 2],
        np.s_[..., ::2],
        np.s_[1:, None, -2, :],
        np.s_[None, ..., None],
        np.s_[:-1, :, -3:-1],
        np.s_[0, 1, 2],
        np.s_[:, 0:4:3],
    ],
    ids=str,
)
def test_indices_are_those_of_numpy(index):
    a = np.random.default_rng(0).random((3, 4, 5))
    x = tensor("x", "f64[3 4 5]")
    found = SafeDAG.from_values({"y": x[index]}).evaluate(a)["y"]
    np.testing.assert_array_equal(found, a[index])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((2, 3, 4), (6, 4)),
        ((2, 3, 4), (4, 6)),
        ((2, 3, 4), (2, -1)),
        ((6, 4), (2, 3, 2, 2)),
        ((1, 2, 1), (2,)),
        ((2,), (1, 2, 1, 1)),
        ((), (1, 1)),
        ((1, 1), ()),
        ((2, 6), (3, 1, 4)),
        ((4, 1, 3), (1, 12, 1)),
        ((5, 2, 3), (5, 1, 6, 1)),
        ((0, 1, 1, 6), (0, 1, 2, 2)),
        ((0, 6), (6, 0)),
        ((0, 6), (0,)),
    ],
)
def test_reshape_is_that_of_numpy(old, new):
    from safegraph.value import reshape

    a = np.random.default_rng(0).random(old)
    x = tensor("x", parse_type(f"f64[{' '.join(map(str, old))}]"))
    dag = SafeDAG.from_values({"y": reshape(x, new)}, [Tensor("x", "input", x.type)])
    found = dag.evaluate(a)["y"]
    np.testing.assert_array_equal(found, a.reshape(new))


def test_what_does_nothing_leaves_no_trace():
    x = tensor("x", "f32[n 3]")
    assert permute(x, (0, 1)) is x
    assert x[:] is x
    assert cast(x, "f32") is x
    assert permute(permute(x, (1, 0)), (-2, -1)) is permute(x, (1, 0))
    assert binary("add", x, 1) is x + 1
    assert full(0, (), "f32").op is Scalar(0.0, "f32")
    with pytest.raises(AttributeError, match="there is no op 'exponent'"):
        x.exponent()
    with pytest.raises(SafeGraphError):
        x + tensor("y", "f64[n 3]")


# -- size -----------------------------------------------------------------------------------------


def test_a_chain_of_50000_ops():
    count = 50_000
    nodes = [
        Node(f"n{i}", (Unary("neg"), Permute((1, 0)))[i % 2], (f"n{i - 1}" if i else "x",))
        for i in range(count)
    ]
    dag = SafeDAG([leaf("x", "f32[batch batch]")], nodes, [f"n{count - 1}"])
    again = SafeDAG.parse(str(dag))
    assert len(again) == count
    x = np.random.default_rng(0).random((2, 2), np.float32)
    (wanted,) = dag.evaluate(x).values()
    np.testing.assert_array_equal(wanted, x)  # an even number of sign changes and transposes
    assert len(dag.expand()) == len(dag.prune()) == count
    (found,) = dag.expand().evaluate(x).values()
    np.testing.assert_array_equal(found, wanted)
    assert dag.bind({"batch": 2}).sizes == ()
    values = dag.to_values()
    assert len(repr(values[f"n{count - 1}"])) < 5000
