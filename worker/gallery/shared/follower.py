"""Keeps a worker's copy of a shared gallery current, and tells the fleet which version the worker searches."""

import secrets
import time
from collections.abc import Callable
from typing import Final

from worker.background import BackgroundTask
from worker.errors import GalleryError
from worker.gallery.shared.replica import Copy
from worker.gallery.shared.store import SharedStore
from worker.logs import get_logger
from worker.observer import Observer

BEAT_S: Final = 2.0
"""How often a worker says that it is alive, and looks whether Redis still has the gallery."""
_BLOCK_S: Final = 1.0
_PAUSE_S: Final = 0.5
_STOP_S: Final = 3.0

_log = get_logger(__name__)


class GalleryFollower:
    """Calls ``catch_up`` when there is a change, and at every beat; ``copy`` says what the worker has.

    The log tells once that Redis is away, and once that it is back. Only :meth:`stop` ends the thread.
    """

    def __init__(
        self,
        store: SharedStore,
        catch_up: Callable[[], bool],
        copy: Callable[[], Copy],
        worker_id: str,
        observer: Observer,
    ) -> None:
        self._store = store
        self._catch_up = catch_up
        self._copy = copy
        # Two processes of one name are two workers: one must not answer for the other.
        self._worker_id = f"{worker_id}/{secrets.token_hex(4)}"
        self._observer = observer
        self._block_s = min(_BLOCK_S, store.longest_block_s)
        self._beaten_s = float("-inf")
        self._acknowledged = 0
        self._away_since_s: float | None = None
        self._task = BackgroundTask("gallery", self._step, interval_s=BEAT_S)

    def start(self) -> None:
        """Begins to follow; the worker counts as live once this returns, if Redis answers."""
        observer = self._observer
        observer.gallery_current()
        try:
            self._beat()
        except GalleryError as error:
            self._note(error)
        self._task.start()

    def stop(self) -> None:
        """Ends the thread, and takes the worker off the list of those that are waited for."""
        self._task.stop(_STOP_S)
        if self._away_since_s is None:
            try:
                self._store.leave(self._worker_id)
            except GalleryError as error:
                _log.warning("the shared gallery was not told of the stop", problem=str(error))

    def _step(self) -> float:
        """Waits for a change; returns after how many seconds it is to be called again."""
        try:
            self._follow()
        except GalleryError as error:
            self._note(error)
            return _PAUSE_S
        return 0.0

    def _follow(self) -> None:
        away = self._away_since_s is not None
        if not away and not self._store.wait(self._copy(), self._block_s) and not self._is_due():
            return
        if self._catch_up():
            self._observer.gallery_current()
        if self._is_due() or self._copy().state.version != self._acknowledged:
            self._beat()
        if self._away_since_s is not None:
            away_s, self._away_since_s = round(time.monotonic() - self._away_since_s, 1), None
            _log.info("the shared gallery is back", gallery=self._store.label, away_s=away_s)

    def _is_due(self) -> bool:
        return time.monotonic() - self._beaten_s >= BEAT_S

    def _beat(self) -> None:
        version = self._copy().state.version
        self._store.acknowledge(self._worker_id, version)
        self._beaten_s, self._acknowledged = time.monotonic(), version

    def _note(self, error: GalleryError) -> None:
        if self._away_since_s is None:
            self._away_since_s = time.monotonic()
            _log.warning(
                "the shared gallery is away: going on with what is in memory",
                version=self._copy().state.version, problem=str(error),
            )  # fmt: skip
