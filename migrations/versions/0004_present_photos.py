"""Indexes that tell who is present, by which camera and where, without a look at any row."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    for name, columns in (
        ("photo_gone", ["gone_at"]),
        ("photo_camera", ["camera", "taken_at"]),
        ("photo_position", ["latitude", "longitude"]),
    ):
        where = sa.text(f"{columns[0]} IS NOT NULL")
        op.create_index(name, "photos", columns, sqlite_where=where, postgresql_where=where)
    # SQLite counts in the index with the smallest entries, of several alike in the one made last.
    op.drop_index("photo_seq", "photos")
    op.create_index("photo_seq", "photos", ["seq"])
