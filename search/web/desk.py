"""Who may ask the library, and how many at a time: a request never blocks the loop that serves all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from anyio import CapacityLimiter, to_thread

if TYPE_CHECKING:
    from search.library import Library

T = TypeVar("T")

_LOOKING = 8  # reads of the catalog and of files at the same time


class Desk:
    """The one library of a server, with its one model.

    What needs the model or the index comes one after another: neither is made for two threads, and two texts encoded
    side by side take as long as one after the other. What only looks things up need not wait for that.
    """

    def __init__(self, library: Library) -> None:
        self.library = library
        self._answering = CapacityLimiter(1)
        self._looking = CapacityLimiter(_LOOKING)

    async def answer(self, work: Callable[[Library], T]) -> T:
        """Do what needs the model or the index, when it is its turn."""
        return await to_thread.run_sync(work, self.library, limiter=self._answering)

    async def look(self, work: Callable[[Library], T]) -> T:
        """Do what reads the catalog or files."""
        return await to_thread.run_sync(work, self.library, limiter=self._looking)
