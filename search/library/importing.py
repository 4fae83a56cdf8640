"""Lists of labels that come from elsewhere: a CSV or JSON file such as an export writes, keywords of files."""

from __future__ import annotations

import base64
import binascii
import csv
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from search.errors import UsageError
from search.photos.keywords import legible
from search.types import Skip

UNKNOWN, MALFORMED = "unknown", "malformed"
"""Why a row of a list can't be used: its photo is not in the library; it is not what an export writes."""

ACCEPTED, REJECTED = frozenset({"accepted", "imported"}), frozenset({"rejected"})
_NOBODYS = frozenset({"proposed", "file"})
_GUARDED = ("=", "+", "-", "@", "\t", "\r")

Row: TypeAlias = tuple[str, str, str]  # path, label, state
At: TypeAlias = Callable[[Sequence[str]], Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Found:
    """What a list says: of labels on photos, by photo id and label, whether they are right.

    left: rows that are nobody's word, by state.   skipped: rows that can't be used.
    """

    said: Mapping[tuple[int, str], bool]
    left: Mapping[str, int] = field(default_factory=dict)
    skipped: tuple[Skip, ...] = ()


def keywords(own: Mapping[int, Sequence[str]]) -> Found:
    """Return keywords of photos' files, by photo id, as labels that are right."""
    return Found({(id_, label): True for id_, labels in own.items() for label in labels})


def read(path: str, at: At) -> Found:
    """Read a CSV with the columns path, label and, if need be, state, or JSON `{"photos": [{"path", "labels"}]}`.

    Without a state a label is right. Relative paths start at the file's folder; the last word on a label counts.
    at: tells the ids of paths.   Raises UsageError for a file that can't be read or is neither.
    """
    folder, skipped = os.path.dirname(path), list[Skip]()
    rows = list(_rows(path, folder, skipped))
    ids = at(list({place for place, *_ in rows}))
    said: dict[tuple[int, str], bool] = {}
    left: Counter[str] = Counter()
    strangers = dict.fromkeys(place for place, *_ in rows if place not in ids)
    skipped += [Skip(place, UNKNOWN, "it is not in the library") for place in strangers]
    for place, label, state in rows:
        if state not in ACCEPTED | REJECTED:
            left[state] += 1
        elif place in ids:
            said[ids[place], label] = state in ACCEPTED
    return Found(said, dict(left), tuple(skipped))


def _rows(path: str, folder: str, skipped: list[Skip]) -> Iterator[Row]:
    """Yield the rows of a file, paths absolute; note those that are no such rows."""
    text = _text(path)
    listed = _of_json(path, text) if text.lstrip().startswith(("{", "[")) else _of_csv(path, text)
    for number, found in listed:
        place, label, state = _place(found), _label(found.get("label")), found.get("state")
        if place is None or label is None:
            skipped.append(Skip(path, MALFORMED, f"entry {number} has no path or no label"))
        elif state not in (None, "", *ACCEPTED, *REJECTED, *_NOBODYS):
            skipped.append(Skip(path, MALFORMED, f"entry {number} has the state {state!r}, which means nothing"))
        else:
            yield os.path.join(folder, place), label, state or "accepted"


def _text(path: str) -> str:
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(f"can't read {path}: {reason}") from error


def _of_csv(path: str, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        if not {"path", "label"} <= set(reader.fieldnames or ()):
            raise UsageError(f"{path} is no CSV with the columns path and label", hint=_HINT)
        for row in reader:
            yield reader.line_num, {name: _unguarded(value) for name, value in row.items() if name}
    except csv.Error as error:
        raise UsageError(f"{path} is no CSV: {error}", hint=_HINT) from error


def _of_json(path: str, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        photos = json.loads(text)["photos"]
        entries = [(photo, label) for photo in photos for label in _listed(photo["labels"])]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UsageError(f"{path} is no JSON of photos with labels", hint=_HINT) from error
    for number, (photo, label) in enumerate(entries, start=1):
        said = label if isinstance(label, dict) else {"label": label}
        yield number, {**said, "path": photo.get("path"), "path_bytes": photo.get("path_bytes")}


def _listed(labels: Any) -> list[Any]:
    """Return a photo's labels; one that is no list is its only one."""
    return labels if isinstance(labels, list) else [labels]


_HINT = "'search tags export --format csv' writes one"


def _place(found: Mapping[str, Any]) -> str | None:
    """Return where an entry's photo is; its bytes where the name is not UTF-8."""
    place = found.get("path")
    if isinstance(raw := found.get("path_bytes"), str) and raw:
        try:
            place = os.fsdecode(base64.b64decode(raw, validate=True))
        except (binascii.Error, ValueError):
            return None
    return (
        place if isinstance(place, str) and place and "\0" not in place and _encodes(place, os.fsencode) else None
    )


def _label(found: Any) -> str | None:
    """Return a label as it is kept; None for what is no text, or none that can be seen."""
    return legible(found) or None if isinstance(found, str) and _encodes(found, str.encode) else None


def _encodes(text: str, encode: Callable[[str], bytes]) -> bool:
    """Whether a text is one, and not halves of characters, which JSON lets through."""
    try:
        encode(text)
    except UnicodeEncodeError:
        return False
    return True


def _unguarded(value: Any) -> Any:
    """Return a cell without the apostrophe that keeps a spreadsheet from taking it for a formula.

    A formula behind apostrophes of its own has one more.
    """
    guarded = isinstance(value, str) and value.startswith("'") and value.lstrip("'").startswith(_GUARDED)
    return value[1:] if guarded else value
