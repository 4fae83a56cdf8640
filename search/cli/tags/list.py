"""search tags list"""

from __future__ import annotations

import click

from search.cli.options import Settings, as_command


@as_command("list")
def command(settings: Settings) -> None:
    """List the labels.

    \b
    Example:
      search tags list
    """
    with settings.open_library() as library:
        for count in library.catalog.label_counts():
            click.echo(count.label)
