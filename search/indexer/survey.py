"""What a run finds on disk: in which order it looks, and what it makes of what it meets."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import datetime
from typing import TYPE_CHECKING

from search.addresses import is_remote, is_tar_name

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from search.catalog.found import Unchanged
    from search.catalog.look import Look
    from search.catalog.scan import Scan
    from search.catalog.scopes import Scope
    from search.types import FileStat


class Survey:
    """What one run finds on disk: held against what is known, and written down in a scan from the first difference.

    stack: holds the look open.   look, begin: open a look, where the catalog can be asked so, and a scan.
    """

    def __init__(
        self,
        stack: ExitStack,
        look: Callable[[], AbstractContextManager[Look | None]],
        begin: Callable[[], Scan],
    ) -> None:
        self._stack = stack
        self._look = stack.enter_context(look())
        self._begin = begin
        self._scan: Scan | None = None
        self._covered: list[tuple[Scope, str | None]] = []
        self.seen = 0  # files

    def record(self, scope: Scope, files: Sequence[FileStat]) -> None:
        """Note files found in a scope; scope after scope."""
        self.seen += len(files)
        if not (self._look and self._look.take(scope, files)):
            self.scan.record(scope, files)

    def cover(self, scope: Scope, lies_on: str | None) -> None:
        """Note that a scope was walked to its end, and what its root lies on."""
        if self._look and self._look.take(scope, ()):
            self._covered.append((scope, lies_on))
        else:
            self.scan.cover(scope, lies_on)

    def unchanged(self, *, before: datetime) -> Unchanged | None:
        """Return how the run ends if every file is as it was; `before`: since when those to forget are gone."""
        return self._look.conclude(self._covered, before=before) if self._look else None

    @property
    def scan(self) -> Scan:
        """What was found so far, written down; from now on everything is."""
        if self._scan is None:
            met = self._look.so_far() if self._look else []
            self._look = None
            self._stack.close()  # a state that is still read keeps the log from being folded back
            self._scan = self._begin()
            for matched in met:
                self._scan.record_known(matched)
            for scope, lies_on in self._covered:
                self._scan.cover(scope, lies_on)
        return self._scan


def folder_first(path: str) -> tuple[str, str]:
    """Sort a folder, or the one a file is in, before those inside it: an outer root takes in what an inner one held."""
    return (path if is_remote(path) or os.path.isdir(path) else os.path.dirname(path)), path


def holder(root: str) -> str:
    """Return what must be there for a root that is not to be gone: itself, or the folder that a tar file was in."""
    return os.path.dirname(root) if is_tar_name(root) and not os.path.isdir(root) else root
