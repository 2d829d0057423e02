"""Layout 16: keys of people that seal nothing any more but what was changed or deleted."""

import sqlalchemy as sa
from alembic import op

revision = "16"
down_revision = "15"


def upgrade() -> None:
    op.create_table(
        "spent_keys", sa.Column("tag", sa.Text, primary_key=True), sa.Column("owner", sa.Text, nullable=False)
    )
