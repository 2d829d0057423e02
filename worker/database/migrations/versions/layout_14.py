"""Layout 14: the newest sightings of one person, known or unknown, are found by an index, without all others."""

from alembic import op

revision = "14"
down_revision = "13"


def upgrade() -> None:
    op.drop_index("sightings_by_unknown", "sightings")
    op.create_index("sightings_by_unknown", "sightings", ["unknown_id", "started_s"])
    op.create_index("sightings_by_person", "sightings", ["identity_id", "started_s"])
