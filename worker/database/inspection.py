"""What ``facestream database check`` says: the layout of a database, how much is in it, and what is wrong."""

from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from worker.database.database import Database
from worker.database.half_templates import half_templates, is_there
from worker.database.layout import layout_of, missing_parts, tables_of
from worker.database.schema import LAYOUT, newest


@dataclass(frozen=True, slots=True)
class Inspection:
    """``rows``: how many rows each table has; ``problems``: one line each, empty where all is well."""

    label: str
    server: str
    layout: int
    newest_layout: int
    size_bytes: int
    rows: dict[str, int]
    problems: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self) | {"problems": list(self.problems)}


def inspect(database: Database) -> Inspection:
    """Looks at ``database``; nothing is changed.

    Raises:
        DatabaseError: it cannot be read, or is another program's.
    """
    found = layout_of(database)
    missing = [] if found == 0 else missing_parts(database)
    problems = []
    if 0 < found < LAYOUT and not missing:
        problems.append(
            f"{database.label} says that it has layout {found}, but has all that layout {LAYOUT} has: the number was "
            "changed, or only a part was restored: restore it from a backup"
        )
    elif found < LAYOUT:
        problems.append(
            f"{database.label} has {f'layout {found}' if found else 'no tables'}, this version needs layout {LAYOUT}: "
            "run 'facestream database upgrade'"
        )
    elif found > LAYOUT:
        problems.append(f"{database.label} has layout {found}, this version reads {LAYOUT}: upgrade facestream")
    elif missing:
        problems.append(f"{database.label} lacks {', '.join(missing)}: restore it from a backup")
    there = [] if found == 0 else [table for table in tables_of(database) if table.name not in missing]
    with database.reading() as connection:
        if is_there(connection):
            there.append(half_templates)
        server, size = _server(database, connection)
        if database.is_sqlite:
            (sound,) = connection.exec_driver_sql("PRAGMA quick_check").one()
            if sound != "ok":
                problems.append(f"{database.label} is damaged ({sound}): restore it from a backup")
        rows = {
            table.name: int(connection.execute(sa.select(_count(table)).select_from(table)).scalar_one())
            for table in there
            if table is not newest
        }
    return Inspection(database.label, server, found, LAYOUT, size, rows, tuple(problems))


def _count(table: sa.Table) -> sa.ColumnElement[int]:
    """How many rows there are; how many templates in 16 bits, where some rows hold none."""
    return sa.func.count(*([table.c.template] if table is half_templates else []))


def _server(database: Database, connection: sa.Connection) -> tuple[str, int]:
    """What serves the database, and its size in bytes."""
    if database.is_sqlite:
        (version,) = connection.exec_driver_sql("SELECT sqlite_version()").one()
        (pages,) = connection.exec_driver_sql("PRAGMA page_count").one()
        (page,) = connection.exec_driver_sql("PRAGMA page_size").one()
        return f"SQLite {version}", int(pages) * int(page)
    version, size = connection.exec_driver_sql(
        "SELECT current_setting('server_version'), pg_database_size(current_database())"
    ).one()
    return f"PostgreSQL {version.split()[0]}", int(size)
