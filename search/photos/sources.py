"""Where photos lie: in folders of this machine, in tar files, on object storage.

A photo in a tar file is named like one in a folder, `/data/00001.tar/000000012.jpg`, one on object storage by its
address, `s3://bucket/folder/photo.jpg`. Files in folders are left to those who open them by their path; of all others
the bytes come from here, at most 256 MB of one photo.

A tar file on object storage is read from its beginning to its end, into a temporary file, when photos of it are to be
read, and its list is kept: an unchanged one is not read again. One photo of it that is asked for is read by itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any, BinaryIO, TypeAlias

from search import objects
from search.addresses import is_flat, is_remote, tars
from search.errors import PhotoError, SourceAway, StorageError
from search.files import atomic_write
from search.photos.scan import OnError, ScanOptions, has_photo_suffix, is_wanted, scan
from search.photos.tars import MOST_BYTES, Member, listed
from search.types import FileStat, PassedOver, SkipReason

Content: TypeAlias = Callable[[], tuple[bytes, FileStat]]
"""Reads a photo: its bytes, and the file they are of.   Raises PhotoError, SourceAway."""

_KEPT_BYTES = 2 << 30  # of tar files from elsewhere in temporary files; the one in use is there however large
_KEPT_LISTS = 64  # of tar files in memory
_AT_ONCE = 1 << 24  # bytes that one request asks for
_DEFAULT = ScanOptions()
_CHANGED = ("LastModified", "last_modified", "mtime", "modified", "updated", "created")
_KEYS = ("ETag", "etag", "md5Hash", "content_md5", "md5", "checksum", "generation")
_LATEST_S = 2**33


class _Bytes:
    """A file to read from, open as long as somebody has it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __del__(self) -> None:
        os.close(self._descriptor)

    def read(self, size: int, offset: int) -> bytes:
        return os.pread(self._descriptor, size, offset)

    def opened(self) -> BinaryIO:
        """Return it as a file, at its beginning; one at a time."""
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        return os.fdopen(os.dup(self._descriptor), "rb")


@dataclass(slots=True)
class _Tar:
    """A tar file that was listed.   bytes: of it; None: it is far away and only its list is here."""

    stat: FileStat
    members: dict[str, Member] = field(default_factory=dict)
    trouble: str = ""
    bytes: _Bytes | None = None

    @property
    def taken(self) -> int:
        """Bytes of the temporary disk."""
        return self.stat.size_bytes if self.bytes and is_remote(self.stat.path) else 0


@dataclass(slots=True)
class _Turn:
    """Who looks into a tar file does it alone.   away: when it last could not be reached, and why."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    away: tuple[float, SourceAway] | None = None


class Sources:
    """Lists and reads photos wherever they lie; safe to use from several threads.

    offline: whether no network may be used.   lists: a folder where the lists of tar files on object storage are kept.
    """

    def __init__(self, *, offline: bool = False, lists: Path | None = None) -> None:
        self._offline = offline
        self._lists = lists
        self._lock = threading.Lock()
        self._open: OrderedDict[str, _Tar] = OrderedDict()
        self._turns: dict[str, _Turn] = {}

    # ---- what is there

    def kind(self, path: str) -> str | None:
        """Return "folder" for what holds photos, a tar file too, "file" for a file, None where nothing is.

        "other" is what is neither.   Raises SourceAway.
        """
        if (tar := self.tar_of(path)) is not None:
            if not self._is_tar(tar):
                return None
            if path == tar:
                return "folder"
            inside = path[len(tar) + 1 :]
            try:
                members = self._tar(tar).members
            except OSError:  # what is in it is not known; who lists it is told why
                return "file"
            return "file" if inside in members else "folder" if _is_folder(inside, members) else None
        if is_remote(path):
            return self._kind_of_object(path)
        try:
            mode = os.stat(path).st_mode
        except (OSError, ValueError):
            return None
        return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "other"

    def tar_of(self, path: str) -> str | None:
        """Return the tar file that a path names or leads into, None for any other.   Raises SourceAway."""
        return next((start for start in tars(path) if self._is_known(start) or self._is_tar(start)), None)

    def _is_known(self, path: str) -> bool:
        """Whether something was a tar file when it was asked for, so that each photo need not ask again."""
        return is_remote(path) and path in self._open

    def is_plain(self, path: str) -> bool:
        """Whether a photo is a file of this machine, which its path opens."""
        return not is_remote(path) and self.tar_of(path) is None

    def is_there(self, root: str) -> bool:
        """Whether a root can be looked at now."""
        try:
            return self.kind(root) is not None
        except (SourceAway, OSError):
            return False

    def is_online(self, root: str) -> bool:
        """Whether a root is there with something in it; an empty folder may be a mount point whose drive is away.

        A tar file that is not there is missed only if what it lay in is.
        """
        try:
            if is_remote(root):
                kind = self._kind_of_object(root)
                # A folder that object storage knows has something in it; its list may have millions of names.
                return bool(self._names(root)) if kind == "folder" and not is_flat(root) else kind is not None
            if os.path.isfile(root):
                return True
            with os.scandir(root) as entries:
                return any(True for _ in entries)
        except (OSError, SourceAway):
            return False

    def scan(
        self,
        path: str,
        options: ScanOptions = _DEFAULT,
        *,
        on_error: OnError | None = None,
        passed_over: Counter[PassedOver] | None = None,
    ) -> Iterator[FileStat]:
        """Yield the photos below a path as `search.photos.scan.scan` does, wherever they lie.

        The change time of what is no file of a folder stands for its state, or for that of its tar file. What is left
        out is counted in folders alone.
        Raises SourceAway.
        """
        tell = on_error or (lambda _path, _error: None)
        if (tar := self.tar_of(path)) is not None:
            return self._in_tar(tar, path[len(tar) + 1 :], options, tell)
        if is_remote(path):
            return self._below(path, options, tell)
        return scan(path, options, on_error=on_error, passed_over=passed_over)

    def stat(self, path: str) -> FileStat:
        """Return what `scan` tells of one photo that is no plain file.   Raises OSError, SourceAway."""
        if (tar := self.tar_of(path)) is not None:
            found = self._tar(tar)
            member = found.members.get(path[len(tar) + 1 :])
            if member is None:
                raise FileNotFoundError(f"{path} is not there")
            return _of_member(found, member)
        about = self._about(path)
        if about.get("type") == "directory":
            raise IsADirectoryError(f"{path} is a folder")
        return _of_object(path, about)

    # ---- reading

    def content(self, file: FileStat | str, *, whole: bool = False) -> Content | None:
        """Return what reads a photo, None where its path opens it.

        file: as `scan` told it, or a path of which nothing is known yet.   whole: more of its tar file will be read.
        """
        path = file if isinstance(file, str) else file.path
        if not is_remote(path) and not tars(path):
            return None
        known = None if isinstance(file, str) else file
        if is_remote(path) or self.tar_of(path) is not None:
            return lambda: self._read(path, known, whole=whole)
        return None

    def read(self, path: str) -> tuple[bytes, FileStat]:
        """Return a photo that is no plain file.   Raises PhotoError, SourceAway."""
        return self._read(path, None, whole=False)

    def content_hash(self, file: FileStat | str) -> bytes:
        """Return the SHA-256 of a photo, 32 bytes.   Raises PhotoError, SourceAway."""
        if (read := self.content(file, whole=not isinstance(file, str))) is not None:
            return hashlib.sha256(read()[0]).digest()
        from search.photos.decode import content_hash

        return content_hash(file if isinstance(file, str) else file.path)

    def _read(self, path: str, known: FileStat | None, *, whole: bool) -> tuple[bytes, FileStat]:
        try:
            if (tar := self.tar_of(path)) is not None:
                data, found = self._read_member(tar, path, known, whole=whole)
            else:
                found = known or self.stat(path)
                if found.size_bytes > MOST_BYTES:
                    detail = f"{found.size_bytes} bytes; the limit on object storage is {MOST_BYTES}"
                    raise PhotoError(SkipReason.TOO_LARGE, detail)
                # Without an end fsspec asks for its size before. A byte more shows that it grew.
                data = self._fetched(path, 0, found.size_bytes + 1) if found.size_bytes else b""
        except OSError as error:
            raise PhotoError(SkipReason.UNREADABLE, error.strerror or str(error)) from error
        if len(data) != found.size_bytes:
            raise PhotoError(SkipReason.UNSTABLE, "changed since it was listed")
        return data, found

    def _read_member(self, path: str, name: str, known: FileStat | None, *, whole: bool) -> tuple[bytes, FileStat]:
        tar = self._tar(path, as_of=known.ctime_ns if known else None, whole=whole)
        member = tar.members.get(name[len(path) + 1 :])
        if member is None:
            raise FileNotFoundError(f"{name} is not in the tar file")
        if member.why:
            raise PhotoError(*member.why)
        end = member.offset + member.size_bytes
        if tar.bytes is None:
            return self._fetched(path, member.offset, end), _of_member(tar, member)
        return tar.bytes.read(member.size_bytes, member.offset), _of_member(tar, member)

    # ---- tar files

    def _is_tar(self, path: str) -> bool:
        return self._kind_of_object(path) == "file" if is_remote(path) else os.path.isfile(path)

    def _tar(self, path: str, *, as_of: int | None = None, whole: bool = False) -> _Tar:
        """Return a tar file, listed.

        as_of: its state, where that is known; else it is asked for.   whole: much of it will be read.
        """
        came = monotonic()
        with self._lock:
            turn = self._turns.setdefault(path, _Turn())
        with turn.lock:
            if (
                turn.away and turn.away[0] >= came
            ):  # whoever waited for it would now try as long, one after the other
                raise SourceAway(turn.away[1].message, hint=turn.away[1].hint)
            try:
                found = self._looked_into(path, self._open.get(path), as_of, whole=whole)
            except SourceAway as error:
                turn.away = monotonic(), error
                raise
            with self._lock:
                self._open[path] = found
                self._open.move_to_end(path)
                self._make_room()
            return found

    def _looked_into(self, path: str, found: _Tar | None, as_of: int | None, *, whole: bool) -> _Tar:
        if found is None or found.stat.ctime_ns != as_of:
            now = self._state(path)
            found = found if found and found.stat == now else self._listed(now)
        return self._listed(found.stat, anew=True) if whole and found.bytes is None else found

    def _make_room(self) -> None:
        """Let go of those that were used least lately; who reads one still has it until he is done."""
        while len(self._open) > 1 and (
            len(self._open) > _KEPT_LISTS or sum(tar.taken for tar in self._open.values()) > _KEPT_BYTES
        ):
            self._open.popitem(last=False)

    def _state(self, path: str) -> FileStat:
        if is_remote(path):
            return _of_object(path, self._about(path))
        found = os.stat(path)
        changed = _digest(found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        return FileStat(path, found.st_size, found.st_mtime_ns, changed)

    def _listed(self, state: FileStat, *, anew: bool = False) -> _Tar:
        if not is_remote(state.path):
            return _list(state, _Bytes(os.open(state.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))))
        kept = _kept_list(self._lists, state)
        if kept is not None and not anew:
            return kept
        tar = _list(state, self._copied(state))
        if self._lists is not None and kept is None:
            _keep_list(self._lists, tar)
        return tar

    def _copied(self, state: FileStat) -> _Bytes:
        """Read a tar file to its end, in order, into a temporary file."""
        import tempfile

        with tempfile.TemporaryFile(prefix="search-", buffering=0) as copy:
            for start in range(0, state.size_bytes, _AT_ONCE):
                end = min(start + _AT_ONCE, state.size_bytes)
                part = self._fetched(state.path, start, end)
                if len(part) != end - start:
                    raise OSError("it became shorter while it was read")
                _put(copy, part, state)
            if self._state(state.path) != state:
                raise OSError("it changed while it was read")
            return _Bytes(os.dup(copy.fileno()))

    def _in_tar(self, path: str, inside: str, options: ScanOptions, tell: OnError) -> Iterator[FileStat]:
        try:
            tar = self._tar(path)
        except OSError as error:
            tell(path, error)
            return
        if inside in tar.members:
            names = [inside]
        else:
            below = inside and inside + "/"
            excluded = tuple(pattern.rstrip("/") for pattern in options.exclude)
            names = sorted(
                name
                for name in tar.members
                if name.startswith(below) and _are_wanted(name[len(below) :], excluded, options)
            )
        yield from (_of_member(tar, tar.members[name]) for name in names)
        if tar.trouble:
            tell(path, OSError(tar.trouble))

    # ---- object storage

    def _about(self, path: str) -> dict[str, Any]:
        """Return what object storage says of an object.   Raises FileNotFoundError, PermissionError, SourceAway."""
        objects.check_permitted(path, offline=self._offline)
        files, key = objects.reach(path)
        found: dict[str, Any] = objects.asked(path, lambda: files.info(key))
        return found

    def _kind_of_object(self, path: str) -> str | None:
        try:
            return "folder" if self._about(path).get("type") == "directory" else "file"
        except FileNotFoundError:
            return None
        except PermissionError as error:
            raise SourceAway(f"{path} may not be looked at: {error}") from error

    def _names(self, path: str) -> list[dict[str, Any]]:
        """Return what lies in a folder of object storage; nothing if it is not there.   Raises SourceAway."""
        objects.check_permitted(path, offline=self._offline)
        files, key = objects.reach(path)
        try:
            found: list[dict[str, Any]] = objects.asked(path, lambda: files.ls(key, detail=True))
        except FileNotFoundError:
            return []
        return found

    def _below(self, root: str, options: ScanOptions, tell: OnError) -> Iterator[FileStat]:
        """Yield the photos below an address in the order of their names; one folder is asked for at a time."""
        try:
            about = self._about(root)
        except OSError as error:
            tell(root, error)
            return
        if about.get("type") != "directory":
            yield _of_object(root, about)
            return
        excluded = tuple(pattern.rstrip("/") for pattern in options.exclude)
        stack: list[tuple[str, dict[str, Any]]] = [("", {"type": "directory"})]
        while stack:
            name, about = stack.pop()
            if about.get("type") != "directory":
                yield _of_object(f"{root}/{name}", about)
                continue
            prefix = name and name + "/"
            folder = f"{root}/{name}".rstrip("/")
            try:
                inside = self._names(folder)
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

    def _fetched(self, path: str, start: int, end: int) -> bytes:
        if start == end:  # no range says so, and what is no range asks for everything
            return b""
        objects.check_permitted(path, offline=self._offline)
        files, key = objects.reach(path)
        data: bytes = objects.asked(path, lambda: files.cat_file(key, start=start, end=end))
        return data


def _put(copy: BinaryIO, part: bytes, state: FileStat) -> None:
    """Raises StorageError: for each photo of the tar file it would be read anew."""
    try:
        while part:
            part = part[copy.write(part) :]
    except OSError as error:
        import tempfile

        said = f"{state.path} ({state.size_bytes} bytes) has no room in {tempfile.gettempdir()}: {error.strerror}"
        raise StorageError(said, hint="TMPDIR says where such copies lie for as long as they are read") from error


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


def _are_wanted(name: str, excluded: tuple[str, ...], options: ScanOptions) -> bool:
    """Whether the walk would come to a name in a tar file, through all the folders before it."""
    parts = name.split("/")
    return all(
        is_wanted(
            part, "".join(f"{one}/" for one in parts[:depth]), excluded, include_hidden=options.include_hidden
        )
        for depth, part in enumerate(parts)
    )


def _is_folder(inside: str, members: dict[str, Member]) -> bool:
    return any(name.startswith(inside + "/") for name in members)


def _of_member(tar: _Tar, member: Member) -> FileStat:
    path = f"{tar.stat.path}/{member.name}"
    return FileStat(path, member.size_bytes, member.mtime_ns, tar.stat.ctime_ns)


def _of_object(path: str, about: dict[str, Any]) -> FileStat:
    size, mtime_ns = int(about.get("size") or 0), _mtime_ns(about)
    key = next((str(about[name]) for name in _KEYS if about.get(name)), "")
    return FileStat(path, size, mtime_ns, _digest(size, mtime_ns, key))


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


def _digest(*state: object) -> int:
    """Return one number, of 63 bits, that differs whenever any of these does."""
    digest = hashlib.blake2b(repr(state).encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


def _list(state: FileStat, content: _Bytes) -> _Tar:
    with content.opened() as file:
        members, trouble = listed(file, state.size_bytes)
    return _Tar(state, members, trouble, content)


# ---- lists that are kept


def _place(folder: Path, path: str) -> Path:
    return folder / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}.json"


def _kept_list(folder: Path | None, state: FileStat) -> _Tar | None:
    """Return the list of a tar file in this state, if it was kept."""
    if folder is None:
        return None
    try:
        said = json.loads(_place(folder, state.path).read_bytes())
        if said["of"] != list(state):
            return None
        members = [
            Member(name, size, mtime_ns, offset, (why[0], why[1]) if why else None)
            for name, size, mtime_ns, offset, why in said["members"]
        ]
        return _Tar(state, {member.name: member for member in members}, str(said["trouble"]))
    except (OSError, ValueError, TypeError, KeyError, IndexError):
        return None


def _keep_list(folder: Path, tar: _Tar) -> None:
    """Keep a list if that can be: without it the tar file is read again."""
    members = [astuple(member) for member in tar.members.values()]
    said = {"of": list(tar.stat), "trouble": tar.trouble, "members": members}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(_place(folder, tar.stat.path), json.dumps(said).encode())
    except OSError:
        return
