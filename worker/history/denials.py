"""What people said of past sightings afterwards: whom they do not show. Part of the history's database.

The template of such a sighting is a counter-example of the person whom it named. It is not copied: it lies with its
sighting, expires with it, and goes if an unknown person is forgotten. What a sighting named is forgotten when that
person is removed.
"""

import sqlite3
import time
from datetime import UTC, datetime
from typing import Final

import numpy as np

from worker.errors import HistoryError
from worker.history.records import CounterExample, Denial, EmbedderId, PastSighting

SCHEMA: Final = """
CREATE TABLE denials (
    sighting_id TEXT NOT NULL, ordinal INTEGER NOT NULL, identity_id TEXT NOT NULL, identity_name TEXT NOT NULL,
    given_id TEXT NOT NULL, unknown_id TEXT NOT NULL, denied_s REAL NOT NULL, PRIMARY KEY (sighting_id, ordinal)
) WITHOUT ROWID;
ALTER TABLE newest ADD COLUMN denials INTEGER NOT NULL DEFAULT 0
"""

Verdict = tuple[str, str, str]
"""identity_id, identity_name and unknown_id."""


def revise(connection: sqlite3.Connection, sighting: PastSighting, verdict: Verdict) -> None:
    """Gives ``sighting`` another verdict.

    Raises:
        HistoryError: it was changed after it was read.
    """
    changed = connection.execute(
        "UPDATE sightings SET identity_id = ?, identity_name = ?, unknown_id = ?, corrections = corrections + 1 "
        "WHERE sighting_id = ? AND corrections = ?",
        (*verdict, sighting.sighting_id, sighting.corrections),
    )
    if not changed.rowcount:
        raise HistoryError(f"sighting {sighting.sighting_id} was changed meanwhile; look at it, and try again")


def add(connection: sqlite3.Connection, sighting: PastSighting, verdict: Verdict, now_s: float, *, link: bool) -> None:
    """Notes that ``sighting`` does not show whom it named but the person of ``verdict``. Without ``link`` the name is
    not kept."""
    denied = (sighting.identity_id, sighting.identity_name) if link else ("", "")
    connection.execute(
        "INSERT INTO denials VALUES (?,?,?,?,?,?,?)",
        (sighting.sighting_id, sighting.corrections, *denied, verdict[0], verdict[2], now_s),
    )
    changed(connection)


def remove_last(connection: sqlite3.Connection, sighting_id: str) -> None:
    """Forgets what was said of a sighting last."""
    connection.execute(
        "DELETE FROM denials WHERE sighting_id = ?1 AND ordinal = "
        "(SELECT max(ordinal) FROM denials WHERE sighting_id = ?1)",
        (sighting_id,),
    )
    changed(connection)


def forget_person(connection: sqlite3.Connection, identity_id: str) -> None:
    """Forgets which sightings do not show this person."""
    connection.execute("UPDATE denials SET identity_id = '', identity_name = '' WHERE identity_id = ?", (identity_id,))
    changed(connection)


def remove_orphans(connection: sqlite3.Connection) -> None:
    """Forgets what was said of sightings that are gone."""
    connection.execute("DELETE FROM denials WHERE sighting_id NOT IN (SELECT sighting_id FROM sightings)")


def changed(connection: sqlite3.Connection) -> None:
    """Lets those who follow read the counter-examples again."""
    connection.execute("UPDATE newest SET denials = denials + 1")


def revision(connection: sqlite3.Connection) -> int:
    """How often :func:`changed` was called."""
    (number,) = connection.execute("SELECT denials FROM newest").fetchone()
    return int(number)


def by_sighting(connection: sqlite3.Connection) -> dict[str, tuple[Denial, ...]]:
    """All that was said, by sighting_id, oldest first."""
    found: dict[str, tuple[Denial, ...]] = {}
    for sighting_id, identity_id, name, given_id, unknown_id, denied_s in connection.execute(
        "SELECT sighting_id, identity_id, identity_name, given_id, unknown_id, denied_s FROM denials "
        "ORDER BY sighting_id, ordinal"
    ):
        denial = Denial(datetime.fromtimestamp(denied_s, UTC), identity_id, name, given_id, unknown_id)
        found[sighting_id] = (*found.get(sighting_id, ()), denial)
    return found


def counter_examples(connection: sqlite3.Connection, embedder: EmbedderId) -> list[CounterExample]:
    """Those that ``embedder`` made and that have not expired."""
    rows = connection.execute(
        "SELECT denials.identity_id, template, expires_s FROM denials JOIN sightings USING (sighting_id) "
        "WHERE denials.identity_id != '' AND template IS NOT NULL AND model_id = ? AND preprocessing = ? "
        "AND expires_s > ? ORDER BY sighting_id, ordinal",
        (embedder.model_id, embedder.preprocessing_digest, time.time()),
    )
    return [CounterExample(identity, np.frombuffer(blob, "<f4"), expires_s) for identity, blob, expires_s in rows]
