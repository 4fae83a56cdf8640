"""The three things that meet in a library, handed together to what needs them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from search import addresses

if TYPE_CHECKING:
    from search.catalog import Catalog
    from search.library.index import LibraryIndex
    from search.library.model import LibraryModel
    from search.photos.sources import Sources
    from search.types import Photo


@dataclass(frozen=True, slots=True)
class Seams:
    """A library's catalog, the index over it and its model, as they stand now.

    lock: held by who brings the index in memory up to date or reads it.
    notify: says a sentence to the user, `tell_once` none a second time.
    sources: gives what lists and reads photos that are no files in folders.
    """

    catalog: Catalog
    index: LibraryIndex
    model: LibraryModel
    lock: threading.Lock
    notify: Callable[[str], None]
    tell_once: Callable[[str], None]
    sources: Callable[[], Sources]

    def known(self, ref: int | str | os.PathLike[str]) -> Photo | None:
        """Return the photo of an id or a path, None if there is none."""
        if isinstance(ref, int):
            return next(iter(self.catalog.get([ref])), None) if 0 < ref < 2**63 else None
        return next(iter(self.catalog.get(self.catalog.ids_at(spellings(ref)))), None)


def spellings(path: str | os.PathLike[str]) -> list[str]:
    """The names a photo may be known by: where links lead and, where links were followed, the path as it stands."""
    return sorted({real(path), addresses.absolute(os.fspath(path))})


def real(path: str | os.PathLike[str]) -> str:
    """Return a path as the catalog knows it: absolute, without links; an address as it is written."""
    return addresses.real(os.fspath(path))
