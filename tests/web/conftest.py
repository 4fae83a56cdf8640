from __future__ import annotations

import os
import shutil
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
from scenes import scene
from starlette.testclient import TestClient

from search import Library
from search.types import Photo
from search.web import ServeOptions, create_app
from search.web.connections import Connection

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = ["--no-sandbox", "--disable-background-networking", "--disable-component-update"]
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


@pytest.fixture(scope="module")
def browser():
    """Chromium. Not for longer than a module: what drives it leaves no room for other loops in its thread."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no chromium: apt install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


EVIL = ('a"><script>alert(1)<b>.jpg', "b\u202egpj.exe.jpg", "c\nnew line.jpg", os.fsdecode(b"d\xff\xfe.jpg"))
"""Names of files that are trouble in pages."""


@pytest.fixture(scope="package")
def photo_folder(tmp_path_factory, photographs) -> Path:
    """Photographs by subject, the rocket three times; one with a place that is to be turned, names that are trouble."""
    folder = tmp_path_factory.mktemp("gallery") / "photos"
    for name in ("space", "home", "strange"):
        (folder / name).mkdir(parents=True)
    for subject, path in photographs.items():
        image = Image.open(path).convert("RGB")
        image.thumbnail((900, 900))
        place = folder / ("space" if subject == "rocket" else "home") / f"{subject}.jpg"
        image.save(place, exif=taken("2021:05:01", "Kodak Brownie") if subject == "cat" else Image.Exif())
    shutil.copy(folder / "space" / "rocket.jpg", folder / "space" / "rocket again.jpg")
    Image.open(folder / "space" / "rocket.jpg").resize((500, 331)).save(folder / "space" / "rocket small.png")
    turned = taken("2022:07:09", "Leica M", latitude=48.8584, longitude=2.2945)
    turned[0x0112] = 6
    scene(1, (400, 200)).save(folder / "home" / "turned.jpg", exif=turned)
    for number, name in enumerate(EVIL):
        scene(number + 10, (160, 120)).save(folder / "strange" / name, "JPEG")
    return folder


@pytest.fixture(scope="package")
def gallery(photo_folder, builtin) -> Iterator[Library]:
    """A library of them, with labels; no test changes its photos."""
    with Library.open(photo_folder.parent / "library", model="builtin", offline=True) as library:
        library.model.loaded = builtin
        library.index([photo_folder])
        library.tags.accept(["space/rocket"], photos=[str(photo_folder / "space")])
        library.label(["cat", "wall"], paths=[str(photo_folder / "home" / "cat.jpg")], apply=True)
        yield library


@pytest.fixture(scope="package")
def shown(gallery) -> dict[str, Photo]:
    """The gallery's photos by file name."""
    return {Path(photo.path).name: photo for photo in gallery.catalog.get(gallery.catalog.all_ids().tolist())}


@pytest.fixture(scope="package")
def pages(gallery) -> Iterator[TestClient]:
    """The gallery's pages."""
    app = create_app(gallery, ServeOptions())
    with TestClient(app, base_url=HERE, raise_server_exceptions=True, follow_redirects=False) as client:
        client.headers["Accept"] = "text/html"
        yield client


def taken(day: str, camera: str, **place: float) -> Image.Exif:
    """EXIF of a photo of a day, with a camera, at a place north and east."""
    exif = Image.Exif()
    exif[0x0110] = camera
    exif.get_ifd(0x8769)[0x9003] = f"{day} 12:00:00"
    if place:
        gps = exif.get_ifd(0x8825)
        for tag, name, side in ((1, "latitude", "N"), (3, "longitude", "E")):
            gps[tag], gps[tag + 1] = side, (place[name], 0.0, 0.0)
    return exif
