"""Live cameras: every frame is accounted for, those worth least go first, and the measurement runs the real thing."""

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from worker.bench.contest import UnableError
from worker.bench.live import LiveResult, measure_live, require_rtsp_server
from worker.bench.scraping import quantile_s
from worker.config import BatchingConfig, DetectionConfig
from worker.observer import Observer
from worker.types import Attention, Frame
from worker.video.buffers import Batcher, FrameBuffer
from worker.video.schedule import Schedule

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PICTURE = np.zeros((90, 160, 3), np.uint8)
FRAME_S = 0.04


class Account(Observer):
    def __init__(self) -> None:
        self.passed_over: Counter[tuple[str, str]] = Counter()

    def frame_dropped(self, camera_id: str, reason: str, count: int = 1) -> None:
        self.passed_over[camera_id, reason] += count

    def frame_skipped(self, camera_id: str, reason: str) -> None:
        self.passed_over[camera_id, reason] += 1

    def of(self, camera_id: str) -> int:
        return sum(count for (camera, _), count in self.passed_over.items() if camera == camera_id)


class Clock:
    """Time as the batcher sees it; it passes only where the test says so."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s


class Worker:
    """Live cameras of 25 frames a second, and a detector that takes ``detector_s`` for each frame."""

    def __init__(self, cameras: dict[str, Attention], detector_s: float, clock: Clock) -> None:
        self.account, self.clock, self.detector_s = Account(), clock, detector_s
        self.schedule = Schedule(DetectionConfig(motion_gate=False), self.account, clock=clock.monotonic)
        for camera_id, attention in cameras.items():
            self.schedule.attend(camera_id, attention)
        self.buffers = {camera_id: FrameBuffer(camera_id, "newest", observer=self.account) for camera_id in cameras}
        config = BatchingConfig(max_wait_s=1e-6)
        self.batcher = Batcher(
            self.buffers.values(), config, self.account, due=self.schedule.due, clock=clock.monotonic
        )
        self.looks: Counter[str] = Counter()
        self.lags_s: list[float] = []
        self.read = 0

    def run(self, seconds: float) -> None:
        while self.clock.now_s < seconds:
            self._read_what_has_come()
            frames = self.batcher.next_batch(0.0, self.schedule.most_frames) or []
            self.clock.now_s += self.detector_s * len(frames) if frames else FRAME_S
            for frame in frames:
                self.looks[frame.camera_id] += 1
            if frames:
                self._read_what_has_come()
                self.lags_s.append(self.clock.now_s - min(frame.received_monotonic_s for frame in frames))
                self.schedule.lagged(self.lags_s[-1], max(1.0, self.batcher.waiting / len(frames)))

    def _read_what_has_come(self) -> None:
        while self.read * FRAME_S <= self.clock.now_s:
            at_s = self.read * FRAME_S
            for camera_id, buffer in self.buffers.items():
                if self.schedule.wanted(camera_id, at_s):
                    buffer.put(Frame(camera_id, self.read, at_s, NOW, at_s, PICTURE))
            self.read += 1


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_worker_that_is_fast_enough_sheds_nothing(clock: Clock) -> None:
    worker = Worker({"calm": "settled", "busy": "deciding"}, 0.01, clock)
    worker.run(10.0)
    assert {reason for _, reason in worker.account.passed_over} == {"interval"}
    assert worker.looks["busy"] == pytest.approx(125, abs=2)
    assert worker.looks["calm"] == pytest.approx(62, abs=2)


def test_settled_cameras_give_way_when_the_detector_is_too_slow(clock: Clock) -> None:
    calm = [f"calm-{n}" for n in range(5)]
    worker = Worker({**dict.fromkeys(calm, "settled"), "busy": "deciding"}, 0.055, clock)
    worker.run(30.0)
    assert all(worker.account.passed_over[camera_id, "load"] > 100 for camera_id in calm)
    assert worker.looks["busy"] > 1.2 * max(worker.looks[camera_id] for camera_id in calm)


def test_lag_does_not_grow_however_slow_the_detector(clock: Clock) -> None:
    worker = Worker({f"camera-{n}": "deciding" for n in range(8)}, 0.1, clock)
    worker.run(60.0)
    half = len(worker.lags_s) // 2
    assert worker.lags_s[0] >= 0.8
    assert max(worker.lags_s[half:]) < 0.5
    assert min(worker.looks.values()) > 0.5 * max(worker.looks.values())


@pytest.mark.parametrize("detector_s", [0.01, 0.14, 0.5])
def test_every_frame_is_looked_at_or_counted_with_its_reason(clock: Clock, detector_s: float) -> None:
    worker = Worker({"calm": "settled", "busy": "deciding", "empty": "empty"}, detector_s, clock)
    worker.run(10.0)
    for camera_id, buffer in worker.buffers.items():
        assert worker.looks[camera_id] + worker.account.of(camera_id) + len(buffer) == worker.read


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.rtsp
def test_the_measurement_counts_what_a_real_worker_does(test_data: Path, shared_cache: Path) -> None:
    try:
        require_rtsp_server()
    except UnableError as error:
        pytest.skip(str(error))
    result = measure_live(
        2,
        6.0,
        test_data / "video" / "crowd_1080p.mp4",
        model="face-reidentification-retail-0095",
        models_dir=test_data / "models",
        settings={"history": {"enabled": False}},
    )
    assert result.frames > 0
    assert result.skipped["interval"] > 0
    assert result.events > 0
    assert 0 < result.latency_s["p50"] <= result.latency_s["p95"]
    assert result.worker_cpu > result.server_cpu > 0


def result(cameras: int, read_fps: float = 25.0, p95: float = 0.2, **dropped: int) -> LiveResult:
    latency = {"p50": 0.1, "p95": p95, "p95_first": p95, "p95_last": p95}
    return LiveResult(cameras, 20.0, 25.0, 500 * cameras, read_fps, dropped, {"interval": 250}, 60, 12, latency)


@pytest.mark.parametrize(
    ("measured", "kept_up"),
    [
        (result(4), True),
        (result(4, superseded=100), True),
        (result(4, read_fps=20.0), False),
        (result(4, p95=0.6), False),
        (result(4, stale=1), False),
        (LiveResult(4, 20.0, 25.0, 2000, 25.0, {}, {}, 0, 0), False),
    ],
)
def test_cameras_are_kept_up_with_at_full_speed_and_in_time(measured: LiveResult, kept_up: bool) -> None:
    assert measured.kept_up is kept_up


def test_quantiles_are_of_the_events_between_two_readings() -> None:
    before = {0.1: 5.0, 0.2: 10.0, float("inf"): 10.0}
    after = {0.1: 5.0, 0.2: 20.0, float("inf"): 20.0}
    assert quantile_s(before, after, 0.5) == pytest.approx(0.15)
    assert quantile_s({}, after, 0.25) == pytest.approx(0.1)
    assert quantile_s(before, {**after, float("inf"): 40.0}, 0.95) == float("inf")
    assert quantile_s(before, before, 0.95) == float("inf")
