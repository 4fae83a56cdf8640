"""Where label sets come from: text files, CLIP_benchmark's JSON as it is published, and the built-in sets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from search.errors import UsageError
from search.labels.sets import GIVEN, Label, LabelSet
from search.photos.keywords import legible
from search.resources import data_path, text_lines


def label_set(
    labels: str | None = None,
    templates: str | None = None,
    *,
    names: Sequence[str | Label] = (),
    more_templates: Sequence[str] = (),
    thresholds: Mapping[str, float] | None = None,
) -> LabelSet:
    """Make a label set of files or built-in sets and what is given beside them, named after where it came from.

    labels, templates: as `load_labels` and `load_templates` take them. Templates that are whole sentences per class
    bring their classes along where no labels are given.   names: more labels, taken as they stand.
    Raises UsageError.
    """
    found = load_templates(templates) if templates else []
    if isinstance(found, dict) and more_templates:
        raise UsageError(f"{templates} has sentences of its own for each label", hint="leave --template out")
    lines: list[str | Label] = [*names, *(load_labels(labels) if labels else ())]
    if isinstance(found, dict):
        described = LabelSet.described(lines or found, found, templates_name=_name(templates))
        plain = LabelSet.of(described.labels, thresholds=thresholds)
        name = _name(labels, names) if lines else _name(templates)
        return replace(described, name=name, thresholds=plain.thresholds)
    return LabelSet.of(
        lines,
        [*more_templates, *found],
        name=_name(labels, names),
        templates_name=_name(templates, more_templates) if templates or more_templates else "",
        thresholds=thresholds,
    )


def load_labels(source: str) -> list[Label]:
    """Read labels from a text file, CLIP_benchmark's JSON, or a built-in set.

    A text file has one a line, `animal/cat | kitty, feline | 0.4` (parents and name, synonyms, threshold), and # for
    comments; names in JSON stand as they are, and one that stands there twice is one label.
    source: `FILE`, `FILE.json#DATASET`, or a name in data/labels.   Raises UsageError.
    """
    if _is_json(source):
        names = dict.fromkeys(legible(name) for name in load_classnames(source))
        return [Label(name, (name,)) for name in names if name]
    return [Label.parse(line) for line in lines(source, "labels")]


def load_classnames(source: str) -> list[str]:
    """Read the names of a dataset's classes by number, from the same sources: those of JSON unchanged."""
    if not _is_json(source):
        return [label.name for label in load_labels(source)]
    found = _dataset(source)
    if _is_numbered(found):
        return _strings(found[1], source)
    return list(_described(found, source)) if isinstance(found, dict) else _strings(found, source)


def load_templates(source: str) -> list[str] | dict[str, tuple[str, ...]]:
    """Read templates as `load_labels` reads labels; JSON may hold whole sentences per class instead."""
    if not _is_json(source):
        return lines(source, "templates")
    found = _dataset(source)
    return _described(found, source) if isinstance(found, dict) else _strings(found, source)


def built_in(kind: str) -> list[str]:
    """Return the names of the built-in "labels" or "templates"."""
    return sorted(path.stem for path in data_path(kind).glob("*.txt"))


def lines(source: str, kind: str) -> list[str]:
    """Read the lines of a file or a built-in set of "labels" or "templates", comments left out."""
    path = Path(source) if Path(source).is_file() else data_path(kind, f"{source}.txt")
    try:
        kept = text_lines(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"can't read {kind} from {source}",
            hint=f"give a text file or one of: {', '.join(built_in(kind))}",
        ) from error
    if not kept:
        raise UsageError(f"{source} holds no {kind}")
    return kept


def _name(source: str | None, given: Sequence[object] = ()) -> str:
    """What provenance calls a source: its file's name without folders, and that more was given."""
    parts = [source.replace("\\", "/").rpartition("/")[2]] if source else []
    return ", ".join([*parts, GIVEN] if given or not parts else parts)


def _is_json(source: str) -> bool:
    return source.partition("#")[0].endswith(".json")


def _is_numbered(found: Any) -> bool:
    """Whether these are names with the numbers of their classes: two lists of one length."""
    if not isinstance(found, list) or len(found) != 2 or not all(isinstance(part, list) for part in found):
        return False
    return len(found[0]) == len(found[1]) and all(isinstance(number, int) for number in found[0])


def _described(found: dict[str, Any], source: str) -> dict[str, tuple[str, ...]]:
    """Return the sentences of each class. Raises UsageError for a class without, and if there is none."""
    if not found:
        raise UsageError(f"{source} holds no list of texts")
    return {name: tuple(_strings(sentences, source)) for name, sentences in found.items()}


def _strings(found: Any, source: str) -> list[str]:
    """Raise UsageError unless this is a list of texts, some at least."""
    if not isinstance(found, list) or not found or not all(isinstance(text, str) for text in found):
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
        names = ", ".join(datasets) if isinstance(datasets, dict) and datasets else "nothing usable"
        raise UsageError(f"{path} holds {names}", hint=f"name one: {path}#NAME")
    return datasets[name]
