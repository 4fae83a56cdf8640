"""A catalog on a PostgreSQL server: old schemas, lost connections, rights, and what is said of them."""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from click.testing import CliRunner
from servers import Relay, Server

from search import Library, failpoints
from search.catalog import Catalog, Writer
from search.catalog.found import ScannedFile, Settled, Verdict
from search.catalog.places import shown
from search.catalog.schema import metadata
from search.catalog.storage import Storage
from search.catalog.versions import HISTORY
from search.catalog.writer import Record
from search.cli import cli
from search.errors import LibraryError, LibraryUnreachable, OldLibrary, StorageError
from search.resources import migrations_path
from search.types import FileStat, JobState, PhotoInfo

ADDING = 3
"""Which commit of `put` it is that stores photos."""


class Model:
    name = fingerprint = "model"
    dim, context_length, logit_scale, logit_bias = 2, 77, 1.0, None


def put(writer: Writer, *places: str) -> list[int]:
    """Store photos of these names, as an index run does."""
    model, scope = writer.register(Model()), writer.add_source("/photos", is_folder=True)
    found = [
        ScannedFile(scope.root_id, os.fsencode(place), FileStat(f"/photos/{place}", 1, 1), Verdict.NEW, None)
        for place in places
    ]
    records = [Record(file, bytes(32), PhotoInfo("PNG", 1, 1)) for file in found]
    return writer.add(records, np.tile(np.float32([1, 0]), (len(records), 1)), model)


def unknown(writer: Writer, *places: str) -> int:
    """How many of these files a run would have to look at."""
    model, scope = writer.register(Model()), writer.add_source("/photos", is_folder=True)
    scan = writer.scan(model, Settled("decoder", ("none",)))
    scan.record(scope, [FileStat(f"/photos/{place}", 1, 1) for place in places])
    verdicts = scan.verdicts()
    return len(places) - verdicts[Verdict.UNCHANGED]


@pytest.fixture
def catalog(database_url) -> Iterator[Catalog]:
    catalog = Catalog(database_url)
    catalog.create()
    yield catalog
    catalog.close()


@pytest.fixture
def at() -> Iterator[Callable[[str, Callable[[], None]], None]]:
    """Do something when a failpoint is reached for the nth time."""

    def arm(name: str, act: Callable[[], None], *, time: int = 1) -> None:
        times = itertools.count(1)

        def reached(point: str) -> None:
            if point == name and next(times) == time:
                failpoints.arm(None)
                act()

        failpoints.arm(reached)

    yield arm
    failpoints.arm(None)


# ---- old schemas


def migrate(url: str, revision: str) -> None:
    """Make the schema that a version had."""
    config = Config()
    config.set_main_option("script_location", str(migrations_path()))
    with Storage(url).writing() as connection, connection.begin():
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


OLD = """
INSERT INTO state (id, uuid, seq, purge_seq, encoder_id) VALUES (1, 'x', 5, 0, 1);
INSERT INTO roots (path) VALUES ('/photos');
INSERT INTO encoders (name, fingerprint, dim, context_length, logit_scale) VALUES ('m', 'f', 4, 77, 1);
INSERT INTO photos (root_id, path, size_bytes, mtime_ns, content_hash, format, width, height, orientation, camera, seq)
    VALUES (1, 'trip/cat.jpg', 1, 1, '1', 'JPEG', 1, 1, 1, 'Canon', 5)
"""


@pytest.mark.parametrize("revision", HISTORY[:-1])
def test_a_catalog_of_every_older_schema_is_refused_and_upgraded(postgres, database, database_url, revision):
    migrate(database_url, revision)
    postgres.run(OLD, database=database)
    with closing(Catalog(database_url)) as catalog:
        with pytest.raises(OldLibrary, match="run 'search upgrade'"):
            catalog.count()
        assert catalog.upgrade() == revision
        assert catalog.upgrade() == HISTORY[-1]
        [photo] = catalog.get([1])
        assert (photo.path, photo.info.camera) == ("/photos/trip/cat.jpg", "Canon")
        with catalog.writing() as writer:
            assert put(writer, "new.jpg") == [2]


def test_upgrading_ends_at_the_schema_that_new_catalogs_have(postgres, database_url, catalog):
    other = postgres.url(postgres.database())
    migrate(other, HISTORY[-1])
    with Storage(other).writing() as connection:
        lacks = compare_metadata(MigrationContext.configure(connection), metadata)
    # Indexes that only one of the two kinds of database has.
    own = {"add_index": "_unsealed", "remove_index": "embedding_photo"}
    assert [what for what, index, *_ in lacks if not (what in own and index.name.endswith(own[what]))] == []
    columns = (
        "SELECT table_name, column_name, data_type, is_nullable, collation_name FROM information_schema.columns "
        "WHERE table_schema = 'public' ORDER BY 1, 2"
    )
    made, migrated = Catalog(database_url), Catalog(other)
    with made._storage.reading() as one, migrated._storage.reading() as two:
        assert one.rows(columns) == two.rows(columns)
    made.close()
    migrated.close()


# ---- lost connections


def test_a_connection_that_breaks_costs_only_the_batch_that_was_not_committed(postgres, database, catalog, at):
    with pytest.raises(LibraryUnreachable, match=r"can't be reached.*everything committed before is kept"):  # noqa: SIM117
        with catalog.writing() as writer, writer.job("index"):
            put(writer, "a")
            at("commit.sealed", lambda: postgres.hang_up(database), time=ADDING)
            put(writer, "b", "c")
    assert catalog.count() == 1
    assert catalog.last_job().state is JobState.INTERRUPTED
    with catalog.writing() as writer, writer.job("index"):
        assert unknown(writer, "a", "b", "c") == 2
        put(writer, "b", "c")
    assert catalog.count() == 3


def test_whoever_lost_the_connection_writes_nothing_any_more(postgres, database, catalog):
    with pytest.raises(LibraryUnreachable), catalog.writing() as writer:
        put(writer, "a")
        postgres.hang_up(database)
        with pytest.raises(Exception, match=r"terminat|closed"):
            put(writer, "b")
        put(writer, "c")
    assert catalog.count() == 1


def test_a_commit_of_which_nobody_learned_is_neither_lost_nor_made_twice(postgres, database, catalog, at):
    def write(far: Catalog, relay: Relay) -> None:
        with far.writing() as writer:
            put(writer, "a")
            at("commit.sealed", lambda: relay.cut_after(b"COMMIT"), time=ADDING)
            put(writer, "b")

    with Relay.to(postgres) as relay, closing(Catalog(relay.url(database))) as far:
        with pytest.raises(LibraryUnreachable):
            write(far, relay)
        assert relay.has_cut
    assert catalog.count() == 2  # the answer was lost, not the commit
    with catalog.writing() as writer:
        assert unknown(writer, "a", "b", "c") == 1
    assert catalog.problems(full=True) == ([], True)


def test_readers_outlive_connections_that_broke_while_they_were_idle(postgres, database, catalog):
    assert catalog.count() == 0
    assert postgres.hang_up(database) == 1
    assert catalog.count() == 0


def test_a_server_that_goes_down_and_comes_back_has_what_was_committed(postgres, database_url, at):
    url = database_url.replace("postgres:@", "postgres:se%40cret@")
    with closing(Catalog(url)) as catalog:
        catalog.create()
        with pytest.raises(LibraryUnreachable), catalog.writing() as writer:
            put(writer, "a", "b")
            at("commit.sealed", postgres.crash, time=ADDING)
            put(writer, "c")
        try:
            with pytest.raises(LibraryUnreachable, match="see that it runs") as away:
                catalog.count()
            with pytest.raises(LibraryUnreachable):
                catalog.writing().__enter__()
            outcome = CliRunner().invoke(cli, ["--library", url, "--json", "status"])
        finally:
            postgres.start()
        error = json.loads(outcome.stdout)["error"]
        assert (outcome.exit_code, error["type"]) == (1, "LibraryUnreachable")
        assert error["message"] == away.value.message
        assert "cret" not in outcome.output
        assert "Traceback" not in outcome.output
        assert catalog.count() == 2  # by the object that was open all the while
        with catalog.writing() as writer:
            assert unknown(writer, "a", "b", "c") == 1


# ---- rights and words


def test_who_may_only_read_reads(postgres: Server, database, database_url, catalog):
    with catalog.writing() as writer:
        put(writer, "a")
    postgres.run(
        "DROP ROLE IF EXISTS guest; CREATE ROLE guest LOGIN; GRANT USAGE ON SCHEMA public TO guest; "
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO guest",
        database=database,
    )
    with closing(Catalog(database_url.replace("postgres:@", "guest@"))) as guest:
        assert guest.count() == 1
        assert not guest.is_written_to()
        with pytest.raises(LibraryError, match=r"permission denied.*rights"), guest.writing() as writer:
            put(writer, "b")
    postgres.run("DROP OWNED BY guest; DROP ROLE guest", database=database)


def test_readers_can_not_write(catalog):
    with pytest.raises(StorageError, match="read-only"), catalog._storage.examining() as connection:
        connection.exec_driver_sql("DELETE FROM photos")


def test_a_database_that_is_not_there_is_one_clear_error(postgres):
    with pytest.raises(LibraryError, match=r'database "nosuch" does not exist.*check user'):
        Catalog(postgres.url("nosuch")).count()


def test_a_database_that_could_not_keep_every_text_is_refused(postgres):
    postgres.run("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    with closing(Catalog(postgres.url("latin"))) as catalog:
        with pytest.raises(LibraryError, match=r"LATIN1.*createdb -E UTF8"):
            catalog.create()
        assert not catalog.exists()
    postgres.run("DROP DATABASE latin WITH (FORCE)")


@pytest.mark.parametrize("table", ["photos", "scanned"])
def test_tables_of_something_else_are_left_alone(postgres, database, database_url, table):
    postgres.run(f"CREATE TABLE {table} (path text)", database=database)
    with closing(Catalog(database_url)) as catalog:
        with pytest.raises(LibraryError, match=rf"tables of something else: {table}; name one of its own"):
            catalog.create()
        assert not catalog.exists()
    assert postgres.run(f"SELECT * FROM {table}", database=database) == []


def test_a_server_is_checked_and_has_no_copies_of_ours(catalog, database_url):
    with Library.open(database_url, offline=True) as library:
        assert library.catalog.new_backup() is None
        assert library.check(full=True).ok
        assert "sqlite" not in library.check().facts


def test_a_plain_url_means_the_same_driver(catalog, database_url):
    with catalog.writing() as writer:
        put(writer, "a")
    for scheme in ("postgresql", "postgres"):
        with closing(Catalog(database_url.replace("postgresql+psycopg", scheme))) as plain:
            assert plain.count() == 1


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("postgresql://ann:se:c@r/et@host/db", "postgresql://ann:***@host/db"),
        ("postgresql://ann@host/db?password=secret&x=1", "postgresql://ann@host/db?password=***&x=1"),
        ("postgresql://host/db?sslkey=k&sslpassword=secret", "postgresql://host/db?sslkey=k&sslpassword=***"),
        ("postgresql://ann@host:5432/db", "postgresql://ann@host:5432/db"),
        ("/photos/a:b@c", "/photos/a:b@c"),
    ],
)
def test_no_password_is_told(location, said):
    assert shown(location) == said


def test_a_url_that_can_not_be_meant_tells_no_password_either():
    with pytest.raises(LibraryError, match="can't open a database") as error:
        Catalog("postgresql://ann:secret@host:port/db").count()
    assert "secret" not in str(error.value)


def test_the_log_of_a_process_has_no_password(tmp_path: Path):
    outcome = CliRunner().invoke(cli, ["-L", f"postgresql://ann:secret@/db?host={tmp_path}", "find", "x"])
    assert (outcome.exit_code, "secret" in outcome.output) == (1, False)
    assert "can't be reached" in outcome.output


def test_without_the_driver_it_is_said_how_to_add_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)  # as if it were not installed
    with pytest.raises(LibraryError, match="psycopg is not installed") as caught:
        Catalog("postgresql://user:secret@nowhere/photos").count()
    assert "secret" not in str(caught.value)
    assert "postgresql" in caught.value.hint
