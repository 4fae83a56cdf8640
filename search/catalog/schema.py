"""The tables. Everything else about a library can be rebuilt from them.

Paths are kept as the file system's bytes, relative to their root, so that any name survives. `seq` counts
commits: a row carries the number of the commit that last changed it, and a reader tops up its index with the
rows above the number it knows.

Every row has a checksum, `crc`. Changing a row empties it, and the commit that changed it seals it again
(search.catalog.seals).
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
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
    false,
    null,
    text,
)

metadata = MetaData()


NAME = Text().with_variant(Text(collation="C"), "postgresql")
"""A text that is sorted as Python and SQLite sort: by code points, whatever the server's language is."""


def _seal() -> Column[int]:
    """A row's checksum: empty after every change, until the commit fills it in."""
    return Column("crc", BigInteger, nullable=True, onupdate=null())


def _where(name: str, *columns: str, where: str) -> Index:
    """An index of the rows that fulfil a condition; where a database has no such thing, of all."""
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))


def _unsealed(table: str, column: str) -> Index:
    """What finds the rows that the commit has to seal, in no time where there are none."""
    return Index(f"{table}_unsealed", column, sqlite_where=text("crc IS NULL")).ddl_if(dialect="sqlite")


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
    # Which layout of the library this is, and the oldest that a reader must know to make sense of it.
    Column("format", Integer, nullable=False, server_default="3"),
    Column("min_reader", Integer, nullable=False, server_default="3"),
    # The published generation: its number, the last commit it reflects, the SHA-256 of its manifest.
    Column("generation", Integer, nullable=True),
    Column("generation_seq", BigInteger, nullable=True),
    Column("generation_hash", String(64), nullable=True),
    # The index on a server, if there is one: its URL, by what one knows that what lies there is ours and as we left
    # it, and the last commit that was brought there (search.mirror).
    Column("index_url", Text, nullable=True),
    Column("index_mark", Text, nullable=True),
    Column("index_seq", BigInteger, nullable=True),
    # CRC-32 over the statements that made tables and indexes.
    Column("schema_crc", BigInteger, nullable=True),
    _seal(),
    CheckConstraint("id = 1", name="one_row"),
    _unsealed("state", "id"),
)

roots = Table(
    "roots",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("path", LargeBinary, nullable=False, unique=True),
    Column("file_system", Text, nullable=True),  # the identity of the file system it was last seen on
    _seal(),
    _unsealed("roots", "id"),
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
    Column("camera", NAME, nullable=True),
    Column("lens", Text, nullable=True),
    Column("latitude", Float, nullable=True),
    Column("longitude", Float, nullable=True),
    # Set when the file was not found any more; its vectors and labels wait for its return.
    Column("gone_at", DateTime, nullable=True),
    Column("seq", BigInteger, nullable=False),
    Column("ctime_ns", BigInteger, nullable=True),  # None in rows older than the column: taken as unchanged
    Column("checked_at", DateTime, nullable=True),  # when `check --photos` last looked at the file
    Column("rating", Integer, nullable=True),  # 0 to 5, -1 for rejected
    # Which reader the metadata came from; None: it must be read again, by whichever is at hand.
    Column("reader", Integer, nullable=True),
    _seal(),
    UniqueConstraint("root_id", "path", name="photo_place"),
    Index("photo_content", "content_hash"),
    Index("photo_size", "size_bytes"),
    Index("photo_taken_at", "taken_at"),
    # Few photos are gone: who is present is told from this, without a look at any row.
    _where("photo_gone", "gone_at", where="gone_at IS NOT NULL"),
    _where("photo_camera", "camera", "taken_at", where="camera IS NOT NULL"),
    _where("photo_position", "latitude", "longitude", where="latitude IS NOT NULL"),
    _unsealed("photos", "id"),
    sqlite_autoincrement=True,  # an id is never given twice: indexes and exports remember them
)

# SQLite counts photos in the index with the smallest entries, of several alike in the one made last: in this one
# that takes a fifth of the time that it takes in the one by date.
smallest = Index("photo_seq", photos.c.seq)

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
    _seal(),
    _unsealed("encoders", "id"),
)

embeddings = Table(
    "embeddings",
    metadata,
    Column("encoder_id", Integer, ForeignKey("encoders.id"), primary_key=True),
    Column("photo_id", Integer, ForeignKey("photos.id"), primary_key=True),
    Column("vector", LargeBinary, nullable=False),  # (D,) little-endian float16
    Column("crc", BigInteger, nullable=False),  # CRC-32 over photo id, encoder id and vector
)

pictures = Table(
    "pictures",
    metadata,
    Column("photo_id", Integer, ForeignKey("photos.id"), primary_key=True, autoincrement=False),
    # What the rest was made by: values of different methods can't be compared.
    Column("method", Integer, nullable=False),
    Column("hash", LargeBinary, nullable=False),  # alike where pictures look alike
    Column("sharpness", Float, nullable=False),
    Column("quality", Integer, nullable=True),
    _seal(),
    _unsealed("pictures", "photo_id"),
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
    Column("ctime_ns", BigInteger, nullable=True),
    _seal(),
    _unsealed("skips", "root_id"),
)

runs = Table(
    "runs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", String(16), nullable=False),  # label, accept, reject, review, import, export, probe
    Column("started_at", DateTime, nullable=False),
    Column("encoder_id", Integer, ForeignKey("encoders.id"), nullable=True),
    # What the user called the label set and the templates: a built-in set, a file, or "given".
    Column("label_set", Text, nullable=True),
    Column("templates", Text, nullable=True),
    Column("details", Text, nullable=True),  # JSON
    Column("undone_at", DateTime, nullable=True),
    _seal(),
    _unsealed("runs", "id"),
    sqlite_autoincrement=True,  # sidecars and people remember the number
)

labels = Table(
    "labels",
    metadata,
    Column("photo_id", Integer, ForeignKey("photos.id"), primary_key=True),
    Column("label", NAME, primary_key=True),
    Column("source", String(16), primary_key=True),  # zero-shot, user, import; file: its own keywords
    Column("encoder_id", Integer, ForeignKey("encoders.id"), nullable=True),
    Column("probability", Float, nullable=True),
    Column("score", Float, nullable=True),
    Column("created_at", DateTime, nullable=False),
    Column("run_id", Integer, ForeignKey("runs.id"), nullable=True),  # None: older than runs, or of the file
    # What the verdict that counts says; kept here so that no query need look there (search.catalog.tagging).
    Column("rejected", Boolean, nullable=False, server_default=false()),
    _seal(),
    # All that filters ask of labels is in this index.
    _where("label_name", "label", "photo_id", where="NOT rejected"),
    _where("label_rejected", "photo_id", where="rejected"),
    _unsealed("labels", "photo_id"),
)

verdicts = Table(
    "verdicts",
    metadata,
    Column("photo_id", Integer, ForeignKey("photos.id"), primary_key=True),
    Column("label", NAME, primary_key=True),
    # The verdict of the highest run counts: with a run undone, the one before does again.
    Column("run_id", Integer, ForeignKey("runs.id"), primary_key=True),
    Column("accepted", Boolean, nullable=False),
    Column("created_at", DateTime, nullable=False),
    _seal(),
    Index("verdict_run", "run_id"),
    Index("verdict_label", "label"),
    _unsealed("verdicts", "photo_id"),
)

sidecars = Table(
    "sidecars",
    metadata,
    Column("photo_id", Integer, ForeignKey("photos.id"), primary_key=True),
    Column("name", LargeBinary, primary_key=True),  # of the file beside the photo
    Column("before", LargeBinary, nullable=True),  # zlib of it without anything of ours; None: there was none
    Column("after_hash", LargeBinary(32), nullable=False),  # SHA-256 of it as we left it
    Column("tags", Text, nullable=False),  # JSON: what we put in
    _seal(),
    _unsealed("sidecars", "photo_id"),
)

heads = Table(
    "heads",
    metadata,
    # A cache: what verdicts and vectors come to, and can be made of them again.
    Column("encoder_id", Integer, ForeignKey("encoders.id"), primary_key=True),
    Column("label", NAME, primary_key=True),
    Column("weights", LargeBinary, nullable=False),  # (D,) little-endian float32
    Column("bias", Float, nullable=False),
    Column("threshold", Float, nullable=True),
    Column("precision", Float, nullable=True),
    Column("examples", Integer, nullable=False),
    Column("details", Text, nullable=True),  # JSON
    Column("trained_at", DateTime, nullable=False),
    _seal(),
    _unsealed("heads", "encoder_id"),
)

OF_PHOTOS = (embeddings, labels, pictures, verdicts, sidecars)
"""Tables whose rows belong to a photo and go with it."""

jobs = Table(
    "jobs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("host", Text, nullable=False),
    Column("boot_id", Text, nullable=False),
    Column("command", Text, nullable=False),
    Column("started_at", DateTime, nullable=False),
    Column("heartbeat_at", DateTime, nullable=False),
    Column("finished_at", DateTime, nullable=True),
    Column("outcome", String(16), nullable=True),  # done, interrupted, failed; None while it runs or died
    Column("done", Integer, nullable=False),
    Column("total", Integer, nullable=True),
    _seal(),
    _unsealed("jobs", "id"),
    sqlite_autoincrement=True,
)

in_flight = Table(
    "in_flight",
    metadata,
    Column("root_id", Integer, ForeignKey("roots.id"), primary_key=True),
    Column("path", LargeBinary, primary_key=True),
    Column("job_id", Integer, ForeignKey("jobs.id"), nullable=False),
    Column("alone", Boolean, nullable=False),  # whether the job was at work on nothing else
    Column("deaths", Integer, nullable=False),  # of processes that were at work on it alone
    _seal(),
    _unsealed("in_flight", "root_id"),
)

scanned = Table(
    "scanned",
    MetaData(),  # temporary: it lives on one connection for one run
    Column("root_id", Integer, primary_key=True),
    Column("path", LargeBinary, primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("ctime_ns", BigInteger, nullable=True),
    prefixes=["TEMPORARY"],
)
