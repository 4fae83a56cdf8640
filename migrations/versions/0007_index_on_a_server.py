"""The index on a server: where it is, by what one knows it, what it reflects."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("state", sa.Column("index_url", sa.Text, nullable=True))
    op.add_column("state", sa.Column("index_mark", sa.Text, nullable=True))
    op.add_column("state", sa.Column("index_seq", sa.BigInteger, nullable=True))
