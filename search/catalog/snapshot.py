"""The catalog's rows in a file of their own, and a catalog made anew from such a file.

Both copies are taken from one consistent view and keep the schema to the letter, so that seals and the schema's
checksum hold in the copy too.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from sqlalchemy import insert, inspect, text, update

from search.catalog.damage import damaged_rows
from search.catalog.engines import copying
from search.catalog.failures import damaged, storage_errors
from search.catalog.lock import writer_lock
from search.catalog.rows import HALF, EncoderRow, checksum, lengths, moment_in_name
from search.catalog.schema import embeddings, state
from search.catalog.seals import SEALED, seal_older
from search.catalog.storage import CATALOG_NAME
from search.files import fsync_file, fsync_folder

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from search.types import Halves, Ids

_CHUNK = 4096
_ROWS_PAGE = 4096  # many small tables
_CATALOG_PAGE = 16384
_PARTS = ("", "-wal", "-shm")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of a catalog after commit `seq`.

    encoders: those that have vectors.   gone: ids of photos whose file was not found, ascending.
    """

    uuid: str
    seq: int
    encoders: tuple[EncoderRow, ...]
    gone: Ids
    _connection: Connection
    _damaged: list[tuple[object, ...]]

    @property
    def lacks(self) -> int:
        """Tell what of the catalog is damaged, as a CRC-32 over where it is; 0 if nothing is.

        Complete once all vectors were read.
        """
        return zlib.crc32(repr(sorted(self._damaged, key=repr)).encode()) if self._damaged else 0

    def vectors(self, encoder: EncoderRow) -> Iterator[tuple[Ids, bytes]]:
        """Yield ids, ascending, and their float16 rows in chunks; damaged vectors are left out."""
        query = "SELECT photo_id, vector, crc FROM source.embeddings WHERE encoder_id = ? ORDER BY photo_id"
        for part in self._connection.exec_driver_sql(query, (encoder.id,)).partitions(_CHUNK):
            sound = [row for row in part if _is_sound(row.vector, row.crc, row.photo_id, encoder)]
            halves = np.frombuffer(b"".join(row.vector for row in sound), HALF).reshape(len(sound), encoder.dim)
            sound = [row for row, good in zip(sound, lengths(halves)[1], strict=True) if good]
            if len(sound) < len(part):
                left = {row.photo_id for row in part} - {row.photo_id for row in sound}
                self._damaged.extend(("embeddings", encoder.id, id_) for id_ in left)
            yield np.array([row.photo_id for row in sound], np.int64), b"".join(row.vector for row in sound)


@contextmanager
def take(folder: Path, rows: Path) -> Iterator[Snapshot]:
    """Write every row but the vectors into a new SQLite file, and yield what else the same view holds.

    rows: the file, whole when the block has been left.   Raises StorageError, DamagedLibrary.
    """
    catalog = folder / CATALOG_NAME
    with storage_errors(str(folder)), copying(catalog, rows, page_size=_ROWS_PAGE) as connection:
        _copy_tables(connection, leave_out="embeddings")
        uuid, seq = connection.exec_driver_sql("SELECT uuid, seq FROM state").one()
        query = "SELECT id FROM photos WHERE gone_at IS NOT NULL ORDER BY id"
        gone = np.fromiter(connection.exec_driver_sql(query).scalars(), np.int64)
        yield Snapshot(uuid, seq, tuple(_encoders(connection)), gone, connection, list(_damaged(connection)))


def _damaged(connection: Connection) -> Iterator[tuple[object, ...]]:
    """Where rows are not what was written, and vectors whose photo or model is missing."""
    for table in SEALED:
        for row_id in damaged_rows(connection, table):
            yield table.name, row_id
    for parent, column in (("photos", "photo_id"), ("encoders", "encoder_id")):
        query = f"SELECT encoder_id, photo_id FROM source.embeddings WHERE {column} NOT IN (SELECT id FROM main.{parent})"  # noqa: S608, E501
        for encoder_id, photo_id in connection.exec_driver_sql(query):
            yield parent, encoder_id, photo_id


def _copy_tables(connection: Connection, *, leave_out: str = "") -> None:
    """Give the new file the source's schema and rows; indexes last, which is faster."""
    schema = connection.exec_driver_sql(
        "SELECT type, name, sql FROM source.sqlite_schema WHERE type IN ('table', 'index') AND sql IS NOT NULL"
        " AND name NOT LIKE 'sqlite|_%' ESCAPE '|' ORDER BY rowid"
    ).all()
    tables = [row for row in schema if row.type == "table"]
    quote = connection.dialect.identifier_preparer.quote_identifier
    for table in tables:
        connection.exec_driver_sql(table.sql)
        if table.name != leave_out:
            name = quote(table.name)
            connection.exec_driver_sql(f"INSERT INTO main.{name} SELECT * FROM source.{name}")  # noqa: S608, quoted
    connection.exec_driver_sql("DELETE FROM main.sqlite_sequence")
    connection.exec_driver_sql("INSERT INTO main.sqlite_sequence SELECT * FROM source.sqlite_sequence")
    for index in schema:
        if index.type == "index":
            connection.exec_driver_sql(index.sql)


def _encoders(connection: Connection) -> Iterator[EncoderRow]:
    query = (
        "SELECT id, name, fingerprint, dim FROM main.encoders e"
        " WHERE EXISTS (SELECT 1 FROM source.embeddings v WHERE v.encoder_id = e.id) ORDER BY id"
    )
    for row in connection.exec_driver_sql(query):
        yield EncoderRow(*row)


def _is_sound(blob: object, crc: int, photo_id: int, encoder: EncoderRow) -> bool:
    if not isinstance(blob, bytes):
        return False
    return len(blob) == HALF.itemsize * encoder.dim and checksum(blob, photo_id, encoder.id) == crc


def restore(
    folder: Path,
    rows: Path,
    vectors: Iterable[tuple[int, Ids, Halves]],
    *,
    number: int,
    seq: int,
    manifest_hash: str,
) -> str | None:
    """Make the catalog anew from a generation's rows and vectors; return where the damaged one is now, if any.

    vectors: (encoder id, ids, rows) of every encoder.   number, seq, manifest_hash: the generation they come from.
    The catalog changes its place only once the new one is whole and durable.   Raises LibraryBusy, StorageError.
    """
    new = folder / f"{CATALOG_NAME}.new"
    with storage_errors(str(folder)), writer_lock(folder):
        new.unlink(missing_ok=True)
        with copying(rows, new, page_size=_CATALOG_PAGE) as connection:
            _copy_tables(connection)
            for encoder_id, ids, halves in vectors:
                _insert_vectors(connection, encoder_id, ids, halves)
            values = {"generation": number, "generation_seq": seq, "generation_hash": manifest_hash}
            # Commits that come now have the numbers of others that an index on a server may know: it is filled anew.
            known = {column["name"] for column in inspect(connection).get_columns("state")}
            forgotten = dict.fromkeys({"index_mark", "index_seq"} & known)
            connection.execute(update(state).values(values | forgotten))
            seal_older(connection, state)  # nothing else was changed
            _check(connection, str(folder))
        fsync_file(new)
        backup = _move_aside(folder)
        new.replace(folder / CATALOG_NAME)
        fsync_folder(folder)
    return backup


def _insert_vectors(connection: Connection, encoder_id: int, ids: Ids, halves: Halves) -> None:
    for start in range(0, len(ids), _CHUNK):
        part = zip(ids[start : start + _CHUNK].tolist(), halves[start : start + _CHUNK], strict=True)
        blobs = [(photo_id, vector.tobytes()) for photo_id, vector in part]
        connection.execute(
            insert(embeddings),
            [
                {
                    "encoder_id": encoder_id,
                    "photo_id": photo_id,
                    "vector": blob,
                    "crc": checksum(blob, photo_id, encoder_id),
                }
                for photo_id, blob in blobs
            ],
        )


def _check(connection: Connection, library: str) -> None:
    """Raise DamagedLibrary unless the new file is whole."""
    wrong = [line for line in connection.execute(text("PRAGMA main.integrity_check")).scalars() if line != "ok"]
    wrong += [
        f"a row of {row[0]} has no parent" for row in connection.execute(text("PRAGMA main.foreign_key_check"))
    ]
    if wrong:
        raise damaged(library, f"the copy made from its generation is not whole ({wrong[0]})")


def _move_aside(folder: Path) -> str | None:
    """Give the damaged catalog another name; return it. Its log must not be taken for the new one's."""
    stamp = moment_in_name()
    moved = None
    for part in _PARTS:
        place = folder / f"{CATALOG_NAME}{part}"
        if place.exists():
            target = f"{folder / CATALOG_NAME}.{stamp}.damaged{part}"
            os.replace(place, target)
            moved = moved or (None if part else target)
    fsync_folder(folder)
    return moved
