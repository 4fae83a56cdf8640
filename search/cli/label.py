"""search label"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from search.cli.options import Number, Settings, as_command, completed_by, model_option, trust_option
from search.plurals import count_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from search.labels import LabelOptions
    from search.types import LabelledPhoto, Labelling

_SHOWN = 3  # labels a photo on a terminal


class _Threshold(click.ParamType[tuple[str, float]]):
    """A probability, for all labels or for the one that is named before it."""

    name = "threshold"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, float]:
        """Return the label, "" for all, and its least probability."""
        label, _, least = value.rpartition("=")
        return label.strip(), Number(0, 1).convert(least, param, ctx)


@as_command("label")
@click.argument("paths", shell_complete=completed_by("files"), nargs=-1, metavar="[PATH|ID]...")
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
@click.option(
    "--labels-from-folders", is_flag=True, help="Labels: the names of PATH's folders; tell how many agree."
)
@click.option("--multi", is_flag=True, help="Decide each label by itself.")
@click.option(
    "--threshold",
    "thresholds",
    type=_Threshold(),
    multiple=True,
    metavar="[NAME=]P",
    help="Least probability, of one label or of all; may be given often. [--multi: 0.2]",
)
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
    labels_from_folders: bool,
    multi: bool,
    thresholds: tuple[tuple[str, float], ...],
    none_of_these: bool,
    k: int | None,
    no_learned: bool,
    apply: bool,
    model: str,
    trust_checkpoint: str | None,
) -> None:
    """Label photos with words of your choice.

    PATH may be photos outside any library; without PATH the whole library is labelled. --apply tells how many photos
    got each label; --verbose lists the photos, too.

    \b
    Examples:
      search label cat.jpg --label "a diagram" --label "a dog" --label "a cat" --template "{}"
      search label --labels everyday --apply
      search label --labels photo-tags --multi --threshold animal/dog=0.5 -k 5
    """
    from search.cli.output import emit_json
    from search.cli.progress import progress_bar
    from search.cli.similar import photo_ref
    from search.documents import labelling_document
    from search.labels import DEFAULT_MULTI_THRESHOLD, Label, LabelOptions, label_set

    folders = _folders(paths) if labels_from_folders else {}
    if not (names or source or folders or template_source):
        raise click.UsageError("give labels: --label NAME, --labels FILE or --labels-from-folders")
    least = dict(thresholds)
    options = LabelOptions(
        multi=multi,
        threshold=least.pop("", None),
        otherwise=DEFAULT_MULTI_THRESHOLD if multi else 0.0,
        none_of_these=none_of_these,
        learned=not no_learned,
        k=k or (None if settings.json or apply else _SHOWN),  # what is not shown need not be made
    )
    given: list[str | Label] = [*names, *(Label(folder, (folder.replace("_", " "),)) for folder in folders)]
    chosen = label_set(source, template_source, names=given, more_templates=templates, thresholds=least)
    refs = [photo_ref(path) for path in paths] or None
    with settings.open_library(model, trust_checkpoint) as library, progress_bar(settings) as progress:
        labelling = library.label(chosen, paths=refs, options=options, apply=apply, progress=progress)
    _talk(settings, labelling, apply=apply)
    classes = _agreement(labelling.photos, folders)
    if settings.json:
        emit_json(labelling_document(labelling) | ({"classes": classes} if folders else {}))
    else:
        totals = _counts(labelling.photos, options) if apply and not settings.verbose else None
        _tell(labelling, classes, totals=totals)


def _folders(paths: tuple[str, ...]) -> dict[str, str]:
    """Return the folders in a folder by name, hidden ones left out, in order."""
    import os

    from search.photos.keywords import legible

    if len(paths) != 1 or not os.path.isdir(paths[0]):
        raise click.UsageError("--labels-from-folders takes one PATH, a folder of class folders")
    inside = sorted(entry.name for entry in os.scandir(paths[0]) if entry.is_dir() and entry.name[0] != ".")
    if not inside:
        raise click.UsageError(f"{paths[0]} holds no folders")
    return {legible(name): os.path.join(os.path.realpath(paths[0]), name, "") for name in inside}


def _agreement(photos: Sequence[LabelledPhoto], folders: Mapping[str, str]) -> list[dict[str, Any]]:
    """Count how many photos of each class folder have its name as their best label."""
    rows = []
    for name, place in folders.items():
        best = [photo.labels[0].label if photo.labels else "" for photo in photos if photo.path.startswith(place)]
        rows.append({"label": name, "photos": len(best), "agree": best.count(name)})
    return rows


def _talk(settings: Settings, labelling: Labelling, *, apply: bool) -> None:
    for skip in labelling.skipped:
        settings.talk(f"skipped {skip.path}: {skip.reason}: {skip.detail}")
    if labelling.truncated_tokens:
        settings.talk(
            f"warning: {labelling.truncated_tokens} tokens of the prompts are beyond what the model reads"
        )
    if apply:
        beside = sum(photo.id is None for photo in labelling.photos)
        without = len(labelling.photos) - beside - labelling.applied
        left = f"; {count_of(without, 'has', 'have')} none" if without else ""
        strangers = f"; {count_of(beside, 'is', 'are')} in no library" if beside else ""
        settings.talk(
            f"run {labelling.run}: labels written for {count_of(labelling.applied, 'photo')}{left}{strangers}; "
            f"search tags undo {labelling.run} takes them back"
        )


def _counts(photos: Sequence[LabelledPhoto], options: LabelOptions) -> list[tuple[str, str]]:
    """Return on how many photos of the library each label was written, the most frequent first."""
    from collections import Counter

    labels = (one.label for photo in photos if photo.id is not None for one in options.to_apply(photo.labels))
    return [
        (label, str(count)) for label, count in sorted(Counter(labels).items(), key=lambda one: (-one[1], one[0]))
    ]


def _tell(
    labelling: Labelling, classes: list[dict[str, Any]], *, totals: Sequence[tuple[str, str]] | None
) -> None:
    """Print how the folders agree, how often each label was written, or the labels of each photo."""
    from search.cli.output import emit_table, short

    if classes:
        rows = [(x["label"], str(x["photos"]), str(x["agree"]), _share(x["agree"], x["photos"])) for x in classes]
        photos, agree = (sum(x[key] for x in classes) for key in ("photos", "agree"))
        rows.append(("all", str(photos), str(agree), _share(agree, photos)))
        emit_table(rows, right=(1, 2, 3), header=("class", "photos", "agree", ""))
    elif totals is not None:
        emit_table(totals, right=(1,), header=("label", "photos"))
    elif labelling.photos:
        emit_table([(short(photo.path), _said(photo)) for photo in labelling.photos], header=("photo", "labels"))


def _share(agree: int, photos: int) -> str:
    return f"{agree / photos:.0%}" if photos else "-"


def _said(photo: LabelledPhoto) -> str:
    return " · ".join(f"{x.label} {x.probability:.2f}" for x in photo.labels[:_SHOWN]) or "-"
