"""Duplicates moved into a folder of the user's: nothing is deleted, nothing overwritten, each file is whole throughout.

Before a file goes, it and the one that stays are read once more: both must be what was compared.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from search.errors import PhotoError, StorageError, UsageError
from search.files import append_line, is_left_from_a_move, move_file
from search.library.seams import real
from search.types import Moved, MoveReport, Progress, Skip, SkipReason, Stage

if TYPE_CHECKING:
    import threading

    from search.types import DuplicateGroup, Photo

UNDO = "moved.jsonl"
"""The list of what was moved, in the folder it was moved to."""

EXISTS, CHANGED, ONE_FILE = "exists", "changed", "one_file"
"""Why a file stays, beside what makes one unreadable."""

_TOLD_TOGETHER = 64  # moves after which the catalog is told
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}


def check_folder(folder: str | os.PathLike[str], roots: Sequence[str]) -> Path:
    """Return where to move to. Raises UsageError for a place in an indexed folder: it would be indexed anew there."""
    target = Path(real(folder))
    for root in roots:
        if target.is_relative_to(root):
            raise UsageError(f"{target} is in the indexed folder {root}", hint="choose a folder outside of it")
    if os.path.lexists(target) and not target.is_dir():
        raise UsageError(f"{target} is no folder")
    return target


def set_aside(
    groups: Sequence[DuplicateGroup],
    target: Path,
    gone: Callable[[list[int]], None],
    *,
    progress: Callable[[Progress], None],
    stop: threading.Event | None,
) -> MoveReport:
    """Move all but the kept photo of each group; `Library.set_aside` has the words.

    gone: tells the catalog of photos that are no longer where they were.
    Raises StorageError where there is no room; what was moved before is told all the same.
    """
    moved: list[Moved] = []
    skipped: list[Skip] = []
    untold: list[int] = []
    total = sum(len(group.others) for group in groups)
    try:
        for done, (keep, photo) in enumerate(_pairs(groups), start=1):
            if stop is not None and stop.is_set():
                break
            try:
                moved += _move(photo, keep, target, skipped)
                untold.append(photo.id)
            except PhotoError as error:
                skipped.append(Skip(photo.path, error.reason, error.message))
            if len(untold) == _TOLD_TOGETHER:
                gone(untold)
                untold = []
            progress(Progress(Stage.MOVE, done, total))
    finally:
        if untold:
            gone(untold)
    stopped = stop is not None and stop.is_set()
    return MoveReport(tuple(moved), tuple(skipped), str(target / UNDO), interrupted=stopped)


def _pairs(groups: Sequence[DuplicateGroup]) -> Iterator[tuple[Photo, Photo]]:
    """Yield who is kept and who goes; a photo that is kept may itself go later, for a weaker kind."""
    for group in groups:
        for other in group.others:
            yield group.keep, other.photo


def _move(photo: Photo, keep: Photo, target: Path, skipped: list[Skip]) -> list[Moved]:
    """Move a photo behind its sidecars; return what was moved. Raises PhotoError if it has to stay, StorageError.

    Sidecars first: cut short, the photo is still known, and the next run takes it after them.
    """
    _make_sure(photo, keep)
    source = Path(photo.path)
    place = target / _relative(photo, source)
    if os.path.lexists(place) and not is_left_from_a_move(source, place):
        raise PhotoError(EXISTS, f"there is another file {place}")
    moved = []
    for sidecar in sidecars(source):
        try:
            moved.append(_move_one(sidecar, target / _relative(photo, sidecar), target))
        except PhotoError as error:
            skipped.append(Skip(str(sidecar), error.reason, error.message))
    return [*moved, _move_one(source, place, target)]


def _move_one(source: Path, place: Path, target: Path) -> Moved:
    """Move a file; what is about to be done is written down before, and that it failed after."""
    said = {"from": str(source), "to": str(place)}
    try:
        target.mkdir(parents=True, exist_ok=True)
        append_line(target / UNDO, json.dumps(said).encode())
        try:
            move_file(source, place)
        except OSError:
            append_line(target / UNDO, json.dumps(said | {"failed": True}).encode())
            raise
    except FileExistsError:
        raise PhotoError(EXISTS, f"there is another file {place}") from None
    except OSError as error:
        if error.errno in _NO_ROOM:
            hint = "what was moved before is there"
            raise StorageError(f"can't write to {target}: {error.strerror}", hint=hint) from error
        raise PhotoError(SkipReason.UNREADABLE, error.strerror or str(error)) from error
    return Moved(str(source), str(place))


def _make_sure(photo: Photo, keep: Photo) -> None:
    """Raise PhotoError unless both files are what was compared, and two."""
    from search.photos.decode import content_hash

    if os.path.lexists(keep.path) and os.path.lexists(photo.path) and os.path.samefile(keep.path, photo.path):
        raise PhotoError(ONE_FILE, f"it is {keep.path} by another name")
    for known in (keep, photo):
        if content_hash(known.path).hex() != known.content_hash:
            raise PhotoError(CHANGED, f"{known.path} changed since it was indexed")


def _relative(photo: Photo, file: Path) -> Path:
    """Where a file is below its root; its name alone where the root is the photo itself."""
    relative = Path(os.path.relpath(file, photo.root))
    return Path(file.name) if relative.parts[0] in ("..", ".") or not relative.parts else relative


def sidecars(photo: Path) -> list[Path]:
    """Return the XMP files of a photo alone: NAME.jpg.xmp, and NAME.xmp where no other photo has that NAME."""
    from search.photos.sidecars import SUFFIXES
    from search.photos.suffixes import PHOTO_SUFFIXES

    names: set[str] = set()
    with suppress(OSError):
        names = set(os.listdir(photo.parent))
    alike = {
        name for name in map(Path, names) if name.stem == photo.stem and name.suffix.lower() in PHOTO_SUFFIXES
    }
    wanted = [photo.name, *([photo.stem] if len(alike) <= 1 else [])]
    return [photo.parent / (name + suffix) for name in wanted for suffix in SUFFIXES if name + suffix in names]
