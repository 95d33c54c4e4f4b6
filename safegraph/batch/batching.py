"""The walk that puts a batch in: each op on many samples, by the same table read backwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from safegraph import dims
from safegraph.dag import SafeDAG
from safegraph.derived.base import Derived
from safegraph.derived.pointwise import Broadcast, Prelu, Where
from safegraph.dims import Dim
from safegraph.errors import BatchError
from safegraph.op import Op, TensorType
from safegraph.ops import Group, Permute, Squeeze, Ungroup, Unsqueeze
from safegraph.rules.batch import TABLE
from safegraph.rules.batch_rows import tidy
from safegraph.value import Value, apply, reshape, squeeze, tensor, unsqueeze, walk


@dataclass(frozen=True)
class Many:
    """A value of the graph for one sample, and for many: with a leading batch axis if `batched`."""

    value: Value
    type: TensorType
    batched: bool = False


def lifted(dag: SafeDAG, inputs: Mapping[str, Value], size: Dim) -> dict[str, Many]:
    """Every value of a graph for many samples, from inputs with a leading batch axis."""
    found: dict[str, Many] = {}
    for t in dag.tensors.values():
        value = inputs.get(t.name)
        found[t.name] = Many(value or tensor(t.name, t.type), t.type, value is not None)
    with dims.assuming():
        for node in dag:
            operands = [found[i] for i in node.inputs]
            try:
                found[node.name] = _step(node.op, operands, size)
            except BatchError as error:
                where = f" ({node.where})" if node.where else ""
                raise BatchError(f"node {node.name}{where}: {error}") from None
    return found


def _step(op: Op, operands: Sequence[Many], size: Dim) -> Many:
    types = tuple(m.type for m in operands)
    op, out = op.normal(*types), op.type(*types)
    values, flags = [m.value for m in operands], [m.batched for m in operands]
    if not any(flags):
        return Many(apply(op, *values), out)
    row = TABLE.get(type(op))
    value = row.lift(op, values, flags, size) if row else None
    if value is not None:
        return Many(value, out, True)
    if not isinstance(op, Derived):
        raise BatchError(
            f"{op.name} has no form for many samples: give the batch to other inputs, or leave "
            "this op out"
        )
    leaves, result = op.trace(*types)
    inner: dict[Value, Many] = dict(zip(leaves, operands, strict=True))
    for part in walk([result]):
        if part not in inner:
            assert part.op is not None, "leaves are given"
            inner[part] = _step(part.op, [inner[o] for o in part.operands], size)
    return inner[result]


def same_terms(pairs: Sequence[tuple[Value, Value]]) -> bool:
    """Are the values one and the same, if need be when all definitions are opened?"""
    if all(a is b for a, b in pairs):
        return True
    done: dict[Value, Value] = {}
    return all(_core(a, done) is _core(b, done) for a, b in pairs)


def _core(value: Value, done: dict[Value, Value]) -> Value:
    """A value in core ops, each view in its one form."""
    opened: dict[Value, Value] = {}
    stack = [value]
    while stack:
        top = stack[-1]
        needed = [opened[top]] if top in opened else top.operands
        waiting = [v for v in needed if v not in done]
        if top in done:
            stack.pop()
        elif waiting:
            stack += waiting
        elif top.op is None:
            done[top] = top
        elif top in opened:
            done[top] = done[opened[top]]
        elif isinstance(top.op, Derived):
            opened[top] = top.op.define(*_without_leading_ones(top, done))
        else:
            core = _canonical(top.op, *(done[o] for o in top.operands))
            done[top] = core
            done.setdefault(core, core)
    return done[value]


def _canonical(op: Op, *operands: Value) -> Value:
    """The op applied to operands of this form; a view in the one form that it has.

    Axes of size 1 are inserted last, and what is only regrouped is one regrouping: which of two
    axes of size 1 is which, or by way of which shape another came about, nothing tells.
    """
    if not isinstance(op, Permute | Squeeze | Unsqueeze | Group | Ungroup):
        return apply(op, *operands)
    (x,) = operands
    shape = op.type(x.type).shape
    core = x.operands[0] if isinstance(x.op, Unsqueeze) else x
    core = squeeze(core, [a for a, d in enumerate(core.shape) if d == 1])
    if isinstance(op, Permute):
        kept = [a for a in op.order if x.shape[a] != 1]
        core = tidy(Permute(tuple(sorted(kept).index(a) for a in kept)), core)
    else:
        while isinstance(core.op, Group | Ungroup):
            (core,) = core.operands
        core = reshape(core, [d for d in shape if d != 1])
    return unsqueeze(core, [a for a, d in enumerate(shape) if d == 1])


def _without_leading_ones(value: Value, done: Mapping[Value, Value]) -> list[Value]:
    """Operands in core ops; where they broadcast, without leading axes of size 1 for nothing."""
    operands = [done[o] for o in value.operands]
    if not isinstance(value.op, Broadcast | Where | Prelu):
        return operands
    for i, x in enumerate(operands):
        rank = max((o.rank for k, o in enumerate(operands) if k != i), default=0)
        if isinstance(x.op, Unsqueeze) and x.rank <= rank:
            ones = 0
            while ones in x.op.axes:
                ones += 1
            operands[i] = tidy(Squeeze(tuple(range(ones))), x) if ones else x
    return operands
