"""ONNX in and out: against ONNX Runtime, ONNX's own node tests, and torch's two exporters."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import permutations, product
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import safegraph.derived  # noqa: F401  registers the derived ops
from safegraph import dims
from safegraph.dag import SafeDAG, Tensor
from safegraph.derived import Conv, Expand, Reshape
from safegraph.derived.base import Derived
from safegraph.derived.einsum import einsum
from safegraph.derived.pool import AvgPool, MaxPool
from safegraph.dtypes import to_numpy
from safegraph.errors import FormatError, OutputError, ShapeError, UnsupportedError
from safegraph.frontends.onnx import from_onnx, to_onnx
from safegraph.frontends.onnx.table_in import TABLE
from safegraph.op import OPS, Op, TensorType
from safegraph.ops import (
    BINARY,
    REDUCTIONS,
    UNARY,
    Binary,
    Fold,
    Interleave,
    Opaque,
    Pad,
    Reduce,
    Sample,
    Unary,
    Unfold,
)
from safegraph.value import Value, apply, iota, pad, parse_type, repeat, scalar, tensor
from tests.models import LIGHT, light_input, light_model, light_path

ort.set_default_logger_severity(4)  # what fails is reported once, by the test
Feeds = dict[str, np.ndarray]


def run(model: onnx.ModelProto | str | Path, feeds: Feeds) -> list[np.ndarray]:
    """What ONNX Runtime computes."""
    source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else str(model)
    return ort.InferenceSession(source, providers=["CPUExecutionProvider"]).run(None, feeds)


def error(got: np.ndarray, want: np.ndarray) -> float:
    """The largest difference, in parts of the largest value."""
    assert got.shape == want.shape
    return float(np.abs(got - want).max() / np.abs(want).max())


def evaluate(dag: SafeDAG, feeds: Feeds) -> list[np.ndarray]:
    return list(dag.evaluate(**feeds).values())


def node_model(
    op: str, inputs: dict[str, Any], outputs: dict[str, Any], opset: int = 20, **attributes: Any
) -> Any:
    """A model of one node; shapes as lists, None for an unknown one."""
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()]
    outs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()]
    domain = attributes.pop("domain", "")
    node = helper.make_node(
        op, list(inputs), list(outputs), name="the_node", domain=domain, **attributes
    )
    opsets = [helper.make_opsetid("", opset)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(
        helper.make_graph([node], "one", infos, outs), opset_imports=opsets, ir_version=10
    )


# -- real models ----------------------------------------------------------------------------------

HEAVY = ("bvlc_alexnet", "vgg19", "zfnet512")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in HEAVY else []) for n in LIGHT]
)
def test_a_light_model_is_read_evaluated_and_written_equal(name: str) -> None:
    model = light_model(name)
    feeds = light_input(model)
    (want,) = run(model, feeds)
    assert want.std() > 0.1
    dag = from_onnx(model)
    assert not dag.unknown
    (got,) = evaluate(dag, feeds)
    assert error(got, want) <= 1e-3
    (again,) = run(to_onnx(dag), feeds)
    assert error(again, want) <= 1e-3


@pytest.mark.parametrize("name", LIGHT)
def test_a_light_model_goes_through_as_shipped(name: str) -> None:
    before = light_path(name).read_bytes()
    dag = from_onnx(light_path(name))
    assert not dag.unknown
    back = to_onnx(dag)
    onnx.checker.check_model(back)
    assert [o.name for o in back.graph.output] == [
        o.name for o in onnx.load(light_path(name)).graph.output
    ]
    assert light_path(name).read_bytes() == before


def gpt(torch: ModuleType) -> Any:
    """A block of a GPT, with a mask that is a buffer and shapes taken from the input."""
    nn, F = torch.nn, torch.nn.functional

    class Block(nn.Module):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.places = nn.Embedding(50, 32), nn.Embedding(64, 32)
            self.norm1, self.norm2 = nn.LayerNorm(32), nn.LayerNorm(32)
            self.qkv, self.out = nn.Linear(32, 96), nn.Linear(32, 32)
            self.wide, self.narrow = nn.Linear(32, 128), nn.Linear(128, 32)
            self.register_buffer(
                "mask", torch.tril(torch.ones(64, 64, dtype=torch.bool))[None, None]
            )

        def forward(self, ids: Any) -> Any:
            batch, seq = ids.shape
            x = self.tokens(ids) + self.places(torch.arange(seq))
            parts = self.qkv(self.norm1(x)).chunk(3, -1)
            q, k, v = (p.view(batch, seq, 4, -1).transpose(1, 2) for p in parts)
            scores = (q @ k.transpose(-1, -2)) / q.shape[-1] ** 0.5
            weights = scores.masked_fill(~self.mask[:, :, :seq, :seq], float("-inf")).softmax(-1)
            x = x + self.out((weights @ v).transpose(1, 2).reshape(batch, seq, -1))
            return (x + self.narrow(F.gelu(self.wide(self.norm2(x)))))[:, -1]

    return Block().eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: Any, torchvision_models: ModuleType) -> Callable[[str, bool], Path]:
    """Models as torch's exporters write them, with free sizes batch and seq."""
    import torch

    def encoder() -> Any:
        layer = torch.nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        return torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()

    folder, done = tmp_path_factory.mktemp("exported"), {}
    models = {
        "resnet18": (
            lambda: torchvision_models.resnet18(weights=None).eval(),
            (2, 3, 64, 64),
            {0: "batch"},
        ),
        "encoder": (encoder, (2, 7, 32), {0: "batch", 1: "seq"}),
        "gpt": (lambda: gpt(torch), (2, 7), {0: "batch", 1: "seq"}),
    }

    def export(name: str, dynamo: bool) -> Path:
        path = folder / f"{name}_{dynamo}.onnx"
        if path in done:
            return path
        build, shape, free = models[name]
        torch.manual_seed(0)
        x = torch.zeros(shape, dtype=torch.int64) if name == "gpt" else torch.randn(shape)
        torch.backends.mha.set_fastpath_enabled(False)  # the exporters cannot write the fused layer
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            if dynamo:
                sizes = {axis: torch.export.Dim(text, min=1, max=64) for axis, text in free.items()}
                options: dict[str, Any] = {
                    "dynamic_shapes": [sizes],
                    "external_data": False,
                    "verbose": False,
                }
            else:
                options = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": {"x": free}}
            torch.onnx.export(build(), (x,), str(path), dynamo=dynamo, **options)
        torch.backends.mha.set_fastpath_enabled(True)
        done[path] = True
        return path

    return export


@pytest.mark.parametrize("dynamo", [True, False])
@pytest.mark.parametrize(
    ("name", "shapes", "result"),
    [
        ("resnet18", [(1, 3, 64, 64), (3, 3, 64, 64)], "f32[batch 1000]"),
        ("encoder", [(2, 7, 32), (3, 7, 32)], "f32[batch seq 32]"),
        ("gpt", [(2, 7), (3, 5)], "f32[batch 32]"),
    ],
)
def test_exports_of_torch_keep_free_sizes(
    exported: Any, name: str, shapes: list[tuple[int, ...]], result: str, dynamo: bool
) -> None:
    path = exported(name, dynamo)
    dag = from_onnx(path)
    assert not dag.unknown
    assert str(dag.types[next(iter(dag.outputs.values()))]) == result
    back = to_onnx(dag)
    rng = np.random.default_rng(0)
    for shape in shapes:
        x = (
            rng.integers(0, 50, shape)
            if name == "gpt"
            else rng.standard_normal(shape).astype(np.float32)
        )
        feeds = {dag.inputs[0].name: x}
        (want,) = run(path, feeds)
        assert error(evaluate(dag, feeds)[0], want) < 1e-4
        assert error(run(back, feeds)[0], want) < 1e-4


def test_what_was_written_reads_back_the_same(exported: Any) -> None:
    dag = from_onnx(exported("gpt", True))
    assert str(from_onnx(to_onnx(dag))) == str(dag)


def test_kinds_of_torch_s_tensors_are_read(exported: Any) -> None:
    dag = from_onnx(exported("gpt", True))
    assert [t.name for t in dag.kind("buffer")] == ["mask"]
    assert "tokens.weight" in [t.name for t in dag.kind("parameter")]
    assert all(
        t.type.rank for t in dag.kind("parameter")
    )  # numbers that the exporter lifted are Scalars


# -- ONNX's own tests of its ops ------------------------------------------------------------------

# Operands that are part of what SafeGraph calls the spec: constants in files, inputs in the tests.
SPEC_OPERANDS = {
    "Reshape": (1,), "Expand": (1,), "Slice": (1, 2, 3, 4), "Pad": (1, 2, 3), "Tile": (1,),
    "Squeeze": (1,), "Unsqueeze": (1,), "CumSum": (1,), "Trilu": (1,), "Range": (0, 1, 2),
    "Split": (1,), "ConstantOfShape": (0,), "Clip": (1, 2), "Dropout": (1, 2),
    "Resize": (1, 2, 3), "Upsample": (1,), "TopK": (1,), "LSTM": (4,), "GRU": (4,), "RNN": (4,),
    "OneHot": (1,),
}  # fmt: skip

# Node tests with ops of the table that are carried as Opaque, by beginnings of their names.
OPAQUE = (
    "test_attention_",  # caches, soft caps, windows, scores as a result
    "test_averagepool_2d_dilations", "test_averagepool_3d_dilations",
    "test_batchnorm_example_training_mode", "test_batchnorm_epsilon_training_mode",
    "test_dropout_default_mask",
    "test_einsum_batch_diagonal",  # a label twice in one operand
    "test_maxpool_with_argmax",
    "test_quantizelinear_blocked", "test_dequantizelinear_blocked",
    "test_edge_pad", "test_reflect_pad", "test_wrap_pad",
    "test_lstm_with_peepholes",
    "test_resize_upsample_scales_cubic_A_n0p5_exclude_outside",
    "test_resize_downsample_scales_cubic_A_n0p5_exclude_outside",
    "test_resize_tf_crop_and_resize",  # of a region
    "test_resize_downsample_scales_linear_antialias",
    "test_resize_downsample_sizes_linear_antialias",
    "test_resize_downsample_scales_cubic_antialias", "test_resize_downsample_sizes_cubic_antialias",
    "test_resize_downsample_scales_linear_half_pixel_symmetric",
    "test_resize_upsample_scales_linear_half_pixel_symmetric",
    "test_resize_downsample_scales_linear_align_corners",  # see the row: two meanings
    "test_resize_downsample_scales_cubic_align_corners",
    "test_reduce_max_empty_set", "test_reduce_min_empty_set", "test_reduce_log_sum_exp_empty_set",
)  # fmt: skip


def with_constants(model: onnx.ModelProto, arrays: Sequence[Any]) -> tuple[onnx.ModelProto, Feeds]:
    """A node test with the operands that belong to the spec as initializers."""
    found = onnx.ModelProto()
    found.CopyFrom(model)
    fixed = set()
    for node in model.graph.node:
        places = (1,) if node.op_type.startswith("Reduce") else SPEC_OPERANDS.get(node.op_type, ())
        fixed |= {node.input[i] for i in places if i < len(node.input)}
    feeds = {i.name: np.asarray(a) for i, a in zip(model.graph.input, arrays, strict=True)}
    found.graph.initializer.extend(
        numpy_helper.from_array(feeds[n], n) for n in feeds if n in fixed
    )
    kept = [i for i in found.graph.input if i.name not in fixed]
    del found.graph.input[:]
    found.graph.input.extend(kept)
    return found, {n: a for n, a in feeds.items() if n not in fixed}


def is_plain(array: Any) -> bool:
    return isinstance(array, np.ndarray) and (
        array.dtype.kind in "iubf" or array.dtype.name == "bfloat16"
    )


def differs(got: Any, want: Any, rtol: float, atol: float) -> str:
    """How results differ from what a test expects; nothing where they do not."""
    for g, w in zip(got, want, strict=True):
        if (g.dtype, g.shape) != (w.dtype, w.shape):
            return f"{g.dtype}{g.shape} in place of {w.dtype}{w.shape}"
        wide = w.dtype.name == "bfloat16"
        a, b = (x.astype(np.float64) if x.dtype.kind not in "iub" else x for x in (g, w))
        loose = (
            (2e-2, 2e-2)
            if wide
            else (2e-3, 2e-3)
            if w.dtype == np.float16
            else (max(rtol, 1e-3), max(atol, 1e-5))
        )
        if not np.allclose(a, b, *loose, equal_nan=a.dtype.kind == "f"):
            return "other values"
    return ""


def test_the_node_tests_of_onnx() -> None:
    from onnx.backend.test.loader import load_model_tests
    from onnx.reference import ReferenceEvaluator

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = [c for c in load_model_tests(kind="node") if not c.name.endswith("_expanded")]
    failures, unknown, evaluated = [], [], 0
    for case in cases:
        assert case.model is not None
        assert case.data_sets is not None
        inputs, want = case.data_sets[0]
        ops = {n.op_type for n in case.model.graph.node}
        if (len(ops) == 1 and not ops <= set(TABLE)) or not all(map(is_plain, (*inputs, *want))):
            continue
        model, feeds = with_constants(case.model, inputs)
        try:
            dag = from_onnx(model)
        except UnsupportedError as reason:  # 4-bit integers, other 8-bit floating-point types
            failures += [] if "of ONNX type" in str(reason) else [f"{case.name}: {reason}"]
            continue
        if dag.unknown:
            unknown.append(case.name)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                got = evaluate(dag, {n: a for n, a in feeds.items() if n in dag.tensors})
            problem = differs(got, want, case.rtol, case.atol)
            failures += [f"{case.name}: {problem}"] if problem else []
            evaluated += not problem
        back = to_onnx(dag)
        onnx.checker.check_model(back)
        rest = {i.name: feeds[i.name] for i in back.graph.input}
        problems = []
        # The runtime lacks some element types, the reference some corner cases: one must agree.
        for compute in (lambda b, f: run(b, f), lambda b, f: ReferenceEvaluator(b).run(None, f)):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    problem = differs(compute(back, rest), want, case.rtol, case.atol)
            except Exception as raised:
                problem = repr(raised)
            if not problem:
                break
            problems.append(problem)
        else:
            failures.append(f"{case.name}, written: {problems}")
    assert failures == []
    assert [n for n in unknown if not n.startswith(OPAQUE)] == []
    assert evaluated >= 700
    print(f"{evaluated} node tests evaluated, {len(unknown)} carried as Opaque")


# -- every op can be written ----------------------------------------------------------------------

SHAPES = [(), (3,), (1,), (2, 3), (4, 1), (2, 3, 4), (1, 4, 5), (2, 4, 6, 5)]
NOT_IN_ONNX = {"inv_gaussian"}


def specs() -> Iterator[tuple[Op, list[TensorType]]]:
    """Ops with operands: the examples of derived ops, random specs of core ops."""
    rng = np.random.default_rng(0)
    for cls in OPS.values():
        if cls in (Opaque, Sample) or not cls.__module__.startswith("safegraph."):
            continue
        if issubclass(cls, Derived):
            yield from (
                (op, [parse_type(t) for t in text.split(", ") if t]) for op, text in cls.examples
            )
        if cls.arity[0] == 0 or (issubclass(cls, Derived) and cls.examples):
            continue
        count = 3 if cls.__name__ == "Select" else cls.arity[0] or 2
        for shape in SHAPES:
            drawn = cls.draw(rng, *[shape] * count)
            if drawn is not None:
                first = ["bool"] if cls.__name__ in ("Select", "Where") else []
                types = [TensorType(d, shape) for d in (first + ["f32"] * count)[:count]]
                yield drawn, types
    for kind in UNARY:
        yield Unary(kind), [TensorType("f32", (2, 3))]
    for kind in BINARY:
        yield Binary(kind), [TensorType("f32", (2, 3))] * 2
    for kind in REDUCTIONS:
        dtype = "bool" if kind in ("any", "all") else "f32"
        yield Reduce((0, 2), kind), [TensorType(dtype, (2, 3, 4))]


def data(rng: np.random.Generator, type_: TensorType, positive: bool) -> np.ndarray:
    shape = tuple(map(int, type_.shape))
    if type_.dtype == "bool":
        return np.asarray(rng.random(shape) < 0.5)
    if type_.dtype in ("i32", "i64"):
        return np.asarray(rng.integers(0, 3, shape), to_numpy(type_.dtype))
    found = rng.random(shape) * 0.9 + 0.05 if positive else rng.standard_normal(shape)
    return np.asarray(found, to_numpy(type_.dtype))


def graph_of(op: Op, types: list[TensorType]) -> SafeDAG:
    return SafeDAG.from_values({"y": apply(op, *(tensor(f"x{i}", t) for i, t in enumerate(types)))})


def test_every_op_is_written() -> None:
    rng = np.random.default_rng(0)
    failures, written = [], set()
    for op, types in specs():
        try:
            dag = graph_of(op, types)
        except Exception as unfit:  # a spec that a draw could not know to be unfit, e.g. of bool
            failures.append(f"{op!r} of {types}: {unfit}")
            continue
        if not len(dag):
            continue
        # where the ranges of functions end at 0 or 1, stay inside
        kind = getattr(op, "kind", "")
        feeds = {
            t.name: data(rng, t.type, positive=kind not in ("floor", "sign", "neg"))
            for t in dag.inputs
        }
        if kind == "arccosh":
            feeds = {n: a + 1 for n, a in feeds.items()}
        if kind in NOT_IN_ONNX:
            with pytest.raises(UnsupportedError, match=kind):
                to_onnx(dag)
            continue
        want = evaluate(dag, feeds)
        try:
            got = run(to_onnx(dag), feeds)
        except Exception as raised:
            failures.append(f"{op!r} of {types}: {raised!r}")
            continue
        problem = differs(got, want, 1e-3, 1e-5)
        if problem:
            failures.append(f"{op!r} of {types}: {problem}")
        written.add(op.name)
    assert failures == []
    assert len(written) > 55


@pytest.mark.parametrize("dtype", ["f32", "f64", "i32", "i64"])
@pytest.mark.parametrize(
    ("op", "shape"),
    [
        (Unfold(1, 3, 2, 1), (2, 9, 2)),
        (Unfold(0, 2, 1, 3), (7,)),
        (Fold(1, 2, 1), (2, 4, 3, 2)),
        (Fold(0, 3, 1), (4, 3)),
        (Fold(1, 1, 2), (2, 4, 3)),
        (Interleave((1, 3, 2), 7), (2, 4, 3)),
        (Pad((1, 0), (0, 2), 1), (2, 3)),
    ],
)
def test_windows_are_written_in_every_element_type(
    op: Op, shape: tuple[int, ...], dtype: str
) -> None:
    dag = graph_of(op, [TensorType(dtype, shape)])
    feeds = {"x0": np.arange(np.prod(shape)).reshape(shape).astype(to_numpy(dtype))}
    assert differs(run(to_onnx(dag), feeds), evaluate(dag, feeds), 0, 0) == ""


def free_sizes() -> dict[str, Value]:
    x = tensor("x", "f32[batch h 6]")
    batch, h = dims.dims("batch h")
    return {
        "unfolded": apply(Unfold(1, 3, 2, 1), x),
        "folded": apply(Fold(1, 1, 1), apply(Unfold(1, 3, 1, 1), x)),
        "interleaved": apply(Interleave((1, 2, 1), 0), x),
        "reshaped": apply(Reshape((batch * h, 3, 2)), x),
        "regrouped": apply(Reshape((h, batch, 6)), x),
        "sized": x * scalar((batch + 1) * h // 2, "f32"),
        "counted": iota(batch * h),
        "last": x[:, h - 1],
        "shifted": x + x[:, :1],
        "mean": x.mean(0, 1),
    }


@pytest.mark.parametrize("sizes", [(2, 5), (3, 8)])
def test_free_sizes_are_computed_at_run_time(sizes: tuple[int, int]) -> None:
    dag = SafeDAG.from_values(free_sizes())
    feeds = {"x": np.random.default_rng(0).standard_normal((*sizes, 6)).astype(np.float32)}
    model = to_onnx(dag)
    for name, got, want in zip(dag.outputs, run(model, feeds), evaluate(dag, feeds), strict=True):
        assert differs([got], [want], 1e-5, 1e-5) == "", name
    shapes = [n for n in model.graph.node if n.op_type == "Shape"]
    assert len(shapes) == 2  # batch and h, once each


@pytest.mark.parametrize("rows", ["a", "ab"])
@pytest.mark.parametrize("batch", ["", "z"])
def test_contractions_are_written_in_every_order_of_axes(batch: str, rows: str) -> None:
    sizes = {"z": 2, "a": 3, "b": 4, "c": 5, "d": 6}
    rng = np.random.default_rng(0)
    orders = list(
        product(
            map("".join, permutations(f"{batch}{rows}c")),
            map("".join, permutations(f"{batch}cd")),
            map("".join, permutations(f"{batch}{rows}d")),
        )
    )
    for left, right, out in orders[:: 1 if len(orders) <= 150 else 23]:
        equation = f"{left},{right}->{out}"
        arrays = [rng.standard_normal([sizes[i] for i in s], np.float32) for s in (left, right)]
        x, y = (tensor(n, TensorType("f32", a.shape)) for n, a in zip("xy", arrays, strict=True))
        dag = SafeDAG.from_values({"out": einsum(equation, x, y)})
        (got,) = run(to_onnx(dag), dict(zip("xy", arrays, strict=True)))
        assert error(got, np.einsum(equation, *arrays)) <= 1e-5, equation


@pytest.mark.parametrize(
    ("equation", "x", "y", "nodes", "is_exchanged"),
    [
        # the rows of the one that is read along what is summed come first
        ("bmhd,bhlm->blhd", "2 5 3 4", "2 3 6 5", ["Einsum"], True),
        ("bhlm,bmhd->blhd", "2 3 6 5", "2 5 3 4", ["Einsum"], False),
        # an axis of one element that the result has not is no sum
        ("blohd,bmphd->bhlm", "2 5 1 3 4", "2 6 1 3 4", ["Squeeze", "Squeeze", "Einsum"], False),
        ("aob,bc->ac", "3 1 4", "4 5", ["Squeeze", "MatMul"], False),
    ],
)
def test_contractions_are_written_as_runtimes_like_them(
    equation: str, x: str, y: str, nodes: list[str], is_exchanged: bool
) -> None:
    a, b = tensor("x", f"f32[{x}]"), tensor("y", f"f32[{y}]")
    model = to_onnx(SafeDAG.from_values({"out": einsum(equation, a, b)}))
    assert [n.op_type for n in model.graph.node] == nodes
    assert (list(model.graph.node[-1].input) == ["y", "x"]) is is_exchanged
    rng = np.random.default_rng(0)
    shapes = {n: [int(d) for d in s.split()] for n, s in (("x", x), ("y", y))}
    feeds = {n: rng.standard_normal(s, np.float32) for n, s in shapes.items()}
    (got,) = run(model, feeds)
    assert error(got, np.einsum(equation, *feeds.values())) <= 1e-5


def test_broadcasts_and_reductions_are_not_spelled_out() -> None:
    x, b = tensor("x", "f32[batch 3 4]"), tensor("b", "f32[4]")
    y = x * 2 + b
    dag = SafeDAG.from_values({"y": y.sum(1).squeeze(axes=(1,))}).expand()
    model = to_onnx(dag)
    assert [n.op_type for n in model.graph.node] == ["Mul", "Add", "ReduceSum"]
    assert [len(t.dims) for t in model.graph.initializer] == [0, 1]  # the number 2, the axes


# -- tensors and names ----------------------------------------------------------------------------


def small() -> SafeDAG:
    rng = np.random.default_rng(0)
    types = {"x": "f32[batch 16]", "net.w": "f32[16 64]", "s": "f32[64]", "c": "f32[64]"}
    x, w, s, c = (tensor(name, type_) for name, type_ in types.items())
    leaves = [
        Tensor(v.name, kind, v.type, rng.standard_normal(v.shape).astype(np.float32))
        for v, kind in ((w, "parameter"), (s, "buffer"), (c, "const"))
    ]
    return SafeDAG.from_values({"net/out:0": (x @ w) * s + c, "x_again": x}, leaves, name="small")


def test_kinds_names_and_outputs_survive() -> None:
    dag = small()
    back = from_onnx(to_onnx(dag))
    assert {t.name: (t.kind, t.type) for t in back.tensors.values()} == {
        t.name: (t.kind, t.type) for t in dag.tensors.values()
    }
    assert list(back.outputs) == ["net/out:0", "x_again"]
    assert back.outputs["x_again"] == "x"


def test_data_is_written_beside_the_model_and_read_lazily(tmp_path: Path) -> None:
    path = tmp_path / "small.onnx"
    dag = small()
    x = np.ones((2, 16), np.float32)
    to_onnx(dag, path, external_data=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["small.onnx", "small.onnx.data"]
    assert len(path.read_bytes()) < 2000
    back = from_onnx(path)
    assert all(callable(t.data) for t in back.kind("parameter", "buffer", "const"))
    np.testing.assert_allclose(evaluate(back, {"x": x})[0], evaluate(dag, {"x": x})[0], rtol=1e-6)
    np.testing.assert_allclose(run(path, {"x": x})[0], evaluate(dag, {"x": x})[0], rtol=1e-5)
    (tmp_path / "small.onnx.data").write_bytes(b"short")
    with pytest.raises(FormatError, match=r"net\.w.*small\.onnx\.data"):
        from_onnx(path)


def test_names_of_sizes() -> None:
    model = node_model(
        "Relu", {"x": ["n_batch", "2*n_batch + 1", "time steps", None, "3d", "?"]}, {"y": None}
    )
    dag = from_onnx(model)
    assert str(dag.types["x"]) == "f32[n_batch 2*n_batch+1 time_steps x_3 _3d x_5]"
    written = to_onnx(dag).graph.output[0].type.tensor_type.shape
    assert [d.dim_param for d in written.dim][:2] == ["n_batch", "2*n_batch + 1"]


def test_a_constant_index_is_a_spec() -> None:
    model = node_model("Gather", {"x": ["n", 5], "at": []}, {"y": ["n"]}, axis=1)
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(-2), "at"))
    del model.graph.input[1]
    dag = from_onnx(model)
    assert [repr(n.op) for n in dag] == ["Index(axis=1, at=-2)"]
    assert str(from_onnx(to_onnx(dag))) == str(dag)


def test_local_functions_are_inlined() -> None:
    body = [helper.make_node("Relu", ["a"], ["b"]), helper.make_node("Neg", ["b"], ["c"])]
    opsets = [helper.make_opsetid("", 20)]
    function = helper.make_function("own", "NegRelu", ["a"], ["c"], body, opsets)
    model = node_model("NegRelu", {"x": ["n"]}, {"y": ["n"]}, domain="own")
    model.functions.append(function)
    before = model.SerializeToString()
    assert [n.op.name for n in from_onnx(model)] == ["relu", "unary"]
    assert model.SerializeToString() == before


def test_softmax_of_old_opsets_takes_axes_together() -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    model = node_model("Softmax", {"x": [2, 3, 4]}, {"y": [2, 3, 4]}, opset=9, axis=1)
    (want,) = run(model, {"x": x})
    assert abs(want[0].sum() - 1) < 1e-5
    assert error(evaluate(from_onnx(model), {"x": x})[0], want) < 1e-6


# -- ops that no table knows ----------------------------------------------------------------------


def test_an_unknown_op_goes_back_as_it_was() -> None:
    attributes: dict[str, Any] = {
        "mode": "fast",
        "sizes": [1, 2],
        "scale": 0.5,
        "names": ["a", "b"],
        "table": helper.make_tensor("t", TensorProto.INT8, [2], [3, 4]),
    }
    model = node_model(
        "Frobnicate",
        {"x": ["n", 4]},
        {"y": ["n", 2], "z": ["n"]},
        domain="com.example",
        **attributes,
    )
    dag = from_onnx(model)
    assert [n.op.kind for n in dag.unknown] == ["com.example::Frobnicate"] * 2  # type: ignore[attr-defined]
    back = to_onnx(dag)
    (node,) = back.graph.node  # two results, one node
    (original,) = model.graph.node
    assert list(node.output) == ["y", "z"]
    assert sorted(a.SerializeToString() for a in node.attribute) == sorted(
        a.SerializeToString() for a in original.attribute
    )
    with pytest.raises(UnsupportedError, match=r"Frobnicate.*\n.*Frobnicate"):
        dag.evaluate(x=np.zeros((1, 4), np.float32))


def test_an_unknown_op_needs_a_shape() -> None:
    model = node_model("Frobnicate", {"x": ["n", 4]}, {"y": None}, domain="com.example")
    with pytest.raises(FormatError, match=r"the_node.*shape of its result y"):
        from_onnx(model)


@pytest.mark.parametrize("opset", [11, 20, 23])
def test_ops_that_only_onnx_has_keep_their_meaning(opset: int) -> None:
    model = node_model(
        "TopK", {"x": ["n", 6], "k": [1]}, {"best": ["n", 2], "places": None}, opset=opset, axis=1
    )
    model.graph.initializer.append(numpy_helper.from_array(np.asarray([2]), "k"))
    model.graph.output[1].type.tensor_type.elem_type = TensorProto.INT64
    del model.graph.input[1]
    dag = from_onnx(model)
    assert str(dag.types["places"]) == "i64[n 2]"
    x = np.random.default_rng(0).standard_normal((3, 6)).astype(np.float32)
    for got, want in zip(run(to_onnx(dag), {"x": x}), run(model, {"x": x}), strict=True):
        np.testing.assert_array_equal(got, want)


def test_tensors_without_elements_run() -> None:
    x = tensor("x", "f32[1 3]")
    dag = SafeDAG.from_values({"y": repeat(x, (0, 1)), "z": apply(Expand((0, 3)), x)})
    for found in run(to_onnx(dag), {"x": np.ones((1, 3), "f4")}):
        assert found.shape == (0, 3)


def test_a_left_out_operand_stays_left_out() -> None:
    model = node_model(
        "Resize", {"x": [1, 1, 2, 2], "s": [4]}, {"y": [1, 1, 4, 4]}, opset=13, mode="cubic",
        exclude_outside=1,
    )  # fmt: skip
    model.graph.node[0].input[:] = ["x", "", "s"]
    model.graph.initializer.append(
        numpy_helper.from_array(np.asarray([1, 1, 2, 2], np.float32), "s")
    )
    del model.graph.input[1]
    x = np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)
    dag = from_onnx(model)
    assert len(dag.unknown) == 1
    np.testing.assert_array_equal(run(to_onnx(dag), {"x": x})[0], run(model, {"x": x})[0])


def test_an_end_far_beyond_a_free_axis_is_its_end() -> None:
    for end in (10**9, 2**31 - 1, 2**63 - 1):
        model = node_model(
            "Slice", {"x": ["n", 4]}, {"y": [None, 4]}, opset=9, starts=[0], ends=[end], axes=[0]
        )
        dag = from_onnx(model)
        assert [str(t) for t in dag.types.values()] == ["f32[n 4]"]
        assert not dag.assumptions


def test_a_part_of_a_free_axis_needs_the_axis_to_be_so_long() -> None:
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("Slice", ["x", "from", "to", "axes"], ["y"])],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, "n"])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 5])],
            [
                numpy_helper.from_array(np.asarray([value]), name)
                for name, value in {"from": 0, "to": 5, "axes": 1}.items()
            ],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
    )
    dag = from_onnx(model)
    assert list(dag.assumptions) == ["n >= 5"]
    assert str(SafeDAG.parse(str(dag))) == str(dag)
    assert dag.bind({"n": 5}).outputs
    with pytest.raises(ShapeError, match="n >= 5"):
        dag.bind({"n": 4})


def test_a_negative_size_is_a_free_one() -> None:
    dag = from_onnx(node_model("Relu", {"x": [-1, 3]}, {"y": [-1, 3]}))
    assert [str(t) for t in dag.types.values()] == ["f32[x_0 3]", "f32[x_0 3]"]


@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap"])
def test_borders_of_own_elements(mode: str) -> None:
    """Also where a part is cut off at the other side."""
    model = node_model("Pad", {"x": [2, 3, 4], "pads": [6]}, {"y": [3, 5, 4]}, opset=19, mode=mode)
    del model.graph.input[1]
    pads = np.asarray([0, 2, 1, 1, 0, -1])
    model.graph.initializer.append(numpy_helper.from_array(pads, "pads"))
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    dag = from_onnx(model)
    assert not dag.unknown
    expected = np.pad(x[:, :, :-1], [(0, 1), (2, 0), (1, 0)], mode)
    np.testing.assert_array_equal(next(iter(dag.evaluate(x).values())), expected)
    np.testing.assert_array_equal(run(to_onnx(dag), {"x": x})[0], expected)


def test_slopes_of_old_opsets_are_by_channel() -> None:
    model = node_model("PRelu", {"x": [2, 3, 3], "slope": [3]}, {"y": [2, 3, 3]}, opset=6)
    x, slope = -np.ones((2, 3, 3), np.float32), np.asarray([1, 2, 3], np.float32)
    (y,) = from_onnx(model).evaluate(x, slope).values()
    np.testing.assert_array_equal(y, x * slope[:, None])


def test_control_flow_is_refused_with_all_nodes() -> None:
    branch = helper.make_graph(
        [], "b", [], [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])]
    )
    nodes = [
        helper.make_node(
            "If", ["c"], [f"y{i}"], name=f"if{i}", then_branch=branch, else_branch=branch
        )
        for i in range(2)
    ]
    infos = [helper.make_tensor_value_info("c", TensorProto.BOOL, [])]
    outs = [helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, [1]) for i in range(2)]
    model = helper.make_model(helper.make_graph(nodes, "g", infos, outs))
    with pytest.raises(UnsupportedError, match=r"if0.*\n.*if1"):
        from_onnx(model)


# -- bad files ------------------------------------------------------------------------------------


def test_bad_files_are_refused(tmp_path: Path) -> None:
    good = to_onnx(small()).SerializeToString()
    files = {
        "truncated": good[: len(good) // 2],
        "foreign": b"\x89PNG\r\n\x1a\n" + bytes(100),
        "empty": b"",
    }
    for name, content in files.items():
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(content)
        with pytest.raises(FormatError, match=f"{name}.onnx is no ONNX model"):
            from_onnx(path)
    with pytest.raises(FormatError, match=r"there is no such file"):
        from_onnx(tmp_path / "missing.onnx")


def test_nothing_is_left_where_writing_fails(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot be written"):
        to_onnx(small(), tmp_path / "no_folder" / "m.onnx")
    x = tensor("x", "f32[3]")
    with pytest.raises(UnsupportedError, match=r"inv_gaussian"):
        to_onnx(SafeDAG.from_values({"y": x.inv_gaussian()}), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_ops_of_other_formats_are_all_named() -> None:
    x = tensor("x", "f32[3]")
    odd = [apply(Opaque("torchscript", f"aten::odd{i}", (), 0, x.type), x) for i in range(2)]
    with pytest.raises(UnsupportedError, match=r"aten::odd0(.|\n)*aten::odd1"):
        to_onnx(SafeDAG.from_values({"y": odd[0], "z": odd[1]}))


def test_a_padding_that_depends_on_a_free_size_is_carried_along() -> None:
    model = node_model(
        "Conv",
        {"x": ["n", 3, "h", "w"], "k": [4, 3, 3, 3]},
        {"y": None},
        auto_pad="SAME_UPPER",
        strides=[2, 2],
    )
    assert [n.op.kind for n in from_onnx(model).unknown] == ["Conv"]  # type: ignore[attr-defined]
    model.graph.node[0].attribute[1].ints[:] = [1, 1]
    (node,) = from_onnx(model)
    assert node.op is Conv((1, 1), (1, 1), (1, 1), (1, 1), 1)


@pytest.mark.parametrize("op", [AvgPool, MaxPool])
def test_a_pool_of_single_elements_may_follow_a_border(op: type[AvgPool | MaxPool]) -> None:
    """ONNX Runtime fuses a Pad into a pool after it, however wide it is."""
    rest: tuple[Any, ...] = ((0, 0), True) if op is AvgPool else ((1, 1),)
    pool = op((1, 1), (2, 2), (0, 0), (0, 0), *rest)
    x = tensor("x", "f32[2 3 5 6]")
    dag = SafeDAG.from_values({"y": apply(pool, pad(x[:, :, 1:, 1:], [0] * 4, [0, 0, 1, 1]))})
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 3, 5, 6)).astype(np.float32)}
    np.testing.assert_array_equal(run(to_onnx(dag), feeds)[0], evaluate(dag, feeds)[0])


def test_one_operand_joined_is_that_operand() -> None:
    """DenseNets join the features so far, of which there is one at first."""
    feeds = {"x": np.arange(6, dtype=np.float32).reshape(2, 3)}
    joined = node_model("Concat", {"x": [2, 3]}, {"y": None}, axis=1)
    dag = from_onnx(joined)
    assert not dag.unknown
    np.testing.assert_array_equal(evaluate(dag, feeds)[0], feeds["x"])
