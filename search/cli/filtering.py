"""The options that say which photos a command is about."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from search.cli.options import F, completed_by, not_empty

if TYPE_CHECKING:
    from search.conditions import Node
    from search.types import Filter


class _Date(click.ParamType[datetime]):
    """2024, 2024-05, 2024-05-01 or 2024-05-01T18:30, with a zone or without: the moment it begins."""

    name = "date"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        from search.where import parse_date

        if isinstance(value, datetime):
            return value
        try:
            return parse_date(value)[0]
        except ValueError:
            self.fail(
                f"{value!r} is no date; write 2024, 2024-05, 2024-05-01 or 2024-05-01T18:30+02:00", param, ctx
            )


class _Place(click.ParamType[tuple[float, float, float]]):
    """LAT,LON,KM in degrees and kilometres."""

    name = "place"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float, float]:
        if isinstance(value, tuple):
            return value
        try:
            latitude, longitude, km = map(float, value.split(","))
        except ValueError:
            self.fail(f"{value!r} is no LAT,LON,KM", param, ctx)
        if not (abs(latitude) <= 90 and abs(longitude) <= 180 and 0 <= km < float("inf")):
            self.fail(f"{value!r} is not on Earth", param, ctx)
        return latitude, longitude, km


_OPTIONS = (
    click.option(
        "--folder",
        shell_complete=completed_by("folders"),
        metavar="DIR",
        callback=not_empty,
        help="Only photos in this folder and below.",
    ),
    click.option("--after", type=_Date(), metavar="DATE", help="Taken on this date or later."),
    click.option("--before", type=_Date(), metavar="DATE", help="Taken before this date."),
    click.option("--camera", metavar="TEXT", callback=not_empty, help="The camera's name has this in it."),
    click.option("--near", type=_Place(), metavar="LAT,LON,KM", help="Taken within KM of this place."),
    click.option(
        "--tag",
        "labels",
        multiple=True,
        shell_complete=completed_by("tags"),
        metavar="LABEL",
        callback=not_empty,
        help="Has this label, or one below it.",
    ),
    click.option(
        "--where",
        multiple=True,
        metavar="EXPR",
        callback=not_empty,
        help="A condition such as 'rating >= 4 and not has gps'.",
    ),
)


def filter_options(function: F) -> F:
    """Add the options that `filter_of` takes."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def filter_of(*, folder: str | None, where: tuple[str, ...], **fields: Any) -> Filter:
    """Return what the options ask for; all of it must hold. Raises QueryError."""
    from search.types import Filter

    if folder is None and not where:
        return Filter(**fields)
    from search.conditions import And
    from search.where import parse, parse_folder

    parts: list[Node] = [parse(text) for text in where]
    if folder is not None:
        parts.append(parse_folder(folder))
    return Filter(**fields, where=And(tuple(parts)))
