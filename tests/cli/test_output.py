"""How answers are printed: columns that fit, odd names, files, viewers."""

from __future__ import annotations

import base64
import contextlib
import csv
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from search.cli.columns import aligned, shortened, width
from search.cli.output import answer_parts, emit_answers
from search.types import Answer, Hit, Photo, PhotoInfo


def answer(path: str, *, camera: str | None = None, labels: tuple[str, ...] = (), query: str = "x") -> Answer:
    info = PhotoInfo("jpeg", 4, 3, camera=camera, latitude=-33.5)
    photo = Photo(1, "/", path, 1, 1, "", info, labels)
    return Answer(query, "builtin", (Hit(-0.25, 0.5, photo),), 1, 0, 0.0)


def rows(*answers: Answer) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(b"".join(answer_parts(answers, "csv")).decode(), newline="")))


@pytest.mark.parametrize(
    "text, columns", [("abc", 3), ("日本", 4), ("é", 1), ("e\u0301", 1), ("ｱ", 1), ("🐈", 2), ("", 0)]
)
def test_width_is_what_a_terminal_gives_a_text(text, columns):
    assert width(text) == columns


def test_a_long_name_loses_its_middle():
    assert shortened("/home/you/Pictures/holiday/photo.jpg", 20) == "/home/…day/photo.jpg"
    assert shortened("short", 20) == "short"


@pytest.mark.parametrize("columns", range(3, 30))
def test_a_shortened_text_fits_whatever_its_letters(columns):
    text = "/写真/東京タワーと夜景/e\u0301te\u0301 à la mer/日本.jpg"
    assert columns - 2 <= width(shortened(text, columns)) <= columns


def test_columns_stand_below_one_another_where_letters_are_wide():
    lines = list(aligned([("日本", "1", "a"), ("x", "22", "b")], right={1}, giving=None, columns=None))
    assert lines == ["日本   1  a", "x     22  b"]


def test_only_the_column_that_gives_way_is_shortened():
    table = [("1", "0.123", "/a/very/long/path/to/a/photo.jpg")]
    [line] = aligned(table, right=set(), giving=2, columns=30)
    assert line.startswith("1  0.123  /a/ve")
    assert line.endswith("photo.jpg")
    assert len(line) == 30
    assert list(aligned(table, right=set(), giving=2, columns=None)) == [
        "1  0.123  /a/very/long/path/to/a/photo.jpg"
    ]


def test_a_table_on_a_terminal_has_a_header_and_fits(library, tmp_path):
    """In 60 columns dates find no room beside these names; in 160 they do."""
    import pty

    folder = tmp_path / ("album " * 8)
    folder.mkdir()
    exif = Image.Exif()
    exif.get_ifd(0x8769)[36867] = "2021:05:04 12:30:00"
    Image.new("RGB", (60, 40), "red").save(folder / "日本.jpg", exif=exif)
    library.index([folder])
    for columns in (60, 160):
        screen, line = pty.openpty()
        command = [
            sys.executable,
            "-m",
            "search",
            "-L",
            str(tmp_path / "library"),
            "find",
            "red",
            "--min-relevance",
            "0",
        ]
        environment = {**os.environ, "COLUMNS": str(columns)}
        subprocess.run(command, stdin=subprocess.DEVNULL, stdout=line, check=True, env=environment, cwd=tmp_path)
        header, row, *_ = (
            os.read(screen, 65536).decode().replace("\x1b[2m", "").replace("\x1b[0m", "").splitlines()
        )
        os.close(screen)
        os.close(line)
        assert header.split() == ["score", "relevance", *(["taken"] if columns == 160 else []), "photo"]
        assert ("2021-05-04" in row) == (columns == 160)
        assert row.endswith("日本.jpg")
        assert width(row) <= columns


def test_csv_keeps_any_name_in_one_cell():
    [row] = rows(answer('/a,"b"\nc.jpg', camera="Leica", labels=("cat", "dog")))
    assert (row["path"], row["camera"], row["labels"]) == ('/a,"b"\nc.jpg', "Leica", "cat; dog")


def test_csv_escapes_what_is_no_utf_8_in_a_name():
    [row] = rows(answer("/a\udcff.jpg"))
    assert row["path"] == "/a\\udcff.jpg"
    assert base64.b64decode(row["path_bytes"]) == b"/a\xff.jpg"
    assert rows(answer("/é.jpg"))[0]["path_bytes"] == ""


@pytest.mark.parametrize("text", ["=cmd()", "+1", "-dark sky", "@x", "\tx", "\rx"])
def test_csv_text_is_no_formula_and_numbers_stay_numbers(text):
    [row] = rows(answer("/a.jpg", camera=text, labels=(text,), query=text))
    assert (row["camera"], row["labels"], row["query"]) == (f"'{text}",) * 3
    assert (row["score"], row["latitude"], row["path"]) == ("-0.25", "-33.5", "/a.jpg")


@pytest.mark.parametrize("output, end", [("paths", b"\n"), ("print0", b"\0")])
def test_paths_are_the_file_systems_own_bytes(output, end):
    assert b"".join(answer_parts([answer("/a\n\udcff.jpg")], output)) == b"/a\n\xff.jpg" + end


@pytest.mark.parametrize("output", ["paths", "print0", "csv"])
def test_control_characters_reach_files_and_no_terminal(output, monkeypatch):
    """What they would do to the terminal, to rename it for one, is shown instead."""
    hostile = answer("/a\x1b]0;mine\x07\n.jpg")
    raw = b"".join(answer_parts([hostile], output))
    assert b"\x1b" in raw
    for on_terminal in (False, True):
        there = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
        monkeypatch.setattr(there, "isatty", lambda answer=on_terminal: answer, raising=False)
        with contextlib.redirect_stdout(there):
            emit_answers([hostile], output)
        shown = there.buffer.getvalue()
        assert (shown == raw) != on_terminal
        assert (b"/a\\x1b]0;mine\\x07\\n.jpg" in shown) == on_terminal
        assert (b"\x1b" in shown) != on_terminal


@pytest.fixture
def indexed(run, album):
    assert run("index", album, "--model", "builtin").code == 0
    return run


def test_an_answer_is_written_to_a_file_of_the_kind_its_name_says(indexed, tmp_path):
    for name, arguments, begins in [
        ("sheet.html", [], b"<!doctype html>"),
        ("hits.CSV", [], b"query,rank,"),
        ("hits", [], b"/"),
        ("hits.txt", ["--format", "csv"], b"query,rank,"),
        ("hits0", ["--print0"], b"/"),
    ]:
        done = indexed("find", "a wall", "--min-relevance", "0", "-k", "2", "-o", tmp_path / name, *arguments)
        assert (done.code, done.stdout) == (0, "")
        content = (tmp_path / name).read_bytes()
        assert content.startswith(begins)
        assert (content.count(b"\0") == 2) == ("--print0" in arguments)
    assert indexed("find", "a wall", "--min-relevance", "0", "--json", "-o", tmp_path / "x").code == 2
    done = indexed("find", "a wall", "--min-relevance", "0", "-o", tmp_path / "nowhere" / "x.html")
    assert (done.code, len(done.stderr.splitlines())) == (1, 1)


@pytest.fixture
def desk(tmp_path, monkeypatch) -> Path:
    """A system whose viewer notes what it is asked to open."""
    commands = tmp_path / "bin"
    commands.mkdir()
    viewer = commands / "xdg-open"
    viewer.write_text(f'#!/bin/sh\nprintf "%s\\n" "$1" >> "{tmp_path}/opened"\ntest ! -e "{tmp_path}/refuse"\n')
    viewer.chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.skipif(sys.platform != "linux", reason="the viewer is xdg-open")
class TestOpening:
    def test_one_photo_is_opened_as_it_is_and_several_as_one_page(self, indexed, desk):
        path = indexed("find", "a wall", "--min-relevance", "0", "-k", "1", "--format", "paths", "--open").stdout
        assert (desk / "opened").read_text() == path
        done = indexed("find", "a wall", "--min-relevance", "0", "-k", "3", "--open")
        sheet = desk / "cache" / "search" / "sheet" / "sheet.html"
        assert (desk / "opened").read_text() == f"{path}{sheet}\n"
        assert sheet.read_text().count('class="photo"') == 3
        assert f"opened {sheet}" in done.stderr
        assert sheet.parent.stat().st_mode & 0o77 == 0

    def test_where_nothing_can_be_opened_it_says_so(self, indexed, desk, monkeypatch):
        assert indexed("find", "a wall", "--min-relevance", "0", "--camera", "Leica", "--open").code == 0
        assert not (desk / "opened").exists()
        (desk / "refuse").touch()
        done = indexed("find", "a wall", "--min-relevance", "0", "-k", "1", "--open")
        assert done.code == 1
        assert "found no program" in done.stderr
        monkeypatch.setenv("PATH", str(desk / "empty"))
        done = indexed("find", "a wall", "--min-relevance", "0", "-k", "1", "--open")
        assert done.code == 1
        assert "xdg-open is not on this machine" in done.stderr
        assert "--output sheet.html" in done.stderr


def test_show_tells_a_person_everything(run, tmp_path):
    exif = Image.Exif()
    exif[272] = "Leica Q3"
    exif.get_ifd(0x8769)[36867] = "2021:05:04 12:30:00"
    exif[0x8825] = {1: "N", 2: (48.0, 30.0, 0.0), 3: "E", 4: (2.0, 15.0, 0.0)}
    path = tmp_path / "p" / "photo.jpg"
    path.parent.mkdir()
    Image.new("RGB", (60, 40), "red").save(path, exif=exif)
    run("index", path.parent, "--model", "builtin")
    run("label", "--label", "wall", "--apply")
    document = run("show", path, "--json").json
    title, *lines = run("show", path).stdout.splitlines()
    assert title == str(path)
    told = dict(line.strip().split(maxsplit=1) for line in lines)
    size = path.stat().st_size
    assert told.pop("file").endswith(f"SHA-256 {document['content_hash']}")
    assert told == {
        "picture": f"60 × 40 pixels, jpeg, {size} bytes"
        if size < 1000
        else f"60 × 40 pixels, jpeg, {size / 1000:.1f} kB",
        "taken": "2021-05-04 12:30:00",
        "camera": "Leica Q3",
        "place": "48.50000, 2.25000",
        "label": "wall, proposed by builtin at 1.00 in run 1",
        "orientation": "1",
        "library": f"photo {document['id']}, found in {path.parent}",
    }


def test_names_with_line_breaks_are_told_of_where_they_do_harm(run, tmp_path, make_photo):
    path = make_photo(tmp_path / "p" / "a\nb.png", 1)
    other = make_photo(tmp_path / "p" / "c.png", 2)
    run("index", path.parent, "--model", "builtin")
    done = run("similar", other, "--format", "paths")
    assert done.stdout == f"{path}\n"
    assert "--print0" in done.stderr
    done = run("similar", other, "--print0")
    assert (done.stdout, done.stderr) == (f"{path}\0", "")
