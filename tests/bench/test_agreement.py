"""Two runs of one recording are compared by where the faces were, when, and who they were."""

import numpy as np
import pytest

from worker.bench.agreement import MIN_DETECTIONS, ChainOutput, NamedSighting, Track, compare_outputs


def walk(start_s: float, frames: int, *, step: int = 1, x: float = 100.0, speed: float = 50.0, name: str = "") -> Track:
    """A face of 40 px that walks to the right, seen in every ``step``-th frame at 25 frames a second."""
    times = start_s + np.arange(0, frames, step).astype(np.float64) * 0.04
    left = x + speed * (times - start_s)
    boxes = np.stack([left, left * 0 + 50, left + 40, left * 0 + 90], axis=1).astype(np.float32)
    return Track(times, boxes, name)


def run(*tracks: Track, sightings: tuple[NamedSighting, ...] = ()) -> ChainOutput:
    return ChainOutput(tracks, sightings)


ANN = NamedSighting("Ann", 0.0, 2.0)


def test_a_run_agrees_with_itself_and_with_a_sparser_look_at_the_same() -> None:
    every = run(walk(0, 50, name="Ann"), walk(1, 30, x=600), sightings=(ANN,))
    sparse = run(
        walk(1, 30, step=4, x=600), walk(0, 50, step=6, name="Ann"), sightings=(NamedSighting("Ann", 0.3, 1.8),)
    )
    for other in (every, sparse):
        agreement = compare_outputs(every, other)
        assert agreement.complete
        assert (agreement.tracks, agreement.identities) == (2, 1)
        assert min(agreement.shared) > 0.95


def test_a_track_that_is_not_there_is_missed_and_one_that_never_was_is_added() -> None:
    agreement = compare_outputs(run(walk(0, 50), walk(0, 50, x=900)), run(walk(0, 50, step=4), walk(0, 50, x=400)))
    assert not agreement.complete
    assert [track.boxes[0, 0] for track in agreement.missed_tracks] == [900]
    assert [track.boxes[0, 0] for track in agreement.added_tracks] == [400]


@pytest.mark.parametrize("other", [walk(10, 50), walk(0, 50, x=300), walk(0, 15), walk(0, 50, speed=-200)])
def test_another_time_another_place_or_too_short_a_part_is_no_counterpart(other: Track) -> None:
    assert compare_outputs(run(walk(0, 50)), run(other)).missed_tracks


def test_one_track_is_counterpart_of_one_other_only() -> None:
    beside = walk(0, 50, x=105)
    assert len(compare_outputs(run(walk(0, 50), beside), run(walk(0, 50, step=2))).missed_tracks) == 1


def test_flickers_are_not_asked_for_unless_wanted() -> None:
    flicker = walk(0, MIN_DETECTIONS - 1)
    assert compare_outputs(run(flicker), run()).complete
    assert not compare_outputs(run(flicker), run(), min_detections=2).complete
    assert not compare_outputs(run(walk(0, MIN_DETECTIONS)), run()).complete


@pytest.mark.parametrize("seen", [(), (NamedSighting("Bob", 0.0, 2.0),), (NamedSighting("Ann", 5.0, 7.0),)])
def test_a_person_who_is_not_named_then_is_missed(seen: tuple[NamedSighting, ...]) -> None:
    agreement = compare_outputs(run(sightings=(ANN,)), run(sightings=seen))
    assert agreement.missed_identities == (ANN,)
    assert agreement.added_identities == seen
    assert not agreement.complete


def test_a_track_under_another_name_does_not_agree() -> None:
    agreement = compare_outputs(run(walk(0, 50, name="Ann")), run(walk(0, 50, name="Bob")))
    assert agreement.renamed == (("Ann", "Bob"),)
    assert not agreement.complete


def test_empty_runs_agree() -> None:
    assert compare_outputs(run(), run()).complete
