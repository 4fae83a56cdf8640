"""Where sound rows and vectors can be had from when the catalog's own are damaged: its copies, the newest first."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from sqlalchemy import Table, literal_column, select
from sqlalchemy.dialects import sqlite

from search.catalog import lite
from search.catalog.damage import BadVector
from search.catalog.rows import HALF, checksum, is_unit
from search.catalog.schema import encoders, photos
from search.catalog.seals import holds, register

if TYPE_CHECKING:
    import numpy.typing as npt
    from sqlalchemy import Connection

    from search.types import Ids


class Copy(Protocol):
    """A sound copy of the catalog at some commit: its rows in a SQLite file, its vectors as arrays."""

    @property
    def rows_path(self) -> Path: ...
    @property
    def published(self) -> tuple[int, int, str] | None:
        """Its number, commit and the SHA-256 of its manifest, if it is a generation."""

    @property
    def others(self) -> Sequence[Copy]:
        """Older copies, kept for what this one lacks."""

    def vectors(self, encoder_id: int) -> tuple[Ids, npt.NDArray[np.float16]]: ...


class Spares:
    """Where sound rows and vectors can be had from: the newest generation and what it keeps, or nowhere."""

    def __init__(self, copy: Copy | None) -> None:
        self.copies = [] if copy is None else [copy, *copy.others]
        self._open: list[_Opened] = []

    def __enter__(self) -> Spares:
        self._open = [_Opened(copy) for copy in self.copies if copy.rows_path.is_file()]
        return self

    def __exit__(self, *_: object) -> None:
        for opened in self._open:
            opened.rows.close()

    def row(self, table: Table, crc: Any, id_: int | None = None) -> dict[str, Any] | None:
        """Return the sealed row of this checksum, else of this id; None where there is none."""
        wanted = ((column, value) for column, value in (("crc", crc), ("id", id_)) if isinstance(value, int))
        found = (opened.row(table, column, value) for column, value in wanted for opened in self._open)
        return next((row for row in found if row), None)

    def vector(self, connection: Connection, bad: BadVector) -> bytes | None:
        """Return a damaged vector's bytes where a copy has them for certain, or has the very same photo's."""
        found = (opened.vector(connection, bad) for opened in self._open)
        return next((blob for blob in found if blob), None)


class _Opened:
    """One copy, open."""

    def __init__(self, copy: Copy) -> None:
        self._copy = copy
        uri = lite.file_uri(copy.rows_path, lite.IMMUTABLE)
        self.rows = sqlite3.connect(uri, uri=True, check_same_thread=False)
        self.rows.row_factory = sqlite3.Row
        register(self.rows)
        self._vectors: dict[int, tuple[dict[int, int], Any]] = {}

    def row(self, table: Table, column: str, value: int) -> dict[str, Any] | None:
        if column not in table.c:
            return None
        query = select(table).where(table.c[column] == literal_column(str(value)), holds(table))
        compiled = query.compile(dialect=sqlite.dialect())
        values = [compiled.params[name] for name in compiled.positiontup or ()]
        with suppress(sqlite3.DatabaseError):
            if found := self.rows.execute(str(compiled), values).fetchone():
                return dict(found)
        return None

    def vector(self, connection: Connection, bad: BadVector) -> bytes | None:
        if bad.photo_id is None or bad.encoder_id is None:
            return None
        ids, vectors = self._of(bad.encoder_id)
        if bad.photo_id not in ids:
            return None
        blob: bytes = np.asarray(vectors[ids[bad.photo_id]]).astype(HALF).tobytes()
        if not is_unit(blob, self._dim(connection, bad.encoder_id)):
            return None
        if checksum(blob, bad.photo_id, bad.encoder_id) == bad.crc:
            return blob
        here = select(photos.c.content_hash).where(photos.c.id == bad.photo_id, holds(photos))
        spare = self.row(photos, "id", bad.photo_id)
        unchanged = spare is not None and spare["content_hash"] == connection.execute(here).scalar()
        return blob if unchanged else None

    def _dim(self, connection: Connection, encoder_id: int) -> int:
        """How many numbers a model's vectors have, by the catalog, else by the copy; -1 if neither knows."""
        query = select(encoders.c.dim).where(encoders.c.id == encoder_id, holds(encoders))
        dim = connection.execute(query).scalar()
        return int(dim if dim is not None else (self.row(encoders, "id", encoder_id) or {}).get("dim", -1))

    def _of(self, encoder_id: int) -> tuple[dict[int, int], Any]:
        if encoder_id not in self._vectors:
            ids: Any = ()
            vectors: Any = ()
            with suppress(KeyError, OSError, ValueError):
                ids, vectors = self._copy.vectors(encoder_id)
            self._vectors[encoder_id] = ({int(id_): row for row, id_ in enumerate(ids)}, vectors)
        return self._vectors[encoder_id]
