"""A live stream is read near to its edge, however slow the reader, and whatever its clock says."""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.rtsp import RtspServer, write_clip
from worker.config import CameraConfig
from worker.observer import Observer
from worker.video.addresses import parse_address
from worker.video.decoder import Picture, Video, open_video
from worker.video.timelines import LiveEdge

PASSED_OVER_S = 0.0005


@dataclass(frozen=True)
class Read:
    """A picture of the stream: its own time, when it was read, how late it was called, and whether it was decoded."""

    pts_s: float
    at_s: float
    called_late_s: float
    decoded: bool

    @property
    def late_s(self) -> float:
        return self.at_s - self.pts_s


def stream(
    seconds: float, decode_s: float, *, fps: float = 25.0, gop: int = 25, speed: float = 1.0,
    held_back: tuple[float, float] = (0.0, 0.0), late_from: tuple[float, float] = (1e9, 0.0), opening_s: float = 0.0,
    starved: tuple[float, float] = (0.0, 0.0),
) -> list[Read]:  # fmt: skip
    """What a reader makes of a stream whose clock runs at ``speed`` times the true one.

    ``held_back``: the network lets nothing through between these times. ``late_from``: from this time on the sender is
    late by so many seconds. ``opening_s``: the first picture can be read this long after it was sent.
    ``starved``: between these times other work has the processor, and reading any picture takes 0.1 s.
    """
    waited_s = 0.0
    edge, now_s, reads = LiveEdge(1000.0, lambda: waited_s), opening_s, []
    for number in range(int(seconds * fps)):
        sent_s = number / fps
        there_s = sent_s + (late_from[1] if sent_s >= late_from[0] else 0.0)
        if held_back[0] <= there_s < held_back[1]:
            there_s = held_back[1]
        now_s = max(now_s, there_s)
        passed = edge.passes_over(sent_s * speed, 1000.0 + now_s, is_key=number % gop == 0)
        reads.append(Read(sent_s, now_s, edge.late_s, not passed))
        now_s += PASSED_OVER_S if passed else decode_s
        if starved[0] <= now_s < starved[1]:
            now_s, waited_s = now_s + 0.1, waited_s + 0.1
    return reads


@given(decode_s=st.floats(0.05, 0.5), fps=st.sampled_from([10.0, 25.0, 30.0]), gop=st.integers(5, 60))
def test_a_slow_reader_never_gets_far_behind_and_goes_on_seeing(decode_s: float, fps: float, gop: int) -> None:
    reads = stream(120.0, decode_s, fps=fps, gop=gop)
    assert max(read.late_s for read in reads) < 1.5 + 1.0 + 2 * gop / fps + 2.0
    assert all(abs(read.late_s - read.called_late_s) < 0.1 for read in reads)
    if decode_s * fps > 1.5:
        assert not all(read.decoded for read in reads)
    seen = [read.at_s for read in reads if read.decoded]
    assert max(later - earlier for earlier, later in itertools.pairwise(seen)) < 2 * gop / fps + decode_s + 0.1


@given(hiccup_s=st.floats(0.0, 4.0), fps=st.sampled_from([10.0, 25.0]))
def test_a_reader_that_is_fast_enough_passes_nothing_over(hiccup_s: float, fps: float) -> None:
    reads = stream(60.0, 0.005, fps=fps, held_back=(20.0, 20.0 + hiccup_s))
    assert all(read.decoded for read in reads)


@pytest.mark.parametrize("speed", [0.5, 0.9, 1.1, 2.0])
def test_a_clock_of_another_speed_costs_next_to_nothing(speed: float) -> None:
    reads = stream(600.0, 0.005, speed=speed)
    assert sum(not read.decoded for read in reads) < 0.05 * len(reads)


def test_a_sender_that_is_late_for_good_is_read_as_before() -> None:
    reads = stream(300.0, 0.005, late_from=(60.0, 5.0))
    assert all(read.decoded for read in reads if read.pts_s > 70.0)
    assert sum(not read.decoded for read in reads) < 25 * 4


def test_a_reader_that_gets_no_processor_knows_that_its_pictures_are_old() -> None:
    """It was taken for a slow sender: events bore times that were many seconds too late, from then on."""
    reads = stream(120.0, 0.005, starved=(20.0, 50.0))
    assert max(read.late_s for read in reads) > 10.0
    assert all(abs(read.late_s - read.called_late_s) < 0.1 for read in reads)
    assert all(read.decoded and read.late_s < 0.1 for read in reads if read.pts_s > 60.0)


@given(opening_s=st.floats(0.0, 20.0), decode_s=st.floats(0.001, 0.3), gop=st.integers(5, 60))
def test_what_came_while_the_stream_was_opened_is_old(opening_s: float, decode_s: float, gop: int) -> None:
    reads = stream(60.0, decode_s, gop=gop, opening_s=opening_s)
    settled = [read for read in reads if read.at_s > opening_s + 8.0]
    assert max(read.late_s for read in settled) < 2 * 1.5 + 1.0 + 2 * gop / 25 + 2.0
    if decode_s < 0.02:
        assert max(read.late_s for read in settled) < 0.1
        assert all(read.decoded for read in settled)


def test_pictures_between_a_key_picture_and_the_next_are_decoded_whole_or_not_at_all() -> None:
    """What depends on a picture that was passed over cannot be decoded."""
    reads = stream(120.0, 0.1, gop=25)
    for first in range(0, len(reads), 25):
        rest = [read.decoded for read in reads[first + 1 : first + 25]]
        assert rest == sorted(rest, reverse=True)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RtspServer]:
    server = RtspServer({"/door": write_clip(tmp_path / "clip.mp4", frames=500, gop=10)})
    server.start()
    yield server
    server.stop()


@pytest.mark.slow
def test_pictures_of_a_real_camera_stay_fresh_beside_a_reader_that_is_too_slow(server: RtspServer) -> None:
    camera = CameraConfig(id="door", source=server.url("/door"))
    video = open_video(parse_address(server.url("/door")), camera, Observer())
    assert isinstance(video, Video)
    said: list[str] = []
    video.tell = said.append
    offsets, decoded = [], 0
    for picture in video.pictures(lambda: True):
        if not isinstance(picture, Picture) or picture.pts_s is None:
            continue
        offsets.append(time.monotonic() - picture.pts_s)
        if picture.planes is not None:
            decoded += 1
            time.sleep(0.2)
        if picture.pts_s > 14.0:
            break
    video.close()
    assert max(offsets) - min(offsets) < 6.0  # 5 of 25 pictures a second: 60 s without
    assert decoded > 20
    assert any("more slowly than it is sent" in what for what in said)
