"""One catalog asked in two ways, by SQLite's own module and through SQLAlchemy: the answers are the same and right."""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

from search.catalog import Catalog
from search.catalog.reading import _COUNT, _GONE
from search.catalog.rows import MAX_PARAMETERS
from search.catalog.scan import ScannedFile, Verdict
from search.catalog.scopes import Scope
from search.catalog.storage import CATALOG_NAME, Storage
from search.catalog.writer import Record
from search.errors import LibraryError
from search.types import FileStat, Filter, LabelledPhoto, LabelScore, Photo, PhotoInfo, Skip, TakenAtSource

DIM, PHOTOS = 8, 1300
GONE_AT = datetime.fromisoformat("2024-05-06 07:08:09.123456")
CAMERAS = (None, "Canon EOS 5D", "canon powershot", "100%_/Pro", "100x_Pro", "ÄKTA Cam", "NIKON")
FOLDERS = (".", "trip", "trip!", "trip-1", "trip0", "trip/day", "tri", "träume", "a%b_c")


@dataclass(frozen=True)
class Model:
    name: str
    fingerprint: str
    dim: int = DIM
    context_length: int = 77
    logit_scale: float = 100.0
    logit_bias: float | None = None


MODEL, OTHER = Model("one", "1" * 64), Model("two", "2" * 64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library of photos with everything that filters look at, written in many commits."""
    folder = tmp_path_factory.mktemp("reading") / "library"
    rng = np.random.default_rng(7)
    catalog = Catalog(str(folder))
    catalog.create()
    with catalog.writing() as writer:
        first, second = writer.register(MODEL), writer.register(OTHER)
        scopes = [writer.add_source(root, is_folder=True) for root in ("/photos", "/other/place")]
        writer.begin_job("index")
        for start in range(0, PHOTOS, 100):
            records = [record(scopes, number, rng) for number in range(start, start + 100)]
            writer.add(records, unit_rows(rng, 100), first)
        known = [known_record(catalog, id_, rng) for id_ in (3, 500, 77)]
        writer.add(known, unit_rows(rng, 3), second)  # their content is new: the first model has no vector of them
        writer.skip_unread(scopes[0], Skip("/photos/trip/b\udcff.jpg", "unreadable", "no"))
        labelled = [
            LabelledPhoto("", (LabelScore(label, 0.5, 0.2),), id_)
            for id_ in range(1, PHOTOS, 3)
            for label in ("cat", "dog'; --")[: 1 + id_ % 2]
        ]
        writer.put_labels(labelled, ["cat", "dog'; --"], source="zero-shot", encoder_id=first)
        writer.put_labels(labelled[:50], ["cat"], source="user", encoder_id=None)
        writer.note_checked([5, 6], [7])
    catalog.close()
    with closing(sqlite3.connect(folder / CATALOG_NAME)) as connection:
        gone = (GONE_AT.isoformat(" ", "microseconds"),)
        connection.execute("UPDATE photos SET gone_at = ?, seq = 9 WHERE id % 17 = 0", gone)
        connection.execute("UPDATE embeddings SET crc = crc + 1 WHERE photo_id = 11")
        connection.execute("DELETE FROM embeddings WHERE photo_id = 12")
        connection.commit()
    return folder


def unit_rows(rng: np.random.Generator, count: int) -> np.ndarray:
    rows = rng.standard_normal((count, DIM)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def record(scopes: list[Scope], number: int, rng: np.random.Generator, id_: int | None = None) -> Record:
    scope = scopes[number % 5 == 0]
    place = os.path.normpath(os.path.join(FOLDERS[number % len(FOLDERS)], f"{number}.jpg"))
    path = os.path.join(scope.root, place)
    file = ScannedFile(scope.root_id, os.fsencode(place), FileStat(path, number, number * 10), Verdict.NEW, id_)
    return Record(file, bytes([number % 256]) * 32, info(number, rng))


def known_record(catalog: Catalog, id_: int, rng: np.random.Generator) -> Record:
    [photo] = catalog.get([id_])
    with catalog._reading() as session:
        root_id, place = session.one("SELECT root_id, path FROM photos WHERE id = :id", {"id": id_})
    file = ScannedFile(root_id, place, FileStat(photo.path, 1, 2), Verdict.CHANGED, id_)
    return Record(file, b"new" + bytes(29), info(id_, rng))


def info(number: int, rng: np.random.Generator) -> PhotoInfo:
    taken = datetime.fromisoformat("2015-01-01") + timedelta(
        days=int(rng.integers(4000)), microseconds=int(rng.integers(2))
    )
    zone = timezone(timedelta(hours=2)) if number % 3 == 0 else None
    placed = number % 4 > 0
    return PhotoInfo(
        format="jpeg",
        width=number + 1,
        height=2,
        taken_at=taken.replace(tzinfo=zone) if number % 7 else None,
        taken_at_source=TakenAtSource.EXIF if number % 7 else None,
        camera=CAMERAS[number % len(CAMERAS)],
        latitude=float(rng.uniform(-90, 90)) if placed else None,
        longitude=float(rng.uniform(-180, 180)) if placed else None,
    )


@pytest.fixture(params=["sqlite3", "sqlalchemy"])
def catalog(request: pytest.FixtureRequest, folder: Path):
    location = str(folder) if request.param == "sqlite3" else f"sqlite:///{folder / CATALOG_NAME}"
    catalog = Catalog(location)
    yield catalog
    catalog.close()


@pytest.fixture(scope="module")
def everyone(folder: Path) -> list[Photo]:
    """All photos, present or gone."""
    catalog = Catalog(str(folder))
    photos = catalog.get(range(1, PHOTOS + 1))
    catalog.close()
    assert len(photos) == PHOTOS
    return photos


def passes(photo: Photo, wanted: Filter) -> bool:
    """What a filter means, by the word of its description."""
    taken = photo.info.taken_at.replace(tzinfo=None) if photo.info.taken_at else None
    inside = wanted.folder is None or Path(photo.path).is_relative_to(os.path.normpath(wanted.folder))
    after = wanted.after is None or (taken is not None and taken >= wanted.after)
    before = wanted.before is None or (taken is not None and taken < wanted.before)
    camera = wanted.camera is None or (
        photo.info.camera is not None and wanted.camera.casefold() in photo.info.camera.casefold()
    )
    near = wanted.near is None or is_near(photo, wanted.near)
    return all((inside, after, before, camera, near, set(wanted.labels) <= set(photo.labels), not photo.gone_at))


def is_near(photo: Photo, near: tuple[float, float, float]) -> bool:
    if photo.info.latitude is None or photo.info.longitude is None:
        return False
    north, east = np.radians([photo.info.latitude, near[0]]), np.radians([photo.info.longitude, near[1]])
    cosine = np.prod(np.sin(north)) + np.prod(np.cos(north)) * np.cos(east[0] - east[1])
    return 6371.0088 * np.arccos(np.clip(cosine, -1, 1)) <= near[2]


EXACT = datetime.fromisoformat("2019-03-04")
FILTERS = [
    *(Filter(folder=f"/photos/{name}") for name in FOLDERS),
    *(Filter(folder=name) for name in ("/other", "/photos/trip/../trip", "/photos/trip/4.jpg", "/nowhere")),
    Filter(after=EXACT),
    Filter(before=EXACT),
    Filter(after=EXACT, before=EXACT + timedelta(days=300)),
    *(Filter(camera=text) for text in ("canon", "CANON", "%", "_", "/", "100%_/", "Ä", "äkta c", "no such")),
    *(
        Filter(near=near)
        for near in ((48.1, 11.5, 3000.0), (-89.0, 0.0, 800.0), (0.0, 180.0, 2500.0), (0.0, 0.0, 0.0))
    ),
    Filter(folder="/", labels=("cat",)),
    Filter(labels=("cat",)),
    Filter(labels=("cat", "dog'; --")),
    Filter(labels=("no such",)),
    Filter(
        folder="/photos",
        after=EXACT,
        before=datetime.fromisoformat("2025-01-01"),
        camera="canon",
        near=(0, 0, 9e3),
        labels=("cat",),
    ),
]


@pytest.mark.parametrize("wanted", FILTERS, ids=str)
def test_a_filter_gives_the_ids_that_pass_ascending(catalog, everyone, wanted):
    ids = catalog.select(wanted)
    assert ids.dtype == np.int64
    assert ids.tolist() == [photo.id for photo in everyone if passes(photo, wanted)]


def test_most_filters_of_this_suite_let_some_through_and_keep_some_out(everyone):
    counts = [sum(passes(photo, wanted) for photo in everyone) for wanted in FILTERS]
    assert sum(0 < count < PHOTOS for count in counts) > len(FILTERS) * 2 // 3


@pytest.mark.parametrize("wanted", [Filter(), Filter(folder="/"), Filter(folder="/photos/..")], ids=str)
def test_a_filter_that_all_pass_selects_nothing_in_particular(catalog, wanted):
    assert catalog.select(wanted) is None


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize("zone", ["+02:00", "+00:00", "-11:30"])
def test_a_bound_with_a_zone_is_an_instant_where_offsets_are_known_and_wall_clock_time_elsewhere(
    catalog, everyone, zone
):
    bound = at(f"2019-03-04T00:00{zone}")
    taken = [(photo.id, photo.info.taken_at) for photo in everyone if photo.info.taken_at and not photo.gone_at]
    later = [id_ for id_, when in taken if (when if when.tzinfo else when.replace(tzinfo=bound.tzinfo)) >= bound]
    assert catalog.select(Filter(after=bound)).tolist() == later
    assert catalog.select(Filter(before=bound)).tolist() == [id_ for id_, _ in taken if id_ not in set(later)]


def test_photos_come_as_they_were_written(catalog, folder):
    [photo] = catalog.get([17])
    assert photo.gone_at == GONE_AT.replace(tzinfo=UTC)
    [photo] = catalog.get([35])
    assert (photo.root, photo.path) == ("/photos", "/photos/träume/34.jpg")
    assert photo.content_hash == "22" * 32
    [zoned] = catalog.get([4])
    assert zoned.info.taken_at.utcoffset() == timedelta(hours=2)
    assert zoned.info.taken_at_source is TakenAtSource.EXIF
    assert zoned.labels == ("cat",)


def answers(catalog: Catalog) -> dict[str, object]:
    """What every reading method says."""
    encoder = catalog.encoder()
    assert encoder is not None
    many = list(range(PHOTOS, 0, -2))
    assert len(many) > MAX_PARAMETERS
    found: dict[str, object] = {
        "encoder": (encoder, catalog.encoder(name="two"), catalog.encoder(fingerprint="1" * 64)),
        "no encoder": (catalog.encoder(name="three"), catalog.encoder(fingerprint="3")),
        "numbers": (catalog.count(), catalog.sequence(), catalog.count_changed(5), catalog.count_vectors(encoder)),
        "size": catalog.size_bytes(),
        "publication": catalog.publication(),
        "get": catalog.get([*many, 10**6]),
        "ids_at": sorted(catalog.ids_at(["/photos/trip/1.jpg", "/other/place/0.jpg", "/x/y"])),
        "all": catalog.all_ids().tolist(),
        "known": catalog.known_ids().tolist(),
        "unchecked": catalog.unchecked().tolist(),
        "files": catalog.known_files([5, 4, 9**9]),
        "sample": [catalog.sample(Scope(1, "/photos", place), 7) for place in (".", "trip")],
        "embeddings": [part.tolist() for part in catalog.embeddings(encoder, many)],
        "revision": catalog.revision(),
        "roots": catalog.root_status(),
        "encoders": catalog.encoder_status(),
        "skipped": catalog.skipped(),
        "begun": (catalog.is_begun(), catalog.exists(), catalog.is_newer),
    }
    job = catalog.last_job()
    assert job is not None
    found["job"] = (job.kind, job.started_at, job.heartbeat_at, job.done, job.total, job.pid, job.host)
    with catalog.unchanged_vectors(encoder.id, 9) as vectors:
        found["unchanged"] = list(vectors)
    for since in (-1, 0, 8, 12, 10**6):
        with catalog.changes(encoder, since) as changes:
            added = [(ids.tolist(), vectors.tolist()) for ids, vectors in changes.added]
            numbers = (changes.seq, changes.rebuild, changes.photos)
            found[f"changes {since}"] = (*numbers, sorted(changes.gone.tolist()), joined(added))
    return found


def joined(parts: list[tuple[list[int], list[list[float]]]]) -> list[tuple[int, list[float]]]:
    rows = [row for ids, vectors in parts for row in zip(ids, vectors, strict=True)]
    assert [id_ for id_, _ in rows] == sorted(id_ for id_, _ in rows)
    return rows


def test_both_sessions_say_the_same(folder):
    direct, through = Catalog(str(folder)), Catalog(f"sqlite:///{folder / CATALOG_NAME}")
    one, other = answers(direct), answers(through)
    direct.close(), through.close()
    for name, said in one.items():
        assert said == other[name], name


def test_counts_and_changes_are_right(catalog, everyone):
    present = [photo.id for photo in everyone if not photo.gone_at]
    assert catalog.count() == len(present) < PHOTOS
    assert catalog.all_ids().tolist() == present
    encoder = catalog.encoder()
    without = {3, 500, 77, 12}  # of another model, or lost
    with catalog.changes(encoder, -1) as changes:
        ids = np.concatenate([part for part, _ in changes.added])
    assert changes.rebuild
    assert ids.tolist() == [id_ for id_ in present if id_ not in without | {11}]  # 11: its checksum does not hold
    with catalog.changes(encoder, catalog.sequence()) as changes:
        assert (list(changes.added), len(changes.gone), changes.rebuild) == ([], 0, False)
    with catalog.changes(encoder, 8) as changes:
        gone = set(changes.gone.tolist())
        newer = {id_ for part, _ in changes.added for id_ in part.tolist()}
    lost = {photo.id for photo in everyone if photo.gone_at}
    assert lost <= gone
    assert gone - lost <= without
    assert newer and not newer & (lost | without)


# ---- consistency, threads, indexes


@pytest.fixture
def small(tmp_path: Path) -> Catalog:
    catalog = Catalog(str(tmp_path / "library"))
    catalog.create()
    yield catalog
    catalog.close()


def add_root(catalog: Catalog, name: str) -> None:
    with catalog.writing() as writer:
        writer.add_source(name, is_folder=True)


def test_a_block_sees_one_state_and_the_next_one_what_was_committed_meanwhile(small):
    with small._reading() as session:
        before = session.one("SELECT seq FROM state")
        add_root(small, "/a")
        assert session.one("SELECT seq FROM state") == before
        assert session.rows("SELECT path FROM roots") == []
    assert [root.path for root in small.root_status()] == ["/a"]


@pytest.mark.parametrize("how", ["left half read", "raised"])
def test_what_a_block_left_half_read_holds_no_old_state(small, how):
    add_root(small, "/a")
    add_root(small, "/b")
    kept = []
    try:
        with small._reading() as session:
            parts = session.parts("SELECT path FROM roots", {}, size=1)
            kept.append((parts, next(parts)))
            if how == "raised":
                raise ZeroDivisionError
    except ZeroDivisionError as error:
        kept.append(error)
    add_root(small, "/c")
    assert [root.path for root in small.root_status()] == ["/a", "/b", "/c"]


def test_threads_read_side_by_side_and_blocks_within_blocks(small):
    add_root(small, "/a")
    seen: list[int] = []

    def read() -> None:
        for _ in range(50):
            with small._reading() as outer, small._reading() as inner:
                seen.extend((len(outer.rows("SELECT 1 FROM roots")), len(inner.rows("SELECT 1 FROM roots"))))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1] * 400


def test_a_catalog_closed_while_it_is_read_lets_go_of_its_file(small):
    with small._reading():
        small.close()
        assert small.count() == 0  # it can be used again
    small.close()
    if os.path.isdir("/proc/self/fd"):
        links = [Path("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
        held = [os.readlink(link) for link in links if link.is_symlink()]
        assert not [name for name in held if name.startswith(str(small.folder))]


def test_a_statement_that_fails_names_the_library(small):
    with pytest.raises(LibraryError, match="failed"), small._reading() as session:
        session.rows("SELECT nonsense(1)")
    assert small.count() == 0


def plan(storage: Storage, statement: str, **values: object) -> str:
    with storage.reading() as session:
        return " | ".join(row[3] for row in session.rows(f"EXPLAIN QUERY PLAN {statement}", values))


def test_counting_and_telling_who_is_gone_look_at_no_row(folder):
    storage = Storage(str(folder))
    counting = plan(storage, _COUNT)
    assert "COVERING INDEX photo_seq" in counting
    assert "COVERING INDEX photo_gone" in counting
    assert "COVERING INDEX photo_gone" in plan(storage, _GONE)
    storage.close()


@pytest.mark.parametrize(
    "wanted, index",
    [
        (Filter(folder="/photos/trip"), "sqlite_autoindex_photos_1"),
        (Filter(after=EXACT, before=EXACT), "photo_taken_at"),
        (Filter(camera="canon"), "photo_camera"),
        (Filter(after=EXACT, before=EXACT, camera="canon"), "photo_camera"),
        (Filter(near=(1, 2, 3)), "photo_position"),
    ],
    ids=str,
)
def test_a_filter_is_answered_from_an_index_alone(folder, wanted, index, monkeypatch):
    plans: list[str] = []
    storage = Storage(str(folder))
    catalog = Catalog(str(folder))
    with catalog._reading() as session:
        original = type(session).rows

    def rows(self, statement, values=None):
        if statement.startswith("SELECT photos.id"):
            found = original(self, f"EXPLAIN QUERY PLAN {statement}", values or {})
            plans.append(found[0][3])
        return original(self, statement, values or {})

    monkeypatch.setattr(type(session), "rows", rows)
    catalog.select(wanted)
    catalog.close()
    storage.close()
    assert f"COVERING INDEX {index}" in plans[0]
