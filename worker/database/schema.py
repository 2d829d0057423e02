"""The tables. Times are Unix times in seconds; vectors are little-endian float32, one after the other.

A row that expires carries the time at which it does. So a process that opens the database with another configuration
keeps what was promised when the row was written.
"""

from typing import Any, Final

from sqlalchemy import BigInteger, Column, Double, Index, Integer, LargeBinary, MetaData, String, Table, Text, text

LAYOUT: Final = 1
"""The newest layout. Each has a step in ``migrations`` that leads to it."""
VERSION_TABLE: Final = "facestream_layout"
SCHEMA: Final = "facestream"
"""The schema of all tables in PostgreSQL, so that they can lie beside those of another program."""

past: Final = MetaData()
"""What is remembered of past sightings: in SQLite and in PostgreSQL."""

layout: Final = Table(VERSION_TABLE, MetaData(), Column("version_num", String(32), primary_key=True))
"""The number of the layout, kept by Alembic: in PostgreSQL alone. A SQLite file has it in ``PRAGMA user_version``."""


def _text(name: str, **more: Any) -> Column[str]:
    return Column(name, Text, nullable=False, **more)


def _seconds(name: str) -> Column[float]:
    return Column(name, Double, nullable=False)


sightings: Final = Table(
    "sightings",
    past,
    Column("sighting_id", Text, primary_key=True),
    _text("camera_id"),
    _seconds("started_s"),
    _seconds("ended_s"),
    _text("identity_id"),
    _text("identity_name"),
    _text("unknown_id"),
    _text("model_id"),
    _text("preprocessing"),
    Column("template", LargeBinary),
    Column("evidence", Integer, nullable=False),
    Column("quality", Double),
    _text("event"),
    _text("account"),
    Column("corrections", Integer, nullable=False, server_default=text("0")),
    _seconds("recorded_s"),
    _seconds("expires_s"),
)
Index("sightings_by_time", sightings.c.started_s)
_unknown_alone: Final = sightings.c.unknown_id != ""
Index("sightings_by_unknown", sightings.c.unknown_id, sqlite_where=_unknown_alone, postgresql_where=_unknown_alone)

unknowns: Final = Table(
    "unknowns",
    past,
    Column("unknown_id", Text, primary_key=True),
    _text("model_id"),
    _text("preprocessing"),
    Column("template", LargeBinary),
    Column("evidence", Double, nullable=False),
    _seconds("first_seen_s"),
    _seconds("last_seen_s"),
    Column("revision", BigInteger, nullable=False),
    _seconds("recorded_s"),
    _seconds("expires_s"),
)
Index("unknowns_by_revision", unknowns.c.revision)

newest: Final = Table("newest", past, Column("revision", BigInteger, nullable=False))
"""One row: the newest revision of an unknown person. Who raises it keeps all others waiting until the end of the
transaction, so revisions become visible in their order."""

tallies: Final = Table(
    "tallies",
    past,
    Column("camera_id", Text, primary_key=True),
    Column("hour", Integer, primary_key=True),
    Column("reason", Text, primary_key=True),
    Column("tracks", Integer, nullable=False),
    Column("faces", Integer, nullable=False),
    _seconds("expires_s"),
    sqlite_with_rowid=False,
)
