"""Tables of photos with long captions and short ones.

What is no table with a column `short` gives the first sentence of each caption for its short one, up to the first full
stop that a blank follows, as Long-CLIP (arXiv:2403.15378) trained with.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from search.errors import UsageError
from search.train import shards
from search.train.samples import Pairs, parquet_columns, parquet_rows

_IMAGE = ("image", "path", "file", "filename", "image_path")
_LONG = ("long", "caption", "text")
_SHORT = "short"


def read(source: str) -> Pairs:
    """Read photos with long and short captions, as many lines a photo as it has of them; paths are relative to it.

    A .tsv, .csv or .parquet whose header names an image, `long` or `caption`, and `short`; ShareGPT4V's list, .json;
    or whatever `Pairs.of` reads.   Raises UsageError.
    """
    suffix = Path(source).suffix.lower()
    if suffix == ".json":
        return _grouped(source, ((path, text, first_sentence(text)) for path, text in _conversations(source)))
    if shards.are_meant(source):
        columns: Sequence[str] = ()
    else:
        columns = parquet_columns(source) if suffix == ".parquet" else _head(source, suffix)
    if _SHORT not in (name.strip().lower() for name in columns):
        pairs = Pairs.of(source)
        shorts = tuple(tuple(map(first_sentence, captions)) for captions in pairs.captions)
        return replace(pairs, shorts=shorts)
    names = [_column(source, columns, wanted) for wanted in (_IMAGE, _LONG, (_SHORT,))]
    if suffix == ".parquet":
        return _grouped(source, (map(_cell, row) for row in parquet_rows(source, names)))
    return _grouped(source, _rows(source, suffix, columns, names))


def first_sentence(text: str) -> str:
    """Return what stands before the first full stop that a blank follows; all of it where none does."""
    return " ".join(text.split()).partition(". ")[0]


def _grouped(source: str, rows: Iterable[Iterable[str]]) -> Pairs:
    folder = os.path.dirname(os.path.realpath(source))
    said: dict[str, list[tuple[str, str]]] = {}
    for path, long, short in rows:
        if "\0" in path:
            raise UsageError(f"{source} names no file: there is a NUL in {path!r}")
        if path and long:
            absolute = os.path.realpath(os.path.join(folder, path))
            said.setdefault(absolute, []).append((long, short or first_sentence(long)))
    if not said:
        raise UsageError(f"{source} holds no captions")
    longs = tuple(tuple(long for long, _ in of_one) for of_one in said.values())
    return Pairs(tuple(said), longs, tuple(tuple(short for _, short in of_one) for of_one in said.values()))


def _column(source: str, columns: Sequence[str], wanted: Sequence[str]) -> str:
    known = {name.strip().lower(): name for name in columns}
    found = next((known[name] for name in wanted if name in known), None)
    if found is None:
        raise UsageError(f"{source} has a column `{_SHORT}`, but none called {' or '.join(wanted)}")
    return found


def _lines(source: str, suffix: str) -> Iterable[list[str]]:
    """Yield the cells of each line: in a .tsv quotes mean themselves."""
    try:
        with open(source, encoding="utf-8-sig", errors="surrogateescape", newline="") as table:
            if suffix in (".tsv", ".tab"):
                yield from (line.rstrip("\r").split("\t") for line in table.read().split("\n"))
            else:
                yield from csv.reader(table)
    except (OSError, csv.Error) as error:
        raise UsageError(f"can't read {source}: {error}") from None


def _head(source: str, suffix: str) -> list[str]:
    """Return the cells of a table's first line; none of what `Pairs` reads otherwise."""
    if suffix not in (".tsv", ".tab", ".csv"):
        return []
    return next(iter(_lines(source, suffix)), [])


def _rows(source: str, suffix: str, columns: Sequence[str], names: Sequence[str]) -> Iterable[list[str]]:
    places = [columns.index(name) for name in names]
    for number, line in enumerate(_lines(source, suffix), 1):
        if number == 1 or not any(line):
            continue
        if len(line) != len(columns):
            raise UsageError(f"row {number} of {source} has {len(line)} columns, not {len(columns)}")
        yield [_text(line[place].strip()) if place != places[0] else line[place].strip() for place in places]


def _cell(value: Any) -> str:
    return str(value or "").strip()


def _text(cell: str) -> str:
    """Return a cell as text that a model can read, whatever its bytes."""
    return os.fsencode(cell).decode("utf-8", errors="replace")


def _conversations(source: str) -> Iterable[tuple[str, str]]:
    """Yield image and caption of ShareGPT4V's list: of each entry the first thing that is answered.

    Where an image is not beside the list, `present` tells.   Raises UsageError.
    """
    try:
        entries = json.loads(Path(source).read_text(encoding="utf-8"))
        for entry in entries:
            text = next(_cell(one["value"]) for one in entry["conversations"] if one["from"] == "gpt")
            yield _cell(entry["image"]), " ".join(text.split())
    except OSError as error:
        raise UsageError(f"can't read {source}: {error}") from None
    except (ValueError, KeyError, TypeError, StopIteration, RecursionError) as error:
        raise UsageError(f"{source} is no list of images with conversations: {error!r}", hint=_JSON) from None


_JSON = 'each entry: {"image": "a.jpg", "conversations": [{"from": "human", …}, {"from": "gpt", "value": "…"}]}'
