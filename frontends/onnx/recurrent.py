"""ONNX's LSTM, GRU and RNN, in and out: each direction is one op.

ONNX has one axis for both directions in W, R, B, the states and the results, and both biases in one
tensor; the gates are in the orders "iofc" and "zrh" (here "iofg" and "zrn").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from safegraph import value as v
from safegraph.derived.recurrent import Gru, Lstm, Recurrent, Rnn, last_step, reordered
from safegraph.derived.shape import Concat, Expand, Index
from safegraph.dtypes import is_float, to_numpy
from safegraph.frontends.onnx.call import Call, Unsayable
from safegraph.frontends.onnx.nodes import vector
from safegraph.ops import Repeat, Scalar, Squeeze, Unsqueeze
from safegraph.value import Value, apply

if TYPE_CHECKING:
    from safegraph.frontends.onnx.writer import Slot, Writer

GATES = {"LSTM": "iofg", "GRU": "zrn", "RNN": ""}
ACTIVATIONS = {"LSTM": ["sigmoid", "tanh", "tanh"], "GRU": ["sigmoid", "tanh"], "RNN": ["tanh"]}
DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}


# -- in -------------------------------------------------------------------------------------------


def read(
    n: Call, x: Value, w: Value, r: Value, b: Any = None, lengths: Any = None, *more: Any
) -> Any:
    """The results of a recurrent node: all outputs, the last hidden state, the last cell state."""
    h, c, peepholes = (*more, None, None, None)[:3]
    by_batch = bool(n.attribute("layout", 0))
    directions = DIRECTIONS[n.attribute("direction", "forward")]
    ops = _ops(n, directions)
    n.attribute("hidden_size", 0)  # that of r
    if peepholes is not None:
        raise Unsayable
    x = v.permute(x, [1, 0, 2]) if by_batch else x
    steps, batch = x.shape[:2]
    if lengths is not None:
        known = n.constant(4)
        if known is None or not isinstance(steps, int) or bool((known != steps).any()):
            raise Unsayable  # samples of different lengths
    hidden = r.shape[2]
    outputs: list[Value] = []
    cells: list[Value] = []
    for d, op in enumerate(ops):
        wd, rd = _one(w, d), _one(r, d)
        biases = []
        if b is not None:
            both, size = _one(b, d), wd.shape[0]
            biases = [v.slice_axis(both, 0, 0, size), v.slice_axis(both, 0, size, None)]
        state = [
            v.full(0, (batch, hidden), x.dtype) if s is None else _one(s, d, 1 if by_batch else 0)
            for s in (h, c)[: op.states]
        ]
        operands = (x, wd, rd, *state, *biases)
        outputs.append(apply(op, *operands))
        if isinstance(op, Lstm) and len(n.used) > 2 and n.used[2]:
            cells.append(apply(Lstm(op.reverse, op.gates, "cell"), *operands))
    results: list[Value | None] = [None, None, None]
    if n.used[0]:
        y = _joined(outputs, 1)
        results[0] = v.permute(y, [2, 0, 1, 3]) if by_batch else y
    if len(n.used) > 1 and n.used[1]:
        last = [last_step(op, y) for op, y in zip(ops, outputs, strict=True)]
        results[1] = _joined(last, 1 if by_batch else 0)
    if cells:
        results[2] = _joined(cells, 1 if by_batch else 0)
    return tuple(results[: len(n.used)])


def _ops(n: Call, directions: Sequence[bool]) -> list[Recurrent]:
    """The op of each direction; Unsayable for activations that are not the usual ones."""
    usual = ACTIVATIONS[n.op]
    given = [a.lower() for a in n.attribute("activations", usual * len(directions))]
    each = [given[i : i + len(usual)] for i in range(0, len(given), len(usual))]
    if len(each) != len(directions):
        raise Unsayable
    if n.op == "RNN" and all(a in (["tanh"], ["relu"]) for a in each):
        return [Rnn(reverse, kind) for reverse, (kind,) in zip(directions, each, strict=True)]
    if any(a != usual for a in each):
        raise Unsayable
    if n.op == "GRU":
        after = bool(n.attribute("linear_before_reset", 0))
        return [Gru(reverse, GATES["GRU"], after) for reverse in directions]
    if n.attribute("input_forget", 0):
        raise Unsayable
    return [Lstm(reverse, GATES["LSTM"]) for reverse in directions]


def _one(x: Value, direction: int, axis: int = 0) -> Value:
    """What is of one direction."""
    return v.squeeze(x, [axis]) if x.shape[axis] == 1 else apply(Index(axis, direction), x)


def _joined(parts: Sequence[Value], axis: int) -> Value:
    wide = [v.unsqueeze(p, [axis]) for p in parts]
    return wide[0] if len(wide) == 1 else apply(Concat(axis), *wide)


# -- out ------------------------------------------------------------------------------------------


def write(w: Writer, slot: Slot, op: Recurrent, *operands: Slot) -> ir.Value | None:
    """One direction as a node; the results of an LSTM share it."""
    hidden = operands[2].type.shape[1]
    if not is_float(slot.type.dtype) or not isinstance(hidden, int):
        return None
    cell = isinstance(op, Lstm) and op.result == "cell"
    key = (type(op), *(value for name, value in op.spec.items() if name != "result"))
    outputs = w.shared(key, operands, lambda: _results(w, op, hidden, operands))
    return w("Squeeze", outputs[2 if cell else 0], vector([0 if cell else 1]))


def _results(w: Writer, op: Recurrent, hidden: int, operands: Sequence[Slot]) -> Sequence[ir.Value]:
    x, weight, recurrent, *rest = operands
    states, biases = rest[: op.states], rest[op.states :]
    kind = type(op).__name__.upper()
    order = reordered(op.order, GATES[kind] or op.order)
    rows = np.concatenate([np.arange(k * hidden, (k + 1) * hidden) for k in order])

    def placed(part: Slot) -> Any:
        """The gates in ONNX's order."""
        return part if order == sorted(order) else w("Gather", part, rows, axis=0)

    def one(part: Any) -> ir.Value:
        return w("Unsqueeze", part, vector([0]))

    bias = None
    if biases:
        zeros = np.zeros(len(rows), to_numpy(x.type.dtype))
        parts = [placed(biases[0]), placed(biases[1]) if len(biases) > 1 else zeros]
        bias = one(w("Concat", *parts, axis=0))
    start = [None if all(map(_is_zero, states)) else one(s) for s in states]
    attributes: dict[str, Any] = {
        "hidden_size": hidden,
        "direction": "reverse" if op.reverse else "forward",
    }
    if isinstance(op, Gru):
        attributes["linear_before_reset"] = int(op.reset_after)
    if isinstance(op, Rnn) and op.activation != "tanh":
        attributes["activations"] = ["Relu"]
    inputs = [x, one(placed(weight)), one(placed(recurrent)), bias, None, *start]
    return w.results(kind, inputs, 3 if isinstance(op, Lstm) else 2, **attributes)


def _is_zero(slot: Slot) -> bool:
    """Is it a repeated 0, which ONNX takes where nothing is given?"""
    while isinstance(slot.op, Repeat | Unsqueeze | Squeeze | Expand | Index):
        slot = slot.operands[0]
    return isinstance(slot.op, Scalar) and slot.op.value == 0


ROWS_IN = {"LSTM": read, "GRU": read, "RNN": read}
ROWS_OUT = {Lstm: write, Gru: write, Rnn: write}
