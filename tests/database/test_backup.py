"""A backup of a server is put back while others write, whatever language the server speaks."""

import os
import shutil
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.past import sighting
from tests.support.postgres import PostgresServer, with_tables
from tests.support.waiting import eventually
from worker.database.address import parse_database_url
from worker.database.backup import back_up, restore
from worker.database.database import open_postgres
from worker.errors import DatabaseError
from worker.history.store import History

WEEK_S = 7 * 86_400.0


@pytest.fixture
def url(postgres_url: str) -> str:
    return with_tables(postgres_url)


@pytest.fixture
def in_german(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the server says comes in German: not every machine has the files with which a server does so itself."""
    for program in ("psql", "pg_restore"):
        there = shutil.which(program)
        if there is None:
            pytest.skip(f"no {program}: install postgresql-client")
        wrapped = tmp_path / "german" / program
        wrapped.parent.mkdir(exist_ok=True)
        wrapped.write_text(
            f'#!/bin/sh\nsaid=$(mktemp)\n{there} "$@" 2>$said\ncode=$?\n'
            "sed 's/deadlock detected/Verklemmung (Deadlock) entdeckt/; s/ERROR:/FEHLER:/' $said >&2\n"
            "rm $said\nexit $code\n"
        )
        wrapped.chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{tmp_path / 'german'}:{os.environ['PATH']}")


@contextmanager
def reading(server: PostgresServer, table: str) -> Iterator[Any]:
    """A connection to the server that has read the table, in a transaction."""
    import psycopg

    with psycopg.connect(server.url("test")) as connection:
        connection.execute("SET deadlock_timeout = '300s'")
        connection.execute(f"SELECT 1 FROM facestream.{table}".encode())
        yield connection
        connection.rollback()


def remembered(url: str) -> list[str]:
    with History.open(url) as past:
        return [one.sighting_id for one in past.sightings()]


def remember(url: str, number: int) -> None:
    with History.open(url) as past:
        past.write([sighting(number)], keep_s=WEEK_S, remember_s=WEEK_S)


@pytest.mark.usefixtures("in_german")
def test_a_restore_that_waits_for_one_who_waits_for_it_is_made_again(
    url: str, postgres: PostgresServer, tmp_path: Path
) -> None:
    address = parse_database_url(url)
    database = open_postgres(address)
    remember(url, 1)
    back_up(database, tmp_path / "backup", address)
    remember(url, 2)
    done = threading.Thread(target=restore, args=(database, tmp_path / "backup", address))
    # A restore takes these tables in this order: unknowns, tallies, batches.
    with reading(postgres, "batches") as other:
        reads = threading.Thread(target=other.execute, args=("SELECT 1 FROM facestream.unknowns",))
        with reading(postgres, "tallies"):
            done.start()
            eventually(lambda: postgres.waiting() == 1)
            reads.start()
            eventually(lambda: postgres.waiting() == 2)
        reads.join(60)
        assert not reads.is_alive()
    done.join(120)
    assert not done.is_alive()
    assert remembered(url) == ["door_1"]
    eventually(lambda: postgres.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = 'test'") == [(1,)])
    database.close()


@pytest.mark.usefixtures("in_german")
def test_a_restore_that_the_server_refuses_changes_nothing_and_says_what_helps(
    url: str, postgres: PostgresServer, tmp_path: Path
) -> None:
    address = parse_database_url(url)
    database = open_postgres(address)
    remember(url, 1)
    back_up(database, tmp_path / "backup", address)
    database.close()
    remember(url, 2)
    postgres.execute(
        "DROP OWNED BY a_guest" if postgres.execute("SELECT 1 FROM pg_roles WHERE rolname = 'a_guest'") else "SELECT 1",
        "DROP USER IF EXISTS a_guest", "CREATE USER a_guest", "GRANT USAGE ON SCHEMA facestream TO a_guest",
        "GRANT ALL ON ALL TABLES IN SCHEMA facestream TO a_guest", database="test",
    )  # fmt: skip
    guest = parse_database_url(url.replace("postgres@", "a_guest@"))
    database = open_postgres(guest)
    with pytest.raises(DatabaseError, match="take a user that may create tables there"):
        restore(database, tmp_path / "backup", guest)
    database.close()
    assert remembered(url) == ["door_1", "door_2"]


def test_a_backup_that_is_cut_off_changes_nothing(url: str, tmp_path: Path) -> None:
    address = parse_database_url(url)
    database = open_postgres(address)
    for number in range(40):
        remember(url, number)
    back_up(database, tmp_path / "backup", address)
    remember(url, 40)
    whole = (tmp_path / "backup").read_bytes()
    for part in (0.5, 0.9, 0.99):
        (tmp_path / "backup").write_bytes(whole[: int(len(whole) * part)])
        with pytest.raises(DatabaseError, match="pg_restore"):
            restore(database, tmp_path / "backup", address)
        assert len(remembered(url)) == 41
    database.close()
