"""The text form: what is printed reads back, and what cannot be read is explained."""

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safegraph import notation, patterns
from safegraph.dag import Node, SafeDAG, Tensor
from safegraph.derived.einsum import Einsum
from safegraph.derived.shape import Reshape
from safegraph.dims import parse, size
from safegraph.dtypes import DTYPES, to_numpy
from safegraph.errors import GraphError, ParseError, SafeGraphError, SpecError
from safegraph.op import OPS, Op
from safegraph.ops import (
    BINARY,
    UNARY,
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
    Scalar,
    Slice,
    Squeeze,
    Stride,
    Unary,
    Unfold,
    Ungroup,
    Unsqueeze,
)
from safegraph.text import read, write
from safegraph.value import parse_type

n = size("n")
inf = float("inf")


def dag_of(op: Op, *types: str) -> SafeDAG:
    tensors = [Tensor(f"x{i}", "input", parse_type(t)) for i, t in enumerate(types)]
    return SafeDAG(tensors, [Node("y", op, tuple(t.name for t in tensors))], ["y"])


def same(a: SafeDAG, b: SafeDAG) -> None:
    assert a.name == b.name
    assert list(a.tensors.values()) == list(b.tensors.values())
    assert [(m.name, m.op, m.inputs, m.where) for m in a] == [
        (m.name, m.op, m.inputs, m.where) for m in b
    ]
    assert all(a.nodes[m].op is b.nodes[m].op for m in a.nodes)
    assert list(a.outputs.items()) == list(b.outputs.items())
    assert a.types == b.types
    assert a.assumptions == b.assumptions


# -- the notation, line by line -------------------------------------------------------------------

# fmt: off
LINES = [
    (Permute((0, 2, 1)), "f32[batch 3 4]",
     '= permute(x0) "batch a b -> batch b a"'),
    (Permute(()),                              "f32[]",          '= permute(x0) "->"'),
    (Group((1, 2)),                            "f32[2 3 4]",     '= group(x0) "a b c -> a (b c)"'),
    (Ungroup(((-1,), (-1, 10))), "f32[2 30]",
     '= ungroup(x0) "a (b 10) -> a b 10"'),
    (Ungroup(((-1, n),)), "f32[6*n]",
     '= ungroup(x0) "(a {n}) -> a {n}"'),
    (Ungroup(((2, 3), (5,))), "f32[6 5]",
     '= ungroup(x0) "(2 3) 5 -> 2 3 5"'),
    (Squeeze((1,)),                            "f32[2 1 3]",     '= squeeze(x0) "a 1 b -> a b"'),
    (Unsqueeze((0, 2)), "f32[2 3]",
     '= unsqueeze(x0) "a b -> 1 a 1 b"'),
    (Unsqueeze((0,)),                          "f32[]",          '= unsqueeze(x0) "-> 1"'),
    (Stride((1, 2)),                           "f32[2 3]",       '= stride(x0) "a b:2"'),
    (Interleave((1, 2), 0),                    "f32[2 3]",       '= interleave(x0) "a b:2 | 0"'),
    (Interleave((1, 2), -0.5),                 "f32[2 3]",       '= interleave(x0) "a b:2 | -0.5"'),
    (Slice((1, 0, 2, 0), (4, None, None, 5)),  "f32[9 9 9 9]",   '= slice(x0) "1..3 b 2.. ..4"'),
    (Slice((2, 3), (None, None)),              "f32[9 9]",       '= slice(x0) "2.. 3.."'),
    (Slice((n,), (2 * n,)),                    "f32[3*n]",       '= slice(x0) "{n}..{2*n-1}"'),
    (Slice((-3,), (-1,)),                      "f32[9]",         '= slice(x0) "-3..-2"'),
    (Slice((0,), (0,)), "f32[9]",
     "= slice(x0) starts=(0,) stops=(0,)"),
    (Pad((1, 0, 2), (1, 0, 0), -inf), "f32[3 4 5]",
     '= pad(x0) "1 <- a -> 1, b, 2 <- c -> 0 | -inf"'),
    (Pad((n,), (0,), 0),                       "f32[3]",         '= pad(x0) "{n} <- a -> 0 | 0"'),
    (Reduce((1,), "mean"), "f32[2 3 4]",
     '= reduce(x0) "a {b: 1} c -> a 1 c | mean"'),
    (Reduce((-1,), "mean"), "f32[2 3]",
     "= reduce(x0) axes=(-1,) kind=mean"),
    (Repeat((1, 3, n)),                        "f32[2 1 1]",     '= repeat(x0) "a 1 1 -> a 3 {n}"'),
    (Unfold(1, 3, 2, 1), "f32[2 9]",
     '= unfold(x0) "a b -> a {b: window 3 step 2 dilation 1}"'),
    (Unfold(0, n, n), "f32[3*n]",
     '= unfold(x0) "a -> {a: window {n} step {n} dilation 1}"'),
    (Fold(1, 2, 1), "f32[2 4 3]",
     '= fold(x0) "a {b: step 2 dilation 1} -> a b"'),
    (Unary("exp"),                             "f32[2]",         "= exp(x0)"),
    (Cast("f16"),                              "f32[2]",         "= cast(x0) to=f16"),
    (Scalar(0.5, "f32"),                       "",               "= scalar() value=0.5 of=f32"),
    (Scalar(2 * n, "f32"),                     "",               "= scalar() value={2*n} of=f32"),
    (Iota(n, "i64"),                           "",               "= iota() size={n} of=i64"),
    (Einsum.of("ij,jk->ik"), "f32[2 3], f32[3 4]",
     '= einsum(x0, x1) "a b, b c -> a c"'),
    (Reshape((n, 6)),                          "f32[2*n 3]",     "= reshape(x0) to=({n}, 6)"),
]
# fmt: on


@pytest.mark.parametrize(("op", "types", "line"), LINES, ids=[line for _, _, line in LINES])
def test_a_line(op, types, line):
    dag = dag_of(op, *filter(None, types.split(", ")))
    text = write(dag)
    assert line in text, text
    same(read(text), dag)


def test_names_of_ops_are_not_ambiguous():
    assert not set(UNARY) & set(BINARY)
    assert not (set(UNARY) | set(BINARY)) & set(OPS)


@pytest.mark.parametrize("cls", patterns.PATTERNS, ids=lambda cls: cls.name)
def test_every_pattern_is_tested(cls):
    lines = [line for op, _, line in LINES if type(op) is cls]
    assert any('"' in line for line in lines)


def test_a_graph_reads_as_it_is_written_here():
    text = """\
graph mlp
  input x: f32[batch 3]
  parameter layer1.weight: f32[3 8]
  const eps: f32[] = 1e-05
  h: f32[batch 8] = matmul(x, layer1.weight) @ model/layer1
  "h 2": f32[8 batch] = permute(h) "batch a -> a batch"
  y: f32[8 batch] = exp("h 2")
  output y
  output hidden = h
"""
    dag = read(text)
    assert write(dag) == text
    assert str(dag) == text
    assert dag.tensors["eps"].array() == np.float32(1e-5)
    assert dag.nodes["h"].where == "model/layer1"


def test_comments_spaces_and_missing_types_are_read():
    dag = read(
        "\n# a graph\r\ngraph   g # its name\n\ninput x:f32[2 3]\n\t y=permute( x )"
        '"i j->j i"   # transposed\n output   out=y\n'
    )
    same(dag, read('graph g\n  input x: f32[2 3]\n  y = permute(x) "a b -> b a"\n  output out = y'))
    assert dag.nodes["y"].op is Permute((1, 0))


def test_assumptions_are_printed_and_derived_again():
    dag = dag_of(Ungroup(((-1, 2),)), "f32[n]")
    text = write(dag)
    assert "  assume n % 2 == 0\n" in text
    same(read(text), dag)
    same(read(text.replace("  assume n % 2 == 0\n", "")), dag)
    with pytest.raises(ParseError, match=r"line 2: no op needs n % 3 == 0; .* n % 2 == 0"):
        read(text.replace("n % 2", "n % 3"))


# -- names and values -----------------------------------------------------------------------------

names = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    [
        "input",
        "graph",
        "output",
        "nan",
        "None",
        "True",
        "inf",
        "/a/b",
        "onnx::Conv_1",
        "1",
        "",
        "a b",
    ]
)
sizes = st.sampled_from([parse("n"), parse("2*n + 1"), parse("(n + 3)//4"), parse("max(n, m)")])
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    names,
    st.binary(max_size=12),
    sizes,
    st.sampled_from(["f32[]", "bf16[n 2*m+1]", "i64[3 max(n,m)]"]).map(parse_type),
)
values = st.recursive(leaves, lambda v: st.lists(v, max_size=3).map(tuple), max_leaves=6)


@given(values)
def test_values_read_back(value):
    text = notation.write_value(value)
    cursor = notation.Cursor(text)
    again = cursor.value()
    assert cursor.kind == "end"
    assert repr(again) == repr(value)


@given(st.lists(names, min_size=4, max_size=4, unique=True), names, names, names, values)
def test_any_name_reads_back(four, name, where, out, value):
    x, w, y, z = four
    opaque = Opaque("onnx", name, ((out, value),), 1, parse_type("f32[2 k]"))
    dag = SafeDAG(
        [Tensor(x, "input", parse_type("f32[2 k]")), Tensor(w, "buffer", parse_type("f32[2 k]"))],
        [Node(y, opaque, (x, w), where), Node(z, Unary("exp"), (y,))],
        {out: z, out + "2": x},
        name=name,
    )
    same(read(write(dag)), dag)


def test_a_value_of_another_kind_is_refused():
    with pytest.raises(SpecError, match=r"array.*cannot stand in a spec"):
        notation.write_value(np.zeros(3))


@pytest.mark.parametrize("dtype", DTYPES)
def test_small_constants_are_part_of_the_text(dtype):
    data = np.array([[0.1, 1, 2], [0, 3, 0]]).astype(to_numpy(dtype))
    type_ = parse_type(f"{dtype}[2 3]")
    dag = SafeDAG([Tensor("c", "const", type_, data)], [], ["c"])
    again = read(write(dag))
    if dtype.startswith("c"):  # complex numbers have no notation
        assert again.tensors["c"].data is None
    else:
        np.testing.assert_array_equal(again.tensors["c"].array(), data)
        assert write(again) == write(dag)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 0.1, -0.0])
def test_special_constants(value):
    data = np.array(value, np.float32)
    dag = SafeDAG([Tensor("c", "const", parse_type("f32[]"), data)], [], ["c"])
    assert read(write(dag)).tensors["c"].array().tobytes() == data.tobytes()


def test_large_data_and_weights_are_not_part_of_the_text():
    data = np.zeros(100, np.float32)
    tensors = [Tensor("c", "const", parse_type("f32[100]"), data)]
    tensors += [Tensor("w", "parameter", parse_type("f32[1]"), data[:1])]
    text = write(SafeDAG(tensors, [], ["c", "w"]))
    assert "const c: f32[100]\n" in text
    assert "parameter w: f32[1]\n" in text


# -- what cannot be read --------------------------------------------------------------------------

HEAD = "graph g\n  input x: f32[4 6]\n"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("y = = exp(x)", "expected the name of an op, found '='"),
        ("y exp(x)", "expected ':' or '=' after y, found 'exp'"),
        ("y = exp", "expected '\\(' and the operands after exp, found the end of the line"),
        ("y = exp(x", "expected '\\)' or ',' after an operand, found the end of the line"),
        ("y = exp(x) | 3", "cannot read '| 3'"),
        ("y = exp(x) 3", "expected the end of the line, found '3'"),
        ("y = exp(x) to=3", "exp has no spec"),
        ("y = expp(x)", "there is no op expp"),
        ("y: f33[4] = exp(x)", "'f33' is no element type"),
        ("y: f32[4+] = exp(x)", "'4\\+' is no size"),
        ("y: f32[4 7] = exp(x)", "y is f32\\[4 6\\], not f32\\[4 7\\]"),
        ("y: four = exp(x)", "expected a type such as f32\\[batch 3 2\\*h\\], found 'four'"),
        ("y = cast(x)", "cast has the fields to; missing: to"),
        ("y = cast(x) too=f32", "missing: to; unknown: too"),
        ("y = cast(x) to=f32 to=f16", "the field to is there twice"),
        ("y = cast(x) to=", "expected a value, found the end of the line"),
        ("y = cast(x) to=(f32 f16)", "expected '\\)' or ',' after a value"),
        ('y = cast(x) "a -> b"', "cast takes fields \\(to\\), found the pattern 'a -> b'"),
        ('y = permute(x) "a b -> b"', "'a b -> b' is no pattern of permute"),
        ('y = permute(x) "a b -> b c"', "is no pattern of permute"),
        ('y = permute(x) "a b"', "is no pattern of permute"),
        ('y = permute(x) "a ; b"', "cannot read '; b'"),
        ('y = permute(x) "a b -> b a -> a b"', "'->' is out of place"),
        ('y = permute(x) "a b -> b a" order=(0, 1)', "permute takes fields or a pattern"),
        ('y = group(x) "a b -> (a b"', "'\\)' is missing"),
        ('y = group(x) "a b -> (b a)"', "is no pattern of group"),
        ('y = ungroup(x) "a (b 3) -> a 3 b"', "is no pattern of ungroup"),
        ('y = squeeze(x) "a 1 -> 1"', "is no pattern of squeeze"),
        ('y = slice(x) "1...3 a"', "cannot read"),
        ('y = pad(x) "1 <- a 2, b | 0"', "'->' is missing after the axis a"),
        ('y = reduce(x) "a {b: 1} -> a b | sum"', "is no pattern of reduce"),
        ('y = reduce(x) "a {b: 1} -> a 1"', "is no pattern of reduce"),
        ('y = unfold(x) "a b -> a {b: widow 3 step 1}"', "is no pattern of unfold"),
        ('y = repeat(x) "a 1 -> a {3"', "cannot read"),
        ("input z", "expected ':' and a type after the name, found the end of the line"),
        ("const c: f32[2] = (1, 2, 3)", "are no values of f32\\[2\\]"),
        ("graph again", "expected one graph, found a second after g"),
        ("output", "expected the name of an output, found the end of the line"),
        ("output x\noutput x", "the output x is there twice: output x"),
        ('y = exp("x)', "cannot read"),
        ('y = exp("\\q")', "no JSON string"),
        ('y = opaque(x) format=b"*"', "no base64"),
        ("3 = exp(x)", "expected a name, or one of graph, assume, output, input.*, found '3'"),
    ],
)
def test_a_line_that_cannot_be_read(line, problem):
    with pytest.raises(ParseError, match=f"line [34]: .*{problem}"):
        read(HEAD + line)


def test_all_lines_that_cannot_be_read_are_listed():
    with pytest.raises(ParseError) as caught:
        read(HEAD + "y = expp(x)\nz = exp(x)\nv = exp x\noutput w w")
    assert [p.partition(":")[0] for p in caught.value.problems] == ["line 3", "line 5", "line 6"]
    assert caught.value.problems[0].endswith(": y = expp(x)")


def test_no_graph():
    for text in ("", "# nothing\n"):
        with pytest.raises(ParseError, match="expected 'graph'"):
            read(text)


def test_lines_that_are_no_graph():
    with pytest.raises(GraphError, match="its operand z does not exist") as caught:
        read(HEAD + "y = exp(z)\nw = is_nann(x)\noutput v".replace("is_nann", "is_nan"))
    assert "output v: its value v does not exist" in str(caught.value)


WHOLE = "\n".join(
    f"graph g{i}\n{write(dag_of(op, *filter(None, types.split(', ')))).partition(chr(10))[2]}"
    for i, (op, types, _) in enumerate(LINES)
).split("graph ")[1:]


@settings(max_examples=300)
@given(st.sampled_from(WHOLE), st.integers(0, 200), st.integers(0, 12), st.text(max_size=5))
def test_a_damaged_text_is_read_or_refused(text, at, count, inserted):
    """Never another exception, whatever is cut out or put in."""
    whole = "graph " + text
    with suppress(SafeGraphError):
        again = read(whole[:at] + inserted + whole[at + count :])
        same(read(write(again)), again)


@pytest.mark.parametrize(
    "line",
    ["y = f(x) a=" + "(" * 5000, 'y = permute(x) "' + "(" * 5000, "y = f(x) a=" + "9" * 5000],
)
def test_a_monstrous_line_is_refused(line):
    with pytest.raises(ParseError, match="line 3"):
        read(HEAD + line)
