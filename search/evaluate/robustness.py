"""What another style or a worse picture costs: accuracy on folders of the same classes, and under corruptions."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from search import files
from search.errors import UsageError
from search.evaluate import corruptions
from search.evaluate.corruptions import CORRUPTIONS, SIDE, STRENGTHS
from search.evaluate.datasets import Dataset
from search.evaluate.metrics import mean_per_class_recall
from search.evaluate.statistics import Interval, apart, paired, share
from search.types import Progress, Skip, Stage

if TYPE_CHECKING:
    from search.encoders import Encoder
    from search.evaluate.pictures import Pictures
    from search.types import Pixels, Vectors

REFERENCE = "photo"
"""The style that others are held against where a folder of styles has it."""

_BATCH = 32
_DIGEST = hashlib.sha256().digest_size


@dataclass(frozen=True, slots=True)
class Condition:
    """One style, or one corruption at one strength.

    drop: the accuracy of the reference less this one.   corruption, strength: "" and 0 for a style.
    """

    name: str
    photos: int
    acc1: Interval
    mean_per_class_recall: float
    drop: Interval
    corruption: str = ""
    strength: int = 0


@dataclass(frozen=True, slots=True)
class Robustness:
    """styles: the reference first.   corrupted: of the reference's photos, in order of corruption and strength."""

    styles: tuple[Condition, ...]
    corrupted: tuple[Condition, ...] = ()

    @property
    def mean_corrupted(self) -> float | None:
        """The mean accuracy over corruptions and strengths; None without."""
        return float(np.mean([found.acc1.value for found in self.corrupted])) if self.corrupted else None

    def by_corruption(self) -> dict[str, list[Condition]]:
        """Return the strengths of each corruption."""
        names = dict.fromkeys(found.corruption for found in self.corrupted)
        return {name: [found for found in self.corrupted if found.corruption == name] for name in names}


def folders_of_styles(source: str, reference: str = "") -> list[str]:
    """Return the folders of styles in a folder, the reference first; none where it is one of classes itself.

    A style is a folder that holds folders, of which at least two are called like those of another style.
    reference: the first style; "": "photo", or the first by name.   Raises UsageError for one that is not there.
    """
    inside = {entry.name: _folders(entry.path) for entry in os.scandir(source) if _is_folder(entry)}
    styles = [
        name
        for name, classes in inside.items()
        if any(len(classes & others) >= 2 for other, others in inside.items() if other != name)
    ]
    if not styles:
        return []
    if reference and reference not in styles:
        raise UsageError(f"{source} has no style {reference}", hint=f"there are {', '.join(sorted(styles))}")
    first = reference or REFERENCE
    return [os.path.join(source, name) for name in sorted(styles, key=lambda name: (name != first, name))]


def _folders(path: str) -> set[str]:
    return {entry.name for entry in os.scandir(path) if _is_folder(entry)}


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir() and not entry.name.startswith(".")


def in_common(datasets: Sequence[Dataset]) -> tuple[list[Dataset], dict[str, list[str]]]:
    """Return data sets with the classes that all of them have, and what each has beside, if anything, by its name.

    Raises UsageError for fewer than two classes in common, and for photos of several classes.
    """
    if several := [dataset.name for dataset in datasets if dataset.truth is not None]:
        raise UsageError(f"the photos of {several[0]} are of several classes each; robustness is measured on one")
    common = [name for name in datasets[0].folders if all(name in dataset.folders for dataset in datasets)]
    if len(common) < 2:
        raise UsageError(
            f"{', '.join(dataset.name for dataset in datasets)} have fewer than two classes in common"
        )
    beside = {one.name: [name for name in one.folders if name not in common] for one in datasets}
    return [one.only(common) for one in datasets], {name: left for name, left in beside.items() if left}


def compare_styles(named: Sequence[tuple[Dataset, Vectors]], weights: Vectors) -> tuple[Condition, ...]:
    """Measure data sets of the same classes, the first being the reference.   weights: (C, D)."""
    found: list[Condition] = []
    for dataset, vectors in named:
        predicted = (vectors @ weights.T).argmax(axis=1)
        accuracy = share(predicted == dataset.targets)
        first = found[0].acc1 if found else accuracy
        recall = mean_per_class_recall(predicted, dataset.targets)
        drop = apart(first, accuracy) if found else Interval(0.0, 0.0, 0.0)
        found.append(Condition(dataset.name, len(vectors), accuracy, recall, drop))
    return tuple(found)


def compare_corrupted(
    dataset: Dataset, clean: Vectors, corrupted: Mapping[tuple[str, int], Vectors], weights: Vectors
) -> tuple[Condition, ...]:
    """Measure corrupted photos against themselves as they were.   clean, corrupted: (N, D).   weights: (C, D)."""
    right = (clean @ weights.T).argmax(axis=1) == dataset.targets
    found = []
    for (name, strength), vectors in corrupted.items():
        predicted = (vectors @ weights.T).argmax(axis=1)
        correct = predicted == dataset.targets
        found.append(
            Condition(
                f"{name} {strength}",
                len(vectors),
                share(correct),
                mean_per_class_recall(predicted, dataset.targets),
                paired(right, correct).difference,
                name,
                strength,
            )
        )
    return tuple(found)


def corrupted_vectors(
    pictures: Pictures,
    paths: Sequence[str],
    names: Sequence[str] = tuple(CORRUPTIONS),
    *,
    progress: Callable[[Progress], None] | None = None,
) -> dict[tuple[str, int], Vectors]:
    """Return (N, D) unit rows of photos by corruption and strength; kept beside the vectors of the photos themselves.

    paths: photos that have a vector.   Each is brought to 224 pixels a side as the model would bring it to its own
    (a model that takes more: to those), corrupted, and then brought to the model's: strengths mean nearly the same for
    every model.   Raises UsageError for an unknown corruption, and for a photo that can't be read any more.
    """
    if strange := [name for name in names if name not in CORRUPTIONS]:
        raise UsageError(f"there is no corruption {strange[0]}", hint=f"there are {', '.join(CORRUPTIONS)}")
    content = hashlib.sha256("".join(pictures.content_hashes(paths)).encode()).hexdigest()
    wanted = {
        (name, strength): _kept(pictures.folder, content, name, strength)
        for name in names
        for strength in STRENGTHS
    }
    known = {key: vectors for key, path in wanted.items() if (vectors := _read(path, len(paths))) is not None}
    missing = [key for key in wanted if key not in known]
    if missing:
        made = _make(pictures.encoder(), paths, missing, progress or (lambda _: None))
        for key, vectors in made.items():
            wanted[key].parent.mkdir(exist_ok=True)
            files.atomic_write_parts(wanted[key], _sealed(vectors))
        known |= made
    return {key: known[key] for key in wanted}


def _kept(folder: Path, content: str, name: str, strength: int) -> Path:
    return folder / "corrupted" / f"{content[:32]}-{name}-{strength}-{corruptions.VERSION}.f32"


def _sealed(vectors: Vectors) -> list[bytes]:
    """The parts of a file of vectors: a digest of the others, the dimension, the values."""
    body = np.uint32(vectors.shape[1]).tobytes(), np.ascontiguousarray(vectors, np.float32).tobytes()
    return [hashlib.sha256(b"".join(body)).digest(), *body]


def _read(path: Path, rows: int) -> Vectors | None:
    """Return vectors (rows, D) as they were written, None where they are not."""
    try:
        found = path.read_bytes()
    except OSError:
        return None
    digest, body = found[:_DIGEST], found[_DIGEST:]
    if len(body) < 4 or hashlib.sha256(body).digest() != digest:
        return None
    values, dim = np.frombuffer(body, np.float32, offset=4), int(np.frombuffer(body, np.uint32, 1)[0])
    return values.reshape(rows, dim) if len(values) == rows * dim else None


def _make(
    encoder: Encoder,
    paths: Sequence[str],
    keys: Sequence[tuple[str, int]],
    progress: Callable[[Progress], None],
) -> dict[tuple[str, int], Vectors]:
    made: dict[tuple[str, int], list[Vectors]] = {key: [] for key in keys}
    done = 0
    for batch in _squares(encoder, paths):
        for name, strength in keys:
            spoiled = [_taken(encoder, CORRUPTIONS[name](square, strength)) for square in batch]
            made[name, strength].append(encoder.encode_images(np.stack(spoiled)))
        done += len(batch)
        progress(Progress(Stage.ENCODE, done, len(paths)))
    return {key: np.concatenate(parts) for key, parts in made.items()}


def _squares(encoder: Encoder, paths: Sequence[str]) -> Iterator[list[Pixels]]:
    """Yield batches of photos at the size they are corrupted at."""
    from search.decoding.pool import ahead, lend

    own = encoder.preprocessing
    scale = max(1.0, SIDE / min(own.size))
    size = replace(own, size=(round(own.size[0] * scale), round(own.size[1] * scale)))
    batch: list[Pixels] = []
    with lend() as decoders:
        for path, found in ahead(lambda path: decoders.submit(path, size), paths, 2 * _BATCH):
            if isinstance(found, Skip):
                raise UsageError(f"{path} can't be read any more: {found.reason}: {found.detail}")
            batch.append(found.pixels)
            if len(batch) == _BATCH:
                yield batch
                batch = []
    if batch:
        yield batch


def _taken(encoder: Encoder, pixels: Pixels) -> Pixels:
    """A picture of the size it was corrupted at as the model takes it."""
    from search.photos.pixels import image_of

    return pixels if pixels.shape[:2] == encoder.preprocessing.size else encoder.preprocess(image_of(pixels))
