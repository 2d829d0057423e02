"""What the past holds of somebody, and how it is erased. Part of the history's database."""

import json
import re
from collections import Counter
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import sqlalchemy as sa

from worker.database import schema
from worker.database.owned import apart, names_in_account
from worker.erased import Erased, Erasure
from worker.history import denials, sealing
from worker.history.records import EmbedderId, Vector
from worker.history.regrouped import regrouped
from worker.history.rows import batched
from worker.history.storing import next_revision
from worker.names import person_name
from worker.people_keys import Owned
from worker.types import Vectors

_alerts = schema.alerts
_sightings, _unknowns, _denials, _regroupings = schema.sightings, schema.unknowns, schema.denials, schema.regroupings
_ROWS: Final = 4096
_SOMEBODY: Final = "…"
"""Stands in the name of a rule in the place of a person's."""
_Events = list[tuple[str, dict[str, str]]]
_OF_SOMEBODY: Final = ("identity_id", "identity_name", "unknown_id", "groups")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Who is looked for: by id, and by face. ``faces``: unit vectors float32 (n, d) with the cosine from which a face
    is theirs."""

    identity_ids: frozenset[str]
    unknown_ids: frozenset[str] = frozenset()
    faces: Mapping[EmbedderId, tuple[Vectors, float]] | None = None


@dataclass(frozen=True, slots=True)
class Someone:
    """What is theirs: the ids that they have, their names, their past sightings."""

    identity_ids: Collection[str]
    unknown_ids: Collection[str]
    sighting_ids: Collection[str]
    names: Collection[str]

    @property
    def rows(self) -> dict[sa.Table, Collection[str]]:
        """The ids of the rows that are about them, by table."""
        return {_sightings: self.sighting_ids, _denials: self.sighting_ids, _alerts: self.sighting_ids,
                _unknowns: self.unknown_ids}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Trace:
    """One past sighting of somebody: what names its pictures. It has neither id if it was found by the face alone."""

    sighting_id: str
    camera_id: str
    started_s: float
    ended_s: float
    identity_id: str
    unknown_id: str


def find(connection: sa.Connection, wanted: Wanted) -> tuple[list[Trace], frozenset[str], frozenset[str]]:
    """The past sightings of somebody, their unknown ids, and the names that they had in the past."""
    unknown_ids = set(wanted.unknown_ids)
    for row in _with_faces(connection, _unknowns, wanted):
        unknown_ids.add(row.unknown_id)
    # A sighting that is going on has the id that its person had before a merge.
    unknown_ids |= {before for before, now in regrouped(connection).merged.items() if now in unknown_ids}
    traces: dict[str, Trace] = {}
    names: set[str] = set()
    near = {row.sighting_id for row in _with_faces(connection, _sightings, wanted) if not row.identity_id}
    columns = sa.select(
        _sightings.c.sighting_id, _sightings.c.camera_id, _sightings.c.started_s, _sightings.c.ended_s,
        _sightings.c.identity_id, _sightings.c.identity_name, _sightings.c.unknown_id,
    )  # fmt: skip
    for row in connection.execute(columns):
        named = row.identity_id in wanted.identity_ids or (row.unknown_id != "" and row.unknown_id in unknown_ids)
        if row.identity_id in wanted.identity_ids:
            names.add(row.identity_name)
        if named or row.sighting_id in near:
            traces[row.sighting_id] = Trace(
                row.sighting_id, row.camera_id, row.started_s, row.ended_s, row.identity_id, row.unknown_id
            )
    return list(traces.values()), frozenset(unknown_ids), frozenset(names - {""})


def templates_of(connection: sa.Connection, sighting_ids: Collection[str], unknown_ids: Collection[str]) -> list[bytes]:
    """The templates of these sightings and unknown people, as they are stored."""
    found: list[bytes] = []
    for key, ids in ((_sightings.c.sighting_id, sighting_ids), (_unknowns.c.unknown_id, unknown_ids)):
        for some in batched(ids):
            templates = connection.execute(sa.select(key.table.c.template).where(key.in_(some))).scalars()
            found += [template for template in templates if isinstance(template, bytes)]
    return found


def beside(connection: sa.Connection, traces: Sequence[Trace]) -> list[tuple[str, str, float]]:
    """The sightings of others at the same camera and time, whose frames may show the person: id, camera, start."""
    mine = {trace.sighting_id for trace in traces}
    by_camera: dict[str, list[tuple[float, float]]] = {}
    for trace in traces:
        by_camera.setdefault(trace.camera_id, []).append((trace.started_s, trace.ended_s))
    found = []
    for camera_id, spans in by_camera.items():
        since, until = min(start for start, _ in spans), max(end for _, end in spans)
        query = sa.select(
            _sightings.c.sighting_id, _sightings.c.camera_id, _sightings.c.started_s, _sightings.c.ended_s
        ).where(_sightings.c.camera_id == camera_id, _sightings.c.started_s <= until, _sightings.c.ended_s >= since)
        for row in connection.execute(query):
            together = any(row.started_s <= end and row.ended_s >= start for start, end in spans)
            found += (
                [(row.sighting_id, row.camera_id, row.started_s)] if together and row.sighting_id not in mine else []
            )
    return found


def known(connection: sa.Connection) -> Erased:
    """Who was erased from this database."""
    rows = connection.execute(sa.select(schema.erasures))
    return Erased(Erasure(row.erasure_id, row.made_at, frozenset(json.loads(row.digests))) for row in rows)


def erase(connection: sa.Connection, erased: Erased, names: Collection[str]) -> Counter[str]:
    """Removes all that bears an id of ``erased``, and the ``names`` from what is told of others; returns how many rows
    of which kind. Of an unknown person a mark stays until it expires, so that every worker learns of it: the id, no
    template."""
    revision = next_revision(connection)  # first: until the end, nobody else changes unknown people
    gone, changed = _doomed_sightings(connection, erased)
    count = _blank(connection, changed, erased, names)
    for ids in batched(gone):
        count["sightings"] += connection.execute(_sightings.delete().where(_sightings.c.sighting_id.in_(ids))).rowcount
    people = connection.execute(sa.select(_unknowns.c.unknown_id)).scalars()
    for ids in batched([unknown_id for unknown_id in people if unknown_id in erased]):
        mark: dict[str, Any] = {"template": None, "evidence": 0.0, "first_seen_s": 0.0, "last_seen_s": 0.0}
        update = _unknowns.update().where(_unknowns.c.unknown_id.in_(ids)).values(mark | {"revision": revision})
        count["unknown people"] += connection.execute(update).rowcount
    count["regroupings"] += _forget_regroupings(connection, erased)
    done = known(connection).ids
    for erasure in erased.erasures:
        if erasure.erasure_id not in done:
            row = {"erasure_id": erasure.erasure_id, "made_at": erasure.at}
            connection.execute(schema.erasures.insert(), row | {"digests": json.dumps(sorted(erasure.digests))})
    denials.remove_orphans(connection)
    denials.changed(connection)
    if _may_see_rules(connection):
        spent = connection.execute(sa.select(schema.spent_keys)).all()
        sealing.take_back(connection, [row.tag for row in spent if row.tag in erased.keys or row.owner in erased])
    return +count


def blank(connection: sa.Connection, erased: Erased, names: Collection[str]) -> Counter[str]:
    """Takes what bears an id of ``erased``, and the ``names``, out of what stays because it is about others; returns
    how many rows of which kind."""
    _, changed = _doomed_sightings(connection, erased)
    return _blank(connection, changed, erased, names)


def _blank(connection: sa.Connection, changed: _Events, erased: Erased, names: Collection[str]) -> Counter[str]:
    count: Counter[str] = Counter()
    for sighting_id, event in changed:
        # Under the key of the sighting: what it was under goes with the person.
        values = {"event": Owned(sighting_id, json.dumps(event))}
        connection.execute(_sightings.update().where(_sightings.c.sighting_id == sighting_id).values(values))
        count["events of others"] += 1
    count["accounts of others"] += _blank_names(connection, names)
    count["corrections"] += _blank_denials(connection, erased)
    return count + (blank_told(connection, erased, names) if _may_see_rules(connection) else Counter())


def blank_told(
    connection: sa.Connection, erased: Erased, names: Collection[str], *, answers: bool = True
) -> Counter[str]:
    """The same for what the console keeps: rules, alerts, and its ``answers``."""
    count: Counter[str] = Counter()
    count["alerts"] += _forget_alerts(connection, erased)
    count["rules"] += _blank_rules(connection, erased, names)
    if answers:  # they may name anybody, and are kept for a day, in case that somebody asks again
        count["answers"] += connection.execute(schema.replies.delete()).rowcount
    return count


def _may_see_rules(connection: sa.Connection) -> bool:
    """A worker may not, in PostgreSQL: each console sees to them as well, before it serves."""
    if connection.dialect.name == "sqlite":
        return True
    table = f"{schema.SCHEMA}.{schema.rules.name}"
    return bool(connection.execute(sa.select(sa.func.has_table_privilege(table, "UPDATE"))).scalar_one())


def rules_about(connection: sa.Connection, ids: Container[str], names: Collection[str]) -> set[str]:
    """The ids of the rules that are about one of these people, or bear one of these names."""
    return {rule_id for rule_id, document in stored_rules(connection) if _without(document, ids, names) != document}


def stored_rules(connection: sa.Connection) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rules by their ids; one that cannot be read is empty."""
    for row in connection.execute(sa.select(schema.rules.c.rule_id, schema.rules.c.document)).all():
        document: Any = None
        with suppress(ValueError, TypeError):
            document = json.loads(row.document)
        is_sound = isinstance(document, dict) and isinstance(document.get("people", []), list)
        yield row.rule_id, document if is_sound else {}


def _without(rule: dict[str, Any], ids: Container[str], names: Collection[str]) -> dict[str, Any]:
    """A rule that neither is about these people nor bears one of these names."""
    people = rule.get("people", [])
    left = [identity_id for identity_id in people if identity_id not in ids]
    if len(left) < len(people):
        # A rule that was about nobody else would be about everybody now.
        rule = rule | {"people": left, "enabled": bool(rule.get("enabled") and (left or rule.get("groups")))}
    called = unnamed = person_name(str(rule.get("name", "")))
    for name in filter(None, names):
        unnamed = re.sub(rf"(?<!\w){re.escape(person_name(name))}(?!\w)", _SOMEBODY, unnamed, flags=re.IGNORECASE)
    return rule if unnamed == called else rule | {"name": unnamed}


def _blank_rules(connection: sa.Connection, erased: Erased, names: Collection[str]) -> int:
    count = 0
    for rule_id, document in stored_rules(connection):
        left = _without(document, erased, names)
        of_it = schema.rules.c.rule_id == rule_id
        if left != document or not document:
            sealing.spend_rule(connection, rule_id)
        if not document:  # nobody can carry it out, or tell whom it names
            connection.execute(schema.rules.delete().where(of_it))
        elif left != document:
            connection.execute(schema.rules.update().where(of_it).values(document=apart(rule_id, json.dumps(left))))
        count += left != document or not document
    return count


def _forget_alerts(connection: sa.Connection, erased: Erased) -> int:
    """Nobody is told of them any more."""
    gone = 0
    for row in connection.execute(sa.select(_alerts).where(_alerts.c.state == "due")).all():
        event: Any = None
        with suppress(ValueError, TypeError):
            event = json.loads(row.event)
        # What cannot be read is told to nobody either: it is damaged, or its key is destroyed.
        if not isinstance(event, dict) or any(event.get(name) in erased for name in ("identity_id", "unknown_id")):
            gone += connection.execute(_alerts.delete().where(_alerts.c.sighting_id == row.sighting_id)).rowcount
    told = connection.execute(sa.select(_alerts.c.sighting_id).distinct()).scalars()
    for ids in batched([sighting_id for sighting_id in told if sighting_id in erased]):
        gone += connection.execute(_alerts.delete().where(_alerts.c.sighting_id.in_(ids))).rowcount
    return gone


def _doomed_sightings(connection: sa.Connection, erased: Erased) -> tuple[list[str], _Events]:
    """The ids of those that go, and those that stay but whose event names somebody who goes, with the new event."""
    gone: list[str] = []
    changed: _Events = []
    query = sa.select(
        _sightings.c.sighting_id, _sightings.c.identity_id, _sightings.c.unknown_id, _sightings.c.corrections,
        sa.case((_sightings.c.corrections > 0, _sightings.c.event), else_="").label("event"),
    )  # fmt: skip
    seen: dict[str, bool] = {}
    for row in connection.execute(query):
        for an_id in (row.identity_id, row.unknown_id):
            if an_id not in seen:
                seen[an_id] = an_id in erased
        if seen[row.identity_id] or seen[row.unknown_id] or row.sighting_id in erased:
            gone.append(row.sighting_id)
        elif row.event:
            event = json.loads(row.event)
            if event.get("identity_id") in erased or event.get("unknown_id") in erased:
                changed.append((row.sighting_id, event | dict.fromkeys(_OF_SOMEBODY, "")))
    return gone, changed


def _blank_names(connection: sa.Connection, names: Collection[str]) -> int:
    """Takes names out of what was told of others: whom they were nearest to."""
    changed = 0
    for name in names:
        written = sa.type_coerce(_sightings.c.account, sa.Text)
        forms = names_in_account(name, connection.dialect)
        query = sa.select(_sightings.c.sighting_id, _sightings.c.account).where(
            sa.or_(*(written.contains(form, autoescape=True) for form in forms))
        )
        for row in connection.execute(query).all():
            account = json.loads(row.account)
            for field, cosine in (("nearest", "similarity"), ("runner_up", "runner_up_similarity")):
                if person_name(account.get(field, "")) == person_name(name):
                    account |= {field: "", cosine: None, "threshold_group": ""}
            values = {"account": json.dumps(account)}
            connection.execute(_sightings.update().where(_sightings.c.sighting_id == row.sighting_id).values(values))
            changed += 1
    return changed


def _blank_denials(connection: sa.Connection, erased: Erased) -> int:
    rows = connection.execute(sa.select(_denials)).all()
    for row in rows:
        blank: dict[str, Any] = {}
        if row.identity_id in erased:
            blank |= {"identity_id": "", "identity_name": ""}
        blank |= {name: "" for name in ("given_id", "unknown_id") if getattr(row, name) in erased}
        if blank:
            of_it = (_denials.c.sighting_id == row.sighting_id) & (_denials.c.ordinal == row.ordinal)
            connection.execute(_denials.update().where(of_it).values(blank))
    return sum(row.identity_id in erased or row.given_id in erased or row.unknown_id in erased for row in rows)


def _forget_regroupings(connection: sa.Connection, erased: Erased) -> int:
    """Nothing of these people can be undone any more."""
    gone = [
        row.step
        for row in connection.execute(sa.select(_regroupings))
        if row.from_id in erased
        or row.to_id in erased
        or any(sighting_id in erased for sighting_id in json.loads(row.sighting_ids))
    ]
    if gone:
        connection.execute(_regroupings.delete().where(_regroupings.c.step.in_(gone)))
    return len(gone)


def _with_faces(connection: sa.Connection, table: sa.Table, wanted: Wanted) -> Iterator[Any]:
    """The rows of ``table`` whose template resembles one of the faces."""
    for embedder, (faces, threshold) in (wanted.faces or {}).items():
        if not len(faces):
            continue
        query = sa.select(table).where(
            table.c.template.is_not(None),
            table.c.model_id == embedder.model_id,
            table.c.preprocessing == embedder.preprocessing_digest,
        )
        rows = connection.execute(query)
        while chunk := rows.fetchmany(_ROWS):
            chunk = [
                row for row in chunk if isinstance(row.template, bytes) and len(row.template) == 4 * faces.shape[1]
            ]
            if chunk:
                templates: Vector = np.frombuffer(b"".join(row.template for row in chunk), "<f4")
                near = (templates.reshape(len(chunk), -1) @ faces.T).max(axis=1) >= threshold
                yield from (chunk[place] for place in np.flatnonzero(near))
