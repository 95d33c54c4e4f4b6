"""Explanations: the laws from a graph to its optimized form, each with an equal graph."""

from safegraph.explain.congruence import laws_between
from safegraph.explain.explanation import Explanation, Place, Rewrite
from safegraph.explain.tell import explain

__all__ = ["Explanation", "Place", "Rewrite", "explain", "laws_between"]
