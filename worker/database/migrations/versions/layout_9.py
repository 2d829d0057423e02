"""Layout 9: people may have a consent. SQLite has no people."""

import sqlalchemy as sa
from alembic import op

revision = "9"
down_revision = "8"


def upgrade() -> None:
    if op.get_bind().dialect.name != "sqlite":
        op.add_column("people", sa.Column("consent", sa.Text, nullable=False, server_default=""))
