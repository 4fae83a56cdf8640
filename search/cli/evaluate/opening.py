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
    """whole: all photos and classes, as they are called.   dataset: the photos that could be read, and their classes.

    vectors: (N, D) of them.   pictures: their model, open.
    """

    whole: Dataset
    dataset: Dataset
    vectors: Vectors
    pictures: Pictures
    skipped: tuple[Skip, ...]

    def also(self, settings: Settings, source: str) -> tuple[Dataset, Vectors]:
        """Return other photos of the same classes, read by the same model.   Raises UsageError."""
        other = single(source)
        if set(other.present().folders) != set(self.whole.present().folders):
            raise UsageError(
                f"{source} has other classes than {self.dataset.name}", hint="name the class folders alike"
            )
        seen = results.seen(settings, self.pictures, other)
        read = other.take(seen.rows)
        known = [read.folders[target] in self.dataset.folders for target in read.targets]
        return read.only(self.dataset.folders), seen.vectors[known]


@contextmanager
def opened(
    settings: Settings,
    source: str,
    model: str,
    keeping: results.Keeping,
    *,
    named: Callable[[Dataset], Dataset] | None = None,
    before: Callable[[Dataset], object] | None = None,
) -> Iterator[Opened]:
    """Read a data set and the vectors of its photos; say what was left out.

    named: calls the classes what they are to be called.   before: told the whole data set, raises where the work would
    be for nothing, before it begins.
    Raises UsageError for fewer than two classes, photos of several classes at once, or none that can be read.
    """
    whole = named(single(source)) if named else single(source)
    check_classes(whole, source)
    if before:
        before(whole)
    with results.pictures(settings, model, keeping) as pictures:
        seen = results.seen(settings, pictures, whole)
        dataset = whole.take(seen.rows).present()
        results.tell_empty(settings, dataset)
        check_classes(dataset, source)
        yield Opened(whole, dataset, seen.vectors, pictures, seen.skipped)


def single(source: str) -> Dataset:
    """Read a data set of one class a photo.   Raises UsageError."""
    from search.evaluate.datasets import Dataset

    whole = Dataset.of(source)
    if whole.truth is not None:
        raise UsageError(f"photos of {source} are of several classes at once", hint="give one label a photo")
    return whole


def check_classes(dataset: Dataset, source: str) -> None:
    """Raise UsageError where photos are of fewer than two classes."""
    if len(dataset.present().folders) < 2:
        raise UsageError(f"{source} has photos of fewer than two classes", hint="give a folder for each class")
