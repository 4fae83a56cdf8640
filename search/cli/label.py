"""search label"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from search.cli.options import Number, Settings, as_command, completed_by, model_option, trust_option

if TYPE_CHECKING:
    from search.labels import LabelSet
    from search.types import Labelling

_SHOWN = 3  # labels a photo on a terminal


@as_command("label")
@click.argument("paths", shell_complete=completed_by("files"), nargs=-1, metavar="[PATH]...")
@click.option("--label", "names", multiple=True, metavar="NAME", help="A label; may be given often.")
@click.option(
    "--labels",
    "source",
    shell_complete=completed_by("label_sets"),
    metavar="FILE|SET",
    help="Labels: one a line, CLIP_benchmark's JSON, or a built-in set.",
)
@click.option(
    "--template",
    "templates",
    multiple=True,
    metavar="TEXT",
    help="A prompt, {} for the label.",
)
@click.option(
    "--templates",
    "template_source",
    shell_complete=completed_by("template_sets"),
    metavar="FILE|SET",
    help="Prompts one a line, JSON, or a built-in set.",
)
@click.option("--multi", is_flag=True, help="Decide each label by itself.")
@click.option("--threshold", type=Number(0, 1), metavar="P", help="Least probability. [--multi: 0.5]")
@click.option("--none-of-these", is_flag=True, help="Allow that no label fits.")
@click.option("-k", "k", type=click.IntRange(1), help="Labels a photo, at most. [default: all; --apply: 1]")
@click.option("--no-learned", is_flag=True, help="By texts alone, whatever your verdicts taught.")
@click.option("--apply", is_flag=True, help="Write the labels into the library.")
@model_option
@trust_option
def command(
    settings: Settings,
    *,
    paths: tuple[str, ...],
    names: tuple[str, ...],
    source: str | None,
    templates: tuple[str, ...],
    template_source: str | None,
    multi: bool,
    threshold: float | None,
    none_of_these: bool,
    k: int | None,
    no_learned: bool,
    apply: bool,
    model: str,
    trust_checkpoint: str | None,
) -> None:
    """Label photos with words of your choice.

    PATH may be photos outside any library; without PATH the whole library is labelled.

    \b
    Examples:
      search label cat.jpg --label "a diagram" --label "a dog" --label "a cat" --template "{}"
      search label --labels everyday --apply
    """
    from search.cli.output import emit_json, labelling_document
    from search.cli.progress import progress_bar
    from search.labels import LabelOptions

    if not names and not source:
        raise click.UsageError("give labels: --label NAME or --labels FILE")
    options = LabelOptions(
        multi=multi,
        threshold=threshold if threshold is not None else 0.5 if multi else 0.0,
        none_of_these=none_of_these,
        learned=not no_learned,
        k=k or (None if settings.json or apply else _SHOWN),  # what is not shown need not be made
    )
    label_set = _label_set(names, source, templates, template_source)
    with settings.open_library(model, trust_checkpoint) as library, progress_bar(settings) as progress:
        labelling = library.label(label_set, paths=paths or None, options=options, apply=apply, progress=progress)
    for skip in labelling.skipped:
        settings.talk(f"skipped {skip.path}: {skip.reason}: {skip.detail}")
    if labelling.truncated_tokens:
        settings.talk(
            f"warning: {labelling.truncated_tokens} tokens of the prompts are beyond what the model reads"
        )
    if apply:
        beside = len(labelling.photos) - labelling.applied
        strangers = f"; {beside} are in no library" if beside else ""
        settings.talk(
            f"run {labelling.run}: labels written for {labelling.applied} photos{strangers}; "
            f"search tags undo {labelling.run} takes them back"
        )
    if settings.json:
        emit_json(labelling_document(labelling))
    else:
        _tell(labelling)


def _label_set(
    names: tuple[str, ...], source: str | None, templates: tuple[str, ...], template_source: str | None
) -> LabelSet:
    from search.labels import LabelSet, load_labels, load_templates

    lines = [*names, *(load_labels(source) if source else ())]
    prompts = load_templates(template_source) if template_source else []
    if isinstance(prompts, dict):
        return LabelSet.described(lines, prompts)
    return LabelSet.of(lines, [*templates, *prompts])


def _tell(labelling: Labelling) -> None:
    from search.cli.output import emit_table, short

    rows = [
        (short(photo.path), " · ".join(f"{x.label} {x.probability:.2f}" for x in photo.labels[:_SHOWN]) or "-")
        for photo in labelling.photos
    ]
    if rows:
        emit_table(rows)
