"""A visit goes on while its camera changes hands: one person, one sighting, whoever watches."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fault.cameras import Cameras
from tests.fault.checks import accepted, missed, overlapping_epochs, told_twice
from tests.fault.fleet import Fleet, Worker
from tests.support.redis_servers import RedisServer

pytestmark = [pytest.mark.data, pytest.mark.rtsp, pytest.mark.redis, pytest.mark.slow]

CAMERAS = 4


def kill(worker: Worker) -> None:
    worker.kill()


def stop(worker: Worker) -> None:
    assert worker.stop() == 0, worker.tail()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("leave", [stop, kill])
def test_the_sighting_stays_when_its_worker_leaves(
    leave: Callable[[Worker], None],
    cameras: Cameras,
    gallery: Path,
    redis_server: RedisServer,
    test_data: Path,
    tmp_path: Path,
    tell: Callable[[str], None],
) -> None:
    fleet = Fleet(tmp_path, redis_server.url, 2, gallery=gallery, models_dir=test_data / "models")
    ids = cameras.ids[:CAMERAS]
    for camera_id in ids:
        fleet.add_camera(camera_id, cameras.url(camera_id))
    with fleet.running():
        fleet.wait_until(fleet.balanced, 90, "every camera owned, and shared fairly")
        fleet.wait_until_read(ids)
        leaver, other = fleet.workers

        def open_sightings() -> set[str]:
            """Of people whom the worker has named, and who have come lately."""
            mine = [event for event in accepted(fleet.events()) if event.worker_id == leaver.name]
            lately = time.time() - 6
            named = {e.sighting_id for e in mine if e.identity_name and e.started_at.timestamp() > lately}
            return named - {event.sighting_id for event in mine if event.type == "ended"}

        fleet.wait_until(lambda: len(open_sightings()) > 0, 60, "somebody has just come")
        # Long enough for what is known of them to be kept, which is done every second.
        time.sleep(1.5)
        going_on, left_at = open_sightings(), time.time()
        leave(leaver)
        taken_s = fleet.wait_until(lambda: fleet.all_owned({other.name}), 60, f"{other.name} owns all")

        def ended_by_other() -> bool:
            ended = {e.sighting_id for e in accepted(fleet.events()) if e.type == "ended" and e.worker_id == other.name}
            return going_on <= ended

        fleet.wait_until(ended_by_other, 60, f"{going_on} ended by {other.name}")
        entries, now = fleet.events(), time.time()
        stop(other)
    visits = [visit for visit in cameras.shown(left_at - 20, now) if visit.camera_id in ids]
    crossing = [visit for visit in visits if visit.start < left_at < visit.end]
    tell(
        f"{leave.__name__}: cameras owned again after {taken_s:.2f} s, {len(going_on)} sightings went on under their id"
    )
    assert missed(crossing, entries) == []
    assert overlapping_epochs(entries) == []
    assert told_twice(entries) == {}
