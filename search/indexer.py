"""The pipeline: scan → recognise → load → encode → commit.

Files are decoded by child processes a bounded distance ahead of the encoder, and every encoded batch is committed
before the next one: whatever ends a run, its finished batches stay, and the next run does only what is left.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

from search.addresses import is_remote, is_tar_name
from search.catalog.found import Record, ScannedFile, Settled, Verdict
from search.decoding.budget import default_workers
from search.errors import PhotoError, SourceAway, UsageError
from search.failpoints import reach
from search.photos.scan import ScanOptions, file_system
from search.photos.sources import Sources
from search.photos.versions import DECODER, READER
from search.types import FileStat, IndexReport, JobState, PassedOver, Progress, Skip, SkipReason, Stage, Withheld

if TYPE_CHECKING:
    import threading
    from concurrent.futures import Future
    from contextlib import AbstractContextManager

    import numpy
    import numpy.typing as npt

    from search.catalog import Turn, Writer
    from search.catalog.found import Recognised, Unchanged
    from search.catalog.look import Look
    from search.catalog.scan import Scan
    from search.catalog.scopes import Scope
    from search.decoding.pool import Decoded, Decoders, Read
    from search.encoders import Encoder
    from search.types import Pixels, Vectors

T = TypeVar("T")

_SCAN_BATCH = 1024
_HASHED_AHEAD = 64

# Reasons that lie in the file: it is tried again when it, the decoder or the limit changes. The others (no permission,
# changed while it was read, a vector that one model spoiled) may be over by the next run.
SETTLED = (
    SkipReason.DECODE_ERROR,
    SkipReason.EMPTY,
    SkipReason.TOO_LARGE,
    SkipReason.UNSUPPORTED_FORMAT,
    SkipReason.MEMORY,
    SkipReason.TIMEOUT,
    SkipReason.CRASHED,
    SkipReason.QUARANTINED,
)

_DEATHS = 2  # of the whole process over one file alone, before that file is left out
_TAKEN = 256  # names noted at a time before their files are opened: a batch, or more where batches are small


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """How to index.

    batch_size: photos encoded and committed together; None: as many as the encoder likes.   workers: processes that
    decode, threads that read.   decoder_gigabytes: memory that each of these may take.
    confirm_removals: photos not found are gone, even where a drive may be away.   keep_gone_days: how long gone photos
    keep vectors and labels for their return.
    """

    scan: ScanOptions = field(default_factory=ScanOptions)
    batch_size: int | None = None
    workers: int = field(default_factory=default_workers)
    max_megapixels: float = 200
    decoder_gigabytes: float = 1.5
    confirm_removals: bool = False
    keep_gone_days: float = 30

    def __post_init__(self) -> None:
        if (self.batch_size is not None and self.batch_size < 1) or self.workers < 1:
            raise UsageError("batch size and workers begin at 1")
        if not 0 < self.max_megapixels < float("inf"):
            raise UsageError(f"a limit of {self.max_megapixels} megapixels is none")
        if not 0.25 <= self.decoder_gigabytes < float("inf"):
            raise UsageError(f"{self.decoder_gigabytes} gigabytes are none to decode in", hint="0.25 is the least")
        if not 0 <= self.keep_gone_days <= 36_500:
            raise UsageError("gone photos are kept for 0 to 36500 days")


@dataclass(frozen=True, slots=True)
class Model:
    """An encoder the catalog knows by id; loaded, for how many photos is told, only if one needs it."""

    id: int
    name: str
    fingerprint: str
    load: Callable[[int], Encoder]


class Run:
    """One pass over some sources.

    `progress` is told of every step, `committed` how many photos a batch made durable; `stop` ends the run after its
    batch; `sources` lists and reads the photos.
    """

    def __init__(
        self,
        turn: Turn,
        model: Model,
        options: IndexOptions,
        *,
        progress: Callable[[Progress], None] | None = None,
        stop: threading.Event | None = None,
        committed: Callable[[int], None] | None = None,
        sources: Sources | None = None,
    ) -> None:
        self._turn = turn
        self._sources = sources or Sources()
        self._work = ExitStack()
        self._opened: Writer | None = None
        self._model = model
        self._options = options
        self._progress = progress or (lambda _: None)
        self._stop = stop
        self._committed = committed or (lambda _: None)
        self._decoder = (
            f"{DECODER}, at most {options.max_megapixels:g} megapixels, {options.decoder_gigabytes:g} gigabytes"
        )
        self._started = perf_counter()
        self._report = IndexReport(encoder=model.name, photos=0)
        self._skipped: list[Skip] = []
        self._passed_over: Counter[PassedOver] = Counter()
        self._leftovers: dict[tuple[int, bytes], int] = {}
        self._again: list[ScannedFile] = []

    def __call__(self, sources: Sequence[str]) -> IndexReport:
        """Index files and folders by their real paths; return what was done. `photos` is for the caller to fill.

        Raises UsageError for a source that does not exist and never did; StorageError, LibraryBusy.
        """
        with self._work:
            if not self._turn.is_tidy():
                self._account()
            survey = self._walk(self._scopes(sources))
            reach("index.scanned")
            unchanged = None if self._stopping() else survey.unchanged(before=self._long_ago())
            if unchanged is not None:
                self._conclude(unchanged)
            elif not self._stopping():
                self._take_in(survey.scan)
            if self._stopping() and self._opened:
                self._opened.finish_job(JobState.INTERRUPTED)
        return self._reported()

    def _reported(self) -> IndexReport:
        return replace(
            self._report,
            skipped=tuple(self._skipped),
            passed_over=dict(self._passed_over),
            seconds=perf_counter() - self._started,
            interrupted=self._stopping(),
        )

    # Nearly every run finds nothing new: it needs no writer, writes nothing, and is no job.

    @property
    def _writer(self) -> Writer:
        """The library's writer; a run that asks for it is a job from then on."""
        return self._opened or self._account()

    def _account(self) -> Writer:
        """Begin the job, and take over what earlier ones died with."""
        self._opened = writer = self._turn.writer
        self._work.enter_context(writer.job("index"))
        self._leftovers = writer.leftovers()
        return writer

    def _conclude(self, unchanged: Unchanged) -> None:
        """End a run that found every file as it was."""
        reach("index.recognised")
        self._count(unchanged=unchanged.photos)
        self._skipped += unchanged.skips
        if unchanged.long_gone:
            self._count(purged=self._writer.purge(unchanged.long_gone))

    def _take_in(self, found: Scan) -> None:
        """Bring in what is new or changed, and settle who is gone."""
        found.free_places()
        self._recognise(found)
        self._encode(found)
        self._reread(found)
        if not self._stopping():
            self._purge(found)

    def _stopping(self) -> bool:
        return self._stop is not None and self._stop.is_set()

    def _count(self, **more: int) -> None:
        self._report = replace(self._report, **{name: getattr(self._report, name) + n for name, n in more.items()})

    # ---- what is there

    def _scopes(self, sources: Sequence[str]) -> list[Scope]:
        """Register the sources, outer folders first; a known one whose root is away is counted as offline."""
        scopes = []
        for path in sorted(set(sources), key=_folder_first):
            try:
                if (scope := self._scope(path)) is not None:
                    scopes.append(scope)
            except SourceAway as away:
                known = self._turn.source(path)
                if not known or not (lost := self._writer.count(known)):
                    raise
                self._withhold(Withheld(known.path, lost, away.message))
        return scopes

    def _scope(self, path: str) -> Scope | None:
        """Return the scope of a source, None if it is away.   Raises UsageError, SourceAway."""
        kind, known = self._sources.kind(path), self._turn.source(path)
        if kind == "other":
            raise UsageError(f"{path} is neither a file nor a folder")
        if kind is not None:
            root = self._sources.tar_of(path)
            if known is not None and root in (None, known.root):
                return known
            return self._writer.add_source(path, is_folder=kind == "folder", root=root)
        lost = self._writer.count(known) if known else 0
        if not known or not lost:
            raise UsageError(f"there is no file or folder {path}")
        if self._options.confirm_removals or self._sources.is_online(_holder(known.root)):
            return known  # deleted: the folder it was in is there
        self._withhold(Withheld(known.root, lost, "the folder is not there, or empty as without its drive"))
        return None

    def _withhold(self, *withheld: Withheld) -> None:
        self._count(offline=sum(where.photos for where in withheld))
        self._report = replace(self._report, withheld=(*self._report.withheld, *withheld))

    def _walk(self, scopes: Sequence[Scope]) -> Survey:
        settled = Settled(self._decoder, SETTLED, READER)
        found = Survey(
            self._work.enter_context(ExitStack()),
            lambda: self._turn.looking(self._model.id, settled),
            lambda: self._writer.scan(self._model.id, settled, file_system=file_system),
        )
        seen = 0
        # Told before the walk: if a drive goes away meanwhile, what is missing then is doubted for its number.
        file_systems = {root: self._lies_on(root) for root in {scope.root for scope in scopes}}
        for scope in scopes:
            lies_on = file_systems[scope.root]
            before = seen
            try:
                kind = self._sources.kind(scope.path)
                if kind is None:
                    found.cover(scope, lies_on)
                    continue
                files = self._sources.scan(
                    scope.path,
                    self._options.scan,
                    on_error=self._unreadable(found, scope),
                    passed_over=self._passed_over,
                )
                for batch in batches(files, _SCAN_BATCH):
                    if self._stopping():
                        return found
                    found.record(scope, batch)
                    seen += len(batch)
                    self._progress(Progress(Stage.SCAN, seen))
            except SourceAway as error:
                if not (lost := self._writer.count(scope)):
                    raise
                found.scan.unknown(scope, scope.path)  # what was seen of it is brought in
                self._withhold(Withheld(scope.path, lost, error.message))
                continue
            if kind != "folder":
                continue
            away = 0 if seen > before or self._options.confirm_removals else self._writer.count(scope)
            if away:
                # An empty mount point looks like this: nothing is gone.
                self._withhold(Withheld(scope.path, away, "no photo is there, as in a folder without its drive"))
                found.scan.unknown(scope, scope.path)
            else:
                found.cover(scope, lies_on)
        return found

    def _lies_on(self, root: str) -> str | None:
        return None if is_remote(root) else file_system(root)

    def _unreadable(self, found: Survey, scope: Scope) -> Callable[[str, OSError], None]:
        def note(path: str, error: OSError) -> None:
            found.scan.unknown(scope, path)
            skip = Skip(path, SkipReason.UNREADABLE, error.strerror or str(error))
            self._writer.skip_unread(scope, skip)
            self._skipped.append(skip)

        return note

    # ---- what is known by content

    def _recognise(self, found: Scan) -> None:
        """Hash the files that may be known under another name or time; then settle who is gone."""
        confirmed = self._options.confirm_removals
        counts = found.verdicts()
        total = counts[Verdict.CHANGED] + counts[Verdict.SUSPECT]
        files = _flatten(found.files(Verdict.CHANGED, Verdict.SUSPECT))
        hashes: list[tuple[ScannedFile, bytes | None]] = []
        if total:
            self._progress(Progress(Stage.RECOGNISE, 0, total))
        for done, hashed in enumerate(self._hashed(files) if total else (), start=1):
            hashes.append(hashed)
            if len(hashes) == _SCAN_BATCH or self._stopping():
                self._count_known(found.recognise(hashes, last=False, confirmed=confirmed))
                hashes = []
            self._progress(Progress(Stage.RECOGNISE, done, total))
            if self._stopping():
                return
        if total:
            self._count_known(found.recognise(hashes, confirmed=confirmed))
        reach("index.recognised")
        settled = found.settle(confirmed=confirmed)
        unchanged = counts[Verdict.UNCHANGED] + counts[Verdict.UNREAD]
        self._count(added=settled.returned, unchanged=unchanged, gone=settled.gone)
        self._withhold(*settled.withheld)
        self._skipped += found.settled_skips()

    def _hashed(self, files: Iterable[ScannedFile]) -> Iterator[tuple[ScannedFile, bytes | None]]:
        from concurrent.futures import ThreadPoolExecutor

        from search.decoding.pool import ahead

        with ThreadPoolExecutor(self._options.workers, "photo") as pool:
            try:
                yield from ahead(lambda file: pool.submit(self._hash, file), files, _HASHED_AHEAD)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _hash(self, file: ScannedFile) -> bytes | None:
        """None where the file can't be read now: loading it will say why."""
        try:
            return self._sources.content_hash(file.stat)
        except PhotoError:
            return None

    def _count_known(self, known: Recognised) -> None:
        self._count(
            added=known.added, updated=known.updated, moved=known.moved, unchanged=known.touched, gone=known.gone
        )

    def _purge(self, found: Scan) -> None:
        """Forget what is gone for too long, where the run could see that it still is."""
        found.take_back_places()
        self._count(purged=self._writer.purge(found.gone_since(self._long_ago())))

    def _long_ago(self) -> datetime:
        """The moment since when a photo must be gone to be forgotten, in UTC."""
        return datetime.now(UTC).replace(tzinfo=None) - timedelta(days=self._options.keep_gone_days)

    # ---- what must be encoded

    def _encode(self, found: Scan) -> None:
        wanted = (Verdict.NEW, Verdict.SUSPECT, Verdict.CHANGED, Verdict.UNEMBEDDED)
        counts = found.verdicts()
        total = sum(counts[verdict] for verdict in wanted)
        if not total or self._stopping():
            return
        with self._decoders() as decoders:
            decoders.start(total)  # while the model loads
            encoder = self._model.load(total)
            self._writer.expect(total)
            self._progress(Progress(Stage.ENCODE, 0, total))
            done = 0
            for batch in self._loaded(_flatten(found.files(*wanted)), decoders, encoder):
                done += self._commit(batch, encoder)
                self._progress(Progress(Stage.ENCODE, done, total))
                if self._stopping():
                    return

    # ---- what must be read again

    def _reread(self, found: Scan) -> None:
        """Read what photos say of themselves whose content is as it was; a sidecar may be new, or the reader.

        One that can't be read now, or was changed meanwhile, is left to the next run.
        """
        total = found.verdicts()[Verdict.UNREAD]
        if not total or self._stopping():
            return
        from search.decoding.pool import ahead

        self._progress(Progress(Stage.READ, 0, total))
        with self._decoders() as decoders:
            files = _flatten(found.files(Verdict.UNREAD))

            def submit(file: ScannedFile) -> Future[Read | Skip]:
                content = self._sources.content(file.stat, whole=True)
                return decoders.submit_reading(file.stat.path, content=content)

            reading = ahead(submit, files, _HASHED_AHEAD)
            done = 0
            for batch in batches(reading, _SCAN_BATCH):
                self._commit_read(batch)
                done += len(batch)
                self._progress(Progress(Stage.READ, done, total))
                if self._stopping():
                    return

    def _commit_read(self, batch: Sequence[tuple[ScannedFile, Read | Skip]]) -> None:
        read, kept = [], []
        for file, found in batch:
            if file.photo_id is None:
                continue
            if isinstance(found, Skip):
                if found.reason in SETTLED:
                    kept.append(file.photo_id)
            elif found.stat == file.stat:
                read.append((file.photo_id, found.info))
        self._writer.put_info(read, reader=READER)
        self._writer.keep_info(kept, reader=READER)
        self._count(reread=len(read))

    # ---- loading

    def _loaded(
        self, files: Iterable[ScannedFile], decoders: Decoders, encoder: Encoder
    ) -> Iterator[Sequence[tuple[ScannedFile, Ready | Skip]]]:
        """Yield batches of loaded files; then, one by one, what must be tried again and what must be tried alone."""
        from search.decoding.pool import ahead

        size = self._options.batch_size or encoder.batch_size

        def submit(file: ScannedFile) -> Future[Decoded | Skip]:
            content = self._sources.content(file.stat, whole=True)
            return decoders.submit(file.stat.path, encoder.preprocessing, content=content)

        suspects: list[ScannedFile] = []
        taken = self._taken(self._but_leftovers(files, suspects), size)
        # Two batches wait while one is encoded: what they take is small, the pictures themselves are gone already.
        for batch in batches(ahead(submit, taken, 2 * size + self._options.workers), size):
            yield self._put_off([(file, _ready(file, decoded)) for file, decoded in batch])
        suspects.sort(key=lambda file: self._leftovers[file.root_id, file.place])
        for file in (*self._again, *suspects):
            yield [(file, self._verdict_on_suspect(file) or _ready(file, submit(file).result()))]

    # What kills the whole process is rare, since photos are decoded in processes of their own; but the model's
    # runtime, the machine's memory or a user with `kill -9` may do it. Files in flight at such a death are no
    # culprits yet, one of them may be one. Each is tried once more after all others, and alone: a death then is
    # that file's, and the second one leaves it out. So an innocent file that was in hand when somebody killed the
    # run loses nothing but a batch's company, and to lose it by kills the same file must be hit alone, twice.

    def _but_leftovers(self, files: Iterable[ScannedFile], suspects: list[ScannedFile]) -> Iterator[ScannedFile]:
        """Yield the files that no process died with; collect the others."""
        for file in files:
            if (file.root_id, file.place) in self._leftovers:
                suspects.append(file)
            else:
                yield file

    def _taken(self, files: Iterable[ScannedFile], size: int) -> Iterator[ScannedFile]:
        """Yield files whose names are noted before anything opens them."""
        for group in batches(files, max(size, _TAKEN)):
            self._writer.take(group)
            reach("index.marked")
            yield from group

    def _put_off(
        self, batch: Sequence[tuple[ScannedFile, Ready | Skip]]
    ) -> Sequence[tuple[ScannedFile, Ready | Skip]]:
        """Leave files that changed while they were read for the end of the run, when they may have settled."""
        restless = [
            file for file, loaded in batch if isinstance(loaded, Skip) and loaded.reason == SkipReason.UNSTABLE
        ]
        self._again += restless
        return [(file, loaded) for file, loaded in batch if file not in restless]

    def _verdict_on_suspect(self, file: ScannedFile) -> Skip | None:
        """Set a file aside that processes died of; note of another suspect that nothing else is in flight."""
        deaths = self._leftovers.get((file.root_id, file.place))
        if deaths is None:
            return None
        if deaths >= _DEATHS:
            return Skip(
                file.stat.path,
                SkipReason.QUARANTINED,
                f"indexing died {deaths} times while it was at work on this file alone; it is tried again when the "
                "file changes or a new version reads photos",
            )
        self._writer.take([file], alone=True)
        reach("index.marked")
        return None

    def _decoders(self) -> AbstractContextManager[Decoders]:
        from search.decoding.pool import lend
        from search.decoding.wire import Limits

        return lend(
            workers=self._options.workers,
            max_megapixels=self._options.max_megapixels,
            limits=Limits(memory_bytes=round(self._options.decoder_gigabytes * 1e9)),
        )

    def _commit(self, batch: Sequence[tuple[ScannedFile, Ready | Skip]], encoder: Encoder) -> int:
        """Encode what was loaded and commit photos with their vectors, then what was skipped; return how many."""
        import numpy as np

        ready = [loaded for _, loaded in batch if isinstance(loaded, Ready)]
        skipped = [(file, loaded) for file, loaded in batch if isinstance(loaded, Skip)]
        if ready:
            vectors = encoder.encode_images(np.stack([photo.pixels for photo in ready]))
            reach("index.encoded")
            sound = are_unit(vectors)
            records = [photo.record for photo, fine in zip(ready, sound, strict=True) if fine]
            if records:
                self._writer.add(records, vectors[sound], self._model.id, reader=READER)
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
        reach("index.committed")
        return len(batch)


class Survey:
    """What one run finds on disk: held against what is known, and written down in a scan from the first difference.

    stack: holds the look open.   look, begin: open a look, where the catalog can be asked so, and a scan.
    """

    def __init__(
        self,
        stack: ExitStack,
        look: Callable[[], AbstractContextManager[Look | None]],
        begin: Callable[[], Scan],
    ) -> None:
        self._stack = stack
        self._look = stack.enter_context(look())
        self._begin = begin
        self._scan: Scan | None = None
        self._covered: list[tuple[Scope, str | None]] = []

    def record(self, scope: Scope, files: Sequence[FileStat]) -> None:
        """Note files found in a scope; scope after scope."""
        if not (self._look and self._look.take(scope, files)):
            self.scan.record(scope, files)

    def cover(self, scope: Scope, lies_on: str | None) -> None:
        """Note that a scope was walked to its end, and what its root lies on."""
        if self._look and self._look.take(scope, ()):
            self._covered.append((scope, lies_on))
        else:
            self.scan.cover(scope, lies_on)

    def unchanged(self, *, before: datetime) -> Unchanged | None:
        """Return how the run ends if every file is as it was; `before`: since when those to forget are gone."""
        return self._look.conclude(self._covered, before=before) if self._look else None

    @property
    def scan(self) -> Scan:
        """What was found so far, written down; from now on everything is."""
        if self._scan is None:
            met = self._look.so_far() if self._look else []
            self._look = None
            self._stack.close()  # a state that is still read keeps the log from being folded back
            self._scan = self._begin()
            for matched in met:
                self._scan.record_known(matched)
            for scope, lies_on in self._covered:
                self._scan.cover(scope, lies_on)
        return self._scan


@dataclass(frozen=True, slots=True)
class Ready:
    """A photo that waits for the encoder; the full-size image is gone already."""

    record: Record
    pixels: Pixels


def _ready(file: ScannedFile, found: Decoded | Skip) -> Ready | Skip:
    if isinstance(found, Skip):
        return found
    return Ready(
        Record(replace(file, stat=found.stat), found.content_hash, found.info, found.likeness), found.pixels
    )


def _folder_first(path: str) -> tuple[str, str]:
    """Sort a folder, or the one a file is in, before those inside it: an outer root takes in what an inner one held."""
    return (path if is_remote(path) or os.path.isdir(path) else os.path.dirname(path)), path


def _holder(root: str) -> str:
    """Return what must be there for a root that is not to be gone: itself, or the folder that a tar file was in."""
    return os.path.dirname(root) if is_tar_name(root) and not os.path.isdir(root) else root


def are_unit(vectors: Vectors) -> npt.NDArray[numpy.bool_]:
    """Tell which rows are finite and of length 1; float32 encoders keep it to 1e-3 by far."""
    import numpy as np

    norms = np.linalg.norm(vectors, axis=1)
    sound: npt.NDArray[numpy.bool_] = np.abs(norms - 1) < 1e-3  # NaN and infinity fail the comparison
    return sound


def _flatten(pages: Iterable[list[T]]) -> Iterator[T]:
    for page in pages:
        yield from page


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield items in lists of so many, the last of what is left."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
