from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from search.files import atomic_write, fsync_file, fsync_folder, sweep, temporary_name


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_written_file_is_whole_and_alone(tmp_path: Path) -> None:
    for content in (b"first", b"", b"second, longer"):
        atomic_write(tmp_path / "file", content)
        assert (tmp_path / "file").read_bytes() == content
    assert names(tmp_path) == {"file"}


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    atomic_write(tmp_path / "file", b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, step, full)
    monkeypatch.setattr(Path, step, full, raising=False)
    with pytest.raises(OSError, match="No space"):
        atomic_write(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == {"file"}


def test_until_it_is_published_a_file_has_a_hidden_name_of_its_own(tmp_path: Path) -> None:
    one, other = (temporary_name(tmp_path / "file") for _ in range(2))
    assert one != other
    assert one.parent == tmp_path
    assert one.name.startswith(".file.")
    assert one.name.endswith(".tmp")


def test_what_dead_processes_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    code = (
        f"from pathlib import Path\nfrom search.files import temporary_name\n"
        f"name = temporary_name(Path({str(tmp_path)!r}, 'file'))\nname.touch()\nprint(name.name)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    dead = tmp_path / done.stdout.strip()
    mine, old = temporary_name(tmp_path / "file"), temporary_name(tmp_path / "file")
    elsewhere = dead.with_name(dead.name.replace(dead.name.split(".")[2][:8], "00000000"))
    for path in (mine, old, elsewhere, tmp_path / "file", tmp_path / ".file.tmp", tmp_path / ".file.12-x.tmp"):
        path.touch()
        if path is not mine and path is not elsewhere:
            os.utime(path, (time.time() - 7200,) * 2)
    sweep(tmp_path)
    assert names(tmp_path) == {mine.name, elsewhere.name, "file", ".file.tmp", ".file.12-x.tmp"}


def test_a_folder_that_is_not_there_is_swept_too(tmp_path: Path) -> None:
    sweep(tmp_path / "no")


def test_files_and_folders_can_be_synced_and_missing_ones_are_errors(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    fsync_file(tmp_path / "file")
    fsync_folder(tmp_path)
    with pytest.raises(FileNotFoundError):
        fsync_file(tmp_path / "no")
