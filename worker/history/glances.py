"""What a list shows of many people at once, without reading all that is kept of each. Part of the history."""

import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from worker.database import schema
from worker.history.in_sight import Sight
from worker.history.records import UnknownPerson
from worker.history.rows import batched, readable, time_of, unknown_of

_sightings, _unknowns = schema.sightings, schema.unknowns


@dataclass(frozen=True, slots=True)
class Glance:
    """When and where somebody was seen last."""

    sighting_id: str
    camera_id: str
    at: datetime


def last_seen(connection: sa.Connection, identity_ids: Collection[str], sight: Sight) -> dict[str, Glance]:
    """The latest sighting in sight of each of these people, by identity_id; of those alone who were seen."""
    found: dict[str, Glance] = {}
    for ids in batched(sorted(identity_ids)):
        living = (
            _sightings.c.identity_id.in_(ids),
            _sightings.c.expires_s > time.time(),
            *sight.of(_sightings.c.camera_id),
        )
        latest = (
            sa.select(_sightings.c.identity_id, sa.func.max(_sightings.c.started_s).label("at_s"))
            .where(*living)
            .group_by(_sightings.c.identity_id)
            .subquery()
        )
        same = (_sightings.c.identity_id == latest.c.identity_id) & (_sightings.c.started_s == latest.c.at_s)
        query = sa.select(
            _sightings.c.sighting_id, _sightings.c.camera_id, _sightings.c.started_s, _sightings.c.identity_id
        ).join(latest, same)
        query = query.where(*sight.of(_sightings.c.camera_id))
        for row in connection.execute(query.order_by(_sightings.c.sighting_id)):
            found[row.identity_id] = Glance(row.sighting_id, row.camera_id, time_of(row.started_s))
    return found


def revisions(connection: sa.Connection) -> dict[str, tuple[int, bool]]:
    """Of each unknown person who is remembered: the revision, another one after each change, and whether nobody wants
    to be asked about them; by unknown_id."""
    query = sa.select(_unknowns.c.unknown_id, _unknowns.c.revision, _unknowns.c.ignored).where(
        _unknowns.c.template.is_not(None), _unknowns.c.expires_s > time.time()
    )
    return {row.unknown_id: (row.revision, row.ignored != 0) for row in connection.execute(query)}


def people(connection: sa.Connection, unknown_ids: Collection[str]) -> list[UnknownPerson]:
    """These unknown people, as far as they are remembered. A row that cannot be read is left out."""
    found: list[UnknownPerson] = []
    for ids in batched(sorted(unknown_ids)):
        there = _unknowns.c.template.is_not(None), _unknowns.c.expires_s > time.time()
        query = sa.select(_unknowns).where(_unknowns.c.unknown_id.in_(ids), *there)
        found += readable(connection.execute(query), unknown_of)
    return found


def cameras(connection: sa.Connection, unknown_ids: Collection[str] | None, sight: Sight) -> dict[str, dict[str, int]]:
    """How often each camera in sight saw each of these unknown people (None: of all), by ``unknown_id`` and
    ``camera_id``."""
    columns = _sightings.c
    seen: dict[str, dict[str, int]] = {}
    groups: Iterable[list[str] | None] = [None] if unknown_ids is None else batched(sorted(unknown_ids))
    for ids in groups:
        query = (
            sa.select(columns.unknown_id, columns.camera_id, sa.func.count())
            .where(columns.unknown_id != "", columns.expires_s > time.time(), *sight.of(columns.camera_id))
            .group_by(columns.unknown_id, columns.camera_id)
        )
        for unknown_id, camera_id, count in connection.execute(
            query if ids is None else query.where(columns.unknown_id.in_(ids))
        ):
            seen.setdefault(unknown_id, {})[camera_id] = count
    return seen
