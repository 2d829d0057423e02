"""Layout 1: past sightings, unknown people and tallies, as they were before there were layouts."""

import sqlalchemy as sa
from alembic import op

revision = "1"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "sightings",
        sa.Column("sighting_id", sa.Text, primary_key=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("camera_id",)),
        *(sa.Column(name, sa.Double, nullable=False) for name in ("started_s", "ended_s")),
        *(
            sa.Column(name, sa.Text, nullable=False)
            for name in ("identity_id", "identity_name", "unknown_id", "model_id", "preprocessing")
        ),
        sa.Column("template", sa.LargeBinary),
        sa.Column("evidence", sa.Integer, nullable=False),
        sa.Column("quality", sa.Double),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("event", "account")),
        sa.Column("corrections", sa.Integer, nullable=False, server_default=sa.text("0")),
        *(sa.Column(name, sa.Double, nullable=False) for name in ("recorded_s", "expires_s")),
    )
    op.create_index("sightings_by_time", "sightings", ["started_s"])
    alone = sa.text("unknown_id != ''")
    op.create_index("sightings_by_unknown", "sightings", ["unknown_id"], sqlite_where=alone, postgresql_where=alone)
    op.create_table(
        "unknowns",
        sa.Column("unknown_id", sa.Text, primary_key=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("model_id", "preprocessing")),
        sa.Column("template", sa.LargeBinary),
        *(sa.Column(name, sa.Double, nullable=False) for name in ("evidence", "first_seen_s", "last_seen_s")),
        sa.Column("revision", sa.BigInteger, nullable=False),
        *(sa.Column(name, sa.Double, nullable=False) for name in ("recorded_s", "expires_s")),
    )
    op.create_index("unknowns_by_revision", "unknowns", ["revision"])
    newest = op.create_table("newest", sa.Column("revision", sa.BigInteger, nullable=False))
    op.bulk_insert(newest, [{"revision": 0}])
    op.create_table(
        "tallies",
        sa.Column("camera_id", sa.Text, primary_key=True),
        sa.Column("hour", sa.Integer, primary_key=True),
        sa.Column("reason", sa.Text, primary_key=True),
        *(sa.Column(name, sa.Integer, nullable=False) for name in ("tracks", "faces")),
        sa.Column("expires_s", sa.Double, nullable=False),
        sqlite_with_rowid=False,
    )
