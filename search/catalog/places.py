"""Where a library may lie: on a disk of this machine, in a folder that nobody else writes to; or behind a URL."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

from search.errors import LibraryError
from search.files import fsync_folder
from search.mounts import Mount, kind_of, read_mounts

# File systems whose locks and shared memory are not those of one machine. What a daemon in user space serves is
# taken for one of them, but for block devices of its own (NTFS, exFAT: fuseblk).
_REMOTE = frozenset(
    {
        *("9p", "acfs", "afpfs", "afs", "beegfs", "ceph", "coda", "davfs", "fuse", "gfs2", "glusterfs", "gpfs"),
        *("lustre", "macfuse", "ncpfs", "ocfs2", "osxfuse", "prl_fs", "pvfs2", "remote", "sshfs", "vboxsf"),
        *("vmhgfs", "webdav"),
    }
)
_REMOTE_FAMILIES = ("nfs", "cifs", "smb", "fuse.")


def is_url(library: str) -> bool:
    """Tell a SQLAlchemy URL from a folder."""
    return "://" in library


def shown(library: str) -> str:
    """Return a library's location as messages have it: a URL without its password."""
    if not is_url(library):
        return library
    hidden = re.sub(r"(://[^:/?#]*):.*@", r"\1:***@", library)
    return re.sub(r"([?&](?:ssl)?password=)[^&]*", r"\1***", hidden)


def refuse_network(folder: Path, mounts: Sequence[Mount] | None = None) -> None:
    """Raise LibraryError if a folder, there or not, lies on a network file system.

    mounts: the mount table; None means this machine's.
    """
    path = os.path.realpath(folder)
    kind = kind_of(path, read_mounts() if mounts is None else mounts)
    if kind in _REMOTE or kind.startswith(_REMOTE_FAMILIES):
        raise LibraryError(
            f"{folder} is on a network file system ({kind}), where a catalog is not safe",
            hint="photos may lie there, the library not: name a folder on a local disk with --library",
        )


def refuse_foreign(folder: Path) -> None:
    """Raise LibraryError if another user owns the folder or everyone may write to it.

    Whoever can write there decides what the catalog says. A group that may write was trusted on purpose, and the
    superuser, who is who one is in many containers, may use anybody's.
    """
    if sys.platform == "win32":
        return
    try:
        found = folder.stat()
    except OSError:
        return  # opening it will say what is wrong
    if os.geteuid() != 0 and found.st_uid not in (os.geteuid(), 0):
        raise LibraryError(
            f"{folder} belongs to another user (uid {found.st_uid})",
            hint="name a folder of your own with --library, or make this one yours with chown",
        )
    if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
        raise LibraryError(f"everyone may write to {folder}", hint=f"run 'chmod o-w {folder}' and try again")


def make_folder(folder: Path) -> None:
    """Make a folder that only its owner may look into, whatever the umask; one that is there stays as it is."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if missing:
        folder.chmod(0o700)
    for place in missing:
        fsync_folder(place.parent)


def make_file(path: Path) -> None:
    """Make an empty file that only its owner may read, whatever the umask; one that is there stays as it is."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_CLOEXEC", 0), 0o600)
    except FileExistsError:
        return
    os.close(descriptor)
    path.chmod(0o600)
    fsync_folder(path.parent)
