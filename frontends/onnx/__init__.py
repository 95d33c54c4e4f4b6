"""ONNX: `from_onnx` reads a model (one table, one loop), `to_onnx` writes one.

Order to read the files in: `read.py` (the loop), `table_in.py` (its table), `known.py` (what a
model computes from shapes), `writer.py` (the loop back), `table_out.py` (its table), `opaque.py`
(ops that no table knows, both ways).  A table is joined from one file a family of ops.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from safegraph.frontends.onnx.read import from_onnx
    from safegraph.frontends.onnx.write import to_onnx

__all__ = ["from_onnx", "to_onnx"]


def __getattr__(name: str) -> Any:
    """The two functions, loaded when they are asked for: ONNX itself is an extra."""
    if name == "from_onnx":
        from safegraph.frontends.onnx.read import from_onnx

        return from_onnx
    if name == "to_onnx":
        from safegraph.frontends.onnx.write import to_onnx

        return to_onnx
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
