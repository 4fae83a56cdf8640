"""Roots and the parts of them that one call is about."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from search.addresses import is_inside, relative


@dataclass(frozen=True, slots=True)
class Scope:
    """A part of a root: a folder in it, one file of it, or ('.') all of it."""

    root_id: int
    root: str
    relative: str

    @property
    def path(self) -> str:
        return self.root if self.relative == "." else os.path.join(self.root, self.relative)


def find_scope(roots: Iterable[Any], path: str) -> Scope | None:
    """Return the scope of an absolute path in the root that holds it, None if no root does.

    roots: rows of id and path.   Of several it is the innermost: a tar file is a root in a folder that may be one.
    """
    holding = [(root, id_) for id_, folder in roots if is_inside(path, root := os.fsdecode(folder))]
    if not holding:
        return None
    root, root_id = max(holding, key=lambda held: len(held[0]))
    return Scope(root_id, root, relative(path, root))


def is_reachable(root: str) -> bool:
    """Whether a root is there with something in it; an empty folder may be a mount point whose drive is away."""
    try:
        with os.scandir(root) as entries:
            return any(True for _ in entries)
    except OSError:
        return False
