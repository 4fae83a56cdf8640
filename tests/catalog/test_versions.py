"""A catalog of every schema ever shipped opens, or says what to do."""

from __future__ import annotations

import hashlib
import sqlite3
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
from search.catalog.storage import CATALOG_NAME, Storage
from search.catalog.versions import HISTORY
from search.errors import LibraryNotFound, NewerLibrary, OldLibrary
from search.resources import data_path, migrations_path


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


def test_a_newer_catalog_is_refused_and_left_as_it_was(folder):
    Catalog(str(folder)).create()
    path = folder / CATALOG_NAME
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(NewerLibrary, match="9999"):
        Catalog(str(folder)).count()
    with pytest.raises(NewerLibrary):
        Catalog(str(folder)).upgrade()
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before


def test_a_missing_library_is_not_made_by_looking(folder):
    with pytest.raises(LibraryNotFound, match="search index"):
        Catalog(str(folder)).count()
    assert not folder.exists()


def test_every_row_of_an_upgraded_catalog_is_sealed(folder):
    put_catalog(folder, HISTORY[-2])
    Catalog(str(folder)).upgrade()
    with Storage(str(folder)).reading() as connection:
        for table in SEALED:
            query = select(table.c.crc, row_checksum(table))
            rows = connection.execute(query).all()
            assert all(kept == computed is not None for kept, computed in rows), table.name
        assert connection.execute(select(state.c.schema_crc)).scalar_one() == schema_checksum(connection)
