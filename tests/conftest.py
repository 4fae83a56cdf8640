"""Shared by all tests: the real built-in model, and pictures made on the spot."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

# Read once, by the first import of torch or faiss. Several tests run at a time already, and threads that wait
# for one another spin: with two a process, an index of a dozen photos takes three times the processor time.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from PIL import Image
from servers import Milvus, Server, milvus, postgresql
from sqlalchemy import Engine, create_engine

from search import Library, banks, load_encoder
from search.catalog import engines
from search.library.model import LibraryModel
from search.resources import user_cache

os.environ["SEARCH_OFFLINE"] = "1"
os.environ.pop("SEARCH_LIBRARY", None)

ROOT = Path(__file__).parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--torture-seed", type=int, default=1, help="what tests/reliability draws its chances from")
    parser.addoption(
        "--clients-python", help="an interpreter with clip-retrieval in its environment; else one is made"
    )
    parser.addoption("--axe", help="axe.min.js of axe-core; else npm fetches it")
    parser.addoption(
        "--database", choices=["sqlite", "postgresql"], default="sqlite", help="where libraries keep their catalog"
    )
    parser.addoption("--write-examples", action="store_true", help="put what the examples print into the pages")
    parser.addoption("--torture-part", type=float, default=1.0, help="which part of its long runs' trials to make")


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors: a third of the time tests wait, for processes and for clocks."""
    return len(os.sched_getaffinity(0)) + 1 if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class CountingEncoder:
    """The real built-in model, counting the images it is given."""

    def __init__(self, encoder) -> None:
        self._encoder = encoder
        self.images = 0

    def __getattr__(self, name: str):
        return getattr(self._encoder, name)

    def encode_images(self, images):
        self.images += len(images)
        return self._encoder.encode_images(images)


@pytest.fixture(autouse=True, scope="session")
def compiled_once() -> Iterator[None]:
    """SQL is compiled once a process: each catalog opened has an engine of its own, and would begin anew."""
    first = create_engine("sqlite://")
    first.connect().close()  # which lets the dialect ask the driver what it is

    def create(url: str, **options) -> Engine:
        engine = create_engine(url, **options)
        if type(engine.dialect) is type(first.dialect):
            engine.dialect = engine.pool._dialect = first.dialect
            engine._compiled_cache = first._compiled_cache
        return engine

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines, "create_engine", create)
        yield
    first.dispose()


@pytest.fixture(autouse=True, scope="session")
def banks_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What models make of prompts is kept for all of a user's libraries: not for those of the tests' models."""
    folder, own = tmp_path_factory.mktemp("banks"), os.environ.get("XDG_CACHE_HOME")

    def default_cache() -> Path:
        return folder if os.environ.get("XDG_CACHE_HOME") == own else user_cache("banks")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(banks, "default_cache", default_cache)
        yield


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server for whoever asks; tests that stop or kill it start one of their own (tests/servers.py)."""
    with postgresql() as server:
        yield server


@pytest.fixture(scope="session")
def shared_database(postgres: Server) -> str:
    return postgres.database()


@pytest.fixture
def database(
    postgres: Server, shared_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The name of an empty database on that server, for this test alone; `postgres.database()` makes more.

    What a library in a folder keeps beside its catalog one on a server keeps in the user's cache: that is empty too.
    """
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield shared_database
    postgres.empty(shared_database)


@pytest.fixture
def database_url(postgres: Server, database: str) -> str:
    """What `--library` takes for that database."""
    return postgres.url(database)


@pytest.fixture(scope="session")
def milvus_server() -> Iterator[Milvus]:
    """A real Milvus server, for the tests with that mark."""
    with milvus() as server:
        yield server


@pytest.fixture(scope="session")
def builtin():
    return load_encoder("builtin")


@pytest.fixture
def counting(builtin) -> CountingEncoder:
    return CountingEncoder(builtin)


@pytest.fixture(scope="session")
def make_photo() -> Callable[..., Path]:
    """Write a small picture whose content depends on `seed` alone."""

    def make(path: Path, seed: int, size: tuple[int, int] = (64, 48)) -> Path:
        noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(path)
        return path

    return make


@pytest.fixture
def album(tmp_path: Path, make_photo) -> Path:
    """A folder of a dozen photos in three sub-folders."""
    folder = tmp_path / "album"
    for number in range(12):
        make_photo(folder / f"day{number % 3}" / f"photo{number:02}.png", number)
    return folder


@pytest.fixture
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the test's library is: a folder, or with `--database postgresql` a database of its own."""
    if request.config.getoption("--database") == "sqlite":
        return str(tmp_path / "library")
    return request.getfixturevalue("database_url")


@pytest.fixture
def open_library(location: str, counting, monkeypatch) -> Callable[[], Library]:
    """Open the test's library with the model loaded once for all tests, as another process would find it."""
    load = LibraryModel.load

    def loaded(self: LibraryModel, name: str, *, photos: int = 0):
        return counting if name == "builtin" else load(self, name, photos=photos)

    def open_() -> Library:
        library = Library.open(location, model="builtin", offline=True)
        library.model.loaded = counting
        return library

    monkeypatch.setattr(LibraryModel, "load", loaded)  # it is let go of when the library is closed
    return open_


@pytest.fixture
def library(open_library):
    with open_library() as library:
        yield library


def write_model(folder: Path, seed: int, context_length: int = 77) -> None:
    """A CLIP of the smallest size with random weights, in open_clip's layout."""
    from search.encoders.torchvision_ops import ensure_torchvision

    ensure_torchvision()
    import open_clip
    import torch
    from safetensors.torch import save_file

    config = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        "text_cfg": {"context_length": context_length, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
    }
    torch.manual_seed(seed)
    save_file(open_clip.CLIP(**config).state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))


@pytest.fixture
def tiny_model(tmp_path: Path) -> str:
    """The name of another model than the built-in one."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    write_model(folder, seed=1)
    return f"dir:{folder}"


@pytest.fixture(scope="session")
def steady_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a tiny model that no test changes, so that what is made of it can be shared."""
    folder = tmp_path_factory.mktemp("steady")
    write_model(folder, seed=1)
    return f"dir:{folder}"


@pytest.fixture
def long_model(tmp_path: Path) -> str:
    """The name of a model that reads long texts."""
    folder = tmp_path / "long"
    folder.mkdir()
    write_model(folder, seed=3, context_length=248)
    return f"dir:{folder}"


@pytest.fixture
def tiny_model_again(tmp_path: Path) -> Callable[[], None]:
    """Put other weights where the tiny model's are."""
    return lambda: write_model(tmp_path / "tiny", seed=2)


@pytest.fixture(scope="session")
def photographs() -> dict[str, Path]:
    """Real photographs by subject, from the wheels of scikit-image and scikit-learn."""
    folders = {}
    for package, inside in (("skimage", "data"), ("sklearn", "datasets/images")):
        spec = find_spec(package)
        assert spec and spec.submodule_search_locations, f"{package} is missing: install the demo group"
        folders[package] = Path(spec.submodule_search_locations[0], inside).resolve()  # as a library does
    subjects = {
        "cat": folders["skimage"] / "chelsea.png",
        "rocket": folders["skimage"] / "rocket.jpg",
        "brick wall": folders["skimage"] / "brick.png",
        "temple": folders["sklearn"] / "china.jpg",
    }
    assert all(path.is_file() for path in subjects.values())
    return subjects
