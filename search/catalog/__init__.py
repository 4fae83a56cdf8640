"""Every table and every SQL statement: photos, embeddings per encoder, labels, filters → ids."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import ColumnElement, and_, func, not_, or_, select

from search.catalog import versions
from search.catalog.check import find_problems, is_small, low_space
from search.catalog.damage import REBUILD
from search.catalog.failures import storage_errors
from search.catalog.filters import conditions, distance_km
from search.catalog.jobs import last_job
from search.catalog.rows import (
    EncoderRow,
    KnownFile,
    checksum,
    chunks,
    to_bytes,
    to_path,
    to_photo,
    unpack_vectors,
)
from search.catalog.scan import embedded
from search.catalog.schema import embeddings, encoders, labels, photos, roots, skips, state
from search.catalog.scopes import Scope, is_inside, within
from search.catalog.storage import CATALOG_NAME, Storage, is_url
from search.catalog.writer import Writer
from search.errors import LibraryBusy, LibraryError, LibraryNotFound, NewerLibrary, OldLibrary, StorageError
from search.types import (
    EncoderStatus,
    Filter,
    JobStatus,
    Photo,
    Problem,
    ProblemKind,
    Publication,
    RootStatus,
    Skip,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from search.catalog.repair import Copy
    from search.types import Ids, Vectors

__all__ = ["Catalog", "Changes", "EncoderRow", "KnownFile", "Scope", "Writer"]

_CHUNK = 4096  # rows read at a time


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened to one encoder's vectors after a commit number.

    seq: the commit this brings a reader to.   rebuild: forget everything first.   gone: ids to drop.
    added: (ids, vectors) chunks, ids ascending; vectors are unit only to float16's precision.
    photos: how many are present.
    """

    seq: int
    rebuild: bool
    gone: Ids
    added: Iterator[tuple[Ids, Vectors]]
    photos: int


class Catalog:
    """Remembers every photo and its embedding per encoder, in any database SQLAlchemy reaches.

    location: a folder or a SQLAlchemy URL.   notify: told, in a sentence, what the user should know.
    copy: a SQLite file to read in place of the folder's own.
    """

    def __init__(
        self, location: str, *, notify: Callable[[str], None] | None = None, copy: Path | None = None
    ) -> None:
        self.location = location if is_url(location) else os.path.abspath(location)
        self._notify = notify or (lambda _: None)
        self._storage = Storage(self.location, copy=copy)
        self._checked = False
        self._newer: NewerLibrary | None = None

    @property
    def folder(self) -> Path | None:
        """The folder that the catalog lies in, for caches beside it; None for a database server."""
        return self._storage.folder

    @property
    def is_newer(self) -> bool:
        """Whether a newer version made the library, so that this one reads it and writes nothing."""
        self._check()
        return self._newer is not None

    def exists(self) -> bool:
        """Whether there is a library; a database server is taken at its word."""
        return self._storage.exists()

    def is_begun(self) -> bool:
        """Whether there is a catalog; a file whose making was cut short is none. Raises DamagedLibrary."""
        if not self._storage.exists():
            return False
        with self._storage.reading() as connection:
            return versions.revision(connection) is not None

    def create(self) -> None:
        """Make the catalog unless it is there; one whose making was cut short is made anew."""
        if self._storage.folder is not None and self.is_begun():
            return
        with self._storage.writing() as connection:
            if versions.revision(connection) is None:
                versions.create(connection)

    def new_backup(self) -> str | None:
        """Return the name of a backup that does not exist yet; None for a database server."""
        if self._storage.folder is None:
            return None
        stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}"
        return str(self._storage.folder / f"{CATALOG_NAME}.{stamp}.bak")

    def upgrade(self) -> str:
        """Bring the schema to this version's; returns the revision it had."""
        if not self._storage.exists():
            raise self._not_found()
        return versions.upgrade(self._storage)

    def close(self) -> None:
        self._storage.close()

    @contextmanager
    def writing(self) -> Iterator[Writer]:
        """Yield the library's only writer. Raises LibraryBusy, StorageError, NewerLibrary."""
        self._check()
        if self._newer is not None:
            raise self._newer
        with self._storage.writing() as connection:
            yield Writer(connection)

    def _check(self) -> None:
        """Refuse a catalog that is missing, older, or too new to be read, once."""
        if self._checked:
            return
        if not self._storage.exists():
            raise self._not_found()
        with self._storage.reading() as connection:
            found = versions.revision(connection)
            if found is None:
                raise self._not_found()
            self._newer = versions.check(connection, found, self.location)
        self._checked = True
        if self._newer is not None:
            self._notify(f"{self.location} was made by a newer version: it can be searched, not changed")

    def _not_found(self) -> LibraryNotFound:
        if self.has_copies():
            return LibraryNotFound(f"the catalog of {self.location} is missing", hint="run 'search rebuild'")
        return LibraryNotFound(f"there is no library at {self.location}", hint="make one with 'search index DIR'")

    def has_copies(self) -> bool:
        """Whether generations lie beside the catalog, from which it may be made anew."""
        return self.folder is not None and any(self.folder.glob("gen/*/MANIFEST.json"))

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        self._check()
        with self._storage.reading() as connection:
            yield connection

    # ---- photos

    def count(self) -> int:
        """Return the number of photos present."""
        with self._reading() as connection:
            return connection.execute(select(func.count()).where(_present())).scalar_one()

    def get(self, ids: Sequence[int]) -> list[Photo]:
        """Return the photos of these ids, in this order; unknown ids are left out."""
        with self._reading() as connection:
            found = {
                photo.id: photo for chunk in chunks(ids) for photo in _photos(connection, photos.c.id.in_(chunk))
            }
        return [found[id_] for id_ in ids if id_ in found]

    def ids_at(self, paths: Sequence[str]) -> list[int]:
        """Return the ids of the photos known at these absolute paths, present or gone."""
        ids: list[int] = []
        with self._reading() as connection:
            for root_id, root in _roots(connection).items():
                folder = os.fsdecode(root)
                places = [to_bytes(os.path.relpath(path, folder)) for path in paths if is_inside(path, folder)]
                for chunk in chunks(places):
                    query = select(photos.c.id).where(photos.c.root_id == root_id, photos.c.path.in_(chunk))
                    ids += connection.execute(query).scalars()
        return ids

    def select(self, wanted: Filter) -> Ids | None:
        """Return the ids that pass, ascending; None when nothing is asked, so that all pass."""
        if not wanted:
            return None
        with self._reading() as connection:
            query = select(photos.c.id, photos.c.latitude, photos.c.longitude).where(
                _present(), *conditions(wanted, _roots(connection))
            )
            rows = connection.execute(query.order_by(photos.c.id)).all()
        ids = np.array([row.id for row in rows], np.int64)
        if wanted.near is None or not len(ids):
            return ids
        latitude, longitude, km = wanted.near
        places = np.array([(row.latitude, row.longitude) for row in rows], np.float64)
        near: Ids = ids[distance_km(places[:, 0], places[:, 1], latitude, longitude) <= km]
        return near

    def all_ids(self) -> Ids:
        """Return the ids of all photos present, ascending."""
        with self._reading() as connection:
            rows = connection.execute(select(photos.c.id).where(_present()).order_by(photos.c.id)).scalars()
            return np.fromiter(rows, np.int64)

    def sample(self, scope: Scope, size: int) -> list[Photo]:
        """Return up to `size` photos present in a scope, spread evenly over it."""
        query = select(photos.c.id).where(_present(), within(photos, scope)).order_by(photos.c.id)
        with self._reading() as connection:
            ids = connection.execute(query).scalars().all()
        return self.get(ids[:: max(1, math.ceil(len(ids) / size))])

    # ---- encoders and their vectors

    def encoder(self, *, name: str | None = None, fingerprint: str | None = None) -> EncoderRow | None:
        """Return the model of this name (the last one that had it) or fingerprint, else the one that answers."""
        if fingerprint is not None:
            wanted = encoders.c.fingerprint == fingerprint
        elif name is not None:
            wanted = encoders.c.name == name
        else:
            wanted = encoders.c.id == select(state.c.encoder_id).scalar_subquery()
        query = select(encoders.c.id, encoders.c.name, encoders.c.fingerprint, encoders.c.dim).where(wanted)
        with self._reading() as connection:
            row = connection.execute(query.order_by(encoders.c.id.desc())).first()
        return EncoderRow(*row) if row else None

    def sequence(self) -> int:
        """Return the number of the last commit."""
        with self._reading() as connection:
            seq: int = connection.execute(select(state.c.seq)).scalar_one()
        return seq

    # ---- generations

    def publication(self) -> Publication:
        """Return where the catalog stands and which generation it published last."""
        query = select(
            state.c.uuid,
            state.c.seq,
            state.c.purge_seq,
            state.c.generation,
            func.coalesce(state.c.generation_seq, -1),
            func.coalesce(state.c.generation_hash, ""),
        )
        with self._reading() as connection:
            return Publication(*connection.execute(query).one())

    def size_bytes(self) -> int:
        """Return what a SQLite catalog takes, with what is still in its log."""
        with self._reading() as connection:
            pages, page = (
                connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in ("page_count", "page_size")
            )
        return int(pages * page)

    def count_changed(self, since: int) -> int:
        """Return how many photos, present or gone, were changed after a commit."""
        with self._reading() as connection:
            return connection.execute(select(func.count()).where(photos.c.seq > since)).scalar_one()

    def switch_generation(self, writer: Writer, number: int, *, seq: int, manifest_hash: str) -> None:
        """Let readers use this generation from now on. Raises StorageError."""
        with storage_errors(self.location):
            writer.switch_generation(number, seq=seq, manifest_hash=manifest_hash)

    @contextmanager
    def unchanged_vectors(self, encoder_id: int, until: int) -> Iterator[Iterator[tuple[int, bytes | None]]]:
        """Yield (id, float16 bytes) of photos not changed after a commit, ids ascending; None if it is damaged."""
        query: Any = (
            select(embeddings.c.photo_id, embeddings.c.vector, embeddings.c.crc)
            .select_from(embeddings.join(photos))
            .where(embeddings.c.encoder_id == encoder_id, photos.c.seq <= until)
            .order_by(embeddings.c.photo_id)
            .execution_options(yield_per=_CHUNK)
        )
        with self._reading() as connection:
            yield (
                (id_, vector if checksum(vector, id_, encoder_id) == crc else None)
                for id_, vector, crc in connection.execute(query)
            )

    def known_ids(self) -> Ids:
        """Return the ids of all photos, present or gone, ascending."""
        with self._reading() as connection:
            return np.fromiter(connection.execute(select(photos.c.id).order_by(photos.c.id)).scalars(), np.int64)

    # ---- vectors

    @contextmanager
    def changes(self, encoder: EncoderRow, since: int) -> Iterator[Changes]:
        """Yield what happened to an encoder's vectors after commit `since`, in one consistent view."""
        with self._reading() as connection:
            now, purged = connection.execute(select(state.c.seq, state.c.purge_seq)).one()
            since = since if since >= purged else -1
            newer = photos.c.seq > since
            without = or_(photos.c.gone_at.is_not(None), not_(embedded(encoder.id)))
            query = select(photos.c.id).where(newer, without)
            yield Changes(
                seq=now,
                rebuild=since < 0,
                gone=np.fromiter(connection.execute(query).scalars(), np.int64),
                added=_embeddings(connection, encoder, newer),
                photos=connection.execute(select(func.count()).where(_present())).scalar_one(),
            )

    def embeddings(self, encoder: EncoderRow, ids: Sequence[int]) -> tuple[Ids, Vectors]:
        """Return the vectors of these photos, ids ascending; photos without one are left out."""
        parts = [(np.empty(0, np.int64), np.empty((0, encoder.dim), np.float32))]
        with self._reading() as connection:
            for chunk in chunks(ids):
                parts += _embeddings(connection, encoder, photos.c.id.in_(chunk))
        found, vectors = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.argsort(found)
        return found[order], vectors[order]

    # ---- what a library looks like

    def count_vectors(self, encoder: EncoderRow) -> int:
        """Return how many photos present have a vector by this model."""
        with self._reading() as connection:
            count: int = connection.execute(
                select(func.count()).select_from(photos).where(_present(), embedded(encoder.id))
            ).scalar_one()
        return count

    def problems(self, *, full: bool | None = None, copy: Copy | None = None) -> tuple[list[Problem], bool]:
        """Return what is wrong, and whether everything was looked at: with `full`, or by default where it is quick.

        copy: where a repair would take sound rows from.   Raises OldLibrary, NewerLibrary; damage is a problem.
        """
        if not self._storage.exists():
            raise self._not_found()
        try:
            if not self.is_begun() and not self.has_copies():
                raise self._not_found()
            with self._storage.reading() as connection:
                whole = is_small(connection) if full is None else full
                connection.rollback()
                found = find_problems(
                    connection,
                    full=whole,
                    copy=copy,
                    location=self.location,
                )
                return list(found), whole
        except (LibraryBusy, LibraryNotFound, NewerLibrary, OldLibrary, StorageError):
            raise
        except (LibraryError, UnicodeDecodeError) as error:
            return [Problem(ProblemKind.CATALOG_DAMAGED, str(error), REBUILD)], bool(full)

    def low_space(self) -> str:
        """Say, in words, if there is little room left for what a library needs beside its catalog; else ''."""
        return low_space(self.folder) if self.folder else ""

    def repair(self, copy: Copy | None = None) -> tuple[int, str | None]:
        """Restore or drop what is damaged; return how many rows and the backup made before, if there was a need.

        Raises LibraryError where the damage goes deeper, and leaves everything as it was.
        """
        if not self._storage.exists():
            raise self._not_found()
        backup = self.new_backup()
        try:
            with self._storage.writing() as connection:
                repaired = Writer(connection).repair(backup, copy)
        except UnicodeDecodeError as error:  # SQLite's message quotes damaged text
            raise LibraryError(f"the catalog of {self.location} can't be read", hint=REBUILD) from error
        self.close()  # what was read before does not hold
        return repaired, backup if repaired else None

    def unchecked(self) -> Ids:
        """Return the ids of all photos present, those looked at longest ago first."""
        query = select(photos.c.id).where(_present()).order_by(photos.c.checked_at.nulls_first(), photos.c.id)
        with self._reading() as connection:
            return np.fromiter(connection.execute(query).scalars(), np.int64)

    def known_files(self, ids: Sequence[int]) -> list[KnownFile]:
        """Return what is known of the files of photos, in this order."""
        columns = (photos.c.size_bytes, photos.c.mtime_ns, photos.c.ctime_ns, photos.c.content_hash)
        query = select(photos.c.id, roots.c.path, photos.c.path, *columns).select_from(photos.join(roots))
        with self._reading() as connection:
            found = {
                id_: KnownFile(id_, os.fsdecode(root), to_path(root, path), *rest)
                for chunk in chunks(ids)
                for id_, root, path, *rest in connection.execute(query.where(photos.c.id.in_(chunk))).all()
            }
        return [found[id_] for id_ in ids if id_ in found]

    def revision(self) -> str:
        """Return the schema's revision."""
        with self._reading() as connection:
            return versions.revision(connection) or ""

    def root_status(self) -> list[RootStatus]:
        """Return every indexed folder, whether it is reachable now, and how many photos it holds."""
        query = (
            select(roots.c.path, func.count(photos.c.id))
            .select_from(roots.outerjoin(photos, and_(photos.c.root_id == roots.c.id, _present())))
            .group_by(roots.c.id)
            .order_by(roots.c.path)
        )
        with self._reading() as connection:
            rows = connection.execute(query).all()
        return [RootStatus(os.fsdecode(path), os.path.isdir(path), count) for path, count in rows]

    def encoder_status(self) -> list[EncoderStatus]:
        """Return every model that has vectors of photos present."""
        query = (
            select(encoders.c.name, encoders.c.dim, func.count())
            .select_from(embeddings.join(photos).join(encoders))
            .where(_present())
            .group_by(encoders.c.id)
            .order_by(encoders.c.id)
        )
        with self._reading() as connection:
            return [EncoderStatus(*row) for row in connection.execute(query)]

    def last_job(self) -> JobStatus | None:
        """Return how the last piece of work on the library stands, None if there never was one."""
        with self._reading() as connection:
            return last_job(connection, self.folder)

    def skipped(self) -> list[Skip]:
        """Return every file that is known but not indexed, with its reason, by path."""
        query = select(roots.c.path.label("root"), skips).select_from(skips.join(roots))
        with self._reading() as connection:
            rows = connection.execute(query.order_by(roots.c.path, skips.c.path)).all()
        return [Skip(to_path(row.root, row.path), row.reason, row.detail) for row in rows]


def _present() -> ColumnElement[bool]:
    return photos.c.gone_at.is_(None)


def _roots(connection: Connection) -> dict[int, bytes]:
    return {row.id: row.path for row in connection.execute(select(roots.c.id, roots.c.path))}


def _photos(connection: Connection, wanted: ColumnElement[bool]) -> list[Photo]:
    query = select(photos, roots.c.path.label("root")).select_from(photos.join(roots)).where(wanted)
    rows = connection.execute(query).all()
    named = _labels(connection, [row.id for row in rows])
    return [to_photo(row, tuple(named.get(row.id, ()))) for row in rows]


def _labels(connection: Connection, ids: Sequence[int]) -> dict[int, list[str]]:
    named: dict[int, list[str]] = {}
    query = select(labels.c.photo_id, labels.c.label).distinct().where(labels.c.photo_id.in_(ids))
    for photo_id, label in connection.execute(query.order_by(labels.c.label)):
        named.setdefault(photo_id, []).append(label)
    return named


def _embeddings(
    connection: Connection, encoder: EncoderRow, wanted: ColumnElement[bool]
) -> Iterator[tuple[Ids, Vectors]]:
    """Yield ids and vectors in chunks; a vector whose checksum does not hold is left out."""
    query: Any = (
        select(embeddings.c.photo_id, embeddings.c.vector, embeddings.c.crc)
        .select_from(embeddings.join(photos))
        .where(embeddings.c.encoder_id == encoder.id, _present(), wanted)
        .order_by(embeddings.c.photo_id)
        .execution_options(yield_per=_CHUNK)
    )
    for rows in connection.execute(query).partitions():
        sound = [row for row in rows if checksum(row.vector, row.photo_id, encoder.id) == row.crc]
        ids = np.array([row.photo_id for row in sound], np.int64)
        yield ids, unpack_vectors([row.vector for row in sound], encoder.dim)
