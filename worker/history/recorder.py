"""Keeps the history of a worker. A thread of its own writes it, so that no disk delays a frame."""

import threading
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, Full, Queue
from typing import Final
from urllib.parse import quote

from worker.background import BackgroundTask, Heartbeats
from worker.config import Config, default_state_dir, history_place
from worker.erased import Erased
from worker.errors import HistoryError, HistoryUnavailableError, HistoryValueError
from worker.history.records import PastSighting, Tally, UnknownPerson
from worker.history.retention import Retention
from worker.history.reuniting import Tell
from worker.history.store import History
from worker.history.waiting import Waiting
from worker.logs import get_logger
from worker.observer import Observer

_PRUNE_EVERY_S: Final = 3600.0
_CLOSING_RETRY_S: Final = 0.1
_DAY_S: Final = 86_400.0
_VANISH_S: Final = 3.0

_log = get_logger(__name__)

_Rejects = tuple[str, datetime, str, int, int]


@dataclass(frozen=True, slots=True)
class _Erase:
    erased: Erased
    names: tuple[str, ...]
    done: threading.Event


_Row = PastSighting | UnknownPerson | _Rejects | str | _Erase


class Recorder:
    """Writes to the history at ``place``, a folder or the URL of a database, and removes there what has become too old.

    Nothing waits for the disk: what cannot be written is tried again, then given up and counted. If the disk is full
    or fails at the start, or the database is away, the history is opened as soon as there is something to write and it
    can be. A file that was removed while it was open is made again. What cannot be written to a database now is kept in
    ``waiting``, if that is given. ``tell`` is given the sightings whose unknown person has another id than was told, by
    the writer's thread, see :meth:`History.write`. The thread is ``history`` in ``heartbeats``.

    Of what was told, at most ``queued`` rows wait; what was told within ``gather_s`` is one transaction; what could not
    be written is tried again after ``retry_s``; for another process that writes, ``busy_timeout_s`` are waited.

    Raises:
        HistoryError: the file cannot be opened for a reason other than the disk.
    """

    def __init__(
        self,
        place: Path | str,
        config: Config,
        observer: Observer | None = None,
        *,
        waiting: Waiting | None = None,
        tell: Tell | None = None,
        heartbeats: Heartbeats | None = None,
        queued: int = 10_000,
        gather_s: float = 0.5,
        look_every_s: float = 10.0,
        retry_s: float = 2.0,
        busy_timeout_s: float = 5.0,
    ) -> None:
        self._keep_s = config.history.keep_days * _DAY_S
        self._remember_s = config.unknowns.remember_days * _DAY_S
        self._observer = observer or Observer()
        self._retry_s = retry_s
        self._busy_timeout_s = busy_timeout_s
        self._queue: Queue[_Row] = Queue(queued)
        self._unwritten: list[_Row] = []
        self._removals: list[str] = []
        self._erased = Erased()
        self._failed = False
        self.retention: Retention | None = None
        """For how long things are kept, as the database said when this last looked; None until it has answered."""
        self._look_every_s = look_every_s
        self._looked_s = float("-inf")
        self._pruned_s = time.monotonic()
        self._place = place
        self._waiting = waiting
        self._tell = tell
        self._threshold = config.unknowns.threshold
        self._tried_s = float("-inf")
        self._history: History | None = None
        try:
            self._opened()
        except HistoryUnavailableError as error:
            _log.error("past sightings cannot be written now", reason=str(error))
            self._observer.history_degraded(degraded=True)
            self._failed, self._tried_s = True, time.monotonic()
        self._task = BackgroundTask("history", self._step, interval_s=gather_s, heartbeats=heartbeats, drains=True)
        self._task.start()

    def sighting(self, sighting: PastSighting) -> None:
        """A sighting has ended."""
        self._put(sighting)

    def unknown(self, person: UnknownPerson) -> None:
        """Somebody unknown was met, met again, or (without a template) turned out to be no unknown person."""
        self._put(person)

    def rejected(self, camera_id: str, at: datetime, reason: str, *, tracks: int = 0, faces: int = 0) -> None:
        """Tracks or faces seen ``at`` that belong to no sighting, for ``reason``."""
        self._put((camera_id, at, reason, tracks, faces))

    def removed(self, identity_id: str) -> None:
        """This person is known no more: nor is it which sightings do not show them."""
        self._put(identity_id)

    def erase(self, erased: Erased, names: Collection[str]) -> threading.Event:
        """Removes all that bears an id of ``erased`` from the history, and ``names`` from what is told of others; from
        now on, nothing of the kind is written. The event is set when that is done."""
        request = _Erase(erased, tuple(names), threading.Event())
        self._put(request)
        self._task.wake()
        return request.done

    def open_history(self) -> History | None:
        """The history that this writes, for reading; None where the disk is full or fails."""
        try:
            return History.open(self._place, create=True)
        except HistoryUnavailableError as error:
            _log.error("who was met before cannot be looked up until a restart", reason=str(error))
            return None

    def close(self, timeout_s: float = 5.0) -> None:
        """Writes what was told so far."""
        if self._task.stop(timeout_s) and self._history is not None:
            self._history.close()
            self._history = None

    def _put(self, row: _Row) -> None:
        try:
            self._queue.put_nowait(row)
        except Full:
            self._observer.record_dropped("buffer_full")

    # What follows is done by the writer's thread.

    def _step(self) -> float | None:
        self._observer.queue_depth("history", self._queue.qsize() + len(self._waiting or ()))
        if not self._unwritten:
            self._unwritten = self._told()
        if self._waiting is not None and len(self._waiting) and not self._is_away():
            self._catch_up(self._waiting)
        if self._unwritten and (pause_s := self._write()) is not None:
            return pause_s
        if self._is_set_anew() or time.monotonic() - self._pruned_s > _PRUNE_EVERY_S:
            self._pruned_s = time.monotonic()
            self._prune()
        return 0.0 if self._task.stopping and not self._queue.empty() else None

    def _opened(self) -> History:
        if self._history is None:
            self._history = History.open(
                self._place, create=True, busy_timeout_s=self._busy_timeout_s, observer=self._observer
            )
            self.retention = self._history.retention()
            self._history.prune(keep_s=self._keep_s, remember_s=self._remember_s)
        return self._history

    def _is_set_anew(self) -> bool:
        """Whether somebody has set for how long things are kept."""
        if self._is_away() or time.monotonic() - self._looked_s < self._look_every_s:
            return False
        self._looked_s, before = time.monotonic(), self.retention
        try:
            self.retention = self._opened().retention()
        except HistoryError as error:
            self._note_failure(error)
        return self.retention != before

    def _is_away(self) -> bool:
        """Whether the database did not answer a moment ago, so that it is not asked yet."""
        return self._waiting is not None and time.monotonic() - self._tried_s < self._retry_s

    def _catch_up(self, waiting: Waiting) -> None:
        """Writes what waits in the file, if the database is back."""
        waited = len(waiting)
        try:
            waiting.write_to(
                self._opened(), keep_s=self._keep_s, remember_s=self._remember_s, tell=self._tell,
                threshold=self._threshold,
            )  # fmt: skip
        except HistoryError as error:
            self._note_failure(error)
        else:
            self._note_success()
            _log.info("past sightings that waited for the database are written", count=waited)

    def _told(self) -> list[_Row]:
        """What has come since the last step: one transaction for many rows."""
        rows = []
        while True:
            try:
                rows.append(self._queue.get_nowait())
            except Empty:
                return rows

    def _write(self) -> float | None:
        """Writes what waits. Returns after how many seconds it is tried again; None: it need not be."""
        rows, away = self._unwritten, self._is_away()
        try:
            if away and self._waiting is not None:
                self._set_aside(self._waiting, rows)
                self._unwritten = []
                for request in [row for row in rows if isinstance(row, _Erase)]:
                    self._put(request)
                return None
            self._write_storable(rows)
        except HistoryError as error:
            self._note_failure(error)
            if self._is_away() and not away:
                return 0.0  # to the file
            if not self._task.stopping:
                return self._retry_s
            if self._task.left_s > self._retry_s:
                time.sleep(_CLOSING_RETRY_S)
                return 0.0
            self._observer.record_dropped("unwritten", len(rows))
            _log.error("past sightings given up at the stop", count=len(rows))
        else:
            self._note_success()
        self._unwritten = []
        return None

    def _note_failure(self, error: HistoryError) -> None:
        if not self._failed:
            _log.warning("past sightings wait to be written", reason=str(error), waiting=len(self._unwritten))
        self._failed = True
        self._observer.history_degraded(degraded=True)
        if self._waiting is not None and isinstance(error, HistoryUnavailableError):
            self._tried_s = time.monotonic()

    def _note_success(self) -> None:
        self._observer.history_degraded(degraded=False)
        self._failed = False
        self._tried_s = float("-inf")

    def _set_aside(self, waiting: Waiting, rows: list[_Row]) -> None:
        """Keeps ``rows`` in the file of what waits for the database."""
        sightings, unknowns, rejects = _by_kind(rows)
        removed = [*self._removals, *(row for row in rows if isinstance(row, str))]
        lost = waiting.keep(
            sightings, unknowns, _tallies(rejects), removed, keep_s=self._keep_s, remember_s=self._remember_s
        )
        self._removals = []
        if lost:
            self._observer.record_dropped("buffer_full", lost)

    def _write_storable(self, rows: list[_Row]) -> None:
        """Writes ``rows``. A row that can never be stored is dropped, so that it holds up neither the others nor the
        thread."""
        try:
            self._write_once(rows)
        except HistoryValueError as error:
            if len(rows) > 1:
                for row in rows:
                    self._write_storable([row])
                return
            _log.error("a past sighting cannot be stored", reason=str(error))
            self._observer.record_dropped("invalid")

    def _write_once(self, rows: list[_Row]) -> None:
        history = self._opened()
        for request in [row for row in rows if isinstance(row, _Erase)]:
            self._erased = self._erased.plus(request.erased.erasures)
        rows = self._without_erased(rows)
        sightings, unknowns, rejects = _by_kind(rows)
        history.write(
            sightings, unknowns, _tallies(rejects), keep_s=self._keep_s, remember_s=self._remember_s, tell=self._tell,
            threshold=self._threshold,
        )  # fmt: skip
        self._removals += [row for row in rows if isinstance(row, str)]
        while self._removals:
            history.forget_denials_of(self._removals[-1])
            self._removals.pop()
        for request in [row for row in rows if isinstance(row, _Erase)]:
            history.erase(request.erased, request.names, again=True)
            history.vanish(_VANISH_S)
            if self._waiting is not None:
                self._waiting.erase(request.erased, request.names)
            request.done.set()
        if not history.is_in_place():
            self._history = None
            history.close()
            raise HistoryError(f"history {history.label} was removed or replaced while it was in use")

    def _without_erased(self, rows: list[_Row]) -> list[_Row]:
        """Somebody who is erased while a sighting still goes on must not be written when it ends."""
        if not self._erased:
            return rows
        return [row for row in rows if not _bears(row, self._erased)]

    def _prune(self) -> None:
        try:
            self._opened().prune(keep_s=self._keep_s, remember_s=self._remember_s)
        except HistoryError as error:
            _log.warning("what has expired could not be removed yet", reason=str(error))


def open_recorder(
    config: Config, observer: Observer | None = None, *, tell: Tell | None = None, heartbeats: Heartbeats | None = None
) -> Recorder | None:
    """The recorder that ``config`` asks for; None where it asks for none.

    Where the default place cannot be written, nothing is kept, and the log says so: a gallery that is mounted read-only
    is no reason not to recognise people.

    Raises:
        HistoryError: the place that ``state_dir`` names cannot be written, or holds a damaged history.
    """
    place = history_place(config)
    if place is None or not config.history.enabled:
        return None
    waiting = None
    if isinstance(place, str):
        state_dir = config.state_dir or default_state_dir()
        waiting = Waiting(state_dir / f"waiting-{quote(config.worker_id, safe='')}")
    try:
        return Recorder(place, config, observer, waiting=waiting, tell=tell, heartbeats=heartbeats)
    except HistoryError as error:
        if config.state_dir is not None or waiting is not None:
            raise
        _log.warning("past sightings are not remembered; state_dir names another place", reason=str(error))
        (observer or Observer()).history_degraded(degraded=True)
        return None


def _by_kind(rows: list[_Row]) -> tuple[list[PastSighting], list[UnknownPerson], list[_Rejects]]:
    return (
        [row for row in rows if isinstance(row, PastSighting)],
        [row for row in rows if isinstance(row, UnknownPerson)],
        [row for row in rows if isinstance(row, tuple)],
    )


def _bears(row: _Row, erased: Erased) -> bool:
    if isinstance(row, PastSighting):
        return any(an_id in erased for an_id in (row.identity_id, row.unknown_id, row.sighting_id))
    return isinstance(row, UnknownPerson) and row.template is not None and row.unknown_id in erased


def _tallies(rejects: list[_Rejects]) -> list[Tally]:
    tracks: Counter[tuple[str, datetime, str]] = Counter()
    faces: Counter[tuple[str, datetime, str]] = Counter()
    for camera_id, at, reason, track_count, face_count in rejects:
        key = camera_id, at.astimezone(UTC).replace(minute=0, second=0, microsecond=0), reason
        tracks[key] += track_count
        faces[key] += face_count
    return [Tally(*key, tracks[key], faces[key]) for key in tracks.keys() | faces.keys()]
