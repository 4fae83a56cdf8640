"""Vectors kept by a database server: what an index of a large library can lie on.

A store is a cache of the catalog, as a generation is. It reflects the catalog's commit that its stamp names; what was
committed since, a reader lays over it (search.vectors.stored). Only the library's writer changes it.

    milvus.py     milvus://host:19530/collection
    pgvector.py   postgresql://user@host/database?table=name
    declared.py   the columns by which a filter is told there
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Protocol
from urllib.parse import parse_qsl, urlsplit

from search.errors import IndexMismatch, UsageError

if TYPE_CHECKING:
    from search.types import Ids, Vectors
    from search.vectors.stores.declared import Test, Value

FORMAT = 1
"""Of what is in a store; one of another format is filled anew."""

MOST_IDS = 10_000
"""Ids in one request."""

_FORMS = "milvus://HOST:PORT/COLLECTION or postgresql://HOST/DATABASE"

UNFILLED = -1
"""The commit that a store reflects while it is being filled."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """Whose vectors a store has, and as of when.

    library: the catalog's uuid.   encoder: the model's fingerprint.   fill: a name for when it was made anew.
    mark: one for its last change.   seq: the commit it reflects.   rows: how many vectors it has.
    """

    library: str
    encoder: str
    dim: int
    fill: str
    mark: str
    seq: int = UNFILLED
    rows: int = 0
    format: int = FORMAT

    def to_text(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def parse(cls, text: str, place: str) -> Stamp:
        """Read it back. Raises IndexMismatch for what is no stamp."""
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise IndexMismatch(f"{place} was not made by this program, or by a newer version of it") from error


class Store(Protocol):
    """Vectors by id on a server. Every method raises IndexUnavailable where the server does not answer."""

    kind: str
    place: str
    """Its URL, without secrets."""
    deepest: int
    """The most candidates that one search may ask for."""

    def stamp(self) -> Stamp | None:
        """Return what is kept there; None if nothing is. Raises IndexMismatch if that is something else."""

    def begin(self, stamp: Stamp) -> None:
        """Make it empty, for what the stamp says. What was there must be of the same library: IndexMismatch."""

    def put(self, ids: Ids, vectors: Vectors, columns: Sequence[Sequence[Value]]) -> None:
        """Keep unit rows (N, D) and the declared columns of each, in place of what was known of these ids."""

    def delete(self, ids: Ids) -> None:
        """Forget these ids; unknown ones are ignored."""

    def finish(self, stamp: Stamp, *, changed: int) -> Stamp:
        """Write the stamp, its rows counted; everything before is durable and found.   changed: rows since the last."""

    def search(
        self, vectors: Vectors, count: int, *, test: Test | None = None, within: Ids | None = None
    ) -> list[Ids]:
        """Return `count` of the nearest ids for each vector, best first, or fewer.

        count: deepest at most.   test: what they must fulfil.   within: no more than MOST_IDS to choose from.
        """

    def ids(self) -> Ids:
        """Return all ids it has, ascending."""

    def size_bytes(self) -> int:
        """Return what it takes on the server, 0 where that can't be told."""

    def drop(self) -> None:
        """Remove it from the server."""

    def close(self) -> None: ...


def check_url(url: str) -> str:
    """Return the URL of a store. Raises UsageError for one of no kind that there is, or with a secret in it."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # its words may have a part of a password
        raise UsageError("the URL of the index has no port where one should be", hint=_FORMS) from None
    if parts.scheme.partition("+")[0] not in {"milvus", "postgresql", "postgres"}:
        raise UsageError(
            f"there is no index of the kind {parts.scheme}://",
            hint=_FORMS,
        )
    secrets = [name for name, _ in parse_qsl(parts.query) if "password" in name or "token" in name]
    if parts.password or secrets or (parts.username and parts.scheme.startswith("milvus")):
        raise UsageError(
            "an index's URL is kept in the catalog and can't have a password in it",
            hint="SEARCH_INDEX_TOKEN has Milvus's token, PGPASSWORD or ~/.pgpass PostgreSQL's password",
        )
    return url


def open_store(url: str, *, token: str | None = None, named: str = "") -> Store:
    """Open a store by its URL; nothing is asked of the server yet.

    token: Milvus's, "user:password" or a key.   named: what it is called where it must be told from others; the URL
    may have a password then.   Raises UsageError for a URL that names no store.
    """
    if not named or named == url:
        check_url(url)
    if url.startswith("milvus"):
        from search.vectors.stores.milvus import MilvusStore

        return MilvusStore(url, token=token)
    from search.vectors.stores.pgvector import PgvectorStore

    return PgvectorStore(url, named=named)


def check_owner(found: Stamp | None, library: str, place: str) -> None:
    """Raise IndexMismatch if a store belongs to another library."""
    if found is not None and found.library != library:
        raise IndexMismatch(
            f"{place} has the vectors of another library ({found.library})",
            hint="give this library a collection of its own; nothing was changed there",
        )


def pieces(ids: Ids) -> Iterable[Ids]:
    """Yield ids in parts that one request takes."""
    for start in range(0, len(ids), MOST_IDS):
        yield ids[start : start + MOST_IDS]
