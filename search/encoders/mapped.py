"""Safetensors files in numpy, mapped into memory: https://huggingface.co/docs/safetensors.

The format is eight bytes of the header's length, a header in JSON, and the tensors' bytes. Its own numpy reader
copies each tensor and knows no bfloat16.
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from search.encoders.towers.arithmetic import Array, Stored

_MAX_HEADER_BYTES = 100_000_000  # safetensors' own limit
_ALIGNMENT = 64  # bytes; the format asks for 8
_DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor where it lies in a file.   dtype: "F32", "F16" or "BF16", whose bits are then in uint16."""

    dtype: str
    values: Any

    def stored(self) -> Stored:
        """Return the values as a view if numpy has such numbers, else converted."""
        values: Stored = self.values if self.dtype != "BF16" else self.float32()
        return values

    def float32(self) -> Array:
        """Return the values in float32: a view if they are, else converted."""
        if self.dtype == "BF16":  # the upper half of a float32's bits
            widened: Array = np.left_shift(self.values, 16, dtype=np.uint32).view(np.float32)
            return widened
        converted: Array = self.values.astype(np.float32, copy=False)
        return converted


def read(path: Path) -> dict[str, Tensor]:
    """Return the floating-point tensors of a file by name, as views of the mapped file.

    Raises OSError; ValueError, KeyError or TypeError if the file is not as the format says.
    """
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    size = int.from_bytes(mapped[:8], "little")
    if size > min(_MAX_HEADER_BYTES, len(mapped) - 8):
        raise ValueError("the header is longer than the file")
    entries = json.loads(mapped[8 : 8 + size])
    if not isinstance(entries, dict):
        raise ValueError("the header is no object")
    return {
        name: _tensor(mapped, 8 + size, entry)
        for name, entry in entries.items()
        if name != "__metadata__" and entry["dtype"] in _DTYPES and 0 not in entry["shape"]
    }


def _tensor(mapped: mmap.mmap, data: int, entry: Mapping[str, Any]) -> Tensor:
    start, end = entry["data_offsets"]
    dtype, count = _DTYPES[entry["dtype"]], math.prod(entry["shape"])
    if not 0 <= start <= end <= len(mapped) - data or end - start != count * dtype.itemsize:
        raise ValueError("a tensor is not where the header says")
    return Tensor(entry["dtype"], np.frombuffer(mapped, dtype, count, data + start).reshape(entry["shape"]))


def write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors in float32; a table of tokens, which is read by rows, stays in float16 if it is.

    The file is whole or not there.   Raises OSError.
    """
    from search import files

    files.atomic_write_parts(path, _parts(tensors))


def _parts(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    entries, end = {}, 0
    for name, tensor in tensors.items():
        dtype = tensor.dtype if is_usable(name, tensor) else "F32"
        start, end = end, end + tensor.values.size * _DTYPES[dtype].itemsize
        entries[name] = {"dtype": dtype, "shape": list(tensor.values.shape), "data_offsets": [start, end]}
    header = json.dumps(entries).encode()
    header += b" " * (-(8 + len(header)) % _ALIGNMENT)
    yield len(header).to_bytes(8, "little") + header
    for name, tensor in tensors.items():  # one at a time: together they may not fit into memory
        values = tensor.stored() if is_usable(name, tensor) else tensor.float32()
        yield np.ascontiguousarray(values).reshape(-1).view(np.uint8).data


def is_usable(name: str, tensor: Tensor) -> bool:
    """Whether a text tower can use a tensor where it lies; of a table of tokens only some rows are converted."""
    return tensor.dtype == "F32" or (tensor.dtype == "F16" and name.endswith("token_embedding.weight"))
