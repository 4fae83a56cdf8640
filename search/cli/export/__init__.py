"""search export clip-retrieval|csv|parquet"""

from __future__ import annotations

import click

from search.cli.groups import Commands
from search.cli.options import CONTEXT

_COMMANDS = ("clip-retrieval", "csv", "parquet")


@click.group("export", cls=Commands, package=__name__, names=_COMMANDS, context_settings=CONTEXT)
def command() -> None:
    """Write what the library knows where other software reads it.

    Labels go into XMP sidecars with 'search tags export'.

    \b
    Example:
      search export csv photos.csv
    """
