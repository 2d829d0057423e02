"""Tracks become sightings: one visit, one sighting; verdicts that may be revised; no repeated alerts."""

from datetime import timedelta

import numpy as np
import pytest

from tests.support.past import NOON
from tests.support.scenes import ALICE, BOB, STRANGER, Scene, kinds


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


@pytest.mark.parametrize("seen_before", [1, 2])
def test_who_steps_into_the_place_of_somebody_hardly_seen_is_not_mixed_with_them(seen_before: int) -> None:
    scene = Scene(linger_s=5.0)
    scene.frames(seen_before, {1: STRANGER})
    events = scene.absent(2.0) + scene.frames(15, {1: ALICE})
    sighting = scene.sightings.of_track(1)
    assert sighting is not None
    assert float(sighting.template.vector @ ALICE) > 0.99
    assert ("started", "Alice") in kinds(events)


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


def test_after_a_cut_a_track_that_is_only_lost_takes_no_name_away() -> None:
    scene = Scene(linger_s=5.0)
    less_alike = (0.7 * ALICE + np.sqrt(1 - 0.7**2) * STRANGER).astype(np.float32)
    events = scene.frames(15, {1: ALICE}) + scene.frames(5, {2: less_alike})  # the tracker gives 1 up after a second
    assert kinds(events) == [("started", "Alice")], "a cut is no second visit"
    events += scene.frame({2: less_alike}, ended=(1,)) + scene.frames(15, {2: less_alike}) + scene.sightings.close()
    assert kinds(events) == [("started", "Alice"), ("ended", "Alice")]


def test_after_a_cut_a_better_look_takes_no_name_away_either() -> None:
    scene = Scene(linger_s=5.0)
    less_alike = (0.7 * ALICE + np.sqrt(1 - 0.7**2) * STRANGER).astype(np.float32)
    events = scene.frames(15, {1: less_alike}) + scene.frames(5, {2: ALICE})
    events += scene.frame({2: ALICE}, ended=(1,)) + scene.sightings.close()
    assert kinds(events) == [("started", "Alice"), ("ended", "Alice")]


def test_who_was_seen_beside_the_person_stays_another_when_a_look_misses_one_of_them() -> None:
    scene = Scene(verdict_timeout_s=0.5)
    alike = (0.8 * ALICE + 0.6 * STRANGER).astype(np.float32)
    events = scene.frames(15, {1: ALICE, 2: alike})
    for _ in range(20):
        scene.left_px += 200  # far enough for a new look at the face
        events += scene.frame({2: alike}) + scene.frame({1: ALICE, 2: alike})
    named = [event for event in events if event.identity_name == "Alice"]
    assert {event.track_id for event in named} == {1}


def test_a_verdict_of_the_last_moment_takes_no_name_that_somebody_beside_bears() -> None:
    scene = Scene()
    alike = (0.8 * ALICE + 0.6 * STRANGER).astype(np.float32)
    events = scene.frames(15, {1: ALICE}) + scene.frame({1: ALICE, 2: alike})
    scene.frame({1: ALICE, 2: alike}, embed=False)
    scene.sightings.leave()
    for sighting in scene.sightings.to_match(gallery_changed=True):
        sighting.match = scene.match(sighting.template.vector, evidence=2)
    events += scene.sightings.close()
    assert {event.track_id for event in events if event.identity_name == "Alice"} == {1}
    assert {event.track_id for event in events} == {1, 2}


def test_a_name_is_not_free_while_the_person_beside_has_only_just_left() -> None:
    scene = Scene(verdict_timeout_s=0.5, linger_s=5.0)
    alike = (0.8 * ALICE + 0.6 * STRANGER).astype(np.float32)
    events = scene.frames(15, {1: ALICE, 2: alike}) + scene.frame({2: alike}, ended=(1,))
    for _ in range(10):
        scene.left_px += 200  # far enough for a new look at the face
        events += scene.frame({2: alike})
    assert {event.track_id for event in events if event.identity_name == "Alice"} == {1}


def test_a_name_comes_back_when_the_one_that_took_it_turns_out_to_be_somebody_else() -> None:
    scene = Scene(verdict_timeout_s=0.5)
    like_both = (0.9 * ALICE + np.sqrt(1 - 0.9**2) * BOB).astype(np.float32)
    events = scene.frames(15, {1: like_both, 2: (0.8 * ALICE + 0.6 * STRANGER).astype(np.float32)})
    assert {event.track_id for event in events if event.identity_name == "Alice"} == {1}
    events = []
    for moved_px in (200, 0, 200, 0):  # far enough for a new look at the face
        scene.left_px = moved_px
        events += scene.frame({1: BOB})
    assert {(event.track_id, event.identity_name) for event in events} == {(1, "Bob"), (2, "Alice")}


def turned(from_person: np.ndarray, to: int, cosine: float) -> np.ndarray:
    """A face of that ``cosine`` to the person, turned towards the axis ``to``."""
    face: np.ndarray = cosine * from_person + np.sqrt(1 - cosine**2) * np.eye(8)[to]
    return face.astype(np.float32)


def test_visits_of_strangers_who_resemble_each_other_a_little_do_not_become_one() -> None:
    """Each is a little above the threshold to the others, as strangers of a gallery's own kind are."""
    scene = Scene(linger_s=10.0, verdict_timeout_s=0.5)
    people = [turned(STRANGER, axis, 0.75) for axis in (3, 4, 5)]  # 0.56 to each other, 0.5 is the threshold
    events = []
    for visit in range(6):
        events += scene.frames(15, {visit + 1: people[visit % 3]}) + scene.frame({}, ended=(visit + 1,))
        events += scene.absent(1.0)
    events += scene.sightings.close()
    assert [event.type for event in events].count("started") == 3, "each person's second visit continues the first"
    visits = {event.sighting_id: event.track_id for event in events}
    assert sorted(visits.values()) == [1, 2, 3]


def test_a_stranger_who_returns_continues_the_visit_that_they_resemble_most() -> None:
    scene = Scene(linger_s=10.0, verdict_timeout_s=0.5)
    first, second = STRANGER, turned(STRANGER, 3, 0.6)
    again = turned(STRANGER, 3, 0.9)  # 0.9 to the first, 0.89 to the second, who left later
    events = scene.frames(15, {1: first}) + scene.frame({}, ended=(1,))
    events += scene.frames(15, {2: second}) + scene.frame({}, ended=(2,))
    left_at = scene.now
    events += scene.frames(15, {3: again}) + scene.frame({}, ended=(3,)) + scene.sightings.close()
    ended = {event.track_id: event.ended_at for event in events if event.type == "ended"}
    assert set(ended) == {1, 2}
    assert ended[1] is not None
    assert ended[1] > left_at
