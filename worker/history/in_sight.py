"""What of the past somebody may look at who sees some cameras alone."""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final

import sqlalchemy as sa

from worker.database import schema
from worker.history.records import UnknownPerson
from worker.history.rows import batched, time_of

_IDS: Final = 10_000
"""So many ids are looked up at once."""


@dataclass(frozen=True, slots=True)
class Sight:
    """``cameras``: their ids; None for all, for which nothing here costs anything."""

    cameras: tuple[str, ...] | None = None

    def of(self, camera_id: sa.ColumnElement[str]) -> list[sa.ColumnElement[bool]]:
        """The conditions of rows that are in sight."""
        return [] if self.cameras is None else [camera_id.in_(self.cameras)]

    def sees(self, camera_id: str) -> bool:
        """Whether this camera is in sight."""
        return self.cameras is None or camera_id in self.cameras

    def people(self, connection: sa.Connection, people: Sequence[UnknownPerson]) -> list[UnknownPerson]:
        """Those of these unknown people whom a camera in sight has seen, with the times at which it did."""
        if self.cameras is None or not people:
            return list(people)
        columns = schema.sightings.c
        query = sa.select(columns.unknown_id, sa.func.min(columns.started_s), sa.func.max(columns.ended_s))
        query = query.where(columns.unknown_id != "", columns.expires_s > time.time(), *self.of(columns.camera_id))
        if len(people) == 1:
            query = query.where(columns.unknown_id == people[0].unknown_id)
        rows = connection.execute(query.group_by(columns.unknown_id))
        seen = {unknown_id: (time_of(first_s), time_of(last_s)) for unknown_id, first_s, last_s in rows}
        return [
            replace(person, first_seen=seen[person.unknown_id][0], last_seen=seen[person.unknown_id][1])
            for person in people
            if person.unknown_id in seen
        ]

    def any_of(self, connection: sa.Connection, sighting_ids: Collection[str]) -> bool:
        """Whether one of these sightings is in sight."""
        return self.cameras is None or bool(self.sightings(connection, sighting_ids))

    def sightings(self, connection: sa.Connection, sighting_ids: Collection[str]) -> set[str]:
        """Those of these sightings that are in sight."""
        if self.cameras is None:
            return set(sighting_ids)
        columns, found = schema.sightings.c, set[str]()
        for some in batched(sighting_ids, _IDS):
            query = sa.select(columns.sighting_id).where(columns.sighting_id.in_(some), *self.of(columns.camera_id))
            found |= set(connection.execute(query).scalars())
        return found
