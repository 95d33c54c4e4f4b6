"""A SafeDAG as a TorchScript module: source of one method, compiled on a tree of plain modules.

The body is written from its end: a node's source asks for the variables that it needs, so what is
folded into another line, or not needed at all, is never written.
"""

from __future__ import annotations

import keyword
import os
import re
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import torch

from safegraph import dims
from safegraph.dag import Node, SafeDAG
from safegraph.derived.base import Derived
from safegraph.errors import BindingError, OutputError, ShapeError, UnsupportedError
from safegraph.frontends.torchscript.site import Site, text
from safegraph.frontends.torchscript.state import build
from safegraph.frontends.torchscript.table_out import expression
from safegraph.frontends.torchscript.types import INPUT_TYPES
from safegraph.frontends.torchscript.unknown import FORMAT
from safegraph.op import TensorType
from safegraph.ops import Opaque
from safegraph.value import walk

aten = torch.ops.aten  # the source that is compiled here says aten.relu(x)

RESERVED = {
    "self",
    "torch",
    "aten",
    "device",
    "float",
    "int",
    "bool",
    "max",
    "getattr",
    "forward",
    "Tensor",
}


def write(dag: SafeDAG, path: str | Path | None) -> torch.jit.ScriptModule:
    """See `to_torchscript`."""
    source, module = _source(dag)
    # Files hold no shapes; ours say them, so that they are read back as they were.
    setattr(module, INPUT_TYPES, "; ".join(map(repr, (t.type for t in dag.inputs))))
    module = torch.jit.script(module)
    module.define(source)
    if path is not None:
        _save(module, Path(path))
    return module


def _save(module: torch.jit.ScriptModule, path: Path) -> None:
    """The whole file or none: written beside its place, then moved there."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        module.save(str(draft))
        os.replace(draft, path)
    except (OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise OutputError(f"{path} cannot be written: {reason}") from error
    finally:
        draft.unlink(missing_ok=True)


def _source(dag: SafeDAG) -> tuple[str, torch.nn.Module]:
    """The method's source, and the module that holds the tensors it names."""
    clash = {n: dims.size(f"{n}_") for n in dag.sizes if n in RESERVED or keyword.iskeyword(n)}
    dag = dag.bind(clash) if clash else dag
    module, places = build(dag)
    body = Function(dag, places)
    lines = body.lines()
    inputs = [body.variable(t.name) for t in dag.inputs]
    head = ", ".join(["self", *(f"{x}: Tensor" for x in inputs)])
    text_ = "\n".join([f"def forward({head}):", *(f"    {line}" for line in lines)])
    return text_ + "\n", module


class Function:
    """The body of the method."""

    def __init__(self, dag: SafeDAG, places: dict[str, str]) -> None:
        self.dag = dag
        self.places = places  # where parameters, buffers and constants are
        self.types: dict[str, TensorType] = dict(dag.types)
        self.producers: dict[str, Node] = dict(dag.nodes)
        self.variables: dict[str, str] = {}
        self.taken = {*RESERVED, *dag.sizes, *keyword.kwlist}
        self.needed: set[str] = set()
        self.fresh = count()
        self.uses_device = False
        self.problems: list[str] = []
        self.firsts: dict[Any, Node] = {}  # of calls with several results
        self.waiting: dict[Any, tuple[str, ...]] = {}  # calls, until their first node is met
        for t in dag.inputs:
            self.variable(t.name)

    # -- what rows ask for ------------------------------------------------------------------------

    def variable(self, name: str) -> str:
        """The variable of a value, which is thereby needed."""
        self.needed.add(name)
        if name in self.places:
            return self.places[name]
        if name not in self.variables:
            self.variables[name] = self._new(name)
        return self.variables[name]

    def device(self) -> str:
        """The device of the first input, or of the first tensor there is."""
        self.uses_device = True
        return "device"

    def _new(self, name: str) -> str:
        base = re.sub(r"\W", "_", name)
        base = f"v{base}" if not base or base[0].isdigit() or base.startswith("__") else base
        found, number = base, 0
        while found in self.taken:
            number += 1
            found = f"{base}_{number}"
        self.taken.add(found)
        return found

    # -- the lines --------------------------------------------------------------------------------

    def lines(self) -> list[str]:
        """All lines of the body; raises UnsupportedError with everything that cannot be written."""
        results = [self.variable(value) for value in self.dag.outputs.values()]
        back = list(self._backwards())
        if self.problems:
            raise UnsupportedError(
                f"{self.dag.name} cannot be written as TorchScript:", self.problems
            )
        back.reverse()
        result = results[0] if len(results) == 1 else f"({', '.join(results)})"
        lines = [*back, f"return {result}"]
        if self.uses_device:
            lines.insert(0, f"device = {self._device_source()}")
        return [*self._sizes(lines), *lines]

    def _backwards(self) -> Iterator[str]:
        stack = list(self.dag)
        calls = self.firsts = self._calls(stack)
        while stack:
            node = stack.pop()
            if isinstance(node.op, Opaque):
                yield from self._unknown(node, calls)
            elif node.name in self.needed:
                source = expression(node.op, Site(self, node))
                if source is None:
                    parts, same = self._defined(node)
                    stack += parts
                    source = same and self.variable(same)
                if source:
                    yield f"{self.variables[node.name]} = {source}"
            if self.waiting and calls.get(_call_key(node)) is node:
                yield from self.waiting.pop(_call_key(node), ())

    def call(self, node: Node, source: str) -> str:
        """The variable of a call whose results are several nodes; it stands before the first."""
        key = _call_key(node)
        if key not in self.firsts:
            return source
        variable = self.variable(f"{self.firsts[key].name}.call")
        self.waiting[key] = (f"{variable} = {source}",)
        return variable

    def _defined(self, node: Node) -> tuple[list[Node], str | None]:
        """The nodes of an op's definition, one level down; or the operand that it gives back."""
        if not isinstance(node.op, Derived):
            self.problems.append(f"{node.op!r} at node {node.name}")
            return [], None
        try:
            leaves, result = node.op.trace(*(self.types[i] for i in node.inputs))
        except ShapeError as error:  # a definition that needs a size to be known
            self.problems.append(f"{node.op!r} at node {node.name}: {error}")
            return [], None
        names = dict(zip(leaves, node.inputs, strict=True))
        nodes: list[Node] = []
        for value in walk([result]):
            if value.op is None:
                continue
            name = node.name if value is result else f"{node.name}.{next(self.fresh)}"
            names[value] = name
            nodes.append(Node(name, value.op, tuple(names[o] for o in value.operands), node.where))
            self.producers[name], self.types[name] = nodes[-1], value.type
        return nodes, names[result] if result.op is None else None

    # -- operations that no table knows -----------------------------------------------------------

    @staticmethod
    def _calls(nodes: Sequence[Node]) -> dict[Any, Node]:
        """The first node of each operation of several results: there the call stands, once."""
        found: dict[Any, Node] = {}
        for node in nodes:
            if _call_key(node) is not None:
                found.setdefault(_call_key(node), node)
        return found

    def _unknown(self, node: Node, calls: dict[Any, Node]) -> Iterator[str]:
        op = node.op
        assert isinstance(op, Opaque)
        if op.format != FORMAT:
            if node.name in self.needed:
                self.problems.insert(0, f"{op.kind} ({op.format}) at node {node.name}")
                for i in node.inputs:  # so that what is behind it is looked at too
                    self.variable(i)
            return
        first = calls[_call_key(node)]
        call = f"{first.name}.call"
        space, _, name = op.kind.partition("::")
        (_, overload), *arguments = op.attributes
        schema = getattr(getattr(getattr(torch.ops, space), name), overload or "default")._schema
        several = (
            len(schema.returns) > 1
            or "[]" in str(schema.returns[0].type)
            or "List" in str(schema.returns[0].type)
        )
        if node.name in self.needed:
            place = f"[{op.result}]" if several else ""
            yield f"{self.variables[node.name]} = {self.variable(call)}{place}"
        if node is first and call in self.needed:
            only = {a.name for a in schema.arguments if a.kwarg_only}
            site = Site(self, node)
            given = (
                f"{n}={_argument(a, site)}" if n in only else _argument(a, site)
                for n, a in arguments
            )
            yield f"{self.variables[call]} = torch.ops.{space}.{name}({', '.join(given)})"

    # -- the first lines --------------------------------------------------------------------------

    def _device_source(self) -> str:
        if self.dag.inputs:
            return f"{self.variables[self.dag.inputs[0].name]}.device"
        return (
            f"{next(iter(self.places.values()))}.device" if self.places else 'torch.device("cpu")'
        )

    def _sizes(self, lines: Sequence[str]) -> list[str]:
        """Each free size that the lines need, from the shape of the first input that has it."""
        used = set(re.findall(r"[A-Za-z_]\w*", "\n".join(lines)))
        found: dict[str, str] = {}
        for t in self.dag.inputs:
            for axis, d in enumerate(t.type.shape):
                found.setdefault(str(d), f"{d} = {self.variables[t.name]}.size({axis})")
        missing = [n for n in self.dag.sizes if n in used and n not in found]
        if missing:
            raise BindingError(
                f"the inputs of {self.dag.name} do not tell the free sizes "
                f"{', '.join(missing)}: bind them"
            )
        return [found[n] for n in self.dag.sizes if n in used]


def _call_key(node: Node) -> Any:
    """What the results of one call have in common; None for an op of one result."""
    op = node.op
    if isinstance(op, Opaque):
        return (op.kind, op.attributes, node.inputs)
    if "result" not in op.spec:
        return None
    return (type(op), *((k, v) for k, v in op.spec.items() if k != "result"), node.inputs)


def _argument(value: Any, site: Site) -> str:
    match value:
        case ("operand", int(i)):
            return site[i]
        case ("list", *items):
            return f"[{', '.join(_argument(i, site) for i in items)}]"
    return text(value)
