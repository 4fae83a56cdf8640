"""The writing connection, one numbered transaction at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy import update

from search.catalog.schema import state
from search.catalog.seals import seal
from search.failpoints import reach

if TYPE_CHECKING:
    from sqlalchemy import Connection


@contextmanager
def commit(connection: Connection, *, first: Callable[[], None] | None = None) -> Iterator[int]:
    """Run one transaction and yield its number; durable when the block has been left.

    first: what must be put right in it before a number can be had.
    """
    with connection.begin():
        if first is not None:
            first()
        yield connection.execute(update(state).values(seq=state.c.seq + 1).returning(state.c.seq)).scalar_one()
        seal(connection)
        reach("commit.sealed")


def now() -> datetime:
    """Return the time in UTC, naive as the catalog keeps it."""
    return datetime.now(UTC).replace(tzinfo=None)
