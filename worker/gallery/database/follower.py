"""Keeps a worker's copy of a gallery current, and tells the others which version the worker searches."""

import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from worker.background import BackgroundTask, Heartbeats
from worker.errors import GalleryError
from worker.gallery.database.store import Copy, GalleryStore, Listening
from worker.logs import get_logger
from worker.observer import Observer

BEAT_S: Final = 2.0
"""How often a worker says that it is alive, and looks at the version whether or not it was told of a change."""
SILENT_S: Final = 300.0
"""A follower that shows no sign of life for this long hangs. To read a large gallery whole takes minutes."""
_LISTEN_S: Final = 0.5
_PAUSE_S: Final = 0.5
_STOP_S: Final = 3.0

_log = get_logger(__name__)


class GalleryFollower:
    """Calls ``catch_up`` when the database announces a change, and at every beat; ``copy`` says what the worker has.

    The log tells once that the database is away, and once that it is back. Only :meth:`stop` ends the thread.
    It is ``gallery-...`` in ``heartbeats``: when
    models are switched there are two for a moment.
    """

    def __init__(
        self,
        store: GalleryStore,
        catch_up: Callable[[Listening], object],
        copy: Callable[[], Copy],
        worker_id: str,
        observer: Observer,
        heartbeats: Heartbeats | None = None,
    ) -> None:
        self.erased = ""
        """The stamp of the list of erased people that the worker has carried out."""
        self.away = ""
        """Why the database cannot be asked now; "" if it can."""
        self._store = store
        self._catch_up = catch_up
        self._copy = copy
        # Two processes of one name are two workers: one must not answer for the other.
        own = secrets.token_hex(4)
        self._worker_id = f"{worker_id}/{own}"
        self._observer = observer
        self._listening: Listening | None = None
        self._beaten_s = float("-inf")
        self._acknowledged = 0
        self._away_since_s = 0.0
        self._task = BackgroundTask(
            f"gallery-{own}", self._step, interval_s=BEAT_S, heartbeats=heartbeats, max_silence_s=SILENT_S
        )

    def start(self, away: str = "") -> None:
        """Begins to follow; the worker counts as live once this returns, if the database answers.

        ``away``: why the database could not be asked just before.
        """
        if away:
            self._note(away)
        else:
            self._observer.gallery_current()
            try:
                self._beat()
            except GalleryError as error:
                self._note(str(error))
        self._task.start()

    def tell_erased(self, stamp: str) -> None:
        """The worker has carried out this list; the others learn of it with the next beat, which is due now."""
        self.erased, self._beaten_s = stamp, float("-inf")
        self._task.wake()

    def stop(self) -> None:
        """Ends the thread, and takes the worker off the list of those that are waited for."""
        if not self._task.stop(_STOP_S):
            return
        self._hang_up()
        if not self.away:
            try:
                self._store.leave(self._worker_id)
            except GalleryError as error:
                _log.warning("the database was not told of the stop", problem=str(error))

    def _step(self) -> float:
        """Waits for a change; returns after how many seconds it is to be called again."""
        try:
            told = self._listening is None
            listening = self._listening = self._listening or self._store.listen()
            # What was changed before it listened has not been heard of.
            if told or self._is_told(listening) or self.away or self._is_due():
                self._take_up(listening)
        except GalleryError as error:
            self._hang_up()
            self._note(str(error))
            return _PAUSE_S
        return 0.0

    def _is_told(self, listening: Listening) -> bool:
        wait_s = min(_LISTEN_S, max(0.0, self._beaten_s + BEAT_S - time.monotonic()))
        return self._store.is_told(listening, wait_s)

    def _take_up(self, listening: Listening) -> None:
        self._catch_up(listening)
        self._observer.gallery_current()
        if self._is_due() or self._copy().contents.version != self._acknowledged:
            self._beat(listening)
        if self.away:
            self.away = ""
            _log.info("the gallery is back", gallery=self._store.label, away_s=round(self._away_s(), 1))

    def _is_due(self) -> bool:
        return time.monotonic() - self._beaten_s >= BEAT_S

    def _beat(self, listening: Listening | None = None) -> None:
        version = self._copy().contents.version
        self._store.acknowledge(self._worker_id, version, self.erased, listening)
        self._beaten_s, self._acknowledged = time.monotonic(), version

    def _away_s(self) -> float:
        return time.monotonic() - self._away_since_s

    def _hang_up(self) -> None:
        if self._listening is not None:
            with suppress(Exception):
                self._listening.invalidate()
                self._listening.close()
            self._listening = None

    def _note(self, problem: str) -> None:
        if not self.away:
            self._away_since_s = time.monotonic()
            _log.warning(
                "the gallery is away: going on with the copy in memory",
                version=self._copy().contents.version, problem=problem,
            )  # fmt: skip
        self.away = problem
