"""The thread that owns the pipeline: takes batches, hands on events, lets cameras come and go between batches."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final

from worker.background import Heartbeats
from worker.config import CameraConfig, Config
from worker.errors import ClassifierError, FacestreamError, GalleryError, SinkError
from worker.events.publisher import Publisher
from worker.events.states import SightingState, SightingStates
from worker.faces.embedding import FaceEmbedder
from worker.history.evidence import Evidence
from worker.logs import get_logger, set_level
from worker.observer import Observer
from worker.recognition.counter_examples import CounterExamples
from worker.recognition.matching import People
from worker.recognition.pipeline import Pipeline
from worker.recognition.unknowns import Unknowns
from worker.types import Event, Frame
from worker.video.cameras import Cameras
from worker.video.schedule import reads_every_frame

if TYPE_CHECKING:
    from worker.faces.device.detector import Ticket

IDLE_TICK_S: Final = 0.5
"""How often time alone is looked at when no frame comes."""
STUCK_AFTER_S: Final = 60.0
"""A batch never takes this long: if one does, the pipeline hangs, and ``/healthz`` should say so."""

_TELL_LOAD_S: Final = 1.0
_PUBLISH_WITHIN_S: Final = 10.0
_LOOK_EVERY_S: Final = 0.02

_log = get_logger(__name__)


@dataclass(slots=True)
class _Kept:
    epoch: int
    at_s: float = float("-inf")
    empty: bool = False
    changed: bool = False


class StateKeeper:
    """Keeps the state of the sightings of live cameras; a recording is read anew from its start. For the pipeline's
    thread."""

    def __init__(self, pipeline: Pipeline, states: SightingStates, *, interval_s: float = 1.0) -> None:
        self._pipeline = pipeline
        self._states = states
        self._interval_s = interval_s
        self._cameras: dict[str, _Kept] = {}

    def begin(self, camera_id: str, epoch: int) -> None:
        """Keeps the state of this camera from now on."""
        self._cameras[camera_id] = _Kept(epoch)

    def changed(self, camera_id: str) -> None:
        """There was an event: the state is to be kept at once."""
        if camera_id in self._cameras:
            self._cameras[camera_id].changed = True

    def keep(self) -> None:
        """Keeps the states that are due. That nobody is there is kept only once."""
        now_s = time.monotonic()
        for camera_id, kept in self._cameras.items():
            if not kept.changed and now_s - kept.at_s < self._interval_s:
                continue
            state = self._pipeline.state(camera_id)
            empty = not state.get("sightings")
            if not (empty and kept.empty):
                self._states.keep(camera_id, kept.epoch, None if empty else state)
            kept.at_s, kept.empty, kept.changed = now_s, empty, False

    def end(self, camera_id: str) -> None:
        """The camera's sightings have ended: there is nothing to go on with."""
        if kept := self._cameras.pop(camera_id, None):
            self._states.keep(camera_id, kept.epoch, None)

    def hand_over(self, camera_id: str) -> None:
        """Another worker keeps the state of this camera from now on."""
        if self._cameras.pop(camera_id, None):
            self._states.discard(camera_id)


class Loop:
    """Frames of all cameras through the pipeline, until told to stop.

    All methods except :meth:`order`, :meth:`publish` and :meth:`load` belong to the thread that calls :meth:`run`.
    ``evidence`` is None where it is not configured. When somebody has switched the gallery to another model,
    ``load_people`` gives the gallery and the embedder as they are now (it raises a FacestreamError where they cannot be
    used), and ``memory_of`` gives what tells unknown people apart by that embedder, and the counter-examples that it
    made.
    """

    def __init__(
        self,
        config: Config,
        pipeline: Pipeline,
        cameras: Cameras,
        publisher: Publisher,
        states: SightingStates,
        observer: Observer,
        *,
        load_people: Callable[[], tuple[People, FaceEmbedder]],
        memory_of: Callable[[FaceEmbedder], tuple[Unknowns | None, CounterExamples | None]] = lambda _: (None, None),
        evidence: Evidence | None = None,
        on_event: Callable[[Event], None] = lambda _event: None,
        heartbeats: Heartbeats | None = None,
        idle_tick_s: float = IDLE_TICK_S,
    ) -> None:
        self._config = config
        self._pipeline = pipeline
        self._cameras = cameras
        self._publisher = publisher
        self._states = states
        self._observer = observer
        self._load_people = load_people
        self._memory_of = memory_of
        self._evidence = evidence
        self._on_event = on_event
        self._heartbeats = heartbeats or Heartbeats()
        self._idle_tick_s = idle_tick_s
        self._keeper = StateKeeper(pipeline, states)
        self._has_ended = False
        self._is_running = False
        self._newest: dict[str, Frame] = {}
        self._begun: tuple[list[Frame], Ticket] | None = None
        self._through: list[str] = []
        self._busy_s = 0.0
        self._load_read = time.monotonic(), 0.0
        self._load_told_s = float("-inf")
        self._orders: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._told: SimpleQueue[tuple[Sequence[Event], threading.Event]] = SimpleQueue()

    def order(self, action: Callable[[], None]) -> None:
        """Has ``action`` done by the pipeline's thread between two batches, one after the other; from any thread."""
        self._orders.put(action)

    def publish(self, events: Sequence[Event]) -> None:
        """Publishes ``events`` behind those of the batch at hand, and waits until they are kept; from any other thread
        than the pipeline's.

        Raises:
            SinkError: the pipeline is not running, or busy for longer than one waits.
        """
        done = threading.Event()
        if self._is_running:
            self._told.put((events, done))
        if not (self._is_running and done.wait(_PUBLISH_WITHIN_S)):
            raise SinkError("the pipeline does not take events now")

    def load(self) -> float:
        """The share of time, 0..1, for which the pipeline was busy since the last call; from any one thread."""
        now_s, busy_s = time.monotonic(), self._busy_s
        since_s, busy_before_s = self._load_read
        self._load_read = now_s, busy_s
        return min(1.0, (busy_s - busy_before_s) / max(now_s - since_s, 1e-3))

    def start_camera(self, camera: CameraConfig, epoch: int = 0, resume: SightingState | None = None) -> None:
        """Reads ``camera``; its events carry ``epoch``. Its sightings go on from the state ``resume``, or, without a
        fleet, from the state in which an earlier run of this worker left them."""
        self._cameras.start(camera)
        if camera.id in self._cameras.live:
            self._keeper.begin(camera.id, epoch)
            if resume is None and not epoch:
                resume = self._states.load(camera.id)
        self._pipeline.add(camera, epoch=epoch, followed=not reads_every_frame(camera), resume=resume)

    def stop_camera(self, camera_id: str) -> None:
        """Ends the camera's sightings and reads it no longer."""
        self._cameras.stop(camera_id)
        self._emit(self._pipeline.remove(camera_id), {})
        self._keeper.end(camera_id)
        self._newest.pop(camera_id, None)

    def hand_over(self, camera_id: str) -> SightingState:
        """Reads the camera no longer; returns the state with which another worker goes on with its sightings."""
        self._cameras.stop(camera_id)
        state = self._pipeline.state(camera_id)
        self._pipeline.remove(camera_id, end=False)
        self._keeper.hand_over(camera_id)
        self._newest.pop(camera_id, None)
        return state

    def reconfigure(self, config: Config) -> None:
        """Goes over to ``config``: its cameras, its rules and thresholds of recognition, its log level."""
        before = {camera.id: camera for camera in self._config.cameras}
        after = {camera.id: camera for camera in config.cameras}
        for camera_id, camera in before.items():
            if not _reads_alike(camera, after.get(camera_id)):
                self.stop_camera(camera_id)
        self._pipeline.adjust(config.recognition, config.cameras)
        for camera_id, camera in after.items():
            if not _reads_alike(camera, before.get(camera_id)):
                self.start_camera(camera)
        self._config = config
        set_level(config.log.level)

    def run(self, stop: threading.Event) -> None:
        """Until ``stop`` is set or all sources have ended."""
        beat = self._heartbeats.watch("pipeline", STUCK_AFTER_S)
        self._is_running = True
        while not stop.is_set():
            beat()
            self._tell_load()
            self._follow_orders()
            self._publish_told()
            frames = self._cameras.next_batch(0.0 if self._begun else self._idle_tick_s)
            if frames is None:
                self._go_on([])
                self._has_ended = True
                return
            begun_s = time.monotonic()
            self._go_on(frames)
            self._let_time_pass()
            self._end_what_is_through()
            self._keeper.keep()
            self._busy_s += time.monotonic() - begun_s

    def shut_down(
        self,
        leave: Callable[[Mapping[str, SightingState]], None] | None = None,
        remember: Callable[[], None] | None = None,
    ) -> tuple[tuple[FacestreamError, ...], int]:
        """What failed, and how many events could not be delivered. The sources stop first, so that nothing new
        arrives; then what is in flight becomes events; then ``remember`` writes what is remembered, which may give
        events too; then those are delivered.

        ``leave`` is told the state of each camera's sightings. These then do not end: another worker goes on with them.
        """
        cameras = self._cameras.ids
        errors = self._cameras.close()
        self._go_on([])
        if leave is None:
            self._emit(self._pipeline.close(), {})
            for camera_id in cameras:
                self._keeper.end(camera_id)
        else:
            for camera_id in cameras:
                self._keeper.hand_over(camera_id)
            leave({camera_id: self._pipeline.state(camera_id) for camera_id in cameras})
        self._pipeline.gallery.close()
        if remember is not None:
            self._publish_told_while(remember)
        undelivered = self._publisher.close(self._config.redis.flush_timeout_s)
        if undelivered:
            errors.append(
                SinkError(f"{undelivered} events could not be delivered to Redis before the stop; they are lost")
            )
        if (waiting := self._publisher.kept) and self._has_ended:
            errors.append(
                SinkError(
                    f"{waiting} events could not be delivered to Redis before the end; they wait on disk, and are "
                    "delivered when this worker runs again"
                )
            )
        return tuple(errors), undelivered + waiting

    def _follow_orders(self) -> None:
        while True:
            try:
                action = self._orders.get_nowait()
            except Empty:
                return
            self._go_on([])
            action()

    def _publish_told(self) -> None:
        while True:
            try:
                events, done = self._told.get_nowait()
            except Empty:
                return
            for event in events:
                self._publisher.publish(event)
                self._on_event(event)
            done.set()

    def _publish_told_while(self, step: Callable[[], None]) -> None:
        """Has ``step`` done by a thread of its own, whose events are published meanwhile."""
        self._is_running = True
        doing = threading.Thread(target=step, daemon=True)
        doing.start()
        while doing.is_alive():
            self._publish_told()
            doing.join(_LOOK_EVERY_S)
        self._is_running = False

    def _go_on(self, frames: list[Frame]) -> None:
        """Makes events of the batch that was begun, while a device looks for faces in ``frames``. Without a device, or
        where there are no ``frames``, nothing stays begun."""
        before, self._begun = self._begun, None
        begun = self._pipeline.begin(frames) if frames else None
        if before is not None:
            self._process(*before)
        if begun is not None:
            self._begun = frames, begun
        elif frames:
            self._process(frames)

    def _process(self, frames: list[Frame], begun: "Ticket | None" = None) -> None:
        schedule, live = self._cameras.schedule, set(self._cameras.live)
        self._newest.update({frame.camera_id: frame for frame in frames})
        with self._observer.frames(frames):
            # A recording is never under load: the same file gives the same events.
            budget_s = schedule.budget_s if all(frame.camera_id in live for frame in frames) else None
            process = partial(self._pipeline.process, frames, schedule.patience, budget_s=budget_s, begun=begun)
            events = self._at_switch(process)
        self._emit(events, self._newest)
        now = time.monotonic()
        for frame in frames:
            schedule.attend(frame.camera_id, self._pipeline.attention(frame.camera_id))
        # Once a batch: one step for each frame would give up far more than the lag asks for.
        if lags_s := [now - frame.received_monotonic_s for frame in frames if frame.camera_id in live]:
            schedule.lagged(max(lags_s), max(1.0, self._cameras.waiting / len(frames)))

    def _end_what_is_through(self) -> None:
        """Beside a camera that goes on, the end of a recording ends its sightings at once, not with the worker."""
        self._through += self._cameras.pop_ended()
        in_flight = self._in_flight
        ended = [camera_id for camera_id in self._through if camera_id not in in_flight]
        self._through = [camera_id for camera_id in self._through if camera_id in in_flight]
        for camera_id in ended:
            self._emit(self._pipeline.end(camera_id), {})
            self._keeper.end(camera_id)

    def _let_time_pass(self) -> None:
        now = time.monotonic()
        in_flight = self._in_flight
        for camera_id in [camera_id for camera_id in self._cameras.live if camera_id not in in_flight]:
            last = self._newest.get(camera_id)
            if last is None:
                self._emit(self._pipeline.idle(camera_id, 0.0), {})
            elif now - (self._cameras.received_monotonic_s(camera_id) or 0.0) > self._idle_tick_s:
                # Frames that came and wait for their turn are no silence.
                silence_s = now - last.received_monotonic_s
                idle = partial(self._pipeline.idle, camera_id, last.pts_s + silence_s)
                # What falls due by time alone is caused by no frame: it has no latency.
                self._emit(self._at_switch(idle), {})

    @property
    def _in_flight(self) -> set[str]:
        """The cameras with a frame in the batch that was begun."""
        return {frame.camera_id for frame in self._begun[0]} if self._begun else set()

    def _tell_load(self) -> None:
        if (now_s := time.monotonic()) - self._load_told_s >= _TELL_LOAD_S:
            self._load_told_s = now_s
            load = self._cameras.schedule.load()
            self._observer.looks(load.gaps_s, load.carried)
            # The member of a fleet asks for the load itself, to know how many cameras this worker can take.
            if not self._config.fleet.enabled:
                self._observer.worker_load(self.load())

    def _at_switch(self, step: Callable[[], list[Event]]) -> list[Event]:
        """The events of ``step``. If the gallery was switched to another model, the pipeline goes on with that one, and
        these are the events of the change."""
        try:
            return step()
        except (GalleryError, ClassifierError):
            try:
                gallery, embedder = self._load_people()
            except FacestreamError as problem:
                _log.warning("gallery was switched, and cannot be used: going on as before", problem=str(problem))
                return []
            if embedder.preprocessing_digest == self._pipeline.preprocessing_digest:
                raise
            _log.warning("gallery was switched to another model", model=embedder.model_id, version=gallery.version)
            self._observer.gallery_size(len(gallery), gallery.sample_count, gallery.version)
            return self._pipeline.adopt(embedder, gallery, *self._memory_of(embedder))

    def _emit(self, events: list[Event], newest: dict[str, Frame]) -> None:
        for event in events:
            frame = newest.get(event.camera_id)
            self._publisher.publish(event, received_monotonic_s=frame.received_monotonic_s if frame else None)
            if self._evidence:
                self._evidence.told(event)
            self._on_event(event)
            self._keeper.changed(event.camera_id)


def _reads_alike(camera: CameraConfig, other: CameraConfig | None) -> bool:
    """Whether both read the same source in the same way, so that its sightings go on; thresholds may differ."""
    return other is not None and camera.model_copy(update={"threshold": other.threshold}) == other
