"""Files that were moved out of the way, moved back to where they were: nothing overwritten, the newest move first."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from search.duplicates import Moved, MoveReport
from search.errors import PhotoError, UsageError
from search.files import is_left_from_a_move, move_file
from search.library.moves import BEGUN, NAME, UNDOING, UNDONE, Moves
from search.types import Photo, Progress, Skip, SkipReason, Stage

if TYPE_CHECKING:
    import threading

EXISTS, MISSING, OFFLINE = "exists", "missing", "offline"
"""Why a file stays where it was moved to."""


def find_list(place: str | os.PathLike[str]) -> Path:
    """Return the list in a folder, or the one that is named. Raises UsageError where there is none."""
    path = Path(os.path.realpath(os.path.expanduser(place)))
    path = path / NAME if path.is_dir() else path
    if not path.is_file():
        raise UsageError(f"there is no list of moved files {path}", hint=f"--move-to writes one, {NAME}")
    return path


def put_back(
    path: Path,
    roots: Sequence[str],
    *,
    progress: Callable[[Progress], None],
    stop: threading.Event | None,
) -> MoveReport:
    """Move back what a list names; `Library.put_back` has the words.   roots: indexed folders."""
    moves = Moves(path)
    moved, skipped, pairs = [], [], moves.to_undo()
    for done, (source, place) in enumerate(pairs, start=1):
        if stop is not None and stop.is_set():
            break
        try:
            if _move_back(source, place, moves, roots):
                moved.append(Moved(str(place), str(source)))
        except PhotoError as error:
            skipped.append(Skip(str(place), error.reason, error.message))
        except OSError as error:
            skipped.append(Skip(str(place), SkipReason.UNREADABLE, error.strerror or str(error)))
        progress(Progress(Stage.MOVE, done, len(pairs)))
    stopped = stop is not None and stop.is_set()
    return MoveReport(tuple(moved), tuple(skipped), str(path), interrupted=stopped)


def _move_back(source: Path, place: Path, moves: Moves, roots: Sequence[str]) -> bool:
    """Move one file back; False if it is there already. Raises PhotoError, StorageError, OSError."""
    if not os.path.lexists(place):
        if os.path.lexists(source):
            return False
        raise PhotoError(MISSING, "it is neither there nor where it was")
    halfway = moves.state(source, place) in (BEGUN, UNDOING) and is_left_from_a_move(place, source)
    if os.path.lexists(source) and not halfway:
        raise PhotoError(EXISTS, f"there is another file {source}")
    if not source.parent.is_dir() and not any(
        source.is_relative_to(root) and os.path.isdir(root) for root in roots
    ):
        raise PhotoError(OFFLINE, f"there is no folder {source.parent}")
    moves.write(source, place, UNDOING)
    move_file(place, source, resume=halfway)
    moves.write(source, place, UNDONE)
    return True


def as_they_were(photos: Iterable[Photo]) -> list[int]:
    """Return the ids of those photos that were gone and are again the files they were."""
    from search.photos.decode import content_hash

    found = []
    for photo in photos:
        try:
            if photo.gone_at is not None and content_hash(photo.path).hex() == photo.content_hash:
                found.append(photo.id)
        except PhotoError:
            continue
    return found
