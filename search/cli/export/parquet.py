"""search export parquet"""

from __future__ import annotations

import click

from search.cli.options import Settings, as_command, completed_by


@as_command("parquet")
@click.argument("dest", metavar="FILE", shell_complete=completed_by("files"))
@click.option("--vectors", is_flag=True, help="With each photo's vector by the library's model.")
def command(settings: Settings, *, dest: str, vectors: bool) -> None:
    """Write a row for each photo: path, dates, camera, place, labels.

    \b
    Example:
      search export parquet photos.parquet --vectors
    """
    from pathlib import Path

    from search.cli import destination
    from search.cli.export.writing import finish, storing
    from search.cli.progress import progress_bar
    from search.interop.tables import export

    destination.check(dest, "parquet")
    with settings.open_library() as library, progress_bar(settings) as progress, storing(dest):
        library.catalog.count()  # there must be one before anything is written
        count = export(library, Path(dest).absolute(), vectors=vectors, progress=progress)
    finish(settings, dest, count)
