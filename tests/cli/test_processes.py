"""What only a process of its own shows: signals, pipes, locks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import search
from search.catalog.lock import writer_lock

GUARD_S = 300  # what hangs takes longer; what works, on a machine with much else to do, does not


def wait_for(condition, timeout_s: float = GUARD_S) -> None:
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


@pytest.mark.parametrize(
    "number, code", [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_a_signal_ends_a_run_in_good_order(spawn, place, tmp_path, make_photo, open_library, number, code):
    folder = tmp_path / "many"
    for seed in range(400):
        make_photo(folder / f"{seed:03}.png", seed)
    process = spawn("index", folder, "--model", "builtin", "--batch-size", "4", "--json")
    library = open_library()
    wait_for(lambda: library.catalog.exists() and process.poll() is None)

    def some_are_committed() -> bool:
        try:
            return library.status().photos >= 4
        except Exception:  # the catalog is being made
            return False

    wait_for(some_are_committed)
    process.send_signal(number)
    out, err = process.communicate(timeout=GUARD_S)
    assert process.returncode == code, err
    report = json.loads(out)
    assert report["interrupted"]
    assert 4 <= report["photos"] < 400
    assert library.status().photos == report["photos"]
    rest = library.index([folder])
    assert rest.added == 400 - report["photos"]
    assert rest.unchanged == report["photos"]


@pytest.mark.slow
def test_a_second_signal_ends_a_run_at_once_and_consistently(spawn, tmp_path, make_photo, open_library):
    folder = tmp_path / "many"
    for seed in range(300):
        make_photo(folder / f"{seed:03}.png", seed)
    process = spawn("index", folder, "--model", "builtin", "--batch-size", "4")
    library = open_library()

    def some_are_committed() -> bool:
        try:
            return library.status().photos >= 4
        except Exception:  # the catalog is being made
            return False

    wait_for(some_are_committed)
    process.send_signal(signal.SIGINT)
    assert "once more" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=GUARD_S)
    assert process.returncode == 130
    status = library.status()
    assert status.job.state == "interrupted"
    assert status.job.done == status.photos
    assert library.check().ok
    assert library.index([folder]).added == 300 - status.photos


def test_a_second_writer_is_told_who_holds_the_library(spawn, place, album, library):
    library.index([album])
    with writer_lock(place):
        process = spawn("index", album)
        _, err = process.communicate(timeout=GUARD_S)
    assert process.returncode == 75
    assert f"process {os.getpid()}" in err


def test_f45_a_second_writer_gives_up_at_once_or_waits_if_asked(spawn, place, album, library):
    library.index([album])
    with writer_lock(place):
        waiting = spawn("index", album, "--wait")
        told = waiting.stderr.readline()
        assert f"process {os.getpid()}" in told
        assert "waiting" in told
        assert waiting.poll() is None
    out, err = waiting.communicate(timeout=GUARD_S)
    assert (waiting.returncode, err) == (0, "")
    assert "unchanged 12" in out


def test_f45_a_writer_that_waits_can_be_interrupted(spawn, place, album, library):
    library.index([album])
    with writer_lock(place):
        waiting = spawn("index", album, "--wait")
        assert "waiting" in waiting.stderr.readline()
        waiting.send_signal(signal.SIGINT)
        _, err = waiting.communicate(timeout=GUARD_S)
    assert waiting.returncode == 130, err


def test_s12_nothing_is_imported_from_the_folder_one_stands_in(library, album, place, tmp_path):
    library.index([album])
    hostile = tmp_path / "hostile"
    hostile.mkdir()
    for name in ("click", "numpy", "sqlalchemy", "faiss", "platformdirs", "psutil", "regex", "ftfy", "json"):
        (hostile / f"{name}.py").write_text("raise SystemExit('imported from the current folder')")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["PYTHONPATH"] = str(Path(search.__file__).parent.parent)
    command = [
        sys.executable,
        "-m",
        "search",
        "--library",
        str(place),
        "find",
        "a red wall",
        "--min-relevance",
        "0",
        "--format",
        "paths",
    ]
    done = subprocess.run(command, cwd=hostile, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 10


def test_a_full_disk_is_an_exit_of_its_own(place, album, library):
    """A catalog that may not grow stands for a disk that is full."""
    library.index([album])
    script = (
        "import search.catalog.engines as s, sys\n"
        "s._WRITER_PRAGMAS += ('PRAGMA max_page_count = 1',)\n"
        "sys.argv = ['search', '--library', sys.argv[1], 'label', '--label', 'x', '--apply', '--model', 'builtin']\n"
        "from search.cli import main\nmain()"
    )
    # The largest label is longer than what is left on the last page.
    done = subprocess.run(
        [sys.executable, "-c", script.replace("'x'", repr("x" * 100_000)), str(place)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 4, done.stderr
    assert "full" in done.stderr
    assert library.status().photos == 12


def test_a_reader_that_goes_away_is_no_error(library, album, place):
    """The answer is longer than what a pipe holds."""
    library.index([album])
    queries = place.parent / "queries.txt"
    queries.write_text("x\n" * 400)
    find = f"{sys.executable} -m search --library {place} find --min-relevance 0"
    command = f"{find} --queries {queries} --format paths | head -c 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert done.stderr == ""
    assert done.returncode == 0


def test_a_folder_that_was_deleted_under_ones_feet_is_one_line(spawn, tmp_path, place):
    gone = tmp_path / "gone"
    gone.mkdir()
    script = f"cd {gone} && rmdir {gone} && {sys.executable} -m search --library {place} index . --model builtin"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("search: ")
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_progress_is_silent_unless_asked(spawn, run, album):
    quiet = spawn("index", album, "--model", "builtin", "--json")
    assert quiet.communicate(timeout=GUARD_S)[1] == ""
    (album / "day0" / "photo00.png").write_bytes((album / "day1" / "photo01.png").read_bytes())
    loud = run("index", album, "--verbose", "--json")
    assert "scanning" in loud.stderr
    json.loads(loud.stdout)
