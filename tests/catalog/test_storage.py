from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
import sqlalchemy.exc

from search.catalog import Catalog, lite, upgrades
from search.catalog.engines import copy_to
from search.catalog.storage import CATALOG_NAME, Storage
from search.errors import DamagedLibrary, LibraryBusy, LibraryError, StorageError
from search.types import JobState


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
    with Storage(catalog.location).reading() as session, pytest.raises(Exception, match="readonly"):
        session.rows("UPDATE state SET seq = 99")
    with Storage(catalog.location).examining() as connection, pytest.raises(Exception, match="readonly"):
        connection.exec_driver_sql("UPDATE state SET seq = 99")


WATCH = """
import sys
opened = []
sys.addaudithook(lambda event, args: opened.append(args[0]) if event == "sqlite3.connect" else None)
from search import Library
with Library.open(sys.argv[1], model="builtin") as library:
    library.index([sys.argv[2]])
    with library.catalog.writing():
        library.status(), library.search("red"), library.check(), library.catalog.all_ids()
    library.check(repair=True)
for name in opened:
    if "/catalog.db?" in str(name):
        print(str(name).rsplit("?", 1)[1])
"""


@pytest.mark.slow
def test_f49_one_process_opens_one_connection_that_writes_at_a_time(tmp_path, album):
    done = subprocess.run(
        [sys.executable, "-c", WATCH, str(tmp_path / "library"), str(album)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stderr
    modes = done.stdout.split()
    assert set(modes) == {"mode=ro", "mode=rwc"}
    assert (
        modes.count("mode=rwc") == 4
    )  # making, indexing, holding, repairing; neither reading nor checking adds one


def test_f49_the_one_connection_has_no_second(catalog):
    storage = Storage(catalog.location)
    with storage.writing() as connection:
        assert pragma(connection, "mmap_size") in (0, None)
        with pytest.raises(sqlalchemy.exc.TimeoutError), connection.engine.connect():
            pytest.fail("opened a second connection")
        with pytest.raises(LibraryBusy), storage.writing():
            pytest.fail("opened a second writer")


@pytest.mark.parametrize(
    "error, says",
    [
        (OSError(errno.ENOSPC, "No space left on device"), "can't write .*No space left"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "can't write .*quota"),
        (OSError(errno.EFBIG, "File too large"), "can't write .*too large"),
        (OSError(errno.EROFS, "Read-only file system"), "read-only here"),
        (OSError(errno.EIO, "Input/output error", "LIBRARY/x"), "can't write .*Input/output"),
        (OSError(errno.EACCES, "Permission denied", "LIBRARY/encoders/x"), "read-only here: Permission denied"),
    ],
    ids=lambda value: errno.errorcode[value.errno] if isinstance(value, OSError) else "",
)
def test_what_the_disk_refuses_is_a_storage_error(catalog, error, says):
    if error.filename:
        error.filename = error.filename.replace("LIBRARY", catalog.location)
    with pytest.raises(StorageError, match=says), catalog.writing():
        raise error


@pytest.mark.parametrize("filename", ["/elsewhere/photo.jpg", None])
def test_other_files_are_not_the_librarys_trouble(catalog, filename):
    with pytest.raises(PermissionError), catalog.writing():
        raise PermissionError(errno.EACCES, "Permission denied", filename)


def test_a_catalog_whose_pages_are_damaged_is_named_with_what_makes_it_anew(catalog, tmp_path):
    path = tmp_path / "library" / CATALOG_NAME
    content = bytearray(path.read_bytes())
    content[100:4000] = b"\xff" * 3900
    path.write_bytes(content)
    for act in (catalog.count, catalog.writing().__enter__):
        with pytest.raises(DamagedLibrary, match="run 'search rebuild'"):
            act()


def test_a_copy_is_there_whole_or_not_at_all(catalog, tmp_path):
    (tmp_path / "library" / f"{CATALOG_NAME}.old.bak.part").write_bytes(b"cut short")
    (tmp_path / "library" / "mine.part").touch()
    target = tmp_path / "copy.db"
    with Storage(catalog.location).writing() as connection:
        assert not (tmp_path / "library" / f"{CATALOG_NAME}.old.bak.part").exists()
        copy_to(connection, str(target))
    with closing(sqlite3.connect(target)) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert not target.with_name("copy.db.part").exists()
    assert (tmp_path / "library" / "mine.part").exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_names_of_new_files_are_on_the_disk_and_copies_before_they_have_their_name(tmp_path, monkeypatch):
    synced: list[str] = []
    fsync = os.fsync

    def record(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    folder = tmp_path / "new" / "library"
    Catalog(str(folder)).create()
    assert {str(tmp_path), str(tmp_path / "new"), str(folder)} <= set(synced)
    synced.clear()
    with Storage(str(folder)).writing() as connection:
        copy_to(connection, str(folder / "copy.db"))
    assert synced[-2:] == [str(folder / "copy.db.part"), str(folder)]


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
    with pytest.raises(DamagedLibrary, match="not a database"):
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


def test_what_is_committed_once_a_medium_can_be_written_is_seen(catalog, monkeypatch):
    with monkeypatch.context() as read_only:
        read_only.setattr(os, "access", lambda *_: False)
        assert catalog.root_status() == []
    with catalog.writing() as writer:
        writer.add_source("/photos", is_folder=True)
    assert [root.path for root in catalog.root_status()] == ["/photos"]


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


def test_a_catalog_and_its_log_on_a_medium_without_writing_are_read_from_a_copy_that_goes(
    catalog, tmp_path, monkeypatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "copies"))
    (tmp_path / "copies").mkdir()
    catalog.close()
    with closing(sqlite3.connect(tmp_path / "library" / CATALOG_NAME)) as writer:
        writer.execute("UPDATE state SET seq = 7")
        writer.commit()  # into the log alone
        monkeypatch.setattr(os, "access", lambda *_: False)
        assert catalog.sequence() == 7
        assert len(list((tmp_path / "copies").iterdir())) == 1
        catalog.close()
    assert list((tmp_path / "copies").iterdir()) == []


def test_a_copy_of_a_catalog_that_somebody_keeps_writing_to_is_given_up(catalog, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "copies"))
    (tmp_path / "copies").mkdir()
    catalog.close()
    copied, real = [], shutil.copyfile

    def copy(source, target):
        real(source, target)
        copied.append(source)
        os.utime(source, ns=(0, len(copied)))

    monkeypatch.setattr(shutil, "copyfile", copy)
    with pytest.raises(LibraryBusy, match="another program keeps writing"):
        lite._copied(tmp_path / "library")
    assert len(copied) == 3
    assert list((tmp_path / "copies").iterdir()) == []


def test_a_catalog_is_made_and_upgraded_once(catalog, tmp_path):
    storage = Storage(catalog.location)
    with storage.writing() as connection:
        before = connection.exec_driver_sql("SELECT uuid FROM state").scalar()
        connection.rollback()
        upgrades.create(connection)  # another process was faster
        upgrades._migrate(connection, storage.folder)
        assert connection.exec_driver_sql("SELECT uuid FROM state").scalar() == before
    assert not list((tmp_path / "library").glob("*.bak"))


def test_a_job_of_another_machine_that_did_not_end_is_interrupted(catalog, tmp_path):
    with catalog.writing() as writer:
        writer.begin_job("index")
        assert catalog.last_job().state is JobState.RUNNING
        with closing(sqlite3.connect(tmp_path / "library" / CATALOG_NAME)) as other, other:
            other.execute("UPDATE jobs SET host = host || '.elsewhere'")
        assert catalog.last_job().state is JobState.INTERRUPTED
