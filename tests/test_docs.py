from __future__ import annotations

import re
from pathlib import Path

import pytest

from search.cli.reference import BEGIN, END, commands, with_table

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_the_command_table_is_what_the_commands_say():
    assert BEGIN in README
    assert END in README
    assert with_table(README) == README, "run `make docs`"


def test_every_command_stands_in_the_readme():
    for name, _ in commands():
        assert f"`search {name}`" in README


def test_the_python_examples_run(photographs, tmp_path, monkeypatch, capsys, builtin):
    from search.library import Library

    demo = tmp_path / "demo" / "photos"
    demo.mkdir(parents=True)
    (demo / "chelsea.png").write_bytes(photographs["cat"].read_bytes())
    (demo / "rocket.jpg").write_bytes(photographs["rocket"].read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Library, "_load", lambda self, name: builtin)
    search_, label = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(search_, {})
    assert "chelsea.png" in capsys.readouterr().out.splitlines()[0]
    exec(label, {})
    assert capsys.readouterr().out.startswith("(LabelScore(label='a cat'")


@pytest.mark.parametrize("target", ["demo", "test", "test-slow", "lint", "bench", "docs", "format", "wheel"])
def test_make_targets_are_short_and_there(target):
    makefile = (Path(__file__).parent.parent / "Makefile").read_text()
    recipe = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert recipe, f"no target {target}"
    assert len(recipe[1].splitlines()) <= 3
