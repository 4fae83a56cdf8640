"""Which schema a catalog has: refuse an old one and a newer one that can't be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from search.catalog.failures import is_of_database
from search.errors import NewerLibrary, OldLibrary

if TYPE_CHECKING:
    from search.catalog.session import Session

HISTORY = ("0001", "0002", "0003", "0004", "0005", "0006", "0007")
"""Every revision ever shipped, oldest first; tests hold it against migrations/."""

FORMAT = 3
"""The newest layout of a library that this version makes sense of; see `state.format` and `state.min_reader`."""


def revision(session: Session) -> str | None:
    """Return the schema's revision, None where there is no catalog yet."""
    if not session.has_table("alembic_version"):
        return None
    row = session.first("SELECT version_num FROM alembic_version")
    return row[0] if row else None


def check(session: Session, found: str, library: str) -> NewerLibrary | None:
    """Return None for a catalog of this version, and of a newer one that can be read what writing must raise.

    found: its revision.   Raises OldLibrary, and NewerLibrary for one that can't be read either.
    """
    if found in HISTORY[:-1]:
        raise OldLibrary(
            f"{library} has schema {found}, this version needs {HISTORY[-1]}", hint="run 'search upgrade'"
        )
    format_, min_reader = _formats(session)
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


def _formats(session: Session) -> tuple[int, int]:
    """Return a library's format and the oldest that its reader must know; beyond all bounds if it does not say."""
    try:
        format_, min_reader = session.one("SELECT format, min_reader FROM state")
    except LookupError:
        return FORMAT + 1, FORMAT + 1
    except Exception as error:
        if not is_of_database(error):
            raise
        return FORMAT + 1, FORMAT + 1
    return format_, min_reader
