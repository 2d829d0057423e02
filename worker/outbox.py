"""Where events wait until Redis has confirmed them: on disk, or in memory where the disk fails or there is none."""

import json
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from worker.config import Config, OutboxConfig, default_state_dir
from worker.errors import SinkError
from worker.events import encode
from worker.history import history_folder
from worker.logs import get_logger
from worker.metrics import Observer
from worker.moment import Moment
from worker.spool import DamagedError, Entry, InUseError, Spool, SpoolLock, set_aside
from worker.types import Event

_CHUNK_EVENTS: Final = 256
_RETRY_S: Final = 2.0
_LOG_EVERY_S: Final = 10.0
_MOST_UNNAMED: Final = 16
_WRITE_BACK_BYTES: Final = 2 << 20
_VANISH_EVERY_S: Final = 60.0
_OVERHEAD_BYTES: Final = 128
"""What an event takes beside its fields."""

_log = get_logger(__name__)
_DISK_ERRORS: Final = (sqlite3.OperationalError, OSError)
_Gone = tuple[int, str]
"""Number and camera of an event that was dropped."""


class Outbox:
    """A queue with a bound: where it is full the oldest events go, counted by reason.

    Appending is for any thread. :meth:`take`, :meth:`settle` and :meth:`tend` belong to the thread that delivers.
    Events in memory are newer than those on disk, but after a time in which the disk could not even be read.

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
    ) -> None:
        self.path = path
        self._config = config
        self._observer = observer or Observer()
        self._memory_events = memory_events
        self._lock = threading.Lock()
        self._spool: Spool | None = None
        self._spool_lock: SpoolLock | None = None
        self._on_disk = self._disk_bytes = 0
        self._waiting: dict[int, Entry] = {}
        self._waiting_bytes = 0
        self._next_seq = 1
        self._sending: dict[int, Entry] = {}
        self._settled: set[int] = set()
        self._failure = ""
        self._failure_logged_s = self._retried_s = self._drop_logged_s = float("-inf")
        self._vanished_s = time.monotonic()
        self._unlogged_drops: Counter[str] = Counter()
        self._closed = False
        if path is not None:
            with self._lock:
                self._open(check=True)

    def __len__(self) -> int:
        return self._on_disk + len(self._waiting)

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
        size_bytes = _OVERHEAD_BYTES + sum(len(name) + len(value.encode()) for name, value in fields.items())
        with self._lock:
            if self._closed:
                dropped = [(event.camera_id, "closed")]
                kept = False
            else:
                entry = Entry(
                    self._next_seq, event.camera_id, event.epoch, event.type, fields, size_bytes, caused,
                    received_monotonic_s,
                )  # fmt: skip
                self._next_seq += 1
                self._store(entry)
                gone = self._trim()
                dropped = [(camera_id, "buffer_full") for _, camera_id in gone]
                kept = all(seq != entry.seq for seq, _ in gone)
        self._report(dropped)
        return kept

    def take(self, limit: int) -> list[Entry]:
        """The oldest events, up to ``limit``, in order; until :meth:`settle` they are not dropped."""
        with self._lock:
            entries: list[Entry] = []
            if self._spool is not None and self._on_disk:
                try:
                    read = self._spool.oldest(limit + len(self._settled))
                except (*_DISK_ERRORS, DamagedError) as error:
                    self._lose_spool(error)
                else:
                    entries = [entry for entry in read if entry.seq not in self._settled][:limit]
            entries += islice(self._waiting.values(), limit - len(entries))
            self._sending = {entry.seq: entry for entry in entries}
        if damaged := [entry for entry in entries if not entry.fields]:
            self._report([(entry.camera_id, "invalid") for entry in damaged])
            self.settle([entry.seq for entry in damaged])
            return self.take(limit)
        return entries

    def settle(self, seqs: Collection[int]) -> None:
        """Of those taken, these are done with; the others wait on."""
        with self._lock:
            if self._closed:
                return
            for seq in seqs:
                entry = self._sending.pop(seq)
                if self._waiting.pop(seq, None) is not None:
                    self._waiting_bytes -= entry.size_bytes
                elif self._spool is not None:
                    self._settled.add(seq)
                    self._on_disk -= 1
                    self._disk_bytes -= entry.size_bytes
            self._sending = {}
            self._try(self._purge)

    def tend(self) -> None:
        """Drops what is too old, goes back to the disk when that works again, and reports; call it about once a
        second, and not between :meth:`take` and :meth:`settle`."""
        with self._lock:
            if self._closed:
                return
            if self._spool is not None and not self._spool.exists:
                self._lose_spool(FileNotFoundError("the file was removed"))
            if self._failure and time.monotonic() - self._retried_s >= _RETRY_S:
                self._retried_s = time.monotonic()
                self._try(self._recover)
            expired, oldest_s = self._expire()
            figures = len(self), self._disk_bytes + self._waiting_bytes, oldest_s, bool(self._failure)
        self._report([(camera_id, "expired") for _, camera_id in expired])
        self._observer.outbox(*figures)
        self._write_back()

    def keep_state(self, camera_id: str, epoch: int, state: Mapping[str, Any] | None) -> None:
        """Keeps the newest state of a camera's sightings, if the disk takes it; None: there is none any more."""
        text = None if state is None else json.dumps(state)
        with self._lock:
            if (spool := self._spool) is not None and not self._closed:
                self._try(lambda: spool.save_state(camera_id, epoch, text))

    def load_state(self, camera_id: str) -> dict[str, Any] | None:
        """What :meth:`keep_state` kept, None if there is nothing to be read."""
        with self._lock:
            try:
                text = self._spool.load_state(camera_id) if self._spool is not None else None
                state = json.loads(text) if text else None
            except (*_DISK_ERRORS, DamagedError, ValueError) as error:
                _log.warning("sightings begin anew: their state cannot be read", camera=camera_id, reason=str(error))
                return None
        return state if isinstance(state, dict) else None

    def close(self) -> tuple[list[Entry], int]:
        """What is lost now, since it is not on disk, and how many events wait there for the next start."""
        with self._lock:
            if self._closed:
                return [], 0
            if self.path is not None and self._waiting:
                self._sending = {}
                self._try(self._recover)
            lost = list(self._waiting.values())
            self._waiting.clear()
            self._waiting_bytes = 0
            kept = self._on_disk if self._spool is not None else 0
            self._closed = True
            if self._spool is not None:
                with suppress(sqlite3.Error):
                    self._spool.write_back(vanish=True)
                self._spool.close()
            if self._spool_lock is not None:
                self._spool_lock.release()
        return lost, kept

    def _store(self, entry: Entry) -> None:
        if self._spool is not None and not self._failure and not self._waiting:
            spool = self._spool
            if self._try(lambda: spool.insert([entry])):
                self._on_disk += 1
                self._disk_bytes += entry.size_bytes
                return
        self._waiting[entry.seq] = entry
        self._waiting_bytes += entry.size_bytes

    def _trim(self) -> list[_Gone]:
        """Drops the oldest while there is too much."""
        dropped = []
        while len(self) > self._config.max_events or self._disk_bytes + self._waiting_bytes > self._config.max_bytes:
            if not (gone := self._drop_oldest(1)):
                break
            dropped += gone
        while len(self._waiting) > self._memory_events and (gone := self._drop_from_memory(1)):
            dropped += gone
        return dropped

    def _drop_oldest(self, count: int) -> list[_Gone]:
        if self._on_disk and (spool := self._spool) is not None:
            gone: list[tuple[int, str, int]] = []

            def drop() -> None:
                self._purge()
                gone.extend(spool.drop_oldest(count, self._sending))

            if self._try(drop) and gone:
                self._on_disk -= len(gone)
                self._disk_bytes -= sum(size_bytes for _, _, size_bytes in gone)
                return [(seq, camera_id) for seq, camera_id, _ in gone]
        return self._drop_from_memory(count)

    def _drop_from_memory(self, count: int) -> list[_Gone]:
        going = list(islice((seq for seq in self._waiting if seq not in self._sending), count))
        entries = [self._waiting.pop(seq) for seq in going]
        self._waiting_bytes -= sum(entry.size_bytes for entry in entries)
        return [(entry.seq, entry.camera_id) for entry in entries]

    def _expire(self) -> tuple[list[_Gone], float]:
        """The events that were dropped since they are too old, and the age of the oldest that is left."""
        expired: list[_Gone] = []
        while True:
            oldest = self._oldest(1)
            if not oldest or oldest[0].caused.age_s <= self._config.max_age_s:
                return expired, oldest[0].caused.age_s if oldest else 0.0
            old = sum(entry.caused.age_s > self._config.max_age_s for entry in self._oldest(_CHUNK_EVENTS))
            gone = self._drop_oldest(old)
            if not gone:
                return expired, oldest[0].caused.age_s
            expired += gone

    def _oldest(self, count: int) -> list[Entry]:
        entries: list[Entry] = []
        if self._on_disk and (spool := self._spool) is not None:

            def read() -> None:
                self._purge()
                entries.extend(spool.oldest(count))

            self._try(read)
        return entries or list(islice(self._waiting.values(), count))

    def _purge(self) -> None:
        if self._settled and self._spool is not None:
            self._spool.delete(self._settled)
            self._settled.clear()

    def _recover(self) -> None:
        """Writes what waits in memory, or a trial where nothing does."""
        if self._spool is None:
            try:
                self._open()
            except SinkError as error:
                self._fail(error)
        if self._spool is None:
            return
        self._spool.try_writing()
        self._purge()
        while self._waiting:
            chunk = list(islice(self._waiting.values(), _CHUNK_EVENTS))
            self._spool.insert(chunk)
            for entry in chunk:
                del self._waiting[entry.seq]
                self._waiting_bytes -= entry.size_bytes
                self._on_disk += 1
                self._disk_bytes += entry.size_bytes
        _log.info("events are written to disk again", outbox=str(self.path))
        self._failure = ""

    def _open(self, *, check: bool = False) -> None:
        if (path := self.path) is None:
            return
        try:
            if self._spool_lock is None:
                self._spool_lock = SpoolLock(path)
            try:
                spool = Spool.open(path, check=check)
            except DamagedError as error:
                _set_aside(path, error)
                spool = Spool.open(path)
            self._adopt(spool)
        except (*_DISK_ERRORS, DamagedError) as error:
            self._fail(error)

    def _adopt(self, spool: Spool) -> None:
        """Goes on with what an earlier process, or a disk that came back, has left: it is older than what is here."""
        self._on_disk, self._disk_bytes, newest = spool.totals()
        entries = [replace(entry, seq=newest + 1 + at) for at, entry in enumerate(self._waiting.values())]
        self._waiting = {entry.seq: entry for entry in entries}
        self._next_seq = max(self._next_seq, newest + 1 + len(entries))
        self._settled.clear()
        self._spool = spool

    def _try(self, action: Callable[[], object]) -> bool:
        """Whether the disk took it."""
        try:
            action()
        except _DISK_ERRORS as error:
            self._fail(error)
            return False
        except DamagedError as error:
            self._lose_spool(error)
            return False
        return True

    def _lose_spool(self, error: Exception) -> None:
        """Nothing can be read any more, at least for now."""
        if self._spool is not None:
            self._spool.close()
            self._spool = None
        self._on_disk = self._disk_bytes = 0
        self._settled.clear()
        if isinstance(error, DamagedError) and self.path is not None:
            _set_aside(self.path, error)
        self._fail(error)

    def _fail(self, error: Exception) -> None:
        """From now on, until it is seen to work again, events are kept in memory."""
        reason = f"{error.strerror or error}" if isinstance(error, OSError) else str(error)
        now_s = time.monotonic()
        if not self._failure:
            self._retried_s = now_s
        if now_s - self._failure_logged_s >= _LOG_EVERY_S:
            self._failure_logged_s = now_s
            _log.error("events are kept in memory: a restart would lose them", outbox=str(self.path), reason=reason)
        self._failure = f"outbox {self.path}: {reason}; events are kept in memory, and lost if the worker stops"

    def _report(self, dropped: list[tuple[str, str]]) -> None:
        for camera_id, reason in dropped:
            self._observer.event_dropped(camera_id, reason)
            self._unlogged_drops[reason] += 1
        if self._unlogged_drops and time.monotonic() - self._drop_logged_s >= _LOG_EVERY_S:
            self._drop_logged_s = time.monotonic()
            _log.error("events dropped", count=self._unlogged_drops.total(), reasons=dict(self._unlogged_drops))
            self._unlogged_drops.clear()

    def _write_back(self) -> None:
        """Lets no log grow, and what was delivered vanish from it; without the lock, since it waits for the disk."""
        spool, now_s = self._spool, time.monotonic()
        if spool is None or self._closed:
            return
        vanish = not len(self) and now_s - self._vanished_s >= _VANISH_EVERY_S and spool.log_bytes > 0
        if vanish or spool.log_bytes >= _WRITE_BACK_BYTES:
            if vanish:
                self._vanished_s = now_s
            # Where the disk fails, the next event says so.
            with suppress(sqlite3.Error):
                spool.write_back(vanish=vanish)


def open_outbox(config: Config, observer: Observer | None = None) -> Outbox:
    """The outbox that ``config`` asks for: in ``state_dir``, else beside the gallery, else, for a fleet, among the
    user's files; without a place, in memory.

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
    _log.error("outbox is damaged: set aside, begun anew", outbox=str(path), now=str(target), reason=str(error))
