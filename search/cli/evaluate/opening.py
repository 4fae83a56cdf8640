"""What the laboratory and the probe begin with: photos whose classes are known, and their vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from search.cli.evaluate import results
from search.errors import UsageError

if TYPE_CHECKING:
    from search.cli.options import Settings
    from search.evaluate.datasets import Dataset
    from search.evaluate.pictures import Pictures
    from search.types import Skip, Vectors


@dataclass(frozen=True, slots=True)
class Opened:
    """dataset: the photos that could be read.   vectors: (N, D) of them.   pictures: their model, open."""

    dataset: Dataset
    vectors: Vectors
    pictures: Pictures
    skipped: tuple[Skip, ...]

    def also(self, settings: Settings, source: str) -> tuple[Dataset, Vectors]:
        """Return other photos of the same classes, read by the same model.   Raises UsageError."""
        dataset, vectors, _ = _seen(settings, source, self.pictures)
        if dataset.folders != self.dataset.folders:
            raise UsageError(
                f"{source} has other classes than {self.dataset.name}", hint="name the class folders alike"
            )
        return dataset, vectors


@contextmanager
def opened(
    settings: Settings,
    source: str,
    *,
    model: str,
    cache: str | None,
    no_cache: bool,
    before: Callable[[Dataset], object] | None = None,
) -> Iterator[Opened]:
    """Read a data set and the vectors of its photos; say what was left out.

    before: raises where the work would be for nothing, before it begins.
    Raises UsageError for fewer than two classes, photos of several classes at once, or none that can be read.
    """
    with results.pictures(settings, model, cache=cache, no_cache=no_cache) as pictures:
        dataset, vectors, skipped = _seen(settings, source, pictures, before)
        yield Opened(dataset, vectors, pictures, skipped)


def _seen(
    settings: Settings, source: str, pictures: Pictures, before: Callable[[Dataset], object] | None = None
) -> tuple[Dataset, Vectors, tuple[Skip, ...]]:
    from search.evaluate.datasets import Dataset

    whole = Dataset.of(source)
    results.tell_empty(settings, whole)
    if whole.truth is not None:
        raise UsageError(f"photos of {source} are of several classes at once", hint="give one label a photo")
    _check_classes(whole, source)
    if before:
        before(whole)
    seen = results.seen(settings, pictures, whole)
    left = whole.take(seen.rows)
    dataset = left.only([folder for place, folder in enumerate(left.folders) if (left.targets == place).any()])
    _check_classes(dataset, source)
    return dataset, seen.vectors, seen.skipped


def _check_classes(dataset: Dataset, source: str) -> None:
    if len(dataset.folders) < 2:
        raise UsageError(f"{source} has photos of fewer than two classes", hint="give a folder for each class")
