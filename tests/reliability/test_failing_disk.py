"""Whichever call of an index run the disk refuses, the library is whole, the user is told, and the next run goes on.

The disk is a library that stands before libc's (failing_disk.c) and fails the Nth call on the library's folder.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import random
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from reliability.disk import KINDS, Control, FailingDisk
from reliability.nursery import Nursery, Outcome

from reliability import album

pytestmark = pytest.mark.programs  # a C compiler
PHOTOS = 40
ERRORS = {
    "ENOSPC": errno.ENOSPC,
    "EIO": errno.EIO,
    "EACCES": errno.EACCES,
    "EDQUOT": errno.EDQUOT,
    "short write": 0,
}
LOCKS = 1 << KINDS.index("lock")
OTHERS = (1 << len(KINDS)) - 1 - LOCKS  # SQLite waits for seconds for a lock: those have a test of their own
SAID_TO_USER = {4, 75}  # 75: a lock that is refused is a lock that another holds


@dataclass
class Disk:
    """A disk below `library` that can be told to fail, and the nursery whose children write to it."""

    control: Control
    nursery: Nursery
    model: str
    folder: Path

    @property
    def library(self) -> Path:
        return self.folder / "library"

    @property
    def output(self) -> Path:
        return self.folder / "output.txt"

    def index(
        self, *, fail_at: int = 0, error: int = 0, for_good: bool = False, kinds: int = OTHERS | LOCKS
    ) -> Outcome:
        """Run `search index` on the folder's photos while the disk fails as said."""
        ctypes.memset(ctypes.byref(self.control), 0, ctypes.sizeof(Control))
        self.control.kinds = kinds
        self.control.fail_at, self.control.error, self.control.for_good = fail_at, error, for_good
        self.control.folder = bytes(self.library)
        command = [
            "--library",
            self.library,
            "index",
            self.folder / "photos",
            "--batch-size",
            "8",
            "--workers",
            "1",
        ]
        arguments = [*map(str, command), "--model", self.model]
        try:
            return self.nursery.run("command", arguments=arguments, output=str(self.output))
        finally:
            self.control.folder = b""


@pytest.fixture(scope="module")
def disk(
    failing_disk: FailingDisk | None, nursery: Nursery, small_model: str, tmp_path_factory: pytest.TempPathFactory
) -> Disk:
    if failing_disk is None:
        pytest.skip("the failing disk needs Linux and a C compiler")
    folder = tmp_path_factory.mktemp("disk")
    album.make(folder / "photos", range(PHOTOS))
    return Disk(failing_disk.control, nursery, small_model, folder)


@pytest.fixture(scope="module")
def calls(disk: Disk) -> dict[int, int]:
    """How many calls a run makes that meets no failure: other calls than locks, and locks."""
    clear(disk)
    done = disk.index()
    assert done.result == 0, disk.output.read_text()
    counts = dict(zip(KINDS, disk.control.by_kind, strict=True))
    print(f"\n{disk.control.calls} calls: {counts}")
    assert all(counts[kind] for kind in ("write", "sync", "lock", "create")), (
        "the shim does not see SQLite's calls"
    )
    return {OTHERS: disk.control.calls - counts["lock"], LOCKS: counts["lock"]}


def clear(disk: Disk) -> None:
    shutil.rmtree(disk.library, ignore_errors=True)


def fail_and_recover(disk: Disk, number: int, name: str, *, for_good: bool, kinds: int = OTHERS) -> int:
    """Let one call fail, look at what is there, lift the failure and complete the work; return the exit code."""
    clear(disk)
    outcome = disk.index(fail_at=number, error=ERRORS[name], for_good=for_good, kinds=kinds)
    said = disk.output.read_text(errors="replace")
    where = f"{name} at call {number}{' and from then on' if for_good else ''}:\n{said}"
    code = outcome.result
    assert "Traceback" not in said, where
    told = [line for line in said.splitlines() if line.startswith(("search: ", "warning: "))]
    if code:
        assert code in SAID_TO_USER, where
        assert len(told) == 1, where
    whole = album.contents(disk.folder / "photos")
    failed = code and told[0].startswith("search: ")  # else only the generation could not be written
    wanted = whole if not failed else {path: whole[path] for path in outcome.acknowledged}
    assert not wrong(disk, wanted), f"{wrong(disk, wanted)} {where}"
    assert disk.index().result == 0, where + disk.output.read_text()
    seen = disk.nursery.run("look", library=str(disk.library)).result
    assert not seen["problems"], where
    assert not album.holds(seen, whole), where
    return code


def wrong(disk: Disk, expected: dict[str, str]) -> list[str]:
    """What is damaged beyond repair, and what of these photos is not there."""
    if not (disk.library / "catalog.db").exists():
        return album.missing({"photos": []}, expected)
    looked = disk.nursery.run("look", library=str(disk.library))
    if looked.code and "LibraryNotFound" in str(looked.all("failed")):
        return album.missing({"photos": []}, expected)
    remaining = [p for p in looked.result["remaining"] if not p.startswith("vector_missing")]
    return album.faults(looked.result | {"remaining": remaining}) + album.missing(looked.result, expected)


BOTH = pytest.mark.parametrize(
    "for_good", [pytest.param(False, marks=pytest.mark.slow, id="once"), pytest.param(True, id="from then on")]
)


@BOTH
def test_a_refused_call_damages_nothing(disk, calls, seed, for_good):
    rng = random.Random(seed)
    for number in sorted(rng.sample(range(1, calls[OTHERS] + 1), 4)):
        fail_and_recover(disk, number, rng.choice(list(ERRORS)), for_good=for_good)


@pytest.mark.slow
@BOTH
def test_whichever_call_is_refused_nothing_is_damaged(disk, calls, seed, part, for_good):
    """Every call of a run; which of the errors it meets goes round, another way for every seed."""
    step = next(step for step in itertools.count(round(1 / part)) if step % len(ERRORS))  # else all meet the same
    sweep(disk, range(1 + seed % step, calls[OTHERS] + 1, step), seed, for_good=for_good)


@pytest.mark.slow
@BOTH
def test_whichever_lock_is_refused_nothing_is_damaged(disk, calls, seed, for_good):
    step = calls[LOCKS] // (6 if for_good else 60) or 1
    sweep(disk, range(1 + seed % step, calls[LOCKS] + 1, step), seed, for_good=for_good, kinds=LOCKS)


def sweep(disk: Disk, numbers: range, seed: int, *, for_good: bool, kinds: int = OTHERS) -> None:
    codes: Counter[tuple[str, int]] = Counter()
    failures = []
    for number in numbers:
        name = list(ERRORS)[(number + seed) % len(ERRORS)]
        try:
            codes[name, fail_and_recover(disk, number, name, for_good=for_good, kinds=kinds)] += 1
        except AssertionError as error:
            failures.append(str(error).partition("\nassert")[0])
    print(f"\n{len(numbers)} calls refused, (error, exit code): {dict(codes)}; {len(failures)} wrong")
    assert not failures, "\n\n".join(failures)


def test_a_commit_that_the_disk_refuses_acknowledges_nothing(disk, calls):
    clear(disk)
    outcome = disk.index(fail_at=1, error=errno.ENOSPC, for_good=True)
    assert outcome.result == 4
    assert not outcome.acknowledged
    assert disk.control.failed
