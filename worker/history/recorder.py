"""Keeps the history of a worker: written by a thread of its own, so that no disk delays a frame."""

import threading
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, Full, Queue
from typing import Final

from worker.background import Heartbeats
from worker.config import Config, history_folder
from worker.errors import HistoryDiskError, HistoryError
from worker.history.store import History, PastSighting, Tally, UnknownPerson
from worker.logs import get_logger
from worker.observer import Observer

_QUEUED: Final = 10_000
_GATHER_S: Final = 0.5
_PRUNE_EVERY_S: Final = 3600.0
_RETRY_S: Final = 2.0
_DAY_S: Final = 86_400.0

_log = get_logger(__name__)

_Rejects = tuple[str, datetime, str, int, int]


class Recorder:
    """What the pipeline tells of sightings. The base forgets it."""

    lasting = False

    def sighting(self, sighting: PastSighting) -> None:
        """A sighting has ended."""

    def unknown(self, person: UnknownPerson) -> None:
        """Somebody unknown was met, met again, or (without a template) turned out to be no unknown person."""

    def rejected(self, camera_id: str, at: datetime, reason: str, *, tracks: int = 0, faces: int = 0) -> None:
        """Tracks or faces seen ``at`` that belong to no sighting, for ``reason``."""

    def close(self, timeout_s: float = 5.0) -> None:
        """Writes what was told so far."""


class HistoryRecorder(Recorder):
    """Writes to the history in ``folder``, and removes there what has become too old.

    Nothing waits for the disk: what cannot be written is tried again, then given up and counted. If the disk is full
    or fails at the start, the file is opened as soon as there is something to write and it can be. A file that was
    removed while it was open is begun anew.

    Raises:
        HistoryError: the file cannot be opened, whatever the disk does.
    """

    lasting = True

    def __init__(
        self,
        folder: Path,
        config: Config,
        observer: Observer | None = None,
        *,
        heartbeats: Heartbeats | None = None,
    ) -> None:
        self._keep_s = config.history.keep_days * _DAY_S
        self._remember_s = config.unknowns.remember_days * _DAY_S
        self._observer = observer or Observer()
        self._heartbeat = (heartbeats or Heartbeats()).watch("history", 60.0)
        self._queue: Queue[PastSighting | UnknownPerson | _Rejects] = Queue(_QUEUED)
        self._closing = threading.Event()
        self._deadline_s = float("inf")
        self._folder = folder
        self._history: History | None = None
        try:
            self._opened()
        except HistoryDiskError as error:
            _log.error("past sightings cannot be written now", reason=str(error))
            self._observer.history_degraded(degraded=True)
        self._thread = threading.Thread(target=self._run, name="history", daemon=True)
        self._thread.start()

    def sighting(self, sighting: PastSighting) -> None:
        self._put(sighting)

    def unknown(self, person: UnknownPerson) -> None:
        self._put(person)

    def rejected(self, camera_id: str, at: datetime, reason: str, *, tracks: int = 0, faces: int = 0) -> None:
        self._put((camera_id, at, reason, tracks, faces))

    def close(self, timeout_s: float = 5.0) -> None:
        self._deadline_s = time.monotonic() + timeout_s
        self._closing.set()
        self._thread.join(timeout_s + 1.0)

    def _put(self, item: PastSighting | UnknownPerson | _Rejects) -> None:
        try:
            self._queue.put_nowait(item)
        except Full:
            self._observer.record_dropped("buffer_full")

    def _run(self) -> None:
        pruned_s = time.monotonic()
        while True:
            self._heartbeat()
            closing = self._closing.is_set()
            self._observer.queue_depth("history", self._queue.qsize())
            self._write(self._gather())
            if closing and self._queue.empty():
                break
            if time.monotonic() - pruned_s > _PRUNE_EVERY_S:
                pruned_s = time.monotonic()
                self._prune()
        if self._history is not None:
            self._history.close()

    def _opened(self) -> History:
        if self._history is None:
            self._history = History.open(self._folder, create=True)
            self._history.prune(keep_s=self._keep_s, remember_s=self._remember_s)
        return self._history

    def _gather(self) -> list[PastSighting | UnknownPerson | _Rejects]:
        """What is there at the end of a short wait: one transaction for many rows."""
        self._closing.wait(_GATHER_S)
        items = []
        while True:
            try:
                items.append(self._queue.get_nowait())
            except Empty:
                return items

    def _write(self, items: list[PastSighting | UnknownPerson | _Rejects]) -> None:
        if not items:
            return
        failed = False
        while True:
            self._heartbeat()
            try:
                self._write_once(items)
            except HistoryError as error:
                if not failed:
                    _log.warning("past sightings wait to be written", reason=str(error), waiting=len(items))
                failed = True
                self._observer.history_degraded(degraded=True)
                if time.monotonic() + _RETRY_S > self._deadline_s:
                    self._give_up(len(items))
                    return
                time.sleep(_RETRY_S if not self._closing.is_set() else 0.1)
            else:
                self._observer.history_degraded(degraded=False)
                return

    def _write_once(self, items: list[PastSighting | UnknownPerson | _Rejects]) -> None:
        history = self._opened()
        history.write(
            [item for item in items if isinstance(item, PastSighting)],
            [item for item in items if isinstance(item, UnknownPerson)],
            _tallies([item for item in items if isinstance(item, tuple)]),
            keep_s=self._keep_s,
            remember_s=self._remember_s,
        )
        if not history.is_in_place():
            self._history = None
            history.close()
            raise HistoryError(f"history {history.path} was removed or replaced while it was in use")

    def _give_up(self, count: int) -> None:
        self._observer.record_dropped("unwritten", count)
        _log.error("past sightings given up at the stop", count=count)

    def _prune(self) -> None:
        try:
            self._opened().prune(keep_s=self._keep_s, remember_s=self._remember_s)
        except HistoryError as error:
            _log.warning("what has expired could not be removed yet", reason=str(error))


def open_recorder(
    config: Config, observer: Observer | None = None, *, heartbeats: Heartbeats | None = None
) -> Recorder | None:
    """The recorder that ``config`` asks for; None where it asks for none.

    Where the default place cannot be written, nothing is kept, and the log says so: a gallery that is mounted read-only
    is no reason not to recognise people.

    Raises:
        HistoryError: the place that ``state_dir`` names cannot be written, or holds a damaged history.
    """
    folder = history_folder(config)
    if folder is None or not config.history.enabled:
        return None
    try:
        return HistoryRecorder(folder, config, observer, heartbeats=heartbeats)
    except HistoryError as error:
        if config.state_dir is not None:
            raise
        _log.warning("past sightings are not remembered; state_dir names another place", reason=str(error))
        (observer or Observer()).history_degraded(degraded=True)
        return None


def open_history(config: Config, recorder: Recorder) -> History | None:
    """The history that ``recorder`` writes, for reading; None where nothing is kept, or the disk is full or fails."""
    folder = history_folder(config)
    if folder is None or not recorder.lasting:
        return None
    try:
        return History.open(folder, create=True)
    except HistoryDiskError as error:
        _log.error("who was met before cannot be looked up until a restart", reason=str(error))
        return None


def _tallies(rejects: list[_Rejects]) -> list[Tally]:
    tracks: Counter[tuple[str, datetime, str]] = Counter()
    faces: Counter[tuple[str, datetime, str]] = Counter()
    for camera_id, at, reason, track_count, face_count in rejects:
        key = camera_id, at.astimezone(UTC).replace(minute=0, second=0, microsecond=0), reason
        tracks[key] += track_count
        faces[key] += face_count
    return [Tally(*key, tracks[key], faces[key]) for key in tracks.keys() | faces.keys()]
