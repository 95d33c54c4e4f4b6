"""What PyTorch itself can be asked of a model's cost: the independent side of the cost tests."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, export
from torch.fx import Interpreter
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from safegraph.dims import Dim as SafeDim
from safegraph.dims import parse

COPIES = {"clone", "contiguous", "reshape", "flatten", "_reshape_copy", "_to_copy", "to"}
"""What copies only because PyTorch wants another layout, which a model does not ask for."""


def tensors(tree: Any) -> list[Tensor]:
    """The tensors with axes in arguments or results: numbers are part of an instruction."""
    return [t for t in tree_leaves(tree) if isinstance(t, Tensor) and t.dim()]


def storage(t: Tensor) -> int:
    """What tells two memories apart."""
    return t.untyped_storage()._cdata


class Traffic(TorchDispatchMode):
    """Bytes that the ops read and write which PyTorch runs for a model, as the model means it.

    Not counted is what only PyTorch's implementation adds: views, copies to another layout, and
    results beyond the first (indices of a max pool, statistics of a normalisation: they serve the
    backward pass).  An operand that is repeated by strides is read at the size of its memory, and a
    table is read where it is looked up.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reads = self.writes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        given, made = tensors((args, kwargs)), tensors(out)[:1]
        memory = {storage(t) for t in given}
        computes = func._schema.is_mutable or any(storage(t) not in memory for t in made)
        if computes and name not in COPIES:
            for t in given:
                whole = min(t.nbytes, t.untyped_storage().nbytes())
                table = name == "embedding" and t is given[0]
                self.reads += made[0].nbytes if table else whole
            self.writes += sum(t.nbytes for t in made)
        return out


def traffic(model: nn.Module, *inputs: Tensor) -> tuple[int, int]:
    """Bytes read and written."""
    with torch.no_grad(), Traffic() as found:
        model(*inputs)
    return found.reads, found.writes


class LiveRanges(Interpreter):
    """Runs an exported graph op by op, and adds up what is alive at each.

    An input lives from the start to its last use, a result from its op to its last use, an output
    to the end; what shares memory, or is a copy to another layout, is one.
    """

    def __init__(self, module: torch.fx.GraphModule, stored: int) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.peak = 0
        self.sizes: dict[Any, int] = {}  # node that has memory -> bytes
        self.owners: dict[Any, set[Any]] = {}
        self.nodes = list(module.graph.nodes)
        self.inputs = [n for n in self.nodes if n.op == "placeholder"][stored:]
        self.memory: dict[Any, list[Tensor]] = {}

    def run_node(self, n: Any) -> Any:
        found = super().run_node(n)
        operands = list(n.all_input_nodes)
        below = set().union(*(self.owners.get(i, set()) for i in operands))
        self.memory[n] = tensors(found)
        if n.op == "placeholder":
            self.owners[n] = {n} if n in self.inputs else set()
            if n in self.inputs:
                self.sizes[n] = self.memory[n][0].nbytes
            return found
        if n.op == "output":
            self.owners[n] = below
            return found
        shared = {storage(t) for i in operands for t in self.memory[i]}
        name = getattr(getattr(n.target, "overloadpacket", n.target), "__name__", "")
        mutates = n.op == "call_function" and getattr(
            getattr(n.target, "_schema", None), "is_mutable", False
        )
        own = [t for t in self.memory[n][:1] if mutates or storage(t) not in shared]
        if own and name not in COPIES and name != "getitem":
            self.sizes[n] = own[0].nbytes
            self.owners[n] = {n}
        else:
            self.owners[n] = below
        return found

    def measure(self, *inputs: Any) -> int:
        """The peak, after a run on these placeholders."""
        with torch.no_grad():
            self.run(*inputs)
        last: dict[Any, int] = {}
        for at, n in enumerate(self.nodes):
            for value in (n, *n.all_input_nodes):
                last.update(dict.fromkeys(self.owners[value], at))
        alive = sum(self.sizes[n] for n in self.inputs if n in last)
        peak = 0
        for at, n in enumerate(self.nodes):
            if n in self.sizes and n not in self.inputs:
                alive += self.sizes[n]
            if n.op not in ("placeholder", "output"):
                peak = max(peak, alive)
            alive -= sum(self.sizes[v] for v, end in last.items() if end == at)
        return peak


def peak_memory(model: nn.Module, *inputs: Tensor) -> int:
    """The most bytes of activations that are alive at one time."""
    program = export(model, inputs)
    state = program.state_dict | program.constants
    signature = program.graph_signature
    stored = [state[name] for spec in signature.input_specs if (name := spec.target) is not None]
    return LiveRanges(program.graph_module, len(stored)).measure(*stored, *inputs)


def symbolic_flops(
    model: nn.Module, inputs: tuple[Tensor, ...], axes: Sequence[Mapping[int, str]]
) -> SafeDim:
    """Flops of contractions that PyTorch counts on the decomposed graph, as a formula.

    `axes` has, for each input, the names of its free sizes by axis; the result is in these names.
    """
    shapes = tuple(dict.fromkeys(one, Dim.AUTO) for one in axes)
    program = export(model, inputs, dynamic_shapes=shapes).run_decompositions()
    values = [n.meta["val"] for n in program.graph.nodes if n.op == "placeholder"]
    mode: Any = next(v.fake_mode for v in values if hasattr(v, "fake_mode"))
    with mode, FlopCounterMode(display=False) as counter:
        Interpreter(program.graph_module).run(*values)
    flops: Any = counter.get_total_flops()
    text = str(flops if isinstance(flops, int) else flops.node.expr)
    for value, one in zip(values[-len(inputs) :], axes, strict=True):
        for axis, name in one.items():
            text = re.sub(rf"\b{value.shape[axis].node.expr}\b", name, text)
    return parse(text)  # a sum in normal form: equal formulas are one object
