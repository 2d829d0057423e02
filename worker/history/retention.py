"""For how long things are kept, where somebody has said so in the database, for all who use it.

What is set there takes the place of what each configuration says. Why so: docs/decisions/retention.md.
"""

import time
from dataclasses import asdict, dataclass, fields
from typing import Final, Self, TypeVar

import sqlalchemy as sa

from worker.config import Config
from worker.database import schema
from worker.history import denials, storing

_DAY_S: Final = 86_400.0
_T = TypeVar("_T")
_table = schema.retention
_EXPIRING: Final = (schema.sightings, schema.unknowns, schema.tallies, schema.batches, schema.regroupings)


@dataclass(frozen=True, slots=True)
class Retention:
    """Days; None: each process goes by its own configuration."""

    sightings_days: float | None = None
    unknowns_days: float | None = None
    pictures_days: float | None = None

    @classmethod
    def of(cls, config: Config) -> Self:
        """What a configuration says."""
        return cls(config.history.keep_days, config.unknowns.remember_days, config.evidence.keep_days)

    def over(self, config: Config) -> Config:
        """``config`` with what is set here in place of its own."""
        set_here = {name: days for name, days in asdict(self).items() if days is not None}
        kept = asdict(Retention.of(config)) | set_here
        return config.model_copy(
            update={
                "history": config.history.model_copy(update={"keep_days": kept["sightings_days"]}),
                "unknowns": config.unknowns.model_copy(update={"remember_days": kept["unknowns_days"]}),
                "evidence": config.evidence.model_copy(update={"keep_days": kept["pictures_days"]}),
            }
        )


def kept_s(days: float | None, otherwise: _T) -> float | _T:
    """What is set as seconds, or what a configuration says."""
    return otherwise if days is None else days * _DAY_S


def read_retention(connection: sa.Connection) -> Retention:
    """What is set in this database. Kinds that a later version has added are passed over."""
    known = {field.name for field in fields(Retention)}
    rows = connection.execute(sa.select(_table)).all()
    return Retention(**{row.kind: row.days for row in rows if row.kind in known})


def write_retention(connection: sa.Connection, retention: Retention) -> None:
    """Sets it, and nothing else."""
    connection.execute(_table.delete())
    if rows := [{"kind": kind, "days": days} for kind, days in asdict(retention).items() if days is not None]:
        connection.execute(_table.insert(), rows)


def remove_expired(connection: sa.Connection, *, keep_s: float | None, remember_s: float | None) -> int:
    """Removes what has expired, or was recorded longer ago than these, unless the database says otherwise; returns how
    many rows went."""
    now_s, set_here = time.time(), read_retention(connection)
    ages = (
        (schema.sightings, kept_s(set_here.sightings_days, keep_s)),
        (schema.unknowns, kept_s(set_here.unknowns_days, remember_s)),
    )
    gone = 0
    for table in _EXPIRING:
        old = table.c.expires_s <= now_s
        for each, age_s in ages:
            if each is table and age_s is not None:
                old |= table.c.recorded_s <= now_s - age_s
        if table is schema.sightings:
            storing.hold(connection, old)
        gone += connection.execute(table.delete().where(old)).rowcount
    if gone:
        denials.remove_orphans(connection)
    return gone
