from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from search.files import (
    SourceStays,
    atomic_write,
    fsync_file,
    fsync_folder,
    move_file,
    new_folder,
    sweep,
    temporary_name,
)


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


def fill(path: Path, content: bytes) -> None:
    with new_folder(path) as folder:
        assert folder.parent == path.parent
        (folder / "file").write_bytes(content)


def test_a_new_folder_is_whole_and_alone(tmp_path: Path) -> None:
    for content in (b"first", b"second"):
        fill(tmp_path / "folder", content)
        assert (tmp_path / "folder" / "file").read_bytes() == content
    assert names(tmp_path) == {"folder"}
    assert names(tmp_path / "folder") == {"file"}


@pytest.mark.parametrize("step", ["fsync", "rename"])
def test_a_folder_that_can_not_be_put_in_place_leaves_the_old_one(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "folder", b"old")
    rename, failed = Path.rename, []

    def full(*given: object) -> object:
        if step == "rename" and (failed or given[1] != tmp_path / "folder"):  # the old one moves aside and back
            return rename(*given)
        failed.append(given)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os if step == "fsync" else Path, step, full)
    with pytest.raises(OSError, match="No space"):
        fill(tmp_path / "folder", b"new")
    assert (tmp_path / "folder" / "file").read_bytes() == b"old"
    assert names(tmp_path) == {"folder"}


def test_a_folder_that_a_dead_process_left_is_swept(tmp_path: Path) -> None:
    code = (
        f"import os\nfrom pathlib import Path\nfrom search.files import new_folder\n"
        f"with new_folder(Path({str(tmp_path)!r}, 'folder')) as made:\n (made / 'file').touch()\n os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    [left] = names(tmp_path)
    assert left.startswith(".folder.")
    sweep(tmp_path)
    assert names(tmp_path) == set()


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


# ---- moving


@pytest.fixture(params=["linked", "copied", "no links at all"])
def moving(request, monkeypatch):
    """Within a file system, to another one, and to one that knows no links."""
    link = os.link

    def refuse(source, target, **options):
        if request.param == "no links at all" or not Path(source).name.endswith(".tmp"):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        link(source, target, **options)

    if request.param != "linked":
        monkeypatch.setattr(os, "link", refuse)
    return request.param


def test_a_moved_file_is_whole_in_its_new_place_only(tmp_path, moving):
    (tmp_path / "a").write_bytes(b"content")
    os.utime(tmp_path / "a", ns=(10**18, 10**18))
    move_file(tmp_path / "a", tmp_path / "deep" / "b")
    assert (tmp_path / "deep" / "b").read_bytes() == b"content"
    assert (tmp_path / "deep" / "b").stat().st_mtime_ns == 10**18
    assert names(tmp_path) == {"deep"} and names(tmp_path / "deep") == {"b"}


def test_a_move_overwrites_nothing(tmp_path, moving):
    (tmp_path / "a").write_bytes(b"content")
    (tmp_path / "b").write_bytes(b"another")
    with pytest.raises(FileExistsError):
        move_file(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == b"content" and (tmp_path / "b").read_bytes() == b"another"
    assert names(tmp_path) == {"a", "b"}


def test_a_move_cut_short_between_the_two_places_can_be_made_again(tmp_path, moving, monkeypatch):
    (tmp_path / "a").write_bytes(b"content")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda path, **_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            move_file(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == b"content"
    with pytest.raises(FileExistsError):
        move_file(tmp_path / "a", tmp_path / "b")  # nobody says that it is the same move
    move_file(tmp_path / "a", tmp_path / "b", resume=True)
    assert not (tmp_path / "a").exists() and (tmp_path / "b").read_bytes() == b"content"


def test_a_copy_that_is_not_what_was_copied_is_thrown_away(tmp_path, monkeypatch):
    import shutil

    (tmp_path / "a").write_bytes(b"content")
    monkeypatch.setattr(os, "link", lambda *_, **__: (_ for _ in ()).throw(OSError(errno.EXDEV, "other")))
    monkeypatch.setattr(shutil, "copy2", lambda source, target, **_: Path(target).write_bytes(b"contenz"))
    with pytest.raises(OSError, match="differs"):
        move_file(tmp_path / "a", tmp_path / "b")
    assert names(tmp_path) == {"a"}


def test_a_file_reached_by_two_folders_is_not_moved_onto_itself(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a").write_bytes(b"content")
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(FileExistsError):
        move_file(tmp_path / "real" / "a", tmp_path / "link" / "a")
    assert (tmp_path / "real" / "a").read_bytes() == b"content"


@pytest.mark.parametrize("failing", ["before", "after"])
def test_a_file_that_cannot_leave_its_folder_is_as_it_was_and_nowhere_else(tmp_path, moving, monkeypatch, failing):
    (tmp_path / "a").write_bytes(b"content")

    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    discard = Path.unlink
    if failing == "before":
        monkeypatch.setattr("search.files.temporary_name", lambda path: path.with_name("no") / "such folder")
    else:
        monkeypatch.setattr(Path, "unlink", lambda path, **_: refuse() if path.name == "a" else discard(path))
    with pytest.raises(SourceStays):
        move_file(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == b"content" and names(tmp_path) == {"a"}
