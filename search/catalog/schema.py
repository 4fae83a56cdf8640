"""The tables. Everything else about a library can be rebuilt from them.

Paths are kept as the file system's bytes, relative to their root, so that any name survives. `seq` counts
commits: a row carries the number of the commit that last changed it, and a reader tops up its index with the
rows above the number it knows.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

state = Table(
    "state",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("uuid", String(36), nullable=False),
    Column("seq", BigInteger, nullable=False),
    # The last commit that deleted rows for good: a reader behind it must rebuild, not top up.
    Column("purge_seq", BigInteger, nullable=False),
    # The model that answers when none is named.
    Column("encoder_id", Integer, nullable=True),
    CheckConstraint("id = 1", name="one_row"),
)

roots = Table(
    "roots",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("path", LargeBinary, nullable=False, unique=True),
)

photos = Table(
    "photos",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("root_id", Integer, ForeignKey("roots.id"), nullable=False),
    Column("path", LargeBinary, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("content_hash", LargeBinary(32), nullable=False),
    Column("format", String(16), nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("orientation", Integer, nullable=False),
    # Wall-clock time where the photo was taken; the offset from UTC only where it is known.
    Column("taken_at", DateTime, nullable=True),
    Column("taken_offset_s", Integer, nullable=True),
    Column("taken_at_source", String(8), nullable=True),
    Column("camera", Text, nullable=True),
    Column("lens", Text, nullable=True),
    Column("latitude", Float, nullable=True),
    Column("longitude", Float, nullable=True),
    # Set when the file was not found any more; its vectors and labels wait for its return.
    Column("gone_at", DateTime, nullable=True),
    Column("seq", BigInteger, nullable=False),
    UniqueConstraint("root_id", "path", name="photo_place"),
    Index("photo_content", "content_hash"),
    Index("photo_size", "size_bytes"),
    Index("photo_seq", "seq"),
    Index("photo_taken_at", "taken_at"),
    sqlite_autoincrement=True,  # an id is never given twice: indexes and exports remember them
)

encoders = Table(
    "encoders",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("fingerprint", String(64), nullable=False, unique=True),
    Column("dim", Integer, nullable=False),
    Column("context_length", Integer, nullable=False),
    Column("logit_scale", Float, nullable=False),
    Column("logit_bias", Float, nullable=True),
)

embeddings = Table(
    "embeddings",
    metadata,
    Column("encoder_id", Integer, ForeignKey("encoders.id"), primary_key=True),
    Column("photo_id", Integer, ForeignKey("photos.id"), primary_key=True),
    Column("vector", LargeBinary, nullable=False),  # (D,) little-endian float16
    Column("crc", BigInteger, nullable=False),  # CRC-32 over photo id, encoder id and vector
)

skips = Table(
    "skips",
    metadata,
    Column("root_id", Integer, ForeignKey("roots.id"), primary_key=True),
    Column("path", LargeBinary, primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("decoder", Text, nullable=False),
    Column("reason", String(32), nullable=False),
    Column("detail", Text, nullable=False),
)

labels = Table(
    "labels",
    metadata,
    Column("photo_id", Integer, ForeignKey("photos.id"), primary_key=True),
    Column("label", Text, primary_key=True),
    Column("source", String(16), primary_key=True),  # zero-shot, user, import
    Column("encoder_id", Integer, ForeignKey("encoders.id"), nullable=True),
    Column("probability", Float, nullable=True),
    Column("score", Float, nullable=True),
    Column("created_at", DateTime, nullable=False),
    Index("label_name", "label"),
)

scanned = Table(
    "scanned",
    MetaData(),  # temporary: it lives on one connection for one run
    Column("root_id", Integer, primary_key=True),
    Column("path", LargeBinary, primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    prefixes=["TEMPORARY"],
)
