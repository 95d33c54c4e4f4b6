"""The search for a cheap selection, against brute force and integer programming."""

from collections.abc import Iterable, Mapping
from functools import partial
from math import fsum, inf, isfinite
from random import Random

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from safegraph.errors import SafeGraphError
from safegraph.extract import search
from safegraph.extract.network import Network
from safegraph.extract.search import Choices, ExtractionError, total
from safegraph.extract.selection import Selection, Swap

extract = partial(search.extract, seconds=inf)  # no result depends on the machine's speed

Nodes = dict[tuple[int, ...], float]  # operands -> cost, for the e-nodes of a class


def graph(*classes: Nodes) -> Choices:
    """An e-graph; class c is the c-th argument."""
    rows = [(c, row, cost) for c, nodes in enumerate(classes) for row, cost in nodes.items()]
    return Choices(*(list(column) for column in zip(*rows, strict=True)))


def random_graph(rng: Random) -> tuple[Choices, list[int]]:
    """Up to 8 classes, up to 3 e-nodes each: cycles, self loops, shared operands, inf and 0."""
    classes = rng.randint(1, 8)
    of, operands, cost = [], [], []
    for owner in range(classes):
        for _ in range(rng.randint(1, 3)):
            pool = range(classes) if rng.random() < 0.25 else range(owner)
            arity = rng.choice((0, 1, 1, 2, 2, 3)) if pool else 0
            of.append(owner)
            operands.append(tuple(rng.choice(pool) for _ in range(arity)))
            cost.append(rng.choice((inf, 0.0, 1.0, 2.0, 5.0, *(rng.uniform(0, 9),) * 5)))
    return Choices(of, operands, cost), [classes - 1, *([0] if rng.random() < 0.3 else [])]


def selections(choices: Choices, roots: list[int]) -> list[dict[int, int]]:
    """Every acyclic selection, whatever it costs."""
    found: list[dict[int, int]] = []

    def visit(chosen: dict[int, int], todo: list[int]) -> None:
        todo = [c for c in todo if c not in chosen]
        if not todo:
            if is_acyclic(choices, chosen):
                found.append(chosen)
            return
        for node, owner in enumerate(choices.of):
            if owner == todo[0]:
                visit({**chosen, owner: node}, todo[1:] + list(choices.operands[node]))

    visit({}, roots)
    return found


def is_acyclic(choices: Choices, chosen: Mapping[int, int]) -> bool:
    made: set[int] = set()
    while fresh := [
        c for c in chosen if c not in made and made.issuperset(choices.operands[chosen[c]])
    ]:
        made.update(fresh)
    return len(made) == len(chosen)


def price(choices: Choices, chosen: Mapping[int, int]) -> float:
    return fsum(choices.cost[node] for node in chosen.values())


def check(choices: Choices, roots: list[int], chosen: Mapping[int, int]) -> float:
    """The price of what `extract` returned, once it is seen to be a selection."""
    assert set(roots) <= set(chosen)
    for owner, node in chosen.items():
        assert choices.of[node] == owner
        assert set(choices.operands[node]) <= set(chosen)
    assert is_acyclic(choices, chosen)
    assert isfinite(price(choices, chosen))
    assert total(choices, roots, chosen) == price(choices, chosen)  # nothing chosen is unneeded
    return price(choices, chosen)


@given(st.randoms(use_true_random=False))
@settings(deadline=None)
def test_a_selection_is_valid_and_between_the_optimum_and_the_given(rng):
    choices, roots = random_graph(rng)
    every = selections(choices, roots)
    best = min((price(choices, each) for each in every), default=inf)
    if best == inf:
        with pytest.raises(ExtractionError):
            extract(choices, roots)
        return
    start = rng.choice(every)
    cost = check(choices, roots, extract(choices, roots, start))
    assert best * (1 - 1e-12) <= cost <= price(choices, start)
    assert check(choices, roots, extract(choices, roots)) >= best * (1 - 1e-12)


def test_small_graphs_are_nearly_always_solved():
    ratios = []
    for seed in range(300):
        choices, roots = random_graph(Random(seed))
        best = min((price(choices, each) for each in selections(choices, roots)), default=inf)
        if isfinite(best) and best > 0:
            ratios.append(check(choices, roots, extract(choices, roots)) / best)
    assert len(ratios) > 150
    assert np.mean(np.array(ratios) < 1 + 1e-9) >= 0.98
    assert np.mean(ratios) <= 1.005


def optimum(choices: Choices, root: int) -> float:
    """The least DAG cost of an acyclic e-graph, by HiGHS."""
    owners = np.array(choices.of)
    terms = [(0, int(node), 1.0) for node in np.flatnonzero(owners == root)]
    rows = 1
    for node, operands in enumerate(choices.operands):
        for operand in set(operands):
            terms.append((rows, node, -1.0))
            terms += [(rows, int(member), 1.0) for member in np.flatnonzero(owners == operand)]
            rows += 1
    row, column, value = zip(*terms, strict=True)
    matrix = coo_array((value, (row, column)), shape=(rows, len(owners))).tocsr()
    least = np.zeros(rows)
    least[0] = 1
    found = milp(
        choices.cost,
        constraints=LinearConstraint(matrix, least, np.inf),
        integrality=np.ones(len(owners)),
        bounds=Bounds(0, 1),
    )
    assert found.success
    return found.fun


@pytest.mark.parametrize("reach", [10, 100])
def test_graphs_of_a_hundred_classes_against_integer_programming(reach):
    ratios = []
    for seed in range(12):
        rng = Random(seed)
        of, operands, cost = [], [], []
        for owner in range(100):
            for _ in range(rng.randint(1, 4)):
                pool = range(max(0, owner - reach), owner)
                arity = min(rng.choice((0, 1, 2, 2, 3)), len(pool))
                of.append(owner)
                operands.append(tuple(rng.choice(pool) for _ in range(arity)))
                cost.append(rng.uniform(0, 10 if arity else 30))
        choices = Choices(of, operands, cost)
        ratios.append(check(choices, [99], extract(choices, [99])) / optimum(choices, 99))
    assert min(ratios) > 1 - 1e-6
    assert np.mean(ratios) <= 1.02


def test_sharing_beats_the_cheaper_trees():
    # 3 = f(1, 2): alone, each of 1 and 2 is cheapest as a leaf; both from 0 is cheaper still.
    choices = graph({(): 5}, {(): 4, (0,): 0}, {(): 4, (0,): 0}, {(1, 2): 1})
    assert check(choices, [3], extract(choices, [3])) == 6


def test_several_users_open_a_class_that_none_would_open_alone():
    # Three results, each 10 alone (none of them a leaf of the others), or 22 for all and 1 each.
    part: Nodes = {(0,): 10, (1,): 1}
    choices = graph({(): 1}, {(0,): 22}, part, part, part, {(2, 3, 4): 1})
    start = {0: 0, 2: 2, 3: 4, 4: 6, 5: 8}
    assert total(choices, [5], start) == 32
    assert check(choices, [5], extract(choices, [5], start)) == 27


def test_a_gain_at_the_end_of_a_chain_of_inactive_classes():
    # 0 is dear; classes 2..21 are a chain that ends in the cheap 1.
    chain: list[Nodes] = [{(max(1, c - 1),): 1.0} for c in range(2, 22)]
    choices = graph({(): 100}, {(): 3}, *chain, {(0,): 1, (21,): 1})
    start = {0: 0, 22: 22}
    assert total(choices, [22], start) == 101
    assert check(choices, [22], extract(choices, [22], start)) == 24


def test_a_cycle_through_an_identity_is_not_taken():
    # 1 = slice(2) and 2 = pad(1) cost nothing, but something must make one of them.
    choices = graph({(): 1}, {(2,): 0, (0,): 9}, {(1,): 0, (0,): 7}, {(1, 2): 1})
    assert check(choices, [3], extract(choices, [3])) == 9


def test_a_cyclic_bargain_does_not_hide_the_sound_one():
    # 3 is 8 from 2, or 2 from 1 and 0; 1 is 3 from 3, which hides that it is 4 from 2.  Tree costs
    # count 0 twice and prefer the first; the hidden way costs 5 + 7 + 4 + 2.
    choices = graph({(): 5}, {(2,): 4, (3,): 3}, {(0,): 7}, {(0, 1): 2, (2,): 8})
    start = {0: 0, 2: 3, 3: 5}
    assert total(choices, [3], start) == 20
    assert check(choices, [3], extract(choices, [3], start)) == 18


def decoder(layers: int) -> tuple[Choices, int, dict[int, int], float]:
    """An e-graph of a decoder asked for its last token, the program's selection, the least cost.

    Every value has a one-token twin: a slice of it, or the op on the twins of its operands.  The
    ideal computes all tokens up to the last layer's keys and values, and one token from there.
    """
    tokens, launch = 512, 1.0
    of: list[int] = []
    operands: list[tuple[int, ...]] = []
    cost: list[float] = []
    start: dict[int, int] = {}

    def add(owner: int, value: float, *row: int) -> None:
        start.setdefault(owner, len(of))
        of.append(owner)
        operands.append(row)
        cost.append(value)

    def op(work: float, *row: int, whole: int = 0) -> int:
        """Class 2i is a value, 2i+1 its twin; the last `whole` operands are needed in full."""
        full = of[-1] + 1 if of else 0
        split = len(row) - whole
        add(full, launch + work, *row)
        add(full + 1, launch, full)
        add(full + 1, launch + work / tokens, *(c + 1 for c in row[:split]), *row[split:])
        return full

    ideal = 0.0
    x = op(10)
    for layer in range(layers):
        n = op(10, x)
        q, k, v = op(500, n), op(500, n), op(500, n)
        a = op(900, q, k, v, whole=2)
        o = op(500, a)
        r = op(10, x, o)
        m = op(10, r)
        up = op(2000, m)
        down = op(2000, op(20, up))
        ends_full = 3 * (launch + 500) + launch + 10  # the norm, k and v; q is counted below
        works = (900, 500, 10, 10, 2000, 20, 2000, 10)
        if layer < layers - 1:
            ideal += ends_full + sum(launch + work for work in works)
        else:
            # Slices of n (cheaper than its op on one token) and of x; one token of all the rest.
            ideal += ends_full - 500 + 500 / tokens + 2 * launch
            ideal += sum(launch + work / tokens for work in works)
        x = op(10, r, down)
    root = op(3000, x)
    return (
        Choices(of, operands, cost),
        root + 1,
        start,
        ideal + 11 + launch + 3000 / tokens,  # the embedding; the head, on one token
    )


def test_a_decoder_of_12_layers_is_cut_to_one_token_exactly_where_that_pays():
    choices, root, start, ideal = decoder(12)
    found = extract(choices, [root], start)
    assert check(choices, [root], found) == pytest.approx(ideal, rel=1e-12)
    assert check(choices, [root], extract(choices, [root])) == pytest.approx(ideal, rel=1e-12)
    twins = [c for c in found if c % 2]
    assert len(twins) == 12  # n, q, x sliced or redone; 8 ops to the end of the layer; the head
    assert total(choices, [root], start) > 1.05 * ideal


@given(st.randoms(use_true_random=False))
@settings(deadline=None)
def test_swaps_keep_the_books_and_can_be_taken_back(rng):
    choices, roots = random_graph(rng)
    starts = selections(choices, roots)
    assume(starts)
    network = Network.over(
        choices.of,
        [tuple(set(row)) for row in choices.operands],
        [min(value, 20.0) for value in choices.cost],
        range(len(choices.of)),
        max(choices.of) + 1,
    )
    selection = Selection(network, roots, rng.choice(starts))
    for owner in selection.active():
        alone = cost_of(selection, {*selection.active()} - reached(selection, without=owner))
        assert selection.weight[owner] == pytest.approx(alone)
    done: list[tuple[Swap, list[int]]] = []
    for _ in range(20):
        if done and rng.random() < 0.4:
            swap, before = done.pop()
            selection.undo(swap)
            assert selection.chosen == before
        else:
            owner = rng.choice(selection.active())
            selection.weight[owner] = 1e9  # try the dear ones too
            before, cost = selection.chosen.copy(), cost_of(selection, selection.active())
            made = selection.swap(owner, rng.choice(network.members[owner]))
            if made is not None:
                done.append((made, before))
                now = cost_of(selection, selection.active())
                assert now - cost == pytest.approx(made.delta, abs=1e-9)
        assert set(selection.active()) == reached(selection)
        for user in selection.active():
            for operand in network.operands[selection.chosen[user]]:
                assert selection.position[operand] < selection.position[user]


def cost_of(selection: Selection, classes: Iterable[int]) -> float:
    return sum(selection.network.cost[selection.chosen[c]] for c in classes)


def reached(selection: Selection, without: int | None = None) -> set[int]:
    """The classes that the roots need, not looking below one of them."""
    found: set[int] = set()
    stack = list(selection.roots)
    while stack:
        top = stack.pop()
        if top != without and top not in found:
            found.add(top)
            stack += selection.network.operands[selection.chosen[top]]
    return found


def test_depth_50_000():
    depth = 50_000
    chain: list[Nodes] = [{(c,): 1.0} for c in range(depth)]
    straight = graph({(): 1}, *chain)
    assert check_deep(straight, depth) == depth + 1
    # A residual stream: each class also uses the one two below; every other has a dear twin.
    of, operands, cost = [0, 1], [(), (0,)], [1.0, 1.0]
    for owner in range(2, depth):
        of += [owner] * (1 + owner % 2)
        operands += [(owner - 1, owner - 2)] * (1 + owner % 2)
        operands[-1] = (owner - 1,) if owner % 2 else operands[-1]
        cost += [1.0, 3.0][: 1 + owner % 2]
    assert check_deep(Choices(of, operands, cost), depth - 1) == depth


def check_deep(choices: Choices, root: int) -> float:
    """As `check`, in time linear in the depth: the result has operands first."""
    chosen = extract(choices, [root])
    made: set[int] = set()
    for owner, node in chosen.items():
        assert made.issuperset(choices.operands[node])
        made.add(owner)
    assert root in made
    return price(choices, chosen)


def test_the_answer_is_the_same_each_time():
    choices, root, start, _ = decoder(3)
    first = extract(choices, [root], start)
    assert list(extract(choices, [root], start).items()) == list(first.items())


def test_no_time_still_gives_a_selection_no_dearer_than_the_given():
    choices, root, start, _ = decoder(3)
    found = extract(choices, [root], start, seconds=0.0)
    assert check(choices, [root], found) <= total(choices, [root], start)


def test_a_given_selection_that_cannot_run_is_ignored():
    choices = graph({(): inf}, {(0,): 1, (): 7})
    assert extract(choices, [1], {0: 0, 1: 1}) == {1: 2}


def test_what_has_no_finite_selection_is_named():
    with pytest.raises(ExtractionError, match="no e-node of finite cost") as lacking:
        extract(graph({(): inf}, {(): 1}, {(0, 1): 1}), [2])
    assert lacking.value.classes == (0,)
    with pytest.raises(ExtractionError, match="only be made from themselves") as looped:
        extract(graph({(1,): 1}, {(0,): 1}), [1])
    assert looped.value.classes == (0, 1)
    assert issubclass(ExtractionError, SafeGraphError)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ({1: 2}, r"no e-node of its own for the needed classes \[0\]"),
        ({0: 2, 1: 2}, r"no e-node of its own for the needed classes \[0\]"),
        ({0: 1, 1: 2}, "cyclic"),
    ],
)
def test_a_given_selection_must_be_one(start, message):
    with pytest.raises(ExtractionError, match=message):
        extract(graph({(): 1, (1,): 1}, {(0,): 1}), [1], start)


def test_arrays_that_contradict_each_other_are_refused():
    with pytest.raises(ExtractionError, match="got 1, 2 and 1"):
        extract(Choices([0], [(), ()], [1.0]), [0])
    with pytest.raises(ExtractionError, match="negative cost or NaN"):
        extract(graph({(): -1.0}), [0])
    with pytest.raises(ExtractionError, match="got -1"):
        extract(graph({(): 1.0}), [-1])
