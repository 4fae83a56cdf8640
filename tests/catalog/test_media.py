"""Disks that are full or can't be written, for real: mounts of their own where root may make them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rights import held_to_permissions

from search.catalog import Catalog
from search.catalog.lock import LOCK_NAME
from search.catalog.storage import CATALOG_NAME
from search.errors import StorageError
from search.library import Library
from search.types import LabelledPhoto, LabelScore

PREAMBLE = """
set -e
search() { "$PYTHON" -m search --library "$LIBRARY" "$@"; echo "exit $?" >&2; }
"""


@pytest.fixture
def shell(tmp_path):
    """Run a script in a mount namespace of its own; `search` is the command line on the test's library."""
    if not shutil.which("unshare") or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("takes root and unshare")

    def run(script: str) -> tuple[list[str], str]:
        values = {"PYTHON": sys.executable, "LIBRARY": str(tmp_path / "library"), "SEARCH_OFFLINE": "1"}
        done = subprocess.run(
            ["unshare", "-m", "bash", "-c", PREAMBLE + script, "bash", str(tmp_path)],
            env={**os.environ, **values},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return [line for line in done.stderr.splitlines() if line.startswith("exit ")], done.stdout + done.stderr

    return run


def copy_unfinished(library: Library, target: Path) -> None:
    """Copy a library as a power cut would leave it: one label is committed, in the log alone."""
    with library.catalog.writing() as writer:
        late = LabelledPhoto("", (LabelScore("late", 0.5, 0.25),), 1)
        writer.put_labels([late], ["late"], source="user", encoder_id=None)
        folder = library.catalog.folder
        assert (folder / f"{CATALOG_NAME}-wal").stat().st_size
        shutil.copytree(folder, target, ignore=shutil.ignore_patterns("*-shm", LOCK_NAME))


READ_ONLY = """
mount --bind "$LIBRARY" "$LIBRARY"
mount -o remount,ro,bind "$LIBRARY"
set +e
for command in status "find red" "show 1 --json" check; do search $command; done
search index "$1/album"
search label --label x --apply
touch "$LIBRARY/x" 2>/dev/null && echo "not read-only"
ls "${TMPDIR:-/tmp}" | grep ^search- && echo "left a copy"
true
"""


@pytest.mark.programs
@pytest.mark.parametrize("unfinished", [False, True])
def test_f44_a_read_only_medium_is_searched_and_says_why_it_is_not_changed(
    library, album, tmp_path, shell, unfinished, monkeypatch
):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    library.index([album])
    library.search("red")  # leaves what a query without torch needs
    folder = tmp_path / "library"
    if unfinished:
        copy_unfinished(library, tmp_path / "copy")
    library.close()
    if unfinished:
        shutil.rmtree(folder)
        shutil.move(tmp_path / "copy", folder)
    before = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("catalog*")}
    codes, said = shell(READ_ONLY)
    assert codes == ["exit 0"] * 4 + ["exit 4"] * 2
    assert said.count(f"{folder} is read-only here") == 2
    assert ("late" in said) == unfinished
    assert "not read-only" not in said
    assert "left a copy" not in said
    assert {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("catalog*")} == before


def test_f44_a_folder_without_write_permission_is_read(library, album, tmp_path):
    library.index([album])
    library.close()
    places = [tmp_path / "library", *(tmp_path / "library").rglob("*")]
    for place in places:
        place.chmod(0o500 if place.is_dir() else 0o400)
    try:
        with held_to_permissions():
            assert Catalog(str(tmp_path / "library")).count() == 12
            with pytest.raises(StorageError, match="read-only here"):
                library.index([album])
    finally:
        for place in places:
            place.chmod(0o700)


FULL = """
mkdir "$LIBRARY"
mount -t tmpfs -o size=2400k,mode=700 tmpfs "$LIBRARY"
set +e
search index "$1/photos" --model builtin --batch-size 4
search status --json
search find red --min-relevance 0 --json
search check
rm -f "$LIBRARY"/*-shm
dd if=/dev/zero of="$LIBRARY/fill" bs=1k 2>/dev/null
search find red --min-relevance 0 --json
rm "$LIBRARY/fill"
mount -o remount,size=32m "$LIBRARY"
search index "$1/photos" --json
search check
"""


@pytest.mark.slow
@pytest.mark.programs
def test_f43_a_full_disk_keeps_what_was_committed_and_the_next_run_goes_on(tmp_path, make_photo, shell):
    for seed in range(100):
        make_photo(tmp_path / "photos" / f"{seed:03}.png", seed, size=(16, 16))
    codes, said = shell(FULL)
    assert codes == ["exit 4", "exit 0", "exit 0", "exit 0", "exit 0", "exit 0", "exit 0"], said
    assert said.count("free some space") == 1
    decoder, documents, rest = json.JSONDecoder(), [], said
    while (start := rest.find("{\n")) >= 0:
        document, end = decoder.raw_decode(rest[start:])
        documents.append(document)
        rest = rest[start + end :]
    status, answer, answer_when_fuller, report = documents
    assert 0 < status["photos"] < 100
    assert status["photos"] % 4 == 0
    assert len(answer["hits"]) == len(answer_when_fuller["hits"]) == 10
    assert (report["unchanged"], report["added"]) == (status["photos"], 100 - status["photos"])
