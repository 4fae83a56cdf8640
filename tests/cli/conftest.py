from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from search.cli import cli
from search.library.model import LibraryModel


@dataclass(frozen=True)
class Outcome:
    code: int
    stdout: str
    stderr: str

    @property
    def json(self):
        return json.loads(self.stdout)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "library"


@pytest.fixture
def run(place: Path, location: str, builtin, monkeypatch) -> Callable[..., Outcome]:
    """Run a command in this process, on the test's library, with the model loaded once for all tests."""
    monkeypatch.chdir(place.parent)
    load = LibraryModel.load
    monkeypatch.setattr(
        LibraryModel, "load", lambda self, name: builtin if name == "builtin" else load(self, name)
    )

    def run_(*arguments: str | Path) -> Outcome:
        result = CliRunner().invoke(cli, ["--library", location, *map(str, arguments)])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return run_


@pytest.fixture
def spawn(location: str) -> Callable[..., subprocess.Popen]:
    """Start a command as a process of its own."""

    def spawn_(*arguments: str | Path) -> subprocess.Popen:
        command = [sys.executable, "-m", "search", "--library", location, *map(str, arguments)]
        environment = {**os.environ, "SEARCH_OFFLINE": "1"}
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )

    return spawn_
