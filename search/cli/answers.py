"""The options that say how answers are told, and the telling."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from search.cli import destination
from search.cli.options import F, Settings, completed_by, not_empty

if TYPE_CHECKING:
    from search.types import Answer

_OPTIONS = (
    click.option(
        "--format",
        "output",
        type=click.Choice(["table", "paths", "csv", "html"]),
        default="table",
        show_default=True,
        help="html is a contact sheet with the pictures in it.",
    ),
    click.option("--print0", is_flag=True, help="Print bare paths, each ended by a NUL, for xargs -0."),
    click.option(
        "-o",
        "--output",
        "file",
        metavar="FILE",
        shell_complete=completed_by("files"),
        callback=not_empty,
        help="Write to FILE: .html, .csv, or .txt for bare paths.",
    ),
    click.option(
        "--open", "show", is_flag=True, help="Open the photo in the system's viewer, several as a contact sheet."
    ),
    click.option("--preview", is_flag=True, help="Draw the pictures in the terminal."),
    click.option(
        "--preview-as",
        "protocol",
        type=click.Choice(["kitty", "iterm2", "sixel", "blocks"]),
        help="Draw them in this way. [default: as the terminal can]",
    ),
)


def output_options(function: F) -> F:
    """Add the options that `telling_of` takes."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def telling_of(settings: Settings, options: dict[str, Any]) -> Telling:
    """Return how to tell answers; takes its own out of a command's options. Raises click.UsageError."""
    names = ("output", "print0", "file", "show", "preview", "protocol")
    return Telling(settings, **{name: options.pop(name) for name in names})


class Telling:
    """How answers are told. Made before they are sought: what can't be meant is refused at once."""

    def __init__(
        self,
        settings: Settings,
        *,
        output: str,
        print0: bool,
        file: str | None,
        show: bool,
        preview: bool,
        protocol: str | None,
    ) -> None:
        self._settings = settings
        self._output = _format(output, print0=print0, file=file)
        self._file, self._show = file, show
        self._preview, self._protocol = preview or protocol is not None, protocol
        if file and settings.json:
            raise click.UsageError("--json goes to stdout; write it to a file with >")
        if settings.json and self._output != "table":
            raise click.UsageError("--json is a format of its own; it goes with neither --format nor --print0")
        if self._preview and (settings.json or self._output != "table" or not sys.stdout.isatty()):
            raise click.UsageError(
                "--preview draws beneath the table on a terminal; elsewhere use --output sheet.html"
            )
        if file:
            destination.check(file, self._output)

    def tell(self, answers: Sequence[Answer], *, many: bool = False) -> None:
        """Print answers, write them to a file, draw and open them.

        many: whether more than one could be asked for; JSON then has a list of them.
        """
        from search.cli.output import emit_answers, emit_json
        from search.documents import answer_document

        if self._settings.json or self._file or self._output != "table":
            self._tell_what_was_dropped(answers)  # a table says it in its place
        if self._settings.json:
            documents = [answer_document(answer) for answer in answers]
            emit_json({"answers": documents} if many else documents[0])
        elif self._file:
            from search.cli.output import answer_parts

            destination.write(self._file, self._output, answer_parts(answers, self._output))
        else:
            emit_answers(answers, self._output)
            self._warn_of_line_breaks(answers)
        if self._preview:
            from search.cli.preview import emit_previews

            emit_previews(self._settings, answers, self._protocol)
        if self._show:
            self._open(answers)

    def _open(self, answers: Sequence[Answer]) -> None:
        """Show one photo as it is, several on one page: a window each would be a desk full of them."""
        from search.cli.viewer import open_in_viewer, open_sheet

        paths = _paths(answers)
        if len(paths) == 1:
            open_in_viewer(paths[0])
        elif paths:
            self._settings.talk(f"opened {open_sheet(answers)}")

    def _tell_what_was_dropped(self, answers: Sequence[Answer]) -> None:
        """Say where nothing matches how near the best came, and how to see it anyway."""
        from search.cli.output import how_near

        for answer in answers:
            if said := how_near(answer):
                self._settings.talk(said)

    def _warn_of_line_breaks(self, answers: Sequence[Answer]) -> None:
        if self._output == "paths" and any("\n" in path for path in _paths(answers)):
            self._settings.talk("warning: some names have line breaks in them; --print0 tells them apart")


def _format(output: str, *, print0: bool, file: str | None) -> str:
    """The format that is meant.   Raises click.UsageError where two are."""
    if print0 and output not in ("table", "paths"):
        raise click.UsageError(f"--print0 prints bare paths; it does not go with --format {output}")
    wanted = "print0" if print0 else output
    return destination.format_of(file, wanted) if file else wanted


def _paths(answers: Sequence[Answer]) -> list[str]:
    return [hit.photo.path for answer in answers for hit in answer.hits]
