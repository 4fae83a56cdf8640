"""Labels, their hierarchy and synonyms, and the sentences that describe them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from search.errors import UsageError
from search.photos.keywords import legible
from search.vectors import normalize

if TYPE_CHECKING:
    from search.encoders import TextTower
    from search.types import Vectors

    Remember: TypeAlias = Callable[[list[list[str]], Callable[[], tuple[Vectors, int]]], tuple[Vectors, int]]
    """What returns, for the prompts of each class, what the function gives, or gave before."""

NONE_OF_THESE = "none of these"
DEFAULT_TEMPLATES = ("a photo of a {}.",)
GIVEN = "given"  # the name of what came from no file
_DEFAULT_NAME = "photo"  # the file that holds the default templates
_LEVEL = re.compile(r"(?<!\s)/(?!\s)")  # a slash between spaces is part of a name: "cardboard box / carton"
_PLACEHOLDER = re.compile(r"\{[^{}]*\}")


@dataclass(frozen=True, slots=True)
class Label:
    """A class: its full name (`animal/cat`) and the words that prompts use for it (`cat`, `kitty`).

    threshold: least probability at which a photo has it; None leaves that to the options.
    """

    name: str
    words: tuple[str, ...]
    threshold: float | None = None

    @classmethod
    def parse(cls, line: str) -> Label:
        """Read a line of a file, `animal/cat | kitty, feline | 0.4`: parents and name, synonyms, threshold.

        Raises UsageError for a line without a name, or whose threshold is no probability.
        """
        name, _, rest = line.partition("|")
        synonyms, _, least = rest.partition("|")
        name = legible(name)
        leaf = _LEVEL.split(name)[-1].strip()
        if not leaf or leaf == "/":
            raise UsageError(f"{line!r} names no label")
        words = (leaf, *(word for part in synonyms.split(",") if (word := legible(part))))
        return cls(name, tuple(dict.fromkeys(words)), probability(least, line) if least.strip() else None)

    @property
    def leaf(self) -> str:
        """The last part of the name, which stands in prompts where no other words are given."""
        return _LEVEL.split(self.name)[-1]

    @property
    def parents(self) -> tuple[str, ...]:
        """The labels above this one, the highest first; a name that is its own word has none, slash or not."""
        if self.name in self.words:
            return ()
        return tuple(self.name[: found.start()] for found in _LEVEL.finditer(self.name))


def probability(text: str, where: str) -> float:
    """Read a threshold. Raises UsageError unless it lies in [0, 1]."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise UsageError(
            f"{text.strip()!r} in {where!r} is no probability", hint="a threshold lies between 0 and 1"
        )
    return value


@dataclass(frozen=True, slots=True)
class LabelSet:
    """Classes and the sentences that describe them.

    templates: each holds `{}` (or `{c}`) where the class's word goes.
    prompts: whole sentences per class name, used instead of templates.
    name, templates_name: what provenance calls them: a built-in set, a file's name, "given".
    thresholds: least probability per class name.
    """

    labels: tuple[Label, ...]
    templates: tuple[str, ...] = DEFAULT_TEMPLATES
    prompts: dict[str, tuple[str, ...]] | None = None
    name: str = GIVEN
    templates_name: str = _DEFAULT_NAME
    thresholds: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        labels: LabelSet | Iterable[str | Label],
        templates: Sequence[str] | None = None,
        *,
        name: str = GIVEN,
        templates_name: str = "",
        thresholds: Mapping[str, float] | None = None,
    ) -> LabelSet:
        """Make a set from names, taken as they stand, or Labels.

        Raises UsageError for none or twice the same, a template that can't be filled, a threshold of no label.
        """
        if isinstance(labels, LabelSet):
            return labels
        given = (label if isinstance(label, Label) else Label(label, (legible(label),)) for label in labels)
        given = (replace(label, name=legible(label.name)) for label in given)
        parsed = tuple(label for label in given if label.name)
        counts = Counter(label.name for label in parsed)
        if not counts:
            raise UsageError("there are no labels", hint="give --label NAME or --labels FILE")
        if twice := sorted(name for name, count in counts.items() if count > 1):
            raise UsageError(f"these labels stand twice: {', '.join(twice)}")
        own = {label.name: label.threshold for label in parsed if label.threshold is not None}
        _check_templates(templates or DEFAULT_TEMPLATES)
        return cls(
            parsed,
            tuple(templates or DEFAULT_TEMPLATES),
            name=name,
            templates_name=templates_name or (GIVEN if templates else _DEFAULT_NAME),
            thresholds=own | _known(thresholds or {}, counts),
        )

    @classmethod
    def described(
        cls, labels: Iterable[str | Label], prompts: Mapping[str, Sequence[str]], *, templates_name: str = GIVEN
    ) -> LabelSet:
        """Make a set whose classes have sentences of their own. Raises UsageError for a class without."""
        plain = cls.of(labels)
        own = {legible(name): tuple(sentences) for name, sentences in prompts.items()}
        if missing := [name for name in plain.names if not own.get(name)]:
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            raise UsageError(
                f"there are no prompts for {', '.join(missing[:5])}{more}",
                hint="the file of prompts must name every label, spelt as the label is",
            )
        own = {name: own[name] for name in plain.names}
        return replace(plain, templates=(), prompts=own, templates_name=templates_name)

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


def fill(template: str, word: str) -> str:
    """Put a word into a template."""
    return template.replace("{c}", word).replace("{}", word)


def _check_templates(templates: Sequence[str]) -> None:
    """Raise UsageError where a template has another placeholder, or none of them has any."""
    found = [name for template in templates for name in _PLACEHOLDER.findall(template)]
    if unknown := [name for name in found if name not in {"{}", "{c}"}]:
        raise UsageError(f"{unknown[0]} in a template is no placeholder", hint="write {} where the label goes")
    if not found:
        raise UsageError(f"no label would be in the prompt {templates[0]!r}", hint="write {} where the label goes")


def _known(thresholds: Mapping[str, float], names: Iterable[str]) -> dict[str, float]:
    """Raise UsageError for a threshold of a label that is none of these."""
    given = {legible(name): value for name, value in thresholds.items()}
    if strange := sorted(set(given).difference(names, (NONE_OF_THESE,))):
        raise UsageError(f"there is a threshold for {strange[0]!r}, which is none of the labels")
    return {name: probability(str(value), name) for name, value in given.items()}


def _embed(prompts: list[list[str]], encoder: TextTower) -> tuple[Vectors, int]:
    flat = [sentence for sentences in prompts for sentence in sentences]
    vectors = encoder.encode_texts(flat)
    beyond = sum(max(0, length - encoder.context_length) for length in encoder.count_tokens(flat))
    ends = np.cumsum([len(sentences) for sentences in prompts])[:-1]
    return normalize(np.stack([part.mean(axis=0) for part in np.split(vectors, ends)])), beyond
