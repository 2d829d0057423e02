"""The SQLite file in which events wait until Redis has them, and in which the states of sightings are kept.

A commit is one write into the write-ahead log, without waiting for the disk. What was written survives any end of the
process; a power cut may cost the last seconds.
"""

import json
import sqlite3
import time
from collections.abc import Collection, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self
from uuid import uuid4

from filelock import FileLock, Timeout

from worker.errors import SinkError
from worker.files import is_of_state, private_folder
from worker.sqlite import connect_sqlite


def _name_of_clock() -> str:
    """The name of the monotonic clock, which all processes share between two starts of the machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return uuid4().hex


CLOCK = _name_of_clock()


@dataclass(frozen=True, slots=True)
class Moment:
    """``wall_s``: Unix time; ``monotonic_s``: by the monotonic clock called ``clock``."""

    wall_s: float
    monotonic_s: float
    clock: str

    @classmethod
    def at(cls, monotonic_s: float) -> "Moment":
        """When this machine's monotonic clock showed ``monotonic_s``."""
        return cls(time.time() - (time.monotonic() - monotonic_s), monotonic_s, CLOCK)

    @property
    def age_s(self) -> float:
        """Seconds since then; by the wall clock if the machine was restarted in between. Never negative."""
        if self.clock == CLOCK and (age_s := time.monotonic() - self.monotonic_s) >= 0:
            return age_s
        return max(0.0, time.time() - self.wall_s)


_FORMAT: Final = 1
_APPLICATION_ID: Final = 0x66736F62
_BUSY_TIMEOUT_S: Final = 0.05
_LOG_LIMIT_BYTES: Final = 4 << 20
_STATES_KEPT_S: Final = 86_400.0

_SCHEMA: Final = """
CREATE TABLE events (
    seq INTEGER PRIMARY KEY, camera_id TEXT NOT NULL, epoch INTEGER NOT NULL, type TEXT NOT NULL, fields TEXT NOT NULL,
    size_bytes INTEGER NOT NULL, wall_s REAL NOT NULL, monotonic_s REAL NOT NULL, clock TEXT NOT NULL,
    received_monotonic_s REAL
);
CREATE TABLE states (
    camera_id TEXT PRIMARY KEY, epoch INTEGER NOT NULL, state TEXT NOT NULL, saved_s REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE trial (id INTEGER PRIMARY KEY, filler BLOB)
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """An event that waits. ``seq`` gives the order; ``caused``: when the frame came, or the time, that caused it;
    ``received_monotonic_s``: when the frame came, None without one or if that cannot be told any more."""

    seq: int
    camera_id: str
    epoch: int
    type: str
    fields: dict[str, str]
    size_bytes: int
    caused: Moment
    received_monotonic_s: float | None


class DamagedError(Exception):
    """The file is damaged, or holds something else."""


class InUseError(SinkError):
    """Another process uses the file."""


def lock_spool(path: Path) -> FileLock:
    """The lock that the one process which uses the file holds; the system takes it back when the process ends.

    Raises:
        InUseError: another process holds it.
        OSError: its file cannot be made.
    """
    private_folder(path.parent, is_of_state)
    # It is taken by the thread that starts the worker, and given back by the one that stops it.
    lock = FileLock(path.with_suffix(".lock"), blocking=False, mode=0o600, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise InUseError(
            f"outbox {path} is in use by another process: give this worker another worker_id or state_dir, or stop "
            "the other one"
        ) from None
    return lock


class Spool:
    """The open file. It is for one thread at a time, except :meth:`write_back`.

    Its methods raise ``sqlite3.OperationalError`` where the disk fails, and ``DamagedError`` where the file does.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection

    @classmethod
    def open(cls, path: Path, *, check: bool = False) -> Self:
        """``check`` reads all of an existing file.

        Raises:
            SinkError: it was written by a newer version.
            DamagedError: it is damaged, or not an outbox.
            OSError, sqlite3.OperationalError: the disk is full, read-only, ...
        """
        private_folder(path.parent, is_of_state)
        connection = connect_sqlite(path, busy_timeout_s=_BUSY_TIMEOUT_S)
        try:
            _prepare(path, connection, check)
        except BaseException as error:
            connection.close()
            if _is_damage(error):
                raise DamagedError(str(error)) from None
            raise
        return cls(path, connection)

    def close(self) -> None:
        self._connection.close()

    @property
    def exists(self) -> bool:
        """Whether the file is still in its place."""
        return self.path.exists()

    def try_writing(self) -> None:
        """Writes a few kilobytes, and deletes them."""
        self.run("INSERT OR REPLACE INTO trial VALUES (1, zeroblob(8192))")
        self.run("DELETE FROM trial")

    def write_back(self, *, vanish: bool = False) -> None:
        """Takes the log over into the file, from any thread; writers go on meanwhile. ``vanish`` empties the log too,
        so that nothing remains of what was deleted."""
        with closing(connect_sqlite(self.path, busy_timeout_s=_BUSY_TIMEOUT_S)) as connection:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            if vanish:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    @property
    def log_bytes(self) -> int:
        """The size of the log. It holds what was not taken over into the file yet, or is not overwritten since."""
        with suppress(OSError):
            return Path(f"{self.path}-wal").stat().st_size
        return 0

    def run(self, statement: str, values: tuple[Any, ...] = ()) -> list[Any]:
        """The rows that the statement gives; each statement is a commit, unless a transaction was begun."""
        try:
            return self._connection.execute(statement, values).fetchall()
        except sqlite3.DatabaseError as error:
            if _is_damage(error):
                raise DamagedError(str(error)) from None
            raise


class EventTable:
    """The events that wait in a spool. Methods raise as those of :class:`Spool` do."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool

    def totals(self) -> tuple[int, int, int]:
        """How many events wait, their bytes, and the highest ``seq``."""
        ((events, size_bytes, newest),) = self._spool.run(
            "SELECT count(*), coalesce(sum(size_bytes), 0), coalesce(max(seq), 0) FROM events"
        )
        return events, size_bytes, newest

    def insert(self, entries: Collection[Entry]) -> None:
        """All or none."""
        rows = [
            (entry.seq, entry.camera_id, entry.epoch, entry.type, json.dumps(entry.fields), entry.size_bytes,
             entry.caused.wall_s, entry.caused.monotonic_s, entry.caused.clock, entry.received_monotonic_s)
            for entry in entries
        ]  # fmt: skip
        statement = "INSERT INTO events VALUES (?,?,?,?,?,?,?,?,?,?)"
        if len(rows) == 1:
            self._spool.run(statement, rows[0])
            return
        self._spool.run("BEGIN IMMEDIATE")
        try:
            for row in rows:
                self._spool.run(statement, row)
            self._spool.run("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error, DamagedError):
                self._spool.run("ROLLBACK")
            raise

    def oldest(self, limit: int) -> list[Entry]:
        """Up to ``limit`` events, in order."""
        return [_entry(row) for row in self._spool.run("SELECT * FROM events ORDER BY seq LIMIT ?", (limit,))]

    def delete(self, seqs: Iterable[int]) -> None:
        self._spool.run("DELETE FROM events WHERE seq IN (SELECT value FROM json_each(?))", (json.dumps(list(seqs)),))

    def after(self, seq: int, limit: int) -> list[Entry]:
        """Up to ``limit`` events that came later than the one of this number, in order."""
        return [
            _entry(row)
            for row in self._spool.run("SELECT * FROM events WHERE seq > ? ORDER BY seq LIMIT ?", (seq, limit))
        ]

    def drop_oldest(self, count: int, spared: Iterable[int]) -> list[tuple[int, str, int]]:
        """Deletes the oldest ``count`` that are not ``spared``; returns number, camera and bytes of each."""
        return self._spool.run(
            "DELETE FROM events WHERE seq IN (SELECT seq FROM events WHERE seq NOT IN (SELECT value FROM json_each(?)) "
            "ORDER BY seq LIMIT ?) RETURNING seq, camera_id, size_bytes",
            (json.dumps(list(spared)), count),
        )


class StateTable:
    """The states of the cameras' sightings in a spool. Methods raise as those of :class:`Spool` do."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool

    def save(self, camera_id: str, epoch: int, state: str | None) -> None:
        """Replaces the state of the camera; None removes it."""
        if state is None:
            self._spool.run("DELETE FROM states WHERE camera_id = ?", (camera_id,))
        else:
            self._spool.run("INSERT OR REPLACE INTO states VALUES (?,?,?,?)", (camera_id, epoch, state, time.time()))

    def all(self) -> list[tuple[str, int, str]]:
        """Camera, epoch and state of each."""
        return [(str(row[0]), int(row[1]), str(row[2])) for row in self._spool.run("SELECT * FROM states")]

    def load(self, camera_id: str) -> str | None:
        rows = self._spool.run("SELECT state FROM states WHERE camera_id = ?", (camera_id,))
        return str(rows[0][0]) if rows else None


def set_aside(path: Path) -> Path:
    """Renames a damaged file, and deletes one that was set aside before; returns its new path."""
    target = path.with_suffix(".damaged.sqlite3")
    for suffix in ("-wal", "-shm", ""):
        with suppress(FileNotFoundError):
            Path(f"{target}{suffix}").unlink()
        with suppress(FileNotFoundError):
            Path(f"{path}{suffix}").rename(f"{target}{suffix}")
    return target


def _is_damage(error: BaseException) -> bool:
    """Whether the file is damaged: SQLite raises subclasses for a failing disk, or a mistake of the caller."""
    return type(error) is sqlite3.DatabaseError or "no such table" in str(error) or "no such column" in str(error)


def _prepare(path: Path, connection: sqlite3.Connection, check: bool) -> None:
    connection.execute("PRAGMA journal_mode = WAL").fetchall()
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA secure_delete = ON").fetchall()
    # A thread that commits must not wait for the disk: another one takes the log over.
    connection.execute("PRAGMA wal_autocheckpoint = 0").fetchall()
    connection.execute(f"PRAGMA journal_size_limit = {_LOG_LIMIT_BYTES}").fetchall()
    if check and (verdict := connection.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
        raise DamagedError(str(verdict))
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > _FORMAT:
        raise SinkError(f"outbox {path} was written by a newer version of facestream; upgrade, or move it away")
    if version == 0:
        connection.execute("BEGIN IMMEDIATE")
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {_FORMAT}")
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        connection.execute("COMMIT")
    connection.execute("SELECT seq, received_monotonic_s FROM events LIMIT 1").fetchall()
    if connection.execute("SELECT 1 FROM states WHERE saved_s <= ?", (time.time() - _STATES_KEPT_S,)).fetchall():
        connection.execute("DELETE FROM states WHERE saved_s <= ?", (time.time() - _STATES_KEPT_S,))


def _entry(row: tuple[Any, ...]) -> Entry:
    seq, camera_id, epoch, kind, fields, size_bytes, wall_s, monotonic_s, clock, received_s = row
    return Entry(
        seq, camera_id, epoch, kind, _fields(fields), size_bytes, Moment(wall_s, monotonic_s, clock),
        received_s if clock == CLOCK else None,
    )  # fmt: skip


def _fields(text: str) -> dict[str, str]:
    """Empty if the text is damaged."""
    try:
        fields = json.loads(text)
    except ValueError:
        return {}
    if not isinstance(fields, dict) or not all(isinstance(value, str) for value in fields.values()):
        return {}
    return fields
