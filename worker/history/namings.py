"""Unknown people who were named, and the names that were taken back."""

import json
import time
from collections.abc import Sequence

import sqlalchemy as sa

from worker.database import schema
from worker.errors import HistoryError
from worker.history.records import Naming
from worker.history.regrouping import make_anew, note_step
from worker.history.storing import hold, next_revision
from worker.names import clean_text
from worker.people_keys import Owned

_sightings, _unknowns, _regroupings = schema.sightings, schema.unknowns, schema.regroupings


def name(connection: sa.Connection, sighting_ids: Sequence[str], identity_id: str, identity_name: str) -> None:
    """Notes who the person of these sightings was; the caller holds them, see :func:`worker.history.storing.hold`."""
    named = {
        "identity_id": identity_id, "identity_name": Owned(identity_id, clean_text(identity_name)), "unknown_id": "",
        "corrections": _sightings.c.corrections + 1,
    }  # fmt: skip
    for sighting_id in sighting_ids:
        connection.execute(_sightings.update().where(_sightings.c.sighting_id == sighting_id).values(named))


def note(
    connection: sa.Connection, unknown_id: str, identity_id: str, sighting_ids: list[str], sample_ids: list[str]
) -> str:
    """Notes that an unknown person is ``identity_id`` now; returns the id of this step."""
    of_person = sa.select(_unknowns.c.expires_s).where(_unknowns.c.unknown_id == unknown_id)
    expires_s = connection.execute(of_person).scalar_one()
    return note_step(connection, unknown_id, identity_id, sighting_ids, 1, expires_s, json.dumps(sample_ids))


def still_open(connection: sa.Connection, *conditions: sa.ColumnElement[bool]) -> list[Naming]:
    """The names that can still be taken back, the latest first."""
    open_ones = (_regroupings.c.samples != "", _regroupings.c.undone == 0, _regroupings.c.expires_s > time.time())
    query = sa.select(_regroupings).where(*open_ones, *conditions).order_by(_regroupings.c.number.desc())
    return [
        Naming(
            row.step, row.from_id, row.to_id, tuple(json.loads(row.sighting_ids)), tuple(json.loads(row.samples))
        )
        for row in connection.execute(query)
    ]  # fmt: skip


def take_back(connection: sa.Connection, naming: Naming, sighting_ids: Sequence[str]) -> None:
    """Makes the person of ``naming`` unknown again, with these sightings.

    Raises:
        HistoryError: it was undone meanwhile.
    """
    hold(connection, _sightings.c.sighting_id.in_(sighting_ids))
    revision = next_revision(connection)
    of_step = (_regroupings.c.step == naming.step) & (_regroupings.c.undone == 0)
    if not connection.execute(_regroupings.update().where(of_step).values(undone=1)).rowcount:
        raise HistoryError(f"step {naming.step} was undone before")
    theirs = {"identity_id": "", "identity_name": "", "unknown_id": naming.unknown_id}
    for sighting_id in sighting_ids:
        one = (_sightings.c.sighting_id == sighting_id) & (_sightings.c.identity_id == naming.identity_id)
        again = theirs | {"corrections": _sightings.c.corrections + 1}
        connection.execute(_sightings.update().where(one).values(again))
    make_anew(connection, naming.unknown_id, revision)
