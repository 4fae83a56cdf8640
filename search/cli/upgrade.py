"""search upgrade"""

from __future__ import annotations

import click

from search.cli.options import Settings, as_command


@as_command("upgrade")
def command(settings: Settings) -> None:
    """Bring a library made by an older version up to date.

    A copy of the catalog is left beside it.

    \b
    Example:
      search upgrade
    """
    from search.cli.output import emit_json

    with settings.open_library() as library:
        before = library.upgrade()
        after = library.status().schema
    if settings.json:
        emit_json({"from": before, "to": after})
    else:
        click.echo("already up to date" if before == after else f"upgraded from schema {before} to {after}")
