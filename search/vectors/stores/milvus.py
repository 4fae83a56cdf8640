"""Vectors in Milvus: one collection, and one of a single row beside it that says whose they are.

Every question is asked with strong consistency: by default a server may answer as it was a moment ago. What only newer
servers have is not used (vectors in float16, indexes on columns, columns without a value): 2.3 and later will do.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, TypeVar, assert_never
from urllib.parse import parse_qs, urlsplit

import numpy as np

from search.errors import IndexMismatch, IndexUnavailable, UsageError
from search.extras import how_to_add
from search.vectors.stores import Stamp, check_owner, pieces
from search.vectors.stores.declared import COLUMNS, MOST_BYTES, Compared, Every, OneOf, Other, Some

if TYPE_CHECKING:
    from search.types import Ids, Vectors
    from search.vectors.stores.declared import Test, Value

T = TypeVar("T")

_STATE = "_state"  # the end of the name of the collection that has the stamp
_CONNECT_S, _READ_S, _WRITE_S = 5.0, 15.0, 120.0
_TRIES, _PAUSE_S = 3, 0.3
_ENOUGH_S = 8.0  # of trying: a question that took longer is not asked again
_REQUEST_BYTES = 4 << 20
_LISTED = 65_536  # ids in one page
_DEEPEST = 8192
_QUERIES = 64  # in one request
_SEALED = 20_000  # changed rows from which the server is told to write them down and index them
_HNSW = {"M": 32, "efConstruction": 200}
_LEAST_EF, _MOST_EF = 256, 32_768


class MilvusStore:
    """See Store for the contract.   url: milvus://host:port/collection, milvus+https:// with TLS."""

    kind = "milvus"
    deepest = _DEEPEST

    def __init__(self, url: str, *, token: str | None = None) -> None:
        self.place = url
        parts = urlsplit(url)
        self._token = token
        if parts.scheme == "milvus+file":  # the embedded twin, for tests
            self._uri = parts.path
            self._name = parse_qs(parts.query).get("collection", ["photos"])[0]
        else:
            scheme = "https" if parts.scheme.endswith("+https") else "http"
            self._uri = f"{scheme}://{parts.hostname or 'localhost'}:{parts.port or 19530}"
            self._name = parts.path.strip("/") or "photos"
        if not self._name.isidentifier() or not self._name.isascii() or len(self._name) > 200:
            raise UsageError(
                f"Milvus can't have a collection called {self._name!r}", hint="letters, digits and _ make a name"
            )
        self._known: Any = None

    # ---- what is there

    def stamp(self) -> Stamp | None:
        with self._told():
            if not self._has(self._state):
                if self._has(self._name):
                    raise IndexMismatch(f"{self.place} has a collection of something else, which is left alone")
                return None
            rows = self._query(self._state, "id >= 0", ["stamp"], limit=1)
        return Stamp.parse(rows[0]["stamp"], self.place) if rows else None

    def begin(self, stamp: Stamp) -> None:
        from pymilvus import DataType

        check_owner(self.stamp(), stamp.library, self.place)
        with self._told():
            if not self._has(self._state):
                self._make(self._state, 2, [("stamp", DataType.VARCHAR, 4096)], {"index_type": "FLAT"})
            self._write_stamp(stamp)
            if self._has(self._name):
                self._try(lambda: self._client.drop_collection(self._name, timeout=_WRITE_S))
            kinds = {"integer": DataType.INT64, "real": DataType.DOUBLE, "text": DataType.VARCHAR}
            columns = [(name, kinds[kind], MOST_BYTES + 8) for name, kind in COLUMNS.items()]
            self._make(self._name, stamp.dim, columns, {"index_type": "HNSW", "params": _HNSW})

    def _make(self, name: str, dim: int, columns: Sequence[tuple[str, Any, int]], index: dict[str, Any]) -> None:
        from pymilvus import DataType

        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dim)
        for column, kind, size in columns:
            schema.add_field(column, kind, **({"max_length": size} if kind is DataType.VARCHAR else {}))
        indexes = self._client.prepare_index_params()
        indexes.add_index("vector", metric_type="IP", **index)
        self._client.create_collection(
            name, schema=schema, index_params=indexes, consistency_level="Strong", timeout=_WRITE_S
        )

    def _write_stamp(self, stamp: Stamp) -> None:
        row = {"id": 0, "vector": [0.0, 1.0], "stamp": stamp.to_text()}
        self._try(lambda: self._client.upsert(self._state, [row], timeout=_WRITE_S))

    # ---- changes

    def put(self, ids: Ids, vectors: Vectors, columns: Sequence[Sequence[Value]]) -> None:
        step = max(1, _REQUEST_BYTES // (4 * vectors.shape[1] + 200))
        with self._told():
            for start in range(0, len(ids), step):
                some = slice(start, start + step)
                rows = [
                    {"id": id_, "vector": vector, **dict(zip(COLUMNS, row, strict=True))}
                    for id_, vector, row in zip(ids[some].tolist(), vectors[some], columns[some], strict=True)
                ]
                # Not insert: a request that is sent again because its answer was lost would have them twice.
                self._try(lambda rows=rows: self._client.upsert(self._name, rows, timeout=_WRITE_S))  # type: ignore[misc]

    def delete(self, ids: Ids) -> None:
        with self._told():
            for some in pieces(ids):
                self._try(
                    lambda some=some: self._client.delete(self._name, ids=some.tolist(), timeout=_WRITE_S)  # type: ignore[misc]
                )

    def finish(self, stamp: Stamp, *, changed: int) -> Stamp:
        with self._told():
            if changed >= _SEALED:
                self._try(lambda: self._client.flush(self._name, timeout=_WRITE_S))
            done = replace(stamp, rows=self._count())
            self._write_stamp(done)
        return done

    # ---- questions

    def search(
        self, vectors: Vectors, count: int, *, test: Test | None = None, within: Ids | None = None
    ) -> list[Ids]:
        if not count or (within is not None and not len(within)):
            return [np.empty(0, np.int64) for _ in vectors]
        said = [] if test is None else [expression(test)]
        said += [] if within is None else [f"id in {within.tolist()}"]
        effort = min(max(_LEAST_EF, 2 * count), _MOST_EF)
        found: list[Ids] = []
        with self._told():
            for start in range(0, len(vectors), _QUERIES):
                hits = self._try(
                    lambda some=vectors[start : start + _QUERIES]: self._client.search(  # type: ignore[misc]
                        self._name,
                        data=list(some),
                        limit=count,
                        filter=" and ".join(f"({one})" for one in said),
                        search_params={"metric_type": "IP", "params": {"ef": max(effort, count)}},
                        output_fields=["id"],
                        consistency_level="Strong",
                        timeout=_READ_S,
                    )
                )
                found += [np.array([hit["id"] for hit in some], np.int64) for some in hits]
        return found

    def ids(self) -> Ids:
        with self._told():
            return np.fromiter(self._every_id(), np.int64)

    def _every_id(self) -> Iterator[int]:
        """Pages by ranges of ids: which rows an answer has that is cut off by a limit is not said anywhere."""
        low: int | None = 0
        left = self._count()
        while left > 0 and low is not None:
            rows = self._query(self._name, f"id >= {low} and id < {low + _LISTED}", ["id"])
            yield from sorted(row["id"] for row in rows)
            left -= len(rows)
            low = low + _LISTED if rows else self._next_id(low + _LISTED)

    def _count(self) -> int:
        return int(self._query(self._name, "", ["count(*)"])[0]["count(*)"])

    def _next_id(self, low: int) -> int | None:
        """Return the lowest id that is `low` or more, by halving; None if there is none."""
        if self._any(low, low + 1):
            return low
        step = 1
        while not self._any(low, low + step):
            if step > 2**62:
                return None
            step *= 2 if step < _LISTED else 2**16
        high = low + step  # one lies below it
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._any(low, middle) else (middle, high)
        return low

    def _any(self, low: int, high: int) -> bool:
        said = f"id >= {low} and id < {min(high, 2**63 - 1)}"
        return bool(self._query(self._name, said, ["id"], limit=1))

    def size_bytes(self) -> int:
        return 0

    def drop(self) -> None:
        with self._told():
            for name in (self._name, self._state):
                if self._has(name):
                    self._client.drop_collection(name, timeout=_WRITE_S)

    def close(self) -> None:
        if self._known is not None:
            self._known.close()
            self._known = None

    # ---- the server

    @property
    def _state(self) -> str:
        return self._name + _STATE

    @property
    def _client(self) -> Any:
        if self._known is None:
            try:
                from pymilvus import MilvusClient
            except ImportError as error:
                raise IndexUnavailable(
                    f"the index {self.place} needs Milvus's client, which is not installed",
                    hint=how_to_add("milvus"),
                ) from error
            # It writes to standard error, with a traceback, what it raises as well.
            logging.getLogger("pymilvus").setLevel(logging.CRITICAL + 1)
            given = {"token": self._token} if self._token else {}
            self._known = MilvusClient(self._uri, timeout=_CONNECT_S, **given)
        return self._known

    def _has(self, name: str) -> bool:
        return bool(self._try(lambda: self._client.has_collection(name, timeout=_READ_S)))

    def _query(self, name: str, said: str, fields: list[str], *, limit: int | None = None) -> list[dict[str, Any]]:
        some = {} if limit is None else {"limit": limit}
        return list(
            self._try(
                lambda: self._client.query(
                    name,
                    filter=said,
                    output_fields=fields,
                    consistency_level="Strong",
                    timeout=_READ_S,
                    **some,
                )
            )
        )

    def _try(self, ask: Callable[[], T]) -> T:
        """Ask again, a little later each time, where the server could not be reached or was not ready."""
        began = monotonic()
        for number in range(1, _TRIES + 1):
            try:
                return ask()
            except IndexUnavailable:
                raise
            except Exception as error:
                if number == _TRIES or not _is_passing(error) or monotonic() - began > _ENOUGH_S:
                    raise
                sleep(_PAUSE_S * 2**number)
        raise AssertionError

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Tell what went wrong at the server as IndexUnavailable."""
        try:
            yield
        except (IndexMismatch, IndexUnavailable):
            raise
        except Exception as error:
            if not _is_milvus(error):
                raise
            raise IndexUnavailable(
                f"the index {self.place} does not answer: {_reason(error)}",
                hint="see whether Milvus runs there; nothing is lost, the catalog has every vector",
            ) from error


def expression(test: Test) -> str:
    """Return a condition as Milvus writes it."""
    match test:
        case Compared(column, operator, value):
            return f"{column} {'==' if operator == '=' else operator} {_literal(value)}"
        case OneOf(column, values):
            return f"{column} in [{', '.join(map(_literal, values))}]"
        case Every(parts):
            return " and ".join(f"({expression(part)})" for part in parts)
        case Some(parts):
            return " or ".join(f"({expression(part)})" for part in parts)
        case Other(part):
            return f"not ({expression(part)})"
        case _:
            assert_never(test)


def _literal(value: Value) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return repr(value)


def _is_milvus(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in {"pymilvus", "grpc", "milvus_lite"}


def _is_passing(error: Exception) -> bool:
    """Whether it may be otherwise in a moment: the server is not reached, starts, or has too much to do."""
    text = f"{type(error).__name__} {error}".lower()
    signs = (
        "unavailable",
        "deadline",
        "timed out",
        "timeout",
        "not ready",
        "not loaded",
        "rate limit",
        "connecting",
        "unhealthy",
    )
    return _is_milvus(error) and any(sign in text for sign in signs)


def _reason(error: Exception) -> str:
    text = str(getattr(error, "message", "") or error)
    return " ".join(text.split())[:200]
