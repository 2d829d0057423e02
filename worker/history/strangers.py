"""Unknown people as they are remembered: who is there, who has changed, who is somebody new. Part of the history's
database."""

import time
from collections.abc import Callable
from typing import Final

import sqlalchemy as sa

from worker.database import schema
from worker.database.database import Database
from worker.errors import HistoryError
from worker.history import reuniting, storing
from worker.history.in_sight import Sight
from worker.history.records import UnknownPerson
from worker.history.retention import kept_s, read_retention
from worker.history.rows import readable, unknown_of
from worker.names import clean_text

EVERYBODY: Final = -1
"""The revision before all unknown people, also those who are gone."""

_unknowns = schema.unknowns


def changed(connection: sa.Connection, after_revision: int, sight: Sight) -> tuple[list[UnknownPerson], int]:
    """Those in sight who changed after ``after_revision``, and the newest revision; see :meth:`History.unknowns`."""
    revision = storing.newest_revision(connection)
    if revision < after_revision:
        after_revision = EVERYBODY
    query = (
        sa.select(_unknowns)
        .where(_unknowns.c.revision > after_revision, _unknowns.c.expires_s > time.time())
        .order_by(_unknowns.c.first_seen_s, _unknowns.c.unknown_id)
    )
    rows = connection.execute(query).all()
    people = sight.people(connection, list(readable(rows, unknown_of)))
    return [person for person in people if person.template is not None or after_revision], revision


def claim(
    database: Database,
    connection: sa.Connection,
    person: UnknownPerson,
    after_revision: int,
    choose: Callable[[list[UnknownPerson]], UnknownPerson | None],
    *,
    remember_s: float,
) -> UnknownPerson:
    """Stores ``person`` as somebody new, or says who they are; see :meth:`History.claim`."""
    now_s = time.time()
    if not database.is_sqlite:
        reuniting.one_at_a_time(connection)
    if storing.newest_revision(connection) < after_revision:
        after_revision = EVERYBODY
    query = sa.select(_unknowns).where(
        _unknowns.c.revision > after_revision,
        _unknowns.c.expires_s > now_s,
        _unknowns.c.template.is_not(None),
        _unknowns.c.model_id == person.embedder.model_id,
        _unknowns.c.preprocessing == person.embedder.preprocessing_digest,
    )
    same = choose(list(readable(connection.execute(query), unknown_of)))
    if same is not None:
        return same
    remember_s = kept_s(read_retention(connection).unknowns_days, remember_s)
    storing.meet(database, connection, person, now_s=now_s, remember_s=remember_s)
    return person


def find(connection: sa.Connection, unknown_id: str, sight: Sight, label: str) -> UnknownPerson:
    """The one of this id in the database called ``label``.

    Raises:
        HistoryError: there is no such person in sight, or not any more; or the row is damaged.
    """
    query = sa.select(_unknowns).where(
        _unknowns.c.unknown_id == clean_text(unknown_id),
        _unknowns.c.template.is_not(None),
        _unknowns.c.expires_s > time.time(),
    )
    if (row := connection.execute(query).one_or_none()) is not None:
        people = list(readable([row], unknown_of))
        if not people:
            raise HistoryError(f"what {label} holds of {unknown_id} is damaged; 'facestream unknown forget' removes it")
        for person in sight.people(connection, people):
            return person
    raise HistoryError(
        f"no unknown person {unknown_id} in {label}: enrolled, forgotten or expired; "
        "'facestream unknown list' shows who is there"
    )
