"""Workers are killed, one after another; nobody who was there is missed, and nothing is told twice."""

import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fault.cameras import Cameras
from tests.fault.checks import missed, overlapping_epochs, sightings_each, told_twice
from tests.fault.fleet import Fleet
from tests.support.redis_servers import RedisServer

pytestmark = [pytest.mark.data, pytest.mark.rtsp, pytest.mark.redis, pytest.mark.slow]

WORKERS = 4
OWNED_WITHIN_S = 60.0
"""A limit for a busy machine; how long it took is told."""


@pytest.mark.timeout(1800)
def test_killed_workers_cost_nobody_their_sighting(
    cameras: Cameras,
    gallery: Path,
    redis_server: RedisServer,
    test_data: Path,
    tmp_path: Path,
    pytestconfig: pytest.Config,
    tell: Callable[[str], None],
) -> None:
    chance = random.Random(20_261_123)
    fleet = Fleet(tmp_path, redis_server.url, WORKERS, gallery=gallery, models_dir=test_data / "models")
    for camera_id in cameras.ids:
        fleet.add_camera(camera_id, cameras.url(camera_id))
    taken_over_s = []
    with fleet.running():
        fleet.wait_until(fleet.all_owned, 90, "every camera owned")
        begun = time.time()
        for _ in range(pytestconfig.getoption("--fault-rounds")):
            victim = fleet.victim(chance)
            victim.kill()
            taken_over_s.append(fleet.wait_until(fleet.all_owned, OWNED_WITHIN_S, f"cameras of {victim.name} owned"))
            victim.start()
            owns = lambda name=victim.name: any(owner == name for owner, _ in fleet.owners().values())  # noqa: E731
            fleet.wait_until(owns, 60, f"{victim.name} takes part again")
            # One after another: a camera whose reader is killed again and again before its first frame shows nobody.
            fleet.wait_until_read_on(cameras.ids)
        # Whoever is in front of a camera now is named yet.
        time.sleep(5)
        ended = time.time()
        for worker in fleet.workers:
            assert worker.stop() == 0, worker.tail()
        entries = fleet.events()
    shown = cameras.shown(begun, ended)
    unnamed = missed(shown, entries)
    tell(f"{len(taken_over_s)} kills; all cameras owned again after {statistics.median(taken_over_s):.2f} s (median), "
         f"at most {max(taken_over_s):.2f} s; {len(shown) - len(unnamed)} of {len(shown)} visits named, "
         f"{sightings_each(shown, entries):.2f} sightings a visit, {len(entries)} entries, "
         f"{len({event.event_id for _, event in entries})} events")  # fmt: skip
    assert len(shown) >= 12
    assert unnamed == []
    assert overlapping_epochs(entries) == []
    assert told_twice(entries) == {}
