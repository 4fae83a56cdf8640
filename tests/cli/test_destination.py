"""Files that answers are written to: nothing but an earlier answer is ever replaced."""

from __future__ import annotations

import os
import sys

import pytest

from search.cli import destination
from search.errors import StorageError


@pytest.fixture
def indexed(run, album):
    assert run("index", album, "--model", "builtin").code == 0
    return run


FIND = ("find", "a wall", "--min-relevance", "0", "-k", "2")


@pytest.mark.parametrize("command", [FIND, ("similar", "1"), ("duplicates",)])
def test_a_photo_is_never_written_over_whatever_its_name(indexed, album, command):
    photo = album / "day1" / "photo01.png"
    content = photo.read_bytes()
    for name in (photo, album / "photo.html", album / "photo.txt", album / "photo"):
        name.write_bytes(content)
        done = indexed(*command, "--output", name)
        assert (done.code, done.stdout) == (2, "")
        assert str(name) in done.stderr
        assert name.read_bytes() == content


@pytest.mark.parametrize("name, arguments", [("x.html", []), ("x.csv", []), ("x.txt", []), ("x", ["--print0"])])
def test_an_earlier_answer_of_the_same_kind_is_replaced(indexed, tmp_path, name, arguments):
    file = tmp_path / name
    file.touch()  # an empty file is nothing to lose
    for _ in range(2):
        assert indexed(*FIND, "-o", file, *arguments).code == 0
        assert file.stat().st_size
    other = ["--print0"] if name == "x.txt" else []
    if name in ("x.txt", "x"):
        assert indexed(*FIND, "-o", file, *other).code == 2


def test_a_sheet_of_duplicates_is_replaced_by_a_later_one(indexed, tmp_path):
    for _ in range(2):
        assert indexed("duplicates", "-o", tmp_path / "x.html").code == 0


@pytest.mark.parametrize(
    "content, output, is_like",
    [
        (b"/a\n/b\n", "paths", True),
        (b"/a\nnotes\n", "paths", False),
        (b"/a\n/b", "paths", False),
        (b"/a\0/b\0", "paths", False),
        (b"/a\0/b\0", "print0", True),
        (b"/a\n/b\n", "print0", False),
        (b"/" + b"a" * 5000 + b"\n", "paths", True),
        (b"query,rank,id,score,relevance\n", "csv", True),
        (b"query,answer\n", "csv", False),
        (b"<!doctype html>\n<html>somebody's own", "html", False),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="paths of Unix")
def test_a_file_is_known_by_how_it_begins(tmp_path, content, output, is_like):
    file = tmp_path / "x"
    file.write_bytes(content)
    if is_like:
        destination.write(str(file), output, [b"new"])
    else:
        with pytest.raises(destination.click.UsageError, match="it stays"):
            destination.write(str(file), output, [b"new"])
    assert file.read_bytes() == (b"new" if is_like else content)


def test_the_name_and_the_format_agree(indexed, tmp_path):
    for name, arguments in (("x.html", ["--format", "csv"]), ("x.csv", ["--print0"]), ("x.pdf", []), ("", [])):
        done = indexed(*FIND, "-o", tmp_path / name if name else "", *arguments)
        assert done.code == 2
    assert not list(tmp_path.glob("x*"))


def test_what_is_no_file_stays(indexed, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", tmp_path):
        assert indexed(*FIND, "-o", place).code == 2
    assert (tmp_path / "pipe").is_fifo()


def test_a_missing_folder_is_named_and_a_full_disk_is_a_storage_error(indexed, tmp_path):
    done = indexed(*FIND, "-o", tmp_path / "nowhere" / "x.html")
    assert (done.code, done.stderr) == (
        1,
        f"search: there is no folder {tmp_path}/nowhere to write {tmp_path}/nowhere/x.html in\n",
    )
    long = tmp_path / f"{'x' * 240}.csv"  # as a full disk: the system refuses what is written beside it
    done = indexed(*FIND, "-o", long)
    assert done.code == 4
    assert done.stderr.startswith(f"search: can't write {long}: ")
    assert ".tmp" not in done.stderr
    assert not list(tmp_path.glob("*x.csv*"))


def test_what_fails_half_way_leaves_what_was_there(tmp_path):
    file = tmp_path / "x.txt"
    file.write_bytes(b"/a\n")

    def parts():
        yield b"/b\n"
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match=r"x\.txt: No space left on device"):
        destination.write(str(file), "paths", parts())
    assert file.read_bytes() == b"/a\n"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--print0", "--format", "csv"],
        ["--print0", "--format", "html"],
        ["--json", "--format", "html"],
        ["--json", "--print0"],
    ],
)
def test_two_formats_at_once_are_refused(indexed, arguments):
    done = indexed(*FIND, *arguments)
    assert (done.code, done.stdout) == (2, "")
