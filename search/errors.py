"""Everything this package raises on purpose.

    SearchError
    ├── UsageError            a call that can't be meant: unknown label file, weight that is no number
    │   ├── QueryError        a query that can't be understood
    │   ├── UnknownPhoto      a photo that is not in the library
    │   ├── UnknownLabel      a label that is on no photo and was proposed for none
    │   └── UnknownRun        there is no such run, or it was undone before
    ├── PhotoError            one photo can't be used; carries the reason code that reports list
    ├── ModelError            a model can't be found, fetched, read or trusted
    │   ├── ModelUnavailable  not on this machine and can't be fetched now
    │   └── CheckpointError   weights that are damaged, incomplete or of another architecture
    ├── TrainingError         a training run that can't go on: its loss is no number any more
    │   └── TrainingBusy      another process trains into that folder
    ├── EncoderMismatch       the library was indexed with another model
    ├── UntrustedVectors      vectors from elsewhere are not what the model makes of the photos
    ├── SourceAway            photos on object storage can't be reached now
    ├── DamagedShard          a shard's file is not what was written
    ├── ClusterLost           the machines that were to do the work can't be reached, or no more
    ├── DimensionError        vectors of another width than the index holds
    ├── IndexMismatch         a collection on a server is not this library's index
    ├── IndexUnavailable      the server that has the index does not answer
    └── LibraryError          the library itself
        ├── LibraryNotFound   there is none at that place
        ├── OldLibrary        made by an older version; `search upgrade` brings it up to date
        ├── NewerLibrary      made by a newer version; nothing was touched
        ├── DamagedLibrary    the catalog can't be read; `search rebuild` makes it anew from its newest copy
        ├── LibraryBusy       another process is writing to it
        ├── LibraryUnreachable  the database server that keeps the catalog is away, or went away
        └── StorageError      the disk is full or not writable

`hint` says what to do next; it is part of the text and also a field of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search.types import Passport


class SearchError(Exception):
    """Say what happened, to what, and (`hint`) what to do next."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class UsageError(SearchError):
    """The call can't be meant as it stands."""


class QueryError(UsageError):
    """The query can't be understood.   column: where in its text, counted from 1; None if nowhere in particular."""

    def __init__(self, message: str, *, hint: str = "", column: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.column = column


class UnknownPhoto(UsageError):
    """The photo is not in the library."""


class UnknownLabel(UsageError):
    """The label is on no photo of the library, and no model proposed it for one."""


class UnknownRun(UsageError):
    """There is no such run, or it was undone before."""


class PhotoError(SearchError):
    """One photo can't be used.

    reason: a code from `search.types.SkipReason`; `message` is the detail.
    """

    def __init__(self, reason: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


class ModelError(SearchError):
    """A model can't be found, fetched, read or trusted."""


class ModelUnavailable(ModelError):
    """The model is not on this machine and can't be fetched now."""


class CheckpointError(ModelError):
    """The weights are damaged, incomplete or belong to another architecture."""


class TrainingError(SearchError):
    """A training run can't go on."""


class TrainingBusy(TrainingError):
    """Another process trains into the folder."""


class EncoderMismatch(SearchError):
    """The library was indexed with another model than the one asked for."""


class UntrustedVectors(SearchError):
    """Vectors from elsewhere are not what the model makes of the photos.   passport: what was compared, if anything."""

    def __init__(self, message: str, *, hint: str = "", passport: Passport | None = None) -> None:
        super().__init__(message, hint=hint)
        self.passport = passport


class SourceAway(SearchError):
    """What holds photos can't be reached now: nothing is known of them, so none counts as gone."""


class DamagedShard(SearchError):
    """A shard's file is not what was written: cut off, changed, or of another version."""


class ClusterLost(SearchError):
    """The machines that were to do the work can't be reached, or no more."""


class DimensionError(SearchError):
    """Vectors have another width than the index holds."""


class IndexMismatch(SearchError):
    """What lies where an index should be on a server is of another library, or no index."""


class IndexUnavailable(SearchError):
    """The server that has the index does not answer, or can't answer this; the catalog has every vector."""


class LibraryError(SearchError):
    """The library itself is the trouble."""


class LibraryNotFound(LibraryError):
    """There is no library at that place."""


class OldLibrary(LibraryError):
    """The catalog was made by an older version."""


class NewerLibrary(LibraryError):
    """The catalog was made by a newer version; it was left untouched."""


class DamagedLibrary(LibraryError):
    """The catalog is damaged so that it can't be read."""


class LibraryBusy(LibraryError):
    """Another process is writing to the library."""


class LibraryUnreachable(LibraryError):
    """The database server that keeps the catalog can't be reached, or the connection was lost."""

    @classmethod
    def lost(cls, library: str, cause: str = "the connection was lost") -> LibraryUnreachable:
        """Return the error for a server that is away.   library: without a password.   cause: in its own words."""
        hint = "see that it runs, then do it again: everything committed before is kept"
        return cls(f"the database server of {library} can't be reached: {cause}", hint=hint)


class StorageError(LibraryError):
    """The disk is full or not writable; everything committed stays searchable."""
