"""search export csv"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import click

from search.cli.options import Settings, as_command, completed_by


@as_command("csv")
@click.argument("dest", metavar="FILE", shell_complete=completed_by("files"))
def command(settings: Settings, *, dest: str) -> None:
    """Write a line for each photo: path, dates, camera, place, labels.

    \b
    Example:
      search export csv photos.csv
    """
    from search.cli import destination
    from search.cli.export.writing import finish
    from search.cli.progress import progress_bar
    from search.interop.tables import rows

    count = 0

    def counted(found: Iterable[list[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
        nonlocal count
        for some in found:
            count += len(some)
            yield from some

    with settings.open_library() as library, progress_bar(settings) as progress:
        library.catalog.count()  # there must be one before anything is written
        destination.write(dest, "photos csv", _lines(counted(rows(library, progress=progress))))
    finish(settings, dest, count)


def _lines(found: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    import base64

    from search.interop.tables import COLUMNS
    from search.tables import csv_lines

    def flat(row: dict[str, Any]) -> dict[str, Any]:
        raw = row["path_bytes"]
        return {
            **row,
            "labels": "; ".join(row["labels"]),
            "path_bytes": base64.b64encode(raw).decode() if raw else "",
        }

    for line in csv_lines(COLUMNS, map(flat, found)):
        yield line.encode()
