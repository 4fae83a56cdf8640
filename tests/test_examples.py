"""Every example of README.md and docs/ runs, and prints what its page shows: tests/pages.py says how they are written.

    pytest tests/test_examples.py -k tutorial --write-examples

puts what came into the page, to be looked at before it is committed.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from pages import Page, Step, matches, rewritten
from PIL import Image

from search import load_encoder
from search.cli import cli
from search.library.model import LibraryModel

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SLOW = {"answers", "duplicates", "evaluation", "fine-tuning", "long-text", "serve", "tutorial"}
"""Pages whose examples take more than a few seconds, by name: they run with the slow tests."""

LANGUAGES = {"console", "python", "py", "text", "json", "ini", "toml", "yaml", "xml", "dockerfile", "sh"}
COLUMNS = "100"
CAMERAS = {"canon": ("Canon", "Canon EOS 5D"), "pixel": ("Google", "Pixel 7")}
ALBUM = {
    "2022/Beijing/IMG_0101.jpg": ("china.jpg", "2022:10:03 10:12:00", "canon", (39.9997, 116.2755)),
    "2022/Beijing/IMG_0102.jpg": ("flower.jpg", "2022:10:03 10:40:00", "canon", (40.0009, 116.2680)),
    "2023/home/IMG_0211.jpg": ("chelsea.png", "2023:05:06 18:02:00", "pixel", None),
    "2023/home/IMG_0212.jpg": ("coffee.png", "2023:05:07 08:15:00", "pixel", None),
    "2023/launch/IMG_0301.jpg": ("rocket.jpg", "2023:07:14 11:00:00", "canon", (28.5729, -80.6490)),
    "2024/garage/IMG_0401.jpg": ("motorcycle_left.png", "2024:03:02 15:30:00", "canon", None),
    "2024/garage/IMG_0402.jpg": ("motorcycle_right.png", "2024:03:02 15:30:03", "canon", None),
    "2024/garden/IMG_0411.jpg": ("brick.png", "2024:06:09 12:00:00", "pixel", None),
    "2024/garden/IMG_0412.jpg": ("grass.png", "2024:06:09 12:05:00", "pixel", None),
    "2024/garden/IMG_0413.jpg": ("gravel.png", "2024:06:09 12:06:00", "pixel", None),
}
"""What is in ~/Pictures: of which photograph it is made, when it was taken, by which camera and where."""

COPY, BROKEN = "received/IMG-20230506-WA0003.jpg", "received/half-a-download.jpg"
"""A smaller copy of the cat, and a file that ends too soon."""


def degrees(angle: float) -> tuple[float, float, float]:
    """Return an angle as EXIF has it."""
    minutes = abs(angle) % 1 * 60
    return (float(int(abs(angle))), float(int(minutes)), round(minutes % 1 * 60, 2))


def exif(date: str, camera: str, place: tuple[float, float] | None) -> Image.Exif:
    """Return what a camera writes into a photo."""
    data = Image.Exif()
    data[0x010F], data[0x0110] = CAMERAS[camera]
    data.get_ifd(0x8769)[0x9003] = date
    if place:
        signs = ("N" if place[0] > 0 else "S", "E" if place[1] > 0 else "W")
        data.get_ifd(0x8825).update({1: signs[0], 2: degrees(place[0]), 3: signs[1], 4: degrees(place[1])})
    return data


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The demo's photographs and the album, made once and copied for each page."""
    photos = runpy.run_path(str(ROOT / "bench" / "demo.py"))["gather"](tmp_path_factory.mktemp("demo") / "photos")
    album = tmp_path_factory.mktemp("album") / "Pictures"
    for name, (source, date, camera, place) in ALBUM.items():
        path = album / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.open(photos / source).convert("RGB").save(path, quality=92, exif=exif(date, camera, place))
    (album / COPY).parent.mkdir()
    cat = Image.open(photos / "chelsea.png").convert("RGB")
    cat.resize((cat.width * 2 // 3, cat.height * 2 // 3)).save(album / COPY, quality=80)
    (album / BROKEN).write_bytes((album / "2022/Beijing/IMG_0101.jpg").read_bytes()[:40_000])
    return photos, album


class Terminal(CliRunner):
    """Runs a command as at a terminal, where answers have a head and stderr has no progress bar."""

    @contextlib.contextmanager
    def isolation(self, *args, **options):
        with super().isolation(*args, **options) as streams:
            sys.stdout.isatty = lambda: True
            yield streams


class Session:
    """One page's shell and Python: a home, a folder, a library, and the servers that were started."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch, stack: contextlib.ExitStack) -> None:
        self.home, self._patch, self._stack = home, monkeypatch, stack
        self._names: dict[str, object] = {}
        self._port = "8000"

    def run(self, step: Step) -> tuple[int, str]:
        """Run one step; return its exit code and what it printed, as the page would have it."""
        code = re.sub(r"(?<=[\w.]):8000\b", f":{self._port}", step.code)
        status, output = self._python(code) if step.kind == "python" else self._command(code)
        return status, output.replace(f":{self._port}", ":8000").replace(str(self.home), "/home/you")

    def _python(self, code: str) -> tuple[int, str]:
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(compile(code, "example", "exec"), self._names)
        return 0, said.getvalue()

    def _command(self, code: str) -> tuple[int, str]:
        outside_quotes = re.sub(r"'[^']*'|\"[^\"$`]*\"", "", code)
        if found := re.fullmatch(r"export (\w+)=(.*)", code):
            self._patch.setenv(found[1], os.path.expanduser(shlex.split(found[2])[0]))
            return 0, ""
        if found := re.fullmatch(r"unset (\w+)", code):
            self._patch.delenv(found[1])
            return 0, ""
        if found := re.fullmatch(r"cd (\S+)", code):
            self._patch.chdir(os.path.expanduser(found[1]))
            return 0, ""
        if re.match(r"search( -L \S+)? serve\b(?!.*--help)", code):
            return self._serve(code)
        if re.match(r"search\b(?!.*[|<>;&$`*?(){}])", re.sub(r"\s#.*", "", outside_quotes)):
            return self._search(code)
        if (found := re.fullmatch(r"(printf [^|]*|echo [^|]*) \| (search [^|<>;&$`]*)", code)) is not None:
            return self._search(found[2], said=self._bash(found[1])[1])
        return self._bash(code)

    def _search(self, code: str, said: str = "") -> tuple[int, str]:
        words = [os.path.expanduser(word) for word in shlex.split(code, comments=True)[1:]]
        result = Terminal().invoke(cli, words, input=said, prog_name="search")
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, re.sub(r"\x1b\[[\d;]*m", "", result.output)

    def _bash(self, code: str) -> tuple[int, str]:
        answer = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {code}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )
        return answer.returncode, answer.stdout

    def _serve(self, code: str) -> tuple[int, str]:
        words = [os.path.expanduser(word) for word in shlex.split(code.rstrip(" &"), comments=True)]
        port = () if "--port" in words else ("--port", "0")
        server = subprocess.Popen([*words, *port], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self._stack.callback(server.stdout.close)
        self._stack.callback(server.wait, 30)
        self._stack.callback(server.terminate)
        said = ""
        while line := server.stdout.readline():
            said += line
            if found := re.search(r"http://[^:\s]+:(\d+)", line):
                self._port = found[1]
                return 0, said
        return server.wait(30), said


@pytest.fixture(scope="session")
def exact_model():
    """The built-in model in full precision: in half of it a processor's scores differ in their third digit."""
    return load_encoder("builtin", precision="float32")


@pytest.fixture
def session(originals, tmp_path, exact_model, monkeypatch) -> Iterator[Session]:
    photos, album = originals
    home = tmp_path / "home"
    shutil.copytree(photos, home / "search" / "demo" / "photos")
    shutil.copytree(album, home / "Pictures")
    for name in ("SEARCH_LIBRARY", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("COLUMNS", COLUMNS)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(home / "search")
    load = LibraryModel.load
    monkeypatch.setattr(
        LibraryModel,
        "load",
        lambda self, name, *, photos=0: exact_model if name == "builtin" else load(self, name, photos=photos),
    )
    with contextlib.ExitStack() as stack:
        yield Session(home, monkeypatch, stack)


def marked(path: Path) -> object:
    """Return a page as a case of the test, slow where it is."""
    name = path.relative_to(ROOT).as_posix()
    return pytest.param(path, id=name, marks=[pytest.mark.slow] if path.stem in SLOW else [])


def difference(step: Step, code: int, output: str) -> str:
    """Return what a page shows and what came, line by line."""
    lines = difflib.unified_diff(
        (step.expected or "").splitlines(), output.splitlines(), "the page shows", "it prints", lineterm="", n=20
    )
    return "\n".join([f"line {step.start}: $ {step.code}", f"exit code {code}", *lines])


def failures(page: Page, session: Session) -> list[tuple[Step, int, str]]:
    """Run a page; return the steps that did not do as it shows. The first that fails unannounced ends it."""
    wrong = []
    for step in page.steps():
        code, output = session.run(step)
        if step.expected is None and code:
            return [*wrong, (step, code, output)]
        if step.expected is not None and not matches(step.expected, output):
            wrong.append((step, code, output))
    return wrong


@pytest.mark.parametrize("path", [marked(path) for path in PAGES])
def test_a_page_prints_what_it_shows(path, session, request):
    page = Page(path)
    wrong = failures(page, session)
    if wrong and request.config.getoption("--write-examples"):
        shown = [(step, output) for step, _, output in wrong if step.expected is not None]
        path.write_text(rewritten(page, shown), encoding="utf-8")
    if wrong:
        pytest.fail("\n\n".join(difference(*one) for one in wrong), pytrace=False)


@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in PAGES])
def test_every_block_says_what_it_is_and_why_it_is_not_run(path):
    page = Page(path)
    for block in page.blocks():
        if block.language != "setup":
            assert block.language in LANGUAGES, f"line {block.start}: a block of no language"
    for block in page.exempt:
        assert len((block.comment or ("", ""))[1]) > 10, f"line {block.start}: say why it is not run"


def paged(tmp_path: Path, text: str) -> Page:
    path = tmp_path / "page.md"
    path.write_text(text, encoding="utf-8")
    return Page(path)


WRONG = """
```console
$ echo one; echo two
one
three
```
"""


def test_a_page_that_shows_something_else_is_told_with_both(tmp_path, session):
    page = paged(tmp_path, WRONG)
    [(step, code, output)] = failures(page, session)
    told = difference(step, code, output)
    assert "-three" in told
    assert "+two" in told
    assert rewritten(page, [(step, output)]) == page.path.read_text().replace("three", "two")


def test_a_command_that_fails_unannounced_is_told(tmp_path, session):
    page = paged(tmp_path, "```console\n$ search show nothing.jpg\n$ echo never\n```\n")
    [(step, code, output)] = failures(page, session)
    assert (step.code, code) == ("search show nothing.jpg", 1)
    assert "search: " in output


def test_folders_variables_python_and_the_home_are_the_pages_own(tmp_path, session):
    text = """
<!-- setup: mkdir sub -->
```console
$ cd sub
$ export SEARCH_LIBRARY=~/lib
$ pwd
/home/you/search/sub
$ printf 'a\\nb\\n' | grep \\
    b
b
```
```python
import os
print(os.environ["SEARCH_LIBRARY"])
```
```text
/home/you/lib
```
<!-- not run: it would never end -->
```console
$ sleep 9999
```
"""
    page = paged(tmp_path, text)
    assert failures(page, session) == []
    assert [block.comment for block in page.exempt] == [("not run", "it would never end")]


def test_a_block_of_commands_has_their_sign(tmp_path):
    with pytest.raises(ValueError, match="line 2: a console block begins with"):
        paged(tmp_path, "```console\nsearch index x\n```\n").steps()


@pytest.mark.parametrize(
    ("expected", "got", "same"),
    [
        ("1  0.166   84%  a.jpg", "1 0.168 86%  a.jpg", True),
        ("1  0.166   84%  a.jpg", "1  0.169   84%  a.jpg", False),
        ("1  0.166   84%  a.jpg", "1  0.166   87%  a.jpg", False),
        ("1  0.166   84%  a.jpg", "1  0.166   84%  b.jpg", False),
        ("23 encoded in 0.2 s, 99.6 a second", "23 encoded in 12.0 s, 4.1 a second", True),
        ("23 encoded in 0.2 s", "24 encoded in 0.2 s", False),
        ("one\n...\nfour", "one\ntwo\nthree\nfour", True),
        ("one\n...\nfour", "one\ntwo\nthree\nfive", False),
        ("a ... c", "a b c", True),
        ("search 0.1.0", "search 0.1.2", False),
        ('"score": 0.25, "seconds": 3', '"score": 0.26, "seconds": 0.5', True),
        ("", "something", False),
    ],
)
def test_an_output_matches_up_to_what_varies(expected, got, same):
    assert matches(expected, got) is same
