"""search show"""

from __future__ import annotations

import click

from search.cli.options import Settings, as_command, completed_by
from search.cli.similar import photo_ref


@as_command("show")
@click.argument("photo", shell_complete=completed_by("files"), metavar="PATH|ID")
def command(settings: Settings, *, photo: str) -> None:
    """Show everything known of one photo.

    \b
    Example:
      search show ~/Pictures/holiday.jpg
    """
    from search.cli.output import emit_json, emit_table, whole_photo_document

    with settings.open_library() as library:
        document = whole_photo_document(library.photo(photo_ref(photo)))
    if settings.json:
        emit_json(document)
    else:
        emit_table([(name, _text(value)) for name, value in document.items() if value not in (None, [])])


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
