"""Layout 8: workers that follow a gallery say who they have erased. SQLite has no such table."""

import sqlalchemy as sa
from alembic import op

revision = "8"
down_revision = "7"


def upgrade() -> None:
    if op.get_bind().dialect.name != "sqlite":
        op.add_column("followers", sa.Column("erased", sa.Text, nullable=False, server_default=""))
