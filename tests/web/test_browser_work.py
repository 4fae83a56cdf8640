"""Indexing and reviewing in a real browser: what moves while someone looks, and what keys do."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from search import Library
from search.web import ServeOptions, create_app

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
pytestmark = pytest.mark.programs


@pytest.fixture(scope="module")
def own(gallery, tmp_path_factory, builtin) -> Iterator[Library]:
    """A copy of the gallery's library that may be written to, with labels on all photos."""
    folder = tmp_path_factory.mktemp("work") / "library"
    shutil.copytree(gallery.catalog.folder, folder)
    with Library.open(folder, model="builtin", offline=True) as library:
        library.model.loaded = builtin
        library.label(["cat", "wall"], apply=True)
        yield library


@pytest.fixture(scope="module")
def tab(own, live, browser) -> Iterator[sync_api.Page]:
    """A tab at a server of the library; what fails in it fails the tests."""
    wrong: list[str] = []
    with live(create_app(own, ServeOptions())) as port:
        context = browser.new_context(base_url=f"http://localhost:{port}")
        tab = context.new_page()
        tab.set_default_timeout(120_000)  # the machine may have others to serve
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("console", lambda said: wrong.append(said.text) if "Content Security" in said.text else None)
        yield tab
        context.close()
    assert not wrong


@pytest.mark.slow
def test_a_folder_is_indexed_while_one_looks(tab, own, make_photo, tmp_path):
    folder: Path = tmp_path / 'new "><script>'
    for number in range(6):
        make_photo(folder / f"{number}.png", 100 + number)
    (folder / "empty.jpg").touch()
    before = own.status().photos
    tab.goto("/library")
    tab.evaluate("window.sameTab = true")
    tab.fill("#folder", str(folder))
    with tab.expect_navigation():
        tab.press("#folder", "Enter")
    tab.evaluate("window.samePage = true")
    bar = tab.locator("#job-bar")
    sync_api.expect(bar).to_be_visible(timeout=120_000)
    other = refused(tab)
    sync_api.expect(tab.locator("#job.job:not(.running)")).to_be_visible(timeout=120_000)
    assert tab.evaluate("window.samePage"), "it was told, and the page not loaded anew"
    assert tab.locator("#photos").inner_text() == str(before + 6)
    assert "6 added · 1 skipped" in tab.locator("#job-counts").inner_text()
    sync_api.expect(tab.locator("#said")).to_contain_text("6 added")
    tab.get_by_role("link", name="empty 1").click()
    assert "empty.jpg" in tab.locator("#skipped").inner_text()
    other.clock.run_for(5_000)
    sync_api.expect(other.locator("#job.job:not(.running)")).to_be_visible(timeout=120_000)
    assert other.locator("#folder").input_value() == "half a na", "what is typed outlives the job"
    assert other.evaluate("document.activeElement.id") == "folder"
    other.close()


def refused(tab: sync_api.Page) -> sync_api.Page:
    """Another tab on the library's page, which may not watch the job; someone is about to name a folder there."""
    other = tab.context.new_page()
    other.clock.install()
    other.route("**/api/job/events", lambda route: route.fulfill(status=429))
    other.goto(tab.url)
    assert other.locator("#job.running").count(), "the job is over already"
    other.locator("#folder").press_sequentially("half a na")
    return other


def asked(tab: sync_api.Page) -> str:
    return tab.locator(".ask").get_attribute("data-photo") or ""


def press(tab: sync_api.Page, key: str) -> str:
    """Answer by a key; return the photo that is asked about then."""
    with tab.expect_response("**/review"):
        tab.keyboard.press(key)
    tab.wait_for_selector("#review:not([aria-busy])")
    return asked(tab)


def test_labels_are_reviewed_with_the_keyboard(tab, own):
    tab.goto("/review?label=wall")
    sync_api.expect(tab.locator("#answer-undo")).to_be_disabled()
    first = asked(tab)
    second = press(tab, "n")
    assert second != first
    assert tab.locator("#rejected").inner_text() == "1"
    third = press(tab, "ArrowRight")
    assert tab.locator("#accepted").inner_text() == "1"
    assert press(tab, "s") not in (first, second, third)
    assert press(tab, "z") == third, "a skipped one comes back, too"
    assert press(tab, "z") == second
    assert tab.locator("#accepted").inner_text() == "0"
    verdicts = {one.label: one for one in own.tags.labels()}["wall"]
    assert (verdicts.accepted, verdicts.rejected) == (0, 1)


def test_focus_stays_where_it_is_and_what_was_said_is_read_out(tab):
    tab.goto("/review?label=cat")
    tab.locator("#answer-no").focus()
    press(tab, "Enter")
    assert tab.evaluate("document.activeElement.id") == "answer-no"
    sync_api.expect(tab.locator("#said")).to_contain_text("cat: no. Next: cat?")
    tab.keyboard.press("c")
    assert tab.evaluate("document.activeElement.id") == "other"
    tab.keyboard.type("yes no")
    assert tab.locator("#other").input_value() == "yes no"


def test_an_answer_that_is_refused_leaves_its_question(tab):
    tab.goto("/review?label=cat")
    before = asked(tab)
    tab.evaluate(
        "document.querySelectorAll('[name=form_token]').forEach((one) => (one.value = 'of another server'))"
    )
    assert press(tab, "y") == before
    sync_api.expect(tab.locator("#said")).to_contain_text("older than the server")


def test_a_phone_sees_all_of_it_without_scrolling_sideways(tab):
    tab.set_viewport_size({"width": 390, "height": 844})
    for path in ("/library", "/labels", "/review"):
        tab.goto(path)
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
    sync_api.expect(tab.locator("#answer-yes")).to_be_in_viewport()
