"""Photos of which one knows what they show: folders of classes, tables of labels, tables of captions."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from search.errors import UsageError
from search.evaluate.tables import CAPTION, IMAGE, Table, text
from search.photos.scan import ScanOptions, scan
from search.types import Skip, SkipReason

if TYPE_CHECKING:
    import numpy.typing as npt

WALK = ScanOptions(follow_symlinks=True)  # data sets are often farms of links
_WORDNET = re.compile(r"n\d{8}[_ -]+(?=\S)")


@dataclass(frozen=True, slots=True)
class Dataset:
    """Photos and the class of each.

    classnames: (C,) what prompts call the classes.   paths: (N,).   targets: (N,) int64, places in classnames.
    folders: (C,) what the classes are called where they come from.   root: the folder that holds all photos, "" if
    that is not known.   truth: (N, C) bool where a photo may be of several classes, else None; targets then has the
    first of each.   empty: classes left out, because no photo is of them; see `present`.
    """

    name: str
    classnames: tuple[str, ...]
    paths: tuple[str, ...]
    targets: npt.NDArray[np.int64]
    folders: tuple[str, ...] = ()
    root: str = ""
    truth: npt.NDArray[np.bool_] | None = None
    empty: tuple[str, ...] = ()

    @classmethod
    def of(cls, source: str | os.PathLike[str]) -> Dataset:
        """Read a folder of class folders, classes sorted by name, or a CSV of path and label (`a;b` for several).

        A folder without photos is a class too. Paths in a CSV are relative to it; a first line "path,label" is none
        of the photos.
        Raises UsageError where that gives no photo.
        """
        path = os.path.realpath(os.path.expanduser(source))
        found = _of_folder(path) if os.path.isdir(path) else _of_table(path)
        if not found.paths:
            raise UsageError(f"{os.fspath(source)} holds no photo of a class", hint=_WANTED)
        return found

    @classmethod
    def by_folder(cls, source: str | os.PathLike[str]) -> Dataset:
        """Read a folder, however deep: a photo's class is the name of the folder it is in, as in folders of styles.

        Raises UsageError where that gives no photo.
        """
        root = os.path.realpath(os.path.expanduser(source))
        paths = [file.path for file in scan(root, WALK)]
        if not paths:
            raise UsageError(f"{os.fspath(source)} holds no photo of a class", hint=_WANTED)
        inside: dict[str, list[str]] = {}
        for path in paths:
            inside.setdefault(os.path.basename(os.path.dirname(path)), []).append(path)
        return _of_classes(root, inside)

    def named(self, names: Sequence[str]) -> Dataset:
        """Return it with classes called otherwise, all of them in order."""
        return replace(self, classnames=tuple(names))

    def present(self) -> Dataset:
        """Return it without the classes that no photo is of; `empty` has them then.

        What files say of the classes is matched before: who writes a line a class counts folders, not what can be read.
        """
        if self.truth is not None:
            used = self.truth.any(axis=0)
        else:
            used = np.bincount(self.targets, minlength=len(self.folders)) > 0
        kept = np.flatnonzero(used).tolist()
        places = np.append(np.cumsum(used) - 1, -1)  # of a photo of no class: none
        return replace(
            self,
            classnames=tuple(self.classnames[old] for old in kept),
            folders=tuple(self.folders[old] for old in kept),
            targets=places[self.targets].astype(np.int64),
            truth=None if self.truth is None else self.truth[:, kept],
            empty=(*self.empty, *(self.folders[old] for old in np.flatnonzero(~used).tolist())),
        )

    def take(self, rows: Sequence[int] | npt.NDArray[Any]) -> Dataset:
        """Return it with only some of its photos, in this order; classes stay."""
        chosen = np.asarray(rows, np.int64)
        return replace(
            self,
            paths=tuple(self.paths[row] for row in chosen.tolist()),
            targets=self.targets[chosen],
            truth=None if self.truth is None else self.truth[chosen],
        )

    def only(self, folders: Sequence[str]) -> Dataset:
        """Return it with only the photos of some classes, numbered in the order given."""
        places = {self.folders.index(folder): new for new, folder in enumerate(folders)}
        rows = [row for row, target in enumerate(self.targets.tolist()) if target in places]
        return replace(
            self.take(rows),
            targets=np.array([places[self.targets[row]] for row in rows], np.int64),
            classnames=tuple(self.classnames[old] for old in places),
            folders=tuple(folders),
            truth=None if self.truth is None else self.truth[rows][:, list(places)],
        )


_WANTED = "give a folder that holds a folder of photos for each class, or a CSV of path and label"


def spoken(folder: str) -> str:
    """Return what a class folder is called in a prompt: no WordNet number before it, blanks for underscores."""
    return _WORDNET.sub("", folder).replace("_", " ").strip() or folder


def _of_folder(root: str) -> Dataset:
    classes = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and entry.name[0] != ".")
    inside: dict[str, list[str]] = {name: [] for name in classes}
    for file in scan(root, WALK):
        folder, separator, _ = os.path.relpath(file.path, root).partition(os.sep)
        if separator and folder in inside:
            inside[folder].append(file.path)
    return _of_classes(root, inside)


def _of_classes(root: str, inside: Mapping[str, Sequence[str]]) -> Dataset:
    """A data set of the photos of each class."""
    folders = sorted(inside)
    return Dataset(
        name=os.path.basename(root) or root,
        classnames=tuple(spoken(text(folder)) for folder in folders),
        paths=tuple(path for folder in folders for path in inside[folder]),
        targets=np.repeat(np.arange(len(folders), dtype=np.int64), [len(inside[folder]) for folder in folders]),
        folders=tuple(folders),
        root=root,
    )


def _of_table(file: str) -> Dataset:
    table = Table.of(file)
    lines = [
        (number, path, tuple(dict.fromkeys(filter(None, map(str.strip, label.split(";"))))))
        for number, path, (label,) in table.rows(table.places())
    ]
    several = any(len(labels) > 1 for _, _, labels in lines)
    if bare := [number for number, _, labels in lines if not labels and not several]:
        raise UsageError(
            f"line {bare[0]} of {file} has no label", hint="only where photos have several, a;b, may one have none"
        )
    rows = [(path, labels) for _, path, labels in lines]
    if twice := _twice([path for path, _ in rows]):
        raise UsageError(f"{file} names {twice} twice", hint="several labels of a photo stand in one line: a;b")
    folders = tuple(sorted({label for _, labels in rows for label in labels}))
    place = {folder: number for number, folder in enumerate(folders)}
    truth = np.zeros((len(rows), len(folders)), np.bool_)
    for row, (_, labels) in enumerate(rows):
        truth[row, [place[label] for label in labels]] = True
    return Dataset(
        name=Path(file).stem,
        classnames=tuple(spoken(text(folder)) for folder in folders),
        paths=tuple(path for path, _ in rows),
        targets=np.array([place[labels[0]] if labels else -1 for _, labels in rows], np.int64),
        folders=folders,
        truth=truth if several else None,
    )


@dataclass(frozen=True, slots=True)
class Captions:
    """Photos and what is said of them.

    paths: (N,).   captions: (M,).   owners: (M,) int64, the photo that each is of.   root: as in Dataset.
    skipped: lines that say nothing.
    """

    name: str
    paths: tuple[str, ...]
    captions: tuple[str, ...]
    owners: npt.NDArray[np.int64]
    root: str = ""
    skipped: tuple[Skip, ...] = ()

    @classmethod
    def of(
        cls, source: str | os.PathLike[str], *, column: str | None = None, likely: Sequence[str] = CAPTION
    ) -> Captions:
        """Read a table of image and caption, `.tsv` or CSV, as many lines an image as it has captions.

        Paths are relative to it. A first line may name the columns; two need no names.
        column: of the captions; None: the first that is called as is likely.   Raises UsageError for none.
        """
        file = os.path.realpath(os.path.expanduser(source))
        table = Table.of(file)
        named = (column.strip().lower(),) if column is not None else ()
        places = (table.place(IMAGE), table.place(named)) if named else table.places(likely)
        lines = [(number, path, caption) for number, path, (caption,) in table.rows(places)]
        rows = [(path, caption) for _, path, caption in lines if caption]
        empty = tuple(
            Skip(path, SkipReason.EMPTY, f"no caption in line {number}")
            for number, path, said in lines
            if not said
        )
        if not rows:
            raise UsageError(f"{os.fspath(source)} holds no captions")
        place = {path: number for number, path in enumerate(dict.fromkeys(path for path, _ in rows))}
        owners = np.array([place[path] for path, _ in rows], np.int64)
        return cls(
            Path(file).stem, tuple(place), tuple(text(caption) for _, caption in rows), owners, skipped=empty
        )

    def take(self, rows: Sequence[int] | npt.NDArray[Any]) -> Captions:
        """Return it with only some of its photos, in this order, and their captions."""
        place = {old: new for new, old in enumerate(np.asarray(rows, np.int64).tolist())}
        kept = [row for row, owner in enumerate(self.owners.tolist()) if owner in place]
        return replace(
            self,
            paths=tuple(self.paths[old] for old in place),
            captions=tuple(self.captions[row] for row in kept),
            owners=np.array([place[int(self.owners[row])] for row in kept], np.int64),
        )


def _twice(paths: Sequence[str]) -> str:
    """Return the first path that was there before, "" if none was."""
    seen: set[str] = set()
    for path in paths:
        if path in seen:
            return path
        seen.add(path)
    return ""
