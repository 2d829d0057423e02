"""What a whole fleet remembers, for one worker: what others learn or say, and one id for each stranger.

The pipeline never waits long for the database. What others learn comes by a thread. Before a new id is given, this
thread asks the database whether another worker has just met the same person. If the answer is slow, the id comes later
in the sighting; a worker gives an id of its own only if the database is away.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Final

from worker.background import BackgroundTask, Heartbeats
from worker.errors import HistoryError
from worker.history.records import CounterExample, EmbedderId, UnknownPerson
from worker.history.regrouped import Regrouped
from worker.history.store import History
from worker.history.strangers import EVERYBODY
from worker.logs import get_logger
from worker.observer import Observer

Choice = Callable[[list[UnknownPerson]], UnknownPerson | None]
"""Who of these is the person that was met; None if none is."""

_STOP_S: Final = 3.0

_log = get_logger(__name__)


@dataclass(slots=True)
class _Claim:
    """Somebody new, about whom those are asked who changed after ``revision``; ``known_as`` is the answer."""

    person: UnknownPerson
    revision: int
    choose: Choice
    begun_s: float = field(default_factory=time.monotonic)
    known_as: UnknownPerson | None = None
    done: threading.Event = field(default_factory=threading.Event)


class FleetPast:
    """Unknown people and counter-examples in the database ``place``, looked at every ``every_s``.

    A new id holds up its camera for ``wait_s`` at most. After the database did not answer for ``patience_s``, it is not
    asked for ``pause_s``.
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
        patience_s: float = 3.0,
        pause_s: float = 5.0,
        observer: Observer | None = None,
        heartbeats: Heartbeats | None = None,
        max_silence_s: float = 120.0,
    ) -> None:
        self._observer = observer
        self._place = place
        self._remember_s = remember_s
        self._wait_s = wait_s
        self._patience_s = patience_s
        self._pause_s = pause_s
        self._lock = threading.Lock()
        self._changed: list[UnknownPerson] = []
        self._revision = 0
        self._regrouped = Regrouped()
        self._taken_up = 0
        self._away_until_s = 0.0
        self._claims: dict[str, _Claim] = {}
        self._asked: SimpleQueue[_Claim] = SimpleQueue()
        self._problem = ""
        self._history: History | None = None
        self._embedder: EmbedderId | None = None
        self._examples: tuple[int, list[CounterExample]] = (-1, [])
        self._look_once()
        self._task = BackgroundTask(
            "unknowns", self._step, interval_s=every_s, heartbeats=heartbeats, max_silence_s=max_silence_s
        )
        self._task.start()

    def start_over(self, embedder: EmbedderId) -> None:
        """Lets :meth:`changed` begin with everybody; counter-examples are those that ``embedder`` made."""
        with self._lock:
            self._changed, self._revision, self._taken_up = [], 0, 0
            self._embedder, self._examples = embedder, (-1, [])
        self._claims.clear()
        self._look_once()

    def changed(self) -> list[UnknownPerson]:
        """The people who have changed since the last call; those who are gone have no template. Never waits."""
        with self._lock:
            changed, self._changed = self._changed, []
            self._taken_up = self._revision
        return changed

    def regrouped(self) -> Regrouped:
        """As :meth:`History.regrouped`, when it was last looked. Never waits."""
        return self._regrouped

    def denials_revision(self) -> int:
        """As :meth:`History.denials_revision`, when it was last looked. Never waits."""
        return self._examples[0]

    def counter_examples(self, embedder: EmbedderId) -> list[CounterExample]:
        """As :meth:`History.counter_examples`, when it was last looked. Never waits."""
        now_s = time.time()
        return [example for example in self._examples[1] if embedder == self._embedder and example.expires_s > now_s]

    def claim(self, person: UnknownPerson, choose: Choice, *, at_once: bool = False) -> UnknownPerson | None:
        """``person``, who is new for this worker, or the same person whom another worker has met meanwhile. None: the
        database has not said so far; ask again with the next frame. ``at_once``: there is none.

        ``choose`` is asked about the people whom :meth:`changed` has not told of yet. It is called in another thread.
        """
        claim = self._claims.get(person.unknown_id)
        if claim is None:
            if at_once or time.monotonic() < self._away_until_s:
                return person
            others_wait = bool(self._claims)
            claim = self._claims[person.unknown_id] = _Claim(person, self._taken_up, choose)
            self._asked.put(claim)
            self._task.wake()
            if not others_wait:
                claim.done.wait(self._wait_s)
        if not claim.done.is_set() and not at_once:
            if time.monotonic() - claim.begun_s < self._patience_s:
                return None
            self._away_until_s = time.monotonic() + self._pause_s
            _log.warning("the database does not answer in time: an unknown person gets an id of this worker's own")
        self._claims.pop(person.unknown_id, None)
        return claim.known_as or person

    def give_up(self, unknown_id: str) -> None:
        """Nobody wants to know any more who this is."""
        self._claims.pop(unknown_id, None)

    def close(self) -> None:
        """Ends the thread."""
        if self._task.stop(_STOP_S) and self._history is not None:
            self._history.close()

    # What follows is done by the thread, and once before it starts.

    def _step(self) -> None:
        while True:
            try:
                claim = self._asked.get_nowait()
            except Empty:
                break
            self._ask(claim)
            claim.done.set()
        self._look_once()

    def _ask(self, claim: _Claim) -> None:
        if claim.person.unknown_id not in self._claims:
            return
        try:
            # Of who is there after an outage, nothing is known before the next look.
            revision = EVERYBODY if self._problem else claim.revision
            claim.known_as = self._opened().claim(claim.person, revision, claim.choose, remember_s=self._remember_s)
        except HistoryError as error:
            self._problem = str(error)
            self._away_until_s = time.monotonic() + self._pause_s
            _log.warning("unknown people of the fleet cannot be looked up", reason=str(error))

    def _opened(self) -> History:
        if self._history is None:
            self._history = History.open(self._place, observer=self._observer)
        return self._history

    def _look_once(self) -> None:
        try:
            history = self._opened()
            # After an outage it may be another server, which has another past.
            changed, revision = history.unknowns(EVERYBODY if self._problem else self._revision)
            is_as_before = revision == self._revision and not self._problem
            regrouped = self._regrouped if is_as_before else history.regrouped()
            embedder, said = self._embedder, history.denials_revision()
            examples = self._examples
            if embedder is not None and said != examples[0]:
                examples = said, history.counter_examples(embedder)
        except HistoryError as error:
            if not self._problem:
                _log.warning("unknown people are remembered by this worker alone", reason=str(error))
            self._problem = str(error)
            return
        with self._lock:
            self._changed += changed
            if revision < self._revision:
                _log.warning("the past of the fleet went back: what is there now is taken up anew")
            if self._problem or revision < self._revision:
                self._taken_up = EVERYBODY
            self._revision, self._regrouped, self._problem = revision, regrouped, ""
            if embedder == self._embedder:
                self._examples = examples
