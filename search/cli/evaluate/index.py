"""search evaluate index"""

from __future__ import annotations

from typing import TextIO

import click

from search.cli.options import Settings, as_command


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
def command(settings: Settings, *, queries: TextIO | None, count: int) -> None:
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
