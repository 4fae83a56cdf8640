"""The keywords of a photo, as many programs write them, made one list.

A program with a tree of keywords writes each with the folders above it, and often its bare name and each folder's
besides, for programs without one. What is said by a longer keyword is not said again.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

MAX_KEYWORDS = 200
_MAX_TEXT = 200  # characters, of one keyword
_MAX_ALL = 16_000  # of all
_MAX_LEVELS = 16

Levels = tuple[str, ...]


def levels(text: str, separator: str | None) -> Levels:
    """Return the levels of one keyword, the outermost first.   separator: None where it has just one."""
    parts = text.split(separator) if separator else [text]
    return tuple(filter(None, (printable(part) for part in parts[:_MAX_LEVELS])))


def printable(text: str) -> str:
    """Return text on one line without what can't be seen, or reorders and hides other text on a screen."""
    shown = (" " if c.isspace() else c for c in text if c.isspace() or unicodedata.category(c)[0] != "C")
    return " ".join("".join(shown).split())


def legible(text: str) -> str:
    """Return a label as it is kept: without what stands around it, and printable."""
    stripped = text.strip()
    return stripped if stripped.isprintable() else printable(stripped)


def alike(text: str) -> str:
    """Return what texts have in common that differ in case, in Unicode form or in what can't be seen alone."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", printable(text)).casefold())


def union(found: Iterable[Levels]) -> tuple[str, ...]:
    """Return keywords by name, sorted, each in its longest form: of "cat" and "animal/cat" the latter."""
    return _bounded(sorted("/".join(keyword) for keyword in longest(found)))


def longest(found: Iterable[Levels]) -> list[Levels]:
    """Return keywords once each, without those that a longer one says already."""
    distinct: dict[str, Levels] = {}
    for keyword in found:
        name = "/".join(keyword)
        if keyword and len(name) <= _MAX_TEXT:
            distinct.setdefault(name.casefold(), keyword)
    said = {part for keyword in distinct.values() for part in _parts(keyword)}
    return [keyword for keyword in distinct.values() if _folded(keyword) not in said]


def _parts(keyword: Levels) -> Iterable[Levels]:
    """Yield what a keyword says besides itself: every stretch of its levels."""
    folded = _folded(keyword)
    for start in range(len(folded)):
        for end in range(start + 1, len(folded) + 1):
            if end - start < len(folded):
                yield folded[start:end]


def _folded(keyword: Levels) -> Levels:
    return tuple(level.casefold() for level in keyword)


def _bounded(names: Sequence[str]) -> tuple[str, ...]:
    kept, characters = [], 0
    for name in names[:MAX_KEYWORDS]:
        characters += len(name)
        if characters <= _MAX_ALL:
            kept.append(name)
    return tuple(kept)
