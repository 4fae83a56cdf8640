"""What a run does to a library: counted exactly, with the real model, catalog and files."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from search import IndexOptions, indexer
from search.catalog import lite, look
from search.catalog.lock import is_held
from search.errors import LibraryBusy, UsageError
from search.photos.scan import ScanOptions
from search.types import Stage


def counts(report) -> dict[str, int]:
    names = ("photos", "added", "updated", "moved", "unchanged", "gone", "offline", "encoded")
    found = {name: getattr(report, name) for name in names} | {"skipped": len(report.skipped)}
    return {name: n for name, n in found.items() if n}


def touch(path: Path) -> None:
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))


def photos(album: Path) -> list[Path]:
    return sorted(album.rglob("*.png"))


def test_a_first_run_adds_every_photo(library, album, counting):
    assert counts(library.index([album])) == {"photos": 12, "added": 12, "encoded": 12}
    assert counting.images == 12


def test_a_second_run_encodes_nothing(library, album, counting):
    library.index([album])
    assert counts(library.index([album])) == {"photos": 12, "unchanged": 12}
    assert counting.images == 12


def test_renamed_touched_deleted_new_and_edited_files_are_told_apart(library, album, counting, make_photo):
    library.index([album])
    files = photos(album)
    for path in files[:4]:
        path.rename(path.with_name("renamed-" + path.name))
    for path in files[4:6]:
        touch(path)
    for path in files[6:8]:
        path.unlink()
    make_photo(files[8], seed=500)
    make_photo(album / "new.png", seed=501)
    counting.images = 0
    report = library.index([album])
    assert counts(report) == {
        "photos": 11,
        "added": 1,
        "updated": 1,
        "moved": 4,
        "unchanged": 5,
        "gone": 2,
        "encoded": 2,
    }
    assert counting.images == 2
    assert counts(library.index([album])) == {"photos": 11, "unchanged": 11}


def test_a_moved_photo_keeps_id_vector_and_labels(library, album):
    library.index([album])
    old = photos(album)[0]
    before = library.photo(old)
    library.label(["x", "y"], paths=[old], apply=True)
    labels = library.photo(old).labels
    new = album / "elsewhere" / "other.png"
    new.parent.mkdir()
    old.rename(new)
    assert library.index([album]).moved == 1
    after = library.photo(new)
    assert after.id == before.id
    assert after.labels == labels != ()
    assert library.similar(new, 1).candidates == 11


def test_names_that_were_swapped_are_two_moves(library, album, counting):
    library.index([album])
    a, b = photos(album)[:2]
    ids = library.photo(a).id, library.photo(b).id
    a.rename(album / "t")
    b.rename(a)
    (album / "t").rename(b)
    counting.images = 0
    assert counts(library.index([album])) == {"photos": 12, "moved": 2, "unchanged": 10}
    assert counting.images == 0
    assert (library.photo(b).id, library.photo(a).id) == ids


def test_a_chain_of_renames_that_overwrites_one_loses_only_that_one(library, album, counting):
    library.index([album])
    a, b, c = photos(album)[:3]
    id_a, id_b = library.photo(a).id, library.photo(b).id
    b.rename(c)
    a.rename(b)
    counting.images = 0
    assert counts(library.index([album])) == {"photos": 11, "moved": 2, "unchanged": 9, "gone": 1}
    assert counting.images == 0
    assert (library.photo(b).id, library.photo(c).id) == (id_a, id_b)


def test_copies_are_added_without_encoding(library, album, counting):
    library.index([album])
    original = photos(album)[0]
    shutil.copy(original, album / "copy.png")
    counting.images = 0
    assert counts(library.index([album])) == {"photos": 13, "added": 1, "unchanged": 12}
    assert counting.images == 0
    twin = library.similar(original, 1).hits[0]
    assert twin.photo.path.endswith("copy.png")
    assert twin.score == pytest.approx(1, abs=1e-5)


def test_a_photo_moved_to_another_indexed_folder_is_moved(library, album, tmp_path, counting):
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(photos(album)[0], other / "first.png")
    library.index([album, other])
    before = library.photo(photos(album)[1]).id
    photos(album)[1].rename(other / "second.png")
    counting.images = 0
    assert counts(library.index([other])) == {"photos": 13, "moved": 1, "unchanged": 1}
    assert library.photo(other / "second.png").id == before
    assert counts(library.index([album])) == {"photos": 13, "unchanged": 11}
    assert counting.images == 0


def test_deleted_photos_answer_no_query_and_return_without_encoding(library, album, tmp_path, counting):
    library.index([album])
    victim = photos(album)[0]
    shutil.move(victim, tmp_path / "kept.png")
    assert library.index([album]).gone == 1
    assert victim.name not in {Path(hit.photo.path).name for hit in library.search("anything", k=50)}
    shutil.move(tmp_path / "kept.png", victim)
    counting.images = 0
    assert counts(library.index([album])) == {"photos": 12, "added": 1, "unchanged": 11}
    assert counting.images == 0
    assert victim.name in {Path(hit.photo.path).name for hit in library.search("anything", k=50)}


def test_another_photo_in_the_place_of_a_gone_one_is_a_photo_of_its_own(library, album, make_photo):
    library.index([album])
    place = photos(album)[0]
    old = library.photo(place).id
    library.label(["x"], paths=[place], apply=True)
    content = place.read_bytes()
    place.unlink()
    library.index([album])
    make_photo(place, seed=600, size=(20, 20))
    assert counts(library.index([album])) == {"photos": 12, "added": 1, "unchanged": 11, "encoded": 1}
    assert library.photo(place).id != old
    assert library.photo(place).labels == ()
    (album / "back.png").write_bytes(content)
    assert counts(library.index([album])) == {"photos": 13, "moved": 1, "unchanged": 12}
    assert library.photo(album / "back.png").id == old


def test_a_folder_that_is_away_hides_nothing(library, album, tmp_path):
    library.index([album])
    album.rename(tmp_path / "unplugged")
    assert counts(library.index([album])) == {"photos": 12, "offline": 12}
    album.mkdir()  # an empty mount point
    assert counts(library.index([album])) == {"photos": 12, "offline": 12}
    assert len(library.search("anything", k=50)) == 12


def test_a_folder_that_never_was_is_an_error(library, tmp_path):
    with pytest.raises(UsageError, match="nowhere"):
        library.index([tmp_path / "nowhere"])


def test_one_bad_file_stops_nothing_and_is_not_tried_again(library, album, counting):
    (album / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a photo")
    (album / "empty.png").write_bytes(b"")
    report = library.index([album])
    assert counts(report) == {"photos": 12, "added": 12, "encoded": 12, "skipped": 2}
    reasons = {Path(skip.path).name: skip.reason for skip in report.skipped}
    assert reasons == {"broken.jpg": "decode_error", "empty.png": "empty"}
    again = library.index([album])
    assert counts(again) == {"photos": 12, "unchanged": 12, "skipped": 2}
    assert {(skip.path, skip.reason) for skip in library.skipped()} == {
        (skip.path, skip.reason) for skip in again.skipped
    }


def test_a_mended_file_is_indexed_and_no_longer_listed(library, album, make_photo):
    broken = album / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n")
    library.index([album])
    make_photo(broken, seed=77)
    assert counts(library.index([album])) == {"photos": 13, "added": 1, "unchanged": 12, "encoded": 1}
    assert library.skipped() == []


def test_a_photo_that_broke_keeps_its_vector_and_is_listed(library, album):
    library.index([album])
    photos(album)[0].write_bytes(b"\x89PNG\r\n\x1a\n")
    report = library.index([album])
    assert counts(report) == {"photos": 12, "unchanged": 11, "skipped": 1}


def skipped(library) -> dict[str, str]:
    return {Path(skip.path).name: skip.reason for skip in library.skipped()}


def test_a_photo_whose_bytes_came_back_is_no_longer_listed(library, album):
    library.index([album])
    restored, touched = photos(album)[:2]
    contents = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (restored, touched)}
    for path in contents:
        path.write_bytes(b"\x89PNG\r\n\x1a\n")
    library.index([album])
    assert len(skipped(library)) == 2
    for path, (content, mtime_ns) in contents.items():
        path.write_bytes(content)
        if path == restored:
            os.utime(path, ns=(mtime_ns, mtime_ns))
    assert counts(library.index([album])) == {"photos": 12, "unchanged": 12}
    assert skipped(library) == {}


def test_a_broken_file_replaced_by_a_known_photo_is_no_longer_listed(library, album):
    (album / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    library.index([album])
    photos(album / "day0")[0].rename(album / "bad.png")
    assert counts(library.index([album])) == {"photos": 12, "moved": 1, "unchanged": 11}
    assert skipped(library) == {}


def test_what_cannot_be_looked_at_is_listed_and_hides_nothing(library, album, tmp_path):
    library.index([album])
    kept = tmp_path / "kept"
    (album / "day1").rename(kept)
    (album / "day1").symlink_to(album / "day1")  # a loop: it can't be listed, nor told to be empty
    options = IndexOptions(scan=ScanOptions(follow_symlinks=True))
    report = library.index([album], options=options)
    assert [(skip.path, skip.reason) for skip in report.skipped] == [(str(album / "day1"), "unreadable")]
    assert counts(report) == {"photos": 12, "unchanged": 8, "skipped": 1}
    assert skipped(library) == {"day1": "unreadable"}
    (album / "day1").unlink()
    kept.rename(album / "day1")
    assert counts(library.index([album], options=options)) == {"photos": 12, "unchanged": 12}
    assert skipped(library) == {}


def test_a_folder_deleted_from_an_indexed_one_is_gone(library, album):
    library.index([album])
    shutil.rmtree(album / "day1")
    assert counts(library.index([album / "day1"])) == {"photos": 8, "gone": 4}


def test_a_file_named_beside_one_in_a_folder_below_is_indexed_with_it(library, tmp_path, make_photo):
    """The folder's name comes first in the alphabet, and its root is taken in by the file's."""
    paths = [make_photo(tmp_path / "album" / "A" / "a.png", 1), make_photo(tmp_path / "album" / "b.png", 2)]
    assert counts(library.index(paths)) == {"photos": 2, "added": 2, "encoded": 2}


@pytest.mark.slow
def test_very_many_files_can_be_named(library, tmp_path, make_photo):
    library.index([make_photo(tmp_path / "known.png", 0, size=(8, 8))])  # copies of it cost no encoding
    files = [make_photo(tmp_path / "many" / f"{n:04}.png", 0, size=(8, 8)) for n in range(1200)]
    assert library.index(files).added == 1200
    assert library.index(files).unchanged == 1200


@pytest.mark.slow
def test_very_many_folders_can_be_named(library, tmp_path, make_photo):
    make_photo(tmp_path / "many" / "root.png", 0, size=(8, 8))
    library.index([tmp_path / "many"])
    files = [make_photo(tmp_path / "many" / f"{n:04}" / "a.png", 0, size=(8, 8)) for n in range(1100)]
    report = library.index([file.parent for file in files])
    assert (report.added, report.photos) == (1100, 1101)
    files[7].unlink()
    make_photo(files[7].with_name("b.png"), 99, size=(9, 9))
    assert library.index([file.parent for file in files]).gone == 1


def test_a_device_is_no_source(library):
    with pytest.raises(UsageError, match="neither a file nor a folder"):
        library.index(["/dev/null"])
    assert library.status().roots == ()


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"workers": 0}, {"max_megapixels": float("nan")}])
def test_options_without_sense_are_refused(options):
    with pytest.raises(UsageError):
        IndexOptions(**options)


def test_a_run_cut_short_while_the_library_was_made_can_be_repeated(library, album, tmp_path):
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "catalog.db").touch()
    assert library.index([album]).added == 12


def test_what_was_committed_is_in_the_catalog_itself(library, album, tmp_path):
    library.index([album])
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(tmp_path / "library" / "catalog.db", copy)
    assert library.catalog.count() == type(library.catalog)(str(copy)).count() == 12


def test_a_photo_above_the_limit_is_tried_again_with_a_higher_one(library, tmp_path, make_photo):
    make_photo(tmp_path / "a" / "large.png", seed=1, size=(200, 100))
    report = library.index([tmp_path / "a"], options=IndexOptions(max_megapixels=0.01))
    assert [skip.reason for skip in report.skipped] == ["too_large"]
    assert library.index([tmp_path / "a"]).added == 1


def test_an_outer_folder_takes_in_an_inner_one(library, album, counting):
    library.index([album / "day1"])
    inner = library.photo(photos(album / "day1")[0])
    counting.images = 0
    assert counts(library.index([album])) == {"photos": 12, "added": 8, "unchanged": 4, "encoded": 8}
    assert counting.images == 8
    assert library.photo(inner.id).path == inner.path
    assert [root.path for root in library.status().roots] == [str(album)]


def test_indexing_a_part_says_nothing_of_the_rest(library, album):
    library.index([album])
    photos(album / "day0")[0].unlink()
    assert counts(library.index([album / "day1"])) == {"photos": 12, "unchanged": 4}
    assert counts(library.index([album / "day0"])) == {"photos": 11, "unchanged": 3, "gone": 1}


def test_single_files_can_be_indexed(library, album):
    report = library.index([photos(album)[0], photos(album)[5]])
    assert counts(report) == {"photos": 2, "added": 2, "encoded": 2}
    assert counts(library.index([photos(album)[0]])) == {"photos": 2, "unchanged": 1}


def test_overlapping_sources_are_looked_at_once(library, album):
    assert counts(library.index([album, album / "day0", photos(album)[0]])) == {
        "photos": 12,
        "added": 12,
        "encoded": 12,
    }


def test_excluded_photos_are_left_out(library, album):
    options = IndexOptions(scan=ScanOptions(exclude=("day2",)))
    assert counts(library.index([album], options=options)) == {"photos": 8, "added": 8, "encoded": 8}


def test_names_that_are_not_utf8_are_indexed(library, tmp_path, make_photo):
    folder = tmp_path / "odd"
    plain = make_photo(folder / "plain.png", seed=1)
    os.rename(os.fsencode(plain), os.path.join(os.fsencode(folder), b"caf\xe9.png"))
    report = library.index([folder])
    assert counts(report) == {"photos": 1, "added": 1, "encoded": 1}
    [hit] = library.search("anything")
    assert os.fsencode(hit.photo.path).endswith(b"caf\xe9.png")
    assert os.path.isfile(hit.photo.path)


def test_a_stopped_run_keeps_its_batches_and_the_next_does_the_rest(library, album, counting):
    stop = threading.Event()

    def after_the_first_batch(progress):
        if progress.stage is Stage.ENCODE and progress.done:
            stop.set()

    options = IndexOptions(batch_size=5)
    report = library.index([album], options=options, progress=after_the_first_batch, stop=stop)
    assert report.interrupted
    assert counts(report) == {"photos": 5, "added": 5, "encoded": 5}
    counting.images = 0
    assert counts(library.index([album])) == {"photos": 12, "added": 7, "unchanged": 5, "encoded": 7}
    assert counting.images == 7


def test_an_exception_in_a_run_keeps_its_batches(library, album):
    def fail(progress):
        if progress.stage is Stage.ENCODE and progress.done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        library.index([album], options=IndexOptions(batch_size=5), progress=fail)
    assert library.status().photos == 10


def test_progress_counts_up_to_its_total(library, album):
    seen = []
    library.index([album], options=IndexOptions(batch_size=5), progress=seen.append)
    encoded = [(p.done, p.total) for p in seen if p.stage is Stage.ENCODE]
    assert encoded == [(0, 12), (5, 12), (10, 12), (12, 12)]


def test_batch_size_and_workers_do_not_change_vectors(tmp_path, album, builtin):
    from search import Library

    scores = []
    for number, options in enumerate(
        (IndexOptions(batch_size=1, workers=1), IndexOptions(batch_size=7, workers=8))
    ):
        with Library.open(tmp_path / f"library{number}", model="builtin") as library:
            library.model.loaded = builtin
            library.index([album], options=options)
            scores.append({hit.photo.path: hit.score for hit in library.search("a red wall", k=50)})
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)  # float16 in the catalog, batched sums


class Spoilt:
    """The real model, but for one vector a batch that is made to be what none may be."""

    def __init__(self, encoder, value: float) -> None:
        self._encoder, self._value = encoder, value

    def __getattr__(self, name: str):
        return getattr(self._encoder, name)

    def encode_images(self, images):
        vectors = self._encoder.encode_images(images).copy()
        vectors[0] *= self._value
        return vectors


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, 1.01])
def test_a_vector_that_is_not_finite_and_unit_is_refused_and_tried_again(library, album, builtin, value):
    library.model.loaded = Spoilt(builtin, value)
    report = library.index([album])
    assert (report.added, [skip.reason for skip in report.skipped]) == (11, ["bad_vector"])
    library.model.loaded = builtin
    assert library.index([album]).added == 1
    assert library.skipped() == []
    assert library.check(full=True).ok


# ---- an unchanged run


def statements(library, folder, monkeypatch) -> list[str]:
    """What SQLite is told while a folder is indexed."""
    seen: list[str] = []
    connect = lite.connect

    def listening(*arguments) -> sqlite3.Connection:
        connection = connect(*arguments)
        connection.set_trace_callback(seen.append)
        return connection

    library.close()
    with monkeypatch.context() as patched:
        patched.setattr(lite, "connect", listening)
        library.index([folder])
    return seen


def test_an_unchanged_run_takes_as_many_statements_for_few_files_as_for_many(
    open_library, tmp_path, make_photo, monkeypatch
):
    told = []
    for count in (3, 60):
        for number in range(3, count):
            make_photo(tmp_path / "many" / f"{number % 7}" / f"{number}.png", number, size=(8, 8))
        for number in range(3):
            make_photo(tmp_path / "many" / f"{number}.png", number, size=(8, 8))
        with open_library() as library:
            library.index([tmp_path / "many"])
            before = library.index([tmp_path / "many"])
            assert before.unchanged == count
            told.append(statements(library, tmp_path / "many", monkeypatch))
    assert len(told[0]) == len(told[1]) > 10
    assert not [text for text in told[1] if text.startswith(("INSERT", "UPDATE", "DELETE", "CREATE"))]


def state_of(library) -> tuple[int, bytes, object]:
    catalog = library.catalog.folder / "catalog.db"
    return library.catalog.sequence(), catalog.read_bytes(), library.status().job


def test_a_run_that_finds_nothing_new_writes_nothing_and_is_no_job(library, album):
    (album / "bad.png").write_bytes(b"no picture")
    library.index([album])
    before = state_of(library)
    report = library.index([album])
    assert counts(report) == {"photos": 12, "unchanged": 12, "skipped": 1}
    assert state_of(library) == before
    (album / "bad.png").unlink()
    library.index([album])
    assert state_of(library) != before


def test_a_run_that_finds_nothing_new_holds_the_library(library, album):
    library.index([album])
    held = []
    library.index([album], progress=lambda _: held.append(is_held(library.catalog.folder)))
    assert held == [True]
    with library.catalog.writing(), pytest.raises(LibraryBusy):
        library.index([album])


def execute(library, *statements: str) -> None:
    """Change the catalog as another program would."""
    library.close()
    with closing(sqlite3.connect(library.catalog.folder / "catalog.db")) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def test_a_run_that_finds_nothing_new_accounts_for_one_that_died(library, album):
    library.index([album])
    with library.catalog.writing() as writer:
        writer.begin_job("index")
    query = "SELECT count(*) FROM jobs WHERE finished_at IS NULL"
    with library.catalog._reading() as session:
        assert session.rows(query) == [(1,)]
    assert library.index([album]).unchanged == 12
    with library.catalog._reading() as session:
        assert session.rows(query) == [(0,)]


def test_a_run_that_finds_nothing_new_clears_suspects_whose_job_is_over(library, album):
    library.index([album])
    execute(
        library,
        "INSERT INTO in_flight (root_id, path, job_id, alone, deaths) SELECT 1, x'61', max(id), 0, 1 FROM jobs",
    )
    assert library.index([album]).unchanged == 12
    with library.catalog._reading() as session:
        assert session.rows("SELECT count(*) FROM in_flight") == [(0,)]


def test_a_run_that_finds_nothing_new_folds_back_a_log_that_was_left(library, album, tmp_path):
    library.index([album])
    library.close()
    catalog = library.catalog.folder / "catalog.db"
    with closing(sqlite3.connect(catalog)) as connection:
        connection.execute("UPDATE photos SET camera = 'left in the log' WHERE id = 1")
        connection.commit()
        names = ("catalog.db", "catalog.db-wal")
        left = {name: catalog.with_name(name).read_bytes() for name in names}
    for name, content in left.items():
        catalog.with_name(name).write_bytes(content)
    assert b"left in the log" not in catalog.read_bytes()
    assert library.index([album]).unchanged == 12
    assert b"left in the log" in catalog.read_bytes()


def test_a_run_that_finds_nothing_new_removes_copies_that_were_not_finished(library, album):
    library.index([album])
    part = library.catalog.folder / "catalog.db.x.bak.part"
    part.touch()
    library.index([album])
    assert not part.exists()


def test_a_run_that_finds_nothing_new_remembers_another_file_system(library, album, monkeypatch):
    for identity in ("ext4 one", "ext4 other"):  # not every system says so much
        monkeypatch.setattr("search.indexer.file_system", lambda path, identity=identity: identity)
        report = library.index([album])
        with library.catalog._reading() as session:
            assert session.rows("SELECT file_system FROM roots") == [(identity,)]
    assert report.unchanged == 12


def test_a_run_that_finds_nothing_new_publishes_the_generation_that_is_missing(library, album):
    library.index([album])
    shutil.rmtree(library.catalog.folder / "gen")
    assert library.index([album]).unchanged == 12
    assert list(library.catalog.folder.glob("gen/*/MANIFEST.json"))


def test_a_file_as_it_was_whose_photo_lacks_its_vector_is_encoded(library, album):
    library.index([album])
    execute(library, "DELETE FROM embeddings WHERE photo_id = 12")
    assert counts(library.index([album])) == {"photos": 12, "updated": 1, "unchanged": 11, "encoded": 1}


def test_a_file_as_it_was_that_an_older_decoder_skipped_is_tried_again(library, album, make_photo):
    make_photo(album / "zzz.png", 50)
    library.index([album], options=IndexOptions(max_megapixels=0.0001))
    assert len(library.skipped()) == 13
    assert counts(library.index([album])) == {"photos": 13, "added": 13, "encoded": 13}


def test_a_skip_that_is_not_settled_and_has_no_file_any_more_is_forgotten(library, album):
    (album / "bad.png").write_bytes(b"no picture")
    library.index([album])
    execute(library, "UPDATE skips SET reason = 'unreadable'")
    (album / "bad.png").unlink()
    assert counts(library.index([album])) == {"photos": 12, "unchanged": 12}
    assert library.skipped() == []


def test_a_gone_photo_whose_place_has_a_file_is_not_forgotten_by_a_run_that_finds_nothing_new(library, album):
    first, second = photos(album)[:2]
    library.index([album])
    first.unlink()
    second.unlink()
    library.index([album])
    first.write_bytes(b"no picture")
    library.index([album])
    execute(library, f"UPDATE photos SET path = CAST('{first.relative_to(album)}' AS BLOB) WHERE id = 1")
    report = library.index([album], options=IndexOptions(keep_gone_days=0))
    assert (report.unchanged, len(report.skipped), report.purged) == (10, 1, 1)
    with library.catalog._reading() as session:
        assert session.rows("SELECT id FROM photos WHERE gone_at IS NOT NULL") == [(1,)]


def test_of_a_part_of_a_root_only_what_is_gone_there_is_forgotten(library, album):
    library.index([album])
    for day in ("day0", "day1"):
        next((album / day).iterdir()).unlink()
    library.index([album])
    report = library.index([album / "day1"], options=IndexOptions(keep_gone_days=0))
    assert report.purged == 1
    with library.catalog._reading() as session:
        [(place,)] = session.rows("SELECT path FROM photos WHERE gone_at IS NOT NULL")
    assert place.startswith(b"day0/")


def deviate(kind: str, album: Path, make_photo) -> dict[str, int]:
    """Change something in the album; return what the next run should count."""
    files = photos(album)
    if kind == "last gone":
        files[-1].unlink()
        return {"photos": 11, "unchanged": 11, "gone": 1}
    if kind == "first gone":
        files[0].unlink()
        return {"photos": 11, "unchanged": 11, "gone": 1}
    if kind == "new in the middle":
        make_photo(files[5].with_name(files[5].name + "a.png"), 100)
        return {"photos": 13, "added": 1, "unchanged": 12, "encoded": 1}
    if kind == "new at the end":
        make_photo(album / "zzz.png", 100)
        return {"photos": 13, "added": 1, "unchanged": 12, "encoded": 1}
    if kind == "touched":
        touch(files[4])
        return {"photos": 12, "unchanged": 12}
    (album / "bad.png").write_bytes(b"no picture")
    return {"photos": 12, "unchanged": 12, "skipped": 1}


@pytest.mark.parametrize(
    "kind", ["last gone", "first gone", "new in the middle", "new at the end", "touched", "unreadable"]
)
def test_one_difference_among_files_as_known_is_all_that_is_counted(library, album, make_photo, kind):
    library.index([album])
    expected = deviate(kind, album, make_photo)
    assert counts(library.index([album])) == expected
    skipped = {"skipped": 1} if kind == "unreadable" else {}
    assert counts(library.index([album])) == {
        "photos": expected["photos"],
        "unchanged": expected["photos"],
        **skipped,
    }


def test_of_several_folders_one_that_differs_hides_nothing_of_the_others(library, album):
    library.index([album])
    folders = [album / "day0", album / "day1", album / "day2"]
    assert counts(library.index(folders)) == {"photos": 12, "unchanged": 12}
    photos(folders[1])[1].unlink()
    assert counts(library.index(folders)) == {"photos": 11, "unchanged": 11, "gone": 1}


def test_gone_photos_are_forgotten_by_a_run_that_finds_nothing_new(library, album):
    library.index([album])
    photos(album)[0].unlink()
    library.index([album])
    report = library.index([album], options=IndexOptions(keep_gone_days=0))
    assert (report.unchanged, report.purged) == (11, 1)


# ---- stopped in each of its stages


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr(indexer, "_SCAN_BATCH", 5)


def stopped_at(library, album, stage: Stage | None, done: int):
    """Index, and ask the run to stop when so much of a stage is done; None is before it begins."""
    stop = threading.Event()
    if stage is None:
        stop.set()

    def progress(told) -> None:
        if told.stage is stage and told.done >= done:
            stop.set()

    report = library.index([album], stop=stop, progress=progress)
    assert report.interrupted
    return report


@pytest.mark.parametrize(("stage", "done"), [(None, 0), (Stage.SCAN, 5), (Stage.SCAN, 12)])
def test_a_run_stopped_before_it_encodes_changes_nothing_and_the_next_does_all(
    library, album, small_batches, counting, stage, done
):
    assert counts(stopped_at(library, album, stage, done)) == {}
    assert counting.images == 0
    assert counts(library.index([album])) == {"photos": 12, "added": 12, "encoded": 12}


def test_a_run_stopped_in_its_scan_forgets_no_photo(library, album, small_batches):
    library.index([album])
    photos(album)[0].unlink()
    touch(photos(album)[-1])
    report = stopped_at(library, album, Stage.SCAN, 5)
    assert (report.photos, report.gone) == (12, 0)
    assert counts(library.index([album])) == {"photos": 11, "unchanged": 11, "gone": 1}


@pytest.mark.parametrize("done", [1, 5, 7])
def test_a_run_stopped_while_it_recognises_files_encodes_none_anew(library, album, small_batches, counting, done):
    library.index([album])
    for path in photos(album):
        touch(path)
    report = stopped_at(library, album, Stage.RECOGNISE, done)
    assert (report.photos, report.encoded, report.gone) == (12, 0, 0)
    assert counts(library.index([album])) == {"photos": 12, "unchanged": 12}
    assert counting.images == 12


def test_a_batch_without_one_sound_vector_is_skipped_as_a_whole(library, album, counting, monkeypatch):
    sound = counting.encode_images
    monkeypatch.setattr(counting, "encode_images", lambda images: sound(images) * float("nan"), raising=False)
    report = library.index([album])
    assert (counts(report), {skip.reason for skip in report.skipped}) == ({"skipped": 12}, {"bad_vector"})
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch_size": 0}, "begin at 1"),
        ({"workers": 0}, "begin at 1"),
        ({"max_megapixels": 0}, "megapixels"),
        ({"max_megapixels": float("inf")}, "megapixels"),
        ({"decoder_gigabytes": 0.2}, "gigabytes"),
        ({"decoder_gigabytes": float("inf")}, "gigabytes"),
        ({"keep_gone_days": -0.1}, "0 to 36500 days"),
        ({"keep_gone_days": 36_500.1}, "0 to 36500 days"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, said):
    with pytest.raises(UsageError, match=said):
        IndexOptions(**options)


def test_options_at_their_bounds_are_taken():
    IndexOptions(batch_size=1, workers=1, max_megapixels=0.001, decoder_gigabytes=0.25, keep_gone_days=0)
    assert IndexOptions(keep_gone_days=36_500).keep_gone_days == 36_500


def test_of_very_many_scopes_the_last_are_looked_at_one_by_one(library, tmp_path, make_photo, monkeypatch):
    monkeypatch.setattr(look, "_MATCHED", 2)
    folders = [make_photo(tmp_path / name / "a.png", seed).parent for seed, name in enumerate("abc")]
    make_photo(folders[2] / "b.png", 9)
    assert library.index(folders).added == 4
    report = library.index(folders)
    assert (report.unchanged, report.encoded, report.updated) == (4, 0, 0)
    (folders[2] / "a.png").unlink()
    report = library.index(folders)
    assert (report.unchanged, report.gone) == (3, 1)
