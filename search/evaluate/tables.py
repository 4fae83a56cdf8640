"""Tables of photos and what is said of each, .tsv or CSV, with a first line that names the columns or without."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from search.errors import UsageError

IMAGE = ("image", "path", "file", "filename", "filepath", "image_path")
"""What the column of photos may be called."""

CAPTION = ("caption", "text", "long")
"""What the column of captions may be called, the likeliest first."""

SHORT = "short"


@dataclass(frozen=True, slots=True)
class Table:
    """columns: what the first line calls them, in small letters; none where it is a photo's.

    lines: those with anything in them, and their numbers, without the first where that names columns.
    """

    file: str
    columns: tuple[str, ...]
    lines: Sequence[tuple[int, list[str]]]

    @classmethod
    def of(cls, file: str) -> Table:
        """Read a table; names that are no text survive.   Raises UsageError."""
        lines = [(number, cells) for number, cells in _lines(file) if any(cells)]
        names = tuple(cell.strip().lower() for cell in lines[0][1]) if lines else ()
        return cls(file, names, lines[1:]) if _are_names(names) else cls(file, (), lines)

    def place(self, wanted: Sequence[str]) -> int:
        """Return which column is called as wanted, by the first that one is.   Raises UsageError."""
        return self.columns.index(found(self.file, self.columns, wanted))

    def places(self, likely: Sequence[str] = ()) -> tuple[int, int]:
        """Return which columns hold photos and what is said: as is likely, else the other one of two.

        Raises UsageError.
        """
        if self.columns and (len(self.columns) != 2 or not set(self.columns).isdisjoint(likely)):
            return self.place(IMAGE), self.place(likely)
        first = self.place(IMAGE) if self.columns else 0
        return first, 1 - first

    def rows(self, places: Sequence[int]) -> Iterator[tuple[int, str, list[str]]]:
        """Yield number, path, made absolute, and texts of each line.

        places: of the columns, that of photos first.   Raises UsageError.
        """
        width, folder = len(self.columns) or 2, os.path.dirname(os.path.realpath(self.file))
        for number, cells in self.lines:
            if len(cells) != width and width > 2:
                raise UsageError(f"line {number} of {self.file} has {len(cells)} columns, not {width}")
            path, *texts = (cells[place].strip() for place in places) if len(cells) == width else ("",)
            if not path:
                wanted = "is not two columns, a path and what it is" if width == 2 else "names no photo"
                raise UsageError(f"line {number} of {self.file} {wanted}")
            absolute = located(path, folder, f"line {number} of {self.file}")
            if not self.columns and number == 1 and not os.path.splitext(path)[1] and not os.path.exists(absolute):
                raise UsageError(
                    f"the first line of {self.file} names no photo, and of its columns is none called image or path"
                )
            yield number, absolute, texts


def found(file: str, columns: Sequence[str], wanted: Sequence[str]) -> str:
    """Return the column that is called as wanted, by the first that one is.   Raises UsageError for none."""
    known = {name.strip().lower(): name for name in reversed(columns)}
    name = next((known[name] for name in wanted if name in known), None)
    if name is None:
        has = f"has columns {', '.join(columns)}" if columns else "has no first line that names its columns"
        raise UsageError(f"{file} {has}, none called {' or '.join(wanted) or 'image alone'}")
    return name


def located(path: str, folder: str, where: str) -> str:
    """Return a path of a table made absolute.   Raises UsageError for one that no file can have."""
    if "\0" in path:
        raise UsageError(f"{where} names no file: there is a NUL in it")
    return os.path.realpath(os.path.join(folder, path))


def text(cell: str) -> str:
    """Return a cell as text that a model can read, whatever its bytes."""
    return os.fsencode(cell).decode("utf-8", errors="replace")


def _are_names(cells: Sequence[str]) -> bool:
    """Whether a first line names columns: a photo's comes first, or stands beside one of a text."""
    return bool(cells) and (
        cells[0] in IMAGE or not (set(cells).isdisjoint(IMAGE) or set(cells).isdisjoint((*CAPTION, SHORT)))
    )


def _lines(file: str) -> list[tuple[int, list[str]]]:
    """Return the cells of each line; in a .tsv quotes mean themselves, and only a new line ends one."""
    try:
        with open(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as table:
            if file.lower().endswith((".tsv", ".tab")):
                lines = table.read().replace("\r\n", "\n").split("\n")
                return [(number, line.split("\t")) for number, line in enumerate(lines, 1)]
            reader = csv.reader(table)
            return [(reader.line_num, line) for line in reader]
    except (OSError, csv.Error) as error:
        raise UsageError(f"can't read {file}: {error}") from error
