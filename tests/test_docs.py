from __future__ import annotations

import re
from pathlib import Path

import pytest

from search.cli.reference import BEGIN, END, commands, with_table

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_command_table_is_what_the_commands_say():
    assert BEGIN in README
    assert END in README
    assert with_table(README) == README, "run `make docs`"


def test_every_command_stands_in_the_readme():
    assert {"find", "evaluate index", "models list"} <= {name for name, _ in commands()}  # groups are looked into
    for name, _ in commands():
        assert f"`search {name}`" in README


@pytest.mark.parametrize(
    "target", ["demo", "test", "test-slow", "test-scale", "lint", "bench", "docs", "format", "wheel"]
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
