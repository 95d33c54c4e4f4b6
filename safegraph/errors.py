"""Everything that SafeGraph refuses, as one family of exceptions.

A message says what was given, what was expected, where, and what to do.  Code that finds several
problems reports all of them at once, in `problems`.  The command line prints the message of a
`SafeGraphError` and exits with 1; any other exception is a bug in SafeGraph.
"""

from collections.abc import Iterable


class SafeGraphError(Exception):
    """What SafeGraph was asked for cannot be done; the message says why.

    >>> print(SafeGraphError("2 ops are unknown:", ["Foo at node a", "Bar at node b"]))
    2 ops are unknown:
      - Foo at node a
      - Bar at node b
    """

    def __init__(self, message: str, problems: Iterable[str] = ()) -> None:
        self.problems: tuple[str, ...] = tuple(problems)
        super().__init__("\n".join([message, *(f"  - {problem}" for problem in self.problems)]))


class ShapeError(SafeGraphError):
    """An op's operands have shapes that it does not take, or a value is not of its shape."""


class DtypeError(SafeGraphError):
    """The dtypes of an op's operands differ, or the op has no meaning for them."""


class SpecError(SafeGraphError):
    """The fields of an op contradict each other or are out of range, whatever the operands."""


class ParseError(SafeGraphError):
    """A text is not in SafeGraph's notation; the message names the line and what was expected."""


class FormatError(SafeGraphError):
    """A file is missing, cut short, or not in the format that its name says."""


class OutputError(SafeGraphError):
    """A result cannot be written where it was asked for; nothing was left there."""


class UnsupportedError(SafeGraphError):
    """A model holds ops that the request needs and no table knows; `problems` has each one."""


class GraphError(SafeGraphError):
    """A graph is not well formed; `problems` has everything that is wrong with it."""


class BatchError(SafeGraphError):
    """Samples of a batch meet, or a batch axis is not where it was said to be."""


class BindingError(SafeGraphError):
    """A size was left free where a number is needed, or was given a number it cannot have."""


class EvaluationError(SafeGraphError):
    """A graph cannot be run on the given values: an input is missing, unknown or does not fit."""


class LawError(SafeGraphError):
    """A law is not well formed, or its two sides were found to differ."""


class ExtractionError(SafeGraphError):
    """No equal term has only the target's ops; `problems` has what the target lacks."""


class MissingPackageError(SafeGraphError):
    """An optional package is needed and missing; the message names the extra to install."""
