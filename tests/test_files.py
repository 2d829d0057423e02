"""Files are their owner's alone, and a database keeps its locks whatever else the process opens."""

import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from worker.events.spool import Spool, StateTable
from worker.files import connect_sqlite

ONE_LOOK = (
    "import sqlite3, sys; connection = sqlite3.connect(sys.argv[1])\n"
    "connection.execute('SELECT count(*) FROM sqlite_master').fetchall(); connection.close()"
)
"""What another process does: opens, reads, closes; the last one to close deletes the log."""


def look(path: Path) -> None:
    subprocess.run([sys.executable, "-c", ONE_LOOK, str(path)], check=True)


def test_a_second_connection_takes_no_lock_from_the_first(tmp_path: Path) -> None:
    path = tmp_path / "some.sqlite3"
    with closing(connect_sqlite(path, busy_timeout_s=5)) as first:
        first.execute("PRAGMA journal_mode = WAL")
        first.execute("CREATE TABLE rows (value INTEGER)")
        with closing(connect_sqlite(path, busy_timeout_s=5)):
            look(path)
            first.execute("INSERT INTO rows VALUES (1)")
            assert Path(f"{path}-wal").exists()
    with closing(sqlite3.connect(path)) as past:
        assert past.execute("SELECT value FROM rows").fetchall() == [(1,)]


def test_the_outbox_that_is_opened_twice_keeps_its_log(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite3"
    with closing(Spool.open(path)) as spool, closing(Spool.open(path)) as other:
        look(path)
        StateTable(spool).save("door", 1, "{}")
        assert StateTable(other).load("door") == "{}"
        assert Path(f"{path}-wal").exists()


def test_the_file_and_those_beside_it_are_the_owners(tmp_path: Path) -> None:
    path = tmp_path / "some.sqlite3"
    with closing(connect_sqlite(path, busy_timeout_s=5)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE rows (value INTEGER)")
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert modes == dict.fromkeys(("some.sqlite3", "some.sqlite3-wal", "some.sqlite3-shm"), 0o600)
