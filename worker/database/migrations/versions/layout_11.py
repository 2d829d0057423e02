"""Layout 11: unknown people may be ignored, and a name that one was given can be taken back."""

import sqlalchemy as sa
from alembic import op

revision = "11"
down_revision = "10"


def upgrade() -> None:
    op.add_column("unknowns", sa.Column("ignored", sa.Integer, nullable=False, server_default=sa.text("0")))
    op.add_column("regroupings", sa.Column("samples", sa.Text, nullable=False, server_default=""))
