"""search tags accept|export|import|list|reject|undo"""

from __future__ import annotations

import click

from search.cli.groups import Commands
from search.cli.options import CONTEXT

_COMMANDS = ("accept", "export", "import", "list", "reject", "undo")


@click.group("tags", cls=Commands, package=__name__, names=_COMMANDS, context_settings=CONTEXT)
def command() -> None:
    """See how good labels are, correct them, take runs back.

    \b
    Examples:
      search tags list
      search tags accept --label cat --above 0.9
      search tags undo 12
    """
