"""A generation published beside a run: a thread writes it while photos are encoded and committed."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from search import generations
from search.errors import DamagedLibrary, SearchError

if TYPE_CHECKING:
    from types import TracebackType

    from search.catalog import Catalog, Turn
    from search.generations import Generations, Written


class Publisher:
    """Publishes in the midst of a run; at most one generation is being written at a time.

    Only files are written beside the run. The switch is a commit, and those are for the thread that holds the writer:
    it comes with the next batch after the files are there. Left by an error, it waits until nobody writes any more.
    """

    def __init__(self, kept: Generations, catalog: Catalog, turn: Turn) -> None:
        self._kept, self._catalog, self._turn = kept, catalog, turn
        self._thread = ThreadPoolExecutor(1, "publish")
        self._abandoned = threading.Event()
        self._waiting = 0  # photos committed since the last one was begun
        self._written: Future[Written] | None = None

    def __enter__(self) -> Publisher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._abandoned.set()
        self._thread.shutdown(wait=True, cancel_futures=True)
        if self._written is not None:
            self._kept.discard()

    def committed(self, count: int) -> None:
        """Account for a batch: switch to what is written, begin what is due. Raises DamagedLibrary."""
        self._waiting += count
        if self._written is not None:
            if self._written.done():
                self._switch()
        elif self._waiting >= generations.MOST_CHANGES:
            self._waiting = 0
            if self._kept.is_due(self._catalog):
                self._written = self._thread.submit(
                    self._kept.write, self._catalog, abandoned=self._abandoned.is_set
                )

    def finish(self) -> None:
        """Wait for what is being written and switch to it. Raises DamagedLibrary."""
        if self._written is not None:
            self._switch()

    def _switch(self) -> None:
        """What goes wrong here is told at the end of the run, which tries again; but for a damaged catalog."""
        assert self._written is not None
        written, self._written = self._written, None
        try:
            self._kept.switch(written.result(), self._catalog, self._turn.writer)
        except DamagedLibrary:
            raise
        except (SearchError, OSError, MemoryError):
            self._kept.discard()
