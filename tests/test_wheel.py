"""What is published works by itself: the wheel, in a venv that does not see this checkout."""

from __future__ import annotations

import json
import os
import site
import sqlite3
import subprocess
import sys
import tarfile
import zipfile
from contextlib import closing
from pathlib import Path

import pytest

from search.catalog.versions import HISTORY
from search.resources import data_path

ROOT = Path(__file__).parent.parent
ROOMS = ("search", "migrations", "data", "tests", "bench", "docs")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    [built] = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory) -> Path:
    """The interpreter of a venv with the wheel in it; third parties are lent from here to spare the download."""
    folder = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "-q", "--no-deps", str(wheel)], check=True, capture_output=True
    )
    [packages] = (folder / "lib").glob("python*/site-packages")
    (packages / "lent.pth").write_text("\n".join(site.getsitepackages()))
    return python


def run(python: Path, *arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(python), "-P", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def test_the_wheel_holds_data_migrations_and_nothing_else_of_the_checkout(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "search/data/builtin/open_clip_model.safetensors" in names
    assert "search/migrations/env.py" in names
    assert {"search/data/deploy/search.service", "search/data/deploy/Containerfile"} <= set(names)
    package = ROOT / "search"
    here = {path.relative_to(ROOT) for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert {Path("search/web/templates/base.html"), Path("search/web/static/app.js")} <= here
    assert here <= set(map(Path, names))
    assert {name.split("/")[0] for name in names} == {"search", f"search-{wheel.name.split('-')[1]}.dist-info"}


@pytest.mark.slow
def test_the_sdist_has_what_its_tests_need_and_makes_the_same_wheel(wheel, tmp_path):
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)  # the wheel is made of the sdist, not of the checkout
    [made] = tmp_path.glob("*.whl")
    ours, theirs = zipfile.ZipFile(wheel), zipfile.ZipFile(made)
    contents = [{item.filename: item.CRC for item in each.infolist()} for each in (ours, theirs)]
    assert contents[0] == contents[1]
    [sdist] = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    files = {path.relative_to(ROOT) for room in ROOMS for path in (ROOT / room).rglob("*") if path.is_file()}
    assert {str(path) for path in files if "__pycache__" not in path.parts} <= inside
    assert {"Makefile", "pyproject.toml", "constraints.txt", "README.md", "CONTRIBUTING.md", "LICENSE"} <= inside


def test_the_wheels_own_files_are_what_runs(python, tmp_path):
    code = "import search.resources as r; print(r.data_path(), r.migrations_path())"
    done = run(python, "-c", code, cwd=tmp_path)
    assert done.stdout, done.stderr
    for path in done.stdout.split():
        assert Path(path).is_relative_to(python.parent.parent)


def test_a_fresh_library_is_indexed_and_searched(python, tmp_path, photographs):
    library = ("--library", tmp_path / "library", "--json")
    made = run(python, "-m", "search", "index", photographs["cat"], "--model", "builtin", *library, cwd=tmp_path)
    assert json.loads(made.stdout)["added"] == 1, made.stderr
    found = run(python, "-m", "search", "find", "a cat", *library, cwd=tmp_path)
    assert json.loads(found.stdout)["hits"][0]["path"] == str(photographs["cat"])


@pytest.mark.slow
def test_an_old_catalog_is_upgraded(python, tmp_path):
    (tmp_path / "library").mkdir()
    with closing(sqlite3.connect(tmp_path / "library" / "catalog.db")) as connection:
        connection.executescript(data_path("catalogs", "0001.sql").read_text())
    done = run(python, "-m", "search", "upgrade", "--library", tmp_path / "library", "--json", cwd=tmp_path)
    assert json.loads(done.stdout) == {"from": "0001", "to": HISTORY[-1]}, done.stderr


def test_help_of_the_installed_command_imports_click_and_little_else(python, tmp_path):
    code = (
        "import sys; from search.cli import cli; cli.main(['--help'], standalone_mode=False); print(*sys.modules)"
    )
    loaded = {
        name.partition(".")[0] for name in run(python, "-c", code, cwd=tmp_path).stdout.split("\n")[-2].split()
    }
    ours = sys.stdlib_module_names | set(sys.builtin_module_names)
    assert {name for name in loaded - ours if not name.startswith(("_", "sitecustomize"))} == {"click", "search"}


def test_the_command_is_installed(python, tmp_path):
    done = subprocess.run([python.parent / "search", "--version"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.startswith("search, version ")
