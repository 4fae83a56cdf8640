"""A run hashes piece by piece and doubts what looks like a drive that is away: on real rows, without a model."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from search.catalog import Catalog, Writer
from search.catalog.doubts import is_nowhere
from search.catalog.scan import Recognised, Scan, ScannedFile, Settled, Verdict
from search.catalog.scopes import Scope
from search.catalog.writer import Record
from search.types import FileStat, PhotoInfo, Skip, SkipReason

SETTLED = Settled("decoder", (SkipReason.EMPTY,))


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
    """A catalog and the folder its photos are said to be in; no file is needed there."""

    catalog: Catalog
    root: Path
    scope: Scope
    model: int

    def file(self, place: str, *, mtime_ns: int = 1, ctime_ns: int | None = 1) -> FileStat:
        return FileStat(str(self.root / place), 10, mtime_ns, ctime_ns)

    def put(self, writer: Writer, contents: dict[str, bytes]) -> list[int]:
        records = [
            Record(
                ScannedFile(self.scope.root_id, place.encode(), self.file(place), Verdict.NEW, None),
                content.ljust(32, b"."),
                PhotoInfo("PNG", 1, 1),
            )
            for place, content in contents.items()
        ]
        vectors = np.tile(np.float32([0.6, 0.8]), (len(records), 1))
        return writer.add(records, vectors, self.model)

    def rows(self) -> list[tuple]:
        """Every photo: id (0 for one that is new since), place unless parked, content, whether it is gone."""
        with sqlite3.connect(self.catalog.folder / "catalog.db") as connection:
            rows = connection.execute("SELECT id, path, content_hash, gone_at IS NOT NULL FROM photos").fetchall()
        return [
            (id_, None if path[:1] == b"\0" else path, content.rstrip(b"."), gone)
            for id_, path, content, gone in rows
        ]


def open_shelf(folder: Path) -> Shelf:
    root = folder / "photos"
    root.mkdir()
    (root / "something").touch()
    catalog = Catalog(str(folder / "library"))
    catalog.create()
    with catalog.writing() as writer:
        model = writer.register(Model())
        scope = writer.add_source(str(root), is_folder=True)
    return Shelf(catalog, root, scope, model)


@pytest.fixture
def shelf(tmp_path) -> Iterator[Shelf]:
    shelf = open_shelf(tmp_path)
    yield shelf
    shelf.catalog.close()


@pytest.fixture(scope="module")
def empty_library(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("empty")
    open_shelf(folder).catalog.close()
    return folder


def run(shelf: Shelf, writer: Writer, files: list[FileStat], **settle) -> tuple[Scan, object]:
    found = writer.scan(shelf.model, SETTLED)
    found.record(shelf.scope, files)
    found.cover(shelf.scope, settle.pop("file_system", None))
    found.free_places()
    return found, found.settle(**settle)


# ---- pieces


PLACES = [f"{name}.png" for name in "abcdef"]
CONTENTS = st.sampled_from([b"A", b"B", b"C", b"D"])


@st.composite
def histories(draw):
    """What was there, which of it was gone, what is there now, and which of it was only touched."""
    before = draw(st.dictionaries(st.sampled_from(PLACES), CONTENTS, min_size=1))
    gone = draw(st.sets(st.sampled_from(sorted(before))))
    after = draw(st.dictionaries(st.sampled_from(PLACES), CONTENTS, min_size=1))
    return before, gone, after, draw(st.sets(st.sampled_from(PLACES))), draw(st.sets(st.sampled_from(PLACES)))


def after_a_run(template: Path, history, piece: int) -> tuple[list[tuple], tuple[int, ...]]:
    before, gone, after, touched, by_ctime = history
    with TemporaryDirectory() as folder:
        shutil.copytree(template, folder, dirs_exist_ok=True)
        with sqlite3.connect(Path(folder, "library", "catalog.db")) as connection:
            connection.execute("UPDATE roots SET path = ?", (os.fsencode(Path(folder, "photos")),))
        connection.close()
        catalog = Catalog(str(Path(folder, "library")))
        root = Path(folder, "photos")
        shelf = Shelf(catalog, root, Scope(1, str(root), "."), 1)
        with catalog.writing() as writer:
            shelf.put(writer, before)
            run(shelf, writer, [shelf.file(place) for place in before if place not in gone], confirmed=True)
            found = writer.scan(shelf.model, SETTLED)
            files = []
            for place, content in after.items():
                changed = before.get(place) != content or place in touched
                files.append(
                    shelf.file(
                        place,
                        mtime_ns=1 + (changed and place not in by_ctime),
                        ctime_ns=1 + (changed and place in by_ctime),
                    )
                )
            found.record(shelf.scope, files)
            found.cover(shelf.scope)
            found.free_places()
            hashed = [
                (file, after[file.place.decode()].ljust(32, b"."))
                for page in found.files(Verdict.CHANGED, Verdict.SUSPECT)
                for file in page
            ]
            told = [
                found.recognise(hashed[start : start + piece], last=False)
                for start in range(0, len(hashed), piece)
            ]
            told.append(found.recognise([]))
            settlement = found.settle(confirmed=True)
        rows = [(id_ if id_ <= len(before) else 0, *rest) for id_, *rest in shelf.rows()]
        catalog.close()
    counts = [sum(getattr(one, name) for one in told) for name in Recognised.__dataclass_fields__]
    return sorted(rows, key=repr), (*counts, settlement.returned, settlement.gone)


@pytest.mark.slow
@example(({"a.png": b"B"}, set(), {"a.png": b"A", "b.png": b"B", "c.png": b"B"}, set(), set()), 1)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(histories(), st.integers(1, 3))
def test_the_pieces_a_run_hashes_in_make_no_difference(empty_library, history, piece):
    assert after_a_run(empty_library, history, piece) == after_a_run(empty_library, history, 100)


def test_an_interrupted_run_keeps_what_it_recognised_and_swaps_nothing_by_half(shelf):
    with shelf.catalog.writing() as writer:
        a, b, c = shelf.put(writer, {"a.png": b"A", "b.png": b"B", "c.png": b"C"})
        found = writer.scan(shelf.model, SETTLED)
        found.record(shelf.scope, [shelf.file(place, mtime_ns=2) for place in ("a.png", "b.png", "c.png")])
        hashed = {file.place: file for page in found.files(Verdict.CHANGED) for file in page}
        first = [(hashed[b"a.png"], b"B".ljust(32, b".")), (hashed[b"c.png"], b"C".ljust(32, b"."))]
        assert found.recognise(first, last=False) == Recognised(touched=1)
        assert sorted(shelf.rows()) == [(a, b"a.png", b"A", 0), (b, b"b.png", b"B", 0), (c, b"c.png", b"C", 0)]
        assert found.verdicts()[Verdict.UNREAD] == 1
        assert found.recognise([(hashed[b"b.png"], b"A".ljust(32, b"."))]).moved == 2
    assert sorted(shelf.rows()) == [(a, b"b.png", b"A", 0), (b, b"a.png", b"B", 0), (c, b"c.png", b"C", 0)]


def test_a_copy_over_a_photo_that_was_renamed_leaves_the_renamed_one_alone(shelf):
    (shelf.root / "c.png").touch()
    with shelf.catalog.writing() as writer:
        a, _ = shelf.put(writer, {"a.png": b"A", "c.png": b"C"})
        found = writer.scan(shelf.model, SETTLED)
        found.record(
            shelf.scope, [shelf.file("a.png", mtime_ns=2), shelf.file("c.png"), shelf.file("q.png", mtime_ns=3)]
        )
        contents = {b"a.png": b"C", b"q.png": b"A"}
        hashed = [
            (file, contents[file.place].ljust(32, b"."))
            for page in found.files(Verdict.CHANGED, Verdict.SUSPECT)
            for file in page
        ]
        assert found.recognise(hashed) == Recognised(moved=1, added=1)
    assert {row[1:3] for row in shelf.rows()} == {(b"q.png", b"A"), (b"c.png", b"C"), (b"a.png", b"C")}
    assert {row[0] for row in shelf.rows() if row[1] == b"q.png"} == {a}


# ---- unchanged or not


@pytest.mark.parametrize(
    ("times", "verdict"),
    [
        ((1, 1), Verdict.UNCHANGED),
        ((1, 2), Verdict.CHANGED),
        ((1, 0), Verdict.CHANGED),
        ((0, 1), Verdict.CHANGED),
        ((2**62, 1), Verdict.CHANGED),
        ((1, None), Verdict.UNCHANGED),
    ],
)
def test_any_other_time_is_a_change_and_none_is_newer(shelf, times, verdict):
    with shelf.catalog.writing() as writer:
        shelf.put(writer, {"a.png": b"A"})
        found = writer.scan(shelf.model, SETTLED)
        found.record(shelf.scope, [shelf.file("a.png", mtime_ns=times[0], ctime_ns=times[1])])
        assert found.verdicts()[verdict] == 1


def test_rows_without_a_change_time_are_unchanged_and_get_it(shelf):
    with shelf.catalog.writing() as writer:
        shelf.put(writer, {"a.png": b"A"})
        file = ScannedFile(shelf.scope.root_id, b"empty.png", shelf.file("empty.png"), Verdict.NEW, None)
        writer.skip([(file, Skip(file.stat.path, SkipReason.EMPTY, ""))], "decoder")
        for table in ("photos", "skips"):
            writer._connection.exec_driver_sql(f"UPDATE {table} SET ctime_ns = NULL")
        writer._connection.commit()
        files = [shelf.file("a.png", ctime_ns=5), shelf.file("empty.png", ctime_ns=6)]
        found, _ = run(shelf, writer, files)
        assert found.verdicts()[Verdict.UNCHANGED] == found.verdicts()[Verdict.SETTLED] == 1
        again = [shelf.file("a.png", ctime_ns=7), shelf.file("empty.png", ctime_ns=7)]
        found.record(shelf.scope, again)  # known already: the first look holds
        found, _ = run(shelf, writer, again)
        assert found.verdicts()[Verdict.CHANGED] == 1
        assert found.verdicts()[Verdict.SETTLED] == 0


# ---- drives


def many(n: int) -> dict[str, bytes]:
    return {f"{i:04}.png": b"%d" % i for i in range(n)}


@pytest.mark.parametrize(
    ("there", "left", "gone", "withheld"),
    [
        (1000, 800, 200, 0),  # 20 %
        (1000, 799, 0, 201),
        (120, 20, 100, 0),  # 100 photos
        (120, 19, 0, 101),
    ],
)
def test_so_many_missing_at_once_are_kept(shelf, there, left, gone, withheld):
    with shelf.catalog.writing() as writer:
        shelf.put(writer, many(there))
        files = [shelf.file(place) for place in list(many(there))[:left]]
        _, settlement = run(shelf, writer, files)
        assert settlement.gone == gone
        assert sum(where.photos for where in settlement.withheld) == withheld
        _, settlement = run(shelf, writer, files, confirmed=True)
        assert (settlement.gone, settlement.withheld) == (withheld, ())


def test_what_is_missing_on_another_file_system_is_kept(shelf):
    with shelf.catalog.writing() as writer:
        shelf.put(writer, many(3))
        files = [shelf.file(place) for place in many(3)]
        run(shelf, writer, files, file_system="ext4 1")
        _, settlement = run(shelf, writer, files[1:], file_system="ext4 2")
        assert (settlement.gone, settlement.withheld[0].photos) == (0, 1)
        _, settlement = run(shelf, writer, files[1:], file_system="ext4 1")
        assert (settlement.gone, settlement.withheld) == (1, ())


def test_another_file_system_with_everything_on_it_is_adopted(shelf):
    with shelf.catalog.writing() as writer:
        shelf.put(writer, many(3))
        files = [shelf.file(place) for place in many(3)]
        for name in ("ext4 1", "ext4 2"):
            assert run(shelf, writer, files, file_system=name)[1].withheld == ()
        assert run(shelf, writer, files[1:], file_system="ext4 2")[1].gone == 1
        assert run(shelf, writer, files[2:], file_system=None)[1].gone == 1


def test_skips_of_a_drive_that_is_away_are_remembered(shelf):
    with shelf.catalog.writing() as writer:
        shelf.put(writer, many(200))
        file = ScannedFile(shelf.scope.root_id, b"bad.png", shelf.file("bad.png"), Verdict.NEW, None)
        writer.skip([(file, Skip(file.stat.path, SkipReason.EMPTY, ""))], "decoder")
        run(shelf, writer, [shelf.file("0000.png")])
    assert len(shelf.catalog.skipped()) == 1


def hashed(found: Scan, contents: dict[str, bytes]) -> list[tuple[ScannedFile, bytes]]:
    pages = found.files(Verdict.CHANGED, Verdict.SUSPECT)
    return [(file, contents[file.place.decode()].ljust(32, b".")) for page in pages for file in page]


@pytest.mark.parametrize("file_system", [None, "ext4 2"])
def test_a_renamed_folder_takes_its_photos_along_however_many(shelf, file_system):
    with shelf.catalog.writing() as writer:
        shelf.put(writer, many(300))
        run(shelf, writer, [shelf.file(place) for place in many(300)], file_system="ext4 1")
        renamed = {f"new/{place}": content for place, content in many(300).items()}
        found = writer.scan(shelf.model, SETTLED)
        found.record(shelf.scope, [shelf.file(place) for place in renamed])
        found.cover(shelf.scope, file_system)
        assert found.recognise(hashed(found, renamed)) == Recognised(moved=300)


@pytest.mark.parametrize("covered", [True, False])
@pytest.mark.parametrize(
    ("left", "confirmed", "moved"),
    [(160, False, 40), (60, False, 0), (0, False, 0), (60, True, 140)],
)
def test_what_a_root_lacks_moves_to_another_unless_a_drive_may_be_away(
    shelf, tmp_path, covered, left, confirmed, moved
):
    """The user's word counts for what the run looked for."""
    contents = many(200)
    lost = {place: contents[place] for place in list(contents)[left:]}
    other = tmp_path / "other"
    other.mkdir()
    with shelf.catalog.writing() as writer:
        shelf.put(writer, contents)
        for place in list(contents)[:left]:
            (shelf.root / place).touch()
        scope = writer.add_source(str(other), is_folder=True)
        found = writer.scan(shelf.model, SETTLED)
        found.record(scope, [FileStat(str(other / place), 10, 1, 1) for place in lost])
        found.cover(scope)
        if covered:
            found.record(shelf.scope, [shelf.file(place) for place in list(contents)[:left]])
            found.cover(shelf.scope)
        expected = moved if covered or not confirmed else 0
        told = found.recognise(hashed(found, contents), confirmed=confirmed)
        assert told == Recognised(moved=expected, added=len(lost) - expected)


def test_only_what_a_folder_could_show_and_does_not_is_nowhere(tmp_path):
    (tmp_path / "here.jpg").touch()
    (tmp_path / "link.jpg").symlink_to(tmp_path / "gone.jpg")
    (tmp_path / "00001.tar").touch()
    said = {
        "here.jpg": False,
        "link.jpg": False,
        "gone.jpg": True,
        "gone/away.jpg": True,
        "here.jpg/a.jpg": True,
        "00001.tar/a.jpg": False,
        "a" * 300 + ".jpg": False,
    }
    assert {name: is_nowhere(str(tmp_path / name)) for name in said} == said
    assert not is_nowhere("s3://bucket/gone.jpg")
