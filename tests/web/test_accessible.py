"""Every page and state of it under axe-core: who can't see, point or tell red from green uses it, too."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from search import Library
from search.web import ServeOptions, create_app

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
pytestmark = [pytest.mark.slow, pytest.mark.programs]

AXE = "axe-core@4.14.1"
NOTHING = "/?q=x&after=2021&before=2022&camera=Leica+M"
LOOKS = [("light", 1280), ("dark", 390)]


@pytest.fixture(scope="module")
def axe(request, tmp_path_factory) -> str:
    """axe-core's script: the file of --axe, else what npm fetches."""
    if given := request.config.getoption("--axe"):
        return Path(given).read_text()
    npm, folder = shutil.which("npm"), tmp_path_factory.mktemp("axe")
    if npm is None:
        pytest.skip("there is no npm to fetch axe-core with: apt install npm, or --axe PATH of axe.min.js")
    fetched = subprocess.run([npm, "pack", AXE], cwd=folder, capture_output=True, text=True, timeout=120)
    if fetched.returncode:
        pytest.skip(f"npm could not fetch {AXE}: give --axe PATH of axe.min.js")
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        return archive.extractfile("package/axe.min.js").read().decode()


@pytest.fixture(scope="module")
def own(gallery, tmp_path_factory, builtin) -> Iterator[Library]:
    """A copy of the gallery's library that may be written to, with labels on all photos."""
    folder = tmp_path_factory.mktemp("axe") / "library"
    shutil.copytree(gallery.catalog.folder, folder)
    with Library.open(folder, model="builtin", offline=True) as library:
        library.model.loaded = builtin
        library.label(["cat", "wall"], apply=True)
        yield library


@pytest.fixture(params=LOOKS, ids=["light", "dark phone"])
def tab(request, browser) -> Iterator[sync_api.Page]:
    scheme, width = request.param
    viewport = {"width": width, "height": 844}
    context = browser.new_context(viewport=viewport, color_scheme=scheme, bypass_csp=True)
    yield context.new_page()
    context.close()


@pytest.fixture
def wrong(tab, axe):
    """What axe finds wrong with a page as it stands, in words."""

    def wrong_() -> list[str]:
        tab.evaluate(axe)
        found = tab.evaluate("axe.run().then((found) => found.violations)")
        return [f"{one['id']} ({one['impact']}): {one['nodes'][0]['html']}" for one in found]

    return wrong_


def test_axe_sees_what_is_wrong(tab, wrong):
    tab.set_content("<html><body><img src='x'><button></button></body></html>")
    assert {"image-alt", "button-name"} <= {one.partition(" ")[0] for one in wrong()}


def test_photos_in_every_state(tab, wrong, gallery, shown, live):
    photo = shown["rocket.jpg"].id
    with live(create_app(gallery, ServeOptions())) as port:
        for path in (
            "/",
            "/?q=a+rocket",
            f"/?q=a+cat+-+0.5:wall+%2B+like:{photo}&tag=space/rocket&all=1",
            "/?q=a+rocket&apart=1",
            NOTHING,
            "/?camera=none",
            "/?q=x+%2B",
            "/nothing",
            f"/photos/{photo}?q=a+rocket&at=1",
            f"/photos/{shown['turned.jpg'].id}",
        ):
            tab.goto(f"http://localhost:{port}{path}")
            assert not wrong(), path
        tab.goto(f"http://localhost:{port}/?q=a+rocket")
        tab.locator(".same").first.click()
        tab.click(".filters summary")
        assert not wrong(), "unfolded, with filters"
        tab.locator(".tile .open").first.focus()
        tab.keyboard.press("?")
        assert not wrong(), "keys"


def test_labels_review_and_library_in_every_state(tab, wrong, own, live, make_photo, tmp_path):
    make_photo(tmp_path / "photos" / "new.png", 77)
    (tmp_path / "photos" / "empty.jpg").touch()
    with live(create_app(own, ServeOptions())) as port:
        here = f"http://localhost:{port}"
        for path in ("/labels", "/labels?order=precision", "/library", "/review", "/review?label=zebra"):
            tab.goto(here + path)
            assert not wrong(), path
        for key, state in (("y", "after a verdict"), ("z", "after one was taken back")):
            with tab.expect_response("**/review"):
                tab.keyboard.press(key)
            tab.wait_for_selector("#review:not([aria-busy])")
            assert not wrong(), state
        tab.route("**/api/job/events", lambda route: route.fulfill(status=429))  # it stays as it is
        tab.goto(f"{here}/library")
        tab.fill("#folder", str(tmp_path / "photos"))
        tab.press("#folder", "Enter")
        tab.wait_for_selector("#job.running")
        assert not wrong(), "a job under way"
        sync_api.expect(tab.locator("#job:not(.running)")).to_be_visible(timeout=120_000)
        assert not wrong(), "a job that is over, and skipped files"
        tab.fill("#folder", str(tmp_path / "nowhere"))
        tab.press("#folder", "Enter")
        tab.wait_for_selector("[role=alert]")
        assert not wrong(), "a folder that is not there"


def test_a_library_without_photos(tab, wrong, tmp_path, live):
    with (
        Library.open(tmp_path / "library", model="builtin", offline=True) as library,
        live(create_app(library, ServeOptions())) as port,
    ):
        for path in ("/", "/labels", "/review", "/library"):
            tab.goto(f"http://localhost:{port}{path}")
            assert not wrong(), path


def test_who_is_not_let_in(tab, wrong, gallery, live):
    with live(create_app(gallery, ServeOptions(token="t" * 24))) as port:
        tab.goto(f"http://localhost:{port}/")
        assert tab.locator("h1").inner_text().startswith("401")
        assert not wrong()
