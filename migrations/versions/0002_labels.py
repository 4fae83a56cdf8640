"""Labels with their provenance."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "labels",
        sa.Column("photo_id", sa.Integer, sa.ForeignKey("photos.id"), primary_key=True),
        sa.Column("label", NAME, primary_key=True),
        sa.Column("source", sa.String(16), primary_key=True),
        sa.Column("encoder_id", sa.Integer, sa.ForeignKey("encoders.id"), nullable=True),
        sa.Column("probability", sa.Float, nullable=True),
        sa.Column("score", sa.Float, nullable=True),
        sa.Column("created_at", sa.DateTime, nullable=False),
    )
    op.create_index("label_name", "labels", ["label"])
