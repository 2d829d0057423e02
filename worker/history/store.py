"""What is remembered of past sightings, for a limited time: one SQLite file, templates but no pixels.

Every row carries the time at which it expires. So a process that opens the file with another configuration keeps what
was promised when the row was written. What expires is overwritten, not merely unlinked.
"""

import errno
import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import numpy as np

from worker.errors import HistoryDiskError, HistoryError, HistoryValueError
from worker.files import connect_sqlite, is_of_state, private_folder
from worker.history import denials
from worker.history.records import Account, CounterExample, EmbedderId, PastSighting, Tally, UnknownPerson, Vector
from worker.logs import get_logger
from worker.names import clean_text

FILE: Final = "history.sqlite3"
_DISK_ERRNOS: Final = {errno.ENOSPC, errno.EDQUOT, errno.EIO}
_DISK_CODES: Final = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
_FORMAT: Final = 2
_VALUE_ERRORS: Final = (
    sqlite3.ProgrammingError, sqlite3.InterfaceError, ValueError, TypeError, OverflowError, AttributeError,
)  # fmt: skip
_APPLICATION_ID: Final = 0x66616365

_SCHEMA: Final = """
CREATE TABLE sightings (
    sighting_id TEXT PRIMARY KEY, camera_id TEXT NOT NULL, started_s REAL NOT NULL, ended_s REAL NOT NULL,
    identity_id TEXT NOT NULL, identity_name TEXT NOT NULL, unknown_id TEXT NOT NULL, model_id TEXT NOT NULL,
    preprocessing TEXT NOT NULL, template BLOB, evidence INTEGER NOT NULL, quality REAL, event TEXT NOT NULL,
    account TEXT NOT NULL, corrections INTEGER NOT NULL DEFAULT 0, recorded_s REAL NOT NULL, expires_s REAL NOT NULL
);
CREATE INDEX sightings_by_time ON sightings (started_s);
CREATE INDEX sightings_by_unknown ON sightings (unknown_id) WHERE unknown_id != '';
CREATE TABLE unknowns (
    unknown_id TEXT PRIMARY KEY, model_id TEXT NOT NULL, preprocessing TEXT NOT NULL, template BLOB,
    evidence REAL NOT NULL, first_seen_s REAL NOT NULL, last_seen_s REAL NOT NULL, revision INTEGER NOT NULL,
    recorded_s REAL NOT NULL, expires_s REAL NOT NULL
);
CREATE INDEX unknowns_by_revision ON unknowns (revision);
CREATE TABLE newest (revision INTEGER NOT NULL);
INSERT INTO newest VALUES (0);
CREATE TABLE tallies (
    camera_id TEXT NOT NULL, hour INTEGER NOT NULL, reason TEXT NOT NULL, tracks INTEGER NOT NULL,
    faces INTEGER NOT NULL, expires_s REAL NOT NULL, PRIMARY KEY (camera_id, hour, reason)
) WITHOUT ROWID;
"""


_Record = TypeVar("_Record")
_log = get_logger(__name__)


class History:
    """The open file. For one thread at a time; others, and other processes, open their own."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._inode = path.stat().st_ino

    @classmethod
    def open(cls, folder: Path, *, create: bool = False, busy_timeout_s: float = 5.0) -> Self:
        """The history in ``folder``; what has expired is gone once it is open.

        ``busy_timeout_s``: how long one waits for another process that writes.

        Raises:
            HistoryError: it does not exist (without ``create``), is damaged, of a newer version, or not accessible.
            HistoryDiskError: the disk is full or fails.
        """
        path = folder / FILE
        if not create and not path.exists():
            raise HistoryError(
                f"no history in {folder}: 'facestream run' writes one beside its gallery, or where state_dir says"
            )
        try:
            private_folder(folder, is_of_state)
            with _told(path):
                connection = connect_sqlite(path, busy_timeout_s=busy_timeout_s)
        except OSError as error:
            kind = HistoryDiskError if error.errno in _DISK_ERRNOS else HistoryError
            raise kind(f"history {path} cannot be opened: {error.strerror or error}") from None
        with _told(path):
            try:
                _prepare(path, connection)
                history = cls(path, connection)
                history.prune()
            except BaseException:
                connection.close()
                raise
        return history

    def close(self) -> None:
        self._connection.close()

    def is_in_place(self) -> bool:
        """Whether the open file and its log are still those that others find; rows written to a removed file are lost
        in silence."""
        try:
            # SQLite's log exists from the first statement to the last close.
            return self.path.stat().st_ino == self._inode and Path(f"{self.path}-wal").exists()
        except OSError:
            return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(
        self,
        sightings: Iterable[PastSighting] = (),
        unknowns: Iterable[UnknownPerson] = (),
        tallies: Iterable[Tally] = (),
        *,
        keep_s: float,
        remember_s: float,
    ) -> None:
        """Stores or replaces, all or nothing; tallies are added up. A sighting that people have corrected stays as they
        left it. Texts are cleaned, see :func:`worker.names.clean_text`.

        Raises:
            HistoryError: the file cannot be written.
            HistoryValueError: a value can never be stored.
        """
        now_s = time.time()
        with self._transaction() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO sightings SELECT ?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17 "
                "WHERE NOT EXISTS (SELECT 1 FROM sightings WHERE sighting_id = ?1 AND corrections > 0)",
                [(*_cleaned(_sighting_row(sighting)), now_s, now_s + keep_s) for sighting in sightings],
            )
            # Somebody who was enrolled or forgotten meanwhile stays so.
            connection.executemany(
                "INSERT INTO unknowns VALUES (?,?,?,?,?,?,?,?,?,?) ON CONFLICT (unknown_id) DO UPDATE SET "
                "template = excluded.template, evidence = excluded.evidence, "
                "first_seen_s = min(first_seen_s, excluded.first_seen_s), "
                "last_seen_s = max(last_seen_s, excluded.last_seen_s), revision = excluded.revision, "
                "recorded_s = excluded.recorded_s, expires_s = excluded.expires_s WHERE template IS NOT NULL",
                [
                    (*_cleaned(_unknown_row(person)), _next_revision(connection), now_s, now_s + remember_s)
                    for person in unknowns
                ],
            )
            connection.executemany(
                "INSERT INTO tallies VALUES (?,?,?,?,?,?) ON CONFLICT (camera_id, hour, reason) DO UPDATE SET "
                "tracks = tracks + excluded.tracks, faces = faces + excluded.faces",
                [
                    (clean_text(tally.camera_id), int(tally.hour.timestamp() // 3600), tally.reason, tally.tracks,
                     tally.faces, now_s + keep_s)
                    for tally in tallies
                ],
            )  # fmt: skip

    def sightings(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        camera_id: str | None = None,
        unknown_id: str | None = None,
        sighting_id: str | None = None,
    ) -> list[PastSighting]:
        """Those that were going on between ``since`` and ``until``, oldest first. A row that cannot be read is left
        out, and the log names it."""
        rows = self._select("*", since, until, camera_id, unknown_id=unknown_id, sighting_id=sighting_id)
        found = list(_readable(rows, _sighting))
        if not any(sighting.corrections for sighting in found):
            return found
        with _told(self.path):
            denied = denials.by_sighting(self._connection)
        return [replace(sighting, denials=denied.get(sighting.sighting_id, ())) for sighting in found]

    def similar(
        self,
        probe: Vector,
        embedder: EmbedderId,
        threshold: float,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        camera_id: str | None = None,
        limit: int | None = None,
        chunk_rows: int = 8192,
    ) -> list[tuple[PastSighting, float]]:
        """The sightings whose template has a cosine of at least ``threshold`` to ``probe`` (d,), most similar first.

        Those that another embedder made are passed over. ``chunk_rows`` templates are compared at a time.
        """
        found: list[tuple[float, str]] = []
        rows = self._select("sighting_id, template", since, until, camera_id, embedder=embedder)
        while chunk := list(islice(rows, chunk_rows)):
            chunk = [(name, template) for name, template in chunk if _has_length(template, len(probe))]
            templates = np.frombuffer(b"".join(template for _, template in chunk), "<f4").reshape(-1, len(probe))
            similarities = templates @ probe
            found += [(float(similarities[row]), chunk[row][0]) for row in np.flatnonzero(similarities >= threshold)]
        found.sort(key=lambda hit: (-hit[0], hit[1]))
        hits = [(self.sightings(sighting_id=sighting_id), similarity) for similarity, sighting_id in found[:limit]]
        return [(sightings[0], similarity) for sightings, similarity in hits if sightings]

    def newest_model(self) -> str | None:
        """The model of the latest sighting, None where there is none."""
        with _told(self.path):
            row = self._connection.execute("SELECT model_id FROM sightings ORDER BY started_s DESC LIMIT 1").fetchone()
        return None if row is None else str(row[0])

    def unknowns(self, after_revision: int = 0) -> tuple[list[UnknownPerson], int]:
        """The unknown people that changed after ``after_revision``, and the newest revision.

        People who are gone are among them, without a template, so that every worker learns of it; with 0, they are not.
        """
        with _told(self.path):
            rows = self._connection.execute(
                "SELECT * FROM unknowns WHERE revision > ? AND expires_s > ? ORDER BY first_seen_s, unknown_id",
                (after_revision, time.time()),
            ).fetchall()
        revision = max([after_revision, *(row[7] for row in rows)])
        people = list(_readable(rows, _unknown))
        return [person for person in people if person.template is not None or after_revision], revision

    def unknown(self, unknown_id: str) -> UnknownPerson:
        """Raises HistoryError: no such person, or not any more."""
        with _told(self.path):
            row = self._connection.execute(
                "SELECT * FROM unknowns WHERE unknown_id = ? AND template IS NOT NULL AND expires_s > ?",
                (clean_text(unknown_id), time.time()),
            ).fetchone()
        if row is None:
            raise HistoryError(
                f"no unknown person {unknown_id} in {self.path}: enrolled, forgotten or expired; "
                "'facestream unknown list' shows who is there"
            )
        for person in _readable([row], _unknown):
            return person
        raise HistoryError(f"what {self.path} holds of {unknown_id} is damaged; 'facestream unknown forget' removes it")

    def tallies(
        self, *, since: datetime | None = None, until: datetime | None = None, camera_id: str | None = None
    ) -> list[Tally]:
        """Of the hours between ``since`` and ``until``, both included."""
        with _told(self.path):
            rows = self._connection.execute(
                "SELECT camera_id, hour, reason, tracks, faces FROM tallies "
                "WHERE hour >= ? AND hour <= ? AND (? IS NULL OR camera_id = ?) AND expires_s > ? "
                "ORDER BY camera_id, hour, reason",
                (
                    int(since.timestamp() // 3600) if since else -(2**62),
                    int(until.timestamp() // 3600) if until else 2**62,
                    camera_id,
                    camera_id,
                    time.time(),
                ),
            ).fetchall()
        return [
            Tally(camera, datetime.fromtimestamp(hour * 3600, UTC), reason, tracks, faces)
            for camera, hour, reason, tracks, faces in rows
        ]

    def name_sightings(self, sighting_ids: Sequence[str], identity_id: str, identity_name: str) -> None:
        """Notes who the person of these sightings was.

        Raises:
            HistoryError: the file cannot be written.
        """
        with self._transaction() as connection:
            connection.executemany(
                "UPDATE sightings SET identity_id = ?, identity_name = ?, unknown_id = '', "
                "corrections = corrections + 1 WHERE sighting_id = ?",
                [(identity_id, clean_text(identity_name), sighting_id) for sighting_id in sighting_ids],
            )

    def deny(
        self,
        sighting: PastSighting,
        *,
        identity_id: str = "",
        identity_name: str = "",
        unknown_id: str = "",
        link: bool = True,
    ) -> None:
        """Notes that ``sighting`` shows this person, and not the one whom it names. Without ``link`` it is forgotten
        who that was, so that the sighting is no counter-example.

        Raises:
            HistoryError: the sighting was changed meanwhile, or the file cannot be written.
        """
        verdict = clean_text(identity_id), clean_text(identity_name), unknown_id
        with self._transaction() as connection:
            denials.revise(connection, sighting, verdict)
            denials.add(connection, sighting, verdict, time.time(), link=link)

    def take_back(self, sighting: PastSighting, identity_name: str) -> None:
        """Undoes the last denial of ``sighting``: it shows the person whom it named before, called ``identity_name``.

        Raises:
            HistoryError: the sighting was changed meanwhile, or the file cannot be written.
        """
        verdict = sighting.denials[-1].identity_id, clean_text(identity_name), ""
        with self._transaction() as connection:
            denials.revise(connection, sighting, verdict)
            denials.remove_last(connection, sighting.sighting_id)

    def counter_examples(self, embedder: EmbedderId) -> list[CounterExample]:
        """The templates that show somebody else than the person whom their sighting named."""
        with _told(self.path):
            return denials.counter_examples(self._connection, embedder)

    def denials_revision(self) -> int:
        """Another number after each change of :meth:`counter_examples`, unless they only expired."""
        with _told(self.path):
            return denials.revision(self._connection)

    def forget_denials_of(self, identity_id: str) -> None:
        """Forgets which sightings are known not to show this person, who has been removed.

        Raises:
            HistoryError: the file cannot be written.
        """
        with self._transaction() as connection:
            denials.forget_person(connection, identity_id)
        self._vanish()

    def drop_unknown(self, unknown_id: str, *, sightings_too: bool = False) -> None:
        """Forgets the template of an unknown person; a mark stays for a while, so that every worker learns of it.

        ``sightings_too``: also the templates of their sightings, whose times and verdicts stay.

        Raises:
            HistoryError: the file cannot be written.
        """
        with self._transaction() as connection:
            connection.execute(
                "UPDATE unknowns SET template = NULL, revision = ? WHERE unknown_id = ?",
                (_next_revision(connection), unknown_id),
            )
            if sightings_too:
                connection.execute("UPDATE sightings SET template = NULL WHERE unknown_id = ?", (unknown_id,))
                denials.changed(connection)
            connection.execute("UPDATE sightings SET unknown_id = '' WHERE unknown_id = ?", (unknown_id,))
        self._vanish()

    def prune(self, *, keep_s: float | None = None, remember_s: float | None = None) -> int:
        """Removes what has expired, or was recorded longer ago than these; returns how many rows went.

        Raises:
            HistoryError: the file cannot be written.
        """
        now_s = time.time()
        gone = 0
        with self._transaction() as connection:
            for table, age_s in (("sightings", keep_s), ("unknowns", remember_s), ("tallies", None)):
                gone += connection.execute(f"DELETE FROM {table} WHERE expires_s <= ?", (now_s,)).rowcount  # noqa: S608
                if age_s is not None:
                    gone += connection.execute(
                        f"DELETE FROM {table} WHERE recorded_s <= ?",  # noqa: S608
                        (now_s - age_s,),
                    ).rowcount
            if gone:
                denials.remove_orphans(connection)
        if gone:
            self._vanish()
        return gone

    def _select(
        self,
        columns: str,
        since: datetime | None,
        until: datetime | None,
        camera_id: str | None,
        *,
        unknown_id: str | None = None,
        sighting_id: str | None = None,
        embedder: EmbedderId | None = None,
    ) -> Iterator[tuple[Any, ...]]:
        conditions = ["expires_s > ?"]
        values: list[Any] = [time.time()]
        for condition, value in (
            ("ended_s >= ?", since.timestamp() if since else None),
            ("started_s <= ?", until.timestamp() if until else None),
            ("camera_id = ?", camera_id),
            ("unknown_id = ?", unknown_id),
            ("sighting_id = ?", sighting_id),
            ("template IS NOT NULL AND model_id = ?", embedder.model_id if embedder else None),
            ("preprocessing = ?", embedder.preprocessing_digest if embedder else None),
        ):
            if value is not None:
                conditions.append(condition)
                values += _cleaned((value,))
        # The columns and conditions are constants of this module; values are bound.
        query = f"SELECT {columns} FROM sightings WHERE {' AND '.join(conditions)} ORDER BY started_s, sighting_id"  # noqa: S608
        with _told(self.path):
            yield from self._connection.execute(query, values)

    def _vanish(self) -> None:
        """Takes deleted content out of the write-ahead log as well, and gives its space back."""
        with _told(self.path):
            self._connection.execute("PRAGMA incremental_vacuum").fetchall()
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with _told(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException as error:
                self._connection.execute("ROLLBACK")
                if isinstance(error, _VALUE_ERRORS):
                    raise HistoryValueError(f"history {self.path} cannot store a value: {error}") from error
                raise
            self._connection.execute("COMMIT")


def _prepare(path: Path, connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("BEGIN IMMEDIATE")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version < _FORMAT:
        for statement in f"{'' if version else _SCHEMA};{denials.SCHEMA}".split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {_FORMAT}")
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    connection.execute("COMMIT")
    if version > _FORMAT:
        raise HistoryError(f"history {path} was written by a newer version of facestream; upgrade, or move it away")


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        # The low byte is the kind of error, the others its details (SQLite's "Result and Error Codes").
        kind = HistoryDiskError if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DISK_CODES else HistoryError
        raise kind(f"history {path} cannot be used: {error}") from None
    except sqlite3.DatabaseError as error:
        raise HistoryError(f"history {path} is damaged ({error}); move it away, and a new one is begun") from None


def _next_revision(connection: sqlite3.Connection) -> int:
    connection.execute("UPDATE newest SET revision = revision + 1")
    (revision,) = connection.execute("SELECT revision FROM newest").fetchone()
    return int(revision)


def _cleaned(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(clean_text(value) if isinstance(value, str) else value for value in row)


def _readable(rows: Iterable[tuple[Any, ...]], read: Callable[[tuple[Any, ...]], _Record]) -> Iterator[_Record]:
    """What ``read`` makes of each row: one that is damaged must not hide the others."""
    for row in rows:
        try:
            yield read(row)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, OSError, RecursionError) as error:
            _log.warning("a row of the history cannot be read", row=str(row[0]), reason=type(error).__name__)


def _has_length(template: object, dimension: int) -> bool:
    return isinstance(template, bytes) and len(template) == 4 * dimension


def _sighting_row(sighting: PastSighting) -> tuple[Any, ...]:
    return (
        sighting.sighting_id, sighting.camera_id, sighting.started_at.timestamp(), sighting.ended_at.timestamp(),
        sighting.identity_id, sighting.identity_name, sighting.unknown_id, sighting.embedder.model_id,
        sighting.embedder.preprocessing_digest, _blob(sighting.template), sighting.embedded_faces, sighting.quality,
        json.dumps({field: clean_text(value) for field, value in sighting.event.items()}),
        json.dumps(sighting.account.to_json()), sighting.corrections,
    )  # fmt: skip


def _sighting(row: tuple[Any, ...]) -> PastSighting:
    (
        sighting_id, camera_id, started_s, ended_s, identity_id, identity_name, unknown_id, model_id, digest, template,
        embedded_faces, quality, event, account, corrections, _recorded_s, _expires_s,
    ) = row  # fmt: skip
    return PastSighting(
        sighting_id, camera_id, _time(started_s), _time(ended_s), identity_id, identity_name, unknown_id,
        EmbedderId(model_id, digest), _vector(template), embedded_faces, quality, json.loads(event),
        Account.from_json(json.loads(account)), corrections,
    )  # fmt: skip


def _unknown_row(person: UnknownPerson) -> tuple[Any, ...]:
    return (
        person.unknown_id, person.embedder.model_id, person.embedder.preprocessing_digest, _blob(person.template),
        person.embedded_faces, person.first_seen.timestamp(), person.last_seen.timestamp(),
    )  # fmt: skip


def _unknown(row: tuple[Any, ...]) -> UnknownPerson:
    unknown_id, model_id, digest, template, embedded_faces, first_s, last_s, _revision, _recorded_s, _expires_s = row
    return UnknownPerson(
        unknown_id, EmbedderId(model_id, digest), _vector(template), embedded_faces, _time(first_s), _time(last_s)
    )


def _blob(template: Vector | None) -> bytes | None:
    return None if template is None else np.ascontiguousarray(template, "<f4").tobytes()


def _vector(blob: bytes | None) -> Vector | None:
    """
    Raises:
        ValueError: it is not the bytes of finite numbers.
    """
    if blob is None:
        return None
    if not isinstance(blob, bytes):
        raise TypeError("a template is bytes")
    vector = np.frombuffer(blob, "<f4")
    if not len(vector) or not np.isfinite(vector).all():
        raise ValueError("a template has finite numbers")
    return vector


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
