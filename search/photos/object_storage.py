"""Photos on object storage: which there are, and parts of them. Asked a few times and then no more (search.objects)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from search import objects
from search.errors import SourceAway
from search.photos.scan import OnError, ScanOptions, has_photo_suffix, is_wanted
from search.types import FileStat

_CHANGED = ("LastModified", "last_modified", "mtime", "modified", "updated", "created")
_KEYS = ("ETag", "etag", "md5Hash", "content_md5", "md5", "checksum", "generation")
_LATEST_S = 2**33


class ObjectStorage:
    """Whatever fsspec reaches.   offline: whether no network may be used."""

    def __init__(self, *, offline: bool = False) -> None:
        self._offline = offline

    def about(self, path: str) -> dict[str, Any]:
        """Return what object storage says of an object.   Raises FileNotFoundError, PermissionError, SourceAway."""
        objects.check_permitted(path, offline=self._offline)
        files, key = objects.reach(path)
        found: dict[str, Any] = objects.asked(path, lambda: files.info(key))
        return found

    def kind(self, path: str) -> str | None:
        """Return "folder", "file", or None where nothing is.   Raises SourceAway."""
        try:
            return "folder" if self.about(path).get("type") == "directory" else "file"
        except FileNotFoundError:
            return None
        except PermissionError as error:
            raise SourceAway(f"{path} may not be looked at: {error}") from error

    def names(self, path: str) -> list[dict[str, Any]]:
        """Return what lies in a folder of object storage; nothing if it is not there.   Raises SourceAway."""
        objects.check_permitted(path, offline=self._offline)
        files, key = objects.reach(path)
        try:
            found: list[dict[str, Any]] = objects.asked(path, lambda: files.ls(key, detail=True))
        except FileNotFoundError:
            return []
        return found

    def below(self, root: str, options: ScanOptions, tell: OnError) -> Iterator[FileStat]:
        """Yield the photos below an address in the order of their names; one folder is asked for at a time.

        Raises SourceAway.
        """
        try:
            about = self.about(root)
        except OSError as error:
            tell(root, error)
            return
        if about.get("type") != "directory":
            yield of_object(root, about)
            return
        excluded = tuple(pattern.rstrip("/") for pattern in options.exclude)
        stack: list[tuple[str, dict[str, Any]]] = [("", {"type": "directory"})]
        while stack:
            name, about = stack.pop()
            if about.get("type") != "directory":
                yield of_object(f"{root}/{name}", about)
                continue
            prefix = name and name + "/"
            folder = f"{root}/{name}".rstrip("/")
            try:
                inside = self.names(folder)
            except PermissionError as error:
                tell(folder, error)
                continue
            found = [
                (prefix + base, one)
                for one in inside
                if (base := _base(one, tell, folder)) and _takes(base, one, prefix, excluded, options)
            ]
            found.sort(
                key=lambda pair: pair[0] + ("/" if pair[1].get("type") == "directory" else ""), reverse=True
            )
            stack += found

    def fetched(self, path: str, start: int, end: int) -> bytes:
        """Return a part of an object, less where it ends before.   Raises FileNotFoundError, SourceAway."""
        if start == end:  # no range says so, and what is no range asks for everything
            return b""
        objects.check_permitted(path, offline=self._offline)
        files, key = objects.reach(path)
        data: bytes = objects.asked(path, lambda: files.cat_file(key, start=start, end=end))
        return data


def _base(about: dict[str, Any], tell: OnError, folder: str) -> str:
    """Return the last name of an object in a folder, "" for one that no path can name."""
    key = str(about.get("name", "")).rstrip("/")
    base = key.rpartition("/")[2]
    is_folder = about.get("type") == "directory"
    if key == objects.reach(folder)[1].rstrip("/"):  # its own marker, or, as a folder in it, one without a name
        base = ""
    elif not is_folder and str(about["name"]).endswith("/"):
        return ""
    if (base in ("", ".", "..") and (base or is_folder)) or "\0" in base:
        tell(f"{folder}/%2E", OSError(f"{key!r} holds what is no name of a file"))
        return ""
    return base


def _takes(base: str, about: dict[str, Any], prefix: str, excluded: tuple[str, ...], options: ScanOptions) -> bool:
    is_folder = about.get("type") == "directory"
    taken = is_folder or has_photo_suffix(base)
    return taken and is_wanted(base, prefix, excluded, include_hidden=options.include_hidden)


def of_object(path: str, about: dict[str, Any]) -> FileStat:
    """Return an object as the walk sees a file; its change time stands for its state."""
    size, mtime_ns = int(about.get("size") or 0), _mtime_ns(about)
    key = next((str(about[name]) for name in _KEYS if about.get(name)), "")
    return FileStat(path, size, mtime_ns, state_number(size, mtime_ns, key))


def _mtime_ns(about: dict[str, Any]) -> int:
    """Return when an object was written, 0 where its storage does not say.

    Whole seconds: some storage tells less of them when asked for one object than in a list.
    """
    said = next((about[name] for name in _CHANGED if about.get(name)), 0)
    if isinstance(said, str):
        try:
            said = datetime.fromisoformat(said)
        except ValueError:
            return 0
    if isinstance(said, datetime):
        since = (said if said.tzinfo else said.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
        return (since.days * 86_400 + since.seconds) * 10**9
    return int(said) * 10**9 if isinstance(said, int | float) and abs(said) < _LATEST_S else 0


def state_number(*state: object) -> int:
    """Return one number, of 63 bits, that differs whenever any of these does."""
    digest = hashlib.blake2b(repr(state).encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1
