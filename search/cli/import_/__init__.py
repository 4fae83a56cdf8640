"""search import clip-retrieval|immich|rclip|webdataset"""

from __future__ import annotations

import click

from search.cli.groups import Commands
from search.cli.options import CONTEXT

_COMMANDS = ("clip-retrieval", "immich", "rclip", "webdataset")


@click.group("import", cls=Commands, package=__name__, names=_COMMANDS, context_settings=CONTEXT)
def command() -> None:
    """Take over photos and vectors from other software.

    Vectors are trusted once 64 photos were encoded anew and agree; nothing of the other software is changed.

    \b
    Example:
      search import rclip ~/.local/share/rclip --dry-run
    """
