"""A catalog of every schema ever shipped opens, or says what to do."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import select

from search.catalog import Catalog
from search.catalog.schema import metadata, state
from search.catalog.seals import SEALED, row_checksum, schema_checksum
from search.catalog.snapshot import restore
from search.catalog.storage import CATALOG_NAME, Storage
from search.catalog.versions import FORMAT, HISTORY
from search.errors import LibraryError, LibraryNotFound, NewerLibrary, OldLibrary
from search.resources import data_path, migrations_path
from search.types import Filter, ProblemKind


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "library"


def put_catalog(folder: Path, revision: str) -> None:
    """Restore the kept catalog of one schema: one photo with a vector, as that version wrote it."""
    folder.mkdir()
    with closing(sqlite3.connect(folder / CATALOG_NAME)) as connection:
        connection.executescript(data_path("catalogs", f"{revision}.sql").read_text())


def test_history_is_what_migrations_holds():
    script = ScriptDirectory(str(migrations_path()))
    shipped = [revision.revision for revision in script.walk_revisions()]
    assert tuple(reversed(shipped)) == HISTORY


def test_every_schema_but_the_newest_is_kept_for_this_test():
    kept = {path.stem for path in data_path("catalogs").glob("*.sql")}
    assert kept == set(HISTORY[:-1])


@pytest.mark.parametrize("revision", HISTORY[:-1])
def test_an_old_catalog_is_refused_with_the_command_that_upgrades_it(folder, revision):
    put_catalog(folder, revision)
    with pytest.raises(OldLibrary, match="run 'search upgrade'"):
        Catalog(str(folder)).count()


@pytest.mark.parametrize("revision", HISTORY[:-1])
def test_an_upgraded_catalog_keeps_photos_and_vectors(folder, revision):
    put_catalog(folder, revision)
    catalog = Catalog(str(folder))
    assert catalog.upgrade() == revision
    [photo] = catalog.get([1])
    assert photo.path == "/photos/trip/cat.jpg"
    assert photo.info.camera == "Canon EOS 5D"
    encoder = catalog.encoder()
    assert encoder is not None
    ids, vectors = catalog.embeddings(encoder, [1])
    assert ids.tolist() == [1]
    assert vectors.tolist() == [[1.0, 0.0, -0.5, 0.25]]
    assert (folder / f"{CATALOG_NAME}.{revision}.bak").is_file()


def test_upgrading_ends_at_the_schema_that_new_catalogs_have(folder):
    put_catalog(folder, HISTORY[0])
    Catalog(str(folder)).upgrade()
    with Storage(str(folder)).writing() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_upgrading_a_new_catalog_changes_nothing(folder):
    catalog = Catalog(str(folder))
    catalog.create()
    assert catalog.upgrade() == HISTORY[-1]
    assert not list(folder.glob("*.bak"))


def make_newer(folder: Path, min_reader: int, revision: str = "9999") -> None:
    """Leave a catalog as a newer version would, its last commits still in the log."""
    made = folder.with_name("made")
    Catalog(str(made)).create()
    with closing(sqlite3.connect(made / CATALOG_NAME)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", [revision])
        connection.execute("UPDATE state SET seq = 7, format = 4, min_reader = ?", [min_reader])
        connection.commit()
        folder.mkdir()
        for name in (CATALOG_NAME, f"{CATALOG_NAME}-wal"):
            shutil.copy(made / name, folder / name)


def contents(folder: Path) -> dict[str, str]:
    """The bytes of a catalog and its log, as checksums."""
    paths = [path for path in folder.iterdir() if path.name in {CATALOG_NAME, f"{CATALOG_NAME}-wal"}]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def test_a_newer_catalog_is_refused_and_left_as_it_was(folder):
    make_newer(folder, min_reader=FORMAT + 1)
    before = contents(folder)
    catalog = Catalog(str(folder))
    for act in (catalog.count, catalog.upgrade, catalog.writing().__enter__):
        with pytest.raises(NewerLibrary, match="9999"):
            act()
    catalog.close()
    assert contents(folder) == before
    assert set(before) == {CATALOG_NAME, f"{CATALOG_NAME}-wal"}


@pytest.mark.parametrize("revision", ["9999", HISTORY[-1]])
def test_a_newer_catalog_that_this_version_can_read_is_read_and_never_written(folder, revision):
    make_newer(folder, min_reader=FORMAT, revision=revision)
    before = contents(folder)
    said: list[str] = []
    catalog = Catalog(str(folder), notify=said.append)
    catalog.create()
    assert catalog.sequence() == 7
    assert catalog.is_newer
    for act in (catalog.upgrade, catalog.writing().__enter__):
        with pytest.raises(NewerLibrary, match="format 4"):
            act()
    catalog.close()
    assert contents(folder) == before
    assert len(said) == 1
    assert "newer version" in said[0]


def test_a_newer_catalog_that_does_not_say_who_can_read_it_is_refused(folder):
    make_newer(folder, min_reader=FORMAT)
    with closing(sqlite3.connect(folder / CATALOG_NAME)) as connection:
        connection.executescript("ALTER TABLE state RENAME COLUMN min_reader TO renamed")
    with pytest.raises(NewerLibrary):
        Catalog(str(folder)).count()


def test_a_missing_library_is_not_made_by_looking(folder):
    with pytest.raises(LibraryNotFound, match="search index"):
        Catalog(str(folder)).count()
    assert not folder.exists()


def test_every_row_of_an_upgraded_catalog_is_sealed(folder):
    put_catalog(folder, HISTORY[-2])
    Catalog(str(folder)).upgrade()
    with Storage(str(folder)).examining() as connection:
        for table in SEALED:
            query = select(table.c.crc, row_checksum(table))
            rows = connection.execute(query).all()
            assert all(kept == computed is not None for kept, computed in rows), table.name
        assert connection.execute(select(state.c.schema_crc)).scalar_one() == schema_checksum(connection)


def test_an_upgrade_does_not_sign_a_damaged_photo(folder):
    put_catalog(folder, "0004")
    with closing(sqlite3.connect(folder / CATALOG_NAME)) as connection, connection:
        connection.execute("UPDATE photos SET camera = 'Canon EOS 5E'")
    catalog = Catalog(str(folder))
    catalog.upgrade()
    found = [problem.id for problem in catalog.problems(full=True)[0] if problem.kind is ProblemKind.ROW_DAMAGED]
    assert found == [1]


@pytest.mark.parametrize("revision", HISTORY[2:-1])  # of those before there are no copies
def test_a_catalog_made_anew_from_an_older_copy_can_be_upgraded(folder, revision):
    put_catalog(folder, revision)
    (folder / CATALOG_NAME).rename(folder / "rows.db")
    restore(folder, folder / "rows.db", [], number=1, seq=1, manifest_hash="0" * 64)
    catalog = Catalog(str(folder))
    with pytest.raises(OldLibrary):
        catalog.count()
    assert catalog.upgrade() == revision
    assert catalog.get([1])[0].info.camera == "Canon EOS 5D"


def test_what_photos_of_an_older_catalog_say_of_themselves_is_to_be_read(folder):
    put_catalog(folder, "0004")
    catalog = Catalog(str(folder))
    catalog.upgrade()
    [photo] = catalog.get([1])
    assert (photo.info.rating, photo.info.keywords, catalog.pictures(1)) == (None, (), [])
    with Storage(str(folder)).examining() as connection:
        assert connection.exec_driver_sql("SELECT reader FROM photos").scalars().all() == [None]


def test_labels_of_an_older_catalog_belong_to_no_run_and_are_found(folder):
    put_catalog(folder, "0005")
    catalog = Catalog(str(folder))
    catalog.upgrade()
    records = {record.label: (record.source, record.run, record.rejected) for record in catalog.labels_of([1])[1]}
    assert records == {
        "a cat": ("zero-shot", None, False),
        "animal": ("file", None, False),
        "animal/cat": ("file", None, False),
        "cat": ("zero-shot", None, False),
    }
    assert catalog.select(Filter(labels=("animal/cat",))).tolist() == [1]
    assert (catalog.runs(), catalog.verdicts()) == ([], [])


def test_an_upgrade_does_not_sign_a_damaged_label(folder):
    put_catalog(folder, "0005")
    with closing(sqlite3.connect(folder / CATALOG_NAME)) as connection, connection:
        connection.execute("UPDATE labels SET score = 0.5 WHERE label = 'a cat'")
    catalog = Catalog(str(folder))
    catalog.upgrade()
    found = [problem for problem in catalog.problems(full=True)[0] if problem.kind is ProblemKind.ROW_DAMAGED]
    assert ["labels" in problem.detail for problem in found] == [True]


# Tries to upgrade copies of a catalog in processes of their own, each killed somewhere: `kill.py CATALOG TRIALS`.
# The first two die at the failpoints, the rest at moments spread over the time that an upgrade takes.
KILLER = """
import os, random, shutil, signal, sys, time
from pathlib import Path
import alembic.command, alembic.config, sqlalchemy.dialects.sqlite
from search import failpoints
from search.catalog import Catalog

source, trials = Path(sys.argv[1]), int(sys.argv[2])
chance = random.Random(3)

def start(folder, die_at=None):
    shutil.copytree(source, folder)
    pid = os.fork()
    if pid == 0:
        failpoints.arm(lambda name: os.kill(os.getpid(), signal.SIGKILL) if name == die_at else None)
        try:
            Catalog(str(folder)).upgrade()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return pid

started = time.monotonic()
assert os.waitpid(start(source.with_name("whole")), 0)[1] == 0
took = time.monotonic() - started
for number, name in enumerate(("upgrade.backed_up", "upgrade.migrated")):
    _, status = os.waitpid(start(source.with_name(f"killed{number}"), name), 0)
    assert os.WTERMSIG(status) == signal.SIGKILL, name
for number in range(2, trials):
    pid = start(source.with_name(f"killed{number}"))
    time.sleep(took * chance.random())
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
@pytest.mark.parametrize("trials", [8, pytest.param(40, marks=pytest.mark.slow)])
@pytest.mark.parametrize("revision", HISTORY[:-1])
def test_f53_an_upgrade_killed_at_any_point_leaves_the_old_catalog_or_the_new(folder, revision, trials):
    put_catalog(folder, revision)
    before = kept(folder / CATALOG_NAME, revision)
    subprocess.run([sys.executable, "-c", KILLER, str(folder), str(trials)], check=True)
    found = []
    for number in range(trials):
        killed = folder.with_name(f"killed{number}")
        backup = killed / f"{CATALOG_NAME}.{revision}.bak"
        if backup.exists():
            assert kept(backup, revision) == before
        with Storage(str(killed)).examining() as connection:
            found.append(connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar())
        catalog = Catalog(str(killed))
        assert catalog.upgrade() == found[-1]
        catalog.close()
        assert kept(killed / CATALOG_NAME, HISTORY[-1]) == before
        assert not list(killed.glob("*.part"))
    assert found[:2] == [revision, revision]
    assert set(found) <= {revision, HISTORY[-1]}


def kept(path: Path, revision: str) -> list[list[tuple]]:
    """Photos, vectors and labels of a catalog that is whole and has this revision."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(revision,)]
        queries = (
            "SELECT id, path, camera, content_hash FROM photos",
            "SELECT photo_id, vector, crc FROM embeddings",
            "SELECT photo_id, label, source FROM labels" if revision > "0001" else "SELECT 1 WHERE 0",
        )
        return [connection.execute(query).fetchall() for query in queries]


@pytest.mark.parametrize(
    "left_behind",
    ["", "PRAGMA page_size = 16384; PRAGMA journal_mode = WAL", "BEGIN; CREATE TABLE photos (id); ROLLBACK"],
    ids=["empty", "header", "rolled back"],
)
def test_a_catalog_whose_making_was_cut_short_is_made_anew(folder, left_behind):
    folder.mkdir()
    with closing(sqlite3.connect(folder / CATALOG_NAME, isolation_level=None)) as connection:
        connection.executescript(left_behind)
    (folder / CATALOG_NAME).touch()
    with pytest.raises(LibraryNotFound):
        Catalog(str(folder)).count()
    catalog = Catalog(str(folder))
    catalog.create()
    assert catalog.count() == 0


def test_an_upgrade_of_nothing_names_what_is_not_there(folder):
    with pytest.raises(LibraryNotFound):
        Catalog(str(folder)).upgrade()
    folder.mkdir()
    with closing(sqlite3.connect(folder / CATALOG_NAME)) as connection, connection:
        connection.execute("CREATE TABLE notes (id INTEGER)")
    with pytest.raises(LibraryError, match="holds no catalog"):
        Catalog(str(folder)).upgrade()


def test_an_upgrade_of_the_newest_schema_changes_nothing(folder):
    catalog = Catalog(str(folder))
    catalog.create()
    catalog.create()
    assert catalog.upgrade() == HISTORY[-1]
    assert not list(folder.glob("*.bak"))


def test_a_newer_catalog_that_does_not_say_its_format_is_refused(folder):
    catalog = Catalog(str(folder))
    catalog.create()
    catalog.close()
    with closing(sqlite3.connect(folder / CATALOG_NAME)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.execute("DELETE FROM state")
    with pytest.raises(NewerLibrary):
        Catalog(str(folder)).count()
    with pytest.raises(NewerLibrary):
        Catalog(str(folder)).upgrade()
