"""Clocks that are set while a worker runs: who owns what does not depend on them."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fault.cameras import Cameras
from tests.fault.checks import told_twice
from tests.fault.fleet import LEASE_S, Fleet
from tests.support.redis_servers import RedisServer

pytestmark = [pytest.mark.data, pytest.mark.rtsp, pytest.mark.redis, pytest.mark.slow]


@pytest.fixture
def fake_clock(tmp_path: Path) -> tuple[dict[str, str], Callable[[str], None]]:
    """An environment whose processes have the clock that the function sets, such as ``+3600s``."""
    libraries = [str(path) for path in Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")]
    if not libraries:
        pytest.skip("no libfaketime: install the package faketime")
    file = tmp_path / "clock"

    def step(offset: str) -> None:
        draft = file.with_suffix(".draft")
        draft.write_text(offset + "\n")
        draft.replace(file)

    step("+0s")
    return {
        "LD_PRELOAD": libraries[0],
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_CACHE_DURATION": "1",
        "DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_RESET": "1",
    }, step


@pytest.mark.timeout(300)
def test_a_clock_that_is_set_by_an_hour_costs_neither_camera_nor_event(
    cameras: Cameras,
    gallery: Path,
    redis_server: RedisServer,
    test_data: Path,
    tmp_path: Path,
    fake_clock: tuple[dict[str, str], Callable[[str], None]],
    tell: Callable[[str], None],
) -> None:
    environment, step = fake_clock
    fleet = Fleet(tmp_path, redis_server.url, 2, gallery=gallery, models_dir=test_data / "models")
    stepped = fleet.workers[0]
    stepped.environment = stepped.environment | environment
    ids = cameras.ids[:4]
    for camera_id in ids:
        fleet.add_camera(camera_id, cameras.url(camera_id))
    with fleet.running():
        fleet.wait_until(fleet.balanced, 90, "every camera owned, and shared fairly")
        fleet.wait_until_read(ids)
        before = fleet.owners()
        own = [camera_id for camera_id, (owner, _) in before.items() if owner == stepped.name]
        assert own
        for offset in ("+3600s", "-3600s"):
            read_before, events_before = {camera_id: fleet.read(camera_id) for camera_id in own}, len(fleet.events())
            stepped_at = time.monotonic()
            step(offset)
            time.sleep(3 * LEASE_S)

            def told_again(since: int = events_before, offset_s: int = int(offset[:-1])) -> bool:
                """By the clock as it is set now: what was on its way bears the time of before."""
                told = [event for _, event in fleet.events()[since:] if event.camera_id in own]
                return any(abs(event.captured_at.timestamp() - time.time() - offset_s) < 1800 for event in told)

            fleet.wait_until(told_again, 60, f"events of its cameras after a step of {offset}")
            passed_s = time.monotonic() - stepped_at
            least_fps = min(fleet.read(camera_id) - read_before[camera_id] for camera_id in own) / passed_s
            assert fleet.owners() == before, offset
            assert least_fps > 1.0, offset
            tell(f"clock {offset}: {least_fps:.1f} frames/s of {cameras.fps:.1f}, owners and epochs unchanged")
        for worker in fleet.workers:
            assert worker.stop() == 0, worker.tail()
        assert told_twice(fleet.events()) == {}
    assert os.environ.get("LD_PRELOAD", "") == ""
