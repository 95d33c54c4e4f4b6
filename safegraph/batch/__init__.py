"""Batch dimensions: taken away, put in, made free, with a proof; see `safegraph.batch.verdict`."""

from safegraph.batch.verdict import Refusal, Verdict, Verification, batch, rebatch, unbatch

__all__ = ["Refusal", "Verdict", "Verification", "batch", "rebatch", "unbatch"]
