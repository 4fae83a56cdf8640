"""The pages in a real browser: what someone types, drops, presses and sees."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest

from search.web import ServeOptions, create_app
from search.web.pages import searching

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
pytestmark = pytest.mark.programs
PHONE = {"width": 390, "height": 844}
OPEN = ".tile:not([hidden]) > .open"


@pytest.fixture(scope="module")
def server(gallery, live) -> Iterator[str]:
    """The gallery, served; its address."""
    with live(create_app(gallery, ServeOptions())) as port:
        yield f"http://localhost:{port}"


@pytest.fixture
def tab(browser, server) -> Iterator[sync_api.Page]:
    """A new tab; what runs that should not, or fails, fails the test."""
    context = browser.new_context(base_url=server, viewport={"width": 1280, "height": 860})
    tab = context.new_page()
    wrong: list[str] = []
    tab.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("console", lambda said: wrong.append(said.text) if "Content Security" in said.text else None)
    yield tab
    context.close()
    assert not wrong


def first(tab: sync_api.Page) -> str:
    """What the first photo is called."""
    return tab.locator(f"{OPEN} img").first.get_attribute("alt") or ""


def search(tab: sync_api.Page, words: str) -> None:
    tab.fill("#q", words)
    with tab.expect_navigation():
        tab.press("#q", "Enter")


def test_what_is_typed_is_found(tab):
    tab.goto("/")
    search(tab, "a rocket")
    assert first(tab).startswith("rocket")
    assert tab.locator(".relevance").first.inner_text().endswith("%")
    picture = tab.locator(f"{OPEN} img").first
    sync_api.expect(picture).to_have_js_property("complete", True, timeout=20_000)
    assert picture.evaluate("picture => picture.naturalWidth") >= 320
    assert tab.locator(".tile[hidden]").count() == 2
    tab.locator(".same").first.click()
    assert tab.locator(".tile[hidden]").count() == 0


@pytest.mark.parametrize("path", ["/?camera=", "/photos/1", "/library"])
def test_a_picture_is_dropped_and_its_likes_are_found(tab, photo_folder, path):
    tab.goto(path)
    content = base64.b64encode((photo_folder / "home" / "temple.jpg").read_bytes()).decode()
    with tab.expect_navigation(url="**/?picture=*"):
        tab.evaluate(
            """content => {
                const bytes = Uint8Array.from(atob(content), (one) => one.charCodeAt(0));
                const dataTransfer = new DataTransfer();
                dataTransfer.items.add(new File([bytes], "x.jpg", { type: "image/jpeg" }));
                for (const type of ["dragenter", "dragover", "drop"]) {
                    document.body.dispatchEvent(new DragEvent(type, { dataTransfer, bubbles: true, cancelable: true }));
                }
            }""",
            content,
        )
    assert first(tab).startswith("temple")
    assert "like your picture" in tab.locator(".chip").first.inner_text()


def test_photos_are_filtered_and_not(tab):
    tab.goto("/")
    everything = tab.locator(".tile").count()
    tab.click(".filters summary")
    with tab.expect_navigation():
        tab.locator(".panel a.chip", has_text="space").first.click()
    assert tab.locator(".tile").count() == 3 < everything
    with tab.expect_navigation():
        tab.locator("[aria-label^='Remove the filter']").click()
    assert tab.locator(".tile").count() == everything


def test_everything_is_done_with_keys(tab):
    tab.goto("/")
    tab.keyboard.press("/")
    tab.keyboard.type("a cat")
    with tab.expect_navigation():
        tab.keyboard.press("Enter")
    tab.locator("#q").press("ArrowDown")
    assert "open" in tab.evaluate("document.activeElement.className")
    with tab.expect_navigation(url="**/photos/*"):
        tab.keyboard.press("Enter")
    assert tab.locator("h1").inner_text() == "cat.jpg"
    with tab.expect_navigation(url="**/?q=a+cat*"):
        tab.keyboard.press("Escape")
    tab.locator(OPEN).first.focus()
    with tab.expect_navigation(url="**/?q=a+cat+*like*"):
        tab.keyboard.press("m")
    tab.keyboard.press("?")
    assert tab.locator("#keys").is_visible()


def test_more_photos_come_by_themselves(tab, gallery, monkeypatch):
    monkeypatch.setattr(searching, "PAGE", 3)
    tab.goto("/?apart=1")
    everything = len(gallery.catalog.all_ids())
    sync_api.expect(tab.locator(".tile")).to_have_count(everything)
    assert tab.locator(".next").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_a_phone(tab, shown, scheme):
    tab.set_viewport_size(PHONE)
    tab.emulate_media(color_scheme=scheme)
    query = "q=a+very+long+description+of+what+is+looked+for+-+0.5:people+%2B+like:1&tag=space&all=1"
    for url in ("/", f"/?{query}", f"/photos/{shown['cat.jpg'].id}", "/?q=x+%2B", "/nothing"):
        tab.goto(url)
        if tab.locator(".filters").count():
            tab.evaluate("document.querySelector('.filters').open = true")
        assert tab.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], url


def test_names_of_files_do_nothing(tab, shown):
    strange = [photo for photo in shown.values() if photo.path.rpartition("/")[0].endswith("strange")]
    assert len(strange) == 4
    for url in ("/?q=x&all=1", *(f"/photos/{photo.id}" for photo in strange)):
        tab.goto(url)
        assert tab.locator("script:not([src])").count() == 0
        assert tab.locator("main b").count() == 0


def test_it_works_without_scripts(browser, server):
    context = browser.new_context(base_url=server, java_script_enabled=False)
    tab = context.new_page()
    tab.goto("/")
    search(tab, "a rocket")
    assert first(tab).startswith("rocket")
    tab.locator(OPEN).first.click()
    tab.wait_for_url("**/photos/*")
    assert tab.locator("#image").count() == 0
    tab.go_back()
    assert tab.locator("#image").is_visible()
    context.close()
