"""Tracks become sightings: one visit, one sighting; verdicts that may be revised; no repeated alerts."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from worker.config import RecognitionConfig
from worker.history.recorder import Recorder
from worker.observer import Observer
from worker.recognition.context import RecognitionContext
from worker.recognition.sightings import CameraSightings
from worker.recognition.unknowns import Unknowns
from worker.types import Detections, Event, Frame, Match, Tracks

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
ALICE = np.eye(8, dtype=np.float32)[0]
BOB = np.eye(8, dtype=np.float32)[1]
STRANGER = np.eye(8, dtype=np.float32)[2]
PEOPLE = {"alice": ALICE, "bob": BOB}
THRESHOLD = 0.5


class Outcomes(Observer):
    def __init__(self) -> None:
        self.outcomes: list[str] = []

    def track_ended(self, camera_id: str, outcome: str) -> None:
        self.outcomes.append(outcome)


class Scene:
    """Drives the sightings of one camera, one frame every 0.1 s, with a gallery of Alice and Bob."""

    def __init__(self, recorder: Recorder | None = None, unknowns: Unknowns | None = None, **config: float) -> None:
        self.observer = Outcomes()
        self.config = RecognitionConfig(**({"verdict_timeout_s": 1.0, "linger_s": 5.0} | config))
        context = RecognitionContext(
            self.config, "m", "", 8, min_detections=2, worker_id="w", observer=self.observer, recorder=recorder,
            unknowns=unknowns,
        )  # fmt: skip
        self.sightings = CameraSightings("door", context, threshold=THRESHOLD)
        self.pts_s = 0.0
        self.began = NOON
        self.left_px = 0
        self.embedded = 0

    @property
    def now(self) -> datetime:
        return self.began + timedelta(seconds=self.pts_s)

    def frame(
        self, faces: dict[int, np.ndarray], ended: tuple[int, ...] = (), embed: bool = True, seconds: float = 0.1
    ) -> list[Event]:
        self.pts_s = round(self.pts_s + seconds, 3)
        n = len(faces)
        boxes = np.array([[10 * i, 0, 10 * i + 60, 60] for i in range(n)], np.float32).reshape(n, 4)
        boxes[:, ::2] += self.left_px
        found = Detections(boxes, np.ones(n, np.float32), np.zeros((n, 5, 2), np.float32))
        tracks = Tracks(found, np.array(list(faces), np.int64), np.zeros(n, np.float32), np.array(ended, np.int64))
        frame = Frame("door", 0, self.pts_s, self.now, 0.0, np.zeros((90, 160, 3), np.uint8))
        for index in self.sightings.see(frame, tracks):
            track_id = int(tracks.track_ids[index])
            if embed:
                self.embedded += 1
                self.sightings.learn(track_id, faces[track_id], 0.8, self.pts_s, 3600.0)
        for sighting in self.sightings.to_match(gallery_changed=False):
            sighting.match = self.match(sighting.template.vector, sighting.template.count)
            sighting.template_changed = False
        return self.sightings.transitions(self.pts_s)

    def match(self, vector: np.ndarray, evidence: int) -> Match:
        name = max(PEOPLE, key=lambda who: float(PEOPLE[who] @ vector))
        similarity = float(PEOPLE[name] @ vector)
        named = similarity >= THRESHOLD and evidence >= self.config.min_embeddings
        return Match(
            name if named else None, name.title() if named else "", similarity, 0.0, THRESHOLD, 3,
            "matched" if named else "below_threshold",
        )  # fmt: skip

    def frames(self, count: int, faces: dict[int, np.ndarray]) -> list[Event]:
        return [event for _ in range(count) for event in self.frame(faces)]

    def absent(self, seconds: float) -> list[Event]:
        return [event for _ in range(round(seconds / 0.1)) for event in self.frame({})]


def kinds(events: list[Event]) -> list[tuple[str, str]]:
    return [(event.type, event.identity_name) for event in events]


def test_known_person_is_announced_once_and_ended_with_the_time_last_seen() -> None:
    scene = Scene()
    events = scene.frames(20, {1: ALICE})
    assert kinds(events) == [("started", "Alice")]
    left_at = NOON + timedelta(seconds=scene.pts_s)
    events += scene.frame({}, ended=(1,)) + scene.absent(6.0)
    assert kinds(events) == [("started", "Alice"), ("ended", "Alice")]
    assert events[-1].ended_at == left_at
    assert events[0].ended_at is None
    assert {event.sighting_id for event in events} == {events[0].sighting_id}
    assert len({event.event_id for event in events}) == 2


def test_unknown_person_is_announced_without_identity_after_the_verdict_timeout() -> None:
    scene = Scene(verdict_timeout_s=1.0)
    assert scene.frames(9, {1: STRANGER}) == []
    events = scene.frames(5, {1: STRANGER})
    assert kinds(events) == [("started", "")]
    assert events[0].identity_id == ""


def test_person_whose_face_is_never_good_enough_is_still_a_sighting() -> None:
    scene = Scene()
    events = [event for _ in range(15) for event in scene.frame({1: ALICE}, embed=False)]
    scene.sightings.reject(1, "blurred")
    events += scene.sightings.close()
    assert kinds(events) == [("started", ""), ("ended", "")]
    assert events[0].similarity is None
    assert scene.observer.outcomes == ["blurred"]


def test_verdict_that_changes_is_an_update_of_the_same_sighting() -> None:
    scene = Scene(verdict_timeout_s=0.3)
    seen_badly = (0.4 * ALICE + np.sqrt(1 - 0.4**2) * STRANGER).astype(np.float32)
    events = scene.frames(5, {1: seen_badly})
    events += scene.frames(60, {1: ALICE})
    assert kinds(events) == [("started", ""), ("updated", "Alice")]


@pytest.mark.parametrize(("first", "second"), [(ALICE, BOB), (ALICE, STRANGER), (STRANGER, ALICE)])
def test_who_takes_over_the_track_of_another_is_a_sighting_of_their_own(first: np.ndarray, second: np.ndarray) -> None:
    names = ["Alice" if person is ALICE else "Bob" if person is BOB else "" for person in (first, second)]
    scene = Scene()
    events = scene.frames(15, {1: first}) + scene.frames(75, {1: second}) + scene.sightings.close()
    expected = [("started", names[0]), ("ended", names[0]), ("started", names[1]), ("ended", names[1])]
    assert sorted(kinds(events)) == sorted(expected)


@pytest.mark.parametrize(("away", "moved_px"), [(1, 40), (0, 100)])
def test_who_appears_beside_the_place_of_another_is_looked_at_at_once(away: int, moved_px: int) -> None:
    scene = Scene()
    events = scene.frames(15, {1: ALICE}) + scene.frames(away, {})
    scene.left_px += moved_px
    changed_s = scene.pts_s
    while ("started", "Bob") not in kinds(events):
        events += scene.frame({1: BOB})
        assert scene.pts_s - changed_s < 1.0
    assert ("updated", "Bob") not in kinds(events)


def test_who_walks_fast_is_not_embedded_more_often() -> None:
    scene = Scene()
    for _ in range(40):
        scene.left_px += 30
        scene.frame({1: ALICE})
    assert scene.embedded == 2


def test_a_face_that_does_not_resemble_its_track_is_no_other_person_if_the_next_one_does() -> None:
    scene = Scene()
    events = scene.frames(2, {1: ALICE})
    for _ in range(4):
        events += scene.frames(45, {1: ALICE})
        for person in (STRANGER, ALICE):
            embedded = scene.embedded
            while scene.embedded == embedded:
                events += scene.frame({1: person})
    assert kinds(events + scene.sightings.close()) == [("started", "Alice"), ("ended", "Alice")]


def test_single_detection_is_no_person() -> None:
    scene = Scene()
    events = scene.frame({1: ALICE}) + scene.frame({}, ended=(1,)) + scene.absent(6.0) + scene.sightings.close()
    assert events == []
    assert scene.observer.outcomes == ["too_short"]


@pytest.mark.parametrize("person", [ALICE, STRANGER])
def test_person_who_returns_in_time_continues_the_same_sighting(person: np.ndarray) -> None:
    scene = Scene(linger_s=5.0)
    events = scene.frames(15, {1: person}) + scene.frame({}, ended=(1,)) + scene.absent(2.0)
    events += scene.frames(15, {2: person}) + scene.frame({}, ended=(2,)) + scene.absent(6.0)
    assert [event.type for event in events] == ["started", "ended"]
    assert events[-1].track_id == 1


def test_person_who_returns_late_is_a_new_sighting() -> None:
    scene = Scene(linger_s=1.0)
    events = scene.frames(15, {1: ALICE}) + scene.frame({}, ended=(1,)) + scene.absent(3.0)
    events += scene.frames(15, {2: ALICE}) + scene.frame({}, ended=(2,)) + scene.absent(3.0)
    assert kinds(events) == [("started", "Alice"), ("ended", "Alice")] * 2


def test_another_person_does_not_continue_a_sighting() -> None:
    scene = Scene(linger_s=5.0)
    events = scene.frames(15, {1: ALICE}) + scene.frame({}, ended=(1,)) + scene.frames(15, {2: BOB})
    events += scene.sightings.close()
    assert sorted(kinds(events)) == [("ended", "Alice"), ("ended", "Bob"), ("started", "Alice"), ("started", "Bob")]


def test_person_who_steps_into_the_place_of_another_is_a_new_sighting() -> None:
    scene = Scene(linger_s=5.0)
    events = scene.frames(15, {1: ALICE})
    left_at = NOON + timedelta(seconds=scene.pts_s)
    events += scene.absent(0.8) + scene.frames(15, {1: BOB}) + scene.sightings.close()
    assert sorted(kinds(events)) == [("ended", "Alice"), ("ended", "Bob"), ("started", "Alice"), ("started", "Bob")]
    assert next(event for event in events if kinds([event]) == [("ended", "Alice")]).ended_at == left_at


@pytest.mark.parametrize("embed", [True, False])
def test_same_person_after_a_gap_of_the_track_is_the_same_sighting(embed: bool) -> None:
    scene = Scene(linger_s=5.0)
    events = scene.frames(15, {1: ALICE}) + scene.absent(0.8)
    events += [event for _ in range(15) for event in scene.frame({1: ALICE}, embed=embed)] + scene.sightings.close()
    assert kinds(events) == [("started", "Alice"), ("ended", "Alice")]


def test_two_faces_at_once_cannot_be_the_same_person() -> None:
    scene = Scene(verdict_timeout_s=0.5)
    alike = (0.8 * ALICE + 0.6 * STRANGER).astype(np.float32)
    events = scene.frames(20, {1: ALICE, 2: alike})
    named = [event for event in events if event.identity_name == "Alice"]
    assert {event.track_id for event in named} == {1}


def test_settled_track_is_not_embedded_every_frame() -> None:
    scene = Scene()
    scene.frames(50, {1: ALICE})
    assert scene.embedded == 2


def test_unsettled_track_is_embedded_until_there_is_enough() -> None:
    scene = Scene(max_embeddings=6)
    unsure = (0.55 * ALICE + np.sqrt(1 - 0.55**2) * STRANGER).astype(np.float32)
    scene.frames(40, {1: unsure})
    assert scene.embedded == 6


def test_settled_track_is_looked_at_again_now_and_then() -> None:
    scene = Scene()
    scene.frames(70, {1: ALICE})
    assert scene.embedded == 3


def test_close_ends_everybody_announced_or_not() -> None:
    scene = Scene()
    events = scene.frames(4, {1: ALICE, 2: STRANGER}) + scene.sightings.close()
    assert sorted(kinds(events)) == [("ended", ""), ("ended", "Alice"), ("started", ""), ("started", "Alice")]


def test_same_footage_gives_the_same_ids() -> None:
    def visit() -> list[str]:
        scene = Scene()
        return [event.event_id for event in (*scene.frames(10, {1: ALICE}), *scene.sightings.close())]

    assert visit() == visit()
