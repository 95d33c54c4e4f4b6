"""What each ATen operation is here: the table that `read` walks by.

A row takes the arguments of the operation in their order, or by the names of its schema (after
`*`); tensors are `Value`s, everything else is Python's.  It gives the result as a term, or a list
of them, or NotImplemented for a variant that SafeGraph has no op for: that one is carried along as
unknown.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from safegraph.frontends.torchscript import (
    recurrent,
    resize,
    rows_composed,
    rows_layers,
    rows_pointwise,
    rows_shape,
    scatter,
)


@dataclass(frozen=True)
class Row:
    """A function of the table, with what it wants to be given."""

    function: Callable[..., Any]
    most: int
    by_name: tuple[str, ...]

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Row:
        parameters = inspect.signature(function).parameters.values()
        places = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        return cls(
            function, len(places), tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)
        )

    def call(self, arguments: Sequence[Any], named: Mapping[str, Any]) -> Any:
        """The result for these arguments, which are given by place and by name."""
        return self.function(
            *arguments[: self.most], **{n: named[n] for n in self.by_name if n in named}
        )


_FUNCTIONS = {
    **rows_pointwise.ROWS,
    **rows_shape.ROWS,
    **rows_layers.ROWS,
    **rows_composed.ROWS,
    **recurrent.ROWS,
    **resize.ROWS,
    **scatter.ROWS,
}

TABLE: dict[str, Row] = {f"aten::{name}": Row.of(f) for name, f in _FUNCTIONS.items()}
"""Rows by the name of the operation, or by name and overload where overloads differ."""
