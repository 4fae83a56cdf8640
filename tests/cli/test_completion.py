"""Completion as the shells themselves see it."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import search
from search.cli.completion import completing
from search.types import LabelledPhoto, LabelScore

LABELS = ("new york", "cat's eye", "$HOME", "cat", "日本")


@pytest.fixture
def tagged(library, album, tmp_path) -> Path:
    """A library whose photos have labels, each a trap for a shell."""
    library.index([album])
    with library.catalog.writing() as writer:
        photo = LabelledPhoto("", tuple(LabelScore(label, 1.0, 1.0) for label in LABELS), id=1)
        writer.put_labels([photo], LABELS, source="user", encoder_id=None)
    return tmp_path / "library"


@pytest.fixture
def shell(tmp_path, monkeypatch) -> Callable[..., str]:
    """Run a shell's script with `search` on its path and a home of its own."""
    commands, home = tmp_path / "bin", tmp_path / "home"
    commands.mkdir()
    home.mkdir()
    command = commands / "search"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m search "$@"\n')
    command.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "ZDOTDIR"))}
    environment |= {
        "PATH": f"{commands}:{os.environ['PATH']}",
        "PYTHONPATH": str(Path(search.__file__).parent.parent),
        "HOME": str(home),
        "LC_ALL": "C.UTF-8",
    }

    def run_shell(name: str, script: str) -> str:
        command = [name, *(("--norc",) if name == "bash" else ()), "-c", script]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True, timeout=60
        ).stdout

    return run_shell


def completions(*words: str) -> list[str]:
    return [item.value for item in completing("bash").get_completions(list(words[:-1]), words[-1])]


def test_commands_options_and_choices_are_completed():
    assert completions("fin") == ["find"]
    assert completions("root", "") == ["list", "move"]
    assert completions("find", "--for") == ["--format"]
    assert completions("find", "x", "--format", "") == ["table", "paths", "csv", "html"]


def test_models_and_built_in_sets_are_completed():
    assert "builtin" in completions("index", "x", "--model", "b")
    assert completions("models", "info", "auto") == ["auto"]
    assert "everyday" in completions("label", "--labels", "")
    assert completions("label", "--templates", "sat") == ["satellite"]


def test_what_is_no_built_in_set_is_a_file():
    [item] = completing("bash").get_completions(["label", "--labels"], "./my")
    assert (item.type, item.value) == ("file", "./my")


@pytest.mark.parametrize(
    "words, kind",
    [
        (("index", ""), "file"),
        (("find", "--like", ""), "file"),
        (("find", "--folder", ""), "dir"),
        (("similar", ""), "file"),
        (("--library", ""), "dir"),
    ],
)
def test_names_of_files_are_left_to_the_shell(words, kind):
    assert [item.type for item in completing("bash").get_completions(list(words[:-1]), words[-1])] == [kind]


def test_tags_are_those_of_the_library_that_is_meant(tagged, monkeypatch):
    assert completions("find", "-L", str(tagged), "--tag", "") == sorted(LABELS)
    assert completions("-L", str(tagged), "find", "x", "--tag", "ne") == ["new york"]
    monkeypatch.setenv("SEARCH_LIBRARY", str(tagged))
    assert completions("find", "--tag", "cat") == ["cat", "cat's eye"]


def test_where_there_is_no_library_nothing_is_completed_and_nothing_said(tmp_path, capsys):
    assert completions("find", "-L", str(tmp_path / "none"), "--tag", "") == []
    assert capsys.readouterr() == ("", "")


def test_bash_inserts_words_that_mean_what_they_say(tagged, shell):
    script = f"""
        eval "$(search completion bash)"
        for label in "" new; do
            COMP_WORDS=(search -L {tagged} find x --tag "$label"); COMP_CWORD=6; COMPREPLY=()
            _search_completion search
            for word in "${{COMPREPLY[@]}}"; do eval "printf '%s\\n' $word"; done
        done"""
    assert shell("bash", script).splitlines() == [*sorted(LABELS), "new york"]


@pytest.mark.programs
@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_completes(tagged, shell):
    script = f"search completion fish | source; complete -C 'search -L {tagged} find x --tag ne'"
    assert shell("fish", script).splitlines() == ["new york"]


@pytest.mark.programs
@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_reads_its_script(shell):
    script = 'autoload -Uz compinit; compinit -u; eval "$(search completion zsh)"; print $_comps[search]'
    assert shell("zsh", script) == "_search_completion\n"


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    home = tmp_path / "a home"
    home.mkdir()
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "ZDOTDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("SHELL", "/usr/bin/bash")
    return home


def test_installing_changes_what_it_says_and_only_once(run, home):
    start = home / ".bashrc"
    start.write_text("alias ll='ls -l'")  # no line end
    start.chmod(0o600)
    done = run("completion", "--install")
    script = home / ".local/share/search/completion.bash"
    assert done.stdout == f"changed {script}\nchanged {start}\n"
    first, second = start.read_text().splitlines()
    assert (first, stat.S_IMODE(start.stat().st_mode)) == ("alias ll='ls -l'", 0o600)
    assert subprocess.run(
        ["bash", "--norc", "-c", f"{second}\ncomplete -p search"], capture_output=True
    ).stdout == (b"complete -o nosort -F _search_completion search\n")
    again = run("completion", "--install")
    assert again.stdout == "bash completes it already\n"
    assert len(start.read_text().splitlines()) == 2
    script.write_text("an old version's")
    assert run("completion", "--install", "--json").json == {"shell": "bash", "changed": [{"path": str(script)}]}


@pytest.mark.parametrize("shell_name", ["bash", "zsh", "fish"])
def test_uninstalling_leaves_things_as_they_were(run, home, shell_name):
    starts = [home / ".bashrc", home / ".zshrc"]
    for start in starts:
        start.write_text("alias ll='ls -l'\n")
    installed = run("completion", shell_name, "--install")
    removed = run("completion", shell_name, "--uninstall")
    assert set(removed.stdout.splitlines()) == set(installed.stdout.splitlines())
    assert [start.read_text() for start in starts] == ["alias ll='ls -l'\n"] * 2
    assert sorted(path for path in home.rglob("*") if path.is_file()) == starts
    assert run("completion", shell_name, "--uninstall").stdout == f"it was not installed for {shell_name}\n"


def test_installing_and_uninstalling_at_once_is_wrong_usage(run, home):
    assert run("completion", "--install", "--uninstall").code == 2


def test_a_start_file_that_is_a_link_stays_one(run, home):
    (home / "dotfiles").mkdir()
    (home / ".zshrc").symlink_to(home / "dotfiles" / "zshrc")
    assert run("completion", "zsh", "--install").code == 0
    assert (home / ".zshrc").is_symlink()
    assert "completion.zsh" in (home / "dotfiles" / "zshrc").read_text()


def test_fish_needs_its_file_alone(run, home):
    done = run("completion", "fish", "--install")
    assert done.stdout == f"changed {home / '.config/fish/completions/search.fish'}\n"


def test_a_shell_that_is_not_known_must_be_named(run, home, monkeypatch):
    monkeypatch.setenv("SHELL", "/bin/elvish")
    done = run("completion")
    assert done.code == 1
    assert "bash, zsh, fish" in done.stderr
