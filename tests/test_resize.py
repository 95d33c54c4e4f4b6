"""Resizing, several indices, sorting: against PyTorch and ONNX Runtime, in both formats."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from onnx import helper, numpy_helper

from safegraph.dag import SafeDAG
from safegraph.derived import GatherNd, Resize, ScatterElements, ScatterNd, TopK
from safegraph.derived.base import Derived
from safegraph.derived.index import Gather
from safegraph.errors import EvaluationError, ShapeError
from safegraph.frontends.onnx import from_onnx, to_onnx
from safegraph.frontends.torchscript import from_torchscript, to_torchscript
from safegraph.ops import Group, Repeat, Stride, Unsqueeze
from safegraph.value import parse_type, walk

ort.set_default_logger_severity(4)
RNG = np.random.default_rng(5)
CLOSE = {"rtol": 1e-4, "atol": 2e-5}


def runtime(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


# -- Resize ---------------------------------------------------------------------------------------

KINDS: list[tuple[tuple[str, str, str], dict[str, Any]]] = [
    (("nearest", "asymmetric", "floor"), {"mode": "nearest"}),
    (("nearest", "half_pixel", "half_up"), {"mode": "nearest-exact"}),
    (("linear", "half_pixel", "floor"), {"mode": "bilinear"}),
    (("linear", "align_corners", "floor"), {"mode": "bilinear", "align_corners": True}),
    (("cubic", "half_pixel", "floor"), {"mode": "bicubic"}),
    (("cubic", "align_corners", "floor"), {"mode": "bicubic", "align_corners": True}),
]


@pytest.mark.parametrize(("spec", "options"), KINDS)
def test_resize_at_many_sizes(spec: tuple[str, str, str], options: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        h, w, to_h, to_w = (int(n) for n in rng.integers(1, 30, 4))
        x = normal(1, 2, h, w)
        op = Resize((2, 3), (to_h, to_w), *spec)
        wanted = F.interpolate(torch.from_numpy(x), (to_h, to_w), **options).numpy()
        np.testing.assert_allclose(op.run(x), wanted, **CLOSE)
    np.testing.assert_allclose(Derived.run(op, x), wanted, **CLOSE)


def test_whole_ratios_only_move_elements() -> None:
    x = parse_type("f32[n 3 h w]")
    for spec in (("asymmetric", "floor"), ("half_pixel", "half_up"), ("half_pixel", "half_down")):
        op = Resize((2, 3), (2 * x.shape[2], 3 * x.shape[3]), "nearest", *spec)
        ops = {type(v.op) for v in walk([op.trace(x)[1]]) if v.op is not None}
        assert ops == {Unsqueeze, Repeat, Group}
        y = normal(1, 2, 4, 5)
        bound = Resize((2, 3), (8, 15), "nearest", *spec)
        np.testing.assert_array_equal(bound.run(y), y.repeat(2, 2).repeat(3, 3))
    less = Resize((1,), (3,)).trace(parse_type("f32[2 12]"))[1]
    assert isinstance(less.op, Stride)


def test_ceil_and_align_corners_read_every_place_once() -> None:
    x = np.arange(5.0)
    for spec in (("asymmetric", "ceil"), ("align_corners", "floor")):
        op = Resize((0,), (5,), "nearest", *spec)
        np.testing.assert_array_equal(op.run(x), x)
    longer = Resize((0,), (9,), "nearest", "align_corners", "half_down")
    np.testing.assert_array_equal(longer.run(x), [0, 0, 1, 1, 2, 2, 3, 3, 4])


def test_free_sizes_of_resize() -> None:
    x = parse_type("f32[n 3 h w]")
    op = Resize((2, 3), (2 * x.shape[2] + 1, 7), "linear", "half_pixel")
    assert str(op.type(x)) == "f32[n 3 2*h+1 7]"
    sizes = {"n": 2, "h": 4, "w": 5}
    bound = op.bind(sizes)
    leaves, result = op.trace(x)
    array = normal(2, 3, 4, 5)
    values: dict[Any, Any] = {leaves[0]: array}
    for value in walk([result]):
        if value.op is not None:
            values[value] = value.op.bind(sizes).run(*(values[o] for o in value.operands))
    np.testing.assert_allclose(values[result], bound.run(array), **CLOSE)
    wanted = F.interpolate(torch.from_numpy(array), (9, 7), mode="bilinear").numpy()
    np.testing.assert_allclose(values[result], wanted, **CLOSE)


@pytest.mark.parametrize(
    ("op", "text", "message"),
    [
        (Resize((1,), (4,), "area"), "f32[2 3]", "there are nearest, linear, cubic"),
        (Resize((1,), (4, 5)), "f32[2 3]", r"sizes \(4, 5\) and scales \(\) for 1 axes"),
        (Resize((1,), (4,), "linear"), "i64[2 3]", "cast it to a floating-point type first"),
        (TopK(4, 1), "f32[2 3]", "the 4 largest of 3 elements"),
        (ScatterElements(0, "xor"), "f32[2], i64[2], f32[2]", "combining by 'xor'"),
        (GatherNd(1), "f32[2 3], i64[2], i64[2]", "2 indices for the axes of x from 1 on, of 2"),
        (GatherNd(0), "f32[2 3], f32[2]", "indices are integers, not f32"),
        (ScatterNd(), "f32[2 3], f32[4 2], i64[4]", "axis 1 of the updates"),
    ],
)
def test_what_does_not_fit_is_named(op: Derived, text: str, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        op.trace(*(parse_type(t) for t in text.split(", ")))


# -- several indices, sorting ---------------------------------------------------------------------


def test_an_index_out_of_range_is_named() -> None:
    x, far = normal(3, 4), np.asarray([1, 3])
    for op, operands in ((GatherNd(0), (x, far)), (ScatterNd(), (x, normal(2, 4), far))):
        with pytest.raises(EvaluationError, match="index that x does not have"):
            op.run(*operands)


@pytest.mark.parametrize("largest", [True, False])
def test_order_of_equal_elements_and_nan(largest: bool) -> None:
    x = np.asarray([[2.0, np.nan, 1, 2, 1, np.nan, -np.inf, np.inf, 2]], np.float32)
    for k in (1, 4, 9):
        wanted = torch.sort(torch.from_numpy(x), dim=1, descending=largest, stable=True)
        for result, found in zip(("values", "places"), wanted, strict=True):
            op = TopK(k, 1, largest, result)
            for y in (op.run(x), Derived.run(op, x)):
                np.testing.assert_array_equal(y, found.numpy()[:, :k])


def test_the_last_of_several_writes_counts() -> None:
    x, places = np.zeros(4, np.float32), np.asarray([1, 3, 1])
    updates = np.asarray([1, 2, 3], np.float32)
    for op in (ScatterElements(0), ScatterNd()):
        operands = (x, places, updates) if isinstance(op, ScatterElements) else (x, updates, places)
        for y in (op.run(*operands), Derived.run(op, *operands)):
            np.testing.assert_array_equal(y, [0, 3, 0, 2])


# -- TorchScript ----------------------------------------------------------------------------------

IMAGE, A = torch.from_numpy(normal(2, 6, 5, 4)), torch.from_numpy(normal(2, 3, 4))
K, J = torch.tensor([0, 1, 1]), torch.tensor([2, -1, 0])
PLACES = torch.tensor([[[0, 1, 2, 0], [0, 1, 1, 0]]])
ONES = torch.ones(2, 2, 4)


def resized(**options: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: F.interpolate(x, **options)


def written(x: torch.Tensor, places: Any, value: Any) -> torch.Tensor:
    x = x.clone()
    x[places] = value
    return x


# fmt: off
FUNCTIONS: dict[str, tuple[Callable[..., Any], torch.Tensor]] = {
    **{f"resize {o['mode']} {list(o)[1:]} {s}": (resized(**o, **s), IMAGE)
       for _, o in KINDS
       for s in ({"size": (7, 9)}, {"scale_factor": 2}, {"scale_factor": (1.5, 2.3)},
                 {"scale_factor": 0.5}, {"scale_factor": 1.3, "recompute_scale_factor": True})},
    "resize 1d":        (resized(scale_factor=2, mode="linear"), A),
    "resize 1d nearest": (resized(scale_factor=3), A),
    "resize 3d":        (resized(scale_factor=2, mode="trilinear"), IMAGE[None]),
    "resize 3d nearest": (resized(size=(4, 7, 3)), IMAGE[None]),
    "two indices":      (lambda x: x[K, J], A),
    "later axes":       (lambda x: x[:, J, K], A),
    "axes apart":       (lambda x: x[K, :, J], A),
    "indices broadcast": (lambda x: x[K[:, None], J], A),
    "one of each sample": (lambda x: x[torch.arange(x.shape[0]), K[:2]], A),
    "write places":     (lambda x: written(x, (K[:2], J[:2]), 1.5), A),
    "write slices":     (lambda x: written(x, (slice(None), J), x[:, J] * 2), A),
    "write a mask":     (lambda x: written(x, x > 0, 0.0), A),
    "accumulate":       (lambda x: x.index_put((K,), torch.ones(3, 4), accumulate=True), A),
    "scatter":          (lambda x: x.scatter(1, PLACES[:, :1], 5.0), A),
    "scatter tensor":   (lambda x: x.scatter(2, PLACES[:, :, 1:3], ONES), A),
    "scatter add":      (lambda x: x.scatter_add(1, PLACES, ONES), A),
    "scatter amax":     (lambda x: x.scatter_reduce(1, PLACES, ONES, "amax"), A),
    "index add":        (lambda x: x.index_add(1, K[:2] * 2, ONES, alpha=2), A),
    "index copy":       (lambda x: x.index_copy(1, K[:2] * 2, ONES), A),
    "take along":       (lambda x: x.take_along_dim(torch.tensor([[[0], [2]]]), 1), A),
    "topk":             (lambda x: x.topk(2, 1), A),
    "topk smallest":    (lambda x: x.topk(2, -1, largest=False), A),
    "sort":             (lambda x: x.sort(1, descending=True), A),
    "stable sort":      (lambda x: x.round().sort(dim=2, stable=True), A),
    "argsort":          (lambda x: x.argsort(), A),
    "msort":            (lambda x: x.msort(), A),
    "tensordot":        (lambda x: torch.tensordot(x, x, ([0, 2], [0, 2])), A),
    "outer":            (lambda x: torch.outer(x[0, 0], x[1, 1]), A),
    "bilinear":         (lambda x: F.bilinear(x, x + 1, torch.ones(5, 4, 4), torch.ones(5)), A),
    "cdist":            (lambda x: torch.cdist(x, x + 1) + torch.cdist(x, x + 1, p=1.0), A),
    "pairwise distance": (lambda x: F.pairwise_distance(x, x + 1), A),
    "cosine similarity": (lambda x: F.cosine_similarity(x, x + 1, dim=-1), A),
    "channel shuffle":  (lambda x: F.channel_shuffle(x, 3), IMAGE),
}
# fmt: on


def flat(found: Any) -> list[np.ndarray]:
    if isinstance(found, torch.Tensor):
        return [found.numpy()]
    return [array for part in found for array in flat(part)]


@pytest.mark.filterwarnings("ignore")  # of the tracer, on constants
@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_operation_goes_through_both_formats(name: str) -> None:
    function, x = FUNCTIONS[name]
    traced = torch.jit.trace(function, x, check_trace=False)
    dag = from_torchscript(traced, inputs=[x])
    assert not dag.unknown
    feeds = {t.name: x.numpy() for t in dag.inputs}
    wanted = flat(function(x))
    for found in (
        list(dag.evaluate(**feeds).values()),
        flat(to_torchscript(dag)(x)),
        runtime(to_onnx(dag), feeds),
    ):
        for a, b in zip(wanted, found, strict=True):
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
            np.testing.assert_allclose(a, b, **CLOSE)


def test_upsampling_of_free_sizes() -> None:
    traced = torch.jit.trace(resized(scale_factor=2, mode="bilinear"), IMAGE, check_trace=False)
    dag = from_torchscript(traced, inputs=["f32[n 6 h w]"])
    assert [str(dag.types[o]) for o in dag.outputs.values()] == ["f32[n 6 2*h 2*w]"]
    x = torch.from_numpy(normal(1, 6, 3, 7))
    wanted = F.interpolate(x, scale_factor=2, mode="bilinear").numpy()
    np.testing.assert_allclose(to_torchscript(dag)(x).numpy(), wanted, **CLOSE)
    feeds = {t.name: x.numpy() for t in dag.inputs}
    np.testing.assert_allclose(runtime(to_onnx(dag), feeds)[0], wanted, **CLOSE)


def test_one_index_stays_a_gather() -> None:
    dag = from_torchscript(torch.jit.trace(lambda x: x[:, K], A), inputs=[A])
    assert [type(n.op) for n in dag] == [Gather]


# -- ONNX -----------------------------------------------------------------------------------------


def node_model(
    op: str, x: np.ndarray, constants: dict[str, Any], results: int, opset: int, **spec: Any
) -> onnx.ModelProto:
    """A node on x and constants; None leaves an operand out."""
    names = ["x", *("" if a is None else n for n, a in constants.items())]
    data = [numpy_helper.from_array(a, n) for n, a in constants.items() if a is not None]
    outs = [f"y{i}" for i in range(results)]
    info = helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
    node = helper.make_node(op, names, outs, **spec)
    graph = helper.make_graph(
        [node], "one", [info], [onnx.ValueInfoProto(name=o) for o in outs], data
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def check_node(
    op: str,
    x: np.ndarray,
    constants: dict[str, Any],
    results: int = 1,
    opset: int = 18,
    **spec: Any,
) -> SafeDAG:
    model = node_model(op, x, constants, results, opset, **spec)
    wanted = runtime(model, {"x": x})
    dag = from_onnx(model)
    assert not dag.unknown
    back = to_onnx(dag)
    onnx.checker.check_model(back)
    for found in (list(dag.evaluate(x=x).values()), runtime(back, {"x": x})):
        for a, b in zip(wanted, found, strict=True):
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
            np.testing.assert_allclose(a, b, **CLOSE)
    return dag


PLACEMENTS = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


@pytest.mark.parametrize("opset", [11, 13, 18, 19])
@pytest.mark.parametrize("places", PLACEMENTS)
def test_resize_to_sizes(places: str, opset: int) -> None:
    specs = [{"mode": "nearest", "nearest_mode": n} for n in NEAREST]
    for spec in (*specs, {"mode": "linear"}, {"mode": "cubic"}):
        for shape, to in (((5, 4), (7, 9)), ((6, 9), (3, 2)), ((1, 3), (4, 1)), ((4, 4), (8, 4))):
            empty = np.zeros(0, np.float32) if opset < 13 else None  # may not be left out there
            sizes = {"roi": empty, "scales": empty, "sizes": np.asarray([1, 2, *to])}
            placed = {"coordinate_transformation_mode": places, **spec}
            check_node("Resize", normal(1, 2, *shape), sizes, opset=opset, **placed)


@pytest.mark.parametrize("scales", [(2, 3), (1.5, 2.4), (0.5, 0.7), (1, 2)])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_resize_by_scales(mode: str, scales: tuple[float, float]) -> None:
    given = {"roi": None, "scales": np.asarray([1, 1, *scales], np.float32)}
    for places in ("half_pixel", "asymmetric"):
        spec = {"coordinate_transformation_mode": places, "mode": mode}
        check_node("Resize", normal(1, 2, 10, 8), given, **spec)


@pytest.mark.parametrize("scales", [(2.0, 3.0), (1.5, 2.4)])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_upsample_and_resize_of_old_opsets(mode: str, scales: tuple[float, float]) -> None:
    x, given = normal(1, 2, 5, 4), {"scales": np.asarray([1, 1, *scales], np.float32)}
    check_node("Resize", x, given, opset=10, mode=mode)
    check_node("Upsample", x, given, opset=9, mode=mode)
    check_node("Upsample", x, {}, opset=7, mode=mode, scales=[1.0, 1.0, *scales])


def test_an_upsampling_of_whole_ratio_stays_one_node() -> None:
    given = {"roi": None, "scales": np.asarray([1, 1, 2, 2], np.float32)}
    spec = {
        "mode": "nearest",
        "nearest_mode": "floor",
        "coordinate_transformation_mode": "asymmetric",
    }
    dag = check_node("Resize", normal(1, 2, 5, 4), given, **spec)
    assert [n.op for n in dag] == [Resize((2, 3), (10, 8))]
    assert [n.op_type for n in to_onnx(dag).graph.node] == ["Resize"]


@pytest.mark.parametrize(
    "spec",
    [
        {"antialias": 1, "mode": "linear"},
        {"mode": "cubic", "exclude_outside": 1},
        {"coordinate_transformation_mode": "half_pixel_symmetric", "mode": "linear"},
    ],
)
def test_what_has_no_op_is_carried_along(spec: dict[str, Any]) -> None:
    sizes = {"roi": None, "scales": None, "sizes": np.asarray([1, 2, 7, 9])}
    assert from_onnx(node_model("Resize", normal(1, 2, 5, 4), sizes, 1, 19, **spec)).unknown


@pytest.mark.parametrize(
    ("shape", "shared"), [((7, 2), 0), ((7, 6, 1), 0), ((3, 6, 2), 1), ((3, 4, 2), 2)]
)
def test_gather_nd(shape: tuple[int, ...], shared: int) -> None:
    indices = RNG.integers(-2, 2, shape)
    spec = {"batch_dims": shared} if shared else {}
    check_node("GatherND", normal(3, 4, 5, 2), {"indices": indices}, **spec)


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
def test_scatter(reduction: str) -> None:
    places = np.stack([[0, 1, 2, 0], [3, -1, 0, 2]], 1)
    updates = {"indices": places, "updates": normal(4, 5, 2)}
    check_node("ScatterND", normal(3, 4, 5, 2), updates, reduction=reduction)
    if reduction != "none":  # several of one place
        updates = {"indices": np.abs(places) % 2, "updates": normal(4, 5, 2)}
        check_node("ScatterND", normal(3, 4, 5, 2), updates, reduction=reduction)
    order = np.stack([RNG.permutation(6)[:3] for _ in range(4)])
    elements = {"indices": order, "updates": normal(4, 3)}
    check_node("ScatterElements", normal(4, 6), elements, axis=1, reduction=reduction)


@pytest.mark.parametrize("largest", [0, 1])
def test_top_k(largest: int) -> None:
    x = RNG.integers(-3, 3, (4, 6)).astype(np.float32)
    for k in (1, 3, 6):
        given = {"k": np.asarray([k])}
        dag = check_node("TopK", x, given, 2, 11, axis=0 if k < 5 else 1, largest=largest)
        assert sum(n.op_type == "TopK" for n in to_onnx(dag).graph.node) == 1
