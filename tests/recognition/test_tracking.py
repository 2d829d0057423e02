from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.config import TrackingConfig
from worker.recognition import tracking
from worker.recognition.tracking import Look, Tracker
from worker.types import Detections, Tracks

CONFIG = TrackingConfig(max_lost_s=1.0)


def faces(*boxes: tuple[float, float, float], scores: list[float] | None = None) -> Detections:
    """Square faces given as centre x, centre y, side."""
    table = np.array(boxes, np.float32).reshape(-1, 3)
    half = table[:, 2:] / 2
    corners = np.concatenate([table[:, :2] - half, table[:, :2] + half], axis=1)
    places = np.array([[-0.2, -0.1], [0.2, -0.1], [0, 0.1], [-0.15, 0.25], [0.15, 0.25]], np.float32)
    landmarks = table[:, None, :2] + places[None] * table[:, None, 2:]
    return Detections(corners, np.array(scores or [0.99] * len(table), np.float32), landmarks.astype(np.float32))


def update(tracker: Tracker, found: Detections, pts_s: float) -> Tracks:
    """One camera alone."""
    (tracks,) = tracking.update([Look(tracker, found, pts_s)])
    return tracks


def test_two_people_keep_their_ids_in_whatever_order_they_come() -> None:
    tracker = Tracker(CONFIG)
    first = update(tracker, faces((100, 100, 50), (400, 100, 50)), 0.0)
    assert first.track_ids.tolist() == [1, 2]
    assert first.ages_s.tolist() == [0.0, 0.0]
    second = update(tracker, faces((405, 100, 50), (105, 100, 50)), 0.04)
    assert second.track_ids.tolist() == [2, 1]
    assert second.ages_s == pytest.approx([0.04, 0.04])
    assert second.detections.boxes[0].tolist() == [380, 75, 430, 125]


def test_nobody_is_normal() -> None:
    tracker = Tracker(CONFIG)
    for pts_s in (0.0, 0.5, 9.0):
        tracks = update(tracker, Detections.empty(), pts_s)
        assert (len(tracks), len(tracks.ended_ids), len(tracker.predict(pts_s))) == (0, 0, 0)
    assert tracker.pass_time(1e6).tolist() == []


def test_a_face_is_found_again_where_it_was_heading() -> None:
    """Hidden for half a second at 300 px/s, it comes back three face widths further on."""
    tracker = Tracker(CONFIG)
    for step in range(10):
        update(tracker, faces((100 + 12 * step, 100, 50)), step * 0.04)
    for step in range(10, 22):
        assert len(update(tracker, Detections.empty(), step * 0.04)) == 0
    assert update(tracker, faces((100 + 12 * 22, 100, 50)), 22 * 0.04).track_ids.tolist() == [1]


def test_lost_for_too_long_is_given_up_once_and_the_id_never_comes_back() -> None:
    tracker = Tracker(CONFIG)
    update(tracker, faces((100, 100, 50)), 0.0)
    assert update(tracker, Detections.empty(), 0.9).ended_ids.tolist() == []
    assert update(tracker, Detections.empty(), 1.1).ended_ids.tolist() == [1]
    assert update(tracker, Detections.empty(), 1.2).ended_ids.tolist() == []
    assert update(tracker, faces((100, 100, 50)), 1.3).track_ids.tolist() == [2]
    assert tracker.pass_time(1e6).tolist() == [2]
    assert tracker.pass_time(1e6).tolist() == []


def test_uncertain_faces_continue_a_track_and_start_none() -> None:
    tracker = Tracker(CONFIG, start_score=0.9)
    assert len(update(tracker, faces((100, 100, 50), scores=[0.8]), 0.0)) == 0
    update(tracker, faces((100, 100, 50), scores=[0.95]), 0.04)
    assert update(tracker, faces((102, 100, 50), scores=[0.6]), 0.08).track_ids.tolist() == [1]


def test_a_certain_face_has_precedence_over_an_uncertain_one() -> None:
    tracker = Tracker(CONFIG, start_score=0.9)
    update(tracker, faces((100, 100, 50)), 0.0)
    tracks = update(tracker, faces((100, 100, 50), (106, 100, 50), scores=[0.7, 0.95]), 0.04)
    assert tracks.track_ids.tolist() == [1]
    assert tracks.detections.scores.tolist() == [pytest.approx(0.95)]


def test_a_small_fast_face_is_followed_without_any_overlap() -> None:
    tracker = Tracker(CONFIG)
    ids = [update(tracker, faces((100 + 26 * step, 100, 24)), step * 0.1).track_ids.tolist() for step in range(8)]
    assert ids == [[1]] * 8


def test_a_face_of_another_size_nearby_is_somebody_else() -> None:
    tracker = Tracker(CONFIG)
    update(tracker, faces((100, 100, 20)), 0.0)
    assert update(tracker, faces((115, 100, 80)), 0.04).track_ids.tolist() == [2]


def test_a_face_far_away_is_somebody_else() -> None:
    tracker = Tracker(CONFIG)
    update(tracker, faces((100, 100, 50)), 0.0)
    assert update(tracker, faces((300, 100, 50)), 0.9).track_ids.tolist() == [2]


def test_motion_is_in_seconds_not_frames() -> None:
    """Irregular frames, two of three skipped: the same walk, the same track."""
    rng = np.random.default_rng(0)
    tracker, pts_s = Tracker(CONFIG), 0.0
    seen = set()
    for _ in range(40):
        seen |= set(update(tracker, faces((100 + 150 * pts_s, 100, 50)), pts_s).track_ids.tolist())
        pts_s += float(rng.uniform(0.02, 0.2))
    assert seen == {1}


def test_prediction_moves_boxes_and_landmarks_and_changes_nothing() -> None:
    tracker = Tracker(CONFIG)
    for step in range(10):
        update(tracker, faces((100 + 10 * step, 100, 50), (600, 300, 80)), step * 0.1)
    ahead = tracker.predict(1.1)
    expected = faces((210, 100, 50), (600, 300, 80))
    assert ahead.track_ids.tolist() == [1, 2]
    assert ahead.detections.boxes == pytest.approx(expected.boxes, abs=1.0)
    assert ahead.detections.landmarks == pytest.approx(expected.landmarks, abs=1.0)
    assert ahead.ages_s == pytest.approx([1.1, 1.1])
    assert len(ahead.ended_ids) == 0
    assert tracker.predict(1.1).detections.boxes == pytest.approx(ahead.detections.boxes)
    assert len(tracker.predict(5.0)) == 0
    assert update(tracker, faces((210, 100, 50)), 1.1).track_ids.tolist() == [1]
    assert tracker.predict(1.2).track_ids.tolist() == [1]


def test_a_clock_that_jumps_back_ends_all_tracks() -> None:
    tracker = Tracker(CONFIG)
    update(tracker, faces((100, 100, 50)), 100.0)
    tracks = update(tracker, faces((100, 100, 50)), 0.0)
    assert (tracks.track_ids.tolist(), tracks.ended_ids.tolist()) == ([2], [1])
    assert update(tracker, faces((100, 100, 50)), 0.04).track_ids.tolist() == [2]


def test_a_repeated_or_slightly_earlier_time_is_harmless() -> None:
    tracker = Tracker(CONFIG)
    tracks = [update(tracker, faces((100, 100, 50)), pts_s) for pts_s in (1.0, 1.04, 1.04, 1.0, 1.08)]
    assert {track_id for update in tracks for track_id in update.track_ids.tolist()} == {1}
    assert all(np.isfinite(update.detections.boxes).all() for update in tracks)


Found: TypeAlias = tuple[float, float, float, float]
Faces = st.lists(st.tuples(st.floats(-50, 500), st.floats(-50, 500), st.floats(0, 120), st.floats(0, 1)), max_size=6)
Moment = st.tuples(st.floats(-0.5, 3.0), Faces)


@settings(deadline=None)
@given(moments=st.lists(Moment, max_size=20))
def test_ids_are_unique_never_reused_and_end_exactly_once(
    moments: list[tuple[float, list[Found]]],
) -> None:
    tracker, pts_s = Tracker(CONFIG, start_score=0.5), 0.0
    begun: set[int] = set()
    ended: list[int] = []
    for elapsed_s, found in moments:
        pts_s += elapsed_s
        detections = faces(*[face[:3] for face in found], scores=[face[3] for face in found])
        tracks = update(tracker, detections, pts_s)
        ids = tracks.track_ids.tolist()
        assert len(set(ids)) == len(ids)
        ended += tracks.ended_ids.tolist()
        assert not set(ids) & set(ended)
        new = sorted(set(ids) - begun)
        assert all(fresh > max(begun, default=0) for fresh in new)
        begun |= set(ids)
        assert (tracks.ages_s >= 0).all()
        assert int((detections.scores >= 0.5).sum()) <= len(tracks) <= len(detections)
        assert np.isfinite(tracker.predict(pts_s + 0.1).detections.boxes).all()
    ended += tracker.pass_time(1e6).tolist()
    assert sorted(ended) == sorted(begun)


@settings(deadline=None)
@given(
    st.lists(
        st.lists(st.none() | st.tuples(st.floats(-2.0, 3.0), st.floats(0.2, 2.0), Faces), min_size=4, max_size=4),
        max_size=8,
    )
)
def test_the_cameras_of_a_batch_have_no_part_in_each_other(
    batches: list[list[tuple[float, float, list[Found]] | None]],
) -> None:
    """Of four cameras, some have a frame in a batch: each gets what it would get alone."""
    together, alone = ([Tracker(CONFIG, start_score=0.5) for _ in range(4)] for _ in range(2))
    clocks = [0.0] * 4
    for batch in batches:
        looks, expected = [], []
        for camera, moment in enumerate(batch):
            if moment is not None:
                elapsed_s, together[camera].max_lost_s, found = moment
                alone[camera].max_lost_s = together[camera].max_lost_s
                clocks[camera] += elapsed_s
                detections = faces(*[face[:3] for face in found], scores=[face[3] for face in found])
                looks.append(Look(together[camera], detections, clocks[camera]))
                expected.append(update(alone[camera], detections, clocks[camera]))
        for ours, theirs in zip(tracking.update(looks), expected, strict=True):
            assert ours.track_ids.tolist() == theirs.track_ids.tolist()
            assert ours.ended_ids.tolist() == theirs.ended_ids.tolist()
            assert np.array_equal(ours.ages_s, theirs.ages_s)
            assert np.array_equal(ours.detections.boxes, theirs.detections.boxes)
        for one, other, clock in zip(together, alone, clocks, strict=True):
            ahead, expected_ahead = (tracker.predict(clock + 0.1).detections for tracker in (one, other))
            assert np.array_equal(ahead.boxes, expected_ahead.boxes)
            assert np.array_equal(ahead.landmarks, expected_ahead.landmarks)


def test_a_crowd_of_walkers_with_misses_and_false_alarms_keeps_its_ids() -> None:
    rng = np.random.default_rng(5)
    people, switches, tracker = 8, 0, Tracker(CONFIG)
    centres = np.stack([np.linspace(150, 1700, people), rng.uniform(200, 800, people)], axis=1)
    speed = np.stack([rng.uniform(-90, 90, people), rng.uniform(-20, 20, people)], axis=1)
    ids: list[list[int]] = [[] for _ in range(people)]
    for step in range(100):
        centres += speed * 0.08
        seen = np.flatnonzero(rng.random(people) > 0.15)
        noisy = centres[seen] + rng.normal(0, 2, (len(seen), 2))
        boxes = [(x, y, 50.0) for x, y in noisy.tolist()]
        boxes.append((float(rng.uniform(0, 1900)), 1000.0, 40.0))
        tracks = update(tracker, faces(*boxes), step * 0.08)
        for who, track_id in zip(seen.tolist(), tracks.track_ids.tolist(), strict=False):
            ids[who].append(track_id)
    switches = sum(a != b for own in ids for a, b in pairwise(own))
    assert switches <= 1


@pytest.mark.data
def test_people_who_walk_towards_a_camera_keep_their_ids(test_data: Path) -> None:
    """Every third frame is searched for faces, by a detector that is not ours, at half the size."""
    import av
    import cv2

    judge = cv2.FaceDetectorYN.create(str(test_data / "models" / "yunet_s_640_640.onnx"), "", (960, 540), 0.8)
    tracker, lengths = Tracker(CONFIG, start_score=0.85), dict[int, int]()
    with av.open(test_data / "video" / "crowd_1080p.mp4") as video:
        for number, frame in enumerate(video.decode(video=0)):
            if number % 3:
                continue
            _, found = judge.detect(frame.to_ndarray(format="bgr24", width=960, height=540))
            rows = np.empty((0, 15), np.float32) if found is None else found
            boxes = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1)
            detections = Detections(boxes, rows[:, 14], rows[:, 4:14].reshape(-1, 5, 2))
            for track_id in update(tracker, detections, float(frame.time)).track_ids.tolist():
                lengths[track_id] = lengths.get(track_id, 0) + 1
    assert sum(lengths.values()) > 100
    long = [length for length in lengths.values() if length >= 10]
    assert len(long) >= 4
    assert sum(long) >= 0.6 * sum(lengths.values())


def test_a_look_that_comes_late_does_not_end_the_track_it_finds_again() -> None:
    tracker = Tracker(CONFIG)
    update(tracker, faces((100, 100, 50)), 0.0)
    assert update(tracker, faces((104, 100, 50)), 3.0).track_ids.tolist() == [1]
    assert update(tracker, Detections.empty(), 6.0).ended_ids.tolist() == [], "one look alone has missed it"
    assert update(tracker, Detections.empty(), 6.3).ended_ids.tolist() == [1]


def test_a_face_in_the_same_place_much_later_is_another_track() -> None:
    tracker = Tracker(CONFIG)
    update(tracker, faces((100, 100, 50)), 0.0)
    found = update(tracker, faces((100, 100, 50)), 7.2)
    assert (found.track_ids.tolist(), found.ended_ids.tolist()) == ([2], [1])


def test_without_frames_a_track_ends_by_time_alone() -> None:
    tracker = Tracker(CONFIG)
    update(tracker, faces((100, 100, 50)), 0.0)
    assert tracker.pass_time(0.9).tolist() == []
    assert tracker.pass_time(1.1).tolist() == [1]
