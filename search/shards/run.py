"""Runs whose photos are encoded as shards, and what takes shards into a library.

What a shard says counts only for a file that is as it was when it was encoded, and that has no vector yet: so rows
come in once, in any order and however often they are offered, and a photo and its vector are committed together, as
of any run of the indexer.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from search.addresses import relative
from search.adoption.run import record_files
from search.catalog.found import UNENCODED, Record, ScannedFile
from search.errors import DamagedShard, StorageError, UsageError
from search.failpoints import reach
from search.indexer import SETTLED, IndexOptions, Model, Run, batches
from search.mounts import file_system
from search.objects import check_permitted
from search.shards import SIZE, Engine, Job, Shard, encode_all, plan
from search.shards.encoding import Row, encode_shard, paths, read
from search.shards.store import Store, open_store
from search.types import FileStat, JobState, Progress, Skip, SkipReason, Stage

if TYPE_CHECKING:
    import threading

    from search.catalog import Turn
    from search.catalog.scan import Scan
    from search.catalog.scopes import Scope
    from search.photos.sources import Sources
    from search.types import IndexReport

_BATCH = 512  # rows committed together
DAMAGED = "damaged"
"""Why a shard is left out that is not what was written."""


@dataclass(frozen=True, slots=True)
class ShardOptions:
    """How to encode in shards.

    store: a folder, or an address that fsspec knows, such as s3://bucket/prefix.   size: files of a shard.
    workers: processes that decode for one shard; None: as many as are right where shards run in this process, else
    one.
    """

    engine: Engine
    store: str
    size: int = SIZE
    workers: int | None = None


class Taking(Run):
    """A run that takes shards in."""

    _store: Store

    def _take(self, found: Scan, name: str, *, last_word: bool) -> int:
        """Commit what a shard has of files that are wanted still; return how many vectors that were.

        last_word: skips count whatever their reason; else those alone that would come out the same again.
        """
        decoder, rows = self._rows(name)
        taken = 0
        for batch in batches(rows, _BATCH):
            files = self._wanted_files(found, batch)
            met = [(files[row.stat.path], row) for row in batch if row.stat.path in files]
            sound = [(file, row) for file, row in met if file.stat == row.stat]
            self._skipped += [_restless(file) for file, row in met if file.stat != row.stat and last_word]
            taken += self._commit_photos([(file, row) for file, row in sound if row.vector is not None])
            skips = [(file, row.skip) for file, row in sound if row.skip]
            if not last_word:
                skips = [
                    (file, skip) for file, skip in skips if skip.reason in SETTLED and decoder == self._decoder
                ]
            if skips:
                self._writer.skip(skips, decoder)
                self._skipped += [skip for _, skip in skips]
            self._advance(len(sound) if last_word else taken + len(skips))
        return taken

    def _rows(self, name: str) -> tuple[str, list[Row]]:
        """Return a shard's rules for skipping and its rows; of a damaged one nothing, which the report tells."""
        try:
            about, rows = read(self._store, name, self._model.fingerprint)
        except DamagedShard as error:
            self._skipped.append(Skip(name, DAMAGED, error.message))
            return "", []
        return about.decoder, rows

    def _wanted_files(self, found: Scan, rows: Sequence[Row]) -> dict[str, ScannedFile]:
        """Return, by path, the files of rows that have no vector yet."""
        by_root: dict[int, list[str]] = {}
        scopes: dict[str, Scope | None] = {}
        for row in rows:
            folder = os.path.dirname(row.stat.path)
            if folder not in scopes:
                scopes[folder] = self._turn.source(folder)
            if scope := scopes[folder]:
                by_root.setdefault(scope.root_id, []).append(relative(row.stat.path, scope.root))
        wanted = (file for id_, places in by_root.items() for file in found.at(id_, places, *UNENCODED))
        return {file.stat.path: file for file in wanted}

    def _commit_photos(self, rows: Sequence[tuple[ScannedFile, Row]]) -> int:
        records, vectors = [], []
        for file, row in rows:
            if row.vector is not None and row.info is not None:
                records.append(Record(file, row.content_hash, row.info, row.likeness))
                vectors.append(row.vector.astype(np.float32))
        if records:
            self._add(records, np.stack(vectors))
        reach("index.committed")
        return len(records)

    def _begin(self, total: int) -> None:
        self._writer.expect(total)
        self._done, self._total = 0, total
        self._progress(Progress(Stage.ENCODE, 0, total))

    def _advance(self, files: int) -> None:
        self._done += files
        self._progress(Progress(Stage.ENCODE, self._done, self._total))


class ShardRun(Taking):
    """A run of the indexer whose photos are encoded in shards.

    Shards that lie in the store are taken in first, whoever left them there; what is wanted still is planned then, and
    each shard is taken in as it comes.
    """

    def __init__(
        self,
        turn: Turn,
        model: Model,
        options: IndexOptions,
        shards: ShardOptions,
        *,
        offline: bool = False,
        trust_checkpoint: str | None = None,
        progress: Callable[[Progress], None] | None = None,
        stop: threading.Event | None = None,
        committed: Callable[[int], None] | None = None,
        sources: Sources | None = None,
    ) -> None:
        super().__init__(turn, model, options, progress=progress, stop=stop, committed=committed, sources=sources)
        check_permitted(shards.store, offline=offline)
        self._shards = shards
        self._store = open_store(shards.store, model.fingerprint)
        self._job = Job(
            model=model.name,
            fingerprint=model.fingerprint,
            store=shards.store,
            decoder=self._decoder,
            workers=shards.workers or (options.workers if shards.engine.in_process else 1),
            batch_size=options.batch_size,
            max_megapixels=options.max_megapixels,
            decoder_gigabytes=options.decoder_gigabytes,
            offline=offline,
            trust_checkpoint=trust_checkpoint,
        )

    def _encode(self, found: Scan) -> None:
        total = self._unencoded(found)
        if not total or self._stopping():
            return
        self._begin(total)
        for name in sorted(self._store.names()):
            if not self._stopping():
                self._take(found, name, last_word=False)
        if (left := self._unencoded(found)) and not self._stopping():
            self._encode_anew(found, left)

    def _encode_anew(self, found: Scan, left: int) -> None:
        """Encode what no shard had; what one had that can't be used is written again."""
        engine, task = self._shards.engine, functools.partial(encode_shard, job=self._job)
        if engine.in_process:
            encoder = self._model.load(left)
            task = functools.partial(task, encoder=encoder, stop=self._stop, sources=self._sources)
        for receipt in encode_all(self._planned(found), engine, self._job, task=task, stop=self._stop):
            self._count(encoded=self._take(found, receipt.shard, last_word=True))

    def _planned(self, found: Scan) -> Iterator[Shard]:
        """Yield shards as they are due.

        Where they run in this process they are noted first, and files that earlier runs died with come last, each
        alone (see Run).
        """
        files = (file for page in found.files(*UNENCODED) for file in page)
        if not self._shards.engine.in_process:
            yield from plan((file.stat for file in files), self._job, size=self._shards.size)
            return
        for group in batches(self._suspects.but(files), self._shards.size):
            self._writer.take(group)
            reach("index.marked")
            yield Shard.of([file.stat for file in group], self._job)
        for file in self._suspects.met():
            if skip := self._tried_alone(file):
                self._writer.skip([(file, skip)], self._decoder)
                self._skipped.append(skip)
            else:
                yield Shard.of([file.stat], self._job)


class Merge(Taking):
    """Takes in all shards of a store. Their files are looked at, not read; no photo counts as gone."""

    def merge(self, store: Store) -> IndexReport:
        """Return what was done, as an index run."""
        self._store = store
        with self._work:
            writer = self._account()
            found = writer.scan(self._model.id, self._rules, file_system=file_system)
            names = sorted(store.names())
            record_files(writer, found, [file for name in names for file in self._present(name)])
            self._skipped.clear()  # what is damaged is told when it is to be taken in
            self._names = names
            self._take_in(found)
            if self._stopping():
                writer.finish_job(JobState.INTERRUPTED)
        return self._reported()

    def _present(self, name: str) -> Iterator[FileStat]:
        """Yield the files of a shard that are here, as they are now.

        All are looked at before any is taken in: a photo that moved is told from new ones by all that is there. Their
        names are a small part of a shard, and the rest of it is fetched when it is due.
        """
        for path in self._paths(name):
            with contextlib.suppress(OSError, ValueError, UsageError):  # not here, or no place to look at
                if file := next(self._sources.scan(path), None):
                    yield file

    def _paths(self, name: str) -> list[str]:
        try:
            return paths(self._store, name)
        except StorageError:  # it may be damaged, which is told from a store that is away by reading all of it
            return [row.stat.path for row in self._rows(name)[1]]

    def _encode(self, found: Scan) -> None:
        self._begin(self._unencoded(found))
        for name in self._names:
            if not self._stopping():
                self._take(found, name, last_word=True)


def _restless(file: ScannedFile) -> Skip:
    return Skip(file.stat.path, SkipReason.UNSTABLE, "changed since it was encoded; the next index run reads it")
