"""Contractions: einsum of two operands, and the matrix products that are its named cases."""

from __future__ import annotations

from dataclasses import dataclass
from string import ascii_letters
from typing import Any

import numpy as np

from safegraph.derived.base import Derived
from safegraph.dims import Dim, Shape, product, require_same
from safegraph.dtypes import accumulator, from_numpy, to_numpy
from safegraph.errors import ParseError, ShapeError
from safegraph.op import TensorType, Work
from safegraph.value import (
    Value,
    apply,
    broadcast_shapes,
    expand,
    group,
    permute,
    reduce,
    repeat,
    squeeze,
    ungroup,
    unsqueeze,
)

Labels = tuple[int, ...]


class Einsum(Derived):
    """i j, j k -> i k

    The sum over the labels that `out` lacks of the product of both operands.  Labels are numbers,
    in order of appearance; an operand has each label at most once.
    """

    linear = (0, 1)
    left: Labels
    right: Labels
    out: Labels

    @classmethod
    def of(cls, equation: str) -> Einsum:
        """From letters: `Einsum.of("bij,bjk->bik")`."""
        sides, arrow, out = equation.replace(" ", "").partition("->")
        left, comma, right = sides.partition(",")
        if not arrow or not comma or not all(c.isalpha() for c in left + right + out):
            raise ParseError(f"{equation!r} is no einsum of two operands: write bij,bjk->bik")
        return cls(*(tuple(map(ord, part)) for part in (left, right, out))).canonical()

    @property
    def equation(self) -> str:
        """The labels as letters, in NumPy's notation."""
        number = {
            label: ascii_letters[i] for i, label in enumerate(dict.fromkeys(self.left + self.right))
        }
        return "{},{}->{}".format(
            *("".join(number[c] for c in part) for part in (self.left, self.right, self.out))
        )

    def canonical(self) -> Einsum:
        """Labels numbered in order of appearance."""
        number = {label: i for i, label in enumerate(dict.fromkeys(self.left + self.right))}
        if not set(self.out) <= set(number):
            raise ShapeError(f"{self!r}: the result has labels that no operand has")
        return Einsum(
            *(tuple(number[c] for c in part) for part in (self.left, self.right, self.out))
        )

    def normal(self, x: TensorType, y: TensorType) -> Einsum:
        return self.canonical()

    def label_sizes(self, x: Shape, y: Shape) -> dict[int, Dim]:
        """The size of every label."""
        for part, shape in ((self.left, x), (self.right, y)):
            if len(part) != len(shape):
                raise ShapeError(f"{len(part)} labels for {len(shape)} axes")
            if len(set(part)) != len(part):
                raise ShapeError("a label occurs twice in one operand")
        if len(set(self.out)) != len(self.out) or not set(self.out) <= {*self.left, *self.right}:
            raise ShapeError("the labels of the result must be distinct and occur in an operand")
        sizes = dict(zip(self.left, x, strict=True))
        for label, d in zip(self.right, y, strict=True):
            sizes[label] = require_same(sizes.get(label, d), d, f"label {label}")
        return sizes

    def define(self, x: Value, y: Value) -> Value:
        sizes = self.label_sizes(x.shape, y.shape)
        summed = tuple(label for label in sizes if label not in self.out)
        space = self.out + summed
        a, b = (
            self._spread(v, labels, space, sizes) for v, labels in ((x, self.left), (y, self.right))
        )
        axes = range(len(self.out), len(space))
        return reduce(a * b, axes, "sum", keep=False) if summed else a * b

    @staticmethod
    def _spread(x: Value, labels: Labels, space: Labels, sizes: dict[int, Dim]) -> Value:
        """X over all labels of the space, in its order."""
        ordered = permute(x, [labels.index(c) for c in space if c in labels])
        wide = unsqueeze(ordered, [i for i, c in enumerate(space) if c not in labels])
        return repeat(wide, [1 if c in labels else sizes[c] for c in space])

    def work(self, x: TensorType, y: TensorType) -> Work:
        sizes = self.label_sizes(x.shape, y.shape)
        if set(self.out) == set(sizes):  # nothing is summed: a product of all pairs
            return Work(elementwise=product(sizes.values()))
        return Work(macs=product(sizes.values()))

    def run(self, x: Any, y: Any) -> Any:
        wide = to_numpy(accumulator(from_numpy(x.dtype)))
        form = MatmulForm.of(self)
        a, b = x.astype(wide, copy=False), y.astype(wide, copy=False)
        a = a.sum(axis=tuple(self.left.index(c) for c in form.left_only)) if form.left_only else a
        b = (
            b.sum(axis=tuple(self.right.index(c) for c in form.right_only))
            if form.right_only
            else b
        )
        left = [c for c in self.left if c not in form.left_only]
        right = [c for c in self.right if c not in form.right_only]
        sizes = dict(zip((*left, *right), (*a.shape, *b.shape), strict=True))

        def count(labels: Labels) -> int:
            return int(np.prod([sizes[c] for c in labels], dtype=np.int64))

        a = a.transpose([left.index(c) for c in form.batch + form.rows + form.summed])
        b = b.transpose([right.index(c) for c in form.batch + form.summed + form.columns])
        a = a.reshape(count(form.batch), count(form.rows), count(form.summed))
        b = b.reshape(count(form.batch), count(form.summed), count(form.columns))
        order = form.batch + form.rows + form.columns
        with np.errstate(all="ignore"):
            c = np.matmul(a, b).reshape([sizes[label] for label in order])
        return c.transpose([order.index(label) for label in self.out]).astype(x.dtype, copy=False)

    @classmethod
    def draw(cls, rng: np.random.Generator, x: tuple[int, ...], y: tuple[int, ...]) -> Einsum:
        left = tuple(range(len(x)))
        free = set(left)
        right = []
        for d in y:
            shared = [i for i in free if x[i] == d]
            if shared and rng.random() < 0.7:
                right.append(shared[int(rng.integers(len(shared)))])
                free.discard(right[-1])
            else:
                right.append(len(x) + len(right))
        every = list(dict.fromkeys((*left, *right)))
        kept = rng.uniform(0.4, 0.9)
        out = [int(c) for c in rng.permutation(every) if rng.random() < kept]
        out = sorted(out) if rng.random() < 0.5 else out
        return cls(left, tuple(right), tuple(out)).canonical()


@dataclass(frozen=True)
class MatmulForm:
    """An einsum as one batched matrix product: which labels are rows, columns, ..."""

    batch: Labels  # in both operands and in the result
    rows: Labels  # in the left operand and in the result
    columns: Labels  # in the right operand and in the result
    summed: Labels  # in both operands only
    left_only: Labels  # in the left operand alone: summed before
    right_only: Labels

    @classmethod
    def of(cls, op: Einsum) -> MatmulForm:
        """The roles of the labels, each in the order of the result (or of the left operand)."""
        left, right, out = op.left, op.right, op.out
        return cls(
            batch=tuple(c for c in out if c in left and c in right),
            rows=tuple(c for c in out if c in left and c not in right),
            columns=tuple(c for c in out if c in right and c not in left),
            summed=tuple(c for c in left if c in right and c not in out),
            left_only=tuple(c for c in left if c not in right and c not in out),
            right_only=tuple(c for c in right if c not in left and c not in out),
        )


def einsum(equation: str, x: Value, y: Value) -> Value:
    """A contraction of two values.

    >>> from safegraph.value import tensor
    >>> einsum("ij,jk->ik", tensor("a", "f32[n 3]"), tensor("b", "f32[3 m]"))
    einsum(a, b): f32[n m]
    """
    return apply(Einsum.of(equation), x, y)


class Matmul(Derived):
    """... i j, ... j k -> ... i k, with NumPy's rules for batch axes and vectors"""

    linear = (0, 1)

    def define(self, x: Value, y: Value) -> Value:
        if not x.rank or not y.rank:
            raise ShapeError("matmul needs operands with axes")
        row, column = x.rank == 1, y.rank == 1
        a = unsqueeze(x, [0]) if row else x
        b = unsqueeze(y, [1]) if column else y
        # An axis that one operand lacks, or has as 1, is no label of it: nothing is repeated.
        batch = broadcast_shapes(a.shape[:-2], b.shape[:-2])
        a, left = _batch_labels(a, batch)
        b, right = _batch_labels(b, batch)
        m, k, n = -3, -2, -1
        here = {*left, *right}
        lead = tuple(i for i in range(len(batch)) if i in here)
        product_ = apply(Einsum((*left, m, k), (*right, k, n), (*lead, m, n)).canonical(), a, b)
        product_ = unsqueeze(product_, [i for i in range(len(batch)) if i not in here])
        at = len(batch)
        return squeeze(product_, [i for i, gone in ((at, row), (at + 1, column)) if gone])

    def work(self, x: TensorType, y: TensorType) -> Work:
        rows = x.shape[-2] if x.rank > 1 else 1
        columns = y.shape[-1] if y.rank > 1 else 1
        batch = broadcast_shapes(x.shape[:-2], y.shape[:-2])
        return Work(macs=product((*batch, rows, columns, x.shape[-1])))

    def run(self, x: Any, y: Any) -> Any:
        wide = to_numpy(accumulator(from_numpy(x.dtype)))
        with np.errstate(all="ignore"):
            return np.asarray(
                np.matmul(x.astype(wide, copy=False), y.astype(wide, copy=False))
            ).astype(x.dtype)

    @classmethod
    def draw(
        cls, rng: np.random.Generator, x: tuple[int, ...], y: tuple[int, ...]
    ) -> Matmul | None:
        try:
            np.matmul(np.zeros(x), np.zeros(y))
        except ValueError:
            return None
        return cls()


def _batch_labels(x: Value, batch: Shape) -> tuple[Value, Labels]:
    """X without batch axes of size 1, and the labels of those that remain."""
    own = x.shape[:-2]
    offset = len(batch) - len(own)
    gone = [i for i, d in enumerate(own) if d == 1]
    return squeeze(x, gone), tuple(i + offset for i, d in enumerate(own) if d != 1)


class Linear(Derived):
    """... i, o i -> ... o, plus a bias o"""

    def define(self, x: Value, w: Value, b: Value | None = None) -> Value:
        if w.rank != 2:
            raise ShapeError(f"the weight has {w.rank} axes, not 2 (out, in)")
        lead = tuple(range(x.rank - 1))
        y = apply(Einsum((*lead, -1), (-2, -1), (*lead, -2)).canonical(), x, w)
        return y if b is None else y + expand(b, y.shape)

    def work(self, *types: TensorType) -> Work:
        out = self.type(*types).numel
        return Work(macs=out * types[0].shape[-1], elementwise=out if len(types) == 3 else 0)

    def run(self, x: Any, w: Any, b: Any = None) -> Any:
        y = Matmul().run(x, w.T)
        return y if b is None else y + b

    @classmethod
    def draw(cls, rng: np.random.Generator, *shapes: tuple[int, ...]) -> Linear | None:
        x, w = shapes[:2]
        fits = len(x) > 0 and len(w) == 2 and x[-1] == w[1] and shapes[2:] in ((), ((w[0],),))
        return cls() if fits else None


class Gemm(Derived):
    """alpha * a @ b + beta * c, a and b transposed if so asked"""

    alpha: float = 1.0
    beta: float = 1.0
    trans_a: bool = False
    trans_b: bool = False

    def define(self, a: Value, b: Value, c: Value | None = None) -> Value:
        if a.rank != 2 or b.rank != 2:
            raise ShapeError("both factors must be matrices")
        equation = f"{'ki' if self.trans_a else 'ik'},{'jk' if self.trans_b else 'kj'}->ij"
        y = einsum(equation, a, b)
        y = y if self.alpha == 1 else self.alpha * y
        if c is None or self.beta == 0:
            return y
        return y + expand(c if self.beta == 1 else self.beta * c, y.shape)

    def run(self, a: Any, b: Any, c: Any = None) -> Any:
        y = Matmul().run(a.T if self.trans_a else a, b.T if self.trans_b else b)
        y = y if self.alpha == 1 else y.dtype.type(self.alpha) * y
        if c is None or self.beta == 0:
            return y
        return y + (c if self.beta == 1 else c.dtype.type(self.beta) * c)

    @classmethod
    def draw(cls, rng: np.random.Generator, *shapes: tuple[int, ...]) -> Gemm | None:
        a, b = shapes[:2]
        if len(a) != 2 or len(b) != 2:
            return None
        fits = [
            (s, t)
            for s in (False, True)
            for t in (False, True)
            if a[0 if s else 1] == b[1 if t else 0]
        ]
        if not fits or len(shapes) > 2:
            return None
        s, t = fits[int(rng.integers(len(fits)))]
        return cls(float(rng.choice([1.0, 0.5])), 1.0, s, t)


def by_matmul(op: Einsum, x: Value, y: Value) -> Value:
    """An einsum as one `Matmul`, with the permutes and reshapes that this takes."""
    form = MatmulForm.of(op)
    left, right = list(op.left), list(op.right)
    if form.left_only:
        x = reduce(x, [left.index(c) for c in form.left_only], "sum", keep=False)
        left = [c for c in left if c not in form.left_only]
    if form.right_only:
        y = reduce(y, [right.index(c) for c in form.right_only], "sum", keep=False)
        right = [c for c in right if c not in form.right_only]
    sizes = dict(zip((*left, *right), (*x.shape, *y.shape), strict=True))
    a = _grouped(
        permute(x, [left.index(c) for c in form.batch + form.rows + form.summed]),
        form,
        form.rows,
        form.summed,
    )
    b = _grouped(
        permute(y, [right.index(c) for c in form.batch + form.summed + form.columns]),
        form,
        form.summed,
        form.columns,
    )
    c = apply(Matmul(), a, b)
    lead = len(form.batch)
    split = [(-1,)] * lead + [
        tuple(sizes[i] for i in form.rows),
        tuple(sizes[i] for i in form.columns),
    ]
    empty = [i for i, f in enumerate(split) if not f]
    c = squeeze(c, empty)
    c = ungroup(c, [f if len(f) != 1 else (-1,) for f in split if f])
    order = form.batch + form.rows + form.columns
    return permute(c, [order.index(label) for label in op.out])


def _grouped(x: Value, form: MatmulForm, first: Labels, second: Labels) -> Value:
    """Batch axes as they are, then one axis each for the first and the second labels."""
    lead = len(form.batch)
    runs = [1] * lead + [len(part) for part in (first, second) if part]
    x = group(x, runs)
    return unsqueeze(x, [lead + i for i, part in enumerate((first, second)) if not part])


Einsum.examples = ((Einsum.of("bij,bjk->bik"), "f32[2 3 4], f32[2 4 5]"),)
Matmul.examples = tuple(
    (Matmul(), types)
    for types in (
        "f32[3 4], f32[4 5]", "f32[2 3 4], f32[2 4 5]", "f32[2 3 4], f32[4 5]",
        "f32[2 6 3 4], f32[6 4 5]", "f32[4], f32[4 5]",
    )
)  # fmt: skip
Linear.examples = ((Linear(), "f32[2 3 4], f32[5 4]"), (Linear(), "f32[2 3 4], f32[5 4], f32[5]"))
Gemm.examples = (
    (Gemm(), "f32[3 4], f32[4 5]"),
    (Gemm(trans_b=True), "f32[3 4], f32[5 4], f32[5]"),
    (Gemm(0.5, 2.0), "f32[3 4], f32[4 5], f32[5]"),
)

__all__ = ["Einsum", "Gemm", "Linear", "Matmul", "MatmulForm", "by_matmul", "einsum"]
