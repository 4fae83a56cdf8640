"""Duplicates moved into a folder of the user's: nothing is deleted, nothing overwritten, each file is whole throughout.

Before a file goes, it and the one that stays are read once more: both must be what was compared.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from search.duplicates import Moved, MoveReport
from search.errors import PhotoError, StorageError, UsageError
from search.files import SourceStays, is_left_from_a_move, move_file
from search.library.moves import BEGUN, DONE, FAILED, NAME, Moves
from search.library.seams import real
from search.photos import sidecars
from search.types import Progress, Skip, SkipReason, Stage

if TYPE_CHECKING:
    import threading

    from search.duplicates import DuplicateGroup
    from search.types import Photo

EXISTS, CHANGED, ONE_FILE, STUCK, HAS_MORE = "exists", "changed", "one_file", "not_removable", "has_more"
"""Why a file stays, beside what makes one unreadable."""
PARTED = "parted"
"""A sidecar that went, could not be put back, and whose photo stays."""

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
    spare: bool,
    progress: Callable[[Progress], None],
    stop: threading.Event | None,
) -> MoveReport:
    """Move all but the kept photo of each group; `Library.set_aside` has the words.

    gone: tells the catalog of photos that are no longer where they were.
    Raises StorageError where there is no room; what was moved before is told all the same.
    """
    mover = _Mover(target, Moves(target / NAME))
    untold: list[int] = []
    total = sum(len(group.others) for group in groups)
    try:
        for done, (keep, photo) in enumerate(_pairs(groups), start=1):
            if stop is not None and stop.is_set():
                break
            try:
                _make_sure(photo, keep, spare=spare)
                mover.take(photo)
                untold.append(photo.id)
            except PhotoError as error:
                mover.skipped.append(Skip(photo.path, error.reason, error.message))
            if len(untold) == _TOLD_TOGETHER:
                gone(untold)
                untold = []
            progress(Progress(Stage.MOVE, done, total))
    finally:
        if untold:
            gone(untold)
    stopped = stop is not None and stop.is_set()
    return MoveReport(tuple(mover.moved), tuple(mover.skipped), str(target / NAME), interrupted=stopped)


def _pairs(groups: Sequence[DuplicateGroup]) -> Iterator[tuple[Photo, Photo]]:
    """Yield who is kept and who goes; a photo that is kept may itself go later, for a weaker kind."""
    for group in groups:
        for other in group.others:
            yield group.keep, other.photo


@dataclass(slots=True)
class _Mover:
    """Moves photos one by one and keeps account."""

    target: Path
    moves: Moves
    moved: list[Moved] = field(default_factory=list)
    skipped: list[Skip] = field(default_factory=list)

    def take(self, photo: Photo) -> None:
        """Move a photo behind its sidecars, all of them or none. Raises PhotoError if it has to stay, StorageError.

        Sidecars first: cut short, the photo is still known, and the next run takes it after them.
        """
        source, before = Path(photo.path), len(self.moved)
        files = [*map(Path, sidecars.own(photo.path)), source]
        try:
            for file, place in zip(files, self._places(photo, files), strict=True):
                self._move(file, place)
        except (PhotoError, StorageError):
            self._put_back(before)
            raise

    def _places(self, photo: Photo, files: Sequence[Path]) -> list[Path]:
        """Return free places for a photo and its sidecars, numbered alike, or those they were on the way to."""
        stem = Path(photo.path).stem
        for number in count(1):
            places = [self.target / _relative(photo, _numbered(file, stem, number)) for file in files]
            if all(self._is_for(*pair) for pair in zip(files, places, strict=True)):
                return places
        raise AssertionError

    def _is_for(self, file: Path, place: Path) -> bool:
        if not os.path.lexists(place):
            return True
        return self.moves.state(file, place) == BEGUN and is_left_from_a_move(file, place)

    def _move(self, source: Path, place: Path) -> None:
        resume = self.moves.state(source, place) == BEGUN
        self.moves.write(source, place, BEGUN)
        try:
            move_file(source, place, resume=resume)
        except OSError as error:
            self.moves.write(source, place, FAILED)
            raise _trouble(error, source, place) from error
        self.moved.append(Moved(str(source), str(place)))
        self.moves.write(source, place, DONE)

    def _put_back(self, before: int) -> None:
        """Take back what went since; what can't be is moved, and said to be."""
        stranded = []
        for one in reversed(self.moved[before:]):
            try:
                move_file(Path(one.to), Path(one.path))
            except OSError as error:
                stranded.append(one)
                self.skipped.append(
                    Skip(one.path, PARTED, f"it is in {one.to}, its photo stays: {error.strerror}")
                )
            else:
                with suppress(StorageError):
                    self.moves.write(Path(one.path), Path(one.to), FAILED)
        self.moved[before:] = reversed(stranded)


def _trouble(error: OSError, source: Path, place: Path) -> PhotoError | StorageError:
    """Tell whose fault it is: a file that can't go stays; a place that takes no more ends the run."""
    said = error.strerror or str(error)
    if isinstance(error, SourceStays):
        return PhotoError(STUCK, f"{source} can't be taken from its folder: {said}")
    if isinstance(error, FileExistsError):
        return PhotoError(EXISTS, f"there is another file {place}")
    if error.errno in _NO_ROOM:
        return StorageError(f"can't write to {place.parent}: {said}", hint="what was moved before is there")
    return PhotoError(SkipReason.UNREADABLE, said)


def _make_sure(photo: Photo, keep: Photo, *, spare: bool) -> None:
    """Raise PhotoError unless both files are what was compared, and two; spare: and the kept one has it all."""
    from search.duplicates import only_in
    from search.photos.decode import content_hash

    if spare and (more := only_in(photo, keep)):
        raise PhotoError(HAS_MORE, f"it has {' and '.join(more)}, which {keep.path} lacks")
    if os.path.lexists(keep.path) and os.path.lexists(photo.path) and os.path.samefile(keep.path, photo.path):
        raise PhotoError(ONE_FILE, f"it is {keep.path} by another name")
    for known in (keep, photo):
        if content_hash(known.path).hex() != known.content_hash:
            raise PhotoError(CHANGED, f"{known.path} changed since it was indexed")


def _relative(photo: Photo, file: Path) -> Path:
    """Where a file is below its root; its name alone where the root is the photo itself."""
    relative = Path(os.path.relpath(file, photo.root))
    return Path(file.name) if relative.parts[0] in ("..", ".") or not relative.parts else relative


def _numbered(file: Path, stem: str, number: int) -> Path:
    """Give a photo's file, or a sidecar's, another name: "a (2).jpg", "a (2).jpg.xmp"."""
    return file if number == 1 else file.with_name(f"{stem} ({number}){file.name[len(stem) :]}")
