"""What is told to those who lack a part: a command for their installation, naming an extra that exists."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

from search.extras import how_to_add

ROOT = Path(__file__).parent.parent
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"].keys()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMED = re.compile(r"(?:\bsearch|(?<=['\"`])\.|\.whl)\[([\w,]+)\]")


@pytest.fixture
def installed(tmp_path, monkeypatch) -> Path:
    """An environment of which nothing is known yet, beside a `pip` of another Python."""
    for name in ("env", "elsewhere"):
        (tmp_path / name / "bin").mkdir(parents=True)
        (tmp_path / name / "bin" / "pip").write_text("#!/bin/sh\n")
        (tmp_path / name / "bin" / "pip").chmod(0o755)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "env"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "env" / "bin" / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "elsewhere" / "bin"))
    return tmp_path / "env"


def test_pip_alone_is_named_where_it_is_this_environments(installed, monkeypatch):
    monkeypatch.setenv("PATH", str(installed / "bin"))
    assert how_to_add("web") == "pip install 'search[web]'"


def test_another_pythons_pip_is_not_what_is_named(installed):
    assert how_to_add("web") == f"{installed}/bin/python -m pip install 'search[web]'"


def test_pipx_adds_to_what_it_installed(installed):
    (installed / "pipx_metadata.json").touch()
    assert how_to_add("raw") == "pipx inject env 'search[raw]'"


def test_uv_adds_to_an_environment_without_pip(installed):
    (installed / "uv-receipt.toml").touch()
    assert how_to_add("raw") == f"uv pip install --python {installed}/bin/python 'search[raw]'"


def hints() -> list[str]:
    """The extras that the code asks for, and those it writes out."""
    found = []
    for file in sorted((ROOT / "search").rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        found += [extra for extras in NAMED.findall(text) for extra in extras.split(",")]
        calls = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call))
        asked = (call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "how_to_add")
        found += [ast.literal_eval(call.args[0]) for call in asked]
    return found


def test_every_extra_that_the_code_names_exists():
    assert {"web", "cluster", "fast", "raw"} <= set(hints()) <= EXTRAS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_extra_that_a_page_names_exists(page):
    assert {extra for extras in NAMED.findall(page.read_text()) for extra in extras.split(",")} <= EXTRAS


def test_every_extra_has_its_row_where_installing_is_told():
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/how-to/install.md").read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(EXTRAS)
