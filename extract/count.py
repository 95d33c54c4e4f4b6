"""What each op of a graph costs: its arithmetic, the bytes that it reads and writes.

The graph is counted as it is written: no op is fused with another, every op that computes reads
each operand once and writes its result once.  Only one pair is joined: a product that nothing but
a sum reads is a contraction, so that a matrix product written in core ops (repeat, multiply, sum)
costs what `Matmul` costs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

from safegraph.dag import SafeDAG
from safegraph.derived.base import Derived
from safegraph.dims import KEPT, Dim, add_all, at_least
from safegraph.op import Op, TensorType, Work
from safegraph.ops import Opaque, Reduce, Repeat, Scalar, Slice, Stride, Unfold
from safegraph.value import walk

_WINDOWS = (Slice, Stride, Unfold)
"""Strided windows on memory.  Some runtimes copy here: that is for a target to charge."""

NO_WORK = Work()

CONTRACTION = "multiply + sum"
"""The kind of a product and the sum that alone reads it."""

Recount = Callable[[str, Op, tuple[TensorType, ...], TensorType, Work], Work]
"""Another count of an op's arithmetic, from its name, itself, its types and our count."""


@dataclass(frozen=True)
class OpCost:
    """What one op of a graph costs, or several together: bytes are unfused traffic.

    `counted` is the arithmetic as a convention counts it.
    """

    name: str
    kind: str
    scope: str
    work: Work
    reads: Dim
    writes: Dim
    count: int = 1
    counted: Work = NO_WORK


@dataclass(frozen=True)
class Count:
    """All ops of a graph, and where their values live."""

    ops: tuple[OpCost, ...]
    shows: dict[str, tuple[str, ...]]
    """For every value that has no memory of its own: the values whose memory it shows."""
    read_size: dict[str, Dim]
    """Bytes of each value when it is read whole: a repeated one has those of its operand."""
    picked: dict[str, dict[str, Dim]]
    """Bytes that each op reads of its operands: op -> operand -> bytes."""


def count(dag: SafeDAG, recount: Recount | None = None) -> Count:
    """What each op costs, in formulas.  No tensor's data is read; unknown ops cost nothing."""
    products = _contractions(dag)
    absorbed = set(products.values())
    shows: dict[str, tuple[str, ...]] = {}
    read_size = {t.name: t.type.nbytes for t in dag.tensors.values()}
    picked: dict[str, dict[str, Dim]] = {}
    found: list[OpCost] = []
    computed: set[Any] = set()
    for node in dag:
        name, op = node.name, node.op
        types = tuple(dag.types[i] for i in node.inputs)
        out = dag.types[name]
        if is_view(op, types):
            shows[name] = node.inputs[:1]
            whole = read_size[node.inputs[0]]
            read_size[name] = (
                _smaller(out.nbytes, whole) if _repeats(op, types) else _smaller(whole, out.nbytes)
            )
        elif name in absorbed:
            shows[name] = node.inputs
            read_size[name] = 0
        elif isinstance(op, Scalar):  # a number is part of the instruction that uses it
            shows[name], read_size[name] = (), 0
        else:
            read_size[name] = out.nbytes
        if name in shows or isinstance(op, Opaque):
            found.append(OpCost(name, kind_of(op), node.where, NO_WORK, 0, 0))
            continue
        kind, operands = kind_of(op), node.inputs
        if name in products:
            product = dag.nodes[products[name]]
            kind, operands = CONTRACTION, product.inputs
            op, types = product.op, tuple(dag.types[i] for i in operands)
            work, reads = Work(macs=dag.types[product.name].numel), [read_size[i] for i in operands]
        else:
            work, wanted = _work(op, types)
            reads = [
                n if read_size[i] == t.nbytes else _smaller(n, read_size[i])
                for n, t, i in zip(wanted, types, operands, strict=True)
            ]
        if "result" in op.spec:  # several results of one run of an op, which is counted once
            spec = tuple(value for key, value in op.spec.items() if key != "result")
            if (type(op), spec, operands) in computed:
                work, reads = NO_WORK, [0] * len(reads)
            computed.add((type(op), spec, operands))
        picked[name] = dict(zip(operands, reads, strict=True))
        called = CONTRACTION if kind == CONTRACTION else op.name
        counted = recount(called, op, types, out, work) if recount else NO_WORK
        found.append(
            OpCost(name, kind, node.where, work, add_all(reads), out.nbytes, counted=counted)
        )
    return Count(tuple(found), shows, read_size, picked)


def total(name: str, ops: Iterable[OpCost]) -> OpCost:
    """Several ops as one row."""
    ops = list(ops)
    kind, scope = (ops[0].kind, ops[0].scope) if ops else ("", "")
    return OpCost(
        name,
        kind,
        scope,
        _total_work(op.work for op in ops),
        add_all(op.reads for op in ops),
        add_all(op.writes for op in ops),
        sum(op.count for op in ops),
        _total_work(op.counted for op in ops),
    )


def map_work(function: Callable[[Dim], Dim], work: Work) -> Work:
    """A function of each figure."""
    return Work(*(function(getattr(work, f.name)) for f in fields(Work)))


def _total_work(works: Iterable[Work]) -> Work:
    works = list(works)
    return Work(*(add_all(getattr(w, f.name) for w in works) for f in fields(Work)))


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
        elif is_view(node.op, (given,)) and dag.types[node.name].numel == given.numel:
            product_of[node.name] = product
    return found


def _is_product(op: Op) -> bool:
    return op.name in ("binary", "broadcast") and op.spec["kind"] == "multiply"


@lru_cache(KEPT)
def is_view(op: Op, types: tuple[TensorType, ...]) -> bool:
    """Is the result a window on the operand's memory?  So is a chain of such as a definition."""
    if op.is_view or isinstance(op, _WINDOWS):
        return True
    if not isinstance(op, Derived) or len(types) != 1:
        return False
    result = op.trace(*types)[1]
    inner = [v for v in walk([result]) if v.op is not None]
    return all(v.op and is_view(v.op, tuple(o.type for o in v.operands)) for v in inner)


@lru_cache(KEPT)
def _repeats(op: Op, types: tuple[TensorType, ...]) -> bool:
    """May a view show elements more than once?  Else it shows at most what it is a view of."""
    if isinstance(op, Derived):
        inner = walk([op.trace(*types)[1]])
        return any(v.op and _repeats(v.op, tuple(o.type for o in v.operands)) for v in inner)
    return isinstance(op, Repeat | Unfold)


@lru_cache(KEPT)
def _work(op: Op, types: tuple[TensorType, ...]) -> tuple[Work, tuple[Dim, ...]]:
    return op.work(*types), op.reads(*types)


def _smaller(a: Dim, b: Dim) -> Dim:
    """The smaller; the second where it depends."""
    return a if a == b or at_least(b, a) else b


def kind_of(op: Op) -> str:
    """What people call an op: `add` and not `binary`, `reduce sum`."""
    kind = op.spec.get("kind")
    if not isinstance(kind, str):
        return op.name
    return f"reduce {kind}" if isinstance(op, Reduce) else kind


__all__ = ["CONTRACTION", "Count", "OpCost", "count", "is_view", "kind_of", "total"]
