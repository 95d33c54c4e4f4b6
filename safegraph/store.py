"""The native file, `.safegraph`: a zip of the text form of a graph and of its data.

    tensors.safetensors   the data, uncompressed and aligned, so that it is mapped and not read
    graph.txt             the text form
    meta.json             {"format": "safegraph", "version": 1, "producer": "safegraph 0.1.0"}

The member of data is a whole safetensors file (https://huggingface.co/docs/safetensors): 8 bytes
with the length of a JSON header, the header, and the arrays one after the other.  It is written and
read here because the safetensors library can neither write one array at a time into a zip nor map
a part of a file.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import zipfile
from collections.abc import Iterable
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

from safegraph import __version__
from safegraph.dag import SafeDAG, Tensor
from safegraph.dtypes import itemsize, to_numpy
from safegraph.errors import FormatError, OutputError, ParseError, UnsupportedError
from safegraph.text import read, write

VERSION = 1
_ALIGNMENT = 64
_META, _TEXT, _DATA = "meta.json", "graph.txt", "tensors.safetensors"
# fmt: off
_SAFETENSORS = {
    "bool": "BOOL", "i8": "I8", "i16": "I16", "i32": "I32", "i64": "I64",
    "u8": "U8", "u16": "U16", "u32": "U32", "u64": "U64",
    "f16": "F16", "f32": "F32", "f64": "F64", "bf16": "BF16",
    "f8e4m3": "F8_E4M3", "f8e5m2": "F8_E5M2", "c64": "C64",
}
# fmt: on
_DTYPES = {long: short for short, long in _SAFETENSORS.items()}


def save(dag: SafeDAG, path: str | Path) -> None:
    """Write the native file, whole or not at all.

    Raises OutputError where the file cannot be written, UnsupportedError for data that safetensors
    has no type for, GraphError for data that is not of its declared type.
    """
    path = Path(path)
    tensors = _stored(dag)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with draft.open("xb") as file:
            try:
                _write(dag, tensors, file)
                file.flush()
                os.fsync(file.fileno())
                os.replace(draft, path)
            except BaseException:
                draft.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error}; nothing was left there") from None


def _stored(dag: SafeDAG) -> list[Tensor]:
    """The tensors with data, those of wide elements first, which keeps all of them aligned."""
    found = [t for t in dag.tensors.values() if t.data is not None]
    problems = [
        f"{t.kind} {t.name}: {t.type}"
        for t in found
        if t.type.dtype not in _SAFETENSORS or t.name == "__metadata__"
    ]
    if problems:
        raise UnsupportedError(
            "safetensors has no place for these tensors (cast or rename them first):", problems
        )
    return sorted(found, key=lambda t: -itemsize(t.type.dtype))


def _write(dag: SafeDAG, tensors: list[Tensor], file: IO[bytes]) -> None:
    meta = {"format": "safegraph", "version": VERSION, "producer": f"safegraph {__version__}"}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        # First in the file, so that the length of what stands before the data is known: the header
        # of the member, its name, 20 bytes for 64-bit sizes, and the padding itself.
        member = zipfile.ZipInfo(_DATA)
        member.extra = _padding(-(30 + len(_DATA) + 20 + 4) % _ALIGNMENT)
        with archive.open(member, "w", force_zip64=True) as data:
            _write_safetensors(tensors, data)
        for name, text in ((_TEXT, write(dag)), (_META, json.dumps(meta))):
            archive.writestr(
                zipfile.ZipInfo(name), text.encode("utf-8", "surrogatepass"), zipfile.ZIP_DEFLATED
            )


def _padding(count: int) -> bytes:
    """An extra field of a zip member, 4 bytes of header and `count` zeros, that readers skip."""
    return struct.pack("<HH", 0xD935, count) + bytes(count)  # the id that zipalign uses


def _write_safetensors(tensors: Iterable[Tensor], file: IO[bytes]) -> None:
    header: dict[str, Any] = {}
    end = 0
    for t in tensors:
        start, end = end, end + prod(map(int, t.type.shape)) * itemsize(t.type.dtype)
        header[t.name] = {
            "dtype": _SAFETENSORS[t.type.dtype],
            "shape": list(map(int, t.type.shape)),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-(len(text) + 8) % _ALIGNMENT)
    file.write(struct.pack("<Q", len(text)) + text)
    for t in tensors:
        array = t.array()  # one at a time: a model may be larger than the memory
        little = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
        file.write(np.ascontiguousarray(little).reshape(-1).view(np.uint8).data)


def load(path: str | Path) -> SafeDAG:
    """Read the native file.  Its data is mapped into memory: an array is read when it is used.

    The arrays are read-only, and stay what they are when the file is replaced.  Raises FormatError
    for a file that is missing, cut short, of another format, or of a newer version.
    """
    path = Path(path)
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            meta = json.loads(archive.read(_META))
            if meta.get("format") != "safegraph":
                raise FormatError(f"{path} is no .safegraph file: {_META} says {meta}")
            if meta["version"] > VERSION:
                raise FormatError(
                    f"{path} is of version {meta['version']} of the format, written by "
                    f"{meta.get('producer')}; this SafeGraph reads up to {VERSION}: "
                    "install a newer one"
                )
            text = archive.read(_TEXT).decode("utf-8", "surrogatepass")
            start = _data_offset(archive, file)
            whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            arrays = _read_safetensors(whole, start, archive.getinfo(_DATA).file_size)
    except OSError as error:
        raise FormatError(f"cannot read {path}: {error.strerror or error}") from None
    except (
        zipfile.BadZipFile,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        struct.error,
    ) as error:
        raise FormatError(f"{path} is no .safegraph file, or is cut short: {error}") from None
    try:
        dag = read(text)
    except ParseError as error:
        raise FormatError(f"{path}: {_TEXT}: {error}") from None
    strange = [n for n in arrays if n not in dag.tensors]
    if strange:
        raise FormatError(f"{path} has data for tensors that the graph lacks:", strange)
    tensors = [replace(t, data=arrays.get(t.name, t.data)) for t in dag.tensors.values()]
    return SafeDAG(tensors, list(dag), dag.outputs, name=dag.name)


def _data_offset(archive: zipfile.ZipFile, file: IO[bytes]) -> int:
    """Where the bytes of the uncompressed data member start in the file."""
    info = archive.getinfo(_DATA)
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{_DATA} is compressed")
    file.seek(info.header_offset)
    local = file.read(30)  # the local header; its name and extra field follow
    name, extra = struct.unpack("<HH", local[26:30])
    return int(info.header_offset + 30 + name + extra)


def _read_safetensors(buffer: mmap.mmap, start: int, length: int) -> dict[str, np.ndarray]:
    (size,) = struct.unpack("<Q", buffer[start : start + 8])
    first, last = start + 8 + size, start + length
    if first > last or last > len(buffer):
        raise ValueError(f"the header of {_DATA} is longer than the file")
    arrays = {}
    for name, entry in json.loads(buffer[start + 8 : first]).items():
        if name == "__metadata__":
            continue
        dtype = to_numpy(_DTYPES[entry["dtype"]]).newbyteorder("<")
        shape = tuple(entry["shape"])
        begin, end = entry["data_offsets"]
        if begin < 0 or end - begin != prod(shape) * dtype.itemsize or first + end > last:
            raise ValueError(f"the data of {name} is not where {_DATA} says")
        array = np.frombuffer(buffer, np.uint8, end - begin, first + begin) if end > begin else b""
        arrays[name] = np.frombuffer(array, dtype).reshape(shape)
    return arrays
