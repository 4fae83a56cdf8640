"""The pictures in docs/images/, made of the demo's photographs, by Chromium.

    pip install pyte; python bench/screenshots.py [--out docs/images] [--only page terminal]

page    a search, light                  review   labels judged one by one, dark
photo   a photo's own page, dark         library  a folder that is being indexed, light
phone   all photos on a phone, dark         terminal  commands and their answers (bench/terminal.py)
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
from collections.abc import Collection, Iterator
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
COMMANDS = (
    'search find "a red motorcycle" -k 1',
    'search find "a cat" "0.5:a flower" -k 4 --preview',
    "search label chelsea.png rocket.jpg --label cat --label rocket --label temple",
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
    write(tab.screenshot(), place)


def write(picture: bytes, place: Path) -> None:
    """Write a picture down, and how large it is."""
    Image.open(io.BytesIO(picture)).convert("RGB").save(place, quality=76, method=6)
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
    parser.add_argument("--only", nargs="+", choices=["page", "work", "phone", "terminal"], help="these pictures")
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="else playwright's own")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="search-pages-") as work:
        make(Path(work), out=arguments.out, chromium=arguments.chromium, only=arguments.only or ())


def make(work: Path, *, out: Path, chromium: str | None, only: Collection[str]) -> None:
    """Make the pictures, or some of them."""
    photos, library = photographs(work / "Pictures"), work / "library"
    search("index", str(photos), "--model", "builtin", "--library", str(library))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        if not only or "terminal" in only:
            terminal(browser, photos, library, out / "terminal.webp")
        labels = [part for label in LABELS for part in ("--label", label)]
        search("label", *labels, "--apply", "--library", str(library))
        with served(library) as here:
            for name, picture in {"page": page, "phone": phone, "work": at_work}.items():
                if not only or name in only:
                    picture(browser, here, work, out)
        browser.close()


def terminal(browser: Browser, photos: Path, library: Path, place: Path) -> None:
    """Make the picture of a terminal, at twice the pixels."""
    from terminal import session  # pyte is needed for this alone

    environment = {**OFFLINE, "SEARCH_LIBRARY": str(library)}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    context = browser.new_context(device_scale_factor=2)
    tab = context.new_page()
    tab.set_content(session(COMMANDS, folder=photos, environment=environment))
    write(tab.locator("main").screenshot(), place)
    context.close()


def page(browser: Browser, here: str, work: Path, out: Path) -> None:
    """Make the picture of a search."""
    with opened(browser, here, scheme="light", viewport=WIDE) as tab:
        tab.goto("/?q=a+cat+%2B+0.5:flower")
        keep(tab, out / "page.webp")


def phone(browser: Browser, here: str, work: Path, out: Path) -> None:
    """Make the picture of all photos on a phone."""
    with opened(browser, here, scheme="dark", viewport=PHONE) as tab:
        tab.goto("/")
        keep(tab, out / "phone.webp")


def at_work(browser: Browser, here: str, work: Path, out: Path) -> None:
    """Make the pictures of a photo's page, of labels that are judged, and of a run."""
    more = many(work / "Pictures", work / "Scans")
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
    with opened(browser, here, scheme="light", viewport=WIDE) as tab:
        tab.goto("/library")
        tab.fill("#folder", str(more))
        tab.press("#folder", "Enter")
        tab.wait_for_function("() => document.getElementById('job-bar')?.value > 0.3", timeout=300_000)
        keep(tab, out / "library.webp")
        tab.click("#stop")
        tab.wait_for_selector("#job:not(.running)")


def right(tab: Page) -> bool:
    """Whether the label asked about is in the photo, as far as its name tells."""
    names = {"astronaut": "person", "camera": "person", "chelsea": "cat", "china": "temple", "brick": "brick wall"}
    name = Path(tab.locator(".ask bdi").last.inner_text()).stem.partition("_")[0]
    return names.get(name, name) in tab.locator("#question").inner_text()


if __name__ == "__main__":
    main()
