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
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from search.catalog.rows import checksum
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
from search.catalog.seals import SEALED, holds, schema_checksum
from search.catalog.spares import Copy, Spares
from search.catalog.standing import lacking
from search.catalog.tagging import settle_all, stand_in
from search.catalog.transaction import commit
from search.failpoints import reach
from search.files import fsync_file, fsync_folder
from search.plurals import count_of
from search.types import Problem, ProblemKind

if TYPE_CHECKING:
    from sqlalchemy import Connection


NOTHING = "nothing is lost"
RESTORED = f"{NOTHING}: restored from the last generation"
UNSAID = (NoResultFound, UnicodeDecodeError)
"""What asking a catalog for its damaged state may end with, beside LibraryErrors."""

_ROW_LEVEL = re.compile(r"(NULL|TEXT|NUMERIC|BLOB|INTEGER|REAL|non-\w+) value in |CHECK constraint failed")
_MENDED_BY_REINDEX = ("missing from index", "wrong # of entries in index", "non-unique entry in index")


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
    with Spares(copy) as spares:
        with connection.begin():
            every = list(remedies(connection, spares))
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


def remedies(connection: Connection, spares: Spares) -> Iterator[Remedy]:
    """Yield every problem of the catalog with its remedy, the structure's first."""
    lite = connection.dialect.name == "sqlite"
    if lite:
        yield from _told(lambda: _structure(connection), "its structure")
        for table in SEALED:
            yield from _told(partial(_rows, connection, table, spares), f"its table {table.name}")
    bad: list[BadVector] = []
    for found in readable(lambda: damaged_vectors(connection), "its vectors"):
        if isinstance(found, Problem):
            yield Remedy(found)
        else:
            bad.append(found)
    yield from _told(lambda: _vectors(connection, bad, spares), "its vectors")
    if lite:
        done = {vector.row_id for vector in bad}
        yield from _told(lambda: _orphans(connection, spares, done), "its references")
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
        detail = f"{count_of(count, 'photo has', 'photos have')} no vector by the model that answers"
        loss = f"{count_of(count, 'photo')} to encode again, by the next 'search index'"
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


@dataclass(frozen=True, slots=True)
class _BadRow:
    """A row that is not what was written.   found: its values, as far as they can be read."""

    connection: Connection
    table: Table
    row_id: int
    found: dict[str, Any]
    spares: Spares

    def spare(self) -> dict[str, Any] | None:
        """Return the row of a copy by its checksum, else by its id, which it must have either way."""
        row = self.spares.row(self.table, self.found.get("crc"), self.row_id)
        return row if row and row["id"] == self.row_id else None

    def remedy(self, loss: str, apply: Callable[[int], None] | None = None, **where: Any) -> Remedy:
        """Return what mends it.   where: path and id of the photo that it is about."""
        detail = f"row {self.row_id} of {self.table.name} is not what was written"
        if path := where.get("path"):
            detail = f"{path}: {detail}"
        return Remedy(Problem(ProblemKind.ROW_DAMAGED, detail, loss, **where), apply)

    def replaced(self, row: dict[str, Any], loss: str = RESTORED, **where: Any) -> Remedy:
        return self.remedy(loss, partial(_put, self.connection, self.table, self.row_id, row), **where)

    def dropped(self, loss: str) -> Remedy:
        return self.remedy(loss, partial(_delete, self.connection, self.table, self.row_id))


def _rows(connection: Connection, table: Table, spares: Spares) -> Iterator[Remedy]:
    mend = {
        state: _mend_state,
        roots: _mend_root,
        encoders: _mend_encoder,
        photos: _mend_photo,
        runs: _mend_run,
    }.get(table, _mend_other)
    for row_id in list(damaged_rows(connection, table)):
        yield mend(_BadRow(connection, table, row_id, raw_row(connection, table, row_id), spares))
    if table is state and connection.execute(select(func.count()).select_from(state)).scalar_one() != 1:
        yield _mend_state(_BadRow(connection, state, 0, {}, spares))


def _mend_photo(bad: _BadRow) -> Remedy:
    path = places(bad.connection, [bad.row_id]).get(bad.row_id)
    spare = bad.spare()
    if spare and _is_of(bad, spare):
        return bad.replaced(spare, path=path, id=bad.row_id)
    own = select(func.count()).select_from(labels).where(labels.c.photo_id == bad.row_id)
    labelled = bad.connection.execute(own).scalar_one()
    loss = "1 photo to encode again" + (f", and its {count_of(labelled, 'label')} lost" if labelled else "")
    return bad.remedy(loss, partial(_drop_photo, bad.connection, bad.row_id), path=path, id=bad.row_id)


def _is_of(bad: _BadRow, spare: dict[str, Any]) -> bool:
    """Whether a copy's row is that of the same photo: of another commit only if file and place were the same then."""
    found = bad.found
    if spare["crc"] == found.get("crc"):
        return True
    same = ("size_bytes", "mtime_ns", "content_hash")
    if spare["seq"] != found.get("seq") and any(spare[name] != found.get(name) for name in same):
        return False
    return _is_at(bad.connection, bad.row_id, found, spare)


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


def _mend_root(bad: _BadRow) -> Remedy:
    if spare := bad.spare():
        return bad.replaced(spare)
    # Its index keeps the path a second time; the one that leads to a folder is right.
    told = (bad.found.get("path"), _indexed_root(bad.connection, bad.row_id))
    paths = [path for path in told if isinstance(path, bytes)]
    path = next((path for path in paths if b"\0" not in path and os.path.isdir(path)), None)
    if path is None:
        return bad.remedy(REBUILD)
    row = {"id": bad.row_id, "path": path, "file_system": None}
    return bad.replaced(row, f"{NOTHING}: {os.fsdecode(path)} is there")


def _indexed_root(connection: Connection, row_id: int) -> bytes | None:
    query = "SELECT id, CAST(path AS BLOB) FROM roots INDEXED BY sqlite_autoindex_roots_1 WHERE path >= x''"
    rows = connection.execute(text(query)).all()
    return next((path for id_, path in rows if id_ == row_id), None)


def _mend_encoder(bad: _BadRow) -> Remedy:
    if spare := bad.spare():
        return bad.replaced(spare)
    used = select(func.count()).select_from(embeddings).where(embeddings.c.encoder_id == bad.row_id)
    if bad.connection.execute(used).scalar_one():
        return bad.remedy("can't be repaired; run 'search rebuild'")
    return bad.dropped(f"{NOTHING}: no photo has a vector by it")


def _mend_other(bad: _BadRow) -> Remedy:
    if spare := bad.spares.row(bad.table, bad.found.get("crc")):
        return bad.replaced(spare)
    return bad.dropped(_LOSSES.get(bad.table, f"{NOTHING}: dropped, the next run makes it anew"))


_LOSSES = {
    labels: "1 label of 1 photo",
    verdicts: "what was said of 1 label of 1 photo",
    sidecars: "what 1 sidecar was like before labels were written into it",
}


def _mend_run(bad: _BadRow) -> Remedy:
    """A run that can't be restored keeps its number, so that what it wrote can be taken back all the same."""
    if spare := bad.spare():
        return bad.replaced(spare)
    loss = "what is known of 1 run but its number"
    return bad.remedy(loss, partial(_stand_in, bad.connection, [bad.row_id]))


def _stand_in(connection: Connection, ids: Sequence[int], _: int) -> None:
    for id_ in ids:
        connection.execute(delete(runs).where(runs.c.id == id_))
        connection.execute(insert(runs).values(stand_in(connection, id_)))


def _mend_state(bad: _BadRow) -> Remedy:
    spare = bad.spares.row(state, bad.found.get("crc")) or bad.spares.row(state, None, 1) or {}

    def apply(_: int) -> None:
        bad.connection.execute(delete(state))
        values = _made_state(bad.connection, bad.found, spare) | _published(bad.spares, bad.found)
        bad.connection.execute(insert(state).values(values))

    return replace(bad.remedy(f"{NOTHING}: made anew from the other tables", apply), early=True)


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


def _published(spares: Spares, found: dict[str, Any]) -> dict[str, Any]:
    """Name the generation that the state named, else the newest that is sound."""
    named = found.get("generation_hash")
    every = [copy.published for copy in spares.copies if copy.published]
    for number, seq, manifest_hash in [*(one for one in every if one[2].encode() == named), *every]:
        return {"generation": number, "generation_seq": seq, "generation_hash": manifest_hash}
    return {}


def _as_uuid(value: Any) -> str | None:
    try:
        return str(uuid.UUID(value.decode()))
    except (AttributeError, ValueError):
        return None


# ---- vectors


def _vectors(connection: Connection, bad: list[BadVector], spares: Spares) -> Iterator[Remedy]:
    ids = [vector.photo_id for vector in bad if vector.photo_id is not None]
    known = places(connection, ids)
    for vector in bad:
        path = known.get(vector.photo_id or 0)
        blob = spares.vector(connection, vector)
        loss = RESTORED if blob else "1 photo to encode again"
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


def _orphans(connection: Connection, spares: Spares, done: set[int | None]) -> Iterator[Remedy]:
    """Rows whose parent is missing; a parent that the copy has comes back, other rows go."""
    tables = {table.name: table for table in metadata.sorted_tables}
    for (name, parent), row_ids in orphans(connection).items():
        left = [row_id for row_id in row_ids if name != "embeddings" or row_id not in done]
        if not left or name not in tables or parent not in tables:
            continue
        child, column = tables[name], _reference(tables[name], parent)
        wanted = {raw_row(connection, child, row_id).get(column) for row_id in left}
        spare = {id_: spares.row(tables[parent], None, id_) for id_ in wanted if isinstance(id_, int)}
        kept = {id_: row for id_, row in spare.items() if row is not None}
        detail = f"{count_of(len(left), 'row')} of {name} with no row of {parent}, the first is row {left[0]}"
        if kept and len(kept) == len(wanted):
            loss = f"{NOTHING}: {len(kept)} rows of {parent} are restored from the last generation"
            yield Remedy(
                _damage(detail, loss),
                partial(_put_all, connection, tables[parent], kept),
                rows=len(kept),
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


def _put_all(connection: Connection, table: Table, rows: dict[int, dict[str, Any]], seq: int) -> None:
    for row_id, row in rows.items():
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
