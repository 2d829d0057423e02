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
from pathlib import Path
from types import FrameType
from typing import Any

from worker import signals
from worker.batching import Batcher, FrameBuffer
from worker.config import DEFAULT_MODEL_ID, CameraConfig, Config, cache_dir
from worker.detection import load_detector
from worker.embedding import FaceEmbedder, load_embedder
from worker.errors import FacestreamError, GalleryError, SinkError
from worker.gallery import Gallery
from worker.health import Health, HealthServer
from worker.history import Embedder
from worker.logs import get_logger
from worker.metrics import Observer, PrometheusObserver
from worker.pipeline import FrameWatcher, Pipeline
from worker.publisher import Publisher
from worker.recorder import Recorder, open_history, open_recorder
from worker.redis_client import connect
from worker.scheduling import Schedule
from worker.shadow import Shadow
from worker.source import CameraReader, find_fault
from worker.types import Event, Frame
from worker.unknowns import Unknowns

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
        on_event: Callable[[Event], None] | None = None,
        watcher: FrameWatcher | None = None,
    ) -> None:
        self._config = config
        self._on_event = on_event or (lambda _event: None)
        self._watcher = watcher
        self._observer = PrometheusObserver()
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
        config = self._config
        redis_client = connect(config.redis)
        gallery, embedder = load_gallery_and_embedder(config, self._observer)
        detector = load_detector(
            config.detection,
            cache_dir=cache_dir(),
            engine=config.engine,
            threads=config.threads,
            observer=self._observer,
        )
        recorder = open_recorder(config, self._observer, heartbeat=health.watch("history", STUCK_AFTER_S))
        if not recorder.lasting:
            health.unwatch("history")
        whole = _never_skipped(config.cameras)
        shadow = _shadow_of(config, self._observer)
        pipeline = Pipeline(
            config,
            detector,
            embedder,
            gallery,
            observer=self._observer,
            watcher=self._watcher,
            on_verdict=shadow.compare if shadow else None,
            on_probes=shadow.learn if shadow else None,
            unknowns=_unknown_people(config, embedder, recorder),
            recorder=recorder,
            followed=[camera.id for camera in config.cameras if camera.id not in whole],
        )
        self._observer.gallery_size(len(gallery), gallery.sample_count, gallery.version)
        buffers = {
            camera.id: FrameBuffer.for_camera(camera, config.batching, self._observer) for camera in config.cameras
        }
        schedule = Schedule(config.detection, self._observer, always=whole, max_frames=config.batching.max_frames)
        look_interval_s = min(config.detection.interval_s, config.detection.settled_interval_s)
        readers = [
            CameraReader(
                camera,
                buffers[camera.id],
                self._observer,
                wanted=schedule.wanted,
                look_interval_s=0.0 if camera.id in whole else look_interval_s,
            )
            for camera in config.cameras
        ]
        batcher = Batcher(list(buffers.values()), config.batching, self._observer, due=schedule.due)
        alive = health.watch("outbox", 2 * config.redis.timeout_s + 5)
        publisher = Publisher(redis_client, config.redis, self._observer, heartbeat=alive)
        health.condition("models", "")
        health.condition("redis", lambda: publisher.error)
        health.condition("sources", lambda: _why_blind(readers))
        started = time.monotonic()
        with self._signals():
            try:
                for reader in readers:
                    reader.start()
                self._loop(pipeline, batcher, schedule, publisher, readers, health, recorder)
            finally:
                errors, undelivered = self._shut_down(pipeline, publisher, readers)
                recorder.close()
        summary = self._summary(time.monotonic() - started, undelivered)
        summary.shadow = shadow.report() if shadow else None
        return Stopped(summary, self._interrupted, errors)

    def _loop(
        self,
        pipeline: Pipeline,
        batcher: Batcher,
        schedule: Schedule,
        publisher: Publisher,
        readers: list[CameraReader],
        health: Health,
        recorder: Recorder,
    ) -> None:
        live = {reader.camera_id for reader in readers if reader.live}
        newest: dict[str, Frame] = {}
        beat = health.watch("pipeline", STUCK_AFTER_S)
        while not self._stop.is_set():
            beat()
            frames = batcher.next_batch(IDLE_TICK_S, schedule.most_frames)
            if frames is None:
                return
            if frames:
                newest.update({frame.camera_id: frame for frame in frames})
                step = partial(pipeline.process, frames, schedule.patience)
                self._emit(self._at_switch(pipeline, recorder, step), publisher, newest)
            now = time.monotonic()
            for frame in frames:
                schedule.attend(frame.camera_id, pipeline.attention(frame.camera_id))
            # Once a batch: a step for each of its frames would shed far more than the lag asks for.
            if lags_s := [now - frame.received_monotonic_s for frame in frames if frame.camera_id in live]:
                schedule.lagged(max(lags_s), max(1.0, batcher.waiting / len(frames)))
            for camera_id in live:
                last = newest.get(camera_id)
                if last and now - last.received_monotonic_s > IDLE_TICK_S:
                    silence_s = now - last.received_monotonic_s
                    idle = partial(pipeline.idle, camera_id, last.pts_s + silence_s)
                    # No frame causes what falls due by time alone: it has no latency.
                    self._emit(self._at_switch(pipeline, recorder, idle), publisher, {})

    def _at_switch(self, pipeline: Pipeline, recorder: Recorder, step: Callable[[], list[Event]]) -> list[Event]:
        """The events of ``step``; where the gallery was switched to another model, those of going on with that one."""
        try:
            return step()
        except GalleryError:
            try:
                gallery, embedder = load_gallery_and_embedder(self._config, self._observer)
            except FacestreamError as problem:
                log.warning("gallery was switched, and cannot be used: going on as before", problem=str(problem))
                return []
            if embedder.preprocessing_digest == pipeline.preprocessing_digest:
                raise
            log.warning("gallery was switched to another model", model=embedder.model_id, version=gallery.version)
            self._observer.gallery_size(len(gallery), gallery.sample_count, gallery.version)
            return pipeline.adopt(embedder, gallery, _unknown_people(self._config, embedder, recorder))

    def _emit(self, events: list[Event], publisher: Publisher, newest: dict[str, Frame]) -> None:
        for event in events:
            frame = newest.get(event.camera_id)
            publisher.publish(event, received_monotonic_s=frame.received_monotonic_s if frame else None)
            self._on_event(event)

    def _shut_down(
        self, pipeline: Pipeline, publisher: Publisher, readers: list[CameraReader]
    ) -> tuple[tuple[FacestreamError, ...], int]:
        for reader in readers:
            reader.stop()
        for reader in readers:
            reader.join(2.0)
        self._emit(pipeline.close(), publisher, {})
        undelivered = publisher.close(self._config.redis.flush_timeout_s)
        errors: list[FacestreamError] = [reader.error for reader in readers if reader.error]
        if undelivered:
            errors.append(
                SinkError(f"{undelivered} events could not be delivered to Redis before the stop; they are lost")
            )
        return tuple(errors), undelivered

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
        with closing(HealthServer(self._config.metrics, health, self._observer.registry)):
            yield

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and the first Ctrl-C stop gracefully; a second Ctrl-C interrupts at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def on_signal(number: int, _frame: FrameType | None) -> None:
            if number == signal.SIGINT:
                if self._interrupted:
                    raise KeyboardInterrupt
                self._interrupted = True
            self._stop.set()

        before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
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


def load_gallery_and_embedder(config: Config, observer: Observer) -> tuple[Gallery, FaceEmbedder]:
    """The gallery of ``config`` (an empty one in memory where none is named) and the embedder that made it.

    Raises:
        GalleryError: it is missing, damaged, or made with another model than ``config.model``.
        ModelError: the model or its weights are missing.
    """
    if config.gallery is None:
        embedder = _load(config, config.model or DEFAULT_MODEL_ID, observer)
        return Gallery.in_memory(embedder.model_id, embedder.preprocessing_digest, embedder.dimension), embedder
    gallery = Gallery.open(config.gallery)
    embedder = _load(config, config.model or gallery.model_id, observer)
    gallery.require_model(embedder.model_id, embedder.preprocessing_digest)
    return gallery, embedder


def _shadow_of(config: Config, observer: Observer) -> Shadow | None:
    if config.shadow_gallery is None:
        return None
    gallery = Gallery.open(config.shadow_gallery)
    embedder = _load(config, gallery.model_id, Observer())
    gallery.require_model(embedder.model_id, embedder.preprocessing_digest)
    return Shadow(config, embedder, gallery, observer)


def _load(config: Config, model: str, observer: Observer) -> FaceEmbedder:
    return load_embedder(
        model,
        models_dir=config.models_dir,
        cache_dir=cache_dir(),
        engine=config.engine,
        precision=config.precision,
        threads=config.threads,
        observer=observer,
    )


def _unknown_people(config: Config, embedder: FaceEmbedder, recorder: Recorder) -> Unknowns | None:
    if not config.unknowns.enabled:
        return None
    return Unknowns(
        config.unknowns,
        Embedder(embedder.model_id, embedder.preprocessing_digest),
        embedder.dimension,
        recorder=recorder,
        history=open_history(config, recorder),
    )


def _never_skipped(cameras: tuple[CameraConfig, ...]) -> list[str]:
    """Cameras whose every frame is to be searched: as configured, and folders, whose images need not be alike."""
    return [c.id for c in cameras if c.policy == "every" or Path(c.source.get_secret_value()).is_dir()]


def _why_blind(readers: list[CameraReader]) -> str:
    """Why no camera delivers frames; empty while at least one does."""
    if any(reader.state in {"streaming", "ended"} for reader in readers):
        return ""
    return "; ".join(f"{reader.camera_id}: {reader.state} {reader.reason}".strip() for reader in readers)
