"""The labels of a library: what is known of them, what the user says of them, and runs that are taken back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search.catalog import Writer
    from search.library.seams import Seams


class Tags:
    """What `Library.tags` is.   publish: writes a generation of the index if so many changes make it due."""

    def __init__(self, seams: Seams, publish: Callable[[Writer, int], None]) -> None:
        self._seams = seams
        self._publish = publish
