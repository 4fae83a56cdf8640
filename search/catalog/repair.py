"""What can be done about damage: every finding with its remedy, and all remedies in one transaction.

`check --full` lists the remedies without using them, so that what it says a repair would do is what it does.
Originals are never touched.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

import numpy as np
from sqlalchemy import (
    Table,
    and_,
    delete,
    func,
    insert,
    literal_column,
    not_,
    select,
    text,
    update,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import NoResultFound

from search.catalog.damage import (
    COUNTED,
    REBUILD,
    BadVector,
    damaged_rows,
    damaged_vectors,
    integrity,
    orphans,
    places,
    raw_row,
    readable,
    revisions,
    schema_faults,
    sequence_faults,
)
from search.catalog.engines import copy_to
from search.catalog.rows import HALF, checksum, is_unit
from search.catalog.schema import (
    OF_PHOTOS,
    embeddings,
    encoders,
    heads,
    in_flight,
    jobs,
    labels,
    metadata,
    photos,
    roots,
    runs,
    sidecars,
    state,
    verdicts,
)
from search.catalog.seals import SEALED, holds, register, schema_checksum
from search.catalog.standing import lacking
from search.catalog.tagging import settle_all, stand_in
from search.catalog.transaction import commit
from search.failpoints import reach
from search.files import fsync_file, fsync_folder
from search.types import Problem, ProblemKind

if TYPE_CHECKING:
    import numpy.typing as npt
    from sqlalchemy import Connection

    from search.types import Ids

NOTHING = "nothing is lost"
UNSAID = (NoResultFound, UnicodeDecodeError)
"""What asking a catalog for its damaged state may end with, beside LibraryErrors."""

_ROW_LEVEL = re.compile(r"(NULL|TEXT|NUMERIC|BLOB|INTEGER|REAL|non-\w+) value in |CHECK constraint failed")
_MENDED_BY_REINDEX = ("missing from index", "wrong # of entries in index", "non-unique entry in index")


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


@dataclass(frozen=True, slots=True)
class Remedy:
    """A problem and what mends it, given the number of the commit; None where nothing here can.

    early: it must come before the commit has a number.
    """

    problem: Problem
    apply: Callable[[int], None] | None = None
    rows: int = 1
    early: bool = False


def repair(connection: Connection, copy: Copy | None, backup: str | None) -> int:
    """Apply every remedy in one transaction, after a copy of the catalog was made; return how many rows it mended.

    backup: a file that does not exist yet; None where the database server has copies of its own.
    """
    with Source(copy) as source:
        with connection.begin():
            every = list(remedies(connection, source))
        found = [remedy for remedy in every if remedy.apply]
        if not found or any(_is_beyond(remedy.problem) for remedy in every):
            return 0
        if backup is not None:
            back_up(connection, backup)
        reach("repair.backed_up")
        _apply(connection, found)
    return sum(remedy.rows for remedy in found)


def _is_beyond(problem: Problem) -> bool:
    """Where pages are lost, rows that seem to be gone may be there: dropping what belongs to them would lose it."""
    return problem.kind is ProblemKind.CATALOG_DAMAGED and problem.loss == REBUILD


def _apply(connection: Connection, found: list[Remedy]) -> None:
    def first() -> None:
        for remedy in found:
            if remedy.early and remedy.apply:
                remedy.apply(0)

    # Between its steps a repair breaks what these guard: rows that refer to rows not yet restored, entries that an
    # index does not have. Both are whole again when it ends.
    _pragma(connection, "foreign_keys = OFF", "writable_schema = ON")
    try:
        with commit(connection, first=first) as seq:
            for remedy in found:
                if remedy.apply and not remedy.early:
                    remedy.apply(seq)
            if connection.dialect.name == "sqlite":
                _drop_orphans(connection, seq)
                settle_all(connection)
                connection.execute(text("REINDEX"))
            reach("repair.restored")
    finally:
        _pragma(connection, "foreign_keys = ON", "writable_schema = OFF")


def _pragma(connection: Connection, *pragmas: str) -> None:
    """Set switches of the connection itself; they take effect only outside a transaction."""
    if connection.dialect.name == "sqlite":
        with closing(connection.connection.cursor()) as cursor:
            for pragma in pragmas:
                cursor.execute(f"PRAGMA {pragma}")


def back_up(connection: Connection, target: str) -> None:
    """Write a durable copy of the catalog; of its bytes as they are where it can't be read to its end."""
    try:
        copy_to(connection, target)
    except sqlite3.DatabaseError as error:
        if "full" in str(error) or "disk I/O" in str(error):
            raise
        place = str(connection.exec_driver_sql("PRAGMA database_list").all()[0][2])
        connection.rollback()
        for suffix in ("", "-wal"):
            with suppress(FileNotFoundError):
                shutil.copyfile(place + suffix, target + suffix)
                fsync_file(Path(target + suffix))
        fsync_folder(Path(target).parent)


# ---- what is wrong and what mends it


def remedies(connection: Connection, source: Source) -> Iterator[Remedy]:
    """Yield every problem of the catalog with its remedy, the structure's first."""
    lite = connection.dialect.name == "sqlite"
    if lite:
        yield from _told(lambda: _structure(connection), "its structure")
        for table in SEALED:
            yield from _told(partial(_rows, connection, table, source), f"its table {table.name}")
    bad: list[BadVector] = []
    for found in readable(lambda: damaged_vectors(connection), "its vectors"):
        if isinstance(found, Problem):
            yield Remedy(found)
        else:
            bad.append(found)
    yield from _told(lambda: _vectors(connection, bad, source), "its vectors")
    if lite:
        done = {vector.row_id for vector in bad}
        yield from _told(lambda: _orphans(connection, source, done), "its references")
    yield from _told(lambda: without_vector(connection), "its vectors")


def _told(part: Callable[[], Iterator[Remedy]], what: str) -> Iterator[Remedy]:
    for found in readable(part, what):
        yield Remedy(found) if isinstance(found, Problem) else found


def without_vector(connection: Connection) -> Iterator[Remedy]:
    """Photos that the answering model has no vector of, though it should; the next run mends that."""
    answering = select(state.c.encoder_id).scalar_subquery()
    if (
        connection.dialect.name == "sqlite"
        and not connection.execute(select(state.c.id).where(holds(state))).all()
    ):
        return  # which one answers can't be told
    every = connection.execute(select(func.count()).select_from(photos)).scalar_one()
    made = select(func.count()).select_from(embeddings).where(embeddings.c.encoder_id == answering)
    if every == connection.execute(made).scalar_one():
        return  # the quick way to know; the sure one takes seconds for a million photos
    count = connection.execute(select(func.count()).select_from(photos).where(lacking(answering))).scalar_one()
    if count:
        detail = f"{count} photos have no vector by the model that answers"
        loss = f"{count} photos to encode again, by the next 'search index'"
        yield Remedy(Problem(ProblemKind.VECTOR_MISSING, detail, loss))


def _damage(detail: str, loss: str) -> Problem:
    return Problem(ProblemKind.CATALOG_DAMAGED, detail, loss)


def _structure(connection: Connection) -> Iterator[Remedy]:
    lines = list(integrity(connection))
    for line in lines:
        if any(words in line for words in _MENDED_BY_REINDEX):
            yield Remedy(_damage(line, f"{NOTHING}: indexes are made anew"), _by_the_end)
        elif _ROW_LEVEL.match(line):
            yield Remedy(_damage(line, "mended with the row it is about"))
        else:
            yield Remedy(_damage(line, REBUILD))
    for line in schema_faults(connection):
        yield Remedy(_damage(line, REBUILD))
    for table in sequence_faults(connection):
        yield Remedy(
            _damage(f"the counter of ids of {table} is wrong", f"{NOTHING}: it is set anew"),
            partial(_set_counter, connection, table),
        )
    here, index = revisions(connection)
    if here != index:
        yield Remedy(
            _damage(f"the schema's revision is both {here} and {index}", f"{NOTHING}: it is set anew"),
            partial(_set_revision, connection),
        )


def _set_counter(connection: Connection, table: str, _: int) -> None:
    connection.execute(
        text(
            "DELETE FROM sqlite_sequence WHERE CAST(name AS TEXT) NOT IN ('photos', 'jobs', 'runs') OR name = :name"
        ),
        {"name": table},
    )
    if table in {counted.name for counted in COUNTED}:
        last = connection.execute(text(f"SELECT max(id) FROM {table}")).scalar()  # noqa: S608
        if last is not None:
            connection.execute(
                text("INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :last)"),
                {"name": table, "last": last},
            )


def _set_revision(connection: Connection, _: int) -> None:
    from search.catalog.versions import HISTORY

    connection.execute(text("DELETE FROM alembic_version"))
    connection.execute(text("INSERT INTO alembic_version VALUES (:head)"), {"head": HISTORY[-1]})


# ---- rows


def _rows(connection: Connection, table: Table, source: Source) -> Iterator[Remedy]:
    mend = {
        state: _mend_state,
        roots: _mend_root,
        encoders: _mend_encoder,
        photos: _mend_photo,
        runs: _mend_run,
    }.get(table, _mend_other)
    for row_id in list(damaged_rows(connection, table)):
        found = raw_row(connection, table, row_id)
        yield mend(connection, table, row_id, found, source)
    if table is state and connection.execute(select(func.count()).select_from(state)).scalar_one() != 1:
        yield _mend_state(connection, state, 0, {}, source)


def _bad_row(table: Table, row_id: int, loss: str, **where: Any) -> Problem:
    detail = f"row {row_id} of {table.name} is not what was written"
    if path := where.get("path"):
        detail = f"{path}: {detail}"
    return Problem(ProblemKind.ROW_DAMAGED, detail, loss, **where)


def _mend_photo(
    connection: Connection, table: Table, row_id: int, found: dict[str, Any], source: Source
) -> Remedy:
    path = places(connection, [row_id]).get(row_id)
    spare = source.row(table, found.get("crc"), row_id)
    same = ("size_bytes", "mtime_ns", "content_hash")
    if spare and spare["crc"] != found.get("crc") and spare["seq"] != found.get("seq"):
        # The copy is of another commit: it stands only if the file was the same then.
        spare = spare if all(spare[name] == found.get(name) for name in same) else None
    if spare and spare["crc"] != found.get("crc") and not _is_at(connection, row_id, found, spare):
        spare = None
    if spare and spare["id"] == row_id:
        loss = f"{NOTHING}: restored from the last generation"
        return Remedy(
            _bad_row(table, row_id, loss, path=path, id=row_id),
            partial(_put, connection, table, row_id, spare),
        )
    own = select(func.count()).select_from(labels).where(labels.c.photo_id == row_id)
    labelled = connection.execute(own).scalar_one()
    loss = "1 photo to encode again" + (f", and its {labelled} labels are lost" if labelled else "")
    return Remedy(_bad_row(table, row_id, loss, path=path, id=row_id), partial(_drop_photo, connection, row_id))


def _is_at(connection: Connection, row_id: int, found: dict[str, Any], spare: dict[str, Any]) -> bool:
    """Whether a row, or its entry in the index of places, says that the photo lies where the copy has it."""
    query = (
        "SELECT root_id, CAST(path AS BLOB) FROM photos INDEXED BY sqlite_autoindex_photos_1"
        " WHERE root_id = :root AND path = :path AND +id = :id"
    )
    place = (spare["root_id"], spare["path"])
    if (found.get("root_id"), found.get("path")) == place:
        return True
    values = {"root": place[0], "path": place[1], "id": row_id}
    return connection.execute(text(query), values).first() is not None


def _drop_photo(connection: Connection, row_id: int, seq: int) -> None:
    """Forget a photo, so that the next run finds its file as new."""
    for child in OF_PHOTOS:
        connection.execute(delete(child).where(child.c.photo_id == row_id))
    _delete(connection, photos, row_id, seq)
    connection.execute(update(state).values(purge_seq=seq))


def _mend_root(connection: Connection, table: Table, row_id: int, found: dict[str, Any], source: Source) -> Remedy:
    spare = source.row(table, found.get("crc"), row_id)
    if spare and spare["id"] == row_id:
        loss = f"{NOTHING}: restored from the last generation"
        return Remedy(_bad_row(table, row_id, loss), partial(_put, connection, table, row_id, spare))
    # Its index keeps the path a second time; the one that leads to a folder is right.
    paths = [path for path in (found.get("path"), _indexed_root(connection, row_id)) if isinstance(path, bytes)]
    path = next((path for path in paths if b"\0" not in path and os.path.isdir(path)), None)
    if path is not None:
        row = {"id": row_id, "path": path, "file_system": None}
        loss = f"{NOTHING}: {os.fsdecode(path)} is there"
        return Remedy(_bad_row(table, row_id, loss), partial(_put, connection, table, row_id, row))
    return Remedy(_bad_row(table, row_id, REBUILD))


def _indexed_root(connection: Connection, row_id: int) -> bytes | None:
    query = "SELECT id, CAST(path AS BLOB) FROM roots INDEXED BY sqlite_autoindex_roots_1 WHERE path >= x''"
    rows = connection.execute(text(query)).all()
    return next((path for id_, path in rows if id_ == row_id), None)


def _mend_encoder(
    connection: Connection, table: Table, row_id: int, found: dict[str, Any], source: Source
) -> Remedy:
    spare = source.row(table, found.get("crc"), row_id)
    if spare and spare["id"] == row_id:
        loss = f"{NOTHING}: restored from the last generation"
        return Remedy(_bad_row(table, row_id, loss), partial(_put, connection, table, row_id, spare))
    used = select(func.count()).select_from(embeddings).where(embeddings.c.encoder_id == row_id)
    if not connection.execute(used).scalar_one():
        loss = f"{NOTHING}: no photo has a vector by it"
        return Remedy(_bad_row(table, row_id, loss), partial(_delete, connection, table, row_id))
    return Remedy(_bad_row(table, row_id, "can't be repaired; run 'search rebuild'"))


def _mend_other(
    connection: Connection, table: Table, row_id: int, found: dict[str, Any], source: Source
) -> Remedy:
    spare = source.row(table, found.get("crc"))
    if spare:
        loss = f"{NOTHING}: restored from the last generation"
        return Remedy(_bad_row(table, row_id, loss), partial(_put, connection, table, row_id, spare))
    loss = _LOSSES.get(table, f"{NOTHING}: dropped, the next run makes it anew")
    return Remedy(_bad_row(table, row_id, loss), partial(_delete, connection, table, row_id))


_LOSSES = {
    labels: "1 label of 1 photo",
    verdicts: "what was said of 1 label of 1 photo",
    sidecars: "what 1 sidecar was like before labels were written into it",
}


def _mend_run(connection: Connection, table: Table, row_id: int, found: dict[str, Any], source: Source) -> Remedy:
    """A run that can't be restored keeps its number, so that what it wrote can be taken back all the same."""
    spare = source.row(table, found.get("crc"), row_id)
    if spare and spare["id"] == row_id:
        loss = f"{NOTHING}: restored from the last generation"
        return Remedy(_bad_row(table, row_id, loss), partial(_put, connection, table, row_id, spare))
    return Remedy(
        _bad_row(table, row_id, "what is known of 1 run but its number"),
        partial(_stand_in, connection, [row_id]),
    )


def _stand_in(connection: Connection, ids: Sequence[int], _: int) -> None:
    for id_ in ids:
        connection.execute(delete(runs).where(runs.c.id == id_))
        connection.execute(insert(runs).values(stand_in(connection, id_)))


def _mend_state(
    connection: Connection, table: Table, row_id: int, found: dict[str, Any], source: Source
) -> Remedy:
    spare = source.row(table, found.get("crc")) or source.row(table, None, 1) or {}
    problem = _bad_row(table, row_id, f"{NOTHING}: made anew from the other tables")

    def apply(_: int) -> None:
        connection.execute(delete(state))
        values = _made_state(connection, found, spare) | _published(source, found)
        connection.execute(insert(state).values(values))

    return Remedy(problem, apply, early=True)


def _made_state(connection: Connection, found: dict[str, Any], spare: dict[str, Any]) -> dict[str, Any]:
    """The one row of `state`, from what else is known; readers are told to read everything anew."""
    last = connection.execute(text("SELECT max(seq) FROM photos WHERE typeof(seq) = 'integer'")).scalar() or 0
    seqs = [value for value in (last, spare.get("seq"), found.get("seq")) if isinstance(value, int)]
    seq = max(value for value in seqs if value < last + 2**32) + 1
    most = select(embeddings.c.encoder_id).group_by(embeddings.c.encoder_id).order_by(func.count().desc()).limit(1)
    known = set(connection.execute(select(encoders.c.id)).scalars())
    answering = next(
        (id_ for id_ in (spare.get("encoder_id"), found.get("encoder_id")) if id_ in known),
        connection.execute(most).scalar(),
    )
    return {
        "id": 1,
        "uuid": spare.get("uuid") or _as_uuid(found.get("uuid")) or str(uuid.uuid4()),
        "seq": seq,
        "purge_seq": seq,
        "encoder_id": answering,
        "schema_crc": spare.get("schema_crc") or schema_checksum(connection),
        "index_url": spare.get("index_url"),  # what lies there is filled anew
    }


def _published(source: Source, found: dict[str, Any]) -> dict[str, Any]:
    """Name the generation that the state named, else the newest that is sound."""
    named = found.get("generation_hash")
    every = [copy.published for copy in source.copies if copy.published]
    for number, seq, manifest_hash in [*(one for one in every if one[2].encode() == named), *every]:
        return {"generation": number, "generation_seq": seq, "generation_hash": manifest_hash}
    return {}


def _as_uuid(value: Any) -> str | None:
    try:
        return str(uuid.UUID(value.decode()))
    except (AttributeError, ValueError):
        return None


# ---- vectors


def _vectors(connection: Connection, bad: list[BadVector], source: Source) -> Iterator[Remedy]:
    ids = [vector.photo_id for vector in bad if vector.photo_id is not None]
    known = places(connection, ids)
    for vector in bad:
        path = known.get(vector.photo_id or 0)
        blob = source.vector(connection, vector)
        loss = f"{NOTHING}: restored from the last generation" if blob else "1 photo to encode again"
        detail = f"{path or f'photo {vector.photo_id}'}: {vector.wrong}"
        problem = Problem(ProblemKind.VECTOR_DAMAGED, detail, loss, path=path, id=vector.photo_id)
        yield Remedy(problem, partial(_mend_vector, connection, vector, blob))


def _mend_vector(connection: Connection, bad: BadVector, blob: bytes | None, seq: int) -> None:
    """Put a vector's bytes back, or drop it so that the next run encodes the photo again."""
    if bad.row_id is not None:
        this: Any = literal_column("_rowid_") == bad.row_id
    else:
        this = and_(embeddings.c.encoder_id == bad.encoder_id, embeddings.c.photo_id == bad.photo_id)
    if blob is None:
        connection.execute(delete(embeddings).where(this))
    else:
        crc = checksum(blob, bad.photo_id or 0, bad.encoder_id or 0)
        connection.execute(update(embeddings).where(this).values(vector=blob, crc=crc))
    connection.execute(update(photos).where(photos.c.id == bad.photo_id).values(seq=seq))


# ---- references


def _orphans(connection: Connection, source: Source, done: set[int | None]) -> Iterator[Remedy]:
    """Rows whose parent is missing; a parent that the copy has comes back, other rows go."""
    tables = {table.name: table for table in metadata.sorted_tables}
    for (name, parent), row_ids in orphans(connection).items():
        left = [row_id for row_id in row_ids if name != "embeddings" or row_id not in done]
        if not left or name not in tables or parent not in tables:
            continue
        child, column = tables[name], _reference(tables[name], parent)
        wanted = {raw_row(connection, child, row_id).get(column) for row_id in left}
        spares = {id_: source.row(tables[parent], None, id_) for id_ in wanted if isinstance(id_, int)}
        detail = f"{len(left)} rows of {name} refer to no row of {parent}, the first is row {left[0]}"
        if spares and all(spares.values()) and len(spares) == len(wanted):
            loss = f"{NOTHING}: {len(spares)} rows of {parent} are restored from the last generation"
            yield Remedy(
                _damage(detail, loss),
                partial(_put_all, connection, tables[parent], spares),
                rows=len(spares),
            )
        elif parent == "runs":
            ids = sorted(id_ for id_ in wanted if isinstance(id_, int))
            loss = f"what is known of {len(ids)} runs but their numbers"
            yield Remedy(_damage(detail, loss), partial(_stand_in, connection, ids), rows=len(ids))
        elif parent in ("photos", "jobs") or name == "heads":
            what = {"embeddings": "vectors", "labels": "labels", "verdicts": "verdicts"}.get(name, "rows")
            yield Remedy(_damage(detail, f"{len(left)} {what} are dropped"), _by_the_end, rows=len(left))
        else:
            yield Remedy(_damage(detail, REBUILD))


def _reference(child: Table, parent: str) -> str:
    return next(key.parent.name for key in child.foreign_keys if key.column.table.name == parent)


def _drop_orphans(connection: Connection, seq: int) -> None:
    """Drop what belongs to photos and jobs that are not there, once all that could come back is back."""
    for child, parent in (*((child, photos) for child in OF_PHOTOS), (in_flight, jobs), (heads, encoders)):
        column = child.c[_reference(child, parent.name)]
        connection.execute(delete(child).where(not_(column.in_(select(parent.c.id)))))


def _by_the_end(seq: int) -> None:
    """Do nothing: indexes are made anew and orphans dropped at the end of every repair."""


def _put_all(connection: Connection, table: Table, rows: dict[int, dict[str, Any] | None], seq: int) -> None:
    for row_id, row in rows.items():
        if row is not None:
            _put(connection, table, row_id, row, seq)


def _put(connection: Connection, table: Table, row_id: int, row: dict[str, Any], seq: int) -> None:
    """Replace the row at a row id by raw values; the commit seals it."""
    _delete(connection, table, row_id, seq)
    if table is photos:
        row = row | {"seq": seq}  # readers must see it anew
    values = {name: value for name, value in row.items() if name != "crc"}
    columns, marks = ", ".join(values), ", ".join("?" * len(values))
    connection.exec_driver_sql(
        f"INSERT INTO {table.name} ({columns}) VALUES ({marks})",  # noqa: S608 - names are the schema's own
        tuple(values.values()),
    )


def _delete(connection: Connection, table: Table, row_id: int, _: int) -> None:
    connection.execute(delete(table).where(literal_column("_rowid_") == row_id))


class Source:
    """Where sound rows and vectors can be had from: the newest generation and what it keeps, or nowhere."""

    def __init__(self, copy: Copy | None) -> None:
        self.copies = [] if copy is None else [copy, *copy.others]
        self._open: list[_Opened] = []

    def __enter__(self) -> Source:
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
        uri = f"file:{quote(os.fsencode(copy.rows_path))}?mode=ro&immutable=1"
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
