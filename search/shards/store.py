"""Where shards' results lie: one object each, whole or not there, below the model's fingerprint.

A folder of this machine, or the address of whatever fsspec reaches (`s3://bucket/prefix`), where writing an object is
a single request. Objects are only ever replaced by what the same shard came to again.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

from search import objects
from search.errors import SourceAway, StorageError, UsageError
from search.extras import how_to_add
from search.files import atomic_write, sweep

T = TypeVar("T")

_SUFFIX = ".parquet"


class Store(Protocol):
    """Objects by name."""

    def names(self) -> set[str]:
        """Return the names of all that is whole.   Raises StorageError."""

    def write(self, name: str, data: bytes) -> None:
        """Put an object there, whole or not at all.   Raises StorageError."""

    def read(self, name: str) -> bytes:
        """Return an object.   Raises StorageError."""

    def part(self, name: str, read: Callable[[BinaryIO], T]) -> T:
        """Return what `read` makes of an object; only what it reads is fetched.   Raises StorageError if it can't."""


def open_store(url: str, fingerprint: str) -> Store:
    """Open the store of one model's vectors.   Raises UsageError for an address of no known kind, StorageError."""
    if "://" in url:
        return _Remote(url, fingerprint)
    return _Folder(Path(url).expanduser().absolute() / fingerprint)


class _Folder:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> set[str]:
        with _told(self._folder):
            if not self._folder.is_dir():
                return set()
            sweep(self._folder)
            return {path.stem for path in self._folder.iterdir() if _is_whole(path.name)}

    def write(self, name: str, data: bytes) -> None:
        with _told(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            atomic_write(self._folder / f"{name}{_SUFFIX}", data)

    def read(self, name: str) -> bytes:
        with _told(self._folder):
            return (self._folder / f"{name}{_SUFFIX}").read_bytes()

    def part(self, name: str, read: Callable[[BinaryIO], T]) -> T:
        with _told(self._folder), (self._folder / f"{name}{_SUFFIX}").open("rb") as file:
            return read(file)


class _Remote:
    def __init__(self, url: str, fingerprint: str) -> None:
        self._files, prefix = objects.reach(url)
        self._url, self._prefix = url, f"{prefix.rstrip('/')}/{fingerprint}"

    def names(self) -> set[str]:
        with _told(self._url):
            try:
                found = objects.asked(self._url, lambda: self._files.ls(self._prefix, detail=False))
            except FileNotFoundError:
                return set()
            names = [path.rpartition("/")[2] for path in found]
            return {name.removesuffix(_SUFFIX) for name in names if _is_whole(name)}

    def write(self, name: str, data: bytes) -> None:
        with _told(self._url):
            objects.asked(self._url, lambda: self._files.pipe_file(f"{self._prefix}/{name}{_SUFFIX}", data))

    def read(self, name: str) -> bytes:
        with _told(self._url):
            place = f"{self._prefix}/{name}{_SUFFIX}"
            data: bytes = objects.asked(self._url, lambda: self._files.cat_file(place))
            return data

    def part(self, name: str, read: Callable[[BinaryIO], T]) -> T:
        with _told(self._url), self._files.open(f"{self._prefix}/{name}{_SUFFIX}", cache_type="none") as file:
            return read(file)


def _is_whole(name: str) -> bool:
    return name.endswith(_SUFFIX) and not name.startswith(".")


@contextlib.contextmanager
def _told(place: str | os.PathLike[str]) -> Iterator[None]:
    """Say what failed where. What reaches a server raises whatever it likes."""
    try:
        yield
    except SourceAway as error:
        raise StorageError(f"shards in {os.fspath(place)}: {error.message}", hint=error.hint) from error
    except Exception as error:
        why = (
            error.strerror if isinstance(error, OSError) and error.strerror else f"{type(error).__name__}: {error}"
        )
        raise StorageError(f"shards in {os.fspath(place)}: {why}") from error


def parquet() -> Any:
    """Return pyarrow and its Parquet half.   Raises UsageError where it is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UsageError("shards need pyarrow", hint=how_to_add("parquet")) from None
    return pyarrow
