"""What all evaluations of photos share: options, where vectors are kept, and CLIP_benchmark's result document."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from search.cli.options import F, Settings, completed_by, gathered, not_empty

if TYPE_CHECKING:
    from search.evaluate.datasets import Captions, Dataset
    from search.evaluate.pictures import Pictures, Seen
    from search.evaluate.statistics import Interval
    from search.labels import LabelSet
    from search.types import Skip

_TOLD = 5  # skipped photos that are told one by one

_MODEL_NAMES: Mapping[str, Any] = {
    "metavar": "NAME",
    "shell_complete": completed_by("models"),
    "help": "The model; see `search models list`. [default: your library's, else the recommended]",
}
_CACHE = (
    click.option(
        "--cache",
        metavar="DIR",
        callback=not_empty,
        shell_complete=completed_by("folders"),
        help="Where vectors are kept for the next time. [default: your cache folder]",
    ),
    click.option("--no-cache", is_flag=True, help="Keep nothing."),
)
_MODEL = click.option("--model", default="auto", **_MODEL_NAMES)
_MODELS = click.option("--model", "models", multiple=True, default=("auto",), **_MODEL_NAMES)
_CLASSES = (
    click.option(
        "--labels",
        "names",
        metavar="FILE",
        callback=not_empty,
        help="What prompts call the classes: FOLDER, a tab, words; or one a line in order.",
    ),
    click.option("--template", "templates", multiple=True, metavar="TEXT", help="A prompt, {} for the class."),
    click.option(
        "--templates",
        "template_source",
        shell_complete=completed_by("template_sets"),
        metavar="FILE|SET",
        help="Prompts one a line, JSON, or a built-in set.",
    ),
)


def model_options(function: F) -> F:
    """Add `model` and `keeping`: the parameters of `pictures`."""
    return _MODEL(cache_options(function))


def models_options(function: F) -> F:
    """Add the same, but `models`: one or several."""
    return _MODELS(cache_options(function))


def cache_options(function: F) -> F:
    """Add `keeping`."""
    return gathered(function, "keeping", Keeping, _CACHE)


def class_options(function: F) -> F:
    """Add `words`."""
    return gathered(function, "words", Words, _CLASSES)


@dataclass(frozen=True, slots=True)
class Keeping:
    """Where vectors are kept for the next time: in a folder, None for the user's cache, or nowhere."""

    cache: str | None
    no_cache: bool

    @property
    def place(self) -> Path | None:
        """The folder, None for nowhere.   Raises click.UsageError where both are asked for."""
        from search.evaluate.pictures import default_place

        if self.cache and self.no_cache:
            raise click.UsageError("--cache and --no-cache can't both be meant")
        if self.no_cache:
            return None
        return Path(self.cache).expanduser().absolute() if self.cache else default_place()


@dataclass(frozen=True, slots=True)
class Words:
    """How classes are worded: a file of their names, and prompts.   Raises UsageError where that can't be meant."""

    names: str | None
    templates: tuple[str, ...]
    template_source: str | None

    def named(self, dataset: Dataset) -> Dataset:
        """Return a data set whose classes are called as is asked for."""
        return named(dataset, self.names)

    def labels(self, dataset: Dataset) -> LabelSet:
        """Return the classes of a data set with the prompts that are asked for."""
        from search.evaluate.zero_shot import label_set
        from search.labels import load_templates

        found = load_templates(self.template_source) if self.template_source else []
        if isinstance(found, dict):
            if self.templates:
                raise click.UsageError(
                    f"{self.template_source} has whole sentences; --template has no place beside them"
                )
            return label_set(dataset, prompts=found)
        return label_set(dataset, [*self.templates, *found])


@contextmanager
def pictures(settings: Settings, model: str, keeping: Keeping) -> Iterator[Pictures]:
    """Open the model that is meant, with the vectors that are kept of it."""
    from search.evaluate.pictures import Pictures

    place = keeping.place
    name = _own_model(settings) if model == "auto" else model
    with Pictures(name, place=place, offline=settings.offline, notify=settings.talk) as found:
        yield found


def _own_model(settings: Settings) -> str:
    """The model of the user's library, "auto" without one."""
    from search.errors import LibraryError

    with suppress(LibraryError), settings.open_library() as library:
        row = library.catalog.encoder() if library.catalog.exists() else None
        return row.name if row else "auto"
    return "auto"


def seen(settings: Settings, pictures: Pictures, photos: Dataset | Captions) -> Seen:
    """Return the vectors of a data set's photos, and tell which can't be read.   Raises UsageError where none can."""
    from search.cli.progress import progress_bar
    from search.errors import UsageError

    with progress_bar(settings) as progress:
        found = pictures.image_vectors(photos.paths, root=photos.root, progress=progress)
    tell_skipped(settings, found.skipped)
    if not len(found.rows):
        raise UsageError(f"no photo of {photos.name} can be read")
    return found


def named(dataset: Dataset, file: str | None) -> Dataset:
    """Return a data set whose classes are called what a file says, as `read_names` reads it.   Raises UsageError."""
    from search.evaluate.naming import called, read_names

    return dataset.named([called(label) for label in read_names(file, dataset)]) if file else dataset


def document(
    dataset: str, model: str, task: str, metrics: Mapping[str, float | None], **more: object
) -> dict[str, Any]:
    """Return a result in CLIP_benchmark's shape, and what more there is; what is no number becomes null."""
    architecture, _, tag = model.partition("/") if ":" not in model else (model, "", "")
    figures = {name: None if value is None or math.isnan(value) else value for name, value in metrics.items()}
    head = {"dataset": dataset, "model": architecture, "pretrained": tag, "task": task, "metrics": figures}
    return {**head, "language": "en", **more}


def bounds(figures: Mapping[str, Interval]) -> dict[str, list[float]]:
    """Return the intervals of figures for JSON: [low, high] of 95 %."""
    return {name: [found.low, found.high] for name, found in figures.items()}


def percent(found: Interval) -> str:
    """Return a share with its interval in words."""
    return f"{found.value:.1%} ({found.low:.1%} to {found.high:.1%})"


def tell_skipped(settings: Settings, skipped: Sequence[Skip]) -> None:
    """Tell which photos were left out of the figures, some by name."""
    for skip in skipped[:_TOLD]:
        settings.talk(f"skipped {skip.path}: {skip.reason}: {skip.detail}")
    if len(skipped) > _TOLD:
        settings.talk(f"and {len(skipped) - _TOLD} more were skipped")


def tell_empty(settings: Settings, dataset: Dataset) -> None:
    """Tell which classes were left out because no photo is of them."""
    if dataset.empty:
        settings.talk(f"no photo that can be read is of {', '.join(dataset.empty)}; left out")


def tell_beyond(settings: Settings, beyond: int, what: str = "the prompts") -> None:
    """Tell that texts were cut."""
    if beyond:
        settings.talk(f"warning: {beyond} tokens of {what} are beyond what the model reads")


def table(
    rows: Sequence[Sequence[str]],
    *,
    header: Sequence[str],
    right: Iterable[int] = (),
    giving: int | None = None,
) -> None:
    """Print a table with its header, into a pipe too: these tables are read by people."""
    from search.cli.output import emit_table

    emit_table([header, *rows], right=right, giving=giving)
