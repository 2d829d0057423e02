"""By which keys the past is sealed in a database, where people have keys of their own. Part of the history's database.

A row keeps the key by which it was written, whatever is said of it later. So a row may be about somebody else than the
person whose key seals it. Before that key is destroyed, such a row gets another one.
"""

import secrets
from collections.abc import Collection, Iterator
from typing import Any, Final

import sqlalchemy as sa

from worker.database import schema
from worker.people_keys import BYTES_HEAD, TEXT_HEAD, Owned, tag_in

_sightings, _unknowns, _denials = schema.sightings, schema.unknowns, schema.denials
_OWN: Final = (
    (_sightings, ("template", "event", "identity_name")),
    (_unknowns, ("template",)),
    (_denials, ("identity_name",)),
)


def tags_of(
    connection: sa.Connection, sighting_ids: Collection[str] | None, unknown_ids: Collection[str] | None
) -> set[str]:
    """By which keys the rows of these (None: of all) are sealed; "" is among them if something is not sealed."""
    found: set[str] = set()
    for table, row, tags in _heads(connection):
        ids = unknown_ids if table is _unknowns else sighting_ids
        if ids is None or row[0] in ids:
            found |= tags
    return found


def part_from(
    connection: sa.Connection, tags: Collection[str], sighting_ids: Collection[str], unknown_ids: Collection[str]
) -> int:
    """Seals all rows anew that are sealed by one of ``tags`` and are not of ``sighting_ids`` and ``unknown_ids``, each
    by a key of its own; returns how many."""
    count = 0
    for table, row, mine in list(_heads(connection)):
        if row[0] not in (unknown_ids if table is _unknowns else sighting_ids) and not mine.isdisjoint(tags):
            _write_anew(connection, table, row, f"{row[0]} {secrets.token_hex(8)}")
            count += 1
    return count


def seal_anew(connection: sa.Connection) -> int:
    """Writes all rows as the keys of people say now; returns how many."""
    count = 0
    for table, row, _ in list(_heads(connection)):
        owner = row[0] if table is _unknowns else row.identity_id or row.unknown_id or row.sighting_id
        _write_anew(connection, table, row, owner)
        count += 1
    return count


def _heads(connection: sa.Connection) -> Iterator[tuple[sa.Table, Any, set[str]]]:
    """Every row, by its ids, with the keys by which it is sealed."""
    for table, names in _OWN:
        keys = [table.c.unknown_id]
        if table is not _unknowns:
            keys = [table.c.sighting_id, table.c.identity_id, table.c.unknown_id]
        if table is _denials:
            keys.append(table.c.ordinal)
        heads = [_head(table.c[name]).label(f"head_of_{name}") for name in names]
        for row in connection.execute(sa.select(*keys, *heads)):
            values = row[len(keys) :]
            yield table, row, {tag_in(value) for value in values if value}


def _head(column: sa.Column[Any]) -> Any:
    is_bytes = column.name == "template"
    plain = sa.type_coerce(column, sa.LargeBinary if is_bytes else sa.Text)
    return sa.func.substr(plain, 1, BYTES_HEAD if is_bytes else TEXT_HEAD)


def _write_anew(connection: sa.Connection, table: sa.Table, row: Any, owner: str) -> None:
    names = dict(_OWN)[table]
    more = ["account"] if table is _sightings else []
    of_it = table.c[row._fields[0]] == row[0]
    if table is _denials:
        of_it &= table.c.ordinal == row.ordinal
    found = connection.execute(sa.select(*(table.c[name] for name in (*names, *more))).where(of_it)).one_or_none()
    if found is None:
        return
    values: dict[str, Any] = {name: Owned(owner, getattr(found, name)) for name in names if getattr(found, name)}
    connection.execute(table.update().where(of_it).values(values | {name: getattr(found, name) for name in more}))
