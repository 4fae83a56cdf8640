from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from PIL import Image
from starlette.testclient import TestClient

from search import Library
from search.web import ServeOptions, create_app
from search.web.connections import Connection

HERE = "http://localhost:8000"


@pytest.fixture(scope="package")
def pictures(tmp_path_factory) -> Path:
    """A folder of eight pictures, one with a name that is trouble everywhere, and a file that is none."""
    folder = tmp_path_factory.mktemp("web") / "pictures"
    folder.mkdir()
    for number in range(8):
        noise = np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)
        name = 'evil"><script>\n\u202e;x.png' if number == 7 else f"{number}.jpg"
        Image.fromarray(noise).resize((64, 48)).save(folder / name)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    return folder


@pytest.fixture(scope="package")
def library(pictures, builtin) -> Iterator[Library]:
    """A library of them, which no test changes."""
    with Library.open(pictures.parent / "library", model="builtin", offline=True) as library:
        library.model.loaded = builtin
        library.index([pictures])
        yield library


@pytest.fixture(scope="package")
def serve(library) -> Iterator[Callable[..., TestClient]]:
    """Start a server with some options; its errors are answers, as they are to others."""
    started = []

    def serve_(*, base_url: str = HERE, client: tuple[str, int] = ("127.0.0.1", 5000), **options) -> TestClient:
        app = create_app(library, ServeOptions(**options))
        one = TestClient(
            app, base_url=base_url, client=client, raise_server_exceptions=False, follow_redirects=False
        )
        started.append(one.__enter__())
        return started[-1]

    yield serve_
    for one in started:
        one.__exit__(None, None, None)


@pytest.fixture(scope="package")
def client(serve) -> TestClient:
    """A server as `search serve` starts it, and someone on the same machine."""
    return serve()


@pytest.fixture(scope="package")
def ids(library) -> dict[str, int]:
    """The photos' ids by file name."""
    return {Path(photo.path).name: photo.id for photo in library.catalog.get(library.catalog.all_ids().tolist())}


@pytest.fixture(scope="package")
def live():
    """Serve an application on a real port of the loopback, as long as a `with` lasts."""

    @contextmanager
    def live_(app, *, http=Connection) -> Iterator[int]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            server = uvicorn.Server(uvicorn.Config(app, log_level="critical", http=http, ws="none", lifespan="on"))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
            thread.start()
            while not server.started:
                time.sleep(0.01)
            yield listener.getsockname()[1]
            server.should_exit = True
            thread.join()

    return live_
