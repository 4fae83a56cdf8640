"""The labels of a library as lists that `search tags import` takes in again: CSV and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from search.documents import path_fields
from search.library.exporting import about
from search.tables import csv_lines

if TYPE_CHECKING:
    from search.types import LabelRecord, Photo, RunInfo

_COLUMNS = ("label", "state", "probability", "score", "source", "encoder", "label_set", "run")


def csv_parts(found: Iterable[tuple[Photo, list[LabelRecord]]], runs: dict[int, RunInfo]) -> Iterator[bytes]:
    """Yield a table with a line for each label of a photo."""
    rows = ({**path_fields(photo.path), **_fields(record, runs)} for photo, records in found for record in records)
    for line in csv_lines(("path", *_COLUMNS, "path_bytes"), rows):
        yield line.encode("utf-8", "backslashreplace")


def json_parts(found: Iterable[tuple[Photo, list[LabelRecord]]], runs: dict[int, RunInfo]) -> Iterator[bytes]:
    """Yield one document, a photo a line."""
    before = '{"photos": ['
    for photo, records in found:
        document = {**path_fields(photo.path), "labels": [_fields(record, runs) for record in records]}
        yield f"{before}\n {json.dumps(document)}".encode()
        before = ","
    yield b"\n]}\n" if before == "," else b'{"photos": []}\n'


def _fields(record: LabelRecord, runs: dict[int, RunInfo]) -> dict[str, Any]:
    """Return what is told of a label."""
    told = {"label": record.label, **about(record, runs)}
    return {name: told[name] for name in _COLUMNS}


PARTS = {"csv": csv_parts, "json": json_parts}
