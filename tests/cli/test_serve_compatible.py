from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--clip-retrieval-origin", "http://localhost:5005"], "--clip-retrieval"),
        (["--fetch-from", "public"], "--clip-retrieval"),
        (["--immich-upstream", "http://127.0.0.1:3003"], "--immich"),
        (["--clip-retrieval", "--clip-retrieval-origin", "*"], "no origin"),
        (["--clip-retrieval", "--clip-retrieval-origin", "http://localhost:5005/front"], "no origin"),
        (["--clip-retrieval", "--fetch-from", "public", "--offline"], "--offline"),
        (["--immich", "--immich-upstream", "http://127.0.0.1:3003", "--offline"], "--offline"),
    ],
)
def test_options_that_mean_nothing_together_are_wrong_usage(run, monkeypatch, options, said):
    monkeypatch.delenv("SEARCH_OFFLINE", raising=False)
    outcome = run("serve", "--port", "0", *options)
    assert outcome.code == (1 if said == "no origin" else 2)
    assert said in outcome.stderr


@pytest.mark.parametrize(
    "url", ["127.0.0.1:3003", "ftp://host", "http://", "http://host/ml", "http://me:word@host"]
)
def test_an_upstream_is_the_address_of_a_server(run, monkeypatch, url):
    monkeypatch.delenv("SEARCH_OFFLINE", raising=False)
    outcome = run("serve", "--port", "0", "--immich", "--immich-upstream", url)
    assert outcome.code == 1
    assert "no address of a server" in outcome.stderr
