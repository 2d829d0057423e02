"""Which layout a database has, and how it gets the newest one.

A worker brings its own SQLite file to the newest layout by itself. A PostgreSQL database belongs to many: it changes
by ``facestream database upgrade`` alone. Either way the change is one transaction, so no database is left in between.
"""

from pathlib import Path
from typing import Final

import sqlalchemy as sa

from worker.database import half_templates
from worker.database.database import Database
from worker.database.schema import LAYOUT, SCHEMA, VERSION_TABLE, known, layout, newest, past
from worker.errors import DatabaseError

APPLICATION_ID: Final = 0x66616365
"""Marks a SQLite file as ours."""
_LOCK: Final = 0x66616365
"""The number of the lock that lets one process at a time change the layout of a PostgreSQL database."""


def layout_of(database: Database) -> int:
    """The number of the database's layout; 0 for an empty one.

    Raises:
        DatabaseError: it cannot be read, or its tables are not of this program.
    """
    with database.reading() as connection:
        return _layout_in(database, connection)


def require_newest(database: Database) -> None:
    """Does nothing if the layout is the newest.

    Raises:
        DatabaseError: it is not; the message says what to do.
    """
    found = layout_of(database)
    _refuse_newer(database, found)
    if found == 0:
        raise DatabaseError(
            f"{database.label} has no tables of facestream: make them with 'facestream database upgrade'"
        )
    if found < LAYOUT:
        raise DatabaseError(
            f"{database.label} has layout {found}, this version needs {LAYOUT}: run 'facestream database upgrade'"
        )


def upgrade(database: Database) -> tuple[int, int]:
    """Brings the database to the newest layout, in one transaction; returns the layout before and after. Where
    PostgreSQL has the extension pgvector, it also gets :mod:`worker.database.half_templates`.

    Raises:
        DatabaseError: it has a newer one, is not ours, or refuses; it stays as it was.
    """
    with database.writing() as connection:
        if not database.is_sqlite:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        found = _layout_in(database, connection)
        _refuse_newer(database, found)
        if found < LAYOUT:
            if database.is_sqlite and found == 0:
                _create(connection)
            else:
                _migrate(database, connection, found)
            if database.is_sqlite:
                # Programs of before look at this number alone, and refuse one that they do not know.
                connection.exec_driver_sql(f"PRAGMA user_version = {LAYOUT}")
                connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
        if not database.is_sqlite:
            half_templates.make(connection)
    if not database.is_sqlite:
        half_templates.fill(database)
    return found, LAYOUT


def tables_of(database: Database) -> list[sa.Table]:
    """The tables of the newest layout."""
    return past.sorted_tables if database.is_sqlite else [*known.sorted_tables, *past.sorted_tables]


def missing_parts(database: Database) -> list[str]:
    """The tables and columns (``table.column``) that the newest layout has and the database has not.

    Raises:
        DatabaseError: it cannot be read.
    """
    missing = []
    with database.reading() as connection:
        inspector = sa.inspect(connection)
        schema = None if database.is_sqlite else SCHEMA
        tables = set(inspector.get_table_names(schema=schema))
        for table in tables_of(database):
            if table.name not in tables:
                missing.append(table.name)
                continue
            columns = {str(column["name"]) for column in inspector.get_columns(table.name, schema=schema)}
            missing += [f"{table.name}.{column.name}" for column in table.columns if column.name not in columns]
    return missing


def _layout_in(database: Database, connection: sa.Connection) -> int:
    if database.is_sqlite:
        (number,) = connection.exec_driver_sql("PRAGMA user_version").one()
        (owner,) = connection.exec_driver_sql("PRAGMA application_id").one()
        if owner not in (0, APPLICATION_ID) or (owner == 0 and sa.inspect(connection).get_table_names()):
            raise DatabaseError(f"{database.label} belongs to another program: name another folder")
        return int(number)
    if not connection.execute(sa.select(sa.func.to_regclass(f"{SCHEMA}.{VERSION_TABLE}").is_not(None))).scalar_one():
        if sa.inspect(connection).get_table_names(schema=SCHEMA):
            raise DatabaseError(
                f"{database.label} has a schema '{SCHEMA}' that is not of this program: use another database"
            )
        return 0
    numbers = connection.execute(sa.select(layout.c.version_num)).scalars().all()
    if len(numbers) != 1 or not numbers[0].isdecimal():
        raise DatabaseError(f"{database.label} says of itself the layout {numbers}: restore it from a backup")
    return int(numbers[0])


def _refuse_newer(database: Database, found: int) -> None:
    if found > LAYOUT:
        raise DatabaseError(
            f"{database.label} was written by a newer version of facestream (layout {found}, this version reads "
            f"{LAYOUT}); upgrade facestream, or name another one"
        )


def _create(connection: sa.Connection) -> None:
    """The newest layout at once: a worker's first start needs no Alembic. A test holds it equal to the steps."""
    past.create_all(connection)
    connection.execute(newest.insert(), {"revision": 0})


def _migrate(database: Database, connection: sa.Connection, found: int) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.attributes["facestream"] = {
        "connection": connection,
        "version_table": VERSION_TABLE,
        "version_table_schema": None if database.is_sqlite else SCHEMA,
    }
    if not database.is_sqlite:
        connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
        connection.exec_driver_sql(f"SET LOCAL search_path TO {SCHEMA}")
        command.upgrade(config, "head")
        return
    # Alembic's own table lives as long as the steps: two numbers of one layout could contradict each other.
    layout.create(connection)
    connection.execute(layout.insert(), {"version_num": str(found)})
    command.upgrade(config, "head")
    layout.drop(connection)
