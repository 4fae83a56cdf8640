"""A run that takes over the photos and vectors of a source."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from search.adoption import folders
from search.adoption.passport import finite, is_turned
from search.catalog.found import UNENCODED, Record
from search.errors import PhotoError
from search.indexer import Run, are_unit
from search.mounts import file_system
from search.photos.scan import scan
from search.types import FileStat, JobState, Orientation, Progress, Skip, Stage
from search.vectors import normalize

if TYPE_CHECKING:
    from search.adoption import Listing, Source
    from search.catalog import Writer
    from search.catalog.found import ScannedFile
    from search.catalog.scan import Scan
    from search.catalog.scopes import Scope
    from search.decoding.pool import Decoders
    from search.types import IndexReport, Passport

_AT_ONCE = 64
_BATCH = 1024


@dataclass(slots=True)
class Tally:
    """What became of the photos that the source has a vector of; all but the adopted are left to be encoded.

    turned: the source did not turn them.   changed: they can't be read, or were changed meanwhile.   unsound: what is
    stored is no vector.   deviating: it is not what the model made when it was compared.   waiting: photos that have no
    vector at the end of the run.
    """

    adopted: int = 0
    turned: int = 0
    changed: int = 0
    unsound: int = 0
    deviating: int = 0
    waiting: int = 0


class Adoption(Run):
    """A run over the photos that a source names; vectors that it may be trusted with are not made again.

    The rest is as of a run of the indexer: a photo and its vector are committed together, whatever ends the run its
    batches stay, and the next one does only what is left. No photo counts as gone.
    """

    _source: Source
    _listing: Listing
    _passport: Passport | None
    _tally: Tally
    _encodes: bool
    _deviating: set[str]

    def adopt(
        self,
        source: Source,
        listing: Listing,
        examine: Callable[[], Passport | None],
        taken: Tally,
        *,
        encode: bool,
    ) -> IndexReport:
        """Take over what a source has, and count it in `taken`.

        examine: called only if something is left to do; gives None for its photos alone, which are encoded.
        encode: what is not taken over; else that is left to the next run.
        """
        self._source, self._listing, self._tally, self._encodes = source, listing, taken, encode
        if (skips := self._settled()) is not None:
            self._count(unchanged=len(listing.files) - len(skips))
            self._skipped += skips
            return self._reported()
        passport = self._passport = examine()
        self._deviating = (
            {spot.path for spot in passport.spots if spot.cosine < passport.agreement} if passport else set()
        )
        with self._work:
            writer = self._account()
            found = writer.scan(self._model.id, self._rules, file_system=file_system)
            record_files(writer, found, self._listing.files)
            self._take_in(found)
            taken.waiting = self._unencoded(found)
            if self._stopping():
                writer.finish_job(JobState.INTERRUPTED)
        return self._reported()

    def _settled(self) -> list[Skip] | None:
        """Return the skips among the source's files if there is nothing to do for any; None if there may be."""
        if not self._turn.is_tidy():
            return None
        by_scope: dict[Scope, list[FileStat]] = {}
        scopes: dict[str, Scope | None] = {}
        for file in self._listing.files:
            folder = os.path.dirname(file.path)
            if folder not in scopes:
                scopes[folder] = self._turn.source(folder)
            if (scope := scopes[folder]) is None:
                return None
            by_scope.setdefault(scope, []).append(file)
        skips: list[Skip] = []
        with self._turn.looking(self._model.id, self._rules) as look:
            for scope, files in by_scope.items():
                found = look.settled(scope, files) if look else None
                if found is None:
                    return None
                skips += found
        return skips

    def _encode(self, found: Scan) -> None:
        if self._passport is not None:
            self._take_over(found)
        if self._encodes and not self._stopping():
            super()._encode(found)

    def _take_over(self, found: Scan) -> None:
        total = self._unencoded(found)
        if not total:
            return
        self._writer.expect(total)
        self._progress(Progress(Stage.ADOPT, 0, total))
        done = 0
        for batch in self._records(found):
            self._commit_stored([record for record in batch if record])
            done += len(batch)
            self._progress(Progress(Stage.ADOPT, done, total))
            if self._stopping():
                return

    def _records(self, found: Scan) -> Iterator[list[Record | None]]:
        """Yield photos that may have the source's vector, in batches; None for one that may not."""
        from concurrent.futures import ThreadPoolExecutor

        from search.decoding.pool import ahead

        files = (file for page in found.files(*UNENCODED) for file in page if file.stat.path in self._listing.rows)
        with self._decoders() as decoders, ThreadPoolExecutor(self._options.workers, "photo") as pool:
            looked = ahead(lambda file: pool.submit(self._read, file, decoders), files, _AT_ONCE)
            batch: list[Record | None] = []
            try:
                for _, record in looked:
                    batch.append(record)
                    if len(batch) == _BATCH or self._stopping():
                        yield batch
                        batch = []
                yield batch
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _read(self, file: ScannedFile, decoders: Decoders) -> Record | None:
        """Return a photo as it is committed; None if its stored vector is not to be used, or no more."""
        from search.photos.decode import content_hash

        read = decoders.submit_reading(file.stat.path).result()
        if isinstance(read, Skip) or read.stat != file.stat:
            self._tally.changed += 1
            return None
        if file.stat.path in self._deviating:
            self._tally.deviating += 1
            return None
        if is_turned(read.info) and self._passport and self._passport.orientation is not Orientation.APPLIED:
            self._tally.turned += 1
            return None
        try:
            digest = content_hash(file.stat.path)
        except PhotoError:
            self._tally.changed += 1
            return None
        if next(scan(file.stat.path), None) != file.stat:  # changed while it was read
            self._tally.changed += 1
            return None
        return Record(file, digest, read.info)

    def _commit_stored(self, records: Sequence[Record]) -> None:
        if not records:
            return
        rows = [self._listing.rows[record.file.stat.path] for record in records]
        vectors = normalize(finite(self._source.vectors(rows)))
        sound = are_unit(vectors)
        kept = [record for record, fine in zip(records, sound, strict=True) if fine]
        self._add(kept, vectors[sound])
        self._tally.adopted += len(kept)
        self._tally.unsound += len(records) - len(kept)


def record_files(writer: Writer, found: Scan, files: Sequence[FileStat]) -> None:
    """Note files of a list in the folders that hold them, which are indexed from now on."""
    by_root: dict[str, list[FileStat]] = {}
    scopes = {folder: writer.source(folder) for folder in {os.path.dirname(file.path) for file in files}}
    for folder in folders([folder for folder, scope in scopes.items() if scope is None]):
        writer.add_source(folder, is_folder=True)
    scopes = {}  # a new folder may have taken in one that was indexed
    for file in files:
        folder = os.path.dirname(file.path)
        if folder not in scopes:
            scopes[folder] = writer.source(folder)
        if scope := scopes[folder]:
            by_root.setdefault(scope.root, []).append(file)
    for root, inside in by_root.items():
        scope = writer.source(root)
        for start in range(0, len(inside), _BATCH):
            if scope:
                found.record(scope, inside[start : start + _BATCH])
