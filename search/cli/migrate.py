"""search migrate"""

from __future__ import annotations

from dataclasses import replace

import click

from search.cli.options import Settings, as_command, completed_by


@as_command("migrate")
@click.argument("source", metavar="SOURCE", shell_complete=completed_by("folders"))
@click.argument("destination", metavar="DEST", shell_complete=completed_by("folders"))
@click.option("--index", metavar="KIND", help="The kind of index DEST gets, as `search rebuild --index` has it.")
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
    click.echo(f"{report.photos} photos and {report.vectors} vectors are now in {printable(places[1])} as well")
    click.echo(f"  {sum(report.rows.values())} rows compared in {report.seconds:.1f} s; its index is made{found}")
