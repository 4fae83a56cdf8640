"""Reviews of labels that are under way: what was answered teaches at once, so they are kept from answer to answer."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search.library import Library
    from search.library.reviewing import Review

_MOST = 4  # each holds the vectors of up to 20,000 photos
_IDLE_S = 1800.0


@dataclass(slots=True)
class _Kept:
    review: Review
    run: int  # the newest when it began, its own left out
    used: float


class Reviews:
    """The latest reviews by the labels that they ask about; for one thread at a time, that has the model."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, ...], _Kept] = OrderedDict()

    def of(self, library: Library, labels: tuple[str, ...]) -> Review:
        """Return the review of some labels, of all that are proposed for none; begun anew where it is out of date.

        Raises LibraryError without photos.
        """
        kept = self._kept.pop(labels, None)
        if kept is None or monotonic() - kept.used > _IDLE_S or _is_overtaken(library, kept):
            newest = library.catalog.newest_run()
            kept = _Kept(library.tags.review(labels), newest, 0.0)
        kept.used = monotonic()
        self._kept[labels] = kept
        for labels in list(self._kept)[:-_MOST]:
            self._kept.pop(labels, None)
        return kept.review

    def forget(self) -> None:
        """Begin all anew: the library is another."""
        self._kept.clear()


def _is_overtaken(library: Library, kept: _Kept) -> bool:
    """Whether something else wrote labels since, or took these answers back, here or in another process."""
    own = library.catalog.run(kept.review.run) if kept.review.run is not None else None
    if own is not None and own.undone_at is not None:
        return True
    while library.catalog.run(kept.run + 1) is not None:
        if kept.run + 1 != kept.review.run:
            return True
        kept.run += 1
    return False
