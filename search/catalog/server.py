"""A catalog on a PostgreSQL server: how it is reached, and who may write.

The writer holds an advisory lock of the database on the very connection that it writes through. So the lock goes when
the process, its machine or the connection does, and whoever lost the connection can't go on writing beside the next.
"""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError

from search.catalog import seals
from search.catalog.places import shown
from search.errors import LibraryBusy, LibraryError, LibraryUnreachable
from search.extras import how_to_add

if TYPE_CHECKING:
    from search.catalog.session import Session

POSTGRESQL = "postgresql"
_DRIVER = "postgresql+psycopg"
# Where a transaction would otherwise see what others commit meanwhile.
_UNSTEADY = {POSTGRESQL, "mysql", "mariadb"}

ZERO = "\N{SYMBOL FOR NULL}"
"""What stands for the character zero in texts, for which PostgreSQL has no place."""

_LOCK = int.from_bytes(b"Search", "big")
_HELD = (
    "SELECT application_name FROM pg_locks LEFT JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory' AND "
    "granted AND objsubid = 1 AND classid = :high AND objid = :low AND "
    "pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
_PLACE = {"high": _LOCK >> 32, "low": _LOCK & 0xFFFFFFFF}
_NAME_BYTES = 63  # PostgreSQL cuts the name of an application there
_SIGNED = re.compile(r"search (\d+) (\S+) (.*)")

# A server or a network that went away without a word is noticed within a minute or so, on either side.
_PATIENCE: dict[str, Any] = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
# Of the writing connection. A commit that returned survives a power cut, whatever the user's default is; a long batch
# is no reason to end the session; a migration does not wait for ever for somebody who reads.
_WRITER = (
    "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'",
    "SELECT set_config('idle_session_timeout', '0', false) WHERE current_setting('idle_session_timeout', true) <> '0'",
    "SELECT set_config('lock_timeout', '30s', false)",
    "SELECT set_config('tcp_keepalives_idle', '30', false), set_config('tcp_keepalives_interval', '10', false), "
    "set_config('tcp_keepalives_count', '3', false) WHERE inet_client_addr() IS NOT NULL",
)
_POOL = {"pool_pre_ping": True, "pool_size": 8, "max_overflow": 32}


def reader(url: str) -> Engine:
    """Return connections that see one state from a transaction's first question to its last, and can't write.

    One that broke while nobody used it is replaced. Raises LibraryError for a URL or driver that is not there.
    """
    address = _address(url)
    if address.get_backend_name() != POSTGRESQL:
        engine = _engine(url, address)
        return _steady(engine) if engine.dialect.name in _UNSTEADY else engine
    return _steady(_engine(url, address, **_POOL)).execution_options(postgresql_readonly=True)


def _steady(engine: Engine) -> Engine:
    return engine.execution_options(isolation_level="REPEATABLE READ")


@contextmanager
def writing(url: str) -> Iterator[Connection]:
    """Yield the one connection that writes; nobody else has one while it lasts. Raises LibraryBusy, LibraryError.

    Once it is lost it stays lost: another would not have the lock, nor what was begun.
    """
    engine = _engine(url, _address(url), poolclass=NullPool)
    if engine.dialect.name == POSTGRESQL:
        _only_once(engine, shown(url))
    try:
        with engine.connect() as connection:
            if engine.dialect.name == POSTGRESQL:
                _lock(connection, shown(url))
            yield connection
    finally:
        engine.dispose()


def _only_once(engine: Engine, library: str) -> None:
    used = threading.Event()

    def connected(*_: object) -> None:
        if used.is_set():
            raise LibraryUnreachable.lost(library)
        used.set()

    event.listen(engine, "connect", connected)


def _lock(connection: Connection, library: str) -> None:
    with connection.begin():
        connection.execute(text("SELECT set_config('application_name', :name, false)"), {"name": _signature()})
        for setting in _WRITER:
            connection.execute(text(setting))
        if connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": _LOCK}).scalar():
            return
        holder = connection.execute(text(_HELD), _PLACE).scalar()
    raise LibraryBusy(f"{library} is being written to by {_named(holder)}", hint="wait for it or stop it")


def _signature() -> str:
    """Name this process within what PostgreSQL keeps of a name; whoever waits reads it."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    name = f"search {os.getpid()} {now} {socket.gethostname()}"
    return name.encode("ascii", "replace")[:_NAME_BYTES].decode()


def _named(signature: str | None) -> str:
    found = _SIGNED.fullmatch(signature or "")
    return f"process {found[1]} on {found[3]}, since {found[2]}" if found else "another process"


def is_held(session: Session) -> bool:
    """Whether some process holds the library for writing; only PostgreSQL tells."""
    return session.dialect == POSTGRESQL and session.first(_HELD, _PLACE) is not None


def _address(url: str) -> URL:
    try:
        address = make_url(re.sub(r"^postgres(ql)?://", f"{_DRIVER}://", url))
        address.get_backend_name()
    except (ArgumentError, ImportError, ValueError) as error:
        raise _wrong(url, error) from error
    return address


def _engine(url: str, address: URL, **options: Any) -> Engine:
    try:
        if address.drivername == _DRIVER:
            asked = {name: value for name, value in _PATIENCE.items() if name not in address.query}
            options["connect_args"] = asked | options.get("connect_args", {})
        engine = create_engine(address, **options)
    except (ArgumentError, ImportError, ValueError) as error:
        raise _wrong(url, error) from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", lambda connection, _: seals.register(connection))
    elif address.drivername == _DRIVER:
        event.listen(engine, "connect", lambda connection, _: _speak(connection))
    return engine


def _wrong(url: str, error: Exception) -> LibraryError:
    what = shown(url)
    if isinstance(error, ImportError) and "psycopg" in str(error):
        return LibraryError(
            f"can't open a database at {what}: psycopg is not installed", hint=how_to_add("postgresql")
        )
    reason = "it is no URL of a database" if isinstance(error, ValueError) else error
    return LibraryError(f"can't open a database at {what}: {reason}", hint="check the URL and its driver")


def _speak(connection: Any) -> None:
    """Have texts arrive that PostgreSQL would refuse."""
    from psycopg.types.string import StrBinaryDumper, StrDumper, StrDumperUnknown

    for base in (StrBinaryDumper, StrDumper, StrDumperUnknown):

        class Without0(base):  # type: ignore[misc, valid-type]
            def dump(self, obj: str) -> Any:
                return super().dump(obj.replace("\0", ZERO) if "\0" in obj else obj)

        connection.adapters.register_dumper(str, Without0)
