"""Runs, verdicts, sidecars, heads; labels know their run and whether they were rejected."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

LABEL_COLUMNS = ("photo_id", "label", "source", "encoder_id", "probability", "score", "created_at")

NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    lite = op.get_context().dialect.name == "sqlite"
    op.create_table(
        "runs",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("started_at", sa.DateTime, nullable=False),
        sa.Column("encoder_id", sa.Integer, sa.ForeignKey("encoders.id"), nullable=True),
        sa.Column("label_set", sa.Text, nullable=True),
        sa.Column("templates", sa.Text, nullable=True),
        sa.Column("details", sa.Text, nullable=True),
        sa.Column("undone_at", sa.DateTime, nullable=True),
        sa.Column("crc", sa.BigInteger, nullable=True),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "verdicts",
        sa.Column("photo_id", sa.Integer, sa.ForeignKey("photos.id"), primary_key=True),
        sa.Column("label", NAME, primary_key=True),
        sa.Column("run_id", sa.Integer, sa.ForeignKey("runs.id"), primary_key=True),
        sa.Column("accepted", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("crc", sa.BigInteger, nullable=True),
    )
    op.create_index("verdict_run", "verdicts", ["run_id"])
    op.create_index("verdict_label", "verdicts", ["label"])
    op.create_table(
        "sidecars",
        sa.Column("photo_id", sa.Integer, sa.ForeignKey("photos.id"), primary_key=True),
        sa.Column("name", sa.LargeBinary, primary_key=True),
        sa.Column("before", sa.LargeBinary, nullable=True),
        sa.Column("after_hash", sa.LargeBinary(32), nullable=False),
        sa.Column("tags", sa.Text, nullable=False),
        sa.Column("crc", sa.BigInteger, nullable=True),
    )
    op.create_table(
        "heads",
        sa.Column("encoder_id", sa.Integer, sa.ForeignKey("encoders.id"), primary_key=True),
        sa.Column("label", NAME, primary_key=True),
        sa.Column("weights", sa.LargeBinary, nullable=False),
        sa.Column("bias", sa.Float, nullable=False),
        sa.Column("threshold", sa.Float, nullable=True),
        sa.Column("precision", sa.Float, nullable=True),
        sa.Column("examples", sa.Integer, nullable=False),
        sa.Column("details", sa.Text, nullable=True),
        sa.Column("trained_at", sa.DateTime, nullable=False),
        sa.Column("crc", sa.BigInteger, nullable=True),
    )
    if lite:
        unseal_sound_labels()
    # As statements: alembic adds no column with a foreign key to a table of SQLite.
    op.execute("ALTER TABLE labels ADD COLUMN run_id INTEGER REFERENCES runs (id)")
    op.add_column("labels", sa.Column("rejected", sa.Boolean, nullable=False, server_default=sa.false()))
    op.drop_index("label_name", "labels")
    for name, columns, where in (
        ("label_name", ["label", "photo_id"], sa.text("NOT rejected")),
        ("label_rejected", ["photo_id"], sa.text("rejected")),
    ):
        op.create_index(name, "labels", columns, sqlite_where=where, postgresql_where=where)
    if lite:
        for table, column in (
            ("runs", "id"),
            ("verdicts", "photo_id"),
            ("sidecars", "photo_id"),
            ("heads", "encoder_id"),
        ):
            op.create_index(f"{table}_unsealed", table, [column], sqlite_where=sa.text("crc IS NULL"))


def unseal_sound_labels() -> None:
    """Have the rows sealed anew that are what was written: a row's seal covers its two new columns too.

    A damaged row keeps a seal that does not hold.
    """
    kinds = ", ".join(f"typeof({name})" for name in LABEL_COLUMNS)
    values = ", ".join(
        f"CASE WHEN typeof({name}) = 'real' THEN {name} ELSE CAST({name} AS BLOB) END" for name in LABEL_COLUMNS
    )
    op.execute(f"UPDATE labels SET crc = NULL WHERE crc = row_crc('labels', {kinds}, {values})")  # noqa: S608
