"""Power is cut while photos are written: what was acknowledged is there when it is back.

A file system of its own on a loop device is shut down so that everything not flushed is dropped, its journal too, as
in xfstests; mounting it again replays the journal.
"""

from __future__ import annotations

import fcntl
import math
import os
import random
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from reliability.nursery import Nursery

pytestmark = pytest.mark.slow

TRIALS = {"ext4": 50, "xfs": 50}
CONTROLS = 10
SHUTDOWN = 0x8004587D  # FS_IOC_SHUTDOWN
NO_LOG_FLUSH = struct.pack("I", 2)
MAKE = {"ext4": (["mkfs.ext4", "-q", "-F"], 96), "xfs": (["mkfs.xfs", "-q", "-f"], 320)}


@dataclass(frozen=True)
class Aftermath:
    """What was left by one power cut."""

    acknowledged: int
    lost: int
    problems: list[str]

    @property
    def damaged(self) -> bool:
        return bool(self.lost or self.problems)


@pytest.fixture(params=MAKE)
def image(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A file system's kind and the file it lies in; skipped where it can't be made or mounted."""
    kind: str = request.param
    if not sys.platform.startswith("linux") or os.geteuid():
        pytest.skip("cutting the power of a file system is for root on Linux")
    if not shutil.which(MAKE[kind][0][0]):
        pytest.skip(f"{MAKE[kind][0][0]} is not installed")
    file = tmp_path / "disk.img"
    make(kind, file)
    try:
        with mounted(file, tmp_path / "mount"):
            pass
    except subprocess.CalledProcessError as error:
        pytest.skip(f"loop devices can't be mounted here: {error.stderr}")
    yield kind, file


def make(kind: str, file: Path) -> None:
    command, megabytes = MAKE[kind]
    with file.open("wb") as opened:
        opened.truncate(megabytes << 20)
    subprocess.run([*command, file], check=True, capture_output=True)


@contextmanager
def mounted(file: Path, place: Path) -> Iterator[Path]:
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", file, place], check=True, capture_output=True, text=True)
    try:
        yield place
    finally:
        if subprocess.run(["umount", place], capture_output=True).returncode:
            subprocess.run(["umount", "-l", place], check=True, capture_output=True)


def cut_power(place: Path) -> None:
    folder = os.open(place, os.O_RDONLY)
    try:
        fcntl.ioctl(folder, SHUTDOWN, NO_LOG_FLUSH)
    finally:
        os.close(folder)


def trial(image: tuple[str, Path], nursery: Nursery, rng: random.Random, careless: str = "") -> Aftermath:
    """Write until the power goes, mount again and look.

    One time in five it goes while the library is being made, else some moments after the first batch is acknowledged.
    """
    kind, file = image
    make(kind, file)
    place = file.parent / "mount"
    library = str(place / "library")
    with mounted(file, place):
        nursery.start("stream", library=library, careless=careless, kill_after_s=60)
        if careless or rng.random() > 0.2:
            nursery.wait_for("written")
        time.sleep(rng.uniform(0, 0.5))
        cut_at = time.monotonic()  # what is acknowledged later was on its way when the power went
        cut_power(place)
        written = [event for event in nursery.finish().events if "written" in event and event["at"] < cut_at]
    acknowledged = {id_ for event in written for id_ in event["written"]}
    with mounted(file, place):
        there = nursery.run("tally", library=library)
        if there.code and not acknowledged:  # cut while it was made: the next writer makes it
            assert nursery.run("stream", library=library, batches=1).code == 0
            there = nursery.run("tally", library=library)
    if there.code:
        return Aftermath(len(acknowledged), len(acknowledged), there.all("failed"))
    lost = acknowledged - set(there.result["ids"])
    return Aftermath(len(acknowledged), len(lost), there.result["problems"])


def test_nothing_acknowledged_is_lost_when_the_power_goes(image, nursery, seed, part):
    rng = random.Random(seed)
    trials = [trial(image, nursery, rng) for _ in range(math.ceil(TRIALS[image[0]] * part))]
    tell(image[0], "as it is", trials)
    assert not [one for one in trials if one.damaged]
    assert sum(one.acknowledged for one in trials) > 20 * len(trials)


@pytest.mark.parametrize("careless", ["synchronous = OFF", "no fsync"])
def test_the_method_shows_what_carelessness_costs(image, nursery, seed, careless):
    rng = random.Random(seed)
    trials = [trial(image, nursery, rng, careless) for _ in range(CONTROLS)]
    tell(image[0], careless, trials)
    assert sum(one.damaged for one in trials) > CONTROLS / 2


def tell(kind: str, how: str, trials: list[Aftermath]) -> None:
    acknowledged, lost = sum(one.acknowledged for one in trials), sum(one.lost for one in trials)
    damaged = sum(one.damaged for one in trials)
    print(f"\n{kind}, {how}: {len(trials)} trials, {damaged} damaged, {lost} of {acknowledged} acknowledged lost")
