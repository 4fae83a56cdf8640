"""Which XMP file beside a photo belongs to it: IMG_1.jpg.xmp, else IMG_1.xmp. Imports nothing but the standard library.

The second name says only the stem. It is taken where one photo has that stem, or a RAW file and the picture its camera
made of it; of others nobody could tell whose it is.
"""

from __future__ import annotations

import contextlib
import functools
import os
import stat
from collections import Counter, defaultdict
from collections.abc import Iterable

from search.photos.suffixes import PHOTO_SUFFIXES, RAW_SUFFIXES

SUFFIXES = (".xmp", ".XMP")
"""How a sidecar's name ends."""

MAX_BYTES = 2**22
"""A packet beyond this is not looked at; those that editors write have a few kilobytes, some a few hundred."""

_STAMPS = 2**63


def among(names: Iterable[str]) -> dict[str, str]:
    """Return the sidecar of each photo that has one, of the names in a folder."""
    every = set(names)
    by_stem: dict[str, list[str]] = defaultdict(list)
    for name in every:
        stem, suffix = os.path.splitext(name)
        if suffix.lower() in PHOTO_SUFFIXES:
            by_stem[stem].append(name)
    found = {}
    for stem, photos in by_stem.items():
        shared = _first(stem, every) if _is_one_shot(photos) else None
        for name in photos:
            if sidecar := _first(name, every) or shared:
                found[name] = sidecar
    return found


def of(path: str) -> str | None:
    """Return the sidecar of one photo, as `among` tells it of the whole folder; it is listed only if need be."""
    stem = os.path.splitext(path)[0]
    if not any(os.path.lexists(name + suffix) for name in (path, stem) for suffix in SUFFIXES):
        return None
    folder, name = os.path.split(path)
    try:
        found = _among_listed(folder, os.stat(folder or ".").st_mtime_ns).get(name)
    except OSError:
        return None
    return found and os.path.join(folder, found)


def own(path: str) -> list[str]:
    """Return the sidecars that are a photo's alone, so that they can go where it goes; one shared by a pair is not."""
    folder, name = os.path.split(path)
    stem, found = os.path.splitext(name)[0], []
    if any(os.path.lexists(os.path.join(folder, stem + suffix)) for suffix in SUFFIXES) and _is_alone(
        folder, name
    ):
        found = [stem + suffix for suffix in SUFFIXES]
    places: dict[tuple[int, int], str] = {}  # where case says nothing, one file has both spellings
    for candidate in [*(name + suffix for suffix in SUFFIXES), *found]:
        with contextlib.suppress(OSError):
            place = os.path.join(folder, candidate)
            status = os.lstat(place)
            places.setdefault((status.st_dev, status.st_ino), place)
    return list(places.values())


def is_shared(path: str, sidecar: str) -> bool:
    """Whether a photo's sidecar has a name that says only the stem, which another photo has too."""
    by_stem = os.path.splitext(os.path.basename(sidecar))[0] == os.path.splitext(os.path.basename(path))[0]
    return by_stem and not _is_alone(*os.path.split(path))


def _is_alone(folder: str, name: str) -> bool:
    """Whether no other photo has this one's stem."""
    stem = os.path.splitext(name)[0]
    try:
        return _stems_listed(folder, os.stat(folder or ".").st_mtime_ns)[stem] <= 1
    except OSError:
        return False


def stamped(ctime_ns: int, sidecar: str | None) -> int:
    """Return a photo's change time with its sidecar's times and size in it, as long as that can be looked at.

    The sum differs whenever either file was changed, and when the sidecar came or went; the later of two times would
    not tell of an old sidecar that is gone.
    """
    if sidecar is None:
        return ctime_ns
    try:
        found = os.stat(sidecar)
    except (OSError, ValueError):
        return ctime_ns
    if not stat.S_ISREG(found.st_mode):
        return ctime_ns
    return (ctime_ns + found.st_ctime_ns + found.st_mtime_ns + found.st_size) % _STAMPS


def read(sidecar: str | None) -> bytes:
    """Return a sidecar's content; nothing where it can't be read, is too large or no file."""
    with contextlib.suppress(OSError, ValueError):
        if sidecar and stat.S_ISREG(os.stat(sidecar).st_mode):
            with open(sidecar, "rb") as file:
                content = file.read(MAX_BYTES + 1)
            return content if len(content) <= MAX_BYTES else b""
    return b""


def _first(name: str, every: set[str]) -> str | None:
    return next((name + suffix for suffix in SUFFIXES if name + suffix in every), None)


def _is_one_shot(photos: list[str]) -> bool:
    """Whether photos of one stem are one shot: a single file, or a RAW file with a picture made of it."""
    raw = sum(os.path.splitext(name)[1].lower() in RAW_SUFFIXES for name in photos)
    return len(photos) == 1 or (len(photos) == 2 and raw == 1)


@functools.lru_cache(maxsize=4)
def _stems_listed(folder: str, _: int) -> Counter[str]:
    """Count a folder's photos by their stems, listed anew when its time has changed."""
    parts = (os.path.splitext(name) for name in os.listdir(folder or "."))
    return Counter(stem for stem, suffix in parts if suffix.lower() in PHOTO_SUFFIXES)


@functools.lru_cache(maxsize=4)
def _among_listed(folder: str, _: int) -> dict[str, str]:
    """Return the sidecars of a folder, listed anew when its time has changed."""
    return among(os.listdir(folder or "."))
