"""Times of recordings that nobody can mean: pictures far off, clocks that start anew, stand still or go in steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.video.steadying import SteadyPackets

MS = Fraction(1, 1000)
HOUR = 3_600_000


@dataclass
class Packet:
    dts: int | None
    pts: int | None
    size: int = 1000


def steady(times: Sequence[int | None], *, start: int | None = 0, told: list[str] | None = None) -> list[int | None]:
    """The new times of packets at these (ms), of a video of 25 pictures a second."""
    packets = [Packet(time, time) for time in times]
    oddities: list[str] = [] if told is None else told
    return [packet.pts for packet in SteadyPackets(iter(packets), MS, 0.04, start, on_oddity=oddities.append)]


def even(count: int, begin: int = 0) -> list[int]:
    return [begin + 40 * number for number in range(count)]


def test_times_that_go_on_stay_as_they_are() -> None:
    told: list[str] = []
    assert steady(even(100), told=told) == even(100)
    assert not told


def may_be_a_pause(away: int, which: frozenset[int]) -> bool:
    """The first picture long before the others, or the last one long after them: such recordings exist."""
    return (which == {0} and -60_000 < away < 0) or (which == {74} and 0 < away < 60_000)


@pytest.mark.parametrize(
    ("away", "which"),
    [
        (away, which)
        for away in (-26 * HOUR, -HOUR, -5_000, 700, 5_000, 60_000, HOUR, 26 * HOUR)
        for which in map(frozenset, ([0], [1], [20], [20, 45], [20, 21, 22], [73], [74], [5, 7, 9]))
        if not may_be_a_pause(away, which)
    ],
)
def test_pictures_that_are_far_off_move_no_others(away: int, which: frozenset[int]) -> None:
    times = [time + away * (number in which) for number, time in enumerate(even(75))]
    told: list[str] = []
    new = steady(times, start=times[0], told=told)
    assert new == pytest.approx([time + times[0] for time in even(75)], abs=1)
    assert told or which in ({0}, {74})


def test_a_burst_of_different_times_moves_no_others() -> None:
    times = even(75)
    times[30], times[31], times[32] = 5 * HOUR, -3 * HOUR, 11 * HOUR
    assert steady(times) == even(75)


def test_a_pause_in_the_recording_stays() -> None:
    told: list[str] = []
    for pause in (400, 2_000, 30_000, HOUR):
        times = even(50) + even(50, 2_000 + pause)
        assert steady(times, told=told) == times
    assert not told


def test_pauses_between_few_pictures_stay() -> None:
    times = [0, 100, 600, 640, 1_700, 1_740, 5_000, 5_040]
    assert steady(times) == times


def test_a_pause_and_a_picture_far_off_behind_it() -> None:
    times = even(50) + even(50, HOUR)
    wrong = times.copy()
    wrong[53] += 7 * HOUR
    assert steady(wrong) == times


@pytest.mark.parametrize("begin", [0, 1_000, -HOUR])
def test_a_clock_that_starts_anew_goes_on(begin: int) -> None:
    told: list[str] = []
    assert steady(even(75) + even(75, begin) + even(75, begin), told=told) == even(225)
    assert not told


def test_a_clock_that_starts_anew_far_ahead_of_where_it_began() -> None:
    assert steady(even(75, 500 * HOUR) + even(75), start=500 * HOUR) == even(150, 500 * HOUR)


def test_pictures_are_shown_in_their_own_order_behind_a_new_start() -> None:
    group = [(0, 80), (40, 240), (80, 160), (120, 120), (160, 200)]
    packets = [Packet(dts + begin, pts + begin) for begin in (50_000, 0) for dts, pts in group]
    new = [packet.pts for packet in SteadyPackets(iter(packets), MS, 0.04, 50_000)]
    assert new == [50_000 + time for time in (80, 240, 160, 120, 200, 280, 440, 360, 320, 400)]


@pytest.mark.parametrize("parts", [("reordered", "plain"), ("plain", "reordered"), ("reordered",) * 3], ids="-".join)
def test_a_part_that_is_shown_in_another_order_begins_an_interval_behind_the_last_one(parts: tuple[str, ...]) -> None:
    group = [(0, 80), (40, 240), (80, 160), (120, 120), (160, 200)]
    kinds = {"reordered": group, "plain": [(time, time) for time in even(5)]}
    packets = [Packet(dts + begin, pts + begin) for begin in (50_000,) for dts, pts in kinds[parts[0]]]
    packets += [Packet(dts, pts) for part in parts[1:] for dts, pts in kinds[part]]
    shown = sorted(packet.pts or 0 for packet in SteadyPackets(iter(packets), MS, 0.04, 50_000))
    assert [time - shown[0] for time in shown] == even(5 * len(parts))


def test_a_time_of_display_alone_may_be_far_off() -> None:
    packets = [Packet(time, time + 80) for time in even(50)]
    packets[20] = Packet(800, 880 + HOUR)
    assert [packet.pts for packet in SteadyPackets(iter(packets), MS, 0.04, 0)] == [time + 80 for time in even(50)]


def test_a_time_of_decoding_alone_may_be_far_off() -> None:
    packets = [Packet(time, time + 80) for time in even(50)]
    packets[20] = Packet(800 + HOUR, 880)
    assert [packet.pts for packet in SteadyPackets(iter(packets), MS, 0.04, 0)] == [time + 80 for time in even(50)]


def test_times_that_stand_still_are_spread_by_the_usual_interval() -> None:
    told: list[str] = []
    assert steady([0] * 700, told=told) == even(700)
    assert len(set(told)) == 1


def test_times_in_whole_seconds_are_spread_over_the_second() -> None:
    times = [1000 * (number // 25) for number in range(100)]
    assert steady(times) == pytest.approx(even(100), abs=1)


def test_a_clock_that_stands_still_for_a_while_loses_no_time() -> None:
    times = even(25) + [960] * 25 + even(25, 1_000)
    assert steady(times) == pytest.approx(even(75), abs=1)


def test_pictures_without_a_time_keep_their_place() -> None:
    times: list[int | None] = [*even(20), None, *even(20, 840)]
    assert steady(times) == times
    wrong = times.copy()
    wrong[19] = HOUR
    assert [time for time in steady(wrong) if time is not None] == pytest.approx([*even(20), *even(20, 840)], abs=40)


def test_far_apart_pictures_of_a_time_lapse_stay_apart() -> None:
    packets = [Packet(600_000 * number, 600_000 * number) for number in range(60)]
    new = SteadyPackets(iter(packets), MS, 600.0, 0)
    assert [packet.pts for packet in new] == [600_000 * number for number in range(60)]


@given(st.lists(st.none() | st.integers(-(10**9), 10**9) | st.integers(0, 200), max_size=300))
def test_no_packet_is_lost_or_moved(times: list[int | None]) -> None:
    packets = [Packet(time, time, size=number) for number, time in enumerate(times)]
    assert [packet.size for packet in SteadyPackets(iter(packets), MS, 0.04, None)] == list(range(len(times)))


def test_what_is_held_is_bounded_by_its_size() -> None:
    taken = 0

    def huge() -> object:
        nonlocal taken
        for time in [0, *even(200, HOUR)]:
            taken += 1
            yield Packet(time, time, size=10_000_000)

    packets = iter(SteadyPackets(huge(), MS, 0.04, 0))  # type: ignore[arg-type]
    next(packets)
    next(packets)
    assert taken < 10
