"""Layout 3: galleries, in PostgreSQL. SQLite keeps none: nothing changes there."""

import sqlalchemy as sa
from alembic import op

revision = "3"
down_revision = "2"


def _texts(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text, nullable=False) for name in names]


def _gallery() -> sa.Column[str]:
    return sa.Column("gallery", sa.Text, sa.ForeignKey("galleries.gallery", ondelete="CASCADE"), primary_key=True)


def _changed() -> sa.Column[int]:
    return sa.Column("changed", sa.BigInteger, nullable=False)


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        return
    op.create_table(
        "galleries",
        sa.Column("gallery", sa.Text, primary_key=True),
        sa.Column("version", sa.BigInteger, nullable=False),
        *_texts("change_id", "model_id", "preprocessing"),
        sa.Column("dimension", sa.Integer, nullable=False),
        sa.Column("threshold", sa.Double),
        *_texts("camera_thresholds", "calibration", "created_at"),
    )
    op.create_table(
        "people", _gallery(), sa.Column("identity_id", sa.Text, primary_key=True), *_texts("name"), _changed()
    )
    op.create_table(
        "samples",
        _gallery(),
        sa.Column("sample_id", sa.Text, primary_key=True),
        sa.Column("number", sa.BigInteger, sa.Identity(), nullable=False),
        *_texts("identity_id", "photo", "photo_sha256", "photo_hash"),
        sa.Column("quality", sa.Double, nullable=False),
        *_texts("added_at"),
        sa.Column("vector", sa.LargeBinary, nullable=False),
        *_texts("digest"),
        _changed(),
        sa.ForeignKeyConstraint(["gallery", "identity_id"], ["people.gallery", "people.identity_id"]),
    )
    op.create_index("samples_by_change", "samples", ["gallery", "changed"])
    op.create_index("samples_by_person", "samples", ["gallery", "identity_id"])
    op.create_table("removed", _gallery(), sa.Column("sample_id", sa.Text, primary_key=True), _changed())
    op.create_index("removed_by_change", "removed", ["gallery", "changed"])
    op.create_table(
        "changes",
        _gallery(),
        sa.Column("version", sa.BigInteger, primary_key=True),
        *_texts("change_id"),
        sa.Column("made_s", sa.Double, nullable=False),
    )
    op.create_table(
        "followers",
        _gallery(),
        sa.Column("worker_id", sa.Text, primary_key=True),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
    )
