"""Sizes: an algebra that agrees with that of integers, in one form for equal sizes."""

import copy
import pickle

import pytest
from hypothesis import assume as suppose
from hypothesis import given
from hypothesis import strategies as st

from safegraph import dims
from safegraph.dims import Dim, Size, assuming, at_least, divide, evaluate, maximum, parse, same
from safegraph.errors import ParseError, ShapeError

NAMES = ("a", "b", "n")
numbers = st.integers(-3, 6)
values = st.fixed_dictionaries({name: st.integers(1, 9) for name in NAMES})
divisors = st.one_of(
    st.integers(1, 6).map(str), st.sampled_from(NAMES), st.sampled_from(["2*a", "a*b", "n + 1"])
)
expressions = st.recursive(
    st.one_of(st.integers(0, 9).map(str), st.sampled_from(NAMES)),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*"), inner).map("({0[0]} {0[1]} {0[2]})".format),
        st.tuples(inner, st.sampled_from(["//", "%"]), divisors).map(
            "({0[0]} {0[1]} ({0[2]}))".format
        ),
        st.tuples(inner, inner).map("max({0[0]}, {0[1]})".format),
    ),
    max_leaves=8,
)


def number(text: str, sizes: dict[str, int]) -> int:
    """What Python's integers make of an expression."""
    return int(eval(text, {"max": max, **sizes}))


# -- agreement with integers ----------------------------------------------------------------------


@given(expressions, values)
def test_sizes_compute_as_integers(text, sizes):
    assert evaluate(parse(text), sizes) == number(text, sizes)


@given(expressions)
def test_text_reads_back_as_the_same_object(text):
    found = parse(text)
    again = parse(str(found))
    assert again is found or (isinstance(found, int) and again == found)


@given(expressions, values, st.sampled_from(NAMES))
def test_names_can_be_replaced_one_by_one(text, sizes, name):
    first = dims.substitute(parse(text), {name: sizes[name]})
    assert name not in dims.names(first)
    assert evaluate(first, sizes) == number(text, sizes)


@given(expressions, expressions)
def test_a_name_can_be_replaced_by_a_size(text, other):
    sizes = {"a": 3, "b": 5, "n": 2}
    inner = number(other, sizes)
    suppose(inner >= 1)
    found = dims.substitute(parse(text), {"a": parse(other)})
    assert evaluate(found, sizes) == number(text, {**sizes, "a": inner})


@given(expressions, expressions, values)
def test_an_exact_quotient_is_one(p, q, sizes):
    found = divide(parse(p), parse(q))
    if found is not None:
        assert evaluate(found, sizes) * number(q, sizes) == number(p, sizes)


@given(expressions, expressions)
def test_a_product_is_divided_by_its_factor(p, q):
    a, b = parse(p), parse(q)
    suppose(b != 0)
    assert divide(a * b, b) == a


@given(expressions, expressions, values)
def test_what_is_known_of_order_is_so(p, q, sizes):
    a, b = number(p, sizes), number(q, sizes)
    if (known := at_least(parse(p), parse(q))) is not None:
        assert (a >= b) is known
    if (known := same(parse(p), parse(q))) is not None:
        assert (a == b) is known


@given(st.lists(expressions, max_size=6), values)
def test_long_sums_and_products(texts, sizes):
    parsed = [parse(t) for t in texts]
    assert evaluate(dims.add_all(parsed), sizes) == sum(number(t, sizes) for t in texts)
    total = 1
    for t in texts:
        total *= number(t, sizes)
    assert evaluate(dims.product(parsed), sizes) == total


@given(expressions, expressions, expressions)
def test_equal_polynomials_are_one_object(p, q, r):
    a, b, c = parse(p), parse(q), parse(r)
    for left, right in (
        (a + b, b + a),
        ((a + b) * c, a * c + b * c),
        ((a + b) + c, a + (b + c)),
        (a - b, -(b - a)),
        ((a + 7 * b) // 7, a // 7 + b),
    ):
        assert left is right or (isinstance(left, int) and left == right)


# -- the form -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("batch*(2*h + 3)//2", "(batch//2) + batch*h + batch"),
        ("(h - 1)//2", "((h + 1)//2) - 1"),
        ("(h//2 - 1)//2 + 1", "((h + 2)//4)"),
        ("((h - 1)//2 + 1 - 1)//2 + 1", "((h + 3)//4)"),
        ("(12*n)//12", "n"),
        ("(4*n)//(2*n)", "2"),
        ("(6*n + 9)//12", "((2*n + 3)//4)"),
        ("max(n, 1)", "n"),
        ("max(n, n + 1, 0)", "n + 1"),
        ("max(n, 5)", "Max(5, n)"),
        ("n % 3 - n", "-3*(n//3)"),
        ("2**3", "8"),
        ("n**2 - n*n", "0"),
    ],
)
def test_the_form_of_a_size(text, form):
    found = parse(text)
    assert found == parse(form)
    assert str(found) == str(parse(form))


def test_what_is_undecided_is_neither():
    a, b = dims.dims("a b")
    assert at_least(a, b) is None
    assert at_least(a, 2) is None
    assert same(a, b) is None
    assert same(a, 3) is None
    assert at_least(a, 1) is True
    assert at_least(0, a) is False
    assert same(a, a + 1) is False
    assert divide(a, b) is None


@pytest.mark.parametrize(
    ("a", "b"), [("a", "max(2, a)"), ("max(a - 5, b - 7)", "0"), ("0", "max(a - 5, b - 7) + 1")]
)
def test_order_of_a_maximum_is_left_open(a, b):
    assert at_least(parse(a), parse(b)) is None


def test_equal_sizes_are_one_object_everywhere():
    a, b = dims.dims("batch h")
    found = (a + 1) * b // 2
    assert (1 + a) * b // 2 is found
    assert pickle.loads(pickle.dumps(found)) is found
    assert copy.deepcopy({found})  # and hashable
    assert copy.deepcopy(found) is found
    assert dims.names((found, 3, (b,))) == {"batch", "h"}


def test_sizes_are_not_numbers():
    n = dims.size("n")
    with pytest.raises(ShapeError, match="give a value to n"):
        int(n)
    with pytest.raises(ShapeError, match="needs a value for n"):
        evaluate(n + 1, {"m": 3})
    with pytest.raises(TypeError):
        n + 1.5


@pytest.mark.parametrize(
    "text",
    ["", "a +", "a b", "1.5", "a / 2", "f(a)", "a.b", "'a'", "a < b", "True", "(" * 300 + "a"],
)
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ParseError, match="no size"):
        parse(text)


def test_division_by_zero_is_refused():
    n = dims.size("n")
    for text in ("n // 0", "n % 0", "3 // 0"):
        with pytest.raises(ParseError):
            parse(text)
    with pytest.raises(ShapeError):
        n // 0
    assert divide(n, 0) is None


# -- assumptions ----------------------------------------------------------------------------------


def test_what_cannot_be_told_is_assumed_or_refused():
    a, b = dims.dims("a b")
    with pytest.raises(ShapeError, match="cannot be told"):
        dims.require_same(a, b, "axis 0")
    with assuming() as outer:
        with assuming() as found:
            assert dims.require_same(a, 3, "axis 0") == 3
            assert dims.require_same(3, a, "axis 0") == 3
            assert dims.require_divide(a, 4, "axis 1") == a // 4
            assert dims.require_divide(8 * b, 4, "axis 1") == 2 * b
        assert set(found) == {"a == 3", "3 == a", "a % 4 == 0"}
        with pytest.raises(ShapeError, match="axis 0: a is not a \\+ 1"):
            dims.require_same(a, a + 1, "axis 0")
        with pytest.raises(ShapeError, match="axis 1: 4 does not divide 6"):
            dims.require_divide(6, 4, "axis 1")
    assert outer == found
    assert dims.holds(found["a % 4 == 0"], {"a": 8})
    assert not dims.holds(found["a % 4 == 0"], {"a": 9})
    assert not dims.holds(found["a == 3"], {"a": 8})


def test_how_large_a_size_is_can_be_assumed():
    a, b = dims.dims("a b")
    with assuming() as found:
        dims.require_at_least(a - 5, 0, "axis 0")
        dims.require_at_least(a, b, "axis 0")
        dims.require_at_least(a, a // 2, "axis 0")  # is always so
        with pytest.raises(ShapeError, match="axis 1: a is less than a \\+ 1"):
            dims.require_at_least(a, a + 1, "axis 1")
    assert set(found) == {"a >= 5", "a >= b"}
    assert dims.holds(found["a >= 5"], {"a": 5})
    assert not dims.holds(found["a >= 5"], {"a": 4})


def test_floor_divisions_are_bounded_from_both_sides():
    a, b = dims.dims("a b")
    assert dims.at_least(a, (a + 1) // 2)
    assert dims.at_least(2 * (a // 2) + 1, a)
    assert dims.at_least(a * b, (b + 1) // 2)
    assert dims.at_least(2 * (a // 2), a) is None
    assert dims.at_least(a // 2, b // 2) is None


def test_an_assumption_is_not_kept_when_the_block_fails():
    with pytest.raises(RuntimeError), assuming():
        raise RuntimeError
    with pytest.raises(ShapeError):
        dims.require_same(dims.size("a"), 2, "axis 0")


# -- size of the work -----------------------------------------------------------------------------


def test_repeated_operations_are_remembered():
    """100,000 operations on the few sizes of a model make few new ones."""
    batch, h = dims.dims("batch h")
    dims.product((batch, h))
    before = None
    for i in range(20_000):
        k = i % 7
        total: Dim = batch * (h + k)
        total = (total + 2 * k) // 2 - k
        assert isinstance(total, Size)
        if i == 50:
            before = dims._binary.cache_info().misses
    assert before == dims._binary.cache_info().misses


def test_a_sum_of_many_different_terms():
    """Adding up one by one would expand a longer sum each time."""
    names = dims.dims(" ".join(f"s{i}" for i in range(300)))
    total = dims.add_all([n * names[0] for n in names] * 50)
    assert evaluate(total, {str(n): 1 for n in names}) == 15_000
    assert maximum(total, 1) is total
