from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import sqlite3
import threading
from collections import namedtuple
from concurrent.futures import Executor, Future
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from search import Library, failpoints
from search import generations as module
from search.catalog.lock import writer_lock
from search.catalog.reading import CatalogReader
from search.catalog.rows import checksum
from search.catalog.storage import CATALOG_NAME
from search.errors import DamagedLibrary, LibraryBusy, LibraryError, LibraryNotFound, StorageError
from search.generations import Generation, Generations, beside

FILES = ["MANIFEST.json", "gone.i64", "ids-1.i64", "rows.db", "vectors-1.f16"]


class Crash(Exception):
    """Stands for the end of the process."""


@pytest.fixture
def crash_at():
    """Let the program end at a failpoint."""

    def arm(name: str) -> None:
        def action(reached: str) -> None:
            if reached == name:
                failpoints.arm(None)
                raise Crash(name)

        failpoints.arm(action)

    yield arm
    failpoints.arm(None)


@pytest.fixture
def indexed(library, album) -> Library:
    library.index([album])
    return library


@pytest.fixture
def told(indexed) -> list[str]:
    """What the library tells its user from now on."""
    messages: list[str] = []
    indexed._notify = messages.append
    return messages


def place(library: Library) -> Path:
    return Path(library.catalog.location)


def numbers(library: Library) -> list[int]:
    return sorted(int(entry.name) for entry in (place(library) / "gen").iterdir() if entry.is_dir())


def generation(library: Library) -> Path:
    """The folder of the generation that is used."""
    return place(library) / "gen" / f"{library.status().index['generation']:06}"


def answers(library: Library) -> list[tuple[int, float, float]]:
    """Everything a search returns, by an index that is filled now."""
    library.close()
    return [(hit.photo.id, hit.score, hit.relevance) for hit in library.search("a wall", k=100)]


def brute(library: Library) -> list[tuple[int, float, float]]:
    """The same from the catalog's vectors alone."""
    kept, library._index.generations = library._index.generations, None
    try:
        return answers(library)
    finally:
        library._index.generations = kept


def blobs(library: Library) -> list[tuple[int, int, bytes, int]]:
    with closing(sqlite3.connect(place(library) / CATALOG_NAME)) as connection:
        query = "SELECT encoder_id, photo_id, vector, crc FROM embeddings ORDER BY 1, 2"
        return connection.execute(query).fetchall()


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= 0x10
    path.write_bytes(content)


# ---- what is published


def test_a_first_run_publishes_every_vector_bit_for_bit(indexed):
    status = indexed.status().index
    assert (status["generation"], status["delta"]) == (1, 0)
    assert sorted(os.listdir(generation(indexed))) == FILES
    with Generation(generation(indexed)) as published:
        ids, halves = published.vectors(1)
        assert (halves.dtype, halves.shape) == (np.float16, (12, 256))
        assert [(1, id_, row.tobytes()) for id_, row in zip(ids, halves, strict=True)] == [
            row[:3] for row in blobs(indexed)
        ]


def test_the_rows_of_a_generation_are_the_catalogs_with_their_seals(indexed):
    with (
        closing(sqlite3.connect(place(indexed) / CATALOG_NAME)) as catalog,
        closing(sqlite3.connect(generation(indexed) / "rows.db")) as rows,
    ):
        schema = "SELECT type, name, sql FROM sqlite_schema ORDER BY type, name"
        assert catalog.execute(schema).fetchall() == rows.execute(schema).fetchall()
        for table in ("photos", "roots", "encoders", "sqlite_sequence", "alembic_version"):
            assert (
                catalog.execute(f"SELECT * FROM {table}").fetchall()
                == rows.execute(f"SELECT * FROM {table}").fetchall()
            )
        assert rows.execute("SELECT count(*) FROM embeddings").fetchone() == (0,)
        assert rows.execute("SELECT count(*) FROM photos WHERE crc IS NULL").fetchone() == (0,)


def test_a_run_that_changes_nothing_publishes_nothing(indexed, album):
    indexed.index([album])
    assert numbers(indexed) == [1]


def test_few_changes_wait_for_the_next_generation(library, album, make_photo):
    for number in range(40):
        make_photo(album / f"more{number}.png", 100 + number)
    library.index([album])
    make_photo(album / "one.png", 900)
    make_photo(album / "two.png", 901)
    library.index([album])
    assert library.status().index["generation"] == 1
    assert library.status().index["delta"] == 2
    assert len(answers(library)) == 54
    assert answers(library) == brute(library)
    make_photo(album / "three.png", 902)  # three of 55 are more than a twentieth
    library.index([album])
    assert (library.status().index["generation"], library.status().index["delta"]) == (2, 0)


def test_a_long_run_publishes_on_its_way(library, album, monkeypatch):
    from search import IndexOptions

    class AtOnce(Executor):
        """Runs what it is given before it returns, so that each batch finds the generation written."""

        def __init__(self, *_) -> None:
            pass

        def submit(self, call, /, *args, **kwargs):
            done: Future = Future()
            done.set_result(call(*args, **kwargs))
            return done

    monkeypatch.setattr(module, "MOST_CHANGES", 4)
    monkeypatch.setattr(beside, "ThreadPoolExecutor", AtOnce)
    seen: list[tuple[int, ...]] = []
    options = IndexOptions(batch_size=2)
    library.index(
        [album], options=options, progress=lambda _: seen.append(tuple(library._index.generations._numbers()))
    )
    assert (1,) in seen
    assert (1, 2) in seen
    assert library.status().index["delta"] == 0


def test_batches_are_committed_while_a_generation_is_written(library, album, monkeypatch):
    from search import IndexOptions

    monkeypatch.setattr(module, "MOST_CHANGES", 4)
    begun, went_on = threading.Event(), threading.Event()
    waited: list[bool] = []
    seen: list[tuple[int, int, int]] = []

    def hold(name: str) -> None:
        if name == "publish.written" and not begun.is_set():
            begun.set()
            waited.append(went_on.wait(60))

    def look(progress) -> None:
        if progress.stage == "encoding" and progress.done == 8:
            went_on.set()
        said = library.catalog.publication()
        if said.number is not None:
            seen.append((said.number, said.generation_seq, said.seq))

    failpoints.arm(hold)
    try:
        library.index([album], options=IndexOptions(batch_size=2), progress=look)
    finally:
        failpoints.arm(None)
    assert waited == [True]
    assert all(reflected < seq - 1 for number, reflected, seq in seen if number == 1)
    assert library.status().index["delta"] == 0
    assert len(answers(library)) == 12
    assert answers(library) == brute(library)


def test_a_run_that_fails_leaves_nothing_of_what_was_being_written(library, album, monkeypatch):
    from search import IndexOptions

    monkeypatch.setattr(module, "MOST_CHANGES", 4)
    written, ending = threading.Event(), threading.Event()
    batches: list[str] = []

    def fail(name: str) -> None:
        if name == "publish.written":
            written.set()
            ending.wait(60)
        elif name == "index.committed":
            batches.append(name)
            if len(batches) == 3:  # the second one made a generation due
                assert written.wait(60)
                ending.set()
                raise Crash(name)

    failpoints.arm(fail)
    try:
        with pytest.raises(Crash):
            library.index([album], options=IndexOptions(batch_size=2))
    finally:
        failpoints.arm(None)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("publish")]
    assert list((place(library) / "tmp").iterdir()) == []
    assert library.catalog.publication().number is None
    assert len(answers(library)) == 6
    assert library.index([album]).added == 6
    assert answers(library) == brute(library)


def test_a_disk_without_space_for_a_generation_ends_no_run(library, album, little_space, monkeypatch):
    from search import IndexOptions

    monkeypatch.setattr(module, "MOST_CHANGES", 4)
    little_space(1000)
    report = library.index([album], options=IndexOptions(batch_size=2))
    assert report.added == 12
    assert "free" in report.not_published
    assert library.status().index["generation"] is None


def test_who_lives_long_moves_to_a_newer_generation(indexed, open_library, album, make_photo, monkeypatch):
    monkeypatch.setattr("search.live._MOST_LAID_OVER", 3)
    with open_library() as other:
        assert len(other.search("a wall", k=100)) == 12
        for number in range(2):
            make_photo(album / f"few{number}.png", 900 + number)
        indexed.index([album])
        assert len(other.search("a wall", k=100)) == 14
        assert other.vector_index().laid_over == 2  # too few to be worth it
        make_photo(album / "third.png", 903)
        indexed.index([album])
        found = [(hit.photo.id, hit.score) for hit in other.search("a wall", k=100)]
        assert other.vector_index().laid_over == 0
        assert found == [(id_, score) for id_, score, _ in brute(indexed)]


def test_a_photo_is_found_right_after_its_batch(library, album, monkeypatch):
    from search import IndexOptions

    library.index([album / "day0"])
    found: list[int] = []

    def look(progress):
        if progress.stage == "encoding" and progress.done:
            found.append(len(library.search("a wall", k=50)))

    library.index([album], options=IndexOptions(batch_size=2), progress=look)
    assert found == [6, 8, 10, 12]


def test_removing_publishes_at_once(indexed, album):
    indexed.remove([album / "day1"])
    assert (indexed.status().index["generation"], indexed.status().index["delta"]) == (2, 0)
    with Generation(generation(indexed)) as published:
        assert len(published.vectors(1)[0]) == 8
    assert len(answers(indexed)) == 8
    assert answers(indexed) == brute(indexed)


def test_a_database_by_url_has_no_generations(tmp_path, album, counting):
    with Library.open(f"sqlite:///{tmp_path / 'by-url.db'}", model="builtin", offline=True) as library:
        library.model.loaded = counting
        library.index([album])
        assert len(library.search("a wall", k=50)) == 12
        assert library.status().index["generation"] is None
        assert (library.rebuild().photos, library.rebuild().generation) == (12, None)
        assert len(library.search("a wall", k=50)) == 12
    assert not list(tmp_path.rglob("gen"))


# ---- answers do not depend on it


def test_answers_are_bit_identical_with_without_and_beside_a_generation(indexed, album, make_photo, monkeypatch):
    assert answers(indexed) == brute(indexed)
    monkeypatch.setattr(Generations, "is_due", lambda *_, **__: False)
    (album / "day0" / "photo00.png").unlink()
    make_photo(album / "day1" / "photo01.png", 300)  # another content
    twin = (album / "day2" / "photo02.png").read_bytes()
    (album / "twin.png").write_bytes(twin)  # the same vector twice: a tie
    indexed.index([album])
    assert indexed.status().index["delta"] == 3
    stale = answers(indexed)
    assert len(stale) == 12
    assert stale == brute(indexed)
    shutil.rmtree(place(indexed) / "gen")
    assert answers(indexed) == stale


def test_photos_that_were_gone_when_it_was_published_stay_away_until_they_return(indexed, album, tmp_path):
    photo = album / "day0" / "photo00.png"
    photo.rename(tmp_path / "aside.png")
    indexed.index([album])
    with Generation(generation(indexed)) as published:
        assert (published.number, published.gone.tolist(), len(published.vectors(1)[0])) == (2, [1], 12)
    assert len(answers(indexed)) == 11
    assert answers(indexed) == brute(indexed)
    (tmp_path / "aside.png").rename(photo)
    assert indexed.index([album]).encoded == 0
    assert len(answers(indexed)) == 12
    assert answers(indexed) == brute(indexed)


def test_two_models_are_published_side_by_side(indexed, album, tmp_path, tiny_model):
    with Library.open(place(indexed), model=tiny_model, offline=True) as other:
        other.index([album], reencode=True)
        with Generation(generation(indexed)) as published:
            assert [(row.id, row.dim, row.count) for row in published.manifest.encoders] == [
                (1, 256, 12),
                (2, 32, 12),
            ]
        assert answers(other) == brute(other)
    assert answers(indexed) == brute(indexed)


def test_a_missing_generation_is_told_once_and_costs_no_answer(indexed, told):
    expected = answers(indexed)
    shutil.rmtree(place(indexed) / "gen")
    assert answers(indexed) == expected
    assert answers(indexed) == expected
    assert told == ["the index generation is missing; the catalog answers alone; run 'search rebuild'"]


def spoil(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "flip" and content:
        flip(path, len(content) // 2)
    elif how == "truncate" and content:
        os.truncate(path, len(content) // 2)
    elif how == "delete":
        path.unlink()
    else:
        path.write_bytes(content + bytes(8))


@pytest.mark.parametrize("how", ["flip", "truncate", "delete", "extend"])
def test_damage_to_any_file_is_found_and_costs_no_answer(indexed, told, how):
    expected = answers(indexed)
    for name in FILES:
        path = generation(indexed) / name
        whole = path.read_bytes()
        spoil(path, how)
        indexed._told.clear()
        assert answers(indexed) == expected
        [problem] = indexed._index.generations.problems(indexed.catalog, full=True)
        path.write_bytes(whole)
        if name != "MANIFEST.json" or how == "delete":
            assert ("missing" if name == "MANIFEST.json" else name) in problem
        wrong = problem.removeprefix("generation 1 ")
        assert told.pop() == f"the index generation {wrong}; the catalog answers alone; run 'search rebuild'"
        assert told == []
    assert answers(indexed) == expected
    assert told == []


def test_a_damaged_generation_is_replaced_by_rebuilding(indexed, told):
    expected = answers(indexed)
    flip(generation(indexed) / "vectors-1.f16", 700)
    indexed.rebuild()
    assert indexed._index.generations.problems(indexed.catalog, full=True) == []
    assert answers(indexed) == expected
    assert told == []


def test_decay_that_leaves_the_time_as_it_was_is_found_by_a_full_check(indexed):
    answers(indexed)
    path = generation(indexed) / "vectors-1.f16"
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(700)
        byte = file.read(1)[0]
        file.seek(700)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert indexed._index.generations.problems(indexed.catalog) == []
    [problem] = indexed._index.generations.problems(indexed.catalog, full=True)
    assert problem == "generation 1 is damaged: vectors-1.f16 is not what was written"


def test_a_generation_of_another_library_is_not_used(indexed, told, tmp_path, make_photo, counting):
    make_photo(tmp_path / "strangers" / "one.png", 77)
    with Library.open(tmp_path / "other", model="builtin", offline=True) as other:
        other.model.loaded = counting
        other.index([tmp_path / "strangers"])
    expected = brute(indexed)
    shutil.rmtree(place(indexed) / "gen")
    shutil.copytree(tmp_path / "other" / "gen", place(indexed) / "gen")
    assert answers(indexed) == expected
    assert told == [
        "the index generation belongs to another library; the catalog answers alone; run 'search rebuild'"
    ]


def test_a_generation_newer_than_the_catalog_is_not_used(indexed, told, album, make_photo):
    indexed.close()
    older = (place(indexed) / CATALOG_NAME).read_bytes()
    make_photo(album / "late.png", 900)
    indexed.index([album])
    indexed.close()
    newer = generation(indexed)
    indexed.close()
    (place(indexed) / CATALOG_NAME).write_bytes(older)
    for path in place(indexed).glob("catalog.db-*"):
        path.unlink()
    assert len(answers(indexed)) == 12
    assert told == []  # the one it names is still there
    shutil.rmtree(place(indexed) / "gen" / "000001")
    newer.rename(place(indexed) / "gen" / "000001")
    assert len(answers(indexed)) == 12
    assert told == [
        "the index generation is newer than the catalog; the catalog answers alone; run 'search rebuild'"
    ]


def test_a_manifest_that_is_none_is_refused(indexed):
    path = generation(indexed) / "MANIFEST.json"
    whole = json.loads(path.read_text())
    stranger = {"name": "../../x", "size_bytes": 1, "sha256": ""}
    changes = [
        {"format": 4},
        {"format": 0},
        {"format": True},
        {"format": None},
        {"encoders": 3},
        {"files": []},
        {"more": 1},
    ]
    changes += [{"files": [*whole["files"], stranger]}, {"seq": "many"}, {"seq": -1}, {"number": True}]
    changes += [
        {"seq": whole["seq"] + 1},
        {"created_at": "2020-01-01"},
        {"check": "0" * 64},
    ]  # all of the right kind
    contents = [json.dumps(whole | change).encode() for change in changes]
    for content in (*contents, b"", b"[]", b"{}", b"\xff", b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(module.Unsound):
            Generation(path.parent)


@pytest.mark.parametrize(
    "change", [{"lacks": "none"}, {"keeps": (1.5,)}, {"previous": 2**62}, {"created_at": 5}, {"catalog": None}]
)
def test_a_manifest_with_a_checksum_that_holds_is_not_trusted_for_it(indexed, change):
    with Generation(generation(indexed)) as published:
        changed = dataclasses.replace(published.manifest, **change)
    with pytest.raises(module.Unsound, match="can't be understood"):
        module.Manifest.parse(changed.to_bytes())


# ---- checking


def test_a_sound_generation_has_no_problems(indexed):
    assert indexed._index.generations.problems(indexed.catalog) == []
    assert indexed._index.generations.problems(indexed.catalog, full=True) == []


def test_a_full_check_compares_ids_and_vectors_with_the_catalog(indexed, album, make_photo):
    def problems_after(statement: str) -> list[str]:
        indexed.close()
        before = (place(indexed) / CATALOG_NAME).read_bytes()
        with closing(sqlite3.connect(place(indexed) / CATALOG_NAME)) as connection, connection:
            connection.execute(statement)
        found = indexed._index.generations.problems(indexed.catalog, full=True)
        indexed.close()
        (place(indexed) / CATALOG_NAME).write_bytes(before)
        for path in place(indexed).glob("catalog.db-*"):
            path.unlink()
        return found

    assert problems_after("DELETE FROM photos WHERE id = 3") == [
        "generation 1 has 1 photo that the catalog never knew, photo 3 first"
    ]
    assert (
        problems_after("UPDATE embeddings SET crc = crc + 1 WHERE photo_id = 3") == []
    )  # the catalog's own damage
    assert problems_after("UPDATE state SET generation_hash = 'x'") == [
        "generation 1 is not the one that the catalog published"
    ]
    assert problems_after("UPDATE state SET generation = 9") == ["generation 9 is missing"]


def test_a_full_check_finds_vectors_that_were_never_or_wrongly_published(indexed, monkeypatch):
    whole = blobs(indexed)

    def vectors(self, encoder):
        kept = [(row[1], row[2]) for row in whole if row[1] != 5]
        kept[2] = (kept[2][0], kept[7][1])
        yield np.array([id_ for id_, _ in kept], np.int64), b"".join(blob for _, blob in kept)

    monkeypatch.setattr("search.catalog.snapshot.Snapshot.vectors", vectors)
    indexed.rebuild()
    assert indexed._index.generations.problems(indexed.catalog, full=True) == [
        "generation 2 lacks 1 vector of builtin",
        "generation 2 has 1 vector of builtin other than the catalog's",
    ]


def test_a_damaged_vector_is_not_published(indexed):
    with closing(sqlite3.connect(place(indexed) / CATALOG_NAME)) as connection, connection:
        connection.execute("UPDATE embeddings SET crc = crc + 1 WHERE photo_id = 3")
    indexed.rebuild()
    with Generation(generation(indexed)) as published:
        assert 3 not in published.vectors(1)[0]
    assert indexed._index.generations.problems(indexed.catalog, full=True) == []


def wound(library: Library, *statements: str, **values: object) -> None:
    library.close()
    with closing(sqlite3.connect(place(library) / CATALOG_NAME)) as connection, connection:
        for statement in statements:
            connection.execute(statement, values)


def test_a_vector_that_never_was_one_is_not_published_and_made_anew(indexed, album):
    nothing = np.full(256, np.nan, "<f2").tobytes()
    broken = "UPDATE embeddings SET vector = :blob, crc = :crc WHERE photo_id = 3"
    wound(indexed, broken, blob=nothing, crc=checksum(nothing, 3, 1))
    indexed.rebuild()
    with Generation(generation(indexed)) as published:
        assert 3 not in published.vectors(1)[0]
    assert indexed._index.generations.problems(indexed.catalog, full=True) == []


def test_the_last_sound_copy_of_what_is_damaged_stays_until_it_is_mended(indexed):
    sound = blobs(indexed)
    camera = indexed.photo(3)
    wound(
        indexed,
        "UPDATE photos SET camera = 'x' WHERE id = 3",
        "UPDATE embeddings SET vector = zeroblob(512) WHERE photo_id = 4",
    )
    for _ in range(3):
        indexed.rebuild()
    assert numbers(indexed) == [1, 3, 4]
    report = indexed.check(repair=True)
    assert (report.ok, report.repaired) == (True, 2)
    assert (blobs(indexed), indexed.photo(3)) == (sound, camera)
    indexed.rebuild()
    assert numbers(indexed) == [5, 6]


def test_damage_that_came_later_keeps_a_later_generation_too(indexed):
    wound(indexed, "UPDATE photos SET camera = 'x' WHERE id = 3")
    indexed.rebuild()
    wound(indexed, "UPDATE photos SET camera = 'x' WHERE id = 4")
    for _ in range(3):
        indexed.rebuild()
    assert numbers(indexed) == [1, 2, 4, 5]


def test_generations_of_another_history_are_no_source_for_repair(indexed, album, make_photo):
    indexed.close()
    older = (place(indexed) / CATALOG_NAME).read_bytes()
    late = album / "late.png"
    make_photo(late, 900)
    indexed.index([album])
    indexed.close()
    (place(indexed) / CATALOG_NAME).write_bytes(older)
    with indexed._index.generations.source(indexed.catalog.publication()) as source:
        assert (source.number, source.others) == (1, ())
    late.unlink()
    make_photo(album / "other.png", 901)
    indexed.index([album])
    assert numbers(indexed) == [1, 2, 3]
    flip(generation(indexed) / "rows.db", 5000)
    with indexed._index.generations.source(indexed.catalog.publication()) as source:
        assert (source.number, source.others) == (1, ())


def test_a_state_made_anew_names_the_generation_it_named(indexed):
    said = indexed.catalog.publication()
    wound(indexed, "UPDATE state SET uuid = 'x'")
    with indexed._index.generations.source(indexed.catalog.publication()) as source:
        indexed.catalog.repair(source)
    now = indexed.catalog.publication()
    named = (said.uuid, said.number, said.generation_seq, said.manifest_hash)
    assert (now.uuid, now.number, now.generation_seq, now.manifest_hash) == named
    assert answers(indexed) == brute(indexed)


# ---- crashes, readers, space


@pytest.mark.parametrize("point", ["publish.written", "publish.renamed", "publish.switched"])
def test_a_crash_while_publishing_leaves_the_old_or_the_new_generation(
    indexed, album, make_photo, crash_at, open_library, point
):
    make_photo(album / "late.png", 900)
    crash_at(point)
    with pytest.raises(Crash):
        indexed.index([album])
    with open_library() as after:
        messages: list[str] = []
        after._notify = messages.append
        assert after.status().index["generation"] == (2 if point == "publish.switched" else 1)
        assert len(answers(after)) == 13
        assert answers(after) == brute(after)
        assert after._index.generations.problems(after.catalog, full=True) == []
        make_photo(album / "later.png", 901)
        assert after.index([album]).added == 1
        assert after.status().index["delta"] == 0
        assert len(answers(after)) == 14
        used = after.status().index["generation"]
        assert numbers(after) == [used - 1, used] if point != "publish.renamed" else used in numbers(after)
        assert list((place(after) / "tmp").iterdir()) == []
        assert messages == []


def test_only_the_current_and_the_previous_generation_are_kept(indexed):
    for _ in range(4):
        indexed.rebuild()
    assert numbers(indexed) == [4, 5]


def test_a_catalog_that_names_no_generation_costs_none_of_those_that_are_there(indexed, little_space):
    indexed.rebuild()
    indexed.close()
    with closing(sqlite3.connect(place(indexed) / CATALOG_NAME)) as connection, connection:
        connection.execute("UPDATE state SET generation = NULL, generation_seq = NULL, generation_hash = NULL")
    little_space(1000)
    with pytest.raises(StorageError):
        indexed.rebuild()
    assert numbers(indexed) == [1, 2]
    little_space(10**12)
    indexed.rebuild()
    assert numbers(indexed) == [1, 2, 3]
    indexed.rebuild()
    assert numbers(indexed) == [3, 4]


def test_an_older_catalog_put_back_costs_no_newer_generation(indexed):
    indexed.close()
    older = (place(indexed) / CATALOG_NAME).read_bytes()
    indexed.rebuild()
    indexed.rebuild()
    indexed.close()
    (place(indexed) / CATALOG_NAME).write_bytes(older)
    indexed.rebuild()
    assert numbers(indexed) == [2, 3, 4]


def test_a_generation_that_a_reader_holds_is_removed_by_a_later_one(indexed):
    with Generation(generation(indexed)) as held:
        indexed.rebuild()
        indexed.rebuild()
        assert numbers(indexed) == [1, 2, 3]
        assert held.vectors(1)[1].shape == (12, 256)
    indexed.rebuild()
    assert numbers(indexed) == [3, 4]


def test_a_reader_waits_for_nobody_who_only_reads(indexed):
    with Generation(generation(indexed)), (generation(indexed) / "MANIFEST.json").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)


def test_a_generation_that_vanishes_while_a_reader_comes_is_looked_up_again(indexed, told, monkeypatch):
    expected = brute(indexed)
    publication = type(indexed.catalog).publication
    calls = []

    def late(self):
        said = publication(self)
        calls.append(said.number)
        if len(calls) == 2:  # between the last look at the catalog and opening the files, two others are published
            with Library.open(place(indexed), model="builtin", offline=True) as other:
                monkeypatch.undo()
                other.rebuild()
                other.rebuild()
                monkeypatch.setattr(type(indexed.catalog), "publication", late)
        return said

    indexed.close()
    monkeypatch.setattr(type(indexed.catalog), "publication", late)
    assert [(hit.photo.id, hit.score, hit.relevance) for hit in indexed.search("a wall", k=100)] == expected
    assert calls[:3] == [1, 1, 3]  # the index, the generations, and these again
    assert told == []


@pytest.fixture
def little_space(monkeypatch):
    """Let the disk have so much free space."""
    Usage = namedtuple("Usage", "total used free")

    def set_(free: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 10**12 - free, free))

    return set_


def test_a_full_disk_loses_no_photo_and_the_report_tells(indexed, album, make_photo, little_space, monkeypatch):
    make_photo(album / "late.png", 900)
    indexed.close()
    little_space(1000)
    report = indexed.index([album])
    assert (report.added, report.photos) == (1, 13)
    assert "free" in report.not_published
    assert (indexed.status().index["generation"], indexed.status().index["delta"]) == (1, 1)
    assert len(answers(indexed)) == 13
    with pytest.raises(StorageError, match="free"):
        indexed.rebuild()
    monkeypatch.undo()
    assert indexed.index([album]).not_published == ""
    assert indexed.status().index["delta"] == 0


def test_publishing_asks_for_twice_what_it_takes(indexed, little_space):
    needed = 2 * indexed.catalog.size_bytes()
    assert needed >= 2 * sum(path.stat().st_size for path in generation(indexed).iterdir())
    little_space(needed - 1)
    with pytest.raises(StorageError, match="needs 2 MB free"):
        indexed.rebuild()
    little_space(needed)
    indexed.rebuild()


def test_a_write_that_fails_leaves_no_files_behind(indexed, album, make_photo, monkeypatch):
    def full(path):
        raise OSError(28, "No space left on device")

    make_photo(album / "late.png", 900)
    monkeypatch.setattr("search.generations.writing.fsync_file", full)
    report = indexed.index([album])
    assert "No space left on device" in report.not_published
    assert list((place(indexed) / "tmp").iterdir()) == []
    assert len(answers(indexed)) == 13


# ---- a catalog that is damaged or lost


def damage(library: Library, how: str) -> None:
    library.close()
    catalog = place(library) / CATALOG_NAME
    if how == "lost":
        catalog.unlink()
    elif how == "header":
        catalog.write_bytes(b"no catalog" + catalog.read_bytes()[10:])
    elif how == "pages":
        content = catalog.read_bytes()
        catalog.write_bytes(content[:16384] + bytes([0xA5]) * (len(content) - 16384))
    elif how == "cut":
        os.truncate(catalog, 20_000)


DAMAGES = ["lost", "header", "pages", "cut"]


@pytest.mark.parametrize("how", DAMAGES)
def test_searching_goes_on_without_the_catalog(indexed, told, album, how):
    before = answers(indexed)
    path = str(album / "day0" / "photo00.png")
    shown = indexed.photo(path)
    similar = [(hit.photo.id, hit.score) for hit in indexed.similar(path).hits]
    damage(indexed, how)
    assert [(hit.photo.id, hit.score, hit.relevance) for hit in indexed.search("a wall", k=100)] == before
    assert indexed.photo(path) == shown
    assert [(hit.photo.id, hit.score) for hit in indexed.similar(path).hits] == similar
    assert (indexed.status().photos, indexed.status().encoders[0].photos) == (12, 12)
    assert indexed.label(["a wall", "a cat"]).photos[0].labels
    state = "missing" if how == "lost" else "damaged"
    [message] = told
    assert message.startswith(f"the catalog is {state}; answering from generation 1 of 20")
    assert message.endswith("run 'search rebuild'")


@pytest.mark.parametrize("how", DAMAGES)
def test_nothing_is_written_beside_a_damaged_catalog(indexed, album, how):
    damage(indexed, how)
    indexed.search("a wall")
    with pytest.raises(DamagedLibrary, match="search rebuild"):
        indexed.index([album])
    indexed.close()
    with pytest.raises(DamagedLibrary, match="search rebuild"):
        indexed.index([album])
    assert numbers(indexed) == [1]


@pytest.mark.parametrize("how", DAMAGES)
def test_rebuilding_a_catalog_encodes_nothing_and_keeps_everything(indexed, album, counting, how):
    indexed.label(["a wall", "a cat"], apply=True)
    (album / "broken.png").write_bytes(b"no picture")
    (album / "day0" / "photo03.png").unlink()
    indexed.index([album])
    indexed.rebuild()
    before = (answers(indexed), blobs(indexed), indexed.skipped(), indexed.photo(5), indexed.status().roots)
    published = indexed.catalog.publication()
    damage(indexed, how)
    counting.images = 0
    report = indexed.rebuild()
    assert (report.photos, report.recovered, report.generation) == (11, 11, published.number)
    assert (report.backup is None) == (how == "lost")
    assert (
        answers(indexed),
        blobs(indexed),
        indexed.skipped(),
        indexed.photo(5),
        indexed.status().roots,
    ) == before
    assert indexed.catalog.publication().uuid == published.uuid
    assert (indexed.check().ok, indexed._index.generations.problems(indexed.catalog, full=True)) == (True, [])
    again = indexed.index([album])
    assert (again.encoded, again.unchanged, counting.images) == (0, 11, 0)


def test_what_was_indexed_after_the_generation_is_found_again_by_indexing(indexed, album, make_photo, monkeypatch):
    monkeypatch.setattr(Generations, "is_due", lambda *_, **__: False)
    make_photo(album / "late.png", 900)
    indexed.index([album])
    damage(indexed, "header")
    assert len(indexed.search("a wall", k=50)) == 12
    assert indexed.rebuild().photos == 12
    report = indexed.index([album])
    assert (report.added, report.encoded, report.unchanged) == (1, 1, 12)
    assert indexed.photo(album / "late.png").id == 13


def test_the_damaged_catalog_is_kept(indexed):
    damage(indexed, "header")
    content = (place(indexed) / CATALOG_NAME).read_bytes()
    report = indexed.rebuild()
    assert Path(report.backup).name.startswith("catalog.db.")
    assert Path(report.backup).name.endswith(".damaged")
    assert Path(report.backup).read_bytes() == content


def test_a_damaged_newest_generation_gives_way_to_the_one_before(indexed):
    before = answers(indexed)
    indexed.rebuild()
    flip(generation(indexed) / "rows.db", 5000)
    damage(indexed, "lost")
    assert [(hit.photo.id, hit.score, hit.relevance) for hit in indexed.search("a wall", k=100)] == before
    assert indexed.rebuild().generation == 1
    assert answers(indexed) == before


@pytest.mark.parametrize("how", DAMAGES)
def test_without_a_sound_generation_the_error_says_what_to_do(indexed, how):
    flip(generation(indexed) / "vectors-1.f16", 100)
    damage(indexed, how)
    with pytest.raises(LibraryNotFound if how == "lost" else DamagedLibrary):
        indexed.search("a wall")
    with pytest.raises(LibraryError, match="index the photos again"):
        indexed.rebuild()


def test_rebuilding_where_nothing_is_says_so(library):
    with pytest.raises(LibraryNotFound):
        library.rebuild()


def test_rebuilding_waits_for_no_writer(indexed):
    damage(indexed, "lost")
    with writer_lock(place(indexed)), pytest.raises(LibraryBusy):
        indexed.rebuild()
    assert indexed.rebuild().recovered == 12


def test_rebuilding_gives_back_space(indexed):
    indexed.close()
    catalog = place(indexed) / CATALOG_NAME
    with closing(sqlite3.connect(catalog)) as connection, connection:
        connection.execute("CREATE TABLE filler AS SELECT zeroblob(1000000) AS content")
        connection.execute("DROP TABLE filler")
    before = catalog.stat().st_size
    report = indexed.rebuild()
    indexed.close()
    assert catalog.stat().st_size < before - 900_000
    assert (report.photos, report.recovered, report.backup) == (12, None, None)


def test_repairing_where_the_catalog_is_lost_makes_none_and_keeps_the_generations(indexed, album):
    damage(indexed, "lost")
    with pytest.raises(LibraryNotFound, match="search rebuild"):
        indexed.check(repair=True)
    assert not Path(indexed.catalog.location, CATALOG_NAME).exists()
    assert indexed.rebuild().recovered == 12


def test_an_empty_file_in_the_catalogs_place_is_not_begun_anew_beside_generations(indexed, album):
    damage(indexed, "lost")
    Path(indexed.catalog.location, CATALOG_NAME).touch()
    with pytest.raises(DamagedLibrary, match="search rebuild"):
        indexed.index([album])
    assert numbers(indexed) == [1]
    assert indexed.rebuild().recovered == 12


def test_a_generation_that_is_missing_is_written_anew_by_the_next_run(indexed, album):
    shutil.rmtree(Path(indexed.catalog.location, "gen"))
    report = indexed.index([album])
    assert (report.encoded, report.unchanged) == (0, 12)
    assert len(numbers(indexed)) == 1
    assert indexed.check().ok


# ---- the kind of index


@pytest.fixture
def coded(library, album, make_photo, monkeypatch) -> Library:
    """A library of 20 photos, which takes itself to be large enough for codes."""
    monkeypatch.setattr("search.generations.manifest.LEAST", 20)
    monkeypatch.setattr("search.vectors.scan.FEW", 0)
    for number in range(8):
        make_photo(album / f"more{number}.png", 100 + number)
    library.index([album])
    library.rebuild(index="pq")
    return library


def kind(library: Library) -> tuple[str, str]:
    index = library.status().index
    return index["kind"], index["wanted"]


def test_large_libraries_get_codes_and_small_ones_none(coded, monkeypatch):
    coded.rebuild(index="auto")
    assert kind(coded) == ("exact", "auto")
    monkeypatch.setattr("search.generations.manifest.EXACT_UP_TO", 19)
    coded.rebuild()
    assert kind(coded) == ("pq", "auto")
    assert sorted(os.listdir(generation(coded))) == sorted([*FILES, "codes-1.pq"])
    assert coded._index.generations.problems(coded.catalog, full=True) == []
    monkeypatch.setattr("search.generations.manifest.CODES_UP_TO", 19)
    coded.rebuild()
    assert kind(coded) == ("ivf", "auto")
    assert sorted(os.listdir(generation(coded))) == sorted([*FILES, "codes-1.ivf"])
    assert coded.status().index["lists"] >= coded.status().index["probe"] > 0
    assert coded._index.generations.problems(coded.catalog, full=True) == []
    coded.rebuild(index="exact")
    assert kind(coded) == ("exact", "exact")
    assert sorted(os.listdir(generation(coded))) == FILES


@pytest.mark.parametrize("index", ["pq", "ivf"])
def test_codes_change_no_answer(coded, index):
    coded.rebuild(index=index)
    expected = brute(coded)
    assert answers(coded) == expected
    assert coded._index.live.of(coded.model.answering()).kind == index


def test_the_kind_asked_for_is_followed_by_later_generations(coded, album, make_photo):
    make_photo(album / "late.png", 900)
    make_photo(album / "later.png", 901)
    coded.index([album])
    assert (coded.status().index["generation"], kind(coded)) == (3, ("pq", "pq"))
    coded.rebuild(index="auto")
    assert kind(coded) == ("exact", "auto")


def test_codes_are_kept_until_there_are_twice_as_many(coded, album, make_photo, monkeypatch):
    from search.vectors.coarse import Codebook

    learned = []
    real = Codebook.learn.__func__
    monkeypatch.setattr(
        Codebook, "learn", classmethod(lambda cls, rows: learned.append(len(rows)) or real(cls, rows))
    )
    make_photo(album / "late.png", 900)
    make_photo(album / "later.png", 901)
    coded.index([album])
    assert learned == []
    with Generation(generation(coded)) as published:
        [row] = published.manifest.encoders
        assert (row.count, row.learned_from) == (22, 20)
    assert answers(coded) == brute(coded)
    for number in range(18):
        make_photo(album / f"yet_more{number}.png", 200 + number)
    coded.index([album])
    assert learned == [40]


@pytest.mark.parametrize(
    ("index", "how"), [("pq", "flip"), ("pq", "truncate"), ("pq", "delete"), ("pq", "extend"), ("ivf", "flip")]
)
def test_damaged_codes_cost_time_only(coded, told_of, index, how):
    coded.rebuild(index=index)
    expected = answers(coded)
    spoil(generation(coded) / f"codes-1.{index}", how)
    assert answers(coded) == expected
    assert coded._index.live.of(coded.model.answering()).kind == "exact"
    assert told_of(coded) == []
    [problem] = coded._index.generations.problems(coded.catalog, full=True)
    assert f"codes-1.{index}" in problem
    assert coded.check(repair=True).ok
    assert answers(coded) == expected
    assert coded._index.live.of(coded.model.answering()).kind == index


def test_lists_are_kept_until_there_are_twice_as_many_photos(coded, album, make_photo, monkeypatch):
    from search.vectors.lists import ListBook

    coded.rebuild(index="ivf")
    learned = []
    real = ListBook.learn.__func__
    monkeypatch.setattr(
        ListBook,
        "learn",
        classmethod(lambda cls, rows, lists: learned.append(len(rows)) or real(cls, rows, lists)),
    )
    make_photo(album / "late.png", 900)
    make_photo(album / "later.png", 901)
    coded.index([album])
    assert learned == []
    with Generation(generation(coded)) as published:
        [row] = published.manifest.encoders
        assert (row.kind, row.count, row.learned_from) == ("ivf", 22, 20)
    assert answers(coded) == brute(coded)
    for number in range(18):
        make_photo(album / f"yet_more{number}.png", 200 + number)
    coded.index([album])
    assert learned == [40]


def test_lists_that_can_not_be_are_refused(coded):
    coded.rebuild(index="ivf")
    with Generation(generation(coded)) as published:
        manifest = published.manifest
    for change in ({"probe": 0}, {"probe": 99}, {"lists": 2**60}, {"lists": -1}, {"kind": "hnsw"}):
        changed = dataclasses.replace(manifest, encoders=(dataclasses.replace(manifest.encoders[0], **change),))
        with pytest.raises(module.Unsound):
            module.Manifest.parse(changed.to_bytes())


@pytest.fixture
def told_of():
    """What a library told its user."""
    return lambda library: sorted(library._told)


def test_a_catalog_is_made_anew_beside_damaged_codes(coded):
    spoil(generation(coded) / "codes-1.pq", "flip")
    damage(coded, "lost")
    assert coded.rebuild().recovered == 20


def test_a_manifest_of_format_1_is_read_and_what_follows_it_is_new(indexed, album, make_photo):
    old = Generation(generation(indexed))
    with old:
        content = dataclasses.replace(old.manifest, format=1).to_bytes()
    assert set(json.loads(content)) == {
        *("number", "catalog", "seq", "created_at", "encoders", "files", "previous", "lacks", "keeps", "format"),
        "check",
    }
    assert set(json.loads(content)["encoders"][0]) == {"id", "name", "fingerprint", "dim", "count"}
    (generation(indexed) / "MANIFEST.json").write_bytes(content)
    indexed.close()
    with closing(sqlite3.connect(place(indexed) / CATALOG_NAME)) as connection, connection:
        values = (hashlib.sha256(content).hexdigest(),)
        connection.execute("UPDATE state SET generation_hash = ?", values)
    expected = brute(indexed)
    assert answers(indexed) == expected
    assert indexed._told == set()
    assert kind(indexed) == ("exact", "auto")
    make_photo(album / "late.png", 900)
    indexed.index([album])
    with Generation(generation(indexed)) as published:
        assert (published.manifest.format, published.manifest.previous) == (3, 1)


def test_a_manifest_of_format_2_is_read(coded):
    coded.rebuild(index="pq")
    with Generation(generation(coded)) as old:
        content = dataclasses.replace(old.manifest, format=2).to_bytes()
        assert "probe" not in json.loads(content)["encoders"][0]
        assert module.Manifest.parse(content).encoders == old.manifest.encoders


def test_the_first_search_after_publishing_reads_no_file_to_check_it(coded, monkeypatch):
    def never(path):
        raise AssertionError(f"{path} is read")

    coded.close()
    monkeypatch.setattr("search.generations.generation.sha256", never)
    assert len(coded.search("a wall", k=5)) == 5
    os.utime(generation(coded) / "vectors-1.f16")
    coded.close()
    with pytest.raises(AssertionError, match=r"vectors-1\.f16"):
        coded.search("a wall")


def test_vectors_are_searched_where_they_lie(coded, album, make_photo, monkeypatch):
    monkeypatch.setattr(Generations, "is_due", lambda *_, **__: False)
    make_photo(album / "late.png", 900)
    coded.index([album])
    coded.close()
    coded.search("a wall")
    index = coded._index.live.of(coded.model.answering())
    assert isinstance(index._halves, np.memmap)
    assert (len(index._ids), len(index._new), len(index)) == (20, 1, 21)


def test_a_query_asks_the_catalog_for_no_list_of_all_photos(indexed, monkeypatch):
    indexed.close()
    monkeypatch.delattr(CatalogReader, "all_ids")
    assert len(indexed.search("a wall", k=50)) == 12
