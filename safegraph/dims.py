"""Sizes: integers, and SymPy expressions over named positive integers.  No other file knows SymPy.

A size (`Dim`) is an `int`, or a `Size`: an interned expression, so that equal sizes are one object.
Every operation is memoised on the identity of its operands: a model asks for the same few hundred
sums and products again and again, and SymPy takes from 50 µs to 3 ms for each.

Polynomials are kept expanded.  A floor division that is not exact is an atom (`FloorDiv`) after
everything divisible has been taken out, so `(2*h + 3)//2` is `h + 1` and `(h - 1)//2` and
`(h + 1)//2 - 1` are the same object.
"""

from __future__ import annotations

import ast
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, lru_cache, reduce
from math import lcm
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import WeakValueDictionary

from safegraph.errors import ParseError, ShapeError

if TYPE_CHECKING:
    import sympy

Dim: TypeAlias = "int | Size"
Shape: TypeAlias = tuple[Dim, ...]

KEPT = 1 << 14  # answers that a memo keeps: more than a network asks for, in bounded memory

_SIZES: WeakValueDictionary[Any, Size] = WeakValueDictionary()


class Size:
    """A size that is not a number: an expression over named positive integers.

    Made by `size`, `dims` and arithmetic, never directly.  Equal sizes are one object.

    >>> batch, height = dims("batch height")
    >>> (2 * height + 3) // 2 * batch
    batch*height + batch
    >>> (batch * 12) // 12 is batch
    True
    """

    __slots__ = ("__weakref__", "_code", "_names", "_text", "expr")

    expr: sympy.Expr
    _text: str
    _names: frozenset[str]
    _code: Any

    def __add__(self, other: Dim) -> Dim:
        return _binary("+", self, other)

    def __sub__(self, other: Dim) -> Dim:
        return _binary("-", self, other)

    def __mul__(self, other: Dim) -> Dim:
        return _binary("*", self, other)

    def __floordiv__(self, other: Dim) -> Dim:
        return _binary("//", self, other)

    def __mod__(self, other: Dim) -> Dim:
        return self - self // other * other

    def __neg__(self) -> Dim:
        return _binary("*", self, -1)

    def __radd__(self, other: int) -> Dim:
        return _binary("+", other, self)

    def __rsub__(self, other: int) -> Dim:
        return _binary("-", other, self)

    def __rmul__(self, other: int) -> Dim:
        return _binary("*", other, self)

    def __rfloordiv__(self, other: int) -> Dim:
        return _binary("//", other, self)

    def __rmod__(self, other: int) -> Dim:
        return other - other // self * self

    def __pow__(self, power: int) -> Dim:
        return reduce(operator.mul, [self] * power, 1)

    def __int__(self) -> int:
        raise ShapeError(
            f"the size {self} is not a number: give a value to {', '.join(sorted(self.names))}"
        )

    __index__ = __int__

    def __bool__(self) -> bool:
        return True

    @property
    def names(self) -> frozenset[str]:
        """The names of the free sizes in it."""
        return self._names

    def __repr__(self) -> str:
        return self._text

    def __reduce__(self) -> tuple[Any, ...]:
        return (parse, (self._text,))

    def __copy__(self) -> Size:
        return self

    def __deepcopy__(self, memo: Any) -> Size:
        return self


# -- the SymPy side -------------------------------------------------------------------------------


@cache
def _sympy() -> Any:
    """SymPy, loaded when the first symbolic size is made, with our floor division in it."""
    import sympy

    class FloorDiv(sympy.Function):
        """floor(a / b) for integers, b positive."""

        nargs = (2,)
        is_integer = True

        @classmethod
        def eval(cls, a: Any, b: Any) -> Any:
            return sympy.Integer(int(a) // int(b)) if a.is_Integer and b.is_Integer else None

        def _sympystr(self, printer: Any) -> str:
            a, b = (f"({printer.doprint(x)})" if x.args else printer.doprint(x) for x in self.args)
            return f"({a}//{b})"

        def doit(self, **hints: Any) -> Any:
            return sympy.floor(self.args[0] / self.args[1])

    sympy.FloorDiv = FloorDiv
    return sympy


@cache
def _symbol(name: str) -> Any:
    return _sympy().Symbol(name, integer=True, positive=True)


@cache
def _symbol_from_0(name: str) -> Any:
    return _sympy().Symbol(name, integer=True, nonnegative=True)


def _intern(expr: Any) -> Dim:
    """The one object for an expanded expression."""
    if expr.is_Integer:
        return int(expr)
    found = _SIZES.get(expr)
    if found is None:
        found = object.__new__(Size)
        found.expr = expr
        found._text = str(expr)
        found._names = frozenset(s.name for s in expr.free_symbols)
        found._code = compile(found._text, "<size>", "eval")
        _SIZES[expr] = found
    return found


def sympify(dim: Dim) -> Any:
    """The SymPy expression of a size (floor divisions as `FloorDiv`, `.doit()` for `floor`)."""
    return dim.expr if isinstance(dim, Size) else _sympy().Integer(dim)


@lru_cache(KEPT)
def _binary(symbol: str, a: Dim, b: Dim) -> Dim:
    if not isinstance(a, int | Size) or not isinstance(b, int | Size):
        raise TypeError(f"{a!r} {symbol} {b!r}: a size is an int or a Size")
    return _COMPUTE[symbol](a, b)


def _nested(expr: Any) -> tuple[Any, Any]:
    """(f, k) if the expression is f + k: one floor division by a number, and a number."""
    sp = _sympy()
    number, rest = expr.as_coeff_Add()
    if isinstance(rest, sp.FloorDiv) and rest.args[1].is_Integer and number.is_Integer:
        return rest, number
    return None, None


def _floor_divide(a: Dim, b: Dim) -> Dim:
    if isinstance(b, int) and b == 0:
        raise ShapeError(f"{a} // 0: a size is divided by zero")
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    if b == 1:
        return a
    sp = _sympy()
    numerator, divisor = sympify(a), sympify(b)
    if isinstance(b, int):
        # Split each coefficient into quotient and remainder: one form for all equal sizes.
        whole, rest = [], []
        for term, coefficient in numerator.as_coefficients_dict().items():
            q, r = divmod(int(coefficient), b)
            whole.append(q * term)
            rest.append(r * term)
        quotient, remainder = sp.Add(*whole), sp.Add(*rest)
        if remainder.is_Integer:  # 0 <= remainder < b
            return _intern(quotient)
        common = int(sp.gcd(remainder, divisor)) if not remainder.is_Integer else 1
        if common > 1:
            remainder, divisor = sp.expand(remainder / common), sp.Integer(b // common)
        inner, shift = _nested(remainder)
        if inner is not None and divisor.is_Integer:  # ((n//m) + k)//d is (n + k*m)//(m*d)
            n, m = inner.args
            remainder, divisor = sp.expand(n + shift * m), m * divisor
            return _intern(quotient) + _floor_divide(_intern(remainder), _intern(divisor))
        return _intern(sp.expand(quotient + sp.FloorDiv(remainder, divisor)))
    exact = divide(a, b)
    if exact is not None:
        return exact
    return _intern(sp.FloorDiv(numerator, divisor))


_COMPUTE: dict[str, Callable[[Dim, Dim], Dim]] = {
    "+": lambda a, b: _intern(_sympy().expand(sympify(a) + sympify(b))),
    "-": lambda a, b: _intern(_sympy().expand(sympify(a) - sympify(b))),
    "*": lambda a, b: _intern(_sympy().expand(sympify(a) * sympify(b))),
    "//": _floor_divide,
}


def divide(a: Dim, b: Dim) -> Dim | None:
    """A / b if that is a polynomial with integer coefficients for all sizes, else None.

    >>> n, = dims("n")
    >>> divide(12 * n, 4 * n), divide(n, 2)
    (3, None)
    """
    if isinstance(a, int) and isinstance(b, int):
        return a // b if b and a % b == 0 else None
    if isinstance(b, int) and b == 0:
        return None
    return _quotient(a, b)


@lru_cache(KEPT)
def _quotient(a: Dim, b: Dim) -> Dim | None:
    sp = _sympy()
    quotient, remainder = sp.div(sympify(a), sympify(b), domain="QQ")
    whole = remainder == 0 and all(c.is_Integer for c in quotient.as_coefficients_dict().values())
    return _intern(sp.expand(quotient)) if whole else None


# -- what users write -----------------------------------------------------------------------------


def size(name: str) -> Size:
    """The free size of this name."""
    if not name.isidentifier():
        raise ParseError(f"{name!r} is no name for a size: use letters, digits and _")
    found = _intern(_symbol(name))
    assert isinstance(found, Size)
    return found


def dims(text: str) -> Shape:
    """Sizes from text, separated by spaces.

    >>> dims("batch 3 2*h")
    (batch, 3, 2*h)
    """
    return tuple(parse(part) for part in text.split())


_ALLOWED: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}


@lru_cache(KEPT)
def parse(text: str) -> Dim:
    """A size from text: names, integers, + - * // % ** max(a, b) and parentheses.

    >>> parse("(h + 2)//2 + 1")
    (h//2) + 2
    """

    def read(node: ast.AST) -> Dim:
        match node:
            case ast.Constant(value=int(value)) if not isinstance(value, bool):
                return value
            case ast.Name(id=name):
                return size(name)
            case ast.UnaryOp(op=ast.USub(), operand=inner):
                return -read(inner)
            case ast.BinOp(left=a, op=symbol, right=b) if type(symbol) in _ALLOWED:
                return _ALLOWED[type(symbol)](read(a), read(b))
            case ast.Call(func=ast.Name(id="Max" | "max"), args=args, keywords=[]) if args:
                return reduce(maximum, map(read, args))
        raise ParseError(f"{text!r} is no size: use names, integers, + - * // % ** max and ( )")

    try:
        return read(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, ZeroDivisionError, ShapeError) as error:
        raise ParseError(f"{text!r} is no size: {error}") from None


def names(value: Any) -> frozenset[str]:
    """The names of the free sizes in a size, or in a tuple of sizes."""
    if isinstance(value, Size):
        return value.names
    if isinstance(value, tuple):
        return frozenset().union(*map(names, value))
    return frozenset()


def substitute(dim: Dim, values: Mapping[str, Dim]) -> Dim:
    """The size with names replaced; names that are not in `values` stay free.

    >>> substitute(parse("batch*(h + 1)//2"), {"h": 3})
    2*batch
    """
    if isinstance(dim, int):
        return dim
    scope: dict[str, Any] = {n: values.get(n) if n in values else size(n) for n in dim.names}
    return eval(dim._code, {"__builtins__": {}, "Max": _max_all}, scope)


def evaluate(dim: Dim, values: Mapping[str, int]) -> int:
    """The number, when every free size has a value; ShapeError naming those that lack one."""
    result = substitute(dim, values)
    if isinstance(result, int):
        return result
    raise ShapeError(f"the size {dim} needs a value for {', '.join(sorted(result.names))}")


def product(shape: Iterable[Dim]) -> Dim:
    """The number of elements of a shape."""
    return reduce(operator.mul, shape, 1)


def add_all(terms: Iterable[Dim]) -> Dim:
    """The sum of many sizes: one SymPy `Add`, however many there are."""
    number, counts = 0, Counter[Size]()
    for term in terms:
        if isinstance(term, int):
            number += term
        else:
            counts[term] += 1
    if not counts:
        return number
    if not number and list(counts.values()) == [1]:
        return next(iter(counts))
    sp = _sympy()
    return _intern(sp.expand(sp.Add(sp.Integer(number), *(n * s.expr for s, n in counts.items()))))


def coefficients(dim: Dim) -> Mapping[Dim, int]:
    """A size as a polynomial: product of free sizes (1 for the number) -> coefficient.

    >>> coefficients(parse("3*n*m + 2*n + 5"))
    {1: 5, n: 2, m*n: 3}
    """
    if isinstance(dim, int):
        return {1: dim} if dim else {}
    return _coefficients(dim)


@lru_cache(KEPT)
def _coefficients(dim: Size) -> Mapping[Dim, int]:
    terms = dim.expr.as_coefficients_dict().items()
    found = {_intern(term): int(factor) for term, factor in terms}
    return dict(sorted(found.items(), key=lambda item: (len(str(item[0])), str(item[0]))))


def collected(dim: Dim, chosen: Callable[[str], bool]) -> Mapping[Dim, Dim]:
    """A size as a polynomial in some of its names: product of those (1 for none) -> coefficient.

    A floor division that has a chosen name in it counts as a chosen name.

    >>> collected(parse("n*i + 2*n + i + 1"), lambda name: name == "i")
    {1: 2*n + 1, i: n + 1}
    """
    found: dict[Dim, Dim] = {1: 0}
    for term, factor in coefficients(dim).items():
        own = [n for n in names(term) if chosen(n)]
        if isinstance(term, Size) and own:
            rest, part = term.expr.as_independent(*map(_symbol, own), as_Add=False)
            found[_intern(part)] = found.get(_intern(part), 0) + factor * _intern(rest)
        else:
            found[1] = found[1] + factor * term
    return {part: factor for part, factor in found.items() if factor != 0}


def period(dim: Dim) -> int | None:
    """The number p for which dim is a polynomial in each residue class of its sizes modulo p.

    None where there is none: a maximum, or a division by a size.

    >>> period(parse("n*n + n//2 + (n + 1)//3")), period(parse("n // m"))
    (6, None)
    """
    if isinstance(dim, int):
        return 1
    sp = _sympy()
    divisions = dim.expr.atoms(sp.FloorDiv)
    if dim.expr.has(sp.Max) or not all(d.args[1].is_Integer for d in divisions):
        return None
    return lcm(*(int(d.args[1]) for d in divisions))


# -- what is known of sizes -----------------------------------------------------------------------


_OPEN: ContextVar[dict[tuple[Dim, Dim], None] | None] = ContextVar("open", default=None)


@contextmanager
def open_questions() -> Iterator[dict[tuple[Dim, Dim], None]]:
    """Collect the questions whether a >= b that could not be answered meanwhile, as (a, b)."""
    collected_: dict[tuple[Dim, Dim], None] = {}
    token = _OPEN.set(collected_)
    try:
        yield collected_
    finally:
        _OPEN.reset(token)


def at_least(a: Dim, b: Dim) -> bool | None:
    """Is a >= b for all sizes?  True, False (never), or None (it depends, or cannot be told).

    Every free size is at least 1: with d = d' + 1 a polynomial whose coefficients are all >= 0 is.
    """
    difference = a - b
    if isinstance(difference, int):
        return difference >= 0
    found = _sign(difference)
    if found is None and (open_ := _OPEN.get()) is not None:
        open_[a, b] = None
    return found


@lru_cache(KEPT)
def _sign(difference: Size) -> bool | None:
    """Is it at least 0 for all sizes (True), never (False), or not to be told?"""
    sp = _sympy()
    # Other symbols, >= 0: SymPy takes what it knows of a symbol into account, in Max.
    less = {d: _symbol_from_0(d.name) + 1 for d in difference.expr.free_symbols}
    shifted = sp.expand(difference.expr.xreplace(less))
    if _never_below_0(shifted):
        return True
    if _never_below_0(-shifted) and shifted.as_coefficients_dict().get(sp.S.One, 0) < 0:
        return False
    if shifted.has(sp.FloorDiv) and _never_below_0(_lower_bound(shifted)):
        return True
    return None


def _never_below_0(shifted: Any) -> bool:
    """Are all coefficients >= 0, of terms that are?

    A floor division of something >= 0, and a maximum with something >= 0, is >= 0; others are of
    unknown sign.
    """
    parts = shifted.as_coefficients_dict()
    return all(c >= 0 for c in parts.values()) and all(map(_nonnegative_atoms, parts))


def _lower_bound(shifted: Any) -> Any:
    """What is no more, without floor divisions: (a - b + 1)/b <= a//b <= a/b.

    Terms with several of them, or by a free size, stay as they are.
    """
    sp = _sympy()
    terms = []
    for term, factor in shifted.as_coefficients_dict().items():
        divisions = term.atoms(sp.FloorDiv)
        if len(divisions) == 1 and term.as_powers_dict().get(next(iter(divisions)), 0) == 1:
            (division,) = divisions
            a, b = division.args
            if b.is_Integer:
                term = term.xreplace({division: (a if factor < 0 else a - b + 1) / b})
        terms.append(factor * term)
    return sp.expand(sp.Add(*terms))


def _nonnegative_atoms(term: Any) -> bool:
    sp = _sympy()

    def sure(expr: Any) -> bool:
        return all(c >= 0 for c in sp.expand(expr).as_coefficients_dict().values())

    return all(sure(f.args[0]) for f in term.atoms(sp.FloorDiv)) and all(
        any(map(sure, m.args)) for m in term.atoms(sp.Max)
    )


def maximum(a: Dim, b: Dim) -> Dim:
    """The larger size; a `Max` where it depends."""
    if a is b or at_least(a, b):
        return a
    if at_least(b, a):
        return b
    return _larger(a, b)


@lru_cache(KEPT)
def _larger(a: Dim, b: Dim) -> Dim:
    return largest((*_max_parts(a), *_max_parts(b)))


def _max_parts(a: Dim) -> list[Dim]:
    """The sizes that a is the largest of."""
    if isinstance(a, Size) and isinstance(a.expr, _sympy().Max):
        return [_intern(arg) for arg in a.expr.args]
    return [a]


def undominated(sizes: Iterable[Dim]) -> list[Dim]:
    """Those of which no other is at least as large for all values.

    >>> undominated([parse("n"), parse("3*n"), parse("n*n"), parse("n + 2")])
    [3*n, n**2]
    """
    kept: dict[Dim, tuple[int | None, ...]] = {}
    for dim in dict.fromkeys(sizes):
        samples = _samples(dim)
        above = (k for k, values in kept.items() if _none_below(values, samples))
        if any(_covers(k, dim) for k in above):
            continue
        below = [k for k, values in kept.items() if _none_below(samples, values)]
        for k in below:
            if _covers(dim, k):
                del kept[k]
        kept[dim] = samples
    return list(kept)


def _covers(a: Dim, b: Dim) -> bool:
    """Is a >= b for all sizes, as far as can be told?  First by coefficients: no SymPy."""
    ours, others = coefficients(a), coefficients(b)
    less = (ours.get(t, 0) < others.get(t, 0) for t in {**ours, **others})
    if not any(less) and all(map(_never_negative, {**ours, **others})):
        return True
    return bool(at_least(a, b))


@lru_cache(KEPT)
def _never_negative(term: Dim) -> bool:
    return _nonnegative_atoms(sympify(term))


def _samples(dim: Dim) -> tuple[int | None, ...]:
    """The size at a few values: what is less at one of them cannot be larger for all."""
    free = sorted(names(dim))
    found: list[int | None] = []
    for point in ((1,), (2, 3, 5, 7), (1, 1000), (1000, 1), (4096,)):
        values = {n: point[i % len(point)] for i, n in enumerate(free)}
        try:
            found.append(evaluate(dim, values))
        except ZeroDivisionError:  # it is divided by a size that is 0 there
            found.append(None)
    return tuple(found)


def _none_below(a: tuple[int | None, ...], b: tuple[int | None, ...]) -> bool:
    return all(x is None or y is None or x >= y for x, y in zip(a, b, strict=True))


def largest(sizes: Iterable[Dim]) -> Dim:
    """The largest of many sizes: a `Max` of those that no other is always as large as."""
    kept = undominated(sizes)
    if len(kept) <= 1:
        return kept[0] if kept else 0
    # SymPy's own simplification of a Max takes a minute for 15 terms with floor divisions.
    return _intern(_sympy().Max(*map(sympify, kept), evaluate=False))


def _max_all(*args: Dim) -> Dim:
    return largest(part for arg in args for part in _max_parts(arg))


def same(a: Dim, b: Dim) -> bool | None:
    """Are two sizes equal for all values?  True, False (for none), or None (it depends)."""
    if a is b or a == b:
        return True
    difference = a - b
    if isinstance(difference, int):
        return difference == 0
    if at_least(a, b + 1) or at_least(b, a + 1):
        return False
    return None


# -- assumptions ----------------------------------------------------------------------------------

_ASSUMED: ContextVar[dict[str, tuple[str, Dim, Dim]] | None] = ContextVar("assumed", default=None)


@contextmanager
def assuming() -> Iterator[dict[str, tuple[str, Dim, Dim]]]:
    """Collect what is assumed of sizes meanwhile: text -> ("==", ">=" or "divides", a, b).

    Outside of this, a need that cannot be decided is an error.
    """
    collected: dict[str, tuple[str, Dim, Dim]] = {}
    token = _ASSUMED.set(collected)
    try:
        yield collected
    finally:
        _ASSUMED.reset(token)
        outer = _ASSUMED.get()
        if outer is not None:
            outer.update(collected)


def assume(relation: str, a: Dim, b: Dim) -> None:
    """Note that `a == b`, `a >= b` or that `a` divides `b` (relation "divides") is needed."""
    collected = _ASSUMED.get()
    text = f"{b} % {a} == 0" if relation == "divides" else f"{a} {relation} {b}"
    if collected is None:
        raise ShapeError(f"it cannot be told whether {text}")
    collected[text] = (relation, a, b)


def require_same(a: Dim, b: Dim, what: str) -> Dim:
    """The size that a and b both are: equal, or assumed to be; ShapeError where they never are."""
    known = same(a, b)
    if known is False:
        raise ShapeError(f"{what}: {a} is not {b}")
    if known is None:
        assume("==", a, b)
    return a if isinstance(a, int) else b


def require_at_least(a: Dim, b: Dim, what: str) -> None:
    """That a >= b always, or is assumed to be; ShapeError where it never is."""
    known = at_least(a, b)
    if known is False:
        raise ShapeError(f"{what}: {a} is less than {b}")
    if known is None:
        if isinstance(b, int):  # n - 5 >= 0 is said as n >= 5
            number = coefficients(a).get(1, 0)
            a, b = a - number, b - number
        assume(">=", a, b)


def require_divide(a: Dim, b: Dim, what: str) -> Dim:
    """A / b, exact or assumed to be; ShapeError where it never is."""
    exact = divide(a, b)
    if exact is not None:
        return exact
    if isinstance(a, int) and isinstance(b, int):
        raise ShapeError(f"{what}: {b} does not divide {a}")
    assume("divides", b, a)
    return a // b


def holds(assumption: tuple[str, Dim, Dim], values: Mapping[str, int]) -> bool:
    """Is an assumption true for these sizes?"""
    relation, a, b = assumption
    x, y = evaluate(a, values), evaluate(b, values)
    if relation == "==":
        return x == y
    return x >= y if relation == ">=" else y % x == 0
