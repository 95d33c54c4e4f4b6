"""Recurrent layers: one direction of one layer is one op, x [t, n, i] -> [t, n, h].

The operands of all: x [t, n, i]; w [g*h, i] and r [g*h, h], the weights of the g gates of the input
and of the state, one gate after the other; the state before the first step [n, h]; and perhaps the
biases b [g*h], added to x w, and rb [g*h], added to h r.  Formats hold the gates in other orders:
`gates` names the order, so that weights stay as they are.

A definition is the loop unrolled, so it needs a known number of steps; type and work do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any, ClassVar

import numpy as np

from safegraph.derived.base import Derived, randomly
from safegraph.derived.einsum import Linear
from safegraph.derived.norm import widened
from safegraph.derived.pointwise import Relu, Sigmoid
from safegraph.derived.shape import Concat, Index
from safegraph.dims import Dim, Shape, assuming, require_same
from safegraph.errors import ShapeError
from safegraph.op import Op, TensorType, Work
from safegraph.value import Value, apply, slice_axis, tensor, unsqueeze, walk

State = tuple[Value, ...]
ACTIVATIONS = ("tanh", "relu")


class Recurrent(Derived, abstract=True):
    """A loop over the first axis of x: what its classes share."""

    letters: ClassVar[str]
    """The gates, in the order of PyTorch."""
    states: ClassVar[int] = 1
    """How many values go from step to step; the first is the output."""
    reverse: bool = False  # from the last step to the first

    def step(self, xw: Value, state: State, r: Value, rb: Value | None) -> State:
        """The state after one step; xw [n, g*h] is x w + b of this step."""
        raise NotImplementedError

    # -- what follows -----------------------------------------------------------------------------

    @property
    def order(self) -> str:
        """The gates in the order in which the weights hold them."""
        return getattr(self, "gates", "") or self.letters

    def unrolled(
        self, x: Value, w: Value, r: Value, state: State, *more: Value | None
    ) -> tuple[Value, State]:
        """The output of all steps, joined to one value, and the state after the last."""
        biases = [b for b in more if b is not None]
        steps, _, _ = self.fitting(*(v.shape for v in (x, w, r, *state, *biases)))
        if not isinstance(steps, int):
            raise ShapeError(
                f"the time axis has the free size {steps}: bind it, to unroll the loop"
            )
        xw = apply(Linear(), x, w, *biases[:1])
        rb = biases[1] if len(biases) > 1 else None
        outputs: list[Value] = []
        for i in self.places(steps):
            state = self.step(apply(Index(0, i), xw), state, r, rb)
            outputs.append(unsqueeze(state[0], [0]))
        return apply(Concat(0), *(outputs[::-1] if self.reverse else outputs)), state

    def parts(self, x: Value, axis: int) -> list[Value]:
        """The parts of the gates along an axis, in the order of `letters`."""
        size = x.shape[axis] // len(self.letters)
        return [
            slice_axis(x, axis, k * size, (k + 1) * size)
            for k in reordered(self.order, self.letters)
        ]

    def array_parts(self, x: Any) -> list[Any]:
        """The same of the last axis of an array."""
        parts = np.split(x, len(self.letters), axis=-1)
        return [parts[k] for k in reordered(self.order, self.letters)]

    def places(self, steps: int) -> range:
        """The steps in the order in which they are done."""
        return range(steps - 1, -1, -1) if self.reverse else range(steps)

    def fitting(self, x: Shape, w: Shape, r: Shape, *rest: Shape) -> tuple[Dim, Dim, Dim]:
        """(steps, batch, hidden size); raises ShapeError naming the operand that does not fit."""
        if sorted(self.order) != sorted(self.letters):
            raise ShapeError(f"gates {self.order!r}: give an order of the letters {self.letters!r}")
        state, biases = rest[: self.states], rest[self.states :]
        for name, shape, rank in (("x", x, 3), ("w", w, 2), ("r", r, 2)):
            if len(shape) != rank:
                raise ShapeError(f"{name} has {len(shape)} axes, not {rank}")
        steps, batch, features = x
        if steps == 0:
            raise ShapeError("x has no step")
        hidden, gates = r[1], len(self.letters)
        require_same(r[0], gates * hidden, f"axis 0 of r, {gates} gates of size {hidden}")
        require_same(w[0], r[0], "axis 0 of w, of r")
        require_same(w[1], features, "axis 1 of w, features of x")
        for shape in state:
            if len(shape) != 2:
                raise ShapeError(f"a state has {len(shape)} axes, not 2 (batch, hidden size)")
            require_same(shape[0], batch, "the batch of a state, of x")
            require_same(shape[1], hidden, "the hidden size of a state, of r")
        for shape in biases:
            if len(shape) != 1:
                raise ShapeError(f"a bias has {len(shape)} axes, not 1")
            require_same(shape[0], r[0], "the size of a bias, axis 0 of r")
        return steps, batch, hidden

    def result_shape(self, steps: Dim, batch: Dim, hidden: Dim) -> Shape:
        """The shape of the result."""
        return (steps, batch, hidden)

    def shape(self, *operands: Shape) -> Shape:
        return self.result_shape(*self.fitting(*operands))

    def _infer(self, operands: tuple[TensorType, ...]) -> tuple[TensorType, tuple[Any, ...]]:
        """By the shapes alone: the definition is long, and needs a known number of steps."""
        return Op._infer(self, operands)

    def is_identity(self, *types: TensorType) -> bool:
        return False

    def work(self, *types: TensorType) -> Work:
        """The projection of x, and one step so often as there are steps."""
        steps, batch, _ = self.fitting(*(t.shape for t in types))
        x, w, r = types[:3]
        state, biases = types[3 : 3 + self.states], types[3 + self.states :]
        rows = TensorType(x.dtype, (batch, w.shape[0]))
        with assuming():
            leaves = [tensor(f"%{i}", t) for i, t in enumerate((rows, r, *state, *biases[1:]))]
            rb = leaves[-1] if len(biases) > 1 else None
            after = self.step(leaves[0], tuple(leaves[2 : 2 + self.states]), leaves[1], rb)
            each, last = _work(after), _work(after[self.result_index :])
        return Linear().work(x, w, *biases[:1]) + _times(each, steps - 1) + last

    @property
    def result_index(self) -> int:
        """0: the result is the output of all steps; else this part of the state after the last."""
        return 0

    def run(self, *arrays: Any) -> Any:
        """The loop, with the projection of x done at once."""
        x, w, r, *rest = arrays
        state = tuple(widened(s) for s in rest[: self.states])
        biases = [widened(b) for b in rest[self.states :]]
        with np.errstate(all="ignore"):
            xw = widened(x) @ widened(w).T
            xw = xw + biases[0] if biases else xw
            rt, rb = np.ascontiguousarray(widened(r).T), biases[1] if len(biases) > 1 else None
            out = np.empty((*x.shape[:2], r.shape[1]), xw.dtype)
            for i in self.places(x.shape[0]):
                state = self.advance(xw[i], state, rt, rb)
                out[i] = state[0]
        found = state[self.result_index] if self.result_index else out
        return found.astype(x.dtype, copy=False)

    def advance(self, xw: Any, state: tuple[Any, ...], rt: Any, rb: Any) -> tuple[Any, ...]:
        """`step` on arrays; rt is r transposed."""
        raise NotImplementedError

    @classmethod
    def fits(cls, *shapes: tuple[int, ...]) -> bool:
        """Could arrays of these shapes be the operands?"""
        if len(shapes) < 3 + cls.states or any(0 in s for s in shapes):
            return False
        try:
            cls().fitting(*shapes)
        except (ShapeError, ValueError):
            return False
        return True


class Lstm(Recurrent):
    """x [t n i], w, r, h [n h], c [n h] -> the hidden states [t n h], or the last cell state [n h]

    i, f, o = sigmoid, g = tanh of their parts of x w + b + h r + rb; c' = f c + i g;
    h' = o tanh(c').  `reverse` starts from the last step.  `gates` is an order of "ifgo", which is
    PyTorch's; ONNX's is "iofg".  Hochreiter and Schmidhuber, https://doi.org/10.1162/neco.1997.9.8.1735.
    """

    letters = "ifgo"
    states = 2
    gates: str = "ifgo"
    result: str = "output"  # or "cell"

    def define(
        self,
        x: Value,
        w: Value,
        r: Value,
        h: Value,
        c: Value,
        b: Value | None = None,
        rb: Value | None = None,
    ) -> Value:
        output, state = self.unrolled(x, w, r, (h, c), b, rb)
        return state[1] if self.result_index else output

    def step(self, xw: Value, state: State, r: Value, rb: Value | None) -> State:
        h, c = state
        gates = xw + apply(Linear(), h, r, *([] if rb is None else [rb]))
        i, f, g, o = self.parts(gates, -1)
        sigmoid = Sigmoid()
        c = apply(sigmoid, f) * c + apply(sigmoid, i) * g.tanh()
        return apply(sigmoid, o) * c.tanh(), c

    def advance(self, xw: Any, state: tuple[Any, ...], rt: Any, rb: Any) -> tuple[Any, ...]:
        h, c = state
        gates = xw + h @ rt
        gates = gates if rb is None else gates + rb
        i, f, g, o = self.array_parts(gates)
        c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
        return _sigmoid(o) * np.tanh(c), c

    @property
    def result_index(self) -> int:
        if self.result not in ("output", "cell"):
            raise ShapeError(
                f"the result {self.result!r} of an LSTM: there are 'output' and 'cell'"
            )
        return int(self.result == "cell")

    def result_shape(self, steps: Dim, batch: Dim, hidden: Dim) -> Shape:
        return (batch, hidden) if self.result_index else (steps, batch, hidden)

    @classmethod
    def draw(cls, rng: np.random.Generator, *shapes: tuple[int, ...]) -> Lstm | None:
        if not cls.fits(*shapes):
            return None
        order = randomly(rng, ["".join(p) for p in permutations(cls.letters)])
        return cls(randomly(rng, (False, True)), order, randomly(rng, ("output", "cell")))


class Gru(Recurrent):
    """x [t n i], w, r, h [n h] -> the hidden states [t n h]

    r, z = sigmoid of their parts of x w + b + h r + rb; n = tanh(x w + b + r * (h r + rb)) if
    `reset_after` (PyTorch; "linear before reset"), else tanh(x w + b + (r * h) r + rb);
    h' = (1 - z) n + z h.  `gates` is an order of "rzn": PyTorch's, or ONNX's "zrn".
    """

    letters = "rzn"
    gates: str = "rzn"
    reset_after: bool = True

    def define(
        self,
        x: Value,
        w: Value,
        r: Value,
        h: Value,
        b: Value | None = None,
        rb: Value | None = None,
    ) -> Value:
        return self.unrolled(x, w, r, (h,), b, rb)[0]

    def step(self, xw: Value, state: State, r: Value, rb: Value | None) -> State:
        (h,) = state
        bias = [] if rb is None else [rb]
        if self.reset_after:
            hr = self.parts(apply(Linear(), h, r, *bias), -1)
            reset, update, new = self.parts(xw, -1)
            reset = apply(Sigmoid(), reset + hr[0])
            update = apply(Sigmoid(), update + hr[1])
            new = (new + reset * hr[2]).tanh()
        else:
            # the weights of each gate by themselves: that of the new state sees another state
            weights = self.parts(r, 0)
            biases = [[]] * 3 if rb is None else [[part] for part in self.parts(rb, 0)]
            reset, update, new = self.parts(xw, -1)
            reset = apply(Sigmoid(), reset + apply(Linear(), h, weights[0], *biases[0]))
            update = apply(Sigmoid(), update + apply(Linear(), h, weights[1], *biases[1]))
            new = (new + apply(Linear(), reset * h, weights[2], *biases[2])).tanh()
        return ((1 - update) * new + update * h,)

    def advance(self, xw: Any, state: tuple[Any, ...], rt: Any, rb: Any) -> tuple[Any, ...]:
        (h,) = state
        bias = np.zeros(rt.shape[1], rt.dtype) if rb is None else rb
        reset, update, new = self.array_parts(xw)
        from_h = self.array_parts(h @ rt + bias)
        reset, update = _sigmoid(reset + from_h[0]), _sigmoid(update + from_h[1])
        if self.reset_after:
            new = np.tanh(new + reset * from_h[2])
        else:
            weights, biases = self.array_parts(rt), self.array_parts(bias)
            new = np.tanh(new + (reset * h) @ weights[2] + biases[2])
        return ((1 - update) * new + update * h,)

    @classmethod
    def draw(cls, rng: np.random.Generator, *shapes: tuple[int, ...]) -> Gru | None:
        if not cls.fits(*shapes):
            return None
        order = randomly(rng, ["".join(p) for p in permutations(cls.letters)])
        return cls(randomly(rng, (False, True)), order, randomly(rng, (False, True)))


class Rnn(Recurrent):
    """x [t n i], w, r, h [n h] -> the hidden states [t n h]

    h' = tanh(x w + b + h r + rb), or its relu.
    """

    letters = "h"
    activation: str = "tanh"

    def define(
        self,
        x: Value,
        w: Value,
        r: Value,
        h: Value,
        b: Value | None = None,
        rb: Value | None = None,
    ) -> Value:
        return self.unrolled(x, w, r, (h,), b, rb)[0]

    def step(self, xw: Value, state: State, r: Value, rb: Value | None) -> State:
        if self.activation not in ACTIVATIONS:
            raise ShapeError(
                f"the activation {self.activation!r}: there are {', '.join(ACTIVATIONS)}"
            )
        total = xw + apply(Linear(), state[0], r, *([] if rb is None else [rb]))
        return (total.tanh() if self.activation == "tanh" else apply(Relu(), total),)

    def advance(self, xw: Any, state: tuple[Any, ...], rt: Any, rb: Any) -> tuple[Any, ...]:
        total = xw + state[0] @ rt
        total = total if rb is None else total + rb
        return (np.tanh(total) if self.activation == "tanh" else np.maximum(total, 0),)

    @classmethod
    def draw(cls, rng: np.random.Generator, *shapes: tuple[int, ...]) -> Rnn | None:
        return (
            cls(randomly(rng, (False, True)), randomly(rng, ACTIVATIONS))
            if cls.fits(*shapes)
            else None
        )


def last_step(op: Recurrent, output: Value) -> Value:
    """The hidden state after the last step that was done, from the output of all."""
    return apply(Index(0, 0 if op.reverse else output.shape[0] - 1), output)


def reordered(gates: str, to: str) -> list[int]:
    """Which gate of one order stands at each place of another.

    >>> reordered("ifgo", "iofg")
    [0, 3, 1, 2]
    """
    return [gates.index(letter) for letter in to]


def _sigmoid(x: Any) -> Any:
    return 0.5 * (1 + np.tanh(0.5 * x))


def _work(results: Sequence[Value]) -> Work:
    total = Work()
    for value in walk(results):
        if value.op is not None:
            total = total + value.op.work(*(o.type for o in value.operands))
    return total


def _times(work: Work, count: Dim) -> Work:
    return Work(*(getattr(work, f) * count for f in work.__dataclass_fields__))


_LSTM, _OTHERS = (
    "f32[2 3 4], f32[{0} 4], f32[{0} 5], f32[3 5]",
    ("", ", f32[{0}]", ", f32[{0}], f32[{0}]"),
)
Lstm.examples = (
    *(
        (Lstm(gates=gates), (_LSTM + ", f32[3 5]" + b).format(20))
        for gates in ("ifgo", "iofg")
        for b in _OTHERS
    ),
    (Lstm(True, "ifgo"), (_LSTM + ", f32[3 5]" + _OTHERS[2]).format(20)),
    (Lstm(True, "iofg", "cell"), (_LSTM + ", f32[3 5]" + _OTHERS[2]).format(20)),
    (Lstm(False, "ifgo", "cell"), (_LSTM + ", f32[3 5]" + _OTHERS[2]).format(20)),
)
Gru.examples = (
    *((Gru(reset_after=after), (_LSTM + b).format(15)) for after in (True, False) for b in _OTHERS),
    (Gru(True, "zrn", False), (_LSTM + _OTHERS[2]).format(15)),
    (Gru(True, "zrn", True), (_LSTM + _OTHERS[2]).format(15)),
)
Rnn.examples = tuple(
    (Rnn(reverse, kind), (_LSTM + b).format(5))
    for reverse in (False, True)
    for kind in ACTIVATIONS
    for b in _OTHERS
)

__all__ = ["Gru", "Lstm", "Recurrent", "Rnn", "last_step", "reordered"]
