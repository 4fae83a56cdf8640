"""A session on the command line with the index on a server."""

from __future__ import annotations

import pytest

from search.vectors.stores import open_store


@pytest.fixture(params=["milvus-lite", "pgvector"])
def index_url(request, tmp_path, postgres):
    if request.param == "pgvector":
        return postgres.uri(postgres.database())
    return f"milvus+file://{tmp_path}/twin.db?collection=photos"


def test_a_session_with_the_index_on_a_server(run, album, index_url):
    assert run("index", album, "--model", "builtin").code == 0
    asked = ("find", "a wall", "--min-relevance", "0", "-k", "50", "--json")
    narrow = (*asked, "--where", 'format = png and not camera:"x\' or 1=1" and not has gps')
    before, some = run(*asked).json["hits"], run(*narrow).json["hits"]
    assert (len(before), len(some)) == (12, 12)
    rebuilt = run("rebuild", "--index", index_url, "--json")
    assert (rebuilt.code, rebuilt.json["photos"]) == (0, 12)
    found = run(*asked)
    assert (found.json["hits"], found.stderr, run(*narrow).json["hits"]) == (before, "", some)
    assert run(*narrow, "--folder", album / "day1").json["candidates"] == 4
    status = run("status", "--json").json["index"]
    assert (status["url"], status["vectors"], status["behind"]) == (index_url, 12, 0)
    assert f"{index_url}, 0 photos changed since" in run("status").stdout
    assert run("label", album, "--label", "wall", "--label", "cat", "--apply", "--json").code == 0
    assert run("remove", album / "day0").code == 0
    assert len(run(*asked).json["hits"]) == 8
    assert run("check", "--full", "--json").json["ok"]
    local = run("rebuild", "--index", "auto")
    assert (local.code, run("status", "--json").json["index"]["kind"]) == (0, "exact")


def test_a_url_with_a_password_or_of_no_kind_is_one_line(run, album):
    assert run("index", album, "--model", "builtin").code == 0
    refused = run("rebuild", "--index", "postgresql://me:secret@host/x")
    assert (refused.code, "can't have a password" in refused.stderr, "secret" in refused.stderr) == (
        1,
        True,
        False,
    )
    assert run("rebuild", "--index", "milvus").code == 2


def test_a_server_that_is_away_is_one_line(run, album, monkeypatch):
    monkeypatch.setattr("search.vectors.stores.pgvector._PAUSE_S", 0)
    assert run("index", album, "--model", "builtin").code == 0
    refused = run("rebuild", "--index", "postgresql://127.0.0.1:1/x")
    assert (refused.code, "does not answer" in refused.stderr) == (1, True)
    assert run("status", "--json").json["index"]["kind"] == "exact"


def test_the_token_of_a_server_comes_from_the_environment(run, album, monkeypatch):
    given: list[str | None] = []

    def opened(url: str, *, token: str | None = None, **more):
        given.append(token)
        return open_store("postgresql://127.0.0.1:1/x")

    monkeypatch.setattr("search.vectors.stores.pgvector._PAUSE_S", 0)
    monkeypatch.setattr("search.vectors.stores.open_store", opened)
    monkeypatch.setenv("SEARCH_INDEX_TOKEN", "root:Milvus")
    assert run("index", album, "--model", "builtin").code == 0
    run("rebuild", "--index", "milvus://127.0.0.1:1/photos")
    assert given == ["root:Milvus"]
