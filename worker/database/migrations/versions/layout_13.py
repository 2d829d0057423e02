"""Layout 13: for how long things are kept, where that is set for all who use the database."""

import sqlalchemy as sa
from alembic import op

revision = "13"
down_revision = "12"


def upgrade() -> None:
    op.create_table(
        "retention",
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("days", sa.Double, nullable=False),
    )
