"""How many there are of something, in words."""

from __future__ import annotations


def count_of(count: int, one: str, many: str = "") -> str:
    """Return a count with its noun: `1 photo`, `2 photos`; many: the plural where an s does not make it."""
    return f"{count} {noun_of(count, one, many)}"


def noun_of(count: int, one: str, many: str = "") -> str:
    """Return the noun alone, for so many."""
    return one if count == 1 else many or f"{one}s"
