"""The unit for systemd and the file for containers ask for what the command line and the server take."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import socket
import tomllib
from pathlib import Path

import click
import pytest

from search.cli import cli
from search.cli.serve import _tell_systemd
from search.resources import data_path
from search.web import ServeOptions, create_app

ROOT = Path(__file__).parent.parent.parent


def accepted(command: str, *arguments: str) -> dict[str, object]:
    """What the command line takes these words to mean; nothing is done."""
    made = cli.get_command(click.Context(cli), command)
    assert made is not None
    return made.make_context(command, list(arguments)).params


def containerfile() -> list[tuple[str, str]]:
    """Its instructions: what, and with which words."""
    text = data_path("deploy", "Containerfile").read_text().replace("\\\n", "")
    lines = (line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#"))
    return [(name, words) for name, words in lines]


def test_the_unit_runs_what_the_command_line_takes():
    text = data_path("deploy", "search.service").read_text()
    unit = configparser.ConfigParser(interpolation=None, strict=False, delimiters=("=",))
    unit.optionxform = str
    unit.read_string(text)
    program, command, options = shlex.split(unit["Service"]["ExecStart"])
    assert (program, command, options) == ("%h/.local/bin/search", "serve", "$SERVE_OPTIONS")
    assert accepted(command)["port"] == 8000
    [example] = re.findall(r"SERVE_OPTIONS=(.+)", text)  # its default is empty
    assert accepted(command, *example.split())["port"] == 8080


def test_whoever_waits_for_the_server_is_told(monkeypatch):
    name = f"search-tests-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}")
        manager.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        _tell_systemd()
        assert manager.recv(100) == b"READY=1"


def test_that_nobody_waits_any_more_is_no_reason_not_to_serve(tmp_path, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    _tell_systemd()


def test_the_container_runs_what_the_command_line_takes(monkeypatch):
    said = dict(containerfile())
    assert json.loads(said["ENTRYPOINT"]) == ["search"]
    monkeypatch.setenv("SEARCH_TOKEN", "secret")
    asked = accepted(*json.loads(said["CMD"]))
    assert (asked["host"], str(asked["port"]), asked["token"]) == ("0.0.0.0", said["EXPOSE"], "secret")
    assert said["USER"] == "1000:1000"


def test_the_container_takes_files_that_are_there_and_extras_that_exist():
    copied = [words.split()[:-1] for name, words in containerfile() if name == "COPY" and "--from" not in words]
    sources = {source for sources in copied for source in sources}
    assert {"search", "migrations", "data", "pyproject.toml"} <= sources
    assert all((ROOT / source).exists() for source in sources)
    [asked] = re.findall(r"^ARG EXTRAS=(.*)", data_path("deploy", "Containerfile").read_text(), re.MULTILINE)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert "web" in asked.split(",")
    assert set(asked.split(",")) <= extras.keys()


@pytest.mark.parametrize("token", ["secret", "another"])
def test_the_containers_health_check_gets_in_with_the_token_alone(token, live, library, monkeypatch):
    program, option, code = json.loads(dict(containerfile())["HEALTHCHECK"].partition("CMD ")[2])
    assert (program, option) == ("python3", "-c")
    monkeypatch.setenv("SEARCH_TOKEN", token)
    with live(create_app(library, ServeOptions(host="0.0.0.0", token="secret"))) as port:
        assert ":8000/" in code
        check = compile(code.replace(":8000/", f":{port}/"), "health check", "exec")
        if token == "secret":
            exec(check)
        else:
            with pytest.raises(OSError, match="401"):
                exec(check)


def test_deployment_files_are_found_beside_the_code():
    assert sorted(path.name for path in data_path("deploy").iterdir()) == ["Containerfile", "search.service"]
