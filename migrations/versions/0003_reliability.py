"""Checksums of rows, change times, root identity, jobs, files in flight, index generations."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

SEALED = {
    "state": "id",
    "roots": "id",
    "photos": "id",
    "encoders": "id",
    "skips": "root_id",
    "labels": "photo_id",
    "jobs": "id",
    "in_flight": "root_id",
}


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("boot_id", sa.Text, nullable=False),
        sa.Column("command", sa.Text, nullable=False),
        sa.Column("started_at", sa.DateTime, nullable=False),
        sa.Column("heartbeat_at", sa.DateTime, nullable=False),
        sa.Column("finished_at", sa.DateTime, nullable=True),
        sa.Column("outcome", sa.String(16), nullable=True),
        sa.Column("done", sa.Integer, nullable=False),
        sa.Column("total", sa.Integer, nullable=True),
        sa.Column("crc", sa.BigInteger, nullable=True),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "in_flight",
        sa.Column("root_id", sa.Integer, sa.ForeignKey("roots.id"), primary_key=True),
        sa.Column("path", sa.LargeBinary, primary_key=True),
        sa.Column("job_id", sa.Integer, sa.ForeignKey("jobs.id"), nullable=False),
        sa.Column("alone", sa.Boolean, nullable=False),
        sa.Column("deaths", sa.Integer, nullable=False),
        sa.Column("crc", sa.BigInteger, nullable=True),
    )
    op.add_column("state", sa.Column("format", sa.Integer, nullable=False, server_default="3"))
    op.add_column("state", sa.Column("min_reader", sa.Integer, nullable=False, server_default="3"))
    op.add_column("state", sa.Column("generation", sa.Integer, nullable=True))
    op.add_column("state", sa.Column("generation_seq", sa.BigInteger, nullable=True))
    op.add_column("state", sa.Column("generation_hash", sa.String(64), nullable=True))
    op.add_column("state", sa.Column("schema_crc", sa.BigInteger, nullable=True))
    op.add_column("roots", sa.Column("file_system", sa.Text, nullable=True))
    op.add_column("photos", sa.Column("ctime_ns", sa.BigInteger, nullable=True))
    op.add_column("photos", sa.Column("checked_at", sa.DateTime, nullable=True))
    op.add_column("skips", sa.Column("ctime_ns", sa.BigInteger, nullable=True))
    for table in ("state", "roots", "photos", "encoders", "skips", "labels"):
        op.add_column(table, sa.Column("crc", sa.BigInteger, nullable=True))
    if op.get_context().dialect.name != "sqlite":
        return  # nothing is sealed there
    for table, column in SEALED.items():
        op.create_index(f"{table}_unsealed", table, [column], sqlite_where=sa.text("crc IS NULL"))
