"""Proofs of laws for all sizes: `prove_law`, `prove_all`; see `safegraph.proof.prove`."""

from safegraph.proof.prove import Proof, differs, prove_all, prove_law

__all__ = ["Proof", "differs", "prove_all", "prove_law"]
