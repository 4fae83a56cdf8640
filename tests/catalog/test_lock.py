"""One writer at a time, known by name, gone with its process."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from search.catalog import lock
from search.catalog.lock import LOCK_NAME, Holder, writer_lock
from search.errors import LibraryBusy, LibraryError

fcntl = pytest.importorskip("fcntl", reason="POSIX locks")

HOLD = """
import sys
from pathlib import Path
from search.catalog.lock import writer_lock
from search.errors import LibraryBusy
try:
    with writer_lock(Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.read()
except LibraryBusy as busy:
    print(f"busy {busy}", flush=True)
"""


def hold(folder) -> subprocess.Popen:
    """Start a process that tries for the lock and, if it gets it, holds it until its input ends."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_the_lock_says_who_holds_it_and_goes_with_it(tmp_path):
    with writer_lock(tmp_path):
        with pytest.raises(LibraryBusy, match=f"process {os.getpid()} on .*, since 20"), writer_lock(tmp_path):
            pass
        holder = Holder(**json.loads((tmp_path / LOCK_NAME).read_text()))
        this = Holder.this_process()
        assert (holder.pid, holder.host, holder.boot_id) == (os.getpid(), this.host, this.boot_id)
        assert holder.command
    assert (tmp_path / LOCK_NAME).read_bytes() == b""
    with writer_lock(tmp_path):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_f45_a_lock_whose_holder_was_killed_blocks_nobody(tmp_path):
    with hold(tmp_path) as process:
        assert process.stdout.readline() == "held\n"
        process.send_signal(signal.SIGKILL)
    assert json.loads((tmp_path / LOCK_NAME).read_text())["pid"] == process.pid  # the file is still there
    with writer_lock(tmp_path):
        pass


def test_f45_of_twenty_that_start_at_once_exactly_one_writes(tmp_path):
    processes = [hold(tmp_path) for _ in range(20)]
    said = [process.stdout.readline().split(maxsplit=1)[0] for process in processes]
    for process in processes:
        process.communicate("")
    assert sorted(said) == ["busy"] * 19 + ["held"]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_f45_where_files_cannot_be_locked_nobody_writes(tmp_path, monkeypatch, number):
    def refuse(*_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(LibraryError, match="can't lock files"), writer_lock(tmp_path):
        pytest.fail("wrote without a lock")


def test_f45_an_index_run_can_wait_for_its_turn(library, open_library, album):
    library.index([album])
    told: list[str] = []
    free = threading.Event()

    def say(message: str) -> None:
        told.append(message)
        free.set()

    def hold_until_someone_waits() -> None:
        with open_library() as other, other.catalog.writing():
            held.set()
            free.wait(30)

    held = threading.Event()
    library._notify = say
    thread = threading.Thread(target=hold_until_someone_waits)
    thread.start()
    held.wait(30)
    report = library.index([album], wait=True)
    thread.join()
    assert report.unchanged == 12
    assert len(told) == 1
    assert f"process {os.getpid()}" in told[0]


def test_f45_waiting_can_be_ended(library, open_library, album):
    library.index([album])
    stop = threading.Event()
    library._notify = lambda _: stop.set()
    with open_library() as other, other.catalog.writing():
        started = time.monotonic()
        with pytest.raises(LibraryBusy):
            library.index([album], wait=True, stop=stop)
        assert time.monotonic() - started < 60


@pytest.mark.parametrize("content", [b"", b"[1, 2]", b'{"pid": 1}'])
def test_a_holder_that_does_not_say_who_it_is_is_another_process(tmp_path, monkeypatch, content):
    monkeypatch.setattr(lock, "_SIGNING_S", 0.05)
    with writer_lock(tmp_path):
        (tmp_path / LOCK_NAME).write_bytes(content)
        with pytest.raises(LibraryBusy, match="is being written to by another process"), writer_lock(tmp_path):
            pass
        assert lock.is_held(tmp_path)
    assert not lock.is_held(tmp_path)
    assert not lock.is_held(tmp_path / "none")


def test_an_error_of_the_lock_that_says_nothing_of_locks_is_told_as_it_is(tmp_path, monkeypatch):
    def fail(descriptor: int) -> bool:
        raise OSError(errno.EIO, "so it is")

    monkeypatch.setattr(lock, "_try_lock", fail)
    with pytest.raises(OSError, match="so it is"), writer_lock(tmp_path):
        pass
