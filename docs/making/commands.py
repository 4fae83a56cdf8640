"""The commands, from their help."""

from __future__ import annotations

import inspect
from collections.abc import Iterable

import click

from docs.making.markdown import MADE, table
from search.cli import cli
from search.cli.options import EXIT_CODES

BEGIN, END = "<!-- commands: made by `make docs` -->", "<!-- end of commands -->"


def command_table() -> str:
    """Return a Markdown table of every command and what it does."""
    rows = ((f"`search {name}`", command.get_short_help_str(200)) for name, command in commands())
    return table("command", "what it does", rows=rows)


def with_table(text: str) -> str:
    """Return a document with the table of commands between its two marks replaced."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{command_table()}\n{END}{after}"


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


def commands_page() -> str:
    """Return the reference of all commands: usage, what each does, options, examples."""
    context = click.Context(cli, info_name="search", **cli.context_settings)
    shared = [option for option in cli.get_params(context) if isinstance(option, click.Option)]
    codes = ((str(code), meaning) for code, meaning in EXIT_CODES.items())
    parts = [
        f"# Commands\n\n{MADE}\n",
        "`search --help` and `search COMMAND --help` say the same.\n",
        "## Everywhere\n\nThese stand before or after a command's name.\n",
        _options(shared, context),
        "## Exit codes\n",
        table("code", "is", rows=codes),
    ]
    known = {option.name for option in shared}
    return "\n".join([*parts, *(_command(name, command, known) for name, command in commands())])


def _command(name: str, command: click.Command, shared: set[str | None]) -> str:
    context = click.Context(command, info_name=f"search {name}")
    about, examples = _help(command)
    own = [one for one in command.params if isinstance(one, click.Option) and one.name not in shared]
    usage = " ".join([f"search {name}", *command.collect_usage_pieces(context)])
    parts = [f"## search {name}\n", f"    {usage}\n", about, f"```sh\n{examples}\n```\n"]
    return "\n".join([*parts, _options(own, context)] if own else parts)


def _help(command: click.Command) -> tuple[str, str]:
    """Return what a command's help says, and its examples."""
    about, _, examples = inspect.cleandoc(command.help or "").partition("\b\nExample")
    lines = examples.splitlines()[1:]
    return about.replace("\b\n", "").strip() + "\n", inspect.cleandoc("\n".join(lines))


def _options(options: Iterable[click.Option], context: click.Context) -> str:
    rows = []
    for option in options:
        if record := option.get_help_record(context):
            named = f" [environment: {option.envvar}]" if option.envvar else ""
            rows.append((f"`{record[0]}`", record[1] + named))
    return table("option", "what it says", rows=rows)
