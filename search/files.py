"""Files that are whole or not there: how this package writes anything that is not the catalog.

What is written has a temporary name beside its place until it is on the disk, `.NAME.HOST-PID-TOKEN.tmp`, or
with .xml or .bin at its end where what writes it insists. A process that dies leaves it; `sweep` knows by the name
that nobody is writing there any more.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

_LEFTOVER_S = 3600.0
# Another file system, or one without links; too many links; links forbidden there.
_NO_LINKS = {errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS, errno.EACCES}
_TEMPORARY = re.compile(r"\..+\.(?P<host>[0-9a-f]{8})-(?P<pid>\d{1,10})-[0-9a-f]{8}\.(?:tmp|xml|bin)")


def atomic_write(path: Path, data: bytes) -> None:
    """Put a file of this content in the place of `path`, durably: after a crash the old one is there or the new.

    Raises OSError; then the old file is as it was and nothing is left beside it.
    """
    atomic_write_parts(path, [data])


def atomic_write_parts(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Do what `atomic_write` does with a content that comes in parts, one after the other."""
    temporary = temporary_name(path)
    try:
        with temporary.open("xb") as file:
            file.writelines(parts)
        publish(temporary, path)
    except BaseException:
        discard(temporary)
        raise


def replace_beside(path: Path, data: bytes, *, like: os.stat_result | None) -> None:
    """Put a file of this content in the place of `path`: whole or not there, as `atomic_write`, but in bulk.

    like: the file that is replaced, for its permissions; None for a new file. A new one is not brought to the disk at
    once, as whoever writes very many can write them again; what somebody else wrote before is never lost.
    Raises OSError; then the old file is as it was and nothing is left beside it.
    """
    temporary = temporary_name(path)
    try:
        with temporary.open("xb") as file:
            file.write(data)
            if like is not None:
                file.flush()
                os.fsync(file.fileno())
        if like is not None:
            temporary.chmod(stat.S_IMODE(like.st_mode))
        temporary.replace(path)
    except BaseException:
        discard(temporary)
        raise


def temporary_name(path: Path) -> Path:
    """Return a name beside `path`, new at each call, for what will be published as `path`."""
    import secrets  # with what it imports in turn, more than a query that writes nothing should wait for

    return path.with_name(f".{path.name}.{_host()}-{os.getpid()}-{secrets.token_hex(4)}.tmp")


def publish(temporary: Path, path: Path) -> None:
    """Give a written file its own name once its content is on the disk.   Raises OSError."""
    fsync_file(temporary)
    temporary.replace(path)
    fsync_folder(path.parent)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a folder to fill, which is then put in the place of `path`: whole or not there.

    Whoever has a folder there already says by calling this that it may go; if it can't be replaced it stays.
    Raises OSError; then nothing is left beside it.
    """
    temporary = temporary_name(path)
    try:
        temporary.mkdir()
        yield temporary
        for inside in temporary.iterdir():
            fsync_file(inside)
        fsync_folder(temporary)
        _put_folder(temporary, path)
        fsync_folder(path.parent)
    finally:
        _discard_folder(temporary)


def _put_folder(temporary: Path, path: Path) -> None:
    """Rename a folder; one that is in its place moves aside first, as a folder with something in it must."""
    if not path.is_dir():
        temporary.rename(path)
        return
    aside = temporary_name(path)
    path.rename(aside)
    try:
        temporary.rename(path)
    except BaseException:
        aside.rename(path)
        raise
    _discard_folder(aside)


def _discard_folder(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


class SourceStays(OSError):
    """A file can't be taken from where it is: the place it was to go to is not to blame."""


def move_file(source: Path, target: Path, *, resume: bool = False) -> None:
    """Move a file to a name that nothing has, to another file system too; at any moment it is whole in one place.

    Cut short between the two, it is in both. resume: whoever knows that says so, and it is taken from the first.
    Raises SourceStays, FileExistsError where another file has the name, OSError; then all is as it was.
    """
    _check_can_leave(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    if not (resume and is_left_from_a_move(source, target)):
        try:
            os.link(source, target, follow_symlinks=False)
        except FileExistsError:
            raise
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            _copy(source, target)
        fsync_folder(target.parent)
    try:
        source.unlink()
    except OSError as error:
        if os.path.lexists(source):
            discard(target)
        raise SourceStays(error.errno, error.strerror, str(source)) from error
    with contextlib.suppress(OSError):  # not on the disk yet: a crash would leave it in both places
        fsync_folder(source.parent)


def _check_can_leave(source: Path) -> None:
    """Raise SourceStays where a file's folder lets no name go, told by a second name that comes and goes there."""
    trial = temporary_name(source)
    try:
        folder, file = source.parent.stat(), source.lstat()
        if folder.st_mode & stat.S_ISVTX and os.geteuid() not in (0, folder.st_uid, file.st_uid):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        try:
            os.link(source, trial, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            os.close(os.open(trial, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        os.unlink(trial)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):  # a full disk lets go
            raise SourceStays(error.errno, error.strerror, str(source)) from error


def is_left_from_a_move(source: Path, target: Path) -> bool:
    """Whether the target is the source already, by another link or by a copy with its time and content.

    Raises OSError.
    """
    if not os.path.lexists(target) or source.is_symlink():
        return False
    here, there = source.stat(), target.stat()
    if os.path.samestat(here, there):
        return here.st_nlink > 1  # else two names for one link: a folder reached two ways
    same = (here.st_size, here.st_mtime_ns) == (there.st_size, there.st_mtime_ns)
    return same and sha256(source) == sha256(target)


def _copy(source: Path, target: Path) -> None:
    """Give a new name the content and times of a file; verified before it has the name."""
    import shutil

    temporary = temporary_name(target)
    try:
        shutil.copy2(source, temporary, follow_symlinks=False)
        fsync_file(temporary)
        if sha256(temporary) != sha256(source):
            raise OSError(errno.EIO, "the copy differs from what was copied", str(target))
        try:
            os.link(temporary, target)
        except FileExistsError:
            raise
        except OSError:  # no links at all: the name is taken first, so that nobody else has it
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            temporary.replace(target)
    finally:
        discard(temporary)


def append_line(path: Path, line: bytes) -> None:
    """Add a line to a file, made if need be; it is on the disk when this returns.   Raises OSError."""
    with path.open("ab") as file:
        file.write(line + b"\n")
        file.flush()
        os.fsync(file.fileno())


def discard(path: Path) -> None:
    """Remove a file if it is there and can be removed."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def fsync_file(path: Path) -> None:
    """Bring a file's content to the disk.   Raises OSError."""
    _fsync(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)


def fsync_folder(path: Path) -> None:
    """Bring a folder's names to the disk; Windows has nothing of the kind.   Raises OSError."""
    if sys.platform != "win32":
        _fsync(path, os.O_RDONLY)


def sha256(path: Path) -> str:
    """Return the hex SHA-256 of a file.   Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stat_of(path: Path) -> dict[str, int]:
    """Return what tells that a file is still the same.   Raises OSError."""
    found = path.stat()
    return {"size_bytes": found.st_size, "mtime_ns": found.st_mtime_ns}


def move_inside(source: Path, target: Path, names: Iterable[str]) -> None:
    """Move files of a folder, in this order, over those of another of the same file system, and remove the folder.

    Names that it does not hold are passed over: cut short, the same call does the rest.   Raises OSError.
    """
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            (source / name).replace(target / name)
    fsync_folder(target)
    source.rmdir()


def is_temporary(path: Path) -> bool:
    """Whether a file or folder has such a name as ours have before they are whole."""
    return _TEMPORARY.fullmatch(path.name) is not None


def sweep(folder: Path) -> None:
    """Remove temporary files and folders of ours whose writer is dead, or that are older than an hour."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if (match := _TEMPORARY.fullmatch(path.name)) and _is_leftover(path, match["host"], int(match["pid"])):
                remove = _discard_folder if path.is_dir() and not path.is_symlink() else discard
                remove(path)


def _fsync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_leftover(path: Path, host: str, pid: int) -> bool:
    if host == _host() and not is_alive(pid):
        return True
    try:
        return time.time() - path.stat().st_mtime > _LEFTOVER_S
    except OSError:  # published or removed meanwhile
        return False


def is_alive(pid: int) -> bool:
    """Say whether a process of this number may run; Windows can't be asked without harm."""
    if sys.platform == "win32":
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def _host() -> str:
    """Tell machines apart that share a folder: a process number means something on one of them only."""
    import socket

    return hashlib.blake2s(socket.gethostname().encode(), digest_size=4).hexdigest()
