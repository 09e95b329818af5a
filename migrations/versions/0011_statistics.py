"""Counts of inspections, indexes for listings, and who set which threshold and why"""

import sqlalchemy as sa
from alembic import op

from migrations.online import create_index, create_plain_index

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply this migration. If it is interrupted, it can be repeated."""
    create_index(
        "ix_inspections_not_ok_recipe_id_verdict_id", "inspections", "(recipe_id, verdict, id) WHERE verdict <> 'ok'"
    )
    create_index(
        "ix_inspections_model_version_id_id", "inspections", "(model_version_id, id) WHERE model_version_id IS NOT NULL"
    )
    create_plain_index("ix_reviews_reviewer_inspection_id", "reviews", "(reviewer, inspection_id)")
    op.add_column("thresholds", sa.Column("actor", sa.Text(), nullable=True))
    op.add_column("thresholds", sa.Column("reason", sa.Text(), nullable=True))
    op.add_column("thresholds", sa.Column("held_out_scores", sa.ARRAY(sa.Float(53)), nullable=True))
    _create_counts()


def _create_counts() -> None:
    op.create_table(
        "inspection_counts",
        sa.Column("recipe_id", sa.BigInteger(), nullable=False),
        sa.Column("begins_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("line_id", sa.Text(), nullable=True),
        sa.Column("station_id", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=True),
        sa.Column("duration_bin", sa.SmallInteger(), nullable=True),
        sa.Column("number", sa.BigInteger(), nullable=False),
        postgresql_with={"fillfactor": 70},
    )
    op.create_index(
        "ix_inspection_counts_cell",
        "inspection_counts",
        ["recipe_id", "begins_at", "line_id", "station_id", "status", "verdict", "duration_bin"],
        unique=True,
        postgresql_nulls_not_distinct=True,
    )
    op.create_table(
        "inspection_counts_state",
        sa.Column("singleton", sa.Integer(), server_default="1", autoincrement=False, nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("complete_from", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("singleton = 1", name=op.f("ck_inspection_counts_state_one_row")),
        sa.PrimaryKeyConstraint("singleton", name=op.f("pk_inspection_counts_state")),
    )
    # The dispatcher counts what becomes final from here on, and then the earlier inspections, the newest first.
    op.execute("INSERT INTO inspection_counts_state (position) SELECT coalesce(max(number), 0) FROM feed")
