"""Weights files that are not safetensors, read in a process of their own: the room that may be broken into.

`search.encoders.conversion` starts it. There are two readers: `torch.load` with weights_only=True and no fallback, and
for TorchScript archives one of our own, which takes the tensors and never the program. Both are bounded in memory and
processor time and have no network where the system allows to give it up; what comes out is one safetensors file of
dense tensors, which the starting process looks through again.
"""

from __future__ import annotations

import io
import json
import pickle  # only for the restricted Unpickler below and its error
import sys
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from search.encoders import isolation
from search.encoders.checkpoints import State, plain_tensors
from search.encoders.hub import first_line
from search.errors import CheckpointError

_ARCHIVE_EXTRAS = frozenset({"input_resolution", "context_length", "vocab_size"})
_FILE_TIMES = 4  # so many times the file's bytes may come out: shared tensors are written more than once


def convert(job: Mapping[str, str]) -> None:
    """Turn the file job["source"] into safetensors at job["target"], and tell stdout how that went, in JSON.

    {}: it is done.   {"fault", "hint"}, {"reason"}: it is no checkpoint, it can't be read.   {"unwritten"}: the target
    can't be written.
    """
    source = Path(job["source"])
    isolation.bound(source.stat().st_size)
    json.dump(_attempt(source, job["target"]), sys.stdout)


# the process


def _attempt(source: Path, target: str) -> dict[str, str]:
    try:
        return _write(_separate(plain_tensors(_read(source), source), source), target)
    except CheckpointError as error:
        return {"fault": error.message, "hint": error.hint}
    except Exception as error:  # damaged bytes surface as almost anything; none of it is ours to tell apart
        return {"reason": "it asks for more memory than it can need" if _starved(error) else first_line(error)}


def _write(state: State, target: str) -> dict[str, str]:
    from safetensors.torch import save_file

    try:
        save_file(state, target, metadata={"format": "pt"})
    except KeyError as error:
        return {"reason": f"safetensors has no word for {first_line(error)}"}
    except Exception as error:  # safetensors wraps what the disk says in an error of its own
        return {"unwritten": first_line(error)}
    return {}


def _separate(state: State, path: Path) -> State:
    """Give each tensor its own memory, as safetensors wants it, unless that is more than the file can mean."""
    if sum(x.numel() * x.element_size() for x in state.values()) > _FILE_TIMES * path.stat().st_size:
        raise CheckpointError(f"{path} has tensors of more bytes than the whole file")
    seen: set[int] = set()
    return {name: _own(tensor, seen) for name, tensor in state.items()}


def _own(tensor: torch.Tensor, seen: set[int]) -> torch.Tensor:
    place = tensor.untyped_storage().data_ptr()
    if place in seen:
        return tensor.clone(memory_format=torch.contiguous_format)
    seen.add(place)
    return tensor.contiguous()


def _starved(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or "allocate memory" in f"{error} {error.__cause__}"


# reading


def _read(path: Path) -> object:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            _refuse_bombs(archive, path)
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):  # what TorchScript adds
                return _read_torchscript(archive)
    return _read_torch(path)


def _read_torch(path: Path) -> object:
    """Keep torch's words to ourselves, its warnings too: they advise to load the file without the safeguard."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        if _starved(error):
            raise MemoryError from None
        raise pickle.UnpicklingError("torch finds no plain tensors in it") from None


def _refuse_bombs(archive: zipfile.ZipFile, path: Path) -> None:
    """torch stores its tensors uncompressed, so no honest entry is larger than the file it came in."""
    limit = path.stat().st_size
    if any(entry.file_size > limit for entry in archive.infolist()):
        raise CheckpointError(f"{path} has an entry that unpacks to more than the whole file: not a checkpoint")


# TorchScript archives, read as data


class _Module:
    """Stands for every class of the archive's own; it can hold attributes and do nothing."""

    def __init__(self, *_: object) -> None:
        self.attributes: Mapping[str, object] = {}

    def __setstate__(self, state: object) -> None:
        self.attributes = state if isinstance(state, Mapping) else {}


class _TensorUnpickler(pickle.Unpickler):
    """Rebuilds tensors and inert modules; any other name in the pickle is refused."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{root}data.pkl")))
        self._archive = archive
        self._root = root
        self._storages: dict[str, torch.Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return _Module
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if (module, name) in _BUILDERS:
            return _BUILDERS[module, name]
        raise pickle.UnpicklingError(f"the archive asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> torch.Tensor:
        _, dtype, key, *_ = pid  # "storage", dtype, entry, where it was, elements
        if key not in self._storages:
            data = bytearray(self._archive.read(f"{self._root}data/{key}"))
            self._storages[key] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        return self._storages[key]


def _rebuild_tensor(storage: torch.Tensor, offset: int, size: Any, stride: Any, *_: object) -> torch.Tensor:
    return storage.as_strided(size, stride, offset)  # torch refuses a view beyond the storage


def _keep(value: object, *_: object) -> object:
    return value


_STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_LISTS = ("build_intlist", "build_tensorlist", "build_doublelist", "build_boollist", "restore_type_tag")
_BUILDERS: dict[tuple[str, str], Callable[..., object]] = {
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("collections", "OrderedDict"): OrderedDict,
    **{("torch.jit._pickle", name): _keep for name in _LISTS},
}


def _read_torchscript(archive: zipfile.ZipFile) -> State:
    """Return the tensors of an archive by the path of attributes that leads to them.

    Buffers that a module computes for itself, which only TorchScript keeps, are left out.
    """
    root = next(name for name in archive.namelist() if name.endswith("/data.pkl")).removesuffix("data.pkl")
    module = _TensorUnpickler(archive, root).load()
    if not isinstance(module, _Module):
        raise pickle.UnpicklingError(f"the archive holds a {type(module).__name__}, not a module")
    return {
        name: tensor
        for name, tensor in _tensors(module, "", set())
        if name not in _ARCHIVE_EXTRAS and name.rpartition(".")[2] != "attn_mask"
    }


def _tensors(module: _Module, prefix: str, seen: set[int]) -> Iterator[tuple[str, torch.Tensor]]:
    if id(module) in seen:  # a pickle may tie knots; a module belongs to one place
        return
    seen.add(id(module))
    for name, value in module.attributes.items():
        if isinstance(value, torch.Tensor):
            yield prefix + name, value
        elif isinstance(value, _Module):
            yield from _tensors(value, f"{prefix}{name}.", seen)
