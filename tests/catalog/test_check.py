from __future__ import annotations

import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from search import Library
from search.catalog.rows import checksum
from search.catalog.storage import CATALOG_NAME
from search.errors import LibraryNotFound


def change(library, statement: str, *values) -> None:
    """Change the catalog behind the library's back, as a failing disk might."""
    library.close()
    with closing(sqlite3.connect(Path(library.catalog.location, CATALOG_NAME))) as connection, connection:
        connection.execute(statement, values)


def vector(library, photo_id: int) -> bytes:
    library.close()
    with closing(sqlite3.connect(Path(library.catalog.location, CATALOG_NAME))) as connection:
        return connection.execute("SELECT vector FROM embeddings WHERE photo_id = ?", (photo_id,)).fetchone()[0]


def kinds(report) -> list[str]:
    return [str(problem.kind) for problem in report.problems]


def test_a_whole_library_has_no_problems(library, album):
    library.index([album])
    report = library.check()
    assert report.ok
    assert library.check(repair=True).repaired == 0
    assert not list(Path(library.catalog.location).glob("*.bak"))


def test_every_flipped_bit_of_a_vector_is_found(library, album):
    library.index([album])
    whole = vector(library, 3)
    for bit in random.Random(0).sample(range(8 * len(whole)), 40):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        change(library, "UPDATE embeddings SET vector = ? WHERE photo_id = 3", bytes(damaged))
        [problem] = library.check().problems
        assert problem.kind == "vector_damaged"
        assert library.photo(3).path in problem.detail


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE embeddings SET vector = substr(vector, 1, 100) WHERE photo_id = 3",
        "UPDATE embeddings SET crc = crc + 1 WHERE photo_id = 3",
        # The vectors of two photos change places: each is whole, but not where it belongs.
        "UPDATE embeddings SET vector = (SELECT vector FROM embeddings WHERE photo_id = 4),"
        " crc = (SELECT crc FROM embeddings WHERE photo_id = 4) WHERE photo_id = 3",
    ],
)
def test_a_vector_that_is_not_what_was_written_is_found_and_answers_no_query(library, album, statement):
    library.index([album])
    change(library, statement)
    assert kinds(library.check()) == ["vector_damaged"]
    assert 3 in {hit.photo.id for hit in library.search("anything", k=50)}  # by its sound copy in the generation
    library.close()
    shutil.rmtree(Path(library.catalog.location, "gen"))
    assert 3 not in {hit.photo.id for hit in library.search("anything", k=50)}
    assert len(library.search("anything", k=50)) == 11


def test_repair_without_a_generation_drops_it_and_the_next_run_encodes_it_again(library, album):
    library.index([album])
    shutil.rmtree(Path(library.catalog.location, "gen"))
    before = {hit.photo.id: hit.score for hit in library.search("a wall", k=50)}
    change(library, "UPDATE embeddings SET crc = 0 WHERE photo_id IN (3, 5)")
    report = library.check(repair=True)
    assert (report.repaired, kinds(report)) == (2, ["vector_missing"])
    [backup] = Path(library.catalog.location).glob("catalog.db.*.bak")
    with closing(sqlite3.connect(backup)) as connection:
        assert connection.execute("SELECT count(*) FROM embeddings").fetchone() == (12,)
    assert library.index([album]).encoded == 2
    assert library.check().ok
    assert {hit.photo.id: hit.score for hit in library.search("a wall", k=50)} == pytest.approx(before, abs=1e-4)


def test_a_copied_photo_does_not_inherit_a_damaged_vector(library, album):
    library.index([album])
    change(library, "UPDATE embeddings SET crc = crc + 1 WHERE photo_id = 3")
    original = Path(library.photo(3).path)
    original.with_name("copy.png").write_bytes(original.read_bytes())
    assert library.index([album]).encoded == 1
    assert kinds(library.check()) == ["vector_damaged"]


def test_a_row_without_its_parent_is_found(library, album):
    library.index([album])
    change(library, "DELETE FROM photos WHERE id = 3")
    assert "catalog_damaged" in kinds(library.check())


def test_a_vector_that_is_whole_but_of_another_model_is_found(library, album):
    library.index([album])
    blob = np.array([1, 0, 0], "<f2").tobytes()
    change(library, "UPDATE embeddings SET vector = ?, crc = ? WHERE photo_id = 3", blob, checksum(blob, 3, 1))
    [problem, of_the_copy] = library.check().problems
    assert problem.detail.endswith("its vector has 3 numbers, not 256")
    assert of_the_copy.kind == "generation_damaged"  # it has another vector


def test_a_table_whose_statement_no_longer_reads_as_written_is_found(library, album):
    library.index([album])
    library.close()
    with closing(sqlite3.connect(Path(library.catalog.location, CATALOG_NAME))) as connection, connection:
        connection.execute("PRAGMA writable_schema = ON")
        changed = "replace(sql, 'CREATE TABLE', 'CREATE /**/ TABLE')"  # which SQLite takes for the same
        connection.execute(f"UPDATE sqlite_schema SET sql = {changed} WHERE name = 'skips'")
    assert [problem.detail for problem in library.check().problems] == [
        "the statements that made its tables are not what they were",
        "table skips is not kept under its own name",
    ]


def test_a_vector_that_was_never_made_is_found(library, album):
    library.index([album])
    change(library, "DELETE FROM embeddings WHERE photo_id = 3")
    report = library.check()
    assert [(problem.kind, problem.detail[:7]) for problem in report.problems] == [("vector_missing", "1 photo")]


def test_a_catalog_whose_making_was_cut_short_is_no_damage(tmp_path):
    (tmp_path / CATALOG_NAME).touch()
    with Library.open(tmp_path) as library, pytest.raises(LibraryNotFound, match="search index"):
        library.check()


def test_a_quick_look_at_a_whole_library_finds_nothing(library, album):
    library.index([album])
    assert library.catalog.problems(full=False) == ([], False)


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("UPDATE encoders SET dim = 7", ["row 1 of encoders is not what was written"]),
        ("UPDATE roots SET path = x'2f78'", ["row 1 of roots is not what was written"]),
        ("UPDATE jobs SET pid = -1", ["row 1 of jobs is not what was written"]),
        ("DELETE FROM state", ["the catalog's state is gone"]),
        ("DELETE FROM embeddings WHERE photo_id = 3", ["1 photo has no vector by the model that answers"]),
        ("UPDATE embeddings SET crc = 0", []),  # that takes reading every vector
        ("DROP TABLE alembic_version", ["its tables are gone"]),
    ],
)
def test_a_quick_look_finds_what_is_wrong_with_small_tables_and_misses_what_takes_reading_all(
    library, album, statement, found
):
    library.index([album])
    change(library, statement)
    problems, full = library.catalog.problems(full=False)
    assert ([problem.detail for problem in problems], full) == (found, False)


def test_a_changed_schema_is_found_and_left_to_rebuild(library, album):
    library.index([album])
    library.close()
    with closing(sqlite3.connect(Path(library.catalog.location, CATALOG_NAME))) as connection, connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_schema SET sql = sql || ' ' WHERE name = 'skips'")
    [problem] = library.catalog.problems(full=True)[0]
    assert "the statements that made its tables are not what they were" in problem.detail
    assert "search rebuild" in problem.loss
