"""Which schema a catalog has: create a new one, refuse an old or a newer one, upgrade.

Alembic is imported by `upgrade` alone; opening compares one string.
"""

from __future__ import annotations

import uuid
from pathlib import Path

from sqlalchemy import Connection, inspect, select, text
from sqlalchemy.exc import DBAPIError, NoResultFound

from search.catalog.schema import metadata, state
from search.catalog.seals import seal, seal_schema
from search.catalog.storage import CATALOG_NAME, Storage, copy_to
from search.errors import LibraryError, NewerLibrary, OldLibrary
from search.failpoints import reach
from search.resources import migrations_path

HISTORY = ("0001", "0002", "0003")
"""Every revision ever shipped, oldest first; tests hold it against migrations/."""

FORMAT = 3
"""The newest layout of a library that this version makes sense of; see `state.format` and `state.min_reader`."""


def create(connection: Connection) -> None:
    """Make all tables and stamp them with the newest revision."""
    with connection.begin():
        metadata.create_all(connection)
        version = "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"
        connection.execute(text(version))
        connection.execute(text("INSERT INTO alembic_version VALUES (:head)"), {"head": HISTORY[-1]})
        insert_state(connection)
        seal_schema(connection)
        seal(connection)


def insert_state(connection: Connection) -> None:
    """Write the one row of `state`."""
    connection.execute(state.insert().values(id=1, uuid=str(uuid.uuid4()), seq=0, purge_seq=0))


def revision(connection: Connection) -> str | None:
    """Return the schema's revision, None where there is no catalog yet."""
    with connection.begin():
        if not inspect(connection).has_table("alembic_version"):
            return None
        found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        return found


def check(connection: Connection, found: str, library: str) -> NewerLibrary | None:
    """Return None for a catalog of this version, and of a newer one that can be read what writing must raise.

    found: its revision.   Raises OldLibrary, and NewerLibrary for one that can't be read either.
    """
    if found in HISTORY[:-1]:
        raise OldLibrary(
            f"{library} has schema {found}, this version needs {HISTORY[-1]}", hint="run 'search upgrade'"
        )
    format_, min_reader = _formats(connection)
    if found == HISTORY[-1] and format_ <= FORMAT:
        return None
    newer = NewerLibrary(
        f"{library} was made by a newer version (schema {found}, format {format_}; this version knows schema "
        f"{HISTORY[-1]}, format {FORMAT})",
        hint="install that version or a later one; nothing was changed",
    )
    if min_reader > FORMAT:
        raise newer
    return newer


def _formats(connection: Connection) -> tuple[int, int]:
    """Return a library's format and the oldest that its reader must know; beyond all bounds if it does not say."""
    try:
        with connection.begin():
            found = connection.execute(select(state.c.format, state.c.min_reader)).one()
    except (DBAPIError, NoResultFound):
        return FORMAT + 1, FORMAT + 1
    return found.format, found.min_reader


def upgrade(storage: Storage) -> str:
    """Bring the catalog to the newest schema, in one transaction, after a copy beside it.

    Returns the revision it had.   Raises NewerLibrary, LibraryError if it is no catalog.
    """
    with storage.reading() as connection:  # a newer catalog is not even opened for writing
        found = revision(connection)
        if found is None:
            raise LibraryError(f"{storage.library} holds no catalog")
        if found not in HISTORY[:-1]:
            if newer := check(connection, found, storage.library):
                raise newer
            return found
    with storage.writing() as connection:
        _migrate(connection, storage.folder)
    return found


def _migrate(connection: Connection, folder: Path | None) -> None:
    from alembic import command
    from alembic.config import Config

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
