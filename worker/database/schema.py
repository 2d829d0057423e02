"""The tables. Times are Unix times in seconds; vectors are little-endian float32, one after the other.

A row that expires carries the time at which it does. So a process that opens the database with another configuration
keeps what was promised when the row was written.
"""

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    text,
)  # fmt: skip

from worker.database.owned import OwnAccount, OwnBytes, OwnText

LAYOUT: Final = 18
"""The newest layout. Each has a step in ``migrations`` that leads to it."""
VERSION_TABLE: Final = "facestream_layout"
SCHEMA: Final = "facestream"
"""The schema of all tables in PostgreSQL, so that they can lie beside those of another program."""

past: Final = MetaData()
"""What is remembered of past sightings: in SQLite and in PostgreSQL."""

layout: Final = Table(VERSION_TABLE, MetaData(), Column("version_num", String(32), primary_key=True))
"""The number of the layout, kept by Alembic: in PostgreSQL alone. A SQLite file has it in ``PRAGMA user_version``."""


def _own(name: str, **more: Any) -> Column[str]:
    return Column(name, OwnText, nullable=False, **more)


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
    _own("identity_name"),
    _text("unknown_id"),
    _text("model_id"),
    _text("preprocessing"),
    Column("template", OwnBytes),
    Column("evidence", Integer, nullable=False),
    Column("quality", Double),
    _own("event"),
    Column("account", OwnAccount, nullable=False),
    Column("corrections", Integer, nullable=False, server_default=text("0")),
    _seconds("recorded_s"),
    _seconds("expires_s"),
)
Index("sightings_by_time", sightings.c.started_s)
# Not of some rows alone: SQLite would take such an index for no query whose values it is given apart from the text.
Index("sightings_by_unknown", sightings.c.unknown_id, sightings.c.started_s)
Index("sightings_by_person", sightings.c.identity_id, sightings.c.started_s)

unknowns: Final = Table(
    "unknowns",
    past,
    Column("unknown_id", Text, primary_key=True),
    _text("model_id"),
    _text("preprocessing"),
    Column("template", OwnBytes),
    Column("evidence", Double, nullable=False),
    _seconds("first_seen_s"),
    _seconds("last_seen_s"),
    Column("revision", BigInteger, nullable=False),
    _seconds("recorded_s"),
    _seconds("expires_s"),
    Column("ignored", Integer, nullable=False, server_default=text("0")),
)
"""``ignored``: whether people said that they do not want to be asked about this person."""
Index("unknowns_by_revision", unknowns.c.revision)

newest: Final = Table(
    "newest",
    past,
    Column("revision", BigInteger, nullable=False),
    Column("denials", Integer, nullable=False, server_default=text("0")),
)
"""One row: the newest revision of an unknown person, and how often denials have changed. Who raises one of these keeps
all others waiting until the end of the transaction, so revisions become visible in their order."""

denials: Final = Table(
    "denials",
    past,
    Column("sighting_id", Text, primary_key=True),
    Column("ordinal", Integer, primary_key=True),
    _text("identity_id"),
    _own("identity_name"),
    _text("given_id"),
    _text("unknown_id"),
    _seconds("denied_s"),
    sqlite_with_rowid=False,
)
"""What people said of past sightings afterwards: whom they do not show."""

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

batches: Final = Table("batches", past, Column("batch_id", Text, primary_key=True), _seconds("expires_s"))
"""What was written by workers that had to wait for the database: nothing of it counts twice."""

regroupings: Final = Table(
    "regroupings",
    past,
    Column("step", Text, primary_key=True),
    Column("number", Integer, nullable=False),
    _text("from_id"),
    _text("to_id"),
    _text("sighting_ids"),
    Column("whole", Integer, nullable=False),
    Column("undone", Integer, nullable=False),
    _seconds("expires_s"),
    _text("samples", server_default=""),
    Column("changed_s", Double, nullable=False, server_default=text("0")),
    _own("undo", server_default=""),
)
"""Merges and splits of unknown people, in the order of ``number``: which sightings (JSON) went from whom to whom.
``whole``: whether ``from_id`` kept none. Ids alone, nothing that anybody is recognised by. ``samples``: of a person who
was named, and is ``to_id`` since, the ids (JSON) of the samples that were added; "" for a merge or a split.
``changed_s``: when the step was made, or undone; 0 where that was not noted. ``undo``: of an enrolled person who was
merged into another one, what takes that back (JSON); "" for all others."""

erasures: Final = Table(
    "erasures", past, Column("erasure_id", Text, primary_key=True), _text("made_at"), _text("digests")
)
"""Who was erased from this database: digests (JSON) of their ids. A database that was restored lacks the latest."""

spent_keys: Final = Table("spent_keys", past, Column("tag", Text, primary_key=True), _text("owner"))
"""Keys of people that seal nothing here any more, but what was changed or deleted and the server may still have in its
files. They are destroyed with those of the person with the id ``owner``; where that is "", with those of anybody."""

accounts: Final = Table(
    "console_accounts",
    past,
    Column("account", Text, primary_key=True),
    _text("role"),
    _text("password_hash"),
    _seconds("created_s"),
    _text("cameras", server_default=""),
    Column("disabled", Integer, nullable=False, server_default=text("0")),
    _text("provider", server_default=""),
    _text("subject", server_default=""),
)
"""Who may use the console and its API. ``cameras``: those that the account may see (JSON); "" for all. ``provider`` and
``subject``: who it is at the OpenID provider that let them in."""
Index(
    "console_accounts_by_subject", accounts.c.provider, accounts.c.subject, unique=True,
    sqlite_where=accounts.c.provider != "", postgresql_where=accounts.c.provider != "",
)  # fmt: skip

links: Final = Table(
    "console_links",
    past,
    Column("digest", Text, primary_key=True),
    Column("account", Text, ForeignKey("console_accounts.account", ondelete="CASCADE"), nullable=False),
    _seconds("expires_s"),
)
"""Links with which somebody chooses the password of an account, once."""

sessions: Final = Table(
    "console_sessions",
    past,
    Column("digest", Text, primary_key=True),
    Column("account", Text, ForeignKey("console_accounts.account", ondelete="CASCADE"), nullable=False),
    _seconds("expires_s"),
    Column("begun_s", Double, nullable=False, server_default=text("0")),
    _text("address", server_default=""),
    _text("agent", server_default=""),
)
"""``digest``: SHA-256, in hexadecimal, of what the browser sends; so it is with a token."""

tokens: Final = Table(
    "console_tokens",
    past,
    Column("token_id", Text, primary_key=True),
    _text("digest"),
    _text("name"),
    Column("account", Text, ForeignKey("console_accounts.account", ondelete="CASCADE"), nullable=False),
    _text("scopes"),
    _seconds("created_s"),
    _seconds("expires_s"),
    _text("cameras", server_default=""),
)
Index("console_tokens_by_digest", tokens.c.digest, unique=True)

attempts: Final = Table(
    "console_attempts",
    past,
    Column("subject", Text, primary_key=True),
    Column("failures", Integer, nullable=False),
    _seconds("expires_s"),
)
"""Log-ins that failed: of an account, or of an account from one address."""

replies: Final = Table(
    "console_replies",
    past,
    Column("request", Text, primary_key=True),
    _text("digest"),
    Column("status", Integer, nullable=False),
    _own("body"),
    _seconds("expires_s"),
)
"""What was answered to a request with an idempotency key. The status is 0 while the request is at work."""

rules: Final = Table(
    "console_rules",
    past,
    Column("rule_id", Text, primary_key=True),
    _own("document"),
    _seconds("made_s"),
)
"""``document``: whom somebody wants to be told of, where, when and how, as JSON; with addresses that hold passwords."""

alerts: Final = Table(
    "console_alerts",
    past,
    Column("rule_id", Text, ForeignKey("console_rules.rule_id", ondelete="CASCADE"), primary_key=True),
    Column("sighting_id", Text, primary_key=True),
    Column("receiver", Text, primary_key=True),
    _own("event"),
    _text("state"),
    _text("problem"),
    Column("tries", Integer, nullable=False),
    _seconds("made_s"),
    _seconds("due_s"),
)
"""What is to be told, or was. ``state``: due, sent or failed; ``event`` (JSON) is empty once it is not due any more.
The key sees to it that nobody is told twice of one visit by one rule."""
Index("console_alerts_by_due", alerts.c.state, alerts.c.due_s)

retention: Final = Table(
    "retention", past, Column("kind", Text, primary_key=True), Column("days", Double, nullable=False)
)
"""For how long each kind is kept, whatever configurations say; what is not set here is as they say."""

known: Final = MetaData()
"""Who is known: galleries, in PostgreSQL alone."""

galleries: Final = Table(
    "galleries",
    known,
    Column("gallery", Text, primary_key=True),
    Column("version", BigInteger, nullable=False),
    _text("change_id"),
    _text("model_id"),
    _text("preprocessing"),
    Column("dimension", Integer, nullable=False),
    Column("threshold", Double),
    _text("camera_thresholds"),
    _text("calibration"),
    _text("created_at"),
    _text("groups", server_default="{}"),
)
"""A change of a gallery holds the lock of this row until its end, so changes come one after the other. ``groups``: the
settings of the groups by name, JSON."""


def _gallery() -> Column[str]:
    return Column("gallery", Text, ForeignKey("galleries.gallery", ondelete="CASCADE"), primary_key=True)


def _changed() -> Column[int]:
    """The version that made the row as it is."""
    return Column("changed", BigInteger, nullable=False)


people: Final = Table(
    "people",
    known,
    _gallery(),
    Column("identity_id", Text, primary_key=True),
    _own("name"),
    _changed(),
    _own("consent", server_default=""),
    _own("groups", server_default=""),
)
"""``consent``: JSON, "" where none was noted. ``groups``: a list of names as JSON, "" for somebody who is in none."""
Index("people_by_change", people.c.gallery, people.c.changed)

samples: Final = Table(
    "samples",
    known,
    _gallery(),
    Column("sample_id", Text, primary_key=True),
    Column("number", BigInteger, Identity(), nullable=False),
    _text("identity_id"),
    _text("photo"),
    _text("photo_sha256"),
    _text("photo_hash"),
    Column("quality", Double, nullable=False),
    _text("added_at"),
    Column("vector", OwnBytes, nullable=False),
    _text("digest"),
    _changed(),
    ForeignKeyConstraint(["gallery", "identity_id"], ["people.gallery", "people.identity_id"]),
)
"""``number``: the order of the samples. ``digest``: SHA-256 of ``vector``, in hexadecimal."""
Index("samples_by_change", samples.c.gallery, samples.c.changed)
Index("samples_by_person", samples.c.gallery, samples.c.identity_id)

removed: Final = Table("removed", known, _gallery(), Column("sample_id", Text, primary_key=True), _changed())
"""The ids of removed samples, so that who is a few versions behind need not read everything."""
Index("removed_by_change", removed.c.gallery, removed.c.changed)

changes: Final = Table(
    "changes",
    known,
    _gallery(),
    Column("version", BigInteger, primary_key=True),
    _text("change_id"),
    _seconds("made_s"),
)
"""Which change made which version: who has another change in mind for a version has a past that is not this one's."""

followers: Final = Table(
    "followers",
    known,
    _gallery(),
    Column("worker_id", Text, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("seen_at", DateTime(timezone=True), nullable=False),
    _text("erased", server_default=""),
)
"""The workers that follow a gallery, and the version that each searches. ``erased``: the stamp of the list of erased
people that each has carried out."""
