"""A worker that stood still past its lease, and does not know it."""

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fault.cameras import Cameras
from tests.fault.checks import missed, overlapping_epochs, told_twice
from tests.fault.fleet import LEASE_S, Fleet
from tests.support.redis_servers import RedisServer

pytestmark = [pytest.mark.data, pytest.mark.rtsp, pytest.mark.redis, pytest.mark.slow]


@pytest.mark.timeout(300)
def test_nothing_of_a_past_epoch_is_accepted_from_a_worker_that_was_suspended(
    cameras: Cameras,
    gallery: Path,
    redis_server: RedisServer,
    test_data: Path,
    tmp_path: Path,
    tell: Callable[[str], None],
) -> None:
    fleet = Fleet(tmp_path, redis_server.url, 2, gallery=gallery, models_dir=test_data / "models")
    ids = cameras.ids[:4]
    for camera_id in ids:
        fleet.add_camera(camera_id, cameras.url(camera_id))
    chance = random.Random(7)
    with fleet.running():
        fleet.wait_until(fleet.balanced, 90, "every camera owned, and shared fairly")
        begun = time.time()
        for _ in range(2):
            frozen = fleet.victim(chance)
            before = fleet.owners()
            held = [camera_id for camera_id, (owner, _) in before.items() if owner == frozen.name]
            frozen.send(signal.SIGSTOP)
            (other,) = (worker.name for worker in fleet.workers if worker is not frozen)
            taken_s = fleet.wait_until(lambda: fleet.all_owned({other}), 60, f"{other} owns all")  # noqa: B023
            after = fleet.owners()
            assert all(after[camera_id][1] > before[camera_id][1] for camera_id in held)
            time.sleep(LEASE_S)
            frozen.send(signal.SIGCONT)

            def knows_better() -> bool:
                owned = {camera_id for camera_id, (owner, _) in fleet.owners().items() if owner == frozen.name}  # noqa: B023
                return frozen.metric("facestream_cameras_owned") == len(owned)  # noqa: B023

            fleet.wait_until(knows_better, 60, f"{frozen.name} has learnt that it was superseded")
            lost = frozen.metric("facestream_leases_lost_total", reason="superseded")
            tell(f"{len(held)} cameras taken over after {taken_s:.2f} s; {lost:.0f} found superseded")
            assert lost >= len(held)
            fleet.wait_until(fleet.balanced, 60, "the cameras are shared fairly again")
        time.sleep(5)
        ended = time.time()
        for worker in fleet.workers:
            assert worker.stop() == 0, worker.tail()
        entries = fleet.events()
    shown = [visit for visit in cameras.shown(begun, ended) if visit.camera_id in ids]
    assert overlapping_epochs(entries) == []
    assert told_twice(entries) == {}
    assert missed(shown, entries) == []
