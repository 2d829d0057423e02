"""The disk under the outbox fills up: said aloud, survived, and healed by room alone."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fault.cameras import Cameras
from tests.fault.fleet import Fleet
from tests.support.redis_servers import RedisServer
from worker.history.store import History

pytestmark = [pytest.mark.data, pytest.mark.rtsp, pytest.mark.redis, pytest.mark.slow]

SIZE_MB = 4


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a file system of its own needs leave to mount one (root)")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path) -> Path:
    """Leaves no byte."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (65_536, 4096, 1):
            try:
                while file.write(os.urandom(size)):
                    pass
            except OSError:
                continue
    return ballast


@pytest.mark.timeout(300)
def test_a_full_disk_is_told_costs_no_event_and_heals(
    cameras: Cameras,
    gallery: Path,
    redis_server: RedisServer,
    test_data: Path,
    small_disk: Path,
    tmp_path: Path,
    tell: Callable[[str], None],
) -> None:
    fleet = Fleet(
        tmp_path, redis_server.url, 1, gallery=gallery, models_dir=test_data / "models", state_dir=str(small_disk)
    )
    worker = fleet.workers[0]
    # By the configuration alone: the variable would go before it.
    worker.environment.pop("FACESTREAM_STATE_DIR")
    camera_id = cameras.ids[0]
    fleet.add_camera(camera_id, cameras.url(camera_id))
    with fleet.running():
        fleet.wait_until(fleet.all_owned, 90, "the camera owned")
        fleet.wait_until(lambda: len(fleet.events()) > 0, 60, "an event")
        ballast = fill(small_disk)
        degraded_s = fleet.wait_until(
            lambda: worker.metric("facestream_outbox_degraded") == 1, 60, "the full disk is noticed"
        )
        before = len(fleet.events())
        fleet.wait_until(lambda: len(fleet.events()) > before, 60, "events while the disk is full")
        worker.kill()
        worker.start()
        before = len(fleet.events())
        fleet.wait_until(lambda: len(fleet.events()) > before, 90, "events of a worker that met a full disk")
        ballast.unlink()
        healed_s = fleet.wait_until(lambda: worker.metric("facestream_outbox_degraded") == 0, 60, "the outbox heals")
        assert worker.metric("facestream_events_dropped_total") == 0
        assert worker.stop() == 0, worker.tail()
    tell(f"noticed after {degraded_s:.1f} s, healed {healed_s:.1f} s after there was room")
    with History.open(small_disk) as past:
        assert past.sightings()
    assert "full" in worker.log.read_text().lower()
