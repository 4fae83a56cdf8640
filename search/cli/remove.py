"""search remove"""

from __future__ import annotations

import click

from search.cli.options import Settings, as_command, completed_by
from search.plurals import count_of


@as_command("remove")
@click.argument("paths", shell_complete=completed_by("files"), nargs=-1, required=True, metavar="PATH...")
def command(settings: Settings, *, paths: tuple[str, ...]) -> None:
    """Forget photos and folders; the files themselves stay.

    \b
    Example:
      search remove ~/Pictures/private
    """
    from search.cli.output import emit_json

    with settings.open_library() as library:
        removed = library.remove(paths)
    if settings.json:
        emit_json({"removed": removed})
    else:
        click.echo(f"{count_of(removed, 'photo')} forgotten; files stay as they are")
