"""Unknown people who were told apart or together wrongly: merged, split, and the last step undone.

A person is what their sightings say: after each step, templates are made anew from the sightings that a person has.
Before anything is written, those who were told of the sightings are told whose they are now.
"""

import json
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import sqlalchemy as sa

from worker.database import schema
from worker.errors import HistoryError
from worker.history import denials
from worker.history.records import EmbedderId, PastSighting, UnknownPerson, Vector
from worker.history.regrouped import is_split, nearest_of, regrouped
from worker.history.rows import readable, sighting_of, unknown_of, unknown_row
from worker.history.storing import hold, next_revision
from worker.people_keys import Owned

_sightings, _unknowns, _regroupings = schema.sightings, schema.unknowns, schema.regroupings

Tell = Callable[[Sequence[PastSighting], str], None]
"""Is given sightings as they were, and the id that their person has now. What it raises undoes the step."""


def merge(connection: sa.Connection, kept: UnknownPerson, other: UnknownPerson, tell: Tell) -> str:
    """Gives all sightings of ``other`` to ``kept``; returns the id of this step, by which it can be undone.

    Raises:
        HistoryError: they are the same person, or another model's.
    """
    if kept.unknown_id == other.unknown_id:
        raise HistoryError(f"{kept.unknown_id} is one person already")
    if kept.embedder != other.embedder:
        raise HistoryError(
            f"{kept.unknown_id} and {other.unknown_id} were seen with different models, and cannot be compared"
        )
    moved = _sightings_of(connection, other.unknown_id)
    tell(moved, kept.unknown_id)
    return _move(connection, other, kept, moved, next_revision(connection), whole=True)


def split(
    connection: sa.Connection,
    person: UnknownPerson,
    sighting_ids: Sequence[str],
    new_id: str,
    tell: Tell,
) -> str:
    """Gives these sightings of ``person`` to somebody new, ``new_id``; returns the id of this step.

    Raises:
        HistoryError: one is not a sighting of this person, none is left, or none shows a face well enough.
    """
    own = {sighting.sighting_id: sighting for sighting in _sightings_of(connection, person.unknown_id)}
    if strange := [sighting_id for sighting_id in sighting_ids if sighting_id not in own]:
        raise not_theirs(strange[0], person.unknown_id)
    if len(set(sighting_ids)) == len(own):
        raise HistoryError(f"these are all sightings of {person.unknown_id}: nobody would be left")
    moved = [own[sighting_id] for sighting_id in sorted(set(sighting_ids))]
    made = _made_of(person, new_id, moved)
    if made is None:
        raise HistoryError("none of these sightings has a face by which somebody can be told apart")
    tell(moved, new_id)
    revision = next_revision(connection)
    _remember(connection, new_id, person.unknown_id, moved, revision)
    return _move(connection, person, made, moved, revision, whole=False)


def drop(connection: sa.Connection, unknown_id: str, *, sightings_too: bool = False) -> None:
    """Forgets the template of an unknown person, whose sightings are nobody's then; with ``sightings_too`` also the
    templates of these. The caller holds them, see :func:`worker.history.storing.hold`."""
    gone: dict[str, Any] = {"template": None, "revision": next_revision(connection)}
    connection.execute(_unknowns.update().where(_unknowns.c.unknown_id == unknown_id).values(gone))
    forget(connection, unknown_id)
    gone = {"unknown_id": ""} | ({"template": None} if sightings_too else {})
    if sightings_too:
        denials.changed(connection)
    connection.execute(_sightings.update().where(_sightings.c.unknown_id == unknown_id).values(gone))


def undo(connection: sa.Connection, step: str, tell: Tell) -> tuple[str, str]:
    """Takes a merge or a split back; returns whose sightings went back to whom: ``(from, to)``.

    Each goes to whom it belongs. After a split, those of the person who goes were all of the one who stays. Of what was
    recorded after a merge, some is of the person who is back: what a worker has told of them, and what is more like
    them than like the other.

    Raises:
        HistoryError: there is no such step, it was undone, or something came after it.
    """
    of_step = sa.select(_regroupings).where(_regroupings.c.step == step)
    both = of_step.with_only_columns(_regroupings.c.to_id).scalar_subquery()
    hold(connection, _sightings.c.unknown_id == both)
    row = connection.execute(of_step).one_or_none()
    if row is None or row.expires_s <= time.time():
        raise no_step(step)
    if row.undone:
        raise HistoryError(f"step {step} was undone before")
    ids = {row.from_id, row.to_id}
    later = sa.select(_regroupings.c.step).where(
        _regroupings.c.undone == 0,
        _regroupings.c.number > row.number,
        sa.or_(_regroupings.c.from_id.in_(ids), _regroupings.c.to_id.in_(ids)),
    )
    if (after := connection.execute(later.order_by(_regroupings.c.number.desc())).scalars().first()) is not None:
        raise HistoryError(f"step {after} came after {step} with the same people: undo that one first")
    went, seen = set(json.loads(row.sighting_ids)), _sightings_of(connection, row.to_id)
    back = seen if is_split(row) else _theirs_again(connection, row, went, seen)
    tell(back, row.from_id)
    revision = next_revision(connection)
    undone = {"undone": 1, "changed_s": time.time() if row.changed_s else 0.0}
    connection.execute(_regroupings.update().where(_regroupings.c.step == step).values(undone))
    _give(connection, back, row.from_id)
    if row.whole and not went.issuperset(sighting.sighting_id for sighting in back):
        _remember(connection, row.from_id, row.to_id, back, revision)
    for unknown_id in (row.from_id, row.to_id):
        make_anew(connection, unknown_id, revision)
    return row.to_id, row.from_id


def _theirs_again(
    connection: sa.Connection, merge: Any, went: set[str], seen: Sequence[PastSighting]
) -> list[PastSighting]:
    """Those of ``seen``, the sightings of the two who are one since ``merge``, that are of the one who ``went`` with
    those then."""
    later = _later(connection, merge) - went
    before = regrouped(connection, without=merge.step).merged
    mine: dict[str, bool] = {}
    for sighting in seen:
        told = sighting.event.get("unknown_id", "")
        if sighting.sighting_id not in later:
            mine[sighting.sighting_id] = sighting.sighting_id in went
        elif before.get(told, told) == merge.from_id:
            mine[sighting.sighting_id] = True
    templates: dict[str, Vector] = {}
    for unknown_id in (merge.from_id, merge.to_id):
        certain = [one for one in seen if mine.get(one.sighting_id) == (unknown_id == merge.from_id)]
        if certain and (mean := _mean_of(certain, certain[0].embedder)) is not None:
            templates[unknown_id] = mean
    for sighting in seen:
        if sighting.sighting_id not in mine and len(templates) == 2:
            whose = nearest_of(sighting.template, [merge.to_id, merge.from_id], templates)
            mine[sighting.sighting_id] = whose == merge.from_id
    return [sighting for sighting in seen if mine.get(sighting.sighting_id)]


def _later(connection: sa.Connection, merge: Any) -> set[str]:
    """The sightings that came to the two who are one after ``merge``; none if its time was not noted."""
    if not merge.changed_s:
        return set()
    recorded = sa.select(_sightings.c.sighting_id).where(
        _sightings.c.unknown_id == merge.to_id, _sightings.c.recorded_s > merge.changed_s
    )
    said = sa.select(schema.denials.c.sighting_id).where(
        schema.denials.c.unknown_id == merge.to_id, schema.denials.c.denied_s > merge.changed_s
    )
    return set(connection.execute(sa.union(recorded, said)).scalars())


def _remember(
    connection: sa.Connection, unknown_id: str, other_id: str, seen: list[PastSighting], revision: int
) -> None:
    """Somebody who was one with ``other_id`` until now, and whom these sightings show, is remembered as long as that
    one."""
    query = sa.select(_unknowns).where(_unknowns.c.unknown_id == other_id)
    if (other := connection.execute(query).one_or_none()) is None:
        return
    times = {"recorded_s": other.recorded_s, "expires_s": other.expires_s}
    theirs = _unknowns.c.unknown_id == unknown_id
    if connection.execute(_unknowns.update().where(theirs).values(times)).rowcount:
        return
    if (made := _made_of(unknown_of(other), unknown_id, seen)) is not None:
        connection.execute(_unknowns.insert(), unknown_row(made) | times | {"revision": revision})


def not_theirs(sighting_id: str, unknown_id: str) -> HistoryError:
    """The sighting does not show this person."""
    return HistoryError(f"{sighting_id} is no sighting of {unknown_id}; 'facestream unknown show' lists them")


def no_step(step: str) -> HistoryError:
    """There is no such step."""
    return HistoryError(f"no step {step}: 'unknown merge', 'split' and 'enroll' say theirs; it may have expired")


def moved_in(connection: sa.Connection, step: str) -> list[str]:
    """The sightings that went to somebody else in this step; none if there is no such step."""
    found = connection.execute(sa.select(_regroupings.c.sighting_ids).where(_regroupings.c.step == step)).scalar()
    return list(json.loads(found)) if found else []


def steps_about(connection: sa.Connection, ids: Collection[str]) -> set[str]:
    """The steps that are about one of these people."""
    rows = connection.execute(sa.select(_regroupings.c.step, _regroupings.c.from_id, _regroupings.c.to_id))
    return {step for step, from_id, to_id in rows if from_id in ids or to_id in ids}


def forget(connection: sa.Connection, unknown_id: str) -> None:
    """Nothing of this person can be undone any more."""
    either = sa.or_(_regroupings.c.from_id == unknown_id, _regroupings.c.to_id == unknown_id)
    connection.execute(_regroupings.delete().where(either))


def _move(
    connection: sa.Connection,
    giver: UnknownPerson,
    taker: UnknownPerson,
    moved: list[PastSighting],
    revision: int,
    *,
    whole: bool,
) -> str:
    sighting_ids = _give(connection, moved, taker.unknown_id)
    expires_s = connection.execute(
        sa.select(sa.func.max(_unknowns.c.expires_s)).where(
            _unknowns.c.unknown_id.in_([giver.unknown_id, taker.unknown_id])
        )
    ).scalar_one()
    step = note_step(connection, giver.unknown_id, taker.unknown_id, sighting_ids, int(whole), expires_s)
    for unknown_id in (giver.unknown_id, taker.unknown_id):
        make_anew(connection, unknown_id, revision)
    return step


def note_step(
    connection: sa.Connection,
    from_id: str,
    to_id: str,
    sighting_ids: list[str],
    whole: int,
    expires_s: float,
    samples: str = "",
    undo: Owned[str] | str = "",
) -> str:
    """Notes that these sightings went from one person to another, as the columns of the table say; returns its id."""
    step = uuid.uuid4().hex[:8]
    number = connection.execute(sa.select(sa.func.coalesce(sa.func.max(_regroupings.c.number), 0))).scalar_one()
    connection.execute(
        _regroupings.insert(),
        {
            "step": step, "number": number + 1, "from_id": from_id, "to_id": to_id,
            "sighting_ids": json.dumps(sighting_ids), "whole": whole, "undone": 0, "expires_s": expires_s,
            "samples": samples, "changed_s": time.time(), "undo": undo,
        },
    )  # fmt: skip
    return step


def _give(connection: sa.Connection, sightings: Sequence[PastSighting], unknown_id: str) -> list[str]:
    """Gives them to this person; returns their ids. Each counts as corrected, so that the next event about it has
    another id, and a row that is written late does not take it back."""
    ids = [sighting.sighting_id for sighting in sightings]
    given = {"unknown_id": unknown_id, "corrections": _sightings.c.corrections + 1}
    connection.execute(_sightings.update().where(_sightings.c.sighting_id.in_(ids)).values(given))
    return ids


def _sightings_of(connection: sa.Connection, unknown_id: str) -> list[PastSighting]:
    query = sa.select(_sightings).where(_sightings.c.unknown_id == unknown_id, _sightings.c.expires_s > time.time())
    return list(readable(connection.execute(query.order_by(_sightings.c.started_s)), sighting_of))


def make_anew(connection: sa.Connection, unknown_id: str, revision: int) -> None:
    """Makes a person of the sightings that they have now; without any, they are gone."""
    old = connection.execute(sa.select(_unknowns).where(_unknowns.c.unknown_id == unknown_id)).one_or_none()
    if old is None:
        return
    seen = _sightings_of(connection, unknown_id)
    made = _made_of(unknown_of(old), unknown_id, seen)
    values: dict[str, Any] = {"revision": revision}
    if made is not None:
        row = unknown_row(made)
        values |= {name: row[name] for name in ("template", "evidence", "first_seen_s", "last_seen_s")}
    elif not seen:
        values["template"] = None
    connection.execute(_unknowns.update().where(_unknowns.c.unknown_id == unknown_id).values(values))


def _made_of(like: UnknownPerson, unknown_id: str, seen: list[PastSighting]) -> UnknownPerson | None:
    """The person whom these sightings show; None if none of them has a template."""
    if (mean := _mean_of(seen, like.embedder)) is None:
        return None
    return replace(
        like,
        unknown_id=unknown_id,
        template=mean,
        embedded_faces=float(
            sum(one.embedded_faces for one in seen if one.template is not None and one.embedder == like.embedder)
        ),
        first_seen=min(sighting.started_at for sighting in seen),
        last_seen=max(sighting.ended_at for sighting in seen),
    )


def _mean_of(seen: Sequence[PastSighting], embedder: EmbedderId) -> Vector | None:
    """The mean of the faces in these sightings, of unit length; None if none of them has a template."""
    faces = [
        one.template * np.float32(one.embedded_faces)
        for one in seen
        if one.template is not None and one.embedder == embedder
    ]
    if not faces:
        return None
    mean: Vector = np.sum(faces, axis=0)
    return (mean / max(float(np.linalg.norm(mean)), 1e-6)).astype(np.float32)
