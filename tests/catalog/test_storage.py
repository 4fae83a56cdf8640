from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from search.catalog import Catalog
from search.catalog.storage import CATALOG_NAME, Storage
from search.errors import LibraryError, StorageError


@pytest.fixture
def catalog(tmp_path):
    catalog = Catalog(str(tmp_path / "library"))
    catalog.create()
    yield catalog
    catalog.close()


def pragma(connection, name: str):
    return connection.exec_driver_sql(f"PRAGMA {name}").scalar()


def test_a_commit_survives_a_power_cut_by_settings(catalog):
    with Storage(catalog.location).writing() as connection:
        assert pragma(connection, "journal_mode") == "wal"
        assert pragma(connection, "synchronous") == 2  # FULL
        assert pragma(connection, "page_size") == 16384
        assert pragma(connection, "foreign_keys") == 1


def test_readers_cannot_write(catalog):
    with Storage(catalog.location).reading() as connection, pytest.raises(Exception, match="readonly"):
        connection.exec_driver_sql("UPDATE state SET seq = 99")


def test_a_failed_transaction_leaves_nothing(catalog):
    with pytest.raises(ZeroDivisionError), catalog.writing() as writer:
        writer.add_source("/photos", is_folder=True)
        with writer._connection.begin():
            writer._connection.exec_driver_sql("INSERT INTO roots (path) VALUES (x'00')")
            raise ZeroDivisionError
    assert [root.path for root in catalog.root_status()] == ["/photos"]


def test_a_library_where_a_file_is_cannot_be_made(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(StorageError, match="taken"):
        Catalog(str(tmp_path / "taken")).create()


def test_a_catalog_that_is_no_database_is_named(tmp_path):
    (tmp_path / CATALOG_NAME).write_bytes(b"not a database, but long enough to be looked at" * 400)
    with pytest.raises(LibraryError, match="not a database"):
        Catalog(str(tmp_path)).count()


def test_places_with_odd_names_are_opened(tmp_path):
    catalog = Catalog(str(tmp_path / "a library? 100% #1"))
    catalog.create()
    assert catalog.count() == 0


def test_reading_goes_on_while_another_writes(catalog):
    with Storage(catalog.location).writing() as connection, connection.begin():
        connection.exec_driver_sql("UPDATE state SET seq = 7")
        assert catalog.sequence() == 0
    assert catalog.sequence() == 7


def test_vectors_are_half_precision_with_a_checksum(catalog, tmp_path):
    with closing(sqlite3.connect(tmp_path / "library" / CATALOG_NAME)) as connection:
        columns = {row[1]: row[2] for row in connection.execute("PRAGMA table_info(embeddings)")}
    assert columns == {"encoder_id": "INTEGER", "photo_id": "INTEGER", "vector": "BLOB", "crc": "BIGINT"}


def test_a_url_names_any_database(tmp_path):
    catalog = Catalog(f"sqlite:///{tmp_path / 'by-url.db'}")
    catalog.create()
    with catalog.writing() as writer:
        writer.add_source("/photos", is_folder=True)
    assert [root.path for root in catalog.root_status()] == ["/photos"]
    catalog.close()


@pytest.mark.parametrize("url", ["nosuch://x/y", "://", "sqlite+nosuch:///x"])
def test_a_url_without_a_driver_is_one_clear_error(url):
    with pytest.raises(LibraryError, match="can't open a database"):
        Catalog(url).count()
