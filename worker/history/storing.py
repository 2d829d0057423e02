"""How records are stored: what takes the place of what is there. Part of the history's database."""

from collections.abc import Iterable, Sequence
from typing import Final

import sqlalchemy as sa

from worker.database import half_templates, schema
from worker.database.database import Database
from worker.history.records import Tally, UnknownPerson
from worker.history.rows import Row, cleaned, last_of_each, tally_row, unknown_row

_sightings, _unknowns, _tallies, _newest = schema.sightings, schema.unknowns, schema.tallies, schema.newest
_REGROUPING: Final = 0x75677270


def hold(connection: sa.Connection, *conditions: sa.ColumnElement[bool]) -> None:
    """Until the end of the transaction, nobody else changes the past sightings that meet one of ``conditions``; without
    any, nobody stores one either.

    No two transactions wait for each other, because each takes what it changes in this order: the lock of
    :func:`settle`, sightings by their ids, the lock of those who look for somebody new, ``newest``, unknown people, and
    then everything else. So whoever changes more than one sighting, or one after something else, asks for this first.
    """
    if connection.dialect.name == "sqlite":  # one transaction writes at a time
        return
    if not conditions:
        connection.exec_driver_sql(f"LOCK TABLE {schema.SCHEMA}.{_sightings.name} IN EXCLUSIVE MODE")
        return
    held = sa.select(_sightings.c.sighting_id).where(sa.or_(*conditions))
    # In the order in which Python sorts ids, whatever the language of the database is.
    held = held.order_by(sa.collate(_sightings.c.sighting_id, "C"))
    connection.execute(sa.select(sa.func.count()).select_from(held.with_for_update().subquery()))


def settle(connection: sa.Connection, *, alone: bool) -> None:
    """Until the end of the transaction, nobody merges or parts unknown people; ``alone``: because this one does, and
    then nobody stores a sighting of somebody unknown either. It would be of one who is gone at the same moment."""
    if connection.dialect.name != "sqlite":
        lock = sa.func.pg_advisory_xact_lock if alone else sa.func.pg_advisory_xact_lock_shared
        connection.execute(sa.select(lock(_REGROUPING)))


def newest_revision(connection: sa.Connection) -> int:
    """The revision of the unknown person who was changed last."""
    return int(connection.execute(sa.select(_newest.c.revision)).scalar_one())


def next_revision(connection: sa.Connection) -> int:
    """Another revision. To be asked late: until the end of the transaction, nobody else may change unknown people."""
    connection.execute(_newest.update().values(revision=_newest.c.revision + 1))
    return newest_revision(connection)


def is_new(database: Database, connection: sa.Connection, batch_id: str, expires_s: float) -> bool:
    """Whether nothing was written under this id before; notes it."""
    noted = database.insert(schema.batches).values(batch_id=batch_id, expires_s=expires_s)
    once = noted.on_conflict_do_nothing().returning(schema.batches.c.batch_id)
    return connection.execute(once).first() is not None


def store_sightings(database: Database, connection: sa.Connection, rows: Sequence[Row]) -> None:
    """Stores or replaces sightings, one or more; those that people have corrected stay as they are."""
    rows = sorted(last_of_each(rows, "sighting_id"), key=lambda row: str(row["sighting_id"]))
    insert, columns = database.insert(_sightings), _sightings.c
    replaced = {column.name: insert.excluded[column.name] for column in columns if column is not columns.sighting_id}
    not_corrected = columns.corrections == 0
    replacing = insert.on_conflict_do_update(index_elements=["sighting_id"], set_=replaced, where=not_corrected)
    connection.execute(replacing, rows)
    templates = {row["sighting_id"]: row["template"].value for row in rows if row["template"] is not None}
    if halves := half_templates.halves_of(connection, templates):
        stored = sa.select(columns.sighting_id).where(columns.sighting_id.in_(halves), not_corrected)
        half_templates.add(connection, {key: halves[key] for key in connection.execute(stored).scalars()})


def meet(
    database: Database, connection: sa.Connection, person: UnknownPerson, *, now_s: float, remember_s: float
) -> None:
    """Stores an unknown person. Somebody who was enrolled or forgotten meanwhile stays so."""
    insert = database.insert(_unknowns)
    new, old = insert.excluded, _unknowns.c
    same = ("template", "evidence", "revision", "recorded_s", "expires_s")
    meeting = insert.on_conflict_do_update(
        index_elements=["unknown_id"],
        set_={name: new[name] for name in same}
        | {
            "first_seen_s": sa.case((new.first_seen_s < old.first_seen_s, new.first_seen_s), else_=old.first_seen_s),
            "last_seen_s": sa.case((new.last_seen_s > old.last_seen_s, new.last_seen_s), else_=old.last_seen_s),
        },
        where=old.template.is_not(None),
    )
    times = {"recorded_s": now_s, "expires_s": now_s + remember_s}
    connection.execute(meeting, cleaned(unknown_row(person)) | times | {"revision": next_revision(connection)})


def add_tallies(database: Database, connection: sa.Connection, tallies: Iterable[Tally], expires_s: float) -> None:
    """Adds them to what was counted in the same hour."""
    insert = database.insert(_tallies)
    adding = insert.on_conflict_do_update(
        index_elements=["camera_id", "hour", "reason"],
        set_={name: _tallies.c[name] + insert.excluded[name] for name in ("tracks", "faces")},
    )
    for tally in sorted(tallies, key=lambda each: (each.camera_id, each.hour, each.reason)):
        connection.execute(adding, tally_row(tally) | {"expires_s": expires_s})
