"""Re-scoring: runs, slices, results, schedules, guaranteed share of bulk work"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002b"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply this migration."""
    op.create_table(
        "bulk_share",
        sa.Column("singleton", sa.Integer(), server_default="1", autoincrement=False, nullable=False),
        sa.Column("scored", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("scored_seen", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("feed_seen", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("credit", sa.Float(precision=53), server_default="0", nullable=False),
        sa.CheckConstraint("singleton = 1", name=op.f("ck_bulk_share_one_row")),
        sa.PrimaryKeyConstraint("singleton", name=op.f("pk_bulk_share")),
    )
    op.create_table(
        "rescore_schedules",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("recipe_id", sa.BigInteger(), nullable=False),
        sa.Column("cron", sa.Text(), nullable=False),
        sa.Column("time_zone", sa.Text(), nullable=False),
        sa.Column("request", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("state", sa.Text(), server_default="enabled", nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_run_id", sa.Uuid(), nullable=True),
        sa.Column("last_outcome", sa.Text(), nullable=True),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("state IN ('enabled', 'disabled')", name=op.f("ck_rescore_schedules_state")),
        sa.ForeignKeyConstraint(["recipe_id"], ["recipes.id"], name=op.f("fk_rescore_schedules_recipe_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rescore_schedules")),
        sa.UniqueConstraint("name", name=op.f("uq_rescore_schedules_name")),
    )
    op.create_table(
        "rescore_runs",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("recipe_id", sa.BigInteger(), nullable=False),
        sa.Column("model_version_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("source", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("recompute", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("threshold", sa.Float(precision=53), nullable=True),
        sa.Column("review_threshold", sa.Float(precision=53), nullable=True),
        sa.Column("limits", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("window", sa.Text(), nullable=True),
        sa.Column("time_zone", sa.Text(), nullable=True),
        sa.Column("max_failure_rate", sa.Float(precision=53), nullable=False),
        sa.Column("schedule_id", sa.Uuid(), nullable=True),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="queued", nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("cursor", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=True),
        sa.Column("planned", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("planned_all_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("completed", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("failed", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("ok", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("ng", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("review", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("ok_to_ng", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("ng_to_ok", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("skipped", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("rate", sa.Float(precision=53), server_default="0", nullable=False),
        sa.Column("rated_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("plan_attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("plan_lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("plan_published_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("activation", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("kind IN ('archive', 'challenger')", name=op.f("ck_rescore_runs_kind")),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'paused', 'completed', 'failed', 'cancelled')",
            name=op.f("ck_rescore_runs_state"),
        ),
        sa.ForeignKeyConstraint(
            ["model_version_id"], ["model_versions.id"], name=op.f("fk_rescore_runs_model_version_id")
        ),
        sa.ForeignKeyConstraint(["recipe_id"], ["recipes.id"], name=op.f("fk_rescore_runs_recipe_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rescore_runs")),
        postgresql_with={"fillfactor": 50},
    )
    op.create_index(
        "ix_rescore_runs_active",
        "rescore_runs",
        ["id"],
        unique=False,
        postgresql_where=sa.text("state IN ('queued', 'running', 'paused')"),
    )
    op.create_index(
        "ix_rescore_runs_challenger",
        "rescore_runs",
        ["recipe_id"],
        unique=True,
        postgresql_where=sa.text("kind = 'challenger' AND state IN ('queued', 'running', 'paused')"),
    )
    op.create_index(op.f("ix_rescore_runs_recipe_id_id"), "rescore_runs", ["recipe_id", "id"], unique=False)
    op.create_table(
        "rescore_results",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("inspection_id", sa.Uuid(), nullable=True),
        sa.Column("path", sa.Text(), nullable=True),
        sa.Column("external_id", sa.Text(), nullable=True),
        sa.Column("part_id", sa.Text(), nullable=True),
        sa.Column("lot_id", sa.Text(), nullable=True),
        sa.Column("line_id", sa.Text(), nullable=True),
        sa.Column("station_id", sa.Text(), nullable=True),
        sa.Column("captured_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("metadata", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("image_day", sa.Date(), nullable=True),
        sa.Column("image_sha256", sa.LargeBinary(), nullable=True),
        sa.Column("before_model_version_id", sa.BigInteger(), nullable=True),
        sa.Column("before_score", sa.Float(precision=53), nullable=True),
        sa.Column("before_threshold", sa.Float(precision=53), nullable=True),
        sa.Column("before_verdict", sa.Text(), nullable=True),
        sa.Column("anomaly_score", sa.Float(precision=53), nullable=True),
        sa.Column("threshold", sa.Float(precision=53), nullable=True),
        sa.Column("review_threshold", sa.Float(precision=53), nullable=True),
        sa.Column("verdict", sa.Text(), nullable=True),
        sa.Column("reasons", sa.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_detail", sa.Text(), nullable=True),
        sa.Column("scored_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("before_verdict IN ('ok', 'ng', 'review')", name=op.f("ck_rescore_results_before_verdict")),
        sa.CheckConstraint("verdict IN ('ok', 'ng', 'review')", name=op.f("ck_rescore_results_verdict")),
        sa.CheckConstraint(
            "(error_code IS NULL) = (anomaly_score IS NOT NULL AND verdict IS NOT NULL)",
            name=op.f("ck_rescore_results_result_or_error"),
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["rescore_runs.id"], name=op.f("fk_rescore_results_run_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run_id", "number", name=op.f("pk_rescore_results")),
    )
    op.create_index(
        "ix_rescore_results_flips",
        "rescore_results",
        ["run_id", "before_verdict", "verdict", "number"],
        unique=False,
        postgresql_where=sa.text("before_verdict <> verdict"),
    )
    op.create_table(
        "rescore_slices",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("first", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("items", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("done", sa.Integer(), server_default="0", nullable=False),
        sa.Column("state", sa.Text(), server_default="queued", nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("rescues", sa.Integer(), server_default="0", nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.CheckConstraint("state IN ('queued', 'running')", name=op.f("ck_rescore_slices_state")),
        sa.ForeignKeyConstraint(
            ["run_id"], ["rescore_runs.id"], name=op.f("fk_rescore_slices_run_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run_id", "first", name=op.f("pk_rescore_slices")),
        postgresql_with={"fillfactor": 50, "autovacuum_vacuum_scale_factor": 0.0, "autovacuum_vacuum_threshold": 500},
    )
    op.execute("INSERT INTO bulk_share DEFAULT VALUES")
