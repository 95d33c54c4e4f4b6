"""To ONNX: a model, and its file; `writer.py` has the loop."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import onnx
import onnx_ir as ir

from safegraph.dag import SafeDAG
from safegraph.dims import add_all
from safegraph.errors import OutputError, UnsupportedError
from safegraph.frontends.onnx import opaque
from safegraph.frontends.onnx.writer import Writer

OLDEST, USUAL = 18, 20  # the first whose reductions take axes as operands; what runtimes know well
TOO_LARGE = 2**31 - 2**24  # bytes of a protobuf, with room for what is not data


def to_onnx(
    dag: SafeDAG,
    path: str | Path | None = None,
    *,
    opset: int | None = None,
    external_data: bool = False,
) -> onnx.ModelProto:
    """The graph as an ONNX model, written to `path` if one is given: whole, or not at all.

    The opset is 20, or a later one if an op that no table knows comes from it.  With
    `external_data`, or where the weights take 2 GB or more, they go to `<path>.data`.  Raises
    UnsupportedError with all ops that ONNX cannot say, and OutputError where the file cannot be
    written.
    """
    newest = onnx.defs.onnx_opset_version()
    if opset is None:
        opset = max((USUAL, *map(opaque.needed, dag.unknown)))
    if not OLDEST <= opset <= newest:
        raise UnsupportedError(
            f"opset {opset} cannot be written; give one from {OLDEST} to {newest}"
        )
    model = Writer(dag, opset).write()
    weights = int(add_all(t.type.nbytes for t in dag.tensors.values() if t.kind != "input"))
    external = external_data or weights > TOO_LARGE
    if path is None:
        if external:
            raise OutputError(
                f"the weights take {weights} bytes and need a file of their own: give a path"
            )
        return ir.to_proto(model)
    _save(model, Path(path), external)
    return onnx.load(path, load_external_data=False) if external else ir.to_proto(model)


def _save(model: ir.Model, path: Path, external: bool) -> None:
    """Write beside the target first, then move: no reader ever sees half a file."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=".safegraph-", dir=path.parent))
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
    try:
        data = f"{path.name}.data"
        ir.save(
            model, folder / path.name, format="protobuf", external_data=data if external else None
        )
        if external:
            os.replace(folder / data, path.parent / data)
        os.replace(folder / path.name, path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
