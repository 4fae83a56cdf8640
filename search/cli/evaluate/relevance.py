"""search evaluate relevance"""

from __future__ import annotations

from typing import TextIO

import click

from search.cli import report
from search.cli.evaluate import results
from search.cli.options import Settings, as_command, k_option, not_empty


@as_command("relevance")
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False))
@click.option(
    "--labels",
    metavar="FILE",
    callback=not_empty,
    help="What to ask a class by: FOLDER, a tab, words; or one a line in order.",
)
@click.option(
    "--absent",
    type=click.File(encoding="utf-8"),
    metavar="FILE",
    help="Things that are not there, one a line. [default: some rare ones]",
)
@report.html_option
@k_option
@results.model_options
def command(
    settings: Settings,
    *,
    folder: str,
    labels: str | None,
    absent: TextIO | None,
    html: str | None,
    k: int,
    model: str,
    keeping: results.Keeping,
) -> None:
    """See whether relevance tells what is there from what is not, on folders of photos by class.

    Asked are the classes' names, the same with their photos left out, things that are not there, and nonsense;
    beside it stands the best cosine to cut at. Vectors are kept for the next time; your library is not touched.

    \b
    Example:
      search evaluate relevance ~/labelled --html curves.html
    """
    from dataclasses import asdict

    from search.cli.curves import rows, sections
    from search.cli.output import emit_json, emit_table
    from search.evaluate.datasets import Dataset
    from search.evaluate.relevance import evaluate_relevance

    if html is not None:
        report.check(html)
    whole = results.named(Dataset.by_folder(folder), labels)
    things = [line.strip() for line in absent if line.strip()] if absent else None
    with results.pictures(settings, model, keeping) as pictures:
        seen = results.seen(settings, pictures, whole)
        dataset = whole.take(seen.rows).present()
        results.tell_empty(settings, dataset)
        found = evaluate_relevance(pictures, dataset, seen.vectors, absent=things, k=k)
    results.tell_beyond(settings, found.truncated_tokens, "the texts")
    if html is not None:
        report.write(html, f"Relevance of {found.encoder}", sections(found))
    if settings.json:
        emit_json(asdict(found))
        return
    click.echo(f"{found.encoder}: {found.photos} photos, {found.classes} classes, {found.true_photos} true photos")
    click.echo("queries: " + ", ".join(f"{count} {kind}" for kind, count in found.queries.items()))
    emit_table(rows(found), right=range(1, 6))
