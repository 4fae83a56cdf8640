"""The files of a new generation, written and made durable under a temporary name."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from search.files import fsync_file, fsync_folder, sha256
from search.generations.manifest import (
    GONE,
    HALF,
    ID,
    MANIFEST,
    EncoderFiles,
    File,
    Manifest,
    kind_for,
)
from search.vectors import EXACT, LISTS
from search.vectors.coarse import Coarse, Codebook, Previous, encode
from search.vectors.lists import Filing, ListBook, Lists, PreviousLists, lists_for

if TYPE_CHECKING:
    from search.catalog import EncoderRow
    from search.catalog.snapshot import Snapshot
    from search.generations.generation import Generation
    from search.types import Halves, Ids

    _Old = tuple[Ids, Halves, Coarse | Lists]


@dataclass(slots=True)
class Draft:
    """A generation that is being written.

    wish: the kind of index asked for.   previous: opens the generation before, whose codes may still hold.
    abandoned: whether nobody wants it any more.
    """

    folder: Path
    wish: str
    previous: Callable[[], Generation | None]
    abandoned: Callable[[], bool]
    files: list[File] = field(default_factory=list)
    encoders: list[EncoderFiles] = field(default_factory=list)

    def fill(self, view: Snapshot) -> None:
        """Write all but the rows and the manifest."""
        self._write(GONE, [view.gone.astype(ID).tobytes()])
        for encoder in view.encoders:
            row = self._write_vectors(encoder, view.vectors(encoder))
            self.encoders.append(self._write_codes(row))

    def note(self, name: str) -> None:
        """Make a file durable that something else wrote, and remember it."""
        path = self.folder / name
        fsync_file(path)
        self.files.append(File(name, path.stat().st_size, sha256(path)))

    def finish(self, manifest: Manifest) -> str:
        """Write the manifest and make everything durable; return its SHA-256."""
        content = manifest.to_bytes()
        self._write(MANIFEST, [content])
        fsync_folder(self.folder)
        return hashlib.sha256(content).hexdigest()

    def _write_vectors(self, encoder: EncoderRow, parts: Iterable[tuple[Ids, bytes]]) -> EncoderFiles:
        ids: list[Ids] = []

        def blobs() -> Iterator[bytes]:
            for part, blob in parts:
                ids.append(part)
                yield blob

        row = EncoderFiles(encoder.id, encoder.name, encoder.fingerprint, encoder.dim, 0)
        self._write(row.vectors, blobs())
        together = np.concatenate(ids) if ids else np.empty(0, np.int64)
        self._write(row.ids, [together.astype(ID).tobytes()])
        return replace(row, count=len(together))

    def _write_codes(self, row: EncoderFiles) -> EncoderFiles:
        """Write the codes of an encoder's vectors, if it gets some."""
        row = replace(row, kind=kind_for(self.wish, row.count))
        if row.kind == EXACT:
            return row
        ids: Ids = np.memmap(self.folder / row.ids, ID, mode="r")
        halves: Halves = np.memmap(self.folder / row.vectors, HALF, mode="r", shape=(row.count, row.dim))
        with self.previous() or nullcontext() as before:
            old, learned_from = _still_fitting(before, row)
            row = replace(row, learned_from=learned_from)
            if row.kind == LISTS:
                return self._write_lists(row, ids, halves, old)
            previous = Previous(*old[:2], old[2]) if old and isinstance(old[2], Coarse) else None
            book = previous.codes.book if previous else Codebook.learn(halves)
            self._write(row.codes, encode(ids, halves, book, previous=previous))
        return row

    def _write_lists(self, row: EncoderFiles, ids: Ids, halves: Halves, old: _Old | None) -> EncoderFiles:
        previous = PreviousLists(*old[:2], old[2]) if old and isinstance(old[2], Lists) else None
        book = previous.codes.book if previous else ListBook.learn(halves, lists_for(row.count))
        filing = Filing(ids, halves, book, previous)
        self._write(row.codes, filing.parts(self.folder))
        return replace(row, lists=filing.layout.lists, probe=filing.probe)

    def _write(self, name: str, parts: Iterable[bytes]) -> None:
        digest = hashlib.sha256()
        size = 0
        with (self.folder / name).open("xb") as file:
            for part in parts:
                if self.abandoned():
                    raise InterruptedError("the run that it was written for has ended")
                file.write(part)
                digest.update(part)
                size += len(part)
            file.flush()
            os.fsync(file.fileno())
        if name != MANIFEST:
            self.files.append(File(name, size, digest.hexdigest()))


def _still_fitting(before: Generation | None, row: EncoderFiles) -> tuple[_Old | None, int]:
    """The codes of the generation before with their vectors, and how many vectors theirs was learned from.

    A code fits until there are twice as many vectors as it was learned from; then a new one is learned from all.
    """
    old = before.encoder(row.fingerprint) if before else None
    fits = old is not None and (old.dim, old.kind) == (row.dim, row.kind) and row.count < 2 * old.learned_from
    if before and old and fits and (codes := before.codes(old.id)):
        return (*before.vectors(old.id), codes), old.learned_from
    return None, row.count
