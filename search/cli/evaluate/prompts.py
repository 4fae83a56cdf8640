"""search evaluate prompts"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from search.cli import destination, report
from search.cli.evaluate import results
from search.cli.options import Settings, as_command, completed_by, not_empty

if TYPE_CHECKING:
    from search.evaluate.datasets import Dataset
    from search.evaluate.prompts import Change, Wording

_DEFAULT = ("{}", "a photo of a {}.")
_FOLDERS = "folder names"


@as_command("prompts")
@click.argument("source", metavar="DIR|CSV", type=click.Path(exists=True))
@click.option(
    "--template", "texts", multiple=True, callback=not_empty, metavar="TEXT", help="A wording, {} for the class."
)
@click.option(
    "--templates",
    "sets",
    multiple=True,
    callback=not_empty,
    shell_complete=completed_by("template_sets"),
    metavar="FILE|SET",
    help="A wording of several prompts, one a line.",
)
@click.option(
    "--captions",
    multiple=True,
    callback=not_empty,
    metavar="FILE",
    help="A wording of whole sentences: one a class in alphabetical order, or FOLDER, a tab, a sentence.",
)
@click.option(
    "--labels",
    multiple=True,
    callback=not_empty,
    metavar="FILE",
    help="Other names for the classes, in the same order or as FOLDER, a tab, words.",
)
@click.option(
    "--add",
    "added",
    multiple=True,
    callback=not_empty,
    metavar="NAME[=WORDS]",
    help="See what one more label does.",
)
@click.option(
    "--drop", "dropped", multiple=True, callback=not_empty, metavar="CLASS", help="See what a class less does."
)
@click.option(
    "--split",
    "parts",
    multiple=True,
    callback=not_empty,
    metavar="CLASS=A,B",
    help="See what parts in its place do.",
)
@click.option("--save", metavar="FILE", callback=not_empty, help="Write the best wording as a label set (.json).")
@results.model_options
@report.html_option
def command(
    settings: Settings,
    *,
    source: str,
    texts: tuple[str, ...],
    sets: tuple[str, ...],
    captions: tuple[str, ...],
    labels: tuple[str, ...],
    added: tuple[str, ...],
    dropped: tuple[str, ...],
    parts: tuple[str, ...],
    save: str | None,
    model: str,
    keeping: results.Keeping,
    html: str | None,
) -> None:
    """Compare ways to word the same classes, on a folder of photos for each class.

    Each --template, --templates, --captions and --labels is a wording; without any, the bare name and the usual
    templates are compared. The vectors of the photos are kept, so that other words cost seconds.

    \b
    Examples:
      search evaluate prompts ~/flowers --template "{}" --template "a photo of a {}, a type of flower."
      search evaluate prompts ~/people --add child --html people.html
    """
    from search.cli.evaluate import laboratory
    from search.cli.evaluate.opening import opened
    from search.cli.output import emit_json
    from search.evaluate.prompts import evaluate_changes, evaluate_prompts

    if html is not None:
        report.check(html)
    if save is not None:
        _check_save(save)
    asked = _Asked(texts, sets, captions, labels, added, dropped, parts)
    with opened(settings, source, model, keeping, before=asked.check) as photos:
        encoder, remember = photos.pictures.text(), photos.pictures.remember()
        wordings = [wording.only(photos.dataset.folders) for wording in asked.wordings(photos.whole)]
        found = evaluate_prompts(photos.dataset, photos.vectors, wordings, encoder=encoder, remember=remember)
        best = found.best
        changes = asked.changes(best.wording)
        changed = list(
            evaluate_changes(photos.dataset, photos.vectors, best, changes, encoder=encoder, remember=remember)
        )
        name, skipped = photos.pictures.model, photos.skipped
    for result in found.results:
        results.tell_beyond(settings, result.truncated_tokens, result.wording.name)
    if html is not None:
        report.write(html, f"Wordings on {found.dataset.name}", laboratory.sections(found, changed, name))
    if save is not None:
        _save(save, best.wording)
        settings.talk(f"saved; use it: search label --labels {save}#labels --templates {save}#templates")
    if settings.json:
        emit_json(laboratory.document(found, changed, name, skipped))
    else:
        laboratory.tell(found, changed, name)


@dataclass(frozen=True, slots=True)
class _Asked:
    """The wordings and changes that options ask for."""

    texts: tuple[str, ...]
    sets: tuple[str, ...]
    captions: tuple[str, ...]
    labels: tuple[str, ...]
    added: tuple[str, ...]
    dropped: tuple[str, ...]
    parts: tuple[str, ...]

    def check(self, dataset: Dataset) -> None:
        """Raise UsageError for what does not fit the classes."""
        self.changes(self.wordings(dataset)[0])

    def wordings(self, dataset: Dataset) -> tuple[Wording, ...]:
        from search.evaluate.naming import read_captions, read_names, spoken_names
        from search.evaluate.prompts import wordings_of
        from search.labels import DEFAULT_TEMPLATES, load_templates

        texts, sets = self.texts, self.sets
        if not texts and not sets and not self.captions:
            texts, sets = (DEFAULT_TEMPLATES, ()) if self.labels else (_DEFAULT, _usual_sets())
        called = _called([*sets, *self.captions, *self.labels])
        names = {called[file]: read_names(file, dataset) for file in self.labels}
        return wordings_of(
            dataset,
            templates={
                **{text: (text,) for text in texts},
                **{called[name]: load_templates(name) for name in sets},
            },
            names={_FOLDERS: spoken_names(dataset), **names} if names else None,
            captions={called[file]: read_captions(file, dataset) for file in self.captions},
        )

    def changes(self, wording: Wording) -> list[Change]:
        from search.evaluate.prompts import adding, dropping, splitting

        splits = [_pair(given) for given in self.parts]
        if short := [folder for folder, words in splits if len(words) < 2]:
            raise click.UsageError(f"--split {short[0]} needs two parts or more: {short[0]}=A,B")
        return [
            *(adding(wording, *_pair(given)) for given in self.added),
            *(dropping(wording, folder) for folder in self.dropped),
            *(splitting(wording, *split) for split in splits),
        ]


def _usual_sets() -> tuple[str, ...]:
    from search.labels import built_in

    return tuple(name for name in ("imagenet7", "imagenet80") if name in built_in("templates"))


def _called(sources: Sequence[str]) -> dict[str, str]:
    """What wordings from files are called: the file's name without its ending, all of it where two are alike."""
    short = {source: source.partition("#")[2] or Path(source).stem for source in sources}
    names = list(short.values())
    return {source: name if names.count(name) == 1 else source for source, name in short.items()}


def _pair(given: str) -> tuple[str, list[str]]:
    name, _, words = given.partition("=")
    return name.strip(), [word.strip() for word in words.split(",") if word.strip()]


def _check_save(file: str) -> None:
    if Path(file).suffix != ".json":
        raise click.UsageError(f"{file} is no name for a label set; it goes to .json")
    destination.check(file, "labels")


def _save(file: str, wording: Wording) -> None:
    import json

    from search.evaluate.prompts import saved

    text = json.dumps(saved(wording.label_set), ensure_ascii=False, indent=1)
    destination.write(file, "labels", [text.encode("utf-8", "replace"), b"\n"])
