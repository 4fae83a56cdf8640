"""Groups of commands, each in a module of its own that is imported when its help or the command itself is wanted."""

from __future__ import annotations

import shlex
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

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command of a call; whoever describes photos without one is told which it is."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            if ctx.parent is not None or not args or args[0].startswith("-"):
                raise
            hint = f"To find photos: {ctx.info_name} find {shlex.quote(args[0])}"
            raise click.UsageError(f"{error.message} {hint}", ctx) from None

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._names:
            return None
        module = cmd_name.replace("-", "_") + ("_" if iskeyword(cmd_name) else "")
        command: click.Command = import_module(f"{self._package}.{module}").command
        return command
