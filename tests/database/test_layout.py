"""Layouts of databases: every earlier one becomes the newest, and what is not ours stays as it is."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.support.past import AXES
from tests.support.postgres import PostgresServer
from tests.support.repository import REPOSITORY
from worker.database.address import parse_database_url
from worker.database.database import Database, open_postgres, open_sqlite
from worker.database.inspection import inspect
from worker.database.layout import APPLICATION_ID, layout_of, missing_parts, require_newest, upgrade
from worker.database.schema import LAYOUT, SCHEMA
from worker.errors import DatabaseError, HistoryError
from worker.history.store import FILE, History

LAYOUTS = REPOSITORY / "tests" / "history" / "layouts"


@pytest.fixture
def server_database(postgres_url: str) -> Iterator[Database]:
    database = open_postgres(parse_database_url(postgres_url))
    yield database
    database.close()


def earlier_file(folder: Path, number: int) -> Path:
    folder.mkdir(parents=True)
    path = folder / FILE
    connection = sqlite3.connect(path)
    connection.executescript((LAYOUTS / f"{number}.sql").read_text())
    connection.close()
    return path


def shape(database: Database) -> dict[str, Any]:
    """All tables with their columns, keys and indexes, without what the two ways of making them write differently."""
    with database.reading() as connection:
        inspector = sa.inspect(connection)
        schema = None if database.is_sqlite else SCHEMA
        return {
            table: (
                [(c["name"], c["nullable"] or c["name"] in keys_of(inspector, table, schema),
                  str(c["type"]).replace("REAL", "DOUBLE").replace("BIGINT", "INTEGER"))
                 for c in inspector.get_columns(table, schema=schema)],
                keys_of(inspector, table, schema),
                sorted((str(i["name"]), tuple(i["column_names"])) for i in inspector.get_indexes(table, schema=schema)),
            )
            for table in inspector.get_table_names(schema=schema)
        }  # fmt: skip


def keys_of(inspector: sa.Inspector, table: str, schema: str | None) -> list[str]:
    return list(inspector.get_pk_constraint(table, schema=schema)["constrained_columns"])


def test_there_is_a_file_of_every_layout() -> None:
    assert {int(path.stem) for path in LAYOUTS.glob("*.sql")} == set(range(1, LAYOUT + 1))


@pytest.mark.parametrize("number", range(1, LAYOUT + 1))
def test_a_file_of_an_earlier_layout_keeps_all_that_was_in_it(tmp_path: Path, number: int) -> None:
    earlier_file(tmp_path / "old", number)
    with History.open(tmp_path / "old") as past:
        first, second, third, fourth = past.sightings()
        assert [first.sighting_id, third.unknown_id, fourth.identity_name] == ["door_1", "u-1", "Zoë O'Hara"]
        assert (second.identity_name, second.corrections, second.template) == ("Zoë O'Hara", 1, None)
        assert third.template is not None
        assert third.template.tolist() == AXES[2].tolist()
        assert [person.unknown_id for person in past.unknowns()[0]] == ["u-1"]
        assert [(tally.reason, tally.tracks, tally.faces) for tally in past.tallies()] == [("too_small", 2, 31)]
    old, new = open_sqlite(tmp_path / "old" / FILE), open_sqlite(tmp_path / "new.sqlite3")
    assert upgrade(new) == (0, LAYOUT)
    assert layout_of(old) == LAYOUT
    assert shape(old) == shape(new)
    for database in (old, new):
        assert missing_parts(database) == []
        database.close()


def test_a_server_gets_the_same_tables_step_by_step(server_database: Database) -> None:
    assert layout_of(server_database) == 0
    with pytest.raises(DatabaseError, match=r"has no tables of facestream: .*facestream database upgrade"):
        require_newest(server_database)
    assert upgrade(server_database) == (0, LAYOUT)
    assert upgrade(server_database) == (LAYOUT, LAYOUT)
    require_newest(server_database)
    assert missing_parts(server_database) == []
    found = inspect(server_database)
    assert found.problems == ()
    assert found.server.startswith("PostgreSQL ")
    assert found.rows["sightings"] == 0


def test_a_database_of_another_layout_is_named(server_database: Database, postgres: PostgresServer) -> None:
    upgrade(server_database)

    def says(layout: str) -> None:
        postgres.execute(f"UPDATE facestream.facestream_layout SET version_num = '{layout}'", database="test")

    says("99")
    for refused in (require_newest, upgrade):
        with pytest.raises(DatabaseError, match=r"newer version of facestream \(layout 99"):
            refused(server_database)
    assert "upgrade facestream" in inspect(server_database).problems[0]
    says("torn")
    with pytest.raises(DatabaseError, match="restore it from a backup"):
        require_newest(server_database)
    says(str(LAYOUT))
    postgres.execute("ALTER TABLE facestream.sightings DROP COLUMN quality", database="test")
    assert inspect(server_database).problems == (
        f"{server_database.label} lacks sightings.quality: restore it from a backup",
    )


def test_the_tables_of_another_program_stay_untouched(server_database: Database, postgres: PostgresServer) -> None:
    postgres.execute("CREATE TABLE people (name text)", "INSERT INTO people VALUES ('theirs')", database="test")
    upgrade(server_database)
    assert postgres.execute("SELECT name FROM people", database="test") == [("theirs",)]
    postgres.execute(
        f"DROP SCHEMA {SCHEMA} CASCADE", f"CREATE SCHEMA {SCHEMA}", f"CREATE TABLE {SCHEMA}.theirs (a int)",
        database="test",
    )  # fmt: skip
    with pytest.raises(DatabaseError, match="that is not of this program"):
        upgrade(server_database)
    assert postgres.execute(f"SELECT count(*) FROM {SCHEMA}.theirs", database="test") == [(0,)]


@pytest.mark.parametrize("number", [0, 0x1234])
def test_a_file_of_another_program_stays_untouched(tmp_path: Path, number: int) -> None:
    connection = sqlite3.connect(tmp_path / FILE)
    connection.executescript(f"PRAGMA application_id = {number}; CREATE TABLE theirs (a int);")
    connection.close()
    with pytest.raises(HistoryError, match="belongs to another program"):
        History.open(tmp_path)
    connection = sqlite3.connect(tmp_path / FILE)
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]
    connection.close()
    assert number != APPLICATION_ID


def test_two_who_upgrade_at_once_do_it_once(postgres_url: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    databases = [open_postgres(parse_database_url(postgres_url)) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        done = sorted(pool.map(upgrade, databases))
    assert done == [(0, LAYOUT), *[(LAYOUT, LAYOUT)] * 3]
    for database in databases:
        database.close()
