r"""How names, values and specs of ops are written: one grammar, for the printer and the parser.

    line     = name [":" type] "=" op "(" [name {"," name}] ")" [spec] ["@" where]
    spec     = pattern | {field "=" value}
    name     = a plain word (letters, digits, _ . / and ::), or any text in JSON quotes
    value    = number | word | "text" | b"base64" | {size} | type | "(" {value ","} ")"
    type     = f32[batch 3 2*h]
    pattern  = a JSON string, in which

    pattern  = side {"," side} ["->" side] ["|" value]
    side     = {term}
    term     = axis                     an axis, by any name
             | size                     an axis of this size
             | "(" {term} ")"           axes that are one axis
             | axis ":" size            an axis and its step
             | "{" axis ":" {[word] [size]} "}" an axis and what is done to it
             | [size] ".." [size]      a part of an axis, both ends in
             | size "<-" axis "->" size an axis and what is added at its ends
    size     = an integer, or an expression of free sizes in braces

A bare word is a string and an expression in braces is a size, everywhere.  Every op can be written
by its fields (`cast(x) to=f32`); an op whose class stands in
`safegraph.patterns.PATTERNS` is written as a pattern
where that says all of its spec, which it does for a spec in its normal spelling.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

from safegraph import dims
from safegraph.dims import Dim, Size
from safegraph.errors import ParseError, SpecError
from safegraph.op import TensorType
from safegraph.value import parse_type

# -- tokens ---------------------------------------------------------------------------------------

_PLAIN = r"(?:[^\W\d]|/)[\w./]*(?:::[\w./]+)*"
_TOKEN = re.compile(
    rf"""\s*(?:
      (?P<end>\#.*|$)
    | (?P<bytes>b"[^"]*")
    | (?P<text>"(?:[^"\\]|\\.)*")
    | (?P<size>\{{[^{{}}]*\}})
    | (?P<type>[a-z]\w*\[[^\]]*\])
    | (?P<number>-?(?:\d+(?:\.\d+)?(?:e[-+]?\d+)?|inf)(?!\w))
    | (?P<name>{_PLAIN})
    | (?P<sign>[=:(),@])
    )""",
    re.VERBOSE,
)
_CONSTANTS: dict[str, Any] = {
    "None": None,
    "True": True,
    "False": False,
    "nan": float("nan"),
    "inf": float("inf"),
}


def quote(text: str) -> str:
    """A name or string as it is where that is plain, else in JSON quotes.

    >>> print(quote("layer1/conv.weight"), quote("a b"))
    layer1/conv.weight "a b"
    """
    if re.fullmatch(_PLAIN, text) and text not in _CONSTANTS:
        return text
    return json.dumps(text, ensure_ascii=False)


class Cursor:
    """A line that is being read: its next token, and readers that say what they expected."""

    def __init__(self, line: str) -> None:
        self.line = line
        self._at = 0
        self.advance()

    def advance(self) -> None:
        """Go on to the next token."""
        match = _TOKEN.match(self.line, self._at)
        if match is None or match.lastgroup is None:
            raise ParseError(f"cannot read {self.line[self._at :].strip()!r}")
        self.kind: str = match.lastgroup
        self.token: str = match[self.kind]
        self._at = match.end()

    def refuse(self, expected: str) -> ParseError:
        """The error that something else was expected here."""
        found = "the end of the line" if self.kind == "end" else repr(self.token)
        return ParseError(f"expected {expected}, found {found}")

    def skip(self, sign: str) -> bool:
        """Is this sign next?  Then go past it."""
        if self.kind == "sign" and self.token == sign:
            self.advance()
            return True
        return False

    def sign(self, sign: str, where: str) -> None:
        """Go past this sign, which must be next."""
        if not self.skip(sign):
            raise self.refuse(f"{sign!r} {where}")

    def name(self, what: str) -> str:
        """A name, plain or in quotes."""
        token = self.token
        if self.kind == "text":
            token = _unquote(token)
        elif self.kind != "name":
            raise self.refuse(what)
        self.advance()
        return token

    def value(self) -> Any:
        """A value of a field."""
        kind, token = self.kind, self.token
        if self.skip("("):
            items = []
            while not self.skip(")"):
                items.append(self.value())
                if not self.skip(","):
                    self.sign(")", "or ',' after a value")
                    break
            return tuple(items)
        read = _READ.get(kind)
        if read is None:
            raise self.refuse("a value")
        self.advance()
        return read(token)


def _unquote(token: str) -> str:
    try:
        return str(json.loads(token))
    except json.JSONDecodeError as error:
        raise ParseError(f"{token} is no JSON string: {error}") from None


def _bytes(token: str) -> bytes:
    try:
        return base64.b64decode(token[2:-1], validate=True)
    except binascii.Error as error:
        raise ParseError(f"{token} is no base64: {error}") from None


def _number(token: str) -> int | float:
    try:
        return int(token) if token.lstrip("-").isdigit() else float(token)
    except ValueError as error:  # Python reads integers of up to 4,300 digits
        raise ParseError(f"{token[:20]}... is no number: {error}") from None


_READ: dict[str, Callable[[str], Any]] = {
    "bytes": _bytes,
    "text": _unquote,
    "size": lambda token: dims.parse(token[1:-1]),
    "type": parse_type,
    "number": _number,
    "name": lambda token: _CONSTANTS.get(token, token),
}


def write_value(value: Any) -> str:
    """The text of a value of a field.

    >>> print(write_value((1, 0.5, "f32", "a b", None, dims.parse("2*n"))))
    (1, 0.5, f32, "a b", None, {2*n})
    """
    if value is None or type(value) in (bool, int, float):
        return repr(value)
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, Size):
        return write_size(value)
    if isinstance(value, bytes):
        return f'b"{base64.b64encode(value).decode()}"'
    if isinstance(value, TensorType):
        return repr(value)
    if isinstance(value, tuple):
        return f"({', '.join(map(write_value, value))}{',' if len(value) == 1 else ''})"
    raise SpecError(
        f"{value!r} ({type(value).__name__}) cannot stand in a spec: use numbers, strings, bytes, "
        "sizes, types, None and tuples of these"
    )


def write_size(size: Dim) -> str:
    """An integer as it is, an expression in braces."""
    return str(size) if isinstance(size, int) else f"{{{str(size).replace(' ', '')}}}"


# -- patterns as data -----------------------------------------------------------------------------

ABSENT: Any = object()
"""In place of a value that a pattern does not have (None is a value)."""


@dataclass(frozen=True)
class Run:
    """Axes that are one axis: `(b c)`."""

    terms: tuple[Term, ...]


@dataclass(frozen=True)
class Step:
    """An axis and its step: `b:2`."""

    axis: str
    step: Dim


@dataclass(frozen=True)
class Marked:
    """An axis and what is done to it, words with or without a size: `{b: window 3 step 2}`."""

    axis: str
    settings: tuple[tuple[str, Dim | None], ...]


@dataclass(frozen=True)
class Part:
    """A part of an axis, both ends in: `1..3`."""

    first: Dim | None
    last: Dim | None


@dataclass(frozen=True)
class Border:
    """An axis with what is added before and after it: `1 <- a -> 2`."""

    before: Dim
    axis: str
    after: Dim


Term: TypeAlias = "str | int | Size | Run | Step | Marked | Part | Border"
Side: TypeAlias = tuple[Term, ...]


@dataclass(frozen=True)
class Pattern:
    """Sides of operands, the side of the result where there is one, and the value after the bar."""

    operands: tuple[Side, ...]
    result: Side | None = None
    tail: Any = ABSENT

    def __str__(self) -> str:
        left = ", ".join(" ".join(map(_write_term, side)) for side in self.operands)
        right = "" if self.result is None else " -> " + " ".join(map(_write_term, self.result))
        tail = "" if self.tail is ABSENT else f" | {write_value(self.tail)}"
        return (left + right).strip() + tail


def _write_term(term: Term) -> str:
    match term:
        case str():
            return term
        case Run(terms):
            return f"({' '.join(map(_write_term, terms))})"
        case Step(axis, step):
            return f"{axis}:{write_size(step)}"
        case Marked(axis, settings):
            words = (w if n is None else f"{w} {write_size(n)}".strip() for w, n in settings)
            return f"{{{axis}: {' '.join(words)}}}"
        case Part(first, last):
            return "..".join("" if n is None else write_size(n) for n in (first, last))
        case Border(before, axis, after):
            return f"{write_size(before)} <- {axis} -> {write_size(after)}"
        case _:
            return write_size(term)


_PATTERN_TOKEN = re.compile(
    r"""\s*(?:
      (?P<mark>\{\s*[^\W\d]\w*\s*:)
    | (?P<part>(?:-?\d+|\{[^{}]*\})?\.\.(?:-?\d+|\{[^{}]*\})?)
    | (?P<size>-?\d+|\{[^{}]*\})
    | (?P<word>[^\W\d]\w*)
    | (?P<sign>->|<-|[():,}])
    )""",
    re.VERBOSE,
)


class _Reader:
    """A pattern that is being read, as a list of (kind, token)."""

    def __init__(self, text: str) -> None:
        before, bar, after = text.partition("|")
        self.text, self.tail = text, ABSENT
        self.tokens: list[tuple[str, str]] = []
        self.at = at = 0
        before = before.rstrip()
        while at < len(before):
            match = _PATTERN_TOKEN.match(before, at)
            if match is None or match.lastgroup is None:
                raise ParseError(f"pattern {text!r}: cannot read {before[at:].strip()!r}")
            self.tokens.append((match.lastgroup, match[match.lastgroup]))
            at = match.end()
        if bar:
            cursor = Cursor(after)
            self.tail = cursor.value()
            if cursor.kind != "end":
                raise cursor.refuse(f"nothing after the value in the pattern {text!r}")

    def peek(self, ahead: int = 0) -> tuple[str, str]:
        at = self.at + ahead
        return self.tokens[at] if at < len(self.tokens) else ("end", "")

    def take(self, kind: str, what: str) -> str:
        found, token = self.peek()
        if found != kind:
            raise ParseError(
                f"pattern {self.text!r}: expected {what}, found {token or 'its end'!r}"
            )
        self.at += 1
        return token

    def skip(self, token: str) -> bool:
        if self.peek() == ("sign", token):
            self.at += 1
            return True
        return False

    def size(self) -> Dim:
        return _size(self.take("size", "a size"))

    def pattern(self) -> Pattern:
        operands = [self.side()]
        while self.skip(","):
            operands.append(self.side())
        result = self.side() if self.skip("->") else None
        if self.peek()[0] != "end":
            raise ParseError(f"pattern {self.text!r}: {self.peek()[1]!r} is out of place")
        return Pattern(tuple(operands), result, self.tail)

    def side(self) -> Side:
        return tuple(self.terms())

    def terms(self) -> Iterator[Term]:
        while self.peek()[0] in ("mark", "part", "size", "word") or self.peek()[1] == "(":
            yield self.term()

    def term(self) -> Term:
        kind, token = self.peek()
        if kind == "mark":
            self.at += 1
            settings: list[tuple[str, Dim | None]] = []
            while not self.skip("}"):
                if self.peek()[0] == "size":  # {c: 1}
                    settings.append(("", self.size()))
                else:
                    word = self.take("word", "a word or '}'")
                    settings.append((word, self.size() if self.peek()[0] == "size" else None))
            return Marked(token[1:-1].strip(), tuple(settings))
        if self.skip("("):
            run = Run(tuple(self.terms()))
            if not self.skip(")"):
                raise ParseError(f"pattern {self.text!r}: ')' is missing")
            return run
        if kind == "word":
            self.at += 1
            return Step(token, self.size()) if self.skip(":") else token
        if kind == "part":
            self.at += 1
            return Part(*(_size(end) if end else None for end in token.split("..")))
        first = self.size()
        if self.skip("<-"):
            axis = self.take("word", "the axis that is padded")
            if not self.skip("->"):
                raise ParseError(f"pattern {self.text!r}: '->' is missing after the axis {axis}")
            return Border(first, axis, self.size())
        return first


def _size(token: str) -> Dim:
    return dims.parse(token.strip("{}"))


@cache
def read_pattern(text: str) -> Pattern:
    """A pattern from its text; raises ParseError."""
    return _Reader(text).pattern()
