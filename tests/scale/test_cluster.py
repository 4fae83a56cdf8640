"""A cluster of two machines, both this one, that somebody else started: what goes wrong and what holds."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from search import Library

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not find_spec("ray"), reason="Ray is not installed")]

HERE = Path(__file__).parents[1]
ALONE = {"num_cpus": 1}


@dataclass(frozen=True, slots=True)
class Nodes:
    """Two nodes: the first one, whose address it is, and another."""

    process: subprocess.Popen[str]
    address: str

    def lose(self, which: str) -> None:
        """Kill a node and all it runs: `other` or `head`."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{which}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def at_work(self) -> list[psutil.Process]:
        """The workers that run a shard."""
        found = psutil.Process(self.process.pid).children(recursive=True)
        return [process for process in found if named(process).startswith("ray::_run")]


def named(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return "".join(process.cmdline()[:1])
    return ""


@contextmanager
def two_nodes(head: dict[str, int], other: dict[str, int]) -> Iterator[Nodes]:
    command = [sys.executable, str(HERE / "scale_cluster.py"), json.dumps(head), json.dumps(other)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin and process.stdout
    parts = []
    try:
        address = process.stdout.readline().strip()
        assert address, "it did not start"
        parts = psutil.Process(process.pid).children(recursive=True)
        yield Nodes(process, address)
    finally:
        process.kill()
        process.wait()
        process.stdin.close(), process.stdout.close()
        for part in parts:
            with suppress(psutil.Error):
                part.kill()


@pytest.fixture(scope="module", autouse=True)
def token() -> Iterator[None]:
    """What the cluster asks of whoever connects."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", "5e" * 32)
        yield


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """A test that fails leaves its driver behind."""
    yield
    for process in psutil.Process().children():
        with suppress(psutil.Error):
            if "scale_driver.py" in " ".join(process.cmdline()):
                process.kill()


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """2,000 photos in twenty folders."""
    import numpy as np
    from PIL import Image

    folder = tmp_path_factory.mktemp("photos")
    for number in range(2000):
        noise = np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)
        place = folder / f"{number // 100:02}" / f"{number:04}.jpg"
        place.parent.mkdir(exist_ok=True)
        Image.fromarray(noise).resize((64, 48), Image.Resampling.BICUBIC).save(place)
    return folder


@dataclass(frozen=True, slots=True)
class Indexing:
    """`search index` of a folder into a library, in shards."""

    library: Path
    photos: Path
    model: str

    @property
    def store(self) -> Path:
        return self.library.with_name("shards")

    def begin(self, task: str, *more: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(HERE / "scale_driver.py"), task, "-L", str(self.library), "--json", "index"]
        command += [str(self.photos), "--model", self.model, "--shards", str(self.store), *more]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def done(self) -> int:
        """How many shards are in the store."""
        return len(list(self.store.glob("*/*.parquet")))

    def reaches(self, shards: int, driver: subprocess.Popen[str]) -> None:
        wait_until(lambda: self.done() >= shards or driver.poll() is not None)
        assert driver.poll() is None, driver.communicate()


def wait_until(holds: Callable[[], object]) -> None:
    ends = time.monotonic() + 240
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.05)


def ended(driver: subprocess.Popen[str]) -> dict:
    said, complained = driver.communicate(timeout=400)
    assert said, complained
    return json.loads(said) | {"code": driver.returncode}


def vectors_of(path: Path) -> dict[str, bytes]:
    with Library.open(path, offline=True) as library:
        assert library.check(full=True).ok
        ids = library.catalog.all_ids().tolist()
        found, vectors = library.catalog.embeddings(library.catalog.encoder(), ids)
        places = {photo.id: photo.path for photo in library.catalog.get(ids)}
        assert len(found) == len(set(places.values())) == len(ids)
        return {places[id_]: vector.tobytes() for id_, vector in zip(found.tolist(), vectors, strict=True)}


def test_whatever_dies_every_photo_comes_in_once_and_the_deadly_one_is_named(photos, steady_model, tmp_path):
    poison = photos / "07" / "poison.jpg"
    poison.write_bytes((photos / "07" / "0700.jpg").read_bytes() + b"deadly")
    indexing = Indexing(tmp_path / "library", photos, steady_model)
    with two_nodes(ALONE, ALONE) as nodes:
        far = ("--engine", "ray", "--ray-address", nodes.address, "--shard-size", "50")
        driver = indexing.begin("poisoned", *far)
        indexing.reaches(3, driver)
        wait_until(nodes.at_work)
        nodes.at_work()[0].send_signal(signal.SIGKILL)
        indexing.reaches(8, driver)
        driver.kill()
        driver.communicate()
        left = indexing.done()

        driver = indexing.begin("poisoned", *far)
        indexing.reaches(left + 8, driver)
        nodes.lose("other")
        report = ended(driver)
    assert (report["code"], report["photos"]) == (0, 2000)
    assert [(skip["path"], skip["reason"]) for skip in report["skipped"]] == [(str(poison), "quarantined")]

    poison.unlink()
    with Library.open(tmp_path / "plain", model=steady_model, offline=True) as plain:
        plain.index([photos])
    assert vectors_of(indexing.library) == vectors_of(tmp_path / "plain")


def test_a_cluster_that_is_lost_ends_the_run_and_the_rest_is_done_here(photos, tmp_path):
    indexing = Indexing(tmp_path / "library", photos / "03", "builtin")
    with two_nodes(ALONE, ALONE) as nodes:
        far = ("--engine", "ray", "--ray-address", nodes.address, "--shard-size", "5")
        driver = indexing.begin("encode_shard", *far)
        indexing.reaches(2, driver)
        nodes.lose("head")
        report = ended(driver)
    assert (report["code"], report["error"]["type"]) == (1, "ClusterLost")
    assert nodes.address in report["error"]["message"]

    away = ended(indexing.begin("encode_shard", *far))
    assert (away["code"], away["error"]["message"]) == (1, f"no Ray cluster answers at {nodes.address}")

    kept = indexing.done()
    here = ended(indexing.begin("encode_shard"))
    assert (here["code"], here["photos"], len(here["skipped"])) == (0, 100, 0)
    assert 0 < here["encoded"] <= 100 - 5 * kept


def test_shards_share_gpus_as_they_are_told_and_strangers_get_none(photos, tmp_path, monkeypatch):
    indexing = Indexing(tmp_path / "library", photos / "04", "builtin")
    with two_nodes(ALONE, {"num_cpus": 4, "num_gpus": 2}) as nodes:
        far = ("--engine", "ray", "--ray-address", nodes.address, "--shard-size", "10")
        assert ended(indexing.begin("with_gpus", *far, "--gpus", "0.5"))["photos"] == 100
        given = indexing.store.with_suffix(".gpus").read_text().split()
        assert (len(given), set(given)) == (10, {"0", "1"})
        greedy = Indexing(tmp_path / "other" / "library", photos / "04", "builtin")
        refused = ended(greedy.begin("with_gpus", *far, "--gpus", "3"))
        assert (refused["code"], "no machine" in refused["error"]["message"]) == (1, True)
        monkeypatch.setenv("RAY_AUTH_TOKEN", "0f" * 32)
        strange = ended(greedy.begin("with_gpus", *far))
    assert (strange["code"], strange["error"]["type"]) == (1, "ClusterLost")
    assert "does not let us in" in strange["error"]["message"]
