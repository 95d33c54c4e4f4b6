"""ATen's recurrent layers, in and out: each direction of each layer is one op."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from safegraph import value as v
from safegraph.derived.einsum import Linear
from safegraph.derived.recurrent import Gru, Lstm, Recurrent, Rnn, last_step, reordered
from safegraph.derived.shape import Concat, Index
from safegraph.dtypes import is_float
from safegraph.errors import UnsupportedError
from safegraph.frontends.torchscript.site import Site
from safegraph.value import Value, apply

# -- in -------------------------------------------------------------------------------------------


def _layers(make: Callable[[bool], Recurrent]) -> Callable[..., Any]:
    """The row of a module of several layers, with one or two directions."""

    def row(
        x: Value, hx: Any, params: Sequence[Value], biased: bool, layers: int, dropout: float,
        train: bool, both: bool, batch_first: bool,
    ) -> Any:  # fmt: skip
        if train and dropout and layers > 1:
            raise UnsupportedError(
                "dropout between layers draws random numbers: call .eval() on the model"
            )
        states = list(hx) if isinstance(hx, list | tuple) else [hx]
        directions = (False, True) if both else (False,)
        each = 4 if biased else 2
        if len(params) != layers * len(directions) * each:
            return NotImplemented  # a projection of the hidden state
        x = v.permute(x, [1, 0, 2]) if batch_first else x
        last: list[list[Value]] = [[] for _ in states]
        for layer in range(layers):
            outputs = []
            for d, reverse in enumerate(directions):
                at = layer * len(directions) + d
                w, r, *biases = params[at * each : (at + 1) * each]
                start = [_one(s, at) for s in states]
                op = make(reverse)
                outputs.append(apply(op, x, w, r, *start, *biases))
                last[0].append(last_step(op, outputs[-1]))
                if isinstance(op, Lstm):
                    cell = Lstm(reverse, op.gates, "cell")
                    last[1].append(apply(cell, x, w, r, *start, *biases))
            x = outputs[0] if len(outputs) == 1 else apply(Concat(2), *outputs)
        x = v.permute(x, [1, 0, 2]) if batch_first else x
        return [x, *map(_stacked, last)]

    return row


def _one(state: Value, at: int) -> Value:
    return v.squeeze(state, [0]) if state.shape[0] == 1 else apply(Index(0, at), state)


def _stacked(states: Sequence[Value]) -> Value:
    wide = [v.unsqueeze(s, [0]) for s in states]
    return wide[0] if len(wide) == 1 else apply(Concat(0), *wide)


def _cell(op: Recurrent) -> Callable[..., Any]:
    """The row of one step, which is no loop: its definition."""

    def row(x: Value, hx: Any, w: Value, r: Value, b: Any = None, rb: Any = None) -> Any:
        state = tuple(hx) if isinstance(hx, list | tuple) else (hx,)
        xw = apply(Linear(), x, w, *([] if b is None else [b]))
        after = op.step(xw, state, r, rb)
        return list(after) if len(after) > 1 else after[0]

    return row


# fmt: off
ROWS: dict[str, Callable[..., Any]] = {
    "lstm.input":     _layers(lambda reverse: Lstm(reverse)),
    "gru.input":      _layers(lambda reverse: Gru(reverse)),
    "rnn_tanh.input": _layers(lambda reverse: Rnn(reverse)),
    "rnn_relu.input": _layers(lambda reverse: Rnn(reverse, "relu")),
    "lstm_cell":      _cell(Lstm()),
    "gru_cell":       _cell(Gru()),
    "rnn_tanh_cell":  _cell(Rnn()),
    "rnn_relu_cell":  _cell(Rnn(activation="relu")),
}
# fmt: on


# -- out ------------------------------------------------------------------------------------------


def _layer(op: Recurrent, s: Site) -> str | None:
    """One layer of one direction; time is turned around before and after a reverse one."""
    hidden = s.types[2].shape[1]
    order = reordered(op.order, op.letters)
    kept = order == sorted(order)
    if not is_float(s.out.dtype) or (isinstance(op, Gru) and not op.reset_after):
        return None
    if not kept and not isinstance(hidden, int):
        return None

    def placed(variable: str) -> str:
        """The gates in torch's order."""
        if kept:
            return variable
        assert isinstance(hidden, int)
        parts = (f"{variable}[{k * hidden}:{(k + 1) * hidden}]" for k in order)
        return f"aten.cat([{', '.join(parts)}], 0)"

    x, w, r, *rest = s.all
    states = [f"aten.unsqueeze({state}, 0)" for state in rest[: op.states]]
    biases = [placed(b) for b in rest[op.states :]]
    if len(biases) == 1:
        biases.append(f"aten.zeros_like({biases[0]})")
    x = f"aten.flip({x}, [0])" if op.reverse else x
    hx = f"[{', '.join(states)}]" if isinstance(op, Lstm) else states[0]
    name = f"rnn_{op.activation}" if isinstance(op, Rnn) else type(op).__name__.lower()
    params = ", ".join([placed(w), placed(r), *biases])
    call = f"aten.{name}({x}, {hx}, [{params}], {bool(biases)}, 1, 0.0, False, False, False)"
    call = s.call(call) if isinstance(op, Lstm) else call
    if isinstance(op, Lstm) and op.result == "cell":
        return f"aten.squeeze({call}[2], 0)"
    return f"aten.flip({call}[0], [0])" if op.reverse else f"{call}[0]"


ROWS_OUT: dict[Any, Any] = {Lstm: _layer, Gru: _layer, Rnn: _layer}
