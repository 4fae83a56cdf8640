"""The pipeline: scan → recognise → load → encode → commit.

Files are loaded by threads a bounded distance ahead of the encoder, and every encoded batch is committed before
the next one: whatever ends a run, its finished batches stay, and the next run does only what is left.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from search.catalog.scan import Recognised, Scan, ScannedFile, Settled, Verdict
from search.catalog.writer import Record, Writer
from search.errors import PhotoError, UsageError
from search.photos.decode import DECODER, content_hash, load
from search.photos.scan import ScanOptions, scan
from search.types import IndexReport, Progress, Skip, SkipReason, Stage

if TYPE_CHECKING:
    import threading

    import numpy.typing as npt

    from search.catalog.scopes import Scope
    from search.encoders import Encoder
    from search.types import Pixels, Vectors

T = TypeVar("T")
R = TypeVar("R")

_SCAN_BATCH = 1024

# Reasons that lie in the file: it is tried again when it, the decoder or the limit changes. The others (no permission,
# changed while it was read, a vector that one model spoiled) may be over by the next run.
_SETTLED = (
    SkipReason.DECODE_ERROR,
    SkipReason.EMPTY,
    SkipReason.TOO_LARGE,
    SkipReason.UNSUPPORTED_FORMAT,
)


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """How to index. workers: threads that read and decode."""

    scan: ScanOptions = field(default_factory=ScanOptions)
    batch_size: int = 32
    workers: int = field(default_factory=lambda: min(8, max(2, os.cpu_count() or 2)))
    max_megapixels: float = 200

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.workers < 1:
            raise UsageError("batch size and workers begin at 1")
        if not 0 < self.max_megapixels < float("inf"):
            raise UsageError(f"a limit of {self.max_megapixels} megapixels is none")


@dataclass(frozen=True, slots=True)
class Model:
    """An encoder the catalog knows by id; loaded only if a photo needs it."""

    id: int
    name: str
    load: Callable[[], Encoder]


class Run:
    """One pass over some sources.

    `progress` is told of every step, `committed` how many photos a batch made durable; `stop` ends the run after its
    batch.
    """

    def __init__(
        self,
        writer: Writer,
        model: Model,
        options: IndexOptions,
        *,
        progress: Callable[[Progress], None] | None = None,
        stop: threading.Event | None = None,
        committed: Callable[[int], None] | None = None,
    ) -> None:
        self._writer = writer
        self._model = model
        self._options = options
        self._progress = progress or (lambda _: None)
        self._stop = stop
        self._committed = committed or (lambda _: None)
        self._decoder = f"{DECODER}, at most {options.max_megapixels:g} megapixels"
        self._started = perf_counter()
        self._report = IndexReport(encoder=model.name, photos=0)
        self._skipped: list[Skip] = []

    def __call__(self, sources: Sequence[str]) -> IndexReport:
        """Index files and folders by their real paths; return what was done. `photos` is for the caller to fill.

        Raises UsageError for a source that does not exist and never did; StorageError, LibraryBusy.
        """
        scopes = self._scopes(sources)
        with ThreadPoolExecutor(self._options.workers, "photo") as pool:
            try:
                found = self._walk(scopes)
                self._recognise(found, pool)
                self._encode(found, pool)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
        return replace(
            self._report,
            skipped=tuple(self._skipped),
            seconds=perf_counter() - self._started,
            interrupted=self._stopping(),
        )

    def _stopping(self) -> bool:
        return self._stop is not None and self._stop.is_set()

    def _count(self, **more: int) -> None:
        self._report = replace(self._report, **{name: getattr(self._report, name) + n for name, n in more.items()})

    # ---- what is there

    def _scopes(self, sources: Sequence[str]) -> list[Scope]:
        """Register the sources, outer folders first; a known one whose root is away is counted as offline."""
        scopes = []
        for path in sorted(set(sources)):
            if os.path.lexists(path):
                if not (os.path.isdir(path) or os.path.isfile(path)):
                    raise UsageError(f"{path} is neither a file nor a folder")
                scopes.append(self._writer.add_source(path, is_folder=os.path.isdir(path)))
                continue
            known = self._writer.source(path)
            lost = self._writer.count(known) if known else 0
            if not known or not lost:
                raise UsageError(f"there is no file or folder {path}")
            if os.path.isdir(known.root):
                scopes.append(known)  # deleted: the folder it was in is there
            else:
                self._count(offline=lost)
        return scopes

    def _walk(self, scopes: Sequence[Scope]) -> Scan:
        found = self._writer.scan(self._model.id, Settled(self._decoder, _SETTLED))
        seen = 0
        for scope in scopes:
            if not os.path.lexists(scope.path):
                found.cover(scope)
                continue
            before = seen
            files = scan(scope.path, self._options.scan, on_error=self._unreadable(found, scope))
            for batch in _batches(files, _SCAN_BATCH):
                if self._stopping():
                    return found
                found.record(scope, batch)
                seen += len(batch)
                self._progress(Progress(Stage.SCAN, seen))
            if not os.path.isdir(scope.path):
                continue
            if seen == before and (away := self._writer.count(scope)):
                self._count(offline=away)  # an empty mount point looks like this: nothing is gone
            else:
                found.cover(scope)
        found.free_places()
        return found

    def _unreadable(self, found: Scan, scope: Scope) -> Callable[[str, OSError], None]:
        def note(path: str, error: OSError) -> None:
            found.unknown(scope, path)
            skip = Skip(path, SkipReason.UNREADABLE, error.strerror or str(error))
            self._writer.skip_unread(scope, skip)
            self._skipped.append(skip)

        return note

    # ---- what is known by content

    def _recognise(self, found: Scan, pool: ThreadPoolExecutor) -> None:
        """Hash the files that may be known under another name or time; then settle who is gone."""
        if self._stopping():
            return
        counts = found.verdicts()
        total = counts[Verdict.CHANGED] + counts[Verdict.SUSPECT]
        files = _flatten(found.files(Verdict.CHANGED, Verdict.SUSPECT))
        hashes = []
        if total:
            self._progress(Progress(Stage.RECOGNISE, 0, total))
        for done, (file, content) in enumerate(_ahead(pool, _hash, files, self._look_ahead), start=1):
            if content is not None:
                hashes.append((file, content))
            self._progress(Progress(Stage.RECOGNISE, done, total))
            if self._stopping():
                return
        known = found.recognise(hashes) if hashes else Recognised()
        returned, gone = found.settle()
        self._count(
            added=known.added + returned,
            updated=known.updated,
            moved=known.moved,
            unchanged=counts[Verdict.UNCHANGED] + known.touched,
            gone=known.gone + gone,
        )
        self._skipped += found.settled_skips()

    # ---- what must be encoded

    def _encode(self, found: Scan, pool: ThreadPoolExecutor) -> None:
        wanted = (Verdict.NEW, Verdict.SUSPECT, Verdict.CHANGED, Verdict.UNEMBEDDED)
        counts = found.verdicts()
        total = sum(counts[verdict] for verdict in wanted)
        if not total or self._stopping():
            return
        encoder = self._model.load()
        self._progress(Progress(Stage.ENCODE, 0, total))
        loaded = _ahead(pool, self._loader(encoder), _flatten(found.files(*wanted)), self._look_ahead)
        done = 0
        for batch in _batches(loaded, self._options.batch_size):
            self._commit(batch, encoder)
            done += len(batch)
            self._progress(Progress(Stage.ENCODE, done, total))
            if self._stopping():
                return

    @property
    def _look_ahead(self) -> int:
        return 2 * self._options.batch_size + self._options.workers

    def _loader(self, encoder: Encoder) -> Callable[[ScannedFile], Ready | Skip]:
        def load_file(file: ScannedFile) -> Ready | Skip:
            path = file.stat.path
            try:
                photo = load(path, max_megapixels=self._options.max_megapixels)
                pixels = encoder.preprocess(photo.image)
            except PhotoError as error:
                return Skip(path, error.reason, error.message)
            record = Record(replace(file, stat=photo.stat), photo.content_hash, photo.info)
            return Ready(record, pixels)

        return load_file

    def _commit(self, batch: Sequence[tuple[ScannedFile, Ready | Skip]], encoder: Encoder) -> None:
        """Encode what was loaded and commit photos with their vectors; then note what was skipped."""
        ready = [loaded for _, loaded in batch if isinstance(loaded, Ready)]
        skipped = [(file, loaded) for file, loaded in batch if isinstance(loaded, Skip)]
        if ready:
            vectors = encoder.encode_images(np.stack([photo.pixels for photo in ready]))
            sound = are_unit(vectors)
            records = [photo.record for photo, fine in zip(ready, sound, strict=True) if fine]
            if records:
                self._writer.add(records, vectors[sound], self._model.id)
            new = sum(record.file.photo_id is None for record in records)
            self._count(added=new, updated=len(records) - new, encoded=len(records))
            self._committed(len(records))
            for photo, fine in zip(ready, sound, strict=True):
                if not fine:
                    file = photo.record.file
                    detail = f"{encoder.name} gave no finite unit vector"
                    skipped.append((file, Skip(file.stat.path, SkipReason.BAD_VECTOR, detail)))
        if skipped:
            self._writer.skip(skipped, self._decoder)
            self._skipped += [skip for _, skip in skipped]


@dataclass(frozen=True, slots=True)
class Ready:
    """A photo that waits for the encoder; the full-size image is gone already."""

    record: Record
    pixels: Pixels


def are_unit(vectors: Vectors) -> npt.NDArray[np.bool_]:
    """Tell which rows are finite and of length 1; float32 encoders keep it to 1e-3 by far."""
    norms = np.linalg.norm(vectors, axis=1)
    sound: npt.NDArray[np.bool_] = np.abs(norms - 1) < 1e-3  # NaN and infinity fail the comparison
    return sound


def _hash(file: ScannedFile) -> bytes | None:
    """None where the file can't be read now: loading it will say why."""
    try:
        return content_hash(file.stat.path)
    except PhotoError:
        return None


def _ahead(
    pool: ThreadPoolExecutor, work: Callable[[T], R], items: Iterable[T], depth: int
) -> Iterator[tuple[T, R]]:
    """Yield each item with its result, in order, while at most `depth` later ones are worked on."""
    pending: deque[tuple[T, Future[R]]] = deque()
    for item in items:
        pending.append((item, pool.submit(work, item)))
        if len(pending) > depth:
            first, result = pending.popleft()
            yield first, result.result()
    while pending:
        first, result = pending.popleft()
        yield first, result.result()


def _flatten(pages: Iterable[list[T]]) -> Iterator[T]:
    for page in pages:
        yield from page


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
