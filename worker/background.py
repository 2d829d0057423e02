"""Work beside the pipeline: one form for every thread that repeats a step, and its heartbeat."""

import math
import threading
import time
from collections.abc import Callable
from typing import Final

from worker.logs import get_logger

_TICK_S: Final = 1.0
"""A task that waits for longer beats this often meanwhile."""

NO_SIGN: Final = "no sign of life"
"""How it is told that a thread hangs."""

_log = get_logger(__name__)


class Heartbeats:
    """When each watched thread has last beaten, which shows that it lives. Safe to use from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._beats: dict[str, tuple[float, float]] = {}

    def watch(self, name: str, max_silence_s: float) -> Callable[[], None]:
        """Expects a beat of the thread ``name`` at least every ``max_silence_s``; returns the function that beats."""

        def beat() -> None:
            with self._lock:
                if name in self._beats:
                    self._beats[name] = self._clock(), max_silence_s

        with self._lock:
            self._beats[name] = self._clock(), max_silence_s
        return beat

    def unwatch(self, name: str) -> None:
        """The thread ``name`` has ended as it should."""
        with self._lock:
            self._beats.pop(name, None)

    def failures(self) -> dict[str, str]:
        """The threads that have not beaten in time, each with what is wrong."""
        now_s = self._clock()
        with self._lock:
            beats = dict(self._beats)
        return {
            name: f"{NO_SIGN} for {now_s - beaten_s:.1f} s (limit {max_silence_s:g} s)"
            for name, (beaten_s, max_silence_s) in beats.items()
            if now_s - beaten_s > max_silence_s
        }


class BackgroundTask:
    """A step that a thread of its own repeats until it is stopped.

    ``step`` does one piece of work. It returns the seconds until the next step is due: 0.0 means that more work waits,
    and None stands for ``interval_s``. If it raises, the error is logged, and the step is tried again after
    ``interval_s``: no single failure ends the thread. The thread beats before each step, and about once a second while
    it waits, except after a step that raised: a part that fails for good shows no sign of life. A step that takes long
    calls :meth:`beat` itself. ``name`` is the name of the thread, in the log and in ``heartbeats``.

    With ``drains``, work that waits is still done after :meth:`stop`: until a step that began after the stop returns
    something other than 0.0, or the time of the stop is over.
    """

    def __init__(
        self,
        name: str,
        step: Callable[[], float | None],
        *,
        interval_s: float,
        heartbeats: Heartbeats | None = None,
        max_silence_s: float = 60.0,
        drains: bool = False,
    ) -> None:
        self.name = name
        self._step = step
        self._interval_s = interval_s
        self._heartbeats = Heartbeats() if heartbeats is None else heartbeats
        self._max_silence_s = max_silence_s
        self._drains = drains
        self._beat: Callable[[], None] = lambda: None
        self._changed = threading.Condition()
        self._woken = False
        self._stopping = False
        self._failing = False
        self._deadline_s = math.inf
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Starts the thread; the first step follows at once."""
        self._beat = self._heartbeats.watch(self.name, self._max_silence_s)
        self._thread.start()

    def wake(self) -> None:
        """Lets the next step begin now. May be called from any thread, and from a signal handler."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def stop(self, timeout_s: float) -> bool:
        """Ends the thread, and waits at most ``timeout_s`` for its end; returns whether it has ended."""
        with self._changed:
            self._deadline_s = time.monotonic() + timeout_s
            self._stopping = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        self._heartbeats.unwatch(self.name)
        return not self._thread.is_alive()

    @property
    def stopping(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._stopping

    @property
    def left_s(self) -> float:
        """For how many seconds a step may still work; infinite before :meth:`stop`."""
        return self._deadline_s - time.monotonic()

    def beat(self) -> None:
        """Shows that the thread lives."""
        self._beat()

    def pause(self, seconds: float) -> bool:
        """Waits within a step, and beats meanwhile. After :meth:`stop` it returns at once, with True."""
        until_s = time.monotonic() + seconds
        with self._changed:
            while not self._stopping and (left_s := until_s - time.monotonic()) > 0:
                self._beat()
                self._changed.wait(min(left_s, _TICK_S))
            return self._stopping

    def _run(self) -> None:
        while not self._stopping or (self._drains and self.left_s > 0):
            # A step that began before the stop may have looked for work before the last of it came.
            stopping = self._stopping
            if not self._failing:
                self._beat()
            try:
                pause_s = self._step()
                self._failing = False
            except Exception:  # noqa: BLE001 - without this thread its part of the worker would stand still
                if self.left_s <= 0:
                    return  # the stop no longer waits for this thread, and may have closed what the step uses
                _log.exception("background work failed; it is tried again", task=self.name)
                self._failing = True
                pause_s = self._interval_s
            if stopping and pause_s != 0.0:
                return
            self._rest(self._interval_s if pause_s is None else pause_s)

    def _rest(self, seconds: float) -> None:
        """Waits until the next step is due, or the task is woken or stopped."""
        until_s = time.monotonic() + seconds
        with self._changed:
            while not (self._woken or self._stopping) and (left_s := until_s - time.monotonic()) > 0:
                if not self._failing:
                    self._beat()
                self._changed.wait(min(left_s, _TICK_S))
            self._woken = False
