"""The pages that work on a library: what it holds, labels, and their review. They need no script."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from search import Library
from search.types import Skip, SkipReason
from search.web import ServeOptions, create_app
from search.web.jobs import Jobs
from search.web.pages.status import page_of

HERE = "http://localhost:8000"


@pytest.fixture(scope="module")
def own(gallery, tmp_path_factory, builtin) -> Iterator[Library]:
    """A copy of the gallery's library that may be written to, with labels on all photos."""
    folder = tmp_path_factory.mktemp("work") / "library"
    shutil.copytree(gallery.catalog.folder, folder)
    with Library.open(folder, model="builtin", offline=True) as library:
        library.model.loaded = builtin
        library.label(["cat", "wall", "<b>bold</b>"], apply=True)
        yield library


@pytest.fixture(scope="module")
def site(own) -> Iterator[TestClient]:
    app = create_app(own, ServeOptions())
    with TestClient(app, base_url=HERE, follow_redirects=False) as client:
        client.headers["Accept"] = "text/html"
        yield client


def token(client: TestClient) -> str:
    return re.search('name="form-token" content="([0-9a-f]+)"', client.get("/library").text)[1]


def send(client: TestClient, path: str, **fields):
    return client.post(path, data={"form_token": token(client), **fields})


def question(text: str) -> tuple[str, str]:
    """The photo and label that a page asks about."""
    return re.search('name="photo" value="([0-9]+)"', text)[1], re.search('name="of" value="([^"]*)"', text)[1]


# ---- the library


def test_the_library_page_tells_what_there_is_and_nothing_in_it_is_markup(site, own, photo_folder):
    text = site.get("/library").text
    status = own.status()
    assert f'id="photos">{status.photos}<' in text
    assert str(photo_folder) in text
    assert "builtin" in text
    assert "<script>alert" not in text


def test_a_library_that_is_not_there_yet_is_asked_for_a_folder(tmp_path, builtin):
    with Library.open(tmp_path / "none", model="builtin", offline=True) as library:
        client = TestClient(create_app(library, ServeOptions()), base_url=HERE)
        for path in ("/library", "/labels", "/review"):
            shown = client.get(path)
            assert (shown.status_code, 'href="/library"' in shown.text) == (200, True)
        assert "Index a folder" in client.get("/library").text
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("path", ["/library/index", "/library/stop", "/labels/propose", "/labels/undo", "/review"])
def test_a_form_of_another_page_changes_nothing(site, path):
    for fields in ({}, {"form_token": "0" * 64}):
        assert site.post(path, data={"folder": "/", "run": "1", "answer": "yes", **fields}).status_code == 403


def test_the_form_starts_a_job_and_what_is_wrong_is_said_beside_it(site, photo_folder, monkeypatch):
    started = []
    monkeypatch.setattr(Jobs, "start", lambda self, kind, order, *, asked: started.append((kind, order)))
    sent = send(site, "/library/index", folder=str(photo_folder))
    assert (sent.status_code, sent.headers["location"]) == (303, "/library#job")
    in_bytes = "L25vbmUv/w=="  # no, and no base64 of a folder either
    assert send(site, "/library/index", folder_bytes=in_bytes).status_code == 400
    wrong = send(site, "/library/index", folder='/none"><script>')
    assert (wrong.status_code, 'role="alert"' in wrong.text) == (400, True)
    assert '"><script>' not in wrong.text
    assert send(site, "/labels/propose", label_set="coco80", labels="x\n\n y ").status_code == 303
    assert send(site, "/labels/propose", label_set="", labels=" \n").status_code == 400
    assert [kind for kind, _ in started] == ["index", "label"]
    assert started[1][1]["labels"] == ["x", "y"]


def test_skipped_files_are_counted_by_reason_and_come_in_pages():
    files = [Skip(f"/{n}", SkipReason.EMPTY if n % 3 else SkipReason.MEMORY, "") for n in range(120)]
    page = page_of(files, "", 50)
    assert [(code, count) for code, _, count in page.reasons] == [("empty", 80), ("memory", 40)]
    assert (len(page.files), page.before, page.after) == (50, 0, 100)
    page = page_of(files, "memory", 0)
    assert {str(skip.reason) for skip in page.files} == {"memory"}
    assert (len(page.files), page.before, page.after) == (40, None, None)
    assert page_of(files, "no such", 0).reason == ""


# ---- labels


def test_labels_are_listed_with_links_and_can_be_downloaded(site, own):
    text = site.get("/labels?order=photos").text
    assert "&lt;b&gt;bold&lt;/b&gt;" in text
    assert "<b>bold" not in text
    assert 'href="/?tag=wall"' in text
    assert 'href="/review?label=wall"' in text
    csv = site.get("/api/labels/export?format=csv&label=wall")
    assert csv.headers["content-disposition"] == 'attachment; filename="labels.csv"'
    rows = csv.text.splitlines()
    assert rows[0].split(",")[:3] == ["path", "label", "state"]
    summary = next(one for one in own.tags.labels() if one.label == "wall")
    assert own.tags.label("wall") == summary
    assert own.tags.label("no such label") is None
    assert len(rows) == 1 + summary.photos
    listed = json.loads(site.get("/api/labels/export?format=json").content)
    assert len(listed["photos"]) == own.status().photos


def test_what_a_review_asks_is_what_the_command_line_asks(site, own):
    asked = site.get("/api/review", params={"label": "wall", "k": 3}).json()
    expected = own.tags.review(["wall"])
    assert asked["left"] == expected.left
    assert [one["id"] for one in asked["items"]] == [item.photo.id for item in expected.queue(3)]


# ---- the review


def test_answers_are_written_teach_and_are_taken_back(site, own):
    before = {one.label: one for one in own.tags.labels()}["wall"]
    first = site.get("/review?label=wall").text
    photo, label = question(first)
    assert label == "wall"
    answered = send(site, "/review", label="wall", photo=photo, of=label, answer="no")
    assert answered.status_code == 303
    second = site.get(answered.headers["location"]).text
    assert question(second) != (photo, label)
    now = {one.label: one for one in own.tags.labels()}["wall"]
    assert now.rejected == before.rejected + 1
    assert f'id="rejected">{now.rejected}<' in second
    assert 'id="likely"' in second
    runs = [run.kind for run in own.tags.runs()]
    send(site, "/review", label="wall", photo=question(second)[0], of=label, answer="yes")
    assert [run.kind for run in own.tags.runs()] == runs, "all answers are one run"
    taken = send(site, "/review", label="wall", photo="0", of=label, answer="undo")
    assert question(site.get(taken.headers["location"]).text) == question(second)
    send(site, "/review", label="wall", photo="0", of=label, answer="undo")
    assert {one.label: one for one in own.tags.labels()}["wall"].rejected == before.rejected


def test_a_photo_that_is_skipped_or_has_another_label_is_asked_about_no_more(site, own):
    photo, _ = question(site.get("/review?label=wall").text)
    send(site, "/review", label="wall", photo=photo, of="wall", answer="skip")
    other, _ = question(site.get("/review?label=wall").text)
    assert other != photo
    send(site, "/review", label="wall", photo=other, of="wall", answer="other", other="a mill")
    records = own.tags.of([int(other)])[int(other)]
    said = {(one.label, one.rejected) for one in records if one.source == "user"}
    assert {("a mill", False), ("wall", True)} <= said
    last = max(run.id for run in own.tags.runs())
    assert send(site, "/labels/undo", run=str(last)).status_code == 303
    assert question(site.get("/review?label=wall").text)[0] == photo, "what was written meanwhile begins it anew"


def test_a_script_gets_the_next_question_alone(site):
    text = site.get("/review?label=cat", headers={"X-Part": "1"}).text
    assert "<html" not in text
    assert question(text)[1] == "cat"
    assert text.count('class="ahead"') == 3


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"photo": "99999", "of": "wall", "answer": "yes"}, 409),
        ({"photo": "x", "of": "wall", "answer": "yes"}, 409),
        ({"photo": "1", "of": "no such label", "answer": "yes"}, 409),
        ({"photo": "1", "of": "wall", "answer": "perhaps"}, 400),
        ({"photo": "1", "of": "wall", "answer": "other", "other": ""}, 400),
    ],
)
def test_what_is_no_answer_is_none(site, own, fields, status):
    before = own.tags.runs()
    assert send(site, "/review", label="wall", **fields).status_code == status
    assert own.tags.runs() == before


def test_a_library_that_is_being_written_to_keeps_the_question(site, own):
    photo, label = question(site.get("/review?label=cat").text)
    with own.catalog.writing():
        refused = send(site, "/review", label="cat", photo=photo, of=label, answer="yes")
    assert (refused.status_code, 'role="alert"' in refused.text) == (503, True)
    assert question(refused.text) == (photo, label)


def test_so_many_labels_are_not_reviewed_together(site):
    assert site.get("/review", params={"label": [str(n) for n in range(17)]}).status_code == 400
