"""Times of pictures: as a file says, and as a live stream says as long as it can be believed."""

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.video.timelines import LiveTimeline, RecordingTimeline

steps = st.lists(st.tuples(st.one_of(st.none(), st.floats(-100, 1e5)), st.floats(0, 10), st.booleans()), max_size=40)


@given(steps=steps, timeline=st.builds(LiveTimeline) | st.builds(RecordingTimeline))
def test_time_strictly_increases(
    steps: list[tuple[float | None, float, bool]], timeline: LiveTimeline | RecordingTimeline
) -> None:
    now_s, last_s = 1000.0, -1.0
    for pts_s, pause_s, reopened in steps:
        now_s += pause_s
        if reopened:
            timeline.reopened()
        at_s = timeline.at(pts_s, now_s, 0.04)
        assert at_s > last_s
        last_s = at_s


@given(pauses=st.lists(st.floats(0.02, 5), min_size=1, max_size=30), data=st.data())
def test_live_time_stays_near_the_clock(pauses: list[float], data: st.DataObject) -> None:
    timeline, now_s = LiveTimeline(), 50.0
    timeline.at(None, now_s, 0.04)
    for pause_s in pauses:
        now_s += pause_s
        at_s = timeline.at(data.draw(st.none() | st.floats(0, 1e4)), now_s, 0.04)
        assert at_s == pytest.approx(now_s - 50.0, abs=2.1)


def play(
    timeline: LiveTimeline, clock: Callable[[float], float], *, fps: float = 25, seconds: float = 30
) -> list[float]:
    """How far the times are from those of arrival, of pictures that come evenly while the stream says ``clock``."""
    arrivals = [number / fps for number in range(round(seconds * fps))]
    return [timeline.at(clock(at_s), 100 + at_s, 1 / fps) - at_s for at_s in arrivals]


@pytest.mark.parametrize("fps", [1, 5, 25])
@pytest.mark.parametrize(
    ("clock", "why"),
    [
        (lambda _at_s: 0.0, "stand still"),
        (lambda at_s: float(int(at_s)), "in steps"),
        (lambda at_s: at_s / 2, "0.50 times"),
        (lambda at_s: at_s * 2, "2.00 times"),
        (lambda at_s: -at_s, "go back"),
    ],
    ids=["still", "whole seconds", "half speed", "double speed", "backwards"],
)
def test_a_clock_that_is_not_to_be_believed_gives_way_to_arrival(
    clock: Callable[[float], float], why: str, fps: float
) -> None:
    told: list[str] = []
    timeline = LiveTimeline(told.append)
    off_s = play(timeline, clock, fps=fps, seconds=40)
    if why == "in steps" and fps == 1:
        assert not told, "one picture a second may say whole seconds"
    else:
        assert len(told) == 1
        assert why in told[0]
        assert not timeline.believed
    assert off_s[-1] == pytest.approx(0.0, abs=0.1)
    times = [at_s + number / fps for number, at_s in enumerate(off_s)]
    assert max(later - earlier for earlier, later in itertools.pairwise(times)) <= max(1.1, 9 / fps)


@pytest.mark.parametrize("speed", [0.8, 0.95, 1.05, 1.25])
def test_a_clock_that_is_somewhat_wrong_is_drawn_to_arrival_without_leaps(speed: float) -> None:
    timeline = LiveTimeline()
    off_s = play(timeline, lambda at_s: at_s * speed, seconds=120)
    assert timeline.believed
    assert max(abs(value) for value in off_s) < 0.6
    assert max(abs(later - earlier) for earlier, later in itertools.pairwise(off_s)) < 0.02


def test_a_good_clock_keeps_its_own_spacing_in_spite_of_a_network_that_jitters() -> None:
    timeline = LiveTimeline()
    times = [timeline.at(number / 25, 5 + number / 25 + (number * 7 % 5) / 25, 0.04) for number in range(500)]
    assert [later - earlier for earlier, later in itertools.pairwise(times)] == pytest.approx([0.04] * 499)


def test_what_a_network_has_held_back_casts_no_doubt() -> None:
    told: list[str] = []
    timeline = LiveTimeline(told.append)
    for number in range(3000):
        at_s = number / 25
        held_s = 3.0 - at_s % 20 if at_s % 20 < 3 else 0.0  # three seconds of silence, then all at once
        timeline.at(at_s, 7 + at_s + held_s, 0.04)
    assert not told


def test_pictures_that_a_camera_has_kept_for_the_beginning_cast_no_doubt() -> None:
    told: list[str] = []
    timeline = LiveTimeline(told.append)
    for number in range(1000):
        timeline.at(number / 25, 7 + max(number / 1000, number / 25 - 4.0), 0.04)
    assert not told


def test_a_clock_that_goes_right_again_is_believed_again() -> None:
    timeline = LiveTimeline()
    play(timeline, lambda _at_s: 3.0, seconds=5)
    assert not timeline.believed
    for number in range(1000):
        timeline.at(number / 25, 200 + number / 25, 0.04)
    assert timeline.believed
