"""How photos and folders are named: by a path of this machine, or by an address such as s3://bucket/folder.

A tar file is named like a folder of its members. Imports nothing but the standard library, and looks at nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence

from search.errors import UsageError

_REMOTE = re.compile(r"(?P<protocol>[A-Za-z][A-Za-z0-9+.:-]*)://(?P<rest>.*)", re.DOTALL)
_FLAT = ("s3", "s3a", "gs", "gcs", "az", "abfs")
_TAR = re.compile(r"\.tar(?=/|$)", re.IGNORECASE)


def is_remote(path: str) -> bool:
    """Whether something is named by an address."""
    return "://" in path and _REMOTE.match(path) is not None


def absolute(path: str) -> str:
    """Return the one way to write an address, or an absolute path without following links.   Raises UsageError."""
    return _address(path) if is_remote(path) else os.path.abspath(os.path.expanduser(path))


def real(path: str) -> str:
    """Return the one way to write an address, or where a path leads once links are followed.   Raises UsageError."""
    return _address(path) if is_remote(path) else os.path.realpath(os.path.expanduser(path))


def normal(path: str) -> str:
    """Return an absolute path without what makes no difference in it; an address as it is."""
    return path.rstrip("/") if is_remote(path) else os.path.normpath(path)


def is_flat(address: str) -> bool:
    """Whether folders there are only what names of objects begin with, so that none is empty."""
    return protocol(address) in _FLAT


def protocol(address: str) -> str:
    """Return an address's part before ://, lower-case."""
    return address.partition("://")[0].lower()


def check_no_password(address: str) -> None:
    """Raise UsageError for an address with a password in it: addresses are kept, and shown."""
    name = address.partition("://")[2].partition("/")[0]
    if "@" in name and ":" in name.rpartition("@")[0]:
        raise UsageError(
            f"an address of {protocol(address)}:// has a password in it", hint="addresses are kept and shown"
        )


def _address(text: str) -> str:
    """Raises UsageError for one that names nothing in particular, or could be read in two ways, or is a secret."""
    check_no_password(text)
    match = _REMOTE.match(text)
    parts = [part for part in match["rest"].split("/") if part] if match else []
    if match is None or not parts or not set(parts).isdisjoint((".", "..")) or "::" in text:
        raise UsageError(f"{text} is no address of photos", hint="s3://BUCKET/FOLDER is one")
    return f"{match['protocol'].lower()}://{'/'.join(parts)}"


def is_inside(path: str, folder: str) -> bool:
    """Whether an absolute path or address is a folder or lies below it."""
    if is_remote(path) or is_remote(folder):
        return path == folder or path.startswith(folder + "/")
    return os.path.commonpath([folder, path]) == folder


def relative(path: str, folder: str) -> str:
    """Return what leads from a folder to a path in it, '.' if they are one."""
    if is_remote(path):
        return path[len(folder) + 1 :] or "."
    return os.path.relpath(path, folder)


def common(folders: Sequence[str]) -> str:
    """Return the innermost folder that holds all of these, "" if there is none."""
    if not any(map(is_remote, folders)):
        return os.path.commonpath(folders)
    shared = []
    for names in zip(*map(_parts, folders), strict=False):
        if len(set(names)) > 1:
            break
        shared.append(names[0])
    return "/".join(shared)


def _parts(folder: str) -> list[str]:
    """Return the names in an address, the first with what is before it."""
    before, separator, rest = folder.partition("://")
    first, *others = rest.split("/") if separator else folder.split("/")
    return [f"{before}://{first}" if separator else first, *others]


def first(path: str) -> str:
    """Return the first name of a relative path; of an absolute one or an address that with what is before it."""
    before, separator, rest = path.partition("://")
    if separator:
        return f"{before}://{rest.partition('/')[0]}"
    start = len(path) - len(path.lstrip(os.sep))
    return path[:start] + path[start:].partition(os.sep)[0]


def tars(path: str) -> Iterable[str]:
    """Return the beginnings of a path that may be tar files, by their names; of most paths there are none."""
    if ".tar" not in path and ".tar" not in path.lower():
        return ()
    return [path[: match.end()] for match in _TAR.finditer(path)]


def is_tar_name(path: str) -> bool:
    """Whether the last name of a path is one of a tar file."""
    return path[-4:].lower() == ".tar"
