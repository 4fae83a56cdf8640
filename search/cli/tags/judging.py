"""What `tags accept` and `tags reject` share: which labels on which photos, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from search.cli.options import Number, Settings, completed_by, not_empty
from search.cli.similar import photo_ref
from search.plurals import count_of

if TYPE_CHECKING:
    from search.types import TagReport

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.argument("photos", shell_complete=completed_by("files"), nargs=-1, metavar="[PATH|ID]..."),
    click.option(
        "--label",
        "labels",
        multiple=True,
        required=True,
        metavar="NAME",
        callback=not_empty,
        shell_complete=completed_by("tags"),
        help="The label; may be given often.",
    ),
    click.option("--above", type=Number(0, 1), metavar="P", help="Proposals at least this probable."),
    click.option("--below", type=Number(0, 1), metavar="P", help="Proposals less probable than this."),
)


def judging_options(function: F) -> F:
    """Add what says which labels on which photos."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def judge(
    settings: Settings,
    verb: str,
    *,
    photos: tuple[str, ...],
    labels: tuple[str, ...],
    above: float | None,
    below: float | None,
) -> None:
    """Accept or reject, and tell what came of it.   verb: "accept" or "reject"."""
    from search.cli.output import emit_json
    from search.documents import tag_report_document
    from search.library.tags import nearest

    if not photos and above is None and below is None:
        raise click.UsageError("say on which photos: PATH, ID, --above P or --below P")
    refs = [photo_ref(photo) for photo in photos] or None
    with settings.open_library() as library:
        report: TagReport = getattr(library.tags, verb)(labels, photos=refs, above=above, below=below)
        known = library.catalog.label_names() if report.new else []
    if settings.json:
        emit_json(tag_report_document(report))
    for name in report.new:
        near = nearest(name, known)
        settings.talk(f"{name!r} is a new label" + (f"; was {near!r} meant?" if near else ""))
    _tell(settings, report, f"{verb}ed")


def _tell(settings: Settings, report: TagReport, done: str) -> None:
    if report.run is None:
        settings.talk(
            "nothing to change: all of it was judged before" if report.unchanged else "no photo is meant"
        )
        return
    settings.talk(
        f"run {report.run}: {count_of(report.labels, 'label')} {done} on {count_of(report.photos, 'photo')}; "
        f"search tags undo {report.run} takes that back"
    )
