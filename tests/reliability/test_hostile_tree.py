"""F20 to F23, F27, F29: whatever a file is called or is, what can be indexed is indexed exactly once."""

from __future__ import annotations

import base64
import ctypes
import json
import os
import socket
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from click.testing import CliRunner

from search import IndexOptions
from search.cli import cli
from search.decoding.pool import Decoders
from search.library.model import LibraryModel
from search.photos.scan import ScanOptions

NAMES = (
    b"caf\xe9.png",  # Latin-1
    b"two\nlines.png",
    b"\x1b[31mred\x1b[0m\x07.png",
    "right\u202eto left.png".encode(),
    "\U0001f41f.png".encode(),
    unicodedata.normalize("NFC", "Größe.png").encode(),
    unicodedata.normalize("NFD", "Größe.png").encode(),
    b"x" * 251 + b".png",
    b"-rf.png",
    b"CON.png",
    b" .png",
    b"\\back\\slash.png",
    b"%2e%2e%2f'\";.png",
)
JUNK = ("a.xmp", "b.png.part", "c.png~", "._d.png", "Thumbs.db", ".DS_Store", "e.png.xmp")


@pytest.fixture
def tree(tmp_path, make_photo, monkeypatch) -> Path:
    """Photos with every kind of name, among everything that is not a photo."""
    root = tmp_path / "tree"
    plain = make_photo(tmp_path / "plain.png", 1).read_bytes()
    root.mkdir()
    for number, name in enumerate(NAMES):
        # A comment's worth of bytes after the end makes each its own photo.
        Path(os.fsdecode(os.path.join(os.fsencode(root), name))).write_bytes(plain + b"%d" % number)
    for name in JUNK:
        (root / name).write_bytes(plain)
    (root / "folder.png").mkdir()
    os.mkfifo(root / "pipe.png")
    monkeypatch.chdir(root)  # a socket's path has to be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.png")
    os.symlink(root / "pipe.png", root / "to pipe.png")
    os.symlink(root / "socket.png", root / "to socket.png")
    os.symlink("/dev/zero", root / "to device.png")
    os.symlink(root / "nowhere", root / "dangling.png")
    os.symlink(root, root / "loop")
    os.symlink(root / "self.png", root / "self.png")
    with (root / "sparse.png").open("wb") as file:
        file.truncate(1 << 36)
    return root


@pytest.fixture
def run(tmp_path, builtin, monkeypatch):
    """Run a command in this process, on the test's library, with the model loaded once for all tests."""
    load = LibraryModel.load
    monkeypatch.setattr(
        LibraryModel, "load", lambda self, name: builtin if name == "builtin" else load(self, name)
    )

    def run_(*arguments: str | Path):
        return CliRunner().invoke(cli, ["--library", str(tmp_path / "library"), *map(str, arguments)])

    return run_


def bytes_of(document: dict) -> bytes:
    return base64.b64decode(document["path_bytes"]) if "path_bytes" in document else document["path"].encode()


@pytest.mark.parametrize("follow", [False, True])
def test_everything_that_is_a_photo_is_indexed_once(library, tree, follow):
    options = IndexOptions(scan=ScanOptions(follow_symlinks=follow))
    report = library.index([tree], options=options)
    assert report.added == report.photos == len(NAMES)
    found = [os.fsencode(hit.photo.path) for hit in library.search("anything", k=50)]
    assert sorted(os.path.basename(path) for path in found) == sorted(NAMES)
    skipped = {Path(skip.path).name: skip.reason for skip in report.skipped}
    dangling = {"dangling.png": "unreadable", "self.png": "unreadable"} if follow else {}
    assert skipped == {"sparse.png": "empty", **dangling}
    again = library.index([tree], options=options)
    assert (again.unchanged, again.added, again.gone, again.encoded) == (len(NAMES), 0, 0, 0)


def test_no_name_reaches_the_terminal_as_it_is(run, tree):
    """The only control character in plain output is the end of a line."""
    (tree / "bad\x1b]0;title\x07\u202e.png").write_bytes(b"no picture")
    outputs = [run("index", tree, "--model", "builtin"), run("index", tree), run("skipped"), run("status")]
    outputs += [
        run("check"),
        run("find", "anything", "--min-relevance", "0", "-k", "50"),
        run("find", "x\x1b[31m\u202e", "-k", "1"),
    ]
    ids = [
        hit["id"]
        for hit in json.loads(run("find", "anything", "--min-relevance", "0", "-k", "50", "--json").stdout)["hits"]
    ]
    outputs += [run("show", str(id_)) for id_ in ids]
    outputs.append(run("show", "no\x1b[31m\u202e"))
    for outcome in outputs:
        for text in (outcome.stdout, outcome.stderr):
            bad = {c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs")}
            assert not bad, text


def test_names_survive_print0_and_json(run, tree):
    run("index", tree, "--model", "builtin")
    wanted = sorted(os.path.join(os.fsencode(tree), name) for name in NAMES)
    found = json.loads(run("find", "anything", "--min-relevance", "0", "-k", "50", "--json").stdout)["hits"]
    assert sorted(map(bytes_of, found)) == wanted
    printed = run("find", "anything", "--min-relevance", "0", "-k", "50", "--print0").stdout_bytes
    assert sorted(printed.split(b"\0")[:-1]) == wanted


def test_renaming_only_the_case_moves_the_photo(library, album, counting):
    library.index([album])
    old = album / "day0" / "photo00.png"
    id_ = library.photo(old).id
    old.rename(old.with_name("PHOTO00.PNG"))
    report = library.index([album])
    assert (report.moved, report.unchanged, report.gone, report.encoded) == (1, 11, 0, 0)
    assert library.photo(old.with_name("PHOTO00.PNG")).id == id_


def test_a_folder_reached_by_two_names_is_one_root(library, album, tmp_path):
    (tmp_path / "link").symlink_to(album)
    library.index([album])
    report = library.index([tmp_path / "link", tmp_path / "album" / ".." / "album", album / "day0"])
    assert (report.photos, report.unchanged) == (12, 12)
    assert [root.path for root in library.status().roots] == [str(album)]


def test_hard_links_are_photos_of_their_own(library, album, counting):
    """Each name can be edited, moved and deleted by itself; the vector is made once."""
    library.index([album])
    os.link(album / "day0" / "photo00.png", album / "day0" / "again.png")
    report = library.index([album])
    assert (report.photos, report.added, report.encoded) == (13, 1, 0)
    assert counting.images == 12


def test_a_file_that_vanishes_while_it_is_read_stops_nothing(library, album, monkeypatch):
    submit = Decoders.submit

    def vanishing(self, path, preprocessing, **more):
        if path.endswith("photo00.png"):
            os.unlink(path)
        return submit(self, path, preprocessing, **more)

    monkeypatch.setattr(Decoders, "submit", vanishing)
    report = library.index([album])
    assert report.added == 11
    assert [skip.reason for skip in report.skipped] == ["unreadable"]
    assert library.index([album]).skipped == ()


def forgo_root_rights() -> None:
    """Take CAP_DAC_OVERRIDE (1) and CAP_DAC_READ_SEARCH (2) out of reach of what is executed next."""
    if os.geteuid() == 0:
        for capability in (1, 2):
            ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="has other permissions")
def test_what_may_not_be_read_is_named_once_and_nothing_below_it_is_gone(album, tmp_path):
    """Without the capabilities that let root read what nobody may."""
    script = (
        "import json, os, sys\n"
        "from search import Library\n"
        "library = Library.open(sys.argv[1], model='builtin', offline=True)\n"
        "album = sys.argv[2]\n"
        "first = library.index([album])\n"
        "os.chmod(album + '/day1', 0)\n"
        "os.chmod(album + '/day2/photo02.png', 0)\n"
        "os.unlink(album + '/day0/photo00.png')\n"
        "second = library.index([album])\n"
        "os.chmod(album + '/day1', 0o700)\n"
        "os.chmod(album + '/day2/photo02.png', 0o600)\n"
        "third = library.index([album])\n"
        "print(json.dumps([[r.photos, r.added, r.unchanged, r.gone, r.encoded, [(s.path, s.reason) for s in r.skipped]]"
        " for r in (first, second, third)]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "library"), str(album)],
        capture_output=True,
        text=True,
        preexec_fn=forgo_root_rights,
    )
    assert done.returncode == 0, done.stderr
    first, second, third = json.loads(done.stdout.splitlines()[-1])
    assert first[:5] == [12, 12, 0, 0, 12]
    unread = [[str(album / "day1"), "unreadable"], [str(album / "day2" / "photo02.png"), "unreadable"]]
    assert second == [11, 0, 6, 1, 0, unread]
    assert third == [11, 0, 11, 0, 0, []]
