"""Files are their owner's alone, and a database keeps its locks whatever else the process opens."""

import errno
import os
import re
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.galleries import DIGEST, DIMENSION, MODEL, sample
from worker.errors import GalleryError
from worker.events.spool import Spool, StateTable
from worker.files import connect_sqlite
from worker.gallery.folder import FolderGallery

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


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.ENOLCK, "No locks available"), "file system gives no locks (No locks available)"),
        (OSError(errno.EOPNOTSUPP, "Operation not supported"), "file system gives no locks"),
        (NotImplementedError("no flock"), "file system gives no locks (no flock)"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device; make room"),
        (OSError(errno.EROFS, "Read-only file system"), "mount it for writing"),
    ],
)
def test_a_gallery_that_is_not_writable_is_told_by_its_reason(
    error: Exception, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object) -> None:
        raise error

    gallery = FolderGallery.create(tmp_path / "g", MODEL, DIGEST, DIMENSION)
    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(GalleryError, match=re.escape(says)) as told:
        gallery.add([sample("anna", 1)])
    assert "permissions" not in str(told.value)


@pytest.mark.parametrize("closed", ["2>&-", "<&- 2>&-", ">&- 2>&-", ">&-"])
def test_a_stream_that_is_closed_ends_no_command(closed: str, tmp_path: Path) -> None:
    FolderGallery.create(tmp_path / "g", MODEL, DIGEST, DIMENSION).add([sample("anna", 1)])
    command = f"{sys.executable} -m worker gallery list --gallery {tmp_path / 'g'} --json {closed}"
    ended = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert bool(ended.stdout) == (">&-" not in closed.replace("2>&-", ""))


def test_what_is_opened_later_does_not_take_the_place_of_a_closed_stream(tmp_path: Path) -> None:
    """Else a library that writes to standard error would write into a database."""
    program = "from worker.__main__ import main; import os, sys; sys.argv = ['facestream', 'version']\n"
    program += "try: main()\nexcept SystemExit: pass\n"
    program += f"number = os.open({str(tmp_path / 'file')!r}, os.O_CREAT); print(number)"
    command = f'{sys.executable} -c "$PROGRAM" 2>&-'
    environment = os.environ | {"PROGRAM": program}
    ended = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, timeout=60, check=True, env=environment
    )
    assert int(ended.stdout.split()[-1]) > 2
