"""What a graph costs, as formulas in its free sizes: arithmetic, memory traffic, parameters.

The graph is counted as it is written: no op is fused with another, every op that computes reads
each operand once and writes its result once.  Only one pair is joined: a product that nothing but
a sum reads is a contraction, so that a matrix product written in core ops (repeat, multiply, sum)
costs what `Matmul` costs.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any

from safegraph import dims
from safegraph.dag import Node, SafeDAG
from safegraph.derived.base import Derived
from safegraph.dims import Dim, add_all, at_least, sympify
from safegraph.errors import BindingError
from safegraph.op import Op, TensorType, Work
from safegraph.ops import Opaque, Reduce, Scalar, Slice, Stride, Unfold
from safegraph.value import walk

DEFAULT_SIZE = 16
"""What a free size is taken as where a number is needed and none was given."""

LABELS = {
    "macs": "MACs (multiply-adds)",
    "total_flops": "flops",
    "contraction_flops": "  contractions",
    "elementwise_flops": "  elementwise",
    "transcendental_flops": "  transcendental",
    "reduce_flops": "  reductions",
    "memory_reads": "bytes read",
    "memory_writes": "bytes written",
    "parameters": "parameters",
    "parameter_bytes": "bytes of parameters",
    "buffers": "buffer elements",
    "buffer_bytes": "bytes of buffers",
    "consts": "constant elements",
    "const_bytes": "bytes of constants",
}


_WINDOWS = (Slice, Stride, Unfold)
"""Strided windows on memory.  Some runtimes copy here: that is for a target to charge."""


@dataclass(frozen=True)
class OpCost:
    """What one op of a graph costs, or several together: bytes are unfused traffic."""

    name: str
    kind: str
    scope: str
    work: Work
    reads: Dim
    writes: Dim
    count: int = 1


@dataclass(frozen=True)
class Cost:
    """What a graph costs.

    The properties are SymPy expressions in the free sizes; `str` of one is its formula.  `totals`
    has the same as plain sizes (`safegraph.Dim`), `ops` what each op costs.

    Flops are 2 for each multiply-add of a contraction (padding counted), 1 for each element that a
    pointwise op computes (transcendental functions apart) and 1 for each combining step of a
    reduction.  Bytes are unfused: views cost nothing, and a repeated operand is read at the size
    that it had before.
    """

    name: str
    ops: tuple[OpCost, ...]
    tensors: Mapping[str, tuple[Dim, Dim]]
    """Elements and bytes of the tensors of each kind."""
    unknown: Mapping[str, int] = field(default_factory=dict)
    """Ops that no table knows, which are not counted: how often each occurs."""

    @cached_property
    def totals(self) -> dict[str, Dim]:
        """All totals by name, as plain sizes."""
        sums = _total("total", self.ops)
        stored = {
            key: self.tensors.get(kind, (0, 0))[part]
            for kind, names in (
                ("parameter", ("parameters", "parameter_bytes")),
                ("buffer", ("buffers", "buffer_bytes")),
                ("const", ("consts", "const_bytes")),
            )
            for part, key in enumerate(names)
        }
        return {
            "macs": sums.work.macs,
            "total_flops": sums.work.flops,
            "contraction_flops": 2 * sums.work.macs,
            "elementwise_flops": sums.work.elementwise,
            "transcendental_flops": sums.work.transcendental,
            "reduce_flops": sums.work.reduce,
            "memory_reads": sums.reads,
            "memory_writes": sums.writes,
            **stored,
        }

    @property
    def macs(self) -> Any:
        """Multiply-adds of contractions: the product of all index sizes of each."""
        return sympify(self.totals["macs"])

    @property
    def total_flops(self) -> Any:
        """All arithmetic, a multiply-add counted as two."""
        return sympify(self.totals["total_flops"])

    @property
    def contraction_flops(self) -> Any:
        """Twice the multiply-adds."""
        return sympify(self.totals["contraction_flops"])

    @property
    def elementwise_flops(self) -> Any:
        """Elements computed by pointwise ops that are not transcendental."""
        return sympify(self.totals["elementwise_flops"])

    @property
    def transcendental_flops(self) -> Any:
        """Elements computed by exp, log, tanh, pow and the like."""
        return sympify(self.totals["transcendental_flops"])

    @property
    def reduce_flops(self) -> Any:
        """Combining steps of reductions: elements in, less elements out."""
        return sympify(self.totals["reduce_flops"])

    @property
    def memory_reads(self) -> Any:
        """Bytes read when no op is fused with another."""
        return sympify(self.totals["memory_reads"])

    @property
    def memory_writes(self) -> Any:
        """Bytes written when no op is fused with another."""
        return sympify(self.totals["memory_writes"])

    @property
    def parameters(self) -> Any:
        """The number of learnable numbers."""
        return sympify(self.totals["parameters"])

    @property
    def parameter_bytes(self) -> Any:
        """Bytes of the parameters."""
        return sympify(self.totals["parameter_bytes"])

    @property
    def buffers(self) -> Any:
        """The number of elements of the buffers."""
        return sympify(self.totals["buffers"])

    def bind(self, sizes: Mapping[str, Dim]) -> Cost:
        """The cost for these values of free sizes; raises BindingError for a name not in it."""
        unknown = [name for name in sizes if name not in self.names]
        if unknown:
            raise BindingError(
                f"{self.name} has no free size {', '.join(unknown)}; "
                f"it has {', '.join(sorted(self.names)) or 'none'}"
            )

        @cache
        def at(dim: Dim) -> Dim:
            return dims.substitute(dim, sizes)

        def bound(op: OpCost) -> OpCost:
            return replace(op, work=_map(at, op.work), reads=at(op.reads), writes=at(op.writes))

        return replace(self, ops=tuple(map(bound, self.ops)))

    @cached_property
    def names(self) -> frozenset[str]:
        """The names of the free sizes in the formulas."""
        found = {d for op in self.ops for d in (*vars(op.work).values(), op.reads, op.writes)}
        return dims.names(tuple(found))

    def by(self, what: str) -> list[OpCost]:
        """What is spent where: for each `"op"`, `"kind"` of op or `"scope"` of the source.

        Ops and scopes come in their order in the graph, kinds with the most arithmetic first.
        """
        if what == "op":
            return list(self.ops)
        if what not in ("kind", "scope"):
            raise BindingError(f"costs are told by op, kind or scope, not by {what!r}")
        groups: dict[str, list[OpCost]] = {}
        for op in self.ops:
            groups.setdefault(getattr(op, what), []).append(op)
        rows = [_total(name, group) for name, group in groups.items()]
        return sorted(rows, key=_magnitude, reverse=True) if what == "kind" else rows

    def to_dict(self) -> dict[str, Any]:
        """The totals by name; formulas are strings, numbers too."""
        formulas = {key: str(value) for key, value in self.totals.items()}
        return {**formulas, "unknown": dict(self.unknown)}

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    def __str__(self) -> str:
        width = max(map(len, LABELS.values()))
        lines = [f"{label:<{width}}  {self.totals[key]}" for key, label in LABELS.items()]
        lines += [f"not counted: {n} x {kind} (unknown op)" for kind, n in self.unknown.items()]
        return "\n".join(lines)


def cost(dag: SafeDAG, allow_unknown: bool = False) -> Cost:
    """What a graph costs, as formulas in its free sizes.  No tensor's data is read.

    Raises UnsupportedError naming all unknown ops; with `allow_unknown` they are left out and
    listed in `Cost.unknown`.
    """
    if not allow_unknown:
        dag.require_known("cannot tell the cost")
    products = _contractions(dag)
    absorbed = set(products.values())
    read_size = {t.name: t.type.nbytes for t in dag.tensors.values()}
    found: list[OpCost] = []
    for node in dag:
        types = tuple(dag.types[i] for i in node.inputs)
        out = dag.types[node.name]
        if _is_view(node.op, types):
            read_size[node.name] = _smaller(out.nbytes, read_size[node.inputs[0]])
            found.append(_op_cost(node, Work(), 0, 0))
            continue
        # A number is part of the instruction that uses it.
        read_size[node.name] = 0 if isinstance(node.op, Scalar) else out.nbytes
        if isinstance(node.op, Scalar | Opaque) or node.name in absorbed:
            found.append(_op_cost(node, Work(), 0, 0))
        elif node.name in products:
            product = dag.nodes[products[node.name]]
            work = Work(macs=dag.types[product.name].numel)
            reads = add_all(read_size[i] for i in product.inputs)
            found.append(_op_cost(node, work, reads, out.nbytes, kind="multiply + sum"))
        else:
            work, wanted = _work(node.op, types)
            reads = add_all(
                n if read_size[i] == t.nbytes else _smaller(n, read_size[i])
                for n, t, i in zip(wanted, types, node.inputs, strict=True)
            )
            found.append(_op_cost(node, work, reads, out.nbytes))
    stored = {
        kind: (add_all(t.type.numel for t in group), add_all(t.type.nbytes for t in group))
        for kind in ("parameter", "buffer", "const")
        if (group := dag.kind(kind))
    }
    unknown = Counter(node.op.kind for node in dag.unknown if isinstance(node.op, Opaque))
    return Cost(dag.name, tuple(found), stored, dict(unknown))


def _contractions(dag: SafeDAG) -> dict[str, str]:
    """The sums that, with the product that only they read, are one contraction: sum -> product."""
    uses = Counter(i for node in dag for i in node.inputs)
    uses.update(dag.outputs.values())
    product_of: dict[str, str] = {}  # products, and their reshaped forms
    found: dict[str, str] = {}
    for node in dag:
        if _is_product(node.op):
            product_of[node.name] = node.name
            continue
        if len(node.inputs) != 1 or node.inputs[0] not in product_of or uses[node.inputs[0]] != 1:
            continue
        product, given = product_of[node.inputs[0]], dag.types[node.inputs[0]]
        if isinstance(node.op, Reduce):
            if node.op.kind == "sum":
                found[node.name] = product
        elif _is_view(node.op, (given,)) and dag.types[node.name].numel == given.numel:
            product_of[node.name] = product
    return found


def _is_product(op: Op) -> bool:
    return op.name in ("binary", "broadcast") and op.spec["kind"] == "multiply"


@cache
def _is_view(op: Op, types: tuple[TensorType, ...]) -> bool:
    """Is the result a window on the operand's memory?  So is a chain of such as a definition."""
    if op.is_view or isinstance(op, _WINDOWS):
        return True
    if not isinstance(op, Derived) or len(types) != 1:
        return False
    result = op.trace(*types)[1]
    inner = [v for v in walk([result]) if v.op is not None]
    return all(v.op and _is_view(v.op, tuple(o.type for o in v.operands)) for v in inner)


@cache
def _work(op: Op, types: tuple[TensorType, ...]) -> tuple[Work, tuple[Dim, ...]]:
    return op.work(*types), op.reads(*types)


def _smaller(a: Dim, b: Dim) -> Dim:
    """The smaller of what a view shows and what it is a view of; the latter where it depends."""
    return a if a == b or at_least(b, a) else b


def _op_cost(node: Node, work: Work, reads: Dim, writes: Dim, kind: str = "") -> OpCost:
    return OpCost(node.name, kind or _kind(node.op), node.where, work, reads, writes)


def _kind(op: Op) -> str:
    """What people call an op: `add` and not `binary`, `reduce sum`."""
    kind = op.spec.get("kind")
    if not isinstance(kind, str):
        return op.name
    return f"reduce {kind}" if isinstance(op, Reduce) else kind


def _map(function: Callable[[Dim], Dim], work: Work) -> Work:
    return Work(*map(function, (work.macs, work.elementwise, work.transcendental, work.reduce)))


def _total(name: str, ops: Iterable[OpCost]) -> OpCost:
    ops = list(ops)
    work = Work(
        add_all(op.work.macs for op in ops),
        add_all(op.work.elementwise for op in ops),
        add_all(op.work.transcendental for op in ops),
        add_all(op.work.reduce for op in ops),
    )
    kind, scope = (ops[0].kind, ops[0].scope) if ops else ("", "")
    reads, writes = add_all(op.reads for op in ops), add_all(op.writes for op in ops)
    return OpCost(name, kind, scope, work, reads, writes, len(ops))


def _magnitude(op: OpCost) -> tuple[int, int]:
    free = dims.names((op.work.flops, op.reads))
    at = dict.fromkeys(free, DEFAULT_SIZE)
    return dims.evaluate(op.work.flops, at), dims.evaluate(op.reads, at)
