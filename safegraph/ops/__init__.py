"""The core ops, one class each."""

from safegraph.ops.leaves import Iota, Opaque, Scalar
from safegraph.ops.movement import (
    Fold,
    Group,
    Interleave,
    Movement,
    Pad,
    Permute,
    Repeat,
    Slice,
    Squeeze,
    Stride,
    Unfold,
    Ungroup,
    Unsqueeze,
)
from safegraph.ops.pointwise import BINARY, UNARY, Binary, Cast, Pointwise, Select, Unary
from safegraph.ops.reduction import REDUCTIONS, Reduce
from safegraph.ops.sample import Place, Sample

__all__ = [
    "BINARY",
    "REDUCTIONS",
    "UNARY",
    "Binary",
    "Cast",
    "Fold",
    "Group",
    "Interleave",
    "Iota",
    "Movement",
    "Opaque",
    "Pad",
    "Permute",
    "Place",
    "Pointwise",
    "Reduce",
    "Repeat",
    "Sample",
    "Scalar",
    "Select",
    "Slice",
    "Squeeze",
    "Stride",
    "Unary",
    "Unfold",
    "Ungroup",
    "Unsqueeze",
]
