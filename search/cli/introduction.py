"""What the first run that brings photos into a library tells beside its report: what they are, and what to ask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from search.cli.options import Settings
from search.errors import SearchError
from search.plurals import count_of
from search.types import PassedOver

if TYPE_CHECKING:
    from search.library import Library
    from search.types import Contents, IndexReport, Suggestion

_TOLD = {
    PassedOver.VIDEOS: "video",
    PassedOver.LINKS: "link",
    PassedOver.OTHERS: "other file",
}


def is_due(library: Library, report: IndexReport) -> bool:
    """Whether a run encoded photos, its model is open, and nobody looked yet for what to ask."""
    if not report.encoded or report.interrupted or report.not_encoded:
        return False
    if library.catalog.folder is None:  # nothing is kept there of what was told
        return report.added == report.photos
    return library.known_suggestions is None


def document(settings: Settings, library: Library) -> dict[str, Any]:
    """Return the fields that a first run has more in JSON."""
    from search.documents import introduction_document

    return introduction_document(library.catalog.contents(), _suggestions(settings, library))


def tell(settings: Settings, library: Library, report: IndexReport) -> None:
    """Print what was found and three queries to try."""
    from search.cli.output import printable
    from search.cli.start import find_commands

    click.echo(f"Found {_described(library.catalog.contents())}")
    if left_out := passed_over(report):
        click.echo(f"Passed over {left_out}")
    if suggestions := _suggestions(settings, library):
        click.echo("Try:")
    for command in find_commands(settings, [one.query for one in suggestions]):
        click.echo(f"  {printable(command)}")


def passed_over(report: IndexReport) -> str:
    """Say what was left out on purpose, "" if nothing was."""
    found = report.passed_over
    told = [count_of(found[kind], what) for kind, what in _TOLD.items() if kind in found]
    told += [f"{found[kind]} {kind}" for kind in (PassedOver.HIDDEN, PassedOver.EXCLUDED) if kind in found]
    return " · ".join(told)


def _suggestions(settings: Settings, library: Library) -> tuple[Suggestion, ...]:
    """Look for queries; the run is over, and neither a failure nor Ctrl-C takes anything from it."""
    from search.cli.progress import dispensable

    try:
        with dispensable():
            return library.suggest_queries()
    except KeyboardInterrupt:
        settings.talk("stopped looking for queries to try; the photos are indexed")
    except SearchError as error:
        settings.talk(f"no queries to try: {error}")
    return ()


def _described(contents: Contents) -> str:
    parts = [", ".join(f"{count} {name.upper()}" for name, count in contents.formats.items())]
    if contents.years:
        first, last = contents.years
        parts.append(f"taken in {first}" if first == last else f"taken from {first} to {last}")
    return " · ".join([*parts, f"in {count_of(contents.folders, 'folder')}"])
