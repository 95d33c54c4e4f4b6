"""From ONNX: one pass over the nodes, by the table of `table_in.py`.

Initializers become `parameter` (floating point) or `const` (others), Constant nodes `const`, unless
the file says otherwise (`safegraph.kind` in a tensor's metadata, which `to_onnx` writes, or what
torch's exporter notes of its parameters and buffers); constants of rank 0 become `Scalar`.
What the model computes from shapes is folded into sizes (`known.py`).  Data stays where it is until
it is asked for.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from safegraph import dims
from safegraph.dag import Node, SafeDAG, Tensor
from safegraph.derived.shape import Concat
from safegraph.dims import Dim
from safegraph.dtypes import is_float
from safegraph.errors import FormatError, ParseError, SafeGraphError, UnsupportedError
from safegraph.frontends.onnx.call import Call, Unsayable, dtype_name
from safegraph.frontends.onnx.inference import infer, shape_of
from safegraph.frontends.onnx.known import LIMIT, Known, fold, known
from safegraph.frontends.onnx.opaque import kind_of, opaque
from safegraph.frontends.onnx.pointwise_in import BY_CHANNEL
from safegraph.frontends.onnx.table_in import TABLE
from safegraph.op import TensorType
from safegraph.value import Value, apply, scalar, tensor, unsqueeze, walk

KIND, WHERE = "safegraph.kind", "safegraph.where"
SCALAR = "scalar"  # the kind of a tensor that is a number of the graph, no tensor
OLDEST = 7  # before, broadcasting was an attribute; such models are converted first
TORCH_KIND = "pkg.torch.export.graph_signature.InputSpec.kind"
TORCH_KINDS = {"PARAMETER": "parameter", "BUFFER": "buffer", "CONSTANT_TENSOR": "const"}
SCOPES = ("namespace", "pkg.torch.onnx.name_scopes")


def from_onnx(source: str | Path | onnx.ModelProto | ir.Model) -> SafeDAG:
    """The graph of an ONNX model: a path, a ModelProto or an onnx_ir.Model (none is changed).

    Free sizes have the names of the model (`dim_param`); an axis of an input without a name is
    `<input>_<axis>`.  Raises FormatError for what is no ONNX model, and UnsupportedError with all
    nodes that branch or loop, or hold what is no tensor.
    """
    model = _load(source)
    problems = _refused(model.graph)
    if problems:
        raise UnsupportedError("this model is more than one graph of tensors", problems)
    return _Reader(model).read()


def _load(source: Any) -> ir.Model:
    if isinstance(source, ir.Model):
        model = ir.from_proto(ir.to_proto(source)) if _must_change(source) else source
    elif isinstance(source, onnx.ModelProto):
        model = ir.from_proto(source)
    elif isinstance(source, str | Path):
        model = _open(Path(source))
    else:
        raise FormatError(
            f"from_onnx takes a path, a ModelProto or an onnx_ir.Model, not {type(source).__name__}"
        )
    if model.functions:
        from onnx_ir.passes.common import InlinePass

        InlinePass()(model)
    opset = model.graph.opset_imports.get("", OLDEST)
    if 0 < opset < OLDEST:
        model = ir.from_proto(onnx.version_converter.convert_version(ir.to_proto(model), 13))
        for node in model.graph:
            if node.op_type == "PRelu" and opset < 7:  # the converter does not know of this change
                node.attributes[BY_CHANNEL] = ir.AttrInt64(BY_CHANNEL, 1)
    return model


def _must_change(model: ir.Model) -> bool:
    return bool(model.functions)


def _open(path: Path) -> ir.Model:
    if not path.is_file():
        raise FormatError(f"{path}: there is no such file; give the path of an .onnx file")
    advice = "it is cut short or not an ONNX file; export or download it again"
    try:
        model = ir.load(path)
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error}") from error
    except Exception as error:
        raise FormatError(f"{path} is no ONNX model ({type(error).__name__}): {advice}") from error
    if not model.graph.outputs or not (model.graph.opset_imports or model.ir_version):
        raise FormatError(f"{path} is no ONNX model (its graph has no outputs): {advice}")
    problems = []
    for name, value in model.graph.initializers.items():
        data = value.const_value
        if isinstance(data, ir.ExternalTensor):
            file = Path(data.path)
            need = (data.offset or 0) + (data.length or data.nbytes)
            if not file.is_file() or file.stat().st_size < need:
                problems.append(
                    f"tensor {name}: {need} bytes of {file} are needed, which is missing or shorter"
                )
    if problems:
        raise FormatError(
            f"{path}: its external data is not complete; copy it beside the model", problems
        )
    return model


def _refused(graph: ir.Graph) -> list[str]:
    """The nodes with subgraphs, and the inputs and initializers that are no tensors."""
    problems = []
    for node in graph:
        if any(
            a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
            for a in node.attributes.values()
        ):
            problems.append(
                f"{kind_of(node)} at node {node.name or node.outputs[0].name}: control flow"
            )
    for value in graph.inputs:
        if value.type is not None and not isinstance(value.type, ir.TensorType):
            problems.append(f"input {value.name}: {value.type} is no tensor")
    return problems


def parse_dim(dim: Any, fallback: str) -> Dim:
    """A size of a file: a number, a name, an expression in names; else `fallback` as a name.

    Some writers say -1 for a free size.
    """
    if isinstance(dim, int):
        return dims.size(_identifier(fallback)) if dim < 0 else dim
    text = str(getattr(dim, "value", dim) or "").strip()
    if not text or text == "?":
        return dims.size(_identifier(fallback))
    try:
        return dims.parse(text)
    except ParseError:
        return dims.size(_identifier(text))


def _identifier(text: str) -> str:
    name = re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_") or "size"
    return (
        f"_{name}"
        if name[0].isdigit() or keyword.iskeyword(name) or name in ("Max", "max")
        else name
    )


class _Reader:
    def __init__(self, model: ir.Model) -> None:
        self.graph = model.graph
        self.opsets = dict(model.graph.opset_imports)
        self.by_torch = any(
            TORCH_KIND in v.metadata_props for v in model.graph.initializers.values()
        )
        self.values: dict[str, Value] = {}  # by name in the file
        self.knowns: dict[str, Known] = {}
        self.constants: dict[str, ir.TensorProtocol] = {}
        self.tensors: dict[str, Tensor] = {}
        self.nodes: list[Node] = []
        self.pending: set[str] = set()  # known values that are no node or tensor yet
        self.problems: list[str] = []
        self.names = {v.name for v in (*self.graph.inputs, *self.graph.initializers.values())}
        self.names |= {v.name for node in self.graph for v in node.outputs}

    def read(self) -> SafeDAG:
        with dims.assuming():
            for value in self.graph.inputs:
                if value.name not in self.graph.initializers:
                    self.add_input(value)
            for name, value in self.graph.initializers.items():
                self.add_constant(name, value.const_value, initializer=True)
            if self.problems:
                raise UnsupportedError(
                    "this model holds what SafeGraph has no element type for", self.problems
                )
            for node in self.graph:
                self.add_node(node)
            outputs = {}
            for out in self.graph.outputs:
                found = self.value(out.name, "an output of the model")
                self.demand([found])
                outputs[out.name or ""] = found.name
        dag = SafeDAG(
            list(self.tensors.values()),
            self.nodes,
            outputs,
            name=_identifier(self.graph.name or "graph"),
        )
        return dag.prune()

    # -- leaves -----------------------------------------------------------------------------------

    def add_input(self, value: ir.Value) -> None:
        if value.dtype is None or value.shape is None:
            raise FormatError(
                f"input {value.name} has no element type or shape; run shape inference on the file"
            )
        shape = tuple(parse_dim(d, f"{value.name}_{i}") for i, d in enumerate(value.shape))
        try:
            type_ = TensorType(dtype_name(value.dtype), shape)
        except UnsupportedError as error:
            self.problems.append(f"input {value.name}: {error}")
            return
        name = value.name or ""
        self.tensors[name] = Tensor(name, "input", type_)
        self.values[name] = tensor(name, type_)

    def add_constant(self, name: str, data: Any, *, initializer: bool) -> None:
        """An initializer or the result of a Constant node, from its ONNX tensor."""
        if data is None:
            raise FormatError(f"initializer {name} has no data")
        try:
            dtype = dtype_name(data.dtype)
        except UnsupportedError as error:
            self.problems.append(f"tensor {name}: {error}")
            return
        type_ = TensorType(dtype, tuple(int(d) for d in data.shape))
        kind = self.kind_of(name, data, "parameter" if initializer and is_float(dtype) else "const")
        self.values[name] = tensor(name, type_)
        self.constants[name] = data
        small = data.size <= LIMIT and not is_float(dtype) and dtype[0] != "c"
        number = kind == SCALAR or (not initializer and not type_.shape)
        if small or number or (not initializer and data.size == 1):
            self.knowns[name] = known(data.numpy(), dtype)
        if number:
            self.pending.add(name)  # a number: a Scalar where it is used
        else:
            self.tensors[name] = Tensor(name, kind, type_, data.numpy)

    def kind_of(self, name: str, data: Any, usual: str) -> str:
        """The kind of a constant, as the file says it (we do, and so does torch's exporter)."""
        if KIND in data.metadata_props:
            return data.metadata_props[KIND]
        value = self.graph.initializers.get(name)
        if value is None or not self.by_torch:
            return usual
        said = TORCH_KINDS.get(value.metadata_props.get(TORCH_KIND, ""))
        # torch names the kinds of the model's own tensors: a number without one is the exporter's
        return said or (usual if len(data.shape) else SCALAR)

    def value(self, name: str | None, where: str) -> Value:
        if name is None or name not in self.values:
            raise FormatError(f"{where}: the value {name!r} is not computed before it is used")
        return self.values[name]

    def demand(self, leaves: Iterable[Value]) -> None:
        """Make nodes or tensors of the known values among these leaves."""
        for leaf in leaves:
            if leaf.name not in self.pending:
                continue
            self.pending.discard(leaf.name)
            found = self.knowns[leaf.name]
            if found.is_number and found.values.ndim:
                self.tensors[leaf.name] = Tensor(leaf.name, "const", leaf.type, found.array())
            elif found.values.ndim == 0:
                self.emit(leaf.name, scalar(found.values.item(), found.dtype), "")
            else:
                parts = [unsqueeze(scalar(x, found.dtype), [0]) for x in found.values.flat]
                flat = apply(Concat(0), *parts) if len(parts) > 1 else parts[0]
                shaped = _reshaped(flat, found.values.shape)
                self.emit(leaf.name, shaped, "")

    # -- nodes ------------------------------------------------------------------------------------

    def add_node(self, node: ir.Node) -> None:
        where = self.where(node)
        at = f"{kind_of(node)} at node {where or node.outputs[0].name}"
        version = node.version or self.opsets.get(node.domain, 1)
        if node.op_type == "Constant" and not node.domain:
            self.add_constant(node.outputs[0].name or "", _constant(node, at), initializer=False)
            return
        operands = [None if x is None else self.value(x.name, at) for x in node.inputs]
        while operands and operands[-1] is None:
            operands.pop()
        used = [bool(v.name) and (bool(v.uses()) or v.is_graph_output()) for v in node.outputs]
        call = Call(node, version, operands, self.knowns, self.constants, used)
        try:
            results = self.results(call)
        except Unsayable:
            results = None
        except UnsupportedError:
            raise
        except SafeGraphError as error:
            raise FormatError(f"{at}: {error}") from error
        if results is None:
            results = self.opaque(call, at)
        done: dict[Value, str] = {}
        for out, result in zip(node.outputs, results, strict=False):
            if out.name and result is not None:
                self.bind(out.name, result, where, done)

    def results(self, call: Call) -> Sequence[Value | None] | None:
        """The results of a node by the table, or None where no table knows it."""
        if call.domain not in ("", "ai.onnx"):
            return None
        folded = fold(call)
        if folded is not None and call.op not in ("Range",):
            for out, found in zip(call.node.outputs, folded, strict=True):
                type_ = TensorType(found.dtype, tuple(found.values.shape))
                self.knowns[out.name or ""] = found
                self.values[out.name or ""] = tensor(out.name or "", type_)
                self.pending.add(out.name or "")
            return []
        row = TABLE.get(call.op)
        if row is None:
            return None
        result = row(call, *call.operands)
        results = result if isinstance(result, tuple) else (result,)
        if any(call.used[len(results) :]) or call.overlooked():
            return None
        if folded is not None:
            self.knowns[call.node.outputs[0].name or ""] = folded[0]
        return results

    def bind(self, name: str, result: Value, where: str, done: dict[Value, str]) -> None:
        if result.op is None:
            self.values[name] = result  # the node does nothing: another name for its operand
            if result.name in self.knowns:
                self.knowns[name] = self.knowns[result.name]
            if result.name in self.constants:
                self.constants[name] = self.constants[result.name]
        elif result in done:
            self.values[name] = tensor(done[result], result.type)
        else:
            self.emit(name, result, where, done)
            self.values[name] = tensor(name, result.type)

    def emit(
        self, name: str, result: Value, where: str, done: dict[Value, str] | None = None
    ) -> None:
        """A term as nodes, the last one with this name; those in `done` have names already."""
        order = walk([result])
        self.demand(x for x in order if x.op is None)
        names = {} if done is None else done
        for x in order:
            if x in names:
                continue
            if x.op is None:
                names[x] = x.name
                continue
            names[x] = name if x is result else self.fresh(name)
            self.nodes.append(Node(names[x], x.op, tuple(names[o] for o in x.operands), where))

    def fresh(self, base: str) -> str:
        number = 1
        while f"{base}.{number}" in self.names:
            number += 1
        self.names.add(f"{base}.{number}")
        return f"{base}.{number}"

    @staticmethod
    def where(node: ir.Node) -> str:
        """The place of a node in the source: its scope, as the exporter says, or its name."""
        if WHERE in node.metadata_props:
            return node.metadata_props[WHERE]
        scopes = [node.metadata_props[key] for key in SCOPES if key in node.metadata_props]
        return " ".join(filter(None, (node.name, *scopes[:1])))

    # -- ops that no table knows ------------------------------------------------------------------

    def opaque(self, call: Call, at: str) -> list[Value | None]:
        given = [x for x in call.operands if x is not None]
        types = infer(call, self.knowns)
        found: list[Value | None] = []
        for i, (out, used) in enumerate(zip(call.node.outputs, call.used, strict=True)):
            type_ = self.type_of(out, types.get(out.name or ""), at) if used else None
            op = None if type_ is None else opaque(call.node, call.version, i, type_)
            found.append(None if op is None else apply(op, *given))
        return found

    def type_of(self, out: ir.Value, inferred: onnx.TypeProto | None, at: str) -> TensorType:
        """The type of a result, by inference from its operands, else as the file has it."""
        guess: Any = None if inferred is None else ir.from_proto(inferred)
        shapes = [s for s in (shape_of(inferred), out.shape) if s is not None]
        dtype = out.dtype or (
            guess.type.dtype if guess is not None and guess.type is not None else None
        )
        if (out.type is not None and not isinstance(out.type, ir.TensorType)) or (
            inferred is not None and not inferred.HasField("tensor_type")
        ):
            raise UnsupportedError(f"{at}: its result {out.name} is no tensor")
        if not shapes or dtype is None:
            raise FormatError(
                f"{at}: no table knows this op, and the file does not say the shape of its result "
                f"{out.name}; run the shape inference of the op's provider on the file, or name "
                "the shape in value_info"
            )
        shape = []
        for i, candidates in enumerate(zip(*shapes, strict=False)):
            known_ = [
                d
                for d in candidates
                if (d >= 0 if isinstance(d, int) else str(getattr(d, "value", d) or ""))
            ]
            shape.append(parse_dim(known_[0] if known_ else None, f"{out.name}_{i}"))
        return TensorType(dtype_name(dtype), tuple(shape))


def _reshaped(flat: Value, shape: tuple[int, ...]) -> Value:
    from safegraph.derived.shape import Reshape

    return flat if len(shape) == 1 else apply(Reshape(shape), flat)


def _constant(node: ir.Node, at: str) -> Any:
    """The tensor of a Constant node, whichever attribute holds it."""
    (attribute,) = node.attributes.values()
    match attribute.name:
        case "value":
            return attribute.value
        case "value_float" | "value_floats":
            return ir.tensor(np.asarray(attribute.value, np.float32))
        case "value_int" | "value_ints":
            return ir.tensor(np.asarray(attribute.value, np.int64))
    raise UnsupportedError(f"{at}: a constant of {attribute.name} is no tensor of numbers")
