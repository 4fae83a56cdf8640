"""search evaluate retrieval"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from search.cli import report
from search.cli.evaluate import results
from search.cli.options import Settings, as_command, not_empty
from search.plurals import count_of

if TYPE_CHECKING:
    from search.evaluate.datasets import Captions
    from search.evaluate.pictures import Pictures
    from search.evaluate.retrieval import Retrieval
    from search.types import Skip


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
@click.option("--column", metavar="NAME", callback=not_empty, help="Of the captions. [default: caption]")
@results.models_options
@report.html_option
def command(
    settings: Settings,
    *,
    source: str,
    recall_k: tuple[int, ...],
    edges: tuple[int, ...],
    column: str | None,
    models: tuple[str, ...],
    keeping: results.Keeping,
    html: str | None,
) -> None:
    """Measure how often a caption finds its photo, and a photo one of its captions.

    CAPTIONS is a table of image and caption, .tsv or .csv, as many lines an image as it has captions; of more than
    two columns the first line names them. A caption that is longer than the model reads counts as it reads it: cut.
    Several --model stand beside one another, captions counted in tokens of the first. Your library is not touched.

    \b
    Example:
      search evaluate retrieval ~/flickr/captions.tsv --recall-k 1,5
      search evaluate retrieval ~/flickr/captions.tsv --model builtin --model dir:long --html page.html
    """
    from search.cli.output import emit_json
    from search.evaluate.datasets import Captions

    if html is not None:
        report.check(html)
    whole = Captions.of(source, column=column)
    results.tell_skipped(settings, whole.skipped)
    found: list[_Result] = []
    for model in models:
        counted = found[0].lengths if found else None
        with results.pictures(settings, model, keeping) as pictures:
            found.append(_measured(settings, pictures, whole, recall_k=recall_k, edges=edges, counted=counted))
    if html is not None:
        report.write(html, f"Retrieval on {whole.name}", _sections(found))
    if settings.json:
        documents = [_document(one) for one in found]
        emit_json(documents[0] if len(documents) == 1 else {"models": documents})
    elif len(found) == 1:
        _tell(found[0])
    else:
        _compare(found)


@dataclass(frozen=True, slots=True)
class _Result:
    """What one model found.   lengths: of the captions, in tokens."""

    model: str
    captions: Captions
    figures: Retrieval
    lengths: Sequence[int]
    skipped: Sequence[Skip]


def _measured(
    settings: Settings,
    pictures: Pictures,
    whole: Captions,
    *,
    recall_k: tuple[int, ...],
    edges: tuple[int, ...],
    counted: Sequence[int] | None,
) -> _Result:
    from search.evaluate.retrieval import embed, evaluate_retrieval

    seen = results.seen(settings, pictures, whole)
    captions = whole.take(seen.rows)
    texts, lengths = embed(captions.captions, pictures)
    found = evaluate_retrieval(
        seen.vectors,
        texts,
        captions,
        lengths=lengths,
        context_length=pictures.text().context_length,
        recall_k=recall_k,
        edges=edges,
        counted=counted,
    )
    if found.truncated:
        settings.talk(
            f"warning: {count_of(found.truncated, 'caption is', 'captions are')} longer than {pictures.model} "
            f"reads and cut; {count_of(found.truncated_tokens, 'token is', 'tokens are')} beyond"
        )
    return _Result(pictures.model, captions, found, lengths, (*whole.skipped, *seen.skipped))


def _document(result: _Result) -> dict[str, Any]:
    from search.documents import skip_document

    found, captions = result.figures, result.captions
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
        result.model,
        "zeroshot_retrieval",
        {name: figure.value for name, figure in found.figures.items()},
        intervals=results.bounds(found.figures),
        photos=len(captions.paths),
        captions=len(captions.captions),
        by_length=bins,
        truncated=found.truncated,
        truncated_tokens=found.truncated_tokens,
        skipped=[skip_document(skip) for skip in result.skipped],
    )


def _tell(result: _Result) -> None:
    found, captions = result.figures, result.captions
    click.echo(
        f"{result.model} on {captions.name}: {len(captions.paths)} photos, {len(captions.captions)} captions"
    )
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


def _compare(found: Sequence[_Result]) -> None:
    """Tell how often captions find their photo, by model, and the first k of it by length."""
    captions = found[0].captions
    click.echo(f"{captions.name}: {len(captions.paths)} photos, {len(captions.captions)} captions")
    for header, rows in _beside(found):
        click.echo()
        results.table(rows, header=header, right=range(1, len(header)))


def _beside(found: Sequence[_Result]) -> list[tuple[tuple[str, ...], list[tuple[str, ...]]]]:
    names = [name for name in found[0].figures.figures if name.startswith("image")]
    recalls = [(one.model, *(results.percent(one.figures.figures[name]) for name in names)) for one in found]
    bins = found[0].figures.bins
    first = next(iter(bins[0].recalls))
    by_length = [
        (one.model, *(results.percent(each.recalls[first]) for each in one.figures.bins)) for one in found
    ]
    lengths = (f"{_tokens(one.low, one.high)} tokens ({one.captions})" for one in bins)
    return [
        (("captions find their photo", *(f"recall@{name.rpartition('@')[2]}" for name in names)), recalls),
        ((f"recall@{first}", *lengths), by_length),
    ]


def _sections(measured: Sequence[_Result]) -> list[report.Section]:
    if len(measured) > 1:
        return _sections_of_several(measured)
    from search.cli.report import plots

    (result,) = measured
    found, captions, model = result.figures, result.captions, result.model
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


def _sections_of_several(found: Sequence[_Result]) -> list[report.Section]:
    from search.cli.report import plots

    captions, bins = found[0].captions, found[0].figures.bins
    about = f"{len(captions.paths)} photos with {len(captions.captions)} captions. Intervals are of 95 %."
    cut = "Captions longer than a model reads count as it reads them, cut: " + "; ".join(
        f"{one.figures.truncated} with {one.model}" for one in found
    )
    lengths = [_tokens(one.low, one.high) for one in bins]
    counts = [one.captions for one in bins]
    curves = [
        plots.recall_by_length(
            lengths,
            {one.model: [each.recalls[k] for each in one.figures.bins] for one in found},
            counts=counts,
            what=f"recall@{k}",
        )
        for k in bins[0].recalls
    ]
    recalls, by_length = (report.Table(header, rows) for header, rows in _beside(found))
    return [
        report.Section("Recall", (about, recalls)),
        report.Section("By the caption's length", (f"{cut}.", *curves, by_length)),
    ]
