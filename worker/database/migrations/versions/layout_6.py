"""Layout 6: accounts, sessions and tokens of the console; log-ins that failed; answers that may be asked for again."""

import sqlalchemy as sa
from alembic import op

revision = "6"
down_revision = "5"


def _texts(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text, nullable=False) for name in names]


def _seconds(*names: str) -> list[sa.Column[float]]:
    return [sa.Column(name, sa.Double, nullable=False) for name in names]


def _account() -> sa.Column[str]:
    owner = sa.ForeignKey("console_accounts.account", ondelete="CASCADE")
    return sa.Column("account", sa.Text, owner, nullable=False)


def upgrade() -> None:
    op.create_table(
        "console_accounts",
        sa.Column("account", sa.Text, primary_key=True),
        *_texts("role", "password_hash"),
        *_seconds("created_s"),
    )
    op.create_table(
        "console_sessions", sa.Column("digest", sa.Text, primary_key=True), _account(), *_seconds("expires_s")
    )
    op.create_table(
        "console_tokens",
        sa.Column("token_id", sa.Text, primary_key=True),
        *_texts("digest", "name"),
        _account(),
        *_texts("scopes"),
        *_seconds("created_s", "expires_s"),
    )
    op.create_index("console_tokens_by_digest", "console_tokens", ["digest"], unique=True)
    op.create_table(
        "console_attempts",
        sa.Column("subject", sa.Text, primary_key=True),
        sa.Column("failures", sa.Integer, nullable=False),
        *_seconds("expires_s"),
    )
    op.create_table(
        "console_replies",
        sa.Column("request", sa.Text, primary_key=True),
        *_texts("digest"),
        sa.Column("status", sa.Integer, nullable=False),
        *_texts("body"),
        *_seconds("expires_s"),
    )
