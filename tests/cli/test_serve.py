"""`search serve`: where it listens, what it refuses, and how it ends."""

from __future__ import annotations

import json
import signal
import socket
import sys
import urllib.request

import pytest


@pytest.fixture
def served(run, album, place, spawn):
    """A server that was started by the command, and its address."""
    run("index", album, "--model", "builtin")
    process = spawn("serve", "--port", "0", "--json")
    lines = []
    while not lines or lines[-1] != "}\n":
        lines.append(process.stdout.readline())
        assert lines[-1], process.communicate()
    yield process, json.loads("".join(lines))
    if process.poll() is None:
        process.kill()
    process.communicate()


def test_it_says_where_it_answers_and_ends_when_it_is_told_to(served, place):
    process, said = served
    assert said["library"] == str(place)
    assert said["url"].startswith("http://127.0.0.1:")
    with urllib.request.urlopen(f"{said['url']}api/status") as answer:
        assert json.load(answer)["photos"] == 12
        assert "server" not in answer.headers
    process.send_signal(signal.SIGINT)
    out, talk = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert "Traceback" not in talk
    assert "Ctrl-C ends it" in talk


def test_a_port_that_is_in_use_is_named(run, album):
    run("index", album, "--model", "builtin")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = run("serve", "--port", port, "--json")
    assert refused.code == 1
    assert f"can't listen at 127.0.0.1, port {port}" in refused.stderr
    assert "--port" in refused.json["error"]["hint"]


def test_other_machines_are_not_let_in_without_a_token(run):
    refused = run("serve", "--host", "0.0.0.0")
    assert (refused.code, refused.stdout) == (1, "")
    assert "needs a token; give one with --token" in refused.stderr


def test_a_host_that_is_not_this_machine_is_a_clear_error(run):
    refused = run("serve", "--host", "203.0.113.1", "--token", "secret", "--port", "0")
    assert refused.code == 1
    assert "can't listen at 203.0.113.1" in refused.stderr


def test_a_library_that_is_not_there_is_told_before_anyone_asks(run):
    refused = run("serve", "--port", "0")
    assert refused.code == 1
    assert "there is no library" in refused.stderr


def test_without_what_it_needs_it_says_how_to_get_it(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "search.web.connections", raising=False)
    refused = run("serve")
    assert refused.code == 1
    assert "pip install 'search[web]'" in refused.stderr


@pytest.mark.parametrize("can_tell", [True, False])
def test_where_users_are_not_told_apart_it_is_said(run, album, monkeypatch, can_tell):
    from search.web import connections, neighbours

    run("index", album, "--model", "builtin")
    monkeypatch.setattr(neighbours, "can_tell", lambda: can_tell)
    monkeypatch.setattr(connections.Server, "run", lambda self, sockets: None)
    for more, told in (([], not can_tell), (["--token", "secret"], False), (["--other-users"], False)):
        outcome = run("serve", "--port", "0", *more)
        assert outcome.code == 0, outcome.stderr
        assert ("other users of this machine are answered, too" in outcome.stderr) == told
