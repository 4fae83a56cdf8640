"""The five pictures of the pages in docs/images/, made of the demo's photographs, by Chromium.

    python bench/screenshots.py [--out docs/images]

page    a search, light                  review   labels judged one by one, dark
photo   a photo's own page, dark         library  a folder that is being indexed, light
phone   all photos on a phone, dark
"""

from __future__ import annotations

import argparse
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from demo import gather

LABELS = (
    "a person",
    "a cat",
    "a rocket",
    "a temple",
    "a motorcycle",
    "a flower",
    "a brick wall",
    "a cup of coffee",
)
WIDE, PHONE = {"width": 1280, "height": 760}, {"width": 390, "height": 760}
COPIES = 40  # of the photographs, so that there is time to look at an index run
OFFLINE = {**os.environ, "SEARCH_OFFLINE": "1"}


def search(*arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "search", *arguments], check=True, stdout=subprocess.DEVNULL, env=OFFLINE
    )


@contextmanager
def served(library: Path) -> Iterator[str]:
    """Serve a library as long as a `with` lasts; give its address."""
    command = [sys.executable, "-m", "search", "serve", "--port", "0", "--json", "--library", str(library)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=OFFLINE) as server:
        try:
            said = ""
            while not (found := re.search(r'http://[^"\s]+', said)):
                said = server.stdout.readline() or sys.exit("the server did not start")
            yield found[0].rstrip("/")
        finally:
            server.terminate()


@contextmanager
def opened(browser: Browser, here: str, *, scheme: str, viewport: dict[str, int]) -> Iterator[Page]:
    """Open a tab that likes light or dark."""
    context = browser.new_context(base_url=here, viewport=viewport, color_scheme=scheme)
    yield context.new_page()
    context.close()


def keep(tab: Page, place: Path) -> None:
    """Write down what a tab shows, once its pictures are there."""
    tab.wait_for_function("() => [...document.images].every((one) => one.complete || one.loading === 'lazy')")
    if tab.locator("main img").count():
        tab.wait_for_load_state("networkidle")
    Image.open(io.BytesIO(tab.screenshot())).convert("RGB").save(place, quality=76, method=6)
    print(f"{place}: {place.stat().st_size / 1000:.0f} kB")


def photographs(folder: Path) -> Path:
    """Gather the demo's photographs; leave out what is a measurement more than a photograph."""
    gather(folder)
    for name in (
        "ihc.png",
        "microaneurysms.png",
        "retina.jpg",
        "cell.png",
        "text.png",
        "page.png",
        "motorcycle_left.png",
    ):
        (folder / name).unlink()
    return folder


def many(photos: Path, folder: Path) -> Path:
    """Fill a folder with other sizes of the photographs."""
    folder.mkdir()
    for path in photos.iterdir():
        image = Image.open(path).convert("RGB")
        for number in range(COPIES):
            side = 320 + 2 * number
            image.resize((side, side * image.height // image.width)).save(folder / f"{path.stem}-{number}.jpg")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="else playwright's own")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="search-pages-") as work:
        make(Path(work), out=arguments.out, chromium=arguments.chromium)


def make(work: Path, *, out: Path, chromium: str | None) -> None:
    """Make the five pictures."""
    photos, library = photographs(work / "Pictures"), work / "library"
    more = many(photos, work / "Scans")
    search("index", str(photos), "--model", "builtin", "--library", str(library))
    labels = [part for label in LABELS for part in ("--label", label)]
    search("label", *labels, "--apply", "--library", str(library))
    with served(library) as here, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        with opened(browser, here, scheme="light", viewport=WIDE) as tab:
            tab.goto("/?q=a+red+motorcycle+-+0.5:grey")
            keep(tab, out / "page.webp")
        with opened(browser, here, scheme="dark", viewport=WIDE) as tab:
            tab.goto("/?q=a+cat")
            tab.goto(tab.locator(".open", has=tab.locator("img[alt^=chelsea]")).get_attribute("href"))
            keep(tab, out / "photo.webp")
            tab.goto("/review")
            for _ in range(4):
                with tab.expect_response("**/review"):
                    tab.keyboard.press("y" if right(tab) else "n")
                tab.wait_for_selector("#review:not([aria-busy])")
            keep(tab, out / "review.webp")
        with opened(browser, here, scheme="dark", viewport=PHONE) as tab:
            tab.goto("/")
            keep(tab, out / "phone.webp")
        with opened(browser, here, scheme="light", viewport=WIDE) as tab:
            tab.goto("/library")
            tab.fill("#folder", str(more))
            tab.press("#folder", "Enter")
            tab.wait_for_function("() => document.getElementById('job-bar')?.value > 0.3", timeout=300_000)
            keep(tab, out / "library.webp")
            tab.click("#stop")
            tab.wait_for_selector("#job:not(.running)")
        browser.close()


def right(tab: Page) -> bool:
    """Whether the label asked about is in the photo, as far as its name tells."""
    names = {"astronaut": "person", "camera": "person", "chelsea": "cat", "china": "temple", "brick": "brick wall"}
    name = Path(tab.locator(".ask bdi").last.inner_text()).stem.partition("_")[0]
    return names.get(name, name) in tab.locator("#question").inner_text()


if __name__ == "__main__":
    main()
