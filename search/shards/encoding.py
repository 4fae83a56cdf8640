"""One shard: its files decoded and encoded, and what came of them as one Parquet file.

A row is a photo with its vector, or a file that has none and why. What is known of a photo is said in the words of
`search.decoding.wire` and checked by them when it is read: a shard may come from another machine.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from search.decoding import wire
from search.decoding.wire import Limits
from search.errors import DamagedShard, EncoderMismatch
from search.indexer import are_unit, unsound
from search.photos.sources import Sources
from search.shards import Job, Receipt, Shard, poisoned
from search.shards.store import Store, open_store, parquet
from search.types import FileStat, Likeness, PhotoInfo, Skip, SkipReason

if TYPE_CHECKING:
    from search.decoding.pool import Decoded, Decoders
    from search.encoders import Encoder
    from search.types import Halves

FORMAT = "1"


class Stopped(Exception):
    """A shard was given up because the run ends."""


@dataclass(frozen=True, slots=True)
class Row:
    """A file of a shard: a photo with its vector, (D,) float16, or why it has none."""

    stat: FileStat
    content_hash: bytes = b""
    info: PhotoInfo | None = None
    likeness: Likeness | None = None
    vector: Halves | None = None
    skip: Skip | None = None


@dataclass(frozen=True, slots=True)
class About:
    """What a shard's file says of itself.   decoder: the rules by which files were skipped."""

    shard: str
    fingerprint: str
    decoder: str
    rows: int


# ---- writing


def encode_shard(
    shard: Shard,
    job: Job,
    *,
    encoder: Encoder | None = None,
    sources: Sources | None = None,
    stop: threading.Event | None = None,
) -> Receipt:
    """Encode a shard's files and put the result into the store; each file is read once.

    encoder: the job's, where it is loaded already; else this process loads it once, for all its shards, as it does
    with `sources`.   Raises EncoderMismatch, ModelError, SourceAway, StorageError; Stopped once `stop` is set.
    """
    encoder = encoder or _kept(job.model, job.offline, job.trust_checkpoint)
    if encoder.fingerprint != job.fingerprint:
        raise EncoderMismatch(f"the weights behind {job.model} are not the same here as where the run began")
    rows = []
    for row in _encoded(shard.files, job, encoder, sources or _reached(job.offline)):
        if stop and stop.is_set():
            raise Stopped
        rows.append(row)
    return _write(shard, job, rows, encoder.dim)


def quarantine(shard: Shard, job: Job, reason: str) -> Receipt:
    """Put a shard into the store without any vector, because whatever encodes it dies.   Raises StorageError."""
    return _write(shard, job, [Row(file, skip=poisoned(file, reason)) for file in shard.files], 1)


@functools.lru_cache(maxsize=1)
def _kept(model: str, offline: bool, trust_checkpoint: str | None) -> Encoder:
    from search.encoders import load_encoder

    return load_encoder(model, offline=offline, trust_checkpoint=trust_checkpoint)


@functools.lru_cache(maxsize=1)
def _reached(offline: bool) -> Sources:
    return Sources(offline=offline)


def _encoded(files: Sequence[FileStat], job: Job, encoder: Encoder, sources: Sources) -> Iterator[Row]:
    from search.decoding.pool import ahead, lend

    size = job.batch_size or encoder.batch_size
    limits = Limits(memory_bytes=round(job.decoder_gigabytes * 1e9))
    with lend(workers=job.workers, max_megapixels=job.max_megapixels, limits=limits) as decoders:
        loaded = ahead(_submitting(decoders, encoder, sources), files, 2 * size)
        while batch := list(islice(loaded, size)):
            yield from _vectors(batch, encoder)


def _submitting(decoders: Decoders, encoder: Encoder, sources: Sources) -> Callable[[FileStat], Any]:
    return lambda file: decoders.submit(
        file.path, encoder.preprocessing, content=sources.content(file, whole=True)
    )


def _vectors(batch: Sequence[tuple[FileStat, Decoded | Skip]], encoder: Encoder) -> Iterator[Row]:
    """Encode what could be decoded of a batch; rows come in its order."""
    pixels = [found.pixels for _, found in batch if not isinstance(found, Skip)]
    vectors = encoder.encode_images(np.stack(pixels)) if pixels else np.empty((0, encoder.dim), np.float32)
    sound = iter(zip(vectors.astype(np.float16), are_unit(vectors), strict=True))
    for file, found in batch:
        if isinstance(found, Skip):
            yield Row(file, skip=found)
            continue
        vector, fine = next(sound)
        if fine:
            yield Row(found.stat, found.content_hash, found.info, found.likeness, vector)
        else:
            yield Row(file, skip=unsound(file.path, encoder))


def _write(shard: Shard, job: Job, rows: Sequence[Row], dim: int) -> Receipt:
    arrow = parquet()
    said = [_said(row) for row in rows]
    halves = np.stack([np.zeros(dim, np.float16) if row.vector is None else row.vector for row in rows])
    about = {"format": FORMAT, "shard": shard.name, "fingerprint": job.fingerprint, "decoder": job.decoder}
    about |= {"rows": str(len(rows)), "digest": _digest(said, halves)}
    columns = {name: arrow.array([one[name] for one in said], type_) for name, type_ in _types(arrow).items()}
    lacking = arrow.array([row.vector is None for row in rows], arrow.bool_())
    flat = arrow.array(halves.reshape(-1), arrow.float16())
    columns["vector"] = arrow.FixedSizeListArray.from_arrays(flat, dim, mask=lacking)
    table = arrow.table(columns, metadata={"search": json.dumps(about)})
    buffer = io.BytesIO()
    arrow.parquet.write_table(table, buffer, compression="none", use_dictionary=False)  # vectors do not compress
    open_store(job.store, job.fingerprint).write(shard.name, buffer.getvalue())
    skipped = tuple(row.skip for row in rows if row.skip)
    return Receipt(shard.name, len(rows) - len(skipped), skipped)


def _types(arrow: Any) -> dict[str, Any]:
    text, whole, raw = arrow.string(), arrow.int64(), arrow.binary()
    return {
        "path": text,  # for people and other programs
        "path_bytes": raw,  # as the file system has it
        "size_bytes": whole,
        "mtime_ns": whole,
        "ctime_ns": whole,
        "sha256": raw,
        "photo": text,  # JSON; null where the file is skipped
        "reason": text,
        "detail": text,
    }


def _said(row: Row) -> dict[str, Any]:
    raw = os.fsencode(row.stat.path)
    photo = None
    if row.info and row.likeness:
        said = wire.describe(row.info, row.content_hash, row.stat) | wire.describe_likeness(row.likeness)
        photo = json.dumps(said)
    return {
        "path": raw.decode("utf-8", "backslashreplace"),
        "path_bytes": raw,
        **{name: getattr(row.stat, name) for name in ("size_bytes", "mtime_ns", "ctime_ns")},
        "sha256": row.content_hash or None,
        "photo": photo,
        "reason": str(row.skip.reason) if row.skip else None,
        "detail": row.skip.detail.encode("utf-8", "backslashreplace").decode() if row.skip else None,
    }


# ---- reading


def done(job: Job) -> set[str]:
    """Return the names of the shards that are in the store; none is opened.   Raises StorageError."""
    return open_store(job.store, job.fingerprint).names()


def remaining(shards: Iterable[Shard], job: Job) -> list[Shard]:
    """Return the shards that are not in the store.   Raises StorageError."""
    there = done(job)
    return [shard for shard in shards if shard.name not in there]


def read(store: Store, name: str, fingerprint: str) -> tuple[About, list[Row]]:
    """Return what a shard says of itself, and its rows.   Raises DamagedShard, StorageError."""
    arrow = parquet()
    data = store.read(name)
    try:
        table = arrow.parquet.read_table(io.BytesIO(data))
        about = json.loads((table.schema.metadata or {})[b"search"])
        vectors, said = table.column("vector").combine_chunks(), table.drop_columns(["vector"]).to_pylist()
        halves = _flat(vectors)
        _check(about, name, fingerprint, _digest(said, halves))
        rows = [_row(one, halves[number]) for number, one in enumerate(said)]
        return About(name, fingerprint, str(about["decoder"]), len(rows)), rows
    except DamagedShard:
        raise
    except Exception as error:  # Parquet's reader raises what it likes over damage, and so does checking a word
        raise DamagedShard(f"shard {name} is damaged: {' '.join(str(error).split())[:200]}") from error


def paths(store: Store, name: str) -> list[str]:
    """Return the files that a shard tells of, without its vectors and unchecked.   Raises StorageError."""
    arrow = parquet()

    def column(file: BinaryIO) -> list[bytes]:
        found: list[bytes] = arrow.parquet.read_table(file, columns=["path_bytes"])["path_bytes"].to_pylist()
        return found

    return [os.fsdecode(path) for path in store.part(name, column)]


def _check(about: dict[str, Any], name: str, fingerprint: str, digest: str) -> None:
    if about.get("format") != FORMAT:
        raise DamagedShard(f"shard {name} was written by another version")
    if (about["shard"], about["fingerprint"]) != (name, fingerprint):
        raise DamagedShard(f"shard {name} is another one than its name says")
    if about["digest"] != digest:
        raise DamagedShard(f"shard {name} is not what was written")


def _digest(said: Sequence[dict[str, Any]], halves: Halves) -> str:
    """Return the SHA-256 of what rows say; Parquet's own checksums leave half of the flips of a bit untold."""
    digest = hashlib.sha256(halves.astype("<f2").tobytes())
    for one in said:
        digest.update(repr(sorted(one.items())).encode())
    return digest.hexdigest()


def _flat(vectors: Any) -> Halves:
    """Return a column of fixed width as (N, D); rows without a vector have zeros."""
    width = vectors.type.list_size
    halves = np.zeros((len(vectors), width), np.float16)
    there = np.flatnonzero(np.asarray(vectors.is_valid()))
    halves[there] = np.asarray(vectors.flatten()).reshape(-1, width)
    return halves


def _row(said: dict[str, Any], vector: Halves) -> Row:
    path = os.fsdecode(said["path_bytes"])
    stat = FileStat(path, said["size_bytes"], said["mtime_ns"], said["ctime_ns"])
    if said["reason"] is not None:
        return Row(stat, skip=Skip(path, SkipReason(said["reason"]), said["detail"]))
    photo = json.loads(said["photo"])
    info, content_hash, read_stat = wire.understand(photo, path)
    if content_hash != said["sha256"] or read_stat != stat:
        raise ValueError("a photo that is two")
    return Row(stat, content_hash, info, wire.understand_likeness(photo), vector)
