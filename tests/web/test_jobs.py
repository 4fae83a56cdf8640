"""Folders are indexed and labels proposed over HTTP, one job at a time, and whoever watches is told how far it is."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from starlette.testclient import TestClient

from search import Library
from search.catalog.lock import writer_lock
from search.web import ServeOptions, create_app
from search.web.jobs import Jobs

HERE = "http://localhost:8000"
JSON = {"Content-Type": "application/json"}


@contextlib.contextmanager
def served(library: Library, **options) -> Iterator[TestClient]:
    app = create_app(library, ServeOptions(**options))
    with TestClient(app, base_url=HERE, raise_server_exceptions=False, follow_redirects=False) as client:
        yield client


@pytest.fixture(scope="module")
def folder(tmp_path_factory, pictures) -> Path:
    """A folder of eight photos and a broken file."""
    return shutil.copytree(pictures, tmp_path_factory.mktemp("jobs") / "folder")


@pytest.fixture(scope="module")
def begun(folder, builtin) -> Iterator[tuple[Library, TestClient]]:
    """A library that is not there yet, and its server."""
    with Library.open(folder.parent / "library", model="builtin", offline=True) as library:
        library.model.loaded = builtin
        with served(library) as client:
            yield library, client


def events(client: TestClient, **headers: str) -> list[dict]:
    """What a watcher is told until the job ends."""
    told = client.get("/api/job/events", headers=headers)
    assert told.headers["content-type"].startswith("text/event-stream")
    blocks = [block.splitlines() for block in told.text.split("\n\n") if block.startswith("id:")]
    assert all(block[1] == "event: job" for block in blocks)
    return [json.loads(block[2].removeprefix("data: "))["job"] for block in blocks]


def ended(client: TestClient) -> dict:
    return events(client)[-1]


@pytest.fixture(scope="module")
def told(begun, folder) -> list[dict]:
    """The events of a folder that is indexed into a library that was not there before."""
    _, client = begun
    assert client.get("/api/job").json() == {"job": None}
    started = client.post("/api/index", json={"folder": str(folder)})
    assert (started.status_code, started.json()["job"]["state"]) == (202, "running")
    return events(client)


@pytest.fixture(scope="module")
def indexed(library, builtin, tmp_path_factory) -> Iterator[tuple[Library, TestClient]]:
    """A copy of the library of all pictures that may be written to, and its server."""
    place = shutil.copytree(library.catalog.folder, tmp_path_factory.mktemp("jobs") / "library")
    with Library.open(place, model="builtin", offline=True) as own:
        own.model.loaded = builtin
        with served(own) as client:
            yield own, client


def test_a_folder_is_indexed_and_queries_see_its_photos_without_a_restart(begun, told, folder):
    library, client = begun
    job = told[-1]
    assert (job["kind"], job["state"], job["folder"], job["problem"]) == ("index", "done", str(folder), None)
    report = job["report"]
    assert (report["added"], report["skipped_total"], report["skipped"][0]["reason"]) == (8, 1, "decode_error")
    found = client.get("/api/search", params={"q": "noise", "min_relevance": 0}).json()
    assert found["candidates"] == 8
    assert library.status().photos == 8
    assert client.app.state.jobs._child.wait(60) == 0


def test_watchers_are_told_how_far_it_is_and_all_of_it_in_each_event(told):
    assert {job["id"] for job in told} == {1}
    assert [job["state"] for job in told[:-1]] == ["running"] * (len(told) - 1)
    assert "encoding" in {job["stage"] for job in told}
    assert (told[-1]["done"], told[-1]["total"]) == (9, 9)


def test_who_saw_the_end_need_not_come_again_and_who_did_not_is_told(begun, told):
    _, client = begun
    whole = client.get("/api/job/events").text
    seen = whole.splitlines()[0].removeprefix("id: ")
    assert client.get("/api/job/events", headers={"Last-Event-ID": seen}).status_code == 204
    assert client.get("/api/job/events", headers={"Last-Event-ID": "1.1"}).text == whole


def test_a_job_can_be_stopped_and_a_second_one_is_refused_meanwhile(indexed, pictures):
    _, client = indexed
    assert client.delete("/api/job").status_code == 409
    assert client.post("/api/index", json={"folder": str(pictures)}).status_code == 202
    second = client.post("/api/index", json={"folder": str(pictures)})
    assert (second.status_code, second.headers["content-type"]) == (409, "application/problem+json")
    stopped = client.delete("/api/job").json()["job"]
    assert (stopped["state"], stopped["stopping"]) == ("running", True)
    assert ended(client)["state"] == "interrupted"


def test_a_library_that_another_process_writes_to_is_told(indexed, pictures):
    library, client = indexed
    with writer_lock(library.catalog.folder):
        refused = client.post("/api/index", json={"folder": str(pictures)})
    assert (refused.status_code, refused.json()["error"]) == (409, "LibraryBusy")
    assert str(pictures.parent) not in refused.text


def test_labels_are_proposed_judged_and_taken_back(indexed):
    library, client = indexed
    assert client.post("/api/label", json={"labels": ["noise", "a cat"]}).status_code == 202
    report = ended(client)["report"]
    assert report["applied"] == 8
    assert sum(one["photos"] for one in report["counts"]) == 8
    best = report["counts"][0]["label"]
    photo = library.catalog.all_ids().tolist()[0]
    accepted = client.post("/api/labels/accept", json={"labels": [best], "photos": [photo]}).json()
    assert (accepted["photos"], accepted["labels"], accepted["new"]) == (1, 1, [])
    rejected = client.post("/api/labels/reject", json={"labels": [best], "above": 0.0}).json()
    runs = client.get("/api/labels/runs").json()["runs"]
    assert [run["kind"] for run in runs] == (["reject"] if rejected["run"] else []) + ["accept", "label"]
    for run in runs:
        assert client.post("/api/labels/undo", json={"run": run["run"]}).json()["kind"] == run["kind"]
    assert client.post("/api/labels/undo", json={"run": runs[0]["run"]}).status_code == 404
    assert client.get("/api/labels").json()["total"] == 0


def test_labels_that_are_not_wanted_any_more_are_not_written(indexed):
    library, client = indexed
    assert (
        client.post("/api/label", json={"labels": [f"label {number}" for number in range(2000)]}).status_code
        == 202
    )
    assert client.delete("/api/job").status_code == 200
    job = ended(client)
    assert (job["state"], job["report"]) == ("interrupted", {"interrupted": True})
    assert library.tags.labels() == []
    assert "Stopped" in client.get("/labels").text


@pytest.mark.parametrize(
    "asked",
    [{}, {"label_set": "/etc/passwd"}, {"label_set": "no such"}, {"labels": [""]}, {"labels": ["a"], "threshold": 2}],
)  # fmt: skip
def test_a_label_set_is_never_a_file(indexed, asked):
    assert indexed[1].post("/api/label", json=asked).status_code == 400


def test_a_review_is_of_labels_that_can_be_read(indexed):
    _, client = indexed
    asked = client.get("/api/review", params={"label": ["\x92", "noise", "noise\x92"]})
    assert (asked.status_code, {one["label"] for one in asked.json()["items"]}) == (200, {"noise"})
    assert client.get("/api/review", params={"label": "\x92"}).status_code == 400


# ---- which folders


def test_who_sits_at_the_machine_may_name_any_folder_that_there_is(indexed, pictures):
    _, client = indexed
    for wrong in ("pictures", "../x", "~nobody-there/x", str(pictures.parent / "none"), __file__):
        refused = client.post("/api/index", json={"folder": wrong})
        assert (refused.status_code, refused.json()["parameter"]) == (400, "folder"), wrong
    assert client.post("/api/index", json={}).status_code == 400


@pytest.mark.parametrize("options", [{"allowed_hosts": ("photos.home",)}, {"host": "0.0.0.0", "token": "secret"}])
def test_others_may_only_name_folders_of_the_library_and_those_that_were_opened_to_them(
    indexed, pictures, tmp_path, monkeypatch, options
):
    library, _ = indexed
    started: list[dict] = []
    monkeypatch.setattr(Jobs, "start", lambda self, kind, order, *, asked: started.append(order) or self.last)
    inside, outside = tmp_path / "open" / "inside", tmp_path / "outside"
    for one in (inside, outside, tmp_path / "opened"):
        one.mkdir(parents=True)
    (inside / "link").symlink_to(outside)
    with served(library, index_under=(str(tmp_path / "open"),), **options) as client:
        client.headers["Authorization"] = "Bearer secret"

        def asked(path: Path) -> int:
            return client.post("/api/index", json={"folder": str(path)}).status_code

        assert [asked(one) for one in (pictures, inside, tmp_path / "open")] == [200 + 2] * 3
        assert [order["folder"] for order in started] == [str(pictures), str(inside), str(tmp_path / "open")]
        refused = [
            outside,
            inside / "link",
            inside / ".." / "..",
            tmp_path / "opened",
            pictures.parent,
            Path("/no"),
        ]
        assert [asked(one) for one in refused] == [403] * 6
        assert asked(inside / "none") == 400
    assert len(started) == 3


def test_only_json_starts_something(indexed, pictures):
    """A form of another site can send neither that nor DELETE."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        body = json.dumps({"folder": str(pictures)})
        assert indexed[1].post("/api/index", content=body, headers={"Content-Type": kind}).status_code == 415


# ---- what goes wrong


def test_a_child_that_dies_is_a_problem_and_no_more(indexed, pictures, monkeypatch):
    _, client = indexed
    monkeypatch.setattr("search.web.jobs._BOOT", "import os; os._exit(3)")
    client.post("/api/index", json={"folder": str(pictures)})
    job = ended(client)
    assert (job["state"], job["problem"]["status"], job["report"]) == ("failed", 500, None)


def test_an_error_of_a_child_names_no_place(indexed, pictures, monkeypatch):
    _, client = indexed
    said = {"error": "StorageError", "message": f"no room in {pictures}", "hint": ""}
    boot = f"print({json.dumps(json.dumps({'failed': said}))})"
    monkeypatch.setattr("search.web.jobs._BOOT", boot)
    client.post("/api/index", json={"folder": str(pictures.parent)})
    job = ended(client)
    assert (job["state"], job["problem"]["status"], job["problem"]["error"]) == ("failed", 507, "StorageError")
    assert str(pictures) not in json.dumps(job)


def test_whoever_goes_is_not_remembered_and_not_more_than_some_may_watch(indexed):
    library, _ = indexed
    jobs = Jobs(library)

    async def come_and_go() -> None:
        watched = jobs.watch()
        await anext(watched)
        assert jobs.watching == 1
        await watched.aclose()
        assert jobs.watching == 0
        many = [jobs.watch() for _ in range(16)]
        for one in many:
            await anext(one)
        with pytest.raises(Exception, match="Too many"):
            jobs.watch()
        for one in many:
            await one.aclose()

    anyio.run(come_and_go)


def test_who_watches_goes_when_the_server_ends_and_nothing_begins_any_more(indexed, pictures, monkeypatch):
    """Else its end would wait for a stream that lasts as long as the job."""
    library, _ = indexed
    waiting = "import sys; sys.stdin.readline(); sys.stdin.readline()"
    monkeypatch.setattr("search.web.jobs._BOOT", waiting)
    jobs = Jobs(library)

    async def watch() -> list[str]:
        jobs.start("index", {}, asked={})
        watched = jobs.watch()
        seen = [await anext(watched)]
        jobs.end()
        return seen + [one async for one in watched]

    async def in_time() -> list[str]:
        with anyio.fail_after(60):
            return await watch()

    assert len(anyio.run(in_time)) <= 2
    with pytest.raises(Exception, match="about to end"):
        jobs.start("index", {}, asked={})
    jobs.close()


def test_a_job_ends_with_its_server(indexed, pictures, monkeypatch):
    library, _ = indexed
    waiting = 'import sys; sys.stdin.readline(); sys.stdin.readline(); print(\'{"done": {"interrupted": true}}\')'
    monkeypatch.setattr("search.web.jobs._BOOT", waiting)
    with served(library) as client:
        client.post("/api/index", json={"folder": str(pictures)})
        jobs = client.app.state.jobs
        assert jobs.last.is_running
    assert jobs.last.state == "interrupted"
    assert jobs._child.poll() == 0
