"""Roots and the parts of them that one call is about."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Scope:
    """A part of a root: a folder in it, one file of it, or ('.') all of it."""

    root_id: int
    root: str
    relative: str

    @property
    def path(self) -> str:
        return os.path.normpath(os.path.join(self.root, self.relative))


def find_scope(roots: Iterable[Any], path: str) -> Scope | None:
    """Return the scope of an absolute path in the root that holds it, None if no root does.

    roots: rows of id and path.
    """
    for root_id, folder in roots:
        root = os.fsdecode(folder)
        if is_inside(path, root):
            return Scope(root_id, root, os.path.relpath(path, root))
    return None


def is_inside(path: str, folder: str) -> bool:
    """Whether an absolute path is a folder or lies below it."""
    return os.path.commonpath([folder, path]) == folder


def is_reachable(root: str) -> bool:
    """Whether a root is there with something in it; an empty folder may be a mount point whose drive is away."""
    try:
        with os.scandir(root) as entries:
            return any(True for _ in entries)
    except OSError:
        return False
