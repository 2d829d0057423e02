"""Two enrolled people who are one: what the past and the rules say of them, and how that is taken back. Part of the
history's database.

Such a step lies among the regroupings. Its ``undo`` is sealed as what is of the person who stays.
"""

import json
import time
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from worker.database import schema
from worker.database.owned import apart
from worker.errors import HistoryError
from worker.history import denials, sealing
from worker.history.erasing import stored_rules
from worker.history.records import PastMerger
from worker.history.regrouping import no_step, note_step
from worker.history.rows import batched, readable
from worker.history.storing import hold
from worker.names import clean_text
from worker.people_keys import Owned

_sightings, _denials, _regroupings, _rules = schema.sightings, schema.denials, schema.regroupings, schema.rules


def merge(
    connection: sa.Connection, merger: dict[str, Any], name: str, sighting_ids: Sequence[str], expires_s: float
) -> str:
    """Notes that ``other_id`` of ``merger`` is ``identity_id``, called ``name``: in these past sightings, in what was
    said of any, and in rules. Returns the id of this step, by which it can be undone until ``expires_s``."""
    kept, other = merger["identity_id"], merger["other_id"]
    hold(connection, _sightings.c.sighting_id.in_(sighting_ids))
    _give(connection, sighting_ids, (other, kept), name)
    denials.changed(connection)
    namings = _regroupings.c.to_id == other, _regroupings.c.samples != ""
    steps = list(connection.execute(sa.select(_regroupings.c.step).where(*namings)).scalars())
    connection.execute(_regroupings.update().where(*namings).values(to_id=kept))
    undo = {
        "merger": merger, "name": name, "namings": steps, "denials": _deny_both(connection, kept, other, name),
        "rules": _replace_in_rules(connection, kept, other),
    }  # fmt: skip
    return note_step(
        connection, other, kept, list(sighting_ids), 1, expires_s, undo=Owned(kept, json.dumps(undo))
    )  # fmt: skip


def mergers(connection: sa.Connection, *conditions: sa.ColumnElement[bool]) -> list[PastMerger]:
    """Those that can still be undone, the latest first."""
    open_ones = _regroupings.c.undo != "", _regroupings.c.expires_s > time.time()
    query = sa.select(_regroupings).where(*open_ones, *conditions).order_by(_regroupings.c.number.desc())
    return list(readable(connection.execute(query), _merger_of))


def undo(connection: sa.Connection, past: PastMerger, sighting_ids: Sequence[str]) -> None:
    """Takes ``past`` back; ``sighting_ids`` are those of its sightings that still name the person.

    Raises:
        HistoryError: it was undone meanwhile, or others came after it.
    """
    hold(connection, _sightings.c.sighting_id.in_(sighting_ids))
    require_last(connection, past)
    kept, other, name = past.identity_id, past.other_id, past.other_name
    _give(connection, sighting_ids, (kept, other), name)
    # Nothing of it is kept: it names somebody.
    if not connection.execute(_regroupings.delete().where(_regroupings.c.step == past.step)).rowcount:
        raise no_step(past.step)
    denials.changed(connection)
    for ids in batched(past.told["namings"]):
        connection.execute(_regroupings.update().where(_regroupings.c.step.in_(ids)).values(to_id=other))
    names = {kept: past.told["name"], other: name}
    for sighting_id, ordinal, identity_id, given_id in past.told["denials"]:
        one = (_denials.c.sighting_id == sighting_id) & (_denials.c.ordinal == ordinal)
        before = {"identity_id": identity_id, "given_id": given_id}
        if identity_id:
            before["identity_name"] = Owned(identity_id, names[identity_id])
        connection.execute(_denials.update().where(one).values(before))
    for rule_id, document in stored_rules(connection):
        if rule_id in past.told["rules"] and kept in document.get("people", []):
            had_both = past.told["rules"][rule_id]
            people = [each for each in document["people"] if each != kept or had_both] + [other]
            _write_rule(connection, rule_id, document | {"people": people})


def require_last(connection: sa.Connection, past: PastMerger) -> None:
    """Does nothing if neither of the two was merged again after ``past``.

    Raises:
        HistoryError: one was, or it is undone.
    """
    row = connection.execute(sa.select(_regroupings).where(_regroupings.c.step == past.step)).one_or_none()
    if row is None:
        raise no_step(past.step)
    ids = past.identity_id, past.other_id
    later = (
        _regroupings.c.undo != "", _regroupings.c.number > row.number,
        sa.or_(_regroupings.c.from_id.in_(ids), _regroupings.c.to_id.in_(ids)),
    )  # fmt: skip
    query = sa.select(_regroupings.c.step).where(*later).order_by(_regroupings.c.number.desc())
    if (after := connection.execute(query).scalars().first()) is not None:
        raise HistoryError(f"step {after} came after {past.step} with the same people: undo that one first")


def known_as(connection: sa.Connection, identity_ids: set[str]) -> tuple[set[str], set[str]]:
    """These people, with the ids and names that they had before they were merged."""
    ids, names = set(identity_ids), set[str]()
    for past in mergers(connection):  # the latest first: so it finds who was merged into somebody merged
        if past.identity_id in ids:
            ids.add(past.other_id)
            names.add(past.other_name)
    return ids, names


def _merger_of(row: Any) -> PastMerger:
    told = json.loads(row.undo)
    merger = told["merger"]
    return PastMerger(
        row.step, row.to_id, row.from_id, str(merger["other_name"]), tuple(json.loads(row.sighting_ids)), told
    )


def _give(connection: sa.Connection, sighting_ids: Sequence[str], ids: tuple[str, str], name: str) -> None:
    """Each counts as corrected, so that the next event about it has another id."""
    before, now = ids
    given = {
        "identity_id": now,
        "identity_name": Owned(now, clean_text(name)),
        "corrections": _sightings.c.corrections + 1,
    }
    for some in batched(sighting_ids):
        theirs = _sightings.c.sighting_id.in_(some), _sightings.c.identity_id == before
        connection.execute(_sightings.update().where(*theirs).values(given))


def _deny_both(connection: sa.Connection, kept: str, other: str, name: str) -> list[tuple[str, int, str, str]]:
    """What was said not to show one of them does not show the person, unless somebody said that it shows the other
    one: then it is no counter-example of either. Returns what was changed, as it was: sighting, ordinal, whom it does
    not show and whom it shows."""
    both = {kept, other}
    query = sa.select(
        _denials.c.sighting_id, _denials.c.ordinal, _denials.c.identity_id, _denials.c.given_id,
        _sightings.c.identity_id.label("shows"),
    ).join(_sightings, _sightings.c.sighting_id == _denials.c.sighting_id)  # fmt: skip
    changed = []
    for row in connection.execute(
        query.where(sa.or_(*(_denials.c[of].in_(both) for of in ("identity_id", "given_id"))))
    ).all():
        values: dict[str, Any] = {"given_id": kept} if row.given_id == other else {}
        if row.identity_id in both and both & {row.given_id, row.shows}:
            values |= {"identity_id": "", "identity_name": ""}
        elif row.identity_id == other:
            values |= {"identity_id": kept, "identity_name": Owned(kept, name)}
        if values:
            one = (_denials.c.sighting_id == row.sighting_id) & (_denials.c.ordinal == row.ordinal)
            connection.execute(_denials.update().where(one).values(values))
            changed.append((row.sighting_id, row.ordinal, row.identity_id, row.given_id))
    return changed


def _replace_in_rules(connection: sa.Connection, kept: str, other: str) -> dict[str, bool]:
    """Rules about ``other`` are about ``kept`` from now on. Returns their ids, and whether each was about both."""
    changed = {}
    for rule_id, document in stored_rules(connection):
        people = document.get("people", [])
        if other in people:
            changed[rule_id] = kept in people
            now = list(dict.fromkeys(kept if each == other else each for each in people))
            _write_rule(connection, rule_id, document | {"people": now})
    return changed


def _write_rule(connection: sa.Connection, rule_id: str, document: dict[str, Any]) -> None:
    sealing.spend_rule(connection, rule_id)
    values = {"document": apart(rule_id, json.dumps(document))}
    connection.execute(_rules.update().where(_rules.c.rule_id == rule_id).values(values))
