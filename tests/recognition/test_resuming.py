"""Sightings go on where they were left: by another worker, or after a restart."""

import base64
import json
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.past import NOON
from tests.support.scenes import ALICE, BOB, STRANGER, Scene, kinds
from worker.recognition.saved import FORMAT
from worker.types import Event


def left_by(scene: Scene) -> dict[str, Any]:
    """The state as it is after a journey as text."""
    state: dict[str, Any] = json.loads(json.dumps(scene.sightings.state(), allow_nan=False))
    return state


def successor(state: dict[str, Any], *, left_at_s: float, after_s: float, pts_s: float = 0.0, **config: Any) -> Scene:
    """A new worker, whose first frame comes ``after_s`` after the last one of the old worker, at ``pts_s``."""
    scene = Scene(**config)
    scene.pts_s = pts_s - 0.1
    scene.began = NOON + timedelta(seconds=left_at_s + after_s - pts_s)
    scene.sightings.resume(state, scene.began + timedelta(seconds=pts_s), pts_s)
    return scene


@pytest.mark.parametrize("person", [ALICE, STRANGER])
@pytest.mark.parametrize("pts_s", [0.0, 1000.0])
def test_whoever_is_still_there_continues_their_sighting(person: np.ndarray, pts_s: float) -> None:
    old = Scene()
    before = old.frames(15, {7: person})
    new = successor(left_by(old), left_at_s=old.pts_s, after_s=3.0, pts_s=pts_s)
    after = new.frames(20, {1: person})
    left_at = new.now
    after += new.frame({}, ended=(1,)) + new.absent(6.0)
    assert [event.type for event in before + after] == ["started", "ended"]
    assert after[0].sighting_id == before[0].sighting_id
    assert after[0].started_at == before[0].started_at
    assert after[0].ended_at == left_at
    assert after[0].event_id != before[0].event_id


def test_whoever_has_gone_ends_as_the_old_worker_would_have_ended_it() -> None:
    old = Scene()
    old.frames(15, {7: ALICE})
    state, left_at_s = left_by(old), old.pts_s
    expected = old.frame({}, ended=(7,)) + old.absent(6.0)
    new = successor(state, left_at_s=left_at_s, after_s=2.0)
    events = new.absent(6.0)
    assert [event.event_id for event in events] == [event.event_id for event in expected]
    assert events[0].ended_at == expected[0].ended_at


def test_who_was_seen_too_long_ago_ends_at_once_and_is_sighted_anew() -> None:
    old = Scene(linger_s=5.0)
    before = old.frames(15, {7: ALICE})
    new = successor(left_by(old), left_at_s=old.pts_s, after_s=5.5, linger_s=5.0)
    assert kinds(new.frame({1: ALICE})) == [("ended", "Alice")]
    (again,) = new.frames(5, {1: ALICE})
    assert again.type == "started"
    assert again.sighting_id != before[0].sighting_id


def test_who_comes_back_at_the_last_moment_is_given_time_to_be_recognised() -> None:
    old = Scene(linger_s=5.0)
    old.frames(15, {7: ALICE})
    new = successor(left_by(old), left_at_s=old.pts_s, after_s=4.9, linger_s=5.0)
    assert new.frames(15, {1: ALICE}) == []


def test_an_announcement_that_was_due_is_made_by_the_successor_with_the_same_id() -> None:
    old = Scene(verdict_timeout_s=1.0)
    assert old.frames(6, {7: STRANGER}) == []
    state, left_at_s = left_by(old), old.pts_s
    (expected,) = old.frames(10, {7: STRANGER})
    new = successor(state, left_at_s=left_at_s, after_s=0.2)
    events = new.frames(20, {1: STRANGER})
    assert [event.event_id for event in events] == [expected.event_id]


def test_another_person_does_not_continue_it() -> None:
    old = Scene()
    old.frames(15, {7: ALICE})
    new = successor(left_by(old), left_at_s=old.pts_s, after_s=1.0)
    events = new.frames(20, {7: BOB}) + new.sightings.close()
    assert sorted(kinds(events)) == [("ended", "Alice"), ("ended", "Bob"), ("started", "Bob")]


@pytest.mark.parametrize(("track_id", "place", "continues"), [(1, 0, True), (7, 600, False)])
def test_a_face_that_tells_nothing_is_the_same_in_the_same_place(track_id: int, place: int, continues: bool) -> None:
    old = Scene()
    for _ in range(15):
        old.frame({7: ALICE}, embed=False)
    new = successor(left_by(old), left_at_s=old.pts_s, after_s=1.0)
    new.left_px = place
    events = [event for _ in range(20) for event in new.frame({track_id: ALICE}, embed=False)]
    assert ([event.type for event in events] == []) == continues


@pytest.mark.parametrize("change", [{"model_id": "other"}, {"preprocessing": "other"}, {"dimension": 9}])
def test_sightings_of_another_model_end(change: dict[str, Any]) -> None:
    old = Scene()
    before = old.frames(15, {7: ALICE})
    new = successor(left_by(old) | change, left_at_s=old.pts_s, after_s=0.5)
    events = new.frames(10, {1: ALICE})
    assert kinds(events) == [("ended", "Alice"), ("started", "Alice")]
    assert events[0].sighting_id == before[0].sighting_id


def test_a_clock_that_was_set_back_does_not_keep_sightings_for_ever() -> None:
    old = Scene()
    old.frames(15, {7: ALICE})
    new = successor(left_by(old), left_at_s=old.pts_s, after_s=-3600.0)
    assert kinds(new.absent(6.0)) == [("ended", "Alice")]


def test_a_single_detection_is_not_kept() -> None:
    old = Scene()
    old.frame({7: ALICE})
    assert left_by(old)["sightings"] == []


people = st.lists(
    st.tuples(st.integers(1, 4), st.sampled_from([ALICE, BOB, STRANGER]), st.booleans()), min_size=1, max_size=12
)


@settings(max_examples=60, deadline=None)
@given(people)
def test_a_state_survives_its_journey(visits: list[tuple[int, np.ndarray, bool]]) -> None:
    old = Scene()
    for track_id, person, embed in visits:
        for _ in range(4):
            old.frame({track_id: person}, embed=embed)
    state = left_by(old)
    new = successor(state, left_at_s=old.pts_s, after_s=0.0)
    assert _comparable(left_by(new)) == _comparable(state)


def _comparable(state: dict[str, Any]) -> list[dict[str, Any]]:
    return sorted(state["sightings"], key=lambda sighting: str(sighting["sighting_id"]))


def _without(state: dict[str, Any], path: str) -> dict[str, Any]:
    """A copy without one field of it, or of its first sighting."""
    copied: dict[str, Any] = json.loads(json.dumps(state))
    at = copied
    *parents, name = path.split(".")
    for parent in parents:
        at = at[parent][0] if parent == "sightings" else at[parent]
    del at[name]
    return copied


@pytest.mark.parametrize(
    "path",
    ["format", "camera_id", "sightings", "sightings.sighting_id", "sightings.seen_at", "sightings.template.sum",
     "sightings.match.reason", "sightings.account.rejected"],
)  # fmt: skip
def test_a_state_that_lacks_something_is_refused_in_the_log(path: str, caplog: pytest.LogCaptureFixture) -> None:
    old = Scene()
    old.frames(15, {7: ALICE})
    new = successor(_without(left_by(old), path), left_at_s=old.pts_s, after_s=1.0)
    assert kinds(new.frames(10, {1: ALICE})) == [("started", "Alice")]
    assert caplog.text.count("sightings begin anew") == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [("template", {"sum": "AAAA", "best": "AAAA", "count": 1, "best_quality": 0.5}), ("seen_at", "yesterday"),
     ("seen_at", "2026-01-01T12:00:00"), ("box", [0, 0, float("nan"), 1]), ("detections", -1), ("match", [])],
)  # fmt: skip
def test_a_state_with_a_wrong_value_is_refused_in_the_log(
    field: str, value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    old = Scene()
    old.frames(15, {7: ALICE})
    state = left_by(old)
    state["sightings"][0][field] = value
    new = successor(state, left_at_s=old.pts_s, after_s=1.0)
    assert kinds(new.frames(10, {1: ALICE})) == [("started", "Alice")]
    assert "sightings begin anew" in caplog.text


json_values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(st.text(max_size=10), json_values, max_size=4),
    st.fixed_dictionaries(
        {"format": st.just(FORMAT), "camera_id": st.just("door"), "model_id": st.just("m"),
         "preprocessing": json_values, "dimension": json_values, "sightings": json_values}
    ),
)  # fmt: skip
def test_nothing_that_is_read_stops_the_camera(noise: dict[str, Any], state: dict[str, Any]) -> None:
    for read in (noise, state):
        new = successor(read, left_at_s=0.0, after_s=1.0)
        events: list[Event] = new.frames(10, {1: ALICE})
        assert kinds(events) == [("started", "Alice")]


HOSTILE: list[tuple[tuple[str, ...], Any]] = [
    (("sighting_id",), "../../../../tmp/planted"),
    (("sighting_id",), "door_2026-01-01T12:00:00.100Z_8"),
    (("sighting_id",), ""),
    (("track_id",), 10**30),
    (("started_at",), "0001-01-01T00:00:00+14:00"),
    (("seen_at",), "9999-12-31T23:59:59-14:00"),
    (("unknown_id",), "../x"),
    (("last_event_id",), "\x1b]52;c;aGk=\x07"),
    (("rejection",), "a label\n of a metric"),
    (("frame_size",), [10**12, 1]),
    (("match", "reason"), "x" * 5000),
    (("match", "identity_name"), "x" * 5000),
    (("account", "rejected"), {f"reason {number}": 1 for number in range(3)}),
    (("account", "faces"), -1),
    (("template", "best"), base64.b64encode(np.full(8, 1e30, "<f4").tobytes()).decode()),
    (("template", "count"), 10**40),
]


@pytest.mark.parametrize(("path", "value"), HOSTILE, ids=lambda value: str(value)[:40])
def test_a_state_that_somebody_else_has_written_is_counted_and_passed_over(path: tuple[str, ...], value: Any) -> None:
    old = Scene()
    old.frames(15, {7: ALICE})
    state = left_by(old)
    holder = state["sightings"][0]
    for part in path[:-1]:
        holder = holder[part]
    holder[path[-1]] = value
    new = successor(state, left_at_s=old.pts_s, after_s=1.0)
    events = new.frames(15, {1: ALICE}) + new.sightings.close()
    assert new.observer.refused == ["state"]
    assert kinds(events) == [("started", "Alice"), ("ended", "Alice")]
    assert len({event.sighting_id for event in events}) == 1


def test_a_state_that_is_nested_too_deep_is_passed_over() -> None:
    nested: Any = []
    for _ in range(100_000):
        nested = [nested]
    new = successor({"format": FORMAT, "more": nested}, left_at_s=1.0, after_s=1.0)
    assert new.observer.refused == ["state"]
