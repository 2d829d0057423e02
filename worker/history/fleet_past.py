"""What a whole fleet remembers, for one worker: what others learn or say, and one id for each stranger.

The pipeline never waits long for the database. What others learn comes by a thread. Before a new id is given, the
database is asked whether another worker has just met the same person. If it does not answer in time, the worker gives
an id of its own.
"""

import threading
import time
from collections.abc import Callable
from typing import Final

from worker.background import BackgroundTask, Heartbeats
from worker.errors import HistoryError
from worker.history.records import CounterExample, EmbedderId, UnknownPerson
from worker.history.store import History
from worker.logs import get_logger
from worker.observer import Observer

Choice = Callable[[list[UnknownPerson]], UnknownPerson | None]
"""Who of these is the person that was met; None if none is."""

_STOP_S: Final = 3.0

_log = get_logger(__name__)


class FleetPast:
    """Unknown people and counter-examples in the database ``place``, looked at every ``every_s``.

    A new id waits for the database for ``wait_s`` at most. After it did not answer, it is not asked for ``pause_s``.
    ``remember_s``: how long somebody new is remembered. The thread is ``unknowns`` in ``heartbeats``, and hangs if it
    shows no sign of life for ``max_silence_s``.
    """

    def __init__(
        self,
        place: str,
        remember_s: float,
        *,
        every_s: float = 1.0,
        wait_s: float = 0.3,
        pause_s: float = 5.0,
        observer: Observer | None = None,
        heartbeats: Heartbeats | None = None,
        max_silence_s: float = 120.0,
    ) -> None:
        self._observer = observer
        self._place = place
        self._remember_s = remember_s
        self._wait_s = wait_s
        self._pause_s = pause_s
        self._lock = threading.Lock()
        self._changed: list[UnknownPerson] = []
        self._revision = 0
        self._taken_up = 0
        self._away_until_s = 0.0
        self._asking: threading.Thread | None = None
        self._problem = ""
        self._history: History | None = None
        self._embedder: EmbedderId | None = None
        self._examples: tuple[int, list[CounterExample]] = (-1, [])
        self._look_once()
        self._task = BackgroundTask(
            "unknowns", self._look_once, interval_s=every_s, heartbeats=heartbeats, max_silence_s=max_silence_s
        )
        self._task.start()

    def start_over(self, embedder: EmbedderId) -> None:
        """Lets :meth:`changed` begin with everybody; counter-examples are those that ``embedder`` made."""
        with self._lock:
            self._changed, self._revision, self._taken_up = [], 0, 0
            self._embedder, self._examples = embedder, (-1, [])
        self._look_once()

    def changed(self) -> list[UnknownPerson]:
        """The people who have changed since the last call; those who are gone have no template. Never waits."""
        with self._lock:
            changed, self._changed = self._changed, []
            self._taken_up = self._revision
        return changed

    def denials_revision(self) -> int:
        """As :meth:`History.denials_revision`, when it was last looked. Never waits."""
        return self._examples[0]

    def counter_examples(self, embedder: EmbedderId) -> list[CounterExample]:
        """As :meth:`History.counter_examples`, when it was last looked. Never waits."""
        now_s = time.time()
        return [example for example in self._examples[1] if embedder == self._embedder and example.expires_s > now_s]

    def claim(self, person: UnknownPerson, choose: Choice) -> UnknownPerson:
        """``person``, who is new for this worker, or the same person whom another worker has met meanwhile.

        ``choose`` is asked about the people whom :meth:`changed` has not told of yet. It is called in another thread.
        """
        if time.monotonic() < self._away_until_s or (self._asking is not None and self._asking.is_alive()):
            return person
        found: list[UnknownPerson] = []
        asking = threading.Thread(target=self._ask, args=(person, self._taken_up, choose, found), daemon=True)
        self._asking = asking
        asking.start()
        asking.join(self._wait_s)
        if not found:
            self._away_until_s = time.monotonic() + self._pause_s
            _log.warning("the database does not answer in time: an unknown person gets an id of this worker's own")
            return person
        return found[0]

    def close(self) -> None:
        """Ends the thread."""
        if self._task.stop(_STOP_S) and self._history is not None:
            self._history.close()

    def _ask(self, person: UnknownPerson, revision: int, choose: Choice, found: list[UnknownPerson]) -> None:
        try:
            with History.open(self._place, observer=self._observer) as history:
                found.append(history.claim(person, revision, choose, remember_s=self._remember_s))
        except HistoryError as error:
            _log.warning("unknown people of the fleet cannot be looked up", reason=str(error))

    def _look_once(self) -> None:
        try:
            if self._history is None:
                self._history = History.open(self._place, observer=self._observer)
            changed, revision = self._history.unknowns(self._revision)
            embedder, said = self._embedder, self._history.denials_revision()
            examples = self._examples
            if embedder is not None and said != examples[0]:
                examples = said, self._history.counter_examples(embedder)
        except HistoryError as error:
            if not self._problem:
                _log.warning("unknown people are remembered by this worker alone", reason=str(error))
            self._problem = str(error)
            return
        self._problem = ""
        with self._lock:
            self._changed += changed
            self._revision = revision
            if embedder == self._embedder:
                self._examples = examples
