from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs import generate
from search.errors import UsageError

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_what_is_made_of_the_code_and_the_measurements_is_up_to_date():
    made = generate.written()
    assert {"README.md", "commands.md", "rest.md", "python.md"} <= {path.name for path in made}
    stale = [path.name for path, text in made.items() if path.read_text(encoding="utf-8") != text]
    assert not stale, "run `make docs`"


def test_every_command_stands_in_the_readme():
    assert {"find", "evaluate index", "models list"} <= {name for name, _ in generate.commands()}  # groups, too
    for name, _ in generate.commands():
        assert f"`search {name}`" in README


def test_the_reference_has_every_public_name_and_every_address():
    import search
    from search.web.table import OPERATIONS

    python, rest = generate.python_page(), generate.rest_page()
    assert all(f"\n## {name}\n" in python for name in search.__all__)
    assert "\n### set_aside\n" in python
    assert "- `labels`: all of them, each with what is below it in a hierarchy.\n" in python
    assert all(f"\n## {one.method} {one.path}\n" in rest for one in OPERATIONS)


def test_a_page_shows_the_first_table_below_its_title():
    tables = {"How fast": "| a |\n|---|\n| 2 |\n"}
    page = "As seen:\n<!-- measured: How fast -->\nanything\n<!-- end of measured -->\nSo be it."
    shown = "As seen:\n<!-- measured: How fast -->\n\n| a |\n|---|\n| 2 |\n\n<!-- end of measured -->\nSo be it."
    assert generate.with_figures(page, tables) == generate.with_figures(shown, tables) == shown
    with pytest.raises(UsageError, match="no measurement is called 'How fast'"):
        generate.with_figures(page, {})


def test_measured_tables_are_found_by_their_headings():
    begin = "# All\n\n| no |\n\n## Speed (`bench/a.py DIR`)\n\nSo:\n\n"
    text = f"{begin}| 1 |\n| 2 |\n\n| 3 |\n\n### None\n\n## Size\n| 4 |\n"
    speed = "| 1 |\n| 2 |\n"
    assert generate.tables_in(text) == {"Speed (`bench/a.py DIR`)": speed, "Speed": speed, "Size": "| 4 |\n"}
    assert generate.measured_tables()


def test_the_python_examples_run(photographs, tmp_path, monkeypatch, capsys, builtin):
    from search.library.model import LibraryModel

    demo = tmp_path / "demo" / "photos"
    demo.mkdir(parents=True)
    (demo / "chelsea.png").write_bytes(photographs["cat"].read_bytes())
    (demo / "rocket.jpg").write_bytes(photographs["rocket"].read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(LibraryModel, "load", lambda self, name: builtin)
    search_, label = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(search_, {})
    assert "chelsea.png" in capsys.readouterr().out.splitlines()[0]
    exec(label, {})
    assert capsys.readouterr().out.startswith("(LabelScore(label='a cat'")


@pytest.mark.parametrize(
    "target", ["demo", "test", "test-slow", "test-scale", "lint", "bench", "docs", "format", "wheel"]
)
def test_make_targets_are_short_and_there(target):
    makefile = (Path(__file__).parent.parent / "Makefile").read_text()
    recipe = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert recipe, f"no target {target}"
    assert len(recipe[1].splitlines()) <= 3


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
