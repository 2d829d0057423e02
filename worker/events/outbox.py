"""Where events wait until Redis has confirmed them: on disk, or in memory where the disk fails or no file is named."""

import json
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

from filelock import FileLock

from worker.config import Config, OutboxConfig, default_state_dir, history_folder
from worker.erased import Erased
from worker.errors import SinkError
from worker.events.codec import ERASED_BY, encode
from worker.events.queues import DiskQueue, Gone, MemoryQueue
from worker.events.spool import DamagedError, Entry, InUseError, Moment, Spool, StateTable, lock_spool, set_aside
from worker.logs import get_logger
from worker.observer import Observer
from worker.types import Event

_CHUNK_EVENTS: Final = 256
_LOG_EVERY_S: Final = 10.0
_MOST_UNNAMED: Final = 16
_VANISH_EVERY_S: Final = 60.0
_EVENT_BYTES: Final = 128
_FIELD_BYTES: Final = 8
"""What is stored beside the text of an event's fields, and beside that of a field."""
_DISK_ERRORS: Final = (sqlite3.OperationalError, OSError, DamagedError)

_T = TypeVar("_T")

_log = get_logger(__name__)


class Outbox:
    """A queue with a bound: when it is full the oldest events are dropped, counted by reason.

    Appending is for any thread. :meth:`take`, :meth:`settle` and :meth:`tend` belong to the thread that delivers.
    Events in memory are newer than those on disk, except after a time in which the disk could not even be read.

    In memory at most ``memory_events`` wait. A disk that failed is tried again after ``retry_s``. The log of the file
    is taken over into it from ``write_back_bytes`` on.

    Raises:
        SinkError: another process uses the file at ``path``, or it is of a newer version.
    """

    def __init__(
        self,
        config: OutboxConfig,
        observer: Observer | None = None,
        *,
        path: Path | None = None,
        memory_events: int = 10_000,
        retry_s: float = 2.0,
        write_back_bytes: int = 2 << 20,
    ) -> None:
        self.path = path
        self._config = config
        self._observer = observer or Observer()
        self._memory_events = memory_events
        self._retry_s = retry_s
        self._write_back_bytes = write_back_bytes
        self._lock = threading.Lock()
        self._file_lock: FileLock | None = None
        self._disk: DiskQueue | None = None
        self._memory = MemoryQueue()
        self._next_seq = 1
        self._sending: dict[int, Entry] = {}
        self._failure = ""
        self._failure_logged_s = self._retried_s = self._drop_logged_s = float("-inf")
        self._vanished_s = time.monotonic()
        self._unlogged_drops: Counter[str] = Counter()
        self._closed = False
        if path is not None:
            try:
                self._try(lambda: self._open(path, check=True))
            except SinkError:
                self.close()
                raise

    def __len__(self) -> int:
        return len(self._disk or ()) + len(self._memory)

    @property
    def failure(self) -> str:
        """Why events are not written to disk at the moment, in one line; empty while they are, or need not be."""
        return self._failure

    def append(self, event: Event, received_monotonic_s: float | None = None) -> bool:
        """Takes ``event``; it survives the end of the process once this returns, unless :attr:`failure` says why not.

        ``received_monotonic_s``: when the frame came that caused it; None: time alone did. Returns whether it is kept.

        Raises:
            ValueError: it cannot be written: a number is not finite, or a time lacks its zone.
        """
        fields = encode(event)
        now_s = time.monotonic()
        caused = Moment.at(now_s if received_monotonic_s is None else min(received_monotonic_s, now_s))
        size_bytes = _EVENT_BYTES + sum(
            _FIELD_BYTES + len(name) + len(value.encode()) for name, value in fields.items()
        )
        with self._lock:
            seq = self._next_seq
            entry = Entry(seq, event.camera_id, event.epoch, event.type, fields, size_bytes, caused,
                          received_monotonic_s)  # fmt: skip
            if self._closed:
                gone, reason = [(seq, event.camera_id)], "closed"
            else:
                self._next_seq += 1
                self._store(entry)
                gone, reason = self._trim(), "buffer_full"
        self._report(gone, reason)
        return all(number != seq for number, _ in gone)

    def take(self, limit: int) -> list[Entry]:
        """The oldest events, up to ``limit``, in order; until :meth:`settle` they are not dropped."""
        with self._lock:
            if self._closed:
                return []
            entries = self._oldest(limit)
            entries += self._memory.oldest(limit - len(entries))
            self._sending = {entry.seq: entry for entry in entries}
        damaged = [entry for entry in entries if not entry.fields]
        if not damaged:
            return entries
        self._report([(entry.seq, entry.camera_id) for entry in damaged], "invalid")
        self.settle([entry.seq for entry in damaged])
        return self.take(limit)

    def settle(self, seqs: Collection[int]) -> None:
        """Of the events that were taken, these are done; the others still wait."""
        with self._lock:
            sent, self._sending = self._sending, {}
            if self._closed:
                return
            from_disk = [sent[seq] for seq in seqs if seq not in self._memory]
            self._memory.remove(seqs)
            if from_disk and (disk := self._disk) is not None:
                self._try(lambda: disk.remove(from_disk))

    def tend(self) -> None:
        """Drops what is too old, goes back to the disk when that works again, and reports.

        Call it about once a second, and not between :meth:`take` and :meth:`settle`.
        """
        is_retry_due = self._failure and time.monotonic() - self._retried_s >= self._retry_s
        self._write_back(all_of_it=bool(is_retry_due))
        with self._lock:
            if self._closed:
                return
            if self._disk is not None and not self._disk.spool.exists:
                self._lose_disk(FileNotFoundError("the file was removed"))
            if is_retry_due:
                self._retried_s = time.monotonic()
                self._try(self._recover)
            expired, oldest_s = self._expire()
            size_bytes = self._memory.size_bytes + (0 if self._disk is None else self._disk.size_bytes)
            figures = len(self), size_bytes, oldest_s, bool(self._failure)
        self._report(expired, "expired")
        self._observer.outbox(*figures)

    def with_file(self, action: Callable[[Spool], _T]) -> _T | None:
        """What ``action`` does with the file, behind the events that were appended so far; None: it could not be done.

        ``action`` may raise what the methods of :class:`Spool` do.
        """
        done: list[_T] = []
        with self._lock:
            if (disk := self._disk) is not None and not self._closed:
                self._try(lambda: done.append(action(disk.spool)))
        return done[0] if done else None

    def erase(self, erased: Erased, filtered: Callable[[Mapping[str, Any]], Mapping[str, Any] | None]) -> int:
        """Removes the events that bear an id of ``erased``, and lets ``filtered`` say what stays of each kept state of
        sightings (None: nothing). Returns how many such events are being sent at this moment: call it again then.

        Raises:
            SinkError: the file cannot be changed.
        """
        with self._lock:
            if self._closed:
                return 0
            found = self._memory.matching(partial(_bears, erased))
            self._memory.remove(entry.seq for entry in found if entry.seq not in self._sending)
            if (disk := self._disk) is not None:
                on_disk: list[Entry] = []
                done = self._try(lambda: on_disk.extend(disk.matching(partial(_bears, erased))))
                done = done and self._try(
                    lambda: disk.remove([entry for entry in on_disk if entry.seq not in self._sending])
                )
                if not (done and self._try(lambda: _filter_states(disk.spool, filtered))):
                    raise SinkError(self._failure)
                found += on_disk
            sending = sum(entry.seq in self._sending for entry in found)
        if disk is not None:
            with suppress(sqlite3.Error):  # a later call, or the next one of tend, does it
                disk.spool.write_back(vanish=True)
        return sending

    def close(self) -> tuple[list[Entry], int]:
        """Returns the events that are lost, since they are not on disk, and how many wait there for the next start."""
        with self._lock:
            if self._closed:
                return [], 0
            if len(self._memory) and self.path is not None:
                self._try(self._recover)
            self._closed = True
            lost, kept = self._memory.clear(), len(self._disk or ())
            if self._disk is not None:
                with suppress(sqlite3.Error):
                    self._disk.spool.write_back(vanish=True)
                self._disk.spool.close()
            if self._file_lock is not None:
                self._file_lock.release()
        return lost, kept

    def _store(self, entry: Entry) -> None:
        disk = self._disk
        if disk is None or self._failure or not self._try(lambda: disk.push([entry])):
            self._memory.push(entry)

    def _trim(self) -> list[Gone]:
        """Drops the oldest while too many wait, or too many bytes."""
        dropped: list[Gone] = []
        while self._is_full() and (gone := self._drop_oldest(1)):
            dropped += gone
        if (excess := len(self._memory) - self._memory_events) > 0:
            dropped += self._memory.drop_oldest(excess, self._sending)
        return dropped

    def _is_full(self) -> bool:
        size_bytes = self._memory.size_bytes + (0 if self._disk is None else self._disk.size_bytes)
        return len(self) > self._config.max_events or size_bytes > self._config.max_bytes

    def _drop_oldest(self, count: int) -> list[Gone]:
        gone: list[Gone] = []
        if (disk := self._disk) is not None:
            self._try(lambda: gone.extend(disk.drop_oldest(count, self._sending)))
        return gone or self._memory.drop_oldest(count, self._sending)

    def _expire(self) -> tuple[list[Gone], float]:
        """Drops events that are too old. Returns them, and the age of the oldest that is left."""
        expired: list[Gone] = []
        while oldest := (self._oldest(1) or self._memory.oldest(1)):
            if oldest[0].caused.age_s <= self._config.max_age_s:
                return expired, oldest[0].caused.age_s
            some = self._oldest(_CHUNK_EVENTS) or self._memory.oldest(_CHUNK_EVENTS)
            gone = self._drop_oldest(sum(entry.caused.age_s > self._config.max_age_s for entry in some))
            if not gone:
                return expired, oldest[0].caused.age_s
            expired += gone
        return expired, 0.0

    def _oldest(self, limit: int) -> list[Entry]:
        """The oldest events on disk. Where they cannot be read, the disk is given up for now."""
        if not (disk := self._disk):
            return []
        try:
            return disk.oldest(limit)
        except _DISK_ERRORS as error:
            self._lose_disk(error)
            return []

    def _recover(self) -> None:
        """Goes back to the disk, with the events that wait in memory, if a trial succeeds."""
        if self._disk is None and self.path is not None:
            try:
                self._open(self.path)
            except SinkError as error:
                self._fail(error)
        if self._disk is not None:
            self._disk.spool.try_writing()
            self._disk.delete_removed()
            self._disk.take_from(self._memory)
            self._failure = ""
            _log.info("events are written to disk again", outbox=str(self.path))

    def _open(self, path: Path, *, check: bool = False) -> None:
        """Opens the file. The events that are found there are older than those in memory."""
        if self._file_lock is None:
            self._file_lock = lock_spool(path)
        try:
            disk = DiskQueue(Spool.open(path, check=check))
        except DamagedError as error:
            _set_aside(path, error)
            disk = DiskQueue(Spool.open(path))
        self._next_seq = max(self._next_seq, self._memory.renumber(disk.newest_seq + 1))
        self._disk = disk

    def _try(self, action: Callable[[], object]) -> bool:
        """Does ``action``; returns whether the disk took it."""
        try:
            action()
        except DamagedError as error:
            self._lose_disk(error)
        except _DISK_ERRORS as error:
            self._fail(error)
        else:
            return True
        return False

    def _lose_disk(self, error: Exception) -> None:
        """The file cannot be read any more, at least for now."""
        if self._disk is not None:
            self._disk.spool.close()
            self._disk = None
        if isinstance(error, DamagedError) and self.path is not None:
            _set_aside(self.path, error)
        self._fail(error)

    def _fail(self, error: Exception) -> None:
        """Events are kept in memory from now on, until the disk is seen to work again."""
        reason = f"{error.strerror or error}" if isinstance(error, OSError) else str(error)
        now_s = time.monotonic()
        self._retried_s = now_s
        if now_s - self._failure_logged_s >= _LOG_EVERY_S:
            self._failure_logged_s = now_s
            _log.error("events are kept in memory: a restart would lose them", outbox=str(self.path), reason=reason)
        self._failure = f"outbox {self.path}: {reason}; events are kept in memory, and lost if the worker stops"

    def _report(self, gone: Iterable[Gone], reason: str) -> None:
        for _, camera_id in gone:
            self._observer.event_dropped(camera_id, reason)
            self._unlogged_drops[reason] += 1
        if self._unlogged_drops and time.monotonic() - self._drop_logged_s >= _LOG_EVERY_S:
            self._drop_logged_s = time.monotonic()
            _log.error("events dropped", count=self._unlogged_drops.total(), reasons=dict(self._unlogged_drops))
            self._unlogged_drops.clear()

    def _write_back(self, *, all_of_it: bool) -> None:
        """Keeps the log of the file short, and has delivered events vanish from it.

        It works without the lock, since it waits for the disk. Where the disk is full, the log is all the room left.
        """
        disk, now_s = self._disk, time.monotonic()
        if self._closed or disk is None or not (log_bytes := disk.spool.log_bytes):
            return
        vanish = all_of_it or (not len(self) and now_s - self._vanished_s >= _VANISH_EVERY_S)
        if vanish or log_bytes >= self._write_back_bytes:
            self._vanished_s = now_s if vanish else self._vanished_s
            # Where the disk fails, the next event says so.
            with suppress(sqlite3.Error):
                disk.spool.write_back(vanish=vanish)


def _bears(erased: Erased, entry: Entry) -> bool:
    fields = entry.fields
    return entry.type != "erased" and any(fields.get(name, "") in erased for name in ERASED_BY)


def _filter_states(spool: Spool, filtered: Callable[[Mapping[str, Any]], Mapping[str, Any] | None]) -> None:
    table = StateTable(spool)
    for camera_id, epoch, text in table.all():
        try:
            state = json.loads(text)
            left = filtered(state)
        except (ValueError, RecursionError):
            left = None
        if left is None or left != state:
            table.save(camera_id, epoch, None if left is None else json.dumps(left))


def open_outbox(config: Config, observer: Observer | None = None) -> Outbox:
    """The outbox that ``config`` asks for: in ``state_dir``, else beside the gallery, else, for a fleet, among the
    user's files. Without any of these it is in memory.

    Raises:
        SinkError: another process uses its file, or it is of a newer version.
    """
    folder = history_folder(config) or (default_state_dir() if config.fleet.enabled else None)
    options: dict[str, Any] = {"memory_events": config.redis.buffer_events}
    if folder is None:
        _log.info("events do not outlive the worker; state_dir names a folder in which they do")
        return Outbox(config.outbox, observer, **options)
    name = f"outbox-{quote(config.worker_id, safe='')}"
    # Without a name of its own, a second worker on this machine takes the next file.
    others = [] if "worker_id" in config.model_fields_set else range(2, _MOST_UNNAMED + 1)
    for path in (folder / f"{name}.sqlite3", *(folder / f"{name}.{number}.sqlite3" for number in others)):
        try:
            return Outbox(config.outbox, observer, path=path, **options)
        except InUseError as error:
            in_use = error
    raise in_use


def _set_aside(path: Path, error: DamagedError) -> None:
    target = set_aside(path)
    _log.error(
        "outbox is damaged: it was set aside, and a new one begun", outbox=str(path), now=str(target), reason=str(error)
    )
