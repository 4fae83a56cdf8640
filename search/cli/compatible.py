"""The options of `search serve` that let other programs' clients ask."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

import click

from search.cli.options import F, Settings, not_empty

if TYPE_CHECKING:
    from search.web.options import ClipRetrieval, Immich

_OPTIONS = (
    click.option("--clip-retrieval", is_flag=True, help="Answer clip-retrieval's clients, too."),
    click.option(
        "--clip-retrieval-origin",
        "origins",
        multiple=True,
        metavar="ORIGIN",
        callback=not_empty,
        help="A web page that may ask as such a client from a browser, as http://localhost:5005.",
    ),
    click.option(
        "--fetch-from",
        multiple=True,
        metavar="NETWORK",
        callback=not_empty,
        help="Where pictures may be fetched from whose address such a client sends: 192.168.1.0/24, or public.",
    ),
    click.option("--immich", is_flag=True, help="Answer immich as its machine learning server, without a token."),
    click.option(
        "--immich-upstream",
        "upstream",
        metavar="URL",
        callback=not_empty,
        help="The machine learning server that has immich's other tasks.",
    ),
)


class Compatible(TypedDict):
    """What ServeOptions takes of these options."""

    clip_retrieval: ClipRetrieval | None
    immich: Immich | None


def compatible_options(function: F) -> F:
    """Add the options that `compatible_of` takes."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def compatible_of(
    settings: Settings,
    *,
    clip_retrieval: bool,
    origins: tuple[str, ...],
    fetch_from: tuple[str, ...],
    immich: bool,
    upstream: str | None,
) -> Compatible:
    """Return how other programs' clients are answered. Raises UsageError, click.UsageError for what can't be meant."""
    from search.web.options import ClipRetrieval, Immich

    if (origins or fetch_from) and not clip_retrieval:
        raise click.UsageError("--clip-retrieval-origin and --fetch-from go with --clip-retrieval")
    if upstream and not immich:
        raise click.UsageError("--immich-upstream goes with --immich")
    if settings.offline and (fetch_from or upstream):
        raise click.UsageError("--offline opens no connection; --fetch-from and --immich-upstream need one")
    return {
        "clip_retrieval": ClipRetrieval(origins, fetch_from) if clip_retrieval else None,
        "immich": Immich(upstream) if immich else None,
    }
