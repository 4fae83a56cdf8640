"""search similar"""

from __future__ import annotations

import os

import click

from search.cli.options import Settings, as_command, completed_by, k_option, model_option


@as_command("similar")
@click.argument("photo", shell_complete=completed_by("files"), metavar="IMAGE|ID")
@k_option
@model_option
def command(settings: Settings, *, photo: str, k: int, model: str) -> None:
    """Find the photos most like one, itself left out.

    \b
    Example:
      search similar holiday.jpg -k 5
    """
    from search.cli.output import answer_document, emit_answers, emit_json

    with settings.open_library(model) as library:
        answer = library.similar(photo_ref(photo), k)
    if settings.json:
        emit_json(answer_document(answer))
    else:
        emit_answers([answer], "table")


def photo_ref(text: str) -> int | str:
    """A number is an id, unless there is a file of that name."""
    return int(text) if text.isdecimal() and not os.path.lexists(text) else text
