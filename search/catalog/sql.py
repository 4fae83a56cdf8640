"""SQL that reading and writing share: conditions on rows, with their parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from search.catalog.rows import to_bytes

EMBEDDED = "EXISTS (SELECT 1 FROM embeddings WHERE encoder_id = :encoder AND photo_id = photos.id)"
"""Photos that have a vector by a model."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What rows must fulfil: SQL text and its parameters."""

    sql: str
    values: Mapping[str, Any]

    @classmethod
    def all_of(cls, conditions: Iterable[Condition]) -> Condition:
        """Return what holds where all of these do, whose parameters have names of their own."""
        parts = list(conditions)
        values = {name: value for part in parts for name, value in part.values.items()}
        return cls(" AND ".join(part.sql for part in parts), values)


def within(table: str, root_id: int, relative: str, *, suffix: str = "") -> Condition:
    """Rows whose path is inside a folder of a root, or is the file of that name; '.' is the root itself.

    The parameters are named after the root, with the suffix.
    """
    root, low, prefix, high = (f"{name}{root_id}{suffix}" for name in ("root", "low", "prefix", "high"))
    here = f"{table}.root_id = :{root}"
    if relative in ("", "."):
        return Condition(here, {root: root_id})
    name, path = to_bytes(relative), f"{table}.path"
    # One stretch of the index, and out of it what only begins alike: "0" follows "/", others stand before it.
    inside = f"{path} >= :{low} AND {path} < :{high} AND ({path} = :{low} OR {path} > :{prefix})"
    return Condition(f"({here} AND {inside})", {root: root_id, low: name, prefix: name + b"/", high: name + b"0"})
