"""search evaluate index|relevance"""

from __future__ import annotations

from typing import TextIO

import click

from search.cli import destination
from search.cli.options import Settings, as_command, k_option, model_option, not_empty


@click.group("evaluate")
def command() -> None:
    """Measure how good the library's answers are.

    \b
    Example:
      search evaluate index
      search evaluate relevance ~/labelled
    """


@as_command("index")
@click.option(
    "--queries",
    type=click.File(encoding="utf-8"),
    metavar="FILE",
    help="Texts to search with, one a line. [default: everyday subjects]",
)
@click.option(
    "--count", type=click.IntRange(1), default=100, show_default=True, help="How many of each kind at most."
)
def index(settings: Settings, *, queries: TextIO | None, count: int) -> None:
    """Hold the index against exact search: how many of the ten best photos it finds, and how fast.

    Searched are the library's own vectors, with texts and with its own photos, whole and under filters.

    \b
    Example:
      search evaluate index --count 50
    """
    from dataclasses import asdict

    from search.cli.output import emit_json, emit_table
    from search.evaluate.index import evaluate_index
    from search.labels import load_labels

    if queries is None:
        texts = [f"a photo of {label.name}" for label in load_labels("everyday")]
    else:
        texts = [line.strip() for line in queries if line.strip()]
    with settings.open_library() as library:
        found = evaluate_index(library, texts, queries=count)
    if settings.json:
        emit_json({"index": dict(found.index), "rows": [asdict(row) for row in found.rows]})
        return
    click.echo(f"{found.index['kind']} index of {found.index['vectors']} vectors, {found.index['bytes']} bytes")
    header = ("queries", "photos let through", "recall@10", "exact ms", "index ms", "times as fast")
    rows = [
        (
            f"{row.count} {row.queries}",
            f"{row.filter:.0%}",
            f"{row.recall_at_10:.3f}",
            f"{row.ms_exact:.2f}",
            f"{row.ms_index:.2f}",
            f"{row.ms_exact / row.ms_index:.1f}",
        )
        for row in found.rows
    ]
    emit_table([header, *rows], right=range(1, 6))


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
@click.option("--html", metavar="FILE", callback=not_empty, help="Write a page with the curves.")
@k_option
@model_option
def relevance(
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

    from search.cli.curves import page, rows
    from search.cli.output import emit_json, emit_table
    from search.cli.progress import progress_bar
    from search.evaluate.relevance import evaluate_relevance

    if html is not None:
        destination.check(html, destination.format_of(html, "html"))
    names = _names(labels) if labels else None
    things = [line.strip() for line in absent if line.strip()] if absent else None
    with tempfile.TemporaryDirectory() as aside, replace(settings, library=aside).open_library(model) as library:
        with progress_bar(settings) as progress:
            library.index([folder], progress=progress)
        found = evaluate_relevance(library, names=names, absent=things, k=k)
    if html is not None:
        destination.write(html, "html", [page(found).encode()])
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


command.add_command(index)
command.add_command(relevance)
