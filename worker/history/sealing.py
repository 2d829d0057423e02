"""By which keys the past is sealed in a database, where people have keys of their own. Part of the history's database.

A row keeps the key by which it was written, whatever is said of it later. So a row may be about somebody else than the
person whose key seals it. Before that key is destroyed, such a row gets another one.

A key of which nothing would be known once its row is changed or deleted is noted in ``spent_keys``: the server may have
the earlier row in its files for a long time.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import sqlalchemy as sa

from worker.database import half_templates, schema
from worker.database.owned import OwnBytes, apart, tag_for
from worker.history.rows import batched, owner_of
from worker.people_keys import BYTES_HEAD, TEXT_HEAD, Owned, tag_in

_sightings, _unknowns, _denials = schema.sightings, schema.unknowns, schema.denials
_alerts, _rules, _replies, _regroupings = schema.alerts, schema.rules, schema.replies, schema.regroupings
_spent = schema.spent_keys
_OWN: Final = (
    (_sightings, ("sighting_id", "identity_id", "unknown_id"), ("template", "event", "identity_name")),
    (_unknowns, ("unknown_id",), ("template",)),
    (_denials, ("sighting_id", "ordinal", "identity_id", "unknown_id"), ("identity_name",)),
    (_alerts, ("sighting_id", "rule_id", "receiver"), ("event",)),
    (_rules, ("rule_id",), ("document",)),
    (_replies, ("request",), ("body",)),
    (_regroupings, ("step", "to_id"), ("undo",)),
)
"""What tells a row from others, the id of whom it is about first; and what is sealed of it."""


def tags_of(connection: sa.Connection, ids: Mapping[sa.Table, Collection[str]] | None) -> set[str]:
    """By which keys the rows of these ``ids`` (None: all rows) are sealed; all rows of a table that is not among them.
    "" is in it if something is not sealed."""
    found: set[str] = set()
    for table, row, tags in _heads(connection):
        if ids is None or table not in ids or row[0] in ids[table]:
            found |= tags
    return found


def part_from(connection: sa.Connection, tags: Collection[str], ids: Mapping[sa.Table, Collection[str]]) -> int:
    """Seals all rows anew that are sealed by one of ``tags`` and are not of ``ids``, each by a key of its own; returns
    how many."""
    written = []
    for table, row, mine in list(_heads(connection)):
        if table in ids and row[0] not in ids[table] and not mine.isdisjoint(tags):
            _write_anew(connection, table, row, parted=True)
            written.append((table, row[0]))
    _halve_anew(connection, written)
    return len(written)


def without_others(
    connection: sa.Connection, tags: set[str], staying: Collection[str], unknown_ids: Collection[str]
) -> set[str]:
    """``tags`` without the keys of people who stay: of the ids ``staying``, and of unknown people who are not among
    ``unknown_ids``. A sighting that was taken for somebody else lies under the key of that person. If there was such a
    key, "" is in the result: not all goes with the keys."""
    theirs = connection.execute(sa.select(_unknowns.c.unknown_id).where(_unknowns.c.template.is_not(None))).scalars()
    others = {tag_for(an_id, connection.dialect) for an_id in ({*theirs} - {*unknown_ids}) | {*staying}} - {""}
    return tags if tags.isdisjoint(others) else (tags - others) | {""}


def spend(connection: sa.Connection, tags: Iterable[str], owner: str = "") -> None:
    """Notes keys that will seal no row any more. They are destroyed with those of ``owner``, an id; without one, with
    those of the next person who is erased."""
    if rows := [{"tag": tag, "owner": owner} for tag in {*tags} - {""}]:
        take_back(connection, [row["tag"] for row in rows])
        connection.execute(_spent.insert(), rows)


def spend_rule(connection: sa.Connection, rule_id: str) -> None:
    """Before a rule is changed or deleted: it may name anybody, and its key seals nothing else."""
    head = connection.execute(sa.select(_head(_rules.c.document)).where(_rules.c.rule_id == rule_id)).scalar()
    spend(connection, [tag_in(head)])


def take_back(connection: sa.Connection, tags: Collection[str]) -> None:
    """These keys are not spent, or not any more."""
    for some in batched(tags):
        connection.execute(_spent.delete().where(_spent.c.tag.in_(some)))


def spent(connection: sa.Connection, owners: Collection[str]) -> set[str]:
    """The keys that are destroyed with those of these ids."""
    rows = connection.execute(sa.select(_spent.c.tag, _spent.c.owner))
    return {row.tag for row in rows if row.owner == "" or row.owner in owners}


def seal_anew(connection: sa.Connection) -> int:
    """Writes all rows as the keys of people say now; returns how many."""
    written = []
    # What the console answered is kept for a day, for who asks again.
    connection.execute(_replies.delete())
    for table, row, _ in list(_heads(connection)):
        _write_anew(connection, table, row, parted=False)
        written.append((table, row[0]))
    _halve_anew(connection, written)
    return len(written)


def owner_of_event(event: Mapping[str, str], sighting_id: str) -> str:
    """Whose an event is, see :func:`worker.history.rows.owner_of`."""
    return owner_of(event.get("identity_id"), event.get("unknown_id"), sighting_id)


def _heads(connection: sa.Connection) -> Iterator[tuple[sa.Table, Any, set[str]]]:
    """Every row, by its ids, with the keys by which it is sealed."""
    for table, keys, names in _OWN:
        heads = [_head(table.c[name]).label(f"head_of_{name}") for name in names]
        for row in connection.execute(sa.select(*(table.c[key] for key in keys), *heads)):
            yield table, row, {tag_in(value) for value in row[len(keys) :] if value}


def _head(column: sa.Column[Any]) -> Any:
    is_bytes = isinstance(column.type, OwnBytes)
    plain = sa.type_coerce(column, sa.LargeBinary if is_bytes else sa.Text)
    return sa.func.substr(plain, 1, BYTES_HEAD if is_bytes else TEXT_HEAD)


def _write_anew(connection: sa.Connection, table: sa.Table, row: Any, *, parted: bool) -> None:
    names = next(names for each, _, names in _OWN if each is table)
    more = ["account"] if table is _sightings else []
    of_it = sa.and_(*(key == getattr(row, key.name) for key in table.primary_key.columns))
    found = connection.execute(sa.select(*(table.c[name] for name in (*names, *more))).where(of_it)).one_or_none()
    if found is None:
        return
    # A rule is about several people: it has a key of its own in any case.
    owner = apart(row[0], "").owner if parted or table is _rules else _owner(table, row, found)
    if table is _rules:
        spend_rule(connection, row.rule_id)
    elif parted:  # once the row has expired, nothing else would say whose the key was
        spend(connection, [tag_for(owner, connection.dialect)], _owner(table, row, found))
    values: dict[str, Any] = {name: Owned(owner, getattr(found, name)) for name in names if getattr(found, name)}
    if values or more:
        connection.execute(table.update().where(of_it).values(values | {name: getattr(found, name) for name in more}))


def _halve_anew(connection: sa.Connection, written: Sequence[tuple[sa.Table, str]]) -> None:
    """The server has taken away what it had of the templates of before."""
    for ids in batched(sighting_id for table, sighting_id in written if table is _sightings):
        query = sa.select(_sightings.c.sighting_id, _sightings.c.template)
        rows = connection.execute(query.where(_sightings.c.sighting_id.in_(ids), _sightings.c.template.is_not(None)))
        half_templates.add(connection, half_templates.halves_of(connection, {row[0]: row[1] for row in rows}))


def _owner(table: sa.Table, row: Any, found: Any) -> str:
    if table is _unknowns:
        return str(row.unknown_id)
    if table is _regroupings:
        return str(row.to_id)
    if table is not _alerts:
        return owner_of(row.identity_id, row.unknown_id, row.sighting_id)
    with suppress(ValueError, AttributeError):  # a damaged row is for its reader to judge
        return owner_of_event(json.loads(found.event), row.sighting_id)
    return str(row.sighting_id)
