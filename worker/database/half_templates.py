"""The templates of past sightings once more, in 16 bits, where a PostgreSQL database has the extension pgvector.

The server compares them by itself, and sends the few that are near. The table is no part of a layout: it is made of the
templates, as an index is, and a database without it gives the same answers. A template that is sealed, or of no
length that the rounding is known for, has a row that holds nothing, and so is read itself in each search. One that was
written by somebody who may not write here has no row.

A row goes with its sighting, and also when the template of the sighting changes. The server itself sees to both.
"""

import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import sqlalchemy as sa

from worker.database.database import Database
from worker.database.owned import seals
from worker.database.schema import sightings
from worker.people_keys import is_sealed
from worker.types import Vectors

TABLE: Final = "half_templates"
half_templates: Final = sa.Table(
    TABLE, sa.MetaData(), sa.Column("sighting_id", sa.Text, primary_key=True), sa.Column("template", sa.LargeBinary)
)
_MOST_NUMBERS: Final = 16_000
"""The longest halfvec that pgvector stores."""
_LONGEST: Final = 1.001
_ROUNDING: Final = 2e-3
"""How far the product of two vectors that are no longer than ``_LONGEST`` may be from the exact one, if both are in 16
bits. Each number is right to 2**-11 of itself, so the product is to 2**-10; what float32 adds is far less."""
_MOST_NEAR: Final = 100_000
"""Where more is near, all templates are read: to fetch them one by one would take longer."""
_AT_ONCE: Final = 5000
_DROP: Final = "DROP TABLE IF EXISTS facestream.half_templates"
_MAKE: Final = (
    """CREATE TABLE IF NOT EXISTS facestream.half_templates (
        sighting_id text PRIMARY KEY REFERENCES facestream.sightings ON DELETE CASCADE,
        template EXTENSION.halfvec
    ) WITH (toast_tuple_target = 8160)""",
    "ALTER TABLE facestream.half_templates ALTER COLUMN template DROP NOT NULL",  # as it was before
    # By it, the server counts the templates in a moment.
    """CREATE INDEX IF NOT EXISTS sightings_with_template ON facestream.sightings (sighting_id)
        WHERE template IS NOT NULL""",
    """CREATE OR REPLACE FUNCTION facestream.forget_half_template() RETURNS trigger LANGUAGE plpgsql
        SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
        BEGIN
            IF to_regclass('facestream.half_templates') IS NOT NULL THEN
                DELETE FROM facestream.half_templates WHERE sighting_id = OLD.sighting_id;
            END IF;
            RETURN NULL;
        END $$""",
    "DROP TRIGGER IF EXISTS template_changed ON facestream.sightings",
    """CREATE TRIGGER template_changed AFTER UPDATE OF template ON facestream.sightings FOR EACH ROW
        WHEN (OLD.template IS DISTINCT FROM NEW.template) EXECUTE FUNCTION facestream.forget_half_template()""",
)
_EXTENSION: Final = """
    SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
    WHERE e.extname = 'vector' AND to_regtype(quote_ident(n.nspname) || '.halfvec') IS NOT NULL
"""
_IS_OWNER: Final = """
    SELECT bool_and(pg_has_role(relowner, 'USAGE')) FROM pg_class
    WHERE oid IN (to_regclass('facestream.sightings'), to_regclass('facestream.half_templates'))
"""
_COLUMN: Final = """
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid JOIN pg_namespace n ON n.oid = t.typnamespace
    WHERE a.attrelid = to_regclass('facestream.half_templates') AND a.attname = 'template' AND NOT a.attisdropped
"""
_MAY: Final = f"""
    SELECT quote_ident(n.nspname) {_COLUMN} AND NOT a.attnotnull AND has_table_privilege(a.attrelid, %s)
"""
_ADD: Final = "INSERT INTO facestream.half_templates (sighting_id, template) VALUES (%s, %b) ON CONFLICT DO NOTHING"
# The plan with several processes looks dearer than it is: the server expects a third of the rows to be near.
_SCAN: Final = "SET LOCAL jit = off; SET LOCAL parallel_setup_cost = 0; SET LOCAL parallel_tuple_cost = 0"
_NEAR: Final = """
    SELECT sighting_id FROM facestream.half_templates
    WHERE template IS NULL OR CASE WHEN EXTENSION.vector_dims(template) = %(numbers)s
    THEN EXTENSION.halfvec_negative_inner_product(template, %(probe)b) <= %(most)s END LIMIT %(limit)s
"""


def make(connection: sa.Connection) -> None:
    """Makes the table if it is not there, the database has the extension, and this user owns the tables."""
    if _may(connection, "INSERT") or not connection.exec_driver_sql(_IS_OWNER).scalar():
        return
    if extension := _first(connection, _EXTENSION):
        if not _first(connection, f"SELECT 1 {_COLUMN}"):  # what is left of it where the extension was dropped
            connection.exec_driver_sql(_DROP)
        for statement in _MAKE:
            connection.exec_driver_sql(statement.replace("EXTENSION", extension))


def fill(database: Database) -> None:
    """Adds a row for each template that has none, if there is the table, and this user owns it.

    Raises:
        DatabaseError: the database cannot be used.
    """
    after = ""
    while True:
        with database.writing() as connection:
            if not connection.exec_driver_sql(_IS_OWNER).scalar() or not _may(connection, "INSERT"):
                return
            has_none = ~sa.exists().where(half_templates.c.sighting_id == sightings.c.sighting_id)
            query = sa.select(sightings.c.sighting_id, sa.type_coerce(sightings.c.template, sa.LargeBinary))
            query = query.where(sightings.c.sighting_id > after, sightings.c.template.is_not(None), has_none)
            # Nobody changes one of them until its row is there.
            query = query.order_by(sightings.c.sighting_id).limit(_AT_ONCE).with_for_update(of=sightings)
            rows = connection.execute(query).all()
            raws = {row[0]: bytes(row[1]) for row in rows}
            add(connection, {key: None if is_sealed(raw) else _half_of(raw) for key, raw in raws.items()})
        if len(rows) < _AT_ONCE:
            return
        after = rows[-1][0]


def drop(database: Database) -> None:
    """Takes the table away, for a restore: it hangs on the table of sightings.

    Raises:
        DatabaseError: the database cannot be used, or this user may not do it.
    """
    with database.writing() as connection:
        connection.exec_driver_sql(_DROP)


def is_there(connection: sa.Connection) -> bool:
    """Whether there is the table, and this user may read it."""
    return connection.dialect.name != "sqlite" and bool(_may(connection, "SELECT"))


def halves_of(connection: sa.Connection, templates: Mapping[str, bytes]) -> dict[str, bytes | None]:
    """What :func:`add` is to be given for these templates (float32) by sighting_id; nothing if there is no such table
    here."""
    if connection.dialect.name == "sqlite" or not templates or not _may(connection, "INSERT"):
        return {}
    sealed = seals(connection.dialect)
    return {key: None if sealed else _half_of(raw) for key, raw in templates.items()}


def add(connection: sa.Connection, halves: Mapping[str, bytes | None]) -> None:
    """Adds rows for sightings that are stored, with the templates that they have there; None for one that is to be read
    itself."""
    if halves:
        with _cursor(connection) as cursor:
            cursor.executemany(_ADD, list(halves.items()))


def near(connection: sa.Connection, probe: Vectors, threshold: float) -> list[str] | None:
    """The ids of all sightings in the table whose template may have a product of at least ``threshold`` with ``probe``
    float32 (d,): also of those that are to be read themselves, and of some that are a little below. None: the table
    cannot tell, all templates are to be read."""
    half = _half_of(probe.tobytes())
    if half is None or not (extension := _may(connection, "SELECT")):
        return None
    given = {"numbers": len(probe), "probe": half, "most": _ROUNDING - threshold}
    given["limit"] = _MOST_NEAR + 1
    with _cursor(connection) as cursor:
        cursor.execute(_SCAN)
        cursor.execute(_NEAR.replace("EXTENSION", extension), given)
        found = [sighting_id for (sighting_id,) in cursor.fetchall()]
    return found if len(found) <= _MOST_NEAR else None


def has_all(connection: sa.Connection) -> bool:
    """Whether each template has a row. No row is of a sighting without a template."""
    rows = sa.select(sa.func.count()).select_from(half_templates).scalar_subquery()
    templates = sa.select(sa.func.count()).where(sightings.c.template.is_not(None)).scalar_subquery()
    return bool(connection.execute(sa.select(rows == templates)).scalar_one())


def _half_of(raw: bytes) -> bytes | None:
    """A template as pgvector sends and takes a halfvec: how many numbers (2 bytes), 2 bytes of nothing, the numbers.
    None if it is damaged, or so long that the rounding might be larger than ``_ROUNDING``."""
    if not 0 < len(raw) <= 4 * _MOST_NUMBERS or len(raw) % 4:
        return None
    vector = np.frombuffer(raw, "<f4")
    with np.errstate(all="ignore"):
        if not np.linalg.norm(vector) <= _LONGEST:
            return None
    return struct.pack(">HH", len(vector), 0) + vector.astype(">f2").tobytes()


def _may(connection: sa.Connection, right: str) -> str:
    """Where the functions of the extension are; "" if there is no such table, or this user has not the right to it."""
    return _first(connection, _MAY, right)


def _first(connection: sa.Connection, query: str, *given: str) -> str:
    row = connection.exec_driver_sql(query, given).first()
    return "" if row is None else str(row[0])


@contextmanager
def _cursor(connection: sa.Connection) -> Iterator[Any]:
    """A cursor of psycopg that sends bytes in binary form, and lets the server find what they are."""
    from psycopg.types.string import BytesBinaryDumper

    untyped = type("Untyped", (BytesBinaryDumper,), {"oid": 0})
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor:
        cursor.adapters.register_dumper(bytes, untyped)
        yield cursor
