"""Groups of commands, each in a module of its own that is imported when its help or the command itself is wanted."""

from __future__ import annotations

from importlib import import_module
from keyword import iskeyword
from typing import Any

import click


class Commands(click.Group):
    """A group whose commands are the `command` of modules of a package, a module named as its command."""

    def __init__(self, *args: Any, package: str, names: tuple[str, ...], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._package, self._names = package, names

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._names)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._names:
            return None
        module = cmd_name.replace("-", "_") + ("_" if iskeyword(cmd_name) else "")
        command: click.Command = import_module(f"{self._package}.{module}").command
        return command
