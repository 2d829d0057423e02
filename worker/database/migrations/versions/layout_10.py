"""Layout 10: people may be in groups. SQLite has no people."""

import sqlalchemy as sa
from alembic import op

revision = "10"
down_revision = "9"


def upgrade() -> None:
    if op.get_bind().dialect.name != "sqlite":
        op.add_column("people", sa.Column("groups", sa.Text, nullable=False, server_default=""))
        op.add_column("galleries", sa.Column("groups", sa.Text, nullable=False, server_default="{}"))
