"""Values: terms of ops under construction, in Python.

A `Value` is an op applied to values, with its type; equal values are one object.  Definitions of
derived ops, models in tests and notebooks, and `SafeDAG.from_values` are written with them:

>>> x = tensor("x", "f32[batch 3]")
>>> (2 * x + 1).exp()
unary(binary(binary(repeat(unsqueeze(scalar)), x), repeat(unsqueeze(scalar)))): f32[batch 3]

Python operators broadcast as NumPy does, with explicit unsqueeze and repeat.  The functions below
leave out what does nothing (a pad by 0, a repeat by 1), so a definition has no such steps.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from weakref import WeakValueDictionary

from safegraph.dims import Dim, Shape, dims, product, require_same, same
from safegraph.errors import ParseError, ShapeError
from safegraph.op import Op, TensorType, axes_of, axis_of
from safegraph.ops import (
    Binary,
    Cast,
    Fold,
    Group,
    Interleave,
    Iota,
    Pad,
    Permute,
    Reduce,
    Repeat,
    Scalar,
    Select,
    Slice,
    Squeeze,
    Stride,
    Unary,
    Unfold,
    Ungroup,
    Unsqueeze,
)

_VALUES: WeakValueDictionary[tuple[Any, ...], Value] = WeakValueDictionary()


class Value:
    """An op applied to values (`op`, `operands`), or a named leaf (`op` is None); with a type."""

    __slots__ = ("__weakref__", "name", "op", "operands", "type")

    op: Op | None
    operands: tuple[Value, ...]
    type: TensorType
    name: str

    @property
    def shape(self) -> Shape:
        """The sizes of the axes."""
        return self.type.shape

    @property
    def dtype(self) -> str:
        """The element type."""
        return self.type.dtype

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.type.shape)

    def __repr__(self) -> str:
        parts: list[str] = []
        stack: list[Value | str] = [self]
        while stack and len(parts) < 200:
            top = stack.pop()
            if isinstance(top, str):
                parts.append(top)
            elif top.op is None:
                parts.append(top.name)
            else:
                parts.append(top.op.name)
                inner: list[Value | str] = []
                for operand in top.operands:
                    inner += [", ", operand] if inner else [operand]
                if inner:
                    stack += [")", *reversed(inner), "("]
        return "".join(parts) + ("..." if stack else "") + f": {self.type}"

    @staticmethod
    def applied(op: Op, operands: tuple[Value, ...]) -> Value:
        """The op on these values, see `apply`."""
        return apply(op, *operands)

    # -- arithmetic with broadcasting -------------------------------------------------------------

    def __add__(self, other: Any) -> Value:
        return binary("add", self, other)

    def __radd__(self, other: Any) -> Value:
        return binary("add", other, self)

    def __sub__(self, other: Any) -> Value:
        return binary("subtract", self, other)

    def __rsub__(self, other: Any) -> Value:
        return binary("subtract", other, self)

    def __mul__(self, other: Any) -> Value:
        return binary("multiply", self, other)

    def __rmul__(self, other: Any) -> Value:
        return binary("multiply", other, self)

    def __truediv__(self, other: Any) -> Value:
        return binary("divide", self, other)

    def __rtruediv__(self, other: Any) -> Value:
        return binary("divide", other, self)

    def __pow__(self, other: Any) -> Value:
        return binary("pow", self, other)

    def __neg__(self) -> Value:
        return unary("neg", self)

    def __lt__(self, other: Any) -> Value:
        return binary("less", self, other)

    def __gt__(self, other: Any) -> Value:
        return binary("less", other, self)

    def __matmul__(self, other: Value) -> Value:
        from safegraph.derived.einsum import Matmul

        return apply(Matmul(), self, other)

    def __getitem__(self, index: Any) -> Value:
        return _index(self, index)

    def __getattr__(self, name: str) -> Callable[..., Value]:
        """Functions of one value as methods: `x.exp()`, `x.relu()`, `x.softmax(axis=-1)`."""
        if name.startswith("_"):
            raise AttributeError(name)
        from safegraph.op import OPS
        from safegraph.ops import BINARY, REDUCTIONS, UNARY

        if name in UNARY:
            return lambda: unary(name, self)
        if name in BINARY:
            return lambda other: binary(name, self, other)
        if name in REDUCTIONS:
            return lambda *axes: reduce(self, axes or tuple(range(self.rank)), name)
        if name in OPS:
            return lambda *args, **spec: apply(
                OPS[name](**spec)
                if all(isinstance(a, Value) for a in args)
                else OPS[name](*args, **spec),
                self,
                *(a for a in args if isinstance(a, Value)),
            )
        raise AttributeError(f"there is no op {name!r}")


def tensor(name: str, type: TensorType | str) -> Value:
    """A leaf: a tensor by name and type, `tensor("x", "f32[batch 3 224 224]")`."""
    found = parse_type(type) if isinstance(type, str) else type
    return _value(None, (), found, name)


def parse_type(text: str) -> TensorType:
    """A type from its text.

    >>> parse_type("f32[batch 3 2*h]")
    f32[batch 3 2*h]
    """
    match = re.fullmatch(r"\s*([a-z]\w*)\s*\[(.*)\]\s*", text)
    if not match:
        raise ParseError(f"{text!r} is no type: write f32[batch 3 224 224]")
    return TensorType(match[1], dims(match[2]))


def apply(op: Op, *operands: Value) -> Value:
    """The op on these values, in its normal spelling; the operand itself where it does nothing."""
    types = tuple(v.type for v in operands)
    result = op.type(*types)
    normal = op.normal(*types)
    if normal.is_identity(*types):
        return operands[0]
    return _value(normal, operands, result)


def _value(op: Op | None, operands: tuple[Value, ...], type: TensorType, name: str = "") -> Value:
    key = (op, operands, type, name)
    found = _VALUES.get(key)
    if found is None:
        found = object.__new__(Value)
        found.op, found.operands, found.type, found.name = op, operands, type, name
        _VALUES[key] = found
    return found


def walk(outputs: Iterable[Value]) -> list[Value]:
    """Every value that the outputs need, once, operands first."""
    order: list[Value] = []
    seen: set[Value] = set()
    stack = [(v, False) for v in reversed(list(outputs))]
    while stack:
        value, ready = stack.pop()
        if ready:
            order.append(value)
        elif value not in seen:
            seen.add(value)
            stack.append((value, True))
            stack += [(v, False) for v in reversed(value.operands) if v not in seen]
    return order


# -- the core ops as functions --------------------------------------------------------------------


def scalar(value: float | Dim, dtype: str) -> Value:
    """A number, or a size as a number, of rank 0."""
    return apply(Scalar(value, dtype))


def iota(size: Dim, dtype: str = "i64") -> Value:
    """0, 1, ..., size - 1."""
    return apply(Iota(size, dtype))


def full(value: float | Dim, shape: Shape, dtype: str) -> Value:
    """An array of one number."""
    return expand(scalar(value, dtype), shape)


def unary(kind: str, x: Value) -> Value:
    """exp, tanh, ...; see `safegraph.ops.UNARY`."""
    return apply(Unary(kind), x)


def cast(x: Value, dtype: str) -> Value:
    """X as another element type."""
    return apply(Cast(dtype), x)


def binary(kind: str, x: Value | float | Dim, y: Value | float | Dim) -> Value:
    """add, maximum, ... with broadcasting; see `safegraph.ops.BINARY`."""
    a, b = broadcast(*_as_values(x, y))
    return apply(Binary(kind), a, b)


def select(condition: Value, x: Value | float, y: Value | float) -> Value:
    """X where condition else y, with broadcasting."""
    a, b = _as_values(x, y)
    return apply(Select(), *broadcast(condition, a, b))


def _as_values(*items: Value | float | Dim) -> list[Value]:
    dtype = next((v.dtype for v in items if isinstance(v, Value)), None)
    if dtype is None:
        raise ShapeError("at least one operand must be a Value, to tell the element type")
    return [v if isinstance(v, Value) else scalar(v, dtype) for v in items]


def broadcast_shapes(*shapes: Shape) -> Shape:
    """The shape that NumPy's broadcasting gives; sizes that may be 1 are taken as not 1."""
    rank = max(map(len, shapes))
    result: list[Dim] = []
    for i in range(-rank, 0):
        found: Dim = 1
        for shape in shapes:
            if len(shape) < -i or shape[i] == 1:
                continue
            found = shape[i] if found == 1 else require_same(found, shape[i], f"axis {i}")
        result.append(found)
    return tuple(result)


def expand(x: Value, shape: Shape) -> Value:
    """X repeated to a shape, as NumPy's broadcast_to."""
    rank = len(shape)
    if rank < x.rank:
        raise ShapeError(f"cannot expand {x.type} to the lower rank of {shape}")
    wide = apply(Unsqueeze(tuple(range(rank - x.rank))), x)
    return apply(
        Repeat(tuple(n if d == 1 else 1 for d, n in zip(wide.shape, shape, strict=True))), wide
    )


def broadcast(*values: Value) -> list[Value]:
    """The values repeated to their common shape."""
    shape = broadcast_shapes(*(v.shape for v in values))
    return [expand(v, shape) for v in values]


def permute(x: Value, order: Sequence[int]) -> Value:
    """Axis i of the result is axis order[i] of x."""
    return apply(Permute(tuple(order)), x)


def group(x: Value, runs: Sequence[int]) -> Value:
    """Neighbouring axes become one: `runs` says how many for each axis of the result."""
    return apply(Group(tuple(runs)), x)


def ungroup(x: Value, factors: Sequence[Sequence[Dim]]) -> Value:
    """Each axis becomes its factors, -1 for what remains."""
    return apply(Ungroup(tuple(map(tuple, factors))), x)


def squeeze(x: Value, axes: Sequence[int]) -> Value:
    """Axes of size 1 dropped."""
    return apply(Squeeze(tuple(axes)), x)


def unsqueeze(x: Value, axes: Sequence[int]) -> Value:
    """Axes of size 1 inserted, at these places of the result."""
    return apply(Unsqueeze(tuple(axes)), x)


def repeat(x: Value, counts: Sequence[Dim]) -> Value:
    """Axes of size 1 repeated; a count of 1 leaves an axis as it is."""
    return apply(Repeat(tuple(counts)), x)


def stride(x: Value, steps: Sequence[int]) -> Value:
    """x[::steps[0], ::steps[1], ...]"""
    return apply(Stride(tuple(steps)), x)


def interleave(x: Value, steps: Sequence[int], fill: float = 0) -> Value:
    """Fill between neighbours."""
    return apply(Interleave(tuple(steps), fill), x)


def slice_axis(x: Value, axis: int, start: Dim, stop: Dim | None) -> Value:
    """x[start:stop] along one axis."""
    axis = axis_of(axis, x.rank)
    starts = tuple(start if i == axis else 0 for i in range(x.rank))
    return apply(Slice(starts, tuple(stop if i == axis else None for i in range(x.rank))), x)


def pad(x: Value, before: Sequence[Dim], after: Sequence[Dim], fill: float = 0) -> Value:
    """X with a border."""
    return apply(Pad(tuple(before), tuple(after), fill), x)


def unfold(x: Value, axis: int, window: Dim, step: Dim, dilation: Dim = 1) -> Value:
    """Windows of an axis, as the axes (windows, window) in its place."""
    return apply(Unfold(axis_of(axis, x.rank), window, step, dilation), x)


def fold(x: Value, axis: int, step: Dim, dilation: Dim = 1) -> Value:
    """The axes (windows, window) added up to one, where they overlap."""
    return apply(Fold(axis_of(axis, x.rank - 1), step, dilation), x)


def reduce(
    x: Value, axes: Sequence[int], kind: str, *, keep: bool = True, as_written: bool = False
) -> Value:
    """sum, mean, max, ... over axes, which become 1 (or are dropped).

    `as_written` keeps one that does nothing, over axes of size 1: a file in which the batch is one
    of them tells by it that samples meet.
    """
    found = axes_of(tuple(axes), x.rank)
    op = Reduce(found, kind)
    if as_written and found:
        small = _value(op, (x,), op.type(x.type))
    else:
        small = apply(op, x) if found else x
    return small if keep else squeeze(small, found)


def along(x: Value, axes: Sequence[int], kind: str) -> Value:
    """A reduction over axes, repeated to the shape of x again."""
    return expand(reduce(x, axes, kind), x.shape)


def reshape(x: Value, shape: Sequence[Dim]) -> Value:
    """The elements in row-major order in another shape, one -1 allowed; by group and ungroup.

    Runs of axes with equal products are regrouped by themselves, so sizes that are equal on both
    sides stay axes of their own.
    """
    target = _fill_wildcard(x, tuple(shape))
    if product(x.shape) == 0 and target != x.shape:
        return full(0, target, x.dtype)  # without elements runs of axes cannot be told apart
    runs, factors = regroup(x.shape, target)
    grouped = group(x, [n for n in runs if n]) if any(runs) else x
    # axes that come from nothing are all 1
    grouped = unsqueeze(grouped, [i for i, n in enumerate(runs) if n == 0])
    empty = [i for i, f in enumerate(factors) if not f]
    if empty:
        grouped = squeeze(grouped, empty)
    kept = [f for f in factors if f]
    return ungroup(grouped, [(-1, *f[1:]) if len(f) > 1 else (-1,) for f in kept])


def _fill_wildcard(x: Value, shape: Shape) -> Shape:
    if shape.count(-1) > 1:
        raise ShapeError(f"more than one -1 in the shape {shape}")
    if -1 not in shape:
        require_same(
            product(x.shape), product(shape), f"reshape of {x.type} to {shape}: number of elements"
        )
        return shape
    from safegraph.dims import require_divide

    known = product(d for d in shape if d != -1)
    rest = require_divide(product(x.shape), known, f"reshape of {x.type} to {shape}")
    return tuple(rest if d == -1 else d for d in shape)


def regroup(old: Shape, new: Shape) -> tuple[list[int], list[tuple[Dim, ...]]]:
    """Row-major reshape as runs of old axes and the new axes that each run becomes.

    The shortest runs with equal products; what cannot be told apart goes into one last run.
    """
    runs: list[int] = []
    factors: list[tuple[Dim, ...]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        a, b = i, j
        left: Dim = 1
        right: Dim = 1
        left, i = (old[i], i + 1) if i < len(old) else (1, i)
        right, j = (new[j], j + 1) if j < len(new) else (1, j)
        if a == i or b == j:  # one side has ended: the rest is all 1
            i, j = len(old), len(new)
            left = right = 1
        while same(left, right) is not True:
            known = _smaller(left, right)
            if i < len(old) and (known is not False or j >= len(new)):
                left, i = left * old[i], i + 1
            elif j < len(new):
                right, j = right * new[j], j + 1
            else:
                break  # equal only under the assumption that was made on the number of elements
        runs.append(i - a)
        factors.append(tuple(new[b:j]))
    return runs, factors


def _smaller(a: Dim, b: Dim) -> bool | None:
    """Should the left side grow?  True where a < b; for free sizes, where b is not missing."""
    from safegraph.dims import at_least, divide

    if at_least(b, a + 1):
        return True
    if at_least(a, b + 1):
        return False
    if divide(b, a) is not None:
        return True
    return False if divide(a, b) is not None else None


def _index(x: Value, index: Any) -> Value:
    items = index if isinstance(index, tuple) else (index,)
    if any(i is Ellipsis for i in items):
        at = items.index(Ellipsis)
        fill = x.rank - sum(i is not None and i is not Ellipsis for i in items)
        items = (*items[:at], *[slice(None)] * fill, *items[at + 1 :])
    starts: list[Dim] = []
    stops: list[Dim | None] = []
    steps: list[int] = []
    dropped: list[int] = []
    places: list[int] = []
    axis = 0
    for item in items:
        if item is None:
            places.append(axis - len(dropped) + len(places))
            continue
        if axis >= x.rank:
            raise ShapeError(f"too many indices for {x.type}")
        if isinstance(item, slice):
            starts.append(0 if item.start is None else item.start)
            stops.append(item.stop)
            steps.append(item.step or 1)
        else:
            start = x.shape[axis] + item if isinstance(item, int) and item < 0 else item
            starts.append(start)
            stops.append(start + 1)
            steps.append(1)
            dropped.append(axis)
        axis += 1
    rest = x.rank - axis
    y = apply(Slice((*starts, *[0] * rest), (*stops, *[None] * rest)), x)
    y = stride(y, (*steps, *[1] * rest))
    return unsqueeze(squeeze(y, dropped), places)
