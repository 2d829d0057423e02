"""Layout 18: two enrolled people who were made one can be taken apart again."""

import sqlalchemy as sa
from alembic import op

revision = "18"
down_revision = "17"


def upgrade() -> None:
    op.add_column("regroupings", sa.Column("undo", sa.Text, nullable=False, server_default=""))
