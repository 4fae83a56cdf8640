"""What people do with a library, on every stack: each says the same as a plain folder does."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from search import Library
from search.cli import cli
from search.library.model import LibraryModel

pytestmark = pytest.mark.slow

TOLERANCE = 1e-3  # an index on a server may keep what it compares in float16

SESSION = """
search index demo/photos --model builtin
search find "a rocket" -k 3
search find "xqzvkj wpfh"
search find --like demo/photos/motorcycle_left.png -k 1
search find "a horse" "2:grass" --not "a rocket" --unlike 7 --after 2023 --folder demo/photos -k 1
search find "a temple" --where "taken in 2022..2023 and not camera:pixel" --where "rating >= 4 or label:best"
search find "a temple" -k 40 --output sheet.html
search label demo/photos/chelsea.png --label "a rocket" --label "a cat" --template "{}" --model builtin
search find "a dog" --min-relevance 0 -k 30 --diverse
search find grass --where "width > 300 and format:png" -k 5 --min-relevance 0
search find temple --folder demo/photos -k 3 --min-relevance 0
search similar demo/photos/motorcycle_left.png -k 3
search label --label cat --label rocket --label wall --apply
search find something --tag cat --min-relevance 0 -k 30
search tags list
search tags accept --label cat demo/photos/chelsea.png
search tags reject --label rocket demo/photos/chelsea.png
search find something --tag cat --min-relevance 0 -k 30
search tags list --runs
search tags undo 3
search tags list
search tags export --output tags.csv
search duplicates
search show demo/photos/rocket.jpg
search skipped
search check --full
search evaluate index
search export csv all.csv
search remove demo/photos/rocket.jpg
search find "a rocket" -k 2 --min-relevance 0
search index demo/photos --model builtin
search root list
search status
search rebuild
search find "a rocket" -k 2 --min-relevance 0
"""
PHOTOGRAPHS = {
    (
        "skimage",
        "data",
    ): "brick.png camera.png chelsea.png clock_motion.png coffee.png grass.png motorcycle_left.png "
    "motorcycle_right.png rocket.jpg",
    ("sklearn", "datasets/images"): "china.jpg flower.jpg",
}

ITS_OWN = {"seconds", "images_per_second", "library", "index", "job", "started_at", "created_at", "generation"}
ITS_OWN |= {"facts", "photos_per_second", "milliseconds", "ms_exact", "ms_index", "schema", "kinds", "backup"}
ITS_OWN |= {"path", "sqlite"}
"""What may differ between two runs or two stacks."""


def gather(folder: Path) -> None:
    folder.mkdir(parents=True)
    for (package, inside), names in PHOTOGRAPHS.items():
        spec = find_spec(package)
        assert spec and spec.submodule_search_locations
        for name in names.split():
            shutil.copyfile(Path(spec.submodule_search_locations[0], inside, name), folder / name)
            os.utime(folder / name, (1_700_000_000, 1_700_000_000))  # which dates the photos that have no date


@pytest.fixture
def said(tmp_path, builtin, monkeypatch) -> Callable[..., dict[str, Any]]:
    """Run the session on a library, beside the same photographs each time; return what each command said."""
    load = LibraryModel.load
    monkeypatch.setattr(
        LibraryModel,
        "load",
        lambda self, name, *, photos=0: builtin if name == "builtin" else load(self, name, photos=photos),
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(library: str, *, after: Callable[[str], None] = lambda command: None) -> dict[str, Any]:
        shutil.rmtree(tmp_path / "demo", ignore_errors=True)
        gather(tmp_path / "demo" / "photos")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("SEARCH_LIBRARY", library)
        answers = {}
        for number, command in enumerate(SESSION.strip().splitlines()):
            answers[f"{number} {command}"] = _told(command)
            after(command)
        return answers

    return run


def _told(command: str) -> Any:
    arguments = shlex.split(command)[1:]
    result = CliRunner().invoke(cli, [*arguments, *(() if "--output" in arguments else ["--json"])])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, (command, result.stderr)
    return _steady(json.loads(result.stdout)) if "--output" not in arguments else result.stdout


def _steady(value: Any) -> Any:
    """Leave out what is each library's own, and what comes of the clock."""
    if isinstance(value, dict):
        return {key: _steady(inner) for key, inner in value.items() if key not in ITS_OWN}
    if isinstance(value, list):
        return [_steady(inner) for inner in value]
    return pytest.approx(value, abs=TOLERANCE) if isinstance(value, float) else value


def test_a_catalog_on_a_server_answers_as_a_folder_does(said, tmp_path, database_url):
    expected = said(str(tmp_path / "library"))
    found = said(database_url)
    for command, answer in expected.items():
        assert found[command] == answer, command


@pytest.mark.parametrize("kind", ["milvus", "pgvector"])
def test_an_index_on_a_server_answers_as_the_one_in_the_folder_does(said, tmp_path, postgres, kind):
    url = f"milvus+file://{tmp_path}/twin.db" if kind == "milvus" else postgres.uri(postgres.database())
    first = SESSION.strip().splitlines()[0]

    def move(command: str) -> None:
        if command == first:
            _told(f"search rebuild --index {shlex.quote(url)}")

    expected = said(str(tmp_path / "library"))
    found = said(str(tmp_path / "moved"), after=move)
    for command, answer in expected.items():
        assert found[command] == answer, command
    with Library.open(tmp_path / "moved", model="builtin", offline=True) as library:
        assert library.vector_index().kind == kind
