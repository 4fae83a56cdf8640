"""search rebuild"""

from __future__ import annotations

import click

from search.cli.options import Settings, as_command
from search.plurals import count_of

_KINDS = ("auto", "exact", "pq", "ivf", "pgvector")


def kind_of_index(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Return a kind of index or the URL of one on a server; anything else is wrong usage."""
    if value is not None and "://" not in value and value not in _KINDS:
        raise click.BadParameter(f"{value} is no kind of index: {', '.join(_KINDS)}, or a URL")
    return value


@as_command("rebuild")
@click.option(
    "--index",
    metavar="KIND|URL",
    callback=kind_of_index,
    help="The kind of index from now on: exact scores every vector, pq has small codes tell which to score, ivf has "
    "codes in lists of which a query reads some, auto takes pq for more than 50,000 vectors and ivf for more than "
    "2,000,000; milvus://HOST:PORT/COLLECTION and postgresql://USER@HOST/DATABASE are on a server, which is filled. "
    "[default: as before]",
)
def command(settings: Settings, *, index: str | None) -> None:
    """Write the index anew; make a catalog that is damaged or lost anew from its newest copy.

    Nothing is encoded again. A damaged catalog is kept beside the new one. An index on a server is a copy as well: the
    catalog keeps every vector, and one of another library is never overwritten.

    \b
    Example:
      search rebuild
      search rebuild --index milvus://localhost:19530/photos
    """
    from search.cli.output import emit_json, printable

    with settings.open_library() as library:
        report = library.rebuild(index=index)
    if settings.json:
        emit_json(
            {
                "photos": report.photos,
                "generation": report.generation,
                "recovered": report.recovered,
                "backup": report.backup,
                "seconds": report.seconds,
            }
        )
        return
    if report.recovered is None:
        click.echo(f"index of {count_of(report.photos, 'photo')} written anew in {report.seconds:.1f} s")
        return
    click.echo(f"catalog made anew from generation {report.generation}: {count_of(report.recovered, 'photo')}")
    if report.backup:
        click.echo(f"  the damaged one is now {printable(report.backup)}")
    click.echo("  photos indexed after that generation are not in it: run 'search index' over their folders")
