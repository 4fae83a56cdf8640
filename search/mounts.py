"""On which file system a path lies: the mount table, and an identity that is the same after the next mount."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

# f_fsid comes from the identity that these were given when they were made; that of others is the number of a device.
_OWN_IDENTITY = ("ext2", "ext3", "ext4", "btrfs", "zfs")
_SHARES = ("nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "fuse.sshfs")
_UUIDS = "/dev/disk/by-uuid"


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of the mount table: where, the kind of file system as the system names it, and what was mounted."""

    point: str
    kind: str
    source: str = field(default="", compare=False)


def read_mounts() -> list[Mount]:
    """Return this machine's mount table, oldest mount first."""
    if sys.platform != "linux":
        import psutil

        parts = psutil.disk_partitions(all=True)
        return [Mount(p.mountpoint, "remote" if "remote" in p.opts.split(",") else p.fstype) for p in parts]
    try:  # psutil takes 19 ms to import, this 0.1
        return [_mount(line) for line in Path("/proc/self/mountinfo").read_bytes().splitlines()]
    except OSError:
        return []  # no /proc in this container: nothing is known, nothing refused


def _mount(line: bytes) -> Mount:
    """Parse a line of mountinfo, see proc(5): `id parent dev root POINT options [tags] - KIND source options`."""
    before, _, after = line.partition(b" - ")
    point = re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), before.split(b" ")[4])
    kind, source = after.split(b" ")[:2]
    return Mount(os.fsdecode(point), os.fsdecode(kind), os.fsdecode(source))


def innermost(path: str, mounts: Sequence[Mount]) -> Mount | None:
    """Return the mount that holds a real path, None if the table does not say."""
    best, depth = None, 0
    for mount in mounts:
        here = mount.point.rstrip("/\\")
        # Of two mounts on one point the later hides the earlier.
        if len(here) >= depth and (path == here or path.startswith((f"{here}/", f"{here}\\"))):
            best, depth = mount, len(here)
    return best


def kind_of(path: str, mounts: Sequence[Mount]) -> str:
    """Return the kind of file system that a real path is on; '' if the table does not say."""
    if path.startswith("\\\\"):
        return "remote"  # a share of another Windows machine
    mount = innermost(path, mounts)
    return mount.kind.lower() if mount else ""


def file_system(path: str) -> str | None:
    """Return an identity of the file system a path lies on, None where it can't be known.

    It is the same after every mount and start of the machine; so far only Linux says enough.
    """
    mount = innermost(os.path.realpath(path), read_mounts()) if sys.platform == "linux" else None
    if mount is None:
        return None
    if mount.kind in _SHARES:
        return f"{mount.kind} {mount.source}"
    try:
        number = os.statvfs(path).f_fsid if mount.kind in _OWN_IDENTITY else 0
        return f"{mount.kind} {number:x}" if number else _uuid(mount.source)
    except OSError:
        return None


def _uuid(device: str) -> str | None:
    """Return the UUID of the file system on a block device, None if udev did not note it."""
    try:
        wanted = os.stat(device).st_rdev
        with os.scandir(_UUIDS) as links:
            return next((link.name for link in links if wanted and link.stat().st_rdev == wanted), None)
    except OSError:
        return None
