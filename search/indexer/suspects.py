"""Files that a process died with.

What kills the whole process is rare, since photos are decoded in processes of their own; but the model's runtime, the
machine's memory or a user with `kill -9` may do it. Files in flight at such a death are no culprits yet, one of them
may be one. Each is tried once more after all others, and alone: a death then is that file's, and the second one
leaves it out. So an innocent file that was in hand when somebody killed the run loses nothing but a batch's company,
and to lose it by kills the same file must be hit alone, twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from search.types import Skip, SkipReason

if TYPE_CHECKING:
    from search.catalog.found import ScannedFile

_DEATHS = 2  # of the whole process over one file alone, before that file is left out


class Suspects:
    """The files of a run that processes before it died with.

    deaths: by root and place, of how many processes that were at work on that file alone.
    """

    def __init__(self, deaths: Mapping[tuple[int, bytes], int]) -> None:
        self._deaths = deaths
        self._met: list[ScannedFile] = []

    def __contains__(self, file: ScannedFile) -> bool:
        return (file.root_id, file.place) in self._deaths

    def but(self, files: Iterable[ScannedFile]) -> Iterator[ScannedFile]:
        """Yield the files that no process died with; the others are `met` afterwards."""
        for file in files:
            if file in self:
                self._met.append(file)
            else:
                yield file

    def met(self) -> list[ScannedFile]:
        """Return those that `but` came upon, the least suspicious first."""
        return sorted(self._met, key=lambda file: self._deaths[file.root_id, file.place])

    def verdict(self, file: ScannedFile) -> Skip | None:
        """Return why a file is not tried once more; None if it is."""
        deaths = self._deaths.get((file.root_id, file.place), 0)
        if deaths < _DEATHS:
            return None
        return Skip(
            file.stat.path,
            SkipReason.QUARANTINED,
            f"indexing died {deaths} times while it was at work on this file alone; it is tried again when the "
            "file changes or a new version reads photos",
        )
