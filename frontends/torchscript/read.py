"""A TorchScript graph as a SafeDAG: one walk over the nodes, with the table of `table_in`.

What is computed from sizes is folded on the way: the environment maps each value of the graph to a
`Value` of the SafeDAG, or to a number, a size, a text, None, a list, or a part of the module.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import count
from pathlib import Path
from typing import Any

import torch

from safegraph.dag import Node, SafeDAG, Tensor
from safegraph.dims import Size, assuming
from safegraph.errors import FormatError, SafeGraphError, ShapeError, UnsupportedError
from safegraph.frontends.torchscript import sizes
from safegraph.frontends.torchscript.table_in import TABLE
from safegraph.frontends.torchscript.types import INPUT_TYPES, to_array, type_of
from safegraph.frontends.torchscript.unknown import carry, constant
from safegraph.frontends.torchscript.views import View, view
from safegraph.op import TensorType
from safegraph.ops import Scalar
from safegraph.value import Value, cast, expand, parse_type, scalar, tensor, walk

SKIPPED = {"aten::warn", "prim::Print"}


@dataclass(frozen=True)
class Part:
    """The module or one of its submodules, and its path in the state dict."""

    path: str
    module: Any


class _Refused:
    """Stands for what a refused node would give, so that the walk finds the other ones too."""


REFUSED = _Refused()


def read(
    source: str | Path | torch.jit.ScriptModule | torch.jit.ScriptFunction, inputs: Any
) -> SafeDAG:
    """See `from_torchscript`."""
    from safegraph.frontends.torchscript.infer import infer

    module = _load(source) if isinstance(source, str | Path) else source
    if not isinstance(module, torch.jit.ScriptModule | torch.jit.ScriptFunction):
        hint = (
            ": trace it first, torch.jit.trace(model, example)"
            if isinstance(module, torch.nn.Module)
            else ""
        )
        raise FormatError(
            f"expected a TorchScript module or the path of one, not {type(module).__name__}{hint}"
        )
    graph: Any = module.inlined_graph
    given = list(graph.inputs())[isinstance(module, torch.jit.ScriptModule) :]
    if inputs is None:
        inputs = _written(module)
    types = _types_of(inputs, given) if inputs is not None else [_recorded(v) for v in given]
    defaults = _defaults(module, len(given))
    if all(t is not None or has for t, (has, _) in zip(types, defaults, strict=True)):
        return Reader(module, graph).run(types, defaults)
    return infer(module, graph, given, types, defaults)


def _load(path: str | Path) -> torch.jit.ScriptModule:
    if not Path(path).is_file():
        raise FormatError(f"there is no file {path}")
    try:
        return torch.jit.load(str(path), map_location="cpu")
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise FormatError(
            f"{path} is not a whole TorchScript file (torch.jit.save writes those): {reason}"
        ) from error


def _types_of(inputs: Any, given: Sequence[Any]) -> list[TensorType | None]:
    """The types that the caller gave, as tensors or text; None for what is left out at the end."""
    items = [inputs] if isinstance(inputs, torch.Tensor | str | TensorType) else list(inputs)
    if len(items) > len(given):
        names = ", ".join(v.debugName() for v in given)
        raise FormatError(
            f"the module has {len(given)} inputs ({names}), {len(items)} were given in inputs="
        )
    found: list[TensorType | None] = []
    for item in items:
        match item:
            case torch.Tensor():
                found.append(type_of(item))
            case str():
                found.append(parse_type(item))
            case TensorType():
                found.append(item)
            case _:
                kind = type(item).__name__
                raise FormatError(
                    f"inputs= has a {kind}; give tensors, or types as text: f32[batch 3 224 224]"
                )
    return found + [None] * (len(given) - len(found))


def _written(module: Any) -> list[str] | None:
    """The types of the inputs that our writer noted in a module."""
    noted = getattr(module, INPUT_TYPES, None)
    return [part for part in noted.split("; ") if part] if isinstance(noted, str) else None


def _recorded(value: Any) -> TensorType | None:
    """The type that a trace has recorded for an input."""
    kind = value.type()
    if not isinstance(kind, torch._C.TensorType) or not value.isCompleteTensor():
        return None
    return type_of(torch.empty(kind.sizes() or [], dtype=kind.dtype(), device="meta"))


def _defaults(module: Any, number: int) -> list[tuple[bool, Any]]:
    """For each input whether it has a default value, and which."""
    function: Any = module if isinstance(module, torch.jit.ScriptFunction) else module.forward
    arguments = function.schema.arguments[-number:] if number else []
    return [(a.has_default_value(), a.default_value) for a in arguments]


@cache
def parsed(schema: str) -> Any:
    """A node's schema: its arguments and results with names, types and aliasing."""
    return torch._C.parse_schema(schema)


class Reader:
    """One walk over a graph."""

    def __init__(self, module: Any, graph: Any) -> None:
        self.module = module
        self.graph = graph
        self.values: dict[str, Any] = {}  # by the name of the graph's value
        self.definitions: dict[str, Any] = {}
        self.storage: dict[str, frozenset[int]] = {}  # which memory a value of the graph may share
        self.sharing: dict[int, list[str]] = {}
        self.views: dict[str, View] = {}  # slices, by the name of the graph's value
        self.apart: dict[str, list[frozenset[int]]] = {}  # lists of tensors that share no memory
        self.fresh = count()
        self.loops = 0
        self.nodes: list[Node] = []
        self.tensors: dict[str, Tensor] = {}
        self.names: dict[str, int] = {}
        self.problems: list[str] = []
        self.handlers: dict[str, Callable[[Any], None]] = {
            "prim::Constant": self._constant,
            "prim::GetAttr": self._attribute,
            "prim::If": self._branch,
            "prim::Loop": self._loop,
            "prim::SetAttr": partial(self._refuse, "it changes the state of the module"),
            "prim::RaiseException": partial(
                self._refuse, "the module always raises an exception here"
            ),
            "prim::CallMethod": partial(self._refuse, "a call that cannot be inlined"),
            "prim::CallFunction": partial(self._refuse, "a call that cannot be inlined"),
        }

    # -- the walk ---------------------------------------------------------------------------------

    def run(
        self, types: Sequence[TensorType | None], defaults: Sequence[tuple[bool, Any]]
    ) -> SafeDAG:
        """The graph for inputs of these types (None: the default value)."""
        given = list(self.graph.inputs())
        if isinstance(self.module, torch.jit.ScriptModule):
            self._bind(given.pop(0), Part("", self.module))
        for value, found, (_, default) in zip(given, types, defaults, strict=True):
            if found is None:
                self._bind(value, default)
                continue
            name = self._name(re.sub(r"\W", "_", re.sub(r"\.\d+$", "", value.debugName())))
            self.tensors[name] = Tensor(name, "input", found)
            self._bind(value, tensor(name, found))
        self._state()
        with assuming() as assumptions:
            self._block(self.graph)
        if self.problems:
            raise UnsupportedError(
                f"{len(self.problems)} parts of the module are no graph of tensors:", self.problems
            )
        outputs = dict(self._outputs())
        dag = SafeDAG(
            list(self.tensors.values()), self.nodes, outputs, name=_graph_name(self.module)
        )
        dag.assumptions.update(assumptions)  # also what sizes were folded with
        return dag

    def _state(self) -> None:
        """All parameters and buffers, used or not: the state dict comes back whole."""
        if not isinstance(self.module, torch.jit.ScriptModule):
            return
        parameters = dict(self.module.named_parameters(remove_duplicate=False))
        buffers = dict(self.module.named_buffers(remove_duplicate=False))
        order = dict.fromkeys([*self.module.state_dict(), *parameters, *buffers])
        for path in order:
            kind = "parameter" if path in parameters else "buffer"
            self._leaf(path, kind, parameters[path] if path in parameters else buffers[path])

    def _leaf(self, path: str, kind: str, data: torch.Tensor) -> Value:
        if path not in self.tensors:
            self.names.setdefault(path, 1)
            self.tensors[path] = Tensor(path, kind, type_of(data), partial(to_array, data))
        return tensor(path, self.tensors[path].type)

    def _block(self, block: Any) -> None:
        for node in block.nodes():
            kind = node.kind()
            if kind in SKIPPED:
                continue
            if any(_contains(self.values[v.debugName()], REFUSED) for v in node.inputs()):
                self._bind_all(node, [REFUSED] * node.outputsSize())
                continue
            handler = self.handlers.get(kind, self._operation)
            try:
                handler(node)
            except UnsupportedError as error:
                self._refuse(str(error), node)
            except SafeGraphError as error:
                raise type(error)(f"{kind} ({_place(node)}): {error}") from error
            except (IndexError, ValueError) as error:  # a row was given fewer axes than it expects
                raise ShapeError(
                    f"{kind} ({_place(node)}) does not fit its operands: {error}"
                ) from error

    def _bind(self, value: Any, found: Any, storage: frozenset[int] | None = None) -> None:
        name = value.debugName()
        self.values[name], self.definitions[name] = found, value
        if _contains_values(found):
            self.storage[name] = storage or frozenset([next(self.fresh)])
            for i in self.storage[name]:
                self.sharing.setdefault(i, []).append(name)

    def _bind_all(
        self, node: Any, found: Sequence[Any], storage: frozenset[int] | None = None
    ) -> None:
        for value, one in zip(node.outputs(), found, strict=True):
            self._bind(value, one, storage)

    def _arguments(self, node: Any) -> list[Any]:
        return [self.values[v.debugName()] for v in node.inputs()]

    def _refuse(self, reason: str, node: Any) -> None:
        self.problems.append(f"{node.kind()} ({_place(node)}): {reason}")
        self._bind_all(node, [REFUSED] * node.outputsSize())

    # -- nodes of the language --------------------------------------------------------------------

    def _constant(self, node: Any) -> None:
        found = node.output().toIValue()
        if isinstance(found, torch.Tensor):
            found = self._captured(found)
        elif isinstance(found, list | tuple):
            found = [self._captured(f) if isinstance(f, torch.Tensor) else f for f in found]
        self._bind(node.output(), found)

    def _captured(self, data: torch.Tensor) -> Value:
        """A tensor that the trace took up: a number where it has no axes, else a constant."""
        if not data.dim():
            return scalar(data.item(), type_of(data).dtype)
        return self._leaf(self._name("const_0"), "const", data)

    def _attribute(self, node: Any) -> None:
        (owner,) = self._arguments(node)
        name = node.s("name")
        path = f"{owner.path}.{name}" if owner.path else name
        found = getattr(owner.module, name)
        if isinstance(found, torch.nn.Module | torch.ScriptObject):
            found = Part(path, found)
        elif isinstance(found, torch.Tensor):
            found = self._leaf(path, "const", found)
        self._bind(node.output(), found)

    def _branch(self, node: Any) -> None:
        (condition,) = self._arguments(node)
        if isinstance(condition, Value | Size):
            raise UnsupportedError(f"control flow that depends on {_told(condition)}")
        block = list(node.blocks())[0 if condition else 1]
        self._block(block)
        self._hand_over(node.outputs(), block.outputs())

    def _loop(self, node: Any) -> None:
        """A loop whose number of rounds is known is unrolled."""
        most, proceed, *carried = node.inputs()
        (block,) = node.blocks()
        index, *inside = block.inputs()
        rounds, going = self.values[most.debugName()], self.values[proceed.debugName()]
        self._hand_over(inside, carried)
        self.loops += 1
        done = 0
        while True:
            for condition in (rounds, going):
                if isinstance(condition, Value | Size):
                    raise UnsupportedError(f"control flow that depends on {_told(condition)}")
            if done >= rounds or not going:
                break
            self._bind(index, done)
            self._block(block)
            proceed, *results = block.outputs()
            going = self.values[proceed.debugName()]
            if going is REFUSED:  # its reason is noted: no rounds more
                break
            self._hand_over(inside, results)
            done += 1
        self.loops -= 1
        self._hand_over(node.outputs(), inside)

    def _hand_over(self, targets: Any, sources: Any) -> None:
        names = [v.debugName() for v in sources]
        found = [(self.values[n], self.storage.get(n)) for n in names]
        for target, (value, storage) in zip(targets, found, strict=True):
            self._bind(target, value, storage)

    # -- operations -------------------------------------------------------------------------------

    def _operation(self, node: Any) -> None:
        kind = node.kind()
        arguments = self._arguments(node)
        shared = frozenset[int]().union(
            *(self.storage.get(v.debugName(), ()) for v in node.inputs())
        )
        if kind in sizes.STRUCTURE:
            found = sizes.STRUCTURE[kind](*arguments)
            apart = self.apart.get(next((v.debugName() for v in node.inputs()), ""))
            if kind == "prim::ListUnpack" and apart:
                for value, one, own in zip(node.outputs(), found, apart, strict=True):
                    self._bind(value, one, own)
                return
            self._bind_all(node, found if kind in sizes.UNPACKING else [found], shared)
            return
        folded = sizes.fold(kind, arguments)
        if folded is not NotImplemented:
            self._bind_all(node, [folded])
            return
        text = node.schema()
        if text == "(no schema)":
            raise UnsupportedError("this kind of node is not supported")
        schema = parsed(text)
        if any(a.alias_info is not None and a.alias_info.is_write for a in schema.arguments):
            self._in_place(node, schema, arguments)
            return
        results = self._apply(kind, node, schema, arguments)
        views = any(r.alias_info is not None for r in schema.returns)
        for value, found in zip(node.outputs(), results, strict=True):
            same = any(found is a for a in arguments)
            if kind.startswith("aten::unsafe_"):  # by its contract, the parts are used as if copied
                parts = [frozenset([next(self.fresh)]) for _ in found]
                self.apart[value.debugName()] = parts
                self._bind(value, found, frozenset[int]().union(*parts))
                continue
            self._bind(value, found, shared if views or same else None)
            source = next((v.debugName() for v in node.inputs()), "")
            seen = view(kind, source, arguments) if views and isinstance(found, Value) else None
            if seen is not None:
                self.views[value.debugName()] = seen

    def _apply(self, kind: str, node: Any, schema: Any, arguments: Sequence[Any]) -> list[Any]:
        """What the table makes of an operation; carried as unknown where no row fits."""
        names = [a.name for a in schema.arguments]
        if not any(map(_contains_values, arguments)):
            # Beside a tensor, a number in the place of one is promoted as a number.
            arguments = [
                _lifted(a) if "Tensor" in str(s.type) and "List" not in str(s.type) else a
                for a, s in zip(arguments, schema.arguments, strict=True)
            ]
        row = TABLE.get(f"{kind}.{schema.overload_name}") or TABLE.get(kind)
        found = (
            row.call(arguments, dict(zip(names, arguments, strict=True))) if row else NotImplemented
        )
        several = node.outputsSize() > 1
        if found is NotImplemented:
            made = constant(kind, schema, arguments)
            found = carry(kind, schema, arguments) if made is None else self._captured(made)
            several = several and isinstance(found, list)
        done: dict[Value, Value] = {}
        where = _scope(node)
        base = kind.partition("::")[2].strip("_")
        results = list(found) if several else [found]
        # what nothing uses is no node; a graph's results are used by it
        used = [not several or _is_used(o) for o in node.outputs()]
        return [
            self._emitted(r, base, where, done) if u else r
            for r, u in zip(results, used, strict=True)
        ]

    def _emitted(self, found: Any, base: str, where: str, done: dict[Value, Value]) -> Any:
        """The terms of a result as nodes; the result with their names for them."""
        if isinstance(found, list | tuple):
            return [self._emitted(f, base, where, done) for f in found]
        if not isinstance(found, Value) or isinstance(found.op, Scalar):
            return found
        if found.op is None or found in done:
            return done.get(found, found)
        root = self._name(base)
        for term in walk([found]):
            if term.op is not None and term not in done:
                name = root if term is found else self._name(term.op.name)
                inputs = tuple(done[o].name if o in done else o.name for o in term.operands)
                self.nodes.append(Node(name, term.op, inputs, where))
                done[term] = tensor(name, term.type)
        return done[found]

    def _name(self, base: str) -> str:
        """A name that is not taken: base, base_1, base_2, ..."""
        stem, number = base, None
        if base == "const_0":
            stem, number = "const", self.names.get("const", 0)
        while True:
            number = self.names.get(stem, 0) if number is None else number
            self.names[stem] = number + 1
            found = f"{stem}_{number}" if number or base == "const_0" else stem
            if found not in self.tensors and (found == stem or found not in self.names):
                self.names.setdefault(found, 1)
                return found
            number = None

    # -- operations that write to their operand ---------------------------------------------------

    def _in_place(self, node: Any, schema: Any, arguments: Sequence[Any]) -> None:
        kind = node.kind()
        target = arguments[0]
        plain = kind[:-1] if kind.endswith("_") else kind
        overload = f"{plain}.{schema.overload_name}"
        if not isinstance(target, Value) or (plain not in TABLE and overload not in TABLE):
            raise UnsupportedError("it writes to its operand, in a way that no table knows")
        written = next(iter(node.inputs())).debugName()
        seen = self._seen(node, written)
        (result,) = self._apply(plain, node, schema, arguments)
        kept = (
            expand(cast(result, target.dtype), target.shape)
            if isinstance(result, Value)
            else result
        )
        result = self._emitted(kept, "cast", _scope(node), {})
        self._bind(node.output(), result, self.storage[written])
        part, previous = result, written
        for name, others in seen.items():
            if name != previous:
                whole = self.views[previous].replaced(self.values[name], part)
                part, previous = self._emitted(whole, "written", _scope(node), {}), name
            for other in others:
                self.values[other] = part

    def _writable(self, target: Any) -> None:
        """UnsupportedError for what a graph cannot change."""
        leaf = self.tensors.get(target.name) if target.op is None else None
        if leaf is not None and leaf.kind != "input":
            raise UnsupportedError(f"it changes the {leaf.kind} {leaf.name}")

    def _seen(self, node: Any, written: str) -> dict[str, list[str]]:
        """The names that see what is written: those of its value, and of what it is a part of.

        From the part to the whole; UnsupportedError where another part that is used later shares
        the memory.
        """
        chain = [written]
        while chain[-1] in self.views:
            chain.append(self.views[chain[-1]].of)
        for name in chain:
            self._writable(self.values[name])
        names: dict[str, list[str]] = {name: [name] for name in chain}
        values = {self.values[name]: name for name in reversed(chain)}
        used = {written}
        for name in dict.fromkeys(n for i in self.storage[written] for n in self.sharing[i]):
            users = [use.user for use in self.definitions[name].uses()]
            if not (self.loops or any(user.isAfter(node) for user in users)):
                continue
            found = self.values[name]
            same = values.get(found) if isinstance(found, Value) else None
            if same is None:
                raise UnsupportedError(
                    f"it writes to the memory of {written}, which {name} shares as a view and "
                    "which is used later: write the result to a new tensor in the model"
                )
            used.add(name if name in chain else same)
            if name not in chain:
                names[same].append(name)
        last = max(i for i, name in enumerate(chain) if name in used)
        return {name: names[name] for name in chain[: last + 1]}

    # -- results ----------------------------------------------------------------------------------

    def _outputs(self) -> Iterator[tuple[str, str]]:
        results = [self.values[v.debugName()] for v in self.graph.outputs()]
        found = list(_flat("output", results[0] if len(results) == 1 else results))
        for name, value in found:
            if value is None:
                continue
            if not isinstance(value, Value | int | float):
                raise FormatError(f"the result {name} is a {type(value).__name__}, not a tensor")
            term = _lifted(value)
            if isinstance(term.op, Scalar):
                self.nodes.append(Node(self._name(name), term.op, ()))
                yield name, self.nodes[-1].name
            else:
                yield name, term.name


def _flat(name: str, found: Any) -> Iterator[tuple[str, Any]]:
    """The tensors of a result: nested tuples, lists and dicts become one list."""
    if isinstance(found, dict):
        for key, one in found.items():
            yield from _flat(str(key), one)
    elif isinstance(found, list | tuple):
        for i, one in enumerate(found):
            yield from _flat(f"{name}_{i}", one)
    else:
        yield name, found


def _lifted(found: Any) -> Any:
    """A number as the tensor without axes that it is in the graph."""
    if isinstance(found, bool):
        return scalar(found, "bool")
    if isinstance(found, int | Size):
        return scalar(found, "i64")
    return scalar(found, "f64") if isinstance(found, float) else found


def _contains(found: Any, wanted: Any) -> bool:
    if isinstance(found, list | tuple):
        return any(_contains(f, wanted) for f in found)
    return found is wanted


def _contains_values(found: Any) -> bool:
    if isinstance(found, list | tuple):
        return any(map(_contains_values, found))
    return isinstance(found, Value)


def _is_used(value: Any) -> bool:
    """Does anything use it?  Put into a tuple that is only taken apart, its place there tells."""
    pending = [value]
    while pending:
        for use in pending.pop().uses():
            if use.user.kind() != "prim::TupleConstruct":
                return True
            for later in use.user.output().uses():
                if later.user.kind() != "prim::TupleUnpack":
                    return True
                pending.append(list(later.user.outputs())[use.offset])
    return False


def _told(condition: Value | Size) -> str:
    return f"the size {condition}" if isinstance(condition, Size) else "the values of tensors"


def _scope(node: Any) -> str:
    """The path of the submodule that a trace has recorded."""
    return node.scopeName().rpartition("/")[2].removeprefix("__module.")


def _place(node: Any) -> str:
    """Where a node comes from: its submodule and its source line."""
    lines = [line.strip() for line in node.sourceRange().splitlines() if line.strip()]
    marked = next((i for i, line in enumerate(lines) if "~" in line and "<--- HERE" in line), None)
    line = lines[marked - 1] if marked else next(iter(lines), "")
    text = str(node).strip().partition(" # ")[0].removeprefix("= ")
    return ", ".join(part for part in (_scope(node), line) if part) or text


def _graph_name(module: Any) -> str:
    name = getattr(module, "original_name", None) or getattr(module, "name", "graph")
    return str(name) if str(name).isidentifier() else "graph"
