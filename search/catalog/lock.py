"""One process writes at a time: it holds a lock on a file, and the file says who it is."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from search.catalog.places import make_file, make_folder
from search.errors import LibraryBusy, LibraryError

LOCK_NAME = "writer.lock"

_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}
_TRIES = 5
_SIGNING_S = 0.5  # how long the holder may take to write down who it is


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that writes or wrote."""

    pid: int
    host: str
    boot_id: str  # '' where the system has none; a pid means nothing after the next start
    started_at: str
    command: str

    @classmethod
    def this_process(cls) -> Holder:
        """Describe the process that asks."""
        name = Path(sys.argv[0]).name.replace("__main__.py", "search") or "python"
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(os.getpid(), socket.gethostname(), boot_id(), now, shlex.join([name, *sys.argv[1:]])[:300])

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} ({self.command}), since {self.started_at}"


def boot_id() -> str:
    """Return what tells one start of the machine from another; "" where there is no such thing."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


@contextmanager
def writer_lock(folder: Path) -> Iterator[None]:
    """Hold the library for writing.

    The lock belongs to the open file, so it goes with the process however that ends; what the file says then counts
    for nothing. Raises LibraryBusy, LibraryError where files can't be locked, OSError.
    """
    make_folder(folder)
    path = folder / LOCK_NAME
    make_file(path)
    descriptor = os.open(path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0))
    try:
        if not _lock(descriptor, folder):
            holder = read_holder(folder) or "another process"
            raise LibraryBusy(f"{folder} is being written to by {holder}", hint="wait for it or stop it")
        _sign(descriptor, path)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # else it would hide what went wrong before
                os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _sign(descriptor: int, path: Path) -> None:
    """Write into a locked file who holds it. Raises OSError that names the file."""
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(asdict(Holder.this_process())).encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def read_holder(folder: Path) -> Holder | None:
    """Return who holds a library that is locked, None if it does not say."""
    until = time.monotonic() + _SIGNING_S
    while True:
        try:
            return Holder(**json.loads((folder / LOCK_NAME).read_bytes()))
        except (OSError, ValueError, TypeError):
            if time.monotonic() > until:
                return None
            time.sleep(0.02)


def is_held(folder: Path) -> bool:
    """Whether a process holds the library for writing. Asking takes the lock for a moment where it is free."""
    try:
        with (folder / LOCK_NAME).open("rb") as lock:
            return not _try_lock(lock.fileno())
    except OSError:
        return False


def _lock(descriptor: int, folder: Path) -> bool:
    """Whether the lock was free. A file system that has no locks must not pass for one whose lock is free."""
    try:
        for _ in range(_TRIES):  # somebody may only be asking whether it is held
            if _try_lock(descriptor):
                return True
            time.sleep(0.01)
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        raise LibraryError(
            f"the file system of {folder} can't lock files ({error.strerror})",
            hint="name a folder on a local disk with --library",
        ) from error


if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
