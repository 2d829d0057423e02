"""Build a worker from its configuration, run it, and stop it in an order that loses nothing.

Stop order: the sources first, so that nothing new arrives; then what is in flight becomes events; then the
outbox is delivered; then the port is closed. Each step would lose data if the one before it came later.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import FrameType
from typing import Any

from worker import signals
from worker.config import Config, ConfigOrigin
from worker.errors import FacestreamError
from worker.events.outbox import open_outbox
from worker.events.publisher import Publisher
from worker.events.states import RedisStates
from worker.fleet.member import FleetMember
from worker.history.evidence import open_evidence
from worker.history.recorder import open_recorder
from worker.logs import get_logger
from worker.recognition.pipeline import FrameWatcher, Pipeline
from worker.redis.client import Client, connect
from worker.service.health import Health, HealthServer
from worker.service.loading import load_detector_of, load_gallery_and_embedder, load_shadow, unknown_people
from worker.service.loop import Loop
from worker.service.preview import open_preview
from worker.service.reloading import Reloader
from worker.service.status import LagReporter, StatusBoard, StatusReporter
from worker.service.tracing import open_observer
from worker.types import Event, Frame, Tracks
from worker.video.addresses import parse_address
from worker.video.cameras import Cameras
from worker.video.reader import find_fault

log = get_logger(__name__)

IDLE_TICK_S = 0.5
"""How often time alone is looked at when no frame comes."""
STUCK_AFTER_S = 60.0
"""A batch never takes this long: the pipeline hangs, and the probe of the process should fail."""


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
    """One worker: cameras, networks, gallery, outbox, port."""

    def __init__(
        self,
        config: Config,
        *,
        origin: ConfigOrigin | None = None,
        on_event: Callable[[Event], None] | None = None,
        watcher: FrameWatcher | None = None,
    ) -> None:
        """``origin``, where given, is watched: changes of its file are taken up, also at SIGHUP."""
        self._config = config
        self._origin = origin
        self._reloader: Reloader | None = None
        self._preview = open_preview(config.preview)
        self._on_event = on_event or (lambda _event: None)
        self._watcher = watcher
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
            return self._run(health)

    def _run(self, health: Health) -> Stopped:
        config, observer = self._config, self._observer
        redis_client = connect(config.redis)
        gallery, embedder = load_gallery_and_embedder(config, observer)
        detector = load_detector_of(config, observer)
        recorder = open_recorder(config, observer, heartbeat=health.watch("history", STUCK_AFTER_S))
        if not recorder.lasting:
            health.unwatch("history")
        evidence = open_evidence(config.evidence, observer, heartbeat=health.watch("evidence", STUCK_AFTER_S))
        if config.evidence.store is None:
            health.unwatch("evidence")
        shadow = load_shadow(config, observer)
        pipeline = Pipeline(
            config.model_copy(update={"cameras": ()}),
            detector,
            embedder,
            gallery,
            observer=observer,
            watcher=_both(self._watcher, self._preview.watch if self._preview else None),
            on_verdict=shadow.compare if shadow else None,
            on_faces=shadow.learn if shadow else None,
            unknowns=unknown_people(config, embedder, recorder),
            recorder=recorder,
            evidence=evidence,
        )
        observer.gallery_size(len(gallery), gallery.sample_count, gallery.version)
        cameras = Cameras(config, observer, lasting=config.fleet.enabled)
        alive = health.watch("outbox", 2 * config.redis.timeout_s + 5)
        outbox = open_outbox(config, observer)
        states = RedisStates(redis_client, config.fleet.name, config.recognition.linger_s)
        publisher = Publisher(
            redis_client,
            config.redis,
            observer,
            outbox=outbox,
            states=states if config.fleet.enabled else None,
            heartbeat=alive,
        )
        health.condition("models", "")
        health.condition("redis", lambda: publisher.error)
        health.condition("outbox", lambda: publisher.outbox_error)
        health.condition("sources", cameras.why_blind)
        loop = Loop(config, pipeline, cameras, publisher, recorder, evidence, observer, self._on_event)
        member: FleetMember | None = None
        if config.fleet.enabled:
            # A reply that is lost must not cost the lease for which it was waited.
            hasty = config.redis.model_copy(update={"timeout_s": min(config.redis.timeout_s, config.fleet.lease_s / 2)})
            alive = health.watch("assignment", STUCK_AFTER_S)
            member = FleetMember(connect(hasty), config, loop, observer, alive)
        board = StatusBoard(config.worker_id, observer, health, cameras, lambda: member.epochs if member else {})
        health.describe(lambda: board.status().document())
        started = time.monotonic()
        with (
            self._signals(),
            self._reloading(loop, health),
            self._reporting(redis_client, board, health),
            closing(LagReporter(redis_client, config.redis.stream, observer, health.watch("lag", STUCK_AFTER_S))),
        ):
            try:
                if member:
                    member.start()
                for camera in config.cameras:
                    loop.start_camera(camera)
                loop.run(self._stop, health.watch("pipeline", STUCK_AFTER_S))
            finally:
                if member:
                    member.drain()
                errors, undelivered = loop.shut_down(member.leave if member else None)
                if shadow:
                    shadow.close()
                recorder.close()
                evidence.close()
                observer.close()
        summary = self._summary(time.monotonic() - started, undelivered)
        summary.shadow = shadow.report() if shadow else None
        return Stopped(summary, self._interrupted, errors)

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
        if not self._config.metrics.enabled:
            yield
            return
        with closing(HealthServer(self._config.metrics, health, self._observer.registry, self._preview)):
            yield

    @contextmanager
    def _reloading(self, loop: Loop, health: Health) -> Iterator[None]:
        if self._origin is None or self._origin.path is None:
            yield
            return
        self._reloader = Reloader(
            self._origin,
            self._config,
            lambda config: loop.order(partial(loop.reconfigure, config)),
            self._observer,
            check=_check_sources,
            heartbeat=health.watch("configuration", STUCK_AFTER_S),
        )
        self._reloader.start()
        try:
            yield
        finally:
            health.unwatch("configuration")
            self._reloader.close()

    @contextmanager
    def _reporting(self, client: Client, board: StatusBoard, health: Health) -> Iterator[None]:
        """A worker of a fleet tells the others' users how it is."""
        if not self._config.fleet.enabled:
            yield
            return
        reporter = StatusReporter(client, self._config.fleet.name, board, health.watch("status", STUCK_AFTER_S))
        try:
            yield
        finally:
            health.unwatch("status")
            reporter.close()

    @contextmanager
    def _signals(self) -> Iterator[None]:
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
            if self._reloader is not None:
                self._reloader.reload()

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
        log.error("a thread died", thread=name, exc_info=error if error is not None else True)

    before, threading.excepthook = threading.excepthook, report
    try:
        yield
    finally:
        threading.excepthook = before


def _check_sources(config: Config) -> None:
    for camera in config.cameras:
        parse_address(camera.source.get_secret_value())


def _both(first: FrameWatcher | None, second: FrameWatcher | None) -> FrameWatcher | None:
    if first is None or second is None:
        return first or second

    def watch(frame: Frame, tracks: Tracks, labels: list[str]) -> None:
        first(frame, tracks, labels)
        second(frame, tracks, labels)

    return watch
