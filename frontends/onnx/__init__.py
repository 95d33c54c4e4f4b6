"""ONNX: `from_onnx` reads a model (one table, one loop), `to_onnx` writes one.

Order to read the files in: `read.py` (the loop), `table_in.py` (its table), `known.py` (what a
model computes from shapes), `writer.py` (the loop back), `table_out.py` (its table), `opaque.py`
(ops that no table knows, both ways).  A table is joined from one file a family of ops.
"""

from safegraph.frontends.onnx.read import from_onnx
from safegraph.frontends.onnx.write import to_onnx

__all__ = ["from_onnx", "to_onnx"]
