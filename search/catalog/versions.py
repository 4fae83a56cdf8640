"""Which schema a catalog has: create a new one, refuse an old or a newer one, upgrade.

Alembic is imported by `upgrade` alone; opening compares one string.
"""

from __future__ import annotations

import uuid
from pathlib import Path

from sqlalchemy import Connection, inspect, text

from search.catalog.schema import metadata, state
from search.catalog.seals import seal, seal_schema
from search.catalog.storage import CATALOG_NAME, Storage, copy_to
from search.errors import LibraryError, NewerLibrary, OldLibrary
from search.failpoints import reach
from search.resources import migrations_path

HISTORY = ("0001", "0002", "0003")
"""Every revision ever shipped, oldest first; tests hold it against migrations/."""


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


def check(found: str, library: str) -> None:
    """Raise OldLibrary or NewerLibrary unless `found` is the newest revision."""
    if found == HISTORY[-1]:
        return
    if found in HISTORY:
        raise OldLibrary(
            f"{library} has schema {found}, this version needs {HISTORY[-1]}", hint="run 'search upgrade'"
        )
    raise NewerLibrary(
        f"{library} was made by a newer version (schema {found}, this version knows {HISTORY[-1]})",
        hint="install that version or a later one; nothing was changed",
    )


def upgrade(storage: Storage) -> str:
    """Bring the catalog to the newest schema, in one transaction, after a copy beside it.

    Returns the revision it had.   Raises NewerLibrary, LibraryError if it is no catalog.
    """
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations_path()))
    with storage.writing() as connection:
        found = revision(connection)
        if found is None:
            raise LibraryError(f"{storage.library} holds no catalog")
        if found != HISTORY[-1]:
            if found in HISTORY:
                _back_up(connection, storage.folder, found)
            else:
                check(found, storage.library)
            config.attributes["connection"] = connection
            reach("upgrade.backed_up")
            with connection.begin():
                command.upgrade(config, "head")
                seal_schema(connection)
                seal(connection)
                reach("upgrade.migrated")
    return found


def _back_up(connection: Connection, folder: Path | None, found: str) -> None:
    """Copy a SQLite catalog aside; a server's operator has backups of their own."""
    if folder is None:
        return
    target = folder / f"{CATALOG_NAME}.{found}.bak"
    target.unlink(missing_ok=True)
    copy_to(connection, str(target))
