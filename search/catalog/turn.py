"""The right to write. What only looks whether there is something to write needs no more than that."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from search.catalog.look import Look
from search.catalog.scopes import Scope, find_scope

if TYPE_CHECKING:
    from collections.abc import Iterator

    from search.catalog.found import Settled
    from search.catalog.storage import Storage
    from search.catalog.writer import Writer

_DIED = "SELECT (SELECT count(*) FROM in_flight) + (SELECT count(*) FROM jobs WHERE finished_at IS NULL)"


class Turn:
    """A library held for writing: nobody else writes while it lasts; the writer is opened when it is asked for.

    stack: closes, when the turn is over, what was opened.
    """

    def __init__(self, storage: Storage, stack: ExitStack) -> None:
        self._storage = storage
        self._stack = stack
        self.is_writing = False

    @cached_property
    def writer(self) -> Writer:
        """The library's only writer."""
        from search.catalog.writer import Writer

        writer = Writer(self._stack.enter_context(self._storage.connected()))
        self.is_writing = True
        return writer

    def is_tidy(self) -> bool:
        """Whether no process that died left anything behind, in a log of SQLite or as a row."""
        if self._storage.has_logs():
            return False
        with self._storage.reading() as session:
            return not session.one(_DIED)[0]

    def source(self, path: str) -> Scope | None:
        """Return the scope of an absolute path in a known root, None if no root holds it."""
        with self._storage.reading() as session:
            return find_scope(session.rows("SELECT id, path FROM roots"), path)

    @contextmanager
    def looking(self, encoder_id: int, settled: Settled) -> Iterator[Look]:
        """Yield what tells whether files are as the catalog knows them."""
        with self._storage.reading() as session:
            yield Look(session, encoder_id, settled)
