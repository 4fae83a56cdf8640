"""Zero-shot labels: names and templates → class weights → calibrated scores.

The weights of a class are the mean of the unit text embeddings of its prompts, renormalised (CLIP,
arXiv:2103.00020, sec. 3.1.4); a photo's logits are the model's logit_scale times its cosines with them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from search.encoders import TextTower
from search.errors import UsageError
from search.resources import data_path
from search.types import LabelledPhoto, LabelScore, Progress, Skip, Stage
from search.vectors import normalize

if TYPE_CHECKING:
    import numpy.typing as npt

    from search.encoders import Encoder
    from search.types import Vectors

    Remember: TypeAlias = Callable[[list[list[str]], Callable[[], tuple[Vectors, int]]], tuple[Vectors, int]]
    """What returns, for the prompts of each class, what the function gives, or gave before."""

NONE_OF_THESE = "none of these"
DEFAULT_TEMPLATES = ("a photo of a {}.",)
_LOAD_BATCH = 32
_PRODUCT_SCORES = 2**22  # (photos, labels) of one matrix product; of small ones the threads wait for each other
_CACHED_SCORES = 2**18  # looked at together: 1 MiB, which stays in the processor's cache
_PICKED = 32  # labels a photo, up to which picking one after the other is faster than sorting all
_ROUNDING = 1e-3  # of logits in float32, on the safe side


class LabelEncoder(TextTower, Protocol):
    """What labels need of an encoder."""

    @property
    def logit_scale(self) -> float:
        """Inverse temperature, as `Encoder` has it."""

    @property
    def logit_bias(self) -> float | None:
        """What sigmoid-trained models add to the logits."""


@dataclass(frozen=True, slots=True)
class Label:
    """A class: its full name (`animal/cat`) and the words that prompts use for it (`cat`, `kitty`)."""

    name: str
    words: tuple[str, ...]

    @classmethod
    def parse(cls, line: str) -> Label:
        """Read a line of a file, `animal/cat | kitty, feline`: parents, name, synonyms.

        Raises UsageError for a line without a name.
        """
        name, _, synonyms = line.partition("|")
        name = name.strip()
        leaf = name.rpartition("/")[2].strip()
        if not leaf:
            raise UsageError(f"{line!r} names no label")
        return cls(name, (leaf, *(word for part in synonyms.split(",") if (word := part.strip()))))


@dataclass(frozen=True, slots=True)
class LabelSet:
    """Classes and the sentences that describe them.

    templates: each holds `{}` (or `{c}`) where the class's word goes; one without is a caption as it stands.
    prompts: whole sentences per class name, used instead of templates.
    """

    labels: tuple[Label, ...]
    templates: tuple[str, ...] = DEFAULT_TEMPLATES
    prompts: dict[str, tuple[str, ...]] | None = None

    @classmethod
    def of(cls, labels: LabelSet | Iterable[str | Label], templates: Sequence[str] | None = None) -> LabelSet:
        """Make a set from names, taken as they stand, or Labels. Raises UsageError for none or twice the same."""
        if isinstance(labels, LabelSet):
            return labels
        given = (label if isinstance(label, Label) else Label(label.strip(), (label.strip(),)) for label in labels)
        parsed = tuple(label for label in given if label.name)
        counts = Counter(label.name for label in parsed)
        if not counts:
            raise UsageError("there are no labels", hint="give --label NAME or --labels FILE")
        if twice := sorted(name for name, count in counts.items() if count > 1):
            raise UsageError(f"these labels stand twice: {', '.join(twice)}")
        return cls(parsed, tuple(templates or DEFAULT_TEMPLATES))

    @classmethod
    def described(cls, labels: Iterable[str | Label], prompts: dict[str, tuple[str, ...]]) -> LabelSet:
        """Make a set whose classes have sentences of their own. Raises UsageError for a class without."""
        plain = cls.of(labels)
        if missing := [name for name in plain.names if not prompts.get(name)]:
            raise UsageError(f"there are no prompts for {', '.join(missing)}")
        return replace(plain, templates=(), prompts=prompts)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(label.name for label in self.labels)

    def sentences(self, label: Label) -> list[str]:
        """Return every prompt of a class."""
        if self.prompts:
            return list(self.prompts[label.name])
        return [fill(template, word) for word in label.words for template in self.templates]

    def weights(self, encoder: TextTower) -> Vectors:
        """Return the class weights (C, D), unit rows."""
        return self.embed(encoder)[0]

    def embed(self, encoder: TextTower, remember: Remember | None = None) -> tuple[Vectors, int]:
        """Return the class weights (C, D), unit rows, and how many tokens lie beyond what the encoder reads."""
        prompts = [self.sentences(label) for label in self.labels]

        def make() -> tuple[Vectors, int]:
            return _embed(prompts, encoder)

        return remember(prompts, make) if remember else make()


def _embed(prompts: list[list[str]], encoder: TextTower) -> tuple[Vectors, int]:
    flat = [sentence for sentences in prompts for sentence in sentences]
    vectors = encoder.encode_texts(flat)
    beyond = sum(max(0, length - encoder.context_length) for length in encoder.count_tokens(flat))
    ends = np.cumsum([len(sentences) for sentences in prompts])[:-1]
    return normalize(np.stack([part.mean(axis=0) for part in np.split(vectors, ends)])), beyond


def fill(template: str, word: str) -> str:
    """Put a word into a template."""
    return template.replace("{c}", word).replace("{}", word)


@dataclass(frozen=True, slots=True)
class LabelOptions:
    """How to decide. multi: each label on its own.   threshold: least probability of a label that is listed.

    none_of_these: a class for photos that no label fits.   k: how many labels a photo lists at most.
    """

    multi: bool = False
    threshold: float = 0.0
    none_of_these: bool = False
    k: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise UsageError(f"a threshold of {self.threshold} is no probability")

    def to_apply(self, labels: tuple[LabelScore, ...]) -> tuple[LabelScore, ...]:
        """Return the labels of a photo that are worth writing: the best, or all listed if `multi` or `k` asks so."""
        chosen = labels if self.multi or self.k else labels[:1]
        return tuple(label for label in chosen if label.label != NONE_OF_THESE)


@dataclass(frozen=True, slots=True)
class Classifier:
    """A label set under one encoder, ready to score photos."""

    names: tuple[str, ...]
    weights: Vectors  # (C, D)
    neutral: Vectors  # (1, D), what any photo is
    logit_scale: float
    logit_bias: float | None
    options: LabelOptions
    truncated_tokens: int = 0  # of the prompts, beyond what the encoder reads

    @classmethod
    def build(
        cls, labels: LabelSet, encoder: LabelEncoder, options: LabelOptions, *, remember: Remember | None = None
    ) -> Classifier:
        """Embed a label set's prompts.   remember: what knows them from before."""
        neutral = normalize(encoder.encode_texts(_lines("neutral", "templates")).mean(axis=0, keepdims=True))
        names, (weights, beyond) = labels.names, labels.embed(encoder, remember)
        if options.none_of_these:
            names, weights = (*names, NONE_OF_THESE), np.concatenate([weights, neutral])
        return cls(names, weights, neutral, encoder.logit_scale, encoder.logit_bias, options, beyond)

    def label(self, vectors: Vectors) -> list[tuple[LabelScore, ...]]:
        """Return the labels of each photo, best first.   vectors: (N, D) float32, unit rows."""
        labelled: list[tuple[LabelScore, ...]] = []
        many, few = (max(1, size // len(self.names)) for size in (_PRODUCT_SCORES, _CACHED_SCORES))
        for start in range(0, len(vectors), many):
            part = vectors[start : start + many]
            scores = part @ self.weights.T  # (N, C)
            for low in range(0, len(part), few):
                labelled += self._label(scores[low : low + few], part[low : low + few])
        return labelled

    def _label(self, scores: npt.NDArray[np.float32], vectors: Vectors) -> Iterator[tuple[LabelScore, ...]]:
        logits = self._logits(scores, vectors)
        best = _best(logits, self._most(logits))  # (N, K)
        probabilities = self._probabilities(logits, best)
        kept = (probabilities >= self.options.threshold).sum(axis=1).tolist()
        found = (kept, best.tolist(), probabilities.tolist(), np.take_along_axis(scores, best, axis=1).tolist())
        for count, places, shares, cosines in zip(*found, strict=True):
            rows = zip(places[:count], shares, cosines, strict=False)
            yield tuple([LabelScore(self.names[place], share, cosine) for place, share, cosine in rows])

    def _logits(self, scores: npt.NDArray[np.float32], vectors: Vectors) -> npt.NDArray[np.float32]:
        """What decides: with `multi` each label alone, a sigmoid model's by its bias, else against "a photo"."""
        if self.options.multi and self.logit_bias is not None:
            return scores * np.float32(self.logit_scale) + np.float32(self.logit_bias)
        against = vectors @ self.neutral.T if self.options.multi else np.float32(0)
        return (scores - against) * np.float32(self.logit_scale)

    def _most(self, logits: npt.NDArray[np.float32]) -> int:
        """How many labels a photo can list: where few can pass the threshold, the others need no order."""
        most = min(self.options.k or len(self.names), len(self.names))
        threshold = self.options.threshold
        if threshold == 0 or not len(logits):
            return most
        if not self.options.multi:
            return min(most, int(1 / threshold) + 1)  # probabilities sum to 1
        least = np.log(threshold) - np.log1p(-threshold) - _ROUNDING if threshold < 1 else -np.inf
        return min(most, int((logits >= least).sum(axis=1).max()))

    def _probabilities(
        self, logits: npt.NDArray[np.float32], best: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64]:
        """Return (N, K) for the labels chosen of (N, C); of all others no more than their sum is needed."""
        chosen = np.take_along_axis(logits, best, axis=1)
        if self.options.multi:
            return sigmoid(chosen)
        highest = logits.max(axis=1, keepdims=True)
        powers = np.exp(logits - highest)
        shares: npt.NDArray[np.float64] = np.exp(np.float64(chosen - highest))
        shares /= powers.sum(axis=1, keepdims=True)
        return shares


def _best(logits: npt.NDArray[np.float32], most: int) -> npt.NDArray[np.int64]:
    """Return the places of the highest (N, K) of each row (N, C), highest first, of equal ones the first."""
    if most > _PICKED:
        return np.argsort(-logits, axis=1, kind="stable")[:, :most]
    left, rows = logits.copy(), np.arange(len(logits))
    best = np.empty((len(logits), most), dtype=np.int64)
    for rank in range(most):
        best[:, rank] = left.argmax(axis=1)
        left[rows, best[:, rank]] = -np.inf
    return best


def sigmoid(logits: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return 1 / (1 + e^-x) without overflow."""
    probabilities: npt.NDArray[np.float64] = (1 + np.tanh(np.float64(logits) / 2)) / 2
    return probabilities


def label_photos(
    paths: Sequence[str],
    classifier: Classifier,
    *,
    encoder: Encoder,
    progress: Callable[[Progress], None] | None = None,
) -> tuple[list[LabelledPhoto], list[Skip]]:
    """Label image files zero-shot, whether or not they are in a library; return those that can't be read too."""
    from search.decoding.pool import ahead, lend

    labelled: list[LabelledPhoto] = []
    skipped: list[Skip] = []
    done = 0
    with lend() as decoders:
        loaded = ahead(lambda path: decoders.submit(path, encoder.preprocessing), paths, 2 * _LOAD_BATCH)
        while batch := list(islice(loaded, _LOAD_BATCH)):
            skipped += [found for _, found in batch if isinstance(found, Skip)]
            good = {path: found.pixels for path, found in batch if not isinstance(found, Skip)}
            if good:
                labels = classifier.label(encoder.encode_images(np.stack(list(good.values()))))
                labelled += [LabelledPhoto(*row) for row in zip(good, labels, strict=True)]
            done += len(batch)
            if progress:
                progress(Progress(Stage.LABEL, done, len(paths)))
    return labelled, skipped


# ---- files of labels and templates


def load_labels(source: str) -> list[Label]:
    """Read labels from a text file, CLIP_benchmark's JSON, or a built-in set.

    A text file has one a line, `animal/cat | kitty, feline`, and # for comments; names in JSON stand as they are.
    source: `FILE`, `FILE.json#DATASET`, or a name in data/labels.
    """
    if _is_json(source):
        return [Label(name, (name,)) for name in _strings(_dataset(source), source)]
    return [Label.parse(line) for line in _lines(source, "labels")]


def load_templates(source: str) -> list[str] | dict[str, tuple[str, ...]]:
    """Read templates as `load_labels` reads labels; JSON may hold whole sentences per class instead."""
    if not _is_json(source):
        return _lines(source, "templates")
    found = _dataset(source)
    if isinstance(found, dict):
        return {name: tuple(_strings(sentences, source)) for name, sentences in found.items()}
    return _strings(found, source)


def built_in(kind: str) -> list[str]:
    """Return the names of the built-in "labels" or "templates"."""
    return sorted(path.stem for path in data_path(kind).glob("*.txt"))


def _lines(source: str, kind: str) -> list[str]:
    path = Path(source) if Path(source).is_file() else data_path(kind, f"{source}.txt")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"can't read {kind} from {source}",
            hint=f"give a text file or one of: {', '.join(built_in(kind))}",
        ) from error
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _is_json(source: str) -> bool:
    return source.partition("#")[0].endswith(".json")


def _strings(found: Any, source: str) -> list[str]:
    """Raise UsageError unless this is a list of texts."""
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise UsageError(f"{source} holds no list of texts")
    return found


def _dataset(source: str) -> Any:
    """One dataset's entry of a CLIP_benchmark file; `#NAME` picks it where there are several. A list is itself."""
    path, _, name = source.partition("#")
    try:
        datasets = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UsageError(f"can't read {path}: {error}") from error
    if isinstance(datasets, list):
        return datasets
    if isinstance(datasets, dict) and not name and len(datasets) == 1:
        return next(iter(datasets.values()))
    if not isinstance(datasets, dict) or name not in datasets:
        names = ", ".join(datasets) if isinstance(datasets, dict) else "nothing usable"
        raise UsageError(f"{path} holds {names}", hint=f"name one: {path}#NAME")
    return datasets[name]
