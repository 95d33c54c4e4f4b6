"""What a graph costs, as formulas in its free sizes: arithmetic, traffic, memory, parameters."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from html import escape
from math import fsum
from typing import Any

from safegraph import dims
from safegraph.dag import SafeDAG, Tensor
from safegraph.dims import Dim, add_all, sympify
from safegraph.errors import BindingError
from safegraph.extract.conventions import Convention
from safegraph.extract.conventions import convention as named
from safegraph.extract.count import OpCost, count, map_work, total
from safegraph.extract.peak import Peak, minimum_bytes, peak
from safegraph.extract.targets import Target, target
from safegraph.ops import Opaque

DEFAULT_SIZE = 16
"""What a free size is taken as where a number is needed and none was given."""

LABELS = {
    "counted": "",
    "counted_apart": "  and apart from it",
    "macs": "MACs (multiply-adds)",
    "total_flops": "flops",
    "contraction_flops": "  contractions",
    "elementwise_flops": "  elementwise",
    "transcendental_flops": "  transcendental",
    "reduce_flops": "  reductions",
    "memory_reads": "bytes read",
    "memory_writes": "bytes written",
    "bytes_min": "bytes that no fusion avoids",
    "peak_memory": "peak bytes of activations",
    "parameters": "parameters",
    "parameter_bytes": "bytes of parameters",
    "buffers": "buffer elements",
    "buffer_bytes": "bytes of buffers",
    "consts": "constant elements",
    "const_bytes": "bytes of constants",
}
"""What each total is called; `counted` by its convention."""


class Formulas:
    """The totals as SymPy expressions: what `Cost` has of each."""

    @property
    def totals(self) -> dict[str, Dim]:
        """All totals by name, as plain sizes."""
        raise NotImplementedError

    def _formula(self, key: str) -> Any:
        if key not in self.totals:  # of a convention
            raise BindingError(f"there is no {key}: ask for it, as in cost(convention='xla')")
        return sympify(self.totals[key])

    @property
    def macs(self) -> Any:
        """Multiply-adds of contractions: the product of all index sizes of each."""
        return self._formula("macs")

    @property
    def total_flops(self) -> Any:
        """All arithmetic, a multiply-add counted as two."""
        return self._formula("total_flops")

    @property
    def contraction_flops(self) -> Any:
        """Twice the multiply-adds."""
        return self._formula("contraction_flops")

    @property
    def elementwise_flops(self) -> Any:
        """Elements computed by pointwise ops that are not transcendental."""
        return self._formula("elementwise_flops")

    @property
    def transcendental_flops(self) -> Any:
        """Elements computed by exp, log, tanh, pow and the like."""
        return self._formula("transcendental_flops")

    @property
    def reduce_flops(self) -> Any:
        """Combining steps of reductions: elements in, less elements out."""
        return self._formula("reduce_flops")

    @property
    def memory_reads(self) -> Any:
        """Bytes read when no op is fused with another."""
        return self._formula("memory_reads")

    @property
    def memory_writes(self) -> Any:
        """Bytes written when no op is fused with another."""
        return self._formula("memory_writes")

    @property
    def bytes_min(self) -> Any:
        """Bytes that no fusion avoids: inputs, stored tensors and outputs, each once."""
        return self._formula("bytes_min")

    @property
    def peak_memory(self) -> Any:
        """The most bytes of activations alive at one time, a `Max` where it depends: `Peak`."""
        return self._formula("peak_memory")

    @property
    def parameters(self) -> Any:
        """The number of learnable numbers; those that two names share count once."""
        return self._formula("parameters")

    @property
    def parameter_bytes(self) -> Any:
        """Bytes of the parameters."""
        return self._formula("parameter_bytes")

    @property
    def buffers(self) -> Any:
        """The number of elements of the buffers."""
        return self._formula("buffers")

    @property
    def buffer_bytes(self) -> Any:
        """Bytes of the buffers."""
        return self._formula("buffer_bytes")

    @property
    def intensity(self) -> Any:
        """Flops for each byte read or written, no op fused."""
        moved = self.memory_reads + self.memory_writes
        return self.total_flops / moved if moved != 0 else moved

    @property
    def intensity_fused(self) -> Any:
        """Flops for each byte that no fusion avoids: no schedule has more."""
        return self.total_flops / self.bytes_min if self.bytes_min != 0 else self.bytes_min

    @property
    def counted(self) -> Any:
        """The figure of the convention that was asked for; BindingError where none was."""
        return self._formula("counted")

    @property
    def apart(self) -> Any:
        """What the convention counts, but reports apart: XLA's transcendental functions."""
        return self._formula("counted_apart")


@dataclass(frozen=True)
class Cost(Formulas):
    """What a graph costs.

    The properties are SymPy expressions in the free sizes; `str` of one is its formula.  `totals`
    has the same as plain sizes (`safegraph.Dim`), `ops` what each op costs.

    Flops are 2 for each multiply-add of a contraction (padding counted), 1 for each element that a
    pointwise op computes (transcendental functions apart) and 1 for each combining step of a
    reduction.  Bytes are unfused: views cost nothing, a repeated operand is read at the size that
    it had before, and an op that picks reads what it picks.
    """

    name: str
    ops: tuple[OpCost, ...]
    tensors: Mapping[str, tuple[Dim, Dim]]
    """Elements and bytes of the tensors of each kind."""
    peak: Peak
    minimum: Dim
    """Bytes that no fusion avoids."""
    unknown: Mapping[str, int] = field(default_factory=dict)
    """Ops that no table knows, which are not counted: how often each occurs."""
    convention: Convention | None = None
    assumptions: Mapping[str, tuple[str, Dim, Dim]] = field(default_factory=dict)
    """What must hold of the free sizes, as in the graph."""

    @cached_property
    def totals(self) -> dict[str, Dim]:
        """All totals by name, as plain sizes."""
        sums = total("total", self.ops)
        stored = {
            key: self.tensors.get(kind, (0, 0))[part]
            for kind, names in (
                ("parameter", ("parameters", "parameter_bytes")),
                ("buffer", ("buffers", "buffer_bytes")),
                ("const", ("consts", "const_bytes")),
            )
            for part, key in enumerate(names)
        }
        counted = {}
        if self.convention:
            counted["counted"] = self.convention.figure(sums.counted)
        if self.convention and self.convention.apart:
            counted["counted_apart"] = self.convention.apart(sums.counted)
        return {
            **counted,
            "macs": sums.work.macs,
            "total_flops": sums.work.flops,
            "contraction_flops": 2 * sums.work.macs,
            "elementwise_flops": sums.work.elementwise,
            "transcendental_flops": sums.work.transcendental,
            "reduce_flops": sums.work.reduce,
            "memory_reads": sums.reads,
            "memory_writes": sums.writes,
            "bytes_min": self.minimum,
            "peak_memory": self.peak.bytes,
            **stored,
        }

    def bind(self, sizes: Mapping[str, Dim]) -> Cost:
        """The cost for these values of free sizes.

        Raises BindingError for a name that is not in it, and for values that the graph refuses.
        """
        unknown = [name for name in sizes if name not in self.names]
        if unknown:
            raise BindingError(
                f"{self.name} has no free size {', '.join(unknown)}; "
                f"it has {', '.join(sorted(self.names)) or 'none'}"
            )
        for text, (relation, a, b) in self.assumptions.items():
            x, y = dims.substitute(a, sizes), dims.substitute(b, sizes)
            if isinstance(x, int) and isinstance(y, int) and not dims.holds((relation, x, y), {}):
                raise BindingError(f"{self.name} needs {text}, which is not so for {dict(sizes)}")

        @cache
        def at(dim: Dim) -> Dim:
            return dims.substitute(dim, sizes)

        def bound(op: OpCost) -> OpCost:
            work, counted = map_work(at, op.work), map_work(at, op.counted)
            return replace(op, work=work, reads=at(op.reads), writes=at(op.writes), counted=counted)

        return replace(
            self,
            ops=tuple(map(bound, self.ops)),
            peak=self.peak.bind(sizes),
            minimum=at(self.minimum),
        )

    @cached_property
    def names(self) -> frozenset[str]:
        """The names of the free sizes in the formulas."""
        found = {d for op in self.ops for d in (*vars(op.work).values(), op.reads, op.writes)}
        return dims.names((*found, self.minimum, *(alive for _, alive in self.peak.moments)))

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
        rows = [total(name, group) for name, group in groups.items()]
        return sorted(rows, key=_magnitude, reverse=True) if what == "kind" else rows

    def seconds(
        self, on: str | Target, sizes: Mapping[str, int] | None = None, *, fused: bool = False
    ) -> float:
        """The roofline time on a target: no op is faster than its arithmetic, nor than its bytes.

        The sum over the ops; with `fused`, one op with all the arithmetic and only the bytes that
        no fusion avoids, which no schedule beats.  Starting an op takes no time here.  Raises
        ShapeError where a free size has no value.
        """
        machine = target(on)
        bound = self.bind(sizes) if sizes else self
        everything = total("all", bound.ops)
        whole = OpCost("", "", "", everything.work, bound.minimum, 0)
        return fsum(_roofline(op, machine) for op in ((whole,) if fused else bound.ops))

    def plot(self, size: str, *others: Cost, **options: Any) -> Any:
        """A total over a free size, of this cost and others: see `safegraph.extract.plots.plot`."""
        from safegraph.extract.plots import plot

        return plot((self, *others), size, **options)

    def to_dict(self) -> dict[str, Any]:
        """The totals by name; formulas are strings, numbers too."""
        formulas = {key: str(value) for key, value in self.totals.items()}
        chosen = {"convention": self.convention.name} if self.convention else {}
        return {**chosen, **formulas, "unknown": dict(self.unknown)}

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    @property
    def _lines(self) -> list[tuple[str, str]]:
        counted = self.convention.label if self.convention else ""
        lines = [
            (label or counted, str(self.totals[key]))
            for key, label in LABELS.items()
            if key in self.totals
        ]
        return lines + [
            (f"not counted: {n} x {kind}", "unknown op") for kind, n in self.unknown.items()
        ]

    def __str__(self) -> str:
        width = max(len(label) for label, _ in self._lines)
        return "\n".join(f"{label:<{width}}  {value}" for label, value in self._lines)

    def _repr_html_(self) -> str:
        """The totals and the kinds of op as tables, for notebooks."""
        header, rows = table(self, "kind")
        return _html((self.name, ""), self._lines) + _html(header, rows)


def table(cost: Cost, by: str) -> tuple[list[str], list[list[Any]]]:
    """Header and rows of what is spent where."""
    header = [by, "ops", "MACs", "flops", "bytes read", "bytes written"]
    rows: list[list[Any]] = [
        [r.name or "-", r.count, r.work.macs, r.work.flops, r.reads, r.writes] for r in cost.by(by)
    ]
    if cost.convention:
        header.append(f"as {cost.convention.name}")
        for row, r in zip(rows, cost.by(by), strict=True):
            row.append(cost.convention.figure(r.counted))
    return header, rows


def cost(
    dag: SafeDAG, allow_unknown: bool = False, convention: str | Convention | None = None
) -> Cost:
    """What a graph costs, as formulas in its free sizes.  No tensor's data is read.

    `convention` adds the count of another tool (`safegraph.extract.conventions`).  Raises
    UnsupportedError naming all unknown ops; with `allow_unknown` they are left out and listed in
    `Cost.unknown`.
    """
    if not allow_unknown:
        dag.require_known("cannot tell the cost")
    chosen = None if convention is None else named(convention)
    with dims.assuming():  # what the graph assumes, its ops assume again
        counted = count(dag, chosen.recount if chosen else None)
    stored = {
        kind: (add_all(t.type.numel for t in group), add_all(t.type.nbytes for t in group))
        for kind in ("parameter", "buffer", "const")
        if (group := distinct(dag.kind(kind)))
    }
    unknown = Counter(node.op.kind for node in dag.unknown if isinstance(node.op, Opaque))
    return Cost(
        dag.name,
        counted.ops,
        stored,
        peak(dag, counted),
        minimum_bytes(dag, counted),
        dict(unknown),
        chosen,
        dag.assumptions,
    )


def distinct(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors without those whose data is that of one before: the same object, or memory."""
    seen: dict[Any, Tensor] = {}
    for t in tensors:
        memory = getattr(t.data, "__array_interface__", None)
        where = memory["data"][0] if memory else id(t.data)
        seen.setdefault(t.name if t.data is None else (where, t.type), t)
    return list(seen.values())


def _roofline(op: OpCost, machine: Target) -> float:
    def number(dim: Dim) -> int:
        return dims.evaluate(dim, {})

    work = op.work
    compute = (
        2 * number(work.macs) / machine.contraction_flops
        + (number(work.elementwise) + number(work.reduce)) / machine.elementwise_flops
        + number(work.transcendental) / machine.transcendental_flops
    )
    return max(compute, (number(op.reads) + number(op.writes)) / machine.bytes)


def _magnitude(op: OpCost) -> tuple[int, int]:
    free = dims.names((op.work.flops, op.reads))
    at = dict.fromkeys(free, DEFAULT_SIZE)
    return dims.evaluate(op.work.flops, at), dims.evaluate(op.reads, at)


def _html(header: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    def line(cells: Sequence[Any], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(str(c))}</{tag}>" for c in cells) + "</tr>"

    return f"<table>{line(header, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"


__all__ = ["DEFAULT_SIZE", "LABELS", "Cost", "OpCost", "cost", "distinct", "table"]
