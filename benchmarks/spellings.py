"""The many ways in which one function is written, and whether each is recognised as one op.

    python -m benchmarks.spellings [WORD ...]

refines each spelling (or those whose names contain all words) and prints the op that is expected,
what was found, and the seconds.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from time import perf_counter

from rich.console import Console
from rich.table import Table

from benchmarks import spellings_attention, spellings_norm, spellings_pointwise
from benchmarks.spellings_base import Spelling


def spellings() -> list[Spelling]:
    """All of them."""
    parts = (spellings_pointwise, spellings_norm, spellings_attention)
    found = [s for part in parts for s in part.spellings()]
    names = [s.name for s in found]
    if twice := {n for n in names if names.count(n) > 1}:
        raise ValueError(f"two spellings are called {', '.join(sorted(twice))}")
    return found


def main(words: Sequence[str]) -> int:
    """Print the table; 1 if a spelling is not recognised."""
    table = Table(title="Spellings")
    for column in ("spelling", "expected", "found"):
        table.add_column(column)
    table.add_column("seconds", justify="right")
    missed = count = 0
    started = perf_counter()
    for spelling in spellings():
        if not all(word in spelling.name for word in words):
            continue
        print(end=".", flush=True, file=sys.stderr)
        graph = spelling.make()
        start = perf_counter()
        refined = graph.refine()
        seconds = perf_counter() - start
        good = spelling.recognised(refined)
        count += 1
        missed += not good
        found = ", ".join(map(repr, spelling.remains(refined)))
        table.add_row(
            spelling.name,
            repr(spelling.expected),
            found if good else f"[red]{found}[/red]",
            f"{seconds:.2f}",
        )
    console = Console(width=200)
    console.print(table)
    console.print(
        f"{count - missed} of {count} spellings are recognised, "
        f"in {perf_counter() - started:.0f} seconds"
    )
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
