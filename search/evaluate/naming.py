"""What a file calls the classes of a data set, or says of them: by the folders' names, or a line a class in order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from search.errors import UsageError
from search.labels import Label, load_classnames, load_labels

if TYPE_CHECKING:
    from search.evaluate.datasets import Dataset


def spoken_names(dataset: Dataset) -> tuple[Label, ...]:
    """Return a label for each class: named as its folder, spoken of as its class name, words after a bar synonyms."""
    pairs = zip(dataset.folders, dataset.classnames, strict=True)
    return tuple(Label(folder, Label.parse(name).words if "|" in name else (name,)) for folder, name in pairs)


def called(label: Label) -> str:
    """Return what a class is called, `word | synonym, synonym`: what `spoken_names` reads."""
    first, *others = label.words
    return f"{first} | {', '.join(others)}" if others else first


def read_names(source: str, dataset: Dataset) -> tuple[Label, ...]:
    """Read what to call each class.

    FOLDER, a tab, `word | synonyms`: classes that are not named keep their names.   Else labels as `load_labels` reads
    them, or the names in CLIP_benchmark's JSON: matched by name where they are the folders', else in their order.
    Raises UsageError.
    """
    lines = _lines(source, dataset) if _is_text(source) else []
    if any("\t" in line for line in lines):
        said = _of_pairs(source, lines, dataset)
        if twice := [folder for folder, words in said.items() if len(words) > 1]:
            raise UsageError(f"{source} names {twice[0]} twice", hint="synonyms stand in one line: word | synonym")
        own = {label.name: label.words for label in spoken_names(dataset)}
        given = {folder: Label.parse(words[0]).words for folder, words in said.items()}
        return tuple(Label(folder, given.get(folder, own[folder])) for folder in dataset.folders)
    labels = [Label.parse(line) for line in lines] if lines else _labels(source)
    folders = _matched([label.name for label in labels], dataset)
    if None not in folders and len(set(folders)) == len(labels) == len(dataset.folders):
        place = {folder: label for folder, label in zip(folders, labels, strict=True) if folder}
        labels = [place[folder] for folder in dataset.folders]
    if len(labels) != len(dataset.folders):
        raise UsageError(
            f"{source} holds {len(labels)} labels for {len(dataset.folders)} classes",
            hint=f"give one for each of {', '.join(dataset.folders)}, in this order, or as FOLDER, a tab, words",
        )
    return tuple(Label(folder, label.words) for folder, label in zip(dataset.folders, labels, strict=True))


def read_captions(source: str, dataset: Dataset) -> dict[str, tuple[str, ...]]:
    """Read sentences for each class: FOLDER, a tab, a sentence, as often as wanted; or a line a class in their order.

    Raises UsageError for a folder that is none, a class without, or another number of lines than of classes.
    """
    lines = _lines(source, dataset)
    if any("\t" in line for line in lines):
        return _complete(_of_pairs(source, lines, dataset), dataset)
    if len(lines) != len(dataset.folders):
        raise UsageError(
            f"{source} has {len(lines)} lines for {len(dataset.folders)} classes",
            hint=f"give one for each of {', '.join(dataset.folders)}, in this order, or FOLDER, a tab, a sentence",
        )
    return {folder: (line,) for folder, line in zip(dataset.folders, lines, strict=True)}


def by_class(texts: Mapping[str, Sequence[str]], dataset: Dataset) -> dict[str, tuple[str, ...]]:
    """Give each class what is said of it by its folder's name or its own.   Raises UsageError as `read_captions`."""
    return _complete(_gathered(texts.items(), dataset), dataset)


def _is_text(source: str) -> bool:
    return Path(source).is_file() and not source.endswith(".json")


def _labels(source: str) -> list[Label]:
    """Labels of a source, those of CLIP_benchmark's JSON with the names that stand there twice."""
    if source.partition("#")[0].endswith(".json"):
        return [Label(name, (name,)) for name in load_classnames(source)]
    return load_labels(source)


def _lines(source: str, dataset: Dataset) -> list[str]:
    """Lines that are no comment; one that begins with a folder's name is none, whatever the name begins with."""
    try:
        text = Path(source).read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise UsageError(f"can't read {source}: {error.strerror}") from error
    known = {*dataset.folders, *dataset.classnames}
    kept = [
        line.strip()
        for line in text.split("\n")
        if line.strip() and (line[0] != "#" or line.partition("\t")[0].strip() in known)
    ]
    if any("\udc80" <= letter <= "\udcff" for line in kept for letter in line.rpartition("\t")[2]):
        raise UsageError(f"can't read {source}: it is not in UTF-8")
    return kept


def _of_pairs(source: str, lines: Iterable[str], dataset: Dataset) -> dict[str, tuple[str, ...]]:
    pairs = []
    for line in lines:
        folder, _, words = line.partition("\t")
        if not words.strip() or "\t" in words.strip():
            raise UsageError(f"{source} has a line that is not FOLDER, a tab, words: {line!r}")
        pairs.append((folder.strip(), (words.strip(),)))
    return _gathered(pairs, dataset)


def _gathered(pairs: Iterable[tuple[str, Sequence[str]]], dataset: Dataset) -> dict[str, tuple[str, ...]]:
    """What is said of each class, by its folder.   Raises UsageError for what is no class."""
    said = list(pairs)
    found: dict[str, tuple[str, ...]] = {}
    for (name, texts), folder in zip(said, _matched([name for name, _ in said], dataset), strict=True):
        if folder is None:
            raise UsageError(
                f"{name} is no class of {dataset.name}", hint=f"there are {', '.join(dataset.folders)}"
            )
        found[folder] = (*found.get(folder, ()), *texts)
    return found


def _complete(said: dict[str, tuple[str, ...]], dataset: Dataset) -> dict[str, tuple[str, ...]]:
    if missing := [folder for folder in dataset.folders if not said.get(folder)]:
        raise UsageError(f"nothing is said of {', '.join(missing)}")
    return said


def _matched(names: Sequence[str], dataset: Dataset) -> list[str | None]:
    """Return the folder that each name means, None for none.

    The folder's own name goes before what the class is called, and both before the same in other case or with blanks
    for underscores.   Raises UsageError for a name that may mean several.
    """
    pairs = list(zip(dataset.folders, dataset.classnames, strict=True))
    levels = (
        _folders((folder, folder) for folder, _ in pairs),
        _folders((name, folder) for folder, name in pairs),
        _folders(
            (_key(way), folder) for pair in pairs for way, folder in ((pair[0], pair[0]), (pair[1], pair[0]))
        ),
    )
    found: list[str | None] = []
    for name in names:
        meant = levels[0].get(name) or levels[1].get(name) or levels[2].get(_key(name)) or {}
        if len(meant) > 1:
            raise UsageError(f"{name} may be any of {', '.join(meant)}", hint="write it as the folder is called")
        found.append(next(iter(meant), None))
    return found


def _folders(pairs: Iterable[tuple[str, str]]) -> dict[str, dict[str, None]]:
    found: dict[str, dict[str, None]] = {}
    for name, folder in pairs:
        found.setdefault(name, {})[folder] = None
    return found


def _key(name: str) -> str:
    return name.replace("_", " ").casefold().strip()
