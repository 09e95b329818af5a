"""The bit depth of each recipe's camera"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply this migration."""
    op.add_column("recipes", sa.Column("bit_depth", sa.Text(), server_default="auto", nullable=False))
    op.create_check_constraint(
        op.f("ck_recipes_bit_depth"), "recipes", "bit_depth IN ('auto', '8', '10', '12', '14', '16')"
    )
