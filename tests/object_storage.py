"""Photos in places of every kind, and object storage as moto's server that can be cut off."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import tarfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from search import objects


def picture(seed: int) -> bytes:
    """A small PNG whose content depends on the seed alone."""
    noise = np.random.default_rng(1000 + seed).integers(0, 256, (6, 8, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(noise).resize((64, 48), Image.Resampling.BICUBIC).save(content, "PNG")
    return content.getvalue()


def tar_of(members: Mapping[str, bytes], *, mtime: int = 1_700_000_000) -> bytes:
    """A tar file of members."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, data in members.items():
            about = tarfile.TarInfo(name)
            about.size, about.mtime = len(data), mtime
            tar.addfile(about, io.BytesIO(data))
    return content.getvalue()


class Place:
    """A source of photos that a test can change.   root: what is indexed."""

    def __init__(self, root: str, *, is_tar: bool) -> None:
        self.root = root
        self.is_tar = is_tar
        self.members: dict[str, bytes] = {}
        self._written = 0

    def put(self, **changes: bytes | None) -> None:
        """Put files there, by their names without their suffix, `_` for a folder's /; None takes one away."""
        for name, content in changes.items():
            place = name.replace("_", "/") + ".png"
            if content is None:
                del self.members[place]
            else:
                self.members[place] = content
            if not self.is_tar:
                self._store(f"{self.root}/{place}", content)
        if self.is_tar:
            self._written += 1  # zeros at its end: of one size, it would be told apart by its time alone
            content = tar_of(self.members, mtime=1_700_000_000 + len(self.members))
            self._store(self.root, content + bytes(512 * self._written))

    def path(self, name: str) -> str:
        return f"{self.root}/{name.replace('_', '/')}.png"

    def lose(self) -> None:
        """Take all of it away."""
        if self.is_tar:
            self._store(self.root, None)
        else:
            self.put(**{name.removesuffix(".png").replace("/", "_"): None for name in list(self.members)})

    def _store(self, path: str, content: bytes | None) -> None:
        if "://" in path:
            files, key = objects.reach(path)
            if content is None:
                files.rm_file(key)
            else:
                files.pipe_file(key, content)
        elif content is None:
            os.unlink(path)
        else:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_bytes(content)


class Wire:
    """A way to a server on loopback that can be cut in the midst of what it carries, and mended."""

    def __init__(self, host: str, port: int) -> None:
        self._to = host, port
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._left: int | None = None  # bytes until it is cut
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, *, after: int = 0) -> None:
        """Carry so many bytes more in either direction, then none."""
        with self._lock:
            self._left = after
            if after == 0:
                self._hang_up()

    @property
    def is_cut(self) -> bool:
        return self._left is not None and self._left <= 0

    def mend(self) -> None:
        self._left = None

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def _hang_up(self) -> None:
        for end in self._open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._open.clear()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.is_cut:
                    client.close()
                    continue
                server = socket.create_connection(self._to)
                with self._lock:
                    self._open |= {client, server}
                for one, other in ((client, server), (server, client)):
                    threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                with self._lock:
                    if self._left is not None:
                        self._left -= len(data)
                        if self._left <= 0:
                            self._hang_up()
                            return
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def moto_server() -> Iterator[tuple[str, int]]:
    """Run moto's server, on loopback."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield server.get_host_and_port()
    finally:
        server.stop()


def environment(address: str) -> dict[str, str]:
    """What leads S3's clients to a server."""
    return {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
