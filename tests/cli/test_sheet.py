"""The contact sheet: one file that needs nothing else, whatever stands in names."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

import pytest
from PIL import Image

from search.cli.sheet import Section, Tile, contact_sheet


class Page(HTMLParser):
    """What a browser makes of a page: elements with their attributes and the text in each kind."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open = [""]
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_endtag(self, tag):
        while self._open.pop() != tag:
            pass

    def handle_data(self, data):
        self.texts.setdefault(self._open[-1], []).append(data)

    def all(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        return [a for name, a in self.elements if name == tag and wanted.items() <= a.items()]

    def photos(self) -> list[dict[str, str | None]]:
        return [a for a in self.all("a") if a.get("class") == "photo"]


def page(*sections: Section) -> Page:
    return Page("".join(contact_sheet(sections)))


@pytest.fixture
def photo(tmp_path, make_photo) -> str:
    return str(make_photo(tmp_path / "photo.png", 1, size=(640, 480)))


def test_a_sheet_of_an_answer_shows_pictures_figures_and_labels(run, photographs):
    assert run("index", *photographs.values(), "--model", "builtin").code == 0
    run("label", "--label", "rocket", "--label", "cat", "--apply")
    found = run("find", "a cat & <b>more</b>", "-k", "2", "--json").json
    sheet = Page(run("find", "a cat & <b>more</b>", "-k", "2", "--format", "html").stdout)
    assert "a cat & <b>more</b>" in sheet.texts["h2"]
    assert [unquote_to_bytes(urlsplit(a["href"]).path) for a in sheet.photos()] == [
        os.fsencode(hit["path"]) for hit in found["hits"]
    ]
    figures = " ".join(sheet.texts["p"])
    for hit in found["hits"]:
        assert f"{hit['relevance']:.0%} · {hit['score']:.3f}" in figures
        assert set(hit["labels"]) <= set(sheet.texts["span"])
    bars = [int(a["width"]) for a in sheet.all("rect")]
    assert bars == [round(100 * hit["relevance"]) for hit in found["hits"]]


def test_thumbnails_are_in_the_page_and_small(photo):
    [image] = [a for a in page(Section("x", (Tile(photo),))).all("img") if a["alt"]]
    kind, data = image["src"].split(",")
    assert kind == "data:image/webp;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (320, 240)


def test_nothing_is_loaded_from_elsewhere_and_no_script_but_its_own_runs(photo):
    html = "".join(contact_sheet([Section("x", (Tile(photo),))]))
    sheet = Page(html)
    links = [value for _, a in sheet.elements for name, value in a.items() if name in ("src", "href", "srcset")]
    assert {urlsplit(link).scheme or link for link in links} == {"data", "file", "#"}
    [script] = re.findall("<script>(.*?)</script>", html, re.DOTALL)
    [policy] = [a["content"] for a in sheet.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; ")
    assert f"script-src 'sha256-{digest}'" in policy
    assert not [name for _, a in sheet.elements for name in a if name.startswith("on") or name == "style"]


@pytest.mark.parametrize(
    "name", ["<img src=x onerror=alert(1)>.png", '" onclick="x.png', "'&amp;.png", "</script>.png"]
)
def test_a_name_is_text_whatever_it_holds(photo, tmp_path, name):
    path = tmp_path / name.replace("/", "∕")
    Path(photo).rename(path)
    title = path.name
    sheet = page(Section(title, (Tile(str(path), badge=title, figures=title, details=(title,), labels=(title,)),)))
    assert len(sheet.all("img")) == 2  # the picture and the lightbox's
    assert len(sheet.all("script")) == 1
    [link] = sheet.photos()
    assert link["title"] == title
    assert link.keys() == {"class", "href", "title"}
    assert sheet.texts["bdi"] == [title, title]


def test_links_lead_to_the_file_whatever_bytes_its_name_has(photo, tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/a #?%41\xff\n\xe5.png")
    os.rename(photo, path)
    [link] = page(Section("x", (Tile(path),))).photos()
    assert unquote_to_bytes(urlsplit(link["href"]).path) == os.fsencode(path)
    assert link["title"] == "a #?%41\\udcff\\n\\udce5.png"


def test_marks_that_reorder_text_are_shown_as_what_they_are(photo, tmp_path):
    path = tmp_path / "gpj\u202egnp.png"
    os.rename(photo, path)
    assert page(Section("x", (Tile(str(path)),))).photos()[0]["title"] == "gpj\\u202egnp.png"


def test_a_photo_that_is_gone_is_named_as_missing(tmp_path):
    sheet = page(Section("x", (Tile(str(tmp_path / "gone.png")),)))
    assert [a for a in sheet.all("img") if "src" in a] == []
    assert "not readable now" in sheet.texts["span"]
    assert "gone.png" in sheet.texts["bdi"]


def test_groups_have_titles_reasons_and_badges(photo):
    sheet = page(
        Section("Same picture", (Tile(photo, badge="keep"), Tile(photo)), note="re-encoded"), Section("Others", ())
    )
    assert sheet.texts["h2"] == ["Same picture", "Others"]
    assert "re-encoded" in sheet.texts["p"]
    assert "keep" in sheet.texts["span"]
    assert "Nothing found." in sheet.texts["p"]


def test_a_sheet_comes_in_parts_and_pictures_are_made_only_shortly_ahead(photo, monkeypatch):
    from search.photos import thumbnails

    made = []
    thumbnail = thumbnails.thumbnail
    monkeypatch.setattr(thumbnails, "thumbnail", lambda path, **how: made.append(path) or thumbnail(path, **how))
    parts = contact_sheet([Section("x", (Tile(photo),) * 60)])
    while 'class="photo"' not in next(parts):
        pass
    before = -1
    while len(made) > before:  # until no more are made while nobody reads
        before = len(made)
        time.sleep(0.3)
    parts.close()
    assert 1 <= len(made) < 20


def test_duplicates_are_shown_in_groups_with_the_one_to_keep_marked(run, make_photo, tmp_path):
    folder = tmp_path / "p"
    first = make_photo(folder / "first.png", 1)
    (folder / "second copy.png").write_bytes(first.read_bytes())
    make_photo(folder / "other.png", 2)
    run("index", folder, "--model", "builtin")
    [group] = run("duplicates", "--kind", "exact", "--json").json["groups"]
    done = run("duplicates", "--kind", "exact", "-o", tmp_path / "groups.html")
    assert (done.code, done.stdout) == (0, "")
    sheet = Page((tmp_path / "groups.html").read_text())
    assert sheet.texts["h2"] == ["exact"]
    assert sheet.texts["span"].count("keep") == 1
    names = [photo["title"] for photo in sheet.photos()]
    assert sorted(names) == ["first.png", "second copy.png"]
    assert names[0] == Path(group["keep"]).name


def test_without_duplicates_the_sheet_says_so(run, album, tmp_path):
    run("index", album, "--model", "builtin")
    run("duplicates", "--kind", "exact", "-o", tmp_path / "groups.html")
    assert "No duplicates." in Page((tmp_path / "groups.html").read_text()).texts["p"]
