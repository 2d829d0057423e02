"""Hours in minutes: a worker whose memory, threads and open files do not grow."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.fault.cameras import Cameras
from tests.fault.fleet import Fleet
from tests.support.redis_servers import RedisServer

pytestmark = [pytest.mark.data, pytest.mark.rtsp, pytest.mark.redis, pytest.mark.slow]

CAMERAS = 4
SAMPLE_S = 1.0
WARM_UP_SHARE = 0.4
"""Caches fill and allocators settle: what comes after that must stay as it is."""
MOST_MB_AN_HOUR = 30.0
NOISE_MB = 12.0
"""What the memory of a process moves up and down by; over a short soak this is what bounds the slope."""


@pytest.mark.timeout(2400)
def test_nothing_grows(
    cameras: Cameras,
    gallery: Path,
    redis_server: RedisServer,
    test_data: Path,
    tmp_path: Path,
    pytestconfig: pytest.Config,
    tell: Callable[[str], None],
) -> None:
    seconds = float(pytestconfig.getoption("--soak-s"))
    fleet = Fleet(tmp_path, redis_server.url, 1, gallery=gallery, models_dir=test_data / "models")
    for camera_id in cameras.ids[:CAMERAS]:
        fleet.add_camera(camera_id, cameras.url(camera_id))
    memory_mb: list[float] = []
    threads: list[float] = []
    files: list[float] = []
    with fleet.running():
        fleet.wait_until(fleet.all_owned, 90, "every camera owned")
        # The first face loads what embeds it, with its threads: until then nothing is warm, however long it takes.
        fleet.wait_until(lambda: bool(fleet.events()), 90, "a first event")
        process = psutil.Process(fleet.workers[0].process.pid)  # type: ignore[union-attr]
        deadline_s = time.monotonic() + seconds
        while time.monotonic() < deadline_s:
            memory_mb.append(process.memory_info().rss / 1e6)
            threads.append(process.num_threads())
            files.append(process.num_fds())
            time.sleep(SAMPLE_S)
        assert fleet.workers[0].stop() == 0, fleet.workers[0].tail()
        events = len(fleet.events())
    warm = int(WARM_UP_SHARE * len(memory_mb))
    slopes = {name: slope_an_hour(values[warm:]) for name, values in
              (("MB", memory_mb), ("threads", threads), ("files", files))}  # fmt: skip
    tell(f"{seconds:.0f} s, {events} events; {memory_mb[warm]:.0f} MB to {memory_mb[-1]:.0f} MB; an hour: "
         + ", ".join(f"{slope:+.1f} {name}" for name, slope in slopes.items()))  # fmt: skip
    watched_h = (len(memory_mb) - warm) * SAMPLE_S / 3600
    assert events > 0
    assert slopes["MB"] * watched_h < MOST_MB_AN_HOUR * watched_h + NOISE_MB
    assert max(threads[warm:]) <= max(threads[: warm + 1]) + 2
    assert max(files[warm:]) <= max(files[: warm + 1]) + 4


def slope_an_hour(values: list[float]) -> float:
    """Of the straight line through the values, an hour."""
    times_h = np.arange(len(values)) * SAMPLE_S / 3600
    return float(np.polyfit(times_h, values, 1)[0]) if len(values) > 1 else 0.0
