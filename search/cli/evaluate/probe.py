"""search evaluate probe"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from search.cli import report
from search.cli.evaluate import results
from search.cli.options import Number, Settings, as_command
from search.plurals import count_of

if TYPE_CHECKING:
    from search.evaluate.probe import ProbeEvaluation, ProbeResult

_HEADER = ("examples a class", "photos", "accuracy", "mean over classes", "against zero-shot")


def _shots(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int | None, ...]:
    parts = [part.strip() for part in value.split(",")]
    if any(part != "all" and not (part.isdecimal() and int(part) > 0) for part in parts):
        raise click.BadParameter("is a list such as 1,4,16,all", context, parameter)
    return tuple(None if part == "all" else int(part) for part in parts)


@as_command("probe")
@click.argument("source", metavar="DIR|CSV", type=click.Path(exists=True))
@click.option(
    "--shots",
    default="1,2,4,8,16,all",
    show_default=True,
    metavar="N,N,…",
    callback=_shots,
    help="Examples of each class.",
)
@click.option("--seeds", type=click.IntRange(1, 100), default=3, show_default=True, help="Draws of examples.")
@click.option("--test", type=click.Path(exists=True), metavar="DIR", help="Photos to test with.")
@click.option(
    "--test-share",
    type=Number(0.05, 0.95),
    default=0.4,
    show_default=True,
    metavar="P",
    help="Of each class, without --test.",
)
@results.class_options
@results.model_options
@report.html_option
def command(
    settings: Settings,
    *,
    source: str,
    shots: tuple[int | None, ...],
    seeds: int,
    test: str | None,
    test_share: float,
    words: results.Words,
    model: str,
    keeping: results.Keeping,
    html: str | None,
) -> None:
    """See how many labelled photos a class are worth what the words are worth.

    Classifiers are trained on the vectors of 1, 2, 4, … photos of each class, and tested beside zero-shot on others.

    \b
    Example:
      search evaluate probe ~/flowers --html curve.html
    """
    from search.cli.evaluate.opening import opened
    from search.cli.output import emit_json
    from search.documents import skip_document
    from search.evaluate.probe import Examples, ProbeOptions, evaluate_probe, require

    require()
    if html is not None:
        report.check(html)
    with opened(settings, source, model, keeping, named=words.named) as photos:
        dataset = photos.dataset
        other = photos.also(settings, test) if test else None
        contents = photos.pictures.content_hashes(dataset.paths)
        strange = (
            Examples(other[1], other[0].targets, photos.pictures.content_hashes(other[0].paths)) if other else None
        )
        labels = words.labels(dataset)
        weights, beyond = labels.embed(photos.pictures.text(), photos.pictures.remember())
        name = photos.pictures.model
    results.tell_beyond(settings, beyond)
    found = evaluate_probe(
        Examples(photos.vectors, dataset.targets, contents),
        weights,
        test=strange,
        names=dataset.folders,
        options=ProbeOptions(shots, seeds, test_share),
        progress=(lambda what: settings.talk(f"training on {what}")) if settings.verbose else None,
    )
    _tell_left_out(settings, found, shots)
    if found.left_out:
        settings.talk(
            f"{count_of(found.left_out, 'photo to test with is', 'photos to test with are')} among those to train "
            "with; left out"
        )
    if html is not None:
        report.write(html, f"Few-shot on {dataset.name}", _sections(found, dataset.name, name))
    if settings.json:
        skipped = [skip_document(skip) for skip in photos.skipped]
        more = {"classnames": list(dataset.classnames), "templates": list(labels.templates), "skipped": skipped}
        emit_json({**_document(found, dataset.name, name), **more})
        return
    click.echo(_about(found, dataset.name, name))
    results.table(_rows(found), header=_HEADER, right=range(1, 5))
    for line in _verdicts(found):
        click.echo(line)


def _tell_left_out(settings: Settings, found: ProbeEvaluation, shots: tuple[int | None, ...]) -> None:
    done = {result.shots for result in found.results}
    if left_out := sorted(number for number in shots if number is not None and number not in done):
        settings.talk(f"left out: {', '.join(map(str, left_out))}; a class has fewer photos to train with")


def _about(found: ProbeEvaluation, dataset: str, model: str) -> str:
    return (
        f"{model} on {dataset}: {found.train} photos to train with, {found.validation} to choose the regularisation "
        f"by, {found.test} to test with"
    )


def _rows(found: ProbeEvaluation) -> list[tuple[str, ...]]:
    return [
        ("zero-shot", "0", results.percent(found.zero_shot), f"{found.zero_shot_recall:.1%}", ""),
        *(
            (
                _called(result),
                str(result.examples),
                results.percent(result.accuracy),
                f"{result.mean_per_class_recall:.1%}",
                f"{100 * result.against.value:+.1f} points "
                f"({100 * result.against.low:+.1f} to {100 * result.against.high:+.1f})",
            )
            for result in found.results
        ),
    ]


def _called(result: ProbeResult) -> str:
    return "all" if result.shots is None else str(result.shots)


def _verdicts(found: ProbeEvaluation) -> Iterator[str]:
    """Say where few-shot matches zero-shot, and where it is surely better."""
    matching, sure = found.matching, found.overtaking
    if matching is None:
        yield "No probe does as well as zero-shot."
    else:
        yield f"{_examples(matching)} match zero-shot on average."
    if sure is not None:
        yield f"{_examples(sure)} are surely better."
    elif matching is not None:
        yield f"None is surely better: {found.test} photos to test with are too few to tell."


def _examples(result: ProbeResult) -> str:
    if result.shots is None:
        return f"All {result.examples} examples"
    return f"{count_of(result.shots, 'example')} a class"


def _document(found: ProbeEvaluation, dataset: str, model: str) -> dict[str, Any]:
    """Return a document a training in CLIP_benchmark's shape, and the curve; fewshot_k is -1 for all examples."""
    trainings = [
        results.document(
            dataset,
            model,
            "linear_probe",
            {
                "lp_acc1": one.acc1,
                "lp_acc5": one.acc5,
                "lp_mean_per_class_recall": one.mean_per_class_recall,
                "fewshot_k": -1 if result.shots is None else result.shots,
                "seed": one.seed,
                "C": one.c,
            },
            examples=result.examples,
        )
        for result in found.results
        for one in result.trainings
    ]
    last = found.results[-1]
    return results.document(
        dataset,
        model,
        "linear_probe",
        {
            "lp_acc1": last.accuracy.value,
            "lp_acc5": last.acc5,
            "lp_mean_per_class_recall": last.mean_per_class_recall,
            "fewshot_k": -1 if last.shots is None else last.shots,
            "acc1": found.zero_shot.value,
            "acc5": found.zero_shot_acc5,
            "mean_per_class_recall": found.zero_shot_recall,
        },
        intervals=results.bounds({"lp_acc1": last.accuracy, "acc1": found.zero_shot}),
        photos={
            "train": found.train,
            "validation": found.validation,
            "test": found.test,
            "left_out": found.left_out,
        },
        curve=[_point(result) for result in found.results],
        matching=_k(found.matching),
        overtaking=_k(found.overtaking),
        results=trainings,
    )


def _k(result: ProbeResult | None) -> int | None:
    return None if result is None else -1 if result.shots is None else result.shots


def _point(result: ProbeResult) -> dict[str, Any]:
    return {
        "fewshot_k": _k(result),
        "examples": result.examples,
        "lp_acc1": result.accuracy.value,
        "interval": [result.accuracy.low, result.accuracy.high],
        "against_zero_shot": result.against.value,
        "against_interval": [result.against.low, result.against.high],
    }


def _sections(found: ProbeEvaluation, dataset: str, model: str) -> list[report.Section]:
    from search.cli.report import plots

    few = [(result.shots, result.accuracy) for result in found.results if result.shots is not None]
    last = found.results[-1]
    every = (round(last.examples / found.classes), last.accuracy) if last.shots is None else None
    table = report.Table(_HEADER, _rows(found), marked=frozenset((0,)))
    about = (
        f"{_about(found, dataset, model)}. Intervals are of 95 %, over draws of examples and photos tested with."
    )
    curve = plots.few_shot_curve(few, zero_shot=found.zero_shot, every=every)
    return [report.Section("Labelled examples against words", (about, curve, *_verdicts(found), table))]
