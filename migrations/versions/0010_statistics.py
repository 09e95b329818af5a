"""Counts of inspections, inspections that await a review, and who set which threshold and why"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply this migration."""
    op.add_column("thresholds", sa.Column("actor", sa.Text(), nullable=True))
    op.add_column("thresholds", sa.Column("reason", sa.Text(), nullable=True))
    op.add_column("thresholds", sa.Column("held_out_scores", sa.ARRAY(sa.Float(53)), nullable=True))
    _create_counts()
    _create_awaiting_review()


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


def _create_awaiting_review() -> None:
    op.create_table(
        "awaiting_review",
        sa.Column("inspection_id", sa.Uuid(), nullable=False),
        sa.Column("recipe_id", sa.BigInteger(), nullable=False),
        sa.Column("line_id", sa.Text(), nullable=True),
        sa.Column("station_id", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("inspection_id", name=op.f("pk_awaiting_review")),
    )
    op.create_index(
        op.f("ix_awaiting_review_recipe_id_inspection_id"), "awaiting_review", ["recipe_id", "inspection_id"]
    )
    # Triggers, so that what workers and apis of the previous version insert is there, too.
    op.execute("""
        CREATE FUNCTION await_review() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO awaiting_review (inspection_id, recipe_id, line_id, station_id)
            SELECT id, recipe_id, line_id, station_id FROM entered WHERE verdict = 'review';
            RETURN NULL;
        END $$
    """)
    op.execute("""
        CREATE TRIGGER await_review AFTER INSERT ON inspections REFERENCING NEW TABLE AS entered
        FOR EACH STATEMENT EXECUTE FUNCTION await_review()
    """)
    op.execute("""
        CREATE FUNCTION await_no_review() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            DELETE FROM awaiting_review WHERE inspection_id = NEW.inspection_id;
            RETURN NULL;
        END $$
    """)
    op.execute("""
        CREATE TRIGGER await_no_review AFTER INSERT ON reviews
        FOR EACH ROW EXECUTE FUNCTION await_no_review()
    """)
