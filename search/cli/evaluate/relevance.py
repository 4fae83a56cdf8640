"""search evaluate relevance"""

from __future__ import annotations

from typing import TextIO

import click

from search.cli import report
from search.cli.options import Settings, as_command, k_option, model_option


@as_command("relevance")
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False))
@click.option(
    "--labels",
    type=click.File(encoding="utf-8"),
    metavar="FILE",
    help="What to ask a class by: FOLDER, a tab, words.",
)
@click.option(
    "--absent",
    type=click.File(encoding="utf-8"),
    metavar="FILE",
    help="Things that are not there, one a line. [default: some rare ones]",
)
@report.html_option
@k_option
@model_option
def command(
    settings: Settings,
    *,
    folder: str,
    labels: TextIO | None,
    absent: TextIO | None,
    html: str | None,
    k: int,
    model: str,
) -> None:
    """See whether relevance tells what is there from what is not, on folders of photos by class.

    Asked are the classes' names, the same with their photos left out, things that are not there, and nonsense;
    beside it stands the best cosine to cut at. The photos are indexed aside, your library is not touched.

    \b
    Example:
      search evaluate relevance ~/labelled --html curves.html
    """
    import tempfile
    from dataclasses import asdict, replace

    from search.cli.curves import rows, sections
    from search.cli.output import emit_json, emit_table
    from search.cli.progress import progress_bar
    from search.evaluate.relevance import evaluate_relevance

    if html is not None:
        report.check(html)
    names = _names(labels) if labels else None
    things = [line.strip() for line in absent if line.strip()] if absent else None
    with tempfile.TemporaryDirectory() as aside, replace(settings, library=aside).open_library(model) as library:
        with progress_bar(settings) as progress:
            library.index([folder], progress=progress)
        found = evaluate_relevance(library, names=names, absent=things, k=k)
    if html is not None:
        report.write(html, f"Relevance of {found.encoder}", sections(found))
    if settings.json:
        emit_json(asdict(found))
        return
    click.echo(f"{found.encoder}: {found.photos} photos, {found.classes} classes, {found.true_photos} true photos")
    click.echo("queries: " + ", ".join(f"{count} {kind}" for kind, count in found.queries.items()))
    emit_table(rows(found), right=range(1, 6))


def _names(file: TextIO) -> dict[str, str]:
    pairs = (line.rstrip("\n").split("\t") for line in file if line.strip())
    try:
        return {folder.strip(): words.strip() for folder, words in pairs}
    except ValueError:
        raise click.UsageError(f"{file.name} has a line that is not FOLDER, a tab, words") from None
