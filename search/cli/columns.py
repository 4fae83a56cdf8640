"""Text in columns of a terminal, where a letter may be none, one or two columns wide."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterator, Sequence

_GAP = 2
_LEAST = 12  # columns that remain of the one that gives way


def width(text: str) -> int:
    """Return how many columns a text takes: East Asian wide letters two, marks on the letter before them none."""
    return len(text) if text.isascii() else sum(map(_width, text))


def _width(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def shortened(text: str, columns: int) -> str:
    """Return a text that fits: its middle left out, for of a path both ends tell most."""
    if width(text) <= columns:
        return text
    tail = _head(text[::-1], columns * 2 // 3)[::-1]
    return f"{_head(text, columns - 1 - width(tail))}…{tail}"


def _head(text: str, columns: int) -> str:
    """As much of a text's beginning as fits."""
    taken = 0
    for number, char in enumerate(text):
        taken += _width(char)
        if taken > columns:
            return text[:number]
    return text


def padded(text: str, columns: int, *, right: bool = False) -> str:
    """Return a text filled with blanks to a number of columns."""
    blanks = " " * (columns - width(text))
    return blanks + text if right else text + blanks


def aligned(
    rows: Sequence[Sequence[str]], *, right: Collection[int], giving: int | None, columns: int | None
) -> Iterator[str]:
    """Yield rows as lines whose columns stand below one another.

    right: columns set flush right.   giving: the column that is shortened where lines are longer than `columns`.
    """
    widths = [max(map(width, column)) for column in zip(*rows, strict=True)]
    if giving is not None and columns is not None:
        over = sum(widths) + _GAP * (len(widths) - 1) - columns
        widths[giving] -= max(0, min(over, widths[giving] - _LEAST))
    for row in rows:
        cells = [
            padded(shortened(cell, room) if i == giving else cell, room, right=i in right)
            for i, (cell, room) in enumerate(zip(row, widths, strict=True))
        ]
        yield (" " * _GAP).join(cells).rstrip()
