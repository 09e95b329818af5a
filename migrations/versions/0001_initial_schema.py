"""Initial schema"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply this migration."""
    op.create_table(
        "api_keys",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("secret_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("scopes", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("prefix", name=op.f("uq_api_keys_prefix")),
    )
    op.create_table(
        "audit_events",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("detail", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_events")),
    )
    op.create_index(op.f("ix_audit_events_subject_id"), "audit_events", ["subject", "id"], unique=False)
    op.create_table(
        "batches",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("total", sa.Integer(), server_default="0", nullable=False),
        sa.Column("completed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("failed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("cancelled", sa.Integer(), server_default="0", nullable=False),
        sa.Column("ok", sa.Integer(), server_default="0", nullable=False),
        sa.Column("ng", sa.Integer(), server_default="0", nullable=False),
        sa.Column("review", sa.Integer(), server_default="0", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("state IN ('open', 'running', 'completed', 'cancelled')", name=op.f("ck_batches_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batches")),
    )
    op.create_table(
        "images",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("day", "sha256", name=op.f("pk_images")),
    )
    op.create_table(
        "inspections",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("recipe_id", sa.BigInteger(), nullable=False),
        sa.Column("priority", sa.Text(), nullable=False),
        sa.Column("batch_id", sa.Uuid(), nullable=True),
        sa.Column("external_id", sa.Text(), nullable=True),
        sa.Column("part_id", sa.Text(), nullable=True),
        sa.Column("lot_id", sa.Text(), nullable=True),
        sa.Column("line_id", sa.Text(), nullable=True),
        sa.Column("station_id", sa.Text(), nullable=True),
        sa.Column("metadata", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("captured_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deadline_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("image_day", sa.Date(), nullable=False),
        sa.Column("image_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("model_version_id", sa.BigInteger(), nullable=True),
        sa.Column("threshold_id", sa.BigInteger(), nullable=True),
        sa.Column("threshold", sa.Float(precision=53), nullable=True),
        sa.Column("review_threshold", sa.Float(precision=53), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("anomaly_score", sa.Float(precision=53), nullable=True),
        sa.Column("verdict", sa.Text(), nullable=True),
        sa.Column("reasons", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_detail", sa.Text(), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("timings_ms", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.CheckConstraint(
            "(status = 'completed') = (anomaly_score IS NOT NULL AND verdict IS NOT NULL)",
            name=op.f("ck_inspections_completed_has_result"),
        ),
        sa.CheckConstraint(
            "(status = 'failed') = (error_code IS NOT NULL)", name=op.f("ck_inspections_failed_has_error")
        ),
        sa.CheckConstraint("status IN ('completed', 'failed', 'cancelled')", name=op.f("ck_inspections_status")),
        sa.CheckConstraint("verdict IN ('ok', 'ng', 'review')", name=op.f("ck_inspections_verdict")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_inspections")),
        postgresql_partition_by="RANGE (id)",
    )
    op.create_index(
        "ix_inspections_batch_id_id",
        "inspections",
        ["batch_id", "id"],
        unique=False,
        postgresql_where=sa.text("batch_id IS NOT NULL"),
    )
    op.create_index(
        "ix_inspections_lot_id_id",
        "inspections",
        ["lot_id", "id"],
        unique=False,
        postgresql_where=sa.text("lot_id IS NOT NULL"),
    )
    op.create_index(
        "ix_inspections_line_id_id",
        "inspections",
        ["line_id", "id"],
        unique=False,
        postgresql_where=sa.text("line_id IS NOT NULL"),
    )
    op.create_index(
        "ix_inspections_station_id_id",
        "inspections",
        ["station_id", "id"],
        unique=False,
        postgresql_where=sa.text("station_id IS NOT NULL"),
    )
    op.create_index(
        "ix_inspections_part_id_id",
        "inspections",
        ["part_id", "id"],
        unique=False,
        postgresql_where=sa.text("part_id IS NOT NULL"),
    )
    op.create_index(op.f("ix_inspections_recipe_id_id"), "inspections", ["recipe_id", "id"], unique=False)
    op.create_table(
        "recipes",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="active", nullable=False),
        sa.Column("without_model", sa.Text(), server_default="refuse", nullable=False),
        sa.Column("active_version_id", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("state IN ('active', 'archived')", name=op.f("ck_recipes_state")),
        sa.CheckConstraint("without_model IN ('refuse', 'wait')", name=op.f("ck_recipes_without_model")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_recipes")),
        sa.UniqueConstraint("name", name=op.f("uq_recipes_name")),
    )
    op.create_table(
        "work",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("recipe_id", sa.BigInteger(), nullable=False),
        sa.Column("priority", sa.Text(), nullable=False),
        sa.Column("batch_id", sa.Uuid(), nullable=True),
        sa.Column("external_id", sa.Text(), nullable=True),
        sa.Column("part_id", sa.Text(), nullable=True),
        sa.Column("lot_id", sa.Text(), nullable=True),
        sa.Column("line_id", sa.Text(), nullable=True),
        sa.Column("station_id", sa.Text(), nullable=True),
        sa.Column("metadata", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("captured_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deadline_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("image_day", sa.Date(), nullable=False),
        sa.Column("image_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("model_version_id", sa.BigInteger(), nullable=True),
        sa.Column("threshold_id", sa.BigInteger(), nullable=True),
        sa.Column("threshold", sa.Float(precision=53), nullable=True),
        sa.Column("review_threshold", sa.Float(precision=53), nullable=True),
        sa.Column("state", sa.Text(), server_default="queued", nullable=False),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("rescues", sa.Integer(), server_default="0", nullable=False),
        sa.Column("released_because", sa.Text(), nullable=True),
        sa.CheckConstraint("priority IN ('sync', 'live', 'bulk')", name=op.f("ck_work_priority")),
        sa.CheckConstraint("state IN ('queued', 'running')", name=op.f("ck_work_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_work")),
        postgresql_with={"fillfactor": 50, "autovacuum_vacuum_scale_factor": 0.0, "autovacuum_vacuum_threshold": 2000},
    )
    op.create_index(
        "ix_work_batch_id", "work", ["batch_id"], unique=False, postgresql_where=sa.text("batch_id IS NOT NULL")
    )
    op.create_index(
        "ix_work_deadline", "work", ["deadline_at"], unique=False, postgresql_where=sa.text("deadline_at IS NOT NULL")
    )
    op.create_index(
        "ix_work_queued",
        "work",
        ["priority", "recipe_id", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_index(
        "ix_work_running", "work", ["lease_until"], unique=False, postgresql_where=sa.text("state = 'running'")
    )
    op.create_table(
        "model_versions",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("recipe_id", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), server_default="uploaded", nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("manifest", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("rejection", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('uploaded', 'ready', 'rejected', 'retired')", name=op.f("ck_model_versions_state")
        ),
        sa.ForeignKeyConstraint(["recipe_id"], ["recipes.id"], name=op.f("fk_model_versions_recipe_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_versions")),
        sa.UniqueConstraint("recipe_id", "sha256", name=op.f("uq_model_versions_recipe_id_sha256")),
        sa.UniqueConstraint("recipe_id", "version", name=op.f("uq_model_versions_recipe_id_version")),
    )
    op.create_table(
        "activations",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("recipe_id", sa.BigInteger(), nullable=False),
        sa.Column("model_version_id", sa.BigInteger(), nullable=False),
        sa.Column("activated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("rolled_back_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["model_version_id"], ["model_versions.id"], name=op.f("fk_activations_model_version_id")
        ),
        sa.ForeignKeyConstraint(["recipe_id"], ["recipes.id"], name=op.f("fk_activations_recipe_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_activations")),
    )
    op.create_index(op.f("ix_activations_recipe_id_id"), "activations", ["recipe_id", "id"], unique=False)
    op.create_table(
        "thresholds",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("model_version_id", sa.BigInteger(), nullable=False),
        sa.Column("station_id", sa.Text(), nullable=True),
        sa.Column("threshold", sa.Float(precision=53), nullable=False),
        sa.Column("review_threshold", sa.Float(precision=53), nullable=True),
        sa.Column("calibration", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("review_threshold <= threshold", name=op.f("ck_thresholds_review_below_threshold")),
        sa.ForeignKeyConstraint(
            ["model_version_id"], ["model_versions.id"], name=op.f("fk_thresholds_model_version_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_thresholds")),
    )
    op.create_index(
        op.f("ix_thresholds_model_version_id_station_id_id"),
        "thresholds",
        ["model_version_id", "station_id", "id"],
        unique=False,
    )
    # Recipes and model versions reference each other.
    op.create_foreign_key("fk_recipes_active_version_id", "recipes", "model_versions", ["active_version_id"], ["id"])
    # For rows without a monthly partition; `core.partitions` creates those ahead of time.
    op.execute("CREATE TABLE inspections_default PARTITION OF inspections DEFAULT")
