"""Laws proved for all sizes, a line for each family: how many, on how many structures, how fast.

    python -m benchmarks.proofs [--structures N] [--list] [FAMILY ...]

Without names, all families but definitions, which are proved by definition, and batches.  `--list`
also prints why each of the other laws is only tested.  What "proved" claims is said in
`safegraph.proof.prove`.
"""

from __future__ import annotations

import argparse
import time

from rich.console import Console
from rich.table import Table

from safegraph.proof import Proof, prove_all
from safegraph.rules import FAMILIES

MOVING = ("inverse", "movement", "concat", "einsum", "conv", "windows", "affine")
COMPUTING = ("pointwise", "spelling", "recognition", "attention", "lowering")


def measure(family: str, structures: int) -> tuple[list[Proof], float]:
    """The proofs of the laws of a family, and the seconds that they took."""
    start = time.perf_counter()
    proofs = prove_all(FAMILIES[family], structures=structures)
    return proofs, time.perf_counter() - start


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("families", nargs="*", default=(*MOVING, *COMPUTING), metavar="FAMILY")
    parser.add_argument("--structures", type=int, default=8, help="for each law, at most")
    parser.add_argument("--list", action="store_true", help="print what is not proved, and why")
    given = parser.parse_args()
    if unknown := set(given.families) - set(FAMILIES):
        parser.error(f"no family {', '.join(sorted(unknown))}; there are {', '.join(FAMILIES)}")
    console = Console(width=160)
    table = Table(title=f"Laws proved for all sizes, on up to {given.structures} structures each")
    for column in ("family", "laws", "proved", "share", "structures", "seconds"):
        table.add_column(column, justify="left" if column == "family" else "right")
    every: list[Proof] = []
    total = 0.0
    for family in given.families:
        proofs, seconds = measure(family, given.structures)
        every += proofs
        total += seconds
        table.add_row(family, *_figures(proofs, seconds))
    table.add_section()
    table.add_row("all", *_figures(every, total))
    console.print(table)
    for proof in every if given.list else ():
        if not proof.proved:
            console.print(str(proof), markup=False)


def _figures(proofs: list[Proof], seconds: float) -> tuple[str, ...]:
    proved = sum(p.proved for p in proofs)
    structures = sum(p.structures for p in proofs if p.proved)
    share = f"{100 * proved / max(len(proofs), 1):.0f} %"
    return str(len(proofs)), str(proved), share, str(structures), f"{seconds:.0f}"


if __name__ == "__main__":
    main()
