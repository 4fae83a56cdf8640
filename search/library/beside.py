"""Sidecars brought in line with what tags their photos are to have, and what the catalog remembers of each.

The catalog remembers what a sidecar was before anything of ours, the hash of what we made of it, and the tags in it. It
is told before the file is replaced, so that the file itself tells how far a run came that was cut short. One that is
neither what it was nor what we made of it was changed by other software: from that only what is ours is taken out.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from search.catalog.rows import SidecarRow
from search.errors import PhotoError, StorageError
from search.failpoints import reach
from search.files import replace_beside, sweep
from search.photos import sidecars
from search.photos.packets import NOT_XMP, Tag, has_ours, render, strip
from search.photos.suffixes import RAW_SUFFIXES
from search.types import ExportReport, Progress, SidecarChange, Skip, SkipReason, Stage

if TYPE_CHECKING:
    import threading

    from search.catalog import Catalog, Writer
    from search.types import Photo

LINKED, SHARED, AMBIGUOUS = "linked", "shared_sidecar", "ambiguous_name"
MISSING, OFFLINE, CHANGED, NOT_WRITABLE = "missing", "offline", "changed", "not_writable"
"""Why a sidecar is left as it is, beside search.photos.packets.NOT_XMP and SkipReason.UNREADABLE."""

DEFAULT, ADOBE = STYLES = ("default", "adobe")
"""How a new sidecar is called: IMG_1.jpg.xmp or IMG_1.xmp."""

_BATCH = 128  # photos whose sidecars are in memory together, and between two transactions
_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN = {errno.EROFS, errno.EACCES, errno.EPERM}


# ---- what is remembered of a sidecar


@dataclass(frozen=True, slots=True)
class Written:
    """A tag as it is written; export: the run that did it first, None for the one that is under way.

    was: what it was written in place of, the same label as a proposal, say.
    """

    tag: Tag
    export: int | None = None
    was: Written | None = None

    @property
    def state(self) -> Any:
        return self.tag.about.get("state")

    def is_as(self, tag: Tag) -> bool:
        """Whether a tag is the same to readers; how probable it is now does not count."""
        return (self.tag.label, self.tag.root, self.state) == (tag.label, tag.root, tag.about.get("state"))

    def without(self, run: int) -> Written | None:
        """Return the tag as it is with an export taken back."""
        was = self.was.without(run) if self.was else None
        return was if self.export == run else replace(self, was=was)

    def document(self) -> dict[str, Any]:
        was = {"was": self.was.document()} if self.was else {}
        tag = {"label": self.tag.label, "root": self.tag.root, "about": dict(self.tag.about)}
        return {**tag, "export": self.export, **was}

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Written:
        was = cls.of(document["was"]) if "was" in document else None
        return cls(Tag(document["label"], document["root"], document["about"]), document["export"], was)


@dataclass(frozen=True, slots=True)
class Entry:
    """What the catalog remembers of a sidecar.

    before: it without anything of ours; None: there was none.   after: its hash as we left it, or are about to.
    previous: its hash until then, if something of ours was in it already.   existing: the photo's own keywords.
    """

    before: bytes | None
    after: bytes
    previous: bytes | None
    existing: tuple[str, ...]
    tags: tuple[Written, ...]

    @classmethod
    def of(cls, row: SidecarRow) -> Entry:
        said = json.loads(row.tags)
        previous = bytes.fromhex(said["previous"]) if said.get("previous") else None
        tags = tuple(Written.of(one) for one in said["tags"])
        return cls(row.before, row.after_hash, previous, tuple(said["existing"]), tags)

    def row(self, photo_id: int, name: bytes) -> SidecarRow:
        said = {
            "existing": list(self.existing),
            "tags": [one.document() for one in self.tags],
            **({"previous": self.previous.hex()} if self.previous else {}),
        }
        return SidecarRow(photo_id, name, self.before, self.after, json.dumps(said, sort_keys=True))

    def by(self, run: int) -> Entry:
        """Return the entry with the tags that the export under way writes in its name."""
        return replace(
            self, tags=tuple(one if one.export is not None else replace(one, export=run) for one in self.tags)
        )


def _base(entry: Entry | None, content: bytes | None) -> bytes | None:
    """Return what a sidecar is without anything of ours; None for nothing.   Raises PhotoError.

    One that other software wrote anew need not say any more what in it is ours: what we made of it before does.
    """
    if content is None:
        return None
    if entry and (content == entry.before or _hash(content) in (entry.after, entry.previous)):
        return entry.before
    if entry:
        return strip(content, written=render(entry.before, [one.tag for one in entry.tags], entry.existing))
    return strip(content) if has_ours(content) else content


def _hash(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


# ---- what is to be done


Decision = tuple[Sequence[Written], tuple[str, ...]]
"""The tags that a sidecar is to have, and the photo's own keywords."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a photo's sidecar is to be.

    decide: from what is remembered of it.   tags: whether there are any that it is to have, so that one is made.
    """

    photo: Photo
    decide: Callable[[Entry | None], Decision]
    tags: bool


@dataclass(frozen=True, slots=True)
class _Step:
    """A sidecar that is to become something else, or to be remembered otherwise.

    like: its file as it was looked at.   entry: to be remembered before it is written; None: forgotten afterwards.
    known: what was remembered under its name.   stamp: the photo's change time, with its sidecar's, until now.
    """

    photo: Photo
    path: str
    content: bytes | None
    like: os.stat_result | None
    new: bytes | None
    entry: Entry | None
    known: SidecarRow | None
    stamp: int

    @property
    def name(self) -> bytes:
        return os.fsencode(os.path.basename(self.path))

    @property
    def changes(self) -> bool:
        return self.new != self.content

    @property
    def action(self) -> str:
        if self.new is None:
            return "remove"
        return "create" if self.content is None else "change"


class Journal:
    """What the catalog is told before and after files are replaced.

    begin: opens the run that all is done in, when the first file is about to be written; None where it is known.
    """

    def __init__(self, catalog: Catalog, writer: Writer, begin: Callable[[Writer], int] | None = None) -> None:
        self.catalog, self._writer, self._begin = catalog, writer, begin
        self.run: int | None = None

    def known(self, ids: Sequence[int]) -> dict[int, dict[bytes, SidecarRow]]:
        """Return what is remembered of photos' sidecars, by photo and name."""
        known: dict[int, dict[bytes, SidecarRow]] = {}
        for row in self.catalog.sidecars(ids):
            known.setdefault(row.photo_id, {})[row.name] = row
        return known

    def remember(self, steps: Sequence[_Step]) -> None:
        """Tell what is about to be written."""
        if self._begin and self.run is None and any(step.changes for step in steps):
            self.run = self._begin(self._writer)
        entries = [(step, step.entry.by(self.run) if self.run else step.entry) for step in steps if step.entry]
        if entries:
            self._writer.put_sidecars([entry.row(step.photo.id, step.name) for step, entry in entries])

    def conclude(self, done: Sequence[_Step], failed: Sequence[_Step], stale: Sequence[tuple[int, bytes]]) -> None:
        """Forget what is not ours any more, take back what could not be written, and tell of new times."""
        back = [step.known for step in failed if step.known]
        drop = [*stale, *((step.photo.id, step.name) for step in done if step.entry is None and step.known)]
        drop += [(step.photo.id, step.name) for step in failed if step.known is None]
        if back or drop:
            self._writer.put_sidecars(back, drop=drop)
        self._writer.restamp([(step.photo.id, step.stamp, _stamp_after(step)) for step in done if step.changes])


@dataclass(slots=True)
class Account:
    """Brings sidecars in line, batch by batch, and keeps account of it."""

    journal: Journal
    progress: Callable[[Progress], None]
    stop: threading.Event | None
    style: str = DEFAULT
    dry_run: bool = False
    photos: set[int] = field(default_factory=set)
    _written: int = 0
    _unchanged: int = 0
    _removed: int = 0
    _skipped: list[Skip] = field(default_factory=list)
    _changes: list[SidecarChange] = field(default_factory=list)
    _tidied: set[str] = field(default_factory=set)
    _online: dict[str, bool] = field(default_factory=dict)

    def work(self, ids: Sequence[int], wishes: Callable[[Sequence[Photo]], Iterable[Wish]]) -> None:
        """Bring the sidecars of photos in line.   wishes: tells of photos what theirs are to be.

        Raises StorageError where there is no room; what was written before stays, and is accounted for.
        """
        done, waiting = 0, iter(ids)
        while (batch := list(islice(waiting, _BATCH))) and not self._stopping():
            self._batch(wishes(self.journal.catalog.get(batch)), self.journal.known(batch))
            done += len(batch)
            self.progress(Progress(Stage.WRITE, done, len(ids)))

    def report(self, started: float) -> ExportReport:
        """Return what was done since a moment that `perf_counter` told."""
        return ExportReport(
            run=self.journal.run,
            written=self._written,
            unchanged=self._unchanged,
            removed=self._removed,
            skipped=tuple(self._skipped),
            changes=tuple(self._changes),
            seconds=perf_counter() - started,
            interrupted=self._stopping(),
        )

    def _stopping(self) -> bool:
        return self.stop is not None and self.stop.is_set()

    def _batch(self, wishes: Iterable[Wish], known: Mapping[int, Mapping[bytes, SidecarRow]]) -> None:
        steps: list[_Step] = []
        stale: list[tuple[int, bytes]] = []
        for wish in wishes:
            rows = known.get(wish.photo.id, {})
            if not wish.tags and not rows:
                continue
            try:
                self._check_there(wish)
                self._tidy(os.path.dirname(wish.photo.path))
                found, gone = _steps(wish, rows, self.style)
            except PhotoError as error:
                self._skipped.append(Skip(wish.photo.path, error.reason, error.message))
            except OSError as error:
                self._skipped.append(Skip(wish.photo.path, SkipReason.UNREADABLE, error.strerror or str(error)))
            else:
                steps += found
                stale += [(wish.photo.id, name) for name in gone]
                self._unchanged += not any(step.changes for step in found)
        if self.dry_run:
            for step in steps:
                self._count(step)
        else:
            self._write(steps, stale)

    def _tidy(self, folder: str) -> None:
        """Remove what a run that was killed had begun to write in a folder, once in a run."""
        if folder not in self._tidied and not self.dry_run:
            self._tidied.add(folder)
            sweep(Path(folder))

    def _check_there(self, wish: Wish) -> None:
        """Raise PhotoError where a photo is not there; what is ours beside it can be taken out all the same.

        Where its folder is not there either, the drive may be away, unless indexing has found that it is gone.
        """
        photo = wish.photo
        if os.path.lexists(photo.path):
            return
        if not wish.tags and (photo.gone_at is not None or os.path.isdir(os.path.dirname(photo.path))):
            return
        if photo.root not in self._online:
            self._online[photo.root] = os.path.lexists(photo.root)
        if not self._online[photo.root]:
            raise PhotoError(OFFLINE, f"{photo.root} is not there")
        raise PhotoError(MISSING, "the photo is not there any more")

    def _write(self, steps: Sequence[_Step], stale: Sequence[tuple[int, bytes]]) -> None:
        """Tell the catalog, replace the files, tell it what came of it.   Raises StorageError."""
        self.journal.remember(steps)
        reach("sidecars.remembered")
        done: list[_Step] = []
        failed: list[_Step] = []
        try:
            for number, step in enumerate(steps):
                try:
                    _replace(step)
                except (PhotoError, OSError) as error:
                    if isinstance(error, OSError) and error.errno in _FULL:
                        failed += steps[number:]
                        raise StorageError(
                            f"can't write {step.path}: {error.strerror}", hint="what was written before is there"
                        ) from error
                    failed.append(step)
                    self._skipped.append(_skip(step, error))
                else:
                    done.append(step)
                    self._count(step)
                    reach("sidecars.replaced")
        finally:  # of steps that an interruption left out nobody knows how far they came: they stay remembered
            self.journal.conclude(done, failed, stale)

    def _count(self, step: _Step) -> None:
        if not step.changes:
            return
        self.photos.add(step.photo.id)
        if step.entry is None:
            self._removed += 1
        else:
            self._written += 1
        self._changes.append(SidecarChange(step.path, step.action))


# ---- one photo


def _steps(wish: Wish, rows: Mapping[bytes, SidecarRow], style: str) -> tuple[list[_Step], list[bytes]]:
    """Return what is to be done for a photo, and the names of sidecars that can be forgotten.

    Tags go into one file; what is ours in others that are remembered is taken out.   Raises PhotoError, OSError.
    """
    path = wish.photo.path
    found = sidecars.of(path)
    target = _place(path, found, style) if wish.tags else found
    stamp = sidecars.stamped(_ctime(path), found)
    places = {name: os.path.join(os.path.dirname(path), os.fsdecode(name)) for name in rows}
    if target:
        places.setdefault(os.fsencode(os.path.basename(target)), target)
    steps, gone = [], []
    for name, place in places.items():
        content, like = _read(place)
        known = rows.get(name)
        if content is None and place != target:
            gone.append(name)  # somebody removed it
            continue
        row = known or _renamed(rows, content)
        entry = Entry.of(row) if row else None
        tags, existing = wish.decide(entry) if place == target or not wish.tags else ((), ())
        new, after = _outcome(entry, content, tags, existing)
        if new != content or after != (Entry.of(known) if known else None):
            steps.append(_Step(wish.photo, place, content, like, new, after, known, stamp))
    return steps, gone


def _outcome(
    entry: Entry | None, content: bytes | None, tags: Sequence[Written], existing: tuple[str, ...]
) -> tuple[bytes | None, Entry | None]:
    """Return what a sidecar is to become, and what is to be remembered of it.   Raises PhotoError."""
    ours = content is not None and entry is not None and _hash(content) == entry.after
    if entry and ours and tuple(tags) == entry.tags and existing == entry.existing:
        return content, entry
    base = _base(entry, content)
    new = render(base, [one.tag for one in tags], existing)
    if not tags or new is None:
        return new, None
    previous = _hash(content) if content is not None and content != base else None
    return new, Entry(base, _hash(new), previous, existing, tuple(tags))


def _place(path: str, found: str | None, style: str) -> str:
    """Return where a photo's tags are to be written. Raises PhotoError where no name is the photo's alone."""
    if found is not None:
        if sidecars.is_shared(path, found) and os.path.splitext(path)[1].lower() not in RAW_SUFFIXES:
            raise PhotoError(SHARED, f"{os.path.basename(found)} belongs to the RAW file of the same name as well")
        return found
    if style == DEFAULT:
        return path + sidecars.SUFFIXES[0]
    place = os.path.splitext(path)[0] + sidecars.SUFFIXES[0]
    if os.path.lexists(place) or sidecars.is_shared(path, place):
        raise PhotoError(AMBIGUOUS, f"{os.path.basename(place)} would belong to several photos")
    return place


def _read(path: str) -> tuple[bytes | None, os.stat_result | None]:
    """Return a sidecar's content and what tells that it is still the same; nothing where there is none.

    Raises PhotoError for one that must not be replaced; OSError.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None, None
    name = os.path.basename(path)
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode)):
        raise PhotoError(NOT_XMP, f"{name} is no file")
    if stat.S_ISLNK(found.st_mode) or found.st_nlink > 1:
        raise PhotoError(LINKED, f"{name} is one file with another, which replacing it would part it from")
    if found.st_size > sidecars.MAX_BYTES:
        raise PhotoError(NOT_XMP, f"{name} has more than {sidecars.MAX_BYTES} bytes")
    with open(path, "rb") as file:
        return file.read(), found


def _renamed(rows: Mapping[bytes, SidecarRow], content: bytes | None) -> SidecarRow | None:
    """Return what is remembered of a sidecar that was renamed with its photo."""
    hashed = _hash(content) if content is not None and rows else None
    return next((row for row in rows.values() if row.after_hash == hashed), None)


def _replace(step: _Step) -> None:
    """Put the new content in place. Raises PhotoError if the file was changed since it was looked at; OSError."""
    if not step.changes:
        return
    try:
        now: os.stat_result | None = os.lstat(step.path)
    except FileNotFoundError:
        now = None
    if _identity(now) != _identity(step.like):
        raise PhotoError(CHANGED, f"{os.path.basename(step.path)} was changed meanwhile; run it again")
    if step.new is None:
        os.unlink(step.path)
    else:
        replace_beside(Path(step.path), step.new, like=step.like)


def _identity(found: os.stat_result | None) -> tuple[int, ...] | None:
    return found and (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _skip(step: _Step, error: PhotoError | OSError) -> Skip:
    """Tell why a sidecar could not be written."""
    if isinstance(error, PhotoError):
        return Skip(step.photo.path, error.reason, error.message)
    if error.errno in _FORBIDDEN:
        return Skip(step.photo.path, NOT_WRITABLE, f"{os.path.dirname(step.path)} is not writable")
    return Skip(step.photo.path, SkipReason.UNREADABLE, f"can't write {step.path}: {error.strerror or error}")


def _ctime(path: str) -> int:
    try:
        return os.stat(path).st_ctime_ns
    except OSError:
        return 0


def _stamp_after(step: _Step) -> int:
    """Return a photo's change time as the next walk will tell it."""
    there = step.path if step.new is not None else sidecars.of(step.photo.path)
    return sidecars.stamped(_ctime(step.photo.path), there)
