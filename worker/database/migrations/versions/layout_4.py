"""Layout 4: which rows that had to wait were written already; merges and splits of unknown people."""

import sqlalchemy as sa
from alembic import op

revision = "4"
down_revision = "3"


def upgrade() -> None:
    op.create_table(
        "batches",
        sa.Column("batch_id", sa.Text, primary_key=True),
        sa.Column("expires_s", sa.Double, nullable=False),
    )
    op.create_table(
        "regroupings",
        sa.Column("step", sa.Text, primary_key=True),
        sa.Column("number", sa.Integer, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("from_id", "to_id", "sighting_ids")),
        *(sa.Column(name, sa.Integer, nullable=False) for name in ("whole", "undone")),
        sa.Column("expires_s", sa.Double, nullable=False),
    )
