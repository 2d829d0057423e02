"""Layout 12: rules of the console, and the alerts that they have raised."""

import sqlalchemy as sa
from alembic import op

revision = "12"
down_revision = "11"


def upgrade() -> None:
    op.create_table(
        "console_rules",
        sa.Column("rule_id", sa.Text, primary_key=True),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("made_s", sa.Double, nullable=False),
    )
    op.create_table(
        "console_alerts",
        sa.Column("rule_id", sa.Text, sa.ForeignKey("console_rules.rule_id", ondelete="CASCADE"), primary_key=True),
        sa.Column("sighting_id", sa.Text, primary_key=True),
        sa.Column("receiver", sa.Text, primary_key=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("event", "state", "problem")),
        sa.Column("tries", sa.Integer, nullable=False),
        *(sa.Column(name, sa.Double, nullable=False) for name in ("made_s", "due_s")),
    )
    op.create_index("console_alerts_by_due", "console_alerts", ["state", "due_s"])
