"""Questions to a catalog: SQL text with parameters written `:name`, which SQLite's own module and SQLAlchemy both take.

Rows come as plain tuples. What two drivers hand over differently is told apart in search.catalog.rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from search.catalog.rows import time_text

if TYPE_CHECKING:
    import sqlite3

    from search.types import Ids

Row: TypeAlias = tuple[Any, ...]
Values: TypeAlias = Mapping[str, Any]

_NOTHING: Values = {}


class Session(ABC):
    """One consistent state of a catalog, to be asked as long as its block lasts.

    dialect: the database's name, as SQLAlchemy has it.
    """

    dialect = "sqlite"

    @abstractmethod
    def rows(self, statement: str, values: Values = _NOTHING) -> list[Row]:
        """Return all rows."""

    @abstractmethod
    def parts(self, statement: str, values: Values, *, size: int) -> Iterator[list[Row]]:
        """Yield the rows, so many at a time."""

    @abstractmethod
    def has_table(self, name: str) -> bool:
        """Whether there is a table of this name."""

    def first(self, statement: str, values: Values = _NOTHING) -> Row | None:
        """Return the first row, None if there is none."""
        return next(iter(self.rows(statement, values)), None)

    def one(self, statement: str, values: Values = _NOTHING) -> Row:
        """Return the first row. Raises LookupError if there is none."""
        row = self.first(statement, values)
        if row is None:
            raise LookupError(f"nothing answers {statement}")
        return row

    def ids(self, statement: str, values: Values = _NOTHING) -> Ids:
        """Return a column of numbers (N,) int64."""
        rows = self.rows(statement, values)
        return np.fromiter(chain.from_iterable(rows), np.int64, len(rows))


class LiteSession(Session):
    """A session of SQLite's own module."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._cursors: list[sqlite3.Cursor] = []

    def rows(self, statement: str, values: Values = _NOTHING) -> list[Row]:
        return self._connection.execute(statement, lite_values(values)).fetchall()

    def parts(self, statement: str, values: Values, *, size: int) -> Iterator[list[Row]]:
        cursor = self._connection.cursor()
        self._cursors.append(cursor)
        cursor.execute(statement, lite_values(values))
        while rows := cursor.fetchmany(size):
            yield rows

    def has_table(self, name: str) -> bool:
        return bool(self.rows(f'PRAGMA main.table_info("{name}")'))

    def close(self) -> None:
        """End what is still being read: it would hold the state it sees beyond the end of its transaction."""
        for cursor in self._cursors:
            cursor.close()


def lite_values(values: Values) -> Values:
    """Return parameters as SQLite keeps them: it has no type for a moment."""
    return {name: time_text(value) for name, value in values.items()}


def listed(name: str, items: Sequence[Any]) -> tuple[str, dict[str, Any]]:
    """Return the list that follows an IN, and its parameters; `items` must not be empty."""
    values = {f"{name}{number}": item for number, item in enumerate(items)}
    return f"({', '.join(f':{key}' for key in values)})", values
