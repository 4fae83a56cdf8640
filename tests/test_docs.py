from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs import generate
from docs.making import figures
from docs.making.commands import commands
from docs.making.python import python_page
from docs.making.rest import rest_page
from search.errors import UsageError

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_what_is_made_of_the_code_and_the_measurements_is_up_to_date():
    made = generate.written()
    assert {"README.md", "commands.md", "rest.md", "python.md"} <= {path.name for path in made}
    stale = [path.name for path, text in made.items() if path.read_text(encoding="utf-8") != text]
    assert not stale, "run `make docs`"


def test_every_command_stands_in_the_readme():
    assert {"find", "evaluate index", "models list"} <= {name for name, _ in commands()}  # groups, too
    for name, _ in commands():
        assert f"`search {name}`" in README


def test_the_reference_has_every_public_name_and_every_address():
    import search
    from search.web.table import OPERATIONS

    python, rest = python_page(), rest_page()
    assert all(f"\n## {name}\n" in python for name in search.__all__)
    assert "\n### set_aside\n" in python
    assert "- `labels`: all of them, each with what is below it in a hierarchy.\n" in python
    assert all(f"\n## {one.method} {one.path}\n" in rest for one in OPERATIONS)


def test_a_page_shows_the_first_table_below_its_title():
    tables = {"How fast": "| a |\n|---|\n| 2 |\n"}
    page = "As seen:\n<!-- measured: How fast -->\nanything\n<!-- end of measured -->\nSo be it."
    shown = "As seen:\n<!-- measured: How fast -->\n\n| a |\n|---|\n| 2 |\n\n<!-- end of measured -->\nSo be it."
    assert figures.with_figures(page, tables) == figures.with_figures(shown, tables) == shown
    with pytest.raises(UsageError, match="no measurement is called 'How fast'"):
        figures.with_figures(page, {})


def test_measured_tables_are_found_by_their_headings():
    begin = "# All\n\n| no |\n\n## Speed (`bench/a.py DIR`)\n\nSo:\n\n"
    text = f"{begin}| 1 |\n| 2 |\n\n| 3 |\n\n### None\n\n## Size\n| 4 |\n"
    speed = "| 1 |\n| 2 |\n"
    other = dict.fromkeys(("Speed (`bench/a.py DIR`) #2", "Speed #2"), "| 3 |\n")
    wanted = {"Speed (`bench/a.py DIR`)": speed, "Speed": speed, "Size": "| 4 |\n"}
    assert figures.tables_in(text) == wanted | other
    assert figures.measured_tables(ROOT)


@pytest.mark.parametrize(
    "target", ["demo", "test", "test-slow", "test-scale", "coverage", "lint", "bench", "docs", "format", "wheel"]
)
def test_make_targets_are_short_and_there(target):
    makefile = (Path(__file__).parent.parent / "Makefile").read_text()
    recipe = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert recipe, f"no target {target}"
    assert len(recipe[1].splitlines()) <= 3


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """Return the names under which a page's headings can be linked to, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def broken(page: Path) -> list[str]:
    """Return the relative links of a page that lead nowhere."""
    wrong = []
    for link in LINK.findall(FENCED.sub("", page.read_text(encoding="utf-8"))):
        target, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        place = (page.parent / target) if target else page
        if not place.exists() or (anchor and anchor not in anchors(place.read_text(encoding="utf-8"))):
            wrong.append(link)
    return wrong


@pytest.mark.parametrize("page", [pytest.param(page, id=page.relative_to(ROOT).as_posix()) for page in PAGES])
def test_every_link_leads_somewhere(page):
    assert broken(page) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A Title: (`x`)\n[a](#a-title-x) [b](gone.md) [c](#gone) [d](https://example.org) ![e](e.png)"
    )
    assert broken(page) == ["gone.md", "#gone", "e.png"]


def test_every_page_stands_on_the_map():
    home = ROOT / "docs"
    linked = {(home / link.partition("#")[0]).resolve() for link in LINK.findall((home / "README.md").read_text())}
    assert {page.resolve() for page in home.rglob("*.md")} - linked <= {home / "README.md"}


RELIABILITY = (ROOT / "docs" / "explanation" / "reliability.md").read_text(encoding="utf-8")
FAULTS = [*range(1, 16), *range(20, 32), *range(40, 57)]


def test_every_fault_has_its_row():
    rows = re.findall(r"^\| F(\d+) \|", RELIABILITY, re.MULTILINE)
    assert [int(number) for number in rows] == FAULTS


def test_every_test_that_the_fault_table_names_is_there():
    named = set(re.findall(r"`([\w/]+\.py)::(\w+)`", RELIABILITY))
    assert len(named) > 40
    for path, test in sorted(named):
        assert f"def {test}(" in (ROOT / "tests" / path).read_text(encoding="utf-8"), f"{path}::{test}"
