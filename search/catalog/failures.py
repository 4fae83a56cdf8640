"""What databases and disks say when something is wrong, as errors that say what to do."""

from __future__ import annotations

import errno
import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from search.catalog.places import is_url
from search.errors import DamagedLibrary, LibraryBusy, LibraryError, LibraryUnreachable, StorageError

_DISK = {
    *(sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY),
    *(sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_PROTOCOL),  # the last: a lock was refused
}
# What a server says, as SQLSTATE or the class that it begins with.
_AWAY = ("08", "57P", "25P03", "57014")  # no connection; shut down, crashed or starting; the session timed out
_REFUSED = ("28", "3D", "3F", "42501", "53300")  # who, which database, which schema, rights, too many connections
_CROWDED = {"40001", "40P01", "55P03", "55006"}
_READ_ONLY, _FULL = "25006", "53100"
_CORRUPT = ("XX", "58", "42P01", "42703")  # pages; files; a table or column that every catalog has
_RIGHTS = "check user, password, database and rights (docs/how-to/cluster.md)"
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_LACKS = ("no such table", "no such column")  # a catalog of this revision has them all
# These only writing meets; the others may come from any file, so the file must be one of the library's.
_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}
_FORBIDDEN = {errno.EROFS, errno.EACCES, errno.EPERM}
_ANY = {*_FORBIDDEN, errno.EIO, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ELOOP}


@contextmanager
def storage_errors(library: str) -> Iterator[None]:
    """Turn what goes wrong with a library's files or database into LibraryErrors.

    library: the folder, or a server's URL as messages show it.
    """
    try:
        yield
    except OSError as error:
        if not _concerns(error, library):
            raise
        raise _disk_error(library, error.strerror or str(error), error.errno in _FORBIDDEN) from error
    except Exception as error:
        if not is_of_database(error) or _is_mistake(error):
            raise
        raise _named(error, library) from error


def is_of_database(error: BaseException) -> bool:
    """Whether a database complains, to its own driver or through SQLAlchemy."""
    through = _sqlalchemy()
    if isinstance(error, sqlite3.Error):
        return True
    return through is not None and isinstance(
        error, through.DBAPIError | through.PendingRollbackError | through.TimeoutError
    )


def _is_mistake(error: BaseException) -> bool:
    """Whether it is of our making, not the disk's."""
    through = _sqlalchemy()
    return through is not None and isinstance(error, through.IntegrityError)


def _sqlalchemy() -> Any:
    """Return SQLAlchemy's errors, None while nobody has imported it: then nothing can raise them."""
    return sys.modules.get("sqlalchemy.exc")


def is_of_disk(error: sqlite3.Error) -> bool:
    """Whether SQLite could not read, write or make a file."""
    return _primary_code(error) in _DISK


def _primary_code(cause: BaseException | None) -> int:
    """Return SQLite's code for an error, 255 for another database's; the rest of the code says more of the same."""
    return int(getattr(cause, "sqlite_errorcode", -1)) & 0xFF


def _named(error: BaseException, library: str) -> LibraryError:
    cause = getattr(error, "orig", None) or error
    if is_url(library) and not isinstance(cause, sqlite3.Error):
        return _of_server(error, cause, library)
    code = _primary_code(cause)
    if code in _DISK:
        return _disk_error(library, str(cause), code == sqlite3.SQLITE_READONLY)
    if code in _BUSY:
        return LibraryBusy(f"{library} is locked by another program", hint="try again")
    if code in _DAMAGED or any(lack in str(cause) for lack in _LACKS):
        return damaged(library, str(cause))
    return LibraryError(f"the catalog of {library} failed: {cause}")


def _of_server(error: BaseException, cause: BaseException, library: str) -> LibraryError:
    """Tell by the code of the SQL standard, where the server came to say one, what is wrong."""
    code = str(getattr(cause, "sqlstate", None) or "")
    said = " ".join(str(cause).splitlines()[:1])
    refused = code.startswith(_REFUSED) or (not code and "FATAL: " in said and "the database system" not in said)
    if code.startswith(_AWAY) or (not code and not refused and _is_lost(error)):
        return LibraryUnreachable.lost(library, said)
    if refused:
        return LibraryError(f"the database server of {library} refuses: {said}", hint=_RIGHTS)
    if code in _CROWDED:
        return LibraryBusy(f"{library} is locked by another program: {said}", hint="try again")
    if code == _READ_ONLY:
        return StorageError(f"the library {library} is read-only here: {said}", hint="name the server that writes")
    if code == _FULL:
        hint = "free some space on its server and try again; everything committed before is kept"
        return StorageError(f"can't write to the library {library}: {said}", hint=hint)
    if code.startswith(_CORRUPT):
        hint = "restore the database from a backup (docs/how-to/cluster.md)"
        return DamagedLibrary(f"the catalog of {library} is damaged: {said}", hint=hint)
    return LibraryError(f"the catalog of {library} failed: {said}")


def _is_lost(error: BaseException) -> bool:
    """Whether a connection could not be had, or broke: then no server says why."""
    through = _sqlalchemy()
    lost = through.OperationalError | through.PendingRollbackError | through.TimeoutError
    return isinstance(error, lost) or bool(getattr(error, "connection_invalidated", False))


def damaged(library: str, cause: str) -> DamagedLibrary:
    """Return the error for a catalog that can't be read."""
    return DamagedLibrary(f"the catalog of {library} is damaged: {cause}", hint="run 'search rebuild'")


def _disk_error(library: str, cause: str, read_only: bool) -> StorageError:
    if read_only:
        return StorageError(
            f"the library {library} is read-only here: {cause}",
            hint="check permissions, or copy it to a disk that can be written",
        )
    return StorageError(
        f"can't write to the library {library}: {cause}",
        hint="free some space and try again; everything committed before is kept",
    )


def _concerns(error: OSError, library: str) -> bool:
    """Whether a system error is about the library's own files."""
    if error.filename is None:
        return error.errno in _WRITING
    place = os.path.abspath(os.fsdecode(error.filename))
    below, above = os.path.join(library, ""), os.path.join(place, "")
    return error.errno in _WRITING | _ANY and (above.startswith(below) or below.startswith(above))
