"""The schema made and brought up to date. Alembic is imported by `upgrade` alone."""

from __future__ import annotations

import uuid
from pathlib import Path

from sqlalchemy import Connection, inspect, text

from search.catalog import versions
from search.catalog.engines import EngineSession, copy_to
from search.catalog.schema import metadata, scanned, smallest, state
from search.catalog.seals import seal, seal_schema
from search.catalog.storage import CATALOG_NAME, Storage
from search.catalog.versions import HISTORY
from search.errors import LibraryError
from search.failpoints import reach
from search.resources import migrations_path


def create(connection: Connection) -> None:
    """Make all tables and stamp them with the newest revision, unless they are there."""
    with connection.begin():
        if revision(connection) is not None:
            return
        if connection.dialect.name == "postgresql":
            _refuse_encoding(connection)
            _refuse_others(connection)
        metadata.create_all(connection)
        smallest.drop(connection)
        smallest.create(connection)  # as the last
        version = "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"
        connection.execute(text(version))
        connection.execute(text("INSERT INTO alembic_version VALUES (:head)"), {"head": HISTORY[-1]})
        insert_state(connection)
        seal_schema(connection)
        seal(connection)


def _refuse_encoding(connection: Connection) -> None:
    """Raise LibraryError for a database that could not keep every text."""
    encoding = connection.execute(text("SHOW server_encoding")).scalar()
    if encoding != "UTF8":
        raise LibraryError(f"the database keeps texts as {encoding}", hint="make one by 'createdb -E UTF8'")


def _refuse_others(connection: Connection) -> None:
    """Raise LibraryError for a database with tables by our names: they are of something else."""
    own = {table.name for table in (*metadata.sorted_tables, scanned)}
    if found := sorted(own.intersection(inspect(connection).get_table_names())):
        names = ", ".join(found)
        raise LibraryError(f"the database has tables of something else: {names}", hint="name one of its own")


def insert_state(connection: Connection) -> None:
    """Write the one row of `state`."""
    connection.execute(state.insert().values(id=1, uuid=str(uuid.uuid4()), seq=0, purge_seq=0))


def revision(connection: Connection) -> str | None:
    """Return the schema's revision as a connection sees it, None where there is no catalog yet."""
    return versions.revision(EngineSession(connection))


def upgrade(storage: Storage) -> str:
    """Bring the catalog to the newest schema, in one transaction, after a copy beside it.

    Returns the revision it had.   Raises NewerLibrary, LibraryError if it is no catalog.
    """
    with storage.reading() as session:  # a newer catalog is not even opened for writing
        found = versions.revision(session)
        if found is None:
            raise LibraryError(f"{storage.library} holds no catalog")
        if found not in HISTORY[:-1]:
            if newer := versions.check(session, found, storage.library):
                raise newer
            return found
    with storage.writing() as connection:
        _migrate(connection, storage.folder)
    return found


def _migrate(connection: Connection, folder: Path | None) -> None:
    from alembic import command
    from alembic.config import Config

    with connection.begin():
        found = revision(connection)
    if found not in HISTORY[:-1]:
        return  # another process was faster
    _back_up(connection, folder, found)
    reach("upgrade.backed_up")
    config = Config()
    config.set_main_option("script_location", str(migrations_path()))
    config.attributes["connection"] = connection
    with connection.begin():
        command.upgrade(config, "head")
        seal_schema(connection)
        seal(connection)
        reach("upgrade.migrated")


def _back_up(connection: Connection, folder: Path | None, found: str) -> None:
    """Copy a SQLite catalog aside; a server's operator has backups of their own."""
    if folder is None:
        return
    copy_to(connection, str(folder / f"{CATALOG_NAME}.{found}.bak"))
