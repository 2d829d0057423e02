"""What became of the ids of unknown people who were merged or parted, for sightings that have an id of before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from worker.database import schema
from worker.history.records import PastSighting, Vector
from worker.history.rows import readable, unknown_of

_sightings, _unknowns, _regroupings = schema.sightings, schema.unknowns, schema.regroupings


@dataclass(frozen=True, slots=True)
class Regrouped:
    """Who has which id now. A sighting that was going on meanwhile has the id of before.

    ``merged``: of people who are somebody else's part now, who that is. ``parted``: when (Unix time), from whom, and
    who was parted from them; oldest first.
    """

    merged: Mapping[str, str] = field(default_factory=dict)
    parted: Sequence[tuple[float, str, str]] = ()

    def choices(self, unknown_id: str, started_s: float) -> list[str]:
        """Whom a sighting may show that has ``unknown_id`` and began at ``started_s``: more than one where a person was
        parted after that. The first is to be taken if nothing else decides."""
        found = [self.merged.get(unknown_id, unknown_id)]
        for at_s, one, other in self.parted:
            if at_s > started_s and self.merged.get(one, one) in found:
                found.append(self.merged.get(other, other))
        return list(dict.fromkeys(found))


def nearest_of(template: Vector | None, choices: Sequence[str], templates: Mapping[str, Vector]) -> str:
    """Whose of ``templates`` is nearest to ``template`` (d,); the first of ``choices`` if that cannot be told."""
    if template is None:
        return choices[0]
    comparable = [one for one in choices if one in templates and templates[one].shape == template.shape]
    return max(comparable, key=lambda one: float(templates[one] @ template), default=choices[0])


def regrouped(connection: sa.Connection, without: str = "") -> Regrouped:
    """What all steps have led to, except that one."""
    rows = connection.execute(
        sa.select(_regroupings)
        .where(_regroupings.c.samples == "", _regroupings.c.undo == "", _regroupings.c.step != without)
        .order_by(_regroupings.c.number)
    ).all()
    into: dict[str, str] = {}
    parted: list[tuple[float, str, str]] = []
    for row in rows:
        if is_split(row):
            one, other = row.from_id, row.to_id
        elif row.whole:
            one, other = row.to_id, row.from_id
        else:
            continue
        # A split that was undone is as a merge, and a merge that was undone as a split.
        if bool(row.whole) != bool(row.undone):
            into[other] = one
        elif row.changed_s:
            parted.append((row.changed_s, one, other))
    merged: dict[str, str] = {}
    for unknown_id, kept in into.items():
        passed = {unknown_id}
        while kept in into and kept not in passed:  # a damaged table may lead round in a circle
            passed.add(kept)
            kept = into[kept]
        merged[unknown_id] = kept
    return Regrouped(merged, sorted(parted))


def ids_now(connection: sa.Connection, sightings: Sequence[PastSighting]) -> dict[str, str]:
    """Of these sightings, which are to be stored, those that have another person now than they say: by sighting_id."""
    seen = [sighting for sighting in sightings if sighting.unknown_id]
    if not seen:
        return {}
    now = regrouped(connection)
    choices = {one.sighting_id: now.choices(one.unknown_id, one.started_at.timestamp()) for one in seen}
    unsure = [sighting_id for sighting_id, found in choices.items() if len(found) > 1]
    if unsure:
        # Of those that were there when people parted the two, they said whose they are.
        known = sa.select(_sightings.c.sighting_id).where(_sightings.c.sighting_id.in_(unsure))
        for sighting_id in connection.execute(known).scalars():
            choices[sighting_id] = choices[sighting_id][:1]
    people = {unknown_id for found in choices.values() if len(found) > 1 for unknown_id in found}
    rows = connection.execute(sa.select(_unknowns).where(_unknowns.c.unknown_id.in_(people))) if people else ()
    templates = {one.unknown_id: one.template for one in readable(rows, unknown_of) if one.template is not None}
    found = {one.sighting_id: nearest_of(one.template, choices[one.sighting_id], templates) for one in seen}
    return {one.sighting_id: found[one.sighting_id] for one in seen if found[one.sighting_id] != one.unknown_id}


def is_split(step: Any) -> bool:
    """Whether it was one; of an earlier step that is not known for sure."""
    return not step.whole and step.changed_s > 0
