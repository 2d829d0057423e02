"""Layout 15: accounts and tokens that see some cameras alone, accounts that are disabled or come from an OpenID
provider, links that set a password once, and where sessions come from."""

import sqlalchemy as sa
from alembic import op

revision = "15"
down_revision = "14"


def upgrade() -> None:
    zero = sa.text("0")
    op.add_column("console_accounts", sa.Column("cameras", sa.Text, nullable=False, server_default=""))
    op.add_column("console_accounts", sa.Column("disabled", sa.Integer, nullable=False, server_default=zero))
    for name in ("provider", "subject"):
        op.add_column("console_accounts", sa.Column(name, sa.Text, nullable=False, server_default=""))
    op.create_index(
        "console_accounts_by_subject", "console_accounts", ["provider", "subject"], unique=True,
        sqlite_where=sa.text("provider != ''"), postgresql_where=sa.text("provider != ''"),
    )  # fmt: skip
    op.add_column("console_tokens", sa.Column("cameras", sa.Text, nullable=False, server_default=""))
    op.add_column("console_sessions", sa.Column("begun_s", sa.Double, nullable=False, server_default=zero))
    for name in ("address", "agent"):
        op.add_column("console_sessions", sa.Column(name, sa.Text, nullable=False, server_default=""))
    op.create_table(
        "console_links",
        sa.Column("digest", sa.Text, primary_key=True),
        sa.Column("account", sa.Text, sa.ForeignKey("console_accounts.account", ondelete="CASCADE"), nullable=False),
        sa.Column("expires_s", sa.Double, nullable=False),
    )
