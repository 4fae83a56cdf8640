"""How many there are of something, in words."""

from __future__ import annotations


def count_of(count: int, one: str, many: str = "") -> str:
    """Return a count with its noun: `1 photo`, `2 photos`; many: the plural where an s does not make it."""
    return f"{count} {one if count == 1 else many or one + 's'}"
