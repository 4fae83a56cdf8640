"""search evaluate robustness"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from search.cli import report
from search.cli.evaluate import results
from search.cli.options import Settings, as_command

if TYPE_CHECKING:
    from search.evaluate.datasets import Dataset
    from search.evaluate.pictures import Pictures
    from search.evaluate.robustness import Condition, Robustness
    from search.types import Skip, Vectors

_STYLE_HEADER = ("style", "photos", "accuracy", "mean over classes", "drop")
_CORRUPTION_HEADER: tuple[str, ...] = ("corruption", "strength", "accuracy", "mean over classes", "drop")


def _names(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """Read "noise,blur"; "none" is none, None stands for what is usual."""
    if value is None:
        return None
    names = tuple(part.strip() for part in value.split(",") if part.strip())
    return () if names == ("none",) else names


@as_command("robustness")
@click.argument("folders", metavar="DIR...", nargs=-1, required=True, type=click.Path(exists=True))
@click.option(
    "--reference", metavar="STYLE", default="", help="The style to hold others against. [default: photo]"
)
@click.option(
    "--corruptions",
    metavar="NAMES",
    callback=_names,
    help="Of noise,blur,jpeg,contrast; or none. [default: all for one DIR, else none]",
)
@results.class_options
@results.model_options
@report.html_option
def command(
    settings: Settings,
    *,
    folders: tuple[str, ...],
    reference: str,
    corruptions: tuple[str, ...] | None,
    words: results.Words,
    model: str,
    keeping: results.Keeping,
    html: str | None,
) -> None:
    """Measure what another style or a worse picture costs.

    Each DIR holds a folder of photos for each class, in a style of its own; the others are held against the first. A
    DIR of such folders stands for all in it. Corruptions spoil the first one's photos, at five strengths each.

    \b
    Examples:
      search evaluate robustness ~/styles
      search evaluate robustness ~/photos ~/sketches --corruptions noise,blur
    """
    from search.cli.output import emit_json
    from search.documents import skip_document
    from search.evaluate.robustness import in_common

    if html is not None:
        report.check(html)
    first, *others = _datasets(settings, folders, reference)
    datasets = [words.named(first), *others]
    early, _ = in_common([dataset.present() for dataset in datasets])
    words.labels(early[0])  # raises before the work
    wanted = corruptions if corruptions is not None else () if len(datasets) > 1 else None
    with results.pictures(settings, model, keeping) as pictures:
        common, vectors, skipped, beside = _read(settings, pictures, datasets)
        labels = words.labels(common[0])
        weights, beyond = labels.embed(pictures.text(), pictures.remember())
        found = _measured(settings, pictures, common, vectors, weights, wanted)
        name = pictures.model
    results.tell_beyond(settings, beyond)
    if html is not None:
        report.write(html, f"Robustness on {common[0].name}", _sections(found, name))
    if settings.json:
        document = _document(found, common[0], name, list(labels.templates), beside)
        more = {"skipped": [skip_document(skip) for skip in skipped], "truncated_tokens": beyond}
        emit_json({**document, **more})
    else:
        _tell(found, common, name)


def _datasets(settings: Settings, sources: Sequence[str], reference: str) -> list[Dataset]:
    """The styles that are meant, the reference first."""
    import os

    from search.evaluate.datasets import Dataset
    from search.evaluate.robustness import folders_of_styles

    if len(sources) == 1 and os.path.isdir(sources[0]) and (styles := folders_of_styles(sources[0], reference)):
        settings.talk(f"styles: {', '.join(map(os.path.basename, styles))}; the first is the reference")
        sources = styles
    datasets = [Dataset.of(source) for source in sources]
    if reference and reference not in {dataset.name for dataset in datasets}:
        raise click.UsageError(f"no DIR is called {reference}")
    return sorted(datasets, key=lambda dataset: bool(reference) and dataset.name != reference)


def _read(
    settings: Settings, pictures: Pictures, datasets: Sequence[Dataset]
) -> tuple[list[Dataset], list[Vectors], list[Skip], dict[str, list[str]]]:
    """Return styles with the photos that can be read of classes that all have, vectors, and what was left out."""
    from search.evaluate.robustness import in_common

    seen = [results.seen(settings, pictures, dataset) for dataset in datasets]
    read = [dataset.take(one.rows).present() for dataset, one in zip(datasets, seen, strict=True)]
    for dataset in read:
        results.tell_empty(settings, dataset)
    common, beside = in_common(read)
    for style, left in beside.items():
        settings.talk(f"of {style} these classes are left out, not all have them: {', '.join(left)}")
    vectors = [
        one.vectors[[dataset.folders[target] in left.folders for target in dataset.targets]]
        for dataset, one, left in zip(read, seen, common, strict=True)
    ]
    return common, vectors, [skip for one in seen for skip in one.skipped], beside


def _measured(
    settings: Settings,
    pictures: Pictures,
    datasets: Sequence[Dataset],
    vectors: Sequence[Vectors],
    weights: Vectors,
    corruptions: Sequence[str] | None,
) -> Robustness:
    from search.cli.progress import progress_bar
    from search.evaluate.corruptions import CORRUPTIONS
    from search.evaluate.robustness import Robustness, compare_corrupted, compare_styles, corrupted_vectors

    reference, clean = datasets[0], vectors[0]
    names = tuple(CORRUPTIONS) if corruptions is None else corruptions
    with progress_bar(settings) as progress:
        spoiled = corrupted_vectors(pictures, reference.paths, names, progress=progress) if names else {}
    corrupted = compare_corrupted(reference, clean, spoiled, weights)
    return Robustness(compare_styles(list(zip(datasets, vectors, strict=True)), weights), corrupted)


def _document(
    found: Robustness, dataset: Dataset, model: str, templates: list[str], beside: dict[str, list[str]]
) -> dict[str, Any]:
    first = found.styles[0]
    figures: dict[str, float | None] = {
        "acc1": first.acc1.value,
        "mean_per_class_recall": first.mean_per_class_recall,
    }
    if found.corrupted:
        figures["mean_corruption_acc1"] = found.mean_corrupted
    return results.document(
        dataset.name,
        model,
        "zeroshot_robustness",
        figures,
        results=[_condition(one) for one in found.styles],
        corruptions=[_condition(one) for one in found.corrupted],
        classnames=list(dataset.classnames),
        folders=list(dataset.folders),
        templates=templates,
        left_out=beside,
    )


def _condition(one: Condition) -> dict[str, Any]:
    kind = {"corruption": one.corruption, "strength": one.strength} if one.corruption else {"dataset": one.name}
    return {
        **kind,
        "photos": one.photos,
        "metrics": {"acc1": one.acc1.value, "mean_per_class_recall": one.mean_per_class_recall},
        "intervals": results.bounds({"acc1": one.acc1}),
        "drop": one.drop.value,
        "drop_interval": [one.drop.low, one.drop.high],
    }


def _tell(found: Robustness, datasets: Sequence[Dataset], model: str) -> None:
    click.echo(f"{model} on {len(datasets[0].folders)} classes: {', '.join(datasets[0].folders)}")
    results.table(_style_rows(found), header=_STYLE_HEADER, right=(1, 2, 3, 4))
    if found.corrupted:
        click.echo()
        header, rows = _corruption_rows(found)
        results.table(rows, header=header, right=range(1, len(header)))
        click.echo(f"mean over corruptions and strengths: {found.mean_corrupted:.1%}")


def _style_rows(found: Robustness) -> list[tuple[str, ...]]:
    return [
        (
            one.name,
            str(one.photos),
            results.percent(one.acc1),
            f"{one.mean_per_class_recall:.1%}",
            _drop(one) if number else "",
        )
        for number, one in enumerate(found.styles)
    ]


def _drop(one: Condition) -> str:
    return results.percent(one.drop)


def _corruption_rows(found: Robustness) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """A line for each corruption and strength: what is left, and what it costs the same photos."""
    rows: list[tuple[str, ...]] = [
        (
            one.corruption,
            str(one.strength),
            results.percent(one.acc1),
            f"{one.mean_per_class_recall:.1%}",
            _drop(one),
        )
        for one in found.corrupted
    ]
    return _CORRUPTION_HEADER, rows


def _sections(found: Robustness, model: str) -> list[report.Section]:
    from search.cli.report import plots

    about = f"Zero-shot by {model}. Intervals are of 95 %; a drop is against {found.styles[0].name}."
    styles: tuple[report.Part, ...] = (about, report.Table(_STYLE_HEADER, _style_rows(found)))
    if len(found.styles) > 1:
        styles += (plots.robustness_bars([(one.name, one.acc1) for one in found.styles]),)
    sections = [report.Section("Styles", styles)]
    if found.corrupted:
        header, rows = _corruption_rows(found)
        series = {name: [one.acc1 for one in row] for name, row in found.by_corruption().items()}
        curves = plots.strength_curves(series, clean=found.styles[0].acc1)
        sections.append(report.Section("Corruptions", (curves, report.Table(header, rows))))
    return sections
