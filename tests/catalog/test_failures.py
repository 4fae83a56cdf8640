"""What databases say when something is wrong, as errors that say what to do."""

from __future__ import annotations

import errno
import sqlite3
from contextlib import closing

import psycopg
import pytest
from sqlalchemy.exc import DBAPIError, OperationalError

from search.catalog.failures import storage_errors
from search.errors import DamagedLibrary, LibraryBusy, LibraryError, LibraryUnreachable, StorageError

SERVER = "postgresql://host/photos"


@pytest.mark.parametrize(
    ("code", "kind", "said"),
    [
        ("40P01", LibraryBusy, "locked by another program: so it is"),
        ("55P03", LibraryBusy, "locked by another program"),
        ("25006", StorageError, "is read-only here: so it is"),
        ("53100", StorageError, "can't write to the library"),
        ("XX001", DamagedLibrary, "is damaged: so it is"),
        ("58P01", DamagedLibrary, "is damaged"),
        ("42P01", DamagedLibrary, "is damaged"),
        ("22012", LibraryError, "the catalog of postgresql://host/photos failed: so it is"),
        ("42501", LibraryError, "refuses: so it is"),
        ("53300", LibraryError, "refuses"),
        ("57P01", LibraryUnreachable, "so it is"),
        ("57014", LibraryUnreachable, "so it is"),
    ],
)
def test_what_a_server_says_is_told_by_its_code(code, kind, said):
    cause = psycopg.errors.lookup(code)("so it is\nDETAIL: left out")
    with pytest.raises(LibraryError) as caught, storage_errors(SERVER):
        raise DBAPIError("SELECT 1", {}, cause)
    assert type(caught.value) is kind
    assert said in caught.value.message
    assert "left out" not in caught.value.message


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("connection refused", LibraryUnreachable),
        ('FATAL: password authentication failed for user "x"', LibraryError),
        ("FATAL: the database system is starting up", LibraryUnreachable),
    ],
)
def test_what_has_no_code_is_a_lost_connection_unless_the_server_refuses(said, kind):
    with pytest.raises(LibraryError) as caught, storage_errors(SERVER):
        raise OperationalError("SELECT 1", {}, psycopg.OperationalError(said))
    assert type(caught.value) is kind
    assert said in caught.value.message


def test_a_catalog_that_another_program_holds_is_busy(tmp_path):
    with closing(sqlite3.connect(tmp_path / "x.db", timeout=0, isolation_level=None)) as one:
        one.execute("CREATE TABLE t (a)")
        one.execute("BEGIN EXCLUSIVE")
        with (
            closing(sqlite3.connect(tmp_path / "x.db", timeout=0)) as other,
            pytest.raises(LibraryBusy, match="locked by another program"),
            storage_errors(str(tmp_path)),
        ):
            other.execute("SELECT * FROM t")


@pytest.mark.parametrize(
    ("content", "query", "kind", "said"),
    [
        (b"no database at all" * 99, "SELECT 1 FROM sqlite_schema", DamagedLibrary, "is damaged"),
        (b"", "SELECT * FROM photos", DamagedLibrary, "no such table"),
        (b"", "SELEKT", LibraryError, "failed: .*syntax error"),
    ],
)
def test_what_sqlite_says_is_told_by_its_code(tmp_path, content, query, kind, said):
    (tmp_path / "x.db").write_bytes(content)
    with (
        closing(sqlite3.connect(tmp_path / "x.db")) as connection,
        pytest.raises(LibraryError, match=said) as caught,
        storage_errors(str(tmp_path)),
    ):
        connection.execute(query)
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("pragma", "said"),
    [("query_only = ON", "is read-only here"), ("max_page_count = 1", "can't write to the library")],
)
def test_a_disk_that_takes_no_more_is_told_by_sqlites_code(tmp_path, pragma, said):
    with closing(sqlite3.connect(tmp_path / "x.db")) as connection:
        connection.execute(f"PRAGMA {pragma}")
        with pytest.raises(StorageError, match=said), storage_errors(str(tmp_path)):
            connection.execute("CREATE TABLE t (a)")


@pytest.mark.parametrize(
    ("number", "name", "said"),
    [
        (errno.EROFS, "library/catalog.db", "is read-only here"),
        (errno.ENOSPC, "library/gen/x", "can't write to the library"),
        (errno.EIO, "library", "can't write to the library"),
        (errno.ENOSPC, None, "can't write to the library"),
    ],
)
def test_a_system_error_about_the_librarys_files_is_its_own(tmp_path, number, name, said):
    with pytest.raises(StorageError, match=said), storage_errors(str(tmp_path / "library")):
        raise OSError(number, "so it is", *([] if name is None else [str(tmp_path / name)]))


@pytest.mark.parametrize(
    ("number", "name"), [(errno.EIO, "photos/a.jpg"), (errno.EIO, None), (errno.ENOENT, "library/catalog.db")]
)
def test_another_system_error_is_nobodys(tmp_path, number, name):
    with pytest.raises(OSError, match="so it is"), storage_errors(str(tmp_path / "library")):
        raise OSError(number, "so it is", *([] if name is None else [str(tmp_path / name)]))
