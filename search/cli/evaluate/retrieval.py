"""search evaluate retrieval"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from search.cli import report
from search.cli.evaluate import results
from search.cli.options import Settings, as_command

if TYPE_CHECKING:
    from search.evaluate.datasets import Captions
    from search.evaluate.retrieval import Retrieval


def _numbers(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...]:
    """Read "1,5,10"."""
    try:
        numbers = tuple(sorted({int(part) for part in value.split(",")})) if value else ()
    except ValueError:
        numbers = (0,)
    if any(number < 1 for number in numbers):
        raise click.BadParameter(f"{value} is no list of numbers from 1, such as 1,5,10", context, parameter)
    return numbers


@as_command("retrieval")
@click.argument("source", metavar="CAPTIONS", type=click.Path(exists=True, dir_okay=False))
@click.option(
    "--recall-k", metavar="K,K", default="1,5,10", show_default=True, callback=_numbers, help="Ranks to look at."
)
@click.option(
    "--edges", metavar="N,N", callback=_numbers, help="Tokens at which bins of length begin. [default: five]"
)
@results.model_options
@report.html_option
def command(
    settings: Settings,
    *,
    source: str,
    recall_k: tuple[int, ...],
    edges: tuple[int, ...],
    model: str,
    cache: str | None,
    no_cache: bool,
    html: str | None,
) -> None:
    """Measure how often a caption finds its photo, and a photo one of its captions.

    CAPTIONS is a table of image and caption, .tsv or .csv, as many lines an image as it has captions. A caption that
    is longer than the model reads counts as it reads it: cut. Your library is not touched.

    \b
    Example:
      search evaluate retrieval ~/flickr/captions.tsv --recall-k 1,5
    """
    from search.cli.output import emit_json, skip_document
    from search.evaluate.datasets import Captions
    from search.evaluate.retrieval import embed, evaluate_retrieval

    if html is not None:
        report.check(html)
    whole = Captions.of(source)
    with results.pictures(settings, model, cache=cache, no_cache=no_cache) as pictures:
        seen = results.seen(settings, pictures, whole)
        captions = whole.take(seen.rows)
        texts, lengths = embed(captions.captions, pictures)
        context_length = pictures.text().context_length
        name = pictures.model
    found = evaluate_retrieval(
        seen.vectors,
        texts,
        captions,
        lengths=lengths,
        context_length=context_length,
        recall_k=recall_k,
        edges=edges,
    )
    if found.truncated:
        settings.talk(
            f"warning: {found.truncated} captions are longer than the model reads and count as cut; "
            f"{found.truncated_tokens} tokens are beyond"
        )
    if html is not None:
        report.write(html, f"Retrieval on {captions.name}", _sections(found, captions, name))
    if settings.json:
        emit_json({**_document(found, captions, name), "skipped": [skip_document(skip) for skip in seen.skipped]})
    else:
        _tell(found, captions, name)


def _document(found: Retrieval, captions: Captions, model: str) -> dict[str, Any]:
    bins = [
        {
            "tokens": [one.low, one.high],
            "captions": one.captions,
            **{f"image_retrieval_recall@{k}": recall.value for k, recall in one.recalls.items()},
            "intervals": results.bounds({f"image_retrieval_recall@{k}": v for k, v in one.recalls.items()}),
        }
        for one in found.bins
    ]
    return results.document(
        captions.name,
        model,
        "zeroshot_retrieval",
        {name: figure.value for name, figure in found.figures.items()},
        intervals=results.bounds(found.figures),
        photos=len(captions.paths),
        captions=len(captions.captions),
        by_length=bins,
        truncated=found.truncated,
        truncated_tokens=found.truncated_tokens,
    )


def _tell(found: Retrieval, captions: Captions, model: str) -> None:
    click.echo(f"{model} on {captions.name}: {len(captions.paths)} photos, {len(captions.captions)} captions")
    results.table(_figure_rows(found), header=_HEADER)
    click.echo()
    header, rows = _length_rows(found)
    results.table(rows, header=header, right=range(1, len(header)))


_HEADER = ("", "captions find their photo", "photos find a caption")


def _figure_rows(found: Retrieval) -> list[tuple[str, ...]]:
    names = [name for name in found.figures if name.startswith("image")]
    return [
        (
            f"recall@{name.rpartition('@')[2]}",
            results.percent(found.figures[name]),
            results.percent(found.figures[name.replace("image", "text", 1)]),
        )
        for name in names
    ]


def _length_rows(found: Retrieval) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    header = ("tokens", "captions", *(f"recall@{k}" for k in found.bins[0].recalls))
    rows = [
        (
            _tokens(one.low, one.high),
            str(one.captions),
            *(results.percent(value) for value in one.recalls.values()),
        )
        for one in found.bins
    ]
    return header, rows


def _tokens(low: int, high: int) -> str:
    return f"{low} to {high}" if low < high else str(low)


def _sections(found: Retrieval, captions: Captions, model: str) -> list[report.Section]:
    from search.cli.report import plots

    about = (
        f"{len(captions.paths)} photos with {len(captions.captions)} captions, by {model}. Intervals are of 95 %."
    )
    many = str(found.truncated) if found.truncated else "no"
    cut = f"Of these captions, {many} are longer than the model reads; such count as it reads them: cut."
    header, rows = _length_rows(found)
    series = {f"recall@{k}": [one.recalls[k] for one in found.bins] for k in found.bins[0].recalls}
    plot = plots.recall_by_length(
        [_tokens(one.low, one.high) for one in found.bins], series, counts=[one.captions for one in found.bins]
    )
    return [
        report.Section("Recall", (about, report.Table(_HEADER, _figure_rows(found)))),
        report.Section("By the caption's length", (cut, plot, report.Table(header, rows))),
    ]
