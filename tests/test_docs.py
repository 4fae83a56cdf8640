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
