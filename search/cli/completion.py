"""search completion: scripts for shells, and what they complete.

The shell's script runs `search` again with _SEARCH_COMPLETE set; click finds what is to be completed and asks the
functions here for values.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from search.cli.options import Settings, as_command
from search.errors import SearchError, UsageError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem, ShellComplete

    from search.catalog import Catalog

    Items = list[CompletionItem[str]]

PROGRAM, VARIABLE = "search", "_SEARCH_COMPLETE"
SHELLS = ("bash", "zsh", "fish")


@as_command("completion")
@click.argument("shell", type=click.Choice(SHELLS), required=False)
@click.option("--install", is_flag=True, help="Set it up for your shell, once and for all.")
def command(settings: Settings, *, shell: str | None, install: bool) -> None:
    """Print the script that completes commands, options and their values in a shell.

    \b
    Examples:
      search completion --install
      eval "$(search completion bash)"
    """
    from search.cli.output import emit_json
    from search.documents import path_fields

    shell = shell or _users_shell()
    script = completing(shell).source()
    if not install:
        click.echo(script, nl=False) if not settings.json else emit_json({"shell": shell, "script": script})
        return
    changed = list(_install(shell, script))
    if settings.json:
        emit_json({"shell": shell, "changed": [path_fields(str(path)) for path in changed]})
    else:
        click.echo("\n".join(f"changed {path}" for path in changed) or f"{shell} completes it already")
        if changed:
            settings.talk("it works in every shell that is started from now on")


def completing(shell: str) -> ShellComplete:
    """Return what makes a shell's script and answers it."""
    from click.shell_completion import BashComplete, get_completion_class

    from search.cli import cli

    class Bash(BashComplete):
        """Takes what it is given as if it had been typed: letters that mean something to bash need a backslash."""

        def format_completion(self, item: CompletionItem[str]) -> str:
            quoted = "".join(f"\\{char}" if char in _SPECIAL else char for char in item.value)
            return f"{item.type},{quoted.replace(chr(92), 2 * chr(92))}"  # its script reads backslashes once more

    kind = Bash if shell == "bash" else get_completion_class(shell)
    if kind is None:
        raise UsageError(f"there is no completion for {shell}", hint=f"it is there for {', '.join(SHELLS)}")
    return kind(cli, {}, PROGRAM, VARIABLE)


_SPECIAL = " \t\\'\"`$&|;<>()[]{}*?!~#"


def answer(instruction: str) -> int:
    """Print what a shell's script asks for; return an exit code.   instruction: such as bash_complete."""
    shell, _, what = instruction.partition("_")
    if shell not in SHELLS or what not in ("source", "complete"):
        return 1
    made = completing(shell)
    click.echo((made.source() if what == "source" else made.complete()).encode(), nl=what == "complete")
    return 0


# ---- installing


def _users_shell() -> str:
    shell = os.path.basename(os.environ.get("SHELL", ""))
    if shell not in SHELLS:
        raise UsageError("your shell is not known", hint=f"name it: {', '.join(SHELLS)}")
    return shell


def _install(shell: str, script: str) -> Iterator[Path]:
    """Write the script where the shell finds it, and a line into its start file if it needs one; yield what changed."""
    from search.files import atomic_write

    file = _script_file(shell)
    content = script.encode()
    if not file.is_file() or file.read_bytes() != content:
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(file, content)
        yield file
    if shell != "fish" and _is_added(_start_file(shell), _LINES[shell].format(file=_quoted(file))):
        yield _start_file(shell)


def _script_file(shell: str) -> Path:
    if shell == "fish":
        return _folder("XDG_CONFIG_HOME", ".config") / "fish" / "completions" / "search.fish"
    return _folder("XDG_DATA_HOME", ".local/share") / "search" / f"completion.{shell}"


def _folder(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable) or Path.home() / default)


def _start_file(shell: str) -> Path:
    return (
        Path.home() / ".bashrc" if shell == "bash" else Path(os.environ.get("ZDOTDIR") or Path.home()) / ".zshrc"
    )


_LINES = {
    "bash": "[ -r {file} ] && . {file}  # completion of `search`",
    "zsh": "[ -r {file} ] && {{ (( $+functions[compdef] )) || {{ autoload -Uz compinit && compinit; }}; . {file}; }}"
    "  # completion of `search`",
}


def _quoted(path: Path) -> str:
    import shlex

    return shlex.quote(str(path))


def _is_added(file: Path, line: str) -> bool:
    """Add a line to a file that lacks it, in place: it may be a link, and its owner's modes stay."""
    before = file.read_bytes() if file.exists() else b""
    if line.encode() in before.splitlines():
        return False
    gap = b"" if not before or before.endswith(b"\n") else b"\n"
    with file.open("ab") as end:
        end.write(gap + line.encode() + b"\n")
    return True


# ---- values


def files(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Let the shell complete names of files."""
    return _by_shell("file", incomplete)


def folders(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Let the shell complete names of folders."""
    return _by_shell("dir", incomplete)


def _by_shell(kind: str, incomplete: str) -> Items:
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type=kind)]


def models(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Complete the names of models that are listed."""
    from search.encoders.hub import known_models

    return _beginning("auto", *(model.name for model in known_models()), with_=incomplete)


def tags(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Complete the labels that photos of the library have; nothing where it can't be read."""
    with _catalog(context) as catalog:
        try:
            return _beginning(*catalog.label_names(), with_=incomplete)
        except SearchError:
            return []


def runs(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Complete the runs of the library that are not undone, the last first; nothing where it can't be read."""
    from click.shell_completion import CompletionItem

    with _catalog(context) as catalog:
        try:
            standing = [run for run in reversed(catalog.runs()) if run.undone_at is None]
        except SearchError:
            return []
    found = [(str(run.id), f"{run.kind} of {run.started_at:%Y-%m-%d %H:%M}") for run in standing]
    return [CompletionItem(id_, help=told) for id_, told in found if id_.startswith(incomplete)]


@contextmanager
def _catalog(context: click.Context) -> Iterator[Catalog]:
    """Yield the catalog of the library that is meant."""
    from search.catalog import Catalog
    from search.resources import default_location

    given = (level.params.get("library") for level in _levels(context))
    catalog = Catalog(os.path.expanduser(next(filter(None, given), None) or default_location()))
    try:
        yield catalog
    finally:
        catalog.close()


def label_sets(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Complete built-in sets of labels, else files."""
    return _built_in("labels", incomplete)


def template_sets(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Complete built-in sets of templates, else files."""
    return _built_in("templates", incomplete)


def _built_in(kind: str, incomplete: str) -> Items:
    from click.shell_completion import CompletionItem

    from search.resources import data_path

    names = _beginning(*(path.stem for path in data_path(kind).glob("*.txt")), with_=incomplete)
    return [CompletionItem(name) for name in sorted(names)] or _by_shell("file", incomplete)


def _levels(context: click.Context | None) -> Iterator[click.Context]:
    while context is not None:
        yield context
        context = context.parent


def _beginning(*names: str, with_: str) -> list[str]:
    return [name for name in names if name.startswith(with_)]
