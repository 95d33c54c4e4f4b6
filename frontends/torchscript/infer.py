"""Shapes of inputs that a file does not tell: ranks are tried, what the ops need is substituted."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

from safegraph.dag import SafeDAG
from safegraph.dims import Dim, Size, size, substitute
from safegraph.errors import FormatError, SafeGraphError, UnsupportedError
from safegraph.op import TensorType

RANKS = (2, 3, 4, 1, 5, 0)  # in the order of preference
MOST = 300  # combinations of ranks

# Operations that take indices, and the place of these among their operands.
INDEXING = {
    "aten::embedding": 1, "aten::gather": 2, "aten::index_select": 2, "aten::one_hot": 0,
    "aten::scatter": 2, "aten::scatter_add": 2, "aten::take": 1,
}  # fmt: skip
# Through these the need of an integer does not reach back to the operands.
CHANGING = {"aten::to", "aten::argmax", "aten::argmin", "aten::type_as"}


def infer(
    module: Any,
    graph: Any,
    given: Sequence[Any],
    types: Sequence[TensorType | None],
    defaults: Sequence[Any],
) -> SafeDAG:
    """The graph for the ranks whose ops assume least of free sizes; FormatError where none fits."""
    from safegraph.frontends.torchscript.read import Reader

    names = [v.debugName().partition(".")[0] for v in given]
    open_ = [i for i, t in enumerate(types) if t is None and not defaults[i][0]]
    strange = [f"{names[i]}: {given[i].type()}" for i in open_ if not _is_tensor(given[i])]
    if strange:
        raise FormatError("inputs of a SafeDAG are tensors; the module also takes", strange)
    integers = _used_as_indices(graph)
    listed = ", ".join(names[i] for i in open_)
    advice = (
        f"give the types of the inputs ({listed}), or example tensors: "
        'inputs=["f32[batch 3 224 224]", ...]'
    )
    if len(RANKS) ** len(open_) > MOST:
        raise FormatError(f"the file does not tell the shapes of its {len(open_)} inputs: {advice}")
    best: tuple[int, SafeDAG] | None = None
    first_error: SafeGraphError | None = None
    for ranks in product(RANKS, repeat=len(open_)):
        tried = list(types)
        for i, rank in zip(open_, ranks, strict=True):
            dtype = "i64" if given[i].debugName() in integers else "f32"
            tried[i] = TensorType(dtype, tuple(size(f"{names[i]}_{axis}") for axis in range(rank)))
        try:
            dag = _unified(lambda found: Reader(module, graph).run(found, defaults), tried)
        except UnsupportedError:
            raise  # the same for every rank
        except SafeGraphError as error:
            first_error = first_error or error
            continue
        if best is None or len(dag.assumptions) < best[0]:
            best = len(dag.assumptions), dag
        if not dag.assumptions:
            break
    if best is None:
        raise FormatError(
            f"no shapes were found that fit all ops; {advice}. Rank {RANKS[0]}: {first_error}"
        )
    return best[1]


def _is_tensor(value: Any) -> bool:
    return "Tensor" in (
        str(value.type()),
        str(value.type()).removeprefix("Optional[").removesuffix("]"),
    )


def _unified(read: Any, types: list[TensorType | None]) -> SafeDAG:
    """Read, put what the sizes must be in their places, and again, until nothing is left to put."""
    while True:
        dag = read(types)
        bound = _solved(dag.assumptions)
        if not bound:
            return dag
        types = [t and t.bind(bound) for t in types]


def _solved(assumptions: Any) -> dict[str, Dim]:
    """Free sizes that must equal something, from the assumptions that can be read so."""
    found: dict[str, Dim] = {}
    for relation, a, b in assumptions.values():
        if relation != "==":
            continue
        a, b = substitute(a, found), substitute(b, found)
        for name, other in ((a, b), (b, a)):
            if (
                isinstance(name, Size)
                and str(name).isidentifier()
                and not _mentions(other, str(name))
            ):
                found = {n: substitute(d, {str(name): other}) for n, d in found.items()}
                found[str(name)] = other
                break
    return found


def _mentions(dim: Dim, name: str) -> bool:
    return isinstance(dim, Size) and name in dim.names


def _used_as_indices(graph: Any) -> set[str]:
    """The values of the graph that end up as indices of an operation."""
    found: set[str] = set()
    for node in reversed(_all_nodes(graph)):
        kind, inputs = node.kind(), [v.debugName() for v in node.inputs()]
        if kind in INDEXING:
            found.add(inputs[INDEXING[kind]])
        elif kind == "aten::index":
            found.update(v.debugName() for v in list(node.inputs())[1].node().inputs())
        elif kind not in CHANGING and any(o.debugName() in found for o in node.outputs()):
            found.update(inputs)
    return found


def _all_nodes(block: Any) -> list[Any]:
    found = []
    for node in block.nodes():
        found.append(node)
        for inner in node.blocks():
            found += _all_nodes(inner)
    return found
