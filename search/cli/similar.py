"""search similar"""

from __future__ import annotations

import os
from typing import Any

import click

from search.cli.answers import output_options, telling_of
from search.cli.filtering import filter_of, filter_options
from search.cli.options import Settings, as_command, completed_by, k_option, model_option, relevance_options


@as_command("similar")
@click.argument("photo", shell_complete=completed_by("files"), metavar="IMAGE|ID")
@k_option
@filter_options
@relevance_options
@output_options
@model_option
def command(
    settings: Settings,
    *,
    photo: str,
    k: int,
    min_relevance: float | None,
    diverse: bool,
    model: str,
    **options: Any,
) -> None:
    """Find the photos most like one, itself left out.

    \b
    Examples:
      search similar holiday.jpg -k 5
      search similar holiday.jpg --where "orientation = landscape" --after 2023-05
    """
    telling = telling_of(settings, options)
    wanted = filter_of(**options)
    with settings.open_library(model) as library:
        answer = library.similar(photo_ref(photo), k, filter=wanted, min_relevance=min_relevance, diverse=diverse)
    telling.tell([answer])


def photo_ref(text: str) -> int | str:
    """A number is an id, unless there is a file of that name."""
    return int(text) if text.isdecimal() and not os.path.lexists(text) else text
