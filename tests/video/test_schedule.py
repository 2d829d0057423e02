"""Which frames are searched: the interval by what a camera is worth, the motion gate, and who gives way under load."""

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.config import DetectionConfig
from worker.observer import Observer
from worker.types import Attention, Frame
from worker.video.schedule import LOOKS_IN_A_ROW, Schedule

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CONFIG = DetectionConfig(interval_s=0.08, settled_interval_s=0.16, unmoved_interval_s=1.0)


class Skips(Observer):
    def __init__(self) -> None:
        self.reasons: list[str] = []

    def frame_skipped(self, camera_id: str, reason: str) -> None:
        self.reasons.append(reason)


def frame(number: int, image: np.ndarray | None = None, camera: str = "a") -> Frame:
    if image is None:
        image = np.full((90, 160, 3), 40 * (number % 5), np.uint8)
    return Frame(camera, number, number * 0.04, NOW, 0.0, image)


def searched(schedule: Schedule, frames: list[Frame]) -> list[int]:
    return [f.sequence for f in frames if schedule.due(f)]


@pytest.mark.parametrize(
    ("attention", "expected"),
    [("deciding", [0, 2, 4, 6, 8]), ("settled", [0, 4, 8]), ("empty", [0, 4, 8])],
)
def test_interval_follows_what_the_camera_is_worth(attention: Attention, expected: list[int]) -> None:
    skips = Skips()
    schedule = Schedule(CONFIG, skips)
    schedule.attend("a", attention)
    assert searched(schedule, [frame(i) for i in range(10)]) == expected
    assert skips.reasons == ["interval"] * (10 - len(expected))


def test_interval_of_zero_searches_every_frame() -> None:
    schedule = Schedule(DetectionConfig(interval_s=0, settled_interval_s=0, motion_gate=False))
    assert searched(schedule, [frame(i) for i in range(10)]) == list(range(10))


def test_camera_whose_every_frame_counts_is_never_passed_over() -> None:
    schedule = Schedule(CONFIG, always={"a"})
    still = np.zeros((90, 160, 3), np.uint8)
    assert searched(schedule, [frame(i, still) for i in range(10)]) == list(range(10))


@pytest.mark.parametrize(("attention", "expected"), [("empty", [0, 25, 50]), ("settled", [0, 10, 20, 30, 40, 50])])
def test_picture_that_stands_still_is_seldom_searched(attention: Attention, expected: list[int]) -> None:
    skips = Skips()
    schedule = Schedule(CONFIG, skips)
    schedule.attend("a", attention)
    noise = np.random.default_rng(0)
    still = noise.integers(60, 200, (360, 640, 3)).astype(np.int16)
    frames = [frame(i, (still + noise.integers(-6, 7, still.shape)).clip(0, 255).astype(np.uint8)) for i in range(51)]
    assert searched(schedule, frames) == expected
    assert "no_motion" in skips.reasons


def test_a_face_that_appears_is_searched_at_once() -> None:
    schedule = Schedule(CONFIG)
    empty = np.full((1080, 1920, 3), 90, np.uint8)
    with_face = empty.copy()
    with_face[500:540, 900:940] = 160
    assert searched(schedule, [frame(i, empty) for i in range(9)]) == [0]
    assert schedule.due(frame(9, with_face))


def test_slow_change_adds_up() -> None:
    schedule = Schedule(CONFIG)
    frames = [frame(i, np.full((90, 160, 3), 50 + i, np.uint8)) for i in range(20)]
    assert searched(schedule, frames) == [0, 7, 14]


def test_under_load_settled_cameras_give_way_first_and_recover_last() -> None:
    skips = Skips()
    schedule = Schedule(DetectionConfig(motion_gate=False), skips)
    schedule.attend("calm", "settled")
    schedule.attend("busy", "deciding")
    for _ in range(4):
        schedule.lagged(1.0)
    calm = searched(schedule, [frame(i, camera="calm") for i in range(50)])
    assert "load" in skips.reasons
    skips.reasons.clear()
    busy = searched(schedule, [frame(i, camera="busy") for i in range(50)])
    assert "load" not in skips.reasons
    assert len(calm) < 50 / 4 < len(busy)
    for _ in range(4):
        schedule.lagged(0.01)
    assert searched(schedule, [frame(100 + i, camera="calm") for i in range(9)]) == [100, 104, 108]


@given(st.lists(st.floats(0, 2), max_size=200))
def test_however_late_the_worker_every_camera_is_searched_again(lags: list[float]) -> None:
    schedule = Schedule(DetectionConfig(motion_gate=False))
    for lag_s in lags:
        schedule.lagged(lag_s)
    assert len(searched(schedule, [frame(i) for i in range(51)])) >= 2


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_camera_where_somebody_is_undecided_comes_first_for_a_few_looks_and_then_the_others_do() -> None:
    schedule = Schedule(CONFIG)
    schedule.attend("calm", "settled")
    turns = []
    for _ in range(LOOKS_IN_A_ROW + 1):
        schedule.attend("busy", "deciding")
        turns.append(schedule.turn("busy") < schedule.turn("calm"))
    assert turns == [True] * LOOKS_IN_A_ROW + [False]
    schedule.attend("busy", "deciding")
    assert schedule.turn("busy") < schedule.turn("calm"), "after the others it has its turn again"


def test_it_says_how_many_cameras_it_carries_and_which_one_waits_longest() -> None:
    clock = Clock()
    late: list[str] = []
    observer = Observer()
    observer.look_late = late.append  # type: ignore[method-assign,assignment]
    schedule = Schedule(DetectionConfig(motion_gate=False), observer, clock=clock)
    for number in range(20):
        clock.now_s = 3.2 * number
        schedule.due(frame(80 * number, camera="door"))
        for part in range(8):
            clock.now_s = 3.2 * number + 0.4 * part
            schedule.due(frame(80 * number + 10 * part, camera="yard"))
    load = schedule.load()
    assert load.gaps_s == {"door": pytest.approx(3.2), "yard": pytest.approx(0.4)}
    assert load.carried == pytest.approx(1.2)
    assert str(load) == "overloaded: this machine carries about 1 of these 2 cameras; door is looked at every 3.2 s"
    assert set(late) == {"door"}
    schedule.forget("door")
    assert str(schedule.load()) == ""


def test_a_picture_that_stands_still_is_no_load() -> None:
    clock = Clock()
    schedule = Schedule(CONFIG, clock=clock)
    still = np.zeros((90, 160, 3), np.uint8)
    for number in range(200):
        clock.now_s = 0.04 * number
        schedule.due(frame(number, still))
    assert str(schedule.load()) == ""
    assert schedule.load().carried == 1.0
