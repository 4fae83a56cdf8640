"""The writing half of the catalog. Every method is one transaction, durable when it returns."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import and_, bindparam, delete, func, insert, select, true, update
from sqlalchemy.exc import SQLAlchemyError

from search.addresses import is_inside, relative
from search.catalog import jobs
from search.catalog.engines import compact
from search.catalog.found import Record, ScannedFile, Settled, Verdict
from search.catalog.repair import repair
from search.catalog.roots import add_root, find_scope, within
from search.catalog.rows import chunks, info_columns, pack_vector, said_columns, to_bytes
from search.catalog.scan import Scan
from search.catalog.schema import (
    OF_PHOTOS,
    embeddings,
    encoders,
    in_flight,
    photos,
    pictures,
    roots,
    skips,
    state,
)
from search.catalog.scopes import Scope
from search.catalog.seals import holds
from search.catalog.spares import Copy
from search.catalog.standing import lacking
from search.catalog.tagging import TagWriter, put_keywords, put_labels
from search.catalog.transaction import commit, now
from search.errors import LibraryError, UsageError
from search.failpoints import reach
from search.types import FileStat, JobState, LabelledPhoto, Picture, Skip

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from search.types import PhotoInfo, Vectors


UNKNOWN_TIME = -1
"""A modification time that no file has: what carries it counts as changed."""


class EncoderIdentity(Protocol):
    """The part of an encoder that the catalog keeps."""

    @property
    def name(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def dim(self) -> int: ...
    @property
    def context_length(self) -> int: ...
    @property
    def logit_scale(self) -> float: ...
    @property
    def logit_bias(self) -> float | None: ...


class Writer(TagWriter):
    """Writes through the library's one writing connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._job: int | None = None

    # ---- jobs

    @contextmanager
    def job(self, kind: str) -> Iterator[None]:
        """Account for a piece of work: while the block runs every batch is a sign of life, its end is noted.

        Work that is stopped in good order calls `finish_job` itself.
        """
        self.begin_job(kind)
        try:
            yield
        except BaseException as error:
            with suppress(SQLAlchemyError, LibraryError):  # a full disk, a server away: what was first matters
                self.finish_job(JobState.FAILED if isinstance(error, Exception) else JobState.INTERRUPTED)
            raise
        self.finish_job(JobState.DONE)

    def begin_job(self, kind: str) -> None:
        """Note that this process begins a piece of work; jobs that died are marked."""
        with commit(self._connection):
            self._job = jobs.begin(self._connection, kind)

    def expect(self, total: int) -> None:
        """Note how many files the job has to do."""
        with commit(self._connection):
            jobs.expect(self._connection, self._current_job, total)

    def finish_job(self, outcome: JobState) -> None:
        """Note how the job ended, once."""
        if self._job is not None:
            with commit(self._connection):
                jobs.finish(self._connection, self._job, outcome)
            self._job = None

    def take(self, files: Sequence[ScannedFile], *, alone: bool = False) -> None:
        """Note, before they are opened, which files the job is at work on; storing or skipping them ends it.

        alone: nothing else is worked on, so that a death now would be of this file's making.
        """
        with commit(self._connection):
            jobs.take(self._connection, self._current_job, files, alone=alone)

    def leftovers(self) -> dict[tuple[int, bytes], int]:
        """Return the files that earlier jobs died with, by root and place, and the deaths they were alone in."""
        with self._connection.begin():
            return jobs.leftovers(self._connection, self._current_job)

    @property
    def _current_job(self) -> int:
        if self._job is None:
            raise RuntimeError("no job has begun")
        return self._job

    def _done_with(self, files: Sequence[ScannedFile]) -> None:
        """Part of the transaction that stores or skips files."""
        if self._job is not None:
            self._beat(len(files))
            jobs.drop(self._connection, files)

    def _beat(self, files: int) -> None:
        """Count files as done, as a sign of life; part of a transaction."""
        if self._job is not None:
            jobs.beat(self._connection, self._job, files)

    # ---- a run's scan

    def scan(
        self,
        encoder_id: int,
        settled: Settled,
        *,
        file_system: Callable[[str], str | None] = lambda _: None,
    ) -> Scan:
        """Begin a run's scan.   file_system: tells what a folder lies on now, None if it can't."""
        return Scan(self._connection, encoder_id, settled, file_system=file_system)

    # ---- encoders

    def register(self, encoder: EncoderIdentity) -> int:
        """Return the id of an encoder, known or new. A library's first one answers from now on."""
        with commit(self._connection):
            found = self._connection.execute(
                select(encoders.c.id).where(encoders.c.fingerprint == encoder.fingerprint)
            ).scalar()
            id_: int = found or self._insert_encoder(encoder)
            self._connection.execute(update(state).where(state.c.encoder_id.is_(None)).values(encoder_id=id_))
        return id_

    def _insert_encoder(self, encoder: EncoderIdentity) -> int:
        values = {
            "name": encoder.name,
            "fingerprint": encoder.fingerprint,
            "dim": encoder.dim,
            "context_length": encoder.context_length,
            "logit_scale": encoder.logit_scale,
            "logit_bias": encoder.logit_bias,
        }
        statement = insert(encoders).values(values).returning(encoders.c.id)
        id_: int = self._connection.execute(statement).scalar_one()
        return id_

    def switch_when_complete(self, encoder_id: int) -> int:
        """Let this encoder answer if every photo present has its vector; return how many have none.

        Photos whose file can't be read any more do not count: they would put it off for ever.
        """
        query = select(func.count()).select_from(photos).where(lacking(encoder_id))
        with commit(self._connection):
            missing: int = self._connection.execute(query).scalar_one()
            if not missing:
                self._connection.execute(update(state).values(encoder_id=encoder_id))
        return missing

    # ---- sources

    def add_source(self, path: str, *, is_folder: bool, root: str | None = None) -> Scope:
        """Return the scope of an absolute path, in the root that holds it or in a new one.

        root: what must be the root of it, as the tar file that it lies in.
        """
        with commit(self._connection) as seq:
            known = find_scope(self._connection, path)
            if known is not None and root in (None, known.root):
                return known
            folder = root or (path if is_folder else os.path.dirname(path))
            root_id = add_root(self._connection, folder, seq)
        return Scope(root_id, folder, relative(path, folder))

    def source(self, path: str) -> Scope | None:
        """Return the scope of an absolute path in a known root, None if no root holds it."""
        with self._connection.begin():
            return find_scope(self._connection, path)

    def count(self, scope: Scope) -> int:
        """Return how many photos present a scope covers."""
        query = select(func.count()).where(photos.c.gone_at.is_(None), within(photos, scope))
        with self._connection.begin():
            return self._connection.execute(query).scalar_one()

    def remove(self, scope: Scope) -> int:
        """Forget all photos of a scope for good, vectors and labels with them; return how many."""
        doomed = select(photos.c.id).where(within(photos, scope))
        with commit(self._connection) as seq:
            for table in OF_PHOTOS:
                self._connection.execute(delete(table).where(table.c.photo_id.in_(doomed)))
            removed = self._connection.execute(delete(photos).where(within(photos, scope))).rowcount
            for table in (skips, in_flight):
                self._connection.execute(delete(table).where(within(table, scope)))
            if scope.relative == ".":
                self._connection.execute(delete(roots).where(roots.c.id == scope.root_id))
            self._connection.execute(update(state).values(purge_seq=seq))
        return removed

    def move_root(self, scope: Scope, folder: str) -> int:
        """Say that a root is at another place; return how many photos present it holds.

        Raises UsageError if the place overlaps with another root: then a file would be known by two names.
        """
        with commit(self._connection):
            for row in self._connection.execute(select(roots).where(roots.c.id != scope.root_id)):
                other = os.fsdecode(row.path)
                if is_inside(folder, other) or is_inside(other, folder):
                    raise UsageError(f"{folder} overlaps with {other}, which is indexed too")
            this = update(roots).where(roots.c.id == scope.root_id)
            self._connection.execute(this.values(path=os.fsencode(folder), file_system=None))
        return self.count(scope)

    def purge(self, ids: Sequence[int]) -> int:
        """Forget photos for good, with all they had; return how many.

        Costs readers a rebuild of their index, so nothing is written where nothing is to do.
        """
        if not ids:
            return 0
        with commit(self._connection) as seq:
            for some in chunks(ids):
                for table in OF_PHOTOS:
                    self._connection.execute(delete(table).where(table.c.photo_id.in_(some)))
                self._connection.execute(delete(photos).where(photos.c.id.in_(some)))
            self._connection.execute(update(state).values(purge_seq=seq))
        reach("compact.purged")
        return len(ids)

    def part_with(self, ids: Sequence[int]) -> None:
        """Note that files were taken away; vectors and labels wait for their return, as of any photo that is gone."""
        with commit(self._connection) as seq:
            for some in chunks(ids):
                values = {"gone_at": now(), "seq": seq}
                self._connection.execute(update(photos).where(photos.c.id.in_(some)).values(values))

    def welcome(self, ids: Sequence[int]) -> None:
        """Note that files are back as they were, with the vectors and labels that waited for them."""
        with commit(self._connection) as seq:
            for some in chunks(ids):
                back = update(photos).where(photos.c.id.in_(some), photos.c.gone_at.is_not(None))
                self._connection.execute(back.values(gone_at=None, seq=seq))

    # ---- a batch

    def add(self, records: Sequence[Record], vectors: Vectors, encoder_id: int, *, reader: int = 0) -> list[int]:
        """Commit photos and their vectors together; return their ids, in order.

        vectors: (N, D) float32, unit rows.   reader: which version read their metadata.
        A photo whose content changed loses what else was made of it.
        """
        with commit(self._connection) as seq:
            more = {"seq": seq, "reader": reader}
            new = iter(self._insert([record for record in records if record.file.photo_id is None], more))
            ids = [
                next(new) if record.file.photo_id is None else self._replace(record, record.file.photo_id, more)
                for record in records
            ]
            put_keywords(self._connection, [(id_, record.info) for id_, record in zip(ids, records, strict=True)])
            self._put_likenesses(ids, records)
            rows = []
            for vector, id_ in zip(vectors, ids, strict=True):
                blob, crc = pack_vector(vector, id_, encoder_id)
                rows.append({"encoder_id": encoder_id, "photo_id": id_, "vector": blob, "crc": crc})
            self._connection.execute(insert(embeddings), rows)
            files = [record.file for record in records]
            self._forget_skips(files)
            self._done_with(files)
        return ids

    def _put_likenesses(self, ids: Sequence[int], records: Sequence[Record]) -> None:
        """Remember what photos look like; part of the transaction that stores the rest."""
        rows = [
            {"photo_id": id_, "method": alike.method, "hash": alike.hash, "sharpness": alike.sharpness}
            for id_, alike in ((id_, record.likeness) for id_, record in zip(ids, records, strict=True))
            if alike is not None
        ]
        if rows:
            for some in chunks([row["photo_id"] for row in rows]):
                self._connection.execute(delete(pictures).where(pictures.c.photo_id.in_(some)))
            self._connection.execute(insert(pictures), rows)

    def _insert(self, records: Sequence[Record], more: dict[str, int]) -> list[int]:
        """Insert new photos; return their ids, in order."""
        if not records:
            return []
        statement = insert(photos).returning(photos.c.id, sort_by_parameter_order=True)
        return list(self._connection.execute(statement, [_columns(record) | more for record in records]).scalars())

    def _replace(self, record: Record, id_: int, more: dict[str, int]) -> int:
        """Give a known photo what its file holds now."""
        this = photos.c.id == id_
        changed = select(photos.c.id).where(this, photos.c.content_hash != record.content_hash)
        for table in (embeddings, pictures):
            self._connection.execute(delete(table).where(table.c.photo_id.in_(changed)))
        self._connection.execute(update(photos).where(this).values(_columns(record) | more))
        return id_

    def put_info(self, found: Sequence[tuple[int, PhotoInfo]], *, reader: int) -> None:
        """Give photos what was read of them anew, by id; their pixels are as they were.

        No photo counts as changed, unless the index is on a server: nothing of it is in any other.
        """
        with commit(self._connection) as seq:
            kept = self._connection.execute(select(state.c.index_url)).scalar()
            changed = {"reader": reader} | ({"seq": seq} if kept else {})
            for id_, info in found:
                values = said_columns(info) | changed
                self._connection.execute(update(photos).where(photos.c.id == id_).values(values))
            put_keywords(self._connection, found)
            self._beat(len(found))

    def keep_info(self, ids: Sequence[int], *, reader: int) -> None:
        """Note that photos keep what is known of them, because this reader can't read them."""
        with commit(self._connection):
            for some in chunks(ids):
                self._connection.execute(update(photos).where(photos.c.id.in_(some)).values(reader=reader))
            self._beat(len(ids))

    def restamp(self, found: Sequence[tuple[int, int, int]]) -> None:
        """Give photos whose sidecar we wrote its times: (id, change time as it was, as it is now), in nanoseconds.

        One that was known otherwise was changed by somebody else too, and is read again by the next run.
        """
        this = update(photos).where(photos.c.id == bindparam("this"), photos.c.ctime_ns == bindparam("before"))
        rows = [{"this": id_, "before": before, "after": after} for id_, before, after in found]
        if rows:
            with commit(self._connection):
                self._connection.execute(this.values(ctime_ns=bindparam("after")), rows)

    def put_pictures(self, found: Sequence[Picture], *, method: int) -> None:
        """Remember what a method made of photos' pixels; photos that are not known any more are left out.

        No photo counts as changed: nothing of it is in the index.
        """
        with commit(self._connection):
            for some in chunks(found):
                ids = [picture.id for picture in some]
                known = set(self._connection.execute(select(photos.c.id).where(photos.c.id.in_(ids))).scalars())
                self._connection.execute(delete(pictures).where(pictures.c.photo_id.in_(known)))
                rows = [_picture_columns(picture, method) for picture in some if picture.id in known]
                if rows:
                    self._connection.execute(insert(pictures), rows)

    def skip_unread(self, scope: Scope, skip: Skip) -> None:
        """Remember a file or folder that the walk could not look at."""
        place = to_bytes(relative(skip.path, scope.root))
        unread = ScannedFile(scope.root_id, place, FileStat(skip.path, 0, 0), Verdict.NEW, None)
        with commit(self._connection):
            self._skip([(unread, skip)], decoder="")

    def skip(self, skipped: Sequence[tuple[ScannedFile, Skip]], decoder: str) -> None:
        """Remember files that could not be indexed, and why."""
        with commit(self._connection):
            self._skip(skipped, decoder)
            self._done_with([file for file, _ in skipped])

    def _skip(self, skipped: Sequence[tuple[ScannedFile, Skip]], decoder: str) -> None:
        self._forget_skips([file for file, _ in skipped])
        self._connection.execute(
            insert(skips),
            [
                {
                    "root_id": file.root_id,
                    "path": file.place,
                    "size_bytes": file.stat.size_bytes,
                    "mtime_ns": file.stat.mtime_ns,
                    "ctime_ns": file.stat.ctime_ns,
                    "decoder": decoder,
                    "reason": skip.reason,
                    "detail": skip.detail,
                }
                for file, skip in skipped
            ],
        )

    def _forget_skips(self, files: Sequence[ScannedFile]) -> None:
        place = and_(skips.c.root_id == bindparam("in_root"), skips.c.path == bindparam("place"))
        self._connection.execute(
            delete(skips).where(place), [{"in_root": file.root_id, "place": file.place} for file in files]
        )

    # ---- generations

    def switch_generation(self, number: int, *, seq: int, manifest_hash: str) -> None:
        """Let readers use this generation, which reflects commit `seq`, from now on."""
        values = {"generation": number, "generation_seq": seq, "generation_hash": manifest_hash}
        with commit(self._connection):
            self._connection.execute(update(state).values(values))

    def note_index(self, **values: str | int | None) -> None:
        """Remember of the index on a server what is given: `url`, `mark`, `seq` (see Publication)."""
        with commit(self._connection):
            self._connection.execute(update(state).values({f"index_{name}": v for name, v in values.items()}))

    def compact(self) -> None:
        """Give back the space of what was deleted."""
        compact(self._connection)

    # ---- repair

    def repair(self, backup: str | None, copy: Copy | None = None) -> int:
        """Restore or drop what is damaged, after a copy of the catalog was made; return how many rows that were.

        backup: a file that does not exist yet; None where the database server has copies of its own.
        copy: where sound rows and vectors can be had from.
        """
        return repair(self._connection, copy, backup)

    # ---- looking at originals

    def note_checked(self, ids: Sequence[int], again: Sequence[int]) -> None:
        """Remember that photos were looked at just now; `again`: those whose file the next run must read again.

        A damaged row stays as it is: signing it anew would hide the damage.
        """
        sound = holds(photos) if self._connection.dialect.name == "sqlite" else true()
        with commit(self._connection):
            for chunk in chunks(ids):
                seen = update(photos).where(photos.c.id.in_(chunk), sound)
                self._connection.execute(seen.values(checked_at=now()))
            for chunk in chunks(again):
                self._connection.execute(
                    update(photos).where(photos.c.id.in_(chunk)).values(mtime_ns=UNKNOWN_TIME)
                )

    # ---- labels

    def put_labels(
        self, labelled: Sequence[LabelledPhoto], among: Sequence[str], *, source: str, encoder_id: int | None
    ) -> None:
        """Attach labels to photos with their provenance, in no run; see `TagWriter.run` for what can be undone.

        among: the label set they were chosen from; what the same source gave these photos from it before is
        withdrawn.
        """
        with commit(self._connection):
            put_labels(self._connection, labelled, among, source=source, encoder_id=encoder_id, run_id=None)


def _picture_columns(picture: Picture, method: int) -> dict[str, Any]:
    return {
        "photo_id": picture.id,
        "method": method,
        "hash": picture.hash,
        "sharpness": picture.sharpness,
        "quality": picture.quality,
    }


def _columns(record: Record) -> dict[str, Any]:
    """A record as columns of `photos`."""
    file = record.file
    return info_columns(record.info) | {
        "root_id": file.root_id,
        "path": file.place,
        "size_bytes": file.stat.size_bytes,
        "mtime_ns": file.stat.mtime_ns,
        "ctime_ns": file.stat.ctime_ns,
        "content_hash": record.content_hash,
        "gone_at": None,
    }
