"""One generation, open for reading."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from search.files import sha256
from search.generations.manifest import GONE, HALF, ID, MANIFEST, ROWS, EncoderFiles, File, Manifest, Unsound
from search.vectors import EXACT
from search.vectors.coarse import Coarse, Layout
from search.vectors.lists import Lists

if TYPE_CHECKING:
    from search.types import Halves, Ids, Publication

_MAX_MANIFEST_BYTES = 1 << 20


class Generation:
    """One generation, open: nobody removes it before it is closed."""

    def __init__(self, folder: Path) -> None:
        """Open a generation. Raises FileNotFoundError if it is not there, Unsound if it can't be used."""
        self.folder = folder
        self.others: tuple[Generation, ...] = ()
        self.useless: frozenset[str] = frozenset()  # files that are not whole and can be done without
        self._lock = share(folder / MANIFEST)
        try:
            content = self._lock.read(_MAX_MANIFEST_BYTES)
            self.manifest_hash = hashlib.sha256(content).hexdigest()
            self.manifest = Manifest.parse(content)
            self.check_sizes()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Generation:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the generation and those beside it; arrays that were read stay valid."""
        self._lock.close()
        for other in self.others:
            other.close()

    @property
    def number(self) -> int:
        return self.manifest.number

    @property
    def published(self) -> tuple[int, int, str]:
        """Its number, its commit, and the SHA-256 of its manifest."""
        return self.number, self.manifest.seq, self.manifest_hash

    @property
    def created_at(self) -> datetime:
        """When it was published, UTC."""
        try:
            return datetime.fromisoformat(self.manifest.created_at)
        except ValueError:
            return datetime.fromtimestamp((self.folder / MANIFEST).stat().st_mtime, UTC)

    @property
    def rows_path(self) -> Path:
        """The SQLite file with every row but the vectors."""
        return self.folder / ROWS

    @property
    def gone(self) -> Ids:
        """Ids of the photos whose file was not found, ascending."""
        return self._read_ids(GONE)

    def encoder(self, fingerprint: str) -> EncoderFiles | None:
        """Return what it holds by a model, None if nothing."""
        return self.manifest.encoder(fingerprint)

    def vectors(self, encoder_id: int) -> tuple[Ids, Halves]:
        """Return ids (N,), ascending, and their float16 rows (N, D), which stay on the disk until they are used."""
        row = next((row for row in self.manifest.encoders if row.id == encoder_id), None)
        if row is None or not row.count:
            return np.empty(0, np.int64), np.empty((0, row.dim if row else 0), np.float16)
        path = self.folder / row.vectors
        halves: Halves = np.memmap(path, HALF, mode="r", shape=(row.count, row.dim))
        return self._read_ids(row.ids), halves

    def codes(self, encoder_id: int) -> Coarse | Lists | None:
        """Return the codes of an encoder's vectors, mapped; None if there are none, or none that can be used."""
        row = next((row for row in self.manifest.encoders if row.id == encoder_id), None)
        if row is None or row.kind == EXACT or row.codes in self.useless:
            return None
        try:
            content = np.memmap(self.folder / row.codes, np.uint8, mode="r")
            if len(content) != row.codes_bytes:
                return None
            layout = row.layout
            return Coarse(content, layout) if isinstance(layout, Layout) else Lists(content, layout, row.probe)
        except (OSError, ValueError):
            return None

    def _read_ids(self, name: str) -> Ids:
        path = self.folder / name
        ids: Ids = np.memmap(path, ID, mode="r") if path.stat().st_size else np.empty(0, np.int64)
        return ids

    def restore_catalog(self) -> str | None:
        """Make the library's catalog anew from this; return where the damaged one is now, if there was one.

        Raises LibraryBusy, StorageError.
        """
        from search.catalog import snapshot

        return snapshot.restore(
            self.folder.parent.parent,
            self.rows_path,
            ((row.id, *self.vectors(row.id)) for row in self.manifest.encoders),
            number=self.number,
            seq=self.manifest.seq,
            manifest_hash=self.manifest_hash,
        )

    def check_sizes(self, *, derived: bool = False) -> None:
        """Raise Unsound unless every file is there and as long as it should be.

        derived: also those that hold nothing but what can be made from the others.
        """
        for file in self._files(derived):
            try:
                found = (self.folder / file.name).stat().st_size
            except FileNotFoundError:
                raise Unsound(f"lacks {file.name}") from None
            if found != file.size_bytes:
                raise Unsound(f"is damaged: {file.name} has {found} bytes, not {file.size_bytes}")

    def check_content(self, *, derived: bool = False, skip: Callable[[Path], bool] = lambda _: False) -> None:
        """Raise Unsound unless every file's SHA-256 holds.   skip: files known to be whole."""
        for file in self._files(derived):
            path = self.folder / file.name
            if not skip(path) and sha256(path) != file.sha256:
                raise Unsound(f"is damaged: {file.name} is not what was written")

    def check_derived(self, *, skip: Callable[[Path], bool]) -> str:
        """Leave out from now on what is not whole and can be done without; return what that is, in words."""
        why = ""
        for file in self.manifest.files:
            if file.name.startswith("codes-") and (wrong := self._wrong(file, skip)):
                self.useless |= {file.name}
                why = why or wrong
        return why

    def _wrong(self, file: File, skip: Callable[[Path], bool]) -> str:
        path = self.folder / file.name
        try:
            whole = skip(path) or sha256(path) == file.sha256
        except FileNotFoundError:
            return f"lacks {file.name}"
        return "" if whole else f"is damaged: {file.name} is not what was written"

    def _files(self, derived: bool) -> Iterator[File]:
        return (file for file in self.manifest.files if derived or not file.name.startswith("codes-"))

    def check_published(self, said: Publication) -> None:
        """Raise Unsound unless this is the generation that a catalog published."""
        if self.manifest.catalog != said.uuid:
            raise Unsound("belongs to another library")
        if self.manifest.seq > said.seq:
            raise Unsound("is newer than the catalog")
        if (self.manifest_hash, self.manifest.seq) != (said.manifest_hash, said.generation_seq):
            raise Unsound("is not the one that the catalog published")


# ---- holding it


if sys.platform == "win32":

    def share(path: Path) -> IO[bytes]:
        """Open a manifest: while it is open, its folder can't be renamed."""
        return path.open("rb")

    def rename_unheld(place: Path, aside: Path) -> bool:
        place.rename(aside)
        return True

else:
    import fcntl

    def share(path: Path) -> IO[bytes]:
        """Open a manifest and hold it shared. Raises FileNotFoundError if its generation was just removed."""
        file = path.open("rb")
        try:
            with contextlib.suppress(PermissionError, NotImplementedError):
                _flock(file, fcntl.LOCK_SH)
            if os.fstat(file.fileno()).st_ino != path.stat().st_ino:
                raise FileNotFoundError(path)
        except BaseException:
            file.close()
            raise
        return file

    def rename_unheld(place: Path, aside: Path) -> bool:
        """Rename a generation unless a reader holds it; tell whether it was done."""
        try:
            file = (place / MANIFEST).open("rb")
        except FileNotFoundError:
            place.rename(aside)  # no reader can hold what has no manifest
            return True
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            place.rename(aside)
        return True

    def _flock(file: IO[bytes], how: int) -> None:
        """Lock, where the file system can; where it can't, what a reader has open outlives its name anyway."""
        with contextlib.suppress(OSError):
            fcntl.flock(file, how)
