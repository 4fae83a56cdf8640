"""Which folders may be indexed from here."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from search import addresses
from search.web.problems import Problem

if TYPE_CHECKING:
    from search.library import Library
    from search.web.options import ServeOptions


def folder_of(text: str | None, in_base64: str | None) -> str:
    """Return the folder that is meant, links resolved.   in_base64: its name's bytes, where it is not UTF-8.

    Raises Problem for what is no absolute path.
    """
    try:
        name = os.fsdecode(base64.b64decode(in_base64, validate=True)) if in_base64 else (text or "").strip()
    except ValueError:  # binascii.Error is one, and what is no ASCII is another
        name = ""
    if addresses.is_remote(name):
        return addresses.real(name)
    path = os.path.expanduser(name)
    if not os.path.isabs(path) or "\0" in path:
        raise Problem(400, "A folder is named by its absolute path.", more={"parameter": "folder"})
    return os.path.realpath(path)


def check_permitted(folder: str, library: Library, options: ServeOptions) -> None:
    """Raise Problem unless a folder may be indexed from here, and is one.

    What other machines can ask for is what is in the library already, and what `index_under` names. Whether any other
    folder is there at all is not told.
    """
    known = [root.path for root in library.catalog.root_status()] if library.catalog.exists() else []
    if not options.indexes_anywhere and not _is_in(folder, (*known, *map(_real, options.index_under))):
        raise Problem(
            403, "Only folders of the library, and what --index-under names, can be indexed from here.",
            more={"parameter": "folder"},
        )  # fmt: skip
    # One of the library may be away, and other addresses than its own nobody may have this machine ask.
    if not os.path.isdir(folder) and not _is_in(folder, known):
        raise Problem(400, "There is no such folder on the server's machine.", more={"parameter": "folder"})


def _is_in(folder: str, places: Iterable[str]) -> bool:
    """Whether a folder is one of some places or below one.   Both without links."""
    return any(folder == place or folder.startswith(os.path.join(place, "")) for place in places)


def _real(path: str) -> str:
    return os.path.realpath(os.path.expanduser(path))
