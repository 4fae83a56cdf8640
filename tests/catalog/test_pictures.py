"""What is kept of photos' pixels and of their own keywords follows the content, and goes with the photo."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from search.catalog import Catalog, Writer
from search.catalog.found import Record, ScannedFile, Settled, Verdict
from search.types import FileStat, Filter, LabelledPhoto, LabelScore, PhotoInfo, Picture, ProblemKind

INFO = PhotoInfo("jpeg", 4, 3, rating=3, keywords=("animal/cat", "tree"))
SETTLED = Settled("decoder", (), reader=1)


class Model:
    name, fingerprint, dim, context_length, logit_scale, logit_bias = "a model", "f" * 64, 2, 77, 100.0, None


class Shelf:
    """A catalog of photos that exist nowhere else."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "photos"
        self.root.mkdir()
        self.catalog = Catalog(str(folder / "library"))
        self.catalog.create()
        with self.catalog.writing() as writer:
            self.model = writer.register(Model())
            self.scope = writer.add_source(str(self.root), is_folder=True)

    def file(self, name: str, mtime_ns: int = 1, photo_id: int | None = None) -> ScannedFile:
        stat = FileStat(str(self.root / name), 10, mtime_ns, 1)
        return ScannedFile(self.scope.root_id, name.encode(), stat, Verdict.NEW, photo_id)

    def put(
        self, writer: Writer, name: str, content: str, *, info: PhotoInfo = INFO, id_: int | None = None
    ) -> int:
        record = Record(self.file(name, photo_id=id_), content.encode().ljust(32), info)
        [id_] = writer.add([record], np.float32([[0.6, 0.8]]), self.model, reader=1)
        return id_

    def recognise(self, writer: Writer, contents: dict[str, str]) -> None:
        """Let the places of a run have these contents."""
        found = writer.scan(self.model, SETTLED)
        found.record(self.scope, [self.file(name, mtime_ns=2).stat for name in contents])
        found.cover(self.scope)
        pages = found.files(Verdict.CHANGED, Verdict.SUSPECT)
        files = [file for page in pages for file in page]
        found.recognise([(file, contents[file.place.decode()].encode().ljust(32)) for file in files])
        found.settle(confirmed=True)

    def photo(self, name: str):
        [id_] = self.catalog.ids_at([str(self.root / name)])
        return self.catalog.get([id_])[0]


def picture(id_: int, *, sharpness: float = 0.5) -> Picture:
    return Picture(id_, bytes([id_]) * 8, sharpness, 90)


@pytest.fixture
def shelf(tmp_path):
    shelf = Shelf(tmp_path)
    yield shelf
    shelf.catalog.close()


def test_pictures_are_found_by_method_and_id_and_replaced(shelf):
    with shelf.catalog.writing() as writer:
        ids = [shelf.put(writer, f"{name}.jpg", name) for name in "abc"]
        writer.put_pictures([picture(ids[1]), picture(ids[0])], method=1)
        before = shelf.catalog.sequence()
        assert shelf.catalog.pictures(1) == [picture(ids[0]), picture(ids[1])]
        assert shelf.catalog.pictures(1, [ids[1], ids[2]]) == [picture(ids[1])]
        assert shelf.catalog.pictures(1, []) == shelf.catalog.pictures(2) == []
        assert shelf.catalog.without_picture(1).tolist() == [ids[2]]
        assert shelf.catalog.without_picture(2).tolist() == ids
        writer.put_pictures([picture(ids[0], sharpness=2), picture(99)], method=2)
        assert shelf.catalog.pictures(1) == [picture(ids[1])]
        assert shelf.catalog.pictures(2) == [picture(ids[0], sharpness=2)]
        assert shelf.catalog.count_changed(before) == 0
    assert not shelf.catalog.problems(full=True)[0]


def test_a_picture_stays_with_a_photo_that_moves_and_is_copied_with_its_content(shelf):
    with shelf.catalog.writing() as writer:
        a = shelf.put(writer, "a.jpg", "A")
        writer.put_pictures([picture(a)], method=1)
        shelf.recognise(writer, {"b.jpg": "A", "c.jpg": "A"})
    moved, copied = shelf.photo("b.jpg"), shelf.photo("c.jpg")
    assert moved.id == a
    assert shelf.catalog.pictures(1) == [picture(a), replace(picture(a), id=copied.id)]
    assert copied.info.rating == 3
    assert not shelf.catalog.problems(full=True)[0]


def test_a_damaged_picture_is_not_copied(shelf):
    with shelf.catalog.writing() as writer:
        a = shelf.put(writer, "a.jpg", "A")
        writer.put_pictures([picture(a)], method=1)
    change(shelf, "UPDATE pictures SET sharpness = 7")
    with shelf.catalog.writing() as writer:
        shelf.recognise(writer, {"a.jpg": "A", "c.jpg": "A"})
    assert [found.id for found in shelf.catalog.pictures(1)] == [a]


def test_a_picture_goes_when_the_content_changes(shelf):
    with shelf.catalog.writing() as writer:
        a, b = shelf.put(writer, "a.jpg", "A"), shelf.put(writer, "b.jpg", "B")
        writer.put_pictures([picture(a), picture(b)], method=1)
        shelf.put(writer, "b.jpg", "C", id_=b)
        assert shelf.catalog.pictures(1) == [picture(a)]
        shelf.recognise(writer, {"a.jpg": "C", "b.jpg": "C"})
        assert shelf.catalog.pictures(1) == []


def test_pictures_and_keywords_go_with_their_photo(shelf):
    with shelf.catalog.writing() as writer:
        ids = [shelf.put(writer, f"{name}.jpg", name) for name in "abc"]
        writer.put_pictures([picture(id_) for id_ in ids], method=1)
        writer.purge(ids[:1])
        writer.remove(replace(shelf.scope, relative="b.jpg"))
        assert shelf.catalog.pictures(1) == [picture(ids[2])]
        writer.remove(shelf.scope)
    assert not shelf.catalog.problems(full=True)[0]


def change(shelf: Shelf, statement: str) -> None:
    """Change the catalog as a failing disk would, past all seals."""
    shelf.catalog.close()
    with closing(sqlite3.connect(shelf.catalog.folder / "catalog.db")) as connection, connection:
        connection.execute(statement)


def test_a_damaged_picture_is_found_and_dropped_and_a_missing_one_is_none(shelf):
    with shelf.catalog.writing() as writer:
        ids = [shelf.put(writer, f"{name}.jpg", name) for name in "abc"]
        writer.put_pictures([picture(id_) for id_ in ids[:2]], method=1)
    change(shelf, f"UPDATE pictures SET hash = x'00' WHERE photo_id = {ids[0]}")
    [problem] = shelf.catalog.problems(full=True)[0]
    assert problem.kind is ProblemKind.ROW_DAMAGED
    assert "the next run makes it anew" in problem.loss
    assert shelf.catalog.repair()[0] == 1
    assert shelf.catalog.pictures(1) == [picture(ids[1])]
    assert not shelf.catalog.problems(full=True)[0]


def test_a_picture_without_its_photo_is_dropped(shelf):
    with shelf.catalog.writing() as writer:
        shelf.put(writer, "a.jpg", "A")
        writer.put_pictures([picture(1)], method=1)
    change(shelf, "UPDATE pictures SET photo_id = 9, crc = NULL")
    with shelf.catalog.writing() as writer:
        shelf.put(writer, "b.jpg", "B")  # the commit seals it: only the reference is wrong
    assert [problem.kind for problem in shelf.catalog.problems(full=True)[0]] == [ProblemKind.CATALOG_DAMAGED]
    shelf.catalog.repair()
    assert not shelf.catalog.problems(full=True)[0]
    assert shelf.catalog.pictures(1) == []


# ---- keywords and rating


def test_keywords_of_the_file_are_labels_and_told_apart(shelf):
    with shelf.catalog.writing() as writer:
        a = shelf.put(writer, "a.jpg", "A")
        own = LabelledPhoto("", (LabelScore("tree", 0.9, 0.3), LabelScore("sky", 0.8, 0.2)), a)
        writer.put_labels([own], ["tree", "sky"], source="zero-shot", encoder_id=shelf.model)
    [photo] = shelf.catalog.get([a])
    assert photo.labels == ("animal/cat", "sky", "tree")
    assert photo.info.keywords == ("animal/cat", "tree")
    assert photo.info.rating == 3
    assert shelf.catalog.select(Filter(labels=("animal/cat",))).tolist() == [a]
    with shelf.catalog.writing() as writer:
        writer.put_labels([replace(own, labels=())], ["tree", "sky"], source="zero-shot", encoder_id=shelf.model)
    assert shelf.catalog.get([a])[0].labels == ("animal/cat", "tree")


def test_what_is_read_anew_replaces_what_was_said_and_leaves_the_picture_alone(shelf):
    with shelf.catalog.writing() as writer:
        a, b = shelf.put(writer, "a.jpg", "A"), shelf.put(writer, "b.jpg", "B")
        before = shelf.catalog.sequence()
        writer.put_info([(a, PhotoInfo("png", 9, 9, keywords=("dog",), camera="Canon"))], reader=2)
        writer.keep_info([b], reader=2)
        assert shelf.catalog.count_changed(before) == 0
    first, second = shelf.catalog.get([a, b])
    assert first.info == replace(INFO, rating=None, keywords=("dog",), camera="Canon")
    assert second.info == INFO
    assert not shelf.catalog.problems(full=True)[0]


def test_a_photo_that_another_reader_read_is_unread(shelf):
    with shelf.catalog.writing() as writer:
        shelf.put(writer, "a.jpg", "A")
        for reader, verdict in ((1, Verdict.UNCHANGED), (2, Verdict.UNREAD)):
            found = writer.scan(shelf.model, replace(SETTLED, reader=reader))
            found.record(shelf.scope, [shelf.file("a.jpg").stat])
            assert found.verdicts()[verdict] == 1
