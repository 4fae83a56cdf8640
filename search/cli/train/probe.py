"""search train probe"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from search.cli.evaluate import results
from search.cli.options import Number, Settings, as_command, not_empty
from search.plurals import count_of

if TYPE_CHECKING:
    from search.heads import Probe
    from search.library import Library


@as_command("probe")
@click.argument("source", required=False, metavar="DIR|CSV", type=click.Path(exists=True))
@click.option("--from", "made", metavar="DIR", type=click.Path(exists=True), help="Take a probe that --out wrote.")
@click.option("--out", metavar="DIR", callback=not_empty, help="Write it into a folder, too, for other libraries.")
@click.option(
    "--test-share",
    type=Number(0.05, 0.95),
    default=0.25,
    show_default=True,
    metavar="P",
    help="Of each class, to measure on.",
)
@results.class_options
@results.cache_options
def command(
    settings: Settings,
    *,
    source: str | None,
    made: str | None,
    out: str | None,
    test_share: float,
    words: results.Words,
    keeping: results.Keeping,
) -> None:
    """Teach the library labels from photos in class folders, or from a CSV of path and label.

    A linear classifier a label on the vectors of the library's model; `search label` and `tags review` use it from
    then on, `search tags undo RUN` takes it back. Told is what it is worth on photos that did not train it, beside
    zero-shot. With --out alone what your verdicts taught is written, for other libraries of the same model.

    \b
    Examples:
      search train probe ~/flowers --out ~/probes/flowers
      search train probe --from ~/probes/flowers
    """
    from search.cli.output import emit_json

    if source and made:
        raise click.UsageError("give photos of known classes, or --from a probe")
    if made and out:
        raise click.UsageError("--out has no place beside --from: there it is already")
    if not (source or made or out):
        raise click.UsageError("give photos of known classes; verdicts teach the library by themselves")
    if source is None:
        _refuse_given("test_share", "names", "templates", "template_source", "cache", "no_cache")
    with settings.open_library() as library:
        if source is not None:
            probe, more = _trained(settings, library, source, test_share=test_share, words=words, keeping=keeping)
        elif made is not None:
            from search.train.probe import load_probe

            probe, more = load_probe(Path(made).expanduser()), {"skipped": []}
        else:
            probe, more = library.tags.taught(), {"skipped": []}
        file = _saved(probe, out)
        run = library.tags.teach(probe) if source or made else None
    own = {"run": run, "labels": list(probe.labels)}  # whatever the details of another's file are called
    document = {**own, **probe.details, **more, **own, "file": file}
    if settings.json:
        emit_json(document)
    else:
        _tell(settings, document)


def _refuse_given(*names: str) -> None:
    """Raise UsageError for options that say how photos are to be looked at, where there are none."""
    context = click.get_current_context()
    for option in context.command.params:
        if option.name in names and context.get_parameter_source(option.name) == ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{option.opts[0]} has no place without photos of known classes")


def _saved(probe: Probe, out: str | None) -> str | None:
    from search.train.probe import save_probe

    return str(save_probe(probe, Path(out).expanduser()).absolute()) if out else None


def _trained(
    settings: Settings,
    library: Library,
    source: str,
    *,
    test_share: float,
    words: results.Words,
    keeping: results.Keeping,
) -> tuple[Probe, dict[str, Any]]:
    from search.cli.evaluate.opening import check_classes, single
    from search.cli.progress import progress_bar
    from search.documents import skip_document
    from search.evaluate.probe import Examples
    from search.labels import Classifier, LabelOptions
    from search.train.probe import gather, others, train_probe

    whole = words.named(single(source))
    check_classes(whole, source)
    row = library.model.answering()
    with (
        results.pictures(settings, row.name, keeping) as pictures,
        progress_bar(settings) as progress,
    ):
        photos = gather(library, whole.paths, pictures, root=whole.root, progress=progress)
    results.tell_skipped(settings, photos.skipped)
    dataset = whole.take(photos.rows).present()
    results.tell_empty(settings, dataset)
    check_classes(dataset, source)
    labels = words.labels(dataset)
    encoder, remember = library.model.texts(row)
    classifier = Classifier.build(
        labels, encoder, LabelOptions(multi=True), bank=lambda: library.model.bank(row), remember=remember
    )
    results.tell_beyond(settings, classifier.truncated_tokens)
    examples = Examples(photos.vectors, dataset.targets, photos.contents)
    rest = others(library, photos, whole.paths, labels.names)
    probe = train_probe(examples, classifier, others=rest, test_share=test_share, fingerprint=row.fingerprint)
    details = {"from": dataset.name, "model": row.name, "templates": list(labels.templates), **probe.details}
    return replace(probe, details=details), {
        "photos": len(dataset.paths),
        "known": photos.known,
        "others": len(rest),
        "skipped": [skip_document(skip) for skip in photos.skipped],
    }


def _tell(settings: Settings, document: dict[str, Any]) -> None:
    from search.cli.output import printable

    worth = document.get("worth")
    if worth:
        right, zero, gain = worth["accuracy"], worth["zero_shot"], worth["against"]["difference"]
        told = f"{count_of(worth['test'], 'photo')} that did not train it: {_percent(right)} right"
        click.echo(f"{told}, zero-shot {_percent(zero)}")
        points = ", ".join(f"{100 * gain[name]:+.1f}" for name in ("low", "high"))
        click.echo(f"difference {100 * gain['value']:+.1f} points, between {points}; C = {worth['c']:.3g}")
    run = f"run {document['run']}: " if document["run"] else ""
    click.echo(printable(f"{run}{count_of(len(document['labels']), 'label')} taught"))
    if document["file"]:
        click.echo(printable(document["file"]))


def _percent(interval: dict[str, float]) -> str:
    return f"{interval['value']:.1%} ({interval['low']:.1%} to {interval['high']:.1%})"
