"""One run's scan against what is known: a verdict for every file, moves told by content, what is gone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    ColumnElement,
    and_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    not_,
    or_,
    select,
    text,
    true,
    tuple_,
    update,
)

from search.addresses import relative
from search.catalog.doubts import Doubts, is_nowhere
from search.catalog.found import Matched, Recognised, ScannedFile, Settled, Settlement, Verdict
from search.catalog.look import FILE, as_known, rows_of
from search.catalog.moves import Known, Place, Resolution, Waiting, resolve
from search.catalog.roots import within_any
from search.catalog.rows import checksum, chunks, to_bytes, to_path
from search.catalog.schema import embeddings, photos, pictures, roots, scanned, skips
from search.catalog.scopes import Scope
from search.catalog.seals import holds
from search.catalog.standing import classified, embedded, here, same_stat, scanned_as_is
from search.catalog.transaction import commit, now
from search.types import FileStat, Skip

if TYPE_CHECKING:
    from sqlalchemy import Connection

_PAGE = 1024  # files handed out at a time
_MAX_TERMS = 200  # scopes in one statement: SQLite allows an expression no more than 1,000 levels

# One statement for thousands of files, where each by itself would be told to a server.
_NOTE_ALL = text(
    "INSERT INTO scanned (root_id, path, size_bytes, mtime_ns, ctime_ns) SELECT :root_id, * FROM unnest("
    "CAST(:path AS bytea[]), CAST(:size_bytes AS bigint[]), CAST(:mtime_ns AS bigint[]), CAST(:ctime_ns AS bigint[])) "
    "ON CONFLICT DO NOTHING"
)
# What a copy of a photo takes over with its content.
_CONTENT = (
    photos.c.content_hash,
    photos.c.format,
    photos.c.width,
    photos.c.height,
    photos.c.orientation,
    photos.c.taken_at,
    photos.c.taken_offset_s,
    photos.c.taken_at_source,
    photos.c.camera,
    photos.c.lens,
    photos.c.latitude,
    photos.c.longitude,
    photos.c.rating,
)


class Scan:
    """What one run found on disk, in a temporary table beside the catalog.

    encoder_id: the model whose vectors are wanted.   settled: skips not to try again.   file_system: tells what a
    folder lies on now, None if it can't.
    """

    def __init__(
        self,
        connection: Connection,
        encoder_id: int,
        settled: Settled,
        *,
        file_system: Callable[[str], str | None] = lambda _: None,
    ) -> None:
        self._connection = connection
        self._doubts = Doubts(connection, file_system)
        self._encoder_id = encoder_id
        self._settled = settled
        self._classified = classified(encoder_id, settled).subquery()
        self._scopes: list[Scope] = []
        self._unknown: list[Scope] = []
        self._looked = False
        self._lost: set[int] = set()  # photos not found, as known before any moved
        self._waiting = Waiting()
        self._unread: set[int] = set()  # photos whose file could not be hashed
        self._freed: list[Any] = []  # gone photos that made room: id, root and the place they had
        self._doubted: set[int] = set()  # roots of this run whose drive may be away
        self._strays: set[tuple[int, int]] = set()  # root and size of the files that are no photos as they stand
        with connection.begin():
            scanned.drop(connection, checkfirst=True)
            scanned.create(connection)

    def cover(self, scope: Scope, file_system: str | None = None) -> None:
        """Count what is in this scope and not found as gone, unless there is reason to doubt it.

        file_system: what the root lies on now, None if that can't be told.
        """
        self._scopes.append(scope)
        self._doubts.note(scope.root_id, file_system)

    def unknown(self, scope: Scope, path: str) -> None:
        """Except a file or folder that could not be looked at: nothing there is gone."""
        self._unknown.append(Scope(scope.root_id, scope.root, relative(path, scope.root)))

    def record(self, scope: Scope, files: Iterable[FileStat]) -> None:
        """Note files found in a scope; scope after scope."""
        self._insert(scope.root_id, rows_of(scope, files))

    def record_known(self, matched: Matched) -> None:
        """Note the files of a scope that a look (search.catalog.look) met before one differed."""
        known = as_known(matched.scope, self._encoder_id, self._settled)
        with self._connection.begin():
            for table, rows in known.items():
                found = f"SELECT root_id, {FILE} FROM {table} WHERE {rows.sql} AND path <= :last"  # noqa: S608
                into = f"INSERT INTO scanned (root_id, {FILE}) {found} ON CONFLICT DO NOTHING"
                self._connection.execute(text(into), {**rows.values, "last": matched.last})

    def _insert(self, root_id: int, rows: Sequence[tuple[Any, ...]]) -> None:
        names = ("root_id", "path", "size_bytes", "mtime_ns", "ctime_ns")
        if not rows:
            return
        with self._connection.begin():
            if self._connection.dialect.name == "postgresql":
                columns = zip(*rows, strict=True)
                values = dict(zip(names, (root_id, *map(list, columns)), strict=True))
                self._connection.execute(_NOTE_ALL, values)
                return
            found = [dict(zip(names, (root_id, *row), strict=True)) for row in rows]
            self._connection.execute(insert(scanned).prefix_with("OR IGNORE", dialect="sqlite"), found)

    def free_places(self) -> None:
        """Let a file that stands where a gone photo was be a photo of its own; by content it may still be that one.

        Where only the change time differs the content decides, once it is known.
        """
        another = or_(photos.c.size_bytes != scanned.c.size_bytes, photos.c.mtime_ns != scanned.c.mtime_ns)
        columns = select(photos.c.id, photos.c.root_id, photos.c.path)
        query = columns.join(scanned, here()).where(photos.c.gone_at.is_not(None), another)
        with commit(self._connection):
            self._freed = list(self._connection.execute(query).all())
            self._update([{"row_id": row.id, "path": _parking(row.id)} for row in self._freed])

    def take_back_places(self) -> None:
        """Give gone photos that made room for a file their place again if no photo came of that file.

        It could not be read, so it may still be theirs.
        """
        back = []
        if not self._freed:
            return
        with self._connection.begin():
            for row in self._freed:
                here = and_(photos.c.root_id == row.root_id, photos.c.path == row.path)
                parked = and_(photos.c.id == row.id, photos.c.path == _parking(row.id))
                query = select(photos.c.id).where(or_(here, parked))
                if self._connection.execute(query).scalars().all() == [row.id]:
                    back.append({"row_id": row.id, "path": row.path})
        if back:
            with commit(self._connection):
                self._update(back)

    def verdicts(self) -> dict[Verdict, int]:
        """Count the files by verdict, as things stand now."""
        query = select(self._classified.c.verdict, func.count()).group_by(self._classified.c.verdict)
        with self._connection.begin():
            if self._connection.dialect.name == "postgresql":
                self._connection.execute(text("ANALYZE scanned"))  # nobody else counts a temporary table's rows
            found = {Verdict(verdict): count for verdict, count in self._connection.execute(query)}
        return {verdict: found.get(verdict, 0) for verdict in Verdict}

    def files(self, *wanted: Verdict) -> Iterator[list[ScannedFile]]:
        """Yield the files of these verdicts, page by page; what is committed meanwhile drops out."""
        table = self._classified.c
        query = (
            select(self._classified, roots.c.path.label("root"))
            .join(roots, roots.c.id == table.root_id)
            .where(table.verdict.in_(wanted))
            .order_by(table.root_id, table.path)
            .limit(_PAGE)
        )
        after: ColumnElement[bool] = true()
        while True:
            with self._connection.begin():
                rows = self._connection.execute(query.where(after)).all()
            if not rows:
                return
            yield [_scanned_file(row) for row in rows]
            after = tuple_(table.root_id, table.path) > (rows[-1].root_id, rows[-1].path)

    def at(self, root_id: int, relative: Iterable[str], *wanted: Verdict) -> list[ScannedFile]:
        """Return those of some files of a root, by their paths in it, that have one of these verdicts now."""
        table = self._classified.c
        query = select(self._classified, roots.c.path.label("root")).join(roots, roots.c.id == table.root_id)
        query = query.where(table.root_id == root_id, table.verdict.in_(wanted))
        found: list[ScannedFile] = []
        with self._connection.begin():
            for some in chunks([to_bytes(path) for path in relative]):
                found += map(_scanned_file, self._connection.execute(query.where(table.path.in_(some))))
        return found

    def settled_skips(self) -> list[Skip]:
        """Return the files that are not tried again, with the reasons they had."""
        table = self._classified.c
        query = select(roots.c.path.label("root"), skips.c.path, skips.c.reason, skips.c.detail)
        query = query.join_from(skips, roots).order_by(skips.c.root_id, skips.c.path)
        same = and_(table.root_id == skips.c.root_id, table.path == skips.c.path)
        query = query.join(self._classified, same).where(table.verdict == Verdict.SETTLED)
        with self._connection.begin():
            rows = self._connection.execute(query).all()
        return [Skip(to_path(row.root, row.path), row.reason, row.detail) for row in rows]

    def recognise(
        self,
        hashes: Sequence[tuple[ScannedFile, bytes | None]],
        *,
        last: bool = True,
        confirmed: bool = False,
    ) -> Recognised:
        """Give hashed files the photos that have their content: touched, moved or copied.

        hashes: None where the file could not be read.   last: no more come; until then files wait whose match hangs
        on others, so that the pieces a run hashes in make no difference.   confirmed: what the run did not find is
        gone, says the user; else the photos of a drive that may be away stay, and files with their content are
        copies.
        """
        self._unread |= {
            file.photo_id for file, content in hashes if content is None and file.photo_id is not None
        }
        with commit(self._connection) as seq:
            self._look_before_moves(confirmed=confirmed)
            places, back = self._told_from_gone([_place(file, content) for file, content in hashes if content])
            found = self._resolved(places, last=last)
            self._carry_out(found, seq)
        moved = {id_ for id_, _ in found.moved}
        self._waiting.part(moved)
        self._lost -= moved
        returned = sum(id_ in back for id_, _ in found.touched)
        new = sum(place.photo_id is None for _, place in found.copied)
        return Recognised(
            touched=len(found.touched) - returned,
            moved=len(found.moved),
            added=new + returned,
            updated=len(found.copied) - new,
            gone=len(found.parked),
        )

    def _resolved(self, places: list[Place], *, last: bool) -> Resolution:
        """Tell which photos files are; those that can't be told before others are hashed wait."""
        if last:
            places = sorted(self._waiting.places + places, key=lambda place: (place.root_id, place.path))
            return resolve(places, self._known(places))
        known = self._known(places)
        return resolve(self._waiting.split(places, known, self._undecided(known, places)), known)

    def _carry_out(self, found: Resolution, seq: int) -> None:
        self._update([{"row_id": id_, **_stat(place, seq)} for id_, place in found.touched])
        parked = [{"row_id": id_, "path": _parking(id_)} for id_, _ in found.moved]
        self._update(parked)  # all leave before any arrives: names may have been swapped
        self._update([{"row_id": i, "path": _parking(i), "gone_at": now(), "seq": seq} for i in found.parked])
        arrived = [
            {"row_id": id_, "root_id": place.root_id, "path": place.path, **_stat(place, seq)}
            for id_, place in found.moved
        ]
        self._update(arrived)
        for source, place in found.copied:
            self._copy(source, place, seq)

    def _told_from_gone(self, places: list[Place]) -> tuple[list[Place], set[int]]:
        """Part files from the gone photos whose places they took; return the photos that are back, too."""
        gone: dict[int, bytes] = {}
        for ids in chunks([place.photo_id for place in places if place.photo_id is not None]):
            query = select(photos.c.id, photos.c.content_hash).where(photos.c.gone_at.is_not(None))
            rows = self._connection.execute(query.where(photos.c.id.in_(ids)))
            gone |= {row.id: row.content_hash for row in rows}
        strange = {p.photo_id for p in places if p.photo_id in gone and gone[p.photo_id] != p.content_hash}
        self._update([{"row_id": id_, "path": _parking(id_)} for id_ in sorted(filter(None, strange))])
        parted = [replace(place, photo_id=None) if place.photo_id in strange else place for place in places]
        return parted, gone.keys() - strange

    def _undecided(self, known: Sequence[Known], places: Sequence[Place]) -> set[int]:
        """Rows whose own file differs from what is known and is still to be hashed."""
        ids: set[int] = set()
        for chunk in chunks([row.id for row in known]):
            query = select(photos.c.id).join(scanned, here()).where(photos.c.id.in_(chunk), not_(same_stat()))
            ids.update(self._connection.execute(query).scalars())
        return ids - {place.photo_id for place in places} - self._waiting.held.keys() - self._unread

    def _look_before_moves(self, *, confirmed: bool) -> None:
        """Note, before any photo moves, what is not found, on which roots that is doubted, and what is new there."""
        if self._looked:
            return
        self._looked = True
        missing = self._missing()
        self._lost = {row.id for row in missing}
        if not confirmed:
            self._doubted = set(self._doubts.of(Counter(row.root_id for row in missing)))
        table = self._classified.c
        query = select(table.root_id, table.size_bytes).distinct()
        open_ = table.verdict.in_((Verdict.CHANGED, Verdict.SUSPECT))
        self._strays = {(row.root_id, row.size_bytes) for row in self._connection.execute(query.where(open_))}

    def _known(self, places: Sequence[Place]) -> list[Known]:
        """Every photo with a content that some place holds, and whether it is free to move there."""
        held = self._waiting.held | {p.photo_id: p.content_hash for p in places if p.photo_id is not None}
        query = select(
            photos.c.id,
            photos.c.root_id,
            photos.c.path,
            photos.c.size_bytes,
            photos.c.content_hash,
            photos.c.gone_at,
            roots.c.path.label("root"),
            roots.c.file_system,
            exists().where(here()).label("found"),
        ).select_from(photos.join(roots))
        contents = sorted({place.content_hash for place in places})
        known = []
        for chunk in chunks(contents):
            wanted = query.where(photos.c.content_hash.in_(chunk)).order_by(photos.c.id)
            for row in self._connection.execute(wanted).all():
                if row.id in held:
                    free = held[row.id] != row.content_hash
                else:
                    free = row.gone_at is not None or self._has_left(row)
                known.append(Known(row.id, row.path, row.content_hash, free))
        return known

    def _has_left(self, row: Any) -> bool:
        """Whether a photo is at its place no more, and not because its drive is away.

        Under a root in doubt that is believed only of a photo that may be a new or changed file of the same root:
        one of its size is there. So a renamed folder takes its photos along, however many.
        """
        if row.id not in self._lost and (row.found or not self._vanished(row)):
            return False
        return not self._in_doubt(row) or (row.root_id, row.size_bytes) in self._strays

    def _vanished(self, row: Any) -> bool:
        """Whether a photo outside this run's scopes has no file."""
        return not _is_hidden(row.root_id, row.path, self._hidden()) and is_nowhere(to_path(row.root, row.path))

    def _in_doubt(self, row: Any) -> bool:
        """Whether the drive of a photo that is not there may be away; told once by root, before its photos move."""
        if row.root_id in self._doubted or row.id in self._lost:
            return row.root_id in self._doubted
        return self._doubts.is_away(row)

    def _update(self, rows: list[dict[str, Any]]) -> None:
        """Update photos by id; all rows set the same columns."""
        if rows:
            columns: dict[str, Any] = {name: bindparam(f"new_{name}") for name in rows[0] if name != "row_id"}
            self._connection.execute(
                update(photos).where(photos.c.id == bindparam("row_id")).values(columns),
                [{(k if k == "row_id" else f"new_{k}"): v for k, v in row.items()} for row in rows],
            )

    def _copy(self, source: int, place: Place, seq: int) -> None:
        """Let a place have a photo of its own with the content of another, and all that was made of its pixels.

        Its keywords are left to be read: they may come from a file beside it.
        """
        content = self._connection.execute(select(*_CONTENT).where(photos.c.id == source)).one()._asdict()
        if place.photo_id is None:
            values = content | {"root_id": place.root_id, "path": place.path, **_stat(place, seq)}
            statement = insert(photos).values(values).returning(photos.c.id)
            target = self._connection.execute(statement).scalar_one()
        else:
            target = place.photo_id
            self._update([{"row_id": target, **content, **_stat(place, seq)}])
            for table in (embeddings, pictures):
                self._connection.execute(delete(table).where(table.c.photo_id == target))
        for row in self._connection.execute(select(embeddings).where(embeddings.c.photo_id == source)).all():
            if checksum(row.vector, source, row.encoder_id) == row.crc:  # a damaged one must not be signed anew
                crc = checksum(row.vector, target, row.encoder_id)
                values = {"encoder_id": row.encoder_id, "photo_id": target, "vector": row.vector, "crc": crc}
                self._connection.execute(insert(embeddings).values(values))
        sound = holds(pictures) if self._connection.dialect.name == "sqlite" else true()
        picture = select(pictures).where(pictures.c.photo_id == source, sound)
        for row in self._connection.execute(picture).all():
            values = row._asdict() | {"photo_id": target, "crc": None}
            self._connection.execute(insert(pictures).values(values))

    def settle(self, *, confirmed: bool = False) -> Settlement:
        """Welcome back photos that returned and mark those not found as gone.

        Gone photos keep their row, vectors and labels, and answer no query. Skips of files that are gone, or that
        are photos as they stand now, are forgotten. Where so many are missing that a drive may be away, or the root
        lies on another file system than before, all stay.   confirmed: the user says that they are gone.
        """
        returned = and_(photos.c.gone_at.is_not(None), embedded(self._encoder_id), scanned_as_is())
        with commit(self._connection) as seq:
            back = self._connection.execute(update(photos).where(returned).values(gone_at=None, seq=seq))
            missing = self._missing()
            doubts = {} if confirmed else self._doubts.of(Counter(row.root_id for row in missing))
            self._scopes = [scope for scope in self._scopes if scope.root_id not in doubts]
            gone = [row.id for row in missing if row.root_id not in doubts]
            self._update([{"row_id": id_, "gone_at": now(), "seq": seq} for id_ in gone])
            self._forget_skips()
            self._fill_in_change_times()
            self._doubts.remember({scope.root_id for scope in self._scopes})
        return Settlement(back.rowcount, len(gone), tuple(doubts.values()))

    def gone_since(self, before: datetime) -> list[int]:
        """Return the photos gone since before a moment (UTC, naive) that this run looked for in vain, by id.

        Not those whose folder could not be looked at or whose place has a file, readable or not; call it after
        `settle` and `take_back_places`.
        """
        columns = (photos.c.root_id, photos.c.path, photos.c.id)
        with self._connection.begin():
            rows = self._not_found(photos, columns, photos.c.gone_at < before)
        return sorted({row.id for row in rows})

    def _fill_in_change_times(self) -> None:
        """Let rows older than the column have the change time of their file, which is as they know it otherwise."""
        for table in (photos, skips):
            here = and_(scanned.c.root_id == table.c.root_id, scanned.c.path == table.c.path)
            same = and_(table.c.size_bytes == scanned.c.size_bytes, table.c.mtime_ns == scanned.c.mtime_ns)
            found = select(scanned.c.ctime_ns).where(here).scalar_subquery()
            unknown = and_(table.c.ctime_ns.is_(None), exists().where(here, same, scanned.c.ctime_ns.is_not(None)))
            self._connection.execute(update(table).where(unknown).values(ctime_ns=found))

    def _missing(self) -> list[Any]:
        """Photos present that this run looked for and did not find: id and root, each once."""
        columns = (photos.c.root_id, photos.c.path, photos.c.id)
        rows = self._not_found(photos, columns, photos.c.gone_at.is_(None))
        return sorted({row.id: row for row in rows}.values(), key=lambda row: row.id)

    def _forget_skips(self) -> None:
        here = and_(skips.c.root_id == photos.c.root_id, skips.c.path == photos.c.path)
        indexed = exists().where(here, photos.c.gone_at.is_(None), scanned_as_is())
        self._connection.execute(delete(skips).where(indexed))
        place = and_(skips.c.root_id == bindparam("in_root"), skips.c.path == bindparam("place"))
        gone = [{"in_root": row.root_id, "place": row.path} for row in self._not_found(skips, tuple(skips.c))]
        if gone:
            self._connection.execute(delete(skips).where(place), gone)

    def _not_found(self, table: Any, columns: Sequence[Any], *wanted: ColumnElement[bool]) -> list[Any]:
        """Rows of photos or skips in this run's scopes that no file was found for, unless nobody could look."""
        found = exists().where(scanned.c.root_id == table.c.root_id, scanned.c.path == table.c.path)
        hidden = self._hidden()
        rows: list[Any] = []
        for scopes in chunks(self._scopes, _MAX_TERMS):
            covered = within_any(table, scopes)
            query = select(*columns).where(covered, not_(found), *wanted)
            rows += self._connection.execute(query).all()
        return [row for row in rows if not _is_hidden(row.root_id, row.path, hidden)]

    def _hidden(self) -> set[tuple[int, bytes]]:
        return {(scope.root_id, to_bytes(scope.relative)) for scope in self._unknown}


def _scanned_file(row: Any) -> ScannedFile:
    stat = FileStat(to_path(row.root, row.path), row.size_bytes, row.mtime_ns, row.ctime_ns)
    return ScannedFile(row.root_id, row.path, stat, Verdict(row.verdict), row.photo_id)


def _place(file: ScannedFile, content: bytes) -> Place:
    stat = file.stat
    return Place(
        file.root_id, file.place, stat.size_bytes, stat.mtime_ns, content, file.photo_id, ctime_ns=stat.ctime_ns
    )


def _stat(place: Place, seq: int) -> dict[str, Any]:
    return {
        "size_bytes": place.size_bytes,
        "mtime_ns": place.mtime_ns,
        "ctime_ns": place.ctime_ns,
        "gone_at": None,
        "seq": seq,
        "reader": None,  # what lies beside it may be new, or changed
    }


def _is_hidden(root_id: int, place: bytes, hidden: set[tuple[int, bytes]]) -> bool:
    """Whether a place or a folder above it could not be looked at."""
    if not hidden:
        return False
    parts = place.split(b"/")
    return (root_id, b".") in hidden or any(
        (root_id, b"/".join(parts[:depth])) in hidden for depth in range(1, len(parts) + 1)
    )


def _parking(id_: int) -> bytes:
    """A place that no file can have."""
    return b"\0%d" % id_
