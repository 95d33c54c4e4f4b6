"""SafeDAG: one tensor directed acyclic graph, and what can be asked of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

from safegraph import dims
from safegraph.derived.base import Derived
from safegraph.dims import Dim, Size
from safegraph.dtypes import from_numpy, to_numpy
from safegraph.errors import GraphError, SafeGraphError, ShapeError, UnsupportedError
from safegraph.op import Op, TensorType
from safegraph.ops import Opaque
from safegraph.value import Value, apply, tensor, walk

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KINDS = ("input", "parameter", "buffer", "const")


@dataclass(frozen=True)
class Tensor:
    """A leaf of a graph.

    `input` is known at run time, `parameter` is learnable, `buffer` is not but can change at run
    time, `const` cannot change.  Data is an array, or a function that reads it when asked for.
    """

    name: str
    kind: str
    type: TensorType
    data: np.ndarray | Callable[[], np.ndarray] | None = field(
        default=None, repr=False, compare=False
    )

    def array(self) -> np.ndarray:
        """The data; raises GraphError for a tensor that has none."""
        if self.data is None:
            raise GraphError(f"{self.kind} {self.name}: {self.type} has no data")
        found = self.data() if callable(self.data) else self.data
        if tuple(found.shape) != self.type.shape or from_numpy(found.dtype) != self.type.dtype:
            raise GraphError(
                f"{self.kind} {self.name} is declared {self.type}, its data is "
                f"{from_numpy(found.dtype)}[{' '.join(map(str, found.shape))}]"
            )
        return found


@dataclass(frozen=True)
class Node:
    """One value of a graph: an op applied to tensors and other nodes, by name."""

    name: str
    op: Op
    inputs: tuple[str, ...]
    where: str = field(default="", compare=False)  # scope or location in the source


class SafeDAG:
    """One tensor directed acyclic graph.

    `tensors` are the leaves by name (inputs in their order), `nodes` the operations in an order in
    which operands come first, `outputs` maps names of results to the names of their values.
    The constructor checks everything and raises GraphError with all problems.
    """

    def __init__(
        self,
        tensors: Sequence[Tensor],
        nodes: Sequence[Node],
        outputs: Mapping[str, str] | Sequence[str],
        *,
        name: str = "graph",
    ) -> None:
        self.name = name
        self.tensors: dict[str, Tensor] = {t.name: t for t in tensors}
        self.nodes: dict[str, Node] = {n.name: n for n in nodes}
        self.outputs: dict[str, str] = (
            dict(outputs) if isinstance(outputs, Mapping) else {o: o for o in outputs}
        )
        self.types: dict[str, TensorType] = {t.name: t.type for t in tensors}
        """The type of every tensor and node."""
        self.assumptions: dict[str, tuple[str, Dim, Dim]] = {}
        """What must hold of the free sizes: text -> relation and both sides."""
        problems = _duplicates(tensors, nodes) + self._infer()
        if problems:
            raise GraphError(f"{name} is not well formed", problems)

    def _infer(self) -> list[str]:
        """Fill in the types; give back all problems."""
        problems = [
            f"tensor {t.name}: there is no kind {t.kind!r}"
            for t in self.tensors.values()
            if t.kind not in KINDS
        ]
        broken: set[str] = set()
        with dims.assuming() as assumptions:
            for node in self.nodes.values():
                missing = [i for i in node.inputs if i not in self.types and i not in broken]
                if missing:
                    late = (
                        "is used before it is computed"
                        if missing[0] in self.nodes
                        else "does not exist"
                    )
                    problems.append(f"{self._at(node)}: its operand {missing[0]} {late}")
                if missing or any(i in broken for i in node.inputs):
                    broken.add(node.name)
                    continue
                try:
                    self.types[node.name] = node.op.type(*(self.types[i] for i in node.inputs))
                except SafeGraphError as error:
                    problems.append(f"{self._at(node)}: {error}")
                    broken.add(node.name)
        self.assumptions = assumptions
        problems += [
            f"output {o}: its value {v} does not exist"
            for o, v in self.outputs.items()
            if v not in self.types and v not in broken
        ]
        return problems

    def _at(self, node: Node) -> str:
        return f"node {node.name}" + (f" ({node.where})" if node.where else "")

    def validate(self) -> list[str]:
        """All problems of the graph, none for a sound one; reads the data and finds NaN weights."""
        problems = []
        for t in self.tensors.values():
            if t.kind == "input":
                continue
            try:
                found = t.array()
            except (SafeGraphError, OSError) as error:
                problems.append(str(error))
                continue
            if t.type.dtype.startswith(("f", "bf")) and np.isnan(found).any():
                problems.append(f"{t.kind} {t.name}: {t.type} contains NaN")
        return problems

    # -- parts ------------------------------------------------------------------------------------

    def kind(self, *kinds: str) -> list[Tensor]:
        """The tensors of these kinds, in order."""
        return [t for t in self.tensors.values() if t.kind in kinds]

    @property
    def inputs(self) -> list[Tensor]:
        """The tensors that are known at run time, in order."""
        return self.kind("input")

    @cached_property
    def sizes(self) -> tuple[str, ...]:
        """The names of the free sizes, in order of appearance in the inputs, then of the ops."""
        found: dict[str, None] = {}
        for t in self.inputs:
            for d in t.type.shape:
                found.update(dict.fromkeys(sorted(dims.names(d))))
        for type_ in self.types.values():
            for d in type_.shape:
                if isinstance(d, Size):
                    found.update(dict.fromkeys(sorted(d.names)))
        return tuple(found)

    @property
    def unknown(self) -> list[Node]:
        """The nodes whose op no table knows."""
        return [n for n in self.nodes.values() if isinstance(n.op, Opaque)]

    def require_known(self, what: str) -> None:
        """Raise UnsupportedError naming all unknown ops, if there are any."""
        if self.unknown:
            lines = [f"{n.op.kind} ({n.op.format}) at {self._at(n)}" for n in self.unknown]  # type: ignore[attr-defined]
            raise UnsupportedError(f"{what}: {len(lines)} unknown ops in {self.name}", lines)

    def __len__(self) -> int:
        return len(self.nodes)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes.values())

    # -- to and from values -----------------------------------------------------------------------

    @classmethod
    def from_values(
        cls,
        outputs: Mapping[str, Value] | Value,
        tensors: Sequence[Tensor] = (),
        *,
        name: str = "graph",
    ) -> SafeDAG:
        """A graph from terms in Python.  Leaves that `tensors` does not name are inputs.

        >>> x = tensor("x", "f32[batch 3]")
        >>> print(SafeDAG.from_values({"y": x.exp()}).types["y"])
        f32[batch 3]
        """
        named = {"y": outputs} if isinstance(outputs, Value) else dict(outputs)
        known = {t.name: t for t in tensors}
        leaves: dict[str, Tensor] = dict(known)
        nodes: list[Node] = []
        names: dict[Value, str] = {}
        given = set(known) | {v.name for v in walk(named.values()) if v.op is None}
        preferred = {
            v: o for o, v in reversed(named.items()) if v.op is not None and o not in given
        }
        fresh = fresh_names(given | set(preferred.values()))
        for value in walk(named.values()):
            if value.op is None:
                leaves.setdefault(value.name, Tensor(value.name, "input", value.type))
                names[value] = value.name
                continue
            label = names[value] = preferred[value] if value in preferred else next(fresh)
            nodes.append(Node(label, value.op, tuple(names[o] for o in value.operands)))
        return cls(list(leaves.values()), nodes, {o: names[v] for o, v in named.items()}, name=name)

    def to_values(self, leaves: Mapping[str, Value] | None = None) -> dict[str, Value]:
        """A value for every tensor and node, by name."""
        values = {t.name: tensor(t.name, t.type) for t in self.tensors.values()}
        values.update(leaves or {})
        with dims.assuming():  # what the graph assumes, its ops assume again
            for node in self:
                values[node.name] = apply(node.op, *(values[i] for i in node.inputs))
        return values

    def expand(self, keep: Callable[[Op], bool] | None = None) -> SafeDAG:
        """The same graph in core ops; Opaque ops stay, and derived ones that `keep` is for."""
        values = self.expanded(keep)
        outputs = {o: values[v] for o, v in self.outputs.items()}
        return SafeDAG.from_values(outputs, list(self.tensors.values()), name=self.name)

    def expanded(self, keep: Callable[[Op], bool] | None = None) -> dict[str, Value]:
        """The values of `expand` for every tensor and node of this graph, by name."""
        values = {t.name: tensor(t.name, t.type) for t in self.tensors.values()}
        done: dict[Value, Value] = {v: v for v in values.values()}
        with dims.assuming():  # what the graph assumes, its ops assume again
            for node in self:
                value = apply(node.op, *(values[i] for i in node.inputs))
                values[node.name] = _expanded(value, done, keep)
        return values

    def bind(self, sizes: Mapping[str, int | Dim]) -> SafeDAG:
        """The same graph with values for free sizes; ShapeError for a name it does not have."""
        unknown = [n for n in sizes if n not in self.sizes]
        if unknown:
            raise ShapeError(
                f"{self.name} has no free size {', '.join(unknown)}; "
                f"it has {', '.join(self.sizes) or 'none'}"
            )
        self._check_assumptions(sizes)
        return SafeDAG(
            [replace(t, type=t.type.bind(sizes)) for t in self.tensors.values()],
            [replace(n, op=n.op.bind(sizes)) for n in self],
            self.outputs,
            name=self.name,
        )

    def _check_assumptions(self, sizes: Mapping[str, Any]) -> None:
        for text, (relation, a, b) in self.assumptions.items():
            x, y = dims.substitute(a, sizes), dims.substitute(b, sizes)
            if isinstance(x, int) and isinstance(y, int) and not dims.holds((relation, x, y), {}):
                raise ShapeError(f"{self.name} needs {text}, which is not so for {dict(sizes)}")

    def prune(self) -> SafeDAG:
        """The same graph without what no output needs (inputs stay)."""
        needed = set(self.outputs.values())
        for node in reversed(self.nodes.values()):
            if node.name in needed:
                needed.update(node.inputs)
        return SafeDAG(
            [t for t in self.tensors.values() if t.kind == "input" or t.name in needed],
            [n for n in self if n.name in needed],
            self.outputs,
            name=self.name,
        )

    # -- meaning ----------------------------------------------------------------------------------

    def evaluate(self, *arrays: Any, **named: Any) -> dict[str, np.ndarray]:
        """The outputs on NumPy arrays: inputs by position or by name, results by name.

        Free sizes are taken from the shapes of the inputs.  Raises ShapeError where those do not
        fit and UnsupportedError where an op is unknown.
        """
        self.require_known("cannot evaluate")
        given, sizes = self.match(*arrays, **named)
        left = dict.fromkeys(self.types, 0)
        for node in self:
            for i in node.inputs:
                left[i] += 1
        for v in self.outputs.values():
            left[v] += 1
        values: dict[str, Any] = {}
        for t in self.tensors.values():
            if left[t.name]:
                values[t.name] = given[t.name] if t.kind == "input" else t.array()
        for node in self:
            op = node.op.bind(sizes) if sizes else node.op
            values[node.name] = op.run(*(values[i] for i in node.inputs))
            for i in node.inputs:
                left[i] -= 1
                if not left[i]:
                    values.pop(i, None)
        return {o: np.asarray(values[v]) for o, v in self.outputs.items()}

    def match(self, *arrays: Any, **named: Any) -> tuple[dict[str, np.ndarray], dict[str, int]]:
        """Arrays for the inputs by name, and the free sizes that their shapes give.

        Raises ShapeError with everything that does not fit.
        """
        inputs = self.inputs
        if len(arrays) > len(inputs):
            raise ShapeError(
                f"{self.name} has {len(inputs)} inputs, {len(arrays)} arrays were given"
            )
        given = {t.name: np.asarray(a) for t, a in zip(inputs, arrays, strict=False)}
        problems = [f"input {n} is given twice" for n in named if n in given]
        given |= {n: np.asarray(a) for n, a in named.items()}
        problems += [f"there is no input {n}" for n in given if n not in {t.name for t in inputs}]
        problems += [f"input {t.name}: {t.type} is missing" for t in inputs if t.name not in given]
        sizes: dict[str, int] = {}
        for t in inputs:
            if t.name in given:
                for d, n in zip(t.type.shape, given[t.name].shape, strict=False):
                    if isinstance(d, Size) and str(d).isidentifier():
                        sizes.setdefault(str(d), n)
        for t in inputs:
            if t.name not in given:
                continue
            array = given[t.name]
            wanted = tuple(dims.substitute(d, sizes) for d in t.type.shape)
            if len(wanted) != array.ndim or any(
                isinstance(d, int) and d != n for d, n in zip(wanted, array.shape, strict=True)
            ):
                problems.append(
                    f"input {t.name} is {t.type}, an array of shape {array.shape} was given"
                )
            elif array.dtype != to_numpy(t.type.dtype):
                problems.append(
                    f"input {t.name} is {t.type}, an array of {from_numpy(array.dtype)} was given"
                )
        missing = set(self.sizes) - set(sizes)
        if missing and not problems:
            problems.append(f"the inputs do not tell the free sizes {', '.join(sorted(missing))}")
        if problems:
            raise ShapeError(f"the inputs of {self.name} do not fit", problems)
        self._check_assumptions(sizes)
        return given, sizes

    # -- text and files ---------------------------------------------------------------------------

    def __str__(self) -> str:
        from safegraph.text import write

        return write(self)

    def __repr__(self) -> str:
        ins = ", ".join(f"{t.name}: {t.type}" for t in self.inputs)
        outs = ", ".join(f"{o}: {self.types[v]}" for o, v in self.outputs.items())
        return f"<SafeDAG {self.name}({ins}) -> ({outs}), {len(self)} ops>"

    @classmethod
    def parse(cls, text: str) -> SafeDAG:
        """A graph from its text form; raises ParseError with the line that cannot be read."""
        from safegraph.text import read

        return read(text)

    def save(self, path: str | Path) -> None:
        """Write the native file (`.safegraph`: a zip of text and tensors), whole or not at all."""
        from safegraph.store import save

        save(self, path)

    @classmethod
    def load(cls, path: str | Path) -> SafeDAG:
        """Read the native file."""
        from safegraph.store import load

        return load(path)

    # -- verbs: safegraph.verbs joins the formats, the laws and the extraction to the graph -------

    @classmethod
    def from_onnx(cls, source: Any) -> SafeDAG:
        """The graph of an ONNX model: a path, a ModelProto or an onnx_ir.Model."""
        from safegraph.verbs import from_onnx

        return from_onnx(source)

    @classmethod
    def from_torchscript(cls, source: Any, inputs: Any = None) -> SafeDAG:
        """The graph of a TorchScript module or file.

        `inputs` are example tensors, or types as text (`["f32[batch 3 224 224]"]`); without them
        the shapes recorded by the trace are used, and after loading a file they are inferred.
        """
        from safegraph.verbs import from_torchscript

        return from_torchscript(source, inputs)

    def to_onnx(self, path: str | Path | None = None) -> Any:
        """The graph as an ONNX ModelProto, written to `path` if one is given."""
        from safegraph.verbs import to_onnx

        return to_onnx(self, path)

    def to_torchscript(self, path: str | Path | None = None) -> Any:
        """The graph as a TorchScript module, written to `path` if one is given."""
        from safegraph.verbs import to_torchscript

        return to_torchscript(self, path)

    def cost(self, *, allow_unknown: bool = False, convention: str | None = None) -> Any:
        """What the graph costs: formulas in its free sizes (`safegraph.extract.cost.Cost`).

        `convention` ("torch", "xla", "onnx-tool", "fvcore") adds the count of another tool.
        """
        from safegraph.verbs import cost

        return cost(self, allow_unknown=allow_unknown, convention=convention)

    def optimize(
        self, target: str = "onnxruntime", sizes: Mapping[str, int] | None = None, **options: Any
    ) -> Any:
        """The cheapest equal graph that was found for a target, with how it was found.

        `laws` of your own are used, too; see `safegraph.verbs.optimize`.
        """
        from safegraph.verbs import optimize

        return optimize(self, target=target, sizes=sizes, **options)

    def check(self, other: SafeDAG, **options: Any) -> Any:
        """Are two graphs equal?  Compared on random inputs; with `prove=True` then by laws."""
        from safegraph.verbs import check

        return check(self, other, **options)

    def unbatch(self, axis: int | Mapping[str, int | None] | str = 0) -> SafeDAG:
        """An equal graph for one sample: no size depends on the batch, axes that are it are gone.

        `axis` is that axis of every input; or input -> axis, None or left out for inputs without a
        batch; or the name of a free size.  Raises BatchError where samples interact, with the op,
        the axis and the path from the input; `safegraph.batch.unbatch` gives a verdict instead.
        """
        from safegraph.verbs import unbatch

        return unbatch(self, axis)

    def batch(self, size: str | int | Mapping[str, str | int] = "batch") -> SafeDAG:
        """The same graph for many samples, as `vmap`: every input gets a leading axis of this size.

        input -> size gives one to these inputs alone.  Outputs that depend on no batch have none.
        """
        from safegraph.verbs import batch

        return batch(self, size)

    def rebatch(
        self, name: str = "batch", axis: int | Mapping[str, int | None] | str = 0
    ) -> SafeDAG:
        """The same graph for every batch: unbatched, then batched, with the axes where they were.

        An output whose batch of 1 was squeezed has it first.  Raises BatchError as `unbatch` does.
        """
        from safegraph.verbs import rebatch

        return rebatch(self, name, axis)

    def refine(self, **options: Any) -> SafeDAG:
        """An equal graph in which structure is recognised: contractions, named ops."""
        from safegraph.verbs import refine

        return refine(self, **options)


def _expanded(value: Value, done: dict[Value, Value], keep: Callable[[Op], bool] | None) -> Value:
    """A value in core ops; `done` maps values to their expansions and grows."""
    alias: dict[Value, Value] = {}  # a derived value -> its definition on expanded operands
    stack = [value]
    while stack:
        top = stack[-1]
        waiting = [alias[top]] if top in alias else [o for o in top.operands if o not in done]
        waiting = [v for v in waiting if v not in done]
        if top in done:
            stack.pop()
        elif waiting:
            stack += waiting
        elif top in alias:
            done[top] = done[alias[top]]
        elif isinstance(top.op, Derived) and not (keep and keep(top.op)):
            alias[top] = top.op.define(*(done[o] for o in top.operands))
        else:
            assert top.op is not None, "leaves are done"
            core = apply(top.op, *(done[o] for o in top.operands))
            done[top] = done[core] = core
    return done[value]


def fresh_names(taken: Collection[str]) -> Iterator[str]:
    """v0, v1, ..., without the names that are taken."""
    return (label for i in count() if (label := f"v{i}") not in taken)


def _duplicates(tensors: Sequence[Tensor], nodes: Sequence[Node]) -> list[str]:
    seen: set[str] = set()
    twice: dict[str, None] = {}
    for name in (*(t.name for t in tensors), *(n.name for n in nodes)):
        if name in seen:
            twice[name] = None
        seen.add(name)
    return [f"the name {n} is used twice" for n in twice]
