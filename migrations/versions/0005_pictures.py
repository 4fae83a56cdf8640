"""What a picture looks like at a glance, ratings, and which reader a photo's metadata came from."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


PHOTO_COLUMNS = (
    *(
        "id",
        "root_id",
        "path",
        "size_bytes",
        "mtime_ns",
        "content_hash",
        "format",
        "width",
        "height",
        "orientation",
    ),
    *(
        "taken_at",
        "taken_offset_s",
        "taken_at_source",
        "camera",
        "lens",
        "latitude",
        "longitude",
        "gone_at",
        "seq",
    ),
    *("ctime_ns", "checked_at"),
)


def upgrade() -> None:
    lite = op.get_context().dialect.name == "sqlite"
    if lite:
        unseal_sound_photos()
    op.create_table(
        "pictures",
        sa.Column("photo_id", sa.Integer, sa.ForeignKey("photos.id"), primary_key=True, autoincrement=False),
        sa.Column("method", sa.Integer, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.Column("sharpness", sa.Float, nullable=False),
        sa.Column("quality", sa.Integer, nullable=True),
        sa.Column("crc", sa.BigInteger, nullable=True),
    )
    op.add_column("photos", sa.Column("rating", sa.Integer, nullable=True))
    op.add_column("photos", sa.Column("reader", sa.Integer, nullable=True))
    if lite:
        op.create_index("pictures_unsealed", "pictures", ["photo_id"], sqlite_where=sa.text("crc IS NULL"))


def unseal_sound_photos() -> None:
    """Have the rows sealed anew that are what was written: a row's seal covers its two new columns too.

    A damaged row keeps a seal that does not hold.
    """
    kinds = ", ".join(f"typeof({name})" for name in PHOTO_COLUMNS)
    values = ", ".join(
        f"CASE WHEN typeof({name}) = 'real' THEN {name} ELSE CAST({name} AS BLOB) END" for name in PHOTO_COLUMNS
    )
    seal = f"row_crc('photos', {kinds}, {values})"
    op.execute(f"UPDATE photos SET crc = NULL WHERE crc = {seal}")  # noqa: S608
