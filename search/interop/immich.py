"""immich's vectors: `smart_search` beside the paths of `asset`, in a dump of its PostgreSQL database or the database.

https://github.com/immich-app/immich, server/src/schema. Its machine learning sees previews, not the photos themselves,
so that vectors agree a little less than those of the same pixels.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import zlib
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from search.adoption import Entry, Source
from search.errors import UsageError
from search.extras import how_to_add

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from search.types import Vectors

_KIND = "immich"
_DEFAULT = "ViT-B-32__openai"  # what immich uses unless told otherwise
_ASSETS = ("asset", "assets")  # the second in older versions
_VECTORS, _CONFIG = "smart_search", "system_metadata"
_COPY = re.compile(r'COPY (?:\w+\.)?"?(\w+)"? \((.*)\) FROM stdin;')
_ESCAPED = {"\\b": "\b", "\\f": "\f", "\\n": "\n", "\\r": "\r", "\\t": "\t", "\\v": "\v"}
_AT_ONCE = 500  # values in one IN (...)


def open_source(place: str) -> Source:
    """Read a dump, or a database by its SQLAlchemy URL.   Raises UsageError for what is neither."""
    return ImmichDatabase(place) if "://" in place else ImmichDump(place)


def model_of(config: str | None) -> str | None:
    """Return the model that a system configuration (JSON) names, else the one that immich comes with.

    None for a model that is none of open_clip's, such as those of M-CLIP.
    """
    try:
        name = json.loads(config or "{}")["machineLearning"]["clip"]["modelName"]
    except (ValueError, KeyError, TypeError):
        name = _DEFAULT
    arch, _, pretrained = str(name).rpartition("/")[2].partition("__")
    return f"{arch}/{pretrained}" if pretrained else None


class _Assets:
    """Which assets are photos, and how many are left out."""

    def __init__(self) -> None:
        self.paths: dict[str, str] = {}
        self.left: Counter[str] = Counter()
        self._reasons: dict[str, str] = {}

    def add(self, row: Mapping[str, str | None]) -> None:
        id_, path = str(row["id"]), row.get("originalPath")
        if row.get("type", "IMAGE") != "IMAGE":
            self._reasons[id_] = "no picture"
        elif row.get("deletedAt"):
            self._reasons[id_] = "deleted"
        elif not path:
            self._reasons[id_] = "no path"
        else:
            self.paths[id_] = path

    def entries(self, embedded: Sequence[str]) -> list[Entry]:
        """Return the photos among the assets that have a vector; a row is the place in this list."""
        found = []
        for row, id_ in enumerate(embedded):
            if path := self.paths.get(id_):
                found.append(Entry(path, row))
            else:
                self.left[self._reasons.get(id_, "no photo")] += 1
        return found


class ImmichDump:
    """A dump in SQL, as it is or compressed by gzip: a `search.adoption.Source`. All vectors are kept in memory.

    Raises UsageError for a file that has no such tables, or vectors of different widths.
    """

    kind = _KIND

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.place = os.path.abspath(os.path.expanduser(path))
        assets, ids, numbers = _Assets(), list[str](), array("f")
        widths: Counter[int] = Counter()
        self.model = model_of(None)
        try:
            for table, row in _rows(self.place):
                if table in _ASSETS:
                    assets.add(row)
                elif table == _VECTORS:
                    ids.append(str(row["assetId"]))
                    vector = _vector(row["embedding"])
                    widths[len(vector)] += 1
                    numbers.frombytes(vector.tobytes())
                elif row["key"] == "system-config":
                    self.model = model_of(row["value"])
        except (OSError, EOFError, ValueError, KeyError, zlib.error) as error:
            raise self._refusal(str(error) or "it ends too early") from error
        if len(widths) != 1:
            raise self._refusal(f"its vectors are of widths {sorted(widths)}" if widths else "it has none")
        self.dim = next(iter(widths))
        self._vectors = np.frombuffer(numbers, np.float32).reshape(-1, self.dim)
        self.entries = assets.entries(ids)
        self.left = dict(assets.left)

    def vectors(self, rows: Sequence[int]) -> Vectors:
        """Return the vectors of rows, (N, dim) float32."""
        found: Vectors = self._vectors[np.asarray(rows, np.int64)]
        return found

    def _refusal(self, why: str) -> UsageError:
        return UsageError(
            f"{self.place} is no dump of immich's with vectors: {why}",
            hint="a whole dump in SQL is wanted, as immich's own backups and 'pg_dump immich' are",
        )


def _rows(path: str) -> Iterator[tuple[str, dict[str, str | None]]]:
    """Yield the rows of the tables that matter, with the table's name."""
    wanted = (*_ASSETS, _VECTORS, _CONFIG)
    table, columns = "", list[str]()
    with _open(path) as lines:
        for line in lines:
            line = line.rstrip("\n")
            if not columns:
                if (begun := _COPY.fullmatch(line)) and begun[1] in wanted:
                    table, columns = begun[1], [name.strip().strip('"') for name in begun[2].split(",")]
            elif line == r"\.":
                columns = []
            else:
                yield table, dict(zip(columns, map(_value, line.split("\t")), strict=True))
    if columns:
        raise EOFError(f"it ends within {table}")


def _open(path: str) -> IO[str]:
    with open(path, "rb") as file:
        begin = file.read(5)
    if begin == b"PGDMP":
        raise ValueError(f"it is in pg_dump's own format; 'pg_restore -f dump.sql {path}' makes SQL of it")
    is_packed = begin.startswith(b"\x1f\x8b")
    opener: Any = gzip.open if is_packed else open
    opened: IO[str] = opener(path, "rt", encoding="utf-8", errors="surrogateescape", newline="\n")
    return opened


def _value(text: str) -> str | None:
    """Return a value as COPY writes it; None for \\N."""
    if "\\" not in text:
        return text
    return None if text == r"\N" else re.sub(r"\\.", lambda found: _ESCAPED.get(found[0], found[0][1]), text)


def _vector(text: str | None) -> Vectors:
    """Return a vector as PostgreSQL writes it, (D,) float32."""
    return np.array(json.loads(text or "[]"), np.float32)


class ImmichDatabase:
    """immich's database where it runs, read in transactions that can't write: a `search.adoption.Source`.

    url: SQLAlchemy's.   Raises UsageError where it can't be reached or has no such tables.
    """

    kind = _KIND

    def __init__(self, url: str) -> None:
        self._engine = _engine(url)
        self._id_type = "UUID" if self._engine.dialect.name == "postgresql" else "TEXT"
        self.place = self._engine.url.render_as_string(hide_password=True)
        assets = _Assets()
        with self._reading() as connection:
            for row in _asset_rows(connection):
                assets.add(row)
            self._ids = [str(id_) for (id_,) in _ask(connection, 'SELECT "assetId" FROM smart_search ORDER BY 1')]
            first = _ask(connection, "SELECT CAST(embedding AS TEXT) FROM smart_search LIMIT 1")
            config = _ask(connection, "SELECT value FROM system_metadata WHERE key = 'system-config'")
            self.model = model_of(_as_json(config[0][0]) if config else None)
        self.entries = assets.entries(self._ids)
        self.left = dict(assets.left)
        if not self._ids:
            raise UsageError(f"{self.place} holds no vectors yet")
        self.dim = len(_vector(first[0][0]))

    def vectors(self, rows: Sequence[int]) -> Vectors:
        """Return the vectors of rows, (N, dim) float32."""
        found: dict[str, Any] = {}
        ids = [self._ids[row] for row in rows]
        with self._reading() as connection:
            for start in range(0, len(ids), _AT_ONCE):
                some = {f"id{number}": id_ for number, id_ in enumerate(ids[start : start + _AT_ONCE])}
                marks = ", ".join(f"CAST(:{name} AS {self._id_type})" for name in some)
                query = (
                    f'SELECT "assetId", CAST(embedding AS TEXT) FROM {_VECTORS} '  # noqa: S608
                    f'WHERE "assetId" IN ({marks})'  # by the table's key: each of very many asks
                )
                found |= {str(id_): _vector(text) for id_, text in _ask(connection, query, some)}
        # A vector that is no more, or of another model by now, is none.
        none = np.zeros(self.dim, np.float32)
        return np.stack([one if len(one := found.get(id_, none)) == self.dim else none for id_ in ids])

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        from sqlalchemy.exc import SQLAlchemyError

        try:
            with self._engine.connect() as connection:
                yield connection
        except SQLAlchemyError as error:
            reason = str(getattr(error, "orig", None) or error).splitlines()[0]
            raise UsageError(f"{self.place} can't be read as immich's database: {reason}") from error


def _engine(url: str) -> Engine:
    import sqlalchemy

    url = re.sub(r"^postgres(ql)?://", "postgresql+psycopg://", url)
    try:
        engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    except ImportError as error:
        hint = f"{how_to_add('immich')}, or give a dump of it"
        raise UsageError(f"this database needs a driver that is not here: {error.name}", hint=hint) from error
    except sqlalchemy.exc.ArgumentError as error:
        raise UsageError("this is no URL of a database", hint="postgresql://USER:PASSWORD@HOST/immich") from error
    is_server = engine.dialect.name == "postgresql"
    return engine.execution_options(postgresql_readonly=True) if is_server else engine


def _ask(connection: Connection, query: str, values: Mapping[str, Any] | None = None) -> list[Any]:
    from sqlalchemy import text

    return list(connection.execute(text(query), values or {}))


def _asset_rows(connection: Connection) -> Iterator[dict[str, str | None]]:
    from sqlalchemy import inspect

    there = inspect(connection).get_table_names()
    table = next((name for name in _ASSETS if name in there), _ASSETS[0])
    columns = ("id", "type", "originalPath", "deletedAt")
    named = ", ".join(f'CAST("{name}" AS TEXT)' for name in columns)
    for row in _ask(connection, f"SELECT {named} FROM {table}"):  # noqa: S608
        yield dict(zip(columns, row, strict=True))


def _as_json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
