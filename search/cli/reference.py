"""The command table of the README, made from the commands' own help.

python -m search.cli.reference README.md
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from search.cli import cli
from search.files import atomic_write

BEGIN, END = "<!-- commands: made by `make docs` -->", "<!-- end of commands -->"


def command_table() -> str:
    """Return a Markdown table of every command and what it does."""
    rows = "\n".join(f"| `search {name}` | {command.get_short_help_str(200)} |" for name, command in commands())
    return f"| command | what it does |\n|---|---|\n{rows}\n"


def commands() -> list[tuple[str, click.Command]]:
    """Return every command by its full name, sub-commands in place of their group."""
    context = click.Context(cli)
    found = []
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        if isinstance(command, click.Group):
            inside = (
                (inner, command.get_command(context, inner)) for inner in sorted(command.list_commands(context))
            )
            found += [(f"{name} {inner}", one) for inner, one in inside if one]
        elif command:
            found.append((name, command))
    return found


def with_table(text: str) -> str:
    """Return a document with the table between its two marks replaced."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{command_table()}\n{END}{after}"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    atomic_write(path, with_table(path.read_text(encoding="utf-8")).encode())
