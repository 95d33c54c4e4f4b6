"""Batch dimensions: taken away (`unbatch`), put in (`batch`), made free (`rebatch`), with a proof.

All three are one table of laws (`safegraph.rules.batch`).  A batch that is a free size is followed
by its place and as a polynomial, never by its value, so what is accepted holds for every batch; one
that is a number holds for that number.  `rebatch` takes a batch away and puts a free one in: what a
file computes for its batch is kept, whatever sizes were written into its reshapes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from keyword import iskeyword
from operator import index
from typing import SupportsIndex

from safegraph import dims
from safegraph.batch.batching import Many, lifted, same_terms
from safegraph.batch.provenance import named_graph, note
from safegraph.batch.unbatching import State, Unbatching
from safegraph.batch.verification import At, Verification, verify
from safegraph.dag import Node, SafeDAG, Tensor
from safegraph.dims import Dim, Size
from safegraph.errors import BatchError, SafeGraphError
from safegraph.op import axis_of
from safegraph.ops import Group, Ungroup
from safegraph.ops.sample import Place
from safegraph.rules.batch import Mixed
from safegraph.rules.batch_rows import moved, repeated, tidy
from safegraph.value import Value, tensor, walk

Axis = int | Mapping[str, int | None] | str


@dataclass(frozen=True)
class Refusal:
    """Why a batch cannot be taken away.

    The op, its node and place in the source where samples meet; the axis of its operand; the
    factors of the axes of each operand, such as "[8 batch] [64]"; and the nodes from the batch axis
    of an input up to there.
    """

    reason: str
    op: str = ""
    node: str = ""
    where: str = ""
    axis: int | None = None
    factors: tuple[str, ...] = ()
    path: tuple[str, ...] = ()

    def __str__(self) -> str:
        at = f"{self.op} at node {self.node}" + (f" ({self.where})" if self.where else "")
        lines = [f"{at}: {self.reason}" if self.op else self.reason]
        lines += [f"operand {i + 1} is {text}" for i, text in enumerate(self.factors)]
        if self.path:
            lines.append(f"the batch comes by way of {' -> '.join(_shortened(self.path))}")
        return "\n  ".join(lines)


def _shortened(path: Sequence[str]) -> Sequence[str]:
    return path if len(path) <= 12 else (*path[:5], "...", *path[-6:])


@dataclass(frozen=True)
class Verdict:
    """Whether the batch of a graph can be taken away; if so, the graph for one sample."""

    original: SafeDAG
    size: Dim
    refusal: Refusal | None
    outputs: Mapping[str, str] = field(default_factory=dict)
    """Of each output: "batched" (its batch axis is gone), "merged" (the batch was a factor of an
    axis, or no axis) or "constant" (the same for all samples)."""
    axes: Mapping[str, At] = field(default_factory=dict)
    """Where the batch is in each input and output of the original; None: nowhere, or squeezed."""
    laws: tuple[str, ...] = ()
    """The laws by which the batch was taken through the ops, in order of first use."""
    result: SafeDAG | None = None

    def __bool__(self) -> bool:
        return self.accepted

    def __str__(self) -> str:
        if self.refusal is not None:
            return f"refused: {self.refusal}"
        return "accepted: " + ", ".join(f"{o} is {how}" for o, how in self.outputs.items())

    @property
    def accepted(self) -> bool:
        """Is there a graph for one sample?"""
        return self.refusal is None

    @property
    def dag(self) -> SafeDAG:
        """The graph for one sample; raises BatchError with the refusal where there is none."""
        if self.result is None:
            raise BatchError(
                f"the batch of {self.original.name} cannot be taken away: {self.refusal}\n"
                f"  {_ADVICE}"
            )
        return self.result

    def verify(self, batches: Sequence[int] = (1, 2, 3, 5), seed: int = 0) -> Verification:
        """Compare both graphs in NumPy on random inputs, for each number of samples.

        Every sample of the original's outputs with the result on that sample; and the original
        again with another first sample: all other samples must be the same bits.  A batch that is
        a number is tried with that number alone.
        """
        return verify(self.original, self.dag, self.axes, self.size, batches, seed)


_ADVICE = "keep the samples apart there, or say with `axis` which axis of which input is the batch"


def unbatch(dag: SafeDAG, axis: Axis = 0) -> Verdict:
    """Take the batch away: a verdict, with the graph for one sample or with the refusal.

    `axis` is that axis of every input; or input -> axis, None or left out for inputs without a
    batch; or the name of a free size.  Raises BatchError where an input has no such axis, or the
    axes are of different sizes.
    """
    places, size = _start(dag, axis)
    walk = Unbatching(dag, places, size)
    try:
        walk.run()
        found = {o: walk.output(o) for o in dag.outputs}
        result = walk.graph({o: s.value for o, s in found.items()})
        _without_batch(dag, result, walk)
    except Mixed as problem:
        return Verdict(dag, size, _refusal(walk, problem))
    except BatchError as problem:
        return Verdict(dag, size, Refusal(str(problem)))
    outputs = {
        o: "constant" if not s.batched else "batched" if s.place else "merged"
        for o, s in found.items()
    }
    axes: dict[str, At] = {t.name: _at(places.get(t.name)) for t in dag.inputs}
    axes |= {o: _at(s.places[0] if s.places and not s.squeezed else None) for o, s in found.items()}
    return Verdict(dag, size, None, outputs, axes, tuple(walk.laws), result)


def batch(dag: SafeDAG, size: str | int | Mapping[str, str | int] = "batch") -> SafeDAG:
    """The graph for many samples: inputs get a leading axis of this size, as `vmap` gives them.

    input -> size gives one to these inputs alone.  Outputs that depend on none of them have none.
    The proof: the batch taken away again gives the same terms.  Raises BatchError where there is no
    such graph.
    """
    given = size if isinstance(size, Mapping) else {t.name: size for t in dag.inputs}
    _require_inputs(dag, given)
    if not given:
        raise BatchError(f"no input of {dag.name} was given a batch")
    sizes = list(dict.fromkeys(_new_size(dag, s) for s in given.values()))
    if len(sizes) > 1:
        raise BatchError(f"one batch has one size, not {', '.join(map(str, sizes))}")
    return _with_batch(dag, dict.fromkeys(given, 0), {}, sizes[0])


def rebatch(dag: SafeDAG, name: str = "batch", axis: Axis = 0) -> SafeDAG:
    """The same graph for any number of samples, with the batch axes in their places.

    The batch is taken away and put in again with a free size: equal to the original for its own
    batch.  An output whose batch of 1 was squeezed has it first.  Raises BatchError where samples
    interact.
    """
    verdict = unbatch(dag, axis)
    small = verdict.dag
    many = _new_size(small, name)
    inputs = {t.name: a for t in dag.inputs if isinstance(a := verdict.axes[t.name], int)}
    return _with_batch(small, inputs, verdict.axes, many)


# -- helpers --------------------------------------------------------------------------------------


def _start(dag: SafeDAG, axis: Axis) -> tuple[dict[str, Place], Dim]:
    """The batch axis of each input, and its size."""
    inputs = {t.name: t.type for t in dag.inputs}
    places: dict[str, Place] = {}
    if isinstance(axis, str):
        if axis not in {n for t in inputs.values() for n in dims.names(t.shape)}:
            free = ", ".join(dag.sizes) or "none"
            raise BatchError(f"no input of {dag.name} has the free size {axis!r}; it has {free}")
        for name, t in inputs.items():
            at = [i for i, d in enumerate(t.shape) if str(d) == axis]
            merged = [d for d in t.shape if axis in dims.names(d) and str(d) != axis]
            if merged or len(at) > 1:
                raise BatchError(
                    f"input {name}: {t} has {axis} more than once, or in a larger size: say which "
                    f"axis is the batch, by input -> axis"
                )
            places.update((name, Place(i)) for i in at)
    else:
        wanted = axis if isinstance(axis, Mapping) else dict.fromkeys(inputs, axis)
        _require_inputs(dag, wanted)
        for name, a in wanted.items():
            if a is None:
                continue
            number = _integer(a)
            if number is None:
                raise BatchError(
                    f"input {name}: the batch axis is a number, or None for no batch, not {a!r}"
                )
            try:
                places[name] = Place(axis_of(number, inputs[name].rank))
            except SafeGraphError as error:
                raise BatchError(
                    f"input {name}: {inputs[name]}: {error}; say which inputs have a batch, by "
                    "input -> axis"
                ) from None
    sizes = {n: inputs[n].shape[p.axis] for n, p in places.items()}
    if not sizes:
        raise BatchError(f"no input of {dag.name} was said to have a batch")
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{n}: {d}" for n, d in sizes.items())
        raise BatchError(
            f"the batch axes have different sizes: {listed}; say which inputs have none, by "
            "input -> None (--axis input=none)"
        )
    size = next(iter(sizes.values()))
    if size == 0:
        raise BatchError("the batch has no samples: its axes are of size 0")
    if isinstance(size, Size) and not str(size).isidentifier():
        raise BatchError(f"the batch is of size {size}, which is no single free size")
    for name, t in inputs.items():
        rest = [d for i, d in enumerate(t.shape) if name not in places or i != places[name].axis]
        if dims.names(size) & dims.names(tuple(rest)):
            raise BatchError(f"input {name}: {t}: other axes than its batch have the size {size}")
    return places, size


def _at(place: Place | None) -> At:
    if place is None:
        return None
    return place.axis if place.whole else (place.axis, place.outer, place.inner)


def _integer(x: object) -> int | None:
    """An integer, also one of NumPy's; None for anything else, and for booleans."""
    return None if isinstance(x, bool) or not isinstance(x, SupportsIndex) else index(x)


def _require_inputs(dag: SafeDAG, names: Iterable[object]) -> None:
    own = [t.name for t in dag.inputs]
    unknown = [str(n) for n in names if n not in own]
    if unknown:
        raise BatchError(
            f"{dag.name} has no input {', '.join(unknown)}; it has {', '.join(own) or 'none'}"
        )


def _new_size(dag: SafeDAG, size: str | int) -> Dim:
    number = _integer(size)
    if number is not None:
        if number < 1:
            raise BatchError(f"a batch has at least one sample, not {number}")
        return number
    if not isinstance(size, str) or not size.isidentifier() or iskeyword(size):
        raise BatchError(
            f"the size of a batch is a number, or a name of letters, digits and _, not {size!r}"
        )
    if size in dag.sizes:
        raise BatchError(f"{dag.name} has a free size {size} already: choose another name")
    return dims.size(size)


def _without_batch(dag: SafeDAG, result: SafeDAG, walk: Unbatching) -> None:
    """Raise Mixed where a size or number of the graph for one sample has the batch in it."""
    for node in result if walk.names else ():
        spec = tuple(node.op.spec.values())
        if walk.names & (dims.names(result.types[node.name].shape) | dims.names(spec)):
            sources = (n for v, n in walk.origin.items() if v.op is node.op)
            raise walk.depends_on_size(next(sources, walk.at))


def _refusal(walk: Unbatching, problem: Mixed) -> Refusal:
    node = walk.at
    states = [walk.states[i] for i in node.inputs]
    path = [node.name]
    batched = (i for i, s in zip(node.inputs, states, strict=True) if s.batched)
    current = None if problem.by_size else next(batched, None)
    current = walk.parents.get(node.name) if current is None else current
    while current is not None:
        path.append(current)
        current = walk.parents.get(current)
    factors = tuple(
        f"{name}: {_factors(s, walk.size)}" for name, s in zip(node.inputs, states, strict=True)
    )
    return Refusal(
        str(problem), node.op.name, node.name, node.where, problem.axis, factors, tuple(path[::-1])
    )


def _factors(state: State, size: Dim) -> str:
    """The factors of each axis, the batch by its name: [batch] [64], [8 batch]."""
    label = str(size) if isinstance(size, Size) else f"batch={size}"
    place = state.places[0] if state.places else None
    parts = []
    for axis, d in enumerate(state.type.shape):
        if place is None or axis != place.axis:
            parts.append(f"[{d}]")
        else:
            around = (str(place.outer), label, str(place.inner))
            parts.append(f"[{' '.join(p for p in around if p != '1')}]")
    return f"{state.type.dtype} {' '.join(parts) or 'scalar'}"


def _with_batch(
    dag: SafeDAG, inputs: Mapping[str, int], outputs: Mapping[str, At], size: Dim
) -> SafeDAG:
    """The graph with a batch at these axes of inputs, and at these places of outputs."""
    tensors, start = [], {}
    for t in dag.tensors.values():
        if t.name in inputs:
            axis = inputs[t.name]
            shape = (*t.type.shape[:axis], size, *t.type.shape[axis:])
            t = Tensor(t.name, t.kind, t.type.with_shape(shape))
            start[t.name] = moved(tensor(t.name, t.type), axis, 0)
        tensors.append(t)
    values = lifted(dag, start, size)
    with dims.assuming():
        ends = {o: _placed(values[v], outputs.get(o), size) for o, v in dag.outputs.items()}
    found = _named(dag, values, ends, tensors)
    _prove(dag, found, inputs, size)
    return found


def _placed(many: Many, at: At, size: Dim) -> Value:
    """An output with its batch where it is to be."""
    if not many.batched:
        return (
            many.value
            if at is None
            else _placed(Many(repeated(many.value, size), many.type, True), at, size)
        )
    if at is None:
        return many.value
    if isinstance(at, int):
        return moved(many.value, 0, at)
    axis, outer, inner = at
    wide, value = 1 + (outer != 1), many.value
    if outer != 1 and inner != 1:
        factors = tuple((-1, inner) if a == axis + 1 else (-1,) for a in range(value.rank))
        value, wide = tidy(Ungroup(factors), value), 3
    value = moved(value, 0, axis + (outer != 1))
    return tidy(
        Group(tuple(max(wide, 2) if a == axis else 1 for a in range(many.value.rank - 1))), value
    )


def _named(
    dag: SafeDAG, values: Mapping[str, Many], ends: Mapping[str, Value], tensors: Sequence[Tensor]
) -> SafeDAG:
    """The graph of these values, with the names and places in the source of the original."""
    origin: dict[Value, Node] = {}
    own: dict[Value, str] = {}
    for node in dag:
        note(origin, values[node.name].value, node)
        own.setdefault(values[node.name].value, node.name)
    order = walk(ends.values())
    names = {v: v.name for v in order if v.op is None}
    names |= {tensor(t.name, t.type): t.name for t in tensors}
    return named_graph(dag, order, ends, tensors, names, own, origin)


def _prove(dag: SafeDAG, found: SafeDAG, inputs: Mapping[str, int], size: Dim) -> None:
    """The batch taken away again must give the terms of the graph for one sample."""
    walk = Unbatching(found, {n: Place(a) for n, a in inputs.items()}, size)
    try:
        walk.run()
        after = {o: walk.output(o).value for o in found.outputs}
    except Mixed as problem:
        raise BatchError(
            f"{dag.name} has no form for many samples: {_refusal(walk, problem)}"
        ) from None
    before = dag.to_values()
    with dims.assuming():
        if not same_terms([(after[o], before[v]) for o, v in dag.outputs.items()]):
            raise BatchError(
                f"{dag.name}: what was found for many samples is not proved to be the graph: "
                "give the batch to other inputs"
            )


__all__ = ["Refusal", "Verdict", "Verification", "batch", "rebatch", "unbatch"]
