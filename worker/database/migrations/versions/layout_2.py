"""Layout 2: what people said of past sightings afterwards."""

import sqlalchemy as sa
from alembic import op

revision = "2"
down_revision = "1"


def upgrade() -> None:
    op.create_table(
        "denials",
        sa.Column("sighting_id", sa.Text, primary_key=True),
        sa.Column("ordinal", sa.Integer, primary_key=True),
        *(
            sa.Column(name, sa.Text, nullable=False)
            for name in ("identity_id", "identity_name", "given_id", "unknown_id")
        ),
        sa.Column("denied_s", sa.Double, nullable=False),
        sqlite_with_rowid=False,
    )
    op.add_column("newest", sa.Column("denials", sa.Integer, nullable=False, server_default=sa.text("0")))
