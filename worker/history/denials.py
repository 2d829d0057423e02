"""What people said of past sightings afterwards: whom they do not show. Part of the history's database.

The template of such a sighting is a counter-example of the person whom it named. It is not copied: it lies with its
sighting, expires with it, and goes if an unknown person is forgotten. What a sighting named is forgotten when that
person is removed.
"""

import time
from typing import Any

import sqlalchemy as sa

from worker.database import schema
from worker.errors import HistoryError
from worker.history.records import CounterExample, Denial, EmbedderId, PastSighting
from worker.history.rows import readable, require_texts, template_of, time_of
from worker.people_keys import Owned

Verdict = tuple[str, str, str]
"""identity_id, identity_name and unknown_id."""

_denials, _sightings, _newest = schema.denials, schema.sightings, schema.newest


def revise(connection: sa.Connection, sighting: PastSighting, verdict: Verdict) -> None:
    """Gives ``sighting`` another verdict.

    Raises:
        HistoryError: it was changed after it was read.
    """
    identity_id, identity_name, unknown_id = verdict
    as_read = (_sightings.c.sighting_id == sighting.sighting_id) & (_sightings.c.corrections == sighting.corrections)
    done = connection.execute(
        _sightings.update()
        .where(as_read)
        .values(
            identity_id=identity_id,
            identity_name=Owned(identity_id or unknown_id, identity_name),
            unknown_id=unknown_id,
            corrections=_sightings.c.corrections + 1,
        )
    )
    if not done.rowcount:
        raise HistoryError(f"sighting {sighting.sighting_id} was changed meanwhile; look at it, and try again")


def add(connection: sa.Connection, sighting: PastSighting, verdict: Verdict, now_s: float, *, link: bool) -> None:
    """Notes that ``sighting`` does not show whom it named but the person of ``verdict``. Without ``link`` the name is
    not kept."""
    identity_id, identity_name = (sighting.identity_id, sighting.identity_name) if link else ("", "")
    connection.execute(
        _denials.insert(),
        {
            "sighting_id": sighting.sighting_id, "ordinal": sighting.corrections, "identity_id": identity_id,
            "identity_name": Owned(identity_id, identity_name), "given_id": verdict[0], "unknown_id": verdict[2],
            "denied_s": now_s,
        },
    )  # fmt: skip
    changed(connection)


def remove_last(connection: sa.Connection, sighting_id: str) -> None:
    """Forgets what was said of a sighting last."""
    of_it = _denials.c.sighting_id == sighting_id
    last = connection.execute(sa.select(sa.func.max(_denials.c.ordinal)).where(of_it)).scalar_one()
    connection.execute(_denials.delete().where(of_it, _denials.c.ordinal == last))
    changed(connection)


def forget_person(connection: sa.Connection, identity_id: str) -> None:
    """Forgets which sightings do not show this person."""
    of_them = _denials.c.identity_id == identity_id
    connection.execute(_denials.update().where(of_them).values(identity_id="", identity_name=""))
    changed(connection)


def remove_orphans(connection: sa.Connection) -> None:
    """Forgets what was said of sightings that are gone."""
    there = sa.exists().where(_sightings.c.sighting_id == _denials.c.sighting_id)
    connection.execute(_denials.delete().where(~there))


def changed(connection: sa.Connection) -> None:
    """Lets those who follow read the counter-examples again."""
    connection.execute(_newest.update().values(denials=_newest.c.denials + 1))


def revision(connection: sa.Connection) -> int:
    """How often :func:`changed` was called."""
    return int(connection.execute(sa.select(_newest.c.denials)).scalar_one())


def by_sighting(connection: sa.Connection) -> dict[str, tuple[Denial, ...]]:
    """All that was said, by sighting_id, oldest first. A row that cannot be read is left out, and the log names it."""
    found: dict[str, tuple[Denial, ...]] = {}
    rows = connection.execute(sa.select(_denials).order_by(_denials.c.sighting_id, _denials.c.ordinal))
    for sighting_id, denial in readable(rows, _denial_of):
        found[sighting_id] = (*found.get(sighting_id, ()), denial)
    return found


def denied_people(connection: sa.Connection) -> set[tuple[str, str]]:
    """Unknown people who were said not to be somebody: ``unknown_id`` and ``identity_id``."""
    query = sa.select(_sightings.c.unknown_id, _denials.c.identity_id).join(
        _sightings, _sightings.c.sighting_id == _denials.c.sighting_id
    )
    both = _sightings.c.unknown_id != "", _denials.c.identity_id != ""
    return {(row.unknown_id, row.identity_id) for row in connection.execute(query.where(*both))}


def counter_examples(connection: sa.Connection, embedder: EmbedderId) -> list[CounterExample]:
    """Those that ``embedder`` made and that have not expired; a row that cannot be read is left out, as above."""
    query = (
        sa.select(_denials.c.identity_id, _sightings.c.template, _sightings.c.expires_s)
        .join(_sightings, _sightings.c.sighting_id == _denials.c.sighting_id)
        .where(
            _denials.c.identity_id != "",
            _sightings.c.template.is_not(None),
            _sightings.c.model_id == embedder.model_id,
            _sightings.c.preprocessing == embedder.preprocessing_digest,
            _sightings.c.expires_s > time.time(),
        )
        .order_by(_denials.c.sighting_id, _denials.c.ordinal)
    )
    return list(readable(connection.execute(query), _counter_example_of))


def _denial_of(row: Any) -> tuple[str, Denial]:
    require_texts(row.sighting_id, row.identity_id, row.identity_name, row.given_id, row.unknown_id)
    denial = Denial(time_of(row.denied_s), row.identity_id, row.identity_name, row.given_id, row.unknown_id)
    return row.sighting_id, denial


def _counter_example_of(row: Any) -> CounterExample:
    require_texts(row.identity_id)
    template = template_of(row.template)
    if template is None:
        raise ValueError("it has no template")
    return CounterExample(row.identity_id, template, float(row.expires_s))
