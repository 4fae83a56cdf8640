"""What the first run that brings photos into a library tells beside its report: what they are, and what to ask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from search.cli.options import Settings
from search.errors import SearchError
from search.types import PassedOver

if TYPE_CHECKING:
    from search.library import Library
    from search.types import Contents, IndexReport, Suggestion

_TOLD = {
    PassedOver.VIDEOS: "video",
    PassedOver.LINKS: "link",
    PassedOver.HIDDEN: "hidden",
    PassedOver.EXCLUDED: "excluded",
    PassedOver.OTHERS: "other file",
}
_UNCOUNTABLE = ("hidden", "excluded")


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
    from search.cli.start import find_commands

    click.echo(f"Found {_described(library.catalog.contents())}{passed_over(report, chr(10) + 'Passed over ')}")
    if suggestions := _suggestions(settings, library):
        click.echo("Try:")
    for command in find_commands(settings, [one.query for one in suggestions]):
        click.echo(f"  {command}")


def passed_over(report: IndexReport, before: str) -> str:
    """Say what was left out on purpose, "" if nothing was."""
    found = report.passed_over
    counted = [_counted(found[kind], what) for kind, what in _TOLD.items() if kind in found]
    return before + " · ".join(counted) if counted else ""


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
    return " · ".join([*parts, f"in {_counted(contents.folders, 'folder')}"])


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 or what in _UNCOUNTABLE else f"{count} {what}s"
