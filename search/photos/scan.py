"""The walk: which photo files lie under a folder. Opens no file and imports nothing but the standard library.

What is skipped and what is unknown are kept apart. Hidden, excluded and junk names are skipped in silence.
A folder that can't be listed or a file that can't be examined is reported, because nobody may conclude
that the photos below it are gone.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import chain
from operator import itemgetter
from typing import TypeAlias

from search.photos import sidecars
from search.photos.suffixes import PHOTO_SUFFIXES, VIDEO_SUFFIXES
from search.types import FileStat, PassedOver

OnError: TypeAlias = Callable[[str, OSError], None]

# What cameras, network drives and operating systems leave between photos: previews, bins, resource forks.
_JUNK_PREFIXES = ("._", ".trash")
_JUNK_NAMES = frozenset(
    (
        "@eadir",
        "#recycle",
        "@recycle",
        "@recently-snapshot",
        "$recycle.bin",
        "recycler",
        "system volume information",
        "lost+found",
        "thumbs.db",
        "desktop.ini",
        "__macosx",
        ".ds_store",
        ".thumbnails",
        ".spotlight-v100",
        ".fseventsd",
        ".temporaryitems",
        ".documentrevisions-v100",
    )
)


@dataclass(frozen=True, slots=True)
class ScanOptions:
    """What the walk leaves out.

    exclude: globs (fnmatch), each tried on the path relative to the root, with "/" between names, and on
    every single name, of files and folders; `*` also crosses "/".   include_hidden: leading dots too.
    follow_symlinks: links to files and folders too; each folder is still entered only once.
    """

    exclude: tuple[str, ...] = ()
    include_hidden: bool = False
    follow_symlinks: bool = False


_DEFAULT = ScanOptions()


def scan(
    root: str,
    options: ScanOptions = _DEFAULT,
    *,
    on_error: OnError | None = None,
    passed_over: Counter[PassedOver] | None = None,
) -> Iterator[FileStat]:
    """Yield the photo files under a folder, or the one file named, as they are met.

    The order is that of their paths below the root, with / between folders, so that it can be held against a sorted
    list; one folder's names are held at a time, not the tree's.
    root: a folder, or a file, which is yielded whatever its suffix.   on_error: gets the path of a file or
    folder that can't be examined, and why; the walk goes on, and everything at or below that path is unknown.
    passed_over: counts what is left out on purpose, a folder as one.
    Only regular files are yielded. Names that are no valid text survive (surrogateescape). The change time of a photo
    with a sidecar has that one's in it.
    """
    return chain.from_iterable(_Walk(options, on_error or _ignore, passed_over).run(root))


def _ignore(path: str, error: OSError) -> None:
    """Stand in for the caller who doesn't ask."""


_Entry: TypeAlias = tuple[str, os.DirEntry[str], str | None]
_NAME = itemgetter(0)
_AT_ONCE = 256  # files examined before they are handed out


class _Walk:
    """One walk: its options, whom to tell of errors, what counts the rest, and the folders already entered."""

    def __init__(self, options: ScanOptions, on_error: OnError, passed_over: Counter[PassedOver] | None) -> None:
        self._options = options
        self._on_error = on_error
        self._passed_over = passed_over
        self._entered: set[tuple[int, int]] = set()
        self._beside: dict[str, str] = {}  # sidecars of photos that wait to be examined
        self._excluded = tuple(pattern.rstrip("/") for pattern in options.exclude)

    def run(self, root: str) -> Iterator[list[FileStat]]:
        """Yield files as they are met, some at a time."""
        try:
            found = os.stat(root)
        except OSError as error:
            self._on_error(root, error)
            return
        if stat.S_ISREG(found.st_mode):
            changed = sidecars.stamped(found.st_ctime_ns, sidecars.of(root))
            yield [FileStat(root, found.st_size, found.st_mtime_ns, changed)]
        elif stat.S_ISDIR(found.st_mode):
            yield from self._below(root)

    def _below(self, root: str) -> Iterator[list[FileStat]]:
        # A stack rather than recursion: a tree may be deeper than Python's call stack.
        stack = self._list(root, "")
        while stack:
            _, entry, below = stack[-1]
            if below is None:
                yield self._look_at(stack)
            else:
                del stack[-1]
                stack += self._list(entry.path, below)

    def _look_at(self, stack: list[_Entry]) -> list[FileStat]:
        """Take the next files off the stack, up to the next folder, and examine each."""
        follow, is_regular = self._options.follow_symlinks, stat.S_ISREG
        files: list[FileStat] = []
        while stack and stack[-1][2] is None and len(files) < _AT_ONCE:
            entry = stack.pop()[1]
            try:
                found = entry.stat(follow_symlinks=follow)
            except OSError as error:
                self._on_error(entry.path, error)
                continue
            if is_regular(found.st_mode):
                changed = found.st_ctime_ns
                if self._beside:
                    changed = sidecars.stamped(changed, self._beside.pop(entry.path, None))
                files.append(FileStat(entry.path, found.st_size, found.st_mtime_ns, changed))
            elif self._passed_over is not None and stat.S_ISLNK(found.st_mode):
                self._passed_over[PassedOver.LINKS] += 1
        return files

    def _list(self, folder: str, prefix: str) -> list[_Entry]:
        """Return folders and photos in a folder, the last first: name to sort by, entry, a folder's relative path."""
        try:
            if self._seen(folder):
                return []
            with os.scandir(folder) as entries:
                found, has_sidecars = self._choose(entries, prefix)
            if has_sidecars:
                beside = sidecars.among(os.listdir(folder))
                self._beside |= {os.path.join(folder, name): os.path.join(folder, beside[name]) for name in beside}
        except OSError as error:
            self._on_error(folder, error)
            return []
        found.sort(key=_NAME, reverse=True)
        return found

    def _choose(self, entries: Iterable[os.DirEntry[str]], prefix: str) -> tuple[list[_Entry], bool]:
        """Return what `_list` does, in any order, and whether there are sidecars."""
        found: list[_Entry] = []
        has_sidecars = False
        plain = not self._excluded
        for entry in entries:
            name = entry.name
            try:  # nearly all are plain files with the ending of photos, and no name of junk has one
                if (
                    plain
                    and name[0] != "."
                    and name[name.rfind(".") :].lower() in PHOTO_SUFFIXES
                    and entry.is_file(follow_symlinks=False)
                ):
                    found.append((name, entry, None))
                    continue
            except OSError:
                pass  # looked at again, and told
            has_sidecars = has_sidecars or name.endswith(sidecars.SUFFIXES)
            try:
                if (wanted := self._wanted(entry, prefix)) is not None:
                    found.append(wanted)
                elif self._passed_over is not None and (kind := self._kind_left_out(entry, prefix)) is not None:
                    self._passed_over[kind] += 1
            except OSError as error:
                if self._wants(name, prefix):
                    self._on_error(entry.path, error)
        return found, has_sidecars

    def _wanted(self, entry: os.DirEntry[str], prefix: str) -> _Entry | None:
        """Return what `_list` does of one entry, None if it is left out.   Raises OSError."""
        name = entry.name
        # The kind comes with the listing; only what is neither, or a link to follow, costs a look.
        is_folder = entry.is_dir(follow_symlinks=self._options.follow_symlinks)
        if not (is_folder or has_photo_suffix(name)) or not self._wants(name, prefix):
            return None
        return (name + "/", entry, f"{prefix}{name}/") if is_folder else (name, entry, None)

    def _kind_left_out(self, entry: os.DirEntry[str], prefix: str) -> PassedOver | None:
        """Say what something is that is left out; None for what nobody would miss, such as junk and sidecars.

        Raises OSError.
        """
        name = entry.name
        if name.endswith(sidecars.SUFFIXES) or not is_wanted(name, "", include_hidden=True):
            return None
        if not is_wanted(name, prefix, self._excluded, include_hidden=True):
            return PassedOver.EXCLUDED
        if name.startswith(".") and not self._options.include_hidden:
            return PassedOver.HIDDEN
        if entry.is_symlink() and not self._options.follow_symlinks:
            return PassedOver.LINKS
        return PassedOver.VIDEOS if os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES else PassedOver.OTHERS

    def _seen(self, folder: str) -> bool:
        """Remember a folder; say whether it was entered before.

        Only links are tracked so: some network drives hand out the same inode twice, and a plain walk must
        not lose a folder to that.
        """
        if not self._options.follow_symlinks:
            return False
        found = os.stat(folder)
        key = (found.st_dev, found.st_ino)
        if key in self._entered:
            return True
        self._entered.add(key)
        return False

    def _wants(self, name: str, prefix: str) -> bool:
        return is_wanted(name, prefix, self._excluded, include_hidden=self._options.include_hidden)


def is_wanted(name: str, prefix: str, excluded: Iterable[str] = (), *, include_hidden: bool = False) -> bool:
    """Whether the walk takes a name in a folder; prefix: the folder below the root, with a / at its end."""
    folded = name.lower() if name.isascii() else name.casefold()
    if folded in _JUNK_NAMES or folded.startswith(_JUNK_PREFIXES):
        return False
    if name.startswith(".") and not include_hidden:
        return False
    return not any(fnmatch(name, glob) or fnmatch(prefix + name, glob) for glob in excluded)


def has_photo_suffix(name: str) -> bool:
    """Whether a name is one that photos have."""
    stem, dot, suffix = name.rpartition(".")
    return bool(stem) and dot + suffix.lower() in PHOTO_SUFFIXES
