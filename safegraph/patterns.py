"""Which op is written with which pattern: one table, both ways.

    permute     a b c -> a c b
    group       a b c -> a (b c)
    ungroup     a (b 10) -> a b 10              one factor may be an axis: what remains
    squeeze     a 1 b -> a b
    unsqueeze   a b -> a 1 b
    stride      a b:2
    interleave  a b:2 | 0                       after the bar: the fill
    slice       a 1..3 2.. ..4                  both ends in
    pad         1 <- a -> 1, b, 2 <- c -> 0 | -inf
    reduce      a {b: 1} c -> a 1 c | mean
    repeat      a 1 c -> a 3 c
    unfold      a b -> a {b: window 3 step 2 dilation 1}
    fold        a {b: step 2 dilation 1} -> a b
    einsum      a b, b c -> a c

An axis is called by its free size where it has one of its own, else by a letter.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import lru_cache
from string import ascii_lowercase
from typing import Any

from safegraph.derived.einsum import Einsum
from safegraph.dims import KEPT, Dim, Shape, Size
from safegraph.errors import ParseError
from safegraph.notation import (
    ABSENT,
    Border,
    Marked,
    Part,
    Pattern,
    Run,
    Side,
    Step,
    Term,
    quote,
    read_pattern,
    write_value,
)
from safegraph.op import OPS, Op, TensorType
from safegraph.ops import (
    BINARY,
    UNARY,
    Binary,
    Fold,
    Group,
    Interleave,
    Pad,
    Permute,
    Reduce,
    Repeat,
    Slice,
    Squeeze,
    Stride,
    Unary,
    Unfold,
    Ungroup,
    Unsqueeze,
)


@dataclass(frozen=True)
class Spelling:
    """How the ops of one class are written, for an operand of a shape, and read."""

    write: Callable[[Any, Shape], Pattern]
    read: Callable[[Pattern], Op]


# -- ops in lines ---------------------------------------------------------------------------------


@lru_cache(KEPT)
def write_op(op: Op, types: tuple[TensorType, ...]) -> tuple[str, str]:
    """The name and the spec of an op as its line has them, on operands of these types.

    >>> write_op(Permute((0, 2, 1)), (TensorType("f32", (2, 3, 4)),))
    ('permute', '"a b c -> a c b"')
    """
    if isinstance(op, Unary | Binary) and _KINDS.get(op.kind) is type(op):
        return op.kind, ""
    spelling = PATTERNS.get(type(op))
    if spelling and types:
        text = str(spelling.write(op, types[0].shape))
        if _reads_as(text, op):
            return op.name, json.dumps(text, ensure_ascii=False)
    parts = []
    for f in fields(op):
        value = getattr(op, f.name)
        if f.default is MISSING or repr(value) != repr(f.default):
            parts.append(f"{f.name}={write_value(value)}")
    return op.name, " ".join(parts)


def _reads_as(text: str, op: Op) -> bool:
    try:
        return PATTERNS[type(op)].read(read_pattern(text)) is op
    except (ParseError, *_MISFITS):
        return False


def read_op(name: str, pattern: str | None, given: Mapping[str, Any]) -> Op:
    """The op of a line: its name, its pattern or None, and its fields; raises ParseError."""
    if name in _KINDS:
        if pattern is not None or given:
            raise ParseError(f"{name} has no spec: expected the end of the line after its operands")
        return _KINDS[name](name)
    if name not in OPS:
        raise ParseError(
            f"there is no op {quote(name)}; `safegraph.op.OPS` lists those that there are"
        )
    cls = OPS[name]
    if pattern is not None:
        if cls not in PATTERNS or given:
            wanted = "fields or a pattern" if cls in PATTERNS else f"fields ({_field_names(cls)})"
            raise ParseError(f"{name} takes {wanted}, found the pattern {pattern!r}")
        try:
            return PATTERNS[cls].read(read_pattern(pattern))
        except _MISFITS:
            raise ParseError(
                f"{pattern!r} is no pattern of {name}, which is like {cls.__doc__!r}"
            ) from None
    known = {f.name: f for f in fields(cls)}
    wrong = [n for n in given if n not in known]
    missing = [n for n, f in known.items() if f.default is MISSING and n not in given]
    if wrong or missing:
        raise ParseError(
            f"{name} has the fields {_field_names(cls)}"
            + (f"; missing: {', '.join(missing)}" if missing else "")
            + (f"; unknown: {', '.join(wrong)}" if wrong else "")
        )
    return cls(**given)


def _field_names(cls: type[Op]) -> str:
    return ", ".join(f.name for f in fields(cls)) or "none"


_MISFITS = (ValueError, TypeError, AttributeError)  # what reading a pattern of another op raises
_KINDS: dict[str, type[Unary] | type[Binary]] = {
    **dict.fromkeys(UNARY, Unary),
    **dict.fromkeys(BINARY, Binary),
}

# -- axes -----------------------------------------------------------------------------------------


def axis_names(shape: Shape) -> list[str]:
    """A name for each axis: its free size where no other axis has it, else a letter."""
    own = [str(d) for d in shape if isinstance(d, Size) and str(d).isidentifier()]
    taken = {n for d in shape if isinstance(d, Size) for n in d.names}
    letters = (f"{c}{i or ''}" for i in range(len(shape) + len(taken) + 1) for c in ascii_lowercase)
    free = (c for c in letters if c not in taken)
    return [str(d) if own.count(str(d)) == 1 else next(free) for d in shape]


def _only(pattern: Pattern, *, result: bool = False, tail: bool = False) -> Side:
    """The one operand of a pattern; ValueError where it has other parts than wanted."""
    (side,) = pattern.operands
    if (pattern.result is not None) is not result or (pattern.tail is not ABSENT) is not tail:
        raise ValueError
    return side


def _sides(pattern: Pattern, *, tail: bool = False) -> tuple[Side, Side]:
    left = _only(pattern, result=True, tail=tail)
    assert pattern.result is not None, "_only has seen to it"
    return left, pattern.result


def _check(found: Iterable[Any], wanted: Iterable[Any]) -> None:
    if list(found) != list(wanted):
        raise ValueError


def _flat(side: Side) -> Side:
    return tuple(t for term in side for t in (term.terms if isinstance(term, Run) else (term,)))


# -- one pair of functions for each class ---------------------------------------------------------


def _write_permute(op: Permute, x: Shape) -> Pattern:
    names = axis_names(x)
    return Pattern((tuple(names),), tuple(names[i] for i in op.order))


def _read_permute(pattern: Pattern) -> Op:
    left, right = _sides(pattern)
    _check(sorted(left), sorted(right))
    return Permute(tuple(left.index(axis) for axis in right))


def _write_group(op: Group, x: Shape) -> Pattern:
    names = iter(axis_names(x))
    runs = [tuple(next(names) for _ in range(n)) for n in op.runs]
    left = tuple(axis for run in runs for axis in run)
    return Pattern((left,), tuple(run[0] if len(run) == 1 else Run(run) for run in runs))


def _read_group(pattern: Pattern) -> Op:
    left, right = _sides(pattern)
    _check(left, _flat(right))
    return Group(tuple(len(term.terms) if isinstance(term, Run) else 1 for term in right))


def _write_ungroup(op: Ungroup, x: Shape) -> Pattern:
    names = axis_names(x)
    runs = [
        tuple(name if f == -1 else f for f in fs)
        for name, fs in zip(names, op.factors, strict=True)
    ]
    left = tuple(run[0] if len(run) == 1 else Run(run) for run in runs)
    return Pattern((left,), _flat(left))


def _read_ungroup(pattern: Pattern) -> Op:
    left, right = _sides(pattern)
    _check(_flat(left), right)
    runs = [term.terms if isinstance(term, Run) else (term,) for term in left]
    return Ungroup(tuple(tuple(-1 if isinstance(f, str) else _dim(f) for f in run) for run in runs))


def _write_squeeze(op: Squeeze, x: Shape) -> Pattern:
    right = axis_names(tuple(d for i, d in enumerate(x) if i not in op.axes))
    rest = iter(right)
    left = (1 if i in op.axes else next(rest) for i in range(len(x)))
    return Pattern((tuple(left),), tuple(right))


def _read_squeeze(pattern: Pattern) -> Op:
    left, right = _sides(pattern)
    _check((axis for axis in left if axis != 1), right)
    return Squeeze(tuple(i for i, axis in enumerate(left) if axis == 1))


def _write_unsqueeze(op: Unsqueeze, x: Shape) -> Pattern:
    names = axis_names(x)
    rest = iter(names)
    right = (1 if i in op.axes else next(rest) for i in range(len(x) + len(op.axes)))
    return Pattern((tuple(names),), tuple(right))


def _read_unsqueeze(pattern: Pattern) -> Op:
    left, right = _sides(pattern)
    _check(left, (axis for axis in right if axis != 1))
    return Unsqueeze(tuple(i for i, axis in enumerate(right) if axis == 1))


def _write_steps(steps: tuple[int, ...], x: Shape) -> Side:
    return tuple(n if s == 1 else Step(n, s) for n, s in zip(axis_names(x), steps, strict=True))


def _read_steps(side: Side) -> tuple[int, ...]:
    return tuple(_dim(1 if isinstance(term, str) else term.step) for term in side)  # type: ignore[union-attr, misc]


def _write_slice(op: Slice, x: Shape) -> Pattern:
    def part(name: str, start: Dim, stop: Dim | None) -> Term:
        if start == 0 and stop is None:
            return name
        return Part(None if start == 0 else start, None if stop is None else stop - 1)

    return Pattern((tuple(map(part, axis_names(x), op.starts, op.stops)),))


def _read_slice(pattern: Pattern) -> Op:
    parts = [Part(None, None) if isinstance(t, str) else t for t in _only(pattern)]
    starts = tuple(0 if p.first is None else p.first for p in parts)  # type: ignore[union-attr]
    # -1 is the last element, so a part up to it goes to the end
    stops = tuple(None if p.last is None or p.last == -1 else p.last + 1 for p in parts)  # type: ignore[union-attr]
    return Slice(starts, stops)


def _write_pad(op: Pad, x: Shape) -> Pattern:
    rows = zip(op.before, axis_names(x), op.after, strict=True)
    sides = (((n if a == 0 and b == 0 else Border(a, n, b)),) for a, n, b in rows)
    return Pattern(tuple(sides), None, op.fill)


def _read_pad(pattern: Pattern) -> Op:
    terms = [term for (term,) in pattern.operands] if pattern.operands != ((),) else []
    if pattern.result is not None or not all(isinstance(t, str | Border) for t in terms):
        raise ValueError
    borders = [t if isinstance(t, Border) else Border(0, str(t), 0) for t in terms]
    fill = 0 if pattern.tail is ABSENT else pattern.tail
    return Pad(tuple(b.before for b in borders), tuple(b.after for b in borders), fill)


def _write_reduce(op: Reduce, x: Shape) -> Pattern:
    names = axis_names(x)
    left = (Marked(n, (("", 1),)) if i in op.axes else n for i, n in enumerate(names))
    right = (1 if i in op.axes else n for i, n in enumerate(names))
    return Pattern((tuple(left),), tuple(right), op.kind)


def _read_reduce(pattern: Pattern) -> Op:
    left, right = _sides(pattern, tail=True)
    _check((1 if isinstance(axis, Marked) else axis for axis in left), right)
    return Reduce(tuple(i for i, axis in enumerate(left) if isinstance(axis, Marked)), pattern.tail)


def _write_repeat(op: Repeat, x: Shape) -> Pattern:
    names = axis_names(x)
    left = (n if c == 1 else 1 for n, c in zip(names, op.counts, strict=True))
    right = (n if c == 1 else c for n, c in zip(names, op.counts, strict=True))
    return Pattern((tuple(left),), tuple(right))


def _read_repeat(pattern: Pattern) -> Op:
    left, right = _sides(pattern)
    counts = tuple(1 if isinstance(t, str) else _dim(t) for t in right)
    _check(left, (t if isinstance(t, str) else 1 for t in right))
    return Repeat(counts)


def _write_unfold(op: Unfold, x: Shape) -> Pattern:
    names = tuple(axis_names(x))
    settings = (("window", op.window), ("step", op.step), ("dilation", op.dilation))
    windows = Marked(names[op.axis], settings)
    return Pattern((names,), (*names[: op.axis], windows, *names[op.axis + 1 :]))


def _read_unfold(pattern: Pattern) -> Op:
    left, right = _sides(pattern)
    axis, settings = _marked(right)
    _check(left, (t.axis if isinstance(t, Marked) else t for t in right))
    return Unfold(axis, **settings)


def _write_fold(op: Fold, x: Shape) -> Pattern:
    names = axis_names(x)
    del names[op.axis + 1]
    folded = Marked(names[op.axis], (("step", op.step), ("dilation", op.dilation)))
    return Pattern(((*names[: op.axis], folded, *names[op.axis + 1 :]),), tuple(names))


def _read_fold(pattern: Pattern) -> Op:
    left, right = _sides(pattern)
    axis, settings = _marked(left)
    _check((t.axis if isinstance(t, Marked) else t for t in left), right)
    return Fold(axis, **settings)


def _write_einsum(op: Einsum, x: Shape) -> Pattern:
    letters = iter(axis_names((1,) * (len(op.left) + len(op.right))))
    name = {label: next(letters) for label in dict.fromkeys(op.left + op.right)}
    left, right, out = (
        tuple(name[label] for label in part) for part in (op.left, op.right, op.out)
    )
    return Pattern((left, right), out)


def _read_einsum(pattern: Pattern) -> Op:
    left, right = pattern.operands
    number = {axis: i for i, axis in enumerate(dict.fromkeys(left + right))}
    if (
        pattern.result is None
        or pattern.tail is not ABSENT
        or not all(isinstance(n, str) for n in number)
    ):
        raise ValueError
    _check((axis for axis in pattern.result if axis not in number), ())
    return Einsum(*(tuple(number[axis] for axis in part) for part in (left, right, pattern.result)))


def _marked(side: Side) -> tuple[int, dict[str, Any]]:
    """The place and the settings of the one marked axis."""
    ((place, marked),) = ((i, term) for i, term in enumerate(side) if isinstance(term, Marked))
    return place, dict(marked.settings)


def _dim(term: Any) -> Dim:
    if not isinstance(term, int | Size):
        raise TypeError
    return term


# fmt: off
PATTERNS: dict[type[Op], Spelling] = {
    Permute:    Spelling(_write_permute,   _read_permute),
    Group:      Spelling(_write_group,     _read_group),
    Ungroup:    Spelling(_write_ungroup,   _read_ungroup),
    Squeeze:    Spelling(_write_squeeze,   _read_squeeze),
    Unsqueeze:  Spelling(_write_unsqueeze, _read_unsqueeze),
    Stride:     Spelling(lambda op, x: Pattern((_write_steps(op.steps, x),)),
                         lambda p: Stride(_read_steps(_only(p)))),
    Interleave: Spelling(lambda op, x: Pattern((_write_steps(op.steps, x),), None, op.fill),
                         lambda p: Interleave(_read_steps(_only(p, tail=True)), p.tail)),
    Slice:      Spelling(_write_slice,     _read_slice),
    Pad:        Spelling(_write_pad,       _read_pad),
    Reduce:     Spelling(_write_reduce,    _read_reduce),
    Repeat:     Spelling(_write_repeat,    _read_repeat),
    Unfold:     Spelling(_write_unfold,    _read_unfold),
    Fold:       Spelling(_write_fold,      _read_fold),
    Einsum:     Spelling(_write_einsum,    _read_einsum),
}
# fmt: on
