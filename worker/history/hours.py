"""How fit the faces before a camera were, hour by hour."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from worker.database import schema
from worker.history.records import Account
from worker.history.rows import HOUR_S, hour_of, readable, tally_of, time_of
from worker.names import clean_text


@dataclass(slots=True)
class Hour:
    """Of the hour that begins at ``hour`` (UTC): faces that were ``embedded``, and those ``rejected``, by reason."""

    hour: datetime
    embedded: int = 0
    rejected: Counter[str] = field(default_factory=Counter)

    @property
    def faces(self) -> int:
        """Those whose quality was looked at."""
        return self.embedded + self.rejected.total()


def by_hour(connection: sa.Connection, camera_id: str, since: datetime, reasons: Iterable[str]) -> list[Hour]:
    """The hours in which there were faces, from that of ``since`` on, oldest first; refused ones for these ``reasons``.
    A sighting counts for the hour in which it began."""
    name, wanted, now_s = clean_text(camera_id), set(reasons), datetime.now(since.tzinfo).timestamp()
    made: dict[int, Hour] = {}

    def of(number: int) -> Hour:
        return made.setdefault(number, Hour(time_of(number * HOUR_S)))

    seen = schema.sightings.c
    query = sa.select(seen.sighting_id, seen.started_s, seen.account).where(
        seen.camera_id == name, seen.started_s >= hour_of(since) * HOUR_S, seen.expires_s > now_s
    )
    for started_s, account in readable(connection.execute(query), _account_of):
        hour = of(int(started_s // HOUR_S))
        hour.embedded += account.embedded
        hour.rejected += Counter({each: count for each, count in account.rejected.items() if each in wanted})
    tallied = schema.tallies.c
    rows = sa.select(schema.tallies).where(
        tallied.camera_id == name, tallied.hour >= hour_of(since), tallied.expires_s > now_s
    )
    for tally in readable(connection.execute(rows), tally_of):
        if tally.reason in wanted:
            of(hour_of(tally.hour)).rejected[tally.reason] += tally.faces
    return [made[number] for number in sorted(made)]


def _account_of(row: Any) -> tuple[float, Account]:
    return float(row.started_s), Account.from_json(json.loads(row.account))
