"""Rows as lines of CSV."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_lines(columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield rows as lines of a table, below a line with the columns' names; no cell is a formula."""
    import csv

    lines: list[str] = []
    writer = csv.DictWriter(_Lines(lines), columns, extrasaction="ignore", lineterminator="\r\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _harmless(value) for name, value in row.items()})
        yield from lines
        lines.clear()
    yield from lines


class _Lines:
    """What csv writes to: a list of lines that end as Unix has it; told to do so itself, it would not quote a \\r."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def write(self, line: str) -> None:
        self._lines.append(line.removesuffix("\r\n") + "\n")


def _harmless(value: object) -> object:
    """Keep a spreadsheet from taking text for a formula (a camera's name can be anything): an apostrophe before it.

    What has apostrophes before a formula gets one more, so that each text can be told from what it was.
    """
    return f"'{value}" if isinstance(value, str) and value.lstrip("'").startswith(_FORMULA) else value
