"""Layout 17: when unknown people were merged or parted, so that sightings that went on meanwhile find their person."""

import sqlalchemy as sa
from alembic import op

revision = "17"
down_revision = "16"


def upgrade() -> None:
    column = sa.Column("changed_s", sa.Double, nullable=False, server_default=sa.text("0"))
    op.add_column("regroupings", column)
