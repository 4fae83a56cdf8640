"""Photos as rows of a table, and Parquet in and out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.errors import UsageError
from search.extras import how_to_add
from search.files import discard, publish, temporary_name
from search.types import Progress, Stage

if TYPE_CHECKING:
    from search.library import Library
    from search.types import Photo, Vectors

_AT_ONCE = 1024


def row_of(photo: Photo) -> dict[str, Any]:
    """Return what is known of a photo as one row.   path_bytes: None where the path is text."""
    info = photo.info
    text, raw = _as_text(photo.path)
    return {
        "id": photo.id,
        "path": text,
        "path_bytes": raw,
        "size_bytes": photo.size_bytes,
        "sha256": photo.content_hash,
        "format": info.format,
        "width": info.width,
        "height": info.height,
        "orientation": info.orientation,
        "taken_at": info.taken_at.isoformat() if info.taken_at else None,
        "camera": info.camera,
        "lens": info.lens,
        "latitude": info.latitude,
        "longitude": info.longitude,
        "rating": info.rating,
        "labels": list(photo.labels),
    }


def _as_text(path: str) -> tuple[str, bytes | None]:
    try:
        path.encode()
    except UnicodeEncodeError:
        raw = os.fsencode(path)
        return raw.decode("utf-8", "backslashreplace"), raw
    return path, None


def rows(
    library: Library, *, vectors: bool = False, progress: Callable[[Progress], None] = lambda _: None
) -> Iterator[list[dict[str, Any]]]:
    """Yield a library's photos as rows, some at a time; `vectors`: those of the model that answers, None without."""
    ids = library.catalog.all_ids().tolist()
    for start in range(0, len(ids), _AT_ONCE):
        some = ids[start : start + _AT_ONCE]
        found = [row_of(photo) for photo in library.catalog.get(some)]
        if vectors:
            known = _vectors_of(library, some)
            found = [row | {"vector": known.get(row["id"])} for row in found]
        yield found
        progress(Progress(Stage.EXPORT, min(start + _AT_ONCE, len(ids)), len(ids)))


def _vectors_of(library: Library, ids: Sequence[int]) -> Mapping[int, Vectors]:
    found, vectors = library.catalog.embeddings(library.model.answering(), ids)
    return dict(zip(found.tolist(), vectors, strict=True))


# ---- Parquet


def export(
    library: Library,
    path: Path,
    *,
    vectors: bool = False,
    progress: Callable[[Progress], None] = lambda _: None,
) -> int:
    """Write a library's photos as a Parquet file, whole or not there; return how many.

    With vectors its metadata has the model's name and fingerprint, under "search.model" and "search.fingerprint".
    Raises UsageError without pyarrow, OSError.
    """
    about: dict[str, str] = {}
    dim = 0
    if vectors:
        encoder = library.model.answering()
        about, dim = {"search.model": encoder.name, "search.fingerprint": encoder.fingerprint}, encoder.dim
    temporary, count = temporary_name(path), 0
    try:
        with pyarrow("parquet").ParquetWriter(temporary, _schema(about, dim)) as writer:
            for some in rows(library, vectors=vectors, progress=progress):
                writer.write_table(pyarrow().Table.from_pylist(some, schema=writer.schema))
                count += len(some)
        publish(temporary, path)
    finally:
        discard(temporary)
    return count


def write_parquet(path: Path, found: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as a Parquet file.   Raises UsageError without pyarrow, OSError."""
    types = _types(0)
    names = found[0] if found else {}
    schema = pyarrow().schema([(name, types.get(name, pyarrow().string())) for name in names])
    temporary = temporary_name(path)
    try:
        pyarrow("parquet").write_table(pyarrow().Table.from_pylist(list(found), schema=schema), temporary)
        publish(temporary, path)
    finally:
        discard(temporary)


def columns_of(path: str, names: Sequence[str]) -> dict[str, list[Any]]:
    """Return columns of a Parquet file.   Raises UsageError where it can't be read or lacks one."""
    parquet = pyarrow("parquet")
    try:
        there = parquet.read_schema(path).names
        if lacking := [name for name in names if name not in there]:
            raise UsageError(f"{path} has no column {lacking[0]}; it has {', '.join(there)}")
        table = parquet.read_table(path, columns=list(names))
        return {name: table[name].to_pylist() for name in names}
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        raise UsageError(f"{path} can't be read: {error}") from error


def pyarrow(part: str = "") -> Any:
    """Return pyarrow, or a part of it.   Raises UsageError where it is not installed."""
    try:
        import pyarrow as whole
        from pyarrow import parquet
    except ImportError:
        raise UsageError("Parquet files need pyarrow", hint=how_to_add("parquet")) from None
    return parquet if part == "parquet" else whole


def _types(dim: int) -> dict[str, Any]:
    arrow = pyarrow()
    whole = ("id", "size_bytes", "width", "height", "orientation", "rating")
    return {
        **{name: arrow.int64() for name in whole},
        **{name: arrow.float64() for name in ("latitude", "longitude")},
        "labels": arrow.list_(arrow.string()),
        "path_bytes": arrow.binary(),
        **({"vector": arrow.list_(arrow.float32(), dim)} if dim else {}),
    }


COLUMNS = (
    *("id", "path", "path_bytes", "size_bytes", "sha256", "format", "width", "height", "orientation", "taken_at"),
    *("camera", "lens", "latitude", "longitude", "rating", "labels"),
)
"""What a row has."""


def _schema(about: Mapping[str, str], dim: int) -> Any:
    arrow, types = pyarrow(), _types(dim)
    names = (*COLUMNS, *(("vector",) if dim else ()))
    return arrow.schema([(name, types.get(name, arrow.string())) for name in names], metadata=dict(about))
