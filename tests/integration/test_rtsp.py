"""A reader against a real RTSP server that dies, freezes, comes back, refuses and changes its picture."""

import itertools
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

from tests.support.rtsp import RtspServer
from worker.config import BatchingConfig, CameraConfig
from worker.observer import Observer, SourceState
from worker.types import Frame
from worker.video.buffers import Batcher, FrameBuffer
from worker.video.reader import CameraReader

pytestmark = [pytest.mark.rtsp, pytest.mark.timeout(60)]


class States(Observer):
    def __init__(self) -> None:
        self.seen: list[SourceState] = []

    def source_state(self, camera_id: str, state: SourceState) -> None:
        self.seen.append(state)


class Watch:
    """A running reader, whose frames are asked for until a condition holds."""

    def __init__(self, url: str, **fields: Any) -> None:
        patience = {"open_timeout_s": 1, "read_timeout_s": 0.7, "reconnect_initial_s": 0.05, "reconnect_max_s": 0.2}
        camera = CameraConfig.model_validate({"id": "door", "source": url, **patience, **fields})
        self.states = States()
        buffer = FrameBuffer.for_camera(camera, BatchingConfig(), self.states)
        self.reader = CameraReader(camera, buffer, self.states)
        self.batcher = Batcher([buffer], BatchingConfig())
        self.frames: list[Frame] = []
        self.reader.start()

    def until(self, condition: Callable[[], bool], timeout_s: float = 15) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, (self.states.seen, self.reader.reason, len(self.frames))
            self.frames += self.batcher.next_batch(0.05) or []

    def more(self, count: int) -> None:
        goal = len(self.frames) + count
        self.until(lambda: len(self.frames) >= goal)


@pytest.fixture
def watch() -> Iterator[Callable[..., Watch]]:
    watches: list[Watch] = []

    def start(url: str, **fields: Any) -> Watch:
        watches.append(Watch(url, **fields))
        return watches[-1]

    yield start
    for each in watches:
        each.reader.stop()
    for each in watches:
        assert each.reader.join(10), "a thread was left behind"


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_frames_arrive(rtsp_server: RtspServer, watch: Callable[..., Watch], transport: str) -> None:
    seen = watch(rtsp_server.url("/clip"), transport=transport)
    seen.more(10)
    assert seen.states.seen == ["connecting", "streaming"]
    assert {frame.size for frame in seen.frames} == {(320, 240)}
    assert all(np.median(frame.image) >= 10 for frame in seen.frames)
    assert all(later.pts_s > earlier.pts_s for earlier, later in itertools.pairwise(seen.frames))


def test_login_is_needed_and_used(guarded_rtsp_server: RtspServer, watch: Callable[..., Watch]) -> None:
    watch(guarded_rtsp_server.url("/clip", "admin:s3cret-word")).more(3)
    refused = watch(guarded_rtsp_server.url("/clip", "admin:wr0ng-word"))
    refused.until(lambda: "waiting" in refused.states.seen)
    assert "401" in refused.reader.reason
    assert "wr0ng" not in refused.reader.reason
    assert not refused.frames


def test_server_that_dies_and_returns(rtsp_server: RtspServer, watch: Callable[..., Watch]) -> None:
    seen = watch(rtsp_server.url("/clip"))
    seen.more(5)
    rtsp_server.stop()
    seen.until(lambda: "waiting" in seen.states.seen)
    rtsp_server.start()
    seen.until(lambda: seen.reader.state == "streaming")
    seen.more(5)
    assert all(later.pts_s > earlier.pts_s for earlier, later in itertools.pairwise(seen.frames))
    assert all(later.sequence > earlier.sequence for earlier, later in itertools.pairwise(seen.frames))


def test_stream_that_ends_is_opened_again(rtsp_server: RtspServer, watch: Callable[..., Watch]) -> None:
    seen = watch(rtsp_server.url("/clip"))
    seen.until(lambda: seen.states.seen.count("streaming") == 2)
    assert "the stream ended" in seen.reader.reason or seen.reader.state == "streaming"
    assert not seen.reader.error


def test_other_resolution_after_a_reconnect(rtsp_server: RtspServer, watch: Callable[..., Watch]) -> None:
    seen = watch(rtsp_server.url("/clip"))
    seen.more(3)
    rtsp_server.stop()
    rtsp_server.mounts["/clip"] = rtsp_server.mounts["/wide"]
    rtsp_server.start()
    seen.until(lambda: bool(seen.frames) and seen.frames[-1].size == (640, 360))
    assert seen.frames[0].size == (320, 240)


def test_frozen_server_is_noticed_and_taken_up_again(rtsp_server: RtspServer, watch: Callable[..., Watch]) -> None:
    seen = watch(rtsp_server.url("/clip"))
    seen.more(3)
    rtsp_server.freeze()
    seen.until(lambda: "stalled" in seen.states.seen)
    rtsp_server.thaw()
    before = len(seen.frames)
    seen.until(lambda: seen.reader.state == "streaming" and len(seen.frames) > before + 3)


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_silent_server_is_given_up(silent_port: int, watch: Callable[..., Watch], scheme: str) -> None:
    seen = watch(f"{scheme}://u:s3cret@127.0.0.1:{silent_port}/x", open_timeout_s=0.3)
    seen.until(lambda: seen.states.seen.count("waiting") >= 2)
    assert "no answer within 0.3 s" in seen.reader.reason
    assert "s3cret" not in seen.reader.reason


def has_ended(watch: Watch) -> bool:
    return watch.reader.state == "ended"


def test_stop_in_any_state_is_prompt(rtsp_server: RtspServer, silent_port: int, watch: Callable[..., Watch]) -> None:
    slow = {"open_timeout_s": 3, "read_timeout_s": 3, "reconnect_initial_s": 60, "reconnect_max_s": 60}
    streaming = watch(rtsp_server.url("/clip"), **slow)
    opening = watch(f"rtsp://127.0.0.1:{silent_port}/x", **slow)
    waiting = watch("rtsp://127.0.0.1:1/x", **slow)
    streaming.more(1)
    waiting.until(lambda: waiting.reader.state == "waiting")
    for each in (streaming, opening, waiting):
        each.reader.stop()
        each.until(partial(has_ended, each), timeout_s=2)
    assert streaming.reader.join(2)
    assert waiting.reader.join(2)


PROGRAM = """
import logging, sys, time, traceback
logging.basicConfig(level=logging.DEBUG)
from worker.video.buffers import FrameBuffer
from worker.config import BatchingConfig, CameraConfig, LogConfig
from worker.video.reader import CameraReader

if sys.argv[2] == "configured":
    from worker.logs import configure
    configure(LogConfig(level="debug", format="json"))
camera = CameraConfig(id="door", source=sys.argv[1], open_timeout_s=1, read_timeout_s=1, reconnect_initial_s=0.01)
reader = CameraReader(camera, FrameBuffer.for_camera(camera, BatchingConfig()))
reader.start()
deadline = time.monotonic() + 10
while reader.state not in ("waiting", "streaming") and time.monotonic() < deadline:
    time.sleep(0.01)
print(reader.state, reader.reason, vars(reader), camera)
if sys.argv[3] == "stop":
    reader.stop()
    print(reader.join(5))
"""


@pytest.mark.parametrize(("logs", "login"), [("configured", "admin:wr0ng-s3cret"), ("plain", "admin:s3cret-word")])
def test_no_password_is_shown(guarded_rtsp_server: RtspServer, logs: str, login: str) -> None:
    url = guarded_rtsp_server.url("/clip", login)
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, url, logs, "stop"], capture_output=True, text=True, timeout=30, check=False
    )
    assert run.returncode == 0, run.stderr
    shown = run.stdout + run.stderr
    assert ("streaming" if login == "admin:s3cret-word" else "waiting") in run.stdout
    assert "s3cret" not in shown


def test_process_ends_cleanly_while_a_read_hangs(silent_port: int) -> None:
    program = PROGRAM.replace('not in ("waiting", "streaming")', '!= "connecting"').replace("+ 10", "+ 0.3")
    run = subprocess.run(
        [sys.executable, "-c", program, f"rtsp://127.0.0.1:{silent_port}/x", "plain", "leave"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "Fatal" not in run.stderr
