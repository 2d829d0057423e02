"""Which remembered templates are like a vector: all of them are compared.

SQLite gives its rows one by one. PostgreSQL sends them by COPY in binary form: as rows of a result it would write each
byte as two digits, and both sides would spend most of their time on that. With pgvector it compares most of them
itself, in 16 bits, and sends those alone that are near.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from worker.database import half_templates, schema
from worker.database.database import Database
from worker.database.owned import opened
from worker.history.records import Vector
from worker.history.rows import batched
from worker.people_keys import SEALED_BYTES
from worker.types import Vectors

_ROUNDING: Final = 1e-4
"""How far a similarity in float32 may be from the exact one, with a lot to spare."""

_Templates = Iterator[tuple[Sequence[Any], bytes]]
"""Pieces of the past: the ids of some sightings, and their templates one after the other."""


def like(
    database: Database,
    connection: sa.Connection,
    probe: Vector,
    threshold: float,
    conditions: Sequence[sa.ColumnElement[bool]],
    chunk_rows: int,
) -> list[tuple[float, str]]:
    """The similarities and ids of the sightings that meet ``conditions`` and whose template, float32 of the length of
    ``probe`` (d,), has a cosine of at least ``threshold`` to it: most similar first, and then by id.

    Each similarity is computed in float64 from the template alone, so it does not depend on what is compared beside it.
    """
    found: list[tuple[float, str]] = []
    exact = probe.astype(np.float64)
    read = _rows_of_sqlite if database.is_sqlite else _rows_of_postgres
    for ids, templates in read(database, connection, probe, threshold, conditions, chunk_rows):
        vectors: Vectors = np.frombuffer(templates, "<f4").reshape(-1, len(probe))
        with np.errstate(all="ignore"):  # a damaged template may hold anything; it is near nobody
            near = np.flatnonzero(vectors @ probe >= threshold - _ROUNDING)
        for row in near.tolist():
            similarity = float(vectors[row].astype(np.float64) @ exact)
            if similarity >= threshold:
                found.append((similarity, _text(ids[row])))
    return sorted(found, key=lambda hit: (-hit[0], hit[1]))


def _rows_of_sqlite(
    _database: Database,
    connection: sa.Connection,
    probe: Vector,
    _threshold: float,
    conditions: Sequence[sa.ColumnElement[bool]],
    chunk_rows: int,
) -> _Templates:
    columns = schema.sightings.c
    query = sa.select(columns.sighting_id, columns.template).where(*conditions)
    with connection.execute(query.execution_options(yield_per=chunk_rows)) as rows:
        for chunk in batched(rows, chunk_rows):
            # A damaged file may have something else in the place of a template, or of an id.
            sound = [row for row in chunk if isinstance(row.sighting_id, str) and isinstance(row.template, bytes)]
            sound = [row for row in sound if len(row.template) == 4 * len(probe)]
            yield [row.sighting_id for row in sound], b"".join(row.template for row in sound)


def _rows_of_postgres(
    database: Database,
    connection: sa.Connection,
    probe: Vector,
    threshold: float,
    conditions: Sequence[sa.ColumnElement[bool]],
    chunk_rows: int,
) -> _Templates:
    sighting_id = schema.sightings.c.sighting_id
    near = half_templates.near(connection, probe, threshold)
    if near is None:
        yield from _copied(database, connection, len(probe), conditions, chunk_rows)
        return
    for first in range(0, len(near), chunk_rows):
        is_near = sighting_id == sa.any_(sa.literal(near[first : first + chunk_rows], ARRAY(sa.Text)))
        yield from _copied(database, connection, len(probe), [*conditions, is_near], chunk_rows)
    if not half_templates.has_all(connection):
        has_none = ~sa.exists().where(half_templates.half_templates.c.sighting_id == sighting_id)
        yield from _copied(database, connection, len(probe), [*conditions, has_none], chunk_rows)


def _copied(
    database: Database,
    connection: sa.Connection,
    dimension: int,
    conditions: Sequence[sa.ColumnElement[bool]],
    chunk_rows: int,
) -> _Templates:
    columns = schema.sightings.c
    length = 4 * dimension
    has = sa.func.octet_length(columns.template)
    query = sa.select(columns.template, columns.sighting_id).where(
        *conditions, sa.or_(has == length, has == length + SEALED_BYTES)
    )
    rows = database.copied(connection, query)
    for chunk in batched(rows, chunk_rows):
        split = [_template_and_id(row) for row in chunk]
        # What is sealed by a key that was destroyed opens to nothing.
        split = [both for both in split if len(both[0]) == length]
        yield [sighting_id for _, sighting_id in split], b"".join([template for template, _ in split])


def _template_and_id(row: bytes) -> tuple[bytes, bytes]:
    """Of a row: the number of its fields (2 bytes), then each field after its length (4 bytes)."""
    end = 6 + int.from_bytes(row[2:6])
    return opened(row[6:end]), row[end + 4 :]


def _text(sighting_id: str | bytes) -> str:
    return sighting_id.decode() if isinstance(sighting_id, bytes) else sighting_id
