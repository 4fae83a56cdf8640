"""search export clip-retrieval"""

from __future__ import annotations

import click

from search.cli.options import Settings, as_command, completed_by


@as_command("clip-retrieval")
@click.argument("dest", metavar="FOLDER", shell_complete=completed_by("folders"))
def command(settings: Settings, *, dest: str) -> None:
    """Write vectors, metadata and an index as clip-retrieval has them.

    FOLDER is whole or not there; an earlier export in its place is replaced. Its server opens it:
    clip-retrieval back --indices-paths FOLDER/indices_paths.json

    \b
    Example:
      search export clip-retrieval embeddings
    """
    from pathlib import Path

    from search.cli.export.writing import finish, storing
    from search.cli.progress import progress_bar
    from search.interop.clip_retrieval import export

    folder = Path(dest).expanduser().absolute()
    with settings.open_library() as library, progress_bar(settings) as progress, storing(dest):
        count = export(library, folder, progress=progress)
    finish(settings, str(folder), count)
