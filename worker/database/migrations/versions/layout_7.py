"""Layout 7: people by the change that made them, in PostgreSQL. SQLite keeps none: nothing changes there."""

from alembic import op

revision = "7"
down_revision = "6"


def upgrade() -> None:
    if op.get_bind().dialect.name != "sqlite":
        op.create_index("people_by_change", "people", ["gallery", "changed"])
