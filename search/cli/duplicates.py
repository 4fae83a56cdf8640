"""search duplicates"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from search.cli import destination
from search.cli.options import Number, Settings, as_command, completed_by, model_option, not_empty
from search.plurals import count_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from search.duplicates import DuplicateGroup, DuplicateReport, MoveReport
    from search.types import Photo

_KINDS = ("exact", "same-picture", "same-moment", "similar")
_SAFE = ("exact", "same-picture")  # nothing is lost with these; others go only where they are asked for


@as_command("duplicates")
@click.argument("path", required=False, metavar="[PATH]", callback=not_empty)
@click.option(
    "--kind", "kinds", multiple=True, type=click.Choice(_KINDS), help="Only this kind; may be given again."
)
@click.option(
    "--threshold",
    type=Number(0, 1),
    metavar="T",
    help="Cosine from which photos are similar. [default: what unrelated ones practically never reach]",
)
@click.option(
    "--within", "within_s", type=Number(min=0), default=10, show_default=True, help="Seconds that make one moment."
)
@click.option("--list", "as_list", is_flag=True, help="Print the paths of what could go, and nothing else.")
@click.option("--print0", is_flag=True, help="As --list, each ended by a NUL, for xargs -0.")
@click.option(
    "--move-to", metavar="DIR", callback=not_empty, help="Move what could go into this folder; nothing is deleted."
)
@click.option(
    "--undo", metavar="FILE|DIR", callback=not_empty, help="Move back what --move-to moved into this folder."
)
@click.option(
    "-o",
    "--output",
    "file",
    metavar="FILE",
    shell_complete=completed_by("files"),
    callback=not_empty,
    help="Write a contact sheet of the groups, an HTML file.",
)
@model_option
def command(
    settings: Settings,
    *,
    path: str | None,
    kinds: tuple[str, ...],
    threshold: float | None,
    within_s: float,
    as_list: bool,
    print0: bool,
    move_to: str | None,
    undo: str | None,
    file: str | None,
    model: str,
) -> int:
    """Find duplicates: the same bytes, the same picture, the same moment, or merely similar.

    Nothing is changed unless --move-to is given. What could go, and is moved, are copies and the same pictures; other
    kinds only where --kind names them.

    \b
    Examples:
      search duplicates
      search duplicates ~/Pictures --kind exact --list
      search duplicates --output duplicates.html
      search duplicates --move-to ~/Duplicates
      search duplicates --undo ~/Duplicates
    """
    from search.cli.output import emit_json, emit_paths
    from search.cli.progress import progress_bar, stopping
    from search.duplicates import STRENGTH, DuplicateOptions, only_in

    if file is not None and move_to is not None:
        raise click.UsageError("look first, then move: --output and --move-to are two runs")
    if move_to is not None and (as_list or print0):
        raise click.UsageError("--move-to moves; --list and --print0 only print")
    if undo is not None:
        if any((path, kinds, threshold, move_to, file, as_list, print0)):
            raise click.UsageError("--undo moves back and does nothing else")
        return _undo(settings, undo, model=model)
    if file is not None:
        destination.check(file, destination.format_of(file, "html"))
    listing = as_list or print0
    wanted = kinds or (_SAFE if listing or move_to is not None else _KINDS)
    options = DuplicateOptions(tuple(kind for kind in STRENGTH if kind in wanted), threshold, within_s)
    moved = None
    with (
        settings.open_library(model) as library,
        stopping(settings) as (stop, signals),
        progress_bar(settings) as progress,
    ):
        report = library.duplicates(path, options=options, progress=progress, stop=stop)
        if move_to is not None and not stop.is_set():
            moved = library.set_aside(report.groups, move_to, spare=not kinds, progress=progress, stop=stop)
    if file is not None:
        _write_sheet(report.groups, file)
    if report.skipped:
        settings.talk(f"{count_of(len(report.skipped), 'photo')} could not be read to be compared")
    if settings.json:
        emit_json(_document(report, moved))
    elif listing:
        going = dict.fromkeys(
            other.photo.path
            for group in report.groups
            for other in group.others
            if kinds or not only_in(other.photo, group.keep)
        )
        emit_paths(going, end=b"\0" if print0 else b"\n")
    elif moved is not None:
        _tell_moved(moved)
    elif file is not None:
        settings.talk(f"{count_of(len(report.groups), 'group is', 'groups are')} in {file}")
    else:
        _tell(report.groups)
    return 128 + signals[0] if signals else 0


def _undo(settings: Settings, place: str, *, model: str) -> int:
    """Move back what was moved."""
    from search.cli.output import emit_json
    from search.cli.progress import progress_bar, stopping

    with (
        settings.open_library(model) as library,
        stopping(settings) as (stop, signals),
        progress_bar(settings) as progress,
    ):
        moved = library.put_back(place, progress=progress, stop=stop)
    if settings.json:
        emit_json(_moves(moved))
    else:
        _tell_moved(moved, " back")
    return 128 + signals[0] if signals else 0


def _document(report: DuplicateReport, moved: MoveReport | None) -> dict[str, Any]:
    from search.documents import skip_document

    document: dict[str, Any] = {
        "groups": [_group(group) for group in report.groups],
        "photos": report.photos,
        "threshold": report.threshold,
        "without_hash": report.unknown,
        "skipped": [skip_document(skip) for skip in report.skipped],
        "seconds": round(report.seconds, 3),
    }
    if moved is not None:
        document |= _moves(moved)
    return document


def _moves(moved: MoveReport) -> dict[str, Any]:
    from search.documents import path_fields, skip_document

    return {
        "moved": [{**path_fields(one.path), **path_fields(one.to, "to")} for one in moved.moved],
        "not_moved": [skip_document(skip) for skip in moved.skipped],
        "undo": moved.undo,
    }


def _group(group: DuplicateGroup) -> dict[str, Any]:
    from search.documents import path_fields, photo_document

    others = [
        {
            **photo_document(other.photo),
            "score": other.score,
            "keep": False,
            "reason": other.reason,
            "why": other.lost,
        }
        for other in group.others
    ]
    kept = {**photo_document(group.keep), "score": 1.0, "keep": True, "reason": "kept", "why": ""}
    return {
        "kind": group.kind,
        "reason": group.reason,
        **path_fields(group.keep.path, "keep"),
        "photos": [kept, *others],
    }


def _tell(groups: Sequence[DuplicateGroup]) -> None:
    from search.cli.output import emit_table, printable, short

    if not groups:
        click.echo("no duplicates")
    for number, group in enumerate(groups):
        click.echo(("\n" if number else "") + printable(f"{group.kind}: {group.reason}"))
        rows = [("  keep", "", short(group.keep.path), "")]
        rows += [
            (
                "",
                "" if other.score is None else f"{other.score:.3f}",
                short(other.photo.path),
                ", ".join(filter(None, ("" if other.reason == group.reason else other.reason, other.lost))),
            )
            for other in group.others
        ]
        emit_table(rows)
    if groups:
        total = sum(len(group.others) for group in groups)
        click.echo(
            f"\n{count_of(total, 'photo')} could go in {count_of(len(groups), 'group')}; nothing was changed"
        )


def _tell_moved(moved: MoveReport, said: str = "") -> None:
    from search.cli.output import emit_table, printable, short

    where = f"; {printable(moved.undo)} says where from" if moved.moved else ""
    click.echo(f"{count_of(len(moved.moved), 'file')} moved{said}{where}")
    if moved.skipped:
        click.echo("Not moved:")
        emit_table([(f"  {short(skip.path)}", skip.reason, skip.detail) for skip in moved.skipped])


def _write_sheet(groups: Sequence[DuplicateGroup], file: str) -> None:
    from search.cli.sheet import Section, Tile, contact_sheet, photo_details

    def tile(photo: Photo, badge: str, *words: str) -> Tile:
        size = f"{photo.info.width} × {photo.info.height}, {photo.info.format}"
        said = tuple(filter(None, words))
        return Tile(photo.path, badge=badge, figures=size, details=(*said, *photo_details(photo)))

    def section(group: DuplicateGroup) -> Section:
        others = (
            tile(
                other.photo,
                "",
                "" if other.score is None else f"cosine {other.score:.3f}",
                "" if other.reason == group.reason else other.reason,
                other.lost,
            )
            for other in group.others
        )
        return Section(str(group.kind), (tile(group.keep, "keep"), *others), note=group.reason)

    sections = [section(group) for group in groups] or [Section("Duplicates", (), empty="No duplicates.")]
    destination.write(file, "html", (part.encode() for part in contact_sheet(sections, title="Duplicates")))
