"""Measurements of images and their daily counts, drift, rescues, workers, and the size of the store"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

NOW = sa.text("now()")


def upgrade() -> None:
    """Apply this migration."""
    _create_counts()
    _create_episodes()
    _create_system()
    # Last, because no inspection can be written until the end of the transaction.
    for name in ("brightness", "contrast", "sharpness"):
        op.add_column("inspections", sa.Column(name, sa.REAL(), nullable=True))


def _create_counts() -> None:
    op.create_table(
        "drift_days",
        sa.Column("recipe_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("model_version_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("station_id", sa.Text(), nullable=False),
        sa.Column("ok", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("ng", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("review", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("recipe_id", "day", "model_version_id", "station_id", name=op.f("pk_drift_days")),
        postgresql_with={"fillfactor": 50},
    )
    op.create_table(
        "drift_histograms",
        sa.Column("recipe_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("model_version_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("station_id", sa.Text(), nullable=False),
        sa.Column("measure", sa.Text(), nullable=False),
        sa.Column("bin", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("count", sa.BigInteger(), server_default="0", nullable=False),
        sa.CheckConstraint(
            "measure IN ('score', 'brightness', 'contrast', 'sharpness')", name=op.f("ck_drift_histograms_measure")
        ),
        sa.PrimaryKeyConstraint(
            "recipe_id", "day", "model_version_id", "station_id", "measure", "bin", name=op.f("pk_drift_histograms")
        ),
        postgresql_with={"fillfactor": 70, "autovacuum_vacuum_scale_factor": 0.0, "autovacuum_vacuum_threshold": 5000},
    )
    op.create_table(
        "drift_state",
        sa.Column("singleton", sa.Integer(), server_default="1", autoincrement=False, nullable=False),
        sa.Column("feed_number", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("counted_until", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("singleton = 1", name=op.f("ck_drift_state_one_row")),
        sa.PrimaryKeyConstraint("singleton", name=op.f("pk_drift_state")),
    )
    op.execute("INSERT INTO drift_state DEFAULT VALUES")


def _create_episodes() -> None:
    op.create_table(
        "drift_episodes",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("recipe_id", sa.BigInteger(), nullable=False),
        sa.Column("model_version_id", sa.BigInteger(), nullable=False),
        sa.Column("summary", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("began_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["recipe_id"], ["recipes.id"], name=op.f("fk_drift_episodes_recipe_id")),
        sa.ForeignKeyConstraint(
            ["model_version_id"], ["model_versions.id"], name=op.f("fk_drift_episodes_model_version_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_drift_episodes")),
    )
    op.create_index(op.f("ix_drift_episodes_recipe_id_id"), "drift_episodes", ["recipe_id", "id"])
    op.create_index(
        "ix_drift_episodes_open",
        "drift_episodes",
        ["recipe_id"],
        unique=True,
        postgresql_where=sa.text("ended_at IS NULL"),
    )


def _create_system() -> None:
    op.create_table(
        "rescues",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.Column("inspections", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rescues")),
    )
    op.create_index(op.f("ix_rescues_at"), "rescues", ["at"])
    op.create_table(
        "workers",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("device", sa.Text(), nullable=True),
        sa.Column("model_version_ids", postgresql.ARRAY(sa.BigInteger()), server_default="{}", nullable=False),
        sa.Column("minibatch_fill", sa.Float(precision=53), nullable=True),
        sa.Column("images_per_second", sa.Float(precision=53), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.CheckConstraint("kind IN ('scoring', 'io', 'dispatcher', 'training')", name=op.f("ck_workers_kind")),
        sa.CheckConstraint("state IN ('starting', 'ready', 'unready', 'stopping')", name=op.f("ck_workers_state")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_workers")),
        postgresql_with={"fillfactor": 50},
    )
    op.create_table(
        "store_days",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("images", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("counted_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.PrimaryKeyConstraint("day", name=op.f("pk_store_days")),
    )
