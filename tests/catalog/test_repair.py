"""Repair: what it restores, what it drops, what it leaves alone."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import create_engine

from search import failpoints
from search.catalog import snapshot
from search.catalog.copies import CatalogCopy
from search.catalog.repair import back_up
from search.catalog.rows import HeadRow, SidecarRow, checksum
from search.catalog.storage import CATALOG_NAME
from search.errors import DamagedLibrary
from search.types import LabelledPhoto, LabelScore, RunKind


class Killed(BaseException):
    """The process ends here."""


@dataclass(frozen=True)
class Copied:
    """A copy of the catalog as a generation keeps it."""

    rows_path: Path
    published: tuple[int, int, str] | None = None
    others: tuple[Copied, ...] = ()

    def vectors(self, encoder_id: int):
        with closing(sqlite3.connect(f"{self.rows_path}.vectors")) as connection:
            query = "SELECT photo_id, vector FROM embeddings WHERE encoder_id = ? ORDER BY photo_id"
            rows = connection.execute(query, (encoder_id,)).fetchall()
        if not rows:
            raise KeyError(encoder_id)
        return np.array([id_ for id_, _ in rows]), np.frombuffer(b"".join(v for _, v in rows), "<f2").reshape(
            12, -1
        )


def change(library, *statements: str) -> None:
    """Change the catalog behind the library's back, as a failing disk might."""
    library.close()
    with closing(sqlite3.connect(Path(library.catalog.location, CATALOG_NAME))) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def dump(library) -> dict[str, list[tuple]]:
    """All rows but those that count commits, without seals."""
    library.close()
    with closing(sqlite3.connect(Path(library.catalog.location, CATALOG_NAME))) as connection:
        tables = (
            "roots",
            "encoders",
            "labels",
            "runs",
            "verdicts",
            "sidecars",
            "heads",
            "skips",
            "jobs",
            "embeddings",
            "alembic_version",
            "sqlite_sequence",
        )
        found = {name: sorted(connection.execute(f"SELECT * FROM {name}")) for name in tables}
        found["photos"] = connection.execute(
            "SELECT id, root_id, path, size_bytes, mtime_ns, content_hash, width, camera FROM photos ORDER BY id"
        ).fetchall()
        found["state"] = connection.execute("SELECT uuid, encoder_id, format, schema_crc FROM state").fetchall()
    return found


@pytest.fixture
def copied(library, album, tmp_path) -> Copied:
    """The library, indexed and labelled, and its copy."""
    library.index([album])
    with library.catalog.writing() as writer:
        labelled = [LabelledPhoto("", (LabelScore("a wall", 0.9, 0.3),), id_) for id_ in range(1, 13)]
        writer.put_labels(labelled, ["sky"], source="zero-shot", encoder_id=1)
        with writer.run(RunKind.LABEL, encoder_id=1) as run:
            run.propose([LabelledPhoto("", (LabelScore("sky", 0.9, 0.3),), 3)], ["sky"], encoder_id=1)
        with writer.run(RunKind.ACCEPT) as run:
            run.judge([(3, "sky", True), (4, "a wall", False)])
        writer.put_sidecars([SidecarRow(3, b"photo.xmp", b"before", bytes(32), "[]")])
        writer.put_heads(1, [HeadRow("sky", bytes(8), 0.5, None, None, 2, {}, datetime(2024, 1, 2))])  # noqa: DTZ001
    library.close()
    with closing(sqlite3.connect(Path(library.catalog.location, CATALOG_NAME))) as connection:
        connection.execute("VACUUM INTO ?", (str(tmp_path / "rows.db"),))
        connection.execute("VACUUM INTO ?", (str(tmp_path / "rows.db.vectors"),))
    with closing(sqlite3.connect(tmp_path / "rows.db")) as connection, connection:
        connection.execute("DELETE FROM embeddings")
    return Copied(tmp_path / "rows.db")


ROWS = [
    "UPDATE photos SET camera = 'x' WHERE id = 3",
    "UPDATE photos SET path = x'ff00', taken_at = 'no date' WHERE id = 3",
    "UPDATE photos SET content_hash = 'text' WHERE id = 3",
    "UPDATE photos SET crc = 5.5 WHERE id = 3",
    "UPDATE photos SET crc = NULL WHERE id = 3",
    "UPDATE roots SET path = x'2f6e6f7768657265'",
    "UPDATE encoders SET dim = 7",
    "UPDATE encoders SET name = CAST(x'fffe' AS TEXT)",
    "UPDATE labels SET score = 0.5 WHERE photo_id = 3",
    "UPDATE state SET uuid = 'x'",
    "UPDATE state SET encoder_id = 9",
    "UPDATE embeddings SET vector = 'text' WHERE photo_id = 3",
    "UPDATE embeddings SET vector = zeroblob(1024) WHERE photo_id = 3",
    "UPDATE embeddings SET crc = 'text' WHERE photo_id = 3",
    "DELETE FROM photos WHERE id = 3",
    "DELETE FROM roots",
    "DELETE FROM encoders",
    "DELETE FROM state",
    "UPDATE sqlite_sequence SET seq = 3 WHERE name = 'photos'",
    "DELETE FROM sqlite_sequence",
]


@pytest.mark.parametrize("damage", ROWS)
def test_what_a_generation_has_is_restored(library, copied, damage):
    before = dump(library)
    change(library, damage)
    problems, _ = library.catalog.problems(copy=copied)
    assert problems
    assert all(problem.loss.startswith(("nothing is lost", "mended")) for problem in problems), problems
    repaired, backup = library.catalog.repair(copied)
    assert repaired
    assert Path(backup).is_file()
    assert library.catalog.problems(copy=copied)[0] == []
    assert dump(library) == before
    assert library.catalog.repair(copied) == (0, None)


@pytest.mark.parametrize(
    ("damage", "left"),
    [
        ("INSERT INTO sqlite_sequence VALUES ('runs', 'x')", []),
        ("INSERT INTO sqlite_sequence VALUES ('stranger', 3)", []),
        ("INSERT INTO sqlite_sequence VALUES ('runs', 3)", [("runs", 3)]),  # whose runs may have been removed
    ],
)
def test_a_counter_of_ids_that_can_not_be_is_removed(library, album, damage, left):
    library.index([album])
    change(library, damage)
    assert library.catalog.repair()[0] == (0 if left else 1)
    counters = dict(dump(library)["sqlite_sequence"])
    assert counters == {"photos": 12, "jobs": 1, **dict(left)}


def test_a_copy_in_the_catalogs_place_hands_its_vectors_out_once(library, copied):
    with closing(CatalogCopy(library.catalog.location, copied.rows_path, copied.vectors)) as copy:
        encoder = library.catalog.encoder()
        with copy.changes(encoder, 0) as changes:
            assert changes.rebuild
            assert sum(len(ids) for ids, _ in changes.added) == changes.photos == 12
        with copy.changes(encoder, copy.sequence()) as changes:
            assert not changes.rebuild
            assert list(changes.added) == []
            assert changes.photos == 12


@pytest.mark.parametrize("damage", ROWS[::3])
def test_without_a_copy_repair_leaves_nothing_that_it_could_mend(library, copied, album, damage):
    change(library, damage)
    library.check(repair=True)
    again = library.check(repair=True)
    assert again.repaired == 0
    if not any("rebuild" in problem.loss for problem in again.problems):
        library.index([album])
        assert library.check().ok


OF_LABELS = [
    "UPDATE labels SET rejected = NOT rejected WHERE photo_id = 4",
    "UPDATE runs SET kind = 'accept', undone_at = started_at WHERE id = 1",
    "UPDATE verdicts SET accepted = NOT accepted",
    "DELETE FROM runs",
    "UPDATE sidecars SET before = x'00'",
    "UPDATE heads SET bias = 'text'",
    "UPDATE sqlite_sequence SET seq = 1 WHERE name = 'runs'",
]


def test_what_a_generation_has_of_labels_is_restored(library, copied):
    before = dump(library)
    for damage in OF_LABELS:
        change(library, damage)
        problems, _ = library.catalog.problems(copy=copied)
        assert problems, damage
        assert all(problem.loss.startswith(("nothing is lost", "mended")) for problem in problems), problems
        assert library.catalog.repair(copied)[0]
        assert library.catalog.problems(copy=copied)[0] == []
        assert dump(library) == before, damage


@pytest.mark.parametrize("damage", ["UPDATE runs SET kind = 'x'", "DELETE FROM runs"])
def test_a_run_that_no_copy_has_can_be_undone_by_its_number(library, copied, damage):
    change(library, damage)
    assert any("run" in problem.loss for problem in library.catalog.problems()[0])
    library.check(repair=True)
    assert library.check().ok
    assert [run.kind for run in library.tags.runs()] == ["unknown", "unknown"]
    assert (library.tags.undo(2).verdicts, library.tags.undo(1).labels) == (2, 1)
    assert {label for photo in library.catalog.get(range(1, 13)) for label in photo.labels} == {"a wall"}


def test_a_verdict_that_is_lost_counts_no_more(library, copied):
    change(library, "UPDATE verdicts SET created_at = 'x' WHERE photo_id = 4")
    [problem] = library.catalog.problems()[0]
    assert problem.loss == "what was said of 1 label of 1 photo"
    library.catalog.repair()
    assert library.photo(4).labels == ("a wall",)
    assert library.check().ok


def test_a_photo_that_changed_since_the_copy_is_not_restored_to_what_it_was(library, copied, album, make_photo):
    path = Path(library.photo(3).path)
    make_photo(path, 99)
    library.index([album])
    now = library.photo(3).content_hash
    change(library, "UPDATE photos SET camera = 'x' WHERE id = 3")
    [problem] = library.catalog.problems(copy=copied)[0]
    assert problem.loss.startswith("1 photo to encode again")
    assert (problem.id, problem.path) == (3, str(path))
    library.catalog.repair(copied)
    assert library.index([album]).added == 1
    assert library.photo(path).content_hash == now
    assert library.check().ok


def test_a_photo_that_lies_elsewhere_now_is_not_put_back_where_it_was(library, copied, album):
    path = Path(library.photo(3).path)
    path.rename(path.with_name("moved.png"))
    library.index([album])
    assert library.photo(3).path == str(path.with_name("moved.png"))
    change(library, "UPDATE photos SET crc = NULL WHERE id = 3")
    [problem] = library.catalog.problems(copy=copied)[0]
    assert problem.loss.startswith("1 photo to encode again")
    library.catalog.repair(copied)
    library.index([album])
    assert library.photo(path.with_name("moved.png")).id
    assert library.check().ok


def test_a_vector_that_the_copy_has_no_better_is_made_anew(library, copied, album):
    nothing = np.full(256, np.nan, "<f2").tobytes()
    broken = (
        f"UPDATE embeddings SET vector = x'{nothing.hex()}', crc = {checksum(nothing, 3, 1)} WHERE photo_id = 3"
    )
    change(library, broken)
    with closing(sqlite3.connect(f"{copied.rows_path}.vectors")) as connection, connection:
        connection.execute(broken)
    [problem] = library.catalog.problems(copy=copied)[0]
    assert problem.loss == "1 photo to encode again"
    library.catalog.repair(copied)
    assert library.index([album]).encoded == 1
    assert library.check().ok


@pytest.mark.parametrize("moment", ["repair.backed_up", "repair.restored", "commit.sealed"])
def test_a_repair_cut_short_changes_nothing(library, copied, moment):
    change(library, "UPDATE photos SET camera = 'x' WHERE id = 3", "UPDATE state SET uuid = 'x'")
    before = dump(library)

    def die(name: str) -> None:
        if name == moment:
            raise Killed

    failpoints.arm(die)
    try:
        with pytest.raises(Killed):
            library.catalog.repair(copied)
    finally:
        failpoints.arm(None)
    assert dump(library) == before
    assert library.catalog.repair(copied)[0] == 2
    assert library.check().ok


def test_originals_are_as_they_were(library, copied, album):
    def look() -> list[tuple]:
        files = sorted(path for path in album.rglob("*") if path.is_file())
        return [(path, path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_mode) for path in files]

    for path in album.rglob("*.png"):
        path.chmod(0o400)
    before = look()
    change(library, "UPDATE photos SET camera = 'x'", "UPDATE embeddings SET crc = 0")
    library.check(repair=True)
    library.check_photos(content=True)
    assert look() == before


def test_a_job_that_did_not_end_is_told_and_no_problem(library, copied):
    with library.catalog.writing() as writer:
        writer.begin_job("index")
    report = library.check()
    assert report.ok
    assert report.facts["last_job"] == "interrupted"


def test_a_catalog_whose_pages_are_damaged_is_left_to_rebuild(library, copied):
    library.close()
    path = Path(library.catalog.location, CATALOG_NAME)
    damaged = bytearray(path.read_bytes())
    damaged[16384 * 2 : 16384 * 2 + 64] = os.urandom(64)
    path.write_bytes(damaged)
    report = library.check(repair=True)
    assert report.repaired == 0
    assert any("search rebuild" in problem.loss for problem in report.problems)
    assert path.read_bytes() == damaged


@pytest.mark.parametrize("content", [b"", b"not a database" * 100])
def test_a_file_that_is_no_catalog_is_a_problem_not_an_error(library, copied, content):
    library.close()
    Path(library.catalog.location, CATALOG_NAME).write_bytes(content)
    assert {str(problem.kind) for problem in library.check(repair=True).problems} == {"catalog_damaged"}


ENCODER = "SELECT 2, name || 'x', fingerprint || 'x', {rest} FROM encoders WHERE id = 1"
WITHOUT_COPY = [
    ("UPDATE roots SET crc = 0", "album is there", True),
    ("UPDATE roots SET path = x'2f6e6f7768657265'", "search rebuild", False),
    ("DELETE FROM roots", "search rebuild", False),
    ("UPDATE encoders SET dim = 7", "search rebuild", False),
    ("INSERT INTO encoders ANOTHER", "nothing is lost: no photo has a vector by it", True),
    ("INSERT INTO sqlite_sequence VALUES ('ghost', 3)", "nothing is lost: it is set anew", True),
]


@pytest.mark.parametrize(("damage", "loss", "mended"), WITHOUT_COPY)
def test_what_is_lost_without_a_copy(library, album, damage, loss, mended):
    library.index([album])
    with library.catalog._reading() as session:
        names = [row[1] for row in session.rows("PRAGMA table_info(encoders)")]
    rest = ", ".join(name for name in names if name not in ("id", "name", "fingerprint"))
    another = f"(id, name, fingerprint, {rest}) {ENCODER.format(rest=rest)}"
    change(library, damage.replace("ANOTHER", another))
    problems = library.catalog.problems(full=True)[0]
    assert any(loss in problem.loss for problem in problems), problems
    library.catalog.repair()
    left = library.catalog.problems(full=True)[0]
    assert not any(loss in problem.loss for problem in left) if mended else left
    assert (left == []) is mended


def test_a_revision_whose_index_says_another_is_set_anew(library, album):
    library.index([album])
    library.close()
    path = Path(library.catalog.location, CATALOG_NAME)
    with closing(sqlite3.connect(path)) as connection, connection:
        (here,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = path.read_bytes()
    other = here[:-1] + "~"
    path.write_bytes(content.replace(here.encode(), other.encode(), 1))
    problems = library.catalog.problems(full=True)[0]
    assert "nothing is lost: it is set anew" in [problem.loss for problem in problems], problems
    assert library.catalog.repair()[0]
    assert library.catalog.problems(full=True)[0] == []


def test_a_catalog_that_can_not_be_read_is_backed_up_byte_by_byte(library, copied, tmp_path):
    library.close()
    path = Path(library.catalog.location, CATALOG_NAME)
    content = bytearray(path.read_bytes())
    content[16384 * 3 : 16384 * 4] = bytes(range(256)) * 64
    path.write_bytes(content)
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        back_up(connection, str(tmp_path / "backup"))
    engine.dispose()
    assert (tmp_path / "backup").read_bytes()[: len(content)] == content


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM photos WHERE id = 3",
        "UPDATE embeddings SET vector = 'text' WHERE photo_id = 3",
        "UPDATE embeddings SET crc = 0 WHERE photo_id = 3",
    ],
)
def test_a_snapshot_tells_what_it_lacks_and_leaves_it_out(library, copied, tmp_path, damage):
    change(library, damage)
    folder = Path(library.catalog.location)
    with snapshot.take(folder, tmp_path / "snapshot.db") as taken:
        [encoder] = taken.encoders
        ids = np.concatenate([ids for ids, _ in taken.vectors(encoder)]).tolist()
        assert taken.lacks
    assert set(range(1, 13)) - set(ids) <= {3}
    assert (3 in ids) == damage.startswith("DELETE FROM photos")


def test_a_catalog_is_not_made_anew_of_rows_that_are_not_whole(library, copied):
    folder = Path(library.catalog.location)
    library.close()
    before = (folder / CATALOG_NAME).read_bytes()
    with closing(sqlite3.connect(copied.rows_path)) as connection, connection:
        connection.execute("DELETE FROM photos WHERE id = 3")
    vectors = [(1, *copied.vectors(1))]
    with pytest.raises(DamagedLibrary, match=r"is not whole \(a row of \w+ has no parent\)"):
        snapshot.restore(folder, copied.rows_path, vectors, number=1, seq=1, manifest_hash="")
    assert (folder / CATALOG_NAME).read_bytes() == before
