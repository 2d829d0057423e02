"""The thread that owns the pipeline, on stand-ins for cameras, networks and Redis."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from tests.support.heartbeats import CountedHeartbeats
from tests.support.stand_ins import (
    Film,
    StandInDetector,
    StandInEmbedder,
    camera,
    detector_of,
    embedder_of,
    gallery_of,
)
from worker.background import Heartbeats
from worker.config import CameraConfig, Config, DetectionConfig, FleetConfig, RecognitionConfig
from worker.errors import FacestreamError, GalleryError, ModelError, SinkError, SourceError
from worker.events.publisher import Publisher
from worker.events.states import SightingState
from worker.faces.embedding import FaceEmbedder
from worker.history.evidence import Evidence
from worker.observer import Observer
from worker.recognition.matching import People
from worker.recognition.pipeline import Pipeline
from worker.service.loop import Loop
from worker.types import Attention, Detections, Event, Frame, Picture, image_of
from worker.video.cameras import Cameras
from worker.video.schedule import Schedule

ALICE = 1
RULES = RecognitionConfig(verdict_timeout_s=0.5, linger_s=2.0)


class Worth(Schedule):
    """Keeps what the searches have shown a camera to be worth."""

    def __init__(self) -> None:
        super().__init__(DetectionConfig())
        self.worth: list[Attention] = []

    def attend(self, camera_id: str, attention: Attention) -> None:
        self.worth.append(attention)


class StandInCameras:
    """Cameras whose frames a test gives; notes in ``log`` what is started and stopped."""

    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.read: dict[str, CameraConfig] = {}
        self.batches: list[list[Frame] | None] = []
        self.recordings: set[str] = set()
        self.ended: list[str] = []
        self.schedule = Worth()
        self.waiting = 0
        self.received_s: dict[str, float] = {}
        self.failed: list[FacestreamError] = []

    def start(self, one: CameraConfig) -> None:
        self.log.append(f"start {one.id}")
        self.read[one.id] = one

    def stop(self, camera_id: str) -> None:
        self.log.append(f"stop {camera_id}")
        del self.read[camera_id]

    def next_batch(self, _timeout_s: float) -> list[Frame] | None:
        return self.batches.pop(0) if self.batches else None

    def received_monotonic_s(self, camera_id: str) -> float | None:
        return self.received_s.get(camera_id)

    def pop_ended(self) -> list[str]:
        ended, self.ended = self.ended, []
        return ended

    @property
    def ids(self) -> list[str]:
        return list(self.read)

    @property
    def live(self) -> list[str]:
        return [camera_id for camera_id in self.read if camera_id not in self.recordings]

    def close(self) -> list[FacestreamError]:
        self.log.append("sources closed")
        return self.failed


class StandInPublisher:
    """Takes events."""

    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.events: list[Event] = []
        self.undelivered = 0
        self.kept = 0

    def publish(self, event: Event, received_monotonic_s: float | None = None) -> bool:
        self.log.append(f"{event.type} {event.identity_name}")
        self.events.append(event)
        return True

    def close(self, timeout_s: float) -> int:
        self.log.append("events delivered")
        return self.undelivered


class StandInStates:
    """Keeps the states of sightings."""

    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.kept: dict[str, SightingState] = {}

    def keep(self, camera_id: str, epoch: int, state: SightingState | None) -> None:
        if state is None:
            self.kept.pop(camera_id, None)
        else:
            self.kept[camera_id] = state

    def discard(self, camera_id: str) -> None:
        self.log.append(f"state of {camera_id} left to others")

    def load(self, camera_id: str) -> dict[str, Any] | None:
        state = self.kept.get(camera_id)
        return None if state is None else dict(state)


class StandInDevice(StandInDetector):
    """Finds Alice in batches, of which one may be looked at while another becomes events; notes when it does what."""

    def __init__(self, log: list[str]) -> None:
        super().__init__(ALICE)
        self.log, self.begun = log, 0

    def submit(self, pictures: Sequence[Picture]) -> list[Picture]:
        self.begun += 1
        self.log.append(f"begin {self.begun}")
        return list(pictures)

    def collect(self, ticket: list[Picture]) -> list[Detections]:
        self.log.append("collect")
        return self.detect([image_of(picture) for picture in ticket])


class Rig:
    def __init__(
        self, *, observer: Observer | None = None, fleet: bool = False, device: bool = False, **options: Any
    ) -> None:
        self.log: list[str] = []
        self.detector, self.embedder = StandInDevice(self.log) if device else StandInDetector(ALICE), StandInEmbedder()
        self.gallery = gallery_of(self.embedder, Alice=ALICE)
        self.gallery.close = lambda: self.log.append("gallery closed")  # type: ignore[method-assign]
        self.config = Config(worker_id="w", recognition=RULES, fleet=FleetConfig(enabled=fleet))
        self.pipeline = Pipeline(self.config, detector_of(self.detector), embedder_of(self.embedder), self.gallery)
        self.cameras, self.publisher = StandInCameras(self.log), StandInPublisher(self.log)
        self.states = StandInStates(self.log)
        self.films: dict[str, Film] = {}
        self.load_people: Callable[[], tuple[People, FaceEmbedder]] = lambda: pytest.fail("loaded anew")
        self.loop = Loop(
            self.config, self.pipeline, cast(Cameras, self.cameras), cast(Publisher, self.publisher), self.states,
            observer or Observer(),
            load_people=lambda: self.load_people(), **options,
        )  # fmt: skip

    def run(self, frames: int = 0, camera_id: str = "door") -> None:
        """So many batches of one frame; then the sources have ended."""
        film = self.films.setdefault(camera_id, Film(camera_id, time.monotonic))
        self.cameras.batches += [[film.frame()] for _ in range(frames)]
        self.loop.run(threading.Event())

    @property
    def told(self) -> list[tuple[str, str]]:
        return [(event.type, event.identity_name) for event in self.publisher.events]


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_frames_become_events_until_the_sources_have_ended(rig: Rig) -> None:
    rig.loop.start_camera(camera(), epoch=3)
    rig.run(5)
    assert rig.told == [("started", "Alice")]
    assert rig.publisher.events[0].epoch == 3


def test_a_device_looks_at_the_next_batch_while_the_one_before_becomes_events() -> None:
    rig = Rig(device=True)
    rig.loop.start_camera(camera())
    rig.run(3)
    assert rig.log == [
        "start door", "begin 1", "begin 2", "collect", "begin 3", "collect", "started Alice", "collect",
    ]  # fmt: skip
    rig.run(5)
    assert rig.told == [("started", "Alice")], "nobody is lost between two batches"


def test_a_batch_that_is_under_way_becomes_events_before_an_order_is_followed_and_before_the_end() -> None:
    rig = Rig(device=True)
    rig.loop.start_camera(camera())
    rig.run(1)
    film, stop, batches = rig.films["door"], threading.Event(), rig.cameras.next_batch
    rig.cameras.batches = [[film.frame()], [film.frame()]]

    def next_batch(_timeout_s: float) -> list[Frame] | None:
        if len(rig.cameras.batches) == 2:
            rig.loop.order(lambda: rig.log.append("order"))
        else:
            stop.set()
        return batches(_timeout_s)

    rig.cameras.next_batch = next_batch  # type: ignore[method-assign]
    rig.log.clear()
    rig.loop.run(stop)
    assert rig.log == ["begin 2", "collect", "started Alice", "order", "begin 3"]
    rig.log.clear()
    rig.loop.shut_down()
    assert rig.log == [
        "sources closed",
        "collect",
        "ended Alice",
        "gallery closed",
        "events delivered",
    ]


def test_a_recording_whose_last_frame_is_under_way_ends_after_that_frame() -> None:
    rig = Rig(device=True)
    rig.cameras.recordings = {"clip"}
    for name in ("clip", "door"):
        rig.loop.start_camera(camera(name))
    clip, door = Film("clip", time.monotonic), Film("door", time.monotonic)
    rig.cameras.batches = [*([clip.frame()] for _ in range(3)), *([door.frame()] for _ in range(3))]
    batches = rig.cameras.next_batch

    def next_batch(_timeout_s: float) -> list[Frame] | None:
        frames = batches(_timeout_s)
        if frames and frames[0].camera_id == "clip" and frames[0].sequence == 3:
            rig.cameras.ended = ["clip"]
        return frames

    rig.cameras.next_batch = next_batch  # type: ignore[method-assign]
    rig.loop.run(threading.Event())
    assert [(event.camera_id, event.type) for event in rig.publisher.events] == [
        ("clip", "started"), ("clip", "ended"), ("door", "started"),
    ]  # fmt: skip


def test_it_ends_when_it_is_told_to_and_shows_meanwhile_that_it_lives() -> None:
    stop, heartbeats = threading.Event(), CountedHeartbeats()
    rig = Rig(heartbeats=heartbeats)
    rig.cameras.batches = [[] for _ in range(9)]
    rig.loop.order(stop.set)
    rig.loop.run(stop)
    assert heartbeats.beats.acquire(blocking=False)
    assert len(rig.cameras.batches) == 8


def test_a_loop_that_hangs_is_missed() -> None:
    now = [0.0]
    heartbeats = Heartbeats(lambda: now[0])
    rig = Rig(heartbeats=heartbeats)
    rig.run()
    now[0] = 61.0
    assert list(heartbeats.failures()) == ["pipeline"]


def test_orders_are_followed_one_after_the_other_before_the_next_batch(rig: Rig) -> None:
    rig.loop.order(lambda: rig.loop.start_camera(camera()))
    rig.loop.order(lambda: rig.log.append("second order"))
    rig.run(5)
    assert rig.log == ["start door", "second order", "started Alice"]


def test_a_camera_that_is_stopped_ends_its_sightings_and_leaves_no_state(rig: Rig) -> None:
    rig.loop.start_camera(camera())
    rig.run(5)
    assert rig.states.kept
    rig.loop.stop_camera("door")
    assert rig.log[-2:] == ["stop door", "ended Alice"]
    assert rig.states.kept == {}


def test_a_camera_that_is_handed_over_ends_nothing_and_its_state_is_for_others_to_keep(rig: Rig) -> None:
    rig.loop.start_camera(camera(), epoch=1)
    rig.run(5)
    state = rig.loop.hand_over("door")
    assert rig.log[-2:] == ["stop door", "state of door left to others"]
    assert [one["sighting_id"] for one in state["sightings"]] == [rig.publisher.events[0].sighting_id]
    rig.loop.start_camera(camera(), epoch=2, resume=state)
    rig.run(5)
    assert rig.told == [("started", "Alice")], "the same sighting goes on"


@pytest.mark.parametrize(
    ("settings", "epoch", "goes_on"),
    [({}, 0, True), ({}, 5, False), ({"recording": True}, 0, False)],
)
def test_a_live_camera_without_a_fleet_goes_on_where_an_earlier_run_left_it(
    settings: dict[str, bool], epoch: int, goes_on: bool
) -> None:
    before = Rig()
    before.loop.start_camera(camera())
    before.run(5)
    after = Rig()
    after.states.kept = dict(before.states.kept)
    after.cameras.recordings = {"door"} if settings.get("recording") else set()
    after.loop.start_camera(camera(), epoch=epoch)
    after.run(5)
    assert (after.told == []) == goes_on


def test_a_new_configuration_changes_only_the_cameras_that_it_changes(rig: Rig) -> None:
    first = [camera("same"), camera("stricter"), camera("moved"), camera("gone")]
    rig.loop.reconfigure(rig.config.model_copy(update={"cameras": tuple(first)}))
    rig.run(5, "stricter")
    rig.log.clear()
    second = [
        camera("same"),
        camera("stricter", threshold=0.9),
        camera("moved", "rtsp://127.0.0.1/other"),
        camera("new"),
    ]
    rig.loop.reconfigure(rig.config.model_copy(update={"cameras": tuple(second)}))
    assert rig.log == ["stop moved", "stop gone", "start moved", "start new"]
    rig.run(1, "stricter")
    assert rig.told[-1] == ("updated", ""), "the other threshold holds for who is there"


def test_a_stop_closes_the_sources_then_ends_what_is_in_flight_then_delivers(rig: Rig) -> None:
    rig.loop.start_camera(camera())
    rig.run(5)
    rig.cameras.failed = [SourceError("camera door: gone")]
    rig.log.clear()
    errors, undelivered = rig.loop.shut_down()
    assert rig.log == ["sources closed", "ended Alice", "gallery closed", "events delivered"]
    assert ([str(error) for error in errors], undelivered) == (["camera door: gone"], 0)
    assert rig.states.kept == {}


def test_what_others_publish_comes_behind_the_batch_at_hand_and_before_the_delivery(rig: Rig) -> None:
    rig.loop.start_camera(camera())
    rig.run(5)
    (started,) = rig.publisher.events
    corrected = replace(started, type="corrected")
    batches = rig.cameras.next_batch
    other = threading.Thread(target=rig.loop.publish, args=([corrected],))

    def next_batch(_timeout_s: float) -> list[Frame] | None:
        if len(rig.cameras.batches) == 2:
            other.start()
        return batches(_timeout_s)

    rig.cameras.next_batch = next_batch  # type: ignore[method-assign]
    rig.run(2)
    rig.log.clear()
    # Whatever the run did not come to is not left behind by the stop.
    rig.loop.shut_down(remember=lambda: rig.loop.publish([replace(corrected, identity_name="late")]))
    other.join()
    assert corrected in rig.publisher.events
    late = ["gallery closed", "corrected late", "events delivered"]
    assert [entry for entry in rig.log if entry in late] == late
    with pytest.raises(SinkError, match="does not take events now"):
        rig.loop.publish([corrected])


def test_a_stop_in_a_fleet_ends_no_sighting_but_hands_on_each_state(rig: Rig) -> None:
    rig.loop.start_camera(camera(), epoch=1)
    rig.run(5)
    left: dict[str, Mapping[str, Any]] = {}

    def leave(states: Mapping[str, Mapping[str, Any]]) -> None:
        rig.log.append("left")
        left.update(states)

    rig.log.clear()
    rig.loop.shut_down(leave)
    assert rig.log == ["sources closed", "state of door left to others", "left", "gallery closed", "events delivered"]
    assert len(left["door"]["sightings"]) == 1


@pytest.mark.parametrize(("lost", "kept", "message"), [(2, 0, "2 events .* lost"), (0, 3, "3 events .* wait on disk")])
def test_events_that_could_not_be_delivered_are_an_error(rig: Rig, lost: int, kept: int, message: str) -> None:
    rig.publisher.undelivered, rig.publisher.kept = lost, kept
    rig.run()
    (error,), undelivered = rig.loop.shut_down()
    assert undelivered == lost + kept
    with pytest.raises(SinkError, match=message):
        raise error


def test_events_that_wait_on_disk_are_no_error_of_a_worker_that_is_stopped_before_its_sources_end(rig: Rig) -> None:
    rig.publisher.kept = 3
    assert rig.loop.shut_down() == ((), 3)


def test_time_alone_ends_a_sighting_when_no_frame_comes() -> None:
    rig = Rig()
    rig.loop.start_camera(camera())
    rig.run(5)
    assert rig.told == [("started", "Alice")]
    rig.films["door"].clock = lambda: time.monotonic() - 3.0
    rig.run(1)
    assert rig.told == [("started", "Alice"), ("ended", "Alice")]


def test_the_end_of_a_recording_ends_its_sightings_while_a_camera_beside_it_goes_on(rig: Rig) -> None:
    rig.cameras.recordings = {"clip"}
    rig.loop.start_camera(camera("clip"))
    rig.loop.start_camera(camera("door"))
    rig.run(5, "clip")
    rig.cameras.ended = ["clip"]
    rig.run(5, "door")
    assert [(event.camera_id, event.type) for event in rig.publisher.events] == [
        ("clip", "started"), ("clip", "ended"), ("door", "started"),
    ]  # fmt: skip
    rig.loop.shut_down()
    assert [event.type for event in rig.publisher.events if event.camera_id == "clip"] == ["started", "ended"]


def switch(rig: Rig) -> None:
    """From now on the gallery holds vectors of another model."""

    def reload_if_changed() -> bool:
        raise GalleryError("made with another model now")

    rig.gallery.reload_if_changed = reload_if_changed  # type: ignore[method-assign]


def test_a_gallery_that_was_switched_to_another_model_is_taken_up() -> None:
    unknowns_for: list[str] = []

    def memory_of(embedder: FaceEmbedder) -> tuple[None, None]:
        unknowns_for.append(embedder.model_id)
        return None, None

    rig = Rig(memory_of=memory_of)
    rig.loop.start_camera(camera())
    rig.run(5)
    switch(rig)
    other = StandInEmbedder("other")
    rig.load_people = lambda: (gallery_of(other, Ann=ALICE), embedder_of(other))
    rig.run(6)
    assert rig.told == [("started", "Alice"), ("ended", "Alice"), ("started", "Ann")]
    assert rig.publisher.events[-1].model_id == "other"
    assert unknowns_for == ["other"]
    assert "gallery closed" in rig.log


def test_a_switched_gallery_that_cannot_be_used_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    rig.loop.start_camera(camera())
    rig.run(5)
    switch(rig)

    def missing() -> tuple[People, FaceEmbedder]:
        raise ModelError("the weights of other are missing")

    rig.load_people = missing
    rig.run(3)
    assert rig.told == [("started", "Alice")]
    assert "the weights of other are missing" in caplog.text


def test_a_gallery_that_fails_though_its_model_is_the_same_ends_the_worker(rig: Rig) -> None:
    rig.loop.start_camera(camera())
    switch(rig)
    rig.load_people = lambda: (rig.gallery, embedder_of(rig.embedder))
    with pytest.raises(GalleryError):
        rig.run(1)


def test_pictures_are_kept_of_what_is_told() -> None:
    class Told:
        events: list[Event] = []  # noqa: RUF012

        def told(self, event: Event) -> None:
            self.events.append(event)

    seen: list[Event] = []
    rig = Rig(evidence=cast(Evidence, Told()), on_event=seen.append)
    rig.loop.start_camera(camera())
    rig.run(5)
    assert Told.events == seen == rig.publisher.events


def test_the_load_is_the_share_of_time_since_it_was_last_asked_for(rig: Rig) -> None:
    rig.loop.start_camera(camera())
    rig.run(5)
    assert 0.0 < rig.loop.load() <= 1.0
    time.sleep(0.002)
    assert rig.loop.load() == 0.0


@pytest.mark.parametrize(("fleet", "told"), [(False, 3), (True, 0)])
def test_without_a_fleet_the_load_is_told_once_a_second(
    fleet: bool, told: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Loads(Observer):
        def __init__(self) -> None:
            self.loads: list[float] = []

        def worker_load(self, ratio: float) -> None:
            self.loads.append(ratio)

    observer, clock = Loads(), iter(100 + index / 1000 for index in range(10**6))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    rig = Rig(observer=observer, fleet=fleet)
    # Each look at the clock takes a millisecond: two seconds and a half. The first report is that of the start.
    while next(clock) < 102.5:
        rig.cameras.batches = [[]] * 20
        rig.loop.run(threading.Event())
    assert len(observer.loads) == told
    assert all(0.0 < load <= 1.0 for load in observer.loads[1:])


def test_what_a_search_has_shown_decides_on_the_next_frames(rig: Rig) -> None:
    rig.loop.start_camera(camera())
    rig.run(5)
    assert rig.cameras.schedule.worth == ["deciding", *["settled"] * 4]
