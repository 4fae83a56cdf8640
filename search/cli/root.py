"""search root list|move"""

from __future__ import annotations

import click

from search.cli.options import Settings, as_command, completed_by
from search.plurals import count_of


@click.group("root")
def command() -> None:
    """List the indexed folders, or say where one has gone.

    \b
    Examples:
      search root list
      search root move /media/old/Pictures /media/new/Pictures
    """


@as_command("list")
def list_(settings: Settings) -> None:
    """List the indexed folders, which are within reach, and how many photos each holds.

    \b
    Example:
      search root list
    """
    from search.cli.output import emit_json, emit_table
    from search.documents import root_document

    with settings.open_library() as library:
        roots = library.catalog.root_status(library.sources.is_there)
    if settings.json:
        emit_json({"roots": [root_document(root) for root in roots]})
    else:
        emit_table([(root.path, "online" if root.online else "offline", str(root.photos)) for root in roots])


@as_command("move")
@click.argument("old", shell_complete=completed_by("folders"), metavar="OLD")
@click.argument("new", shell_complete=completed_by("folders"), metavar="NEW")
@click.option("--force", is_flag=True, help="Move it even if NEW does not hold the photos that OLD held.")
def move(settings: Settings, *, old: str, new: str, force: bool) -> None:
    """Say that an indexed folder was moved or renamed; nothing is encoded again.

    A sample of its photos is looked at first.

    \b
    Example:
      search root move /media/old/Pictures /media/new/Pictures
    """
    import os

    from search.cli.output import emit_json, printable
    from search.documents import path_fields

    with settings.open_library() as library:
        photos = library.move_root(old, new, force=force)
    source, target = os.path.abspath(os.path.expanduser(old)), os.path.realpath(os.path.expanduser(new))
    if settings.json:
        emit_json({**path_fields(source, "from"), **path_fields(target, "to"), "photos": photos})
    else:
        click.echo(f"{count_of(photos, 'photo is', 'photos are')} now below {printable(target)}")


command.add_command(list_)
command.add_command(move)
