"""The text form of a graph: one line for each tensor, node and output; what is printed reads back.

    graph mlp
      assume batch % 2 == 0
      input x: f32[batch 3]
      parameter w: f32[3 8]
      h: f32[batch 8] = matmul(x, w) @ layer1
      y: f32[batch 8] = exp(h)
      output y

`safegraph.notation` has the grammar of a line.  The type of a node may be left out when a text is
written by hand; where it stands it must be the type that the op gives.  Everything after `#` is a
comment.  The data of tensors is not part of the text, but for constants of a few numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from safegraph.dag import KINDS, Node, SafeDAG, Tensor
from safegraph.dtypes import is_float, is_integer, to_numpy
from safegraph.errors import ParseError, SafeGraphError
from safegraph.notation import Cursor, quote, write_value
from safegraph.op import TensorType
from safegraph.patterns import read_op, write_op

_SMALL = 16  # constants of up to this many elements are written with their values


def write(dag: SafeDAG) -> str:
    """The text form; `read` gives an equal graph."""
    lines = [f"graph {quote(dag.name)}"]
    lines += [f"  assume {text}" for text in dag.assumptions]
    lines += [f"  {t.kind} {quote(t.name)}: {t.type}{_data(t)}" for t in dag.tensors.values()]
    for node in dag:
        where = f" @ {quote(node.where)}" if node.where else ""
        lines.append(f"  {write_node(node, dag.types)}{where}")
    for name, value in dag.outputs.items():
        lines.append(f"  output {quote(name)}" + (f" = {quote(value)}" if value != name else ""))
    return "\n".join(lines) + "\n"


def write_node(node: Node, types: Mapping[str, TensorType]) -> str:
    """The line of a node, without its place in the source; `types` are those of all names in it."""
    head, spec = write_op(node.op, tuple(types[i] for i in node.inputs))
    operands = ", ".join(map(quote, node.inputs))
    line = f"{quote(node.name)}: {types[node.name]} = {head}({operands})"
    return f"{line} {spec}" if spec else line


def _data(tensor: Tensor) -> str:
    data, dtype = tensor.data, tensor.type.dtype
    plain = is_float(dtype) or is_integer(dtype) or dtype == "bool"
    if (
        tensor.kind != "const"
        or not isinstance(data, np.ndarray)
        or data.size > _SMALL
        or not plain
    ):
        return ""
    convert = _shortest if is_float(dtype) else bool if dtype == "bool" else int
    values = tuple(map(convert, data.ravel()))
    return f" = {write_value(values if data.ndim else values[0])}"


def _shortest(value: Any) -> float:
    """The Python number of fewest digits that is this number in its own element type."""
    short = float(str(value))
    return short if type(value)(short) == value else float(value)


def read(text: str) -> SafeDAG:
    """The graph of a text form.

    Raises ParseError with every line that cannot be read and what was expected there, GraphError
    where the lines can be read but are no graph.
    """
    reader = _Reader()
    for number, line in enumerate(text.split("\n"), 1):
        try:
            reader.line(number, line.rstrip("\r"))
        except RecursionError:
            reader.problems.append(f"line {number}: brackets are nested too deep")
        except SafeGraphError as error:
            reader.problems.append(f"line {number}: {error}: {line.strip()}")
    if reader.name is None and not reader.problems:
        reader.problems.append("line 1: expected 'graph' and a name, found nothing")
    reader.complain()
    dag = SafeDAG(reader.tensors, reader.nodes, reader.outputs, name=str(reader.name))
    reader.compare(dag)
    return dag


class _Reader:
    """What has been read of a text so far."""

    def __init__(self) -> None:
        self.name: str | None = None
        self.tensors: list[Tensor] = []
        self.nodes: list[Node] = []
        self.outputs: dict[str, str] = {}
        self.declared: list[tuple[int, str, TensorType]] = []  # types of nodes, with their lines
        self.assumed: list[tuple[int, str]] = []
        self.problems: list[str] = []

    def line(self, number: int, line: str) -> None:
        if line.lstrip().startswith(
            "assume "
        ):  # the rest is an equation of sizes, not of this grammar
            self.assumed.append((number, line.partition("#")[0].strip().removeprefix("assume ")))
            return
        cursor = Cursor(line)
        if cursor.kind == "end":
            return
        keyword = cursor.token if cursor.kind == "name" else ""
        first = cursor.name("a name, or one of graph, assume, output, " + ", ".join(KINDS))
        if cursor.kind == "sign":
            self._node(number, first, cursor)
        elif keyword == "graph":
            if self.name is not None:
                raise ParseError(f"expected one graph, found a second after {self.name}")
            self.name = cursor.name("the name of the graph")
        elif keyword == "output":
            name = cursor.name("the name of an output")
            if name in self.outputs:
                raise ParseError(f"the output {name} is there twice")
            self.outputs[name] = cursor.name("the name of its value") if cursor.skip("=") else name
        elif keyword in KINDS:
            self._tensor(keyword, cursor)
        else:
            raise cursor.refuse(f"':' or '=' after {first}")
        if cursor.kind != "end":
            raise cursor.refuse("the end of the line")

    def _tensor(self, kind: str, cursor: Cursor) -> None:
        name = cursor.name(f"the name of the {kind}")
        cursor.sign(":", "and a type after the name")
        found = _type(cursor)
        data = None
        if cursor.skip("="):
            values: Any = cursor.value()
            try:
                data = np.array(values, to_numpy(found.dtype)).reshape(found.shape)
            except (TypeError, ValueError, OverflowError, SafeGraphError) as error:
                raise ParseError(f"{values!r} are no values of {found}: {error}") from None
        self.tensors.append(Tensor(name, kind, found, data))

    def _node(self, number: int, name: str, cursor: Cursor) -> None:
        if cursor.skip(":"):
            self.declared.append((number, name, _type(cursor)))
        cursor.sign("=", "and an op after the name and type")
        head = cursor.name("the name of an op")
        cursor.sign("(", f"and the operands after {head}")
        inputs = []
        while not cursor.skip(")"):
            inputs.append(cursor.name("the name of an operand, or ')'"))
            if not cursor.skip(","):
                cursor.sign(")", "or ',' after an operand")
                break
        pattern = cursor.name("a pattern") if cursor.kind == "text" else None
        given: dict[str, Any] = {}
        while cursor.kind == "name":
            field = cursor.name("a field")
            cursor.sign("=", f"and a value after {field}")
            if field in given:
                raise ParseError(f"the field {field} is there twice")
            given[field] = cursor.value()
        where = cursor.name("a place in the source") if cursor.skip("@") else ""
        self.nodes.append(Node(name, read_op(head, pattern, given), tuple(inputs), where))

    def compare(self, dag: SafeDAG) -> None:
        """Raise ParseError where types or assumptions are not those that the ops give."""
        for number, name, wanted in self.declared:
            if dag.types[name] is not wanted:
                self.problems.append(f"line {number}: {name} is {dag.types[name]}, not {wanted}")
        for number, text in self.assumed:
            if text not in dag.assumptions:
                found = ", ".join(dag.assumptions) or "nothing"
                self.problems.append(
                    f"line {number}: no op needs {text}; the graph assumes {found}"
                )
        self.complain()

    def complain(self) -> None:
        """Raise ParseError with the problems that were found, if there are any."""
        if self.problems:
            raise ParseError(f"the text of {self.name or 'a graph'} cannot be read", self.problems)


def _type(cursor: Cursor) -> TensorType:
    if cursor.kind != "type":
        raise cursor.refuse("a type such as f32[batch 3 2*h]")
    found = cursor.value()
    assert isinstance(found, TensorType), "the token is a type"
    to_numpy(found.dtype)
    return found
