"""Linear probes: what photos in class folders teach of labels, without training a model.

One classifier a label by L-BFGS on image vectors, the strength of its regularisation searched on photos that do not
train it, as the CLIP paper probes a model (arXiv:2103.00020, appendix A.3; search.evaluate.probe has the recipe). What
differs: each label is decided by itself, since a photo may have several or none, and regularisation draws a label to
what its text says, not to nothing. So the strongest regularisation teaches only how common labels are. Folders
show nothing of all else that a library holds: photos of it that are not in them say so, together as much as one class.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from search.errors import EncoderMismatch, ModelError, StorageError, UsageError
from search.evaluate.metrics import top_k_accuracy
from search.evaluate.pictures import known
from search.evaluate.probe import VALIDATION, Examples, check, split, sweep
from search.evaluate.statistics import Interval, Paired, paired, share
from search.files import atomic_write
from search.heads import Probe, Space, fit
from search.library.learning import linear
from search.vectors import normalize

if TYPE_CHECKING:
    import numpy.typing as npt

    from search.evaluate.pictures import Pictures
    from search.labels import Classifier
    from search.library import Library
    from search.types import Skip, Vectors

FILE = "probe.safetensors"
_KIND, _DETAILS, _FINGERPRINT, _LABELS = "search.probe", "details", "fingerprint", "labels"
_SEED = 0  # of the split
_OTHERS = 512  # photos of the library, about


@dataclass(frozen=True, slots=True)
class Worth:
    """What a probe is worth on photos that did not train it, beside zero-shot on the same.

    Both decide as labels that compete do. The photos then train the probe too: on others it is this good or better.
    train, validation, test: photos.   c: the inverse strength of regularisation.   against: the probe less zero-shot.
    """

    train: int
    validation: int
    test: int
    c: float
    accuracy: Interval
    zero_shot: Interval
    against: Paired


def train_probe(
    photos: Examples, classifier: Classifier, *, others: Vectors, test_share: float, fingerprint: str
) -> Probe:
    """Learn the labels of a classifier from photos whose targets are their places in it.

    classifier: of labels that are decided by themselves.   others: (M, D) photos that most likely have none of the
    labels.   test_share: part of each class to measure on.
    fingerprint: of the model.   What it is worth stands in its details.
    Raises UsageError for a class of fewer than three photos that are no copies.
    """
    check(photos, len(classifier.names), least=3, names=classifier.names)
    left, tested = split(photos, test_share, np.random.default_rng(_SEED))
    train, validation = split(left, VALIDATION, np.random.default_rng(_SEED))
    task = Task(classifier, Space.of(photos.vectors), others)
    c = sweep(lambda c: top_k_accuracy(task.scores(validation, task.fit(train, c)), validation.targets, 1))
    right, zero = (
        task.scores(tested, correction).argmax(axis=1) == tested.targets
        for correction in (task.fit(joined(train, validation), c), None)
    )
    worth = Worth(len(train), len(validation), len(tested), c, share(right), share(zero), paired(right, zero))
    texts, learnt = linear(classifier, photos.vectors.shape[1]), task.fit(photos, c)
    weights, biases = (said + more for said, more in zip(texts, learnt, strict=True))
    return Probe(classifier.names, weights, biases, fingerprint, {"worth": asdict(worth)})


@dataclass(frozen=True, slots=True)
class Task:
    """Labels to learn, where their photos lie, and others."""

    classifier: Classifier
    space: Space
    others: Vectors

    def fit(self, photos: Examples, c: float) -> tuple[Vectors, Vectors]:
        """Return corrections of what the texts say, (C, D) and (C,)."""
        classes, others = len(self.classifier.names), len(self.others)
        vectors = np.concatenate([photos.vectors, self.others])
        targets = np.append(photos.targets, np.full(others, -1))[:, None] == np.arange(classes)
        each = min(1.0, len(photos) / classes / max(1, others))
        counts = np.append(np.ones(len(photos)), np.full(others, each))
        offsets = self.classifier.log_odds(vectors).astype(np.float64)
        return fit(vectors, targets, offsets, self.space, c=c, counts=counts)

    def scores(self, photos: Examples, correction: tuple[Vectors, Vectors] | None) -> npt.NDArray[np.float64]:
        """Return what decides between labels, (N, C)."""
        logits = photos.vectors @ self.classifier.weights.T * self.classifier.logit_scale
        if correction:
            logits = logits + photos.vectors @ correction[0].T + correction[1]
        return logits.astype(np.float64)


def joined(one: Examples, other: Examples) -> Examples:
    """Return the photos of both; whether some are copies of others is not looked at again."""
    return Examples(np.concatenate([one.vectors, other.vectors]), np.concatenate([one.targets, other.targets]))


# ---- photos


@dataclass(frozen=True, slots=True)
class Gathered:
    """rows: (M,) the places of those that could be read.   known: of these, how many the library had.

    vectors: (M, D) unit rows.   contents: (M,) hashes of the files.
    """

    rows: npt.NDArray[np.int64]
    vectors: Vectors
    contents: Sequence[str]
    known: int
    skipped: tuple[Skip, ...]


def gather(library: Library, paths: Sequence[str], pictures: Pictures, **reading: Any) -> Gathered:
    """Return the vectors of photos: the library's own of those in it, of others as `Pictures.image_vectors` keeps them.

    pictures: of the library's model.   reading: what that method takes.   Raises LibraryError, ModelError.
    """
    row = library.model.answering()
    own = known(library.catalog, row, paths)
    missing = [path for path in paths if path not in own]
    skipped: tuple[Skip, ...] = ()
    found = dict(own)
    if missing:
        if pictures.text().fingerprint != row.fingerprint:
            raise EncoderMismatch(
                f"the weights of {row.name} are others than those the library is of",
                hint="run 'search index --reencode'",
            )
        seen = pictures.image_vectors(missing, **reading)
        read = [missing[place] for place in seen.rows.tolist()]
        found |= zip(read, zip(seen.vectors, pictures.content_hashes(read), strict=True), strict=True)
        skipped = seen.skipped
    rows = [place for place, path in enumerate(paths) if path in found]
    vectors = [found[paths[place]][0] for place in rows]
    return Gathered(
        np.array(rows, np.int64),
        normalize(np.stack(vectors)) if vectors else np.empty((0, row.dim), np.float32),
        [found[paths[place]][1] for place in rows],
        sum(paths[place] in own for place in rows),
        skipped,
    )


def others(library: Library, photos: Gathered, paths: Sequence[str], labels: Sequence[str]) -> Vectors:
    """Return (M, D) of photos of the library that are none of these, evenly taken.

    Those that were accepted for one of the labels are left out.
    """
    catalog, row = library.catalog, library.model.answering()
    said = catalog.words(labels).values()
    accepted = {id_ for of_one in said for id_, word in of_one.items() if word.accepted}
    ids = catalog.all_ids()
    ids = ids[:: max(1, len(ids) // (2 * _OTHERS))].tolist()  # some of them will be those trained with
    own, contents = set(paths), set(photos.contents)
    rest = [
        photo.id
        for photo in catalog.get(ids)
        if photo.path not in own and photo.content_hash not in contents and photo.id not in accepted
    ]
    _, vectors = catalog.embeddings(row, rest[:: max(1, len(rest) // _OTHERS)])
    return normalize(vectors)


# ---- a file of it


def save_probe(probe: Probe, folder: Path) -> Path:
    """Write a probe into a folder, whole or not at all; return the file.   Raises StorageError."""
    metadata = {
        "kind": _KIND,
        _FINGERPRINT: probe.fingerprint,
        _LABELS: json.dumps(probe.labels),
        _DETAILS: json.dumps(probe.details),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(folder / FILE, save({"weights": probe.weights, "biases": probe.biases}, metadata))
    except OSError as error:
        raise StorageError(f"can't write {folder}: {error.strerror or error}") from None
    return folder / FILE


def load_probe(folder: Path) -> Probe:
    """Read what `save_probe` wrote, from the folder or the file.   Raises ModelError, UsageError without any."""
    path = folder / FILE if folder.is_dir() else folder
    if not path.is_file():
        raise UsageError(f"{folder} holds no probe", hint="'search train probe … --out DIR' writes one")
    try:
        tensors = load(path.read_bytes())
        with safe_open(path, framework="numpy") as opened:
            said = opened.metadata() or {}
        labels, details = json.loads(said[_LABELS]), json.loads(said[_DETAILS])
        if isinstance(details, dict) and "worth" in details:
            details["worth"] = asdict(_worth(details["worth"]))
        given = tuple(labels) if isinstance(labels, list) else labels
        return Probe(given, tensors["weights"], tensors["biases"], said[_FINGERPRINT], details)
    except _NO_PROBE as error:
        raise ModelError(f"{path} is no probe: {error}") from None


_NO_PROBE = (OSError, ValueError, TypeError, KeyError, RecursionError, SafetensorError, UsageError)
_PARTS = ("train", "validation", "test")


def _worth(said: Any) -> Worth:
    """Read what `asdict` made of it.   Raises KeyError, TypeError, ValueError."""
    against, (train, validation, test) = said["against"], (int(said[name]) for name in _PARTS)
    compared = Paired(
        int(against["only_first"]),
        int(against["only_second"]),
        _interval(against["difference"]),
        float(against["p"]),
        None if against["needed"] is None else int(against["needed"]),
    )
    accuracy, zero_shot = _interval(said["accuracy"]), _interval(said["zero_shot"])
    return Worth(train, validation, test, float(said["c"]), accuracy, zero_shot, compared)


def _interval(said: Any) -> Interval:
    return Interval(float(said["low"]), float(said["value"]), float(said["high"]))
