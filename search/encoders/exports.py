"""What is known of models that were exported to a faster runtime: one record for each name.

A record says which files the model was made of, where its exported form is, and which runtime was the faster one on
this machine. It is published last, whole, and names the exported files by their SHA-256: what an interrupted export
leaves is named by nothing. What lies in the user's cache is not missed when deleted: it can be made again, with the
same vectors. Models in int8 can't: calibrated on other photos they have other vectors, so they are the user's data.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata, util
from pathlib import Path
from types import ModuleType, NoneType
from typing import Any

from search import files
from search.encoders import INT8
from search.encoders.conversion import is_ours
from search.errors import ModelError
from search.extras import how_to_add
from search.resources import user_cache

_FORMAT = 1
_PACKAGES = ("openvino", "open_clip_torch")
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
_CARD: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "fingerprint": (str,),
    "dim": (int,),
    "context_length": (int,),
    "logit_scale": (int, float),
    "logit_bias": (int, float, NoneType),
    "parameters": (int,),
    "preprocessing": (dict,),
    "config": (dict,),
    "weights": (str,),
    "tensors": (str, NoneType),
}
_GRAPH = (".xml", ".bin")
_HUB_FOLDER = "snapshots"  # of the hub's cache; which one is meant stands in a file beside it


@dataclass(frozen=True, slots=True)
class Record:
    """A model's card and the outcome of exporting it.

    card: what an encoder says of itself.   files: size and time of what it was made of, by path.   exported: the
    SHA-256 of each exported file by name, none if there is nothing to use.   runtime: the one to use, and why.
    images_per_second: by runtime.   agreement: the least cosine between the runtimes' vectors of one image.
    """

    card: Mapping[str, Any]
    files: Mapping[str, Mapping[str, int]]
    exported: Mapping[str, str]
    runtime: str
    reason: str
    images_per_second: Mapping[str, float] = field(default_factory=dict)
    agreement: float | None = None
    made_by: str = ""


def default_cache() -> Path:
    """Return the folder of exported models: the platform's user cache directory, `search/exports`."""
    return user_cache("exports")


def default_models() -> Path:
    """Return the folder of models in int8: the platform's user data directory, `search/models`."""
    from platformdirs import user_data_path

    return user_data_path("search", appauthor=False) / "models"


def default_folder(name: str) -> Path:
    """Return where the model of this name is kept."""
    return default_models() if name.endswith(INT8) else default_cache()


def made_by() -> str:
    """Name what an export is good for: these versions of what made and runs it, on this kind of machine."""
    versions = ", ".join(f"{package} {metadata.version(package)}" for package in _PACKAGES)
    return f"{versions}, {platform.system()} {platform.machine()}"


def is_possible() -> bool:
    """Say whether the runtime is installed; it is not imported, and may be broken."""
    return util.find_spec("openvino") is not None


def runtime() -> ModuleType | None:
    """Import what runs exported models; None if the runtime is not installed, or broken."""
    with contextlib.suppress(ModelError):
        return require_runtime()
    return None


def require_runtime() -> ModuleType:
    """Import what runs exported models.   Raises ModelError if the runtime is not installed, or broken."""
    if not is_possible():
        raise ModelError("openvino is not installed", hint=how_to_add("fast"))
    try:
        from search.encoders import openvino
    except (ImportError, OSError) as error:
        raise ModelError(f"openvino can't be loaded: {error}", hint=how_to_add("fast")) from None
    return openvino


def find(name: str, cache: Path) -> Record | None:
    """Return the record of the model of this canonical name, if it holds for the files as they are now."""
    try:
        content = json.loads(_place(name, cache).read_text(encoding="utf-8")) if is_ours(cache) else None
        if not isinstance(content, dict) or content.pop("format") != _FORMAT:
            return None
        record = Record(**content)
        if not _is_shaped(record):
            return None
        kept = name.endswith(INT8)  # vectors are bound to it: another version runs it as it is
        same = (kept or record.made_by == made_by()) and record.card["name"] == name
        current = all(files.stat_of(Path(path)) == stat for path, stat in record.files.items())
        return record if same and current else None
    except (*_UNREADABLE, metadata.PackageNotFoundError, ModelError):
        return None


def save(name: str, record: Record, cache: Path) -> None:
    """Publish a record and remove what the one before it named.   Raises OSError."""
    prefix = key(name)
    content = {"format": _FORMAT, **asdict(record)}
    files.atomic_write(_place(name, cache), json.dumps(content, indent=1).encode())
    for path in cache.glob(f"{prefix}.*"):
        if path.name not in record.exported and path.suffix in _GRAPH:
            files.discard(path)


def whole(record: Record, cache: Path) -> bool:
    """Say whether every exported file is there and unchanged; reads them."""
    with contextlib.suppress(OSError):
        return all(files.sha256(cache / name) == digest for name, digest in record.exported.items())
    return False


def folder(cache: Path) -> Path | None:
    """Return the cache made ready to be written to; None if it can't be, or others may write there."""
    with contextlib.suppress(OSError):
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        if is_ours(cache):
            files.sweep(cache)
            return cache
    return None


def key(name: str) -> str:
    """Return what the files of a model begin with."""
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def stated(paths: tuple[Path, ...], loaded: Mapping[str, Mapping[str, int]]) -> dict[str, Mapping[str, int]]:
    """Return size and time of the files a model is made of; of the hub's, also which revision is meant.

    loaded: what is known of some from before they were read; a record of a file replaced since never holds.
    """
    named = [path.parents[1].parent / "refs" / "main" for path in paths if path.parents[1].name == _HUB_FOLDER]
    return {str(path): files.stat_of(path) for path in (*paths, *named) if path.is_file()} | dict(loaded)


def _is_shaped(record: Record) -> bool:
    """Say whether a record that was read has all it takes to open a model.   Raises one of _UNREADABLE, ModelError."""
    from search.encoders.preprocessing import Preprocessing

    Preprocessing.from_dict(record.card["preprocessing"])
    card = all(isinstance(record.card[key], kinds) for key, kinds in _CARD.items())
    speeds = all(isinstance(speed, int | float) for speed in record.images_per_second.values())
    words = all(isinstance(word, str) for word in (record.runtime, record.reason, *record.exported.values()))
    named = all(Path(name).name == name for name in record.exported)
    graph = sorted(Path(name).suffix for name in record.exported) in ([], sorted(_GRAPH))
    agreement = isinstance(record.agreement, int | float | NoneType)
    return card and speeds and words and named and graph and agreement


def _place(name: str, cache: Path) -> Path:
    return cache / f"{key(name)}.json"
