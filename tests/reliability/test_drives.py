"""F24, F26: what can't be seen is not gone, and what is gone can come back."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from concurrent.futures import Future

import pytest

from search import IndexOptions
from search.decoding.pool import Decoders
from search.errors import PhotoError, UsageError
from search.photos import decode
from search.types import Skip, SkipReason

CONFIRMED = IndexOptions(confirm_removals=True)


def counts(report) -> dict[str, int]:
    names = ("photos", "added", "updated", "moved", "unchanged", "gone", "offline", "purged", "encoded")
    return {name: n for name in names if (n := getattr(report, name))}


def test_a_drive_that_comes_and_goes_costs_nothing(library, album, tmp_path, counting):
    library.index([album])
    for _ in range(10):
        album.rename(tmp_path / "unplugged")
        album.mkdir()
        assert counts(library.index([album])) == {"photos": 12, "offline": 12}
        album.rmdir()
        (tmp_path / "unplugged").rename(album)
        assert counts(library.index([album])) == {"photos": 12, "unchanged": 12}
    assert counting.images == 12


def test_a_file_or_folder_of_a_drive_that_is_away_is_not_gone(library, album, tmp_path):
    library.index([album])
    album.rename(tmp_path / "unplugged")
    album.mkdir()
    assert counts(library.index([album / "day1"])) == {"photos": 12, "offline": 4}
    assert counts(library.index([album / "day0" / "photo00.png"])) == {"photos": 12, "offline": 1}


def test_a_copy_elsewhere_does_not_take_the_place_of_a_photo_whose_drive_is_away(
    library, album, tmp_path, counting
):
    library.index([album])
    (tmp_path / "copies").mkdir()
    shutil.copy(album / "day0" / "photo00.png", tmp_path / "copies" / "copy.png")
    album.rename(tmp_path / "unplugged")
    album.mkdir()
    assert counts(library.index([tmp_path / "copies"])) == {"photos": 13, "added": 1}
    assert counting.images == 12


@pytest.mark.parametrize("indexed", ["the copies", "both"])
def test_copies_of_all_photos_do_not_take_the_place_of_those_whose_drive_is_away(
    library, album, tmp_path, counting, indexed
):
    library.index([album])
    photo = library.photo(album / "day0" / "photo00.png")
    shutil.copytree(album, tmp_path / "copies")
    album.rename(tmp_path / "unplugged")
    album.mkdir()
    (album / ".stray").touch()
    report = library.index([tmp_path / "copies", *([album] if indexed == "both" else [])])
    assert (report.moved, report.added, report.photos) == (0, 12, 24)
    (album / ".stray").unlink()
    album.rmdir()
    (tmp_path / "unplugged").rename(album)
    assert counts(library.index([album])) == {"photos": 24, "unchanged": 12}
    assert library.photo(album / "day0" / "photo00.png").id == photo.id
    assert counting.images == 12


def test_a_copy_does_not_take_the_place_of_a_photo_on_another_file_system(library, album, tmp_path, monkeypatch):
    monkeypatch.setattr("search.indexer.file_system", lambda path: "one")
    library.index([album])
    (tmp_path / "copies").mkdir()
    (album / "day0" / "photo00.png").rename(tmp_path / "copies" / "copy.png")
    monkeypatch.setattr("search.indexer.file_system", lambda path: "two")
    assert counts(library.index([tmp_path / "copies"])) == {"photos": 13, "added": 1}


def test_removals_can_be_confirmed(library, album):
    library.index([album])
    shutil.rmtree(album)
    report = library.index([album])
    assert [(where.path, where.photos) for where in report.withheld] == [(str(album), 12)]
    assert counts(library.index([album], options=CONFIRMED)) == {"gone": 12}
    with pytest.raises(UsageError):
        library.index([album])


def test_photos_missing_on_another_file_system_stay(library, album, monkeypatch):
    for name in ("one", "two", "two"):
        monkeypatch.setattr("search.indexer.file_system", lambda path, name=name: name)
        report = library.index([album])
        if name == "one":
            (album / "day0" / "photo00.png").unlink()
        else:
            assert counts(report) == {"photos": 12, "unchanged": 11, "offline": 1}
    assert counts(library.index([album], options=CONFIRMED)) == {"photos": 11, "unchanged": 11, "gone": 1}
    assert counts(library.index([album])) == {"photos": 11, "unchanged": 11}


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
def test_a_folder_that_cannot_be_listed_is_unknown(library, album, monkeypatch, number):
    library.index([album])
    (album / "day0" / "photo00.png").unlink()
    scandir = os.scandir

    def failing(path):
        if os.fspath(path) == str(album / "day1"):
            raise OSError(number, os.strerror(number))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", failing)
    report = library.index([album])
    assert counts(report) == {"photos": 11, "unchanged": 7, "gone": 1}
    assert [(skip.path, skip.reason) for skip in report.skipped] == [(str(album / "day1"), "unreadable")]


def test_photos_gone_for_long_are_forgotten(library, album, tmp_path):
    library.index([album])
    place, other = album / "day0" / "photo00.png", album / "day0" / "photo03.png"
    place.unlink()
    assert counts(library.index([album])) == {"photos": 11, "unchanged": 11, "gone": 1}
    with sqlite3.connect(tmp_path / "library" / "catalog.db", isolation_level=None) as connection:
        connection.create_function("row_crc", -1, lambda *_: 0)
        connection.execute("UPDATE photos SET gone_at = datetime(gone_at, '-31 days') WHERE gone_at IS NOT NULL")
    connection.close()
    other.unlink()
    assert counts(library.index([album / "day1"])) == {"photos": 11, "unchanged": 4}  # says nothing of day0
    assert library.catalog.ids_at([str(place)])
    report = library.index([album])
    assert counts(report) == {"photos": 10, "unchanged": 10, "gone": 1, "purged": 1}
    assert not library.catalog.ids_at([str(place)])
    assert library.catalog.ids_at([str(other)])
    assert len(library.search("anything", k=50)) == 10


def test_photos_of_a_drive_that_is_away_are_not_forgotten(library, album, tmp_path):
    library.index([album])
    place = album / "day0" / "photo00.png"
    place.unlink()
    library.index([album])
    album.rename(tmp_path / "unplugged")
    for _ in range(2):  # missing, then an empty mount point
        library.index([album], options=IndexOptions(keep_gone_days=0))
        assert library.catalog.ids_at([str(place)])
        album.mkdir(exist_ok=True)


def test_gone_photos_below_a_folder_that_cannot_be_listed_are_not_forgotten(library, album, monkeypatch):
    library.index([album])
    place, other = album / "day1" / "photo01.png", album / "day0" / "photo00.png"
    place.unlink()
    other.unlink()
    library.index([album])
    scandir = os.scandir

    def failing(path):
        if path == str(album / "day1"):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", failing)
    assert library.index([album], options=IndexOptions(keep_gone_days=0)).purged == 1
    assert library.catalog.ids_at([str(place)])
    assert not library.catalog.ids_at([str(other)])


@pytest.mark.parametrize("time", ["as before", "another"])
def test_a_gone_photo_whose_file_is_back_but_cannot_be_read_is_not_forgotten(
    library, album, tmp_path, monkeypatch, time
):
    library.index([album])
    place = album / "day1" / "photo01.png"
    id_ = library.photo(place).id
    place.rename(tmp_path / "kept.png")
    library.index([album])
    (tmp_path / "kept.png").rename(place)
    if time == "another":
        os.utime(place, (1, 1))
    with monkeypatch.context() as patch:
        forbid(patch, place)
        for _ in range(2):
            report = library.index([album], options=IndexOptions(keep_gone_days=0))
            assert counts(report) == {"photos": 11, "unchanged": 11}
            assert [skip.path for skip in report.skipped] == [str(place)]
    library.index([album])
    assert (library.photo(place).id, library.photo(place).gone_at) == (id_, None)


def forbid(monkeypatch, place) -> None:
    """Let nobody read a file."""
    submit, hash_ = Decoders.submit, decode.content_hash

    def submit_(self, path, preprocessing, **more):
        if path != str(place):
            return submit(self, path, preprocessing, **more)
        refused: Future[Skip] = Future()
        refused.set_result(Skip(path, SkipReason.UNREADABLE, "Permission denied"))
        return refused

    def content_hash(path):
        if path == str(place):
            raise PhotoError(SkipReason.UNREADABLE, "Permission denied")
        return hash_(path)

    monkeypatch.setattr(Decoders, "submit", submit_)
    monkeypatch.setattr(decode, "content_hash", content_hash)


def test_a_gone_photo_that_returns_with_another_change_time_is_told_by_content(library, album, tmp_path, counting):
    library.index([album])
    place = album / "day0" / "photo00.png"
    id_, stat = library.photo(place).id, place.stat()
    place.rename(tmp_path / "kept.png")
    library.index([album])
    (tmp_path / "kept.png").rename(place)
    assert counts(library.index([album])) == {"photos": 12, "added": 1, "unchanged": 11}
    assert library.photo(place).id == id_
    place.unlink()
    library.index([album])
    place.write_bytes((album / "day0" / "photo03.png").read_bytes().ljust(stat.st_size, b"\0")[: stat.st_size])
    os.utime(place, ns=(stat.st_mtime_ns, stat.st_mtime_ns))
    library.index([album])
    assert library.photo(id_).gone_at  # another picture with the same size and time
    assert counting.images <= 13


def test_an_edit_that_puts_size_and_time_back_is_seen(library, album, counting):
    library.index([album])
    place = album / "day0" / "photo00.png"
    stat, content = place.stat(), bytearray(place.read_bytes())
    content[-5] ^= 1  # in the checksum of the last chunk, which holds nothing
    place.write_bytes(content)
    os.utime(place, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert library.index([album]).unchanged == 11


def test_other_permissions_cost_no_encoding(library, album, counting):
    library.index([album])
    for path in album.rglob("*.png"):
        path.chmod(0o600)
    assert counts(library.index([album])) == {"photos": 12, "unchanged": 12}
    assert counting.images == 12
