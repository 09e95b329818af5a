"""An index of re-scoring results by inspection"""

from migrations.online import create_plain_index

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply this migration."""
    create_plain_index(
        "ix_rescore_results_inspection_id",
        "rescore_results",
        "(inspection_id, run_id) WHERE inspection_id IS NOT NULL",
    )
