"""The faces of photos that an earlier run has embedded, so that the next run need not.

These are biometric data. So an entry holds a vector, and is found by a digest of the photo's bytes and of all that made
the vector: no name, no path. Entries that no run has used for a week are removed by the next one. Why so:
docs/decisions/face-cache.md.
"""

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, Self

import numpy as np

from worker import __version__
from worker.errors import DatabaseError, OutputError
from worker.files import private_folder
from worker.logs import get_logger
from worker.sqlite import connect_sqlite, is_as_wanted
from worker.types import Vectors

FOLDER: Final = "faces"
_FILE: Final = "faces.sqlite3"
_KEEP_S: Final = 7 * 86_400.0
_BUSY_S: Final = 5.0
MOST_PHOTOS: Final = 50_000

_SCHEMA: Final = """
PRAGMA secure_delete = ON;
PRAGMA auto_vacuum = INCREMENTAL;
CREATE TABLE IF NOT EXISTS faces (key BLOB PRIMARY KEY, vector BLOB, used_s REAL NOT NULL);
CREATE INDEX IF NOT EXISTS faces_by_use ON faces (used_s);
"""

_log = get_logger(__name__)


class FaceCache:
    """The open cache of one user. ``made_with`` names all that a vector depends on beside the photo: model,
    preprocessing, engine, detector and their settings.

    A cache that cannot be read or written is reported in the log, and does nothing.
    """

    def __init__(self, connection: sqlite3.Connection | None, made_with: Sequence[object], most: int) -> None:
        self._connection = connection
        self._made_with = json.dumps([__version__, *made_with], default=str).encode()
        self._most = most

    @classmethod
    def open(cls, cache_dir: Path, made_with: Sequence[object], *, most: int = MOST_PHOTOS) -> Self:
        """The cache below ``cache_dir``, without what no run has used for a week; at most the ``most`` photos that were
        used last are kept."""
        folder = cache_dir / FOLDER
        connection: sqlite3.Connection | None = None
        try:
            private_folder(folder)
            if not is_as_wanted(folder / _FILE):
                # Another key is used now, or none any more: all that is lost is time.
                remove_cache(cache_dir)
            try:
                connection = _connect(folder)
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError:
                # Damaged: the same.
                remove_cache(cache_dir)
                connection = _connect(folder)
        except (OSError, sqlite3.Error, OutputError, DatabaseError) as error:
            _log.warning("faces of photos are not kept for the next run", folder=str(folder), reason=str(error))
        made = cls(connection, made_with, most)
        made._expire()
        return made

    def close(self) -> None:
        if self._connection is not None:
            self._expire()
            self._connection.close()
            self._connection = None

    def key(self, content: bytes) -> bytes:
        """What the face of the photo with these bytes is found by."""
        return hashlib.sha256(hashlib.sha256(content).digest() + self._made_with).digest()

    def get(self, key: bytes) -> tuple[bool, Vectors | None]:
        """Whether the photo is known, and the vector float32 (d,) of its face; None if it shows none."""
        if self._connection is None:
            return False, None
        try:
            row = self._connection.execute("SELECT vector FROM faces WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            self._give_up(error)
            return False, None
        if row is None:
            return False, None
        return True, None if row[0] is None else np.frombuffer(row[0], "<f4")

    def touch(self, keys: Iterable[bytes]) -> None:
        """Notes that this run has used the entries of ``keys``."""
        now_s = time.time()
        self._write("UPDATE faces SET used_s = ? WHERE key = ?", [(now_s, key) for key in keys])

    def put(self, faces: Sequence[tuple[bytes, Vectors | None]]) -> None:
        """Keeps the vector of each key; None: the photo shows no face."""
        now_s = time.time()
        rows = [(key, None if vector is None else vector.astype("<f4").tobytes(), now_s) for key, vector in faces]
        self._write("INSERT OR REPLACE INTO faces VALUES (?,?,?)", rows)

    def _write(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        if self._connection is None:
            return
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany(statement, rows)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._give_up(error)

    def _expire(self) -> None:
        if self._connection is None:
            return
        try:
            self._connection.execute("DELETE FROM faces WHERE used_s < ?", (time.time() - _KEEP_S,))
            self._connection.execute(
                "DELETE FROM faces WHERE key IN (SELECT key FROM faces ORDER BY used_s DESC LIMIT -1 OFFSET ?)",
                (self._most,),
            )
            self._connection.execute("PRAGMA incremental_vacuum").fetchall()
        except sqlite3.Error as error:
            self._give_up(error)

    def _give_up(self, error: sqlite3.Error) -> None:
        _log.warning("faces of photos are not kept for the next run", reason=str(error))
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _connect(folder: Path) -> sqlite3.Connection:
    connection = connect_sqlite(folder / _FILE, busy_timeout_s=_BUSY_S)
    try:
        connection.executescript(_SCHEMA)
    except BaseException:
        connection.close()
        raise
    return connection


def remove_cache(cache_dir: Path) -> None:
    """Deletes what earlier runs have kept.

    Raises:
        OutputError: it cannot be deleted.
    """
    try:
        for path in (cache_dir / FOLDER).glob(f"{_FILE}*"):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"the faces kept in {cache_dir / FOLDER} cannot be deleted: {error.strerror}") from None
