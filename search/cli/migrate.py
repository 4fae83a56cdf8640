"""search migrate"""

from __future__ import annotations

from dataclasses import replace

import click

from search.cli.options import Settings, as_command, completed_by
from search.cli.rebuild import kind_of_index
from search.plurals import count_of


@as_command("migrate")
@click.argument("source", metavar="SOURCE", shell_complete=completed_by("folders"))
@click.argument("destination", metavar="DEST", shell_complete=completed_by("folders"))
@click.option(
    "--index",
    metavar="KIND|URL",
    callback=kind_of_index,
    help="The kind of index that DEST gets, as `search rebuild --index` has it. [default: auto]",
)
def command(settings: Settings, *, source: str, destination: str, index: str | None) -> None:
    """Copy a library to another place: a folder, or the URL of a database server.

    Every row arrives and is held against its original, or none does; then an index is made there, and asked for the
    photos nearest to a sample. SOURCE stays as it is, and can be deleted when you have seen that DEST answers. Nobody
    can write to SOURCE meanwhile.

    \b
    Example:
      search migrate ~/.local/share/search/library postgresql://photos@db.example/photos
    """
    from search.cli.output import emit_json, printable
    from search.cli.progress import progress_bar

    with (
        replace(settings, library=source).open_library() as library,
        replace(settings, library=destination).open_library() as target,
        progress_bar(settings) as progress,
    ):
        report = library.migrate(target, index=index, progress=progress)
        places = library.catalog.shown, target.catalog.shown
    if settings.json:
        emit_json(
            {
                "source": places[0],
                "destination": places[1],
                "photos": report.photos,
                "vectors": report.vectors,
                "rows": dict(report.rows),
                "compared": report.compared,
                "agreement": report.agreement,
                "seconds": report.seconds,
            }
        )
        return
    found = f", and finds {report.agreement:.1%} of what it should" if report.agreement is not None else ""
    click.echo(
        f"{count_of(report.photos, 'photo')} and {count_of(report.vectors, 'vector')} are now in "
        f"{printable(places[1])} as well"
    )
    click.echo(
        f"  {count_of(sum(report.rows.values()), 'row')} compared in {report.seconds:.1f} s; its index is made{found}"
    )
