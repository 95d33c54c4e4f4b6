"""The loop of `to_onnx`: one pass over the nodes, by the table of `table_out.py`.

An op that the table lacks is expanded by its definition, one level at a time, and tried again.
Repeats, leading unsqueezes and reductions are written only when something needs them as they are:
ONNX broadcasts by itself, and its reductions can drop their axes.  Free sizes that a spec needs are
computed from the shapes of the inputs, once each.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from safegraph.dag import Node, SafeDAG, Tensor
from safegraph.derived.base import Derived
from safegraph.dims import Dim, Shape, Size
from safegraph.dtypes import is_float, to_numpy
from safegraph.errors import ShapeError, UnsupportedError
from safegraph.frontends.onnx import opaque
from safegraph.frontends.onnx.read import KIND, SCALAR, WHERE
from safegraph.frontends.onnx.table_out import TABLE
from safegraph.op import Op, TensorType
from safegraph.ops import Opaque, Reduce, Repeat, Unsqueeze
from safegraph.value import Value, walk

IR_VERSION = 10  # the first whose tensors have metadata
DEEPEST = 8  # how many values may wait for each other


class Cannot(Exception):
    """An op that neither the table nor a definition can write."""


@dataclass(eq=False)
class Slot:
    """A value of the graph, or of a definition, on its way to ONNX."""

    type: TensorType
    op: Op | None = None
    operands: tuple[Slot, ...] = ()
    uses: int = 0
    name: str = ""
    where: str = ""
    value: ir.Value | None = None
    depth: int = 0  # how many values this one waits for

    @property
    def waits(self) -> bool:
        """Is it better written by those that use it, or not at all?"""
        if self.depth >= DEEPEST:
            return False
        if isinstance(self.op, Reduce):
            return self.uses == 1
        if isinstance(self.op, Unsqueeze):
            return self.op.axes == tuple(range(len(self.op.axes)))
        return isinstance(self.op, Repeat)


class Writer:
    """What the rows of the table write to."""

    def __init__(self, dag: SafeDAG, opset: int) -> None:
        self.dag = dag
        self.opset = opset
        self.nodes: list[ir.Node] = []
        self.initializers: list[ir.Value] = []
        self.slots: dict[str, Slot] = {}
        self.names = {*dag.types, *dag.outputs}
        self.domains = {"": opset}
        self._constants: dict[tuple[Any, ...], ir.Value] = {}
        self._sizes: dict[Dim, ir.Value] = {}
        self._places: dict[str, tuple[ir.Value, int]] = {}  # a free size -> an axis that has it
        self._opaque: dict[tuple[Any, ...], Sequence[ir.Value]] = {}
        self._shared: dict[tuple[Any, ...], tuple[Sequence[Slot], Sequence[ir.Value]]] = {}

    def write(self) -> ir.Model:
        dag = self.dag
        inputs = [self._leaf(t) for t in dag.tensors.values() if t.kind == "input"]
        for t in dag.tensors.values():
            if t.kind != "input":
                self._leaf(t)
        uses = Counter(i for node in dag for i in node.inputs) + Counter(dag.outputs.values())
        problems = [
            f"output {name}: a tensor with another value has this name; rename the output"
            for name, value in dag.outputs.items()
            if name in dag.tensors and name != value
        ]
        problems += [line for node in dag for line in self._write_node(node, uses[node.name])]
        if problems:
            raise UnsupportedError(f"{dag.name} cannot be written as ONNX", problems)
        outputs = [self._output(name, self.slots[value]) for name, value in dag.outputs.items()]
        for _, results in self._shared.values():  # ONNX wants names for those that nothing uses
            for x in results:
                x.name = x.name or self.fresh("value")
        graph = ir.Graph(
            inputs,
            outputs,
            nodes=self.nodes,
            initializers=self.initializers,
            opset_imports=self.domains,
            name=dag.name,
        )
        return ir.Model(graph, ir_version=IR_VERSION, producer_name="safegraph")

    def _write_node(self, node: Node, uses: int) -> list[str]:
        slot = self._slot(
            self.dag.types[node.name], node.op, [self.slots[i] for i in node.inputs], uses
        )
        slot.name, slot.where = node.name, node.where
        if self.dag.outputs.get(node.name, node.name) != node.name:
            slot.name = self.fresh(node.name)  # the model's output of this name is another value
        self.slots[node.name] = slot
        if slot.waits and node.name not in self.dag.outputs.values():
            return []
        try:
            self.value(slot)
        except Cannot as reason:
            slot.value = self.named(ir.Value(), slot)
            return [f"{reason} at node {node.name}" + (f" ({node.where})" if node.where else "")]
        return []

    def _leaf(self, t: Tensor) -> ir.Value:
        element, shape = _onnx_type(t.type)
        value = ir.Value(name=t.name, type=element, shape=shape)
        self.slots[t.name] = Slot(t.type, name=t.name, value=value)
        if t.kind == "input":
            for axis, d in enumerate(t.type.shape):
                if isinstance(d, Size):
                    self._places.setdefault(str(d), (value, axis))
            return value
        value.const_value = _lazy(t)
        self.initializers.append(value)
        return value

    def _output(self, name: str, slot: Slot) -> ir.Value:
        value = self.value(slot)
        if value.name != name:
            value = self.node("Identity", [value])
            value.name = name
            value.type, value.shape = _onnx_type(slot.type)
        return value

    # -- slots ------------------------------------------------------------------------------------

    @staticmethod
    def _slot(type_: TensorType, op: Op, operands: Iterable[Slot], uses: int) -> Slot:
        slots = tuple(operands)
        waiting = [s.depth for s in slots if s.value is None]
        return Slot(type_, op, slots, uses, depth=1 + max(waiting, default=-1))

    def value(self, slot: Slot) -> ir.Value:
        """The ONNX value of a slot, written now if it is not yet."""
        if slot.value is None:
            first = len(self.nodes)
            slot.value = self.named(self._lower(slot), slot)
            for node in self.nodes[first:]:
                if slot.where and WHERE not in node.metadata_props:
                    node.metadata_props[WHERE] = slot.where
        return slot.value

    def named(self, value: ir.Value, slot: Slot) -> ir.Value:
        """Give a new value the name of its slot; a value that has one gets an Identity."""
        if value.name and slot.name and value.name != slot.name:
            value = self.node("Identity", [value])
        if not value.name:
            value.name = slot.name or self.fresh("value")
            value.type, value.shape = _onnx_type(slot.type)
        return value

    def _lower(self, slot: Slot) -> ir.Value:
        op = slot.op
        assert op is not None, "leaves have values"
        if isinstance(op, Opaque):
            return self._restore(slot, op)
        row = TABLE.get(type(op))
        found = row(self, slot, op, *slot.operands) if row else None
        if found is not None:
            return found
        if not isinstance(op, Derived):
            raise Cannot(f"{op!r}")
        try:
            leaves, result = op.trace(*(s.type for s in slot.operands))
        except ShapeError as error:  # a definition that needs a size to be known
            raise Cannot(f"{op!r} ({error})") from None
        return self.term(result, dict(zip(leaves, slot.operands, strict=True)))

    def term(self, result: Value, slots: dict[Value, Slot]) -> ir.Value:
        """A term over leaves that have slots."""
        order = walk([result])
        uses = Counter(o for x in order for o in x.operands)
        for x in order:
            if x in slots:
                continue
            assert x.op is not None, "all leaves have slots"
            slots[x] = slot = self._slot(x.type, x.op, [slots[o] for o in x.operands], uses[x])
            if not slot.waits or x is result:
                self.value(slot)
        return self.value(slots[result])

    # -- what rows use ----------------------------------------------------------------------------

    def __call__(
        self, op: str, *operands: Slot | ir.Value | np.ndarray | None, **attributes: Any
    ) -> ir.Value:
        """A node; operands are slots, values, arrays (which become initializers) or None."""
        return self.node(op, [self._operand(x) for x in operands], **attributes)

    def node(self, op: str, operands: Sequence[ir.Value | None], **attributes: Any) -> ir.Value:
        """A node of one result, which has no name yet."""
        return self.results(op, operands, 1, **attributes)[0]

    def results(
        self, op: str, operands: Sequence[Any], count: int, **attributes: Any
    ) -> Sequence[ir.Value]:
        """A node of so many results, which have no names yet."""
        inputs = [self._operand(x) for x in operands]
        for x in inputs:
            if x is not None and not x.name:
                x.name = self.fresh("value")
        given = {k: v for k, v in attributes.items() if v is not None}
        node = ir.node(op, inputs, given, num_outputs=count)
        for out in node.outputs:
            out.name = ""
        self.nodes.append(node)
        return node.outputs

    def shared(
        self, spec: Any, operands: Sequence[Slot], make: Callable[[], Sequence[ir.Value]]
    ) -> Sequence[ir.Value]:
        """The results of a node that is made once for all ops of this spec on these operands."""
        key = (spec, tuple(map(id, operands)))
        if key not in self._shared:
            self._shared[key] = (operands, make())  # the operands too, so that no id is used again
        return self._shared[key][1]

    def _operand(self, x: Any) -> ir.Value | None:
        if isinstance(x, Slot):
            return self.value(x)
        return self.constant(x) if isinstance(x, np.ndarray | np.generic) else x

    def constant(self, array: Any, name: str = "") -> ir.Value:
        """An initializer; equal ones without a name are one."""
        array = np.asarray(array)
        key = (name, str(array.dtype), array.shape, array.tobytes())
        if key not in self._constants:
            name = name or self.fresh("constant")
            tensor = ir.tensor(array, name=name)
            value = ir.Value(
                name=name,
                const_value=tensor,
                type=ir.TensorType(tensor.dtype),
                shape=ir.Shape(array.shape),
            )
            if array.ndim:
                _mark(tensor, "const", is_float_array=array.dtype.kind not in "iub")
            else:
                tensor.metadata_props[KIND] = SCALAR
            self.initializers.append(value)
            self._constants[key] = value
        return self._constants[key]

    def number(self, value: float, dtype: str, name: str = "") -> ir.Value:
        """A constant of rank 0."""
        return self.constant(np.asarray(value, to_numpy(dtype)), name)

    def cast(self, x: Slot | ir.Value, dtype: str) -> ir.Value:
        """X as another element type."""
        return self("Cast", x, to=int(ir.DataType.from_numpy(to_numpy(dtype))))

    def fresh(self, base: str) -> str:
        """A name that nothing has yet."""
        number = len(self.names)
        while f"{base}_{number}" in self.names:
            number += 1
        self.names.add(f"{base}_{number}")
        return f"{base}_{number}"

    # -- sizes ------------------------------------------------------------------------------------

    def vector(self, sizes: Sequence[Dim]) -> ir.Value:
        """Sizes as an i64 tensor of rank 1."""
        if all(isinstance(d, int) for d in sizes):
            return self.constant(np.asarray(sizes, np.int64))
        parts = [self.size(d) for d in sizes]
        return parts[0] if len(parts) == 1 else self("Concat", *parts, axis=0)

    def size(self, dim: Dim) -> ir.Value:
        """A size as an i64 tensor of one element, computed from the shapes of the inputs."""
        if isinstance(dim, int):
            return self.constant(np.asarray([dim], np.int64))
        if dim not in self._sizes:
            place = self._places.get(str(dim))
            if place is not None:
                self._sizes[dim] = self("Shape", place[0], start=place[1], end=place[1] + 1)
            elif str(dim).isidentifier():
                raise Cannot(f"the free size {dim} is the size of no axis of an input")
            else:
                self._sizes[dim] = self._expression(ast.parse(str(dim), mode="eval").body)
        return self._sizes[dim]

    def _expression(self, tree: ast.expr) -> ir.Value:
        from safegraph import dims

        match tree:
            case ast.Constant(value=int(number)):
                return self.size(number)
            case ast.Name(id=name):
                return self.size(dims.size(name))
            case ast.UnaryOp(op=ast.USub(), operand=inner):
                return self("Neg", self._expression(inner))
            case ast.BinOp(left=a, op=ast.Pow(), right=ast.Constant(value=int(power))):
                found = base = self._expression(a)
                for _ in range(power - 1):
                    found = self("Mul", found, base)
                return found
            case ast.BinOp(left=a, op=symbol, right=b) if type(symbol) in _SYMBOLS:
                return self(_SYMBOLS[type(symbol)], self._expression(a), self._expression(b))
            case ast.Call(func=ast.Name(id="Max"), args=parts):
                return self("Max", *map(self._expression, parts))
        raise Cannot(f"the size {ast.unparse(tree)}")

    def reshape(self, x: Slot | ir.Value, old: Shape, new: Shape) -> ir.Value:
        """The elements in another shape, with 0 and -1 in place of sizes to be computed."""
        if 0 in new:
            return self("Reshape", x, self.vector(new), allowzero=1)
        free = [i for i, d in enumerate(new) if isinstance(d, Size)]
        to = list(new)
        if len(free) > 1:
            for i in free:
                to[i] = 0 if i < len(old) and old[i] == new[i] else to[i]
            free = [i for i in free if to[i] != 0]
        if free:
            to[free[0]] = -1
        return self("Reshape", x, self.vector(to))

    def broadcast(self, slot: Slot) -> list[Slot]:
        """The operands of a pointwise op, without the repeats that ONNX's broadcasting does."""
        bare = [_bare(s) for s in slot.operands]
        if _broadcast_shape([s.type.shape for s in bare]) == slot.type.shape:
            return bare
        return [slot.operands[0], *bare[1:]]  # the first has the full shape

    # -- ops of other formats and unknown ones ----------------------------------------------------

    def _restore(self, slot: Slot, op: Opaque) -> ir.Value:
        if op.format != "onnx":
            raise Cannot(f"{op.kind} ({op.format})")
        key = (op.kind, op.attributes, tuple(map(id, slot.operands)))
        if key not in self._opaque:
            self._opaque[key] = self._nodes_of(slot, op)
        value = self._opaque[key][op.result]
        for axis, d in enumerate(slot.type.shape):
            if isinstance(d, Size):
                self._places.setdefault(str(d), (value, axis))
        return value

    def _nodes_of(self, slot: Slot, op: Opaque) -> Sequence[ir.Value]:
        domain, op_type, attributes, own = opaque.restore(op)
        operands = iter(slot.operands)
        inputs = [self.value(next(operands)) if given else None for given in own[opaque.GIVEN]]
        version, count = own[opaque.VERSION], own[opaque.RESULTS]
        node = ir.Node(domain, op_type, inputs, list(attributes.values()), num_outputs=count)
        if domain:
            self.domains[domain] = version
        elif not opaque.same_op(op_type, version, self.opset):
            return self._converted(node, [s.type for s in slot.operands], version)
        self.nodes.append(node)
        for out in node.outputs:
            out.name = ""  # those that nothing uses
        return node.outputs

    def _converted(
        self, node: ir.Node, types: Sequence[TensorType], version: int
    ) -> Sequence[ir.Value]:
        """A node of another opset, as nodes of this one."""
        graph = opaque.convert(node, [_onnx_type(t) for t in types], version, self.opset)
        if graph is None:
            raise Cannot(f"{node.op_type} of opset {version}, which differs in opset {self.opset}")
        known = dict(
            zip(
                (v.name for v in graph.inputs),
                (x for x in node.inputs if x is not None),
                strict=True,
            )
        )
        for value in graph.initializers.values():
            known[value.name] = self.constant(value.const_value.numpy())  # type: ignore[union-attr]
        results: list[ir.Value] = []
        for old in graph:
            inputs = [None if x is None else known[x.name] for x in old.inputs]
            new = ir.Node(
                "", old.op_type, inputs, list(old.attributes.values()), num_outputs=len(old.outputs)
            )
            self.nodes.append(new)
            known.update({o.name: v for o, v in zip(old.outputs, new.outputs, strict=True)})
        for out in graph.outputs:
            results.append(known[out.name])
        inner = [
            v for n in graph for v in n.outputs if v.name not in {o.name for o in graph.outputs}
        ]
        for value in inner:
            known[value.name].name = self.fresh("value")
        return results


_SYMBOLS: dict[type, str] = {ast.Add: "Add", ast.Sub: "Sub", ast.Mult: "Mul", ast.FloorDiv: "Div"}


def _bare(slot: Slot) -> Slot:
    """A slot without repeats and leading unsqueezes that nothing else needed so far."""
    while isinstance(slot.op, Repeat) or (isinstance(slot.op, Unsqueeze) and slot.waits):
        slot = slot.operands[0]
    return slot


def _broadcast_shape(shapes: Sequence[Shape]) -> Shape:
    rank = max(map(len, shapes))
    found = []
    for i in range(-rank, 0):
        sizes = [s[i] for s in shapes if len(s) >= -i and s[i] != 1]
        found.append(sizes[0] if sizes else 1)
    return tuple(found)


def _onnx_type(type_: TensorType) -> tuple[ir.TensorType, ir.Shape]:
    element = ir.TensorType(ir.DataType.from_numpy(to_numpy(type_.dtype)))
    return element, ir.Shape([d if isinstance(d, int) else str(d) for d in type_.shape])


def _lazy(t: Tensor) -> ir.LazyTensor:
    element, shape = _onnx_type(t.type)
    found = ir.LazyTensor(
        lambda: ir.tensor(t.array()), dtype=element.dtype, shape=shape, name=t.name
    )
    _mark(found, t.kind, is_float_array=is_float(t.type.dtype))
    return found


def _mark(tensor: Any, kind: str, *, is_float_array: bool) -> None:
    """Say the kind of a tensor where a reader would take it for another."""
    if kind != ("parameter" if is_float_array else "const"):
        tensor.metadata_props[KIND] = kind
