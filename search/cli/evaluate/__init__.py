"""search evaluate index|relevance"""

from __future__ import annotations

import click

from search.cli.groups import Commands

_COMMANDS = ("index", "relevance")


@click.group("evaluate", cls=Commands, package=__name__, names=_COMMANDS)
def command() -> None:
    """Measure how good the library's answers are.

    \b
    Example:
      search evaluate index
      search evaluate relevance ~/labelled
    """
