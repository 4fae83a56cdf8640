from __future__ import annotations

import os
import threading

import pytest

from search.catalog.lock import writer_lock


def kinds(report) -> list[tuple[str, int | None]]:
    return [(str(problem.kind), problem.id) for problem in report.problems]


def edit_in_silence(path) -> None:
    """Change one byte of a file and nothing that `stat` tells but the time of that change."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_originals_that_are_missing_changed_or_damaged_are_told_apart(library, album, make_photo):
    library.index([album])
    assert library.check_photos(content=True).ok
    missing, changed, damaged = (library.photo(id_).path for id_ in (2, 5, 7))
    os.unlink(missing)
    make_photo(album / os.path.relpath(changed, album), 77, size=(80, 60))
    edit_in_silence(album / os.path.relpath(damaged, album))
    report = library.check_photos(content=True)
    assert sorted(kinds(report)) == [("photo_changed", 5), ("photo_damaged", 7), ("photo_missing", 2)]
    assert all(problem.loss and problem.path for problem in report.problems)
    assert (report.checked, report.remaining, report.offline) == (12, 0, 0)


def test_a_photo_edited_in_silence_is_read_again_by_the_next_run(library, album, counting):
    library.index([album])
    library.check_photos(content=True)
    path = album / os.path.relpath(library.photo(7).path, album)
    before = library.photo(7).content_hash
    edit_in_silence(path)
    assert kinds(library.check_photos(content=True)) == [("photo_damaged", 7)]
    library.index([album])
    skipped = [skip.path for skip in library.skipped()]
    assert str(path) in skipped or library.photo(str(path)).content_hash != before
    assert library.check().ok


def test_a_look_cut_short_goes_on_with_the_others(library, album, monkeypatch):
    library.index([album])
    report = library.check_photos(max_duration_s=0)
    assert (report.checked, report.remaining) == (0, 12)
    ids = library.catalog.unchecked().tolist()
    with library.catalog.writing() as writer:
        writer.note_checked(ids[:5], [])
    assert library.catalog.unchecked().tolist() == ids[5:] + ids[:5]
    stop = threading.Event()
    stop.set()
    assert library.check_photos(stop=stop).interrupted
    assert library.check_photos().checked == 12


def test_a_drive_that_is_away_is_no_problem(library, album):
    library.index([album])
    album.rename(album.with_name("elsewhere"))
    album.mkdir()
    report = library.check_photos()
    assert (report.ok, report.checked, report.offline, report.remaining) == (True, 0, 12, 0)


def test_a_busy_library_is_looked_at_and_nothing_remembered(library, album):
    library.index([album])
    with writer_lock(library.catalog.folder):
        report = library.check_photos()
    assert (report.ok, report.checked) == (True, 12)
    assert "written to by" in str(report.facts["not_remembered"])


@pytest.mark.parametrize("statement", ["UPDATE photos SET camera = 'x' WHERE id = 3"])
def test_looking_at_originals_does_not_sign_damage_anew(library, album, statement):
    import sqlite3

    library.index([album])
    library.close()
    with sqlite3.connect(library.catalog.folder / "catalog.db") as connection:
        connection.execute(statement)
    connection.close()
    library.check_photos()
    assert kinds(library.check()) == [("row_damaged", 3)]


def test_damage_is_told_until_the_photo_is_indexed_again(library, album):
    library.index([album])
    photo = album / "day0" / "photo00.png"
    before = photo.stat()
    photo.write_bytes(photo.read_bytes()[:-1] + b"x")
    os.utime(photo, ns=(before.st_atime_ns, before.st_mtime_ns))
    for _ in range(2):
        assert [str(problem.kind) for problem in library.check_photos(content=True).problems] == ["photo_damaged"]
