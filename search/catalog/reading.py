"""What can be asked of a catalog. A statement is one text, for SQLite itself and for database servers.

With a million photos each question of a query is answered from an index; photos that are gone are few and have
an index of their own, so that telling who is present never means looking at every row.
"""

from __future__ import annotations

import itertools
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from search.addresses import is_inside, relative
from search.catalog import versions
from search.catalog.places import is_url, shown
from search.catalog.rows import (
    OWN_KEYWORD,
    PHOTO_COLUMNS,
    EncoderRow,
    KnownFile,
    checksum,
    chunks,
    to_bytes,
    to_path,
    to_photo,
    to_time,
    unpack_vectors,
)
from search.catalog.session import listed
from search.catalog.sql import EMBEDDED, within
from search.catalog.storage import Storage
from search.catalog.tags import TagReader
from search.errors import LibraryNotFound, NewerLibrary
from search.types import Contents, EncoderStatus, JobStatus, Picture, Publication, RootStatus, Skip, TakenAtSource

if TYPE_CHECKING:
    import numpy.typing as npt

    from search.catalog.overview import Overview
    from search.catalog.scopes import Scope
    from search.catalog.session import Row, Session
    from search.types import Filter, Ids, Photo, PhotoInfo, Vectors

_CHUNK = 4096  # rows read at a time
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001, a wall clock's

_COUNT = "SELECT (SELECT count(*) FROM photos) - (SELECT count(*) FROM photos WHERE gone_at IS NOT NULL)"
_GONE = "SELECT id FROM photos WHERE gone_at IS NOT NULL"
# How many vectors a model has of photos present: all but those of photos that are gone.
_OWN_VECTORS = (
    "(SELECT count(*) FROM embeddings WHERE encoder_id = encoders.id) - (SELECT count(*) FROM photos CROSS JOIN "
    "embeddings WHERE gone_at IS NOT NULL AND photo_id = photos.id AND encoder_id = encoders.id)"
)
# SQLite takes the tables of a CROSS JOIN in this order: vectors as they lie, the photo of each by its id.
_VECTORS = (
    "SELECT photo_id, vector, embeddings.crc FROM embeddings CROSS JOIN photos "
    "WHERE photos.id = photo_id AND encoder_id = :encoder"
)


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


class CatalogReader(TagReader):
    """Answers what a catalog can be asked, each question from one consistent state.

    location: a folder or a SQLAlchemy URL; `shown` is it without a password.
    notify: told, in a sentence, what the user should know.   copy: a SQLite file to read in place of the folder's own.
    """

    def __init__(
        self, location: str, *, notify: Callable[[str], None] | None = None, copy: Path | None = None
    ) -> None:
        self.location = location if is_url(location) else os.path.abspath(location)
        self.shown = shown(self.location)
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
        """Whether there is a library, on a server one that is begun. Raises LibraryUnreachable."""
        return self._storage.exists() and (self.folder is not None or self._checked or self.is_begun())

    def is_begun(self) -> bool:
        """Whether there is a catalog; a file whose making was cut short is none. Raises DamagedLibrary."""
        if not self._storage.exists():
            return False
        with self._storage.reading() as session:
            return versions.revision(session) is not None

    def close(self) -> None:
        self._storage.close()

    def _check(self) -> None:
        """Refuse a catalog that is missing, older, or too new to be read, once."""
        if self._checked:
            return
        if not self._storage.exists():
            raise self._not_found()
        with self._storage.reading() as session:
            found = versions.revision(session)
            if found is None:
                raise self._not_found()
            self._newer = versions.check(session, found, self.shown)
        self._checked = True
        if self._newer is not None:
            self._notify(f"{self.shown} was made by a newer version: it can be searched, not changed")

    def _not_found(self) -> LibraryNotFound:
        if self.has_copies():
            return LibraryNotFound(f"the catalog of {self.shown} is missing", hint="run 'search rebuild'")
        return LibraryNotFound(f"there is no library at {self.shown}", hint="make one with 'search index DIR'")

    def has_copies(self) -> bool:
        """Whether generations lie beside the catalog, from which it may be made anew."""
        return self.folder is not None and any(self.folder.glob("gen/*/MANIFEST.json"))

    @contextmanager
    def _reading(self) -> Iterator[Session]:
        self._check()
        with self._storage.reading() as session:
            yield session

    def is_written_to(self) -> bool:
        """Whether some process holds the library for writing."""
        from search.catalog import lock

        if self.folder is not None:
            return lock.is_held(self.folder)
        from search.catalog import server

        with self._storage.reading() as session:
            return server.is_held(session)

    # ---- photos

    def count(self) -> int:
        """Return the number of photos present."""
        with self._reading() as session:
            return _number(session, _COUNT)

    def get(self, ids: Sequence[int]) -> list[Photo]:
        """Return the photos of these ids, in this order; unknown ids are left out."""
        with self._reading() as session:
            found = {photo.id: photo for chunk in chunks(ids) for photo in _photos(session, chunk)}
        return [found[id_] for id_ in ids if id_ in found]

    def ids_at(self, paths: Sequence[str]) -> list[int]:
        """Return the ids of the photos known at these absolute paths, present or gone."""
        ids: list[int] = []
        with self._reading() as session:
            for root_id, root in _roots(session).items():
                folder = os.fsdecode(root)
                places = [to_bytes(relative(path, folder)) for path in paths if is_inside(path, folder)]
                for chunk in chunks(places):
                    among, values = listed("path", chunk)
                    query = f"SELECT id FROM photos WHERE root_id = :root AND path IN {among}"  # noqa: S608
                    ids += session.ids(query, {"root": root_id, **values}).tolist()
        return ids

    def select(self, wanted: Filter) -> Ids | None:
        """Return the ids that pass, ascending; None where all do: nothing is asked, or a folder around every root."""
        if not wanted:
            return None
        from search.catalog import filters  # what a query without conditions does without
        from search.conditions import condition_of

        with self._reading() as session:
            ids = filters.select(session, condition_of(wanted))
            return None if ids is None else _present(session, ids)

    def all_ids(self) -> Ids:
        """Return the ids of all photos present, ascending."""
        with self._reading() as session:
            return _present(session, session.ids("SELECT id FROM photos"))

    def overview(self, known: Overview | None = None) -> Overview:
        """Return all photos present as columns.   known: an earlier one, which is returned if it still holds."""
        from search.catalog import overview

        with self._reading() as session:
            if known is not None and known.seq == overview.sequence(session):
                return known
            return overview.read(session)

    def sample(self, scope: Scope, size: int) -> list[Photo]:
        """Return up to `size` photos present in a scope, spread evenly over it."""
        here = within("photos", scope.root_id, scope.relative)
        with self._reading() as session:
            ids = _present(session, session.ids(f"SELECT id FROM photos WHERE {here.sql}", here.values))  # noqa: S608
        return self.get(ids[:: max(1, math.ceil(len(ids) / size))].tolist())

    # ---- encoders

    def encoder(self, *, name: str | None = None, fingerprint: str | None = None) -> EncoderRow | None:
        """Return the model of this name (the last one that had it) or fingerprint, else the one that answers."""
        wanted, values = "id = (SELECT encoder_id FROM state)", {}
        if fingerprint is not None:
            wanted, values = "fingerprint = :fingerprint", {"fingerprint": fingerprint}
        elif name is not None:
            wanted, values = "name = :name", {"name": name}
        query = f"SELECT id, name, fingerprint, dim FROM encoders WHERE {wanted} ORDER BY id DESC"  # noqa: S608
        with self._reading() as session:
            row = session.first(query, values)
        return EncoderRow(*row) if row else None

    def sequence(self) -> int:
        """Return the number of the last commit."""
        with self._reading() as session:
            return _number(session, "SELECT seq FROM state")

    # ---- generations

    def publication(self) -> Publication:
        """Return where the catalog stands and which generation it published last."""
        query = (
            "SELECT uuid, seq, purge_seq, generation, coalesce(generation_seq, -1), coalesce(generation_hash, ''), "
            "index_url, coalesce(index_mark, ''), coalesce(index_seq, -1) FROM state"
        )
        with self._reading() as session:
            return Publication(*session.one(query))

    def size_bytes(self) -> int:
        """Return what a SQLite catalog takes, with what is still in its log."""
        with self._reading() as session:
            return _number(session, "PRAGMA page_count") * _number(session, "PRAGMA page_size")

    def count_changed(self, since: int) -> int:
        """Return how many photos, present or gone, were changed after a commit."""
        with self._reading() as session:
            return _number(session, "SELECT count(*) FROM photos WHERE seq > :since", {"since": since})

    @contextmanager
    def unchanged_vectors(self, encoder_id: int, until: int) -> Iterator[Iterator[tuple[int, bytes | None]]]:
        """Yield (id, float16 bytes) of photos not changed after a commit, ids ascending; None if it is damaged."""
        query = f"{_VECTORS} AND seq <= :until ORDER BY photo_id"
        with self._reading() as session:
            parts = session.parts(query, {"encoder": encoder_id, "until": until}, size=_CHUNK)
            yield (
                (id_, vector if checksum(vector, id_, encoder_id) == crc else None)
                for part in parts
                for id_, vector, crc in part
            )

    def known_ids(self) -> Ids:
        """Return the ids of all photos, present or gone, ascending."""
        with self._reading() as session:
            return session.ids("SELECT id FROM photos ORDER BY id")

    # ---- vectors

    @contextmanager
    def changes(self, encoder: EncoderRow, since: int, *, keep: bool = False) -> Iterator[Changes]:
        """Yield what happened to an encoder's vectors after commit `since`, in one consistent view.

        keep: where photos were forgotten for good since, only what else happened; `rebuild` tells that some were.
        """
        with self._reading() as session:
            now, purged = session.one("SELECT seq, purge_seq FROM state")
            forgotten = since < purged
            since = -1 if forgotten and not keep else since
            without = f"SELECT id FROM photos WHERE seq > :since AND (gone_at IS NOT NULL OR NOT {EMBEDDED})"  # noqa: S608
            yield Changes(
                seq=now,
                rebuild=forgotten or since < 0,
                gone=session.ids(without, {"since": since, "encoder": encoder.id}),
                added=_all_vectors(session, encoder) if since < 0 else _new_vectors(session, encoder, since),
                photos=_number(session, _COUNT),
            )

    def embeddings(self, encoder: EncoderRow, ids: Sequence[int]) -> tuple[Ids, Vectors]:
        """Return the vectors of these photos, ids ascending; photos without one are left out."""
        parts = [(np.empty(0, np.int64), np.empty((0, encoder.dim), np.float32))]
        with self._reading() as session:
            parts += _vectors_of(session, encoder, ids)
        found, vectors = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.argsort(found)
        return found[order], vectors[order]

    def embedded(self, encoder: EncoderRow) -> Ids:
        """Return the ids of all photos present that have a vector by this model, ascending."""
        query = "SELECT photo_id FROM embeddings WHERE encoder_id = :encoder"
        with self._reading() as session:
            return _present(session, session.ids(query, {"encoder": encoder.id}))

    def infos(self, ids: Sequence[int]) -> dict[int, PhotoInfo]:
        """Return what is known of photos' pictures and what they say of themselves, without labels, by id."""
        query = f"SELECT {PHOTO_COLUMNS} FROM photos JOIN roots ON roots.id = root_id WHERE photos.id IN "  # noqa: S608
        with self._reading() as session:
            rows = [row for chunk in chunks(ids) for row in _among(session, query, chunk)]
        return {row[0]: to_photo(row).info for row in rows}

    def cameras(self) -> list[str]:
        """Return the names of all cameras."""
        from search.catalog import filters

        with self._reading() as session:
            return filters.cameras(session)

    def last_id(self) -> int:
        """Return the highest id of a photo, 0 where there is none."""
        with self._reading() as session:
            return _number(session, "SELECT coalesce(max(id), 0) FROM photos")

    # ---- pictures

    def pictures(self, method: int, ids: Sequence[int] | None = None) -> list[Picture]:
        """Return what a method made of photos, ids ascending; photos it made nothing of are left out.

        ids: of the photos; None: of all present.
        """
        query = "SELECT photo_id, hash, sharpness, quality FROM pictures WHERE method = :method AND photo_id "
        values = {"method": method}
        with self._reading() as session:
            if ids is None:
                rows = session.rows(f"{query}NOT IN ({_GONE})", values)
            else:
                among = [listed("id", chunk) for chunk in chunks(ids)]
                rows = [row for names, ids_ in among for row in session.rows(f"{query}IN {names}", values | ids_)]
        return [Picture(*row) for row in sorted(rows)]

    def without_picture(self, method: int) -> Ids:
        """Return the ids of the photos present that a method made nothing of so far, ascending."""
        known = "SELECT photo_id FROM pictures WHERE method = :method"
        with self._reading() as session:
            ids = _present(session, session.ids("SELECT id FROM photos"))
            return np.setdiff1d(ids, session.ids(known, {"method": method}), assume_unique=True)

    # ---- duplicates

    def copies(self) -> list[list[int]]:
        """Return the ids of photos present that have the same bytes, by content, ascending."""
        query = (
            "SELECT content_hash, id FROM photos WHERE gone_at IS NULL AND content_hash IN (SELECT content_hash "
            "FROM photos GROUP BY content_hash HAVING count(*) > 1) ORDER BY content_hash, id"
        )
        with self._reading() as session:
            rows = session.rows(query)
        same = [[row[1] for row in group] for _, group in itertools.groupby(rows, key=lambda row: row[0])]
        return [ids for ids in same if len(ids) > 1]

    def shots(self) -> tuple[Ids, Ids, npt.NDArray[np.float64]]:
        """Return the photos present that tell when and with what they were taken.

        ids (N,), a number for each camera (N,), and wall-clock seconds since some moment (N,).
        """
        query = (
            "SELECT id, camera, taken_at FROM photos WHERE gone_at IS NULL AND camera IS NOT NULL AND "
            "taken_at IS NOT NULL AND taken_at_source <> :file ORDER BY id"
        )
        cameras: dict[str, int] = {}
        found: list[tuple[int, int, float]] = []
        with self._reading() as session:
            for part in session.parts(query, {"file": TakenAtSource.FILE.value}, size=_CHUNK):
                for id_, camera, taken_at in part:
                    moment = to_time(taken_at)
                    assert moment is not None
                    since_s = (moment - _EPOCH).total_seconds()
                    found.append((id_, cameras.setdefault(camera, len(cameras)), since_s))
        ids, numbers, seconds = zip(*found, strict=True) if found else ((), (), ())
        return np.array(ids, np.int64), np.array(numbers, np.int64), np.array(seconds, np.float64)

    # ---- what a library looks like

    def count_vectors(self, encoder: EncoderRow) -> int:
        """Return how many photos present have a vector by this model."""
        query = f"SELECT {_OWN_VECTORS} FROM encoders WHERE id = :encoder"  # noqa: S608
        with self._reading() as session:
            return _number(session, query, {"encoder": encoder.id})

    def unchecked(self) -> Ids:
        """Return the ids of all photos present, those looked at longest ago first."""
        query = "SELECT id FROM photos WHERE gone_at IS NULL ORDER BY checked_at NULLS FIRST, id"
        with self._reading() as session:
            return session.ids(query)

    def known_files(self, ids: Sequence[int]) -> list[KnownFile]:
        """Return what is known of the files of photos, in this order."""
        query = (
            "SELECT photos.id, roots.path, photos.path, size_bytes, mtime_ns, ctime_ns, content_hash "
            "FROM photos JOIN roots ON roots.id = root_id WHERE photos.id IN "
        )
        with self._reading() as session:
            found = {
                id_: KnownFile(id_, os.fsdecode(root), to_path(root, path), *rest)
                for chunk in chunks(ids)
                for id_, root, path, *rest in _among(session, query, chunk)
            }
        return [found[id_] for id_ in ids if id_ in found]

    def revision(self) -> str:
        """Return the schema's revision."""
        with self._reading() as session:
            return versions.revision(session) or ""

    def contents(self) -> Contents:
        """Return what the photos present are."""
        by_format = "SELECT format, count(*) FROM photos WHERE gone_at IS NULL GROUP BY format ORDER BY 2 DESC, 1"
        taken = (
            "SELECT min(taken_at), max(taken_at) FROM photos "
            "WHERE gone_at IS NULL AND taken_at_source <> :file"  # a file's own date may be that of a copy
        )
        with self._reading() as session:
            formats: dict[str, int] = dict(session.rows(by_format))
            first, last = map(to_time, session.one(taken, {"file": TakenAtSource.FILE}))
        years = (first.year, last.year) if first and last else None
        return Contents(formats, years, len(self.overview().folders))

    def root_status(self, is_online: Callable[[str], bool] = os.path.exists) -> list[RootStatus]:
        """Return every root, whether it is reachable now, and how many photos it holds.

        is_online: tells whether one is; without it none that is no path of this machine.
        """
        with self._reading() as session:
            paths = session.rows("SELECT path, id FROM roots ORDER BY path")
            known: dict[int, int] = dict(session.rows("SELECT root_id, count(*) FROM photos GROUP BY root_id"))
            gone = Counter(session.ids("SELECT root_id FROM photos WHERE gone_at IS NOT NULL").tolist())
        held = [(os.fsdecode(path), known.get(id_, 0) - gone[id_]) for path, id_ in paths]
        return [RootStatus(path, is_online(path), count) for path, count in held]

    def encoder_status(self) -> list[EncoderStatus]:
        """Return every model that has vectors of photos present."""
        with self._reading() as session:
            rows = session.rows(f"SELECT name, dim, {_OWN_VECTORS} FROM encoders ORDER BY id")  # noqa: S608
        return [EncoderStatus(*row) for row in rows if row[2]]

    def last_job(self) -> JobStatus | None:
        """Return how the last piece of work on the library stands, None if there never was one."""
        from search.catalog.activity import last_job

        with self._reading() as session:
            return last_job(session, self.folder)

    def skipped(self) -> list[Skip]:
        """Return every file that is known but not indexed, with its reason, by path."""
        query = (
            "SELECT roots.path, skips.path, reason, detail FROM skips JOIN roots ON roots.id = root_id "
            "ORDER BY roots.path, skips.path"
        )
        with self._reading() as session:
            return [
                Skip(to_path(root, path), reason, detail) for root, path, reason, detail in session.rows(query)
            ]


def _number(session: Session, statement: str, values: Mapping[str, Any] | None = None) -> int:
    number: int = session.one(statement, values or {})[0]
    return number


def _present(session: Session, ids: Ids) -> Ids:
    """Return those of some ids that are not gone, ascending."""
    return np.setdiff1d(np.sort(ids), session.ids(_GONE), assume_unique=True) if len(ids) else ids


def _roots(session: Session) -> dict[int, bytes]:
    return dict(session.rows("SELECT id, path FROM roots"))


def _among(session: Session, statement: str, ids: Sequence[int]) -> list[Row]:
    """Return the rows of a statement that ends in `IN`."""
    among, values = listed("id", ids)
    return session.rows(statement + among, values)


def _photos(session: Session, ids: Sequence[int]) -> list[Photo]:
    query = f"SELECT {PHOTO_COLUMNS} FROM photos JOIN roots ON roots.id = root_id WHERE photos.id IN "  # noqa: S608
    named: dict[int, set[str]] = {}
    own: dict[int, set[str]] = {}
    for id_, label, source, rejected in _among(
        session, "SELECT photo_id, label, source, rejected FROM labels WHERE photo_id IN ", ids
    ):
        if not rejected:
            named.setdefault(id_, set()).add(label)
        if source == OWN_KEYWORD:
            own.setdefault(id_, set()).add(label)
    return [
        to_photo(row, *(tuple(sorted(labels.get(row[0], ()))) for labels in (named, own)))
        for row in _among(session, query, ids)
    ]


def _all_vectors(session: Session, encoder: EncoderRow) -> Iterator[tuple[Ids, Vectors]]:
    """Yield ids, ascending, and vectors of all photos present, in chunks."""
    query = f"{_VECTORS} AND gone_at IS NULL ORDER BY photo_id"
    for rows in session.parts(query, {"encoder": encoder.id}, size=_CHUNK):
        yield _sound(rows, encoder)


def _new_vectors(session: Session, encoder: EncoderRow, since: int) -> Iterator[tuple[Ids, Vectors]]:
    """Yield ids, ascending, and vectors of the photos present that changed after a commit, in chunks."""
    # Sorted here: asked to, SQLite would rather go through all photos in order than sort a few.
    ids = np.sort(session.ids("SELECT id FROM photos WHERE seq > :since", {"since": since}))
    yield from _vectors_of(session, encoder, ids.tolist())


def _vectors_of(session: Session, encoder: EncoderRow, ids: Sequence[int]) -> Iterator[tuple[Ids, Vectors]]:
    for chunk in chunks(ids):
        among, values = listed("id", chunk)
        query = f"{_VECTORS} AND gone_at IS NULL AND photo_id IN {among} ORDER BY photo_id"
        yield _sound(session.rows(query, {"encoder": encoder.id, **values}), encoder)


def _sound(rows: list[Row], encoder: EncoderRow) -> tuple[Ids, Vectors]:
    """Return ids and vectors; a vector whose checksum does not hold is left out."""
    sound = [(id_, vector) for id_, vector, crc in rows if checksum(vector, id_, encoder.id) == crc]
    ids = np.array([id_ for id_, _ in sound], np.int64)
    return ids, unpack_vectors([vector for _, vector in sound], encoder.dim)
