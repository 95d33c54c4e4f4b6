"""Every spelling of a function is recognised as one op, and nothing else is."""

from math import inf, sqrt

import numpy as np
import pytest

from benchmarks.spellings import spellings
from benchmarks.spellings_base import Spelling
from safegraph.dag import SafeDAG
from safegraph.derived.attention import Attention
from safegraph.derived.einsum import einsum
from safegraph.derived.norm import BatchNorm, GroupNorm, LayerNorm, RmsNorm, Softmax
from safegraph.derived.pointwise import Clip, Gelu, HardSwish, Silu
from safegraph.op import Op
from safegraph.ops import Scalar
from safegraph.value import Value, apply, binary, reduce, select, tensor

SPELLINGS = spellings()
QUICK = [s for s in SPELLINGS if "(new" not in s.name][::20]


def arrays(dag: SafeDAG) -> dict[str, np.ndarray]:
    """Random inputs; vectors are positive, as variances are, and masks let something through."""
    rng = np.random.default_rng(0)
    found = {}
    for t in dag.inputs:
        shape = tuple(int(d) for d in t.type.shape)
        if t.type.dtype == "bool":
            found[t.name] = (rng.random(shape) < 0.7) | (np.arange(shape[-1]) == 0)
        elif len(shape) == 1:
            found[t.name] = rng.uniform(0.5, 1.5, shape).astype("f4")
        else:
            found[t.name] = rng.standard_normal(shape).astype("f4")
    return found


def assert_same(given: SafeDAG, refined: SafeDAG) -> None:
    """Both compute the same."""
    inputs = arrays(given)
    wanted, found = given.evaluate(**inputs), refined.evaluate(**inputs)
    assert wanted.keys() == found.keys()
    for name in wanted:
        assert np.isfinite(wanted[name]).all()
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-4, atol=1e-5)


def assert_recognised(spelling: Spelling) -> None:
    """The op is all that remains, and computes what the spelling does."""
    given = spelling.make()
    refined = given.refine()
    assert spelling.recognised(refined), f"{spelling.expected} is not all of\n{refined}"
    assert_same(given, refined)


@pytest.mark.parametrize("spelling", QUICK, ids=lambda s: s.name)
def test_a_spelling_is_recognised(spelling: Spelling) -> None:
    assert_recognised(spelling)


@pytest.mark.slow
@pytest.mark.parametrize("spelling", SPELLINGS, ids=lambda s: s.name)
def test_every_spelling_is_recognised(spelling: Spelling) -> None:
    assert_recognised(spelling)


def test_the_list_has_every_function_by_every_route() -> None:
    assert len(SPELLINGS) >= 150
    wanted = (Gelu, Silu, HardSwish, LayerNorm, RmsNorm, GroupNorm, BatchNorm, Softmax, Attention)
    for op in wanted:
        names = [s.name for s in SPELLINGS if type(s.expected) is op]
        for route in ("(old", "(new", "(trace)", "(term)"):
            assert any(route in n for n in names), f"{op.__name__} {route}"
    assert {s.expected.spec["approximate"] for s in SPELLINGS if isinstance(s.expected, Gelu)} == {
        "none", "tanh", "sigmoid",
    }  # fmt: skip


# -- what is nearly a function ---------------------------------------------------------------------

x = tensor("x", "f32[2 3 8]")
q, k, v = (tensor(n, "f32[2 3 8]") for n in "qkv")
mean = reduce(x, [2], "mean")
variance = reduce((x - mean) * (x - mean), [2], "mean")
scores = einsum("bld,bsd->bls", q, k)

NEARLY: dict[str, tuple[type[Op], Value]] = {
    "gelu with half the noise": (Gelu, x * (x * 0.9).gaussian()),
    "gelu without the half": (Gelu, x * (1 + (x / sqrt(2)).erf())),
    "gelu by another cube": (Gelu, x * (1.5957691 * (x + 0.05 * x * x * x)).sigmoid()),
    "gelu by another sigmoid": (Gelu, x * (1.5 * x).sigmoid()),
    "silu of twice x": (Silu, x * (2 * x).sigmoid()),
    "hard_swish of another sixth": (HardSwish, x * apply(Clip(0.0, 6.0), x + 3) / 5),
    "hard_swish of another third": (HardSwish, x * apply(Clip(0.0, 6.0), x + 2) / 6),
    "softmax by another sum": (Softmax, x.exp() / reduce(x.exp(), [1], "sum")[:, :, :1] * 2),
    "softmax over two axes": (Softmax, x.exp() / reduce(x.exp(), [1, 2], "sum")),
    "layer norm, eps outside": (LayerNorm, (x - mean) / (variance.sqrt() + 1e-5)),
    "layer norm of n - 1": (LayerNorm, (x - mean) / (variance * (8 / 7) + 1e-5).sqrt()),
    "layer norm of another mean": (
        LayerNorm,
        (x - reduce(x, [1], "mean")) / (variance + 1e-5).sqrt(),
    ),
    "RMS norm of a sum": (RmsNorm, x / (reduce(x * x, [2], "sum") + 1e-5).sqrt()),
    "RMS norm by a cube root": (
        RmsNorm,
        x / binary("root", reduce(x * x, [2], "mean") + 1e-5, 3),
    ),
    "attention over queries": (
        Attention,
        einsum("bls,bse->ble", apply(Softmax(1), scores), v),
    ),
    "attention to a number": (
        Attention,
        einsum("bls,bse->ble", apply(Softmax(2), select(scores < 1, scores, -1e4)), v),
    ),
}


@pytest.mark.parametrize("name", NEARLY)
def test_what_is_nearly_a_function_is_not_recognised(name: str) -> None:
    op, value = NEARLY[name]
    given = SafeDAG.from_values({"y": value})
    refined = given.refine()
    computing = [type(n.op) for n in refined if not (n.op.moves or isinstance(n.op, Scalar))]
    assert computing != [op]
    assert_same(given, refined)


# -- rows that a mask leaves nothing to attend to --------------------------------------------------


def attended(weights: Value) -> SafeDAG:
    return SafeDAG.from_values({"y": einsum("bls,bse->ble", weights, v)})


def blocked_inputs() -> dict[str, np.ndarray]:
    """A mask of numbers, and one of bool, that block one row of three."""
    rng = np.random.default_rng(0)
    found = {n: rng.standard_normal((2, 3, 8)).astype("f4") for n in "qkv"}
    allowed = np.ones((2, 3, 3), bool)
    allowed[:, 1] = False
    allowed[:, 0, 2] = False
    bias = np.where(allowed, 0, -inf).astype("f4")
    return {**found, "mask": allowed, "bias": bias}


mask, bias = tensor("mask", "bool[2 3 3]"), tensor("bias", "f32[2 3 3]")
bare = apply(Softmax(2), select(mask, scores, -inf))
MASKED = {
    "bare, bool": (bare, Attention(1.0, False, safe=False)),
    "bare, added": (apply(Softmax(2), scores + bias), Attention(1.0, False, safe=False)),
    "guarded": (select(bare.is_nan(), 0, bare), Attention(1.0, False, safe=True)),
}


@pytest.mark.parametrize("name", MASKED)
def test_a_blocked_row_gives_what_it_gave(name: str) -> None:
    weights, op = MASKED[name]
    given = attended(weights)
    refined = given.refine()
    assert [n.op for n in refined] == [op]
    inputs = {t.name: blocked_inputs()[t.name] for t in given.inputs}
    wanted, found = given.evaluate(**inputs)["y"], refined.evaluate(**inputs)["y"]
    assert np.isnan(wanted[:, 1]).all() == (not op.safe)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
