"""Indexed folders: photos in them forgotten, or the whole of one somewhere else now."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from search.errors import PhotoError, UsageError
from search.library.seams import real, spellings

if TYPE_CHECKING:
    from search.catalog import Scope, Writer
    from search.library.seams import Seams
    from search.types import Photo

_SAMPLE = 20  # photos looked at before an indexed folder is taken to be somewhere else


def remove(seams: Seams, paths: Iterable[str | os.PathLike[str]]) -> int:
    """See Library.remove."""
    with seams.catalog.writing() as writer:
        scopes = []
        for path in paths:
            found = [scope for spelling in spellings(path) if (scope := writer.source(spelling))]
            if not found:
                raise UsageError(f"{os.fspath(path)} is in no indexed folder")
            scopes += found
        removed = sum(writer.remove(scope) for scope in scopes)
        seams.index.publish(writer)
    return removed


def move(seams: Seams, old: str | os.PathLike[str], new: str | os.PathLike[str], *, force: bool) -> int:
    """See Library.move_root."""
    target = real(new)
    if not os.path.isdir(target):
        raise UsageError(f"there is no folder {target}")
    with seams.catalog.writing() as writer:
        scope = _whole_root(writer, old)
        if not force:
            _recognise(seams.catalog.sample(scope, _SAMPLE), scope, target)
        moved = writer.move_root(scope, target)
        if seams.catalog.publication().number is not None:
            seams.index.publish(writer, always=True)  # a catalog made anew from it must know the new place
    return moved


def _whole_root(writer: Writer, path: str | os.PathLike[str]) -> Scope:
    """Return the scope of an indexed folder, named by itself. Raises UsageError."""
    scope = next(filter(None, map(writer.source, spellings(path))), None)
    if scope is None:
        raise UsageError(f"{os.fspath(path)} is no indexed folder", hint="'search root list' shows them")
    if scope.relative != ".":
        raise UsageError(f"{os.fspath(path)} is only a part of {scope.root}; only the whole of it can be moved")
    return scope


def _recognise(photos: list[Photo], scope: Scope, target: str) -> None:
    """Raise UsageError unless a folder holds these photos of a scope at their places."""
    strange = [photo for photo in photos if not _is_below(photo, target)]
    if strange:
        raise UsageError(
            f"{len(strange)} of {len(photos)} photos looked at are not below {target} as they were below "
            f"{scope.root}, the first is {os.path.relpath(strange[0].path, strange[0].root)}",
            hint="--force moves it all the same",
        )


def _is_below(photo: Photo, folder: str) -> bool:
    """Whether a folder holds this very photo at its place."""
    from search.photos.decode import content_hash

    path = os.path.join(folder, os.path.relpath(photo.path, photo.root))
    try:
        same_size = os.stat(path).st_size == photo.size_bytes
        return same_size and content_hash(path).hex() == photo.content_hash
    except (OSError, PhotoError):
        return False
