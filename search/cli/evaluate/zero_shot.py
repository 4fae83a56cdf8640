"""search evaluate zero-shot"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from search.cli import report
from search.cli.evaluate import results
from search.cli.options import Settings, as_command
from search.plurals import count_of

if TYPE_CHECKING:
    from search.evaluate.datasets import Dataset
    from search.evaluate.statistics import Interval
    from search.evaluate.zero_shot import ZeroShot
    from search.labels import LabelSet

_SHOWN = 30  # classes on a terminal
_CONFUSED = 2  # classes that one is named to be taken for
_TITLES = {
    "acc1": "accuracy",
    "acc5": "among the five best",
    "mean_per_class_recall": "mean over classes",
    "mean_average_precision": "mean average precision",
}


@as_command("zero-shot")
@click.argument("source", metavar="DIR|CSV", type=click.Path(exists=True))
@results.class_options
@results.model_options
@report.html_option
def command(
    settings: Settings,
    *,
    source: str,
    words: results.Words,
    model: str,
    keeping: results.Keeping,
    html: str | None,
) -> None:
    """Measure how well a model tells the classes of photos by words alone.

    DIR holds a folder of photos for each class; a CSV names a path and a label a line, or several: a;b. The vectors
    are kept, so that other words cost seconds; your library is not touched.

    \b
    Example:
      search evaluate zero-shot ~/flowers --template "a photo of a {}, a type of flower."
    """
    from search.cli.output import emit_json
    from search.documents import skip_document
    from search.errors import UsageError
    from search.evaluate.datasets import Dataset
    from search.evaluate.zero_shot import evaluate_zero_shot

    if html is not None:
        report.check(html)
    whole = words.named(Dataset.of(source))
    words.labels(whole)  # raises before the work
    with results.pictures(settings, model, keeping) as pictures:
        seen = results.seen(settings, pictures, whole)
        dataset = whole.take(seen.rows).present()
        results.tell_empty(settings, dataset)
        if len(dataset.folders) < 2:
            raise UsageError(f"{source} has photos of one class", hint="there must be another to tell it from")
        labels = words.labels(dataset)
        weights, beyond = labels.embed(pictures.text(), pictures.remember())
        name = pictures.model
    results.tell_beyond(settings, beyond)
    found = evaluate_zero_shot(seen.vectors, weights, dataset)
    if html is not None:
        report.write(html, f"Zero-shot on {dataset.name}", _sections(found, dataset, name))
    if settings.json:
        skipped = [skip_document(skip) for skip in seen.skipped]
        emit_json({**_document(found, dataset, labels, name), "skipped": skipped, "truncated_tokens": beyond})
    else:
        _tell(found, dataset, name)


def _document(found: ZeroShot, dataset: Dataset, labels: LabelSet, model: str) -> dict[str, Any]:
    figures: dict[str, float | None] = {key: interval.value for key, interval in found.figures.items()}
    if dataset.truth is None:
        figures.setdefault("acc5", None)
    more = (
        {}
        if dataset.truth is not None
        else {"per_class": _per_class(found), "confusion": found.confusion.tolist()}
    )
    return results.document(
        dataset.name,
        model,
        "zeroshot_classification",
        figures,
        intervals=results.bounds(found.figures),
        photos=len(dataset.paths),
        classnames=list(dataset.classnames),
        folders=list(dataset.folders),
        templates=list(labels.templates),
        **more,
    )


def _per_class(found: ZeroShot) -> list[dict[str, Any]]:
    return [
        {
            "class": one.folder,
            "name": one.name,
            "photos": one.photos,
            "recall": one.recall.value,
            "interval": [one.recall.low, one.recall.high],
            "confused": [{"class": name, "photos": count} for name, count in one.confused],
        }
        for one in found.classes
    ]


def _tell(found: ZeroShot, dataset: Dataset, model: str) -> None:
    click.echo(f"{model} on {dataset.name}: {len(dataset.paths)} photos, {len(dataset.folders)} classes")
    results.table(
        [(title, results.percent(figure)) for title, figure in _telling(found)], header=("figure", "value (95 %)")
    )
    if found.classes:
        click.echo()
        results.table(_class_rows(found)[:_SHOWN], header=_HEADER, right=(1, 2), giving=3)
    if len(found.classes) > _SHOWN:
        click.echo(f"and {count_of(len(found.classes) - _SHOWN, 'class', 'classes')} more, all better")


def _telling(found: ZeroShot) -> list[tuple[str, Interval]]:
    """The figures that can be anything but 1: of five classes all are among the five best."""
    few = len(found.confusion) <= 5
    return [(_TITLES[name], figure) for name, figure in found.figures.items() if not (few and name == "acc5")]


_HEADER = ("class", "photos", "said right", "taken for")


def _class_rows(found: ZeroShot) -> list[tuple[str, ...]]:
    return [
        (
            one.name,
            str(one.photos),
            results.percent(one.recall),
            ", ".join(f"{name} {count}" for name, count in one.confused[:_CONFUSED]),
        )
        for one in found.classes
    ]


def _sections(found: ZeroShot, dataset: Dataset, model: str) -> list[report.Section]:
    from search.cli.report import plots

    about = f"{len(dataset.paths)} photos in {len(dataset.folders)} classes, by {model}. Intervals are of 95 %."
    sections = [report.Section("Figures", (about, plots.accuracy_intervals(_telling(found))))]
    if found.classes:
        table = report.Table(_HEADER, _class_rows(found), words=frozenset((3,)))
        matrix = plots.confusion_matrix(found.confusion, dataset.classnames)
        sections += [report.Section("Classes", (table,)), report.Section("What is taken for what", (matrix,))]
    return sections
