"""Unknown people to whom workers gave ids while the database was away.

With their first sighting that is stored they are compared with everybody else. Whoever has two ids keeps the one that
was stored first.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

import sqlalchemy as sa

from worker.database import schema
from worker.database.database import Database
from worker.history import regrouping
from worker.history.records import PastSighting, UnknownPerson
from worker.history.rows import readable, unknown_of
from worker.history.storing import meet
from worker.logs import get_logger

_sightings, _unknowns = schema.sightings, schema.unknowns
_LOCK: Final = 0x756E6B6E

Moved = list[tuple[PastSighting, str]]
"""Sightings as they were told, each with the id that their person has now."""
Tell = Callable[[Moved], None]
"""Is called before anything is written for good. What it raises undoes that."""

_log = get_logger(__name__)


def one_at_a_time(connection: sa.Connection) -> None:
    """Until the end of the transaction, no other worker looks for somebody new among the unknown people of all."""
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))


def without_strangers(connection: sa.Connection, unknowns: Sequence[UnknownPerson]) -> list[UnknownPerson]:
    """Those of ``unknowns`` who are stored, also as forgotten, or are to be forgotten."""
    known = _known(connection, [person.unknown_id for person in unknowns])
    return [person for person in unknowns if person.template is None or person.unknown_id in known]


def strangers(connection: sa.Connection, sightings: Iterable[PastSighting]) -> dict[str, PastSighting]:
    """The first of ``sightings`` of each unknown person who is not stored, by unknown_id."""
    seen = [one for one in sightings if one.unknown_id and not one.identity_id and one.template is not None]
    seen.sort(key=lambda one: (one.started_at, one.sighting_id), reverse=True)
    first = {one.unknown_id: one for one in seen}
    known = _known(connection, first) if first else ()
    return {unknown_id: first[unknown_id] for unknown_id in reversed(first) if unknown_id not in known}


def reunite(
    database: Database,
    connection: sa.Connection,
    first: Mapping[str, PastSighting],
    *,
    threshold: float | None,
    now_s: float,
    remember_s: float,
) -> Moved:
    """Stores the people of ``first``, see :func:`strangers`, whose sightings are stored already: each as somebody new,
    or with the sightings of the person whom they are. Returns the sightings of the latter.

    The cosine from which they are one is ``threshold``, or that of the sighting. Whoever was before the same camera at
    the same time is somebody else.
    """
    one_at_a_time(connection)
    stored = _known(connection, first)
    others = _everybody(connection, now_s)
    may_move = connection.execute(
        sa.text("SELECT has_table_privilege('facestream.regroupings', 'INSERT')")
    ).scalar_one()
    moved: Moved = []

    def note(whose: Sequence[PastSighting], unknown_id: str) -> None:
        moved.extend((sighting, unknown_id) for sighting in whose)

    for sighting in [one for one in first.values() if one.unknown_id not in stored]:
        person = UnknownPerson(
            sighting.unknown_id, sighting.embedder, sighting.template, sighting.embedded_faces,
            sighting.started_at, sighting.ended_at,
        )  # fmt: skip
        meet(database, connection, person, now_s=now_s, remember_s=remember_s)
        least = sighting.account.threshold if threshold is None else threshold
        same = None
        if may_move and least is not None:
            beside = _beside(connection, sighting)
            same = nearest(person, [o for o in others if o.embedder == person.embedder], least, beside, remember_s)
        if same is None:
            others.append(person)
            continue
        step = regrouping.merge(connection, same, person, note)
        _log.warning(
            "an unknown person had two ids, given while the database was away: they are one now",
            kept=same.unknown_id, other=person.unknown_id, step=step,
        )  # fmt: skip
    return moved


def nearest(
    person: UnknownPerson, others: Iterable[UnknownPerson], threshold: float, taken: Iterable[str], remember_s: float
) -> UnknownPerson | None:
    """Who of ``others`` is ``person``: the nearest by their templates, from the cosine ``threshold`` on, who was seen
    within ``remember_s`` of them and is none of ``taken``; None if nobody is."""
    best, least = None, threshold
    remember = timedelta(seconds=remember_s)
    for other in others:
        if other.template is None or person.template is None or other.unknown_id in taken:
            continue
        similarity = float(other.template @ person.template)
        if similarity >= least and abs(other.last_seen - person.last_seen) <= remember:
            best, least = other, similarity
    return best


def _known(connection: sa.Connection, unknown_ids: Iterable[str]) -> set[str]:
    query = sa.select(_unknowns.c.unknown_id).where(_unknowns.c.unknown_id.in_(sorted(set(unknown_ids))))
    return set(connection.execute(query).scalars())


def _everybody(connection: sa.Connection, now_s: float) -> list[UnknownPerson]:
    query = sa.select(_unknowns).where(_unknowns.c.template.is_not(None), _unknowns.c.expires_s > now_s)
    return list(readable(connection.execute(query), unknown_of))


def _beside(connection: sa.Connection, sighting: PastSighting) -> set[str]:
    """The unknown people before the same camera at the same time."""
    columns: Any = _sightings.c
    query = sa.select(columns.unknown_id).where(
        columns.camera_id == sighting.camera_id,
        columns.started_s < sighting.ended_at.timestamp(),
        columns.ended_s > sighting.started_at.timestamp(),
        columns.unknown_id != "",
    )
    return set(connection.execute(query).scalars()) - {sighting.unknown_id}
