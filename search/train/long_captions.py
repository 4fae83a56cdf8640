"""Tables of photos with long captions and short ones.

What is no table with a column `short` gives the first sentence of each caption for its short one, up to the first full
stop that a blank follows, as Long-CLIP (arXiv:2403.15378) trained with.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from search.errors import UsageError
from search.evaluate.tables import IMAGE, SHORT, Table, found, located, text
from search.train import shards
from search.train.samples import Pairs, parquet_columns, parquet_rows
from search.types import Skip, SkipReason

_LONG = ("long", "caption", "text")


def read(source: str) -> Pairs:
    """Read photos with long and short captions, as many lines a photo as it has of them; paths are relative to it.

    A .tsv, .csv or .parquet whose columns are called image, `long` or `caption`, and `short`; ShareGPT4V's list, .json;
    or whatever `Pairs.of` reads.   Raises UsageError.
    """
    suffix = Path(source).suffix.lower()
    if suffix == ".json":
        folder = os.path.dirname(os.path.realpath(source))
        said = _conversations(source)
        return _grouped(
            source, ((number, located(path, folder, source), [[text], []]) for number, path, text in said)
        )
    rows = None
    if not shards.are_meant(source):
        rows = _of_parquet(source) if suffix == ".parquet" else _of_table(source)
    if rows is not None:
        return _grouped(source, rows)
    pairs = Pairs.of(source, likely=_LONG)
    return replace(pairs, shorts=tuple(tuple(map(first_sentence, captions)) for captions in pairs.captions))


def first_sentence(text: str) -> str:
    """Return what stands before the first full stop that a blank follows; all of it where none does."""
    return " ".join(text.split()).partition(". ")[0]


_Row = tuple[int, str, list[list[str]]]  # number, path, long captions and short ones


def _of_table(source: str) -> Iterator[_Row] | None:
    """Return the rows of a table with short captions; None for one without."""
    table = Table.of(source)
    if SHORT not in table.columns:
        return None
    rows = table.rows([table.place(wanted) for wanted in (IMAGE, _LONG, (SHORT,))])
    return ((number, path, [[text(cell)] if cell else [] for cell in cells]) for number, path, cells in rows)


def _of_parquet(source: str) -> Iterator[_Row] | None:
    columns = parquet_columns(source)
    if SHORT not in (name.strip().lower() for name in columns):
        return None
    return parquet_rows(source, [found(source, columns, wanted) for wanted in (IMAGE, _LONG, (SHORT,))])


def _grouped(source: str, rows: Iterable[_Row]) -> Pairs:
    said: dict[str, list[tuple[str, str]]] = {}
    skipped = []
    for number, path, (longs, shorts) in rows:
        if longs:
            said.setdefault(path, []).extend(_paired(longs, shorts, f"row {number} of {source}"))
        else:
            skipped.append(Skip(path, SkipReason.EMPTY, f"no long caption in row {number}"))
    if not said:
        raise UsageError(f"{source} holds no captions")
    captions, in_short = (
        tuple(tuple(pair[which] for pair in of_one) for of_one in said.values()) for which in (0, 1)
    )
    return Pairs(tuple(said), captions, in_short, skipped=tuple(skipped))


def _paired(longs: Sequence[str], shorts: Sequence[str], where: str) -> list[tuple[str, str]]:
    """Return each long caption with its short one; where either is alone, it is that of all the others."""
    if not shorts:
        return [(long, first_sentence(long)) for long in longs]
    count = max(len(longs), len(shorts))
    if not {len(longs), len(shorts)} <= {1, count}:
        raise UsageError(f"{where} has {len(longs)} long captions and {len(shorts)} short ones")
    return list(
        zip(*(given if len(given) == count else [*given] * count for given in (longs, shorts)), strict=True)
    )


def _cell(value: Any) -> str:
    return str(value or "").strip()


def _conversations(source: str) -> Iterator[tuple[int, str, str]]:
    """Yield number, image and caption of ShareGPT4V's list: of each entry the first thing that is answered.

    Where an image is not beside the list, `present` tells.   Raises UsageError.
    """
    try:
        entries = json.loads(Path(source).read_text(encoding="utf-8"))
        for number, entry in enumerate(entries, 1):
            said = next(_cell(one["value"]) for one in entry["conversations"] if one["from"] == "gpt")
            yield number, _cell(entry["image"]), " ".join(said.split())
    except OSError as error:
        raise UsageError(f"can't read {source}: {error}") from None
    except (ValueError, KeyError, TypeError, StopIteration, RecursionError) as error:
        raise UsageError(f"{source} is no list of images with conversations: {error!r}", hint=_JSON) from None


_JSON = 'each entry: {"image": "a.jpg", "conversations": [{"from": "human", …}, {"from": "gpt", "value": "…"}]}'
