"""Where the costs of two models cross: against trying every size."""

import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safegraph import SafeDAG, tensor
from safegraph.dims import evaluate, parse
from safegraph.errors import BindingError, SafeGraphError
from safegraph.extract.cost import Cost, cost
from safegraph.extract.plots import Crossing, crossings, sign_changes
from safegraph.value import Value


def cost_of(y: Value) -> Cost:
    return cost(SafeDAG.from_values({"y": y}))


def low_rank(rank: int) -> Cost:
    x, u, v = (
        tensor("x", "f32[n 64]"),
        tensor("u", f"f32[64 {rank}]"),
        tensor("v", f"f32[{rank} 64]"),
    )
    return cost_of(x @ (u @ v))


def in_order() -> Cost:
    x, u, v = tensor("x", "f32[n 64]"), tensor("u", "f32[64 48]"), tensor("v", "f32[48 64]")
    return cost_of((x @ u) @ v)


def test_a_product_computed_ahead_pays_from_a_size_on():
    # 64*64*48 + n*64*64 against 2*n*64*48
    found = crossings(low_rank(48), in_order(), "n", "macs")
    assert found == (Crossing(1, "second"), Crossing(96, "neither"), Crossing(97, "first"))


def test_models_of_equal_cost_never_cross():
    assert crossings(in_order(), in_order(), "n") == (Crossing(1, "neither"),)


def test_crossings_are_found_however_far():
    assert sign_changes(parse("n*n - 10**12*n"), "n") == [(1, -1), (10**12, 0), (10**12 + 1, 1)]


FACTORS = st.integers(-30, 30)


@given(st.lists(st.integers(1, 40), max_size=4), FACTORS, st.integers(2, 5), st.integers(0, 9))
def test_every_change_of_sign_is_found(roots: list[int], factor: int, divisor: int, shift: int):
    formula: Any = 1
    for root in roots:
        formula = formula * (parse("n") - root)
    formula = formula + factor * ((parse("n") + shift) // divisor)
    expected: list[tuple[int, int]] = []
    for n in range(1, 2000):
        value = evaluate(formula, {"n": n})
        sign = (value > 0) - (value < 0)
        if not expected or expected[-1][1] != sign:
            expected.append((n, sign))
    assert sign_changes(formula, "n", upto=1999) == expected


def test_other_sizes_must_be_given():
    x = tensor("x", "f32[n m]")
    found = cost_of(x.exp())
    with pytest.raises(BindingError, match="m"):
        crossings(found, found, "n")
    assert crossings(found, found, "n", at={"m": 3}) == (Crossing(1, "neither"),)


def test_an_unknown_total_names_those_there_are():
    with pytest.raises(BindingError, match="memory_reads"):
        crossings(in_order(), in_order(), "n", "reads")


def test_plots_need_matplotlib_and_say_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(SafeGraphError, match=r"safegraph\[plot\]"):
        in_order().plot("n")


def test_a_plot_over_a_size_that_no_cost_has_is_refused():
    with pytest.raises(BindingError, match="no cost has a free size 'm'; there are n"):
        in_order().plot("m", low_rank(48))


def test_a_plot_has_a_line_for_each_model_and_one_where_they_cross():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    axes = low_rank(48).plot("n", in_order(), what="macs", values=range(1, 129))
    first, second, *crossing = axes.lines
    assert first.get_ydata()[0] == 64 * 64 * 48 + 64 * 64
    assert second.get_ydata()[95] == 2 * 96 * 64 * 48
    assert [set(line.get_xdata()) for line in crossing] == [{96}, {97}]
