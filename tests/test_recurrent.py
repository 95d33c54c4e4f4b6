"""Recurrent layers: against PyTorch and ONNX Runtime, their work, and through both formats."""

from __future__ import annotations

from itertools import permutations, product
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from safegraph.dag import SafeDAG
from safegraph.derived import Gru, Lstm, Rnn
from safegraph.derived.base import Derived
from safegraph.derived.recurrent import Recurrent
from safegraph.dims import substitute
from safegraph.errors import ShapeError, UnsupportedError
from safegraph.frontends.onnx import from_onnx, to_onnx
from safegraph.frontends.torchscript import from_torchscript, to_torchscript
from safegraph.op import TensorType
from safegraph.value import parse_type

ort.set_default_logger_severity(4)
STEPS, BATCH, FEATURES, HIDDEN = 5, 3, 4, 6
CLASSES: list[type[Recurrent]] = [Lstm, Gru, Rnn]


def runtime(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def flat(found: Any) -> list[torch.Tensor]:
    return [found] if isinstance(found, torch.Tensor) else [t for f in found for t in flat(f)]


def types_of(op: Recurrent, text: str = "f32[t n 4]", biases: int = 2) -> list[TensorType]:
    gates = len(op.letters) * 6
    parts = [text, f"f32[{gates} 4]", f"f32[{gates} 6]", *["f32[n 6]"] * op.states]
    return [parse_type(p) for p in (*parts, *[f"f32[{gates}]"] * biases)]


# -- the ops --------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.name)
@pytest.mark.parametrize("biases", [0, 1, 2])
def test_work_and_type_of_free_sizes_are_those_of_the_unrolled_loop(cls: Any, biases: int) -> None:
    op = cls(reverse=True)
    free = types_of(op, biases=biases)
    for sizes in ({"t": 1, "n": 1}, {"t": 4, "n": 3}):
        bound = [t.bind(sizes) for t in free]
        assert op.type(*free).bind(sizes) == op.type(*bound) == op.trace(*bound)[1].type
        unrolled = Derived.work(op, *bound)
        for field in ("macs", "elementwise", "transcendental", "reduce"):
            formula = getattr(op.work(*free), field)
            assert substitute(formula, sizes) == getattr(unrolled, field)


def test_contractions_are_gates_times_weights() -> None:
    for op, gates in ((Lstm(), 4), (Gru(), 3), (Gru(reset_after=False), 3), (Rnn(), 1)):
        assert str(op.work(*types_of(op)).macs) == f"{gates * 6 * (4 + 6)}*n*t"


def test_the_last_cell_needs_no_last_output() -> None:
    types = [t.bind({"t": 3, "n": 2}) for t in types_of(Lstm())]
    cell = Lstm(result="cell")
    assert cell.work(*types) == Derived.work(cell, *types)
    assert cell.work(*types).transcendental == Lstm().work(*types).transcendental - 2 * 2 * 6


@pytest.mark.parametrize(
    ("op", "text", "message"),
    [
        (Lstm(gates="ifg"), "f32[5 3 4]", "give an order of the letters 'ifgo'"),
        (Lstm(result="hidden"), "f32[5 3 4]", "there are 'output' and 'cell'"),
        (Rnn(activation="sigmoid"), "f32[5 3 4]", "there are tanh, relu"),
        (Gru(), "f32[5 3 7]", "axis 1 of w, features of x: 4 is not 7"),
        (Gru(), "f32[5 4]", "x has 2 axes, not 3"),
        (Gru(), "f32[0 3 4]", "x has no step"),
    ],
)
def test_what_does_not_fit_is_named(op: Recurrent, text: str, message: str) -> None:
    types = [t.bind({"n": 3}) for t in types_of(op, text)]
    with pytest.raises(ShapeError, match=message):
        op.trace(*types)


def test_a_free_time_axis_has_no_definition() -> None:
    with pytest.raises(ShapeError, match="the time axis has the free size t: bind it"):
        Lstm().trace(*types_of(Lstm()))


@pytest.mark.parametrize("gates", ["".join(p) for p in permutations("rzn")])
def test_the_order_of_gates_is_that_of_the_weights(gates: str) -> None:
    rng = np.random.default_rng(1)
    op = Gru(gates=gates)
    arrays = [rng.standard_normal(t.bind({"t": 3, "n": 2}).shape) for t in types_of(op)]
    placed = list(arrays)
    for i in (1, 2, 4, 5):
        parts = dict(zip(gates, np.split(arrays[i], 3), strict=True))
        placed[i] = np.concatenate([parts[letter] for letter in "rzn"])
    np.testing.assert_allclose(op.run(*arrays), Gru().run(*placed), rtol=1e-12)
    np.testing.assert_allclose(Derived.run(op, *arrays), Gru().run(*placed), rtol=1e-12)


# -- TorchScript ----------------------------------------------------------------------------------

MODULES = [
    (cls, options, layers, both, first, bias)
    for cls, options in (
        (nn.LSTM, {}), (nn.GRU, {}), (nn.RNN, {}), (nn.RNN, {"nonlinearity": "relu"}),
    )
    for layers, both, first, bias in product((1, 2), (False, True), (False, True), (False, True))
]  # fmt: skip


def through_both(module: nn.Module, *inputs: torch.Tensor) -> SafeDAG:
    """What the module computes: by NumPy, by the written TorchScript, by the written ONNX."""
    with torch.no_grad():
        traced = torch.jit.trace(module.eval(), inputs, check_trace=False)
        wanted = [t.numpy() for t in flat(module(*inputs))]
        dag = from_torchscript(traced, inputs=list(inputs))
        back = [t.numpy() for t in flat(to_torchscript(dag)(*inputs))]
    assert not dag.unknown
    feeds = {t.name: x.numpy() for t, x in zip(dag.inputs, inputs, strict=True)}
    for found in (list(dag.evaluate(**feeds).values()), back, runtime(to_onnx(dag), feeds)):
        for a, b in zip(wanted, found, strict=True):
            assert a.shape == b.shape
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6)
    return dag


@pytest.mark.parametrize(("cls", "options", "layers", "both", "first", "bias"), MODULES)
def test_modules_of_torch(
    cls: Any, options: dict[str, Any], layers: int, both: bool, first: bool, bias: bool
) -> None:
    torch.manual_seed(0)
    module = cls(
        FEATURES, HIDDEN, layers, bidirectional=both, batch_first=first, bias=bias, **options
    )
    dag = through_both(module, torch.randn(STEPS, BATCH, FEATURES))
    ops = [n.op for n in dag if isinstance(n.op, Recurrent) and n.op.spec.get("result") != "cell"]
    assert len(ops) == layers * (1 + both)


class Stateful(nn.Module):
    """Initial states as inputs."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> Any:
        pair = isinstance(self.inner, nn.LSTM | nn.LSTMCell)
        return self.inner(x, (h, h * 2) if pair else h)


@pytest.mark.parametrize("cls", [nn.LSTM, nn.GRU, nn.RNN])
def test_initial_states(cls: Any) -> None:
    through_both(Stateful(cls(FEATURES, HIDDEN)), torch.randn(5, 3, 4), torch.randn(1, 3, 6))
    through_both(cls(FEATURES, HIDDEN), torch.randn(STEPS, FEATURES))  # without a batch


@pytest.mark.parametrize("cls", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_cells_are_their_definitions(cls: Any) -> None:
    dag = through_both(Stateful(cls(FEATURES, HIDDEN)), torch.randn(3, 4), torch.randn(3, 6))
    assert not [n for n in dag if isinstance(n.op, Recurrent)]


def test_a_free_batch_and_time() -> None:
    module = nn.LSTM(FEATURES, HIDDEN).eval()
    traced = torch.jit.trace(module, torch.randn(STEPS, BATCH, FEATURES))
    dag = from_torchscript(traced, inputs=["f32[t n 4]"])
    assert str(dag.cost().macs) == f"{4 * HIDDEN * (FEATURES + HIDDEN)}*n*t"
    x = torch.randn(7, 2, FEATURES)
    wanted = [t.detach().numpy() for t in flat(module(x))]
    (name,) = (t.name for t in dag.inputs)
    model = to_onnx(dag)
    assert sum(n.op_type == "LSTM" for n in model.graph.node) == 1  # for both results
    again = from_onnx(model)
    module_again = to_torchscript(dag)
    assert module_again.code.count("torch.lstm(") == 1
    assert again.cost().macs == dag.cost().macs
    for found in (
        runtime(model, {name: x.numpy()}),
        [t.detach().numpy() for t in flat(module_again(x))],
        list(again.evaluate(**{name: x.numpy()}).values()),
    ):
        for a, b in zip(wanted, found, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6)


def test_weights_come_back_untouched() -> None:
    module = nn.LSTM(FEATURES, HIDDEN).eval()
    dag = from_torchscript(torch.jit.trace(module, torch.randn(2, 3, FEATURES)))
    back = to_torchscript(dag).state_dict()
    for name, data in module.state_dict().items():
        assert torch.equal(back[name], data)
    model = to_onnx(dag)
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    for name, data in module.state_dict().items():
        np.testing.assert_array_equal(stored[name], data.numpy())


def test_what_torch_cannot_run_for_a_free_time_is_named() -> None:
    # torch has no GRU whose reset gate comes first, and a loop that is unrolled needs its length
    op = Gru(reset_after=False)
    types = types_of(op)
    graph = SafeDAG.from_values({"y": op(*(tensor_of(i, t) for i, t in enumerate(types)))})
    with pytest.raises(UnsupportedError, match="the time axis has the free size t"):
        to_torchscript(graph)


def tensor_of(i: int, type_: TensorType) -> Any:
    from safegraph.value import tensor

    return tensor(f"x{i}", type_)


# -- ONNX -----------------------------------------------------------------------------------------


def node_model(kind: str, direction: str, layout: int = 0, **more: Any) -> onnx.ModelProto:
    """A node with biases, lengths and initial states; `without` names some to leave out."""
    rng = np.random.default_rng(2)
    gates, count = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind], 2 if direction == "bidirectional" else 1
    without = more.pop("without", ())
    state = (BATCH, count, HIDDEN) if layout else (count, BATCH, HIDDEN)
    x = (BATCH, STEPS, FEATURES) if layout else (STEPS, BATCH, FEATURES)
    arrays = {
        "w": rng.standard_normal((count, gates * HIDDEN, FEATURES)),
        "r": rng.standard_normal((count, gates * HIDDEN, HIDDEN)) * 0.3,
        "b": rng.standard_normal((count, 2 * gates * HIDDEN)),
        "lengths": np.full(BATCH, STEPS),
        "h": rng.standard_normal(state),
        **({"c": rng.standard_normal(state)} if kind == "LSTM" else {}),
    }
    names = ["x", *("" if n in without else n for n in arrays)]
    data = [
        numpy_helper.from_array(a.astype(np.int32 if n == "lengths" else np.float32), n)
        for n, a in arrays.items()
        if n not in without
    ]
    outs = ["y", "y_h", "y_c"][: 3 if kind == "LSTM" else 2]
    layout_ = {"layout": 1} if layout else {}
    node = helper.make_node(
        kind, names, outs, hidden_size=HIDDEN, direction=direction, **layout_, **more
    )
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [onnx.ValueInfoProto(name=o) for o in outs],
        data,
    )
    opsets = [helper.make_opsetid("", 14)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


SPECS = [("LSTM", {}), ("GRU", {}), ("GRU", {"linear_before_reset": 1}), ("RNN", {})]


@pytest.mark.parametrize("without", [(), ("b", "lengths"), ("h", "c"), ("b", "lengths", "h", "c")])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(("kind", "spec"), SPECS)
def test_nodes_of_onnx(
    kind: str, spec: dict[str, Any], direction: str, without: tuple[str, ...]
) -> None:
    model = node_model(kind, direction, without=without, **spec)
    feeds = {"x": np.random.default_rng(3).standard_normal((5, 3, 4)).astype(np.float32)}
    wanted = runtime(model, feeds)
    dag = from_onnx(model)
    assert not dag.unknown
    back = to_onnx(dag)
    onnx.checker.check_model(back)
    count = 2 if direction == "bidirectional" else 1
    assert sum(n.op_type == kind for n in back.graph.node) == count
    for found in (list(dag.evaluate(**feeds).values()), runtime(back, feeds)):
        for a, b in zip(wanted, found, strict=True):
            assert a.shape == b.shape
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize(("kind", "spec"), SPECS)
def test_the_batch_may_come_first(kind: str, spec: dict[str, Any]) -> None:
    """ONNX Runtime lacks it: the same node by time, with what it is given turned around."""
    x = np.random.default_rng(3).standard_normal((STEPS, BATCH, FEATURES)).astype(np.float32)
    first = from_onnx(node_model(kind, "reverse", 1, without=("h", "c"), **spec))
    wanted = runtime(node_model(kind, "reverse", without=("h", "c"), **spec), {"x": x})
    found = list(first.evaluate(x=x.transpose(1, 0, 2)).values())
    np.testing.assert_allclose(found[0], wanted[0].transpose(2, 0, 1, 3), rtol=1e-4, atol=2e-6)
    for a, b in zip(wanted[1:], found[1:], strict=True):
        np.testing.assert_allclose(b, a.transpose(1, 0, 2), rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize(
    "spec",
    [
        {"clip": 3.0},
        {"input_forget": 1},
        {"activations": ["Sigmoid", "Relu", "Tanh"]},
    ],
)
def test_what_has_no_op_is_carried_along(spec: dict[str, Any]) -> None:
    dag = from_onnx(node_model("LSTM", "forward", **spec))
    assert {n.op.kind for n in dag.unknown} == {"LSTM"}  # type: ignore[attr-defined]
    onnx.checker.check_model(to_onnx(dag))


def test_samples_of_different_lengths_are_carried_along() -> None:
    model = node_model("GRU", "forward")
    for data in model.graph.initializer:
        if data.name == "lengths":
            data.CopyFrom(numpy_helper.from_array(np.asarray([5, 2, 4], np.int32), "lengths"))
    assert from_onnx(model).unknown
