"""Photos, their embeddings per encoder, and the files that were skipped."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "state",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("uuid", sa.String(36), nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("purge_seq", sa.BigInteger, nullable=False),
        sa.Column("encoder_id", sa.Integer, nullable=True),
        sa.CheckConstraint("id = 1", name="one_row"),
    )
    op.create_table(
        "roots",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("path", sa.LargeBinary, nullable=False, unique=True),
    )
    op.create_table(
        "photos",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("root_id", sa.Integer, sa.ForeignKey("roots.id"), nullable=False),
        sa.Column("path", sa.LargeBinary, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("mtime_ns", sa.BigInteger, nullable=False),
        sa.Column("content_hash", sa.LargeBinary(32), nullable=False),
        sa.Column("format", sa.String(16), nullable=False),
        sa.Column("width", sa.Integer, nullable=False),
        sa.Column("height", sa.Integer, nullable=False),
        sa.Column("orientation", sa.Integer, nullable=False),
        sa.Column("taken_at", sa.DateTime, nullable=True),
        sa.Column("taken_offset_s", sa.Integer, nullable=True),
        sa.Column("taken_at_source", sa.String(8), nullable=True),
        sa.Column("camera", NAME, nullable=True),
        sa.Column("lens", sa.Text, nullable=True),
        sa.Column("latitude", sa.Float, nullable=True),
        sa.Column("longitude", sa.Float, nullable=True),
        sa.Column("gone_at", sa.DateTime, nullable=True),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("root_id", "path", name="photo_place"),
        sqlite_autoincrement=True,
    )
    op.create_index("photo_content", "photos", ["content_hash"])
    op.create_index("photo_size", "photos", ["size_bytes"])
    op.create_index("photo_seq", "photos", ["seq"])
    op.create_index("photo_taken_at", "photos", ["taken_at"])
    op.create_table(
        "encoders",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False, unique=True),
        sa.Column("dim", sa.Integer, nullable=False),
        sa.Column("context_length", sa.Integer, nullable=False),
        sa.Column("logit_scale", sa.Float, nullable=False),
        sa.Column("logit_bias", sa.Float, nullable=True),
    )
    op.create_table(
        "embeddings",
        sa.Column("encoder_id", sa.Integer, sa.ForeignKey("encoders.id"), primary_key=True),
        sa.Column("photo_id", sa.Integer, sa.ForeignKey("photos.id"), primary_key=True),
        sa.Column("vector", sa.LargeBinary, nullable=False),
        sa.Column("crc", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "skips",
        sa.Column("root_id", sa.Integer, sa.ForeignKey("roots.id"), primary_key=True),
        sa.Column("path", sa.LargeBinary, primary_key=True),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("mtime_ns", sa.BigInteger, nullable=False),
        sa.Column("decoder", sa.Text, nullable=False),
        sa.Column("reason", sa.String(32), nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
    )
