"""Looking whether a library is whole, putting right what is not, and looking at the originals themselves."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from search.catalog.check import SQLITE_VERSION
from search.catalog.repair import UNSAID
from search.catalog.spares import Copy
from search.catalog.writer import UNKNOWN_TIME
from search.errors import (
    DamagedLibrary,
    LibraryBusy,
    LibraryError,
    LibraryNotFound,
    LibraryUnreachable,
    PhotoError,
    SourceAway,
    StorageError,
)
from search.photos.sidecars import of as sidecar_of
from search.photos.sidecars import stamped
from search.types import CheckReport, Problem, ProblemKind, Progress, RebuildReport, Stage

if TYPE_CHECKING:
    from search.catalog import Catalog, KnownFile, Writer
    from search.photos.sources import Sources
    from search.types import Ids, Publication

_BATCH = 1000  # photos looked at between two commits
_PATIENCE_S = 5.0  # or as long as that, where they are slow to read


class _Held(Copy, AbstractContextManager[Any], Protocol):
    """A copy that nobody removes before it is closed."""


class Generations(Protocol):
    """The published copies of the catalog, as far as looking at them goes."""

    def problems(self, catalog: Catalog, *, full: bool = False) -> Iterable[str]: ...
    def source(self, said: Publication | None) -> _Held | None: ...


def inspect(
    catalog: Catalog,
    generations: Generations | None = None,
    *,
    full: bool | None,
    more: Callable[[], Iterable[Problem]] | None = None,
    is_there: Callable[[str], bool] = os.path.exists,
) -> CheckReport:
    """Look at the catalog and its generations; the originals are not touched.

    full: everything; None: that where it is quick.   more: what to look at besides, once the catalog is whole.
    is_there: tells whether a root can be reached now.
    Raises LibraryNotFound, OldLibrary, NewerLibrary, LibraryBusy, StorageError; damage is a problem.
    """
    with _copy(catalog, generations) as copy:
        problems, whole = catalog.problems(full=full, copy=copy)
    readable = not any(problem.kind is ProblemKind.CATALOG_DAMAGED for problem in problems)
    if generations is not None and readable:
        loss = "nothing is lost: 'search rebuild' writes it anew"
        for wrong in generations.problems(catalog, full=whole):
            problems.append(Problem(ProblemKind.GENERATION_DAMAGED, wrong, loss))
    if whole and more is not None and not problems:
        problems += more()
    facts: dict[str, int | str] = {"level": "full" if whole else "quick"}
    if catalog.folder is not None:
        facts["sqlite"] = SQLITE_VERSION
    if low := catalog.low_space():
        facts["space"] = low
    if readable:
        if job := catalog.last_job():
            facts["last_job"] = str(job.state)
        facts["offline_roots"] = sum(not root.online for root in catalog.root_status(is_there))
    return CheckReport(tuple(problems), facts=facts)


def repair(
    catalog: Catalog, generations: Generations | None = None, publish: Callable[[], None] | None = None
) -> tuple[int, str | None]:
    """Restore or drop what is damaged; return how many rows, and the copy of the catalog that was made before.

    publish: makes a new generation, where one is damaged or missing.   Originals are not touched. Damage that goes
    deeper than rows is left as it is.
    """
    try:
        with _copy(catalog, generations) as copy:
            repaired, backup = catalog.repair(copy)
    except (LibraryBusy, LibraryUnreachable, StorageError):
        raise
    except LibraryError:
        return 0, None  # what remains is told by the inspection that follows
    if publish is not None and generations is not None:
        with suppress(DamagedLibrary, LibraryNotFound):  # there is nothing to publish
            if repaired or any(generations.problems(catalog, full=True)):
                publish()
    return repaired, backup


class Publishing(Generations, Protocol):
    """Generations that can be written and read back."""

    def publish(self, catalog: Catalog, writer: Writer, *, wish: str | None = None) -> int: ...
    def newest_sound(self) -> Restorable | None: ...


class Restorable(_Held, Protocol):
    """A copy from which a lost catalog can be made anew."""

    @property
    def number(self) -> int: ...
    def restore_catalog(self) -> str | None: ...


def rebuild(catalog: Catalog, generations: Publishing, *, wish: str | None = None) -> RebuildReport:
    """Write a generation anew and compact the catalog; make a catalog that can't be read anew from a generation.

    wish: the kind of index asked for, None for that of before.
    Raises LibraryError where there is nothing to rebuild from, LibraryBusy, StorageError.
    """
    try:
        with catalog.writing() as writer:
            writer.compact()
            if catalog.count():
                generations.publish(catalog, writer, wish=wish)
        return RebuildReport(catalog.count(), catalog.publication().number)
    except (DamagedLibrary, LibraryNotFound) as damage:
        return _restored(catalog, generations, damage)


def _restored(catalog: Catalog, generations: Publishing, damage: LibraryError) -> RebuildReport:
    kept = generations.newest_sound()
    if kept is None:
        if isinstance(damage, LibraryNotFound) and not catalog.has_copies():
            raise damage
        raise LibraryError(
            f"{damage.message}, and no sound generation of it is left",
            hint="move the folder away and index the photos again",
        ) from damage
    with kept:
        catalog.close()
        backup = kept.restore_catalog()
        number = kept.number
    photos = catalog.count()
    return RebuildReport(photos, number, recovered=photos, backup=backup)


def _copy(catalog: Catalog, generations: Generations | None) -> AbstractContextManager[Copy | None]:
    if generations is None:
        return nullcontext()
    said = None
    with suppress(LibraryError, *UNSAID):
        said = catalog.publication()
    return generations.source(said) or nullcontext()


def look_at_photos(
    catalog: Catalog,
    sources: Sources,
    *,
    content: bool = False,
    max_duration_s: float | None = None,
    progress: Callable[[Progress], None] | None = None,
    stop: threading.Event | None = None,
) -> CheckReport:
    """Look at every original, those looked at longest ago first, and remember which were.

    content: read them to their end, rather than ask for size and time.   A look cut short, by time or by `stop`,
    goes on with the others the next time. Photos whose content differs are read again by the next index run.
    """
    until = None if max_duration_s is None else monotonic() + max_duration_s
    return _Look(catalog, sources, content, until=until, stop=stop or threading.Event(), progress=progress).run()


@dataclass(slots=True)
class _Look:
    """One look at the originals."""

    catalog: Catalog
    sources: Sources
    content: bool
    until: float | None
    stop: threading.Event
    progress: Callable[[Progress], None] | None
    problems: list[Problem] = field(default_factory=list)
    checked: int = 0
    offline: int = 0
    forgetful: str = ""  # why what was looked at can't be remembered
    _seen: list[int] = field(default_factory=list)
    _again: list[int] = field(default_factory=list)
    _away: set[str] = field(default_factory=set)  # roots that were asked for in vain, which takes long

    def run(self) -> CheckReport:
        ids = self.catalog.unchecked()
        remembered = monotonic()
        for file in self._files(ids):
            if self.stop.is_set() or (self.until is not None and monotonic() >= self.until):
                break
            self._look_at(file)
            if len(self._seen) >= _BATCH or monotonic() - remembered > _PATIENCE_S:
                self._remember(len(ids))
                remembered = monotonic()
        self._remember(len(ids))
        return CheckReport(
            tuple(self.problems),
            facts=self._facts(),
            checked=self.checked,
            remaining=len(ids) - self.checked - self.offline,
            offline=self.offline,
            interrupted=self.stop.is_set(),
        )

    def _files(self, ids: Ids) -> Iterator[KnownFile]:
        for start in range(0, len(ids), _BATCH):
            yield from self.catalog.known_files(ids[start : start + _BATCH].tolist())

    def _facts(self) -> dict[str, int | str]:
        facts: dict[str, int | str] = {"level": "content" if self.content else "photos", "sqlite": SQLITE_VERSION}
        return facts | ({"not_remembered": self.forgetful} if self.forgetful else {})

    def _look_at(self, file: KnownFile) -> None:
        if file.root in self._away:
            self.offline += 1
            return
        try:
            found = _verdict(file, self.sources, content=self.content)
        except SourceAway:
            self._away.add(file.root)
            self.offline += 1
            return
        if found is not None and not self.sources.is_online(file.root):
            self.offline += 1  # the drive is away, the photo is not
            return
        self.checked += 1
        self._seen.append(file.id)
        if found is None:
            return
        kind, detail = found
        self.problems.append(Problem(kind, f"{file.path}: {detail}", _LOSSES[kind], path=file.path, id=file.id))
        if kind is ProblemKind.PHOTO_DAMAGED:
            self._again.append(file.id)

    def _remember(self, total: int) -> None:
        """Write down what was looked at; a library that can't be written to now is looked at all the same."""
        if self.progress is not None:
            self.progress(Progress(Stage.CHECK, self.checked, total - self.offline))
        if self._seen and not self.forgetful:
            try:
                with self.catalog.writing() as writer:
                    writer.note_checked(self._seen, self._again)
            except (LibraryBusy, StorageError) as error:
                self.forgetful = error.message
        self._seen, self._again = [], []


_LOSSES = {
    ProblemKind.PHOTO_MISSING: "nothing is lost: the next 'search index' finds it elsewhere or notes it as gone",
    ProblemKind.PHOTO_CHANGED: "nothing is lost: the next 'search index' reads it again",
    ProblemKind.PHOTO_DAMAGED: "can't be repaired here: edited in silence, or damaged; compare it with a backup",
    ProblemKind.PHOTO_UNREADABLE: "can't be repaired here: look at the drive and its permissions",
}


def _verdict(file: KnownFile, sources: Sources, *, content: bool) -> tuple[ProblemKind, str] | None:
    """Say what is wrong with an original; None if it is as known.   Raises SourceAway."""
    try:
        if not sources.is_plain(file.path):
            return _stored_verdict(file, sources, content=content)
        now = os.stat(file.path)
    except (FileNotFoundError, NotADirectoryError):
        return ProblemKind.PHOTO_MISSING, "is not there any more"
    except (OSError, ValueError) as error:
        return ProblemKind.PHOTO_UNREADABLE, getattr(error, "strerror", None) or str(error)
    if not stat.S_ISREG(now.st_mode):
        return ProblemKind.PHOTO_MISSING, "is no file any more"
    if file.mtime_ns == UNKNOWN_TIME:  # found damaged before, and not indexed since
        return _content_verdict(file, sources)
    if (now.st_size, now.st_mtime_ns) != (file.size_bytes, file.mtime_ns):
        return ProblemKind.PHOTO_CHANGED, "has changed since it was indexed"
    changed_ns = stamped(now.st_ctime_ns, sidecar_of(file.path))
    touched = file.ctime_ns is not None and file.ctime_ns != changed_ns
    return _content_verdict(file, sources) if content or touched else None


def _stored_verdict(file: KnownFile, sources: Sources, *, content: bool) -> tuple[ProblemKind, str] | None:
    """Say what is wrong with a photo that is no file of a folder.   Raises OSError, SourceAway."""
    now = sources.stat(file.path)
    if file.mtime_ns == UNKNOWN_TIME:
        return _content_verdict(file, sources)
    if (now.size_bytes, now.mtime_ns) != (file.size_bytes, file.mtime_ns):
        return ProblemKind.PHOTO_CHANGED, "has changed since it was indexed"
    touched = file.ctime_ns is not None and file.ctime_ns != now.ctime_ns
    return _content_verdict(file, sources) if content or touched else None


def _content_verdict(file: KnownFile, sources: Sources) -> tuple[ProblemKind, str] | None:
    try:
        same = sources.content_hash(file.path) == file.content_hash
    except PhotoError as error:
        return ProblemKind.PHOTO_UNREADABLE, error.message
    return None if same else (ProblemKind.PHOTO_DAMAGED, "has its size and time, but not its content")
