"""Unknown people keep their id: across sightings, cameras and restarts, and no longer than promised."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.past import NOON, Notes
from tests.support.scenes import ALICE, STRANGER, Scene
from tests.support.waiting import eventually
from worker.config import Config, UnknownsConfig
from worker.history.recorder import Recorder
from worker.history.records import EmbedderId, UnknownPerson
from worker.history.store import History
from worker.recognition.unknowns import Unknowns, unknown_id_of
from worker.types import Event

MODEL = EmbedderId("m", "digest")
AXES = np.eye(8, dtype=np.float32)


def mixed(similarity: float, other: int = 1) -> np.ndarray:
    """A unit vector with this cosine to the first axis."""
    vector: np.ndarray = similarity * AXES[0] + np.sqrt(1 - similarity**2) * AXES[other]
    return vector.astype(np.float32)


def identify(unknowns: Unknowns, number: int, template: np.ndarray, at: datetime = NOON, **kwargs: Any) -> str:
    return unknowns.identify(f"s{number}", template, 2, at, **({"threshold": 0.5} | kwargs))


def make(recorder: Recorder | None = None, history: History | None = None, **config: Any) -> Unknowns:
    return Unknowns(UnknownsConfig(**config), MODEL, 8, recorder=recorder, history=history)


def test_the_same_face_is_the_same_person_and_another_face_another() -> None:
    unknowns = make()
    first = identify(unknowns, 1, AXES[0])
    assert identify(unknowns, 2, mixed(0.6)) == first
    assert identify(unknowns, 3, AXES[5]) != first
    assert len(unknowns) == 2


def test_an_id_comes_from_the_footage() -> None:
    assert identify(make(), 1, AXES[0]) == unknown_id_of("s1") == identify(make(), 1, AXES[3])


@given(st.floats(0.3, 0.9), st.floats(-0.9, 0.95))
def test_two_are_one_from_the_threshold_on(threshold: float, similarity: float) -> None:
    unknowns = make()
    first = identify(unknowns, 1, AXES[0])
    again = identify(unknowns, 2, mixed(similarity), threshold=threshold)
    if abs(similarity - threshold) > 1e-5:
        assert (again == first) == (similarity > threshold)


def test_a_configured_threshold_goes_before_the_cameras() -> None:
    unknowns = make(threshold=0.9)
    assert identify(unknowns, 1, AXES[0]) != identify(unknowns, 2, mixed(0.8))


def test_whoever_stands_beside_them_is_somebody_else() -> None:
    unknowns = make()
    first = identify(unknowns, 1, AXES[0])
    assert identify(unknowns, 2, mixed(0.9), taken={first, "u-never-seen"}) != first
    assert identify(unknowns, 3, AXES[0], taken={unknown_id_of("s2")}) == first


@pytest.mark.parametrize("direction", [1, -1])
def test_somebody_not_seen_for_long_is_somebody_new(direction: int) -> None:
    unknowns = make(remember_days=7)
    first = identify(unknowns, 1, AXES[0])
    assert identify(unknowns, 2, AXES[0], NOON + direction * timedelta(days=6)) == first
    assert identify(unknowns, 3, AXES[0], NOON + direction * timedelta(days=8)) != first


def test_every_sighting_renews_the_time_and_the_template() -> None:
    unknowns = make(remember_days=7)
    first = identify(unknowns, 1, AXES[0])
    unknowns.met(first, AXES[0], 2, NOON, is_new=True)
    for number in range(1, 12):
        at = NOON + number * timedelta(days=5)
        assert identify(unknowns, number, mixed(0.6), at) == first
        unknowns.met(first, mixed(0.6), 4, at, is_new=False)
    # The mean has moved towards the later looks, so that they are nearer now than the threshold.
    assert identify(unknowns, 20, mixed(0.6), at, threshold=0.9) == first


def test_the_one_not_seen_for_longest_makes_room() -> None:
    notes = Notes()
    unknowns = make(notes.recorder, max_people=3)
    ids = [identify(unknowns, row, AXES[row], NOON + timedelta(minutes=row)) for row in range(3)]
    unknowns.met(ids[0], AXES[0], 2, NOON + timedelta(hours=1), is_new=True)
    identify(unknowns, 3, AXES[3], NOON + timedelta(hours=2))
    assert len(unknowns) == 3
    assert [person.unknown_id for person in notes.people if person.template is None] == [ids[1]]
    assert identify(unknowns, 9, AXES[0], NOON + timedelta(hours=2)) == ids[0]
    assert identify(unknowns, 10, AXES[2], NOON + timedelta(hours=2)) == ids[2]


def test_more_people_than_the_first_block_of_memory_holds() -> None:
    unknowns = Unknowns(UnknownsConfig(), MODEL, 1024)
    faces = np.eye(1024, dtype=np.float32)[:600]
    ids = [unknowns.identify(f"s{n}", face, 2, NOON, threshold=0.5) for n, face in enumerate(faces)]
    assert len(set(ids)) == 600
    assert [unknowns.identify("again", face, 2, NOON, threshold=0.5) for face in faces] == ids


def test_ids_outlive_the_worker_and_are_shared_with_others(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, Config())
    with History.open(tmp_path) as mine, History.open(tmp_path) as others:
        neighbour = make(history=others)
        first = identify(make(recorder, mine), 1, AXES[0])
        recorder.close()
        assert identify(neighbour, 2, AXES[0]) == first
        assert identify(make(history=mine), 3, AXES[0]) == first
        mine.drop_unknown(first)
        assert identify(neighbour, 4, AXES[0]) != first


def test_templates_of_another_model_are_not_compared(tmp_path: Path) -> None:
    with History.open(tmp_path, create=True) as history:
        foreign = UnknownPerson("u-foreign", EmbedderId("other", "digest"), np.full(4, 0.5, np.float32), 2, NOON, NOON)
        history.write(unknowns=[foreign], keep_s=1e6, remember_s=1e6)
        unknowns = make(history=history)
        assert len(unknowns) == 0
        assert identify(unknowns, 1, AXES[0]) == unknown_id_of("s1")


def with_unknowns(notes: Notes, **config: float) -> Scene:
    return Scene(notes.recorder, make(notes.recorder), **config)


def last(events: list[Event], kind: str) -> Event:
    return [event for event in events if event.type == kind][-1]


def test_a_stranger_who_comes_back_has_the_same_id_and_somebody_known_has_none() -> None:
    scene = with_unknowns(Notes(), linger_s=1.0)
    events = []
    for track_id in (1, 3):
        events += scene.frames(20, {track_id: STRANGER, track_id + 1: ALICE})
        events += scene.frame({}, ended=(track_id, track_id + 1)) + scene.absent(2.0)
    strangers = [event for event in events if not event.identity_id]
    assert len({event.sighting_id for event in strangers}) == 2
    assert {event.unknown_id for event in strangers} == {unknown_id_of(strangers[0].sighting_id)}
    assert {event.unknown_id for event in events if event.identity_id} == {""}


@pytest.mark.parametrize("undone", [False, True])
def test_a_sighting_that_goes_on_while_its_person_is_merged_ends_under_the_id_that_remains(
    tmp_path: Path, undone: bool
) -> None:
    recorder = Recorder(tmp_path, Config())
    with History.open(tmp_path) as mine, History.open(tmp_path) as people:
        scene = Scene(recorder, make(recorder, mine), linger_s=1.0)

        def leaves(track_id: int) -> str:
            return last(scene.frame({}, ended=(track_id,)) + scene.absent(2.0), "ended").unknown_id

        ids = []
        for track_id, face in ((1, STRANGER), (2, AXES[5])):
            scene.frames(20, {track_id: face})
            ids.append(leaves(track_id))
        eventually(lambda: len(people.sightings()) == 2)
        (started,) = scene.frames(20, {3: AXES[5]})
        assert started.unknown_id == ids[1]
        step = people.merge_unknowns(ids[0], ids[1])
        if undone:
            people.undo_regrouping(step)
        now = ids[1] if undone else ids[0]
        # Whoever comes beside them is somebody else, whatever the two look like together.
        (beside,) = scene.frames(20, {3: AXES[5], 4: STRANGER})
        assert (beside.unknown_id == ids[0]) == undone
        assert leaves(3) == now
        recorder.close()
        assert people.sightings()[2].unknown_id == now
        assert people.sightings()[2].event["unknown_id"] == now


def test_a_sighting_that_goes_on_while_its_person_is_split_ends_under_the_id_of_whom_it_shows(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, Config())
    with History.open(tmp_path) as mine, History.open(tmp_path) as people:
        unknowns = Unknowns(UnknownsConfig(), EmbedderId("m", ""), 8, recorder=recorder, history=mine)
        scene = Scene(recorder, unknowns, linger_s=1.0)
        # Two who look so much alike that they got one id.
        alike = (0.8 * STRANGER + 0.6 * AXES[5]).astype(np.float32)
        for track_id, face in ((1, STRANGER), (2, alike)):
            scene.frames(20, {track_id: face})
            scene.frame({}, ended=(track_id,))
            scene.absent(2.0)
        eventually(lambda: len(people.sightings()) == 2)
        first, second = people.sightings()
        assert first.unknown_id == second.unknown_id
        (started,) = scene.frames(20, {3: alike})
        assert started.unknown_id == first.unknown_id
        new_id, _ = people.split_unknown(first.unknown_id, [second.sighting_id])
        # The one from whom they were parted may come beside them.
        (beside,) = scene.frames(20, {3: alike, 4: STRANGER})
        assert beside.unknown_id == first.unknown_id
        ended = [event for event in scene.frame({}, ended=(3, 4)) + scene.absent(2.0) if event.type == "ended"]
        now = {started.sighting_id: new_id, beside.sighting_id: first.unknown_id}
        assert {event.sighting_id: event.unknown_id for event in ended} == now
        recorder.close()
        assert {seen.sighting_id: seen.event["unknown_id"] for seen in people.sightings()[2:]} == now
        assert {seen.sighting_id: seen.unknown_id for seen in people.sightings()[2:]} == now


def test_two_strangers_at_once_are_two_people() -> None:
    scene = with_unknowns(Notes())
    events = scene.frames(20, {1: STRANGER, 2: STRANGER}) + scene.sightings.close()
    assert len({event.unknown_id for event in events if event.type == "ended"}) == 2


def test_without_a_good_face_nobody_can_be_told() -> None:
    notes = Notes()
    scene = with_unknowns(notes)
    events = [event for _ in range(15) for event in scene.frame({1: STRANGER}, embed=False)] + scene.sightings.close()
    assert {event.unknown_id for event in events} == {""}
    assert notes.people == []
    assert notes.sightings[0].template is None


def test_whoever_turns_out_to_be_known_was_no_unknown_person() -> None:
    notes = Notes()
    scene = with_unknowns(notes, verdict_timeout_s=0.3)
    seen_badly = (0.4 * ALICE + np.sqrt(1 - 0.4**2) * STRANGER).astype(np.float32)
    events = scene.frames(5, {1: seen_badly}) + scene.frames(60, {1: ALICE}) + scene.sightings.close()
    assert events[0].unknown_id
    assert (last(events, "updated").unknown_id, last(events, "ended").unknown_id) == ("", "")
    assert (notes.people[-1].unknown_id, notes.people[-1].template) == (events[0].unknown_id, None)
    assert notes.sightings[0].unknown_id == ""


def test_a_sighting_is_recorded_when_it_ends_with_its_account() -> None:
    notes = Notes()
    scene = with_unknowns(notes, linger_s=5.0)
    scene.frames(15, {1: STRANGER})
    scene.sightings.reject(1, "blurred")
    assert notes.sightings == []
    scene.frame({}, ended=(1,))
    scene.absent(2.0)
    events = scene.frames(15, {2: STRANGER}) + scene.sightings.close()
    (past,) = notes.sightings
    assert past.sighting_id == last(events, "ended").sighting_id
    assert past.event["event_id"] == last(events, "ended").event_id
    assert past.template is not None
    assert float(past.template @ STRANGER) == pytest.approx(1.0)
    assert (past.account.faces, dict(past.account.rejected)) == (30, {"blurred": 1})
    assert past.account.embedded == scene.embedded
    assert past.account.continued_by == [2]
    assert scene.observer.outcomes == ["continued", "below_threshold"]


def test_a_track_that_is_no_person_is_counted() -> None:
    notes = Notes()
    scene = with_unknowns(notes)
    scene.frame({1: ALICE})
    scene.frame({}, ended=(1,))
    assert notes.rejects == [("too_short", 1, 1)]
    assert notes.sightings == []


def test_an_unknown_person_whose_vector_has_another_length_is_nobody(tmp_path: Path) -> None:
    with History.open(tmp_path, create=True) as history:
        short, whole = (
            UnknownPerson(name, MODEL, template, 3.0, NOON, NOON)
            for name, template in (("u-short", np.ones(3, np.float32)), ("u-1", AXES[0]))
        )
        year_s = 365 * 86_400.0
        history.write((), [short, whole], keep_s=year_s, remember_s=year_s)
        unknowns = make(history=history)
        assert len(unknowns) == 1
        assert identify(unknowns, 1, AXES[0]) == "u-1"
