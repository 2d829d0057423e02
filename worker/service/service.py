"""Run a worker: build its parts, start them, and stop them in an order that loses nothing.

Stop order. Each step would lose something if the one before it came later:

1. The fleet gives this worker no more cameras.
2. The sources stop, so that nothing new arrives.
3. What is in flight becomes events, or the state with which another worker goes on.
4. The history is written, which may correct what was told.
5. The outbox is delivered.
6. The pictures and the traces of all that are written.
7. Nobody reports on the worker or reads its configuration any more.
8. The port is closed: until then, probes and people can see how the stop goes.
"""

import gc
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from worker import signals
from worker.config import Config, ConfigOrigin
from worker.errors import FacestreamError
from worker.logs import get_logger
from worker.recognition.pipeline import FrameWatcher
from worker.service.health import Health, open_port
from worker.service.parts import Parts, build
from worker.service.preview import open_preview
from worker.service.reloading import Reloader
from worker.service.tracing import open_observer
from worker.types import Event, Frame, Tracks
from worker.video.reader import find_fault

_log = get_logger(__name__)


@dataclass(slots=True)
class Summary:
    """What a run did: the last line of ``run --json``."""

    frames: int = 0
    faces: int = 0
    tracks: int = 0
    events: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    fps: float = 0.0
    duration_s: float = 0.0
    undelivered: int = 0
    shadow: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Stopped:
    """How a run ended: by itself, or by a signal."""

    summary: Summary
    interrupted: bool = False
    errors: tuple[FacestreamError, ...] = ()


class Service:
    """One worker, from its start to its end. ``build`` makes its parts."""

    def __init__(
        self,
        config: Config,
        *,
        origin: ConfigOrigin | None = None,
        on_event: Callable[[Event], None] | None = None,
        watcher: FrameWatcher | None = None,
        build: Callable[..., Parts] = build,
    ) -> None:
        """``origin``, where given, is watched: changes of its file are taken up, also at SIGHUP."""
        self._config = config
        self._origin = origin
        self._on_event = on_event or (lambda _event: None)
        self._preview = open_preview(config.preview)
        self._watcher = _both(watcher, self._preview.watch if self._preview else None)
        self._build = build
        self._observer = open_observer(config.tracing, config.worker_id)
        self._stop = threading.Event()
        self._interrupted = False

    def stop(self) -> None:
        """Asks :meth:`run` to stop gracefully; may be called from any thread or a signal handler."""
        self._stop.set()

    def run(self) -> Stopped:
        """Runs until the sources end or :meth:`stop` is called.

        Raises:
            FacestreamError: the worker cannot start: a model, the gallery, Redis, the port or every source.
        """
        # Sources that can never be read are told before anything is loaded.
        faults = [find_fault(camera) for camera in self._config.cameras]
        if faults and all(faults) and faults[0]:
            raise faults[0]
        health = Health()
        health.condition("models", "loading")
        with self._port(health), _redacted_thread_errors():
            parts = self._build(
                self._config,
                health,
                self._observer,
                origin=self._origin,
                on_event=self._on_event,
                watcher=self._watcher,
            )
            return self._run(parts)

    def _run(self, parts: Parts) -> Stopped:
        started_s = time.monotonic()
        with self._signals(parts.reloader):
            try:
                self._start(parts)
                if not gc.isenabled():  # 'facestream run' searches for no garbage while it starts
                    gc.freeze()
                    gc.enable()
                parts.loop.run(self._stop)
            finally:
                errors, undelivered = self._shut_down(parts)
        summary = self._summary(time.monotonic() - started_s, undelivered)
        summary.shadow = parts.shadow.report() if parts.shadow else None
        return Stopped(summary, self._interrupted, errors)

    def _start(self, parts: Parts) -> None:
        if parts.erasure is not None:
            parts.erasure.catch_up()
            parts.erasure.start()
        for task in (parts.reloader, parts.reporter, parts.lag, parts.member):
            if task is not None:
                task.start()
        for camera in self._config.cameras:
            parts.loop.start_camera(camera)

    def _shut_down(self, parts: Parts) -> tuple[tuple[FacestreamError, ...], int]:
        """Returns what failed, and how many events could not be delivered. The order is told at the top."""
        try:
            if parts.member is not None:
                parts.member.drain()
            outcome = parts.loop.shut_down(
                parts.member.leave if parts.member is not None else None,
                parts.recorder.close if parts.recorder is not None else None,
            )
            for part in (parts.shadow, parts.evidence, self._observer):
                if part is not None:
                    part.close()
        finally:
            # Also when a second Ctrl-C cuts the stop short: nobody should see this worker in the fleet any more.
            for task in (parts.erasure, parts.lag, parts.reporter, parts.reloader):
                if task is not None:
                    task.close()
        return outcome

    def _summary(self, duration_s: float, undelivered: int) -> Summary:
        totals: dict[str, Any] = self._observer.summary()
        return Summary(
            **totals,
            fps=round(totals["frames"] / duration_s, 2) if duration_s else 0.0,
            duration_s=round(duration_s, 3),
            undelivered=undelivered,
        )

    @contextmanager
    def _port(self, health: Health) -> Iterator[None]:
        server = open_port(self._config.metrics, health, self._observer.registry, self._preview)
        try:
            yield
        finally:
            if server is not None:
                server.close()

    @contextmanager
    def _signals(self, reloader: Reloader | None) -> Iterator[None]:
        """SIGTERM and the first Ctrl-C stop gracefully; a second Ctrl-C interrupts at once.

        SIGHUP has the configuration read again.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def on_signal(number: int, _frame: FrameType | None) -> None:
            if number == signal.SIGINT:
                if self._interrupted:
                    raise KeyboardInterrupt
                self._interrupted = True
            self._stop.set()

        def on_hangup(_number: int, _frame: FrameType | None) -> None:
            if reloader is not None:
                reloader.reload()

        before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, on_hangup)
        if (missed := signals.received()) is not None:
            on_signal(missed, None)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def _redacted_thread_errors() -> Iterator[None]:
    """A thread that dies says so through the log, which holds no credentials."""

    def report(failure: threading.ExceptHookArgs) -> None:
        name = failure.thread.name if failure.thread else "unknown"
        error = failure.exc_value
        _log.error("a thread died", thread=name, exc_info=error if error is not None else True)

    before, threading.excepthook = threading.excepthook, report
    try:
        yield
    finally:
        threading.excepthook = before


def _both(first: FrameWatcher | None, second: FrameWatcher | None) -> FrameWatcher | None:
    if first is None or second is None:
        return first or second

    def watch(frame: Frame, tracks: Tracks, labels: list[str]) -> None:
        first(frame, tracks, labels)
        second(frame, tracks, labels)

    return watch
