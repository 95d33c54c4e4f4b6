"""What a law is: two terms that are equal, for every value of their variables.

A law reads like mathematics and stands in a table:

    x, y = variables("x y")
    p, q = any_of(Permute, "p q")

    LAWS = (
        one("permutes compose",      q(p(x)), then(p, q)(x)),
        one("a difference is a sum", x - y, x + (-y)),
    )

`x` stands for any tensor, `p` for any permute: its spec is a variable too.  On the right, a new
spec is a small pure function of the matched ones (`@spec`), which gives None where the law does not
apply.  Where the right side has another structure for other sizes, it is a function of the matched
specs and values, by parameter name (or `**found` for all), that builds the term or gives None.

A law is data: its rule in the e-graph, its test, its line in an explanation all come from it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, TypeAlias

from safegraph.dtypes import DTYPES
from safegraph.errors import LawError, ShapeError, SpecError
from safegraph.op import Op, TensorType
from safegraph.ops import Binary, Unary
from safegraph.ranges import Range
from safegraph.value import Value, apply

GRADES = ("exact", "real", "finite", "approx")


class _Algebra:
    """Python operators that build terms of laws."""

    @staticmethod
    def applied(op: Op, operands: tuple[Any, ...]) -> Term:
        return Term(op, operands)

    def __add__(self, other: Any) -> Term:
        return Term(Binary("add"), (self, other))

    def __sub__(self, other: Any) -> Term:
        return Term(Binary("subtract"), (self, other))

    def __mul__(self, other: Any) -> Term:
        return Term(Binary("multiply"), (self, other))

    def __truediv__(self, other: Any) -> Term:
        return Term(Binary("divide"), (self, other))

    def __neg__(self) -> Term:
        return Term(Unary("neg"), (self,))


@dataclass(frozen=True)
class Var(_Algebra):
    """Any tensor."""

    name: str


@dataclass(frozen=True)
class OpVar:
    """Any op of a class."""

    name: str
    cls: type[Op]

    def __call__(self, *operands: Any) -> Term:
        return Term(self, operands)


@dataclass(frozen=True)
class SpecCall:
    """A spec computed from matched specs and types."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]

    def __call__(self, *operands: Any) -> Term:
        return Term(self, operands)

    def __str__(self) -> str:
        return f"{self.function.__name__}({', '.join(_show(a) for a in self.arguments)})"


@dataclass(frozen=True, eq=False)
class Term(_Algebra):
    """An op, a variable op or a computed op, on terms."""

    head: Op | OpVar | SpecCall
    operands: tuple[Any, ...]

    def __str__(self) -> str:
        return _show(self)


Pattern: TypeAlias = "Term | Var"
Build: TypeAlias = Callable[..., "Value | None"]


def _show(item: Any) -> str:
    match item:
        case Var(name):
            return name
        case OpVar(name, _):
            return name
        case Term(Binary(kind=kind), (a, b)):
            return f"{kind}({_show(a)}, {_show(b)})"
        case Term(Unary(kind=kind), (a,)):
            return f"{kind}({_show(a)})"
        case Term(head, operands):
            return f"{_show(head)}({', '.join(map(_show, operands))})"
        case Op():
            return item.name
    return str(item)


def variables(names: str) -> tuple[Var, ...]:
    """Variables for tensors, by name.

    >>> variables("x y")
    (Var(name='x'), Var(name='y'))
    """
    return tuple(map(Var, names.split()))


def any_of(cls: type[Op], names: str) -> tuple[OpVar, ...]:
    """Variables for ops of a class, by name."""
    return tuple(OpVar(name, cls) for name in names.split())


def spec(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of ops (and of values, for their types) that gives an op, or None: no law here.

    Called with variables of a law it stands for its result; called with ops it computes it.
    """

    def wrapped(*arguments: Any) -> Any:
        if any(isinstance(a, Var | OpVar | SpecCall) for a in arguments):
            return SpecCall(function, arguments)
        return function(*arguments)

    wrapped.__name__ = function.__name__
    wrapped.__doc__ = function.__doc__
    wrapped.__wrapped__ = function  # type: ignore[attr-defined]
    return wrapped


@dataclass(frozen=True)
class Fact:
    """What must be known of a variable: constant, uniform, positive, ..."""

    kind: str
    name: str


def constant(x: Var) -> Fact:
    """The value depends on no input of the graph."""
    return Fact("constant", x.name)


def uniform(x: Var) -> Fact:
    """All elements are one known number; functions get it as the parameter `<name>_is`."""
    return Fact("uniform", x.name)


def positive(x: Var) -> Fact:
    """All elements are above 0, by interval analysis."""
    return Fact("positive", x.name)


def nonnegative(x: Var) -> Fact:
    """No element is below 0, by interval analysis."""
    return Fact("nonnegative", x.name)


def capped(x: Var) -> Fact:
    """No element is inf, by interval analysis; -inf, as masks have it, may be."""
    return Fact("capped", x.name)


def varying(x: Var) -> Fact:
    """Not known to be one number: laws of sums and products need not look at those of numbers."""
    return Fact("varying", x.name)


_RANGES: dict[str, Callable[[Range], bool]] = {
    "capped": lambda r: not r.top,
    "varying": lambda r: r.low != r.high,
    "positive": lambda r: r.low > 0,
    "nonnegative": lambda r: r.low >= 0,
}


@dataclass(frozen=True, eq=False)
class Law:
    """`left` may be replaced by `right`.

    `grade` says how far they are equal: `exact` (the same bits), `real` (equal over the reals:
    rounding may differ), `finite` (over the reals, for finite values: used only where interval
    analysis shows that all variables are), `approx` (never on by default).
    """

    name: str
    left: Term
    right: Pattern | Build
    facts: tuple[Fact, ...] = ()
    when: tuple[SpecCall, ...] = ()
    grade: str = "real"
    family: str = ""
    like: str | Value | tuple[Value, ...] = ""
    """Operands with which the law fires, where ones drawn at random seldom fit each other: types by
    variable, `"x: 2 3 6 6, w: 4 3 3 3, i: i64 5"` (f64 where no element type is given); several
    examples are parted by `;`.  Names that the law lacks are passed over, so that one with and one
    without a bias share a text.  Where ops must fit each other too: whole terms, as values.  Tests
    draw cases like these: other sizes, equal ones together."""

    varies: bool = False
    """Only where the root is not known to be one number: what is one needs no other form."""
    depends: bool = False
    """Only where the root depends on an input: what does not is computed ahead, in any form."""

    def __post_init__(self) -> None:
        if wrong := "; ".join(_mistakes(self)):
            raise ValueError(f"{self.name or 'a law'}: {wrong}")
        if lacks := [t for t in self.tensors if any(t not in e for e in self.operand_examples)]:
            raise ValueError(f"{self.name}: like lacks {', '.join(lacks)}: {self.like!r}")
        if self.grade not in GRADES:
            raise ValueError(
                f"{self.name}: there is no grade {self.grade!r}; there are {', '.join(GRADES)}"
            )
        if isinstance(self.right, Term | Var):
            missing = {v.name for v in _atoms(self.right)} - {v.name for v in _atoms(self.left)}
            if missing:
                raise ValueError(
                    f"{self.name}: the right side has {', '.join(sorted(missing))}, "
                    "the left has not"
                )
        elif unknown := {n for n, need in _parameters(self.right).items() if need} - self._scope:
            raise ValueError(f"{self.name}: no variable is called {', '.join(sorted(unknown))}")

    @property
    def _scope(self) -> set[str]:
        known = {v.name for v in _atoms(self.left)}
        return known | {f"{f.name}_is" for f in self.facts if f.kind == "uniform"} | {"root"}

    @cached_property
    def needs(self) -> frozenset[tuple[type[Op], int]]:
        """The op classes of the left side, with their numbers of operands."""
        return frozenset(_heads(self.left))

    @cached_property
    def tensors(self) -> tuple[str, ...]:
        """The names of the tensor variables of the left side, in order."""
        return tuple(dict.fromkeys(v.name for v in _atoms(self.left) if isinstance(v, Var)))

    @cached_property
    def ranges(self) -> tuple[tuple[int, Callable[[Range], bool]], ...]:
        """What must hold of the ranges of tensor variables, by their places in `tensors`."""
        return tuple(
            (self.tensors.index(f.name), _RANGES[f.kind]) for f in self.facts if f.kind in _RANGES
        )

    @cached_property
    def specs(self) -> tuple[OpVar, ...]:
        """The op variables of the left side, in order."""
        return tuple(dict.fromkeys(v for v in _atoms(self.left) if isinstance(v, OpVar)))

    @cached_property
    def operand_examples(self) -> tuple[dict[str, TensorType], ...]:
        """The examples of `like` that are texts: operand types by name."""
        if not isinstance(self.like, str):
            return ()
        texts = (text for text in self.like.split(";") if text.strip())
        every = (_example(self.name, text) for text in texts)
        return tuple({t: e[t] for t in self.tensors if t in e} for e in every)

    @cached_property
    def term_examples(self) -> tuple[Value, ...]:
        """The examples of `like` that are terms."""
        if isinstance(self.like, str):
            return ()
        return (self.like,) if isinstance(self.like, Value) else self.like

    def build(self, scope: Mapping[str, Any]) -> Value | None:
        """The right side for these ops, values (and numbers); None where the law does not apply."""
        try:
            for condition in self.when:
                if not condition.function(*(_resolve(a, scope) for a in condition.arguments)):
                    return None
            if isinstance(self.right, Term | Var):
                return _instance(self.right, scope)
            names = _parameters(self.right)
            every = _EVERY in names
            built = self.right(**{n: v for n, v in scope.items() if every or n in names})
        except (ShapeError, SpecError, _NoLaw):
            return None
        except _MISTAKES as error:
            given = ", ".join(f"{n} = {v!r}" for n, v in scope.items())
            raise LawError(
                f"{self.name}: its right side failed with {type(error).__name__}: {error}; "
                f"give None where the law does not apply. It was called with {given}"
            ) from error
        if built is None or isinstance(built, Value):
            return built
        raise LawError(
            f"{self.name}: its right side gave {type(built).__name__} {built!r}; a function must "
            "give a term of safegraph.value, or None where the law does not apply"
        )

    def __str__(self) -> str:
        right = _show(self.right) if isinstance(self.right, Term | Var) else "..."
        return f"{self.name}: {_show(self.left)} -> {right}"


def _mistakes(law: Law) -> Iterator[str]:
    """What makes a law no law, whatever its variables stand for."""
    if not law.name:
        yield "it needs a name, by which proofs and explanations tell of it"
    if not isinstance(law.left, Term):
        yield f"the left side is an op on variables, not {_show(law.left)}"
        return
    for c in law.when:
        if not isinstance(c, SpecCall):
            yield f"when= is a @spec function of variables of the law, along(p, x), not {c!r}"
    for part in _parts(law.left):
        if isinstance(part, Term) and isinstance(part.head, SpecCall):
            yield f"{part.head} is computed: that is for the right side, the left has any_of(...)"
    for part in (*_parts(law.left), *_parts(law.right)):
        if isinstance(part, Term) and not isinstance(part.head, SpecCall):
            cls: Any = part.head.cls if isinstance(part.head, OpVar) else type(part.head)
            least, most = cls.arity
            count = len(part.operands)
            if count < least or (most is not None and count > most):
                yield f"{_show(part)} has {count} operands, not {least}"
        elif not isinstance(part, Term | Var) and part is not law.right:
            yield f"{part!r} is no term: a number is Scalar(2.0, 'f64')() or uniform(x)"
    known = {v.name for v in _atoms(law.left) if isinstance(v, Var)}
    for name in dict.fromkeys(f.name for f in law.facts if f.name not in known):
        yield f"facts= has {name}, which the left side lacks"


def _parts(item: Any) -> Iterator[Any]:
    """A pattern and all that is in it."""
    yield item
    if isinstance(item, Term):
        for operand in item.operands:
            yield from _parts(operand)


def _example(law: str, text: str) -> dict[str, TensorType]:
    """Types by variable; ValueError where the text is none."""
    found = {}
    for part in text.split(","):
        name, colon, given = part.partition(":")
        words = given.split()
        dtype = words.pop(0) if words and not words[0].isdigit() else "f64"
        if not (colon and name.strip().isidentifier() and dtype in DTYPES):
            raise ValueError(f"{law}: like is 'x: 2 3, i: i64 5', not {part.strip()!r}")
        found[name.strip()] = TensorType(dtype, tuple(map(int, words)))
    return found


class _NoLaw(Exception):
    """A computed spec was None."""


_MISTAKES = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def _instance(pattern: Any, scope: Mapping[str, Any]) -> Value:
    if isinstance(pattern, Var):
        return scope[pattern.name]
    op = _resolve(pattern.head, scope)
    if op is None:
        raise _NoLaw
    return apply(op, *(_instance(o, scope) for o in pattern.operands))


def _resolve(item: Any, scope: Mapping[str, Any]) -> Any:
    match item:
        case Var(name) | OpVar(name, _):
            return scope[name]
        case SpecCall(function, arguments):
            found = [_resolve(a, scope) for a in arguments]
            if any(a is None for a in found):
                raise _NoLaw
            return function(*found)
    return item


_EVERY = "**"  # the parameter of a function that takes everything that was matched


@cache
def _parameters(function: Callable[..., Any]) -> dict[str, bool]:
    """The parameters of a function, and whether each is needed: those with a default are not."""
    found = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in found):
        return {_EVERY: False}
    return {p.name: p.default is p.empty for p in found}


def _atoms(item: Any) -> Iterator[Var | OpVar]:
    match item:
        case Var() | OpVar():
            yield item
        case Term(head, operands):
            yield from _atoms(head)
            for operand in operands:
                yield from _atoms(operand)
        case SpecCall(_, arguments):
            for argument in arguments:
                yield from _atoms(argument)


def _heads(item: Any) -> Iterator[tuple[type[Op], int]]:
    if isinstance(item, Term):
        head = item.head.cls if isinstance(item.head, OpVar) else type(item.head)
        yield head, len(item.operands)  # type: ignore[misc]
        for operand in item.operands:
            yield from _heads(operand)


def one(name: str, left: Term, right: Pattern | Build, **options: Any) -> tuple[Law, ...]:
    """A law that is used from left to right."""
    return (Law(name, left, right, **_tuples(options)),)


def both(name: str, left: Term, right: Term, **options: Any) -> tuple[Law, ...]:
    """A law that is used in both directions; each side has all the variables."""
    return (
        Law(name, left, right, **_tuples(options)),
        Law(f"{name} (backwards)", right, left, **_tuples(options)),
    )


def _tuples(options: dict[str, Any]) -> dict[str, Any]:
    for key in ("facts", "when"):
        if key in options and not isinstance(options[key], tuple):
            options[key] = (options[key],)
    return options


def table(
    family: str, *laws: Sequence[Law], varies: bool = False, depends: bool = False
) -> tuple[Law, ...]:
    """The laws of a family, in one tuple.

    `varies` says that they are not for what is a number, `depends` not for what is constant.
    """
    from dataclasses import replace

    found = tuple(
        replace(law, family=family, varies=varies, depends=depends)
        for group in laws
        for law in group
    )
    names = [law.name for law in found]
    twice = {n for n in names if names.count(n) > 1}
    if twice:
        raise ValueError(f"two laws of {family} are called {', '.join(sorted(twice))}")
    return found
