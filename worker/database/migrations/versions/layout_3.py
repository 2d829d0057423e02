"""Layout 3: which batches of rows that had to wait were written already."""

import sqlalchemy as sa
from alembic import op

revision = "3"
down_revision = "2"


def upgrade() -> None:
    op.create_table(
        "batches",
        sa.Column("batch_id", sa.Text, primary_key=True),
        sa.Column("expires_s", sa.Double, nullable=False),
    )
