"""What every catalog must do, in a folder and on a database server: on real rows, without a model or any file."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search.catalog import Catalog, Writer
from search.catalog.found import Settled
from search.catalog.scan import Recognised, ScannedFile, Verdict
from search.catalog.scopes import Scope
from search.catalog.writer import Record
from search.conditions import And, Called, Has, InFolder, IsFormat, Labelled, Measured, Named, Near, Not, Or, Taken
from search.errors import LibraryBusy, LibraryNotFound, UnknownRun
from search.types import (
    Contents,
    FileStat,
    Filter,
    JobState,
    LabelledPhoto,
    LabelScore,
    Likeness,
    Photo,
    PhotoInfo,
    Picture,
    ProblemKind,
    RunKind,
    Skip,
    SkipReason,
    TakenAtSource,
)

ROOT = Path(__file__).parents[2]
SETTLED = Settled("decoder", (SkipReason.EMPTY,))
# Names as file systems have them, and texts as cameras and people write them.
PLACES = (
    "a.png",
    "b\udcff.jpg",
    "day/é.png",
    "day/q'uote\".jpg",
    "day_/100%_.png",
    "DAY/A.PNG",
    "line\nbreak.jpg",
)
CAMERAS = ("Canon", "canon", "ÄKTA", "äkta", "100%_'; DROP", "日本 ☃", "back\\slash", None)
LABELS = ("cat", "Cat", "animal/cat", "dog'; --", "100%_", "Ä", "é", ":name")
MOMENT = datetime(2024, 2, 29, 23, 59, 59, 123456)  # noqa: DTZ001


@dataclass(frozen=True)
class Model:
    name: str = "model"
    fingerprint: str = "model"
    dim: int = 2
    context_length: int = 77
    logit_scale: float = 1.0
    logit_bias: float | None = None


@dataclass(frozen=True)
class Shelf:
    """A catalog and the folder that its photos are said to be in."""

    catalog: Catalog
    scope: Scope
    model: int

    def file(self, place: str, *, size: int = 10, mtime_ns: int = 1) -> FileStat:
        return FileStat(os.path.join(self.scope.root, place), size, mtime_ns, 1)

    def found(self, place: str, **stat: int) -> ScannedFile:
        return ScannedFile(self.scope.root_id, os.fsencode(place), self.file(place, **stat), Verdict.NEW, None)

    def put(self, writer: Writer, contents: dict[str, bytes], **info) -> list[int]:
        records = [
            Record(self.found(place), content.ljust(32, b"."), PhotoInfo("PNG", 4, 3, **info))
            for place, content in contents.items()
        ]
        return writer.add(records, np.tile(np.float32([0.6, 0.8]), (len(records), 1)), self.model)

    def run(self, writer: Writer, contents: dict[str, tuple[bytes, int]]) -> tuple[dict, Recognised, object]:
        """Do what an index run does with files, given their content and time; no photo is encoded."""
        scan = writer.scan(self.model, SETTLED)
        scan.record(self.scope, [self.file(place, mtime_ns=at) for place, (_, at) in contents.items()])
        scan.cover(self.scope)
        scan.free_places()
        verdicts = {verdict: count for verdict, count in scan.verdicts().items() if count}
        hashed = [
            (file, contents[os.fsdecode(file.place)][0].ljust(32, b"."))
            for page in scan.files(Verdict.CHANGED, Verdict.SUSPECT)
            for file in page
        ]
        return verdicts, scan.recognise(hashed, confirmed=True), scan.settle(confirmed=True)

    def places(self) -> dict[str, int]:
        photos = self.catalog.get(self.catalog.all_ids().tolist())
        return {os.path.relpath(photo.path, self.scope.root): photo.id for photo in photos}


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request, tmp_path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "library")
    return request.getfixturevalue("database_url")


@pytest.fixture
def shelf(place, tmp_path) -> Iterator[Shelf]:
    catalog = Catalog(place)
    catalog.create()
    with catalog.writing() as writer:
        model = writer.register(Model())
        scope = writer.add_source(str(tmp_path / "photos"), is_folder=True)
    yield Shelf(catalog, scope, model)
    catalog.close()


def test_what_is_not_there_is_said_to_be_missing(place):
    catalog = Catalog(place)
    assert not catalog.exists()
    with pytest.raises(LibraryNotFound, match="make one with 'search index DIR'"):
        catalog.count()
    catalog.close()


def test_what_is_put_in_comes_back_as_it_was(shelf):
    zone = timezone(timedelta(hours=-11, minutes=-30))
    with shelf.catalog.writing() as writer:
        for number, place in enumerate(PLACES):
            shelf.put(
                writer,
                {place: bytes([number])},
                camera=CAMERAS[number],
                lens="0" * 500,
                taken_at=MOMENT.replace(tzinfo=zone if number % 2 else None),
                taken_at_source=TakenAtSource.EXIF,
                latitude=-89.9999999,
                longitude=0.1 + 0.2,
                rating=-1,
                keywords=("Ä/b", "a"),
            )
    photos = {
        os.path.relpath(p.path, shelf.scope.root): p for p in shelf.catalog.get(shelf.catalog.all_ids().tolist())
    }
    assert list(photos) == list(PLACES)
    for number, photo in enumerate(photos.values()):
        assert (photo.info.camera, photo.info.lens) == (CAMERAS[number], "0" * 500)
        assert photo.info.taken_at == MOMENT.replace(tzinfo=zone if number % 2 else None)
        assert (photo.info.latitude, photo.info.longitude) == (-89.9999999, 0.1 + 0.2)
        assert (photo.info.rating, photo.info.keywords, photo.labels) == (-1, ("a", "Ä/b"), ("a", "Ä/b"))
        assert photo.content_hash == bytes([number]).ljust(32, b".").hex()
    encoder = shelf.catalog.encoder()
    ids, vectors = shelf.catalog.embeddings(encoder, shelf.catalog.all_ids().tolist())
    assert len(ids) == len(PLACES)
    np.testing.assert_allclose(vectors, np.tile([0.6, 0.8], (len(ids), 1)), atol=1e-3)  # kept as float16


def test_texts_that_hold_a_zero_are_taken(shelf):
    with shelf.catalog.writing() as writer:
        [id_] = shelf.put(writer, {"a.png": b"a"}, camera="Cam\0era", keywords=("x\0y",))
        writer.skip([(shelf.found("b.png"), Skip("b.png", SkipReason.EMPTY, "de\0tail"))], "decoder")
    [photo] = shelf.catalog.get([id_])
    assert photo.info.camera in ("Cam\0era", "Cam\u2400era")
    assert shelf.catalog.ids_with("x\0y") == [id_]
    assert shelf.catalog.select(Filter(where=Called("camera", "cam"))).tolist() == [id_]


def test_a_run_tells_new_changed_moved_gone_and_back(shelf):
    with shelf.catalog.writing() as writer:
        a, b, c = shelf.put(writer, {"a.png": b"A", "day/b\udcff.png": b"B", "c.png": b"C"})
        as_it_was = {"a.png": (b"A", 1), "day/b\udcff.png": (b"B", 1), "c.png": (b"C", 1)}
        verdicts, told, settled = shelf.run(writer, as_it_was)
        assert (verdicts, told, settled.gone) == ({Verdict.UNCHANGED: 3}, Recognised(), 0)
        # One touched, one renamed, one taken away, one that only has a known size.
        now = {"a.png": (b"A", 2), "day/x.png": (b"B", 1), "new.png": (b"N", 1)}
        verdicts, told, settled = shelf.run(writer, now)
        assert verdicts == {Verdict.CHANGED: 1, Verdict.SUSPECT: 2}
        assert (told, settled.gone) == (Recognised(touched=1, moved=1), 1)
        assert shelf.places() == {"a.png": a, "day/x.png": b}
        assert shelf.catalog.count() == 2
        _, told, settled = shelf.run(writer, {"c.png": (b"C", 1), "a.png": (b"A", 2), "day/x.png": (b"B", 1)})
        assert (told, settled.returned, settled.gone) == (Recognised(), 1, 0)
        assert shelf.places() == {"a.png": a, "day/x.png": b, "c.png": c}
        # Swapped names, and a copy of what is there.
        swapped = {"c.png": (b"A", 3), "a.png": (b"C", 3), "day/x.png": (b"B", 1), "copy.png": (b"B", 1)}
        _, told, _ = shelf.run(writer, swapped)
        assert told == Recognised(moved=2, added=1)
    places = shelf.places()
    assert (places["a.png"], places["c.png"], places["day/x.png"]) == (c, a, b)
    assert shelf.catalog.copies() == [[b, places["copy.png"]]]
    assert shelf.catalog.count_vectors(shelf.catalog.encoder()) == 4


def test_an_unchanged_folder_is_known_without_a_write(shelf):
    with shelf.catalog.writing() as writer:
        shelf.put(writer, {place: bytes([n]) for n, place in enumerate(sorted(PLACES, key=os.fsencode))})
        writer.keep_info(shelf.catalog.all_ids().tolist(), reader=SETTLED.reader)
    before = shelf.catalog.sequence()
    files = [shelf.file(place) for place in sorted(PLACES, key=os.fsencode)]
    with shelf.catalog.turn() as turn:
        assert turn.is_tidy()
        with turn.looking(shelf.model, SETTLED) as look:
            assert look.take(shelf.scope, files[:3])
            assert look.take(shelf.scope, files[3:])
            assert look.conclude([(shelf.scope, None)], before=MOMENT).photos == len(PLACES)
        with turn.looking(shelf.model, SETTLED) as look:
            assert look.take(shelf.scope, files[:2])
            assert not look.take(shelf.scope, [shelf.file(PLACES[0], mtime_ns=5)])
            [matched] = look.so_far()
        scan = turn.writer.scan(shelf.model, SETTLED)
        scan.record_known(matched)
        scan.record(shelf.scope, files[1:])
        assert scan.verdicts()[Verdict.UNCHANGED] == len(PLACES)
    assert shelf.catalog.sequence() == before


# ---- filters

TEXTS = st.sampled_from(["c", "ä", "100%_", "'", "\\", "日", "", "*", "a"])
OPERATORS = st.sampled_from([">=", "<", "="])
AMOUNTS = st.sampled_from([0, 3, 4, 10, 1e12])
MOMENTS = st.sampled_from(
    [MOMENT, MOMENT.replace(tzinfo=timezone(timedelta(hours=14))), datetime.min, datetime.max]  # noqa: DTZ901
)
NODES = st.recursive(
    st.one_of(
        st.builds(Called, st.sampled_from(["camera", "lens"]), TEXTS),
        st.builds(Labelled, st.sampled_from([*LABELS, "animal", "c*"])),
        st.builds(Named, st.sampled_from(["name", "path"]), TEXTS),
        st.builds(InFolder, st.sampled_from(["/shelf", "/shelf/day", "/shelf/day_", "/shelf/DAY", "/elsewhere"])),
        st.builds(IsFormat, st.sampled_from(["PNG", "png", "jpeg"])),
        st.builds(Measured, st.sampled_from(["width", "megapixels", "size", "rating"]), OPERATORS, AMOUNTS),
        st.builds(Taken, st.sampled_from([">=", "<"]), MOMENTS),
        st.builds(Near, st.sampled_from([0.0, 48.2]), st.sampled_from([16.4, -180.0]), st.sampled_from([1.0, 5000.0])),
        st.builds(Has, st.sampled_from(["date", "camera", "gps", "rating", "label"])),
    ),
    lambda parts: st.one_of(
        st.builds(Not, parts),
        st.builds(And, st.tuples(parts, parts)),
        st.builds(Or, st.tuples(parts, parts)),
    ),
    max_leaves=5,
)  # fmt: skip


@dataclass(frozen=True, repr=False)
class Shown:
    catalog: Catalog
    photos: list[Photo]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def shown(request, tmp_path_factory) -> Iterator[Shown]:
    """A catalog of hostile rows, and its photos as Python has them."""
    if request.param == "sqlite":
        place = str(tmp_path_factory.mktemp("shown") / "library")
    else:
        server = request.getfixturevalue("postgres")
        place = server.url(server.database())
    catalog = Catalog(place)
    catalog.create()
    rng = np.random.default_rng(7)

    def some(values):
        return values[rng.integers(len(values))]

    with catalog.writing() as writer:
        shelf = Shelf(catalog, writer.add_source("/shelf", is_folder=True), writer.register(Model()))
        ids = []
        for number in range(60):
            name = f"{number}{some(PLACES)}" if number % 2 else f"day{some(['', '_'])}/{number}{some(PLACES)[-6:]}"
            moment = some([None, MOMENT, MOMENT.replace(tzinfo=timezone(timedelta(hours=some([-11, 0, 14]))))])
            north, east = some([(None, None), (48.2, 16.4), (0.0, 180.0)])
            ids += shelf.put(
                writer,
                {name: bytes([number])},
                camera=some(CAMERAS),
                taken_at=moment,
                taken_at_source=some([TakenAtSource.EXIF, TakenAtSource.FILE]) if moment else None,
                latitude=north,
                longitude=east,
                rating=some([None, -1, 0, 5]),
            )
        labelled = [LabelledPhoto("", tuple(LabelScore(x, 1, 1) for x in {some(LABELS)}), id_) for id_ in ids[::2]]
        writer.put_labels(labelled, LABELS, source="user", encoder_id=None)
        with writer.run(RunKind.REJECT) as run:
            run.judge([(id_, label, False) for id_ in ids[::6] for label in LABELS[:2]])
        writer.part_with(ids[:3])
    yield Shown(catalog, catalog.get(catalog.all_ids().tolist()))
    catalog.close()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(node=NODES)
def test_a_filter_selects_what_looking_at_every_photo_finds(shown, node):
    catalog, photos = shown.catalog, shown.photos
    found = catalog.select(Filter(where=node))
    assert (catalog.all_ids() if found is None else found).tolist() == [p.id for p in photos if node.holds(p)]


def test_names_are_listed_as_python_sorts_them(shown):
    catalog, photos = shown.catalog, shown.photos
    names = {label for photo in photos for label in photo.labels}
    assert catalog.label_names() == sorted(names)
    overview = catalog.overview()
    assert overview.ids.tolist() == [photo.id for photo in photos]
    assert catalog.overview(overview) is overview


def test_what_the_photos_are_is_counted(shelf):
    assert shelf.catalog.contents() == Contents({}, None, 0)
    with shelf.catalog.writing() as writer:
        said, guessed = {"taken_at_source": TakenAtSource.EXIF}, {"taken_at_source": TakenAtSource.FILE}
        shelf.put(writer, {"a.png": b"a", "day/b.png": b"b"}, taken_at=MOMENT, **said)
        shelf.put(writer, {"day/c.png": b"c"}, taken_at=MOMENT.replace(year=2009, day=1), **said)
        shelf.put(writer, {"day/d.png": b"d"}, taken_at=MOMENT.replace(year=1980), **guessed)
        writer.part_with(shelf.put(writer, {"gone/e.png": b"e"}, taken_at=MOMENT.replace(year=1984), **said))
        jpeg = Record(shelf.found("f.jpg"), b"f".ljust(32, b"."), PhotoInfo("JPEG", 4, 3))
        writer.add([jpeg], np.float32([[0.6, 0.8]]), shelf.model)
    assert shelf.catalog.contents() == Contents({"PNG": 4, "JPEG": 1}, (2009, 2024), 2)


# ---- labels


def test_labels_are_proposed_judged_and_undone(shelf):
    with shelf.catalog.writing() as writer:
        a, b, c = shelf.put(writer, {"a": b"a", "b": b"b", "c": b"c"})
        labelled = [
            LabelledPhoto("", (LabelScore(x, p, 0.2),), i) for i, x, p in ((a, "cat", 0.5), (b, "cat", 0.9))
        ]
        with writer.run(RunKind.LABEL, encoder_id=shelf.model, details={"k": "\0 'é"}) as run:
            assert run.propose(labelled, LABELS, encoder_id=shelf.model) == 2
        with writer.run(RunKind.REJECT) as rejecting:
            rejecting.judge([(a, "cat", False), (c, "Cat", True)])
        with writer.run(RunKind.PROBE, details={"weights": "x", "biases": "y", "k": 1}) as probing:
            pass
    catalog = shelf.catalog
    assert [id_ for id_, _ in catalog.proposals("cat")] == [b]
    assert (catalog.ids_with("cat"), catalog.label_names()) == ([a, b], ["Cat", "cat"])
    assert [(v.photo_id, v.label, v.accepted) for v in catalog.verdicts()] == [(a, "cat", False), (c, "Cat", True)]
    counts = {one.label: one for one in catalog.label_counts()}
    assert (counts["cat"].photos, counts["cat"].rejected, counts["cat"].judged_proposals) == (1, 1, 1)
    listed = {one.id: one for one in catalog.runs()}
    assert listed[run.id].details == {"k": "\0 'é"}
    assert listed[probing.id].details == {"k": 1}
    assert (catalog.run(run.id).labels, catalog.newest_run()) == (1, probing.id)
    with catalog.writing() as writer:
        assert writer.undo(rejecting.id).verdicts == 2
        with pytest.raises(UnknownRun, match="undone before"):
            writer.undo(rejecting.id)
        with pytest.raises(UnknownRun):
            writer.undo(10**12)
    assert [id_ for id_, _ in catalog.proposals("cat")] == [b, a]
    assert catalog.rejected() == {}


# ---- duplicates, jobs, skips, removing


def test_what_pictures_look_like_is_kept_once(shelf):
    catalog = shelf.catalog
    with catalog.writing() as writer:
        a, b = shelf.put(writer, {"a": b"same", "b": b"same"}, camera="x", taken_at=MOMENT, taken_at_source="exif")
        writer.put_pictures(
            [Picture(a, b"\0\xff", 0.5, 90), Picture(b, b"\1", 1e-300), Picture(99, b"", 0)], method=1
        )
        writer.put_pictures([Picture(b, b"\2", 2.5)], method=1)
    assert catalog.pictures(1) == [Picture(a, b"\0\xff", 0.5, 90), Picture(b, b"\2", 2.5)]
    assert catalog.without_picture(1).tolist() == []
    assert catalog.without_picture(2).tolist() == [a, b]
    assert catalog.copies() == [[a, b]]
    ids, cameras, seconds = catalog.shots()
    assert (ids.tolist(), len(set(cameras)), np.ptp(seconds)) == ([a, b], 1, 0)


def test_jobs_tell_what_they_died_with(shelf):
    with shelf.catalog.writing() as writer:
        writer.begin_job("index")
        writer.take([shelf.found("a"), shelf.found("b\udcff")])
        writer.take([shelf.found("b\udcff")], alone=True)
        assert shelf.catalog.last_job().state is JobState.RUNNING
    assert shelf.catalog.last_job().state is JobState.INTERRUPTED  # its process lives, but writes no more
    with shelf.catalog.turn() as turn:
        assert not turn.is_tidy()
        with turn.writer.job("index"):
            root = shelf.scope.root_id
            assert turn.writer.leftovers() == {(root, b"a"): 0, (root, b"b\xff"): 1}
    assert shelf.catalog.last_job().state is JobState.DONE
    with shelf.catalog.turn() as turn:
        assert turn.is_tidy()


def test_skips_are_remembered_until_their_file_changes(shelf):
    skip = Skip(shelf.file("x\udcff").path, SkipReason.EMPTY, "it's 'empty' 日本")
    with shelf.catalog.writing() as writer:
        writer.skip([(shelf.found("x\udcff"), skip)], "decoder")
        scan = writer.scan(shelf.model, SETTLED)
        scan.record(shelf.scope, [shelf.file("x\udcff"), shelf.file("y")])
        assert scan.settled_skips() == [skip]
        assert scan.verdicts()[Verdict.NEW] == 1
    assert shelf.catalog.skipped() == [skip]


def test_what_is_removed_is_gone_with_all_it_had(shelf):
    with shelf.catalog.writing() as writer:
        inside = writer.add_source(os.path.join(shelf.scope.root, "day"), is_folder=True)
        assert inside == Scope(shelf.scope.root_id, shelf.scope.root, "day")
        a, b = shelf.put(writer, {"a": b"a", "day/b": b"b"}, keywords=("k",))
        writer.put_pictures([Picture(b, b"1", 1)], method=1)
        assert writer.remove(inside) == 1
        assert writer.purge([a]) == 1
        [c] = shelf.put(writer, {"c": b"c"})
    assert c > b  # no id is given twice
    with shelf.catalog.changes(shelf.catalog.encoder(), since=1) as changes:
        assert (changes.rebuild, changes.photos, [ids.tolist() for ids, _ in changes.added]) == (True, 1, [[c]])


def test_an_upper_folder_takes_over_the_roots_inside(shelf):
    above = os.path.dirname(shelf.scope.root)
    with shelf.catalog.writing() as writer:
        shelf.put(writer, {place: bytes([n]) for n, place in enumerate(PLACES)})
        scope = writer.add_source(above, is_folder=True)
        assert writer.count(scope) == len(PLACES)
    [root] = shelf.catalog.root_status()
    assert (root.path, root.photos) == (above, len(PLACES))
    assert {
        os.path.relpath(p.path, shelf.scope.root) for p in shelf.catalog.get(shelf.catalog.all_ids().tolist())
    } == set(PLACES)


def test_a_photo_keeps_its_likeness_only_with_its_content(shelf):
    likeness = Likeness(1, b"h", 0.5)
    with shelf.catalog.writing() as writer:
        record = Record(shelf.found("a"), b"1" * 32, PhotoInfo("PNG", 1, 1), likeness)
        [a] = writer.add([record], np.float32([[1, 0]]), shelf.model)
        known = ScannedFile(shelf.scope.root_id, b"a", shelf.file("a"), Verdict.CHANGED, a)
        writer.add([Record(known, b"2" * 32, PhotoInfo("PNG", 2, 2))], np.float32([[0, 1]]), shelf.model)
    assert shelf.catalog.pictures(1) == []
    assert shelf.catalog.embeddings(shelf.catalog.encoder(), [a])[1].tolist() == [[0, 1]]


# ---- whole, and one writer


def test_a_vector_that_is_not_what_was_written_is_found(shelf):
    with shelf.catalog.writing() as writer:
        a, _ = shelf.put(writer, {"a": b"a", "b": b"b"})
    assert shelf.catalog.problems(full=True) == ([], True)
    with shelf.catalog._storage.writing() as connection, connection.begin():
        connection.exec_driver_sql(f"UPDATE embeddings SET crc = crc + 1 WHERE photo_id = {a}")
    [problem], _ = shelf.catalog.problems(full=True)
    assert (problem.kind, problem.id) == (ProblemKind.VECTOR_DAMAGED, a)
    assert shelf.catalog.repair()[0] == 1
    assert [p.kind for p in shelf.catalog.problems(full=True)[0]] == [ProblemKind.VECTOR_MISSING]


def test_a_reader_sees_one_state_while_others_commit(shelf, place):
    other = Catalog(place)
    with shelf.catalog.writing() as writer:
        shelf.put(writer, {"a": b"a"})
        with other._reading() as session:
            assert session.one("SELECT count(*) FROM photos") == (1,)
            shelf.put(writer, {"b": b"b"})
            assert session.one("SELECT count(*) FROM photos") == (1,)
        assert other.count() == 2
    other.close()


def test_a_second_writer_is_told_who_the_first_is(shelf, place):
    assert not shelf.catalog.is_written_to()
    with shelf.catalog.writing():
        assert shelf.catalog.is_written_to()
        second = Catalog(place)
        with pytest.raises(LibraryBusy, match=rf"is being written to by process {os.getpid()} on .*, since 20"):
            second.writing().__enter__()
        assert second.count() == 0
        second.close()
    with shelf.catalog.writing():
        pass
    assert not shelf.catalog.is_written_to()


HOLD = """
import sys, time
from search.catalog import Catalog
with Catalog(sys.argv[1]).writing() as writer:
    writer.begin_job("index")
    print("held", flush=True)
    time.sleep(600)
"""


def test_the_right_to_write_goes_with_a_process_that_is_killed(shelf, place):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    holder = subprocess.Popen([sys.executable, "-c", HOLD, place], stdout=subprocess.PIPE, env=environment)
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(LibraryBusy, match=f"process {holder.pid} on "):
        shelf.catalog.writing().__enter__()
    assert shelf.catalog.last_job().state is JobState.RUNNING
    holder.kill()
    holder.communicate()
    for _ in range(200):  # a server may take a moment to notice
        if not shelf.catalog.is_written_to():
            break
        time.sleep(0.02)
    assert shelf.catalog.last_job().state is JobState.INTERRUPTED
    with shelf.catalog.writing() as writer:
        shelf.put(writer, {"a": b"a"})
    assert shelf.catalog.count() == 1


def test_nothing_to_write_is_written_as_nothing(shelf):
    with shelf.catalog.writing() as writer:
        [id_] = shelf.put(writer, {"a.jpg": b"A"})
        before = shelf.catalog.sequence()
        writer.put_pictures([Picture(id_ + 1, b"1", 1)], method=1)
        writer.put_heads(shelf.model, [])
        writer.put_sidecars([])
        with writer.run(RunKind.ACCEPT) as run:
            run.judge([])
        assert writer.purge([]) == 0
    assert shelf.catalog.pictures(1) == []
    assert shelf.catalog.heads(shelf.model) == {}
    assert shelf.catalog.sidecars() == []
    assert shelf.catalog.verdicts() == []
    assert [(run.kind, run.labels) for run in shelf.catalog.runs()] == [(RunKind.ACCEPT, 0)]
    assert shelf.catalog.sequence() > before
    assert shelf.catalog.problems(full=True)[0] == []


def test_files_are_noted_as_worked_on_only_by_a_job(shelf):
    with shelf.catalog.writing() as writer:
        with pytest.raises(RuntimeError, match="no job has begun"):
            writer.take([shelf.found("a.jpg")])
        writer.begin_job("index")
        writer.take([shelf.found("a.jpg")])
        writer.finish_job(JobState.DONE)
        writer.finish_job(JobState.FAILED)  # it has ended
    assert shelf.catalog.last_job().state is JobState.DONE


def test_a_quick_look_at_a_whole_catalog_finds_nothing_and_room_can_be_made_in_any(shelf):
    with shelf.catalog.writing() as writer:
        ids = shelf.put(writer, {"a.jpg": b"A", "b.jpg": b"B"})
        assert writer.purge(ids[:1]) == 1
        writer.compact()
    assert shelf.catalog.problems(full=False)[0] == []
    assert shelf.places() == {"b.jpg": ids[1]}


def test_numbers_that_photos_once_had_are_not_given_again_in_a_copy(shelf, tmp_path):
    other = Catalog(str(tmp_path / "other"))
    with shelf.catalog.turn() as turn:
        ids = shelf.put(turn.writer, {"a.jpg": b"A", "b.jpg": b"B"})
        assert turn.writer.purge(ids) == 2
        shelf.catalog.copy_into(other, told=lambda done, total: None)
    with other.writing() as writer:
        [id_] = shelf.put(writer, {"c.jpg": b"C"})
    assert id_ == max(ids) + 1
    other.close()


def test_what_a_rule_judged_says_nothing_of_how_good_proposals_are(shelf):
    with shelf.catalog.writing() as writer:
        a, b = shelf.put(writer, {"a": b"a", "b": b"b"})
        with writer.run(RunKind.LABEL, encoder_id=shelf.model) as run:
            likely = [LabelledPhoto("", (LabelScore("cat", 0.9, 0.2),), id_) for id_ in (a, b)]
            run.propose(likely, ["cat"], encoder_id=shelf.model)
        with writer.run(RunKind.ACCEPT, details={"above": 0.5}) as ruling:
            ruling.judge([(a, "cat", True)])
        with writer.run(RunKind.REJECT) as judging:
            judging.judge([(b, "cat", False)])
    [counts] = shelf.catalog.label_counts("cat")
    assert (counts.judged_proposals, counts.right_proposals, counts.accepted, counts.rejected) == (1, 0, 1, 1)
    records = {
        id_: [(one.source, one.run, one.rejected) for one in found]
        for id_, found in shelf.catalog.records("cat").items()
    }
    assert records == {
        a: [("user", ruling.id, False), ("zero-shot", run.id, False)],
        b: [("zero-shot", run.id, True)],
    }
    assert shelf.catalog.run(judging.id + 1) is None
